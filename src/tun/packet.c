/*
 * Is this an IP packet that we carry? Everything that later code relies on is
 * checked here, for packets of the kernel and of the peer alike: what does not
 * add up is dropped, what is not known is not carried. An extension header that
 * is skipped unread, or a length that is believed, is how packets get past the
 * checks of others.
 */
#include "tun/wire.h"

#define FAMILY_4                 1
#define FAMILY_6                 2

#define URGENT_UDP_BYTES         256 /* of payload: voice, games, name queries */
#define FINISH_CHECKSUM_BYTES    256 /* up to here summing is cheaper than ten bytes more */
#define UDP_SEGMENTS_MAX         128 /* the kernel's UDP_MAX_SEGMENTS */
#define TCP_SEGMENT_BYTES_MIN    8   /* what the kernel's smallest MSS leaves past full options */
#define IP4_OPTION_END           0
#define IP4_OPTION_NOP           1
#define IP4_OPTION_LOOSE_ROUTE   131
#define IP4_OPTION_STRICT_ROUTE  137
#define IP4_MORE_FRAGMENTS       0x2000
#define IP4_FRAGMENT_OFFSET_MASK 0x1fff
#define ICMP_REDIRECT            5

/* The protocols that are carried, and the least that one of their headers takes. */
static const struct carried {
	uint8_t protocol, families, header_bytes;
	bool ports;
} carried[] = {
	{ PROTOCOL_ICMP, FAMILY_4, 8, false },
	{ PROTOCOL_IPIP, FAMILY_4 | FAMILY_6, 20, false },
	{ PROTOCOL_TCP, FAMILY_4 | FAMILY_6, TCP_HEADER_BYTES, true },
	{ PROTOCOL_UDP, FAMILY_4 | FAMILY_6, UDP_HEADER_BYTES, true },
	{ PROTOCOL_DCCP, FAMILY_4 | FAMILY_6, 12, true },
	{ PROTOCOL_IPV6, FAMILY_4 | FAMILY_6, 40, false },
	{ PROTOCOL_GRE, FAMILY_4 | FAMILY_6, 4, false },
	{ PROTOCOL_ESP, FAMILY_4 | FAMILY_6, 8, false },
	{ PROTOCOL_AH, FAMILY_4 | FAMILY_6, 12, false },
	{ PROTOCOL_ICMPV6, FAMILY_6, 8, false },
	{ PROTOCOL_L2TP, FAMILY_4 | FAMILY_6, 4, false },
	{ PROTOCOL_SCTP, FAMILY_4 | FAMILY_6, 12, true },
	{ PROTOCOL_UDPLITE, FAMILY_4 | FAMILY_6, UDP_HEADER_BYTES, true },
};

static const struct carried *find_carried(const struct tun_packet *p)
{
	const unsigned family = p->family == FAMILY_IPV4 ? FAMILY_4 : FAMILY_6;

	for (size_t i = 0; i < ARRAY_SIZE(carried); i++)
		if (carried[i].protocol == p->protocol && (carried[i].families & family))
			return &carried[i];
	return NULL;
}

/* ---- transport ----------------------------------------------------------------------- */

static int parse_tcp(struct tun_packet *p, const uint8_t *header, size_t n_bytes)
{
	const size_t header_bytes = (size_t)(header[TCP_DATA_OFFSET] >> 4) * 4;

	if (header_bytes < TCP_HEADER_BYTES || header_bytes > n_bytes)
		return -EBADMSG;
	p->payload_offset = p->transport_offset + (uint32_t)header_bytes;
	p->tcp = true;
	p->pure_ack = !p->fragment && n_bytes == header_bytes &&
		      (header[TCP_FLAGS] & (TCP_FIN | TCP_SYN | TCP_RST)) == 0;
	return 0;
}

