/* The protocol of sd_notify(3): one datagram to $NOTIFY_SOCKET. libsystemd is not linked for that.
 */
#include "base/base.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

void service_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const size_t path_bytes = path ? strlen(path) : 0;
	_cleanup_(closep) int fd = -1;

	if (path_bytes < 2 || path_bytes >= sizeof(to.sun_path) || !strchr("/@", path[0]))
		return;
	memcpy(to.sun_path, path, path_bytes);
	if (to.sun_path[0] == '@') /* an abstract socket's name begins with a NUL */
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes)) < 0)
		log_debug("cannot notify the service manager: %s", strerror(errno));
}

void service_notify_reloading(void)
{
	struct timespec now;
	char state[64];

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu",
		 (unsigned long long)now.tv_sec * US_PER_S +
			 (unsigned long long)now.tv_nsec / 1000);
	service_notify(state);
}
