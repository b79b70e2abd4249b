/*
 * agent - sockets, candidates and rounds of one peer link. The picture of the
 * phases is in internal.h.
 */
#include "nat/internal.h"

#define ANSWER_WAIT_US  (10 * US_PER_S) /* for the peer's list, once ours is out */
#define RETRY_OTHER_NUM 3               /* the controlled side waits 3/2 as long: rounds of both */
#define RETRY_OTHER_DEN 2               /* sides that cross cost nothing but are of no use */
#define RETRY_SHIFT_MAX 8
#define ROUND_SHIFT_MAX 4 /* 8 s between the peer's rounds while they are in vain */
#define JITTER_PERCENT  10

/* ---- life -------------------------------------------------------------------------------- */

int nat_agent_new(const struct nat_config *config, uint64_t now_us, struct nat_agent **ret_agent)
{
	struct nat_agent *a;
	int r;

	if (!config->mac)
		return -EINVAL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->config = *config;
	a->events = malloc(NAT_EVENTS_FIRST * sizeof(*a->events));
	if (!a->events) {
		free(a);
		return -ENOMEM;
	}
	a->event_room = NAT_EVENTS_FIRST;
	a->random = config->seed;
	r = nat_keys_derive(&a->keys, config->mac, config->key, config->controlling);
	secret_wipe(a->config.key, sizeof(a->config.key));
	if (r < 0) {
		nat_agent_free(a);
		return r;
	}
	a->round_us = now_us;
	a->gather_us = a->answer_us = a->retry_us = NEVER_US;
	a->guess_us = a->guess.due_us = NEVER_US;
	a->signal_delay_us = NAT_SIGNAL_DELAY_US;
	*ret_agent = a;
	return 0;
}

void nat_agent_free(struct nat_agent *agent)
{
	if (!agent)
		return;
	free(agent->events);
	for (size_t i = 0; i < agent->n_pairs; i++)
		free(agent->pairs[i]);
	secret_wipe(agent, sizeof(*agent));
	free(agent);
}

const uint8_t *nat_agent_local_tag(const struct nat_agent *agent)
{
	return agent->keys.local_tag;
}

void nat_agent_set_signal_delay(struct nat_agent *agent, uint64_t delay_us)
{
	agent->signal_delay_us = min_u64(delay_us, NAT_SIGNAL_DELAY_MAX_US);
}

/* ---- events --------------------------------------------------------------------------------- */

static bool grow_events(struct nat_agent *a)
{
	const size_t n = 2 * a->event_room;
	struct nat_event *events = n <= NAT_EVENTS_MAX ? malloc(n * sizeof(*events)) : NULL;

	if (!events)
		return false;
	for (size_t i = 0; i < a->n_events; i++)
		events[i] = a->events[(a->first_event + i) % a->event_room];
	free(a->events);
	a->events = events;
	a->event_room = n;
	a->first_event = 0;
	return true;
}

void nat_event_push(struct nat_agent *a, const struct nat_event *event)
{
	/* The caller does not pull, or there is no memory: the oldest goes. */
	if (a->n_events == a->event_room && !grow_events(a)) {
		a->first_event = (a->first_event + 1) % a->event_room;
		a->n_events--;
	}
	a->events[(a->first_event + a->n_events) % a->event_room] = *event;
	a->n_events++;
}

static bool event_waits(const struct nat_agent *a, enum nat_event_kind kind)
{
	for (size_t i = 0; i < a->n_events; i++)
		if (a->events[(a->first_event + i) % a->event_room].kind == kind)
			return true;
	return false;
}

bool nat_agent_next_event(struct nat_agent *agent, struct nat_event *ret_event)
{
	if (!agent->n_events)
		return false;
	*ret_event = agent->events[agent->first_event];
	agent->first_event = (agent->first_event + 1) % agent->event_room;
	agent->n_events--;
	return true;
}

static void push_simple(struct nat_agent *a, enum nat_event_kind kind)
{
	const struct nat_event event = { .kind = kind };

	if (!event_waits(a, kind))
		nat_event_push(a, &event);
}

