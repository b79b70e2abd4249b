/*
 * Two sessions back to back in virtual time: a server that passes questions,
 * signals and relayed datagrams, by TLS or by UDP, and a network that passes UDP
 * between the two. Each can be switched off. Included by the tests of src/session.
 */
#ifndef TESTS_SESSION_WORLD_H
#define TESTS_SESSION_WORLD_H

#include "unit.h"
#include "q2q/q2q.h"
#include "session/session.h"

#include <stdio.h>

#define MS        UINT64_C(1000)
#define NOW_S     1800000000
#define ITEMS_MAX 4096

enum item_kind {
	ITEM_INBOUND,
	ITEM_ANSWER,
	ITEM_STATUS,
	ITEM_SIGNAL,
	ITEM_RELAY,
	ITEM_CHANNEL,
	ITEM_UDP,
	ITEM_STREAM,
};

struct item {
	enum item_kind kind;
	int to;
	uint64_t due_us;
	char id[OFFER_ID_BYTES + 1], request[OFFER_ID_BYTES + 1];
	enum session_why why;
	struct endpoint from, dst;
	unsigned wire;
	uint8_t *data;
	size_t n_bytes;
	TAILQ_ENTRY(item) entry;
};

struct end {
	char address[64];
	struct crypto_key *key;
	struct crypto_cert *cert;
	struct crypto_tls_context *tls;
	struct session *s;
	struct endpoint at; /* its socket, as the network sees it */
	bool online;        /* its daemon is connected to the server */
	bool asleep;        /* its machine is: nothing runs, and what comes is lost */
	bool refuses;
	bool disabled; /* its server says so, in place of passing on what is asked */
	unsigned random_left; /* calls until there is no randomness any more; 0: for ever */
	enum session_state state;
	char request[OFFER_ID_BYTES + 1]; /* the last */
	unsigned n_asks, n_paths, n_pongs, n_judged;
	bool pong_relay;
	unsigned n_frames;
	uint8_t frame[2048];
	size_t frame_bytes;
	uint32_t rng;
	/* what the server knows of its channel */
	bool has_channel, bound;
	uint8_t channel[Q2Q_CHANNEL_BYTES], channel_key[Q2Q_CHANNEL_KEY_BYTES];
	uint64_t bind_counter;
	unsigned n_binds;
	bool udp_blocked; /* and it knows */
	unsigned n_wants; /* to connect */
};

/* A TCP connection; each end has a number for it, 0: not (any more). */
struct wire {
	uint16_t number[2];
	uint8_t hello[SESSION_STREAM_HELLO_BYTES];
	size_t hello_bytes;
};

struct world {
	struct end end[2];
	uint64_t now_us;
	bool udp_works;        /* between the two */
	bool server_udp_works; /* to the server */
	bool gives_channels;
	struct endpoint server;
	unsigned n_channel_data;
	uint64_t udp_delay_us, server_delay_us;
	bool tcp_works;
	size_t tcp_step; /* bytes that arrive at a time; 0: as they were sent */
	struct wire wires[64];
	unsigned n_wires;
	int route; /* its address is the route of both */
	TAILQ_HEAD(, item) items;
	unsigned n_items, n_relayed, n_udp;
	size_t n_stray_bytes; /* to where nobody is */
	/* What the servers do to signals and relayed packets. */
	uint64_t signal_late_us;
	bool repeats;
	bool (*loses)(struct world *w, const struct item *item); /* or changes; may be NULL */
};

static struct crypto_key *domain_key;
static struct crypto_cert *domain_cert;

static int fake_random(void *user, void *out, size_t n_bytes)
{
	struct end *e = user;

	if (e->random_left > 0 && --e->random_left == 0) {
		e->random_left = 1;
		return -EIO;
	}
	for (size_t i = 0; i < n_bytes; i++) {
		e->rng = e->rng * 1664525u + 1013904223u;
		((uint8_t *)out)[i] = (uint8_t)(e->rng >> 24);
	}
	return 0;
}

static int verify(void *user, struct crypto_cert *cert)
{
	(void)user;
	return crypto_cert_verify(cert, domain_cert, NULL, NOW_S);
}

/* As the daemon does: no tunnel inside of a tunnel. */
static bool refuse_own(void *user, const struct ip_address *ip)
{
	((struct end *)user)->n_judged++;
	return ip->family == FAMILY_IPV6 && vip_is_ip6(ip->bytes);
}

