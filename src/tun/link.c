/*
 * Addresses, MTU and state of one link, by libnl-route.
 *
 * An IPv4 address with a peer brings the route to the peer along, with the right
 * source address; for IPv6 there is an address and a route. The kernel takes
 * both away with the device.
 */
#include "tun/tun.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/addr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/inet6.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <netlink/socket.h>

/* An IPv4 route at least this long was put there for this network in particular; shorter
 * ones (0/0, and the halves 0/1 and 128/1 of other VPNs) lead to everything. */
#define SPECIFIC_PREFIX_BITS 8

DEFINE_CLEANUP(struct nl_sock *, nl_socket_free)
DEFINE_CLEANUP(struct nl_msg *, nlmsg_free)
DEFINE_CLEANUP(struct nl_addr *, nl_addr_put)
DEFINE_CLEANUP(struct rtnl_link *, rtnl_link_put)
DEFINE_CLEANUP(struct rtnl_addr *, rtnl_addr_put)
DEFINE_CLEANUP(struct rtnl_route *, rtnl_route_put)

/* ---- which addresses are ours ------------------------------------------------------- */

bool tun_ip4_valid(const uint8_t address[static 4])
{
	return address[0] == 100 && (address[1] & 0xc0) == 64;
}

bool tun_ip6_valid(const uint8_t address[static 16])
{
	static const uint8_t prefix[] = TUN_IP6_PREFIX;

	return memcmp(address, prefix, sizeof(prefix)) == 0;
}

static bool all_zero(const uint8_t *data, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++)
		if (data[i] != 0)
			return false;
	return true;
}

/* ---- netlink -------------------------------------------------------------------------- */