/* A fragment's length field speaks of the whole datagram. */
static int parse_udp(struct tun_packet *p, const uint8_t *header, size_t n_bytes)
{
	const size_t length = get16(header + UDP_LENGTH);

	if (length < UDP_HEADER_BYTES || (!p->fragment && length > n_bytes))
		return -EBADMSG;
	p->payload_offset = p->transport_offset + UDP_HEADER_BYTES;
	p->urgent |= !p->fragment && n_bytes - UDP_HEADER_BYTES <= URGENT_UDP_BYTES;
	return 0;
}

static int parse_transport(struct tun_packet *p)
{
	const uint8_t *const header = p->data + p->transport_offset;
	const size_t n_bytes = p->data_bytes - p->transport_offset;
	const struct carried *const rule = find_carried(p);

	p->payload_offset = p->transport_offset;
	if (!rule)
		return -EPROTONOSUPPORT;
	if (!p->first) {
		p->tcp = p->protocol == PROTOCOL_TCP;
		return n_bytes > 0 ? 0 : -EBADMSG;
	}
	/* Of a first fragment too (RFC 7112): whoever splits headers wants to hide them. */
	if (n_bytes < rule->header_bytes)
		return -EBADMSG;
	if (rule->ports) {
		p->source_port = get16(header);
		p->destination_port = get16(header + 2);
	}
	switch (p->protocol) {
	case PROTOCOL_TCP:
		return parse_tcp(p, header, n_bytes);
	case PROTOCOL_UDP:
		return parse_udp(p, header, n_bytes);
	case PROTOCOL_ICMP: /* a peer has no say in our routes */
		return header[0] == ICMP_REDIRECT ? -EPROTONOSUPPORT : 0;
	default:
		return 0;
	}
}

/* ---- network --------------------------------------------------------------------------- */

static int check_ip4_options(const uint8_t *at, const uint8_t *end)
{
	while (at < end && *at != IP4_OPTION_END) {
		if (*at == IP4_OPTION_NOP) {
			at++;
			continue;
		}
		if (end - at < 2 || at[1] < 2 || at[1] > end - at)
			return -EBADMSG;
		if (*at == IP4_OPTION_LOOSE_ROUTE || *at == IP4_OPTION_STRICT_ROUTE)
			return -EPROTONOSUPPORT;
		at += at[1];
	}
	return 0;
}

/* Where a fragment lies, in bytes, must end within the largest packet, and all but the
 * last are multiples of eight. */
static int check_fragment(struct tun_packet *p, size_t offset, bool more)
{
	const size_t n_bytes = p->data_bytes - p->transport_offset;

	if (offset + n_bytes > TUN_PACKET_BYTES || (more && n_bytes % 8 != 0) || n_bytes == 0)
		return -EBADMSG;
	p->fragment = true;
	p->first = offset == 0;
	return 0;
}

static void set_traffic_class(struct tun_packet *p, uint8_t traffic_class)
{
	p->dscp = traffic_class >> 2;
	p->ecn = traffic_class & 3;
	/* AF41..AF43 (RFC 2597), CS5, VOICE-ADMIT, EF, CS6, CS7 (RFC 4594) */
	p->urgent = (p->dscp >= 34 && p->dscp <= 38) || p->dscp >= 40;
}

static int parse_ip4(struct tun_packet *p)
{
	const uint8_t *const ip = p->data;
	size_t header_bytes;
	uint16_t fragment;
	int r;

	if (p->data_bytes < IP4_HEADER_BYTES)
		return -EBADMSG;
	header_bytes = (size_t)(ip[0] & 15) * 4;
	if (header_bytes < IP4_HEADER_BYTES || header_bytes > p->data_bytes ||
	    get16(ip + IP4_LENGTH) != p->data_bytes ||
	    sum_fold(sum_bytes(ip, header_bytes, 0)) != 0xffff)
		return -EBADMSG;
	r = check_ip4_options(ip + IP4_HEADER_BYTES, ip + header_bytes);
	if (r < 0)
		return r;
	p->family = FAMILY_IPV4;
	p->protocol = ip[IP4_PROTOCOL];
	p->transport_offset = (uint32_t)header_bytes;
	set_traffic_class(p, ip[IP4_TOS]);
	fragment = get16(ip + IP4_FRAGMENT);
	if (fragment & (IP4_MORE_FRAGMENTS | IP4_FRAGMENT_OFFSET_MASK))
		return check_fragment(p, (size_t)(fragment & IP4_FRAGMENT_OFFSET_MASK) * 8,
				      fragment & IP4_MORE_FRAGMENTS);
	return 0;
}

