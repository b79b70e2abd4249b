#include "config.h" /* _GNU_SOURCE */

#include "unit.h"
#include "tun/tun.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static int pair[2];

static int open_pair(void **state)
{
	(void)state;
	return tun_ipc_pair(pair);
}

static int close_pair(void **state)
{
	(void)state;
	closep(&pair[0]);
	closep(&pair[1]);
	return 0;
}

static int lowest_free_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

/* Any bytes with any descriptor, as only a daemon that was taken over would send them. */
static void send_raw(int fd, const void *data, size_t n_bytes, const int *fds, size_t n_fds)
{
	struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = n_bytes };
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(4 * sizeof(int))];
	} control = { 0 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (n_fds > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(fd, &message, 0), n_bytes);
}

static void requests_and_replies_arrive_as_they_were_sent(void **state)
{
	struct tun_request request = { .type = TUN_REQUEST_LINK_CREATE,
				       .id = 7,
				       .slot = 3,
				       .ifname = "q2q-bob",
				       .alias = "bob@b.test",
				       .mtu = 1500 };
	struct tun_reply reply = { .type = TUN_REQUEST_LINK_CREATE, .id = 7, .status = -ENODEV };
	struct tun_request got;
	struct tun_reply answer;
	int fd = 99;

	(void)state;
	assert_int_equal(tun_ipc_send_request(pair[1], &request), 0);
	assert_int_equal(tun_ipc_receive_request(pair[0], &got), 0);
	request.magic = got.magic;
	assert_memory_equal(&got, &request, sizeof(got));
	assert_int_equal(tun_ipc_send_reply(pair[0], &reply, -1), 0);
	assert_int_equal(tun_ipc_receive_reply(pair[1], &answer, &fd), 0);
	assert_int_equal(fd, -1);
	assert_int_equal(answer.status, -ENODEV);
	assert_int_equal(answer.id, 7);
}

