/* Parity: its arithmetic, and associations that repair by it. */
#include "unit.h"

#include "ptcp/parity_code.h"
#include "ptcp_pair.h"

static struct pair pair;

/* ---- the arithmetic ---- */

struct block {
	uint8_t sources[PARITY_SPAN][PARITY_SYMBOL_BYTES];
	size_t n_bytes[PARITY_SPAN];
	uint8_t rows[PARITY_ROWS_MAX][PARITY_SYMBOL_BYTES];
	uint8_t out[PARITY_ROWS_MAX][PARITY_SYMBOL_BYTES];
};
static struct block block;

static uint64_t random_state = 1;
static uint32_t below(uint32_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(random_state >> 33) % n;
}

/* Which positions. */
struct set {
	bool has[PARITY_SPAN];
};

static struct set set_of(uint64_t bits)
{
	struct set s = { 0 };

	for (unsigned i = 0; i < 64; i++)
		s.has[i] = bits >> i & 1;
	return s;
}

static void fill(const struct set *positions, size_t size_max)
{
	memset(block.rows, 0, sizeof(block.rows));
	for (unsigned i = 0; i < PARITY_SPAN; i++) {
		if (!positions->has[i])
			continue;
		block.n_bytes[i] = 1 + below((uint32_t)size_max);
		for (size_t k = 0; k < block.n_bytes[i]; k++)
			block.sources[i][k] = (uint8_t)below(256);
	}
}

static void add(const uint8_t numbers[], unsigned n_rows, const struct set *positions,
		const struct set *without)
{
	uint8_t *rows[PARITY_ROWS_MAX];

	for (unsigned i = 0; i < n_rows; i++)
		rows[i] = block.rows[i];
	for (unsigned i = 0; i < PARITY_SPAN; i++)
		if (positions->has[i] && !without->has[i])
			parity_code_add(rows, numbers, n_rows, i, block.sources[i],
					block.n_bytes[i]);
}

/* Encodes rows of all sources, takes those that are not lost out again, and solves the rest. */
static void lose_and_solve(const struct set *positions, const struct set *lost,
			   const uint8_t numbers[])
{
	uint8_t *rows[PARITY_ROWS_MAX], *out[PARITY_ROWS_MAX], missing[PARITY_ROWS_MAX];
	const struct set none = { 0 };
	unsigned n = 0;

	for (unsigned i = 0; i < PARITY_SPAN; i++)
		if (lost->has[i]) {
			rows[n] = block.rows[n];
			out[n] = block.out[n];
			missing[n++] = (uint8_t)i;
		}
	memset(block.rows, 0, sizeof(block.rows));
	add(numbers, n, positions, &none);
	add(numbers, n, positions, lost);
	parity_code_solve(rows, numbers, out, missing, n, PARITY_SYMBOL_BYTES);
	for (unsigned i = 0; i < n; i++) {
		const size_t n_bytes = block.n_bytes[missing[i]];

		assert_int_equal(out[i][0] << 8 | out[i][1], n_bytes);
		assert_memory_equal(out[i] + 2, block.sources[missing[i]], n_bytes);
		for (size_t k = n_bytes + 2; k < PARITY_SYMBOL_BYTES; k++)
			assert_int_equal(out[i][k], 0);
	}
}

static void every_pattern_of_losses_of_a_small_block_is_solved(void **state)
{
	(void)state;
	const uint64_t all = 0x7f;
	const struct set positions = set_of(all);

	fill(&positions, 300);
	for (uint64_t bits = 1; bits <= all; bits++) {
		const unsigned n = (unsigned)__builtin_popcountll(bits);
		const struct set lost = set_of(bits);

		/* Any rows will do: all that n of 6 rows can be. */
		for (unsigned which = 1; which < 64; which++) {
			uint8_t numbers[8];
			unsigned n_numbers = 0;

			for (uint8_t i = 0; i < 6; i++)
				if (which >> i & 1)
					numbers[n_numbers++] = i;
			if (n_numbers == n)
				lose_and_solve(&positions, &lost, numbers);
		}
	}
}

