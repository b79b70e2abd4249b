/*
 * The table of commands: names, who may, which arguments of which type.
 */
#include "ctl/ctl_private.h"

#include <stdio.h>

#define TEXT(n)                                                                                    \
	{                                                                                          \
		.name = n, .type = CTL_TEXT                                                        \
	}
#define TEXT_REQ(n)                                                                                \
	{                                                                                          \
		.name = n, .type = CTL_TEXT, .required = true                                      \
	}
#define SECRET(n)                                                                                  \
	{                                                                                          \
		.name = n, .type = CTL_TEXT, .secret = true                                        \
	}
#define BOOL(n)                                                                                    \
	{                                                                                          \
		.name = n, .type = CTL_BOOL                                                        \
	}
#define UINT(n, most)                                                                              \
	{                                                                                          \
		.name = n, .type = CTL_UINT, .max = most                                           \
	}

/* clang-format off */
static const struct ctl_command_info commands[CTL_COMMAND_COUNT] = {
	[CTL_REGISTER] = { "register", .arguments = {
		TEXT_REQ("address"), SECRET("password"), SECRET("invite"), TEXT("server"),
		BOOL("authorize"), BOOL("yes") } },
	[CTL_AUTHORIZE] = { "authorize", .arguments = {
		TEXT_REQ("address"), SECRET("password"), TEXT("server"), BOOL("yes") } },
	[CTL_IDENTITY_LIST] = { "identity-list" },
	[CTL_IDENTITY_SHOW] = { "identity-show", .arguments = { TEXT("address") } },
	[CTL_IDENTITY_DEFAULT] = { "identity-default", .arguments = { TEXT_REQ("address") } },
	[CTL_IDENTITY_EXPORT] = { "identity-export", .arguments = { TEXT_REQ("address") } },
	[CTL_IDENTITY_IMPORT] = { "identity-import", .arguments = {
		{ .name = "pem", .type = CTL_PEM, .required = true, .secret = true } } },
	[CTL_IDENTITY_ROTATE] = { "identity-rotate", .arguments = {
		TEXT_REQ("address"), SECRET("password") } },
	[CTL_UP] = { "up", .arguments = {
		TEXT_REQ("address"), TEXT("as"), UINT("wait_s", 86400), BOOL("yes"),
		TEXT("path"), BOOL("on_demand") } },
	[CTL_DOWN] = { "down", .arguments = { TEXT("address"), BOOL("all") } },
	[CTL_WAIT] = { "wait", .public = true, .arguments = {
		TEXT_REQ("address"), BOOL("direct"), UINT("timeout_s", 86400) } },
	[CTL_STATUS] = { "status", .public = true, .arguments = { TEXT("address") } },
	[CTL_DOCTOR] = { "doctor", .arguments = { TEXT("address") } },
	[CTL_PEERS] = { "peers", .public = true, .arguments = { TEXT("address") } },
	[CTL_PEERS_FORGET] = { "peers-forget", .arguments = { TEXT_REQ("address") } },
	[CTL_PEERS_PIN] = { "peers-pin", .arguments = {
		TEXT_REQ("address"), TEXT_REQ("fingerprint") } },
	[CTL_ALLOW] = { "allow", .arguments = {
		TEXT_REQ("address"), BOOL("yes"), UINT("for_s", 366 * 86400) } },
	[CTL_DENY] = { "deny", .arguments = { TEXT_REQ("address") } },
	[CTL_REQUESTS] = { "requests" },
	[CTL_PING] = { "ping", .follows = true, .arguments = {
		TEXT_REQ("address"), UINT("count", UINT32_MAX), UINT("interval_ms", 3600000),
		BOOL("until_direct"), UINT("size", 65000), UINT("timeout_s", 86400) } },
	[CTL_LOG] = { "log", .follows = true, .arguments = { BOOL("follow"), UINT("lines", 100000) } },
	[CTL_MONITOR] = { "monitor", .follows = true },
	[CTL_VERSION_INFO] = { "version", .public = true },
};
/* clang-format on */

const struct ctl_command_info *ctl_command_info(enum ctl_command command)
{
	assert((unsigned)command < CTL_COMMAND_COUNT);
	return &commands[command];
}

int ctl_command_find(const char *name, enum ctl_command *ret_command)
{
	for (unsigned i = 0; i < CTL_COMMAND_COUNT; i++)
		if (!strcmp(commands[i].name, name)) {
			*ret_command = (enum ctl_command)i;
			return 0;
		}
	return -ENOENT;
}

static const struct ctl_argument *argument_find(enum ctl_command command, const char *name)
{
	for (const struct ctl_argument *a = commands[command].arguments; a->name; a++)
		if (!strcmp(a->name, name))
			return a;
	return NULL;
}

static const char *argument_wants(const struct ctl_argument *a, const json_t *value)
{
	switch (a->type) {
	case CTL_TEXT:
		return json_is_string(value) && json_string_length(value) <= CTL_TEXT_BYTES_MAX
			       ? NULL
			       : "a text of at most 4096 bytes";
	case CTL_PEM:
		return json_is_string(value) && json_string_length(value) <= CTL_PEM_BYTES_MAX
			       ? NULL
			       : "a PEM text of at most 64 KiB";
	case CTL_BOOL:
		return json_is_boolean(value) ? NULL : "true or false";
	case CTL_UINT:
		return json_is_integer(value) && json_integer_value(value) >= 0 &&
				       (uint64_t)json_integer_value(value) <= a->max
			       ? NULL
			       : "a number in its range";
	}
	return "something else";
}

int ctl_check_arguments(enum ctl_command command, const json_t *args, char *why, size_t why_bytes)
{
	const char *key, *wants;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)args, key, value) {
		const struct ctl_argument *a = argument_find(command, key);

		if (!a) {
			char clean[64];

			text_sanitize(key, strlen(key), clean, sizeof(clean));
			snprintf(why, why_bytes, "%s takes no argument \"%s\"",
				 commands[command].name, clean);
			return -EINVAL;
		}
		wants = argument_wants(a, value);
		if (wants) {
			snprintf(why, why_bytes, "argument \"%s\" of %s must be %s", key,
				 commands[command].name, wants);
			return -EINVAL;
		}
	}
	for (const struct ctl_argument *a = commands[command].arguments; a->name; a++)
		if (a->required && !json_object_get(args, a->name)) {
			snprintf(why, why_bytes, "%s needs the argument \"%s\"",
				 commands[command].name, a->name);
			return -EINVAL;
		}
	return 0;
}
