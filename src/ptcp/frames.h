/*
 * frames - the frame types of the association (doc/ptcp.md, section 4), and the
 * layout of message fragments. Integers are big-endian; "varint" is that of
 * RFC 9000, section 16. Types 0x20 to 0x2f belong to pseudo-connections.
 */
#ifndef PTCP_FRAMES_H
#define PTCP_FRAMES_H

#include "base/base.h"
#include "ptcp/ptcp.h"

enum frame_type {
	FRAME_PADDING = 0x00,
	FRAME_PING = 0x01,           /* id u32; 0 wants an acknowledgement only, no PONG */
	FRAME_PONG = 0x02,           /* id u32 */
	FRAME_ACK = 0x03,            /* ack.c */
	FRAME_ACK_ECN = 0x04,        /* ack.c */
	FRAME_HANDSHAKE = 0x05,      /* acked varint, offset varint, length varint, bytes */
	FRAME_HANDSHAKE_DONE = 0x06, /* server to client: my side of the handshake is complete */
	FRAME_PATH_CHALLENGE = 0x07, /* data[8] */
	FRAME_PATH_RESPONSE = 0x08,  /* data[8] */
	FRAME_CLOSE = 0x09,          /* code varint */
	FRAME_ABANDON = 0x0a,        /* message id u32, lane u8, sequence u16 */
	FRAME_PARITY = 0x0b,         /* distance u8, count u8, row u8, row to the end */
	FRAME_REPAIRED = 0x0c,       /* count varint, newest varint, steps down varint */
	FRAME_MESSAGE = 0x10,        /* and the three bits below */
	FRAME_MESSAGE_LAST = 0x17,
	FRAME_CORE_COUNT = 0x20,
};

/* Bits in the type of a MESSAGE frame; fields come in this order, behind the message id u32. */
#define MESSAGE_ORDERED          0x01 /* lane u8, sequence u16 */
#define MESSAGE_FRAGMENT         0x02 /* offset u24, total u24; else the frame holds the whole message */
#define MESSAGE_LENGTH           0x04 /* length u16; else the data reaches to the end of the packet */

#define MESSAGE_HEADER_BYTES_MAX (1 + 4 + 3 + 6 + 2)
#define MESSAGE_LANES            256 /* lane 0 is not used on the wire */

struct message_frame {
	uint32_t id;
	uint32_t offset, total;
	uint16_t sequence;
	uint8_t lane; /* 0: not ordered */
	const uint8_t *data;
	size_t data_bytes;
};

/* Bytes of the header for a frame with these bits in its type. */
size_t message_header_bytes(uint8_t type);
/* Header and data. The caller made sure that both fit. */
void message_write(struct writer *w, uint8_t type, const struct message_frame *f);
/* The reader stands behind the type. 0 or -EBADMSG. The data is borrowed. */
int message_parse(struct reader *r, uint8_t type, struct message_frame *ret_frame);

#endif
