/* The association as a whole: life, time, events, figures. */
#include "ptcp/assoc.h"

static const uint64_t default_handshake_timeout_us = 15 * US_PER_S;
static const uint64_t default_idle_timeout_us = 300 * US_PER_S;
static const uint64_t default_outage_us = 5 * US_PER_S;
static const uint64_t default_keepalive_direct_us = 25 * US_PER_S;
static const uint64_t default_liveness_us = 5 * US_PER_S;
static const uint64_t default_key_update_us = 600 * US_PER_S;
static const uint64_t default_key_update_packets = UINT64_C(1) << 26;
static const size_t default_send_queue_bytes = 24 * 1024 * 1024;
static const size_t default_send_memory_bytes = 48 * 1024 * 1024;
static const size_t default_receive_memory_bytes = 48 * 1024 * 1024;
static const uint32_t default_in_flight_packets = 32768;

/* ---- names --------------------------------------------------------------------------------- */

const char *ptcp_state_name(enum ptcp_state state)
{
	static const char *const names[] = { "handshaking", "established", "closing", "closed" };

	static_assert(ARRAY_SIZE(names) == PTCP_STATE_COUNT, "a name for each state");
	return names[state];
}

const char *ptcp_close_code_name(uint64_t code)
{
	static const char *const names[] = {
		[PTCP_CLOSE_DONE] = "closed in order",
		[PTCP_CLOSE_HANDSHAKE_FAILED] = "handshake failed",
		[PTCP_CLOSE_HANDSHAKE_TIMEOUT] = "handshake timed out",
		[PTCP_CLOSE_IDLE_TIMEOUT] = "nothing heard for too long",
		[PTCP_CLOSE_PROTOCOL] = "protocol error",
		[PTCP_CLOSE_KEYS_EXHAUSTED] = "keys exhausted",
		[PTCP_CLOSE_INTERNAL] = "internal error",
	};

	if (code >= PTCP_CLOSE_APPLICATION)
		return "closed by the application";
	return code < ARRAY_SIZE(names) ? names[code] : "unknown reason";
}

const char *ptcp_event_type_name(enum ptcp_event_type type)
{
	static const char *const names[] = {
		"established",   "verified",       "closed", "path-new",     "path-up", "path-down",
		"path-switched", "all-paths-down", "pong",   "message-room", "conn",
	};

	static_assert(ARRAY_SIZE(names) == PTCP_EVENT_TYPE_COUNT, "a name for each event");
	return names[type];
}

/* ---- small things -----------------------------------------------------------------------------
 */

uint64_t assoc_now(struct ptcp_assoc *a, uint64_t now_us)
{
	a->now_us = max_u64(a->now_us, now_us);
	return a->now_us;
}

uint64_t assoc_random(struct ptcp_assoc *a)
{
	const struct hash_seed seed = { a->config.random_seed[0], a->config.random_seed[1] };
	const uint64_t count = a->random_counter++;

	return hash_bytes(&seed, &count, sizeof(count));
}

void assoc_trace(struct ptcp_assoc *a, const struct ptcp_trace *trace)
{
	if (a->config.trace)
		a->config.trace(a->config.trace_user, trace, a->now_us);
}

static bool grow_events(struct ptcp_assoc *a)
{
	const unsigned n = 2 * a->event_room;
	struct ptcp_event *events = n <= EVENTS_MAX ? malloc(n * sizeof(*events)) : NULL;

	if (!events)
		return false;
	for (unsigned i = 0; i < a->n_events; i++)
		events[i] = a->events[(a->event_head + i) % a->event_room];
	free(a->events);
	a->events = events;
	a->event_room = n;
	a->event_head = 0;
	return true;
}

void assoc_event(struct ptcp_assoc *a, const struct ptcp_event *event)
{
	/* Full: who does not look loses the oldest, except that a CLOSED is never lost. */
	if (a->n_events == a->event_room && !grow_events(a)) {
		a->event_head = (a->event_head + 1) % a->event_room;
		a->n_events--;
	}
	a->events[(a->event_head + a->n_events++) % a->event_room] = *event;
}

void assoc_path_event(struct ptcp_assoc *a, enum ptcp_event_type type, uint32_t id, uint32_t from,
		      const char *reason)
{
	assoc_event(a, &(struct ptcp_event){
			       .type = type,
			       .path = { .id = id, .from = from, .reason = reason },
		       });
}

