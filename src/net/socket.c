/* socket - small things that several files need. */
#include "net/internal.h"

int net_set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

int net_socket_error(int fd)
{
	int fault = 0;
	socklen_t length = sizeof(fault);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &fault, &length) < 0)
		return -errno;
	return -fault;
}
