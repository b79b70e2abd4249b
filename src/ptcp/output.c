/*
 * Batches out. In this order: closing, handshake, what belongs to one path
 * (challenges and answers), an MTU probe, and then acknowledgements and data on
 * the active path.
 *
 * A data batch is built packet by packet in the caller's buffer, each sealed in
 * place; message bytes are copied once, from where they are queued. All but the
 * last packet are exactly as large as the path's MTU; a packet that cannot be
 * filled, although more waits, is padded.
 */
#include "ptcp/assoc.h"

#define COPY_GUESS_BYTES  512
#define CONNS_GUESS_BYTES 65536 /* connections do not say how much they have */
#define ACK_PING_EVERY    32    /* packets of mere ACKs, while there are holes to be forgotten */

/* ---- one packet ------------------------------------------------------------------------------ */

static void build_start(struct ptcp_assoc *a, struct build *b, struct path *p, uint8_t *data,
			size_t size_bytes)
{
	keys_before_seal(a);
	b->w = writer_over(data, size_bytes - PTCP_TAG_BYTES);
	b->path = p;
	b->n_records = 0;
	b->records_max = SENT_RECORDS_MAX;
	b->eliciting = b->ack = false;
	b->flags = 0;
	b->ect = false;
	b->dscp = 0;
	b->has_dscp = b->ended = false;
	packet_write_short(&b->w, a->config.remote_cid, a->keys.tx_phase & 1, a->sent.next_pn);
}

static bool build_empty(const struct build *b)
{
	return b->w.used_bytes == PACKET_SHORT_BYTES;
}

/* Seals and enters it. Returns its size; 0: the association failed. */
static size_t build_finish(struct ptcp_assoc *a, struct build *b)
{
	const struct ptcp_crypto *const c = &a->config.crypto;
	struct path *const p = b->path;

	assert(!b->w.failed);
	if (b->flags & SENT_SOURCE) {
		b->w.data[0] |= PACKET_SHORT_SOURCE;
		parity_add(a, b);
	}
	if (c->seal(c->ctx, PTCP_EPOCH_DATA, a->keys.tx_phase, a->sent.next_pn, b->w.data,
		    PACKET_SHORT_BYTES, b->w.data + PACKET_SHORT_BYTES,
		    b->w.used_bytes - PACKET_SHORT_BYTES) < 0) {
		assoc_closed(a, PTCP_CLOSE_INTERNAL, false, "sealing failed");
		return 0;
	}
	const size_t size_bytes = b->w.used_bytes + PTCP_TAG_BYTES;
	recovery_sent(a, b, size_bytes);
	a->ack.n_since_ping = b->eliciting ? 0 : a->ack.n_since_ping + 1;
	p->bytes_sent += size_bytes;
	p->last_sent_us = a->now_us;
	a->stats.packets_sent++;
	a->stats.bytes_sent += size_bytes;
	return size_bytes;
}

static void pad(struct build *b, size_t n_bytes)
{
	memset(b->w.data + b->w.used_bytes, FRAME_PADDING, n_bytes);
	b->w.used_bytes += n_bytes;
}

static bool batch_done(struct ptcp_batch *batch, const struct path *p, size_t used_bytes,
		       size_t segment_bytes)
{
	if (used_bytes == 0)
		return false;
	batch->path_id = p->id;
	batch->used_bytes = used_bytes;
	batch->segment_bytes = segment_bytes;
	batch->ecn = 0; /* what tests a path must pass where marks do not */
	batch->dscp = 0;
	batch->dont_fragment = false;
	return true;
}

/* ---- closing
 * ------------------------------------------------------------------------------------- */

