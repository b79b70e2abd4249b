/* A stream of numbered messages between two associations, checked where it arrives. */
#ifndef TESTS_UNIT_PTCP_STREAM_H
#define TESTS_UNIT_PTCP_STREAM_H

#include "ptcp_pair.h"

/* Messages that say who they are: number u64, flow u32, then a pattern. */
struct stream {
	uint64_t n_sent, n_blocked;
	size_t message_bytes;
	uint64_t total;
	uint32_t n_flows;
	bool ordered;
	int from;
	uint64_t seen[1 << 14]; /* bitmap */
	uint64_t n_seen, n_twice, n_wrong, n_disorder;
	uint64_t last_of_flow[64];
};

static inline uint8_t pattern(uint64_t number, size_t i)
{
	return (uint8_t)(number * 31 + i * 7 + (i >> 8));
}

static inline uint64_t stream_source(struct pair *p, void *user)
{
	struct stream *const s = user;
	static uint8_t data[PTCP_MESSAGE_BYTES_MAX];

	while (s->n_sent < s->total && ptcp_message_room(p->end[s->from].a)) {
		struct ptcp_stats stats;

		/* As an inner TCP would: what stands in the queue for long gets dropped. */
		ptcp_get_stats(p->end[s->from].a, &stats);
		if (stats.send_queue_bytes > 2 * s->message_bytes + 4000)
			break;
		const uint32_t flow = 1 + (uint32_t)(s->n_sent % s->n_flows);
		const struct ptcp_message_info info = { .flow = flow, .ordered = s->ordered };
		const size_t n = s->message_bytes;

		memcpy(data, &s->n_sent, 8);
		memcpy(data + 8, &flow, 4);
		for (size_t i = 12; i < n; i++)
			data[i] = pattern(s->n_sent, i);
		const struct ptcp_part parts[] = { { data, 12 }, { data + 12, n - 12 } };
		if (ptcp_message_send(p->end[s->from].a, &info, parts, 2, p->now_us) != 0) {
			s->n_blocked++;
			break;
		}
		s->n_sent++;
	}
	return NEVER_US;
}

static inline void stream_sink(struct pair_end *e, const uint8_t *data, size_t n_bytes)
{
	struct stream *const s = e->user;
	uint64_t number;
	uint32_t flow;

	if (n_bytes != s->message_bytes) {
		s->n_wrong++;
		return;
	}
	memcpy(&number, data, 8);
	memcpy(&flow, data + 8, 4);
	for (size_t i = 12; i < n_bytes; i++)
		if (data[i] != pattern(number, i)) {
			s->n_wrong++;
			return;
		}
	uint64_t *const word = &s->seen[number / 64 % ARRAY_SIZE(s->seen)];
	s->n_twice += *word >> (number % 64) & 1;
	*word |= UINT64_C(1) << (number % 64);
	s->n_seen++;
	s->n_disorder += s->last_of_flow[flow] > number;
	s->last_of_flow[flow] = number;
}

static inline void stream_start(struct pair *p, struct stream *s, int from, size_t message_bytes,
				uint64_t total, uint32_t n_flows, bool ordered)
{
	memset(s, 0, sizeof(*s));
	s->from = from;
	s->message_bytes = message_bytes;
	s->total = total;
	s->n_flows = n_flows;
	s->ordered = ordered;
	p->end[!from].on_message = stream_sink;
	p->end[!from].user = s;
}

#endif
