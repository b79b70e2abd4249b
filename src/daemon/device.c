/*
 * A link's TUN device: its addresses, its making by the monitor, packets in
 * and out.
 */
#include "daemon/internal.h"

#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

/*
 * Enough to empty the device, so that what waits does so in the session's queue, where flows are
 * told apart; then others get their turn.
 */
#define TUN_READS_PER_WAKE_UP 256
/*
 * Where many devices have something, others' turn must not take long to come: they share so many
 * reads in a turn of the loop. Nor must it where the queue behind the device is full, and each
 * packet read makes another be dropped: what is too much had better wait in the device, where who
 * sent it must wait too, and what the kernel drops costs least. The few reads left are for other
 * flows.
 */
#define TUN_READS_PER_TURN 512
#define TUN_READS_MIN      4

/* ---- virtual addresses ---- */

struct taken {
	struct daemon *daemon;
	const struct peer *self;
	const uint8_t *own4; /* of the link that is being made */
};

/*
 * Anybody can look for a name whose hash is another's. Who was known first keeps the address, also
 * while that tunnel is down: programs may have remembered it.
 */
static bool belongs_to_older(const struct taken *t, const uint8_t ip4[static 4])
{
	const struct peer *peer;

	TAILQ_FOREACH (peer, &t->daemon->peers, entry) {
		if (peer == t->self || !peer->pinned ||
		    (t->self->pinned && t->self->pinned_at_s <= peer->pinned_at_s))
			continue;
		if (!memcmp(peer->has_local4 ? peer->local4 : peer->vip.ip4, ip4, 4))
			return true;
	}
	return false;
}

static bool address_taken(void *user, const uint8_t ip4[static 4])
{
	const struct taken *t = user;
	struct link *link;

	if (!memcmp(t->own4, ip4, 4))
		return true;
	LIST_FOREACH (link, &t->daemon->links, entry)
		if (link->peer != t->self &&
		    (!memcmp(link->shown.peer4, ip4, 4) || !memcmp(link->shown.own4, ip4, 4)))
			return true;
	return belongs_to_older(t, ip4) || tun_route_taken4(ip4) == 1;
}

static bool own_taken(void *user, const uint8_t ip4[static 4])
{
	const struct taken *t = user;
	struct link *link;

	/* Our own address stands on every interface of that identity. */
	LIST_FOREACH (link, &t->daemon->links, entry)
		if (!memcmp(link->shown.own4, ip4, 4))
			return false;
	return tun_route_taken4(ip4) == 1;
}

int link_choose_addresses(struct link *link)
{
	struct taken taken = { .daemon = link->daemon,
			       .self = link->peer,
			       .own4 = link->shown.own4 };
	struct peer *peer = link->peer;
	const bool had_local4 = peer->has_local4;
	struct vip own, other;
	int r = vip_from_address(link->identity->address.text, &own);

	if (!r)
		r = vip_from_address(peer->address.text, &other);
	if (!r)
		r = vip_choose4(link->identity->address.text, own_taken, &taken, link->shown.own4);
	if (r)
		return r;
	memcpy(link->shown.own6, own.ip6, sizeof(own.ip6));
	memcpy(link->shown.peer6, other.ip6, sizeof(other.ip6));
	/* What the user saw before stays, as long as it is free. */
	if (peer->has_local4 && !address_taken(&taken, peer->local4)) {
		memcpy(link->shown.peer4, peer->local4, sizeof(peer->local4));
		return 0;
	}
	r = vip_choose4(peer->address.text, address_taken, &taken, link->shown.peer4);
	if (r)
		return r;
	peer->has_local4 = memcmp(link->shown.peer4, other.ip4, sizeof(other.ip4)) != 0;
	memcpy(peer->local4, link->shown.peer4, sizeof(peer->local4));
	if (peer->has_local4)
		log_note("%s: its IPv4 address is in use here already; it is shown as %u.%u.%u.%u",
			 peer->address.text, peer->local4[0], peer->local4[1], peer->local4[2],
			 peer->local4[3]);
	/* On a full disk it may be another one after a restart; that is no reason to do without. */
	if (peer->has_local4 || had_local4)
		peers_save(link->daemon, peer);
	return 0;
}

/* ---- packets from the device ---- */

void link_device_want(struct link *link, bool wanted)
{
	if (link->device == DEVICE_READY && link->tun_wanted != wanted &&
	    !net_watch_want(&link->tun_watch, wanted ? NET_READ : 0))
		link->tun_wanted = wanted;
}

void link_device_lost(struct link *link)
{
	log_error("%s: the interface %s is gone", link->peer->address.text, link->ifname);
	link_device_close(link);
	link_device_ask(link);
}

