/*
 * One control connection as client: find the server, connect, make sure of its
 * domain's key, start TLS. What is said then is the owner's business.
 *
 *   IDLE -> RESOLVING -> CONNECTING -> (IDENTIFYING) -> SECURING -> READY
 *     ^_________|____________|______________|______________|_________|
 *                        any failure, told once
 */
#include "daemon/internal.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETUP_TIMEOUT_US   (25 * US_PER_S) /* from start to READY */
#define CONNECT_TIMEOUT_US (10 * US_PER_S)

enum cookie { COOKIE_IDENTIFY = 1, COOKIE_SECURE = 2 }; /* the owner's start above */

static const char *const state_names[] = { "idle",        "resolving", "connecting",
					   "identifying", "securing",  "ready" };
static_assert(ARRAY_SIZE(state_names) == SERVERLINK_STATE_COUNT, "one name per state");

const char *serverlink_state_name(enum serverlink_state state)
{
	return (unsigned)state < SERVERLINK_STATE_COUNT ? state_names[state] : "?";
}

static void set_state(struct serverlink *l, enum serverlink_state state, const char *because)
{
	if (l->state != state)
		log_debug("%s: control connection %s -> %s because %s", l->domain,
			  state_names[l->state], state_names[state], because);
	l->state = state;
}

/* ---- the owner's callbacks, in which it may free us ---- */

static void really_free(struct serverlink *l)
{
	crypto_cert_unref(l->offered);
	crypto_tls_context_unref(l->config.tls);
	free(l);
}

static void leave(struct serverlink *l)
{
	if (--l->busy == 0 && l->dead)
		really_free(l);
}

static void tear_down(struct serverlink *l)
{
	net_query_cancel(l->query);
	lanes_cancel(&l->lanes);
	if (l->driver)
		net_q2q_close(l->driver);
	net_timer_disarm(&l->deadline);
	net_timer_disarm(&l->patience);
	l->query = NULL;
	l->driver = NULL;
	l->conn = NULL;
}

static void on_report(void *user)
{
	struct serverlink *l = user;

	l->busy++;
	l->config.on_failed(l->config.user, l, &l->problem);
	leave(l);
}

/* The connection came to nothing before a server answered by it, and there is another way. */
static bool try_other(struct serverlink *l, const char *because)
{
	if (l->dead || l->state < SERVERLINK_CONNECTING || l->state >= SERVERLINK_READY ||
	    !lanes_other(&l->lanes))
		return false;
	if (l->driver)
		net_q2q_close(l->driver);
	l->driver = NULL;
	l->conn = NULL;
	net_timer_disarm(&l->patience);
	set_state(l, SERVERLINK_CONNECTING, because);
	return true;
}

static void on_patience(void *user, uint64_t now_us)
{
	(void)now_us;
	try_other(user, "nobody answered there");
}

/* l->problem says what happened; the owner is told once we are out of everything. */
static void fail(struct serverlink *l)
{
	if (l->dead || l->state == SERVERLINK_IDLE)
		return;
	tear_down(l);
	set_state(l, SERVERLINK_IDLE, l->problem.error);
	net_soon_queue(&l->report);
}

static void ready(struct serverlink *l, const char *because)
{
	struct daemon *d = l->config.daemon;

	net_timer_disarm(&l->deadline);
	net_timer_disarm(&l->patience);
	lanes_remember(&d->lanes, d->network_signature, &l->lanes, l->lane,
		       net_loop_now_us(d->loop));
	set_state(l, SERVERLINK_READY, because);
	l->busy++;
	l->config.on_ready(l->config.user, l);
	leave(l);
}

/* ---- TLS ---- */

static void key_changed(struct serverlink *l)
{
	struct crypto_cert *pin = domains_pin(&l->config.daemon->domains, l->domain);
	char old[CRYPTO_FINGERPRINT_BYTES] = "?", new[CRYPTO_FINGERPRINT_BYTES], path[1024];

	domains_path(&l->config.daemon->domains, l->domain, path, sizeof(path));
	if (pin)
		crypto_cert_fingerprint(pin, old);
	crypto_cert_fingerprint(l->offered, new);
	problem_set(&l->problem, CTL_UNTRUSTED,
		    "the key of the server of %s has changed: %s holds %s, but now it shows %s. "
		    "Somebody may be in between, or the server was set up anew",
		    l->domain, path, old, new);
	problem_hint(&l->problem,
		     "ask who runs the server. If the new key is right: q2q-tun peers pin %s %s",
		     l->domain, new);
}

