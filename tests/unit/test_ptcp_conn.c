/*
 * Two tables of pseudo-connections with a packet layer between them that loses,
 * delays and repeats what the test says. Time is a number.
 */
#include "unit.h"

#include <stdio.h>

#include "ptcp/conn_private.h"
#include "ptcp/ptcp.h"

#define PACKET_BYTES  1200
#define PACKETS_MAX   4096
#define FRAMES_MAX    64
#define PORT          7
#define SERVICE       "files"
#define DELAY_US      UINT64_C(20000)
#define STREAM_FACTOR 131

struct packet {
	int to;
	uint64_t at_us;
	size_t n_bytes, n_sent;
	uint8_t bytes[PACKET_BYTES];
	struct ptcp_conn_sent sent[FRAMES_MAX];
	bool lost;
};

struct net {
	struct ptcp_conns *end[2];
	struct packet *queue[PACKETS_MAX];
	size_t n_queue;
	uint64_t now_us;
	unsigned n_packets;  /* built so far */
	unsigned drop_first; /* packets number drop_first .. drop_last are lost; 1 is the first */
	unsigned drop_last;
	bool one_frame;        /* per packet */
	bool twice;            /* everything arrives twice, the second time much later */
	unsigned loss_percent; /* seeded */
	uint32_t rng;
	/* what the applications saw */
	uint32_t id[2];
	unsigned n_events[2][PTCP_CONN_EVENT_TYPE_COUNT];
	struct ptcp_conn_event closed[2];
	bool accept; /* incoming connections, at once */
	int bad;     /* of a frame */
	char trace[2][1024];
};

static void trace(void *user, uint32_t id, enum ptcp_conn_state from, enum ptcp_conn_state to,
		  enum ptcp_conn_input because, uint64_t now_us)
{
	char *text = user;
	const size_t used = strlen(text);

	(void)id;
	(void)from;
	(void)now_us;
	snprintf(text + used, 1024 - used, "%s(%s) ", ptcp_conn_state_name(to),
		 ptcp_conn_input_name(because));
}

static void net_init_sharing(struct net *n, const struct ptcp_conn_limits *limits,
			     struct ptcp_memory *memory)
{
	*n = (struct net){ .now_us = 1000000, .accept = true, .rng = 1 };
	for (int i = 0; i < 2; i++) {
		const struct ptcp_conns_config config = {
			.limits = *limits,
			.memory = memory,
			.trace = trace,
			.trace_user = n->trace[i],
		};

		n->end[i] = ptcp_conns_new(&config);
		assert_non_null(n->end[i]);
		ptcp_conns_set_rtt(n->end[i], 2 * DELAY_US, 3 * 2 * DELAY_US);
	}
}

static void net_init_with(struct net *n, const struct ptcp_conn_limits *limits)
{
	net_init_sharing(n, limits, NULL);
}

static void net_init(struct net *n)
{
	const struct ptcp_conn_limits limits = { 0 };

	net_init_with(n, &limits);
}

static void net_fini(struct net *n)
{
	for (size_t i = 0; i < n->n_queue; i++)
		free(n->queue[i]);
	for (int i = 0; i < 2; i++)
		ptcp_conns_free(n->end[i]);
}

static bool is_lost(struct net *n)
{
	n->n_packets++;
	if (n->n_packets >= n->drop_first && n->n_packets <= n->drop_last)
		return true;
	n->rng = n->rng * 1664525u + 1013904223u;
	return (n->rng >> 16) % 100 < n->loss_percent;
}

static void enqueue(struct net *n, struct packet *p)
{
	size_t at = n->n_queue;

	assert_true(n->n_queue < PACKETS_MAX);
	while (at > 0 && n->queue[at - 1]->at_us > p->at_us) {
		n->queue[at] = n->queue[at - 1];
		at--;
	}
	n->queue[at] = p;
	n->n_queue++;
}

static void send_one(struct net *n, int from)
{
	struct packet *p = calloc(1, sizeof(*p));
	struct writer w = writer_over(p->bytes, sizeof(p->bytes));

	while (p->n_sent < (n->one_frame ? 1 : FRAMES_MAX) &&
	       ptcp_conns_write(n->end[from], &w, &p->sent[p->n_sent], n->now_us))
		p->n_sent++;
	assert_true(p->n_sent > 0);
	p->n_bytes = w.used_bytes;
	p->to = !from;
	p->lost = is_lost(n);
	p->at_us = n->now_us + DELAY_US;
	if (n->twice && !p->lost) {
		struct packet *again = malloc(sizeof(*again));

		*again = *p;
		again->n_sent = 0;
		again->at_us += 10 * DELAY_US;
		enqueue(n, again);
	}
	enqueue(n, p);
}

static void take_frames(struct net *n, const struct packet *p)
{
	/* a copy, so that a read past its end is seen */
	uint8_t *bytes = malloc(p->n_bytes);
	struct reader r;

	assert_non_null(bytes);
	memcpy(bytes, p->bytes, p->n_bytes);
	r = reader_over(bytes, p->n_bytes);
	while (r.left_bytes > 0 && n->bad == 0) {
		const uint64_t type = reader_varint(&r);

		n->bad = ptcp_conns_frame(n->end[p->to], type, &r, n->now_us);
	}
	free(bytes);
}

static void deliver_next(struct net *n)
{
	struct packet *p = n->queue[0];

	n->n_queue--;
	memmove(n->queue, n->queue + 1, n->n_queue * sizeof(*n->queue));
	n->now_us = max_u64(n->now_us, p->at_us);
	if (!p->lost)
		take_frames(n, p);
	for (size_t i = 0; i < p->n_sent; i++) {
		if (p->lost)
			ptcp_conns_lost(n->end[!p->to], &p->sent[i], n->now_us);
		else
			ptcp_conns_acked(n->end[!p->to], &p->sent[i], n->now_us);
	}
	free(p);
}

static void take_events(struct net *n, int i)
{
	struct ptcp_conn_event e;

	while (ptcp_conns_next_event(n->end[i], &e)) {
		n->n_events[i][e.type]++;
		if (e.type == PTCP_CONN_EVENT_INCOMING) {
			n->id[i] = e.id;
			if (n->accept)
				assert_int_equal(ptcp_conns_accept(n->end[i], e.id, n->now_us), 0);
		}
		if (e.type == PTCP_CONN_EVENT_CLOSED)
			n->closed[i] = e;
	}
}

/* One thing: a packet built, or else one delivered. False: the network is quiet. */
static bool step(struct net *n)
{
	for (int i = 0; i < 2; i++)
		take_events(n, i);
	for (int i = 0; i < 2; i++) {
		if (ptcp_conns_want_send(n->end[i])) {
			send_one(n, i);
			return true;
		}
	}
	if (n->n_queue == 0)
		return false;
	deliver_next(n);
	return true;
}

static void settle(struct net *n)
{
	unsigned turns = 0;

	while (step(n))
		assert_true(++turns < 200000);
}

/* Lets timers run too, until nothing is left to happen. */
static void run_out(struct net *n)
{
	for (unsigned turns = 0;; turns++) {
		uint64_t next_us;

		settle(n);
		next_us = min_u64(ptcp_conns_deadline_us(n->end[0]),
				  ptcp_conns_deadline_us(n->end[1]));
		if (next_us == NEVER_US)
			return;
		assert_true(turns < 1000);
		n->now_us = max_u64(n->now_us, next_us);
		ptcp_conns_tick(n->end[0], n->now_us);
		ptcp_conns_tick(n->end[1], n->now_us);
	}
}

static enum ptcp_conn_state state_of(const struct net *n, int i)
{
	struct ptcp_conn_info info;

	return ptcp_conns_info(n->end[i], n->id[i], &info) == 0 ? info.state : PTCP_CONN_CLOSED;
}

/* Nothing at all is left of any connection, and no timer. */
static void assert_gone(const struct net *n)
{
	for (int i = 0; i < 2; i++) {
		assert_true(ptcp_conns_idle(n->end[i]));
		assert_int_equal(ptcp_conns_deadline_us(n->end[i]), NEVER_US);
		assert_int_equal(n->end[i]->send_total_bytes, 0);
		assert_int_equal(n->end[i]->window_total_bytes, 0);
		assert_false(ptcp_conns_want_send(n->end[i]));
	}
}

