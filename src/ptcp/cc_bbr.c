/*
 * A model-based controller of the BBR family (draft-ietf-ccwg-bbr; Cardwell et al., ACM Queue
 * 14(5), 2016), for a tunnel over bad links: it tells random loss from congestion, and keeps queues
 * short.
 *
 * As there: bandwidth is the most that was delivered, over the last two cycles; STARTUP, DRAIN,
 * then cycles of DOWN, CRUISE and UP, where UP comes every 2 to 3 s, or after 63 round trips where
 * that is sooner, so that others have time to grow; PROBE_RTT with half a BDP when the least round
 * trip was not seen for 5 s; bounds on what is in flight, learnt by probing (inflight_hi) or
 * lasting until the next probe (rate, inflight_lo).
 *
 * Different from there:
 *
 * - Loss is taken for noise, and its usual share is learnt, as long as round trips do not show a
 *   queue. It is congestion where there is a queue, or while we probe, and more is lost than usual;
 *   or where far more is lost than any link loses by itself.
 * - In CRUISE a queue that stands for a whole round trip is drained: the rate goes a little below
 *   what was delivered, and then up again by small steps. So the path is used fully, and the queue
 *   is nearly empty. Where the queue does not shrink by that, somebody else fills it; then we hold
 *   our rate, and where it is long or overflows, COMPETE for our share.
 * - Paths with a round trip below 1 ms are limited by CPUs, not by the network: the queue is no
 *   signal there, the window is computed for 1 ms, and PROBE_RTT is left out.
 */
#include "ptcp/cc.h"

#define GAIN(x)            ((uint64_t)((x)*256))
#define STARTUP_GAIN       GAIN(2.77)
#define STARTUP_REPAIR     10 /* bytes more for each that is lost */
#define DRAIN_GAIN         GAIN(0.5)
#define DRAIN_ROUNDS       6 /* what is still there is not ours */
#define DOWN_GAIN          GAIN(0.8)
#define UP_GAIN            GAIN(1.25)
#define CWND_GAIN          GAIN(2)
#define UP_CWND_GAIN       GAIN(2.25)
#define BETA               GAIN(0.7)  /* after loss */
#define BETA_CE            GAIN(0.85) /* after a mark, which comes earlier */
#define HEADROOM           GAIN(0.85)
#define TICKS_WINDOW       2
#define EXTRA_WINDOW       10
#define TICK_MIN_US        (200 * US_PER_MS)
#define PROBE_WAIT_US      (2 * US_PER_S)
#define PROBE_WAIT_ROUNDS  63
#define PROBE_FIRST_ROUNDS 6 /* after STARTUP, which ends early rather than late */
#define EAGER_ROUNDS       4
#define MIN_RTT_STALE_US   (5 * US_PER_S)
#define PROBE_RTT_US       (200 * US_PER_MS)
#define RTT_FLOOR_US       1000
#define PACKETS_TINY_US    100 /* for two packets: a slower link has a queue, however near it is */
#define PHASE_MIN_US       2000
#define QUEUE_MIN_US       2000 /* less is not called a queue */
#define QUEUE_SAMPLES      16   /* round trips that agree on it, to end STARTUP at once */
#define STUCK_ROUNDS       5
#define COMPETING_US       (10 * US_PER_S)
#define QUANTUM_MAX_BYTES  65536
#define EXTRA_MIN_US       2000 /* of the estimated rate; or one round trip */
#define EXCESS_PERCENT     2    /* more loss than usual, to be taken for congestion */
#define EXCESS_PACKETS     8
#define NOISE_MAX_PERCENT  15
#define BUFFER_CAP_MIN     (4 * QUANTUM_MAX_BYTES)
#define BUFFER_RTT_US      (10 * US_PER_MS) /* on longer paths such loss is chance */
#define BUFFER_GROW_US     (100 * US_PER_MS)
#define CALM_ROUNDS        8
#define FULL_ROUNDS        3 /* that do not bring a quarter more; with a queue, one */
#define LOW_ROUNDS         5
#define STEP_PACKETS       4               /* per round trip, when the rate goes up again */
#define SHY_US             (10 * US_PER_S) /* after loss or marks, before more than the best is tried */
#define IDLE_US            (5 * US_PER_S)
#define FAIR_BETA          GAIN(0.7)
#define FAIR_BETA_POOR     GAIN(0.85)
#define FAIR_NONE          GAIN(0.02)
#define FAIR_POOR          GAIN(0.42) /* of the path; less is less than a fair share */
#define FAIR_RICH          GAIN(0.5)
#define FAIR_TOO_RICH      GAIN(0.55)
#define FAIR_ALONE         GAIN(0.85)
#define FAIR_QUEUE         5 /* tolerances: a queue that loss need not prove */
#define FAIR_QUIET_US      (30 * US_PER_S)
#define FAIR_EMPTY_ROUNDS  6
#define FAIR_PACING        GAIN(1.1)
#define DIP_GAIN           GAIN(0.75)
#define DIP_ROUNDS         4
#define DIP_STEADY         32 /* that part of a round trip may differ before and after */
#define DIP_WAIT_US        (3 * US_PER_S)

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

/* While we try a little more than what was measured at best. */
static uint64_t rate_most(const struct bbr *b)
{
	return cc_max(&b->rate) + cc_max(&b->rate) / 4;
}

