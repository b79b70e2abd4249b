/*
 * Life, states and time of a session.
 */
#include "session/internal.h"

#include <stdio.h>

/* ---- names ---- */

static const char *const state_names[] = {
	[SESSION_DOWN] = "down",
	[SESSION_WAITING] = "waiting",
	[SESSION_RENDEZVOUS] = "rendezvous",
	[SESSION_CONNECTING] = "connecting",
	[SESSION_UP] = "up",
	[SESSION_STALLED] = "stalled",
	[SESSION_CLOSING] = "closing",
};
static_assert(ARRAY_SIZE(state_names) == SESSION_STATE_COUNT, "one name per state");

static const char *const input_names[] = {
	[INPUT_WANT] = "wanted",
	[INPUT_UNWANT] = "not wanted",
	[INPUT_REST] = "attempt ended",
	[INPUT_ATTEMPT] = "attempt",
	[INPUT_ASSOCIATION] = "offers exchanged",
	[INPUT_ESTABLISHED] = "established",
	[INPUT_OUTAGE] = "no path works",
	[INPUT_PATH] = "a path works",
	[INPUT_CLOSE] = "closed by us",
	[INPUT_LOST] = "association gone",
};
static_assert(ARRAY_SIZE(input_names) == INPUT_COUNT, "one name per input");

static const char *const mode_names[] = { "auto", "direct", "relay", "lan" };
static_assert(ARRAY_SIZE(mode_names) == SESSION_PATH_MODE_COUNT, "one name per mode");

/* When an attempt that failed for this reason is made again: first, and at most. */
static const struct why {
	const char *name;
	uint64_t first_us, max_us;
} whys[] = {
	[SESSION_WHY_NONE] = { "none", 0, 60 * US_PER_S },
	[SESSION_WHY_OFFLINE] = { "offline", 5 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_UNKNOWN] = { "unknown", 60 * US_PER_S, 300 * US_PER_S },
	[SESSION_WHY_REFUSED] = { "refused", 5 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_BUSY] = { "busy", 3 * US_PER_S, 10 * US_PER_S },
	[SESSION_WHY_PEER_DOWN] = { "peer-down", 10 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_SERVER] = { "server", 1 * US_PER_S, 30 * US_PER_S },
	[SESSION_WHY_UNTRUSTED] = { "untrusted", 300 * US_PER_S, 3600 * US_PER_S },
	[SESSION_WHY_REJECTED] = { "rejected", 60 * US_PER_S, 300 * US_PER_S },
	[SESSION_WHY_TIMED_OUT] = { "timed-out", 2 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_LOST] = { "lost", 500 * US_PER_MS, 60 * US_PER_S },
	[SESSION_WHY_GOING_AWAY] = { "going-away", 2 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_PROTOCOL] = { "protocol", 5 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_STOPPED] = { "stopped", 1 * US_PER_S, 60 * US_PER_S },
};
static_assert(ARRAY_SIZE(whys) == SESSION_WHY_COUNT, "one line per reason");

const char *session_state_name(enum session_state state)
{
	return (unsigned)state < SESSION_STATE_COUNT ? state_names[state] : "?";
}

const char *session_why_name(enum session_why why)
{
	return (unsigned)why < SESSION_WHY_COUNT ? whys[why].name : "?";
}

const char *session_path_mode_name(enum session_path_mode mode)
{
	return (unsigned)mode < SESSION_PATH_MODE_COUNT ? mode_names[mode] : "?";
}

/* ---- states ---- */

/* REST: WAITING if the link is wanted, else DOWN. KEEP: the input means nothing here. */
enum { KEEP = 0, REST = -1 };
#define TO(state) (SESSION_##state + 1)

