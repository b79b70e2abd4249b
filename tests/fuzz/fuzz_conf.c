/* Configuration files. Every fault must say which line it is in, and leave nothing behind. */
#include "conf/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

struct target {
	char *text;
	struct conf_list list;
	bool yes;
	uint64_t number;
	int choice;
	size_t n_calls;
};

static int call(void *target, const char *argument, const char *value, char *why, size_t why_bytes)
{
	struct target *t = target;

	(void)why, (void)why_bytes;
	t->n_calls++;
	return argument && value[0] == 'x' ? -EINVAL : 0;
}

static const char *const choices[] = { "a", "b", NULL };

/* clang-format off */
static const struct conf_key keys[] = {
	{ "s",   "text",   CONF_TEXT,   offsetof(struct target, text),   .min = 0 },
	{ "s",   "list",   CONF_LIST,   offsetof(struct target, list),   .min = 0 },
	{ "s",   "yes",    CONF_BOOL,   offsetof(struct target, yes),    .min = 0 },
	{ "s",   "number", CONF_UINT,   offsetof(struct target, number), .min = 3, .max = 70000 },
	{ "t",   "choice", CONF_CHOICE, offsetof(struct target, choice), .choices = choices },
	{ "n *", "call",   CONF_CALL,   0,                               .set = call },
};
/* clang-format on */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	struct target target = { 0 };
	struct conf_error error = { 0 };
	const int r = conf_parse("f", (const char *)data, data_bytes, keys, ARRAY_SIZE(keys),
				 &target, &error);

	if (r < 0 && error.text[0] == '\0')
		abort();
	if (target.number != 0 && (target.number < 3 || target.number > 70000))
		abort();
	conf_clear(keys, ARRAY_SIZE(keys), &target);
	return 0;
}
