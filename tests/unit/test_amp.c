#include "amp/amp.h"
#include "unit.h"
#include "vectors.h"

#include <math.h>
#include <stdio.h>

/* ---- the recorded boxes -------------------------------------------------------------- */

static void check_text(const struct amp_value *value, json_t *expected)
{
	assert_int_equal(value->n_bytes, json_string_length(expected));
	assert_memory_equal(value->data, json_string_value(expected), value->n_bytes);
}

static void check_box(const struct amp_box *box, json_t *expected);

/* A list of texts is a ListOf, one of objects an AmpList. */
static void check_list(const struct amp_value *value, json_t *expected)
{
	struct reader r = reader_over(value->data, value->n_bytes);
	struct amp_value element;
	struct amp_box box;
	json_t *item;
	size_t i;

	json_array_foreach (expected, i, item)
		if (json_is_string(item)) {
			assert_int_equal(amp_list_next(&r, &element), 0);
			check_text(&element, item);
		} else {
			assert_int_equal(amp_boxes_next(&r, &box), 0);
			check_box(&box, item);
		}
	assert_int_equal(amp_list_next(&r, &element), AMP_END);
	assert_int_equal(amp_boxes_next(&r, &box), AMP_END);
}

static void check_object(const struct amp_value *value, json_t *expected)
{
	json_t *hex = json_object_get(expected, "hex");
	json_t *boxes = json_object_get(expected, "amp_boxes");
	json_t *n_bytes = json_object_get(expected, "bytes");
	char text[4096];

	if (hex) {
		assert_true(value->n_bytes < sizeof(text) / 2);
		hex_encode(value->data, value->n_bytes, text);
		assert_string_equal(text, json_string_value(hex));
	} else if (boxes) {
		check_list(value, boxes);
	} else {
		assert_int_equal(value->n_bytes, json_integer_value(n_bytes));
	}
}

static void check_box(const struct amp_box *box, json_t *expected)
{
	const char *key;
	json_t *wanted;

	assert_int_equal(box->n_pairs, json_object_size(expected));
	json_object_foreach (expected, key, wanted) {
		struct amp_value value;

		assert_true(amp_get(box, key, &value));
		if (json_is_string(wanted))
			check_text(&value, wanted);
		else if (json_is_array(wanted))
			check_list(&value, wanted);
		else
			check_object(&value, wanted);
	}
}

struct count {
	unsigned n;
};

static bool is_sorted(const struct amp_box *box)
{
	for (size_t i = 1; i < box->n_pairs; i++) {
		const struct amp_pair *a = &box->pairs[i - 1], *b = &box->pairs[i];
		const int r = memcmp(a->key, b->key, min_size(a->key_bytes, b->key_bytes));

		if (r > 0 || (r == 0 && a->key_bytes > b->key_bytes))
			return false;
	}
	return true;
}

static void check_again(const uint8_t *bytes, size_t n_bytes)
{
	struct amp_box box;
	struct buffer out;
	size_t used;

	buffer_init(&out, AMP_BOX_MAX_BYTES, false);
	assert_int_equal(amp_box_parse(bytes, n_bytes, &box, &used), 0);
	assert_int_equal(used, n_bytes);
	assert_int_equal(amp_box_bytes(&box), n_bytes);
	assert_int_equal(amp_box_write(&box, &out), 0);
	assert_int_equal(buffer_used(&out), n_bytes);
	if (is_sorted(&box))
		assert_memory_equal(buffer_peek(&out), bytes, n_bytes);
	buffer_fini(&out);
}

static void decode_and_encode(void *user, json_t *step, const uint8_t *bytes, size_t n_bytes)
{
	json_t *decoded = json_object_get(step, "decoded");
	struct count *count = user;
	struct amp_box box;
	size_t used;

	if (!decoded)
		return;
	assert_int_equal(amp_box_parse(bytes, n_bytes, &box, &used), 0);
	check_box(&box, decoded);
	check_again(bytes, n_bytes);
	count->n++;
}

