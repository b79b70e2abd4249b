/* message - RFC 8489 messages, read and written. The sections named are that RFC's. */
#include "stun/stun.h"

#define MAGIC_COOKIE    0x2112a442u
#define FINGERPRINT_XOR 0x5354554eu

enum attribute {
	ATTRIBUTE_MAPPED_ADDRESS = 0x0001,
	ATTRIBUTE_USERNAME = 0x0006,
	ATTRIBUTE_MESSAGE_INTEGRITY = 0x0008,
	ATTRIBUTE_ERROR_CODE = 0x0009,
	ATTRIBUTE_UNKNOWN_ATTRIBUTES = 0x000a,
	ATTRIBUTE_REALM = 0x0014,
	ATTRIBUTE_NONCE = 0x0015,
	ATTRIBUTE_MESSAGE_INTEGRITY_SHA256 = 0x001c,
	ATTRIBUTE_PASSWORD_ALGORITHM = 0x001d,
	ATTRIBUTE_USERHASH = 0x001e,
	ATTRIBUTE_XOR_MAPPED_ADDRESS = 0x0020,
	ATTRIBUTE_RESPONSE_PORT = 0x0027, /* RFC 5780 */
	ATTRIBUTE_SOFTWARE = 0x8022,
	ATTRIBUTE_ALTERNATE_SERVER = 0x8023,
	ATTRIBUTE_FINGERPRINT = 0x8028,
	ATTRIBUTE_OTHER_ADDRESS = 0x802c, /* RFC 5780 */
};

#define RESPONSE_PORT_MIN 1024

enum { WIRE_FAMILY_IPV4 = 1, WIRE_FAMILY_IPV6 = 2, COMPREHENSION_OPTIONAL = 0x8000 };

/* ITU V.42, as section 14.7 wants it; four bits at a time. */
static uint32_t crc32_of(const uint8_t *data, size_t n_bytes)
{
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
		0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
		0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	uint32_t crc = 0xffffffffu;

	for (size_t i = 0; i < n_bytes; i++) {
		crc = table[(crc ^ data[i]) & 15] ^ (crc >> 4);
		crc = table[(crc ^ (uint32_t)(data[i] >> 4)) & 15] ^ (crc >> 4);
	}
	return ~crc;
}

/* ---- reading ------------------------------------------------------------------------- */

bool stun_is_message(const void *data, size_t data_bytes)
{
	struct reader r = reader_over(data, data_bytes);
	const uint16_t type = reader_u16(&r), length = reader_u16(&r);

	return reader_u32(&r) == MAGIC_COOKIE && !(type & 0xc000) && length % 4 == 0 &&
	       (size_t)length + STUN_HEADER_BYTES == data_bytes;
}

/* The bits of class and method lie among each other (section 5, figure 3). */
static enum stun_class class_of(uint16_t type)
{
	return (enum stun_class)((type >> 7 & 2) | (type >> 4 & 1));
}

static uint16_t method_of(uint16_t type)
{
	return (uint16_t)((type >> 2 & 0xf80) | (type >> 1 & 0x70) | (type & 0x0f));
}

static uint16_t type_of(enum stun_class class, uint16_t method)
{
	const unsigned m = method, c = (unsigned)class;

	return (uint16_t)((m & 0xf80) << 2 | (m & 0x70) << 1 | (m & 0x0f) | (c & 2) << 7 |
			  (c & 1) << 4);
}

