/*
 * The handshake: TLS 1.3 as an ordered byte stream in sealed long packets
 * (doc/ptcp.md, section 5.1).
 *
 * Each packet says how many bytes of the peer's stream came without a hole, and
 * carries bytes of ours. Until all are acknowledged they are sent again, all
 * from the first missing one, on every path. A flight is a handful of packets,
 * so nothing cleverer pays.
 */
#include "ptcp/assoc.h"

#define RETRY_FIRST_US (250 * US_PER_MS)
#define RETRY_MAX_US   US_PER_S
#define ROOM_FIRST     4096

int handshake_init(struct ptcp_assoc *a)
{
	struct handshake *const h = &a->handshake;

	h->out = malloc(ROOM_FIRST);
	h->in = malloc(ROOM_FIRST);
	h->out_room = h->in_room = ROOM_FIRST;
	h->retry_us = NEVER_US;
	h->path_id = PTCP_PATH_NONE;
	return h->out && h->in ? 0 : -ENOMEM;
}

/* At most HANDSHAKE_BYTES_MAX. False: no memory. */
static bool make_room(uint8_t **buffer, size_t *room, size_t n_bytes)
{
	size_t size = *room;
	uint8_t *bigger;

	while (size < n_bytes)
		size *= 2;
	if (size == *room)
		return true;
	bigger = realloc(*buffer, size);
	if (!bigger)
		return false;
	*buffer = bigger;
	*room = size;
	return true;
}

void handshake_fini(struct ptcp_assoc *a)
{
	struct handshake *const h = &a->handshake;

	free(h->out);
	free(h->in);
	h->out = h->in = NULL;
}

/*
 * Both ends have the keys, and each knows it of the other: nothing of TLS is needed any more. What
 * the peer repeats is still answered.
 */
static void retire(struct ptcp_assoc *a)
{
	struct handshake *const h = &a->handshake;

	handshake_fini(a);
	h->out_acked = h->out_sent = h->out_end;
	if (a->config.crypto.handshake_over)
		a->config.crypto.handshake_over(a->config.crypto.ctx);
}

static unsigned all_paths(const struct ptcp_assoc *a)
{
	unsigned bits = 0;

	for (unsigned i = 0; i < PTCP_PATHS_MAX; i++)
		if (a->paths[i].used)
			bits |= 1U << i;
	return bits;
}

/* On the path that works, or where none is known to, on all. */
static unsigned first_choice(struct ptcp_assoc *a)
{
	const struct path *p = path_find(a, a->handshake.path_id);

	return p ? 1U << p->index : all_paths(a);
}

static void pull_output(struct ptcp_assoc *a)
{
	struct handshake *const h = &a->handshake;
	bool any = false;

	while (h->out_end < HANDSHAKE_BYTES_MAX) {
		const size_t n = make_room(&h->out, &h->out_room, h->out_end + 1)
					 ? a->config.crypto.handshake_output(
						   a->config.crypto.ctx, h->out + h->out_end,
						   h->out_room - h->out_end)
					 : 0;

		if (n == 0)
			break;
		h->out_end += n;
		any = true;
	}
	if (!any)
		return;
	h->send_paths = first_choice(a);
	h->n_retries = 0;
	h->retry_us = a->now_us + RETRY_FIRST_US; /* sending it sets a better one */
}

static int feed_tls(struct ptcp_assoc *a, const uint8_t *data, size_t n_bytes)
{
	struct handshake *const h = &a->handshake;
	const struct ptcp_crypto *const c = &a->config.crypto;
	const int r = c->handshake_input(c->ctx, data, n_bytes);

	/* An alert for the peer may wait there too. */
	pull_output(a);
	if (r < 0) {
		assoc_fail(a, PTCP_CLOSE_HANDSHAKE_FAILED);
		return r;
	}
	if (!h->done && c->handshake_done(c->ctx)) {
		h->done = true;
		h->done_owed = a->config.role == PTCP_SERVER;
		if (a->config.role == PTCP_SERVER)
			h->confirmed = true;
		assoc_verified(a);
		if (h->confirmed)
			retire(a);
	}
	return 0;
}

