/*
 * System call filters and limits (libseccomp). The nanny may fork; one that talks may use IPv4
 * sockets and its own memory. Neither opens a file, starts a program, or signals anybody. What is
 * not listed fails with EPERM and does nothing.
 */
#include "config.h"
#include "upnp/upnp.h"

#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#define WITH_LIMITS false /* a sanitizer's runtime wants memory and calls of its own */
#else
#define WITH_LIMITS true
#endif

#define MEMORY_BYTES (64u << 20)
#define CPU_S        3
#define FILES        16

#define CALLS_TALK                                                                                 \
	"read", "write", "recvfrom", "sendto", "connect", "bind", "getsockname", "getsockopt",     \
		"setsockopt", "close", "poll", "ppoll", "select", "pselect6", "brk", "mmap",       \
		"munmap", "mremap", "madvise", "futex", "clock_gettime", "gettimeofday", "time",   \
		"getrandom", "restart_syscall", "rt_sigreturn", "exit", "exit_group"

static const char *const talk_calls[] = { CALLS_TALK, NULL };

/* What a child of the nanny does before it talks has to be allowed to the nanny. */
static const char *const nanny_calls[] = {
	CALLS_TALK,  "clone",           "clone3",       "fork",   "wait4",    "alarm",
	"setitimer", "rt_sigprocmask",  "rt_sigaction", "getpid", "gettid",   "prlimit64",
	"setrlimit", "prctl",           "seccomp",      "fcntl",  "mprotect", "sendmsg",
	"recvmsg",   "set_robust_list", "rseq",         NULL
};

static int limit(int what, rlim_t value)
{
	const struct rlimit r = { value, value };

	/* A service manager's filter may forbid setting it: it has limits of its own. */
	return setrlimit((__rlimit_resource_t)what, &r) < 0 && errno != EPERM ? -errno : 0;
}

static int load(const char *const *calls)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = filter ? 0 : -ENOMEM;

	for (; r == 0 && *calls; calls++) {
		const int number = seccomp_syscall_resolve_name(*calls);

		if (number != __NR_SCMP_ERROR)
			r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
	}
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				     SCMP_A0(SCMP_CMP_EQ, AF_INET));
	if (r == 0)
		r = seccomp_load(filter);
	if (filter)
		seccomp_release(filter);
	return r;
}

int upnp_sandbox_nanny(void)
{
	int r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;

	if (!WITH_LIMITS)
		return r;
	if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = -errno;
	if (r == 0)
		r = limit(RLIMIT_CORE, 0);
	if (r == 0)
		r = limit(RLIMIT_FSIZE, 0);
	if (r == 0)
		r = limit(RLIMIT_NOFILE, FILES);
	if (r == 0)
		r = limit(RLIMIT_AS, MEMORY_BYTES);
	return r == 0 ? load(nanny_calls) : r;
}

int upnp_sandbox_conversation(unsigned time_s)
{
	sigset_t none;
	int r;

	/* The kernel's own way to end it: afterwards no call is left that could change that. */
	sigemptyset(&none);
	if (signal(SIGALRM, SIG_DFL) == SIG_ERR || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return -errno;
	alarm(time_s);
	if (!WITH_LIMITS)
		return 0;
	r = limit(RLIMIT_CPU, CPU_S);
	return r == 0 ? load(talk_calls) : r;
}
