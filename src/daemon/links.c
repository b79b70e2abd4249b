/*
 * Links: for each peer with something going on, its session, its TUN device and
 * the traffic between them, the sockets and the servers.
 *
 * links_pump_now() is the only driver of a session: packets for the device, events,
 * signals, datagrams, then one timer. Everybody else gives input and calls
 * links_pump(), so one wake-up with many datagrams ends in one pump.
 */
#include "daemon/internal.h"

#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#define TUN_READS_PER_WAKE_UP 64
#define PUMP_ROUNDS_MAX       32 /* then others get their turn */

/* ---- attempts ---- */

void links_attempt_failed(struct link *link, enum session_why why, const struct problem *problem)
{
	char request[OFFER_ID_BYTES + 1];

	if (link->problem.code != problem->code || strcmp(link->problem.error, problem->error))
		log_info("%s: %s", link->peer->address.text, problem->error);
	link->problem = *problem;
	memcpy(request, link->asking, sizeof(request));
	session_answer_failed(link->session, request, why, problem->error,
			      net_loop_now_us(link->daemon->loop));
	links_pump(link);
	control_link_changed(link->daemon, link);
}

/* What a state without an attempt of ours means to the user. */
static void problem_of_why(const struct link *link, const struct session_status *status,
			   struct problem *p)
{
	const char *peer = link->peer->address.text, *own = link->identity->address.text;

	switch (status->why) {
	case SESSION_WHY_PEER_DOWN:
		problem_set(p, CTL_DENIED, "%s has taken its side of this tunnel down", peer);
		problem_hint(p, "on the machine of %s: q2q-tun up %s", peer, own);
		return;
	case SESSION_WHY_REFUSED:
		problem_set(p, CTL_DENIED, "%s does not allow %s any more", peer, own);
		problem_hint(p, "on the machine of %s: q2q-tun allow %s", peer, own);
		return;
	case SESSION_WHY_REJECTED:
		problem_set(p, CTL_DENIED, "%s does not accept our certificate (%s)", peer,
			    status->why_text);
		problem_hint(p,
			     "has the key of %s changed? On the machine of %s: q2q-tun log, and "
			     "q2q-tun peers list",
			     own, peer);
		return;
	case SESSION_WHY_UNTRUSTED:
		problem_set(p, CTL_UNTRUSTED,
			    "the certificate that %s shows is not the right one "
			    "(%s)",
			    peer, status->why_text);
		return;
	case SESSION_WHY_GOING_AWAY:
		problem_set(p, CTL_OFFLINE, "the daemon of %s has ended", peer);
		return;
	case SESSION_WHY_LOST:
		problem_set(p, CTL_OFFLINE, "%s cannot be reached any more", peer);
		return;
	case SESSION_WHY_TIMED_OUT:
		problem_set(p, CTL_TIMED_OUT, "no answer from %s in time (%s)", peer,
			    status->why_text);
		return;
	case SESSION_WHY_STOPPED:
		problem_set(p, CTL_OFFLINE, "the tunnel to %s is down", peer);
		return;
	default:
		problem_set(p, CTL_FAILED, "the tunnel to %s is not up%s%s", peer,
			    *status->why_text ? ": " : "", status->why_text);
		return;
	}
}

bool links_problem(struct link *link, struct problem *ret_problem)
{
	struct session_status status;

	session_get_status(link->session, &status);
	if (status.state == SESSION_UP)
		return false;
	if (link->problem.code)
		*ret_problem = link->problem;
	else if (status.why != SESSION_WHY_NONE)
		problem_of_why(link, &status, ret_problem);
	else
		problem_set(ret_problem, CTL_TIMED_OUT, "the tunnel to %s is not up yet (%s)",
			    link->peer->address.text, session_state_name(status.state));
	return true;
}

/* ---- device ---- */

