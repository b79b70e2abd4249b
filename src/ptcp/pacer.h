/*
 * pacer - a token bucket in bytes.
 *
 * Sends go out in quanta of about one millisecond's worth, from two packets up
 * to one full GSO batch, so that a fast path is fed 64 KiB at a time and a slow
 * one never gets a burst. The bucket holds a little more than a quantum, so
 * that a timer that fires late costs no throughput.
 */
#ifndef PTCP_PACER_H
#define PTCP_PACER_H

#include "base/base.h"

struct pacer {
	uint64_t rate;      /* bytes per second; 0: not limited */
	int64_t tokens;     /* bytes, below 0 when more was sent than allowed */
	uint64_t remainder; /* of the last refill, in bytes * us */
	uint64_t last_us;
	size_t quantum_bytes, bucket_bytes;
};

void pacer_set_rate(struct pacer *p, uint64_t bytes_per_s, size_t mtu_bytes, uint64_t now_us);
/* Bytes that may leave now out of n_wanted; 0: not before pacer_time_us(). */
size_t pacer_allowance(struct pacer *p, size_t n_wanted, uint64_t now_us);
void pacer_sent(struct pacer *p, size_t n_bytes);
/* When pacer_allowance() of n_wanted will be more than 0. */
uint64_t pacer_time_us(const struct pacer *p, size_t n_wanted);

#endif
