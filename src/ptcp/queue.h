/*
 * queue - which message goes next: fair among flows, short flows first, and
 * with a bound on how long a standing queue may be.
 *
 * FQ-CoDel (RFC 8290) over messages, with the round robin counted in the bytes
 * of fragments: a 64 KiB message on a slow path shares it with others packet by
 * packet. Urgent messages pass all. Messages are named by their slot; the links
 * live in struct queue_item, embedded in the owner's message.
 */
#ifndef PTCP_QUEUE_H
#define PTCP_QUEUE_H

#include "base/base.h"

#define QUEUE_BUCKETS 64
#define QUEUE_NONE    UINT32_MAX

struct queue_item {
	uint32_t next; /* slot behind in its bucket */
	uint32_t left_bytes;
	uint64_t queued_us;
	uint8_t bucket;
	bool started; /* part of it was sent: it cannot be dropped any more */
};

struct queue_bucket {
	uint32_t head, tail; /* slots */
	size_t n_bytes;
	int64_t credit;
	TAILQ_ENTRY(queue_bucket) link;
	enum { QUEUE_IDLE, QUEUE_NEW, QUEUE_OLD } list;
	/* CoDel (RFC 8289) */
	uint64_t above_since_us, drop_next_us; /* 0: not */
	uint32_t n_drops;
	bool dropping;
};

TAILQ_HEAD(queue_list, queue_bucket);

struct queue {
	struct queue_bucket buckets[QUEUE_BUCKETS + 1]; /* the last one: urgent */
	struct queue_list fresh, old;
	size_t n_bytes; /* not sent yet */
	uint32_t n_messages;
	uint64_t target_us; /* CoDel's; the owner raises it on slow paths */
	uint64_t seed;
	/* The owner's items by slot. */
	struct queue_item *(*item)(void *owner, uint32_t slot);
	void *owner;
};

void queue_init(struct queue *q, uint64_t seed);
void queue_push(struct queue *q, uint32_t slot, uint32_t flow, bool urgent, uint32_t n_bytes,
		uint64_t now_us);
/*
 * The message to take the next fragment from. QUEUE_NONE: empty. *ret_drop: drop this one
 * instead, by queue_remove_head(): it is not started and the queue stands too long.
 */
uint32_t queue_pick(struct queue *q, uint64_t now_us, bool *ret_drop);
/* n_bytes of the message picked were sent; with its last byte it leaves the queue. */
void queue_sent(struct queue *q, uint32_t slot, uint32_t n_bytes);
/* Takes out the message picked. */
void queue_remove_head(struct queue *q, uint32_t slot);

#endif
