/*
 * ack - what was received: which packet numbers, and when to say so.
 *
 * Ranges are kept newest first and are few: a packet in order extends the
 * first one. What the peer knows that we know (its acknowledgement of our ACK)
 * is forgotten. doc/ptcp.md, section 6.1.
 */
#ifndef PTCP_ACK_H
#define PTCP_ACK_H

#include "base/base.h"

#define ACK_RANGES_MAX 64 /* kept, and in one frame */

struct ack_range {
	uint64_t low, high; /* both included */
};

struct ack_state {
	struct ack_range ranges[ACK_RANGES_MAX]; /* newest first; never touching */
	unsigned n_ranges;
	uint64_t largest_us;   /* when ranges[0].high came */
	uint64_t deadline_us;  /* when an ACK must leave; NEVER_US: none is owed */
	unsigned n_waiting;    /* ack-eliciting packets since the last ACK */
	unsigned n_since_ping; /* packets with nothing but an ACK since one that elicits */
	uint64_t n_received;
	uint64_t ect0, ect1, ce;
};

struct ack_policy {
	unsigned n_every;  /* packets that one ACK covers at most */
	uint64_t delay_us; /* how long one may wait */
};

/* One packet that authenticated and is new. */
void ack_on_packet(struct ack_state *s, uint64_t pn, bool eliciting, uint8_t ecn,
		   const struct ack_policy *policy, uint64_t now_us);
/* The peer has our ACK of `largest`: nothing up to it must be said again. */
void ack_forget(struct ack_state *s, uint64_t largest);
static inline bool ack_due(const struct ack_state *s, uint64_t now_us)
{
	return now_us >= s->deadline_us;
}
/* Writes one ACK frame with as many ranges as fit. False: not even one does, or there are none. */
bool ack_write(struct ack_state *s, struct writer *w, bool ecn, uint64_t now_us);

struct ack_frame {
	struct ack_range ranges[ACK_RANGES_MAX]; /* newest first */
	unsigned n_ranges;
	uint64_t delay_us;
	uint64_t ect0, ect1, ce;
	bool has_ecn;
};
/* The reader stands behind the type. 0 or -EBADMSG. */
int ack_parse(struct reader *r, bool has_ecn, struct ack_frame *ret_frame);

#endif