static size_t close_long(struct ptcp_assoc *a, struct ptcp_batch *batch)
{
	const struct ptcp_crypto *const c = &a->config.crypto;
	struct writer w = writer_over(batch->data, batch->size_bytes - PTCP_TAG_BYTES);
	const uint64_t pn = a->handshake.next_pn++;

	packet_write_long(&w, a->config.remote_cid, a->config.local_cid, pn);
	const size_t header_bytes = w.used_bytes;
	writer_u8(&w, FRAME_CLOSE);
	writer_varint(&w, a->close_code);
	if (w.failed || c->seal(c->ctx, PTCP_EPOCH_HANDSHAKE, 0, pn, w.data, header_bytes,
				w.data + header_bytes, w.used_bytes - header_bytes) < 0)
		return 0;
	return w.used_bytes + PTCP_TAG_BYTES;
}

static size_t close_short(struct ptcp_assoc *a, struct ptcp_batch *batch, struct path *p)
{
	struct build b;

	if (!recovery_make_room(a, 0))
		return 0;
	build_start(a, &b, p, batch->data, batch->size_bytes);
	writer_u8(&b.w, FRAME_CLOSE);
	writer_varint(&b.w, a->close_code);
	return build_finish(a, &b);
}

struct path *output_any_path(struct ptcp_assoc *a)
{
	if (a->active)
		return a->active;
	if (a->heard)
		return a->heard;
	PATH_FOREACH (a, p)
		return p;
	return NULL;
}

static bool output_close(struct ptcp_assoc *a, struct ptcp_batch *batch)
{
	struct path *const p = output_any_path(a);

	if (a->now_us < a->close_us || a->n_closes >= CLOSE_TRIES || !p)
		return false;
	/* A peer that may not have finished the handshake understands only its key; try both. */
	const bool is_long =
		!a->handshake.done || (!a->handshake.confirmed && a->n_closes % 2 == 0);
	a->n_closes++;
	a->close_us = a->now_us + path_pto_us(p);
	const size_t n = is_long ? close_long(a, batch) : close_short(a, batch, p);
	if (a->close_answer_owed)
		assoc_set_state(a, PTCP_CLOSED, "close answered");
	return batch_done(batch, p, n, n);
}

/* ---- what belongs to one path
 * ------------------------------------------------------------------------ */

static bool write_ack(struct ptcp_assoc *a, struct build *b)
{
	parity_write_repaired(a, b);
	if (!ack_write(&a->ack, &b->w, a->ack.ect0 + a->ack.ect1 + a->ack.ce > 0, a->now_us))
		return false;
	b->ack = true;
	return true;
}

static void write_ping(struct build *b, uint32_t id)
{
	if (writer_left(&b->w) < 5)
		return;
	writer_u8(&b->w, FRAME_PING);
	writer_u32(&b->w, id);
	b->eliciting = true;
}

static bool output_control(struct ptcp_assoc *a, struct ptcp_batch *batch, struct path *p)
{
	const bool probe = p->n_probes > 0 && p != a->active;
	struct build b;

	if (!path_control_due(a, p) && !probe)
		return false;
	if (!recovery_make_room(a, 0))
		return false;
	build_start(a, &b, p, batch->data, min_size(batch->size_bytes, PTCP_MTU_MIN));
	path_write_control(a, p, &b);
	if (probe) {
		p->n_probes = 0;
		write_ping(&b, 0);
	}
	if (build_empty(&b))
		return false;
	const size_t n = build_finish(a, &b);
	return batch_done(batch, p, n, n);
}

/*
 * Where acknowledgements leave. Where the peer sends may be the only path that works, so they stay
 * there, unless that path may be a stranger's and has got enough.
 */
static struct path *ack_path(const struct ptcp_assoc *a)
{
	struct path *const p = a->ack_path;

	return p && (p == a->active || path_may_send(p)) ? p : a->active;
}

/* An acknowledgement of what came on another path than ours. */
static bool output_ack(struct ptcp_assoc *a, struct ptcp_batch *batch)
{
	struct path *const p = ack_path(a);
	struct build b;

	if (!p || p == a->active || !ack_due(&a->ack, a->now_us) || !recovery_make_room(a, 1))
		return false;
	build_start(a, &b, p, batch->data, min_size(batch->size_bytes, PTCP_MTU_MIN));
	if (!write_ack(a, &b))
		return false;
	const size_t n = build_finish(a, &b);
	return batch_done(batch, p, n, n);
}

