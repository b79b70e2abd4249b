#include "unit.h"
#include "crypto/crypto.h"
#include "net/net.h"
#include "server/domain.h"
#include "server/hasher.h"
#include "server/limiter.h"
#include "server/options.h"
#include "server/policy.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- limiter ------------------------------------------------------------------------------ */

static const struct limiter_config limits = {
	.seed = { 3, 4 },
	.n_keys_max = 4,
	.burst = 3,
	.interval_us = 1000,
	.free_failures = 2,
	.first_pause_us = 100,
	.longest_pause_us = 500,
	.forget_us = 10000,
};

static void a_bucket_empties_and_fills_by_the_interval(void **state)
{
	struct limiter *l = limiter_new(&limits);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(limiter_take(l, "a", 1, 500), 0);
	assert_int_equal(limiter_take(l, "a", 1, 500), 1000);
	assert_int_equal(limiter_take(l, "b", 1, 500), 0);
	assert_int_equal(limiter_take(l, "a", 1, 1499), 1);
	assert_int_equal(limiter_take(l, "a", 1, 1500), 0);
	assert_int_equal(limiter_take(l, "a", 1, 1600), 900);
	for (int i = 0; i < 3; i++)
		assert_int_equal(limiter_take(l, "a", 1, UINT64_MAX / 2), 0);
	assert_true(limiter_take(l, "a", 1, UINT64_MAX / 2) > 0);
	limiter_free(l);
}

static void the_pause_after_failures_doubles_up_to_its_bound(void **state)
{
	static const uint64_t expected[] = { 0, 0, 100, 200, 400, 500, 500 };
	struct limiter *l = limiter_new(&limits);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		limiter_failed(l, "a", 1, 1000);
		assert_int_equal(limiter_pause_us(l, "a", 1, 1000), expected[i]);
	}
	assert_int_equal(limiter_pause_us(l, "a", 1, 1499), 1);
	assert_int_equal(limiter_pause_us(l, "a", 1, 1500), 0);
	assert_int_equal(limiter_pause_us(l, "b", 1, 1000), 0);
	limiter_failed(l, "a", 1, 20000); /* long after: counts from the beginning */
	assert_int_equal(limiter_pause_us(l, "a", 1, 20000), 0);
	for (int i = 0; i < 5; i++)
		limiter_failed(l, "a", 1, 20000);
	assert_true(limiter_pause_us(l, "a", 1, 20000) > 0);
	limiter_succeeded(l, "a", 1);
	assert_int_equal(limiter_pause_us(l, "a", 1, 20000), 0);
	limiter_free(l);
}

static void the_table_forgets_the_key_that_was_used_least_recently(void **state)
{
	struct limiter *l = limiter_new(&limits);

	(void)state;
	for (int i = 0; i < 5; i++)
		limiter_failed(l, "a", 1, 0);
	for (int i = 0; i < 5; i++)
		limiter_failed(l, "b", 1, 0);
	limiter_failed(l, "c", 1, 0);
	limiter_failed(l, "d", 1, 0);
	limiter_failed(l, "a", 1, 0);
	limiter_failed(l, "e", 1, 0); /* b goes */
	assert_true(limiter_pause_us(l, "a", 1, 0) > 0);
	assert_int_equal(limiter_pause_us(l, "b", 1, 0), 0);
	limiter_free(l);
}

static void an_ipv6_network_counts_as_one_address(void **state)
{
	struct ip_address a, b;
	uint8_t key_a[9], key_b[9];

	(void)state;
	assert_int_equal(ip_parse("2001:db8:1:2::1", &a), 0);
	assert_int_equal(ip_parse("2001:db8:1:2:ffff::9", &b), 0);
	assert_int_equal(limiter_address_key(&a, key_a), 9);
	assert_int_equal(limiter_address_key(&b, key_b), 9);
	assert_memory_equal(key_a, key_b, 9);
	assert_int_equal(ip_parse("192.0.2.1", &a), 0);
	assert_int_equal(limiter_address_key(&a, key_a), 5);
	assert_int_not_equal(key_a[0], key_b[0]);
}

/* ---- policy ------------------------------------------------------------------------------- */

static bool password_ok(const char *password)
{
	return policy_password_reason(password, strlen(password), "alice.smith", 8) == NULL;
}

