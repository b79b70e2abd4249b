/* Named stories: one pair, one thing that happens, and what must come of it. */
#include "sim.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#include "ptcp/conn_glue.h"

#define MBIT UINT64_C(125000) /* bytes per second */

static const struct sim_link fast = {
	.delay_us = 25000,
	.bytes_per_s = 100 * MBIT,
	.queue_us = 50000,
	.mtu_bytes = 1472,
};

struct stage {
	struct sim_world *w;
	struct sim_pair *pair;
	struct sim_end *client, *server;
	struct sim_wire *wire;
	size_t memory_before;
};

/* ---- the stage
 * ------------------------------------------------------------------------------------- */

static struct stage raise_curtain(const struct ptcp_config *config, enum ptcp_path_kind kind,
				  const struct sim_link *link)
{
	const struct ptcp_config nothing = { 0 };
	struct sim_world *const w = sim_world_new(7);
	struct stage s = {
		.w = w,
		.pair = sim_pair_add(w, config ? config : &nothing),
		.memory_before = sim_memory_used(),
	};

	w->verbose = getenv("SIM_VERBOSE") != NULL;
	w->tells_all = w->verbose && getenv("SIM_DATAGRAMS") != NULL;
	s.client = &s.pair->end[0];
	s.server = &s.pair->end[1];
	for (int i = 0; i < 2; i++)
		if (s.pair->end[i].config.send_memory_bytes == 0) {
			s.pair->end[i].config.send_memory_bytes = 32 << 20;
			s.pair->end[i].config.receive_memory_bytes = 8 << 20;
		}
	s.wire = sim_wire_add(w, s.pair->index, kind, link, link);
	return s;
}

static void begin(struct stage *s)
{
	assert_true(sim_pair_start(s->w, s->pair));
	sim_wire_tell(s->w, s->wire, 0);
	sim_wire_tell(s->w, s->wire, 1);
}

static void no_failure(const struct stage *s)
{
	if (s->w->failure[0] != 0)
		fail_msg("%s", s->w->failure);
}

static void drop_curtain(struct stage *s)
{
	no_failure(s);
	sim_world_free(s->w);
	assert_int_equal(sim_memory_used(), s->memory_before);
}

static bool both_established(struct sim_world *w)
{
	return w->pairs[0].end[0].n_established > 0 && w->pairs[0].end[1].n_established > 0;
}

static bool streams_done(struct sim_world *w)
{
	return sim_streams_done(&w->pairs[0].end[0]) && sim_streams_done(&w->pairs[0].end[1]);
}

static void establish(struct stage *s)
{
	assert_true(sim_run(s->w, 10 * US_PER_S, both_established));
}

static struct sim_stream *plan_stream(struct stage *s, unsigned index, uint64_t there,
				      uint64_t back)
{
	struct sim_stream *const stream = &s->pair->streams[index];

	*stream = (struct sim_stream){ .used = true, .port = 80 };
	for (int i = 0; i < 2; i++)
		stream->side[i] =
			(struct sim_side){ .chunk_bytes = 65536, .n_bytes = i == 0 ? there : back };
	return stream;
}

static void plan_messages(struct sim_end *e, uint64_t n, uint64_t interval_us)
{
	e->messages.n_left = n;
	e->messages.interval_us = interval_us;
	e->messages.size_min = 100;
	e->messages.size_max = 1400;
	e->messages.n_flows = 4;
	for (unsigned i = 0; i < 4; i++) {
		e->messages.flows[i].id = i + 1;
		e->messages.flows[i].ordered = true;
	}
}