static void listen_on(struct net *n, int i)
{
	assert_true(ptcp_conns_listen(n->end[i], PORT, SERVICE, 16, n->now_us) > 0);
}

static void start(struct net *n)
{
	int64_t id;

	listen_on(n, 1);
	id = ptcp_conns_connect(n->end[0], 0, PORT, SERVICE, n->now_us);
	assert_true(id > 0);
	n->id[0] = (uint32_t)id;
}

static void establish(struct net *n)
{
	start(n);
	settle(n);
	assert_int_equal(state_of(n, 0), PTCP_CONN_ESTABLISHED);
	assert_int_equal(state_of(n, 1), PTCP_CONN_ESTABLISHED);
}

/* ---- streams with known content ------------------------------------------------------------ */

static uint8_t byte_at(int from, uint64_t offset)
{
	return (uint8_t)(offset * STREAM_FACTOR + (offset >> 8) * 7 + (unsigned)from * 101);
}

/* Writes up to total bytes; returns how many it has now written. */
static uint64_t feed(struct net *n, int i, uint64_t written, uint64_t total)
{
	uint8_t chunk[3000];

	while (written < total) {
		const size_t want = (size_t)min_u64(sizeof(chunk), total - written);
		size_t took = 0;
		int r;

		for (size_t k = 0; k < want; k++)
			chunk[k] = byte_at(i, written + k);
		r = ptcp_conns_send(n->end[i], n->id[i], chunk, want, &took, n->now_us);
		if (r == PTCP_BLOCKED)
			break;
		assert_int_equal(r, 0);
		assert_in_range(took, 1, want);
		written += took;
	}
	return written;
}

/* Reads all that is there and compares; returns how much was read, *ret_result the last outcome. */
static uint64_t drain(struct net *n, int i, uint64_t done, int *ret_result)
{
	uint8_t chunk[2500];

	for (;;) {
		size_t got = 0;
		const int r =
			ptcp_conns_read(n->end[i], n->id[i], chunk, sizeof(chunk), &got, n->now_us);

		*ret_result = r;
		if (r != 0)
			return done;
		for (size_t k = 0; k < got; k++)
			assert_int_equal(chunk[k], byte_at(!i, done + k));
		done += got;
	}
}

/* Both ways at once: total[i] bytes from end i, then half close. */
static void transfer(struct net *n, uint64_t total0, uint64_t total1)
{
	const uint64_t total[2] = { total0, total1 };
	uint64_t written[2] = { 0 }, done[2] = { 0 };
	int last[2] = { 0 };
	bool ended[2] = { false };

	for (unsigned turns = 0; last[0] != PTCP_CONN_EOF || last[1] != PTCP_CONN_EOF; turns++) {
		assert_true(turns < 1000000);
		for (int i = 0; i < 2; i++) {
			if (!ended[i])
				written[i] = feed(n, i, written[i], total[i]);
			if (!ended[i] && written[i] == total[i]) {
				assert_int_equal(
					ptcp_conns_shutdown(n->end[i], n->id[i], n->now_us), 0);
				ended[i] = true;
			}
			done[i] = drain(n, i, done[i], &last[i]);
			assert_true(last[i] == PTCP_BLOCKED || last[i] == PTCP_CONN_EOF);
		}
		step(n);
	}
	assert_int_equal(done[0], total1);
	assert_int_equal(done[1], total0);
}

static void close_both(struct net *n)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(ptcp_conns_close(n->end[i], n->id[i], n->now_us), 0);
	run_out(n);
	assert_gone(n);
}

/* ---- the table, cell by cell ------------------------------------------------------------------
 */

/* Brings connection 0 of n into a state by honest means. */
static void reach(struct net *n, enum ptcp_conn_state state)
{
	net_init(n);
	switch (state) {
	case PTCP_CONN_CLOSED:
		n->id[0] = conn_new(n->end[0])->id;
		return;
	case PTCP_CONN_LISTEN:
		n->id[0] = (uint32_t)ptcp_conns_listen(n->end[0], PORT, SERVICE, 1, n->now_us);
		return;
	case PTCP_CONN_SYN_SENT:
		start(n);
		return;
	case PTCP_CONN_SYN_RCVD:
		n->accept = false;
		listen_on(n, 0);
		n->id[1] = (uint32_t)ptcp_conns_connect(n->end[1], 0, PORT, SERVICE, n->now_us);
		settle(n);
		return;
	default:
		establish(n);
	}
	if (state == PTCP_CONN_CLOSE_WAIT || state == PTCP_CONN_LAST_ACK) {
		assert_int_equal(ptcp_conns_shutdown(n->end[1], n->id[1], n->now_us), 0);
		settle(n);
	}
	if (state != PTCP_CONN_ESTABLISHED && state != PTCP_CONN_CLOSE_WAIT)
		assert_int_equal(ptcp_conns_shutdown(n->end[0], n->id[0], n->now_us), 0);
	if (state == PTCP_CONN_FIN_WAIT_2 || state == PTCP_CONN_TIME_WAIT)
		settle(n);
	if (state == PTCP_CONN_TIME_WAIT) {
		assert_int_equal(ptcp_conns_shutdown(n->end[1], n->id[1], n->now_us), 0);
		settle(n);
	}
	if (state == PTCP_CONN_CLOSING) {
		assert_int_equal(ptcp_conns_shutdown(n->end[1], n->id[1], n->now_us), 0);
		send_one(n, 1);
		deliver_next(n);
	}
}

/* What the callers of the table make true before they feed an input. */
static void prepare(struct conn *c, enum ptcp_conn_input input)
{
	if (input == PTCP_CONN_SYN || input == PTCP_CONN_SYN_ACK)
		c->remote_id = c->remote_id ? c->remote_id : 99;
	if (input == PTCP_CONN_FIN) {
		c->in.fin = true;
		c->in.final = c->in.next;
	}
	if (input == PTCP_CONN_FIN_ACKED)
		c->out.fin_acked = c->out.fin_sent = c->out.fin;
}

/* clang-format off */
#define C PTCP_CONN_CLOSED
#define N (-1) /* means nothing */
static const int next_state[PTCP_CONN_STATE_COUNT][PTCP_CONN_INPUT_COUNT] = {
	/*  PASSIVE ACTIVE ACCEPT SHUTDOWN CLOSE ABORT SYN SYN_ACK SYN_ACKED FIN FIN_ACKED RST TIMEOUT LOST */
	[PTCP_CONN_CLOSED]      = { PTCP_CONN_LISTEN, PTCP_CONN_SYN_SENT, N, N, C, N, N, N, N, N, N, N, N, N },
	[PTCP_CONN_LISTEN]      = { N, N, N, N, C, C, PTCP_CONN_SYN_RCVD, N, N, N, N, N, N, C },
	[PTCP_CONN_SYN_SENT]    = { N, N, N, PTCP_CONN_SYN_SENT, C, C, PTCP_CONN_SYN_RCVD, PTCP_CONN_ESTABLISHED, N, N, N, C, C, C },
	[PTCP_CONN_SYN_RCVD]    = { N, N, PTCP_CONN_SYN_RCVD, PTCP_CONN_SYN_RCVD, C, C, N, PTCP_CONN_ESTABLISHED, PTCP_CONN_ESTABLISHED, N, N, C, C, C },
	[PTCP_CONN_ESTABLISHED] = { N, N, N, PTCP_CONN_FIN_WAIT_1, PTCP_CONN_FIN_WAIT_1, C, N, N, N, PTCP_CONN_CLOSE_WAIT, N, C, N, C },
	[PTCP_CONN_FIN_WAIT_1]  = { N, N, N, N, PTCP_CONN_FIN_WAIT_1, C, N, PTCP_CONN_FIN_WAIT_1, PTCP_CONN_FIN_WAIT_1, PTCP_CONN_CLOSING, PTCP_CONN_FIN_WAIT_2, C, C, C },
	[PTCP_CONN_FIN_WAIT_2]  = { N, N, N, N, PTCP_CONN_FIN_WAIT_2, C, N, N, N, PTCP_CONN_TIME_WAIT, N, C, C, C },
	[PTCP_CONN_CLOSE_WAIT]  = { N, N, N, PTCP_CONN_LAST_ACK, PTCP_CONN_LAST_ACK, C, N, N, N, N, N, C, N, C },
	[PTCP_CONN_CLOSING]     = { N, N, N, N, PTCP_CONN_CLOSING, C, N, N, N, N, PTCP_CONN_TIME_WAIT, C, C, C },
	[PTCP_CONN_LAST_ACK]    = { N, N, N, N, PTCP_CONN_LAST_ACK, C, N, N, N, N, C, C, C, C },
	[PTCP_CONN_TIME_WAIT]   = { N, N, N, N, PTCP_CONN_TIME_WAIT, C, N, N, N, N, N, C, C, C },
};
#undef C
/* clang-format on */

