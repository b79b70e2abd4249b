/*
 * resolver - c-ares on the loop.
 *
 * Each question has a channel of its own: cancelling it is destroying the
 * channel, and a laptop that moved to another network asks the name servers of
 * that network without anybody telling us. Search domains are off: the name of
 * a domain decides whom we trust, so it means exactly what it says.
 */
#include "net/internal.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/random.h>

#define SRV_TARGETS_MAX  8
#define HOST_RESULTS_MAX 16
#define TRY_TIMEOUT_MS   700
#define TRIES            3
#define SRV_GRACE_US     (1 * US_PER_S) /* for SRV, once the plain addresses are known */
#define DEFAULT_PORT     8788
#define NAME_BYTES_MAX   253

enum progress { PART_UNUSED, PART_RUNNING, PART_DONE };

/* The addresses of one name. */
struct lookup {
	struct net_query *query;
	enum progress progress;
	int status; /* c-ares' */
	uint16_t port;
	size_t n_endpoints;
	struct endpoint endpoints[HOST_RESULTS_MAX];
};

struct target {
	uint16_t priority, weight, port;
	char host[256];
	struct lookup lookup;
};

/* One of c-ares' sockets. */
struct socket_watch {
	struct socket_watch *next;
	struct net_query *query;
	struct net_watch watch;
	struct net_trash trash;
};

struct net_query {
	LIST_ENTRY(net_query) entry;
	struct net_resolver *resolver;
	struct net_loop *loop;
	net_resolved_fn *fn;
	void *user;
	char name[256];
	ares_channel channel;
	bool has_channel;
	bool dying; /* what c-ares reports now is of no interest */
	bool settled;
	bool overdue, grace_over;
	int family; /* AF_UNSPEC: both */
	struct socket_watch *watches;
	struct net_timer tick, deadline, grace;
	struct net_soon done;
	struct net_trash trash;
	enum progress srv;
	int srv_status;
	struct target targets[SRV_TARGETS_MAX];
	size_t n_targets;
	struct lookup host;
	struct net_resolved result;
};

LIST_HEAD(query_list, net_query);

struct net_resolver {
	struct net_loop *loop;
	struct query_list queries;
	char *servers; /* instead of the system's; NULL: the system's */
};

static void settle_if_known(struct net_query *q);

/* ---- c-ares on our loop ------------------------------------------------------------------- */

static void rearm_tick(struct net_query *q)
{
	struct timeval tv, *t = q->has_channel ? ares_timeout(q->channel, NULL, &tv) : NULL;

	if (!t) {
		net_timer_disarm(&q->tick);
		return;
	}
	net_timer_arm(&q->tick,
		      net_clock_us() + (uint64_t)t->tv_sec * US_PER_S + (uint64_t)t->tv_usec + 1);
}

static void on_tick(void *user, uint64_t now_us)
{
	struct net_query *q = user;

	(void)now_us;
	ares_process_fd(q->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	rearm_tick(q);
	settle_if_known(q);
}

static void on_socket(void *user, unsigned ready)
{
	struct socket_watch *w = user;
	struct net_query *q = w->query;

	ares_process_fd(q->channel, (ready & NET_READ) ? w->watch.fd : ARES_SOCKET_BAD,
			(ready & NET_WRITE) ? w->watch.fd : ARES_SOCKET_BAD);
	rearm_tick(q);
	settle_if_known(q);
}

static void free_memory(void *memory)
{
	free(memory);
}

static void forget_socket(struct net_query *q, int fd)
{
	for (struct socket_watch **at = &q->watches; *at; at = &(*at)->next) {
		struct socket_watch *w = *at;

		if (w->watch.fd != fd)
			continue;
		*at = w->next;
		net_watch_fini(&w->watch);
		net_loop_trash(q->loop, &w->trash, free_memory, w);
		return;
	}
}

static void on_socket_state(void *user, ares_socket_t fd, int readable, int writable)
{
	struct net_query *q = user;
	struct socket_watch *w = q->watches;

	if (!readable && !writable) {
		forget_socket(q, fd);
		return;
	}
	while (w && w->watch.fd != fd)
		w = w->next;
	if (!w) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return; /* the question times out */
		w->query = q;
		net_watch_init(&w->watch, q->loop, fd, on_socket, w);
		w->next = q->watches;
		q->watches = w;
	}
	net_watch_want(&w->watch, (readable ? NET_READ : 0u) | (writable ? NET_WRITE : 0u));
}

