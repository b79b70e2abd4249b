/* The small parts of PTCP, one by one: headers, frames, windows, rings, queues. */
#include <inttypes.h>
#include "unit.h"
#include "ptcp/ack.h"
#include "ptcp/cc.h"
#include "ptcp/frames.h"
#include "ptcp/pacer.h"
#include "ptcp/packet.h"
#include "ptcp/pool.h"
#include "ptcp/queue.h"
#include "ptcp/replay.h"
#include "ptcp/rtt.h"
#include "ptcp/sent.h"

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

/* ---- packet ---------------------------------------------------------------------------------- */

static void a_header_reads_back_and_a_cut_one_is_refused(void **state)
{
	const uint8_t to[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, from[8] = { 9, 8, 7, 6, 5, 4, 3, 2 };
	uint8_t data[64] = { 0 };
	struct packet_header h;

	(void)state;
	for (int is_long = 0; is_long < 2; is_long++) {
		struct writer w = writer_over(data, sizeof(data));

		if (is_long)
			packet_write_long(&w, to, from, UINT64_C(0x123456789a));
		else
			packet_write_short(&w, to, true, UINT64_C(0x123456789a));
		const size_t header_bytes = w.used_bytes, least = header_bytes + PTCP_TAG_BYTES + 1;
		assert_int_equal(header_bytes, is_long ? 21 : 13);
		assert_int_equal(packet_parse(data, least, &h), 0);
		assert_int_equal(h.is_long, is_long);
		assert_int_equal(h.phase, !is_long);
		assert_int_equal(h.pn_low, 0x3456789a);
		assert_int_equal(h.header_bytes, header_bytes);
		assert_memory_equal(h.destination, to, 8);
		if (is_long)
			assert_memory_equal(h.source, from, 8);
		for (size_t n = 0; n < least; n++)
			assert_int_equal(packet_parse(data, n, &h), -EBADMSG);
	}
}

static void only_the_defined_first_bytes_are_packets(void **state)
{
	uint8_t data[64] = { 0 };
	struct packet_header h;

	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		data[0] = (uint8_t)type;
		const bool ok = (type & ~0x30u) == 0x40 || type == 0xc2;
		assert_int_equal(packet_parse(data, sizeof(data), &h), ok ? 0 : -EBADMSG);
		assert_int_equal(ptcp_is_packet(data, sizeof(data)), (type & 0x40) != 0);
	}
}

static void packet_numbers_are_restored_around_every_wrap(void **state)
{
	(void)state;
	for (uint64_t wrap = 1; wrap < 5; wrap++)
		for (int64_t off = -70000; off <= 70000; off += 10007)
			for (int64_t d = -2000000000; d <= 2000000000; d += 400000003) {
				const uint64_t expected = (wrap << 32) + (uint64_t)off;
				const uint64_t pn = expected + (uint64_t)d;

				assert_int_equal(packet_expand_pn(expected, (uint32_t)pn), pn);
			}
	assert_int_equal(packet_expand_pn(0, 5), 5);
	assert_int_equal(packet_expand_pn(10, 0xffffffff), 0xffffffff);
}

/* ---- replay -----------------------------------------------------------------------------------
 */

static void the_replay_window_remembers_exactly_what_it_saw(void **state)
{
	static struct replay w;
	static bool seen[200000];
	uint64_t rng = 7, base = 0;

	(void)state;
	memset(&w, 0, sizeof(w));
	for (int i = 0; i < 100000; i++) {
		const uint64_t back = next_random(&rng) % 9000, jump = next_random(&rng) % 4;
		const uint64_t pn =
			next_random(&rng) % 2 && base > back ? base - back : (base += jump);
		const bool old = w.next > pn && w.next - pn > REPLAY_WINDOW_BITS;

		assert_int_equal(replay_seen(&w, pn), seen[pn] || old);
		if (!replay_seen(&w, pn)) {
			replay_mark(&w, pn);
			seen[pn] = true;
		}
	}
	replay_mark(&w, UINT64_C(1) << 40);
	assert_true(replay_seen(&w, base));
	assert_false(replay_seen(&w, (UINT64_C(1) << 40) - 1));
	assert_true(replay_seen(&w, UINT64_C(1) << 40));
}

/* ---- ack ---------------------------------------------------------------------------------------
 */

static const struct ack_policy every_second = { .n_every = 2, .delay_us = 5000 };

