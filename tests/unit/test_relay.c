#include "unit.h"
#include "q2q/q2q.h"
#include "relay/relay.h"

#include <stdio.h>

#define ID_A "0123456789abcdef0123456789abcdef"
#define ID_B "ffffffffffffffffffffffffffffffff"

static struct relay *small_relay(void)
{
	const struct relay_config config = {
		.seed = { 1, 2 },
		.ends_max = 8,
		.listens_per_end_max = 2,
		.listeners_max = 2,
		.rendezvous_max = 6,
		.rendezvous_per_end_max = 3,
		.bytes_per_s = 1000,
		.burst_bytes = 2000,
		.signals_per_s = 1,
		.signals_burst = 2,
		.queue_max_bytes = 500,
	};
	struct relay *r = relay_new(&config);

	assert_non_null(r);
	return r;
}

static struct relay_end *new_end(struct relay *r, const char *account)
{
	struct relay_end *end;

	assert_int_equal(relay_end_new(r, account, NULL, 0, &end), 0);
	return end;
}

static void id_of(unsigned n, char out[RELAY_ID_BYTES + 1])
{
	snprintf(out, RELAY_ID_BYTES + 1, "%032x", n);
}

static int add(struct relay_end *a, struct relay_end *b, const char *id)
{
	return relay_rendezvous_add(a, b, id, strlen(id));
}

static int route(struct relay_end *from, const char *id, struct relay_end **ret_to)
{
	return relay_route(from, id, strlen(id), ret_to);
}

static void listeners_are_found_by_address_and_protocol_until_they_go(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *bob1 = new_end(r, "bob@b.test"), *bob2 = new_end(r, "bob@b.test");
	struct relay_end *found[4];

	(void)state;
	assert_int_equal(relay_listen(bob1, "bob@b.test", "q2q-tun"), 0);
	assert_int_equal(relay_listen(bob2, "bob@b.test", "q2q-tun"), 0);
	assert_int_equal(relay_listen(bob1, "bob@b.test", "q2q-tun"), 0);
	assert_int_equal(relay_listeners(r, "bob@b.test", "q2q-tun", found, 4), 2);
	assert_ptr_equal(found[0], bob1);
	assert_ptr_equal(found[1], bob2);
	assert_int_equal(relay_listeners(r, "bob@b.test", "q2q-tun", found, 1), 1);
	assert_int_equal(relay_listeners(r, "bob@b.test", "other", found, 4), 0);
	assert_int_equal(relay_listeners(r, "bob@b.tes", "tq2q-tun", found, 4), 0);
	assert_true(relay_end_listens(bob1, "bob@b.test", "q2q-tun"));
	assert_false(relay_end_listens(bob1, "bob@b.test", "x"));

	relay_end_free(bob1);
	assert_int_equal(relay_listeners(r, "bob@b.test", "q2q-tun", found, 4), 1);
	assert_ptr_equal(found[0], bob2);
	relay_end_free(bob2);
	assert_int_equal(relay_listeners(r, "bob@b.test", "q2q-tun", found, 4), 0);
	relay_free(r);
}

static void listening_is_bounded_per_connection_and_per_name(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *a = new_end(r, "a@t"), *b = new_end(r, "a@t"), *c = new_end(r, "a@t");
	char long_name[RELAY_PROTOCOL_MAX + 2] = "";
	struct relay_stats stats;

	(void)state;
	memset(long_name, 'x', sizeof(long_name) - 1);
	assert_int_equal(relay_listen(a, "a@t", long_name), -EINVAL);
	assert_int_equal(relay_listen(a, "a@t", ""), -EINVAL);
	assert_int_equal(relay_listen(a, "", "p"), -EINVAL);
	assert_int_equal(relay_listen(a, "a@t", "p"), 0);
	assert_int_equal(relay_listen(a, "a@t", "q"), 0);
	assert_int_equal(relay_listen(a, "a@t", "r"), RELAY_LIMITED);
	assert_int_equal(relay_listen(b, "a@t", "p"), 0);
	assert_int_equal(relay_listen(c, "a@t", "p"), RELAY_LIMITED);
	relay_stats(r, &stats);
	assert_int_equal(stats.n_listens, 3);
	assert_int_equal(stats.n_limited, 2);
	relay_end_free(a);
	relay_end_free(b);
	relay_end_free(c);
	relay_free(r);
}

