/*
 * Messages between monitor and daemon. One struct is one SOCK_SEQPACKET
 * message; a descriptor travels by SCM_RIGHTS, from the monitor to the daemon
 * only. Anything else that arrives is a fault, and its descriptors are closed.
 */
#include "tun/tun.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define REQUEST_MAGIC 0x71327271u
#define REPLY_MAGIC   0x71327270u
#define FDS_MAX       8 /* more than anybody sends, so that all of them get closed */

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
};

const char *tun_request_name(uint32_t type)
{
	static const char *const names[] = {
		[0] = "?",
		[TUN_REQUEST_LINK_CREATE] = "link-create",
		[TUN_REQUEST_LINK_DELETE] = "link-delete",
		[TUN_REQUEST_READY] = "ready",
		[TUN_REQUEST_ALIVE] = "alive",
		[TUN_REQUEST_STOPPING] = "stopping",
		[TUN_REQUEST_LINKS_END] = "links-end",
		[TUN_REQUEST_RELOAD] = "reload",
	};
	static_assert(ARRAY_SIZE(names) == TUN_REQUEST_COUNT, "a name for each request");

	return names[type < TUN_REQUEST_COUNT ? type : 0];
}

int tun_ipc_pair(int ret_fds[static 2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0 ? -errno : 0;
}

static int send_message(int fd, const void *data, size_t data_bytes, int pass_fd)
{
	struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = data_bytes };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	union control control = { 0 };
	ssize_t n;

	if (pass_fd >= 0) {
		struct cmsghdr *header = &control.align;

		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int));
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &pass_fd, sizeof(int));
	}
	do
		n = sendmsg(fd, &message, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EPIPE || errno == ECONNRESET ? TUN_IPC_CLOSED : -errno;
	return (size_t)n == data_bytes ? 0 : -EIO;
}

/* Collects the descriptors of a message; what is too much is closed. */
static size_t take_fds(struct msghdr *message, int ret_fds[static FDS_MAX])
{
	size_t n_fds = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n_fds < FDS_MAX)
				ret_fds[n_fds++] = fd;
			else
				close(fd);
		}
	}
	return n_fds;
}

/* ret_fd: NULL where a descriptor may not come. */
static int receive_message(int fd, void *data, size_t data_bytes, int *ret_fd)
{
	struct iovec part = { .iov_base = data, .iov_len = data_bytes };
	union control control = { 0 };
	struct msghdr message = { .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = control.bytes,
				  .msg_controllen = sizeof(control) };
	int fds[FDS_MAX];
	size_t n_fds;
	ssize_t n;

	do
		n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? TUN_IPC_CLOSED : -errno;
	n_fds = take_fds(&message, fds);
	if (n == 0 && n_fds == 0)
		return TUN_IPC_CLOSED;
	/* A descriptor that is cut off: this process can open no more. The message is sound. */
	if ((size_t)n != data_bytes || (message.msg_flags & MSG_TRUNC) ||
	    (!ret_fd && (message.msg_flags & MSG_CTRUNC)) || n_fds > (ret_fd ? 1 : 0)) {
		for (size_t i = 0; i < n_fds; i++)
			close(fds[i]);
		return -EBADMSG;
	}
	if (ret_fd)
		*ret_fd = n_fds > 0 ? fds[0] : -1;
	return 0;
}

int tun_ipc_send_request(int fd, const struct tun_request *request)
{
	struct tun_request message = *request;

	message.magic = REQUEST_MAGIC;
	return send_message(fd, &message, sizeof(message), -1);
}

int tun_ipc_receive_request(int fd, struct tun_request *ret_request)
{
	struct tun_request message;
	const int r = receive_message(fd, &message, sizeof(message), NULL);

	if (r != 0)
		return r;
	if (message.magic != REQUEST_MAGIC)
		return -EBADMSG;
	*ret_request = message;
	return 0;
}

int tun_ipc_send_reply(int fd, const struct tun_reply *reply, int pass_fd)
{
	struct tun_reply message = *reply;

	message.magic = REPLY_MAGIC;
	return send_message(fd, &message, sizeof(message), pass_fd);
}

int tun_ipc_receive_reply(int fd, struct tun_reply *ret_reply, int *ret_fd)
{
	_cleanup_(closep) int passed = -1;
	struct tun_reply message;
	int r = receive_message(fd, &message, sizeof(message), &passed);

	if (r != 0)
		return r;
	if (message.magic != REPLY_MAGIC || (message.status != 0 && passed >= 0))
		return -EBADMSG;
	if (passed >= 0) {
		const int flags = fcntl(passed, F_GETFL);

		if (flags < 0 || fcntl(passed, F_SETFL, flags | O_NONBLOCK) < 0)
			return -errno;
	}
	*ret_reply = message;
	*ret_fd = passed;
	passed = -1;
	return 0;
}
