/* Paths, keys and other things that change while data flows. */
#include <inttypes.h>
#include "unit.h"
#include "ptcp_pair.h"
#include "ptcp_stream.h"

static struct pair pair;
static struct stream stream;

static const struct pair_link direct = { .delay_us = 10000, .bytes_per_s = 12500000 };
static const struct pair_link relay = { .delay_us = 40000, .bytes_per_s = 2500000 };

#define DIRECT 1
#define RELAY  2
#define MOVED  3

static void start(uint64_t seed, const struct ptcp_config *config)
{
	pair_init(&pair, seed, config);
	pair_link_set(&pair, DIRECT, direct);
	pair_link_set(&pair, RELAY, relay);
	pair_link_set(&pair, MOVED, direct);
}

static uint32_t active(int i)
{
	struct ptcp_stats stats;

	ptcp_get_stats(pair.end[i].a, &stats);
	return stats.active_path_id;
}

static struct ptcp_path_stats path_stats(int i, uint32_t path_id)
{
	struct ptcp_path_stats s = { 0 };

	for (unsigned n = 0; ptcp_get_path_stats(pair.end[i].a, n, &s); n++)
		if (s.path_id == path_id)
			return s;
	fail_msg("no path %u", path_id);
	return s;
}

static void a_direct_path_takes_over_from_the_relay_without_a_loss(void **state)
{
	struct ptcp_stats stats;

	(void)state;
	start(1, NULL);
	pair_path_add(&pair, RELAY, PTCP_PATH_RELAY, 1400);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 0, 1400, 6000, 4, true);
	pair_run(&pair, US_PER_S, stream_source, &stream);
	assert_int_equal(active(0), RELAY);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	pair_run(&pair, 500000, stream_source, &stream);
	assert_int_equal(active(0), DIRECT);
	assert_int_equal(active(1), DIRECT);
	pair_run(&pair, 5 * US_PER_S, stream_source, &stream);
	ptcp_get_stats(pair.end[0].a, &stats);
	if (stream.n_seen != 6000)
		fail_msg("%" PRIu64 " came, %" PRIu64 " abandoned, %" PRIu64 " dropped",
			 stream.n_seen, stats.messages_abandoned, stats.messages_dropped_queue);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

static void a_dead_path_is_left_in_about_a_second(void **state)
{
	(void)state;
	start(2, NULL);
	pair_path_add(&pair, RELAY, PTCP_PATH_RELAY, 1400);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 0, 1400, 100000, 4, true);
	pair_run(&pair, 2 * US_PER_S, stream_source, &stream);
	assert_int_equal(active(0), DIRECT);
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = true;
	pair_run(&pair, 1600000, stream_source, &stream);
	assert_int_equal(active(0), RELAY);
	const uint64_t seen = stream.n_seen;
	pair_run(&pair, US_PER_S, stream_source, &stream);
	assert_true(stream.n_seen > seen + 1000);
	/* And back again once it works. */
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = false;
	pair_run(&pair, 16 * US_PER_S, stream_source, &stream);
	assert_int_equal(active(0), DIRECT);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

