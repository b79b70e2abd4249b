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
	uint64_t ce_packets;      /* newly reported */
};

enum bbr_mode { BBR_STARTUP, BBR_DRAIN, BBR_PROBE_BW, BBR_PROBE_RTT, BBR_MODE_COUNT };

struct bbr {
	uint8_t mode;  /* enum bbr_mode */
	uint8_t cycle; /* phase of PROBE_BW */
	bool round_start, full_pipe, round_cut;
	unsigned n_full;
	uint64_t full_rate;
	uint64_t cycle_us;
	/* Rounds: one per round trip, counted by delivered bytes. */
	uint32_t round, tick;
	uint64_t round_end_bytes, tick_us;
	uint64_t round_acked_bytes, round_lost_bytes, round_rate;
	unsigned round_lost_packets;
	struct cc_max_filter rate;
	uint64_t rate_cap;     /* short-term bounds after loss; UINT64_MAX: none */
	uint64_t inflight_cap; /* bytes */
	/* Bound learnt from losses far above the BDP: the receiver's socket buffer; grows back. */
	uint64_t buffer_cap, buffer_cap_us;
	uint64_t round_in_flight; /* most of it in this round */
	uint64_t min_rtt_us, min_rtt_stamp_us;
	uint64_t probe_rtt_end_us; /* 0: not drained yet */
	uint64_t saved_cwnd;
	/* Acknowledgements that come in lumps need a larger window. */
	struct cc_max_filter extra;
	uint64_t extra_start_us, extra_acked;
};

struct cc;

struct cc_ops {
	const char *name;
	void (*init)(struct cc *cc, uint64_t srtt_us, uint64_t now_us);
	void (*on_ack)(struct cc *cc, const struct cc_ack *ack);
	void (*on_lost)(struct cc *cc, uint64_t n_bytes, uint64_t in_flight_bytes, uint64_t now_us);
	/* Packets reported lost arrived after all. */
	void (*on_spurious)(struct cc *cc, uint64_t n_bytes);
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
	union {
		struct bbr bbr;
	};
};

extern const struct cc_ops cc_bbr_ops;

static inline void cc_init(struct cc *cc, const struct cc_ops *ops, size_t mtu_bytes,
			   uint64_t srtt_us, uint64_t now_us)
{
	*cc = (struct cc){ .ops = ops, .mtu_bytes = mtu_bytes };
	ops->init(cc, srtt_us, now_us);
}

#endif
