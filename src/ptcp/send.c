/*
 * Messages on their way out (doc/ptcp.md, section 8.1).
 *
 *   QUEUED     in the fair queue; parts of it may have been sent already
 *   SENDING    all of it was sent once; lost fragments are sent again
 *   ABANDONED  too old: its bytes are gone, the peer is being told
 *
 * A message has an id from its first fragment on. n_pending counts fragments in
 * flight and fragments in the ring of those to be sent again; at 0, with
 * nothing left in the queue, the peer has all of it. A fragment belongs to one
 * of the two at any time: being lost, or rescued by a probe timeout, moves it to
 * the ring; being sent again moves it to the new packet; a late acknowledgement
 * of the old packet takes it out of the ring.
 */
#include "ptcp/assoc.h"

#define NONE             UINT32_MAX
#define SLOTS_FIRST      64
#define RESENDS_FIRST    32
#define ABANDONS_FIRST   64
#define RESENDS_MAX      (UINT32_C(1) << 20)
#define FRAGMENT_MIN     64 /* smaller pieces are not worth their header */
#define PERSISTENCE_MIN  (100 * US_PER_MS)
#define PERSISTENCE_MAX  US_PER_S
#define MEMORY_RETRY_US  (20 * US_PER_MS)
#define SMALL_BYTES      16384    /* up to here commit copies, so that the lent buffer stays */
#define QUEUE_AGE_US     US_PER_S /* what waited so long before it left is of no use */
#define TARGET_MIN_US    (5 * US_PER_MS) /* RFC 8289, section 4.3 */
#define INTERVAL_MIN_US  (100 * US_PER_MS)
#define TARGET_MAX_US    (100 * US_PER_MS)
#define INTERVAL_MAX_US  US_PER_S
#define QUANTUM_US       100 /* of the path's rate, a flow's share of one round */
#define QUANTUM_MIN      1514
#define QUANTUM_MAX      65536
#define COPY             0 /* instead of a count */
#define COPY_BYTES_MAX   512
#define COPY_DELAY_US    (4 * US_PER_MS) /* what took the first one may be over then */
#define COPY_LATE_US     (20 * US_PER_MS)
#define COPY_LOSS_PPM    2000  /* below, a copy is not worth it */
#define COPY_RATE        65536 /* bytes per second of all copies */
#define COPY_BURST_BYTES 8192
#define COPY_LOSSES      3  /* by chance, with fewer */
#define FRAME_COST       16 /* of a fragment, beside its bytes: for a fair share of the path */

static struct queue_item *item_of(void *owner, uint32_t slot)
{
	return &((struct sender *)owner)->messages[slot].item;
}

int sender_init(struct ptcp_assoc *a)
{
	struct sender *const s = &a->sender;

	pool_init(&s->pool, a->config.send_memory_bytes, a->config.memory);
	queue_init(&s->queue, assoc_random(a));
	s->queue.item = item_of;
	s->queue.owner = s;
	s->free_slot = s->oldest = s->newest = NONE;
	return 0;
}

void sender_fini(struct ptcp_assoc *a)
{
	struct sender *const s = &a->sender;

	for (uint32_t i = 0; i < s->n_slots; i++)
		pool_put(&s->pool, &s->messages[i].buffer);
	pool_put(&s->pool, &s->lent);
	pool_fini(&s->pool);
	free(s->messages);
	free(s->abandons);
	free(s->resends);
}

bool sender_can_rest(const struct ptcp_assoc *a)
{
	const struct sender *const s = &a->sender;

	return s->n_slots > 0 && s->n_used == 0 && !s->is_lent &&
	       s->resend_head == s->resend_tail && s->abandon_head == s->abandon_tail;
}

