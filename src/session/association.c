/*
 * The association of a session: its beginning, what it tells, its end.
 */
#include "session/internal.h"

#include <stdio.h>

enum { PATH_TEXT_BYTES = ENDPOINT_TEXT_BYTES + 24 };
#define IDLE_US (15 * US_PER_S) /* silence that keepalives were to interrupt */

static int verify_peer(void *user, struct crypto_cert *cert)
{
	const struct session *s = user;

	if (!s->assoc_cert || !crypto_cert_same_key(cert, s->assoc_cert))
		return CRYPTO_VERIFY_KEY_CHANGED;
	return s->config.verify(s->config.user, cert);
}

/* The peer may have a newer one for the same key by now, which its server has vouched for. */
void session_renew_peer_cert(struct session *s)
{
	if (!s->assoc_cert || !crypto_cert_same_key(s->open.peer_cert, s->assoc_cert) ||
	    crypto_cert_not_after_s(s->open.peer_cert) <= crypto_cert_not_after_s(s->assoc_cert))
		return;
	crypto_cert_unref(s->assoc_cert);
	s->assoc_cert = crypto_cert_ref(s->open.peer_cert);
}

static void path_text(const struct session *s, uint32_t id, char out[static PATH_TEXT_BYTES])
{
	char text[ENDPOINT_TEXT_BYTES];

	for (size_t i = 0; i < PATHS_MAX; i++) {
		const struct path *p = &s->paths[i];

		if (p->id != id || !id)
			continue;
		if (p->kind == PTCP_PATH_DIRECT)
			snprintf(out, PATH_TEXT_BYTES, "path %u %s", p->socket,
				 endpoint_format(&p->remote, text));
		else
			snprintf(out, PATH_TEXT_BYTES, "path by %s",
				 p->kind == PTCP_PATH_RELAY ? "relay, UDP" : "relay, TLS");
		return;
	}
	snprintf(out, PATH_TEXT_BYTES, "path");
}

static void trace_ptcp(void *user, const struct ptcp_trace *trace, uint64_t now_us)
{
	const struct session *s = user;
	char what[PATH_TEXT_BYTES] = "association";

	(void)now_us;
	if (!s->config.trace || trace->what == PTCP_TRACE_NOTE)
		return;
	if (trace->what != PTCP_TRACE_STATE)
		path_text(s, trace->path_id, what);
	s->config.trace(s->config.user, what, trace->from, trace->to, trace->because);
}

static enum ptcp_signal signal_congestion(void *user, uint8_t *message, size_t n_bytes,
					  size_t *ret_cut_bytes)
{
	(void)user;
	switch (tun_message_signal(message, n_bytes, ret_cut_bytes)) {
	case TUN_SIGNAL_MARKED:
		return PTCP_SIGNAL_MARKED;
	case TUN_SIGNAL_SHORTENED:
		return PTCP_SIGNAL_SHORTENED;
	default:
		return PTCP_SIGNAL_DROP;
	}
}

void session_drop_association(struct session *s)
{
	ptcp_assoc_free(s->assoc);
	keys_free(s->keys);
	crypto_cert_unref(s->assoc_cert);
	s->assoc = NULL;
	s->keys = NULL;
	s->assoc_cert = NULL;
	s->has_cid = false;
	s->tun_room = NULL;
	s->segmenting = false;
	session_relay_forget(s);
	s->active_path_id = PTCP_PATH_NONE;
	s->close_deadline_us = NEVER_US;
	session_paths_clear(s);
	session_streams_drop(s, 0);
}

void session_make_hello(struct session *s, struct rendezvous *r, struct offer *offer)
{
	const struct keys_config config = {
		.role = PTCP_CLIENT,
		.tls = s->config.tls,
		.verify = verify_peer,
		.user = s,
	};

	if (s->config.no_early)
		return;
	if (keys_hello(&config, offer->hello, sizeof(offer->hello), &offer->hello_bytes, &r->begun))
		offer->hello_bytes = 0;
}

