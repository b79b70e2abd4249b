/*
 * Commands about links and trust.
 */
#include "config.h"
#include "daemon/internal.h"

#include <stdio.h>

enum {
	UP_WAIT_S = 15,
	WAIT_S = 30,
	PING_COUNT = 4,
	PING_INTERVAL_MS = 1000,
	PINGS_MAX = 64, /* in flight, of one op */
	LOG_LINES = 50,
};
#define PING_TIMEOUT_US (2 * US_PER_S)

static uint64_t now_of(const struct op *op)
{
	return net_loop_now_us(op->daemon->loop);
}

/* ---- status ---- */

static json_t *self_json(struct daemon *d)
{
	struct identity *id = identities_default(&d->identities, NULL);
	const struct hub_link *h = hub_own(d, id);
	char v4[IP_TEXT_BYTES], v6[IP_TEXT_BYTES], server[ENDPOINT_TEXT_BYTES] = "";
	struct ip_address ip4 = { .family = FAMILY_IPV4 }, ip6 = { .family = FAMILY_IPV6 };
	const struct link *link;
	struct vip vip;

	if (!id || vip_from_address(id->address.text, &vip))
		return json_pack("{s:n,s:n,s:n,s:n,s:b}", "address", "ipv4", "ipv6", "server",
				 "connected", 0);
	memcpy(ip4.bytes, vip.ip4, sizeof(vip.ip4));
	memcpy(ip6.bytes, vip.ip6, sizeof(vip.ip6));
	LIST_FOREACH (link, &d->links, entry)
		if (link->identity == id)
			memcpy(ip4.bytes, link->shown.own4, 4);
	if (h && h->ready)
		endpoint_format(&h->server->remote, server);
	return json_pack("{s:s,s:s,s:s,s:s,s:b,s:s?}", "address", id->address.text, "ipv4",
			 ip_format(&ip4, v4), "ipv6", ip_format(&ip6, v6), "server",
			 *server ? server : id->address.domain, "connected", h && h->ready,
			 "reason", h && !h->ready && h->problem.code ? h->problem.error : NULL);
}

/* Peers that mean something to the user: allowed, wanted, or with a link. */
static bool is_shown(const struct peer *peer)
{
	return peer->link || peer->wanted || peer->allowed;
}

void command_status(struct op *op)
{
	struct daemon *d = op->daemon;
	json_t *list = json_array();
	struct q2q_address address;
	struct peer *peer;
	bool one = false;

	if (ctl_text(&op->request, "address")) {
		if (!op_user(op, "address", &address)) {
			json_decref(list);
			return;
		}
		one = true;
	}
	TAILQ_FOREACH (peer, &d->peers, entry)
		if (one ? !strcmp(peer->address.text, address.text) : is_shown(peer))
			json_array_append_new(list, links_status(d, peer));
	if (one && json_array_size(list) == 0) {
		json_decref(list);
		op_failf(op, CTL_NOT_FOUND,
			 "q2q-tun peers lists those that are; q2q-tun up ADDRESS "
			 "adds one",
			 "%s is not known here", address.text);
		return;
	}
	op_done(op,
		json_pack("{s:i,s:o,s:o}", "v", CTL_VERSION, "self", self_json(d), "peers", list));
}

static void done_with_peer(struct op *op)
{
	op_done(op, json_pack("{s:o}", "peer", links_status(op->daemon, op->peer)));
}

/* ---- up ---- */

struct up {
	enum session_state shown; /* the last state told as progress */
	bool patient;             /* the user said how long to wait */
	bool created;             /* nobody knew this peer before */
	bool hopeless;            /* it ends when the timer comes */
	bool direct;
};

static void up_end(struct op *op)
{
	free(op->state);
}

static bool is_up(const struct link *link, bool direct)
{
	struct session_status s;

	session_get_status(link->session, &s);
	return s.state == SESSION_UP && link->device == DEVICE_READY && s.has_path &&
	       (!direct || !s.relay);
}