static void each_cell_of_the_table_leads_where_rfc_9293_says(void **state)
{
	(void)state;
	for (int s = 0; s < PTCP_CONN_STATE_COUNT; s++) {
		for (int i = 0; i < PTCP_CONN_INPUT_COUNT; i++) {
			struct net n;
			struct conn *c;
			bool means;

			reach(&n, (enum ptcp_conn_state)s);
			c = conn_find(n.end[0], n.id[0]);
			assert_int_equal(c->state, s);
			if (next_state[s][i] != N)
				prepare(c, (enum ptcp_conn_input)i);
			means = conn_dispatch(c, (enum ptcp_conn_input)i, n.now_us);
			if (means != (next_state[s][i] != N) ||
			    (int)c->state != (next_state[s][i] == N ? s : next_state[s][i]))
				fail_msg("%s + %s -> %s", ptcp_conn_state_name((unsigned)s),
					 ptcp_conn_input_name((unsigned)i),
					 ptcp_conn_state_name(c->state));
			net_fini(&n);
		}
	}
}
#undef N

static void a_reset_tells_the_peer_from_every_state_that_it_knows_of(void **state)
{
	(void)state;
	for (int s = PTCP_CONN_SYN_RCVD; s < PTCP_CONN_TIME_WAIT; s++) {
		struct net n;

		reach(&n, (enum ptcp_conn_state)s);
		assert_int_equal(state_of(&n, 0), s);
		assert_int_equal(ptcp_conns_abort(n.end[0], n.id[0], n.now_us), 0);
		assert_int_equal(ptcp_conns_abort(n.end[0], n.id[0], n.now_us), -ENOENT);
		settle(&n);
		assert_int_equal(state_of(&n, 1), PTCP_CONN_CLOSED);
		assert_int_equal(n.closed[1].error, PTCP_CONN_ABORTED);
		assert_true(n.closed[1].by_peer);
		assert_false(n.closed[0].by_peer);
		assert_int_equal(ptcp_conns_close(n.end[1], n.id[1], n.now_us), 0);
		run_out(&n);
		assert_gone(&n);
		net_fini(&n);
	}
}

/* ---- opening ------------------------------------------------------------------------------------
 */

static void a_connection_opens_carries_both_streams_and_ends(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	establish(&n);
	assert_int_equal(n.n_events[1][PTCP_CONN_EVENT_INCOMING], 1);
	assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_OPEN], 1);
	assert_int_equal(n.n_events[1][PTCP_CONN_EVENT_OPEN], 1);
	transfer(&n, 300000, 70001);
	close_both(&n);
	assert_int_equal(n.closed[0].error, PTCP_CONN_OK);
	assert_int_equal(n.closed[1].error, PTCP_CONN_OK);
	assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_FIN], 1);
	assert_int_equal(n.n_events[1][PTCP_CONN_EVENT_FIN], 1);
	net_fini(&n);
}

static void an_incoming_connection_says_what_it_is(void **state)
{
	struct ptcp_conn_event e = { 0 };
	struct net n;
	int64_t listener;

	(void)state;
	net_init(&n);
	listener = ptcp_conns_listen(n.end[1], PORT, NULL, 1, 0);
	assert_true(ptcp_conns_connect(n.end[0], 1234, PORT, SERVICE, 0) > 0);
	send_one(&n, 0);
	deliver_next(&n);
	assert_true(ptcp_conns_next_event(n.end[1], &e));
	assert_int_equal(e.type, PTCP_CONN_EVENT_INCOMING);
	assert_int_equal(e.listener, listener);
	assert_int_equal(e.local_port, PORT);
	assert_int_equal(e.remote_port, 1234);
	assert_string_equal(e.service, SERVICE);
	assert_int_equal(e.service_bytes, strlen(SERVICE));
	net_fini(&n);
}

static void nobody_listening_refuses(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	assert_true(ptcp_conns_listen(n.end[1], PORT, "other", 4, 0) > 0);
	assert_true(ptcp_conns_listen(n.end[1], PORT + 1, SERVICE, 4, 0) > 0);
	n.id[0] = (uint32_t)ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0);
	settle(&n);
	assert_int_equal(n.closed[0].error, PTCP_CONN_REFUSED);
	assert_true(n.closed[0].by_peer);
	assert_int_equal(ptcp_conns_close(n.end[0], n.id[0], n.now_us), 0);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void more_refusals_than_are_kept_at_once_do_no_harm(void **state)
{
	const struct ptcp_conn_limits limits = { .n_conns = 400 };
	struct net n;
	unsigned n_told;

	(void)state;
	net_init_with(&n, &limits);
	for (int i = 0; i < 400; i++)
		assert_true(ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0) > 0);
	while (ptcp_conns_want_send(n.end[0]))
		send_one(&n, 0);
	while (n.n_queue > 0 && n.queue[0]->to == 1)
		deliver_next(&n);
	assert_int_equal(n.end[1]->n_refusals, CONN_N_REFUSED);
	n.drop_first = n.drop_last = n.n_packets + 1; /* the refusals may be lost too */
	settle(&n);
	n_told = n.n_events[0][PTCP_CONN_EVENT_CLOSED];
	assert_int_equal(n_told, CONN_N_REFUSED);
	run_out(&n);
	assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_CLOSED], 400);
	assert_int_equal(n.closed[0].error, PTCP_CONN_TIMED_OUT);
	assert_int_equal(n.end[1]->n_refusals, 0);
	net_fini(&n);
}

static void the_listener_that_names_more_gets_the_connection(void **state)
{
	struct net n;
	int64_t any, port, service, both;

	(void)state;
	net_init(&n);
	any = ptcp_conns_listen(n.end[1], 0, NULL, 4, 0);
	service = ptcp_conns_listen(n.end[1], 0, SERVICE, 4, 0);
	port = ptcp_conns_listen(n.end[1], PORT, NULL, 4, 0);
	both = ptcp_conns_listen(n.end[1], PORT, SERVICE, 4, 0);
	assert_int_equal(ptcp_conns_listen(n.end[1], PORT, SERVICE, 4, 0), -EADDRINUSE);
	assert_true(any > 0 && service > 0 && port > 0 && both > 0);
	for (int i = 0; i < 4; i++) {
		const int64_t expected[] = { any, service, port, both };
		struct ptcp_conn_event e;

		ptcp_conns_connect(n.end[0], 0, i >= 2 ? PORT : 99, i & 1 ? SERVICE : "x", 0);
		send_one(&n, 0);
		deliver_next(&n);
		assert_true(ptcp_conns_next_event(n.end[1], &e));
		assert_int_equal(e.listener, expected[i]);
	}
	net_fini(&n);
}

static void a_full_backlog_says_busy_and_a_freed_one_does_not(void **state)
{
	struct net n;
	int64_t id[3];

	(void)state;
	net_init(&n);
	n.accept = false;
	assert_true(ptcp_conns_listen(n.end[1], PORT, SERVICE, 2, 0) > 0);
	for (int i = 0; i < 3; i++)
		id[i] = ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0);
	settle(&n);
	assert_int_equal(n.closed[0].id, id[2]);
	assert_int_equal(n.closed[0].error, PTCP_CONN_BUSY);
	assert_int_equal(ptcp_conns_accept(n.end[1], n.id[1], n.now_us), 0);
	id[2] = ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0);
	settle(&n);
	assert_int_equal(n.n_events[1][PTCP_CONN_EVENT_INCOMING], 3);
	net_fini(&n);
}

