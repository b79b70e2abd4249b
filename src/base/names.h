/*
 * names - what the name service module asks the daemon, and the answers.
 *
 * A Unix stream socket (RUNSTATEDIR/q2q-tun/names), one fixed-size request, one
 * fixed-size reply, any number of times. Integers are big-endian, text is
 * padded with zero bytes. Both ends are here, so that they cannot differ.
 *
 *   request  magic u32 | version u8 | kind u8 | family u8 | 0 u8 | id u32 |
 *            address 16 bytes | name 324 bytes
 *   reply    magic u32 | version u8 | status u8 | 0 u16 | id u32 |
 *            IPv4 address 4 bytes | IPv6 address 16 bytes | name 324 bytes
 */
#ifndef BASE_NAMES_H
#define BASE_NAMES_H

#include "base/base.h"

#define NAMES_SUFFIX        ".q2q"
#define NAMES_TEXT_BYTES    324 /* resource 64, ".", domain 253, ".q2q", NUL, and even */
#define NAMES_REQUEST_BYTES (12 + 16 + NAMES_TEXT_BYTES)
#define NAMES_REPLY_BYTES   (12 + 4 + 16 + NAMES_TEXT_BYTES)

enum names_kind { NAMES_BY_NAME = 1, NAMES_BY_ADDRESS = 2 };

enum names_status {
	NAMES_FOUND,
	NAMES_NOT_FOUND, /* authoritative: nobody of that name or address is known */
	NAMES_TRY_AGAIN, /* the daemon cannot say now */
	NAMES_STATUS_COUNT,
};

struct names_request {
	enum names_kind kind;
	uint32_t id;                 /* comes back in the reply */
	char name[NAMES_TEXT_BYTES]; /* NAMES_BY_NAME: lower case, no dot at the end */
	struct ip_address address;   /* NAMES_BY_ADDRESS */
};

struct names_reply {
	enum names_status status;
	uint32_t id;
	struct ip_address ipv4, ipv6; /* FAMILY_NONE: none */
	char name[NAMES_TEXT_BYTES];  /* "bob.example.org.q2q" */
};

/*
 * The name as it goes on the wire: lower case, without a dot at the end. 0;
 * -EINVAL: not a name under ".q2q" (somebody else's business).
 */
int names_canonical(const char *text, char ret_name[static NAMES_TEXT_BYTES]);

void names_encode_request(const struct names_request *request,
			  uint8_t out[static NAMES_REQUEST_BYTES]);
/* 0, or -EBADMSG: close the connection. */
int names_decode_request(const uint8_t data[static NAMES_REQUEST_BYTES],
			 struct names_request *ret_request);
void names_encode_reply(const struct names_reply *reply, uint8_t out[static NAMES_REPLY_BYTES]);
int names_decode_reply(const uint8_t data[static NAMES_REPLY_BYTES], struct names_reply *ret_reply);

#endif
