/*
 * The control connections that we keep: the own servers', where we listen, and
 * those of the domains of our peers. What they carry is inbound, signals and
 * relayed datagrams; each goes to the session it belongs to.
 */
#include "daemon/internal.h"

#include <stdio.h>

#define PROTOCOL        "q2q-tun"
#define RETRY_FIRST_US  (1 * US_PER_S)
#define RETRY_MAX_US    (30 * US_PER_S)
#define UNTRUSTED_RETRY (300 * US_PER_S)
#define IDLE_US         (60 * US_PER_S)
#define OFFER_LIFE_S    120
#define INBOUND_US      (15 * US_PER_S)

static struct log_limit strange_limit = { .interval_us = 60 * US_PER_S, .burst = 10 };

static struct hub_link *hub_find(struct daemon *d, const struct identity *identity,
				 const char *domain)
{
	struct hub_link *h;

	LIST_FOREACH (h, &d->hubs, entry)
		if (h->identity == identity && !strcmp(h->domain, domain))
			return h;
	return NULL;
}

struct hub_link *hub_own(struct daemon *d, const struct identity *identity)
{
	return identity ? hub_find(d, identity, identity->address.domain) : NULL;
}

/* ---- asking ---- */

static enum session_why why_of(const struct problem *p)
{
	return p->code == CTL_UNTRUSTED ? SESSION_WHY_UNTRUSTED : SESSION_WHY_SERVER;
}

static void ask_failed(struct link *link, enum session_why why, const struct problem *problem)
{
	link->ask_hub = NULL;
	link->ask_sent = false;
	links_attempt_failed(link, why, problem);
}

static void send_ask(struct hub_link *h, struct link *link)
{
	struct daemon *d = h->daemon;
	struct q2q_call call = { .command = Q2Q_INBOUND };
	size_t der_bytes;
	const uint8_t *der = crypto_cert_der(link->identity->cert, &der_bytes);
	struct problem problem;
	int r;

	call.inbound.from = link->identity->address;
	call.inbound.to = link->peer->address;
	call.inbound.protocol = amp_text(PROTOCOL);
	call.inbound.q2q_tun = true;
	call.inbound.certificate = amp_value(der, der_bytes);
	call.inbound.request = amp_text(link->asking);
	link->ask_cookie = ++d->next_cookie;
	link->ask_sent = true;
	r = q2q_conn_call(h->server->conn, &call, link->ask_cookie, INBOUND_US,
			  net_loop_now_us(d->loop));
	if (r) {
		problem_set(&problem, CTL_FAILED, "cannot ask the server of %s: %s", h->domain,
			    strerror(-r));
		ask_failed(link, SESSION_WHY_SERVER, &problem);
		return;
	}
	serverlink_pump(h->server);
}

void hub_ask(struct link *link, const char *request)
{
	struct hub_link *h = hub_get(link->daemon, link->identity, link->peer->address.domain);
	struct problem problem;

	snprintf(link->asking, sizeof(link->asking), "%s", request);
	link->ask_hub = h;
	link->ask_sent = false;
	if (!h) {
		problem_set(&problem, CTL_FAILED, "out of memory");
		ask_failed(link, SESSION_WHY_SERVER, &problem);
	} else if (h->ready) {
		send_ask(h, link);
	} else if (h->problem.code && h->server->state == SERVERLINK_IDLE &&
		   h->problem.code != CTL_UNTRUSTED) {
		/* It failed a moment ago and has its own time for the next attempt. */
		problem = h->problem;
		ask_failed(link, SESSION_WHY_SERVER, &problem);
	} else {
		hub_wake(h);
	}
}

static struct link *link_by_cookie(struct daemon *d, uint64_t cookie)
{
	struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		if (link->ask_sent && link->ask_cookie == cookie)
			return link;
	return NULL;
}

