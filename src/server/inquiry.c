/*
 * An inquiry asks every listener of a name the same question and answers the
 * requester when the last one has answered or run out of time: `inbound`, whose
 * answers are gathered, and `bind-udp`, where only success counts. One of us, who
 * has an offer already, does not wait long for the others: a machine that vanished
 * without a word is a listener until its silence is noticed.
 *
 * Questions carry the number of the inquiry as cookie, so an answer that comes
 * after the requester has gone finds nothing and is dropped.
 *
 * What passes through is made safe for the requester: no method that would
 * break a stock program, no certificate but the one that the listener's TLS
 * connection proved, no rendezvous id that is in use.
 */
#include "server/state.h"

#include <stdio.h>

struct entry {
	TAILQ_ENTRY(entry) entry;
	struct q2q_listener listener; /* its values lie in `bytes` */
	struct buffer bytes;
};

struct inquiry {
	UT_hash_handle hh;
	uint64_t number;
	struct client *requester;
	uint64_t ask;
	enum q2q_command command;
	unsigned n_waiting, n_succeeded;
	bool requester_is_q2q_tun;
	TAILQ_HEAD(, entry) entries;
	unsigned n_entries;
	const char *status; /* the best that a listener said, or NULL */
	struct net_timer grace;
};

/* ---- life ------------------------------------------------------------------------------ */

/* Our own consecutive numbers: they spread by themselves. */
static unsigned hash_of(uint64_t number)
{
	return (unsigned)number;
}

static void inquiry_finish(struct inquiry *q);

static void on_grace(void *user, uint64_t now_us)
{
	(void)now_us;
	inquiry_finish(user);
}

static struct inquiry *inquiry_new(struct client *c, uint64_t ask, enum q2q_command command)
{
	struct server *s = c->server;
	struct inquiry *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->number = ++s->last_inquiry;
	q->requester = c;
	q->ask = ask;
	q->command = command;
	TAILQ_INIT(&q->entries);
	net_timer_init(&q->grace, s->loop, on_grace, q);
	HASH_ADD_BYHASHVALUE(hh, s->inquiries, number, sizeof(q->number), hash_of(q->number), q);
	if (!q->hh.tbl) {
		free(q);
		return NULL;
	}
	c->n_inquiries++;
	s->counters.inquiries++;
	return q;
}

static void entry_free(struct entry *e)
{
	buffer_fini(&e->bytes);
	free(e);
}

static void inquiry_free(struct inquiry *q)
{
	struct entry *e;

	while ((e = TAILQ_FIRST(&q->entries))) {
		TAILQ_REMOVE(&q->entries, e, entry);
		entry_free(e);
	}
	net_timer_disarm(&q->grace);
	q->requester->n_inquiries--;
	HASH_DEL(q->requester->server->inquiries, q);
	free(q);
}

void inquiry_cancel_of(struct client *c)
{
	struct inquiry *q, *next;

	if (c->n_inquiries == 0)
		return;
	HASH_ITER (hh, c->server->inquiries, q, next) {
		if (q->requester == c)
			inquiry_free(q);
	}
}

/* ---- answering the requester ----------------------------------------------------------- */

static void answer_inbound(struct client *c, uint64_t ask, struct inquiry *q, const char *status)
{
	struct q2q_answer answer = { .command = Q2Q_INBOUND };
	struct q2q_listeners *out = &answer.inbound.listeners;
	int rc;

	if (q) {
		struct entry *e;

		TAILQ_FOREACH (e, &q->entries, entry) {
			if (out->n < Q2Q_LISTENERS_MAX)
				out->entries[out->n++] = e->listener;
		}
	}
	if (out->n == 0 && c->authorized)
		answer.inbound.status = amp_text(status);
	/* One value holds 65535 bytes: the last listeners have to stay out. */
	while ((rc = q2q_conn_answer(c->conn, ask, &answer, server_now_us(c->server))) ==
		       -EMSGSIZE &&
	       out->n > 0)
		out->n--;
}

