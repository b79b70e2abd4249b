/*
 * cc - congestion control of one path, behind one small interface.
 *
 * The path tells what was sent, acknowledged and lost; the controller answers
 * with two numbers: cwnd_bytes and pacing_rate. All controllers share struct
 * cc; their own state is in the union.
 */
#ifndef PTCP_CC_H
#define PTCP_CC_H

#include "base/base.h"

#define CC_INITIAL_PACKETS 32
#define CC_MIN_PACKETS     4

/* A maximum over the last so many ticks of a clock (after Nichols' windowed filter). */
struct cc_max_filter {
	struct {
		uint64_t value;
		uint32_t tick;
	} best[3];
};
void cc_max_update(struct cc_max_filter *f, uint32_t window, uint32_t tick, uint64_t value);
void cc_max_reset(struct cc_max_filter *f, uint32_t tick, uint64_t value);
static inline uint64_t cc_max(const struct cc_max_filter *f)
{
	return f->best[0].value;
}

struct cc_ack {
	uint64_t now_us;
	uint64_t acked_bytes;     /* newly */
	uint64_t delivered_bytes; /* on this path, ever */
	uint64_t prior_delivered; /* the same, when the newest packet of these left */
	uint64_t rate;            /* bytes per second; 0: no valid sample */
	bool rate_app_limited;
	uint64_t rtt_us; /* 0: none */
	uint64_t srtt_us;
	uint64_t in_flight_bytes; /* afterwards */
	uint64_t ect_packets;     /* newly, of those that left with marks */
	uint64_t ce_packets;      /* newly reported */
};

enum bbr_mode {
	BBR_STARTUP,
	BBR_DRAIN,
	BBR_PROBE_DOWN, /* these three by turns */
	BBR_PROBE_CRUISE,
	BBR_PROBE_UP,
	BBR_PROBE_RTT,
	BBR_COMPETE, /* with a sender that fills the queue */
	BBR_MODE_COUNT
};

/* Bounds below what was measured at best; NEVER_US: none. */
struct bbr_bounds {
	uint64_t rate;        /* short-term, by standing queue and congestion */
	uint64_t inflight_lo; /* the same, bytes */
	uint64_t inflight_hi; /* where probing found the end of the path */
};

struct bbr {
	uint8_t mode; /* enum bbr_mode */
	bool full_pipe, competing;
	bool eager; /* probing found much more, or never took place */
	unsigned n_full;
	uint64_t full_rate;
	/* Rounds: one per round trip, counted by delivered bytes. */
	uint32_t round, tick;
	uint64_t tick_us;
	struct {
		uint64_t end_bytes, start_us, start_bytes;
		uint64_t acked_bytes, lost_bytes, in_flight, min_rtt_us;
		unsigned lost_packets, ce_packets;
		uint64_t rtt_sum_us; /* of n_rtt samples */
		unsigned n_rtt;
		bool app_limited, punished, congested;
	} now;
	uint64_t last_in_flight; /* most of it in the round before */
	bool was_app_limited;    /* in that round */
	struct cc_max_filter rate;
	struct bbr_bounds bounds, undo;
	uint64_t undo_bytes, undo_left_bytes; /* lost in the event that undo is for; 0: none */
	uint64_t packets_us;                  /* what two packets take on the path */
	unsigned noise;                       /* random loss that this path has, of 10000 */
	/* Queue: least round trip of the last two spans of a quarter round. */
	uint64_t span_us, span_min_us[2];
	unsigned n_span[2]; /* samples in them */
	uint64_t queue_before_us, competing_until_us;
	uint64_t punished_us;            /* by loss or marks */
	uint64_t knee_rate;              /* where the last queue began to stand */
	unsigned n_stuck, n_calm, n_low; /* rounds in a row */
	uint32_t calm_round;             /* up to here comes what was sent while probing */
	/* Cycle. */
	uint64_t phase_us, probe_us;
	/* Before probing, at its last step, and the most that came since it began. */
	uint64_t up_first_rate, up_rate, up_found_rate;
	uint32_t phase_round, probe_round;
	/* Bound learnt from losses far above the BDP: the receiver's socket buffer; grows back. */
	uint64_t buffer_cap, buffer_cap_us;
	/* In COMPETE. */
	struct {
		uint64_t window, undo;
		uint64_t capacity; /* of the bottleneck, bytes per second; 0: unknown */
		uint64_t loss_us;  /* the last */
		/* The dip: when next, from what, and round trips before and in it. */
		uint64_t dip_us, full, before_us, dipped_us;
		unsigned n_empty; /* rounds in a row without a queue */
		uint8_t step;     /* its round, from 1 on; 0: none */
	} fair;
	uint64_t min_rtt_us, min_rtt_stamp_us, probe_min_us, probe_min_before_us;
	uint64_t probe_rtt_end_us; /* 0: not drained yet */
	uint64_t saved_cwnd;
	/* Acknowledgements that come in lumps need a larger window. */
	struct cc_max_filter extra;
	uint64_t extra_start_us, extra_acked;
};