static void closing_instead_of_accepting_refuses(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	n.accept = false;
	start(&n);
	settle(&n);
	assert_int_equal(state_of(&n, 1), PTCP_CONN_SYN_RCVD);
	assert_int_equal(ptcp_conns_close(n.end[1], n.id[1], n.now_us), 0);
	settle(&n);
	assert_int_equal(n.closed[0].error, PTCP_CONN_REFUSED);
	assert_int_equal(ptcp_conns_close(n.end[0], n.id[0], n.now_us), 0);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void an_unanswered_syn_times_out_on_both_ends(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	n.accept = false;
	start(&n);
	run_out(&n);
	assert_int_equal(n.closed[0].error, PTCP_CONN_TIMED_OUT);
	assert_int_equal(n.closed[1].error, PTCP_CONN_TIMED_OUT);
	for (int i = 0; i < 2; i++)
		assert_int_equal(ptcp_conns_close(n.end[i], n.id[i], n.now_us), 0);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void both_may_open_at_the_same_time(void **state)
{
	(void)state;
	/* each order of arrival, and each of the four packets lost once */
	for (unsigned lost = 0; lost <= 4; lost++) {
		struct net n;

		net_init(&n);
		n.drop_first = n.drop_last = lost;
		n.id[0] = (uint32_t)ptcp_conns_connect(n.end[0], 5, 6, SERVICE, 0);
		n.id[1] = (uint32_t)ptcp_conns_connect(n.end[1], 6, 5, SERVICE, 0);
		settle(&n);
		assert_int_equal(state_of(&n, 0), PTCP_CONN_ESTABLISHED);
		assert_int_equal(state_of(&n, 1), PTCP_CONN_ESTABLISHED);
		if (lost == 0)
			assert_string_equal(n.trace[0], "SYN_SENT(ACTIVE_OPEN) SYN_RCVD(SYN) "
							"ESTABLISHED(SYN_ACK) ");
		transfer(&n, 5000, 7000);
		close_both(&n);
		assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_INCOMING], 0);
		assert_int_equal(n.closed[0].error, PTCP_CONN_OK);
		assert_int_equal(n.closed[1].error, PTCP_CONN_OK);
		net_fini(&n);
	}
}

static void giving_up_before_the_answer_ends_the_other_end_too(void **state)
{
	(void)state;
	/* after 0..5 steps of the opening exchange, by close or by abort, alone or crossing */
	for (unsigned k = 0; k < 6 * 2 * 2; k++) {
		const bool crossing = k & 1, by_abort = k & 2;
		struct net n;

		net_init(&n);
		listen_on(&n, 1);
		n.id[0] = (uint32_t)ptcp_conns_connect(n.end[0], 5, PORT, SERVICE, 0);
		if (crossing)
			n.id[1] = (uint32_t)ptcp_conns_connect(n.end[1], PORT, 5, SERVICE, 0);
		for (unsigned i = 0; i < k / 4; i++)
			step(&n);
		if (by_abort)
			ptcp_conns_abort(n.end[0], n.id[0], n.now_us);
		else
			ptcp_conns_close(n.end[0], n.id[0], n.now_us);
		settle(&n);
		if (n.id[1] != 0)
			ptcp_conns_close(n.end[1], n.id[1], n.now_us);
		run_out(&n);
		assert_gone(&n);
		net_fini(&n);
	}
}

static void a_late_copy_of_a_syn_brings_no_ghost(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	n.twice = true;
	n.one_frame = true;
	for (int i = 0; i < 20; i++) {
		if (i == 0)
			start(&n);
		else
			n.id[0] =
				(uint32_t)ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, n.now_us);
		while (state_of(&n, 0) != PTCP_CONN_ESTABLISHED ||
		       state_of(&n, 1) != PTCP_CONN_ESTABLISHED)
			step(&n);
		ptcp_conns_abort(n.end[0], n.id[0], n.now_us);
		ptcp_conns_abort(n.end[1], n.id[1], n.now_us);
	}
	run_out(&n);
	assert_gone(&n);
	assert_int_equal(n.n_events[1][PTCP_CONN_EVENT_INCOMING], 20);
	net_fini(&n);
}

static void ports_are_checked_and_chosen(void **state)
{
	struct net n;
	int64_t id;

	(void)state;
	net_init(&n);
	assert_int_equal(ptcp_conns_connect(n.end[0], 0, 0, SERVICE, 0), -EINVAL);
	id = ptcp_conns_connect(n.end[0], 9, PORT, SERVICE, 0);
	assert_true(id > 0);
	assert_int_equal(ptcp_conns_connect(n.end[0], 9, PORT, SERVICE, 0), -EADDRINUSE);
	assert_true(ptcp_conns_connect(n.end[0], 9, PORT + 1, SERVICE, 0) > 0);
	for (int i = 0; i < 50; i++) {
		struct ptcp_conn_info info;

		id = ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0);
		assert_true(id > 0);
		assert_int_equal(ptcp_conns_info(n.end[0], (uint32_t)id, &info), 0);
		assert_in_range(info.local_port, CONN_PORT_DYNAMIC, 65535);
	}
	net_fini(&n);
}

static void the_number_of_connections_is_bounded(void **state)
{
	const struct ptcp_conn_limits limits = { .n_conns = 5 };
	struct net n;

	(void)state;
	net_init_with(&n, &limits);
	listen_on(&n, 1);
	for (int i = 0; i < 5; i++)
		assert_true(ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0) > 0);
	assert_int_equal(ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0), -ENOBUFS);
	settle(&n);
	/* the listener is one of the five over there */
	assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_OPEN], 4);
	assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_CLOSED], 1);
	assert_int_equal(n.closed[0].error, PTCP_CONN_BUSY);
	net_fini(&n);
}

static void writing_before_it_is_open_is_sent_once_it_is(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	start(&n);
	assert_int_equal(feed(&n, 0, 0, 9000), 9000);
	assert_int_equal(ptcp_conns_shutdown(n.end[0], n.id[0], n.now_us), 0);
	assert_int_equal(state_of(&n, 0), PTCP_CONN_SYN_SENT);
	settle(&n);
	assert_int_equal(state_of(&n, 0), PTCP_CONN_FIN_WAIT_2);
	assert_int_equal(state_of(&n, 1), PTCP_CONN_CLOSE_WAIT);
	{
		int last = 0;

		assert_int_equal(drain(&n, 1, 0, &last), 9000);
		assert_int_equal(last, PTCP_CONN_EOF);
	}
	close_both(&n);
	net_fini(&n);
}

/* ---- closing
 * --------------------------------------------------------------------------------------- */

enum how { CLOSE, HALF_THEN_CLOSE, ABORT, HOW_COUNT };

static void end_by(struct net *n, int i, enum how how)
{
	if (how == CLOSE)
		ptcp_conns_close(n->end[i], n->id[i], n->now_us);
	else if (how == ABORT)
		ptcp_conns_abort(n->end[i], n->id[i], n->now_us);
	else
		ptcp_conns_shutdown(n->end[i], n->id[i], n->now_us);
}

/*
 * Each way of ending on each side, the second side after `between` steps, with packet `lost`
 * lost. Whatever happens, both ends are CLOSED in the end and nothing is left. Returns the
 * number of packets it took.
 */
static unsigned close_order(enum how first, enum how second, unsigned between, unsigned lost,
			    unsigned n_bytes)
{
	struct net n;
	unsigned taken;
	int last = 0;

	net_init(&n);
	n.one_frame = true;
	establish(&n);
	taken = n.n_packets;
	n.drop_first = n.drop_last = taken + lost;
	feed(&n, 0, 0, n_bytes);
	end_by(&n, 0, first);
	for (unsigned i = 0; i < between; i++)
		step(&n);
	if (second == HALF_THEN_CLOSE)
		drain(&n, 1, 0, &last);
	end_by(&n, 1, second);
	settle(&n);
	if (first != ABORT && second == HALF_THEN_CLOSE) {
		uint64_t done = 0;
		struct ptcp_conn_info info;

		assert_int_equal(ptcp_conns_info(n.end[1], n.id[1], &info), 0);
		done = drain(&n, 1, info.read_bytes, &last);
		assert_int_equal(done, n_bytes);
		assert_int_equal(last, PTCP_CONN_EOF);
	}
	taken = n.n_packets - taken;
	for (int i = 0; i < 2; i++)
		ptcp_conns_close(n.end[i], n.id[i], n.now_us);
	run_out(&n);
	if (first != ABORT && second != ABORT && n_bytes == 0) {
		assert_int_equal(n.closed[0].error, PTCP_CONN_OK);
		assert_int_equal(n.closed[1].error, PTCP_CONN_OK);
	}
	assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_CLOSED], 1);
	assert_int_equal(n.n_events[1][PTCP_CONN_EVENT_CLOSED], 1);
	assert_gone(&n);
	net_fini(&n);
	return taken;
}