bool ptcp_next_event(struct ptcp_assoc *a, struct ptcp_event *ret_event)
{
	if (a->n_events > 0) {
		*ret_event = a->events[a->event_head];
		a->event_head = (a->event_head + 1) % a->event_room;
		a->n_events--;
		return true;
	}
	struct ptcp_conn_event conn;
	if (!ptcp_conns_next_event(a->conns, &conn))
		return false;
	*ret_event = (struct ptcp_event){ .type = PTCP_EVENT_CONN, .conn = conn };
	return true;
}

struct ptcp_conns *ptcp_assoc_conns(const struct ptcp_assoc *a)
{
	return a->conns;
}

enum ptcp_state ptcp_assoc_state(const struct ptcp_assoc *a)
{
	return a->state;
}

/* ---- life
 * ---------------------------------------------------------------------------------------- */

#define DEFAULT(field)                                                                             \
	do {                                                                                       \
		if (a->config.field == 0)                                                          \
			a->config.field = default_##field;                                         \
	} while (0)

static void set_defaults(struct ptcp_assoc *a)
{
	DEFAULT(handshake_timeout_us);
	DEFAULT(idle_timeout_us);
	DEFAULT(outage_us);
	DEFAULT(keepalive_direct_us);
	DEFAULT(liveness_us);
	DEFAULT(key_update_us);
	DEFAULT(key_update_packets);
	DEFAULT(send_queue_bytes);
	DEFAULT(send_memory_bytes);
	DEFAULT(receive_memory_bytes);
	DEFAULT(in_flight_packets);
	if (a->config.keepalive_relay_us == 0)
		a->config.keepalive_relay_us = NEVER_US;
}

bool ptcp_parity_available(void)
{
	return parity_code_available();
}

struct ptcp_assoc *ptcp_assoc_new(const struct ptcp_config *config, uint64_t now_us)
{
	struct ptcp_assoc *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->config = *config;
	set_defaults(a);
	a->now_us = a->last_received_us = a->switched_us = a->busy_us = now_us;
	a->cc_ops = cc_by_number(config->congestion_control);
	a->handshake_timeout_us = add_sat_u64(now_us, a->config.handshake_timeout_us);
	a->all_down_us = NEVER_US;
	a->relay_allowed = true;
	a->ack.deadline_us = NEVER_US;
	a->close_us = NEVER_US;
	a->stats.active_path_id = PTCP_PATH_NONE;

	const struct ptcp_conns_config conns = {
		.limits = config->conn_limits,
		.memory = config->memory,
		.trace = config->conn_trace,
		.trace_user = config->trace_user,
	};
	a->conns = ptcp_conns_new(&conns);
	a->events = malloc(EVENTS_FIRST * sizeof(*a->events));
	a->event_room = EVENTS_FIRST;
	const int failed = sent_init(&a->sent, a->config.in_flight_packets) < 0 ||
			   handshake_init(a) < 0 || sender_init(a) < 0 || receiver_init(a) < 0;
	if (!a->conns || !a->events || failed) {
		ptcp_assoc_free(a);
		return NULL;
	}
	return a;
}

void ptcp_assoc_free(struct ptcp_assoc *a)
{
	if (!a)
		return;
	sent_fini(&a->sent);
	parity_fini(a);
	handshake_fini(a);
	sender_fini(a);
	receiver_fini(a);
	ptcp_conns_free(a->conns);
	free(a->events);
	secret_wipe(a->config.random_seed, sizeof(a->config.random_seed));
	free(a);
}

/* The one place that changes the state. */
void assoc_set_state(struct ptcp_assoc *a, enum ptcp_state state, const char *because)
{
	const enum ptcp_state from = a->state;

	assert(state > from); /* life goes one way */
	a->state = state;
	assoc_trace(a, &(struct ptcp_trace){
			       .what = PTCP_TRACE_STATE,
			       .from = ptcp_state_name(from),
			       .to = ptcp_state_name(state),
			       .because = because,
			       .path_id = PTCP_PATH_NONE,
		       });
}