static void each_recorded_box_decodes_and_encodes_to_the_same_bytes(void **state)
{
	struct count count = { 0 };

	(void)state;
	for (size_t i = 0; vector_files[i]; i++) {
		json_t *document = vector_load(vector_files[i]);

		vector_each_step(document, decode_and_encode, &count);
		json_decref(document);
	}
	assert_true(count.n > 200);
}

static void cut_and_flip(void *user, json_t *step, const uint8_t *bytes, size_t n_bytes)
{
	struct count *count = user;
	struct amp_box box;
	size_t used;

	if (!json_object_get(step, "decoded"))
		return;
	for (size_t cut = 0; cut < n_bytes; cut++) {
		uint8_t *part = malloc(cut ? cut : 1);

		memcpy(part, bytes, cut);
		assert_int_equal(amp_box_parse(part, cut, &box, &used), AMP_INCOMPLETE);
		free(part);
	}
	for (size_t at = 0; at < n_bytes; at++) {
		uint8_t *copy = malloc(n_bytes);
		int r;

		memcpy(copy, bytes, n_bytes);
		copy[at] ^= (uint8_t)(1u << at % 8);
		r = amp_box_parse(copy, n_bytes, &box, &used);
		assert_true(r == 0 || r == AMP_INCOMPLETE || r == -EBADMSG || r == -EMSGSIZE);
		if (r == 0)
			assert_true(used <= n_bytes);
		free(copy);
	}
	count->n++;
}

static void a_box_cut_or_flipped_at_any_byte_is_never_taken_for_the_whole(void **state)
{
	struct count count = { 0 };

	(void)state;
	for (size_t i = 0; vector_files[i]; i++) {
		json_t *document = vector_load(vector_files[i]);

		vector_each_step(document, cut_and_flip, &count);
		json_decref(document);
	}
	assert_true(count.n > 200);
}

/* ---- the reader ---------------------------------------------------------------------------- */

struct stream {
	uint8_t bytes[256 * 1024];
	size_t n_bytes;
	size_t n_boxes;
};

static void collect(void *user, json_t *step, const uint8_t *bytes, size_t n_bytes)
{
	struct stream *stream = user;

	if (!json_object_get(step, "decoded") || n_bytes > sizeof(stream->bytes) - stream->n_bytes)
		return;
	memcpy(stream->bytes + stream->n_bytes, bytes, n_bytes);
	stream->n_bytes += n_bytes;
	stream->n_boxes++;
}

static size_t read_in_pieces(const struct stream *stream, size_t piece_bytes)
{
	struct amp_reader reader;
	struct amp_box box;
	size_t n_boxes = 0, read_bytes = 0;

	amp_reader_init(&reader, AMP_BOX_MAX_BYTES, 2 * AMP_BOX_MAX_BYTES);
	for (size_t at = 0; at < stream->n_bytes; at += piece_bytes) {
		const size_t n = min_size(piece_bytes, stream->n_bytes - at);

		assert_int_equal(amp_reader_input(&reader, stream->bytes + at, n), 0);
		while (amp_reader_next(&reader, &box) == 0) {
			n_boxes++;
			read_bytes += amp_box_bytes(&box);
		}
		assert_int_equal(reader.fault, 0);
	}
	assert_int_equal(read_bytes, stream->n_bytes);
	assert_int_equal(amp_reader_rest(&reader).n_bytes, 0);
	amp_reader_fini(&reader);
	return n_boxes;
}