/* Marks [low, high) as received. False: too many holes, the bytes must come again. */
static bool add_range(struct handshake *h, size_t low, size_t high)
{
	unsigned i = 0, j;

	while (i < h->n_in_ranges && h->in_ranges[i].high < low)
		i++;
	for (j = i; j < h->n_in_ranges && h->in_ranges[j].low <= high; j++) {
		low = min_size(low, h->in_ranges[j].low);
		high = (size_t)max_u64(high, h->in_ranges[j].high);
	}
	if (i == j && h->n_in_ranges == HANDSHAKE_HOLES_MAX)
		return false;
	memmove(&h->in_ranges[i + 1], &h->in_ranges[j],
		(h->n_in_ranges - j) * sizeof(h->in_ranges[0]));
	h->n_in_ranges = h->n_in_ranges - (j - i) + 1;
	h->in_ranges[i].low = low;
	h->in_ranges[i].high = high;
	return true;
}

static void on_acked(struct ptcp_assoc *a, size_t acked)
{
	struct handshake *const h = &a->handshake;

	if (acked <= h->out_acked)
		return;
	if (h->flight_end != 0 && acked >= h->flight_end && h->n_retries == 0) {
		PATH_FOREACH (a, p)
			if (p->id == h->path_id)
				rtt_sample(&p->rtt, a->now_us - h->flight_sent_us, 0);
	}
	h->out_acked = acked;
	h->flight_end = 0;
	if (h->out_acked == h->out_end)
		h->retry_us = NEVER_US;
	else if (h->out_acked == h->out_sent)
		h->send_paths = first_choice(a);
}

int handshake_frame(struct ptcp_assoc *a, struct reader *r)
{
	struct handshake *const h = &a->handshake;
	const uint64_t acked = reader_varint(r), offset = reader_varint(r), n = reader_varint(r);
	const uint8_t *data = r->left_bytes >= n ? reader_bytes(r, (size_t)n) : NULL;

	if (!data || acked > h->out_sent || offset > HANDSHAKE_BYTES_MAX ||
	    n > HANDSHAKE_BYTES_MAX - offset)
		return -EBADMSG;
	on_acked(a, (size_t)acked);
	if (n == 0)
		return 0;
	h->ack_owed = true;
	if (offset + n <= h->in_done || !h->in)
		return 0;
	/* Without memory it has to come again. */
	if (!make_room(&h->in, &h->in_room, (size_t)(offset + n)))
		return 0;
	/* What TLS has seen must not change under it; what it has not may come again, the same. */
	if (!add_range(h, (size_t)offset, (size_t)(offset + n)))
		return 0;
	const size_t skip = offset < h->in_done ? h->in_done - (size_t)offset : 0;
	memcpy(h->in + offset + skip, data + skip, (size_t)n - skip);
	if (h->in_ranges[0].low > h->in_done)
		return 0;
	const size_t from = h->in_done;
	h->in_done = h->in_ranges[0].high;
	return feed_tls(a, h->in + from, h->in_done - from);
}

void handshake_path_added(struct ptcp_assoc *a, const struct path *p)
{
	struct handshake *const h = &a->handshake;

	if (!h->confirmed && h->out_acked < h->out_end && a->state <= PTCP_ESTABLISHED)
		h->send_paths |= 1U << p->index;
}

void handshake_confirmed(struct ptcp_assoc *a)
{
	if (!a->handshake.confirmed && a->handshake.done)
		retire(a);
	a->handshake.confirmed = true;
	a->handshake.send_paths = 0;
	a->handshake.ack_owed = false;
	a->handshake.retry_us = NEVER_US;
}

void handshake_tick(struct ptcp_assoc *a)
{
	struct handshake *const h = &a->handshake;

	if (a->now_us < h->retry_us)
		return;
	h->retry_us = a->now_us + RETRY_MAX_US; /* as above; and there may be no path just now */
	h->n_retries++;
	h->flight_end = 0;
	h->send_paths = all_paths(a);
}

/* The first flight waits for nobody: the client's, or the early server's. */
static bool must_start(const struct ptcp_assoc *a)
{
	const struct handshake *h = &a->handshake;
	const enum ptcp_role first = a->config.early ? PTCP_SERVER : PTCP_CLIENT;

	return a->config.role == first && a->state == PTCP_HANDSHAKING && h->out_end == 0 &&
	       !h->done && all_paths(a) != 0;
}

uint64_t handshake_deadline_us(const struct ptcp_assoc *a)
{
	return must_start(a) ? a->now_us : a->handshake.retry_us;
}

