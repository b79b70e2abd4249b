/* What controllers share. */
#include "ptcp/cc.h"
#include "ptcp/ptcp.h"

static const struct cc_ops *const controllers[] = {
	[PTCP_CC_BBR] = &cc_bbr_ops,
	[PTCP_CC_CUBIC] = &cc_cubic_ops,
};
static_assert(ARRAY_SIZE(controllers) == PTCP_CC_COUNT, "each has its functions");

const struct cc_ops *cc_by_number(unsigned number)
{
	return controllers[number < PTCP_CC_COUNT ? number : PTCP_CC_BBR];
}

const char *ptcp_congestion_control_name(enum ptcp_congestion_control cc)
{
	return (unsigned)cc < PTCP_CC_COUNT ? controllers[cc]->name : NULL;
}