/* Of one device now. The number of those that are ready is that of the last turn. */
static unsigned reads_allowed(struct worker *w, uint64_t now_us)
{
	if (w->tun_turn_us != now_us) {
		w->tun_turn_us = now_us;
		w->n_tun_ready_before = w->n_tun_ready;
		w->n_tun_ready = 0;
	}
	w->n_tun_ready++;
	const size_t share = TUN_READS_PER_TURN / max_u64(w->n_tun_ready, w->n_tun_ready_before);

	return (unsigned)min_size(max_u64(share, TUN_READS_MIN), TUN_READS_PER_WAKE_UP);
}

static void on_tun(void *user, unsigned ready)
{
	struct link *link = user;
	const uint64_t now_us = link_now_us(link);
	unsigned n_left = reads_allowed(link->worker, now_us);

	(void)ready;
	while (n_left-- > 0) {
		uint8_t *room = link->worker->discard;
		const int how = session_tun_room(link->session, &room);
		int n;

		if (how == SESSION_BLOCKED) {
			link_device_want(link, false);
			break;
		}
		n = tun_device_read(link->tun_fd, link->features, room, TUN_FRAME_BYTES);
		if (how == 0)
			session_tun_commit(link->session, n > 0 ? (size_t)n : 0, now_us);
		if (n == -EBADFD) {
			/* Again at the next wake-up where the control plane could not be told. */
			if (workers_in_control())
				link_device_lost(link);
			else if (!workers_tell_device_lost(link))
				link_device_want(link, false);
			break;
		}
		if (n <= 0)
			break;
		if (n_left > TUN_READS_MIN && session_tun_full(link->session))
			n_left = TUN_READS_MIN;
	}
	links_pump(link);
}

/* ---- device ---- */

void link_device_close(struct link *link)
{
	struct tun_request request = { .type = TUN_REQUEST_LINK_DELETE, .slot = link->slot };

	net_watch_fini(&link->tun_watch);
	closep(&link->tun_fd);
	link->tun_fd = -1;
	link->tun_wanted = false;
	if (link->device == DEVICE_READY || link->device == DEVICE_ASKED)
		daemon_monitor_send(link->daemon, &request);
	link->device = DEVICE_NONE;
	link->daemon->device_changed_us = net_loop_now_us(link->daemon->loop);
}

int link_device_ask(struct link *link)
{
	struct tun_request request = { .type = TUN_REQUEST_LINK_CREATE,
				       .slot = link->slot,
				       .addresses = link->shown };
	int r;

	tun_name_from_address(link->peer->address.text, request.ifname);
	snprintf(request.alias, sizeof(request.alias), "%.*s", (int)sizeof(request.alias) - 1,
		 link->peer->address.text);
	link->device_request = request.id = ++link->daemon->monitor_id;
	link->device = DEVICE_ASKED;
	r = daemon_monitor_send(link->daemon, &request);
	if (r)
		link->device = DEVICE_FAILED;
	return r;
}

void links_on_reply(struct daemon *d, const struct tun_reply *reply, int fd)
{
	struct link *link = reply->slot < TUN_SLOTS_MAX ? d->slots[reply->slot] : NULL;

	if (!link || link->device != DEVICE_ASKED || link->device_request != reply->id) {
		closep(&fd); /* of a link that went meanwhile */
		return;
	}
	if (reply->status || fd < 0) {
		link_enter(link);
		closep(&fd);
		if (!reply->status)
			link_device_close(link);
		link->device = DEVICE_FAILED;
		problem_set(&link->problem, CTL_FAILED,
			    "cannot make the network interface for %s: %s",
			    link->peer->address.text,
			    strerror(reply->status ? -reply->status : EMFILE));
		if (reply->status)
			problem_hint(&link->problem,
				     "does /dev/net/tun exist? Is the kernel module tun loaded?");
		log_error("%s: %s", link->peer->address.text, link->problem.error);
		control_link_changed(d, link);
		return;
	}
	link_enter(link);
	link->device = DEVICE_READY;
	d->device_changed_us = net_loop_now_us(d->loop);
	link->tun_fd = fd;
	link->features = reply->features;
	snprintf(link->ifname, sizeof(link->ifname), "%s", reply->ifname);
	net_watch_init(&link->tun_watch, link->worker->loop, fd, on_tun, link);
	link_device_want(link, true);
	session_set_device(link->session, &link->shown, link->features);
	log_debug("%s: interface %s", link->peer->address.text, link->ifname);
	links_pump(link);
	control_link_changed(d, link);
}

/* ---- packets to the device ---- */

void link_device_write(struct link *link, const struct session_frame *frame)
{
	const bool vnet = link->features & TUN_FEATURE_VNET;
	const struct iovec parts[] = {
		{ .iov_base = (void *)(uintptr_t)frame->header, .iov_len = TUN_VNET_BYTES },
		{ .iov_base = (void *)(uintptr_t)frame->packet, .iov_len = frame->packet_bytes },
	};

	if (link->device != DEVICE_READY ||
	    writev(link->tun_fd, vnet ? parts : parts + 1, vnet ? 2 : 1) < 0)
		link->tun_write_dropped++;
}
