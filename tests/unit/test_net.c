#include "net_rig.h"
#include "unit.h"
#include "net/net.h"
#include "q2q/q2q.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define TRIES_MAX 20 /* of what is quick unless the machine is busy */

/* For "nothing comes": long enough for what is under way on loopback. */
static void run_for(uint64_t us)
{
	struct net_timer timer;
	bool done = false;

	net_timer_init(&timer, loop, time_is_up, &done);
	net_timer_arm(&timer, net_clock_us() + us);
	run_until(&done);
}

static struct endpoint at(const char *text)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(text, true, &e), 0);
	return e;
}

/* ---- timers --------------------------------------------------------------------- */

#define N_TIMERS 500

struct timer_case {
	struct net_timer timer;
	uint64_t due_us, ran_us;
	unsigned n_ran;
};

static struct timer_case timers[N_TIMERS];
static unsigned n_timers_ran;
static uint64_t last_due_us;
static bool out_of_order;

static void timer_ran(void *user, uint64_t now_us)
{
	struct timer_case *t = user;

	t->ran_us = now_us;
	t->n_ran++;
	n_timers_ran++;
	out_of_order |= t->due_us < last_due_us;
	last_due_us = t->due_us;
}

static void timers_run_once_in_order_and_not_early(void **state)
{
	const uint64_t start_us = net_clock_us();
	uint32_t rng = 7;
	unsigned n_armed = 0;

	(void)state;
	n_timers_ran = 0;
	last_due_us = 0;
	out_of_order = false;
	for (size_t i = 0; i < N_TIMERS; i++) {
		rng = rng * 1664525u + 1013904223u;
		timers[i] = (struct timer_case){ .due_us = start_us + (rng >> 8) % 30000 };
		net_timer_init(&timers[i].timer, loop, timer_ran, &timers[i]);
		net_timer_arm(&timers[i].timer, timers[i].due_us + 40000);
	}
	for (size_t i = 0; i < N_TIMERS; i++) /* moved forward, or taken out */
		net_timer_arm(&timers[i].timer, i % 5 ? timers[i].due_us : NEVER_US);
	for (size_t i = 0; i < N_TIMERS; i++)
		n_armed += i % 5 != 0;
	run_for(35000);
	assert_int_equal(n_timers_ran, n_armed);
	assert_false(out_of_order);
	for (size_t i = 0; i < N_TIMERS; i++) {
		assert_int_equal(timers[i].n_ran, i % 5 != 0);
		if (i % 5)
			assert_true(timers[i].ran_us >= timers[i].due_us);
	}
}

static void a_pushed_back_timer_does_not_run_at_its_old_time(void **state)
{
	struct timer_case t = { .due_us = net_clock_us() + 4000 };

	(void)state;
	net_timer_init(&t.timer, loop, timer_ran, &t);
	net_timer_arm(&t.timer, net_clock_us() + 1000);
	assert_int_equal(net_loop_turn(loop, false), 0);
	net_timer_arm(&t.timer, t.due_us);
	while (!t.n_ran)
		assert_int_equal(net_loop_turn(loop, true), 0);
	assert_true(t.ran_us >= t.due_us);
}

static unsigned n_timerfd_set;

/* In libc's place. */
int timerfd_settime(int fd, int flags, const struct itimerspec *spec, struct itimerspec *old)
{
	n_timerfd_set++;
	return (int)syscall(SYS_timerfd_settime, fd, flags, spec, old);
}

struct again {
	struct net_timer timer;
	unsigned n_ran;
};

static void due_again(void *user, uint64_t now_us)
{
	struct again *again = user;

	again->n_ran++;
	net_timer_arm(&again->timer, now_us + 1);
}

static void note_readable(void *user, unsigned ready)
{
	*(unsigned *)user = ready;
}

static void what_is_due_already_sets_no_timerfd_and_lets_sockets_go_first(void **state)
{
	struct net_watch watch;
	struct again again = { .n_ran = 0 };
	unsigned ready = 0;
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	net_watch_init(&watch, loop, fds[0], note_readable, &ready);
	assert_int_equal(net_watch_want(&watch, NET_READ), 0);
	net_timer_init(&again.timer, loop, due_again, &again);
	net_timer_arm(&again.timer, net_clock_us());
	n_timerfd_set = 0;
	while (again.n_ran < 100) {
		ready = 0;
		assert_int_equal(net_loop_turn(loop, true), 0);
		assert_int_equal(ready, NET_READ);
	}
	assert_int_equal(n_timerfd_set, 0);
	/* What is not due yet does. */
	net_timer_arm(&again.timer, net_clock_us() + 3600 * US_PER_S);
	assert_int_equal(net_loop_turn(loop, false), 0);
	assert_int_equal(n_timerfd_set, 1);
	net_timer_disarm(&again.timer);
	net_watch_fini(&watch);
	close(fds[0]);
	close(fds[1]);
}

static struct net_soon soons[2];
static int n_soon;

static void soon_ran(void *user)
{
	n_soon++;
	if (user)
		net_soon_queue(user);
}

static void soon_runs_in_the_same_turn_and_can_be_cancelled(void **state)
{
	(void)state;
	n_soon = 0;
	net_soon_init(&soons[0], loop, soon_ran, &soons[1]);
	net_soon_init(&soons[1], loop, soon_ran, NULL);
	net_soon_queue(&soons[0]);
	net_soon_queue(&soons[0]);
	assert_int_equal(net_loop_turn(loop, true), 0);
	assert_int_equal(n_soon, 2);
	net_soon_queue(&soons[1]);
	net_soon_cancel(&soons[1]);
	assert_int_equal(net_loop_turn(loop, false), 0);
	assert_int_equal(n_soon, 2);
}

static int signal_seen;

static void on_signal(void *user, int number)
{
	signal_seen = number;
	*(bool *)user = true;
}

static void a_signal_arrives_in_the_loop(void **state)
{
	bool done = false;

	(void)state;
	assert_int_equal(net_loop_on_signal(loop, SIGUSR1, on_signal, &done), 0);
	raise(SIGUSR1);
	run_until(&done);
	assert_int_equal(signal_seen, SIGUSR1);
}

/* ---- UDP --------------------------------------------------------------------------- */

struct udp_end {
	struct net_udp *udp;
	uint8_t data[300000];
	size_t data_bytes, n_datagrams, n_packets, wanted_bytes;
	struct net_udp_packet last;
	bool done;
};

static void udp_got(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		    size_t n_packets, uint64_t now_us)
{
	struct udp_end *end = user;

	assert_true(udp == end->udp);
	assert_true(now_us <= net_clock_us());
	for (size_t i = 0; i < n_packets; i++) {
		const struct net_udp_packet *p = &packets[i];

		assert_true(end->data_bytes + p->data_bytes <= sizeof(end->data));
		memcpy(end->data + end->data_bytes, p->data, p->data_bytes);
		end->data_bytes += p->data_bytes;
		end->n_datagrams += (p->data_bytes + p->segment_bytes - 1) / p->segment_bytes;
		end->n_packets++;
		end->last = *p;
		end->last.data = NULL;
	}
	end->done = end->data_bytes >= end->wanted_bytes;
}

static struct udp_end ends[2];

