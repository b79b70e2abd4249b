/*
 * Tunnels on links of all kinds: goodput, queue and shares. The figures are of virtual time, the
 * same on any machine, so they can be asserted. Arguments choose cases by a part of their name;
 * SIM_SEED runs one seed alone, SIM_VERBOSE tells what the controller does.
 */
#include "rig.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#define ANY       1000.0
#define SEEDS_MAX 16

struct expected {
	double utilisation, goodput_mbit_s;       /* at least */
	double queue_median_ms, overflow_percent; /* at most */
	double tunnel_share, outer_share, jain;   /* at least */
};

struct story {
	const char *name;
	double mbit_s, rtt_ms, queue_ms, loss_percent, jitter_ms;
	unsigned burst, n_tunnels, n_inner, n_outer;
	unsigned n_seeds; /* 0: one */
	enum ptcp_congestion_control cc[2];
	double mark_ms;
	double change_s, change_rtt_ms; /* a longer way from then on */
	bool bleaches, eats_ect, marks_all, parity;
	double tunnel_s, second_s, outer_s; /* when these start, later than the seed says */
	double warm_s, measure_s;
	double typical_share;     /* the least share of anyone: its median is at least this */
	double typical_mbit_s;    /* the goodput: its median is at least this */
	struct expected expected; /* with each seed */
};

