/*
 * The TCP to compare with. Windows are counted in segments. The receiver logs the order in which
 * segments came; an ACK says how long that log was, which is SACK without limits.
 */
#include "rig.h"

#include <math.h>
#include <stdio.h>

#define RING            65536
#define BETA            0.7
#define C               0.4
#define RTO_MIN_US      (200 * US_PER_MS)
#define DELACK_US       (40 * US_PER_MS)
#define HYSTART_MIN     4000
#define HYSTART_MAX     16000
#define HYSTART_SAMPLES 8
#define REORDER_MAX     300

enum { FREE, FLYING, LOST, DONE };

struct rig_tcp {
	uint32_t flow;
	/* Sender. */
	struct {
		uint64_t sent_us, order;
		uint8_t state;
		bool again;
	} ring[RING];
	uint32_t next, una, log_seen;
	uint64_t order, newest_order;
	uint32_t resend_from;
	unsigned n_flying, n_lost, threshold;
	double cwnd, ssthresh, w_max, k, w_est;
	uint64_t epoch_us;
	double undo_cwnd, undo_ssthresh, undo_w_max;
	unsigned n_undo;         /* resent in this event, and not known to have been in vain */
	uint64_t recovery_order; /* losses of what left before are of the same event */
	uint64_t srtt_us, var_us, min_us, round_min_us, round_end_order, rto_us;
	unsigned n_round_samples;
	uint64_t ack_sample_us; /* of what left last of all that an ACK is the first to name */
	unsigned backoff;
	/* Receiver. */
	uint32_t log[RING];
	uint8_t got[RING];
	uint32_t n_log, cumulative, highest;
	unsigned n_unacked;
	uint64_t delack_us;
	uint64_t n_received, n_cuts;
};

struct rig_tcp *rig_tcp_new(uint32_t flow)
{
	struct rig_tcp *const t = calloc(1, sizeof(*t));

	assert(t);
	t->flow = flow;
	t->cwnd = 10;
	t->ssthresh = 1e9;
	t->threshold = 3;
	t->min_us = t->round_min_us = NEVER_US;
	t->rto_us = t->delack_us = NEVER_US;
	return t;
}

void rig_tcp_free(struct rig_tcp *t)
{
	free(t);
}

uint64_t rig_tcp_received(const struct rig_tcp *t)
{
	return t->n_received;
}

void rig_tcp_describe(const struct rig_tcp *t, char *out, size_t out_bytes)
{
	snprintf(out, out_bytes, "cwnd %.0f ssthresh %.0f srtt %.1f cuts %u", t->cwnd, t->ssthresh,
		 (double)t->srtt_us / 1000, (unsigned)t->n_cuts);
}

uint64_t rig_tcp_deadline_us(const struct rig_tcp *t)
{
	return min_u64(t->rto_us, t->delack_us);
}

static void arm_rto(struct rig_tcp *t, uint64_t now_us)
{
	const uint64_t base_us =
		t->srtt_us ? t->srtt_us + max_u64(4 * t->var_us, RTO_MIN_US) : US_PER_S;

	t->rto_us = t->n_flying + t->n_lost > 0 ? now_us + (base_us << t->backoff) : NEVER_US;
}

static void send_one(struct rig_tcp *t, struct rig *rig, uint32_t number, uint64_t now_us)
{
	const unsigned i = number % RING;

	t->ring[i].sent_us = now_us;
	t->ring[i].order = ++t->order;
	t->ring[i].state = FLYING;
	t->n_flying++;
	rig_carry(rig, &(struct rig_segment){ .flow = t->flow, .number = number });
}

static void send_all(struct rig_tcp *t, struct rig *rig, uint64_t now_us)
{
	const bool idle = t->n_flying == 0;

	while (t->n_flying < t->cwnd) {
		if (t->n_lost > 0) {
			while (t->ring[t->resend_from % RING].state != LOST)
				t->resend_from++;
			t->ring[t->resend_from % RING].again = true;
			t->n_lost--;
			t->n_undo++;
			send_one(t, rig, t->resend_from++, now_us);
			continue;
		}
		if (t->next - t->una >= RING / 2)
			break;
		t->ring[t->next % RING].again = false;
		send_one(t, rig, t->next++, now_us);
	}
	if (idle)
		arm_rto(t, now_us);
}

