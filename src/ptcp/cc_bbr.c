/*
 * A model-based controller after BBR version 1 (Cardwell et al., ACM Queue 14(5), 2016;
 * draft-cardwell-iccrg-bbr-congestion-control-00), with these differences:
 *
 * - The maximum filter of the delivery rate spans ten rounds and at least 200 ms, for rounds of
 *   100 us would forget the path during one hiccup of the scheduler.
 * - The window is computed for at least 1 ms of round trip, and has room for lumpy
 *   acknowledgements and three send quanta: on such paths the CPU is the limit, not the network.
 * - Loss: up to 12 % in a round is taken for noise. Above, while the rate is not being probed, rate
 *   and window are capped near what was delivered, never below half the estimated rate and one
 *   BDP; the caps end with the next probe.
 * - PROBE_RTT keeps half a BDP in flight, and is left out where the round trip is below 1 ms.
 */
#include "ptcp/cc.h"

#define GAIN(x)              ((uint64_t)((x)*256))
#define HIGH_GAIN            GAIN(2.77)
#define DRAIN_GAIN           GAIN(0.35)
#define CWND_GAIN            GAIN(2)
#define ROUNDS_WINDOW        10
#define TICK_MIN_US          20000
#define MIN_RTT_WINDOW_US    (10 * US_PER_S)
#define PROBE_RTT_US         (200 * US_PER_MS)
#define RTT_FLOOR_US         1000
#define PHASE_MIN_US         2000
#define QUANTUM_MAX_BYTES    65536
#define EXTRA_MIN_US         2000 /* of the estimated rate; or one round trip */
#define LOSS_PERCENT         12   /* in a round, from which on it is taken for congestion */
#define LOSS_PACKETS         8    /* at least so many of them */
#define BUFFER_CAP_MIN       (4 * QUANTUM_MAX_BYTES)
#define BUFFER_GROW_US       (100 * US_PER_MS)
#define STARTUP_LOSS_PERCENT 15

static const uint64_t cycle_gain[] = { GAIN(1.25), GAIN(0.75), GAIN(1), GAIN(1),
				       GAIN(1),    GAIN(1),    GAIN(1), GAIN(1) };

static uint64_t gained(uint64_t value, uint64_t gain)
{
	return value * gain / 256;
}

void cc_max_reset(struct cc_max_filter *f, uint32_t tick, uint64_t value)
{
	for (unsigned i = 0; i < ARRAY_SIZE(f->best); i++) {
		f->best[i].value = value;
		f->best[i].tick = tick;
	}
}

void cc_max_update(struct cc_max_filter *f, uint32_t window, uint32_t tick, uint64_t value)
{
	if (value >= f->best[0].value || tick - f->best[2].tick > window) {
		cc_max_reset(f, tick, value);
		return;
	}
	if (value >= f->best[1].value) {
		f->best[1].value = f->best[2].value = value;
		f->best[1].tick = f->best[2].tick = tick;
	} else if (value >= f->best[2].value) {
		f->best[2].value = value;
		f->best[2].tick = tick;
	}

	const uint32_t age = tick - f->best[0].tick;
	if (age > window) {
		f->best[0] = f->best[1];
		f->best[1] = f->best[2];
		f->best[2].value = value;
		f->best[2].tick = tick;
		if (tick - f->best[0].tick > window) {
			f->best[0] = f->best[1];
			f->best[1] = f->best[2];
		}
	} else if (f->best[1].tick == f->best[0].tick && age > window / 4) {
		f->best[1].value = f->best[2].value = value;
		f->best[1].tick = f->best[2].tick = tick;
	} else if (f->best[2].tick == f->best[1].tick && age > window / 2) {
		f->best[2].value = value;
		f->best[2].tick = tick;
	}
}

static uint64_t cwnd_min(const struct cc *cc)
{
	return CC_MIN_PACKETS * cc->mtu_bytes;
}

static uint64_t cwnd_initial(const struct cc *cc)
{
	return CC_INITIAL_PACKETS * cc->mtu_bytes;
}

static uint64_t quantum(const struct cc *cc)
{
	const uint64_t bytes = cc->pacing_rate / 1000;

	return max_u64(2 * cc->mtu_bytes, min_u64(bytes, QUANTUM_MAX_BYTES));
}

static uint64_t bdp(const struct cc *cc, uint64_t gain)
{
	const struct bbr *b = &cc->bbr;

	if (b->min_rtt_us == NEVER_US || cc_max(&b->rate) == 0)
		return gained(cwnd_initial(cc), gain);
	return gained(cc_max(&b->rate) * max_u64(b->min_rtt_us, RTT_FLOOR_US) / US_PER_S, gain);
}

