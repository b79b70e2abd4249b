/*
 * Two agents, each behind a chain of NATs, in virtual time. The NATs behave as
 * Linux's do, measured: the state is one entry per flow, made when a packet is
 * forwarded; a packet from outside to a port that nobody opened for it makes an
 * entry too unless the firewall drops it, and that entry takes the port away
 * from a later flow to the same peer.
 */
#include "unit.h"
#include "nat_mac.h"
#include "nat/nat.h"

#include <stdio.h>

#define N_SEEDS      600
#define FLOWS_MAX    4096
#define PACKETS_MAX  1024
#define SIGNALS_MAX  32
#define CHAIN_MAX    2
#define CORE_LAN     0 /* the LAN id of the outside */
#define STUN_SERVERS 2
#define FLOW_IDLE_US (30 * US_PER_S)
#define DEFAULT_TTL  64

enum mapping { EIM, ADM, APDM };
enum filter { EIF, ADF, APDF };

struct nat_kind {
	const char *name;
	enum mapping mapping;
	enum filter filter;
	bool poisonable; /* the firewall does not drop new packets from outside */
	bool hairpin;
	unsigned step;        /* ports of new flows come in sequence; 0: at random */
	uint16_t first, last; /* of the ports at random; 0: Linux's */
};

static const struct nat_kind full_cone = { "full cone", EIM, EIF, false, false };
static const struct nat_kind restricted = { "address restricted", EIM, ADF, false, false };
static const struct nat_kind port_restricted = { "port restricted", EIM, APDF, false, false };
static const struct nat_kind poisonable = { "port restricted, open INPUT", EIM, APDF, true, false };
static const struct nat_kind symmetric = { "symmetric", APDM, APDF, false, false };
static const struct nat_kind hairpinning = { "full cone with hairpin", EIM, EIF, false, true };

static const struct nat_kind sequential = { "symmetric, in sequence", APDM, APDF, .step = 1 };
static const struct nat_kind sequential_wide = { "symmetric, every second port", APDM, APDF,
						 .step = 2 };
static const struct nat_kind carrier_block = { "symmetric, a block of ports", APDM, APDF,
					       .first = 20000, .last = 21023 };
static const struct nat_kind any_port = { "symmetric, any port", APDM, APDF, .first = 1024,
					  .last = 65535 };
static const struct nat_kind per_address = { "another port per address", ADM, APDF };

struct flow {
	struct endpoint inside; /* FAMILY_NONE: made from outside, leads nowhere */
	struct endpoint remote;
	uint16_t port; /* outside */
	uint64_t used_us;
};

struct box { /* a NAT */
	const struct nat_kind *kind;
	struct ip_address outside;
	struct flow flows[FLOWS_MAX];
	size_t n_flows;
	uint16_t next_port; /* of a sequence */
};

struct host {
	struct nat_agent *agent;
	struct ip_address ip;
	unsigned lan;                 /* hosts of one LAN reach each other directly */
	struct box *chain[CHAIN_MAX]; /* from the host outwards */
	size_t n_chain;
	uint16_t ports[256];                /* by socket id; 0: closed */
	uint16_t volley[NAT_GUESS_SOCKETS]; /* ports by index; 0: closed or taken over */
	unsigned n_volleys, n_volley_sent, n_adopted;
	bool volley_open;
	struct nat_allowance allowance;
	uint8_t next_socket;
	uint64_t fresh_us; /* when the fresh socket that was asked for is ready */
	struct nat_event valid, lost, failed;
	unsigned n_valid, n_lost, n_failed, n_fresh;
	uint64_t valid_us;
	struct ip_address victim; /* datagrams to this address are counted */
	unsigned n_victim;
};

struct packet {
	uint64_t arrive_us;
	struct endpoint from, to;
	uint8_t data[NAT_PROBE_BYTES];
	unsigned ttl;
	int host; /* when it is inside already: to this one, of that socket */
	uint8_t socket;
};

struct signal {
	uint64_t arrive_us;
	int to;
	uint8_t data[NAT_LIST_BYTES_MAX];
	size_t data_bytes;
};

struct world {
	uint64_t now_us, rng;
	struct host hosts[2];
	struct box boxes[2 * CHAIN_MAX];
	size_t n_boxes;
	struct packet packets[PACKETS_MAX];
	size_t n_packets;
	struct signal signals[SIGNALS_MAX];
	size_t n_signals;
	uint64_t path_us, signal_us; /* one way */
	unsigned loss_percent, core_hops;
	bool signals_lost;
};

static struct world w;
static bool no_guesses; /* as a program that does not allow any */

