/*
 * link - one direction of an emulated link, in virtual time.
 *
 * No I/O and no clock: the caller says when a packet arrives and gets back when
 * it, and a duplicate of it, comes out at the other end. In this order a packet
 *
 *   1. waits for the transmitter: a drop-tail queue, then bytes * 8 / rate;
 *   2. may be lost, alone or in bursts (it has used the link nevertheless);
 *   3. may be doubled;
 *   4. travels: delay, plus or minus jitter, and longer if it is to be overtaken.
 *
 * Transmission ends are added up in exact fractions, so a rate does not drift.
 * Each kind of mischance draws from a generator of its own: to switch one on
 * leaves what the others do as it was.
 */
#ifndef TESTS_BENCH_LINK_H
#define TESTS_BENCH_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_NEVER_NS UINT64_MAX
#define LINK_COPIES   2 /* of one packet at most */

enum link_random { LINK_LOSS, LINK_BURST, LINK_DUPLICATE, LINK_JITTER, LINK_REORDER, LINK_RANDOMS };

struct link_config {
	uint64_t rate_bps;    /* bits of packets a second; 0: no limit */
	uint64_t queue_bytes; /* what may wait, the packet in transmission included; 0: queue_ns */
	uint64_t queue_ns;    /* the same as time at the rate; 0: no limit */
	uint64_t delay_ns, jitter_ns;
	bool keep_order; /* jitter lets nothing overtake */
	double loss;     /* of packets that are lost alone */
	/* Gilbert-Elliott: chances to become bad and good at each packet, and to be lost in each */
	double become_bad, become_good, loss_bad, loss_good;
	double duplicate;
	double reorder; /* of packets that are held back by reorder_ns */
	uint64_t reorder_ns;
	uint64_t seed;
};

struct link_counters {
	uint64_t in_packets, in_bytes;
	uint64_t out_packets, out_bytes; /* duplicates included */
	uint64_t dropped_queue, dropped_loss, dropped_burst;
	uint64_t duplicated, held_back;
	uint64_t queue_max_ns; /* the longest wait for the transmitter, with its own transmission */
	uint64_t queue_max_bytes;
};

struct link_direction {
	struct link_config config;
	struct link_counters counters;
	uint64_t free_ns, free_rest; /* when the transmitter is free, and the fraction of a ns */
	uint64_t last_out_ns;
	bool bad;
	uint64_t random[LINK_RANDOMS];
};

/* What a link has if nothing is said: no limit, no delay, no mischance. */
void link_config_init(struct link_config *config);

/*
 * Reads one option, such as "rate=100mbit", for both directions or, with "ab." or
 * "ba." before it, for one. 0, or -1 with the reason in `error`.
 */
int link_option(struct link_config pair[2], const char *option, char *error, size_t error_bytes);

/* What single options cannot tell: 0, or -1 with the reason in `error`. */
int link_config_check(const struct link_config *config, char *error, size_t error_bytes);

/* The names and forms of all options, for a usage message. */
extern const char link_options_help[];

/* `stream` tells apart directions that have one seed. */
void link_init(struct link_direction *d, const struct link_config *config, unsigned stream);

/*
 * A packet of `bytes` arrives at `now_ns`, which never goes back. Returns how many
 * copies come out, and when. 0: it is lost, and counted.
 */
unsigned link_offer(struct link_direction *d, size_t bytes, uint64_t now_ns,
		    uint64_t ret_out_ns[static LINK_COPIES]);

/* ---- packets on their way, earliest first; those of one instant in the order they came --- */

struct link_transit {
	uint64_t out_ns, order;
	uint32_t packet; /* the caller's */
};

struct link_heap {
	struct link_transit *at;
	size_t n, n_max;
	uint64_t order;
};

int link_heap_init(struct link_heap *heap, size_t n_max); /* 0 or -ENOMEM */
void link_heap_fini(struct link_heap *heap);
bool link_heap_push(struct link_heap *heap, uint64_t out_ns, uint32_t packet); /* false: full */
uint64_t link_heap_next_ns(const struct link_heap *heap); /* LINK_NEVER_NS: empty */
uint32_t link_heap_pop(struct link_heap *heap);           /* only if it is not empty */

#endif