/* Records of packets in flight name slots, so none may be in flight. */
void sender_rest(struct ptcp_assoc *a)
{
	struct sender *const s = &a->sender;

	pool_put(&s->pool, &s->lent);
	pool_trim(&s->pool);
	free(s->messages);
	free(s->abandons);
	free(s->resends);
	s->messages = NULL;
	s->abandons = NULL;
	s->resends = NULL;
	s->n_slots = s->n_abandons = s->n_resends = 0;
	s->free_slot = NONE;
}

size_t sender_pending_bytes(const struct sender *s)
{
	return s->queue.n_bytes + s->resend_bytes;
}

/* ---- slots -------------------------------------------------------------------------------------
 */

static bool grow_slots(struct sender *s)
{
	const uint32_t n = s->n_slots == 0 ? SLOTS_FIRST : 2 * s->n_slots;
	struct message *messages;

	if (n > MESSAGES_MAX)
		return false;
	messages = realloc(s->messages, n * sizeof(*messages));
	if (!messages)
		return false;
	s->messages = messages;
	for (uint32_t i = n; i-- > s->n_slots;) {
		messages[i] = (struct message){ .next = s->free_slot };
		s->free_slot = i;
	}
	s->n_slots = n;
	return true;
}

static struct message *message_at(struct sender *s, uint32_t slot, uint32_t generation)
{
	struct message *const m = &s->messages[slot];

	return m->generation == generation && m->state != MESSAGE_FREE ? m : NULL;
}

static void unlink_id(struct sender *s, struct message *m)
{
	if (!m->has_id)
		return;
	m->has_id = false;
	if (m->previous != NONE)
		s->messages[m->previous].next = m->next;
	else
		s->oldest = m->next;
	if (m->next != NONE)
		s->messages[m->next].previous = m->previous;
	else
		s->newest = m->previous;
}

static void release(struct ptcp_assoc *a, uint32_t slot)
{
	struct sender *const s = &a->sender;
	struct message *const m = &s->messages[slot];

	unlink_id(s, m);
	pool_put(&s->pool, &m->buffer);
	m->state = MESSAGE_FREE;
	m->generation++;
	m->next = s->free_slot;
	s->free_slot = slot;
	s->n_used--;
}

static void release_if_complete(struct ptcp_assoc *a, uint32_t slot)
{
	const struct message *m = &a->sender.messages[slot];

	if (m->state == MESSAGE_SENDING && m->n_pending == 0)
		release(a, slot);
}

/* ---- taking messages
 * ------------------------------------------------------------------------------ */

/* For one more message. What is queued gives way to it, so only what is in flight can be in its
 * way. */
static bool has_room(const struct sender *s)
{
	return s->n_used < MESSAGES_MAX && pool_has_room(&s->pool);
}

bool ptcp_message_room(const struct ptcp_assoc *a)
{
	const struct sender *s = &a->sender;

	return a->state == PTCP_ESTABLISHED && has_room(s) &&
	       (s->queue.n_bytes == 0 ||
		s->queue.n_bytes + PTCP_MESSAGE_BYTES_MAX <= a->config.send_queue_bytes);
}

/*
 * The queue is bounded by dropping from the flow that fills it (RFC 8290, section 4.1). Not to read
 * the device instead would only move the queue there, where everybody waits behind everybody.
 */
static void bound_queue(struct ptcp_assoc *a)
{
	struct sender *const s = &a->sender;

	while (s->queue.n_bytes > a->config.send_queue_bytes || !has_room(s)) {
		const uint32_t slot = queue_drop_fattest(&s->queue);

		if (slot == QUEUE_NONE)
			return;
		release(a, slot);
		a->stats.messages_dropped_queue++;
		a->stats.messages_dropped_full++;
	}
}

static uint64_t persistence_us(const struct ptcp_assoc *a, const struct ptcp_message_info *info)
{
	if (info->persistence_us != 0)
		return info->persistence_us;
	if (a->config.persistence_us != 0)
		return a->config.persistence_us;
	const uint64_t srtt_us = a->active ? rtt_smoothed_us(&a->active->rtt) : RTT_FIRST_US;
	return min_u64(max_u64(4 * srtt_us, PERSISTENCE_MIN), PERSISTENCE_MAX);
}

