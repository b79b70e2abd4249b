/*
 * conn_recv - frames from the peer, the peer's stream, and its flow control.
 *
 * What the peer sends can break one connection (RST with BAD_PEER) when it
 * breaks that connection's rules; a frame that cannot be read at all, or names
 * an id that we never gave out, breaks the association (-EBADMSG). A frame for
 * an id that is gone is late and means nothing.
 */
#include "ptcp/conn_private.h"

/* ---- window ------------------------------------------------------------------------ */

/* The largest window whose ring the memory that is shared has room for. */
static uint64_t affordable_bytes(const struct conn *c)
{
	const struct ptcp_conns *t = c->table;
	const size_t own_bytes = c->held_bytes - c->out.ring.size_bytes;
	const size_t room_bytes = memory_room(t->config.memory, t->held_bytes);
	uint64_t size = CONN_WINDOW_MIN;

	if (room_bytes >= t->config.limits.window_bytes)
		return UINT64_MAX;
	while (2 * size <= own_bytes + room_bytes)
		size *= 2;
	return size;
}

/* Promises the peer to take everything below `limit`, as far as the common budgets go. */
static uint64_t limit_for(const struct conn *c)
{
	const struct ptcp_conns *t = c->table;
	const uint64_t total = t->config.limits.window_total_bytes;
	const uint64_t others = t->window_total_bytes - c->in.promised;
	const uint64_t left = min_u64(total > others ? total - others : 0, affordable_bytes(c));

	return c->in.read + max_u64(min_u64(c->in.window_bytes, left), CONN_WINDOW_MIN);
}

static void promise(struct conn *c, uint64_t limit)
{
	const uint64_t more = limit - c->in.limit;

	c->in.limit = limit;
	c->in.promised += more;
	c->table->window_total_bytes += more;
}

void conn_in_init(struct conn *c, uint64_t now_us)
{
	const struct ptcp_conn_limits *l = &c->table->config.limits;

	c->in.window_bytes = min_size(l->window_first_bytes, l->window_bytes);
	c->in.epoch_us = now_us;
	promise(c, limit_for(c));
}

void conn_in_fini(struct conn *c)
{
	c->table->window_total_bytes -= c->in.promised;
	c->in.promised = 0;
	c->in.read = c->in.next;
	conn_ring_fini(&c->in.ring);
	conn_ranges_fini(&c->in.early);
}

bool conn_in_whole(const struct conn *c)
{
	return c->in.fin && c->in.next == c->in.final;
}

/* A reader that goes through half a window within two round trips is held up by it. */
static void tune_window(struct conn *c, uint64_t now_us)
{
	const struct ptcp_conns *t = c->table;

	if (c->in.read - c->in.epoch_read < c->in.window_bytes / 2)
		return;
	if (now_us - c->in.epoch_us < 2 * t->srtt_us)
		c->in.window_bytes =
			min_size(2 * c->in.window_bytes, t->config.limits.window_bytes);
	c->in.epoch_us = now_us;
	c->in.epoch_read = c->in.read;
}

static void open_window(struct conn *c)
{
	const uint64_t limit = limit_for(c);

	if (!conn_can_receive(c) || c->in.fin || limit <= c->in.limit)
		return;
	/* Not by crumbs (silly window, RFC 9293, 3.8.6.2.2), but well before the old one is used.
	 */
	if (limit - c->in.limit < (limit - c->in.read) / 4)
		return;
	promise(c, limit);
	c->want_window = true;
}

/* ---- reading -------------------------------------------------------------------------- */

static int readable(const struct conn *c, size_t *ret_bytes)
{
	if (!c || c->released)
		return -ENOENT;
	*ret_bytes = (size_t)(c->in.next - c->in.read);
	if (*ret_bytes > 0)
		return 0;
	if (conn_in_whole(c))
		return PTCP_CONN_EOF;
	return c->state == PTCP_CONN_CLOSED ? -ECONNRESET : PTCP_BLOCKED;
}

static void take(struct conn *c, size_t n_bytes, uint64_t now_us)
{
	c->in.read += n_bytes;
	c->in.promised -= n_bytes;
	c->table->window_total_bytes -= n_bytes;
	tune_window(c, now_us);
	open_window(c);
	if (c->in.read == c->in.highest && (conn_in_whole(c) || c->in.ring.size_bytes > 65536))
		conn_ring_fini(&c->in.ring);
	conn_settle(c, now_us);
}

int ptcp_conns_peek(struct ptcp_conns *t, uint32_t id, const uint8_t **ret_data, size_t *ret_bytes)
{
	const struct conn *c = conn_find(t, id);
	size_t n_bytes;
	const int r = readable(c, &n_bytes);

	if (r == 0)
		*ret_data = conn_ring_peek(&c->in.ring, c->in.read, n_bytes, ret_bytes);
	return r;
}

int ptcp_conns_consume(struct ptcp_conns *t, uint32_t id, size_t n_bytes, uint64_t now_us)
{
	struct conn *c = conn_find(t, id);
	size_t there_bytes;
	const int r = readable(c, &there_bytes);

	if (r != 0)
		return r;
	take(c, min_size(n_bytes, there_bytes), now_us);
	return 0;
}

