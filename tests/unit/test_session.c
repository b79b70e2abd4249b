/* Two sessions back to back. */
#include "session_world.h"

static int group_setup(void **state)
{
	(void)state;
	return crypto_key_generate(CRYPTO_KEY_P256, &domain_key) ||
	       crypto_cert_make_domain(domain_key, "a.test", NOW_S, 365, &domain_cert);
}

static int group_teardown(void **state)
{
	(void)state;
	crypto_cert_unref(domain_cert);
	crypto_key_free(domain_key);
	return 0;
}

static void bring_up(struct world *w)
{
	session_want(w->end[0].s, true, w->now_us);
	assert_true(run_for(w, 5 * US_PER_S, both_up));
}

static void one_side_wants_the_link_and_both_come_up(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	bring_up(&w);
	/* Two trips for the offers, then TLS over the relay. */
	assert_in_range(w.now_us - 1000 * US_PER_S, 0, 300 * MS);
	assert_int_equal(w.end[0].n_asks, 1);
	assert_int_equal(w.end[1].n_asks, 0);
	world_fini(&w);
}

/* ---- the first packet ---- */

static bool requester_up(struct world *w)
{
	return w->end[0].state == SESSION_UP;
}

static bool listener_got_one(struct world *w)
{
	return w->end[1].n_frames > 0;
}

static bool requester_got_one(struct world *w)
{
	return w->end[0].n_frames > 0;
}

/* One packet and its answer, the way of each being 15 ms. When they came, since the question. */
static void time_first_packets(struct world *w, uint64_t ret_us[static 3])
{
	const struct tun_addresses a = addresses_of("alice@a.test", "bob@a.test"),
				   b = addresses_of("bob@a.test", "alice@a.test");
	const uint64_t start_us = w->now_us;

	w->udp_works = false;
	session_want(w->end[0].s, true, w->now_us);
	assert_true(run_for(w, 5 * US_PER_S, requester_up));
	ret_us[0] = w->now_us - start_us;
	assert_int_equal(send_packet(w, 0, &a, 1), 0);
	assert_true(run_for(w, 5 * US_PER_S, listener_got_one));
	ret_us[1] = w->now_us - start_us;
	assert_int_equal(send_packet(w, 1, &b, 2), 0);
	assert_true(run_for(w, 5 * US_PER_S, requester_got_one));
	ret_us[2] = w->now_us - start_us;
	run_for(w, 5 * US_PER_S, NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(w->end[i].n_frames, 1);
		assert_int_equal(w->end[i].frame[31], 2 - i);
	}
	assert_true(both_up(w));
}

static void the_first_packet_leaves_when_the_answer_comes(void **state)
{
	uint64_t us[3];
	struct world w;

	(void)state;
	world_init(&w);
	time_first_packets(&w, us);
	assert_in_range(us[0], 30 * MS, 31 * MS);
	assert_in_range(us[1], 45 * MS, 46 * MS);
	assert_in_range(us[2], 60 * MS, 61 * MS);
	world_fini(&w);
}

static void with_a_peer_that_knows_no_hello_it_takes_a_trip_more(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		uint64_t us[3];
		struct world w;

		world_no_early[i] = true;
		world_init(&w);
		world_no_early[i] = false;
		time_first_packets(&w, us);
		assert_in_range(us[0], 60 * MS, 61 * MS);
		assert_in_range(us[2], 90 * MS, 91 * MS);
		world_fini(&w);
	}
}

/* Of the relayed items to an end, those from the first of these numbers to below the second. */
static struct {
	int to;
	unsigned from, until, n;
} lost;

static bool loses_some(struct world *w, const struct item *item)
{
	unsigned n;

	(void)w;
	if (item->kind != ITEM_RELAY || item->to != lost.to)
		return false;
	n = lost.n++;
	return n >= lost.from && n < lost.until;
}

static void flights_that_are_lost_late_or_repeated_cost_time_alone(void **state)
{
	static const struct {
		int to;
		unsigned from, until;
	} cases[] = {
		{ 1, 0, 0 }, { 1, 0, 1 }, /* the first flight */
		{ 1, 1, 2 }, { 1, 0, 2 }, /* what is right behind it; both */
		{ 0, 0, 1 }, { 0, 1, 2 }, { 0, 0, 3 },
	};

	(void)state;
	for (unsigned i = 0; i < 4 * ARRAY_SIZE(cases); i++) {
		uint64_t us[3];
		struct world w;

		world_init(&w);
		w.repeats = i % 2;
		w.signal_late_us = i / 2 % 2 ? 40 * MS : 0; /* the flight overtakes it */
		lost.to = cases[i / 4].to;
		lost.from = cases[i / 4].from;
		lost.until = cases[i / 4].until;
		lost.n = 0;
		w.loses = loses_some;
		time_first_packets(&w, us);
		assert_in_range(us[2], 60 * MS, 2 * US_PER_S);
		world_fini(&w);
	}
}

static bool changes_answers(struct world *w, const struct item *item)
{
	if (item->kind == ITEM_ANSWER)
		item->data[w->n_stray_bytes++ % item->n_bytes] ^= 1;
	return false;
}

static void an_answer_that_was_changed_gets_no_flight(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.udp_works = false;
	w.loses = changes_answers;
	session_want(w.end[0].s, true, w.now_us);
	for (unsigned i = 0; i < 200; i++) {
		session_wake(w.end[0].s, w.now_us);
		run_for(&w, 100 * MS, NULL);
		assert_int_not_equal(w.end[0].state, SESSION_UP);
	}
	assert_int_equal(w.n_relayed, 0);
	assert_in_range(w.end[0].n_asks, 190, 201);
	world_fini(&w);
}

static uint8_t old_answer[SESSION_SIGNAL_BYTES_MAX];
static size_t old_answer_bytes;
static char old_id[OFFER_ID_BYTES + 1];

static bool keeps_answers(struct world *w, const struct item *item)
{
	(void)w;
	if (item->kind == ITEM_ANSWER) {
		memcpy(old_answer, item->data, item->n_bytes);
		old_answer_bytes = item->n_bytes;
		memcpy(old_id, item->id, sizeof(old_id));
	}
	return false;
}

static bool loses_answers(struct world *w, const struct item *item)
{
	(void)w;
	return item->kind == ITEM_ANSWER;
}

static void an_answer_to_an_older_question_gets_no_flight(void **state)
{
	struct session_answer answer = { .id = old_id, .offer = old_answer };
	struct world w;

	(void)state;
	world_init(&w);
	w.udp_works = false;
	w.loses = keeps_answers;
	bring_up(&w);
	session_want(w.end[0].s, false, w.now_us);
	run_for(&w, 5 * US_PER_S, NULL);
	w.n_relayed = 0;
	w.loses = loses_answers;
	session_want(w.end[0].s, true, w.now_us);
	run_for(&w, 100 * MS, NULL);
	assert_int_equal(w.end[0].state, SESSION_RENDEZVOUS);
	answer.route = &w.route;
	answer.peer_cert = w.end[1].cert;
	answer.offer_bytes = old_answer_bytes;
	answer.request = w.end[0].request; /* so says a server that lies */
	assert_int_equal(session_answer(w.end[0].s, &answer, w.now_us), -EBADMSG);
	run_for(&w, 100 * MS, NULL);
	assert_int_equal(w.n_relayed, 0);
	assert_int_not_equal(w.end[0].state, SESSION_UP);
	world_fini(&w);
}

