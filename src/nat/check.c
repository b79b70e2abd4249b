/*
 * check - the pairs of one agent: openers, probes, answers.
 *
 * A NAT of the Linux kind gives our flow another port when a stranger's packet
 * for that port came first. So before any packet can reach the peer's NAT, each
 * side lets one out that dies on the way there, and holds the others back until
 * the peer must have done the same: at hold_us.
 *
 *	start            hold - 25 ms         hold
 *	  | opener, TTL 2      | opener, TTL 4  | probe  probe   probe ...  given up
 *	  +--------------------+----------------+--|------|-------|------------|
 *
 * An opener is a probe in all but its TTL: should it arrive, it is answered.
 */
#include "nat/internal.h"

#define OPENERS            2
#define BUDGET_RESERVE     4
#define DEEP_OPENER_LEAD   (25 * US_PER_MS)
#define TRIGGERED_PAUSE_US (20 * US_PER_MS) /* between probes that arriving ones cause */

/* After each probe of a pair: the pause before the next, or before giving up. */
static const uint64_t probe_pauses_us[] = {
	60 * US_PER_MS,  120 * US_PER_MS, 200 * US_PER_MS,  300 * US_PER_MS,
	500 * US_PER_MS, 700 * US_PER_MS, 1000 * US_PER_MS, 1000 * US_PER_MS,
};

/* Where the priority of a pair starts, by what lies between. */
enum rank {
	RANK_OTHER_PRIVATE = 300, /* a private address of who knows what network */
	RANK_HAIRPIN = 450,       /* the outside of the NAT that we are behind too */
	RANK_REFLEXIVE = 550,
	RANK_LEARNT = 560,
	RANK_PUBLIC_HOST = 580,
	RANK_MAPPED = 600,
	RANK_SAME_SITE = 650, /* private, and both sides have one outer address */
	RANK_IPV6 = 700,
	RANK_SAME_LAN = 900,
};

/* ---- state --------------------------------------------------------------------------------- */

void nat_pair_set_state(struct nat_agent *a, struct nat_pair *p, enum nat_pair_state state,
			const char *because)
{
	const enum nat_pair_state from = p->state;

	p->state = state;
	p->reason = because;
	if (state == NAT_PAIR_VALID || state == NAT_PAIR_FAILED)
		p->due_us = NEVER_US;
	if (from != state && a->config.trace)
		a->config.trace(a->config.user, p->socket, &p->remote, nat_pair_state_name(from),
				nat_pair_state_name(state), because);
}

static void announce(struct nat_agent *a, struct nat_pair *p)
{
	const struct nat_event event = {
		.kind = NAT_EVENT_PAIR_VALID,
		.socket = p->socket,
		.remote = p->remote,
		.remote_kind = p->kind,
		.same_lan = p->same_lan,
		.mapped = p->mapped,
		.rtt_us = p->rtt_us,
	};

	p->announced = true;
	nat_event_push(a, &event);
}

static void withdraw(struct nat_agent *a, struct nat_pair *p, const char *because)
{
	const struct nat_event event = { .kind = NAT_EVENT_PAIR_LOST,
					 .socket = p->socket,
					 .remote = p->remote,
					 .reason = because };

	if (!p->announced)
		return;
	p->announced = false;
	nat_event_push(a, &event);
}

static void give_up(struct nat_agent *a, struct nat_pair *p, const char *because)
{
	nat_pair_set_state(a, p, NAT_PAIR_FAILED, because);
	withdraw(a, p, because);
}

void nat_pair_remove(struct nat_agent *a, struct nat_pair *p, const char *because)
{
	size_t at = 0;

	withdraw(a, p, because);
	if (p->kind == NAT_PEER_REFLEXIVE)
		a->n_learnt--;
	while (a->pairs[at] != p)
		at++;
	free(p);
	a->pairs[at] = a->pairs[--a->n_pairs];
}

