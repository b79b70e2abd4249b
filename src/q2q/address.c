/*
 * Addresses, host:port, methods and times: the small texts of Q2Q. Everything
 * that later may become a file name or a database key is checked here, against
 * a grammar that has no slash, no leading dot and no "..".
 */
#include "q2q/q2q.h"

#include <stdio.h>

#define LABEL_MAX_BYTES  63
#define SECONDS_PER_DAY  86400
#define TIME_TEXT_LENGTH (Q2Q_TIME_TEXT_BYTES - 1)

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_lower_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z');
}

static char lower(uint8_t c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* Copies to lower case, as text. False: too long, or a NUL in it. */
static bool fold(const uint8_t *text, size_t n_bytes, char *out, size_t out_bytes)
{
	if (n_bytes >= out_bytes || (n_bytes > 0 && memchr(text, 0, n_bytes)))
		return false;
	for (size_t i = 0; i < n_bytes; i++)
		out[i] = lower(text[i]);
	out[n_bytes] = '\0';
	return true;
}

static bool resource_valid(const char *text)
{
	const size_t n = strlen(text);

	if (n == 0 || n > Q2Q_RESOURCE_MAX_BYTES || !is_lower_alnum(text[0]) ||
	    text[n - 1] == '.' || strstr(text, ".."))
		return false;
	return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._+-") == n;
}

static bool label_valid(const char *label, size_t n)
{
	if (n == 0 || n > LABEL_MAX_BYTES || label[0] == '-' || label[n - 1] == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_lower_alnum(label[i]) && label[i] != '-')
			return false;
	return true;
}

static bool domain_valid(const char *text)
{
	for (;;) {
		const size_t n = strcspn(text, ".");

		if (!label_valid(text, n))
			return false;
		if (text[n] == '\0')
			return true;
		text += n + 1;
	}
}

int q2q_address_parse(const void *text, size_t n_bytes, struct q2q_address *ret_address)
{
	const uint8_t *bytes = text;
	const uint8_t *at = n_bytes > 0 ? memchr(bytes, '@', n_bytes) : NULL;
	const size_t resource_bytes = at ? (size_t)(at - bytes) : 0;
	const size_t skip = at ? resource_bytes + 1 : 0;
	struct q2q_address a = { "", "", "" };

	if (n_bytes == 0) {
		*ret_address = a;
		return 0;
	}
	if (!fold(bytes, resource_bytes, a.resource, sizeof(a.resource)) ||
	    !fold(bytes + skip, n_bytes - skip, a.domain, sizeof(a.domain)) ||
	    (resource_bytes > 0 && !resource_valid(a.resource)) || !domain_valid(a.domain))
		return -EINVAL;
	snprintf(a.text, sizeof(a.text), "%s%s%s", a.resource, resource_bytes > 0 ? "@" : "",
		 a.domain);
	*ret_address = a;
	return 0;
}

enum q2q_address_kind q2q_address_kind(const struct q2q_address *address)
{
	if (address->domain[0] == '\0')
		return Q2Q_ANONYMOUS;
	return address->resource[0] == '\0' ? Q2Q_DOMAIN : Q2Q_USER;
}

static int parse_kind(const char *text, enum q2q_address_kind kind, struct q2q_address *ret_address)
{
	struct q2q_address a;
	const int r = q2q_address_parse(text, strlen(text), &a);

	if (r < 0 || q2q_address_kind(&a) != kind)
		return -EINVAL;
	*ret_address = a;
	return 0;
}

int q2q_user_parse(const char *text, struct q2q_address *ret_address)
{
	return parse_kind(text, Q2Q_USER, ret_address);
}

int q2q_domain_parse(const char *text, struct q2q_address *ret_address)
{
	return strchr(text, '@') ? -EINVAL : parse_kind(text, Q2Q_DOMAIN, ret_address);
}

bool q2q_address_equal(const struct q2q_address *a, const struct q2q_address *b)
{
	return strcmp(a->text, b->text) == 0;
}

bool q2q_protocol_valid(const void *text, size_t n_bytes)
{
	const uint8_t *bytes = text;

	if (n_bytes == 0 || n_bytes > Q2Q_PROTOCOL_MAX_BYTES || bytes[0] == '.')
		return false;
	for (size_t i = 0; i < n_bytes; i++)
		if (bytes[i] <= ' ' || bytes[i] > '~')
			return false;
	return true;
}

bool q2q_may_speak_for(const char *peer_subject, const char *peer_issuer,
		       const struct q2q_address *theirs)
{
	if (q2q_address_kind(theirs) == Q2Q_ANONYMOUS)
		return true;
	if (!peer_subject || !peer_issuer || strcmp(peer_issuer, theirs->domain) != 0)
		return false;
	return strcmp(peer_subject, theirs->text) == 0 || strcmp(peer_subject, theirs->domain) == 0;
}

/* ---- host:port ------------------------------------------------------------------------- */

static bool host_valid(const char *host)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

	return host[0] != '\0' && host[strspn(host, allowed)] == '\0';
}

