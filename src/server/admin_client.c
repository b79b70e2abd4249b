#include "server/admin.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_to(const char *dir, int *ret_fd)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const struct timeval timeout = { .tv_sec = ADMIN_TIMEOUT_MS / 1000 };
	_cleanup_(closep) int fd = -1;

	if ((size_t)snprintf(to.sun_path, sizeof(to.sun_path), "%s/%s", dir, ADMIN_SOCKET_NAME) >=
	    sizeof(to.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		return errno == ECONNREFUSED ? -ENOENT : -errno;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int send_line(int fd, const json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	size_t n_bytes, sent = 0;
	int rc = 0;

	if (!text)
		return -ENOMEM;
	n_bytes = strlen(text);
	text[n_bytes++] = '\n'; /* in place of the NUL */
	while (sent < n_bytes && rc == 0) {
		const ssize_t n = send(fd, text + sent, n_bytes - sent, MSG_NOSIGNAL);

		if (n < 0)
			rc = errno == EAGAIN ? -ETIMEDOUT : -errno;
		else
			sent += (size_t)n;
	}
	free(text);
	return rc;
}

static int receive_line(int fd, struct buffer *line)
{
	for (;;) {
		uint8_t *room;
		int rc = buffer_reserve(line, 4096, &room);
		ssize_t n;

		if (rc != 0)
			return rc;
		n = recv(fd, room, 4096, 0);
		if (n == 0)
			return -EPROTO;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		buffer_commit(line, (size_t)n);
		if (memchr(room, '\n', (size_t)n))
			return 0;
	}
}

static int take_result(struct buffer *line, json_t **ret_result, char *why, size_t why_bytes)
{
	json_t *answer = json_loadb((const char *)buffer_peek(line), buffer_used(line),
				    JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, NULL);
	json_t *result = json_object_get(answer, "result");
	int rc = 0;

	if (json_is_true(json_object_get(answer, "ok")) && result) {
		*ret_result = json_incref(result);
	} else {
		const char *text = json_string_value(json_object_get(answer, "error"));

		snprintf(why, why_bytes, "%s", text ? text : "the answer cannot be read");
		rc = text ? -EREMOTEIO : -EPROTO;
	}
	json_decref(answer);
	return rc;
}

int admin_request(const char *dir, const char *command, json_t *args, json_t **ret_result,
		  char *why, size_t why_bytes)
{
	json_t *request =
		json_pack("{s:i, s:i, s:s, s:o*}", "v", 1, "id", 1, "cmd", command, "args", args);
	_cleanup_(closep) int fd = -1;
	struct buffer line;
	int rc;

	if (!request)
		return -ENOMEM;
	buffer_init(&line, ADMIN_LINE_MAX, false);
	rc = connect_to(dir, &fd);
	if (rc == 0)
		rc = send_line(fd, request);
	if (rc == 0)
		rc = receive_line(fd, &line);
	if (rc == 0)
		rc = take_result(&line, ret_result, why, why_bytes);
	else
		snprintf(why, why_bytes, "%s", strerror(-rc));
	buffer_fini(&line);
	json_decref(request);
	return rc;
}