static void begin_on(struct ptcp_assoc *a, struct path *p, const char *because)
{
	cc_init(&p->cc, a->cc_ops, p->mtu_bytes, p->rtt.srtt_us, a->now_us);
	pacer_set_rate(&p->pacer, p->cc.pacing_rate, p->mtu_bytes, a->now_us);
	path_set_state(a, p, PTCP_PATH_UP, because);
}

static void establish(struct ptcp_assoc *a, const char *because)
{
	assoc_set_state(a, PTCP_ESTABLISHED, because);
	a->keys.changed_us = a->now_us;
	assoc_event(a, &(struct ptcp_event){ .type = PTCP_EVENT_ESTABLISHED });
}

void assoc_established_early(struct ptcp_assoc *a)
{
	struct path *last = NULL;

	establish(a, "the rendezvous proved the peer");
	/* Where the rendezvous was: of the paths that we were told of, the last to be chosen. */
	PATH_FOREACH (a, p)
		if (!last || p->kind > last->kind)
			last = p;
	if (last)
		begin_on(a, last, "rendezvous");
}

void assoc_verified(struct ptcp_assoc *a)
{
	struct path *const first = path_find(a, a->handshake.path_id);

	if (a->state > PTCP_ESTABLISHED)
		return;
	if (a->state == PTCP_HANDSHAKING)
		establish(a, "TLS is complete");
	assoc_event(a, &(struct ptcp_event){ .type = PTCP_EVENT_VERIFIED });
	PATH_FOREACH (a, p)
		if (p != first && p->state != PTCP_PATH_UP)
			path_challenge_now(a, p);
	/* Both have answered there under a key that nobody else has. */
	if (first && !first->any_acked)
		begin_on(a, first, "handshake");
}

/* Ends it: CLOSED is told at once; CLOSING lasts until the peer knows. */
static void end(struct ptcp_assoc *a, uint64_t code, bool by_peer, enum ptcp_state state,
		const char *because)
{
	a->close_code = code;
	a->n_closes = 0;
	a->close_us = a->now_us;
	assoc_set_state(a, state, because);
	ptcp_conns_association_lost(a->conns, a->now_us);
	assoc_event(a, &(struct ptcp_event){
			       .type = PTCP_EVENT_CLOSED,
			       .closed = { .code = code, .by_peer = by_peer },
		       });
}

void assoc_fail(struct ptcp_assoc *a, enum ptcp_close_code code)
{
	if (a->state >= PTCP_CLOSING)
		return;
	end(a, code, false, PTCP_CLOSING, ptcp_close_code_name(code));
}

void assoc_closed(struct ptcp_assoc *a, uint64_t code, bool by_peer, const char *because)
{
	if (a->state == PTCP_CLOSED)
		return;
	if (a->state == PTCP_CLOSING) {
		if (!a->close_answer_owed)
			assoc_set_state(a, PTCP_CLOSED, because);
		return;
	}
	if (!by_peer) {
		end(a, code, false, PTCP_CLOSED, because);
		return;
	}
	/* One answer, so that the peer need not repeat itself. */
	end(a, code, true, PTCP_CLOSING, because);
	a->close_answer_owed = true;
	a->n_closes = CLOSE_TRIES - 1;
}

int ptcp_assoc_close(struct ptcp_assoc *a, uint64_t code, uint64_t now_us)
{
	assoc_now(a, now_us);
	if (a->state >= PTCP_CLOSING)
		return -EALREADY;
	end(a, code, false, PTCP_CLOSING, "close");
	return 0;
}

int ptcp_ping(struct ptcp_assoc *a, uint32_t id, uint64_t now_us)
{
	assoc_now(a, now_us);
	if (a->state != PTCP_ESTABLISHED)
		return -ENOTCONN;
	if (a->n_pings == PINGS_MAX) {
		if (a->pings[0].sent_us == NEVER_US)
			return -ENOBUFS;
		memmove(a->pings, a->pings + 1, (PINGS_MAX - 1) * sizeof(a->pings[0]));
		a->n_pings--;
	}
	if (++a->next_ping == 0)
		a->next_ping = 1;
	a->pings[a->n_pings++] =
		(struct ping){ .id = id, .wire_id = a->next_ping, .sent_us = NEVER_US };
	return 0;
}

/* ---- time
 * ------------------------------------------------------------------------------------------- */

