#include "unit.h"
#include "tun/tun.h"

#include <stdio.h>

/*
 * Packets are made here from a seed, and checksums are computed here a second
 * time, the slow way: byte pairs, as RFC 1071 draws it.
 */

static uint64_t rng_state;

static uint32_t rng(uint32_t below)
{
	rng_state = rng_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(rng_state >> 33) % below;
}

static void seed(uint64_t value)
{
	rng_state = value * UINT64_C(0x9e3779b97f4a7c15) + 1;
	rng(2);
}

static uint16_t word(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static void set_word(uint8_t *at, size_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static uint32_t slow_sum(const uint8_t *data, size_t n_bytes, uint32_t sum)
{
	for (size_t i = 0; i < n_bytes; i += 2) {
		sum += (uint32_t)(data[i] << 8 | (i + 1 < n_bytes ? data[i + 1] : 0));
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

static bool ip4(const uint8_t *ip)
{
	return ip[0] >> 4 == 4;
}

static uint32_t pseudo(const uint8_t *ip, uint8_t protocol, size_t n_bytes)
{
	const uint32_t sum = ip4(ip) ? slow_sum(ip + 12, 8, 0) : slow_sum(ip + 8, 32, 0);

	return slow_sum((const uint8_t[]){ (uint8_t)(n_bytes >> 8), (uint8_t)n_bytes, 0, protocol },
			4, sum);
}

/* A sum over sound data is 0xffff (or 0, the same in ones' complement). */
static void assert_checksums(const uint8_t *ip, size_t n_bytes, uint8_t protocol, size_t offset)
{
	const uint8_t *const t = ip + offset;
	const size_t length = n_bytes - offset;

	if (ip4(ip))
		assert_int_equal(slow_sum(ip, (size_t)(ip[0] & 15) * 4, 0), 0xffff);
	if (protocol == 17 && ip4(ip) && word(t + 6) == 0)
		return;
	if (protocol == 6 || protocol == 17 || protocol == 58)
		assert_int_equal(slow_sum(t, length, pseudo(ip, protocol, length)), 0xffff);
	else if (protocol == 1)
		assert_int_equal(slow_sum(t, length, 0), 0xffff);
}

static const struct tun_addresses canonical = {
	.own4 = { 100, 64, 1, 1 },
	.peer4 = { 100, 100, 2, 2 },
	.own6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1 },
	.peer6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, 9, 8, 7, 6, 5, 4, 3, 2, 1, 2 },
};
static const struct tun_addresses shown = {
	.own4 = { 100, 64, 1, 1 },
	.peer4 = { 100, 127, 255, 254 },
	.own6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1 },
	.peer6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, 9, 8, 7, 6, 5, 4, 3, 2, 1, 2 },
};

struct made {
	uint8_t frame[TUN_FRAME_BYTES];
	size_t frame_bytes;
	uint8_t *ip;
	size_t ip_bytes;
	size_t offset; /* of the transport header */
	size_t payload;
	uint8_t protocol;
};

static void make_ip(struct made *m, uint8_t family, uint8_t protocol, size_t options_bytes,
		    size_t transport_bytes, const struct tun_addresses *a)
{
	uint8_t *const ip = m->ip;

	m->offset = family == 4 ? 20 + options_bytes : 40;
	m->protocol = protocol;
	m->ip_bytes = m->offset + transport_bytes;
	m->frame_bytes = TUN_VNET_BYTES + m->ip_bytes;
	if (family == 4) {
		ip[0] = (uint8_t)(0x45 + options_bytes / 4);
		ip[1] = (uint8_t)rng(256);
		set_word(ip + 2, m->ip_bytes);
		set_word(ip + 4, rng(65536));
		ip[8] = 64;
		ip[9] = protocol;
		memcpy(ip + 12, a->own4, 4);
		memcpy(ip + 16, a->peer4, 4);
		memset(ip + 20, 1, options_bytes); /* no-operation */
		set_word(ip + 10, 0xffff & ~slow_sum(ip, m->offset, 0));
	} else {
		ip[0] = 0x60;
		ip[1] = (uint8_t)rng(256);
		set_word(ip + 4, transport_bytes);
		ip[6] = protocol;
		ip[7] = 64;
		memcpy(ip + 8, a->own6, 16);
		memcpy(ip + 24, a->peer6, 16);
	}
}

static void make_checksum(struct made *m)
{
	uint8_t *const t = m->ip + m->offset;
	const size_t length = m->ip_bytes - m->offset;
	const size_t at = m->protocol == 6 ? 16 : m->protocol == 17 ? 6 : 2;
	uint32_t sum = m->protocol == 1 ? 0 : pseudo(m->ip, m->protocol, length);

	set_word(t + at, 0);
	sum = 0xffff & ~slow_sum(t, length, sum);
	set_word(t + at, m->protocol == 17 && sum == 0 ? 0xffff : sum);
}

