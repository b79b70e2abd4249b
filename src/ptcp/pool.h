/*
 * pool - buffers of a few sizes with one budget, kept for the next use.
 *
 * In steady state nothing is allocated. The budget counts what is held from
 * the system, used or not; when it is used up, idle buffers of other sizes are
 * given back first. Where pools share a bound, see struct ptcp_memory.
 */
#ifndef PTCP_POOL_H
#define PTCP_POOL_H

#include "base/base.h"

#define POOL_CLASSES   4
#define POOL_BYTES_MAX 65664 /* the largest size; holds PTCP_MESSAGE_BYTES_MAX */

struct pool_idle; /* an idle buffer, linked through its first bytes */

struct ptcp_memory;

struct pool {
	struct pool_idle *idle[POOL_CLASSES];
	uint32_t n_idle[POOL_CLASSES], low_idle[POOL_CLASSES]; /* low: the fewest since the decay */
	size_t budget_bytes, held_bytes, used_bytes;
	struct ptcp_memory *shared; /* NULL: there is no bound but the pool's own */
};

struct pool_buffer {
	uint8_t *data; /* NULL: none */
	uint8_t class;
};

void pool_init(struct pool *p, size_t budget_bytes, struct ptcp_memory *shared);
void pool_fini(struct pool *p); /* all buffers were put back */
/* False without budget or memory. */
bool pool_get(struct pool *p, size_t n_bytes, struct pool_buffer *ret_buffer);
/* Gives it back and clears it; fine if there is none. */
void pool_put(struct pool *p, struct pool_buffer *buffer);
size_t pool_class_bytes(unsigned class);
bool pool_has_room(const struct pool *p); /* for a buffer of the largest size */
void pool_trim(struct pool *p);           /* returns all idle buffers to the system */
/* Returns those that were not needed since it was last called. */
void pool_decay(struct pool *p);

#endif
