/*
 * A world and its mishaps, made from a seed. Act one is rough: links of all
 * kinds, and things happen to them. Then the weather clears, what was begun must
 * come to its end, and everything is closed.
 */
#include "sim.h"

#include <stdio.h>

#include "ptcp/conn_private.h"

#define QUIET_US    (10 * US_PER_S)  /* for what is still under way to arrive or be given up */
#define FINISH_US   (900 * US_PER_S) /* virtual: more is a stall */
#define FAREWELL_US (300 * US_PER_S)

/* ---- links
 * ------------------------------------------------------------------------------------------------
 */

static struct sim_link make_link(struct sim_rng *r)
{
	struct sim_link l = { .queue_us = 200000, .burst_packets = 20, .reorder_us = 20000 };

	switch (sim_below(r, 6)) {
	case 0: /* a cable */
		l.delay_us = sim_between(r, 100, 2000);
		l.bytes_per_s = sim_between(r, 10, 100) * 1000000;
		break;
	case 1: /* a subscriber's line */
		l.delay_us = sim_between(r, 5000, 40000);
		l.bytes_per_s = sim_between(r, 250, 6000) * 1000;
		l.loss_permille = (unsigned)sim_below(r, 10);
		break;
	case 2: /* radio */
		l.delay_us = sim_between(r, 1000, 10000);
		l.jitter_us = sim_between(r, 0, 8000);
		l.bytes_per_s = sim_between(r, 500, 10000) * 1000;
		l.loss_permille = (unsigned)sim_between(r, 10, 80);
		l.burst_permille = (unsigned)sim_below(r, 5);
		l.reorder_permille = (unsigned)sim_below(r, 30);
		l.ce_permille = (unsigned)sim_below(r, 50);
		break;
	case 3: /* a satellite */
		l.delay_us = sim_between(r, 250000, 350000);
		l.bytes_per_s = sim_between(r, 125, 2000) * 1000;
		l.loss_permille = (unsigned)sim_below(r, 20);
		break;
	case 4: /* narrow, with a long queue */
		l.delay_us = sim_between(r, 20000, 100000);
		l.bytes_per_s = sim_between(r, 20, 100) * 1000;
		l.queue_us = sim_between(r, 100000, 2000000);
		break;
	default: /* awful */
		l.delay_us = sim_between(r, 1000, 100000);
		l.jitter_us = sim_between(r, 0, 50000);
		l.bytes_per_s = sim_between(r, 100, 5000) * 1000;
		l.loss_permille = (unsigned)sim_between(r, 50, 250);
		l.duplicate_permille = (unsigned)sim_below(r, 100);
		l.corrupt_permille = (unsigned)sim_below(r, 50);
		l.truncate_permille = (unsigned)sim_below(r, 30);
		l.reorder_permille = (unsigned)sim_below(r, 200);
		l.reorder_us = sim_between(r, 1000, 300000);
		break;
	}
	l.mtu_bytes = sim_chance(r, 500) ? 1472 : sim_between(r, PTCP_MTU_MIN, 1500);
	l.says_too_big = sim_chance(r, 200);
	return l;
}

static void tell_action(struct sim_world *w, int pair, int end, uint64_t value)
{
	if (w->wires[value].alive && w->wires[value].pair == pair)
		sim_wire_tell(w, &w->wires[value], end);
}

static void add_wire(struct sim_world *w, int pair, enum ptcp_path_kind kind, uint64_t skew_us)
{
	struct sim_rng *const r = &w->rng;
	const struct sim_link there = make_link(r);
	const struct sim_link back = sim_chance(r, 700) ? there : make_link(r);
	struct sim_wire *const wire = sim_wire_add(w, pair, kind, &there, &back);

	if (!wire)
		return;
	if (sim_chance(r, 300))
		wire->path_mtu_bytes = (uint16_t)sim_between(r, PTCP_MTU_MIN, 9000);
	for (int i = 0; i < 2; i++)
		sim_at(w, w->now_us + sim_below(r, skew_us + 1), tell_action, pair, i,
		       (uint64_t)(wire - w->wires));
}

/* ---- mishaps
 * ------------------------------------------------------------------------------------------------
 */