static uint64_t time_of_servers_stream(bool early)
{
	const struct ptcp_config config = { .early = early };
	struct stage s = raise_curtain(&config, PTCP_PATH_RELAY_STREAM, &fast);
	struct sim_stream *const stream = plan_stream(&s, 0, 20000, 20000);

	stream->opener = 1;
	plan_messages(s.server, 20, 1000);
	begin(&s);
	assert_true(sim_run(s.w, 10 * US_PER_S, streams_done));
	const uint64_t took_us =
		max_u64(stream->side[0].finished_us, stream->side[1].finished_us) - US_PER_S;
	sim_run(s.w, US_PER_S, NULL);
	assert_int_equal(s.client->messages.n_seen, 20);
	assert_int_equal(s.server->n_verified, 1);
	drop_curtain(&s);
	return took_us;
}

/* Half a round trip there, as much for the answer; else TLS's one and a half before. */
static void an_early_server_is_a_trip_and_a_half_ahead(void **state)
{
	const uint64_t early_us = time_of_servers_stream(true), us = time_of_servers_stream(false);

	(void)state;
	assert_in_range(us - early_us, 70000, 80000);
}

static void close_both(struct stage *s)
{
	ptcp_assoc_close(s->client->a, PTCP_CLOSE_APPLICATION, s->w->now_us);
	s->client->dirty = true;
	sim_run(s->w, 5 * US_PER_S, NULL);
	assert_int_equal(ptcp_assoc_state(s->client->a), PTCP_CLOSED);
	assert_int_equal(ptcp_assoc_state(s->server->a), PTCP_CLOSED);
	assert_true(s->server->closed_by_peer);
	assert_int_equal(s->server->close_code, PTCP_CLOSE_APPLICATION);
}

static void all_came(const struct sim_end *e, bool in_order)
{
	const struct sim_messages *const sent = &e->pair->end[!e->index].messages;
	struct ptcp_stats there, here;

	ptcp_get_stats(e->pair->end[!e->index].a, &there);
	ptcp_get_stats(e->a, &here);
	if (sent->n_left > 0 || e->messages.n_seen != sent->n_sent ||
	    (in_order && e->messages.n_late > 0))
		fail_msg("end %d: %llu to send, %llu sent, %llu came, %llu late; abandoned %llu, "
			 "dropped %llu and %llu, order timeouts %llu",
			 e->index, (unsigned long long)sent->n_left,
			 (unsigned long long)sent->n_sent, (unsigned long long)e->messages.n_seen,
			 (unsigned long long)e->messages.n_late,
			 (unsigned long long)there.messages_abandoned,
			 (unsigned long long)there.messages_dropped_queue,
			 (unsigned long long)here.messages_dropped_memory,
			 (unsigned long long)here.order_timeouts);
}

/* ---- goodput
 * --------------------------------------------------------------------------------------------- */

/* Per cent of the link's rate that a long stream gets, its beginning included. */
static uint64_t stream_goodput_percent(const struct sim_link *link, uint64_t n_bytes)
{
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, link);
	const struct sim_stream *const stream = plan_stream(&s, 0, n_bytes, 0);

	begin(&s);
	establish(&s);
	const uint64_t start_us = s.w->now_us;
	assert_true(sim_run(s.w, 600 * US_PER_S, streams_done));
	assert_int_equal(stream->side[1].read, n_bytes);
	const uint64_t took_us = stream->side[1].finished_us - start_us;
	const uint64_t percent = n_bytes * US_PER_S / took_us * 100 / link->bytes_per_s;
	sim_streams_check(s.pair);
	close_both(&s);
	drop_curtain(&s);
	print_message("# %llu %% of the link\n", (unsigned long long)percent);
	return percent;
}

static void a_stream_fills_a_clean_path(void **state)
{
	(void)state;
	assert_true(stream_goodput_percent(&fast, 150000000) >= 90);
}

static void a_stream_fills_a_path_that_loses_one_per_cent(void **state)
{
	struct sim_link link = fast;

	(void)state;
	link.loss_permille = 10;
	assert_true(stream_goodput_percent(&link, 150000000) >= 80);
}