static void a_rendezvous_joins_its_two_ends_and_nobody_else(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *alice = new_end(r, "alice@t"), *bob = new_end(r, "bob@t");
	struct relay_end *mallory = new_end(r, "mallory@t"), *to = NULL;
	struct relay_stats stats;

	(void)state;
	assert_int_equal(add(alice, bob, ID_A), 0);
	assert_int_equal(route(alice, ID_A, &to), 0);
	assert_ptr_equal(to, bob);
	assert_int_equal(route(bob, ID_A, &to), 0);
	assert_ptr_equal(to, alice);
	to = NULL;
	assert_int_equal(route(mallory, ID_A, &to), RELAY_UNKNOWN);
	assert_int_equal(route(alice, ID_B, &to), RELAY_UNKNOWN);
	assert_int_equal(route(alice, "0123456789abcdef0123456789abcdeF", &to), RELAY_UNKNOWN);
	assert_int_equal(route(alice, "", &to), RELAY_UNKNOWN);
	assert_null(to);
	assert_int_equal(relay_rendezvous_close(mallory, ID_A, strlen(ID_A)), RELAY_UNKNOWN);
	relay_stats(r, &stats);
	assert_int_equal(stats.n_unknown, 5);
	assert_int_equal(stats.n_rendezvous, 1);

	assert_int_equal(add(mallory, bob, ID_A), RELAY_TAKEN);
	assert_int_equal(add(bob, bob, ID_B), RELAY_TAKEN);
	assert_int_equal(add(alice, bob, "xyz"), -EINVAL);
	relay_end_free(alice);
	relay_end_free(bob);
	relay_end_free(mallory);
	relay_free(r);
}

static void the_end_that_stays_is_told_once(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *alice = new_end(r, "alice@t"), *bob = new_end(r, "bob@t"), *end, *to;
	char id[RELAY_ID_BYTES + 1];

	(void)state;
	assert_int_equal(add(alice, bob, ID_A), 0);
	assert_int_equal(add(bob, alice, ID_B), 0);
	assert_false(relay_next_gone(r, &end, id));
	assert_int_equal(relay_rendezvous_close(bob, ID_B, strlen(ID_B)), 0);
	assert_true(relay_next_gone(r, &end, id));
	assert_ptr_equal(end, alice);
	assert_string_equal(id, ID_B);
	assert_false(relay_next_gone(r, &end, id));
	assert_int_equal(route(bob, ID_B, &to), RELAY_UNKNOWN);

	relay_end_free(alice);
	assert_int_equal(route(bob, ID_A, &to), RELAY_UNKNOWN);
	assert_true(relay_next_gone(r, &end, id));
	assert_ptr_equal(end, bob);
	assert_string_equal(id, ID_A);
	assert_false(relay_next_gone(r, &end, id));

	/* Both went before anybody asked: nobody is told. */
	alice = new_end(r, "alice@t");
	assert_int_equal(add(alice, bob, ID_A), 0);
	relay_end_free(alice);
	relay_end_free(bob);
	assert_false(relay_next_gone(r, &end, id));
	relay_free(r);
}

static void the_least_used_rendezvous_of_an_end_makes_room(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *alice = new_end(r, "alice@t"), *bob[4], *end, *to;
	char id[4][RELAY_ID_BYTES + 1], gone[RELAY_ID_BYTES + 1];
	struct relay_stats stats;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		bob[i] = new_end(r, "bob@t");
		id_of(i, id[i]);
		if (i == 3)
			assert_int_equal(route(alice, id[0], &to), 0); /* so 1 is the oldest */
		assert_int_equal(add(alice, bob[i], id[i]), 0);
	}
	assert_true(relay_next_gone(r, &end, gone));
	assert_ptr_equal(end, alice);
	assert_string_equal(gone, id[1]);
	assert_true(relay_next_gone(r, &end, gone));
	assert_ptr_equal(end, bob[1]);
	assert_string_equal(gone, id[1]);
	assert_false(relay_next_gone(r, &end, gone));
	assert_int_equal(route(alice, id[0], &to), 0);
	assert_int_equal(route(alice, id[1], &to), RELAY_UNKNOWN);
	relay_stats(r, &stats);
	assert_int_equal(stats.n_evicted, 1);
	assert_int_equal(stats.n_rendezvous, 3);
	relay_end_free(alice);
	for (unsigned i = 0; i < 4; i++)
		relay_end_free(bob[i]);
	relay_free(r);
}

static void all_rendezvous_together_are_bounded(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *a = new_end(r, "a@t"), *b = new_end(r, "b@t");
	struct relay_end *c = new_end(r, "c@t"), *d = new_end(r, "d@t");
	char id[RELAY_ID_BYTES + 1];

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		id_of(i, id);
		assert_int_equal(i < 3 ? add(a, b, id) : add(c, d, id), 0);
	}
	assert_int_equal(add(a, d, ID_B), RELAY_LIMITED);
	relay_end_free(b);
	assert_int_equal(add(a, d, ID_B), 0);
	relay_end_free(a);
	relay_end_free(c);
	relay_end_free(d);
	relay_free(r);
}