static_assert(QUEUE_BUCKETS < MESSAGE_LANES, "each flow that has a bucket has a lane");

static void enqueue(struct ptcp_assoc *a, const struct ptcp_message_info *info,
		    struct pool_buffer buffer, size_t n_bytes)
{
	struct sender *const s = &a->sender;
	const uint32_t slot = s->free_slot;
	struct message *const m = &s->messages[slot];

	s->free_slot = m->next;
	s->n_used++;
	*m = (struct message){
		.buffer = buffer,
		.total_bytes = (uint32_t)n_bytes,
		.generation = m->generation,
		.state = MESSAGE_QUEUED,
		.dscp = info->dscp,
		.sends_max = info->resends_max > 0 ? (uint8_t)(info->resends_max + 1) : 0,
		.persistence_us = persistence_us(a, info),
		.previous = NONE,
		.next = NONE,
	};
	const unsigned bucket =
		queue_push(&s->queue, slot, info->flow, info->urgent, (uint32_t)n_bytes, a->now_us);
	/* 0 means "not ordered". */
	m->lane = info->ordered ? (uint8_t)(1 + bucket) : 0;
	a->busy_us = a->now_us;
	a->stats.messages_sent++;
	a->stats.message_bytes_sent += n_bytes;
	bound_queue(a);
}

/* There should be room, but there is no memory: nothing tells when, so ask again after a while. */
static int out_of_memory(struct ptcp_assoc *a)
{
	a->sender.blocked = true;
	a->sender.memory_us = a->now_us + MEMORY_RETRY_US;
	return PTCP_BLOCKED;
}

/* 0 when a message can be taken, with a free slot. */
static int prepare(struct ptcp_assoc *a)
{
	if (a->state != PTCP_ESTABLISHED)
		return -ENOTCONN;
	bound_queue(a);
	if (!has_room(&a->sender)) {
		a->sender.blocked = true;
		return PTCP_BLOCKED;
	}
	if (a->sender.free_slot == NONE && !grow_slots(&a->sender))
		return out_of_memory(a);
	return 0;
}

int ptcp_message_send(struct ptcp_assoc *a, const struct ptcp_message_info *info,
		      const struct ptcp_part *parts, size_t n_parts, uint64_t now_us)
{
	struct pool_buffer buffer;
	size_t n_bytes = 0, used = 0;
	int r = prepare(a);

	assoc_now(a, now_us);
	if (r != 0)
		return r;
	for (size_t i = 0; i < n_parts; i++) {
		if (parts[i].n_bytes > PTCP_MESSAGE_BYTES_MAX - n_bytes)
			return -EMSGSIZE;
		n_bytes += parts[i].n_bytes;
	}
	if (n_bytes == 0)
		return -EMSGSIZE;
	if (!pool_get(&a->sender.pool, n_bytes, &buffer))
		return out_of_memory(a);
	for (size_t i = 0; i < n_parts; i++) {
		if (parts[i].n_bytes > 0)
			memcpy(buffer.data + used, parts[i].data, parts[i].n_bytes);
		used += parts[i].n_bytes;
	}
	enqueue(a, info, buffer, n_bytes);
	return 0;
}

uint8_t *ptcp_message_reserve(struct ptcp_assoc *a)
{
	struct sender *const s = &a->sender;

	if (prepare(a) != 0)
		return NULL;
	if (!s->lent.data && !pool_get(&s->pool, POOL_BYTES_MAX, &s->lent)) {
		out_of_memory(a);
		return NULL;
	}
	s->is_lent = true;
	return s->lent.data;
}

