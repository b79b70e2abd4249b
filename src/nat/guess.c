/*
 * guess - find the port that a NAT gives out afresh for each destination.
 *
 * One side (hard) is behind such a NAT, the other one (easy) behind a NAT that
 * has one port for all. The hard side opens many sockets and sends one datagram
 * from each to the easy side's outer endpoint: so many ports of its NAT now lead
 * inside, for packets from that endpoint. It tells so in its list. The easy side
 * then sends probes from that endpoint to ports of the hard side's address, each
 * once, until one comes through; what follows is an ordinary check.
 *
 *	hard: NONE -> WANTED -> OPENING -> OPEN -----------------> OVER
 *	easy: NONE -------- the list says so --> PROBING -> WAITING -> OVER
 *
 * Where both NATs are hard and both give ports out in sequence, the two meet at
 * one port of each that both have predicted: each opens some sockets around that
 * time, and sends from all of them to the one port of the other. As many ports as
 * there are sockets come out in sequence, and the port that the other side sends to
 * is among them, whichever socket has it.
 *
 *	both: NONE -> TOLD -- the other's prediction is here --> WANTED -> OPENING -> OPEN -> OVER
 *
 * With N ports open of R and M probes without repetition, the probability to
 * hit is 1 - (1 - M/R)^N; doc/nat.md, section 8, has figures. Where the NAT
 * gives its ports out in sequence, the likely ones are probed first.
 *
 * The openers die before the peer's NAT: an early datagram spoils a port there
 * (check.c), and a Linux NAT then prefers the port that it took instead for every
 * flow that follows, so that no later guess comes from where it must. How far away
 * our own NAT is nobody knows, so the first round's openers die at several
 * distances, and half of those of a later round go all the way.
 */
#include "nat/internal.h"

#define WANT_WAIT_US   (1 * US_PER_S) /* for the caller to open the sockets */
#define AFTER_US       (1 * US_PER_S) /* after the last probe, for what is on its way */
#define PREDICTED      128            /* probes along the sequence */
#define SEQUENCE_STEP  16             /* ports further apart are not in sequence */
#define TOLD_WAIT_US   (3 * US_PER_S) /* for the other side's prediction */
#define MEET_PASSES    3              /* an opener, a probe, and once more */
#define MEET_AGAIN_US  (200 * US_PER_MS)
#define BLOCK_PORTS    2048 /* closer together, they are of a block (RFC 7422) */
#define PROBES_MIN     64   /* fewer are not worth beginning */
#define PORT_MIN       1024
#define PORT_MAX       65535
#define LINUX_PORT_MIN 32768
#define LINUX_PORT_MAX 60999
#define IANA_PORT_MIN  49152

/* ---- the allowance ------------------------------------------------------------------- */

struct nat_allowance *nat_allowance_of(const struct nat_agent *a, uint64_t now_us)
{
	struct nat_allowance *allowance = a->config.allowance;

	if (allowance && now_us - allowance->since_us >= NAT_ALLOWANCE_US)
		*allowance = (struct nat_allowance){ .since_us = now_us };
	return allowance;
}

static unsigned allowance_left(const struct nat_agent *a, uint64_t now_us)
{
	const struct nat_allowance *allowance = nat_allowance_of(a, now_us);

	if (!allowance)
		return 0;
	return allowance->n_used < NAT_GUESS_ALLOWANCE ? NAT_GUESS_ALLOWANCE - allowance->n_used
						       : 0;
}

static bool allowance_take(struct nat_agent *a, uint64_t now_us)
{
	if (!allowance_left(a, now_us))
		return false;
	a->config.allowance->n_used++;
	return true;
}

/* ---- what our NAT's ports look like ------------------------------------------------------ */

