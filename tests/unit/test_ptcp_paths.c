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
	struct ptcp_stats stats;

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
	/* What was in flight when it died was sent again, old as it was. */
	ptcp_get_stats(pair.end[0].a, &stats);
	assert_in_range(stats.messages_abandoned, 0, 20);
	/* And back again once it works. */
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = false;
	pair_run(&pair, 16 * US_PER_S, stream_source, &stream);
	assert_int_equal(active(0), DIRECT);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

/* A ping each 10 ms: far from filling the window, and never quiet for as long as a probe waits. */
static uint64_t thin_stream(struct pair *p, void *user)
{
	uint64_t *due_us = user;

	if (p->now_us >= *due_us) {
		ptcp_ping(p->end[0].a, 1, p->now_us);
		*due_us = p->now_us + 10 * US_PER_MS;
	}
	return *due_us;
}

/* Two paths, the direct one in use by a thin stream; then that one leads nowhere any more. */
static void start_and_cut_direct(uint64_t seed, uint64_t *due_us)
{
	start(seed, NULL);
	pair_path_add(&pair, RELAY, PTCP_PATH_RELAY, 1472);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	pair_run(&pair, 2 * US_PER_S, thin_stream, due_us);
	assert_int_equal(active(0), DIRECT);
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = true;
}

static void a_thin_stream_too_shows_that_its_path_is_dead(void **state)
{
	uint64_t due_us = 0;

	(void)state;
	start_and_cut_direct(12, &due_us);
	pair_run(&pair, 1200 * US_PER_MS, thin_stream, &due_us);
	assert_int_equal(active(0), RELAY);
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
	/* At once, not only when the old path has been silent for long. */
	pair_run(&pair, 100000, stream_source, &stream);
	assert_int_equal(active(1), MOVED);
	pair_run(&pair, 1900000, stream_source, &stream);
	assert_int_equal(pair.end[1].n_path_new, 1);
	assert_true(stream.n_seen > seen + 5000);
	assert_int_equal(ptcp_path_add(pair.end[1].a, MOVED, PTCP_PATH_DIRECT, 1472, pair.now_us),
			 0);
	pair_run(&pair, US_PER_S, stream_source, &stream);
	assert_int_equal(path_stats(1, MOVED).mtu_bytes, 1472);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

/* The machine moved: the relay is there again, and nobody knows yet whether the old path is. */
static void a_path_in_doubt_is_left_before_it_is_given_up(void **state)
{
	uint64_t due_us = 0;

	(void)state;
	start_and_cut_direct(14, &due_us);
	pair_run(&pair, 100 * US_PER_MS, thin_stream, &due_us);
	assert_int_equal(ptcp_path_check(pair.end[0].a, DIRECT, pair.now_us), 0);
	assert_int_equal(ptcp_path_check(pair.end[0].a, RELAY, pair.now_us), 0);
	pair_run(&pair, 400 * US_PER_MS, thin_stream, &due_us);
	assert_int_equal(active(0), RELAY);
	assert_int_equal(pair.end[0].n_path_down, 0);
	/* The peer, whom nobody told, sees packets elsewhere and none where it sends. */
	pair_run(&pair, 800 * US_PER_MS, thin_stream, &due_us);
	assert_int_equal(active(1), RELAY);
	pair.links[0][DIRECT - 1].cut = pair.links[1][DIRECT - 1].cut = false;
	pair_run(&pair, 2 * US_PER_S, thin_stream, &due_us);
	assert_int_equal(active(0), DIRECT);
	assert_int_equal(active(1), DIRECT);
	pair_fini(&pair);
}

static void a_lost_challenge_is_no_reason_to_leave_a_path_that_works(void **state)
{
	uint64_t due_us = 0, n_switched;

	(void)state;
	start(15, NULL);
	pair_path_add(&pair, RELAY, PTCP_PATH_RELAY, 1472);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	pair_run(&pair, 2 * US_PER_S, thin_stream, &due_us);
	n_switched = pair.end[0].n_switched;
	pair.links[0][DIRECT - 1].loss_permille = pair.links[1][DIRECT - 1].loss_permille = 200;
	for (int i = 0; i < 100; i++) {
		ptcp_path_check(pair.end[0].a, DIRECT, pair.now_us);
		pair_run(&pair, 310 * US_PER_MS, thin_stream, &due_us);
	}
	assert_int_equal(pair.end[0].n_switched, n_switched);
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
	/* Not for ever: what fell has mostly a way back. */
	pair.links[0][DIRECT - 1].mtu_bytes = 0;
	pair_run(&pair, 25 * US_PER_S, stream_source, &stream);
	assert_int_equal(path_stats(0, DIRECT).mtu_bytes, 8952);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

/* Such a probe is lost too, but that is no news. */
static void what_the_system_refuses_is_not_probed_again_at_once(void **state)
{
	(void)state;
	start(26, NULL);
	pair.links[0][DIRECT - 1].mtu_bytes = 1472;
	pair.links[0][DIRECT - 1].refuses = true;
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 8952);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 0, 9000, 100000, 4, true);
	pair_run(&pair, 9 * US_PER_S, stream_source, &stream);
	assert_int_equal(path_stats(0, DIRECT).mtu_bytes, 1472);
	assert_int_equal(pair.links[0][DIRECT - 1].n_refused, 1);
	/* After the pause, once more. */
	pair_run(&pair, 6 * US_PER_S, stream_source, &stream);
	assert_int_equal(pair.links[0][DIRECT - 1].n_refused, 2);
	pair.links[0][DIRECT - 1].mtu_bytes = 8972;
	pair_run(&pair, 30 * US_PER_S, stream_source, &stream);
	assert_int_equal(path_stats(0, DIRECT).mtu_bytes, 8952);
	assert_int_equal(stream.n_twice + stream.n_wrong, 0);
	pair_fini(&pair);
}