static uint64_t random_u64(void)
{
	uint64_t z = w.rng += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static struct ip_address ip(const char *text)
{
	struct ip_address address;

	assert_int_equal(ip_parse(text, &address), 0);
	return address;
}

/* ---- NATs ---------------------------------------------------------------------------- */

static bool flow_alive(const struct flow *f)
{
	return w.now_us - f->used_us < FLOW_IDLE_US;
}

static struct flow *flow_add(struct box *b, const struct endpoint *inside,
			     const struct endpoint *remote, uint16_t port)
{
	struct flow *f = NULL;

	for (size_t i = 0; i < b->n_flows && !f; i++)
		if (!flow_alive(&b->flows[i]))
			f = &b->flows[i];
	if (!f) {
		assert_true(b->n_flows < FLOWS_MAX);
		f = &b->flows[b->n_flows++];
	}
	*f = (struct flow){ .remote = *remote, .port = port, .used_us = w.now_us };
	if (inside)
		f->inside = *inside;
	return f;
}

/* Is outside:port -> remote taken by another flow, or by one that came from outside? */
static bool tuple_taken(const struct box *b, const struct endpoint *inside,
			const struct endpoint *remote, uint16_t port)
{
	for (size_t i = 0; i < b->n_flows; i++) {
		const struct flow *f = &b->flows[i];

		if (flow_alive(f) && f->port == port &&
		    (endpoint_equal(&f->remote, remote) ||
		     (f->inside.ip.family != FAMILY_NONE && !endpoint_equal(&f->inside, inside))))
			return true;
	}
	return false;
}

static uint16_t new_port(struct box *b)
{
	const unsigned first = b->kind->first ? b->kind->first : 32768;
	const unsigned last = b->kind->last ? b->kind->last : 60999;

	if (b->kind->step)
		return b->next_port = (uint16_t)(b->next_port + b->kind->step);
	return (uint16_t)(first + random_u64() % (last - first + 1));
}

static uint16_t choose_port(struct box *b, const struct endpoint *inside,
			    const struct endpoint *remote)
{
	uint16_t port = b->kind->mapping == ADM ? new_port(b) : inside->port;

	for (size_t i = 0; i < b->n_flows; i++) {
		const struct flow *f = &b->flows[i];

		if (flow_alive(f) && endpoint_equal(&f->inside, inside) &&
		    (b->kind->mapping == EIM ||
		     (b->kind->mapping == ADM && ip_equal(&f->remote.ip, &remote->ip))))
			port = f->port;
	}
	if (b->kind->mapping == APDM)
		port = new_port(b);
	while (tuple_taken(b, inside, remote, port))
		port = new_port(b);
	return port;
}

/* Rewrites the source of a packet that goes out. False: dropped. */
static bool box_out(struct box *b, struct endpoint *from, const struct endpoint *to, unsigned *ttl)
{
	struct flow *f = NULL;

	if (*ttl <= 1) /* forwarding would end it; no state is made */
		return false;
	--*ttl;
	for (size_t i = 0; i < b->n_flows && !f; i++)
		if (flow_alive(&b->flows[i]) && endpoint_equal(&b->flows[i].inside, from) &&
		    endpoint_equal(&b->flows[i].remote, to))
			f = &b->flows[i];
	if (!f)
		f = flow_add(b, from, to, choose_port(b, from, to));
	f->used_us = w.now_us;
	*from = (struct endpoint){ .ip = b->outside, .port = f->port };
	return true;
}

static bool passes(const struct box *b, const struct flow *f, const struct endpoint *from)
{
	switch (b->kind->filter) {
	case EIF:
		return true;
	case ADF:
		return ip_equal(&f->remote.ip, &from->ip);
	default:
		return endpoint_equal(&f->remote, from);
	}
}

static bool flow_from_outside(const struct box *b, const struct endpoint *from, uint16_t port)
{
	for (size_t i = 0; i < b->n_flows; i++)
		if (flow_alive(&b->flows[i]) && b->flows[i].port == port &&
		    endpoint_equal(&b->flows[i].remote, from))
			return true;
	return false;
}

/* Rewrites the destination of a packet that comes in. False: dropped. */
static bool box_in(struct box *b, const struct endpoint *from, struct endpoint *to, unsigned *ttl)
{
	for (size_t i = 0; i < b->n_flows; i++) {
		struct flow *f = &b->flows[i];

		if (!flow_alive(f) || f->port != to->port || f->inside.ip.family == FAMILY_NONE ||
		    !passes(b, f, from))
			continue;
		if (*ttl <= 1)
			return false;
		--*ttl;
		f->used_us = w.now_us;
		*to = f->inside;
		return true;
	}
	if (b->kind->poisonable && !flow_from_outside(b, from, to->port))
		flow_add(b, NULL, from, to->port);
	return false;
}

/* ---- the network ------------------------------------------------------------------------- */

static int host_of_outside(const struct ip_address *address, size_t *ret_level)
{
	for (int h = 0; h < 2; h++) {
		const size_t n = w.hosts[h].n_chain;

		for (size_t i = n; i-- > 0;)
			if (ip_equal(&w.hosts[h].chain[i]->outside, address)) {
				*ret_level = i + 1;
				return h;
			}
		if (n == 0 && ip_equal(&w.hosts[h].ip, address)) {
			*ret_level = 0;
			return h;
		}
	}
	return -1;
}

static int shot_of_port(const struct host *h, uint16_t port)
{
	for (int i = 0; i < NAT_GUESS_SOCKETS; i++)
		if (h->volley[i] == port && port)
			return i;
	return -1;
}

static int socket_of_port(const struct host *h, uint16_t port)
{
	for (int i = 0; i < 256; i++)
		if (h->ports[i] == port && port)
			return i;
	return -1;
}

/* Something met a socket of the volley: it becomes one like the others. -1: it was not the peer's.
 */
static int adopt(struct host *h, int shot, const struct packet *p)
{
	uint8_t id = 200;

	if (!nat_agent_volley_input(h->agent, p->data, NAT_PROBE_BYTES))
		return -1;
	while (h->ports[id])
		id++;
	h->ports[id] = h->volley[shot];
	h->volley[shot] = 0;
	h->n_adopted++;
	assert_int_equal(nat_agent_adopt_socket(h->agent, id, true, true, w.now_us), 0);
	return id;
}

/* Inwards through the boxes of h, from `level` on, to a socket. */
static void deliver_in(int h, size_t level, struct packet *p)
{
	int socket;

	while (level-- > 0)
		if (!box_in(w.hosts[h].chain[level], &p->from, &p->to, &p->ttl))
			return;
	if (!ip_equal(&p->to.ip, &w.hosts[h].ip))
		return;
	socket = socket_of_port(&w.hosts[h], p->to.port);
	if (socket < 0 && shot_of_port(&w.hosts[h], p->to.port) >= 0)
		socket = adopt(&w.hosts[h], shot_of_port(&w.hosts[h], p->to.port), p);
	if (socket >= 0)
		nat_agent_input(w.hosts[h].agent, (uint8_t)socket, &p->from, p->data,
				NAT_PROBE_BYTES, w.now_us);
}

static void arrive(struct packet p)
{
	size_t level;
	int h;

	if (p.host >= 0) { /* within one LAN */
		deliver_in(p.host, 0, &p);
		return;
	}
	h = host_of_outside(&p.to.ip, &level);
	if (h >= 0)
		deliver_in(h, level, &p);
}

static void enqueue(struct packet p, uint64_t delay_us)
{
	if (random_u64() % 100 < w.loss_percent)
		return;
	assert_true(w.n_packets < PACKETS_MAX);
	p.arrive_us = w.now_us + delay_us;
	w.packets[w.n_packets++] = p;
}

/* Does the packet meet, on its way out, a box whose outside it is for? */
static bool turns_back(struct host *h, size_t level, struct packet *p)
{
	struct box *b = h->chain[level];

	if (!ip_equal(&b->outside, &p->to.ip))
		return false;
	if (b->kind->hairpin && box_out(b, &p->from, &p->to, &p->ttl)) {
		const int other = h == &w.hosts[0] ? 1 : 0;

		/* Both hosts are behind this box: the other one's chain leads inwards. */
		for (size_t i = 0; i < w.hosts[other].n_chain; i++)
			if (w.hosts[other].chain[i] == b)
				deliver_in(other, i + 1, p);
	}
	return true;
}

/* Between this level and the next is one network, of a carrier, and the other one's box is there.
 */
static bool is_within(const struct host *h, const struct host *other, size_t level,
		      const struct ip_address *to)
{
	return level + 1 < h->n_chain && level + 1 < other->n_chain &&
	       h->chain[level + 1] == other->chain[level + 1] &&
	       ip_equal(&other->chain[level]->outside, to);
}

static void send_out(int from_host, const struct nat_send *s)
{
	struct host *h = &w.hosts[from_host], *other = &w.hosts[!from_host];
	struct packet p = { .to = s->to,
			    .from = { .ip = h->ip,
				      .port = s->volley ? h->volley[s->volley_index]
							: h->ports[s->socket] },
			    .ttl = s->ttl ? s->ttl : DEFAULT_TTL,
			    .host = -1 };

	if (s->volley && !p.from.port) /* a hit was made a socket of its own */
		return;
	assert_int_not_equal(p.from.port, 0);
	h->n_volley_sent += s->volley;
	memcpy(p.data, s->data, s->data_bytes);
	if (ip_equal(&s->to.ip, &h->victim))
		h->n_victim++;
	if (h->lan != CORE_LAN && h->lan == other->lan && ip_equal(&s->to.ip, &other->ip)) {
		p.host = !from_host;
		enqueue(p, 300);
		return;
	}
	for (size_t i = 0; i < h->n_chain; i++) {
		if (turns_back(h, i, &p))
			return;
		if (!box_out(h->chain[i], &p.from, &p.to, &p.ttl))
			return;
		if (is_within(h, other, i, &p.to.ip)) {
			deliver_in(!from_host, i + 1, &p);
			return;
		}
	}
	for (unsigned i = 0; i < w.core_hops; i++)
		if (--p.ttl == 0)
			return;
	enqueue(p, w.path_us + random_u64() % (w.path_us / 10 + 1));
}

/* ---- hosts ---------------------------------------------------------------------------------- */

static void add_socket(struct host *h, uint8_t id)
{
	static const char *const servers[STUN_SERVERS] = { "198.51.100.1", "198.51.100.2" };
	struct nat_candidate c = { .kind = NAT_HOST, .socket = id };

	do
		h->ports[id] = (uint16_t)(20000 + random_u64() % 10000);
	while (socket_of_port(h, h->ports[id]) != id);
	assert_int_equal(nat_agent_add_socket(h->agent, id, true, true, w.now_us), 0);
	c.endpoint = (struct endpoint){ .ip = h->ip, .port = h->ports[id] };
	nat_agent_add_local(h->agent, &c, w.now_us);
	for (size_t i = 0; i < STUN_SERVERS; i++) {
		struct endpoint server = { .ip = ip(servers[i]), .port = 3478 };
		struct endpoint seen = { .ip = h->ip, .port = h->ports[id] };
		unsigned ttl = DEFAULT_TTL;

		for (size_t k = 0; k < h->n_chain; k++)
			assert_true(box_out(h->chain[k], &seen, &server, &ttl));
		c = (struct nat_candidate){
			.kind = NAT_REFLEXIVE, .socket = id, .endpoint = seen, .server = server
		};
		nat_agent_add_local(h->agent, &c, w.now_us);
	}
}

static void send_signal(int from)
{
	struct signal *s;

	assert_true(w.n_signals < SIGNALS_MAX);
	s = &w.signals[w.n_signals];
	*s = (struct signal){ .arrive_us = w.now_us + w.signal_us, .to = !from };
	s->data_bytes = nat_agent_encode(w.hosts[from].agent, s->data, sizeof(s->data), w.now_us);
	assert_true(s->data_bytes > 0);
	if (!w.signals_lost)
		w.n_signals++;
}

static void pull_events(int index)
{
	struct host *h = &w.hosts[index];
	struct nat_event e;

	while (nat_agent_next_event(h->agent, &e)) {
		switch (e.kind) {
		case NAT_EVENT_SIGNAL:
			send_signal(index);
			break;
		case NAT_EVENT_PAIR_VALID:
			assert_int_not_equal(h->ports[e.socket], 0);
			if (!h->n_valid++) {
				h->valid_us = w.now_us;
				h->valid = e;
			}
			break;
		case NAT_EVENT_PAIR_LOST:
			h->n_lost++;
			h->lost = e;
			break;
		case NAT_EVENT_WANT_FRESH_SOCKET:
			h->n_fresh++;
			h->fresh_us = w.now_us + 2 * w.signal_us; /* STUN takes a round trip */
			break;
		case NAT_EVENT_SOCKET_UNUSED:
			assert_int_not_equal(e.socket, 0);
			h->ports[e.socket] = 0;
			break;
		case NAT_EVENT_WANT_VOLLEY:
			assert_false(h->volley_open);
			assert_true(e.n_sockets <= NAT_GUESS_SOCKETS);
			h->volley_open = true;
			h->n_volleys++;
			for (unsigned i = 0; i < e.n_sockets; i++) {
				h->volley[i] = 0;
				do
					h->volley[i] = (uint16_t)(30001 + random_u64() % 2000);
				while (shot_of_port(h, h->volley[i]) != (int)i);
			}
			nat_agent_volley_opened(h->agent, e.n_sockets, w.now_us);
			break;
		case NAT_EVENT_VOLLEY_DONE:
			assert_true(h->volley_open);
			h->volley_open = false;
			memset(h->volley, 0, sizeof(h->volley));
			break;
		case NAT_EVENT_ROUND_FAILED:
			h->n_failed++;
			h->failed = e;
			break;
		default:
			fail();
		}
	}
}

static void pump(int index)
{
	struct host *h = &w.hosts[index];
	struct nat_send send;

	if (h->fresh_us <= w.now_us) {
		h->fresh_us = NEVER_US;
		while (h->ports[h->next_socket])
			h->next_socket = (uint8_t)(h->next_socket % 200 + 1);
		add_socket(h, h->next_socket);
		nat_agent_gathered(h->agent, w.now_us);
	}
	nat_agent_tick(h->agent, w.now_us);
	pull_events(index);
	while (nat_agent_output(h->agent, &send, w.now_us))
		send_out(index, &send);
	pull_events(index);
}

/* Everything that is due now, then on to the next moment. */
static void step(uint64_t limit_us)
{
	uint64_t next_us = max_u64(limit_us, w.now_us + 1);

	for (size_t i = 0; i < w.n_signals;)
		if (w.signals[i].arrive_us <= w.now_us) {
			const struct signal s = w.signals[i];

			w.signals[i] = w.signals[--w.n_signals];
			assert_true(nat_agent_input_list(w.hosts[s.to].agent, s.data, s.data_bytes,
							 w.now_us) >= 0);
		} else {
			i++;
		}
	for (size_t i = 0; i < w.n_packets;)
		if (w.packets[i].arrive_us <= w.now_us) {
			const struct packet p = w.packets[i];

			w.packets[i] = w.packets[--w.n_packets];
			arrive(p);
		} else {
			i++;
		}
	for (int h = 0; h < 2; h++)
		pump(h);
	for (size_t i = 0; i < w.n_signals; i++)
		next_us = min_u64(next_us, w.signals[i].arrive_us);
	for (size_t i = 0; i < w.n_packets; i++)
		next_us = min_u64(next_us, w.packets[i].arrive_us);
	for (int h = 0; h < 2; h++) {
		next_us = min_u64(next_us, nat_agent_deadline_us(w.hosts[h].agent));
		next_us = min_u64(next_us, w.hosts[h].fresh_us);
	}
	/* A deadline in the past that does not go away would be a busy loop in a program. */
	w.now_us = max_u64(next_us, w.now_us + 1);
}

__attribute__((unused)) static void dump(void)
{
	for (int h = 0; h < 2; h++) {
		struct nat_pair_info p[99];
		struct nat_status st = nat_agent_status(w.hosts[h].agent);
		printf("%8.3f host %d round %u %s chk %d conn %d valid %u failed %u fresh %u\n",
		       (double)w.now_us / 1e6, h, st.round, st.reason, st.checking, st.connected,
		       w.hosts[h].n_valid, w.hosts[h].n_failed, w.hosts[h].n_fresh);
		size_t n = nat_agent_pairs(w.hosts[h].agent, p, 99);
		for (size_t i = 0; i < n; i++) {
			char t[ENDPOINT_TEXT_BYTES];
			printf("    %u port %u %s %s %s %s sent %u heard %d\n", p[i].socket,
			       w.hosts[h].ports[p[i].socket], endpoint_format(&p[i].remote, t),
			       nat_candidate_kind_name(p[i].remote_kind),
			       nat_pair_state_name(p[i].state), p[i].reason, p[i].n_sent,
			       p[i].heard);
		}
	}
}

static void run_until_us(uint64_t end_us)
{
	for (unsigned n = 0; w.now_us < end_us; n++) {
		assert_true(n < 2000000);
		step(end_us);
	}
}

static bool both_valid(void)
{
	return w.hosts[0].n_valid && w.hosts[1].n_valid;
}

/* True once both sides have a valid pair. */
static bool run_until_direct(uint64_t limit_us)
{
	while (w.now_us < limit_us && !both_valid())
		step(limit_us);
	return both_valid();
}

static struct box *new_box(const struct nat_kind *kind, const char *outside)
{
	struct box *b = &w.boxes[w.n_boxes++];

	b->kind = kind;
	b->outside = ip(outside);
	b->n_flows = 0;
	b->next_port = (uint16_t)(20000 + random_u64() % 20000);
	return b;
}

static void make_agent(int index)
{
	struct nat_config config = { .controlling = index == 0,
				     .mac = test_mac,
				     .allowance = no_guesses ? NULL : &w.hosts[index].allowance,
				     .seed = random_u64() };

	memset(config.key, 7, sizeof(config.key));
	assert_int_equal(nat_agent_new(&config, w.now_us, &w.hosts[index].agent), 0);
	nat_agent_set_signal_delay(w.hosts[index].agent, w.signal_us);
	w.hosts[index].fresh_us = NEVER_US;
	w.hosts[index].next_socket = 1;
}

static void new_world(uint64_t seed)
{
	w.now_us = 1000000;
	w.rng = seed;
	w.n_boxes = w.n_packets = w.n_signals = 0;
	w.signals_lost = false;
	w.path_us = 2000 + random_u64() % 80000;
	w.signal_us = w.path_us + random_u64() % 60000;
	w.loss_percent = 0;
	w.core_hops = 1 + (unsigned)(random_u64() % 6);
	memset(w.hosts, 0, sizeof(w.hosts));
	w.hosts[0].ip = ip("192.168.1.10");
	w.hosts[1].ip = ip("192.168.7.20");
	w.hosts[0].lan = 1;
	w.hosts[1].lan = 2;
}

static void behind(int index, const struct nat_kind *kind)
{
	struct host *h = &w.hosts[index];

	h->chain[h->n_chain++] = new_box(kind, index ? "203.0.113.2" : "203.0.113.1");
}

/* The listener (1) offers its candidates, the requester (0) gets them after the way. */
static void start_link(void)
{
	for (int h = 0; h < 2; h++) {
		make_agent(h);
		add_socket(&w.hosts[h], 0);
	}
	send_signal(1);
}

static void end_world(void)
{
	for (int h = 0; h < 2; h++)
		nat_agent_free(w.hosts[h].agent);
}

/* ---- the matrix -------------------------------------------------------------------------------
 */

static void expect_direct(const struct nat_kind *a, const struct nat_kind *b, unsigned loss_percent,
			  uint64_t limit_us)
{
	for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
		new_world(seed);
		w.loss_percent = loss_percent;
		if (a)
			behind(0, a);
		else
			w.hosts[0].ip = ip("198.18.0.1");
		if (b)
			behind(1, b);
		else
			w.hosts[1].ip = ip("198.18.0.2");
		start_link();
		if (!run_until_direct(w.now_us + limit_us))
			fail_msg("%s x %s, loss %u %%: no path, seed %llu: %s / %s",
				 a ? a->name : "public", b ? b->name : "public", loss_percent,
				 (unsigned long long)seed,
				 nat_agent_status(w.hosts[0].agent).reason,
				 nat_agent_status(w.hosts[1].agent).reason);
		end_world();
	}
}

