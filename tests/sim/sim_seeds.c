/*
 * Seeds: each is a story (chaos.c) that must end well.
 *
 *   SIM_SEEDS=n   how many, instead of 4000
 *   SIM_SEED=n    this one, told in detail; with SIM_DATAGRAMS=1 down to each datagram
 *   SIM_FIRST=n   begin with this one
 */
#include "sim.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define CASES         8
#define SEEDS_DEFAULT 4000

static char crash_text[128];

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *const text = getenv(name);
	uint64_t value;

	return text && parse_u64(text, UINT64_MAX, &value) == 0 ? value : otherwise;
}

/* An assertion or a sanitizer ends the process: let it say which seed that was. */
static void on_crash(int signal_number)
{
	const ssize_t n = write(STDERR_FILENO, crash_text, strlen(crash_text));

	(void)n;
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

static bool play_one(uint64_t seed)
{
	const char *failure;

	snprintf(crash_text, sizeof(crash_text),
		 "# seed %llu crashed; again: SIM_SEED=%llu tests/sim/sim_seeds\n",
		 (unsigned long long)seed, (unsigned long long)seed);
	if (sim_play(seed, getenv("SIM_SEED") != NULL, &failure))
		return true;
	print_error("seed %llu failed %s; again: SIM_SEED=%llu tests/sim/sim_seeds\n",
		    (unsigned long long)seed, failure, (unsigned long long)seed);
	return false;
}

static void play_range(unsigned part)
{
	const uint64_t n = number_from("SIM_SEEDS", SEEDS_DEFAULT),
		       first = number_from("SIM_FIRST", 1);
	const uint64_t from = n * part / CASES, to = n * (part + 1) / CASES;
	unsigned n_failed = 0;

	for (uint64_t i = from; i < to; i++)
		n_failed += !play_one(first + i);
	assert_int_equal(n_failed, 0);
}

#define PART(n, name)                                                                              \
	static void name(void **state)                                                             \
	{                                                                                          \
		(void)state;                                                                       \
		play_range(n);                                                                     \
	}
PART(0, every_seed_of_the_first_eighth_ends_well)
PART(1, every_seed_of_the_second_eighth_ends_well)
PART(2, every_seed_of_the_third_eighth_ends_well)
PART(3, every_seed_of_the_fourth_eighth_ends_well)
PART(4, every_seed_of_the_fifth_eighth_ends_well)
PART(5, every_seed_of_the_sixth_eighth_ends_well)
PART(6, every_seed_of_the_seventh_eighth_ends_well)
PART(7, every_seed_of_the_last_eighth_ends_well)

static void seeds_that_once_failed_end_well(void **state)
{
	FILE *const f = fopen(SIM_REGRESSIONS, "r");
	unsigned n_failed = 0, n = 0;
	char line[256];

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long seed;

		if (sscanf(line, "%llu", &seed) != 1)
			continue;
		n++;
		n_failed += !play_one(seed);
	}
	fclose(f);
	assert_int_equal(n_failed, 0);
	assert_true(n > 0);
}

static void the_seed_asked_for_ends_well(void **state)
{
	(void)state;
	assert_true(play_one(number_from("SIM_SEED", 1)));
}

/* The same seed tells the same story. */
static void a_story_can_be_told_again(void **state)
{
	const char *failure;
	uint64_t n_calls[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		const uint64_t before = sim_memory_calls();

		sim_play(1, false, &failure);
		n_calls[i] = sim_memory_calls() - before;
	}
	assert_int_equal(n_calls[0], n_calls[1]);
}

int main(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(seeds_that_once_failed_end_well),
		cmocka_unit_test(a_story_can_be_told_again),
		cmocka_unit_test(every_seed_of_the_first_eighth_ends_well),
		cmocka_unit_test(every_seed_of_the_second_eighth_ends_well),
		cmocka_unit_test(every_seed_of_the_third_eighth_ends_well),
		cmocka_unit_test(every_seed_of_the_fourth_eighth_ends_well),
		cmocka_unit_test(every_seed_of_the_fifth_eighth_ends_well),
		cmocka_unit_test(every_seed_of_the_sixth_eighth_ends_well),
		cmocka_unit_test(every_seed_of_the_seventh_eighth_ends_well),
		cmocka_unit_test(every_seed_of_the_last_eighth_ends_well),
	};
	const struct CMUnitTest one[] = { cmocka_unit_test(the_seed_asked_for_ends_well) };

	signal(SIGABRT, on_crash);
	signal(SIGSEGV, on_crash);
	if (getenv("SIM_SEED"))
		return cmocka_run_group_tests(one, NULL, NULL);
	return cmocka_run_group_tests(all, NULL, NULL);
}