static void inquiry_finish(struct inquiry *q)
{
	struct client *c = q->requester;

	if (q->command == Q2Q_INBOUND)
		answer_inbound(c, q->ask, q, q->status ? q->status : "offline");
	else if (q->n_succeeded > 0)
		q2q_conn_answer(c->conn, q->ask, NULL, server_now_us(c->server));
	else
		q2q_conn_fail(c->conn, q->ask, Q2Q_ERROR_CONNECTION, "no listener there",
			      server_now_us(c->server));
	inquiry_free(q);
	client_pump(c);
}

/* ---- what a listener answered ------------------------------------------------------------ */

/*
 * Copies an entry with what the server may pass on. NULL: nothing is left of it, or no memory.
 */
static struct entry *entry_take(const struct q2q_listener *from, const struct client *listener)
{
	struct entry *e = calloc(1, sizeof(*e));
	struct q2q_listener *to;
	struct crypto_cert *cert = q2q_conn_peer_cert(listener->conn);
	struct amp_value values[5];
	struct amp_value *fields[5];
	size_t offsets[5], cert_bytes = 0;
	int rc = 0;

	if (!e)
		return NULL;
	to = &e->listener;
	*to = *from;
	to->certificate = (struct amp_value){ NULL, 0 };
	if (cert) {
		to->certificate.data = crypto_cert_der(cert, &cert_bytes);
		to->certificate.n_bytes = cert_bytes;
	}
	fields[0] = &to->id;
	fields[1] = &to->certificate;
	fields[2] = &to->description;
	fields[3] = &to->offer;
	fields[4] = &to->methods;
	buffer_init(&e->bytes, 2 * AMP_VALUE_MAX_BYTES, false);
	for (size_t i = 0; i < ARRAY_SIZE(fields) && rc == 0; i++) {
		values[i] = *fields[i];
		offsets[i] = buffer_used(&e->bytes);
		if (fields[i] == &to->methods) {
			rc = q2q_methods_relay(&from->methods, &e->bytes);
			values[i].n_bytes = buffer_used(&e->bytes) - offsets[i];
		} else if (values[i].data) {
			rc = buffer_append(&e->bytes, values[i].data, values[i].n_bytes);
		}
	}
	if (rc != 0) {
		entry_free(e);
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (values[i].data)
			*fields[i] =
				amp_value(buffer_peek(&e->bytes) + offsets[i], values[i].n_bytes);
	return e;
}

/* A tunnel's entry has an offer in place of methods, and its id joins the two connections. */
static bool entry_join(struct inquiry *q, struct client *listener, const struct q2q_listener *l)
{
	if (!l->offer.data)
		return l->methods.n_bytes > 0;
	if (!q->requester_is_q2q_tun || !q->requester->end || !listener->end)
		return false;
	return relay_rendezvous_add(q->requester->end, listener->end, (const char *)l->id.data,
				    l->id.n_bytes) == 0;
}

static void take_listeners(struct inquiry *q, struct client *listener,
			   const struct q2q_listeners *list)
{
	for (size_t i = 0; i < list->n && q->n_entries < Q2Q_LISTENERS_MAX; i++) {
		struct entry *e = entry_take(&list->entries[i], listener);

		if (!e)
			continue;
		if (!entry_join(q, listener, &e->listener)) {
			entry_free(e);
			continue;
		}
		TAILQ_INSERT_TAIL(&q->entries, e, entry);
		q->n_entries++;
	}
	clients_tell_gone(q->requester->server);
}

/*
 * Only words that we know pass, for others and for none stands a refusal; of several listeners the
 * one that tells most is passed on. One that is about to end says "offline" itself.
 */
static void take_status(struct inquiry *q, const struct amp_value *status)
{
	static const char *const words[] = { "offline", "refused", "down", "busy" };
	size_t had = 0, has = 1;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (q->status && strcmp(q->status, words[i]) == 0)
			had = i;
		if (amp_value_is(status, words[i]))
			has = i;
	}
	q->status = words[has > had ? has : had];
}

