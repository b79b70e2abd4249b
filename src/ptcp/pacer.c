/* The pacer. */
#include "ptcp/pacer.h"

#define QUANTUM_US     1000
#define BUCKET_US      2000
#define QUANTUM_MAX    65536
#define BUCKET_MAX     (8 * 65536)
#define IDLE_REFILL_US 1000000 /* longer idle times fill any bucket; keeps products small */

static void refill(struct pacer *p, uint64_t now_us)
{
	if (now_us <= p->last_us)
		return;
	const uint64_t passed_us = min_u64(now_us - p->last_us, IDLE_REFILL_US);
	const uint64_t product = passed_us * p->rate + p->remainder;

	p->last_us = now_us;
	p->remainder = product % US_PER_S;
	p->tokens += (int64_t)(product / US_PER_S);
	if (p->tokens > (int64_t)p->bucket_bytes) {
		p->tokens = (int64_t)p->bucket_bytes;
		p->remainder = 0;
	}
}

static size_t clamp_size(uint64_t v, size_t low, size_t high)
{
	return v < low ? low : v > high ? high : (size_t)v;
}

void pacer_set_rate(struct pacer *p, uint64_t bytes_per_s, size_t mtu_bytes, uint64_t now_us)
{
	refill(p, now_us);
	p->rate = min_u64(bytes_per_s, UINT64_C(1) << 40);
	p->quantum_bytes =
		clamp_size(p->rate / (US_PER_S / QUANTUM_US), 2 * mtu_bytes, QUANTUM_MAX);
	p->bucket_bytes = clamp_size(p->rate / (US_PER_S / BUCKET_US), 10 * mtu_bytes, BUCKET_MAX);
}

size_t pacer_allowance(struct pacer *p, size_t n_wanted, uint64_t now_us)
{
	if (p->rate == 0)
		return n_wanted;
	refill(p, now_us);
	if (p->tokens <= 0 || (size_t)p->tokens < min_size(n_wanted, p->quantum_bytes))
		return 0;
	return min_size(n_wanted, (size_t)p->tokens);
}

void pacer_sent(struct pacer *p, size_t n_bytes)
{
	if (p->rate > 0)
		p->tokens -= (int64_t)n_bytes;
}

uint64_t pacer_time_us(const struct pacer *p, size_t n_wanted)
{
	const int64_t needed = (int64_t)min_size(n_wanted, p->quantum_bytes) - p->tokens;

	if (p->rate == 0 || needed <= 0)
		return p->last_us;
	return p->last_us + ((uint64_t)needed * US_PER_S + p->rate - 1) / p->rate;
}
