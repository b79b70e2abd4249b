/*
 * The search for the time that a NAT remembers a silent flow, in virtual time: a
 * NAT of Linux's kind, a STUN server, and a tunnel that does nothing but send
 * keepalives as far apart as the search says. Its flow must never be forgotten.
 */
#include "unit.h"
#include "nat/nat.h"

#include <stdio.h>

#define MESSAGES_MAX 16
#define FLOWS        3 /* the tunnel's, the aged socket's, the asking socket's */
#define STREAM_US    (2 * US_PER_S)

enum { TUNNEL, AGED, ASKING };

struct flow {
	bool known, answered;
	uint16_t port;
	uint64_t first_us, used_us;
};

struct message {
	uint64_t arrive_us;
	uint32_t number;
	uint16_t port; /* of the NAT: where the answer goes to */
	uint16_t seen;
};

static struct {
	uint64_t now_us, rng, way_us, unanswered_us, stream_us;
	unsigned loss_percent;
	bool server_silent, server_old;
	struct flow flows[FLOWS];
	uint16_t next_port;
	struct message messages[MESSAGES_MAX];
	size_t n_messages;
	struct nat_lifetime search;
	uint64_t keepalive_us, longest_us;
	unsigned n_lost, n_asked, n_keepalives;
} w;

static bool chance(unsigned percent)
{
	w.rng = w.rng * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (w.rng >> 33) % 100 < percent;
}

/* ---- the NAT --------------------------------------------------------------------------- */

static bool is_known(const struct flow *f)
{
	const bool stream = f->answered && f->used_us - f->first_us >= STREAM_US;

	return f->known && w.now_us - f->used_us < (stream ? w.stream_us : w.unanswered_us);
}

static uint16_t out_of(int index)
{
	struct flow *f = &w.flows[index];

	if (!is_known(f))
		*f = (struct flow){ .known = true, .port = w.next_port++, .first_us = w.now_us };
	f->used_us = w.now_us;
	return f->port;
}

/* The flow that a packet to this port belongs to; -1: dropped. */
static int into(uint16_t port)
{
	for (int i = 0; i < FLOWS; i++)
		if (is_known(&w.flows[i]) && w.flows[i].port == port) {
			w.flows[i].answered = true;
			w.flows[i].used_us = w.now_us;
			return i;
		}
	return -1;
}

/* ---- the rest of the world ----------------------------------------------------------------- */

static void ask(const struct nat_lifetime_ask *a)
{
	const int index = a->aged ? AGED : ASKING;
	uint16_t seen;

	if (a->fresh)
		w.flows[AGED] = w.flows[ASKING] = (struct flow){ .known = false };
	seen = out_of(index);
	w.n_asked++;
	if (w.server_silent || chance(w.loss_percent))
		return;
	assert_true(w.n_messages < MESSAGES_MAX);
	w.messages[w.n_messages++] =
		(struct message){ .arrive_us = w.now_us + 2 * w.way_us,
				  .number = a->number,
				  .port = a->answer_port && !w.server_old ? a->answer_port : seen,
				  .seen = a->answer_port && w.server_old ? 0 : seen };
}

static void answers(void)
{
	for (size_t i = 0; i < w.n_messages;)
		if (w.messages[i].arrive_us <= w.now_us) {
			const struct message m = w.messages[i];
			int index;

			w.messages[i] = w.messages[--w.n_messages];
			index = chance(w.loss_percent) ? -1 : into(m.port);
			if (index == AGED || index == ASKING)
				nat_lifetime_input(&w.search, m.number, index == AGED, m.seen,
						   w.now_us);
		} else {
			i++;
		}
}

/* As ptcp has it: a flow that has just begun is not remembered as long as others. */
static uint64_t interval_us(void)
{
	const struct flow *f = &w.flows[TUNNEL];
	const uint64_t known_us = nat_lifetime_interval_us(&w.search);

	return f->used_us - f->first_us < NAT_LIFETIME_PRIME_US
		       ? min_u64(known_us, NAT_LIFETIME_MIN_US)
		       : known_us;
}

/* A keepalive and the answer to it, due by what is known now. */
static void tunnel(void)
{
	struct flow *f = &w.flows[TUNNEL];

	if (f->known && w.now_us < w.keepalive_us + interval_us())
		return;
	w.longest_us = max_u64(w.longest_us, f->known ? w.now_us - f->used_us : 0);
	w.n_lost += f->known && !is_known(f);
	out_of(TUNNEL);
	f->answered = true;
	w.keepalive_us = w.now_us;
	w.n_keepalives++;
}

