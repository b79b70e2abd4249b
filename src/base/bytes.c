/* Readers, writers and byte queues: all bounds checks of the wire live here. */
#include "base/base.h"

struct reader reader_over(const void *data, size_t data_bytes)
{
	return (struct reader){ .data = data, .left_bytes = data_bytes };
}

const uint8_t *reader_bytes(struct reader *r, size_t n_bytes)
{
	const uint8_t *at = r->data;

	if (r->failed || n_bytes > r->left_bytes) {
		r->failed = true;
		return NULL;
	}
	if (n_bytes > 0)
		r->data += n_bytes;
	r->left_bytes -= n_bytes;
	return at ? at : (const uint8_t *)"";
}

bool reader_copy(struct reader *r, void *out, size_t n_bytes)
{
	const uint8_t *at = reader_bytes(r, n_bytes);

	if (!at)
		return false;
	if (n_bytes > 0)
		memcpy(out, at, n_bytes);
	return true;
}

static uint64_t reader_be(struct reader *r, size_t n_bytes)
{
	const uint8_t *at = reader_bytes(r, n_bytes);
	uint64_t v = 0;

	for (size_t i = 0; at && i < n_bytes; i++)
		v = v << 8 | at[i];
	return v;
}

uint8_t reader_u8(struct reader *r)
{
	return (uint8_t)reader_be(r, 1);
}

uint16_t reader_u16(struct reader *r)
{
	return (uint16_t)reader_be(r, 2);
}

uint32_t reader_u32(struct reader *r)
{
	return (uint32_t)reader_be(r, 4);
}

uint64_t reader_u64(struct reader *r)
{
	return reader_be(r, 8);
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

void writer_bytes(struct writer *w, const void *data, size_t n_bytes)
{
	if (w->failed || n_bytes > writer_left(w)) {
		w->failed = true;
		return;
	}
	if (n_bytes > 0)
		memcpy(w->data + w->used_bytes, data, n_bytes);
	w->used_bytes += n_bytes;
}

static void writer_be(struct writer *w, uint64_t v, size_t n_bytes)
{
	uint8_t be[8];

	for (size_t i = 0; i < n_bytes; i++)
		be[i] = (uint8_t)(v >> (8 * (n_bytes - 1 - i)));
	writer_bytes(w, be, n_bytes);
}

void writer_u8(struct writer *w, uint8_t v)
{
	writer_be(w, v, 1);
}

void writer_u16(struct writer *w, uint16_t v)
{
	writer_be(w, v, 2);
}

void writer_u32(struct writer *w, uint32_t v)
{
	writer_be(w, v, 4);
}

void writer_u64(struct writer *w, uint64_t v)
{
	writer_be(w, v, 8);
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