static struct sim_wire *any_wire(struct sim_world *w, int pair)
{
	const uint64_t from = sim_below(&w->rng, SIM_WIRES_MAX);

	for (unsigned i = 0; i < SIM_WIRES_MAX; i++) {
		struct sim_wire *const wire = &w->wires[(from + i) % SIM_WIRES_MAX];

		if (wire->alive && wire->pair == pair)
			return wire;
	}
	return NULL;
}

static unsigned n_wires(const struct sim_world *w, int pair)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SIM_WIRES_MAX; i++)
		n += w->wires[i].alive && w->wires[i].pair == pair;
	return n;
}

static void blackout(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_wire *const wire = any_wire(w, pair);

	if (!wire)
		return;
	sim_log(w, "pair %d: path %u/%u goes dark for %llu us", pair, wire->id[0], wire->id[1],
		(unsigned long long)value);
	wire->link[end].dark_until_us = w->now_us + value;
	if (value % 3 != 0)
		wire->link[!end].dark_until_us = w->now_us + value;
}

static void rebind(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_wire *const wire = any_wire(w, pair);

	(void)value;
	if (wire)
		sim_wire_rebind(w, wire, end);
}

static void change_mtu(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_wire *const wire = any_wire(w, pair);

	if (!wire)
		return;
	wire->link[end].mtu_bytes = PTCP_MTU_MIN + value % 300;
	sim_log(w, "pair %d: from end %d the MTU is %zu now", pair, end, wire->link[end].mtu_bytes);
}

static void add_path(struct sim_world *w, int pair, int end, uint64_t value)
{
	(void)end;
	if (n_wires(w, pair) < 5)
		add_wire(w, pair, value % 4 == 0 ? PTCP_PATH_RELAY : PTCP_PATH_DIRECT, 500000);
}

static void remove_path(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_wire *const wire = any_wire(w, pair);

	(void)end;
	if (!wire || n_wires(w, pair) < 2)
		return;
	sim_log(w, "pair %d: path %u/%u is removed", pair, wire->id[0], wire->id[1]);
	wire->alive = false;
	for (int i = 0; i < 2; i++) {
		struct sim_end *const e = &w->pairs[pair].end[i];

		/* Some only notice the silence. */
		if (!e->a || (value >> i) % 2 == 0)
			continue;
		ptcp_path_remove(e->a, wire->id[i], w->now_us);
		e->dirty = true;
	}
}

static void update_keys(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_end *const e = &w->pairs[pair].end[end];

	(void)value;
	if (e->a)
		ptcp_assoc_update_keys(e->a);
}

/* A laptop whose lid is shut. */
static void fall_asleep(struct sim_world *w, int pair, int end, uint64_t value)
{
	sim_log(w, "pair %d end %d sleeps for %llu us", pair, end, (unsigned long long)value);
	w->pairs[pair].end[end].asleep_until_us = w->now_us + value;
}

static void ping(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_end *const e = &w->pairs[pair].end[end];

	if (!e->a)
		return;
	ptcp_ping(e->a, (uint32_t)value, w->now_us);
	e->dirty = true;
}

static void check_path(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_end *const e = &w->pairs[pair].end[end];
	const struct sim_wire *const wire = any_wire(w, pair);

	(void)value;
	if (!e->a || !wire)
		return;
	ptcp_path_check(e->a, wire->id[end], w->now_us);
	e->dirty = true;
}

static void forge(struct sim_world *w, int pair, int end, uint64_t value)
{
	for (unsigned n = 0; n < 1 + value % 16; n++)
		sim_net_forge(w, &w->pairs[pair], end, (unsigned)sim_below(&w->rng, 3));
}

static void forbid_relay(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_end *const e = &w->pairs[pair].end[end];

	if (!e->a)
		return;
	ptcp_set_relay_allowed(e->a, value % 2 == 0, w->now_us);
	e->dirty = true;
}

static void kill_end(struct sim_world *w, int pair, int end, uint64_t value)
{
	struct sim_end *const e = &w->pairs[pair].end[end];

	(void)value;
	if (w->pairs[pair].torn || w->pairs[pair].turned_away)
		return;
	sim_log(w, "pair %d end %d is killed", pair, end);
	ptcp_assoc_free(e->a);
	e->a = NULL;
	w->pairs[pair].killed = true;
}

