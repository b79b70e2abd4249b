/*
 * libnss_q2q as glibc calls it: loaded, and called with buffers of every size.
 * A process of this test plays the daemon.
 */
#include "config.h" /* _GNU_SOURCE */

#include "unit.h"
#include "base/names.h"

#include <dlfcn.h>
#include <netdb.h>
#include <nss.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define GUARD 0xa5

typedef enum nss_status by_name4_fn(const char *, struct gaih_addrtuple **, char *, size_t, int *,
				    int *, int32_t *);
typedef enum nss_status by_name2_fn(const char *, int, struct hostent *, char *, size_t, int *,
				    int *);
typedef enum nss_status by_address_fn(const void *, socklen_t, int, struct hostent *, char *,
				      size_t, int *, int *);

static by_name4_fn *by_name4;
static by_name2_fn *by_name2;
static by_address_fn *by_address;
static char directory[] = "/tmp/test_nss.XXXXXX", path[64];
static pid_t daemon_pid;

static const uint8_t four[] = { 100, 64, 1, 2 };
static const uint8_t six[16] = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 7 };

static void answer(int fd)
{
	uint8_t in[NAMES_REQUEST_BYTES], out[NAMES_REPLY_BYTES];
	struct names_request request;
	struct names_reply reply = { .status = NAMES_NOT_FOUND };

	if (recv(fd, in, sizeof(in), MSG_WAITALL) != sizeof(in) ||
	    names_decode_request(in, &request) < 0)
		_exit(1);
	reply.id = request.id;
	if (strcmp(request.name, "busy.b.test.q2q") == 0) {
		reply.status = NAMES_TRY_AGAIN;
	} else if (request.kind == NAMES_BY_ADDRESS || strncmp(request.name, "bob.", 4) == 0) {
		reply.status = NAMES_FOUND;
		reply.ipv4.family = FAMILY_IPV4;
		memcpy(reply.ipv4.bytes, four, 4);
		reply.ipv6.family = FAMILY_IPV6;
		memcpy(reply.ipv6.bytes, six, 16);
		memcpy(reply.name, "bob.b.test.q2q", sizeof("bob.b.test.q2q"));
	}
	names_encode_reply(&reply, out);
	send(fd, out, sizeof(out), MSG_NOSIGNAL);
	close(fd);
}

static void serve(int listener)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		const int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			_exit(1);
		answer(fd);
	}
}

static int load(void **state)
{
	const char *build = getenv("abs_top_builddir");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char library[4096];
	void *handle;
	int listener;

	(void)state;
	snprintf(library, sizeof(library), "%s/src/nss/.libs/libnss_q2q.so.2", build ? build : ".");
	handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		print_error("%s\n", dlerror());
		return -1;
	}
	by_name4 = (by_name4_fn *)(uintptr_t)dlsym(handle, "_nss_q2q_gethostbyname4_r");
	by_name2 = (by_name2_fn *)(uintptr_t)dlsym(handle, "_nss_q2q_gethostbyname2_r");
	by_address = (by_address_fn *)(uintptr_t)dlsym(handle, "_nss_q2q_gethostbyaddr_r");
	if (!by_name4 || !by_name2 || !by_address || !mkdtemp(directory))
		return -1;
	/* What the library shares with others is its own business: nothing else is visible. */
	if (dlsym(handle, "names_decode_reply"))
		return -1;
	snprintf(path, sizeof(path), "%s/names", directory);
	setenv("Q2Q_TUN_NAMES", path, 1);
	memcpy(address.sun_path, path, sizeof(path));
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, 8) < 0)
		return -1;
	daemon_pid = fork();
	if (daemon_pid == 0)
		serve(listener);
	close(listener);
	return daemon_pid > 0 ? 0 : -1;
}

static int unload(void **state)
{
	(void)state;
	if (daemon_pid > 0) {
		kill(daemon_pid, SIGKILL);
		waitpid(daemon_pid, NULL, 0);
	}
	unlink(path);
	rmdir(directory);
	return 0;
}

/* ---- tests ---------------------------------------------------------------------------- */

static void assert_guarded(const uint8_t *buffer, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		assert_int_equal(buffer[i], GUARD);
}

static bool within(const void *at, size_t n_bytes, const uint8_t *buffer, size_t buffer_bytes)
{
	return (const uint8_t *)at >= buffer &&
	       (const uint8_t *)at + n_bytes <= buffer + buffer_bytes;
}

/* glibc starts small and doubles while it hears ERANGE. Odd starts too: nothing may assume
 * alignment. */