/* An answer of bob's own, with a hello of our choice. */
static void answer_with_hello(struct world *w, const char *hello)
{
	static const char id[] = "0123456789abcdef0123456789abcdef";
	static const char context[] = "q2q-tun offer v1\0bob@a.test\0alice@a.test\0"
				      "0123456789abcdef0123456789abcdef";
	struct offer offer = { .has_share = true, .share = { 1 }, .cid = { 2 } };
	uint8_t plain[OFFER_PLAIN_BYTES_MAX];
	struct buffer sealed;
	size_t n;

	memcpy(offer.request, w->end[0].request, sizeof(offer.request));
	offer.hello_bytes = strlen(hello);
	memcpy(offer.hello, hello, offer.hello_bytes);
	n = offer_encode(&offer, plain, sizeof(plain));
	assert_true(n > 0);
	buffer_init(&sealed, SESSION_SIGNAL_BYTES_MAX, false);
	assert_int_equal(crypto_seal_to_cert(w->end[0].cert, w->end[1].key, context,
					     sizeof(context) - 1, plain, n, &sealed),
			 0);
	const struct session_answer answer = { .request = w->end[0].request,
					       .route = &w->route,
					       .id = id,
					       .peer_cert = w->end[1].cert,
					       .offer = buffer_peek(&sealed),
					       .offer_bytes = buffer_used(&sealed) };
	assert_int_equal(session_answer(w->end[0].s, &answer, w->now_us), 0);
	buffer_fini(&sealed);
}

static void a_hello_that_cannot_be_answered_at_once_is_as_none(void **state)
{
	static const char *const hellos[] = { "x", "\x16\x03\x01\xff\xff\x01", "GET / HTTP/1.1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hellos); i++) {
		struct world w;

		world_init(&w);
		w.udp_works = false;
		w.loses = loses_answers;
		session_want(w.end[0].s, true, w.now_us);
		run_for(&w, 100 * MS, NULL);
		answer_with_hello(&w, hellos[i]);
		run_for(&w, US_PER_S, NULL);
		/* It is the client: it says hello itself, and nothing else. */
		assert_int_equal(w.end[0].state, SESSION_CONNECTING);
		assert_in_range(w.n_relayed, 1, 5);
		world_fini(&w);
	}
}

static bool loses_relayed_to_requester(struct world *w, const struct item *item)
{
	(void)w;
	return item->kind == ITEM_RELAY && item->to == 0;
}

static void a_peer_that_answers_and_is_silent_then_is_asked_ever_more_rarely(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.udp_works = false;
	w.loses = loses_relayed_to_requester;
	session_want(w.end[0].s, true, w.now_us);
	run_for(&w, 1200 * US_PER_S, NULL);
	assert_in_range(w.end[0].n_asks, 10, 40);
	w.loses = NULL;
	assert_true(run_for(&w, 90 * US_PER_S, both_up));
	world_fini(&w);
}

/* With another identity's certificate in TLS than the one whose key makes the offers. */
static void talk_as_another(int liar)
{
	const struct tun_addresses a = addresses_of("alice@a.test", "bob@a.test"),
				   b = addresses_of("bob@a.test", "alice@a.test");
	struct end other = { .rng = 0 };
	struct crypto_tls_context *right;
	struct world w;

	world_init(&w);
	w.udp_works = false;
	/* What shows the certificate comes after packets. */
	lost.to = !liar;
	lost.from = lost.n = 0;
	lost.until = 1;
	w.loses = loses_some;
	snprintf(other.address, sizeof(other.address), "%s", w.end[liar].address);
	end_identity(&other);
	right = w.end[liar].tls;
	session_set_identity(w.end[liar].s, other.tls, w.end[liar].key);
	session_want(w.end[0].s, true, w.now_us);
	for (unsigned i = 0; i < 400; i++) {
		run_for(&w, 5 * MS, NULL);
		send_packet(&w, 0, &a, 1);
		send_packet(&w, 1, &b, 2);
	}
	/* Nothing is believed of the one that lies. */
	assert_int_equal(w.end[!liar].n_frames, 0);
	run_for(&w, 10 * US_PER_S, NULL);
	assert_int_not_equal(w.end[!liar].state, SESSION_UP);
	assert_int_not_equal(w.end[liar].state, SESSION_UP);
	session_set_identity(w.end[liar].s, right, w.end[liar].key);
	crypto_tls_context_unref(other.tls);
	crypto_cert_unref(other.cert);
	crypto_key_free(other.key);
	world_fini(&w);
}

static void nothing_is_taken_before_the_peer_has_shown_its_certificate(void **state)
{
	(void)state;
	talk_as_another(0);
	talk_as_another(1);
}

static unsigned n_ids_with_remainder(struct world *w, uint8_t divisor, uint8_t remainder)
{
	struct session_name names[SESSION_NAMES_MAX];
	unsigned n_found = 0;

	for (int i = 0; i < 2; i++)
		for (size_t n = session_names(w->end[i].s, names); n > 0; n--)
			n_found += names[n - 1].kind == SESSION_NAME_CID &&
				   names[n - 1].bytes[0] % divisor == remainder;
	return n_found;
}

static void connection_ids_leave_the_remainder_that_was_asked_for(void **state)
{
	struct world w;

	(void)state;
	for (uint8_t divisor = 2; divisor <= 16; divisor++) {
		world_cid_divisor = divisor;
		world_cid_remainder = (uint8_t)(divisor - 1);
		world_init(&w);
		bring_up(&w);
		assert_int_equal(n_ids_with_remainder(&w, divisor, world_cid_remainder), 2);
		world_fini(&w);
	}
	world_cid_divisor = world_cid_remainder = 0;
}

static void it_moves_from_the_relay_to_a_direct_path(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	assert_int_equal(session_ping(w.end[0].s, 7, w.now_us), 0);
	run_for(&w, US_PER_S, NULL);
	assert_int_equal(w.end[0].n_pongs, 1);
	assert_false(w.end[0].pong_relay);
	world_fini(&w);
}

static void without_udp_it_works_through_the_relay(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.udp_works = false;
	bring_up(&w);
	run_for(&w, 20 * US_PER_S, NULL);
	assert_true(both_up(&w));
	assert_false(is_direct(&w.end[0]));
	assert_int_equal(session_ping(w.end[1].s, 7, w.now_us), 0);
	run_for(&w, US_PER_S, NULL);
	assert_int_equal(w.end[1].n_pongs, 1);
	assert_true(w.end[1].pong_relay);
	world_fini(&w);
}

