#include "q2q/q2q.h"
#include "unit.h"
#include "vectors.h"

#include <stdio.h>

/* ---- harness ---------------------------------------------------------------------------- */

struct link {
	struct q2q_classic *classic;
	struct endpoint peer;
	uint64_t now_us;
	uint8_t got[Q2Q_CLASSIC_DATAGRAM_MAX_BYTES];
	size_t got_bytes;
};

static void link_init(struct link *l, const struct q2q_classic_config *config, const char *peer)
{
	const struct q2q_classic_config defaults = { 0 };

	memset(l, 0, sizeof(*l));
	l->now_us = 5 * US_PER_S;
	assert_int_equal(endpoint_parse(peer, false, &l->peer), 0);
	assert_int_equal(q2q_classic_new(config ? config : &defaults, &l->classic), 0);
}

static bool next(struct link *l)
{
	struct endpoint to;

	l->got_bytes = q2q_classic_output(l->classic, &to, l->got, l->now_us);
	if (l->got_bytes > 0)
		assert_true(endpoint_equal(&to, &l->peer));
	return l->got_bytes > 0;
}

static int give(struct link *l, const char *hex)
{
	uint8_t bytes[1024];

	assert_int_equal(hex_decode(hex, bytes, strlen(hex) / 2), 0);
	return q2q_classic_input(l->classic, &l->peer, bytes, strlen(hex) / 2, l->now_us);
}

static void expect(struct link *l, const char *hex)
{
	char text[HEX_TEXT_BYTES(Q2Q_CLASSIC_DATAGRAM_MAX_BYTES)];

	assert_true(next(l));
	hex_encode(l->got, l->got_bytes, text);
	assert_string_equal(text, hex);
}

/* ---- the recording -------------------------------------------------------------------------- */

static json_t *datagrams_of(json_t *document, const char *name)
{
	return json_object_get(vector_case(document, name), "datagrams");
}

static const char *hex_of(json_t *datagrams, size_t i)
{
	return json_string_value(json_object_get(json_array_get(datagrams, i), "hex"));
}

/* The address that the recorded answer names is where the recorded probe was. */
static void peer_of(json_t *datagrams, size_t answer, char *out, size_t out_bytes)
{
	const char *hex = hex_of(datagrams, answer);
	uint8_t bytes[512];
	struct amp_value value;
	struct amp_box box;
	size_t used;

	assert_int_equal(hex_decode(hex, bytes, strlen(hex) / 2), 0);
	assert_int_equal(amp_box_parse(bytes + 23, strlen(hex) / 2 - 23, &box, &used), 0);
	assert_true(amp_get(&box, "address", &value));
	snprintf(out, out_bytes, "%.*s", (int)value.n_bytes, (const char *)value.data);
}

static void who_am_i_is_answered_byte_by_byte_as_recorded(void **state)
{
	json_t *document = vector_load("ptcp-07-edge-cases");
	json_t *d = datagrams_of(document,
				 "FIN from the probe: ACK, own FIN 10 ms later, quiet after the "
				 "last ACK");
	struct q2q_classic_stats stats;
	char peer[32];
	struct link l;

	(void)state;
	peer_of(d, 5, peer, sizeof(peer));
	link_init(&l, NULL, peer);
	assert_int_equal(give(&l, hex_of(d, 0)), 0); /* SYN */
	expect(&l, hex_of(d, 1));
	assert_int_equal(give(&l, hex_of(d, 2)), 0); /* ACK */
	/* The original's extra ACK, entry 3, carries nothing. */
	assert_int_equal(give(&l, hex_of(d, 4)), 0); /* Who-Am-I */
	expect(&l, hex_of(d, 5));
	assert_int_equal(give(&l, hex_of(d, 6)), 0); /* ACK */
	assert_false(next(&l));
	assert_int_equal(give(&l, hex_of(d, 7)), 0); /* FIN */
	expect(&l, hex_of(d, 8));
	assert_false(next(&l));
	assert_true(q2q_classic_deadline_us(l.classic) == l.now_us + 10000);
	l.now_us += 10000;
	q2q_classic_tick(l.classic, l.now_us);
	expect(&l, hex_of(d, 9));
	assert_int_equal(give(&l, hex_of(d, 10)), 0); /* the last ACK */
	assert_true(q2q_classic_deadline_us(l.classic) == NEVER_US);
	assert_false(next(&l));
	q2q_classic_stats(l.classic, &stats);
	assert_int_equal(stats.answered, 1);
	assert_int_equal(stats.closing, 0);
	q2q_classic_free(l.classic);
	json_decref(document);
}