/* What the path carries as far as we know, short-term bounds included. */
static uint64_t rate_now(const struct bbr *b)
{
	return b->bounds.rate == NEVER_US ? cc_max(&b->rate)
					  : min_u64(rate_most(b), b->bounds.rate);
}

static uint64_t bdp_of(const struct cc *cc, uint64_t rate, uint64_t gain)
{
	const struct bbr *b = &cc->bbr;

	if (b->min_rtt_us == NEVER_US || rate == 0)
		return gained(cwnd_initial(cc), gain);
	return gained(rate * max_u64(b->min_rtt_us, RTT_FLOOR_US) / US_PER_S, gain);
}

static uint64_t bdp(const struct cc *cc, uint64_t gain)
{
	return bdp_of(cc, cc_max(&cc->bbr.rate), gain);
}

static void lift_bounds(struct bbr *b)
{
	b->bounds.rate = b->bounds.inflight_lo = NEVER_US;
	b->undo_bytes = 0;
}

/* ---- queue -------------------------------------------------------------------------------------
 */

static bool is_tiny(const struct bbr *b)
{
	return (b->min_rtt_us < RTT_FLOOR_US && b->packets_us < PACKETS_TINY_US) ||
	       b->min_rtt_us == NEVER_US;
}

/* More than this above the least round trip is a queue. */
static uint64_t tolerance_us(const struct bbr *b)
{
	return max_u64(max_u64(b->min_rtt_us / 16, QUEUE_MIN_US), b->packets_us);
}

static uint64_t queue_us(const struct bbr *b, uint64_t rtt_us)
{
	return is_tiny(b) || rtt_us == NEVER_US || rtt_us < b->min_rtt_us ? 0
									  : rtt_us - b->min_rtt_us;
}

static void note_span(struct bbr *b, const struct cc_ack *ack)
{
	const uint64_t span_us =
		b->min_rtt_us == NEVER_US ? PHASE_MIN_US : max_u64(b->min_rtt_us / 4, PHASE_MIN_US);

	if (ack->rtt_us == 0)
		return;
	if (ack->now_us - b->span_us > span_us) {
		b->span_us = ack->now_us;
		b->span_min_us[1] = b->span_min_us[0];
		b->span_min_us[0] = NEVER_US;
		b->n_span[1] = b->n_span[0];
		b->n_span[0] = 0;
	}
	b->n_span[0]++;
	b->now.n_rtt++;
	b->now.rtt_sum_us += ack->rtt_us;
	b->span_min_us[0] = min_u64(b->span_min_us[0], ack->rtt_us);
	b->now.min_rtt_us = min_u64(b->now.min_rtt_us, ack->rtt_us);
}

static uint64_t queue_now_us(const struct bbr *b)
{
	return queue_us(b, min_u64(b->span_min_us[0], b->span_min_us[1]));
}

/* ---- beside those who fill the queue ------------------------------------------------------------
 *
 * Who keeps queues short starves beside who fills them. Where a queue stands that is not ours, we
 * have a window instead, that grows by what CUBIC's (RFC 9438) grows on average and is cut when
 * something is lost. Such windows take minutes to become equal. But all who wait in one queue see
 * it shrink by what one of them leaves out: so every few seconds our window dips for a round trip,
 * and the part of the round trip that goes with it tells our share of the path. With less than a
 * fair one the window grows faster, and is cut by less; with more it does not grow.
 */

static void enter(struct bbr *b, enum bbr_mode mode, uint64_t now_us)
{
	b->mode = (uint8_t)mode;
	b->phase_us = now_us;
	b->phase_round = b->round;
}

static void enter_probe_rtt(struct cc *cc, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;

	b->saved_cwnd = cc->cwnd_bytes;
	b->probe_rtt_end_us = 0;
	b->probe_min_us = NEVER_US;
	enter(b, BBR_PROBE_RTT, now_us);
}

static uint64_t mean_rtt_us(const struct bbr *b)
{
	return b->now.n_rtt > 0 ? max_u64(b->now.rtt_sum_us / b->now.n_rtt, 1) : 0;
}

static void compete(struct cc *cc, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;

	memset(&b->fair, 0, sizeof(b->fair));
	b->fair.window = max_u64(gained(b->now.in_flight, FAIR_BETA), cwnd_min(cc));
	b->fair.loss_us = b->fair.dip_us = now_us;
	b->competing = false;
	b->n_stuck = 0;
	b->bounds.inflight_hi = NEVER_US;
	lift_bounds(b);
	enter(b, BBR_COMPETE, now_us);
}

/* The share of the path that we have, of 256; as long as it is unknown, a fair one. */
static uint64_t share_of(const struct bbr *b, uint64_t rate)
{
	return b->fair.capacity == 0 ? FAIR_POOR : min_u64(rate * 256 / b->fair.capacity, 256);
}

/*
 * The rounds of a dip. What leaves in the first has less of ours in front of it, as is seen in the
 * second; in the fourth all is again as it was. What others changed meanwhile is taken for steady,
 * so the mean of before and after is what would have been without the dip. True when the share is
 * known.
 */
