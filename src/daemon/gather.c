/*
 * Our addresses: those of the interfaces, and those that STUN servers see. The
 * servers asked are the identity servers we are connected to, and configured
 * ones. Sessions are told what is found, as it is found.
 */
#include "daemon/internal.h"

#include <fnmatch.h>
#include <stdio.h>

#define SILENT_TRIES      3 /* of a question: more than half a second without an answer */
#define STUN_DEFAULT_PORT 3478
#define OTHER_PORT_MIN    1024
#define PATIENT_TRIES     3 /* after so many questions without an answer, nobody waits for it */

/* Addresses of nobody: where this machine would send what it has no better way for. */
static const char *const far_away[] = { "192.0.2.1:9", "[2001:db8::1]:9" };

static void arm(struct daemon *d);

/* ---- telling ---- */

/* The main sockets of all workers are one port: what is known of one holds for all. */
static bool same_port(const struct udp_socket *a, const struct udp_socket *b)
{
	return a == b || (a->number == 0 && b->number == 0);
}

/* Whether a link may use this socket. */
static bool link_uses(const struct link *link, const struct udp_socket *s)
{
	return s->udp && (!s->owner || s->owner == link);
}

static void tell_host(struct link *link, const struct udp_socket *s,
		      const struct net_local_address *list, int n, uint64_t now_us)
{
	for (int i = 0; i < n; i++) {
		struct nat_candidate c = { .kind = NAT_HOST, .socket = s->number };

		if (link->daemon->gather.avoided[i] || list[i].loopback ||
		    ip_is_link_local(&list[i].ip) ||
		    (list[i].ip.family == FAMILY_IPV4 ? !s->ipv4 : !s->ipv6))
			continue;
		c.endpoint.ip = list[i].ip;
		c.endpoint.port = s->local.port;
		session_add_local(link_session(link), &c, now_us);
	}
}

static void tell_reflexive(struct link *link, const struct gather_try *t, uint64_t now_us)
{
	struct nat_candidate c = { .kind = NAT_REFLEXIVE, .socket = t->socket->number };

	if (!t->done || t->client.state != STUN_DONE)
		return;
	c.endpoint = t->client.mapped;
	c.server = t->server;
	session_add_local(link_session(link), &c, now_us);
}

static bool is_excluded(const struct daemon *d, const struct net_local_address *a)
{
	for (size_t i = 0; i < d->options->n_exclude; i++)
		if (!fnmatch(d->options->exclude[i], a->name, 0))
			return true;
	return false;
}

/*
 * Another VPN's addresses are a way that works only together with that VPN, inside of which we
 * would be; those of containers' bridges are the same on every machine. But a machine that has
 * nothing else, such as a container behind a tap, is reached by those.
 */
static void find_avoided(struct daemon *d)
{
	struct gather *g = &d->gather;
	bool avoid_virtual = false;

	for (int i = 0; i < g->n_hosts; i++) {
		const struct net_local_address *a = &g->hosts[i];

		g->avoided[i] = is_excluded(d, a);
		if (!g->avoided[i] && !a->virtual && !a->loopback && !ip_is_link_local(&a->ip))
			avoid_virtual = !d->options->use_virtual;
	}
	for (int i = 0; i < g->n_hosts; i++)
		g->avoided[i] = g->avoided[i] || (avoid_virtual && g->hosts[i].virtual);
	g->n_avoided = 0;
	for (int i = 0; i < g->n_hosts; i++)
		g->n_avoided += g->avoided[i];
	memset(g->ways, 0, sizeof(g->ways));
}

/* Ours are left out: there may be hundreds, and none is a way to anywhere. */
static int host_addresses(struct daemon *d, const struct net_local_address **ret_list)
{
	struct gather *g = &d->gather;

	/* The kernel lists all interfaces, and each peer has one. */
	if (!g->hosts_known) {
		g->n_hosts = net_local_addresses("q2q-", g->hosts, ARRAY_SIZE(g->hosts));
		g->hosts_known = g->n_hosts >= 0;
		if (g->n_hosts < 0)
			log_warn("cannot list this machine's addresses: %s", strerror(-g->n_hosts));
		find_avoided(d);
	}
	*ret_list = g->hosts;
	return g->n_hosts;
}

