/*
 * Rendezvous: two offers, sealed and signed, through the servers.
 *
 *   requester                     servers                      listener
 *     inbound(request) ------------------------------------------->
 *                                      id, offer(share, cid, tag, hello)
 *     <-----------------------------------------------------------
 *     signal(id): offer(share, cid, tag, keep or takes hello,
 *                       candidates) ------------------------------>
 *     relay: the answer to hello, first packets ------------------->
 *     <------------------------------ signal(id): offer(candidates)
 *
 * The listener tells no address before it has the requester's offer: only then
 * do both know the key of the probes. `tag` says "I still have the association
 * of this tag"; the requester decides: where both have the same, it goes on over
 * the new rendezvous, else both start anew.
 *
 * Where both ask at once, the attempt of the smaller address goes on.
 */
#include "session/internal.h"

#include <stdio.h>

void rendezvous_clear(struct rendezvous *r)
{
	crypto_cert_unref(r->peer_cert);
	crypto_tls_free(r->begun);
	secret_wipe(r, sizeof(*r));
	r->deadline_us = r->told_us = NEVER_US;
}

struct keys_rendezvous rendezvous_keys(const struct session *s, const struct rendezvous *r)
{
	struct keys_rendezvous keys = {
		.requester = r->requester ? s->own_address : s->peer_address,
		.listener = r->requester ? s->peer_address : s->own_address,
	};

	memcpy(keys.id, r->id, sizeof(keys.id));
	memcpy(keys.share_requester, r->requester ? r->own_share : r->peer_share, KEYS_SHARE_BYTES);
	memcpy(keys.share_listener, r->requester ? r->peer_share : r->own_share, KEYS_SHARE_BYTES);
	return keys;
}

/* ---- sealing ---- */

/* "q2q-tun offer v1" || 0 || from || 0 || to || 0 || rendezvous id */
static size_t seal_context(const char *from, const char *to, const char *id, uint8_t *out,
			   size_t out_bytes)
{
	struct writer w = writer_over(out, out_bytes);

	writer_bytes(&w, "q2q-tun offer v1", 17);
	writer_bytes(&w, from, strlen(from) + 1);
	writer_bytes(&w, to, strlen(to) + 1);
	writer_bytes(&w, id, strlen(id));
	assert(!w.failed);
	return w.used_bytes;
}

/* The sealed bytes; 0 or a fault. */
static int seal_offer(const struct session *s, const struct rendezvous *r,
		      const struct offer *offer, uint8_t *out, size_t out_bytes, size_t *ret_bytes)
{
	uint8_t plain[OFFER_PLAIN_BYTES_MAX], context[CONTEXT_BYTES_MAX];
	const size_t plain_bytes = offer_encode(offer, plain, sizeof(plain));
	const size_t context_bytes =
		seal_context(s->own_address, s->peer_address, r->id, context, sizeof(context));
	struct buffer sealed;
	int result;

	if (plain_bytes == 0)
		return -EMSGSIZE;
	buffer_init(&sealed, out_bytes, false);
	result = crypto_seal_to_cert(r->peer_cert, s->config.own_key, context, context_bytes, plain,
				     plain_bytes, &sealed);
	secret_wipe(plain, sizeof(plain));
	if (!result) {
		*ret_bytes = buffer_used(&sealed);
		memcpy(out, buffer_peek(&sealed), *ret_bytes);
	}
	buffer_fini(&sealed);
	return result;
}

static int open_offer(const struct session *s, const struct rendezvous *r, const void *body,
		      size_t n_bytes, struct offer *ret_offer)
{
	uint8_t context[CONTEXT_BYTES_MAX];
	const size_t context_bytes =
		seal_context(s->peer_address, s->own_address, r->id, context, sizeof(context));
	struct buffer plain;
	int result;

	buffer_init(&plain, OFFER_PLAIN_BYTES_MAX + 256, true);
	result = crypto_open_sealed(s->config.own_key, r->peer_cert, context, context_bytes, body,
				    n_bytes, &plain);
	if (!result)
		result = offer_decode(buffer_peek(&plain), buffer_used(&plain), ret_offer);
	buffer_fini(&plain);
	return result ? -EBADMSG : 0;
}

