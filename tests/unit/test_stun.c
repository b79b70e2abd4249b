#include "unit.h"
#include "stun/stun.h"

/* ---- RFC 5769, the sample request and responses --------------------------------------- */

static const uint8_t sample_request[] =
	"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
	"\x80\x22\x00\x10STUN test client"
	"\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36"
	"\x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20"
	"\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49"
	"\xc1\xb5\x71\xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";
static const uint8_t sample_ipv4[] =
	"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
	"\x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20"
	"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"
	"\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53"
	"\xf0\x6b\xe7\xd7\x80\x28\x00\x04\xc0\x7d\x4c\x96";
static const uint8_t sample_ipv6[] =
	"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
	"\x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20"
	"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5"
	"\xbe\xd2\xb9\xd9\x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c"
	"\x82\x92\xc2\x75\xbf\xe3\xed\x41\x80\x28\x00\x04\xc8\xfb\x0b\x4c";

static struct endpoint at(const char *text)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(text, true, &e), 0);
	return e;
}

static void the_samples_of_rfc_5769_are_read(void **state)
{
	const struct endpoint v4 = at("192.0.2.1:32853");
	const struct endpoint v6 = at("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
	struct stun_message m;

	(void)state;
	assert_int_equal(stun_decode(sample_request, sizeof(sample_request) - 1, &m), 0);
	assert_int_equal(m.class, STUN_REQUEST);
	assert_int_equal(m.method, STUN_BINDING);
	assert_true(m.has_fingerprint);
	assert_string_equal(m.software, "STUN test client");
	assert_int_equal(m.n_unknown, 1);
	assert_int_equal(m.unknown[0], 0x0024);

	assert_int_equal(stun_decode(sample_ipv4, sizeof(sample_ipv4) - 1, &m), 0);
	assert_int_equal(m.class, STUN_SUCCESS);
	assert_true(m.has_fingerprint);
	assert_true(endpoint_equal(&m.mapped, &v4));
	assert_string_equal(m.software, "test vector");

	assert_int_equal(stun_decode(sample_ipv6, sizeof(sample_ipv6) - 1, &m), 0);
	assert_true(endpoint_equal(&m.mapped, &v6));
}

static void cut_or_flipped_samples_are_refused(void **state)
{
	uint8_t copy[sizeof(sample_ipv6)];
	struct stun_message m;

	(void)state;
	for (size_t i = 0; i < sizeof(sample_ipv6) - 1; i++) {
		assert_int_equal(stun_decode(sample_ipv6, i, &m), -EBADMSG);
		memcpy(copy, sample_ipv6, sizeof(copy));
		copy[i] ^= 1;
		/* The type of FINGERPRINT itself turned into another, optional attribute: what is
		 * read then does not claim to be checked. */
		if (stun_decode(copy, sizeof(sample_ipv6) - 1, &m) == 0)
			assert_true(i / 2 == (sizeof(sample_ipv6) - 1 - 8) / 2 &&
				    !m.has_fingerprint);
	}
}

static void what_is_written_can_be_read(void **state)
{
	static const char *const mapped[] = { "192.0.2.1:1", "[2001:db8::ffff]:65535" };
	static const enum stun_class classes[] = { STUN_REQUEST, STUN_INDICATION, STUN_SUCCESS,
						   STUN_ERROR };
	uint8_t out[STUN_MESSAGE_MAX_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(mapped); i++)
		for (size_t c = 0; c < ARRAY_SIZE(classes); c++) {
			struct stun_message back, m = { .class = classes[c],
							.method = 0x0abc,
							.transaction = "abcdefghijk",
							.mapped = at(mapped[i]),
							.software = "q2q",
							.error_code = 438,
							.has_fingerprint = c % 2 == 0 };
			const size_t n = stun_encode(&m, out, sizeof(out));

			assert_true(n > 0);
			assert_true(stun_is_message(out, n));
			assert_int_equal(stun_decode(out, n, &back), 0);
			assert_int_equal(back.class, m.class);
			assert_int_equal(back.method, m.method);
			assert_int_equal(back.error_code, 438);
			assert_true(endpoint_equal(&back.mapped, &m.mapped));
			assert_string_equal(back.software, "q2q");
			assert_int_equal(back.has_fingerprint, m.has_fingerprint);
			for (size_t room = 0; room < n; room++)
				assert_int_equal(stun_encode(&m, out, room), 0);
		}
}

static void an_old_server_with_mapped_address_only_is_understood(void **state)
{
	static const uint8_t answer[] = "\x01\x01\x00\x0c\x21\x12\xa4\x42"
					"abcdefghijkl"
					"\x00\x01\x00\x08\x00\x01\x12\x34\x01\x02\x03\x04";
	const struct endpoint e = at("1.2.3.4:4660");
	struct stun_message m;

	(void)state;
	assert_int_equal(stun_decode(answer, sizeof(answer) - 1, &m), 0);
	assert_true(endpoint_equal(&m.mapped, &e));
	assert_false(m.has_fingerprint);
}

static void an_address_of_the_wrong_length_or_family_is_refused(void **state)
{
	static const uint8_t bad_family[] = "\x01\x01\x00\x0c\x21\x12\xa4\x42"
					    "abcdefghijkl"
					    "\x00\x20\x00\x08\x00\x03\x12\x34\x01\x02\x03\x04";
	static const uint8_t short_v6[] = "\x01\x01\x00\x0c\x21\x12\xa4\x42"
					  "abcdefghijkl"
					  "\x00\x20\x00\x08\x00\x02\x12\x34\x01\x02\x03\x04";
	struct stun_message m;

	(void)state;
	assert_int_equal(stun_decode(bad_family, sizeof(bad_family) - 1, &m), -EBADMSG);
	assert_int_equal(stun_decode(short_v6, sizeof(short_v6) - 1, &m), -EBADMSG);
}

/* ---- the server ------------------------------------------------------------------------------ */

static void the_server_says_what_it_sees(void **state)
{
	static const char *const froms[] = { "192.0.2.1:5", "[2001:db8::1]:6" };
	struct stun_message m, request = { .class = STUN_REQUEST,
					   .method = STUN_BINDING,
					   .transaction = "abcdefghijk" };
	uint8_t out[STUN_MESSAGE_MAX_BYTES], in[STUN_MESSAGE_MAX_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(froms); i++)
		for (int fingerprint = 0; fingerprint < 2; fingerprint++) {
			const struct endpoint from = at(froms[i]);
			size_t n_in, n;

			request.has_fingerprint = fingerprint;
			n_in = stun_encode(&request, in, sizeof(in));
			n = stun_server_answer(in, n_in, &from, NULL, out, sizeof(out));
			assert_int_equal(stun_decode(out, n, &m), 0);
			assert_int_equal(m.class, STUN_SUCCESS);
			assert_memory_equal(m.transaction, request.transaction,
					    STUN_TRANSACTION_BYTES);
			assert_true(endpoint_equal(&m.mapped, &from));
			assert_int_equal(m.has_fingerprint, fingerprint);
			assert_true(n * 2 <= n_in * 5);
		}
}

static void the_server_refuses_what_it_must_understand_and_does_not(void **state)
{
	const struct endpoint from = at("192.0.2.1:5");
	uint8_t out[STUN_MESSAGE_MAX_BYTES];
	struct stun_message m;
	const size_t n = stun_server_answer(sample_request, sizeof(sample_request) - 1, &from, NULL,
					    out, sizeof(out));

	(void)state;
	assert_int_equal(stun_decode(out, n, &m), 0);
	assert_int_equal(m.class, STUN_ERROR);
	assert_int_equal(m.error_code, 420);
	assert_int_equal(m.mapped.ip.family, FAMILY_NONE);
	/* UNKNOWN-ATTRIBUTES with PRIORITY in it */
	static const uint8_t list[] = "\x00\x0a\x00\x02\x00\x24";
	bool found = false;
	for (size_t i = 0; i + 6 <= n; i++)
		found |= memcmp(out + i, list, 6) == 0;
	assert_true(found);
}

static void the_answer_to_many_unknown_attributes_stays_small(void **state)
{
	const struct endpoint from = at("192.0.2.1:5");
	uint8_t in[STUN_MESSAGE_MAX_BYTES], out[STUN_MESSAGE_MAX_BYTES];

	(void)state;
	for (size_t n_attributes = 1; n_attributes < 120; n_attributes++) {
		struct writer w = writer_over(in, sizeof(in));
		size_t n;

		writer_u16(&w, 1);
		writer_u16(&w, (uint16_t)(4 * n_attributes));
		writer_u32(&w, 0x2112a442);
		writer_bytes(&w, "abcdefghijkl", 12);
		for (size_t i = 0; i < n_attributes; i++)
			writer_u32(&w, 0x7f000000);
		n = stun_server_answer(in, w.used_bytes, &from, NULL, out, sizeof(out));
		assert_true(n > 0);
		assert_true(n * 2 <= w.used_bytes * 5);
	}
}

static void the_server_answers_nothing_but_binding_requests(void **state)
{
	const struct endpoint from = at("192.0.2.1:5");
	struct stun_message m = { .method = STUN_BINDING };
	uint8_t in[STUN_MESSAGE_MAX_BYTES], out[STUN_MESSAGE_MAX_BYTES];
	size_t n;

	(void)state;
	for (int class = STUN_INDICATION; class <= STUN_ERROR; class ++) {
		m.class = (enum stun_class) class;
		n = stun_encode(&m, in, sizeof(in));
		assert_int_equal(stun_server_answer(in, n, &from, NULL, out, sizeof(out)), 0);
	}
	m.class = STUN_REQUEST;
	m.method = 3;
	n = stun_encode(&m, in, sizeof(in));
	assert_int_equal(stun_server_answer(in, n, &from, NULL, out, sizeof(out)), 0);
	assert_int_equal(stun_server_answer(sample_ipv4, sizeof(sample_ipv4) - 1, &from, NULL, out,
					    sizeof(out)),
			 0);
}

/* ---- the client
 * ---------------------------------------------------------------------------------- */

static const uint8_t transaction[STUN_TRANSACTION_BYTES] = "0123456789ab";

/* Takes the request if one is due and returns its size. */
static size_t take(struct stun_client *c, uint8_t *out, uint64_t now_us)
{
	stun_client_tick(c, now_us);
	return stun_client_output(c, out, STUN_MESSAGE_MAX_BYTES, now_us);
}

static void the_client_learns_its_address(void **state)
{
	const struct endpoint from = at("192.0.2.1:5");
	uint8_t request[STUN_MESSAGE_MAX_BYTES], answer[STUN_MESSAGE_MAX_BYTES];
	struct stun_client c;
	size_t n;

	(void)state;
	stun_client_start(&c, transaction, 1000);
	n = take(&c, request, 1000);
	assert_true(n > 0);
	assert_int_equal(stun_client_output(&c, request, sizeof(request), 1000), 0);
	n = stun_server_answer(request, n, &from, NULL, answer, sizeof(answer));
	answer[8] ^= 1; /* another transaction; and the fingerprint is wrong too */
	assert_int_equal(stun_client_input(&c, answer, n, 1500), -EBADMSG);
	answer[8] ^= 1;
	assert_int_equal(stun_client_input(&c, answer, n, 1500), 0);
	assert_int_equal(c.state, STUN_DONE);
	assert_true(endpoint_equal(&c.mapped, &from));
	assert_int_equal(c.rtt_us, 500);
	assert_int_equal(stun_client_deadline_us(&c), NEVER_US);
	assert_int_equal(stun_client_input(&c, answer, n, 1600), -EBADMSG);
}

static void the_other_address_is_told_where_it_fits(void **state)
{
	const struct endpoint from = at("192.0.2.1:5"), other = at("198.51.100.1:8789");
	uint8_t request[STUN_MESSAGE_MAX_BYTES], answer[STUN_MESSAGE_MAX_BYTES];
	struct stun_message m;
	struct stun_client c;
	size_t n;

	(void)state;
	stun_client_start(&c, transaction, 0);
	n = take(&c, request, 0);
	n = stun_server_answer(request, n, &from, &other, answer, sizeof(answer));
	assert_true(2 * n <= 5 * 28);
	assert_int_equal(stun_client_input(&c, answer, n, 1), 0);
	assert_true(endpoint_equal(&c.mapped, &from));
	assert_true(endpoint_equal(&c.other, &other));

	/* Not where it would make the answer too large, which is for an IPv6 client. */
	const struct endpoint from6 = at("[2001:db8::1]:5"), other6 = at("[2001:db8::2]:8789");

	n = stun_server_answer(request, 28, &from6, &other6, answer, sizeof(answer));
	assert_true(n > 0 && 2 * n <= 5 * 28);
	assert_int_equal(stun_decode(answer, n, &m), 0);
	assert_true(endpoint_equal(&m.mapped, &from6));
	assert_int_equal(m.other.ip.family, FAMILY_NONE);
}

/* RFC 5780, section 7.5: to the asking address alone, and to no port of a well-known service. */
static void the_answer_goes_to_the_port_that_is_asked_for(void **state)
{
	const struct endpoint from = at("192.0.2.1:5000");
	struct stun_message m = { .class = STUN_REQUEST,
				  .method = STUN_BINDING,
				  .has_fingerprint = true,
				  .response_port = 40123 },
			    back;
	uint8_t request[STUN_MESSAGE_MAX_BYTES], answer[STUN_MESSAGE_MAX_BYTES];
	struct endpoint to;
	size_t n = stun_encode(&m, request, sizeof(request));

	(void)state;
	assert_int_equal(stun_decode(request, n, &back), 0);
	assert_int_equal(back.response_port, 40123);
	assert_int_equal(back.n_unknown, 0);
	stun_server_answer_to(request, n, &from, &to);
	assert_true(ip_equal(&to.ip, &from.ip));
	assert_int_equal(to.port, 40123);
	/* What the answer says is still who asked. */
	n = stun_server_answer(request, n, &from, NULL, answer, sizeof(answer));
	assert_int_equal(stun_decode(answer, n, &back), 0);
	assert_int_equal(back.class, STUN_SUCCESS);
	assert_true(endpoint_equal(&back.mapped, &from));

	m.response_port = 53;
	n = stun_encode(&m, request, sizeof(request));
	stun_server_answer_to(request, n, &from, &to);
	assert_true(endpoint_equal(&to, &from));
	stun_server_answer_to("no message", 10, &from, &to);
	assert_true(endpoint_equal(&to, &from));
}

static void the_client_tries_seven_times_with_doubling_pauses(void **state)
{
	static const uint64_t wanted_ms[] = { 0, 250, 750, 1750, 3750, 7750, 15750 };
	uint8_t request[STUN_MESSAGE_MAX_BYTES];
	struct stun_client c;
	uint64_t now_us = 0;
	size_t n_sent = 0;

	(void)state;
	stun_client_start(&c, transaction, 0);
	while (c.state == STUN_WAITING) {
		now_us = stun_client_deadline_us(&c);
		assert_int_not_equal(now_us, NEVER_US);
		if (take(&c, request, now_us)) {
			assert_true(n_sent < ARRAY_SIZE(wanted_ms));
			assert_int_equal(now_us, wanted_ms[n_sent] * US_PER_MS);
			n_sent++;
		}
	}
	assert_int_equal(n_sent, STUN_TRIES);
	assert_int_equal(c.state, STUN_FAILED);
	assert_int_equal(c.error, -ETIMEDOUT);
	assert_int_equal(now_us, (15750 + 4000) * US_PER_MS);
}

static void an_error_answer_ends_the_transaction(void **state)
{
	struct stun_message m = { .class = STUN_ERROR, .method = STUN_BINDING, .error_code = 420 };
	uint8_t data[STUN_MESSAGE_MAX_BYTES];
	struct stun_client c;
	size_t n;

	(void)state;
	stun_client_start(&c, transaction, 0);
	take(&c, data, 0);
	memcpy(m.transaction, transaction, sizeof(m.transaction));
	n = stun_encode(&m, data, sizeof(data));
	assert_int_equal(stun_client_input(&c, data, n, 10), 0);
	assert_int_equal(c.state, STUN_FAILED);
	assert_int_equal(c.error, -EPROTO);
	assert_int_equal(c.error_code, 420);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_samples_of_rfc_5769_are_read),
		cmocka_unit_test(cut_or_flipped_samples_are_refused),
		cmocka_unit_test(what_is_written_can_be_read),
		cmocka_unit_test(an_old_server_with_mapped_address_only_is_understood),
		cmocka_unit_test(an_address_of_the_wrong_length_or_family_is_refused),
		cmocka_unit_test(the_server_says_what_it_sees),
		cmocka_unit_test(the_server_refuses_what_it_must_understand_and_does_not),
		cmocka_unit_test(the_answer_to_many_unknown_attributes_stays_small),
		cmocka_unit_test(the_server_answers_nothing_but_binding_requests),
		cmocka_unit_test(the_client_learns_its_address),
		cmocka_unit_test(the_other_address_is_told_where_it_fits),
		cmocka_unit_test(the_answer_goes_to_the_port_that_is_asked_for),
		cmocka_unit_test(the_client_tries_seven_times_with_doubling_pauses),
		cmocka_unit_test(an_error_answer_ends_the_transaction),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