static void empty_answer(struct link *link, const struct amp_value *status, struct problem *p)
{
	const enum session_why why =
		session_why_from_status((const char *)status->data, status->n_bytes);
	const char *peer = link->peer->address.text, *own = link->identity->address.text;

	switch (why) {
	case SESSION_WHY_UNKNOWN:
		problem_set(p, CTL_NOT_FOUND, "the server of %s has no account %s",
			    link->peer->address.domain, peer);
		problem_hint(p, "is the address written right?");
		break;
	case SESSION_WHY_REFUSED:
		problem_set(p, CTL_DENIED, "%s has not allowed %s to connect", peer, own);
		problem_hint(p, "on the machine of %s: q2q-tun allow %s", peer, own);
		break;
	case SESSION_WHY_PEER_DOWN:
		problem_set(p, CTL_DENIED, "%s has taken its side of this tunnel down", peer);
		problem_hint(p, "on the machine of %s: q2q-tun up %s", peer, own);
		break;
	case SESSION_WHY_BUSY:
		problem_set(p, CTL_FAILED, "%s is asking us at the same moment", peer);
		break;
	case SESSION_WHY_SERVER:
		problem_set(p, CTL_FAILED, "the server of %s limits how often we may ask",
			    link->peer->address.domain);
		break;
	default:
		problem_set(p, CTL_OFFLINE, "%s is offline: its daemon is not connected to %s",
			    peer, link->peer->address.domain);
		problem_hint(p,
			     "the tunnel comes up by itself once it is back. On the machine of %s: "
			     "q2q-tun status",
			     peer);
		break;
	}
	ask_failed(link, why, p);
}

/* Somebody said in advance that a new key is fine. */
static bool trusts_new(struct link *link)
{
	struct op *op;

	if (link->daemon->options->accept_new)
		return true;
	TAILQ_FOREACH (op, &link->daemon->ops, all)
		if (op->peer == link->peer && op->request.command == CTL_UP &&
		    ctl_bool(&op->request, "yes"))
			return true;
	return false;
}

static void unpinned(struct link *link, struct crypto_cert *cert, struct problem *p)
{
	char fingerprint[CRYPTO_FINGERPRINT_BYTES];

	crypto_cert_unref(link->offered_peer);
	link->offered_peer = crypto_cert_ref(cert);
	crypto_cert_fingerprint(cert, fingerprint);
	problem_set(p, CTL_UNTRUSTED,
		    "%s is not known here yet, and nobody said that its key %s is right",
		    link->peer->address.text, fingerprint);
	problem_hint(p, "on a terminal you are asked; or: q2q-tun peers pin %s %s",
		     link->peer->address.text, fingerprint);
}

/* Is this entry by the peer that we mean? Pins what may be pinned. */
static bool entry_trusted(struct link *link, struct crypto_cert *cert, struct problem *p)
{
	switch (peers_judge(link->daemon, link->peer, cert, p)) {
	case PEER_TRUSTED:
		return true;
	case PEER_UNPINNED:
		if (trusts_new(link) &&
		    !peers_pin(link->daemon, link->peer, crypto_cert_spki_hash(cert))) {
			log_note("%s: its key is trusted from now on", link->peer->address.text);
			return true;
		}
		unpinned(link, cert, p);
		return false;
	default:
		return false;
	}
}

static bool use_entry(struct hub_link *h, struct link *link, const struct q2q_listener *entry,
		      struct problem *p)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	struct session_answer answer = { .request = link->asking, .route = h };
	char id[OFFER_ID_BYTES + 1];

	if (!entry->offer.data || !entry->certificate.data || entry->id.n_bytes != OFFER_ID_BYTES ||
	    crypto_cert_from_der(entry->certificate.data, entry->certificate.n_bytes, &cert)) {
		problem_set(p, CTL_FAILED,
			    "%s is online with a program that does not speak " PROTOCOL,
			    link->peer->address.text);
		return false;
	}
	if (!entry_trusted(link, cert, p))
		return false;
	memcpy(id, entry->id.data, OFFER_ID_BYTES);
	id[OFFER_ID_BYTES] = '\0';
	answer.id = id;
	answer.peer_cert = cert;
	answer.offer = entry->offer.data;
	answer.offer_bytes = entry->offer.n_bytes;
	link->ask_hub = NULL;
	link->ask_sent = false;
	if (session_answer(link->session, &answer, net_loop_now_us(h->daemon->loop))) {
		problem_set(p, CTL_UNTRUSTED,
			    "the offer of %s cannot be opened: it was not made by the key of its "
			    "certificate, or not for us",
			    link->peer->address.text);
		link->problem = *p;
	}
	links_pump(link);
	return true;
}