/* A sound packet to the peer, of any kind, without offloads. */
static void make(struct made *m, uint8_t family, uint8_t protocol, size_t payload_bytes,
		 const struct tun_addresses *a)
{
	const size_t tcp_options = protocol == 6 ? 4 * rng(11) : 0;
	const size_t header = protocol == 6 ? 20 + tcp_options : 8;
	uint8_t *t;

	memset(m->frame, 0, TUN_VNET_BYTES + 120);
	m->ip = m->frame + TUN_VNET_BYTES;
	make_ip(m, family, protocol, family == 4 ? 4 * rng(11) : 0, header + payload_bytes, a);
	m->payload = m->offset + header;
	t = m->ip + m->offset;
	for (size_t i = 0; i < header + payload_bytes; i++)
		t[i] = (uint8_t)rng(256);
	if (protocol == 6)
		t[12] = (uint8_t)(header / 4 << 4);
	else if (protocol == 17)
		set_word(t + 4, 8 + payload_bytes);
	else
		t[0] = protocol == 1 ? 8 : 128; /* echo */
	make_checksum(m);
}

static void fix_header4(struct made *m)
{
	set_word(m->ip + 10, 0);
	set_word(m->ip + 10, 0xffff & ~slow_sum(m->ip, m->offset, 0));
}

static void set_ecn(struct made *m, uint8_t ecn)
{
	if (m->ip[0] >> 4 == 6) {
		m->ip[1] = (uint8_t)((m->ip[1] & 0xcf) | ecn << 4);
		return;
	}
	m->ip[1] = (uint8_t)((m->ip[1] & 0xfc) | ecn);
	fix_header4(m);
}

static void make_partial(struct made *m, uint8_t gso, uint16_t gso_bytes)
{
	const size_t at = m->protocol == 6 ? 16 : 6;

	m->frame[0] = 1;
	m->frame[1] = gso;
	m->frame[4] = (uint8_t)gso_bytes;
	m->frame[5] = (uint8_t)(gso_bytes >> 8);
	m->frame[6] = (uint8_t)m->offset;
	m->frame[7] = (uint8_t)(m->offset >> 8);
	m->frame[8] = (uint8_t)at;
	m->frame[9] = 0;
	set_word(m->ip + m->offset + at, pseudo(m->ip, m->protocol, m->ip_bytes - m->offset));
}

static const struct {
	uint8_t family, protocol;
} kinds[] = { { 4, 6 }, { 4, 17 }, { 4, 1 }, { 6, 6 }, { 6, 17 }, { 6, 58 } };

static struct made made;
static uint8_t copy[TUN_FRAME_BYTES], out[TUN_FRAME_BYTES];

/* ---- parsing ---------------------------------------------------------------------------- */

static void sound_packets_are_understood(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 3000; n++) {
		struct tun_packet p;
		const size_t kind = n % ARRAY_SIZE(kinds);

		seed(n);
		make(&made, kinds[kind].family, kinds[kind].protocol, rng(1400), &canonical);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
		assert_ptr_equal(p.data, made.ip);
		assert_int_equal(p.data_bytes, made.ip_bytes);
		assert_int_equal(p.family, kinds[kind].family);
		assert_int_equal(p.protocol, kinds[kind].protocol);
		assert_int_equal(p.transport_offset, made.offset);
		assert_int_equal(p.tcp, p.protocol == 6);
		assert_int_equal(p.pure_ack, p.tcp && made.payload == made.ip_bytes &&
						     (made.ip[made.offset + 13] & 0x07) == 0);
		assert_false(p.fragment);
		assert_true(p.first);
		if (p.tcp || p.protocol == 17) {
			assert_int_equal(p.payload_offset, made.payload);
			assert_int_equal(p.source_port, word(made.ip + made.offset));
			assert_int_equal(p.destination_port, word(made.ip + made.offset + 2));
		}
		/* the same, as a message without header */
		assert_int_equal(tun_packet_parse_message(made.ip, made.ip_bytes, &p), 0);
		assert_int_equal(p.transport_offset, made.offset);
	}
}

static void a_packet_cut_or_padded_anywhere_is_refused(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 60; n++) {
		struct tun_packet p;

		seed(n);
		make(&made, kinds[n % 6].family, kinds[n % 6].protocol, rng(200), &canonical);
		for (size_t length = 0; length <= made.frame_bytes + 20; length++) {
			if (length == made.frame_bytes)
				continue;
			/* An exact copy, so that a sanitizer sees a read past the end. */
			uint8_t *exact = calloc(1, length ? length : 1);

			assert_non_null(exact);
			memcpy(exact, made.frame, min_size(length, made.frame_bytes));
			assert_int_equal(tun_packet_parse_frame(exact, length, &p), -EBADMSG);
			free(exact);
		}
	}
}