static void connections_of_one_account_share_its_rate(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *a1 = new_end(r, "a@t"), *a2 = new_end(r, "a@t"), *b = new_end(r, "b@t");
	struct relay_stats stats;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(relay_charge_bytes(i % 2 ? a1 : a2, 500, 0, 0), 0);
	assert_int_equal(relay_charge_bytes(a1, 1, 0, 0), RELAY_LIMITED);
	assert_int_equal(relay_charge_bytes(a2, 1, 0, 0), RELAY_LIMITED);
	assert_int_equal(relay_charge_bytes(b, 500, 0, 0), 0);
	assert_int_equal(relay_charge_bytes(a1, 100, 0, 100 * US_PER_MS), 0);
	assert_int_equal(relay_charge_bytes(a1, 1, 0, 100 * US_PER_MS), RELAY_LIMITED);
	/* A clock that stands, and a very long silence, both leave it sane. */
	assert_int_equal(relay_charge_bytes(a1, 1, 0, 0), RELAY_LIMITED);
	assert_int_equal(relay_charge_bytes(a1, 500, 0, UINT64_MAX / 2), 0);
	relay_stats(r, &stats);
	assert_int_equal(stats.n_limited, 4);
	assert_int_equal(stats.relayed_bytes, 3100);
	relay_end_free(a1);
	relay_end_free(a2);
	relay_end_free(b);
	relay_free(r);
}

static void a_slow_receiver_costs_its_own_data_only(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *a = new_end(r, "a@t");
	struct relay_stats stats;

	(void)state;
	assert_int_equal(relay_charge_bytes(a, 1, 500, 0), RELAY_FULL);
	assert_int_equal(relay_charge_bytes(a, 1, SIZE_MAX, 0), RELAY_FULL);
	assert_int_equal(relay_charge_bytes(a, SIZE_MAX, 1, 0), RELAY_FULL);
	assert_int_equal(relay_charge_bytes(a, 1, 499, 0), 0);
	relay_stats(r, &stats);
	assert_int_equal(stats.n_full, 3);
	assert_int_equal(stats.relayed_bytes, 1);
	relay_end_free(a);
	relay_free(r);
}

static void signals_have_a_rate_of_their_own(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *a = new_end(r, "a@t");

	(void)state;
	assert_int_equal(relay_charge_signal(a, 0), 0);
	assert_int_equal(relay_charge_signal(a, 0), 0);
	assert_int_equal(relay_charge_signal(a, US_PER_S / 2), RELAY_LIMITED);
	assert_int_equal(relay_charge_signal(a, US_PER_S), 0);
	relay_end_free(a);
	relay_free(r);
}

static void connections_are_bounded(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *ends[8], *one_more;

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		ends[i] = new_end(r, i % 2 ? "a@t" : "b@t");
	assert_int_equal(relay_end_new(r, "c@t", NULL, 0, &one_more), RELAY_LIMITED);
	for (unsigned i = 0; i < 8; i++)
		relay_end_free(ends[i]);
	relay_free(r);
}