static void device_close(struct link *link)
{
	struct tun_request request = { .type = TUN_REQUEST_LINK_DELETE, .slot = link->slot };

	net_watch_fini(&link->tun_watch);
	closep(&link->tun_fd);
	link->tun_fd = -1;
	if (link->device == DEVICE_READY || link->device == DEVICE_ASKED)
		daemon_monitor_send(link->daemon, &request);
	link->device = DEVICE_NONE;
	link->daemon->device_changed_us = net_loop_now_us(link->daemon->loop);
}

static bool slot_taken(const struct daemon *d, uint32_t slot)
{
	const struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		if (link->slot == slot)
			return true;
	return false;
}

static int device_ask(struct link *link)
{
	struct tun_request request = { .type = TUN_REQUEST_LINK_CREATE,
				       .slot = link->slot,
				       .addresses = link->shown };
	int r;

	tun_name_from_address(link->peer->address.text, request.ifname);
	snprintf(request.alias, sizeof(request.alias), "%.*s", (int)sizeof(request.alias) - 1,
		 link->peer->address.text);
	link->device_request = request.id = ++link->daemon->monitor_id;
	link->device = DEVICE_ASKED;
	r = daemon_monitor_send(link->daemon, &request);
	if (r)
		link->device = DEVICE_FAILED;
	return r;
}

static void on_tun(void *user, unsigned ready);

void links_on_reply(struct daemon *d, const struct tun_reply *reply, int fd)
{
	struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		if (link->device == DEVICE_ASKED && link->device_request == reply->id)
			break;
	if (!link) {
		closep(&fd); /* of a link that went meanwhile */
		return;
	}
	if (reply->status || fd < 0) {
		closep(&fd);
		link->device = DEVICE_FAILED;
		problem_set(&link->problem, CTL_FAILED,
			    "cannot make the network interface for %s: %s",
			    link->peer->address.text, strerror(-reply->status));
		problem_hint(&link->problem, "does /dev/net/tun exist? Is the kernel module tun "
					     "loaded?");
		log_error("%s: %s", link->peer->address.text, link->problem.error);
		control_link_changed(d, link);
		return;
	}
	link->device = DEVICE_READY;
	d->device_changed_us = net_loop_now_us(d->loop);
	link->tun_fd = fd;
	link->features = reply->features;
	snprintf(link->ifname, sizeof(link->ifname), "%s", reply->ifname);
	net_watch_init(&link->tun_watch, d->loop, fd, on_tun, link);
	session_set_device(link->session, &link->shown, link->features);
	log_debug("%s: interface %s", link->peer->address.text, link->ifname);
	links_pump(link);
	control_link_changed(d, link);
}

/* ---- virtual addresses ---- */

struct taken {
	struct daemon *daemon;
	const struct peer *self;
};

static bool address_taken(void *user, const uint8_t ip4[static 4])
{
	const struct taken *t = user;
	struct link *link;

	LIST_FOREACH (link, &t->daemon->links, entry)
		if (link->peer != t->self &&
		    (!memcmp(link->shown.peer4, ip4, 4) || !memcmp(link->shown.own4, ip4, 4)))
			return true;
	return tun_route_taken4(ip4) == 1;
}

static bool own_taken(void *user, const uint8_t ip4[static 4])
{
	const struct taken *t = user;
	struct link *link;

	/* Our own address stands on every interface of that identity. */
	LIST_FOREACH (link, &t->daemon->links, entry)
		if (!memcmp(link->shown.own4, ip4, 4))
			return false;
	return tun_route_taken4(ip4) == 1;
}

