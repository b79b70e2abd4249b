/*
 * A volley: many sockets for one link, for as long as ports of our NAT are
 * guessed. Each sends one datagram; those that the peer's guesses meet become
 * sockets like the others, the rest is closed. One link at a time has one.
 */
#include "daemon/internal.h"

#define BUFFER_BYTES 4096 /* a socket that is met gets a few probes before it is taken over */

struct shot {
	struct volley *volley;
	struct net_udp *udp;
};

struct volley {
	struct link *owner;
	unsigned n_shots;
	struct shot shots[NAT_GUESS_SOCKETS];
};

static bool take_over(struct shot *shot, const struct net_udp_packet *packet, uint8_t *data,
		      size_t n_bytes, uint64_t now_us)
{
	struct link *link = shot->volley->owner;
	struct udp_socket *s;

	if (!session_volley_input(link->session, data, n_bytes) || udp_adopt(link, shot->udp, &s))
		return false;
	shot->udp = NULL;
	session_adopt_socket(link->session, s->number, s->ipv4, s->ipv6, now_us);
	session_input(link->session, s->number, &packet->from, data, n_bytes, packet->ecn, now_us);
	links_pump(link);
	return true;
}

static void on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		       size_t n_packets, uint64_t now_us)
{
	struct shot *shot = user;

	(void)udp;
	/* The first one that is the peer's; it repeats what else it has to say. */
	for (size_t i = 0; i < n_packets; i++)
		if (take_over(shot, &packets[i], packets[i].data,
			      min_size(packets[i].segment_bytes, packets[i].data_bytes), now_us))
			return;
}

static int open_shot(struct volley *v, struct worker *w)
{
	struct shot *shot = &v->shots[v->n_shots];
	const struct net_udp_config config = {
		.on_packets = on_packets,
		.user = shot,
		.buffer_bytes = BUFFER_BYTES,
	};

	shot->volley = v;
	return net_udp_new(w->loop, &config, &shot->udp);
}

void volley_open(struct link *link, unsigned n_sockets)
{
	struct worker *w = link->worker;
	struct volley *v = w->volley ? NULL : calloc(1, sizeof(*v));

	if (v) {
		v->owner = link;
		w->volley = v;
		while (v->n_shots < min_size(n_sockets, NAT_GUESS_SOCKETS) && !open_shot(v, w))
			v->n_shots++;
		log_debug("%s: %u sockets are open for guesses", link->peer->address.text,
			  v->n_shots);
	}
	session_volley_opened(link->session, v ? v->n_shots : 0, link_now_us(link));
}

void volley_close(struct worker *w, const struct link *link)
{
	struct volley *v = w->volley;

	if (!v || (link && v->owner != link))
		return;
	for (unsigned i = 0; i < v->n_shots; i++)
		net_udp_free(v->shots[i].udp);
	w->volley = NULL;
	free(v);
}

void volley_send(struct link *link, const struct session_send *send)
{
	const struct net_udp_send out = {
		.to = send->to,
		.data = send->data,
		.data_bytes = send->n_bytes,
		.ttl = send->ttl,
	};
	struct volley *v = link->worker->volley;

	/* What cannot leave is lost; the others do. */
	if (v && v->owner == link && send->volley_index < v->n_shots &&
	    v->shots[send->volley_index].udp)
		(void)net_udp_send(v->shots[send->volley_index].udp, &out);
}