/* Random operations against a plain model of who is joined to whom. */
static void many_random_steps_agree_with_a_plain_model(void **state)
{
	enum { N_ENDS = 8, N_IDS = 16, N_STEPS = 200000 };
	struct relay *r = small_relay();
	struct relay_end *ends[N_ENDS] = { NULL }, *to, *end;
	struct {
		int a, b;
	} model[N_IDS];
	char id[RELAY_ID_BYTES + 1];
	uint32_t rng = 7;

	(void)state;
	for (int i = 0; i < N_IDS; i++)
		model[i].a = model[i].b = -1;
	for (int step = 0; step < N_STEPS; step++) {
		rng = rng * 1664525u + 1013904223u;
		const int e = (int)((rng >> 28) & 7), f = (int)((rng >> 24) & 7);
		const int i = (int)((rng >> 16) & 15), what = (int)((rng >> 12) & 7);

		id_of((unsigned)i, id);
		if (!ends[e])
			assert_int_equal(relay_end_new(r, "a@t", &ends[e], 0, &ends[e]), 0);
		if (what == 0) {
			relay_end_free(ends[e]);
			ends[e] = NULL;
			for (int k = 0; k < N_IDS; k++)
				if (model[k].a == e || model[k].b == e)
					model[k].a = model[k].b = -1;
		} else if (what < 3 && ends[f]) {
			const int rc = add(ends[e], ends[f], id);

			if (model[i].a >= 0 || e == f)
				assert_int_equal(rc, RELAY_TAKEN);
			if (rc == 0) {
				model[i].a = e;
				model[i].b = f;
			}
		} else if (what == 3) {
			const bool mine = model[i].a == e || model[i].b == e;

			assert_int_equal(relay_rendezvous_close(ends[e], id, strlen(id)),
					 mine ? 0 : RELAY_UNKNOWN);
			if (mine)
				model[i].a = model[i].b = -1;
		} else {
			const bool mine = model[i].a == e || model[i].b == e;
			const int rc = route(ends[e], id, &to);

			assert_int_equal(rc, mine ? 0 : RELAY_UNKNOWN);
			if (mine)
				assert_ptr_equal(to,
						 ends[model[i].a == e ? model[i].b : model[i].a]);
		}
		/* Whoever was evicted comes out here, so the model learns of it. */
		while (relay_next_gone(r, &end, id)) {
			unsigned long k = strtoul(id, NULL, 16);

			assert_true(k < N_IDS);
			for (int x = 0; x < N_ENDS; x++)
				if (ends[x] == end && (model[k].a == x || model[k].b == x))
					model[k].a = model[k].b = -1;
		}
	}
	for (int e = 0; e < N_ENDS; e++)
		relay_end_free(ends[e]);
	relay_free(r);
}

/* ---- channels ---- */

#define NAME_A ((const uint8_t *)"aaaaaaaa")
#define NAME_B ((const uint8_t *)"bbbbbbbb")
#define KEY_A  ((const uint8_t *)"the key of a, which is 32 bytes.")
#define KEY_B  ((const uint8_t *)"the key of b, which is 32 bytes.")

static struct relay_place place(const char *text)
{
	struct relay_place p = { .socket = NULL };

	assert_int_equal(endpoint_parse(text, false, &p.remote), 0);
	return p;
}

static int bind_by(struct relay *r, const uint8_t *name, const uint8_t *key, uint64_t counter,
		   const char *from, uint64_t now_us)
{
	const struct relay_place p = place(from);
	uint8_t bind[Q2Q_CHANNEL_BIND_BYTES], bound[Q2Q_CHANNEL_BIND_BYTES];
	uint64_t answered;
	int rc;

	assert_int_equal(q2q_channel_seal(Q2Q_CHANNEL_BIND, name, key, counter, bind), 0);
	rc = relay_channel_bind(r, bind, &p, now_us, bound);
	if (rc == 0) {
		assert_int_equal(q2q_channel_kind(bound, sizeof(bound)), Q2Q_CHANNEL_BOUND);
		assert_int_equal(q2q_channel_open(bound, key, &answered), 0);
		assert_int_equal(answered, counter);
	}
	return rc;
}

/* Where data of that name from there goes; "" if nowhere. */
static const char *goes_to(struct relay *r, const uint8_t *name, const char *from, uint64_t now_us)
{
	static char text[ENDPOINT_TEXT_BYTES];
	const struct relay_place p = place(from), *to;
	const uint8_t *as;

	if (relay_channel_route(r, name, &p.remote, 10, false, now_us, &as, &to) != 0)
		return "";
	assert_memory_equal(as, memcmp(name, NAME_A, 8) == 0 ? NAME_B : NAME_A, 8);
	return endpoint_format(&to->remote, text);
}