static bool dip(struct bbr *b, uint64_t *ret_share, uint64_t now_us)
{
	const uint64_t rtt_us = mean_rtt_us(b);

	if (b->fair.step == 1)
		b->fair.before_us = rtt_us;
	else if (b->fair.step == 2)
		b->fair.dipped_us = rtt_us;
	if (b->fair.step++ < DIP_ROUNDS)
		return false;
	b->fair.step = 0;

	const uint64_t us = (b->fair.before_us + rtt_us) / 2;
	if (max_u64(b->fair.before_us, rtt_us) > us + us / DIP_STEADY)
		return false;
	const uint64_t less_us = us - min_u64(us, b->fair.dipped_us);
	const uint64_t share = min_u64(256 * less_us * 256 / (us * (256 - DIP_GAIN)), 256);
	const uint64_t capacity = b->fair.full * US_PER_S / us * 256 / max_u64(share, 8);
	b->fair.dip_us = now_us + DIP_WAIT_US;
	b->fair.capacity = b->fair.capacity == 0 ? capacity : (b->fair.capacity + capacity) / 2;
	*ret_share = share;
	return true;
}

static uint64_t icbrt(uint64_t v)
{
	uint64_t root = 0;

	for (uint64_t bit = UINT64_C(1) << 20; bit != 0; bit >>= 1)
		if ((root | bit) * (root | bit) * (root | bit) <= v)
			root |= bit;
	return root;
}

/*
 * By a round. Between two cuts CUBIC with a window of w packets grows by 0.3 w within
 * cbrt(0.3 w / 0.4) seconds: on average 0.33 w^(2/3) a second.
 */
static void grow_window(struct cc *cc, uint64_t share, bool queued)
{
	struct bbr *b = &cc->bbr;
	uint64_t *const window = &b->fair.window;
	const uint64_t n = min_u64(*window / cc->mtu_bytes, 1000000);
	const uint64_t milli_per_s = icbrt(n * n * 1000000) * 330 / 100;

	if (queued && share >= FAIR_TOO_RICH)
		*window = max_u64(*window - *window / 32, cwnd_min(cc));
	if (queued && share >= FAIR_RICH)
		return;
	*window += max_u64(milli_per_s * cc->mtu_bytes / 1000 * mean_rtt_us(b) / US_PER_S,
			   cc->mtu_bytes / 2);
	if (!queued || share < FAIR_POOR)
		*window += *window / 16;
}

static void cut_window(struct cc *cc, uint64_t share, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;
	const uint64_t used = min_u64(b->fair.window, b->now.in_flight);

	b->fair.undo = b->fair.window;
	b->undo = b->bounds;
	b->undo_bytes = b->undo_left_bytes = b->now.lost_bytes;
	b->fair.window =
		max_u64(gained(used, share < FAIR_POOR ? FAIR_BETA_POOR : FAIR_BETA), cwnd_min(cc));
	b->fair.loss_us = now_us;
	b->fair.step = 0;
	b->calm_round = b->round + 1;
}

/* Once per round. */
static void judge_competition(struct cc *cc, uint64_t rate, bool lost, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;
	const bool queued = queue_us(b, b->now.min_rtt_us) > tolerance_us(b);
	const bool calm = (int32_t)(b->round - b->calm_round) > 0;
	uint64_t share = share_of(b, rate);

	/* A dip is no reason for an empty queue, unless it was short before. */
	if (b->fair.step == 0)
		b->fair.n_empty = queued ? 0 : b->fair.n_empty + 1;
	if (b->fair.n_empty >= FAIR_EMPTY_ROUNDS || (b->fair.step == 2 && !queued)) {
		enter(b, BBR_DRAIN, now_us);
	} else if (now_us - b->fair.loss_us > FAIR_QUIET_US) {
		enter_probe_rtt(cc, now_us);
	} else if (calm && (lost || b->now.ce_packets > 0)) {
		cut_window(cc, share, now_us);
	} else if (b->now.n_rtt == 0) {
		b->fair.step = 0;
	} else if (b->fair.step > 0) {
		if (!dip(b, &share, now_us))
			return;
		if (share <= FAIR_NONE) { /* no queue: the path became longer */
			b->min_rtt_us = b->now.min_rtt_us;
			b->min_rtt_stamp_us = now_us;
			enter(b, BBR_DRAIN, now_us);
		} else if (share >= FAIR_ALONE) { /* our own queue */
			enter_probe_rtt(cc, now_us);
		}
	} else if (calm && now_us >= b->fair.dip_us) {
		b->fair.step = 1;
		b->fair.full = min_u64(b->fair.window, b->now.in_flight);
	} else if (b->now.in_flight + quantum(cc) >= b->fair.window) {
		grow_window(cc, share, queued);
	}
}

/* ---- keeping it short ---------------------------------------------------------------------------
 */

/* Slow where the last queue began, faster below, and after a while above. */
static unsigned n_steps(const struct bbr *b)
{
	if (b->bounds.rate < b->knee_rate - b->knee_rate / 8)
		return b->n_calm;
	return b->n_calm > CALM_ROUNDS ? b->n_calm - CALM_ROUNDS : 1;
}

/*
 * A standing queue, at the end of a round: a little below what was delivered, so that it drains
 * within about four rounds. Without one: up by steps that grow as long as there is none, the same
 * for all who share the path, so that they come nearer to each other. Who was held below his best
 * by a queue goes on beyond it, slowly: it may have been less than his share.
 */