static struct crypto_cert *end_certificate(const struct end *e, unsigned days)
{
	struct crypto_cert *cert;
	struct crypto_csr *csr;
	struct buffer der;

	buffer_init(&der, 4096, false);
	assert_int_equal(crypto_csr_make(e->key, e->address, &der), 0);
	assert_int_equal(crypto_csr_from_der(buffer_peek(&der), buffer_used(&der), &csr), 0);
	assert_int_equal(
		crypto_cert_issue(domain_cert, domain_key, csr, e->address, NOW_S, days, &cert), 0);
	crypto_csr_free(csr);
	buffer_fini(&der);
	return cert;
}

static void end_identity(struct end *e)
{
	struct crypto_tls_config config = { .tls13_only = true };

	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &e->key), 0);
	e->cert = end_certificate(e, 365);
	config.cert = e->cert;
	config.key = e->key;
	assert_int_equal(crypto_tls_context_new(&config, &e->tls), 0);
}

static struct tun_addresses addresses_of(const char *own, const char *peer)
{
	struct tun_addresses a;
	struct vip vip;

	assert_int_equal(vip_from_address(own, &vip), 0);
	memcpy(a.own4, vip.ip4, 4);
	memcpy(a.own6, vip.ip6, 16);
	assert_int_equal(vip_from_address(peer, &vip), 0);
	memcpy(a.peer4, vip.ip4, 4);
	memcpy(a.peer6, vip.ip6, 16);
	return a;
}

/* SESSION_TRACE=1: what a failing test did. */
static void trace(void *user, const char *what, const char *from, const char *to,
		  const char *because)
{
	const struct end *e = user;

	if (getenv("SESSION_TRACE"))
		fprintf(stderr, "# %s: %s %s -> %s because %s\n", e->address, what,
			from ? from : "-", to ? to : "-", because ? because : "-");
}

static bool udp_blocked(void *user)
{
	return ((struct end *)user)->udp_blocked;
}

/* For ends that start from now on; see session_config. */
static uint8_t world_cid_divisor, world_cid_remainder;
static bool world_no_early[2];

static void end_start(struct world *w, int i)
{
	struct end *e = &w->end[i];
	struct session_config config = {
		.own_address = e->address,
		.peer_address = w->end[!i].address,
		.device = "box",
		.tls = e->tls,
		.own_key = e->key,
		.verify = verify,
		.random_bytes = fake_random,
		.refuse = refuse_own,
		.udp_blocked = udp_blocked,
		.trace = trace,
		.user = e,
		.no_early = world_no_early[i],
		.cid_divisor = world_cid_divisor,
		.cid_remainder = world_cid_remainder,
	};
	struct nat_candidate host = { .kind = NAT_HOST, .endpoint = e->at };

	config.shown = addresses_of(e->address, w->end[!i].address);
	assert_int_equal(session_new(&config, w->now_us, &e->s), 0);
	session_set_device(e->s, &config.shown, TUN_FEATURE_VNET | TUN_FEATURE_CSUM);
	assert_int_equal(session_add_socket(e->s, 0, true, true, w->now_us), 0);
	assert_int_equal(session_add_local(e->s, &host, w->now_us), 0);
	e->state = SESSION_DOWN;
}

static void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	TAILQ_INIT(&w->items);
	w->now_us = 1000 * US_PER_S;
	w->udp_delay_us = 10 * MS;
	w->server_delay_us = 15 * MS;
	w->udp_works = w->server_udp_works = true;
	assert_int_equal(endpoint_parse("192.0.2.1:8788", false, &w->server), 0);
	for (int i = 0; i < 2; i++)
		snprintf(w->end[i].address, sizeof(w->end[i].address), "%s@a.test",
			 i ? "bob" : "alice");
	for (int i = 0; i < 2; i++) {
		struct end *e = &w->end[i];

		e->online = true;
		e->rng = (uint32_t)i + 1;
		assert_int_equal(
			endpoint_parse(i ? "10.0.0.2:4002" : "10.0.0.1:4001", false, &e->at), 0);
		end_identity(e);
		end_start(w, i);
	}
}

static void item_free(struct world *w, struct item *item)
{
	TAILQ_REMOVE(&w->items, item, entry);
	w->n_items--;
	free(item->data);
	free(item);
}