int ptcp_message_commit(struct ptcp_assoc *a, const struct ptcp_message_info *info, size_t n_bytes,
			uint64_t now_us)
{
	struct sender *const s = &a->sender;

	if (!s->lent.data || n_bytes > PTCP_MESSAGE_BYTES_MAX)
		return -EMSGSIZE;
	s->is_lent = false;
	if (n_bytes == 0)
		return 0;
	if (n_bytes <= SMALL_BYTES) {
		const struct ptcp_part part = { s->lent.data, n_bytes };

		return ptcp_message_send(a, info, &part, 1, now_us);
	}
	int r = prepare(a);
	assoc_now(a, now_us);
	if (r != 0)
		return r;
	enqueue(a, info, s->lent, n_bytes);
	s->lent = (struct pool_buffer){ 0 };
	return 0;
}

/* ---- giving up
 * -------------------------------------------------------------------------------------- */

static bool grow_abandons(struct sender *s)
{
	const uint32_t n = s->n_abandons == 0 ? ABANDONS_FIRST : 2 * s->n_abandons;
	struct abandon *abandons = n <= MESSAGES_MAX ? malloc(n * sizeof(*abandons)) : NULL;

	if (!abandons)
		return false;
	for (uint32_t i = s->abandon_head; i != s->abandon_tail; i++)
		abandons[i & (n - 1)] = s->abandons[i & (s->n_abandons - 1)];
	free(s->abandons);
	s->abandons = abandons;
	s->n_abandons = n;
	return true;
}

static void queue_abandon(struct ptcp_assoc *a, uint32_t slot)
{
	struct sender *const s = &a->sender;

	/* Without room the peer is not told, and finds out by its own clock. */
	if (s->abandon_tail - s->abandon_head == s->n_abandons && !grow_abandons(s))
		release(a, slot);
	else
		s->abandons[s->abandon_tail++ & (s->n_abandons - 1)] =
			(struct abandon){ slot, s->messages[slot].generation };
}

static void abandon(struct ptcp_assoc *a, uint32_t slot)
{
	struct sender *const s = &a->sender;
	struct message *const m = &s->messages[slot];

	if (m->state == MESSAGE_QUEUED)
		queue_remove_head(&s->queue, slot);
	m->state = MESSAGE_ABANDONED;
	unlink_id(s, m);
	pool_put(&s->pool, &m->buffer);
	a->stats.messages_abandoned++;
	queue_abandon(a, slot);
}

/* The peer will not get all of it. It need not be told if it never heard of it. */
static void give_up(struct ptcp_assoc *a, uint32_t slot)
{
	const struct message *const m = &a->sender.messages[slot];

	if (m->lane != 0 || m->in_pieces) {
		abandon(a, slot);
		return;
	}
	release(a, slot);
	a->stats.messages_abandoned++;
}

void sender_write_abandons(struct ptcp_assoc *a, struct build *b)
{
	struct sender *const s = &a->sender;

	while (s->abandon_head != s->abandon_tail && writer_left(&b->w) >= 8 && !build_full(b)) {
		const struct abandon e = s->abandons[s->abandon_head++ & (s->n_abandons - 1)];
		const struct message *const m = message_at(s, e.slot, e.generation);

		/* Its first ABANDON arrived after all; the slot may be another message's now. */
		if (!m || m->state != MESSAGE_ABANDONED)
			continue;
		writer_u8(&b->w, FRAME_ABANDON);
		writer_u32(&b->w, m->id);
		writer_u8(&b->w, m->lane);
		writer_u16(&b->w, m->sequence);
		build_record(b, &(struct sent_record){
					.kind = SENT_ABANDON,
					.abandon = { .slot = e.slot, .generation = e.generation },
				});
	}
}

void sender_abandon_acked(struct ptcp_assoc *a, const struct sent_record *r)
{
	struct message *const m = message_at(&a->sender, r->abandon.slot, r->abandon.generation);

	if (m && m->state == MESSAGE_ABANDONED)
		release(a, r->abandon.slot);
}