/* ---- directly, by TCP ---- */

static void world_init_tcp(struct world *w)
{
	world_init(w);
	w->udp_works = w->server_udp_works = false;
	w->tcp_works = true;
	for (int i = 0; i < 2; i++)
		session_set_stream_port(w->end[i].s, STREAM_PORT);
}

static bool is_by_tcp(const struct end *e)
{
	struct session_status status;

	session_get_status(e->s, &status);
	return status.has_path && status.stream && !status.relay;
}

static bool both_by_tcp(struct world *w)
{
	return is_by_tcp(&w->end[0]) && is_by_tcp(&w->end[1]);
}

static bool neither_by_tcp(struct world *w)
{
	return !is_by_tcp(&w->end[0]) && !is_by_tcp(&w->end[1]);
}

static void without_udp_a_peer_that_listens_is_reached_by_tcp(void **state)
{
	const struct tun_addresses a = addresses_of("alice@a.test", "bob@a.test");
	static const size_t steps[] = { 0, 1, 7, 1000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct world w;

		world_init_tcp(&w);
		w.tcp_step = steps[i] > 1 ? steps[i] : 0; /* byte by byte: the handshake alone */
		bring_up(&w);
		/* UDP has its time first, and the peer is up by then. */
		assert_false(run_for(&w, 2 * US_PER_S, both_by_tcp));
		assert_int_equal(w.n_wires, 0);
		w.tcp_step = steps[i];
		assert_true(run_for(&w, 5 * US_PER_S, both_by_tcp));
		assert_int_equal(w.n_wires, 1); /* not one of each */
		if (steps[i] == 1)
			w.tcp_step = 0;
		w.n_relayed = 0;
		assert_int_equal(session_ping(w.end[1].s, 7, w.now_us), 0);
		for (unsigned n = 0; n < 20; n++) {
			assert_int_equal(send_packet(&w, 0, &a, (uint8_t)n), 0);
			run_for(&w, 20 * MS, NULL);
		}
		run_for(&w, US_PER_S, NULL);
		assert_int_equal(w.end[1].n_pongs, 1);
		assert_false(w.end[1].pong_relay);
		assert_int_equal(w.end[1].n_frames, 20);
		assert_int_equal(w.n_relayed, 0);
		world_fini(&w);
	}
}

static void where_udp_is_known_to_be_blocked_tcp_does_not_wait(void **state)
{
	struct world w;

	(void)state;
	world_init_tcp(&w);
	w.end[0].udp_blocked = true;
	bring_up(&w);
	assert_true(run_for(&w, US_PER_S, both_by_tcp));
	world_fini(&w);
}

static void where_udp_works_nobody_connects_by_tcp(void **state)
{
	struct world w;

	(void)state;
	world_init_tcp(&w);
	w.udp_works = true;
	bring_up(&w);
	run_for(&w, 30 * US_PER_S, NULL);
	assert_true(both_direct(&w));
	assert_int_equal(w.n_wires, 0);
	world_fini(&w);
}

static void a_connection_that_ends_is_replaced_by_the_relay_then_by_another(void **state)
{
	struct world w;

	(void)state;
	world_init_tcp(&w);
	bring_up(&w);
	assert_true(run_for(&w, 8 * US_PER_S, both_by_tcp));
	w.tcp_works = false;
	cut(&w, 0);
	assert_true(run_for(&w, 2 * US_PER_S, neither_by_tcp));
	assert_true(both_up(&w));
	w.tcp_works = true;
	assert_true(run_for(&w, 60 * US_PER_S, both_by_tcp));
	world_fini(&w);
}

static void once_udp_works_the_connection_is_closed(void **state)
{
	struct world w;

	(void)state;
	world_init_tcp(&w);
	bring_up(&w);
	assert_true(run_for(&w, 8 * US_PER_S, both_by_tcp));
	w.udp_works = true;
	for (int i = 0; i < 2; i++)
		session_network_changed(w.end[i].s, w.now_us);
	assert_true(run_for(&w, 20 * US_PER_S, both_direct));
	assert_true(run_for(&w, 20 * US_PER_S, neither_by_tcp));
	run_for(&w, 40 * US_PER_S, NULL);
	assert_int_equal(w.wires[0].number[0], 0);
	assert_int_equal(w.wires[0].number[1], 0);
	assert_true(both_up(&w) && both_direct(&w));
	world_fini(&w);
}

static void a_copied_hello_and_a_forged_one_get_nothing(void **state)
{
	uint8_t hello[SESSION_STREAM_HELLO_BYTES];
	struct session_send send;
	struct world w;

	(void)state;
	world_init_tcp(&w);
	bring_up(&w);
	assert_true(run_for(&w, 8 * US_PER_S, both_by_tcp));
	/* Who connected is the one whose hello was kept with the wire. */
	for (int i = 0; i < 2; i++) {
		memcpy(hello, w.wires[0].hello, sizeof(hello));
		assert_int_equal(
			session_stream_accepted(w.end[i].s, 99, &w.end[!i].at, hello, w.now_us),
			-EBADMSG);
		hello[20] ^= 1;
		assert_int_equal(
			session_stream_accepted(w.end[i].s, 99, &w.end[!i].at, hello, w.now_us),
			-EBADMSG);
		while (session_output(w.end[i].s, &send, w.now_us))
			assert_int_not_equal(send.stream, 99);
	}
	assert_true(both_by_tcp(&w));
	world_fini(&w);
}

static void a_peer_does_not_make_us_connect_more_often(void **state)
{
	struct world w;

	(void)state;
	world_init_tcp(&w);
	w.tcp_works = false;
	w.end[0].udp_blocked = true;
	bring_up(&w);
	/* Another address with each of its lists, and a new rendezvous in between. */
	for (unsigned i = 0; i < 120; i++) {
		session_set_stream_port(w.end[1].s, (uint16_t)(5000 + i));
		session_network_changed(w.end[1].s, w.now_us);
		if (i == 60)
			session_route_lost(w.end[1].s, &w.route, w.now_us);
		run_for(&w, US_PER_S / 2, NULL);
	}
	assert_in_range(w.end[0].n_wants, 2, 7);
	world_fini(&w);
}

static void in_relay_mode_nobody_is_connected_to(void **state)
{
	struct session_name names[SESSION_NAMES_MAX];
	struct endpoint targets[SESSION_STREAMS_MAX];
	struct world w;

	(void)state;
	world_init_tcp(&w);
	session_set_path_mode(w.end[0].s, SESSION_PATH_RELAY, w.now_us);
	bring_up(&w);
	run_for(&w, 20 * US_PER_S, NULL);
	assert_true(both_up(&w));
	assert_int_equal(w.n_wires, 0);
	assert_int_equal(session_stream_targets(w.end[1].s, targets, ARRAY_SIZE(targets)), 0);
	for (size_t n = session_names(w.end[0].s, names); n > 0; n--)
		assert_int_not_equal(names[n - 1].kind, SESSION_NAME_STREAM);
	world_fini(&w);
}