/* `mask` is the 16 bytes that the XOR forms are XORed with: cookie and transaction. */
static int read_address(struct reader value, const uint8_t *mask, struct endpoint *ret_endpoint)
{
	struct endpoint e = { 0 };
	uint8_t family;
	size_t n_bytes;

	reader_u8(&value);
	family = reader_u8(&value);
	e.port = reader_u16(&value);
	e.ip.family = family == WIRE_FAMILY_IPV4 ? FAMILY_IPV4 : FAMILY_IPV6;
	n_bytes = family == WIRE_FAMILY_IPV4 ? 4 : 16;
	if ((family != WIRE_FAMILY_IPV4 && family != WIRE_FAMILY_IPV6) ||
	    !reader_copy(&value, e.ip.bytes, n_bytes) || reader_finish(&value) < 0)
		return -EBADMSG;
	if (mask) {
		e.port ^= (uint16_t)(mask[0] << 8 | mask[1]);
		for (size_t i = 0; i < n_bytes; i++)
			e.ip.bytes[i] ^= mask[i];
	}
	*ret_endpoint = e;
	return 0;
}

static int read_error_code(struct reader value, struct stun_message *m)
{
	uint8_t class, number;

	reader_u16(&value);
	class = reader_u8(&value) & 7;
	number = reader_u8(&value);
	if (value.failed || class < 3 || class > 6 || number > 99)
		return -EBADMSG;
	m->error_code = (uint16_t)(class * 100 + number);
	return 0;
}

static void note_unknown(struct stun_message *m, uint16_t type)
{
	if (type & COMPREHENSION_OPTIONAL)
		return;
	if (m->n_unknown < STUN_UNKNOWN_MAX)
		m->unknown[m->n_unknown] = type;
	m->n_unknown++;
}

/* What parsing has seen so far. */
struct parse {
	const uint8_t *start;
	const uint8_t *mask;
	bool xor_mapped; /* XOR-MAPPED-ADDRESS was there */
	bool integrity;  /* behind MESSAGE-INTEGRITY only FINGERPRINT counts (section 14.5) */
};

static int read_fingerprint(struct parse *p, const uint8_t *attribute, struct reader value,
			    struct stun_message *m)
{
	const uint32_t crc = reader_u32(&value);

	if (reader_finish(&value) < 0 ||
	    crc != (crc32_of(p->start, (size_t)(attribute - p->start)) ^ FINGERPRINT_XOR))
		return -EBADMSG;
	m->has_fingerprint = true;
	return 0;
}

static int read_attribute(struct parse *p, uint16_t type, struct reader value,
			  struct stun_message *m)
{
	if (p->integrity)
		return 0;
	switch (type) {
	case ATTRIBUTE_XOR_MAPPED_ADDRESS:
		if (p->xor_mapped)
			return 0; /* the first one of a kind counts (section 14) */
		p->xor_mapped = true;
		return read_address(value, p->mask, &m->mapped);
	case ATTRIBUTE_MAPPED_ADDRESS: {
		struct endpoint e;
		const int r = read_address(value, NULL, &e);

		if (r == 0 && m->mapped.ip.family == FAMILY_NONE)
			m->mapped = e;
		return r;
	}
	case ATTRIBUTE_ALTERNATE_SERVER:
		return read_address(value, NULL, &m->alternate_server);
	case ATTRIBUTE_OTHER_ADDRESS:
		return read_address(value, NULL, &m->other);
	case ATTRIBUTE_RESPONSE_PORT:
		m->response_port = reader_u16(&value);
		reader_u16(&value); /* padding, section 7.5 */
		return reader_finish(&value) < 0 ? -EBADMSG : 0;
	case ATTRIBUTE_ERROR_CODE:
		return read_error_code(value, m);
	case ATTRIBUTE_SOFTWARE:
		text_sanitize(value.data, value.left_bytes, m->software, sizeof(m->software));
		return 0;
	case ATTRIBUTE_MESSAGE_INTEGRITY:
	case ATTRIBUTE_MESSAGE_INTEGRITY_SHA256:
		p->integrity = true;
		return 0;
	case ATTRIBUTE_USERNAME:
	case ATTRIBUTE_UNKNOWN_ATTRIBUTES:
	case ATTRIBUTE_REALM:
	case ATTRIBUTE_NONCE:
	case ATTRIBUTE_PASSWORD_ALGORITHM:
	case ATTRIBUTE_USERHASH:
		return 0;
	default:
		note_unknown(m, type);
		return 0;
	}
}