/* Asks the kernel. */
static bool leads_astray(struct daemon *d, const struct net_local_address *list, int n,
			 const struct ip_address *ip)
{
	const struct endpoint remote = { .ip = *ip, .port = 9 };
	const struct ip_address from = udp_local_for(d, udp_port(d), &remote).ip;
	struct endpoint far;

	for (int i = 0; i < n; i++) {
		if (!d->gather.avoided[i] || !ip_equal(&list[i].ip, &from))
			continue;
		/* Where everything goes that way, the user wants it so. */
		if (endpoint_parse(far_away[from.family == FAMILY_IPV6], false, &far))
			return true;
		far.ip = udp_local_for(d, udp_port(d), &far).ip;
		return !ip_equal(&far.ip, &from);
	}
	return false;
}

bool gather_avoids(struct daemon *d, const struct ip_address *ip)
{
	const struct net_local_address *list;
	const int n = host_addresses(d, &list);
	struct gather_way *way;

	if (d->gather.n_avoided == 0)
		return false;
	way = &d->gather.ways[hash_bytes(&d->seed, ip, sizeof(*ip)) % GATHER_WAYS];
	if (!ip_equal(&way->to, ip))
		*way = (struct gather_way){ .to = *ip, .astray = leads_astray(d, list, n, ip) };
	return way->astray;
}

bool gather_has_ipv4(struct daemon *d)
{
	const struct net_local_address *list;
	const int n = host_addresses(d, &list);

	for (int i = 0; i < n; i++)
		if (list[i].ip.family == FAMILY_IPV4 && !list[i].loopback &&
		    !ip_is_link_local(&list[i].ip) && !d->gather.avoided[i])
			return true;
	return false;
}

static void tell_socket(struct daemon *d, struct link *link, struct udp_socket *s)
{
	const uint64_t now_us = link_now_us(link);
	const struct net_local_address *list;
	const int n = host_addresses(d, &list);

	session_add_socket(link_session(link), s->number, s->ipv4, s->ipv6, now_us);
	tell_host(link, s, list, n, now_us);
	for (size_t i = 0; i < GATHER_TRIES_MAX; i++)
		if (d->gather.tries[i].used && same_port(d->gather.tries[i].socket, s))
			tell_reflexive(link, &d->gather.tries[i], now_us);
}

void gather_tell(struct daemon *d, struct link *link)
{
	link_enter(link);
	for (unsigned i = 0; i < UDP_SOCKETS_MAX; i++)
		if (link_uses(link, &link->worker->udp.sockets[i]))
			tell_socket(d, link, &link->worker->udp.sockets[i]);
	portmap_tell(d, link);
}

uint64_t gather_signature(struct daemon *d)
{
	const struct net_local_address *list;
	uint64_t sum = 0;
	int n;

	d->gather.hosts_known = false;
	n = host_addresses(d, &list);
	for (int i = 0; i < n; i++)
		if (!list[i].temporary && !d->gather.avoided[i])
			sum += hash_bytes(&d->seed, &list[i].ip, sizeof(list[i].ip)) *
			       (list[i].interface | 1);
	for (size_t i = 0; i < ARRAY_SIZE(far_away); i++) {
		struct endpoint remote, local;

		if (endpoint_parse(far_away[i], false, &remote))
			continue;
		local = udp_route(&remote);
		sum = sum * 31 + hash_bytes(&d->seed, &local.ip, sizeof(local.ip));
	}
	return sum;
}

bool gather_is_silent(const struct daemon *d)
{
	bool asked = false;

	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		const struct gather_try *t = &d->gather.tries[i];

		if (!t->used || t->socket != &d->workers[0].udp.sockets[0])
			continue;
		if ((t->done && t->client.state == STUN_DONE) || t->client.n_sent < SILENT_TRIES)
			return false;
		asked = true;
	}
	return asked;
}

/* ---- STUN ---- */

/* Whether what there is to know of a socket is known; a silent server is not waited for. */
static bool all_done(const struct daemon *d, const struct udp_socket *socket)
{
	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		const struct gather_try *t = &d->gather.tries[i];

		if (t->used && t->socket == socket && !t->done && t->client.n_sent < PATIENT_TRIES)
			return false;
	}
	return true;
}