/* Flips every bit of the headers. What still passes must still be safe to work with. */
static void a_flipped_bit_never_breaks_what_follows(void **state)
{
	const struct hash_seed hash = { 1, 2 };

	(void)state;
	for (uint32_t n = 0; n < 24; n++) {
		seed(n);
		make(&made, kinds[n % 6].family, kinds[n % 6].protocol, 100 + rng(200), &shown);
		if (n % 6 == 0 || n % 6 == 3)
			make_partial(&made, n % 6 == 0 ? TUN_GSO_TCP4 : TUN_GSO_TCP6, 64);
		for (size_t bit = 0; bit < 8 * (TUN_VNET_BYTES + made.payload); bit++) {
			struct tun_segments segments;
			struct tun_packet p;
			uint8_t *exact = malloc(made.frame_bytes);
			size_t total = 0, size;

			assert_non_null(exact);
			memcpy(exact, made.frame, made.frame_bytes);
			exact[bit / 8] ^= (uint8_t)(1 << bit % 8);
			if (tun_packet_parse_frame(exact, made.frame_bytes, &p) == 0) {
				assert_true(p.transport_offset <= p.payload_offset);
				assert_true(p.payload_offset <= p.data_bytes);
				assert_true(tun_packet_flow(&p, &hash) != 0);
				tun_packet_check(&p, &shown, TUN_TO_PEER);
				tun_packet_translate(&p, &shown, &canonical);
				tun_segments_init(&segments, &p);
				while ((size = tun_segments_next(&segments, out, sizeof(out))) > 0)
					total += size - p.payload_offset;
				assert_int_equal(total, p.data_bytes - p.payload_offset);
			}
			free(exact);
		}
	}
}

static void lengths_that_lie_are_refused(void **state)
{
	struct tun_packet p;

	(void)state;
	seed(1);
	make(&made, 4, 17, 100, &canonical);
	set_word(made.ip + made.offset + 4, 7); /* shorter than its header */
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);
	set_word(made.ip + made.offset + 4, 109); /* longer than the packet */
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);
	set_word(made.ip + made.offset + 4, 50);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);

	make(&made, 6, 6, 10, &canonical);
	made.ip[made.offset + 12] = 0x40; /* TCP header of 16 bytes */
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);
	made.ip[made.offset + 12] = 0xf0;
	made.ip_bytes = made.offset + 40;
	set_word(made.ip + 4, 40);
	assert_int_equal(tun_packet_parse_message(made.ip, made.ip_bytes, &p), -EBADMSG);
}

static void unknown_and_extension_headers_are_not_carried(void **state)
{
	/* hop-by-hop, routing, no next header, destination, mobility, HIP, experiments, IGMP */
	static const uint8_t refused[] = { 0, 43, 59, 60, 135, 139, 140, 253, 254, 2, 1 };
	struct tun_packet p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		seed(i);
		make(&made, 6, 58, 100, &canonical);
		made.ip[6] = refused[i];
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p),
				 -EPROTONOSUPPORT);
		/* ... behind a fragment header neither */
		made.ip[6] = 44;
		memset(made.ip + 40, 0, 8);
		made.ip[40] = refused[i];
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p),
				 -EPROTONOSUPPORT);
	}
	make(&made, 6, 58, 100, &canonical);
	made.ip[6] = 44;
	made.ip[40] = 44; /* a fragment of a fragment */
	set_word(made.ip + 42, 0);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p),
			 -EPROTONOSUPPORT);
}

static void source_routes_and_broken_options_are_refused(void **state)
{
	static const struct {
		uint8_t options[4];
		int result;
	} cases[] = {
		{ { 131, 3, 4, 0 }, -EPROTONOSUPPORT },
		{ { 1, 137, 3, 4 }, -EPROTONOSUPPORT },
		{ { 7, 0, 0, 0 }, -EBADMSG },
		{ { 7, 1, 0, 0 }, -EBADMSG },
		{ { 7, 5, 0, 0 }, -EBADMSG },
		{ { 1, 1, 1, 7 }, -EBADMSG },
		{ { 148, 4, 0, 0 }, 0 }, /* router alert */
		{ { 0, 131, 3, 4 }, 0 }, /* past the end of the list */
	};
	struct tun_packet p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		seed(i);
		memset(made.frame, 0, sizeof(made.frame));
		made.ip = made.frame + TUN_VNET_BYTES;
		make_ip(&made, 4, 1, 4, 8, &canonical);
		memcpy(made.ip + 20, cases[i].options, 4);
		made.ip[24] = 8;
		fix_header4(&made);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p),
				 cases[i].result);
	}
}

static void redirects_are_not_carried(void **state)
{
	struct tun_packet p;

	(void)state;
	seed(4);
	make(&made, 4, 1, 40, &canonical);
	made.ip[made.offset] = 5;
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p),
			 -EPROTONOSUPPORT);
}