static void a_stream_of_boxes_reads_the_same_in_pieces_of_any_size(void **state)
{
	static const size_t sizes[] = { 1, 2, 3, 7, 64, 1000, 1460, 65536 };
	static struct stream stream;

	(void)state;
	for (size_t i = 0; vector_files[i]; i++) {
		json_t *document = vector_load(vector_files[i]);

		vector_each_step(document, collect, &stream);
		json_decref(document);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		assert_int_equal(read_in_pieces(&stream, sizes[i]), stream.n_boxes);
}

static void a_key_of_256_bytes_ends_the_stream(void **state)
{
	json_t *document = vector_load("17-errors-and-edge-cases");
	json_t *c = vector_case(document, "key length 256");
	struct amp_reader reader;
	struct amp_box box;
	size_t n_bytes, used;
	uint8_t *bytes = vector_bytes(vector_step(c, "steps", 0), &n_bytes);

	(void)state;
	assert_int_equal(amp_box_parse(bytes, n_bytes, &box, &used), -EBADMSG);
	amp_reader_init(&reader, AMP_BOX_MAX_BYTES, AMP_BOX_MAX_BYTES);
	/* Known from the first byte on, and for good. */
	assert_int_equal(amp_reader_input(&reader, bytes, 1), 0);
	assert_int_equal(amp_reader_next(&reader, &box), -EBADMSG);
	assert_int_equal(amp_reader_input(&reader, "\0\0", 2), 0);
	assert_int_equal(amp_reader_next(&reader, &box), -EBADMSG);
	amp_reader_fini(&reader);
	free(bytes);
	json_decref(document);
}

static void a_box_past_the_limit_is_refused_before_it_is_there(void **state)
{
	struct amp_reader reader;
	struct amp_box box;

	(void)state;
	amp_reader_init(&reader, 1024, 4096);
	/* A value of 65535 bytes is announced; not one of them has come. */
	assert_int_equal(amp_reader_input(&reader, "\0\1k\377\377", 5), 0);
	assert_int_equal(amp_reader_next(&reader, &box), -EMSGSIZE);
	amp_reader_fini(&reader);

	/* Many small pairs cannot pass it either. */
	amp_reader_init(&reader, 1024, 4096);
	for (int i = 0; i < 400; i++)
		assert_int_equal(amp_reader_input(&reader, "\0\1k\0\1v", 6), 0);
	assert_int_equal(amp_reader_next(&reader, &box), -EMSGSIZE);
	amp_reader_fini(&reader);
}

static void the_reader_takes_no_more_than_its_maximum(void **state)
{
	static const uint8_t zeros[5000] = { 0, 1, 'k', 0xff, 0xff };
	struct amp_reader reader;

	(void)state;
	amp_reader_init(&reader, 4096, 4096);
	assert_int_equal(amp_reader_room(&reader), 4096);
	assert_int_equal(amp_reader_input(&reader, zeros, 5000), -ENOBUFS);
	assert_int_equal(amp_reader_input(&reader, zeros, 4000), 0);
	assert_int_equal(amp_reader_room(&reader), 96);
	assert_int_equal(amp_reader_input(&reader, zeros, 97), -ENOBUFS);
	amp_reader_fini(&reader);
}

static void what_follows_the_last_box_belongs_to_the_next_protocol(void **state)
{
	struct amp_reader reader;
	struct amp_box box;
	struct amp_value rest;

	(void)state;
	amp_reader_init(&reader, 1024, 1024);
	assert_int_equal(amp_reader_input(&reader, "\0\7_answer\0\0011\0\0hello", 19), 0);
	assert_int_equal(amp_reader_next(&reader, &box), 0);
	rest = amp_reader_rest(&reader);
	assert_int_equal(rest.n_bytes, 5);
	assert_memory_equal(rest.data, "hello", 5);
	amp_reader_drop(&reader);
	assert_int_equal(amp_reader_rest(&reader).n_bytes, 0);
	amp_reader_fini(&reader);
}

/* ---- boxes -------------------------------------------------------------------------------------
 */

static void of_a_repeated_key_the_last_value_counts(void **state)
{
	static const char bytes[] = "\0\1k\0\1a\0\1j\0\1b\0\1k\0\1c\0";
	struct amp_value value;
	struct amp_box box;
	size_t used;

	(void)state;
	assert_int_equal(amp_box_parse(bytes, sizeof(bytes), &box, &used), 0);
	assert_int_equal(box.n_pairs, 2);
	assert_true(amp_get(&box, "k", &value));
	assert_true(amp_value_is(&value, "c"));
}

static void capitals_sort_before_the_underscore_and_it_before_small_letters(void **state)
{
	static const char wanted[] = "\0\4From\0\0\0\4_ask\0\0011\0\2to\0\1x\0\3tom\0\1y\0";
	struct amp_box box;
	struct buffer out;

	(void)state;
	buffer_init(&out, 1024, false);
	amp_box_init(&box);
	amp_put_text(&box, "tom", "y");
	amp_put_text(&box, "to", "x");
	amp_put_integer(&box, "_ask", 1);
	amp_put(&box, "From", NULL, 0);
	assert_int_equal(amp_box_write(&box, &out), 0);
	assert_int_equal(buffer_used(&out), sizeof(wanted));
	assert_memory_equal(buffer_peek(&out), wanted, sizeof(wanted));
	buffer_fini(&out);
}

static void an_empty_box_is_two_zero_bytes(void **state)
{
	struct amp_box box;
	size_t used;

	(void)state;
	assert_int_equal(amp_box_parse("\0\0", 2, &box, &used), 0);
	assert_int_equal(used, 2);
	assert_int_equal(box.n_pairs, 0);
	assert_int_equal(amp_box_shape(&box), AMP_SHAPE_NONE);
}

static void a_box_with_too_much_in_it_fails_as_a_whole(void **state)
{
	static const uint8_t large[AMP_VALUE_MAX_BYTES + 1];
	char keys[AMP_PAIRS_MAX + 1][8], key[257] = { 0 };
	struct amp_box box;
	struct buffer out;

	(void)state;
	buffer_init(&out, 4 * AMP_BOX_MAX_BYTES, false);

	amp_box_init(&box);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		snprintf(keys[i], sizeof(keys[i]), "k%zu", i);
		amp_put_text(&box, keys[i], "v");
	}
	assert_int_equal(amp_box_write(&box, &out), -EMSGSIZE);

	amp_box_init(&box);
	amp_put(&box, "k", large, sizeof(large));
	assert_int_equal(amp_box_write(&box, &out), -EMSGSIZE);

	amp_box_init(&box);
	amp_put(&box, "k", large, AMP_VALUE_MAX_BYTES);
	assert_int_equal(amp_box_write(&box, &out), 0);
	amp_put(&box, "l", large, AMP_VALUE_MAX_BYTES);
	assert_int_equal(amp_box_write(&box, &out), -EMSGSIZE);

	memset(key, 'k', 256);
	amp_box_init(&box);
	amp_put(&box, key, "v", 1);
	assert_int_equal(amp_box_write(&box, &out), -EMSGSIZE);
	amp_box_init(&box);
	amp_put(&box, key + 1, "v", 1);
	assert_int_equal(amp_box_write(&box, &out), 0);
	buffer_fini(&out);
}

