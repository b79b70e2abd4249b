/* FQ-CoDel over messages. */
#include "ptcp/queue.h"

#define QUANTUM_BYTES     3000
#define CODEL_INTERVAL_US (100 * US_PER_MS)
#define CODEL_TARGET_US   (5 * US_PER_MS)
#define URGENT            QUEUE_BUCKETS
#define URGENT_BYTES_MAX  65536 /* more than this of urgent messages queue like others */

void queue_init(struct queue *q, uint64_t seed)
{
	TAILQ_INIT(&q->fresh);
	TAILQ_INIT(&q->old);
	for (unsigned i = 0; i < ARRAY_SIZE(q->buckets); i++)
		q->buckets[i] = (struct queue_bucket){ .head = QUEUE_NONE, .tail = QUEUE_NONE };
	q->n_bytes = 0;
	q->n_messages = 0;
	q->target_us = CODEL_TARGET_US;
	q->seed = seed;
}

static struct queue_item *item_of(const struct queue *q, uint32_t slot)
{
	return q->item(q->owner, slot);
}

static unsigned bucket_for(const struct queue *q, uint32_t flow, bool urgent)
{
	uint64_t h = (flow ^ q->seed) * UINT64_C(0x9e3779b97f4a7c15);

	if (urgent && q->buckets[URGENT].n_bytes < URGENT_BYTES_MAX)
		return URGENT;
	return (unsigned)(h >> 58);
}

void queue_push(struct queue *q, uint32_t slot, uint32_t flow, bool urgent, uint32_t n_bytes,
		uint64_t now_us)
{
	const unsigned index = bucket_for(q, flow, urgent);
	struct queue_bucket *const b = &q->buckets[index];

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
	q->n_bytes += n_bytes;
	q->n_messages++;
	if (b->list == QUEUE_IDLE && index != URGENT) {
		b->list = QUEUE_NEW;
		b->credit = QUANTUM_BYTES;
		TAILQ_INSERT_TAIL(&q->fresh, b, link);
	}
}

static uint32_t isqrt(uint32_t v)
{
	uint32_t root = 0;

	for (uint32_t bit = UINT32_C(1) << 15; bit != 0; bit >>= 1)
		if ((uint64_t)(root | bit) * (root | bit) <= v)
			root |= bit;
	return root;
}

/* In 1/16 of the root's unit, for small counts matter. */
static uint64_t control_law_us(uint32_t n_drops)
{
	const uint32_t n = n_drops < 1 ? 1 : n_drops > 65535 ? 65535 : n_drops;

	return CODEL_INTERVAL_US * 16 / isqrt(n * 256);
}

/* RFC 8289, section 5.3, once per message that comes to the head. */
static bool codel_drop(const struct queue *q, struct queue_bucket *b, const struct queue_item *item,
		       uint64_t now_us)
{
	const bool above = now_us - item->queued_us >= q->target_us && item->next != QUEUE_NONE;

	if (!above) {
		b->above_since_us = 0;
		b->dropping = false;
		return false;
	}
	if (b->above_since_us == 0)
		b->above_since_us = now_us;
	if (b->dropping) {
		if (now_us < b->drop_next_us)
			return false;
		b->n_drops++;
		b->drop_next_us += control_law_us(b->n_drops);
		return true;
	}
	if (now_us - b->above_since_us < CODEL_INTERVAL_US)
		return false;
	/* Recently dropping: start near the rate that controlled the queue then. */
	const bool recent =
		b->drop_next_us != 0 && now_us < b->drop_next_us + 8 * CODEL_INTERVAL_US;
	b->dropping = true;
	b->n_drops = recent && b->n_drops > 2 ? b->n_drops - 2 : 1;
	b->drop_next_us = now_us + control_law_us(b->n_drops);
	return true;
}

static struct queue_bucket *next_bucket(struct queue *q)
{
	if (q->buckets[URGENT].head != QUEUE_NONE)
		return &q->buckets[URGENT];
	for (;;) {
		struct queue_list *const list = TAILQ_EMPTY(&q->fresh) ? &q->old : &q->fresh;
		struct queue_bucket *const b = TAILQ_FIRST(list);

		if (!b)
			return NULL;
		if (b->head != QUEUE_NONE && b->credit > 0)
			return b;
		TAILQ_REMOVE(list, b, link);
		if (b->head == QUEUE_NONE && (list == &q->old || TAILQ_EMPTY(&q->old))) {
			b->list = QUEUE_IDLE;
			continue;
		}
		if (b->head != QUEUE_NONE)
			b->credit += QUANTUM_BYTES;
		b->list = QUEUE_OLD;
		TAILQ_INSERT_TAIL(&q->old, b, link);
	}
}

uint32_t queue_pick(struct queue *q, uint64_t now_us, bool *ret_drop)
{
	struct queue_bucket *const b = next_bucket(q);

	*ret_drop = false;
	if (!b)
		return QUEUE_NONE;
	const struct queue_item *const item = item_of(q, b->head);
	if (!item->started && b != &q->buckets[URGENT])
		*ret_drop = codel_drop(q, b, item, now_us);
	return b->head;
}

static void unlink_head(struct queue *q, struct queue_bucket *b, const struct queue_item *item)
{
	b->head = item->next;
	if (b->head == QUEUE_NONE)
		b->tail = QUEUE_NONE;
	q->n_messages--;
}

void queue_sent(struct queue *q, uint32_t slot, uint32_t n_bytes)
{
	struct queue_item *const item = item_of(q, slot);
	struct queue_bucket *const b = &q->buckets[item->bucket];

	assert(b->head == slot && n_bytes <= item->left_bytes);
	item->started = true;
	item->left_bytes -= n_bytes;
	b->credit -= n_bytes;
	b->n_bytes -= n_bytes;
	q->n_bytes -= n_bytes;
	if (item->left_bytes == 0)
		unlink_head(q, b, item);
}

void queue_remove_head(struct queue *q, uint32_t slot)
{
	struct queue_item *const item = item_of(q, slot);
	struct queue_bucket *const b = &q->buckets[item->bucket];

	assert(b->head == slot);
	b->n_bytes -= item->left_bytes;
	q->n_bytes -= item->left_bytes;
	unlink_head(q, b, item);
}
