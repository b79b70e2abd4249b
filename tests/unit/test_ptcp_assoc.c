/* The association over links that delay, lose, reorder and duplicate. */
#include <inttypes.h>
#include "unit.h"
#include "ptcp_pair.h"
#include "ptcp_stream.h"

static struct pair pair; /* large; one per test at a time */
static struct stream stream;

static const struct pair_link lan = { .delay_us = 50 };
static const struct pair_link wan = { .delay_us = 25000,
				      .bytes_per_s = 12500000,
				      .queue_us = 50000 };

static void start(uint64_t seed, struct pair_link link)
{
	pair_init(&pair, seed, NULL);
	pair_link_set(&pair, 1, link);
	pair_path_add(&pair, 1, PTCP_PATH_DIRECT, 1472);
}

static void the_handshake_completes_in_one_and_a_half_round_trips(void **state)
{
	(void)state;
	start(1, wan);
	pair_run(&pair, 60000, NULL, NULL);
	assert_int_equal(pair.end[0].n_established, 1);
	assert_int_equal(pair.end[1].n_established, 0);
	pair_run(&pair, 30000, NULL, NULL);
	assert_int_equal(pair.end[1].n_established, 1);
	pair_fini(&pair);
}

static void the_handshake_survives_a_third_of_packets_lost(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct pair_link link = wan;

		link.loss_permille = 300;
		link.reorder_permille = 200;
		link.reorder_us = 20000;
		link.duplicate_permille = 100;
		start(seed, link);
		if (!pair_establish(&pair))
			fail_msg("run again with seed %" PRIu64, seed);
		pair_fini(&pair);
	}
}

static void a_refused_handshake_is_told_to_the_peer(void **state)
{
	(void)state;
	start(1, wan);
	pair.end[1].tls.refuse = true;
	pair_run(&pair, 2 * US_PER_S, NULL, NULL);
	assert_int_equal(ptcp_assoc_state(pair.end[0].a), PTCP_CLOSED);
	assert_int_equal(ptcp_assoc_state(pair.end[1].a), PTCP_CLOSED);
	assert_int_equal(pair.end[0].n_closed, 1);
	assert_true(pair.end[0].closed_by_peer);
	assert_int_equal(pair.end[0].close_code, PTCP_CLOSE_HANDSHAKE_FAILED);
	pair_fini(&pair);
}

static void nobody_there_ends_in_a_handshake_timeout(void **state)
{
	struct pair_link link = wan;

	(void)state;
	link.cut = true;
	start(1, link);
	pair_run(&pair, 20 * US_PER_S, NULL, NULL);
	assert_int_equal(ptcp_assoc_state(pair.end[0].a), PTCP_CLOSED);
	assert_int_equal(pair.end[0].close_code, PTCP_CLOSE_HANDSHAKE_TIMEOUT);
	assert_true(pair.links[0][0].n_sent < 40);
	pair_fini(&pair);
}

/* ---- the client's first flight came with the rendezvous ---- */

static void start_early(uint64_t seed, struct pair_link link)
{
	const struct ptcp_config config = { .early = true };

	pair_init(&pair, seed, &config);
	pair_link_set(&pair, 1, link);
	pair_path_add(&pair, 1, PTCP_PATH_RELAY_STREAM, 1472);
	pair_run(&pair, 0, NULL, NULL);
}

static void send_one(int from)
{
	static const uint8_t text[] = "first";
	const struct ptcp_part part = { text, sizeof(text) };
	const struct ptcp_message_info info = { .flow = 1 };

	assert_int_equal(ptcp_message_send(pair.end[from].a, &info, &part, 1, pair.now_us), 0);
}

static void an_early_server_is_answered_after_one_round_trip(void **state)
{
	(void)state;
	start_early(1, wan);
	assert_int_equal(pair.end[1].n_established, 1);
	assert_int_equal(pair.end[1].n_verified, 0);
	send_one(1);
	pair_run(&pair, 27000, NULL, NULL);
	assert_int_equal(pair.end[0].n_verified, 1);
	assert_int_equal(pair.end[0].n_messages, 1);
	send_one(0);
	pair_run(&pair, 27000, NULL, NULL);
	assert_int_equal(pair.end[1].n_verified, 1);
	assert_int_equal(pair.end[1].n_messages, 1);
	pair_run(&pair, 2 * US_PER_S, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pair.end[i].n_established, 1);
		assert_int_equal(pair.end[i].n_messages, 1);
	}
	pair_fini(&pair);
}

