/*
 * The UDP port with the number of the control port: STUN binding, the channels
 * of the relay, and classic PTCP, by which stock clients ask who they are before
 * they listen. The next port answers STUN as well, so that a client can compare what its NAT does
 * towards two ports of one machine. Only channels keep state about who asks.
 */
#include "server/state.h"

#include "stun/stun.h"

static void reply(struct net_udp *udp, const struct net_udp_packet *packet,
		  const struct endpoint *to, const uint8_t *data, size_t n_bytes)
{
	const struct net_udp_send send = {
		.to = *to,
		.from = packet ? packet->local : (struct ip_address){ 0 },
		.data = data,
		.data_bytes = n_bytes,
	};

	/* A datagram that cannot leave is lost, as datagrams are. */
	(void)net_udp_send(udp, &send);
}

static void classic_flush(struct server *s, struct net_udp *udp,
			  const struct net_udp_packet *packet, uint64_t now_us)
{
	uint8_t out[Q2Q_CLASSIC_DATAGRAM_MAX_BYTES];
	struct endpoint to;
	size_t n_bytes;

	while ((n_bytes = q2q_classic_output(s->classic, &to, out, now_us)) > 0)
		reply(udp, packet && endpoint_equal(&packet->from, &to) ? packet : NULL, &to, out,
		      n_bytes);
	net_timer_arm(&s->classic_timer, q2q_classic_deadline_us(s->classic));
}

static void on_classic_timer(void *user, uint64_t now_us)
{
	struct server *s = user;

	q2q_classic_tick(s->classic, now_us);
	if (s->classic_udp)
		classic_flush(s, s->classic_udp, NULL, now_us);
}

/* ---- channels ---- */

static void on_bind(struct server *s, struct net_udp *udp, const struct net_udp_packet *packet,
		    const uint8_t *data, uint64_t now_us)
{
	const struct relay_place from = { .remote = packet->from,
					  .local = packet->local,
					  .socket = udp };
	uint8_t bound[Q2Q_CHANNEL_BIND_BYTES];

	if (relay_channel_bind(s->relay, data, &from, now_us, bound) == 0)
		reply(udp, packet, &packet->from, bound, sizeof(bound));
}

/* How many bytes from `at` on are datagrams of one channel: a train of one sender, mostly all. */
static size_t train_bytes(const struct net_udp_packet *p, size_t at)
{
	const uint8_t *first = p->data + at;
	size_t end = at;

	while (end < p->data_bytes) {
		const size_t size = min_size(p->segment_bytes, p->data_bytes - end);

		if (size <= Q2Q_CHANNEL_HEADER_BYTES ||
		    memcmp(p->data + end, first, Q2Q_CHANNEL_HEADER_BYTES) != 0)
			break;
		end += size;
	}
	return end - at;
}

/* Passes a train on as one, under the name that it has on the other side. */
static void on_data(struct server *s, struct net_udp *udp, const struct net_udp_packet *packet,
		    uint8_t *data, size_t n_bytes, uint64_t now_us)
{
	const struct relay_place *to;
	const uint8_t *name;

	if (relay_channel_route(s->relay, data + 1, &packet->from, n_bytes, net_udp_is_blocked(udp),
				now_us, &name, &to) != 0)
		return;
	for (size_t at = 0; at < n_bytes; at += packet->segment_bytes)
		q2q_channel_header(Q2Q_CHANNEL_DATA, name, data + at);
	const struct net_udp_send send = {
		.to = to->remote,
		.from = to->local,
		.data = data,
		.data_bytes = n_bytes,
		.segment_bytes = n_bytes > packet->segment_bytes ? packet->segment_bytes : 0,
	};
	(void)net_udp_send(to->socket, &send);
}

/* Datagrams of a channel at `at`: how many bytes were taken; 0: it is something else. */
static size_t on_channel(struct server *s, struct net_udp *udp, const struct net_udp_packet *packet,
			 size_t at, uint64_t now_us)
{
	const size_t size = min_size(packet->segment_bytes, packet->data_bytes - at);
	uint8_t *data = packet->data + at;
	size_t n_bytes;

	if (udp == s->stun_second)
		return 0;
	switch (q2q_channel_kind(data, size)) {
	case Q2Q_CHANNEL_BIND:
		if (!relay_channel_known(s->relay, data + 1))
			return 0;
		on_bind(s, udp, packet, data, now_us);
		return size;
	case Q2Q_CHANNEL_DATA:
		if (!relay_channel_known(s->relay, data + 1))
			return 0;
		n_bytes = train_bytes(packet, at);
		on_data(s, udp, packet, data, n_bytes, now_us);
		return n_bytes;
	default:
		return 0;
	}
}

/* Where the same machine answers STUN too: the two ports tell of each other. */
static const struct endpoint *other_address(const struct server *s, const struct net_udp *udp,
					    const struct net_udp_packet *packet,
					    struct endpoint *other)
{
	const struct endpoint second =
		s->stun_second ? net_udp_local(s->stun_second) : (struct endpoint){ 0 };

	/* IPv6 has no mappings to compare. */
	if (!second.port || packet->local.family != FAMILY_IPV4 ||
	    (second.ip.family != FAMILY_NONE && !ip_equal(&second.ip, &packet->local)))
		return NULL;
	*other = (struct endpoint){ .ip = packet->local, .port = second.port };
	if (udp == s->stun_second)
		other->port = (uint16_t)(second.port - 1);
	return other;
}

static void on_datagram(struct server *s, struct net_udp *udp, const struct net_udp_packet *packet,
			const uint8_t *data, size_t n_bytes, uint64_t now_us)
{
	uint8_t out[STUN_MESSAGE_MAX_BYTES];

	if (packet->from.port == 0)
		return;
	if (stun_is_message(data, n_bytes)) {
		struct endpoint other, to;
		const size_t out_bytes =
			stun_server_answer(data, n_bytes, &packet->from,
					   other_address(s, udp, packet, &other), out, sizeof(out));

		s->counters.stun_requests++;
		stun_server_answer_to(data, n_bytes, &packet->from, &to);
		if (out_bytes > 0)
			reply(udp, packet, &to, out, out_bytes);
		return;
	}
	s->counters.udp_other++;
	if (udp == s->stun_second)
		return;
	if (q2q_classic_input(s->classic, &packet->from, data, n_bytes, now_us) != 0)
		return;
	s->classic_udp = udp;
	classic_flush(s, udp, packet, now_us);
}

void udp_on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		    size_t n_packets, uint64_t now_us)
{
	struct server *s = user;

	for (size_t i = 0; i < n_packets; i++) {
		const struct net_udp_packet *p = &packets[i];

		for (size_t at = 0, taken; at < p->data_bytes; at += taken) {
			taken = on_channel(s, udp, p, at, now_us);
			if (taken > 0)
				continue;
			taken = min_size(p->segment_bytes, p->data_bytes - at);
			on_datagram(s, udp, p, p->data + at, taken, now_us);
		}
	}
}

int udp_start(struct server *s)
{
	net_timer_init(&s->classic_timer, s->loop, on_classic_timer, s);
	return q2q_classic_new(&(struct q2q_classic_config){ 0 }, &s->classic);
}

void udp_stop(struct server *s)
{
	net_timer_disarm(&s->classic_timer);
	q2q_classic_free(s->classic);
	s->classic = NULL;
	net_udp_free(s->stun_second);
	s->stun_second = NULL;
}
