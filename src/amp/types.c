/*
 * Argument types. They follow what Twisted writes; reading is as strict as it
 * can be without refusing anything that Twisted writes.
 */
#include "amp/amp.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>

#define FLOAT_DIGITS_MAX      17
#define FLOAT_EXPONENT_MIN    (-4) /* below: 1e-05 */
#define FLOAT_EXPONENT_MAX    16   /* from here on: 1e+16 */
#define FLOAT_PARSE_MAX_BYTES 400  /* no double needs more to be exact enough */

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* Skips digits; the number skipped. */
static size_t digits(struct reader *r)
{
	size_t n = 0;

	for (; r->left_bytes > 0 && is_digit(r->data[0]); n++)
		(void)reader_u8(r);
	return n;
}

static bool accept(struct reader *r, const char *set)
{
	if (r->left_bytes == 0 || r->data[0] == 0 || !strchr(set, r->data[0]))
		return false;
	(void)reader_u8(r);
	return true;
}

static bool accept_word(struct reader *r, const char *word)
{
	const size_t n = strlen(word);

	if (r->left_bytes < n)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((r->data[i] | 0x20) != word[i])
			return false;
	(void)reader_bytes(r, n);
	return true;
}

static int value_of(const struct amp_box *box, const char *key, struct amp_value *ret_value)
{
	return amp_get(box, key, ret_value) ? 0 : AMP_ABSENT;
}

int amp_get_unicode(const struct amp_box *box, const char *key, struct amp_value *ret_value)
{
	struct amp_value value;

	if (value_of(box, key, &value) != 0)
		return AMP_ABSENT;
	if (!utf8_valid(value.data, value.n_bytes))
		return -EBADMSG;
	*ret_value = value;
	return 0;
}

int amp_parse_integer(const struct amp_value *value, int64_t *ret_integer)
{
	struct reader r = reader_over(value->data, value->n_bytes);
	const bool negative = accept(&r, "-");
	const uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
	uint64_t sum = 0;

	if (r.left_bytes == 0)
		return -EBADMSG;
	while (r.left_bytes > 0) {
		const uint8_t c = reader_u8(&r);

		if (!is_digit(c) || sum > (limit - (c - '0')) / 10)
			return -EBADMSG;
		sum = sum * 10 + (c - '0');
	}
	*ret_integer = negative ? (int64_t)(0 - sum) : (int64_t)sum;
	return 0;
}

const char *amp_format_integer(int64_t integer, char out[static AMP_INTEGER_TEXT_BYTES])
{
	uint64_t left = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
	char reversed[AMP_INTEGER_TEXT_BYTES];
	size_t n = 0, at = 0;

	do {
		reversed[n++] = (char)('0' + left % 10);
		left /= 10;
	} while (left > 0);
	if (integer < 0)
		out[at++] = '-';
	while (n > 0)
		out[at++] = reversed[--n];
	out[at] = '\0';
	return out;
}

int amp_get_integer(const struct amp_box *box, const char *key, int64_t *ret_integer)
{
	struct amp_value value;

	return value_of(box, key, &value) != 0 ? AMP_ABSENT
					       : amp_parse_integer(&value, ret_integer);
}

int amp_parse_boolean(const struct amp_value *value, bool *ret_boolean)
{
	const bool yes = amp_value_is(value, "True");

	if (!yes && !amp_value_is(value, "False"))
		return -EBADMSG;
	*ret_boolean = yes;
	return 0;
}

int amp_get_boolean(const struct amp_box *box, const char *key, bool *ret_boolean)
{
	struct amp_value value;

	return value_of(box, key, &value) != 0 ? AMP_ABSENT
					       : amp_parse_boolean(&value, ret_boolean);
}

/* [+-] digits [. digits] [e [+-] digits], at least one digit; or a word for no number. */
static bool float_grammar(struct reader r)
{
	size_t n;

	(void)accept(&r, "+-");
	if (accept_word(&r, "nan") || accept_word(&r, "infinity") || accept_word(&r, "inf"))
		return r.left_bytes == 0;
	n = digits(&r);
	if (accept(&r, "."))
		n += digits(&r);
	if (n == 0)
		return false;
	if (accept(&r, "eE")) {
		(void)accept(&r, "+-");
		if (digits(&r) == 0)
			return false;
	}
	return r.left_bytes == 0;
}

/* The point is a point whatever language the program speaks. */
static locale_t enter_c_locale(locale_t *ret_old)
{
	const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);

	*ret_old = c ? uselocale(c) : (locale_t)0;
	return c;
}

static void leave_c_locale(locale_t c, locale_t old)
{
	if (!c)
		return;
	(void)uselocale(old);
	freelocale(c);
}

int amp_parse_float(const struct amp_value *value, double *ret_number)
{
	char text[FLOAT_PARSE_MAX_BYTES];
	locale_t c, old;

	if (value->n_bytes >= sizeof(text) ||
	    !float_grammar(reader_over(value->data, value->n_bytes)))
		return -EBADMSG;
	memcpy(text, value->data, value->n_bytes);
	text[value->n_bytes] = '\0';
	c = enter_c_locale(&old);
	*ret_number = strtod(text, NULL);
	leave_c_locale(c, old);
	return 0;
}

/* The fewest digits that read back as the same number. */
static int shortest_digits(double number)
{
	char text[AMP_FLOAT_TEXT_BYTES];

	for (int n = 1; n < FLOAT_DIGITS_MAX; n++) {
		snprintf(text, sizeof(text), "%.*e", n - 1, number);
		if (strtod(text, NULL) == number)
			return n;
	}
	return FLOAT_DIGITS_MAX;
}