static int open_channel(struct net_query *q)
{
	struct ares_options options = {
		.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
		.timeout = TRY_TIMEOUT_MS,
		.tries = TRIES,
		.lookups = (char *)(uintptr_t) "fb",
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = q,
	};
	const int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
			 ARES_OPT_SOCK_STATE_CB;
	const int status = ares_init_options(&q->channel, &options, mask);

	if (status == ARES_ENOMEM)
		return -ENOMEM;
	if (status != ARES_SUCCESS)
		return -EIO;
	q->has_channel = true;
	if (q->resolver->servers &&
	    ares_set_servers_ports_csv(q->channel, q->resolver->servers) != ARES_SUCCESS)
		return -EINVAL;
	return 0;
}

/* ---- addresses of one name ------------------------------------------------------------------ */

/* RFC 8305, section 4: after the first address the families take turns. */
static void interleave(struct lookup *l)
{
	struct endpoint sorted[HOST_RESULTS_MAX];
	bool used[HOST_RESULTS_MAX] = { false };
	uint8_t family = FAMILY_NONE;

	for (size_t n = 0; n < l->n_endpoints; n++) {
		size_t pick = l->n_endpoints;

		for (size_t i = l->n_endpoints; i-- > 0;)
			if (!used[i] &&
			    (pick == l->n_endpoints || l->endpoints[i].ip.family != family ||
			     l->endpoints[pick].ip.family == family))
				pick = i;
		used[pick] = true;
		sorted[n] = l->endpoints[pick];
		family = sorted[n].ip.family;
	}
	memcpy(l->endpoints, sorted, l->n_endpoints * sizeof(sorted[0]));
}

static void on_addresses(void *user, int status, int n_timeouts, struct ares_addrinfo *info)
{
	struct lookup *l = user;

	(void)n_timeouts;
	l->status = status;
	l->progress = PART_DONE;
	if (!info)
		return;
	for (const struct ares_addrinfo_node *n = info->nodes; n; n = n->ai_next) {
		struct endpoint e;

		if (l->n_endpoints == HOST_RESULTS_MAX)
			break;
		if (endpoint_from_sockaddr(n->ai_addr, &e) < 0)
			continue;
		e.port = l->port;
		l->endpoints[l->n_endpoints++] = e;
	}
	ares_freeaddrinfo(info);
	interleave(l);
}

static void lookup_start(struct net_query *q, struct lookup *l, const char *host, uint16_t port)
{
	const struct ares_addrinfo_hints hints = { .ai_family = q->family,
						   .ai_socktype = SOCK_STREAM };

	*l = (struct lookup){ .query = q, .progress = PART_RUNNING, .port = port };
	ares_getaddrinfo(q->channel, host, NULL, &hints, on_addresses, l);
}

/* ---- SRV ------------------------------------------------------------------------------------- */

static uint32_t random_below(uint32_t limit)
{
	uint32_t value = 0;

	if (getrandom(&value, sizeof(value), 0) != sizeof(value))
		value = (uint32_t)net_clock_us();
	return value % limit;
}

/* RFC 2782: lowest priority first; among equals a draw by weight, those of weight 0 in front. */
static void order_targets(struct target *targets, size_t n_targets)
{
	for (size_t at = 0; at + 1 < n_targets; at++) {
		uint16_t priority = UINT16_MAX;
		uint32_t sum = 0, draw;
		size_t pick = n_targets;

		for (size_t i = at; i < n_targets; i++)
			if (targets[i].priority < priority)
				priority = targets[i].priority;
		for (size_t i = at; i < n_targets; i++)
			if (targets[i].priority == priority)
				sum += targets[i].weight;
		draw = random_below(sum + 1);
		for (size_t i = at; i < n_targets; i++) {
			if (targets[i].priority != priority)
				continue;
			pick = i;
			if (targets[i].weight >= draw)
				break;
			draw -= targets[i].weight;
		}
		const struct target swap = targets[at];

		targets[at] = targets[pick];
		targets[pick] = swap;
	}
}

static void on_srv(void *user, int status, int n_timeouts, unsigned char *answer, int answer_bytes)
{
	struct net_query *q = user;
	struct ares_srv_reply *list = NULL;

	(void)n_timeouts;
	q->srv = PART_DONE;
	q->srv_status = status;
	if (status != ARES_SUCCESS || q->dying)
		return;
	q->srv_status = ares_parse_srv_reply(answer, answer_bytes, &list);
	for (const struct ares_srv_reply *s = list; s && q->n_targets < SRV_TARGETS_MAX;
	     s = s->next) {
		struct target *t = &q->targets[q->n_targets];

		/* A target of "." says that the domain has no such service. */
		if (!s->host || !s->host[0] || !s->port || strlen(s->host) >= sizeof(t->host))
			continue;
		*t = (struct target){ .priority = s->priority,
				      .weight = s->weight,
				      .port = s->port };
		memcpy(t->host, s->host, strlen(s->host) + 1);
		q->n_targets++;
	}
	if (list)
		ares_free_data(list);
	order_targets(q->targets, q->n_targets);
	for (size_t i = 0; i < q->n_targets; i++)
		lookup_start(q, &q->targets[i].lookup, q->targets[i].host, q->targets[i].port);
}

