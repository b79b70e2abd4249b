/* Round-trip time. */
#include "ptcp/rtt.h"

void rtt_sample(struct rtt *r, uint64_t sample_us, uint64_t ack_delay_us)
{
	if (sample_us == 0)
		sample_us = 1;
	r->latest_us = r->adjusted_us = sample_us;
	if (r->srtt_us == 0) {
		r->min_us = sample_us;
		r->srtt_us = sample_us;
		r->var_us = sample_us / 2;
		return;
	}
	r->min_us = min_u64(r->min_us, sample_us);
	if (sample_us >= r->min_us + ack_delay_us)
		sample_us -= ack_delay_us;
	r->adjusted_us = sample_us;

	const uint64_t error_us =
		r->srtt_us > sample_us ? r->srtt_us - sample_us : sample_us - r->srtt_us;
	r->var_us = (3 * r->var_us + error_us) / 4;
	r->srtt_us = max_u64(1, (7 * r->srtt_us + sample_us) / 8);
}

uint64_t rtt_pto_us(const struct rtt *r, uint64_t max_ack_delay_us)
{
	if (r->srtt_us == 0)
		return 2 * RTT_FIRST_US;
	return r->srtt_us + max_u64(4 * r->var_us, US_PER_MS) + max_ack_delay_us;
}
