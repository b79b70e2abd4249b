#include "unit.h"
#include "nat_mac.h"
#include "nat/nat.h"

#include <stdio.h>

static struct endpoint at(const char *text)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(text, true, &e), 0);
	return e;
}

static struct nat_agent *new_agent(bool controlling, uint8_t key_byte)
{
	struct nat_config config = { .controlling = controlling, .mac = test_mac, .seed = 1 };
	struct nat_agent *a;

	memset(config.key, key_byte, sizeof(config.key));
	assert_int_equal(nat_agent_new(&config, 0, &a), 0);
	assert_int_equal(nat_agent_add_socket(a, 0, true, true, 0), 0);
	return a;
}

static void add_host(struct nat_agent *a, const char *text)
{
	const struct nat_candidate c = { .kind = NAT_HOST, .endpoint = at(text) };

	assert_int_equal(nat_agent_add_local(a, &c, 0), 0);
}

/* A list as a peer with these candidates would send it in `round`. */
static size_t make_list(uint8_t out[static NAT_LIST_BYTES_MAX], uint32_t round,
			const char *const *texts, size_t n_texts)
{
	struct writer w = writer_over(out, NAT_LIST_BYTES_MAX);

	writer_u8(&w, 1);
	writer_u32(&w, round);
	writer_u8(&w, 0);
	writer_u8(&w, (uint8_t)n_texts);
	for (size_t i = 0; i < n_texts; i++) {
		const struct endpoint e = at(texts[i]);
		const uint8_t n = e.ip.family == FAMILY_IPV4 ? 4 : 16;

		writer_u8(&w, NAT_HOST);
		writer_u8(&w, (uint8_t)(3 + n));
		writer_u8(&w, e.ip.family);
		writer_u16(&w, e.port);
		writer_bytes(&w, e.ip.bytes, n);
	}
	assert_false(w.failed);
	return w.used_bytes;
}

static void input_list(struct nat_agent *a, uint32_t round, const char *const *texts,
		       size_t n_texts, uint64_t now_us)
{
	uint8_t list[NAT_LIST_BYTES_MAX];

	assert_int_equal(
		nat_agent_input_list(a, list, make_list(list, round, texts, n_texts), now_us), 0);
}

static bool take_event(struct nat_agent *a, enum nat_event_kind kind, struct nat_event *ret_event)
{
	struct nat_event e;

	while (nat_agent_next_event(a, &e))
		if (e.kind == kind) {
			if (ret_event)
				*ret_event = e;
			return true;
		}
	return false;
}

/* The first datagram that leaves; the time goes on until then. */
static struct nat_send first_send(struct nat_agent *a, uint64_t *now_us)
{
	struct nat_send send;

	while (!nat_agent_output(a, &send, *now_us)) {
		assert_int_not_equal(nat_agent_deadline_us(a), NEVER_US);
		*now_us = max_u64(*now_us + 1, nat_agent_deadline_us(a));
		nat_agent_tick(a, *now_us);
	}
	return send;
}

/* Two agents that know each other's one address on the same LAN. */
static const struct endpoint address_of[2] = {
	{ .ip = { .family = FAMILY_IPV4, .bytes = { 10, 0, 0, 1 } }, .port = 5001 },
	{ .ip = { .family = FAMILY_IPV4, .bytes = { 10, 0, 0, 2 } }, .port = 5002 },
};

static void make_pair(struct nat_agent *agents[2])
{
	static const char *const first[] = { "10.0.0.1:5001" }, *const second[] = {
		"10.0.0.2:5002"
	};

	agents[0] = new_agent(true, 1);
	agents[1] = new_agent(false, 1);
	add_host(agents[0], first[0]);
	add_host(agents[1], second[0]);
	input_list(agents[0], 0, second, 1, 0);
	input_list(agents[1], 0, first, 1, 0);
}

static void free_pair(struct nat_agent *agents[2])
{
	nat_agent_free(agents[0]);
	nat_agent_free(agents[1]);
}

/* ---- policy --------------------------------------------------------------------------- */

static void a_peer_cannot_aim_us_at_what_is_not_for_probes(void **state)
{
	static const char *const good[] = { "192.168.1.1:1024",   "10.0.0.1:65535",
					    "203.0.113.9:8788",   "100.64.0.1:4000",
					    "[2001:db8::1]:4000", "[fd00::1]:4000" };
	static const char *const bad[] = {
		"192.168.1.1:0",
		"192.168.1.1:53",
		"192.168.1.1:123",
		"192.168.1.1:1023",
		"0.0.0.0:4000",
		"0.1.2.3:4000",
		"127.0.0.1:4000",
		"127.8.8.8:4000",
		"224.0.0.251:5353",
		"255.255.255.255:4000",
		"240.0.0.1:4000",
		"169.254.1.1:4000",
		"[::]:4000",
		"[::1]:4000",
		"[ff02::fb]:5353",
		"[fe80::1]:4000",
		"[100::1]:4000",
		"[2001:db8::1]:443",
		"[::ffff:10.0.0.1]:4000",
		"[::10.0.0.1]:4000",
	};
	const struct endpoint loopback = at("127.0.0.1:4000");
	const char *why;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		const struct endpoint e = at(good[i]);

		assert_int_equal(nat_endpoint_check(&e, false, &why), 0);
		assert_null(why);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct endpoint e = at(bad[i]);

		assert_int_equal(nat_endpoint_check(&e, false, &why), NAT_REFUSED);
		assert_non_null(why);
	}
	assert_int_equal(nat_endpoint_check(&loopback, true, NULL), 0);
}

static void refused_candidates_are_counted_and_never_probed(void **state)
{
	static const char *const texts[] = { "127.0.0.1:4000", "224.0.0.1:4000", "10.0.0.1:53",
					     "10.9.9.9:5001",  "10.8.0.1:4000",  "10.8.0.1:4001",
					     "10.8.0.1:4002",  "10.8.0.1:4003",  "10.8.0.1:4004" };
	struct nat_agent *a = new_agent(true, 1);
	struct nat_candidate remote[NAT_REMOTE_MAX];
	struct nat_pair_info pairs[NAT_PAIRS_MAX];

	(void)state;
	add_host(a, "10.9.9.9:5001"); /* the peer names our own socket: no pair with ourselves */
	input_list(a, 0, texts, ARRAY_SIZE(texts), 0);
	assert_int_equal(nat_agent_status(a).n_refused, 4); /* three, and the fifth port */
	assert_int_equal(nat_agent_remote(a, remote, NAT_REMOTE_MAX), 5);
	assert_int_equal(nat_agent_pairs(a, pairs, NAT_PAIRS_MAX), 4);
	nat_agent_free(a);
}