static void start(struct ptcp_assoc *a)
{
	if (!must_start(a))
		return;
	if (!a->config.early) {
		feed_tls(a, NULL, 0);
		return;
	}
	pull_output(a);
	if (a->handshake.out_end > 0)
		assoc_established_early(a);
}

static uint64_t retry_delay_us(struct ptcp_assoc *a, const struct path *p)
{
	const unsigned shift = a->handshake.n_retries < 4 ? a->handshake.n_retries : 4;
	const uint64_t base_us =
		p->rtt.srtt_us > 0 ? 2 * p->rtt.srtt_us + 20 * US_PER_MS : RETRY_FIRST_US;

	return min_u64(base_us << shift, RETRY_MAX_US);
}

/* One packet of the flight from `offset` on. Returns the bytes of TLS it took. */
static size_t write_packet(struct ptcp_assoc *a, struct writer *w, size_t offset, bool *ret_failed)
{
	struct handshake *const h = &a->handshake;
	const struct ptcp_crypto *const c = &a->config.crypto;
	const uint64_t pn = h->next_pn++;

	packet_write_long(w, a->config.remote_cid, a->config.local_cid, pn);
	const size_t header_bytes = w->used_bytes;
	const size_t n = min_size(h->out_end - offset, writer_left(w) - PTCP_TAG_BYTES - 1 - 3 * 8);

	writer_u8(w, FRAME_HANDSHAKE);
	writer_varint(w, h->in_done);
	writer_varint(w, offset);
	writer_varint(w, n);
	if (n > 0)
		writer_bytes(w, h->out + offset, n);
	/* More follows: segments of a batch are equal. */
	while (offset + n < h->out_end && writer_left(w) > PTCP_TAG_BYTES)
		writer_u8(w, FRAME_PADDING);
	*ret_failed = c->seal(c->ctx, PTCP_EPOCH_HANDSHAKE, 0, pn, w->data, header_bytes,
			      w->data + header_bytes, w->used_bytes - header_bytes) < 0;
	w->used_bytes += PTCP_TAG_BYTES;
	return n;
}

static struct path *next_send_path(struct ptcp_assoc *a)
{
	struct handshake *const h = &a->handshake;

	if (h->ack_owed && h->send_paths == 0)
		h->send_paths = first_choice(a);
	while (h->send_paths != 0) {
		const unsigned i = (unsigned)__builtin_ctz(h->send_paths);

		h->send_paths &= ~(1U << i);
		if (a->paths[i].used)
			return &a->paths[i];
	}
	return NULL;
}

bool handshake_output(struct ptcp_assoc *a, struct ptcp_batch *batch)
{
	struct handshake *const h = &a->handshake;

	start(a);
	if (h->confirmed && !h->ack_owed)
		return false;
	struct path *const p = next_send_path(a);
	if (!p || batch->size_bytes < PTCP_MTU_MIN)
		return false;

	/* All of the flight in one batch: equal packets, the last one shorter. */
	size_t used = 0, offset = h->out_acked;
	bool failed = false;
	do {
		struct writer w = writer_over(batch->data + used, PTCP_MTU_MIN);

		offset += write_packet(a, &w, offset, &failed);
		used += w.used_bytes;
		if (used == w.used_bytes)
			batch->segment_bytes = w.used_bytes;
		if (w.used_bytes < batch->segment_bytes)
			break;
	} while (!failed && offset < h->out_end && used + PTCP_MTU_MIN <= batch->size_bytes);
	if (failed) {
		assoc_closed(a, PTCP_CLOSE_INTERNAL, false, "sealing failed");
		return false;
	}

	h->ack_owed = false;
	if (offset > h->out_sent) {
		h->flight_sent_us = a->now_us;
		h->flight_end = offset;
		h->out_sent = offset;
	}
	/* Not put off by every answer: what the peer repeats must not keep us to a dead path. */
	if (h->out_acked < h->out_end)
		h->retry_us = min_u64(h->retry_us, a->now_us + retry_delay_us(a, p));
	p->bytes_sent += used;
	p->last_sent_us = a->now_us;
	batch->path_id = p->id;
	batch->used_bytes = used;
	batch->ecn = 0;
	batch->dont_fragment = false;
	return true;
}
