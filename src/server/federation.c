/*
 * The certificates of other domains: pinned at first sight, like ssh's
 * known_hosts, fetched by `identify` on a fresh connection to that domain's
 * server when one of its users comes.
 *
 *     wait -> resolve -> connect -> identify -> check -> pin -> the waiting clients go on
 *
 * A client makes us connect somewhere, so: one fetch per domain at a time,
 * few in all, a rate per network address of who asks, a growing pause per
 * domain that failed, and no addresses that only reach ourselves or the
 * inside of the operator's network, unless the options say so.
 */
#include "server/state.h"

#include <stdio.h>

struct fetch {
	LIST_ENTRY(fetch) entry;
	struct server *server;
	LIST_HEAD(, client) waiting;
	struct net_query *query;
	struct lanes lanes;
	struct net_q2q *driver;
	struct net_timer timer, patience;
	struct net_soon end_soon; /* a driver is not freed inside its own callback's caller */
	struct crypto_cert *cert; /* the result */
	char domain[Q2Q_DOMAIN_MAX_BYTES + 1];
	char why[256];
};

int federation_pin(struct server *s, const char *domain, struct crypto_cert **ret_cert)
{
	struct store_pin pin;
	int rc;

	if (domain[0] == '\0')
		return STORE_NOT_FOUND;
	rc = store_pin_find(s->domain.store, domain, &pin);
	return rc == 0 ? crypto_cert_from_der(pin.cert, pin.cert_bytes, ret_cert) : rc;
}

/* ---- the end ------------------------------------------------------------------------------- */

static void fetch_free(struct fetch *f)
{
	struct client *c;

	while ((c = LIST_FIRST(&f->waiting))) {
		LIST_REMOVE(c, secure.entry);
		c->secure.fetch = NULL;
	}
	net_query_cancel(f->query);
	lanes_cancel(&f->lanes);
	net_q2q_free(f->driver);
	net_timer_disarm(&f->timer);
	net_timer_disarm(&f->patience);
	net_soon_cancel(&f->end_soon);
	crypto_cert_unref(f->cert);
	LIST_REMOVE(f, entry);
	f->server->n_fetches--;
	free(f);
}

static void end(void *user)
{
	struct fetch *f = user;
	struct server *s = f->server;
	struct client *c;

	if (f->cert) {
		s->counters.fetched++;
		limiter_succeeded(s->fetch_domains, f->domain, strlen(f->domain));
	} else {
		s->counters.fetch_failures++;
		limiter_failed(s->fetch_domains, f->domain, strlen(f->domain), server_now_us(s));
		if (log_allowed(&s->log_trust, server_now_us(s)))
			log_note("cannot learn the certificate of %s: %s", f->domain, f->why);
	}
	while ((c = LIST_FIRST(&f->waiting))) {
		LIST_REMOVE(c, secure.entry);
		c->secure.fetch = NULL;
		client_secure_resume(c, c->secure.ask, f->cert, f->why);
	}
	fetch_free(f);
}

static void finish(struct fetch *f, const char *format, ...) PRINTF_LIKE(2, 3);

static void finish(struct fetch *f, const char *format, ...)
{
	va_list args;

	if (f->end_soon.queued)
		return;
	va_start(args, format);
	vsnprintf(f->why, sizeof(f->why), format, args);
	va_end(args);
	net_soon_queue(&f->end_soon);
}

static void on_timeout(void *user, uint64_t now_us)
{
	(void)now_us;
	finish(user, "no answer in %d s", FETCH_TIMEOUT_S);
}

/* Something connected, but no server answered by it: is there another way? */
static bool try_other(struct fetch *f)
{
	if (f->end_soon.queued || !lanes_other(&f->lanes))
		return false;
	net_timer_disarm(&f->patience);
	if (f->driver)
		net_q2q_close(f->driver);
	f->driver = NULL;
	return true;
}

static void on_patience(void *user, uint64_t now_us)
{
	(void)now_us;
	(void)try_other(user);
}

/* ---- identify ---------------------------------------------------------------------------------
 */