static void hold_queue_short(struct cc *cc, uint64_t delivered_rate, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;
	const uint64_t rtt_us = max_u64(b->now.min_rtt_us, 1), queue = queue_us(b, rtt_us);

	if (queue <= tolerance_us(b)) {
		const uint64_t step = STEP_PACKETS * cc->mtu_bytes * US_PER_S / rtt_us;
		const uint64_t base = min_u64(b->bounds.rate, rate_most(b));

		b->competing = false;
		b->n_stuck = 0;
		b->queue_before_us = 0;
		b->n_calm++;
		if (b->bounds.rate < cc_max(&b->rate))
			b->bounds.rate = base + n_steps(b) * min_u64(step, base / 4);
		else if (b->bounds.rate != NEVER_US && !b->now.app_limited &&
			 now_us >= b->punished_us + SHY_US)
			b->bounds.rate = min_u64(base + min_u64(step / STEP_PACKETS, base / 32),
						 rate_most(b));
		else
			b->bounds.rate = NEVER_US;
		return;
	}
	if (b->n_calm > 0)
		b->knee_rate = delivered_rate;
	b->n_calm = 0;
	/* A queue that a lower rate does not drain is somebody else's. */
	b->n_stuck = queue + max_u64(tolerance_us(b) / 4, queue / 8) >= b->queue_before_us
			     ? b->n_stuck + 1
			     : 0;
	b->queue_before_us = queue;
	if (b->n_stuck >= STUCK_ROUNDS &&
	    queue > max_u64(FAIR_QUEUE * tolerance_us(b), b->min_rtt_us / 2)) {
		compete(cc, now_us);
		return;
	}
	if (b->n_stuck >= STUCK_ROUNDS && !b->competing) {
		b->competing = true;
		b->competing_until_us = now_us + COMPETING_US;
	} else if (b->competing && now_us >= b->competing_until_us) {
		b->competing = false;
		b->n_stuck = 0;
	}
	if (b->competing || b->now.app_limited)
		return;
	const uint64_t less = min_u64(GAIN(0.15), 256 * queue / (3 * rtt_us));
	b->bounds.rate =
		max_u64(gained(delivered_rate, 256 - less), cc->mtu_bytes * US_PER_S / rtt_us);
}

/* ---- loss
 * ----------------------------------------------------------------------------------------- */

static uint64_t isqrt(uint64_t v)
{
	uint64_t root = 0;

	for (uint64_t bit = UINT64_C(1) << 20; bit != 0; bit >>= 1)
		if ((root | bit) * (root | bit) <= v)
			root |= bit;
	return root;
}

/*
 * In this round so far: more than `percent` above what the path loses by itself, and by more than
 * chance explains: two deviations of as many losses as are expected.
 */
static bool lost_more_than(const struct cc *cc, unsigned percent)
{
	const struct bbr *b = &cc->bbr;

	if (b->now.lost_packets < EXCESS_PACKETS)
		return false;
	const uint64_t sent = b->now.acked_bytes + b->now.lost_bytes;
	const uint64_t share = b->noise + b->noise / 2 + UINT64_C(100) * percent;
	const uint64_t n_expected = sent * share / (10000 * (uint64_t)cc->mtu_bytes);
	return b->now.lost_packets > n_expected + 2 * isqrt(n_expected);
}

/* More than chance explains. */
static bool lost_at_all(const struct cc *cc)
{
	const struct bbr *b = &cc->bbr;
	const uint64_t sent = b->now.acked_bytes + b->now.lost_bytes;
	const uint64_t n_expected = sent * b->noise * 3 / 2 / (10000 * (uint64_t)cc->mtu_bytes);

	return b->now.lost_packets > n_expected + 2 * isqrt(n_expected);
}

/*
 * The share that is lost without a queue and without our probing. Follows a rise slowly, for
 * congestion of the shortest queues looks the same.
 */
static void learn_noise(struct bbr *b)
{
	const uint64_t sent = b->now.acked_bytes + b->now.lost_bytes;

	if (sent == 0 || b->mode == BBR_PROBE_UP || b->mode == BBR_DRAIN ||
	    queue_us(b, b->now.min_rtt_us) > tolerance_us(b))
		return;
	const unsigned share =
		(unsigned)min_u64(b->now.lost_bytes * 10000 / sent, NOISE_MAX_PERCENT * 100);
	b->noise = (7 * b->noise + share) / 8;
}

/* The path is full: less, until the next probe. Once per round. */
static void punish(struct cc *cc, uint64_t beta)
{
	struct bbr *b = &cc->bbr;
	const uint64_t delivered = b->now.acked_bytes;

	if (b->now.punished)
		return;
	b->now.punished = true;
	b->punished_us = b->now.start_us;
	if (b->undo_bytes == 0) {
		b->undo = b->bounds;
		b->undo_bytes = b->undo_left_bytes = b->now.lost_bytes;
	}
	/* Marks alone never take more than a window that keeps acknowledgements coming. */
	const uint64_t least = beta == BETA_CE && b->min_rtt_us != NEVER_US
				       ? cwnd_min(cc) * US_PER_S / max_u64(b->min_rtt_us, 1)
				       : 2 * cc->mtu_bytes;

	b->bounds.rate = max_u64(gained(rate_now(b), beta), min_u64(least, rate_now(b)));
	b->bounds.inflight_lo = max_u64(
		max_u64(delivered, gained(min_u64(b->bounds.inflight_lo, cc->cwnd_bytes), beta)),
		cwnd_min(cc));
}

/*
 * With several times the BDP in flight a queue of ours stands somewhere, and what is lost
 * overflowed it: on the shortest paths that is the receiver's socket buffer, whenever its process
 * does not run. Stay below what was too much, and try a little more from time to time.
 */
