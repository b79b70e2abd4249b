/* What controllers share. */
#include "ptcp/cc.h"
#include "ptcp/ptcp.h"

#define USELESS_PACKETS 64 /* all of them marked, */
#define USELESS_ROUNDS  8  /* over that many round trips */
#define USELESS_RTT_US  (10 * US_PER_MS)

static const struct cc_ops *const controllers[] = {
	[PTCP_CC_BBR] = &cc_bbr_ops,
	[PTCP_CC_CUBIC] = &cc_cubic_ops,
};
static_assert(ARRAY_SIZE(controllers) == PTCP_CC_COUNT, "each has its functions");

const struct cc_ops *cc_by_number(unsigned number)
{
	return controllers[number < PTCP_CC_COUNT ? number : PTCP_CC_BBR];
}

uint64_t cc_marks(struct cc *cc, const struct cc_ack *ack)
{
	if (cc->marks_useless || ack->ect_packets == 0)
		return cc->marks_useless ? 0 : ack->ce_packets;
	if (ack->ce_packets < ack->ect_packets) {
		cc->n_marked = 0;
		return ack->ce_packets;
	}
	if (cc->n_marked == 0)
		cc->marked_us = ack->now_us;
	cc->n_marked += ack->ect_packets;
	cc->marks_useless = cc->n_marked >= USELESS_PACKETS &&
			    ack->now_us - cc->marked_us >=
				    USELESS_ROUNDS * max_u64(ack->srtt_us, USELESS_RTT_US);
	return cc->marks_useless ? 0 : ack->ce_packets;
}

const char *ptcp_congestion_control_name(enum ptcp_congestion_control cc)
{
	return (unsigned)cc < PTCP_CC_COUNT ? controllers[cc]->name : NULL;
}