static const struct nat_kind *const easy[] = { NULL, &full_cone, &restricted, &port_restricted,
					       &poisonable };

static void easy_nats_of_every_kind_open_in_the_first_round(void **state)
{
	(void)state;
	for (size_t a = 0; a < ARRAY_SIZE(easy); a++)
		for (size_t b = 0; b < ARRAY_SIZE(easy); b++)
			expect_direct(easy[a], easy[b], 0, 1500 * US_PER_MS);
}

static void easy_nats_open_in_spite_of_loss(void **state)
{
	(void)state;
	expect_direct(&port_restricted, &port_restricted, 20, 60 * US_PER_S);
	expect_direct(&poisonable, &poisonable, 20, 120 * US_PER_S);
}

static void a_symmetric_nat_reaches_whom_no_port_filters(void **state)
{
	(void)state;
	expect_direct(&symmetric, &full_cone, 0, 1500 * US_PER_MS);
	expect_direct(&restricted, &symmetric, 0, 1500 * US_PER_MS);
	expect_direct(&symmetric, NULL, 0, 1500 * US_PER_MS);
}

/* The same world with the openers' effect removed shows that the model poisons. */
static void without_openers_an_open_input_poisons(void **state)
{
	struct box *b;
	const struct endpoint inside = { .ip = ip("192.168.1.10"), .port = 25000 };
	const struct endpoint remote = { .ip = ip("203.0.113.9"), .port = 30000 };
	struct endpoint from = inside, to = { .ip = ip("203.0.113.1"), .port = 25000 };
	unsigned ttl = 10;

	(void)state;
	new_world(1);
	b = new_box(&poisonable, "203.0.113.1");
	assert_false(box_in(b, &remote, &to, &ttl));
	assert_true(box_out(b, &from, &remote, &ttl));
	assert_int_not_equal(from.port, 25000);
}