static void judge_buffer(struct cc *cc, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;
	const uint64_t sent = b->now.acked_bytes + b->now.lost_bytes;
	const uint64_t true_bdp =
		b->min_rtt_us == NEVER_US ? 0 : cc_max(&b->rate) * b->min_rtt_us / US_PER_S;

	if (b->min_rtt_us < BUFFER_RTT_US && b->now.lost_packets >= EXCESS_PACKETS &&
	    b->now.lost_bytes * 100 > sent && b->now.in_flight > 2 * true_bdp + BUFFER_CAP_MIN) {
		b->buffer_cap =
			max_u64(gained(b->now.in_flight, GAIN(0.7)), 2 * true_bdp + BUFFER_CAP_MIN);
		b->buffer_cap_us = now_us;
	} else if (b->buffer_cap != NEVER_US && now_us - b->buffer_cap_us > BUFFER_GROW_US) {
		b->buffer_cap += b->buffer_cap / 16;
		b->buffer_cap_us = now_us;
		if (b->buffer_cap > 2 * cc->cwnd_bytes)
			b->buffer_cap = NEVER_US;
	}
}

/* ---- rounds
 * --------------------------------------------------------------------------------------- */

static void advance_tick(struct bbr *b, uint64_t now_us)
{
	if (now_us - b->tick_us < TICK_MIN_US)
		return;
	b->tick++;
	b->tick_us = now_us;
}

/*
 * When what left while probing has come. Whose rate grew by nearly as much as he pushed has a small
 * part of the path, or finds it not full: he goes on soon, and until he sees a queue.
 */
static void judge_probe(struct bbr *b, uint64_t now_us)
{
	b->eager = b->up_found_rate > b->up_first_rate + b->up_first_rate / 8;
	if (b->eager)
		b->probe_us = min_u64(b->probe_us, now_us + EAGER_ROUNDS * b->min_rtt_us);
}

static void judge_round(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;
	const uint64_t passed_us = max_u64(ack->now_us - b->now.start_us, 1);
	const uint64_t rate = (ack->delivered_bytes - b->now.start_bytes) * US_PER_S / passed_us;
	const bool queued = queue_us(b, b->now.min_rtt_us) > tolerance_us(b);

	judge_buffer(cc, ack->now_us);
	const bool lost = lost_at_all(cc);
	if (b->mode == BBR_COMPETE) {
		judge_competition(cc, rate, lost, ack->now_us);
		if (ack->now_us - b->tick_us > PROBE_WAIT_US)
			advance_tick(b, ack->now_us);
		return;
	}
	if (lost && queued && b->competing) {
		compete(cc, ack->now_us);
		return;
	}
	/* Far less comes than was measured once, and not for a queue: whatever the reason, it is
	 * what there is. */
	b->n_low = !queued && !b->now.app_limited && rate < rate_now(b) / 4 * 3 ? b->n_low + 1 : 0;
	if (b->n_low >= LOW_ROUNDS) {
		cc_max_reset(&b->rate, b->tick, rate);
		b->n_low = 0;
	}
	if (b->mode == BBR_PROBE_CRUISE && b->round == b->calm_round + 1)
		judge_probe(b, ack->now_us);
	/* What probing cost is not to be paid for twice. */
	const bool calm = (int32_t)(b->round - b->calm_round) > 0;
	if (calm && (b->mode == BBR_PROBE_CRUISE || b->mode == BBR_PROBE_DOWN)) {
		if (b->now.ce_packets > 0)
			punish(cc, BETA_CE);
		else if (queued ? lost_more_than(cc, EXCESS_PERCENT)
				: lost_more_than(cc, NOISE_MAX_PERCENT))
			punish(cc, BETA);
	}
	if (calm && b->mode == BBR_PROBE_CRUISE && !is_tiny(b) && b->now.min_rtt_us != NEVER_US &&
	    !b->now.punished)
		hold_queue_short(cc, rate, ack->now_us);
	learn_noise(b);
}

static bool update_round(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;

	b->now.acked_bytes += ack->acked_bytes;
	b->now.in_flight = max_u64(b->now.in_flight, ack->in_flight_bytes + ack->acked_bytes);
	b->now.app_limited |= ack->rate_app_limited;
	b->now.ce_packets += (unsigned)cc_marks(cc, ack);
	note_span(b, ack);
	if (ack->prior_delivered < b->now.end_bytes)
		return false;
	judge_round(cc, ack);
	b->round++;
	b->last_in_flight = b->now.in_flight;
	b->was_app_limited = b->now.app_limited;
	memset(&b->now, 0, sizeof(b->now));
	b->now.end_bytes = b->now.start_bytes = ack->delivered_bytes;
	b->now.start_us = ack->now_us;
	b->now.min_rtt_us = NEVER_US;
	return true;
}

static void update_rate(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;

	if (ack->rate == 0)
		return;
	if (!ack->rate_app_limited || ack->rate >= cc_max(&b->rate))
		cc_max_update(&b->rate, TICKS_WINDOW, b->tick, ack->rate);
	b->up_found_rate = max_u64(b->up_found_rate, ack->rate);
	b->packets_us = 2 * cc->mtu_bytes * US_PER_S / max_u64(cc_max(&b->rate), 1);
}

/* How much more came than the rate explains, since the last time it fell behind. */
static void update_extra(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;
	const uint64_t rate = rate_now(b);
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
	cc_max_update(&b->extra, EXTRA_WINDOW, b->round,
		      min_u64(extra, rate * max_u64(rtt_us, EXTRA_MIN_US) / US_PER_S));
}