/* ---- offers ---- */

/* The next smaller number that leaves the remainder, or the next larger one. */
static uint8_t with_remainder(uint8_t byte, uint8_t divisor, uint8_t remainder)
{
	const unsigned low = (unsigned)(byte - byte % divisor + remainder);

	return (uint8_t)(low > UINT8_MAX ? low - divisor : low);
}

/* Our secrets for this rendezvous. */
static int make_own(struct session *s, struct rendezvous *r)
{
	int result = s->config.random_bytes(s->config.user, r->own_share, sizeof(r->own_share));

	if (!result)
		result = s->config.random_bytes(s->config.user, r->own_cid, sizeof(r->own_cid));
	if (!result && s->config.cid_divisor)
		r->own_cid[0] = with_remainder(r->own_cid[0], s->config.cid_divisor,
					       s->config.cid_remainder);
	return result;
}

static void make_offer(struct session *s, const struct rendezvous *r, struct offer *offer)
{
	*offer = (struct offer){ .has_share = true };
	memcpy(offer->share, r->own_share, sizeof(offer->share));
	memcpy(offer->cid, r->own_cid, sizeof(offer->cid));
	offer->features = s->config.parity && ptcp_parity_available() ? OFFER_FEATURE_PARITY : 0;
	snprintf(offer->device, sizeof(offer->device), "%s", s->device);
	snprintf(offer->about, sizeof(offer->about), "%s", s->about);
	if (s->state == SESSION_UP || s->state == SESSION_STALLED)
		offer->has_tag = keys_tag(s->keys, offer->tag);
}

static bool same_association(const struct session *s, const struct offer *theirs)
{
	uint8_t tag[OFFER_TAG_BYTES];

	return (s->state == SESSION_UP || s->state == SESSION_STALLED) && theirs->has_tag &&
	       keys_tag(s->keys, tag) && secret_equal(tag, theirs->tag, sizeof(tag));
}

static void take_offer(struct session *s, struct rendezvous *r, const struct offer *offer)
{
	memcpy(r->peer_share, offer->share, sizeof(r->peer_share));
	memcpy(r->peer_cid, offer->cid, sizeof(r->peer_cid));
	r->peer_features = offer->features;
	snprintf(s->peer_device, sizeof(s->peer_device), "%s", offer->device);
	snprintf(s->peer_about, sizeof(s->peer_about), "%s", offer->about);
}

/* ---- signals out ---- */

static int send_offer(struct session *s, const struct offer *offer)
{
	struct signal *signal = malloc(sizeof(*signal));
	int r;

	if (!signal)
		return -ENOMEM;
	r = seal_offer(s, &s->open, offer, signal->body, sizeof(signal->body), &signal->n_bytes);
	if (r) {
		free(signal);
		return r;
	}
	signal->route = s->open.route;
	memcpy(signal->id, s->open.id, sizeof(signal->id));
	if (s->n_signals == SESSION_SIGNALS_MAX) {
		struct signal *oldest = STAILQ_FIRST(&s->signals);

		STAILQ_REMOVE_HEAD(&s->signals, entry);
		free(oldest);
		s->n_signals--;
	}
	STAILQ_INSERT_TAIL(&s->signals, signal, entry);
	s->n_signals++;
	return 0;
}

bool session_next_signal(struct session *s, struct session_signal_out *ret_signal)
{
	free(s->signal_lent);
	s->signal_lent = STAILQ_FIRST(&s->signals);
	if (!s->signal_lent)
		return false;
	STAILQ_REMOVE_HEAD(&s->signals, entry);
	s->n_signals--;
	ret_signal->route = s->signal_lent->route;
	memcpy(ret_signal->id, s->signal_lent->id, sizeof(ret_signal->id));
	ret_signal->body = s->signal_lent->body;
	ret_signal->n_bytes = s->signal_lent->n_bytes;
	return true;
}

