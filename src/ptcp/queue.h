/*
 * queue - which message goes next: fair among flows, those with little to say
 * first, and with a bound on how long a standing queue may be.
 *
 * FQ-CoDel (RFC 8290, RFC 8289) over messages, with the round robin counted in
 * the bytes of fragments: a 64 KiB message on a slow path shares it with others
 * packet by packet. Messages are named by their slot; the links live in struct
 * queue_item, embedded in the owner's message.
 *
 * Flows find their bucket as cache lines find theirs: the hash names a set, and
 * a tag the bucket in it. So two flows share one only where more than
 * QUEUE_WAYS flows of one set have something queued at the same time, and a flow
 * keeps its bucket (and CoDel's memory of it) while others do not need it.
 */
#ifndef PTCP_QUEUE_H
#define PTCP_QUEUE_H

#include "base/base.h"

#define QUEUE_WAYS    8
#define QUEUE_SETS    16
#define QUEUE_BUCKETS (QUEUE_SETS * QUEUE_WAYS)
#define QUEUE_NONE    UINT32_MAX

struct queue_item {
	uint32_t next; /* slot behind in its bucket */
	uint32_t left_bytes;
	uint64_t queued_us;
	uint8_t bucket;
	bool started;   /* part of it was sent: it cannot be dropped any more */
	bool signalled; /* CoDel had its say about it */
};

struct queue_bucket {
	uint32_t head, tail; /* slots */
	uint32_t flow;       /* whose it is, if `taken` */
	uint32_t n_bytes;
	int32_t credit;
	uint8_t list; /* enum in queue.c */
	bool taken;
	bool dropping; /* CoDel's state, as RFC 8289 names it */
	uint32_t count, last_count;
	uint64_t first_above_us, drop_next_us; /* first_above_us 0: not above */
	uint64_t used_us;
	TAILQ_ENTRY(queue_bucket) link;
};

TAILQ_HEAD(queue_list, queue_bucket);

struct queue {
	struct queue_bucket buckets[QUEUE_BUCKETS];
	struct queue_list fresh, old;
	size_t n_bytes; /* not sent yet */
	uint32_t n_messages;
	/* CoDel's parameters and the round robin's share; the owner fits them to the path. */
	uint64_t target_us, interval_us;
	uint32_t quantum_bytes;
	uint64_t seed;
	/* The owner's items by slot. */
	struct queue_item *(*item)(void *owner, uint32_t slot);
	void *owner;
};

enum queue_verdict {
	QUEUE_SEND,
	QUEUE_SIGNAL, /* it stood too long: mark it, or drop it; said once per message */
};

void queue_init(struct queue *q, uint64_t seed);
/*
 * Enters a message of n_bytes. urgent: may pass other flows as long as its own has not used up
 * its share. Returns the flow's bucket, below QUEUE_BUCKETS.
 */
unsigned queue_push(struct queue *q, uint32_t slot, uint32_t flow, bool urgent, uint32_t n_bytes,
		    uint64_t now_us);
/* The message to take the next fragment from. QUEUE_NONE: empty. */
uint32_t queue_pick(struct queue *q, uint64_t now_us, enum queue_verdict *ret_verdict);
/*
 * n_bytes of the message picked were sent, in cost_bytes of a packet; with its last byte it
 * leaves the queue.
 */
void queue_sent(struct queue *q, uint32_t slot, uint32_t n_bytes, uint32_t cost_bytes);
/* The message picked, not started, has become shorter; something is left. */
void queue_shorten(struct queue *q, uint32_t slot, uint32_t n_bytes);
/* Takes out the message picked. */
void queue_remove_head(struct queue *q, uint32_t slot);
/*
 * Takes out the first message, of which nothing was sent, of the flow with the most bytes
 * (RFC 8290, section 4.1). QUEUE_NONE: there is none.
 */
uint32_t queue_drop_fattest(struct queue *q);

#endif