static void a_buffer_too_small_is_told_and_never_overrun(void **state)
{
	uint8_t buffer[512];

	(void)state;
	for (size_t shift = 0; shift < 8; shift++) {
		bool fitted = false;

		for (size_t size = 0; size < 300; size++) {
			struct gaih_addrtuple lent, *tuples = size % 2 ? &lent : NULL;
			int error = 0, h_error = 0;
			enum nss_status status;

			memset(buffer, GUARD, sizeof(buffer));
			errno = EISDIR;
			status = by_name4("bob.b.test.q2q", &tuples, (char *)buffer + shift, size,
					  &error, &h_error, NULL);
			assert_guarded(buffer, 0, shift);
			assert_guarded(buffer, shift + size, sizeof(buffer));
			if (status != NSS_STATUS_SUCCESS) {
				assert_int_equal(status, NSS_STATUS_TRYAGAIN);
				assert_int_equal(error, ERANGE);
				assert_int_equal(h_error, NETDB_INTERNAL);
				continue;
			}
			fitted = true;
			assert_int_equal(errno, EISDIR);
			assert_true(within(tuples->name, 15, buffer + shift, size));
			assert_string_equal(tuples->name, "bob.b.test.q2q");
			assert_int_equal(tuples->family, AF_INET6);
			assert_memory_equal(tuples->addr, six, 16);
			assert_int_equal(tuples->next->family, AF_INET);
			assert_memory_equal(tuples->next->addr, four, 4);
			assert_null(tuples->next->next);
		}
		assert_true(fitted);
	}
}

static void a_host_entry_lies_in_the_callers_buffer(void **state)
{
	uint8_t buffer[512];

	(void)state;
	for (int family = 0; family < 4; family++) {
		const bool reverse = family >= 2;
		const int af = family % 2 ? AF_INET6 : AF_INET;
		const size_t n_bytes = af == AF_INET ? 4 : 16;
		const uint8_t *const want = af == AF_INET ? four : six;
		bool fitted = false;

		for (size_t size = 0; size < 200; size++) {
			struct hostent host = { 0 };
			int error = 0, h_error = 0;
			enum nss_status status;

			memset(buffer, GUARD, sizeof(buffer));
			status = reverse ? by_address(want, (socklen_t)n_bytes, af, &host,
						      (char *)buffer + 1, size, &error, &h_error)
					 : by_name2("bob.b.test.q2q", af, &host, (char *)buffer + 1,
						    size, &error, &h_error);
			assert_guarded(buffer, 0, 1);
			assert_guarded(buffer, 1 + size, sizeof(buffer));
			if (status != NSS_STATUS_SUCCESS) {
				assert_false(fitted);
				assert_int_equal(status, NSS_STATUS_TRYAGAIN);
				assert_int_equal(error, ERANGE);
				continue;
			}
			fitted = true;
			assert_string_equal(host.h_name, "bob.b.test.q2q");
			assert_int_equal(host.h_addrtype, af);
			assert_int_equal(host.h_length, n_bytes);
			assert_true(within(host.h_addr_list[0], n_bytes, buffer + 1, size));
			assert_memory_equal(host.h_addr_list[0], want, n_bytes);
			assert_null(host.h_addr_list[1]);
			assert_null(host.h_aliases[0]);
		}
		assert_true(fitted);
	}
}

static enum nss_status ask(const char *name, int *error, int *h_error)
{
	struct hostent host;
	char buffer[512];

	*error = *h_error = 0;
	return by_name2(name, AF_INET, &host, buffer, sizeof(buffer), error, h_error);
}

static void each_outcome_is_told_as_glibc_wants_it(void **state)
{
	int error, h_error;

	(void)state;
	assert_int_equal(ask("nobody.b.test.q2q", &error, &h_error), NSS_STATUS_NOTFOUND);
	assert_int_equal(h_error, HOST_NOT_FOUND);
	/* Never ERANGE with TRYAGAIN but for the buffer: glibc would grow it for ever. */
	assert_int_equal(ask("busy.b.test.q2q", &error, &h_error), NSS_STATUS_TRYAGAIN);
	assert_int_equal(error, EAGAIN);
	assert_int_equal(h_error, TRY_AGAIN);
	assert_int_equal(ask("www.example.org", &error, &h_error), NSS_STATUS_NOTFOUND);
	setenv("Q2Q_TUN_NAMES", "/nonexistent/names", 1);
	assert_int_equal(ask("bob.b.test.q2q", &error, &h_error), NSS_STATUS_UNAVAIL);
	setenv("Q2Q_TUN_NAMES", path, 1);
}

static void names_of_any_length_are_survived(void **state)
{
	char name[2000];
	int error, h_error;

	(void)state;
	for (size_t n = 1; n < sizeof(name) - 5; n += 7) {
		memset(name, 'a', n);
		memcpy(name + n, ".q2q", 5);
		assert_int_equal(ask(name, &error, &h_error), NSS_STATUS_NOTFOUND);
	}
}

static void no_descriptor_is_left_behind(void **state)
{
	const int before = dup(0);
	int error, h_error, after;

	(void)state;
	close(before);
	for (int i = 0; i < 50; i++) {
		ask("bob.b.test.q2q", &error, &h_error);
		ask("nobody.b.test.q2q", &error, &h_error);
	}
	after = dup(0);
	close(after);
	assert_int_equal(after, before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buffer_too_small_is_told_and_never_overrun),
		cmocka_unit_test(a_host_entry_lies_in_the_callers_buffer),
		cmocka_unit_test(each_outcome_is_told_as_glibc_wants_it),
		cmocka_unit_test(names_of_any_length_are_survived),
		cmocka_unit_test(no_descriptor_is_left_behind),
	};

	return cmocka_run_group_tests_name("nss", tests, load, unload);
}