/* ---- phases -----------------------------------------------------------------------------------
 */

/* splitmix64: jitter need not be unpredictable. */
uint64_t nat_random(struct nat_agent *a)
{
	uint64_t z = a->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint64_t retry_delay_us(struct nat_agent *a)
{
	const unsigned shift = a->n_failed > RETRY_SHIFT_MAX ? RETRY_SHIFT_MAX : a->n_failed;
	uint64_t delay_us = NAT_RETRY_FIRST_US << (shift ? shift - 1 : 0);

	delay_us = min_u64(delay_us, NAT_RETRY_MAX_US);
	if (!a->config.controlling)
		delay_us = delay_us * RETRY_OTHER_NUM / RETRY_OTHER_DEN;
	return delay_us + nat_random(a) % (delay_us * JITTER_PERCENT / 100 + 1);
}

/* The one place that assigns the phase. Deadlines of the phase that is left are off. */
static void set_phase(struct nat_agent *a, enum nat_phase phase)
{
	a->phase = phase;
	if (phase != NAT_GATHERING)
		a->gather_us = NEVER_US;
	if (phase != NAT_SIGNALLED)
		a->answer_us = NEVER_US;
	if (phase != NAT_RESTING)
		a->retry_us = NEVER_US;
}

static void rest_until(struct nat_agent *a, uint64_t retry_us)
{
	set_phase(a, NAT_RESTING);
	a->retry_us = max_u64(retry_us, add_sat_u64(a->round_us, NAT_ROUND_MIN_US));
}

static const char *why_failed(const struct nat_agent *a)
{
	const enum nat_mapping ours = nat_local_mapping(a), theirs = a->remote_mapping;

	if (!a->n_pairs)
		return "there is no address of the peer that a socket of ours could reach";
	for (size_t i = 0; i < a->n_pairs; i++)
		if (a->pairs[i]->heard)
			return "the peer's probes arrive, but our probes are not answered";
	if (ours == NAT_MAPPING_DEPENDENT && theirs == NAT_MAPPING_DEPENDENT)
		return "both NATs give another port to each destination";
	if (ours == NAT_MAPPING_DEPENDENT)
		return a->guess.phase == NAT_GUESS_OVER
			       ? "our NAT gives another port to each destination, and no guess met "
				 "one"
			       : "our NAT gives another port to each destination";
	if (theirs == NAT_MAPPING_DEPENDENT)
		return a->guess.phase == NAT_GUESS_OVER
			       ? "the peer's NAT gives another port to each destination, and no "
				 "guess "
				 "met one"
			       : "the peer's NAT gives another port to each destination";
	return "no probe was answered: a firewall or a NAT on the way drops them";
}

static void round_failed(struct nat_agent *a, const char *reason, uint64_t now_us)
{
	struct nat_event event = { .kind = NAT_EVENT_ROUND_FAILED, .reason = reason };

	a->fail_reason = reason;
	a->n_failed++;
	a->fresh = true;
	rest_until(a, now_us + retry_delay_us(a));
	event.retry_us = a->retry_us;
	nat_event_push(a, &event);
}

/* Sockets made for a round that did not need them; the first one is the program's own. */
static void release_unused_sockets(struct nat_agent *a)
{
	for (size_t i = a->n_sockets; i-- > 1;) {
		struct nat_event event = { .kind = NAT_EVENT_SOCKET_UNUSED,
					   .socket = a->sockets[i].id };
		bool used = false;

		for (size_t k = 0; k < a->n_pairs; k++)
			used |= a->pairs[k]->announced && a->pairs[k]->socket == event.socket;
		if (!used) {
			nat_event_push(a, &event);
			nat_agent_remove_socket(a, event.socket, a->round_us);
		}
	}
}

static void checks_ended(struct nat_agent *a, uint64_t now_us)
{
	if (!nat_pairs_announced(a)) {
		round_failed(a, why_failed(a), now_us);
		return;
	}
	set_phase(a, NAT_CONNECTED);
	a->n_failed = 0;
	a->fresh = false;
	release_unused_sockets(a);
}

void nat_agent_pair_started(struct nat_agent *a)
{
	if (a->phase == NAT_RESTING || a->phase == NAT_CONNECTED)
		set_phase(a, NAT_CHECKING);
}

void nat_agent_pair_valid(struct nat_agent *a)
{
	a->n_failed = 0;
	a->fresh = false;
	a->fail_reason = NULL;
	nat_guess_stop(a, "a path was found");
	nat_agent_pair_started(a);
}

static void enter_round(struct nat_agent *a, uint32_t round, uint64_t now_us)
{
	a->round = round;
	a->round_us = now_us;
	a->signalled = a->listed = false;
	nat_pairs_stop(a, "a new round");
	nat_guess_stop(a, "a new round");
}

/* Both lists are known to both sides, or are on their way. */
static void start_checks(struct nat_agent *a, uint64_t lead_us, uint64_t now_us)
{
	set_phase(a, NAT_CHECKING);
	nat_budget_renew(a);
	nat_pairs_start(a, lead_us, now_us);
	nat_guess_arm(a, now_us + lead_us + NAT_OPENER_LEAD_US + NAT_GUESS_WAIT_US);
}

/* Our list can go. If the peer's is here, we start, ahead of the peer by the way of the signal. */
static void signal_round(struct nat_agent *a, uint64_t now_us)
{
	a->signalled = true;
	push_simple(a, NAT_EVENT_SIGNAL);
	if (a->listed) {
		start_checks(a, a->signal_delay_us, now_us);
		return;
	}
	set_phase(a, NAT_SIGNALLED);
	a->answer_us = now_us + ANSWER_WAIT_US;
}

/* Our part of a round that is new: first a fresh socket if the last one failed. */
static void open_round(struct nat_agent *a, uint64_t now_us)
{
	if (!a->fresh || nat_pairs_announced(a)) {
		signal_round(a, now_us);
		return;
	}
	release_unused_sockets(a);
	set_phase(a, NAT_GATHERING);
	a->gather_us = now_us + NAT_FRESH_SOCKET_WAIT_US;
	push_simple(a, NAT_EVENT_WANT_FRESH_SOCKET);
}

void nat_agent_gathered(struct nat_agent *agent, uint64_t now_us)
{
	if (agent->phase == NAT_GATHERING)
		signal_round(agent, now_us);
}

static void next_round(struct nat_agent *a, uint64_t now_us)
{
	if (a->round == UINT32_MAX) {
		a->retry_us = NEVER_US;
		return;
	}
	enter_round(a, a->round + 1, now_us);
	open_round(a, now_us);
}

/* ---- sockets -----------------------------------------------------------------------------------
 */

struct nat_socket *nat_socket_find(struct nat_agent *a, uint8_t id)
{
	for (size_t i = 0; i < a->n_sockets; i++)
		if (a->sockets[i].id == id)
			return &a->sockets[i];
	return NULL;
}

const struct nat_socket *nat_socket_outer(const struct nat_agent *a)
{
	for (size_t i = a->n_sockets; i-- > 0;)
		if (a->sockets[i].seen.ip.family != FAMILY_NONE)
			return &a->sockets[i];
	return a->n_sockets ? &a->sockets[a->n_sockets - 1] : NULL;
}

static int socket_add(struct nat_agent *a, const struct nat_socket *s, uint64_t now_us)
{
	if (nat_socket_find(a, s->id))
		return NAT_KNOWN;
	if (a->n_sockets == NAT_SOCKETS_MAX)
		return NAT_FULL;
	a->sockets[a->n_sockets++] = *s;
	if (a->phase == NAT_CHECKING)
		nat_pairs_add(a, a->signal_delay_us, now_us);
	return 0;
}

int nat_agent_add_socket(struct nat_agent *agent, uint8_t socket, bool ipv4, bool ipv6,
			 uint64_t now_us)
{
	const struct nat_socket s = { .id = socket, .ipv4 = ipv4, .ipv6 = ipv6 };

	return socket_add(agent, &s, now_us);
}

int nat_agent_adopt_socket(struct nat_agent *agent, uint8_t socket, bool ipv4, bool ipv6,
			   uint64_t now_us)
{
	const struct nat_socket s = { .id = socket, .ipv4 = ipv4, .ipv6 = ipv6, .adopted = true };

	return socket_add(agent, &s, now_us);
}

static void drop_local_of(struct nat_agent *a, uint8_t socket)
{
	size_t n = 0;

	for (size_t i = 0; i < a->n_local; i++)
		if (a->local[i].kind == NAT_RELAY || a->local[i].socket != socket)
			a->local[n++] = a->local[i];
	a->n_local = n;
}

void nat_agent_remove_socket(struct nat_agent *agent, uint8_t socket, uint64_t now_us)
{
	struct nat_socket *s = nat_socket_find(agent, socket);
	const bool had = nat_pairs_announced(agent);

	if (!s)
		return;
	for (size_t i = agent->n_pairs; i-- > 0;)
		if (agent->pairs[i]->socket == socket)
			nat_pair_remove(agent, agent->pairs[i], "its socket was closed");
	drop_local_of(agent, socket);
	nat_samples_close(agent, socket);
	memmove(s, s + 1, (size_t)(agent->sockets + agent->n_sockets - (s + 1)) * sizeof(*s));
	agent->n_sockets--;
	if (had && !nat_pairs_announced(agent) && agent->phase == NAT_CONNECTED)
		rest_until(agent, now_us);
}

/* ---- candidates
 * -------------------------------------------------------------------------------------- */

static void note_seen(struct nat_agent *a, const struct nat_candidate *c)
{
	struct nat_socket *s = nat_socket_find(a, c->socket);

	if (!s || c->kind != NAT_REFLEXIVE || c->endpoint.ip.family != FAMILY_IPV4)
		return;
	nat_samples_add(a, c->socket, c->endpoint.port);
	if (s->seen.ip.family == FAMILY_NONE) {
		s->seen = c->endpoint;
		s->seen_by = c->server;
	} else if (!endpoint_equal(&s->seen, &c->endpoint)) {
		s->seen_other = true;
	} else if (!endpoint_equal(&s->seen_by, &c->server)) {
		s->seen_twice = true;
	}
}

static bool is_own_address(const struct nat_agent *a, const struct ip_address *ip)
{
	for (size_t i = 0; i < a->n_local; i++)
		if (a->local[i].kind == NAT_HOST && ip_equal(&a->local[i].endpoint.ip, ip))
			return true;
	return false;
}

enum nat_mapping nat_local_mapping(const struct nat_agent *a)
{
	enum nat_mapping mapping = NAT_MAPPING_UNKNOWN;

	for (size_t i = 0; i < a->n_sockets; i++) {
		const struct nat_socket *s = &a->sockets[i];

		if (s->seen_other)
			return NAT_MAPPING_DEPENDENT;
		if (s->seen.ip.family != FAMILY_NONE && is_own_address(a, &s->seen.ip))
			mapping = NAT_MAPPING_NONE;
		else if (s->seen_twice)
			mapping = NAT_MAPPING_INDEPENDENT;
	}
	return mapping;
}

static bool local_known(const struct nat_agent *a, const struct nat_candidate *c)
{
	for (size_t i = 0; i < a->n_local; i++)
		if (c->kind == NAT_RELAY
			    ? a->local[i].kind == NAT_RELAY
			    : a->local[i].kind != NAT_RELAY &&
				      endpoint_equal(&a->local[i].endpoint, &c->endpoint))
			return true;
	return false;
}

int nat_agent_add_local(struct nat_agent *agent, const struct nat_candidate *candidate,
			uint64_t now_us)
{
	if (candidate->kind != NAT_RELAY) {
		note_seen(agent, candidate);
		if (nat_endpoint_check(&candidate->endpoint, agent->config.allow_loopback, NULL) !=
		    0)
			return NAT_REFUSED;
	}
	if (local_known(agent, candidate))
		return NAT_KNOWN;
	if (agent->n_local == NAT_LOCAL_MAX)
		return NAT_FULL;
	agent->local[agent->n_local++] = *candidate;
	if (agent->signalled && (agent->phase == NAT_SIGNALLED || agent->phase == NAT_CHECKING))
		push_simple(agent, NAT_EVENT_SIGNAL);
	if (agent->phase == NAT_CHECKING) /* its socket may have become the outer one */
		nat_pairs_add(agent, agent->signal_delay_us, now_us);
	return 0;
}

void nat_agent_clear_local(struct nat_agent *agent)
{
	agent->n_local = agent->n_samples = 0;
	for (size_t i = 0; i < agent->n_sockets; i++) {
		struct nat_socket *s = &agent->sockets[i];

		*s = (struct nat_socket){
			.id = s->id, .ipv4 = s->ipv4, .ipv6 = s->ipv6, .adopted = s->adopted
		};
	}
}

/*
 * Each address through our NAT costs the peer probes. So it gets those of the
 * newest socket alone, and of a NAT that gives each destination another port
 * only one, which serves to open what filters by address.
 */
static bool is_worth_telling(const struct nat_agent *a, const struct nat_candidate *c)
{
	const struct nat_socket *outer = nat_socket_outer(a);

	if (c->kind == NAT_PEER_REFLEXIVE)
		return false;
	if (c->kind != NAT_REFLEXIVE || c->endpoint.ip.family != FAMILY_IPV4 || !outer)
		return true;
	return c->socket == outer->id && endpoint_equal(&c->endpoint, &outer->seen);
}

size_t nat_agent_encode(struct nat_agent *agent, uint8_t *out, size_t out_bytes, uint64_t now_us)
{
	struct nat_list list = { .round = agent->round, .mapping = nat_local_mapping(agent) };
	size_t n_bytes, max = NAT_REMOTE_MAX;

	list.has_guess = nat_guess_offer(agent, &list.guess);
	max -= list.has_guess;
	for (size_t i = 0; i < agent->n_local && list.n_candidates < max; i++)
		if (is_worth_telling(agent, &agent->local[i]))
			list.candidates[list.n_candidates++] = agent->local[i];
	n_bytes = nat_list_write(&list, out, min_size(out_bytes, NAT_LIST_BYTES_MAX));
	if (n_bytes && agent->phase == NAT_IDLE) {
		agent->signalled = true;
		set_phase(agent, NAT_SIGNALLED);
		/* The peer of the first list may take its time: a person may be asked first. */
		(void)now_us;
	}
	return n_bytes;
}

/* The peer names this address; may it? */
static bool accept_remote(struct nat_agent *a, const struct nat_candidate *c)
{
	size_t n_same = 0;

	for (size_t i = 0; i < a->n_remote; i++) {
		const struct nat_candidate *known = &a->remote[i];

		/* What is known need not be counted as refused. All relays are one. */
		if ((known->kind == NAT_RELAY) == (c->kind == NAT_RELAY) &&
		    endpoint_equal(&known->endpoint, &c->endpoint))
			return false;
		n_same +=
			known->kind != NAT_RELAY && ip_equal(&known->endpoint.ip, &c->endpoint.ip);
	}
	if (c->kind == NAT_RELAY)
		return true;
	if (n_same < NAT_REMOTE_PER_ADDRESS &&
	    nat_endpoint_check(&c->endpoint, a->config.allow_loopback, NULL) == 0 &&
	    !(a->config.refuse && a->config.refuse(a->config.user, &c->endpoint.ip)))
		return true;
	a->n_refused++;
	return false;
}

static void take_remote(struct nat_agent *a, const struct nat_list *list)
{
	for (size_t i = 0; i < list->n_candidates && a->n_remote < NAT_REMOTE_MAX; i++)
		if (accept_remote(a, &list->candidates[i]))
			a->remote[a->n_remote++] = list->candidates[i];
	a->remote_mapping = list->mapping;
}

/* Further candidates of the round that is on. */
static int take_trickle(struct nat_agent *a, const struct nat_list *list, uint64_t now_us)
{
	const size_t n_before = a->n_remote;

	take_remote(a, list);
	if (a->n_remote == n_before)
		return NAT_KNOWN;
	if (a->phase == NAT_CHECKING || a->phase == NAT_RESTING || a->phase == NAT_CONNECTED)
		nat_pairs_add(a, 0, now_us);
	return 0;
}

/* The peer's own retries are at least twice as far apart. */
static uint64_t earliest_round_us(const struct nat_agent *a)
{
	const unsigned shift = a->n_failed > ROUND_SHIFT_MAX ? ROUND_SHIFT_MAX : a->n_failed;

	return add_sat_u64(a->round_us, NAT_ROUND_MIN_US << (shift ? shift - 1 : 0));
}

int nat_agent_input_list(struct nat_agent *agent, const uint8_t *data, size_t data_bytes,
			 uint64_t now_us)
{
	struct nat_list list;

	if (nat_list_read(data, data_bytes, &list) < 0)
		return -EBADMSG;
	if (list.round < agent->round)
		return NAT_IGNORED;
	if (list.round == agent->round && agent->listed) {
		const int r = take_trickle(agent, &list, now_us);

		nat_guess_input(agent, &list, now_us);
		return r;
	}
	if (list.round > agent->round) {
		/* Rounds renew the budget, so the peer cannot have them as fast as it likes. */
		if (agent->listed && now_us < earliest_round_us(agent))
			return NAT_IGNORED;
		enter_round(agent, list.round, now_us);
	}
	agent->n_remote = 0;
	agent->listed = true;
	take_remote(agent, &list);
	if (agent->signalled)
		start_checks(agent, 0, now_us);
	else if (agent->phase != NAT_GATHERING)
		open_round(agent, now_us);
	return 0;
}

/* ---- what the caller tells
 * ---------------------------------------------------------------------------- */

void nat_agent_restart(struct nat_agent *agent, uint64_t now_us)
{
	agent->n_failed = 0;
	agent->fresh = false;
	if (agent->phase == NAT_IDLE)
		return;
	nat_pairs_recheck(agent, now_us);
	if (now_us < add_sat_u64(agent->round_us, NAT_ROUND_MIN_US)) {
		rest_until(agent, now_us);
		return;
	}
	next_round(agent, now_us);
}

void nat_agent_path_lost(struct nat_agent *agent, uint8_t socket, const struct endpoint *remote,
			 uint64_t now_us)
{
	struct nat_pair *p = nat_pair_find(agent, socket, remote);

	if (!p || !p->announced)
		return;
	p->announced = false; /* the caller knows: no event */
	nat_pair_set_state(agent, p, NAT_PAIR_FAILED, "the transport found it dead");
	if (nat_pairs_announced(agent) ||
	    (agent->phase != NAT_CONNECTED && agent->phase != NAT_CHECKING))
		return;
	rest_until(agent, now_us + (agent->config.controlling ? 0 : NAT_RETRY_FIRST_US / 2));
}

/* ---- time
 * ----------------------------------------------------------------------------------------------------
 */

uint64_t nat_agent_deadline_us(const struct nat_agent *agent)
{
	uint64_t due_us = nat_pairs_deadline_us(agent);

	if (agent->phase == NAT_CHECKING && !nat_pairs_active(agent) && !nat_guess_active(agent))
		return 0; /* the round is over: tick */
	due_us = min_u64(due_us, nat_guess_deadline_us(agent));
	due_us = min_u64(due_us, agent->gather_us);
	due_us = min_u64(due_us, agent->answer_us);
	return min_u64(due_us, agent->retry_us);
}

void nat_agent_tick(struct nat_agent *agent, uint64_t now_us)
{
	nat_pairs_tick(agent, now_us);
	nat_guess_tick(agent, now_us);
	if (agent->phase == NAT_CHECKING && !nat_pairs_active(agent) && !nat_guess_active(agent))
		checks_ended(agent, now_us);
	if (agent->gather_us <= now_us)
		signal_round(agent, now_us);
	if (agent->answer_us <= now_us) {
		if (nat_pairs_announced(agent))
			set_phase(agent, NAT_CONNECTED);
		else
			round_failed(agent, "the peer did not answer our candidates", now_us);
	}
	if (agent->retry_us <= now_us)
		next_round(agent, now_us);
}