static void cut(struct rig_tcp *t, bool rto)
{
	t->n_cuts++;
	t->undo_cwnd = rto ? 0 : t->cwnd;
	t->undo_ssthresh = t->ssthresh;
	t->undo_w_max = t->w_max;
	t->n_undo = 0;
	t->w_max = t->cwnd < t->w_max ? t->cwnd * (1 + BETA) / 2 : t->cwnd;
	t->ssthresh = fmax(2, t->cwnd * BETA);
	t->cwnd = rto ? 1 : t->ssthresh;
	t->epoch_us = 0;
	t->recovery_order = t->order;
}

static void grow(struct rig_tcp *t, uint64_t now_us)
{
	if (t->cwnd < t->ssthresh) {
		t->cwnd += 1;
		return;
	}
	if (t->epoch_us == 0) {
		t->epoch_us = now_us;
		t->w_max = fmax(t->w_max, t->cwnd);
		t->k = cbrt((t->w_max - t->cwnd) / C);
		t->w_est = t->cwnd;
	}
	const double s = (double)(now_us - t->epoch_us + t->min_us) / US_PER_S - t->k;
	const double target = fmin(C * s * s * s + t->w_max, 1.5 * t->cwnd);
	t->w_est += 3 * (1 - BETA) / (1 + BETA) / t->cwnd;
	if (target > t->cwnd)
		t->cwnd += (target - t->cwnd) / t->cwnd;
	t->cwnd = fmax(t->cwnd, t->w_est);
}

/* As Linux does it: the least of the round so far counts as soon as there are eight. */
static void hystart(struct rig_tcp *t, uint64_t rtt_us)
{
	const uint64_t eta_us = min_u64(max_u64(t->min_us / 8, HYSTART_MIN), HYSTART_MAX);

	if (t->newest_order > t->round_end_order) {
		t->round_min_us = NEVER_US;
		t->n_round_samples = 0;
		t->round_end_order = t->order;
	}
	t->round_min_us = min_u64(t->round_min_us, rtt_us);
	if (++t->n_round_samples > HYSTART_SAMPLES && t->cwnd < t->ssthresh && t->cwnd >= 16 &&
	    t->round_min_us > t->min_us + eta_us)
		t->ssthresh = t->cwnd;
}

static void sample(struct rig_tcp *t, uint64_t rtt_us)
{
	t->min_us = min_u64(t->min_us, rtt_us);
	if (t->srtt_us == 0) {
		t->srtt_us = rtt_us;
		t->var_us = rtt_us / 2;
	} else {
		const uint64_t d = rtt_us > t->srtt_us ? rtt_us - t->srtt_us : t->srtt_us - rtt_us;

		t->var_us = (3 * t->var_us + d) / 4;
		t->srtt_us = (7 * t->srtt_us + rtt_us) / 8;
	}
	hystart(t, rtt_us);
}

/* Nothing of what was taken for lost had been (RFC 3708, RFC 4015). */
static void in_vain(struct rig_tcp *t)
{
	if (t->undo_cwnd <= 0 || t->n_undo > 0 || t->n_lost > 0)
		return;
	t->cwnd = fmax(t->cwnd, t->undo_cwnd);
	t->ssthresh = t->undo_ssthresh;
	t->w_max = t->undo_w_max;
	t->undo_cwnd = 0;
	t->epoch_us = 0;
}

