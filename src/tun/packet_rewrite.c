/*
 * Whose packet is it? Source and destination must be the two ends of this link
 * and nothing else, in both directions. And the stateless rewriting of IPv4
 * addresses, for links that are shown under other addresses here than there.
 */
#include "tun/wire.h"

/* ---- checking ------------------------------------------------------------------------ */

static bool all_zero(const uint8_t *data, size_t n_bytes)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n_bytes; i++)
		any |= data[i];
	return any == 0;
}

static bool pair_matches(const uint8_t *pair, const uint8_t *source, const uint8_t *destination,
			 size_t n_bytes)
{
	return !all_zero(source, n_bytes) && !all_zero(destination, n_bytes) &&
	       memcmp(pair, source, n_bytes) == 0 &&
	       memcmp(pair + n_bytes, destination, n_bytes) == 0;
}

int tun_packet_check(const struct tun_packet *p, const struct tun_addresses *a,
		     enum tun_direction direction)
{
	const bool out = direction == TUN_TO_PEER;
	bool ours;

	if (p->family == FAMILY_IPV4)
		ours = pair_matches(p->data + IP4_SOURCE, out ? a->own4 : a->peer4,
				    out ? a->peer4 : a->own4, 4);
	else
		ours = pair_matches(p->data + IP6_SOURCE, out ? a->own6 : a->peer6,
				    out ? a->peer6 : a->own6, 16);
	return ours ? 0 : -EPERM;
}

/* ---- translating ------------------------------------------------------------------------ */

enum icmp_error {
	ICMP_UNREACHABLE = 3,
	ICMP_QUENCH = 4,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
	ICMP_CHECKSUM = 2,
	ICMP_HEADER_BYTES = 8,
};

/* The address that `to` has where `from` has this one, whichever end of the packet it stands
 * at; NULL: not of this link. */
static const uint8_t *counterpart(const uint8_t *address, const struct tun_addresses *from,
				  const struct tun_addresses *to)
{
	if (memcmp(address, from->own4, 4) == 0)
		return to->own4;
	if (memcmp(address, from->peer4, 4) == 0)
		return to->peer4;
	return NULL;
}

/* Both addresses of an IPv4 header, and the header's checksum. What changed adds up in *delta:
 * for the transport's checksum (addresses alone), and for somebody who quotes it (all). */
static void translate_header(uint8_t *ip, const struct tun_addresses *from,
			     const struct tun_addresses *to, uint64_t *addresses, uint64_t *all)
{
	const uint8_t *const source = counterpart(ip + IP4_SOURCE, from, to);
	const uint8_t *const destination = counterpart(ip + IP4_DESTINATION, from, to);
	uint8_t checksum[2];

	*addresses = 0;
	if (source)
		sum_replace(ip + IP4_SOURCE, source, 4, addresses);
	if (destination)
		sum_replace(ip + IP4_DESTINATION, destination, 4, addresses);
	memcpy(checksum, ip + IP4_CHECKSUM, 2);
	checksum_adjust(checksum, *addresses);
	*all += *addresses;
	sum_replace(ip + IP4_CHECKSUM, checksum, 2, all);
}

static void adjust_transport(uint8_t *checksum, uint8_t protocol, bool partial, uint64_t delta)
{
	if (partial)
		checksum_adjust_partial(checksum, delta);
	else if (protocol == PROTOCOL_UDP)
		checksum_adjust_udp(checksum, delta);
	else
		checksum_adjust(checksum, delta);
}

/*
 * An ICMP error quotes the start of the packet it complains about: header, and
 * at least eight bytes after it (RFC 792; more: RFC 4884). A quoted checksum
 * follows if it is there; the receiver finds its socket by the addresses.
 */
static void translate_quoted(uint8_t *icmp, size_t icmp_bytes, const struct tun_addresses *from,
			     const struct tun_addresses *to)
{
	uint8_t *const ip = icmp + ICMP_HEADER_BYTES;
	const size_t n_bytes = icmp_bytes - ICMP_HEADER_BYTES;
	size_t header_bytes, offset;
	uint64_t addresses = 0, all = 0;

	if (n_bytes < IP4_HEADER_BYTES || ip[0] >> 4 != 4)
		return;
	header_bytes = (size_t)(ip[0] & 15) * 4;
	if (header_bytes < IP4_HEADER_BYTES || header_bytes > n_bytes)
		return;
	translate_header(ip, from, to, &addresses, &all);

	offset = wire_checksum_offset(ip[IP4_PROTOCOL]);
	if (offset > 0 && (get16(ip + IP4_FRAGMENT) & 0x1fff) == 0 &&
	    header_bytes + offset + 2 <= n_bytes) {
		uint8_t *const at = ip + header_bytes + offset;
		uint8_t checksum[2];

		memcpy(checksum, at, 2);
		adjust_transport(checksum, ip[IP4_PROTOCOL], false, addresses);
		sum_replace(at, checksum, 2, &all);
	}
	checksum_adjust(icmp + ICMP_CHECKSUM, all);
}

static bool is_icmp_error(uint8_t type)
{
	return type == ICMP_UNREACHABLE || type == ICMP_QUENCH || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETER;
}

void tun_packet_translate(struct tun_packet *p, const struct tun_addresses *from,
			  const struct tun_addresses *to)
{
	uint8_t *const transport = p->data + p->transport_offset;
	const size_t offset = wire_checksum_offset(p->protocol);
	uint64_t addresses = 0, all = 0;

	if (p->family != FAMILY_IPV4 ||
	    (memcmp(from->own4, to->own4, 4) == 0 && memcmp(from->peer4, to->peer4, 4) == 0))
		return;
	translate_header(p->data, from, to, &addresses, &all);
	if (!p->first)
		return;
	if (offset > 0)
		adjust_transport(transport + offset, p->protocol, p->checksum_partial, addresses);
	else if (p->protocol == PROTOCOL_ICMP && is_icmp_error(transport[0]))
		translate_quoted(transport, p->data_bytes - p->transport_offset, from, to);
}
