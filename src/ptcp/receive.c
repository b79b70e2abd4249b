/*
 * Messages on their way in (doc/ptcp.md, section 8.2): pieces are put together,
 * duplicates dropped, and within a flow's lane the order is kept, for a while.
 *
 * A slot ("partial") is a message being reassembled, hashed by its id, or one
 * that is whole and held in its lane because an earlier one is missing. An
 * ABANDON fills the gap of its message in the lane with an empty slot.
 * Everything counts against one budget; the oldest incomplete message goes
 * first when that is used up.
 */
#include "ptcp/assoc.h"

#define NONE            UINT32_MAX
#define SLOTS_FIRST     32
#define DELIVERED_FIRST 16
#define HOLD_US         (10 * US_PER_MS)
/*
 * With parity most of what is missing comes a block later, and a TCP in slow start takes a round
 * that is late for the end of the path. Not so where the path has been full for long: there it is
 * worse to be told of a loss that is about to be repaired. See doc/ptcp.md, section 8.2.
 */
#define HOLD_PARITY_US     (25 * US_PER_MS)
#define HOLD_PARITY_RTT_US (60 * US_PER_MS)

int receiver_init(struct ptcp_assoc *a)
{
	struct receiver *const r = &a->receiver;

	pool_init(&r->pool, a->config.receive_memory_bytes, a->config.memory);
	r->free_slot = r->oldest = r->newest = NONE;
	r->order_us = NEVER_US;
	memset(r->buckets, 0xff, sizeof(r->buckets));
	for (unsigned i = 0; i < MESSAGE_LANES; i++)
		r->lanes[i].head = r->lanes[i].tail = NONE;
	return 0;
}

void receiver_fini(struct ptcp_assoc *a)
{
	struct receiver *const r = &a->receiver;

	for (uint32_t i = 0; i < r->n_slots; i++) {
		pool_put(&r->pool, &r->partials[i].buffer);
		pool_put(&r->pool, &r->partials[i].range_buffer);
	}
	for (; r->delivered_head != r->delivered_tail; r->delivered_head++)
		pool_put(&r->pool, &r->delivered[r->delivered_head & (r->n_delivered - 1)].buffer);
	pool_put(&r->pool, &r->borrowed);
	pool_fini(&r->pool);
	free(r->partials);
	free(r->delivered);
}

bool receiver_can_rest(const struct ptcp_assoc *a)
{
	const struct receiver *const r = &a->receiver;

	return (r->n_slots > 0 || r->n_delivered > 0 || r->pool.held_bytes > 0) &&
	       r->pool.used_bytes == 0 && r->n_held == 0 && r->oldest == NONE &&
	       r->delivered_head == r->delivered_tail;
}

void receiver_rest(struct ptcp_assoc *a)
{
	struct receiver *const r = &a->receiver;

	pool_trim(&r->pool);
	free(r->partials);
	free(r->delivered);
	r->partials = NULL;
	r->delivered = NULL;
	r->n_slots = r->n_delivered = 0;
	r->free_slot = NONE;
}

/* ---- ids seen
 * ------------------------------------------------------------------------------------ */

static uint64_t *done_word(struct receiver *r, uint32_t id)
{
	return &r->done[id % DONE_BITS / 64];
}

static bool is_done(struct receiver *r, uint32_t id)
{
	if (!seq32_lt(id, r->next_id))
		return false;
	return r->next_id - id > DONE_BITS || (*done_word(r, id) >> (id % 64) & 1) != 0;
}

/* Ids up to this one have been heard of: make room for them in the window. */
static void note_id(struct receiver *r, uint32_t id)
{
	if (seq32_lt(id, r->next_id))
		return;
	if (id - r->next_id >= DONE_BITS) {
		memset(r->done, 0, sizeof(r->done));
		r->next_id = id + 1;
		return;
	}
	for (; r->next_id != id + 1; r->next_id++)
		*done_word(r, r->next_id) &= ~(UINT64_C(1) << (r->next_id % 64));
}

static void mark_done(struct receiver *r, uint32_t id)
{
	note_id(r, id);
	*done_word(r, id) |= UINT64_C(1) << (id % 64);
}

/* ---- slots
 * ---------------------------------------------------------------------------------------- */