static const struct {
	sim_action *action;
	unsigned weight;
	uint64_t value_max;
} mishaps[] = {
	{ blackout, 6, 4 * US_PER_S }, { rebind, 5, 1 },
	{ change_mtu, 4, 1000 },       { add_path, 5, 1000 },
	{ remove_path, 3, 1000 },      { update_keys, 4, 1 },
	{ fall_asleep, 2, 8000000 },   { ping, 3, 1000 },
	{ check_path, 2, 1 },          { forge, 3, 1000 },
	{ forbid_relay, 1, 1000 },
};

static void plan_mishap(struct sim_world *w, int pair, uint64_t within_us)
{
	struct sim_rng *const r = &w->rng;
	unsigned total = 0, i = 0;

	for (unsigned k = 0; k < ARRAY_SIZE(mishaps); k++)
		total += mishaps[k].weight;
	for (uint64_t pick = sim_below(r, total); pick >= mishaps[i].weight; i++)
		pick -= mishaps[i].weight;
	const uint64_t at_us = w->now_us + sim_below(r, within_us);
	const int end = (int)sim_below(r, 2);
	sim_at(w, at_us, mishaps[i].action, pair, end, sim_below(r, mishaps[i].value_max));
}

/* ---- the plan
 * -------------------------------------------------------------------------------------------------
 */

static struct ptcp_config make_config(struct sim_rng *r)
{
	struct ptcp_config c = {
		.handshake_timeout_us = 120 * US_PER_S,
		.idle_timeout_us = 60 * US_PER_S,
		.send_queue_bytes = (size_t)sim_between(r, 64, 1024) * 1024,
		.send_memory_bytes = (size_t)sim_between(r, 1024, 4096) * 1024,
		.receive_memory_bytes = (size_t)sim_between(r, 512, 4096) * 1024,
		.in_flight_packets = sim_chance(r, 200) ? 256 : 0,
		.ecn = sim_chance(r, 300),
		.parity = ptcp_parity_available() ? PTCP_PARITY_ALWAYS : PTCP_PARITY_OFF,
		.conn_limits = {
			.connect_timeout_us = 1000 * US_PER_S,
			.fin_timeout_us = 1000 * US_PER_S,
		},
	};

	if (sim_chance(r, 300))
		c.key_update_packets = sim_between(r, 50, 500);
	if (sim_chance(r, 200)) {
		c.liveness_us = NEVER_US;
		c.keepalive_direct_us = c.keepalive_relay_us = 10 * US_PER_S;
	}
	if (sim_chance(r, 300)) {
		c.conn_limits.send_bytes = (size_t)sim_between(r, 1000, 100000);
		c.conn_limits.window_first_bytes = (size_t)sim_between(r, 1000, 30000);
		c.conn_limits.window_bytes = (size_t)sim_between(r, 30000, 200000);
	}
	return c;
}

static void plan_messages(struct sim_world *w, struct sim_end *e)
{
	struct sim_rng *const r = &w->rng;
	struct sim_messages *const m = &e->messages;

	m->n_flows = (unsigned)sim_between(r, 1, SIM_FLOWS_MAX);
	for (unsigned i = 0; i < m->n_flows; i++) {
		m->flows[i].id = (uint32_t)sim_random(r);
		m->flows[i].ordered = sim_chance(r, 600);
	}
	if (sim_chance(r, 300))
		return;
	m->n_left = sim_between(r, 1, 200);
	m->start_us = w->now_us + sim_below(r, 3 * US_PER_S);
	m->interval_us = sim_chance(r, 250) ? 0 : sim_between(r, 100, 40000);
	m->size_min = 24;
	m->size_max = sim_chance(r, 500) ? 200 : 1500;
	m->big_permille = sim_chance(r, 300) ? 40 : 0;
	m->tiny_permille = sim_chance(r, 300) ? 100 : 0;
	m->persistence_us = sim_chance(r, 200) ? sim_between(r, 1000, 3000000) : 0;
	m->lend = sim_chance(r, 500);
}