static void every_order_of_close_ends_clean_whichever_packet_is_lost(void **state)
{
	(void)state;
	for (enum how first = CLOSE; first < HOW_COUNT; first++)
		for (enum how second = CLOSE; second < HOW_COUNT; second++)
			for (unsigned between = 0; between < 8; between++)
				for (unsigned n_bytes = 0; n_bytes <= 2500; n_bytes += 2500) {
					const unsigned n =
						close_order(first, second, between, 0, n_bytes);

					for (unsigned lost = 1; lost <= n; lost++)
						close_order(first, second, between, lost, n_bytes);
				}
}

static void a_simultaneous_close_goes_through_closing(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	establish(&n);
	n.trace[0][0] = n.trace[1][0] = '\0';
	for (int i = 0; i < 2; i++)
		ptcp_conns_close(n.end[i], n.id[i], n.now_us);
	send_one(&n, 0);
	send_one(&n, 1);
	run_out(&n);
	assert_string_equal(n.trace[1],
			    "FIN_WAIT_1(CLOSE) CLOSING(FIN) TIME_WAIT(FIN_ACKED) CLOSED(TIMEOUT) ");
	assert_gone(&n);
	net_fini(&n);
}

static void a_half_closed_connection_goes_on_carrying_the_other_stream(void **state)
{
	struct net n;
	uint64_t written = 0, done = 0;
	int last = 0;

	(void)state;
	net_init(&n);
	establish(&n);
	assert_int_equal(ptcp_conns_shutdown(n.end[0], n.id[0], n.now_us), 0);
	settle(&n);
	n.now_us += 3600 * US_PER_S; /* an hour: half closed is not half dead */
	ptcp_conns_tick(n.end[0], n.now_us);
	ptcp_conns_tick(n.end[1], n.now_us);
	while (done < 500000) {
		written = feed(&n, 1, written, 500000);
		step(&n);
		done = drain(&n, 0, done, &last);
		assert_int_equal(last, PTCP_BLOCKED);
	}
	assert_int_equal(ptcp_conns_send(n.end[0], n.id[0], "x", 1, &(size_t){ 0 }, 0), -EPIPE);
	close_both(&n);
	net_fini(&n);
}

static void time_wait_lasts_six_ptos_but_at_least_a_second(void **state)
{
	const uint64_t pto_us[] = { 1000, 300000, 60 * US_PER_S };
	const uint64_t expected_us[] = { US_PER_S, 6 * 300000, 10 * US_PER_S };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(pto_us); i++) {
		struct net n;

		net_init(&n);
		establish(&n);
		ptcp_conns_set_rtt(n.end[0], 1000, pto_us[i]);
		ptcp_conns_close(n.end[0], n.id[0], n.now_us);
		settle(&n);
		ptcp_conns_close(n.end[1], n.id[1], n.now_us);
		while (state_of(&n, 0) != PTCP_CONN_TIME_WAIT)
			step(&n);
		assert_int_equal(ptcp_conns_deadline_us(n.end[0]), n.now_us + expected_us[i]);
		settle(&n);
		ptcp_conns_tick(n.end[0], ptcp_conns_deadline_us(n.end[0]) - 1);
		assert_int_equal(state_of(&n, 0), PTCP_CONN_TIME_WAIT);
		run_out(&n);
		assert_gone(&n);
		net_fini(&n);
	}
}

static void a_pair_of_ports_in_time_wait_can_begin_anew(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	listen_on(&n, 1);
	n.id[0] = (uint32_t)ptcp_conns_connect(n.end[0], 55, PORT, SERVICE, 0);
	settle(&n);
	/* the listening side closes first, and waits; the other end is done */
	ptcp_conns_close(n.end[1], n.id[1], n.now_us);
	settle(&n);
	ptcp_conns_close(n.end[0], n.id[0], n.now_us);
	settle(&n);
	assert_int_equal(state_of(&n, 1), PTCP_CONN_TIME_WAIT);
	n.id[0] = (uint32_t)ptcp_conns_connect(n.end[0], 55, PORT, SERVICE, n.now_us);
	settle(&n);
	assert_int_equal(state_of(&n, 0), PTCP_CONN_ESTABLISHED);
	assert_int_equal(state_of(&n, 1), PTCP_CONN_ESTABLISHED);
	close_both(&n);
	net_fini(&n);
}