int q2q_host_port_parse(const void *text, size_t n_bytes, struct q2q_host_port *ret)
{
	char copy[Q2Q_HOST_TEXT_BYTES + 6]; /* ":65535" */
	char *colon;
	uint64_t port;

	if (n_bytes >= sizeof(copy) || (n_bytes > 0 && memchr(text, 0, n_bytes)))
		return -EINVAL;
	memcpy(copy, n_bytes > 0 ? text : "", n_bytes);
	copy[n_bytes] = '\0';
	colon = strchr(copy, ':');
	if (!colon || (size_t)(colon - copy) >= sizeof(ret->host))
		return -EINVAL;
	*colon = '\0';
	if (!host_valid(copy) || parse_u64(colon + 1, UINT16_MAX, &port) < 0)
		return -EINVAL;
	memcpy(ret->host, copy, (size_t)(colon - copy) + 1);
	ret->port = (uint16_t)port;
	return 0;
}

int q2q_host_port_from_endpoint(const struct endpoint *endpoint, struct q2q_host_port *ret)
{
	char text[IP_TEXT_BYTES];

	if (endpoint->ip.family != FAMILY_IPV4)
		return -EAFNOSUPPORT;
	snprintf(ret->host, sizeof(ret->host), "%s", ip_format(&endpoint->ip, text));
	ret->port = endpoint->port;
	return 0;
}

/* ---- methods ------------------------------------------------------------------------------ */

const char *q2q_method_kind_name(enum q2q_method_kind kind)
{
	static const char *const names[] = {
		[Q2Q_METHOD_TCP] = "tcp",         [Q2Q_METHOD_PTCP] = "ptcp",
		[Q2Q_METHOD_RPTCP] = "rptcp",     [Q2Q_METHOD_VIRTUAL] = "virtual",
		[Q2Q_METHOD_UNKNOWN] = "unknown",
	};

	static_assert(ARRAY_SIZE(names) == Q2Q_METHOD_KIND_COUNT, "a name for each kind");
	return kind < Q2Q_METHOD_KIND_COUNT ? names[kind] : "?";
}

static struct q2q_method parse_method(const struct amp_value *text)
{
	const uint8_t *at = memchr(text->data, '@', text->n_bytes);
	const struct amp_value type = { text->data,
					at ? (size_t)(at - text->data) : text->n_bytes };
	struct q2q_method method = { .kind = Q2Q_METHOD_UNKNOWN };

	for (enum q2q_method_kind kind = 0; kind < Q2Q_METHOD_UNKNOWN; kind++)
		if (amp_value_is(&type, q2q_method_kind_name(kind)))
			method.kind = kind;
	if (method.kind < Q2Q_METHOD_VIRTUAL &&
	    (!at ||
	     q2q_host_port_parse(at + 1, text->n_bytes - type.n_bytes - 1, &method.where) < 0))
		method.kind = Q2Q_METHOD_UNKNOWN;
	return method;
}

int q2q_methods_next(struct reader *methods, struct q2q_method *ret_method)
{
	struct amp_value text;
	const int r = amp_list_next(methods, &text);

	if (r == 0)
		*ret_method = parse_method(&text);
	return r;
}

int q2q_methods_append(struct buffer *methods, const struct q2q_method *method)
{
	char text[Q2Q_HOST_TEXT_BYTES + 16];
	int n;

	if (method->kind >= Q2Q_METHOD_UNKNOWN)
		return -EINVAL;
	if (method->kind == Q2Q_METHOD_VIRTUAL)
		n = snprintf(text, sizeof(text), "virtual");
	else
		n = snprintf(text, sizeof(text), "%s@%s:%u", q2q_method_kind_name(method->kind),
			     method->where.host, method->where.port);
	return amp_list_append(methods, text, (size_t)n);
}