static void plan_side(struct sim_rng *r, struct sim_side *side)
{
	const uint64_t size = sim_below(r, 10);

	side->n_bytes = size == 0 ? 0 : sim_between(r, 1, size < 8 ? 20000 : 200000);
	side->chunk_bytes = (size_t)sim_between(r, 1, sim_chance(r, 300) ? 65536 : 5000);
	side->pause_permille = sim_chance(r, 200) ? 100 : 0;
	side->peeks = sim_chance(r, 500);
	side->ending = SIM_SHUT_THEN_READ;
	if (sim_chance(r, 150))
		side->ending = sim_chance(r, 500) ? SIM_CLOSE : SIM_ABORT;
}

static void plan_stream(struct sim_world *w, struct sim_stream *s)
{
	struct sim_rng *const r = &w->rng;

	s->used = true;
	s->opener = (int)sim_below(r, 2);
	s->port = (uint16_t)sim_between(r, 1, 65535);
	s->refused = sim_chance(r, 50);
	s->both_open = !s->refused && sim_chance(r, 70);
	s->local_port = s->both_open ? (uint16_t)sim_between(r, 1, 65535) : PTCP_CONN_PORT_ANY;
	s->start_us = w->now_us + sim_below(r, 4 * US_PER_S);
	plan_side(r, &s->side[0]);
	plan_side(r, &s->side[1]);
	/* Crumbs are fine, as long as there are not too many of them. */
	const uint64_t crumb = max_u64(s->side[0].n_bytes, s->side[1].n_bytes) / 500;
	for (int i = 0; i < 2; i++)
		s->side[i].chunk_bytes = (size_t)max_u64(s->side[i].chunk_bytes, crumb);
	for (int i = 0; i < 2; i++)
		s->side[i].abort_at = sim_below(r, s->side[0].n_bytes + s->side[1].n_bytes + 1);
	/* Where neither reads, not much may be written, or both wait for ever. */
	if (s->side[0].ending == SIM_CLOSE && s->side[1].ending == SIM_CLOSE)
		s->side[0].n_bytes = s->side[1].n_bytes = sim_below(r, 1000);
	/* One may wait for the end of the other, but not both. */
	const int waits = (int)sim_below(r, 2);
	if (s->side[waits].ending == SIM_SHUT_THEN_READ && sim_chance(r, 500))
		s->side[waits].ending = SIM_READ_THEN_CLOSE;
}

static void plan_pair(struct sim_world *w, uint64_t within_us)
{
	struct sim_rng *const r = &w->rng;
	struct ptcp_config config = make_config(r);

	config.early = w->seed % 4 == 2; /* not by chance: the others keep their stories */
	struct sim_pair *const p = sim_pair_add(w, &config);
	const uint64_t n_streams = sim_below(r, 6), n_mishaps = sim_below(r, 7);

	for (int i = 0; i < 2; i++) {
		struct sim_end *const e = &p->end[i];

		for (unsigned k = 0; k < 3; k++)
			e->tls.flight_bytes[k] = (size_t)sim_between(r, 200, 4000);
		e->late_us = sim_chance(r, 500) ? sim_between(r, 1, 3000) : 0;
		e->batch_bytes = sim_chance(r, 300) ? 16384 : PTCP_BATCH_BYTES_MAX;
		e->adopts = sim_chance(r, 800);
		plan_messages(w, e);
	}
	memcpy(p->end[1].tls.flight_bytes, p->end[0].tls.flight_bytes,
	       sizeof(p->end[0].tls.flight_bytes));
	for (uint64_t i = 0; i < n_streams; i++)
		plan_stream(w, &p->streams[i]);
	add_wire(w, p->index, sim_chance(r, 500) ? PTCP_PATH_RELAY : PTCP_PATH_DIRECT, 100000);
	if (sim_chance(r, 300))
		add_path(w, p->index, 0, sim_random(r));
	for (uint64_t i = 0; i < n_mishaps; i++)
		plan_mishap(w, p->index, within_us);
	if (sim_chance(r, 30))
		sim_at(w, w->now_us + sim_below(r, within_us), kill_end, p->index,
		       (int)sim_below(r, 2), 0);
	p->torn = sim_chance(r, 100);
	if (sim_chance(r, 20)) {
		p->end[sim_below(r, 2)].tls.refuses = true;
		p->turned_away = true;
	}
	if (!sim_pair_start(w, p))
		sim_fail(w, "no association");
}