static void fin_wait_2_ends_after_a_full_close(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	establish(&n);
	ptcp_conns_close(n.end[0], n.id[0], n.now_us);
	settle(&n);
	assert_int_equal(state_of(&n, 0), PTCP_CONN_FIN_WAIT_2);
	run_out(&n); /* the other application never closes */
	assert_int_equal(n.closed[0].error, PTCP_CONN_TIMED_OUT);
	assert_int_equal(n.closed[1].error, PTCP_CONN_TIMED_OUT);
	assert_true(n.closed[1].by_peer);
	ptcp_conns_close(n.end[1], n.id[1], n.now_us);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void a_closed_connection_does_not_wait_for_ever_for_a_reader(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	establish(&n);
	feed(&n, 0, 0, 1000000); /* more than the window, and nobody reads */
	ptcp_conns_close(n.end[0], n.id[0], n.now_us);
	settle(&n);
	assert_int_equal(state_of(&n, 0), PTCP_CONN_FIN_WAIT_1);
	run_out(&n);
	assert_int_equal(n.closed[0].error, PTCP_CONN_TIMED_OUT);
	ptcp_conns_close(n.end[1], n.id[1], n.now_us);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void unread_data_turns_a_close_into_a_reset(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	establish(&n);
	feed(&n, 0, 0, 100);
	settle(&n);
	ptcp_conns_close(n.end[1], n.id[1], n.now_us);
	settle(&n);
	assert_int_equal(n.closed[0].error, PTCP_CONN_UNREAD);
	assert_true(n.closed[0].by_peer);
	ptcp_conns_close(n.end[0], n.id[0], n.now_us);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);

	/* the same for data that comes after the close */
	net_init(&n);
	establish(&n);
	ptcp_conns_close(n.end[1], n.id[1], n.now_us);
	settle(&n);
	feed(&n, 0, 0, 100);
	settle(&n);
	assert_int_equal(n.closed[0].error, PTCP_CONN_UNREAD);
	ptcp_conns_close(n.end[0], n.id[0], n.now_us);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void a_close_after_reading_what_came_out_of_order_is_no_reset(void **state)
{
	struct net n;
	int last = 0;

	(void)state;
	net_init(&n);
	n.one_frame = true;
	establish(&n);
	n.drop_first = n.drop_last = n.n_packets + 1;
	feed(&n, 0, 0, 5000);
	settle(&n);
	assert_int_equal(drain(&n, 1, 0, &last), 5000);
	close_both(&n);
	assert_int_equal(n.closed[0].error, PTCP_CONN_OK);
	assert_int_equal(n.closed[1].error, PTCP_CONN_OK);
	net_fini(&n);
}

static void a_stream_that_came_whole_can_be_read_after_the_end(void **state)
{
	struct net n;
	int last = 0;

	(void)state;
	net_init(&n);
	establish(&n);
	feed(&n, 0, 0, 50000);
	ptcp_conns_close(n.end[0], n.id[0], n.now_us);
	settle(&n);
	assert_int_equal(ptcp_conns_shutdown(n.end[1], n.id[1], n.now_us), 0);
	run_out(&n);
	assert_int_equal(state_of(&n, 1), PTCP_CONN_CLOSED);
	assert_int_equal(n.closed[1].error, PTCP_CONN_OK);
	assert_int_equal(drain(&n, 1, 0, &last), 50000);
	assert_int_equal(last, PTCP_CONN_EOF);
	ptcp_conns_close(n.end[1], n.id[1], n.now_us);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void the_end_of_the_association_ends_every_connection(void **state)
{
	(void)state;
	for (int s = PTCP_CONN_LISTEN; s < PTCP_CONN_STATE_COUNT; s++) {
		struct net n;

		reach(&n, (enum ptcp_conn_state)s);
		for (int i = 0; i < 2; i++)
			ptcp_conns_association_lost(n.end[i], n.now_us);
		assert_int_equal(state_of(&n, 0), PTCP_CONN_CLOSED);
		assert_false(ptcp_conns_want_send(n.end[0]));
		take_events(&n, 0);
		if (s != PTCP_CONN_TIME_WAIT)
			assert_int_equal(n.closed[0].error, PTCP_CONN_ASSOCIATION);
		assert_int_equal(ptcp_conns_connect(n.end[0], 0, 1, "", 0), -ENOTCONN);
		assert_int_equal(ptcp_conns_close(n.end[0], n.id[0], n.now_us), 0);
		assert_int_equal(ptcp_conns_deadline_us(n.end[0]), NEVER_US);
		net_fini(&n);
	}
}

/* ---- loss, order, windows
 * -------------------------------------------------------------------------------- */

static void each_packet_of_a_whole_life_may_be_lost(void **state)
{
	unsigned n_packets = 0;

	(void)state;
	for (unsigned lost = 0; lost <= n_packets; lost++) {
		struct net n;

		net_init(&n);
		n.one_frame = true;
		n.drop_first = n.drop_last = lost;
		start(&n);
		while (n.id[1] == 0)
			step(&n);
		transfer(&n, 4000, 6000);
		close_both(&n);
		assert_int_equal(n.closed[0].error, PTCP_CONN_OK);
		assert_int_equal(n.closed[1].error, PTCP_CONN_OK);
		if (lost == 0)
			n_packets = n.n_packets;
		net_fini(&n);
	}
	assert_true(n_packets > 10);
}

static void half_of_all_packets_may_be_lost(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 20; seed++) {
		struct net n;

		net_init(&n);
		n.loss_percent = 50;
		n.rng = seed;
		start(&n);
		while (n.id[1] == 0)
			step(&n);
		transfer(&n, 200000, 150000);
		close_both(&n);
		net_fini(&n);
	}
}

static void a_packet_that_was_called_lost_may_arrive_after_all(void **state)
{
	struct net n;
	struct packet *p;
	int last = 0;

	(void)state;
	net_init(&n);
	establish(&n);
	feed(&n, 0, 0, 3000);
	ptcp_conns_close(n.end[0], n.id[0], n.now_us);
	for (int i = 0; i < 2; i++)
		send_one(&n, 0);
	/* both are called lost, the second is sent again, then both arrive and are acknowledged */
	for (size_t i = 0; i < n.n_queue; i++)
		for (size_t k = 0; k < n.queue[i]->n_sent; k++)
			ptcp_conns_lost(n.end[0], &n.queue[i]->sent[k], n.now_us);
	send_one(&n, 0);
	p = n.queue[0];
	n.queue[0] = n.queue[1];
	n.queue[1] = p;
	settle(&n);
	assert_int_equal(drain(&n, 1, 0, &last), 3000);
	assert_int_equal(last, PTCP_CONN_EOF);
	assert_int_equal(state_of(&n, 0), PTCP_CONN_FIN_WAIT_2);
	ptcp_conns_close(n.end[1], n.id[1], n.now_us);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void nothing_is_sent_beyond_the_window(void **state)
{
	const struct ptcp_conn_limits limits = { .window_first_bytes = 20000,
						 .window_bytes = 20000 };
	struct net n;
	uint64_t written, done = 0;
	int last = 0;

	(void)state;
	net_init_with(&n, &limits);
	establish(&n);
	written = feed(&n, 0, 0, 100000);
	assert_int_equal(written, 100000);
	settle(&n);
	{
		struct ptcp_conn_info info;

		assert_int_equal(ptcp_conns_info(n.end[1], n.id[1], &info), 0);
		assert_int_equal(info.received_bytes, 20000);
		assert_int_equal(info.receive_window_bytes, 20000);
		assert_int_equal(ptcp_conns_info(n.end[0], n.id[0], &info), 0);
		assert_int_equal(info.acked_bytes, 20000);
	}
	/* the update that opens the window may be lost */
	n.drop_first = n.drop_last = n.n_packets + 1;
	while (done < 100000) {
		done = drain(&n, 1, done, &last);
		assert_int_equal(last, PTCP_BLOCKED);
		assert_true(done == 100000 || step(&n));
	}
	close_both(&n);
	net_fini(&n);
}

static void the_window_grows_with_a_fast_reader_and_only_so_far(void **state)
{
	const struct ptcp_conn_limits limits = { .window_first_bytes = 16384,
						 .window_bytes = 300000 };
	struct net n;
	size_t largest = 0;
	uint64_t written = 0, done = 0;
	int last;

	(void)state;
	net_init_with(&n, &limits);
	establish(&n);
	while (done < 4000000) {
		struct ptcp_conn_info info;

		written = feed(&n, 0, written, 4000000);
		step(&n);
		done = drain(&n, 1, done, &last);
		assert_int_equal(ptcp_conns_info(n.end[1], n.id[1], &info), 0);
		largest = info.receive_window_bytes > largest ? info.receive_window_bytes : largest;
	}
	assert_in_range(largest, 250000, 300000);
	close_both(&n);
	net_fini(&n);
}

static void all_windows_together_keep_to_the_budget(void **state)
{
	const struct ptcp_conn_limits limits = { .window_first_bytes = 65536,
						 .window_total_bytes = 200000 };
	uint32_t ids[2][8];
	struct net n;

	(void)state;
	net_init_with(&n, &limits);
	for (int i = 0; i < 8; i++) {
		if (i == 0)
			start(&n);
		else
			n.id[0] = (uint32_t)ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0);
		settle(&n);
		ids[0][i] = n.id[0];
		ids[1][i] = n.id[1];
		assert_in_range(n.end[1]->window_total_bytes, 8192, 200000 + 8 * CONN_WINDOW_MIN);
	}
	/* and the one with the least still gets its stream through */
	n.id[0] = ids[0][7];
	n.id[1] = ids[1][7];
	transfer(&n, 100000, 100000);
	for (int i = 0; i < 8; i++)
		for (int k = 0; k < 2; k++)
			ptcp_conns_close(n.end[k], ids[k][i], n.now_us);
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

static void send_buffers_keep_to_their_limit_and_tell_when_there_is_room(void **state)
{
	const struct ptcp_conn_limits limits = { .send_bytes = 50000 };
	struct net n;
	uint64_t written;
	size_t took;
	int last;

	(void)state;
	net_init_with(&n, &limits);
	establish(&n);
	written = feed(&n, 0, 0, 200000);
	assert_int_equal(written, 50000);
	assert_int_equal(ptcp_conns_send(n.end[0], n.id[0], "x", 1, &took, 0), PTCP_BLOCKED);
	assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_WRITABLE], 0);
	settle(&n);
	assert_int_equal(n.n_events[0][PTCP_CONN_EVENT_WRITABLE], 1);
	written = feed(&n, 0, written, 200000);
	assert_int_equal(written, 100000);
	settle(&n);
	assert_int_equal(drain(&n, 1, 0, &last), 100000);
	close_both(&n);
	net_fini(&n);
}

static void each_stream_may_send_something_when_the_budget_is_gone(void **state)
{
	const struct ptcp_conn_limits limits = { .send_total_bytes = 65536 };
	struct net n;
	uint32_t hog[2];

	(void)state;
	net_init_with(&n, &limits);
	establish(&n);
	assert_in_range(feed(&n, 0, 0, 1000000), 30000, 65536);
	hog[0] = n.id[0];
	hog[1] = n.id[1];
	n.id[0] = (uint32_t)ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0);
	while (state_of(&n, 0) != PTCP_CONN_ESTABLISHED)
		step(&n);
	transfer(&n, 60000, 60000);
	for (int k = 0; k < 2; k++) {
		ptcp_conns_abort(n.end[k], hog[k], n.now_us);
		ptcp_conns_close(n.end[k], n.id[k], n.now_us);
	}
	run_out(&n);
	assert_gone(&n);
	net_fini(&n);
}

