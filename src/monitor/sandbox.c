/*
 * System call filters (libseccomp). A call that is not listed fails with EPERM
 * and does nothing; the calls that only an attacker makes end the process.
 */
#include "monitor/monitor.h"

#include <linux/sched.h>
#include <seccomp.h>
#include <sys/socket.h>

/* The runtime of a sanitizer makes system calls of its own, and its leak check traces the process:
 * a build that looks for faults goes without a filter. No option of an ordinary build does. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WITH_FILTER false
#else
#define WITH_FILTER true
#endif

/* What both processes and the C library need all the time. */
#define CALLS_COMMON                                                                               \
	"read", "write", "readv", "writev", "close", "fcntl", "fstat", "newfstatat", "statx",      \
		"lseek", "mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "futex",        \
		"set_robust_list", "rseq", "poll", "ppoll", "sendto", "sendmsg", "recvfrom",       \
		"recvmsg", "bind", "connect", "getsockname", "getpeername", "setsockopt",          \
		"getsockopt", "shutdown", "clock_gettime", "clock_getres", "gettimeofday", "time", \
		"nanosleep", "clock_nanosleep", "getrandom", "getpid", "getppid", "gettid",        \
		"getuid", "geteuid", "getgid", "getegid", "getgroups", "uname", "rt_sigaction",    \
		"rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack", "tgkill",      \
		"restart_syscall", "exit", "exit_group", "ioctl", "openat", "dup", "sched_yield"

static const char *const monitor_calls[] = { CALLS_COMMON, "wait4", "waitid", "signalfd4", NULL };

static const char *const daemon_calls[] = {
	CALLS_COMMON,
	/* the loop */
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "pselect6",
	"select", "eventfd2", "timerfd_create", "timerfd_settime", "timerfd_gettime", "pipe2",
	"signalfd4",
	/* the network */
	"listen", "accept", "accept4", "sendmmsg", "recvmmsg", "socketpair",
	/* state files */
	"open", "stat", "lstat", "access", "faccessat", "faccessat2", "unlink", "unlinkat",
	"rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "fsync", "fdatasync",
	"io_setup", "io_submit", "io_getevents", "io_destroy", "ftruncate", "fchmod", "fchmodat",
	"chmod", "getdents64", "getcwd", "readlink", "readlinkat", "pread64", "pwrite64", "flock",
	"fallocate", "umask", "statfs", "fstatfs",
	/* libraries that ask what machine this is */
	"sysinfo", "getrlimit", "prlimit64", "sched_getaffinity", "getcpu", "getrusage",
	"membarrier", "dup2", "dup3", NULL
};

/*
 * Threads, and no processes: clone3() hides its flags from a filter, and says that it is not there,
 * for which the C library takes clone().
 */
static int add_threads(scmp_filter_ctx filter)
{
	int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	return r;
}

/* Nothing in either process ever asks for these. */
static const char *const deadly_calls[] = { "execve",
					    "execveat",
					    "ptrace",
					    "process_vm_readv",
					    "process_vm_writev",
					    "mount",
					    "umount2",
					    "pivot_root",
					    "chroot",
					    "setns",
					    "unshare",
					    "init_module",
					    "finit_module",
					    "delete_module",
					    "kexec_load",
					    "bpf",
					    "perf_event_open",
					    "userfaultfd",
					    "keyctl",
					    "add_key",
					    "reboot",
					    NULL };

static const int daemon_families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, -1 };
/* AF_INET is how the C library looks up the index of an interface. */
static const int monitor_families[] = { AF_UNIX, AF_INET, AF_NETLINK, -1 };

static int add_calls(scmp_filter_ctx filter, uint32_t action, const char *const *calls)
{
	for (; *calls; calls++) {
		const int number = seccomp_syscall_resolve_name(*calls);

		/* A call that this architecture does not have needs no rule. */
		if (number == __NR_SCMP_ERROR)
			continue;
		const int r = seccomp_rule_add(filter, action, number, 0);

		if (r < 0)
			return r;
	}
	return 0;
}

static int add_families(scmp_filter_ctx filter, const int *families)
{
	for (; *families >= 0; families++) {
		const int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
					       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)*families));

		if (r < 0)
			return r;
	}
	return 0;
}

static int load(const char *const *calls, const int *families, bool with_threads)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = filter ? 0 : -ENOMEM;

	/* What is refused goes to the audit log, where the kernel can (Linux 4.14). */
	if (r == 0)
		(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	if (r == 0)
		r = add_calls(filter, SCMP_ACT_ALLOW, calls);
	if (r == 0)
		r = add_calls(filter, SCMP_ACT_KILL_PROCESS, deadly_calls);
	if (r == 0)
		r = add_families(filter, families);
	if (r == 0 && with_threads)
		r = add_threads(filter);
	if (r == 0)
		r = seccomp_load(filter);
	if (filter)
		seccomp_release(filter);
	if (r < 0)
		log_error("cannot set up the system call filter: %s", strerror(-r));
	return r;
}

int sandbox_daemon(bool with_threads)
{
	return WITH_FILTER ? load(daemon_calls, daemon_families, with_threads) : 0;
}

int sandbox_monitor(void)
{
	return WITH_FILTER ? load(monitor_calls, monitor_families, false) : 0;
}