static bool refuse_ten_eight(void *user, const struct ip_address *ip)
{
	(void)user;
	return ip->family == FAMILY_IPV4 && ip->bytes[0] == 10 && ip->bytes[1] == 8;
}

static void the_caller_can_refuse_addresses_too(void **state)
{
	static const char *const texts[] = { "10.8.0.1:4000", "10.7.0.1:4000" };
	struct nat_config config = { .mac = test_mac, .refuse = refuse_ten_eight };
	struct nat_agent *a;

	(void)state;
	assert_int_equal(nat_agent_new(&config, 0, &a), 0);
	input_list(a, 0, texts, 2, 0);
	assert_int_equal(nat_agent_status(a).n_refused, 1);
	assert_int_equal(nat_agent_status(a).n_remote, 1);
	nat_agent_free(a);
}

static void an_address_that_never_answers_gets_no_more_than_the_budget(void **state)
{
	static const char *const texts[] = { "203.0.113.9:4000", "203.0.113.9:4001",
					     "203.0.113.9:4002", "203.0.113.9:4003" };
	struct nat_agent *a = new_agent(true, 1);
	struct nat_event e;
	struct nat_send send;
	unsigned n_sent = 0;
	uint64_t now_us = 0, last_us = 0;
	bool failed = false;

	(void)state;
	input_list(a, 0, texts, ARRAY_SIZE(texts), 0);
	while (!failed) {
		while (nat_agent_output(a, &send, now_us)) {
			/* openers may go together, probes are paced */
			assert_true(send.ttl || now_us - last_us >= NAT_PACE_US);
			last_us = send.ttl ? last_us : now_us;
			n_sent++;
		}
		now_us = max_u64(now_us + 1, nat_agent_deadline_us(a));
		nat_agent_tick(a, now_us);
		failed = take_event(a, NAT_EVENT_ROUND_FAILED, &e);
	}
	assert_true(n_sent > 0 && n_sent <= NAT_BUDGET);
	assert_true(e.retry_us > now_us);
	/* Without the peer's word there is no further round to that address. */
	for (int i = 0; i < 1000; i++) {
		now_us = min_u64(max_u64(now_us + 1, nat_agent_deadline_us(a)), now_us + US_PER_S);
		nat_agent_tick(a, now_us);
		assert_false(nat_agent_output(a, &send, now_us));
	}
	nat_agent_free(a);
}

static void the_peer_cannot_renew_the_budget_as_fast_as_it_likes(void **state)
{
	static const char *const texts[] = { "203.0.113.9:4000" };
	struct nat_agent *a = new_agent(true, 1);
	uint8_t list[NAT_LIST_BYTES_MAX];
	struct nat_send send;
	unsigned n_sent = 0;

	(void)state;
	for (uint32_t round = 0; round < 10000; round++) {
		const uint64_t now_us = round * 10 * US_PER_MS; /* 100 lists per second, 100 s */

		nat_agent_input_list(a, list, make_list(list, round, texts, 1), now_us);
		nat_agent_tick(a, now_us);
		while (nat_agent_output(a, &send, now_us))
			n_sent++;
		nat_agent_gathered(a, now_us);
	}
	assert_true(n_sent <= 100 * NAT_BUDGET);
	nat_agent_free(a);
}

/*
 * A peer that we allowed, and that is bad: full lists of addresses of others, in rounds as fast as
 * they are taken, and a new rendezvous whenever that brings more. It gets what N says, and no more.
 */
static void a_bad_peer_aims_us_at_others_for_an_hour(void **state)
{
	struct nat_config config = { .controlling = true, .mac = test_mac, .seed = 1 };
	struct nat_allowance allowance = { 0 };
	const uint64_t start_us = 10 * NAT_ALLOWANCE_US;
	uint64_t now_us = start_us;
	unsigned n_sent = 0, n_first_round = 0;
	char texts[24][32];
	const char *pointers[24];

	(void)state;
	config.allowance = &allowance;
	for (unsigned rendezvous = 0; rendezvous < 180; rendezvous++) {
		struct nat_agent *a;
		unsigned n_agent = 0;

		assert_int_equal(nat_agent_new(&config, now_us, &a), 0);
		assert_int_equal(nat_agent_add_socket(a, 0, true, true, now_us), 0);
		for (uint32_t round = 0; round < 20; round++) {
			uint8_t list[NAT_LIST_BYTES_MAX];
			unsigned per_address[24] = { 0 }, in_round = 0;
			struct nat_send send;

			/* Six others, four ports of each. */
			for (unsigned i = 0; i < 24; i++) {
				snprintf(texts[i], sizeof(texts[i]), "203.0.113.%u:%u", 1 + i / 4,
					 4000 + 100 * round + i);
				pointers[i] = texts[i];
			}
			nat_agent_input_list(a, list, make_list(list, round, pointers, 24), now_us);
			for (int i = 0; i < 100; i++, now_us += 10 * US_PER_MS) {
				nat_agent_tick(a, now_us);
				while (nat_agent_output(a, &send, now_us)) {
					per_address[send.to.ip.bytes[3]]++;
					in_round++;
				}
				nat_agent_gathered(a, now_us);
			}
			for (unsigned i = 0; i < 24; i++)
				assert_true(per_address[i] <= NAT_BUDGET);
			n_first_round = n_first_round ? n_first_round : in_round;
			n_agent += in_round;
		}
		n_sent += n_agent;
		nat_agent_free(a);
	}
	assert_true(now_us - start_us <= NAT_ALLOWANCE_US);
	assert_true(n_first_round > NAT_BUDGET); /* it does send, as long as it may */
	assert_int_equal(n_sent, NAT_STRANGERS_ALLOWANCE);
	assert_int_equal(allowance.n_strangers, NAT_STRANGERS_ALLOWANCE);
}

/* ---- probes ------------------------------------------------------------------------------ */

static void an_authentic_probe_is_answered_and_an_answer_makes_the_pair_valid(void **state)
{
	struct nat_agent *agents[2];
	struct nat_send probe, ack;
	struct nat_event e;
	uint64_t now_us = 0;

	(void)state;
	make_pair(agents);
	probe = first_send(agents[0], &now_us);
	assert_true(probe.data[0] >= 0x80 && probe.data[0] <= 0xbf);
	assert_memory_equal(probe.data + 1, nat_agent_local_tag(agents[1]), NAT_TAG_BYTES);
	assert_true(endpoint_equal(&probe.to, &address_of[1]));
	assert_int_equal(probe.ttl, 0); /* one LAN: no opener */
	assert_int_equal(
		nat_agent_input(agents[1], 0, &address_of[0], probe.data, probe.data_bytes, now_us),
		0);
	assert_true(nat_agent_output(agents[1], &ack, now_us));
	assert_true(endpoint_equal(&ack.to, &address_of[0]));
	assert_int_equal(ack.data_bytes, probe.data_bytes); /* no amplification */
	assert_int_equal(nat_agent_input(agents[0], 0, &address_of[1], ack.data, ack.data_bytes,
					 now_us + 7000),
			 0);
	assert_true(take_event(agents[0], NAT_EVENT_PAIR_VALID, &e));
	assert_true(endpoint_equal(&e.remote, &address_of[1]));
	assert_true(endpoint_equal(&e.mapped, &address_of[0]));
	assert_int_equal(e.rtt_us, 7000);
	assert_true(e.same_lan);
	/* the same answer again changes nothing */
	assert_int_equal(nat_agent_input(agents[0], 0, &address_of[1], ack.data, ack.data_bytes,
					 now_us + 8000),
			 NAT_IGNORED);
	assert_false(take_event(agents[0], NAT_EVENT_PAIR_VALID, &e));
	free_pair(agents);
}

