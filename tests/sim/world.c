/* Time, and the pump of each end. */
#include "sim.h"

#include <stdio.h>

#define ROUNDS_MAX 2000
#define SPINS_MAX  20

void sim_fail(struct sim_world *w, const char *format, ...)
{
	va_list args;

	if (w->failure[0] != 0)
		return;
	int n = snprintf(w->failure, sizeof(w->failure),
			 "at %.6f s: ", (double)w->now_us / (double)US_PER_S);
	va_start(args, format);
	vsnprintf(w->failure + n, sizeof(w->failure) - (size_t)n, format, args);
	va_end(args);
	if (w->verbose)
		fprintf(stderr, "# FAILED %s\n", w->failure);
}

void sim_log(const struct sim_world *w, const char *format, ...)
{
	va_list args;

	if (!w->verbose)
		return;
	fprintf(stderr, "# %11.6f ", (double)w->now_us / (double)US_PER_S);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

struct sim_world *sim_world_new(uint64_t seed)
{
	struct sim_world *const w = sim_own_alloc(sizeof(*w));

	w->seed = seed;
	w->rng.state = seed;
	w->now_us = US_PER_S;
	w->next_path_id = 1;
	sim_memory_peak_reset();
	return w;
}

void sim_world_free(struct sim_world *w)
{
	SIM_PAIR_FOREACH(w, p)
	for (int i = 0; i < 2; i++) {
		ptcp_assoc_free(p->end[i].a);
		sim_own_free(p->end[i].messages.seen);
	}
	sim_net_fini(w);
	sim_own_free(w);
}

/* ---- pairs
 * --------------------------------------------------------------------------------------------- */

static void trace_assoc(void *user, const struct ptcp_trace *t, uint64_t now_us)
{
	const struct sim_end *const e = user;

	(void)now_us;
	sim_log(e->world, "pair %d end %d: path %d: %s -> %s: %s %llu", e->pair->index, e->index,
		(int)t->path_id, t->from ? t->from : "", t->to ? t->to : "",
		t->because ? t->because : "", (unsigned long long)t->value);
}

static void trace_conn(void *user, uint32_t id, enum ptcp_conn_state from, enum ptcp_conn_state to,
		       enum ptcp_conn_input because, uint64_t now_us)
{
	const struct sim_end *const e = user;

	(void)now_us;
	sim_log(e->world, "pair %d end %d: connection %u: %s -> %s: %s", e->pair->index, e->index,
		id, ptcp_conn_state_name(from), ptcp_conn_state_name(to),
		ptcp_conn_input_name(because));
}

struct sim_pair *sim_pair_add(struct sim_world *w, const struct ptcp_config *config)
{
	struct sim_pair *p = w->pairs;

	while (p->used)
		p++;
	p->used = true;
	p->index = (int)(p - w->pairs);
	const uint64_t key = sim_random(&w->rng);
	for (int i = 0; i < 2; i++) {
		struct sim_end *const e = &p->end[i];

		e->world = w;
		e->pair = p;
		e->index = i;
		e->batch_bytes = PTCP_BATCH_BYTES_MAX;
		e->adopts = true;
		e->wake_us = NEVER_US;
		e->config = *config;
		e->config.role = i == 0 ? PTCP_CLIENT : PTCP_SERVER;
		memset(e->config.local_cid, 16 * p->index + i + 1, PTCP_CID_BYTES);
		memset(e->config.remote_cid, 16 * p->index + !i + 1, PTCP_CID_BYTES);
		e->config.random_seed[0] = sim_random(&w->rng);
		e->config.random_seed[1] = sim_random(&w->rng);
		e->config.crypto = sim_crypto(&e->tls);
		e->config.trace = trace_assoc;
		e->config.conn_trace = trace_conn;
		e->config.trace_user = e;
		e->tls = (struct sim_tls){
			.end = e,
			.is_server = i == 1,
			.key = key,
			.flight_bytes = { 1500, 3000, 2500 },
			.phase_ready = 1,
		};
	}
	return p;
}

bool sim_pair_start(struct sim_world *w, struct sim_pair *pair)
{
	for (int i = 0; i < 2; i++) {
		struct sim_end *const e = &pair->end[i];

		sim_messages_init(&e->messages);
		if (e->config.early)
			sim_tls_begin_early(&e->tls);
		e->a = ptcp_assoc_new(&e->config, w->now_us);
		if (!e->a)
			return false;
		sim_streams_listen(e);
		e->dirty = true;
	}
	return true;
}

/* ---- one end
 * -----------------------------------------------------------------------------------------------
 */

static void on_path_new(struct sim_end *e, uint32_t id)
{
	struct sim_wire *const wire = sim_wire_find(e->world, e->pair->index, e->index, id);

	e->n_path_new++;
	if (wire && e->adopts)
		sim_wire_tell(e->world, wire, e->index);
}

static void on_path_down(struct sim_end *e, uint32_t id)
{
	e->n_path_down++;
	e->path_down_us = e->world->now_us;
	if (e->adopts && !sim_wire_find(e->world, e->pair->index, e->index, id))
		ptcp_path_remove(e->a, id, e->world->now_us);
}

/* The servers still know both ends: they tell them where they are now. */
static void on_all_down(struct sim_end *e)
{
	struct sim_world *const w = e->world;

	e->n_all_down++;
	e->all_down_us = w->now_us;
	for (struct sim_wire *wire = w->wires; wire < w->wires + SIM_WIRES_MAX; wire++)
		for (int i = 0; i < 2 && wire->alive && wire->pair == e->pair->index; i++)
			sim_wire_tell(w, wire, i);
}

static void on_closed(struct sim_end *e, const struct ptcp_event *event)
{
	if (++e->n_closed > 1)
		sim_fail(e->world, "closed twice");
	e->closed_us = e->world->now_us;
	e->close_code = event->closed.code;
	e->closed_by_peer = event->closed.by_peer;
}

static void on_event(struct sim_end *e, const struct ptcp_event *event)
{
	struct sim_world *const w = e->world;

	if (event->type != PTCP_EVENT_CONN && event->type != PTCP_EVENT_MESSAGE_ROOM)
		sim_log(w, "pair %d end %d: %s %u %u", e->pair->index, e->index,
			ptcp_event_type_name(event->type), event->path.id, event->path.from);
	switch (event->type) {
	case PTCP_EVENT_ESTABLISHED:
		e->established_us = w->now_us;
		if (++e->n_established > 1)
			sim_fail(w, "established twice");
		break;
	case PTCP_EVENT_VERIFIED:
		if (++e->n_verified > 1 || e->n_established == 0)
			sim_fail(w, "verified twice, or before it was established");
		break;
	case PTCP_EVENT_CLOSED:
		on_closed(e, event);
		break;
	case PTCP_EVENT_PATH_NEW:
		on_path_new(e, event->path.id);
		break;
	case PTCP_EVENT_PATH_UP:
		e->n_path_up++;
		break;
	case PTCP_EVENT_PATH_DOWN:
		on_path_down(e, event->path.id);
		break;
	case PTCP_EVENT_PATH_SWITCHED:
		e->n_switched++;
		e->switched_us = w->now_us;
		break;
	case PTCP_EVENT_ALL_PATHS_DOWN:
		on_all_down(e);
		break;
	case PTCP_EVENT_PONG:
		e->n_pongs++;
		break;
	case PTCP_EVENT_MESSAGE_ROOM:
		e->messages.blocked = false;
		break;
	case PTCP_EVENT_CONN:
		sim_streams_event(e, &event->conn);
		break;
	case PTCP_EVENT_TYPE_COUNT:
		break;
	}
}

static bool take_events(struct sim_end *e)
{
	struct ptcp_event event;
	bool any = false;

	while (ptcp_next_event(e->a, &event)) {
		on_event(e, &event);
		any = true;
	}
	return any;
}

static bool take_messages(struct sim_end *e)
{
	const uint8_t *data;
	size_t n_bytes;
	bool any = false;

	while (ptcp_message_next(e->a, &data, &n_bytes)) {
		if (!e->tls.done)
			sim_fail(e->world, "a message of a peer that is not verified");
		sim_messages_take(e, data, n_bytes);
		any = true;
	}
	return any;
}

static void check_batch(struct sim_end *e, const struct ptcp_batch *b)
{
	if (b->used_bytes == 0 || b->used_bytes > e->batch_bytes || b->segment_bytes == 0 ||
	    b->segment_bytes > b->used_bytes ||
	    (b->used_bytes + b->segment_bytes - 1) / b->segment_bytes > PTCP_BATCH_SEGMENTS_MAX)
		sim_fail(e->world, "a batch of %zu bytes in segments of %zu", b->used_bytes,
			 b->segment_bytes);
}

static bool send_all(struct sim_end *e)
{
	static uint8_t room[PTCP_BATCH_BYTES_MAX];
	bool any = false;

	for (unsigned n = 0;; n++) {
		struct ptcp_batch batch = { .data = room, .size_bytes = e->batch_bytes };

		if (!ptcp_output(e->a, &batch, e->world->now_us))
			return any;
		check_batch(e, &batch);
		sim_transmit(e, &batch);
		any = true;
		if (n > ROUNDS_MAX || e->world->failure[0] != 0) {
			sim_fail(e->world, "output without end");
			return any;
		}
	}
}

static void check_bounds(struct sim_end *e)
{
	struct ptcp_stats s;

	ptcp_get_stats(e->a, &s);
	if (s.send_memory_bytes > e->config.send_memory_bytes + PTCP_MESSAGE_BYTES_MAX * 2 ||
	    s.receive_memory_bytes > e->config.receive_memory_bytes + PTCP_MESSAGE_BYTES_MAX * 2)
		sim_fail(e->world, "%zu bytes to send and %zu received are too many",
			 s.send_memory_bytes, s.receive_memory_bytes);
}

static void set_wake(struct sim_end *e)
{
	struct sim_world *const w = e->world;
	const uint64_t due_us = ptcp_deadline_us(e->a);
	uint64_t wake_us = due_us;

	if (ptcp_assoc_state(e->a) == PTCP_CLOSED && due_us != NEVER_US)
		sim_fail(w, "a closed association has a timer");
	e->n_spins = due_us <= w->now_us ? e->n_spins + 1 : 0;
	if (e->n_spins > SPINS_MAX)
		sim_fail(w, "pair %d end %d spins", e->pair->index, e->index);
	/* Timers of the system are late. */
	if (due_us > w->now_us && due_us != NEVER_US && e->late_us > 0)
		wake_us += sim_below(&w->rng, e->late_us + 1);
	wake_us = min_u64(wake_us, sim_messages_next_us(e));
	e->wake_us = min_u64(wake_us, sim_streams_next_us(e));
}

static void pump(struct sim_end *e)
{
	struct sim_world *const w = e->world;
	bool any = true, ever = e->dirty;

	e->dirty = false;
	w->n_pumps++;
	for (unsigned n = 0; any && w->failure[0] == 0; n++) {
		any = take_messages(e);
		if (ptcp_deadline_us(e->a) <= w->now_us)
			ptcp_tick(e->a, w->now_us);
		any |= take_events(e);
		any |= sim_messages_run(e);
		any |= sim_streams_run(e);
		any |= send_all(e);
		ever |= any;
		if (n > ROUNDS_MAX)
			sim_fail(w, "pair %d end %d never rests", e->pair->index, e->index);
	}
	w->n_idle_pumps += !ever;
	if (w->n_idle_pumps > 20000 + 4 * w->n_datagrams)
		sim_fail(w, "woken too often for nothing");
	check_bounds(e);
	set_wake(e);
}

/* ---- the world's clock
 * --------------------------------------------------------------------------------------- */

void sim_at(struct sim_world *w, uint64_t at_us, sim_action *action, int pair, int end,
	    uint64_t value)
{
	assert(w->n_script < SIM_SCRIPT_MAX);
	w->script[w->n_script].at_us = at_us;
	w->script[w->n_script].action = action;
	w->script[w->n_script].pair = pair;
	w->script[w->n_script].end = end;
	w->script[w->n_script].value = value;
	w->n_script++;
}

static uint64_t script_next_us(const struct sim_world *w)
{
	uint64_t t = NEVER_US;

	for (unsigned i = 0; i < w->n_script; i++)
		t = min_u64(t, w->script[i].at_us);
	return t;
}

static void script_run(struct sim_world *w)
{
	for (unsigned i = 0; i < w->n_script;) {
		const __typeof__(w->script[0]) line = w->script[i];

		if (line.at_us > w->now_us) {
			i++;
			continue;
		}
		w->script[i] = w->script[--w->n_script];
		line.action(w, line.pair, line.end, line.value);
	}
}

static uint64_t end_next_us(const struct sim_end *e)
{
	if (!e->a)
		return NEVER_US;
	return max_u64(e->dirty ? 0 : e->wake_us, e->asleep_until_us);
}

static uint64_t next_us(struct sim_world *w)
{
	uint64_t t = min_u64(sim_net_next_us(w), script_next_us(w));

	SIM_PAIR_FOREACH(w, p)
	t = min_u64(t, min_u64(end_next_us(&p->end[0]), end_next_us(&p->end[1])));
	return t;
}

bool sim_run(struct sim_world *w, uint64_t for_us, sim_until *until)
{
	const uint64_t end_us = w->now_us + for_us;

	while (w->failure[0] == 0) {
		if (until && until(w))
			return true;
		const uint64_t t = next_us(w);
		if (t > end_us)
			break;
		w->now_us = max_u64(w->now_us, t);
		script_run(w);
		sim_net_deliver(w);
		SIM_PAIR_FOREACH(w, p)
		for (int i = 0; i < 2; i++)
			if (end_next_us(&p->end[i]) <= w->now_us)
				pump(&p->end[i]);
	}
	if (w->failure[0] == 0)
		w->now_us = end_us;
	return false;
}