static void a_stream_fills_a_path_that_reorders(void **state)
{
	struct sim_link link = fast;

	(void)state;
	link.reorder_permille = 50;
	link.reorder_us = 20000;
	assert_true(stream_goodput_percent(&link, 150000000) >= 80);
}

static uint64_t message_goodput_percent(const struct sim_link *link)
{
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, link);

	/* A little more than fits: what stands for long is dropped. */
	plan_messages(s.client, 60000, 1380 * US_PER_S / (link->bytes_per_s / 100 * 103));
	s.client->messages.size_min = s.client->messages.size_max = 1380;
	begin(&s);
	establish(&s);
	sim_run(s.w, 60 * US_PER_S, NULL);
	const struct sim_messages *const m = &s.server->messages;
	const uint64_t took_us = m->last_us - s.server->established_us;
	const uint64_t percent = m->bytes_seen * US_PER_S / took_us * 100 / link->bytes_per_s;
	assert_int_equal(s.client->messages.n_left, 0);
	sim_messages_check(s.server);
	close_both(&s);
	drop_curtain(&s);
	print_message("# %llu %% of the link\n", (unsigned long long)percent);
	return percent;
}

static void messages_fill_a_clean_path(void **state)
{
	(void)state;
	assert_true(message_goodput_percent(&fast) >= 88);
}

static void messages_fill_a_path_that_loses_one_per_cent(void **state)
{
	struct sim_link link = fast;

	(void)state;
	link.loss_permille = 10;
	assert_true(message_goodput_percent(&link) >= 80);
}

static void a_long_queue_is_not_filled(void **state)
{
	const struct sim_link link = {
		.delay_us = 25000,
		.bytes_per_s = 4 * MBIT,
		.queue_us = 3000000,
		.mtu_bytes = 1472,
	};
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &link);
	const struct sim_stream *const stream = plan_stream(&s, 0, 20000000, 0);

	(void)state;
	begin(&s);
	establish(&s);
	sim_run(s.w, 5 * US_PER_S, NULL);
	s.wire->link[0].queue_max_us = 0;
	const uint64_t before_bytes = stream->side[1].read;
	sim_run(s.w, 20 * US_PER_S, NULL);
	const uint64_t rate = (stream->side[1].read - before_bytes) / 20;
	print_message("# %llu ms of queue, %llu %% of the link\n",
		      (unsigned long long)(s.wire->link[0].queue_max_us / 1000),
		      (unsigned long long)(rate * 100 / link.bytes_per_s));
	assert_true(s.wire->link[0].queue_max_us < 200000);
	assert_true(rate * 100 / link.bytes_per_s >= 85);
	drop_curtain(&s);
}

/* ---- what happens to paths
 * ------------------------------------------------------------------------------- */

static uint64_t read_before;

static bool reads_on(struct sim_world *w)
{
	return w->pairs[0].streams[0].side[1].read > read_before;
}

static void a_stream_goes_on_within_a_second_after(uint64_t dark_us)
{
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &fast);
	const struct sim_stream *const stream = plan_stream(&s, 0, 150000000, 0);

	begin(&s);
	establish(&s);
	sim_run(s.w, 3 * US_PER_S, NULL);
	s.wire->link[0].dark_until_us = s.wire->link[1].dark_until_us = s.w->now_us + dark_us;
	sim_run(s.w, dark_us, NULL);
	read_before = stream->side[1].read;
	assert_true(sim_run(s.w, US_PER_S, reads_on));
	/* And is at its rate again soon. */
	sim_run(s.w, US_PER_S, NULL);
	read_before = stream->side[1].read;
	sim_run(s.w, US_PER_S, NULL);
	assert_true((stream->side[1].read - read_before) * 2 > fast.bytes_per_s);
	assert_true(sim_run(s.w, 60 * US_PER_S, streams_done));
	sim_streams_check(s.pair);
	drop_curtain(&s);
}

static void a_blackout_of_three_seconds_is_over_within_one(void **state)
{
	(void)state;
	a_stream_goes_on_within_a_second_after(3 * US_PER_S);
}