static void large_blocks_with_holes_and_sizes_that_differ_are_solved(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		struct set positions = { 0 }, lost = { 0 };
		uint8_t numbers[PARITY_ROWS_MAX];
		const unsigned n_max = 1 + below(PARITY_ROWS_MAX);
		unsigned n = 0;
		const uint8_t first = (uint8_t)below(PARITY_SPAN - PARITY_ROWS_MAX);

		for (unsigned i = 0; i < PARITY_SPAN; i++)
			positions.has[i] = i == 0 || below(2) == 0;
		fill(&positions, PARITY_SYMBOL_BYTES - 2);
		for (unsigned tries = 0; tries < 300 && n < n_max; tries++) {
			const unsigned i = below(PARITY_SPAN);

			if (!positions.has[i] || lost.has[i])
				continue;
			lost.has[i] = true;
			numbers[n] = (uint8_t)(first + n);
			n++;
		}
		lose_and_solve(&positions, &lost, numbers);
	}
}

static void a_row_is_what_the_specification_says(void **state)
{
	uint8_t row[PARITY_SYMBOL_BYTES] = { 0 }, *rows[] = { row };
	const uint8_t number = 3, one = 1;

	(void)state;
	parity_code_add(rows, &number, 1, 10, &one, 1);
	/* Length 1 and byte 1: both times the coefficient itself, so row * (131 ^ 10) is 1. */
	unsigned product = 0, a = row[2], b = 131 ^ 10;
	for (; b != 0; b >>= 1) {
		product ^= b & 1 ? a : 0;
		a = a << 1 ^ (a & 0x80 ? 0x11d : 0);
	}
	assert_int_equal(product, 1);
	assert_int_equal(row[0], 0);
	assert_int_equal(row[1], row[2]);
	assert_int_equal(row[3], 0);
}

/* ---- associations ---- */

#define MESSAGE_BYTES 4000

struct flow {
	uint64_t next_us, interval_us, until_us;
	uint32_t n_sent;
	/* Of the receiver. */
	uint32_t n_got, expected;
	unsigned n_early, n_late;
	uint64_t delay_max_us, late_us;
	bool seen[200000];
};
static struct flow flow;

static uint64_t send_flow(struct pair *p, void *user)
{
	struct flow *const f = user;

	while (p->now_us >= f->next_us && p->now_us < f->until_us) {
		uint8_t data[MESSAGE_BYTES];
		const struct ptcp_message_info info = { .flow = 7, .ordered = true };
		const struct ptcp_part part = { data, sizeof(data) };

		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)(f->n_sent + i * 7);
		memcpy(data, &f->n_sent, 4);
		memcpy(data + 4, &p->now_us, 8);
		if (ptcp_message_send(p->end[0].a, &info, &part, 1, p->now_us) == 0)
			f->n_sent++;
		f->next_us += f->interval_us;
	}
	return f->next_us < f->until_us ? f->next_us : NEVER_US;
}

static void got_message(struct pair_end *end, const uint8_t *data, size_t n_bytes)
{
	struct flow *const f = end->user;
	uint32_t number;
	uint64_t sent_us;

	assert_int_equal(n_bytes, MESSAGE_BYTES);
	memcpy(&number, data, 4);
	memcpy(&sent_us, data + 4, 8);
	for (size_t i = 12; i < n_bytes; i++)
		assert_int_equal(data[i], (uint8_t)(number + i * 7));
	assert_true(number < ARRAY_SIZE(f->seen));
	assert_false(f->seen[number]);
	f->seen[number] = true;
	f->n_early += number > f->expected;
	f->n_got++;
	if (number >= f->expected)
		f->expected = number + 1;
	const uint64_t delay_us = pair.now_us - sent_us;
	f->n_late += delay_us > f->late_us;
	f->delay_max_us = max_u64(f->delay_max_us, delay_us);
}

static void start(uint64_t seed, struct pair_link link, bool parity)
{
	const struct ptcp_config config = { .parity = parity ? PTCP_PARITY_AUTO : PTCP_PARITY_OFF };

	pair_init(&pair, seed, &config);
	pair_link_set(&pair, 1, link);
	pair_path_add(&pair, 1, PTCP_PATH_DIRECT, 1472);
	memset(&flow, 0, sizeof(flow));
	pair.end[1].on_message = got_message;
	pair.end[1].user = &flow;
	assert_true(pair_establish(&pair));
}

static void run_flow(uint64_t interval_us, uint64_t for_us)
{
	flow.interval_us = interval_us;
	flow.next_us = pair.now_us;
	flow.until_us = pair.now_us + for_us;
	flow.late_us = 25000 + 20000;
	pair_run(&pair, for_us + 2 * US_PER_S, send_flow, &flow);
}