struct nat_pair *nat_pair_find(struct nat_agent *a, uint8_t socket, const struct endpoint *remote)
{
	for (size_t i = 0; i < a->n_pairs; i++)
		if (a->pairs[i]->socket == socket && endpoint_equal(&a->pairs[i]->remote, remote))
			return a->pairs[i];
	return NULL;
}

bool nat_pairs_active(const struct nat_agent *a)
{
	for (size_t i = 0; i < a->n_pairs; i++)
		if (a->pairs[i]->due_us != NEVER_US)
			return true;
	return false;
}

bool nat_pairs_announced(const struct nat_agent *a)
{
	for (size_t i = 0; i < a->n_pairs; i++)
		if (a->pairs[i]->announced)
			return true;
	return false;
}

/* ---- priority ---------------------------------------------------------------------------------
 */

/* Netmasks are not known here; /24 and /64 are what LANs have. */
static bool same_network(const struct ip_address *a, const struct ip_address *b)
{
	return a->family == b->family &&
	       memcmp(a->bytes, b->bytes, a->family == FAMILY_IPV4 ? 3 : 8) == 0;
}

static bool is_same_lan(const struct nat_agent *a, const struct nat_candidate *remote)
{
	if (remote->kind != NAT_HOST && remote->kind != NAT_PEER_REFLEXIVE)
		return false;
	for (size_t i = 0; i < a->n_local; i++)
		if (a->local[i].kind == NAT_HOST &&
		    same_network(&a->local[i].endpoint.ip, &remote->endpoint.ip))
			return true;
	return false;
}

/* Is this the outer address of a NAT that we are behind too? */
static bool is_our_outside(const struct nat_agent *a, const struct ip_address *ip)
{
	for (size_t i = 0; i < a->n_local; i++)
		if (a->local[i].kind == NAT_REFLEXIVE && ip_equal(&a->local[i].endpoint.ip, ip))
			return true;
	return false;
}

static bool is_same_site(const struct nat_agent *a)
{
	for (size_t i = 0; i < a->n_remote; i++)
		if (a->remote[i].kind == NAT_REFLEXIVE &&
		    is_our_outside(a, &a->remote[i].endpoint.ip))
			return true;
	return false;
}

static enum rank rank_of_host(const struct nat_agent *a, const struct ip_address *ip)
{
	if (!ip_is_private(ip))
		return ip->family == FAMILY_IPV6 ? RANK_IPV6 : RANK_PUBLIC_HOST;
	return is_same_site(a) ? RANK_SAME_SITE : RANK_OTHER_PRIVATE;
}

static enum rank rank_of(const struct nat_agent *a, const struct nat_candidate *remote)
{
	if (is_same_lan(a, remote))
		return RANK_SAME_LAN;
	switch (remote->kind) {
	case NAT_HOST:
		return rank_of_host(a, &remote->endpoint.ip);
	case NAT_MAPPED:
		return ip_is_private(&remote->endpoint.ip) ? RANK_SAME_SITE : RANK_MAPPED;
	case NAT_PEER_REFLEXIVE:
		return RANK_LEARNT;
	default:
		break;
	}
	if (remote->endpoint.ip.family == FAMILY_IPV6)
		return RANK_IPV6;
	return is_our_outside(a, &remote->endpoint.ip) ? RANK_HAIRPIN : RANK_REFLEXIVE;
}

/*
 * Openers are for IPv4 paths that lead through our NAT. IPv6 firewalls change no
 * port; on a LAN there is no NAT; and without one ourselves there is nothing to
 * open, while even a short-lived packet might reach the peer's.
 */
static bool needs_openers(const struct nat_agent *a, const struct nat_candidate *remote,
			  bool same_lan)
{
	const struct ip_address *ip = &remote->endpoint.ip;

	if (ip->family != FAMILY_IPV4 || same_lan || remote->kind == NAT_PEER_REFLEXIVE)
		return false;
	if (remote->kind == NAT_HOST && (ip_is_private(ip) || ip_is_loopback(ip)))
		return false;
	return nat_local_mapping(a) != NAT_MAPPING_NONE;
}

