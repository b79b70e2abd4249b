#include "ptcp/conn_ring.h"

#define RING_BYTES_MIN 4096u

void conn_ring_fini(struct conn_ring *r)
{
	free(r->data);
	*r = (struct conn_ring){ 0 };
}

size_t conn_ring_size_for(const struct conn_ring *r, size_t span_bytes)
{
	size_t size = r->size_bytes ? r->size_bytes : RING_BYTES_MIN;

	while (size < span_bytes)
		size *= 2;
	return size;
}

int conn_ring_reserve(struct conn_ring *r, uint64_t base, size_t span_bytes)
{
	struct conn_ring grown = { .size_bytes = conn_ring_size_for(r, span_bytes) };

	if (grown.size_bytes == r->size_bytes)
		return 0;
	grown.data = malloc(grown.size_bytes);
	if (!grown.data)
		return -ENOMEM;
	for (size_t done = 0, n; done < r->size_bytes; done += n) {
		const uint8_t *part = conn_ring_peek(r, base + done, r->size_bytes - done, &n);

		conn_ring_put(&grown, base + done, part, n);
	}
	conn_ring_fini(r);
	*r = grown;
	return 0;
}

void conn_ring_put(struct conn_ring *r, uint64_t offset, const void *data, size_t n_bytes)
{
	const size_t at = (size_t)(offset & (r->size_bytes - 1));
	const size_t first = min_size(n_bytes, r->size_bytes - at);

	assert(n_bytes <= r->size_bytes);
	memcpy(r->data + at, data, first);
	memcpy(r->data, (const uint8_t *)data + first, n_bytes - first);
}

void conn_ring_get(const struct conn_ring *r, uint64_t offset, void *out, size_t n_bytes)
{
	const size_t at = (size_t)(offset & (r->size_bytes - 1));
	const size_t first = min_size(n_bytes, r->size_bytes - at);

	assert(n_bytes <= r->size_bytes);
	memcpy(out, r->data + at, first);
	memcpy((uint8_t *)out + first, r->data, n_bytes - first);
}

const uint8_t *conn_ring_peek(const struct conn_ring *r, uint64_t offset, size_t max_bytes,
			      size_t *ret_bytes)
{
	const size_t at = (size_t)(offset & (r->size_bytes - 1));

	*ret_bytes = min_size(max_bytes, r->size_bytes - at);
	return r->data + at;
}