static void fragments_are_known_as_such(void **state)
{
	struct tun_packet p;

	(void)state;
	seed(3);
	make(&made, 4, 17, 72, &canonical);
	set_word(made.ip + 6, 0x2000); /* the first, more follow */
	fix_header4(&made);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_true(p.fragment && p.first);
	assert_int_equal(p.destination_port, word(made.ip + made.offset + 2));
	set_word(made.ip + 6, 0x0002); /* a later one, the last */
	fix_header4(&made);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_true(p.fragment && !p.first);
	assert_int_equal(p.destination_port, 0);
	set_word(made.ip + 6, 0x1fff); /* ends past 65535 */
	fix_header4(&made);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);
	make(&made, 4, 17, 71, &canonical);
	set_word(made.ip + 6, 0x2000); /* not a multiple of eight, yet more follow */
	fix_header4(&made);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);
	made.frame[0] = 1; /* a checksum to finish, in a fragment */
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);

	make(&made, 6, 17, 72, &canonical);
	made.ip[6] = 44;
	memset(made.ip + 40, 0, 8);
	made.ip[40] = 17;
	set_word(made.ip + 42, 8); /* offset 8, the last */
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_true(p.fragment && !p.first);
	assert_int_equal(p.protocol, 17);
	assert_int_equal(p.transport_offset, 48);
}

static void offload_headers_must_fit_the_packet(void **state)
{
	/* byte of the header, what to put there; the packet is TCP over IPv4 */
	static const struct {
		uint8_t at, value;
	} bad[] = {
		{ 0, 4 }, /* RSC */
		{ 0, 0 }, /* super-packet without checksum to finish */
		{ 1, 3 }, /* UFO */
		{ 1, 4 }, /* TCP over IPv6 */
		{ 1, 5 }, /* UDP */
		{ 1, 2 },  { 1, 6 },   { 1, 0x83 }, { 1, 0x41 }, { 4, 7 }, /* segments of 7 bytes */
		{ 6, 0 },  { 6, 255 }, { 7, 255 },  { 7, 1 },    { 8, 6 },
		{ 8, 15 }, { 8, 255 }, { 9, 255 },
	};
	struct tun_packet p;

	(void)state;
	seed(9);
	make(&made, 4, 6, 3000, &canonical);
	make_partial(&made, TUN_GSO_TCP4, 200);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_int_equal(p.gso, TUN_GSO_TCP4);
	assert_int_equal(p.gso_bytes, 200);
	assert_true(p.checksum_partial);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(copy, made.frame, made.frame_bytes);
		copy[bad[i].at] = bad[i].value;
		if (tun_packet_parse_frame(copy, made.frame_bytes, &p) != -EBADMSG)
			fail_msg("byte %u = %u passed", bad[i].at, bad[i].value);
	}
	/* more UDP segments than a kernel cuts */
	make(&made, 6, 17, 1290, &canonical);
	make_partial(&made, TUN_GSO_UDP, 10);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);
	make_partial(&made, TUN_GSO_UDP, 0);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);
	make_partial(&made, TUN_GSO_UDP | 0x80, 11);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), -EBADMSG);
	make_partial(&made, TUN_GSO_UDP, 11);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	/* one segment is no super-packet */
	make_partial(&made, TUN_GSO_UDP, 1290);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_int_equal(p.gso, TUN_GSO_NONE);
	assert_true(p.checksum_partial);
}

static void what_is_urgent_is_known_by_marking_or_size(void **state)
{
	struct tun_packet p;

	(void)state;
	seed(11);
	make(&made, 6, 17, 100, &canonical);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_true(p.urgent);
	make(&made, 6, 17, 1000, &canonical);
	made.ip[0] = 0x60, made.ip[1] = 0x00;
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_false(p.urgent);
	made.ip[0] = 0x6b, made.ip[1] = 0x90; /* EF, ECT(1) */
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_true(p.urgent);
	assert_int_equal(p.dscp, 46);
	assert_int_equal(p.ecn, 1);
}

/* ---- messages ------------------------------------------------------------------------------ */

static void a_message_says_what_the_frame_said(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 600; n++) {
		const size_t kind = n % 6, room = TUN_VNET_BYTES;
		struct tun_packet p, q;
		uint8_t vnet[TUN_VNET_BYTES], again[TUN_VNET_BYTES];
		size_t header;

		seed(n);
		make(&made, kinds[kind].family, kinds[kind].protocol, 20 + rng(3000), &canonical);
		if (kinds[kind].protocol == 6)
			make_partial(&made, kinds[kind].family == 4 ? TUN_GSO_TCP4 : TUN_GSO_TCP6,
				     (uint16_t)(8 + rng(2000)));
		else if (kinds[kind].protocol == 17)
			make_partial(&made, TUN_GSO_NONE, 0);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
		header = tun_packet_message_header(&p, vnet);
		assert_true(header == 0 || header == room);
		memcpy(copy, vnet, header);
		memcpy(copy + header, p.data, p.data_bytes);
		assert_int_equal(tun_packet_parse_message(copy, header + p.data_bytes, &q), 0);
		assert_int_equal(q.gso, p.gso);
		assert_int_equal(q.gso_bytes, p.gso_bytes);
		assert_int_equal(q.checksum_partial, p.checksum_partial);
		tun_packet_vnet(&p, vnet);
		tun_packet_vnet(&q, again);
		assert_memory_equal(vnet, again, TUN_VNET_BYTES);
		if (!q.checksum_partial)
			assert_checksums(q.data, q.data_bytes, q.protocol, q.transport_offset);
		if (p.data_bytes <= 256 && p.gso == TUN_GSO_NONE)
			assert_int_equal(header, 0);
	}
}

