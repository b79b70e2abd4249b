/*
 * Commands about trust and permission: peers, pins, allow, deny, requests.
 */
#include "daemon/internal.h"

#include <stdio.h>

/* ---- peers ---- */

void command_peers(struct op *op)
{
	const char *only = ctl_text(&op->request, "address");
	json_t *list = json_array();
	const struct peer *peer;

	TAILQ_FOREACH (peer, &op->daemon->peers, entry) {
		char fingerprint[CRYPTO_FINGERPRINT_BYTES];
		const bool shown = peer->pinned && op->client->is_operator;

		if (only && strcmp(only, peer->address.text))
			continue;

		json_array_append_new(
			list, json_pack("{s:s,s:b,s:s?,s:I,s:b,s:I}", "address", peer->address.text,
					"allowed", peer_is_allowed(peer), "pinned",
					shown ? crypto_fingerprint(peer->spki, fingerprint) : NULL,
					"pinned_at", (json_int_t)peer->pinned_at_s, "wanted",
					peer->wanted, "allowed_until",
					(json_int_t)peer->allowed_until_s));
	}
	op_done(op, json_pack("{s:o}", "peers", list));
}

static bool forget_domain(struct op *op, const char *text)
{
	struct q2q_address domain;
	int r;

	if (!text || q2q_domain_parse(text, &domain))
		return false;
	if (!domains_pin(&op->daemon->domains, domain.text) &&
	    !domains_damaged(&op->daemon->domains, domain.text)) {
		op_failf(op, CTL_NOT_FOUND, NULL, "%s is not known here", domain.text);
		return true;
	}
	r = domains_forget(&op->daemon->domains, domain.text);
	if (r)
		op_failf(op, CTL_FAILED, NULL, "cannot forget %s: %s", domain.text, strerror(-r));
	else
		op_done(op, json_object());
	return true;
}

void command_peers_forget(struct op *op)
{
	struct peer *peer;
	int r;

	if (forget_domain(op, ctl_text(&op->request, "address")))
		return;
	peer = op_peer(op);
	if (!peer)
		return;
	if (peer->link) {
		session_want(link_session(peer->link), false, link_now_us(peer->link));
		links_pump_now(peer->link);
	}
	r = peers_forget(op->daemon, peer);
	if (r)
		op_failf(op, CTL_FAILED, NULL, "cannot forget it: %s", strerror(-r));
	else
		op_done(op, json_object());
}

/* ---- a domain's certificate, fetched for the user ---- */

struct fetch {
	struct op *op;
	struct serverlink *server;
	void (*then)(struct op *op); /* the domain is pinned */
};

static void fetch_end(struct op *op)
{
	struct fetch *f = op->state;

	if (f)
		serverlink_free(f->server);
	free(f);
}

static void fetch_ready(void *user, struct serverlink *l)
{
	struct fetch *f = user;

	(void)l;
	f->then(f->op);
}

static void fetch_failed(void *user, struct serverlink *l, const struct problem *problem)
{
	struct fetch *f = user;

	if (l->untrusted_new && l->offered)
		op_ask_domain(f->op, l->domain, l->offered);
	else
		op_fail(f->op, problem);
}

static void fetch_answer(struct op *op, const char *answer)
{
	struct fetch *f = op->state;
	char fingerprint[CRYPTO_FINGERPRINT_BYTES];

	crypto_cert_fingerprint(f->server->offered, fingerprint);
	if (!op_says_yes(answer, fingerprint))
		op_fail(op, &f->server->problem);
	else if (domains_set(&op->daemon->domains, f->server->domain, f->server->offered))
		op_failf(op, CTL_FAILED, NULL, "cannot store the key of %s", f->server->domain);
	else
		f->then(op);
}

static void fetch_domain(struct op *op, const char *domain, const char *expect,
			 void (*then)(struct op *op))
{
	struct fetch *f = calloc(1, sizeof(*f));
	const struct serverlink_config config = {
		.daemon = op->daemon,
		.domain = domain,
		.expect = expect,
		.trust_new = ctl_bool(&op->request, "yes"),
		.identify_only = true,
		.on_ready = fetch_ready,
		.on_failed = fetch_failed,
		.user = f,
	};

	op->state = f;
	op->on_end = fetch_end;
	op->on_answer = fetch_answer;
	if (!f || serverlink_new(&config, &f->server)) {
		op_failf(op, CTL_FAILED, NULL, "out of memory");
		return;
	}
	f->op = op;
	f->then = then;
	op_progress(op, "asking the server of %s for its key", domain);
	serverlink_start(f->server);
}

static void pin_domain_done(struct op *op)
{
	hub_wake_all(op->daemon);
	op_done(op, json_object());
}