/* ---- the outcome
 * --------------------------------------------------------------------------------- */

static void add_endpoints(struct net_resolved *result, const struct lookup *l)
{
	for (size_t i = 0; i < l->n_endpoints && result->n_endpoints < NET_ENDPOINTS_MAX; i++)
		result->endpoints[result->n_endpoints++] = l->endpoints[i];
}

static bool srv_running(const struct net_query *q)
{
	if (q->srv == PART_RUNNING)
		return true;
	for (size_t i = 0; i < q->n_targets; i++)
		if (q->targets[i].lookup.progress == PART_RUNNING)
			return true;
	return false;
}

static int fault_of_status(int status)
{
	switch (status) {
	case ARES_ENOTFOUND:
	case ARES_ENODATA:
	case ARES_ENONAME:
		return -ENOENT;
	case ARES_ETIMEOUT:
		return -ETIMEDOUT;
	case ARES_EBADNAME:
		return -EINVAL;
	case ARES_ENOMEM:
		return -ENOMEM;
	default:
		return -ENETUNREACH;
	}
}

static void fill_error(struct net_query *q)
{
	const int status = q->host.progress == PART_DONE ? q->host.status : ARES_ETIMEOUT;
	struct net_resolved *result = &q->result;

	result->error = fault_of_status(status);
	if (q->n_targets)
		snprintf(result->reason, sizeof(result->reason),
			 "%.80s: SRV names %zu server(s), none of them has an address", q->name,
			 q->n_targets);
	else
		snprintf(result->reason, sizeof(result->reason), "%.80s: %.60s", q->name,
			 ares_strerror(status));
}

static void settle(struct net_query *q)
{
	if (q->settled)
		return;
	for (size_t i = 0; i < q->n_targets; i++)
		add_endpoints(&q->result, &q->targets[i].lookup);
	q->result.from_srv = q->result.n_endpoints > 0;
	if (!q->result.from_srv)
		add_endpoints(&q->result, &q->host);
	if (!q->result.n_endpoints)
		fill_error(q);
	q->settled = true;
	net_soon_queue(&q->done);
}

static void settle_if_known(struct net_query *q)
{
	const bool host_done = q->host.progress != PART_RUNNING;

	if (q->settled)
		return;
	if (q->overdue || (!srv_running(q) && (host_done || q->n_targets))) {
		bool any = q->overdue || host_done;

		for (size_t i = 0; i < q->n_targets; i++)
			any = any || q->targets[i].lookup.n_endpoints;
		if (any)
			settle(q);
		return;
	}
	if (!host_done || !q->host.n_endpoints)
		return;
	if (q->grace_over)
		settle(q);
	else if (q->grace.due_us == NEVER_US)
		net_timer_arm(&q->grace, net_clock_us() + SRV_GRACE_US);
}

static void on_grace(void *user, uint64_t now_us)
{
	struct net_query *q = user;

	(void)now_us;
	q->grace_over = true;
	settle_if_known(q);
}

static void on_deadline(void *user, uint64_t now_us)
{
	struct net_query *q = user;

	(void)now_us;
	q->overdue = true;
	settle_if_known(q);
}

static void query_free(struct net_query *q)
{
	q->dying = true;
	LIST_REMOVE(q, entry);
	if (q->has_channel)
		ares_destroy(q->channel);
	q->has_channel = false;
	while (q->watches)
		forget_socket(q, q->watches->watch.fd);
	net_timer_disarm(&q->tick);
	net_timer_disarm(&q->deadline);
	net_timer_disarm(&q->grace);
	net_soon_cancel(&q->done);
	net_loop_trash(q->loop, &q->trash, free_memory, q);
}

static void report(void *user)
{
	struct net_query *q = user;

	query_free(q); /* the memory lives until the end of this wake-up */
	q->fn(q->user, &q->result);
}

void net_query_cancel(struct net_query *query)
{
	if (query)
		query_free(query);
}

/* ---- asking
 * ----------------------------------------------------------------------------------------- */

static bool is_plausible_name(const char *name)
{
	const size_t n_bytes = strlen(name);

	if (n_bytes == 0 || n_bytes > NAME_BYTES_MAX || name[0] == '.' || name[0] == '-')
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
	       n_bytes;
}

