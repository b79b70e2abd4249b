/*
 * Fields and checksums of IP packets, shared by the packet code of this folder.
 *
 * The Internet checksum (RFC 1071) is the same sum in either byte order, so it
 * is computed over the machine's own words and stored as such: no swapping in
 * the loop.
 */
#ifndef TUN_WIRE_H
#define TUN_WIRE_H

#include "tun/tun.h"

/* virtio_net_hdr, little-endian */
enum vnet_offset {
	VNET_FLAGS = 0,
	VNET_GSO_TYPE = 1,
	VNET_HEADER_BYTES = 2,
	VNET_GSO_BYTES = 4,
	VNET_CHECKSUM_START = 6,
	VNET_CHECKSUM_OFFSET = 8,
};

enum vnet_flag { VNET_NEEDS_CHECKSUM = 1, VNET_DATA_VALID = 2 };
#define VNET_GSO_ECN 0x80

enum ip4_offset {
	IP4_TOS = 1,
	IP4_LENGTH = 2,
	IP4_ID = 4,
	IP4_FRAGMENT = 6,
	IP4_PROTOCOL = 9,
	IP4_CHECKSUM = 10,
	IP4_SOURCE = 12,
	IP4_DESTINATION = 16,
	IP4_HEADER_BYTES = 20,
};

enum ip6_offset {
	IP6_LENGTH = 4,
	IP6_NEXT = 6,
	IP6_SOURCE = 8,
	IP6_DESTINATION = 24,
	IP6_HEADER_BYTES = 40,
	IP6_FRAGMENT_BYTES = 8,
};

enum tcp_offset {
	TCP_SEQUENCE = 4,
	TCP_DATA_OFFSET = 12,
	TCP_FLAGS = 13,
	TCP_CHECKSUM = 16,
	TCP_HEADER_BYTES = 20,
};
enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_CWR = 0x80,
};

enum udp_offset { UDP_LENGTH = 4, UDP_CHECKSUM = 6, UDP_HEADER_BYTES = 8 };

enum ip_protocol {
	PROTOCOL_ICMP = 1,
	PROTOCOL_IPIP = 4,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_DCCP = 33,
	PROTOCOL_IPV6 = 41,
	PROTOCOL_FRAGMENT = 44,
	PROTOCOL_GRE = 47,
	PROTOCOL_ESP = 50,
	PROTOCOL_AH = 51,
	PROTOCOL_ICMPV6 = 58,
	PROTOCOL_L2TP = 115,
	PROTOCOL_SCTP = 132,
	PROTOCOL_UDPLITE = 136,
};

static inline uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}
static inline void put16(uint8_t *at, uint16_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}
static inline uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}
static inline void put32(uint8_t *at, uint32_t v)
{
	put16(at, (uint16_t)(v >> 16));
	put16(at + 2, (uint16_t)v);
}
static inline uint16_t get16_le(const uint8_t *at)
{
	return (uint16_t)(at[1] << 8 | at[0]);
}
static inline void put16_le(uint8_t *at, uint16_t v)
{
	at[0] = (uint8_t)v;
	at[1] = (uint8_t)(v >> 8);
}

/* Where the checksum stands that covers a pseudo-header, from the transport header; 0: none. */
size_t wire_checksum_offset(uint8_t protocol);

/* Adds bytes to a sum of the machine's 16-bit words. An odd last byte is padded with zero. */
uint64_t sum_bytes(const void *data, size_t n_bytes, uint64_t sum);
/* The sum as one 16-bit word, in memory order; not yet inverted. */
uint16_t sum_fold(uint64_t sum);
/* Sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1). */
uint64_t sum_pseudo_header(const uint8_t *ip, uint8_t family, uint8_t protocol,
			   size_t transport_bytes);

/* Writes an inverted sum at a checksum field. */
void checksum_store(uint8_t *at, uint64_t sum);
/* The same, zero being "no checksum" there (UDP). */
void checksum_store_udp(uint8_t *at, uint64_t sum);

/* RFC 1624: replaces n_bytes (even) at an even offset and adds what changed to *delta. */
void sum_replace(uint8_t *at, const uint8_t *with, size_t n_bytes, uint64_t *delta);
/* Applies that to a whole checksum, or to one that is still a plain sum. */
void checksum_adjust(uint8_t *at, uint64_t delta);
void checksum_adjust_udp(uint8_t *at, uint64_t delta); /* zero stays zero and is never made */
void checksum_adjust_partial(uint8_t *at, uint64_t delta);

#endif