int q2q_methods_relay(const struct amp_value *methods, struct buffer *out)
{
	struct reader r = reader_over(methods->data, methods->n_bytes);
	struct amp_value text;
	int result;

	while ((result = amp_list_next(&r, &text)) == 0) {
		if (parse_method(&text).kind >= Q2Q_METHOD_VIRTUAL)
			continue;
		result = amp_list_append(out, text.data, text.n_bytes);
		if (result < 0)
			return result;
	}
	return result == AMP_END ? 0 : result;
}

/* ---- AmpTime --------------------------------------------------------------------------------- */

/* Days since 1970-01-01 of a date of the Gregorian calendar, any year after 0. The year begins in
 * March here, so that the leap day is its last. */
static int64_t days_of_date(int64_t year, unsigned month, unsigned day)
{
	const int64_t y = year - (month <= 2);
	const int64_t day_of_year = (153 * (int64_t)((month + 9) % 12) + 2) / 5 + day - 1;

	return y * 365 + y / 4 - y / 100 + y / 400 + day_of_year - 719468;
}

static void date_of_days(int64_t days, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day)
{
	int64_t year = 1970 + days / 366; /* a lower bound, close enough to count up from */
	unsigned month = 1;

	while (days_of_date(year + 1, 1, 1) <= days)
		year++;
	while (month < 12 && days_of_date(year, month + 1, 1) <= days)
		month++;
	*ret_year = year;
	*ret_month = month;
	*ret_day = (unsigned)(days - days_of_date(year, month, 1)) + 1;
}

const char *q2q_time_format(int64_t unix_s, char out[static Q2Q_TIME_TEXT_BYTES])
{
	const int64_t max_s = days_of_date(9999, 12, 31) * SECONDS_PER_DAY + SECONDS_PER_DAY - 1;
	const int64_t s = unix_s < 0 ? 0 : unix_s > max_s ? max_s : unix_s;
	const unsigned in_day = (unsigned)(s % SECONDS_PER_DAY);
	unsigned month, day;
	int64_t year;

	date_of_days(s / SECONDS_PER_DAY, &year, &month, &day);
	snprintf(out, Q2Q_TIME_TEXT_BYTES, "%04u-%02u-%02uT%02u:%02u:%02u", (unsigned)year % 10000,
		 month % 100, day % 100, in_day / 3600 % 100, in_day / 60 % 60, in_day % 60);
	return out;
}

/* n digits at text, or -1. */
static int number_at(const char *text, size_t n)
{
	int v = 0;

	for (size_t i = 0; i < n; i++) {
		if (!is_digit(text[i]))
			return -1;
		v = v * 10 + (text[i] - '0');
	}
	return v;
}

int q2q_time_parse(const void *text, size_t n_bytes, int64_t *ret_unix_s)
{
	static const char form[] = "....-..-..T..:..:..";
	const char *t = text;
	int year, month, day, hour, minute, second;
	int64_t days;

	if (n_bytes == TIME_TEXT_LENGTH + 1 && t[TIME_TEXT_LENGTH] == 'Z')
		n_bytes--;
	if (n_bytes != TIME_TEXT_LENGTH)
		return -EINVAL;
	for (size_t i = 0; i < TIME_TEXT_LENGTH; i++)
		if (form[i] != '.' && form[i] != t[i])
			return -EINVAL;
	year = number_at(t, 4);
	month = number_at(t + 5, 2);
	day = number_at(t + 8, 2);
	hour = number_at(t + 11, 2);
	minute = number_at(t + 14, 2);
	second = number_at(t + 17, 2);
	if (year < 1 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 ||
	    minute < 0 || minute > 59 || second < 0 || second > 60)
		return -EINVAL;
	days = days_of_date(year, (unsigned)month, (unsigned)day);
	/* 31 April would be 1 May: a date that does not exist. */
	if (day > 28 && days >= days_of_date(month == 12 ? year + 1 : year,
					     month == 12 ? 1 : (unsigned)month + 1, 1))
		return -EINVAL;
	*ret_unix_s = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
	return 0;
}