static void world_fini(struct world *w)
{
	while (!TAILQ_EMPTY(&w->items))
		item_free(w, TAILQ_FIRST(&w->items));
	for (int i = 0; i < 2; i++) {
		session_free(w->end[i].s);
		crypto_tls_context_unref(w->end[i].tls);
		crypto_cert_unref(w->end[i].cert);
		crypto_key_free(w->end[i].key);
	}
}

static struct item *item_new(struct world *w, enum item_kind kind, int to, uint64_t delay_us,
			     const void *data, size_t n_bytes)
{
	struct item *item = calloc(1, sizeof(*item));

	assert_non_null(item);
	assert_true(w->n_items++ < ITEMS_MAX);
	item->kind = kind;
	item->to = to;
	item->due_us = w->now_us + delay_us;
	item->n_bytes = n_bytes;
	item->data = malloc(n_bytes ? n_bytes : 1);
	if (n_bytes)
		memcpy(item->data, data, n_bytes);
	TAILQ_INSERT_TAIL(&w->items, item, entry);
	return item;
}

/* ---- the server -------------------------------------------------------------------- */

static void reply_status(struct world *w, const struct item *item, enum session_why why)
{
	struct item *out = item_new(w, ITEM_STATUS, !item->to, w->server_delay_us, NULL, 0);

	memcpy(out->request, item->request, sizeof(out->request));
	out->why = why;
}

static void deliver_inbound(struct world *w, const struct item *item)
{
	struct end *to = &w->end[item->to];
	struct session_inbound inbound = { .route = &w->route,
					   .request = item->request,
					   .peer_cert = w->end[!item->to].cert };
	struct session_reply reply;
	struct item *out;
	int r;

	if (to->disabled || !to->online || to->refuses) {
		reply_status(w, item,
			     to->disabled ? SESSION_WHY_DISABLED
			     : to->online ? SESSION_WHY_REFUSED
					  : SESSION_WHY_OFFLINE);
		return;
	}
	r = session_inbound(to->s, &inbound, &reply, w->now_us);
	if (r) {
		assert_true(r < 0 || r == SESSION_BUSY);
		reply_status(w, item, r < 0 ? SESSION_WHY_OFFLINE : SESSION_WHY_BUSY);
		return;
	}
	out = item_new(w, ITEM_ANSWER, !item->to, w->server_delay_us, reply.offer,
		       reply.offer_bytes);
	memcpy(out->id, reply.id, sizeof(out->id));
	memcpy(out->request, item->request, sizeof(out->request));
}

static void give_channel(struct world *w, const struct item *item)
{
	struct end *e = &w->end[item->to];

	e->has_channel = true;
	e->bound = false;
	e->bind_counter = 0;
	memset(e->channel, 0x40 + item->to, sizeof(e->channel));
	memset(e->channel_key, 0x50 + item->to, sizeof(e->channel_key));
	session_channel(e->s, item->id, e->channel, e->channel_key, &w->server, w->now_us);
}

/* UDP to the server, from end `i`. */
static void server_udp(struct world *w, int i, const struct item *item)
{
	struct end *e = &w->end[i], *other = &w->end[!i];
	uint8_t bound[Q2Q_CHANNEL_BIND_BYTES];
	uint64_t counter;

	if (!e->has_channel || memcmp(item->data + 1, e->channel, sizeof(e->channel)) != 0)
		return;
	if (q2q_channel_kind(item->data, item->n_bytes) == Q2Q_CHANNEL_BIND) {
		assert_int_equal(q2q_channel_open(item->data, e->channel_key, &counter), 0);
		assert_true(counter > e->bind_counter);
		e->bind_counter = counter;
		e->n_binds++;
		e->bound = true;
		assert_int_equal(q2q_channel_seal(Q2Q_CHANNEL_BOUND, e->channel, e->channel_key,
						  counter, bound),
				 0);
		session_channel_input(e->s, &w->server, bound, sizeof(bound), w->now_us);
		return;
	}
	assert_int_equal(q2q_channel_kind(item->data, item->n_bytes), Q2Q_CHANNEL_DATA);
	assert_in_range(item->n_bytes, 1, 1472);
	if (!e->bound || !other->bound)
		return;
	w->n_channel_data++;
	q2q_channel_header(Q2Q_CHANNEL_DATA, other->channel, item->data);
	session_channel_input(other->s, &w->server, item->data, item->n_bytes, w->now_us);
}