/* ---- making pairs
 * ---------------------------------------------------------------------------------- */

static void pair_start(struct nat_agent *a, struct nat_pair *p, uint64_t lead_us, uint64_t now_us)
{
	p->heard = false;
	p->n_openers = p->wants_openers ? 0 : OPENERS;
	p->n_probes = 0;
	p->hold_us = now_us;
	/* Where no NAT of ours needs an opener, the peer's may still need its own. */
	if (p->remote.ip.family == FAMILY_IPV4 && !p->same_lan)
		p->hold_us = now_us + lead_us + NAT_OPENER_LEAD_US;
	p->due_us = p->wants_openers ? now_us : p->hold_us;
	nat_pair_set_state(a, p, NAT_PAIR_WAITING, "its turn has not come");
}

static struct nat_pair *pair_make(struct nat_agent *a, const struct nat_socket *socket,
				  const struct nat_candidate *remote, size_t index)
{
	struct nat_pair *p;

	if (a->n_pairs == NAT_PAIRS_MAX)
		return NULL;
	p = malloc(sizeof(*p));
	if (!p)
		return NULL;
	a->pairs[a->n_pairs++] = p;
	*p = (struct nat_pair){
		.socket = socket->id,
		.remote = remote->endpoint,
		.kind = remote->kind,
		.reason = "its turn has not come",
		.same_lan = is_same_lan(a, remote),
		.due_us = NEVER_US,
	};
	p->wants_openers = needs_openers(a, remote, p->same_lan);
	p->priority = (uint32_t)rank_of(a, remote) * 1000u - (uint32_t)index;
	return p;
}

static bool socket_reaches(const struct nat_socket *s, const struct endpoint *e)
{
	return e->ip.family == FAMILY_IPV4 ? s->ipv4 : s->ipv6;
}

static bool is_own(const struct nat_agent *a, const struct endpoint *e)
{
	for (size_t i = 0; i < a->n_local; i++)
		if (a->local[i].kind == NAT_HOST && endpoint_equal(&a->local[i].endpoint, e))
			return true;
	return false;
}

/* A router's port in a carrier's network, and we are not behind that carrier's NAT. */
static bool is_elsewhere(const struct nat_agent *a, const struct nat_candidate *remote)
{
	return remote->kind == NAT_MAPPED && ip_is_private(&remote->endpoint.ip) &&
	       !is_same_site(a);
}

/* What we learnt from a probe is now known from a list too. */
static void pair_listed(struct nat_agent *a, struct nat_pair *p, const struct nat_candidate *remote)
{
	if (p->kind != NAT_PEER_REFLEXIVE)
		return;
	a->n_learnt--;
	p->kind = remote->kind;
}

static void pairs_of(struct nat_agent *a, const struct nat_candidate *remote, size_t index,
		     uint64_t lead_us, uint64_t now_us)
{
	const struct nat_socket *outer = nat_socket_outer(a);

	if (remote->kind == NAT_RELAY || is_own(a, &remote->endpoint) || is_elsewhere(a, remote))
		return;
	for (size_t s = 0; s < a->n_sockets; s++) {
		struct nat_pair *p;

		/* Each port through our NAT costs openers and probes; the newest one is enough. */
		if (a->sockets[s].adopted)
			continue;
		if (&a->sockets[s] != outer && needs_openers(a, remote, is_same_lan(a, remote)))
			continue;
		p = nat_pair_find(a, a->sockets[s].id, &remote->endpoint);
		if (p)
			pair_listed(a, p, remote);
		if (p || !socket_reaches(&a->sockets[s], &remote->endpoint))
			continue;
		p = pair_make(a, &a->sockets[s], remote, index * NAT_SOCKETS_MAX + s);
		if (p)
			pair_start(a, p, lead_us, now_us);
	}
}

