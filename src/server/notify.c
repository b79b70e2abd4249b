/* The protocol of sd_notify(3): one datagram to $NOTIFY_SOCKET. */
#include "server/state.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify_service(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const size_t path_bytes = path ? strlen(path) : 0;
	int fd;

	if (path_bytes < 2 || path_bytes >= sizeof(to.sun_path) || !strchr("/@", path[0]))
		return;
	memcpy(to.sun_path, path, path_bytes);
	if (to.sun_path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes)) < 0)
		log_debug("cannot notify the service manager: %s", strerror(errno));
	closep(&fd);
}
