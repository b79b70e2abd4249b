/*
 * One control connection. A client is in the books (list, counts, relay end,
 * jobs) from accept until client_leave(); after that the driver alone still
 * writes what is queued.
 *
 *     accept -> clear -> [waits for a fetch] -> TLS -> anonymous | authorized -> gone
 *
 * What each command needs is checked by its function; `commands` below says who that is.
 */
#include "config.h"
#include "server/state.h"

#include <stdio.h>
#include <time.h>

/* ---- small things --------------------------------------------------------------------- */

struct client *client_of_end(const struct relay_end *end)
{
	return relay_end_user(end);
}

void client_log(struct client *c, enum log_level level, const char *format, ...)
{
	char text[768];
	va_list args;

	/* Of users we know, only what is wrong; of others, whatever they cause. */
	if (level <= (c->authorized ? LOG_NOTE_ : LOG_INFO_) &&
	    !log_allowed(&c->server->log_client, server_now_us(c->server)))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_write(level, "%s: %s", c->name, text);
}

static void name_client(struct client *c)
{
	char from[ENDPOINT_TEXT_BYTES];

	endpoint_format(&c->remote, from);
	if (c->authorized)
		snprintf(c->name, sizeof(c->name), "%s (%s)", q2q_conn_from(c->conn)->text, from);
	else
		snprintf(c->name, sizeof(c->name), "%s", from);
}

bool client_may_speak_for(const struct client *c, const struct q2q_address *theirs)
{
	const struct crypto_cert *cert = c->authorized ? q2q_conn_peer_cert(c->conn) : NULL;

	return q2q_may_speak_for(cert ? crypto_cert_subject(cert) : NULL,
				 cert ? crypto_cert_issuer(cert) : NULL, theirs);
}

/* ---- connections per network address ------------------------------------------------------ */

static bool address_enter(struct server *s, const struct ip_address *ip)
{
	struct address_use *use, key;

	key.key_bytes = limiter_address_key(ip, key.key);
	const unsigned hash = (unsigned)hash_bytes(&s->seed, key.key, key.key_bytes);

	HASH_FIND_BYHASHVALUE(hh, s->address_uses, key.key, key.key_bytes, hash, use);
	if (!use) {
		use = calloc(1, sizeof(*use));
		if (!use)
			return false;
		memcpy(use->key, key.key, key.key_bytes);
		use->key_bytes = key.key_bytes;
		HASH_ADD_KEYPTR_BYHASHVALUE(hh, s->address_uses, use->key, use->key_bytes, hash,
					    use);
		if (!use->hh.tbl) {
			free(use);
			return false;
		}
	}
	if (use->n_clients >= s->options->connections_per_address_max)
		return false;
	use->n_clients++;
	return true;
}

static void address_leave(struct server *s, const struct ip_address *ip)
{
	struct address_use *use;
	uint8_t key[9];
	const size_t key_bytes = limiter_address_key(ip, key);

	HASH_FIND_BYHASHVALUE(hh, s->address_uses, key, key_bytes,
			      (unsigned)hash_bytes(&s->seed, key, key_bytes), use);
	if (!use || --use->n_clients > 0)
		return;
	HASH_DEL(s->address_uses, use);
	free(use);
}

/* ---- leaving --------------------------------------------------------------------------------- */

/* Out of the books. The other ends of its rendezvous are told. */
static void client_leave(struct client *c)
{
	struct server *s = c->server;

	if (c->closing)
		return;
	c->closing = true;
	inquiry_cancel_of(c);
	account_cancel(c);
	federation_cancel(c);
	relay_end_free(c->end);
	c->end = NULL;
	/* Whoever does not read our last words has not for ever. */
	net_timer_arm(&c->age_timer, server_now_us(s) + NET_FLUSH_TIMEOUT_US);
	address_leave(s, &c->remote.ip);
	TAILQ_REMOVE(&s->clients, c, entry);
	TAILQ_INSERT_TAIL(&s->leaving, c, entry);
	s->n_clients--;
	clients_tell_gone(s);
}