static void weak_passwords_are_refused_and_long_ones_taken(void **state)
{
	char large[POLICY_PASSWORD_MAX + 1];

	(void)state;
	assert_true(password_ok("correct horse battery"));
	assert_true(password_ok("\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f"));
	assert_false(password_ok("short"));
	assert_false(password_ok("aaaaaaaaaaaa"));
	assert_false(password_ok("Alice.Smith"));
	assert_false(password_ok("with\nline break"));
	assert_non_null(policy_password_reason("12345678\0x", 10, "a", 8));
	memset(large, 'x', sizeof(large));
	large[0] = 'y';
	assert_null(policy_password_reason(large, POLICY_PASSWORD_MAX, "a", 8));
	assert_non_null(policy_password_reason(large, sizeof(large), "a", 8));
}

static void durations_are_a_number_and_a_unit(void **state)
{
	uint64_t s;

	(void)state;
	assert_int_equal(policy_duration_parse("90s", &s), 0);
	assert_int_equal(s, 90);
	assert_int_equal(policy_duration_parse("7d", &s), 0);
	assert_int_equal(s, 604800);
	assert_int_equal(policy_duration_parse("never", &s), 0);
	assert_int_equal(s, 0);
	static const char *const wrong[] = { "",   "7",   "d",
					     "0d", "-1d", "7 d",
					     "7y", "7dd", "99999999999999999999d" };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(policy_duration_parse(wrong[i], &s), -EINVAL);
}

/* ---- options ------------------------------------------------------------------------------- */