static void ask_peer(struct op *op, struct link *link)
{
	char fingerprint[CRYPTO_FINGERPRINT_BYTES], text[2048];

	snprintf(text, sizeof(text),
		 "%s is not known to this machine yet.\n"
		 "Its key fingerprint is %s; its domain %s vouches for it.\n"
		 "Compare it with what %s says: the key is trusted from now on.",
		 link->peer->address.text, crypto_cert_fingerprint(link->offered_peer, fingerprint),
		 link->peer->address.domain, link->peer->address.text);
	op_ask(op, CTL_ASK_TRUST_PEER, link->peer->address.text, fingerprint, text);
}

static void ask_domain(struct op *op, const char *domain, struct crypto_cert *cert)
{
	char fingerprint[CRYPTO_FINGERPRINT_BYTES], text[2048];

	snprintf(text, sizeof(text),
		 "The identity server of %s is not known to this machine yet.\n"
		 "Its key fingerprint is %s.\n"
		 "Compare it with what its operator says: the key is trusted from now on.",
		 domain, crypto_cert_fingerprint(cert, fingerprint));
	op_ask(op, CTL_ASK_TRUST_DOMAIN, domain, fingerprint, text);
}

static struct hub_link *peer_hub(struct link *link)
{
	return hub_get(link->daemon, link->identity, link->peer->address.domain);
}

/* Nobody can go on but the user: true if a question could be asked. */
static bool up_ask(struct op *op, struct link *link)
{
	struct hub_link *h = peer_hub(link);

	if (h && h->server->untrusted_new && h->server->offered)
		ask_domain(op, h->domain, h->server->offered);
	else if (link->offered_peer && !link->peer->pinned)
		ask_peer(op, link);
	else
		return false;
	return true;
}

static void up_answer(struct op *op, const char *answer)
{
	struct link *link = op->peer ? op->peer->link : NULL;
	char fingerprint[CRYPTO_FINGERPRINT_BYTES] = "";
	struct hub_link *h = link ? peer_hub(link) : NULL;
	const bool domain = h && h->server->untrusted_new && h->server->offered;
	struct crypto_cert *cert = domain ? h->server->offered : link ? link->offered_peer : NULL;
	int r;

	if (!cert) {
		op_failf(op, CTL_FAILED, NULL, "nothing waits for that answer any more");
		return;
	}
	crypto_cert_fingerprint(cert, fingerprint);
	if (!op_says_yes(answer, fingerprint)) {
		op_fail(op, &link->problem);
		return;
	}
	r = domain ? hub_trust(h) : peers_pin(op->daemon, link->peer, crypto_cert_spki_hash(cert));
	if (r) {
		op_failf(op, CTL_FAILED, NULL, "cannot store the key: %s", strerror(-r));
		return;
	}
	link->problem.code = CTL_DONE;
	session_wake(link->session, now_of(op));
	links_pump(link);
}

/* Waiting longer does not help against these. */
static bool is_final(const struct op *op, const struct problem *p)
{
	const struct up *up = op->state;

	switch (p->code) {
	case CTL_UNTRUSTED:
		return true;
	case CTL_DENIED:
	case CTL_NOT_FOUND:
	case CTL_OFFLINE:
		return !up->patient;
	default:
		return false;
	}
}

static void up_progress(struct op *op, struct link *link)
{
	struct up *up = op->state;
	const enum session_state state = session_state_of(link->session);

	if (state == up->shown)
		return;
	up->shown = state;
	if (state == SESSION_RENDEZVOUS)
		op_progress(op, "asking for %s", link->peer->address.text);
	else if (state == SESSION_CONNECTING)
		op_progress(op, "%s answered, connecting", link->peer->address.text);
}

static void up_link(struct op *op, struct link *link)
{
	struct up *up = op->state;

	if (op->asking || up->hopeless)
		return;
	if (is_up(link, up->direct)) {
		done_with_peer(op);
		return;
	}
	up_progress(op, link);
	if (link->device == DEVICE_FAILED) {
		op_fail(op, &link->problem);
		return;
	}
	if (!link->problem.code)
		return;
	if (link->problem.code == CTL_UNTRUSTED && up_ask(op, link))
		return;
	if (!is_final(op, &link->problem))
		return;
	if (up->created && link->problem.code == CTL_NOT_FOUND) {
		/* We are inside of the link's own pump: it goes afterwards. */
		up->hopeless = true;
		net_timer_arm(&op->timer, now_of(op));
	} else {
		op_fail(op, &link->problem);
	}
}

