/*
 * Streams: each side of a pseudo-connection follows a plan; what it reads must
 * be the beginning of what the other side wrote, and all of it where both end
 * in order.
 */
#include "sim.h"

#include <stdio.h>

#define TURNS     64 /* chunks in one turn */
#define CHUNK_MAX 65536

static struct sim_side *side_of(struct sim_end *e, uint32_t id, struct sim_stream **ret_stream)
{
	for (struct sim_stream *s = e->pair->streams; s < e->pair->streams + SIM_STREAMS_MAX; s++)
		if (s->used && s->side[e->index].known && s->side[e->index].id == id) {
			*ret_stream = s;
			return &s->side[e->index];
		}
	return NULL;
}

static uint64_t text_key(const struct sim_end *writer, const struct sim_stream *s)
{
	return (uint64_t)(writer->pair->index * 2 + writer->index) << 48 ^
	       (uint64_t)(s - writer->pair->streams) << 40 ^ UINT64_C(0x9216d5d9);
}

static void service_of(const struct sim_end *e, const struct sim_stream *s, char out[32])
{
	snprintf(out, 32, "stream-%d", (int)(s - e->pair->streams));
}

/* ---- opening
 * ------------------------------------------------------------------------------------------ */

void sim_streams_listen(struct sim_end *e)
{
	const int64_t id = ptcp_listen(e->a, PTCP_CONN_PORT_ANY, NULL, 16, e->world->now_us);

	if (id > 0)
		e->listener = (uint32_t)id;
	else if (!e->world->forgiving)
		sim_fail(e->world, "listen: %lld", (long long)id);
}

static void start(struct sim_end *e, struct sim_stream *s)
{
	struct sim_side *const side = &s->side[e->index];
	const bool swap = e->index != s->opener;
	char service[32];

	s->started[e->index] = true;
	service_of(e, s, service);
	const int64_t id = ptcp_connect(e->a, swap ? s->port : s->local_port,
					swap ? s->local_port : s->port, service, e->world->now_us);
	sim_log(e->world, "pair %d end %d: %s is connection %lld", e->pair->index, e->index,
		service, (long long)id);
	side->known = true;
	side->may_write = true;
	if (id > 0) {
		side->id = (uint32_t)id;
		return;
	}
	side->failed = side->closed = side->released = true;
	if (!e->world->forgiving && ptcp_assoc_state(e->a) == PTCP_ESTABLISHED &&
	    !(s->both_open && id == -EADDRINUSE))
		sim_fail(e->world, "connect: %lld", (long long)id);
}

static void on_incoming(struct sim_end *e, const struct ptcp_conn_event *event)
{
	const uint64_t now_us = e->world->now_us;
	int index = -1;

	if (sscanf(event->service, "stream-%d", &index) != 1 || index < 0 ||
	    index >= SIM_STREAMS_MAX || !e->pair->streams[index].used) {
		sim_fail(e->world, "a connection to the unknown service %s", event->service);
		return;
	}
	struct sim_stream *const s = &e->pair->streams[index];
	struct sim_side *const side = &s->side[e->index];

	if (s->refused || side->known) {
		if (!s->refused && !s->both_open)
			sim_fail(e->world, "%s came twice", event->service);
		ptcp_conn_close(e->a, event->id, now_us);
		return;
	}
	side->known = true;
	side->may_write = side->may_read = true;
	side->id = event->id;
	const int r = ptcp_conn_accept(e->a, event->id, now_us);
	if (r < 0 && !e->world->forgiving)
		sim_fail(e->world, "accept: %d", r);
}

void sim_streams_event(struct sim_end *e, const struct ptcp_conn_event *event)
{
	struct sim_stream *s;
	struct sim_side *side;

	if (event->type == PTCP_CONN_EVENT_INCOMING) {
		on_incoming(e, event);
		return;
	}
	side = side_of(e, event->id, &s);
	if (!side) /* of a listener, or of one that was refused */
		return;
	switch (event->type) {
	case PTCP_CONN_EVENT_OPEN:
		side->opened = side->may_write = true;
		break;
	case PTCP_CONN_EVENT_READABLE:
	case PTCP_CONN_EVENT_FIN:
		side->may_read = true;
		break;
	case PTCP_CONN_EVENT_WRITABLE:
		side->may_write = true;
		break;
	case PTCP_CONN_EVENT_CLOSED:
		sim_log(e->world, "pair %d end %d: connection %u closed: %s%s", e->pair->index,
			e->index, event->id, ptcp_conn_error_name(event->error),
			event->by_peer ? " by the peer" : "");
		if (side->closed)
			sim_fail(e->world, "connection %u closed twice", event->id);
		side->closed = side->may_read = true;
		side->error = event->error;
		break;
	case PTCP_CONN_EVENT_INCOMING:
	case PTCP_CONN_EVENT_TYPE_COUNT:
		break;
	}
}

