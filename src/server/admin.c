#include "config.h"

#include "server/admin.h"

#include "server/state.h"

#include <stdio.h>
#include <unistd.h>

struct admin_connection {
	LIST_ENTRY(admin_connection) entry;
	struct server *server;
	struct net_line *line;
};

/* ---- status -------------------------------------------------------------------------------- */

struct online {
	json_t *list;
	unsigned n, n_listed;
};

static bool list_online(void *user, const char *address, const char *protocol, unsigned n_listeners)
{
	struct online *o = user;

	o->n++;
	if (o->n_listed < ADMIN_ONLINE_MAX &&
	    json_array_append_new(o->list,
				  json_pack("{s:s, s:s, s:i}", "address", address, "protocol",
					    protocol, "listeners", (int)n_listeners)) == 0)
		o->n_listed++;
	return true;
}

static json_t *listen_list(const struct server *s)
{
	json_t *list = json_array();
	char text[ENDPOINT_TEXT_BYTES];

	for (size_t i = 0; i < s->n_sockets; i++) {
		const struct endpoint e = net_listener_local(s->sockets[i].tcp);

		if (e.ip.family == FAMILY_NONE)
			snprintf(text, sizeof(text), "[::]:%u", e.port);
		else
			endpoint_format(&e, text);
		json_array_append_new(list, json_string(text));
	}
	return list;
}

#define COUNT(value) ((json_int_t)(value))

static json_t *counters(const struct server *s)
{
	const struct server_counters *n = &s->counters;
	struct relay_stats relay;

	relay_stats(s->relay, &relay);
	return json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
		"s:I, s:I, s:I, s:I, s:I}",
		"accepted", COUNT(n->accepted), "refused_full", COUNT(n->refused_full),
		"refused_address", COUNT(n->refused_address), "certificates_signed",
		COUNT(n->signed_certificates), "wrong_passwords", COUNT(n->wrong_passwords),
		"registered", COUNT(n->registered), "refused_registrations",
		COUNT(n->refused_registrations), "limited", COUNT(n->limited + relay.n_limited),
		"inbounds", COUNT(n->inquiries), "inbounds_timed_out",
		COUNT(n->inquiries_timed_out), "domains_fetched", COUNT(n->fetched),
		"domain_failures", COUNT(n->fetch_failures), "domain_key_changes",
		COUNT(n->key_changes), "stun_requests", COUNT(n->stun_requests),
		"relay_dropped_full", COUNT(relay.n_full), "relay_unknown", COUNT(relay.n_unknown),
		"rendezvous_evicted", COUNT(relay.n_evicted), "signals", COUNT(relay.n_signals),
		"relayed_udp_bytes", COUNT(relay.channel_bytes), "channel_bad",
		COUNT(relay.n_channel_bad), "channel_unbound", COUNT(relay.n_channel_unbound));
}

/* How many datagrams a system call moved, which is what batches and segments are for. */
static json_t *udp_counters(const struct server *s)
{
	struct net_udp_stats all = { .gso = s->n_sockets > 0, .gro = s->n_sockets > 0 };

	for (size_t i = 0; i < s->n_sockets; i++) {
		const struct net_udp_stats one = net_udp_stats(s->sockets[i].udp);

		all.rx_calls += one.rx_calls;
		all.rx_datagrams += one.rx_datagrams;
		all.tx_calls += one.tx_calls;
		all.tx_datagrams += one.tx_datagrams;
		all.tx_dropped += one.tx_dropped;
		all.gso &= one.gso;
		all.gro &= one.gro;
	}
	return json_pack("{s:b, s:b, s:I, s:I, s:I, s:I, s:I}", "gso", all.gso, "gro", all.gro,
			 "received_datagrams", COUNT(all.rx_datagrams), "receive_calls",
			 COUNT(all.rx_calls), "sent_datagrams", COUNT(all.tx_datagrams),
			 "send_calls", COUNT(all.tx_calls), "dropped_datagrams",
			 COUNT(all.tx_dropped));
}

static unsigned count_authorized(const struct server *s)
{
	const struct client *c;
	unsigned n = 0;

	TAILQ_FOREACH (c, &s->clients, entry) {
		n += c->authorized;
	}
	return n;
}

