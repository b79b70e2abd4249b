/*
 * Boxes: pair* 00 00, where pair = keylen(2) key(1..255) vallen(2) value(0..65535),
 * lengths big-endian. Because a key is at most 255 bytes long, the first byte of
 * each key length is 00.
 */
#include "amp/amp.h"

#define PAIR_OVERHEAD_BYTES 4u
#define BOX_END_BYTES       2u

/* An empty slice that is not absent. */
static const uint8_t empty[1];

bool amp_value_is(const struct amp_value *value, const char *text)
{
	const size_t n = strlen(text);

	return value->data && value->n_bytes == n && memcmp(value->data, text, n) == 0;
}

static struct amp_pair *find(struct amp_box *box, const uint8_t *key, size_t key_bytes)
{
	for (size_t i = 0; i < box->n_pairs; i++) {
		struct amp_pair *pair = &box->pairs[i];

		if (pair->key_bytes == key_bytes && memcmp(pair->key, key, key_bytes) == 0)
			return pair;
	}
	return NULL;
}

/* Of a repeated key the last value counts: so does the original. */
static bool set(struct amp_box *box, const uint8_t *key, size_t key_bytes, const uint8_t *value,
		size_t value_bytes)
{
	struct amp_pair *pair = find(box, key, key_bytes);

	if (!pair && box->n_pairs == AMP_PAIRS_MAX)
		return false;
	if (!pair)
		pair = &box->pairs[box->n_pairs++];
	*pair = (struct amp_pair){ .key = key,
				   .value = value ? value : empty,
				   .key_bytes = (uint8_t)key_bytes,
				   .value_bytes = (uint16_t)value_bytes };
	return true;
}

int amp_box_parse(const void *data, size_t n_bytes, struct amp_box *ret_box, size_t *ret_used)
{
	struct reader r = reader_over(data, n_bytes);
	unsigned n_pairs = 0;

	amp_box_init(ret_box);
	while (!r.failed) {
		const uint8_t *key, *value;
		uint16_t key_bytes, value_bytes;

		if (r.left_bytes > 0 && r.data[0] != 0)
			return -EBADMSG;
		key_bytes = reader_u16(&r);
		if (r.failed)
			break;
		if (key_bytes == 0) {
			*ret_used = n_bytes - r.left_bytes;
			return *ret_used > AMP_BOX_MAX_BYTES ? -EMSGSIZE : 0;
		}
		if (++n_pairs > AMP_PAIRS_MAX)
			return -EMSGSIZE;
		key = reader_bytes(&r, key_bytes);
		value_bytes = reader_u16(&r);
		value = reader_bytes(&r, value_bytes);
		if (value && !set(ret_box, key, key_bytes, value, value_bytes))
			return -EMSGSIZE;
	}
	return n_bytes > AMP_BOX_MAX_BYTES ? -EMSGSIZE : AMP_INCOMPLETE;
}

void amp_put(struct amp_box *box, const char *key, const void *data, size_t n_bytes)
{
	const size_t key_bytes = strlen(key);

	if (key_bytes == 0 || key_bytes > AMP_KEY_MAX_BYTES || n_bytes > AMP_VALUE_MAX_BYTES ||
	    !set(box, (const uint8_t *)key, key_bytes, data, n_bytes))
		box->failed = true;
}

void amp_put_value(struct amp_box *box, const char *key, const struct amp_value *value)
{
	if (value->data)
		amp_put(box, key, value->data, value->n_bytes);
}

void amp_put_text(struct amp_box *box, const char *key, const char *text)
{
	amp_put(box, key, text, strlen(text));
}

void amp_put_copy(struct amp_box *box, const char *key, const char *text)
{
	const size_t n = strlen(text);

	if (n > sizeof(box->scratch) - box->scratch_used) {
		box->failed = true;
		return;
	}
	memcpy(box->scratch + box->scratch_used, text, n);
	amp_put(box, key, box->scratch + box->scratch_used, n);
	box->scratch_used += n;
}

void amp_put_integer(struct amp_box *box, const char *key, int64_t integer)
{
	char text[AMP_INTEGER_TEXT_BYTES];

	amp_put_copy(box, key, amp_format_integer(integer, text));
}

void amp_put_boolean(struct amp_box *box, const char *key, bool boolean)
{
	amp_put_text(box, key, boolean ? "True" : "False");
}

void amp_put_float(struct amp_box *box, const char *key, double number)
{
	char text[AMP_FLOAT_TEXT_BYTES];

	amp_put_copy(box, key, amp_format_float(number, text));
}

void amp_put_date_time(struct amp_box *box, const char *key, const struct amp_date_time *time)
{
	char text[AMP_DATE_TIME_TEXT_BYTES];

	if (amp_format_date_time(time, text) < 0)
		box->failed = true;
	else
		amp_put_copy(box, key, text);
}