static void open_ends(const char *first, const char *second)
{
	const char *const bind[2] = { first, second };

	for (int i = 0; i < 2; i++) {
		struct net_udp_config config = { .on_packets = udp_got, .user = &ends[i] };

		memset(&ends[i], 0, sizeof(ends[i]));
		if (bind[i])
			config.bind = at(bind[i]);
		assert_int_equal(net_udp_new(loop, &config, &ends[i].udp), 0);
	}
}

static void close_ends(void)
{
	net_udp_free(ends[0].udp);
	net_udp_free(ends[1].udp);
	assert_int_equal(net_loop_turn(loop, false), 0);
}

static void expect_transfer(const struct net_udp_send *send, size_t n_datagrams)
{
	ends[1].wanted_bytes = send->data_bytes;
	ends[1].data_bytes = ends[1].n_datagrams = 0;
	ends[1].done = false;
	assert_int_equal(net_udp_send(ends[0].udp, send), NET_UDP_SENT);
	run_until(&ends[1].done);
	assert_int_equal(ends[1].n_datagrams, n_datagrams);
	assert_int_equal(ends[1].data_bytes, send->data_bytes);
	assert_memory_equal(ends[1].data, send->data, send->data_bytes);
}

static void a_dual_stack_socket_talks_to_both_families(void **state)
{
	static const char *const others[] = { "127.0.0.1:0", "[::1]:0" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct net_udp_send send = { .data = (const uint8_t *)"hello", .data_bytes = 5 };

		open_ends(NULL, others[i]);
		assert_int_equal(net_udp_local(ends[0].udp).ip.family, FAMILY_NONE);
		assert_true(net_udp_has_family(ends[0].udp, FAMILY_IPV4));
		assert_true(net_udp_has_family(ends[0].udp, FAMILY_IPV6));
		send.to = net_udp_local(ends[1].udp);
		send.ecn = 1;
		send.dscp = 10;
		send.ttl = 7;
		expect_transfer(&send, 1);
		assert_int_equal(ends[1].last.ecn, 1);
		assert_int_equal(ends[1].last.ttl, 7);
		assert_true(ip_equal(&ends[1].last.local, &send.to.ip));
		assert_int_equal(ends[1].last.from.port, net_udp_local(ends[0].udp).port);
		assert_true(ip_equal(&ends[1].last.from.ip, &send.to.ip));

		/* and back, so that the dual socket's receiving side is seen too */
		struct net_udp_send back = { .to = ends[1].last.from,
					     .data = (const uint8_t *)"you",
					     .data_bytes = 3,
					     .ecn = 2 };
		ends[0].wanted_bytes = 3;
		assert_int_equal(net_udp_send(ends[1].udp, &back), NET_UDP_SENT);
		run_until(&ends[0].done);
		assert_int_equal(ends[0].last.ecn, 2);
		assert_true(endpoint_equal(&ends[0].last.from, &send.to));
		assert_true(ip_equal(&ends[0].last.local, &send.to.ip));
		assert_true(ends[0].last.ttl > 0);
		close_ends();
	}
}

static void a_source_address_can_be_chosen(void **state)
{
	struct net_udp_send send = { .data = (const uint8_t *)"hello", .data_bytes = 5 };

	(void)state;
	open_ends(NULL, "127.0.0.1:0");
	send.to = net_udp_local(ends[1].udp);
	send.from = at("127.0.0.9:0").ip;
	expect_transfer(&send, 1);
	assert_true(ip_equal(&ends[1].last.from.ip, &send.from));
	close_ends();
}

static uint8_t *pattern(size_t n_bytes)
{
	uint8_t *data = malloc(n_bytes);

	assert_non_null(data);
	for (size_t i = 0; i < n_bytes; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	return data;
}

static void a_batch_arrives_as_the_same_datagrams(void **state)
{
	static const size_t sizes[] = { 1200, 1201, 24000, 76000, 200000, 63 * 1200 + 1 };
	static const char *const others[] = { "127.0.0.1:0", "[::1]:0" };

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
		open_ends(NULL, others[k]);
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			uint8_t *data = pattern(sizes[i]);
			const struct net_udp_send send = {
				.to = net_udp_local(ends[1].udp),
				.data = data,
				.data_bytes = sizes[i],
				.segment_bytes = 1200,
			};

			expect_transfer(&send, (sizes[i] + 1199) / 1200);
			free(data);
		}
		assert_int_equal(net_udp_stats(ends[0].udp).tx_dropped, 0);
		close_ends();
	}
}

static void many_sends_leave_together_and_a_bad_one_harms_no_other(void **state)
{
	struct net_udp_send sends[40];
	struct net_udp_stats stats;
	uint8_t *data = pattern(40);

	(void)state;
	open_ends(NULL, "127.0.0.1:0");
	for (size_t i = 0; i < 40; i++)
		sends[i] = (struct net_udp_send){ .to = net_udp_local(ends[1].udp),
						  .data = data + i,
						  .data_bytes = 1 };
	sends[20].to.port = 0;
	ends[1].wanted_bytes = 39;
	assert_int_equal(net_udp_send_many(ends[0].udp, sends, 40), NET_UDP_SENT);
	run_until(&ends[1].done);
	assert_int_equal(ends[1].n_datagrams, 39);
	assert_memory_equal(ends[1].data, data, 20);
	assert_memory_equal(ends[1].data + 20, data + 21, 19);
	stats = net_udp_stats(ends[0].udp);
	assert_int_equal(stats.tx_datagrams, 39);
	assert_true(stats.tx_calls < 10);
	free(data);
	close_ends();
}

static void a_fault_of_one_destination_is_told(void **state)
{
	struct net_udp_send send = { .data = (const uint8_t *)"x", .data_bytes = 1 };

	(void)state;
	open_ends("127.0.0.1:0", "[::1]:0");
	send.to = net_udp_local(ends[1].udp);
	assert_int_equal(net_udp_send(ends[0].udp, &send), -EAFNOSUPPORT);
	send.to = at("127.0.0.1:9");
	send.data_bytes = 0;
	assert_int_equal(net_udp_send(ends[0].udp, &send), -EINVAL);
	close_ends();
}

static void a_taken_port_is_a_fault(void **state)
{
	struct net_udp_config config = { .on_packets = udp_got };
	struct net_udp *second = NULL;

	(void)state;
	open_ends("127.0.0.1:0", "127.0.0.1:0");
	config.bind = net_udp_local(ends[0].udp);
	assert_int_equal(net_udp_new(loop, &config, &second), -EADDRINUSE);
	assert_null(second);
	close_ends();
}

static void this_machine_has_a_loopback_address(void **state)
{
	struct net_local_address list[64];
	const int n = net_local_addresses(NULL, list, ARRAY_SIZE(list));
	const struct ip_address one = at("127.0.0.1:0").ip;
	bool found = false;

	(void)state;
	assert_true(n > 0);
	for (int i = 0; i < n; i++)
		found |= ip_equal(&list[i].ip, &one) && list[i].loopback &&
			 !strcmp(list[i].name, "lo");
	assert_true(found);
}

/* ---- TCP ------------------------------------------------------------------------------ */

