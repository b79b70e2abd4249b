/* Unit tests of the control messages. */
#include "unit.h"
#include "ctl/ctl.h"

static int parse(const char *line, struct ctl_request *ret)
{
	char why[256];

	return ctl_request_parse(line, strlen(line), ret, why, sizeof(why));
}

static void a_request_arrives_as_it_was_built(void **state)
{
	struct ctl_request request;
	char *line = ctl_request_line(7, CTL_UP,
				      json_pack("{s:s,s:I,s:b}", "address", "bob@b.test", "wait_s",
						(json_int_t)30, "yes", 1));

	(void)state;
	assert_non_null(line);
	assert_int_equal(parse(line, &request), 0);
	assert_int_equal(request.type, CTL_REQUEST);
	assert_int_equal(request.id, 7);
	assert_int_equal(request.command, CTL_UP);
	assert_string_equal(ctl_text(&request, "address"), "bob@b.test");
	assert_int_equal(ctl_uint(&request, "wait_s", 1), 30);
	assert_true(ctl_bool(&request, "yes"));
	assert_null(ctl_text(&request, "as"));
	assert_false(ctl_bool(&request, "on_demand"));
	assert_int_equal(ctl_uint(&request, "absent", 9), 9);
	ctl_request_fini(&request);
	free(line);
}

static void arguments_that_are_missing_unknown_or_of_another_type_are_refused(void **state)
{
	static const struct {
		const char *line;
		int result;
	} cases[] = {
		{ "{\"v\":1,\"id\":1,\"cmd\":\"up\",\"args\":{}}", -EINVAL },
		{ "{\"v\":1,\"id\":1,\"cmd\":\"up\"}", -EINVAL },
		{ "{\"v\":1,\"id\":1,\"cmd\":\"up\",\"args\":{\"address\":1}}", -EINVAL },
		{ "{\"v\":1,\"id\":1,\"cmd\":\"status\",\"args\":{\"addres\":\"a\"}}", -EINVAL },
		{ "{\"v\":1,\"id\":1,\"cmd\":\"up\",\"args\":{\"address\":\"a\",\"wait_s\":-1}}",
		  -EINVAL },
		{ "{\"v\":1,\"id\":1,\"cmd\":\"up\",\"args\":{\"address\":\"a\",\"wait_s\":1e3}}",
		  -EINVAL },
		{ "{\"v\":1,\"id\":1,\"cmd\":\"fly\"}", -ENOENT },
		{ "{\"v\":2,\"id\":1,\"cmd\":\"status\"}", -EPROTO },
		{ "{\"v\":1,\"id\":-1,\"cmd\":\"status\"}", -EBADMSG },
		{ "{\"v\":1,\"cmd\":\"status\"}", -EBADMSG },
		{ "{\"v\":1,\"id\":1}", -EBADMSG },
		{ "{\"v\":1,\"id\":1,\"cmd\":\"status\",\"cmd\":\"down\"}", -EBADMSG },
		{ "{\"v\":1,\"id\":1,\"cmd\":\"status\",\"args\":[]}", -EBADMSG },
		{ "{\"v\":1,\"id\":1,\"answer\":1}", -EBADMSG },
		{ "[1]", -EBADMSG },
		{ "", -EBADMSG },
		{ "\xff", -EBADMSG },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ctl_request request;

		if (parse(cases[i].line, &request) != cases[i].result)
			fail_msg("%s", cases[i].line);
	}
}

static void a_request_cut_anywhere_is_refused(void **state)
{
	const char *whole = "{\"v\":1,\"id\":3,\"cmd\":\"wait\",\"args\":{\"address\":\"b@c.d\"}}";
	char why[256];

	(void)state;
	for (size_t i = 0; i < strlen(whole); i++) {
		struct ctl_request request;

		assert_int_equal(ctl_request_parse(whole, i, &request, why, sizeof(why)), -EBADMSG);
	}
}

static void an_answer_arrives(void **state)
{
	char *line = ctl_answer_line(5, "SHA256:abc");
	struct ctl_request request;

	(void)state;
	assert_int_equal(parse(line, &request), 0);
	assert_int_equal(request.type, CTL_ANSWER);
	assert_int_equal(request.id, 5);
	assert_string_equal(request.answer, "SHA256:abc");
	ctl_request_fini(&request);
	free(line);
}

static struct ctl_reply reply_of(char *line)
{
	struct ctl_reply reply;

