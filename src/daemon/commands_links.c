/*
 * Commands about links: status, up, wait, down.
 */
#include "daemon/internal.h"

#include <stdio.h>

enum { UP_WAIT_S = 15, WAIT_S = 30 };

static uint64_t now_of(const struct op *op)
{
	return net_loop_now_us(op->daemon->loop);
}

/* ---- status ---- */

static json_t *identity_status(struct daemon *d)
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
	if (h && hub_is_ready(h))
		endpoint_format(&h->server->remote, server);
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:b,s:s?}", "address", id->address.text, "ipv4",
			 ip_format(&ip4, v4), "ipv6", ip_format(&ip6, v6), "server",
			 *server ? server : id->address.domain, "server_way",
			 *server ? serverlink_way(h->server) : "", "connected", h && hub_is_ready(h),
			 "reason",
			 h && !hub_is_ready(h) && h->problem.code ? h->problem.error : NULL);
}

json_t *status_self(struct daemon *d)
{
	json_t *self = identity_status(d);

	if (self)
		json_object_set_new(self, "port_mapping", portmap_json(d));
	return self;
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
			json_array_append_new(list,
					      one ? links_status_full(peer) : links_status(peer));
	if (one && json_array_size(list) == 0) {
		json_decref(list);
		op_failf(op, CTL_NOT_FOUND,
			 "q2q-tun peers lists those that are; q2q-tun up ADDRESS "
			 "adds one",
			 "%s is not known here", address.text);
		return;
	}
	op_done(op, json_pack("{s:i,s:o,s:o}", "v", CTL_VERSION, "self", status_self(d), "peers",
			      list));
}