static void inbound_answered(struct hub_link *h, const struct q2q_event *event)
{
	struct link *link = link_by_cookie(h->daemon, event->cookie);
	const struct q2q_listeners *list = &event->answer.inbound.listeners;
	struct problem problem = { .code = CTL_DONE };

	if (!link)
		return;
	if (list->n == 0) {
		empty_answer(link, &event->answer.inbound.status, &problem);
		return;
	}
	/* One user may be on several machines; the first that shows the right key is taken. */
	for (size_t i = 0; i < list->n; i++)
		if (use_entry(h, link, &list->entries[i], &problem))
			return;
	ask_failed(link, why_of(&problem), &problem);
}

static void inbound_failed(struct hub_link *h, const struct q2q_event *event)
{
	struct link *link = link_by_cookie(h->daemon, event->cookie);
	struct problem problem;

	if (!link)
		return;
	if (event->failure.error == Q2Q_ERROR_TIMED_OUT)
		problem_set(&problem, CTL_TIMED_OUT, "%s did not answer in time",
			    link->peer->address.text);
	else
		problem_set(&problem, CTL_OFFLINE, "the server of %s could not ask %s: %s %s",
			    h->domain, link->peer->address.text, event->failure.code_text,
			    event->failure.description);
	ask_failed(link, SESSION_WHY_SERVER, &problem);
}

/* ---- being asked ---- */

static void answer_empty(struct hub_link *h, uint64_t ask, const char *status)
{
	struct q2q_answer answer = { .command = Q2Q_INBOUND };

	answer.inbound.status = amp_text(status);
	q2q_conn_answer(h->server->conn, ask, &answer, net_loop_now_us(h->daemon->loop));
}

static void answer_offer(struct hub_link *h, uint64_t ask, const struct session_reply *reply)
{
	struct q2q_answer answer = { .command = Q2Q_INBOUND };
	struct q2q_listener *entry = &answer.inbound.listeners.entries[0];

	answer.inbound.listeners.n = 1;
	entry->id = amp_text(reply->id);
	entry->methods = amp_value("", 0);
	entry->description = amp_text(PROTOCOL);
	entry->expires_s = wall_clock_s() + OFFER_LIFE_S;
	entry->expires_in_s = OFFER_LIFE_S;
	entry->offer = amp_value(reply->offer, reply->offer_bytes);
	q2q_conn_answer(h->server->conn, ask, &answer, net_loop_now_us(h->daemon->loop));
}

/* NULL, or the status of a refusal. */
static const char *may_connect(struct hub_link *h, const struct q2q_call *call,
			       struct crypto_cert *cert)
{
	struct daemon *d = h->daemon;
	struct peer *peer = peers_find(d, call->inbound.from.text);
	struct problem problem;

	if (!peer || !peer_is_allowed(peer)) {
		if (peer && peer->held)
			return "down";
		requests_note(d, &call->inbound.from, cert);
		return "refused";
	}
	switch (peers_judge(d, peer, cert, &problem)) {
	case PEER_TRUSTED:
		return NULL;
	case PEER_UNPINNED:
		/* Allowed by name; its domain vouches for the key that we see first. */
		if (peers_pin(d, peer, crypto_cert_spki_hash(cert)))
			return "refused";
		log_note("%s: its key is trusted from now on", peer->address.text);
		return NULL;
	default:
		if (log_allowed(&strange_limit, net_loop_now_us(d->loop)))
			log_warn("%s: its attempt to connect is refused: %s. %s",
				 peer->address.text, problem.error, problem.hint);
		return "refused";
	}
}

static void on_inbound(struct hub_link *h, const struct q2q_event *event)
{
	const struct q2q_call *call = &event->call;
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	struct session_inbound inbound = { .route = h };
	char request[OFFER_ID_BYTES + 1] = "";
	struct session_reply reply;
	struct problem problem;
	struct link *link;
	const char *status;
	int r;

	if (!h->own || h->daemon->stopping || !amp_value_is(&call->inbound.protocol, PROTOCOL) ||
	    !call->inbound.q2q_tun ||
	    !q2q_address_equal(&call->inbound.to, &h->identity->address) ||
	    !call->inbound.certificate.data ||
	    crypto_cert_from_der(call->inbound.certificate.data, call->inbound.certificate.n_bytes,
				 &cert)) {
		answer_empty(h, event->ask, NULL);
		return;
	}
	status = may_connect(h, call, cert);
	link = status ? NULL
		      : links_get(h->daemon, peers_find(h->daemon, call->inbound.from.text),
				  &problem);
	if (!link) {
		answer_empty(h, event->ask, status ? status : "refused");
		return;
	}
	if (call->inbound.request.n_bytes == OFFER_ID_BYTES)
		memcpy(request, call->inbound.request.data, OFFER_ID_BYTES);
	inbound.request = request;
	inbound.peer_cert = cert;
	r = session_inbound(link->session, &inbound, &reply, net_loop_now_us(h->daemon->loop));
	if (r)
		answer_empty(h, event->ask, r == SESSION_BUSY ? "busy" : NULL);
	else
		answer_offer(h, event->ask, &reply);
	links_pump(link);
}

