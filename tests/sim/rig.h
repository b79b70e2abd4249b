/*
 * rig - how fast, how fair, how late: tunnels and TCP flows on one bottleneck.
 *
 * One link per direction, shared by all; virtual time, so every figure is exact and the same on any
 * machine. Nothing here checks what is carried (sim.h does): ciphers and contents are empty.
 *
 *   rig.c      links, time, tunnels, figures
 *   rig_tcp.c  a TCP to compare with: CUBIC (RFC 9438) with HyStart, no pacing, perfect SACK
 */
#ifndef TESTS_SIM_RIG_H
#define TESTS_SIM_RIG_H

#include "base/base.h"
#include "ptcp/ptcp.h"

#define RIG_TUNNELS_MAX 2
#define RIG_FLOWS_MAX   20
#define RIG_RAW         (-1)
#define MBIT            UINT64_C(125000) /* bytes per second */

struct rig_link_config {
	uint64_t bytes_per_s, delay_us, queue_us;
	uint64_t jitter_us;     /* added to each packet by itself: reorders */
	unsigned loss_ppm;      /* random */
	unsigned burst_packets; /* lost at once, on average; 0 or 1: independent losses */
	uint64_t mark_us;       /* ECT packets that wait longer are marked CE; 0: never */
	bool marks_all;         /* every ECT packet, whatever it waits */
	bool bleaches;          /* clears ECN fields */
	bool eats_ect;          /* drops what carries ECT */
};

struct rig_config {
	uint64_t seed;
	struct rig_link_config link[2]; /* there, back */
	unsigned n_tunnels;
	enum ptcp_congestion_control cc[RIG_TUNNELS_MAX];
	enum ptcp_parity parity;
	bool greedy;               /* tunnels carry messages as many as they can */
	unsigned n_inner, n_outer; /* TCP flows within the first tunnel, and beside it */
	uint64_t outer_start_us, tunnel_start_us[RIG_TUNNELS_MAX];
	uint64_t pause_from_us, pause_to_us; /* greedy tunnels send nothing */
	/* The forward link's new rate and delay from then on; 0: as before. */
	uint64_t change_us, change_bytes_per_s, change_delay_us;
	uint64_t warm_us, measure_us; /* counted from the start; figures are of measure_us */
	bool verbose;
};

struct rig_result {
	double utilisation;                /* of the forward link, by IP bytes that it carried */
	double goodput_mbit_s;             /* of all tunnels, bytes of messages or of TCP */
	double share[RIG_TUNNELS_MAX + 1]; /* of what came through: each tunnel, the outer flows */
	double jain;                       /* among inner flows */
	double queue_median_ms, queue_p95_ms; /* of the forward link, sampled every ms */
	double loss_percent, overflow_percent;
	double message_p99_ms;            /* unused by TCP flows */
	struct ptcp_stats stats;          /* of the first tunnel's sender */
	struct ptcp_path_stats path;      /* of the same */
	uint64_t marked, burst_max_bytes; /* CE; most bytes the first tunnel sent within 1 ms */
	uint64_t first_ms_bytes;          /* sent within 10 ms of the end of the pause */
};

struct rig_result rig_run(const struct rig_config *config);

/* ---- between rig.c and rig_tcp.c ---------------------------------------------------------------
 */

struct rig;
struct rig_tcp;

struct rig_segment {
	uint32_t flow, number; /* an ACK: how many arrivals the receiver has logged */
	bool is_ack;
};
#define RIG_SEGMENT_BYTES 1500 /* as an IP packet */
#define RIG_ACK_BYTES     52

struct rig_tcp *rig_tcp_new(uint32_t flow);
void rig_tcp_free(struct rig_tcp *t);
/* Sends what it may by rig_carry(). */
void rig_tcp_run(struct rig_tcp *t, struct rig *rig, uint64_t now_us);
void rig_tcp_input(struct rig_tcp *t, struct rig *rig, const struct rig_segment *s,
		   uint64_t now_us);
uint64_t rig_tcp_deadline_us(const struct rig_tcp *t);
uint64_t rig_tcp_received(const struct rig_tcp *t); /* segments, each counted once */
void rig_tcp_describe(const struct rig_tcp *t, char *out, size_t out_bytes);
void rig_carry(struct rig *rig, const struct rig_segment *s);

#endif
