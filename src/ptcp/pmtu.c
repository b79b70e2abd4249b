/*
 * Path MTU discovery by padded probes (RFC 8899), for one path.
 *
 * The sizes worth trying are few; each is tried upwards, three times at most.
 * A lost probe says nothing about congestion. Full-size packets that vanish in
 * a row, while smaller ones arrive, mean a black hole: back to the base.
 */
#include "ptcp/assoc.h"

#define TRIES            3
#define PAUSE_FIRST_US   (10 * US_PER_S)  /* a larger one may have become possible: doubles, */
#define PAUSE_MAX_US     (600 * US_PER_S) /* as what fell has mostly a way back soon, or never */
#define AFTER_HOLE_US    US_PER_S
#define FULL_LOST_IN_ROW 24

static const uint16_t steps[] = { PTCP_MTU_MIN, 1252, 1372, 1400, 1432, 1452,
				  1472,         4052, 8832, 8952, 16384 };

void pmtu_init(struct path *p, uint16_t max_bytes)
{
	p->mtu_max_bytes = max_bytes;
	p->mtu_bytes = PTCP_MTU_MIN;
	p->mtu_step = 1;
	p->mtu_next_us = NEVER_US;
	p->mtu_pause_us = PAUSE_FIRST_US;
	p->mtu_rests = false;
	p->mtu_probe_bytes = 0;
	p->mtu_tries = 0;
	p->n_full_lost = 0;
}

void pmtu_start(struct path *p, uint64_t now_us)
{
	p->mtu_step = 1;
	p->mtu_tries = 0;
	p->mtu_next_us = now_us;
	p->mtu_pause_us = PAUSE_FIRST_US;
	p->mtu_rests = false;
}

void pmtu_again(struct path *p, uint64_t now_us)
{
	if (p->mtu_next_us == NEVER_US)
		return;
	p->mtu_next_us = min_u64(p->mtu_next_us, now_us);
	p->mtu_pause_us = PAUSE_FIRST_US;
	p->mtu_rests = false;
}

/* Every size up to the ceiling, and the ceiling itself. */
static uint16_t step_bytes(const struct path *p)
{
	if (p->mtu_step >= ARRAY_SIZE(steps))
		return 0;
	if (steps[p->mtu_step] <= p->mtu_max_bytes)
		return steps[p->mtu_step];
	return steps[p->mtu_step - 1] < p->mtu_max_bytes ? p->mtu_max_bytes : 0;
}

uint16_t pmtu_probe_due(const struct path *p, uint64_t now_us)
{
	if (p->state != PTCP_PATH_UP || p->mtu_probe_bytes != 0 || now_us < p->mtu_next_us ||
	    p->mtu_rests)
		return 0;
	return step_bytes(p);
}

void pmtu_probe_sent(struct path *p, uint16_t n_bytes)
{
	p->mtu_probe_bytes = n_bytes;
	p->mtu_tries++;
}

static void next_step(struct path *p, uint64_t now_us)
{
	p->mtu_tries = 0;
	p->mtu_step++;
	p->mtu_next_us = now_us;
	if (step_bytes(p) == 0) {
		p->mtu_step = 1;
		while (step_bytes(p) != 0 && step_bytes(p) <= p->mtu_bytes)
			p->mtu_step++;
		p->mtu_next_us = add_sat_u64(now_us, p->mtu_pause_us);
		p->mtu_pause_us = min_u64(2 * p->mtu_pause_us, PAUSE_MAX_US);
		p->mtu_rests = true;
	}
}

void pmtu_probe_acked(struct path *p, uint16_t n_bytes, uint64_t now_us)
{
	if (n_bytes > p->mtu_bytes) {
		p->mtu_bytes = n_bytes;
		p->cc.mtu_bytes = n_bytes;
		p->n_full_lost = 0;
		p->mtu_pause_us = PAUSE_FIRST_US;
	}
	if (n_bytes != p->mtu_probe_bytes)
		return;
	p->mtu_probe_bytes = 0;
	next_step(p, now_us);
}

void pmtu_probe_lost(struct path *p, uint16_t n_bytes, uint64_t now_us)
{
	/* Of what the system refused it was known at once; that it is missed as well is no news. */
	if (n_bytes != p->mtu_probe_bytes)
		return;
	p->mtu_probe_bytes = 0;
	/* Sizes above one that does not pass will not pass either: stop the climb. */
	if (p->mtu_tries >= TRIES) {
		p->mtu_step = ARRAY_SIZE(steps);
		next_step(p, now_us);
	} else {
		p->mtu_next_us = now_us;
	}
}

void pmtu_packet_acked(struct path *p, uint16_t n_bytes, uint64_t sequence)
{
	if (n_bytes < p->mtu_bytes || sequence < p->full_acked_sequence)
		return;
	p->full_acked_sequence = sequence;
	p->n_full_lost = 0;
	p->mtu_rests = false;
}

void pmtu_black_hole(struct path *p, uint64_t now_us)
{
	if (p->mtu_bytes == PTCP_MTU_MIN)
		return;
	p->mtu_bytes = PTCP_MTU_MIN;
	p->cc.mtu_bytes = PTCP_MTU_MIN;
	p->n_full_lost = 0;
	p->mtu_step = 1;
	p->mtu_tries = 0;
	p->mtu_next_us = add_sat_u64(now_us, AFTER_HOLE_US);
	p->mtu_pause_us = PAUSE_FIRST_US;
	p->mtu_rests = false;
}

void pmtu_packet_lost(struct path *p, uint16_t n_bytes, uint64_t sequence, uint64_t now_us)
{
	/* Where a later one of that size has arrived, the size is not to blame. */
	if (n_bytes > PTCP_MTU_MIN && sequence > p->full_acked_sequence &&
	    ++p->n_full_lost >= FULL_LOST_IN_ROW)
		pmtu_black_hole(p, now_us);
}

void ptcp_path_too_big(struct ptcp_assoc *a, uint32_t path_id, size_t segment_bytes,
		       uint64_t now_us)
{
	struct path *const p = path_find(a, path_id);

	now_us = assoc_now(a, now_us);
	if (!p)
		return;
	if (segment_bytes > p->mtu_bytes) {
		if (segment_bytes == p->mtu_probe_bytes) {
			p->mtu_tries = TRIES;
			pmtu_probe_lost(p, p->mtu_probe_bytes, now_us);
		}
		return;
	}
	if (segment_bytes > PTCP_MTU_MIN)
		pmtu_black_hole(p, now_us);
}
