/*
 * amp - the boxes of Twisted's Asynchronous Messaging Protocol: codec, an
 * incremental reader over a byte stream, the argument types, and the matching
 * of answers to questions. doc/q2q.md, section 1, has the format.
 *
 * Sans-IO: no socket, no clock, no allocation besides the buffers that are
 * born with a maximum. Values are slices borrowed from whoever owns the bytes.
 *
 * Results: 0 done, negative -Exxx a fault, positive a named outcome.
 */
#ifndef AMP_AMP_H
#define AMP_AMP_H

#include "base/base.h"

enum {
	AMP_KEY_MAX_BYTES = 255,
	AMP_VALUE_MAX_BYTES = 65535,
	AMP_PAIRS_MAX = 48,            /* pairs in a box that we take or make */
	AMP_BOX_MAX_BYTES = 80 * 1024, /* one full value and what goes with it */
	AMP_SCRATCH_BYTES = 640,       /* numbers and dates of a box being made */
	AMP_ASK_TEXT_BYTES = 17,       /* 64 bits in hex and a NUL */
};

enum amp_outcome {
	AMP_INCOMPLETE = 1, /* more bytes are needed */
	AMP_ABSENT = 2,     /* the box has no such key; nobody asked that */
	AMP_END = 3,        /* the list is at its end */
};

/* Bytes that belong to somebody else. data is NULL where a value is absent; an empty value has
 * some non-NULL pointer. */
struct amp_value {
	const uint8_t *data;
	size_t n_bytes;
};

static inline struct amp_value amp_value(const void *data, size_t n_bytes)
{
	return (struct amp_value){ (const uint8_t *)(data ? data : ""), n_bytes };
}
static inline struct amp_value amp_text(const char *text) /* NULL: absent */
{
	return (struct amp_value){ (const uint8_t *)text, text ? strlen(text) : 0 };
}
bool amp_value_is(const struct amp_value *value, const char *text);

/* ---- boxes ------------------------------------------------------------------------ */

struct amp_pair {
	const uint8_t *key;
	const uint8_t *value;
	uint8_t key_bytes; /* 1..255 */
	uint16_t value_bytes;
};

/*
 * Pairs, borrowed. A parsed box points into the bytes it was parsed from; a box that is being
 * made points to what its caller put in, and for numbers into its own scratch, so it must not
 * be copied or moved. Making one is like using a writer: the first thing that does not fit
 * sets `failed`, and amp_box_write() tells.
 */
struct amp_box {
	struct amp_pair pairs[AMP_PAIRS_MAX];
	size_t n_pairs;
	bool failed;
	size_t scratch_used;
	char scratch[AMP_SCRATCH_BYTES];
};

/*
 * Parses the box at the beginning of data. Of a repeated key the last value stays. 0 with
 * *ret_used bytes consumed (the two zero bytes at the end included); AMP_INCOMPLETE; -EBADMSG:
 * a key longer than 255 bytes; -EMSGSIZE: past one of the limits above.
 */
int amp_box_parse(const void *data, size_t n_bytes, struct amp_box *ret_box, size_t *ret_used);

static inline void amp_box_init(struct amp_box *box)
{
	box->n_pairs = box->scratch_used = 0;
	box->failed = false;
}
/* Replaces the value of a key that is there already. */
void amp_put(struct amp_box *box, const char *key, const void *data, size_t n_bytes);
/* An absent value puts nothing. */
void amp_put_value(struct amp_box *box, const char *key, const struct amp_value *value);
void amp_put_text(struct amp_box *box, const char *key, const char *text);
/* A short text that the box keeps itself. */
void amp_put_copy(struct amp_box *box, const char *key, const char *text);
void amp_put_integer(struct amp_box *box, const char *key, int64_t integer);
void amp_put_boolean(struct amp_box *box, const char *key, bool boolean);
void amp_put_float(struct amp_box *box, const char *key, double number);

/* Appends the box, pairs in the order of their keys' bytes. -EMSGSIZE: the box failed or is too
 * large; -ENOBUFS, -ENOMEM: the buffer; in each case nothing was appended. */
int amp_box_write(const struct amp_box *box, struct buffer *out) WARN_UNUSED;
size_t amp_box_bytes(const struct amp_box *box); /* encoded */

/* False: absent. */
bool amp_get(const struct amp_box *box, const char *key, struct amp_value *ret_value);
/* Those below: 0, AMP_ABSENT, or -EBADMSG for a value that is not of that type. */
int amp_get_unicode(const struct amp_box *box, const char *key, struct amp_value *ret_value);
int amp_get_integer(const struct amp_box *box, const char *key, int64_t *ret_integer);
int amp_get_boolean(const struct amp_box *box, const char *key, bool *ret_boolean);
int amp_get_float(const struct amp_box *box, const char *key, double *ret_number);
/* The text of a decimal number of any size, NaN and infinities included; checked, not converted. */
int amp_get_decimal(const struct amp_box *box, const char *key, struct amp_value *ret_text);