static void without_a_direct_path_the_relay_goes_by_udp(void **state)
{
	const struct tun_addresses a = addresses_of("alice@a.test", "bob@a.test");
	struct world w;
	unsigned n_relayed;

	(void)state;
	world_init(&w);
	w.udp_works = false;
	w.gives_channels = true;
	bring_up(&w);
	assert_false(both_relayed_by_udp(&w));
	assert_true(run_for(&w, 5 * US_PER_S, both_relayed_by_udp));
	run_for(&w, US_PER_S, NULL);
	n_relayed = w.n_relayed;
	for (uint8_t i = 0; i < 50; i++)
		assert_int_equal(send_packet(&w, 0, &a, i), 0);
	run_for(&w, US_PER_S, NULL);
	assert_int_equal(w.end[1].n_frames, 50);
	assert_int_equal(w.n_relayed, n_relayed);
	assert_true(w.n_channel_data > 0);
	world_fini(&w);
}

static void when_the_relay_by_udp_fails_that_by_tls_takes_over_and_back(void **state)
{
	const struct tun_addresses a = addresses_of("alice@a.test", "bob@a.test");
	struct world w;

	(void)state;
	world_init(&w);
	w.udp_works = false;
	w.gives_channels = true;
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_relayed_by_udp));
	w.server_udp_works = false;
	for (uint8_t i = 0; i < 20; i++) {
		assert_int_equal(send_packet(&w, 0, &a, i), 0);
		run_for(&w, 200 * MS, NULL);
	}
	/* Repair is bounded: what was sent before the failure was noticed may be given up. */
	assert_in_range(w.end[1].n_frames, 18, 20);
	run_for(&w, 60 * US_PER_S, NULL);
	assert_true(both_up(&w));
	assert_false(is_relayed_by_udp(&w.end[0]));
	w.server_udp_works = true;
	assert_true(run_for(&w, 90 * US_PER_S, both_relayed_by_udp));
	world_fini(&w);
}

static void with_a_direct_path_the_channel_is_left_to_rest(void **state)
{
	struct world w;
	unsigned n_binds;

	(void)state;
	world_init(&w);
	w.gives_channels = true;
	w.udp_works = false;
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_relayed_by_udp));
	w.udp_works = true;
	assert_true(run_for(&w, 30 * US_PER_S, both_direct));
	run_for(&w, 30 * US_PER_S, NULL);
	n_binds = w.end[0].n_binds + w.end[1].n_binds;
	run_for(&w, 120 * US_PER_S, NULL);
	assert_true(both_direct(&w));
	assert_int_equal(w.end[0].n_binds + w.end[1].n_binds, n_binds);
	/* It is there again when it is needed. */
	w.udp_works = false;
	assert_true(run_for(&w, 60 * US_PER_S, both_relayed_by_udp));
	world_fini(&w);
}

static void a_peer_that_is_direct_at_once_asks_for_no_channel(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.gives_channels = true;
	bring_up(&w);
	run_for(&w, 10 * US_PER_S, NULL);
	assert_true(both_direct(&w));
	assert_false(w.end[0].has_channel || w.end[1].has_channel);
	world_fini(&w);
}

static void strange_datagrams_of_a_channel_change_nothing(void **state)
{
	uint8_t forged[Q2Q_CHANNEL_BIND_BYTES], other[200];
	struct endpoint stranger;
	struct end *e;
	struct world w;

	(void)state;
	world_init(&w);
	w.udp_works = false;
	w.gives_channels = true;
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_relayed_by_udp));
	e = &w.end[0];
	assert_int_equal(endpoint_parse("203.0.113.9:8788", false, &stranger), 0);
	assert_int_equal(q2q_channel_seal(Q2Q_CHANNEL_BOUND, e->channel, e->channel_key,
					  e->bind_counter, forged),
			 0);
	assert_int_equal(session_channel_input(e->s, &stranger, forged, sizeof(forged), w.now_us),
			 -EBADMSG);
	forged[sizeof(forged) - 1] ^= 1;
	assert_int_equal(session_channel_input(e->s, &w.server, forged, sizeof(forged), w.now_us),
			 -EBADMSG);
	memset(other, 0, sizeof(other));
	q2q_channel_header(Q2Q_CHANNEL_DATA, w.end[1].channel, other);
	assert_int_equal(session_channel_input(e->s, &w.server, other, sizeof(other), w.now_us),
			 -EBADMSG);
	q2q_channel_header(Q2Q_CHANNEL_DATA, e->channel, other);
	assert_true(session_channel_input(e->s, &w.server, other, sizeof(other), w.now_us) < 0);
	assert_true(both_relayed_by_udp(&w));
	world_fini(&w);
}

static void packets_travel_both_ways(void **state)
{
	struct tun_addresses a, b;
	struct world w;

	(void)state;
	world_init(&w);
	a = addresses_of(w.end[0].address, w.end[1].address);
	b = addresses_of(w.end[1].address, w.end[0].address);
	bring_up(&w);
	assert_int_equal(send_packet(&w, 0, &a, 1), 0);
	assert_int_equal(send_packet(&w, 1, &b, 2), 0);
	run_for(&w, 100 * MS, NULL);
	assert_int_equal(w.end[1].n_frames, 1);
	assert_int_equal(w.end[0].n_frames, 1);
	assert_int_equal(w.end[1].frame[31], 1);
	assert_int_equal(w.end[0].frame[31], 2);
	world_fini(&w);
}

static void addresses_that_are_shown_differently_are_rewritten(void **state)
{
	static const uint8_t own4[4] = { 100, 64, 1, 1 }, peer4[4] = { 100, 64, 2, 2 };
	struct tun_addresses a, b;
	struct world w;

	(void)state;
	world_init(&w);
	a = addresses_of(w.end[0].address, w.end[1].address);
	b = addresses_of(w.end[1].address, w.end[0].address);
	memcpy(a.own4, own4, 4);
	memcpy(a.peer4, peer4, 4);
	session_set_device(w.end[0].s, &a, TUN_FEATURE_VNET);
	bring_up(&w);
	assert_int_equal(send_packet(&w, 0, &a, 1), 0);
	assert_int_equal(send_packet(&w, 1, &b, 2), 0);
	run_for(&w, 100 * MS, NULL);
	assert_int_equal(w.end[1].n_frames, 1);
	assert_memory_equal(w.end[1].frame + 12, b.peer4, 4);
	assert_memory_equal(w.end[1].frame + 16, b.own4, 4);
	assert_int_equal(w.end[0].n_frames, 1);
	assert_memory_equal(w.end[0].frame + 12, peer4, 4);
	assert_memory_equal(w.end[0].frame + 16, own4, 4);
	world_fini(&w);
}