static void a_cut_or_forged_datagram_is_dropped(void **state)
{
	struct nat_agent *agents[2], *stranger = new_agent(true, 2);
	struct nat_send probe, out;
	uint64_t now_us = 0;

	(void)state;
	make_pair(agents);
	probe = first_send(agents[0], &now_us);
	while (nat_agent_output(agents[1], &out, now_us))
		;
	for (size_t i = 0; i < probe.data_bytes; i++) {
		assert_int_equal(
			nat_agent_input(agents[1], 0, &address_of[0], probe.data, i, now_us),
			-EBADMSG);
		for (int bit = 0; bit < 8; bit++) {
			probe.data[i] ^= (uint8_t)(1 << bit);
			assert_int_equal(nat_agent_input(agents[1], 0, &address_of[0], probe.data,
							 probe.data_bytes, now_us),
					 -EBADMSG);
			probe.data[i] ^= (uint8_t)(1 << bit);
		}
	}
	/* another session's agent, and the sender itself (reflection) do not take it either */
	assert_int_equal(
		nat_agent_input(stranger, 0, &address_of[0], probe.data, probe.data_bytes, now_us),
		-EBADMSG);
	assert_int_equal(
		nat_agent_input(agents[0], 0, &address_of[1], probe.data, probe.data_bytes, now_us),
		-EBADMSG);
	assert_false(nat_agent_output(agents[1], &out, now_us));
	assert_int_equal(nat_agent_status(agents[1]).n_bad, probe.data_bytes * 9);
	nat_agent_free(stranger);
	free_pair(agents);
}

