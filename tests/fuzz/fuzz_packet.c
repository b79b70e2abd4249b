/*
 * IP packets of the peer and of the kernel, through all that the data path does
 * with them. The first byte chooses: bit 0 a frame or a message, bit 1 repair
 * the IPv4 header's checksum (or the mutations would rarely get past it), bit 2
 * put the addresses of the link in.
 */
#include "tun/tun.h"
#include "tun/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

static const struct tun_addresses shown = {
	.own4 = { 100, 64, 1, 1 },
	.peer4 = { 100, 127, 255, 254 },
	.own6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 1 },
	.peer6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 2 },
};
static const struct tun_addresses canonical = {
	.own4 = { 100, 70, 9, 1 },
	.peer4 = { 100, 100, 2, 2 },
	.own6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 1 },
	.peer6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 2 },
};

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what))                                                                       \
			abort();                                                                   \
	} while (0)

static void prepare(uint8_t *ip, size_t n_bytes, uint8_t mode)
{
	size_t header_bytes;

	if ((mode & 4) && n_bytes >= IP6_HEADER_BYTES && ip[0] >> 4 == 6) {
		memcpy(ip + IP6_SOURCE, shown.own6, 16);
		memcpy(ip + IP6_DESTINATION, shown.peer6, 16);
	}
	if (n_bytes < IP4_HEADER_BYTES || ip[0] >> 4 != 4)
		return;
	if (mode & 4) {
		memcpy(ip + IP4_SOURCE, shown.own4, 4);
		memcpy(ip + IP4_DESTINATION, shown.peer4, 4);
	}
	header_bytes = (size_t)(ip[0] & 15) * 4;
	if (!(mode & 2) || header_bytes < IP4_HEADER_BYTES || header_bytes > n_bytes)
		return;
	put16(ip + IP4_CHECKSUM, 0);
	checksum_store(ip + IP4_CHECKSUM, sum_bytes(ip, header_bytes, 0));
}

/* Whether the transport's checksum is right (or there is none to be right). */
static bool transport_sound(const struct tun_packet *p)
{
	const size_t n_bytes = p->data_bytes - p->transport_offset;

	if (p->fragment || (p->protocol != PROTOCOL_TCP && p->protocol != PROTOCOL_ICMP))
		return false;
	return sum_fold(sum_bytes(
		       p->data + p->transport_offset, n_bytes,
		       p->tcp ? sum_pseudo_header(p->data, p->family, p->protocol, n_bytes) : 0)) ==
	       0xffff;
}

static void cut(const struct tun_packet *p)
{
	static uint8_t out[TUN_PACKET_BYTES];
	struct tun_segments segments;
	struct tun_packet part;
	size_t total = 0, n_bytes;

	tun_segments_init(&segments, p);
	while ((n_bytes = tun_segments_next(&segments, out, sizeof(out))) > 0) {
		CHECK(tun_packet_parse_message(out, n_bytes, &part) == 0);
		CHECK(part.gso == TUN_GSO_NONE && part.payload_offset == p->payload_offset);
		total += n_bytes - p->payload_offset;
	}
	CHECK(total == p->data_bytes - p->payload_offset && segments.done);
	CHECK(segments.n <= TUN_SEGMENTS_MAX);
}

/* What goes to the peer must be understood there as it was here. */
static void send(struct tun_packet *p)
{
	static uint8_t message[TUN_FRAME_BYTES];
	const size_t header = tun_packet_message_header(p, message);
	struct tun_packet there;

	memcpy(message + header, p->data, p->data_bytes);
	CHECK(tun_packet_parse_message(message, header + p->data_bytes, &there) == 0);
	CHECK(there.gso == p->gso && there.gso_bytes == p->gso_bytes && there.tcp == p->tcp &&
	      there.checksum_partial == p->checksum_partial &&
	      there.transport_offset == p->transport_offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	const struct hash_seed seed = { 1, 2 };
	const size_t n_bytes = data_bytes ? data_bytes - 1 : 0;
	const bool frame = data_bytes && (data[0] & 1);
	const size_t before = frame ? min_size(n_bytes, TUN_VNET_BYTES) : 0;
	struct tun_packet p;
	uint8_t *copy;
	bool was_sound;
	int r;

	if (data_bytes == 0 || n_bytes > TUN_FRAME_BYTES)
		return 0;
	copy = malloc(n_bytes ? n_bytes : 1);
	if (!copy)
		return 0;
	memcpy(copy, data + 1, n_bytes);
	prepare(copy + before, n_bytes - before, data[0]);
	r = frame ? tun_packet_parse_frame(copy, n_bytes, &p)
		  : tun_packet_parse_message(copy, n_bytes, &p);
	CHECK(r == 0 || r == -EBADMSG || r == -EPROTONOSUPPORT);
	if (r == 0) {
		CHECK(p.transport_offset <= p.payload_offset && p.payload_offset <= p.data_bytes);
		CHECK(tun_packet_flow(&p, &seed) != 0);
		CHECK(!p.gso || p.checksum_partial);
		if (tun_packet_check(&p, &shown, TUN_TO_PEER) == 0) {
			was_sound = transport_sound(&p);
			tun_packet_translate(&p, &shown, &canonical);
			CHECK(tun_packet_check(&p, &canonical, TUN_TO_PEER) == 0);
			CHECK(!was_sound || p.checksum_partial || transport_sound(&p));
		}
		CHECK(tun_packet_check(&p, &canonical, TUN_FROM_PEER) == -EPERM || !(data[0] & 4));
		cut(&p);
		send(&p);
	}
	free(copy);
	return 0;
}