static void client_free(struct client *c)
{
	struct server *s = c->server;

	net_timer_disarm(&c->age_timer);
	TAILQ_REMOVE(&s->leaving, c, entry);
	net_q2q_free(c->driver);
	if (s->stopping && TAILQ_EMPTY(&s->leaving))
		net_loop_stop(s->loop);
	crypto_cert_unref(c->anchor);
	free(c);
}

static void on_closed(void *user, struct net_q2q *driver, int error)
{
	struct client *c = user;

	if (error != 0)
		client_log(c, LOG_DEBUG_, "connection lost: %s", strerror(-error));
	(void)driver;
	client_leave(c);
	client_free(c);
}

/* The driver moves output later, from the loop, so nothing changes under whoever asked. */
void client_pump(struct client *c)
{
	net_q2q_pump(c->driver);
}

void client_abort(struct client *c, int error, const char *text)
{
	if (c->closing)
		return;
	q2q_conn_abort(c->conn, error, text, server_now_us(c->server));
	client_leave(c);
	client_pump(c);
}

unsigned clients_disconnect(struct server *s, const char *name, const char *why)
{
	struct client *c, *next;
	unsigned n = 0;

	for (c = TAILQ_FIRST(&s->clients); c; c = next) {
		next = TAILQ_NEXT(c, entry);
		if (!c->local_user || strcmp(q2q_conn_from(c->conn)->resource, name) != 0)
			continue;
		client_log(c, LOG_INFO_, "disconnected: %s", why);
		client_abort(c, -EACCES, why);
		n++;
	}
	return n;
}

void clients_close_all(struct server *s)
{
	struct client *c;

	while ((c = TAILQ_FIRST(&s->clients)))
		client_abort(c, 0, "the server is stopping");
}

void clients_free_all(struct server *s)
{
	struct client *c;

	clients_close_all(s);
	while ((c = TAILQ_FIRST(&s->leaving)))
		client_free(c);
}

void clients_tell_gone(struct server *s)
{
	char id[RELAY_ID_BYTES + 1];
	struct relay_end *end;

	while (relay_next_gone(s->relay, &end, id)) {
		struct client *c = client_of_end(end);
		const struct q2q_call call = { .command = Q2Q_GONE, .gone = { amp_text(id) } };

		/* Full or over: it will find out by the silence of the other end. */
		if (!c->closing && q2q_conn_tell(c->conn, &call, server_now_us(s)) == 0)
			client_pump(c);
	}
}

/* ---- commands -----------------------------------------------------------------------------------
 */

static void fail(struct client *c, uint64_t ask, enum q2q_error error, const char *text)
{
	q2q_conn_fail(c->conn, ask, error, text, server_now_us(c->server));
}

static void do_source_ip(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	(void)call;
	fail(c, ask, Q2Q_ERROR_UNKNOWN, "not known");
}

static void do_identify(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	struct q2q_answer answer = { .command = Q2Q_IDENTIFY };
	const char *domain = call->identify.subject.domain;
	size_t der_bytes;
	const uint8_t *der;

	if (strcmp(domain, c->server->domain.name) == 0)
		cert = crypto_cert_ref(c->server->domain.cert);
	else if (federation_pin(c->server, domain, &cert) != 0) {
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "this server does not know that domain");
		return;
	}
	der = crypto_cert_der(cert, &der_bytes);
	answer.identify.certificate = amp_value(der, der_bytes);
	q2q_conn_answer(c->conn, ask, &answer, server_now_us(c->server));
}