/* clang-format off */
static const struct story stories[] = {
	{ "clean", 100, 50, 50, .n_tunnels = 1, .warm_s = 2, .measure_s = 10,
	  .expected = { .98, 93.5, 5, .1 } },
	{ "1 % of loss", 100, 50, 50, 1, .n_tunnels = 1, .n_seeds = 3, .warm_s = 2, .measure_s = 6,
	  .expected = { .97, 91, 5, .2 } },
	{ "3 % of loss", 100, 50, 50, 3, .n_tunnels = 1, .n_seeds = 3, .warm_s = 2, .measure_s = 6,
	  .expected = { .95, 88, 5, .2 } },
	{ "10 % of loss", 100, 50, 50, 10, .n_tunnels = 1, .n_seeds = 3, .warm_s = 2, .measure_s = 6,
	  .expected = { .88, 75, 5, .5 } },
	{ "3 % of loss in bursts of 8", 100, 50, 50, 3, .burst = 8, .n_tunnels = 1, .n_seeds = 3, .warm_s = 2,
	  .measure_s = 6, .expected = { .93, 86, 5, .5 } },
	{ "5 ms of jitter", 100, 50, 50, 0, 5, .n_tunnels = 1, .n_seeds = 3, .warm_s = 2, .measure_s = 6,
	  .expected = { .95, 89, 8, .2 } },
	{ "200 ms, 1 % of loss", 100, 200, 50, 1, .n_tunnels = 1, .warm_s = 4, .measure_s = 10,
	  .expected = { .95, 88, 8, .5 } },
	{ "10 Mbit/s, 500 ms of queue", 10, 50, 500, .n_tunnels = 1, .warm_s = 3, .measure_s = 12,
	  .expected = { .97, 9.2, 10, .1 } },
	{ "1 Gbit/s, 10 ms", 1000, 10, 50, .n_tunnels = 1, .warm_s = 1, .measure_s = 2,
	  .expected = { .97, 920, 5, .1 } },
	{ "1 Mbit/s, 100 ms", 1, 100, 200, .n_tunnels = 1, .warm_s = 5, .measure_s = 15,
	  .expected = { .90, .8, 40, 1 } },
	{ "a queue of 5 ms", 100, 50, 5, .n_tunnels = 1, .warm_s = 2, .measure_s = 6,
	  .expected = { .95, 89, 5, 1.5 } },
	{ "two tunnels", 100, 50, 50, .n_tunnels = 2, .n_seeds = 8, .warm_s = 5, .measure_s = 15,
	  .typical_share = .4, .expected = { .97, 92, 10, .5, .tunnel_share = .35 } },
	{ "two tunnels, the second late", 100, 50, 50, .n_tunnels = 2, .n_seeds = 4, .second_s = 5, .warm_s = 20, .measure_s = 15,
	  .expected = { .97, 92, 10, .5, .tunnel_share = .4 } },
	{ "two tunnels, slow and far", 20, 100, 100, .n_tunnels = 2, .n_seeds = 4, .warm_s = 8,
	  .measure_s = 20, .expected = { .97, 18, 20, .5, .tunnel_share = .4 } },
	{ "a way that is longer from then on", 100, 50, 50, .n_tunnels = 1, .change_s = 4,
	  .change_rtt_ms = 80, .warm_s = 4, .measure_s = 12, .expected = { .95, 90, 5, .2 } },
	{ "a way that is much longer from then on", 100, 50, 200, .n_tunnels = 1, .change_s = 4,
	  .change_rtt_ms = 200, .warm_s = 16, .measure_s = 12, .expected = { .97, 91, 5, .2 } },
	{ "beside cubic, slow", 10, 40, 200, .n_tunnels = 1, .n_outer = 1, .n_seeds = 2, .warm_s = 10,
	  .measure_s = 30, .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .4 } },
	{ "beside cubic, a short queue", 100, 50, 15, .n_tunnels = 1, .n_outer = 1, .n_seeds = 4,
	  .warm_s = 10, .measure_s = 30, .typical_share = .45,
	  .expected = { .95, 0, ANY, 1, .outer_share = .3, .tunnel_share = .4 } },
	{ "beside cubic, 5 ms of jitter", 100, 50, 50, 0, 5, .n_tunnels = 1, .n_outer = 1, .n_seeds = 2,
	  .warm_s = 10, .measure_s = 30,
	  .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .35 } },
	{ "beside cubic", 100, 50, 50, .n_tunnels = 1, .n_outer = 1, .n_seeds = 3, .warm_s = 10,
	  .measure_s = 20, .typical_share = .41, .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .4 } },
	{ "beside cubic that starts later", 100, 50, 50, .n_tunnels = 1, .n_outer = 1, .n_seeds = 3,
	  .outer_s = 8, .warm_s = 18, .measure_s = 20,
	  .typical_share = .41, .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .4 } },
	{ "beside cubic that was there", 100, 50, 50, .n_tunnels = 1, .n_outer = 1, .n_seeds = 3,
	  .tunnel_s = 8, .warm_s = 18, .measure_s = 20,
	  .typical_share = .41, .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .4 } },
	{ "beside cubic, 4 BDP of queue", 100, 50, 200, .n_tunnels = 1, .n_outer = 1, .n_seeds = 3,
	  .warm_s = 10, .measure_s = 20,
	  .typical_share = .41, .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .38 } },
	{ "inner cubic beside cubic", 100, 50, 50, .n_tunnels = 1, .n_inner = 1, .n_outer = 1,
	  .n_seeds = 3, .warm_s = 10, .measure_s = 20,
	  .typical_share = .41, .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .38 } },
	{ "inner cubic beside cubic that starts later", 100, 50, 50, .n_tunnels = 1, .n_inner = 1,
	  .n_outer = 1, .n_seeds = 3, .outer_s = 8, .warm_s = 18, .measure_s = 20,
	  .typical_share = .41, .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .38 } },
	{ "inner cubic beside cubic that was there", 100, 50, 50, .n_tunnels = 1, .n_inner = 1,
	  .n_outer = 1, .n_seeds = 3, .tunnel_s = 8, .warm_s = 18, .measure_s = 20,
	  .typical_share = .41, .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .38 } },
	{ "16 inner cubics beside cubic", 100, 50, 50, .n_tunnels = 1, .n_inner = 16, .n_outer = 1,
	  .n_seeds = 3, .warm_s = 10, .measure_s = 20,
	  .expected = { .98, 0, ANY, 1, .outer_share = .4, .tunnel_share = .38, .jain = .95 } },
	{ "next door, slow", 10, .2, 30, .n_tunnels = 1, .warm_s = 2, .measure_s = 8,
	  .expected = { .95, 8.5, 10, 1 } },
	{ "next door, slow, one inner cubic", 10, .2, 30, .n_tunnels = 1, .n_inner = 1, .warm_s = 2,
	  .measure_s = 8, .expected = { .95, 8.5, 10, 1 } },
	{ "next door", 100, .3, 20, .n_tunnels = 1, .warm_s = 1, .measure_s = 3,
	  .expected = { .95, 88, 5, 1 } },
	{ "next door, one inner cubic", 100, .3, 20, .n_tunnels = 1, .n_inner = 1, .warm_s = 1,
	  .measure_s = 3, .expected = { .95, 88, 5, 1 } },
	{ "one inner cubic", 100, 50, 50, .n_tunnels = 1, .n_inner = 1, .warm_s = 3, .measure_s = 9,
	  .expected = { .95, 86, 10, .2 } },
	{ "one inner cubic, 1 % of loss", 100, 50, 50, 1, .parity = true, .n_tunnels = 1, .n_inner = 1,
	  .warm_s = 3, .measure_s = 9, .expected = { .9, 80, 10, .5 } },
	{ "one inner cubic, 10 % of loss", 100, 50, 50, 10, .parity = true, .n_tunnels = 1, .n_inner = 1,
	  .warm_s = 3, .measure_s = 9, .expected = { .8, 50, 10, .5 } },
	{ "one inner cubic starts", 100, 50, 50, .parity = true, .n_tunnels = 1, .n_inner = 1,
	  .warm_s = 1, .measure_s = 11, .expected = { .95, 88, 10, .5 } },
	{ "one inner cubic starts, 0.3 % of loss", 100, 50, 50, .3, .parity = true, .n_tunnels = 1,
	  .n_inner = 1, .n_seeds = 8, .warm_s = 1, .measure_s = 11, .typical_mbit_s = 88,
	  .expected = { .85, 75, 10, 1 } },
	{ "one inner cubic starts, 1 % of loss", 100, 50, 50, 1, .parity = true, .n_tunnels = 1,
	  .n_inner = 1, .n_seeds = 8, .warm_s = 1, .measure_s = 11, .typical_mbit_s = 86,
	  .expected = { .8, 70, 10, 1 } },
	/* About one in thirty leaves its slow start early: at 45 to 55 Mbit/s for these seconds. */
	{ "one inner cubic starts, 3 % of loss", 100, 50, 50, 3, .parity = true, .n_tunnels = 1,
	  .n_inner = 1, .n_seeds = 12, .warm_s = 1, .measure_s = 11, .typical_mbit_s = 81,
	  .expected = { .6, 40, 10, 1 } },
	{ "16 inner cubics", 100, 50, 50, .n_tunnels = 1, .n_inner = 16, .warm_s = 3, .measure_s = 9,
	  .expected = { .95, 86, 10, .5, .jain = .95 } },
	{ "cubic, clean", 100, 50, 50, .n_tunnels = 1, .cc = { PTCP_CC_CUBIC }, .warm_s = 5,
	  .measure_s = 10, .expected = { .95, 89, ANY, 1 } },
	{ "cubic beside cubic", 100, 50, 50, .n_tunnels = 1, .cc = { PTCP_CC_CUBIC }, .n_outer = 1,
	  .warm_s = 10, .measure_s = 30,
	  .expected = { .95, 0, ANY, 1, .outer_share = .3, .tunnel_share = .3 } },
	{ "cubic, CE marks from 5 ms on", 100, 50, 50, .n_tunnels = 1, .cc = { PTCP_CC_CUBIC },
	  .mark_ms = 5, .warm_s = 3, .measure_s = 8, .expected = { .85, 80, 15, .1 } },
	{ "marks are cleared", 100, 50, 50, .n_tunnels = 1, .bleaches = true, .warm_s = 2,
	  .measure_s = 2, .expected = { .95, 90, 6, .1 } },
	{ "packets with marks are dropped", 100, 50, 50, .n_tunnels = 1, .eats_ect = true,
	  .warm_s = 4, .measure_s = 2, .expected = { .95, 90, 6, .1 } },
	{ "everything is marked CE", 100, 50, 50, .n_tunnels = 1, .marks_all = true, .warm_s = 2,
	  .measure_s = 4, .expected = { .95, 90, 6, .1 } },
	{ "everything is marked CE, cubic", 100, 50, 50, .n_tunnels = 1, .marks_all = true,
	  .cc = { PTCP_CC_CUBIC }, .warm_s = 12, .measure_s = 4, .expected = { .9, 80, ANY, 1 } },
	{ "everything is marked CE, one inner cubic", 100, 50, 50, .n_tunnels = 1, .n_inner = 1,
	  .marks_all = true, .warm_s = 3, .measure_s = 6, .expected = { .9, 80, 10, .2 } },
	{ "CE marks from 5 ms on", 100, 50, 50, .n_tunnels = 1, .mark_ms = 5, .warm_s = 2,
	  .measure_s = 6, .expected = { .95, 90, 6, .1 } },
};
/* clang-format on */

