/*
 * What threads need of net: letters into a loop, turns, and one port for several sockets.
 */
#include "net_rig.h"

#include <pthread.h>
#include <sched.h>

/* ---- mailboxes ---- */

enum { SENDERS = 4, LETTERS = 2000, ROOM = 64, BODY_MAX = 50 };

struct head {
	unsigned sender, number;
	size_t body_bytes;
};

struct receiver {
	struct net_mailbox *mailbox;
	unsigned next[SENDERS], n_letters, n_rung;
	bool done;
};

struct sender {
	struct receiver *to;
	unsigned number, n_full;
	pthread_t thread;
};

static void check_letter(void *user, void *data)
{
	struct receiver *r = user;
	const struct head *head = data;
	const uint8_t *body = (const uint8_t *)(head + 1);

	assert_true(head->sender < SENDERS);
	assert_int_equal(head->number, r->next[head->sender]);
	r->next[head->sender]++;
	assert_int_equal(head->body_bytes, head->number % BODY_MAX);
	for (size_t i = 0; i < head->body_bytes; i++)
		assert_int_equal(body[i], (uint8_t)(head->number + i));
	r->done = ++r->n_letters == SENDERS * LETTERS;
}

static void *send_letters(void *user)
{
	struct sender *s = user;
	uint8_t body[BODY_MAX];

	for (unsigned i = 0; i < LETTERS; i++) {
		const struct head head = { .sender = s->number,
					   .number = i,
					   .body_bytes = i % BODY_MAX };

		for (size_t k = 0; k < head.body_bytes; k++)
			body[k] = (uint8_t)(i + k);
		while (net_mailbox_post(s->to->mailbox, &head, sizeof(head), body,
					head.body_bytes)) {
			s->n_full++;
			sched_yield();
		}
	}
	return NULL;
}

static void letters_of_many_threads_arrive_whole_and_in_the_order_of_each(void **state)
{
	struct receiver r = { .done = false };
	const struct net_mailbox_config config = {
		.letters_max = ROOM,
		.bytes_max = 1 << 20,
		.on_letter = check_letter,
		.user = &r,
	};
	struct sender senders[SENDERS];

	(void)state;
	assert_int_equal(net_mailbox_new(loop, &config, &r.mailbox), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ .to = &r, .number = i };
		assert_int_equal(
			pthread_create(&senders[i].thread, NULL, send_letters, &senders[i]), 0);
	}
	run_until(&r.done);
	for (unsigned i = 0; i < SENDERS; i++) {
		assert_int_equal(pthread_join(senders[i].thread, NULL), 0);
		assert_int_equal(r.next[i], LETTERS);
	}
	net_mailbox_free(r.mailbox);
}

static void count_letter(void *user, void *data)
{
	struct receiver *r = user;

	(void)data;
	r->n_letters++;
}

static void count_rung(void *user)
{
	struct receiver *r = user;

	r->n_rung++;
	r->done = true;
}