/* Two associations, all four ends on one machine. */
static void the_memory_of_all_associations_is_shared(void **state)
{
	const struct ptcp_conn_limits limits = { 0 };
	struct ptcp_memory memory = { .limit_bytes = 4 << 20 };
	struct net n[2];
	uint64_t written[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		net_init_sharing(&n[i], &limits, &memory);
		establish(&n[i]);
	}
	/* Promised: 128 KiB to each of four. */
	assert_int_equal(memory.held_bytes, 4 * 131072);
	/* The first takes much, but leaves something; the second takes less. */
	written[0] = feed(&n[0], 0, 0, 16 << 20);
	assert_in_range(written[0], 1 << 20, 2 << 20);
	written[1] = feed(&n[1], 0, 0, 16 << 20);
	assert_in_range(written[1], 1 << 17, 1 << 20);
	assert_in_range(memory.held_bytes, written[0] + written[1], memory.limit_bytes);
	/* And all of it arrives: windows that do not open as far as they would still open. */
	for (int i = 0; i < 2; i++) {
		uint64_t got = 0;
		int last = 0;

		for (int turn = 0; turn < 10000 && got < written[i]; turn++) {
			step(&n[i]);
			got = drain(&n[i], 1, got, &last);
			assert_true(memory.held_bytes <= memory.limit_bytes);
		}
		assert_int_equal(got, written[i]);
		close_both(&n[i]);
		net_fini(&n[i]);
	}
	assert_int_equal(memory.held_bytes, 0);
}

static void some_streams_go_on_when_others_hold_all_the_memory(void **state)
{
	const struct ptcp_conn_limits limits = { 0 };
	struct ptcp_memory memory = { .limit_bytes = 1 << 20, .held_bytes = 1 << 20 };
	struct net n;
	int64_t id;

	(void)state;
	net_init_sharing(&n, &limits, &memory);
	establish(&n); /* with the listener, the second at that end */
	assert_int_equal(memory.held_bytes, (1 << 20) + 2 * CONN_WINDOW_MIN);
	transfer(&n, 100000, 100000);
	assert_true(memory.held_bytes <= (1 << 20) + 2 * (CONN_WINDOW_MIN + CONN_RING_SURE));
	for (unsigned i = 2; i < CONN_SURE; i++) {
		id = ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, n.now_us);
		assert_true(id > 0);
	}
	settle(&n);
	id = ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, n.now_us);
	assert_true(id > 0); /* the sixteenth here, the seventeenth there */
	settle(&n);
	assert_int_equal(n.closed[0].id, id);
	assert_int_equal(n.closed[0].error, PTCP_CONN_BUSY);
	assert_int_equal(ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, n.now_us), -ENOBUFS);
	memory.limit_bytes += 1 << 20;
	assert_true(ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, n.now_us) > 0);
	net_fini(&n);
	assert_int_equal(memory.held_bytes, 1 << 20);
}

static void connections_share_packets_in_turn(void **state)
{
	struct net n;
	uint32_t other;
	struct ptcp_conn_info a, b;

	(void)state;
	net_init(&n);
	establish(&n);
	other = n.id[0];
	n.id[0] = (uint32_t)ptcp_conns_connect(n.end[0], 0, PORT, SERVICE, 0);
	settle(&n);
	feed(&n, 0, 0, 100000);
	{
		const uint32_t first = n.id[0];

		n.id[0] = other;
		feed(&n, 0, 0, 100000);
		n.id[0] = first;
	}
	for (int i = 0; i < 20; i++) {
		send_one(&n, 0);
		deliver_next(&n);
	}
	assert_int_equal(ptcp_conns_info(n.end[0], n.id[0], &a), 0);
	assert_int_equal(ptcp_conns_info(n.end[0], other, &b), 0);
	assert_true(a.acked_bytes > 10000);
	assert_in_range(b.acked_bytes, a.acked_bytes - 1300, a.acked_bytes + 1300);
	net_fini(&n);
}

/* ---- what a hostile peer may send
 * ---------------------------------------------------------------------------- */

struct frame {
	uint8_t bytes[256];
	struct writer w;
};

static void frame_begin(struct frame *f, uint64_t type)
{
	f->w = writer_over(f->bytes, sizeof(f->bytes));
	writer_varint(&f->w, type);
}

static int frame_give(struct net *n, int to, const struct frame *f, size_t n_bytes)
{
	uint8_t *copy = malloc(n_bytes);
	struct reader r;
	uint64_t type;
	int result;

	assert_non_null(copy);
	memcpy(copy, f->bytes, n_bytes);
	r = reader_over(copy, n_bytes);
	type = reader_varint(&r);
	result = ptcp_conns_frame(n->end[to], type, &r, n->now_us);
	free(copy);
	return result;
}

static int data_frame(struct net *n, uint32_t id, uint64_t offset, const char *text, bool fin)
{
	struct frame f;

	frame_begin(&f, fin ? CONN_FRAME_DATA_FIN : CONN_FRAME_DATA);
	writer_varint(&f.w, id);
	writer_varint(&f.w, offset);
	writer_varint(&f.w, strlen(text));
	writer_bytes(&f.w, text, strlen(text));
	return frame_give(n, 1, &f, f.w.used_bytes);
}

static void assert_broken(struct net *n)
{
	take_events(n, 1);
	assert_int_equal(n->closed[1].error, PTCP_CONN_BAD_PEER);
	assert_int_equal(state_of(n, 1), PTCP_CONN_CLOSED);
	net_fini(n);
}

static void a_peer_that_breaks_the_rules_of_a_stream_loses_it(void **state)
{
	struct net n;

	(void)state;
	net_init(&n); /* beyond the window */
	establish(&n);
	assert_int_equal(data_frame(&n, n.id[1], 128 << 10, "x", false), 0);
	assert_broken(&n);

	net_init(&n); /* beyond the end */
	establish(&n);
	assert_int_equal(data_frame(&n, n.id[1], 5, "", true), 0);
	assert_int_equal(data_frame(&n, n.id[1], 5, "x", false), 0);
	assert_broken(&n);

	net_init(&n); /* two ends */
	establish(&n);
	assert_int_equal(data_frame(&n, n.id[1], 5, "", true), 0);
	assert_int_equal(data_frame(&n, n.id[1], 4, "", true), 0);
	assert_broken(&n);

	net_init(&n); /* an end before data that came */
	establish(&n);
	assert_int_equal(data_frame(&n, n.id[1], 5, "x", false), 0);
	assert_int_equal(data_frame(&n, n.id[1], 4, "", true), 0);
	assert_broken(&n);

	net_init(&n); /* data before our SYN+ACK was sent */
	n.accept = false;
	start(&n);
	settle(&n);
	assert_int_equal(data_frame(&n, n.id[1], 0, "x", false), 0);
	assert_broken(&n);
}

static void holes_in_a_stream_are_bounded(void **state)
{
	const struct ptcp_conn_limits limits = { .n_holes = 64 };
	struct net n;

	(void)state;
	net_init_with(&n, &limits);
	establish(&n);
	for (uint64_t i = 1; i <= 64; i++)
		assert_int_equal(data_frame(&n, n.id[1], 2 * i, "x", false), 0);
	assert_int_equal(state_of(&n, 1), PTCP_CONN_ESTABLISHED);
	assert_int_equal(data_frame(&n, n.id[1], 200, "x", false), 0);
	assert_broken(&n);
}

static void ids_that_were_never_given_out_break_the_association(void **state)
{
	struct net n;

	(void)state;
	net_init(&n);
	establish(&n);
	assert_int_equal(data_frame(&n, 0, 0, "x", false), -EBADMSG);
	assert_int_equal(data_frame(&n, n.end[1]->next_id, 0, "x", false), -EBADMSG);
	assert_int_equal(data_frame(&n, n.id[1], 0, "x", false), 0);
	/* the listener's own id is not a stream's */
	assert_int_equal(data_frame(&n, 1, 0, "x", false), -EBADMSG);
	ptcp_conns_abort(n.end[1], n.id[1], n.now_us);
	run_out(&n);
	assert_int_equal(data_frame(&n, n.id[1], 0, "x", false), 0); /* gone: only late */
	net_fini(&n);
}