static int judge(void *user, struct crypto_cert *cert)
{
	struct client *c = user;
	struct server *s = c->server;
	const struct q2q_address *from = q2q_conn_from(c->conn);
	int reason = crypto_cert_verify(cert, c->anchor, NULL, server_wall_s());

	if (reason == 0 && strcmp(from->domain, s->domain.name) == 0)
		reason = account_judge(s, from, cert);
	if (reason == CRYPTO_VERIFY_BAD_SIGNATURE && strcmp(from->domain, s->domain.name) != 0) {
		s->counters.key_changes++;
		if (log_allowed(&s->log_trust, server_now_us(s)))
			log_warn("%s: the certificate of %s is not signed by the key that %s had "
				 "when it was first seen. Either somebody pretends to be %s, or "
				 "that server has a new key; if you know the latter, forget the "
				 "old one with `q2q-server pins forget %s`",
				 c->name, from->text, from->domain, from->domain, from->domain);
	} else if (reason > 0) {
		client_log(c, LOG_NOTE_, "certificate of %s refused: %s", from->text,
			   crypto_verify_text((enum crypto_verify)reason));
	}
	return reason;
}

static void accept_secure(struct client *c, uint64_t ask, bool authorize)
{
	const int rc =
		q2q_conn_accept_secure(c->conn, ask, c->server->domain.tls,
				       authorize ? judge : NULL, c, server_now_us(c->server));

	if (rc != 0 && rc != -ENOENT)
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "TLS cannot start");
}

void client_secure_resume(struct client *c, uint64_t ask, struct crypto_cert *cert, const char *why)
{
	if (!cert) {
		client_log(c, LOG_NOTE_, "secure refused: %s", why);
		fail(c, ask, Q2Q_ERROR_UNKNOWN, why);
	} else {
		crypto_cert_unref(c->anchor);
		c->anchor = crypto_cert_ref(cert);
		accept_secure(c, ask, true);
	}
	client_pump(c);
}

static void do_secure(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	struct server *s = c->server;
	const struct q2q_address *from = &call->secure.from;
	const char *why;
	int rc;

	if (strcmp(call->secure.to.domain, s->domain.name) != 0) {
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "this server does not serve that domain");
		return;
	}
	if (!call->secure.authorize) {
		accept_secure(c, ask, false);
		return;
	}
	if (q2q_address_kind(from) == Q2Q_ANONYMOUS) {
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "nobody cannot be authorized");
		return;
	}
	crypto_cert_unref(c->anchor);
	c->anchor = NULL;
	if (strcmp(from->domain, s->domain.name) == 0) {
		c->anchor = crypto_cert_ref(s->domain.cert);
		accept_secure(c, ask, true);
		return;
	}
	rc = federation_pin(s, from->domain, &c->anchor);
	if (rc == 0) {
		accept_secure(c, ask, true);
		return;
	}
	why = rc == STORE_NOT_FOUND ? federation_wait(c, from->domain, ask)
				    : "the store cannot be read";
	if (why)
		client_secure_resume(c, ask, NULL, why);
}

/* Also who we are and what time it is here: certificates are judged by clocks that may differ. */
static void answer_listen(struct client *c, uint64_t ask)
{
	struct q2q_answer answer = { .command = Q2Q_LISTEN };
	char text[Q2Q_SERVER_TEXT_BYTES];

	snprintf(text, sizeof(text), "q2q-server %s %lld", PACKAGE_VERSION, (long long)time(NULL));
	answer.listen.server = amp_text(text);
	q2q_conn_answer(c->conn, ask, &answer, server_now_us(c->server));
}

static void do_listen(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	const struct q2q_address *from = &call->listen.from;
	struct reader list =
		reader_over(call->listen.protocols.data, call->listen.protocols.n_bytes);
	struct amp_value protocol;
	int rc;

	if (!c->authorized || q2q_address_kind(from) != Q2Q_USER ||
	    strcmp(from->domain, c->server->domain.name) != 0 || !client_may_speak_for(c, from)) {
		client_log(c, LOG_NOTE_, "listen for %s refused", from->text);
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "not authorized to listen for that address");
		return;
	}
	while ((rc = amp_list_next(&list, &protocol)) == 0) {
		char name[Q2Q_PROTOCOL_MAX_BYTES + 1];

		if (!q2q_protocol_valid(protocol.data, protocol.n_bytes)) {
			fail(c, ask, Q2Q_ERROR_UNKNOWN, "no name of a protocol");
			return;
		}
		memcpy(name, protocol.data, protocol.n_bytes);
		name[protocol.n_bytes] = '\0';
		rc = relay_listen(c->end, from->text, name);
		if (rc != 0) {
			client_log(c, LOG_NOTE_, "listen for %s refused: too many listeners",
				   from->text);
			fail(c, ask, Q2Q_ERROR_UNKNOWN, "too many listeners");
			return;
		}
		client_log(c, LOG_INFO_, "listens for %s", name);
	}
	if (rc != AMP_END) {
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "malformed list of protocols");
		return;
	}
	answer_listen(c, ask);
}

