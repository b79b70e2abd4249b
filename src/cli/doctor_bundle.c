/*
 * doctor --bundle: everything for a report of a fault, in a file of this user's
 * own. Names, domains, public addresses and fingerprints become numbers, the same
 * one wherever the same thing stood; what is left can be shown to strangers.
 */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { TOKEN_BYTES_MAX = 512, LONG_HEX_DIGITS = 32, LOG_LINES = 500 };

struct redactor {
	json_t *known;   /* what stood there: what stands there now */
	json_t *domains; /* those of addresses that were seen: an object, used as a set */
	unsigned n;
	int failed;
};

/* ---- one token --------------------------------------------------------------------- */

static const char *number_of(struct redactor *r, const char *kind, const char *token)
{
	const char *known = json_string_value(json_object_get(r->known, token));
	char text[64];

	if (known)
		return known;
	snprintf(text, sizeof(text), "%s-%u", kind, ++r->n);
	if (json_object_set_new(r->known, token, json_string(text)) < 0) {
		r->failed = -ENOMEM;
		return "?";
	}
	return json_string_value(json_object_get(r->known, token));
}

/* Addresses that everybody has at home tell nothing of anybody. */
static bool tells_nothing(const struct ip_address *ip)
{
	const uint8_t *b = ip->bytes;

	if (ip_is_loopback(ip) || ip_is_link_local(ip) || ip_is_multicast(ip))
		return true;
	return ip->family == FAMILY_IPV4 &&
	       (b[0] == 10 || b[0] == 0 || (b[0] == 172 && (b[1] & 0xf0) == 16) ||
		(b[0] == 192 && b[1] == 168));
}

static bool is_long_hex(const char *token)
{
	return strlen(token) >= LONG_HEX_DIGITS &&
	       strspn(token, "0123456789abcdefABCDEF:") == strlen(token);
}

/* A tunnel's interface has its peer's name. */
static bool is_interface(const char *token)
{
	return strncmp(token, "q2q-", 4) == 0 && strcmp(token, "q2q-tun") != 0 &&
	       strcmp(token, "q2q-tund") != 0 && strcmp(token, "q2q-server") != 0;
}

static bool is_of_known_domain(const struct redactor *r, const char *token)
{
	for (const char *at = token; at; at = strchr(at, '.')) {
		at += *at == '.';
		if (*at && json_object_get(r->domains, at))
			return true;
	}
	return false;
}

static const char *redact_ip(struct redactor *r, const struct ip_address *ip)
{
	char text[IP_TEXT_BYTES];

	return number_of(r, "ip", ip_format(ip, text));
}

/* What stands in place of a token; `out` may be used for it. */
static const char *redact_token(struct redactor *r, const char *token, char *out, size_t out_bytes)
{
	struct endpoint e;
	struct ip_address ip;

	if (strchr(token, '@'))
		return number_of(r, "address", token);
	if (ip_parse(token, &ip) == 0)
		return tells_nothing(&ip) ? token : redact_ip(r, &ip);
	if (endpoint_parse(token, true, &e) == 0) {
		if (tells_nothing(&e.ip))
			return token;
		snprintf(out, out_bytes, "%s:%u", redact_ip(r, &e.ip), e.port);
		return out;
	}
	if (strncmp(token, "SHA256:", 7) == 0 || is_long_hex(token))
		return number_of(r, "key", token);
	if (is_interface(token))
		return number_of(r, "interface", token);
	return is_of_known_domain(r, token) ? number_of(r, "domain", token) : token;
}

/* ---- texts ---------------------------------------------------------------------------- */

static bool is_token_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr(".:_@+-/=[]%", c));
}

/* A sentence's full stop, or the colon after a name, is not of the token. */
static size_t token_bytes(const char *text)
{
	size_t n = 0;

	while (is_token_byte(text[n]))
		n++;
	while (n > 0 && strchr(".:", text[n - 1]))
		n--;
	return n;
}

static void write_redacted(struct redactor *r, FILE *out, const char *text)
{
	while (*text) {
		const size_t n = token_bytes(text);
		char token[TOKEN_BYTES_MAX], place[TOKEN_BYTES_MAX];

		if (n == 0) {
			fputc(*text++, out);
			continue;
		}
		if (n >= sizeof(token)) {
			fputs("(left out)", out);
		} else {
			memcpy(token, text, n);
			token[n] = '\0';
			fputs(redact_token(r, token, place, sizeof(place)), out);
		}
		text += n;
	}
}