static void pin_peer(struct op *op, const struct q2q_address *address,
		     const uint8_t spki[static CRYPTO_HASH_BYTES])
{
	struct peer *peer = peers_get(op->daemon, address);
	struct problem problem;
	int r;

	if (peer && peers_problem(op->daemon, peer, &problem)) {
		op_fail(op, &problem);
		return;
	}
	r = peer ? peers_pin(op->daemon, peer, spki) : -ENOSPC;
	if (r) {
		op_failf(op, CTL_FAILED, NULL, "cannot store the key of %s: %s", address->text,
			 strerror(-r));
		return;
	}
	log_note("%s: the user pinned its key", address->text);
	if (peer->link) {
		peer->link->problem.code = CTL_DONE;
		session_wake(link_session(peer->link), link_now_us(peer->link));
		links_pump(peer->link);
	}
	op_done(op, json_object());
}

void command_peers_pin(struct op *op)
{
	const char *text = ctl_text(&op->request, "address");
	const char *fingerprint = ctl_text(&op->request, "fingerprint");
	uint8_t spki[CRYPTO_HASH_BYTES];
	struct q2q_address address;

	if (crypto_fingerprint_parse(fingerprint, spki)) {
		op_failf(op, CTL_USAGE, NULL, "a fingerprint looks like SHA256: and 43 characters");
		return;
	}
	if (!q2q_domain_parse(text, &address))
		fetch_domain(op, address.text, fingerprint, pin_domain_done);
	else if (op_user(op, "address", &address))
		pin_peer(op, &address, spki);
}

/* ---- permissions ---- */

static void allow_now(struct op *op)
{
	const uint64_t for_s = ctl_uint(&op->request, "for_s", 0);
	struct daemon *d = op->daemon;
	struct peer before = { .address = { .text = "" } };
	struct q2q_address address;
	struct problem problem;
	struct peer *peer;
	int r;

	if (!op_user(op, "address", &address))
		return;
	peer = peers_find(d, address.text);
	if (peer) {
		peer_enter(peer);
		before = *peer;
	}
	peer = peers_get(d, &address);
	if (!peer) {
		op_failf(op, CTL_FAILED, "q2q-tun peers forget ADDRESS", "too many peers");
		return;
	}
	if (peers_problem(d, peer, &problem)) {
		op_fail(op, &problem);
		return;
	}
	peer->allowed = true;
	peer->allowed_until_s = for_s ? wall_clock_s() + (int64_t)for_s : 0;
	peer->held = false;
	r = peers_store(d, peer, &before);
	if (r) {
		op_failf(op, CTL_FAILED, NULL, "cannot store %s: %s", address.text, strerror(-r));
		return;
	}
	if (peer->link) {
		/* By name, whatever its key: that answers the question about it as well. */
		crypto_cert_unref(peer->link->offered_peer);
		peer->link->offered_peer = NULL;
	}
	requests_remove(d, address.text);
	log_note("%s: may connect from now on", address.text);
	op_done(op, json_pack("{s:s}", "message", "It may connect from now on."));
}

void command_allow(struct op *op)
{
	struct q2q_address address;

	if (!op_user(op, "address", &address))
		return;
	/* Without its domain's key the peer's certificate could not be checked when it comes. */
	if (domains_pin(&op->daemon->domains, address.domain))
		allow_now(op);
	else
		fetch_domain(op, address.domain, NULL, allow_now);
}

void command_deny(struct op *op)
{
	struct daemon *d = op->daemon;
	struct q2q_address address;
	struct peer *peer;
	int r = 0;

	if (!op_user(op, "address", &address))
		return;
	requests_remove(d, address.text);
	peer = peers_find(d, address.text);
	if (peer && !peer->damaged) {
		peer->allowed = peer->wanted = false;
		r = peers_save(d, peer);
		if (peer->link) {
			session_close(link_session(peer->link), SESSION_CLOSE_DENIED,
				      link_now_us(peer->link));
			session_want(link_session(peer->link), false, link_now_us(peer->link));
			links_pump(peer->link);
		}
	}
	log_note("%s: may not connect", address.text);
	if (r)
		op_failf(op, CTL_FAILED, NULL,
			 "%s may not connect now, but that cannot be stored (%s): it could again "
			 "when the daemon is restarted",
			 address.text, strerror(-r));
	else
		op_done(op, json_object());
}

void command_requests(struct op *op)
{
	const struct requests *requests = &op->daemon->requests;
	json_t *list = json_array();

	for (size_t i = 0; i < requests->n; i++) {
		const struct request *r = &requests->list[i];
		char fingerprint[CRYPTO_FINGERPRINT_BYTES];

		json_array_append_new(
			list,
			json_pack("{s:s,s:s?,s:I,s:I,s:I}", "address", r->address, "fingerprint",
				  r->has_key ? crypto_fingerprint(r->spki, fingerprint) : NULL,
				  "first", (json_int_t)r->first_s, "last", (json_int_t)r->last_s,
				  "count", (json_int_t)r->count));
	}
	op_done(op, json_pack("{s:o}", "requests", list));
}
