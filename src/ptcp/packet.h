/*
 * packet - the two packet headers and their packet numbers (doc/ptcp.md, section 3).
 *
 * Short  01KS0000  destination cid[8]                 pn[4]   sealed frames, tag[16]
 * Long   11000010  destination cid[8]  source cid[8]  pn[4]   sealed frames, tag[16]
 *
 * The header is the associated data of the seal. Only the low 32 bits of a
 * packet number travel; the receiver knows the rest.
 */
#ifndef PTCP_PACKET_H
#define PTCP_PACKET_H

#include "base/base.h"
#include "ptcp/ptcp.h"

#define PACKET_SHORT        0x40
#define PACKET_SHORT_PHASE  0x20
#define PACKET_SHORT_SOURCE 0x10
#define PACKET_LONG         0xc2 /* 0xc0 | version 2 */
#define PACKET_SHORT_BYTES  (1 + PTCP_CID_BYTES + 4)
#define PACKET_LONG_BYTES   (1 + 2 * PTCP_CID_BYTES + 4)
#define PACKET_PN_MAX       ((UINT64_C(1) << 62) - 1)

struct packet_header {
	bool is_long;
	bool phase;   /* lowest bit of the key phase; short only */
	bool covered; /* parity will cover it; short only */
	uint8_t destination[PTCP_CID_BYTES];
	uint8_t source[PTCP_CID_BYTES]; /* long only */
	uint32_t pn_low;
	size_t header_bytes;
};

/* 0, or -EBADMSG. At least one byte of sealed data and a tag follow the header. */
int packet_parse(const uint8_t *data, size_t n_bytes, struct packet_header *ret_header);
void packet_write_short(struct writer *w, const uint8_t cid[PTCP_CID_BYTES], bool phase,
			uint64_t pn);
void packet_write_long(struct writer *w, const uint8_t destination[PTCP_CID_BYTES],
		       const uint8_t source[PTCP_CID_BYTES], uint64_t pn);
/* The full number nearest to `expected` that ends in pn_low (RFC 9000, A.3). */
uint64_t packet_expand_pn(uint64_t expected, uint32_t pn_low);

#endif
