#include "unit.h"
#include "base/base.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

static void a_reader_stops_at_the_end_and_stays_failed(void **state)
{
	const uint8_t data[] = { 1, 2, 3 };
	struct reader r = reader_over(data, sizeof(data));

	(void)state;
	assert_int_equal(reader_u16(&r), 0x0102);
	assert_int_equal(reader_u16(&r), 0);
	assert_true(r.failed);
	assert_int_equal(reader_u8(&r), 0);
	assert_null(reader_bytes(&r, 0));
	assert_int_equal(reader_finish(&r), -EBADMSG);
}

static void varints_make_the_round_trip_in_the_shortest_form(void **state)
{
	static const uint64_t values[] = { 0,     63,         64,         16383,
					   16384, 1073741823, 1073741824, (UINT64_C(1) << 62) - 1 };
	static const size_t sizes[] = { 1, 1, 2, 2, 4, 4, 8, 8 };
	uint8_t out[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		struct writer w = writer_over(out, sizeof(out));

		writer_varint(&w, values[i]);
		assert_false(w.failed);
		assert_int_equal(w.used_bytes, sizes[i]);
		struct reader r = reader_over(out, w.used_bytes);
		assert_int_equal(reader_varint(&r), values[i]);
		assert_int_equal(reader_finish(&r), 0);
		r = reader_over(out, w.used_bytes - 1);
		assert_int_equal(reader_varint(&r), 0);
		assert_true(r.failed);
	}
}

static void a_writer_never_passes_its_end(void **state)
{
	uint8_t out[5] = { 0 };
	struct writer w = writer_over(out, 4);

	(void)state;
	writer_u32(&w, 0x01020304);
	writer_u8(&w, 9);
	assert_true(w.failed);
	assert_int_equal(w.used_bytes, 4);
	assert_int_equal(out[4], 0);
	writer_varint(&w, UINT64_C(1) << 62);
	assert_true(w.failed);
}

static void a_buffer_keeps_order_and_its_maximum(void **state)
{
	struct buffer b;
	uint8_t next_in = 0, next_out = 0;

	(void)state;
	buffer_init(&b, 1000, true);
	for (int i = 0; i < 5000; i++) {
		uint8_t chunk[37];

		for (size_t k = 0; k < sizeof(chunk); k++)
			chunk[k] = next_in++;
		while (buffer_used(&b) + sizeof(chunk) > 1000) {
			assert_int_equal(*buffer_peek(&b), next_out);
			next_out++;
			buffer_consume(&b, 1);
		}
		assert_int_equal(buffer_append(&b, chunk, sizeof(chunk)), 0);
	}
	assert_true(b.size_bytes <= 1000);
	uint8_t big[1001] = { 0 };
	assert_int_equal(buffer_append(&b, big, sizeof(big)), -ENOBUFS);
	buffer_consume(&b, SIZE_MAX);
	assert_int_equal(buffer_used(&b), 0);
	assert_int_equal(buffer_append(&b, big, 1000), 0);
	buffer_fini(&b);
}

static void endpoints_parse_only_what_they_print(void **state)
{
	static const char *const good[] = { "1.2.3.4:5", "[2001:db8::1]:65535", "[fe80::1%3]:1" };
	static const char *const bad[] = { "",        "1.2.3.4",    "1.2.3.4:",     "1.2.3.4:65536",
					   "1.2.3:4", "::1:5",      "[::1]5",       "[1.2.3.4]:5",
					   "[::1:5",  "1.2.3.4:5x", "[::1%3]:5",    "1.2.3.4:0",
					   "a:1",     " 1.2.3.4:5", "[fe80::1%x]:1" };
	char text[ENDPOINT_TEXT_BYTES];
	struct endpoint e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(endpoint_parse(good[i], false, &e), 0);
		assert_string_equal(endpoint_format(&e, text), good[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(endpoint_parse(bad[i], false, &e), -EINVAL);
	assert_int_equal(endpoint_parse("0.0.0.0:0", true, &e), 0);
}

static void mapped_socket_addresses_become_ipv4_and_back(void **state)
{
	struct sockaddr_storage sa;
	struct endpoint e, back;

	(void)state;
	assert_int_equal(endpoint_parse("192.0.2.7:99", false, &e), 0);
	assert_int_equal(endpoint_to_sockaddr(&e, true, &sa), sizeof(struct sockaddr_in6));
	assert_int_equal(sa.ss_family, AF_INET6);
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&sa, &back), 0);
	assert_true(endpoint_equal(&e, &back));
	assert_int_equal(endpoint_to_sockaddr(&e, false, &sa), sizeof(struct sockaddr_in));
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&sa, &back), 0);
	assert_true(endpoint_equal(&e, &back));
	sa.ss_family = AF_UNIX;
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&sa, &back), -EAFNOSUPPORT);
}

