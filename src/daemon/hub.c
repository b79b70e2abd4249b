/*
 * The control connections that we keep: the own servers', where we listen, and
 * those of the domains of our peers. What they carry is inbound, signals and
 * relayed datagrams; each goes to the session it belongs to.
 */
#include "daemon/internal.h"

#include <stdio.h>

#define RETRY_SOON_US   (50 * US_PER_MS) /* once a connection lasted; with jitter up to 250 ms */
#define LASTED_US       (2 * US_PER_S)
#define RETRY_FIRST_US  (1 * US_PER_S)
#define RETRY_MAX_US    (30 * US_PER_S)
#define UNTRUSTED_RETRY (300 * US_PER_S)
#define DENIED_RETRY_US (60 * US_PER_S) /* an account may be enabled again */
#define IDLE_US         (60 * US_PER_S)

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

/* ---- the connection ---- */

static void wake_links(struct hub_link *h)
{
	struct link *link, *next;

	for (link = LIST_FIRST(&h->daemon->links); link; link = next) {
		next = LIST_NEXT(link, entry);
		if (link->identity != h->identity)
			continue;
		if (link->ask_hub == h && !link->ask_sent)
			ask_send(h, link);
		else if (!strcmp(link->peer->address.domain, h->domain))
			session_wake(link_session(link), link_now_us(link));
		links_pump(link);
	}
}

static void tell_servers(struct hub_link *h)
{
	gather_add_server(h->daemon, &h->server->remote);
	for (size_t i = 0; i < h->server->n_found; i++)
		gather_add_server(h->daemon, &h->server->found[i]);
}

void hub_tell_servers(struct daemon *d)
{
	struct hub_link *h;

	LIST_FOREACH (h, &d->hubs, entry)
		if (hub_is_ready(h))
			tell_servers(h);
}

static void hub_ready(struct hub_link *h)
{
	const bool again = h->ready_us != NEVER_US;

	h->ready = true;
	h->n_asking = 0;
	h->n_failures = 0;
	/* What cut the last one may be a NAT with another outside now. */
	if (again)
		gather_again(h->daemon);
	h->ready_us = net_loop_now_us(h->daemon->loop);
	h->problem.code = CTL_DONE;
	tell_servers(h);
	if (h->own)
		renew_plan(h->daemon, h->identity);
	wake_links(h);
	/* We slept, or were away: a peer that asked us before asks less and less often by now. */
	if (again && h->own)
		links_start_lost(h->daemon);
	control_event(h->daemon, json_pack("{s:s,s:s}", "server", h->domain, "state", "connected"));
}

static void start_listen(struct hub_link *h)
{
	struct q2q_call call = { .command = Q2Q_LISTEN };
	struct buffer protocols;
	int r;

	buffer_init(&protocols, 64, false);
	r = amp_list_append(&protocols, HUB_PROTOCOL, strlen(HUB_PROTOCOL));
	call.listen.from = h->identity->address;
	call.listen.protocols = amp_value(buffer_peek(&protocols), buffer_used(&protocols));
	call.listen.description = amp_text(HUB_PROTOCOL);
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

/* "q2q-server 1.0 1790000000" */
static void note_about(struct hub_link *h, const struct amp_value *text)
{
	char safe[Q2Q_SERVER_TEXT_BYTES], *clock;
	uint64_t there_s;

	h->about[0] = '\0';
	h->ahead_s = INT64_MIN;
	if (text->n_bytes == 0 || text->n_bytes >= sizeof(safe))
		return;
	text_sanitize((const char *)text->data, text->n_bytes, safe, sizeof(safe));
	clock = strrchr(safe, ' ');
	if (!clock || parse_u64(clock + 1, INT32_MAX * (uint64_t)4, &there_s) < 0)
		return;
	*clock = '\0';
	snprintf(h->about, sizeof(h->about), "%s", safe);
	h->ahead_s = (int64_t)there_s - wall_clock_s();
}

static void listen_answered(struct hub_link *h, const struct q2q_event *event)
{
	h->listening = event->kind == Q2Q_EVENT_ANSWER;
	if (h->listening)
		note_about(h, &event->answer.listen.server);
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
		hub_call(h, event);
		return;
	case Q2Q_EVENT_ANSWER:
		if (event->command == Q2Q_INBOUND) {
			ask_answered(h, event);
			ask_over(h);
		} else if (event->command == Q2Q_CHANNEL)
			channel_answered(h, event);
		else if (event->command == Q2Q_LISTEN)
			listen_answered(h, event);
		else if (event->command == Q2Q_RENEW)
			renew_answered(h, event);
		return;
	case Q2Q_EVENT_ERROR:
		if (event->command == Q2Q_INBOUND) {
			ask_error(h, event);
			ask_over(h);
		} else if (event->command == Q2Q_LISTEN)
			listen_answered(h, event);
		else if (event->command == Q2Q_RENEW)
			renew_answered(h, event);
		return;
	default:
		return;
	}
}