static void done_with_peer(struct op *op)
{
	op_done(op, json_pack("{s:o}", "peer", links_status(op->peer)));
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

	session_get_status(link_session(link), &s);
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

static struct hub_link *peer_hub(struct link *link)
{
	return hub_get(link->daemon, link->identity, link->peer->address.domain);
}

/* Nobody can go on but the user: true if a question could be asked. */
static bool up_ask(struct op *op, struct link *link)
{
	struct hub_link *h = peer_hub(link);

	if (h && h->server->untrusted_new && h->server->offered)
		op_ask_domain(op, h->domain, h->server->offered);
	else if (link->offered_peer && !link->peer->pinned)
		ask_peer(op, link);
	else
		return false;
	return true;
}

static struct crypto_cert *domain_offered(struct hub_link *h)
{
	return h && h->server->untrusted_new ? h->server->offered : NULL;
}

static struct crypto_cert *peer_offered(struct link *link)
{
	return link && !link->peer->pinned ? link->offered_peer : NULL;
}

/* The user says no: then that key must not come in by the other door, as a call of the peer. */
static void up_refused(struct op *op)
{
	const struct up *up = op->state;
	struct peer *const peer = op->peer;
	struct problem problem;

	problem_set(&problem, CTL_UNTRUSTED, "the key %s was not accepted", op->asked_fingerprint);
	if (peer && up->created) {
		peers_forget(op->daemon, peer);
	} else if (peer && !peer->pinned) {
		peer->wanted = peer->allowed = false;
		peers_save(op->daemon, peer);
		if (peer->link) {
			session_want(link_session(peer->link), false, link_now_us(peer->link));
			links_pump(peer->link);
		}
	}
	op_fail(op, &problem);
}

static void up_answer(struct op *op, const char *answer)
{
	struct link *link = op->peer ? op->peer->link : NULL;
	struct hub_link *h = link ? peer_hub(link) : NULL;
	const bool domain = op->asked == CTL_ASK_TRUST_DOMAIN;
	struct crypto_cert *cert = domain ? domain_offered(h) : peer_offered(link);
	char fingerprint[CRYPTO_FINGERPRINT_BYTES] = "";
	int r;

	if (!op_says_yes(answer, op->asked_fingerprint)) {
		up_refused(op);
		return;
	}
	/* The answer is about the key that was shown, not about what has come since. */
	if (!cert || strcmp(crypto_cert_fingerprint(cert, fingerprint), op->asked_fingerprint)) {
		if (!link || !up_ask(op, link))
			op_failf(op, CTL_FAILED, "try again",
				 "nothing waits for that answer any more");
		return;
	}
	r = domain ? hub_trust(h) : peers_pin(op->daemon, link->peer, crypto_cert_spki_hash(cert));
	if (r) {
		op_failf(op, CTL_FAILED, NULL, "cannot store the key: %s", strerror(-r));
		return;
	}
	link->problem.code = CTL_DONE;
	session_wake(link_session(link), link_now_us(link));
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
	const enum session_state state = session_state_of(link_session(link));

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
	struct peer before = { .address = { .text = "" } };
	enum session_path_mode mode;
	struct problem problem;
	struct peer *peer, *known;
	int r;

	if (!op_user(op, "address", &address) || (as && !op_user(op, "as", &own)) ||
	    !take_path_mode(op, &mode))
		return NULL;
	if (identities_find(&d->identities, address.text)) {
		op_failf(op, CTL_USAGE, NULL, "%s is this machine itself", address.text);
		return NULL;
	}
	known = peers_find(d, address.text);
	/* Before anything is kept: a command that fails must allow nobody. */
	if (!links_identity(d, as || !known ? own.text : known->as, &problem)) {
		op_fail(op, &problem);
		return NULL;
	}
	up->created = !known;
	peer = peers_get(d, &address);
	if (!peer) {
		op_failf(op, CTL_FAILED, "q2q-tun peers forget ADDRESS", "too many peers");
		return NULL;
	}
	if (peers_problem(d, peer, &problem)) {
		op_fail(op, &problem);
		return NULL;
	}
	peer_enter(peer);
	if (!up->created)
		before = *peer;
	peer->wanted = peer->allowed = true;
	peer->allowed_until_s = 0;
	peer->held = false;
	peer->path_mode = mode;
	if (as)
		memcpy(peer->as, own.text, sizeof(peer->as));
	r = peers_store(d, peer, &before);
	if (r) {
		op_failf(op, CTL_FAILED, NULL, "cannot store %s: %s", address.text, strerror(-r));
		return NULL;
	}
	requests_remove(d, address.text);
	return peer;
}

/*
 * What an attempt before this one could not trust is no answer to this one. --yes
 * is about the key that is shown from now on, so a key that waits for a question
 * is let go: the next attempt shows it again.
 */
static void forget_old_problem(const struct op *op, struct link *link)
{
	if (ctl_bool(&op->request, "yes")) {
		crypto_cert_unref(link->offered_peer);
		link->offered_peer = NULL;
	} else if (link->problem.code == CTL_UNTRUSTED) {
		return;
	}
	link->problem.code = CTL_DONE;
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
	forget_old_problem(op, link);
	hub_wake_denied(op->daemon, link->identity);
	session_set_path_mode(link_session(link), peer->path_mode, link_now_us(link));
	session_want(link_session(link), true, link_now_us(link));
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

void command_wait(struct op *op)
{
	op->peer = op_peer(op);
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
		if (session_state_of(link_session(peer->link)) == SESSION_DOWN)
			links_free(peer->link);
		else
			closing = true;
	}
	if (closing)
		net_timer_arm(&op->timer, now_of(op) + DOWN_POLL_US);
	else
		op_done(op, json_object());
}

/* It is down whether or not that can be stored. */
static int take_down(struct op *op, struct peer *peer)
{
	int r;

	if (!peer->wanted && !peer->link)
		return 0;
	peer->wanted = false;
	peer->held = true;
	r = peers_save(op->daemon, peer);
	if (peer->link) {
		session_want(link_session(peer->link), false, link_now_us(peer->link));
		links_pump(peer->link);
	}
	return r;
}

void command_down(struct op *op)
{
	struct peer *peer;
	int r = 0, failed;

	if (ctl_bool(&op->request, "all")) {
		TAILQ_FOREACH (peer, &op->daemon->peers, entry) {
			failed = take_down(op, peer);
			r = r ? r : failed;
		}
	} else {
		peer = op_peer(op);
		if (!peer)
			return;
		op->peer = peer;
		r = take_down(op, peer);
	}
	if (r) {
		op_failf(op, CTL_FAILED, NULL,
			 "it is taken down, but that cannot be stored (%s): it would come back "
			 "when the daemon is restarted",
			 strerror(-r));
		return;
	}
	op->on_timer = down_timer;
	net_timer_arm(&op->timer, now_of(op));
}