/* ---- a turn
 * --------------------------------------------------------------------------------------------- */

static void release(struct sim_end *e, struct sim_side *side, bool abort_it)
{
	int r = abort_it ? ptcp_conn_abort(e->a, side->id, e->world->now_us)
			 : ptcp_conn_close(e->a, side->id, e->world->now_us);

	side->released = true;
	if (r < 0)
		sim_fail(e->world, "closing connection %u: %d", side->id, r);
}

static void check_read(struct sim_end *e, const struct sim_stream *s, struct sim_side *side,
		       const uint8_t *data, size_t n_bytes)
{
	struct sim_end *const peer = &e->pair->end[!e->index];

	if (n_bytes == 0 || side->read + n_bytes > s->side[peer->index].written ||
	    !sim_text_equal(text_key(peer, s), side->read, data, n_bytes))
		sim_fail(e->world, "stream %d: bytes at %llu are wrong",
			 (int)(s - e->pair->streams), (unsigned long long)side->read);
	side->read += n_bytes;
}

static int read_some(struct sim_end *e, const struct sim_stream *s, struct sim_side *side)
{
	static uint8_t buffer[CHUNK_MAX];
	const uint64_t now_us = e->world->now_us;
	const uint8_t *data = buffer;
	size_t n_bytes = 0;
	int r;

	if (!side->peeks) {
		r = ptcp_conn_read(e->a, side->id, buffer, side->chunk_bytes, &n_bytes, now_us);
		if (r == 0)
			check_read(e, s, side, buffer, n_bytes);
		return r;
	}
	r = ptcp_conn_peek(e->a, side->id, &data, &n_bytes);
	if (r != 0)
		return r;
	n_bytes = min_size(n_bytes, side->chunk_bytes);
	check_read(e, s, side, data, n_bytes);
	return ptcp_conn_consume(e->a, side->id, n_bytes, now_us);
}

/* True: something was read. */
static bool read_turn(struct sim_end *e, const struct sim_stream *s, struct sim_side *side)
{
	struct sim_world *const w = e->world;

	if (!side->may_read || side->got_eof || side->ending == SIM_CLOSE)
		return false;
	for (unsigned n = 0; n < TURNS; n++) {
		if (w->now_us < side->next_us)
			return n > 0;
		if (sim_chance(&w->rng, side->pause_permille))
			side->next_us = w->now_us + sim_between(&w->rng, 1000, 200000);
		const int r = read_some(e, s, side);
		if (r == 0)
			continue;
		side->may_read = false;
		side->got_eof = r == PTCP_CONN_EOF;
		side->failed |= r < 0;
		if (side->got_eof)
			side->finished_us = w->now_us;
		if (r < 0 && !side->closed)
			sim_fail(w, "reading connection %u: %d", side->id, r);
		return n > 0 || side->got_eof;
	}
	return true;
}

static bool write_turn(struct sim_end *e, const struct sim_stream *s, struct sim_side *side)
{
	static uint8_t buffer[CHUNK_MAX];
	size_t n_taken;
	bool any = false;

	for (unsigned n = 0; n < TURNS && side->may_write && side->written < side->n_bytes; n++) {
		const size_t n_bytes =
			(size_t)min_u64(side->chunk_bytes, side->n_bytes - side->written);

		sim_text(text_key(e, s), side->written, buffer, n_bytes);
		const int r = ptcp_conn_write(e->a, side->id, buffer, n_bytes, &n_taken,
					      e->world->now_us);
		if (r != 0) {
			side->may_write = false;
			side->failed |= r < 0;
			if (r < 0 && r != -ECONNRESET && !e->world->forgiving)
				sim_fail(e->world, "writing connection %u: %d", side->id, r);
			break;
		}
		if (n_taken == 0 || n_taken > n_bytes)
			sim_fail(e->world, "writing took %zu of %zu", n_taken, n_bytes);
		side->written += n_taken;
		side->may_write = n_taken == n_bytes;
		any = true;
	}
	return any;
}

/* What the plan has for one that wrote all. */
static bool end_turn(struct sim_end *e, struct sim_side *side)
{
	const bool wrote_all = side->written == side->n_bytes;

	if (side->failed || side->closed) {
		/* Read what is left first: it may have ended well. */
		if (side->may_read && !side->got_eof && !side->failed && side->ending != SIM_CLOSE)
			return false;
		release(e, side, false);
		return true;
	}
	if (side->ending == SIM_ABORT && side->written + side->read >= side->abort_at) {
		release(e, side, true);
		return true;
	}
	if (!wrote_all)
		return false;
	if (side->ending == SIM_CLOSE) {
		/* Before the peer has answered it would be given up, as RFC 9293, 3.10.4 says. */
		if (!side->opened)
			return false;
		release(e, side, false);
		return true;
	}
	if (side->got_eof && (side->shut || side->ending == SIM_READ_THEN_CLOSE)) {
		release(e, side, side->ending == SIM_ABORT);
		return true;
	}
	if (!side->shut && side->ending != SIM_READ_THEN_CLOSE) {
		const int r = ptcp_conn_shutdown(e->a, side->id, e->world->now_us);

		side->shut = true;
		if (r < 0 && r != -ECONNRESET)
			sim_fail(e->world, "shutdown of connection %u: %d", side->id, r);
		return true;
	}
	return false;
}