static uint64_t pacing_gain(const struct bbr *b)
{
	switch ((enum bbr_mode)b->mode) {
	case BBR_STARTUP:
		return HIGH_GAIN;
	case BBR_DRAIN:
		return DRAIN_GAIN;
	case BBR_PROBE_BW:
		return cycle_gain[b->cycle];
	case BBR_PROBE_RTT:
	case BBR_MODE_COUNT:
		break;
	}
	return GAIN(1);
}

static void lift_caps(struct bbr *b)
{
	b->rate_cap = NEVER_US;
	b->inflight_cap = NEVER_US;
}

static void enter_startup(struct bbr *b)
{
	b->mode = BBR_STARTUP;
	b->full_pipe = false;
	b->n_full = 0;
	b->full_rate = 0;
	lift_caps(b);
}

/* Starts the cycle anywhere but in its probing phase, as far as the path's own state says. */
static void enter_probe_bw(struct bbr *b, uint64_t now_us)
{
	b->mode = BBR_PROBE_BW;
	b->cycle = (uint8_t)(2 + now_us / 64 % 6);
	b->cycle_us = now_us;
}

static void init(struct cc *cc, uint64_t srtt_us, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;

	b->min_rtt_us = srtt_us > 0 ? srtt_us : NEVER_US;
	b->min_rtt_stamp_us = now_us;
	b->extra_start_us = now_us;
	b->tick_us = now_us;
	b->buffer_cap = NEVER_US;
	enter_startup(b);
	cc->cwnd_bytes = cwnd_initial(cc);
	cc->pacing_rate = gained(cc->cwnd_bytes * US_PER_S /
					 max_u64(srtt_us > 0 ? srtt_us : 10000, RTT_FLOOR_US),
				 HIGH_GAIN);
}

static void check_full_pipe(struct bbr *b, bool app_limited)
{
	if (b->full_pipe || !b->round_start || app_limited)
		return;
	if (cc_max(&b->rate) >= b->full_rate + b->full_rate / 4) {
		b->full_rate = cc_max(&b->rate);
		b->n_full = 0;
		return;
	}
	b->full_pipe = ++b->n_full >= 3;
}

/*
 * With several times the BDP in flight a queue of ours stands somewhere, and what is lost
 * overflowed it: on the shortest paths that is the receiver's socket buffer, whenever its process
 * does not run. Stay below what was too much, and try a little more from time to time.
 */
static void judge_buffer(struct cc *cc, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;
	const uint64_t sent = b->round_acked_bytes + b->round_lost_bytes;
	const uint64_t true_bdp =
		b->min_rtt_us == NEVER_US ? 0 : cc_max(&b->rate) * b->min_rtt_us / US_PER_S;

	if (b->round_lost_packets >= LOSS_PACKETS && b->round_lost_bytes * 100 > sent &&
	    b->round_in_flight > 2 * true_bdp + BUFFER_CAP_MIN) {
		b->buffer_cap = max_u64(gained(b->round_in_flight, GAIN(0.7)),
					2 * true_bdp + BUFFER_CAP_MIN);
		b->buffer_cap_us = now_us;
	} else if (b->buffer_cap != NEVER_US && now_us - b->buffer_cap_us > BUFFER_GROW_US) {
		b->buffer_cap += b->buffer_cap / 16;
		b->buffer_cap_us = now_us;
		if (b->buffer_cap > 2 * cc->cwnd_bytes)
			b->buffer_cap = NEVER_US;
	}
}

/* At the end of a round: was more lost than noise explains? */
static void judge_round(struct cc *cc, uint64_t in_flight_bytes)
{
	struct bbr *b = &cc->bbr;
	const uint64_t sent = b->round_acked_bytes + b->round_lost_bytes;
	const unsigned limit = b->mode == BBR_STARTUP ? STARTUP_LOSS_PERCENT : LOSS_PERCENT;

	if (b->round_lost_packets < LOSS_PACKETS || b->round_lost_bytes * 100 <= sent * limit)
		return;
	if (b->mode == BBR_STARTUP) {
		/* Random loss does not keep the rate from growing; a full pipe does. */
		b->full_pipe = cc_max(&b->rate) < b->full_rate + b->full_rate / 4;
		return;
	}
	/* Probing for bandwidth may cost something, in the rounds of the probe and its drain. */
	if (b->mode != BBR_PROBE_BW || b->cycle < 3)
		return;
	/* What got through is what the path can carry. */
	const uint64_t rate = cc_max(&b->rate);
	const uint64_t through =
		max_u64(b->round_rate, gained(min_u64(rate, b->rate_cap), GAIN(0.85)));
	b->rate_cap = max_u64(min_u64(through, rate), rate / 2);
	b->inflight_cap = max_u64(bdp(cc, GAIN(1)),
				  gained(in_flight_bytes + b->round_lost_bytes, GAIN(0.85)));
	b->inflight_cap += 3 * quantum(cc);
}

