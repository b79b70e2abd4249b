/*
 * q2q-tund with another daemon in it: one that does what PLAY says, so that the
 * monitor can be seen at work, and at its end.
 */
#include "base/base.h"
#include "daemon/daemon.h"
#include "tun/tun.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void exchange(int fd, const struct tun_request *request, struct tun_reply *reply,
		     int *ret_fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	if (tun_ipc_send_request(fd, request) != 0 || poll(&wait, 1, 5000) != 1 ||
	    tun_ipc_receive_reply(fd, reply, ret_fd) != 0)
		exit(71);
}

static int make_link(int fd, uint32_t slot, const char *peer4)
{
	struct tun_request request = { .type = TUN_REQUEST_LINK_CREATE,
				       .slot = slot,
				       .ifname = "q2q-bob",
				       .alias = "bob@b.test" };
	struct tun_reply reply = { 0 };
	int device = -1;

	inet_pton(AF_INET, "100.64.0.1", request.addresses.own4);
	inet_pton(AF_INET, peer4, request.addresses.peer4);
	inet_pton(AF_INET6, "fd71:3271:746e::1", request.addresses.own6);
	inet_pton(AF_INET6, "fd71:3271:746e::2", request.addresses.peer6);
	request.addresses.peer6[15] = (uint8_t)(2 + slot);
	exchange(fd, &request, &reply, &device);
	printf("link status %d name %s\n", reply.status, reply.ifname);
	fflush(stdout);
	return device;
}

static void wait_for_stop(int fd)
{
	for (;;) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		struct tun_reply reply;
		int device = -1;

		if (poll(&wait, 1, -1) < 0)
			continue;
		switch (tun_ipc_receive_reply(fd, &reply, &device)) {
		case 0:
			printf("asked to stop: %d\n", reply.type == TUN_REQUEST_STOPPING);
			fflush(stdout);
			return;
		default:
			return;
		}
	}
}

static const char *outcome(int r)
{
	return r < 0 ? strerror(errno) : "done";
}

/* What a daemon that was taken over would try. */
static void try_forbidden_things(void)
{
	char *const nothing[] = { NULL };

	printf("packet socket: %s\n", outcome(socket(AF_PACKET, SOCK_RAW, 0)));
	printf("setuid: %s\n", outcome(setuid(0)));
	printf("write /etc: %s\n", outcome(access("/etc", W_OK)));
	fflush(stdout);
	execve("/bin/true", nothing, nothing);
	printf("execve did not end the process\n");
	fflush(stdout);
}

int daemon_run(struct daemon_options *options)
{
	const char *play = getenv("PLAY");
	const struct tun_request ready = { .type = TUN_REQUEST_READY };
	const struct tun_request nonsense = { .type = 99 };

	if (!play)
		play = "";
	printf("uid %d gid %d\n", (int)getuid(), (int)getgid());
	fflush(stdout);
	if (strcmp(play, "exit") == 0)
		return 7;
	make_link(options->monitor_fd, 0, "100.64.0.2");
	make_link(options->monitor_fd, 1, "100.64.0.3");
	if (tun_ipc_send_request(options->monitor_fd, &ready) != 0)
		return 72;
	if (strcmp(play, "forbidden") == 0)
		try_forbidden_things();
	if (strcmp(play, "nonsense") == 0 && tun_ipc_send_request(options->monitor_fd, &nonsense))
		return 73;
	if (strcmp(play, "twice") == 0)
		make_link(options->monitor_fd, 1, "100.64.0.9");
	wait_for_stop(options->monitor_fd);
	return 0;
}