static void symmetric_nats_fail_with_a_reason_and_go_on_slowly(void **state)
{
	static const struct nat_kind *const others[] = { &port_restricted, &symmetric };

	(void)state;
	no_guesses = true;
	for (size_t k = 0; k < ARRAY_SIZE(others); k++)
		for (uint64_t seed = 1; seed <= 40; seed++) {
			uint64_t n_sent;

			new_world(seed);
			behind(0, &symmetric);
			behind(1, others[k]);
			start_link();
			run_until_us(w.now_us + 30 * US_PER_S);
			assert_false(w.hosts[0].n_valid || w.hosts[1].n_valid);
			assert_true(w.hosts[0].n_failed >= 2 && w.hosts[1].n_failed >= 2);
			assert_true(w.hosts[0].n_fresh >= 1 && w.hosts[1].n_fresh >= 1);
			assert_non_null(
				strstr(w.hosts[0].failed.reason, k ? "both NATs" : "our NAT"));
			assert_non_null(strstr(w.hosts[1].failed.reason,
					       k ? "both NATs" : "the peer's NAT"));
			assert_int_equal(nat_agent_status(w.hosts[0].agent).local_mapping,
					 NAT_MAPPING_DEPENDENT);
			/* An hour later: still at it, at no more than a probe per ten seconds. */
			n_sent = nat_agent_status(w.hosts[0].agent).n_sent;
			run_until_us(w.now_us + 3600 * US_PER_S);
			n_sent = nat_agent_status(w.hosts[0].agent).n_sent - n_sent;
			assert_true(n_sent > 20 && n_sent < 1500);
			end_world();
		}
	no_guesses = false;
}