static void a_channel_passes_data_between_two_bound_ends_only(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *a = new_end(r, "alice@a.test"), *b = new_end(r, "bob@b.test");
	struct relay_end *c = new_end(r, "carol@c.test");
	struct relay_stats stats;

	(void)state;
	assert_int_equal(relay_channel_new(a, ID_A, 32, NAME_A, KEY_A), RELAY_UNKNOWN);
	assert_int_equal(add(a, b, ID_A), 0);
	assert_int_equal(relay_channel_new(c, ID_A, 32, NAME_A, KEY_A), RELAY_UNKNOWN);
	assert_int_equal(relay_channel_new(a, ID_A, 32, NAME_A, KEY_A), 0);
	assert_int_equal(relay_channel_new(b, ID_A, 32, NAME_A, KEY_B), RELAY_TAKEN);
	assert_int_equal(relay_channel_new(b, ID_A, 32, NAME_B, KEY_B), 0);
	assert_int_equal(bind_by(r, NAME_A, KEY_A, 1, "192.0.2.1:1001", 0), 0);
	assert_string_equal(goes_to(r, NAME_A, "192.0.2.1:1001", 0), ""); /* b is not bound */
	assert_int_equal(bind_by(r, NAME_B, KEY_B, 1, "192.0.2.2:1002", 0), 0);
	assert_string_equal(goes_to(r, NAME_A, "192.0.2.1:1001", 0), "192.0.2.2:1002");
	assert_string_equal(goes_to(r, NAME_B, "192.0.2.2:1002", 0), "192.0.2.1:1001");
	/* Not from anywhere else, and not for nobody. */
	assert_string_equal(goes_to(r, NAME_A, "192.0.2.1:1009", 0), "");
	assert_string_equal(goes_to(r, NAME_A, "192.0.2.9:1001", 0), "");
	assert_false(relay_channel_known(r, (const uint8_t *)"cccccccc"));
	/* It ends with the rendezvous. */
	assert_int_equal(relay_rendezvous_close(a, ID_A, 32), 0);
	assert_false(relay_channel_known(r, NAME_A));
	assert_false(relay_channel_known(r, NAME_B));
	relay_stats(r, &stats);
	assert_int_equal(stats.n_channels, 0);
	relay_end_free(a);
	relay_end_free(b);
	relay_end_free(c);
	relay_free(r);
}

static void only_a_fresh_bind_of_the_right_key_moves_an_end(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *a = new_end(r, "alice@a.test"), *b = new_end(r, "bob@b.test");

	(void)state;
	assert_int_equal(add(a, b, ID_A), 0);
	assert_int_equal(relay_channel_new(a, ID_A, 32, NAME_A, KEY_A), 0);
	assert_int_equal(relay_channel_new(b, ID_A, 32, NAME_B, KEY_B), 0);
	assert_int_equal(bind_by(r, NAME_A, KEY_A, 5, "192.0.2.1:1001", 0), 0);
	assert_int_equal(bind_by(r, NAME_B, KEY_B, 5, "192.0.2.2:1002", 0), 0);
	assert_int_equal(bind_by(r, NAME_A, KEY_A, 5, "203.0.113.1:6", 0), -EBADMSG);
	assert_int_equal(bind_by(r, NAME_A, KEY_A, 4, "203.0.113.1:6", 0), -EBADMSG);
	assert_int_equal(bind_by(r, NAME_A, KEY_B, 6, "203.0.113.1:6", 0), -EBADMSG);
	assert_string_equal(goes_to(r, NAME_B, "192.0.2.2:1002", 0), "192.0.2.1:1001");
	assert_int_equal(bind_by(r, NAME_A, KEY_A, 6, "198.51.100.1:7", 0), 0);
	assert_string_equal(goes_to(r, NAME_B, "192.0.2.2:1002", 0), "198.51.100.1:7");
	/* Whoever has not been heard of for long may be somebody else by now. */
	assert_string_equal(goes_to(r, NAME_B, "192.0.2.2:1002", 89 * US_PER_S), "198.51.100.1:7");
	assert_string_equal(goes_to(r, NAME_B, "192.0.2.2:1002", 91 * US_PER_S), "");
	/* A second channel takes the place of the first. */
	assert_int_equal(relay_channel_new(a, ID_A, 32, (const uint8_t *)"AAAAAAAA", KEY_A), 0);
	assert_false(relay_channel_known(r, NAME_A));
	relay_end_free(a);
	assert_false(relay_channel_known(r, (const uint8_t *)"AAAAAAAA"));
	relay_end_free(b);
	relay_free(r);
}

/* One that sends ten times as much as the other, both through a server that can pass half. */
static void overload_is_shared_alike(void **state)
{
	const struct relay_config config = {
		.seed = { 1, 2 },
		.ends_max = 8,
		.rendezvous_max = 6,
		.rendezvous_per_end_max = 3,
		.bytes_per_s = 100000000,
		.burst_bytes = 100000000,
		.total_bytes_per_s = 1000000,
		.queue_max_bytes = 1000000,
	};
	struct relay *r = relay_new(&config);
	struct relay_end *greedy = new_end(r, "greedy@a.test"), *modest = new_end(r, "m@a.test");
	uint64_t passed[2] = { 0, 0 };

	(void)state;
	for (uint64_t ms = 0; ms < 10000; ms++) {
		for (int i = 0; i < 10; i++)
			passed[0] += relay_charge_bytes(greedy, 1000, 0, ms * 1000) == 0 ? 1000 : 0;
		/* 400 of 1000 kB/s: less than half. */
		if (ms % 5 < 2)
			passed[1] += relay_charge_bytes(modest, 1000, 0, ms * 1000) == 0 ? 1000 : 0;
	}
	assert_int_equal(passed[1], 4000000);
	/* What is left is not wasted, and the limit holds, but for the packet that passes it. */
	assert_in_range(passed[0], 5400000, 6700000);
	relay_end_free(greedy);
	relay_end_free(modest);
	relay_free(r);
}

