/*
 * What the daemon may ask. The monitor trusts nothing of it: each request is
 * checked against the table and against what was asked before, as if the
 * daemon had been taken over. A surprise ends both.
 */
#include "monitor/monitor.h"

#include <unistd.h>

static bool is_text(const char *text, size_t text_bytes)
{
	const size_t n = strnlen(text, text_bytes);

	if (n == text_bytes)
		return false;
	for (size_t i = 0; i < n; i++)
		if (text[i] < 0x21 || text[i] > 0x7e)
			return false;
	return true;
}

static bool is_zero(const uint8_t *data, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++)
		if (data[i])
			return false;
	return true;
}

/* Inside the project's own ranges, own and peer different; or the family is off. */
static bool are_sound(const struct tun_addresses *a)
{
	const bool off4 = is_zero(a->own4, 4) && is_zero(a->peer4, 4);
	const bool off6 = is_zero(a->own6, 16) && is_zero(a->peer6, 16);

	if (!off4 && (!tun_ip4_valid(a->own4) || !tun_ip4_valid(a->peer4) ||
		      memcmp(a->own4, a->peer4, 4) == 0))
		return false;
	if (!off6 && (!tun_ip6_valid(a->own6) || !tun_ip6_valid(a->peer6) ||
		      memcmp(a->own6, a->peer6, 16) == 0))
		return false;
	return !off4 || !off6;
}

static bool is_sound(const struct tun_request *request)
{
	return request->slot < TUN_SLOTS_MAX && tun_name_valid(request->ifname) &&
	       is_text(request->alias, sizeof(request->alias)) && are_sound(&request->addresses) &&
	       (request->mtu == 0 ||
		(request->mtu >= TUN_MTU_MIN && request->mtu <= TUN_MTU_MAX)) &&
	       request->queue_packets <= 100000;
}

/* Two links to one address would take each other's packets. */
static bool peer_is_taken(const struct monitor_requests *requests, const struct tun_addresses *a)
{
	for (size_t i = 0; i < TUN_SLOTS_MAX; i++) {
		const struct tun_addresses *other = &requests->addresses[i];

		if (!requests->used[i])
			continue;
		if (!is_zero(a->peer4, 4) && memcmp(a->peer4, other->peer4, 4) == 0)
			return true;
		if (!is_zero(a->peer6, 16) && memcmp(a->peer6, other->peer6, 16) == 0)
			return true;
	}
	return false;
}

/* Whether packets from outside cannot reach the link's own addresses. */
static bool guard(struct tun_guard *g, const struct tun_addresses *a)
{
	const int r = is_zero(a->own4, 4) ? 0 : tun_guard_ip4(g, a->own4);

	if (r && r != -EBADF)
		log_warn("cannot keep packets from other interfaces away from a virtual address: "
			 "%s",
			 strerror(-r));
	return r == 0 && g->open;
}

static int make_link(struct monitor_requests *requests, const struct tun_request *request,
		     struct tun_reply *reply, int *ret_fd)
{
	struct tun_link_config config = { .name = reply->ifname,
					  .alias = request->alias,
					  .addresses = request->addresses,
					  .mtu = request->mtu ? request->mtu : TUN_MTU,
					  .queue_packets = request->queue_packets,
					  .group = requests->group };
	_cleanup_(closep) int fd = -1;
	uint32_t families = 0;
	int r = tun_device_open(request->ifname, reply->ifname, &reply->features, &fd);

	if (r < 0)
		return r;
	/* First the guard, then the address. */
	if (guard(&requests->guard, &request->addresses))
		reply->features |= TUN_FEATURE_GUARD;
	r = tun_link_setup(&config, &reply->ifindex, &families);
	if (r < 0)
		return r;
	reply->features |= families;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int create(struct monitor_requests *requests, const struct tun_request *request,
		  struct tun_reply *reply, int *ret_fd)
{
	if (!is_sound(request) || requests->used[request->slot])
		return -EPROTO;
	if (peer_is_taken(requests, &request->addresses))
		reply->status = -EADDRINUSE;
	else
		reply->status = make_link(requests, request, reply, ret_fd);
	requests->failed[request->slot] = reply->status != 0;
	if (reply->status == 0) {
		requests->used[request->slot] = true;
		requests->addresses[request->slot] = request->addresses;
		log_info("%s: interface %s is there", request->alias, reply->ifname);
	} else {
		log_error("%s: cannot make interface %s: %s", request->alias, request->ifname,
			  strerror(-reply->status));
	}
	return 0;
}

void requests_end_links(struct monitor_requests *requests)
{
	bool any = false;
	int r;

	for (size_t i = 0; i < TUN_SLOTS_MAX; i++) {
		any = any || requests->used[i];
		/* The daemon may still take each back. */
		requests->failed[i] = requests->failed[i] || requests->used[i];
		requests->used[i] = false;
	}
	/* The daemon closes them too, or has: then there is none left. */
	r = any ? tun_link_delete_group(requests->group) : 0;
	if (r < 0 && r != -ENODEV)
		log_debug("cannot remove the interfaces at once: %s", strerror(-r));
}

static int reloaded(struct monitor_requests *requests, bool faulty)
{
	if (requests->n_reloads == 0)
		return -EPROTO;
	requests->n_reloads--;
	if (!requests->ready || requests->n_reloads > 0)
		return 0;
	service_notify(faulty ? "READY=1\nSTATUS=The configuration has a fault, which the log "
				"names; the one before holds."
			      : "READY=1\nSTATUS=");
	return 0;
}

int requests_handle(struct monitor_requests *requests, const struct tun_request *request,
		    struct tun_reply *ret_reply, int *ret_fd)
{
	*ret_fd = -1;
	*ret_reply = (struct tun_reply){ .id = request->id, .slot = request->slot };
	switch (request->type) {
	case TUN_REQUEST_LINK_CREATE:
		ret_reply->type = request->type;
		return create(requests, request, ret_reply, ret_fd);
	case TUN_REQUEST_LINK_DELETE:
		/* The daemon may take a link back before it has read that there is none. */
		if (request->slot >= TUN_SLOTS_MAX ||
		    (!requests->used[request->slot] && !requests->failed[request->slot]))
			return -EPROTO;
		requests->used[request->slot] = requests->failed[request->slot] = false;
		ret_reply->type = request->type;
		return 0;
	case TUN_REQUEST_READY:
		if (requests->ready)
			return -EPROTO;
		requests->ready = true;
		service_notify("READY=1");
		return 0;
	case TUN_REQUEST_ALIVE:
		service_notify("WATCHDOG=1");
		return 0;
	case TUN_REQUEST_STOPPING:
		service_notify("STOPPING=1");
		return 0;
	case TUN_REQUEST_LINKS_END:
		requests_end_links(requests);
		return 0;
	case TUN_REQUEST_RELOAD:
		return reloaded(requests, request->id != 0);
	default:
		return -EPROTO;
	}
}