/* ---- TCP ---- */

#define STREAM_PORT 4443

static void cut(struct world *w, unsigned wire)
{
	for (int i = 0; i < 2; i++) {
		const uint16_t number = w->wires[wire].number[i];

		w->wires[wire].number[i] = 0;
		if (number)
			session_stream_closed(w->end[i].s, number, w->now_us);
	}
}

/* As the daemon: the first bytes of one that was accepted say whose it is. */
static void stream_arrives(struct world *w, int to, unsigned n, uint8_t *data, size_t n_bytes)
{
	struct wire *wire = &w->wires[n];
	struct end *e = &w->end[to];

	if (wire->number[to] == 0 && wire->hello_bytes < sizeof(wire->hello)) {
		const size_t taken = min_size(n_bytes, sizeof(wire->hello) - wire->hello_bytes);

		memcpy(wire->hello + wire->hello_bytes, data, taken);
		wire->hello_bytes += taken;
		data += taken;
		n_bytes -= taken;
		if (wire->hello_bytes < sizeof(wire->hello))
			return;
		wire->number[to] = (uint16_t)(n + 1);
		if (session_stream_accepted(e->s, wire->number[to], &w->end[!to].at, wire->hello,
					    w->now_us)) {
			wire->number[to] = 0;
			cut(w, n);
			return;
		}
	}
	if (wire->number[to] && n_bytes > 0 &&
	    session_stream_input(e->s, wire->number[to], data, n_bytes, w->now_us) < 0) {
		wire->number[to] = 0;
		cut(w, n);
	}
}

static void connect_streams(struct world *w, int i)
{
	struct endpoint targets[SESSION_STREAMS_MAX];
	const size_t n = session_stream_targets(w->end[i].s, targets, ARRAY_SIZE(targets));
	struct wire *wire = &w->wires[w->n_wires];

	for (size_t k = 0; k < n; k++) {
		if (!w->tcp_works || targets[k].port != STREAM_PORT ||
		    !ip_equal(&targets[k].ip, &w->end[!i].at.ip))
			continue;
		assert_true(w->n_wires < ARRAY_SIZE(w->wires));
		wire->number[i] = (uint16_t)++w->n_wires;
		if (session_stream_connected(w->end[i].s, wire->number[i], &targets[k], w->now_us))
			wire->number[i] = 0;
		return;
	}
}

static void send_stream(struct world *w, int i, const struct session_send *send)
{
	const size_t step = w->tcp_step ? w->tcp_step : send->n_bytes;

	for (unsigned n = 0; n < w->n_wires; n++) {
		if (w->wires[n].number[i] != send->stream)
			continue;
		for (size_t at = 0; at < send->n_bytes; at += step)
			item_new(w, ITEM_STREAM, !i, w->udp_delay_us, send->data + at,
				 min_size(step, send->n_bytes - at))
				->wire = n;
	}
}

static void close_stream(struct world *w, int i, uint16_t number)
{
	for (unsigned n = 0; n < w->n_wires; n++)
		if (w->wires[n].number[i] == number) {
			w->wires[n].number[i] = 0;
			cut(w, n);
		}
}

static void deliver_once(struct world *w, struct item *item)
{
	struct end *to = &w->end[item->to];
	struct session_answer answer = { .request = item->request,
					 .route = &w->route,
					 .id = item->id,
					 .peer_cert = w->end[!item->to].cert,
					 .offer = item->data,
					 .offer_bytes = item->n_bytes };

	switch (item->kind) {
	case ITEM_INBOUND:
		deliver_inbound(w, item);
		break;
	case ITEM_ANSWER:
		session_answer(to->s, &answer, w->now_us);
		break;
	case ITEM_STATUS:
		session_answer_failed(to->s, item->request, item->why, NULL, w->now_us);
		break;
	case ITEM_SIGNAL:
		if (to->online)
			session_signal(to->s, item->id, item->data, item->n_bytes, w->now_us);
		break;
	case ITEM_RELAY:
		w->n_relayed++;
		if (to->online)
			session_relay(to->s, item->id, item->data, item->n_bytes, w->now_us);
		break;
	case ITEM_CHANNEL:
		give_channel(w, item);
		break;
	case ITEM_STREAM:
		stream_arrives(w, item->to, item->wire, item->data, item->n_bytes);
		break;
	case ITEM_UDP:
		if (endpoint_equal(&item->dst, &w->server)) {
			if (w->server_udp_works)
				server_udp(w, !item->to, item);
			break;
		}
		w->n_udp++;
		if (!endpoint_equal(&item->dst, &to->at))
			w->n_stray_bytes += item->n_bytes;
		if (w->udp_works && endpoint_equal(&item->dst, &to->at))
			session_input(to->s, 0, &item->from, item->data, item->n_bytes, 0,
				      w->now_us);
		break;
	}
}