struct tcp_case {
	bool connected, accepted;
	int error, fd, accepted_fd;
	struct endpoint remote, from;
};

static void tcp_connected(void *user, int error, int fd, const struct endpoint *remote)
{
	struct tcp_case *c = user;

	c->connected = true;
	c->error = error;
	c->fd = fd;
	if (remote)
		c->remote = *remote;
}

static void tcp_accepted(void *user, int fd, const struct endpoint *from)
{
	struct tcp_case *c = user;

	c->accepted = true;
	c->accepted_fd = fd;
	c->from = *from;
}

/* How long it takes to come to the second endpoint when the first refuses. */
static uint64_t second_connect_us(void)
{
	struct tcp_case c = { 0 };
	struct net_listener *listener, *gone;
	struct net_connect *attempt;
	struct endpoint list[2];
	const struct endpoint any = at("127.0.0.1:0");
	uint64_t start_us, took_us;

	assert_int_equal(net_listen_tcp(loop, &any, tcp_accepted, &c, &gone), 0);
	list[0] = net_listener_local(gone);
	net_listener_free(gone);
	assert_int_equal(net_listen_tcp(loop, &any, tcp_accepted, &c, &listener), 0);
	list[1] = net_listener_local(listener);
	start_us = net_clock_us();
	assert_int_equal(net_connect_new(loop, list, 2, WAIT_US, tcp_connected, &c, &attempt), 0);
	assert_false(c.connected);
	run_until(&c.connected);
	took_us = net_clock_us() - start_us;
	assert_int_equal(c.error, 0);
	assert_true(endpoint_equal(&c.remote, &list[1]));
	run_until(&c.accepted);
	close(c.fd);
	close(c.accepted_fd);
	net_listener_free(listener);
	return took_us;
}

static void connecting_goes_on_to_the_next_endpoint_when_one_refuses(void **state)
{
	unsigned n_slow = 0;

	(void)state;
	/* At once. A busy machine may need longer now and then, but not each time. */
	while (second_connect_us() >= NET_CONNECT_STAGGER_US)
		assert_true(++n_slow < TRIES_MAX);
}

static void connecting_to_nobody_tells_why(void **state)
{
	struct tcp_case c = { 0 };
	struct net_listener *gone;
	struct net_connect *attempt;
	struct endpoint to;
	const struct endpoint any = at("[::1]:0");

	(void)state;
	assert_int_equal(net_listen_tcp(loop, &any, tcp_accepted, &c, &gone), 0);
	to = net_listener_local(gone);
	net_listener_free(gone);
	assert_int_equal(net_connect_new(loop, &to, 1, WAIT_US, tcp_connected, &c, &attempt), 0);
	run_until(&c.connected);
	assert_int_equal(c.error, -ECONNREFUSED);
	assert_int_equal(c.fd, -1);
	/* cancelled: no callback */
	c.connected = false;
	assert_int_equal(net_connect_new(loop, &to, 1, WAIT_US, tcp_connected, &c, &attempt), 0);
	net_connect_cancel(attempt);
	run_for(3000);
	assert_false(c.connected);
}

static void connecting_gives_up_in_time(void **state)
{
	struct tcp_case c = { 0 };
	struct net_connect *attempt;
	struct endpoint to = at("127.0.0.1:0");
	struct sockaddr_storage sa;
	int fd = socket(AF_INET, SOCK_STREAM, 0), filler[4];

	(void)state;
	/* A backlog of 0 that is full: further handshakes are not answered. */
	assert_int_equal(
		bind(fd, (struct sockaddr *)&sa, (socklen_t)endpoint_to_sockaddr(&to, false, &sa)),
		0);
	assert_int_equal(listen(fd, 0), 0);
	socklen_t length = sizeof(sa);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &length), 0);
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&sa, &to), 0);
	for (size_t i = 0; i < ARRAY_SIZE(filler); i++) {
		filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(filler[i], (struct sockaddr *)&sa, length);
	}
	const uint64_t start_us = net_clock_us();

	assert_int_equal(net_connect_new(loop, &to, 1, 20000, tcp_connected, &c, &attempt), 0);
	run_until(&c.connected);
	assert_int_equal(c.error, -ETIMEDOUT);
	assert_true(net_clock_us() - start_us >= 20000);
	for (size_t i = 0; i < ARRAY_SIZE(filler); i++)
		close(filler[i]);
	close(fd);
}

/* ---- control sockets ---------------------------------------------------------------------- */

struct line_case {
	struct net_line *line;
	char text[NET_LINE_BYTES_MAX];
	size_t n_lines, text_bytes;
	int error;
	bool got, closed, drained;
	struct net_peer peer;
};

static struct line_case sides[2];

static void line_got(void *user, struct net_line *line, char *text, size_t text_bytes)
{
	struct line_case *c = user;

	(void)line;
	assert_int_equal(strlen(text), text_bytes);
	memcpy(c->text, text, text_bytes + 1);
	c->text_bytes = text_bytes;
	c->n_lines++;
	c->got = true;
}

static void line_closed(void *user, struct net_line *line, int error)
{
	struct line_case *c = user;

	c->closed = true;
	c->error = error;
	net_line_free(line);
	c->line = NULL;
}

static void line_drained(void *user, struct net_line *line)
{
	struct line_case *c = user;

	(void)line;
	c->drained = true;
}

static void make_side(int fd, struct line_case *c)
{
	const struct net_line_config config = { .fd = fd,
						.on_line = line_got,
						.on_closed = line_closed,
						.on_drained = line_drained,
						.user = c };

	assert_int_equal(net_line_new(loop, &config, &c->line), 0);
}

static void unix_accepted(void *user, int fd, const struct net_peer *peer)
{
	struct line_case *c = user;

	c->peer = *peer;
	make_side(fd, c);
	c->got = true;
}

static struct net_listener *open_sides(char path[static 64])
{
	struct net_listener *listener;
	int fd;

	memset(sides, 0, sizeof(sides));
	snprintf(path, 64, "test_net.%ld.sock", (long)getpid());
	assert_int_equal(net_listen_unix(loop, path, 0640, unix_accepted, &sides[1], &listener), 0);
	assert_int_equal(net_connect_unix(path, &fd), 0);
	make_side(fd, &sides[0]);
	run_until(&sides[1].got);
	sides[1].got = false;
	return listener;
}

static void close_sides(struct net_listener *listener)
{
	net_line_free(sides[0].line);
	net_line_free(sides[1].line);
	net_listener_free(listener);
	assert_int_equal(net_loop_turn(loop, false), 0);
}

static void a_control_client_is_known_by_its_credentials(void **state)
{
	char path[64];
	struct stat st;
	struct net_listener *second, *listener = open_sides(path);

	(void)state;
	assert_int_equal(sides[1].peer.uid, getuid());
	assert_int_equal(sides[1].peer.pid, getpid());
	assert_true(net_peer_in_group(&sides[1].peer, getgid()));
	assert_false(net_peer_in_group(&sides[1].peer, 4000000000u));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(net_listen_unix(loop, path, 0640, unix_accepted, NULL, &second),
			 -EADDRINUSE);
	close_sides(listener);
	assert_int_equal(stat(path, &st), -1);
}

