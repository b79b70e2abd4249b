/*
 * Random lives of pseudo-connections over a packet layer that loses, delays,
 * repeats, reorders and misjudges losses; and the same while allocations fail.
 * A seed is a whole world; CONN_SEED=n runs one alone.
 */
#include "unit.h"
#include "wrapped_memory.h"

#include <stdio.h>

#include "ptcp/conn_private.h"
#include "ptcp/ptcp.h"

#define N_SEEDS      600
#define N_OOM_SEEDS  150
#define N_STREAMS    5
#define PACKET_BYTES 1200
#define FRAMES_MAX   16
/* What is each one's whatever others hold; both may open both ends of a crossing stream. */
#define SURE_BYTES (4 * N_STREAMS * (CONN_WINDOW_MIN + CONN_RING_SURE))

/* ---- memory that fails when told to, and is counted --------------------------------------------
 */

static bool armed; /* inside the code under test */
static uint32_t refuse_one_in;
static uint32_t memory_rng;
static int64_t n_blocks;

static bool refused(void)
{
	if (!armed || refuse_one_in == 0)
		return false;
	memory_rng = memory_rng * 1664525u + 1013904223u;
	return (memory_rng >> 8) % refuse_one_in == 0;
}

void *__wrap_malloc(size_t n)
{
	if (refused())
		return NULL;
	n_blocks++;
	return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t each)
{
	if (refused())
		return NULL;
	n_blocks++;
	return __real_calloc(n, each);
}

void *__wrap_realloc(void *p, size_t n)
{
	if (refused())
		return NULL;
	n_blocks += p == NULL;
	return __real_realloc(p, n);
}

void __wrap_free(void *p)
{
	n_blocks -= p != NULL;
	__real_free(p);
}

/* ---- a world
 * -------------------------------------------------------------------------------------- */

enum ending { READ_ALL, CLOSE_EARLY, ABORT, ENDING_COUNT };

struct side {
	enum ending ending;
	uint64_t total, abort_at, written, done;
	uint32_t id;
	bool known, shut, eof, released, closed;
	enum ptcp_conn_error error;
};

struct packet {
	struct packet *next;
	uint64_t at_us;
	int to;
	bool arrives, is_copy, called_lost;
	size_t n_bytes, n_sent;
	uint8_t bytes[PACKET_BYTES];
	struct ptcp_conn_sent sent[FRAMES_MAX];
};

struct world {
	uint32_t rng;
	unsigned loss_percent, wrong_percent, copy_percent, late_percent;
	uint64_t now_us;
	struct ptcp_conns *end[2];
	struct ptcp_memory memory; /* of both, as on one machine */
	struct side side[N_STREAMS][2];
	bool crossing[N_STREAMS];
	struct packet *queue;
	bool oom;
};

static uint32_t below(struct world *w, uint32_t n)
{
	w->rng = w->rng * 1664525u + 1013904223u;
	return (w->rng >> 9) % n;
}

static uint8_t byte_at(unsigned stream, int from, uint64_t offset)
{
	return (uint8_t)(offset * 131 + (offset >> 8) * 7 + stream * 53 + (unsigned)from * 101);
}

static struct side *side_of(struct world *w, int i, uint32_t id)
{
	for (unsigned s = 0; s < N_STREAMS; s++)
		if (w->side[s][i].known && w->side[s][i].id == id)
			return &w->side[s][i];
	return NULL;
}

static void enqueue(struct world *w, struct packet *p)
{
	struct packet **at = &w->queue;

	while (*at && (*at)->at_us <= p->at_us)
		at = &(*at)->next;
	p->next = *at;
	*at = p;
}