/*
 * Who is the client of TLS: the requester; or early the listener, whose hello came with its signed
 * answer, so that the requester has the keys at once.
 */
static int make_keys(struct session *s, const struct offer *theirs)
{
	struct rendezvous *const open = &s->open;
	const struct keys_rendezvous rendezvous = rendezvous_keys(s, open);
	struct keys_config config = {
		.role = open->requester == open->early ? PTCP_SERVER : PTCP_CLIENT,
		.tls = s->config.tls,
		.verify = verify_peer,
		.user = s,
		.rendezvous = &rendezvous,
	};
	int r;

	if (open->requester && theirs->hello_bytes > 0 && !s->config.no_early) {
		config.role = PTCP_SERVER;
		config.hello = theirs->hello;
		config.hello_bytes = theirs->hello_bytes;
		r = keys_new(&config, &s->keys);
		open->early = !r;
		if (r != -EPROTO)
			return r;
		/* It would take a further round trip: then as if there were none. */
		config.role = PTCP_CLIENT;
		config.hello_bytes = 0;
	}
	if (open->early)
		config.begun = TAKE_PTR(open->begun);
	crypto_tls_free(open->begun);
	open->begun = NULL;
	return keys_new(&config, &s->keys);
}

int session_start_association(struct session *s, const struct offer *theirs, uint64_t now_us)
{
	struct ptcp_config config = {
		.liveness_us = s->config.liveness_us,
		.memory = s->config.memory,
		.ecn = true,
		.congestion_control = s->config.congestion_control,
		.parity = s->config.parity && ptcp_parity_available() &&
					  (s->open.peer_features & OFFER_FEATURE_PARITY) != 0
				  ? PTCP_PARITY_AUTO
				  : PTCP_PARITY_OFF,
		.signal = signal_congestion,
		.trace = trace_ptcp,
		.trace_user = s,
	};
	int r;

	session_drop_association(s);
	s->assoc_cert = crypto_cert_ref(s->open.peer_cert);
	memcpy(config.local_cid, s->open.own_cid, PTCP_CID_BYTES);
	memcpy(config.remote_cid, s->open.peer_cid, PTCP_CID_BYTES);
	r = s->config.random_bytes(s->config.user, config.random_seed, sizeof(config.random_seed));
	if (!r)
		r = make_keys(s, theirs);
	if (!r) {
		config.role = s->open.requester == s->open.early ? PTCP_SERVER : PTCP_CLIENT;
		config.early = s->open.early;
		config.crypto = keys_ptcp(s->keys);
		s->assoc = ptcp_assoc_new(&config, now_us);
		r = s->assoc ? 0 : -ENOMEM;
	}
	secret_wipe(config.random_seed, sizeof(config.random_seed));
	if (r) {
		/* The old one is gone as well, and UP or CLOSING with it. */
		session_drop_association(s);
		session_dispatch(s, INPUT_LOST, "no memory for an association", now_us);
		return r;
	}
	memcpy(s->local_cid, s->open.own_cid, PTCP_CID_BYTES);
	s->has_cid = true;
	ptcp_set_relay_allowed(
		s->assoc, s->path_mode == SESSION_PATH_AUTO || s->path_mode == SESSION_PATH_RELAY,
		now_us);
	session_path_add_relay(s, now_us);
	session_dispatch(s, INPUT_ASSOCIATION, NULL, now_us);
	return 0;
}

/* ---- events of the association ---- */

static enum session_why why_closed(const struct session *s, uint64_t code, bool by_peer)
{
	switch (code) {
	case SESSION_CLOSE_DOWN:
		return by_peer ? SESSION_WHY_PEER_DOWN : SESSION_WHY_STOPPED;
	case SESSION_CLOSE_GOING_AWAY:
		return by_peer ? SESSION_WHY_GOING_AWAY : SESSION_WHY_STOPPED;
	case SESSION_CLOSE_DENIED:
		return by_peer ? SESSION_WHY_REFUSED : SESSION_WHY_STOPPED;
	case PTCP_CLOSE_HANDSHAKE_FAILED:
		return by_peer || keys_peer_rejected_us(s->keys) ? SESSION_WHY_REJECTED
								 : SESSION_WHY_UNTRUSTED;
	case PTCP_CLOSE_HANDSHAKE_TIMEOUT:
		return SESSION_WHY_TIMED_OUT;
	case PTCP_CLOSE_PROTOCOL:
		return SESSION_WHY_PROTOCOL;
	default:
		return SESSION_WHY_LOST;
	}
}

