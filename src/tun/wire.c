/* The Internet checksum: whole (RFC 1071) and by increments (RFC 1624). */
#include "tun/wire.h"

static uint16_t load_word(const uint8_t *at)
{
	uint16_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

static void store_word(uint8_t *at, uint16_t word)
{
	memcpy(at, &word, sizeof(word));
}

size_t wire_checksum_offset(uint8_t protocol)
{
	switch (protocol) {
	case PROTOCOL_TCP:
		return TCP_CHECKSUM;
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
	case PROTOCOL_DCCP:
		return UDP_CHECKSUM;
	default:
		return 0;
	}
}

/* 32-bit words into 64 bits: no carry can be lost below 16 GiB. */
uint64_t sum_bytes(const void *data, size_t n_bytes, uint64_t sum)
{
	const uint8_t *at = data;
	uint32_t words[4];

	for (; n_bytes >= sizeof(words); at += sizeof(words), n_bytes -= sizeof(words)) {
		memcpy(words, at, sizeof(words));
		sum += (uint64_t)words[0] + words[1] + words[2] + words[3];
	}
	for (; n_bytes >= 2; at += 2, n_bytes -= 2)
		sum += load_word(at);
	if (n_bytes > 0)
		sum += load_word((const uint8_t[2]){ at[0], 0 });
	return sum;
}

uint16_t sum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint64_t sum_pseudo_header(const uint8_t *ip, uint8_t family, uint8_t protocol,
			   size_t transport_bytes)
{
	uint8_t tail[8] = { [7] = protocol };

	put32(tail, (uint32_t)transport_bytes);
	return sum_bytes(tail, sizeof(tail),
			 family == FAMILY_IPV4 ? sum_bytes(ip + IP4_SOURCE, 8, 0)
					       : sum_bytes(ip + IP6_SOURCE, 32, 0));
}

void checksum_store(uint8_t *at, uint64_t sum)
{
	store_word(at, (uint16_t)~sum_fold(sum));
}

void checksum_store_udp(uint8_t *at, uint64_t sum)
{
	const uint16_t checksum = (uint16_t)~sum_fold(sum);

	store_word(at, checksum ? checksum : 0xffff);
}

void sum_replace(uint8_t *at, const uint8_t *with, size_t n_bytes, uint64_t *delta)
{
	for (size_t i = 0; i < n_bytes; i += 2) {
		*delta += (uint16_t)~load_word(at + i);
		*delta += load_word(with + i);
	}
	memmove(at, with, n_bytes);
}

void checksum_adjust(uint8_t *at, uint64_t delta)
{
	checksum_store(at, (uint64_t)(uint16_t)~load_word(at) + delta);
}

void checksum_adjust_udp(uint8_t *at, uint64_t delta)
{
	if (load_word(at) != 0)
		checksum_store_udp(at, (uint64_t)(uint16_t)~load_word(at) + delta);
}

void checksum_adjust_partial(uint8_t *at, uint64_t delta)
{
	store_word(at, sum_fold(load_word(at) + delta));
}