static int verify_server(void *user, struct crypto_cert *cert)
{
	struct serverlink *l = user;
	struct crypto_cert *pin = domains_pin(&l->config.daemon->domains, l->domain);

	if (!pin)
		return CRYPTO_VERIFY_UNKNOWN_ISSUER;
	if (!crypto_cert_same_key(pin, cert)) {
		crypto_cert_unref(l->offered);
		l->offered = crypto_cert_ref(cert);
		return CRYPTO_VERIFY_KEY_CHANGED;
	}
	return CRYPTO_VERIFY_OK;
}

static void fault(struct serverlink *l, int r)
{
	problem_set(&l->problem, CTL_FAILED, "cannot use the connection to the server of %s: %s",
		    l->domain, strerror(-r));
	fail(l);
}

static void start_tls(struct serverlink *l, uint64_t now_us)
{
	struct q2q_secure secure = {
		.from = l->config.from,
		.authorize = l->config.authorize,
		.tls = l->config.tls,
		.verify = verify_server,
		.user = l,
	};
	int r;

	if (l->config.identify_only) {
		ready(l, "identified");
		return;
	}
	r = q2q_domain_parse(l->domain, &secure.to);
	if (!r)
		r = q2q_conn_secure(l->conn, &secure, COOKIE_SECURE, now_us);
	if (r) {
		fault(l, r);
		return;
	}
	set_state(l, SERVERLINK_SECURING, "the domain is known");
}

/* ---- identify ---- */

static void untrusted(struct serverlink *l)
{
	char fingerprint[CRYPTO_FINGERPRINT_BYTES];

	crypto_cert_fingerprint(l->offered, fingerprint);
	l->untrusted_new = true;
	problem_set(&l->problem, CTL_UNTRUSTED,
		    "the server of %s is not known here yet, and nobody said that its key %s is "
		    "right",
		    l->domain, fingerprint);
	problem_hint(&l->problem, "on a terminal you are asked; or: q2q-tun peers pin %s %s",
		     l->domain, fingerprint);
	fail(l);
}

/* The server says which certificate its domain has: nobody vouches for that but the user. */
static void identified(struct serverlink *l, const struct amp_value *der, uint64_t now_us)
{
	struct daemon *d = l->config.daemon;
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	int r = crypto_cert_from_der(der->data, der->n_bytes, &cert);

	if (!r)
		r = crypto_cert_check(cert, l->domain, wall_clock_s());
	if (!r && !crypto_cert_is_self_signed(cert))
		r = CRYPTO_VERIFY_BAD_SIGNATURE;
	if (r) {
		problem_set(&l->problem, CTL_UNTRUSTED, "the certificate of %s is not good: %s",
			    l->domain,
			    r > 0 ? crypto_verify_text((enum crypto_verify)r) : strerror(-r));
		fail(l);
		return;
	}
	crypto_cert_unref(l->offered);
	l->offered = crypto_cert_ref(cert);
	if (*l->expect) {
		char shown[CRYPTO_FINGERPRINT_BYTES];

		if (strcmp(crypto_cert_fingerprint(cert, shown), l->expect)) {
			problem_set(&l->problem, CTL_UNTRUSTED,
				    "the server of %s shows the key %s, not %s", l->domain, shown,
				    l->expect);
			fail(l);
			return;
		}
	} else if (!l->config.trust_new && !d->options->accept_new) {
		untrusted(l);
		return;
	}
	r = domains_set(&d->domains, l->domain, cert);
	if (r) {
		problem_set(&l->problem, CTL_FAILED, "cannot store the key of %s: %s", l->domain,
			    strerror(-r));
		fail(l);
		return;
	}
	log_note("%s: its key is trusted from now on", l->domain);
	start_tls(l, now_us);
}

