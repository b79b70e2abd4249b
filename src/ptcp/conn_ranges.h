/*
 * conn_ranges - a sorted set of half-open ranges of stream offsets.
 *
 * Ranges never touch each other, so the number of entries is the number of
 * holes plus one. Born with a maximum: a peer that sends every other byte meets
 * -ENOBUFS, not our memory.
 */
#ifndef PTCP_CONN_RANGES_H
#define PTCP_CONN_RANGES_H

#include "base/base.h"

struct conn_range {
	uint64_t start, end; /* [start, end), never empty */
};

struct conn_ranges {
	struct conn_range *items;
	uint32_t n_items, n_room, n_max;
};

void conn_ranges_init(struct conn_ranges *s, uint32_t n_max);
void conn_ranges_fini(struct conn_ranges *s); /* empties it; usable again */

/* Adds [start, end). 0; -ENOMEM or -ENOBUFS, and then nothing has changed. */
int conn_ranges_add(struct conn_ranges *s, uint64_t start, uint64_t end) WARN_UNUSED;
/* Takes [start, end) out; it may split one entry. Errors as above. */
int conn_ranges_remove(struct conn_ranges *s, uint64_t start, uint64_t end);
/* Takes out everything below `offset`; never fails. */
void conn_ranges_trim(struct conn_ranges *s, uint64_t offset);
/* The first part of [start, end) that is not in the set. False when all of it is. */
bool conn_ranges_first_gap(const struct conn_ranges *s, uint64_t start, uint64_t end,
			   struct conn_range *ret_gap);

static inline bool conn_ranges_empty(const struct conn_ranges *s)
{
	return s->n_items == 0;
}

#endif