static void packets_with_a_strange_source_or_destination_do_not_pass(void **state)
{
	struct tun_addresses a;
	struct session_status status;
	struct world w;

	(void)state;
	world_init(&w);
	bring_up(&w);
	a = addresses_of(w.end[0].address, w.end[1].address);
	a.own4[3] ^= 1;
	assert_int_equal(send_packet(&w, 0, &a, 1), 0);
	a.own4[3] ^= 1;
	a.peer4[3] ^= 1;
	assert_int_equal(send_packet(&w, 0, &a, 2), 0);
	/* The sender's side lies about its own address: the receiver's side must notice. */
	a.peer4[3] ^= 1;
	run_for(&w, 100 * MS, NULL);
	assert_int_equal(w.end[1].n_frames, 0);
	session_get_status(w.end[0].s, &status);
	assert_int_equal(status.tun_bad, 2);
	world_fini(&w);
}

static void both_ask_at_once_and_one_attempt_wins(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	session_want(w.end[0].s, true, w.now_us);
	session_want(w.end[1].s, true, w.now_us);
	assert_true(run_for(&w, 3 * US_PER_S, both_up));
	assert_in_range(w.now_us - 1000 * US_PER_S, 0, 300 * MS);
	assert_int_equal(w.end[0].n_asks, 1);
	assert_int_equal(w.end[1].n_asks, 1);
	run_for(&w, 10 * US_PER_S, NULL);
	assert_true(both_up(&w));
	assert_int_equal(w.end[1].n_asks, 1);
	world_fini(&w);
}

static void a_peer_that_is_offline_is_tried_until_it_is_there(void **state)
{
	struct session_status status;
	struct world w;

	(void)state;
	world_init(&w);
	w.end[1].online = false;
	session_want(w.end[0].s, true, w.now_us);
	run_for(&w, 60 * US_PER_S, NULL);
	assert_int_equal(w.end[0].state, SESSION_WAITING);
	session_get_status(w.end[0].s, &status);
	assert_int_equal(status.why, SESSION_WHY_OFFLINE);
	/* After 5, 7.5, 11.25 ... seconds. */
	assert_in_range(w.end[0].n_asks, 4, 7);
	w.end[1].online = true;
	assert_true(run_for(&w, 70 * US_PER_S, both_up));
	world_fini(&w);
}

static void a_peer_that_refuses_is_told_apart(void **state)
{
	struct session_status status;
	struct world w;

	(void)state;
	world_init(&w);
	w.end[1].refuses = true;
	session_want(w.end[0].s, true, w.now_us);
	run_for(&w, US_PER_S, NULL);
	session_get_status(w.end[0].s, &status);
	assert_int_equal(status.why, SESSION_WHY_REFUSED);
	assert_int_equal(w.n_relayed + w.n_udp, 0);
	w.end[1].refuses = false;
	session_wake(w.end[0].s, w.now_us);
	assert_true(run_for(&w, US_PER_S, both_up));
	world_fini(&w);
}

static void taking_it_down_is_told_to_the_peer(void **state)
{
	struct session_status status;
	struct world w;

	(void)state;
	world_init(&w);
	bring_up(&w);
	session_want(w.end[0].s, false, w.now_us);
	run_for(&w, 400 * MS, NULL);
	assert_int_equal(w.end[0].state, SESSION_DOWN);
	assert_int_equal(w.end[1].state, SESSION_DOWN);
	session_get_status(w.end[1].s, &status);
	assert_int_equal(status.why, SESSION_WHY_PEER_DOWN);
	run_for(&w, 60 * US_PER_S, NULL);
	assert_int_equal(w.end[0].n_asks, 1);
	assert_int_equal(w.end[1].n_asks, 0);
	world_fini(&w);
}

static void a_peer_that_was_killed_is_noticed_and_its_return_too(void **state)
{
	struct tun_addresses a;
	struct world w;

	(void)state;
	world_init(&w);
	a = addresses_of(w.end[0].address, w.end[1].address);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	/* Killed: nothing is said, its memory is gone; it is back after 20 s. */
	session_free(w.end[1].s);
	w.end[1].online = false;
	end_start(&w, 1);
	run_for(&w, 15 * US_PER_S, NULL);
	assert_int_not_equal(w.end[0].state, SESSION_UP);
	run_for(&w, 5 * US_PER_S, NULL);
	w.end[1].online = true;
	assert_true(run_for(&w, 15 * US_PER_S, both_up));
	assert_int_equal(send_packet(&w, 0, &a, 9), 0);
	run_for(&w, 200 * MS, NULL);
	assert_int_equal(w.end[1].n_frames, 1);
	world_fini(&w);
}

static void a_peer_that_restarts_and_asks_replaces_the_old_association(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	bring_up(&w);
	session_free(w.end[1].s);
	end_start(&w, 1);
	session_want(w.end[1].s, true, w.now_us);
	assert_true(run_for(&w, US_PER_S, both_up));
	world_fini(&w);
}

/* The server restarts: its rendezvous are gone, the direct path goes on, a new one follows. */
static void a_server_restart_does_not_end_the_association(void **state)
{
	struct session_status before, after;
	struct world w;

	(void)state;
	world_init(&w);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	session_get_status(w.end[0].s, &before);
	for (int i = 0; i < 2; i++) {
		w.end[i].online = false;
		session_route_lost(w.end[i].s, &w.route, w.now_us);
	}
	run_for(&w, 5 * US_PER_S, NULL);
	assert_true(both_up(&w));
	session_get_status(w.end[0].s, &after);
	assert_false(after.has_rendezvous);
	for (int i = 0; i < 2; i++) {
		w.end[i].online = true;
		session_wake(w.end[i].s, w.now_us);
	}
	run_for(&w, 10 * US_PER_S, NULL);
	assert_true(both_up(&w));
	session_get_status(w.end[0].s, &after);
	assert_true(after.has_rendezvous);
	assert_int_equal(after.since_us, before.since_us);
	/* Signals and relay work again: without UDP it goes on. */
	w.udp_works = false;
	run_for(&w, 20 * US_PER_S, NULL);
	assert_true(both_up(&w));
	assert_false(is_direct(&w.end[0]));
	session_get_status(w.end[0].s, &after);
	assert_int_equal(after.since_us, before.since_us);
	world_fini(&w);
}

/* Both servers' connections are lost and back, as when a certificate was renewed. */
static void reconnect(struct world *w)
{
	for (int i = 0; i < 2; i++)
		session_route_lost(w->end[i].s, &w->route, w->now_us);
	run_for(w, 10 * US_PER_S, NULL);
	assert_true(both_up(w));
}