void nat_pairs_add(struct nat_agent *a, uint64_t lead_us, uint64_t now_us)
{
	for (size_t i = 0; i < a->n_remote; i++)
		pairs_of(a, &a->remote[i], i, lead_us, now_us);
	if (nat_pairs_active(a))
		nat_agent_pair_started(a);
}

void nat_pairs_start(struct nat_agent *a, uint64_t lead_us, uint64_t now_us)
{
	/* What the peer no longer names is not probed any more; what works stays. */
	for (size_t i = a->n_pairs; i-- > 0;)
		if (!a->pairs[i]->announced && a->pairs[i]->state != NAT_PAIR_VALID)
			nat_pair_remove(a, a->pairs[i], "a new round");
	nat_pairs_add(a, lead_us, now_us);
}

void nat_pairs_recheck(struct nat_agent *a, uint64_t now_us)
{
	for (size_t i = 0; i < a->n_pairs; i++) {
		struct nat_pair *p = a->pairs[i];

		if (!p->announced)
			continue;
		p->wants_openers = false;
		pair_start(a, p, 0, now_us);
		p->hold_us = p->due_us = now_us;
	}
	if (nat_pairs_active(a))
		nat_agent_pair_started(a);
}

void nat_pairs_stop(struct nat_agent *a, const char *because)
{
	for (size_t i = 0; i < a->n_pairs; i++) {
		struct nat_pair *p = a->pairs[i];

		if (p->due_us != NEVER_US && !p->announced)
			nat_pair_set_state(a, p, NAT_PAIR_FAILED, because);
	}
}

/* ---- the budget
 * ------------------------------------------------------------------------------------------ */

static struct nat_address *address_find(struct nat_agent *a, const struct ip_address *ip)
{
	for (size_t i = 0; i < a->n_addresses; i++)
		if (ip_equal(&a->addresses[i].ip, ip))
			return &a->addresses[i];
	return NULL;
}

static struct nat_address *address_of(struct nat_agent *a, const struct ip_address *ip)
{
	struct nat_address *address = address_find(a, ip);

	if (address)
		return address;
	if (a->n_addresses == NAT_ADDRESSES_MAX)
		return NULL;
	address = &a->addresses[a->n_addresses++];
	*address = (struct nat_address){ .ip = *ip };
	return address;
}

/* The last few are for addresses where something authentic came from: an answer is worth more. */
static bool budget_take(struct nat_agent *a, const struct ip_address *ip, bool heard,
			uint64_t now_us)
{
	struct nat_address *address = address_of(a, ip);
	struct nat_allowance *hour = nat_allowance_of(a, now_us);
	const unsigned limit = heard ? NAT_BUDGET : NAT_BUDGET - BUDGET_RESERVE;

	if (address && address->answered)
		return true;
	if (!address || address->n_sent >= limit ||
	    (hour && hour->n_strangers >= NAT_STRANGERS_ALLOWANCE)) {
		a->n_over_budget++;
		return false;
	}
	address->n_sent++;
	if (hour)
		hour->n_strangers++;
	return true;
}

static bool is_wanted_address(const struct nat_agent *a, const struct ip_address *ip)
{
	for (size_t i = 0; i < a->n_pairs; i++)
		if (ip_equal(&a->pairs[i]->remote.ip, ip))
			return true;
	return false;
}

void nat_budget_renew(struct nat_agent *a)
{
	for (size_t i = a->n_addresses; i-- > 0;) {
		a->addresses[i].n_sent = 0;
		if (!is_wanted_address(a, &a->addresses[i].ip))
			a->addresses[i] = a->addresses[--a->n_addresses];
	}
}

/* ---- sending
 * -----------------------------------------------------------------------------------------------
 */

