/* What the daemon may ask of the monitor, request by request, without any privilege. */
#include "unit.h"
#include "monitor/monitor.h"

#include <arpa/inet.h>

static struct tun_request sound(void)
{
	struct tun_request r = { .type = TUN_REQUEST_LINK_CREATE,
				 .id = 5,
				 .slot = 3,
				 .ifname = "q2q-bob",
				 .alias = "bob@b.test" };

	inet_pton(AF_INET, "100.64.0.1", r.addresses.own4);
	inet_pton(AF_INET, "100.64.0.2", r.addresses.peer4);
	inet_pton(AF_INET6, "fd71:3271:746e::1", r.addresses.own6);
	inet_pton(AF_INET6, "fd71:3271:746e::2", r.addresses.peer6);
	return r;
}

static int handle(struct monitor_requests *requests, const struct tun_request *request)
{
	struct tun_reply reply;
	int fd = -1;
	const int r = requests_handle(requests, request, &reply, &fd);

	if (fd >= 0)
		closep(&fd);
	return r;
}

static struct monitor_requests table;

static int clear_table(void **state)
{
	(void)state;
	memset(&table, 0, sizeof(table));
	return 0;
}

static void names_that_are_not_ours_end_it(void **state)
{
	static const char *const names[] = { "eth0",     "q2q-",    "",     "q2q-a/b",
					     "q2q-..\n", "Q2Q-bob", "q2q-B" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct tun_request r = sound();

		memset(r.ifname, 0, sizeof(r.ifname));
		memcpy(r.ifname, names[i], strlen(names[i]));
		assert_int_equal(handle(&table, &r), -EPROTO);
	}
	struct tun_request r = sound();
	memset(r.ifname, 'a', sizeof(r.ifname));
	memcpy(r.ifname, "q2q-", 4);
	assert_int_equal(handle(&table, &r), -EPROTO);
}

static void addresses_outside_of_our_ranges_end_it(void **state)
{
	static const char *const four[] = { "8.8.8.8", "100.128.0.1", "127.0.0.1", "100.63.255.255",
					    "0.0.0.0" };
	static const char *const six[] = { "::1", "fd71:3271:746f::1", "2001:db8::1", "fe80::1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(four); i++) {
		struct tun_request r = sound();

		inet_pton(AF_INET, four[i], r.addresses.own4);
		assert_int_equal(handle(&table, &r), -EPROTO);
		r = sound();
		inet_pton(AF_INET, four[i], r.addresses.peer4);
		assert_int_equal(handle(&table, &r), -EPROTO);
	}
	for (size_t i = 0; i < ARRAY_SIZE(six); i++) {
		struct tun_request r = sound();

		inet_pton(AF_INET6, six[i], r.addresses.peer6);
		assert_int_equal(handle(&table, &r), -EPROTO);
	}
	struct tun_request r = sound();
	memcpy(r.addresses.peer4, r.addresses.own4, 4);
	assert_int_equal(handle(&table, &r), -EPROTO);
	memset(&r.addresses, 0, sizeof(r.addresses));
	assert_int_equal(handle(&table, &r), -EPROTO);
}

static void slots_texts_and_sizes_have_their_limits(void **state)
{
	struct tun_request r = sound();

	(void)state;
	r.slot = TUN_SLOTS_MAX;
	assert_int_equal(handle(&table, &r), -EPROTO);
	r = sound();
	memset(r.alias, 'a', sizeof(r.alias));
	assert_int_equal(handle(&table, &r), -EPROTO);
	r = sound();
	r.alias[1] = '\n';
	assert_int_equal(handle(&table, &r), -EPROTO);
	r = sound();
	r.mtu = 1000;
	assert_int_equal(handle(&table, &r), -EPROTO);
	r.mtu = 70000;
	assert_int_equal(handle(&table, &r), -EPROTO);
	r = sound();
	r.queue_packets = UINT32_MAX;
	assert_int_equal(handle(&table, &r), -EPROTO);
}

static void a_slot_is_made_once_and_deleted_once(void **state)
{
	struct tun_request r = sound();

	(void)state;
	table.used[3] = true;
	assert_int_equal(handle(&table, &r), -EPROTO);
	r.type = TUN_REQUEST_LINK_DELETE;
	assert_int_equal(handle(&table, &r), 0);
	assert_false(table.used[3]);
	assert_int_equal(handle(&table, &r), -EPROTO);
	r.slot = UINT32_MAX;
	assert_int_equal(handle(&table, &r), -EPROTO);
}

static void two_links_to_one_address_are_refused_but_end_nothing(void **state)
{
	struct tun_request r = sound();
	struct tun_reply reply;
	int fd = -1;

	(void)state;
	table.used[4] = true;
	table.addresses[4] = r.addresses;
	assert_int_equal(requests_handle(&table, &r, &reply, &fd), 0);
	assert_int_equal(reply.status, -EADDRINUSE);
	assert_int_equal(reply.id, 5);
	assert_int_equal(fd, -1);
	assert_false(table.used[3]);
	/* The daemon may take it back before it knows; once. */
	r.type = TUN_REQUEST_LINK_DELETE;
	assert_int_equal(handle(&table, &r), 0);
	assert_int_equal(handle(&table, &r), -EPROTO);
}

static void ready_comes_once_and_unknown_requests_never(void **state)
{
	struct tun_request r = { .type = TUN_REQUEST_READY };

	(void)state;
	assert_int_equal(handle(&table, &r), 0);
	assert_int_equal(handle(&table, &r), -EPROTO);
	for (uint32_t type = TUN_REQUEST_COUNT; type < 300; type++) {
		r.type = type;
		assert_int_equal(handle(&table, &r), -EPROTO);
	}
	r.type = 0;
	assert_int_equal(handle(&table, &r), -EPROTO);
}

static void nobody_reads_again_unasked(void **state)
{
	const struct tun_request r = { .type = TUN_REQUEST_RELOAD };

	(void)state;
	assert_int_equal(handle(&table, &r), -EPROTO);
	table.n_reloads = 2;
	assert_int_equal(handle(&table, &r), 0);
	assert_int_equal(handle(&table, &r), 0);
	assert_int_equal(handle(&table, &r), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(names_that_are_not_ours_end_it, clear_table),
		cmocka_unit_test_setup(addresses_outside_of_our_ranges_end_it, clear_table),
		cmocka_unit_test_setup(slots_texts_and_sizes_have_their_limits, clear_table),
		cmocka_unit_test_setup(a_slot_is_made_once_and_deleted_once, clear_table),
		cmocka_unit_test_setup(two_links_to_one_address_are_refused_but_end_nothing,
				       clear_table),
		cmocka_unit_test_setup(ready_comes_once_and_unknown_requests_never, clear_table),
		cmocka_unit_test_setup(nobody_reads_again_unasked, clear_table),
	};

	return cmocka_run_group_tests_name("monitor", tests, NULL, NULL);
}