static void transmit(struct world *w, int from)
{
	struct packet *p = calloc(1, sizeof(*p)), *copy;
	struct writer out = writer_over(p->bytes, 200 + below(w, PACKET_BYTES - 200));

	armed = true;
	while (p->n_sent < FRAMES_MAX &&
	       ptcp_conns_write(w->end[from], &out, &p->sent[p->n_sent], w->now_us))
		p->n_sent++;
	armed = false;
	assert_true(p->n_sent > 0);
	p->n_bytes = out.used_bytes;
	p->to = !from;
	p->arrives = below(w, 100) >= w->loss_percent;
	p->called_lost = !p->arrives || below(w, 100) < w->wrong_percent;
	p->at_us = w->now_us + 10000 + below(w, 2000);
	if (below(w, 100) < w->late_percent)
		p->at_us += below(w, 200000);
	if (p->arrives && p->called_lost) { /* the verdict comes first, and is wrong */
		copy = malloc(sizeof(*copy));
		*copy = *p;
		copy->arrives = p->called_lost = false;
		copy->at_us = w->now_us + 5000;
		enqueue(w, copy);
	}
	if (p->arrives && below(w, 100) < w->copy_percent) {
		copy = malloc(sizeof(*copy));
		*copy = *p;
		copy->is_copy = true;
		copy->at_us += below(w, 3000000);
		enqueue(w, copy);
	}
	enqueue(w, p);
}

static void deliver(struct world *w, struct packet *p)
{
	struct reader r = reader_over(p->bytes, p->n_bytes);

	armed = true;
	while (p->arrives && r.left_bytes > 0) {
		const uint64_t type = reader_varint(&r);

		assert_int_equal(ptcp_conns_frame(w->end[p->to], type, &r, w->now_us), 0);
	}
	for (size_t i = 0; i < p->n_sent && !p->is_copy; i++) {
		if (p->called_lost)
			ptcp_conns_lost(w->end[!p->to], &p->sent[i], w->now_us);
		if (p->arrives)
			ptcp_conns_acked(w->end[!p->to], &p->sent[i], w->now_us);
	}
	armed = false;
	free(p);
}

/* ---- applications
 * ------------------------------------------------------------------------------------- */

static void give_back(struct world *w, int i, struct side *s, bool by_abort)
{
	if (!s->known || s->released)
		return;
	armed = true;
	if (by_abort)
		assert_int_equal(ptcp_conns_abort(w->end[i], s->id, w->now_us), 0);
	else
		assert_int_equal(ptcp_conns_close(w->end[i], s->id, w->now_us), 0);
	armed = false;
	s->released = true;
}

static void incoming(struct world *w, int i, const struct ptcp_conn_event *e)
{
	struct side *s = &w->side[e->local_port - 1][i];

	assert_in_range(e->local_port, 1, N_STREAMS);
	if (s->known) { /* of a crossing pair, of which our own half is over already */
		assert_true(w->crossing[e->local_port - 1]);
		ptcp_conns_abort(w->end[i], e->id, w->now_us);
		return;
	}
	s->known = true;
	s->id = e->id;
	armed = true;
	ptcp_conns_accept(w->end[i], e->id, w->now_us);
	armed = false;
}

static void take_events(struct world *w, int i)
{
	struct ptcp_conn_event e;

	while (ptcp_conns_next_event(w->end[i], &e)) {
		struct side *s = side_of(w, i, e.id);

		if (e.type == PTCP_CONN_EVENT_INCOMING) {
			incoming(w, i, &e);
		} else if (s && e.type == PTCP_CONN_EVENT_CLOSED) {
			assert_false(s->closed);
			s->closed = true;
			s->error = e.error;
		}
	}
}

static void write_some(struct world *w, unsigned stream, int i, struct side *s)
{
	uint8_t chunk[4000];
	size_t took = 0, n = (size_t)min_u64(1 + below(w, sizeof(chunk)), s->total - s->written);
	int r;

	if (n == 0)
		return;
	for (size_t k = 0; k < n; k++)
		chunk[k] = byte_at(stream, i, s->written + k);
	armed = true;
	r = ptcp_conns_send(w->end[i], s->id, chunk, n, &took, w->now_us);
	armed = false;
	if (r == 0)
		s->written += took;
	else
		assert_true(r == PTCP_BLOCKED || r == -ECONNRESET || (r == -ENOMEM && w->oom));
}

static void read_some(struct world *w, unsigned stream, int i, struct side *s)
{
	uint8_t chunk[3000];
	size_t got = 0;
	int r;

	armed = true;
	r = ptcp_conns_read(w->end[i], s->id, chunk, 1 + below(w, sizeof(chunk)), &got, w->now_us);
	armed = false;
	for (size_t k = 0; k < got; k++)
		assert_int_equal(chunk[k], byte_at(stream, !i, s->done + k));
	s->done += got;
	s->eof = s->eof || r == PTCP_CONN_EOF;
}

