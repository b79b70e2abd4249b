#include "unit.h"
#include "conf/conf.h"

#include <stdio.h>
#include <unistd.h>

struct target {
	char *user;
	struct conf_list listen;
	bool quiet;
	uint64_t port;
	int registration;
	char overrides[4][64];
	size_t n_overrides;
};

static int set_server(void *target, const char *argument, const char *value, char *why,
		      size_t why_bytes)
{
	struct target *t = target;

	if (!strchr(value, ':')) {
		snprintf(why, why_bytes, "must be HOST:PORT");
		return -EINVAL;
	}
	if (t->n_overrides < 4)
		snprintf(t->overrides[t->n_overrides++], 64, "%.30s>%.30s", argument, value);
	return 0;
}

static const char *const registrations[] = { "open", "invite", "closed", NULL };

/* clang-format off */
static const struct conf_key keys[] = {
	{ "server",   "user",         CONF_TEXT,   offsetof(struct target, user),         .min = 0 },
	{ "server",   "listen",       CONF_LIST,   offsetof(struct target, listen),       .min = 0 },
	{ "server",   "quiet",        CONF_BOOL,   offsetof(struct target, quiet),        .min = 0 },
	{ "server",   "port",         CONF_UINT,   offsetof(struct target, port),         .min = 1, .max = 65535 },
	{ "server",   "registration", CONF_CHOICE, offsetof(struct target, registration), .choices = registrations },
	{ "domain *", "server",       CONF_CALL,   0,                                     .set = set_server },
};
/* clang-format on */

static int parse(const char *text, struct target *t, struct conf_error *error)
{
	memset(t, 0, sizeof(*t));
	memset(error, 0, sizeof(*error));
	return conf_parse("x.conf", text, strlen(text), keys, ARRAY_SIZE(keys), t, error);
}

static void every_type_of_value_lands_in_its_field(void **state)
{
	struct target t;
	struct conf_error error;

	(void)state;
	assert_int_equal(parse("\xef\xbb\xbf# head\r\n"
			       "[server]\r\n"
			       "  user = q2q ; who\n"
			       "; and\n"
			       "listen = 0.0.0.0:1\n"
			       "listen: [::]:2\n"
			       "quiet = Yes\n"
			       "port=8788\n"
			       "registration = closed\n"
			       "\n"
			       "[domain b.test]\n"
			       "server = h:1\n"
			       "[domain c.test] # other\n"
			       "server = h:2",
			       &t, &error),
			 0);
	assert_string_equal(t.user, "q2q");
	assert_int_equal(t.listen.n_items, 2);
	assert_string_equal(t.listen.items[0], "0.0.0.0:1");
	assert_string_equal(t.listen.items[1], "[::]:2");
	assert_true(t.quiet);
	assert_int_equal(t.port, 8788);
	assert_int_equal(t.registration, 2);
	assert_int_equal(t.n_overrides, 2);
	assert_string_equal(t.overrides[0], "b.test>h:1");
	assert_string_equal(t.overrides[1], "c.test>h:2");
	conf_clear(keys, ARRAY_SIZE(keys), &t);
	assert_null(t.user);
	assert_int_equal(t.listen.n_items, 0);
}