/* Where a packet of ours cannot have come from, as far as this server could see. An answer that
 * says so would make an easy NAT look hard. */
static bool is_credible(const struct gather_try *t)
{
	struct endpoint mapped = t->client.mapped;
	const struct ip_address *server = &t->server.ip;

	mapped.port = OTHER_PORT_MIN; /* any port may be */
	if (nat_endpoint_check(&mapped, ip_is_loopback(server), NULL) != 0)
		return false;
	return mapped.ip.family == server->family &&
	       (!ip_is_private(&mapped.ip) || ip_is_private(server));
}

static void judge_answer(struct gather_try *t)
{
	char mapped[ENDPOINT_TEXT_BYTES], server[ENDPOINT_TEXT_BYTES];

	if (t->client.state != STUN_DONE || is_credible(t))
		return;
	t->client.state = STUN_FAILED;
	if (t->socket->number == 0)
		log_info("STUN: %s says that we are %s, which cannot be: it is not believed",
			 endpoint_format(&t->server, server),
			 endpoint_format(&t->client.mapped, mapped));
}

static void start_try(struct daemon *d, struct udp_socket *s, const struct endpoint *server);

static void ask_other(struct daemon *d, struct udp_socket *s, const struct gather_server *server)
{
	struct endpoint other = server->endpoint;

	other.port = server->other_port;
	if (other.port && other.port != server->endpoint.port)
		start_try(d, s, &other);
}

/* The server answers on another port too: what is seen there shows what our NAT does. Only its
 * port is believed, so that nobody is asked whom we did not choose. */
static void learn_other(struct daemon *d, const struct gather_try *t)
{
	for (size_t i = 0; i < d->gather.n_servers; i++) {
		struct gather_server *server = &d->gather.servers[i];

		if (!endpoint_equal(&server->endpoint, &t->server) || server->other_port ||
		    t->client.other.port < OTHER_PORT_MIN)
			continue;
		server->other_port = t->client.other.port;
		ask_other(d, t->socket, server);
	}
}

/* One question is answered, or given up. */
static void try_done(struct daemon *d, struct gather_try *t)
{
	const struct udp_socket *s = t->socket;
	char mapped[ENDPOINT_TEXT_BYTES], server[ENDPOINT_TEXT_BYTES];
	struct link *link;

	t->done = true;
	judge_answer(t);
	if (t->client.state == STUN_DONE)
		log_debug("STUN: socket %u is %s to %s", s->number,
			  endpoint_format(&t->client.mapped, mapped),
			  endpoint_format(&t->server, server));
	else
		log_debug("STUN: no answer from %s to socket %u",
			  endpoint_format(&t->server, server), s->number);
	if (t->client.state == STUN_DONE)
		learn_other(d, t);
	LIST_FOREACH (link, &d->links, entry) {
		if (!link_uses(link, s))
			continue;
		tell_reflexive(link, t, link_now_us(link));
		/* A fresh socket is asked for by a nat agent that waits for it. */
		if (s->owner == link && all_done(d, s))
			session_gathered(link_session(link), link_now_us(link));
		links_pump(link);
	}
}

/* A nat agent that asked for this fresh socket need not wait for more. */
static void gathered(struct daemon *d, struct udp_socket *s)
{
	if (!s->owner || !all_done(d, s))
		return;
	session_gathered(s->owner->session, link_now_us(s->owner));
	links_pump(s->owner);
}

static void send_try(struct daemon *d, struct gather_try *t, uint64_t now_us)
{
	uint8_t request[STUN_MESSAGE_MAX_BYTES];
	struct net_udp_send send = { .to = t->server, .data = request };
	const unsigned n_before = t->client.n_sent;

	workers_enter(t->socket->worker);
	stun_client_tick(&t->client, now_us);
	while ((send.data_bytes =
			stun_client_output(&t->client, request, sizeof(request), now_us)) > 0)
		net_udp_send(t->socket->udp, &send);
	if (t->client.state == STUN_DONE || t->client.state == STUN_FAILED)
		try_done(d, t);
	else if (t->client.n_sent == PATIENT_TRIES && n_before < PATIENT_TRIES)
		gathered(d, t->socket);
}