static void listen_texts_become_endpoints(void **state)
{
	static const struct {
		const char *text;
		enum address_family family;
		uint16_t port;
	} cases[] = {
		{ "192.0.2.1:99", FAMILY_IPV4, 99 },
		{ "192.0.2.1", FAMILY_IPV4, SERVER_PORT },
		{ "[2001:db8::1]:99", FAMILY_IPV6, 99 },
		{ "[::]:99", FAMILY_NONE, 99 },
		{ "99", FAMILY_NONE, 99 },
		{ "*:99", FAMILY_NONE, 99 },
		{ "127.0.0.1:0", FAMILY_IPV4, 0 },
	};
	static const char *const wrong[] = { "", "host:99", "1.2.3.4:99999", "[::1]", "1.2.3:4" };
	struct server_options o;
	char why[256];

	(void)state;
	assert_int_equal(options_init(&o), 0);
	assert_int_equal(options_finish(&o, why, sizeof(why)), 0);
	assert_int_equal(o.n_listen_endpoints, 1);
	assert_int_equal(o.listen_endpoints[0].ip.family, FAMILY_NONE);
	assert_int_equal(o.listen_endpoints[0].port, SERVER_PORT);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		o.listen.items[0] = strdup(cases[i].text);
		o.listen.n_items = 1;
		assert_int_equal(options_finish(&o, why, sizeof(why)), 0);
		assert_int_equal(o.listen_endpoints[0].ip.family, cases[i].family);
		assert_int_equal(o.listen_endpoints[0].port, cases[i].port);
		free(o.listen.items[0]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		o.listen.items[0] = strdup(wrong[i]);
		assert_int_equal(options_finish(&o, why, sizeof(why)), -EINVAL);
		free(o.listen.items[0]);
	}
	o.listen.n_items = 0;
	options_fini(&o);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void the_configuration_file_sets_what_it_names(void **state)
{
	char path[] = "/tmp/q2q-test-server-XXXXXX", why[256];
	const int fd = mkstemp(path);
	struct server_options o;
	struct conf_error error;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	write_file(path, "[server]\ndata-dir = /srv/q2q\nlisten = 127.0.0.1:1\n"
			 "listen = [::1]:2\nregistration = closed\nlog-level = debug\n"
			 "[limits]\nconnections = 12\n"
			 "[domain b.test]\nserver = 10.0.0.1:8788\n");
	assert_int_equal(options_init(&o), 0);
	assert_int_equal(options_load(&o, path, &error), 0);
	assert_int_equal(options_finish(&o, why, sizeof(why)), 0);
	assert_string_equal(o.data_dir, "/srv/q2q");
	assert_int_equal(o.n_listen_endpoints, 2);
	assert_int_equal(o.registration, REGISTRATION_CLOSED);
	assert_int_equal(options_log_level(&o), LOG_DEBUG_);
	assert_int_equal(o.connections_max, 12);
	assert_string_equal(options_domain_server(&o, "b.test"), "10.0.0.1:8788");
	assert_null(options_domain_server(&o, "c.test"));
	options_fini(&o);

	write_file(path, "[server]\nregistration = anybody\n");
	assert_int_equal(options_init(&o), 0);
	assert_true(options_load(&o, path, &error) < 0);
	assert_int_equal(error.line, 2);
	options_fini(&o);
	unlink(path);
}

static void a_reload_keeps_where_the_server_lives(void **state)
{
	struct server_options o, fresh;
	char restart[OPTIONS_RESTART_BYTES];

	(void)state;
	assert_int_equal(options_init(&o), 0);
	assert_int_equal(options_init(&fresh), 0);
	assert_int_equal(options_set_text(&o.data_dir, "/one"), 0);
	assert_int_equal(options_set_text(&fresh.data_dir, "/two"), 0);
	fresh.registration = REGISTRATION_OPEN;
	fresh.n_listen_endpoints = 3;
	o.n_listen_endpoints = 1;
	options_adopt(&o, &fresh, restart);
	assert_string_equal(restart, "data-dir, listen");
	assert_string_equal(o.data_dir, "/one");
	assert_int_equal(o.n_listen_endpoints, 1);
	assert_int_equal(o.registration, REGISTRATION_OPEN);
	options_fini(&o);
	options_fini(&fresh);
}

/* ---- hasher --------------------------------------------------------------------------------- */

struct hashing {
	struct net_loop *loop;
	unsigned n_calls;
	int result;
	char text[CRYPTO_PASSWORD_TEXT_BYTES];
};

static void on_hashed(void *user, int result, const char *text)
{
	struct hashing *h = user;

	h->n_calls++;
	h->result = result;
	if (text)
		snprintf(h->text, sizeof(h->text), "%s", text);
	net_loop_stop(h->loop);
}

static void passwords_are_hashed_beside_the_loop(void **state)
{
	struct hashing h = { 0 };
	struct hasher_job *job;
	struct hasher *hasher;

	(void)state;
	assert_int_equal(net_loop_new(&h.loop), 0);
	assert_int_equal(hasher_new(h.loop, 2, &hasher), 0);
	assert_int_equal(hasher_hash(hasher, "secret words", 12, on_hashed, &h, &job), 0);
	assert_int_equal(h.n_calls, 0);
	assert_int_equal(net_loop_run(h.loop), 0);
	assert_int_equal(h.n_calls, 1);
	assert_int_equal(h.result, 0);

	assert_int_equal(hasher_verify(hasher, h.text, "secret words", 12, on_hashed, &h, &job), 0);
	assert_int_equal(net_loop_run(h.loop), 0);
	assert_int_equal(h.result, 0);
	assert_int_equal(hasher_verify(hasher, h.text, "secret wordz", 12, on_hashed, &h, &job), 0);
	assert_int_equal(net_loop_run(h.loop), 0);
	assert_int_equal(h.result, CRYPTO_PASSWORD_WRONG);
	assert_int_equal(hasher_verify(hasher, NULL, "secret words", 12, on_hashed, &h, &job), 0);
	assert_int_equal(net_loop_run(h.loop), 0);
	assert_int_equal(h.result, CRYPTO_PASSWORD_WRONG);
	assert_int_equal(h.n_calls, 4);
	assert_int_equal(hasher_waiting(hasher), 0);
	hasher_free(hasher);
	net_loop_free(h.loop);
}

static void a_cancelled_hash_calls_nobody_and_the_queue_is_bounded(void **state)
{
	struct hashing h = { 0 };
	struct hasher_job *jobs[HASHER_QUEUE_MAX], *one_more;
	struct hasher *hasher;

	(void)state;
	assert_int_equal(net_loop_new(&h.loop), 0);
	assert_int_equal(hasher_new(h.loop, 1, &hasher), 0);
	for (size_t i = 0; i < HASHER_QUEUE_MAX; i++)
		assert_int_equal(hasher_verify(hasher, NULL, "x", 1, on_hashed, &h, &jobs[i]), 0);
	assert_int_equal(hasher_verify(hasher, NULL, "x", 1, on_hashed, &h, &one_more), -EBUSY);
	hasher_cancel(jobs[0]);
	assert_int_equal(net_loop_run(h.loop), 0); /* the second one stops it */
	assert_int_equal(hasher_waiting(hasher), HASHER_QUEUE_MAX - 1 - h.n_calls);
	hasher_free(hasher); /* the rest is never called */
	net_loop_free(h.loop);
}

/* ---- domain --------------------------------------------------------------------------------- */

#define NOW_S 1700000000

static void remove_dir(const char *dir)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
}