void rendezvous_trickle(struct session *s, uint64_t now_us)
{
	struct offer offer = { .has_share = false };

	if (s->open.phase != RENDEZVOUS_OPEN || !s->nat)
		return;
	offer.candidates_bytes =
		nat_agent_encode(s->nat, offer.candidates, sizeof(offer.candidates), now_us);
	session_streams_tell(s, &offer);
	if (offer.candidates_bytes)
		send_offer(s, &offer);
}

static void drop_signals(struct session *s)
{
	struct signal *signal;

	while ((signal = STAILQ_FIRST(&s->signals))) {
		STAILQ_REMOVE_HEAD(&s->signals, entry);
		free(signal);
	}
	s->n_signals = 0;
}

/* What we sent was answered at once: half of that time is the way of one signal. */
static void learn_signal_delay(struct session *s, uint64_t now_us)
{
	if (s->nat && s->open.told_us <= now_us)
		nat_agent_set_signal_delay(s->nat, (now_us - s->open.told_us) / 2);
	s->open.told_us = NEVER_US;
}

/* ---- open ---- */

void rendezvous_drop_agent(struct session *s)
{
	const struct session_event event = { .type = SESSION_EVENT_VOLLEY_DONE };

	nat_agent_free(s->nat);
	s->nat = NULL;
	if (s->has_volley)
		session_event_push(s, &event);
	s->has_volley = false;
}

static bool refuse(void *user, const struct ip_address *ip)
{
	const struct session *s = user;

	return s->config.refuse && s->config.refuse(s->config.user, ip);
}

static void trace_pair(void *user, uint8_t socket, const struct endpoint *remote, const char *from,
		       const char *to, const char *because)
{
	char text[ENDPOINT_TEXT_BYTES], what[ENDPOINT_TEXT_BYTES + 24];
	const struct session *s = user;

	if (!s->config.trace)
		return;
	snprintf(what, sizeof(what), "pair %u %s", socket, endpoint_format(remote, text));
	s->config.trace(s->config.user, what, from, to, because);
}

int rendezvous_make_agent(struct session *s, uint64_t now_us)
{
	const struct keys_rendezvous keys = rendezvous_keys(s, &s->open);
	struct nat_config config = {
		.controlling = s->open.requester,
		.mac = crypto_hmac_sha256,
		.allow_loopback = s->config.allow_loopback,
		.refuse = refuse,
		.trace = trace_pair,
		.user = s,
		.allowance = s->config.allowance,
	};
	int r;

	rendezvous_drop_agent(s);
	if (s->path_mode == SESSION_PATH_RELAY)
		return 0;
	r = keys_probe(&keys, config.key);
	if (!r)
		r = s->config.random_bytes(s->config.user, &config.seed, sizeof(config.seed));
	if (!r)
		r = nat_agent_new(&config, now_us, &s->nat);
	secret_wipe(config.key, sizeof(config.key));
	if (r)
		return r;
	for (size_t i = 0; i < s->n_sockets; i++)
		nat_agent_add_socket(s->nat, s->sockets[i].socket, s->sockets[i].ipv4,
				     s->sockets[i].ipv6, now_us);
	for (size_t i = 0; i < s->n_locals; i++)
		if (s->path_mode != SESSION_PATH_LAN || s->locals[i].kind == NAT_HOST)
			nat_agent_add_local(s->nat, &s->locals[i], now_us);
	return 0;
}

