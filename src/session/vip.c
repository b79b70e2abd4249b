/*
 * Virtual addresses: every Q2Q address has one IPv6 and one IPv4 address that
 * both ends compute alone (doc/architecture.md, "Virtual addresses").
 *
 *   IPv6  fd71:3271:746e::/48 and the first 80 bits of
 *         SHA-256("q2q-tun vip6 v1" || 0 || address)
 *   IPv4  100.64.0.0/10 and 22 bits of SHA-256("q2q-tun vip4 v1" || 0 || address),
 *         with a counter byte behind while the last byte would be 0 or 255
 *
 * 22 bits collide; then a daemon shows its users another IPv4 address and
 * rewrites packets, which still travel with the canonical ones.
 */
#include "session/session.h"

#include "crypto/crypto.h"

static const uint8_t prefix6[6] = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e };

static int hash_address(const char *label, const char *address, const uint8_t *counter,
			uint8_t out[static CRYPTO_HASH_BYTES])
{
	uint8_t input[32 + VIP_ADDRESS_BYTES_MAX];
	struct writer w = writer_over(input, sizeof(input));

	writer_bytes(&w, label, strlen(label) + 1);
	writer_bytes(&w, address, strlen(address));
	if (counter)
		writer_u8(&w, *counter);
	if (w.failed)
		return -EINVAL;
	return crypto_sha256(input, w.used_bytes, out);
}

static bool place4(const uint8_t hash[static CRYPTO_HASH_BYTES], uint8_t out[static 4])
{
	out[0] = 100;
	out[1] = (uint8_t)(64 | (hash[0] & 0x3f));
	out[2] = hash[1];
	out[3] = hash[2];
	return out[3] != 0 && out[3] != 255;
}

/* The n-th acceptable address of a label's series. */
static int series4(const char *label, const char *address, unsigned n, uint8_t out[static 4])
{
	uint8_t hash[CRYPTO_HASH_BYTES];
	int r;

	for (unsigned counter = 0; counter <= UINT8_MAX; counter++) {
		const uint8_t byte = (uint8_t)counter;

		r = hash_address(label, address, counter ? &byte : NULL, hash);
		if (r)
			return r;
		if (place4(hash, out) && n-- == 0)
			return 0;
	}
	return -EADDRINUSE;
}

int vip_from_address(const char *address, struct vip *ret_vip)
{
	uint8_t hash[CRYPTO_HASH_BYTES];
	struct vip vip;
	int r;

	r = hash_address("q2q-tun vip6 v1", address, NULL, hash);
	if (r)
		return r;
	memcpy(vip.ip6, prefix6, sizeof(prefix6));
	memcpy(vip.ip6 + sizeof(prefix6), hash, sizeof(vip.ip6) - sizeof(prefix6));
	r = series4("q2q-tun vip4 v1", address, 0, vip.ip4);
	if (r)
		return r;
	*ret_vip = vip;
	return 0;
}

int vip_choose4(const char *address, bool (*taken)(void *user, const uint8_t ip4[static 4]),
		void *user, uint8_t ret_ip4[static 4])
{
	uint8_t candidate[4];
	struct vip vip;
	int r = vip_from_address(address, &vip);

	if (r)
		return r;
	memcpy(candidate, vip.ip4, sizeof(candidate));
	for (unsigned n = 0; taken(user, candidate); n++) {
		if (n == VIP_LOCAL_TRIES)
			return -EADDRINUSE;
		r = series4("q2q-tun vip4 local v1", address, n, candidate);
		if (r)
			return r;
	}
	memcpy(ret_ip4, candidate, sizeof(candidate));
	return 0;
}

bool vip_is_ip4(const uint8_t ip4[static 4])
{
	return ip4[0] == 100 && (ip4[1] & 0xc0) == 64;
}

bool vip_is_ip6(const uint8_t ip6[static 16])
{
	return !memcmp(ip6, prefix6, sizeof(prefix6));
}