/* It was known: whatever the server shows now is not a first contact. */
static void damaged(struct serverlink *l)
{
	char path[1024];

	domains_path(&l->config.daemon->domains, l->domain, path, sizeof(path));
	problem_set(&l->problem, CTL_UNTRUSTED,
		    "the key of the server of %s that this machine knew cannot be read: %s is "
		    "damaged",
		    l->domain, path);
	problem_hint(&l->problem,
		     "put the file back from a backup and restart the daemon; or begin anew, as "
		     "with an unknown server: q2q-tun peers forget %s",
		     l->domain);
	fail(l);
}

static void begin(struct serverlink *l, uint64_t now_us)
{
	struct q2q_call call = { .command = Q2Q_IDENTIFY };
	int r;

	if (!*l->expect && domains_damaged(&l->config.daemon->domains, l->domain)) {
		damaged(l);
		return;
	}
	if (!*l->expect && domains_pin(&l->config.daemon->domains, l->domain)) {
		start_tls(l, now_us);
		return;
	}
	r = q2q_domain_parse(l->domain, &call.identify.subject);
	if (!r)
		r = q2q_conn_call(l->conn, &call, COOKIE_IDENTIFY, 0, now_us);
	if (r) {
		fault(l, r);
		return;
	}
	set_state(l, SERVERLINK_IDENTIFYING, "the domain is not known");
}

/* ---- events ---- */

static void closed(struct serverlink *l, const struct q2q_closed *c)
{
	if (c->verify == CRYPTO_VERIFY_KEY_CHANGED && l->offered) {
		key_changed(l);
	} else if (c->peer_rejected_certificate) {
		problem_set(&l->problem, CTL_DENIED,
			    "the server of %s does not accept the certificate of %s: %s", l->domain,
			    l->config.from.text, c->text);
		problem_hint(&l->problem,
			     "it may have expired, or the account was disabled. Try: q2q-tun "
			     "authorize %s",
			     l->config.from.text);
	} else {
		if (try_other(l, c->text))
			return;
		problem_set(&l->problem, CTL_OFFLINE,
			    "the connection to the server of %s ended: %s", l->domain, c->text);
	}
	fail(l);
}

static void setup_failed(struct serverlink *l, const struct q2q_event *event)
{
	/* A TLS failure ends the connection, whose last event says it better. */
	if (event->failure.error == Q2Q_ERROR_CONNECTION_LOST)
		return;
	problem_set(&l->problem, CTL_FAILED, "the server of %s refused %s: %s %s", l->domain,
		    q2q_command_name(event->command), event->failure.code_text,
		    event->failure.description);
	if (event->command == Q2Q_IDENTIFY || event->command == Q2Q_SECURE)
		problem_hint(&l->problem, "is it the server of %s at all?", l->domain);
	fail(l);
}

/* Before READY; calls of the server that come so early are not for us. */
static void setup_event(struct serverlink *l, const struct q2q_event *event, uint64_t now_us)
{
	switch (event->kind) {
	case Q2Q_EVENT_ANSWER:
		if (event->cookie == COOKIE_IDENTIFY && l->state == SERVERLINK_IDENTIFYING)
			identified(l, &event->answer.identify.certificate, now_us);
		break;
	case Q2Q_EVENT_ERROR:
		if (event->cookie == COOKIE_IDENTIFY || event->cookie == COOKIE_SECURE)
			setup_failed(l, event);
		break;
	case Q2Q_EVENT_SECURED:
		ready(l, "TLS is up");
		break;
	case Q2Q_EVENT_CALL:
		if (event->ask)
			q2q_conn_fail(l->conn, event->ask, Q2Q_ERROR_UNHANDLED, NULL, now_us);
		break;
	default:
		break;
	}
}