static void a_full_socket_makes_those_wait_who_send_most(void **state)
{
	struct relay *r = small_relay();
	struct relay_end *a = new_end(r, "alice@a.test"), *b = new_end(r, "bob@b.test");
	const struct relay_place at_a = place("192.0.2.1:1"), at_b = place("192.0.2.2:2"), *to;
	const uint8_t *as;

	(void)state;
	assert_int_equal(add(a, b, ID_A), 0);
	assert_int_equal(relay_channel_new(a, ID_A, 32, NAME_A, KEY_A), 0);
	assert_int_equal(relay_channel_new(b, ID_A, 32, NAME_B, KEY_B), 0);
	assert_int_equal(bind_by(r, NAME_A, KEY_A, 1, "192.0.2.1:1", 0), 0);
	assert_int_equal(bind_by(r, NAME_B, KEY_B, 1, "192.0.2.2:2", 0), 0);
	assert_int_equal(relay_channel_route(r, NAME_A, &at_a.remote, 900, false, 1, &as, &to), 0);
	assert_int_equal(relay_channel_route(r, NAME_B, &at_b.remote, 100, false, 1, &as, &to), 0);
	assert_int_equal(relay_channel_route(r, NAME_A, &at_a.remote, 100, true, 1, &as, &to),
			 RELAY_FULL);
	assert_int_equal(relay_channel_route(r, NAME_B, &at_b.remote, 100, true, 1, &as, &to), 0);
	relay_end_free(a);
	relay_end_free(b);
	relay_free(r);
}

/* ---- many users ---- */

#define N_USERS 8
#define N_WAYS  (N_USERS + 3) /* the first user has four connections */

/* Senders with a channel each to one end that only listens. */
struct crowd {
	struct relay *r;
	struct relay_end *sink, *ends[N_WAYS];
	struct relay_place places[N_WAYS];
	uint8_t names[N_WAYS][Q2Q_CHANNEL_BYTES];
};

static unsigned user_of(unsigned way)
{
	return way < N_USERS ? way : 0;
}

static void open_way(struct crowd *c, struct relay_end *from, struct relay_end *to, unsigned way)
{
	char id[RELAY_ID_BYTES + 1], at[ENDPOINT_TEXT_BYTES];
	uint8_t back[Q2Q_CHANNEL_BYTES] = "to me  ";

	id_of(way + 1, id);
	memcpy(c->names[way], "from   ", Q2Q_CHANNEL_BYTES);
	c->names[way][7] = (uint8_t)(way + 1);
	back[7] = (uint8_t)(way + 1);
	assert_int_equal(add(from, to, id), 0);
	assert_int_equal(relay_channel_new(from, id, 32, c->names[way], KEY_A), 0);
	assert_int_equal(relay_channel_new(to, id, 32, back, KEY_B), 0);
	snprintf(at, sizeof(at), "192.0.2.1:%u", 1000 + way);
	c->places[way] = place(at);
	assert_int_equal(bind_by(c->r, c->names[way], KEY_A, 1, at, 0), 0);
	assert_int_equal(bind_by(c->r, back, KEY_B, 1, "192.0.2.2:2", 0), 0);
}

static struct crowd crowd_of(const struct relay_config *config)
{
	struct crowd c = { .r = relay_new(config) };

	assert_non_null(c.r);
	c.sink = new_end(c.r, "sink@b.test");
	for (unsigned i = 0; i < N_WAYS; i++) {
		char name[32];

		snprintf(name, sizeof(name), "user%u@a.test", user_of(i));
		c.ends[i] = new_end(c.r, name);
		open_way(&c, c.ends[i], c.sink, i);
	}
	return c;
}

static void crowd_end(struct crowd *c)
{
	for (unsigned i = 0; i < N_WAYS; i++)
		relay_end_free(c->ends[i]);
	relay_end_free(c->sink);
	relay_free(c->r);
}

static int send_by(struct crowd *c, unsigned way, size_t n_bytes, bool congested, uint64_t now_us)
{
	const struct relay_place *to;
	const uint8_t *name;

	return relay_channel_route(c->r, c->names[way], &c->places[way].remote, n_bytes, congested,
				   now_us, &name, &to);
}

static const struct relay_config crowd_config = {
	.seed = { 1, 2 },
	.ends_max = 32,
	.rendezvous_max = 64,
	.rendezvous_per_end_max = 32,
	.bytes_per_s = 100000000,
	.burst_bytes = 100000000,
	.queue_max_bytes = 1000000,
};