static void any_blackout_up_to_ten_seconds_is_over_within_one(void **state)
{
	(void)state;
	for (uint64_t dark_us = 100000; dark_us <= 10 * US_PER_S; dark_us += 900000)
		a_stream_goes_on_within_a_second_after(dark_us);
}

static void rebind_at(struct sim_world *w, int pair, int end, uint64_t value)
{
	(void)pair;
	sim_wire_rebind(w, &w->wires[value], end);
}

static void rebinding_loses_nothing_seen_by(int end)
{
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &fast);

	plan_stream(&s, 0, 30000000, 30000000);
	for (int i = 0; i < 2; i++) {
		plan_messages(&s.pair->end[i], 1000, 4000);
		s.pair->end[i].messages.persistence_us = US_PER_S;
	}
	begin(&s);
	establish(&s);
	for (unsigned i = 1; i <= 3; i++)
		sim_at(s.w, s.w->now_us + i * US_PER_S, rebind_at, 0, end,
		       (uint64_t)(s.wire - s.w->wires));
	assert_true(sim_run(s.w, 60 * US_PER_S, streams_done));
	sim_run(s.w, 5 * US_PER_S, NULL);
	sim_streams_check(s.pair);
	/* What was under way is sent again; that takes longer than order is waited for. */
	all_came(s.client, false);
	all_came(s.server, false);
	assert_true(s.pair->end[end].n_path_new == 3 && s.pair->end[end].n_switched == 4);
	drop_curtain(&s);
}

static void a_client_behind_a_rebinding_nat_loses_nothing(void **state)
{
	(void)state;
	rebinding_loses_nothing_seen_by(1);
}

static void a_server_behind_a_rebinding_nat_loses_nothing(void **state)
{
	(void)state;
	rebinding_loses_nothing_seen_by(0);
}

static void switch_from_relay(uint64_t relay_us, uint64_t direct_us)
{
	struct sim_link relay = fast, direct = fast;

	relay.delay_us = relay_us;
	direct.delay_us = direct_us;
	struct stage s = raise_curtain(NULL, PTCP_PATH_RELAY, &relay);
	plan_messages(s.client, 1200, 5000);
	plan_messages(s.server, 1200, 5000);
	begin(&s);
	establish(&s);
	sim_run(s.w, 2 * US_PER_S, NULL);
	struct sim_wire *const wire = sim_wire_add(s.w, 0, PTCP_PATH_DIRECT, &direct, &direct);
	sim_wire_tell(s.w, wire, 0);
	sim_wire_tell(s.w, wire, 1);
	sim_run(s.w, 10 * US_PER_S, NULL);
	for (int i = 0; i < 2; i++) {
		struct ptcp_stats stats;

		ptcp_get_stats(s.pair->end[i].a, &stats);
		assert_int_equal(stats.active_path_id, wire->id[i]);
		all_came(&s.pair->end[i], true);
		assert_int_equal(s.pair->end[i].n_switched, 2);
	}
	drop_curtain(&s);
}

static void the_switch_from_relay_to_direct_loses_doubles_and_reorders_nothing(void **state)
{
	(void)state;
	switch_from_relay(40000, 10000);
	switch_from_relay(100000, 2000);
	switch_from_relay(20000, 60000);
}

static void a_direct_path_that_dies_gives_way_to_the_relay(void **state)
{
	struct sim_link relay = fast;
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &fast);

	(void)state;
	relay.delay_us = 60000;
	plan_stream(&s, 0, 60000000, 0);
	begin(&s);
	struct sim_wire *const wire = sim_wire_add(s.w, 0, PTCP_PATH_RELAY, &relay, &relay);
	sim_wire_tell(s.w, wire, 0);
	sim_wire_tell(s.w, wire, 1);
	establish(&s);
	sim_run(s.w, 2 * US_PER_S, NULL);
	s.wire->alive = false;
	read_before = s.pair->streams[0].side[1].read + 4000000; /* more than was under way */
	assert_true(sim_run(s.w, 3 * US_PER_S, reads_on));
	assert_true(sim_run(s.w, 60 * US_PER_S, streams_done));
	sim_streams_check(s.pair);
	drop_curtain(&s);
}