/* ---- modes
 * ---------------------------------------------------------------------------------------- */

static void enter_startup(struct bbr *b, uint64_t now_us)
{
	enter(b, BBR_STARTUP, now_us);
	b->full_pipe = b->competing = false;
	b->eager = true;
	b->n_full = b->n_stuck = 0;
	b->full_rate = 0;
	b->bounds.inflight_hi = NEVER_US;
	lift_bounds(b);
}

/* The time of the next probe differs among those who share a path, as far as their clocks do. */
static void enter_down(struct bbr *b, uint64_t now_us)
{
	const bool first = b->mode == BBR_DRAIN;
	const uint64_t wait_us = PROBE_WAIT_US + now_us * UINT64_C(2654435761) % US_PER_S;

	enter(b, BBR_PROBE_DOWN, now_us);
	b->calm_round = b->round + 1;
	b->n_calm = 0;
	b->probe_us =
		now_us + (first ? min_u64(wait_us, PROBE_FIRST_ROUNDS * b->min_rtt_us) : wait_us);
	b->probe_round = b->round + PROBE_WAIT_ROUNDS;
}

static void enter_up(struct bbr *b, uint64_t now_us)
{
	enter(b, BBR_PROBE_UP, now_us);
	advance_tick(b, now_us);
	b->up_first_rate = b->up_rate = rate_now(b);
	b->up_found_rate = 0;
	b->bounds.inflight_lo = NEVER_US;
	b->undo_bytes = 0;
}

static void startup(struct cc *cc, const struct cc_ack *ack, bool round_start)
{
	struct bbr *b = &cc->bbr;
	const uint64_t rate = cc_max(&b->rate);
	const bool queued = queue_now_us(b) > 2 * tolerance_us(b);

	/* Slow links see few round trips, but then packets that are lost. */
	if (queued &&
	    (b->n_span[0] + b->n_span[1] >= QUEUE_SAMPLES || lost_more_than(cc, EXCESS_PERCENT)))
		b->full_pipe = true;
	if (round_start && !ack->rate_app_limited && 4 * b->last_in_flight >= cc->cwnd_bytes) {
		if (rate >= b->full_rate + b->full_rate / 4) {
			b->full_rate = rate;
			b->n_full = 0;
		} else {
			b->n_full += queued ? FULL_ROUNDS : 1;
		}
		b->full_pipe = b->full_pipe || b->n_full >= FULL_ROUNDS;
	}
	if (b->full_pipe)
		enter(b, BBR_DRAIN, ack->now_us);
}

/*
 * The end of probing: the path is full, as far as queue, loss and marks say, or the rate does not
 * grow any more.
 */
static void probe_up(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;
	const uint64_t in_flight = ack->in_flight_bytes + ack->acked_bytes;
	const uint64_t phase_us = max_u64(is_tiny(b) ? 0 : b->min_rtt_us, PHASE_MIN_US);
	const uint64_t rate = b->up_found_rate;

	if (b->now.ce_packets > 0 || lost_more_than(cc, EXCESS_PERCENT)) {
		b->undo = b->bounds;
		b->undo_bytes = b->undo_left_bytes = b->now.lost_bytes;
		b->bounds.inflight_hi =
			max_u64(in_flight + b->now.lost_bytes / 2, bdp_of(cc, rate_now(b), BETA));
		b->now.punished = true;
		enter_down(b, ack->now_us);
		return;
	}
	if (b->bounds.inflight_hi != NEVER_US && in_flight + quantum(cc) >= b->bounds.inflight_hi)
		b->bounds.inflight_hi += ack->acked_bytes / 4;
	if (ack->now_us - b->phase_us < phase_us)
		return;
	/* Found more: go on from there. */
	if (rate > b->up_rate + b->up_rate / 16 && queue_now_us(b) <= tolerance_us(b)) {
		b->up_rate = rate;
		if (b->bounds.rate != NEVER_US)
			b->bounds.rate = max_u64(b->bounds.rate, rate);
		b->phase_us = ack->now_us;
		return;
	}
	if ((in_flight >= bdp_of(cc, rate_now(b), GAIN(1.2)) &&
	     (!b->eager || queue_now_us(b) > tolerance_us(b))) ||
	    queue_now_us(b) > 2 * tolerance_us(b) || ack->now_us - b->phase_us > 4 * phase_us)
		enter_down(b, ack->now_us);
}

static void leave_probe_rtt(struct cc *cc, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;

	if (b->min_rtt_stamp_us < b->phase_us && b->probe_min_us != NEVER_US) {
		b->min_rtt_us = min_u64(b->probe_min_us, b->probe_min_before_us);
		b->probe_min_before_us = b->probe_min_us;
	}
	b->min_rtt_stamp_us = now_us;
	cc->cwnd_bytes = max_u64(cc->cwnd_bytes, b->saved_cwnd);
	if (b->full_pipe)
		enter_down(b, now_us);
	else
		enter_startup(b, now_us);
}

static void probe_rtt(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;

	if (b->probe_rtt_end_us == 0) {
		if (ack->in_flight_bytes <=
		    max_u64(bdp_of(cc, rate_now(b), GAIN(0.5)), cwnd_min(cc)))
			b->probe_rtt_end_us = ack->now_us + PROBE_RTT_US;
		return;
	}
	if (ack->rtt_us > 0)
		b->probe_min_us = min_u64(b->probe_min_us, ack->rtt_us);
	if (ack->now_us >= b->probe_rtt_end_us)
		leave_probe_rtt(cc, ack->now_us);
}