/* Jain, Chiu and Hawe 1984: 1 when all have the same, 1/n when one has all. */
static double jain(const uint64_t *got)
{
	double sum = 0, squares = 0;

	for (unsigned i = 0; i < N_USERS; i++) {
		sum += (double)got[i];
		squares += (double)got[i] * (double)got[i];
	}
	return squares > 0 ? sum * sum / (N_USERS * squares) : 0;
}

/*
 * The first user sends on each of its four connections, and on each ten times what any other does,
 * who all send twice their share; who comes first changes from one millisecond to the next. A
 * socket that takes `line_bytes` a millisecond (0: any number) says that it is full while something
 * waits before it, and loses what finds no room.
 */
static void crowd_sends(struct crowd *c, uint64_t line_bytes, uint64_t got[N_USERS])
{
	const uint64_t room_bytes = 64000;
	uint64_t waiting = 0;

	for (uint64_t ms = 0; ms < 10000; ms++) {
		waiting -= min_u64(waiting, line_bytes);
		for (unsigned i = 0; i < N_WAYS; i++) {
			const unsigned way = (unsigned)((i + ms * 7) % N_WAYS);
			const unsigned n = user_of(way) == 0 ? 20 : 2;

			for (unsigned k = 0; k < n; k++) {
				const bool full = waiting > 0 && line_bytes > 0;

				if (send_by(c, way, 1000, full, ms * 1000) != 0 ||
				    (line_bytes > 0 && waiting + 1000 > room_bytes))
					continue;
				waiting += 1000;
				got[user_of(way)] += 1000;
			}
		}
	}
}

static void one_greedy_account_gets_its_share_and_no_more(void **state)
{
	struct relay_config config = crowd_config;
	uint64_t got[N_USERS] = { 0 }, all = 0;
	struct crowd c;

	(void)state;
	config.total_bytes_per_s = 8000000; /* 1 MB/s for each; 94 MB/s are sent */
	c = crowd_of(&config);
	crowd_sends(&c, 0, got);
	for (unsigned i = 0; i < N_USERS; i++)
		all += got[i];
	print_message("limit: Jain index %.4f, greedy %.2f MB, another %.2f MB, all %.2f MB\n",
		      jain(got), (double)got[0] / 1e6, (double)got[1] / 1e6, (double)all / 1e6);
	assert_true(jain(got) > 0.99);
	for (unsigned i = 0; i < N_USERS; i++)
		assert_in_range(got[i], 9000000, 11500000);
	assert_in_range(all, 76000000, 88000000);
	crowd_end(&c);
}

static void a_full_line_is_shared_alike(void **state)
{
	struct crowd c = crowd_of(&crowd_config);
	uint64_t got[N_USERS] = { 0 }, all = 0;

	(void)state;
	crowd_sends(&c, 8000, got);
	for (unsigned i = 0; i < N_USERS; i++)
		all += got[i];
	print_message("line: Jain index %.4f, greedy %.2f MB, another %.2f MB, all %.2f MB\n",
		      jain(got), (double)got[0] / 1e6, (double)got[1] / 1e6, (double)all / 1e6);
	assert_true(jain(got) > 0.99);
	assert_in_range(all, 76000000, 81000000); /* and none of it stands idle */
	crowd_end(&c);
}

static void channels_of_one_account_share_its_quota_with_its_connections(void **state)
{
	struct relay_config config = crowd_config;
	struct crowd c;

	(void)state;
	config.bytes_per_s = 1000;
	config.burst_bytes = 4000;
	c = crowd_of(&config);
	for (unsigned way = N_USERS; way < N_WAYS; way++)
		assert_int_equal(send_by(&c, way, 1000, false, 0), 0);
	assert_int_equal(relay_charge_bytes(c.ends[0], 1000, 0, 0), 0);
	for (unsigned way = N_USERS; way < N_WAYS; way++)
		assert_int_equal(send_by(&c, way, 1, false, 0), RELAY_LIMITED);
	assert_int_equal(send_by(&c, 0, 1, false, 0), RELAY_LIMITED);
	assert_int_equal(relay_charge_bytes(c.ends[0], 1, 0, 0), RELAY_LIMITED);
	assert_int_equal(send_by(&c, 1, 4000, false, 0), 0);
	assert_int_equal(send_by(&c, N_USERS, 1000, false, US_PER_S), 0);
	assert_int_equal(send_by(&c, 0, 1, false, US_PER_S), RELAY_LIMITED);
	crowd_end(&c);
}