void inquiry_answered(struct client *listener, const struct q2q_event *event)
{
	struct server *s = listener->server;
	struct inquiry *q;

	HASH_FIND_BYHASHVALUE(hh, s->inquiries, &event->cookie, sizeof(event->cookie),
			      hash_of(event->cookie), q);
	if (!q)
		return;
	if (event->kind == Q2Q_EVENT_ANSWER) {
		q->n_succeeded++;
		if (q->command == Q2Q_INBOUND) {
			take_listeners(q, listener, &event->answer.inbound.listeners);
			take_status(q, &event->answer.inbound.status);
		}
	} else if (event->failure.error == Q2Q_ERROR_TIMED_OUT) {
		s->counters.inquiries_timed_out++;
		client_log(listener, LOG_NOTE_, "did not answer an inbound in %d s",
			   INQUIRY_TIMEOUT_S);
	}
	if (--q->n_waiting == 0)
		inquiry_finish(q);
	else if (q->requester_is_q2q_tun && q->n_entries > 0)
		net_timer_arm(&q->grace, server_now_us(s) + INQUIRY_GRACE_MS * US_PER_MS);
}

/* ---- asking ---------------------------------------------------------------------------------- */

static bool protocol_text(const struct amp_value *value,
			  char out[static Q2Q_PROTOCOL_MAX_BYTES + 1])
{
	if (!q2q_protocol_valid(value->data, value->n_bytes))
		return false;
	memcpy(out, value->data, value->n_bytes);
	out[value->n_bytes] = '\0';
	return true;
}

static bool is_host(const struct client *c, const char *host)
{
	struct ip_address ip;

	return ip_parse(host, &ip) == 0 && ip_equal(&ip, &c->remote.ip);
}

/* Asks the listeners, but not the requester itself nor who comes not from from_host. */
static void ask_all(struct inquiry *q, const char *address, const char *protocol,
		    const struct q2q_call *call, const char *from_host)
{
	struct server *s = q->requester->server;
	struct relay_end *ends[Q2Q_LISTENERS_MAX];
	const size_t n = relay_listeners(s->relay, address, protocol, ends, ARRAY_SIZE(ends));

	for (size_t i = 0; i < n; i++) {
		struct client *listener = client_of_end(ends[i]);

		if (listener == q->requester || (from_host && !is_host(listener, from_host)))
			continue;
		if (q2q_conn_call(listener->conn, call, q->number, INQUIRY_TIMEOUT_S * US_PER_S,
				  server_now_us(s)) != 0)
			continue;
		q->n_waiting++;
		client_pump(listener);
	}
}

static void local_entry(struct client *c, uint64_t ask)
{
	static const struct q2q_method by_virtual = { .kind = Q2Q_METHOD_VIRTUAL };
	struct q2q_answer answer = { .command = Q2Q_INBOUND };
	struct q2q_listener *entry = &answer.inbound.listeners.entries[0];
	const uint64_t now_us = server_now_us(c->server);
	struct ticket *ticket = &c->tickets[0];
	uint8_t random[RELAY_ID_BYTES / 2];
	struct buffer methods;

	for (size_t i = 0; i < CLIENT_TICKETS_MAX; i++) { /* a free one, else the oldest */
		struct ticket *t = &c->tickets[i];

		if (t->id[0] == '\0' || t->expires_us < ticket->expires_us)
			ticket = t;
		if (ticket->id[0] == '\0')
			break;
	}
	buffer_init(&methods, 64, false);
	if (crypto_random(random, sizeof(random)) != 0 ||
	    q2q_methods_append(&methods, &by_virtual) != 0) {
		buffer_fini(&methods);
		answer_inbound(c, ask, NULL, "refused");
		return;
	}
	hex_encode(random, sizeof(random), ticket->id);
	ticket->expires_us = now_us + CLIENT_TICKET_S * US_PER_S;
	*entry = (struct q2q_listener){
		.id = amp_text(ticket->id),
		.methods = amp_value(buffer_peek(&methods), buffer_used(&methods)),
		.expires_s = server_wall_s() + CLIENT_TICKET_S,
		.description = amp_text("q2q-server"),
		.expires_in_s = CLIENT_TICKET_S,
	};
	answer.inbound.listeners.n = 1;
	q2q_conn_answer(c->conn, ask, &answer, now_us);
	buffer_fini(&methods);
}

static const char *absent_status(struct server *s, const struct q2q_address *to)
{
	struct store_user user;
	const int rc = store_user_find(s->domain.store, to->resource, &user);
	const bool disabled = rc == 0 && user.disabled;

	secret_wipe(&user, sizeof(user));
	if (rc != 0)
		return "unknown";
	return disabled ? "disabled" : "offline";
}

