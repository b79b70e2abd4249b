#include "server/policy.h"

#include <stdio.h>
#include <strings.h>

/*
 * Length is what counts (NIST SP 800-63B, 5.1.1); beyond it only what everybody
 * tries first is refused: one character repeated, and the name itself.
 */
const char *policy_password_reason(const void *password, size_t password_bytes, const char *name,
				   size_t min_bytes)
{
	static _Thread_local char text[64];
	const char *p = password;
	size_t n_same = 0;

	if (password_bytes < min_bytes) {
		snprintf(text, sizeof(text), "the password needs at least %zu characters",
			 min_bytes);
		return text;
	}
	if (password_bytes > POLICY_PASSWORD_MAX)
		return "the password is longer than 1024 bytes";
	if (memchr(password, '\0', password_bytes) || memchr(password, '\n', password_bytes))
		return "the password holds a line break or a NUL";
	while (n_same < password_bytes && p[n_same] == p[0])
		n_same++;
	if (n_same == password_bytes)
		return "the password is one character repeated";
	if (password_bytes == strlen(name) && strncasecmp(p, name, password_bytes) == 0)
		return "the password is the name";
	return NULL;
}

int policy_duration_parse(const char *text, uint64_t *ret_seconds)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = {
		{ 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 },
	};
	const size_t n = strlen(text);
	char number[16];
	uint64_t value;

	if (strcmp(text, "never") == 0) {
		*ret_seconds = 0;
		return 0;
	}
	if (n < 2 || n > sizeof(number))
		return -EINVAL;
	memcpy(number, text, n - 1);
	number[n - 1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (text[n - 1] != units[i].unit)
			continue;
		if (parse_u64(number, 1000000, &value) != 0 || value == 0)
			return -EINVAL;
		*ret_seconds = value * units[i].seconds;
		return 0;
	}
	return -EINVAL;
}
