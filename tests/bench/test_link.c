/* The emulated link, fed with virtual time: what it says it does, it does. */
#include "../unit/unit.h"
#include "link.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000 /* in ns */

/* A direction from options that must be good, ended by NULL. */
static struct link_direction made_of(const char *const *options, unsigned stream)
{
	struct link_config pair[2];
	struct link_direction d;
	char error[160] = "";

	link_config_init(&pair[0]);
	link_config_init(&pair[1]);
	for (; *options; options++)
		if (link_option(pair, *options, error, sizeof(error)) < 0)
			fail_msg("%s: %s", *options, error);
	assert_int_equal(link_config_check(&pair[0], error, sizeof(error)), 0);
	link_init(&d, &pair[0], stream);
	return d;
}
#define LINK(...) made_of((const char *const[]){ __VA_ARGS__, NULL }, 0)

static void a_rate_is_kept_exactly_over_a_million_packets(void **state)
{
	struct link_direction d = LINK("rate=7mbit");
	const uint64_t packets = 1000000, bytes = 1001;
	uint64_t out_ns[LINK_COPIES] = { 0 };

	(void)state;
	for (uint64_t i = 0; i < packets; i++)
		assert_int_equal(link_offer(&d, bytes, 0, out_ns), 1);
	/* 1001 * 8 bits at 7 Mbit/s are 1,144,000 ns exactly; 999 are not a whole number. */
	assert_int_equal(out_ns[0], packets * 1144000);
	d = LINK("rate=7mbit");
	for (uint64_t i = 0; i < packets; i++)
		link_offer(&d, 999, 0, out_ns);
	assert_int_equal(out_ns[0], packets * 999 * 8 * 1000 / 7);
}

static void an_idle_link_starts_anew(void **state)
{
	struct link_direction d = LINK("rate=100mbit", "delay=25ms");
	uint64_t out_ns[LINK_COPIES];

	(void)state;
	link_offer(&d, 1500, 0, out_ns);
	assert_int_equal(out_ns[0], 25 * MS + 120000);
	link_offer(&d, 1500, 10 * MS, out_ns);
	assert_int_equal(out_ns[0], 35 * MS + 120000);
	link_offer(&d, 1500, 10 * MS + 1, out_ns);
	assert_int_equal(out_ns[0], 35 * MS + 240000);
}

static void the_queue_drops_what_comes_last(void **state)
{
	static const char *const same[] = { "queue=50ms", "queue=625kb" };
	uint64_t out_ns[LINK_COPIES];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct link_direction d = LINK("rate=100mbit", same[i]);

		for (int n = 0; n < 1000; n++)
			link_offer(&d, 1500, 0, out_ns);
		/* 50 ms at 100 Mbit/s are 625,000 bytes, or 416 whole packets of 1500. */
		assert_int_equal(d.counters.out_packets, 416);
		assert_int_equal(d.counters.dropped_queue, 584);
		assert_int_equal(d.counters.queue_max_bytes, 416 * 1500);
		assert_int_equal(d.counters.queue_max_ns, 416 * 120000);
		/* One goes out every 120 us, and one more fits. */
		assert_int_equal(link_offer(&d, 1500, 120000, out_ns), 1);
		assert_int_equal(link_offer(&d, 1500, 120000, out_ns), 0);
	}
}

static void a_packet_that_finds_nobody_fits_into_any_queue(void **state)
{
	struct link_direction d = LINK("rate=1mbit", "queue=100b");
	uint64_t out_ns[LINK_COPIES];

	(void)state;
	assert_int_equal(link_offer(&d, 1500, 0, out_ns), 1);
	assert_int_equal(link_offer(&d, 40, 0, out_ns), 0);
}

/* How many of n packets are lost; their runs are counted too. */
static unsigned lose(struct link_direction *d, unsigned n, unsigned *ret_runs)
{
	uint64_t out_ns[LINK_COPIES];
	unsigned lost = 0;
	bool before = false;

	*ret_runs = 0;
	for (unsigned i = 0; i < n; i++) {
		const bool now = link_offer(d, 100, i, out_ns) == 0;

		lost += now;
		*ret_runs += now && !before;
		before = now;
	}
	return lost;
}

static void random_loss_has_its_share_and_no_memory(void **state)
{
	struct link_direction d = LINK("loss=3%", "seed=7");
	const double n = 1e6, share = 0.03;
	unsigned runs;
	const double lost = lose(&d, (unsigned)n, &runs);

	(void)state;
	assert_true(fabs(lost - n * share) < 4 * sqrt(n * share * (1 - share)));
	assert_int_equal(d.counters.dropped_loss, (unsigned)lost);
	assert_true(fabs(lost / runs - 1 / (1 - share)) < 0.01);
}