static void a_box_with_more_pairs_than_we_take_is_refused(void **state)
{
	uint8_t bytes[6 * (AMP_PAIRS_MAX + 1) + 2] = { 0 };
	struct amp_box box;
	size_t used;

	(void)state;
	for (size_t i = 0; i <= AMP_PAIRS_MAX; i++)
		memcpy(bytes + 6 * i, (uint8_t[]){ 0, 1, (uint8_t)('0' + i), 0, 1, 'v' }, 6);
	assert_int_equal(amp_box_parse(bytes, sizeof(bytes), &box, &used), -EMSGSIZE);
	assert_int_equal(amp_box_parse(bytes + 6, sizeof(bytes) - 6, &box, &used), 0);
	assert_int_equal(box.n_pairs, AMP_PAIRS_MAX);
}

static void answer_is_looked_for_before_error_and_command(void **state)
{
	struct amp_box box;

	(void)state;
	amp_box_init(&box);
	amp_put_text(&box, "_command", "x");
	assert_int_equal(amp_box_shape(&box), AMP_SHAPE_COMMAND);
	amp_put_text(&box, "_error", "1");
	assert_int_equal(amp_box_shape(&box), AMP_SHAPE_ERROR);
	amp_put_text(&box, "_answer", "1");
	assert_int_equal(amp_box_shape(&box), AMP_SHAPE_ANSWER);
}

/* ---- types
 * --------------------------------------------------------------------------------------- */