void nat_samples_add(struct nat_agent *a, uint8_t socket, uint16_t port)
{
	for (size_t i = 0; i < a->n_samples; i++)
		if (a->samples[i].socket == socket && a->samples[i].port == port)
			return;
	if (a->n_samples == NAT_SAMPLES_MAX)
		memmove(a->samples, a->samples + 1, --a->n_samples * sizeof(a->samples[0]));
	a->samples[a->n_samples++] = (struct nat_sample){ .socket = socket, .port = port };
}

void nat_samples_close(struct nat_agent *a, uint8_t socket)
{
	for (size_t i = 0; i < a->n_samples; i++)
		if (a->samples[i].socket == socket)
			a->samples[i].socket = NAT_SAMPLE_GONE;
}

static uint16_t next_above(const struct nat_agent *a, uint16_t socket, uint16_t port)
{
	uint16_t next = 0;

	for (size_t i = 0; i < a->n_samples; i++)
		if (a->samples[i].socket == socket && a->samples[i].port > port &&
		    (!next || a->samples[i].port < next))
			next = a->samples[i].port;
	return next;
}

/* The step of a sequence that the ports of the newest socket are in, and the last of them. 0: they
 * are in none, or there are too few. */
static uint16_t sequence_of(const struct nat_agent *a, uint16_t *ret_last)
{
	uint16_t socket = NAT_SAMPLE_GONE, at, next, step = 0;

	for (size_t i = 0; i < a->n_samples; i++)
		if (a->samples[i].socket != NAT_SAMPLE_GONE)
			socket = a->samples[i].socket;
	if (socket == NAT_SAMPLE_GONE)
		return 0;
	at = next_above(a, socket, 0);
	while ((next = next_above(a, socket, at)) != 0) {
		const uint16_t gap = (uint16_t)(next - at);

		if (gap > SEQUENCE_STEP)
			return 0;
		step = step && step < gap ? step : gap;
		at = next;
	}
	*ret_last = at;
	return step;
}

enum nat_allocation nat_local_allocation(const struct nat_agent *a)
{
	uint16_t last;

	if (nat_local_mapping(a) != NAT_MAPPING_DEPENDENT)
		return NAT_ALLOCATION_UNKNOWN;
	return sequence_of(a, &last) ? NAT_ALLOCATION_SEQUENTIAL : NAT_ALLOCATION_RANDOM;
}

/*
 * Ports that the ordinary checks took since STUN looked: the first ones of the sequence, and those
 * towards the peer are spoilt where an early packet can do that. More would be skipped for nothing,
 * but there are many ports of the volley, and one spoilt port ends the guessing.
 */
static unsigned flows_of_checks(const struct nat_agent *a)
{
	unsigned n = 0;

	for (size_t i = 0; i < a->n_pairs; i++)
		n += a->pairs[i]->remote.ip.family == FAMILY_IPV4 &&
		     a->pairs[i]->state != NAT_PAIR_WAITING;
	return n;
}

/* Where the ports are looked for. A range that lies inside of the true one is as good as it. */
static void range_of(const struct nat_agent *a, uint16_t *ret_from, uint16_t *ret_to)
{
	uint16_t low = PORT_MAX, high = 0;

	for (size_t i = 0; i < a->n_samples; i++) {
		low = a->samples[i].port < low ? a->samples[i].port : low;
		high = a->samples[i].port > high ? a->samples[i].port : high;
	}
	*ret_from = PORT_MIN;
	*ret_to = PORT_MAX;
	if (a->n_samples >= 2 && high - low < BLOCK_PORTS) {
		*ret_from = high >= PORT_MIN + BLOCK_PORTS ? (uint16_t)(high - BLOCK_PORTS + 1)
							   : PORT_MIN;
		*ret_to = low <= PORT_MAX - BLOCK_PORTS ? (uint16_t)(low + BLOCK_PORTS - 1)
							: PORT_MAX;
	} else if (low >= LINUX_PORT_MIN && high <= LINUX_PORT_MAX) {
		*ret_from = LINUX_PORT_MIN;
		*ret_to = LINUX_PORT_MAX;
	} else if (low >= IANA_PORT_MIN) {
		*ret_from = IANA_PORT_MIN;
	}
}