static void an_ack_frame_says_what_came_however_it_came(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		static struct ack_state s;
		bool got[300] = { false };
		uint8_t data[2000];
		uint64_t rng = seed, top = 0;
		struct ack_frame f;

		memset(&s, 0, sizeof(s));
		s.deadline_us = NEVER_US;
		for (int i = 0; i < 100; i++) {
			const uint64_t pn = next_random(&rng) % 300;

			if (got[pn])
				continue;
			got[pn] = true;
			top = max_u64(top, pn);
			ack_on_packet(&s, pn, true, 0, &every_second, 1000);
		}
		struct writer w = writer_over(data, sizeof(data));
		assert_true(ack_write(&s, &w, false, 1500));
		assert_int_equal(s.deadline_us, NEVER_US);
		struct reader r = reader_over(data + 1, w.used_bytes - 1);
		assert_int_equal(ack_parse(&r, false, &f), 0);
		assert_int_equal(reader_finish(&r), 0);
		assert_int_equal(f.ranges[0].high, top);
		/* Exactly the same set, down to where the ranges ended. */
		for (uint64_t pn = f.ranges[f.n_ranges - 1].low; pn < 300; pn++) {
			bool in = false;

			for (unsigned i = 0; i < f.n_ranges; i++)
				in |= pn >= f.ranges[i].low && pn <= f.ranges[i].high;
			assert_int_equal(in, got[pn]);
		}
		for (size_t n = 0; n < w.used_bytes - 1; n++) {
			r = reader_over(data + 1, n);
			assert_int_equal(ack_parse(&r, false, &f), -EBADMSG);
		}
	}
}

static void an_ack_waits_in_order_and_hurries_at_a_gap(void **state)
{
	struct ack_state s = { .deadline_us = NEVER_US };

	(void)state;
	ack_on_packet(&s, 0, true, 0, &every_second, 100);
	assert_int_equal(s.deadline_us, 5100);
	ack_on_packet(&s, 1, true, 0, &every_second, 200);
	assert_true(ack_due(&s, 200));
	s.deadline_us = NEVER_US;
	s.n_waiting = 0;
	ack_on_packet(&s, 2, false, 0, &every_second, 300);
	assert_int_equal(s.deadline_us, NEVER_US);
	ack_on_packet(&s, 4, true, 0, &every_second, 400);
	assert_true(ack_due(&s, 400));
	ack_forget(&s, 2);
	assert_int_equal(s.n_ranges, 1);
	assert_int_equal(s.ranges[0].low, 4);
}

/* ---- frames ------------------------------------------------------------------------------------
 */

static void message_frames_read_back_and_cut_ones_are_refused(void **state)
{
	static const uint8_t payload[] = "a fragment of an inner packet";

	(void)state;
	for (uint8_t bits = 0; bits < 8; bits++) {
		const uint8_t type = FRAME_MESSAGE | bits;
		uint8_t data[100];
		struct writer w = writer_over(data, sizeof(data));
		struct message_frame in = {
			.id = 0x89abcdef,
			.lane = (bits & MESSAGE_ORDERED) ? 200 : 0,
			.sequence = (bits & MESSAGE_ORDERED) ? 0xfffe : 0,
			.offset = (bits & MESSAGE_FRAGMENT) ? 65000 : 0,
			.total = (bits & MESSAGE_FRAGMENT) ? PTCP_MESSAGE_BYTES_MAX
							   : sizeof(payload),
			.data = payload,
			.data_bytes = sizeof(payload),
		};
		struct message_frame out;

		message_write(&w, type, &in);
		assert_int_equal(w.used_bytes, message_header_bytes(type) + sizeof(payload));
		struct reader r = reader_over(data + 1, w.used_bytes - 1);
		assert_int_equal(message_parse(&r, data[0], &out), 0);
		assert_int_equal(out.id, in.id);
		assert_int_equal(out.lane, in.lane);
		assert_int_equal(out.sequence, in.sequence);
		assert_int_equal(out.offset, in.offset);
		assert_int_equal(out.total, in.total);
		assert_int_equal(out.data_bytes, sizeof(payload));
		assert_memory_equal(out.data, payload, sizeof(payload));
		const size_t head = message_header_bytes(type) - 1;
		for (size_t n = 0; n < ((bits & MESSAGE_LENGTH) ? w.used_bytes - 1 : head + 1);
		     n++) {
			r = reader_over(data + 1, n);
			if (n <= head || (bits & MESSAGE_LENGTH))
				assert_int_equal(message_parse(&r, data[0], &out), -EBADMSG);
		}
	}
}