static void a_vanished_peer_shows_within_fifteen_seconds(void **state)
{
	(void)state;
	start(3, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	pair_run(&pair, 7 * US_PER_S, NULL, NULL);
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = true;
	pair_run(&pair, 8 * US_PER_S, NULL, NULL);
	assert_true(pair.end[0].n_path_down >= 1);
	pair_run(&pair, 6 * US_PER_S, NULL, NULL);
	assert_int_equal(pair.end[0].n_all_down, 1);
	assert_int_equal(pair.end[0].n_closed, 0);
	/* It survives the outage. */
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = false;
	pair_run(&pair, 16 * US_PER_S, NULL, NULL);
	stream_start(&pair, &stream, 0, 500, 100, 1, true);
	pair_run(&pair, 2 * US_PER_S, stream_source, &stream);
	assert_int_equal(stream.n_seen, 100);
	/* For ever gone, it ends after the idle timeout. */
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = true;
	pair_run(&pair, 310 * US_PER_S, NULL, NULL);
	assert_int_equal(ptcp_assoc_state(pair.end[0].a), PTCP_CLOSED);
	assert_int_equal(pair.end[0].close_code, PTCP_CLOSE_IDLE_TIMEOUT);
	pair_fini(&pair);
}

static void the_server_follows_a_client_whose_address_changed(void **state)
{
	(void)state;
	start(4, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 1, 1400, 20000, 4, true);
	pair_run(&pair, US_PER_S, stream_source, &stream);
	/* The NAT gives the client a new mapping: the old one leads nowhere any more. */
	pair.links[0][DIRECT - 1].renumber = MOVED;
	pair.links[1][DIRECT - 1].cut = true;
	pair.links[1][MOVED - 1].renumber = DIRECT;
	const uint64_t seen = stream.n_seen;
	pair_run(&pair, 2 * US_PER_S, stream_source, &stream);
	assert_int_equal(pair.end[1].n_path_new, 1);
	assert_int_equal(active(1), MOVED);
	assert_true(stream.n_seen > seen + 5000);
	assert_int_equal(ptcp_path_add(pair.end[1].a, MOVED, PTCP_PATH_DIRECT, 1472, pair.now_us),
			 0);
	pair_run(&pair, US_PER_S, stream_source, &stream);
	assert_int_equal(path_stats(1, MOVED).mtu_bytes, 1472);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

static void a_removed_path_hands_over_what_was_in_flight(void **state)
{
	(void)state;
	start(5, NULL);
	pair_path_add(&pair, RELAY, PTCP_PATH_RELAY, 1400);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 0, 1400, 4000, 4, true);
	pair_run(&pair, 500000, stream_source, &stream);
	assert_int_equal(active(0), DIRECT);
	assert_int_equal(ptcp_path_remove(pair.end[0].a, DIRECT, pair.now_us), 0);
	assert_int_equal(active(0), RELAY);
	pair_run(&pair, 8 * US_PER_S, stream_source, &stream);
	assert_in_range(stream.n_seen, 3990, 4000);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

static void the_mtu_is_found_and_a_black_hole_is_left(void **state)
{
	(void)state;
	start(6, NULL);
	pair.links[0][DIRECT - 1].mtu_bytes = 1440;
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 8952);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 0, 9000, 100000, 4, true);
	pair_run(&pair, 2 * US_PER_S, stream_source, &stream);
	assert_int_equal(path_stats(0, DIRECT).mtu_bytes, 1432);
	assert_int_equal(path_stats(1, DIRECT).mtu_bytes, 8952);
	pair.links[0][DIRECT - 1].mtu_bytes = 1260;
	pair_run(&pair, 3 * US_PER_S, stream_source, &stream);
	assert_int_equal(path_stats(0, DIRECT).mtu_bytes, 1252);
	const uint64_t seen = stream.n_seen;
	pair_run(&pair, US_PER_S, stream_source, &stream);
	assert_true(stream.n_seen > seen + 500);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

static void keys_are_updated_under_traffic_in_both_directions(void **state)
{
	static struct stream back;
	const struct ptcp_config config = { .key_update_packets = 400 };
	struct ptcp_stats stats[2];
	uint64_t bad[2];

	(void)state;
	for (uint64_t seed = 1; seed <= 10; seed++) {
		start(seed, &config);
		pair.links[0][DIRECT - 1].reorder_permille = 50;
		pair.links[0][DIRECT - 1].reorder_us = 15000;
		pair.links[1][DIRECT - 1] = pair.links[0][DIRECT - 1];
		pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
		assert_true(pair_establish(&pair));
		pair_run(&pair, 100000, NULL, NULL);
		for (int i = 0; i < 2; i++) {
			ptcp_get_stats(pair.end[i].a, &stats[i]);
			bad[i] = stats[i].packets_bad; /* data that overtook the handshake */
		}
		stream_start(&pair, &stream, 0, 1400, 5000, 4, true);
		stream_start(&pair, &back, 1, 1400, 5000, 4, true);
		for (int i = 0; i < 60; i++) {
			pair_run(&pair, 50000, stream_source, &stream);
			pair_run(&pair, 50000, stream_source, &back);
		}
		for (int i = 0; i < 2; i++) {
			ptcp_get_stats(pair.end[i].a, &stats[i]);
			assert_true(stats[i].key_updates >= 3);
			assert_int_equal(stats[i].packets_bad, bad[i]);
		}
		assert_int_equal(stream.n_seen + back.n_seen, 10000);
		pair_fini(&pair);
	}
}

static void what_comes_twice_is_taken_once(void **state)
{
	struct ptcp_stats stats;

	(void)state;
	start(8, NULL);
	pair.links[0][DIRECT - 1].duplicate_permille = 1000;
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 0, 700, 3000, 4, false);
	pair_run(&pair, 3 * US_PER_S, stream_source, &stream);
	ptcp_get_stats(pair.end[1].a, &stats);
	assert_int_equal(stream.n_seen, 3000);
	assert_int_equal(stream.n_twice, 0);
	assert_true(stats.packets_duplicate + 20 >= stats.packets_received);
	pair_fini(&pair);
}

static void flipped_bits_are_counted_and_cost_only_a_repair(void **state)
{
	struct ptcp_stats stats;

	(void)state;
	for (uint64_t seed = 1; seed <= 10; seed++) {
		start(seed, NULL);
		pair.links[0][DIRECT - 1].corrupt_permille = 50;
		pair.links[1][DIRECT - 1].corrupt_permille = 50;
		pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
		assert_true(pair_establish(&pair));
		stream_start(&pair, &stream, 0, 3000, 1000, 4, true);
		pair_run(&pair, 4 * US_PER_S, stream_source, &stream);
		ptcp_get_stats(pair.end[1].a, &stats);
		assert_int_equal(ptcp_assoc_state(pair.end[1].a), PTCP_ESTABLISHED);
		assert_true(stats.packets_bad > 20);
		assert_in_range(stream.n_seen, 990, 1000);
		assert_int_equal(stream.n_twice + stream.n_wrong, 0);
		pair_fini(&pair);
	}
}