static int parse_ip6(struct tun_packet *p)
{
	const uint8_t *const ip = p->data, *const fragment = ip + IP6_HEADER_BYTES;

	if (p->data_bytes < IP6_HEADER_BYTES ||
	    get16(ip + IP6_LENGTH) != p->data_bytes - IP6_HEADER_BYTES)
		return -EBADMSG;
	p->family = FAMILY_IPV6;
	p->protocol = ip[IP6_NEXT];
	p->transport_offset = IP6_HEADER_BYTES;
	set_traffic_class(p, (uint8_t)(get16(ip) >> 4));
	if (p->protocol != PROTOCOL_FRAGMENT)
		return 0;
	if (p->data_bytes < IP6_HEADER_BYTES + IP6_FRAGMENT_BYTES)
		return -EBADMSG;
	p->protocol = fragment[0]; /* another extension header is not carried */
	p->transport_offset += IP6_FRAGMENT_BYTES;
	return check_fragment(p, get16(fragment + 2) & 0xfff8u, fragment[3] & 1);
}

static int parse_ip(uint8_t *data, size_t data_bytes, struct tun_packet *p)
{
	int r = -EBADMSG;

	*p = (struct tun_packet){ .data = data, .data_bytes = data_bytes, .first = true };
	if (data_bytes == 0 || data_bytes > TUN_PACKET_BYTES)
		return -EBADMSG;
	if (data[0] >> 4 == 4)
		r = parse_ip4(p);
	else if (data[0] >> 4 == 6)
		r = parse_ip6(p);
	return r < 0 ? r : parse_transport(p);
}

/* ---- offload header --------------------------------------------------------------------- */

static bool checksum_header_sound(const struct tun_packet *p, const uint8_t *vnet)
{
	const size_t length = p->data_bytes - p->transport_offset;

	if ((p->protocol != PROTOCOL_TCP && p->protocol != PROTOCOL_UDP) || p->fragment)
		return false;
	if (p->protocol == PROTOCOL_UDP &&
	    get16(p->data + p->transport_offset + UDP_LENGTH) != length)
		return false;
	return get16_le(vnet + VNET_CHECKSUM_START) == p->transport_offset &&
	       get16_le(vnet + VNET_CHECKSUM_OFFSET) == wire_checksum_offset(p->protocol);
}

static bool gso_sound(const struct tun_packet *p, uint8_t gso, bool ecn, uint16_t gso_bytes)
{
	const size_t payload_bytes = p->data_bytes - p->payload_offset;

	if (!p->checksum_partial)
		return false;
	switch (gso) {
	case TUN_GSO_TCP4:
		return p->family == FAMILY_IPV4 && p->tcp && gso_bytes >= TCP_SEGMENT_BYTES_MIN;
	case TUN_GSO_TCP6:
		return p->family == FAMILY_IPV6 && p->tcp && gso_bytes >= TCP_SEGMENT_BYTES_MIN;
	case TUN_GSO_UDP:
		return p->protocol == PROTOCOL_UDP && !ecn && gso_bytes > 0 &&
		       payload_bytes <= (size_t)gso_bytes * UDP_SEGMENTS_MAX;
	default:
		return false;
	}
}