static void integers_are_plain_decimals(void **state)
{
	static const struct {
		const char *text;
		int64_t value;
	} good[] = { { "0", 0 },
		     { "7", 7 },
		     { "-1", -1 },
		     { "-0", 0 },
		     { "9223372036854775807", INT64_MAX },
		     { "-9223372036854775808", INT64_MIN } };
	static const char *const bad[] = { "",      "-",
					   "+1",    " 1",
					   "1 ",    "1.0",
					   "0x1",   "--1",
					   "1-",    "9223372036854775808",
					   "1_000", "-9223372036854775809" };
	char text[AMP_INTEGER_TEXT_BYTES];
	struct amp_value value;
	int64_t integer;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		value = amp_text(good[i].text);
		assert_int_equal(amp_parse_integer(&value, &integer), 0);
		assert_true(integer == good[i].value);
		if (strcmp(good[i].text, "-0") != 0)
			assert_string_equal(amp_format_integer(integer, text), good[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		value = amp_text(bad[i]);
		assert_int_equal(amp_parse_integer(&value, &integer), -EBADMSG);
	}
}

static void booleans_are_exactly_true_or_false(void **state)
{
	static const char *const bad[] = { "true", "TRUE", "True ", "1", "", "Falsey" };
	struct amp_value value = amp_text("True");
	bool boolean = false;

	(void)state;
	assert_int_equal(amp_parse_boolean(&value, &boolean), 0);
	assert_true(boolean);
	value = amp_text("False");
	assert_int_equal(amp_parse_boolean(&value, &boolean), 0);
	assert_false(boolean);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		value = amp_text(bad[i]);
		assert_int_equal(amp_parse_boolean(&value, &boolean), -EBADMSG);
	}
}

static void floats_are_written_as_python_writes_them(void **state)
{
	static const struct {
		double value;
		const char *text;
	} cases[] = {
		{ 0.0, "0.0" },
		{ -0.0, "-0.0" },
		{ 1.0, "1.0" },
		{ 0.1, "0.1" },
		{ 0.1 + 0.2, "0.30000000000000004" },
		{ 1e15, "1000000000000000.0" },
		{ 1e16, "1e+16" },
		{ 1.5e22, "1.5e+22" },
		{ 0.0001, "0.0001" },
		{ 0.00001, "1e-05" },
		{ 123456.789, "123456.789" },
		{ 5e-324, "5e-324" },
		{ 1.7976931348623157e308, "1.7976931348623157e+308" },
		{ INFINITY, "inf" },
		{ -INFINITY, "-inf" },
	};
	char text[AMP_FLOAT_TEXT_BYTES];
	struct amp_value value;
	double number;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_string_equal(amp_format_float(cases[i].value, text), cases[i].text);
		value = amp_text(text);
		assert_int_equal(amp_parse_float(&value, &number), 0);
		assert_memory_equal(&number, &cases[i].value, sizeof(number));
	}
	assert_string_equal(amp_format_float(NAN, text), "nan");
	value = amp_text("nan");
	assert_int_equal(amp_parse_float(&value, &number), 0);
	assert_true(isnan(number));
}

static void what_is_no_number_is_refused(void **state)
{
	static const char *const bad[] = { "",      "+",   ".",    "e5",   "1e",      "1e+",
					   "0x1p3", "1,5", "1.5 ", "nano", "infinit", "1..2" };
	struct amp_value value;
	double number;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		value = amp_text(bad[i]);
		assert_int_equal(amp_parse_float(&value, &number), -EBADMSG);
		assert_int_equal(amp_parse_decimal(&value), -EBADMSG);
	}
	static const char *const decimals[] = { "1",         "-1.50", "1E+999999", "sNaN", "NaN123",
						"-Infinity", ".5",    "5.",        "1e-7" };
	for (size_t i = 0; i < ARRAY_SIZE(decimals); i++) {
		value = amp_text(decimals[i]);
		assert_int_equal(amp_parse_decimal(&value), 0);
	}
}

