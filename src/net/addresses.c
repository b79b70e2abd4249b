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

/* ---- what interfaces are ---------------------------------------------------------- */

#define LINKS_MAX    1024
#define LIST_BYTES   32768
#define LIST_WAIT_MS 1000

struct link_kind {
	int index, master;
	bool tunnel, bridge;
	bool inner; /* made for containers and virtual machines: the end of a pair, or a tap */
};

static bool is_one_of(const char *kind, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(kind, *list))
			return true;
	return false;
}

/* The attribute at *at of so many bytes, and past it. NULL: there is none, or it is cut. */
static const struct rtattr *next_attribute(const void *data, size_t n_bytes, size_t *at)
{
	const struct rtattr *a = (const void *)((const uint8_t *)data + *at);

	if (*at > n_bytes || n_bytes - *at < sizeof(*a) || a->rta_len < sizeof(*a) ||
	    a->rta_len > n_bytes - *at)
		return NULL;
	*at += RTA_ALIGN(a->rta_len);
	return a;
}

static void take_kind(struct link_kind *link, const struct rtattr *info)
{
	static const char *const tunnels[] = { "tun",    "wireguard", "ipip",   "sit", "gre",
					       "gretap", "ip6tnl",    "ip6gre", "vti", "vti6",
					       "xfrm",   "vxlan",     "geneve", NULL };
	const struct rtattr *a;
	size_t at = 0;

	while ((a = next_attribute(RTA_DATA(info), RTA_PAYLOAD(info), &at)) != NULL) {
		const char *kind = RTA_DATA(a);

		if (a->rta_type != IFLA_INFO_KIND || !memchr(kind, 0, RTA_PAYLOAD(a)))
			continue;
		link->tunnel = is_one_of(kind, tunnels);
		link->bridge = !strcmp(kind, "bridge");
		link->inner = !strcmp(kind, "veth") || !strcmp(kind, "tun");
	}
}

static void take_link(struct link_kind *link, const struct nlmsghdr *h)
{
	const struct ifinfomsg *info = NLMSG_DATA(h);
	const struct rtattr *a;
	size_t at = 0;

	*link = (struct link_kind){ .index = info->ifi_index };
	while ((a = next_attribute(IFLA_RTA(info), IFLA_PAYLOAD(h), &at)) != NULL) {
		/* The flag of nested attributes is not always there. */
		if ((a->rta_type & NLA_TYPE_MASK) == IFLA_LINKINFO)
			take_kind(link, a);
		else if (a->rta_type == IFLA_MASTER && RTA_PAYLOAD(a) >= sizeof(link->master))
			memcpy(&link->master, RTA_DATA(a), sizeof(link->master));
	}
}

/* All of one datagram. True: the list has ended, or failed. */
static bool take_links(const uint8_t *data, size_t n_bytes, struct link_kind *links, size_t *n)
{
	const struct nlmsghdr *h;

	for (size_t at = 0; at < n_bytes && n_bytes - at >= sizeof(*h);
	     at += NLMSG_ALIGN(h->nlmsg_len)) {
		h = (const void *)(data + at);
		if (h->nlmsg_len < sizeof(*h) || h->nlmsg_len > n_bytes - at)
			return true;
		if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
			return true;
		if (h->nlmsg_type == RTM_NEWLINK &&
		    h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct ifinfomsg)) && *n < LINKS_MAX)
			take_link(&links[(*n)++], h);
	}
	return false;
}

/* What libnl would do too; it is not linked to the daemon. A fault: nothing is known of kinds. */
static int list_links(struct link_kind *links, size_t *ret_n)
{
	const struct {
		struct nlmsghdr header;
		struct ifinfomsg info;
	} ask = {
		.header = { .nlmsg_len = sizeof(ask),
			    .nlmsg_type = RTM_GETLINK,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
	};
	const struct timeval wait = { .tv_sec = LIST_WAIT_MS / 1000 };
	_cleanup_(closep) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	_cleanup_(freep) uint8_t *data = malloc(LIST_BYTES);
	bool over = false;

	if (fd < 0 || !data)
		return -ENOMEM;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	if (send(fd, &ask, sizeof(ask), 0) < 0)
		return -errno;
	while (!over) {
		const ssize_t got = recv(fd, data, LIST_BYTES, 0);

		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		over = take_links(data, (size_t)got, links, ret_n);
	}
	return 0;
}

static bool has_outer_member(const struct link_kind *links, size_t n, int bridge)
{
	for (size_t i = 0; i < n; i++)
		if (links[i].master == bridge && !links[i].inner && !links[i].tunnel)
			return true;
	return false;
}

static void mark_virtual(struct net_local_address *list, size_t n_addresses)
{
	_cleanup_(freep) struct link_kind *links = calloc(LINKS_MAX, sizeof(*links));
	size_t n = 0;

	if (!links || list_links(links, &n) < 0)
		return;
	for (size_t a = 0; a < n_addresses; a++)
		for (size_t i = 0; i < n; i++)
			if (links[i].index == (int)list[a].interface)
				list[a].virtual = links[i].tunnel ||
						  (links[i].bridge &&
						   !has_outer_member(links, n, links[i].index));
}

/* ---- addresses --------------------------------------------------------------------- */

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
	mark_virtual(ret_list, n);
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
