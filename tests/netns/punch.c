/*
 * Punches with real sockets: two of these, behind NATs that the kernel does,
 * joined by a Unix socket in place of the signalling servers, and one that
 * answers STUN. What is tested is src/nat and src/net against Linux.
 *
 *   punch stun PORT PORT
 *   punch peer ROLE(0|1) SIGNAL-SOCKET LOCAL-ADDRESS STUN-ADDRESS STUN-PORT STUN-PORT
 *
 * A peer prints one line, "direct ROUND MS REMOTE LOCAL-PORT" or "none REASON",
 * and its exit code says the same.
 */
#include "nat/nat.h"
#include "net/net.h"
#include "stun/stun.h"

#include <stdio.h>
#include <sys/random.h>

#define SIGNAL_US  (60 * US_PER_MS) /* what the way through two servers takes */
#define LIMIT_US   (12 * US_PER_S)
#define LINGER_US  (2 * US_PER_S) /* the other side must find its path too */
#define SOCKETS    16
#define PROBE_STUN 2
#define HELD_LINES 16

struct port {
	struct net_udp *udp;
	struct stun_client stun[PROBE_STUN];
	uint8_t id;
	bool gathered;
};

struct held {
	uint8_t data[NAT_LIST_BYTES_MAX];
	size_t data_bytes;
	uint64_t due_us;
};

static struct net_loop *loop;
static struct nat_agent *agent;
static struct net_timer timer, limit;
static struct net_line *line;
static struct endpoint own, servers[PROBE_STUN];
static struct port ports[SOCKETS];
static struct held held[HELD_LINES];
static size_t n_ports, n_held;
static uint64_t start_us;
static const char *why = "no round has ended"; /* the last one failed */
static bool listener, started, direct;

static int mac(const void *key, size_t key_bytes, const void *data, size_t n_bytes, uint8_t out[32])
{
	struct hash_seed seed;

	assert(key_bytes == NAT_KEY_BYTES);
	memcpy(&seed, key, sizeof(seed));
	for (size_t i = 0; i < 4; i++, seed.k0++) {
		const uint64_t part = hash_bytes(&seed, data, n_bytes);

		memcpy(out + 8 * i, &part, sizeof(part));
	}
	return 0;
}

static void pump(void);

/* ---- sockets -------------------------------------------------------------------------- */

static void take_stun(struct port *p, const struct net_udp_packet *packet, const uint8_t *data,
		      size_t n_bytes, uint64_t now_us)
{
	for (size_t i = 0; i < PROBE_STUN; i++) {
		struct nat_candidate c = { .kind = NAT_REFLEXIVE,
					   .socket = p->id,
					   .server = servers[i] };

		if (!endpoint_equal(&packet->from, &servers[i]) ||
		    stun_client_input(&p->stun[i], data, n_bytes, now_us) < 0 ||
		    p->stun[i].state != STUN_DONE)
			continue;
		c.endpoint = p->stun[i].mapped;
		nat_agent_add_local(agent, &c, now_us);
	}
}

static void on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		       size_t n_packets, uint64_t now_us)
{
	struct port *p = user;

	(void)udp;
	for (size_t i = 0; i < n_packets; i++)
		for (size_t at = 0; at < packets[i].data_bytes; at += packets[i].segment_bytes) {
			const uint8_t *data = packets[i].data + at;
			const size_t n_bytes =
				min_size(packets[i].segment_bytes, packets[i].data_bytes - at);

			if (stun_is_message(data, n_bytes))
				take_stun(p, &packets[i], data, n_bytes, now_us);
			else
				nat_agent_input(agent, p->id, &packets[i].from, data, n_bytes,
						now_us);
		}
	pump();
}

static void open_port(void)
{
	struct port *p = &ports[n_ports];
	const struct net_udp_config config = { .on_packets = on_packets, .user = p };
	struct nat_candidate host = { .kind = NAT_HOST, .socket = (uint8_t)n_ports };
	const uint64_t now_us = net_loop_now_us(loop);
	uint8_t transaction[STUN_TRANSACTION_BYTES];

	if (n_ports == SOCKETS || net_udp_new(loop, &config, &p->udp) < 0)
		return;
	p->id = (uint8_t)n_ports++;
	nat_agent_add_socket(agent, p->id, true, false, now_us);
	host.endpoint = own;
	host.endpoint.port = net_udp_local(p->udp).port;
	nat_agent_add_local(agent, &host, now_us);
	for (size_t i = 0; i < PROBE_STUN; i++) {
		if (getrandom(transaction, sizeof(transaction), 0) != sizeof(transaction))
			abort();
		stun_client_start(&p->stun[i], transaction, now_us);
	}
}