/* ---- guessing ports ------------------------------------------------------------------------- */

#define GUESS_SEEDS 400

static int compare_times(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t guessed(int host)
{
	return nat_agent_status(w.hosts[host].agent).n_guessed;
}

/*
 * What doc/nat.md promises: at least `percent` of the links are direct, within the budget, in a
 * median of less than three seconds. Both are the hard side in turn.
 */
static void expect_guessed(const struct nat_kind *hard, const struct nat_kind *easy_kind,
			   unsigned limit_percent, uint64_t limit_us, unsigned budget)
{
	static uint64_t times[GUESS_SEEDS];
	unsigned n_direct = 0;

	for (uint64_t seed = 1; seed <= GUESS_SEEDS; seed++) {
		const int h = seed % 2;
		uint64_t start_us;

		new_world(seed);
		w.core_hops = 4 + w.core_hops;
		behind(h, hard);
		behind(!h, easy_kind);
		start_us = w.now_us;
		start_link();
		times[seed - 1] = NEVER_US;
		if (run_until_direct(w.now_us + limit_us)) {
			n_direct++;
			times[seed - 1] = w.now_us - start_us;
			/* Nothing is left behind, and nothing goes on. */
			run_until_us(w.now_us + 8 * US_PER_S);
			assert_false(w.hosts[0].volley_open || w.hosts[1].volley_open);
			assert_false(nat_agent_status(w.hosts[0].agent).guessing ||
				     nat_agent_status(w.hosts[1].agent).guessing);
			assert_true(w.hosts[0].n_lost + w.hosts[1].n_lost == 0);
		}
		assert_true(guessed(!h) <= budget);
		assert_int_equal(guessed(h), 0);
		assert_true(w.hosts[h].n_volley_sent <= NAT_GUESS_SOCKETS * w.hosts[h].n_volleys);
		end_world();
	}
	qsort(times, GUESS_SEEDS, sizeof(times[0]), compare_times);
	if (n_direct * 100 < limit_percent * GUESS_SEEDS || times[GUESS_SEEDS / 2] > 3 * US_PER_S)
		fail_msg("%s x %s: %u of %d direct, median %.3f s", hard->name, easy_kind->name,
			 n_direct, GUESS_SEEDS, (double)times[GUESS_SEEDS / 2] / 1e6);
	print_message("%s x %s: %u of %d direct, median %.3f s\n", hard->name, easy_kind->name,
		      n_direct, GUESS_SEEDS, (double)times[GUESS_SEEDS / 2] / 1e6);
}

static void a_random_symmetric_nat_is_guessed(void **state)
{
	(void)state;
	expect_guessed(&symmetric, &port_restricted, 99, 5 * US_PER_S, NAT_GUESS_PROBES);
	expect_guessed(&carrier_block, &port_restricted, 99, 5 * US_PER_S, NAT_GUESS_PROBES);
}

/* Half of the volley's datagrams must not reach such a NAT, and do not. */
static void a_random_symmetric_nat_is_guessed_from_behind_an_open_input(void **state)
{
	(void)state;
	expect_guessed(&symmetric, &poisonable, 98, 5 * US_PER_S, NAT_GUESS_PROBES);
}

static void any_port_is_guessed_in_two_rounds(void **state)
{
	(void)state;
	expect_guessed(&any_port, &port_restricted, 99, 20 * US_PER_S, 2 * NAT_GUESS_PROBES);
}

static void ports_in_sequence_are_predicted(void **state)
{
	(void)state;
	expect_guessed(&sequential, &port_restricted, 99, 5 * US_PER_S, 128);
	expect_guessed(&sequential_wide, &port_restricted, 99, 5 * US_PER_S, 128);
	expect_guessed(&sequential, &poisonable, 99, 5 * US_PER_S, 128);
}

/* Both sides predict. What else uses a NAT in between takes ports of its sequence: `strangers` of
 * them, at any time of the first second, at both ends. */
static void expect_meeting(const struct nat_kind *a, const struct nat_kind *b, unsigned strangers,
			   unsigned loss_percent, unsigned limit_percent)
{
	static uint64_t times[GUESS_SEEDS];
	unsigned n_direct = 0, most = 0;

	for (uint64_t seed = 1; seed <= GUESS_SEEDS; seed++) {
		uint64_t start_us;

		new_world(seed);
		w.core_hops = 4 + w.core_hops;
		behind(0, a);
		behind(1, b);
		w.loss_percent = loss_percent;
		start_us = w.now_us;
		start_link();
		for (unsigned i = 0; i < 2 * strangers; i++) {
			run_until_us(w.now_us + random_u64() % (US_PER_S / strangers));
			w.hosts[i % 2].chain[0]->next_port++;
		}
		times[seed - 1] = NEVER_US;
		if (run_until_direct(start_us + 5 * US_PER_S)) {
			n_direct++;
			times[seed - 1] =
				max_u64(w.hosts[0].valid_us, w.hosts[1].valid_us) - start_us;
			run_until_us(w.now_us + 8 * US_PER_S);
			assert_false(w.hosts[0].volley_open || w.hosts[1].volley_open);
			assert_false(nat_agent_status(w.hosts[0].agent).guessing ||
				     nat_agent_status(w.hosts[1].agent).guessing);
			assert_true(w.hosts[0].n_lost + w.hosts[1].n_lost == 0);
		}
		for (int h = 0; h < 2; h++) {
			most = most > w.hosts[h].allowance.n_used ? most
								  : w.hosts[h].allowance.n_used;
			assert_true(w.hosts[h].n_volley_sent <= w.hosts[h].allowance.n_used);
		}
		end_world();
	}
	qsort(times, GUESS_SEEDS, sizeof(times[0]), compare_times);
	print_message(
		"%s x %s, %u others, loss %u %%: %u of %d direct, median %.3f s, at most %u\n",
		a->name, b->name, strangers, loss_percent, n_direct, GUESS_SEEDS,
		(double)times[GUESS_SEEDS / 2] / 1e6, most);
	assert_true(n_direct * 100 >= limit_percent * GUESS_SEEDS);
	assert_true(most <= 3 * 3 * NAT_GUESS_SOCKETS_FEW); /* three rounds of three passes */
}

static void two_nats_with_ports_in_sequence_meet(void **state)
{
	(void)state;
	expect_meeting(&sequential, &sequential, 0, 0, 100);
	expect_meeting(&sequential, &sequential_wide, 0, 0, 100);
	expect_meeting(&sequential, &sequential, 10, 0, 99);
	expect_meeting(&sequential, &sequential, 0, 20, 95);
}

/* One of them is unpredictable: nobody sends anything to find out, and the link stays as it was. */
static void a_sequence_alone_does_not_meet_what_is_random(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		new_world(seed);
		behind(seed % 2, &sequential);
		behind(!(seed % 2), &symmetric);
		start_link();
		run_until_us(w.now_us + 60 * US_PER_S);
		assert_false(w.hosts[0].n_valid || w.hosts[1].n_valid);
		assert_true(w.hosts[0].n_failed >= 2 && w.hosts[1].n_failed >= 2);
		assert_int_equal(w.hosts[0].n_volley_sent + w.hosts[1].n_volley_sent, 0);
		end_world();
	}
}