/* ---- the acts
 * ------------------------------------------------------------------------------------------------------
 */

static void calm_link(struct sim_link *l)
{
	l->loss_permille = (unsigned)min_u64(l->loss_permille, 20);
	l->reorder_permille = (unsigned)min_u64(l->reorder_permille, 10);
	l->corrupt_permille = l->truncate_permille = l->burst_permille = 0;
	l->dark_until_us = 0;
	l->burst_left = 0;
}

static void clear_the_weather(struct sim_world *w)
{
	for (unsigned i = 0; i < SIM_WIRES_MAX; i++) {
		calm_link(&w->wires[i].link[0]);
		calm_link(&w->wires[i].link[1]);
	}
	SIM_PAIR_FOREACH(w, p)
	for (int i = 0; i < 2; i++) {
		p->end[i].asleep_until_us = 0;
		forbid_relay(w, p->index, i, 0);
		for (unsigned k = 0; k < SIM_WIRES_MAX; k++)
			if (w->wires[k].alive && w->wires[k].pair == p->index)
				sim_wire_tell(w, &w->wires[k], i);
	}
}

static bool is_over(const struct sim_end *e)
{
	return !e->a || ptcp_assoc_state(e->a) == PTCP_CLOSED;
}

static bool is_finished(const struct sim_end *e)
{
	return sim_streams_done(e) && sim_messages_sent(e) &&
	       ptcp_conns_idle(ptcp_assoc_conns(e->a));
}

static bool pair_done(const struct sim_pair *p)
{
	if (p->killed || p->turned_away)
		return is_over(&p->end[0]) && is_over(&p->end[1]);
	return p->torn || (is_finished(&p->end[0]) && is_finished(&p->end[1]));
}

static bool all_done(struct sim_world *w)
{
	SIM_PAIR_FOREACH(w, p)
	if (!pair_done(p))
		return false;
	return true;
}

static bool all_closed(struct sim_world *w)
{
	SIM_PAIR_FOREACH(w, p)
	for (int i = 0; i < 2; i++)
		if (!is_over(&p->end[i]) || (p->end[i].a && !sim_streams_done(&p->end[i])))
			return false; /* a slow reader may still be at what came before */
	return true;
}

static void tell_stall(struct sim_world *w)
{
	SIM_PAIR_FOREACH(w, p)
	for (int i = 0; i < 2; i++) {
		const struct sim_end *const e = &p->end[i];

		if (is_over(e) || pair_done(p))
			continue;
		sim_fail(w, "pair %d end %d stalls: %s, streams %s, messages %s, %s", p->index, i,
			 ptcp_state_name(ptcp_assoc_state(e->a)),
			 sim_streams_done(e) ? "done" : "not done",
			 sim_messages_sent(e) ? "sent" : "not sent",
			 ptcp_conns_idle(ptcp_assoc_conns(e->a)) ? "idle" : "connections left");
	}
}

/* Nobody may have ended by itself. */
static void check_alive(struct sim_world *w)
{
	SIM_PAIR_FOREACH(w, p)
	for (int i = 0; i < 2; i++) {
		const struct sim_end *const e = &p->end[i];

		if (p->killed || p->turned_away || p->torn || !e->a || e->n_closed == 0 ||
		    e->close_code >= PTCP_CLOSE_APPLICATION)
			continue;
		sim_fail(w, "pair %d end %d closed by itself: %s%s", p->index, i,
			 ptcp_close_code_name(e->close_code), e->closed_by_peer ? " (peer)" : "");
	}
}

/* Nothing is under way, so nothing may be kept for it. */
static void check_quiet(struct sim_end *e)
{
	const struct ptcp_conns *const conns = ptcp_assoc_conns(e->a);
	struct ptcp_stats s;

	ptcp_get_stats(e->a, &s);
	if (s.send_queue_bytes > 0 || (s.send_memory_bytes > 0 && !e->messages.lend) ||
	    s.receive_memory_bytes > 0)
		sim_fail(e->world, "pair %d end %d: quiet, but %zu, %zu and %zu bytes are kept",
			 e->pair->index, e->index, s.send_queue_bytes, s.send_memory_bytes,
			 s.receive_memory_bytes);
	if (conns->send_total_bytes > 0 || conns->window_total_bytes > 0)
		sim_fail(e->world, "pair %d end %d: %zu and %llu bytes of no connection",
			 e->pair->index, e->index, conns->send_total_bytes,
			 (unsigned long long)conns->window_total_bytes);
}

