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

#define TELL_AGAIN_US   (1 * US_PER_MS)
#define PUMP_ROUNDS_MAX 8 /* batches; then others, and what has come, get their turn */

/* ---- attempts ---- */

void links_attempt_failed(struct link *link, enum session_why why, const struct problem *problem)
{
	char request[OFFER_ID_BYTES + 1];

	if (link->problem.code != problem->code || strcmp(link->problem.error, problem->error))
		log_info("%s: %s", link->peer->address.text, problem->error);
	link->problem = *problem;
	memcpy(request, link->asking, sizeof(request));
	session_answer_failed(link_session(link), request, why, problem->error, link_now_us(link));
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

	session_get_status(link_session(link), &status);
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

/* ---- events ---- */

static json_t *state_event(const struct link *link, const struct session_status *status)
{
	return json_pack("{s:s,s:s,s:s,s:s}", "peer", link->peer->address.text, "state",
			 session_state_name(status->state), "path", status_path_kind(status),
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
	/* Who is wanted is asked anyhow. */
	if (!link->peer->wanted)
		upkeep_save(link->daemon, link->peer);
}

static void on_state(struct link *link, const struct session_event *event)
{
	struct session_status status;

	session_get_status(link_session(link), &status);
	link->since_s = wall_clock_s();
	upkeep_soon(link->daemon);
	note_linked(link, event->state.to, &status);
	if (event->state.to == SESSION_UP) {
		link->problem.code = CTL_DONE;
		log_note("%s: up", link->peer->address.text);
		upkeep_ran_once(link->worker);
	} else if (event->state.from == SESSION_UP) {
		link->problem.code = CTL_DONE;
		log_note("%s: not up any more (%s)%s%s", link->peer->address.text,
			 session_state_name(event->state.to), *status.why_text ? ": " : "",
			 status.why_text);
	}
	/* Blocked while connecting: go on. */
	link_device_want(link, true);
	control_event(link->daemon, state_event(link, &status));
	control_link_changed(link->daemon, link);
}

static void on_path(struct link *link)
{
	struct session_status status;
	char text[ENDPOINT_TEXT_BYTES];

	session_get_status(link_session(link), &status);
	if (status.has_path)
		log_note("%s: now %s %s", link->peer->address.text,
			 status.relay_udp ? "through the relay by UDP"
			 : status.relay   ? "through the relay"
			 : status.stream  ? "directly by TCP to"
					  : "directly to",
			 status.relay ? "" : endpoint_format(&status.remote, text));
	if (status.has_path && !status.relay && !status.same_lan)
		lifetime_path(link, status.remote.ip.family);
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

	if (!udp_open(link, &socket))
		gather_socket(link->daemon, socket);
}

static void socket_unused(struct link *link, uint8_t number)
{
	session_remove_socket(link_session(link), number, link_now_us(link));
	if (number != 0)
		udp_close(link->worker, number);
}

void links_on_event(struct link *link, const struct session_event *event)
{
	switch (event->type) {
	case SESSION_EVENT_STATE:
		on_state(link, event);
		return;
	case SESSION_EVENT_ASK:
		/* A worker's event may be older than what the peer asked us meanwhile. */
		if (!link->daemon->stopping && session_asks(link_session(link), event->request))
			hub_ask(link, event->request);
		return;
	case SESSION_EVENT_PATH:
		on_path(link);
		return;
	case SESSION_EVENT_CHANNEL:
		channel_ask(link, event->channel.route, event->channel.id);
		return;
	case SESSION_EVENT_PONG:
		on_pong(link, event);
		return;
	case SESSION_EVENT_IDLE_LOST:
		lifetime_doubt(link->daemon, event->family);
		return;
	case SESSION_EVENT_TUN_ROOM:
		link_device_want(link, true);
		return;
	case SESSION_EVENT_WANT_SOCKET:
		want_socket(link);
		return;
	case SESSION_EVENT_WANT_VOLLEY:
		volley_open(link, event->n_sockets);
		return;
	case SESSION_EVENT_VOLLEY_DONE:
		volley_close(link->worker, link);
		return;
	case SESSION_EVENT_WANT_STREAM:
		streams_connect(link);
		return;
	case SESSION_EVENT_STREAM_UNUSED:
		streams_close(link->daemon, event->stream);
		return;
	case SESSION_EVENT_SOCKET_UNUSED:
		if (event->socket != 0)
			socket_unused(link, event->socket);
		return;
	default:
		return;
	}
}

/*
 * A worker's thread does by itself what is the link's alone. False: the control plane could not be
 * told of it now.
 */
static bool worker_event(struct link *link, const struct session_event *event)
{
	switch (event->type) {
	case SESSION_EVENT_TUN_ROOM:
	case SESSION_EVENT_WANT_VOLLEY:
	case SESSION_EVENT_VOLLEY_DONE:
		links_on_event(link, event);
		return true;
	default:
		return workers_tell_event(link, event) == 0;
	}
}

/* ---- the pump ---- */

/* True: there were some. What cannot be told waits, and with it what comes behind. */
static bool move_events(struct link *link)
{
	bool moved = false;

	while (link->has_untold || session_next_event(link->session, &link->untold)) {
		if (workers_in_control())
			links_on_event(link, &link->untold);
		else if (!worker_event(link, &link->untold)) {
			link->has_untold = true;
			return moved;
		}
		link->has_untold = false;
		moved = true;
	}
	return moved;
}

/* By the connection to a server, which the control plane has. */
static void send_by_server(struct link *link, void *route, const char *id, const void *body,
			   size_t n_bytes, bool relay)
{
	if (workers_in_control())
		hub_signal(link->daemon, route, id, body, n_bytes, relay);
	else if (workers_tell_signal(route, id, body, n_bytes, relay))
		link->worker->n_dropped++;
}

/* By a TCP connection with the peer, which the control plane has too. */
static void send_by_stream(struct link *link, const struct session_send *send)
{
	if (workers_in_control())
		streams_send(link->daemon, send->stream, send->path_id != 0, send->data,
			     send->n_bytes);
	else if (workers_tell_stream(send))
		link->worker->n_dropped++;
}

static void wait_for_udp(struct link *link)
{
	if (link->waits_udp)
		return;
	link->waits_udp = true;
	TAILQ_INSERT_TAIL(&link->worker->waiting_udp, link, udp_entry);
}

static void wait_no_more(struct link *link)
{
	if (link->waits_udp)
		TAILQ_REMOVE(&link->worker->waiting_udp, link, udp_entry);
	link->waits_udp = false;
}

static bool move_datagrams(struct link *link, uint64_t now_us)
{
	struct session_send send;
	bool moved = false;

	for (unsigned i = 0; i < PUMP_ROUNDS_MAX && !link->worker->udp.blocked; i++) {
		if (!session_output(link->session, &send, now_us))
			return moved;
		moved = true;
		if (send.stream)
			send_by_stream(link, &send);
		else if (send.relay)
			send_by_server(link, send.route, send.id, send.data, send.n_bytes, true);
		else
			udp_send(link, &send);
	}
	/* There is more: after the others. */
	if (!link->worker->udp.blocked)
		links_pump(link);
	else
		wait_for_udp(link);
	return moved;
}

void links_pump_now(struct link *link)
{
	const uint64_t now_us = link_now_us(link);
	struct session_signal_out signal;
	struct session_frame frame;
	bool moved;

	net_soon_cancel(&link->pump);
	if (now_us >= session_deadline_us(link->session))
		session_tick(link->session, now_us);
	do {
		while (session_tun_next(link->session, &frame))
			link_device_write(link, &frame);
		moved = move_events(link);
		while (session_next_signal(link->session, &signal))
			send_by_server(link, signal.route, signal.id, signal.body, signal.n_bytes,
				       false);
		moved = move_datagrams(link, now_us) || moved;
	} while (moved && !link->pump.queued);
	index_update(link);
	net_timer_arm(&link->timer, link->has_untold ? now_us + TELL_AGAIN_US
						     : session_deadline_us(link->session));
}

static void on_soon(void *user)
{
	links_pump_now(user);
}

static void on_timer(void *user, uint64_t now_us)
{
	struct link *link = user;
	const struct ptcp_memory *memory = &link->worker->memory;
	const size_t held_bytes = memory->held_bytes;

	session_tick(link->session, now_us);
	if (memory->held_bytes < held_bytes)
		upkeep_freed(link->worker, held_bytes - memory->held_bytes);
	links_pump_now(link);
}

void links_pump(struct link *link)
{
	link_enter(link);
	net_soon_queue(&link->pump);
}

void links_told(struct worker *w, enum q2q_command command, const char *id, uint8_t *body,
		size_t n_bytes)
{
	struct link *link = index_find(w, SESSION_NAME_ID, id, OFFER_ID_BYTES);
	const uint64_t now_us = net_loop_now_us(w->loop);

	if (!link)
		return;
	if (command == Q2Q_GONE)
		session_gone(link->session, id, now_us);
	else if (command == Q2Q_SIGNAL)
		session_signal(link->session, id, body, n_bytes, now_us);
	else
		session_relay(link->session, id, body, n_bytes, now_us);
	links_pump(link);
}

void links_pump_waiting(struct worker *w)
{
	struct link *link;

	while ((link = TAILQ_FIRST(&w->waiting_udp))) {
		wait_no_more(link);
		links_pump(link);
	}
}

/* ---- what a session asks of us ---- */

static int judge_peer(struct link *link, struct crypto_cert *cert)
{
	struct problem problem;

	/* Its user may have changed her mind since the rendezvous. */
	if (!peer_is_allowed(link->peer) && !link->peer->wanted)
		return CRYPTO_VERIFY_REFUSED;
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

static int verify_peer(void *user, struct crypto_cert *cert)
{
	struct link *link = user;
	int r;

	workers_borrow(link->daemon);
	r = judge_peer(link, cert);
	workers_return(link->daemon);
	return r;
}

/* Tunnels inside of tunnels go round in circles. 100.64.0.0/10 may be a real network: only what
 * stands on our interfaces counts. */
static bool is_inside(struct daemon *d, const struct ip_address *ip)
{
	const struct link *link;

	if (ip->family == FAMILY_IPV6)
		return vip_is_ip6(ip->bytes);
	LIST_FOREACH (link, &d->links, entry)
		if (!memcmp(ip->bytes, link->shown.own4, 4) ||
		    !memcmp(ip->bytes, link->shown.peer4, 4))
			return true;
	return false;
}

static bool refuse_address(void *user, const struct ip_address *ip)
{
	const struct link *link = user;
	bool refuse;

	workers_borrow(link->daemon);
	refuse = is_inside(link->daemon, ip) || gather_avoids(link->daemon, ip);
	workers_return(link->daemon);
	return refuse;
}

static bool udp_is_blocked(void *user)
{
	const struct link *link = user;
	bool blocked;

	workers_borrow(link->daemon);
	blocked = gather_is_silent(link->daemon);
	workers_return(link->daemon);
	return blocked;
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
		.scratch = link->worker->scratch,
		.memory = &link->worker->memory,
		.own_address = link->identity->address.text,
		.peer_address = link->peer->address.text,
		.device = link->daemon->device,
		.about = link->daemon->about,
		.tls = link->identity->tls_ptcp,
		.own_key = link->identity->key,
		.shown = link->shown,
		.verify = verify_peer,
		.random_bytes = daemon_random,
		.refuse = refuse_address,
		.udp_blocked = udp_is_blocked,
		.copy_dscp = link->daemon->options->copy_dscp,
		.parity = link->daemon->options->parity,
		.congestion_control = link->daemon->options->congestion_control,
		.trace = trace,
		.user = link,
		.allowance = &link->peer->guesses,
		.flow_seed = link->daemon->seed,
		.cid_divisor = (uint8_t)(link->daemon->n_workers > 1 ? link->daemon->n_workers : 0),
		.cid_remainder = (uint8_t)link->worker->number,
	};

	return session_new(&config, link_now_us(link), &link->session);
}

static int link_make(struct daemon *d, struct peer *peer, struct identity *identity,
		     struct link **ret_link)
{
	struct link *link = calloc(1, sizeof(*link));
	int r;

	if (!link)
		return -ENOMEM;
	link->daemon = d;
	link->worker = workers_choose(d);
	link->serial = ++d->next_link_serial;
	link_enter(link);
	link->peer = peer;
	link->identity = identity;
	link->tun_fd = -1;
	link->since_s = wall_clock_s();
	while (link->slot < TUN_SLOTS_MAX && d->slots[link->slot])
		link->slot++;
	net_timer_init(&link->timer, link->worker->loop, on_timer, link);
	net_soon_init(&link->pump, link->worker->loop, on_soon, link);
	r = link->slot < TUN_SLOTS_MAX ? link_choose_addresses(link) : -ENOSPC;
	if (!r)
		r = make_session(link);
	if (r) {
		free(link);
		return r;
	}
	LIST_INSERT_HEAD(&d->links, link, entry);
	link->worker->n_links++;
	d->slots[link->slot] = link;
	upkeep_soon(d);
	peer->link = link;
	session_set_path_mode(link_session(link), peer->path_mode, link_now_us(link));
	session_set_stream_port(link_session(link), streams_port(d));
	gather_tell(d, link);
	r = link_device_ask(link);
	if (r) {
		links_free(link);
		return r;
	}
	*ret_link = link;
	return 0;
}

static struct link *get_as(struct daemon *d, struct peer *peer, struct identity *identity,
			   struct problem *ret_problem)
{
	struct link *link;
	int r;

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

static bool is_in_use(const struct link *link)
{
	switch (session_state_of(link_session(link))) {
	case SESSION_CONNECTING:
	case SESSION_UP:
	case SESSION_STALLED:
		return true;
	default:
		return false;
	}
}

struct link *links_get_called(struct daemon *d, struct peer *peer, struct identity *identity,
			      struct problem *ret_problem)
{
	struct link *link, *const before = peer->link;

	/* A peer has one tunnel with this machine, by the identity that the user named, if any. */
	if ((*peer->as && strcmp(peer->as, identity->address.text)) ||
	    (peer->link && peer->link->identity != identity && is_in_use(peer->link))) {
		problem_set(ret_problem, CTL_DENIED, "%s has a tunnel with another address of ours",
			    peer->address.text);
		return NULL;
	}
	link = get_as(d, peer, identity, ret_problem);
	if (link && link != before && peer->wanted)
		session_want(link_session(link), true, link_now_us(link));
	return link;
}

struct identity *links_identity(struct daemon *d, const char *as, struct problem *ret_problem)
{
	struct identity *identity = identities_default(&d->identities, *as ? as : NULL);

	if (identity)
		return identity;
	problem_set(ret_problem, CTL_NOT_FOUND, "this machine has no identity%s%s", *as ? " " : "",
		    as);
	problem_hint(ret_problem, "q2q-tun register YOU@DOMAIN, or q2q-tun authorize for "
				  "an account that exists");
	return NULL;
}

struct link *links_get(struct daemon *d, struct peer *peer, struct problem *ret_problem)
{
	struct identity *identity = links_identity(d, peer->as, ret_problem);

	if (!identity)
		return NULL;
	/* Where the peer called another address of ours, that tunnel does. */
	if (peer->link && !*peer->as && is_in_use(peer->link))
		return peer->link;
	return get_as(d, peer, identity, ret_problem);
}

void links_free(struct link *link)
{
	if (!link)
		return;
	link_enter(link);
	for (unsigned i = 1; i < UDP_SOCKETS_MAX; i++)
		if (link->worker->udp.sockets[i].owner == link)
			udp_close(link->worker, (uint8_t)i);
	volley_close(link->worker, link);
	streams_forget(link);
	link_device_close(link);
	net_timer_disarm(&link->timer);
	net_soon_cancel(&link->pump);
	wait_no_more(link);
	index_remove(link);
	session_free(link->session);
	crypto_cert_unref(link->offered_peer);
	LIST_REMOVE(link, entry);
	link->worker->n_links--;
	link->daemon->slots[link->slot] = NULL;
	link->peer->link = NULL;
	free(link);
}

static void start(struct daemon *d, struct peer *peer)
{
	struct problem problem;
	struct link *link;

	if (peer->held || !(peer->wanted || (peer->linked && peer_is_allowed(peer))))
		return;
	link = links_get(d, peer, &problem);
	if (!link) {
		log_warn("%s: %s", peer->address.text, problem.error);
		return;
	}
	if (peer->wanted)
		session_want(link_session(link), true, link_now_us(link));
	else
		session_nudge(link_session(link), link_now_us(link));
	links_pump(link);
}

void links_start_wanted(struct daemon *d)
{
	struct peer *peer;

	TAILQ_FOREACH (peer, &d->peers, entry)
		start(d, peer);
}

void links_start_lost(struct daemon *d)
{
	struct peer *peer;

	TAILQ_FOREACH (peer, &d->peers, entry)
		if (!peer->link)
			start(d, peer);
}

/* Certificates end, and pins and permissions change, while a link lasts. */
static bool still_trusted(struct link *link)
{
	struct crypto_cert *cert = session_peer_cert(link_session(link));
	struct problem problem;

	/* The peer ends it as well, but is not to be relied on. */
	if (cert && crypto_cert_not_after_s(link->identity->cert) < wall_clock_s()) {
		problem_set(&link->problem, CTL_UNTRUSTED, "the certificate of %s has expired",
			    link->identity->address.text);
		problem_hint(&link->problem, "q2q-tun authorize %s", link->identity->address.text);
		log_warn("%s: the link is ended: %s", link->peer->address.text,
			 link->problem.error);
		return false;
	}
	if (cert && peers_judge(link->daemon, link->peer, cert, &problem) == PEER_DISTRUSTED) {
		log_warn("%s: the link is ended: %s", link->peer->address.text, problem.error);
		link->problem = problem;
		return false;
	}
	return peer_is_allowed(link->peer) || link->peer->wanted;
}

static int64_t min_s(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* When it has to be looked at again, on the wall clock. */
static int64_t trusted_until_s(struct link *link)
{
	const struct crypto_cert *cert = session_peer_cert(link_session(link));
	int64_t until_s = INT64_MAX;

	if (link->peer->allowed && link->peer->allowed_until_s > 0)
		until_s = link->peer->allowed_until_s;
	if (cert)
		until_s = min_s(until_s, min_s(crypto_cert_not_after_s(cert),
					       crypto_cert_not_after_s(link->identity->cert)));
	return until_s;
}

int64_t links_sweep(struct daemon *d)
{
	int64_t until_s = INT64_MAX;
	struct link *link, *next;

	for (link = LIST_FIRST(&d->links); link; link = next) {
		next = LIST_NEXT(link, entry);
		if (!still_trusted(link)) {
			session_close(link_session(link), SESSION_CLOSE_DENIED, link_now_us(link));
			/* And what was agreed on with its server comes to nothing. */
			if (!link->peer->wanted)
				session_want(link_session(link), false, link_now_us(link));
			links_pump(link);
		}
		until_s = min_s(until_s, trusted_until_s(link));
		if (session_state_of(link_session(link)) == SESSION_DOWN && !link->peer->wanted)
			links_free(link);
	}
	return until_s;
}
