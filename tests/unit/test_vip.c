/* Virtual addresses and offers. */
#include "unit.h"
#include "session/session.h"

#include <stdio.h>

static void the_addresses_of_a_name_never_change(void **state)
{
	struct vip a, b;

	(void)state;
	assert_int_equal(vip_from_address("alice@example.com", &a), 0);
	assert_int_equal(vip_from_address("alice@example.com", &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_true(vip_is_ip4(a.ip4));
	assert_true(vip_is_ip6(a.ip6));
	/* Computed apart from this code: printf 'q2q-tun vip6 v1\0alice@example.com' | sha256sum */
	{
		static const uint8_t ip6[16] = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, 0xf7, 0x0c,
						 0x29, 0xc9, 0xe0, 0xd3, 0x4f, 0x6d, 0x80, 0xd6 };
		static const uint8_t ip4[4] = { 100, 85, 224, 37 };

		assert_memory_equal(a.ip6, ip6, 16);
		assert_memory_equal(a.ip4, ip4, 4);
	}
}

static void no_address_ends_in_0_or_255(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		char name[32];
		struct vip vip;

		snprintf(name, sizeof(name), "u%u@a.test", i);
		assert_int_equal(vip_from_address(name, &vip), 0);
		assert_true(vip.ip4[3] != 0 && vip.ip4[3] != 255);
		assert_true(vip_is_ip4(vip.ip4));
	}
}

struct taken {
	unsigned n, n_taken;
	uint8_t first[4];
};

static bool taken(void *user, const uint8_t ip4[static 4])
{
	struct taken *t = user;

	if (t->n == 0)
		memcpy(t->first, ip4, 4);
	return t->n++ < t->n_taken;
}

static void a_taken_address_is_replaced_by_another_one_of_the_range(void **state)
{
	struct taken none = { .n_taken = 0 }, two = { .n_taken = 2 }, all = { .n_taken = 1000 };
	uint8_t a[4], b[4], c[4];
	struct vip vip;

	(void)state;
	assert_int_equal(vip_from_address("bob@a.test", &vip), 0);
	assert_int_equal(vip_choose4("bob@a.test", taken, &none, a), 0);
	assert_memory_equal(a, vip.ip4, 4);
	assert_int_equal(vip_choose4("bob@a.test", taken, &two, b), 0);
	assert_memory_equal(two.first, vip.ip4, 4);
	assert_memory_not_equal(b, vip.ip4, 4);
	assert_true(vip_is_ip4(b));
	two.n = 0;
	assert_int_equal(vip_choose4("bob@a.test", taken, &two, c), 0);
	assert_memory_equal(b, c, 4);
	assert_int_equal(vip_choose4("bob@a.test", taken, &all, c), -EADDRINUSE);
}

static struct offer sample(void)
{
	struct offer o = { .has_share = true, .has_tag = true, .keep = true, .features = 5 };

	memset(o.share, 1, sizeof(o.share));
	memset(o.cid, 2, sizeof(o.cid));
	memset(o.tag, 3, sizeof(o.tag));
	strncpy(o.request, "0123456789abcdef0123456789abcdef", sizeof(o.request));
	strncpy(o.device, "laptop", sizeof(o.device));
	strncpy(o.about, "q2q-tun 1.0, Linux", sizeof(o.about));
	memset(o.candidates, 4, 100);
	o.candidates_bytes = 100;
	memset(o.hello, 5, 300);
	o.hello_bytes = 300;
	o.takes_hello = true;
	return o;
}

static void an_offer_arrives_as_it_was_made(void **state)
{
	const struct offer o = sample(), trickle = { .candidates_bytes = 7 };
	uint8_t bytes[OFFER_PLAIN_BYTES_MAX];
	struct offer back;
	size_t n = offer_encode(&o, bytes, sizeof(bytes));

	(void)state;
	assert_true(n > 0);
	assert_int_equal(offer_decode(bytes, n, &back), 0);
	assert_memory_equal(&back, &o, sizeof(o));
	n = offer_encode(&trickle, bytes, sizeof(bytes));
	assert_int_equal(offer_decode(bytes, n, &back), 0);
	assert_false(back.has_share);
	assert_int_equal(back.candidates_bytes, 7);
}

