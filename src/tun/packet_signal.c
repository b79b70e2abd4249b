/*
 * How the sender of a packet is told that its flow has a standing queue: by a
 * mark where it understands marks (RFC 3168), else by the loss of one packet. Of
 * a super-packet the first segment alone is taken away, for losing all of them
 * at once would say much more than it should.
 */
#include "tun/wire.h"

#define ECN_NOT 0
#define ECN_CE  3

static void mark_ip4(uint8_t *ip)
{
	const uint8_t with[2] = { ip[0], ip[IP4_TOS] | ECN_CE };
	uint64_t delta = 0;

	sum_replace(ip, with, sizeof(with), &delta);
	checksum_adjust(ip + IP4_CHECKSUM, delta);
}

/* The transport length, in the pseudo-header's sum that stands in the checksum field. */
static void shorten_partial_sum(const struct tun_packet *p, size_t cut_bytes)
{
	const size_t n_bytes = p->data_bytes - p->transport_offset;
	uint8_t *const at = p->data + p->transport_offset + wire_checksum_offset(p->protocol);
	uint8_t was[4], is[4];
	uint64_t delta = 0;

	put32(was, (uint32_t)n_bytes);
	put32(is, (uint32_t)(n_bytes - cut_bytes));
	sum_replace(was, is, sizeof(was), &delta);
	checksum_adjust_partial(at, delta);
}

static void shorten_network_header(const struct tun_packet *p, size_t cut_bytes)
{
	uint8_t *const ip = p->data, with[4];
	uint64_t delta = 0;

	if (p->family == FAMILY_IPV6) {
		put16(ip + IP6_LENGTH, (uint16_t)(get16(ip + IP6_LENGTH) - cut_bytes));
		return;
	}
	put16(with, (uint16_t)(get16(ip + IP4_LENGTH) - cut_bytes));
	put16(with + 2, (uint16_t)(get16(ip + IP4_ID) + 1)); /* each segment has its own */
	sum_replace(ip + IP4_LENGTH, with, sizeof(with), &delta);
	checksum_adjust(ip + IP4_CHECKSUM, delta);
}

/* Takes the first segment out of p: the headers move up behind it. */
static size_t cut_segment(uint8_t *message, const struct tun_packet *p)
{
	const size_t cut_bytes = p->gso_bytes;
	uint8_t *const transport = p->data + p->transport_offset;

	shorten_partial_sum(p, cut_bytes);
	shorten_network_header(p, cut_bytes);
	if (p->tcp)
		put32(transport + TCP_SEQUENCE,
		      get32(transport + TCP_SEQUENCE) + (uint32_t)cut_bytes);
	else
		put16(transport + UDP_LENGTH,
		      (uint16_t)(get16(transport + UDP_LENGTH) - cut_bytes));
	memmove(message + cut_bytes, message, (size_t)(p->data - message) + p->payload_offset);
	return cut_bytes;
}

enum tun_signal tun_message_signal(uint8_t *message, size_t message_bytes, size_t *ret_cut_bytes)
{
	struct tun_packet p;

	if (tun_packet_parse_message(message, message_bytes, &p) < 0)
		return TUN_SIGNAL_DROP;
	if (p.ecn != ECN_NOT) {
		if (p.family == FAMILY_IPV4)
			mark_ip4(p.data);
		else
			p.data[1] |= ECN_CE << 4;
		return TUN_SIGNAL_MARKED;
	}
	if (p.gso == TUN_GSO_NONE)
		return TUN_SIGNAL_DROP;
	*ret_cut_bytes = cut_segment(message, &p);
	return TUN_SIGNAL_SHORTENED;
}