static bool text_of(const struct amp_value *value, char out[static OFFER_ID_BYTES + 1])
{
	if (value->n_bytes != OFFER_ID_BYTES)
		return false;
	memcpy(out, value->data, OFFER_ID_BYTES);
	out[OFFER_ID_BYTES] = '\0';
	return strlen(out) == OFFER_ID_BYTES;
}

static void on_told(struct hub_link *h, const struct q2q_event *event)
{
	static uint8_t relay[SESSION_RELAY_BYTES_MAX]; /* the session decrypts in place */
	const struct amp_value *id =
		event->command == Q2Q_GONE ? &event->call.gone.id : &event->call.signal.id;
	const struct amp_value *body = &event->call.signal.body;
	const uint64_t now_us = net_loop_now_us(h->daemon->loop);
	char text[OFFER_ID_BYTES + 1];
	struct link *link;

	if (!text_of(id, text))
		return;
	link = links_by_id(h->daemon, text);
	if (!link)
		return;
	if (event->command == Q2Q_GONE) {
		session_gone(link->session, text, now_us);
	} else if (event->command == Q2Q_SIGNAL) {
		session_signal(link->session, text, body->data, body->n_bytes, now_us);
	} else if (body->n_bytes <= sizeof(relay)) {
		memcpy(relay, body->data, body->n_bytes);
		session_relay(link->session, text, relay, body->n_bytes, now_us);
	}
	links_pump(link);
}

static void on_call(struct hub_link *h, const struct q2q_event *event)
{
	const uint64_t now_us = net_loop_now_us(h->daemon->loop);

	switch (event->command) {
	case Q2Q_INBOUND:
		on_inbound(h, event);
		return;
	case Q2Q_SIGNAL:
	case Q2Q_RELAY:
	case Q2Q_GONE:
		on_told(h, event);
		return;
	default:
		if (event->ask)
			q2q_conn_fail(h->server->conn, event->ask, Q2Q_ERROR_UNHANDLED, NULL,
				      now_us);
		return;
	}
}

/* ---- the connection ---- */

static void wake_links(struct hub_link *h)
{
	const uint64_t now_us = net_loop_now_us(h->daemon->loop);
	struct link *link, *next;

	for (link = LIST_FIRST(&h->daemon->links); link; link = next) {
		next = LIST_NEXT(link, entry);
		if (link->identity != h->identity)
			continue;
		if (link->ask_hub == h && !link->ask_sent)
			send_ask(h, link);
		else if (!strcmp(link->peer->address.domain, h->domain))
			session_wake(link->session, now_us);
		links_pump(link);
	}
}

static void hub_ready(struct hub_link *h)
{
	h->ready = true;
	h->n_failures = 0;
	h->problem.code = CTL_DONE;
	gather_add_server(h->daemon, &h->server->remote);
	wake_links(h);
	control_event(h->daemon, json_pack("{s:s,s:s}", "server", h->domain, "state", "connected"));
}

static void start_listen(struct hub_link *h)
{
	struct q2q_call call = { .command = Q2Q_LISTEN };
	struct buffer protocols;
	int r;

	buffer_init(&protocols, 64, false);
	r = amp_list_append(&protocols, PROTOCOL, strlen(PROTOCOL));
	call.listen.from = h->identity->address;
	call.listen.protocols = amp_value(buffer_peek(&protocols), buffer_used(&protocols));
	call.listen.description = amp_text(PROTOCOL);
	if (!r)
		r = q2q_conn_call(h->server->conn, &call, ++h->daemon->next_cookie, 0,
				  net_loop_now_us(h->daemon->loop));
	buffer_fini(&protocols);
	if (r)
		log_error("%s: cannot listen at the server of %s: %s", h->identity->address.text,
			  h->domain, strerror(-r));
	serverlink_pump(h->server);
}