static uint64_t us(double ms)
{
	return (uint64_t)(ms * 1000);
}

/* What differs from seed to seed: chance, and when each starts. */
static struct rig_config config_of(const struct story *s, uint64_t seed)
{
	const struct rig_link_config link = {
		.bytes_per_s = (uint64_t)(s->mbit_s * (double)MBIT),
		.delay_us = us(s->rtt_ms / 2),
		.queue_us = us(s->queue_ms),
		.jitter_us = us(s->jitter_ms),
		.loss_ppm = (unsigned)(s->loss_percent * 1e4),
		.burst_packets = s->burst,
		.mark_us = us(s->mark_ms),
		.bleaches = s->bleaches,
		.eats_ect = s->eats_ect,
		.marks_all = s->marks_all,
	};

	return (struct rig_config){
		.seed = seed,
		.outer_start_us = seed * 137137 % US_PER_S + us(s->outer_s * 1000),
		.link = { link, link },
		.n_tunnels = s->n_tunnels,
		.cc = { s->cc[0], s->cc[1] },
		.parity = s->parity ? PTCP_PARITY_AUTO : PTCP_PARITY_OFF,
		.greedy = s->n_inner == 0,
		.n_inner = s->n_inner,
		.n_outer = s->n_outer,
		.tunnel_start_us = { (s->n_outer > 0 ? seed * 313131 % US_PER_S : 0) +
					     us(s->tunnel_s * 1000),
				     (seed - 1) * 71717 % US_PER_S + us(s->second_s * 1000) },
		.change_us = us(s->change_s * 1000),
		.change_delay_us = s->change_rtt_ms > 0 ? us(s->change_rtt_ms - s->rtt_ms / 2) : 0,
		.warm_us = us(s->warm_s * 1000),
		.measure_us = us(s->measure_s * 1000),
		.verbose = getenv("SIM_VERBOSE") != NULL,
	};
}