static void siphash_gives_the_vector_of_its_paper(void **state)
{
	const struct hash_seed seed = { UINT64_C(0x0706050403020100),
					UINT64_C(0x0f0e0d0c0b0a0908) };
	uint8_t in[15];

	(void)state;
	for (uint8_t i = 0; i < sizeof(in); i++)
		in[i] = i;
	assert_true(hash_bytes(&seed, in, sizeof(in)) == UINT64_C(0xa129ca6149be45e5));
}

static void hostile_text_cannot_drive_a_terminal(void **state)
{
	char out[64];

	(void)state;
	text_sanitize("a\x1b[31m\xc2\x9b\xff"
		      "\xc3\xa9",
		      11, out, sizeof(out));
	assert_string_equal(out, "a?[31m??\xc3\xa9");
	text_sanitize("\xc3\xa9\xc3\xa9", 4, out, 4);
	assert_string_equal(out, "\xc3\xa9");
	char in_place[] = "\xc2\x97\xef\xbb\xbf=";
	text_sanitize(in_place, strlen(in_place), in_place, sizeof(in_place));
	assert_string_equal(in_place, "?\xef\xbb\xbf=");
	assert_false(utf8_valid("\xc0\x80", 2));
	assert_false(utf8_valid("\xed\xa0\x80", 3));
	assert_false(utf8_valid("\xf4\x90\x80\x80", 4));
	assert_true(utf8_valid("\xf0\x9f\x98\x80", 4));
}

static void numbers_and_hex_are_strict(void **state)
{
	uint64_t v = 7;
	uint8_t raw[2];

	(void)state;
	assert_int_equal(parse_u64("18446744073709551615", UINT64_MAX, &v), 0);
	assert_int_equal(parse_u64("18446744073709551616", UINT64_MAX, &v), -ERANGE);
	assert_int_equal(parse_u64("", 9, &v), -EINVAL);
	assert_int_equal(parse_u64("+1", 9, &v), -EINVAL);
	assert_int_equal(parse_u64("10", 9, &v), -ERANGE);
	assert_int_equal(hex_decode("fF00", raw, 2), 0);
	assert_int_equal(raw[0], 0xff);
	assert_int_equal(hex_decode("ff0", raw, 2), -EBADMSG);
	assert_int_equal(hex_decode("fg00", raw, 2), -EBADMSG);
}

static void serial_numbers_compare_across_the_wrap(void **state)
{
	(void)state;
	assert_true(seq32_lt(UINT32_MAX, 0));
	assert_false(seq32_lt(0, UINT32_MAX));
	assert_true(seq16_lt(65535, 3));
	assert_true(seq32_le(5, 5));
}

/* ---- memory -------------------------------------------------------------------------- */

/* Pages of files that are mapped and resident (proc(5), statm). */
static unsigned long file_pages(void)
{
	unsigned long n_pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*u %*u %lu", &n_pages), 1);
	fclose(file);
	return n_pages;
}

static void shrinks_its_footprint(void **state)
{
	const unsigned long before = file_pages();
	char text[7];

	(void)state;
	footprint_trim();
	assert_true(file_pages() >= before); /* the heap alone */
	footprint_shrink();
	assert_true(file_pages() < before);
	/* Code and constants come back as they were. */
	hex_encode("abc", 3, text);
	assert_string_equal(text, "616263");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_stops_at_the_end_and_stays_failed),
		cmocka_unit_test(varints_make_the_round_trip_in_the_shortest_form),
		cmocka_unit_test(a_writer_never_passes_its_end),
		cmocka_unit_test(a_buffer_keeps_order_and_its_maximum),
		cmocka_unit_test(endpoints_parse_only_what_they_print),
		cmocka_unit_test(mapped_socket_addresses_become_ipv4_and_back),
		cmocka_unit_test(siphash_gives_the_vector_of_its_paper),
		cmocka_unit_test(shrinks_its_footprint),
		cmocka_unit_test(hostile_text_cannot_drive_a_terminal),
		cmocka_unit_test(numbers_and_hex_are_strict),
		cmocka_unit_test(serial_numbers_compare_across_the_wrap),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