static int parse_vnet(struct tun_packet *p, const uint8_t *vnet)
{
	const uint8_t flags = vnet[VNET_FLAGS], type = vnet[VNET_GSO_TYPE];
	const uint8_t gso = (uint8_t)(type & ~VNET_GSO_ECN);
	const uint16_t gso_bytes = get16_le(vnet + VNET_GSO_BYTES);
	const bool ecn = type & VNET_GSO_ECN;

	if (flags & ~(VNET_NEEDS_CHECKSUM | VNET_DATA_VALID))
		return -EBADMSG;
	if (flags & VNET_NEEDS_CHECKSUM) {
		if (!checksum_header_sound(p, vnet))
			return -EBADMSG;
		p->checksum_partial = true;
	}
	p->checksum_valid = (flags & VNET_DATA_VALID) && !p->checksum_partial;
	if (type == TUN_GSO_NONE)
		return 0;
	if (!gso_sound(p, gso, ecn, gso_bytes))
		return -EBADMSG;
	/* One segment is no super-packet; kernels differ about taking such. */
	if (p->data_bytes - p->payload_offset <= gso_bytes)
		return 0;
	p->gso = gso;
	p->gso_ecn = ecn;
	p->gso_bytes = gso_bytes;
	return 0;
}

int tun_packet_parse_frame(uint8_t *frame, size_t frame_bytes, struct tun_packet *ret_packet)
{
	struct tun_packet packet;
	int r;

	if (frame_bytes <= TUN_VNET_BYTES)
		return -EBADMSG;
	r = parse_ip(frame + TUN_VNET_BYTES, frame_bytes - TUN_VNET_BYTES, &packet);
	if (r == 0)
		r = parse_vnet(&packet, frame);
	if (r == 0)
		*ret_packet = packet;
	return r;
}

int tun_packet_parse_message(uint8_t *message, size_t message_bytes, struct tun_packet *ret_packet)
{
	struct tun_packet packet;
	int r;

	if (message_bytes == 0)
		return -EBADMSG;
	if (message[0] >> 4 == 0)
		return tun_packet_parse_frame(message, message_bytes, ret_packet);
	r = parse_ip(message, message_bytes, &packet);
	if (r == 0)
		*ret_packet = packet;
	return r;
}

void tun_packet_vnet(const struct tun_packet *p, uint8_t ret_header[static TUN_VNET_BYTES])
{
	memset(ret_header, 0, TUN_VNET_BYTES);
	if (p->checksum_valid)
		ret_header[VNET_FLAGS] = VNET_DATA_VALID;
	if (!p->checksum_partial)
		return;
	ret_header[VNET_FLAGS] = VNET_NEEDS_CHECKSUM;
	ret_header[VNET_GSO_TYPE] = (uint8_t)(p->gso | (p->gso_ecn ? VNET_GSO_ECN : 0));
	put16_le(ret_header + VNET_HEADER_BYTES, (uint16_t)p->payload_offset);
	put16_le(ret_header + VNET_GSO_BYTES, p->gso_bytes);
	put16_le(ret_header + VNET_CHECKSUM_START, (uint16_t)p->transport_offset);
	put16_le(ret_header + VNET_CHECKSUM_OFFSET, (uint16_t)wire_checksum_offset(p->protocol));
}

size_t tun_packet_message_header(struct tun_packet *p, uint8_t ret_header[static TUN_VNET_BYTES])
{
	if (p->gso == TUN_GSO_NONE && p->data_bytes <= FINISH_CHECKSUM_BYTES)
		tun_packet_finish_checksum(p);
	if (!p->checksum_partial)
		return 0;
	tun_packet_vnet(p, ret_header);
	return TUN_VNET_BYTES;
}

/* ---- flow -------------------------------------------------------------------------------- */

uint32_t tun_packet_flow(const struct tun_packet *p, const struct hash_seed *seed)
{
	const bool ip4 = p->family == FAMILY_IPV4;
	uint8_t key[2 + 32 + 4] = { p->protocol, p->fragment };
	uint32_t flow;

	memcpy(key + 2, p->data + (ip4 ? IP4_SOURCE : IP6_SOURCE), ip4 ? 8 : 32);
	if (!p->fragment) { /* all fragments of a packet go one way, and only the first has ports */
		put16(key + 34, p->source_port);
		put16(key + 36, p->destination_port);
	}
	flow = (uint32_t)hash_bytes(seed, key, sizeof(key));
	return flow ? flow : 1;
}