static void send_list(void)
{
	uint8_t list[NAT_LIST_BYTES_MAX];
	char text[HEX_TEXT_BYTES(NAT_LIST_BYTES_MAX)];
	const size_t n = nat_agent_encode(agent, list, sizeof(list), net_loop_now_us(loop));

	hex_encode(list, n, text);
	if (line)
		net_line_send(line, text, 2 * n);
}

static uint64_t pump_port(struct port *p, uint64_t now_us)
{
	uint64_t due_us = NEVER_US;
	bool gathered = true;

	for (size_t i = 0; i < PROBE_STUN; i++) {
		uint8_t out[STUN_MESSAGE_MAX_BYTES];
		struct net_udp_send send = { .to = servers[i], .data = out };

		stun_client_tick(&p->stun[i], now_us);
		send.data_bytes = stun_client_output(&p->stun[i], out, sizeof(out), now_us);
		if (send.data_bytes)
			net_udp_send(p->udp, &send);
		due_us = min_u64(due_us, stun_client_deadline_us(&p->stun[i]));
		gathered = gathered && p->stun[i].state != STUN_WAITING;
	}
	if (gathered && !p->gathered) {
		p->gathered = true;
		if (started)
			nat_agent_gathered(agent, now_us);
		else if (listener)
			send_list();
		started = true;
	}
	return due_us;
}

/* ---- the agent -------------------------------------------------------------------------- */

static void take_event(const struct nat_event *e, uint64_t now_us)
{
	char text[ENDPOINT_TEXT_BYTES];

	switch (e->kind) {
	case NAT_EVENT_SIGNAL:
		send_list();
		break;
	case NAT_EVENT_WANT_FRESH_SOCKET:
		open_port();
		break;
	case NAT_EVENT_SOCKET_UNUSED:
		net_udp_free(ports[e->socket].udp);
		ports[e->socket].udp = NULL;
		break;
	case NAT_EVENT_ROUND_FAILED:
		why = e->reason;
		break;
	case NAT_EVENT_PAIR_VALID:
		if (direct)
			break;
		direct = true;
		printf("direct %u %llu %s %u\n", nat_agent_status(agent).round,
		       (unsigned long long)((now_us - start_us) / 1000),
		       endpoint_format(&e->remote, text), net_udp_local(ports[e->socket].udp).port);
		fflush(stdout);
		net_timer_arm(&limit, now_us + LINGER_US);
		break;
	default:
		break;
	}
}

static void send_datagrams(uint64_t now_us)
{
	struct nat_send send;

	while (nat_agent_output(agent, &send, now_us)) {
		const struct net_udp_send out = { .to = send.to,
						  .ttl = send.ttl,
						  .data = send.data,
						  .data_bytes = send.data_bytes };

		if (ports[send.socket].udp)
			net_udp_send(ports[send.socket].udp, &out);
	}
}

static void pump(void)
{
	const uint64_t now_us = net_loop_now_us(loop);
	uint64_t due_us = NEVER_US;
	struct nat_event e;

	/* Lists wait for our own addresses: what is sent in answer should name them. */
	while (n_held && started && held[0].due_us <= now_us) {
		if (!start_us)
			start_us = now_us;
		nat_agent_input_list(agent, held[0].data, held[0].data_bytes, now_us);
		memmove(held, held + 1, --n_held * sizeof(held[0]));
	}
	nat_agent_tick(agent, now_us);
	do {
		send_datagrams(now_us);
		while (nat_agent_next_event(agent, &e))
			take_event(&e, now_us);
		for (size_t i = 0; i < n_ports; i++)
			if (ports[i].udp)
				due_us = min_u64(due_us, pump_port(&ports[i], now_us));
	} while (nat_agent_deadline_us(agent) <= now_us && (nat_agent_tick(agent, now_us), true));
	if (n_held)
		due_us = min_u64(due_us, held[0].due_us);
	net_timer_arm(&timer, min_u64(due_us, nat_agent_deadline_us(agent)));
}

