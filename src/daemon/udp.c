/*
 * UDP: one main socket for all peers, fresh ones for one peer each. A datagram
 * is given to whom its first bytes name: STUN, a channel, a nat agent, an association.
 */
#include "daemon/internal.h"

#include <stdio.h>
#include <sys/socket.h>

enum { SHORTEST_DATAGRAM = 20 };

/* ---- in ---- */

static bool is_channel(const uint8_t *data, size_t n_bytes)
{
	return q2q_channel_kind(data, n_bytes) != Q2Q_CHANNEL_NONE;
}

static_assert(NAT_TAG_BYTES == PTCP_CID_BYTES && Q2Q_CHANNEL_BYTES == PTCP_CID_BYTES,
	      "bytes 1..8 are a name");

/* Bytes 1..8 name whose it is, whatever it is. 0: nobody's. */
static enum session_name_kind name_kind(const uint8_t *data, size_t n_bytes)
{
	if ((data[0] & 0xc0) == 0x80)
		return SESSION_NAME_TAG;
	if (ptcp_is_packet(data, n_bytes))
		return SESSION_NAME_CID;
	return is_channel(data, n_bytes) ? SESSION_NAME_CHANNEL : 0;
}

static void deliver(struct link *link, uint8_t number, const struct endpoint *from, uint8_t ecn,
		    uint8_t *data, size_t n_bytes, uint64_t now_us)
{
	if (is_channel(data, n_bytes))
		session_channel_input(link->session, from, data, n_bytes, now_us);
	else
		session_input(link->session, number, from, data, n_bytes, ecn, now_us);
	links_pump(link);
}

/*
 * Of two kinds are names that others chose, which say nothing of a worker: a probe's, and that of a
 * relay channel whose link had another worker before. The kernel gives those to the first one.
 */
static bool pass_on(struct udp_socket *s, enum session_name_kind kind,
		    const struct net_udp_packet *packet, const uint8_t *data, size_t n_bytes)
{
	struct daemon *d = s->worker->daemon;
	struct worker *to;

	if (d->n_workers == 1 || s->number != 0)
		return false;
	to = directory_find(d, kind, data + 1, PTCP_CID_BYTES);
	if (!to || to == s->worker)
		return false;
	workers_pass_datagram(to, &packet->from, packet->ecn, data, n_bytes);
	return true;
}

void udp_passed(struct worker *w, const struct endpoint *from, uint8_t ecn, uint8_t *data,
		size_t n_bytes)
{
	struct link *link = index_find(w, name_kind(data, n_bytes), data + 1, PTCP_CID_BYTES);

	if (link)
		deliver(link, 0, from, ecn, data, n_bytes, net_loop_now_us(w->loop));
	else
		w->udp.n_strange++;
}

static bool stun_input(struct udp_socket *s, const struct endpoint *from, const uint8_t *data,
		       size_t n_bytes)
{
	if (workers_in_control())
		return gather_input(s->worker->daemon, s, from, data, n_bytes);
	workers_tell_stun(s, from, data, n_bytes);
	return true;
}

static void input(struct udp_socket *s, struct net_udp_packet *packet, uint8_t *data,
		  size_t n_bytes, uint64_t now_us)
{
	struct worker *w = s->worker;
	enum session_name_kind kind;
	struct link *link;

	if (n_bytes < SHORTEST_DATAGRAM) {
		w->udp.n_strange++;
		return;
	}
	if (data[0] < 4) {
		if (!stun_input(s, &packet->from, data, n_bytes))
			w->udp.n_strange++;
		return;
	}
	kind = name_kind(data, n_bytes);
	link = kind ? index_find(w, kind, data + 1, PTCP_CID_BYTES) : NULL;
	if (link)
		deliver(link, s->number, &packet->from, packet->ecn, data, n_bytes, now_us);
	else if (!kind || !pass_on(s, kind, packet, data, n_bytes))
		w->udp.n_strange++;
}

