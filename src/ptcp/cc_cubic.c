/*
 * CUBIC (RFC 9438) with HyStart++ (RFC 9406), for those who want what others on the path run.
 *
 * Windows are in bytes and paced at 1.25 of window by round trip (twice in slow start), so that
 * they leave spread over it. CE is answered like loss, but milder (RFC 8511). A loss event whose
 * losses turn out spurious is undone.
 */
#include "ptcp/cc.h"

#define BETA_PERCENT      70
#define BETA_CE_PERCENT   85
#define C_PER_MILLE       400 /* segments per s^3 */
#define HYSTART_SAMPLES   8
#define HYSTART_MIN_US    4000
#define HYSTART_MAX_US    16000
#define CSS_DIVISOR       4 /* growth in conservative slow start */
#define CSS_ROUNDS        5
#define RTT_DEFAULT_US    100000
#define IDLE_RESTART_RTTS 8

static uint64_t cwnd_min(const struct cc *cc)
{
	return 2 * cc->mtu_bytes;
}

static uint64_t cwnd_initial(const struct cc *cc)
{
	return CC_INITIAL_PACKETS * cc->mtu_bytes;
}

static bool slow_start(const struct cc *cc)
{
	return cc->cwnd_bytes < cc->cubic.ssthresh;
}

static void set_pacing_rate(struct cc *cc, uint64_t srtt_us)
{
	const uint64_t rtt_us = max_u64(srtt_us > 0 ? srtt_us : RTT_DEFAULT_US, 100);
	const uint64_t rate = cc->cwnd_bytes * US_PER_S / rtt_us;

	cc->pacing_rate = max_u64(slow_start(cc) ? 2 * rate : rate + rate / 4, 2 * cc->mtu_bytes);
}

static void init(struct cc *cc, uint64_t srtt_us, uint64_t now_us)
{
	struct cubic *c = &cc->cubic;

	(void)now_us;
	c->ssthresh = NEVER_US;
	c->min_rtt_us = c->last_round_rtt_us = c->round_rtt_us = c->css_baseline_us = NEVER_US;
	cc->cwnd_bytes = cwnd_initial(cc);
	set_pacing_rate(cc, srtt_us);
}

/* The largest r with r^3 <= v. */
static uint64_t icbrt(uint64_t v)
{
	uint64_t root = 0;

	for (uint64_t bit = UINT64_C(1) << 20; bit != 0; bit >>= 1)
		if ((root | bit) * (root | bit) * (root | bit) <= v)
			root |= bit;
	return root;
}

/* RFC 9438, section 4.1: W(t) = C (t - K)^3 + W_max; times in ms. */
static uint64_t window_at(const struct cc *cc, uint64_t t_ms)
{
	const struct cubic *c = &cc->cubic;
	const uint64_t d_ms = min_u64(t_ms > c->k_ms ? t_ms - c->k_ms : c->k_ms - t_ms, 100000);
	/* d^3 is below 10^15, and in units of 10^-9 s^3. */
	const uint64_t delta =
		d_ms * d_ms * d_ms / 1000000 * C_PER_MILLE / 1000 * (uint64_t)cc->mtu_bytes / 1000;

	if (t_ms >= c->k_ms)
		return c->w_max + delta;
	return c->w_max > delta ? c->w_max - delta : 0;
}

static void start_epoch(struct cc *cc, uint64_t now_us)
{
	struct cubic *c = &cc->cubic;

	c->epoch_us = now_us;
	c->w_max = max_u64(c->w_max, cc->cwnd_bytes);
	c->w_reno = cc->cwnd_bytes;
	/* K = cbrt((W_max - cwnd) / C), in ms */
	const uint64_t segments_milli = (c->w_max - cc->cwnd_bytes) * 1000 / cc->mtu_bytes;
	c->k_ms = icbrt(min_u64(segments_milli, UINT64_C(1) << 30) * 1000000000 / C_PER_MILLE);
}