/* There is no such peer, so what `up` made is taken back. */
static void up_undo(struct op *op, struct link *link)
{
	const struct problem problem = link->problem;

	peers_forget(op->daemon, op->peer);
	op_fail(op, &problem);
}

static void up_timer(struct op *op)
{
	const struct up *up = op->state;
	struct problem problem;
	struct link *link = op->peer ? op->peer->link : NULL;

	if (op->asking) {
		net_timer_arm(&op->timer, now_of(op) + US_PER_S);
		return;
	}
	if (link && up->hopeless) {
		up_undo(op, link);
		return;
	}
	if (!link)
		op_failf(op, CTL_TIMED_OUT, NULL, "the tunnel was taken down meanwhile");
	else if (up->direct && is_up(link, false))
		op_failf(op, CTL_RELAYED, "it stays up if --path auto is good enough",
			 "%s is reached through the relay alone; no direct path was found in time",
			 op->peer->address.text);
	else if (links_problem(link, &problem))
		op_fail(op, &problem);
	else
		done_with_peer(op);
}

static bool take_path_mode(struct op *op, enum session_path_mode *ret_mode)
{
	const char *path = ctl_text(&op->request, "path");

	*ret_mode = SESSION_PATH_AUTO;
	for (unsigned i = 0; path && i < SESSION_PATH_MODE_COUNT; i++)
		if (!strcmp(path, session_path_mode_name((enum session_path_mode)i))) {
			*ret_mode = (enum session_path_mode)i;
			return true;
		}
	if (path)
		op_failf(op, CTL_USAGE, NULL, "path is auto, direct, relay or lan");
	return !path;
}

/* What the user said is kept, so that it holds after a restart. NULL: the op has ended. */
static struct peer *up_record(struct op *op)
{
	struct daemon *d = op->daemon;
	struct up *up = op->state;
	const char *as = ctl_text(&op->request, "as");
	struct q2q_address address, own = { .text = "" };
	enum session_path_mode mode;
	struct peer *peer;
	int r;

	if (!op_user(op, "address", &address) || (as && !op_user(op, "as", &own)) ||
	    !take_path_mode(op, &mode))
		return NULL;
	if (identities_find(&d->identities, address.text)) {
		op_failf(op, CTL_USAGE, NULL, "%s is this machine itself", address.text);
		return NULL;
	}
	up->created = !peers_find(d, address.text);
	peer = peers_get(d, &address);
	if (!peer) {
		op_failf(op, CTL_FAILED, "q2q-tun peers forget ADDRESS", "too many peers");
		return NULL;
	}
	peer->wanted = peer->allowed = true;
	peer->allowed_until_s = 0;
	peer->held = false;
	peer->path_mode = mode;
	if (as)
		memcpy(peer->as, own.text, sizeof(peer->as));
	requests_remove(d, address.text);
	r = peers_save(d, peer);
	if (r) {
		op_failf(op, CTL_FAILED, NULL, "cannot store %s: %s", address.text, strerror(-r));
		return NULL;
	}
	return peer;
}

void command_up(struct op *op)
{
	const uint64_t wait_s = ctl_uint(&op->request, "wait_s", UP_WAIT_S);
	struct up *up = calloc(1, sizeof(*up));
	struct peer *peer;
	struct problem problem;
	struct link *link;

	op->state = up;
	op->on_end = up_end;
	if (!up) {
		op_failf(op, CTL_FAILED, NULL, "out of memory");
		return;
	}
	peer = up_record(op);
	if (!peer)
		return;
	link = links_get(op->daemon, peer, &problem);
	if (!link) {
		op_fail(op, &problem);
		return;
	}
	up->shown = SESSION_STATE_COUNT;
	up->patient = json_object_get(op->request.args, "wait_s") != NULL;
	up->direct = peer->path_mode == SESSION_PATH_DIRECT || peer->path_mode == SESSION_PATH_LAN;
	op->peer = peer;
	if (link->problem.code != CTL_UNTRUSTED)
		link->problem.code = CTL_DONE;
	session_set_path_mode(link->session, peer->path_mode, now_of(op));
	session_want(link->session, true, now_of(op));
	links_pump(link);
	if (wait_s == 0 || is_up(link, up->direct)) {
		done_with_peer(op);
		return;
	}
	op->on_link = up_link;
	op->on_answer = up_answer;
	op->on_timer = up_timer;
	net_timer_arm(&op->timer, now_of(op) + wait_s * US_PER_S);
}