static int read_attributes(struct reader *r, struct parse *p, struct stun_message *m)
{
	while (r->left_bytes && !m->has_fingerprint) {
		const uint8_t *attribute = r->data;
		const uint16_t type = reader_u16(r), length = reader_u16(r);
		const uint8_t *bytes = reader_bytes(r, length);
		int fault;

		reader_bytes(r, (4u - length % 4u) % 4u);
		if (r->failed)
			return -EBADMSG;
		if (type == ATTRIBUTE_FINGERPRINT)
			fault = read_fingerprint(p, attribute, reader_over(bytes, length), m);
		else
			fault = read_attribute(p, type, reader_over(bytes, length), m);
		if (fault < 0)
			return fault;
	}
	return reader_finish(r); /* nothing may follow FINGERPRINT */
}

int stun_decode(const void *data, size_t data_bytes, struct stun_message *ret_message)
{
	struct reader r = reader_over(data, data_bytes);
	struct stun_message m = { 0 };
	struct parse p = { .start = data };
	uint16_t type;

	if (data_bytes > STUN_MESSAGE_MAX_BYTES || !stun_is_message(data, data_bytes))
		return -EBADMSG;
	type = reader_u16(&r);
	reader_u16(&r);
	p.mask = r.data;
	reader_u32(&r);
	reader_copy(&r, m.transaction, sizeof(m.transaction));
	m.class = class_of(type);
	m.method = method_of(type);
	if (read_attributes(&r, &p, &m) < 0)
		return -EBADMSG;
	*ret_message = m;
	return 0;
}

/* ---- writing ------------------------------------------------------------------------------ */

static void write_padded(struct writer *w, uint16_t type, const void *data, size_t n_bytes)
{
	static const uint8_t zero[3];

	writer_u16(w, type);
	writer_u16(w, (uint16_t)n_bytes);
	writer_bytes(w, data, n_bytes);
	writer_bytes(w, zero, (4 - n_bytes % 4) % 4);
}

/* `mask` is what the XOR forms are XORed with; NULL: as it is. */
static void write_address(struct writer *w, uint16_t type, const struct endpoint *e,
			  const uint8_t *mask)
{
	const bool ipv4 = e->ip.family == FAMILY_IPV4;
	uint8_t value[20];
	struct writer v = writer_over(value, sizeof(value));

	writer_u8(&v, 0);
	writer_u8(&v, ipv4 ? WIRE_FAMILY_IPV4 : WIRE_FAMILY_IPV6);
	writer_u16(&v, mask ? e->port ^ (uint16_t)(MAGIC_COOKIE >> 16) : e->port);
	for (size_t i = 0; i < (ipv4 ? 4u : 16u); i++)
		writer_u8(&v, mask ? e->ip.bytes[i] ^ mask[i] : e->ip.bytes[i]);
	write_padded(w, type, value, v.used_bytes);
}

static void write_response_port(struct writer *w, uint16_t port)
{
	const uint8_t value[4] = { (uint8_t)(port >> 8), (uint8_t)port };

	write_padded(w, ATTRIBUTE_RESPONSE_PORT, value, sizeof(value));
}

static void write_error(struct writer *w, const struct stun_message *m)
{
	const size_t n = min_size(m->n_unknown, STUN_UNKNOWN_MAX);
	uint8_t value[2 * STUN_UNKNOWN_MAX];
	struct writer v = writer_over(value, sizeof(value));

	writer_u16(&v, 0);
	writer_u8(&v, (uint8_t)(m->error_code / 100));
	writer_u8(&v, (uint8_t)(m->error_code % 100));
	write_padded(w, ATTRIBUTE_ERROR_CODE, value, v.used_bytes);
	if (!n)
		return;
	v = writer_over(value, sizeof(value));
	for (size_t i = 0; i < n; i++)
		writer_u16(&v, m->unknown[i]);
	write_padded(w, ATTRIBUTE_UNKNOWN_ATTRIBUTES, value, v.used_bytes);
}