static void a_replayed_probe_aims_nobody(void **state)
{
	const struct endpoint victim = at("203.0.113.9:4000");
	struct nat_agent *agents[2];
	struct nat_send probe, out;
	uint64_t now_us = 0;

	(void)state;
	make_pair(agents);
	probe = first_send(agents[0], &now_us);
	assert_int_equal(
		nat_agent_input(agents[1], 0, &address_of[0], probe.data, probe.data_bytes, now_us),
		0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(nat_agent_input(agents[1], 0, &victim, probe.data,
						 probe.data_bytes, now_us),
				 NAT_IGNORED);
	while (nat_agent_output(agents[1], &out, now_us))
		assert_false(ip_equal(&out.to.ip, &victim.ip));
	assert_int_equal(nat_agent_status(agents[1]).n_replayed, 100);
	free_pair(agents);
}

/* Every probe arrives twice and out of order: each counts once, whatever the order. */
static void the_replay_window_takes_each_probe_once_in_any_order(void **state)
{
	enum { N = 400 };
	static struct nat_send probes[N];
	static unsigned taken[N];
	struct nat_agent *agents[2];
	uint64_t now_us = 0;
	uint32_t rng = 3;
	size_t n = 0;

	(void)state;
	make_pair(agents);
	while (n < N) { /* each round gives further probes */
		static const char *const second[] = { "10.0.0.2:5002" };
		uint8_t list[NAT_LIST_BYTES_MAX];

		for (int i = 0; i < 8 && n < N; i++)
			probes[n++] = first_send(agents[0], &now_us);
		now_us += 20 * US_PER_S;
		nat_agent_tick(agents[0], now_us);
		nat_agent_input_list(
			agents[0], list,
			make_list(list, nat_agent_status(agents[0]).round + 1, second, 1), now_us);
		nat_agent_gathered(agents[0], now_us);
	}
	for (int i = 0; i < 100 * N; i++) {
		size_t k;

		rng = rng * 1664525u + 1013904223u;
		k = (rng >> 8) % N;
		taken[k] += nat_agent_input(agents[1], 0, &address_of[0], probes[k].data,
					    probes[k].data_bytes, now_us) == 0;
	}
	for (size_t k = 0; k < N; k++)
		assert_int_equal(taken[k], 1);
	free_pair(agents);
}

static void a_probe_from_an_unlisted_address_teaches_it(void **state)
{
	const struct endpoint mapped = at("203.0.113.9:40000"), low = at("203.0.113.9:53");
	struct nat_agent *agents[2];
	struct nat_send probe, out;
	struct nat_pair_info pairs[NAT_PAIRS_MAX];
	uint64_t now_us = 0;
	bool answered = false, probed = false;

	(void)state;
	make_pair(agents);
	probe = first_send(agents[0], &now_us);
	assert_int_equal(
		nat_agent_input(agents[1], 0, &mapped, probe.data, probe.data_bytes, now_us), 0);
	for (int i = 0; i < 10; i++) {
		out = first_send(agents[1], &now_us);
		if (!endpoint_equal(&out.to, &mapped))
			continue;
		answered |= out.data[0] == 0x82;
		probed |= out.data[0] == 0x81;
		assert_int_equal(out.ttl, 0);
	}
	assert_true(answered && probed);
	assert_int_equal(nat_agent_pairs(agents[1], pairs, NAT_PAIRS_MAX), 2);
	/* the policy holds for what packets say, too */
	probe = first_send(agents[0], &now_us);
	assert_int_equal(nat_agent_input(agents[1], 0, &low, probe.data, probe.data_bytes, now_us),
			 NAT_IGNORED);
	assert_int_equal(nat_agent_status(agents[1]).n_refused, 1);
	free_pair(agents);
}

static void an_answer_from_elsewhere_is_no_answer(void **state)
{
	const struct endpoint elsewhere = at("10.0.0.3:5002");
	struct nat_agent *agents[2];
	struct nat_send probe, ack;
	uint64_t now_us = 0;

	(void)state;
	make_pair(agents);
	probe = first_send(agents[0], &now_us);
	nat_agent_input(agents[1], 0, &address_of[0], probe.data, probe.data_bytes, now_us);
	assert_true(nat_agent_output(agents[1], &ack, now_us));
	assert_int_equal(
		nat_agent_input(agents[0], 0, &elsewhere, ack.data, ack.data_bytes, now_us),
		NAT_IGNORED);
	assert_int_equal(nat_agent_status(agents[0]).n_valid, 0);
	free_pair(agents);
}

/* ---- lists -------------------------------------------------------------------------------- */

static void a_list_makes_the_round_trip_and_says_what_the_nat_does(void **state)
{
	const struct nat_candidate list[] = {
		{ .kind = NAT_HOST, .endpoint = at("10.0.0.1:5001") },
		{ .kind = NAT_HOST, .endpoint = at("[2001:db8::1]:5001") },
		{ .kind = NAT_REFLEXIVE,
		  .endpoint = at("203.0.113.1:7000"),
		  .server = at("198.51.100.1:3478") },
		{ .kind = NAT_REFLEXIVE,
		  .endpoint = at("203.0.113.1:7001"),
		  .server = at("198.51.100.2:3478") },
		{ .kind = NAT_RELAY },
	};
	struct nat_agent *a = new_agent(true, 1), *b = new_agent(false, 1);
	struct nat_candidate got[NAT_REMOTE_MAX];
	uint8_t data[NAT_LIST_BYTES_MAX];
	size_t n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		assert_int_equal(nat_agent_add_local(a, &list[i], 0), 0);
	assert_int_equal(nat_agent_add_local(a, &list[0], 0), NAT_KNOWN);
	assert_int_equal(nat_agent_add_local(a, &list[4], 0), NAT_KNOWN);
	assert_int_equal(nat_agent_status(a).local_mapping, NAT_MAPPING_DEPENDENT);
	n = nat_agent_encode(a, data, sizeof(data), 0);
	assert_true(n > 0);
	assert_int_equal(nat_agent_encode(a, data, n - 1, 0), 0);
	n = nat_agent_encode(a, data, sizeof(data), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(nat_agent_input_list(b, data, i, 0), -EBADMSG);
		assert_int_equal(nat_agent_status(b).n_remote, 0);
	}
	assert_int_equal(nat_agent_input_list(b, data, n, 0), 0);
	assert_int_equal(nat_agent_status(b).remote_mapping, NAT_MAPPING_DEPENDENT);
	/* of a symmetric NAT's addresses one is enough */
	assert_int_equal(nat_agent_remote(b, got, NAT_REMOTE_MAX), 4);
	assert_int_equal(got[2].kind, NAT_REFLEXIVE);
	assert_true(endpoint_equal(&got[2].endpoint, &list[2].endpoint));
	assert_int_equal(got[3].kind, NAT_RELAY);
	assert_int_equal(nat_agent_input_list(b, data, n, 0), NAT_KNOWN);
	nat_agent_free(a);
	nat_agent_free(b);
}

static void lists_that_are_too_long_or_have_strange_kinds_are_bounded(void **state)
{
	static const uint8_t strange[] = { 1, 0, 0, 0, 0, 99, 2, 200, 3, 'a', 'b', 'c', 5, 0 };
	static const uint8_t trailing[] = { 1, 0, 0, 0, 0, 0, 0, 0 };
	static const uint8_t version[] = { 2, 0, 0, 0, 0, 0, 0 };
	static const uint8_t many[] = { 1, 0, 0, 0, 0, 0, NAT_REMOTE_MAX + 1 };
	struct nat_agent *a = new_agent(true, 1);

	(void)state;
	assert_int_equal(nat_agent_input_list(a, trailing, sizeof(trailing), 0), -EBADMSG);
	assert_int_equal(nat_agent_input_list(a, version, sizeof(version), 0), -EBADMSG);
	assert_int_equal(nat_agent_input_list(a, many, sizeof(many), 0), -EBADMSG);
	assert_int_equal(nat_agent_input_list(a, strange, sizeof(strange), 0), 0);
	assert_int_equal(nat_agent_status(a).n_remote, 1); /* the relay */
	assert_int_equal(nat_agent_status(a).remote_mapping, NAT_MAPPING_UNKNOWN);
	nat_agent_free(a);
}

static void a_list_of_an_old_round_is_ignored(void **state)
{
	static const char *const texts[] = { "10.8.0.1:4000" };
	struct nat_agent *a = new_agent(true, 1);
	uint8_t list[NAT_LIST_BYTES_MAX];

	(void)state;
	input_list(a, 3, texts, 1, 0);
	assert_int_equal(nat_agent_input_list(a, list, make_list(list, 2, texts, 1), 0),
			 NAT_IGNORED);
	assert_int_equal(nat_agent_status(a).round, 3);
	nat_agent_free(a);
}

static void the_first_to_start_holds_its_probes_back_for_the_signal_to_arrive(void **state)
{
	static const char *const texts[] = { "203.0.113.9:4000" };
	struct nat_agent *a = new_agent(true, 1);
	uint64_t now_us = 1000;
	struct nat_send send;

	(void)state;
	nat_agent_set_signal_delay(a, 300 * US_PER_MS);
	input_list(a, 0, texts, 1, now_us);
	assert_true(take_event(a, NAT_EVENT_SIGNAL, NULL));
	send = first_send(a, &now_us);
	assert_int_equal(now_us, 1000);
	assert_int_equal(send.ttl, NAT_OPENER_TTL);
	send = first_send(a, &now_us);
	assert_int_equal(send.ttl, NAT_OPENER_TTL_DEEP);
	assert_true(now_us >= 1000 + 300 * US_PER_MS);
	send = first_send(a, &now_us);
	assert_int_equal(send.ttl, 0);
	assert_int_equal(now_us, 1000 + 300 * US_PER_MS + NAT_OPENER_LEAD_US);
	nat_agent_free(a);

	/* The listener, whose list is out long since, only waits for its own opener. */
	a = new_agent(false, 1);
	uint8_t list[NAT_LIST_BYTES_MAX];
	assert_true(nat_agent_encode(a, list, sizeof(list), 0) > 0);
	now_us = 1000;
	input_list(a, 0, texts, 1, now_us);
	assert_false(take_event(a, NAT_EVENT_SIGNAL, NULL));
	first_send(a, &now_us);
	first_send(a, &now_us);
	first_send(a, &now_us);
	assert_int_equal(now_us, 1000 + NAT_OPENER_LEAD_US);
	nat_agent_free(a);
}

static void sockets_are_bounded_and_removing_one_loses_its_pairs(void **state)
{
	struct nat_agent *agents[2];
	struct nat_send probe, ack;
	struct nat_event e;
	uint64_t now_us = 0;

	(void)state;
	make_pair(agents);
	probe = first_send(agents[0], &now_us);
	nat_agent_input(agents[1], 0, &address_of[0], probe.data, probe.data_bytes, now_us);
	assert_true(nat_agent_output(agents[1], &ack, now_us));
	nat_agent_input(agents[0], 0, &address_of[1], ack.data, ack.data_bytes, now_us);
	assert_int_equal(nat_agent_status(agents[0]).n_valid, 1);
	nat_agent_remove_socket(agents[0], 0, now_us);
	assert_true(take_event(agents[0], NAT_EVENT_PAIR_LOST, &e));
	assert_int_equal(e.socket, 0);
	assert_int_equal(nat_agent_status(agents[0]).n_pairs, 0);
	for (uint8_t i = 0; i < NAT_SOCKETS_MAX; i++)
		assert_int_equal(nat_agent_add_socket(agents[0], i, true, true, now_us), 0);
	assert_int_equal(nat_agent_add_socket(agents[0], 0, true, true, now_us), NAT_KNOWN);
	assert_int_equal(nat_agent_add_socket(agents[0], 99, true, true, now_us), NAT_FULL);
	free_pair(agents);
}

/* ---- port mapping ------------------------------------------------------------------------------
 */

static const uint8_t portmap_nonce[NAT_PORTMAP_NONCE_BYTES] = "abcdefghijkl";

static struct nat_portmap new_portmap(bool igd)
{
	struct nat_portmap_config config = { .gateway = at("192.168.1.1:1").ip,
					     .local = at("192.168.1.10:1").ip,
					     .port = 40000,
					     .lifetime_s = 3600,
					     .igd = igd };
	struct nat_portmap m;

	memcpy(config.nonce, portmap_nonce, sizeof(config.nonce));
	nat_portmap_start(&m, &config, 0);
	return m;
}

/* RFC 6887, figures 3 and 11: what a gateway answers to our request. */
static void pcp_answer(uint8_t out[static 60], uint8_t result, uint32_t lifetime_s, uint16_t port)
{
	static const uint8_t outside[16] = { [10] = 0xff, 0xff, 203, 0, 113, 5 };
	struct writer w = writer_over(out, 60);

	memset(out, 0, 60);
	writer_u8(&w, 2);
	writer_u8(&w, 0x81);
	writer_u8(&w, 0);
	writer_u8(&w, result);
	writer_u32(&w, lifetime_s);
	w = writer_over(out + 24, 36);
	writer_bytes(&w, portmap_nonce, sizeof(portmap_nonce));
	writer_u32(&w, 17u << 24);
	writer_u16(&w, 40000);
	writer_u16(&w, port);
	writer_bytes(&w, outside, sizeof(outside));
	assert_false(w.failed);
}

static void pcp_maps_renews_and_gives_back(void **state)
{
	static const uint8_t request[60] = {
		2,   1,   0,   0,   0,   0,   0x0e, 0x10, 0,  0,   0,    0,    0,    0,    0,
		0,   0,   0,   255, 255, 192, 168,  1,    10, 'a', 'b',  'c',  'd',  'e',  'f',
		'g', 'h', 'i', 'j', 'k', 'l', 17,   0,    0,  0,   0x9c, 0x40, 0x9c, 0x40, 0,
		0,   0,   0,   0,   0,   0,   0,    0,    0,  255, 255,  0,    0,    0,    0,
	};
	const uint64_t life_us = 600 * US_PER_S;
	struct nat_portmap m = new_portmap(false);
	uint8_t out[NAT_PORTMAP_BYTES_MAX], answer[60];
	unsigned n_sent = 0;

	(void)state;
	assert_int_equal(nat_portmap_output(&m, out, 0), sizeof(request));
	assert_memory_equal(out, request, sizeof(request));
	assert_int_equal(nat_portmap_output(&m, out, 1), 0);
	pcp_answer(answer, 0, 600, 40001);
	for (size_t i = 0; i < sizeof(answer); i++) /* cut */
		assert_int_equal(nat_portmap_input(&m, answer, i, 1), -EBADMSG);
	answer[24] ^= 1; /* of somebody else's request */
	assert_int_equal(nat_portmap_input(&m, answer, sizeof(answer), 1), -EBADMSG);
	answer[24] ^= 1;
	assert_int_equal(nat_portmap_input(&m, answer, sizeof(answer), 1), 0);
	assert_int_equal(m.state, NAT_PORTMAP_MAPPED);
	assert_true(endpoint_equal(
		&m.external, &(struct endpoint){ .ip = at("203.0.113.5:1").ip, .port = 40001 }));
	/* What nobody asked for changes nothing. */
	assert_int_equal(nat_portmap_input(&m, answer, sizeof(answer), 2), -EBADMSG);

	/* Renewed at half of its life, for the same port; unheard, it still holds until its end. */
	assert_int_equal(nat_portmap_deadline_us(&m), 1 + life_us / 2);
	nat_portmap_tick(&m, 1 + life_us / 2);
	assert_int_equal(nat_portmap_output(&m, out, 1 + life_us / 2), 60);
	assert_int_equal(out[42] << 8 | out[43], 40001);
	while (nat_portmap_deadline_us(&m) < life_us) {
		const uint64_t now_us = nat_portmap_deadline_us(&m);

		nat_portmap_tick(&m, now_us);
		n_sent += nat_portmap_output(&m, out, now_us) > 0;
		assert_int_equal(m.external.port, 40001);
	}
	assert_true(n_sent > 10 && n_sent < 40); /* less and less often */
	assert_int_equal(nat_portmap_release(&m, out), 60);
	assert_int_equal(out[4] | out[5] | out[6] | out[7], 0);
	assert_int_equal(nat_portmap_deadline_us(&m), NEVER_US);
}

static void an_older_gateway_is_asked_by_nat_pmp(void **state)
{
	static const uint8_t old[] = { 0, 0x81, 0, 1, 0, 0, 0, 9 };
	static const uint8_t address[] = { 0, 0x80, 0, 0, 0, 0, 0, 9, 203, 0, 113, 5 };
	static const uint8_t map[] = { 0,    0x81, 0,    0,    0, 0, 0,    9,
				       0x9c, 0x40, 0x9c, 0x41, 0, 0, 0x0e, 0x10 };
	static const uint8_t erase[] = { 0, 1, 0, 0, 0x9c, 0x40, 0, 0, 0, 0, 0, 0 };
	struct nat_portmap m = new_portmap(false);
	uint8_t out[NAT_PORTMAP_BYTES_MAX];

	(void)state;
	assert_int_equal(nat_portmap_output(&m, out, 0), 60);
	assert_int_equal(nat_portmap_input(&m, old, sizeof(old), 1), 0);
	assert_int_equal(nat_portmap_output(&m, out, 1), 2);
	assert_int_equal(out[0] | out[1], 0);
	assert_int_equal(nat_portmap_input(&m, map, sizeof(map), 2), -EBADMSG); /* not asked yet */
	assert_int_equal(nat_portmap_input(&m, address, sizeof(address), 2), 0);
	assert_int_equal(nat_portmap_output(&m, out, 2), 12);
	assert_int_equal(nat_portmap_input(&m, map, sizeof(map), 3), 0);
	assert_int_equal(m.state, NAT_PORTMAP_MAPPED);
	assert_int_equal(m.external.port, 40001);
	assert_int_equal(nat_portmap_release(&m, out), sizeof(erase));
	assert_memory_equal(out, erase, sizeof(erase));
}

static void a_port_that_was_only_asked_for_is_given_back(void **state)
{
	struct nat_portmap m = new_portmap(false);
	uint8_t out[NAT_PORTMAP_BYTES_MAX];
	static const uint8_t none[4];

	(void)state;
	assert_int_equal(nat_portmap_release(&m, out), 0); /* not even that */
	m = new_portmap(false);
	assert_int_equal(nat_portmap_output(&m, out, 0), 60);
	assert_memory_not_equal(out + 4, none, 4);
	assert_int_equal(nat_portmap_release(&m, out), 60);
	assert_memory_equal(out + 4, none, 4); /* the lifetime */
	assert_int_equal(nat_portmap_release(&m, out), 0);
}

static void a_gateway_that_says_nothing_or_no_is_left_alone(void **state)
{
	static const uint8_t no[] = { 0, 0x80, 0, 3, 0, 0, 0, 9 };
	struct nat_portmap m = new_portmap(false);
	uint8_t out[NAT_PORTMAP_BYTES_MAX], answer[60];
	unsigned n_sent = 0;
	uint64_t now_us = 0;

	(void)state;
	while (now_us < 60 * US_PER_S) {
		nat_portmap_tick(&m, now_us);
		n_sent += nat_portmap_output(&m, out, now_us) > 0;
		now_us = max_u64(now_us + 1, nat_portmap_deadline_us(&m));
	}
	assert_int_equal(m.state, NAT_PORTMAP_NONE);
	assert_int_equal(n_sent, 8);
	assert_int_equal(nat_portmap_release(&m, out), 0);

	assert_string_equal(m.reason, "the gateway answers neither PCP nor NAT-PMP");

	/* Who says no is asked in the older way too. */
	m = new_portmap(false);
	nat_portmap_output(&m, out, 0);
	pcp_answer(answer, 2, 1800, 0);
	assert_int_equal(nat_portmap_input(&m, answer, sizeof(answer), 1), 0);
	assert_int_equal(m.method, NAT_PORTMAP_PMP);
	assert_int_equal(nat_portmap_output(&m, out, 1), 2);
	assert_int_equal(nat_portmap_input(&m, no, sizeof(no), 2), 0);
	assert_int_equal(m.state, NAT_PORTMAP_NONE);
	assert_string_equal(m.reason, "the gateway refuses to map ports");
	assert_int_equal(m.external.port, 0);

	/* And again later and later, but for ever. */
	now_us = 2;
	for (unsigned i = 0; i < 5; i++) {
		const uint64_t wait_us = m.due_us - now_us;

		assert_true(wait_us <= 4800 * US_PER_S + US_PER_MS);
		now_us = m.due_us;
		nat_portmap_tick(&m, now_us);
		while (m.state == NAT_PORTMAP_ASKING) {
			nat_portmap_output(&m, out, now_us);
			now_us = max_u64(now_us + 1, nat_portmap_deadline_us(&m));
			nat_portmap_tick(&m, now_us);
		}
		assert_true(m.due_us - now_us + US_PER_MS >= wait_us);
	}
}

/* As the gateway would, `uptime_s` after it began. */
static void pcp_announcement(uint8_t out[static 24], uint32_t uptime_s)
{
	struct writer w = writer_over(out, 24);

	memset(out, 0, 24);
	writer_u32(&w, 2u << 24 | 0x80u << 16);
	writer_u32(&w, 0);
	writer_u32(&w, uptime_s);
	assert_false(w.failed);
}

static void a_gateway_that_restarts_is_noticed_by_its_clock(void **state)
{
	static const uint8_t pmp[] = { 0, 0x80, 0, 0, 0, 0, 0, 1, 203, 0, 113, 5 };
	struct nat_portmap m = new_portmap(false);
	uint8_t out[NAT_PORTMAP_BYTES_MAX], answer[60], hello[24];
	uint64_t now_us = 100 * US_PER_S, renewal_us;

	(void)state;
	nat_portmap_output(&m, out, 0);
	pcp_answer(answer, 0, 3600, 40001);
	answer[11] = 200; /* seconds since it began */
	assert_int_equal(nat_portmap_input(&m, answer, sizeof(answer), 1), 0);
	renewal_us = nat_portmap_deadline_us(&m);

	/* It goes on: nothing to do, though its clock is a little off. */
	pcp_announcement(hello, 200 + 105);
	assert_int_equal(nat_portmap_announced(&m, hello, sizeof(hello), now_us), 0);
	assert_int_equal(nat_portmap_deadline_us(&m), renewal_us);
	assert_int_equal(m.n_restarts, 0);

	/* It began anew: what we had is asked for again, after a moment. */
	pcp_announcement(hello, 1);
	for (size_t i = 0; i < sizeof(hello); i++)
		assert_int_equal(nat_portmap_announced(&m, hello, i, now_us), -EBADMSG);
	now_us += US_PER_S;
	assert_int_equal(nat_portmap_announced(&m, hello, sizeof(hello), now_us), 0);
	assert_int_equal(m.n_restarts, 1);
	assert_true(nat_portmap_deadline_us(&m) <= now_us + 2 * US_PER_S);
	now_us = nat_portmap_deadline_us(&m);
	nat_portmap_tick(&m, now_us);
	assert_int_equal(nat_portmap_output(&m, out, now_us), 60);
	assert_int_equal(out[42] << 8 | out[43], 40001);
	answer[11] = 2;
	assert_int_equal(nat_portmap_input(&m, answer, sizeof(answer), now_us + 1), 0);
	assert_int_equal(m.state, NAT_PORTMAP_MAPPED);

	/* In the older way; but nobody makes us ask all the time. */
	assert_int_equal(nat_portmap_announced(&m, pmp, sizeof(pmp), now_us + 2), 0);
	assert_true(nat_portmap_deadline_us(&m) > now_us + 60 * US_PER_S);
	now_us += 60 * US_PER_S;
	assert_int_equal(nat_portmap_announced(&m, pmp, sizeof(pmp), now_us), 0);
	assert_int_equal(m.n_restarts, 2);
	assert_true(nat_portmap_deadline_us(&m) <= now_us + 2 * US_PER_S);
	for (uint32_t i = 0; i < 1u << 24; i += 251) { /* what is none */
		hello[0] = (uint8_t)(i >> 16);
		hello[1] = (uint8_t)(i >> 8);
		hello[3] = (uint8_t)i;
		if ((hello[0] != 2 && hello[0] != 0) || hello[1] != 0x80 || hello[3])
			assert_int_equal(nat_portmap_announced(&m, hello, sizeof(hello), now_us),
					 -EBADMSG);
	}
}

/* Until PCP and NAT-PMP were asked in vain. */
static uint64_t ask_in_vain(struct nat_portmap *m, uint64_t now_us)
{
	uint8_t out[NAT_PORTMAP_BYTES_MAX];
	struct nat_igd_request request;

	while (m->state == NAT_PORTMAP_ASKING && m->method != NAT_PORTMAP_IGD) {
		assert_false(nat_portmap_igd_output(m, &request, now_us));
		nat_portmap_output(m, out, now_us);
		now_us = max_u64(now_us, nat_portmap_deadline_us(m));
		nat_portmap_tick(m, now_us);
	}
	return now_us;
}

static void upnp_comes_last_and_is_renewed_and_given_back(void **state)
{
	struct nat_igd_answer answer = { .magic = NAT_IGD_ANSWER_MAGIC,
					 .result = NAT_IGD_DONE,
					 .lifetime_s = 3600,
					 .external = { 203, 0, 113, 5 },
					 .external_port = 40001 };
	struct nat_portmap m = new_portmap(true);
	uint64_t now_us = ask_in_vain(&m, 0);
	uint8_t out[NAT_PORTMAP_BYTES_MAX];
	struct nat_igd_request request;

	(void)state;
	assert_int_equal(m.method, NAT_PORTMAP_IGD);
	assert_int_equal(nat_portmap_output(&m, out, now_us), 0);
	assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), -EBADMSG); /* not asked */
	assert_true(nat_portmap_igd_output(&m, &request, now_us));
	assert_false(nat_portmap_igd_output(&m, &request, now_us)); /* once */
	assert_int_equal(request.op, NAT_IGD_MAP);
	assert_int_equal(request.external_port, 40000);
	assert_int_equal(request.lifetime_s, 3600);
	assert_memory_equal(request.gateway, ((uint8_t[]){ 192, 168, 1, 1 }), 4);
	assert_memory_equal(request.local, ((uint8_t[]){ 192, 168, 1, 10 }), 4);

	answer.id = request.id + 1;
	assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), -EBADMSG);
	answer.id = request.id;
	answer.result = NAT_IGD_RESULT_COUNT;
	assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), -EBADMSG);
	answer.result = NAT_IGD_DONE;
	answer.external_port = 0;
	assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), -EBADMSG);
	answer.external_port = 40001;
	assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), 0);
	assert_int_equal(m.state, NAT_PORTMAP_MAPPED);
	assert_int_equal(m.external.port, 40001);
	assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), -EBADMSG);

	/* A renewal, by UPnP alone, for the port that we have. */
	now_us += 1800 * US_PER_S;
	assert_int_equal(nat_portmap_deadline_us(&m), now_us);
	nat_portmap_tick(&m, now_us);
	assert_true(nat_portmap_igd_output(&m, &request, now_us));
	assert_int_equal(request.external_port, 40001);
	answer.id = request.id;
	answer.result = NAT_IGD_SILENT; /* what we have holds */
	assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), 0);
	assert_int_equal(m.state, NAT_PORTMAP_MAPPED);
	assert_int_equal(nat_portmap_deadline_us(&m), now_us + 900 * US_PER_S);

	assert_true(nat_portmap_igd_release(&m, &request));
	assert_int_equal(request.op, NAT_IGD_UNMAP);
	assert_int_equal(request.external_port, 40001);
	assert_int_equal(nat_portmap_release(&m, out), 0);
	assert_false(nat_portmap_igd_release(&m, &request));
}