static bool output_mtu_probe(struct ptcp_assoc *a, struct ptcp_batch *batch, struct path *p)
{
	const uint16_t size_bytes = pmtu_probe_due(p, a->now_us);
	struct build b;

	if (size_bytes == 0 || size_bytes > batch->size_bytes || !recovery_make_room(a, 0))
		return false;
	build_start(a, &b, p, batch->data, size_bytes);
	b.flags = SENT_MTU_PROBE;
	write_ping(&b, 0);
	pad(&b, writer_left(&b.w));
	pmtu_probe_sent(p, size_bytes);
	const size_t n = build_finish(a, &b);
	if (!batch_done(batch, p, n, n))
		return false;
	batch->dont_fragment = true;
	return true;
}

/* ---- data
 * ------------------------------------------------------------------------------------------------
 */

size_t output_pending_bytes(const struct ptcp_assoc *a)
{
	return sender_pending_bytes(&a->sender) + parity_pending_bytes(a) +
	       (sender_copy_due_us(a) <= a->now_us ? COPY_GUESS_BYTES : 0) +
	       (ptcp_conns_want_send(a->conns) ? CONNS_GUESS_BYTES : 0);
}

/* Small frames that wait for no window: answers and questions. */
static bool control_waits(const struct ptcp_assoc *a)
{
	if (a->handshake.done_owed || a->n_pongs > 0 ||
	    a->sender.abandon_head != a->sender.abandon_tail)
		return true;
	for (unsigned i = 0; i < a->n_pings; i++)
		if (a->pings[i].sent_us == NEVER_US)
			return true;
	return false;
}

static void write_control(struct ptcp_assoc *a, struct build *b)
{
	if (a->handshake.done_owed) {
		writer_u8(&b->w, FRAME_HANDSHAKE_DONE);
		build_record(b, &(struct sent_record){ .kind = SENT_HANDSHAKE_DONE });
		a->handshake.done_owed = false;
	}
	while (a->n_pongs > 0 && writer_left(&b->w) >= 5) {
		writer_u8(&b->w, FRAME_PONG);
		writer_u32(&b->w, a->pongs[--a->n_pongs]);
	}
	for (unsigned i = 0; i < a->n_pings && writer_left(&b->w) >= 5; i++)
		if (a->pings[i].sent_us == NEVER_US) {
			a->pings[i].sent_us = a->now_us;
			write_ping(b, a->pings[i].wire_id);
		}
	sender_write_abandons(a, b);
}

static void write_conns(struct ptcp_assoc *a, struct build *b)
{
	if (b->has_dscp && b->dscp != 0)
		return; /* streams have none */
	while (writer_left(&b->w) >= CONN_FRAME_ROOM_BYTES && !build_full(b)) {
		struct sent_record record = { .kind = SENT_CONN };

		if (!ptcp_conns_write(a->conns, &b->w, &record.conn, a->now_us))
			return;
		build_record(b, &record);
		b->has_dscp = true;
	}
}

static void write_data(struct ptcp_assoc *a, struct build *b)
{
	a->conns_first = !a->conns_first;
	if (a->conns_first)
		write_conns(a, b);
	sender_write(a, b);
	if (!a->conns_first)
		write_conns(a, b);
}

/* Bytes of congestion-controlled packets that may leave now. */
static size_t data_allowance(struct ptcp_assoc *a, struct path *p, size_t pending_bytes)
{
	const size_t probe_bytes = p->n_probes * (size_t)p->mtu_bytes;

	if (pending_bytes == 0)
		return probe_bytes;
	const size_t wanted = pending_bytes + pending_bytes / 16 + 64;
	if (p->in_flight_bytes > 0 && p->in_flight_bytes + p->mtu_bytes > p->cc.cwnd_bytes)
		return probe_bytes;
	const uint64_t window = p->cc.cwnd_bytes > p->in_flight_bytes
					? p->cc.cwnd_bytes - p->in_flight_bytes
					: p->mtu_bytes;
	const size_t paced = pacer_allowance(&p->pacer, wanted, a->now_us);
	return (size_t)max_u64(min_u64(window, paced), probe_bytes);
}