static void a_lost_answer_is_given_again(void **state)
{
	json_t *document = vector_load("ptcp-07-edge-cases");
	json_t *d = datagrams_of(document, "Who-Am-I on UDP 8788");
	char peer[32];
	struct link l;

	(void)state;
	peer_of(d, 5, peer, sizeof(peer));
	link_init(&l, NULL, peer);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(give(&l, hex_of(d, 4)), 0);
		expect(&l, hex_of(d, 5));
	}
	q2q_classic_free(l.classic);
	json_decref(document);
}

static void a_fin_is_repeated_a_few_times_and_then_forgotten(void **state)
{
	unsigned n_fins = 0;
	struct link l;

	(void)state;
	link_init(&l, NULL, "192.0.2.12:5000");
	assert_int_equal(give(&l, "02bc0001000000200000002a000001e904000000000000"), 0);
	expect(&l, "000102bc0000002a00000021000001e902000000000000");
	while (q2q_classic_deadline_us(l.classic) != NEVER_US) {
		l.now_us = q2q_classic_deadline_us(l.classic);
		q2q_classic_tick(l.classic, l.now_us);
		while (next(&l))
			n_fins++;
	}
	assert_int_equal(n_fins, 3);
	q2q_classic_free(l.classic);
}

static void only_the_right_ack_ends_a_close(void **state)
{
	struct link l;

	(void)state;
	link_init(&l, NULL, "192.0.2.12:5000");
	assert_int_equal(give(&l, "02bc0001000000200000002a000001e904000000000000"), 0);
	assert_int_equal(give(&l, "02bc0001000000210000002a000001e902000000000000"), 0);
	assert_true(q2q_classic_deadline_us(l.classic) != NEVER_US);
	/* Another stream of the same machine. */
	assert_int_equal(give(&l, "02bd0001000000210000002b000001e902000000000000"), 0);
	assert_true(q2q_classic_deadline_us(l.classic) != NEVER_US);
	assert_int_equal(give(&l, "02bc0001000000210000002b000001e902000000000000"), 0);
	assert_true(q2q_classic_deadline_us(l.classic) == NEVER_US);
	q2q_classic_free(l.classic);
}

static void recorded_damage_gets_no_answer(void **state)
{
	static const char *const names[] = {
		"truncated datagram without a connection: STB as well",
		"SYN to a pseudo-port other than 1: no reply",
		"data for no connection: no reply, no RST",
	};
	json_t *document = vector_load("ptcp-07-edge-cases");
	struct link l;

	(void)state;
	link_init(&l, NULL, "192.0.2.12:5000");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		(void)!give(&l, hex_of(datagrams_of(document, names[i]), 0));
		assert_false(next(&l));
	}
	/* The fifth datagrams of these: cut short, a wrong checksum, too long. */
	assert_int_equal(give(&l, hex_of(datagrams_of(document,
						      "truncated datagram: STB carrying the number "
						      "of data bytes that arrived"),
					 4)),
			 -EBADMSG);
	assert_int_equal(
		give(&l, hex_of(datagrams_of(document, "wrong checksum: silently dropped"), 4)),
		-EBADMSG);
	assert_int_equal(
		give(&l,
		     hex_of(datagrams_of(document, "more bytes than dlen: silently dropped"), 4)),
		-EBADMSG);
	assert_int_equal(give(&l, "4e415421"), -EBADMSG); /* a seed */
	assert_false(next(&l));
	q2q_classic_free(l.classic);
	json_decref(document);
}