/* A path that carries nothing large needs no more than it has; a change of the network is news. */
static void an_idle_path_looks_for_a_larger_mtu_only_when_the_network_changes(void **state)
{
	uint64_t n_sent;

	(void)state;
	start(16, NULL);
	pair.links[0][DIRECT - 1].mtu_bytes = pair.links[1][DIRECT - 1].mtu_bytes = 1440;
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 8952);
	assert_true(pair_establish(&pair));
	pair_run(&pair, 60 * US_PER_S, NULL, NULL);
	assert_int_equal(path_stats(0, DIRECT).mtu_bytes, 1432);
	n_sent = pair.links[0][DIRECT - 1].n_sent;
	pair.links[0][DIRECT - 1].mtu_bytes = pair.links[1][DIRECT - 1].mtu_bytes = 0;
	pair_run(&pair, 1200 * US_PER_S, NULL, NULL);
	assert_int_equal(path_stats(0, DIRECT).mtu_bytes, 1432);
	/* Keepalives and their answers alone. */
	assert_in_range(pair.links[0][DIRECT - 1].n_sent - n_sent, 0, 2 * 1200 / 25 + 2);
	ptcp_path_check(pair.end[0].a, DIRECT, pair.now_us);
	pair_run(&pair, 2 * US_PER_S, NULL, NULL);
	assert_int_equal(path_stats(0, DIRECT).mtu_bytes, 8952);
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