/* The packets of a batch leave in one system call, with one DSCP: that of the first message. */
struct batch_class {
	uint8_t dscp;
	bool known, ended; /* ended: the next message has another one */
};

/* One packet of a data batch. Returns its size; 0: there is nothing to send. */
static size_t output_packet(struct ptcp_assoc *a, struct path *p, uint8_t *data, size_t size_bytes,
			    bool may_data, bool more, bool protect, struct batch_class *class)
{
	const bool probe = p->n_probes > 0;
	struct build b;

	may_data = may_data && (probe || recovery_data_room(a));
	/* Enough for any packet, or without memory for a poor one; it grows here or not at all. */
	const unsigned records_max =
		recovery_make_room(a, SENT_RECORDS_MAX) ? SENT_RECORDS_MAX : SENT_RECORDS_INLINE;
	if (!recovery_make_room(a, records_max))
		return 0;
	build_start(a, &b, p, data, size_bytes);
	b.records_max = records_max;
	b.ect = path_uses_ecn(a, p);
	b.dscp = class->dscp;
	b.has_dscp = class->known;
	if (a->state != PTCP_ESTABLISHED)
		return 0;
	if (ack_path(a) == p && (ack_due(&a->ack, a->now_us) || (may_data && a->ack.n_waiting > 0)))
		write_ack(a, &b);
	write_control(a, &b);
	if (may_data)
		write_data(a, &b);
	sender_write_abandons(a, &b); /* of what turned out to be too old just now */
	if (!b.eliciting &&
	    (probe || (b.ack && a->ack.n_ranges > 1 && a->ack.n_since_ping >= ACK_PING_EVERY)))
		write_ping(&b, 0);
	if (build_empty(&b))
		return 0;
	/* The sources of a block have numbers without a gap. */
	if (protect && (b.n_records > 0 || parity_open(a)))
		b.flags |= SENT_SOURCE;
	if (b.ack && b.eliciting)
		build_record(&b, &(struct sent_record){ .kind = SENT_ACK,
							.ack_largest = a->ack.ranges[0].high });
	if (b.eliciting && p->n_probes > 0)
		p->n_probes--;
	if (may_data && more && !b.ended && output_pending_bytes(a) > 0)
		pad(&b, writer_left(&b.w));
	*class = (struct batch_class){ .dscp = b.dscp, .known = b.has_dscp, .ended = b.ended };
	return build_finish(a, &b);
}

static void note_app_limit(struct ptcp_assoc *a, struct path *p)
{
	/* A window that is nearly used up would have been the limit soon. */
	if (output_pending_bytes(a) == 0 && p->in_flight_bytes < p->cc.cwnd_bytes / 4 * 3)
		p->app_limited_until = max_u64(p->delivered_bytes + p->in_flight_bytes, 1);
}

/* The parity of a block that is closed. Nothing else of the kind may leave before. */
static bool output_parity(struct ptcp_assoc *a, struct ptcp_batch *batch, struct path *p)
{
	const size_t size_bytes = parity_packet_bytes(a);
	const size_t allowance = data_allowance(a, p, output_pending_bytes(a));
	size_t used = 0;

	while (parity_pending(a) && used < allowance && used + size_bytes <= batch->size_bytes &&
	       recovery_make_room(a, 0)) {
		struct build b;

		build_start(a, &b, p, batch->data + used, size_bytes);
		if (a->state != PTCP_ESTABLISHED)
			break;
		parity_write(a, &b);
		const size_t n = build_finish(a, &b);
		if (n == 0)
			break;
		used += n;
		parity_sent(a);
	}
	if (used > 0)
		pacer_sent(&p->pacer, used);
	return batch_done(batch, p, used, size_bytes);
}

