#include "vectors.h"
#include "unit.h"

#include <stdio.h>

const char *const vector_files[] = {
	"01-source-ip-identify",
	"02-secure-anonymous",
	"03-inbound-identity-admin",
	"04-virtual-retrieve-adduser-close",
	"05-retrieve-tcp-adduser-plaintext",
	"06-adduser-notallowed",
	"07-sign",
	"08-sign-wrong-password",
	"09-secure-authorized",
	"10-listen",
	"11-inbound-relayed-and-bind-udp",
	"12-retrieve-connection-tcp",
	"13-retrieve-connection-error",
	"14-choke-unchoke-close",
	"15-server-originated-virtual",
	"16-listener-behind-nat",
	"17-errors-and-edge-cases",
	"18-relay-cases",
	NULL,
};

json_t *vector_load(const char *name)
{
	const char *top = getenv("abs_top_srcdir");
	json_error_t error;
	char path[4096];
	json_t *document;

	snprintf(path, sizeof(path), "%s/tests/vectors/q2q/%s.json", top ? top : ".", name);
	document = json_load_file(path, 0, &error);
	if (!document)
		fail_msg("%s: %s", path, error.text);
	return document;
}

uint8_t *vector_bytes(json_t *step, size_t *ret_bytes)
{
	const char *hex = json_string_value(json_object_get(step, "hex"));
	uint8_t *bytes;

	assert_non_null(hex);
	*ret_bytes = strlen(hex) / 2;
	bytes = malloc(*ret_bytes + 1);
	assert_non_null(bytes);
	assert_int_equal(hex_decode(hex, bytes, *ret_bytes), 0);
	return bytes;
}

static bool is_step(json_t *value)
{
	/* The summaries inside "decoded" and the shortened raw segments are no steps. */
	return json_object_get(value, "dir") && json_object_get(value, "hex") &&
	       !json_object_get(value, "kind");
}

void vector_each_step(json_t *document,
		      void (*fn)(void *user, json_t *step, const uint8_t *bytes, size_t n_bytes),
		      void *user)
{
	const char *key;
	json_t *value;
	size_t i;

	if (json_is_object(document) && is_step(document)) {
		size_t n_bytes;
		uint8_t *bytes = vector_bytes(document, &n_bytes);

		fn(user, document, bytes, n_bytes);
		free(bytes);
		return;
	}
	json_object_foreach (document, key, value)
		vector_each_step(value, fn, user);
	json_array_foreach (document, i, value)
		vector_each_step(value, fn, user);
}

json_t *vector_step(json_t *document, const char *array, size_t i)
{
	json_t *step = json_array_get(json_object_get(document, array), i);

	assert_non_null(step);
	return step;
}

json_t *vector_case(json_t *document, const char *name)
{
	json_t *list = json_object_get(document, "cases");
	json_t *value;
	size_t i;

	json_array_foreach (list, i, value)
		if (strcmp(json_string_value(json_object_get(value, "case")), name) == 0)
			return value;
	fail_msg("no case \"%s\"", name);
	return NULL;
}