static void update_min_rtt(struct cc *cc, const struct cc_ack *ack)
{
	struct bbr *b = &cc->bbr;

	if (ack->rtt_us == 0)
		return;
	if (ack->rtt_us < b->min_rtt_us || b->min_rtt_us == NEVER_US)
		b->min_rtt_us = ack->rtt_us;
	if (ack->rtt_us <= b->min_rtt_us + tolerance_us(b) / 2)
		b->min_rtt_stamp_us = ack->now_us;
	if (b->mode == BBR_PROBE_RTT || b->mode == BBR_COMPETE ||
	    ack->now_us < b->min_rtt_stamp_us + MIN_RTT_STALE_US)
		return;
	if (is_tiny(b)) {
		b->min_rtt_us = ack->rtt_us;
		b->min_rtt_stamp_us = ack->now_us;
		return;
	}
	enter_probe_rtt(cc, ack->now_us);
}

static void update_mode(struct cc *cc, const struct cc_ack *ack, bool round_start)
{
	struct bbr *b = &cc->bbr;
	const bool drained = ack->in_flight_bytes <= bdp_of(cc, rate_now(b), GAIN(1)) + quantum(cc);

	switch ((enum bbr_mode)b->mode) {
	case BBR_STARTUP:
		startup(cc, ack, round_start);
		break;
	case BBR_DRAIN:
		if (drained || b->round > b->phase_round + DRAIN_ROUNDS)
			enter_down(b, ack->now_us);
		break;
	case BBR_PROBE_DOWN:
		if (drained || b->round > b->phase_round + 3)
			enter(b, BBR_PROBE_CRUISE, ack->now_us);
		break;
	case BBR_PROBE_CRUISE:
		if (ack->now_us >= b->probe_us ||
		    (b->round >= b->probe_round && ack->now_us - b->tick_us >= TICK_MIN_US))
			enter_up(b, ack->now_us);
		break;
	case BBR_PROBE_UP:
		probe_up(cc, ack);
		break;
	case BBR_PROBE_RTT:
		probe_rtt(cc, ack);
		break;
	case BBR_COMPETE:
	case BBR_MODE_COUNT:
		break;
	}
	update_min_rtt(cc, ack);
}

/* ---- what comes of it
 * ------------------------------------------------------------------------------- */

/*
 * A TCP inside that doubles its window per round trip must not wait here, or it takes us for the
 * end of the path. What it sends grows by the repair of what the path loses, and what was lost is
 * missing in our measurements.
 */
static uint64_t startup_gain(const struct bbr *b, uint64_t gain)
{
	const bool spare = b->now.app_limited || b->was_app_limited;

	return spare ? gain + gain * STARTUP_REPAIR * b->noise / 10000 : gain;
}

static uint64_t pacing_gain(const struct bbr *b)
{
	switch ((enum bbr_mode)b->mode) {
	case BBR_STARTUP:
		return startup_gain(b, STARTUP_GAIN);
	case BBR_DRAIN:
		return DRAIN_GAIN;
	case BBR_PROBE_DOWN:
		return DOWN_GAIN;
	case BBR_PROBE_UP:
		return UP_GAIN;
	case BBR_PROBE_CRUISE:
	case BBR_PROBE_RTT:
	case BBR_COMPETE:
	case BBR_MODE_COUNT:
		break;
	}
	return GAIN(1);
}

static void set_pacing_rate(struct cc *cc, uint64_t srtt_us)
{
	const struct bbr *b = &cc->bbr;

	if (b->mode == BBR_COMPETE) {
		cc->pacing_rate =
			gained(b->fair.window * US_PER_S / max_u64(srtt_us, 1), FAIR_PACING);
		return;
	}
	const uint64_t rate = gained(rate_now(b), pacing_gain(b));

	if (cc_max(&b->rate) == 0)
		return;
	if (b->full_pipe || rate > cc->pacing_rate)
		cc->pacing_rate = max_u64(rate, 2 * cc->mtu_bytes);
}

/* Room for others, below where the path is known to end. */
static uint64_t cwnd_bound(const struct cc *cc)
{
	const struct bbr *b = &cc->bbr;
	const uint64_t hi = b->bounds.inflight_hi;
	uint64_t most = min_u64(hi, b->bounds.inflight_lo);

	if (b->mode == BBR_PROBE_RTT)
		return bdp_of(cc, rate_now(b), GAIN(0.5));
	if (b->mode != BBR_PROBE_UP && hi != NEVER_US && b->competing)
		most = min_u64(most, gained(hi, HEADROOM));
	return most;
}

