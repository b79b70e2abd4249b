/*
 * Two tables of pseudo-connections driven by the input: calls of the
 * application, frames with their fate, frames of a hostile peer. Whatever
 * comes, the bounds hold, and the end of the association ends everything.
 */
#include "ptcp/conn_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N_IN_FLIGHT 16

struct flight {
	uint8_t bytes[300];
	size_t n_bytes;
	struct ptcp_conn_sent sent;
};

struct world {
	struct ptcp_conns *end[2];
	struct flight flight[2][N_IN_FLIGHT];
	unsigned n_flight[2];
	uint64_t now_us;
};

static void give(struct world *w, int to, const uint8_t *data, size_t n_bytes)
{
	struct reader r = reader_over(data, n_bytes);

	while (r.left_bytes > 0) {
		const uint64_t type = reader_varint(&r);

		if (ptcp_conns_frame(w->end[to], type, &r, w->now_us) < 0)
			return;
	}
}

static void put_in_flight(struct world *w, int from)
{
	struct flight *f = &w->flight[from][w->n_flight[from]];
	struct writer out = writer_over(f->bytes, sizeof(f->bytes));

	if (w->n_flight[from] == N_IN_FLIGHT ||
	    !ptcp_conns_write(w->end[from], &out, &f->sent, w->now_us))
		return;
	f->n_bytes = out.used_bytes;
	w->n_flight[from]++;
}

/* what: bits 0, 1, 2 = arrives, is acknowledged, is called lost; bit 3: stays in flight. */
static void land(struct world *w, int from, unsigned which, unsigned what)
{
	struct flight f;

	if (w->n_flight[from] == 0)
		return;
	which %= w->n_flight[from];
	f = w->flight[from][which];
	if (!(what & 8))
		w->flight[from][which] = w->flight[from][--w->n_flight[from]];
	if (what & 1)
		give(w, !from, f.bytes, f.n_bytes);
	if (what & 4)
		ptcp_conns_lost(w->end[from], &f.sent, w->now_us);
	if ((what & 3) == 3) /* nothing is acknowledged that did not arrive */
		ptcp_conns_acked(w->end[from], &f.sent, w->now_us);
}

static void application(struct world *w, int i, unsigned call, uint32_t id)
{
	struct ptcp_conns *t = w->end[i];
	uint8_t buffer[2000] = { 0 };
	struct ptcp_conn_event event;
	size_t n = 0;

	switch (call % 9) {
	case 0:
		ptcp_conns_connect(t, id & 1 ? (uint16_t)(1 + id % 3) : 0, (uint16_t)(1 + id % 3),
				   id & 8 ? "a" : "", w->now_us);
		break;
	case 1:
		ptcp_conns_listen(t, (uint16_t)(id % 4), id & 8 ? "a" : NULL, 3, w->now_us);
		break;
	case 2:
		ptcp_conns_accept(t, id, w->now_us);
		break;
	case 3:
		ptcp_conns_send(t, id, buffer, 1 + (call * 13) % sizeof(buffer), &n, w->now_us);
		break;
	case 4:
		ptcp_conns_read(t, id, buffer, sizeof(buffer), &n, w->now_us);
		break;
	case 5:
		ptcp_conns_shutdown(t, id, w->now_us);
		break;
	case 6:
		ptcp_conns_close(t, id, w->now_us);
		break;
	case 7:
		ptcp_conns_abort(t, id, w->now_us);
		break;
	case 8:
		ptcp_conns_next_event(t, &event);
		break;
	}
}

static void check(const struct ptcp_conns *t)
{
	const struct ptcp_conn_limits *l = &t->config.limits;

	if (t->n_conns > l->n_conns ||
	    t->send_total_bytes > l->send_total_bytes + t->n_conns * 4096 ||
	    t->window_total_bytes > l->window_total_bytes + t->n_conns * CONN_WINDOW_MIN)
		abort();
}

static void finish(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		struct ptcp_conn_event event;

		ptcp_conns_association_lost(w->end[i], w->now_us);
		while (ptcp_conns_next_event(w->end[i], &event))
			ptcp_conns_close(w->end[i], event.id, w->now_us);
		if (ptcp_conns_deadline_us(w->end[i]) != NEVER_US ||
		    ptcp_conns_want_send(w->end[i]) || w->end[i]->send_total_bytes != 0)
			abort();
		ptcp_conns_free(w->end[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ptcp_conns_config config = {
		.limits = { .n_conns = 12,
			    .n_holes = 8,
			    .send_bytes = 20000,
			    .send_total_bytes = 30000,
			    .window_first_bytes = 4000,
			    .window_bytes = 9000,
			    .window_total_bytes = 30000 },
	};
	struct reader r = reader_over(data, size);
	struct world w = { .now_us = 1000 };

	for (int i = 0; i < 2; i++) {
		w.end[i] = ptcp_conns_new(&config);
		if (!w.end[i])
			abort();
		ptcp_conns_set_rtt(w.end[i], 1000, 5000);
	}
	while (r.left_bytes > 1) {
		const uint8_t op = reader_u8(&r), arg = reader_u8(&r);
		const int i = op & 1;
		size_t n_bytes;

		switch (op >> 1 & 7) {
		case 0:
		case 1:
			application(&w, i, arg >> 4, arg & 15);
			break;
		case 2:
		case 3:
			put_in_flight(&w, i);
			break;
		case 4:
			land(&w, i, arg >> 4, arg & 15);
			break;
		case 5:
			land(&w, i, 0, 3);
			break;
		case 6:
			w.now_us += (uint64_t)arg * arg * 1000;
			ptcp_conns_tick(w.end[i], w.now_us);
			break;
		case 7:
			n_bytes = min_size(arg, r.left_bytes);
			give(&w, i, reader_bytes(&r, n_bytes), n_bytes);
			break;
		}
		check(w.end[0]);
		check(w.end[1]);
	}
	finish(&w);
	return 0;
}
