/*
 * The names socket: libnss_q2q asks it for addresses of peers and for peers of
 * addresses. Any process may; requests and replies have a fixed size.
 */
#include "daemon/internal.h"
#include "base/names.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAMES_CLIENTS_MAX 256

struct names_client {
	struct names *names;
	int fd;
	struct net_watch watch;
	struct net_timer timer;
	uint8_t request[NAMES_REQUEST_BYTES];
	size_t used;
	LIST_ENTRY(names_client) entry;
};

struct names {
	struct daemon *daemon;
	struct net_listener *listener;
	LIST_HEAD(, names_client) clients;
	unsigned n_clients;
};

#define CLIENT_LIFE_US (10 * US_PER_S) /* between two requests */

/* ---- answers ---- */

static void name_of(const struct q2q_address *address, char out[static NAMES_TEXT_BYTES])
{
	snprintf(out, NAMES_TEXT_BYTES, "%s.%s%s", address->resource, address->domain,
		 NAMES_SUFFIX);
}

static void addresses_of(const struct q2q_address *address, const struct peer *peer,
			 struct names_reply *reply)
{
	struct vip vip;

	if (peer)
		vip = peer->vip;
	else if (vip_from_address(address->text, &vip))
		return;
	reply->ipv4.family = FAMILY_IPV4;
	memcpy(reply->ipv4.bytes, vip.ip4, sizeof(vip.ip4));
	reply->ipv6.family = FAMILY_IPV6;
	memcpy(reply->ipv6.bytes, vip.ip6, sizeof(vip.ip6));
	if (peer && peer->link)
		memcpy(reply->ipv4.bytes, peer->link->shown.peer4, 4);
	else if (peer && peer->has_local4)
		memcpy(reply->ipv4.bytes, peer->local4, 4);
}

static bool matches(const struct names_request *request, const struct names_reply *reply)
{
	if (request->kind == NAMES_BY_NAME)
		return !strcmp(request->name, reply->name);
	return ip_equal(&request->address,
			request->address.family == FAMILY_IPV4 ? &reply->ipv4 : &reply->ipv6);
}

static bool try_address(const struct names_request *request, const struct q2q_address *address,
			const struct peer *peer, struct names_reply *reply)
{
	struct names_reply candidate = { .status = NAMES_FOUND, .id = request->id };

	name_of(address, candidate.name);
	addresses_of(address, peer, &candidate);
	if (!matches(request, &candidate))
		return false;
	*reply = candidate;
	return true;
}

static void answer(struct daemon *d, const struct names_request *request, struct names_reply *reply)
{
	const struct identity *id;
	const struct peer *peer;

	*reply = (struct names_reply){ .status = NAMES_NOT_FOUND, .id = request->id };
	TAILQ_FOREACH (peer, &d->peers, entry)
		if (try_address(request, &peer->address, peer, reply))
			return;
	TAILQ_FOREACH (id, &d->identities.list, entry)
		if (try_address(request, &id->address, NULL, reply))
			return;
}

/* ---- clients ---- */

static void client_free(struct names_client *c)
{
	net_watch_fini(&c->watch);
	net_timer_disarm(&c->timer);
	closep(&c->fd);
	LIST_REMOVE(c, entry);
	c->names->n_clients--;
	free(c);
}

static void on_timer(void *user, uint64_t now_us)
{
	(void)now_us;
	client_free(user);
}

/* 0, or the client is of no use any more. */
static int serve(struct names_client *c)
{
	uint8_t out[NAMES_REPLY_BYTES];
	struct names_request request;
	struct names_reply reply;

	if (names_decode_request(c->request, &request))
		return -EBADMSG;
	answer(c->names->daemon, &request, &reply);
	names_encode_reply(&reply, out);
	c->used = 0;
	/* A reply fits into an empty socket buffer; who does not read its replies is cut off. */
	return send(c->fd, out, sizeof(out), MSG_NOSIGNAL) == (ssize_t)sizeof(out) ? 0 : -EPIPE;
}

static void on_ready(void *user, unsigned ready)
{
	struct names_client *c = user;
	const ssize_t n = read(c->fd, c->request + c->used, sizeof(c->request) - c->used);

	(void)ready;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_free(c);
		return;
	}
	c->used += (size_t)n;
	if (c->used == sizeof(c->request) && serve(c)) {
		client_free(c);
		return;
	}
	net_timer_arm(&c->timer, net_loop_now_us(c->names->daemon->loop) + CLIENT_LIFE_US);
}

static void on_accepted(void *user, int fd, const struct net_peer *peer)
{
	struct names *names = user;
	struct names_client *c =
		names->n_clients < NAMES_CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;

	(void)peer;
	if (!c) {
		close(fd);
		return;
	}
	c->names = names;
	c->fd = fd;
	net_watch_init(&c->watch, names->daemon->loop, fd, on_ready, c);
	net_timer_init(&c->timer, names->daemon->loop, on_timer, c);
	LIST_INSERT_HEAD(&names->clients, c, entry);
	names->n_clients++;
	net_timer_arm(&c->timer, net_loop_now_us(names->daemon->loop) + CLIENT_LIFE_US);
	if (net_watch_want(&c->watch, NET_READ))
		client_free(c);
}

int names_start(struct daemon *d)
{
	struct names *names = calloc(1, sizeof(*names));
	int r;

	if (!names)
		return -ENOMEM;
	names->daemon = d;
	d->names = names;
	r = net_listen_unix(d->loop, d->options->names_path, 0666, on_accepted, names,
			    &names->listener);
	if (r)
		log_error("cannot open the names socket %s: %s", d->options->names_path,
			  strerror(-r));
	return r;
}

void names_stop(struct daemon *d)
{
	struct names *names = d->names;
	struct names_client *c;

	if (!names)
		return;
	while ((c = LIST_FIRST(&names->clients)))
		client_free(c);
	net_listener_free(names->listener);
	free(names);
	d->names = NULL;
}