static json_t *redacted_text(struct redactor *r, const char *text)
{
	char *memory = NULL;
	size_t n_bytes = 0;
	FILE *out = open_memstream(&memory, &n_bytes);
	json_t *value;

	if (!out) {
		r->failed = -ENOMEM;
		return json_string("?");
	}
	write_redacted(r, out, text);
	fclose(out);
	value = json_string(memory);
	free(memory);
	return value ? value : json_string("?");
}

/* ---- values ------------------------------------------------------------------------------ */

/* The domain of each address, wherever it stands. */
static void learn(struct redactor *r, const char *text)
{
	for (const char *at = strchr(text, '@'); at; at = strchr(at + 1, '@')) {
		char domain[TOKEN_BYTES_MAX];
		const size_t n = token_bytes(at + 1);

		if (n == 0 || n >= sizeof(domain))
			continue;
		memcpy(domain, at + 1, n);
		domain[n] = '\0';
		json_object_set_new(r->domains, domain, json_true());
	}
}

static void learn_all(struct redactor *r, const json_t *value)
{
	const json_t *each;
	const char *key;
	size_t i;

	if (json_is_string(value))
		learn(r, json_string_value(value));
	json_array_foreach (value, i, each)
		learn_all(r, each);
	json_object_foreach ((json_t *)(uintptr_t)value, key, each)
		learn_all(r, each);
}

static json_t *redacted(struct redactor *r, const json_t *value, const char *key);

static json_t *redacted_object(struct redactor *r, const json_t *value)
{
	json_t *copy = json_object();
	const json_t *each;
	const char *key;

	json_object_foreach ((json_t *)(uintptr_t)value, key, each)
		json_object_set_new(copy, key, redacted(r, each, key));
	return copy;
}

static json_t *redacted(struct redactor *r, const json_t *value, const char *key)
{
	const json_t *each;
	json_t *copy;
	size_t i;

	if (json_is_string(value)) {
		const char *text = json_string_value(value);

		if (key && *text && (!strcmp(key, "device") || !strcmp(key, "interface")))
			return json_string(number_of(r, key, text));
		return redacted_text(r, text);
	}
	if (json_is_object(value))
		return redacted_object(r, value);
	if (!json_is_array(value))
		return json_deep_copy(value);
	copy = json_array();
	json_array_foreach (value, i, each)
		json_array_append_new(copy, redacted(r, each, key));
	return copy;
}

/* ---- the file ------------------------------------------------------------------------------ */

static void keep_line(struct cli_call *call, const json_t *event)
{
	json_array_append(json_object_get(call->local, "lines"), (json_t *)(uintptr_t)event);
}

/* The daemon's last lines; an empty list if it does not tell them. */
static json_t *log_lines(const struct cli_call *call)
{
	const struct cli_command command = { .name = "log", .event = keep_line };
	struct cli_globals globals = *call->globals;
	struct cli_call log = { .globals = &globals,
				.command = &command,
				.request = "log",
				.args = json_pack("{s:i}", "lines", LOG_LINES),
				.local = json_pack("{s:[]}", "lines") };
	json_t *result = NULL, *lines;

	globals.json = false; /* events come to us */
	if (log.args && log.local)
		cli_client_fetch(&log, &result);
	lines = json_incref(json_object_get(log.local, "lines"));
	json_decref(result);
	json_decref(log.args);
	json_decref(log.local);
	return lines;
}

static int write_file(const char *file, const json_t *bundle)
{
	const int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
	bool good;

	if (!out) {
		cli_complain("cannot write %s: %s", file, strerror(errno));
		if (fd >= 0)
			close(fd);
		return CLI_FAILED;
	}
	good = json_dumpf(bundle, out, JSON_INDENT(1)) == 0 && fputc('\n', out) != EOF;
	if (fclose(out) != 0 || !good) {
		cli_complain("cannot write %s: %s", file, strerror(errno));
		return CLI_FAILED;
	}
	return CLI_OK;
}

int cli_doctor_bundle(struct cli_call *call, const json_t *result, const char *file)
{
	struct redactor r = { .known = json_object(), .domains = json_object() };
	json_t *whole =
		json_pack("{s:i,s:O,s:o?}", "v", 1, "doctor", result, "log", log_lines(call));
	json_t *bundle = NULL;
	int code = CLI_FAILED;

	if (whole && r.known && r.domains) {
		learn_all(&r, whole);
		bundle = redacted(&r, whole, NULL);
	}
	if (bundle && !r.failed)
		code = write_file(file, bundle);
	else
		cli_complain("out of memory");
	json_decref(bundle);
	json_decref(whole);
	json_decref(r.known);
	json_decref(r.domains);
	return code;
}