static void do_retrieve(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	const struct amp_value *id = &call->retrieve.identifier;
	const uint64_t now_us = server_now_us(c->server);

	for (size_t i = 0; i < CLIENT_TICKETS_MAX; i++) {
		struct ticket *t = &c->tickets[i];

		if (t->id[0] == '\0' || id->n_bytes != RELAY_ID_BYTES ||
		    !secret_equal(t->id, id->data, RELAY_ID_BYTES))
			continue;
		const bool in_time = now_us < t->expires_us;

		t->id[0] = '\0';
		if (!in_time)
			break;
		q2q_conn_accept_retrieve(c->conn, ask, Q2Q_INNER_ADMIN, 0, now_us);
		return;
	}
	fail(c, ask, Q2Q_ERROR_NO_SUCH_CONNECTION, NULL);
}

/* Passes on what one end of a rendezvous says to the other one, unread. */
static void do_signal(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	struct server *s = c->server;
	const uint64_t now_us = server_now_us(s);
	const struct amp_value *id = &call->signal.id;
	struct relay_end *to;
	struct client *other;

	(void)ask;
	if (!c->end || relay_route(c->end, (const char *)id->data, id->n_bytes, &to) != 0)
		return;
	other = client_of_end(to);
	if (call->command == Q2Q_SIGNAL) {
		if (relay_charge_signal(c->end, now_us) != 0)
			return;
	} else if (relay_charge_bytes(c->end, call->signal.body.n_bytes,
				      net_q2q_unsent(other->driver), now_us) != 0) {
		return;
	}
	if (q2q_conn_tell(other->conn, call, now_us) == 0)
		client_pump(other);
}

static void do_gone(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	const struct amp_value *id = &call->gone.id;

	(void)ask;
	if (c->end && relay_rendezvous_close(c->end, (const char *)id->data, id->n_bytes) == 0)
		clients_tell_gone(c->server);
}

/* A way by UDP for one end of a rendezvous: the name and the key of its datagrams. */
static void do_channel(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	const struct amp_value *id = &call->channel.id;
	const uint64_t now_us = server_now_us(c->server);
	struct q2q_answer answer = { .command = Q2Q_CHANNEL };
	uint8_t name[Q2Q_CHANNEL_BYTES], key[Q2Q_CHANNEL_KEY_BYTES];

	if (!c->end || relay_charge_signal(c->end, now_us) != 0 ||
	    crypto_random(name, sizeof(name)) != 0 || crypto_random(key, sizeof(key)) != 0 ||
	    relay_channel_new(c->end, (const char *)id->data, id->n_bytes, name, key) != 0) {
		fail(c, ask, Q2Q_ERROR_NOT_FOUND, "no such rendezvous, or too many questions");
		return;
	}
	answer.channel.name = amp_value(name, sizeof(name));
	answer.channel.key = amp_value(key, sizeof(key));
	q2q_conn_answer(c->conn, ask, &answer, now_us);
	secret_wipe(key, sizeof(key));
}

static void do_nothing(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	(void)call;
	if (ask != 0)
		fail(c, ask, Q2Q_ERROR_UNHANDLED, NULL);
}

typedef void command_fn(struct client *c, uint64_t ask, const struct q2q_call *call);