static void run_until_us(uint64_t end_us)
{
	struct nat_lifetime_ask a;

	while (w.now_us < end_us) {
		uint64_t next_us;

		answers();
		nat_lifetime_tick(&w.search, w.now_us);
		while (nat_lifetime_output(&w.search, &a, w.now_us))
			ask(&a);
		tunnel();
		next_us = min_u64(end_us, nat_lifetime_deadline_us(&w.search));
		next_us = min_u64(next_us, w.keepalive_us + interval_us());
		for (size_t i = 0; i < w.n_messages; i++)
			next_us = min_u64(next_us, w.messages[i].arrive_us);
		w.now_us = max_u64(next_us, w.now_us + 1);
	}
}

static void new_world(uint64_t seed, unsigned timeout_s)
{
	memset(&w, 0, sizeof(w));
	w.now_us = US_PER_S;
	w.rng = seed;
	w.next_port = 40000;
	w.way_us = 5000 + 1000 * (seed % 100);
	w.stream_us = timeout_s * US_PER_S;
	w.unanswered_us = min_u64(30 * US_PER_S, w.stream_us);
	nat_lifetime_start(&w.search, 0, NEVER_US, NAT_LIFETIME_MIN_US, NAT_LIFETIME_MAX_US,
			   w.now_us);
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static void it_converges_and_no_flow_is_lost_meanwhile(void **state)
{
	static const unsigned timeouts_s[] = { 16, 20, 30, 45, 60, 90, 120, 180, 300 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(timeouts_s); i++)
		for (uint64_t seed = 1; seed <= 50; seed++) {
			const uint64_t timeout_us = timeouts_s[i] * US_PER_S;
			uint64_t found_us = 0, found_interval_us, best_us;

			new_world(seed, timeouts_s[i]);
			while (w.search.state != NAT_LIFETIME_FOUND) {
				run_until_us(w.now_us + US_PER_S);
				assert_true(w.now_us < 1200 * US_PER_S);
			}
			found_us = w.now_us;
			found_interval_us = nat_lifetime_interval_us(&w.search);
			run_until_us(w.now_us + 3600 * US_PER_S);
			assert_int_equal(w.n_lost, 0);
			assert_true(w.longest_us < timeout_us);
			/* Not far from what is possible. */
			best_us = min_u64(timeout_us, NAT_LIFETIME_MAX_US);
			assert_true(found_interval_us <= best_us);
			assert_true(found_interval_us >= NAT_LIFETIME_MIN_US);
			assert_true(found_interval_us >= best_us * 3 / 4 ||
				    found_interval_us == NAT_LIFETIME_MIN_US);
			assert_true(w.search.lives_us < timeout_us);
			assert_int_equal(nat_lifetime_interval_us(&w.search), found_interval_us);
			/* Found is found: nothing more is asked. */
			assert_true(w.n_asked <= 60);
			if (seed == 1)
				print_message(
					"a NAT that remembers %u s: every %.1f s, found after "
					"%.0f s and %u tries, %u datagrams\n",
					timeouts_s[i], (double)found_interval_us / 1e6,
					(double)found_us / 1e6, w.search.n_tries, w.n_asked);
		}
}

/* An answer that is lost makes the time look shorter, never longer. */
static void loss_never_makes_it_too_long(void **state)
{
	static const unsigned timeouts_s[] = { 30, 60, 120, 300 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(timeouts_s); i++)
		for (uint64_t seed = 1; seed <= 200; seed++) {
			new_world(seed, timeouts_s[i]);
			w.loss_percent = 20;
			run_until_us(w.now_us + 7200 * US_PER_S);
			assert_int_equal(w.n_lost, 0);
			assert_true(w.search.lives_us < timeouts_s[i] * US_PER_S);
		}
}

static void what_is_known_of_a_network_is_not_looked_for_again(void **state)
{
	(void)state;
	new_world(1, 60);
	nat_lifetime_start(&w.search, 52 * US_PER_S, 57 * US_PER_S, NAT_LIFETIME_MIN_US,
			   NAT_LIFETIME_MAX_US, w.now_us);
	assert_int_equal(w.search.state, NAT_LIFETIME_FOUND);
	run_until_us(w.now_us + 3600 * US_PER_S);
	assert_int_equal(w.n_asked, 0);
	assert_int_equal(w.n_lost, 0);
	assert_true(w.longest_us >= 45 * US_PER_S);
}

/* The network is the same, its NAT is not: the path died once, and does not again. */
static void a_path_that_died_starts_the_search_anew(void **state)
{
	(void)state;
	new_world(1, 40);
	nat_lifetime_start(&w.search, 120 * US_PER_S, 126 * US_PER_S, NAT_LIFETIME_MIN_US,
			   NAT_LIFETIME_MAX_US, w.now_us);
	run_until_us(w.now_us + 300 * US_PER_S);
	assert_true(w.n_lost > 0);
	nat_lifetime_doubt(&w.search, w.now_us);
	assert_int_equal(nat_lifetime_interval_us(&w.search), NAT_LIFETIME_MIN_US);
	run_until_us(w.now_us + 120 * US_PER_S); /* the keepalive that was late is over */
	w.n_lost = 0;
	run_until_us(w.now_us + 3600 * US_PER_S);
	assert_int_equal(w.n_lost, 0);
	assert_int_equal(w.search.state, NAT_LIFETIME_FOUND);
	assert_true(w.search.lives_us < 40 * US_PER_S && w.search.lives_us > 30 * US_PER_S);
}

/* It was the peer that went away: one try, and all is as before. */
static void a_doubt_without_reason_costs_one_try(void **state)
{
	unsigned n_asked;

	(void)state;
	new_world(1, 120);
	run_until_us(w.now_us + 600 * US_PER_S);
	assert_int_equal(w.search.state, NAT_LIFETIME_FOUND);
	const uint64_t found_us = nat_lifetime_interval_us(&w.search);
	n_asked = w.n_asked;
	nat_lifetime_doubt(&w.search, w.now_us);
	assert_int_equal(nat_lifetime_interval_us(&w.search), NAT_LIFETIME_MIN_US);
	run_until_us(w.now_us + 200 * US_PER_S);
	assert_int_equal(w.search.state, NAT_LIFETIME_FOUND);
	assert_int_equal(nat_lifetime_interval_us(&w.search), found_us);
	assert_in_range(w.n_asked - n_asked, 3, 5);
	assert_int_equal(w.n_lost, 0);
}

static void a_server_that_is_silent_or_does_not_know_it_ends_the_search(void **state)
{
	(void)state;
	new_world(1, 60);
	w.server_silent = true;
	run_until_us(w.now_us + 3600 * US_PER_S * 4);
	assert_int_equal(w.search.state, NAT_LIFETIME_OFF);
	assert_string_equal(w.search.reason, "the server does not answer");
	assert_true(w.n_asked < 40);
	assert_int_equal(nat_lifetime_interval_us(&w.search), NAT_LIFETIME_MIN_US);

	new_world(1, 60);
	w.server_old = true;
	run_until_us(w.now_us + 600 * US_PER_S);
	assert_int_equal(w.search.state, NAT_LIFETIME_OFF);
	assert_string_equal(w.search.reason, "the server does not answer to another port");
	assert_int_equal(w.n_lost, 0);
}

/* A machine that slept through the time of a check cannot tell what the silence means. */
static void sleep_is_not_taken_for_a_short_memory(void **state)
{
	(void)state;
	new_world(1, 300);
	run_until_us(w.now_us + 20 * US_PER_S);
	assert_int_equal(w.search.state, NAT_LIFETIME_AGING);
	w.now_us += 3600 * US_PER_S;
	run_until_us(w.now_us + US_PER_S);
	assert_int_equal(w.search.state, NAT_LIFETIME_IDLE);
	assert_int_equal(w.search.dies_us, NEVER_US);
	run_until_us(w.now_us + 600 * US_PER_S);
	assert_int_equal(w.search.state, NAT_LIFETIME_FOUND);
	assert_int_equal(nat_lifetime_interval_us(&w.search), NAT_LIFETIME_MAX_US);
}

static void answers_that_were_not_asked_for_mean_nothing(void **state)
{
	(void)state;
	new_world(1, 60);
	run_until_us(w.now_us + 20 * US_PER_S);
	assert_int_equal(w.search.state, NAT_LIFETIME_AGING);
	for (uint32_t number = 0; number < 10; number++) {
		nat_lifetime_input(&w.search, number, true, 40001, w.now_us);
		nat_lifetime_input(&w.search, number, false, 0, w.now_us);
	}
	assert_int_equal(w.search.state, NAT_LIFETIME_AGING);
	assert_int_equal(w.search.n_tries, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_converges_and_no_flow_is_lost_meanwhile),
		cmocka_unit_test(loss_never_makes_it_too_long),
		cmocka_unit_test(what_is_known_of_a_network_is_not_looked_for_again),
		cmocka_unit_test(a_path_that_died_starts_the_search_anew),
		cmocka_unit_test(a_doubt_without_reason_costs_one_try),
		cmocka_unit_test(a_server_that_is_silent_or_does_not_know_it_ends_the_search),
		cmocka_unit_test(sleep_is_not_taken_for_a_short_memory),
		cmocka_unit_test(answers_that_were_not_asked_for_mean_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
