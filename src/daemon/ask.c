/*
 * Asking for a peer: `inbound` at its server, and what the answers mean.
 */
#include "daemon/internal.h"

#include <stdio.h>

#define INBOUND_US (15 * US_PER_S)
#define ASKS_MAX   32 /* at one server at a time; the others wait for an answer */

enum session_why ask_why(const struct problem *p)
{
	return p->code == CTL_UNTRUSTED ? SESSION_WHY_UNTRUSTED : SESSION_WHY_SERVER;
}

void ask_failed(struct link *link, enum session_why why, const struct problem *problem)
{
	link->ask_hub = NULL;
	link->ask_sent = false;
	links_attempt_failed(link, why, problem);
}

void ask_send(struct hub_link *h, struct link *link)
{
	struct daemon *d = h->daemon;
	struct q2q_call call = { .command = Q2Q_INBOUND };
	size_t der_bytes;
	const uint8_t *der = crypto_cert_der(link->identity->cert, &der_bytes);
	struct problem problem;
	int r;

	if (h->n_asking >= ASKS_MAX)
		return;
	call.inbound.from = link->identity->address;
	call.inbound.to = link->peer->address;
	call.inbound.protocol = amp_text(HUB_PROTOCOL);
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
	h->n_asking++;
	serverlink_pump(h->server);
}

static struct link *next_waiting(struct hub_link *h)
{
	struct link *link;

	LIST_FOREACH (link, &h->daemon->links, entry)
		if (link->ask_hub == h && !link->ask_sent)
			break;
	return link;
}

void ask_over(struct hub_link *h)
{
	struct link *link;

	if (h->n_asking > 0)
		h->n_asking--;
	while (hub_is_ready(h) && h->n_asking < ASKS_MAX && (link = next_waiting(h)))
		ask_send(h, link);
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
	} else if (hub_is_ready(h)) {
		ask_send(h, link);
	} else if (h->problem.code && h->server->state == SERVERLINK_IDLE &&
		   !h->server->report.queued && h->problem.code != CTL_UNTRUSTED) {
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
	case SESSION_WHY_DISABLED:
		problem_set(p, CTL_DENIED, "the server of %s has disabled the account %s",
			    link->peer->address.domain, peer);
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
bool ask_trusts_new(struct link *link)
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
		if (ask_trusts_new(link) &&
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
			    "%s is online with a program that does not speak " HUB_PROTOCOL,
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
	if (session_answer(link_session(link), &answer, link_now_us(link))) {
		problem_set(p, CTL_UNTRUSTED,
			    "the offer of %s cannot be opened: it was not made by the key of its "
			    "certificate, or not for us",
			    link->peer->address.text);
		link->problem = *p;
	}
	index_update(link); /* the peer's signals may be right behind */
	links_pump(link);
	return true;
}

void ask_answered(struct hub_link *h, const struct q2q_event *event)
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
	ask_failed(link, ask_why(&problem), &problem);
}

void ask_error(struct hub_link *h, const struct q2q_event *event)
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