static void fragments_beyond_their_message_are_refused(void **state)
{
	static const struct {
		uint32_t offset, total;
		uint8_t lane;
	} bad[] = {
		{ 0, 3, 1 },
		{ 97, 100, 1 },
		{ 100, 100, 1 },
		{ 0xffffff, 100, 1 },
		{ 0, PTCP_MESSAGE_BYTES_MAX + 1, 1 },
		{ 0, 0, 1 },
		{ 0, 100, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const uint8_t data[] = { 0,
					 0,
					 0,
					 1,
					 bad[i].lane,
					 0,
					 1,
					 (uint8_t)(bad[i].offset >> 16),
					 (uint8_t)(bad[i].offset >> 8),
					 (uint8_t)bad[i].offset,
					 (uint8_t)(bad[i].total >> 16),
					 (uint8_t)(bad[i].total >> 8),
					 (uint8_t)bad[i].total,
					 'd',
					 'a',
					 't',
					 'a' };
		struct reader r = reader_over(data, sizeof(data));
		struct message_frame f;

		assert_int_equal(
			message_parse(&r, FRAME_MESSAGE | MESSAGE_ORDERED | MESSAGE_FRAGMENT, &f),
			-EBADMSG);
	}
}

/* ---- rtt, pacer ---------------------------------------------------------------------------------
 */

static void the_smoothed_rtt_follows_rfc_9002(void **state)
{
	struct rtt r = { 0 };

	(void)state;
	rtt_sample(&r, 100000, 0);
	assert_int_equal(r.srtt_us, 100000);
	assert_int_equal(r.var_us, 50000);
	rtt_sample(&r, 140000, 20000); /* counts as 120000 */
	assert_int_equal(r.srtt_us, 102500);
	assert_int_equal(r.var_us, 42500);
	rtt_sample(&r, 105000, 20000); /* subtracting would go below the minimum */
	assert_int_equal(r.min_us, 100000);
	assert_int_equal(rtt_pto_us(&r, 5000), r.srtt_us + 4 * r.var_us + 5000);
}

static void the_pacer_lets_through_its_rate_in_quanta(void **state)
{
	static const uint64_t rates[] = { 10000, 125000, 12500000, 125000000, 1250000000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct pacer p = { 0 };
		uint64_t now_us = 1000000, sent = 0, largest = 0;

		pacer_set_rate(&p, rates[i], 1400, now_us);
		while (now_us < 11000000) {
			const size_t n = pacer_allowance(&p, 1 << 30, now_us);

			if (n == 0) {
				const uint64_t at_us = pacer_time_us(&p, 1 << 30);

				assert_true(at_us > now_us);
				now_us = at_us;
				continue;
			}
			pacer_sent(&p, n);
			sent += n;
			largest = max_u64(largest, n);
		}
		assert_in_range(sent, rates[i] * 10 * 98 / 100, rates[i] * 10 * 101 / 100 + 30000);
		assert_true(largest <= max_u64(2 * 65536, 14000));
	}
}

static void a_late_timer_costs_the_pacer_nothing_within_two_milliseconds(void **state)
{
	struct pacer p = { 0 };
	uint64_t sent = 0;

	(void)state;
	pacer_set_rate(&p, 125000000, 1400, 0);
	for (uint64_t now_us = 1500; now_us <= 1500000; now_us += 1500)
		for (size_t n; (n = pacer_allowance(&p, 65536, now_us)) > 0;) {
			pacer_sent(&p, n);
			sent += n;
		}
	assert_in_range(sent, UINT64_C(183750000), UINT64_C(187500000));
}

/* ---- sent ---------------------------------------------------------------------------------------
 */

static void the_ring_keeps_packets_and_all_their_records(void **state)
{
	struct sent_ring s;
	struct sent_record records[SENT_RECORDS_MAX];
	uint64_t rng = 3;
	static unsigned n_of[20000];

	(void)state;
	assert_int_equal(sent_init(&s, 4096), 0);
	for (uint64_t pn = 0; pn < 20000; pn++) {
		const unsigned n = (unsigned)(next_random(&rng) % (SENT_RECORDS_MAX + 1));

		n_of[pn] = n;
		for (unsigned i = 0; i < n; i++)
			records[i] = (struct sent_record){ .ack_largest = pn * 100 + i };
		assert_true(sent_make_room(&s, SENT_RECORDS_MAX, 0));
		assert_int_equal(s.next_pn, pn);
		sent_enter(&s, records, n);
		if (pn < 1000)
			continue;
		/* Out of order, as acknowledgements come: one of the last thousand. */
		const uint64_t old = pn - 1000 + (pn % 2 ? 0 : next_random(&rng) % 500);
		for (uint64_t q = s.tail; q <= old; q++) {
			struct sent_packet *const packet = sent_at(&s, q);

			if (packet->state == SENT_DONE)
				continue;
			struct sent_cursor c = sent_records(&s, packet);
			const struct sent_record *r;
			unsigned i = 0;
			for (; (r = sent_next_record(&c)) != NULL; i++)
				assert_int_equal(r->ack_largest, q * 100 + i);
			assert_int_equal(i, n_of[q]);
			if (q == old || q + 999 < pn)
				sent_done(&s, q);
		}
		sent_trim(&s, 0);
		assert_true(s.next_pn - s.tail <= 1001);
	}
	sent_fini(&s);
}

static void the_ring_finds_what_is_outstanding(void **state)
{
	struct sent_ring s;

	(void)state;
	assert_int_equal(sent_init(&s, 1024), 0);
	for (int i = 0; i < 1024; i++) {
		assert_true(sent_make_room(&s, 0, 0));
		sent_enter(&s, NULL, 0);
	}
	assert_false(sent_make_room(&s, 0, 0));
	for (uint64_t pn = 0; pn < 1024; pn++)
		if (pn % 100 != 7)
			sent_done(&s, pn);
	assert_int_equal(sent_next_outstanding(&s, 0, 1023), 7);
	assert_int_equal(sent_next_outstanding(&s, 8, 1023), 107);
	assert_int_equal(sent_next_outstanding(&s, 8, 106), SENT_NO_PN);
	assert_int_equal(sent_next_outstanding(&s, 1008, 1023), SENT_NO_PN);
	sent_trim(&s, 0);
	assert_int_equal(s.tail, 7);
	/* A lost packet goes when it has waited, or when the ring is full. */
	sent_at(&s, 7)->state = SENT_LOST;
	sent_at(&s, 7)->lost_us = 50;
	sent_trim(&s, 50);
	assert_int_equal(s.tail, 7);
	sent_trim(&s, 51);
	assert_int_equal(s.tail, 107);
	sent_fini(&s);
}

/* ---- pool
 * ------------------------------------------------------------------------------------------ */

static void the_pool_keeps_to_its_budget_whatever_the_sizes(void **state)
{
	struct pool p;
	struct pool_buffer b[100] = { 0 };
	uint64_t rng = 5;

	(void)state;
	pool_init(&p, 500000, NULL);
	for (int i = 0; i < 20000; i++) {
		struct pool_buffer *const one = &b[next_random(&rng) % 100];
		const size_t n = 1 + (size_t)(next_random(&rng) % (i % 7 == 0 ? 65551 : 2000));

		if (one->data)
			pool_put(&p, one);
		else if (pool_get(&p, n, one))
			memset(one->data, 1, n);
		assert_true(p.held_bytes <= 500000 && p.used_bytes <= p.held_bytes);
	}
	assert_false(pool_get(&p, POOL_BYTES_MAX + 1, &b[0]));
	for (int i = 0; i < 100; i++)
		pool_put(&p, &b[i]);
	assert_int_equal(p.used_bytes, 0);
	pool_fini(&p);
}

static unsigned fill(struct pool *p, struct pool_buffer *list, unsigned max)
{
	unsigned n = 0;

	while (n < max && pool_get(p, POOL_BYTES_MAX, &list[n]))
		n++;
	return n;
}

static void empty(struct pool *p, struct pool_buffer *list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pool_put(p, &list[i]);
}

static void pools_share_a_bound_and_each_keeps_a_little(void **state)
{
	struct ptcp_memory memory = { .limit_bytes = 60 * POOL_BYTES_MAX };
	struct pool p[3];
	struct pool_buffer b[3][100] = { 0 };
	unsigned n[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		pool_init(&p[i], 100 * POOL_BYTES_MAX, &memory);
	n[0] = fill(&p[0], b[0], 100);
	assert_int_equal(n[0], 30); /* as much as it leaves to others */
	n[1] = fill(&p[1], b[1], 100);
	assert_int_equal(n[1], 15);
	empty(&p[0], b[0], n[0]);
	pool_trim(&p[0]);
	n[0] = fill(&p[0], b[0], 100);
	assert_int_equal(n[0], 23);
	/* Nothing is left at all, and still. */
	memory.limit_bytes = 1;
	n[2] = fill(&p[2], b[2], 100);
	assert_int_equal(n[2], 2);
	for (unsigned i = 0; i < 3; i++) {
		empty(&p[i], b[i], n[i]);
		pool_fini(&p[i]);
	}
	assert_int_equal(memory.held_bytes, 0);
}

static void a_pool_gives_back_what_it_has_not_needed_for_a_while(void **state)
{
	struct pool p;
	struct pool_buffer b[20] = { 0 };

	(void)state;
	pool_init(&p, 100 * POOL_BYTES_MAX, NULL);
	empty(&p, b, fill(&p, b, 20));
	pool_decay(&p); /* all were in use since the last time */
	assert_int_equal(p.held_bytes, 20 * POOL_BYTES_MAX);
	empty(&p, b, fill(&p, b, 5));
	pool_decay(&p);
	assert_int_equal(p.held_bytes, 5 * POOL_BYTES_MAX);
	pool_decay(&p);
	assert_int_equal(p.held_bytes, 0);
	pool_fini(&p);
}

/* ---- queue
 * ------------------------------------------------------------------------------------------ */

static struct queue_item items[4096];
static struct queue queue;

static struct queue_item *item_of(void *owner, uint32_t slot)
{
	(void)owner;
	return &items[slot];
}

static void start_queue(void)
{
	queue_init(&queue, 42);
	queue.item = item_of;
}

/* The next message; it must not be one that CoDel is against. */
static uint32_t pick(uint64_t now_us)
{
	enum queue_verdict verdict;
	const uint32_t slot = queue_pick(&queue, now_us, &verdict);

	assert_int_equal(verdict, QUEUE_SEND);
	return slot;
}

static uint32_t send_some(uint32_t slot, uint32_t n_max)
{
	const uint32_t n = (uint32_t)min_u64(items[slot].left_bytes, n_max);

	queue_sent(&queue, slot, n, n);
	return n;
}

static void empty_queue(uint64_t now_us)
{
	enum queue_verdict verdict;

	for (uint32_t at; (at = queue_pick(&queue, now_us, &verdict)) != QUEUE_NONE;)
		send_some(at, UINT32_MAX);
	assert_int_equal(queue.n_bytes + queue.n_messages, 0);
}

static void flows_share_alike_and_a_new_one_goes_first(void **state)
{
	uint64_t sent[2] = { 0 };
	uint32_t slot = 0;

	(void)state;
	start_queue();
	/* Flow 0 in large messages, 1 in small ones, 2 comes later. */
	for (int i = 0; i < 20; i++)
		queue_push(&queue, slot++, 1000, false, 64000, 0);
	for (int i = 0; i < 1000; i++)
		queue_push(&queue, slot++, 2000, false, 1280, 0);
	for (int i = 0; i < 600; i++) {
		const uint32_t at = pick(1000);

		sent[at >= 20] += send_some(at, 1400);
	}
	assert_in_range(sent[0] * 100 / (sent[0] + sent[1]), 47, 53);
	/* Between two fragments of a large message. */
	queue_push(&queue, slot, 3000, false, 100, 1000);
	assert_int_equal(pick(1000), slot);
	send_some(slot, 100);
	empty_queue(1000);
}

static void sixteen_flows_have_a_bucket_each(void **state)
{
	(void)state;
	for (uint32_t seed = 0; seed < 500; seed++) {
		bool used[QUEUE_BUCKETS] = { false };

		queue_init(&queue, seed * UINT64_C(0x9e3779b97f4a7c15));
		queue.item = item_of;
		for (uint32_t i = 0; i < 16; i++) {
			const uint32_t flow = (seed + 1) * 1000003 + i * 65537;
			const unsigned b = queue_push(&queue, i, flow, false, 1000, 0);

			assert_false(used[b]);
			used[b] = true;
			assert_int_equal(queue_push(&queue, 100 + i, flow, false, 1000, 0), b);
		}
		empty_queue(0);
		/* A flow that was idle finds its bucket again. */
		const unsigned b = queue_push(&queue, 0, (seed + 1) * 1000003, false, 1000, 1);
		assert_true(used[b]);
	}
}

static void more_flows_than_buckets_share_them(void **state)
{
	uint32_t n_seen = 0;

	(void)state;
	start_queue();
	for (uint32_t i = 0; i < 2000; i++)
		assert_true(queue_push(&queue, i, 77 * i, false, 500, 0) < QUEUE_BUCKETS);
	for (uint32_t at; (at = pick(0)) != QUEUE_NONE; n_seen++)
		send_some(at, 500);
	assert_int_equal(n_seen, 2000);
}

/* RFC 8290, section 4.2: an empty queue of the new list passes through the old list first, or a
 * flow that sends one packet at a time would starve the others. */
static void a_trickle_does_not_starve_others(void **state)
{
	uint32_t n_bulk = 0, n_trickle = 0;

	(void)state;
	start_queue();
	for (uint32_t i = 0; i < 2000; i++)
		queue_push(&queue, i, 1, false, 1400, 0);
	queue_push(&queue, 4000, 2, false, 1400, 0);
	for (uint32_t i = 0; i < 1000; i++) {
		const uint32_t at = pick(0);

		send_some(at, 1400);
		if (at == 4000) {
			n_trickle++;
			queue_push(&queue, 4000, 2, false, 1400, 0);
		} else {
			n_bulk++;
		}
	}
	assert_in_range(n_bulk, 480, 520);
	assert_int_equal(n_bulk + n_trickle, 1000);
}

/* Urgent messages need not wait for their flow's turn, until it has had its share of the round. */
static void the_urgent_pass_within_their_share(void **state)
{
	uint32_t slot = 1000, n_urgent = 0;

	(void)state;
	start_queue();
	for (uint32_t i = 0; i < 900; i++)
		queue_push(&queue, i, 1 + i % 15, false, 1400, 0);
	for (int i = 0; i < 30; i++)
		send_some(pick(0), 1400);
	queue_push(&queue, slot, 99, true, 200, 0);
	assert_int_equal(pick(0), slot);
	send_some(slot++, 200);
	send_some(pick(0), 1400);
	/* It is among the old ones now, with credit: passes all the same. */
	queue_push(&queue, slot, 99, true, 200, 0);
	assert_int_equal(pick(0), slot);
	send_some(slot++, 200);
	/* A flood of them gets a sixteenth. */
	for (uint32_t i = 0; i < 500; i++)
		queue_push(&queue, slot++, 99, true, 700, 0);
	for (int i = 0; i < 330; i++) {
		const uint32_t at = pick(0);

		n_urgent += at >= 1000 ? send_some(at, 1400) : 0;
		if (at < 1000)
			send_some(at, 1400);
	}
	assert_in_range(n_urgent, 330 * 1400 / 18, 330 * 1400 / 14);
}

/* Both ends of what the control law is about (RFC 8289, section 5): times are exact. */
static void codel_follows_its_control_law(void **state)
{
	/* INTERVAL / sqrt(count), from the first drop on */
	static const uint64_t gaps_us[] = { 100000, 70710, 57735, 50000, 44721, 40824, 37796 };
	uint64_t drops_us[8];
	uint32_t slot = 0, n_drops = 0;
	enum queue_verdict verdict;

	(void)state;
	start_queue();
	/* Two come where one goes, each millisecond: the queue stands ever longer. */
	for (uint64_t now_us = 0; n_drops < ARRAY_SIZE(drops_us); now_us += 1000) {
		assert_true(now_us < 2 * US_PER_S);
		queue_push(&queue, slot++ % 4096, 7, false, 1000, now_us);
		queue_push(&queue, slot++ % 4096, 7, false, 1000, now_us);
		uint32_t at = queue_pick(&queue, now_us, &verdict);
		if (verdict == QUEUE_SIGNAL) {
			drops_us[n_drops++] = now_us;
			queue_remove_head(&queue, at);
			at = pick(now_us);
		}
		send_some(at, 1000);
	}
	/* The message that leaves at 10 ms is the first that waited 5 ms; one interval later. */
	assert_in_range(drops_us[0], 109000, 111000);
	for (unsigned i = 1; i < ARRAY_SIZE(drops_us); i++)
		assert_in_range(drops_us[i] - drops_us[i - 1], gaps_us[i - 1] - 1000,
				gaps_us[i - 1] + 1000);
}

/* One that is marked is sent: it is said once about each message. */
static void codel_signals_a_message_once(void **state)
{
	enum queue_verdict verdict;
	uint32_t at, n_signals = 0;

	(void)state;
	start_queue();
	for (uint32_t i = 0; i < 200; i++)
		queue_push(&queue, i, 7, false, 60000, 0);
	for (uint64_t now_us = 50000; now_us < 5 * US_PER_S; now_us += 1000) {
		at = queue_pick(&queue, now_us, &verdict);
		if (verdict == QUEUE_SIGNAL) {
			n_signals++;
			assert_int_equal(queue_pick(&queue, now_us, &verdict), at);
			assert_int_equal(verdict, QUEUE_SEND);
		}
		send_some(at, 1400);
	}
	assert_in_range(n_signals, 20, 200);
}

static void what_leaves_in_time_is_never_dropped(void **state)
{
	uint32_t slot = 0;

	(void)state;
	start_queue();
	/* 4 ms of queue for long; a burst of 90 ms that goes away; one message that waits alone. */
	for (uint64_t now_us = 0; now_us < US_PER_S; now_us += 1000) {
		for (int i = now_us == 0 ? 4 : 1; i > 0; i--)
			queue_push(&queue, slot++ % 4096, 7, false, 1000, now_us);
		send_some(pick(now_us), 1000);
	}
	empty_queue(US_PER_S);
	for (int i = 0; i < 90; i++)
		queue_push(&queue, slot++ % 4096, 7, false, 1000, US_PER_S);
	for (uint64_t now_us = US_PER_S; queue.n_messages > 0; now_us += 1000)
		send_some(pick(now_us), 1000);
	queue_push(&queue, 1, 7, false, 60000, 2 * US_PER_S);
	assert_int_equal(pick(4 * US_PER_S), 1);
}

/* It drops often enough to hold a flow that does not react to a part of its losses. */
static void a_standing_queue_is_dropped_from_more_and_more(void **state)
{
	uint32_t slot = 0, n_drops = 0, n_early = 0;
	enum queue_verdict verdict;

	(void)state;
	start_queue();
	/* One message comes and one goes each millisecond; 30 ms of them stand. */
	for (uint64_t now_us = 0; now_us < 2 * US_PER_S; now_us += 1000) {
		const int n_in = now_us == 0 ? 30 : 1;

		for (int i = 0; i < n_in; i++)
			queue_push(&queue, slot++ % 4096, 7, false, 1000, now_us);
		uint32_t at = queue_pick(&queue, now_us, &verdict);
		while (at != QUEUE_NONE && verdict == QUEUE_SIGNAL) {
			n_drops++;
			n_early += now_us < 100000;
			queue_remove_head(&queue, at);
			at = queue_pick(&queue, now_us, &verdict);
		}
		if (at != QUEUE_NONE)
			send_some(at, UINT32_MAX);
	}
	assert_int_equal(n_early, 0);
	assert_in_range(n_drops, 15, 40);
	assert_true(queue.n_messages <= 15);
}

static void the_fattest_flow_pays(void **state)
{
	(void)state;
	start_queue();
	for (uint32_t i = 0; i < 10; i++)
		queue_push(&queue, i, 1, false, 1000, 0);
	queue_push(&queue, 100, 2, false, 60000, 0);
	queue_push(&queue, 101, 2, false, 500, 0);
	assert_int_equal(queue_drop_fattest(&queue), 100);
	assert_int_equal(queue_drop_fattest(&queue), 0);
	/* What is under way stays; the one behind it goes. */
	assert_int_equal(pick(0), 1);
	send_some(1, 10);
	assert_int_equal(queue_drop_fattest(&queue), 2);
	assert_int_equal(pick(0), 1);
	send_some(1, 990);
	for (uint32_t i = 3; i < 10; i++)
		assert_int_equal(queue_drop_fattest(&queue), i);
	assert_int_equal(queue.n_bytes, 500);
	assert_int_equal(pick(0), 101);
	send_some(101, 100);
	assert_int_equal(queue_drop_fattest(&queue), QUEUE_NONE);
	empty_queue(0);
}

static void a_shortened_message_counts_less(void **state)
{
	(void)state;
	start_queue();
	queue_push(&queue, 1, 7, false, 5000, 0);
	queue_push(&queue, 2, 7, false, 100, 0);
	assert_int_equal(pick(0), 1);
	queue_shorten(&queue, 1, 1448);
	assert_int_equal(queue.n_bytes, 3652);
	assert_int_equal(items[1].left_bytes, 3552);
	empty_queue(0);
}

/* ---- congestion control
 * --------------------------------------------------------------------------------- */

/* A link of `rate` and `rtt_us`, fed each round with a window's worth at the paced rate. */
static void drive(struct cc *cc, uint64_t rate, uint64_t rtt_us, unsigned loss_percent,
		  int n_rounds, uint64_t *now_us, uint64_t *delivered)
{
	for (int i = 0; i < n_rounds; i++) {
		const uint64_t paced = cc->pacing_rate * rtt_us / US_PER_S;
		uint64_t sent = min_u64(paced, cc->cwnd_bytes);
		const uint64_t lost = sent * loss_percent / 100;
		const uint64_t got = min_u64(sent - lost, rate * rtt_us / US_PER_S);
		const uint64_t before = *delivered;

		*now_us += rtt_us;
		*delivered += got;
		for (uint64_t n = 0; n < lost / 1400; n++)
			cc->ops->on_lost(cc, 1400, sent, *now_us);
		cc->ops->on_ack(cc, &(struct cc_ack){
					    .now_us = *now_us,
					    .acked_bytes = got,
					    .delivered_bytes = *delivered,
					    .prior_delivered = before,
					    .rate = got * US_PER_S / rtt_us,
					    .rtt_us = rtt_us,
					    .srtt_us = rtt_us,
					    .in_flight_bytes = 0,
				    });
	}
}

static void the_controller_finds_the_rate_and_keeps_it_under_random_loss(void **state)
{
	static const unsigned losses[] = { 0, 1, 3, 10 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(losses); i++) {
		struct cc cc;
		uint64_t now_us = 1000000, delivered = 0;

		cc_init(&cc, &cc_bbr_ops, 1400, 50000, now_us);
		assert_true(cc.cwnd_bytes >= 32 * 1400);
		drive(&cc, 12500000, 50000, losses[i], 15, &now_us, &delivered);
		drive(&cc, 12500000, 50000, losses[i], 400, &now_us, &delivered);
		assert_in_range(cc.ops->bandwidth(&cc), 12500000 * 85 / 100, 12500000 * 101 / 100);
		assert_true(cc.cwnd_bytes >= 12500000 / 20 / 2);
		/* A tenth of the rate is followed within a second. */
		drive(&cc, 1250000, 50000, losses[i], 25, &now_us, &delivered);
		assert_in_range(cc.ops->bandwidth(&cc), 1250000 * 85 / 100, 1250000 * 130 / 100);
	}
}

static void the_controller_never_stops_sending(void **state)
{
	struct cc cc;
	uint64_t now_us = 1000000, delivered = 0;

	(void)state;
	cc_init(&cc, &cc_bbr_ops, 1400, 50000, now_us);
	drive(&cc, 1000, 50000, 60, 1000, &now_us, &delivered);
	assert_true(cc.cwnd_bytes >= CC_MIN_PACKETS * 1400 && cc.pacing_rate > 0);
	for (int i = 0; i < 20; i++)
		cc.ops->on_collapse(&cc, now_us);
	assert_true(cc.cwnd_bytes >= CC_MIN_PACKETS * 1400 && cc.pacing_rate > 0);
	drive(&cc, 12500000, 50000, 0, 100, &now_us, &delivered);
	assert_in_range(cc.ops->bandwidth(&cc), 12500000 * 90 / 100, 12500000);
}

static void cubic_takes_a_loss_for_a_full_path_unless_it_was_none(void **state)
{
	struct cc cc;
	uint64_t now_us = 1000000, delivered = 0, before;

	(void)state;
	cc_init(&cc, &cc_cubic_ops, 1400, 50000, now_us);
	drive(&cc, 12500000, 50000, 0, 5, &now_us, &delivered);
	before = cc.cwnd_bytes;
	assert_true(before > 8 * 32 * 1400);

	cc.ops->on_lost(&cc, 1400, before, now_us);
	cc.ops->on_lost(&cc, 1400, before, now_us);
	assert_int_equal(cc.cwnd_bytes, before * 70 / 100); /* once for the whole event */
	cc.ops->on_spurious(&cc, 1400);
	assert_int_equal(cc.cwnd_bytes, before * 70 / 100);
	cc.ops->on_spurious(&cc, 1400);
	assert_int_equal(cc.cwnd_bytes, before);
}

static void cubic_grows_again_to_where_the_loss_was(void **state)
{
	struct cc cc;
	uint64_t now_us = 1000000, delivered = 0, before;

	(void)state;
	cc_init(&cc, &cc_cubic_ops, 1400, 50000, now_us);
	drive(&cc, 12500000, 50000, 0, 5, &now_us, &delivered);
	before = cc.cwnd_bytes;
	cc.ops->on_lost(&cc, 1400, before, now_us);
	drive(&cc, 12500000, 50000, 0, 20, &now_us, &delivered); /* a second: concave */
	assert_in_range(cc.cwnd_bytes, before * 72 / 100, before * 99 / 100);
	drive(&cc, 12500000, 50000, 0, 200, &now_us, &delivered); /* ten: convex */
	assert_true(cc.cwnd_bytes > before);
}

static void after_a_long_pause_nobody_bursts(void **state)
{
	static const struct cc_ops *const all[] = { &cc_bbr_ops, &cc_cubic_ops };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct cc cc;
		uint64_t now_us = 1000000, delivered = 0;

		cc_init(&cc, all[i], 1400, 50000, now_us);
		drive(&cc, 12500000, 50000, 0, 60, &now_us, &delivered);
		const uint64_t rate = cc.pacing_rate, cwnd = cc.cwnd_bytes;
		cc.ops->on_restart(&cc, 1000, now_us);
		assert_int_equal(cc.pacing_rate, rate);
		cc.ops->on_restart(&cc, 60 * US_PER_S, now_us + 60 * US_PER_S);
		assert_true(cc.pacing_rate <= rate / 4);
		assert_true(cc.cwnd_bytes <= cwnd && cc.cwnd_bytes >= 32 * 1400);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_header_reads_back_and_a_cut_one_is_refused),
		cmocka_unit_test(only_the_defined_first_bytes_are_packets),
		cmocka_unit_test(packet_numbers_are_restored_around_every_wrap),
		cmocka_unit_test(the_replay_window_remembers_exactly_what_it_saw),
		cmocka_unit_test(an_ack_frame_says_what_came_however_it_came),
		cmocka_unit_test(an_ack_waits_in_order_and_hurries_at_a_gap),
		cmocka_unit_test(message_frames_read_back_and_cut_ones_are_refused),
		cmocka_unit_test(fragments_beyond_their_message_are_refused),
		cmocka_unit_test(the_smoothed_rtt_follows_rfc_9002),
		cmocka_unit_test(the_pacer_lets_through_its_rate_in_quanta),
		cmocka_unit_test(a_late_timer_costs_the_pacer_nothing_within_two_milliseconds),
		cmocka_unit_test(the_ring_keeps_packets_and_all_their_records),
		cmocka_unit_test(the_ring_finds_what_is_outstanding),
		cmocka_unit_test(the_pool_keeps_to_its_budget_whatever_the_sizes),
		cmocka_unit_test(pools_share_a_bound_and_each_keeps_a_little),
		cmocka_unit_test(a_pool_gives_back_what_it_has_not_needed_for_a_while),
		cmocka_unit_test(flows_share_alike_and_a_new_one_goes_first),
		cmocka_unit_test(sixteen_flows_have_a_bucket_each),
		cmocka_unit_test(more_flows_than_buckets_share_them),
		cmocka_unit_test(a_trickle_does_not_starve_others),
		cmocka_unit_test(the_urgent_pass_within_their_share),
		cmocka_unit_test(codel_follows_its_control_law),
		cmocka_unit_test(codel_signals_a_message_once),
		cmocka_unit_test(what_leaves_in_time_is_never_dropped),
		cmocka_unit_test(a_standing_queue_is_dropped_from_more_and_more),
		cmocka_unit_test(the_fattest_flow_pays),
		cmocka_unit_test(a_shortened_message_counts_less),
		cmocka_unit_test(the_controller_finds_the_rate_and_keeps_it_under_random_loss),
		cmocka_unit_test(the_controller_never_stops_sending),
		cmocka_unit_test(cubic_takes_a_loss_for_a_full_path_unless_it_was_none),
		cmocka_unit_test(cubic_grows_again_to_where_the_loss_was),
		cmocka_unit_test(after_a_long_pause_nobody_bursts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