static void on_ready(void *user, struct serverlink *l)
{
	struct hub_link *h = user;
	char text[ENDPOINT_TEXT_BYTES];

	log_info("%s: connected to the server of %s at %s", h->identity->address.text, h->domain,
		 endpoint_format(&l->remote, text));
	if (h->own)
		start_listen(h);
	hub_ready(h);
}

static void listen_answered(struct hub_link *h, const struct q2q_event *event)
{
	h->listening = event->kind == Q2Q_EVENT_ANSWER;
	if (!h->listening && event->failure.error != Q2Q_ERROR_CONNECTION_LOST)
		log_error("%s: the server of %s does not let us listen: %s %s",
			  h->identity->address.text, h->domain, event->failure.code_text,
			  event->failure.description);
}

static void on_event(void *user, struct serverlink *l, const struct q2q_event *event)
{
	struct hub_link *h = user;

	(void)l;
	switch (event->kind) {
	case Q2Q_EVENT_CALL:
		on_call(h, event);
		return;
	case Q2Q_EVENT_ANSWER:
		if (event->command == Q2Q_INBOUND)
			inbound_answered(h, event);
		else if (event->command == Q2Q_LISTEN)
			listen_answered(h, event);
		return;
	case Q2Q_EVENT_ERROR:
		if (event->command == Q2Q_INBOUND)
			inbound_failed(h, event);
		else if (event->command == Q2Q_LISTEN)
			listen_answered(h, event);
		return;
	default:
		return;
	}
}

/* Sessions that went through here must know; those that wait for it fail for now. */
static void drop_links(struct hub_link *h, bool fail)
{
	const uint64_t now_us = net_loop_now_us(h->daemon->loop);
	struct link *link, *next;

	for (link = LIST_FIRST(&h->daemon->links); link; link = next) {
		next = LIST_NEXT(link, entry);
		session_route_lost(link->session, h, now_us);
		if (link->ask_hub == h && fail)
			ask_failed(link, why_of(&h->problem), &h->problem);
		links_pump(link);
	}
}

static void plan_retry(struct hub_link *h)
{
	const uint64_t now_us = net_loop_now_us(h->daemon->loop);
	uint64_t delay_us = RETRY_FIRST_US;
	uint8_t jitter = 0;

	for (unsigned i = 0; i < h->n_failures && delay_us < RETRY_MAX_US; i++)
		delay_us += delay_us / 2;
	delay_us = min_u64(delay_us, RETRY_MAX_US);
	if (h->problem.code == CTL_UNTRUSTED || h->problem.code == CTL_DENIED)
		delay_us = UNTRUSTED_RETRY;
	if (!crypto_random(&jitter, 1))
		delay_us += delay_us * jitter / 1024;
	h->n_failures++;
	net_timer_arm(&h->retry, now_us + delay_us);
}

/* Somebody who waits for this connection said in advance that a new key is fine. */
static bool somebody_trusts(struct hub_link *h)
{
	struct link *link;

	LIST_FOREACH (link, &h->daemon->links, entry)
		if (link->ask_hub == h && trusts_new(link))
			return true;
	return false;
}

static void on_failed(void *user, struct serverlink *l, const struct problem *problem)
{
	struct hub_link *h = user;

	if (l->untrusted_new && somebody_trusts(h) && !hub_trust(h))
		return;
	/* Once per outage, then only for those who ask. */
	if (h->ready || h->n_failures == 0)
		log_warn("%s: %s; it is tried again", h->identity->address.text, problem->error);
	h->problem = *problem;
	h->ready = false;
	h->listening = false;
	plan_retry(h);
	drop_links(h, true);
	control_event(h->daemon, json_pack("{s:s,s:s,s:s}", "server", h->domain, "state",
					   "disconnected", "reason", problem->error));
}

static void on_retry(void *user, uint64_t now_us)
{
	struct hub_link *h = user;

	(void)now_us;
	if (h->server->state == SERVERLINK_IDLE)
		serverlink_start(h->server);
}

void hub_wake(struct hub_link *h)
{
	if (h->server->state != SERVERLINK_IDLE)
		return;
	net_timer_disarm(&h->retry);
	serverlink_start(h->server);
}