/* A turn of one end of one stream. */
static void live(struct world *w, unsigned stream, int i)
{
	struct side *s = &w->side[stream][i];

	if (!s->known || s->released)
		return;
	if (s->ending == ABORT && s->written + s->done >= s->abort_at) {
		give_back(w, i, s, true);
		return;
	}
	if (!s->shut && !s->closed)
		write_some(w, stream, i, s);
	read_some(w, stream, i, s);
	if (s->closed) {
		for (int turn = 0; turn < 1000; turn++)
			read_some(w, stream, i, s);
		give_back(w, i, s, false);
		return;
	}
	if (s->written < s->total)
		return;
	if (s->ending == CLOSE_EARLY) {
		give_back(w, i, s, false);
	} else if (!s->shut) {
		ptcp_conns_shutdown(w->end[i], s->id, w->now_us);
		s->shut = true;
	} else if (s->eof) {
		give_back(w, i, s, false);
	}
}

/* ---- the course of things
 * ------------------------------------------------------------------------------- */

static void begin(struct world *w, uint32_t seed, uint32_t oom_one_in)
{
	static const struct ptcp_conn_limits limits[] = {
		{ 0 },
		{ .window_first_bytes = 3000, .window_bytes = 9000, .send_bytes = 5000 },
		{ .window_total_bytes = 20000, .send_total_bytes = 20000 },
	};

	*w = (struct world){ .rng = seed * 2654435761u + 1, .now_us = 1000000 };
	memory_rng = seed;
	w->oom = oom_one_in > 0;
	w->loss_percent = below(w, 3) ? below(w, 40) : 0;
	w->wrong_percent = below(w, 3) ? below(w, 40) : 0;
	w->copy_percent = below(w, 30);
	w->late_percent = below(w, 50);
	for (int i = 0; i < 2; i++) {
		const struct ptcp_conns_config config = {
			.limits = limits[below(w, ARRAY_SIZE(limits))],
			.memory = &w->memory,
		};

		w->end[i] = ptcp_conns_new(&config);
		assert_non_null(w->end[i]);
		ptcp_conns_set_rtt(w->end[i], 20000, 60000);
		for (uint16_t port = 1; port <= N_STREAMS; port++)
			assert_true(ptcp_conns_listen(w->end[i], port, NULL, 16, w->now_us) > 0);
	}
	for (unsigned s = 0; s < N_STREAMS; s++) {
		w->crossing[s] = below(w, 6) == 0;
		for (int i = 0; i < 2; i++) {
			struct side *side = &w->side[s][i];

			side->ending = below(w, 2) ? READ_ALL : below(w, ENDING_COUNT);
			side->total = below(w, 4) ? below(w, 60000) : below(w, 3);
			side->abort_at = below(w, 40000);
		}
	}
	/* From next to nothing to more than is needed; listeners do not count. */
	w->memory.limit_bytes = (size_t)1 << (12 + seed % 10);
	refuse_one_in = oom_one_in;
}

/* Stream s, end i opens it; both may. */
static void open_one(struct world *w, unsigned s, int i)
{
	const uint16_t own = (uint16_t)(w->crossing[s] ? s + 1 : 0);
	struct side *side = &w->side[s][i];
	int64_t id;

	if (side->known)
		return; /* the other end's SYN was faster */
	armed = true;
	id = ptcp_conns_connect(w->end[i], own, (uint16_t)(s + 1), "x", w->now_us);
	armed = false;
	if (id < 0) {
		assert_true(w->oom || id == -EADDRINUSE);
		return;
	}
	side->known = true;
	side->id = (uint32_t)id;
}

static void tick(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		armed = true;
		ptcp_conns_tick(w->end[i], w->now_us);
		armed = false;
		take_events(w, i);
	}
}

static bool all_over(const struct world *w)
{
	for (unsigned s = 0; s < N_STREAMS; s++)
		for (int i = 0; i < 2; i++)
			if (w->side[s][i].known && !w->side[s][i].released)
				return false;
	return ptcp_conns_idle(w->end[0]) && ptcp_conns_idle(w->end[1]) && !w->queue;
}