static void on_timer(void *user, uint64_t now_us)
{
	(void)user;
	(void)now_us;
	pump();
}

static void on_limit(void *user, uint64_t now_us)
{
	(void)user;
	(void)now_us;
	if (!direct)
		printf("none %s\n", why);
	net_loop_stop(loop);
}

/* ---- signalling --------------------------------------------------------------------------- */

static void on_line(void *user, struct net_line *from, char *text, size_t text_bytes)
{
	struct held *h = &held[n_held];

	(void)user;
	(void)from;
	if (n_held == HELD_LINES || text_bytes / 2 > NAT_LIST_BYTES_MAX ||
	    hex_decode(text, h->data, text_bytes / 2) < 0)
		return;
	h->data_bytes = text_bytes / 2;
	h->due_us = net_loop_now_us(loop) + SIGNAL_US;
	n_held++;
	pump();
}

static void on_closed(void *user, struct net_line *from, int error)
{
	(void)user;
	(void)error;
	net_line_free(from);
	line = NULL;
}

static void open_line(int fd)
{
	const struct net_line_config config = { .fd = fd,
						.on_line = on_line,
						.on_closed = on_closed };

	if (line || net_line_new(loop, &config, &line) < 0)
		return;
	open_port();
	pump();
}

static void on_accepted(void *user, int fd, const struct net_peer *peer)
{
	(void)user;
	(void)peer;
	open_line(fd);
}

/* ---- programs -------------------------------------------------------------------------------- */

static void answer_stun(void *user, struct net_udp *udp, struct net_udp_packet *packets,
			size_t n_packets, uint64_t now_us)
{
	(void)user;
	(void)now_us;
	for (size_t i = 0; i < n_packets; i++) {
		uint8_t out[STUN_MESSAGE_MAX_BYTES];
		const struct net_udp_send send = {
			.to = packets[i].from,
			.data = out,
			.data_bytes = stun_server_answer(packets[i].data, packets[i].segment_bytes,
							 &packets[i].from, NULL, out,
							 sizeof(out)),
		};

		if (send.data_bytes)
			net_udp_send(udp, &send);
	}
}

static int run_stun(char **port_texts)
{
	for (size_t i = 0; i < PROBE_STUN; i++) {
		struct net_udp_config config = { .on_packets = answer_stun };
		struct net_udp *udp;
		uint64_t port;

		if (parse_u64(port_texts[i], UINT16_MAX, &port) < 0)
			return 2;
		config.bind.port = (uint16_t)port;
		if (net_udp_new(loop, &config, &udp) < 0)
			return 1;
	}
	return net_loop_run(loop) < 0;
}

static int run_peer(char **args)
{
	struct nat_config config = { .mac = mac, .key = "any key will do for the test" };
	struct net_listener *signals = NULL;
	int fd;

	listener = args[0][0] == '1';
	config.controlling = !listener;
	if (ip_parse(args[2], &own.ip) < 0 || nat_agent_new(&config, net_clock_us(), &agent) < 0)
		return 2;
	for (size_t i = 0; i < PROBE_STUN; i++) {
		uint64_t port;

		if (ip_parse(args[3], &servers[i].ip) < 0 ||
		    parse_u64(args[4 + i], UINT16_MAX, &port) < 0)
			return 2;
		servers[i].port = (uint16_t)port;
	}
	net_timer_init(&timer, loop, on_timer, NULL);
	net_timer_init(&limit, loop, on_limit, NULL);
	net_timer_arm(&limit, net_clock_us() + LIMIT_US);
	if (listener) {
		if (net_listen_unix(loop, args[1], 0600, on_accepted, NULL, &signals) < 0)
			return 1;
	} else {
		if (net_connect_unix(args[1], &fd) < 0)
			return 1;
		open_line(fd);
	}
	if (net_loop_run(loop) < 0)
		return 1;
	net_listener_free(signals);
	return !direct;
}

int main(int argc, char **argv)
{
	if (net_loop_new(&loop) < 0)
		return 1;
	if (argc == 4 && !strcmp(argv[1], "stun"))
		return run_stun(argv + 2);
	if (argc == 8 && !strcmp(argv[1], "peer"))
		return run_peer(argv + 2);
	fprintf(stderr, "usage: see the head of the source\n");
	return 2;
}