static void report(const struct story *s, const struct rig_result *x)
{
	printf("# %-32s %-5s use %5.1f %% goodput %6.1f queue %5.1f p95 %5.1f ms loss %4.1f over "
	       "%5.2f %% shares %.2f %.2f %.2f jain %.3f spurious %llu resent %llu CE %llu ptos "
	       "%llu\n",
	       s->name, ptcp_congestion_control_name(s->cc[0]), 100 * x->utilisation,
	       x->goodput_mbit_s, x->queue_median_ms, x->queue_p95_ms, x->loss_percent,
	       x->overflow_percent, x->share[0], x->share[1], x->share[2], x->jain,
	       (unsigned long long)x->stats.packets_spurious,
	       (unsigned long long)x->stats.fragments_resent, (unsigned long long)x->marked,
	       (unsigned long long)x->stats.ptos);
	fflush(stdout);
}

#define HOLD(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail_msg("%s, seed %u: %s does not hold", s->name, (unsigned)seed,         \
				 #condition);                                                      \
	} while (0)

/* The least share of those who share the link. */
static double least_share(const struct story *s, const struct rig_result *x)
{
	double least = x->share[0];

	if (s->n_tunnels > 1 && x->share[1] < least)
		least = x->share[1];
	if (s->n_outer > 0 && x->share[RIG_TUNNELS_MAX] < least)
		least = x->share[RIG_TUNNELS_MAX];
	return least;
}

static double run(const struct story *s, uint64_t seed, double *ret_mbit_s)
{
	const struct rig_config config = config_of(s, seed);
	const struct rig_result x = rig_run(&config);
	const struct expected *const e = &s->expected;

	report(s, &x);
	HOLD(x.utilisation >= e->utilisation);
	HOLD(x.goodput_mbit_s >= e->goodput_mbit_s);
	HOLD(x.queue_median_ms <= e->queue_median_ms);
	HOLD(x.overflow_percent <= e->overflow_percent);
	HOLD(x.share[0] >= e->tunnel_share);
	HOLD(s->n_tunnels < 2 || x.share[1] >= e->tunnel_share);
	HOLD(x.share[RIG_TUNNELS_MAX] >= e->outer_share);
	HOLD(x.path.ecn == !(s->bleaches || s->eats_ect || s->marks_all));
	HOLD(s->n_inner == 0 || x.jain >= e->jain);
	*ret_mbit_s = x.goodput_mbit_s;
	return least_share(s, &x);
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* With each seed: the worst must do, and the median. */
static void the_link_is_used_well_and_shared(void **state)
{
	const struct story *const s = *state;
	const char *const only = getenv("SIM_SEED");
	const unsigned n_seeds = s->n_seeds > 0 ? s->n_seeds : 1;
	double shares[SEEDS_MAX], mbit_s[SEEDS_MAX];

	assert_true(n_seeds <= SEEDS_MAX);
	if (only) {
		run(s, strtoull(only, NULL, 10), mbit_s);
		return;
	}
	for (unsigned i = 0; i < n_seeds; i++)
		shares[i] = run(s, i + 1, &mbit_s[i]);
	qsort(shares, n_seeds, sizeof(*shares), compare);
	if (shares[n_seeds / 2] < s->typical_share)
		fail_msg("%s: a median share of %.2f", s->name, shares[n_seeds / 2]);
	qsort(mbit_s, n_seeds, sizeof(*mbit_s), compare);
	if (mbit_s[n_seeds / 2] < s->typical_mbit_s)
		fail_msg("%s: a median of %.1f Mbit/s", s->name, mbit_s[n_seeds / 2]);
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[ARRAY_SIZE(stories)];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		if (argc < 2 || strstr(stories[i].name, argv[1]))
			tests[n++] = (struct CMUnitTest){
				.name = stories[i].name,
				.test_func = the_link_is_used_well_and_shared,
				.initial_state = (void *)(uintptr_t)&stories[i],
			};
	return _cmocka_run_group_tests("links", tests, n, NULL, NULL);
}
