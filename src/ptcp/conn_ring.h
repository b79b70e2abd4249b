/*
 * conn_ring - bytes of a stream, addressed by their 64-bit offset.
 *
 * A power-of-two ring: byte o lives at data[o & (size - 1)]. It keeps no
 * offsets itself; the owner knows which are valid, and that they span no more
 * than the size. Grows by doubling, up to what the owner asks for.
 */
#ifndef PTCP_CONN_RING_H
#define PTCP_CONN_RING_H

#include "base/base.h"

struct conn_ring {
	uint8_t *data;
	size_t size_bytes; /* 0 or a power of two */
};

void conn_ring_fini(struct conn_ring *r); /* frees; usable again */

/* The size that conn_ring_reserve() would make it. */
size_t conn_ring_size_for(const struct conn_ring *r, size_t span_bytes);
/* Room for the span [base, base + span_bytes); keeps what is at and above base. 0 or -ENOMEM. */
int conn_ring_reserve(struct conn_ring *r, uint64_t base, size_t span_bytes) WARN_UNUSED;
void conn_ring_put(struct conn_ring *r, uint64_t offset, const void *data, size_t n_bytes);
void conn_ring_get(const struct conn_ring *r, uint64_t offset, void *out, size_t n_bytes);
/* Borrows the bytes from offset up to where the ring wraps, at most max_bytes. */
const uint8_t *conn_ring_peek(const struct conn_ring *r, uint64_t offset, size_t max_bytes,
			      size_t *ret_bytes);

#endif