int ptcp_conns_read(struct ptcp_conns *t, uint32_t id, void *out, size_t out_bytes,
		    size_t *ret_bytes, uint64_t now_us)
{
	struct conn *c = conn_find(t, id);
	size_t n_bytes;
	const int r = readable(c, &n_bytes);

	if (r != 0)
		return r;
	n_bytes = min_size(n_bytes, out_bytes);
	conn_ring_get(&c->in.ring, c->in.read, out, n_bytes);
	*ret_bytes = n_bytes;
	take(c, n_bytes, now_us);
	return 0;
}

/* ---- data --------------------------------------------------------------------------------- */

/* The bytes [start, end), of which none was delivered yet. */
static int store(struct conn *c, uint64_t start, uint64_t end, const uint8_t *data)
{
	struct conn_in *in = &c->in;
	int r = conn_ring_reserve(&in->ring, in->read, (size_t)(end - in->read));

	if (r < 0)
		return r;
	conn_ring_put(&in->ring, start, data, (size_t)(end - start));
	if (start > in->next || !conn_ranges_empty(&in->early)) {
		r = conn_ranges_add(&in->early, start, end);
		if (r < 0)
			return r;
		if (in->early.items[0].start > in->next)
			return 0;
		end = in->early.items[0].end;
	}
	in->next = end;
	conn_ranges_trim(&in->early, end);
	conn_event(c, PTCP_CONN_EVENT_READABLE);
	return 0;
}

/* Whether the peer may send [.., end) and, with fin, end its stream there. */
static bool is_allowed(const struct conn *c, uint64_t end, bool fin)
{
	const struct conn_in *in = &c->in;

	if (end > in->limit)
		return false;
	if (in->fin)
		return fin ? end == in->final : end <= in->final;
	return !fin || end >= in->highest;
}

static void take_data(struct conn *c, uint64_t offset, const uint8_t *data, size_t n_bytes,
		      bool fin, uint64_t now_us)
{
	const uint64_t end = offset + n_bytes, start = max_u64(offset, c->in.next);
	int r = 0;

	if (!is_allowed(c, end, fin)) {
		conn_fail(c, PTCP_CONN_BAD_PEER, now_us);
		return;
	}
	if (!conn_can_receive(c))
		return; /* all of it came before */
	if (start < end && c->released) {
		conn_fail(c, PTCP_CONN_UNREAD, now_us);
		return;
	}
	if (start < end)
		r = store(c, start, end, data + (start - offset));
	if (r < 0) {
		conn_fail(c, r == -ENOBUFS ? PTCP_CONN_BAD_PEER : PTCP_CONN_NO_MEMORY, now_us);
		return;
	}
	c->in.highest = max_u64(c->in.highest, end);
	if (fin) {
		c->in.fin = true;
		c->in.final = end;
	}
	if (conn_in_whole(c)) {
		conn_event(c, PTCP_CONN_EVENT_FIN);
		conn_dispatch(c, PTCP_CONN_FIN, now_us);
	}
}

/* ---- frames -----------------------------------------------------------------------------------
 */

/*
 * The peer addresses our id, so it has our SYN+ACK, whether or not its acknowledgement came.
 * False when it cannot know that id yet: it guessed.
 */
static bool note_heard(struct conn *c, uint64_t now_us)
{
	if (c->state == PTCP_CONN_CLOSED)
		return false;
	if (!c->syn_acked && !c->syn_ack_sent) {
		conn_fail(c, PTCP_CONN_BAD_PEER, now_us);
		return false;
	}
	if (!c->syn_acked)
		conn_dispatch(c, PTCP_CONN_SYN_ACKED, now_us);
	return true;
}

/* An id of ours. *ret_conn is NULL when it is gone. */
static int read_id(struct ptcp_conns *t, struct reader *r, struct conn **ret_conn)
{
	const uint64_t id = reader_varint(r);

	if (r->failed || id == 0 || id >= t->next_id)
		return -EBADMSG;
	*ret_conn = conn_find(t, (uint32_t)id);
	return 0;
}

static int frame_syn(struct ptcp_conns *t, struct reader *r, uint64_t now_us)
{
	const uint64_t id = reader_varint(r), from = reader_varint(r), to = reader_varint(r);
	const uint64_t window = reader_varint(r), service_bytes = reader_varint(r);
	struct conn_syn syn;

	if (r->failed || service_bytes > PTCP_CONN_SERVICE_BYTES_MAX)
		return -EBADMSG;
	if (id == 0 || id > CONN_ID_MAX || from == 0 || from > UINT16_MAX || to == 0 ||
	    to > UINT16_MAX)
		return -EBADMSG;
	syn = (struct conn_syn){
		.id = (uint32_t)id,
		.from_port = (uint16_t)from,
		.to_port = (uint16_t)to,
		.window = window,
		.service = reader_bytes(r, (size_t)service_bytes),
		.service_bytes = (size_t)service_bytes,
	};
	if (r->failed)
		return -EBADMSG;
	conn_syn_input(t, &syn, now_us);
	return 0;
}