static void an_mtu_that_falls_without_notice_is_noticed(void **state)
{
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &fast);

	(void)state;
	plan_stream(&s, 0, 60000000, 60000000);
	begin(&s);
	establish(&s);
	sim_run(s.w, 2 * US_PER_S, NULL);
	s.wire->link[0].mtu_bytes = s.wire->link[1].mtu_bytes = 1280;
	sim_run(s.w, 100000, NULL);
	read_before = s.pair->streams[0].side[1].read;
	assert_true(sim_run(s.w, 2 * US_PER_S, reads_on));
	assert_true(sim_run(s.w, 60 * US_PER_S, streams_done));
	sim_streams_check(s.pair);
	drop_curtain(&s);
}

static void keys_change_under_full_load(void **state)
{
	const struct ptcp_config config = { .key_update_packets = 1000,
					    .send_memory_bytes = 32 << 20,
					    .receive_memory_bytes = 8 << 20 };
	struct sim_link link = fast;
	struct ptcp_stats stats;

	(void)state;
	link.reorder_permille = 20;
	link.reorder_us = 3000;
	struct stage s = raise_curtain(&config, PTCP_PATH_DIRECT, &link);
	plan_stream(&s, 0, 60000000, 60000000);
	begin(&s);
	assert_true(sim_run(s.w, 60 * US_PER_S, streams_done));
	sim_streams_check(s.pair);
	ptcp_get_stats(s.client->a, &stats);
	assert_true(stats.key_updates > 10);
	assert_int_equal(stats.packets_bad, 0);
	/* Late packets of the old phase are opened with its keys. */
	assert_int_equal(s.client->tls.n_forged, 0);
	assert_int_equal(s.server->tls.n_forged, 0);
	drop_curtain(&s);
}

/* ---- silence
 * ------------------------------------------------------------------------------------------------
 */

static bool client_sees_path_down(struct sim_world *w)
{
	return w->pairs[0].end[0].n_path_down > 0;
}

/* Soon where something was said lately; on a path long idle, with the next keepalive. */
static void a_peer_that_vanishes_is_missed(uint64_t idle_us, uint64_t within_us)
{
	for (unsigned i = 0; i < 10; i++) {
		struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &fast);

		plan_stream(&s, 0, 1000, 1000);
		begin(&s);
		establish(&s);
		sim_run(s.w, idle_us + i * (idle_us / 20), NULL);
		assert_int_equal(s.client->n_path_down, 0);
		ptcp_assoc_free(s.server->a);
		s.server->a = NULL;
		assert_true(sim_run(s.w, within_us, client_sees_path_down));
		sim_run(s.w, 6 * US_PER_S, NULL);
		assert_int_equal(s.client->n_all_down, 1);
		/* In the end the association goes too. */
		sim_run(s.w, 301 * US_PER_S, NULL);
		assert_int_equal(ptcp_assoc_state(s.client->a), PTCP_CLOSED);
		assert_int_equal(s.client->close_code, PTCP_CLOSE_IDLE_TIMEOUT);
		drop_curtain(&s);
	}
}

static void a_peer_that_vanishes_is_missed_within_twelve_seconds(void **state)
{
	(void)state;
	a_peer_that_vanishes_is_missed(4 * US_PER_S, 12 * US_PER_S);
}

static void an_idle_peer_that_vanishes_is_missed_within_forty_seconds(void **state)
{
	(void)state;
	a_peer_that_vanishes_is_missed(120 * US_PER_S, 40 * US_PER_S);
}