/* ---- life ---------------------------------------------------------------------------------- */

static void end(struct nat_agent *a, const char *because)
{
	const struct nat_event event = { .kind = NAT_EVENT_VOLLEY_DONE };
	struct nat_guess *g = &a->guess;

	if (g->phase == NAT_GUESS_WANTED || g->phase == NAT_GUESS_OPENING ||
	    g->phase == NAT_GUESS_OPEN)
		nat_event_push(a, &event);
	if (g->phase != NAT_GUESS_NONE)
		a->guess_reason = because;
	g->phase = NAT_GUESS_OVER;
	g->due_us = NEVER_US;
}

bool nat_guess_active(const struct nat_agent *a)
{
	return a->guess.phase != NAT_GUESS_NONE && a->guess.phase != NAT_GUESS_OVER;
}

void nat_guess_stop(struct nat_agent *a, const char *because)
{
	if (nat_guess_active(a))
		end(a, because);
	a->guess.phase = NAT_GUESS_OVER;
	a->guess.due_us = a->guess_us = NEVER_US;
}

void nat_guess_arm(struct nat_agent *a, uint64_t at_us)
{
	nat_guess_stop(a, "a new round");
	a->guess = (struct nat_guess){ .due_us = NEVER_US };
	a->guess_us = at_us;
}

uint64_t nat_guess_deadline_us(const struct nat_agent *a)
{
	return min_u64(a->guess.due_us, a->guess_us);
}

/* What the peer's NAT looks like from outside. NULL: it did not say. */
static const struct endpoint *peer_outside(const struct nat_agent *a)
{
	for (size_t i = 0; i < a->n_remote; i++)
		if (a->remote[i].kind == NAT_REFLEXIVE &&
		    a->remote[i].endpoint.ip.family == FAMILY_IPV4)
			return &a->remote[i].endpoint;
	return NULL;
}

/* ---- the hard side --------------------------------------------------------------------------- */

static void want_volley(struct nat_agent *a, const struct endpoint *target, uint64_t now_us)
{
	uint16_t last;
	struct nat_event event = { .kind = NAT_EVENT_WANT_VOLLEY, .remote = *target };

	event.n_sockets = sequence_of(a, &last) ? NAT_GUESS_SOCKETS_FEW : NAT_GUESS_SOCKETS;
	if (allowance_left(a, now_us) < event.n_sockets) {
		a->guess_reason = "enough ports were tried with this peer for this hour";
		return;
	}
	a->guess.phase = NAT_GUESS_WANTED;
	a->guess.target = *target;
	a->guess.due_us = now_us + WANT_WAIT_US;
	nat_event_push(a, &event);
}

/* The port that the next flow gets: those that the checks took were after what STUN saw. */
static uint16_t predicted_port(const struct nat_agent *a, uint16_t *ret_step)
{
	uint16_t last = 0;

	*ret_step = sequence_of(a, &last);
	return *ret_step ? (uint16_t)(last + *ret_step * (1 + flows_of_checks(a))) : 0;
}

/* ---- both sides are hard ----------------------------------------------------------------------
 */

/* What is told stays: the other side aims at it. */
static void tell_prediction(struct nat_agent *a, const struct endpoint *target, uint64_t now_us)
{
	const struct nat_event signal = { .kind = NAT_EVENT_SIGNAL };
	struct nat_guess *g = &a->guess;

	if (!sequence_of(a, &(uint16_t){ 0 }))
		return;
	if (allowance_left(a, now_us) < MEET_PASSES * NAT_GUESS_SOCKETS_FEW) {
		a->guess_reason = "enough ports were tried with this peer for this hour";
		return;
	}
	g->phase = NAT_GUESS_TOLD;
	g->meets = true;
	g->target = *target;
	g->next = predicted_port(a, &g->step);
	g->due_us = now_us + TOLD_WAIT_US;
	nat_event_push(a, &signal);
}