/* Neither served, nor charged to whom it says that it is. */
static void who_is_not_there_is_not_served_and_costs_nobody(void **state)
{
	struct relay_config config = crowd_config;
	const struct relay_place *to;
	struct relay_stats stats;
	const uint8_t *name;
	struct crowd c;

	(void)state;
	config.bytes_per_s = 1000;
	config.burst_bytes = 4000;
	c = crowd_of(&config);
	for (unsigned i = 0; i < 100; i++) {
		const struct relay_place stranger = place("203.0.113.9:9");

		/* The name of another session, from where another session is; a stranger with a
		 * name that it saw; a name that nobody has. */
		assert_int_equal(relay_channel_route(c.r, c.names[1], &c.places[2].remote, 1000,
						     false, 0, &name, &to),
				 RELAY_UNKNOWN);
		assert_int_equal(relay_channel_route(c.r, c.names[1], &stranger.remote, 1000, false,
						     0, &name, &to),
				 RELAY_UNKNOWN);
		assert_int_equal(relay_channel_route(c.r, (const uint8_t *)"nobody's",
						     &c.places[1].remote, 1000, false, 0, &name,
						     &to),
				 RELAY_UNKNOWN);
	}
	relay_stats(c.r, &stats);
	assert_int_equal(stats.relayed_bytes, 0);
	assert_int_equal(stats.n_channel_bad, 200);
	assert_int_equal(send_by(&c, 1, 4000, false, 0), 0);
	crowd_end(&c);
}

static void channels_of_an_end_are_bounded(void **state)
{
	struct relay_config config = crowd_config;
	struct crowd c = { 0 };
	struct relay_end *a, *b;
	struct relay_stats stats;

	(void)state;
	config.rendezvous_per_end_max = 4;
	c.r = relay_new(&config);
	assert_non_null(c.r);
	a = new_end(c.r, "alice@a.test");
	b = new_end(c.r, "bob@b.test");
	for (unsigned i = 0; i < N_WAYS; i++)
		open_way(&c, a, b, i);
	relay_stats(c.r, &stats);
	assert_int_equal(stats.n_rendezvous, 4);
	assert_int_equal(stats.n_channels, 2 * 4);
	assert_false(relay_channel_known(c.r, c.names[0]));
	assert_true(relay_channel_known(c.r, c.names[N_WAYS - 1]));
	/* One more of the same rendezvous is one in place of another. */
	for (uint8_t i = 0; i < 100; i++) {
		const uint8_t fresh[Q2Q_CHANNEL_BYTES] = { 'n', 'e', 'w', i };
		char id[RELAY_ID_BYTES + 1];

		id_of(N_WAYS, id);
		assert_int_equal(relay_channel_new(a, id, 32, fresh, KEY_A), 0);
	}
	relay_stats(c.r, &stats);
	assert_int_equal(stats.n_channels, 2 * 4);
	relay_end_free(a);
	relay_end_free(b);
	relay_free(c.r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(listeners_are_found_by_address_and_protocol_until_they_go),
		cmocka_unit_test(listening_is_bounded_per_connection_and_per_name),
		cmocka_unit_test(a_rendezvous_joins_its_two_ends_and_nobody_else),
		cmocka_unit_test(the_end_that_stays_is_told_once),
		cmocka_unit_test(the_least_used_rendezvous_of_an_end_makes_room),
		cmocka_unit_test(all_rendezvous_together_are_bounded),
		cmocka_unit_test(connections_of_one_account_share_its_rate),
		cmocka_unit_test(a_slow_receiver_costs_its_own_data_only),
		cmocka_unit_test(signals_have_a_rate_of_their_own),
		cmocka_unit_test(connections_are_bounded),
		cmocka_unit_test(a_channel_passes_data_between_two_bound_ends_only),
		cmocka_unit_test(only_a_fresh_bind_of_the_right_key_moves_an_end),
		cmocka_unit_test(overload_is_shared_alike),
		cmocka_unit_test(a_full_socket_makes_those_wait_who_send_most),
		cmocka_unit_test(one_greedy_account_gets_its_share_and_no_more),
		cmocka_unit_test(a_full_line_is_shared_alike),
		cmocka_unit_test(channels_of_one_account_share_its_quota_with_its_connections),
		cmocka_unit_test(who_is_not_there_is_not_served_and_costs_nobody),
		cmocka_unit_test(channels_of_an_end_are_bounded),
		cmocka_unit_test(many_random_steps_agree_with_a_plain_model),
	};

	return cmocka_run_group_tests_name("relay", tests, NULL, NULL);
}
