/*
 * What a network card would do: finishing checksums, and cutting a super-packet
 * into packets, for kernels that cannot take it whole.
 */
#include "tun/wire.h"

/* Over the whole transport part, whatever stands in the field. */
static void store_transport_checksum(uint8_t *ip, size_t ip_bytes, const struct tun_packet *p)
{
	uint8_t *const transport = ip + p->transport_offset;
	const size_t n_bytes = ip_bytes - p->transport_offset;
	uint8_t *const at = transport + wire_checksum_offset(p->protocol);
	uint64_t sum = sum_pseudo_header(ip, p->family, p->protocol, n_bytes);

	put16(at, 0);
	sum = sum_bytes(transport, n_bytes, sum);
	if (p->protocol == PROTOCOL_UDP)
		checksum_store_udp(at, sum);
	else
		checksum_store(at, sum);
}

void tun_packet_finish_checksum(struct tun_packet *p)
{
	if (!p->checksum_partial || p->gso != TUN_GSO_NONE)
		return;
	store_transport_checksum(p->data, p->data_bytes, p);
	p->checksum_partial = false;
}

bool tun_packet_fits(const struct tun_packet *p, uint32_t features)
{
	if (!(features & TUN_FEATURE_VNET))
		return !p->checksum_partial;
	return p->gso != TUN_GSO_UDP || (features & TUN_FEATURE_USO);
}

void tun_segments_init(struct tun_segments *s, const struct tun_packet *packet)
{
	*s = (struct tun_segments){ .packet = packet };
}

/* Lengths, the IPv4 identification and its checksum. */
static void fix_network_header(uint8_t *ip, size_t ip_bytes, const struct tun_packet *p, uint32_t n)
{
	if (p->family == FAMILY_IPV6) {
		put16(ip + IP6_LENGTH, (uint16_t)(ip_bytes - IP6_HEADER_BYTES));
		return;
	}
	put16(ip + IP4_LENGTH, (uint16_t)ip_bytes);
	put16(ip + IP4_ID, (uint16_t)(get16(ip + IP4_ID) + n));
	put16(ip + IP4_CHECKSUM, 0);
	checksum_store(ip + IP4_CHECKSUM, sum_bytes(ip, p->transport_offset, 0));
}

/* FIN and PSH belong to the last segment; CWR to the first, if somebody counts them so. */
static void fix_transport_header(uint8_t *ip, size_t ip_bytes, const struct tun_segments *s,
				 bool last)
{
	const struct tun_packet *const p = s->packet;
	uint8_t *const transport = ip + p->transport_offset;

	if (!p->tcp) {
		put16(transport + UDP_LENGTH, (uint16_t)(ip_bytes - p->transport_offset));
		return;
	}
	put32(transport + TCP_SEQUENCE, get32(transport + TCP_SEQUENCE) + (uint32_t)s->offset);
	if (!last)
		transport[TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (s->n > 0 && p->gso_ecn)
		transport[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
}

size_t tun_segments_next(struct tun_segments *s, uint8_t *out, size_t out_bytes)
{
	const struct tun_packet *const p = s->packet;
	const size_t payload_bytes = p->data_bytes - p->payload_offset;
	const size_t left = payload_bytes - s->offset;
	const size_t cut = p->gso == TUN_GSO_NONE ? left : min_size(left, p->gso_bytes);
	const size_t total = p->payload_offset + cut;

	if (s->done || total > out_bytes)
		return 0;
	memcpy(out, p->data, p->payload_offset);
	memcpy(out + p->payload_offset, p->data + p->payload_offset + s->offset, cut);
	if (p->gso != TUN_GSO_NONE) {
		fix_network_header(out, total, p, s->n);
		fix_transport_header(out, total, s, cut == left);
	}
	if (p->checksum_partial)
		store_transport_checksum(out, total, p);
	s->offset += cut;
	s->n++;
	s->done = cut == left;
	return total;
}