static void what_an_early_server_sends_survives_a_bad_link(void **state)
{
	uint64_t n_early = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct pair_link link = wan;

		link.loss_permille = 300;
		link.reorder_permille = 200;
		link.reorder_us = 20000;
		link.duplicate_permille = 100;
		start_early(seed, link);
		for (int i = 0; i < 20; i++)
			send_one(1);
		if (!pair_establish(&pair))
			fail_msg("run again with seed %" PRIu64, seed);
		pair_link_set(&pair, 1, wan);
		pair_run(&pair, 5 * US_PER_S, NULL, NULL);
		for (int i = 0; i < 20; i++)
			send_one(0);
		pair_run(&pair, 5 * US_PER_S, NULL, NULL);
		assert_in_range(pair.end[0].n_messages, 0, 20); /* none twice */
		n_early += pair.end[0].n_messages;
		assert_int_equal(pair.end[1].n_messages, 20);
		assert_int_equal(pair.end[0].n_verified, 1);
		assert_int_equal(pair.end[1].n_verified, 1);
		pair_fini(&pair);
	}
	/* Repair is bounded in time, so where the flight itself was lost again and again, some are
	 * given up. */
	assert_in_range(n_early, 200 * 20 * 9 / 10, 200 * 20);
}

static void nothing_is_delivered_from_an_early_server_that_is_refused(void **state)
{
	(void)state;
	start_early(1, wan);
	pair.end[0].tls.refuse = true;
	send_one(1);
	pair_run(&pair, 2 * US_PER_S, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ptcp_assoc_state(pair.end[i].a), PTCP_CLOSED);
		assert_int_equal(pair.end[i].close_code, PTCP_CLOSE_HANDSHAKE_FAILED);
		assert_int_equal(pair.end[i].n_verified, 0);
		assert_int_equal(pair.end[i].n_messages, 0);
	}
	assert_true(pair.end[1].closed_by_peer);
	pair_fini(&pair);
}

static void an_early_server_that_refuses_has_taken_nothing(void **state)
{
	(void)state;
	start_early(1, wan);
	pair.end[1].tls.refuse = true;
	send_one(1);
	pair_run(&pair, 30000, NULL, NULL);
	/* The client knows no better yet. */
	assert_int_equal(pair.end[0].n_verified, 1);
	send_one(0);
	pair_run(&pair, 2 * US_PER_S, NULL, NULL);
	for (int i = 0; i < 2; i++)
		assert_int_equal(ptcp_assoc_state(pair.end[i].a), PTCP_CLOSED);
	assert_int_equal(pair.end[1].n_messages, 0);
	assert_int_equal(pair.end[1].n_verified, 0);
	assert_true(pair.end[0].closed_by_peer);
	assert_int_equal(pair.end[0].close_code, PTCP_CLOSE_HANDSHAKE_FAILED);
	pair_fini(&pair);
}

static void an_early_server_that_nobody_answers_times_out(void **state)
{
	struct pair_link link = wan;

	(void)state;
	link.cut = true;
	start_early(1, link);
	send_one(1);
	pair_run(&pair, 20 * US_PER_S, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ptcp_assoc_state(pair.end[i].a), PTCP_CLOSED);
		assert_int_equal(pair.end[i].close_code, PTCP_CLOSE_HANDSHAKE_TIMEOUT);
	}
	assert_true(pair.links[1][0].n_sent < 100);
	assert_int_equal(pair.links[0][0].n_sent, 0);
	pair_fini(&pair);
}

static void an_early_server_is_on_the_last_path_until_others_answer(void **state)
{
	const struct ptcp_config config = { .early = true };

	(void)state;
	pair_init(&pair, 1, &config);
	pair_link_set(&pair, 1, wan);
	pair_link_set(&pair, 2, lan);
	pair_path_add(&pair, 1, PTCP_PATH_RELAY_STREAM, 1472);
	pair_path_add(&pair, 2, PTCP_PATH_DIRECT, 1472);
	pair_run(&pair, 0, NULL, NULL);
	struct ptcp_stats stats;
	ptcp_get_stats(pair.end[1].a, &stats);
	assert_int_equal(stats.active_path_id, 1);
	send_one(1);
	pair_run(&pair, US_PER_S, NULL, NULL);
	assert_int_equal(pair.end[0].n_messages, 1);
	for (int i = 0; i < 2; i++) {
		ptcp_get_stats(pair.end[i].a, &stats);
		assert_int_equal(stats.active_path_id, 2);
	}
	pair_fini(&pair);
}