static int choose_addresses(struct link *link)
{
	struct taken taken = { .daemon = link->daemon, .self = link->peer };
	struct peer *peer = link->peer;
	struct vip own, other;
	int r = vip_from_address(link->identity->address.text, &own);

	if (!r)
		r = vip_from_address(peer->address.text, &other);
	if (!r)
		r = vip_choose4(link->identity->address.text, own_taken, &taken, link->shown.own4);
	if (r)
		return r;
	memcpy(link->shown.own6, own.ip6, sizeof(own.ip6));
	memcpy(link->shown.peer6, other.ip6, sizeof(other.ip6));
	/* What the user saw before stays, as long as it is free. */
	if (peer->has_local4 && !address_taken(&taken, peer->local4)) {
		memcpy(link->shown.peer4, peer->local4, sizeof(peer->local4));
		return 0;
	}
	r = vip_choose4(peer->address.text, address_taken, &taken, link->shown.peer4);
	if (r)
		return r;
	peer->has_local4 = memcmp(link->shown.peer4, other.ip4, sizeof(other.ip4)) != 0;
	memcpy(peer->local4, link->shown.peer4, sizeof(peer->local4));
	if (peer->has_local4)
		log_note("%s: its IPv4 address is in use here already; it is shown as %u.%u.%u.%u",
			 peer->address.text, peer->local4[0], peer->local4[1], peer->local4[2],
			 peer->local4[3]);
	return peers_save(link->daemon, peer);
}

/* ---- packets from the device ---- */

static void tun_want(struct link *link, bool wanted)
{
	if (link->device == DEVICE_READY && link->tun_wanted != wanted &&
	    !net_watch_want(&link->tun_watch, wanted ? NET_READ : 0))
		link->tun_wanted = wanted;
}

static void device_lost(struct link *link)
{
	log_error("%s: the interface %s is gone", link->peer->address.text, link->ifname);
	device_close(link);
	device_ask(link);
}

static void on_tun(void *user, unsigned ready)
{
	static uint8_t discard[TUN_FRAME_BYTES];
	struct link *link = user;
	const uint64_t now_us = net_loop_now_us(link->daemon->loop);

	(void)ready;
	for (unsigned i = 0; i < TUN_READS_PER_WAKE_UP; i++) {
		uint8_t *room = discard;
		const int how = session_tun_room(link->session, &room);
		int n;

		if (how == SESSION_BLOCKED) {
			tun_want(link, false);
			break;
		}
		n = tun_device_read(link->tun_fd, link->features, room, TUN_FRAME_BYTES);
		if (how == 0)
			session_tun_commit(link->session, n > 0 ? (size_t)n : 0, now_us);
		if (n == -EBADFD) {
			device_lost(link);
			break;
		}
		if (n <= 0)
			break;
	}
	links_pump(link);
}

/* ---- packets to the device ---- */

static void tun_write(struct link *link, const struct session_frame *frame)
{
	const bool vnet = link->features & TUN_FEATURE_VNET;
	const struct iovec parts[] = {
		{ .iov_base = (void *)(uintptr_t)frame->header, .iov_len = TUN_VNET_BYTES },
		{ .iov_base = (void *)(uintptr_t)frame->packet, .iov_len = frame->packet_bytes },
	};

	if (link->device != DEVICE_READY ||
	    writev(link->tun_fd, vnet ? parts : parts + 1, vnet ? 2 : 1) < 0)
		link->tun_write_dropped++;
}

/* ---- events ---- */

static json_t *state_event(const struct link *link, const struct session_status *status)
{
	return json_pack("{s:s,s:s,s:s,s:s}", "peer", link->peer->address.text, "state",
			 session_state_name(status->state), "path",
			 !status->has_path ? "none"
			 : status->relay   ? "relay-tcp"
					   : "direct-udp",
			 "reason", status->why_text);
}

/* After a restart those who may wait for us are asked once. */
static void note_linked(struct link *link, enum session_state to,
			const struct session_status *status)
{
	const bool ended =
		to == SESSION_DOWN && !link->daemon->stopping &&
		(status->why == SESSION_WHY_PEER_DOWN || status->why == SESSION_WHY_REFUSED ||
		 status->why == SESSION_WHY_STOPPED);
	const bool linked = to == SESSION_UP || (link->peer->linked && !ended);

	if (linked == link->peer->linked)
		return;
	link->peer->linked = linked;
	peers_save(link->daemon, link->peer);
}