static void on_events(void *user, struct net_q2q *driver, struct q2q_conn *conn)
{
	struct serverlink *l = user;
	const uint64_t now_us = net_loop_now_us(l->config.daemon->loop);
	struct q2q_event event;

	l->busy++;
	while (l->driver == driver && q2q_conn_next_event(conn, &event, now_us)) {
		if (l->state == SERVERLINK_READY && l->config.on_event)
			l->config.on_event(l->config.user, l, &event);
		else if (event.kind != Q2Q_EVENT_CLOSED)
			setup_event(l, &event, now_us);
		if (event.kind == Q2Q_EVENT_CLOSED && l->driver == driver)
			closed(l, &event.closed);
	}
	leave(l);
}

static void on_closed(void *user, struct net_q2q *driver, int error)
{
	struct serverlink *l = user;

	if (l->driver != driver || try_other(l, error ? strerror(-error) : "it was closed"))
		return;
	problem_set(&l->problem, CTL_OFFLINE, "the connection to the server of %s ended: %s",
		    l->domain, error ? strerror(-error) : "closed by the server");
	fail(l);
}

/* ---- finding and connecting ---- */

static void on_connected(void *user, int error, int fd, const struct endpoint *remote,
			 enum lane_kind lane)
{
	struct serverlink *l = user;
	const uint64_t now_us = net_loop_now_us(l->config.daemon->loop);
	struct q2q_conn_config conn_config = { .role = Q2Q_CLIENT };
	struct net_q2q_config config = {
		.fd = fd,
		.on_events = on_events,
		.on_closed = on_closed,
		.user = l,
		.outer_name = lane == LANE_TLS ? l->domain : NULL,
	};
	char text[ENDPOINT_TEXT_BYTES];
	int r;

	if (error) {
		problem_set(&l->problem, CTL_OFFLINE, "cannot reach the server of %s at %s: %s",
			    l->domain, endpoint_format(remote, text), strerror(-error));
		problem_hint(&l->problem,
			     "is the server running, and does a firewall let TCP port %u or %u "
			     "through?",
			     remote->port, LANES_TLS_PORT);
		fail(l);
		return;
	}
	l->remote = *remote;
	l->lane = lane;
	conn_config.peer_ip = remote->ip;
	r = q2q_conn_new(&conn_config, now_us, &config.conn);
	if (r) {
		close(fd);
		fault(l, r);
		return;
	}
	r = net_q2q_new(l->config.daemon->loop, &config, &l->driver);
	if (r) {
		l->driver = NULL;
		q2q_conn_free(config.conn);
		fault(l, r);
		return;
	}
	l->conn = config.conn;
	if (lanes_has_other(&l->lanes))
		net_timer_arm(&l->patience, now_us + LANES_PATIENCE_US);
	l->busy++;
	begin(l, now_us);
	if (l->driver)
		net_q2q_pump(l->driver);
	leave(l);
}

/* Two addresses of each family: what they see of us differs where a NAT is, and is of a kind. */
static void keep_found(struct serverlink *l, const struct net_resolved *result)
{
	size_t n[2] = { 0, 0 };

	l->n_found = 0;
	for (size_t i = 0; i < result->n_endpoints && l->n_found < SERVERLINK_FOUND_MAX; i++)
		if (n[result->endpoints[i].ip.family == FAMILY_IPV6]++ < SERVERLINK_FOUND_MAX / 2)
			l->found[l->n_found++] = result->endpoints[i];
}

static const char *configured_server(const struct serverlink *l)
{
	const struct daemon_options *o = l->config.daemon->options;

	if (*l->server)
		return l->server;
	for (size_t i = 0; i < o->n_domains; i++)
		if (!strcmp(o->domains[i].domain, l->domain))
			return o->domains[i].server;
	return domains_server(&l->config.daemon->domains, l->domain);
}

static void on_resolved(void *user, const struct net_resolved *result)
{
	struct serverlink *l = user;
	struct daemon *d = l->config.daemon;
	int r;

	l->query = NULL;
	if (result->error) {
		problem_set(&l->problem, result->error == -ENOENT ? CTL_NOT_FOUND : CTL_OFFLINE,
			    "cannot find the server of %s: %s", l->domain, result->reason);
		problem_hint(&l->problem,
			     "is the domain written right, and does DNS work here? A server "
			     "without a name can be given as --server HOST:PORT, or in "
			     "q2q-tun.conf under [domain %s]",
			     l->domain);
		fail(l);
		return;
	}
	set_state(l, SERVERLINK_CONNECTING, "found");
	keep_found(l, result);
	lanes_plan(&l->lanes, result, configured_server(l) != NULL);
	r = lanes_start(&l->lanes, d->loop,
			lanes_recall(&d->lanes, d->network_signature, net_loop_now_us(d->loop)),
			CONNECT_TIMEOUT_US, on_connected, l);
	if (r)
		fault(l, r);
}

