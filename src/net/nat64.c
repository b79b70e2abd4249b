/*
 * nat64 - IPv4 from a network that has none (RFC 6052, RFC 7050).
 *
 * Such a network translates: what is sent to prefix + IPv4 address leaves it as
 * IPv4, and comes back from there. This is the one place that knows. Sockets pass
 * what they send through net_nat64_outward(), and where something came from
 * through net_nat64_inward(); everybody else, the peer included, sees the IPv4
 * endpoint, and a translator is a NAT like any other.
 */
#include "net/internal.h"

#define WELL_KNOWN_BITS 96
#define U_BYTE          8 /* bits 64 to 71, always 0: the address goes around it */

static const uint8_t prefix_lengths[] = { 96, 64, 56, 48, 40, 32 };
static const uint8_t well_known_prefix[12] = { 0x00, 0x64, 0xff, 0x9b };

/* RFC 5735, section 3, and RFC 6598: the well-known prefix must not carry them (RFC 6052, 3.1). */
static bool is_global(const struct ip_address *ip4)
{
	static const struct {
		uint8_t bytes[4], bits;
	} others[] = {
		{ { 192, 0, 0, 0 }, 24 },   { { 192, 0, 2, 0 }, 24 },   { { 198, 51, 100, 0 }, 24 },
		{ { 203, 0, 113, 0 }, 24 }, { { 192, 88, 99, 0 }, 24 }, { { 198, 18, 0, 0 }, 15 },
	};

	if (ip_is_private(ip4))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		uint32_t differ = 0;

		for (size_t b = 0; b < 4; b++)
			differ = differ << 8 | (uint32_t)(ip4->bytes[b] ^ others[i].bytes[b]);
		if (differ >> (32 - others[i].bits) == 0)
			return false;
	}
	return true;
}

static bool is_well_known(const struct net_nat64 *n)
{
	return n->prefix_bits == WELL_KNOWN_BITS &&
	       memcmp(n->prefix.bytes, well_known_prefix, sizeof(well_known_prefix)) == 0;
}

/* May this prefix stand for this address at all? */
static bool may_carry(const struct net_nat64 *n, const struct ip_address *ip4)
{
	if (n->prefix_bits == 0 || ip_is_loopback(ip4) || ip_is_link_local(ip4) ||
	    ip_is_multicast(ip4) || ip_is_unspecified(ip4))
		return false;
	return !is_well_known(n) || is_global(ip4);
}

/* Where the i-th byte of the IPv4 address stands (RFC 6052, section 2.2). */
static size_t place(uint8_t prefix_bits, size_t i)
{
	const size_t at = prefix_bits / 8u + i;

	return prefix_bits < WELL_KNOWN_BITS && at >= U_BYTE ? at + 1 : at;
}

bool net_nat64_embed(const struct net_nat64 *n, const struct ip_address *ip4,
		     struct ip_address *ret_ip6)
{
	struct ip_address ip6 = n->prefix;

	if (ip4->family != FAMILY_IPV4 || !may_carry(n, ip4) ||
	    (n->private_is_near && ip_is_private(ip4)))
		return false;
	for (size_t i = 0; i < 4; i++)
		ip6.bytes[place(n->prefix_bits, i)] = ip4->bytes[i];
	*ret_ip6 = ip6;
	return true;
}

static struct ip_address embedded(uint8_t prefix_bits, const struct ip_address *ip6)
{
	struct ip_address ip4 = { .family = FAMILY_IPV4 };

	for (size_t i = 0; i < 4; i++)
		ip4.bytes[i] = ip6->bytes[place(prefix_bits, i)];
	return ip4;
}

bool net_nat64_extract(const struct net_nat64 *n, const struct ip_address *ip6,
		       struct ip_address *ret_ip4)
{
	struct ip_address ip4;

	if (ip6->family != FAMILY_IPV6 || n->prefix_bits == 0 || ip6->bytes[U_BYTE] != 0 ||
	    memcmp(ip6->bytes, n->prefix.bytes, n->prefix_bits / 8u) != 0)
		return false;
	ip4 = embedded(n->prefix_bits, ip6);
	if (!may_carry(n, &ip4))
		return false;
	*ret_ip4 = ip4;
	return true;
}

/* ---- discovery (RFC 7050) ------------------------------------------------------------- */

/* 192.0.0.170 and 192.0.0.171 */
static bool is_well_known_address(const struct ip_address *ip4)
{
	static const uint8_t start[] = { 192, 0, 0 };

	return memcmp(ip4->bytes, start, sizeof(start)) == 0 && (ip4->bytes[3] | 1) == 171;
}

/* One answer. An address in which they stand twice says nothing (section 3). */
static bool detect_in(const struct ip_address *ip6, struct net_nat64 *ret_nat64)
{
	uint8_t bits = 0;

	if (ip6->family != FAMILY_IPV6 || ip6->bytes[U_BYTE] != 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(prefix_lengths); i++) {
		const struct ip_address ip4 = embedded(prefix_lengths[i], ip6);

		if (!is_well_known_address(&ip4))
			continue;
		if (bits)
			return false;
		bits = prefix_lengths[i];
	}
	if (!bits)
		return false;
	*ret_nat64 = (struct net_nat64){ .prefix.family = FAMILY_IPV6, .prefix_bits = bits };
	memcpy(ret_nat64->prefix.bytes, ip6->bytes, bits / 8u);
	return true;
}

bool net_nat64_detect(const struct endpoint *answers, size_t n_answers, struct net_nat64 *ret_nat64)
{
	for (size_t i = 0; i < n_answers; i++)
		if (detect_in(&answers[i].ip, ret_nat64))
			return true;
	return false;
}

/* ---- the edge -------------------------------------------------------------------------- */

struct endpoint net_nat64_outward(const struct net_loop *loop, const struct endpoint *e)
{
	struct endpoint out = *e;

	if (e->ip.family == FAMILY_IPV4)
		net_nat64_embed(net_loop_nat64(loop), &e->ip, &out.ip);
	return out;
}

struct endpoint net_nat64_inward(const struct net_loop *loop, const struct endpoint *e)
{
	struct endpoint in = *e;

	if (e->ip.family == FAMILY_IPV6)
		net_nat64_extract(net_loop_nat64(loop), &e->ip, &in.ip);
	return in;
}