/* Datagrams that both ends send in ten minutes of silence. */
static uint64_t idle_datagrams(enum ptcp_path_kind kind, const struct ptcp_config *config)
{
	struct stage s = raise_curtain(config, kind, &fast);

	plan_stream(&s, 0, 1000, 1000);
	plan_messages(s.client, 10, 1000);
	begin(&s);
	establish(&s);
	sim_run(s.w, 30 * US_PER_S, NULL);
	const uint64_t before = s.client->n_datagrams_sent + s.server->n_datagrams_sent;
	const uint64_t idle_before = s.w->n_pumps;
	sim_run(s.w, 600 * US_PER_S, NULL);
	const uint64_t n = s.client->n_datagrams_sent + s.server->n_datagrams_sent - before;
	print_message("# %llu datagrams, %llu wake-ups\n", (unsigned long long)n,
		      (unsigned long long)(s.w->n_pumps - idle_before));
	assert_true(s.w->n_pumps - idle_before <= 4 * n + 20);
	assert_int_equal(ptcp_assoc_state(s.client->a), PTCP_ESTABLISHED);
	assert_int_equal(ptcp_assoc_state(s.server->a), PTCP_ESTABLISHED);
	drop_curtain(&s);
	return n;
}

static void an_idle_association_sends_keepalives_and_nothing_else(void **state)
{
	const struct ptcp_config quiet = { .liveness_us = NEVER_US, .idle_timeout_us = NEVER_US };

	(void)state;
	/* A keepalive of each end every 25 s, and its answer; a look for a larger MTU. */
	assert_in_range(idle_datagrams(PTCP_PATH_DIRECT, &quiet), 30, 120);
	assert_in_range(idle_datagrams(PTCP_PATH_RELAY, &quiet), 0, 12);
	/* With liveness each end asks after 5 s of silence, then ever more rarely: every 30 s. */
	assert_in_range(idle_datagrams(PTCP_PATH_RELAY, &(struct ptcp_config){ 0 }), 30, 100);
}

static void an_end_may_sleep_for_four_minutes(void **state)
{
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &fast);

	(void)state;
	plan_stream(&s, 0, 60000000, 0);
	begin(&s);
	establish(&s);
	sim_run(s.w, 2 * US_PER_S, NULL);
	s.server->asleep_until_us = s.w->now_us + 240 * US_PER_S;
	sim_run(s.w, 240 * US_PER_S, NULL);
	read_before = s.pair->streams[0].side[1].read;
	assert_true(sim_run(s.w, 2 * US_PER_S, reads_on));
	assert_true(sim_run(s.w, 60 * US_PER_S, streams_done));
	sim_streams_check(s.pair);
	drop_curtain(&s);
}

static void a_handshake_gets_through_a_third_of_loss(void **state)
{
	struct sim_link link = fast;

	(void)state;
	link.loss_permille = 330;
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &link);

		s.w->rng.state = seed;
		begin(&s);
		establish(&s);
		drop_curtain(&s);
	}
}

/* ---- no memory
 * ------------------------------------------------------------------------------------------------
 */