bool nat_message_write(struct nat_agent *a, uint8_t socket, const struct endpoint *to,
		       const struct nat_wire *m, struct nat_send *ret_send)
{
	*ret_send = (struct nat_send){ .socket = socket, .to = *to, .data_bytes = NAT_PROBE_BYTES };
	if (nat_wire_write(&a->keys, m, ret_send->data) < 0)
		return false;
	a->n_sent++;
	return true;
}

static bool send_probe(struct nat_agent *a, struct nat_pair *p, struct nat_send *ret_send,
		       uint64_t now_us)
{
	const struct nat_wire m = { .type = NAT_WIRE_PROBE,
				    .transaction = ++a->next_transaction,
				    .mapped = p->remote };

	p->outstanding[p->next_outstanding] =
		(struct nat_outstanding){ .transaction = m.transaction, .sent_us = now_us };
	p->next_outstanding = (p->next_outstanding + 1) % NAT_OUTSTANDING_MAX;
	p->last_sent_us = now_us;
	return nat_message_write(a, p->socket, &p->remote, &m, ret_send);
}

static bool send_ack(struct nat_agent *a, struct nat_send *ret_send, uint64_t now_us)
{
	while (a->n_acks) {
		const struct nat_ack ack = a->acks[0];
		const struct nat_wire m = { .type = NAT_WIRE_ACK,
					    .transaction = ack.transaction,
					    .mapped = ack.to };

		memmove(a->acks, a->acks + 1, --a->n_acks * sizeof(a->acks[0]));
		if (budget_take(a, &ack.to.ip, true, now_us) &&
		    nat_message_write(a, ack.socket, &ack.to, &m, ret_send))
			return true;
	}
	return false;
}

static bool is_opener_due(const struct nat_pair *p, uint64_t now_us)
{
	return p->n_openers < OPENERS && p->due_us <= now_us;
}

static bool send_opener(struct nat_agent *a, struct nat_pair *p, struct nat_send *ret_send,
			uint64_t now_us)
{
	const bool deep = p->n_openers > 0;

	nat_pair_set_state(a, p, NAT_PAIR_OPENING, "opening our NAT, the peer's must do the same");
	p->n_openers++;
	p->hold_us = max_u64(p->hold_us, now_us + (deep ? DEEP_OPENER_LEAD : NAT_OPENER_LEAD_US));
	p->due_us = deep ? p->hold_us : p->hold_us - DEEP_OPENER_LEAD;
	if (!budget_take(a, &p->remote.ip, p->heard, now_us) || !send_probe(a, p, ret_send, now_us))
		return false;
	ret_send->ttl = deep ? NAT_OPENER_TTL_DEEP : NAT_OPENER_TTL;
	return true;
}

static bool send_due_opener(struct nat_agent *a, struct nat_send *ret_send, uint64_t now_us)
{
	for (size_t i = 0; i < a->n_pairs; i++)
		while (is_opener_due(a->pairs[i], now_us))
			if (send_opener(a, a->pairs[i], ret_send, now_us))
				return true;
	return false;
}

static struct nat_pair *best_due(struct nat_agent *a, uint64_t now_us)
{
	struct nat_pair *best = NULL;

	for (size_t i = 0; i < a->n_pairs; i++) {
		struct nat_pair *p = a->pairs[i];

		if (p->due_us > now_us || p->n_openers < OPENERS ||
		    p->n_probes >= ARRAY_SIZE(probe_pauses_us))
			continue;
		/* Those that were sent least come first, then the better ones: a long list cannot
		 * starve its own end. */
		if (!best || p->n_probes < best->n_probes ||
		    (p->n_probes == best->n_probes && p->priority > best->priority))
			best = p;
	}
	return best;
}