static void messages_of_all_sizes_arrive_whole_and_once(void **state)
{
	static const size_t sizes[] = {
		12, 40, 200, 1170, 1175, 1180, 1190, 1400, 1500, 9000, PTCP_MESSAGE_BYTES_MAX
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		start(i + 1, lan);
		assert_true(pair_establish(&pair));
		stream_start(&pair, &stream, (int)(i % 2), sizes[i], 2000, 4, i % 3 != 0);
		pair_run(&pair, 5 * US_PER_S, stream_source, &stream);
		assert_int_equal(stream.n_seen, 2000);
		assert_int_equal(stream.n_twice + stream.n_wrong + stream.n_disorder, 0);
		pair_fini(&pair);
	}
}

static void losses_are_repaired_and_order_is_kept(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct pair_link link = wan;
		struct ptcp_stats stats;

		link.loss_permille = 30;
		link.reorder_permille = 10;
		link.reorder_us = 3000;
		link.duplicate_permille = 10;
		start(seed, link);
		assert_true(pair_establish(&pair));
		stream_start(&pair, &stream, 0, 1400, 5000, 8, true);
		pair_run(&pair, 20 * US_PER_S, stream_source, &stream);
		ptcp_get_stats(pair.end[0].a, &stats);
		/* A few may come too late for their turn or be given up, never wrong or twice. */
		if (stream.n_seen + stats.messages_abandoned + stats.messages_dropped_queue <
			    5000 ||
		    stream.n_seen < 4950 || stream.n_twice + stream.n_wrong > 0 ||
		    stream.n_disorder > 50)
			fail_msg("seed %" PRIu64 ": %" PRIu64 " came, %" PRIu64 " twice, %" PRIu64
				 " wrong, %" PRIu64 " late; %" PRIu64 " abandoned, %" PRIu64
				 " dropped",
				 seed, stream.n_seen, stream.n_twice, stream.n_wrong,
				 stream.n_disorder, stats.messages_abandoned,
				 stats.messages_dropped_queue);
		pair_fini(&pair);
	}
}

static void a_ping_is_answered_with_its_round_trip(void **state)
{
	(void)state;
	start(1, wan);
	assert_true(pair_establish(&pair));
	assert_int_equal(ptcp_ping(pair.end[0].a, 77, pair.now_us), 0);
	pair_run(&pair, 100000, NULL, NULL);
	assert_int_equal(pair.end[0].n_pongs, 1);
	assert_in_range(pair.end[0].pong_rtt_us, 50000, 52000);
	pair_fini(&pair);
}

static void a_close_reaches_the_peer_and_both_end(void **state)
{
	(void)state;
	start(1, wan);
	assert_true(pair_establish(&pair));
	assert_int_equal(ptcp_assoc_close(pair.end[0].a, 99, pair.now_us), 0);
	assert_int_equal(ptcp_assoc_close(pair.end[0].a, 99, pair.now_us), -EALREADY);
	pair_run(&pair, 60000, NULL, NULL);
	assert_int_equal(ptcp_assoc_state(pair.end[0].a), PTCP_CLOSED);
	assert_int_equal(ptcp_assoc_state(pair.end[1].a), PTCP_CLOSED);
	assert_true(pair.end[1].closed_by_peer);
	assert_int_equal(pair.end[1].close_code, 99);
	assert_int_equal(ptcp_deadline_us(pair.end[0].a), NEVER_US);
	pair_fini(&pair);
}

static void burst(struct ptcp_memory *memory)
{
	static uint8_t text[60000];
	const struct ptcp_part part = { text, sizeof(text) };
	const struct ptcp_message_info info = { .flow = 7, .ordered = true };
	struct ptcp_stats before, after;

	ptcp_get_stats(pair.end[1].a, &before);
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(ptcp_message_send(pair.end[0].a, &info, &part, 1, pair.now_us), 0);
	assert_true(memory->held_bytes > 12 * sizeof(text));
	pair_run(&pair, 500 * US_PER_MS, NULL, NULL);
	ptcp_get_stats(pair.end[1].a, &after);
	assert_int_equal(after.messages_delivered - before.messages_delivered, 12);
}