static void set_length(uint8_t *out, size_t attribute_bytes)
{
	out[2] = (uint8_t)(attribute_bytes >> 8);
	out[3] = (uint8_t)attribute_bytes;
}

static void write_fingerprint(struct writer *w)
{
	uint8_t value[4];
	struct writer v = writer_over(value, sizeof(value));

	/* The length in the header counts the attribute that is being made (section 14.7). */
	set_length(w->data, w->used_bytes - STUN_HEADER_BYTES + 8);
	writer_u32(&v, crc32_of(w->data, w->used_bytes) ^ FINGERPRINT_XOR);
	write_padded(w, ATTRIBUTE_FINGERPRINT, value, sizeof(value));
}

size_t stun_encode(const struct stun_message *message, uint8_t *out, size_t out_bytes)
{
	struct writer w = writer_over(out, min_size(out_bytes, STUN_MESSAGE_MAX_BYTES));
	const size_t software_bytes = strlen(message->software);

	writer_u16(&w, type_of(message->class, message->method));
	writer_u16(&w, 0);
	writer_u32(&w, MAGIC_COOKIE);
	writer_bytes(&w, message->transaction, sizeof(message->transaction));
	if (w.failed)
		return 0;
	if (software_bytes)
		write_padded(&w, ATTRIBUTE_SOFTWARE, message->software, software_bytes);
	if (message->mapped.ip.family != FAMILY_NONE)
		write_address(&w, ATTRIBUTE_XOR_MAPPED_ADDRESS, &message->mapped, out + 4);
	if (message->other.ip.family != FAMILY_NONE)
		write_address(&w, ATTRIBUTE_OTHER_ADDRESS, &message->other, NULL);
	if (message->response_port)
		write_response_port(&w, message->response_port);
	if (message->error_code)
		write_error(&w, message);
	if (w.failed)
		return 0;
	set_length(out, w.used_bytes - STUN_HEADER_BYTES);
	if (message->has_fingerprint)
		write_fingerprint(&w);
	return w.failed ? 0 : w.used_bytes;
}

/* ---- the server ---------------------------------------------------------------------------------
 */

size_t stun_server_answer(const void *request, size_t request_bytes, const struct endpoint *from,
			  const struct endpoint *other, uint8_t *out, size_t out_bytes)
{
	struct stun_message asked, answer = { .method = STUN_BINDING };
	size_t n_bytes;

	if (stun_decode(request, request_bytes, &asked) < 0 || asked.class != STUN_REQUEST ||
	    asked.method != STUN_BINDING)
		return 0;
	answer.class = STUN_SUCCESS;
	answer.has_fingerprint = asked.has_fingerprint;
	memcpy(answer.transaction, asked.transaction, sizeof(answer.transaction));
	if (asked.n_unknown) { /* section 6.3.1 */
		answer.class = STUN_ERROR;
		answer.error_code = 420;
		answer.n_unknown = asked.n_unknown;
		memcpy(answer.unknown, asked.unknown, sizeof(answer.unknown));
	} else {
		answer.mapped = *from;
		if (other)
			answer.other = *other;
	}
	n_bytes = stun_encode(&answer, out, out_bytes);
	if (n_bytes * 2 <= request_bytes * 5 || answer.other.ip.family == FAMILY_NONE)
		return n_bytes;
	answer.other = (struct endpoint){ 0 };
	return stun_encode(&answer, out, out_bytes);
}

void stun_server_answer_to(const void *request, size_t request_bytes, const struct endpoint *from,
			   struct endpoint *ret_to)
{
	struct stun_message asked;

	*ret_to = *from;
	if (stun_decode(request, request_bytes, &asked) == 0 &&
	    asked.response_port >= RESPONSE_PORT_MIN)
		ret_to->port = asked.response_port;
}