/* What tun_message_signal() leaves must be what a router would have forwarded. */
static void a_mark_is_on_every_segment(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 300; n++) {
		const size_t kind = n % ARRAY_SIZE(kinds);
		struct tun_packet before, after;
		size_t cut = 0, header;

		seed(n);
		make(&made, kinds[kind].family, kinds[kind].protocol, 300 + rng(3000), &canonical);
		set_ecn(&made, (uint8_t)(1 + n / ARRAY_SIZE(kinds) % 3));
		if (kinds[kind].protocol == 6)
			make_partial(&made, kinds[kind].family == 4 ? TUN_GSO_TCP4 : TUN_GSO_TCP6,
				     (uint16_t)(8 + rng(2000)));
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &before), 0);
		header = tun_packet_message_header(&before, copy);
		memcpy(copy + header, before.data, before.data_bytes);
		assert_int_equal(tun_message_signal(copy, header + before.data_bytes, &cut),
				 TUN_SIGNAL_MARKED);
		assert_int_equal(cut, 0);
		/* Sound: the IPv4 header checksum was verified. */
		assert_int_equal(tun_packet_parse_message(copy, header + before.data_bytes, &after),
				 0);
		assert_int_equal(after.ecn, 3);
		assert_int_equal(after.dscp, before.dscp);
		assert_int_equal(after.gso_bytes, before.gso_bytes);
		assert_memory_equal(after.data + after.transport_offset,
				    before.data + before.transport_offset,
				    before.data_bytes - before.transport_offset);
		if (!after.checksum_partial)
			assert_checksums(after.data, after.data_bytes, after.protocol,
					 after.transport_offset);
	}
}

static void without_ecn_one_segment_pays(void **state)
{
	static uint8_t expected[TUN_FRAME_BYTES];
	uint32_t n_shortened = 0;

	(void)state;
	for (uint32_t n = 0; n < 400; n++) {
		const uint8_t family = n % 2 ? 4 : 6;
		const bool udp = n % 3 == 0;
		const size_t payload_bytes = 1 + rng(20000);
		struct tun_packet before, after;
		struct tun_segments left, all;
		size_t cut = 0, header, want, got;

		seed(n);
		make(&made, family, udp ? 17 : 6, payload_bytes, &canonical);
		set_ecn(&made, 0);
		make_partial(&made,
			     udp           ? TUN_GSO_UDP
			     : family == 4 ? TUN_GSO_TCP4
					   : TUN_GSO_TCP6,
			     (uint16_t)(200 + rng(2000)));
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &before), 0);
		header = tun_packet_message_header(&before, copy);
		memcpy(copy + header, before.data, before.data_bytes);
		const size_t message_bytes = header + before.data_bytes;
		const bool many = before.gso != TUN_GSO_NONE;
		assert_int_equal(tun_message_signal(copy, message_bytes, &cut),
				 many ? TUN_SIGNAL_SHORTENED : TUN_SIGNAL_DROP);
		if (!many)
			continue;
		n_shortened++;
		assert_int_equal(cut, before.gso_bytes);
		assert_int_equal(tun_packet_parse_message(copy + cut, message_bytes - cut, &after),
				 0);
		tun_segments_init(&all, &before);
		assert_true(tun_segments_next(&all, expected, sizeof(expected)) > 0);
		tun_segments_init(&left, &after);
		while ((want = tun_segments_next(&all, expected, sizeof(expected))) > 0) {
			got = tun_segments_next(&left, out, sizeof(out));
			assert_int_equal(got, want);
			assert_memory_equal(out, expected, want);
		}
		assert_int_equal(tun_segments_next(&left, out, sizeof(out)), 0);
	}
	assert_true(n_shortened > 300);
	/* Rubbish is dropped, not touched. */
	size_t cut = 7;
	memset(copy, 0x45, 100);
	assert_int_equal(tun_message_signal(copy, 100, &cut), TUN_SIGNAL_DROP);
	assert_int_equal(cut, 7);
}

static void an_empty_message_is_refused(void **state)
{
	struct tun_packet p;
	uint8_t none[TUN_VNET_BYTES] = { 0 };

	(void)state;
	assert_int_equal(tun_packet_parse_message(none, 0, &p), -EBADMSG);
	assert_int_equal(tun_packet_parse_message(none, sizeof(none), &p), -EBADMSG);
	none[0] = 0x50;
	assert_int_equal(tun_packet_parse_message(none, sizeof(none), &p), -EBADMSG);
}