/* An empty cell: not for a server, or the connection's own business. */
static command_fn *const commands[Q2Q_COMMAND_COUNT] = {
	[Q2Q_SOURCE_IP] = do_source_ip,    [Q2Q_IDENTIFY] = do_identify,
	[Q2Q_SECURE] = do_secure,          [Q2Q_SIGN] = account_sign,
	[Q2Q_LISTEN] = do_listen,          [Q2Q_INBOUND] = inquiry_inbound,
	[Q2Q_BIND_UDP] = inquiry_bind_udp, [Q2Q_SIGNAL] = do_signal,
	[Q2Q_RELAY] = do_signal,           [Q2Q_GONE] = do_gone,
	[Q2Q_CHANNEL] = do_channel,        [Q2Q_RETRIEVE_CONNECTION] = do_retrieve,
	[Q2Q_ADD_USER] = account_add_user, [Q2Q_RENEW] = account_renew,
};

/* ---- events
 * --------------------------------------------------------------------------------------- */

/* Who has proven nothing shares one budget per network address. */
static int enter_relay(struct client *c)
{
	char account[Q2Q_ADDRESS_TEXT_BYTES];
	char ip[IP_TEXT_BYTES];

	if (c->authorized)
		snprintf(account, sizeof(account), "%s", q2q_conn_from(c->conn)->text);
	else
		snprintf(account, sizeof(account), "@%s", ip_format(&c->remote.ip, ip));
	return relay_end_new(c->server->relay, account, c, server_now_us(c->server), &c->end);
}

/* Why what was proven does not hold any more; NULL: it does. */
static const char *proof_over(struct client *c)
{
	const struct crypto_cert *cert = q2q_conn_peer_cert(c->conn);

	if (cert && crypto_cert_not_after_s(cert) < server_wall_s())
		return "the certificate has expired";
	/* A store that cannot be read is no reason to send everybody away. */
	if (cert && c->local_user && account_judge(c->server, q2q_conn_from(c->conn), cert) > 0)
		return "the certificate was revoked";
	return NULL;
}

/* Until it has to be looked at again: clocks are set, certificates end. */
static uint64_t proof_s(const struct client *c)
{
	const struct crypto_cert *cert = q2q_conn_peer_cert(c->conn);
	const int64_t left_s = cert ? crypto_cert_not_after_s(cert) - server_wall_s() : INT64_MAX;

	return left_s < CLIENT_PROOF_S ? (uint64_t)(left_s > 0 ? left_s : 0) + 1 : CLIENT_PROOF_S;
}

static void on_secured(struct client *c)
{
	struct server *s = c->server;
	const struct q2q_address *from = q2q_conn_from(c->conn);

	c->authorized = q2q_conn_is_authorized(c->conn);
	c->local_user = c->authorized && q2q_address_kind(from) == Q2Q_USER &&
			strcmp(from->domain, s->domain.name) == 0;
	name_client(c);
	if (enter_relay(c) != 0) {
		client_abort(c, -ENOBUFS, "the server is full");
		return;
	}
	net_timer_arm(&c->age_timer,
		      server_now_us(s) +
			      (c->authorized ? proof_s(c) : CLIENT_ANONYMOUS_S) * US_PER_S);
	client_log(c, LOG_INFO_, "%s, %s", c->authorized ? "authorized" : "anonymous",
		   crypto_tls_version(q2q_conn_tls(c->conn)));
}

static void on_event(struct client *c, const struct q2q_event *event)
{
	command_fn *fn;

	switch (event->kind) {
	case Q2Q_EVENT_CALL:
		fn = commands[event->command];
		if (!fn)
			fn = do_nothing;
		fn(c, event->ask, &event->call);
		break;
	case Q2Q_EVENT_ANSWER:
	case Q2Q_EVENT_ERROR:
		inquiry_answered(c, event);
		break;
	case Q2Q_EVENT_SECURED:
		on_secured(c);
		break;
	case Q2Q_EVENT_CLOSED:
		client_log(c, event->closed.error ? LOG_INFO_ : LOG_DEBUG_, "closed%s%s",
			   event->closed.text[0] ? ": " : "", event->closed.text);
		client_leave(c);
		break;
	default: /* virtual transports end by themselves; nothing here waits for room */
		break;
	}
}