/* The pending rendezvous becomes the open one, its offers being exchanged. */
static int open_pending(struct session *s, const struct offer *theirs, bool keep, uint64_t now_us)
{
	int r;

	session_path_drop_relay(s, now_us);
	drop_signals(s);
	rendezvous_clear(&s->open);
	s->open = s->pending;
	s->open.phase = RENDEZVOUS_OPEN;
	s->nudge = false;
	s->open.deadline_us = NEVER_US;
	session_channel_reset(s, now_us);
	s->pending = (struct rendezvous){ .deadline_us = NEVER_US, .told_us = NEVER_US };
	/* A moment for a path to come up over this one, before a stalled link asks again. */
	s->retry_us = now_us + OPEN_GRACE_US;
	r = rendezvous_make_agent(s, now_us);
	if (!r)
		r = session_streams_open(s, now_us);
	if (r)
		return r;
	if (keep) {
		crypto_tls_free(s->open.begun);
		s->open.begun = NULL;
		session_renew_peer_cert(s);
		session_path_add_relay(s, now_us);
		return 0;
	}
	return session_start_association(s, theirs, now_us);
}

void rendezvous_close(struct session *s, uint64_t now_us)
{
	session_path_drop_relay(s, now_us);
	session_channel_clear(s);
	drop_signals(s);
	rendezvous_clear(&s->open);
	rendezvous_drop_agent(s);
}

/* ---- requester ---- */

void rendezvous_ask(struct session *s, uint64_t now_us)
{
	struct session_event event = { .type = SESSION_EVENT_ASK };
	uint8_t random[OFFER_ID_BYTES / 2];

	if (s->config.random_bytes(s->config.user, random, sizeof(random))) {
		session_plan_retry(s, SESSION_WHY_PROTOCOL, now_us);
		return;
	}
	rendezvous_clear(&s->pending);
	s->nudge = false;
	s->pending.phase = RENDEZVOUS_ASKING;
	s->pending.requester = true;
	s->pending.deadline_us = now_us + ANSWER_TIMEOUT_US;
	hex_encode(random, sizeof(random), s->pending.request);
	memcpy(event.request, s->pending.request, sizeof(event.request));
	session_event_push(s, &event);
	session_dispatch(s, INPUT_ATTEMPT, NULL, now_us);
}

void rendezvous_fail(struct session *s, enum session_why why, const char *text, uint64_t now_us)
{
	rendezvous_clear(&s->pending);
	if (s->state != SESSION_UP)
		session_set_why(s, why, text);
	session_plan_retry(s, why, now_us);
	session_dispatch(s, INPUT_REST, session_why_name(why), now_us);
	/* Whoever vouched for the peer does not any more. */
	if (why == SESSION_WHY_DISABLED)
		session_close(s, SESSION_CLOSE_DENIED, now_us);
}

bool session_asks(const struct session *s, const char *request)
{
	return s->pending.phase == RENDEZVOUS_ASKING && !strcmp(s->pending.request, request);
}

void session_answer_failed(struct session *s, const char *request, enum session_why why,
			   const char *text, uint64_t now_us)
{
	if (session_asks(s, request))
		rendezvous_fail(s, why, text, now_us);
	session_pull(s, now_us);
}

/* The listener's offer, and our own for it. */
static int answer_offers(struct session *s, const struct session_answer *answer,
			 struct offer *ret_theirs, struct offer *ret_own)
{
	int r = open_offer(s, &s->pending, answer->offer, answer->offer_bytes, ret_theirs);

	if (r)
		return r;
	/* Signed for this request of ours, so it is no copy of an older one, nor is its hello. */
	if (!ret_theirs->has_share || strcmp(ret_theirs->request, s->pending.request))
		return -EBADMSG;
	take_offer(s, &s->pending, ret_theirs);
	r = make_own(s, &s->pending);
	if (r)
		return r;
	make_offer(s, &s->pending, ret_own);
	ret_own->keep = same_association(s, ret_theirs);
	return 0;
}