static json_t *status(struct server *s)
{
	struct online online = { .list = json_array() };
	struct relay_stats relay;
	uint64_t n_users = 0;

	relay_stats(s->relay, &relay);
	relay_presence_visit(s->relay, list_online, &online);
	if (store_user_count(s->domain.store, &n_users) != 0)
		n_users = 0;
	return json_pack("{s:i, s:b, s:s, s:s, s:s, s:s, s:s?, s:o, s:I, s:I, s:i, s:i, s:i, s:o, "
			 "s:I, s:I, s:i, s:I, s:i, s:o, s:o}",
			 "v", 1, "running", 1, "domain", s->domain.name, "fingerprint",
			 s->domain.fingerprint, "version", PACKAGE_VERSION, "registration",
			 registration_name((enum registration)s->options->registration),
			 "public_address", s->options->public_address, "listen", listen_list(s),
			 "uptime_s", COUNT((server_now_us(s) - s->started_us) / US_PER_S), "users",
			 COUNT(n_users), "connections", (int)s->n_clients, "authorized",
			 (int)count_authorized(s), "n_online", (int)online.n, "online", online.list,
			 "relayed_bytes", COUNT(relay.relayed_bytes), "relayed_messages",
			 COUNT(relay.n_relayed), "rendezvous", (int)relay.n_rendezvous,
			 "rendezvous_total", COUNT(relay.n_rendezvous_made), "channels",
			 (int)relay.n_channels, "udp", udp_counters(s), "counters", counters(s));
}

/* ---- requests -------------------------------------------------------------------------------- */

static json_t *do_status(struct server *s, json_t *args, const char **why)
{
	(void)args;
	(void)why;
	return status(s);
}

static json_t *do_disconnect(struct server *s, json_t *args, const char **why)
{
	const char *name, *text = "the account was changed";

	if (json_unpack(args, "{s:s, s?s}", "name", &name, "why", &text) != 0) {
		*why = "disconnect needs a name";
		return NULL;
	}
	return json_pack("{s:i}", "closed", (int)clients_disconnect(s, name, text));
}

static const struct {
	const char *name;
	json_t *(*fn)(struct server *s, json_t *args, const char **why);
} requests[] = {
	{ "status", do_status },
	{ "disconnect", do_disconnect },
};

static json_t *handle(struct server *s, json_t *request)
{
	json_t *args = json_object_get(request, "args"), *result = NULL;
	const char *command = "", *why = "no such command";
	json_int_t id = 0;

	if (json_unpack(request, "{s?I, s:s}", "id", &id, "cmd", &command) != 0)
		why = "a request is an object with a \"cmd\"";
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].name, command) != 0)
			continue;
		why = "out of memory";
		result = requests[i].fn(s, args, &why);
	}
	if (result)
		return json_pack("{s:i, s:I, s:b, s:o}", "v", 1, "id", id, "ok", 1, "result",
				 result);
	return json_pack("{s:i, s:I, s:b, s:i, s:s}", "v", 1, "id", id, "ok", 0, "code",
			 EXIT_FAILED, "error", why);
}

static void on_line(void *user, struct net_line *line, char *text, size_t text_bytes)
{
	struct admin_connection *a = user;
	json_t *request = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, NULL);
	json_t *answer = handle(a->server, request);
	char *out = answer ? json_dumps(answer, JSON_COMPACT) : NULL;

	if (out)
		(void)net_line_send(line, out, strlen(out)); /* too long: the client times out */
	free(out);
	json_decref(answer);
	json_decref(request);
}

static void connection_free(struct admin_connection *a)
{
	net_line_free(a->line);
	LIST_REMOVE(a, entry);
	a->server->n_admin--;
	free(a);
}

static void on_closed(void *user, struct net_line *line, int error)
{
	(void)line;
	(void)error;
	connection_free(user);
}

static void on_accepted(void *user, int fd, const struct net_peer *peer)
{
	struct server *s = user;
	struct admin_connection *a;
	struct net_line_config config = { .fd = fd,
					  .output_bytes_max = ADMIN_LINE_MAX,
					  .on_line = on_line,
					  .on_closed = on_closed };

	/* The directory is ours alone; this is for a directory that somebody opened up. */
	if (s->n_admin >= ADMIN_CONNECTIONS_MAX || (peer->uid != 0 && peer->uid != geteuid())) {
		closep(&fd);
		return;
	}
	a = calloc(1, sizeof(*a));
	if (!a) {
		closep(&fd);
		return;
	}
	a->server = s;
	config.user = a;
	if (net_line_new(s->loop, &config, &a->line) != 0) {
		free(a);
		return;
	}
	LIST_INSERT_HEAD(&s->admin_connections, a, entry);
	s->n_admin++;
}

int admin_start(struct server *s)
{
	char path[4096];

	LIST_INIT(&s->admin_connections);
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", s->options->data_dir,
			     ADMIN_SOCKET_NAME) >= sizeof(path))
		return -ENAMETOOLONG;
	return net_listen_unix(s->loop, path, 0600, on_accepted, s, &s->admin);
}

void admin_stop(struct server *s)
{
	net_listener_free(s->admin);
	s->admin = NULL;
	while (!LIST_EMPTY(&s->admin_connections))
		connection_free(LIST_FIRST(&s->admin_connections));
}