static void an_answer_with_the_longest_hello_fits(void **state)
{
	uint8_t bytes[OFFER_PLAIN_BYTES_MAX], too_long[4 + OFFER_HELLO_BYTES_MAX + 1] = { 1, 11 };
	struct offer o = sample(), back;
	size_t n;

	(void)state;
	o.candidates_bytes = 0;
	memset(o.candidates, 0, sizeof(o.candidates));
	memset(o.device, 'd', OFFER_NAME_BYTES);
	memset(o.about, 'a', OFFER_ABOUT_BYTES);
	memset(o.hello, 5, sizeof(o.hello));
	o.hello_bytes = sizeof(o.hello);
	n = offer_encode(&o, bytes, sizeof(bytes));
	assert_true(n > 0);
	assert_int_equal(offer_decode(bytes, n, &back), 0);
	assert_memory_equal(&back, &o, sizeof(o));
	too_long[2] = OFFER_HELLO_BYTES_MAX >> 8;
	too_long[3] = OFFER_HELLO_BYTES_MAX & 255;
	assert_int_equal(offer_decode(too_long, sizeof(too_long) - 1, &back), 0);
	too_long[3]++;
	assert_int_equal(offer_decode(too_long, sizeof(too_long), &back), -EBADMSG);
	too_long[2] = too_long[3] = 0;
	assert_int_equal(offer_decode(too_long, 4, &back), -EBADMSG);
}

static void an_offer_that_is_cut_is_refused_unless_whole_fields_are_left(void **state)
{
	const struct offer o = sample();
	uint8_t bytes[OFFER_PLAIN_BYTES_MAX];
	const size_t n = offer_encode(&o, bytes, sizeof(bytes));
	unsigned n_good = 0;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		struct offer back;

		n_good += offer_decode(bytes, i, &back) == 0;
		assert_int_equal(offer_encode(&o, bytes + n, i), 0);
	}
	/* version alone; share+cid and after each further field but the last */
	assert_int_equal(n_good, 10);
}

static void a_field_twice_or_of_a_wrong_size_is_refused_an_unknown_one_skipped(void **state)
{
	static const uint8_t unknown[] = { 1, 200, 0, 2, 9, 9 };
	static const uint8_t twice[] = { 1, 4, 0, 0, 4, 0, 0 };
	static const uint8_t long_keep[] = { 1, 4, 0, 1, 0 };
	static const uint8_t share_alone[] = { 1, 1, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0,
					       0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
					       0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0 };
	static const uint8_t version[] = { 2 };
	struct offer o;

	(void)state;
	assert_int_equal(offer_decode(unknown, sizeof(unknown), &o), 0);
	assert_int_equal(offer_decode(twice, sizeof(twice), &o), -EBADMSG);
	assert_int_equal(offer_decode(long_keep, sizeof(long_keep), &o), -EBADMSG);
	assert_int_equal(offer_decode(share_alone, sizeof(share_alone), &o), -EBADMSG);
	assert_int_equal(offer_decode(version, sizeof(version), &o), -EBADMSG);
	assert_int_equal(offer_decode(NULL, 0, &o), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_addresses_of_a_name_never_change),
		cmocka_unit_test(no_address_ends_in_0_or_255),
		cmocka_unit_test(a_taken_address_is_replaced_by_another_one_of_the_range),
		cmocka_unit_test(an_offer_arrives_as_it_was_made),
		cmocka_unit_test(an_answer_with_the_longest_hello_fits),
		cmocka_unit_test(an_offer_that_is_cut_is_refused_unless_whole_fields_are_left),
		cmocka_unit_test(
			a_field_twice_or_of_a_wrong_size_is_refused_an_unknown_one_skipped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
