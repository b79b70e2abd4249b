/* Readers, writers and byte queues: all bounds checks of the wire live here. */
#include "base/base.h"

struct reader reader_over(const void *data, size_t data_bytes)
{
	return (struct reader){ .data = data, .left_bytes = data_bytes };
}

uint64_t reader_varint(struct reader *r)
{
	const uint8_t first = reader_u8(r);
	uint64_t v = first & 0x3f;

	for (size_t more = (size_t)1 << (first >> 6); more > 1 && !r->failed; more--)
		v = v << 8 | reader_u8(r);
	return r->failed ? 0 : v;
}

int reader_finish(const struct reader *r)
{
	return r->failed || r->left_bytes > 0 ? -EBADMSG : 0;
}

struct writer writer_over(void *data, size_t size_bytes)
{
	return (struct writer){ .data = data, .size_bytes = size_bytes };
}

size_t varint_bytes(uint64_t v)
{
	if (v < 1u << 6)
		return 1;
	if (v < 1u << 14)
		return 2;
	return v < 1u << 30 ? 4 : 8;
}

void writer_varint(struct writer *w, uint64_t v)
{
	if (v >= UINT64_C(1) << 62) {
		w->failed = true;
		return;
	}
	switch (varint_bytes(v)) {
	case 1:
		writer_be(w, v, 1);
		return;
	case 2:
		writer_be(w, v | UINT64_C(1) << 14, 2);
		return;
	case 4:
		writer_be(w, v | UINT64_C(2) << 30, 4);
		return;
	default:
		writer_be(w, v | UINT64_C(3) << 62, 8);
		return;
	}
}

void buffer_init(struct buffer *b, size_t max_bytes, bool secret)
{
	*b = (struct buffer){ .max_bytes = max_bytes, .secret = secret };
}

void buffer_fini(struct buffer *b)
{
	if (b->secret)
		secret_wipe(b->data, b->size_bytes);
	free(b->data);
	*b = (struct buffer){ .max_bytes = b->max_bytes, .secret = b->secret };
}

static int buffer_grow(struct buffer *b, size_t need_bytes)
{
	size_t size = b->size_bytes ? b->size_bytes : 256;
	uint8_t *data;

	while (size < need_bytes)
		size *= 2;
	if (size > b->max_bytes)
		size = b->max_bytes;
	data = malloc(size);
	if (!data)
		return -ENOMEM;
	if (buffer_used(b) > 0)
		memcpy(data, b->data + b->start, buffer_used(b));
	if (b->secret)
		secret_wipe(b->data, b->size_bytes);
	free(b->data);
	b->data = data;
	b->end -= b->start;
	b->start = 0;
	b->size_bytes = size;
	return 0;
}

int buffer_reserve(struct buffer *b, size_t n_bytes, uint8_t **ret_room)
{
	const size_t used = buffer_used(b);
	int r;

	if (n_bytes > b->max_bytes - used)
		return -ENOBUFS;
	if (used + n_bytes > b->size_bytes || !b->data) {
		r = buffer_grow(b, used + n_bytes);
		if (r < 0)
			return r;
	} else if (b->end + n_bytes > b->size_bytes) {
		memmove(b->data, b->data + b->start, used);
		if (b->secret)
			secret_wipe(b->data + used, b->end - used);
		b->start = 0;
		b->end = used;
	}
	*ret_room = b->data + b->end;
	return 0;
}

void buffer_commit(struct buffer *b, size_t n_bytes)
{
	assert(n_bytes <= b->size_bytes - b->end);
	b->end += n_bytes;
}

int buffer_append(struct buffer *b, const void *data, size_t n_bytes)
{
	uint8_t *room;
	int r;

	if (n_bytes == 0)
		return 0;
	r = buffer_reserve(b, n_bytes, &room);
	if (r < 0)
		return r;
	memcpy(room, data, n_bytes);
	buffer_commit(b, n_bytes);
	return 0;
}

void buffer_consume(struct buffer *b, size_t n_bytes)
{
	n_bytes = min_size(n_bytes, buffer_used(b));
	if (b->secret && n_bytes > 0)
		secret_wipe(b->data + b->start, n_bytes);
	b->start += n_bytes;
	if (b->start == b->end)
		b->start = b->end = 0;
}
