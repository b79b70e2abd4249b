/*
 * memory - the bound that the buffers of all associations share (struct
 * ptcp_memory): messages, streams, parity.
 *
 * None takes more than the rest leave free, so one that is alone gets half,
 * each of two a third, and so on (the dynamic threshold of shared packet
 * buffers, Choudhury and Hahne 1998).
 */
#ifndef PTCP_MEMORY_H
#define PTCP_MEMORY_H

#include "base/base.h"

struct ptcp_memory;

/* How much more may be taken by who holds so much. SIZE_MAX where m is NULL: there is no bound. */
size_t memory_room(const struct ptcp_memory *m, size_t own_bytes);
/* Who held so much holds so much now. */
void memory_account(struct ptcp_memory *m, size_t before_bytes, size_t after_bytes);

#endif