static void meet(struct nat_agent *a, const struct nat_guess_offer *theirs, uint64_t now_us)
{
	const struct endpoint *outside = peer_outside(a);
	struct nat_event event = { .kind = NAT_EVENT_WANT_VOLLEY,
				   .n_sockets = NAT_GUESS_SOCKETS_FEW };
	struct nat_guess *g = &a->guess;

	if (g->phase == NAT_GUESS_NONE && outside)
		tell_prediction(a, outside, now_us);
	if (g->phase != NAT_GUESS_TOLD)
		return;
	g->target.port = (uint16_t)(theirs->next + theirs->step * (NAT_GUESS_SOCKETS_FEW / 2));
	if (nat_endpoint_check(&g->target, a->config.allow_loopback, NULL) != 0) {
		end(a, "the peer's prediction is no port that may be sent to");
		return;
	}
	g->phase = NAT_GUESS_WANTED;
	g->due_us = now_us + WANT_WAIT_US;
	event.remote = g->target;
	nat_event_push(a, &event);
	nat_agent_pair_started(a);
}

/* All sockets have sent. The other side does the same at about this time: what follows goes all
 * the way, when its openers are out. */
static void meet_again(struct nat_agent *a, uint64_t now_us)
{
	struct nat_guess *g = &a->guess;

	if (++g->n_passes == MEET_PASSES) {
		g->phase = NAT_GUESS_OPEN;
		g->due_us = now_us + AFTER_US + a->signal_delay_us;
		return;
	}
	g->n_sent = 0;
	g->due_us = now_us +
		    (g->n_passes == 1 ? a->signal_delay_us + NAT_OPENER_LEAD_US : MEET_AGAIN_US);
}

/* ---- the hard side, again ----------------------------------------------------------------------
 */

static void consider(struct nat_agent *a, uint64_t now_us)
{
	const struct endpoint *target = peer_outside(a);

	a->guess_us = NEVER_US;
	if (a->phase != NAT_CHECKING || a->guess.phase != NAT_GUESS_NONE || !target ||
	    nat_pairs_announced(a) || nat_local_mapping(a) != NAT_MAPPING_DEPENDENT)
		return;
	if (a->remote_mapping == NAT_MAPPING_INDEPENDENT)
		want_volley(a, target, now_us);
	else if (a->remote_mapping == NAT_MAPPING_DEPENDENT)
		tell_prediction(a, target, now_us);
}

void nat_agent_volley_opened(struct nat_agent *agent, unsigned n_sockets, uint64_t now_us)
{
	struct nat_guess *g = &agent->guess;

	if (g->phase != NAT_GUESS_WANTED)
		return;
	if (!n_sockets) {
		end(agent, "there were no sockets to guess with");
		return;
	}
	g->n_sockets = n_sockets < NAT_GUESS_SOCKETS ? n_sockets : NAT_GUESS_SOCKETS;
	g->phase = NAT_GUESS_OPENING;
	g->due_us = now_us;
}

/* TTL of the openers in turn; 0: the system's. */
static uint8_t opener_ttl(const struct nat_agent *a, unsigned index)
{
	static const uint8_t near[] = { 2, 4, 6, 4, 6, 2, 4, 6 };

	if (a->guess.n_passes)
		return 0;
	if (a->n_failed == 0)
		return near[index % ARRAY_SIZE(near)];
	return index % 2 ? 0 : NAT_OPENER_TTL_DEEP;
}