static bool send_due_probe(struct nat_agent *a, struct nat_send *ret_send, uint64_t now_us)
{
	struct nat_pair *p;

	if (now_us < a->pace_us)
		return false;
	while ((p = best_due(a, now_us)) != NULL) {
		if (!budget_take(a, &p->remote.ip, p->heard, now_us)) {
			give_up(a, p, "this address never answered, its budget is used up");
			continue;
		}
		nat_pair_set_state(a, p, NAT_PAIR_PROBING, "probes are out");
		p->due_us = now_us + probe_pauses_us[p->n_probes++];
		a->pace_us = now_us + NAT_PACE_US;
		if (send_probe(a, p, ret_send, now_us))
			return true;
	}
	return false;
}

bool nat_agent_output(struct nat_agent *agent, struct nat_send *ret_send, uint64_t now_us)
{
	return send_ack(agent, ret_send, now_us) || send_due_opener(agent, ret_send, now_us) ||
	       send_due_probe(agent, ret_send, now_us) || nat_guess_output(agent, ret_send, now_us);
}

uint64_t nat_pairs_deadline_us(const struct nat_agent *a)
{
	uint64_t due_us = a->n_acks ? 0 : NEVER_US;

	for (size_t i = 0; i < a->n_pairs; i++) {
		const struct nat_pair *p = a->pairs[i];
		const bool paced =
			p->n_openers >= OPENERS && p->n_probes < ARRAY_SIZE(probe_pauses_us);

		if (p->due_us != NEVER_US)
			due_us =
				min_u64(due_us, paced ? max_u64(p->due_us, a->pace_us) : p->due_us);
	}
	return due_us;
}

/* A pair that has had all its probes, and the pause after the last, has failed. */
void nat_pairs_tick(struct nat_agent *a, uint64_t now_us)
{
	for (size_t i = 0; i < a->n_pairs; i++) {
		struct nat_pair *p = a->pairs[i];

		if (p->due_us > now_us || p->n_probes < ARRAY_SIZE(probe_pauses_us))
			continue;
		give_up(a, p,
			p->heard ? "the peer's probes arrive, but our probes are not answered"
				 : "no answer");
	}
}

/* ---- receiving
 * ---------------------------------------------------------------------------------------------------
 */

/* RFC 4303's window, 1024 wide: false for what was seen or is too old. */
static bool window_take(struct nat_agent *a, uint64_t transaction)
{
	const uint64_t width = NAT_WINDOW_WORDS * 64;
	uint64_t *word = &a->seen[transaction / 64 % NAT_WINDOW_WORDS];
	const uint64_t bit = UINT64_C(1) << transaction % 64;

	if (transaction > a->seen_top) {
		/* Words between the old top's and the new one's start empty. */
		uint64_t steps = transaction / 64 - a->seen_top / 64;

		for (uint64_t i = 1; i <= min_u64(steps, NAT_WINDOW_WORDS); i++)
			a->seen[(transaction / 64 - (min_u64(steps, NAT_WINDOW_WORDS) - i)) %
				NAT_WINDOW_WORDS] = 0;
		a->seen_top = transaction;
	} else if (a->seen_top - transaction >= width - 64 || (*word & bit)) {
		return false;
	}
	*word |= bit;
	return true;
}

/* An address that only the packet tells. The peer can make it up, so policy and budget hold. */
static struct nat_pair *learn(struct nat_agent *a, const struct nat_socket *socket,
			      const struct endpoint *from)
{
	const struct nat_candidate remote = { .kind = NAT_PEER_REFLEXIVE, .endpoint = *from };
	struct nat_pair *p = NULL;

	if (nat_endpoint_check(from, a->config.allow_loopback, NULL) != 0 ||
	    (a->config.refuse && a->config.refuse(a->config.user, &from->ip))) {
		a->n_refused++;
		return NULL;
	}
	for (size_t i = 0; a->n_learnt == NAT_PEER_REFLEXIVE_MAX && i < a->n_pairs; i++)
		if (a->pairs[i]->kind == NAT_PEER_REFLEXIVE &&
		    a->pairs[i]->state == NAT_PAIR_FAILED && !a->pairs[i]->announced) {
			nat_pair_remove(a, a->pairs[i], "room for another");
			break;
		}
	if (a->n_learnt < NAT_PEER_REFLEXIVE_MAX)
		p = pair_make(a, socket, &remote, NAT_REMOTE_MAX * NAT_SOCKETS_MAX + a->n_learnt);
	if (!p)
		return NULL;
	a->n_learnt++;
	return p;
}