static bool side_run(struct sim_end *e, struct sim_stream *s)
{
	struct sim_side *const side = &s->side[e->index];
	bool any;

	if (!side->known) {
		if (s->started[e->index] || e->world->now_us < s->start_us ||
		    (e->index != s->opener && !s->both_open))
			return false;
		start(e, s);
		return true;
	}
	if (side->released)
		return false;
	any = write_turn(e, s, side);
	any |= read_turn(e, s, side);
	any |= end_turn(e, side);
	return any;
}

bool sim_streams_run(struct sim_end *e)
{
	bool any = false;

	if (ptcp_assoc_state(e->a) == PTCP_HANDSHAKING)
		return false;
	for (struct sim_stream *s = e->pair->streams; s < e->pair->streams + SIM_STREAMS_MAX; s++)
		if (s->used)
			any |= side_run(e, s);
	return any;
}

uint64_t sim_streams_next_us(const struct sim_end *e)
{
	uint64_t t = NEVER_US;

	for (const struct sim_stream *s = e->pair->streams; s < e->pair->streams + SIM_STREAMS_MAX;
	     s++) {
		const struct sim_side *const side = &s->side[e->index];

		if (!s->used || ptcp_assoc_state(e->a) == PTCP_HANDSHAKING)
			continue;
		if (!side->known && !s->started[e->index] &&
		    (e->index == s->opener || s->both_open))
			t = min_u64(t, s->start_us);
		if (side->known && !side->released && side->may_read && !side->got_eof &&
		    side->ending != SIM_CLOSE)
			t = min_u64(t, side->next_us);
	}
	return t;
}

/* ---- the verdict
 * -------------------------------------------------------------------------------------------- */

bool sim_streams_done(const struct sim_end *e)
{
	for (const struct sim_stream *s = e->pair->streams; s < e->pair->streams + SIM_STREAMS_MAX;
	     s++) {
		const struct sim_side *const side = &s->side[e->index];

		if (!s->used)
			continue;
		if (!side->known && (e->index == s->opener || s->both_open) &&
		    ptcp_assoc_state(e->a) <= PTCP_ESTABLISHED)
			return false;
		if (side->known && !(side->closed && side->released))
			return false;
	}
	return true;
}

static bool is_orderly(const struct sim_stream *s, int end)
{
	const enum sim_ending a = s->side[end].ending, b = s->side[!end].ending;

	if (a == SIM_ABORT || b == SIM_ABORT || s->refused || s->both_open)
		return false;
	/* Who does not read must not be written to. */
	return (a != SIM_CLOSE || s->side[!end].n_bytes == 0) &&
	       (b != SIM_CLOSE || s->side[end].n_bytes == 0);
}

static void check_side(struct sim_pair *p, const struct sim_stream *s, int end)
{
	const struct sim_side *const side = &s->side[end], *const peer = &s->side[!end];
	struct sim_world *const w = p->end[end].world;
	const int index = (int)(s - p->streams);

	if (side->ending == SIM_CLOSE) {
		if (side->error != PTCP_CONN_OK)
			sim_fail(w, "stream %d end %d: closed, but %s", index, end,
				 ptcp_conn_error_name(side->error));
		return;
	}
	if (!side->got_eof || side->read != peer->n_bytes || side->error != PTCP_CONN_OK)
		sim_fail(w, "stream %d end %d: %llu of %llu bytes, %s, %s", index, end,
			 (unsigned long long)side->read, (unsigned long long)peer->n_bytes,
			 side->got_eof ? "ended" : "not ended", ptcp_conn_error_name(side->error));
}

void sim_streams_check(struct sim_pair *p)
{
	for (struct sim_stream *s = p->streams; s < p->streams + SIM_STREAMS_MAX; s++) {
		if (!s->used || p->torn || p->killed || p->turned_away)
			continue;
		if (is_orderly(s, 0)) {
			check_side(p, s, 0);
			check_side(p, s, 1);
		}
		if (s->refused && s->side[s->opener].ending < SIM_CLOSE &&
		    s->side[s->opener].error != PTCP_CONN_REFUSED)
			sim_fail(p->end[0].world, "stream %d was to be refused: %s",
				 (int)(s - p->streams),
				 ptcp_conn_error_name(s->side[s->opener].error));
	}
}