/* Sessions that went through here must know; those that wait for it fail for now. */
static void drop_links(struct hub_link *h, bool fail)
{
	struct link *link, *next;

	for (link = LIST_FIRST(&h->daemon->links); link; link = next) {
		next = LIST_NEXT(link, entry);
		session_route_lost(link_session(link), h, link_now_us(link));
		if (link->ask_hub == h && fail)
			ask_failed(link, ask_why(&h->problem), &h->problem);
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
	/* A NAT that started anew, say. Where the server did, all of its clients come back. */
	if (h->n_failures == 0 && h->ready_us < now_us && now_us - h->ready_us > LASTED_US)
		delay_us = RETRY_SOON_US;
	if (h->problem.code == CTL_UNTRUSTED)
		delay_us = UNTRUSTED_RETRY;
	if (h->problem.code == CTL_DENIED)
		delay_us = DENIED_RETRY_US;
	if (!crypto_random(&jitter, 1))
		delay_us += delay_us * jitter / (delay_us == RETRY_SOON_US ? 64 : 1024);
	h->n_failures++;
	net_timer_arm(&h->retry, now_us + delay_us);
}

/* Somebody who waits for this connection said in advance that a new key is fine. */
static bool somebody_trusts(struct hub_link *h)
{
	struct link *link;

	LIST_FOREACH (link, &h->daemon->links, entry)
		if (link->ask_hub == h && ask_trusts_new(link))
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
	h->n_asking = 0;
	plan_retry(h);
	if (h->wake)
		net_timer_arm(&h->retry, net_loop_now_us(h->daemon->loop));
	h->wake = false;
	drop_links(h, true);
	control_event(h->daemon, json_pack("{s:s,s:s,s:s}", "server", h->domain, "state",
					   "disconnected", "reason", problem->error));
}

static void on_retry(void *user, uint64_t now_us)
{
	struct hub_link *h = user;

	(void)now_us;
	hub_wake(h);
}

bool hub_is_ready(const struct hub_link *h)
{
	return h->ready && h->server->state == SERVERLINK_READY;
}

void hub_wake(struct hub_link *h)
{
	if (h->server->state != SERVERLINK_IDLE)
		return;
	if (h->server->report.queued) {
		h->wake = true;
		return;
	}
	net_timer_disarm(&h->retry);
	serverlink_start(h->server);
}

void hub_wake_denied(struct daemon *d, const struct identity *identity)
{
	struct hub_link *h;

	LIST_FOREACH (h, &d->hubs, entry) {
		if (h->identity != identity || h->problem.code != CTL_DENIED)
			continue;
		h->problem.code = CTL_DONE;
		hub_wake(h);
	}
}

void hub_wake_all(struct daemon *d)
{
	struct hub_link *h;

	LIST_FOREACH (h, &d->hubs, entry) {
		h->n_failures = 0;
		serverlink_check(h->server);
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
	h->ready_us = NEVER_US;
	snprintf(h->domain, sizeof(h->domain), "%s", domain);
	net_timer_init(&h->retry, d->loop, on_retry, h);
	if (make_server(h)) {
		free(h);
		return NULL;
	}
	LIST_INSERT_HEAD(&d->hubs, h, entry);
	upkeep_soon(d);
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

/* Its certificate, or its key too, are others now. */
static int identity_changed(struct daemon *d, struct identity *identity)
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
			session_set_identity(link_session(link), identity->tls_ptcp, identity->key);
	return hub_get(d, identity, identity->address.domain) ? 0 : -ENOMEM;
}

int hub_identity_set(struct daemon *d, const struct q2q_address *address, struct crypto_cert *cert,
		     struct crypto_key *key, struct identity **ret_identity)
{
	struct link *link;
	int r;

	/* Workers stand still while the key that their sessions use is exchanged. */
	LIST_FOREACH (link, &d->links, entry)
		link_enter(link);
	r = identities_add(&d->identities, address, cert, key, ret_identity);
	return r ? r : identity_changed(d, *ret_identity);
}

struct hub_link *hub_of_route(struct daemon *d, const void *route)
{
	struct hub_link *h;

	LIST_FOREACH (h, &d->hubs, entry)
		if (h == route)
			return hub_is_ready(h) ? h : NULL;
	return NULL;
}

void hub_signal(struct daemon *d, void *route, const char *id, const void *body, size_t n_bytes,
		bool relay)
{
	struct q2q_call call = { .command = relay ? Q2Q_RELAY : Q2Q_SIGNAL };
	struct hub_link *h = hub_of_route(d, route);

	if (!h)
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
		    session_state_of(link_session(link)) != SESSION_DOWN)
			return true;
	return false;
}

bool hub_sweep(struct daemon *d)
{
	const uint64_t now_us = net_loop_now_us(d->loop);
	struct hub_link *h, *next;
	bool again = false;

	for (h = LIST_FIRST(&d->hubs); h; h = next) {
		next = LIST_NEXT(h, entry);
		if (is_needed(h)) {
			h->idle_since_us = NEVER_US;
			continue;
		}
		if (h->idle_since_us == NEVER_US)
			h->idle_since_us = now_us;
		if (now_us - h->idle_since_us > IDLE_US)
			hub_free(h);
		else
			again = true;
	}
	return again;
}