static uint32_t *bucket_of(struct receiver *r, uint32_t id)
{
	return &r->buckets[id % ARRAY_SIZE(r->buckets)];
}

static uint32_t find(struct receiver *r, uint32_t id)
{
	uint32_t slot = *bucket_of(r, id);

	while (slot != NONE && r->partials[slot].id != id)
		slot = r->partials[slot].next;
	return slot;
}

static uint32_t slot_new(struct receiver *r)
{
	if (r->free_slot == NONE) {
		const uint32_t n = r->n_slots == 0 ? SLOTS_FIRST : 2 * r->n_slots;
		struct partial *partials =
			n <= PARTIALS_MAX ? realloc(r->partials, n * sizeof(*partials)) : NULL;

		if (!partials)
			return NONE;
		r->partials = partials;
		for (uint32_t i = n; i-- > r->n_slots;) {
			partials[i] = (struct partial){ .next = r->free_slot };
			r->free_slot = i;
		}
		r->n_slots = n;
	}
	const uint32_t slot = r->free_slot;
	r->free_slot = r->partials[slot].next;
	r->partials[slot] = (struct partial){ .next = NONE, .older = NONE, .newer = NONE };
	return slot;
}

static void slot_free(struct receiver *r, uint32_t slot)
{
	struct partial *const p = &r->partials[slot];

	pool_put(&r->pool, &p->buffer);
	pool_put(&r->pool, &p->range_buffer);
	p->next = r->free_slot;
	r->free_slot = slot;
}

/* Out of the hash and the list by age; the slot itself stays. */
static void unlink_partial(struct receiver *r, uint32_t slot)
{
	struct partial *const p = &r->partials[slot];
	uint32_t *link = bucket_of(r, p->id);

	while (*link != slot)
		link = &r->partials[*link].next;
	*link = p->next;
	if (p->older != NONE)
		r->partials[p->older].newer = p->newer;
	else
		r->oldest = p->newer;
	if (p->newer != NONE)
		r->partials[p->newer].older = p->older;
	else
		r->newest = p->older;
	p->next = p->older = p->newer = NONE;
}

static void evict_oldest(struct ptcp_assoc *a);

/* A buffer, at the expense of the oldest incomplete messages if need be. */
static bool get_buffer(struct ptcp_assoc *a, size_t n_bytes, struct pool_buffer *ret_buffer)
{
	while (!pool_get(&a->receiver.pool, n_bytes, ret_buffer)) {
		if (a->receiver.oldest == NONE)
			return false;
		evict_oldest(a);
	}
	return true;
}

/* ---- delivery
 * --------------------------------------------------------------------------------------- */

static bool grow_delivered(struct receiver *r)
{
	const uint32_t n = r->n_delivered == 0 ? DELIVERED_FIRST : 2 * r->n_delivered;
	struct delivered *delivered = n <= DELIVERED_MAX ? malloc(n * sizeof(*delivered)) : NULL;

	if (!delivered)
		return false;
	for (uint32_t i = r->delivered_head; i != r->delivered_tail; i++)
		delivered[i & (n - 1)] = r->delivered[i & (r->n_delivered - 1)];
	free(r->delivered);
	r->delivered = delivered;
	r->n_delivered = n;
	return true;
}

/* Takes the buffer over. */
static void deliver(struct ptcp_assoc *a, struct pool_buffer *buffer, uint32_t n_bytes)
{
	struct receiver *const r = &a->receiver;

	a->busy_us = a->now_us;
	if (r->delivered_tail - r->delivered_head == r->n_delivered && !grow_delivered(r)) {
		pool_put(&r->pool, buffer);
		a->stats.messages_dropped_memory++;
		return;
	}
	r->delivered[r->delivered_tail++ & (r->n_delivered - 1)] =
		(struct delivered){ .buffer = *buffer, .n_bytes = n_bytes };
	*buffer = (struct pool_buffer){ 0 };
	a->stats.messages_delivered++;
	a->stats.message_bytes_delivered += n_bytes;
}