int session_answer(struct session *s, const struct session_answer *answer, uint64_t now_us)
{
	struct offer theirs = { .has_share = false }, own;
	int r;

	if (!session_asks(s, answer->request))
		return -ENOENT;
	if (strlen(answer->id) != OFFER_ID_BYTES) {
		rendezvous_fail(s, SESSION_WHY_PROTOCOL, "the answer has no rendezvous id", now_us);
		return -EBADMSG;
	}
	memcpy(s->pending.id, answer->id, sizeof(s->pending.id));
	s->pending.route = answer->route;
	s->pending.peer_cert = crypto_cert_ref(answer->peer_cert);
	r = answer_offers(s, answer, &theirs, &own);
	if (!r)
		r = open_pending(s, &theirs, own.keep, now_us);
	own.takes_hello = s->open.early;
	if (!r && s->nat)
		own.candidates_bytes =
			nat_agent_encode(s->nat, own.candidates, sizeof(own.candidates), now_us);
	if (!r) {
		session_streams_tell(s, &own);
		s->open.told_us = now_us;
		r = send_offer(s, &own);
	}
	if (r)
		rendezvous_fail(s, SESSION_WHY_PROTOCOL,
				r == -EBADMSG ? "the peer's offer cannot be read or is not by the "
						"key of its certificate"
					      : strerror(-r),
				now_us);
	secret_wipe(&own, sizeof(own));
	secret_wipe(&theirs, sizeof(theirs));
	session_pull(s, now_us);
	return r;
}

enum session_why session_why_from_status(const char *status, size_t n_bytes)
{
	static const struct {
		const char *status;
		enum session_why why;
	} map[] = {
		{ "unknown", SESSION_WHY_UNKNOWN }, { "refused", SESSION_WHY_REFUSED },
		{ "busy", SESSION_WHY_BUSY },       { "down", SESSION_WHY_PEER_DOWN },
		{ "limited", SESSION_WHY_SERVER },  { "disabled", SESSION_WHY_DISABLED },
	};

	for (size_t i = 0; status && i < ARRAY_SIZE(map); i++)
		if (n_bytes == strlen(map[i].status) && !memcmp(status, map[i].status, n_bytes))
			return map[i].why;
	return SESSION_WHY_OFFLINE;
}

/* ---- listener ---- */

static bool our_attempt_wins(const struct session *s)
{
	return s->pending.phase == RENDEZVOUS_ASKING && strcmp(s->own_address, s->peer_address) < 0;
}

static int make_reply(struct session *s, const struct session_inbound *inbound,
		      struct session_reply *ret_reply)
{
	uint8_t random[OFFER_ID_BYTES / 2];
	struct offer own;
	int r = s->config.random_bytes(s->config.user, random, sizeof(random));

	if (!r)
		r = make_own(s, &s->pending);
	if (r)
		return r;
	hex_encode(random, sizeof(random), s->pending.id);
	make_offer(s, &s->pending, &own);
	/* Who does not name its attempt could not tell that the hello is new. */
	if (strlen(inbound->request) == OFFER_ID_BYTES) {
		memcpy(own.request, inbound->request, sizeof(own.request));
		session_make_hello(s, &s->pending, &own);
	}
	r = seal_offer(s, &s->pending, &own, ret_reply->offer, sizeof(ret_reply->offer),
		       &ret_reply->offer_bytes);
	secret_wipe(&own, sizeof(own));
	memcpy(ret_reply->id, s->pending.id, sizeof(ret_reply->id));
	return r;
}

int session_inbound(struct session *s, const struct session_inbound *inbound,
		    struct session_reply *ret_reply, uint64_t now_us)
{
	int r;

	if (our_attempt_wins(s))
		return SESSION_BUSY;
	rendezvous_clear(&s->pending);
	s->pending.phase = RENDEZVOUS_ANSWERED;
	s->pending.route = inbound->route;
	s->pending.peer_cert = crypto_cert_ref(inbound->peer_cert);
	s->pending.deadline_us = now_us + OFFER_TIMEOUT_US;
	s->pending.told_us = now_us;
	r = make_reply(s, inbound, ret_reply);
	if (r) {
		rendezvous_fail(s, SESSION_WHY_PROTOCOL,
				r == -ENOTSUP ? "the peer's certificate has a key of a kind that "
						"we cannot seal to"
					      : strerror(-r),
				now_us);
		return r;
	}
	session_dispatch(s, INPUT_ATTEMPT, "the peer asks", now_us);
	session_pull(s, now_us);
	return 0;
}