static const struct pair_link wan = { .delay_us = 25000,
				      .bytes_per_s = 12500000,
				      .queue_us = 50000 };

struct outcome {
	struct ptcp_stats sender, receiver;
	unsigned n_late;
};

static struct outcome run_with(unsigned loss_permille, bool parity, uint64_t delay_us)
{
	struct pair_link link = wan;
	struct outcome o;

	link.loss_permille = loss_permille;
	link.delay_us = delay_us;
	start(1, link, parity);
	run_flow(1000, 10 * US_PER_S);
	ptcp_get_stats(pair.end[0].a, &o.sender);
	ptcp_get_stats(pair.end[1].a, &o.receiver);
	o.n_late = flow.n_late;
	assert_int_equal(flow.n_got + o.sender.messages_dropped_queue + o.sender.messages_abandoned,
			 flow.n_sent);
	assert_int_equal(o.sender.send_memory_bytes, 0);
	assert_int_equal(o.receiver.receive_memory_bytes, 0);
	pair_fini(&pair);
	return o;
}

static void losses_are_repaired_before_a_round_trip_has_passed(void **state)
{
	static const unsigned permille[] = { 1, 10, 30, 100 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(permille); i++) {
		const struct outcome without = run_with(permille[i], false, 25000);
		const struct outcome with = run_with(permille[i], true, 25000);

		assert_int_equal(without.sender.parity_sent, 0);
		assert_true(with.sender.parity_sent > 0);
		assert_true(with.receiver.packets_rebuilt > 10);
		/* What fails is little, and so is what it costs. */
		assert_true(with.n_late < without.n_late / 3);
		assert_true(with.sender.bytes_resent < without.sender.bytes_resent / 3);
		assert_true(with.sender.parity_bytes_sent * 3 < with.sender.bytes_sent);
	}
}

/* Until a path has told that it loses nothing, parity is sent as if it did: once, and not for long.
 */
static void a_clean_path_carries_parity_at_its_start_alone(void **state)
{
	struct ptcp_stats early, late;

	(void)state;
	start(1, wan, true);
	run_flow(1000, US_PER_S);
	ptcp_get_stats(pair.end[0].a, &early);
	assert_in_range(early.parity_sent, 1, 500);
	assert_in_range(early.parity_bytes_sent, 1, early.bytes_sent / 6);
	run_flow(1000, 5 * US_PER_S);
	ptcp_get_stats(pair.end[0].a, &late);
	assert_int_equal(late.parity_sent, early.parity_sent);
	assert_int_equal(flow.n_got + late.messages_dropped_queue, flow.n_sent);
	pair_fini(&pair);
}

/* Of all bytes of the last of so many seconds, how many per mille are parity? */
static unsigned parity_permille(uint64_t interval_us, uint64_t n_seconds)
{
	struct pair_link link = wan;
	struct ptcp_stats before, after;

	link.loss_permille = 10;
	start(1, link, true);
	flow.interval_us = interval_us;
	flow.next_us = pair.now_us;
	flow.until_us = pair.now_us + n_seconds * US_PER_S;
	pair_run(&pair, (n_seconds - 1) * US_PER_S, send_flow, &flow);
	ptcp_get_stats(pair.end[0].a, &before);
	pair_run(&pair, US_PER_S, send_flow, &flow);
	ptcp_get_stats(pair.end[0].a, &after);
	pair_fini(&pair);
	return (unsigned)((after.parity_bytes_sent - before.parity_bytes_sent) * 1000 /
			  (after.bytes_sent - before.bytes_sent));
}

static void a_path_that_is_full_for_long_carries_less_parity(void **state)
{
	(void)state;
	/* 3 or 4 rows of about 110 instead of 3 of 40; where there is room, small blocks. */
	assert_in_range(parity_permille(250, 8), 25, 40);
	assert_true(parity_permille(1000, 8) > 95);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pattern_of_losses_of_a_small_block_is_solved),
		cmocka_unit_test(large_blocks_with_holes_and_sizes_that_differ_are_solved),
		cmocka_unit_test(a_row_is_what_the_specification_says),
		cmocka_unit_test(losses_are_repaired_before_a_round_trip_has_passed),
		cmocka_unit_test(a_clean_path_carries_parity_at_its_start_alone),
		cmocka_unit_test(a_path_that_is_full_for_long_carries_less_parity),
	};

	if (!ptcp_parity_available()) {
		print_message("1..0 # SKIP this build has no arithmetic for parity\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