static void avoid_congestion(struct cc *cc, const struct cc_ack *ack)
{
	struct cubic *c = &cc->cubic;

	if (c->epoch_us == 0)
		start_epoch(cc, ack->now_us);
	const uint64_t rtt_us = c->min_rtt_us == NEVER_US ? ack->srtt_us : c->min_rtt_us;
	uint64_t target = window_at(cc, (ack->now_us - c->epoch_us + rtt_us) / 1000);

	target = min_u64(target, cc->cwnd_bytes + cc->cwnd_bytes / 2);
	/* Section 4.3: no slower than Reno with the same average; 9/17 = 3 (1 - beta) / (1 + beta).
	 */
	const uint64_t scaled = ack->acked_bytes * cc->mtu_bytes + c->reno_rest;
	const uint64_t per = cc->cwnd_bytes * 17 / 9;
	c->w_reno += scaled / per;
	c->reno_rest = scaled % per;
	if (target > cc->cwnd_bytes)
		cc->cwnd_bytes +=
			min_u64((target - cc->cwnd_bytes) * ack->acked_bytes / cc->cwnd_bytes,
				ack->acked_bytes);
	cc->cwnd_bytes = max_u64(cc->cwnd_bytes, c->w_reno);
}

/* RFC 9406, section 4.2: slow start ends, carefully, when round trips grow. */
static void hystart(struct cc *cc, const struct cc_ack *ack)
{
	struct cubic *c = &cc->cubic;

	if (ack->rtt_us > 0) {
		c->round_rtt_us = min_u64(c->round_rtt_us, ack->rtt_us);
		c->n_samples++;
	}
	const bool measured = c->n_samples >= HYSTART_SAMPLES && c->last_round_rtt_us != NEVER_US;
	if (measured && !c->css) {
		const uint64_t eta_us =
			min_u64(max_u64(c->last_round_rtt_us / 8, HYSTART_MIN_US), HYSTART_MAX_US);

		if (c->round_rtt_us >= c->last_round_rtt_us + eta_us) {
			c->css = true;
			c->css_baseline_us = c->round_rtt_us;
			c->n_css_rounds = 0;
		}
	} else if (measured && c->round_rtt_us < c->css_baseline_us) {
		c->css = false; /* it was noise */
	}
	if (ack->prior_delivered < c->round_end_bytes)
		return;
	c->round_end_bytes = ack->delivered_bytes;
	c->last_round_rtt_us = c->round_rtt_us;
	c->round_rtt_us = NEVER_US;
	c->n_samples = 0;
	if (c->css && ++c->n_css_rounds >= CSS_ROUNDS)
		c->ssthresh = cc->cwnd_bytes;
}

/* Once per round trip: of what left before the last reduction nothing counts any more. */
static void reduce(struct cc *cc, uint64_t percent)
{
	struct cubic *c = &cc->cubic;

	if (c->reduced)
		return;
	c->reduced = true;
	if (percent == BETA_PERCENT) {
		c->undo_cwnd = cc->cwnd_bytes;
		c->undo_ssthresh = c->ssthresh;
		c->undo_w_max = c->w_max;
		c->undo_bytes = 0;
	}
	/* Fast convergence, section 4.7. */
	c->w_max = cc->cwnd_bytes < c->w_max ? cc->cwnd_bytes * (100 + BETA_PERCENT) / 200
					     : cc->cwnd_bytes;
	cc->cwnd_bytes = max_u64(cc->cwnd_bytes * percent / 100, cwnd_min(cc));
	c->ssthresh = cc->cwnd_bytes;
	c->epoch_us = 0;
	c->css = false;
}