static void deliver(struct world *w, struct item *item)
{
	uint8_t *again = NULL;

	if (w->loses && w->loses(w, item))
		return;
	/* Packets are opened in place. */
	if (w->repeats && (item->kind == ITEM_SIGNAL || item->kind == ITEM_RELAY)) {
		again = malloc(item->n_bytes);
		assert_non_null(again);
		memcpy(again, item->data, item->n_bytes);
	}
	deliver_once(w, item);
	if (!again)
		return;
	free(item->data);
	item->data = again;
	deliver_once(w, item);
}

/* ---- the pump ---------------------------------------------------------------------------- */

static void pump_events(struct world *w, int i)
{
	struct end *e = &w->end[i];
	struct session_event event;
	struct item *item;

	while (session_next_event(e->s, &event)) {
		switch (event.type) {
		case SESSION_EVENT_STATE:
			assert_int_equal(event.state.from, e->state);
			e->state = event.state.to;
			break;
		case SESSION_EVENT_ASK:
			e->n_asks++;
			memcpy(e->request, event.request, sizeof(e->request));
			item = item_new(w, e->online ? ITEM_INBOUND : ITEM_STATUS,
					e->online ? !i : i, e->online ? w->server_delay_us : 0,
					NULL, 0);
			item->why = SESSION_WHY_SERVER;
			memcpy(item->request, event.request, sizeof(item->request));
			break;
		case SESSION_EVENT_PATH:
			e->n_paths++;
			break;
		case SESSION_EVENT_CHANNEL:
			assert_ptr_equal(event.channel.route, &w->route);
			if (!w->gives_channels)
				break;
			item = item_new(w, ITEM_CHANNEL, i, 2 * w->server_delay_us, NULL, 0);
			memcpy(item->id, event.channel.id, sizeof(item->id));
			break;
		case SESSION_EVENT_WANT_STREAM:
			e->n_wants++;
			connect_streams(w, i);
			break;
		case SESSION_EVENT_STREAM_UNUSED:
			close_stream(w, i, event.stream);
			break;
		case SESSION_EVENT_PONG:
			e->n_pongs++;
			e->pong_relay = event.pong.relay;
			break;
		default:
			break;
		}
	}
}

static void send_udp(struct world *w, int i, const struct session_send *send)
{
	const size_t step = send->segment_bytes ? send->segment_bytes : send->n_bytes;

	for (size_t at = 0; at < send->n_bytes; at += step) {
		struct item *item = item_new(w, ITEM_UDP, !i, w->udp_delay_us, send->data + at,
					     min_size(step, send->n_bytes - at));

		item->from = w->end[i].at;
		item->dst = send->to;
	}
}

static void pump(struct world *w, int i)
{
	struct end *e = &w->end[i];
	struct session_signal_out signal;
	struct session_frame frame;
	struct session_send send;
	struct item *item;

	while (session_tun_next(e->s, &frame)) {
		e->n_frames++;
		e->frame_bytes = frame.packet_bytes;
		if (frame.packet_bytes <= sizeof(e->frame))
			memcpy(e->frame, frame.packet, frame.packet_bytes);
	}
	pump_events(w, i);
	while (session_next_signal(e->s, &signal)) {
		assert_ptr_equal(signal.route, &w->route);
		item = item_new(w, ITEM_SIGNAL, !i, w->server_delay_us + w->signal_late_us,
				signal.body, signal.n_bytes);
		memcpy(item->id, signal.id, sizeof(item->id));
	}
	while (session_output(e->s, &send, w->now_us)) {
		if (send.stream) {
			send_stream(w, i, &send);
		} else if (!send.relay) {
			send_udp(w, i, &send);
		} else if (e->online) {
			item = item_new(w, ITEM_RELAY, !i, w->server_delay_us, send.data,
					send.n_bytes);
			memcpy(item->id, send.id, sizeof(item->id));
		}
	}
	pump_events(w, i);
}