/* When the network and the timers have nothing before `then_us`, the clock stops there. */
static void advance(struct world *w, uint64_t then_us)
{
	uint64_t next_us = then_us;

	if (w->queue)
		next_us = min_u64(next_us, w->queue->at_us);
	for (int i = 0; i < 2; i++)
		next_us = min_u64(next_us, ptcp_conns_deadline_us(w->end[i]));
	w->now_us = max_u64(w->now_us, next_us);
}

static void run(struct world *w)
{
	unsigned next_stream = 0;

	for (unsigned turn = 0; next_stream < N_STREAMS || !all_over(w); turn++) {
		assert_true(turn < 200000); /* nothing stalls */
		if (next_stream < N_STREAMS && below(w, 4) == 0) {
			const int i = (int)below(w, 2);

			open_one(w, next_stream, i);
			if (w->crossing[next_stream])
				open_one(w, next_stream, !i);
			next_stream++;
		}
		for (int i = 0; i < 2; i++) {
			take_events(w, i);
			for (unsigned s = 0; s < N_STREAMS; s++)
				if (below(w, 3))
					live(w, s, i);
			while (ptcp_conns_want_send(w->end[i]))
				transmit(w, i);
		}
		advance(w, w->now_us + 20000);
		while (w->queue && w->queue->at_us <= w->now_us) {
			struct packet *p = w->queue;

			w->queue = p->next;
			deliver(w, p);
		}
		tick(w);
		assert_true(w->memory.held_bytes <= w->memory.limit_bytes + SURE_BYTES);
	}
}

static void judge(struct world *w)
{
	for (unsigned s = 0; s < N_STREAMS; s++) {
		const struct side *a = &w->side[s][0], *b = &w->side[s][1];

		assert_true(a->done <= b->written && b->done <= a->written);
		if (w->oom || !a->known || !b->known || a->ending != READ_ALL ||
		    b->ending != READ_ALL || w->crossing[s])
			continue;
		assert_true(a->eof && b->eof);
		assert_int_equal(a->done, b->total);
		assert_int_equal(b->done, a->total);
		assert_int_equal(a->error, PTCP_CONN_OK);
		assert_int_equal(b->error, PTCP_CONN_OK);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ptcp_conns_deadline_us(w->end[i]), NEVER_US);
		assert_int_equal(w->end[i]->send_total_bytes, 0);
		assert_int_equal(w->end[i]->window_total_bytes, 0);
		assert_int_equal(w->end[i]->held_bytes, 0);
		ptcp_conns_free(w->end[i]);
	}
	assert_int_equal(w->memory.held_bytes, 0);
}

static void story(uint32_t seed, uint32_t oom_one_in)
{
	const int64_t before = n_blocks;
	struct world w;

	begin(&w, seed, oom_one_in);
	run(&w);
	judge(&w);
	refuse_one_in = 0;
	assert_int_equal(n_blocks, before);
}

static uint32_t seed_now; /* 0: none is being told */

static void stories(uint32_t n_seeds, bool oom)
{
	const char *one = getenv("CONN_SEED");

	refuse_one_in = 0; /* a failed case may have left it */
	for (uint32_t seed = 1; seed <= n_seeds; seed++) {
		if (one)
			seed = (uint32_t)strtoul(one, NULL, 10);
		seed_now = seed;
		story(seed, oom ? 5 + seed % 100 : 0);
		seed_now = 0;
		if (one)
			return;
	}
}

static int name_the_seed(void **state)
{
	(void)state;
	armed = false;
	if (seed_now != 0)
		print_message("# again: CONN_SEED=%u tests/unit/test_ptcp_conn_life\n", seed_now);
	seed_now = 0;
	return 0;
}

static void every_life_ends_clean_with_its_bytes_in_order(void **state)
{
	(void)state;
	stories(N_SEEDS, false);
}

static void every_life_ends_clean_though_allocations_fail(void **state)
{
	(void)state;
	stories(N_OOM_SEEDS, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(every_life_ends_clean_with_its_bytes_in_order,
					  name_the_seed),
		cmocka_unit_test_teardown(every_life_ends_clean_though_allocations_fail,
					  name_the_seed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