static void upnp_that_fails_says_why(void **state)
{
	static const char *const reasons[] = {
		[NAT_IGD_SILENT] = "the gateway answers neither PCP nor NAT-PMP nor UPnP",
		[NAT_IGD_REFUSED] = "the gateway refuses to map ports",
		[NAT_IGD_HIDDEN] = "the gateway is behind a NAT itself",
		[NAT_IGD_BROKEN] = "the gateway's UPnP makes no sense",
	};
	struct nat_igd_answer answer = { .magic = NAT_IGD_ANSWER_MAGIC };
	struct nat_igd_request request;

	(void)state;
	for (uint32_t i = NAT_IGD_SILENT; i < NAT_IGD_RESULT_COUNT; i++) {
		struct nat_portmap m = new_portmap(true);
		const uint64_t now_us = ask_in_vain(&m, 0);

		assert_true(nat_portmap_igd_output(&m, &request, now_us));
		answer.id = request.id;
		answer.result = i;
		assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), 0);
		assert_int_equal(m.state, NAT_PORTMAP_NONE);
		assert_string_equal(m.reason, reasons[i]);
		assert_false(nat_portmap_igd_release(&m, &request));
	}

	/* Whoever asks it is gone: as if nobody had answered. */
	struct nat_portmap m = new_portmap(true);
	uint64_t now_us = ask_in_vain(&m, 0);

	assert_true(nat_portmap_igd_output(&m, &request, now_us));
	now_us = nat_portmap_deadline_us(&m);
	nat_portmap_tick(&m, now_us);
	assert_int_equal(m.state, NAT_PORTMAP_NONE);
}

