/* addresses - what addresses this machine has, and when that changes. */
#include "net/internal.h"

#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

#define QUIET_US    (200 * US_PER_MS)
#define PATIENCE_US (2 * US_PER_S)

static bool fill_address(const struct ifaddrs *i, struct net_local_address *a)
{
	struct endpoint e;

	if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || endpoint_from_sockaddr(i->ifa_addr, &e) < 0)
		return false;
	*a = (struct net_local_address){
		.ip = e.ip,
		.scope_id = e.scope_id,
		.interface = if_nametoindex(i->ifa_name),
		.loopback = (i->ifa_flags & IFF_LOOPBACK) != 0,
		.point_to_point = (i->ifa_flags & IFF_POINTOPOINT) != 0,
	};
	snprintf(a->name, sizeof(a->name), "%s", i->ifa_name);
	return true;
}

int net_local_addresses(const char *but, struct net_local_address *ret_list, size_t max)
{
	struct ifaddrs *all;
	size_t n = 0;

	if (getifaddrs(&all) < 0)
		return -errno;
	for (const struct ifaddrs *i = all; i && n < max; i = i->ifa_next)
		if (!(but && strncmp(i->ifa_name, but, strlen(but)) == 0) &&
		    fill_address(i, &ret_list[n]))
			n++;
	freeifaddrs(all);
	return (int)n;
}

struct net_changes {
	struct net_loop *loop;
	struct net_watch watch;
	struct net_timer timer;
	struct net_trash trash;
	void (*fn)(void *user);
	void *user;
	uint64_t first_us; /* of the changes not told yet; NEVER_US: none */
	int fd;
};

static void on_quiet(void *user, uint64_t now_us)
{
	struct net_changes *changes = user;

	(void)now_us;
	changes->first_us = NEVER_US;
	changes->fn(changes->user);
}

/* What changed is not looked at: the callee reads the whole state again. */
static void on_message(void *user, unsigned ready)
{
	struct net_changes *changes = user;
	const uint64_t now_us = net_loop_now_us(changes->loop);
	uint8_t data[8192];
	bool any = false;
	ssize_t n;

	(void)ready;
	while ((n = recv(changes->fd, data, sizeof(data), MSG_DONTWAIT)) > 0 ||
	       (n < 0 && errno == ENOBUFS))
		any = true;
	if (!any)
		return;
	changes->first_us = min_u64(changes->first_us, now_us);
	net_timer_arm(&changes->timer, min_u64(now_us + QUIET_US, changes->first_us + PATIENCE_US));
}

int net_changes_new(struct net_loop *loop, void (*fn)(void *user), void *user,
		    struct net_changes **ret_changes)
{
	const struct sockaddr_nl at = {
		.nl_family = AF_NETLINK,
		.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
			     RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
	};
	struct net_changes *changes = calloc(1, sizeof(*changes));
	int r = 0;

	if (!changes)
		return -ENOMEM;
	*changes =
		(struct net_changes){ .loop = loop, .fn = fn, .user = user, .first_us = NEVER_US };
	net_timer_init(&changes->timer, loop, on_quiet, changes);
	changes->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (changes->fd < 0 || bind(changes->fd, (const struct sockaddr *)&at, sizeof(at)) < 0)
		r = -errno;
	if (r == 0) {
		net_watch_init(&changes->watch, loop, changes->fd, on_message, changes);
		r = net_watch_want(&changes->watch, NET_READ);
	}
	if (r < 0) {
		net_changes_free(changes);
		return r;
	}
	*ret_changes = changes;
	return 0;
}

static void release(void *memory)
{
	free(memory);
}

void net_changes_free(struct net_changes *changes)
{
	if (!changes)
		return;
	net_watch_fini(&changes->watch);
	net_timer_disarm(&changes->timer);
	if (changes->fd >= 0)
		close(changes->fd);
	net_loop_trash(changes->loop, &changes->trash, release, changes);
}