static void on_events(void *user, struct net_q2q *driver, struct q2q_conn *conn)
{
	struct client *c = user;
	struct q2q_event event;

	(void)driver;
	while (q2q_conn_next_event(conn, &event, server_now_us(c->server))) {
		/* Its calls to others are gone from the books already; so is it. */
		if (!c->closing || event.kind == Q2Q_EVENT_ANSWER || event.kind == Q2Q_EVENT_ERROR)
			on_event(c, &event);
	}
}

/* ---- accepting
 * ------------------------------------------------------------------------------------- */

static void on_age(void *user, uint64_t now_us)
{
	struct client *c = user;
	const char *why = c->authorized && !c->closing ? proof_over(c) : NULL;

	if (c->closing) {
		client_free(c);
	} else if (!c->authorized) {
		client_abort(c, -ETIMEDOUT, "no proven address in time");
	} else if (why) {
		client_log(c, LOG_NOTE_, "disconnected: %s", why);
		client_abort(c, -EACCES, why);
	} else {
		net_timer_arm(&c->age_timer, now_us + proof_s(c) * US_PER_S);
	}
}

static bool may_enter(struct server *s, const struct endpoint *from)
{
	uint8_t key[9];
	const size_t key_bytes = limiter_address_key(&from->ip, key);

	if (s->stopping)
		return false;
	if (s->n_clients >= s->options->connections_max) {
		s->counters.refused_full++;
		if (log_allowed(&s->log_refused, server_now_us(s)))
			log_warn("%u connections are open, which is the limit; new ones are "
				 "refused",
				 s->n_clients);
		return false;
	}
	if (limiter_take(s->accepts, key, key_bytes, server_now_us(s)) > 0 ||
	    !address_enter(s, &from->ip)) {
		s->counters.refused_address++;
		return false;
	}
	return true;
}

static int client_start(struct client *c, int fd)
{
	struct server *s = c->server;
	const uint64_t now_us = server_now_us(s);
	const struct q2q_conn_config config = {
		.role = Q2Q_SERVER,
		.peer_ip = c->remote.ip,
		.setup_us = CLIENT_SETUP_S * US_PER_S,
		.handshake_us = CLIENT_SETUP_S * US_PER_S,
		.keepalive_us = s->options->idle_timeout_s * US_PER_S,
		.dead_us = CLIENT_KEEPALIVE_DEAD_S * US_PER_S,
		.call_timeout_us = INQUIRY_TIMEOUT_S * US_PER_S,
	};
	struct net_q2q_config driver = {
		.fd = fd,
		.on_events = on_events,
		.on_closed = on_closed,
		.user = c,
		.outer_tls = s->domain.tls,
	};
	int rc = q2q_conn_new(&config, now_us, &c->conn);

	if (rc != 0) {
		closep(&fd);
		return rc;
	}
	driver.conn = c->conn;
	rc = net_q2q_new(s->loop, &driver, &c->driver);
	if (rc != 0)
		q2q_conn_free(c->conn);
	return rc;
}

void client_accept(struct server *s, int fd, const struct endpoint *from)
{
	struct client *c;

	if (!may_enter(s, from)) {
		closep(&fd);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		address_leave(s, &from->ip);
		closep(&fd);
		return;
	}
	c->server = s;
	c->remote = *from;
	c->number = ++s->last_client_number;
	name_client(c);
	net_timer_init(&c->age_timer, s->loop, on_age, c);
	if (client_start(c, fd) != 0) {
		address_leave(s, &from->ip);
		free(c);
		return;
	}
	TAILQ_INSERT_TAIL(&s->clients, c, entry);
	s->n_clients++;
	s->counters.accepted++;
	net_timer_arm(&c->age_timer, server_now_us(s) + CLIENT_CLEAR_S * US_PER_S);
	client_log(c, LOG_DEBUG_, "connected");
}