/* The peer's probe came through: ours has a chance now (RFC 8445, section 7.3.1.4). */
static void trigger(struct nat_agent *a, struct nat_pair *p, uint64_t now_us)
{
	const bool idle = p->due_us == NEVER_US;

	p->heard = true;
	if (p->state == NAT_PAIR_VALID)
		return;
	p->n_openers = OPENERS;
	if (idle)
		p->n_probes = 0;
	if (p->n_probes >= ARRAY_SIZE(probe_pauses_us))
		return;
	p->hold_us = now_us;
	p->due_us = min_u64(p->due_us, max_u64(now_us, p->last_sent_us + TRIGGERED_PAUSE_US));
	if (p->state != NAT_PAIR_PROBING)
		nat_pair_set_state(a, p, NAT_PAIR_PROBING, "the peer's probe arrived");
	nat_agent_pair_started(a);
}

static int take_probe(struct nat_agent *a, const struct nat_socket *socket,
		      const struct endpoint *from, const struct nat_wire *m, uint64_t now_us)
{
	struct nat_pair *p;

	if (!window_take(a, m->transaction)) {
		a->n_replayed++;
		return NAT_IGNORED;
	}
	p = nat_pair_find(a, socket->id, from);
	if (!p)
		p = learn(a, socket, from);
	if (!p)
		return NAT_IGNORED;
	if (a->n_acks < NAT_ACKS_MAX)
		a->acks[a->n_acks++] = (struct nat_ack){ .socket = socket->id,
							 .to = *from,
							 .transaction = m->transaction };
	trigger(a, p, now_us);
	return 0;
}

static const struct nat_outstanding *outstanding_find(const struct nat_pair *p,
						      uint64_t transaction)
{
	for (size_t i = 0; i < NAT_OUTSTANDING_MAX; i++)
		if (p->outstanding[i].transaction == transaction)
			return &p->outstanding[i];
	return NULL;
}

static int take_ack(struct nat_agent *a, const struct nat_socket *socket,
		    const struct endpoint *from, const struct nat_wire *m, uint64_t now_us)
{
	struct nat_pair *p = nat_pair_find(a, socket->id, from);
	const struct nat_outstanding *o = p ? outstanding_find(p, m->transaction) : NULL;
	struct nat_address *address;

	/* The answer must come from where the probe went (RFC 8445, section 7.2.5.2.1). */
	if (!o)
		return NAT_IGNORED;
	address = address_of(a, &from->ip);
	if (address)
		address->answered = true;
	p->rtt_us = now_us - o->sent_us;
	p->mapped = m->mapped;
	memset(p->outstanding, 0, sizeof(p->outstanding));
	nat_pair_set_state(a, p, NAT_PAIR_VALID, "works in both directions");
	if (!p->announced)
		announce(a, p);
	nat_agent_pair_valid(a);
	return 0;
}

int nat_agent_input(struct nat_agent *agent, uint8_t socket, const struct endpoint *from,
		    const uint8_t *data, size_t data_bytes, uint64_t now_us)
{
	const struct nat_socket *s = nat_socket_find(agent, socket);
	struct nat_wire m;

	if (nat_wire_read(&agent->keys, data, data_bytes, &m) < 0) {
		agent->n_bad++;
		return -EBADMSG;
	}
	if (!s)
		return NAT_IGNORED;
	return m.type == NAT_WIRE_PROBE ? take_probe(agent, s, from, &m, now_us)
					: take_ack(agent, s, from, &m, now_us);
}