static void close_pairs(struct sim_world *w, bool torn)
{
	SIM_PAIR_FOREACH(w, p)
	{
		if (p->torn != torn)
			continue;
		const uint64_t who = sim_below(&w->rng, 3); /* 2: both at once */

		for (unsigned i = 0; i < 2; i++) {
			struct sim_end *const e = &p->end[i];

			if (!e->a || (who != i && who != 2))
				continue;
			ptcp_assoc_close(e->a, PTCP_CLOSE_APPLICATION + i, w->now_us);
			e->dirty = true;
		}
	}
}

static void check_farewell(struct sim_world *w, const struct sim_pair *p, int i)
{
	const struct sim_end *const e = &p->end[i];

	if (!e->a)
		return;
	if (e->n_closed != 1 || ptcp_deadline_us(e->a) != NEVER_US)
		sim_fail(w, "pair %d end %d: closed, but told %llu times", p->index, i,
			 (unsigned long long)e->n_closed);
	if (!ptcp_conns_idle(ptcp_assoc_conns(e->a)) || !sim_streams_done(e))
		sim_fail(w, "pair %d end %d: a connection outlived it", p->index, i);
	if (p->killed || p->turned_away)
		return;
	if (e->close_code < PTCP_CLOSE_APPLICATION && e->close_code != PTCP_CLOSE_IDLE_TIMEOUT &&
	    !(p->torn && e->close_code == PTCP_CLOSE_HANDSHAKE_TIMEOUT))
		sim_fail(w, "pair %d end %d: closed because %s", p->index, i,
			 ptcp_close_code_name(e->close_code));
}

static void play(struct sim_world *w)
{
	struct sim_rng *const r = &w->rng;
	const uint64_t rough_us = sim_between(r, 3, 12) * US_PER_S;
	const unsigned n_pairs = sim_chance(r, 800) ? 1 : sim_chance(r, 700) ? 2 : 3;

	for (unsigned i = 0; i < n_pairs; i++)
		plan_pair(w, rough_us);
	sim_run(w, rough_us, NULL);
	check_alive(w);
	clear_the_weather(w);
	close_pairs(w, true);
	if (!sim_run(w, FINISH_US, all_done))
		tell_stall(w);
	sim_run(w, QUIET_US, NULL);
	check_alive(w);
	SIM_PAIR_FOREACH(w, p)
	{
		sim_streams_check(p);
		for (int i = 0; i < 2 && !p->torn && !p->killed && !p->turned_away; i++) {
			sim_messages_check(&p->end[i]);
			check_quiet(&p->end[i]);
		}
	}
	close_pairs(w, false);
	if (!sim_run(w, FAREWELL_US, all_closed))
		sim_fail(w, "not everything is closed in the end");
	SIM_PAIR_FOREACH(w, p)
	for (int i = 0; i < 2; i++)
		check_farewell(w, p, i);
}

bool sim_play(uint64_t seed, bool verbose, const char **ret_failure)
{
	static char failure[512];
	const size_t before_bytes = sim_memory_used();
	struct sim_world *const w = sim_world_new(seed);

	w->verbose = verbose;
	w->tells_all = verbose && getenv("SIM_DATAGRAMS") != NULL;
	play(w);
	sim_log(w, "%llu datagrams, %llu pumps, %llu idle, peak %zu bytes",
		(unsigned long long)w->n_datagrams, (unsigned long long)w->n_pumps,
		(unsigned long long)w->n_idle_pumps, sim_memory_peak());
	memcpy(failure, w->failure, sizeof(failure));
	sim_world_free(w);
	if (failure[0] == 0 && sim_memory_used() != before_bytes)
		snprintf(failure, sizeof(failure), "%zu bytes were not freed",
			 sim_memory_used() - before_bytes);
	*ret_failure = failure;
	return failure[0] == 0;
}