void hub_wake_all(struct daemon *d)
{
	struct hub_link *h;

	LIST_FOREACH (h, &d->hubs, entry) {
		h->n_failures = 0;
		hub_wake(h);
	}
}

int hub_trust(struct hub_link *h)
{
	int r;

	if (!h->server->offered)
		return -ENOENT;
	r = domains_set(&h->daemon->domains, h->domain, h->server->offered);
	if (r)
		return r;
	log_note("%s: its key is trusted from now on", h->domain);
	h->problem.code = CTL_DONE;
	hub_wake(h);
	return 0;
}

/* ---- life ---- */

static int make_server(struct hub_link *h)
{
	const struct serverlink_config config = {
		.daemon = h->daemon,
		.domain = h->domain,
		.from = h->identity->address,
		.authorize = true,
		.tls = h->identity->tls,
		.on_ready = on_ready,
		.on_failed = on_failed,
		.on_event = on_event,
		.user = h,
	};

	return serverlink_new(&config, &h->server);
}

static void hub_free(struct hub_link *h)
{
	drop_links(h, true);
	net_timer_disarm(&h->retry);
	serverlink_free(h->server);
	LIST_REMOVE(h, entry);
	free(h);
}

struct hub_link *hub_get(struct daemon *d, struct identity *identity, const char *domain)
{
	struct hub_link *h = hub_find(d, identity, domain);

	if (h)
		return h;
	h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	h->daemon = d;
	h->identity = identity;
	h->own = !strcmp(domain, identity->address.domain);
	h->idle_since_us = NEVER_US;
	snprintf(h->domain, sizeof(h->domain), "%s", domain);
	net_timer_init(&h->retry, d->loop, on_retry, h);
	if (make_server(h)) {
		free(h);
		return NULL;
	}
	LIST_INSERT_HEAD(&d->hubs, h, entry);
	serverlink_start(h->server);
	return h;
}

int hub_start(struct daemon *d)
{
	struct identity *id;

	TAILQ_FOREACH (id, &d->identities.list, entry)
		if (!hub_get(d, id, id->address.domain))
			return -ENOMEM;
	return 0;
}

void hub_stop(struct daemon *d)
{
	struct hub_link *h;

	while ((h = LIST_FIRST(&d->hubs)))
		hub_free(h);
}

int hub_identity_changed(struct daemon *d, struct identity *identity)
{
	struct hub_link *h, *next;
	struct link *link;

	for (h = LIST_FIRST(&d->hubs); h; h = next) {
		next = LIST_NEXT(h, entry);
		if (h->identity == identity)
			hub_free(h);
	}
	LIST_FOREACH (link, &d->links, entry)
		if (link->identity == identity)
			session_set_identity(link->session, identity->tls_ptcp, identity->key);
	return hub_get(d, identity, identity->address.domain) ? 0 : -ENOMEM;
}

void hub_signal(struct daemon *d, void *route, const char *id, const void *body, size_t n_bytes,
		bool relay)
{
	struct q2q_call call = { .command = relay ? Q2Q_RELAY : Q2Q_SIGNAL };
	struct hub_link *h;

	/* The route may be gone by now: look before touching it. */
	LIST_FOREACH (h, &d->hubs, entry)
		if (h == route)
			break;
	if (!h || !h->ready || !h->server->conn)
		return;
	call.signal.id = amp_text(id);
	call.signal.body = amp_value(body, n_bytes);
	q2q_conn_tell(h->server->conn, &call, net_loop_now_us(d->loop));
	serverlink_pump(h->server);
}

static bool is_needed(const struct hub_link *h)
{
	const struct link *link;

	if (h->own)
		return true;
	LIST_FOREACH (link, &h->daemon->links, entry)
		if (link->identity == h->identity &&
		    !strcmp(link->peer->address.domain, h->domain) &&
		    session_state_of(link->session) != SESSION_DOWN)
			return true;
	return false;
}

void hub_sweep(struct daemon *d)
{
	const uint64_t now_us = net_loop_now_us(d->loop);
	struct hub_link *h, *next;

	for (h = LIST_FIRST(&d->hubs); h; h = next) {
		next = LIST_NEXT(h, entry);
		if (is_needed(h))
			h->idle_since_us = NEVER_US;
		else if (h->idle_since_us == NEVER_US)
			h->idle_since_us = now_us;
		else if (now_us - h->idle_since_us > IDLE_US)
			hub_free(h);
	}
}