static void a_certificate_that_was_renewed_is_the_peers_one_in_the_same_association(void **state)
{
	struct session_status before, after;
	struct crypto_cert *first, *shorter, *other;
	struct crypto_key *key;
	struct world w;

	(void)state;
	world_init(&w);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	session_get_status(w.end[0].s, &before);
	first = w.end[1].cert;
	assert_ptr_equal(session_peer_cert(w.end[0].s), first);
	w.end[1].cert = end_certificate(&w.end[1], 730);
	reconnect(&w);
	assert_ptr_equal(session_peer_cert(w.end[0].s), w.end[1].cert);
	assert_ptr_equal(session_peer_cert(w.end[1].s), w.end[0].cert);
	session_get_status(w.end[0].s, &after);
	assert_int_equal(after.since_us, before.since_us);
	/* One that ends earlier says nothing new. */
	shorter = w.end[1].cert;
	w.end[1].cert = first;
	reconnect(&w);
	assert_ptr_equal(session_peer_cert(w.end[0].s), shorter);
	/* Nor does one of another key, which this association has not proven. */
	key = w.end[1].key;
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &w.end[1].key), 0);
	other = end_certificate(&w.end[1], 1000);
	crypto_key_free(w.end[1].key);
	w.end[1].key = key;
	w.end[1].cert = other;
	session_route_lost(w.end[0].s, &w.route, w.now_us);
	session_route_lost(w.end[1].s, &w.route, w.now_us);
	run_for(&w, 10 * US_PER_S, NULL);
	assert_ptr_not_equal(session_peer_cert(w.end[0].s), other);
	w.end[1].cert = first;
	crypto_cert_unref(shorter);
	crypto_cert_unref(other);
	world_fini(&w);
}

/* The relay path died with the server: the association stalls, then goes on over a new one. */
static void a_stalled_association_goes_on_after_a_new_rendezvous(void **state)
{
	struct session_status status;
	struct world w;
	uint64_t sent;
	unsigned asks;

	(void)state;
	world_init(&w);
	w.udp_works = false;
	bring_up(&w);
	run_for(&w, 2 * US_PER_S, NULL);
	session_get_status(w.end[0].s, &status);
	sent = status.ptcp.packets_sent;
	for (int i = 0; i < 2; i++) {
		w.end[i].online = false;
		session_route_lost(w.end[i].s, &w.route, w.now_us);
	}
	run_for(&w, 15 * US_PER_S, NULL);
	assert_int_equal(w.end[0].state, SESSION_STALLED);
	for (int i = 0; i < 2; i++) {
		w.end[i].online = true;
		session_wake(w.end[i].s, w.now_us);
	}
	asks = w.end[0].n_asks;
	assert_true(run_for(&w, 10 * US_PER_S, both_up));
	assert_int_equal(w.end[0].n_asks, asks + 1);
	session_get_status(w.end[0].s, &status);
	assert_true(status.ptcp.packets_sent > sent);
	world_fini(&w);
}

static void a_new_address_of_the_peer_becomes_a_path(void **state)
{
	struct tun_addresses b;
	struct session_status status;
	struct world w;

	(void)state;
	world_init(&w);
	b = addresses_of(w.end[1].address, w.end[0].address);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	/* Bob's NAT forgets and gives him another port; he goes on sending. */
	assert_int_equal(endpoint_parse("10.0.0.2:5555", false, &w.end[1].at), 0);
	for (int i = 0; i < 30; i++) {
		assert_int_equal(send_packet(&w, 1, &b, (uint8_t)i), 0);
		run_for(&w, 100 * MS, NULL);
	}
	assert_int_equal(w.end[0].n_frames, 30);
	session_get_status(w.end[0].s, &status);
	assert_true(status.state == SESSION_UP);
	assert_true(status.has_path && !status.relay);
	assert_int_equal(status.remote.port, 5555);
	world_fini(&w);
}

static void a_peer_that_moves_again_and_again_is_followed(void **state)
{
	struct session_status status;
	struct tun_addresses b;
	struct world w;

	(void)state;
	world_init(&w);
	b = addresses_of(w.end[1].address, w.end[0].address);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	/* More often than there is room for paths. */
	for (unsigned move = 0; move < 3 * PTCP_PATHS_MAX; move++) {
		w.end[1].at.port = (uint16_t)(5000 + move);
		for (int i = 0; i < 30; i++) {
			assert_int_equal(send_packet(&w, 1, &b, (uint8_t)i), 0);
			run_for(&w, 100 * MS, NULL);
		}
		session_get_status(w.end[0].s, &status);
		assert_true(status.state == SESSION_UP && status.has_path && !status.relay);
		assert_int_equal(status.remote.port, w.end[1].at.port);
	}
	world_fini(&w);
}

/* Somebody on the way copies packets of bob and sends them as if from elsewhere, faster. */
static void copied_packets_aim_no_stream_at_others(void **state)
{
	struct session_status status;
	struct tun_addresses b;
	struct endpoint victim;
	size_t n_bytes_in = 0;
	struct world w;

	(void)state;
	world_init(&w);
	b = addresses_of(w.end[1].address, w.end[0].address);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	assert_int_equal(endpoint_parse("192.0.2.66:7000", false, &victim), 0);
	w.n_stray_bytes = 0;
	for (unsigned i = 0; i < 3 * PTCP_PATHS_MAX; i++) {
		struct item *item;

		assert_int_equal(send_packet(&w, 1, &b, (uint8_t)i), 0);
		pump(&w, 1);
		victim.port++;
		TAILQ_FOREACH (item, &w.items, entry)
			if (item->kind == ITEM_UDP && item->to == 0) {
				item->from = victim;
				n_bytes_in += item->n_bytes;
			}
		run_for(&w, 50 * MS, NULL);
	}
	run_for(&w, 60 * US_PER_S, NULL);
	assert_true(w.n_stray_bytes <= 3 * n_bytes_in);
	/* And there is still room for where bob really goes. */
	w.end[1].at.port = 6001;
	for (int i = 0; i < 30; i++) {
		assert_int_equal(send_packet(&w, 1, &b, (uint8_t)i), 0);
		run_for(&w, 100 * MS, NULL);
	}
	session_get_status(w.end[0].s, &status);
	assert_int_equal(status.remote.port, 6001);
	world_fini(&w);
}

/* The peer sends its packets through the tunnel itself, to our port there. */
static void a_tunnel_does_not_become_a_path_of_itself(void **state)
{
	struct session_status status;
	struct tun_addresses b;
	struct world w;

	(void)state;
	world_init(&w);
	b = addresses_of(w.end[1].address, w.end[0].address);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	w.end[1].at.ip.family = FAMILY_IPV6;
	memcpy(w.end[1].at.ip.bytes, b.own6, 16);
	w.n_stray_bytes = 0;
	for (int i = 0; i < 30; i++) {
		send_packet(&w, 1, &b, (uint8_t)i);
		run_for(&w, 100 * MS, NULL);
	}
	session_get_status(w.end[0].s, &status);
	assert_false(status.has_path && !status.relay && status.remote.ip.family == FAMILY_IPV6);
	world_fini(&w);
}

