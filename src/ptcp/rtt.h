/* rtt - round-trip time of one path (RFC 9002, section 5). */
#ifndef PTCP_RTT_H
#define PTCP_RTT_H

#include "base/base.h"

#define RTT_FIRST_US UINT64_C(250000) /* before anything was measured */

struct rtt {
	uint64_t srtt_us, var_us, min_us, latest_us; /* all 0: not measured */
	uint64_t adjusted_us; /* the latest, without what the peer waited */
};

/* One sample; ack_delay_us is what the peer says it waited. */
void rtt_sample(struct rtt *r, uint64_t sample_us, uint64_t ack_delay_us);
static inline uint64_t rtt_smoothed_us(const struct rtt *r)
{
	return r->srtt_us > 0 ? r->srtt_us : RTT_FIRST_US;
}
/* Probe timeout without backoff (RFC 9002, section 6.2.1). */
uint64_t rtt_pto_us(const struct rtt *r, uint64_t max_ack_delay_us);

#endif