static void a_date_time_is_32_bytes_with_its_zone(void **state)
{
	static const char *const bad[] = {
		"2012-01-23T12:34:56.054321",        "2012-01-23T12:34:56.054321Z01:23",
		"2012-13-23T12:34:56.054321-01:23",  "2011-02-29T12:34:56.054321-01:23",
		"2012-01-23T24:34:56.054321-01:23",  "2012-01-23T12:34:56.054321-01:60",
		"2012-01-23T12:34:56.054321-01:234", "0000-01-23T12:34:56.054321-01:23",
	};
	struct amp_value value = amp_text("2012-02-29T12:34:56.054321-01:23");
	char text[AMP_DATE_TIME_TEXT_BYTES];
	struct amp_date_time t;

	(void)state;
	assert_int_equal(amp_parse_date_time(&value, &t), 0);
	assert_int_equal(t.microsecond, 54321);
	assert_int_equal(t.offset_minutes, -83);
	assert_int_equal(amp_format_date_time(&t, text), 0);
	assert_string_equal(text, "2012-02-29T12:34:56.054321-01:23");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		value = amp_text(bad[i]);
		assert_int_equal(amp_parse_date_time(&value, &t), -EBADMSG);
	}
	t.month = 13;
	assert_int_equal(amp_format_date_time(&t, text), -EINVAL);
}

static void values_are_fetched_by_type(void **state)
{
	const struct amp_date_time noon = { 2026, 11, 22, 12, 0, 0, 1, 60 };
	struct amp_date_time t;
	struct amp_value text;
	struct amp_box box;
	int64_t integer;
	double number;
	bool boolean;

	(void)state;
	amp_box_init(&box);
	amp_put_integer(&box, "i", -5);
	amp_put_boolean(&box, "b", true);
	amp_put_float(&box, "f", 2.5);
	amp_put_date_time(&box, "t", &noon);
	amp_put(&box, "u", "\xff", 1);
	amp_put_text(&box, "d", "1.25");
	assert_false(box.failed);
	assert_int_equal(amp_get_integer(&box, "i", &integer), 0);
	assert_true(integer == -5);
	assert_int_equal(amp_get_boolean(&box, "b", &boolean), 0);
	assert_int_equal(amp_get_float(&box, "f", &number), 0);
	assert_true(number > 2.4 && number < 2.6);
	assert_int_equal(amp_get_date_time(&box, "t", &t), 0);
	assert_int_equal(t.offset_minutes, 60);
	assert_int_equal(amp_get_decimal(&box, "d", &text), 0);
	assert_int_equal(amp_get_unicode(&box, "u", &text), -EBADMSG);
	assert_int_equal(amp_get_unicode(&box, "d", &text), 0);
	assert_int_equal(amp_get_integer(&box, "d", &integer), -EBADMSG);
	assert_int_equal(amp_get_integer(&box, "none", &integer), AMP_ABSENT);
}

static void lists_hold_elements_and_boxes(void **state)
{
	struct amp_value element;
	struct buffer list;
	struct amp_box box;
	struct reader r;

	(void)state;
	buffer_init(&list, 200, false);
	assert_int_equal(amp_list_append(&list, "one", 3), 0);
	assert_int_equal(amp_list_append(&list, "", 0), 0);
	r = reader_over(buffer_peek(&list), buffer_used(&list));
	assert_int_equal(amp_list_next(&r, &element), 0);
	assert_true(amp_value_is(&element, "one"));
	assert_int_equal(amp_list_next(&r, &element), 0);
	assert_int_equal(element.n_bytes, 0);
	assert_int_equal(amp_list_next(&r, &element), AMP_END);
	r = reader_over(buffer_peek(&list), 4);
	assert_int_equal(amp_list_next(&r, &element), -EBADMSG);
	assert_int_equal(amp_list_next(&r, &element), -EBADMSG);
	assert_int_equal(amp_list_append(&list, list.data, 200), -ENOBUFS);
	buffer_fini(&list);

	amp_box_init(&box);
	amp_put_text(&box, "k", "v");
	assert_int_equal(amp_box_write(&box, &list), 0);
	assert_int_equal(amp_box_write(&box, &list), 0);
	r = reader_over(buffer_peek(&list), buffer_used(&list));
	assert_int_equal(amp_boxes_next(&r, &box), 0);
	assert_int_equal(amp_boxes_next(&r, &box), 0);
	assert_int_equal(amp_boxes_next(&r, &box), AMP_END);
	r = reader_over(buffer_peek(&list), buffer_used(&list) - 1);
	assert_int_equal(amp_boxes_next(&r, &box), 0);
	assert_int_equal(amp_boxes_next(&r, &box), -EBADMSG);
	buffer_fini(&list);
}