/* ---- whose packet ---------------------------------------------------------------------------- */

static int check(uint8_t family, const struct tun_addresses *sender,
		 const struct tun_addresses *link, enum tun_direction direction)
{
	struct tun_packet p;

	make(&made, family, 17, 10, sender);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	return tun_packet_check(&p, link, direction);
}

static void only_the_two_ends_of_a_link_may_speak(void **state)
{
	struct tun_addresses turned = canonical, wrong;

	(void)state;
	seed(5);
	memcpy(turned.own4, canonical.peer4, 4);
	memcpy(turned.peer4, canonical.own4, 4);
	memcpy(turned.own6, canonical.peer6, 16);
	memcpy(turned.peer6, canonical.own6, 16);
	for (uint8_t family = 4; family <= 6; family += 2) {
		assert_int_equal(check(family, &canonical, &canonical, TUN_TO_PEER), 0);
		assert_int_equal(check(family, &canonical, &canonical, TUN_FROM_PEER), -EPERM);
		assert_int_equal(check(family, &turned, &canonical, TUN_FROM_PEER), 0);
		assert_int_equal(check(family, &turned, &canonical, TUN_TO_PEER), -EPERM);
		/* any other address, by any bit */
		for (size_t bit = 0; bit < (family == 4 ? 32u : 128u); bit++) {
			const uint8_t mask = (uint8_t)(1 << bit % 8);

			wrong = turned;
			*(family == 4 ? &wrong.own4[bit / 8] : &wrong.own6[bit / 8]) ^= mask;
			assert_int_equal(check(family, &wrong, &canonical, TUN_FROM_PEER), -EPERM);
			wrong = turned;
			*(family == 4 ? &wrong.peer4[bit / 8] : &wrong.peer6[bit / 8]) ^= mask;
			assert_int_equal(check(family, &wrong, &canonical, TUN_FROM_PEER), -EPERM);
		}
		/* link-local and multicast */
		wrong = canonical;
		memcpy(wrong.own6, (const uint8_t[16]){ 0xfe, 0x80, [15] = 1 }, 16);
		memcpy(wrong.peer6, (const uint8_t[16]){ 0xff, 0x02, [15] = 2 }, 16);
		assert_int_equal(check(6, &wrong, &canonical, TUN_TO_PEER), -EPERM);
	}
	/* a family that is off, even for all-zero addresses */
	wrong = canonical;
	memset(wrong.own4, 0, 4);
	memset(wrong.peer4, 0, 4);
	assert_int_equal(check(4, &wrong, &wrong, TUN_TO_PEER), -EPERM);
	assert_int_equal(check(6, &wrong, &wrong, TUN_TO_PEER), 0);
}

static void translated_packets_have_right_checksums(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 3000; n++) {
		struct tun_packet p;

		seed(n);
		make(&made, kinds[n % 6].family, kinds[n % 6].protocol, rng(1400), &shown);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
		memcpy(copy, made.ip, made.ip_bytes);
		tun_packet_translate(&p, &shown, &canonical);
		assert_int_equal(tun_packet_check(&p, &canonical, TUN_TO_PEER), 0);
		assert_checksums(p.data, p.data_bytes, p.protocol, p.transport_offset);
		/* and back again, to the very bytes */
		tun_packet_translate(&p, &canonical, &shown);
		assert_memory_equal(p.data, copy, made.ip_bytes);
	}
}

static void a_partial_checksum_stays_right_when_translated(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 400; n++) {
		struct tun_packet p;

		seed(n);
		make(&made, 4, n % 2 ? 6 : 17, 300 + rng(1100), &shown);
		make_partial(&made, TUN_GSO_NONE, 0);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
		tun_packet_translate(&p, &shown, &canonical);
		assert_int_equal(word(p.data + p.transport_offset + (n % 2 ? 16 : 6)),
				 pseudo(p.data, p.protocol, p.data_bytes - p.transport_offset));
		tun_packet_finish_checksum(&p);
		assert_false(p.checksum_partial);
		assert_checksums(p.data, p.data_bytes, p.protocol, p.transport_offset);
	}
}

static void udp_without_a_checksum_stays_without(void **state)
{
	struct tun_packet p;

	(void)state;
	seed(2);
	make(&made, 4, 17, 50, &shown);
	set_word(made.ip + made.offset + 6, 0);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	tun_packet_translate(&p, &shown, &canonical);
	assert_int_equal(word(p.data + p.transport_offset + 6), 0);
}