void sender_abandon_lost(struct ptcp_assoc *a, const struct sent_record *r)
{
	struct sender *const s = &a->sender;

	const struct message *const m = message_at(s, r->abandon.slot, r->abandon.generation);

	if (m && m->state == MESSAGE_ABANDONED)
		queue_abandon(a, r->abandon.slot);
}

/* ---- fragments
 * ---------------------------------------------------------------------------------------- */

static bool grow_resends(struct sender *s)
{
	const uint32_t n = s->n_resends == 0 ? RESENDS_FIRST : 2 * s->n_resends;
	struct resend *resends = n <= RESENDS_MAX ? malloc(n * sizeof(*resends)) : NULL;

	if (!resends)
		return false;
	for (uint32_t i = s->resend_head; i != s->resend_tail; i++)
		resends[i & (n - 1)] = s->resends[i & (s->n_resends - 1)];
	free(s->resends);
	s->resends = resends;
	s->n_resends = n;
	return true;
}

static uint64_t clamp_u64(uint64_t v, uint64_t low, uint64_t high)
{
	return min_u64(max_u64(v, low), high);
}

static bool expired(const struct ptcp_assoc *a, const struct message *m)
{
	return a->now_us > m->expires_us && a->now_us > a->sender.grace_us;
}

/*
 * The packet with this fragment was lost, or has only been unanswered for long (`rescue`): then it
 * may still arrive, so that nothing is given up for it.
 */
void sender_fragment_lost(struct ptcp_assoc *a, struct sent_record *r, bool rescue)
{
	struct sender *const s = &a->sender;
	struct message *const m = message_at(s, r->fragment.slot, r->fragment.generation);

	if (!m || m->state == MESSAGE_ABANDONED || r->requeued)
		return;
	const bool no_more = m->sends_max > 0 && r->n_sends >= m->sends_max;
	if (rescue && (no_more || expired(a, m)))
		return;
	if (no_more || (s->resend_tail - s->resend_head == s->n_resends && !grow_resends(s))) {
		give_up(a, r->fragment.slot);
		return;
	}
	r->requeued = true;
	r->fragment.resend = s->resend_tail;
	s->resends[s->resend_tail++ & (s->n_resends - 1)] = (struct resend){
		.slot = r->fragment.slot,
		.generation = r->fragment.generation,
		.offset = r->fragment.offset,
		.length = r->fragment.length,
		.n_sends = r->n_sends,
		.rescued = rescue,
	};
	s->resend_bytes += r->fragment.length;
}

void sender_fragment_acked(struct ptcp_assoc *a, struct sent_record *r)
{
	struct sender *const s = &a->sender;
	struct message *const m = message_at(s, r->fragment.slot, r->fragment.generation);

	if (!m || m->state == MESSAGE_ABANDONED)
		return;
	if (r->requeued) {
		const uint32_t number = r->fragment.resend;

		if (number - s->resend_head >= s->resend_tail - s->resend_head)
			return; /* as below */
		struct resend *const e = &s->resends[number & (s->n_resends - 1)];
		if (e->cancelled || e->slot != r->fragment.slot ||
		    e->generation != r->fragment.generation)
			return; /* it has been sent again: that packet answers for it now */
		e->cancelled = true;
		s->resend_bytes -= e->length;
	}
	m->n_pending--;
	release_if_complete(a, r->fragment.slot);
}

/*
 * Writes as much of m from `offset` on, at most n_bytes, as the packet holds. Returns how much;
 * 0: the packet is full. n_sends counts this one too, or is COPY.
 */
