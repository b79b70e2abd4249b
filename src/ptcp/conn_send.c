/*
 * conn_send - frames to the peer, our own stream, and what became of it.
 *
 * The association tells the fate of each frame, so there is no timer for
 * resending here and no guess: what was lost goes out again before anything new.
 */
#include "ptcp/conn_private.h"

#define RING_KEPT_BYTES 65536u /* of a drained stream */

static bool fin_is_due(const struct conn *c)
{
	const struct conn_out *out = &c->out;

	return out->fin && !out->fin_acked && (!out->fin_sent || out->fin_lost) &&
	       out->next == out->end;
}

static bool data_is_due(const struct conn *c)
{
	const struct conn_out *out = &c->out;

	return !conn_ranges_empty(&out->lost) || out->next < min_u64(out->end, out->limit);
}

bool conn_has_work(const struct conn *c)
{
	if (c->want_rst || c->want_syn || c->want_syn_ack)
		return true;
	if (c->want_window && conn_can_receive(c))
		return true;
	return conn_can_send(c) && (data_is_due(c) || fin_is_due(c));
}

/* ---- the send buffer ----------------------------------------------------------------- */

static void free_ring(struct conn *c)
{
	struct ptcp_conns *t = c->table;

	if (!c->out.ring.data)
		return;
	t->send_total_bytes -= c->out.ring.size_bytes;
	conn_ring_fini(&c->out.ring);
}

void conn_out_fini(struct conn *c)
{
	c->out.short_write = false;
	conn_ranges_fini(&c->out.acked);
	conn_ranges_fini(&c->out.lost);
	free_ring(c);
}

/*
 * Makes the ring hold n_bytes more where limits allow; *ret_bytes: how many it can take. When the
 * common budget is used up each stream still has CONN_RING_SURE, so none waits for another.
 */
static int make_room(struct conn *c, size_t n_bytes, size_t *ret_bytes)
{
	struct ptcp_conns *t = c->table;
	const struct ptcp_conn_limits *l = &t->config.limits;
	struct conn_ring *ring = &c->out.ring;
	const size_t used = (size_t)(c->out.end - c->out.una), before = ring->size_bytes;
	const size_t wanted = min_size(used + n_bytes, l->send_bytes);
	const size_t size = conn_ring_size_for(ring, wanted);
	int r = 0;

	if (size <= CONN_RING_SURE ||
	    (t->send_total_bytes - before + size <= l->send_total_bytes &&
	     size - before <= memory_room(t->config.memory, t->held_bytes)))
		r = conn_ring_reserve(ring, c->out.una, wanted);
	else if (before == 0)
		r = conn_ring_reserve(ring, c->out.una, CONN_RING_SURE);
	t->send_total_bytes += ring->size_bytes - before;
	*ret_bytes = min_size(ring->size_bytes, l->send_bytes);
	*ret_bytes -= min_size(*ret_bytes, used);
	return *ret_bytes > 0 || used > 0 ? 0 : r;
}

int ptcp_conns_send(struct ptcp_conns *t, uint32_t id, const void *data, size_t n_bytes,
		    size_t *ret_bytes, uint64_t now_us)
{
	struct conn *c = conn_find(t, id);
	size_t room_bytes;
	int r;

	if (!c || c->released)
		return -ENOENT;
	if (c->state == PTCP_CONN_CLOSED)
		return -ECONNRESET;
	if (c->state == PTCP_CONN_LISTEN)
		return -EINVAL;
	if (c->out.fin)
		return -EPIPE;
	r = make_room(c, n_bytes, &room_bytes);
	if (r < 0)
		return r;
	c->out.short_write = room_bytes < n_bytes;
	if (room_bytes == 0)
		return PTCP_BLOCKED;
	n_bytes = min_size(n_bytes, room_bytes);
	conn_ring_put(&c->out.ring, c->out.end, data, n_bytes);
	c->out.end += n_bytes;
	*ret_bytes = n_bytes;
	conn_settle(c, now_us);
	return 0;
}

/* ---- frames ---------------------------------------------------------------------------- */

static void write_syn(struct conn *c, struct writer *w)
{
	writer_varint(w, CONN_FRAME_SYN);
	writer_varint(w, c->id);
	writer_varint(w, c->local_port);
	writer_varint(w, c->remote_port);
	writer_varint(w, c->in.limit);
	writer_varint(w, c->service_bytes);
	writer_bytes(w, c->service, c->service_bytes);
	c->want_syn = false;
}

static void write_syn_ack(struct conn *c, struct writer *w)
{
	writer_varint(w, CONN_FRAME_SYN_ACK);
	writer_varint(w, c->remote_id);
	writer_varint(w, c->id);
	writer_varint(w, c->in.limit);
	c->want_syn_ack = false;
	c->syn_ack_sent = true;
}

