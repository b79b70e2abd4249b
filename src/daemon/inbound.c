/*
 * What servers ask and tell us: inbound of peers, their signals, relayed datagrams.
 */
#include "daemon/internal.h"

#define OFFER_LIFE_S 120

static struct log_limit strange_limit = { .interval_us = 60 * US_PER_S, .burst = 10 };

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
	entry->description = amp_text(HUB_PROTOCOL);
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
		/* Whom the user allows hears that much; others hear nothing. */
		if (peer && peer->held && peer->allowed)
			return "down";
		requests_note(d, &call->inbound.from, cert);
		return "refused";
	}
	switch (peers_judge(d, peer, cert, &problem)) {
	case PEER_TRUSTED:
		return NULL;
	case PEER_UNPINNED:
		/* The user was asked whether a key is right, and has not said yes. */
		if (peer->link && peer->link->offered_peer && !ask_trusts_new(peer->link))
			return "refused";
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

	if (h->daemon->stopping) {
		/* Saying goodbye to peers and gateways: they are to try again, not to give up. */
		answer_empty(h, event->ask, "offline");
		return;
	}
	if (!h->own || !amp_value_is(&call->inbound.protocol, HUB_PROTOCOL) ||
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
		      : links_get_called(h->daemon, peers_find(h->daemon, call->inbound.from.text),
					 h->identity, &problem);
	if (!link) {
		answer_empty(h, event->ask, status ? status : "refused");
		return;
	}
	if (call->inbound.request.n_bytes == OFFER_ID_BYTES)
		memcpy(request, call->inbound.request.data, OFFER_ID_BYTES);
	inbound.request = request;
	inbound.peer_cert = cert;
	r = session_inbound(link_session(link), &inbound, &reply, link_now_us(link));
	index_update(link); /* signals may be right behind */
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
	const struct amp_value *id =
		event->command == Q2Q_GONE ? &event->call.gone.id : &event->call.signal.id;
	const struct amp_value *body = &event->call.signal.body;
	static uint8_t relay[SESSION_RELAY_BYTES_MAX]; /* the session decrypts in place */
	const bool gone = event->command == Q2Q_GONE;
	const size_t n_bytes = gone ? 0 : body->n_bytes;
	struct daemon *d = h->daemon;
	char text[OFFER_ID_BYTES + 1];
	struct worker *w;

	if (!text_of(id, text) || n_bytes > sizeof(relay))
		return;
	w = d->n_workers > 1 ? directory_find(d, SESSION_NAME_ID, text, OFFER_ID_BYTES)
			     : &d->workers[0];
	if (w && w->number != 0) {
		workers_pass_told(w, event->command, text, body->data, n_bytes);
	} else if (w) {
		if (n_bytes)
			memcpy(relay, body->data, n_bytes);
		links_told(w, event->command, text, relay, n_bytes);
	}
}

void hub_call(struct hub_link *h, const struct q2q_event *event)
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