/* clang-format off */
static const int table[SESSION_STATE_COUNT][INPUT_COUNT] = {
	[SESSION_DOWN] = {
		[INPUT_WANT] = TO(WAITING),
		[INPUT_ATTEMPT] = TO(RENDEZVOUS),
		[INPUT_ASSOCIATION] = TO(CONNECTING),
	},
	[SESSION_WAITING] = {
		[INPUT_UNWANT] = TO(DOWN),
		[INPUT_ATTEMPT] = TO(RENDEZVOUS),
		[INPUT_ASSOCIATION] = TO(CONNECTING),
	},
	[SESSION_RENDEZVOUS] = {
		[INPUT_UNWANT] = TO(DOWN),
		[INPUT_REST] = REST,
		[INPUT_ASSOCIATION] = TO(CONNECTING),
	},
	[SESSION_CONNECTING] = {
		[INPUT_ESTABLISHED] = TO(UP),
		[INPUT_CLOSE] = TO(CLOSING),
		[INPUT_LOST] = REST,
	},
	[SESSION_UP] = {
		[INPUT_ASSOCIATION] = TO(CONNECTING),
		[INPUT_OUTAGE] = TO(STALLED),
		[INPUT_CLOSE] = TO(CLOSING),
		[INPUT_LOST] = REST,
	},
	[SESSION_STALLED] = {
		[INPUT_ASSOCIATION] = TO(CONNECTING),
		[INPUT_PATH] = TO(UP),
		[INPUT_CLOSE] = TO(CLOSING),
		[INPUT_LOST] = REST,
	},
	[SESSION_CLOSING] = {
		[INPUT_ASSOCIATION] = TO(CONNECTING),
		[INPUT_LOST] = REST,
	},
};
/* clang-format on */

static void check(const struct session *s)
{
	const bool has = s->assoc != NULL;

	(void)has;
	assert(!has == !s->keys);
	assert(s->state != SESSION_UP || has);
	assert(s->state != SESSION_STALLED || has);
	assert(s->state != SESSION_CONNECTING || has);
	assert(s->state != SESSION_CLOSING || has);
}

/* The one place that changes the state, so the one place that traces it. */
void session_dispatch(struct session *s, enum session_input input, const char *because,
		      uint64_t now_us)
{
	const enum session_state from = s->state;
	const int cell = table[from][input];
	struct session_event event = { .type = SESSION_EVENT_STATE };

	if (cell == KEEP)
		return;
	if (cell == REST)
		s->state = s->wanted ? SESSION_WAITING : SESSION_DOWN;
	else
		s->state = (enum session_state)(cell - 1);
	check(s);
	if (s->state == from)
		return;
	s->since_us = now_us;
	if (s->config.trace)
		s->config.trace(s->config.user, "link", state_names[from], state_names[s->state],
				because ? because : input_names[input]);
	event.state.from = from;
	event.state.to = s->state;
	session_event_push(s, &event);
}

void session_event_push(struct session *s, const struct session_event *event)
{
	/* Pulled after each input; what no caller pulls for so long is not missed. */
	if (s->n_events == SESSION_EVENTS_MAX)
		return;
	s->events[(s->first_event + s->n_events++) % SESSION_EVENTS_MAX] = *event;
}

bool session_next_event(struct session *s, struct session_event *ret_event)
{
	if (s->n_events == 0)
		return false;
	*ret_event = s->events[s->first_event];
	s->first_event = (s->first_event + 1) % SESSION_EVENTS_MAX;
	s->n_events--;
	return true;
}

/* ---- when to try again ---- */

void session_set_why(struct session *s, enum session_why why, const char *text)
{
	s->why = why;
	snprintf(s->why_text, sizeof(s->why_text), "%s", text ? text : "");
}

void session_plan_retry(struct session *s, enum session_why why, uint64_t now_us)
{
	uint64_t delay_us = whys[why].first_us;
	uint8_t jitter = 0;

	for (unsigned i = 0; i < s->n_failures && delay_us < whys[why].max_us; i++)
		delay_us += delay_us / 2;
	delay_us = min_u64(delay_us, whys[why].max_us);
	/* Two ends that lost each other at once should not ask at once: up to an eighth later. */
	if (!s->config.random(s->config.user, &jitter, sizeof(jitter)))
		delay_us += delay_us * jitter / 2048;
	if (s->n_failures < 64)
		s->n_failures++;
	s->retry_us = now_us + delay_us;
}