static void a_socket_file_of_a_dead_process_is_replaced(void **state)
{
	char path[64];
	struct net_listener *listener = open_sides(path);
	char aside[80];

	(void)state;
	snprintf(aside, sizeof(aside), "%s.old", path);
	assert_int_equal(rename(path, aside), 0); /* so that closing leaves the file */
	close_sides(listener);
	assert_int_equal(rename(aside, path), 0);
	close_sides(open_sides(path));
	assert_int_equal(access(path, F_OK), -1);

	/* Anything that is no socket is left alone. */
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(net_listen_unix(loop, path, 0640, unix_accepted, NULL, &listener),
			 -EEXIST);
	unlink(path);
}

static void lines_arrive_whole_and_in_order(void **state)
{
	char path[64];
	static char big[200000];
	struct net_listener *listener = open_sides(path);

	(void)state;
	memset(big, 'b', sizeof(big));
	assert_int_equal(net_line_send(sides[0].line, "one", 3), 0);
	assert_int_equal(net_line_send(sides[0].line, "", 0), 0);
	assert_int_equal(net_line_send(sides[0].line, big, sizeof(big)), 0);
	while (sides[1].n_lines < 3) {
		sides[1].got = false;
		run_until(&sides[1].got);
	}
	assert_int_equal(sides[1].text_bytes, sizeof(big));
	assert_memory_equal(sides[1].text, big, sizeof(big));
	run_until(&sides[0].drained);
	/* What was sent before close still arrives. */
	assert_int_equal(net_line_send(sides[1].line, "bye", 3), 0);
	net_line_close(sides[1].line);
	sides[1].line = NULL;
	run_until(&sides[0].closed);
	assert_string_equal(sides[0].text, "bye");
	assert_int_equal(sides[0].error, 0);
	close_sides(listener);
}

static void a_line_without_end_closes_the_connection(void **state)
{
	char path[64];
	static char big[NET_LINE_BYTES_MAX + 10];
	struct net_listener *listener = open_sides(path);

	(void)state;
	memset(big, 'b', sizeof(big));
	assert_int_equal(net_line_send(sides[0].line, big, sizeof(big)), 0);
	run_until(&sides[1].closed);
	assert_int_equal(sides[1].error, -EMSGSIZE);
	assert_int_equal(sides[1].n_lines, 0);
	close_sides(listener);
}

static void output_that_nobody_reads_is_bounded(void **state)
{
	char path[64];
	static char big[100000];
	struct net_listener *listener = open_sides(path);
	int n = 0;

	(void)state;
	memset(big, 'b', sizeof(big));
	while (net_line_send(sides[0].line, big, sizeof(big)) == 0)
		assert_true(++n < 20);
	assert_int_equal(net_line_send(sides[0].line, big, sizeof(big)), -ENOBUFS);
	assert_true(net_line_unsent(sides[0].line) <= 4 * NET_LINE_BYTES_MAX);
	close_sides(listener);
}

/* ---- NAT64 ------------------------------------------------------------------------ */

static struct net_nat64 nat64_of(const char *prefix, uint8_t bits)
{
	struct net_nat64 n = { .prefix_bits = bits };

	assert_int_equal(ip_parse(prefix, &n.prefix), 0);
	return n;
}

static void assert_embeds(const struct net_nat64 *n, const char *ip4_text, const char *ip6_text)
{
	struct ip_address ip4, ip6, got;

	assert_int_equal(ip_parse(ip4_text, &ip4), 0);
	assert_int_equal(ip_parse(ip6_text, &ip6), 0);
	assert_true(net_nat64_embed(n, &ip4, &got));
	assert_true(ip_equal(&got, &ip6));
	assert_true(net_nat64_extract(n, &ip6, &got));
	assert_true(ip_equal(&got, &ip4));
}

/* RFC 6052, section 2.4, table 2 and 3. */
static void ipv4_stands_in_ipv6_as_the_rfc_says(void **state)
{
	static const struct {
		const char *prefix, *ip6;
		uint8_t bits;
	} vectors[] = {
		{ "2001:db8::", "2001:db8:c000:221::", 32 },
		{ "2001:db8:100::", "2001:db8:1c0:2:21::", 40 },
		{ "2001:db8:122::", "2001:db8:122:c000:2:2100::", 48 },
		{ "2001:db8:122:300::", "2001:db8:122:3c0:0:221::", 56 },
		{ "2001:db8:122:344::", "2001:db8:122:344:c0:2:2100::", 64 },
		{ "2001:db8:122:344::", "2001:db8:122:344::192.0.2.33", 96 },
	};
	struct net_nat64 n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		n = nat64_of(vectors[i].prefix, vectors[i].bits);
		assert_embeds(&n, "192.0.2.33", vectors[i].ip6);
	}
	n = nat64_of("64:ff9b::", 96);
	assert_embeds(&n, "8.8.4.4", "64:ff9b::808:404");
}

static bool embeds(const struct net_nat64 *n, const char *ip4_text)
{
	struct ip_address ip4, got;

	assert_int_equal(ip_parse(ip4_text, &ip4), 0);
	return net_nat64_embed(n, &ip4, &got);
}