static void a_mapping_without_an_end_is_not_believed_for_ever(void **state)
{
	struct nat_igd_answer answer = { .magic = NAT_IGD_ANSWER_MAGIC,
					 .external = { 203, 0, 113, 5 },
					 .external_port = 40001 };
	struct nat_portmap m = new_portmap(true);
	uint64_t now_us = ask_in_vain(&m, 0);
	struct nat_igd_request request;

	(void)state;
	assert_true(nat_portmap_igd_output(&m, &request, now_us));
	answer.id = request.id;
	assert_int_equal(nat_portmap_igd_input(&m, &answer, now_us), 0);
	assert_int_equal(m.expires_us, NEVER_US);
	for (int i = 0; i < 3; i++) {
		now_us = nat_portmap_deadline_us(&m);
		nat_portmap_tick(&m, now_us);
		assert_true(nat_portmap_igd_output(&m, &request, now_us));
		now_us = nat_portmap_deadline_us(&m);
		nat_portmap_tick(&m, now_us);
		assert_int_equal(m.external.port, 40001);
	}
	now_us = nat_portmap_deadline_us(&m);
	nat_portmap_tick(&m, now_us);
	assert_true(nat_portmap_igd_output(&m, &request, now_us));
	nat_portmap_tick(&m, nat_portmap_deadline_us(&m));
	assert_int_equal(m.external.port, 0);
	assert_int_equal(m.method, NAT_PORTMAP_PCP);
}

