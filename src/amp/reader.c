/*
 * The incremental reader. The box at the front is scanned pair by pair, each
 * byte once, so that a peer that sends byte by byte costs no more than another;
 * only a complete box is parsed.
 */
#include "amp/amp.h"

void amp_reader_init(struct amp_reader *reader, size_t box_max_bytes, size_t buffer_max_bytes)
{
	*reader =
		(struct amp_reader){ .box_max_bytes = min_size(box_max_bytes, AMP_BOX_MAX_BYTES) };
	buffer_init(&reader->buffer, buffer_max_bytes, true);
}

void amp_reader_fini(struct amp_reader *reader)
{
	buffer_fini(&reader->buffer);
	reader->taken_bytes = reader->scanned_bytes = 0;
}

static void consume_taken(struct amp_reader *reader)
{
	buffer_consume(&reader->buffer, reader->taken_bytes);
	reader->taken_bytes = 0;
}

int amp_reader_input(struct amp_reader *reader, const void *data, size_t n_bytes)
{
	consume_taken(reader);
	return buffer_append(&reader->buffer, data, n_bytes);
}

size_t amp_reader_room(const struct amp_reader *reader)
{
	return reader->buffer.max_bytes - buffer_used(&reader->buffer) + reader->taken_bytes;
}

/* One pair on from scanned_bytes. 0 a pair, AMP_END the end of the box, AMP_INCOMPLETE, or a fault
 * that more bytes cannot mend. */
static int scan_pair(struct amp_reader *reader)
{
	struct reader r = reader_over(buffer_peek(&reader->buffer), buffer_used(&reader->buffer));
	uint16_t key_bytes, value_bytes;
	size_t end;

	(void)reader_bytes(&r, reader->scanned_bytes);
	if (r.left_bytes > 0 && r.data[0] != 0)
		return -EBADMSG;
	key_bytes = reader_u16(&r);
	if (r.failed)
		return AMP_INCOMPLETE;
	if (key_bytes == 0)
		return AMP_END;
	(void)reader_bytes(&r, key_bytes);
	value_bytes = reader_u16(&r);
	end = reader->scanned_bytes + 4 + key_bytes + (r.failed ? 0u : value_bytes);
	if (end + 2 > reader->box_max_bytes)
		return -EMSGSIZE;
	(void)reader_bytes(&r, value_bytes);
	if (r.failed)
		return AMP_INCOMPLETE;
	reader->scanned_bytes = end;
	return 0;
}

int amp_reader_next(struct amp_reader *reader, struct amp_box *ret_box)
{
	size_t used;
	int r = reader->fault;

	consume_taken(reader);
	while (r == 0)
		r = scan_pair(reader);
	if (r == AMP_END) {
		r = amp_box_parse(buffer_peek(&reader->buffer), buffer_used(&reader->buffer),
				  ret_box, &used);
		reader->scanned_bytes = 0;
		if (r == 0)
			reader->taken_bytes = used;
	}
	if (r < 0)
		reader->fault = r;
	return r;
}

struct amp_value amp_reader_rest(struct amp_reader *reader)
{
	consume_taken(reader);
	reader->scanned_bytes = 0;
	return amp_value(buffer_peek(&reader->buffer), buffer_used(&reader->buffer));
}

void amp_reader_drop(struct amp_reader *reader)
{
	buffer_consume(&reader->buffer, buffer_used(&reader->buffer));
	reader->taken_bytes = reader->scanned_bytes = 0;
}