static void take_certificate(struct fetch *f, const struct amp_value *der)
{
	struct server *s = f->server;
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	char fingerprint[CRYPTO_FINGERPRINT_BYTES];
	const int64_t now_s = server_wall_s();
	int rc;

	if (crypto_cert_from_der(der->data, der->n_bytes, &cert) != 0) {
		finish(f, "its server sent no certificate");
		return;
	}
	rc = crypto_cert_check(cert, f->domain, now_s);
	if (rc != 0 || !crypto_cert_is_self_signed(cert)) {
		finish(f, "its certificate is not good: %s",
		       rc > 0 ? crypto_verify_text((enum crypto_verify)rc) : "not self-signed");
		return;
	}
	rc = store_pin_add(s->domain.store, f->domain, der->data, der->n_bytes, now_s);
	if (rc != 0) {
		finish(f, "it cannot be stored: %s",
		       rc > 0 ? store_outcome_name((enum store_outcome)rc)
			      : store_error(s->domain.store));
		return;
	}
	log_note("domain %s has the key %s, from now on", f->domain,
		 crypto_cert_fingerprint(cert, fingerprint));
	f->cert = TAKE_PTR(cert);
	finish(f, "done");
}

static void on_events(void *user, struct net_q2q *driver, struct q2q_conn *conn)
{
	struct fetch *f = user;
	struct q2q_event event;
	const uint64_t now_us = server_now_us(f->server);

	while (f->driver == driver && q2q_conn_next_event(conn, &event, now_us)) {
		switch (event.kind) {
		case Q2Q_EVENT_ANSWER:
			if (event.command == Q2Q_IDENTIFY)
				take_certificate(f, &event.answer.identify.certificate);
			break;
		case Q2Q_EVENT_ERROR:
			if (event.failure.error == Q2Q_ERROR_CONNECTION_LOST)
				break; /* the last event says it better */
			finish(f, "its server does not identify itself: %s",
			       event.failure.description[0] ? event.failure.description
							    : q2q_error_name(event.failure.error));
			break;
		case Q2Q_EVENT_CALL: /* we serve nothing here */
			if (event.ask != 0)
				q2q_conn_fail(conn, event.ask, Q2Q_ERROR_UNHANDLED, NULL, now_us);
			break;
		case Q2Q_EVENT_CLOSED:
			if (try_other(f))
				break;
			finish(f, "the connection ended%s%s", event.closed.text[0] ? ": " : "",
			       event.closed.text);
			break;
		default:
			break;
		}
	}
}

static void on_closed(void *user, struct net_q2q *driver, int error)
{
	struct fetch *f = user;

	if (f->driver != driver || try_other(f))
		return;
	net_q2q_free(driver);
	f->driver = NULL;
	finish(f, "the connection ended: %s", error ? strerror(-error) : "closed");
}

static void on_connected(void *user, int error, int fd, const struct endpoint *remote,
			 enum lane_kind lane)
{
	struct fetch *f = user;
	struct server *s = f->server;
	const uint64_t now_us = server_now_us(s);
	struct q2q_conn_config config = { .role = Q2Q_CLIENT };
	struct net_q2q_config driver = {
		.fd = fd,
		.on_events = on_events,
		.on_closed = on_closed,
		.user = f,
		.outer_name = lane == LANE_TLS ? f->domain : NULL,
	};
	struct q2q_call call = { .command = Q2Q_IDENTIFY };
	int rc;

	if (error != 0) {
		finish(f, "cannot connect to its server: %s", strerror(-error));
		return;
	}
	config.peer_ip = remote->ip;
	rc = q2q_conn_new(&config, now_us, &driver.conn);
	if (rc != 0) {
		closep(&fd);
		finish(f, "%s", strerror(-rc));
		return;
	}
	rc = net_q2q_new(s->loop, &driver, &f->driver);
	if (rc != 0) {
		q2q_conn_free(driver.conn);
		finish(f, "%s", strerror(-rc));
		return;
	}
	if (lanes_has_other(&f->lanes))
		net_timer_arm(&f->patience, now_us + FETCH_PATIENCE_S * US_PER_S);
	q2q_domain_parse(f->domain, &call.identify.subject);
	rc = q2q_conn_call(driver.conn, &call, 0, FETCH_TIMEOUT_S * US_PER_S, now_us);
	if (rc != 0)
		finish(f, "%s", strerror(-rc));
	net_q2q_pump(f->driver);
}

/* ---- where -------------------------------------------------------------------------------------
 */