/* The association is over, the peer knows or will not hear: both ends would start anew, so what
 * is left of the old rendezvous is of no use either. */
void session_finish_close(struct session *s, uint64_t now_us)
{
	char because[SESSION_WHY_BYTES];

	memcpy(because, s->closed_because, sizeof(because));
	rendezvous_close(s, now_us);
	session_drop_association(s);
	session_set_why(s, s->closed_why, because);
	session_plan_retry(s, s->closed_why, now_us);
	session_dispatch(s, INPUT_LOST, because, now_us);
}

/* ptcp says it is closed; it may still have to tell, or to answer, the peer. */
static void on_closed(struct session *s, uint64_t code, bool by_peer, uint64_t now_us)
{
	const char *error = keys_error(s->keys);

	s->closed_why = why_closed(s, code, by_peer);
	snprintf(s->closed_because, sizeof(s->closed_because), "%s%s%s%s",
		 ptcp_close_code_name(code), by_peer ? " by the peer" : "", *error ? ": " : "",
		 error);
	s->close_deadline_us = now_us + CLOSE_TIMEOUT_US;
	session_dispatch(s, INPUT_CLOSE, s->closed_because, now_us);
}

static void on_established(struct session *s, uint64_t now_us)
{
	session_set_why(s, SESSION_WHY_NONE, NULL);
	session_dispatch(s, INPUT_ESTABLISHED, NULL, now_us);
}

static void on_pong(struct session *s, const struct ptcp_event *event)
{
	const struct path *path = session_path_by_id(s, event->pong.path_id);
	struct session_event out = { .type = SESSION_EVENT_PONG };

	out.pong.id = event->pong.id;
	out.pong.rtt_us = event->pong.rtt_us;
	out.pong.relay = path && path->kind > PTCP_PATH_DIRECT_STREAM;
	if (path && path->kind <= PTCP_PATH_DIRECT_STREAM) {
		out.pong.socket = path->socket;
		out.pong.remote = path->remote;
	}
	session_event_push(s, &out);
}

/*
 * A path that came up by itself is left to ptcp, with little credit, until it has answered: who
 * copies one of the peer's packets could name anybody as its source.
 */
static void on_path_up(struct session *s, uint32_t id, uint64_t now_us)
{
	const struct path *path = session_path_by_id(s, id);

	if (path && path->kind == PTCP_PATH_DIRECT)
		ptcp_path_add(s->assoc, id, PTCP_PATH_DIRECT, session_path_mtu(&path->remote),
			      now_us);
	if (path)
		session_path_set_keepalive(s, path);
	session_dispatch(s, INPUT_PATH, NULL, now_us);
}

/* It rested, and when it was asked it was dead: perhaps a NAT forgot it sooner than we think. */
static void tell_if_idle(struct session *s, const struct path *p, uint64_t now_us)
{
	struct session_event event = { .type = SESSION_EVENT_IDLE_LOST,
				       .family = p->remote.ip.family };
	struct ptcp_path_stats stats;

	for (unsigned i = 0; ptcp_get_path_stats(s->assoc, i, &stats); i++)
		if (stats.path_id == p->id && !p->same_lan &&
		    now_us - stats.last_received_us > IDLE_US)
			session_event_push(s, &event);
}