/* A short life of everything, in which allocation `first` and n_more after it fail. */
static uint64_t live_without_memory(uint64_t first, uint64_t n_more)
{
	struct sim_link link = fast;

	link.loss_permille = 30;
	struct stage s = raise_curtain(NULL, PTCP_PATH_DIRECT, &link);
	const uint64_t before = sim_memory_calls();
	s.w->forgiving = true;
	for (unsigned i = 0; i < 3; i++)
		plan_stream(&s, i, 200000, 100000)->opener = (int)(i % 2);
	for (int i = 0; i < 2; i++) {
		plan_messages(&s.pair->end[i], 200, 1000);
		s.pair->end[i].messages.big_permille = 50;
		s.pair->end[i].config.idle_timeout_us = 20 * US_PER_S;
	}
	sim_memory_refuse(first, n_more);
	if (sim_pair_start(s.w, s.pair)) {
		sim_wire_tell(s.w, s.wire, 0);
		sim_wire_tell(s.w, s.wire, 1);
		sim_run(s.w, 10 * US_PER_S, streams_done);
		sim_memory_refuse(0, 0);
		sim_run(s.w, 20 * US_PER_S, streams_done);
		for (int i = 0; i < 2; i++) {
			ptcp_assoc_close(s.pair->end[i].a, PTCP_CLOSE_DONE, s.w->now_us);
			s.pair->end[i].dirty = true;
		}
		sim_run(s.w, 60 * US_PER_S, NULL);
		assert_int_equal(ptcp_assoc_state(s.client->a), PTCP_CLOSED);
		assert_int_equal(ptcp_assoc_state(s.server->a), PTCP_CLOSED);
	}
	sim_memory_refuse(0, 0);
	if (s.w->failure[0] != 0)
		fail_msg("without allocation %llu and %llu more: %s", (unsigned long long)first,
			 (unsigned long long)n_more, s.w->failure);
	drop_curtain(&s);
	return sim_memory_calls() - before;
}

static void any_one_allocation_may_fail(void **state)
{
	const uint64_t n = live_without_memory(0, 0);

	(void)state;
	print_message("# %llu allocations\n", (unsigned long long)n);
	for (uint64_t i = 1; i <= n; i += i < 400 ? 1 : 7)
		live_without_memory(i, 0);
}

static void memory_may_be_gone_for_a_while(void **state)
{
	const uint64_t n = live_without_memory(0, 0);

	(void)state;
	for (uint64_t i = 1; i <= n; i += 1 + n / 300)
		live_without_memory(i, 20);
}

static void memory_may_be_gone_for_good(void **state)
{
	const uint64_t n = live_without_memory(0, 0);

	(void)state;
	for (uint64_t i = 1; i <= n; i += 1 + n / 300)
		live_without_memory(i, NEVER_US / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_early_server_is_a_trip_and_a_half_ahead),
		cmocka_unit_test(a_stream_fills_a_clean_path),
		cmocka_unit_test(a_stream_fills_a_path_that_loses_one_per_cent),
		cmocka_unit_test(a_stream_fills_a_path_that_reorders),
		cmocka_unit_test(messages_fill_a_clean_path),
		cmocka_unit_test(messages_fill_a_path_that_loses_one_per_cent),
		cmocka_unit_test(a_long_queue_is_not_filled),
		cmocka_unit_test(a_blackout_of_three_seconds_is_over_within_one),
		cmocka_unit_test(any_blackout_up_to_ten_seconds_is_over_within_one),
		cmocka_unit_test(a_client_behind_a_rebinding_nat_loses_nothing),
		cmocka_unit_test(a_server_behind_a_rebinding_nat_loses_nothing),
		cmocka_unit_test(
			the_switch_from_relay_to_direct_loses_doubles_and_reorders_nothing),
		cmocka_unit_test(a_direct_path_that_dies_gives_way_to_the_relay),
		cmocka_unit_test(an_mtu_that_falls_without_notice_is_noticed),
		cmocka_unit_test(keys_change_under_full_load),
		cmocka_unit_test(a_peer_that_vanishes_is_missed_within_twelve_seconds),
		cmocka_unit_test(an_idle_peer_that_vanishes_is_missed_within_forty_seconds),
		cmocka_unit_test(an_idle_association_sends_keepalives_and_nothing_else),
		cmocka_unit_test(an_end_may_sleep_for_four_minutes),
		cmocka_unit_test(a_handshake_gets_through_a_third_of_loss),
		cmocka_unit_test(any_one_allocation_may_fail),
		cmocka_unit_test(memory_may_be_gone_for_a_while),
		cmocka_unit_test(memory_may_be_gone_for_good),
	};

	if (getenv("SIM_CASE"))
		cmocka_set_test_filter(getenv("SIM_CASE"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