static void a_mailbox_takes_no_more_than_its_bounds(void **state)
{
	struct receiver r = { .done = false };
	const struct net_mailbox_config config = {
		.letters_max = 3,
		.bytes_max = 100,
		.on_letter = count_letter,
		.on_rung = count_rung,
		.user = &r,
	};
	const uint8_t data[101] = { 0 };

	(void)state;
	assert_int_equal(net_mailbox_new(loop, &config, &r.mailbox), 0);
	assert_int_equal(net_mailbox_post(r.mailbox, data, 50, data, 51), -ENOBUFS);
	assert_int_equal(net_mailbox_post(r.mailbox, data, 50, data, 50), 0);
	assert_int_equal(net_mailbox_post(r.mailbox, data, 1, NULL, 0), -ENOBUFS);
	run_until(&r.done);
	assert_int_equal(r.n_letters, 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(net_mailbox_post(r.mailbox, data, 1, NULL, 0), 0);
	assert_int_equal(net_mailbox_post(r.mailbox, data, 1, NULL, 0), -ENOBUFS);
	r.done = false;
	run_until(&r.done);
	assert_int_equal(r.n_letters, 4);
	assert_int_equal(r.n_rung, 2);
	/* What nobody has read goes with it. */
	assert_int_equal(net_mailbox_post(r.mailbox, data, 1, NULL, 0), 0);
	net_mailbox_free(r.mailbox);
}

static void a_mailbox_is_rung_without_a_letter(void **state)
{
	struct receiver r = { .done = false };
	const struct net_mailbox_config config = {
		.letters_max = 1,
		.bytes_max = 1,
		.on_letter = count_letter,
		.on_rung = count_rung,
		.user = &r,
	};

	(void)state;
	assert_int_equal(net_mailbox_new(loop, &config, &r.mailbox), 0);
	net_mailbox_ring(r.mailbox);
	net_mailbox_ring(r.mailbox);
	run_until(&r.done);
	assert_int_equal(r.n_rung, 1);
	assert_int_equal(r.n_letters, 0);
	r.done = false;
	net_mailbox_ring(r.mailbox);
	run_until(&r.done);
	assert_int_equal(r.n_rung, 2);
	net_mailbox_free(r.mailbox);
}

/* ---- turns ---- */

struct turns {
	bool inside, done;
	unsigned n_begun, n_ended;
};

static void on_turn(void *user, bool begins)
{
	struct turns *t = user;

	assert_true(t->inside != begins);
	t->inside = begins;
	t->n_begun += begins;
	t->n_ended += !begins;
}

static void inside_a_turn(void *user)
{
	struct turns *t = user;

	assert_true(t->inside);
	t->done = true;
}

static void timer_inside_a_turn(void *user, uint64_t now_us)
{
	(void)now_us;
	inside_a_turn(user);
}

static void callbacks_run_inside_of_turns(void **state)
{
	struct turns t = { .done = false };
	const struct net_mailbox_config config = {
		.letters_max = 1,
		.bytes_max = 1,
		.on_rung = inside_a_turn,
		.user = &t,
	};
	struct net_mailbox *mailbox;
	struct net_timer timer;

	(void)state;
	net_loop_on_turn(loop, on_turn, &t);
	net_timer_init(&timer, loop, timer_inside_a_turn, &t);
	net_timer_arm(&timer, net_clock_us());
	run_until(&t.done);
	assert_false(t.inside);
	assert_int_equal(net_mailbox_new(loop, &config, &mailbox), 0);
	t.done = false;
	net_mailbox_ring(mailbox);
	run_until(&t.done);
	assert_false(t.inside);
	assert_true(t.n_begun >= 2);
	assert_int_equal(t.n_begun, t.n_ended);
	net_mailbox_free(mailbox);
}

/* ---- one port, several sockets ---- */

enum { SOCKETS = 3, FIRST_BYTES = 256 };

struct shared {
	struct net_udp *sockets[SOCKETS];
	unsigned n_got, n_wrong;
	bool done;
};

/* Byte 2 of the payload is the socket that it should come to. */
static void got_shared(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		       size_t n_packets, uint64_t now_us)
{
	struct shared *s = user;

	(void)now_us;
	for (size_t i = 0; i < n_packets; i++)
		for (size_t at = 0; at < packets[i].data_bytes; at += packets[i].segment_bytes) {
			const size_t n_bytes =
				min_size(packets[i].segment_bytes, packets[i].data_bytes - at);

			s->n_wrong += udp != s->sockets[n_bytes > 2 ? packets[i].data[at + 2] : 0];
			s->done = --s->n_got == 0;
		}
}

static void open_shared(struct shared *s)
{
	struct net_udp_config config = { .on_packets = got_shared, .user = s };

	assert_int_equal(net_udp_new(loop, &config, &s->sockets[0]), 0);
	assert_int_equal(net_udp_share_port(s->sockets[0]), 0);
	config.bind.port = net_udp_local(s->sockets[0]).port;
	config.shared_port = true;
	for (int i = 1; i < SOCKETS; i++)
		assert_int_equal(net_udp_new(loop, &config, &s->sockets[i]), 0);
}

static void close_shared(struct shared *s)
{
	for (int i = 0; i < SOCKETS; i++)
		net_udp_free(s->sockets[i]);
}

static void send_one(struct net_udp *from, const struct endpoint *to, const uint8_t *data,
		     size_t n_bytes)
{
	const struct net_udp_send send = { .to = *to, .data = data, .data_bytes = n_bytes };

	assert_int_equal(net_udp_send(from, &send), NET_UDP_SENT);
}

static void datagrams_go_to_the_socket_that_their_byte_names(void **state)
{
	const struct net_udp_steering steering = {
		.mask = 0xc0, .value = 0x40, .at = 1, .n_sockets = SOCKETS
	};
	static const char *const addresses[] = { "127.0.0.1:1", "[::1]:1" };
	const struct net_udp_config config = { .on_packets = got_shared };
	struct shared s = { .done = false };
	struct net_udp *from;

	(void)state;
	open_shared(&s);
	assert_int_equal(net_udp_steer(s.sockets[0], &steering), 0);
	assert_int_equal(net_udp_new(loop, &config, &from), 0);
	for (size_t family = 0; family < ARRAY_SIZE(addresses); family++) {
		struct endpoint to;

		assert_int_equal(endpoint_parse(addresses[family], false, &to), 0);
		to.port = net_udp_local(s.sockets[0]).port;
		for (unsigned kind = 0; kind < 4; kind++)
			for (unsigned id = 0; id < FIRST_BYTES; id += 5) {
				const uint8_t data[40] = { (uint8_t)(kind << 6), (uint8_t)id,
							   (uint8_t)(kind == 1 ? id % SOCKETS
									       : 0) };

				s.n_got = 1;
				s.done = false;
				send_one(from, &to, data, sizeof(data));
				run_until(&s.done);
			}
		/* Too short to say anything: the first one's. */
		s.n_got = 1;
		s.done = false;
		send_one(from, &to, (const uint8_t *)"@", 1);
		run_until(&s.done);
	}
	assert_int_equal(s.n_wrong, 0);
	net_udp_free(from);
	close_shared(&s);
}

static void a_port_is_shared_only_with_those_who_ask_for_it(void **state)
{
	struct net_udp_config config = { .on_packets = got_shared };
	struct shared s = { .done = false };
	struct net_udp *alone, *other;

	(void)state;
	open_shared(&s);
	config.bind.port = net_udp_local(s.sockets[0]).port;
	/* Another program's, which shares its port as well, but takes none that is there. */
	assert_int_equal(net_udp_new(loop, &config, &alone), -EADDRINUSE);
	config.bind.port = 0;
	assert_int_equal(net_udp_new(loop, &config, &alone), 0);
	config.bind.port = net_udp_local(alone).port;
	config.shared_port = true;
	assert_int_equal(net_udp_new(loop, &config, &other), -EADDRINUSE);
	net_udp_free(alone);
	close_shared(&s);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, make_loop, drop_loop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(letters_of_many_threads_arrive_whole_and_in_the_order_of_each),
		CASE(a_mailbox_takes_no_more_than_its_bounds),
		CASE(a_mailbox_is_rung_without_a_letter),
		CASE(callbacks_run_inside_of_turns),
		CASE(datagrams_go_to_the_socket_that_their_byte_names),
		CASE(a_port_is_shared_only_with_those_who_ask_for_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