/* Is another rendezvous needed, by us? Where only the peer wants the link, it asks. */
static bool needs_rendezvous(const struct session *s)
{
	if (s->pending.phase != RENDEZVOUS_NONE)
		return false;
	if (!s->wanted)
		return s->nudge && s->state == SESSION_DOWN;
	switch (s->state) {
	case SESSION_WAITING:
	case SESSION_STALLED:
		return true;
	case SESSION_UP:
		return s->open.phase == RENDEZVOUS_NONE;
	default:
		return false;
	}
}

void session_nudge(struct session *s, uint64_t now_us)
{
	s->nudge = true;
	session_wake(s, now_us);
}

void session_wake(struct session *s, uint64_t now_us)
{
	s->n_failures = 0;
	s->retry_us = min_u64(s->retry_us, now_us);
}

/* ---- the association ---- */

static int verify_peer(void *user, struct crypto_cert *cert)
{
	const struct session *s = user;

	if (!s->assoc_cert || !crypto_cert_same_key(cert, s->assoc_cert))
		return CRYPTO_VERIFY_KEY_CHANGED;
	return s->config.verify(s->config.user, cert);
}

static void trace_ptcp(void *user, const struct ptcp_trace *trace, uint64_t now_us)
{
	const struct session *s = user;

	(void)now_us;
	if (s->config.trace && trace->what != PTCP_TRACE_NOTE)
		s->config.trace(s->config.user,
				trace->what == PTCP_TRACE_STATE ? "association" : "path",
				trace->from, trace->to, trace->because);
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
	s->relay_taken = s->relay_batch.used_bytes = 0;
	s->active_path_id = PTCP_PATH_NONE;
	s->close_deadline_us = NEVER_US;
	session_paths_clear(s);
}