/* The certificate that goes with the request: what TLS proved, or what a domain vouches for. */
static void set_certificate(const struct client *c, struct q2q_call *call)
{
	struct crypto_cert *cert = c->authorized ? q2q_conn_peer_cert(c->conn) : NULL;
	const char *subject = cert ? crypto_cert_subject(cert) : NULL;
	size_t n_bytes;

	if (!subject || q2q_address_kind(&call->inbound.from) != Q2Q_USER) {
		call->inbound.certificate = (struct amp_value){ NULL, 0 };
	} else if (strcmp(subject, call->inbound.from.domain) != 0) {
		call->inbound.certificate.data = crypto_cert_der(cert, &n_bytes);
		call->inbound.certificate.n_bytes = n_bytes;
	}
}

static bool inbound_allowed(struct client *c, const struct q2q_call *call)
{
	if (strcmp(call->inbound.to.domain, c->server->domain.name) != 0)
		return false;
	return client_may_speak_for(c, &call->inbound.from);
}

void inquiry_inbound(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	struct server *s = c->server;
	const struct q2q_address *to = &call->inbound.to;
	struct q2q_call relayed = *call;
	char protocol[Q2Q_PROTOCOL_MAX_BYTES + 1];
	struct inquiry *q;

	if (!inbound_allowed(c, call)) {
		client_log(c, LOG_NOTE_, "inbound from %s to %s refused", call->inbound.from.text,
			   to->text);
		q2q_conn_fail(c->conn, ask, Q2Q_ERROR_VERIFY,
			      "the certificate of this connection does not cover that address",
			      server_now_us(s));
		return;
	}
	if (!c->end || !protocol_text(&call->inbound.protocol, protocol)) {
		answer_inbound(c, ask, NULL, "refused"); /* nothing is served in clear */
		return;
	}
	if (strcmp(to->resource, ACCOUNTS_RESOURCE) == 0 && strcmp(protocol, ADMIN_PROTOCOL) == 0) {
		local_entry(c, ask);
		return;
	}
	if (c->n_inquiries >= CLIENT_INQUIRIES_MAX ||
	    relay_charge_signal(c->end, server_now_us(s)) != 0) {
		s->counters.limited++;
		answer_inbound(c, ask, NULL, "limited");
		return;
	}
	q = inquiry_new(c, ask, Q2Q_INBOUND);
	if (!q) {
		answer_inbound(c, ask, NULL, "limited");
		return;
	}
	q->requester_is_q2q_tun = call->inbound.q2q_tun;
	set_certificate(c, &relayed);
	/* A listener sends a datagram there: only to who asks. */
	if (!is_host(c, relayed.inbound.udp_source.host))
		relayed.inbound.udp_source = (struct q2q_host_port){ .host = "" };
	ask_all(q, to->text, protocol, &relayed, NULL);
	if (q->n_waiting == 0) {
		q->status = absent_status(s, to);
		inquiry_finish(q);
	}
}

void inquiry_bind_udp(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	struct server *s = c->server;
	const uint64_t now_us = server_now_us(s);
	const struct q2q_address *listener = &call->bind_udp.q2qsrc;
	char protocol[Q2Q_PROTOCOL_MAX_BYTES + 1];
	struct inquiry *q;

	if (!c->end || strcmp(listener->domain, s->domain.name) != 0 ||
	    !client_may_speak_for(c, &call->bind_udp.q2qdst)) {
		client_log(c, LOG_NOTE_, "bind-udp for %s refused", call->bind_udp.q2qdst.text);
		q2q_conn_fail(c->conn, ask, Q2Q_ERROR_UNKNOWN, "not authorized", now_us);
		return;
	}
	if (!protocol_text(&call->bind_udp.protocol, protocol) ||
	    !is_host(c, call->bind_udp.udpdst.host) || c->n_inquiries >= CLIENT_INQUIRIES_MAX ||
	    relay_charge_signal(c->end, now_us) != 0 || !(q = inquiry_new(c, ask, Q2Q_BIND_UDP))) {
		q2q_conn_fail(c->conn, ask, Q2Q_ERROR_CONNECTION, "refused", now_us);
		return;
	}
	ask_all(q, listener->text, protocol, call, call->bind_udp.udpsrc.host);
	if (q->n_waiting == 0)
		inquiry_finish(q);
}