/* ---- wait ---- */

static void wait_link(struct op *op, struct link *link)
{
	if (is_up(link, ctl_bool(&op->request, "direct")))
		done_with_peer(op);
}

static void wait_timer(struct op *op)
{
	struct link *link = op->peer ? op->peer->link : NULL;
	struct problem problem;

	if (link && is_up(link, false)) {
		op_failf(op, CTL_RELAYED,
			 "q2q-tun status ADDRESS --json says what NAT traversal saw",
			 "%s is reached through the relay alone; no direct path was found in time",
			 op->peer->address.text);
		return;
	}
	if (link && links_problem(link, &problem))
		op_failf(op, CTL_TIMED_OUT, problem.hint, "%.480s", problem.error);
	else
		op_failf(op, CTL_TIMED_OUT, "q2q-tun up ADDRESS", "nobody brings that tunnel up");
}

/* The peer that is named; NULL: the op has ended. */
static struct peer *named_peer(struct op *op)
{
	struct q2q_address address;
	struct peer *peer;

	if (!op_user(op, "address", &address))
		return NULL;
	peer = peers_find(op->daemon, address.text);
	if (!peer)
		op_failf(op, CTL_NOT_FOUND,
			 "q2q-tun peers lists those that are; q2q-tun up ADDRESS "
			 "adds one",
			 "%s is not known here", address.text);
	return peer;
}

void command_wait(struct op *op)
{
	op->peer = named_peer(op);
	if (!op->peer)
		return;
	if (op->peer->link && is_up(op->peer->link, ctl_bool(&op->request, "direct"))) {
		done_with_peer(op);
		return;
	}
	op->on_link = wait_link;
	op->on_timer = wait_timer;
	net_timer_arm(&op->timer,
		      now_of(op) + ctl_uint(&op->request, "timeout_s", WAIT_S) * US_PER_S);
}

/* ---- down ---- */

#define DOWN_POLL_US (10 * US_PER_MS)

/* Which peers a down is about. */
static bool down_means(const struct op *op, const struct peer *peer)
{
	return ctl_bool(&op->request, "all") || peer == op->peer;
}

static void down_timer(struct op *op)
{
	struct peer *peer;
	bool closing = false;

	TAILQ_FOREACH (peer, &op->daemon->peers, entry) {
		if (!peer->link || !down_means(op, peer))
			continue;
		/* The peer confirms, or half a second passes. */
		if (session_state_of(peer->link->session) == SESSION_DOWN)
			links_free(peer->link);
		else
			closing = true;
	}
	if (closing)
		net_timer_arm(&op->timer, now_of(op) + DOWN_POLL_US);
	else
		op_done(op, json_object());
}

static void take_down(struct op *op, struct peer *peer)
{
	if (!peer->wanted && !peer->link)
		return;
	peer->wanted = false;
	peer->held = true;
	peers_save(op->daemon, peer);
	if (peer->link) {
		session_want(peer->link->session, false, now_of(op));
		links_pump(peer->link);
	}
}

void command_down(struct op *op)
{
	struct peer *peer;

	if (ctl_bool(&op->request, "all")) {
		TAILQ_FOREACH (peer, &op->daemon->peers, entry)
			take_down(op, peer);
	} else {
		peer = named_peer(op);
		if (!peer)
			return;
		op->peer = peer;
		take_down(op, peer);
	}
	op->on_timer = down_timer;
	net_timer_arm(&op->timer, now_of(op));
}

/* ---- peers ---- */