static void memory_of_a_burst_is_given_back_soon(void **state)
{
	struct ptcp_memory memory = { .limit_bytes = 100000000 };
	const struct ptcp_config config = { .memory = &memory };
	struct ptcp_stats stats;

	(void)state;
	pair_init(&pair, 1, &config);
	pair_link_set(&pair, 1, lan);
	pair_path_add(&pair, 1, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	for (unsigned i = 0; i < 3; i++) {
		burst(&memory);
		pair_run(&pair, 3 * US_PER_S, NULL, NULL);
		assert_int_equal(memory.held_bytes, 0);
		ptcp_get_stats(pair.end[0].a, &stats);
		assert_int_equal(stats.rests, i + 1);
	}
	pair_fini(&pair);
}

static void an_idle_association_sends_next_to_nothing(void **state)
{
	(void)state;
	start(1, wan);
	assert_true(pair_establish(&pair));
	pair_run(&pair, 10 * US_PER_S, NULL, NULL);
	const uint64_t before = pair.links[0][0].n_sent + pair.links[1][0].n_sent;
	pair_run(&pair, 60 * US_PER_S, NULL, NULL);
	/* A keepalive and its answer every 25 s, of each end; one liveness ping before it is quiet.
	 */
	assert_in_range(pair.links[0][0].n_sent + pair.links[1][0].n_sent - before, 4, 16);
	assert_int_equal(ptcp_assoc_state(pair.end[0].a), PTCP_ESTABLISHED);
	pair_fini(&pair);
}

/* As rarely as the NAT allows: neither keepalives nor the look whether the peer is there come more
 * often; but a path that has just begun is not left alone for so long. */
static void an_idle_path_is_left_alone_for_as_long_as_it_may(void **state)
{
	uint64_t before;

	(void)state;
	start(1, wan);
	assert_true(pair_establish(&pair));
	for (int i = 0; i < 2; i++) {
		struct ptcp_path_stats stats;

		assert_true(ptcp_get_path_stats(pair.end[i].a, 0, &stats));
		assert_int_equal(
			ptcp_path_set_keepalive(pair.end[i].a, stats.path_id, 100 * US_PER_S), 0);
	}
	/* What its first packets did is no stream to a NAT yet. */
	before = pair.links[0][0].n_sent + pair.links[1][0].n_sent;
	pair_run(&pair, 20 * US_PER_S, NULL, NULL);
	assert_true(pair.links[0][0].n_sent + pair.links[1][0].n_sent > before);
	pair_run(&pair, 300 * US_PER_S, NULL, NULL);
	before = pair.links[0][0].n_sent + pair.links[1][0].n_sent;
	pair_run(&pair, 600 * US_PER_S, NULL, NULL);
	/* A question and its answer in 100 s; with 25 s it would be some 50. */
	assert_in_range(pair.links[0][0].n_sent + pair.links[1][0].n_sent - before, 6, 30);
	assert_int_equal(ptcp_assoc_state(pair.end[0].a), PTCP_ESTABLISHED);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_handshake_completes_in_one_and_a_half_round_trips),
		cmocka_unit_test(the_handshake_survives_a_third_of_packets_lost),
		cmocka_unit_test(a_refused_handshake_is_told_to_the_peer),
		cmocka_unit_test(nobody_there_ends_in_a_handshake_timeout),
		cmocka_unit_test(an_early_server_is_answered_after_one_round_trip),
		cmocka_unit_test(what_an_early_server_sends_survives_a_bad_link),
		cmocka_unit_test(nothing_is_delivered_from_an_early_server_that_is_refused),
		cmocka_unit_test(an_early_server_that_refuses_has_taken_nothing),
		cmocka_unit_test(an_early_server_that_nobody_answers_times_out),
		cmocka_unit_test(an_early_server_is_on_the_last_path_until_others_answer),
		cmocka_unit_test(messages_of_all_sizes_arrive_whole_and_once),
		cmocka_unit_test(losses_are_repaired_and_order_is_kept),
		cmocka_unit_test(a_ping_is_answered_with_its_round_trip),
		cmocka_unit_test(a_close_reaches_the_peer_and_both_end),
		cmocka_unit_test(an_idle_association_sends_next_to_nothing),
		cmocka_unit_test(an_idle_path_is_left_alone_for_as_long_as_it_may),
		cmocka_unit_test(memory_of_a_burst_is_given_back_soon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
