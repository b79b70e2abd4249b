/*
 * The gateway's port for our main socket, by PCP, NAT-PMP or UPnP (nat.h). Nobody but
 * the default gateway is asked, and only what comes from its port is read; UPnP is the work of
 * another process (src/upnp). The candidate is told to the sessions when it is there; it is given
 * back when we end.
 */
#include "daemon/internal.h"

#include <net/route.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUTES "/proc/self/net/route" /* as /proc/net, which a service manager may hide */

/* ---- the default gateway ---- */

/* One line of ROUTES; the address is in memory order. False: it is no default route. */
static bool parse_route(const char *line, uint32_t *ret_gateway, unsigned *ret_metric)
{
	unsigned destination, gateway, flags, metric, mask;

	if (sscanf(line, "%*15s %8x %8x %4x %*d %*d %u %8x", &destination, &gateway, &flags,
		   &metric, &mask) != 5)
		return false;
	if (destination || mask || (flags & (RTF_UP | RTF_GATEWAY)) != (RTF_UP | RTF_GATEWAY))
		return false;
	*ret_gateway = gateway;
	*ret_metric = metric;
	return true;
}

static bool find_gateway(struct endpoint *ret_gateway)
{
	FILE *file = fopen(ROUTES, "re");
	unsigned best = UINT32_MAX, metric;
	uint32_t gateway;
	char line[256];
	bool found = false;

	while (file && fgets(line, sizeof(line), file))
		if (parse_route(line, &gateway, &metric) && (!found || metric < best)) {
			found = true;
			best = metric;
			*ret_gateway = (struct endpoint){ .ip.family = FAMILY_IPV4,
							  .port = NAT_PORTMAP_PORT };
			memcpy(ret_gateway->ip.bytes, &gateway, sizeof(gateway));
		}
	if (file)
		fclose(file);
	return found;
}

bool portmap_gateway(struct ip_address *ret_ip)
{
	struct endpoint gateway;

	if (!find_gateway(&gateway))
		return false;
	*ret_ip = gateway.ip;
	return true;
}

/* ---- the mapping ---- */

/* Whether peers could reach it: what the gateway says is not simply believed, and what its own NAT
 * hides is of no use to them. */
static bool is_useful(const struct endpoint *external)
{
	return external->port != 0 && !ip_is_private(&external->ip) &&
	       nat_endpoint_check(external, false, NULL) == 0;
}

void portmap_tell(struct daemon *d, struct link *link)
{
	const struct nat_candidate c = { .kind = NAT_MAPPED,
					 .endpoint = d->portmap.client.external };

	/* One that another NAT hides is of use to those behind that NAT. */
	if (c.endpoint.port != 0 && nat_endpoint_check(&c.endpoint, false, NULL) == 0)
		session_add_local(link_session(link), &c, link_now_us(link));
}

static void tell_all(struct daemon *d)
{
	struct link *link;

	LIST_FOREACH (link, &d->links, entry) {
		portmap_tell(d, link);
		links_pump(link);
	}
}

/* What the client says now is news: into the log, and to the sessions. */
static void note_change(struct portmap *p, const struct endpoint *before)
{
	const struct endpoint *now = &p->client.external;
	char text[ENDPOINT_TEXT_BYTES];

	if (p->client.n_restarts != p->n_restarts)
		log_info("the gateway has restarted: asking it for our port again");
	p->n_restarts = p->client.n_restarts;
	if (p->client.state == NAT_PORTMAP_NONE && p->reason != p->client.reason)
		log_info("no port is mapped: %s", p->client.reason);
	p->reason = p->client.reason;
	if (p->client.state != NAT_PORTMAP_MAPPED || endpoint_equal(before, now))
		return;
	log_info("the gateway maps %s to us (%s)%s", endpoint_format(now, text),
		 nat_portmap_method_name(p->client.method),
		 is_useful(now) ? ""
				: "; it is behind a NAT itself, and so of use behind that alone");
	tell_all(p->daemon);
}

static void send_request(struct portmap *p, const uint8_t *data, size_t n_bytes)
{
	const struct net_udp_send send = {
		.to = p->gateway, .from = p->local, .data = data, .data_bytes = n_bytes
	};

	if (n_bytes > 0)
		(void)net_udp_send(p->udp, &send); /* lost: it is sent again */
}