static void write_window(struct conn *c, struct writer *w, struct ptcp_conn_sent *ret_sent)
{
	writer_varint(w, CONN_FRAME_WINDOW);
	writer_varint(w, c->remote_id);
	writer_varint(w, c->in.limit);
	c->want_window = false;
	ret_sent->offset = c->in.limit;
}

static void write_rst(struct conn *c, struct writer *w)
{
	writer_varint(w, CONN_FRAME_RST);
	writer_varint(w, c->remote_id);
	writer_varint(w, c->error);
	c->want_rst = false;
}

/* What to send next: what was lost, then what is new; perhaps nothing but the FIN. */
static struct conn_range next_range(const struct conn *c)
{
	const struct conn_out *out = &c->out;

	if (!conn_ranges_empty(&out->lost))
		return out->lost.items[0];
	return (struct conn_range){ out->next, max_u64(out->next, min_u64(out->end, out->limit)) };
}

static void copy_out(const struct conn *c, uint64_t offset, size_t n_bytes, struct writer *w)
{
	while (n_bytes > 0) {
		size_t part_bytes;
		const uint8_t *part = conn_ring_peek(&c->out.ring, offset, n_bytes, &part_bytes);

		writer_bytes(w, part, part_bytes);
		offset += part_bytes;
		n_bytes -= part_bytes;
	}
}

static void note_sent(struct conn *c, uint64_t start, uint64_t end, bool fin)
{
	struct conn_out *out = &c->out;

	if (start < out->next) {
		conn_ranges_trim(&out->lost, end);
		out->resent_bytes += end - start;
	}
	out->next = max_u64(out->next, end);
	if (fin) {
		out->fin_sent = true;
		out->fin_lost = false;
	}
}

static bool write_data(struct conn *c, struct writer *w, struct ptcp_conn_sent *ret_sent)
{
	const struct conn_range range = next_range(c);
	const size_t head_bytes = 1 + varint_bytes(c->remote_id) + varint_bytes(range.start) + 2;
	const size_t room_bytes = writer_left(w) > head_bytes ? writer_left(w) - head_bytes : 0;
	const size_t due_bytes = (size_t)min_u64(range.end - range.start, CONN_DATA_BYTES_MAX);
	const size_t n_bytes = min_size(due_bytes, room_bytes);
	const uint64_t end = range.start + n_bytes;
	const bool fin = c->out.fin && end == c->out.end;

	/* The last crumbs of a packet are not worth a frame of their own. */
	if (writer_left(w) < head_bytes || n_bytes < min_size(due_bytes, 32))
		return false;
	writer_varint(w, fin ? CONN_FRAME_DATA_FIN : CONN_FRAME_DATA);
	writer_varint(w, c->remote_id);
	writer_varint(w, range.start);
	writer_varint(w, n_bytes);
	copy_out(c, range.start, n_bytes, w);
	*ret_sent = (struct ptcp_conn_sent){
		.offset = range.start,
		.conn = c->id,
		.length = (uint32_t)n_bytes,
		.type = fin ? CONN_FRAME_DATA_FIN : CONN_FRAME_DATA,
	};
	note_sent(c, range.start, end, fin);
	return true;
}

static bool write_frame(struct conn *c, struct writer *w, struct ptcp_conn_sent *ret_sent)
{
	const bool is_control = c->want_rst || c->want_syn || c->want_syn_ack ||
				(c->want_window && conn_can_receive(c));

	if (!is_control)
		return write_data(c, w, ret_sent);
	if (writer_left(w) < CONN_FRAME_ROOM_BYTES)
		return false;
	*ret_sent = (struct ptcp_conn_sent){ .conn = c->id };
	if (c->want_rst) {
		write_rst(c, w);
		ret_sent->type = CONN_FRAME_RST;
	} else if (c->want_syn) {
		write_syn(c, w);
		ret_sent->type = CONN_FRAME_SYN;
	} else if (c->want_syn_ack) {
		write_syn_ack(c, w);
		ret_sent->type = CONN_FRAME_SYN_ACK;
	} else {
		write_window(c, w, ret_sent);
		ret_sent->type = CONN_FRAME_WINDOW;
	}
	return true;
}

bool ptcp_conns_write(struct ptcp_conns *t, struct writer *w, struct ptcp_conn_sent *ret_sent,
		      uint64_t now_us)
{
	struct conn *c = TAILQ_FIRST(&t->sendable);

	if (t->n_due > 0)
		return conn_refusal_write(t, w, ret_sent);
	if (!c || !write_frame(c, w, ret_sent))
		return false;
	assert(!w->failed);
	/* Each in its turn, frame by frame. */
	TAILQ_REMOVE(&t->sendable, c, send_link);
	c->in_send = false;
	conn_settle(c, now_us);
	return true;
}

/* ---- the fate of frames --------------------------------------------------------------------- */