/* libnl has its own numbers; what we tell apart goes back to the kernel's. */
static int fault(int nl_error)
{
	static const struct {
		int from, to;
	} map[] = {
		{ NLE_NOMEM, ENOMEM },        { NLE_PERM, EPERM },
		{ NLE_NOACCESS, EACCES },     { NLE_EXIST, EEXIST },
		{ NLE_BUSY, EBUSY },          { NLE_NODEV, ENODEV },
		{ NLE_OBJ_NOTFOUND, ENOENT }, { NLE_OPNOTSUPP, EOPNOTSUPP },
		{ NLE_INVAL, EINVAL },        { NLE_AF_NOSUPPORT, EAFNOSUPPORT },
	};

	if (nl_error >= 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (map[i].from == -nl_error)
			return -map[i].to;
	return -EIO;
}

static int open_socket(struct nl_sock **ret_socket)
{
	_cleanup_(nl_socket_freep) struct nl_sock *sk = nl_socket_alloc();
	int r;

	if (!sk)
		return -ENOMEM;
	r = nl_connect(sk, NETLINK_ROUTE);
	if (r < 0)
		return fault(r);
	*ret_socket = TAKE_PTR(sk);
	return 0;
}

/* Applies `change` to the link of that index; frees nothing. */
static int change_link(struct nl_sock *sk, uint32_t ifindex, struct rtnl_link *change)
{
	_cleanup_(rtnl_link_putp) struct rtnl_link *link = rtnl_link_alloc();

	if (!link)
		return -ENOMEM;
	rtnl_link_set_ifindex(link, (int)ifindex);
	return fault(rtnl_link_change(sk, link, change, 0));
}

static int set_properties(struct nl_sock *sk, uint32_t ifindex,
			  const struct tun_link_config *config)
{
	_cleanup_(rtnl_link_putp) struct rtnl_link *change = rtnl_link_alloc();

	if (!change)
		return -ENOMEM;
	rtnl_link_set_mtu(change, config->mtu);
	rtnl_link_set_txqlen(change,
			     config->queue_packets ? config->queue_packets : TUN_QUEUE_PACKETS);
	if (config->alias)
		rtnl_link_set_ifalias(change, config->alias);
	if (config->group)
		rtnl_link_set_group(change, config->group);
	return change_link(sk, ifindex, change);
}

/* No link-local address, hence no router solicitations and no neighbour noise. Where the
 * system has no IPv6 there is nothing to silence, so a failure does not matter. */
static void silence_ipv6(struct nl_sock *sk, uint32_t ifindex)
{
	_cleanup_(rtnl_link_putp) struct rtnl_link *change = rtnl_link_alloc();

	if (!change || rtnl_link_inet6_set_addr_gen_mode(change, IN6_ADDR_GEN_MODE_NONE) < 0)
		return;
	change_link(sk, ifindex, change);
}

static int set_up(struct nl_sock *sk, uint32_t ifindex)
{
	_cleanup_(rtnl_link_putp) struct rtnl_link *change = rtnl_link_alloc();

	if (!change)
		return -ENOMEM;
	rtnl_link_set_flags(change, IFF_UP);
	return change_link(sk, ifindex, change);
}

static int add_address(struct nl_sock *sk, uint32_t ifindex, int family, const uint8_t *own,
		       const uint8_t *peer, size_t n_bytes)
{
	_cleanup_(rtnl_addr_putp) struct rtnl_addr *address = rtnl_addr_alloc();
	_cleanup_(nl_addr_putp) struct nl_addr *local = nl_addr_build(family, own, n_bytes);
	_cleanup_(nl_addr_putp) struct nl_addr *remote =
		peer ? nl_addr_build(family, peer, n_bytes) : NULL;
	int r;

	if (!address || !local || (peer && !remote))
		return -ENOMEM;
	rtnl_addr_set_ifindex(address, (int)ifindex);
	r = rtnl_addr_set_local(address, local);
	if (r >= 0 && remote)
		r = rtnl_addr_set_peer(address, remote);
	if (r < 0)
		return fault(r);
	rtnl_addr_set_prefixlen(address, (int)(8 * n_bytes));
	rtnl_addr_set_scope(address, RT_SCOPE_UNIVERSE);
	if (family == AF_INET6) /* the address is a hash: nobody else can have it on this link */
		rtnl_addr_set_flags(address, IFA_F_NODAD);
	return fault(rtnl_addr_add(sk, address, 0));
}

/* libnl takes peers of IPv4 addresses alone, so IPv6 gets its route by hand; the link is up. */
static int add_route6(struct nl_sock *sk, uint32_t ifindex, const uint8_t *own, const uint8_t *peer)
{
	_cleanup_(rtnl_route_putp) struct rtnl_route *route = rtnl_route_alloc();
	_cleanup_(nl_addr_putp) struct nl_addr *to = nl_addr_build(AF_INET6, peer, 16);
	_cleanup_(nl_addr_putp) struct nl_addr *from = nl_addr_build(AF_INET6, own, 16);
	struct rtnl_nexthop *hop;
	int r;

	if (!route || !to || !from)
		return -ENOMEM;
	nl_addr_set_prefixlen(to, 128);
	rtnl_route_set_family(route, AF_INET6);
	rtnl_route_set_table(route, RT_TABLE_MAIN);
	r = rtnl_route_set_dst(route, to);
	if (r >= 0)
		r = rtnl_route_set_pref_src(route, from);
	if (r < 0)
		return fault(r);
	hop = rtnl_route_nh_alloc();
	if (!hop)
		return -ENOMEM;
	rtnl_route_nh_set_ifindex(hop, (int)ifindex);
	rtnl_route_add_nexthop(route, hop); /* owned by the route now */
	return fault(rtnl_route_add(sk, route, NLM_F_CREATE));
}

/* Where IPv6 is switched off on this machine, the IPv4 half alone will do. */
static bool no_ipv6(int r)
{
	return r == -EACCES || r == -EPERM || r == -EOPNOTSUPP || r == -EAFNOSUPPORT;
}

static int add_addresses(struct nl_sock *sk, uint32_t ifindex, const struct tun_addresses *a,
			 uint32_t *ret_families)
{
	uint32_t families = 0;
	int r;

	if (!all_zero(a->own4, 4) && !all_zero(a->peer4, 4)) {
		r = add_address(sk, ifindex, AF_INET, a->own4, a->peer4, 4);
		if (r < 0)
			return r;
		families |= TUN_FEATURE_IP4;
	}
	if (!all_zero(a->own6, 16) && !all_zero(a->peer6, 16)) {
		r = add_address(sk, ifindex, AF_INET6, a->own6, NULL, 16);
		if (r < 0 && !(families && no_ipv6(r)))
			return r;
		if (r == 0)
			families |= TUN_FEATURE_IP6;
	}
	if (!families)
		return -EADDRNOTAVAIL;
	*ret_families = families;
	return 0;
}

int tun_link_setup(const struct tun_link_config *config, uint32_t *ret_ifindex,
		   uint32_t *ret_features)
{
	_cleanup_(nl_socket_freep) struct nl_sock *sk = NULL;
	const uint32_t ifindex = if_nametoindex(config->name);
	uint32_t families = 0;
	int r;

	if (ifindex == 0)
		return -errno;
	r = open_socket(&sk);
	if (r < 0)
		return r;
	r = set_properties(sk, ifindex, config);
	if (r < 0)
		return r;
	silence_ipv6(sk, ifindex);
	r = add_addresses(sk, ifindex, &config->addresses, &families);
	if (r < 0)
		return r;
	r = set_up(sk, ifindex);
	if (r == 0 && (families & TUN_FEATURE_IP6))
		r = add_route6(sk, ifindex, config->addresses.own6, config->addresses.peer6);
	if (r < 0)
		return r;
	*ret_ifindex = ifindex;
	*ret_features = families;
	return 0;
}

int tun_link_delete_group(uint32_t group)
{
	const struct ifinfomsg info = { .ifi_family = AF_UNSPEC };
	_cleanup_(nl_socket_freep) struct nl_sock *sk = NULL;
	struct nl_msg *message;
	int r;

	if (group == 0)
		return -EINVAL;
	r = open_socket(&sk);
	if (r < 0)
		return r;
	message = nlmsg_alloc_simple(RTM_DELLINK, NLM_F_REQUEST);
	if (!message)
		return -ENOMEM;
	if (nlmsg_append(message, (void *)(uintptr_t)&info, sizeof(info), NLMSG_ALIGNTO) < 0 ||
	    nla_put_u32(message, IFLA_GROUP, group) < 0) {
		nlmsg_free(message);
		return -ENOMEM;
	}
	return fault(nl_send_sync(sk, message)); /* which frees it */
}

/* ---- which addresses are taken ------------------------------------------------------------ */

/* The kernel's answer to "which entry of the routing table covers this address". */
static int on_route(struct nl_msg *message, void *user)
{
	const struct nlmsghdr *header = nlmsg_hdr(message);
	const struct rtmsg *route;
	int *taken = user;

	if (header->nlmsg_type != RTM_NEWROUTE ||
	    header->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtmsg)))
		return NL_SKIP;
	route = nlmsg_data(header);
	*taken = route->rtm_dst_len >= SPECIFIC_PREFIX_BITS;
	return NL_STOP;
}

int tun_route_taken4(const uint8_t address[static 4])
{
	const struct rtmsg ask = { .rtm_family = AF_INET,
				   .rtm_dst_len = 32,
				   .rtm_flags = RTM_F_FIB_MATCH };
	_cleanup_(nl_socket_freep) struct nl_sock *sk = NULL;
	_cleanup_(nlmsg_freep) struct nl_msg *message = NULL;
	int taken = 0, r;

	r = open_socket(&sk);
	if (r < 0)
		return r;
	message = nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST);
	if (!message || nlmsg_append(message, (void *)(uintptr_t)&ask, sizeof(ask), 0) < 0 ||
	    nla_put(message, RTA_DST, 4, address) < 0)
		return -ENOMEM;
	nl_socket_disable_seq_check(sk);
	nl_socket_modify_cb(sk, NL_CB_VALID, NL_CB_CUSTOM, on_route, &taken);
	r = nl_send_auto(sk, message);
	if (r < 0)
		return fault(r);
	r = nl_recvmsgs_default(sk);
	/* No route at all: the address is as free as can be. */
	return r >= 0 || r == -NLE_OBJ_NOTFOUND || r == -NLE_FAILURE ? taken : fault(r);
}