static void igd_send(struct portmap *p, const struct nat_igd_request *request)
{
	/* It has room for hundreds; what it does not take is asked for again later. */
	if (send(p->daemon->options->upnp_fd, request, sizeof(*request), MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(*request))
		log_debug("q2q-tun-upnp takes no request: %s", strerror(errno));
}

static void move(struct portmap *p, uint64_t now_us)
{
	const struct endpoint before = p->told;
	uint8_t request[NAT_PORTMAP_BYTES_MAX];
	struct nat_igd_request igd;

	nat_portmap_tick(&p->client, now_us);
	send_request(p, request, nat_portmap_output(&p->client, request, now_us));
	if (nat_portmap_igd_output(&p->client, &igd, now_us))
		igd_send(p, &igd);
	note_change(p, &before);
	if (p->client.state == NAT_PORTMAP_MAPPED || p->client.state == NAT_PORTMAP_NONE)
		p->told = p->client.external;
	net_timer_arm(&p->timer, nat_portmap_deadline_us(&p->client));
}

static void on_timer(void *user, uint64_t now_us)
{
	move(user, now_us);
}

static void on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		       size_t n_packets, uint64_t now_us)
{
	struct portmap *p = user;

	for (size_t i = 0; i < n_packets; i++) {
		const uint8_t *data = packets[i].data;
		const size_t n_bytes = min_size(packets[i].segment_bytes, packets[i].data_bytes);

		if (endpoint_equal(&packets[i].from, &p->gateway) &&
		    (udp == p->announced
			     ? nat_portmap_announced(&p->client, data, n_bytes, now_us)
			     : nat_portmap_input(&p->client, data, n_bytes, now_us)) == 0)
			move(p, now_us);
	}
}

/* ---- q2q-tun-upnp ---- */

static void igd_gone(struct portmap *p)
{
	log_warn("q2q-tun-upnp has ended: ports are mapped by PCP and NAT-PMP alone");
	net_watch_want(&p->igd_watch, 0);
	p->igd = p->client.config.igd = false;
	p->unmap_id = 0;
}

static void on_igd(void *user, unsigned ready)
{
	struct portmap *p = user;
	struct nat_igd_answer answer;
	const ssize_t n_bytes =
		recv(p->igd_watch.fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_TRUNC);

	(void)ready;
	if (n_bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n_bytes != (ssize_t)sizeof(answer)) {
		igd_gone(p);
		return;
	}
	if (p->unmap_id && answer.id == p->unmap_id)
		p->unmap_id = 0;
	else if (nat_portmap_igd_input(&p->client, &answer, net_loop_now_us(p->daemon->loop)) == 0)
		move(p, net_loop_now_us(p->daemon->loop));
}

static void igd_start(struct portmap *p)
{
	const int fd = p->daemon->options->upnp_fd;

	if (fd < 0)
		return;
	net_watch_init(&p->igd_watch, p->daemon->loop, fd, on_igd, p);
	p->igd = net_watch_want(&p->igd_watch, NET_READ) == 0;
}

/* ---- life ---- */

static void give_back(struct portmap *p, const char *because)
{
	uint8_t request[NAT_PORTMAP_BYTES_MAX];
	struct nat_igd_request igd;

	if (p->igd && nat_portmap_igd_release(&p->client, &igd)) {
		igd_send(p, &igd);
		p->unmap_id = igd.id;
	}
	if (p->udp)
		send_request(p, request, nat_portmap_release(&p->client, request));
	net_timer_disarm(&p->timer);
	p->client = (struct nat_portmap){ .state = NAT_PORTMAP_IDLE };
	p->told = (struct endpoint){ 0 };
	p->n_restarts = 0;
	p->idle_reason = because;
}

static int open_sockets(struct portmap *p)
{
	static const uint8_t everybody[4] = { 224, 0, 0, 1 };
	struct net_udp_config config = { .bind.ip.family = FAMILY_IPV4,
					 .on_packets = on_packets,
					 .user = p,
					 .buffer_bytes = 4096 };
	const int r = p->udp ? 0 : net_udp_new(p->daemon->loop, &config, &p->udp);

	config.shared = true;
	config.bind.port = NAT_PORTMAP_ANNOUNCE_PORT;
	memcpy(config.bind.ip.bytes, everybody, sizeof(everybody));
	/* Without it, a gateway that restarts is noticed at the next renewal. */
	if (r == 0 && !p->announced && net_udp_new(p->daemon->loop, &config, &p->announced) < 0)
		p->announced = NULL;
	return r;
}