static bool send_volley(struct nat_agent *a, struct nat_send *ret_send, uint64_t now_us)
{
	struct nat_guess *g = &a->guess;
	const struct nat_event signal = { .kind = NAT_EVENT_SIGNAL };
	const struct nat_wire m = { .type = NAT_WIRE_PROBE,
				    .transaction = ++a->next_transaction,
				    .mapped = g->target };
	bool sent = false;

	if (allowance_take(a, now_us) && nat_message_write(a, 0, &g->target, &m, ret_send)) {
		ret_send->volley = true;
		ret_send->volley_index = (uint16_t)g->n_sent;
		ret_send->ttl = opener_ttl(a, g->n_sent);
		sent = true;
	}
	g->due_us = now_us + NAT_GUESS_OPEN_PACE_US;
	if (++g->n_sent < g->n_sockets)
		return sent;
	if (g->meets) {
		meet_again(a, now_us);
	} else {
		g->phase = NAT_GUESS_OPEN;
		g->due_us = now_us + NAT_GUESS_LIFE_US;
		nat_event_push(a, &signal);
	}
	return sent;
}

bool nat_guess_offer(const struct nat_agent *a, struct nat_guess_offer *ret_offer)
{
	const struct nat_guess *g = &a->guess;

	if (g->phase != NAT_GUESS_OPEN && !(g->meets && nat_guess_active(a)))
		return false;
	*ret_offer = (struct nat_guess_offer){
		.towards = g->target,
		.n_ports = g->meets ? NAT_GUESS_SOCKETS_FEW : (uint16_t)g->n_sockets,
		.next = g->next,
		.step = g->step,
	};
	range_of(a, &ret_offer->from, &ret_offer->to);
	if (!g->meets)
		ret_offer->next = predicted_port(a, &ret_offer->step);
	return true;
}

bool nat_agent_volley_input(struct nat_agent *agent, const uint8_t *data, size_t data_bytes)
{
	struct nat_wire m;

	if (agent->guess.phase != NAT_GUESS_OPENING && agent->guess.phase != NAT_GUESS_OPEN)
		return false;
	if (nat_wire_read(&agent->keys, data, data_bytes, &m) < 0) {
		agent->n_bad++;
		return false;
	}
	return agent->guess.n_hits++ < NAT_GUESS_HITS_MAX;
}

/* ---- the easy side ------------------------------------------------------------------------------
 */

static unsigned greatest_common_divisor(unsigned a, unsigned b)
{
	return b ? greatest_common_divisor(b, a % b) : a;
}

/* The ports of the range from a random one on, each once, and evenly spread however few are taken:
 * a stride near the golden ratio does that, so that no block is left out. */
static void range_set(struct nat_range *range, uint16_t from, uint16_t to, uint64_t random)
{
	const unsigned size = (unsigned)to - from + 1;

	*range = (struct nat_range){ .from = from, .n_ports = size };
	range->start = (unsigned)(random % size);
	range->stride = size * 618 / 1000 + 1;
	while (greatest_common_divisor(range->stride, size) != 1)
		range->stride++;
}

static uint16_t range_port(const struct nat_range *range, unsigned index)
{
	const uint64_t step = (uint64_t)index * range->stride;

	return (uint16_t)(range->from + (range->start + step) % range->n_ports);
}

static uint16_t guessed_port(const struct nat_guess *g)
{
	unsigned index = g->n_sent;

	if (g->step) {
		if (index < PREDICTED)
			return (uint16_t)(g->next + index * g->step);
		index -= PREDICTED;
	}
	if (index < g->likely.n_ports)
		return range_port(&g->likely, index);
	return range_port(&g->all, index - g->likely.n_ports);
}

/* The socket of ours that the peer's ports are open to. */
static bool own_socket(const struct nat_agent *a, const struct endpoint *outside,
		       uint8_t *ret_socket)
{
	for (size_t i = 0; i < a->n_local; i++)
		if (a->local[i].kind == NAT_REFLEXIVE &&
		    endpoint_equal(&a->local[i].endpoint, outside)) {
			*ret_socket = a->local[i].socket;
			return true;
		}
	return false;
}