static void on_ack(struct cc *cc, const struct cc_ack *ack)
{
	struct cubic *c = &cc->cubic;

	c->rate = ack->rate > 0 ? ack->rate : c->rate;
	c->delivered = ack->delivered_bytes;
	if (ack->rtt_us > 0)
		c->min_rtt_us = min_u64(c->min_rtt_us, ack->rtt_us);
	/* A round after the reduction, what left since is judged. */
	if (c->reduced && c->reduced_bytes == 0)
		c->reduced_bytes = max_u64(ack->delivered_bytes, 1);
	if (c->reduced && c->reduced_bytes != 0 && ack->prior_delivered >= c->reduced_bytes) {
		c->reduced = false;
		c->reduced_bytes = 0;
	}
	if (cc_marks(cc, ack) > 0)
		reduce(cc, BETA_CE_PERCENT);
	else if (!c->reduced && !ack->rate_app_limited) {
		if (slow_start(cc)) {
			hystart(cc, ack);
			cc->cwnd_bytes +=
				c->css ? ack->acked_bytes / CSS_DIVISOR : ack->acked_bytes;
		} else {
			avoid_congestion(cc, ack);
		}
	}
	set_pacing_rate(cc, ack->srtt_us);
}

static void on_lost(struct cc *cc, uint64_t n_bytes, uint64_t in_flight_bytes, uint64_t now_us)
{
	(void)in_flight_bytes;
	(void)now_us;
	reduce(cc, BETA_PERCENT);
	cc->cubic.undo_bytes += n_bytes;
}

static void on_spurious(struct cc *cc, uint64_t n_bytes)
{
	struct cubic *c = &cc->cubic;

	if (c->undo_cwnd == 0)
		return;
	c->undo_bytes -= min_u64(c->undo_bytes, n_bytes);
	if (c->undo_bytes > 0)
		return;
	cc->cwnd_bytes = max_u64(cc->cwnd_bytes, c->undo_cwnd);
	c->ssthresh = c->undo_ssthresh;
	c->w_max = c->undo_w_max;
	c->undo_cwnd = c->epoch_us = 0;
}

/* RFC 5681, section 4.1, milder: the window halves for each eight round trips without a packet. */
static void on_restart(struct cc *cc, uint64_t idle_us, uint64_t now_us)
{
	struct cubic *c = &cc->cubic;
	const uint64_t rtt_us = c->min_rtt_us == NEVER_US ? RTT_DEFAULT_US : c->min_rtt_us;
	const uint64_t step_us = max_u64(IDLE_RESTART_RTTS * rtt_us, 200 * US_PER_MS);
	const uint64_t n = min_u64(idle_us / step_us, 30);

	(void)now_us;
	c->epoch_us = 0;
	if (n == 0 || cc->cwnd_bytes <= cwnd_initial(cc))
		return;
	c->ssthresh = max_u64(min_u64(c->ssthresh, cc->cwnd_bytes), cc->cwnd_bytes * 3 / 4);
	cc->cwnd_bytes = max_u64(cc->cwnd_bytes >> n, cwnd_initial(cc));
	set_pacing_rate(cc, rtt_us);
}

static void on_collapse(struct cc *cc, uint64_t now_us)
{
	struct cubic *c = &cc->cubic;

	(void)now_us;
	c->ssthresh = max_u64(cc->cwnd_bytes * BETA_PERCENT / 100, cwnd_min(cc));
	c->w_max = cc->cwnd_bytes;
	c->epoch_us = c->undo_cwnd = 0;
	cc->cwnd_bytes = cwnd_min(cc);
	set_pacing_rate(cc, c->min_rtt_us == NEVER_US ? 0 : c->min_rtt_us);
}

static const char *mode(const struct cc *cc)
{
	if (!slow_start(cc))
		return "avoidance";
	return cc->cubic.css ? "careful-start" : "slow-start";
}

static uint64_t bandwidth(const struct cc *cc)
{
	return cc->cubic.rate;
}

const struct cc_ops cc_cubic_ops = {
	.name = "cubic",
	.init = init,
	.on_ack = on_ack,
	.on_lost = on_lost,
	.on_spurious = on_spurious,
	.on_restart = on_restart,
	.on_collapse = on_collapse,
	.mode = mode,
	.bandwidth = bandwidth,
};