static void on_timer(void *user, uint64_t now_us)
{
	struct daemon *d = user;

	for (size_t i = 0; i < GATHER_TRIES_MAX; i++)
		if (d->gather.tries[i].used && !d->gather.tries[i].done)
			send_try(d, &d->gather.tries[i], now_us);
	arm(d);
}

static void arm(struct daemon *d)
{
	uint64_t due_us = NEVER_US;

	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		const struct gather_try *t = &d->gather.tries[i];

		if (t->used && !t->done)
			due_us = min_u64(due_us, stun_client_deadline_us(&t->client));
	}
	net_timer_arm(&d->gather.timer, due_us);
}

static void start_try(struct daemon *d, struct udp_socket *s, const struct endpoint *server)
{
	const uint64_t now_us = net_loop_now_us(d->loop);
	uint8_t transaction[STUN_TRANSACTION_BYTES];

	if (server->ip.family == FAMILY_IPV4 ? !s->ipv4 : !s->ipv6)
		return;
	/* Silence would look like a firewall's. */
	if (udp_local_for(d, 0, server).ip.family == FAMILY_NONE)
		return;
	if (crypto_random(transaction, sizeof(transaction)))
		return;
	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		struct gather_try *t = &d->gather.tries[i];

		if (t->used)
			continue;
		*t = (struct gather_try){ .used = true, .socket = s, .server = *server };
		stun_client_start(&t->client, transaction, now_us);
		send_try(d, t, now_us);
		return;
	}
}

static bool has_answered(const struct daemon *d, const struct endpoint *server)
{
	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		const struct gather_try *t = &d->gather.tries[i];

		if (t->used && t->socket == &d->workers[0].udp.sockets[0] && t->done &&
		    t->client.state == STUN_DONE && (!server || endpoint_equal(&t->server, server)))
			return true;
	}
	return false;
}

/* A round waits for the answers to a fresh socket: those that the main one waited for in vain are
 * not asked again, where others did answer. */
static bool is_worth_asking(const struct daemon *d, const struct udp_socket *s,
			    const struct endpoint *server)
{
	return !s->owner || has_answered(d, server) || !has_answered(d, NULL);
}

void gather_socket(struct daemon *d, struct udp_socket *s)
{
	if (s->owner)
		tell_socket(d, s->owner, s);
	for (size_t i = 0; i < d->gather.n_servers; i++) {
		if (!is_worth_asking(d, s, &d->gather.servers[i].endpoint))
			continue;
		start_try(d, s, &d->gather.servers[i].endpoint);
		ask_other(d, s, &d->gather.servers[i]);
	}
	if (s->owner && all_done(d, s))
		session_gathered(link_session(s->owner), link_now_us(s->owner));
	arm(d);
}

void gather_forget_socket(struct udp_socket *socket)
{
	struct daemon *d = socket->worker->daemon;

	for (size_t i = 0; i < GATHER_TRIES_MAX; i++)
		if (d->gather.tries[i].socket == socket)
			d->gather.tries[i].used = false;
	arm(d);
}

bool gather_input(struct daemon *d, const struct udp_socket *socket, const struct endpoint *from,
		  const uint8_t *data, size_t n_bytes)
{
	const uint64_t now_us = net_loop_now_us(d->loop);

	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		struct gather_try *t = &d->gather.tries[i];

		if (!t->used || t->done || t->socket != socket ||
		    !endpoint_equal(&t->server, from) ||
		    stun_client_input(&t->client, data, n_bytes, now_us))
			continue;
		if (t->client.state == STUN_DONE || t->client.state == STUN_FAILED)
			try_done(d, t);
		arm(d);
		return true;
	}
	return false;
}

/* ---- servers ---- */

void gather_add_server(struct daemon *d, const struct endpoint *address)
{
	/* An address that DNS64 made up is an IPv4 address. */
	const struct endpoint server = net_nat64_inward(d->loop, address);

	for (size_t i = 0; i < d->gather.n_servers; i++)
		if (endpoint_equal(&d->gather.servers[i].endpoint, &server))
			return;
	if (d->gather.n_servers == GATHER_SERVERS_MAX)
		return;
	d->gather.servers[d->gather.n_servers++] = (struct gather_server){ .endpoint = server };
	start_try(d, &d->workers[0].udp.sockets[0], &server);
	arm(d);
}

