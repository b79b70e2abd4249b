/* FQ-CoDel over messages. */
#include "ptcp/queue.h"

#define QUANTUM_BYTES     1514
#define CODEL_INTERVAL_US (100 * US_PER_MS)
#define CODEL_TARGET_US   (5 * US_PER_MS)
#define CODEL_RECENT      16   /* intervals, in which the last rate of drops is remembered */
#define CODEL_MTU_BYTES   1514 /* so little is no standing queue */
#define ROOT_SHIFT        7    /* of the control law's fixed point */

enum { LIST_IDLE, LIST_FRESH, LIST_OLD };

void queue_init(struct queue *q, uint64_t seed)
{
	TAILQ_INIT(&q->fresh);
	TAILQ_INIT(&q->old);
	for (unsigned i = 0; i < QUEUE_BUCKETS; i++)
		q->buckets[i] = (struct queue_bucket){ .head = QUEUE_NONE, .tail = QUEUE_NONE };
	q->n_bytes = 0;
	q->n_messages = 0;
	q->target_us = CODEL_TARGET_US;
	q->interval_us = CODEL_INTERVAL_US;
	q->quantum_bytes = QUANTUM_BYTES;
	q->seed = seed;
}

static struct queue_item *item_of(const struct queue *q, uint32_t slot)
{
	return q->item(q->owner, slot);
}

/* ---- flows ---- */

static void bucket_take(struct queue_bucket *b, uint32_t flow)
{
	b->flow = flow;
	b->taken = true;
	b->dropping = false;
	b->count = b->last_count = 0;
	b->first_above_us = b->drop_next_us = 0;
}

static struct queue_bucket *find_bucket(struct queue *q, uint32_t flow)
{
	const uint64_t hash = (flow ^ q->seed) * UINT64_C(0x9e3779b97f4a7c15);
	struct queue_bucket *const set = &q->buckets[(hash >> 32) % QUEUE_SETS * QUEUE_WAYS];
	struct queue_bucket *oldest = NULL;

	for (struct queue_bucket *b = set; b < set + QUEUE_WAYS; b++) {
		if (b->taken && b->flow == flow)
			return b;
		if (b->list == LIST_IDLE &&
		    (!oldest || !b->taken || (oldest->taken && b->used_us < oldest->used_us)))
			oldest = b;
	}
	if (!oldest) /* all busy: share */
		return &set[(hash >> 56) % QUEUE_WAYS];
	bucket_take(oldest, flow);
	return oldest;
}

/*
 * A flow that was idle is new (RFC 8290, section 4.2). One whose packets are wanted soon goes
 * before the other new ones, and needs not wait for its turn either while it has credit left.
 */
static void enlist(struct queue *q, struct queue_bucket *b, bool urgent)
{
	if (b->list == LIST_OLD && urgent && b->credit > 0)
		TAILQ_REMOVE(&q->old, b, link);
	else if (b->list != LIST_IDLE)
		return;
	else
		b->credit = (int32_t)q->quantum_bytes;
	b->list = LIST_FRESH;
	if (urgent)
		TAILQ_INSERT_HEAD(&q->fresh, b, link);
	else
		TAILQ_INSERT_TAIL(&q->fresh, b, link);
}

unsigned queue_push(struct queue *q, uint32_t slot, uint32_t flow, bool urgent, uint32_t n_bytes,
		    uint64_t now_us)
{
	struct queue_bucket *const b = find_bucket(q, flow);
	const unsigned index = (unsigned)(b - q->buckets);

	*item_of(q, slot) = (struct queue_item){
		.next = QUEUE_NONE,
		.left_bytes = n_bytes,
		.queued_us = now_us,
		.bucket = (uint8_t)index,
	};
	if (b->tail != QUEUE_NONE)
		item_of(q, b->tail)->next = slot;
	else
		b->head = slot;
	b->tail = slot;
	b->n_bytes += n_bytes;
	b->used_us = now_us;
	q->n_bytes += n_bytes;
	q->n_messages++;
	enlist(q, b, urgent);
	return index;
}

/* ---- CoDel (RFC 8289, section 5) ---- */

static uint32_t isqrt(uint32_t v)
{
	uint32_t root = 0;

	for (uint32_t bit = UINT32_C(1) << 15; bit != 0; bit >>= 1)
		if ((uint64_t)(root | bit) * (root | bit) <= v)
			root |= bit;
	return root;
}

static uint64_t control_law_us(const struct queue *q, uint64_t from_us, uint32_t count)
{
	const uint32_t n = count < 1 ? 1 : count > 65535 ? 65535 : count;

	return from_us + (q->interval_us << ROOT_SHIFT) / isqrt(n << 2 * ROOT_SHIFT);
}

/* Has the flow's queue stood above the target for an interval? Judged by the message that leaves.
 */
static bool ok_to_drop(const struct queue *q, struct queue_bucket *b, const struct queue_item *item,
		       uint64_t now_us)
{
	if (now_us - item->queued_us < q->target_us || item->next == QUEUE_NONE ||
	    b->n_bytes <= CODEL_MTU_BYTES) {
		b->first_above_us = 0;
		return false;
	}
	if (b->first_above_us == 0) {
		b->first_above_us = now_us + q->interval_us;
		return false;
	}
	return now_us >= b->first_above_us;
}