static void burst_loss_has_its_share_and_its_length(void **state)
{
	struct link_direction d = LINK("burst=2%,8");
	const unsigned n = 2000000;
	unsigned runs;
	const double lost = lose(&d, n, &runs);

	(void)state;
	assert_true(fabs(lost / n - 0.02) < 0.001);
	assert_true(fabs(lost / runs - 8) < 0.25);
	assert_int_equal(d.counters.dropped_burst, (unsigned)lost);
}

static void gilbert_elliott_loses_in_both_states(void **state)
{
	struct link_direction d = LINK("ge=1%,9%,50%,2%");
	const unsigned n = 2000000;
	unsigned runs;

	(void)state;
	/* Bad a tenth of the time: 0.1 * 50 % + 0.9 * 2 % */
	assert_true(fabs((double)lose(&d, n, &runs) / n - 0.068) < 0.002);
}

static void jitter_stays_in_its_bounds(void **state)
{
	struct link_direction free = LINK("delay=25ms", "jitter=5ms", "order=free");
	struct link_direction keep = LINK("delay=25ms", "jitter=5ms", "order=keep");
	uint64_t last_ns[2] = { 0 }, least_ns = UINT64_MAX, most_ns = 0, sum_ns = 0;
	unsigned overtaken = 0;

	(void)state;
	for (uint64_t i = 0; i < 100000; i++) {
		const uint64_t at_ns = i * 100000;
		uint64_t out_ns[LINK_COPIES];

		link_offer(&free, 1500, at_ns, out_ns);
		least_ns = out_ns[0] - at_ns < least_ns ? out_ns[0] - at_ns : least_ns;
		most_ns = out_ns[0] - at_ns > most_ns ? out_ns[0] - at_ns : most_ns;
		sum_ns += out_ns[0] - at_ns;
		overtaken += out_ns[0] < last_ns[0];
		last_ns[0] = out_ns[0];

		link_offer(&keep, 1500, at_ns, out_ns);
		assert_true(out_ns[0] >= last_ns[1] && out_ns[0] <= at_ns + 30 * MS);
		last_ns[1] = out_ns[0];
	}
	assert_true(least_ns >= 20 * MS && least_ns < 20 * MS + MS / 100);
	assert_true(most_ns < 30 * MS && most_ns > 30 * MS - MS / 100);
	assert_true(llabs((int64_t)(sum_ns / 100000) - 25 * MS) < MS / 20);
	assert_true(overtaken > 40000);
}

static void some_are_held_back_and_overtaken(void **state)
{
	struct link_direction d = LINK("delay=10ms", "reorder=10%,3ms");
	unsigned held = 0;

	(void)state;
	for (uint64_t i = 0; i < 10000; i++) {
		uint64_t out_ns[LINK_COPIES];

		link_offer(&d, 100, i * MS, out_ns);
		assert_true(out_ns[0] == (i + 10) * MS || out_ns[0] == (i + 13) * MS);
		held += out_ns[0] == (i + 13) * MS;
	}
	assert_int_equal(held, d.counters.held_back);
	assert_true(held > 900 && held < 1100);
}

static void duplicates_come_out_beside_the_first(void **state)
{
	struct link_direction d = LINK("dup=50%", "delay=1ms");
	unsigned doubled = 0;

	(void)state;
	for (uint64_t i = 0; i < 1000; i++) {
		uint64_t out_ns[LINK_COPIES] = { 0 };
		const unsigned copies = link_offer(&d, 100, i * MS, out_ns);

		assert_true(copies == 1 || copies == 2);
		assert_int_equal(out_ns[copies - 1], (i + 1) * MS);
		doubled += copies == 2;
	}
	assert_int_equal(d.counters.duplicated, doubled);
	assert_int_equal(d.counters.out_packets, 1000 + doubled);
	assert_true(doubled > 430 && doubled < 570);
}

static void the_seed_alone_decides(void **state)
{
	static const char *const first[] = { "loss=10%", "seed=1", NULL };
	static const char *const more[] = { "loss=10%",   "seed=1",     "dup=5%", "delay=5ms",
					    "jitter=2ms", "reorder=5%", NULL };
	static const char *const other[] = { "loss=10%", "seed=2", NULL };
	struct link_direction d[] = { made_of(first, 0), made_of(first, 0), made_of(more, 0),
				      made_of(other, 0), made_of(first, 1) };
	unsigned differs[5] = { 0 };

	(void)state;
	for (uint64_t i = 0; i < 1000; i++) {
		uint64_t out_ns[LINK_COPIES];
		bool lost[5];

		for (int k = 0; k < 5; k++) {
			lost[k] = link_offer(&d[k], 100, i * MS, out_ns) == 0;
			differs[k] += lost[k] != lost[0];
		}
	}
	assert_int_equal(differs[1], 0);
	assert_int_equal(differs[2], 0); /* other mischance draws from another generator */
	assert_true(differs[3] > 100);   /* another seed */
	assert_true(differs[4] > 100);   /* the other direction */
}