	assert_non_null(line);
	assert_null(strchr(line, '\n'));
	assert_int_equal(ctl_reply_parse(line, strlen(line), &reply), 0);
	free(line);
	return reply;
}

static void every_reply_arrives_as_it_was_built(void **state)
{
	struct ctl_reply r = reply_of(ctl_result_line(1, json_pack("{s:i}", "n", 4)));

	(void)state;
	assert_int_equal(r.type, CTL_REPLY_RESULT);
	assert_int_equal(json_integer_value(json_object_get(r.body, "n")), 4);
	ctl_reply_fini(&r);

	r = reply_of(ctl_error_line(2, CTL_OFFLINE, "bob is offline", "wait"));
	assert_int_equal(r.type, CTL_REPLY_ERROR);
	assert_int_equal(r.code, CTL_OFFLINE);
	assert_string_equal(r.text, "bob is offline");
	assert_string_equal(r.hint, "wait");
	ctl_reply_fini(&r);

	r = reply_of(ctl_error_line(2, CTL_FAILED, "no", NULL));
	assert_null(r.hint);
	ctl_reply_fini(&r);

	r = reply_of(ctl_progress_line(3, "looking up b.test"));
	assert_int_equal(r.type, CTL_REPLY_PROGRESS);
	assert_string_equal(r.text, "looking up b.test");
	ctl_reply_fini(&r);

	r = reply_of(ctl_event_line(4, json_pack("{s:i}", "seq", 1)));
	assert_int_equal(r.type, CTL_REPLY_EVENT);
	assert_int_equal(r.id, 4);
	ctl_reply_fini(&r);

	r = reply_of(ctl_ask_line(5, CTL_ASK_TRUST_PEER, "bob@b.test", "SHA256:x", "two\nlines"));
	assert_int_equal(r.type, CTL_REPLY_ASK);
	assert_int_equal(r.ask_kind, CTL_ASK_TRUST_PEER);
	assert_string_equal(r.subject, "bob@b.test");
	assert_string_equal(r.fingerprint, "SHA256:x");
	assert_string_equal(r.text, "two\nlines");
	ctl_reply_fini(&r);
}

static void hostile_text_does_not_reach_a_terminal(void **state)
{
	struct ctl_reply r = reply_of(ctl_error_line(2, CTL_FAILED, "a\x1b[2Jb\xff", "\x07"));

	(void)state;
	assert_string_equal(r.text, "a?[2Jb?");
	assert_string_equal(r.hint, "?");
	ctl_reply_fini(&r);
}

static void replies_of_no_known_shape_are_refused(void **state)
{
	static const char *const lines[] = {
		"{\"v\":1,\"id\":1}",
		"{\"v\":1,\"id\":1,\"ok\":1}",
		"{\"v\":1,\"id\":1,\"ok\":true}",
		"{\"v\":1,\"id\":1,\"ok\":false,\"code\":0,\"error\":\"x\"}",
		"{\"v\":1,\"id\":1,\"ok\":false,\"code\":99,\"error\":\"x\"}",
		"{\"v\":1,\"id\":1,\"ok\":false,\"code\":1}",
		"{\"v\":1,\"id\":1,\"event\":3}",
		("{\"v\":1,\"id\":1,\"ask\":{\"kind\":\"x\",\"subject\":\"\",\"fingerprint\":\"\","
		 "\"text\":\"\"}}"),
		"{\"v\":1,\"ok\":true,\"result\":{}}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct ctl_reply reply;

		if (ctl_reply_parse(lines[i], strlen(lines[i]), &reply) != -EBADMSG)
			fail_msg("%s", lines[i]);
	}
}

static void every_command_has_a_name_that_finds_it(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CTL_COMMAND_COUNT; i++) {
		enum ctl_command found;

		assert_non_null(ctl_command_info((enum ctl_command)i)->name);
		assert_int_equal(
			ctl_command_find(ctl_command_info((enum ctl_command)i)->name, &found), 0);
		assert_int_equal(found, i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_arrives_as_it_was_built),
		cmocka_unit_test(arguments_that_are_missing_unknown_or_of_another_type_are_refused),
		cmocka_unit_test(a_request_cut_anywhere_is_refused),
		cmocka_unit_test(an_answer_arrives),
		cmocka_unit_test(every_reply_arrives_as_it_was_built),
		cmocka_unit_test(hostile_text_does_not_reach_a_terminal),
		cmocka_unit_test(replies_of_no_known_shape_are_refused),
		cmocka_unit_test(every_command_has_a_name_that_finds_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