static void a_domain_is_made_once_and_opened_as_it_was_made(void **state)
{
	char base[] = "/tmp/q2q-test-server-XXXXXX", dir[64], first[CRYPTO_FINGERPRINT_BYTES];
	struct domain_error error;
	struct domain d;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(base));
	snprintf(dir, sizeof(dir), "%s/data", base);
	assert_int_equal(domain_open(dir, &d, &error), -ENOENT);
	assert_int_equal(error.exit_code, EXIT_NOT_FOUND);
	assert_non_null(strstr(error.text, "init"));
	assert_int_not_equal(stat(dir, &st), 0); /* looking makes nothing */

	assert_int_equal(domain_init(dir, "example.com", NOW_S, &error), 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(domain_open(dir, &d, &error), 0);
	assert_string_equal(d.name, "example.com");
	assert_string_equal(crypto_cert_subject(d.cert), "example.com");
	assert_true(crypto_cert_matches_key(d.cert, d.key));
	assert_int_equal(crypto_cert_check(d.cert, "example.com", NOW_S + 86400 * 3640), 0);
	memcpy(first, d.fingerprint, sizeof(first));
	domain_close(&d);

	assert_int_equal(domain_init(dir, "example.com", NOW_S, &error), -EEXIST);
	assert_int_equal(domain_init(dir, "example.org", NOW_S, &error), -EEXIST);
	assert_int_equal(domain_open(dir, &d, &error), 0);
	assert_string_equal(d.fingerprint, first);
	assert_int_equal(domain_reload(&d, &error), 0);
	assert_string_equal(d.fingerprint, first);
	domain_close(&d);
	remove_dir(base);
}

static void a_lost_database_is_told_and_never_replaced(void **state)
{
	char base[] = "/tmp/q2q-test-server-XXXXXX", path[64];
	struct domain_error error;
	struct domain d;

	(void)state;
	assert_non_null(mkdtemp(base));
	snprintf(path, sizeof(path), "%s/data", base);
	assert_int_equal(domain_init(path, "example.com", NOW_S, &error), 0);
	snprintf(path, sizeof(path), "%s/data/store.db", base);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/data", base);
	assert_true(domain_open(path, &d, &error) < 0);
	assert_int_equal(error.exit_code, EXIT_FAILED);
	assert_non_null(strstr(error.text, "restore"));
	assert_true(domain_init(path, "example.com", NOW_S, &error) < 0);
	remove_dir(base);
}

static void an_init_that_was_killed_is_completed_by_the_next(void **state)
{
	char base[] = "/tmp/q2q-test-server-XXXXXX", dir[64];
	struct domain_error error;
	struct domain d;

	(void)state;
	assert_non_null(mkdtemp(base));
	snprintf(dir, sizeof(dir), "%s/data", base);
	assert_int_equal(store_init(dir, "example.com", NOW_S), 0);
	assert_true(domain_open(dir, &d, &error) < 0);
	assert_true(domain_init(dir, "example.org", NOW_S, &error) < 0);
	assert_int_equal(domain_init(dir, "example.com", NOW_S, &error), 0);
	assert_int_equal(domain_open(dir, &d, &error), 0);
	domain_close(&d);
	remove_dir(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bucket_empties_and_fills_by_the_interval),
		cmocka_unit_test(the_pause_after_failures_doubles_up_to_its_bound),
		cmocka_unit_test(the_table_forgets_the_key_that_was_used_least_recently),
		cmocka_unit_test(an_ipv6_network_counts_as_one_address),
		cmocka_unit_test(weak_passwords_are_refused_and_long_ones_taken),
		cmocka_unit_test(durations_are_a_number_and_a_unit),
		cmocka_unit_test(listen_texts_become_endpoints),
		cmocka_unit_test(the_configuration_file_sets_what_it_names),
		cmocka_unit_test(a_reload_keeps_where_the_server_lives),
		cmocka_unit_test(passwords_are_hashed_beside_the_loop),
		cmocka_unit_test(a_cancelled_hash_calls_nobody_and_the_queue_is_bounded),
		cmocka_unit_test(a_domain_is_made_once_and_opened_as_it_was_made),
		cmocka_unit_test(a_lost_database_is_told_and_never_replaced),
		cmocka_unit_test(an_init_that_was_killed_is_completed_by_the_next),
	};

	return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