static void the_heap_gives_the_earliest_and_keeps_ties_in_order(void **state)
{
	struct link_heap heap;
	uint64_t last_ns = 0, next_ns;
	uint32_t seed = 1, last = 0;

	(void)state;
	assert_int_equal(link_heap_init(&heap, 1000), 0);
	assert_true(link_heap_next_ns(&heap) == LINK_NEVER_NS);
	for (uint32_t i = 0; i < 1000; i++) {
		seed = seed * 1664525 + 1013904223;
		assert_true(link_heap_push(&heap, seed >> 24, i));
	}
	assert_false(link_heap_push(&heap, 0, 0));
	for (int i = 0; i < 1000; i++) {
		uint32_t packet;

		next_ns = link_heap_next_ns(&heap);
		packet = link_heap_pop(&heap);
		assert_true(next_ns > last_ns || i == 0 || (next_ns == last_ns && packet > last));
		last_ns = next_ns;
		last = packet;
	}
	assert_true(link_heap_next_ns(&heap) == LINK_NEVER_NS);
	link_heap_fini(&heap);
}

static void bad_options_are_refused_with_a_reason(void **state)
{
	static const char *const bad[] = {
		"rate",          "rate=",      "rate=100",
		"rate=-1mbit",   "rate=1tbit", "rate=nanmbit",
		"rate=900gbit",  "delay=25",   "delay=2h",
		"queue=50",      "queue=-1ms", "loss=101%",
		"loss=-1%",      "loss=x",     "loss=1%,2",
		"burst=1%",      "burst=1%,0", "burst=100%,5",
		"burst=60%,1",   "ge=1%",      "ge=1,1,1,1,1",
		"order=maybe",   "dup=2",      "reorder=1%,5",
		"seed=-1",       "seed=x",     "colour=red",
		"xy.rate=1mbit", "",           "=",
	};
	struct link_config pair[2];
	char error[160];

	(void)state;
	link_config_init(&pair[0]);
	link_config_init(&pair[1]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		error[0] = '\0';
		if (link_option(pair, bad[i], error, sizeof(error)) != -1 || error[0] == '\0')
			fail_msg("\"%s\" was taken", bad[i]);
	}
}

static void options_that_contradict_are_refused(void **state)
{
	static const char *const bad[][2] = { { "queue=50ms", "delay=1ms" },
					      { "jitter=5ms", "delay=4ms" },
					      { "rate=1kbit", "delay=1ms" } };
	char error[160];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct link_config pair[2];

		link_config_init(&pair[0]);
		link_config_init(&pair[1]);
		assert_int_equal(link_option(pair, bad[i][0], error, sizeof(error)), 0);
		assert_int_equal(link_option(pair, bad[i][1], error, sizeof(error)), 0);
		error[0] = '\0';
		assert_int_equal(link_config_check(&pair[0], error, sizeof(error)), -1);
		assert_true(error[0] != '\0');
	}
}

static void an_option_may_be_for_one_direction(void **state)
{
	struct link_config pair[2];
	char error[160];

	(void)state;
	link_config_init(&pair[0]);
	link_config_init(&pair[1]);
	assert_int_equal(link_option(pair, "rate=1gbit", error, sizeof(error)), 0);
	assert_int_equal(link_option(pair, "ab.loss=1%", error, sizeof(error)), 0);
	assert_int_equal(link_option(pair, "ba.rate=64kbit", error, sizeof(error)), 0);
	assert_int_equal(pair[0].rate_bps, 1000000000);
	assert_int_equal(pair[1].rate_bps, 64000);
	assert_true(fabs(pair[0].loss - 0.01) < 1e-12);
	assert_true(pair[1].loss <= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rate_is_kept_exactly_over_a_million_packets),
		cmocka_unit_test(an_idle_link_starts_anew),
		cmocka_unit_test(the_queue_drops_what_comes_last),
		cmocka_unit_test(a_packet_that_finds_nobody_fits_into_any_queue),
		cmocka_unit_test(random_loss_has_its_share_and_no_memory),
		cmocka_unit_test(burst_loss_has_its_share_and_its_length),
		cmocka_unit_test(gilbert_elliott_loses_in_both_states),
		cmocka_unit_test(jitter_stays_in_its_bounds),
		cmocka_unit_test(some_are_held_back_and_overtaken),
		cmocka_unit_test(duplicates_come_out_beside_the_first),
		cmocka_unit_test(the_seed_alone_decides),
		cmocka_unit_test(the_heap_gives_the_earliest_and_keeps_ties_in_order),
		cmocka_unit_test(bad_options_are_refused_with_a_reason),
		cmocka_unit_test(options_that_contradict_are_refused),
		cmocka_unit_test(an_option_may_be_for_one_direction),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
