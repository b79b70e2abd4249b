/* The name service module's questions and the daemon's answers, on the wire. */
#include "base/names.h"

#define MAGIC   0x71326e73u /* "q2ns" */
#define VERSION 1

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr(".-_+", c));
}

/* One label "." another "." and the suffix: no empty label, nothing but name_char(). */
static bool name_valid(const char *name)
{
	const size_t n = strlen(name), suffix = sizeof(NAMES_SUFFIX) - 1;
	size_t n_dots = 0;

	if (n <= suffix || strcmp(name + n - suffix, NAMES_SUFFIX) != 0 || name[0] == '.')
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!name_char(name[i]) || (name[i] == '.' && name[i + 1] == '.'))
			return false;
		n_dots += name[i] == '.';
	}
	return n_dots >= 2;
}

int names_canonical(const char *text, char ret_name[static NAMES_TEXT_BYTES])
{
	char name[NAMES_TEXT_BYTES];
	size_t n = strnlen(text, NAMES_TEXT_BYTES + 1);

	if (n > 0 && n <= NAMES_TEXT_BYTES && text[n - 1] == '.')
		n--;
	if (n >= NAMES_TEXT_BYTES)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		name[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] - 'A' + 'a' : text[i]);
	name[n] = '\0';
	if (!name_valid(name))
		return -EINVAL;
	memcpy(ret_name, name, n + 1);
	return 0;
}

static void write_name(struct writer *w, const char *name)
{
	static const char zeros[NAMES_TEXT_BYTES];
	const size_t n = strnlen(name, NAMES_TEXT_BYTES - 1);

	writer_bytes(w, name, n);
	writer_bytes(w, zeros, NAMES_TEXT_BYTES - n);
}

/* Zero to the end after the text: one text has one encoding. */
static bool read_name(struct reader *r, char name[static NAMES_TEXT_BYTES])
{
	const uint8_t *const data = reader_bytes(r, NAMES_TEXT_BYTES);

	if (!data || data[NAMES_TEXT_BYTES - 1] != '\0')
		return false;
	memcpy(name, data, NAMES_TEXT_BYTES);
	for (size_t i = strlen(name); i < NAMES_TEXT_BYTES; i++)
		if (name[i] != '\0')
			return false;
	return true;
}

static bool read_zeros(struct reader *r, size_t n_bytes)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n_bytes; i++)
		any = (uint8_t)(any | reader_u8(r));
	return any == 0;
}

static bool bytes_zero(const uint8_t *data, size_t n_bytes)
{
	struct reader r = reader_over(data, n_bytes);

	return read_zeros(&r, n_bytes);
}

void names_encode_request(const struct names_request *request,
			  uint8_t out[static NAMES_REQUEST_BYTES])
{
	struct writer w = writer_over(out, NAMES_REQUEST_BYTES);
	const bool by_name = request->kind == NAMES_BY_NAME;

	writer_u32(&w, MAGIC);
	writer_u8(&w, VERSION);
	writer_u8(&w, (uint8_t)request->kind);
	writer_u8(&w, by_name ? 0 : request->address.family);
	writer_u8(&w, 0);
	writer_u32(&w, request->id);
	writer_bytes(&w, by_name ? (const uint8_t[16]){ 0 } : request->address.bytes, 16);
	write_name(&w, by_name ? request->name : "");
	assert(!w.failed && w.used_bytes == NAMES_REQUEST_BYTES);
}

int names_decode_request(const uint8_t data[static NAMES_REQUEST_BYTES],
			 struct names_request *ret_request)
{
	struct reader r = reader_over(data, NAMES_REQUEST_BYTES);
	struct names_request request = { 0 };
	char canonical[NAMES_TEXT_BYTES];
	bool sound;

	sound = reader_u32(&r) == MAGIC && reader_u8(&r) == VERSION;
	if (!sound)
		return -EBADMSG;
	request.kind = (enum names_kind)reader_u8(&r);
	request.address.family = reader_u8(&r);
	sound = read_zeros(&r, 1);
	request.id = reader_u32(&r);
	reader_copy(&r, request.address.bytes, 16);
	sound = read_name(&r, request.name) && sound;
	if (!sound || reader_finish(&r) < 0)
		return -EBADMSG;

	switch (request.kind) {
	case NAMES_BY_NAME:
		sound = request.address.family == FAMILY_NONE &&
			bytes_zero(request.address.bytes, 16) &&
			names_canonical(request.name, canonical) == 0 &&
			strcmp(canonical, request.name) == 0;
		break;
	case NAMES_BY_ADDRESS:
		sound = request.name[0] == '\0' && (request.address.family == FAMILY_IPV6 ||
						    (request.address.family == FAMILY_IPV4 &&
						     bytes_zero(request.address.bytes + 4, 12)));
		break;
	default:
		sound = false;
	}
	if (!sound)
		return -EBADMSG;
	*ret_request = request;
	return 0;
}

void names_encode_reply(const struct names_reply *reply, uint8_t out[static NAMES_REPLY_BYTES])
{
	static const uint8_t zeros[16];
	struct writer w = writer_over(out, NAMES_REPLY_BYTES);
	const bool found = reply->status == NAMES_FOUND;
	const bool ipv4 = found && reply->ipv4.family == FAMILY_IPV4;
	const bool ipv6 = found && reply->ipv6.family == FAMILY_IPV6;

	writer_u32(&w, MAGIC);
	writer_u8(&w, VERSION);
	writer_u8(&w, (uint8_t)reply->status);
	writer_u16(&w, 0);
	writer_u32(&w, reply->id);
	writer_bytes(&w, ipv4 ? reply->ipv4.bytes : zeros, 4);
	writer_bytes(&w, ipv6 ? reply->ipv6.bytes : zeros, 16);
	write_name(&w, found ? reply->name : "");
	assert(!w.failed && w.used_bytes == NAMES_REPLY_BYTES);
}

int names_decode_reply(const uint8_t data[static NAMES_REPLY_BYTES], struct names_reply *ret_reply)
{
	struct reader r = reader_over(data, NAMES_REPLY_BYTES);
	struct names_reply reply = { 0 };
	char canonical[NAMES_TEXT_BYTES];
	uint8_t status;
	bool sound;

	sound = reader_u32(&r) == MAGIC && reader_u8(&r) == VERSION;
	status = reader_u8(&r);
	sound = read_zeros(&r, 2) && sound;
	reply.id = reader_u32(&r);
	reader_copy(&r, reply.ipv4.bytes, 4);
	reader_copy(&r, reply.ipv6.bytes, 16);
	sound = read_name(&r, reply.name) && sound;
	if (!sound || reader_finish(&r) < 0 || status >= NAMES_STATUS_COUNT)
		return -EBADMSG;

	reply.status = (enum names_status)status;
	if (!bytes_zero(reply.ipv4.bytes, 4))
		reply.ipv4.family = FAMILY_IPV4;
	if (!bytes_zero(reply.ipv6.bytes, 16))
		reply.ipv6.family = FAMILY_IPV6;
	if (reply.status == NAMES_FOUND)
		sound = (reply.ipv4.family || reply.ipv6.family) &&
			names_canonical(reply.name, canonical) == 0 &&
			strcmp(canonical, reply.name) == 0;
	else
		sound = !reply.ipv4.family && !reply.ipv6.family && reply.name[0] == '\0';
	if (!sound)
		return -EBADMSG;
	*ret_reply = reply;
	return 0;
}
