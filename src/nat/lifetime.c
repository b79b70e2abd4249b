/*
 * lifetime - how long a NAT remembers a flow that is silent, and so how far apart
 * keepalives may be. The picture of the states is in nat.h.
 */
#include "nat/internal.h"

#define RETRY_US     (500 * US_PER_MS) /* between questions, doubling */
#define TRIES        4                 /* of one question */
#define CHECK_US     (1 * US_PER_S)    /* between the questions that check */
#define CHECKS       3
#define LATE_US      (2 * US_PER_S)  /* we were asleep: silence says nothing then */
#define PAUSE_US     (2 * US_PER_S)  /* between two tries */
#define LATER_US     (60 * US_PER_S) /* after a try that said nothing, doubling */
#define VAIN_MAX     6
#define MARGIN_SHARE 16 /* of the time that a flow lived: timers and ways vary */
#define GRAIN_SHARE  8  /* nearer than this it need not be known */
#define PRIMES       2

const char *nat_lifetime_state_name(enum nat_lifetime_state state)
{
	static const char *const names[] = {
		[NAT_LIFETIME_IDLE] = "between two tries",
		[NAT_LIFETIME_PRIMING] = "opening a flow",
		[NAT_LIFETIME_AGING] = "waiting",
		[NAT_LIFETIME_CHECKING] = "checking",
		[NAT_LIFETIME_CONTROL] = "checking",
		[NAT_LIFETIME_FOUND] = "found",
		[NAT_LIFETIME_OFF] = "off",
	};

	static_assert(ARRAY_SIZE(names) == NAT_LIFETIME_STATE_COUNT, "a name for each");
	return state < NAT_LIFETIME_STATE_COUNT ? names[state] : "?";
}

/* A flow that lives so long may have the longest interval. */
static uint64_t top_us(const struct nat_lifetime *l)
{
	return l->max_us + l->max_us / (MARGIN_SHARE - 1) + 1;
}

static bool is_found(const struct nat_lifetime *l)
{
	const uint64_t low_us = max_u64(l->lives_us, l->min_us);

	if (l->doubted_us)
		return false;
	if (l->lives_us >= top_us(l))
		return true;
	return l->dies_us != NEVER_US &&
	       l->dies_us <= low_us + max_u64(low_us / GRAIN_SHARE, US_PER_S);
}

/* The middle of what is not known; once that lived, most NATs let the longest live too. */
static uint64_t next_try_us(const struct nat_lifetime *l)
{
	const uint64_t low_us = max_u64(l->lives_us, l->min_us);

	if (l->doubted_us)
		return l->doubted_us;
	if (l->dies_us == NEVER_US && l->lives_us > 0)
		return top_us(l);
	return low_us + (min_u64(l->dies_us, top_us(l)) - low_us) / 2;
}

static void rest(struct nat_lifetime *l, uint64_t due_us)
{
	l->state = is_found(l) ? NAT_LIFETIME_FOUND : NAT_LIFETIME_IDLE;
	l->due_us = l->state == NAT_LIFETIME_FOUND ? NEVER_US : due_us;
}

void nat_lifetime_start(struct nat_lifetime *l, uint64_t lives_us, uint64_t dies_us,
			uint64_t min_us, uint64_t max_us, uint64_t now_us)
{
	*l = (struct nat_lifetime){
		.lives_us = lives_us,
		.dies_us = dies_us,
		.min_us = min_us,
		.max_us = max_u64(min_us, max_us),
		.number = l->number, /* answers to an earlier search are not taken for ours */
	};
	rest(l, now_us + PAUSE_US);
}

static void off(struct nat_lifetime *l, const char *reason)
{
	l->state = NAT_LIFETIME_OFF;
	l->reason = reason;
	l->due_us = NEVER_US;
}

static void begin_try(struct nat_lifetime *l, uint64_t now_us)
{
	l->state = NAT_LIFETIME_PRIMING;
	l->try_us = next_try_us(l);
	l->fresh = true;
	l->n_primed = l->n_sent = 0;
	l->due_us = now_us;
}

/* The try says nothing: later, again. */
static void in_vain(struct nat_lifetime *l, const char *reason, uint64_t now_us)
{
	if (++l->n_vain >= VAIN_MAX) {
		off(l, reason);
		return;
	}
	rest(l, now_us + ((uint64_t)LATER_US << (l->n_vain - 1)));
}