/* ---- guessing ports
 * ------------------------------------------------------------------------------ */

/* The easy side, its checks begun, with a peer whose list offers ports `towards` us. */
static struct nat_agent *easy_agent(struct nat_allowance *allowance, const char *towards)
{
	static const char *const servers[] = { "198.51.100.1:3478", "198.51.100.2:3478" };
	const struct endpoint e = at(towards), theirs = at("203.0.113.1:30000");
	struct nat_config config = { .mac = test_mac, .seed = 1, .allowance = allowance };
	uint8_t list[NAT_LIST_BYTES_MAX];
	struct nat_agent *a;

	memset(config.key, 1, sizeof(config.key));
	assert_int_equal(nat_agent_new(&config, 0, &a), 0);
	assert_int_equal(nat_agent_add_socket(a, 0, true, true, 0), 0);
	for (size_t i = 0; i < ARRAY_SIZE(servers); i++) {
		const struct nat_candidate c = { .kind = NAT_REFLEXIVE,
						 .endpoint = at("203.0.113.2:20000"),
						 .server = at(servers[i]) };

		nat_agent_add_local(a, &c, 0);
	}
	for (int i = 0; i < 2; i++) { /* the second one is a trickle */
		struct writer w = writer_over(list, sizeof(list));

		writer_u8(&w, 1);
		writer_u32(&w, 0);
		writer_u8(&w, NAT_MAPPING_DEPENDENT);
		writer_u8(&w, (uint8_t)(1 + i));
		writer_u8(&w, NAT_REFLEXIVE);
		writer_u8(&w, 7);
		writer_u8(&w, FAMILY_IPV4);
		writer_u16(&w, theirs.port);
		writer_bytes(&w, theirs.ip.bytes, 4);
		if (i) {
			writer_u8(&w, 6);
			writer_u8(&w, 16);
			writer_u16(&w, e.port);
			writer_bytes(&w, e.ip.bytes, 4);
			writer_u16(&w, 256);
			writer_u16(&w, 32768);
			writer_u16(&w, 60999);
			writer_u32(&w, 0);
		}
		assert_false(w.failed);
		assert_true(nat_agent_input_list(a, list, w.used_bytes, 0) >= 0);
	}
	return a;
}