static void each_frame_cut_or_flipped_at_any_byte_is_survived(void **state)
{
	struct frame frames[6];
	const uint32_t id = 2; /* of the server's end: 1 is the listener */

	(void)state;
	frame_begin(&frames[0], CONN_FRAME_SYN);
	writer_varint(&frames[0].w, 77);
	writer_varint(&frames[0].w, 5000);
	writer_varint(&frames[0].w, PORT);
	writer_varint(&frames[0].w, 100000);
	writer_varint(&frames[0].w, 5);
	writer_bytes(&frames[0].w, SERVICE, 5);
	frame_begin(&frames[1], CONN_FRAME_SYN_ACK);
	writer_varint(&frames[1].w, id);
	writer_varint(&frames[1].w, 3);
	writer_varint(&frames[1].w, 100000);
	frame_begin(&frames[2], CONN_FRAME_DATA);
	writer_varint(&frames[2].w, id);
	writer_varint(&frames[2].w, 10);
	writer_varint(&frames[2].w, 5);
	writer_bytes(&frames[2].w, "hello", 5);
	frames[3] = frames[2];
	frames[3].bytes[0] = CONN_FRAME_DATA_FIN;
	frame_begin(&frames[4], CONN_FRAME_WINDOW);
	writer_varint(&frames[4].w, id);
	writer_varint(&frames[4].w, 1u << 20);
	frame_begin(&frames[5], CONN_FRAME_RST);
	writer_varint(&frames[5].w, id);
	writer_varint(&frames[5].w, PTCP_CONN_ABORTED);

	for (unsigned f = 0; f < ARRAY_SIZE(frames); f++) {
		const size_t n_bytes = frames[f].w.used_bytes;

		for (size_t at = 0; at < n_bytes; at++) {
			struct net n;

			net_init(&n);
			establish(&n);
			assert_int_equal(n.id[1], id);
			if (at > 0)
				assert_int_equal(frame_give(&n, 1, &frames[f], at), -EBADMSG);
			for (unsigned bit = 0; bit < 8; bit++) {
				struct frame bad = frames[f];
				const struct ptcp_conns *t = n.end[1];

				bad.bytes[at] ^= (uint8_t)(1u << bit);
				frame_give(&n, 1, &bad, n_bytes);
				assert_true(t->n_conns <= t->config.limits.n_conns);
			}
			for (int i = 0; i < 2; i++)
				ptcp_conns_association_lost(n.end[i], n.now_us);
			net_fini(&n);
		}
	}
}

/* ---- ranges and rings
 * ------------------------------------------------------------------------------------ */

static void ranges_do_what_a_bitmap_does(void **state)
{
	uint32_t rng = 7;

	(void)state;
	for (int round = 0; round < 200; round++) {
		struct conn_ranges s;
		bool bits[128] = { false };

		conn_ranges_init(&s, 128);
		for (int op = 0; op < 60; op++) {
			unsigned a, b;
			struct conn_range gap;
			unsigned expected;
			bool found;

			rng = rng * 1664525u + 1013904223u;
			a = (rng >> 8) % 128;
			b = a + (rng >> 16) % 24;
			b = b > 128 ? 128 : b;
			if ((rng >> 28) < 10) {
				assert_int_equal(conn_ranges_add(&s, a, b), 0);
				memset(bits + a, true, b - a);
			} else if ((rng >> 28) < 15) {
				assert_int_equal(conn_ranges_remove(&s, a, b), 0);
				memset(bits + a, false, b - a);
			} else {
				conn_ranges_trim(&s, a / 4);
				memset(bits, false, a / 4);
			}
			for (unsigned i = 0, at = 0; i < s.n_items; i++) {
				assert_true(s.items[i].start < s.items[i].end);
				assert_true(i == 0 || s.items[i].start > s.items[i - 1].end);
				for (; at < s.items[i].start; at++)
					assert_false(bits[at]);
				for (; at < s.items[i].end; at++)
					assert_true(bits[at]);
				if (i + 1 == s.n_items)
					for (; at < 128; at++)
						assert_false(bits[at]);
			}
			for (expected = a; expected < b && bits[expected]; expected++)
				;
			found = conn_ranges_first_gap(&s, a, b, &gap);
			assert_int_equal(found, expected < b);
			if (found) {
				assert_int_equal(gap.start, expected);
				while (expected < b && !bits[expected])
					expected++;
				assert_int_equal(gap.end, expected);
			}
		}
		conn_ranges_fini(&s);
	}
}

static void a_ring_keeps_its_bytes_when_it_grows_and_wraps(void **state)
{
	const uint64_t base = (UINT64_C(1) << 40) - 1000;
	struct conn_ring r = { 0 };
	uint8_t in[9000], out[9000];

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = byte_at(0, i);
	assert_int_equal(conn_ring_reserve(&r, base, 4000), 0);
	assert_int_equal(r.size_bytes, 4096);
	conn_ring_put(&r, base, in, 4000);
	assert_int_equal(conn_ring_reserve(&r, base, 9000), 0);
	assert_int_equal(r.size_bytes, 16384);
	conn_ring_put(&r, base + 4000, in + 4000, 5000);
	conn_ring_get(&r, base, out, 9000);
	assert_memory_equal(in, out, 9000);
	conn_ring_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_cell_of_the_table_leads_where_rfc_9293_says),
		cmocka_unit_test(a_reset_tells_the_peer_from_every_state_that_it_knows_of),
		cmocka_unit_test(a_connection_opens_carries_both_streams_and_ends),
		cmocka_unit_test(an_incoming_connection_says_what_it_is),
		cmocka_unit_test(nobody_listening_refuses),
		cmocka_unit_test(more_refusals_than_are_kept_at_once_do_no_harm),
		cmocka_unit_test(the_listener_that_names_more_gets_the_connection),
		cmocka_unit_test(a_full_backlog_says_busy_and_a_freed_one_does_not),
		cmocka_unit_test(closing_instead_of_accepting_refuses),
		cmocka_unit_test(an_unanswered_syn_times_out_on_both_ends),
		cmocka_unit_test(both_may_open_at_the_same_time),
		cmocka_unit_test(giving_up_before_the_answer_ends_the_other_end_too),
		cmocka_unit_test(a_late_copy_of_a_syn_brings_no_ghost),
		cmocka_unit_test(ports_are_checked_and_chosen),
		cmocka_unit_test(the_number_of_connections_is_bounded),
		cmocka_unit_test(writing_before_it_is_open_is_sent_once_it_is),
		cmocka_unit_test(every_order_of_close_ends_clean_whichever_packet_is_lost),
		cmocka_unit_test(a_simultaneous_close_goes_through_closing),
		cmocka_unit_test(a_half_closed_connection_goes_on_carrying_the_other_stream),
		cmocka_unit_test(time_wait_lasts_six_ptos_but_at_least_a_second),
		cmocka_unit_test(a_pair_of_ports_in_time_wait_can_begin_anew),
		cmocka_unit_test(fin_wait_2_ends_after_a_full_close),
		cmocka_unit_test(a_closed_connection_does_not_wait_for_ever_for_a_reader),
		cmocka_unit_test(unread_data_turns_a_close_into_a_reset),
		cmocka_unit_test(a_close_after_reading_what_came_out_of_order_is_no_reset),
		cmocka_unit_test(a_stream_that_came_whole_can_be_read_after_the_end),
		cmocka_unit_test(the_end_of_the_association_ends_every_connection),
		cmocka_unit_test(each_packet_of_a_whole_life_may_be_lost),
		cmocka_unit_test(half_of_all_packets_may_be_lost),
		cmocka_unit_test(a_packet_that_was_called_lost_may_arrive_after_all),
		cmocka_unit_test(nothing_is_sent_beyond_the_window),
		cmocka_unit_test(the_window_grows_with_a_fast_reader_and_only_so_far),
		cmocka_unit_test(all_windows_together_keep_to_the_budget),
		cmocka_unit_test(send_buffers_keep_to_their_limit_and_tell_when_there_is_room),
		cmocka_unit_test(each_stream_may_send_something_when_the_budget_is_gone),
		cmocka_unit_test(the_memory_of_all_associations_is_shared),
		cmocka_unit_test(some_streams_go_on_when_others_hold_all_the_memory),
		cmocka_unit_test(connections_share_packets_in_turn),
		cmocka_unit_test(a_peer_that_breaks_the_rules_of_a_stream_loses_it),
		cmocka_unit_test(holes_in_a_stream_are_bounded),
		cmocka_unit_test(ids_that_were_never_given_out_break_the_association),
		cmocka_unit_test(each_frame_cut_or_flipped_at_any_byte_is_survived),
		cmocka_unit_test(ranges_do_what_a_bitmap_does),
		cmocka_unit_test(a_ring_keeps_its_bytes_when_it_grows_and_wraps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