static int resolve(struct serverlink *l)
{
	struct net_resolver *resolver = l->config.daemon->resolver;
	const char *server = configured_server(l);
	char host[256];
	uint16_t port;
	int r;

	if (!server)
		return net_resolve_domain(resolver, l->domain, on_resolved, l, &l->query);
	r = net_split_host_port(server, Q2Q_PORT, host, &port);
	return r ? r : net_resolve_host(resolver, host, port, on_resolved, l, &l->query);
}

static void on_deadline(void *user, uint64_t now_us)
{
	struct serverlink *l = user;

	(void)now_us;
	problem_set(&l->problem, CTL_TIMED_OUT, "the server of %s did not answer in time (%s)",
		    l->domain, state_names[l->state]);
	fail(l);
}

/* ---- life ---- */

int serverlink_new(const struct serverlink_config *config, struct serverlink **ret_link)
{
	struct serverlink *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->config = *config;
	l->config.tls = config->tls ? crypto_tls_context_ref(config->tls) : NULL;
	snprintf(l->domain, sizeof(l->domain), "%s", config->domain);
	snprintf(l->server, sizeof(l->server), "%s", config->server ? config->server : "");
	snprintf(l->expect, sizeof(l->expect), "%s", config->expect ? config->expect : "");
	net_timer_init(&l->deadline, config->daemon->loop, on_deadline, l);
	net_timer_init(&l->patience, config->daemon->loop, on_patience, l);
	net_soon_init(&l->report, config->daemon->loop, on_report, l);
	*ret_link = l;
	return 0;
}

void serverlink_free(struct serverlink *l)
{
	if (!l)
		return;
	tear_down(l);
	net_soon_cancel(&l->report);
	l->dead = true;
	if (l->busy == 0)
		really_free(l);
}

void serverlink_start(struct serverlink *l)
{
	int r;

	assert(l->state == SERVERLINK_IDLE && !l->report.queued);
	l->untrusted_new = false;
	set_state(l, SERVERLINK_RESOLVING, "it is wanted");
	net_timer_arm(&l->deadline, net_loop_now_us(l->config.daemon->loop) + SETUP_TIMEOUT_US);
	r = resolve(l);
	if (!r)
		return;
	problem_set(&l->problem, CTL_USAGE, "cannot look for the server of %s: %s", l->domain,
		    strerror(-r));
	fail(l);
}

/*
 * Would a connection begin at this address now? If not, the one there is may be dead even where
 * the address is still ours: what it sends leaves by the new route, with the old network's address.
 * Where no route leads to the server there is nothing better than to wait.
 */
static bool is_from_here(const struct serverlink *l, const struct endpoint *local)
{
	const struct endpoint now = udp_local_for(l->config.daemon, 0, &l->remote);

	return now.ip.family == FAMILY_NONE || ip_equal(&now.ip, &local->ip);
}

void serverlink_check(struct serverlink *l)
{
	struct endpoint local;

	if (!l->driver)
		return;
	local = net_q2q_local(l->driver);
	if (is_from_here(l, &local)) {
		q2q_conn_probe(l->conn, net_loop_now_us(l->config.daemon->loop));
		net_q2q_pump(l->driver);
		return;
	}
	problem_set(&l->problem, CTL_OFFLINE,
		    "the connection to the server of %s was from a network that this machine has "
		    "left",
		    l->domain);
	fail(l);
}

const char *serverlink_way(const struct serverlink *l)
{
	return l->driver && l->lane == LANE_TLS ? "TLS on port 443" : "";
}

void serverlink_pump(struct serverlink *l)
{
	if (l->driver)
		net_q2q_pump(l->driver);
}