static unsigned send_all(struct nat_agent *a)
{
	struct nat_send send;
	unsigned n = 0;

	for (uint64_t now_us = 0; now_us < 1500 * US_PER_MS; now_us += 500) {
		nat_agent_tick(a, now_us);
		while (nat_agent_output(a, &send, now_us)) {
			assert_true(send.to.port >= 1024);
			n++;
		}
	}
	return n;
}

static void guesses_are_paid_from_the_allowance_of_the_peer(void **state)
{
	struct nat_allowance allowance = { 0 };
	struct nat_agent *a = easy_agent(&allowance, "203.0.113.2:20000");

	(void)state;
	send_all(a);
	assert_true(nat_agent_status(a).n_guessed > 500);
	assert_int_equal(nat_agent_status(a).n_guessed, allowance.n_used);
	nat_agent_free(a);

	/* Another agent, of another rendezvous, goes on where that one ended. */
	allowance.n_used = NAT_GUESS_ALLOWANCE - 100;
	a = easy_agent(&allowance, "203.0.113.2:20000");
	send_all(a);
	assert_int_equal(nat_agent_status(a).n_guessed, 100);
	nat_agent_free(a);
	a = easy_agent(&allowance, "203.0.113.2:20000");
	assert_true(send_all(a) <= NAT_BUDGET);
	assert_int_equal(nat_agent_status(a).n_guessed, 0);
	assert_non_null(nat_agent_status(a).guess_reason);
	nat_agent_free(a);
}

static void nothing_is_guessed_without_an_allowance_or_for_an_address_that_is_not_ours(void **state)
{
	struct nat_allowance allowance = { 0 };
	struct nat_agent *a = easy_agent(NULL, "203.0.113.2:20000");

	(void)state;
	assert_true(send_all(a) <= NAT_BUDGET);
	nat_agent_free(a);
	a = easy_agent(&allowance, "203.0.113.3:20000");
	assert_true(send_all(a) <= NAT_BUDGET);
	assert_int_equal(allowance.n_used, 0);
	nat_agent_free(a);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_port_that_was_only_asked_for_is_given_back),
		cmocka_unit_test(a_peer_cannot_aim_us_at_what_is_not_for_probes),
		cmocka_unit_test(refused_candidates_are_counted_and_never_probed),
		cmocka_unit_test(the_caller_can_refuse_addresses_too),
		cmocka_unit_test(an_address_that_never_answers_gets_no_more_than_the_budget),
		cmocka_unit_test(the_peer_cannot_renew_the_budget_as_fast_as_it_likes),
		cmocka_unit_test(a_bad_peer_aims_us_at_others_for_an_hour),
		cmocka_unit_test(an_authentic_probe_is_answered_and_an_answer_makes_the_pair_valid),
		cmocka_unit_test(a_cut_or_forged_datagram_is_dropped),
		cmocka_unit_test(a_replayed_probe_aims_nobody),
		cmocka_unit_test(the_replay_window_takes_each_probe_once_in_any_order),
		cmocka_unit_test(a_probe_from_an_unlisted_address_teaches_it),
		cmocka_unit_test(an_answer_from_elsewhere_is_no_answer),
		cmocka_unit_test(a_list_makes_the_round_trip_and_says_what_the_nat_does),
		cmocka_unit_test(lists_that_are_too_long_or_have_strange_kinds_are_bounded),
		cmocka_unit_test(a_list_of_an_old_round_is_ignored),
		cmocka_unit_test(the_first_to_start_holds_its_probes_back_for_the_signal_to_arrive),
		cmocka_unit_test(pcp_maps_renews_and_gives_back),
		cmocka_unit_test(a_gateway_that_restarts_is_noticed_by_its_clock),
		cmocka_unit_test(upnp_comes_last_and_is_renewed_and_given_back),
		cmocka_unit_test(upnp_that_fails_says_why),
		cmocka_unit_test(a_mapping_without_an_end_is_not_believed_for_ever),
		cmocka_unit_test(an_older_gateway_is_asked_by_nat_pmp),
		cmocka_unit_test(a_gateway_that_says_nothing_or_no_is_left_alone),
		cmocka_unit_test(guesses_are_paid_from_the_allowance_of_the_peer),
		cmocka_unit_test(
			nothing_is_guessed_without_an_allowance_or_for_an_address_that_is_not_ours),
		cmocka_unit_test(sockets_are_bounded_and_removing_one_loses_its_pairs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