/* However long it is in vain, the hour's allowance bounds it. */
static void meeting_in_vain_ends_at_the_allowance(void **state)
{
	(void)state;
	new_world(5);
	behind(0, &sequential);
	behind(1, &sequential);
	start_link();
	w.loss_percent = 100;
	for (int i = 0; i < 200; i++) {
		run_until_us(w.now_us + 10 * US_PER_S);
		nat_agent_restart(w.hosts[i % 2].agent, w.now_us);
	}
	assert_false(both_valid());
	for (int h = 0; h < 2; h++) {
		/* Each round predicts anew, from a fresh socket. */
		assert_true(w.hosts[h].n_volley_sent >
			    NAT_GUESS_ALLOWANCE - 3 * NAT_GUESS_SOCKETS_FEW);
		assert_true(w.hosts[h].n_volley_sent <= NAT_GUESS_ALLOWANCE);
		assert_string_equal(nat_agent_status(w.hosts[h].agent).guess_reason,
				    "enough ports were tried with this peer for this hour");
	}
	end_world();
}

static void a_port_per_address_is_guessed(void **state)
{
	(void)state;
	expect_guessed(&per_address, &port_restricted, 99, 5 * US_PER_S, NAT_GUESS_PROBES);
}

/* The carrier's NAT is the hard one; our own is in front of it, so the low TTL dies too early. */
static void a_symmetric_nat_behind_another_nat_is_guessed(void **state)
{
	unsigned n_direct = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= GUESS_SEEDS; seed++) {
		new_world(seed);
		w.core_hops = 2 + w.core_hops;
		w.hosts[0].chain[0] = new_box(&port_restricted, "100.64.3.3");
		w.hosts[0].chain[1] = new_box(&symmetric, "203.0.113.1");
		w.hosts[0].n_chain = 2;
		behind(1, &port_restricted);
		start_link();
		n_direct += run_until_direct(w.now_us + 20 * US_PER_S);
		end_world();
	}
	assert_true(n_direct * 100 >= 99 * GUESS_SEEDS);
}

