/*
 * The start of q2q-tun-upnp (src/upnp), the process that talks UPnP for the daemon. It is found
 * while we may still look everywhere, and started by the daemon's process once that has given up
 * every privilege, and before its filter forbids to start anything.
 */
#include "config.h" /* _GNU_SOURCE: O_PATH, fexecve() */

#include "monitor/monitor.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROGRAM   "q2q-tun-upnp"
#define SOCKET_FD 3 /* where it looks for us */

#ifdef HAVE_MINIUPNPC

static int open_program(const char *path)
{
	return open(path, O_PATH | O_CLOEXEC);
}

/* Beside this program first: the two are of one installation. */
int helper_find(void)
{
	char own[PATH_MAX], path[PATH_MAX + 64];
	const ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
	char *slash;
	int fd = -1;

	if (n > 0) {
		own[n] = '\0';
		slash = strrchr(own, '/');
		if (slash)
			*slash = '\0';
		snprintf(path, sizeof(path), "%s/../libexec/" PACKAGE "/" PROGRAM, own);
		fd = open_program(path);
	}
	return fd >= 0 ? fd : open_program(PKGLIBEXECDIR "/" PROGRAM);
}

#else

int helper_find(void)
{
	return -1;
}

#endif

static void become_helper(int program_fd, int socket_fd)
{
	char *const arguments[] = { (char[]){ PROGRAM }, NULL }, *const none[] = { NULL };
	sigset_t no_signals;

	sigemptyset(&no_signals);
	if (sigprocmask(SIG_SETMASK, &no_signals, NULL) < 0)
		_exit(EXIT_FAILURE);
	if (program_fd == SOCKET_FD)
		program_fd = fcntl(program_fd, F_DUPFD_CLOEXEC, SOCKET_FD + 1);
	/* dup2() leaves what is there already as it is, with the flag that closes it. */
	if (socket_fd == SOCKET_FD ? fcntl(socket_fd, F_SETFD, 0) < 0
				   : dup2(socket_fd, SOCKET_FD) < 0)
		_exit(EXIT_FAILURE);
	fexecve(program_fd, arguments, none);
	_exit(EXIT_FAILURE);
}

int helper_start(int program_fd)
{
	int pair[2];
	pid_t pid;

	if (program_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	pid = fork();
	if (pid == 0)
		become_helper(program_fd, pair[1]);
	close(pair[1]);
	if (pid < 0 || fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0) {
		close(pair[0]);
		return -1;
	}
	return pair[0];
}