int session_start_association(struct session *s, uint64_t now_us)
{
	const struct keys_rendezvous rendezvous = rendezvous_keys(s, &s->open);
	const struct keys_config keys_config = {
		.role = s->open.requester ? PTCP_CLIENT : PTCP_SERVER,
		.tls = s->config.tls,
		.verify = verify_peer,
		.user = s,
		.rendezvous = &rendezvous,
	};
	struct ptcp_config config = {
		.role = keys_config.role,
		.liveness_us = s->config.liveness_us,
		.ecn = true,
		.trace = trace_ptcp,
		.trace_user = s,
	};
	int r;

	session_drop_association(s);
	s->assoc_cert = crypto_cert_ref(s->open.peer_cert);
	memcpy(config.local_cid, s->open.own_cid, PTCP_CID_BYTES);
	memcpy(config.remote_cid, s->open.peer_cid, PTCP_CID_BYTES);
	r = s->config.random(s->config.user, config.random_seed, sizeof(config.random_seed));
	if (!r)
		r = keys_new(&keys_config, &s->keys);
	if (!r) {
		config.crypto = keys_ptcp(s->keys);
		s->assoc = ptcp_assoc_new(&config, now_us);
		r = s->assoc ? 0 : -ENOMEM;
	}
	secret_wipe(config.random_seed, sizeof(config.random_seed));
	if (r) {
		session_drop_association(s);
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
static void finish_close(struct session *s, uint64_t now_us)
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
	s->n_failures = 0;
	session_dispatch(s, INPUT_ESTABLISHED, NULL, now_us);
}

static void on_pong(struct session *s, const struct ptcp_event *event)
{
	const struct path *path = session_path_by_id(s, event->pong.path_id);
	struct session_event out = { .type = SESSION_EVENT_PONG };

	out.pong.id = event->pong.id;
	out.pong.rtt_us = event->pong.rtt_us;
	out.pong.relay = path && path->relay;
	if (path && !path->relay) {
		out.pong.socket = path->socket;
		out.pong.remote = path->remote;
	}
	session_event_push(s, &out);
}

static void on_path_down(struct session *s, uint32_t id, uint64_t now_us)
{
	const struct path *path = session_path_by_id(s, id);

	if (path && !path->relay && s->nat)
		nat_agent_path_lost(s->nat, path->socket, &path->remote, now_us);
}

static void on_ptcp_event(struct session *s, const struct ptcp_event *event, uint64_t now_us)
{
	struct session_event out = { .type = SESSION_EVENT_PATH };

	switch (event->type) {
	case PTCP_EVENT_ESTABLISHED:
		on_established(s, now_us);
		return;
	case PTCP_EVENT_CLOSED:
		on_closed(s, event->closed.code, event->closed.by_peer, now_us);
		return;
	case PTCP_EVENT_PATH_NEW:
		if (session_path_by_id(s, event->path.id))
			ptcp_path_add(s->assoc, event->path.id, PTCP_PATH_DIRECT, PATH_MTU_IPV4,
				      now_us);
		return;
	case PTCP_EVENT_PATH_UP:
		session_dispatch(s, INPUT_PATH, NULL, now_us);
		return;
	case PTCP_EVENT_PATH_DOWN:
		on_path_down(s, event->path.id, now_us);
		return;
	case PTCP_EVENT_PATH_SWITCHED:
		s->active_path_id = event->path.id;
		session_event_push(s, &out);
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
		finish_close(s, now_us);
}

/* ---- life ---- */

static int set_texts(struct session *s, const struct session_config *config)
{
	const size_t own = strlen(config->own_address), peer = strlen(config->peer_address);

	if (own > VIP_ADDRESS_BYTES_MAX || peer > VIP_ADDRESS_BYTES_MAX || own == 0 || peer == 0)
		return -EINVAL;
	memcpy(s->own_address, config->own_address, own);
	memcpy(s->peer_address, config->peer_address, peer);
	snprintf(s->device, sizeof(s->device), "%s", config->device ? config->device : "");
	s->config.own_address = s->own_address;
	s->config.peer_address = s->peer_address;
	s->config.device = s->device;
	return 0;
}

static int set_canonical(struct session *s)
{
	struct vip own, peer;
	int r = vip_from_address(s->own_address, &own);

	if (!r)
		r = vip_from_address(s->peer_address, &peer);
	if (r)
		return r;
	memcpy(s->canonical.own4, own.ip4, 4);
	memcpy(s->canonical.peer4, peer.ip4, 4);
	memcpy(s->canonical.own6, own.ip6, 16);
	memcpy(s->canonical.peer6, peer.ip6, 16);
	return 0;
}

int session_new(const struct session_config *config, uint64_t now_us, struct session **ret_session)
{
	struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->config = *config;
	s->config.tls = crypto_tls_context_ref(config->tls);
	s->since_us = now_us;
	s->retry_us = now_us;
	s->close_deadline_us = NEVER_US;
	s->pending.deadline_us = s->open.deadline_us = NEVER_US;
	s->active_path_id = PTCP_PATH_NONE;
	s->next_path_id = 1;
	STAILQ_INIT(&s->signals);
	s->batch = malloc(PTCP_BATCH_BYTES_MAX);
	s->relay = malloc(SESSION_RELAY_BYTES_MAX);
	s->segment = malloc(TUN_PACKET_BYTES);
	r = s->batch && s->relay && s->segment ? set_texts(s, config) : -ENOMEM;
	if (!r)
		r = set_canonical(s);
	if (r) {
		session_free(s);
		return r;
	}
	*ret_session = s;
	return 0;
}

void session_free(struct session *s)
{
	struct signal *signal;

	if (!s)
		return;
	session_drop_association(s);
	nat_agent_free(s->nat);
	rendezvous_clear(&s->open);
	rendezvous_clear(&s->pending);
	while ((signal = STAILQ_FIRST(&s->signals))) {
		STAILQ_REMOVE_HEAD(&s->signals, entry);
		free(signal);
	}
	free(s->signal_lent);
	crypto_tls_context_unref(s->config.tls);
	free(s->batch);
	free(s->relay);
	free(s->segment);
	free(s);
}

void session_want(struct session *s, bool wanted, uint64_t now_us)
{
	if (wanted) {
		s->wanted = true;
		session_dispatch(s, INPUT_WANT, NULL, now_us);
		session_wake(s, now_us);
		return;
	}
	s->wanted = false;
	session_close(s, SESSION_CLOSE_DOWN, now_us);
	rendezvous_clear(&s->pending);
	session_dispatch(s, INPUT_UNWANT, NULL, now_us);
}

void session_close(struct session *s, uint64_t code, uint64_t now_us)
{
	if (!s->assoc || s->state == SESSION_CLOSING)
		return;
	ptcp_assoc_close(s->assoc, code, now_us);
	session_pull(s, now_us);
}

void session_set_identity(struct session *s, struct crypto_tls_context *tls,
			  const struct crypto_key *own_key)
{
	struct crypto_tls_context *old = s->config.tls;

	s->config.tls = crypto_tls_context_ref(tls);
	s->config.own_key = own_key;
	crypto_tls_context_unref(old);
}

void session_set_path_mode(struct session *s, enum session_path_mode mode, uint64_t now_us)
{
	if (s->path_mode == mode)
		return;
	s->path_mode = mode;
	if (s->assoc)
		ptcp_set_relay_allowed(
			s->assoc, mode == SESSION_PATH_AUTO || mode == SESSION_PATH_RELAY, now_us);
	nat_agent_free(s->nat);
	s->nat = NULL;
	if (mode == SESSION_PATH_RELAY)
		session_paths_drop_direct(s, now_us);
	if (s->open.phase == RENDEZVOUS_OPEN && !rendezvous_make_agent(s, now_us))
		rendezvous_trickle(s, now_us);
	session_pull(s, now_us);
}

/* ---- sockets and candidates ---- */

int session_add_socket(struct session *s, uint8_t socket, bool ipv4, bool ipv6, uint64_t now_us)
{
	for (size_t i = 0; i < s->n_sockets; i++)
		if (s->sockets[i].socket == socket && s->sockets[i].ipv4 == ipv4 &&
		    s->sockets[i].ipv6 == ipv6)
			return 0;
	session_remove_socket(s, socket, now_us);
	if (s->n_sockets == SESSION_SOCKETS_MAX)
		return -ENOBUFS;
	s->sockets[s->n_sockets++] =
		(struct socket_info){ .socket = socket, .ipv4 = ipv4, .ipv6 = ipv6 };
	if (s->nat)
		nat_agent_add_socket(s->nat, socket, ipv4, ipv6, now_us);
	return 0;
}

void session_remove_socket(struct session *s, uint8_t socket, uint64_t now_us)
{
	for (size_t i = 0; i < s->n_sockets; i++)
		if (s->sockets[i].socket == socket) {
			s->sockets[i] = s->sockets[--s->n_sockets];
			if (s->nat)
				nat_agent_remove_socket(s->nat, socket, now_us);
			break;
		}
	for (size_t i = 0; i < s->n_locals;)
		if (s->locals[i].socket == socket)
			s->locals[i] = s->locals[--s->n_locals];
		else
			i++;
	session_pull(s, now_us);
}

int session_add_local(struct session *s, const struct nat_candidate *candidate, uint64_t now_us)
{
	if (s->n_locals == NAT_LOCAL_MAX)
		return -ENOBUFS;
	for (size_t i = 0; i < s->n_locals; i++)
		if (s->locals[i].socket == candidate->socket &&
		    s->locals[i].kind == candidate->kind &&
		    endpoint_equal(&s->locals[i].endpoint, &candidate->endpoint) &&
		    endpoint_equal(&s->locals[i].server, &candidate->server))
			return 0;
	s->locals[s->n_locals++] = *candidate;
	if (s->nat && (s->path_mode != SESSION_PATH_LAN || candidate->kind == NAT_HOST))
		nat_agent_add_local(s->nat, candidate, now_us);
	session_pull(s, now_us);
	return 0;
}

void session_clear_local(struct session *s)
{
	s->n_locals = 0;
	if (s->nat)
		nat_agent_clear_local(s->nat);
}

void session_gathered(struct session *s, uint64_t now_us)
{
	if (s->nat)
		nat_agent_gathered(s->nat, now_us);
	session_pull(s, now_us);
}

void session_network_changed(struct session *s, uint64_t now_us)
{
	if (s->assoc)
		for (size_t i = 0; i < PATHS_MAX; i++)
			if (s->paths[i].id)
				ptcp_path_check(s->assoc, s->paths[i].id, now_us);
	if (s->nat)
		nat_agent_restart(s->nat, now_us);
	session_wake(s, now_us);
	session_pull(s, now_us);
}

/* ---- time ---- */

uint64_t session_deadline_us(const struct session *s)
{
	uint64_t due_us = min_u64(s->close_deadline_us, NEVER_US);

	if (s->assoc)
		due_us = min_u64(due_us, ptcp_deadline_us(s->assoc));
	if (s->nat)
		due_us = min_u64(due_us, nat_agent_deadline_us(s->nat));
	if (s->pending.phase != RENDEZVOUS_NONE)
		due_us = min_u64(due_us, s->pending.deadline_us);
	if (needs_rendezvous(s))
		due_us = min_u64(due_us, s->retry_us);
	return due_us;
}

void session_tick(struct session *s, uint64_t now_us)
{
	if (s->assoc)
		ptcp_tick(s->assoc, now_us);
	if (s->nat)
		nat_agent_tick(s->nat, now_us);
	session_pull(s, now_us);
	if (now_us >= s->close_deadline_us)
		finish_close(s, now_us);
	if (s->pending.phase != RENDEZVOUS_NONE && now_us >= s->pending.deadline_us)
		rendezvous_fail(s, SESSION_WHY_TIMED_OUT,
				s->pending.phase == RENDEZVOUS_ASKING
					? "the peer's server did not answer in time"
					: "the peer asked for a link, then said no more",
				now_us);
	if (needs_rendezvous(s) && now_us >= s->retry_us)
		rendezvous_ask(s, now_us);
}

int session_ping(struct session *s, uint32_t id, uint64_t now_us)
{
	return s->state == SESSION_UP ? ptcp_ping(s->assoc, id, now_us) : -ENOTCONN;
}

struct crypto_cert *session_peer_cert(const struct session *s)
{
	return s->assoc_cert;
}

struct ptcp_assoc *session_assoc(struct session *s)
{
	return s->state == SESSION_UP || s->state == SESSION_STALLED ? s->assoc : NULL;
}

/* ---- figures ---- */

enum session_state session_state_of(const struct session *s)
{
	return s->state;
}

static void status_path(const struct session *s, struct session_status *out)
{
	struct ptcp_path_stats path;

	for (unsigned i = 0; ptcp_get_path_stats(s->assoc, i, &path); i++)
		if (path.path_id == s->active_path_id) {
			out->rtt_us = path.srtt_us;
			out->mtu_bytes = path.mtu_bytes;
		}
	for (size_t i = 0; i < PATHS_MAX; i++)
		if (s->paths[i].id && s->paths[i].id == s->active_path_id) {
			out->has_path = true;
			out->relay = s->paths[i].relay;
			out->same_lan = s->paths[i].same_lan;
			out->socket = s->paths[i].socket;
			out->remote = s->paths[i].remote;
		}
}

void session_get_status(const struct session *s, struct session_status *ret_status)
{
	struct session_status *out = ret_status;

	*out = (struct session_status){
		.state = s->state,
		.why = s->why,
		.since_us = s->since_us,
		.retry_us = needs_rendezvous(s) ? s->retry_us : NEVER_US,
		.wanted = s->wanted,
		.has_rendezvous = s->open.phase == RENDEZVOUS_OPEN,
		.tun_sent = s->tun_sent,
		.tun_sent_bytes = s->tun_sent_bytes,
		.tun_received = s->tun_received,
		.tun_received_bytes = s->tun_received_bytes,
		.tun_bad = s->tun_bad,
		.tun_discard = s->tun_discard,
		.peer_bad = s->peer_bad,
		.datagrams_bad = s->datagrams_bad,
		.has_ptcp = s->assoc != NULL,
		.has_nat = s->nat != NULL,
	};
	memcpy(out->why_text, s->why_text, sizeof(out->why_text));
	memcpy(out->device, s->peer_device, sizeof(out->device));
	if (s->assoc) {
		keys_describe(s->keys, out->tls, sizeof(out->tls));
		ptcp_get_stats(s->assoc, &out->ptcp);
		status_path(s, out);
	}
	if (s->nat)
		out->nat = nat_agent_status(s->nat);
}

size_t session_nat_pairs(const struct session *s, struct nat_pair_info *ret_list, size_t max)
{
	return s->nat ? nat_agent_pairs(s->nat, ret_list, max) : 0;
}