/*
 * When the active path has been silent for so long that we ask. The longer nothing was said before,
 * the longer we wait: nobody misses an idle path, and keepalives ask too.
 */
static uint64_t liveness_us(const struct ptcp_assoc *a)
{
	const struct path *const p = a->active;
	const uint64_t base_us = a->config.liveness_us;

	if (!p || p->head_pn != SENT_NO_PN || p->n_probes > 0)
		return NEVER_US;
	const uint64_t heard_us = max_u64(p->last_received_us, p->progress_us);
	/* Whoever knows that keepalives may be rare does not want to be woken more often by this. */
	const uint64_t max_us =
		max_u64(LIVENESS_MAX_US, p->keepalive_us == NEVER_US ? 0 : p->keepalive_us);
	const uint64_t quiet_us = min_u64(heard_us - min_u64(heard_us, a->busy_us), max_us);
	return add_sat_u64(heard_us, max_u64(base_us, quiet_us));
}

static uint64_t idle_us(const struct ptcp_assoc *a)
{
	return add_sat_u64(a->last_received_us, a->config.idle_timeout_us);
}

static uint64_t paths_deadline_us(const struct ptcp_assoc *a)
{
	uint64_t t = NEVER_US;

	for (const struct path *p = a->paths; p < a->paths + PTCP_PATHS_MAX; p++) {
		if (!p->used)
			continue;
		t = min_u64(t, min_u64(recovery_deadline_us(a, p), path_deadline_us(a, p)));
		if (pmtu_probe_due(p, NEVER_US) != 0)
			t = min_u64(t, p->mtu_next_us);
	}
	return t;
}

/* ---- rest ---------------------------------------------------------------------------------- */

/*
 * After a burst its buffers are kept for the next one, but not for long: a machine with many
 * peers needs them elsewhere. What is in flight names slots and packets, so it ends that first.
 */
static bool can_rest(const struct ptcp_assoc *a)
{
	return a->sent.tail == a->sent.next_pn &&
	       (sender_can_rest(a) || receiver_can_rest(a) || sent_can_rest(&a->sent));
}

static uint64_t rest_us(const struct ptcp_assoc *a)
{
	return can_rest(a) ? add_sat_u64(a->busy_us, REST_US) : NEVER_US;
}

uint64_t ptcp_deadline_us(const struct ptcp_assoc *a)
{
	uint64_t t = handshake_deadline_us(a);

	/* Output may bring some forth, after its caller looked for them. */
	if (a->n_events > 0)
		return a->now_us;
	switch (a->state) {
	case PTCP_HANDSHAKING:
		return min_u64(t, a->handshake_timeout_us);
	case PTCP_ESTABLISHED:
		if (!a->handshake.done)
			t = min_u64(t, a->handshake_timeout_us);
		t = min_u64(t, paths_deadline_us(a));
		t = min_u64(t, output_deadline_us(a));
		if (a->sender.memory_us > 0)
			t = min_u64(t, a->sender.memory_us);
		t = min_u64(t, receiver_deadline_us(a));
		t = min_u64(t, parity_deadline_us(a));
		t = min_u64(t, ptcp_conns_deadline_us(a->conns));
		t = min_u64(t, min_u64(liveness_us(a), a->all_down_us));
		t = min_u64(t, rest_us(a));
		return min_u64(t, idle_us(a));
	case PTCP_CLOSING:
		return a->close_us;
	case PTCP_CLOSED:
	case PTCP_STATE_COUNT:
		break;
	}
	return NEVER_US;
}

static void tick_liveness(struct ptcp_assoc *a)
{
	if (a->now_us < liveness_us(a))
		return;
	a->active->n_probes = 1;
	receiver_expire(a);
}

static void tick_rest(struct ptcp_assoc *a)
{
	/* Under load there are ticks enough; without it there is the rest. */
	if (a->now_us >= a->decay_us) {
		a->decay_us = a->now_us + REST_US;
		pool_decay(&a->sender.pool);
		pool_decay(&a->receiver.pool);
		sent_decay(&a->sent);
	}
	if (a->now_us < rest_us(a))
		return;
	a->busy_us = a->now_us;
	if (sender_can_rest(a))
		sender_rest(a);
	if (receiver_can_rest(a))
		receiver_rest(a);
	sent_rest(&a->sent);
	a->stats.rests++;
}