/* ---- asks
 * ------------------------------------------------------------------------------------------ */

static void questions_are_numbered_in_lower_case_hex_and_numbers_are_skipped(void **state)
{
	char text[AMP_ASK_TEXT_BYTES];
	struct amp_asks asks;
	struct amp_value value;
	struct amp_ask ask;
	uint64_t number;

	(void)state;
	assert_int_equal(amp_asks_init(&asks, 2), 0);
	for (int i = 0; i < 25; i++)
		amp_asks_skip(&asks);
	assert_int_equal(amp_asks_add(&asks, 3, 77, 100, &number), 0);
	assert_string_equal(amp_ask_text(number, text), "1a");
	assert_string_equal(amp_ask_text(UINT64_MAX, text), "ffffffffffffffff");
	assert_string_equal(amp_ask_text(16, text), "10");
	assert_int_equal(amp_asks_add(&asks, 4, 78, 50, &number), 0);
	assert_int_equal(amp_asks_add(&asks, 5, 79, 50, &number), -ENOBUFS);
	assert_true(amp_asks_deadline_us(&asks) == 50);

	value = amp_text("1A"); /* not what we wrote */
	assert_int_equal(amp_asks_take(&asks, &value, &ask), AMP_ABSENT);
	value = amp_text("1a");
	assert_int_equal(amp_asks_take(&asks, &value, &ask), 0);
	assert_int_equal(ask.kind, 3);
	assert_int_equal(ask.cookie, 77);
	assert_int_equal(amp_asks_take(&asks, &value, &ask), AMP_ABSENT);

	assert_false(amp_asks_expire(&asks, 49, &ask));
	assert_true(amp_asks_expire(&asks, 50, &ask));
	assert_int_equal(ask.cookie, 78);
	assert_false(amp_asks_expire(&asks, NEVER_US, &ask));
	assert_true(amp_asks_deadline_us(&asks) == NEVER_US);
	amp_asks_fini(&asks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_recorded_box_decodes_and_encodes_to_the_same_bytes),
		cmocka_unit_test(a_box_cut_or_flipped_at_any_byte_is_never_taken_for_the_whole),
		cmocka_unit_test(a_stream_of_boxes_reads_the_same_in_pieces_of_any_size),
		cmocka_unit_test(a_key_of_256_bytes_ends_the_stream),
		cmocka_unit_test(a_box_past_the_limit_is_refused_before_it_is_there),
		cmocka_unit_test(the_reader_takes_no_more_than_its_maximum),
		cmocka_unit_test(what_follows_the_last_box_belongs_to_the_next_protocol),
		cmocka_unit_test(of_a_repeated_key_the_last_value_counts),
		cmocka_unit_test(capitals_sort_before_the_underscore_and_it_before_small_letters),
		cmocka_unit_test(an_empty_box_is_two_zero_bytes),
		cmocka_unit_test(a_box_with_too_much_in_it_fails_as_a_whole),
		cmocka_unit_test(a_box_with_more_pairs_than_we_take_is_refused),
		cmocka_unit_test(answer_is_looked_for_before_error_and_command),
		cmocka_unit_test(integers_are_plain_decimals),
		cmocka_unit_test(booleans_are_exactly_true_or_false),
		cmocka_unit_test(floats_are_written_as_python_writes_them),
		cmocka_unit_test(what_is_no_number_is_refused),
		cmocka_unit_test(a_date_time_is_32_bytes_with_its_zone),
		cmocka_unit_test(values_are_fetched_by_type),
		cmocka_unit_test(lists_hold_elements_and_boxes),
		cmocka_unit_test(questions_are_numbered_in_lower_case_hex_and_numbers_are_skipped),
	};

	return cmocka_run_group_tests_name("amp", tests, NULL, NULL);
}