/* Who never gets an answer stops at the allowance, for the rest of the hour, whatever happens. */
static void guessing_in_vain_ends_at_the_allowance(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++) {
		unsigned n_peer;

		new_world(seed);
		behind(0, &symmetric);
		behind(1, &port_restricted);
		start_link();
		run_until_us(w.now_us + w.signal_us + 10 * US_PER_MS);
		w.loss_percent = 100;
		w.hosts[0].victim = ip("203.0.113.2");
		w.hosts[1].victim = ip("203.0.113.1");
		/* Another network, again and again, starts rounds as fast as they go. */
		for (int i = 0; i < 300; i++) {
			run_until_us(w.now_us + 10 * US_PER_S);
			nat_agent_restart(w.hosts[i % 2].agent, w.now_us);
		}
		assert_false(both_valid());
		assert_int_equal(guessed(1), NAT_GUESS_ALLOWANCE);
		assert_int_equal(w.hosts[1].allowance.n_used, NAT_GUESS_ALLOWANCE);
		assert_int_equal(w.hosts[0].n_volley_sent, NAT_GUESS_ALLOWANCE);
		n_peer = w.hosts[1].n_victim;
		/* The rest of what went there is the budget of each round. */
		assert_true(n_peer <=
			    NAT_GUESS_ALLOWANCE +
				    NAT_BUDGET * (nat_agent_status(w.hosts[1].agent).round + 1));
		/* An hour later it may cost as much again. */
		run_until_us(w.now_us + 3600 * US_PER_S);
		assert_true(guessed(1) <= 2 * NAT_GUESS_ALLOWANCE);
		end_world();
	}
}

/* ---- more topologies ---------------------------------------------------------------------------
 */

static void double_nat_opens(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
		new_world(seed);
		w.core_hops = 2 + w.core_hops; /* the deep opener must not reach the other side */
		w.hosts[0].chain[0] = new_box(&port_restricted, "100.64.3.3");
		w.hosts[0].chain[1] =
			new_box(seed % 2 ? &port_restricted : &poisonable, "203.0.113.1");
		w.hosts[0].n_chain = 2;
		behind(1, seed % 3 ? &port_restricted : &poisonable);
		start_link();
		if (!run_until_direct(w.now_us + 1500 * US_PER_MS))
			fail_msg("double NAT: no path, seed %llu", (unsigned long long)seed);
		end_world();
	}
}

static void two_hosts_of_one_lan_meet_inside(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
		struct box *b;

		new_world(seed);
		b = new_box(seed % 2 ? &port_restricted : &symmetric, "203.0.113.1");
		for (int h = 0; h < 2; h++) {
			w.hosts[h].lan = 1;
			w.hosts[h].chain[0] = b;
			w.hosts[h].n_chain = 1;
		}
		w.hosts[1].ip = ip("192.168.1.11");
		start_link();
		if (!run_until_direct(w.now_us + 800 * US_PER_MS))
			fail_msg("one LAN: no path, seed %llu", (unsigned long long)seed);
		assert_true(w.hosts[0].valid.same_lan && w.hosts[1].valid.same_lan);
		end_world();
	}
}

/* Different LANs behind one carrier's NAT: only a NAT that hairpins joins them. */
static void neighbours_behind_one_carrier_meet_if_it_hairpins(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		const bool hairpin = seed % 2;
		struct box *carrier;

		new_world(seed);
		carrier = new_box(hairpin ? &hairpinning : &port_restricted, "203.0.113.1");
		for (int h = 0; h < 2; h++) {
			w.hosts[h].chain[0] =
				new_box(&port_restricted, h ? "100.64.0.2" : "100.64.0.1");
			w.hosts[h].chain[1] = carrier;
			w.hosts[h].n_chain = 2;
		}
		start_link();
		assert_int_equal(run_until_direct(w.now_us + 20 * US_PER_S), hairpin);
		end_world();
	}
}

/* Without that a port of one's own router does, for it leads in from the carrier's network. */
static void neighbours_meet_by_a_port_of_a_router(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct nat_candidate c = { .kind = NAT_MAPPED };
		const int mapped = seed % 2;
		struct box *carrier;

		new_world(seed);
		carrier = new_box(seed % 3 ? &port_restricted : &symmetric, "203.0.113.1");
		for (int h = 0; h < 2; h++) {
			w.hosts[h].chain[0] = new_box(h == mapped ? &full_cone : &symmetric,
						      h ? "100.64.0.2" : "100.64.0.1");
			w.hosts[h].chain[1] = carrier;
			w.hosts[h].n_chain = 2;
			make_agent(h);
			add_socket(&w.hosts[h], 0);
		}
		c.endpoint.ip = w.hosts[mapped].chain[0]->outside;
		c.endpoint.port = w.hosts[mapped].ports[0]; /* which such a router keeps */
		assert_int_equal(nat_agent_add_local(w.hosts[mapped].agent, &c, w.now_us), 0);
		send_signal(1);
		if (!run_until_direct(w.now_us + 2 * US_PER_S))
			fail_msg("neighbours: no path, seed %llu", (unsigned long long)seed);
		end_world();
	}
}