/* ---- what stopped the original ------------------------------------------------------------------
 */

static void stb_and_rst_do_nothing(void **state)
{
	struct link l;

	(void)state;
	link_init(&l, NULL, "192.0.2.12:5000");
	/* STB with value 0: 2 bytes of data, whose CRC-32 is 41d912ff. */
	assert_int_equal(give(&l, "02bc000100000000000000000000800010"
				  "41d912ff"
				  "0002"
				  "0000"),
			 0);
	assert_int_equal(give(&l, "02bc0001000000200000002a000001e908000000000000"), 0);
	assert_int_equal(give(&l, "02bc0001000000200000002a000001e91f000000000000"), 0);
	assert_false(next(&l));
	assert_true(q2q_classic_deadline_us(l.classic) == NEVER_US);
	q2q_classic_free(l.classic);
}

static void a_flood_of_syns_keeps_no_state_and_is_limited(void **state)
{
	const struct q2q_classic_config config = { .closing_max = 4, .replies_per_s_max = 100 };
	struct q2q_classic_stats stats;
	unsigned n_replies = 0, n_fins = 0;
	struct link l;

	(void)state;
	link_init(&l, &config, "192.0.2.12:5000");
	for (unsigned i = 0; i < 100000; i++) {
		uint8_t syn[23] = { (uint8_t)(i >> 8), (uint8_t)i, 0, 1, [16] = 1 };

		assert_int_equal(q2q_classic_input(l.classic, &l.peer, syn, sizeof(syn), l.now_us),
				 0);
		while (next(&l)) {
			assert_int_equal(l.got_bytes, 23);
			n_replies++;
		}
	}
	assert_int_equal(n_replies, 100);
	q2q_classic_stats(l.classic, &stats);
	assert_int_equal(stats.closing, 0);
	assert_int_equal(stats.refused_rate, 99900);

	/* FINs are the one thing that is kept, and only so many. */
	l.now_us += US_PER_S;
	for (unsigned i = 0; i < 50; i++) {
		uint8_t fin[23] = { 0, (uint8_t)i, 0, 1, [16] = 4 };

		assert_int_equal(q2q_classic_input(l.classic, &l.peer, fin, sizeof(fin), l.now_us),
				 0);
		while (next(&l))
			n_fins++;
	}
	q2q_classic_stats(l.classic, &stats);
	assert_int_equal(stats.closing, 4);
	assert_int_equal(n_fins, 50 + 46); /* an ACK each, and the FINs that found no place */
	q2q_classic_free(l.classic);
}

static void output_that_nobody_takes_is_bounded(void **state)
{
	struct link l;
	unsigned n = 0;

	(void)state;
	link_init(&l, NULL, "192.0.2.12:5000");
	for (unsigned i = 0; i < 900; i++)
		assert_int_equal(give(&l, "02bc00010000000000000000000001e901000000000000"), 0);
	while (next(&l))
		n++;
	assert_int_equal(n, 32);
	q2q_classic_free(l.classic);
}

/* ---- other questions
 * ------------------------------------------------------------------------------ */