static void on_path_down(struct session *s, uint32_t id, uint64_t now_us)
{
	const struct path *path = session_path_by_id(s, id);

	if (path && path->kind == PTCP_PATH_DIRECT)
		tell_if_idle(s, path, now_us);
	if (path && path->kind == PTCP_PATH_DIRECT && s->nat)
		nat_agent_path_lost(s->nat, path->socket, &path->remote, now_us);
	session_streams_path(s, now_us);
}

static void on_ptcp_event(struct session *s, const struct ptcp_event *event, uint64_t now_us)
{
	struct session_event out = { .type = SESSION_EVENT_PATH };

	switch (event->type) {
	case PTCP_EVENT_ESTABLISHED:
		on_established(s, now_us);
		return;
	case PTCP_EVENT_VERIFIED:
		s->n_failures = 0;
		return;
	case PTCP_EVENT_CLOSED:
		on_closed(s, event->closed.code, event->closed.by_peer, now_us);
		return;
	case PTCP_EVENT_PATH_UP:
		on_path_up(s, event->path.id, now_us);
		return;
	case PTCP_EVENT_PATH_DOWN:
		on_path_down(s, event->path.id, now_us);
		return;
	case PTCP_EVENT_PATH_SWITCHED:
		s->active_path_id = event->path.id;
		session_event_push(s, &out);
		session_channel_check(s, now_us);
		session_streams_path(s, now_us);
		session_dispatch(s, INPUT_PATH, NULL, now_us);
		return;
	case PTCP_EVENT_ALL_PATHS_DOWN:
		session_set_why(s, SESSION_WHY_LOST, "the peer cannot be reached on any path");
		session_plan_retry(s, SESSION_WHY_LOST, now_us);
		session_dispatch(s, INPUT_OUTAGE, NULL, now_us);
		return;
	case PTCP_EVENT_PONG:
		on_pong(s, event);
		return;
	case PTCP_EVENT_MESSAGE_ROOM:
		out.type = SESSION_EVENT_TUN_ROOM;
		s->tun_waits = false;
		session_event_push(s, &out);
		return;
	case PTCP_EVENT_CONN:
		out.type = SESSION_EVENT_CONN;
		out.conn = event->conn;
		session_event_push(s, &out);
		return;
	default:
		return;
	}
}

static void on_nat_event(struct session *s, const struct nat_event *event, uint64_t now_us)
{
	struct session_event out = { .type = SESSION_EVENT_WANT_SOCKET };

	switch (event->kind) {
	case NAT_EVENT_SIGNAL:
		rendezvous_trickle(s, now_us);
		return;
	case NAT_EVENT_PAIR_VALID:
		session_path_valid(s, event, now_us);
		return;
	case NAT_EVENT_PAIR_LOST:
		session_path_lost(s, event, now_us);
		return;
	case NAT_EVENT_WANT_FRESH_SOCKET:
		session_event_push(s, &out);
		return;
	case NAT_EVENT_WANT_VOLLEY:
		s->has_volley = true;
		out.type = SESSION_EVENT_WANT_VOLLEY;
		out.n_sockets = event->n_sockets;
		session_event_push(s, &out);
		return;
	case NAT_EVENT_VOLLEY_DONE:
		s->has_volley = false;
		out.type = SESSION_EVENT_VOLLEY_DONE;
		session_event_push(s, &out);
		return;
	case NAT_EVENT_SOCKET_UNUSED:
		out.type = SESSION_EVENT_SOCKET_UNUSED;
		out.socket = event->socket;
		session_event_push(s, &out);
		return;
	default:
		return;
	}
}

void session_pull(struct session *s, uint64_t now_us)
{
	struct ptcp_event ptcp_event;
	struct nat_event nat_event;

	while (s->nat && nat_agent_next_event(s->nat, &nat_event))
		on_nat_event(s, &nat_event, now_us);
	while (s->assoc && ptcp_next_event(s->assoc, &ptcp_event))
		on_ptcp_event(s, &ptcp_event, now_us);
	if (s->state == SESSION_CLOSING && ptcp_assoc_state(s->assoc) == PTCP_CLOSED)
		session_finish_close(s, now_us);
}