static void format_finite(double number, char out[static AMP_FLOAT_TEXT_BYTES])
{
	const int n = shortest_digits(number);
	char text[AMP_FLOAT_TEXT_BYTES];
	int exponent, decimals;

	snprintf(text, sizeof(text), "%.*e", n - 1, number);
	exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
	if (exponent < FLOAT_EXPONENT_MIN || exponent >= FLOAT_EXPONENT_MAX) {
		memcpy(out, text, sizeof(text));
		return;
	}
	decimals = n - 1 - exponent;
	snprintf(out, AMP_FLOAT_TEXT_BYTES, "%.*f", decimals > 0 ? decimals : 1, number);
}

const char *amp_format_float(double number, char out[static AMP_FLOAT_TEXT_BYTES])
{
	locale_t c, old;

	if (isnan(number))
		return memcpy(out, "nan", sizeof("nan"));
	if (isinf(number))
		return number > 0 ? memcpy(out, "inf", sizeof("inf"))
				  : memcpy(out, "-inf", sizeof("-inf"));
	c = enter_c_locale(&old);
	format_finite(number, out);
	leave_c_locale(c, old);
	return out;
}

int amp_get_float(const struct amp_box *box, const char *key, double *ret_number)
{
	struct amp_value value;

	return value_of(box, key, &value) != 0 ? AMP_ABSENT : amp_parse_float(&value, ret_number);
}

int amp_parse_decimal(const struct amp_value *value)
{
	struct reader r = reader_over(value->data, value->n_bytes);

	/* NaN may carry a payload of digits, and be signalling; else the grammar is a float's. */
	(void)accept(&r, "+-");
	(void)accept(&r, "sS");
	if (accept_word(&r, "nan")) {
		(void)digits(&r);
		return reader_finish(&r);
	}
	return float_grammar(reader_over(value->data, value->n_bytes)) ? 0 : -EBADMSG;
}

int amp_get_decimal(const struct amp_box *box, const char *key, struct amp_value *ret_text)
{
	struct amp_value value;

	if (value_of(box, key, &value) != 0)
		return AMP_ABSENT;
	if (amp_parse_decimal(&value) < 0)
		return -EBADMSG;
	*ret_text = value;
	return 0;
}

/* Exactly n_digits digits, then `after` unless that is 0. */
static unsigned fixed(struct reader *r, size_t n_digits, char after)
{
	unsigned v = 0;

	for (size_t i = 0; i < n_digits; i++) {
		const uint8_t c = reader_u8(r);

		if (!is_digit(c))
			r->failed = true;
		else
			v = v * 10 + (c - '0');
	}
	if (after && reader_u8(r) != (uint8_t)after)
		r->failed = true;
	return r->failed ? 0 : v;
}

static unsigned days_of_month(int year, unsigned month)
{
	static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : days[month - 1];
}

static bool date_time_valid(const struct amp_date_time *t)
{
	return t->year >= 1 && t->year <= 9999 && t->month >= 1 && t->month <= 12 && t->day >= 1 &&
	       t->day <= days_of_month(t->year, t->month) && t->hour < 24 && t->minute < 60 &&
	       t->second < 60 && t->microsecond >= 0 && t->microsecond < 1000000 &&
	       t->offset_minutes > -24 * 60 && t->offset_minutes < 24 * 60;
}

int amp_parse_date_time(const struct amp_value *value, struct amp_date_time *ret_time)
{
	struct reader r = reader_over(value->data, value->n_bytes);
	struct amp_date_time t;
	unsigned hours, minutes;
	uint8_t sign;

	t.year = (int16_t)fixed(&r, 4, '-');
	t.month = (uint8_t)fixed(&r, 2, '-');
	t.day = (uint8_t)fixed(&r, 2, 'T');
	t.hour = (uint8_t)fixed(&r, 2, ':');
	t.minute = (uint8_t)fixed(&r, 2, ':');
	t.second = (uint8_t)fixed(&r, 2, '.');
	t.microsecond = (int32_t)fixed(&r, 6, 0);
	sign = reader_u8(&r);
	hours = fixed(&r, 2, ':');
	minutes = fixed(&r, 2, 0);
	t.offset_minutes = (int16_t)(hours * 60 + minutes);
	if (sign == '-')
		t.offset_minutes = (int16_t)-t.offset_minutes;
	if (reader_finish(&r) < 0 || (sign != '+' && sign != '-') || minutes > 59 ||
	    !date_time_valid(&t))
		return -EBADMSG;
	*ret_time = t;
	return 0;
}

int amp_format_date_time(const struct amp_date_time *time,
			 char out[static AMP_DATE_TIME_TEXT_BYTES])
{
	const unsigned offset =
		(unsigned)(time->offset_minutes < 0 ? -time->offset_minutes : time->offset_minutes);
	int n;

	if (!date_time_valid(time))
		return -EINVAL;
	n = snprintf(out, AMP_DATE_TIME_TEXT_BYTES, "%04d-%02u-%02uT%02u:%02u:%02u.%06d%c%02u:%02u",
		     time->year, time->month, time->day, time->hour, time->minute, time->second,
		     time->microsecond, time->offset_minutes < 0 ? '-' : '+', offset / 60,
		     offset % 60);
	return n == AMP_DATE_TIME_TEXT_BYTES - 1 ? 0 : -EINVAL;
}

int amp_get_date_time(const struct amp_box *box, const char *key, struct amp_date_time *ret_time)
{
	struct amp_value value;

	return value_of(box, key, &value) != 0 ? AMP_ABSENT : amp_parse_date_time(&value, ret_time);
}