static void the_well_known_prefix_stands_for_global_addresses_alone(void **state)
{
	static const char *const never[] = { "127.0.0.1", "169.254.1.1", "224.0.0.1",
					     "255.255.255.255", "0.1.2.3" };
	static const char *const local[] = { "10.1.2.3",     "172.16.0.1",   "192.168.1.1",
					     "100.64.0.1",   "192.0.0.170",  "192.0.2.1",
					     "198.19.255.1", "198.51.100.1", "203.0.113.255" };
	static const char *const global[] = { "8.8.8.8", "100.128.0.1", "192.0.1.1", "198.20.0.1",
					      "172.32.0.1" };
	struct net_nat64 known = nat64_of("64:ff9b::", 96), own = nat64_of("2001:db8:1::", 96);
	struct ip_address ip6, got;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(never); i++) {
		assert_false(embeds(&known, never[i]));
		assert_false(embeds(&own, never[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(local); i++) {
		assert_false(embeds(&known, local[i]));
		assert_true(embeds(&own, local[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(global); i++)
		assert_true(embeds(&known, global[i]));
	/* Nobody makes us believe that it comes from there, either. */
	assert_int_equal(ip_parse("64:ff9b::10.1.2.3", &ip6), 0);
	assert_false(net_nat64_extract(&known, &ip6, &got));
	assert_int_equal(ip_parse("2001:db8:1::127.0.0.1", &ip6), 0);
	assert_false(net_nat64_extract(&own, &ip6, &got));
	/* A machine with IPv4 on its LAN has that LAN near. */
	own.private_is_near = true;
	assert_false(embeds(&own, "192.168.1.1"));
	assert_true(embeds(&own, "192.0.1.1"));
}

static void the_prefix_is_read_from_what_a_resolver_made_up(void **state)
{
	static const struct {
		const char *answer, *prefix;
		uint8_t bits;
	} good[] = {
		{ "64:ff9b::c000:aa", "64:ff9b::", 96 },
		{ "64:ff9b::c000:ab", "64:ff9b::", 96 },
		{ "2001:db8:c000:aa::", "2001:db8::", 32 },
		{ "2001:db8:1c0:0:aa::", "2001:db8:100::", 40 },
		{ "2001:db8:122:c000:0:aa00::", "2001:db8:122::", 48 },
		{ "2001:db8:122:3c0:0:aa::", "2001:db8:122:300::", 56 },
		{ "2001:db8:122:344:c0:0:aa00::", "2001:db8:122:344::", 64 },
	};
	static const char *const bad[] = {
		"2001:db8::1",                   /* a real one */
		"2001:db8::c000:ac",             /* another address */
		"2001:db8:0:0:ff00:0:c000:aa",   /* bits 64 to 71 are not 0 */
		"2001:db8:c000:aa::192.0.0.170", /* twice */
	};
	struct endpoint answers[2] = { { .port = 0 } };
	struct net_nat64 n, want;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		want = nat64_of(good[i].prefix, good[i].bits);
		assert_int_equal(ip_parse("2001:db8::7", &answers[0].ip), 0);
		assert_int_equal(ip_parse(good[i].answer, &answers[1].ip), 0);
		assert_true(net_nat64_detect(answers, 2, &n));
		assert_int_equal(n.prefix_bits, want.prefix_bits);
		assert_true(ip_equal(&n.prefix, &want.prefix));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(ip_parse(bad[i], &answers[0].ip), 0);
		assert_false(net_nat64_detect(answers, 1, &n));
	}
	assert_int_equal(ip_parse("192.0.0.170", &answers[0].ip), 0);
	assert_false(net_nat64_detect(answers, 1, &n));
}

static struct endpoint nat64_seen[2];
static unsigned nat64_n_seen;

static void nat64_got(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		      size_t n_packets, uint64_t now_us)
{
	const struct net_udp_send answer = { .to = packets[0].from,
					     .data = (const uint8_t *)"x",
					     .data_bytes = 1 };

	(void)n_packets;
	(void)now_us;
	if (nat64_n_seen == ARRAY_SIZE(nat64_seen))
		return;
	nat64_seen[nat64_n_seen++] = packets[0].from;
	if (nat64_n_seen < ARRAY_SIZE(nat64_seen))
		assert_int_equal(net_udp_send(udp, &answer), NET_UDP_SENT);
	else
		*(bool *)user = true;
}

static void only_what_is_far_goes_through_the_prefix(void **state)
{
	const struct net_nat64 own = nat64_of("::", 96);
	bool done = false;
	const struct net_udp_config config = { .on_packets = nat64_got, .user = &done };
	struct net_udp_send send = {
		.data = (const uint8_t *)"x", .data_bytes = 1, .ecn = 1, .ttl = 9
	};
	struct endpoint out;
	struct net_udp *a, *b;

	(void)state;
	net_loop_set_nat64(loop, &own);
	send.to = at("192.0.2.33:7");
	out = net_nat64_outward(loop, &send.to);
	assert_true(endpoint_equal(
		&out, &(struct endpoint){ .ip = at("[::192.0.2.33]:7").ip, .port = 7 }));
	out = net_nat64_inward(loop, &out);
	assert_true(endpoint_equal(&out, &send.to));
	/* What is near stays as it is, in both directions, on a socket that speaks both. */
	nat64_n_seen = 0;
	assert_int_equal(net_udp_new(loop, &config, &a), 0);
	assert_int_equal(net_udp_new(loop, &config, &b), 0);
	send.to = at("127.0.0.1:1");
	send.to.port = net_udp_local(b).port;
	assert_int_equal(net_udp_send(a, &send), NET_UDP_SENT);
	run_until(&done);
	assert_int_equal(nat64_seen[0].port, net_udp_local(a).port);
	assert_int_equal(nat64_seen[1].ip.family, FAMILY_IPV4);
	assert_int_equal(nat64_seen[1].port, net_udp_local(b).port);
	net_loop_set_nat64(loop, NULL);
	out = net_nat64_outward(loop, &send.to);
	assert_true(endpoint_equal(&out, &send.to));
	net_udp_free(a);
	net_udp_free(b);
}

/* ---- resolver: a name server of our own --------------------------------------------------------
 */

static struct net_udp *dns;
static bool dns_silent_srv;
static bool dns_refuse_srv;

static size_t answer_rr(uint8_t *out, uint16_t type, const uint8_t *rdata, size_t rdata_bytes)
{
	struct writer w = writer_over(out, 200);

	writer_u16(&w, 0xc00c); /* the name asked for */
	writer_u16(&w, type);
	writer_u16(&w, 1);
	writer_u32(&w, 60);
	writer_u16(&w, (uint16_t)rdata_bytes);
	writer_bytes(&w, rdata, rdata_bytes);
	assert_false(w.failed);
	return w.used_bytes;
}

static size_t answer_srv(uint8_t *out, uint16_t priority, uint16_t weight, uint16_t port,
			 const char *label)
{
	uint8_t rdata[64];
	struct writer w = writer_over(rdata, sizeof(rdata));

	writer_u16(&w, priority);
	writer_u16(&w, weight);
	writer_u16(&w, port);
	writer_u8(&w, (uint8_t)strlen(label));
	writer_bytes(&w, label, strlen(label));
	writer_bytes(&w, "\x04test", 6);
	return answer_rr(out, 33, rdata, w.used_bytes);
}

/* dom.test: SRV far(20) near(10); near.test A+AAAA, far.test A; plain.test: A only. */
static size_t dns_answer(const char *name, uint16_t type, uint8_t *out, unsigned *n_answers)
{
	static const uint8_t v4[] = { 192, 0, 2, 7 }, v4_far[] = { 192, 0, 2, 8 };
	static const uint8_t v6[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = 9 };
	size_t n_bytes = 0;

	if (type == 33 && !strcmp(name, "_q2q._tcp.dom.test")) {
		n_bytes += answer_srv(out, 20, 0, 1111, "far");
		n_bytes += answer_srv(out + n_bytes, 10, 5, 2222, "near");
		*n_answers = 2;
	} else if (type == 1 && (!strcmp(name, "near.test") || !strcmp(name, "plain.test"))) {
		n_bytes = answer_rr(out, 1, v4, 4);
		*n_answers = 1;
	} else if (type == 1 && !strcmp(name, "far.test")) {
		n_bytes = answer_rr(out, 1, v4_far, 4);
		*n_answers = 1;
	} else if (type == 28 && !strcmp(name, "near.test")) {
		n_bytes = answer_rr(out, 28, v6, 16);
		*n_answers = 1;
	}
	return n_bytes;
}

static void dns_got(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		    size_t n_packets, uint64_t now_us)
{
	(void)user;
	(void)now_us;
	for (size_t i = 0; i < n_packets; i++) {
		uint8_t out[800];
		char name[256] = "";
		const uint8_t *q = packets[i].data;
		size_t at_byte = 12, n_answer_bytes;
		unsigned n_answers = 0;
		uint16_t type;

		while (q[at_byte]) {
			snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s%.*s",
				 name[0] ? "." : "", q[at_byte], (const char *)q + at_byte + 1);
			at_byte += q[at_byte] + 1u;
		}
		type = (uint16_t)(q[at_byte + 1] << 8 | q[at_byte + 2]);
		at_byte += 5;
		if (type == 33 && dns_silent_srv)
			continue;
		memset(out, 0, sizeof(out));
		memcpy(out, q, at_byte);
		n_answer_bytes = type == 33 && dns_refuse_srv
					 ? 0
					 : dns_answer(name, type, out + at_byte, &n_answers);
		out[2] = 0x81;
		out[3] = n_answers ? 0x80 : 0x83; /* NXDOMAIN */
		if (!n_answers && !strcmp(name, "plain.test"))
			out[3] = 0x80; /* the name exists, this type does not */
		out[7] = (uint8_t)n_answers;
		memset(out + 8, 0, 4);
		const struct net_udp_send send = { .to = packets[i].from,
						   .data = out,
						   .data_bytes = at_byte + n_answer_bytes };
		net_udp_send(udp, &send);
	}
}

struct resolve_case {
	bool done;
	struct net_resolved result;
};

static void resolved(void *user, const struct net_resolved *result)
{
	struct resolve_case *c = user;

	assert_false(c->done);
	c->done = true;
	c->result = *result;
}

static struct net_resolver *open_resolver(void)
{
	const struct net_udp_config config = { .bind = at("127.0.0.1:0"), .on_packets = dns_got };
	struct net_resolver *resolver;
	char servers[40];

	dns_silent_srv = dns_refuse_srv = false;
	assert_int_equal(net_udp_new(loop, &config, &dns), 0);
	assert_int_equal(net_resolver_new(loop, &resolver), 0);
	snprintf(servers, sizeof(servers), "127.0.0.1:%u", net_udp_local(dns).port);
	assert_int_equal(net_resolver_use_servers(resolver, servers), 0);
	return resolver;
}

static void close_resolver(struct net_resolver *resolver)
{
	net_resolver_free(resolver);
	net_udp_free(dns);
	assert_int_equal(net_loop_turn(loop, false), 0);
}

static struct net_resolved ask_domain(struct net_resolver *resolver, const char *domain)
{
	struct resolve_case c = { 0 };
	struct net_query *query;

	assert_int_equal(net_resolve_domain(resolver, domain, resolved, &c, &query), 0);
	assert_false(c.done);
	run_until(&c.done);
	return c.result;
}

static void expect_endpoints(const struct net_resolved *result, const char *const *texts,
			     size_t n_texts)
{
	assert_int_equal(result->error, 0);
	assert_int_equal(result->n_endpoints, n_texts);
	for (size_t i = 0; i < n_texts; i++) {
		char text[ENDPOINT_TEXT_BYTES];
		bool found = false;

		/* The families' order among one name's addresses depends on this machine's routes.
		 */
		for (size_t k = 0; k < n_texts; k++)
			found |= !strcmp(endpoint_format(&result->endpoints[k], text), texts[i]);
		assert_true(found);
	}
}

static void a_domain_is_found_by_srv_in_order_of_priority(void **state)
{
	static const char *const wanted[] = { "192.0.2.7:2222", "[2001:db8::9]:2222",
					      "192.0.2.8:1111" };
	struct net_resolver *resolver = open_resolver();
	struct net_resolved result;

	(void)state;
	result = ask_domain(resolver, "dom.test");
	expect_endpoints(&result, wanted, ARRAY_SIZE(wanted));
	assert_true(result.from_srv);
	assert_int_equal(result.endpoints[2].port, 1111);
	close_resolver(resolver);
}

static void without_srv_the_address_and_the_known_port_are_used(void **state)
{
	static const char *const wanted[] = { "192.0.2.7:8788" };
	struct net_resolver *resolver = open_resolver();
	struct net_resolved result;
	unsigned n_slow = 0;
	uint64_t start_us;

	(void)state;
	/* At once, but where the machine is busy, and not each time then. */
	do {
		assert_true(n_slow++ < TRIES_MAX);
		start_us = net_clock_us();
		result = ask_domain(resolver, "plain.test");
		expect_endpoints(&result, wanted, 1);
		assert_false(result.from_srv);
	} while (net_clock_us() - start_us >= 500 * US_PER_MS);

	/* A name server that swallows SRV questions costs the grace period, no more. */
	dns_silent_srv = true;
	start_us = net_clock_us();
	result = ask_domain(resolver, "plain.test");
	expect_endpoints(&result, wanted, 1);
	assert_true(net_clock_us() - start_us < NET_RESOLVE_TIMEOUT_US);
	close_resolver(resolver);
}

static void a_name_that_does_not_exist_is_told_with_a_reason(void **state)
{
	struct net_resolver *resolver = open_resolver();
	struct net_resolved result;

	(void)state;
	result = ask_domain(resolver, "nowhere.test");
	assert_int_equal(result.error, -ENOENT);
	assert_int_equal(result.n_endpoints, 0);
	assert_non_null(strstr(result.reason, "nowhere.test"));
	close_resolver(resolver);
}

static void no_name_server_is_told_quickly(void **state)
{
	struct net_resolver *resolver = open_resolver();
	struct net_resolved result;
	const uint64_t start_us = net_clock_us();

	(void)state;
	net_udp_free(dns);
	dns = NULL;
	result = ask_domain(resolver, "dom.test");
	assert_int_equal(result.error, -ENETUNREACH);
	assert_true(net_clock_us() - start_us < NET_RESOLVE_TIMEOUT_US);
	close_resolver(resolver);
}

static void literals_need_no_name_server(void **state)
{
	static const char *const four[] = { "192.0.2.1:8788" }, *const six[] = { "[::1]:8788" };
	struct net_resolver *resolver = open_resolver();
	struct net_resolved result;

	(void)state;
	result = ask_domain(resolver, "192.0.2.1");
	expect_endpoints(&result, four, 1);
	result = ask_domain(resolver, "::1");
	expect_endpoints(&result, six, 1);
	close_resolver(resolver);
}

static void the_hosts_file_needs_no_name_server(void **state)
{
	struct net_resolver *resolver = open_resolver();
	struct resolve_case c = { 0 };
	struct net_query *query;

	(void)state;
	assert_int_equal(net_resolve_host(resolver, "localhost", 5, resolved, &c, &query), 0);
	run_until(&c.done);
	if (access("/etc/hosts", R_OK) == 0) {
		assert_int_equal(c.result.error, 0);
		assert_true(ip_is_loopback(&c.result.endpoints[0].ip));
		assert_int_equal(c.result.endpoints[0].port, 5);
	} else { /* some minimal systems have none */
		assert_int_equal(c.result.error, -ENETUNREACH);
	}
	close_resolver(resolver);
}

static void what_is_no_name_is_not_asked_for(void **state)
{
	struct net_resolver *resolver = open_resolver();
	struct resolve_case c = { 0 };
	struct net_query *query;

	(void)state;
	assert_int_equal(net_resolve_domain(resolver, "", resolved, &c, &query), -EINVAL);
	assert_int_equal(net_resolve_domain(resolver, "a b", resolved, &c, &query), -EINVAL);
	close_resolver(resolver);
}

static void a_cancelled_question_is_not_answered(void **state)
{
	struct net_resolver *resolver = open_resolver();
	struct resolve_case c = { 0 };
	struct net_query *query;

	(void)state;
	assert_int_equal(net_resolve_domain(resolver, "dom.test", resolved, &c, &query), 0);
	net_query_cancel(query);
	assert_int_equal(net_resolve_domain(resolver, "::1", resolved, &c, &query), 0);
	net_query_cancel(query);
	/* and one is left running when the resolver goes */
	assert_int_equal(net_resolve_domain(resolver, "dom.test", resolved, &c, &query), 0);
	assert_int_equal(net_loop_turn(loop, false), 0);
	close_resolver(resolver);
	run_for(3000);
	assert_false(c.done);
}

static void host_and_port_are_told_apart(void **state)
{
	static const struct {
		const char *text, *host;
		uint16_t port;
	} good[] = { { "a.test", "a.test", 7 },
		     { "a.test:9", "a.test", 9 },
		     { "[::1]:9", "::1", 9 },
		     { "[::1]", "::1", 7 },
		     { "2001:db8::1", "2001:db8::1", 7 },
		     { "1.2.3.4:65535", "1.2.3.4", 65535 } };
	static const char *const bad[] = { "",     ":9",     "a:",   "a:0",  "a:65536",
					   "[::1", "[::1]x", "[]:9", "a:1x", "a:-1" };
	char host[256];
	uint16_t port;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(net_split_host_port(good[i].text, 7, host, &port), 0);
		assert_string_equal(host, good[i].host);
		assert_int_equal(port, good[i].port);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(net_split_host_port(bad[i], 7, host, &port), -EINVAL);
}

/* ---- the driver of a q2q connection --------------------------------------------------- */

struct q2q_end {
	struct net_q2q *driver;
	unsigned n_events, n_closed, n_answers, n_calls;
	uint64_t cookie;
	int error, closed_error;
	bool got, ended, answer_and_close;
	char ip[64];
};

static struct q2q_end q2q_ends[2];

static void q2q_events(void *user, struct net_q2q *driver, struct q2q_conn *conn)
{
	struct q2q_end *end = user;
	struct q2q_event e;

	assert_true(driver == end->driver);
	while (q2q_conn_next_event(conn, &e, net_loop_now_us(loop))) {
		end->n_events++;
		if (e.kind == Q2Q_EVENT_ANSWER && e.command == Q2Q_SOURCE_IP) {
			snprintf(end->ip, sizeof(end->ip), "%.*s",
				 (int)e.answer.source_ip.ip.n_bytes,
				 (const char *)e.answer.source_ip.ip.data);
			end->n_answers++;
			end->got = true;
		} else if (e.kind == Q2Q_EVENT_CALL && e.ask) {
			const struct q2q_answer answer = {
				.command = Q2Q_SOURCE_IP,
				.source_ip.ip = { .data = (const uint8_t *)"192.0.2.1",
						  .n_bytes = 9 }
			};

			end->n_calls++;
			assert_int_equal(
				q2q_conn_answer(conn, e.ask, &answer, net_loop_now_us(loop)), 0);
			if (end->answer_and_close) {
				net_q2q_close(driver);
				end->driver = NULL;
				return;
			}
		} else if (e.kind == Q2Q_EVENT_CLOSED) {
			end->closed_error = e.closed.error;
		}
	}
}

static void q2q_closed(void *user, struct net_q2q *driver, int error)
{
	struct q2q_end *end = user;

	end->n_closed++;
	end->error = error;
	end->ended = true;
	net_q2q_free(driver);
	end->driver = NULL;
}

static const char *outer_name;               /* of the clients that follow; NULL: in clear */
static struct crypto_tls_context *outer_tls; /* of the servers that follow */

static void open_q2q(int fd, enum q2q_role role, struct q2q_end *end)
{
	const struct q2q_conn_config conn_config = { .role = role };
	struct net_q2q_config config = {
		.fd = fd,
		.on_events = q2q_events,
		.on_closed = q2q_closed,
		.user = end,
		.outer_name = role == Q2Q_CLIENT ? outer_name : NULL,
		.outer_tls = role == Q2Q_SERVER ? outer_tls : NULL,
	};

	memset(end, 0, sizeof(*end));
	assert_int_equal(q2q_conn_new(&conn_config, net_clock_us(), &config.conn), 0);
	assert_int_equal(net_q2q_new(loop, &config, &end->driver), 0);
}

static void open_q2q_ends(void)
{
	struct tcp_case c = { 0 };
	struct net_listener *listener;
	struct net_connect *attempt;
	const struct endpoint any = at("127.0.0.1:0");
	struct endpoint to;

	assert_int_equal(net_listen_tcp(loop, &any, tcp_accepted, &c, &listener), 0);
	to = net_listener_local(listener);
	assert_int_equal(net_connect_new(loop, &to, 1, WAIT_US, tcp_connected, &c, &attempt), 0);
	run_until(&c.connected);
	run_until(&c.accepted);
	net_listener_free(listener);
	open_q2q(c.fd, Q2Q_CLIENT, &q2q_ends[0]);
	open_q2q(c.accepted_fd, Q2Q_SERVER, &q2q_ends[1]);
}

static void ask_q2q(void)
{
	const struct q2q_call call = { .command = Q2Q_SOURCE_IP };

	q2q_ends[0].got = false;
	assert_int_equal(
		q2q_conn_call(net_q2q_conn(q2q_ends[0].driver), &call, 7, 0, net_loop_now_us(loop)),
		0);
	net_q2q_pump(q2q_ends[0].driver);
}

static void a_question_crosses_the_socket_and_its_answer_comes_back(void **state)
{
	(void)state;
	open_q2q_ends();
	assert_int_equal(net_q2q_remote(q2q_ends[0].driver).port,
			 net_q2q_local(q2q_ends[1].driver).port);
	for (unsigned i = 1; i <= 100; i++) {
		ask_q2q();
		assert_int_equal(q2q_ends[0].n_answers, i - 1); /* never inside our own call */
		run_until(&q2q_ends[0].got);
		assert_string_equal(q2q_ends[0].ip, "192.0.2.1");
	}
	net_q2q_free(q2q_ends[0].driver);
	run_until(&q2q_ends[1].ended);
	assert_int_equal(q2q_ends[1].n_closed, 1);
	assert_int_equal(q2q_ends[1].n_calls, 100);
}

static void what_waits_is_written_before_a_closed_connection_ends(void **state)
{
	(void)state;
	open_q2q_ends();
	q2q_ends[1].answer_and_close = true;
	ask_q2q();
	run_until(&q2q_ends[0].ended);
	assert_int_equal(q2q_ends[0].n_answers, 1);
	assert_int_equal(q2q_ends[0].n_closed, 1);
	assert_int_equal(q2q_ends[0].error, 0);
	run_for(3000); /* the closed end notices ours and goes away by itself */
}

/* ---- TLS around it ---- */

static struct crypto_tls_context *make_tls(void)
{
	struct crypto_tls_config config = { .cert = NULL };
	struct crypto_tls_context *context;
	struct crypto_key *key;

	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &key), 0);
	assert_int_equal(crypto_cert_make_domain(key, "b.test", time(NULL), 1, &config.cert), 0);
	config.key = key;
	assert_int_equal(crypto_tls_context_new(&config, &context), 0);
	crypto_cert_unref(config.cert);
	crypto_key_free(key);
	return context;
}

static int open_outer(void **state)
{
	outer_tls = make_tls();
	return make_loop(state);
}

static int close_outer(void **state)
{
	crypto_tls_context_unref(outer_tls);
	outer_tls = NULL;
	outer_name = NULL;
	return drop_loop(state);
}

static void questions_cross(unsigned n)
{
	for (unsigned i = 1; i <= n; i++) {
		ask_q2q();
		run_until(&q2q_ends[0].got);
		assert_int_equal(q2q_ends[0].n_answers, i);
	}
}

static void a_listener_takes_clients_in_clear_and_with_tls_around(void **state)
{
	(void)state;
	for (int wrapped = 0; wrapped < 2; wrapped++) {
		outer_name = wrapped ? "b.test" : NULL;
		open_q2q_ends();
		questions_cross(100);
		assert_int_equal(net_q2q_is_wrapped(q2q_ends[0].driver), wrapped);
		assert_int_equal(net_q2q_is_wrapped(q2q_ends[1].driver), wrapped);
		net_q2q_close(q2q_ends[0].driver);
		run_until(&q2q_ends[1].ended);
		assert_int_equal(q2q_ends[1].error, 0);
		run_for(100);
	}
}

static void the_last_words_pass_the_tls_around_too(void **state)
{
	(void)state;
	outer_name = "b.test";
	open_q2q_ends();
	q2q_ends[1].answer_and_close = true;
	ask_q2q();
	run_until(&q2q_ends[0].ended);
	assert_int_equal(q2q_ends[0].n_answers, 1);
	assert_int_equal(q2q_ends[0].error, 0);
	run_for(100);
}

/* What a program of the web would say, and somebody in the middle: neither gets through. */
static void tls_around_that_is_broken_ends_the_connection(void **state)
{
	static const uint8_t hello[] = { 0x16, 3, 1, 0, 4, 1, 0, 0, 0 };
	int pair[2];
	uint8_t answer[64];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	open_q2q(pair[0], Q2Q_SERVER, &q2q_ends[0]);
	assert_int_equal(send(pair[1], hello, sizeof(hello), 0), sizeof(hello));
	run_until(&q2q_ends[0].ended);
	assert_int_equal(q2q_ends[0].error, -EPROTO);
	assert_true(recv(pair[1], answer, sizeof(answer), 0) > 0); /* an alert */
	assert_int_equal(answer[0], 0x15);
	close(pair[1]);
}

static void without_a_certificate_tls_around_is_rubbish(void **state)
{
	(void)state;
	crypto_tls_context_unref(outer_tls);
	outer_tls = NULL;
	outer_name = "b.test";
	open_q2q_ends();
	outer_name = NULL;
	run_until(&q2q_ends[1].ended);
	assert_int_equal(q2q_ends[1].closed_error, -EBADMSG);
	run_until(&q2q_ends[0].ended);
	assert_int_equal(q2q_ends[0].n_answers, 0);
}

static void rubbish_on_the_socket_closes_it(void **state)
{
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	open_q2q(pair[0], Q2Q_SERVER, &q2q_ends[0]);
	assert_int_equal(send(pair[1], "\xff\xff\xff\xff rubbish", 12, 0), 12);
	run_until(&q2q_ends[0].ended);
	assert_int_equal(q2q_ends[0].n_closed, 1);
	assert_int_equal(q2q_ends[0].closed_error, -EBADMSG);
	close(pair[1]);
}

#define CASE(fn)  cmocka_unit_test_setup_teardown(fn, make_loop, drop_loop)
#define OUTER(fn) cmocka_unit_test_setup_teardown(fn, open_outer, close_outer)

/* A program that ends at once: what was closed has not had the time to leave. */
static void what_still_writes_is_freed_with_the_loop(void **state)
{
	static char text[200000];
	struct net_line_config config = { .output_bytes_max = 2 * sizeof(text) };
	struct net_line *line;
	int fds[2];
	char c;

	(void)state;
	memset(text, 'x', sizeof(text));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
		config.fd = fds[0];
		assert_int_equal(net_line_new(loop, &config, &line), 0);
		for (int n = 0; n < 2 && i == 0; n++) /* more than a socket holds */
			net_line_send(line, text, sizeof(text) - 1);
		net_line_send(line, "y", 1);
		net_line_close(line);
		if (i == 0) {
			net_loop_free(loop);
			assert_int_equal(net_loop_new(&loop), 0);
			/* The socket went as well. */
			while (read(fds[1], &c, 1) > 0)
				;
			assert_int_equal(read(fds[1], &c, 1), 0);
		}
		net_loop_turn(loop, false);
		close(fds[1]);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(what_still_writes_is_freed_with_the_loop),
		CASE(timers_run_once_in_order_and_not_early),
		CASE(a_pushed_back_timer_does_not_run_at_its_old_time),
		CASE(what_is_due_already_sets_no_timerfd_and_lets_sockets_go_first),
		CASE(soon_runs_in_the_same_turn_and_can_be_cancelled),
		CASE(a_signal_arrives_in_the_loop),
		CASE(a_dual_stack_socket_talks_to_both_families),
		CASE(a_source_address_can_be_chosen),
		CASE(a_batch_arrives_as_the_same_datagrams),
		CASE(many_sends_leave_together_and_a_bad_one_harms_no_other),
		CASE(a_fault_of_one_destination_is_told),
		CASE(a_taken_port_is_a_fault),
		CASE(this_machine_has_a_loopback_address),
		CASE(connecting_goes_on_to_the_next_endpoint_when_one_refuses),
		CASE(connecting_to_nobody_tells_why),
		CASE(connecting_gives_up_in_time),
		CASE(a_control_client_is_known_by_its_credentials),
		CASE(a_socket_file_of_a_dead_process_is_replaced),
		CASE(lines_arrive_whole_and_in_order),
		CASE(a_line_without_end_closes_the_connection),
		CASE(output_that_nobody_reads_is_bounded),
		CASE(ipv4_stands_in_ipv6_as_the_rfc_says),
		CASE(the_well_known_prefix_stands_for_global_addresses_alone),
		CASE(the_prefix_is_read_from_what_a_resolver_made_up),
		CASE(only_what_is_far_goes_through_the_prefix),
		CASE(a_domain_is_found_by_srv_in_order_of_priority),
		CASE(without_srv_the_address_and_the_known_port_are_used),
		CASE(a_name_that_does_not_exist_is_told_with_a_reason),
		CASE(no_name_server_is_told_quickly),
		CASE(literals_need_no_name_server),
		CASE(the_hosts_file_needs_no_name_server),
		CASE(what_is_no_name_is_not_asked_for),
		CASE(a_cancelled_question_is_not_answered),
		CASE(host_and_port_are_told_apart),
		CASE(a_question_crosses_the_socket_and_its_answer_comes_back),
		CASE(what_waits_is_written_before_a_closed_connection_ends),
		CASE(rubbish_on_the_socket_closes_it),
		OUTER(a_listener_takes_clients_in_clear_and_with_tls_around),
		OUTER(the_last_words_pass_the_tls_around_too),
		OUTER(tls_around_that_is_broken_ends_the_connection),
		OUTER(without_a_certificate_tls_around_is_rubbish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