/* An error that quotes a packet of the peer to us: what is quoted is translated as well. */
static void errors_quote_translated_packets(void **state)
{
	static struct made quoted;

	(void)state;
	for (uint32_t n = 0; n < 600; n++) {
		struct tun_addresses turned = shown;
		struct tun_packet p;
		size_t quote;

		seed(n);
		memcpy(turned.own4, shown.peer4, 4);
		memcpy(turned.peer4, shown.own4, 4);
		make(&quoted, 4, n % 2 ? 6 : 17, 100 + rng(100), &turned);
		/* eight bytes past the header at least; sometimes all of it */
		quote = rng(3) ? quoted.offset + 8 + rng(40) : quoted.ip_bytes;

		make(&made, 4, 1, quote, &shown);
		made.ip[made.offset] = (const uint8_t[]){ 3, 11, 12, 4 }[rng(4)];
		memcpy(made.ip + made.offset + 8, quoted.ip, quote);
		make_checksum(&made);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
		tun_packet_translate(&p, &shown, &canonical);
		assert_checksums(p.data, p.data_bytes, 1, p.transport_offset);

		const uint8_t *const inner = p.data + p.transport_offset + 8;

		assert_memory_equal(inner + 12, canonical.peer4, 4);
		assert_memory_equal(inner + 16, canonical.own4, 4);
		assert_int_equal(slow_sum(inner, quoted.offset, 0), 0xffff);
		if (quote == quoted.ip_bytes)
			assert_checksums(inner, quote, quoted.protocol, quoted.offset);
	}
}

static void a_broken_quotation_is_left_alone(void **state)
{
	(void)state;
	for (size_t quote = 0; quote < 64; quote++) {
		struct tun_packet p;

		seed(quote);
		make(&made, 4, 1, quote, &shown);
		made.ip[made.offset] = 3;
		if (quote > 0) /* claims a header longer than what is there */
			made.ip[made.offset + 8] = 0x4f;
		make_checksum(&made);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
		tun_packet_translate(&p, &shown, &canonical);
		assert_int_equal(tun_packet_check(&p, &canonical, TUN_TO_PEER), 0);
		assert_checksums(p.data, p.data_bytes, 1, p.transport_offset);
	}
}

/* ---- flows ------------------------------------------------------------------------------------
 */

static void a_flow_is_its_five_values(void **state)
{
	const struct hash_seed one = { 1, 2 }, two = { 3, 4 };
	struct tun_packet p;
	uint32_t flow;

	(void)state;
	seed(8);
	make(&made, 4, 6, 100, &canonical);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	flow = tun_packet_flow(&p, &one);
	assert_true(flow != tun_packet_flow(&p, &two));
	made.ip[made.ip_bytes - 1] ^= 1; /* payload */
	made.ip[1] ^= 4;
	assert_int_equal(tun_packet_flow(&p, &one), flow);
	p.source_port ^= 1;
	assert_true(tun_packet_flow(&p, &one) != flow);
	p.source_port ^= 1;
	p.destination_port ^= 1;
	assert_true(tun_packet_flow(&p, &one) != flow);
	p.destination_port ^= 1;
	made.ip[19] ^= 1;
	assert_true(tun_packet_flow(&p, &one) != flow);
}

static void all_fragments_of_a_packet_are_one_flow(void **state)
{
	const struct hash_seed hash = { 1, 2 };
	struct tun_packet p;
	uint32_t flow;

	(void)state;
	seed(8);
	make(&made, 4, 17, 72, &canonical);
	set_word(made.ip + 6, 0x2000);
	fix_header4(&made);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	flow = tun_packet_flow(&p, &hash);
	set_word(made.ip + 6, 0x000a);
	fix_header4(&made);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_int_equal(tun_packet_flow(&p, &hash), flow);
}

/* ---- segments -----------------------------------------------------------------------------------
 */

static uint32_t sequence(const uint8_t *tcp)
{
	return (uint32_t)word(tcp + 4) << 16 | word(tcp + 6);
}