static void each_fault_names_its_line_and_what_would_be_right(void **state)
{
	static const struct {
		const char *text;
		unsigned line;
		const char *says;
	} cases[] = {
		{ "[server]\nprot = 1\n", 2,
		  "x.conf:2: unknown key \"prot\" in [server]; known are: user, listen, quiet" },
		{ "\n[sever]\n", 2,
		  "x.conf:2: unknown section [sever]; known are: [server], [domain *]" },
		{ "[domain ]\n", 1, "unknown section" },
		{ "user = x\n", 1, "before the first" },
		{ "[server]\nport = 0\n", 2, "must be a number from 1 to 65535" },
		{ "[server]\nport = 65536\n", 2, "must be a number from 1 to 65535" },
		{ "[server]\nport = 12x\n", 2, "must be a number" },
		{ "[server]\nport = 99999999999999999999999\n", 2, "must be a number" },
		{ "[server]\nquiet = maybe\n", 2, "must be yes or no" },
		{ "[server]\nregistration = Open\n", 2, "must be one of open, invite, closed" },
		{ "[server]\nuser =\n", 2, "has no value" },
		{ "[server]\nuser = a\nuser = b\n", 3, "given twice" },
		{ "[server]\n\n[domain x]\nserver=a:1\n[server]\n", 5, "already, in line 1" },
		{ "[server\nuser = x\n", 1, "needs its \"]\"" },
		{ "[server] x\n", 1, "nothing may follow" },
		{ "[server]\nnonsense\n", 2, "neither [section]" },
		{ "[domain a.test]\nserver = nowhere\n", 2, "must be HOST:PORT" },
		{ "[server]\nuser = \xff\n", 0, "not a text file" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct target t;
		struct conf_error error;

		assert_int_equal(parse(cases[i].text, &t, &error), -EINVAL);
		if (error.line != cases[i].line || !strstr(error.text, cases[i].says))
			fail_msg("case %zu: line %u: %s", i, error.line, error.text);
		conf_clear(keys, ARRAY_SIZE(keys), &t);
	}
}

static void an_indented_line_is_a_line_of_its_own(void **state)
{
	struct target t;
	struct conf_error error;

	(void)state;
	assert_int_equal(parse("[server]\nuser = a\n  quiet = on\n", &t, &error), 0);
	assert_string_equal(t.user, "a");
	assert_true(t.quiet);
	conf_clear(keys, ARRAY_SIZE(keys), &t);
}

static void nothing_is_cut_off_silently(void **state)
{
	char text[1024];
	struct target t;
	struct conf_error error;

	(void)state;
	snprintf(text, sizeof(text), "[server]\nuser = %0250d\n", 7);
	assert_int_equal(parse(text, &t, &error), -EINVAL);
	assert_int_equal(error.line, 2);
	assert_non_null(strstr(error.text, "longer than"));
	conf_clear(keys, ARRAY_SIZE(keys), &t);

	snprintf(text, sizeof(text), "[domain %0250d]\nserver = a:1\n", 7);
	assert_int_equal(parse(text, &t, &error), 0);
	assert_int_equal(t.n_overrides, 1);

	snprintf(text, sizeof(text), "[domain %0400d]\nserver = a:1\n", 7);
	assert_int_equal(parse(text, &t, &error), -EINVAL);
	assert_non_null(strstr(error.text, "too long"));
}

static void a_repeatable_key_has_a_bound(void **state)
{
	char text[4096] = "[server]\n";
	struct target t;
	struct conf_error error;

	(void)state;
	for (int i = 0; i <= CONF_LIST_MAX; i++)
		strncat(text, "listen = x\n", sizeof(text) - strlen(text) - 1);
	assert_int_equal(parse(text, &t, &error), -EINVAL);
	assert_int_equal(error.line, CONF_LIST_MAX + 2);
	assert_int_equal(t.listen.n_items, CONF_LIST_MAX);
	conf_clear(keys, ARRAY_SIZE(keys), &t);
}

static void a_fault_of_the_file_names_the_file(void **state)
{
	char path[] = "/tmp/test_conf.XXXXXX";
	struct target t = { 0 };
	struct conf_error error;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "[server]\nport = 5\n", 18), 18);
	close(fd);
	assert_int_equal(conf_load(path, keys, ARRAY_SIZE(keys), &t, &error), 0);
	assert_int_equal(t.port, 5);
	assert_int_equal(truncate(path, CONF_FILE_BYTES_MAX + 1), 0);
	assert_int_equal(conf_load(path, keys, ARRAY_SIZE(keys), &t, &error), -EFBIG);
	unlink(path);
	assert_int_equal(conf_load(path, keys, ARRAY_SIZE(keys), &t, &error), -ENOENT);
	assert_non_null(strstr(error.text, path));
	assert_int_equal(conf_load("/", keys, ARRAY_SIZE(keys), &t, &error), -EISDIR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_of_value_lands_in_its_field),
		cmocka_unit_test(each_fault_names_its_line_and_what_would_be_right),
		cmocka_unit_test(an_indented_line_is_a_line_of_its_own),
		cmocka_unit_test(nothing_is_cut_off_silently),
		cmocka_unit_test(a_repeatable_key_has_a_bound),
		cmocka_unit_test(a_fault_of_the_file_names_the_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