static bool output_data(struct ptcp_assoc *a, struct ptcp_batch *batch, struct path *p)
{
	parity_close_due(a);
	if (parity_pending(a) && output_parity(a, batch, p))
		return true;
	/* Probes do not wait for parity that has to. */
	const bool waits = parity_pending(a);
	const bool protect = !waits && parity_protects(a, p);
	const size_t segment_bytes =
		min_size(p->mtu_bytes, batch->size_bytes) - (protect ? PARITY_ROOM_BYTES : 0);
	const size_t room_bytes = min_size(batch->size_bytes, PTCP_BATCH_BYTES_MAX);
	const size_t pending_bytes = output_pending_bytes(a);
	size_t allowance =
		waits ? p->n_probes * (size_t)p->mtu_bytes : data_allowance(a, p, pending_bytes);
	size_t used = 0, size;
	const uint64_t in_flight_before = p->in_flight_bytes;
	struct batch_class class = { 0 };

	recovery_relieve(a);
	sender_fit_queue(a, p);
	const bool acks = ack_due(&a->ack, a->now_us) && ack_path(a) == p;

	if (allowance == 0 && !acks && !control_waits(a) && p->n_probes == 0)
		return false;
	for (unsigned n = 0; n < PTCP_BATCH_SEGMENTS_MAX && used + segment_bytes <= room_bytes;
	     n++) {
		const bool more = allowance > used + segment_bytes;

		size = output_packet(a, p, batch->data + used, segment_bytes, allowance > used,
				     more, protect, &class);
		used += size;
		parity_close_due(a);
		if (size < segment_bytes || class.ended || a->state != PTCP_ESTABLISHED ||
		    parity_pending(a) != waits)
			break;
	}
	if (p->in_flight_bytes > in_flight_before)
		pacer_sent(&p->pacer, (size_t)(p->in_flight_bytes - in_flight_before));
	note_app_limit(a, p);
	if (!batch_done(batch, p, used, min_size(used, segment_bytes)))
		return false;
	batch->dscp = class.dscp;
	batch->ecn = path_uses_ecn(a, p) ? 2 : 0;
	return true;
}

bool ptcp_output(struct ptcp_assoc *a, struct ptcp_batch *batch, uint64_t now_us)
{
	assoc_now(a, now_us);
	if (a->state == PTCP_CLOSED || batch->size_bytes < PTCP_MTU_MIN)
		return false;
	if (a->state == PTCP_CLOSING)
		return output_close(a, batch);
	if (handshake_output(a, batch))
		return true;
	if (a->state != PTCP_ESTABLISHED)
		return false;
	PATH_FOREACH (a, p)
		if (output_control(a, batch, p))
			return true;
	PATH_FOREACH (a, p)
		if (output_mtu_probe(a, batch, p))
			return true;
	if (output_ack(a, batch))
		return true;
	struct path *const p = a->active;
	const bool any = p && output_data(a, batch, p);
	sender_check_room(a);
	return any;
}

uint64_t output_deadline_us(const struct ptcp_assoc *a)
{
	const struct path *const p = a->active;
	const size_t pending_bytes = p ? output_pending_bytes(a) : 0;

	if (!p)
		return ack_path(a) ? a->ack.deadline_us : NEVER_US;
	if (control_waits(a) || p->n_probes > 0)
		return a->now_us;
	if (pending_bytes == 0)
		return min_u64(a->ack.deadline_us, sender_copy_due_us(a));
	/* No room in the window or in the ring: an acknowledgement will tell. */
	if ((p->in_flight_bytes > 0 && p->in_flight_bytes + p->mtu_bytes > p->cc.cwnd_bytes) ||
	    !recovery_data_room(a))
		return a->ack.deadline_us;
	return min_u64(a->ack.deadline_us,
		       pacer_time_us(&p->pacer, pending_bytes + pending_bytes / 16 + 64));
}
