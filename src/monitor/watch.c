/* The monitor's loop: requests of the daemon, signals, the daemon's end. */
#include "monitor/monitor.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RELOADS_MAX  2               /* one that is being read, and one that comes after it */
#define STOP_TIME_US (10 * US_PER_S) /* the daemon's time to take leave of its peers */

struct watch {
	struct monitor_requests requests;
	pid_t daemon_pid;
	int ipc_fd, signal_fd;
	uint64_t stop_deadline_us; /* NEVER_US: not asked to stop */
	bool over;
	int exit_status;
};

static uint64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * US_PER_S + (uint64_t)now.tv_nsec / 1000;
}

static void end(struct watch *w, int exit_status)
{
	w->over = true;
	w->exit_status = exit_status;
}

/* The daemon is about to end; its status comes by SIGCHLD, once the kernel has taken away one after
 * the other what it held. */
static void closed(struct watch *w)
{
	w->ipc_fd = -1; /* poll() passes over it */
	requests_end_links(&w->requests);
}

static void on_request(struct watch *w)
{
	_cleanup_(closep) int fd = -1;
	struct tun_request request;
	struct tun_reply reply;
	int r = tun_ipc_receive_request(w->ipc_fd, &request);

	if (r == TUN_IPC_CLOSED) {
		closed(w);
		return;
	}
	if (r == 0)
		r = requests_handle(&w->requests, &request, &reply, &fd);
	if (r == 0 && reply.type != 0)
		r = tun_ipc_send_reply(w->ipc_fd, &reply, fd);
	if (r < 0) {
		log_error("the daemon asked for what it may not (%s): ending both", strerror(-r));
		end(w, EXIT_FAILURE);
	}
}

/* Signalling the daemon would take CAP_KILL: it is asked over the socket instead. */
static void ask_to_stop(struct watch *w)
{
	const struct tun_reply stop = { .type = TUN_REQUEST_STOPPING };

	if (w->stop_deadline_us != NEVER_US)
		return;
	w->stop_deadline_us = clock_us() + STOP_TIME_US;
	if (tun_ipc_send_reply(w->ipc_fd, &stop, -1) != 0)
		end(w, EXIT_FAILURE);
}

/* Whoever reloads the service signals the monitor; the daemon reads the file. */
static void ask_to_reload(struct watch *w)
{
	const struct tun_reply reload = { .type = TUN_REQUEST_RELOAD };

	/* What was asked last has not been read yet: it will be, as it is then. */
	if (w->requests.n_reloads == RELOADS_MAX || w->stop_deadline_us != NEVER_US)
		return;
	if (tun_ipc_send_reply(w->ipc_fd, &reload, -1) != 0) {
		log_warn("the daemon cannot be told to read the configuration again");
		return;
	}
	w->requests.n_reloads++;
	if (w->requests.ready)
		service_notify_reloading();
}

static void reap(struct watch *w)
{
	int status;

	if (waitpid(w->daemon_pid, &status, WNOHANG) != w->daemon_pid)
		return;
	if (WIFSIGNALED(status))
		log_error("the daemon was killed by signal %d", WTERMSIG(status));
	end(w, WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
}

static void on_signal(struct watch *w)
{
	struct signalfd_siginfo info;

	if (read(w->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (info.ssi_signo == SIGCHLD)
		reap(w);
	else if (info.ssi_signo == SIGHUP)
		ask_to_reload(w);
	else
		ask_to_stop(w);
}

static int wait_ms(const struct watch *w)
{
	const uint64_t now_us = clock_us();

	if (w->stop_deadline_us == NEVER_US)
		return -1;
	return now_us >= w->stop_deadline_us ? 0 : (int)((w->stop_deadline_us - now_us) / 1000 + 1);
}

static void turn(struct watch *w)
{
	struct pollfd fds[] = { { .fd = w->signal_fd, .events = POLLIN },
				{ .fd = w->ipc_fd, .events = POLLIN } };
	const int n = poll(fds, ARRAY_SIZE(fds), wait_ms(w));

	if (n < 0 && errno != EINTR) {
		log_error("poll: %s", strerror(errno));
		end(w, EXIT_FAILURE);
	}
	if (n == 0 && w->stop_deadline_us != NEVER_US && clock_us() >= w->stop_deadline_us) {
		log_error("the daemon did not end in time");
		end(w, EXIT_FAILURE); /* it is killed with us */
	}
	if (n <= 0)
		return;
	if (fds[1].revents & POLLIN)
		on_request(w);
	else if (fds[1].revents)
		closed(w);
	if (fds[0].revents)
		on_signal(w);
}

/* The tunnels work without it as well. */
static void guard_open(struct tun_guard *guard)
{
	const int r = tun_guard_open(guard, (uint32_t)getpid());

	if (r)
		log_warn("packets for virtual addresses that come by other ways than tunnels "
			 "cannot be dropped, for nftables does not work: %s",
			 strerror(-r));
}

int monitor_watch(pid_t daemon_pid, int ipc_fd)
{
	struct watch w = { .daemon_pid = daemon_pid,
			   .ipc_fd = ipc_fd,
			   .stop_deadline_us = NEVER_US };
	sigset_t signals;

	/* Of no other daemon, nor of anybody else. */
	if (getrandom(&w.requests.group, sizeof(w.requests.group), 0) != sizeof(w.requests.group))
		w.requests.group = (uint32_t)getpid();
	w.requests.group |= 1u << 30;
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	w.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (w.signal_fd < 0) {
		log_error("signalfd: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	guard_open(&w.requests.guard);
	reap(&w); /* it may have ended before there was anybody to tell */
	while (!w.over)
		turn(&w);
	tun_guard_close(&w.requests.guard);
	close(w.signal_fd);
	return w.exit_status;
}