static void on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		       size_t n_packets, uint64_t now_us)
{
	struct udp_socket *s = user;

	(void)udp;
	for (size_t i = 0; i < n_packets; i++)
		for (size_t at = 0; at < packets[i].data_bytes; at += packets[i].segment_bytes)
			input(s, &packets[i], packets[i].data + at,
			      min_size(packets[i].segment_bytes, packets[i].data_bytes - at),
			      now_us);
}

/* ---- out ---- */

static void on_writable(void *user, struct net_udp *udp)
{
	struct udp_socket *s = user;

	(void)udp;
	s->worker->udp.blocked = false;
	links_pump_waiting(s->worker);
}

void udp_send(struct link *link, const struct session_send *send)
{
	const struct net_udp_send out = {
		.to = send->to,
		.data = send->data,
		.data_bytes = send->n_bytes,
		.segment_bytes = send->segment_bytes,
		.ecn = send->ecn,
		.dscp = send->dscp,
		.ttl = send->ttl,
	};
	struct udp *udp = &link->worker->udp;
	struct udp_socket *s = send->socket < UDP_SOCKETS_MAX ? &udp->sockets[send->socket] : NULL;
	int r;

	if (send->volley) {
		volley_send(link, send);
		return;
	}
	if (s && s->number == 0 && link->worker->number != 0 &&
	    is_channel(send->data, send->n_bytes))
		s = &link->worker->channel;
	if (!s || !s->udp)
		return;
	r = net_udp_send(s->udp, &out);
	if (r == NET_UDP_BLOCKED)
		udp->blocked = true;
	else if (r == -EMSGSIZE)
		session_too_big(link->session, send, link_now_us(link));
	/* Others: the path does not work now, and its silence will show it. */
}

uint16_t udp_port(const struct daemon *d)
{
	return d->workers[0].udp.sockets[0].local.port;
}

struct endpoint udp_route(const struct endpoint *remote)
{
	struct endpoint local = { .port = 0 }, found;
	struct sockaddr_storage sa;
	socklen_t sa_bytes = (socklen_t)endpoint_to_sockaddr(remote, false, &sa);
	_cleanup_(closep) int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	/* Connecting sends nothing; it asks the kernel for a route. */
	if (fd < 0 || connect(fd, (const struct sockaddr *)&sa, sa_bytes))
		return local;
	sa_bytes = sizeof(sa);
	if (!getsockname(fd, (struct sockaddr *)&sa, &sa_bytes) &&
	    !endpoint_from_sockaddr((const struct sockaddr *)&sa, &found)) {
		local.ip = found.ip;
		local.scope_id = found.scope_id;
	}
	return local;
}

struct endpoint udp_local_for(const struct daemon *d, uint16_t port, const struct endpoint *remote)
{
	const struct endpoint to = net_nat64_outward(d->loop, remote);
	struct endpoint local = udp_route(&to);

	local.port = port;
	return local;
}

/* ---- sockets ---- */

static struct net_udp_config config_of(struct udp_socket *s, uint16_t port)
{
	return (struct net_udp_config){
		.bind = { .port = port },
		.shared_port = s->number == 0 && s->worker->number != 0 && port != 0,
		.on_packets = on_packets,
		.on_writable = on_writable,
		.user = s,
		.buffer_bytes = s->number ? 256 * 1024 : 0,
	};
}

static void socket_opened(struct udp_socket *s)
{
	s->local = net_udp_local(s->udp);
	s->ipv4 = net_udp_has_family(s->udp, FAMILY_IPV4);
	s->ipv6 = net_udp_has_family(s->udp, FAMILY_IPV6);
}