/* The same types without a box, for elements of lists. */
int amp_parse_integer(const struct amp_value *value, int64_t *ret_integer);
int amp_parse_boolean(const struct amp_value *value, bool *ret_boolean);
int amp_parse_float(const struct amp_value *value, double *ret_number);
int amp_parse_decimal(const struct amp_value *value); /* 0 or -EBADMSG */
#define AMP_INTEGER_TEXT_BYTES 21
#define AMP_FLOAT_TEXT_BYTES   32
const char *amp_format_integer(int64_t integer, char out[static AMP_INTEGER_TEXT_BYTES]);
/* The shortest text that reads back as the same number: "0.1", "1e+22", "nan". */
const char *amp_format_float(double number, char out[static AMP_FLOAT_TEXT_BYTES]);

/* AMP's DateTime: 2012-01-23T12:34:56.054321-01:23 */
struct amp_date_time {
	int16_t year; /* 1..9999 */
	uint8_t month, day, hour, minute, second;
	int32_t microsecond;
	int16_t offset_minutes; /* east of UTC */
};
#define AMP_DATE_TIME_TEXT_BYTES 33
int amp_get_date_time(const struct amp_box *box, const char *key, struct amp_date_time *ret_time);
int amp_parse_date_time(const struct amp_value *value, struct amp_date_time *ret_time);
/* -EINVAL for a date that does not exist. */
int amp_format_date_time(const struct amp_date_time *time,
			 char out[static AMP_DATE_TIME_TEXT_BYTES]);
void amp_put_date_time(struct amp_box *box, const char *key, const struct amp_date_time *time);

/* ---- lists: a reader over the value ----------------------------------------------------- */

/* ListOf: the next element. 0, AMP_END, -EBADMSG. */
int amp_list_next(struct reader *list, struct amp_value *ret_element);
/* Appends an element. -EMSGSIZE past 65535 bytes of one element. */
int amp_list_append(struct buffer *list, const void *data, size_t n_bytes) WARN_UNUSED;
/* AmpList: the next box; amp_box_write() appends one. 0, AMP_END, -EBADMSG, -EMSGSIZE. */
int amp_boxes_next(struct reader *boxes, struct amp_box *ret_box);

/* ---- an incremental reader over a byte stream --------------------------------------------- */

struct amp_reader {
	struct buffer buffer;
	size_t box_max_bytes;
	size_t taken_bytes;   /* of the box handed out last, not yet consumed */
	size_t scanned_bytes; /* complete pairs of the box at the front */
	int fault;            /* sticky */
};

/* Keeps at most buffer_max_bytes (at least box_max_bytes are needed to read boxes that large);
 * wiped when consumed, for passwords pass through. */
void amp_reader_init(struct amp_reader *reader, size_t box_max_bytes, size_t buffer_max_bytes);
void amp_reader_fini(struct amp_reader *reader); /* fine on a zeroed object */
/* Appends. -ENOBUFS: read boxes first; -ENOMEM. Nothing was taken then. */
int amp_reader_input(struct amp_reader *reader, const void *data, size_t n_bytes) WARN_UNUSED;
size_t amp_reader_room(const struct amp_reader *reader);
/* The next box, borrowed until the next call for this reader. 0, AMP_INCOMPLETE; -EBADMSG or
 * -EMSGSIZE, from then on always. */
int amp_reader_next(struct amp_reader *reader, struct amp_box *ret_box) WARN_UNUSED;
/* What comes after the last box handed out: after a protocol switch it belongs to somebody else.
 * Borrowed like a box; amp_reader_drop() forgets it. */
struct amp_value amp_reader_rest(struct amp_reader *reader);
void amp_reader_drop(struct amp_reader *reader);

/* ---- questions and answers ------------------------------------------------------------------ */

enum amp_shape { AMP_SHAPE_NONE, AMP_SHAPE_ANSWER, AMP_SHAPE_ERROR, AMP_SHAPE_COMMAND };
/* In the order of the original: _answer, then _error, then _command. */
enum amp_shape amp_box_shape(const struct amp_box *box);

/* A question that waits for its answer. */
struct amp_ask {
	uint64_t number;
	uint64_t deadline_us;
	uint64_t cookie; /* the asker's */
	unsigned kind;   /* the asker's */
};

/* The questions of one direction of a connection, numbered from 1. */
struct amp_asks {
	uint64_t last_number;
	struct amp_ask *list;
	size_t n, max;
};

int amp_asks_init(struct amp_asks *asks, size_t max) WARN_UNUSED; /* 0 or -ENOMEM */
void amp_asks_fini(struct amp_asks *asks);                        /* fine on a zeroed object */
/* Numbers a question. -ENOBUFS: as many as allowed are waiting. */
int amp_asks_add(struct amp_asks *asks, unsigned kind, uint64_t cookie, uint64_t deadline_us,
		 uint64_t *ret_number) WARN_UNUSED;
/* A request without an answer uses a number, too: so does the original. */
void amp_asks_skip(struct amp_asks *asks);
/* The question that this _answer or _error belongs to, removed. 0 or AMP_ABSENT. */
int amp_asks_take(struct amp_asks *asks, const struct amp_value *text, struct amp_ask *ret_ask);
/* Removes one question whose time is up; false: none. With now_us NEVER_US: any. */
bool amp_asks_expire(struct amp_asks *asks, uint64_t now_us, struct amp_ask *ret_ask);
uint64_t amp_asks_deadline_us(const struct amp_asks *asks);
/* Lower-case hex. Returns out. */
const char *amp_ask_text(uint64_t number, char out[static AMP_ASK_TEXT_BYTES]);

#endif