static uint32_t crc32_of(const uint8_t *data, size_t n)
{
	uint32_t crc = 0xffffffff;

	for (size_t i = 0; i < n; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static void ask(struct link *l, const struct amp_box *box)
{
	uint8_t bytes[512] = { 2, 0xbc, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0xe9, 2 };
	struct buffer data;
	uint32_t crc;
	size_t n;

	buffer_init(&data, 489, false);
	assert_int_equal(amp_box_write(box, &data), 0);
	n = buffer_used(&data);
	crc = crc32_of(buffer_peek(&data), n);
	for (int i = 0; i < 4; i++)
		bytes[17 + i] = (uint8_t)(crc >> (24 - 8 * i));
	bytes[21] = (uint8_t)(n >> 8);
	bytes[22] = (uint8_t)n;
	memcpy(bytes + 23, buffer_peek(&data), n);
	assert_int_equal(q2q_classic_input(l->classic, &l->peer, bytes, 23 + n, l->now_us), 0);
	buffer_fini(&data);
}

static void check_error(struct link *l, const char *code)
{
	struct amp_value value;
	struct amp_box box;
	size_t used;

	assert_true(next(l));
	assert_int_equal(amp_box_parse(l->got + 23, l->got_bytes - 23, &box, &used), 0);
	assert_true(amp_get(&box, "_error_code", &value));
	assert_true(amp_value_is(&value, code));
}

static void other_questions_are_refused(void **state)
{
	struct amp_box box;
	struct link l;

	(void)state;
	link_init(&l, NULL, "192.0.2.12:5000");
	amp_box_init(&box);
	amp_put_text(&box, "_command", "Retrieve-Connection");
	amp_put_text(&box, "_ask", "1");
	amp_put_text(&box, "identifier", "nope");
	ask(&l, &box);
	check_error(&l, "NoSuchConnection");
	/* Fatal: the stream is closed behind it. */
	l.now_us += 10000;
	q2q_classic_tick(l.classic, l.now_us);
	assert_true(next(&l));
	assert_int_equal(l.got[16], 4);

	amp_put_text(&box, "_command", "identify");
	ask(&l, &box);
	check_error(&l, "UNHANDLED");

	/* Without a question, or an answer instead of one: nothing. */
	amp_box_init(&box);
	amp_put_text(&box, "_command", "Who-Am-I");
	ask(&l, &box);
	amp_box_init(&box);
	amp_put_text(&box, "_answer", "1");
	ask(&l, &box);
	assert_false(next(&l));
	q2q_classic_free(l.classic);
}

static void an_ipv6_sender_gets_nothing(void **state)
{
	struct link l;

	(void)state;
	link_init(&l, NULL, "[2001:db8::1]:5000");
	assert_int_equal(give(&l, "02bc00010000000000000000000001e901000000000000"), -EBADMSG);
	assert_false(next(&l));
	q2q_classic_free(l.classic);
}

static void a_datagram_cut_or_flipped_is_dropped_or_harmless(void **state)
{
	json_t *document = vector_load("ptcp-07-edge-cases");
	const char *hex = hex_of(datagrams_of(document, "Who-Am-I on UDP 8788"), 4);
	const size_t n = strlen(hex) / 2;
	uint8_t bytes[512];
	struct link l;

	(void)state;
	link_init(&l, NULL, "192.0.2.12:5000");
	assert_int_equal(hex_decode(hex, bytes, n), 0);
	for (size_t i = 0; i < n; i++) {
		uint8_t *part = malloc(i ? i : 1);

		memcpy(part, bytes, i);
		assert_int_equal(q2q_classic_input(l.classic, &l.peer, part, i, l.now_us),
				 -EBADMSG);
		free(part);
	}
	for (size_t i = 0; i < n * 8; i++) {
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		(void)!q2q_classic_input(l.classic, &l.peer, bytes, n, l.now_us);
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		while (next(&l))
			assert_true(l.got_bytes <= 2 * n);
	}
	q2q_classic_free(l.classic);
	json_decref(document);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_am_i_is_answered_byte_by_byte_as_recorded),
		cmocka_unit_test(a_lost_answer_is_given_again),
		cmocka_unit_test(a_fin_is_repeated_a_few_times_and_then_forgotten),
		cmocka_unit_test(only_the_right_ack_ends_a_close),
		cmocka_unit_test(recorded_damage_gets_no_answer),
		cmocka_unit_test(stb_and_rst_do_nothing),
		cmocka_unit_test(a_flood_of_syns_keeps_no_state_and_is_limited),
		cmocka_unit_test(output_that_nobody_takes_is_bounded),
		cmocka_unit_test(other_questions_are_refused),
		cmocka_unit_test(an_ipv6_sender_gets_nothing),
		cmocka_unit_test(a_datagram_cut_or_flipped_is_dropped_or_harmless),
	};

	return cmocka_run_group_tests_name("q2q classic PTCP", tests, NULL, NULL);
}