/* To judge an address costs a question to the kernel: who only knows the connection id has none. */
static void a_stranger_does_not_make_us_judge_its_address(void **state)
{
	struct session_name names[SESSION_NAMES_MAX];
	struct endpoint from;
	uint8_t datagram[100];
	struct world w;
	size_t n;

	(void)state;
	world_init(&w);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	assert_int_equal(endpoint_parse("198.51.100.7:4000", false, &from), 0);
	n = session_names(w.end[0].s, names);
	for (size_t i = 0; i < n; i++) {
		if (names[i].kind != SESSION_NAME_CID)
			continue;
		w.end[0].n_judged = 0;
		memset(datagram, 0x41, sizeof(datagram));
		memcpy(datagram + 1, names[i].bytes, PTCP_CID_BYTES);
		for (int k = 0; k < 10; k++)
			assert_true(session_input(w.end[0].s, 0, &from, datagram, sizeof(datagram),
						  0, w.now_us) < 0);
		assert_int_equal(w.end[0].n_judged, 0);
		world_fini(&w);
		return;
	}
	fail_msg("no connection id");
}

/* At each place where it can happen, in turn. */
static void running_out_of_randomness_ends_an_attempt_and_nothing_else(void **state)
{
	(void)state;
	for (unsigned calls = 1; calls < 12; calls++) {
		struct session_status status;
		struct tun_addresses a;
		struct world w;

		world_init(&w);
		a = addresses_of(w.end[0].address, w.end[1].address);
		bring_up(&w);
		session_free(w.end[1].s);
		end_start(&w, 1);
		w.end[0].random_left = calls;
		session_want(w.end[1].s, true, w.now_us);
		for (int i = 0; i < 20; i++) {
			run_for(&w, US_PER_S, NULL);
			send_packet(&w, 0, &a, 1);
			session_get_status(w.end[0].s, &status);
		}
		w.end[0].random_left = 0;
		assert_true(run_for(&w, 400 * US_PER_S, both_up));
		world_fini(&w);
	}
}

/* Both machines sleep: the clock goes on, nothing else does. */
static void after_hours_of_sleep_the_link_comes_back(void **state)
{
	struct tun_addresses a;
	struct world w;
	unsigned frames;

	(void)state;
	world_init(&w);
	a = addresses_of(w.end[0].address, w.end[1].address);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	while (!TAILQ_EMPTY(&w.items))
		item_free(&w, TAILQ_FIRST(&w.items));
	w.now_us += 5 * 3600 * US_PER_S;
	for (int i = 0; i < 2; i++)
		session_network_changed(w.end[i].s, w.now_us);
	run_for(&w, 5 * US_PER_S, NULL);
	assert_true(both_up(&w));
	frames = w.end[1].n_frames;
	assert_int_equal(send_packet(&w, 0, &a, 1), 0);
	run_for(&w, US_PER_S, NULL);
	assert_int_equal(w.end[1].n_frames, frames + 1);
	world_fini(&w);
}

/* One of the two sleeps for an hour, longer than any timeout; the other one's clock runs on. */
static void after_an_hour_of_sleep_of_one_side_the_link_comes_back(void **state)
{
	(void)state;
	for (int sleeper = 0; sleeper < 2; sleeper++) {
		struct end *e;
		struct tun_addresses a;
		struct world w;
		unsigned frames;

		world_init(&w);
		e = &w.end[sleeper];
		a = addresses_of(w.end[!sleeper].address, e->address);
		session_want(w.end[1].s, true, w.now_us);
		bring_up(&w);
		assert_true(run_for(&w, 5 * US_PER_S, both_direct));
		e->asleep = true;
		e->online = false;
		run_for(&w, 3600 * US_PER_S, NULL);
		assert_int_not_equal(w.end[!sleeper].state, SESSION_UP);
		/* Awake: its connection to the server has died, and is made again. */
		e->asleep = false;
		session_route_lost(e->s, &w.route, w.now_us);
		session_network_changed(e->s, w.now_us);
		e->online = true;
		session_wake(e->s, w.now_us);
		assert_true(run_for(&w, 3 * US_PER_S, both_up));
		run_for(&w, US_PER_S, NULL);
		frames = e->n_frames;
		assert_int_equal(send_packet(&w, !sleeper, &a, 1), 0);
		run_for(&w, US_PER_S, NULL);
		assert_int_equal(e->n_frames, frames + 1);
		world_fini(&w);
	}
}

static void a_nudge_asks_once_and_finds_a_peer_that_waits(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	/* Alice has been failing for a long time; bob, whom she wants, comes back and nudges her.
	 */
	w.end[1].online = false;
	session_want(w.end[0].s, true, w.now_us);
	run_for(&w, 600 * US_PER_S, NULL);
	w.end[1].online = true;
	session_nudge(w.end[1].s, w.now_us);
	assert_true(run_for(&w, US_PER_S, both_up));
	world_fini(&w);

	/* Nobody there: one question, then silence. */
	world_init(&w);
	w.end[0].refuses = true;
	session_nudge(w.end[1].s, w.now_us);
	run_for(&w, 600 * US_PER_S, NULL);
	assert_int_equal(w.end[1].n_asks, 1);
	assert_int_equal(w.end[1].state, SESSION_DOWN);
	world_fini(&w);
}

/* The server cuts the connection of end i: the other one is told that the rendezvous is over. */
static void cut_off(struct world *w, int i)
{
	struct session_name names[SESSION_NAMES_MAX];
	const size_t n = session_names(w->end[!i].s, names);
	char id[OFFER_ID_BYTES + 1] = "";

	for (size_t k = 0; k < n; k++)
		if (names[k].kind == SESSION_NAME_ID)
			memcpy(id, names[k].bytes, OFFER_ID_BYTES);
	assert_true(*id);
	w->end[i].online = false;
	session_route_lost(w->end[i].s, &w->route, w->now_us);
	assert_int_equal(session_gone(w->end[!i].s, id, w->now_us), 0);
}

static void an_account_that_is_disabled_loses_its_direct_tunnel_whoever_wanted_it(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct session_status status;
		struct world w;

		/* End 0 wants the link, end 1 only allows it. */
		world_init(&w);
		bring_up(&w);
		assert_true(run_for(&w, 5 * US_PER_S, both_direct));
		session_get_status(w.end[1].s, &status);
		assert_false(status.wanted);
		w.end[i].disabled = true;
		cut_off(&w, i);
		run_for(&w, 15 * US_PER_S, NULL);
		for (int k = 0; k < 2; k++) {
			session_get_status(w.end[k].s, &status);
			assert_int_not_equal(status.state, SESSION_UP);
			assert_false(status.has_ptcp);
		}
		if (i == 1) {
			session_get_status(w.end[0].s, &status);
			assert_int_equal(status.why, SESSION_WHY_DISABLED);
		}
		/* It is enabled again: the link comes back by itself. */
		w.end[i].disabled = false;
		w.end[i].online = true;
		session_wake(w.end[0].s, w.now_us);
		assert_true(run_for(&w, 20 * US_PER_S, both_up));
		world_fini(&w);
	}
}