/* Ends the peer's connection `remote_id`, whether we have one for it or not. */
static void turn_away(struct ptcp_conns *t, uint32_t remote_id, uint64_t now_us)
{
	struct conn *c = conn_find_remote(t, remote_id);

	if (!c) {
		conn_refuse(t, remote_id, PTCP_CONN_ABORTED, true);
		return;
	}
	conn_fail(c, PTCP_CONN_ABORTED, now_us);
	conn_settle(c, now_us);
}

static int frame_syn_ack(struct ptcp_conns *t, struct reader *r, uint64_t now_us)
{
	struct conn *c;
	const int result = read_id(t, r, &c);
	const uint64_t id = reader_varint(r), window = reader_varint(r);

	if (result < 0 || r->failed || id == 0 || id > CONN_ID_MAX)
		return -EBADMSG;
	if (!c || (c->state == PTCP_CONN_CLOSED && c->remote_id == 0)) {
		/* We gave up while the SYN was under way; the other end must not wait for us. */
		turn_away(t, (uint32_t)id, now_us);
		return 0;
	}
	if (c->state == PTCP_CONN_LISTEN || c->incoming)
		return -EBADMSG;
	if (c->remote_id == 0)
		c->remote_id = (uint32_t)id;
	c->out.limit = max_u64(c->out.limit, window);
	if (c->remote_id == id) {
		conn_dispatch(c, PTCP_CONN_SYN_ACK, now_us);
	} else {
		conn_fail(c, PTCP_CONN_BAD_PEER, now_us);
		turn_away(t, (uint32_t)id, now_us);
	}
	conn_settle(c, now_us);
	return 0;
}

static int frame_data(struct ptcp_conns *t, bool fin, struct reader *r, uint64_t now_us)
{
	struct conn *c;
	const int result = read_id(t, r, &c);
	const uint64_t offset = reader_varint(r), n_bytes = reader_varint(r);
	const uint8_t *data;

	if (result < 0 || r->failed || n_bytes > r->left_bytes ||
	    offset > CONN_OFFSET_MAX - n_bytes)
		return -EBADMSG;
	data = reader_bytes(r, (size_t)n_bytes);
	if (!c)
		return 0;
	if (c->state == PTCP_CONN_LISTEN)
		return -EBADMSG;
	if (note_heard(c, now_us))
		take_data(c, offset, data, (size_t)n_bytes, fin, now_us);
	conn_settle(c, now_us);
	return 0;
}

/* A frame with one number. 1: it is for *ret_conn; 0: for one that is gone; -EBADMSG. */
static int read_id_and_value(struct ptcp_conns *t, struct reader *r, struct conn **ret_conn,
			     uint64_t *ret_value)
{
	const int result = read_id(t, r, ret_conn);

	*ret_value = reader_varint(r);
	if (result < 0 || r->failed)
		return -EBADMSG;
	if (!*ret_conn)
		return 0;
	return (*ret_conn)->state == PTCP_CONN_LISTEN ? -EBADMSG : 1;
}

static int frame_window(struct ptcp_conns *t, struct reader *r, uint64_t now_us)
{
	struct conn *c;
	uint64_t limit;
	const int result = read_id_and_value(t, r, &c, &limit);

	if (result <= 0)
		return result;
	if (note_heard(c, now_us))
		c->out.limit = max_u64(c->out.limit, limit);
	conn_settle(c, now_us);
	return 0;
}

static int frame_rst(struct ptcp_conns *t, struct reader *r, uint64_t now_us)
{
	struct conn *c;
	uint64_t error;
	const int result = read_id_and_value(t, r, &c, &error);

	if (result <= 0)
		return result;
	c->rst_done = true; /* both gave up: ours need not arrive any more */
	c->want_rst = false;
	if (c->state != PTCP_CONN_CLOSED) {
		/* A code of a later version is still the end. */
		c->error = error > PTCP_CONN_OK && error < PTCP_CONN_ERROR_COUNT
				   ? (enum ptcp_conn_error)error
				   : PTCP_CONN_ABORTED;
		c->by_peer = true;
		conn_dispatch(c, PTCP_CONN_RST, now_us);
	}
	conn_settle(c, now_us);
	return 0;
}

int ptcp_conns_frame(struct ptcp_conns *t, uint64_t type, struct reader *r, uint64_t now_us)
{
	switch (type) {
	case CONN_FRAME_SYN:
		return frame_syn(t, r, now_us);
	case CONN_FRAME_SYN_ACK:
		return frame_syn_ack(t, r, now_us);
	case CONN_FRAME_DATA:
		return frame_data(t, false, r, now_us);
	case CONN_FRAME_DATA_FIN:
		return frame_data(t, true, r, now_us);
	case CONN_FRAME_WINDOW:
		return frame_window(t, r, now_us);
	case CONN_FRAME_RST:
		return frame_rst(t, r, now_us);
	default:
		return -EBADMSG;
	}
}