static void on_arrived(struct rig_tcp *t, uint32_t number, uint64_t now_us)
{
	const unsigned i = number % RING;

	if ((int32_t)(number - t->una) < 0 || t->ring[i].state == DONE || t->ring[i].state == FREE)
		return;
	if (t->ring[i].state == LOST) {
		t->n_lost--;
		t->threshold = (unsigned)min_u64(REORDER_MAX, t->threshold * 2);
		t->ring[i].state = DONE;
		in_vain(t);
	} else {
		t->n_flying--;
		/* Sooner than what was sent again can have come: it was the first one. */
		if (t->ring[i].again && now_us - t->ring[i].sent_us < t->min_us && t->n_undo > 0) {
			t->n_undo--;
			t->threshold = (unsigned)min_u64(REORDER_MAX, t->threshold * 2);
			in_vain(t);
		}
	}
	t->newest_order = max_u64(t->newest_order, t->ring[i].order);
	if (!t->ring[i].again)
		t->ack_sample_us = min_u64(t->ack_sample_us, now_us - t->ring[i].sent_us);
	t->ring[i].state = DONE;
	if (t->ring[i].order > t->recovery_order)
		grow(t, now_us);
}

static void detect(struct rig_tcp *t)
{
	bool any = false;

	for (uint32_t n = t->una; n != t->next; n++) {
		const unsigned i = n % RING;

		if (t->ring[i].state != FLYING || t->ring[i].order + t->threshold > t->newest_order)
			continue;
		t->ring[i].state = LOST;
		t->n_flying--;
		if (t->n_lost++ == 0 || (int32_t)(n - t->resend_from) < 0)
			t->resend_from = n;
		any |= t->ring[i].order > t->recovery_order;
	}
	if (any)
		cut(t, false);
}

static void on_ack(struct rig_tcp *t, struct rig *rig, uint32_t n_log, uint64_t now_us)
{
	if ((int32_t)(n_log - t->log_seen) <= 0)
		return;
	t->ack_sample_us = NEVER_US;
	for (; t->log_seen != n_log; t->log_seen++)
		on_arrived(t, t->log[t->log_seen % RING], now_us);
	if (t->ack_sample_us != NEVER_US)
		sample(t, t->ack_sample_us);
	while (t->una != t->next && t->ring[t->una % RING].state == DONE)
		t->ring[t->una++ % RING].state = FREE;
	t->backoff = 0;
	if (t->newest_order > t->ring[t->una % RING].order || t->n_flying == 0)
		detect(t);
	arm_rto(t, now_us);
	send_all(t, rig, now_us);
}

static void send_ack(struct rig_tcp *t, struct rig *rig)
{
	t->n_unacked = 0;
	t->delack_us = NEVER_US;
	rig_carry(rig,
		  &(struct rig_segment){ .flow = t->flow, .number = t->n_log, .is_ack = true });
}

static void on_segment(struct rig_tcp *t, struct rig *rig, uint32_t number, uint64_t now_us)
{
	bool at_once = number != t->cumulative || t->highest != t->cumulative;

	t->log[t->n_log++ % RING] = number;
	if ((int32_t)(number - t->cumulative) >= 0 && !t->got[number % RING]) {
		t->got[number % RING] = 1;
		t->n_received++;
		if ((int32_t)(number + 1 - t->highest) > 0)
			t->highest = number + 1;
		for (; t->got[t->cumulative % RING]; t->cumulative++)
			t->got[t->cumulative % RING] = 0;
	}
	if (++t->n_unacked >= 2 || at_once)
		send_ack(t, rig);
	else
		t->delack_us = now_us + DELACK_US;
}

void rig_tcp_input(struct rig_tcp *t, struct rig *rig, const struct rig_segment *s, uint64_t now_us)
{
	if (s->is_ack)
		on_ack(t, rig, s->number, now_us);
	else
		on_segment(t, rig, s->number, now_us);
}

void rig_tcp_run(struct rig_tcp *t, struct rig *rig, uint64_t now_us)
{
	if (now_us >= t->delack_us)
		send_ack(t, rig);
	if (now_us >= t->rto_us) {
		for (uint32_t n = t->una; n != t->next; n++)
			if (t->ring[n % RING].state == FLYING) {
				t->ring[n % RING].state = LOST;
				t->n_flying--;
				t->n_lost++;
			}
		t->resend_from = t->una;
		t->backoff += t->backoff < 6;
		cut(t, true);
		arm_rto(t, now_us);
	}
	send_all(t, rig, now_us);
}