static bool target_allowed(const struct server *s, const struct ip_address *ip)
{
	if (ip_is_multicast(ip) || ip_is_unspecified(ip))
		return false;
	if (s->options->federation_private)
		return true;
	return !ip_is_private(ip) && !ip_is_loopback(ip) && !ip_is_link_local(ip);
}

static void on_resolved(void *user, const struct net_resolved *result)
{
	struct fetch *f = user;
	struct net_resolved allowed = { .n_endpoints = 0 };
	int rc;

	f->query = NULL;
	if (result->error != 0) {
		finish(f, "its server cannot be found: %s", result->reason);
		return;
	}
	for (size_t i = 0; i < result->n_endpoints; i++)
		if (target_allowed(f->server, &result->endpoints[i].ip))
			allowed.endpoints[allowed.n_endpoints++] = result->endpoints[i];
	if (allowed.n_endpoints == 0) {
		finish(f, "its server has private addresses only (federation-private is off)");
		return;
	}
	lanes_plan(&f->lanes, &allowed,
		   options_domain_server(f->server->options, f->domain) != NULL);
	rc = lanes_start(&f->lanes, f->server->loop, false, FETCH_TIMEOUT_S * US_PER_S,
			 on_connected, f);
	if (rc != 0)
		finish(f, "cannot connect to its server: %s", strerror(-rc));
}

static int resolve(struct fetch *f)
{
	const char *server = options_domain_server(f->server->options, f->domain);
	char host[256];
	uint16_t port;

	if (!server)
		return net_resolve_domain(f->server->resolver, f->domain, on_resolved, f,
					  &f->query);
	if (net_split_host_port(server, SERVER_PORT, host, &port) != 0)
		return -EINVAL;
	return net_resolve_host(f->server->resolver, host, port, on_resolved, f, &f->query);
}

/* ---- starting
 * ------------------------------------------------------------------------------------ */

static struct fetch *fetch_find(struct server *s, const char *domain)
{
	struct fetch *f;

	LIST_FOREACH (f, &s->fetches, entry) {
		if (strcmp(f->domain, domain) == 0)
			return f;
	}
	return NULL;
}

static struct fetch *fetch_new(struct server *s, const char *domain)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->server = s;
	LIST_INIT(&f->waiting);
	snprintf(f->domain, sizeof(f->domain), "%s", domain);
	net_timer_init(&f->timer, s->loop, on_timeout, f);
	net_timer_init(&f->patience, s->loop, on_patience, f);
	net_soon_init(&f->end_soon, s->loop, end, f);
	LIST_INSERT_HEAD(&s->fetches, f, entry);
	s->n_fetches++;
	net_timer_arm(&f->timer, server_now_us(s) + FETCH_TIMEOUT_S * US_PER_S);
	return f;
}

const char *federation_wait(struct client *c, const char *domain, uint64_t ask)
{
	struct server *s = c->server;
	const uint64_t now_us = server_now_us(s);
	struct fetch *f = fetch_find(s, domain);
	uint8_t key[9];
	const size_t key_bytes = limiter_address_key(&c->remote.ip, key);

	if (c->secure.fetch)
		return "one domain at a time";
	if (!f) {
		if (limiter_take(s->fetch_asks, key, key_bytes, now_us) > 0 ||
		    s->n_fetches >= FETCHES_MAX) {
			s->counters.limited++;
			return "too many domains at a time; try again later";
		}
		if (limiter_pause_us(s->fetch_domains, domain, strlen(domain), now_us) > 0)
			return "the server of that domain could not be reached a moment ago";
		f = fetch_new(s, domain);
		if (!f)
			return "out of memory";
		if (resolve(f) != 0) {
			fetch_free(f);
			return "no such domain can exist";
		}
	}
	c->secure.fetch = f;
	c->secure.ask = ask;
	LIST_INSERT_HEAD(&f->waiting, c, secure.entry);
	return NULL;
}

void federation_cancel(struct client *c)
{
	if (!c->secure.fetch)
		return;
	LIST_REMOVE(c, secure.entry);
	c->secure.fetch = NULL;
}

void federation_stop(struct server *s)
{
	while (!LIST_EMPTY(&s->fetches))
		fetch_free(LIST_FIRST(&s->fetches));
}