static uint64_t next_due(const struct world *w)
{
	uint64_t due_us = NEVER_US;
	const struct item *item;

	TAILQ_FOREACH (item, &w->items, entry)
		due_us = min_u64(due_us, item->due_us);
	for (int i = 0; i < 2; i++)
		if (!w->end[i].asleep)
			due_us = min_u64(due_us, session_deadline_us(w->end[i].s));
	return due_us;
}

/* Runs until then, or until `done` says so. True if it did. */
static bool run_until(struct world *w, uint64_t end_us, bool (*done)(struct world *w))
{
	unsigned idle = 0;

	for (;;) {
		const uint64_t before_us = w->now_us;
		struct item *item, *next;
		uint64_t due_us;

		for (int i = 0; i < 2; i++)
			if (!w->end[i].asleep)
				pump(w, i);
		if (done && done(w))
			return true;
		due_us = next_due(w);
		if (due_us > end_us) {
			w->now_us = end_us;
			return false;
		}
		w->now_us = max_u64(w->now_us, due_us);
		idle = w->now_us == before_us ? idle + 1 : 0;
		assert_true(idle < 10000); /* a deadline that does not move */
		for (item = TAILQ_FIRST(&w->items); item; item = next) {
			next = TAILQ_NEXT(item, entry);
			if (item->due_us <= w->now_us) {
				if (!w->end[item->to].asleep)
					deliver(w, item);
				item_free(w, item);
			}
		}
		for (int i = 0; i < 2; i++)
			if (!w->end[i].asleep &&
			    w->now_us >= session_deadline_us(w->end[i].s))
				session_tick(w->end[i].s, w->now_us);
	}
}

static bool run_for(struct world *w, uint64_t us, bool (*done)(struct world *w))
{
	return run_until(w, w->now_us + us, done);
}

static bool both_up(struct world *w)
{
	return w->end[0].state == SESSION_UP && w->end[1].state == SESSION_UP;
}

static bool is_direct(const struct end *e)
{
	struct session_status status;

	session_get_status(e->s, &status);
	return status.state == SESSION_UP && status.has_path && !status.relay;
}

static bool is_relayed_by_udp(const struct end *e)
{
	struct session_status status;

	session_get_status(e->s, &status);
	return status.state == SESSION_UP && status.has_path && status.relay && status.relay_udp;
}

static bool both_relayed_by_udp(struct world *w)
{
	return is_relayed_by_udp(&w->end[0]) && is_relayed_by_udp(&w->end[1]);
}

static bool both_direct(struct world *w)
{
	return is_direct(&w->end[0]) && is_direct(&w->end[1]);
}

/* ---- packets --------------------------------------------------------------------------------- */

static uint16_t ip_sum(const uint8_t *header)
{
	uint32_t sum = 0;

	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)header[i] << 8 | header[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t) ~(sum + (sum >> 16));
}

/* A frame with a UDP packet from own to peer, as the addresses say. */
static size_t make_frame(uint8_t *out, const struct tun_addresses *a, uint8_t mark)
{
	uint8_t *ip = out + TUN_VNET_BYTES;
	const size_t total = 20 + 8 + 4;

	memset(out, 0, TUN_VNET_BYTES + total);
	ip[0] = 0x45;
	ip[3] = (uint8_t)total;
	ip[8] = 64;
	ip[9] = 17;
	memcpy(ip + 12, a->own4, 4);
	memcpy(ip + 16, a->peer4, 4);
	ip[10] = (uint8_t)(ip_sum(ip) >> 8);
	ip[11] = (uint8_t)ip_sum(ip);
	ip[21] = 99; /* ports */
	ip[23] = 99;
	ip[25] = 12; /* length */
	ip[31] = mark;
	return TUN_VNET_BYTES + total;
}

static int send_packet(struct world *w, int i, const struct tun_addresses *a, uint8_t mark)
{
	uint8_t *room;
	const int r = session_tun_room(w->end[i].s, &room);

	if (!r)
		session_tun_commit(w->end[i].s, make_frame(room, a, mark), w->now_us);
	return r;
}

#endif