bool gather_server(const struct daemon *d, enum address_family family, struct endpoint *ret_server)
{
	const struct gather_try *found = NULL;

	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		const struct gather_try *t = &d->gather.tries[i];

		if (!t->used || t->socket->number != 0 || t->client.state != STUN_DONE ||
		    t->server.ip.family != family)
			continue;
		/* Those of the project tell of a second port, and know more than STUN's minimum. */
		if (!found || (found->client.other.ip.family == FAMILY_NONE &&
			       t->client.other.ip.family != FAMILY_NONE))
			found = t;
	}
	if (found)
		*ret_server = found->server;
	return found != NULL;
}

static void on_stun_resolved(void *user, const struct net_resolved *result)
{
	struct daemon *d = user;

	if (result->error)
		log_warn("STUN server: %s", result->reason);
	/* The first of each family. */
	for (size_t i = 0; i < result->n_endpoints; i++) {
		const struct endpoint *e = &result->endpoints[i];

		if (i == 0 || e->ip.family != result->endpoints[i - 1].ip.family)
			gather_add_server(d, e);
		if (e->ip.family != result->endpoints[0].ip.family)
			break;
	}
}

static void resolve_configured(struct daemon *d)
{
	for (size_t i = 0; i < d->options->n_stun; i++) {
		char host[256];
		struct net_query *query;
		uint16_t port;

		if (net_split_host_port(d->options->stun[i], STUN_DEFAULT_PORT, host, &port) ||
		    net_resolve_host(d->resolver, host, port, on_stun_resolved, d, &query))
			log_warn("STUN server %s: not a host and port", d->options->stun[i]);
	}
}

/* ---- life ---- */

int gather_start(struct daemon *d)
{
	net_timer_init(&d->gather.timer, d->loop, on_timer, d);
	resolve_configured(d);
	return 0;
}

void gather_stop(struct daemon *d)
{
	net_timer_disarm(&d->gather.timer);
}

/* What was learnt before NAT64 was, or elsewhere. */
static void renew_servers(struct daemon *d)
{
	struct gather_server before[GATHER_SERVERS_MAX];
	const size_t n = d->gather.n_servers;

	memcpy(before, d->gather.servers, sizeof(before));
	d->gather.n_servers = 0;
	for (size_t i = 0; i < n; i++) {
		struct gather_server *s = &before[i];
		bool known = false;

		s->endpoint = net_nat64_inward(d->loop, &s->endpoint);
		for (size_t k = 0; k < d->gather.n_servers; k++)
			known |= endpoint_equal(&d->gather.servers[k].endpoint, &s->endpoint);
		if (!known)
			d->gather.servers[d->gather.n_servers++] = *s;
	}
}

/* Those that one link has for itself too: what STUN saw of them was of another network. */
static void for_each_socket(struct daemon *d, void (*fn)(struct udp_socket *s))
{
	for (unsigned w = 0; w < d->n_workers; w++)
		for (unsigned i = 0; i < UDP_SOCKETS_MAX; i++)
			if (d->workers[w].udp.sockets[i].udp && (i > 0 || w == 0))
				fn(&d->workers[w].udp.sockets[i]);
}

static void ask_of_socket(struct udp_socket *s)
{
	gather_socket(s->worker->daemon, s);
}

void gather_again(struct daemon *d)
{
	struct link *link;

	renew_servers(d);
	for_each_socket(d, gather_forget_socket);
	LIST_FOREACH (link, &d->links, entry) {
		session_clear_local(link_session(link));
		gather_tell(d, link);
	}
	for_each_socket(d, ask_of_socket);
}

void gather_restart(struct daemon *d)
{
	struct link *link;

	gather_again(d);
	LIST_FOREACH (link, &d->links, entry) {
		session_network_changed(link_session(link), link_now_us(link));
		session_gathered(link_session(link), link_now_us(link));
		links_pump(link);
	}
}

void gather_reload(struct daemon *d, bool stun, bool interfaces)
{
	if (stun) {
		d->gather.n_servers = 0;
		hub_tell_servers(d);
		resolve_configured(d);
	}
	if (interfaces) {
		d->network_signature = gather_signature(d); /* as if the network had changed */
		gather_restart(d);
	} else if (stun) {
		gather_again(d);
	}
}