static void a_descriptor_arrives_non_blocking_and_close_on_exec(void **state)
{
	struct tun_reply reply = { .type = TUN_REQUEST_LINK_CREATE }, answer;
	int ends[2], fd = -1;
	char byte = 0;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(tun_ipc_send_reply(pair[0], &reply, ends[0]), 0);
	assert_int_equal(tun_ipc_receive_reply(pair[1], &answer, &fd), 0);
	assert_true(fd >= 0 && fd != ends[0]);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(read(fd, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	close(fd);
	close(ends[0]);
	close(ends[1]);
}

static void what_is_no_request_is_refused_and_its_descriptors_closed(void **state)
{
	struct tun_request request = { .type = TUN_REQUEST_READY }, got;
	uint8_t bytes[sizeof(request) + 1] = { 0 };
	const int fds[] = { 0, 1, 2 };
	const int free_before = lowest_free_fd();

	(void)state;
	assert_int_equal(tun_ipc_send_request(pair[1], &request), 0);
	assert_int_equal(recv(pair[0], bytes, sizeof(bytes), 0), sizeof(request));

	send_raw(pair[1], bytes, sizeof(request) - 1, NULL, 0);
	assert_int_equal(tun_ipc_receive_request(pair[0], &got), -EBADMSG);
	send_raw(pair[1], bytes, sizeof(request) + 1, NULL, 0);
	assert_int_equal(tun_ipc_receive_request(pair[0], &got), -EBADMSG);
	for (size_t n = 1; n <= 3; n++) {
		send_raw(pair[1], bytes, sizeof(request), fds, n);
		assert_int_equal(tun_ipc_receive_request(pair[0], &got), -EBADMSG);
	}
	assert_int_equal(lowest_free_fd(), free_before);
	for (size_t bit = 0; bit < 32; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		send_raw(pair[1], bytes, sizeof(request), NULL, 0);
		assert_int_equal(tun_ipc_receive_request(pair[0], &got), -EBADMSG);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	send_raw(pair[1], bytes, sizeof(request), NULL, 0);
	assert_int_equal(tun_ipc_receive_request(pair[0], &got), 0);
}

static void a_reply_with_a_surprising_descriptor_is_refused(void **state)
{
	struct tun_reply reply = { .type = TUN_REQUEST_LINK_CREATE, .status = -EPERM }, answer;
	const int free_before = lowest_free_fd(), fds[] = { 0, 1 };
	int fd = -1;

	(void)state;
	assert_int_equal(tun_ipc_send_reply(pair[0], &reply, 0), 0); /* failed, yet a descriptor */
	assert_int_equal(tun_ipc_receive_reply(pair[1], &answer, &fd), -EBADMSG);
	reply.status = 0;
	assert_int_equal(tun_ipc_send_reply(pair[0], &reply, -1), 0);
	assert_int_equal(recv(pair[1], &reply, sizeof(reply), 0), sizeof(reply)); /* with magic */
	send_raw(pair[0], &reply, sizeof(reply), fds, 2);
	assert_int_equal(tun_ipc_receive_reply(pair[1], &answer, &fd), -EBADMSG);
	assert_int_equal(fd, -1);
	assert_int_equal(lowest_free_fd(), free_before);
}

static void the_end_and_an_empty_socket_are_told_apart(void **state)
{
	struct tun_request request = { .type = TUN_REQUEST_READY };
	struct tun_reply answer;
	int fd;

	(void)state;
	assert_int_equal(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(tun_ipc_receive_reply(pair[1], &answer, &fd), -EAGAIN);
	closep(&pair[0]);
	pair[0] = -1;
	assert_int_equal(tun_ipc_receive_reply(pair[1], &answer, &fd), TUN_IPC_CLOSED);
	/* no SIGPIPE either */
	assert_int_equal(tun_ipc_send_request(pair[1], &request), TUN_IPC_CLOSED);
}

static void interface_names_are_q2q_and_what_a_kernel_takes(void **state)
{
	static const struct {
		const char *address, *name;
	} made[] = {
		{ "bob@b.test", "q2q-bob" },
		{ "averylongresource@b.test", "q2q-averylongre" },
		{ "a.b+c_d-e@b.test", "q2q-a.b+c_d-e" },
		{ "b/o b@b.test", "q2q-b-o-b" },
		{ "@b.test", "q2q--" },
		{ "", "q2q--" },
	};
	static const char *const bad[] = {
		"", "q2q", "q2q-", "eth0", "q2q-0123456789ab", "q2q-Bob", "q2q-a b", "q2q-a/b",
	};
	char name[TUN_NAME_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		tun_name_from_address(made[i].address, name);
		assert_string_equal(name, made[i].name);
		assert_true(tun_name_valid(name));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (tun_name_valid(bad[i]))
			fail_msg("\"%s\" passed", bad[i]);
}

static void every_request_has_a_name(void **state)
{
	(void)state;
	for (uint32_t type = 1; type < TUN_REQUEST_COUNT; type++)
		assert_string_not_equal(tun_request_name(type), "?");
	assert_string_equal(tun_request_name(0), "?");
	assert_string_equal(tun_request_name(UINT32_MAX), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(requests_and_replies_arrive_as_they_were_sent,
						open_pair, close_pair),
		cmocka_unit_test_setup_teardown(a_descriptor_arrives_non_blocking_and_close_on_exec,
						open_pair, close_pair),
		cmocka_unit_test_setup_teardown(
			what_is_no_request_is_refused_and_its_descriptors_closed, open_pair,
			close_pair),
		cmocka_unit_test_setup_teardown(a_reply_with_a_surprising_descriptor_is_refused,
						open_pair, close_pair),
		cmocka_unit_test_setup_teardown(the_end_and_an_empty_socket_are_told_apart,
						open_pair, close_pair),
		cmocka_unit_test(interface_names_are_q2q_and_what_a_kernel_takes),
		cmocka_unit_test(every_request_has_a_name),
	};

	return cmocka_run_group_tests_name("tun_ipc", tests, NULL, NULL);
}