static void update_round(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;

	b->round_acked_bytes += ack->acked_bytes;
	b->round_in_flight = max_u64(b->round_in_flight, ack->in_flight_bytes + ack->acked_bytes);
	b->round_start = ack->prior_delivered >= b->round_end_bytes;
	if (!b->round_start)
		return;
	judge_buffer(cc, ack->now_us);
	judge_round(cc, ack->in_flight_bytes + ack->acked_bytes);
	b->round_in_flight = 0;
	b->round_end_bytes = ack->delivered_bytes;
	b->round_acked_bytes = b->round_lost_bytes = b->round_rate = 0;
	b->round_lost_packets = 0;
	b->round++;
	if (ack->now_us - b->tick_us >= TICK_MIN_US) {
		b->tick++;
		b->tick_us = ack->now_us;
	}
}

static void update_rate(struct bbr *b, const struct cc_ack *ack)
{
	if (ack->rate == 0)
		return;
	b->round_rate = max_u64(b->round_rate, ack->rate);
	if (!ack->rate_app_limited || ack->rate >= cc_max(&b->rate))
		cc_max_update(&b->rate, ROUNDS_WINDOW, b->tick, ack->rate);
}

/* How much more came than the rate explains, since the last time it fell behind. */
static void update_extra(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;
	const uint64_t rate = cc_max(&b->rate);
	const uint64_t passed_us = min_u64(ack->now_us - b->extra_start_us, US_PER_S);
	uint64_t expected = rate * passed_us / US_PER_S;

	if (b->extra_acked <= expected || passed_us == US_PER_S) {
		b->extra_start_us = ack->now_us;
		b->extra_acked = 0;
		expected = 0;
	}
	b->extra_acked += ack->acked_bytes;
	const uint64_t extra = b->extra_acked - min_u64(b->extra_acked, expected);
	const uint64_t rtt_us = b->min_rtt_us == NEVER_US ? 0 : b->min_rtt_us;
	cc_max_update(&b->extra, ROUNDS_WINDOW, b->tick,
		      min_u64(extra, rate * max_u64(rtt_us, EXTRA_MIN_US) / US_PER_S));
}

static void advance_cycle(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;
	const uint64_t phase_us =
		max_u64(b->min_rtt_us == NEVER_US ? 0 : b->min_rtt_us, PHASE_MIN_US);
	bool over = ack->now_us - b->cycle_us > phase_us;

	/* Probing lasts until the pipe is that full or something was lost; draining until it is
	 * drained. */
	if (cycle_gain[b->cycle] > GAIN(1))
		over = over && (b->round_lost_bytes > 0 ||
				ack->in_flight_bytes + ack->acked_bytes >= bdp(cc, GAIN(1.25)) ||
				ack->now_us - b->cycle_us > 4 * phase_us);
	else if (cycle_gain[b->cycle] < GAIN(1))
		over = over || ack->in_flight_bytes <= bdp(cc, GAIN(1));
	if (!over)
		return;
	b->cycle = (uint8_t)((b->cycle + 1) % ARRAY_SIZE(cycle_gain));
	b->cycle_us = ack->now_us;
	if (b->cycle == 0)
		lift_caps(b);
}

static void leave_probe_rtt(struct cc *cc, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;

	b->min_rtt_stamp_us = now_us;
	cc->cwnd_bytes = max_u64(cc->cwnd_bytes, b->saved_cwnd);
	if (b->full_pipe)
		enter_probe_bw(b, now_us);
	else
		enter_startup(b);
}

static void update_min_rtt(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;
	const bool expired = ack->now_us > b->min_rtt_stamp_us + MIN_RTT_WINDOW_US;

	if (ack->rtt_us > 0 && (ack->rtt_us <= b->min_rtt_us || expired)) {
		const bool tiny = ack->rtt_us < RTT_FLOOR_US || b->min_rtt_us < RTT_FLOOR_US;

		if (expired && ack->rtt_us > b->min_rtt_us && !tiny && b->mode != BBR_PROBE_RTT) {
			b->saved_cwnd = cc->cwnd_bytes;
			b->mode = BBR_PROBE_RTT;
			b->probe_rtt_end_us = 0;
		}
		b->min_rtt_us = ack->rtt_us;
		b->min_rtt_stamp_us = ack->now_us;
	}
	if (b->mode != BBR_PROBE_RTT)
		return;
	if (b->probe_rtt_end_us == 0) {
		if (ack->in_flight_bytes <= max_u64(bdp(cc, GAIN(0.5)), cwnd_min(cc)))
			b->probe_rtt_end_us = ack->now_us + PROBE_RTT_US;
	} else if (ack->now_us >= b->probe_rtt_end_us) {
		leave_probe_rtt(cc, ack->now_us);
	}
}