static void a_full_queue_gives_way_to_what_comes(void **state)
{
	static const uint8_t data[PTCP_MESSAGE_BYTES_MAX];
	const struct ptcp_message_info info = { .flow = 1 };
	const struct ptcp_part part = { data, sizeof(data) };
	const struct ptcp_part large = { data, sizeof(data) }, one = { data, 1 };
	const struct ptcp_part too_large[] = { large, one };
	struct ptcp_stats stats;
	int n = 0;

	(void)state;
	start(10, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_int_equal(ptcp_message_send(pair.end[0].a, &info, &part, 1, pair.now_us), -ENOTCONN);
	assert_true(pair_establish(&pair));
	assert_int_equal(ptcp_message_send(pair.end[0].a, &info, too_large, 2, pair.now_us),
			 -EMSGSIZE);
	/* Of what was not sent yet the oldest gives way. */
	while (ptcp_message_room(pair.end[0].a)) {
		assert_int_equal(ptcp_message_send(pair.end[0].a, &info, &part, 1, pair.now_us), 0);
		assert_true(++n < 1000);
	}
	assert_int_equal(n, 383);
	for (int i = 0; i < 10; i++)
		assert_int_equal(ptcp_message_send(pair.end[0].a, &info, &part, 1, pair.now_us), 0);
	ptcp_get_stats(pair.end[0].a, &stats);
	assert_int_equal(stats.messages_dropped_full, 10);
	assert_int_equal(stats.messages_dropped_queue, stats.messages_dropped_full);
	assert_true(stats.send_queue_bytes <= 24 * 1024 * 1024);
	pair_run(&pair, 3 * US_PER_S, NULL, NULL);
	assert_true(ptcp_message_room(pair.end[0].a));
	assert_int_equal(pair.end[0].n_room, 0);
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

static void one_copied_packet_is_answered_with_no_more_than_three_times_its_size(void **state)
{
	(void)state;
	start(12, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	pair_run(&pair, US_PER_S, NULL, NULL);
	pair.links[1][MOVED - 1].cut = true;
	pair.links[0][DIRECT - 1].renumber = MOVED;
	assert_int_equal(ptcp_ping(pair.end[0].a, 1, pair.now_us), 0);
	pair_run(&pair, 15000, NULL, NULL);
	pair.links[0][DIRECT - 1].renumber = 0;
	pair_run(&pair, 100 * US_PER_S, NULL, NULL);
	const struct ptcp_path_stats moved = path_stats(1, MOVED);
	assert_true(moved.bytes_received > 0 && moved.bytes_sent > 0);
	assert_true(moved.bytes_sent <= 3 * moved.bytes_received);
	pair_fini(&pair);
}

static void a_lost_tail_is_sent_again_by_the_probe_timeout_itself(void **state)
{
	(void)state;
	start(13, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 0, 500, 200, 1, true);
	pair_run(&pair, US_PER_S, stream_source, &stream);
	assert_int_equal(stream.n_seen, 200);
	pair.links[0][DIRECT - 1].cut = true;
	stream.total = 201;
	pair_run(&pair, 1000, stream_source, &stream);
	pair.links[0][DIRECT - 1].cut = false;
	/* One probe timeout and one way; a bare ping would cost a round trip more. */
	const uint64_t pto_us = path_stats(0, DIRECT).srtt_us + 4 * path_stats(0, DIRECT).rttvar_us;
	pair_run(&pair, max_u64(pto_us, 21000) + 5000 + 13000, stream_source, &stream);
	assert_int_equal(stream.n_seen, 201);
	pair_fini(&pair);
}

/* A packet with these frames, sealed as the client would. */
static int forge(const uint8_t *frames, size_t n_bytes, bool is_long)
{
	const struct ptcp_crypto c = pair_null_cipher(&pair.end[0].tls);
	static uint32_t pn;
	uint8_t packet[200];
	struct writer w = writer_over(packet, sizeof(packet));

	writer_u8(&w, is_long ? 0xc2 : 0x40);
	for (int i = 0; i < 8; i++)
		writer_u8(&w, 0xa1);
	for (int i = 0; is_long && i < 8; i++)
		writer_u8(&w, 0xa0);
	writer_u32(&w, 1000 + pn);
	const size_t header_bytes = w.used_bytes;
	writer_bytes(&w, frames, n_bytes);
	assert_int_equal(c.seal(c.ctx, is_long ? PTCP_EPOCH_HANDSHAKE : PTCP_EPOCH_DATA, 0,
				1000 + pn++, packet, header_bytes, packet + header_bytes, n_bytes),
			 0);
	return ptcp_input(pair.end[1].a, DIRECT, packet, w.used_bytes + PTCP_TAG_BYTES, 0,
			  pair.now_us);
}

static void what_the_specification_forbids_closes_the_association(void **state)
{
	static const struct {
		const char *what;
		uint8_t frames[16];
		size_t n_bytes;
		bool is_long, good;
	} cases[] = {
		{ "padding", { 0, 0, 0 }, 3, false, true },
		{ "ping", { 1, 0, 0, 0, 1 }, 5, false, true },
		{ "cut ping", { 1, 0, 0 }, 3, false, false },
		{ "ack of what was never sent", { 3, 0x7f, 0xff, 0, 0, 0 }, 6, false, false },
		{ "ack below zero", { 3, 1, 0, 0, 2 }, 5, false, false },
		{ "unknown frame", { 0x0b }, 1, false, false },
		{ "unknown frame", { 0x1f }, 1, false, false },
		{ "unknown frame", { 0xff }, 1, false, false },
		{ "handshake in data", { 5, 0, 0, 0 }, 4, false, false },
		{ "ping in handshake", { 1, 0, 0, 0, 1 }, 5, true, false },
		{ "handshake of nothing", { 5, 0, 0, 0 }, 4, true, true },
		{ "handshake too far", { 5, 0, 0x80, 1, 0, 0, 1, 7 }, 8, true, false },
		{ "handshake acked too far", { 5, 0x7f, 0xff, 0, 0 }, 5, true, false },
		{ "done from a client", { 6 }, 1, false, false },
		{ "empty message", { 0x10, 0, 0, 0, 9 }, 5, false, false },
		{ "message", { 0x10, 0, 0, 0, 9, 1 }, 6, false, true },
		{ "lane 0", { 0x11, 0, 0, 0, 9, 0, 0, 0, 1 }, 9, false, false },
		{ "cut challenge", { 7, 1, 2, 3 }, 4, false, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		start(14, NULL);
		pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
		assert_true(pair_establish(&pair));
		pair_run(&pair, 100000, NULL, NULL);
		const int r = forge(cases[i].frames, cases[i].n_bytes, cases[i].is_long);
		const bool closed = ptcp_assoc_state(pair.end[1].a) != PTCP_ESTABLISHED;
		if (r != (cases[i].good ? 0 : -EBADMSG) || closed == cases[i].good)
			fail_msg("%s: result %d, state %s", cases[i].what, r,
				 ptcp_state_name(ptcp_assoc_state(pair.end[1].a)));
		pair_run(&pair, 100000, NULL, NULL);
		if (!cases[i].good) {
			assert_int_equal(pair.end[1].close_code, PTCP_CLOSE_PROTOCOL);
			assert_int_equal(pair.end[0].close_code, PTCP_CLOSE_PROTOCOL);
			assert_true(pair.end[0].closed_by_peer);
		}
		pair_fini(&pair);
	}
}

static void a_close_without_a_path_ends_at_once(void **state)
{
	(void)state;
	start(15, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	assert_int_equal(ptcp_path_remove(pair.end[0].a, DIRECT, pair.now_us), 0);
	assert_int_equal(ptcp_assoc_close(pair.end[0].a, 64, pair.now_us), 0);
	pair_run(&pair, 1000, NULL, NULL);
	assert_int_equal(ptcp_assoc_state(pair.end[0].a), PTCP_CLOSED);
	pair_fini(&pair);
}

/* One way works, so that the peer's packets come all the time; then the other way comes back. */
static void a_path_that_is_heard_but_down_is_challenged_calmly(void **state)
{
	(void)state;
	start(16, NULL);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	for (int i = 0; i < 2; i++)
		pair.links[i][DIRECT - 1].delay_us = 150000;
	assert_true(pair_establish(&pair));
	stream_start(&pair, &stream, 1, 500, 100000000, 1, true);
	pair_run(&pair, US_PER_S, stream_source, &stream);
	pair.links[0][DIRECT - 1].cut = true;
	pair_run(&pair, 60 * US_PER_S, stream_source, &stream);
	const uint64_t before = pair.links[0][DIRECT - 1].n_sent;
	assert_int_equal(path_stats(0, DIRECT).state, PTCP_PATH_DOWN);
	pair_run(&pair, 10 * US_PER_S, stream_source, &stream);
	assert_in_range(pair.links[0][DIRECT - 1].n_sent - before, 1, 100);
	pair.links[0][DIRECT - 1].cut = false;
	pair_run(&pair, 30 * US_PER_S, stream_source, &stream);
	assert_int_equal(path_stats(0, DIRECT).state, PTCP_PATH_UP);
	assert_int_equal(path_stats(1, DIRECT).state, PTCP_PATH_UP);
	pair_fini(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_close_without_a_path_ends_at_once),
		cmocka_unit_test(a_path_that_is_heard_but_down_is_challenged_calmly),
		cmocka_unit_test(
			one_copied_packet_is_answered_with_no_more_than_three_times_its_size),
		cmocka_unit_test(a_lost_tail_is_sent_again_by_the_probe_timeout_itself),
		cmocka_unit_test(what_the_specification_forbids_closes_the_association),
		cmocka_unit_test(a_direct_path_takes_over_from_the_relay_without_a_loss),
		cmocka_unit_test(a_dead_path_is_left_in_about_a_second),
		cmocka_unit_test(a_thin_stream_too_shows_that_its_path_is_dead),
		cmocka_unit_test(a_path_in_doubt_is_left_before_it_is_given_up),
		cmocka_unit_test(a_lost_challenge_is_no_reason_to_leave_a_path_that_works),
		cmocka_unit_test(a_vanished_peer_shows_within_fifteen_seconds),
		cmocka_unit_test(the_server_follows_a_client_whose_address_changed),
		cmocka_unit_test(a_removed_path_hands_over_what_was_in_flight),
		cmocka_unit_test(the_mtu_is_found_and_a_black_hole_is_left),
		cmocka_unit_test(what_the_system_refuses_is_not_probed_again_at_once),
		cmocka_unit_test(an_idle_path_looks_for_a_larger_mtu_only_when_the_network_changes),
		cmocka_unit_test(keys_are_updated_under_traffic_in_both_directions),
		cmocka_unit_test(what_comes_twice_is_taken_once),
		cmocka_unit_test(flipped_bits_are_counted_and_cost_only_a_repair),
		cmocka_unit_test(stale_messages_are_given_up),
		cmocka_unit_test(a_full_queue_gives_way_to_what_comes),
		cmocka_unit_test(an_attacker_who_copies_packets_cannot_steal_the_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