static void has_result(struct nat_lifetime *l, bool lives, uint64_t now_us)
{
	l->n_tries++;
	l->n_vain = 0;
	l->doubted_us = 0;
	if (lives)
		l->lives_us = max_u64(l->lives_us, l->try_us);
	else
		l->dies_us = min_u64(l->dies_us, l->try_us);
	if (l->lives_us >=
	    l->dies_us) /* another NAT than it was: the shorter time is the safe one */
		l->lives_us = 0;
	rest(l, now_us + PAUSE_US);
}

static unsigned asks_of(enum nat_lifetime_state state)
{
	return state == NAT_LIFETIME_CHECKING ? CHECKS : TRIES;
}

bool nat_lifetime_output(struct nat_lifetime *l, struct nat_lifetime_ask *ret_ask, uint64_t now_us)
{
	const bool checking = l->state == NAT_LIFETIME_CHECKING;

	if (now_us < l->due_us || l->n_sent == asks_of(l->state) ||
	    (l->state != NAT_LIFETIME_PRIMING && l->state != NAT_LIFETIME_CONTROL && !checking))
		return false;
	*ret_ask = (struct nat_lifetime_ask){ .fresh = l->fresh,
					      .aged = l->state == NAT_LIFETIME_PRIMING,
					      .number = ++l->number,
					      .answer_port = checking ? l->port : 0 };
	l->fresh = false;
	l->due_us = now_us + (checking ? CHECK_US : (uint64_t)RETRY_US << l->n_sent);
	l->n_sent++;
	return true;
}

static void primed(struct nat_lifetime *l, uint16_t port, uint64_t now_us)
{
	l->n_sent = 0;
	if (l->n_primed > 0 && port != l->port) {
		in_vain(l, "the outside port changes", now_us);
		return;
	}
	l->port = port;
	l->due_us = now_us + NAT_LIFETIME_PRIME_US;
	if (++l->n_primed < PRIMES)
		return;
	l->state = NAT_LIFETIME_AGING;
	l->aged_us = l->due_us = now_us + l->try_us;
}

void nat_lifetime_input(struct nat_lifetime *l, uint32_t number, bool aged, uint16_t port,
			uint64_t now_us)
{
	/* The last questions of this step, whichever of them it answers. */
	if (number > l->number || l->number - number >= l->n_sent)
		return;
	switch (l->state) {
	case NAT_LIFETIME_PRIMING:
		if (aged && port)
			primed(l, port, now_us);
		break;
	case NAT_LIFETIME_CHECKING:
		if (aged && port)
			has_result(l, true, now_us);
		else
			off(l, "the server does not answer to another port");
		break;
	case NAT_LIFETIME_CONTROL:
		has_result(l, false, now_us);
		break;
	default:
		break;
	}
}

uint64_t nat_lifetime_deadline_us(const struct nat_lifetime *l)
{
	return l->due_us;
}

static void control(struct nat_lifetime *l, uint64_t now_us)
{
	l->state = NAT_LIFETIME_CONTROL;
	l->n_sent = 0;
	l->due_us = now_us;
}

static void aged(struct nat_lifetime *l, uint64_t now_us)
{
	if (now_us > l->aged_us + LATE_US) {
		in_vain(l, "this machine sleeps too often", now_us);
		return;
	}
	l->state = NAT_LIFETIME_CHECKING;
	l->n_sent = 0;
	l->due_us = now_us;
}

void nat_lifetime_tick(struct nat_lifetime *l, uint64_t now_us)
{
	if (now_us < l->due_us)
		return;
	switch (l->state) {
	case NAT_LIFETIME_IDLE:
		begin_try(l, now_us);
		break;
	case NAT_LIFETIME_AGING:
		aged(l, now_us);
		break;
	case NAT_LIFETIME_CHECKING:
		if (l->n_sent == CHECKS)
			control(l, now_us);
		break;
	case NAT_LIFETIME_PRIMING:
	case NAT_LIFETIME_CONTROL:
		if (l->n_sent == TRIES)
			in_vain(l, "the server does not answer", now_us);
		break;
	default:
		break;
	}
}

void nat_lifetime_doubt(struct nat_lifetime *l, uint64_t now_us)
{
	if (l->lives_us == 0)
		return;
	l->doubted_us = l->lives_us;
	l->lives_us = 0;
	if (l->state == NAT_LIFETIME_FOUND || l->state == NAT_LIFETIME_IDLE)
		rest(l, now_us + PAUSE_US);
}

uint64_t nat_lifetime_interval_us(const struct nat_lifetime *l)
{
	const uint64_t safe_us = l->lives_us - l->lives_us / MARGIN_SHARE;

	return min_u64(max_u64(safe_us, l->min_us), l->max_us);
}