bool ptcp_message_next(struct ptcp_assoc *a, const uint8_t **ret_data, size_t *ret_bytes)
{
	struct receiver *const r = &a->receiver;

	pool_put(&r->pool, &r->borrowed);
	if (r->delivered_head == r->delivered_tail)
		return false;
	const struct delivered *d = &r->delivered[r->delivered_head++ & (r->n_delivered - 1)];
	r->borrowed = d->buffer;
	*ret_data = d->buffer.data;
	*ret_bytes = d->n_bytes;
	return true;
}

static uint64_t path_hold_us(const struct path *p)
{
	const uint64_t srtt_us = p ? rtt_smoothed_us(&p->rtt) : RTT_FIRST_US;

	return srtt_us + srtt_us / 2 + HOLD_US;
}

/*
 * How long a missing message is waited for. After a change of path the last ones are still coming
 * on the old one, which may be the slower.
 */
static uint64_t hold_us(const struct ptcp_assoc *a)
{
	uint64_t t = path_hold_us(a->active ? a->active : a->heard);

	if (a->active && parity_receiving_short(a) &&
	    rtt_smoothed_us(&a->active->rtt) <= HOLD_PARITY_RTT_US)
		return min_u64(t, HOLD_PARITY_US);

	for (const struct path *p = a->paths; p < a->paths + PTCP_PATHS_MAX; p++)
		if (p->used && p->state == PTCP_PATH_UP &&
		    p->last_received_us + path_hold_us(p) >= a->now_us)
			t = max_u64(t, path_hold_us(p));
	return t;
}

/* Delivers what is next in the lane, as far as it is there. */
static void flush_lane(struct ptcp_assoc *a, unsigned index)
{
	struct receiver *const r = &a->receiver;
	struct lane *const lane = &r->lanes[index];

	while (lane->head != NONE && r->partials[lane->head].sequence == lane->next_sequence) {
		const uint32_t slot = lane->head;
		struct partial *const p = &r->partials[slot];

		lane->head = p->next;
		lane->next_sequence++;
		r->n_held--;
		if (p->buffer.data)
			deliver(a, &p->buffer, p->total_bytes);
		slot_free(r, slot);
	}
	if (lane->head != NONE)
		return;
	lane->tail = NONE;
	r->held_lanes[index / 64] &= ~(UINT64_C(1) << (index % 64));
}

/* Enters a slot whose message is ahead of its turn. */
static void hold(struct ptcp_assoc *a, uint32_t slot)
{
	struct receiver *const r = &a->receiver;
	struct partial *const p = &r->partials[slot];
	struct lane *const lane = &r->lanes[p->lane];
	uint32_t *link = &lane->head;

	if (lane->tail != NONE && seq16_lt(r->partials[lane->tail].sequence, p->sequence))
		link = &r->partials[lane->tail].next;
	while (*link != NONE && seq16_lt(r->partials[*link].sequence, p->sequence))
		link = &r->partials[*link].next;
	if (*link != NONE && r->partials[*link].sequence == p->sequence) {
		slot_free(r, slot); /* the peer used one number twice */
		return;
	}
	p->next = *link;
	*link = slot;
	if (p->next == NONE)
		lane->tail = slot;
	p->arrived_us = a->now_us;
	r->n_held++;
	r->held_lanes[p->lane / 64] |= UINT64_C(1) << (p->lane % 64);
	r->order_us = min_u64(r->order_us, a->now_us + hold_us(a));
}

/* A whole message in a slot that is in no list. */
static void in_order(struct ptcp_assoc *a, uint32_t slot)
{
	struct receiver *const r = &a->receiver;
	struct partial *const p = &r->partials[slot];
	struct lane *const lane = &r->lanes[p->lane];
	const unsigned index = p->lane;

	if (index != 0 && seq16_lt(lane->next_sequence, p->sequence)) {
		hold(a, slot);
		return;
	}
	const bool is_next = index != 0 && p->sequence == lane->next_sequence;
	if (p->buffer.data)
		deliver(a, &p->buffer, p->total_bytes);
	slot_free(r, slot);
	if (!is_next)
		return;
	lane->next_sequence++;
	flush_lane(a, index);
}

/* What comes of it later is dropped, and its lane does not wait for it. */
static void evict_oldest(struct ptcp_assoc *a)
{
	struct receiver *const r = &a->receiver;
	const uint32_t slot = r->oldest;
	struct partial *const p = &r->partials[slot];

	unlink_partial(r, slot);
	pool_put(&r->pool, &p->buffer);
	pool_put(&r->pool, &p->range_buffer);
	mark_done(r, p->id);
	in_order(a, slot);
	a->stats.messages_dropped_memory++;
}