/* The requester's offer to what we answered. */
static int input_first(struct session *s, const void *body, size_t n_bytes, uint64_t now_us)
{
	struct offer theirs;
	bool keep;
	int r = open_offer(s, &s->pending, body, n_bytes, &theirs);

	if (r || !theirs.has_share)
		return -EBADMSG;
	keep = theirs.keep && same_association(s, &theirs);
	take_offer(s, &s->pending, &theirs);
	s->pending.early = theirs.takes_hello && s->pending.begun && !keep;
	r = theirs.takes_hello && !s->pending.early ? -EBADMSG
						    : open_pending(s, &theirs, keep, now_us);
	learn_signal_delay(s, now_us);
	if (!r)
		session_streams_told(s, &theirs, now_us);
	if (!r && s->nat && theirs.candidates_bytes)
		nat_agent_input_list(s->nat, theirs.candidates, theirs.candidates_bytes, now_us);
	secret_wipe(&theirs, sizeof(theirs));
	if (r)
		rendezvous_fail(s, SESSION_WHY_PROTOCOL, strerror(-r), now_us);
	return r;
}

static int input_trickle(struct session *s, const void *body, size_t n_bytes, uint64_t now_us)
{
	struct offer theirs;

	if (open_offer(s, &s->open, body, n_bytes, &theirs))
		return -EBADMSG;
	learn_signal_delay(s, now_us);
	session_streams_told(s, &theirs, now_us);
	if (s->nat && theirs.candidates_bytes)
		nat_agent_input_list(s->nat, theirs.candidates, theirs.candidates_bytes, now_us);
	return 0;
}

int session_signal(struct session *s, const char *id, const void *body, size_t n_bytes,
		   uint64_t now_us)
{
	int r = -ENOENT;

	if (s->pending.phase == RENDEZVOUS_ANSWERED && !strcmp(s->pending.id, id))
		r = input_first(s, body, n_bytes, now_us);
	else if (s->open.phase == RENDEZVOUS_OPEN && !strcmp(s->open.id, id))
		r = input_trickle(s, body, n_bytes, now_us);
	session_pull(s, now_us);
	return r;
}

/* ---- the end of one ---- */

/* Signals and relay are gone; what is direct goes on. */
static void open_lost(struct session *s, uint64_t delay_us, uint64_t now_us)
{
	session_path_drop_relay(s, now_us);
	session_channel_clear(s);
	drop_signals(s);
	rendezvous_clear(&s->open);
	s->retry_us = now_us + delay_us;
}

int session_gone(struct session *s, const char *id, uint64_t now_us)
{
	if (s->pending.phase == RENDEZVOUS_ANSWERED && !strcmp(s->pending.id, id)) {
		rendezvous_fail(s, SESSION_WHY_LOST, "the peer's connection to the server ended",
				now_us);
	} else if (s->open.phase == RENDEZVOUS_OPEN && !strcmp(s->open.id, id)) {
		/* Its daemon restarts, or its network changes: a moment later it is back. Where
		 * only the peer wants the link and does not ask, we do, once: it may have been shut
		 * out. */
		s->nudge = s->nudge || (!s->wanted && s->state == SESSION_UP);
		open_lost(s,
			  !s->wanted          ? GONE_NUDGE_US
			  : s->open.requester ? US_PER_S
					      : 3 * US_PER_S,
			  now_us);
	} else {
		return -ENOENT;
	}
	session_pull(s, now_us);
	return 0;
}

void session_route_lost(struct session *s, const void *route, uint64_t now_us)
{
	if (s->pending.phase == RENDEZVOUS_ANSWERED && s->pending.route == route)
		rendezvous_fail(s, SESSION_WHY_SERVER, "the connection to the server ended",
				now_us);
	if (s->open.phase == RENDEZVOUS_OPEN && s->open.route == route)
		open_lost(s, s->open.requester ? US_PER_S / 2 : 2 * US_PER_S, now_us);
	session_pull(s, now_us);
}