static void update_mode(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;

	check_full_pipe(b, ack->rate_app_limited);
	if (b->mode == BBR_STARTUP && b->full_pipe)
		b->mode = BBR_DRAIN;
	if (b->mode == BBR_DRAIN && ack->in_flight_bytes <= bdp(cc, GAIN(1)))
		enter_probe_bw(b, ack->now_us);
	if (b->mode == BBR_PROBE_BW)
		advance_cycle(cc, ack);
	update_min_rtt(cc, ack);
}

static void set_pacing_rate(struct cc *cc)
{
	const struct bbr *b = &cc->bbr;
	const uint64_t estimate = cc_max(&b->rate);
	uint64_t rate = gained(estimate, pacing_gain(b));

	if (estimate == 0)
		return;
	if (b->mode == BBR_PROBE_BW)
		rate = min_u64(rate, b->rate_cap);
	/* One per cent below, so that no queue builds from rounding alone. */
	rate -= rate / 100;
	if (b->full_pipe || rate > cc->pacing_rate)
		cc->pacing_rate = max_u64(rate, 2 * cc->mtu_bytes);
}

static void set_cwnd(struct cc *cc, const struct cc_ack *ack)
{
	const struct bbr *b = &cc->bbr;
	uint64_t target = bdp(cc, CWND_GAIN);

	target += 3 * quantum(cc) + (b->full_pipe ? cc_max(&b->extra) : 0);
	if (b->full_pipe)
		cc->cwnd_bytes = min_u64(cc->cwnd_bytes + ack->acked_bytes, target);
	else if (cc->cwnd_bytes < target || ack->delivered_bytes < cwnd_initial(cc))
		cc->cwnd_bytes += ack->acked_bytes;
	if (b->mode == BBR_PROBE_BW)
		cc->cwnd_bytes = min_u64(cc->cwnd_bytes, b->inflight_cap);
	cc->cwnd_bytes = min_u64(cc->cwnd_bytes, b->buffer_cap);
	if (b->mode == BBR_PROBE_RTT)
		cc->cwnd_bytes = min_u64(cc->cwnd_bytes, bdp(cc, GAIN(0.5)));
	cc->cwnd_bytes = max_u64(cc->cwnd_bytes, cwnd_min(cc));
}

static void on_ack(struct cc *cc, const struct cc_ack *ack)
{
	update_round(cc, ack);
	update_rate(&cc->bbr, ack);
	update_extra(cc, ack);
	if (ack->ce_packets > 0) {
		/* A mark says what a loss says, without the loss. */
		cc->bbr.round_lost_bytes += ack->ce_packets * cc->mtu_bytes;
		cc->bbr.round_lost_packets += (unsigned)ack->ce_packets;
	}
	update_mode(cc, ack);
	set_pacing_rate(cc);
	set_cwnd(cc, ack);
}

static void on_lost(struct cc *cc, uint64_t n_bytes, uint64_t in_flight_bytes, uint64_t now_us)
{
	(void)in_flight_bytes;
	(void)now_us;
	cc->bbr.round_lost_bytes += n_bytes;
	cc->bbr.round_lost_packets++;
}

static void on_spurious(struct cc *cc, uint64_t n_bytes)
{
	struct bbr *b = &cc->bbr;

	b->round_lost_bytes -= min_u64(b->round_lost_bytes, n_bytes);
	b->round_lost_packets -= b->round_lost_packets > 0;
	lift_caps(b);
}

static void on_collapse(struct cc *cc, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;

	(void)now_us;
	cc_max_reset(&b->rate, b->tick, cc_max(&b->rate) / 4);
	enter_startup(b);
	cc->cwnd_bytes = cwnd_initial(cc);
	cc->pacing_rate = max_u64(cc->pacing_rate / 4, 2 * cc->mtu_bytes);
}

static const char *mode(const struct cc *cc)
{
	static const char *const names[] = { "startup", "drain", "probe-bw", "probe-rtt" };

	static_assert(ARRAY_SIZE(names) == BBR_MODE_COUNT, "a name for each mode");
	return names[cc->bbr.mode];
}

static uint64_t bandwidth(const struct cc *cc)
{
	return cc_max(&cc->bbr.rate);
}

const struct cc_ops cc_bbr_ops = {
	.name = "bbr",
	.init = init,
	.on_ack = on_ack,
	.on_lost = on_lost,
	.on_spurious = on_spurious,
	.on_collapse = on_collapse,
	.mode = mode,
	.bandwidth = bandwidth,
};