void receiver_expire(struct ptcp_assoc *a)
{
	struct receiver *const r = &a->receiver;

	while (r->oldest != NONE && a->now_us >= r->partials[r->oldest].arrived_us + PARTIAL_AGE_US)
		evict_oldest(a);
}

/* The lane has waited long enough for what is missing: on to the first that is there. */
static void skip_lane(struct ptcp_assoc *a, unsigned index)
{
	struct receiver *const r = &a->receiver;
	struct lane *const lane = &r->lanes[index];

	a->stats.order_timeouts++;
	lane->next_sequence = r->partials[lane->head].sequence;
	flush_lane(a, index);
}

void receiver_tick(struct ptcp_assoc *a)
{
	struct receiver *const r = &a->receiver;
	const uint64_t held_us = hold_us(a);

	if (a->now_us < r->order_us)
		return;
	r->order_us = NEVER_US;
	for (unsigned i = 0; i < MESSAGE_LANES; i++) {
		if ((r->held_lanes[i / 64] >> (i % 64) & 1) == 0)
			continue;
		const struct lane *const lane = &r->lanes[i];

		while (lane->head != NONE &&
		       a->now_us >= r->partials[lane->head].arrived_us + held_us)
			skip_lane(a, i);
		if (lane->head != NONE)
			r->order_us =
				min_u64(r->order_us, r->partials[lane->head].arrived_us + held_us);
	}
}

uint64_t receiver_deadline_us(const struct ptcp_assoc *a)
{
	return a->receiver.order_us;
}

/* ---- reassembly
 * --------------------------------------------------------------------------------------- */

static struct piece *pieces_of(struct partial *p, uint32_t *ret_max)
{
	if (p->range_buffer.data) {
		*ret_max = PARTIAL_RANGES_MAX;
		return (struct piece *)(void *)p->range_buffer.data;
	}
	*ret_max = ARRAY_SIZE(p->pieces);
	return p->pieces;
}

/* Marks [low, high). False: too many pieces. */
static bool add_piece(struct ptcp_assoc *a, struct partial *p, uint32_t low, uint32_t high)
{
	uint32_t max, i = 0, j;
	struct piece *pieces = pieces_of(p, &max);

	while (i < p->n_pieces && pieces[i].high < low)
		i++;
	for (j = i; j < p->n_pieces && pieces[j].low <= high; j++) {
		low = (uint32_t)min_u64(low, pieces[j].low);
		high = (uint32_t)max_u64(high, pieces[j].high);
	}
	if (i == j && p->n_pieces == max) {
		if (max == PARTIAL_RANGES_MAX ||
		    !pool_get(&a->receiver.pool, PARTIAL_RANGES_MAX * sizeof(struct piece),
			      &p->range_buffer))
			return false;
		memcpy(p->range_buffer.data, p->pieces, sizeof(p->pieces));
		pieces = pieces_of(p, &max);
	}
	memmove(&pieces[i + 1], &pieces[j], (p->n_pieces - j) * sizeof(*pieces));
	p->n_pieces = p->n_pieces - (j - i) + 1;
	pieces[i] = (struct piece){ .low = low, .high = high };
	return true;
}

static bool is_whole(struct partial *p)
{
	uint32_t max;
	const struct piece *pieces = pieces_of(p, &max);

	return p->n_pieces == 1 && pieces[0].low == 0 && pieces[0].high == p->total_bytes;
}

static uint32_t partial_new(struct ptcp_assoc *a, const struct message_frame *f)
{
	struct receiver *const r = &a->receiver;
	struct pool_buffer buffer;

	if (!get_buffer(a, f->total, &buffer))
		return NONE;
	uint32_t slot = slot_new(r);
	while (slot == NONE && r->oldest != NONE) {
		evict_oldest(a);
		slot = slot_new(r);
	}
	if (slot == NONE) {
		pool_put(&r->pool, &buffer);
		return NONE;
	}
	struct partial *const p = &r->partials[slot];
	p->id = f->id;
	p->lane = f->lane;
	p->sequence = f->sequence;
	p->total_bytes = f->total;
	p->buffer = buffer;
	p->arrived_us = a->now_us;
	p->next = *bucket_of(r, f->id);
	*bucket_of(r, f->id) = slot;
	p->older = r->newest;
	if (r->newest != NONE)
		r->partials[r->newest].newer = slot;
	else
		r->oldest = slot;
	r->newest = slot;
	return slot;
}

