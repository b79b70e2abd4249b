/* Messages on their way out: what is urgent, what is marked, in which datagrams they leave. */
#include "unit.h"
#include "ptcp_pair.h"

#define DIRECT 1

static struct pair pair;

static void start(uint64_t seed, const struct ptcp_config *config, const struct pair_link *link)
{
	pair_init(&pair, seed, config);
	pair_link_set(&pair, DIRECT, *link);
	pair_path_add(&pair, DIRECT, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	pair_run(&pair, 200 * US_PER_MS, NULL, NULL);
}

static struct ptcp_stats stats_of(int i)
{
	struct ptcp_stats stats;

	ptcp_get_stats(pair.end[i].a, &stats);
	return stats;
}

static void send_message(const struct ptcp_message_info *info, const void *data, size_t n_bytes)
{
	const struct ptcp_part part = { data, n_bytes };

	assert_int_equal(ptcp_message_send(pair.end[0].a, info, &part, 1, pair.now_us), 0);
}

/* ---- a voice ---- */

#define VOICE_US 20000

struct voice {
	uint64_t n_sent, n_max, next_us;
	uint64_t sent_us[4096];
	uint64_t n_in_time, n_heard, n_twice;
	bool heard[4096];
};
static struct voice voice;

static uint64_t speak(struct pair *p, void *user)
{
	const struct ptcp_message_info info = { .flow = 5, .urgent = true, .resends_max = 1 };
	uint64_t word[20] = { voice.n_sent };

	(void)user;
	if (p->now_us >= voice.next_us && voice.n_sent < voice.n_max) {
		voice.sent_us[voice.n_sent++] = p->now_us;
		voice.next_us = p->now_us + VOICE_US;
		send_message(&info, word, sizeof(word));
	}
	return voice.n_sent < voice.n_max ? voice.next_us : NEVER_US;
}

static void hear(struct pair_end *e, const uint8_t *data, size_t n_bytes)
{
	uint64_t n;

	(void)e;
	assert_int_equal(n_bytes, 160);
	memcpy(&n, data, sizeof(n));
	voice.n_twice += voice.heard[n];
	voice.heard[n] = true;
	voice.n_heard++;
	/* One way takes 25 ms; 1.3 round trips are 15 ms more than one. */
	voice.n_in_time += pair.now_us - voice.sent_us[n] <= 40 * US_PER_MS;
}

static void converse(unsigned loss_permille, uint64_t n)
{
	const struct pair_link link = { .delay_us = 25000,
					.bytes_per_s = 1250000,
					.loss_permille = loss_permille };

	start(1, NULL, &link);
	pair.end[1].on_message = hear;
	voice = (struct voice){ .n_max = n };
	pair_run(&pair, n * VOICE_US + US_PER_S, speak, NULL);
}

static void a_voice_comes_in_time_though_the_path_loses(void **state)
{
	(void)state;
	/* The first seconds tell what the path loses. */
	converse(30, 1000);
	const uint64_t late = 1000 - voice.n_in_time;

	voice.n_max = 4000;
	voice.next_us = pair.now_us;
	pair_run(&pair, 3000 * VOICE_US + US_PER_S, speak, NULL);
	assert_int_equal(voice.n_sent, 4000);
	assert_true(3000 - (voice.n_in_time - (1000 - late)) <= 15);
	assert_int_equal(voice.n_twice, 0);
	assert_in_range(stats_of(0).messages_copied, 2800, 4000);
	pair_fini(&pair);
}

static void nothing_is_said_twice_where_nothing_is_lost(void **state)
{
	(void)state;
	converse(0, 1000);
	assert_int_equal(voice.n_in_time, 1000);
	assert_int_equal(stats_of(0).messages_copied, 0);
	pair_fini(&pair);
}

/* Copies are bounded: whoever sends by the thousand cannot double what he sends. */
static uint64_t flood(struct pair *p, void *user)
{
	static const uint8_t data[128];
	const struct ptcp_message_info info = { .flow = 6, .urgent = true, .resends_max = 1 };

	uint64_t *const next_us = user;

	if (p->now_us >= *next_us) {
		send_message(&info, data, sizeof(data));
		*next_us = p->now_us + 1000;
	}
	return *next_us;
}

static void a_flood_is_not_doubled(void **state)
{
	const struct pair_link link = { .delay_us = 5000,
					.bytes_per_s = 1250000,
					.loss_permille = 50 };

	uint64_t next_us = 0;

	(void)state;
	start(2, NULL, &link);
	pair_run(&pair, 20 * US_PER_S, flood, &next_us);
	const struct ptcp_stats stats = stats_of(0);
	assert_true(stats.messages_sent > 15000);
	assert_in_range(stats.messages_copied, 100, 20 * 65536 / 128 + 100);
	pair_fini(&pair);
}

/* Urgent messages are sent again once, others until they are too old. */
static void what_is_urgent_is_given_up_after_one_more_try(void **state)
{
	const struct pair_link link = { .delay_us = 5000,
					.bytes_per_s = 1250000,
					.loss_permille = 400 };
	const struct ptcp_message_info urgent = { .flow = 1, .urgent = true, .resends_max = 1 };
	const struct ptcp_message_info other = { .flow = 2 };
	static const uint8_t data[600];

	(void)state;
	for (int turn = 0; turn < 2; turn++) {
		start(3, NULL, &link);
		for (int i = 0; i < 200; i++) {
			send_message(turn == 0 ? &urgent : &other, data, sizeof(data));
			pair_run(&pair, 10 * US_PER_MS, NULL, NULL);
		}
		pair_run(&pair, 2 * US_PER_S, NULL, NULL);
		/* 0.4 * 0.4 of them; a retransmission may be called lost though it came. */
		if (turn == 0)
			assert_in_range(stats_of(0).messages_abandoned, 10, 80);
		else
			assert_in_range(stats_of(0).messages_abandoned, 0, 20);
		assert_int_equal(stats_of(0).send_memory_bytes, 0);
		pair_fini(&pair);
	}
}

/* ---- too old, or only unanswered ---- */

static void a_probe_timeout_gives_nothing_up(void **state)
{
	const struct pair_link link = { .delay_us = 10000, .bytes_per_s = 1250000 };
	const struct ptcp_message_info info = { .flow = 1,
						.ordered = true,
						.persistence_us = 1000 };
	static const uint8_t data[500];

	(void)state;
	start(4, NULL, &link);
	const uint64_t ptos = stats_of(0).ptos, heard = pair.end[1].n_messages;
	/* It arrives, but the answer does not for a while. */
	pair.links[1][DIRECT - 1].cut = true;
	send_message(&info, data, sizeof(data));
	pair_run(&pair, 300 * US_PER_MS, NULL, NULL);
	pair.links[1][DIRECT - 1].cut = false;
	assert_true(stats_of(0).ptos > ptos);
	pair_run(&pair, US_PER_S, NULL, NULL);
	assert_int_equal(pair.end[1].n_messages - heard, 1);
	assert_int_equal(stats_of(0).messages_abandoned, 0);
	assert_int_equal(stats_of(1).messages_abandoned_peer, 0);
	assert_int_equal(stats_of(0).send_memory_bytes, 0);
	pair_fini(&pair);
}

/* ---- datagrams have one class each ---- */

static void messages_of_two_classes_do_not_share_a_batch(void **state)
{
	static const uint8_t classes[] = { 0, 46, 46, 10, 0 }, expected[] = { 0, 46, 10, 0 };
	const struct pair_link link = { .delay_us = 10000, .bytes_per_s = 1250000 };
	static const uint8_t data[300];
	unsigned n = 0;

	(void)state;
	start(5, NULL, &link);
	for (unsigned i = 0; i < ARRAY_SIZE(classes); i++) {
		const struct ptcp_message_info info = { .flow = 1, .dscp = classes[i] };

		send_message(&info, data, sizeof(data));
	}
	struct ptcp_batch batch = { .data = pair.batch, .size_bytes = sizeof(pair.batch) };
	while (ptcp_output(pair.end[0].a, &batch, pair.now_us)) {
		assert_true(n < ARRAY_SIZE(expected));
		assert_int_equal(batch.dscp, expected[n]);
		assert_true(batch.used_bytes >= (expected[n] == 46 ? 600 : 300));
		assert_true(batch.used_bytes < (expected[n] == 46 ? 800 : 500));
		n++;
	}
	assert_int_equal(n, ARRAY_SIZE(expected));
	pair_fini(&pair);
}

/* ---- how CoDel speaks ---- */

static enum ptcp_signal said;
static uint64_t n_said, n_shorter, n_marked_seen;

static enum ptcp_signal say(void *user, uint8_t *message, size_t n_bytes, size_t *ret_cut_bytes)
{
	assert_ptr_equal(user, &said);
	assert_int_equal(n_bytes, 5000);
	n_said++;
	if (said == PTCP_SIGNAL_MARKED)
		message[0] = 1;
	if (said == PTCP_SIGNAL_SHORTENED)
		*ret_cut_bytes = 1400;
	return said;
}

static void count_signs(struct pair_end *e, const uint8_t *data, size_t n_bytes)
{
	const size_t cut = 5000 - n_bytes;

	(void)e;
	assert_true(cut == 0 || cut == 1400);
	for (size_t i = 1; i < n_bytes; i++)
		assert_int_equal(data[i], (uint8_t)((i + cut) * 7));
	n_shorter += cut > 0;
	n_marked_seen += data[0] == 1;
}

static void what_stands_is_marked_or_shortened_or_dropped(void **state)
{
	const struct pair_link link = { .delay_us = 10000, .bytes_per_s = 250000 };
	const struct ptcp_message_info info = { .flow = 1, .ordered = true };
	const struct ptcp_config config = { .signal = say, .signal_user = &said };
	static uint8_t data[5000];

	(void)state;
	for (size_t i = 1; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	for (said = PTCP_SIGNAL_DROP; said <= PTCP_SIGNAL_SHORTENED; said++) {
		n_said = n_shorter = n_marked_seen = 0;
		start(6, &config, &link);
		const uint64_t before = pair.end[1].n_messages;

		pair.end[1].on_message = count_signs;
		for (int i = 0; i < 40; i++)
			send_message(&info, data, sizeof(data));
		pair_run(&pair, 5 * US_PER_S, NULL, NULL);
		const struct ptcp_stats stats = stats_of(0);
		assert_in_range(n_said, 2, 38);
		assert_int_equal(stats.messages_marked, said == PTCP_SIGNAL_MARKED ? n_said : 0);
		assert_int_equal(stats.messages_shortened,
				 said == PTCP_SIGNAL_SHORTENED ? n_said : 0);
		assert_int_equal(stats.messages_dropped_queue,
				 said == PTCP_SIGNAL_DROP ? n_said : 0);
		assert_int_equal(n_shorter, stats.messages_shortened);
		assert_int_equal(n_marked_seen, stats.messages_marked);
		assert_int_equal(pair.end[1].n_messages - before,
				 40 - stats.messages_dropped_queue);
		pair_fini(&pair);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_voice_comes_in_time_though_the_path_loses),
		cmocka_unit_test(nothing_is_said_twice_where_nothing_is_lost),
		cmocka_unit_test(a_flood_is_not_doubled),
		cmocka_unit_test(what_is_urgent_is_given_up_after_one_more_try),
		cmocka_unit_test(a_probe_timeout_gives_nothing_up),
		cmocka_unit_test(messages_of_two_classes_do_not_share_a_batch),
		cmocka_unit_test(what_stands_is_marked_or_shortened_or_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
