/* Secrets, hexadecimal, UTF-8, numbers and hashing. */
#include "base/base.h"

#include <unistd.h>

void closep(int *fd)
{
	const int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

void secret_wipe(void *data, size_t data_bytes)
{
	if (data && data_bytes > 0)
		explicit_bzero(data, data_bytes);
}

bool secret_equal(const void *a, const void *b, size_t n_bytes)
{
	const volatile uint8_t *x = a, *y = b;
	uint8_t difference = 0;

	for (size_t i = 0; i < n_bytes; i++)
		difference = (uint8_t)(difference | (x[i] ^ y[i]));
	return difference == 0;
}

void hex_encode(const void *data, size_t n_bytes, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *in = data;

	for (size_t i = 0; i < n_bytes; i++) {
		*out++ = digits[in[i] >> 4];
		*out++ = digits[in[i] & 15];
	}
	*out = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_decode(const char *text, void *out, size_t n_bytes)
{
	uint8_t *to = out;

	if (strlen(text) != 2 * n_bytes)
		return -EBADMSG;
	for (size_t i = 0; i < n_bytes; i++) {
		const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EBADMSG;
		to[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

/* The length of the sequence that starts here, or 0 (RFC 3629, section 4). */
static size_t utf8_sequence(const uint8_t *s, size_t left)
{
	size_t n = 0;
	uint32_t code = 0;
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] < 0xe0) {
		n = 2;
		code = s[0] & 0x1f;
	} else if (s[0] >= 0xe0 && s[0] < 0xf0) {
		n = 3;
		code = s[0] & 0x0f;
	} else if (s[0] >= 0xf0 && s[0] < 0xf5) {
		n = 4;
		code = s[0] & 0x07;
	}
	if (n == 0 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (code < smallest[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 0;
	return n;
}

bool utf8_valid(const void *text, size_t n_bytes)
{
	const uint8_t *s = text;

	for (size_t i = 0; i < n_bytes;) {
		const size_t step = utf8_sequence(s + i, n_bytes - i);

		if (step == 0)
			return false;
		i += step;
	}
	return true;
}

void text_sanitize(const void *text, size_t n_bytes, char *out, size_t out_bytes)
{
	const uint8_t *s = text;
	size_t used = 0;

	if (out_bytes == 0)
		return;
	for (size_t i = 0; i < n_bytes;) {
		const size_t step = utf8_sequence(s + i, n_bytes - i);
		/* C0, DEL, and C1 (encoded as c2 80..9f) */
		const bool control = step == 0 || s[i] < 0x20 || s[i] == 0x7f ||
				     (step == 2 && s[i] == 0xc2 && s[i + 1] < 0xa0);
		const size_t take = control ? 1 : step;

		if (used + take + 1 > out_bytes)
			break;
		if (control)
			out[used] = '?';
		else
			memmove(out + used, s + i, take);
		used += take;
		i += step ? step : 1;
	}
	out[used] = '\0';
}

int parse_u64(const char *text, uint64_t max, uint64_t *ret_value)
{
	uint64_t v = 0;

	if (*text == '\0')
		return -EINVAL;
	for (const char *c = text; *c; c++) {
		const uint64_t digit = (uint64_t)(*c - '0');

		if (*c < '0' || *c > '9')
			return -EINVAL;
		if (v > (UINT64_MAX - digit) / 10)
			return -ERANGE;
		v = v * 10 + digit;
	}
	if (v > max)
		return -ERANGE;
	*ret_value = v;
	return 0;
}

static uint64_t rotate(uint64_t v, int bits)
{
	return v << bits | v >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

static uint64_t load_le(const uint8_t *at, size_t n_bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n_bytes; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

/* Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012. */
uint64_t hash_bytes(const struct hash_seed *seed, const void *data, size_t n_bytes)
{
	const uint8_t *in = data;
	uint64_t v[4] = { seed->k0 ^ 0x736f6d6570736575, seed->k1 ^ 0x646f72616e646f6d,
			  seed->k0 ^ 0x6c7967656e657261, seed->k1 ^ 0x7465646279746573 };
	size_t i;

	for (i = 0; i + 8 <= n_bytes; i += 8) {
		const uint64_t m = load_le(in + i, 8);

		v[3] ^= m;
		sip_round(v);
		sip_round(v);
		v[0] ^= m;
	}
	const uint64_t last = (uint64_t)n_bytes << 56 | load_le(in + i, n_bytes - i);

	v[3] ^= last;
	sip_round(v);
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
