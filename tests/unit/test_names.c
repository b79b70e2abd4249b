#include "unit.h"
#include "base/names.h"

static const struct names_request by_name = { .kind = NAMES_BY_NAME,
					      .id = 0x01020304,
					      .name = "bob.server.test.q2q" };
static const struct names_request by_address = {
	.kind = NAMES_BY_ADDRESS,
	.id = 7,
	.address = { .family = FAMILY_IPV4, .bytes = { 100, 64, 1, 2 } },
};
static const struct names_reply found = {
	.status = NAMES_FOUND,
	.id = 9,
	.ipv4 = { .family = FAMILY_IPV4, .bytes = { 100, 64, 1, 2 } },
	.ipv6 = { .family = FAMILY_IPV6,
		  .bytes = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 1 } },
	.name = "bob.server.test.q2q",
};

static void names_become_lower_case_without_a_dot_at_the_end(void **state)
{
	static const char *const bad[] = {
		"",
		"q2q",
		".q2q",
		"bob.q2q",
		"bob.test",
		"a..b.q2q",
		".a.b.q2q",
		"a b.c.q2q",
		"a.b.q2q..",
		"b\xc3\xb6z.test.q2q",
		"a.b.q2q.org",
		"a/b.c.q2q",
		"a@b.c.q2q",
		"bob.testq2q",
	};
	char name[NAMES_TEXT_BYTES], longest[400];

	(void)state;
	assert_int_equal(names_canonical("Bob.Server.TEST.q2q.", name), 0);
	assert_string_equal(name, "bob.server.test.q2q");
	assert_int_equal(names_canonical("a.b+c_d-e.test.Q2Q", name), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (names_canonical(bad[i], name) != -EINVAL)
			fail_msg("\"%s\" passed", bad[i]);

	memset(longest, 'a', sizeof(longest));
	memcpy(longest + 64, ".", 1);
	memcpy(longest + NAMES_TEXT_BYTES - 5, ".q2q", 5);
	assert_int_equal(names_canonical(longest, name), 0);
	memcpy(longest + NAMES_TEXT_BYTES - 5, "a.q2q", 6);
	assert_int_equal(names_canonical(longest, name), -EINVAL);
}

static void requests_make_the_round_trip(void **state)
{
	uint8_t wire[NAMES_REQUEST_BYTES];
	struct names_request back;

	(void)state;
	names_encode_request(&by_name, wire);
	assert_int_equal(names_decode_request(wire, &back), 0);
	assert_memory_equal(&back, &by_name, sizeof(back));
	names_encode_request(&by_address, wire);
	assert_int_equal(names_decode_request(wire, &back), 0);
	assert_memory_equal(&back, &by_address, sizeof(back));
}

static void replies_make_the_round_trip(void **state)
{
	uint8_t wire[NAMES_REPLY_BYTES];
	struct names_reply back, only6 = found, none = { .status = NAMES_NOT_FOUND, .id = 3 };

	(void)state;
	names_encode_reply(&found, wire);
	assert_int_equal(names_decode_reply(wire, &back), 0);
	assert_memory_equal(&back, &found, sizeof(back));
	memset(&only6.ipv4, 0, sizeof(only6.ipv4));
	names_encode_reply(&only6, wire);
	assert_int_equal(names_decode_reply(wire, &back), 0);
	assert_int_equal(back.ipv4.family, FAMILY_NONE);
	names_encode_reply(&none, wire);
	assert_int_equal(names_decode_reply(wire, &back), 0);
	assert_memory_equal(&back, &none, sizeof(back));
}

/* What decodes encodes to the same bytes: nothing rides along unseen. */
static void every_flipped_bit_is_refused_or_means_something(void **state)
{
	uint8_t wire[NAMES_REPLY_BYTES], again[NAMES_REPLY_BYTES];
	const struct names_request *const requests[] = { &by_name, &by_address };

	(void)state;
	for (size_t k = 0; k < 2; k++) {
		names_encode_request(requests[k], wire);
		for (size_t bit = 0; bit < 8 * NAMES_REQUEST_BYTES; bit++) {
			struct names_request back;

			wire[bit / 8] ^= (uint8_t)(1 << bit % 8);
			if (names_decode_request(wire, &back) == 0) {
				assert_true(bit / 8 >= 8 || bit / 8 == 6); /* the family */
				names_encode_request(&back, again);
				assert_memory_equal(again, wire, NAMES_REQUEST_BYTES);
			}
			wire[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
	names_encode_reply(&found, wire);
	for (size_t bit = 0; bit < 8 * NAMES_REPLY_BYTES; bit++) {
		struct names_reply back;

		wire[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (names_decode_reply(wire, &back) == 0) {
			assert_true(bit / 8 >= 8);
			names_encode_reply(&back, again);
			assert_memory_equal(again, wire, NAMES_REPLY_BYTES);
		}
		wire[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void a_reply_without_an_address_is_not_found(void **state)
{
	struct names_reply empty = found, back;
	uint8_t wire[NAMES_REPLY_BYTES];

	(void)state;
	memset(&empty.ipv4, 0, sizeof(empty.ipv4));
	memset(&empty.ipv6, 0, sizeof(empty.ipv6));
	names_encode_reply(&empty, wire);
	assert_int_equal(names_decode_reply(wire, &back), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_become_lower_case_without_a_dot_at_the_end),
		cmocka_unit_test(requests_make_the_round_trip),
		cmocka_unit_test(replies_make_the_round_trip),
		cmocka_unit_test(every_flipped_bit_is_refused_or_means_something),
		cmocka_unit_test(a_reply_without_an_address_is_not_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