void command_peers(struct op *op)
{
	json_t *list = json_array();
	const struct peer *peer;

	TAILQ_FOREACH (peer, &op->daemon->peers, entry) {
		char fingerprint[CRYPTO_FINGERPRINT_BYTES];
		const bool shown = peer->pinned && op->client->is_operator;

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
	if (!domains_pin(&op->daemon->domains, domain.text)) {
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
	peer = named_peer(op);
	if (!peer)
		return;
	if (peer->link) {
		session_want(peer->link->session, false, now_of(op));
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
		ask_domain(f->op, l->domain, l->offered);
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
	const int r = peer ? peers_pin(op->daemon, peer, spki) : -ENOSPC;

	if (r) {
		op_failf(op, CTL_FAILED, NULL, "cannot store the key of %s: %s", address->text,
			 strerror(-r));
		return;
	}
	log_note("%s: the user pinned its key", address->text);
	if (peer->link) {
		peer->link->problem.code = CTL_DONE;
		session_wake(peer->link->session, now_of(op));
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
	struct q2q_address address;
	struct peer *peer;
	int r;

	if (!op_user(op, "address", &address))
		return;
	peer = peers_get(d, &address);
	if (!peer) {
		op_failf(op, CTL_FAILED, "q2q-tun peers forget ADDRESS", "too many peers");
		return;
	}
	peer->allowed = true;
	peer->allowed_until_s = for_s ? wall_clock_s() + (int64_t)for_s : 0;
	peer->held = false;
	r = peers_save(d, peer);
	if (r) {
		op_failf(op, CTL_FAILED, NULL, "cannot store %s: %s", address.text, strerror(-r));
		return;
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

	if (!op_user(op, "address", &address))
		return;
	requests_remove(d, address.text);
	peer = peers_find(d, address.text);
	if (peer) {
		peer->allowed = peer->wanted = false;
		peers_save(d, peer);
		if (peer->link) {
			session_close(peer->link->session, SESSION_CLOSE_DENIED, now_of(op));
			session_want(peer->link->session, false, now_of(op));
			links_pump(peer->link);
		}
	}
	log_note("%s: may not connect", address.text);
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

/* ---- ping ---- */

struct flying {
	uint32_t id; /* 0: free */
	uint64_t seq, sent_us;
};

struct ping {
	struct flying flying[PINGS_MAX];
	uint64_t count, interval_us;
	uint64_t sent, received, direct;
	uint64_t min_us, max_us, sum_us;
	uint64_t next_us;
};

static void ping_finish(struct op *op)
{
	const struct ping *p = op->state;
	const bool until_direct = ctl_bool(&op->request, "until_direct");

	if (until_direct && p->direct == 0 && p->received > 0) {
		op_failf(op, CTL_RELAYED, NULL, "%llu answers came, all of them through the relay",
			 (unsigned long long)p->received);
		return;
	}
	op_done(op, json_pack("{s:I,s:I,s:I,s:I,s:I}", "sent", (json_int_t)p->sent, "received",
			      (json_int_t)p->received, "min_us", (json_int_t)p->min_us, "avg_us",
			      (json_int_t)(p->received ? p->sum_us / p->received : 0), "max_us",
			      (json_int_t)p->max_us));
}

static json_t *pong_path(struct op *op)
{
	json_t *status = links_status(op->daemon, op->peer);
	json_t *path = json_incref(json_object_get(status, "path"));

	json_decref(status);
	return path ? path : json_null();
}

static void ping_pong(struct op *op, uint32_t id, uint64_t rtt_us, struct link *link)
{
	struct ping *p = op->state;
	struct flying *f = NULL;
	struct session_status s;

	for (size_t i = 0; i < PINGS_MAX; i++)
		if (p->flying[i].id == id)
			f = &p->flying[i];
	if (!f || id == 0)
		return;
	session_get_status(link->session, &s);
	op_event(op, json_pack("{s:I,s:I,s:o}", "seq", (json_int_t)f->seq, "rtt_us",
			       (json_int_t)rtt_us, "path", pong_path(op)));
	f->id = 0;
	p->min_us = p->received ? min_u64(p->min_us, rtt_us) : rtt_us;
	p->max_us = max_u64(p->max_us, rtt_us);
	p->sum_us += rtt_us;
	p->received++;
	if (s.has_path && !s.relay)
		p->direct++;
	net_timer_arm(&op->timer, now_of(op));
}

static void ping_send(struct op *op, struct link *link)
{
	struct ping *p = op->state;
	struct flying *f = NULL;

	p->next_us = now_of(op) + p->interval_us;
	for (size_t i = 0; i < PINGS_MAX && !f; i++)
		if (p->flying[i].id == 0)
			f = &p->flying[i];
	if (!f)
		return;
	f->seq = ++p->sent;
	f->sent_us = now_of(op);
	f->id = ++link->next_ping;
	/* What cannot be sent now is a ping that gets no answer. */
	session_ping(link->session, f->id, now_of(op));
	links_pump(link);
}

/* Tells those that came back not; the time of the next one to do so. */
static uint64_t ping_expire(struct op *op)
{
	struct ping *p = op->state;
	uint64_t due_us = NEVER_US;

	for (size_t i = 0; i < PINGS_MAX; i++) {
		struct flying *f = &p->flying[i];

		if (f->id && now_of(op) >= f->sent_us + PING_TIMEOUT_US) {
			f->id = 0;
			op_event(op, json_pack("{s:I}", "seq", (json_int_t)f->seq));
		}
		if (f->id)
			due_us = min_u64(due_us, f->sent_us + PING_TIMEOUT_US);
	}
	return due_us;
}

static void ping_timer(struct op *op)
{
	struct ping *p = op->state;
	struct link *link = op->peer ? op->peer->link : NULL;
	const bool enough = (p->count && p->sent >= p->count) ||
			    (ctl_bool(&op->request, "until_direct") && p->direct > 0);
	uint64_t due_us = ping_expire(op);

	if (!link || (enough && due_us == NEVER_US) ||
	    (ctl_bool(&op->request, "until_direct") && p->direct > 0)) {
		ping_finish(op);
		return;
	}
	if (!enough && now_of(op) >= p->next_us)
		ping_send(op, link);
	if (!enough || p->sent == 0)
		due_us = min_u64(due_us, p->next_us);
	net_timer_arm(&op->timer, min_u64(due_us, now_of(op) + PING_TIMEOUT_US));
}

static void ping_end(struct op *op)
{
	free(op->state);
}

void command_ping(struct op *op)
{
	struct problem problem;
	struct ping *p;

	op->peer = named_peer(op);
	if (!op->peer)
		return;
	if (!op->peer->link) {
		op_failf(op, CTL_OFFLINE, "q2q-tun up ADDRESS", "the tunnel to %s is down",
			 op->peer->address.text);
		return;
	}
	if (links_problem(op->peer->link, &problem)) {
		op_fail(op, &problem);
		return;
	}
	p = calloc(1, sizeof(*p));
	op->state = p;
	op->on_end = ping_end;
	if (!p) {
		op_failf(op, CTL_FAILED, NULL, "out of memory");
		return;
	}
	p->count = ctl_uint(&op->request, "count", PING_COUNT);
	p->interval_us =
		max_u64(ctl_uint(&op->request, "interval_ms", PING_INTERVAL_MS), 10) * US_PER_MS;
	if (ctl_bool(&op->request, "until_direct") && !json_object_get(op->request.args, "count"))
		p->count = ctl_uint(&op->request, "timeout_s", WAIT_S) * US_PER_S / p->interval_us;
	op->on_pong = ping_pong;
	op->on_timer = ping_timer;
	net_timer_arm(&op->timer, now_of(op));
}

/* ---- log, monitor ---- */

static void log_line(struct op *op, int level, const char *text)
{
	struct logring_line line = { .time_s = wall_clock_s(), .level = level };

	snprintf(line.text, sizeof(line.text), "%s", text);
	op_event(op, logring_event(&line));
}

void command_log(struct op *op)
{
	const struct logring *ring = &op->daemon->log;
	const size_t wanted = (size_t)ctl_uint(&op->request, "lines", LOG_LINES);

	for (size_t i = ring->n - min_size(wanted, ring->n); i < ring->n; i++)
		op_event(op, logring_event(&ring->lines[(ring->first + i) % LOGRING_LINES]));
	if (ctl_bool(&op->request, "follow"))
		op->on_log = log_line;
	else
		op_done(op, json_object());
}

void command_monitor(struct op *op)
{
	op->on_event = op_event;
}

void command_version(struct op *op)
{
	op_done(op, json_pack("{s:s,s:i}", "version", PACKAGE_VERSION, "protocol", CTL_VERSION));
}