struct cubic {
	uint64_t ssthresh, w_max, w_reno, reno_rest;
	uint64_t epoch_us, k_ms; /* epoch_us 0: none runs */
	bool reduced;            /* what left before is being judged still */
	uint64_t reduced_bytes, delivered, rate;
	uint64_t undo_cwnd, undo_ssthresh, undo_w_max, undo_bytes;
	/* HyStart++ */
	bool css;
	unsigned n_samples, n_css_rounds;
	uint64_t min_rtt_us, round_rtt_us, last_round_rtt_us, css_baseline_us, round_end_bytes;
};

struct cc;

struct cc_ops {
	const char *name;
	void (*init)(struct cc *cc, uint64_t srtt_us, uint64_t now_us);
	void (*on_ack)(struct cc *cc, const struct cc_ack *ack);
	void (*on_lost)(struct cc *cc, uint64_t n_bytes, uint64_t in_flight_bytes, uint64_t now_us);
	/* Packets reported lost arrived after all. */
	void (*on_spurious)(struct cc *cc, uint64_t n_bytes);
	/* Nothing was in flight for idle_us, and now a packet leaves. */
	void (*on_restart)(struct cc *cc, uint64_t idle_us, uint64_t now_us);
	/* Several probe timeouts in a row: what we believed of the path no longer holds. */
	void (*on_collapse)(struct cc *cc, uint64_t now_us);
	const char *(*mode)(const struct cc *cc);
	uint64_t (*bandwidth)(const struct cc *cc);
};

struct cc {
	const struct cc_ops *ops;
	size_t mtu_bytes; /* kept current by the path */
	uint64_t cwnd_bytes;
	uint64_t pacing_rate; /* bytes per second */
	/* Packets in a row that came marked CE, since when; and whether that means nothing. */
	uint64_t n_marked, marked_us;
	bool marks_useless;
	union {
		struct bbr bbr;
		struct cubic cubic;
	};
};

/*
 * The CE marks of an acknowledgement that say something; once per acknowledgement, by the
 * controller. A path that marks whatever we send, for many round trips in which we sent less and
 * less, does not tell congestion (after RFC 9000, section 13.4.2): marks_useless is set then, and
 * packets are to leave without. If it was congestion, it shows by loss from then on.
 */
uint64_t cc_marks(struct cc *cc, const struct cc_ack *ack);

extern const struct cc_ops cc_bbr_ops, cc_cubic_ops;
/* By enum ptcp_congestion_control; the default for one that does not exist. */
const struct cc_ops *cc_by_number(unsigned number);

static inline void cc_init(struct cc *cc, const struct cc_ops *ops, size_t mtu_bytes,
			   uint64_t srtt_us, uint64_t now_us)
{
	*cc = (struct cc){ .ops = ops, .mtu_bytes = mtu_bytes };
	ops->init(cc, srtt_us, now_us);
}

#endif
