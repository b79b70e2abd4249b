/* What the files of net share among themselves. */
#ifndef NET_INTERNAL_H
#define NET_INTERNAL_H

#include "config.h" /* _GNU_SOURCE: include this header before any other */

#include "net/net.h"

#include <sys/socket.h>

/* Runs fn(memory) once nothing of this wake-up can refer to it any more. Never fails. */
struct net_trash {
	struct net_trash *next;
	void (*fn)(void *memory);
	void *memory;
};

void net_loop_trash(struct net_loop *loop, struct net_trash *trash, void (*fn)(void *memory),
		    void *memory);

/* What its owner has let go and still writes its last bytes: freed with the loop at the latest. */
struct net_linger {
	LIST_ENTRY(net_linger) entry;
	void (*fn)(void *object);
	void *object; /* NULL: not in the list */
};

void net_loop_linger(struct net_loop *loop, struct net_linger *linger, void (*fn)(void *object),
		     void *object);
void net_linger_end(struct net_linger *linger); /* fine on a zeroed object */

/* Never NULL; prefix_bits 0: none. See nat64.c. */
const struct net_nat64 *net_loop_nat64(const struct net_loop *loop);

/* A buffer for received messages, NET_UDP_BATCH of them, shared by the loop's sockets. */
uint8_t *net_loop_scratch(struct net_loop *loop);

int net_set_int(int fd, int level, int option, int value);
/* The pending fault of a socket as a negative number; 0 for none. */
int net_socket_error(int fd);

#endif