static void super_packets_are_cut_as_a_card_would(void **state)
{
	static const struct {
		uint8_t family, protocol, gso;
	} cuts[] = { { 4, 6, TUN_GSO_TCP4 },
		     { 6, 6, TUN_GSO_TCP6 | 0x80 },
		     { 4, 17, TUN_GSO_UDP },
		     { 6, 17, TUN_GSO_UDP } };

	(void)state;
	for (uint32_t n = 0; n < 200; n++) {
		struct tun_segments segments;
		struct tun_packet p, part;
		const size_t kind = n % 4;
		size_t done = 0, size, count = 0;
		bool more;

		seed(n);
		const uint16_t gso_bytes = (uint16_t)(500 + rng(960));

		make(&made, cuts[kind].family, cuts[kind].protocol,
		     gso_bytes + 1u + rng(60000u - gso_bytes), &canonical);
		if (cuts[kind].protocol == 6)
			made.ip[made.offset + 13] = 0x99; /* CWR, ACK, PSH, FIN */
		make_partial(&made, cuts[kind].gso, gso_bytes);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
		tun_segments_init(&segments, &p);
		assert_int_equal(
			tun_segments_next(&segments, out, p.payload_offset + gso_bytes - 1u), 0);
		while ((size = tun_segments_next(&segments, out, sizeof(out))) > 0) {
			const size_t payload = size - p.payload_offset;
			const uint8_t *const t = out + p.transport_offset;

			assert_int_equal(tun_packet_parse_message(out, size, &part), 0);
			assert_checksums(out, size, p.protocol, p.transport_offset);
			assert_int_equal(tun_packet_check(&part, &canonical, TUN_TO_PEER), 0);
			assert_memory_equal(out + p.payload_offset,
					    p.data + p.payload_offset + done, payload);
			more = done + payload < p.data_bytes - p.payload_offset;
			assert_true(more ? payload == gso_bytes : payload <= gso_bytes);
			if (p.tcp) {
				assert_int_equal(sequence(t),
						 sequence(p.data + p.transport_offset) +
							 (uint32_t)done);
				assert_int_equal(t[13] & 0x09, more ? 0 : 0x09);
				assert_int_equal(t[13] & 0x80, count > 0 && p.gso_ecn ? 0 : 0x80);
			} else {
				assert_int_equal(word(t + 4), 8 + payload);
			}
			if (p.family == 4)
				assert_int_equal(word(out + 4),
						 (uint16_t)(word(p.data + 4) + count));
			done += payload;
			count++;
		}
		assert_int_equal(done, p.data_bytes - p.payload_offset);
		assert_int_equal(count, (done + gso_bytes - 1) / gso_bytes);
	}
}

static void any_other_packet_comes_out_once_and_whole(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 120; n++) {
		struct tun_segments segments;
		struct tun_packet p;

		seed(n);
		make(&made, kinds[n % 6].family, kinds[n % 6].protocol, rng(1400), &canonical);
		memcpy(copy, made.ip, made.ip_bytes);
		if (kinds[n % 6].protocol == 6 || kinds[n % 6].protocol == 17)
			make_partial(&made, TUN_GSO_NONE, 0);
		assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
		assert_int_equal(tun_packet_fits(&p, 0), !p.checksum_partial);
		tun_segments_init(&segments, &p);
		assert_int_equal(tun_segments_next(&segments, out, sizeof(out)), made.ip_bytes);
		assert_memory_equal(out, copy, made.ip_bytes);
		assert_int_equal(tun_segments_next(&segments, out, sizeof(out)), 0);
	}
}

static void a_device_takes_what_its_features_say(void **state)
{
	struct tun_packet p;

	(void)state;
	seed(1);
	make(&made, 4, 17, 3000, &canonical);
	make_partial(&made, TUN_GSO_UDP, 1000);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_false(tun_packet_fits(&p, TUN_FEATURE_VNET));
	assert_true(tun_packet_fits(&p, TUN_FEATURE_VNET | TUN_FEATURE_USO));
	make(&made, 4, 6, 3000, &canonical);
	make_partial(&made, TUN_GSO_TCP4, 1000);
	assert_int_equal(tun_packet_parse_frame(made.frame, made.frame_bytes, &p), 0);
	assert_true(tun_packet_fits(&p, TUN_FEATURE_VNET));
	assert_false(tun_packet_fits(&p, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_packets_are_understood),
		cmocka_unit_test(a_packet_cut_or_padded_anywhere_is_refused),
		cmocka_unit_test(a_flipped_bit_never_breaks_what_follows),
		cmocka_unit_test(lengths_that_lie_are_refused),
		cmocka_unit_test(unknown_and_extension_headers_are_not_carried),
		cmocka_unit_test(source_routes_and_broken_options_are_refused),
		cmocka_unit_test(redirects_are_not_carried),
		cmocka_unit_test(fragments_are_known_as_such),
		cmocka_unit_test(offload_headers_must_fit_the_packet),
		cmocka_unit_test(what_is_urgent_is_known_by_marking_or_size),
		cmocka_unit_test(a_message_says_what_the_frame_said),
		cmocka_unit_test(a_mark_is_on_every_segment),
		cmocka_unit_test(without_ecn_one_segment_pays),
		cmocka_unit_test(an_empty_message_is_refused),
		cmocka_unit_test(only_the_two_ends_of_a_link_may_speak),
		cmocka_unit_test(translated_packets_have_right_checksums),
		cmocka_unit_test(a_partial_checksum_stays_right_when_translated),
		cmocka_unit_test(udp_without_a_checksum_stays_without),
		cmocka_unit_test(errors_quote_translated_packets),
		cmocka_unit_test(a_broken_quotation_is_left_alone),
		cmocka_unit_test(a_flow_is_its_five_values),
		cmocka_unit_test(all_fragments_of_a_packet_are_one_flow),
		cmocka_unit_test(super_packets_are_cut_as_a_card_would),
		cmocka_unit_test(any_other_packet_comes_out_once_and_whole),
		cmocka_unit_test(a_device_takes_what_its_features_say),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