void portmap_restart(struct daemon *d)
{
	struct portmap *p = &d->portmap;
	const uint64_t now_us = net_loop_now_us(d->loop);
	struct nat_portmap_config config = {
		.lifetime_s = (uint32_t)d->options->port_mapping_lifetime_s,
		.igd = p->igd && d->options->port_mapping == DAEMON_PORT_MAPPING_AUTO
	};
	struct endpoint gateway, local;

	if (d->options->port_mapping == DAEMON_PORT_MAPPING_OFF || d->stopping)
		return;
	if (!find_gateway(&gateway) || gather_avoids(d, &gateway.ip)) {
		give_back(p, "there is no gateway to ask");
		return;
	}
	local = udp_local_for(d, udp_port(d), &gateway);
	if (p->client.state != NAT_PORTMAP_IDLE && endpoint_equal(&p->gateway, &gateway) &&
	    ip_equal(&p->local, &local.ip)) {
		tell_all(d);
		nat_portmap_renew(&p->client, now_us); /* it may have restarted */
		move(p, now_us);
		return;
	}
	give_back(p, "this machine has a public address of its own");
	if (local.ip.family != FAMILY_IPV4 || !ip_is_private(&local.ip))
		return;
	p->idle_reason = "this machine cannot ask";
	if (open_sockets(p) || crypto_random(config.nonce, sizeof(config.nonce)))
		return;
	p->gateway = gateway;
	p->local = local.ip;
	config.gateway = gateway.ip;
	config.local = local.ip;
	config.port = local.port;
	nat_portmap_start(&p->client, &config, now_us);
	move(p, now_us);
}

void portmap_reload(struct daemon *d)
{
	struct portmap *p = &d->portmap;

	give_back(p, "the configuration has changed");
	tell_all(d);
	portmap_restart(d);
}

void portmap_start(struct daemon *d)
{
	d->portmap.daemon = d;
	net_timer_init(&d->portmap.timer, d->loop, on_timer, &d->portmap);
	igd_start(&d->portmap);
	portmap_restart(d);
}

void portmap_release(struct daemon *d)
{
	if (d->portmap.daemon)
		give_back(&d->portmap, "the daemon is ending");
}

bool portmap_is_released(const struct daemon *d)
{
	return d->portmap.unmap_id == 0;
}

void portmap_stop(struct daemon *d)
{
	struct portmap *p = &d->portmap;

	if (!p->daemon)
		return;
	give_back(p, "the daemon is ending");
	net_udp_free(p->udp);
	net_udp_free(p->announced);
	p->udp = p->announced = NULL;
	net_watch_fini(&p->igd_watch);
	/* Closing it tells q2q-tun-upnp to end. */
	if (d->options->upnp_fd >= 0)
		close(d->options->upnp_fd);
}

/* ---- what became of it ---- */

bool portmap_helps(const struct daemon *d)
{
	return is_useful(&d->portmap.client.external);
}

static const char *state_word(const struct portmap *p)
{
	switch (p->client.state) {
	case NAT_PORTMAP_MAPPED:
		return is_useful(&p->client.external) ? "mapped" : "useless";
	case NAT_PORTMAP_ASKING:
		return is_useful(&p->client.external) ? "mapped" : "asking";
	case NAT_PORTMAP_NONE:
		return "none";
	default:
		return p->daemon->options->port_mapping == DAEMON_PORT_MAPPING_OFF ? "off" : "idle";
	}
}

static void in_words(const struct portmap *p, char *out, size_t out_bytes)
{
	const struct nat_portmap *m = &p->client;
	const char *method = nat_portmap_method_name(m->method);
	char outside[ENDPOINT_TEXT_BYTES];

	endpoint_format(&m->external, outside);
	if (is_useful(&m->external))
		snprintf(out, out_bytes, "your router maps UDP %s to this machine by %s", outside,
			 method);
	else if (m->state == NAT_PORTMAP_MAPPED)
		snprintf(out, out_bytes,
			 "your router maps UDP %s to this machine by %s, but is behind a NAT "
			 "itself: that helps only peers behind the same one",
			 outside, method);
	else if (m->state == NAT_PORTMAP_ASKING)
		snprintf(out, out_bytes, "your router is being asked for a port by %s", method);
	else if (m->state == NAT_PORTMAP_NONE)
		snprintf(out, out_bytes, "your router maps no port: %s", m->reason);
	else if (p->daemon->options->port_mapping == DAEMON_PORT_MAPPING_OFF)
		snprintf(out, out_bytes, "your router is not asked for a port: port-mapping = off");
	else
		snprintf(out, out_bytes, "no router is asked for a port: %s", p->idle_reason);
}

static int64_t until_s(const struct portmap *p)
{
	const uint64_t now_us = net_loop_now_us(p->daemon->loop);

	if (p->client.external.port == 0 || p->client.expires_us == NEVER_US)
		return 0;
	return wall_clock_s() +
	       (int64_t)((max_u64(p->client.expires_us, now_us) - now_us) / US_PER_S);
}

json_t *portmap_json(const struct daemon *d)
{
	const struct portmap *p = &d->portmap;
	const bool mapped = p->client.external.port != 0;
	char text[256], outside[ENDPOINT_TEXT_BYTES] = "";

	in_words(p, text, sizeof(text));
	if (mapped)
		endpoint_format(&p->client.external, outside);
	return json_pack("{s:s,s:s,s:s,s:I,s:s}", "state", state_word(p), "method",
			 mapped ? nat_portmap_method_name(p->client.method) : "", "outside",
			 outside, "until", (json_int_t)until_s(p), "text", text);
}
