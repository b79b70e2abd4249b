/* AMP: boxes read whole and in pieces agree, what was read is written again, every type is tried.
 */
#include "amp/amp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

static void try_types(const struct amp_value *value)
{
	struct reader list = reader_over(value->data, value->n_bytes);
	char text[AMP_FLOAT_TEXT_BYTES];
	struct amp_date_time t;
	struct amp_value element;
	struct amp_box box;
	int64_t integer;
	double number;
	bool boolean;

	if (amp_parse_integer(value, &integer) == 0) {
		char again[AMP_INTEGER_TEXT_BYTES];
		const struct amp_value v = amp_text(amp_format_integer(integer, again));
		int64_t back;

		CHECK(amp_parse_integer(&v, &back) == 0 && back == integer);
	}
	if (amp_parse_float(value, &number) == 0) {
		const struct amp_value v = amp_text(amp_format_float(number, text));
		double back;

		CHECK(amp_parse_float(&v, &back) == 0);
		CHECK(!(back < number) && !(back > number));
	}
	if (amp_parse_date_time(value, &t) == 0) {
		char again[AMP_DATE_TIME_TEXT_BYTES];

		CHECK(amp_format_date_time(&t, again) == 0);
	}
	(void)!amp_parse_boolean(value, &boolean);
	(void)!amp_parse_decimal(value);
	while (amp_list_next(&list, &element) == 0)
		CHECK(element.n_bytes <= value->n_bytes);
	list = reader_over(value->data, value->n_bytes);
	while (amp_boxes_next(&list, &box) == 0)
		CHECK(amp_box_bytes(&box) <= value->n_bytes);
}

static void check_box(const struct amp_box *box)
{
	struct amp_box again;
	struct buffer out;
	size_t used;

	buffer_init(&out, AMP_BOX_MAX_BYTES, false);
	CHECK(amp_box_write(box, &out) == 0);
	CHECK(amp_box_parse(buffer_peek(&out), buffer_used(&out), &again, &used) == 0);
	CHECK(used == buffer_used(&out) && again.n_pairs == box->n_pairs);
	for (size_t i = 0; i < box->n_pairs; i++) {
		const struct amp_value value = { box->pairs[i].value, box->pairs[i].value_bytes };

		try_types(&value);
	}
	(void)amp_box_shape(box);
	buffer_fini(&out);
}

/* The number of boxes; *ret_fault how it ended. */
static size_t read_pieces(const uint8_t *data, size_t data_bytes, size_t piece, int *ret_fault)
{
	struct amp_reader reader;
	struct amp_box box;
	size_t n_boxes = 0;

	amp_reader_init(&reader, AMP_BOX_MAX_BYTES, 4 * AMP_BOX_MAX_BYTES);
	for (size_t at = 0; at < data_bytes; at += piece) {
		if (amp_reader_input(&reader, data + at, min_size(piece, data_bytes - at)) < 0)
			break;
		while (amp_reader_next(&reader, &box) == 0) {
			check_box(&box);
			n_boxes++;
		}
	}
	*ret_fault = reader.fault;
	amp_reader_fini(&reader);
	return n_boxes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	int whole_fault, piece_fault;
	size_t n_boxes;

	if (data_bytes < 1 || data_bytes > 2 * AMP_BOX_MAX_BYTES)
		return 0;
	n_boxes = read_pieces(data + 1, data_bytes - 1, data_bytes, &whole_fault);
	CHECK(read_pieces(data + 1, data_bytes - 1, (size_t)data[0] + 1, &piece_fault) == n_boxes);
	CHECK(piece_fault == whole_fault);
	return 0;
}