static int open_socket(struct worker *w, struct udp_socket *s, uint8_t number, uint16_t port)
{
	struct net_udp_config config;
	int r;

	*s = (struct udp_socket){ .worker = w, .number = number };
	config = config_of(s, port);
	r = net_udp_new(w->loop, &config, &s->udp);
	if (r) {
		s->udp = NULL;
		return r;
	}
	socket_opened(s);
	return 0;
}

/* The sockets of the other workers, and which datagrams each of them gets. */
static int start_others(struct daemon *d)
{
	const struct net_udp_steering steering = {
		.mask = 0xc0,
		.value = 0x40, /* sealed packets: our connection ids say whose they are */
		.at = 1,
		.n_sockets = (uint8_t)d->n_workers,
	};
	struct net_udp *first = d->workers[0].udp.sockets[0].udp;
	int r = net_udp_share_port(first);

	for (unsigned i = 1; i < d->n_workers && !r; i++) {
		struct worker *w = &d->workers[i];

		r = open_socket(w, &w->udp.sockets[0], 0, udp_port(d));
		if (!r)
			r = open_socket(w, &w->channel, 0, 0);
	}
	/* Without it, all that the kernel gives to the wrong worker is passed on. */
	if (!r && net_udp_steer(first, &steering))
		log_warn("the kernel does not give datagrams to their workers: this is slower");
	return r;
}

int udp_start(struct daemon *d)
{
	const uint16_t port = (uint16_t)d->options->port;
	int r = open_socket(&d->workers[0], &d->workers[0].udp.sockets[0], 0, port);

	if (!r && d->n_workers > 1)
		r = start_others(d);
	if (r)
		log_error("cannot open UDP port %u: %s%s", port, strerror(-r),
			  r == -EADDRINUSE
				  ? ". Another program uses it; choose one with --port, or 0 "
				    "for any"
				  : "");
	else
		log_info("UDP port %u", udp_port(d));
	return r;
}

static void stop_worker(struct worker *w)
{
	volley_close(w, NULL);
	for (unsigned i = 0; i < UDP_SOCKETS_MAX; i++)
		udp_close(w, (uint8_t)i);
	net_udp_free(w->channel.udp);
	w->channel.udp = NULL;
}

void udp_stop(struct daemon *d)
{
	for (unsigned i = 0; i < d->n_workers; i++)
		stop_worker(&d->workers[i]);
}

/* NULL: all are in use. */
static struct udp_socket *free_socket(struct worker *w, uint8_t *ret_number)
{
	for (unsigned i = 1; i < UDP_SOCKETS_MAX; i++)
		if (!w->udp.sockets[i].udp) {
			*ret_number = (uint8_t)i;
			return &w->udp.sockets[i];
		}
	return NULL;
}

int udp_open(struct link *owner, struct udp_socket **ret_socket)
{
	struct worker *w = owner->worker;
	uint8_t number;
	struct udp_socket *s = free_socket(w, &number);
	const int r = s ? open_socket(w, s, number, 0) : -EMFILE;

	if (r)
		return r;
	s->owner = owner;
	*ret_socket = s;
	return 0;
}

int udp_adopt(struct link *owner, struct net_udp *udp, struct udp_socket **ret_socket)
{
	struct worker *w = owner->worker;
	uint8_t number;
	struct udp_socket *s = free_socket(w, &number);
	struct net_udp_config config;

	if (!s)
		return -EMFILE;
	*s = (struct udp_socket){ .worker = w, .number = number, .owner = owner, .udp = udp };
	config = config_of(s, 0);
	net_udp_hand_over(udp, &config);
	socket_opened(s);
	*ret_socket = s;
	return 0;
}

void udp_close(struct worker *w, uint8_t number)
{
	struct udp_socket *s = &w->udp.sockets[number];

	if (!s->udp)
		return;
	gather_forget_socket(s);
	if (net_udp_is_blocked(s->udp)) {
		w->udp.blocked = false;
		links_pump_waiting(w);
	}
	net_udp_free(s->udp);
	*s = (struct udp_socket){ .worker = w };
}
