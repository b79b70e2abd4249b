/* Packet headers. */
#include "ptcp/packet.h"

bool ptcp_is_packet(const uint8_t *data, size_t n_bytes)
{
	return n_bytes > PACKET_SHORT_BYTES + PTCP_TAG_BYTES && (data[0] & 0x40) != 0;
}

const uint8_t *ptcp_packet_cid(const uint8_t *data)
{
	return data + 1;
}

int packet_parse(const uint8_t *data, size_t n_bytes, struct packet_header *ret_header)
{
	struct reader r = reader_over(data, n_bytes);
	struct packet_header h = { 0 };
	const uint8_t type = reader_u8(&r);

	h.is_long = type == PACKET_LONG;
	h.phase = (type & PACKET_SHORT_PHASE) != 0;
	h.covered = (type & PACKET_SHORT_SOURCE) != 0;
	if (!h.is_long && (type & ~(PACKET_SHORT_PHASE | PACKET_SHORT_SOURCE)) != PACKET_SHORT)
		return -EBADMSG;

	reader_copy(&r, h.destination, sizeof(h.destination));
	if (h.is_long)
		reader_copy(&r, h.source, sizeof(h.source));
	h.pn_low = reader_u32(&r);
	if (r.failed || r.left_bytes <= PTCP_TAG_BYTES)
		return -EBADMSG;
	h.header_bytes = n_bytes - r.left_bytes;
	*ret_header = h;
	return 0;
}

void packet_write_short(struct writer *w, const uint8_t cid[PTCP_CID_BYTES], bool phase,
			uint64_t pn)
{
	writer_u8(w, phase ? PACKET_SHORT | PACKET_SHORT_PHASE : PACKET_SHORT);
	writer_bytes(w, cid, PTCP_CID_BYTES);
	writer_u32(w, (uint32_t)pn);
}

void packet_write_long(struct writer *w, const uint8_t destination[PTCP_CID_BYTES],
		       const uint8_t source[PTCP_CID_BYTES], uint64_t pn)
{
	writer_u8(w, PACKET_LONG);
	writer_bytes(w, destination, PTCP_CID_BYTES);
	writer_bytes(w, source, PTCP_CID_BYTES);
	writer_u32(w, (uint32_t)pn);
}

uint64_t packet_expand_pn(uint64_t expected, uint32_t pn_low)
{
	const uint64_t window = UINT64_C(1) << 32, half = window / 2;
	const uint64_t candidate = (expected & ~(window - 1)) | pn_low;

	if (candidate + half <= expected && candidate <= PACKET_PN_MAX - window)
		return candidate + window;
	if (candidate > expected + half && candidate >= window)
		return candidate - window;
	return candidate;
}