static void stale_messages_are_given_up(void **state)
{
	struct ptcp_stats stats;

	(void)state;
	start(9, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 0, 1400, 200000, 4, true);
	pair_run(&pair, US_PER_S, stream_source, &stream);
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = true;
	pair_run(&pair, 4 * US_PER_S, stream_source, &stream);
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = false;
	const uint64_t seen = stream.n_seen;
	pair_run(&pair, 4 * US_PER_S, stream_source, &stream);
	ptcp_get_stats(pair.end[0].a, &stats);
	assert_true(stats.messages_abandoned > 50);
	assert_true(stream.n_seen > seen + 3000);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

static void a_full_queue_blocks_and_tells_when_there_is_room(void **state)
{
	static const uint8_t data[PTCP_MESSAGE_BYTES_MAX];
	const struct ptcp_message_info info = { .flow = 1 };
	const struct ptcp_part part = { data, sizeof(data) };
	const struct ptcp_part large = { data, sizeof(data) }, one = { data, 1 };
	const struct ptcp_part too_large[] = { large, one };
	int r, n = 0;

	(void)state;
	start(10, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_int_equal(ptcp_message_send(pair.end[0].a, &info, &part, 1, pair.now_us), -ENOTCONN);
	assert_true(pair_establish(&pair));
	assert_int_equal(ptcp_message_send(pair.end[0].a, &info, too_large, 2, pair.now_us),
			 -EMSGSIZE);
	while ((r = ptcp_message_send(pair.end[0].a, &info, &part, 1, pair.now_us)) == 0)
		n++;
	assert_int_equal(r, PTCP_BLOCKED);
	assert_in_range(n, 16, 17);
	assert_false(ptcp_message_room(pair.end[0].a));
	assert_null(ptcp_message_reserve(pair.end[0].a));
	pair_run(&pair, US_PER_S, NULL, NULL);
	assert_int_equal(pair.end[0].n_room, 1);
	uint8_t *room = ptcp_message_reserve(pair.end[0].a);
	assert_non_null(room);
	memset(room, 7, 40000);
	assert_int_equal(ptcp_message_commit(pair.end[0].a, &info, 40000, pair.now_us), 0);
	room = ptcp_message_reserve(pair.end[0].a);
	assert_int_equal(ptcp_message_commit(pair.end[0].a, &info, 60, pair.now_us), 0);
	const uint64_t before = pair.end[1].message_bytes;
	pair_run(&pair, US_PER_S, NULL, NULL);
	assert_int_equal(pair.end[1].message_bytes - before, 40060);
	pair_fini(&pair);
}

static void an_attacker_who_copies_packets_cannot_steal_the_path(void **state)
{
	(void)state;
	start(11, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 1, 1400, 20000, 4, true);
	pair_run(&pair, US_PER_S, stream_source, &stream);
	/* Some of the client's packets arrive from elsewhere, where no answer leads back. */
	pair.links[1][MOVED - 1].cut = true;
	for (int i = 0; i < 200; i++) {
		pair.links[0][DIRECT - 1].renumber = i % 4 == 0 ? MOVED : 0;
		pair_run(&pair, 2000, stream_source, &stream);
		assert_int_equal(active(1), DIRECT);
	}
	const struct ptcp_path_stats moved = path_stats(1, MOVED);
	assert_int_equal(moved.state == PTCP_PATH_UP, 0);
	assert_true(moved.bytes_sent <= 3 * moved.bytes_received);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_direct_path_takes_over_from_the_relay_without_a_loss),
		cmocka_unit_test(a_dead_path_is_left_in_about_a_second),
		cmocka_unit_test(a_vanished_peer_shows_within_fifteen_seconds),
		cmocka_unit_test(the_server_follows_a_client_whose_address_changed),
		cmocka_unit_test(a_removed_path_hands_over_what_was_in_flight),
		cmocka_unit_test(the_mtu_is_found_and_a_black_hole_is_left),
		cmocka_unit_test(keys_are_updated_under_traffic_in_both_directions),
		cmocka_unit_test(what_comes_twice_is_taken_once),
		cmocka_unit_test(flipped_bits_are_counted_and_cost_only_a_repair),
		cmocka_unit_test(stale_messages_are_given_up),
		cmocka_unit_test(a_full_queue_blocks_and_tells_when_there_is_room),
		cmocka_unit_test(an_attacker_who_copies_packets_cannot_steal_the_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