static void tick_established(struct ptcp_assoc *a)
{
	if (!a->handshake.done && a->now_us >= a->handshake_timeout_us) {
		assoc_closed(a, PTCP_CLOSE_HANDSHAKE_TIMEOUT, false, "handshake timeout");
		return;
	}
	if (a->now_us >= idle_us(a)) {
		assoc_closed(a, PTCP_CLOSE_IDLE_TIMEOUT, false, "idle timeout");
		return;
	}
	PATH_FOREACH (a, p) {
		recovery_tick(a, p);
		path_tick(a, p);
	}
	receiver_tick(a);
	parity_close_due(a);
	parity_tick(a);
	ptcp_conns_tick(a->conns, a->now_us);
	tick_liveness(a);
	tick_rest(a);
	if (a->now_us >= a->all_down_us) {
		a->all_down_us = NEVER_US;
		a->all_down_told = true;
		assoc_event(a, &(struct ptcp_event){ .type = PTCP_EVENT_ALL_PATHS_DOWN });
	}
}

void ptcp_tick(struct ptcp_assoc *a, uint64_t now_us)
{
	assoc_now(a, now_us);
	if (a->state == PTCP_HANDSHAKING || a->state == PTCP_ESTABLISHED)
		handshake_tick(a);
	switch (a->state) {
	case PTCP_HANDSHAKING:
		if (a->now_us >= a->handshake_timeout_us)
			assoc_closed(a, PTCP_CLOSE_HANDSHAKE_TIMEOUT, false, "handshake timeout");
		break;
	case PTCP_ESTABLISHED:
		tick_established(a);
		break;
	case PTCP_CLOSING:
		if (a->now_us < a->close_us)
			break;
		if (a->n_closes >= CLOSE_TRIES)
			assoc_set_state(a, PTCP_CLOSED, "the peer does not answer the close");
		else if (!output_any_path(a))
			assoc_set_state(a, PTCP_CLOSED, "no path to tell the peer on");
		break;
	case PTCP_CLOSED:
	case PTCP_STATE_COUNT:
		break;
	}
}

/* ---- figures
 * ------------------------------------------------------------------------------------------ */

void ptcp_get_stats(const struct ptcp_assoc *a, struct ptcp_stats *ret_stats)
{
	*ret_stats = a->stats;
	ret_stats->send_queue_bytes = sender_pending_bytes(&a->sender);
	ret_stats->send_memory_bytes = a->sender.pool.used_bytes;
	ret_stats->receive_memory_bytes = a->receiver.pool.used_bytes;
	ret_stats->active_path_id = a->active ? a->active->id : PTCP_PATH_NONE;
}

bool ptcp_get_path_stats(const struct ptcp_assoc *a, unsigned index,
			 struct ptcp_path_stats *ret_stats)
{
	for (const struct path *p = a->paths; p < a->paths + PTCP_PATHS_MAX; p++) {
		if (!p->used || index-- > 0)
			continue;
		*ret_stats = (struct ptcp_path_stats){
			.path_id = p->id,
			.kind = p->kind,
			.state = p->state,
			.active = p == a->active,
			.mtu_bytes = p->mtu_bytes,
			.srtt_us = p->rtt.srtt_us,
			.rttvar_us = p->rtt.var_us,
			.min_rtt_us = p->rtt.min_us,
			.latest_rtt_us = p->rtt.latest_us,
			.cwnd_bytes = p->cc.cwnd_bytes,
			.in_flight_bytes = p->in_flight_bytes,
			.pacing_bytes_per_s = p->cc.pacing_rate,
			.bandwidth_bytes_per_s = p->cc.ops->bandwidth(&p->cc),
			.bytes_sent = p->bytes_sent,
			.bytes_received = p->bytes_received,
			.packets_lost = p->n_lost,
			.random_loss_ppm = parity_loss_ppm(p),
			.parity = p->parity.on,
			.last_received_us = p->last_received_us,
			.cc = p->cc.ops->name,
			.cc_mode = p->cc.ops->mode(&p->cc),
			.ecn = path_uses_ecn(a, p),
		};
		return true;
	}
	return false;
}
