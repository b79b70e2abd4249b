/* Datagrams of the relay over UDP. */
#include "q2q/q2q.h"

enum { MAC_BYTES = 16, SIGNED_BYTES = Q2Q_CHANNEL_BIND_BYTES - MAC_BYTES };

enum q2q_channel_kind q2q_channel_kind(const void *data, size_t n_bytes)
{
	const uint8_t first = n_bytes > 0 ? *(const uint8_t *)data : 0;

	if ((first == Q2Q_CHANNEL_BIND || first == Q2Q_CHANNEL_BOUND) &&
	    n_bytes == Q2Q_CHANNEL_BIND_BYTES)
		return (enum q2q_channel_kind)first;
	if (first == Q2Q_CHANNEL_DATA && n_bytes > Q2Q_CHANNEL_HEADER_BYTES)
		return Q2Q_CHANNEL_DATA;
	return Q2Q_CHANNEL_NONE;
}

void q2q_channel_header(enum q2q_channel_kind kind, const uint8_t name[static Q2Q_CHANNEL_BYTES],
			uint8_t out[static Q2Q_CHANNEL_HEADER_BYTES])
{
	out[0] = (uint8_t)kind;
	memcpy(out + 1, name, Q2Q_CHANNEL_BYTES);
}

int q2q_channel_seal(enum q2q_channel_kind kind, const uint8_t name[static Q2Q_CHANNEL_BYTES],
		     const uint8_t key[static Q2Q_CHANNEL_KEY_BYTES], uint64_t counter,
		     uint8_t out[static Q2Q_CHANNEL_BIND_BYTES])
{
	uint8_t mac[CRYPTO_HASH_BYTES];
	struct writer w = writer_over(out, SIGNED_BYTES);
	int r;

	writer_u8(&w, (uint8_t)kind);
	writer_bytes(&w, name, Q2Q_CHANNEL_BYTES);
	writer_u64(&w, counter);
	r = crypto_hmac_sha256(key, Q2Q_CHANNEL_KEY_BYTES, out, SIGNED_BYTES, mac);
	if (r == 0)
		memcpy(out + SIGNED_BYTES, mac, MAC_BYTES);
	return r;
}

int q2q_channel_open(const uint8_t data[static Q2Q_CHANNEL_BIND_BYTES],
		     const uint8_t key[static Q2Q_CHANNEL_KEY_BYTES], uint64_t *ret_counter)
{
	struct reader r = reader_over(data + Q2Q_CHANNEL_HEADER_BYTES, 8);
	uint8_t mac[CRYPTO_HASH_BYTES];

	if (crypto_hmac_sha256(key, Q2Q_CHANNEL_KEY_BYTES, data, SIGNED_BYTES, mac) != 0 ||
	    !secret_equal(mac, data + SIGNED_BYTES, MAC_BYTES))
		return -EBADMSG;
	*ret_counter = reader_u64(&r);
	return 0;
}