/* A port of a carrier's network means nothing to those who are not behind that carrier. */
static void a_port_of_another_network_is_not_probed(void **state)
{
	struct nat_candidate c = { .kind = NAT_MAPPED };

	(void)state;
	new_world(3);
	behind(0, &port_restricted);
	behind(1, &symmetric);
	for (int h = 0; h < 2; h++) {
		make_agent(h);
		add_socket(&w.hosts[h], 0);
	}
	assert_int_equal(endpoint_parse("100.64.0.9:20000", true, &c.endpoint), 0);
	assert_int_equal(nat_agent_add_local(w.hosts[1].agent, &c, w.now_us), 0);
	w.hosts[0].victim = c.endpoint.ip;
	send_signal(1);
	run_until_us(w.now_us + 10 * US_PER_S);
	assert_int_equal(w.hosts[0].n_victim, 0);
	end_world();
}

/* ---- changes
 * -------------------------------------------------------------------------------------- */

static void a_link_that_died_is_opened_again(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
		struct endpoint remote;

		new_world(seed);
		behind(0, &port_restricted);
		behind(1, &poisonable);
		start_link();
		assert_true(run_until_direct(w.now_us + 2 * US_PER_S));
		run_until_us(w.now_us + 10 * US_PER_S);
		assert_int_equal(w.hosts[0].n_failed, 0);
		/* Both NATs forget everything; the transports notice, one later than the other. */
		w.boxes[0].n_flows = w.boxes[1].n_flows = 0;
		for (int h = 0; h < 2; h++)
			w.hosts[h].n_valid = 0;
		for (int h = 0; h < 2; h++) {
			remote = w.hosts[h].valid.remote;
			nat_agent_path_lost(w.hosts[h].agent, w.hosts[h].valid.socket, &remote,
					    w.now_us);
			run_until_us(w.now_us + 50 * US_PER_MS);
		}
		if (!run_until_direct(w.now_us + 30 * US_PER_S)) {
			dump();
			fail_msg("reopening: no path, seed %llu", (unsigned long long)seed);
		}
		end_world();
	}
}

static void moving_to_another_network_finds_a_new_path(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
		struct host *h = &w.hosts[seed % 2];

		new_world(seed);
		behind(0, &port_restricted);
		behind(1, &port_restricted);
		start_link();
		assert_true(run_until_direct(w.now_us + 2 * US_PER_S));
		run_until_us(w.now_us + 20 * US_PER_S);
		/* Another Wi-Fi: another address inside and outside, the socket stays. */
		h->ip = ip("172.16.5.5");
		h->chain[0] = new_box(&port_restricted, "203.0.113.77");
		w.hosts[0].n_valid = w.hosts[1].n_valid = 0;
		nat_agent_clear_local(h->agent);
		nat_agent_remove_socket(h->agent, 0, w.now_us);
		pull_events((int)(seed % 2));
		assert_int_equal(h->n_lost, 1);
		add_socket(h, 0);
		nat_agent_restart(h->agent, w.now_us);
		if (!run_until_direct(w.now_us + 3 * US_PER_S)) {
			dump();
			fail_msg("moving: no path, seed %llu", (unsigned long long)seed);
		}
		end_world();
	}
}

static void a_valid_path_is_given_up_after_a_change_if_it_no_longer_answers(void **state)
{
	(void)state;
	new_world(5);
	behind(0, &port_restricted);
	behind(1, &port_restricted);
	start_link();
	assert_true(run_until_direct(w.now_us + 2 * US_PER_S));
	run_until_us(w.now_us + 20 * US_PER_S);
	nat_agent_restart(w.hosts[0].agent, w.now_us);
	run_until_us(w.now_us + 10 * US_PER_S);
	assert_int_equal(w.hosts[0].n_lost, 0); /* it still answers */

	w.loss_percent = 100;
	w.signals_lost = true;
	nat_agent_restart(w.hosts[0].agent, w.now_us);
	run_until_us(w.now_us + 10 * US_PER_S);
	assert_int_equal(w.hosts[0].n_lost, 1);
	assert_int_equal(nat_agent_status(w.hosts[0].agent).n_valid, 0);
	end_world();
}

static void signals_that_get_lost_do_not_end_it(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		new_world(seed);
		behind(0, &port_restricted);
		behind(1, &port_restricted);
		start_link();
		run_until_us(w.now_us + w.signal_us - 1);
		w.signals_lost = true; /* the requester's list never arrives */
		run_until_us(w.now_us + 20 * US_PER_S);
		assert_false(both_valid());
		w.signals_lost = false;
		if (!run_until_direct(w.now_us + 60 * US_PER_S))
			fail_msg("after lost signals: no path, seed %llu",
				 (unsigned long long)seed);
		end_world();
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_openers_an_open_input_poisons),
		cmocka_unit_test(easy_nats_of_every_kind_open_in_the_first_round),
		cmocka_unit_test(easy_nats_open_in_spite_of_loss),
		cmocka_unit_test(a_symmetric_nat_reaches_whom_no_port_filters),
		cmocka_unit_test(symmetric_nats_fail_with_a_reason_and_go_on_slowly),
		cmocka_unit_test(a_random_symmetric_nat_is_guessed),
		cmocka_unit_test(a_random_symmetric_nat_is_guessed_from_behind_an_open_input),
		cmocka_unit_test(any_port_is_guessed_in_two_rounds),
		cmocka_unit_test(ports_in_sequence_are_predicted),
		cmocka_unit_test(two_nats_with_ports_in_sequence_meet),
		cmocka_unit_test(a_sequence_alone_does_not_meet_what_is_random),
		cmocka_unit_test(meeting_in_vain_ends_at_the_allowance),
		cmocka_unit_test(a_port_per_address_is_guessed),
		cmocka_unit_test(a_symmetric_nat_behind_another_nat_is_guessed),
		cmocka_unit_test(guessing_in_vain_ends_at_the_allowance),
		cmocka_unit_test(double_nat_opens),
		cmocka_unit_test(two_hosts_of_one_lan_meet_inside),
		cmocka_unit_test(neighbours_behind_one_carrier_meet_if_it_hairpins),
		cmocka_unit_test(neighbours_meet_by_a_port_of_a_router),
		cmocka_unit_test(a_port_of_another_network_is_not_probed),
		cmocka_unit_test(a_link_that_died_is_opened_again),
		cmocka_unit_test(moving_to_another_network_finds_a_new_path),
		cmocka_unit_test(a_valid_path_is_given_up_after_a_change_if_it_no_longer_answers),
		cmocka_unit_test(signals_that_get_lost_do_not_end_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
