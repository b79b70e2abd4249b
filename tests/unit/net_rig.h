/* A loop for each case, and turning it until something has happened. */
#ifndef TESTS_UNIT_NET_RIG_H
#define TESTS_UNIT_NET_RIG_H

#include "unit.h"
#include "net/net.h"

#define WAIT_US (30 * US_PER_S) /* longer than anything here takes; a test that hangs fails */

static struct net_loop *loop;

static int make_loop(void **state)
{
	(void)state;
	return net_loop_new(&loop);
}

static int drop_loop(void **state)
{
	(void)state;
	net_loop_free(loop);
	loop = NULL;
	return 0;
}

static void time_is_up(void *user, uint64_t now_us)
{
	(void)now_us;
	*(bool *)user = true;
}

/* Turns the loop until *done or until it took too long. */
static void run_until(const bool *done)
{
	struct net_timer timer;
	bool late = false;

	net_timer_init(&timer, loop, time_is_up, &late);
	net_timer_arm(&timer, net_clock_us() + WAIT_US);
	while (!*done && !late)
		assert_int_equal(net_loop_turn(loop, true), 0);
	net_timer_disarm(&timer);
	assert_true(*done);
}

#endif