static void set_cwnd(struct cc *cc, const struct cc_ack *ack)
{
	const struct bbr *b = &cc->bbr;
	uint64_t target = bdp(cc, b->mode == BBR_STARTUP    ? startup_gain(b, CWND_GAIN)
				  : b->mode == BBR_PROBE_UP ? UP_CWND_GAIN
							    : CWND_GAIN);

	if (b->mode == BBR_COMPETE) {
		cc->cwnd_bytes =
			b->fair.step == 1 ? gained(b->fair.full, DIP_GAIN) : b->fair.window;
		return;
	}
	/* No more than the end of UP needs, until round trips and rate tell what that does. */
	if (b->mode == BBR_PROBE_UP && b->eager)
		target = min_u64(target, bdp_of(cc, max_u64(b->up_rate, rate_now(b)), UP_GAIN));
	target += 3 * quantum(cc) + (b->full_pipe ? cc_max(&b->extra) : 0);
	if (b->full_pipe)
		cc->cwnd_bytes = min_u64(cc->cwnd_bytes + ack->acked_bytes, target);
	else if (cc->cwnd_bytes < target || ack->delivered_bytes < cwnd_initial(cc))
		cc->cwnd_bytes += gained(ack->acked_bytes, startup_gain(b, GAIN(1)));
	cc->cwnd_bytes = min_u64(cc->cwnd_bytes, cwnd_bound(cc));
	cc->cwnd_bytes = min_u64(cc->cwnd_bytes, b->buffer_cap);
	cc->cwnd_bytes = max_u64(cc->cwnd_bytes, cwnd_min(cc));
}

static void init(struct cc *cc, uint64_t srtt_us, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;

	b->min_rtt_us = srtt_us > 0 ? srtt_us : NEVER_US;
	b->min_rtt_stamp_us = b->extra_start_us = b->tick_us = b->now.start_us = now_us;
	b->buffer_cap = b->probe_min_before_us = b->now.min_rtt_us = NEVER_US;
	b->span_min_us[0] = b->span_min_us[1] = NEVER_US;
	enter_startup(b, now_us);
	cc->cwnd_bytes = cwnd_initial(cc);
	cc->pacing_rate = gained(cc->cwnd_bytes * US_PER_S /
					 max_u64(srtt_us > 0 ? srtt_us : 10000, RTT_FLOOR_US),
				 STARTUP_GAIN);
}

static void on_ack(struct cc *cc, const struct cc_ack *ack)
{
	const bool round_start = update_round(cc, ack);

	update_rate(cc, ack);
	update_extra(cc, ack);
	update_mode(cc, ack, round_start);
	set_pacing_rate(cc, ack->srtt_us);
	set_cwnd(cc, ack);
}

static void on_lost(struct cc *cc, uint64_t n_bytes, uint64_t in_flight_bytes, uint64_t now_us)
{
	(void)in_flight_bytes;
	(void)now_us;
	cc->bbr.now.lost_bytes += n_bytes;
	cc->bbr.now.lost_packets++;
}

/* Half of what a bound was for has come after all: there was no cause for it. */
static void on_spurious(struct cc *cc, uint64_t n_bytes)
{
	struct bbr *b = &cc->bbr;

	b->now.lost_bytes -= min_u64(b->now.lost_bytes, n_bytes);
	b->now.lost_packets -= b->now.lost_packets > 0;
	if (b->undo_bytes == 0)
		return;
	b->undo_left_bytes -= min_u64(b->undo_left_bytes, n_bytes);
	if (b->undo_left_bytes > b->undo_bytes / 2)
		return;
	b->bounds = b->undo;
	b->undo_bytes = 0;
	if (b->mode == BBR_COMPETE)
		b->fair.window = max_u64(b->fair.window, b->fair.undo);
}

/* What was measured long ago is worth the less; a short pause changes nothing. */
static void on_restart(struct cc *cc, uint64_t idle_us, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;
	const unsigned n = (unsigned)min_u64(idle_us / IDLE_US, 8);

	b->min_rtt_stamp_us = max_u64(b->min_rtt_stamp_us, now_us - min_u64(now_us, US_PER_S));
	b->span_min_us[0] = b->span_min_us[1] = NEVER_US;
	if (b->mode == BBR_PROBE_RTT)
		leave_probe_rtt(cc, now_us);
	if (n == 0 || cc_max(&b->rate) == 0)
		return;
	const uint64_t rtt_us = b->min_rtt_us == NEVER_US ? 100000 : b->min_rtt_us;
	const uint64_t least = cwnd_initial(cc) * US_PER_S / max_u64(rtt_us, RTT_FLOOR_US);
	const uint64_t rate = max_u64(cc_max(&b->rate) >> n, min_u64(least, cc_max(&b->rate)));
	cc_max_reset(&b->rate, b->tick, rate);
	enter_startup(b, now_us);
	cc->pacing_rate = rate;
	cc->cwnd_bytes = min_u64(cc->cwnd_bytes, max_u64(bdp(cc, CWND_GAIN), cwnd_initial(cc)));
}

static void on_collapse(struct cc *cc, uint64_t now_us)
{
	struct bbr *b = &cc->bbr;

	cc_max_reset(&b->rate, b->tick, cc_max(&b->rate) / 4);
	enter_startup(b, now_us);
	cc->cwnd_bytes = cwnd_initial(cc);
	cc->pacing_rate = max_u64(cc->pacing_rate / 4, 2 * cc->mtu_bytes);
}

static const char *mode(const struct cc *cc)
{
	static const char *const names[] = { "startup",  "drain",     "probe-down", "cruise",
					     "probe-up", "probe-rtt", "compete" };

	static_assert(ARRAY_SIZE(names) == BBR_MODE_COUNT, "a name for each mode");
	return names[cc->bbr.mode];
}

static uint64_t bandwidth(const struct cc *cc)
{
	return rate_now(&cc->bbr);
}

const struct cc_ops cc_bbr_ops = {
	.name = "bbr",
	.init = init,
	.on_ack = on_ack,
	.on_lost = on_lost,
	.on_spurious = on_spurious,
	.on_restart = on_restart,
	.on_collapse = on_collapse,
	.mode = mode,
	.bandwidth = bandwidth,
};