static void on_state(struct link *link, const struct session_event *event)
{
	struct session_status status;

	session_get_status(link->session, &status);
	link->since_s = wall_clock_s();
	note_linked(link, event->state.to, &status);
	if (event->state.to == SESSION_UP) {
		link->problem.code = CTL_DONE;
		log_note("%s: up", link->peer->address.text);
	} else if (event->state.from == SESSION_UP) {
		link->problem.code = CTL_DONE;
		log_note("%s: not up any more (%s)%s%s", link->peer->address.text,
			 session_state_name(event->state.to), *status.why_text ? ": " : "",
			 status.why_text);
	}
	/* Blocked while connecting: go on. */
	tun_want(link, true);
	control_event(link->daemon, state_event(link, &status));
	control_link_changed(link->daemon, link);
}

static void on_path(struct link *link)
{
	struct session_status status;
	char text[ENDPOINT_TEXT_BYTES];

	session_get_status(link->session, &status);
	if (status.has_path)
		log_note("%s: now %s %s", link->peer->address.text,
			 status.relay ? "through the relay" : "directly to",
			 status.relay ? "" : endpoint_format(&status.remote, text));
	control_event(link->daemon, state_event(link, &status));
	control_link_changed(link->daemon, link);
}

static void on_pong(struct link *link, const struct session_event *event)
{
	struct op *op, *next;

	for (op = TAILQ_FIRST(&link->daemon->ops); op; op = next) {
		next = TAILQ_NEXT(op, all);
		if (op->peer == link->peer && op->on_pong)
			op->on_pong(op, event->pong.id, event->pong.rtt_us, link);
	}
}

static void want_socket(struct link *link)
{
	struct udp_socket *socket;

	if (!udp_open(link->daemon, link, &socket))
		gather_socket(link->daemon, socket);
}

static void socket_unused(struct link *link, uint8_t number)
{
	session_remove_socket(link->session, number, net_loop_now_us(link->daemon->loop));
	if (number != 0)
		udp_close(link->daemon, number);
}

static void on_session_event(struct link *link, const struct session_event *event)
{
	switch (event->type) {
	case SESSION_EVENT_STATE:
		on_state(link, event);
		return;
	case SESSION_EVENT_ASK:
		if (!link->daemon->stopping)
			hub_ask(link, event->request);
		return;
	case SESSION_EVENT_PATH:
		on_path(link);
		return;
	case SESSION_EVENT_PONG:
		on_pong(link, event);
		return;
	case SESSION_EVENT_TUN_ROOM:
		tun_want(link, true);
		return;
	case SESSION_EVENT_WANT_SOCKET:
		want_socket(link);
		return;
	case SESSION_EVENT_SOCKET_UNUSED:
		if (event->socket != 0)
			socket_unused(link, event->socket);
		return;
	default:
		return;
	}
}

/* ---- the pump ---- */

static bool move_datagrams(struct link *link, uint64_t now_us)
{
	struct session_send send;
	bool moved = false;

	for (unsigned i = 0; i < PUMP_ROUNDS_MAX && !link->daemon->udp.blocked; i++) {
		if (!session_output(link->session, &send, now_us))
			return moved;
		moved = true;
		if (send.relay)
			hub_signal(link->daemon, send.route, send.id, send.data, send.n_bytes,
				   true);
		else
			udp_send(link->daemon, link, &send);
	}
	/* There is more: after the others. */
	if (!link->daemon->udp.blocked)
		links_pump(link);
	return moved;
}

void links_pump_now(struct link *link)
{
	const uint64_t now_us = net_loop_now_us(link->daemon->loop);
	struct session_signal_out signal;
	struct session_event event;
	struct session_frame frame;
	bool moved;

	net_soon_cancel(&link->pump);
	if (now_us >= session_deadline_us(link->session))
		session_tick(link->session, now_us);
	do {
		moved = false;
		while (session_tun_next(link->session, &frame))
			tun_write(link, &frame);
		while (session_next_event(link->session, &event)) {
			on_session_event(link, &event);
			moved = true;
		}
		while (session_next_signal(link->session, &signal))
			hub_signal(link->daemon, signal.route, signal.id, signal.body,
				   signal.n_bytes, false);
		moved = move_datagrams(link, now_us) || moved;
	} while (moved && !link->pump.queued);
	net_timer_arm(&link->timer, session_deadline_us(link->session));
}