static uint32_t write_fragment(struct ptcp_assoc *a, struct build *b, uint32_t slot,
			       uint32_t offset, uint32_t n_bytes, uint8_t n_sends)
{
	struct message *const m = &a->sender.messages[slot];
	const size_t left = writer_left(&b->w);
	uint8_t type = m->lane != 0 ? FRAME_MESSAGE | MESSAGE_ORDERED : FRAME_MESSAGE;
	struct message_frame f = {
		.id = m->id,
		.lane = m->lane,
		.sequence = m->sequence,
		.offset = offset,
		.total = m->total_bytes,
		.data = m->buffer.data + m->start_bytes + offset,
	};

	if (n_bytes < m->total_bytes || message_header_bytes(type) + n_bytes > left ||
	    (message_header_bytes(type | MESSAGE_LENGTH) + n_bytes > left &&
	     message_header_bytes(type) + n_bytes != left))
		type |= MESSAGE_FRAGMENT;
	const size_t header_bytes = message_header_bytes(type);
	if (left < header_bytes + 1 + 2)
		return 0;
	size_t n = min_size(n_bytes, left - header_bytes);
	if (n < left - header_bytes) {
		type |= MESSAGE_LENGTH;
		n = min_size(n, left - header_bytes - 2);
	}
	if (n < n_bytes && n < FRAGMENT_MIN)
		return 0;
	f.data_bytes = n;
	message_write(&b->w, type, &f);
	if (n_sends == COPY)
		return (uint32_t)n;
	build_record(b, &(struct sent_record){
				.kind = SENT_FRAGMENT,
				.n_sends = n_sends,
				.fragment = { .slot = slot,
					      .generation = m->generation,
					      .offset = offset,
					      .length = (uint32_t)n },
			});
	m->in_pieces |= n < m->total_bytes;
	return (uint32_t)n;
}

/* A batch leaves with one DSCP. False: this message is for the next one. */
static bool fits_class(struct build *b, const struct message *m)
{
	if (b->has_dscp && b->dscp != m->dscp) {
		b->ended = true;
		return false;
	}
	b->has_dscp = true;
	b->dscp = m->dscp;
	return true;
}

/* ---- copies
 * ------------------------------------------------------------------------------------ */

/* Copies are for a few voices, not for whoever sends small packets by the thousand. */
static bool take_tokens(struct sender *s, uint64_t n_bytes, uint64_t now_us)
{
	const uint64_t passed_us = min_u64(now_us - s->copy_us, US_PER_S);

	s->copy_tokens =
		min_u64(s->copy_tokens + passed_us * COPY_RATE / US_PER_S, COPY_BURST_BYTES);
	s->copy_us = now_us;
	if (s->copy_tokens < n_bytes)
		return false;
	s->copy_tokens -= n_bytes;
	return true;
}

/* A message has just left for the first time. */
static void plan_copy(struct ptcp_assoc *a, const struct path *p, uint32_t slot)
{
	struct sender *const s = &a->sender;
	const struct message *const m = &s->messages[slot];

	if (m->sends_max == 0 || m->in_pieces || m->total_bytes > COPY_BYTES_MAX)
		return;
	if (p->parity.n_lost < COPY_LOSSES || parity_loss_ppm(p) < COPY_LOSS_PPM ||
	    s->copy_tail - s->copy_head == COPIES_MAX ||
	    !take_tokens(s, m->total_bytes + FRAME_COST, a->now_us))
		return;
	s->copies[s->copy_tail++ % COPIES_MAX] = (struct copy){
		.slot = slot,
		.generation = m->generation,
		.due_us = a->now_us + COPY_DELAY_US,
	};
}

uint64_t sender_copy_due_us(const struct ptcp_assoc *a)
{
	const struct sender *const s = &a->sender;

	return s->copy_head == s->copy_tail ? NEVER_US
					    : s->copies[s->copy_head % COPIES_MAX].due_us;
}