/* The RFC's loop over several drops is the owner's, who picks again. */
static bool codel_signals(const struct queue *q, struct queue_bucket *b,
			  const struct queue_item *item, uint64_t now_us)
{
	if (!ok_to_drop(q, b, item, now_us)) {
		b->dropping = false;
		return false;
	}
	if (b->dropping) {
		if (now_us < b->drop_next_us)
			return false;
		b->count++;
		b->drop_next_us = control_law_us(q, b->drop_next_us, b->count);
		return true;
	}
	/* Shortly after the last time: go on with the rate that controlled the queue then. */
	const uint32_t delta = b->count - b->last_count;
	const bool recent = now_us < b->drop_next_us + CODEL_RECENT * q->interval_us;

	b->dropping = true;
	b->count = delta > 1 && recent ? delta : 1;
	b->drop_next_us = control_law_us(q, now_us, b->count);
	b->last_count = b->count;
	return true;
}

/* ---- taking out ---- */

static struct queue_bucket *next_bucket(struct queue *q)
{
	for (;;) {
		struct queue_list *const list = TAILQ_EMPTY(&q->fresh) ? &q->old : &q->fresh;
		struct queue_bucket *const b = TAILQ_FIRST(list);

		if (!b)
			return NULL;
		if (b->head != QUEUE_NONE && b->credit > 0)
			return b;
		TAILQ_REMOVE(list, b, link);
		/* From the new ones through the old ones, so that those get their turn. */
		if (b->head == QUEUE_NONE && (list == &q->old || TAILQ_EMPTY(&q->old))) {
			b->list = LIST_IDLE;
			continue;
		}
		if (b->head != QUEUE_NONE)
			b->credit += (int32_t)q->quantum_bytes;
		b->list = LIST_OLD;
		TAILQ_INSERT_TAIL(&q->old, b, link);
	}
}

uint32_t queue_pick(struct queue *q, uint64_t now_us, enum queue_verdict *ret_verdict)
{
	struct queue_bucket *const b = next_bucket(q);

	*ret_verdict = QUEUE_SEND;
	if (!b)
		return QUEUE_NONE;
	struct queue_item *const item = item_of(q, b->head);
	if (!item->started && !item->signalled && codel_signals(q, b, item, now_us)) {
		item->signalled = true;
		*ret_verdict = QUEUE_SIGNAL;
	}
	return b->head;
}

/* `before` is the slot before it, or QUEUE_NONE for the head. */
static void unlink_item(struct queue *q, struct queue_bucket *b, uint32_t before,
			const struct queue_item *item)
{
	if (before == QUEUE_NONE)
		b->head = item->next;
	else
		item_of(q, before)->next = item->next;
	if (item->next == QUEUE_NONE)
		b->tail = before;
	b->n_bytes -= item->left_bytes;
	q->n_bytes -= item->left_bytes;
	q->n_messages--;
	if (b->head == QUEUE_NONE) {
		b->first_above_us = 0;
		b->dropping = false;
	}
}

static struct queue_bucket *bucket_of_head(struct queue *q, uint32_t slot)
{
	struct queue_bucket *const b = &q->buckets[item_of(q, slot)->bucket];

	assert(b->head == slot);
	return b;
}

static void shrink(struct queue *q, struct queue_bucket *b, struct queue_item *item,
		   uint32_t n_bytes)
{
	assert(n_bytes <= item->left_bytes);
	item->left_bytes -= n_bytes;
	b->n_bytes -= n_bytes;
	q->n_bytes -= n_bytes;
}

void queue_sent(struct queue *q, uint32_t slot, uint32_t n_bytes, uint32_t cost_bytes)
{
	struct queue_bucket *const b = bucket_of_head(q, slot);
	struct queue_item *const item = item_of(q, slot);

	item->started = true;
	b->credit -= (int32_t)cost_bytes;
	shrink(q, b, item, n_bytes);
	if (item->left_bytes == 0)
		unlink_item(q, b, QUEUE_NONE, item);
}

void queue_shorten(struct queue *q, uint32_t slot, uint32_t n_bytes)
{
	struct queue_item *const item = item_of(q, slot);

	assert(!item->started && n_bytes < item->left_bytes);
	shrink(q, bucket_of_head(q, slot), item, n_bytes);
}

void queue_remove_head(struct queue *q, uint32_t slot)
{
	unlink_item(q, bucket_of_head(q, slot), QUEUE_NONE, item_of(q, slot));
}

/* The first of a bucket of which nothing was sent; QUEUE_NONE if there is none. */
static uint32_t first_whole(const struct queue *q, const struct queue_bucket *b,
			    uint32_t *ret_before)
{
	*ret_before = QUEUE_NONE;
	if (b->head == QUEUE_NONE || !item_of(q, b->head)->started)
		return b->head;
	*ret_before = b->head;
	return item_of(q, b->head)->next;
}

uint32_t queue_drop_fattest(struct queue *q)
{
	struct queue_bucket *fattest = NULL;
	uint32_t before;

	for (struct queue_bucket *b = q->buckets; b < q->buckets + QUEUE_BUCKETS; b++)
		if (b->n_bytes > (fattest ? fattest->n_bytes : 0) &&
		    first_whole(q, b, &before) != QUEUE_NONE)
			fattest = b;
	if (!fattest)
		return QUEUE_NONE;
	const uint32_t slot = first_whole(q, fattest, &before);
	unlink_item(q, fattest, before, item_of(q, slot));
	return slot;
}