static void on_soon(void *user)
{
	links_pump_now(user);
}

static void on_timer(void *user, uint64_t now_us)
{
	struct link *link = user;

	session_tick(link->session, now_us);
	links_pump_now(link);
}

void links_pump(struct link *link)
{
	net_soon_queue(&link->pump);
}

void links_pump_all(struct daemon *d)
{
	struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		links_pump(link);
}

/* ---- what a session asks of us ---- */

static int verify_peer(void *user, struct crypto_cert *cert)
{
	struct link *link = user;
	struct problem problem;

	switch (peers_judge(link->daemon, link->peer, cert, &problem)) {
	case PEER_TRUSTED:
		return CRYPTO_VERIFY_OK;
	case PEER_UNPINNED:
		return CRYPTO_VERIFY_REFUSED;
	default:
		link->problem = problem;
		return CRYPTO_VERIFY_KEY_CHANGED;
	}
}

static bool refuse_address(void *user, const struct ip_address *ip)
{
	(void)user;
	/* Tunnels inside of tunnels go round in circles. */
	return ip->family == FAMILY_IPV6 && vip_is_ip6(ip->bytes);
}

static void trace(void *user, const char *what, const char *from, const char *to,
		  const char *because)
{
	const struct link *link = user;

	log_debug("%s: %s %s -> %s because %s", link->peer->address.text, what, from ? from : "-",
		  to ? to : "-", because ? because : "-");
}

/* ---- life ---- */

static int make_session(struct link *link)
{
	const struct session_config config = {
		.own_address = link->identity->address.text,
		.peer_address = link->peer->address.text,
		.device = link->daemon->device,
		.tls = link->identity->tls_ptcp,
		.own_key = link->identity->key,
		.shown = link->shown,
		.verify = verify_peer,
		.random = daemon_random,
		.refuse = refuse_address,
		.trace = trace,
		.user = link,
		.flow_seed = link->daemon->seed,
	};

	return session_new(&config, net_loop_now_us(link->daemon->loop), &link->session);
}

static int link_make(struct daemon *d, struct peer *peer, struct identity *identity,
		     struct link **ret_link)
{
	struct link *link = calloc(1, sizeof(*link));
	int r;

	if (!link)
		return -ENOMEM;
	link->daemon = d;
	link->peer = peer;
	link->identity = identity;
	link->tun_fd = -1;
	link->since_s = wall_clock_s();
	while (slot_taken(d, link->slot))
		link->slot++;
	net_timer_init(&link->timer, d->loop, on_timer, link);
	net_soon_init(&link->pump, d->loop, on_soon, link);
	r = link->slot < TUN_SLOTS_MAX ? choose_addresses(link) : -ENOSPC;
	if (!r)
		r = make_session(link);
	if (r) {
		free(link);
		return r;
	}
	LIST_INSERT_HEAD(&d->links, link, entry);
	peer->link = link;
	session_set_path_mode(link->session, peer->path_mode, net_loop_now_us(d->loop));
	gather_tell(d, link);
	r = device_ask(link);
	if (r) {
		links_free(link);
		return r;
	}
	*ret_link = link;
	return 0;
}

struct link *links_get(struct daemon *d, struct peer *peer, struct problem *ret_problem)
{
	struct identity *identity = identities_default(&d->identities, *peer->as ? peer->as : NULL);
	struct link *link;
	int r;

	if (!identity) {
		problem_set(ret_problem, CTL_NOT_FOUND, "this machine has no identity%s%s",
			    *peer->as ? " " : "", peer->as);
		problem_hint(ret_problem, "q2q-tun register YOU@DOMAIN, or q2q-tun authorize for "
					  "an account that exists");
		return NULL;
	}
	if (peer->link && peer->link->identity == identity)
		return peer->link;
	links_free(peer->link);
	r = link_make(d, peer, identity, &link);
	if (!r)
		return link;
	problem_set(ret_problem, CTL_FAILED, "cannot make the tunnel to %s: %s", peer->address.text,
		    r == -ENOSPC ? "too many tunnels" : strerror(-r));
	return NULL;
}