/* Nobody waits for a copy's acknowledgement: the first one answers for the message. */
static void write_copies(struct ptcp_assoc *a, struct build *b)
{
	struct sender *const s = &a->sender;

	while (sender_copy_due_us(a) <= a->now_us) {
		const struct copy e = s->copies[s->copy_head % COPIES_MAX];
		const struct message *const m = message_at(s, e.slot, e.generation);

		if (m && m->state == MESSAGE_SENDING && a->now_us < e.due_us + COPY_LATE_US) {
			if (writer_left(&b->w) < MESSAGE_HEADER_BYTES_MAX + m->total_bytes ||
			    !fits_class(b, m))
				return;
			write_fragment(a, b, e.slot, 0, m->total_bytes, COPY);
			b->eliciting = true;
			a->stats.messages_copied++;
		}
		s->copy_head++;
	}
}

/* False: the packet is full. */
static bool write_resends(struct ptcp_assoc *a, struct build *b)
{
	struct sender *const s = &a->sender;

	while (s->resend_head != s->resend_tail) {
		struct resend *const e = &s->resends[s->resend_head & (s->n_resends - 1)];
		struct message *const m = message_at(s, e->slot, e->generation);

		/* What was rescued in time is sent: the first one may be on its way still. */
		if (e->cancelled || !m || m->state == MESSAGE_ABANDONED ||
		    (expired(a, m) && !e->rescued)) {
			if (!e->cancelled)
				s->resend_bytes -= e->length;
			s->resend_head++;
			if (!e->cancelled && m && m->state != MESSAGE_ABANDONED)
				give_up(a, e->slot);
			continue;
		}
		if (build_full(b) || !fits_class(b, m))
			return false;
		const uint32_t n = write_fragment(a, b, e->slot, e->offset, e->length,
						  (uint8_t)min_u64(e->n_sends + 1u, 255));
		if (n == 0)
			return false;
		e->offset += n;
		e->length -= n;
		s->resend_bytes -= n;
		a->stats.fragments_resent++;
		a->stats.bytes_resent += n;
		if (e->length == 0)
			s->resend_head++;
		else
			m->n_pending++;
	}
	return true;
}

/*
 * The first fragment of a message is about to leave. The receiver remembers a window of ids, so
 * one that is stuck far behind is given up rather than waited for.
 */
static void assign_id(struct ptcp_assoc *a, uint32_t slot)
{
	struct sender *const s = &a->sender;
	struct message *const m = &s->messages[slot];

	while (s->oldest != NONE && s->next_id - s->messages[s->oldest].id >= MESSAGE_ID_SPAN)
		abandon(a, s->oldest);
	m->has_id = true;
	m->id = s->next_id++;
	m->sequence = m->lane != 0 ? s->lane_sequence[m->lane]++ : 0;
	m->expires_us = add_sat_u64(a->now_us, m->persistence_us);
	m->previous = s->newest;
	m->next = NONE;
	if (s->newest != NONE)
		s->messages[s->newest].next = slot;
	else
		s->oldest = slot;
	s->newest = slot;
}

static void drop_queued(struct ptcp_assoc *a, uint32_t slot)
{
	queue_remove_head(&a->sender.queue, slot);
	release(a, slot);
	a->stats.messages_dropped_queue++;
}

/* CoDel wants its sender to slow down. True: it is sent nevertheless, marked or without a part. */
static bool signal_congestion(struct ptcp_assoc *a, uint32_t slot)
{
	struct sender *const s = &a->sender;
	struct message *const m = &s->messages[slot];
	size_t cut_bytes = 0;
	const enum ptcp_signal how =
		a->config.signal ? a->config.signal(a->config.signal_user, m->buffer.data,
						    m->total_bytes, &cut_bytes)
				 : PTCP_SIGNAL_DROP;

	switch (how) {
	case PTCP_SIGNAL_MARKED:
		a->stats.messages_marked++;
		return true;
	case PTCP_SIGNAL_SHORTENED:
		queue_shorten(&s->queue, slot, (uint32_t)cut_bytes);
		m->start_bytes = (uint32_t)cut_bytes;
		m->total_bytes -= (uint32_t)cut_bytes;
		a->stats.messages_shortened++;
		return true;
	case PTCP_SIGNAL_DROP:
		break;
	}
	drop_queued(a, slot);
	return false;
}