static void advance(struct conn *c, uint64_t una)
{
	struct conn_out *out = &c->out;

	out->una = una;
	conn_ranges_trim(&out->acked, una);
	conn_ranges_trim(&out->lost, una);
	if (una == out->end && out->ring.size_bytes > RING_KEPT_BYTES)
		free_ring(c);
	if (out->short_write && out->end - una <= c->table->config.limits.send_bytes / 2) {
		out->short_write = false;
		conn_event(c, PTCP_CONN_EVENT_WRITABLE);
	}
}

static void data_acked(struct conn *c, const struct ptcp_conn_sent *sent, uint64_t now_us)
{
	struct conn_out *out = &c->out;
	const uint64_t start = max_u64(sent->offset, out->una), end = sent->offset + sent->length;

	if (c->state == PTCP_CONN_CLOSED || end > out->next)
		return;
	if (start < end && conn_ranges_add(&out->acked, start, end) < 0) {
		conn_fail(c, PTCP_CONN_NO_MEMORY, now_us);
		return;
	}
	/* If splitting a range fails for want of memory, a part is sent twice: no harm. */
	(void)conn_ranges_remove(&out->lost, start, end);
	if (!conn_ranges_empty(&out->acked) && out->acked.items[0].start == out->una)
		advance(c, out->acked.items[0].end);
	if (sent->type == CONN_FRAME_DATA_FIN) {
		out->fin_acked = true;
		out->fin_lost = false;
	}
	if (out->fin_acked && out->una == out->end)
		conn_dispatch(c, PTCP_CONN_FIN_ACKED, now_us);
}

void ptcp_conns_acked(struct ptcp_conns *t, const struct ptcp_conn_sent *sent, uint64_t now_us)
{
	struct conn *c = conn_find(t, sent->conn);

	if (sent->conn == 0)
		conn_refusal_acked(t, (uint32_t)sent->offset);
	if (!c)
		return;
	switch (sent->type) {
	case CONN_FRAME_SYN_ACK:
		conn_dispatch(c, PTCP_CONN_SYN_ACKED, now_us);
		break;
	case CONN_FRAME_DATA:
	case CONN_FRAME_DATA_FIN:
		data_acked(c, sent, now_us);
		break;
	case CONN_FRAME_RST:
		c->rst_done = true;
		c->want_rst = false;
		break;
	default:
		break;
	}
	conn_settle(c, now_us);
}

static void data_lost(struct conn *c, const struct ptcp_conn_sent *sent, uint64_t now_us)
{
	struct conn_out *out = &c->out;
	const uint64_t end = sent->offset + sent->length;
	uint64_t start = max_u64(sent->offset, out->una);
	struct conn_range gap;

	if (c->state == PTCP_CONN_CLOSED || end > out->next)
		return;
	while (conn_ranges_first_gap(&out->acked, start, end, &gap)) {
		if (conn_ranges_add(&out->lost, gap.start, gap.end) < 0) {
			conn_fail(c, PTCP_CONN_NO_MEMORY, now_us);
			return;
		}
		start = gap.end;
	}
	if (sent->type == CONN_FRAME_DATA_FIN && !out->fin_acked)
		out->fin_lost = true;
}

void ptcp_conns_lost(struct ptcp_conns *t, const struct ptcp_conn_sent *sent, uint64_t now_us)
{
	struct conn *c = conn_find(t, sent->conn);

	if (sent->conn == 0)
		conn_refusal_lost(t, (uint32_t)sent->offset);
	if (!c)
		return;
	switch (sent->type) {
	case CONN_FRAME_SYN:
		c->want_syn = c->state == PTCP_CONN_SYN_SENT;
		break;
	case CONN_FRAME_SYN_ACK:
		c->want_syn_ack = !c->syn_acked && c->state != PTCP_CONN_CLOSED;
		break;
	case CONN_FRAME_DATA:
	case CONN_FRAME_DATA_FIN:
		data_lost(c, sent, now_us);
		break;
	case CONN_FRAME_WINDOW:
		c->want_window |= sent->offset == c->in.limit && !c->in.fin;
		break;
	case CONN_FRAME_RST:
		c->want_rst = !c->rst_done;
		break;
	default:
		break;
	}
	conn_settle(c, now_us);
}

void conn_out_watch(struct conn *c, uint64_t now_us)
{
	const struct conn_out *out = &c->out;
	bool is_stuck;

	if (!c->released || (c->state != PTCP_CONN_FIN_WAIT_1 && c->state != PTCP_CONN_CLOSING &&
			     c->state != PTCP_CONN_LAST_ACK))
		return;
	is_stuck = c->syn_acked && out->una == out->next && out->next < out->end &&
		   out->next >= out->limit;
	if (!is_stuck)
		conn_set_deadline(c, NEVER_US);
	else if (c->deadline_us == NEVER_US)
		conn_set_deadline(c, add_sat_u64(now_us, c->table->config.limits.fin_timeout_us));
}