static int take_piece(struct ptcp_assoc *a, const struct message_frame *f)
{
	struct receiver *const r = &a->receiver;
	uint32_t slot = find(r, f->id);

	if (slot == NONE)
		slot = partial_new(a, f);
	if (slot == NONE) {
		a->stats.messages_dropped_memory++;
		return 0;
	}
	struct partial *const p = &r->partials[slot];
	if (p->total_bytes != f->total || p->lane != f->lane || p->sequence != f->sequence)
		return -EBADMSG;
	if (!add_piece(a, p, f->offset, f->offset + (uint32_t)f->data_bytes)) {
		a->stats.messages_dropped_memory++;
		return 0;
	}
	memcpy(p->buffer.data + f->offset, f->data, f->data_bytes);
	note_id(r, f->id);
	if (!is_whole(p))
		return 0;
	unlink_partial(r, slot);
	mark_done(r, f->id);
	in_order(a, slot);
	return 0;
}

/* The usual case: whole, and nothing to wait for. */
static void take_whole(struct ptcp_assoc *a, const struct message_frame *f)
{
	struct receiver *const r = &a->receiver;
	struct pool_buffer buffer;
	struct lane *const lane = &r->lanes[f->lane];

	if (!get_buffer(a, f->data_bytes, &buffer)) {
		a->stats.messages_dropped_memory++;
		return;
	}
	memcpy(buffer.data, f->data, f->data_bytes);
	mark_done(r, f->id);
	if (f->lane == 0 || seq16_lt(f->sequence, lane->next_sequence)) {
		deliver(a, &buffer, f->total);
	} else if (f->sequence == lane->next_sequence) {
		deliver(a, &buffer, f->total);
		lane->next_sequence++;
		if (lane->head != NONE)
			flush_lane(a, f->lane);
	} else {
		const uint32_t slot = slot_new(r);

		if (slot == NONE) {
			deliver(a, &buffer, f->total); /* out of order is better than lost */
			return;
		}
		struct partial *const p = &r->partials[slot];
		p->lane = f->lane;
		p->sequence = f->sequence;
		p->total_bytes = f->total;
		p->buffer = buffer;
		hold(a, slot);
	}
}

int receiver_message_frame(struct ptcp_assoc *a, uint8_t type, struct reader *reader)
{
	struct receiver *const r = &a->receiver;
	struct message_frame f;
	int e = message_parse(reader, type, &f);

	if (e < 0)
		return e;
	if (is_done(r, f.id)) {
		a->stats.messages_duplicate++;
		return 0;
	}
	/* Pieces may have come before, when the whole did not fit into what was left of a packet.
	 */
	if (f.data_bytes == f.total && find(r, f.id) == NONE) {
		take_whole(a, &f);
		return 0;
	}
	return take_piece(a, &f);
}

int receiver_abandon_frame(struct ptcp_assoc *a, struct reader *reader)
{
	struct receiver *const r = &a->receiver;
	const uint32_t id = reader_u32(reader);
	const uint8_t lane = reader_u8(reader);
	const uint16_t sequence = reader_u16(reader);

	if (reader->failed)
		return -EBADMSG;
	if (is_done(r, id))
		return 0;
	uint32_t slot = find(r, id);
	if (slot != NONE) {
		unlink_partial(r, slot);
		slot_free(r, slot);
	}
	mark_done(r, id);
	a->stats.messages_abandoned_peer++;
	if (lane == 0 || seq16_lt(sequence, r->lanes[lane].next_sequence))
		return 0;
	/* An empty slot in its place lets the lane pass. */
	slot = slot_new(r);
	if (slot == NONE)
		return 0;
	r->partials[slot].lane = lane;
	r->partials[slot].sequence = sequence;
	in_order(a, slot);
	return 0;
}