/* Of a message that is about to leave: is it too old, or is CoDel against it? */
static bool may_start(struct ptcp_assoc *a, uint32_t slot, enum queue_verdict verdict)
{
	const struct message *const m = &a->sender.messages[slot];
	const uint64_t age_max_us =
		m->sends_max > 0 ? m->persistence_us : max_u64(m->persistence_us, QUEUE_AGE_US);

	if (a->now_us - m->item.queued_us > age_max_us) {
		drop_queued(a, slot);
		return false;
	}
	return verdict == QUEUE_SEND || signal_congestion(a, slot);
}

static void write_new(struct ptcp_assoc *a, struct build *b)
{
	struct sender *const s = &a->sender;

	while (!build_full(b) && writer_left(&b->w) > MESSAGE_HEADER_BYTES_MAX) {
		enum queue_verdict verdict;
		const uint32_t slot = queue_pick(&s->queue, a->now_us, &verdict);

		if (slot == QUEUE_NONE)
			return;
		struct message *const m = &s->messages[slot];
		const bool started = m->item.started;
		if (!started && !may_start(a, slot, verdict))
			continue;
		if (started && expired(a, m)) {
			abandon(a, slot);
			continue;
		}
		if (!started && writer_left(&b->w) < MESSAGE_HEADER_BYTES_MAX + FRAGMENT_MIN &&
		    writer_left(&b->w) < MESSAGE_HEADER_BYTES_MAX + m->total_bytes)
			return;
		if (!fits_class(b, m))
			return;
		if (!started)
			assign_id(a, slot);
		const uint32_t n = write_fragment(a, b, slot, m->sent_bytes,
						  m->total_bytes - m->sent_bytes, 1);
		if (n == 0)
			return;
		queue_sent(&s->queue, slot, n, n + FRAME_COST);
		if (m->lane != 0)
			parity_note_ordered(a, n);
		m->sent_bytes += n;
		m->n_pending++;
		if (m->sent_bytes == m->total_bytes) {
			m->state = MESSAGE_SENDING;
			plan_copy(a, b->path, slot);
		}
	}
}

/*
 * The queue's parameters for this path. CoDel's own 5 ms are for a queue that all share. Here each
 * flow has its own, that the others do not feel, and one TCP that is alone needs up to a round trip
 * of it to keep the path busy after it has cut its window. And what may be called a standing queue
 * depends on how long one message takes by itself.
 */
void sender_fit_queue(struct ptcp_assoc *a, const struct path *p)
{
	struct queue *const q = &a->sender.queue;
	const uint64_t rate = max_u64(p->cc.pacing_rate, 1);

	if (q->n_messages == 0)
		return;
	q->target_us = clamp_u64(p->rtt.min_us, TARGET_MIN_US, TARGET_MAX_US) +
		       min_u64(2 * (q->n_bytes / q->n_messages) * US_PER_S / rate, 100 * US_PER_MS);
	q->interval_us = clamp_u64(2 * p->rtt.min_us, INTERVAL_MIN_US, INTERVAL_MAX_US);
	q->quantum_bytes =
		(uint32_t)clamp_u64(rate / (US_PER_S / QUANTUM_US), QUANTUM_MIN, QUANTUM_MAX);
}

void sender_write(struct ptcp_assoc *a, struct build *b)
{
	write_copies(a, b);
	if (write_resends(a, b))
		write_new(a, b);
}

void sender_check_room(struct ptcp_assoc *a)
{
	struct sender *const s = &a->sender;

	if (a->now_us < s->memory_us)
		return;
	s->memory_us = 0;
	if (s->blocked && has_room(s)) {
		s->blocked = false;
		assoc_event(a, &(struct ptcp_event){ .type = PTCP_EVENT_MESSAGE_ROOM });
	}
}