void links_free(struct link *link)
{
	if (!link)
		return;
	for (unsigned i = 1; i < UDP_SOCKETS_MAX; i++)
		if (link->daemon->udp.sockets[i].owner == link)
			udp_close(link->daemon, (uint8_t)i);
	device_close(link);
	net_timer_disarm(&link->timer);
	net_soon_cancel(&link->pump);
	session_free(link->session);
	crypto_cert_unref(link->offered_peer);
	LIST_REMOVE(link, entry);
	link->peer->link = NULL;
	free(link);
}

void links_start_wanted(struct daemon *d)
{
	struct peer *peer;
	struct problem problem;

	TAILQ_FOREACH (peer, &d->peers, entry) {
		struct link *link;

		if (peer->held || !(peer->wanted || (peer->linked && peer_is_allowed(peer))))
			continue;
		link = links_get(d, peer, &problem);
		if (!link) {
			log_warn("%s: %s", peer->address.text, problem.error);
			continue;
		}
		if (peer->wanted)
			session_want(link->session, true, net_loop_now_us(d->loop));
		else
			session_nudge(link->session, net_loop_now_us(d->loop));
		links_pump(link);
	}
}

/* Certificates end, and pins and permissions change, while a link lasts. */
static bool still_trusted(struct link *link)
{
	struct crypto_cert *cert = session_peer_cert(link->session);
	struct problem problem;

	if (cert && peers_judge(link->daemon, link->peer, cert, &problem) == PEER_DISTRUSTED) {
		log_warn("%s: the link is ended: %s", link->peer->address.text, problem.error);
		link->problem = problem;
		return false;
	}
	return peer_is_allowed(link->peer) || link->peer->wanted;
}

void links_sweep(struct daemon *d)
{
	struct link *link, *next;

	for (link = LIST_FIRST(&d->links); link; link = next) {
		next = LIST_NEXT(link, entry);
		if (!still_trusted(link)) {
			session_close(link->session, SESSION_CLOSE_DENIED,
				      net_loop_now_us(d->loop));
			links_pump(link);
		}
		if (session_state_of(link->session) == SESSION_DOWN && !link->peer->wanted)
			links_free(link);
	}
}

/* ---- finding ---- */

struct link *links_by_cid(struct daemon *d, const uint8_t cid[static 8])
{
	struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		if (session_has_cid(link->session, cid))
			return link;
	return NULL;
}

struct link *links_by_tag(struct daemon *d, const uint8_t tag[static 8])
{
	struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		if (session_has_tag(link->session, tag))
			return link;
	return NULL;
}

struct link *links_by_id(struct daemon *d, const char *id)
{
	struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		if (session_has_id(link->session, id))
			return link;
	return NULL;
}

/* ---- status ---- */

static json_t *status_path(struct daemon *d, const struct session_status *s)
{
	struct endpoint from;
	char local[ENDPOINT_TEXT_BYTES] = "", remote[ENDPOINT_TEXT_BYTES] = "";

	if (s->state != SESSION_UP || !s->has_path)
		return json_null();
	if (!s->relay) {
		from = udp_local_for(d, s->socket, &s->remote);
		endpoint_format(&from, local);
		endpoint_format(&s->remote, remote);
	}
	return json_pack("{s:s,s:s,s:s,s:I,s:i,s:b}", "kind", s->relay ? "relay-tcp" : "direct-udp",
			 "local", local, "remote", remote, "rtt_us", (json_int_t)s->rtt_us, "mtu",
			 (int)s->mtu_bytes, "same_lan", s->same_lan);
}

static const char *state_text(const struct peer *peer, const struct session_status *s)
{
	switch (s->state) {
	case SESSION_UP:
		return "up";
	case SESSION_DOWN:
	case SESSION_CLOSING:
		return "down";
	case SESSION_WAITING:
		return peer->wanted ? "connecting" : "down";
	default:
		return "connecting";
	}
}