static int query_new(struct net_resolver *resolver, const char *name, net_resolved_fn *fn,
		     void *user, struct net_query **ret_query)
{
	struct net_query *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	q->resolver = resolver;
	q->loop = resolver->loop;
	q->fn = fn;
	q->user = user;
	snprintf(q->name, sizeof(q->name), "%s", name);
	net_timer_init(&q->tick, q->loop, on_tick, q);
	net_timer_init(&q->deadline, q->loop, on_deadline, q);
	net_timer_init(&q->grace, q->loop, on_grace, q);
	net_soon_init(&q->done, q->loop, report, q);
	LIST_INSERT_HEAD(&resolver->queries, q, entry);
	*ret_query = q;
	return 0;
}

static int resolve(struct net_resolver *resolver, const char *name, uint16_t port, int family,
		   bool with_srv, net_resolved_fn *fn, void *user, struct net_query **ret_query)
{
	struct endpoint literal = { .port = port };
	const bool is_literal = ip_parse(name, &literal.ip) == 0;
	struct net_query *q;
	char srv_name[300];
	int r;

	if (!is_literal && !is_plausible_name(name))
		return -EINVAL;
	r = query_new(resolver, name, fn, user, &q);
	if (r < 0)
		return r;
	q->family = family;
	*ret_query = q;
	if (is_literal) {
		q->host = (struct lookup){ .progress = PART_DONE, .n_endpoints = 1 };
		q->host.endpoints[0] = literal;
		settle_if_known(q);
		return 0;
	}
	r = open_channel(q);
	if (r < 0) {
		query_free(q);
		return r;
	}
	net_timer_arm(&q->deadline, net_clock_us() + NET_RESOLVE_TIMEOUT_US);
	if (with_srv) {
		q->srv = PART_RUNNING;
		snprintf(srv_name, sizeof(srv_name), "_q2q._tcp.%s", name);
		ares_query(q->channel, srv_name, ns_c_in, ns_t_srv, on_srv, q);
	}
	lookup_start(q, &q->host, name, port);
	rearm_tick(q);
	settle_if_known(q);
	return 0;
}

int net_resolve_domain(struct net_resolver *resolver, const char *domain, net_resolved_fn *fn,
		       void *user, struct net_query **ret_query)
{
	return resolve(resolver, domain, DEFAULT_PORT, AF_UNSPEC, true, fn, user, ret_query);
}

int net_resolve_host(struct net_resolver *resolver, const char *host, uint16_t port,
		     net_resolved_fn *fn, void *user, struct net_query **ret_query)
{
	return resolve(resolver, host, port, AF_UNSPEC, false, fn, user, ret_query);
}

int net_resolve_nat64(struct net_resolver *resolver, net_resolved_fn *fn, void *user,
		      struct net_query **ret_query)
{
	/* It has no AAAA record of its own: who answers has made one up. */
	return resolve(resolver, "ipv4only.arpa", 0, AF_INET6, false, fn, user, ret_query);
}

int net_resolver_new(struct net_loop *loop, struct net_resolver **ret_resolver)
{
	struct net_resolver *resolver = calloc(1, sizeof(*resolver));

	if (!resolver)
		return -ENOMEM;
	if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
		free(resolver);
		return -ENOMEM;
	}
	resolver->loop = loop;
	LIST_INIT(&resolver->queries);
	*ret_resolver = resolver;
	return 0;
}

int net_resolver_use_servers(struct net_resolver *resolver, const char *servers)
{
	char *copy = strdup(servers);

	if (!copy)
		return -ENOMEM;
	free(resolver->servers);
	resolver->servers = copy;
	return 0;
}

void net_resolver_free(struct net_resolver *resolver)
{
	if (!resolver)
		return;
	while (!LIST_EMPTY(&resolver->queries))
		query_free(LIST_FIRST(&resolver->queries));
	ares_library_cleanup();
	free(resolver->servers);
	free(resolver);
}

/* ---- "host:port"
 * ---------------------------------------------------------------------------------------- */

int net_split_host_port(const char *text, uint16_t default_port, char ret_host[static 256],
			uint16_t *ret_port)
{
	const char *host = text, *end, *port_text = NULL;
	uint64_t port = default_port;

	if (text[0] == '[') {
		host = text + 1;
		end = strchr(host, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		port_text = end[1] ? end + 2 : NULL;
	} else {
		const char *colon = strchr(text, ':');

		/* More than one colon and no brackets: an IPv6 address without a port. */
		end = colon && !strchr(colon + 1, ':') ? colon : text + strlen(text);
		port_text = *end ? end + 1 : NULL;
	}
	if (end == host || end - host > 255)
		return -EINVAL;
	if (port_text && (parse_u64(port_text, UINT16_MAX, &port) < 0 || port == 0))
		return -EINVAL;
	memcpy(ret_host, host, (size_t)(end - host));
	ret_host[end - host] = 0;
	*ret_port = (uint16_t)port;
	return 0;
}