/* Offline, which says nothing of the account, leaves a direct tunnel alone; and is asked once. */
static void an_end_that_only_lost_its_server_keeps_its_direct_tunnel(void **state)
{
	struct world w;
	unsigned asks;

	(void)state;
	world_init(&w);
	bring_up(&w);
	assert_true(run_for(&w, 5 * US_PER_S, both_direct));
	asks = w.end[1].n_asks;
	cut_off(&w, 0);
	run_for(&w, 60 * US_PER_S, NULL);
	assert_true(both_up(&w));
	assert_int_equal(w.end[1].n_asks, asks + 1);
	world_fini(&w);
}

static void forged_signals_change_nothing(void **state)
{
	struct session_status status;
	uint8_t junk[400];
	struct world w;

	(void)state;
	world_init(&w);
	bring_up(&w);
	memset(junk, 0x41, sizeof(junk));
	assert_int_equal(session_signal(w.end[0].s, "00000000000000000000000000000000", junk,
					sizeof(junk), w.now_us),
			 -ENOENT);
	session_get_status(w.end[0].s, &status);
	assert_true(status.has_rendezvous);
	run_for(&w, US_PER_S, NULL);
	assert_true(both_up(&w));
	world_fini(&w);
}

static void a_peer_with_another_key_than_the_rendezvous_told_is_not_connected(void **state)
{
	struct crypto_tls_context *right;
	struct end other = { .address = "bob@a.test" };
	struct world w;

	(void)state;
	world_init(&w);
	/* Bob's offers are by his key, but in TLS he shows another one of the same domain. */
	end_identity(&other);
	right = w.end[1].tls;
	session_set_identity(w.end[1].s, other.tls, w.end[1].key);
	session_want(w.end[0].s, true, w.now_us);
	run_for(&w, 10 * US_PER_S, NULL);
	assert_int_not_equal(w.end[0].state, SESSION_UP);
	session_set_identity(w.end[1].s, right, w.end[1].key);
	crypto_tls_context_unref(other.tls);
	crypto_cert_unref(other.cert);
	crypto_key_free(other.key);
	world_fini(&w);
}

static void in_relay_mode_no_udp_leaves(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	session_set_path_mode(w.end[0].s, SESSION_PATH_RELAY, w.now_us);
	session_set_path_mode(w.end[1].s, SESSION_PATH_RELAY, w.now_us);
	bring_up(&w);
	run_for(&w, 10 * US_PER_S, NULL);
	assert_true(both_up(&w));
	assert_int_equal(w.n_udp, 0);
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_side_wants_the_link_and_both_come_up),
		cmocka_unit_test(the_first_packet_leaves_when_the_answer_comes),
		cmocka_unit_test(with_a_peer_that_knows_no_hello_it_takes_a_trip_more),
		cmocka_unit_test(flights_that_are_lost_late_or_repeated_cost_time_alone),
		cmocka_unit_test(an_answer_that_was_changed_gets_no_flight),
		cmocka_unit_test(an_answer_to_an_older_question_gets_no_flight),
		cmocka_unit_test(a_hello_that_cannot_be_answered_at_once_is_as_none),
		cmocka_unit_test(a_peer_that_answers_and_is_silent_then_is_asked_ever_more_rarely),
		cmocka_unit_test(nothing_is_taken_before_the_peer_has_shown_its_certificate),
		cmocka_unit_test(connection_ids_leave_the_remainder_that_was_asked_for),
		cmocka_unit_test(it_moves_from_the_relay_to_a_direct_path),
		cmocka_unit_test(without_udp_it_works_through_the_relay),
		cmocka_unit_test(without_udp_a_peer_that_listens_is_reached_by_tcp),
		cmocka_unit_test(where_udp_is_known_to_be_blocked_tcp_does_not_wait),
		cmocka_unit_test(where_udp_works_nobody_connects_by_tcp),
		cmocka_unit_test(a_connection_that_ends_is_replaced_by_the_relay_then_by_another),
		cmocka_unit_test(once_udp_works_the_connection_is_closed),
		cmocka_unit_test(a_copied_hello_and_a_forged_one_get_nothing),
		cmocka_unit_test(a_peer_does_not_make_us_connect_more_often),
		cmocka_unit_test(in_relay_mode_nobody_is_connected_to),
		cmocka_unit_test(without_a_direct_path_the_relay_goes_by_udp),
		cmocka_unit_test(when_the_relay_by_udp_fails_that_by_tls_takes_over_and_back),
		cmocka_unit_test(with_a_direct_path_the_channel_is_left_to_rest),
		cmocka_unit_test(a_peer_that_is_direct_at_once_asks_for_no_channel),
		cmocka_unit_test(strange_datagrams_of_a_channel_change_nothing),
		cmocka_unit_test(packets_travel_both_ways),
		cmocka_unit_test(addresses_that_are_shown_differently_are_rewritten),
		cmocka_unit_test(packets_with_a_strange_source_or_destination_do_not_pass),
		cmocka_unit_test(both_ask_at_once_and_one_attempt_wins),
		cmocka_unit_test(a_peer_that_is_offline_is_tried_until_it_is_there),
		cmocka_unit_test(a_peer_that_refuses_is_told_apart),
		cmocka_unit_test(taking_it_down_is_told_to_the_peer),
		cmocka_unit_test(a_peer_that_was_killed_is_noticed_and_its_return_too),
		cmocka_unit_test(a_peer_that_restarts_and_asks_replaces_the_old_association),
		cmocka_unit_test(a_server_restart_does_not_end_the_association),
		cmocka_unit_test(
			a_certificate_that_was_renewed_is_the_peers_one_in_the_same_association),
		cmocka_unit_test(a_stalled_association_goes_on_after_a_new_rendezvous),
		cmocka_unit_test(a_new_address_of_the_peer_becomes_a_path),
		cmocka_unit_test(a_peer_that_moves_again_and_again_is_followed),
		cmocka_unit_test(copied_packets_aim_no_stream_at_others),
		cmocka_unit_test(a_tunnel_does_not_become_a_path_of_itself),
		cmocka_unit_test(a_stranger_does_not_make_us_judge_its_address),
		cmocka_unit_test(running_out_of_randomness_ends_an_attempt_and_nothing_else),
		cmocka_unit_test(after_hours_of_sleep_the_link_comes_back),
		cmocka_unit_test(after_an_hour_of_sleep_of_one_side_the_link_comes_back),
		cmocka_unit_test(a_nudge_asks_once_and_finds_a_peer_that_waits),
		cmocka_unit_test(
			an_account_that_is_disabled_loses_its_direct_tunnel_whoever_wanted_it),
		cmocka_unit_test(an_end_that_only_lost_its_server_keeps_its_direct_tunnel),
		cmocka_unit_test(forged_signals_change_nothing),
		cmocka_unit_test(a_peer_with_another_key_than_the_rendezvous_told_is_not_connected),
		cmocka_unit_test(in_relay_mode_no_udp_leaves),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