static const char *ip4_text(const uint8_t ip4[static 4], char out[static IP_TEXT_BYTES])
{
	struct ip_address ip = { .family = FAMILY_IPV4 };

	memcpy(ip.bytes, ip4, 4);
	return ip_format(&ip, out);
}

static const char *ip6_text(const uint8_t ip6[static 16], char out[static IP_TEXT_BYTES])
{
	struct ip_address ip = { .family = FAMILY_IPV6 };

	memcpy(ip.bytes, ip6, 16);
	return ip_format(&ip, out);
}

static json_t *status_without_link(const struct peer *peer)
{
	char v4[IP_TEXT_BYTES], v6[IP_TEXT_BYTES];
	struct vip vip;

	if (vip_from_address(peer->address.text, &vip))
		return NULL;
	return json_pack("{s:s,s:s,s:n,s:s,s:s,s:n,s:I,s:I,s:I,s:I,s:I,s:s}", "address",
			 peer->address.text, "state", "down", "interface", "ipv4",
			 ip4_text(peer->has_local4 ? peer->local4 : vip.ip4, v4), "ipv6",
			 ip6_text(vip.ip6, v6), "path", "since", (json_int_t)0, "bytes_sent",
			 (json_int_t)0, "bytes_received", (json_int_t)0, "packets_lost",
			 (json_int_t)0, "packets_retransmitted", (json_int_t)0, "reason",
			 peer->held ? "taken down on this machine" : "nobody asked for it");
}

/* Figures that explain the rest; scripts may use them, but they may change. */
static json_t *status_detail(const struct link *link, const struct session_status *s)
{
	return json_pack(
		"{s:s,s:s,s:b,s:s,s:s?,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "session",
		session_state_name(s->state), "why", session_why_name(s->why), "rendezvous",
		s->has_rendezvous, "tls", s->tls, "nat", s->has_nat ? s->nat.reason : NULL,
		"nat_local", nat_mapping_name(s->nat.local_mapping), "nat_remote",
		nat_mapping_name(s->nat.remote_mapping), "tun_bad", (json_int_t)s->tun_bad,
		"tun_discarded", (json_int_t)s->tun_discard, "tun_write_dropped",
		(json_int_t)link->tun_write_dropped, "peer_bad", (json_int_t)s->peer_bad,
		"datagrams_bad", (json_int_t)s->datagrams_bad, "messages_abandoned",
		(json_int_t)s->ptcp.messages_abandoned, "messages_dropped",
		(json_int_t)(s->ptcp.messages_dropped_queue + s->ptcp.messages_dropped_memory));
}

json_t *links_status(struct daemon *d, struct peer *peer)
{
	char v4[IP_TEXT_BYTES], v6[IP_TEXT_BYTES];
	struct link *link = peer->link;
	struct problem problem = { .error = "" };
	struct session_status s;

	if (!link)
		return status_without_link(peer);
	session_get_status(link->session, &s);
	links_problem(link, &problem);
	return json_pack("{s:s,s:s,s:s?,s:s,s:s,s:o,s:I,s:I,s:I,s:I,s:I,s:s,s:s,s:o}", "address",
			 peer->address.text, "state", state_text(peer, &s), "interface",
			 link->device == DEVICE_READY ? link->ifname : NULL, "ipv4",
			 ip4_text(link->shown.peer4, v4), "ipv6", ip6_text(link->shown.peer6, v6),
			 "path", status_path(d, &s), "since", (json_int_t)link->since_s,
			 "bytes_sent", (json_int_t)s.tun_sent_bytes, "bytes_received",
			 (json_int_t)s.tun_received_bytes, "packets_lost",
			 (json_int_t)s.ptcp.packets_lost, "packets_retransmitted",
			 (json_int_t)s.ptcp.fragments_resent, "reason", problem.error, "device",
			 s.device, "detail", status_detail(link, &s));
}