size_t amp_box_bytes(const struct amp_box *box)
{
	size_t n = BOX_END_BYTES;

	for (size_t i = 0; i < box->n_pairs; i++)
		n += PAIR_OVERHEAD_BYTES + box->pairs[i].key_bytes + box->pairs[i].value_bytes;
	return n;
}

/* Bytewise, a key before its own continuation: "From" < "_ask" < "to". */
static int compare(const struct amp_pair *a, const struct amp_pair *b)
{
	const int r = memcmp(a->key, b->key, min_size(a->key_bytes, b->key_bytes));

	return r != 0 ? r : (int)a->key_bytes - (int)b->key_bytes;
}

static void sort(uint8_t order[static AMP_PAIRS_MAX], const struct amp_box *box)
{
	for (size_t i = 0; i < box->n_pairs; i++) {
		size_t at = i;

		for (; at > 0 && compare(&box->pairs[order[at - 1]], &box->pairs[i]) > 0; at--)
			order[at] = order[at - 1];
		order[at] = (uint8_t)i;
	}
}

int amp_box_write(const struct amp_box *box, struct buffer *out)
{
	const size_t n_bytes = amp_box_bytes(box);
	uint8_t order[AMP_PAIRS_MAX];
	struct writer w;
	uint8_t *room;
	int r;

	if (box->failed || n_bytes > AMP_BOX_MAX_BYTES)
		return -EMSGSIZE;
	r = buffer_reserve(out, n_bytes, &room);
	if (r < 0)
		return r;
	sort(order, box);
	w = writer_over(room, n_bytes);
	for (size_t i = 0; i < box->n_pairs; i++) {
		const struct amp_pair *pair = &box->pairs[order[i]];

		writer_u16(&w, pair->key_bytes);
		writer_bytes(&w, pair->key, pair->key_bytes);
		writer_u16(&w, pair->value_bytes);
		writer_bytes(&w, pair->value, pair->value_bytes);
	}
	writer_u16(&w, 0);
	assert(!w.failed && w.used_bytes == n_bytes);
	buffer_commit(out, n_bytes);
	return 0;
}

bool amp_get(const struct amp_box *box, const char *key, struct amp_value *ret_value)
{
	const size_t key_bytes = strlen(key);

	for (size_t i = 0; i < box->n_pairs; i++) {
		const struct amp_pair *pair = &box->pairs[i];

		if (pair->key_bytes == key_bytes && memcmp(pair->key, key, key_bytes) == 0) {
			*ret_value = (struct amp_value){ pair->value, pair->value_bytes };
			return true;
		}
	}
	return false;
}

enum amp_shape amp_box_shape(const struct amp_box *box)
{
	struct amp_value ignored;

	if (amp_get(box, "_answer", &ignored))
		return AMP_SHAPE_ANSWER;
	if (amp_get(box, "_error", &ignored))
		return AMP_SHAPE_ERROR;
	return amp_get(box, "_command", &ignored) ? AMP_SHAPE_COMMAND : AMP_SHAPE_NONE;
}

int amp_list_next(struct reader *list, struct amp_value *ret_element)
{
	const uint8_t *data;
	uint16_t n_bytes;

	if (list->failed)
		return -EBADMSG;
	if (list->left_bytes == 0)
		return AMP_END;
	n_bytes = reader_u16(list);
	data = reader_bytes(list, n_bytes);
	if (!data)
		return -EBADMSG;
	*ret_element = (struct amp_value){ data, n_bytes };
	return 0;
}

int amp_list_append(struct buffer *list, const void *data, size_t n_bytes)
{
	struct writer w;
	uint8_t *room;
	int r;

	if (n_bytes > AMP_VALUE_MAX_BYTES)
		return -EMSGSIZE;
	r = buffer_reserve(list, 2 + n_bytes, &room);
	if (r < 0)
		return r;
	w = writer_over(room, 2 + n_bytes);
	writer_u16(&w, (uint16_t)n_bytes);
	writer_bytes(&w, data, n_bytes);
	buffer_commit(list, 2 + n_bytes);
	return 0;
}

int amp_boxes_next(struct reader *boxes, struct amp_box *ret_box)
{
	size_t used;
	int r;

	if (boxes->failed)
		return -EBADMSG;
	if (boxes->left_bytes == 0)
		return AMP_END;
	r = amp_box_parse(boxes->data, boxes->left_bytes, ret_box, &used);
	if (r != 0) {
		boxes->failed = true;
		return r < 0 ? r : -EBADMSG;
	}
	(void)reader_bytes(boxes, used);
	return 0;
}