void nat_guess_input(struct nat_agent *a, const struct nat_list *list, uint64_t now_us)
{
	const struct nat_guess_offer *offer = &list->guess;
	const struct endpoint *target = peer_outside(a);
	struct nat_guess *g = &a->guess;
	uint8_t socket;

	/* It must be the peer's own word that its NAT is of that kind. */
	if (!list->has_guess || !target || nat_pairs_announced(a) ||
	    (a->phase != NAT_CHECKING && a->phase != NAT_RESTING) ||
	    list->mapping != NAT_MAPPING_DEPENDENT)
		return;
	if (nat_local_mapping(a) == NAT_MAPPING_DEPENDENT && offer->step)
		meet(a, offer, now_us);
	if (g->phase != NAT_GUESS_NONE || nat_local_mapping(a) != NAT_MAPPING_INDEPENDENT ||
	    !own_socket(a, &offer->towards, &socket))
		return;
	if (allowance_left(a, now_us) < PROBES_MIN) {
		a->guess_reason = "enough ports were tried with this peer for this hour";
		return;
	}
	*g = (struct nat_guess){ .phase = NAT_GUESS_PROBING,
				 .target = *target,
				 .socket = socket,
				 .next = offer->next,
				 .step = offer->step,
				 .due_us = now_us };
	range_set(&g->likely, offer->from, offer->to, nat_random(a));
	range_set(&g->all, PORT_MIN, PORT_MAX, nat_random(a));
	nat_agent_pair_started(a);
}

/* Something of the peer has come through from there: let the ordinary checks work. */
static bool is_hit(const struct nat_agent *a)
{
	for (size_t i = 0; i < a->n_pairs; i++)
		if (a->pairs[i]->kind == NAT_PEER_REFLEXIVE && a->pairs[i]->due_us != NEVER_US &&
		    ip_equal(&a->pairs[i]->remote.ip, &a->guess.target.ip))
			return true;
	return false;
}

static bool send_guess(struct nat_agent *a, struct nat_send *ret_send, uint64_t now_us)
{
	struct nat_guess *g = &a->guess;
	struct nat_wire m = { .type = NAT_WIRE_PROBE };

	g->due_us = now_us + NAT_GUESS_PROBE_PACE_US;
	if (is_hit(a))
		return false;
	if (g->n_sent == NAT_GUESS_PROBES || !allowance_take(a, now_us)) {
		g->phase = NAT_GUESS_WAITING;
		g->due_us = now_us + AFTER_US;
		return false;
	}
	g->target.port = guessed_port(g);
	g->n_sent++;
	if (nat_endpoint_check(&g->target, a->config.allow_loopback, NULL) != 0)
		return false;
	m.transaction = ++a->next_transaction;
	m.mapped = g->target;
	a->n_guessed++;
	return nat_message_write(a, g->socket, &g->target, &m, ret_send);
}

/* ---- both -------------------------------------------------------------------------------------
 */

bool nat_guess_output(struct nat_agent *a, struct nat_send *ret_send, uint64_t now_us)
{
	while (a->guess.due_us <= now_us) {
		if (a->guess.phase == NAT_GUESS_OPENING) {
			if (send_volley(a, ret_send, now_us))
				return true;
		} else if (a->guess.phase == NAT_GUESS_PROBING) {
			if (send_guess(a, ret_send, now_us))
				return true;
		} else {
			break;
		}
	}
	return false;
}

void nat_guess_tick(struct nat_agent *a, uint64_t now_us)
{
	struct nat_guess *g = &a->guess;

	if (a->guess_us <= now_us)
		consider(a, now_us);
	if (g->due_us > now_us)
		return;
	if (g->phase == NAT_GUESS_TOLD)
		end(a,
		    "both NATs give another port to each destination, and the peer predicts none");
	else if (g->phase == NAT_GUESS_WANTED)
		end(a, "there were no sockets to guess with");
	else if (g->phase == NAT_GUESS_OPEN)
		end(a, g->meets ? "the ports that both sides predicted did not meet"
				: "none of the peer's guesses met a port of our NAT");
	else if (g->phase == NAT_GUESS_WAITING)
		end(a, "no guess met a port of the peer's NAT");
}
