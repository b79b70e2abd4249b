/* Message fragments on the wire. */
#include "ptcp/frames.h"

size_t message_header_bytes(uint8_t type)
{
	return (size_t)(1 + 4) + ((type & MESSAGE_ORDERED) ? 3 : 0) +
	       ((type & MESSAGE_FRAGMENT) ? 6 : 0) + ((type & MESSAGE_LENGTH) ? 2 : 0);
}

static void write_u24(struct writer *w, uint32_t v)
{
	writer_u8(w, (uint8_t)(v >> 16));
	writer_u16(w, (uint16_t)v);
}

static uint32_t read_u24(struct reader *r)
{
	const uint32_t high = reader_u8(r);

	return high << 16 | reader_u16(r);
}

void message_write(struct writer *w, uint8_t type, const struct message_frame *f)
{
	writer_u8(w, type);
	writer_u32(w, f->id);
	if (type & MESSAGE_ORDERED) {
		writer_u8(w, f->lane);
		writer_u16(w, f->sequence);
	}
	if (type & MESSAGE_FRAGMENT) {
		write_u24(w, f->offset);
		write_u24(w, f->total);
	}
	if (type & MESSAGE_LENGTH)
		writer_u16(w, (uint16_t)f->data_bytes);
	writer_bytes(w, f->data, f->data_bytes);
}

int message_parse(struct reader *r, uint8_t type, struct message_frame *ret_frame)
{
	struct message_frame f = { .id = reader_u32(r) };

	if (type & MESSAGE_ORDERED) {
		f.lane = reader_u8(r);
		f.sequence = reader_u16(r);
		if (f.lane == 0)
			return -EBADMSG;
	}
	if (type & MESSAGE_FRAGMENT) {
		f.offset = read_u24(r);
		f.total = read_u24(r);
	}
	f.data_bytes = (type & MESSAGE_LENGTH) ? reader_u16(r) : r->left_bytes;
	f.data = reader_bytes(r, f.data_bytes);
	if (r->failed || f.data_bytes == 0)
		return -EBADMSG;
	if (!(type & MESSAGE_FRAGMENT))
		f.total = (uint32_t)f.data_bytes;
	if (f.total > PTCP_MESSAGE_BYTES_MAX || f.data_bytes > f.total ||
	    f.offset > f.total - f.data_bytes)
		return -EBADMSG;
	*ret_frame = f;
	return 0;
}
