/*
 * Two associations and the links between them, under a virtual clock, with a
 * cipher that only checks. For unit tests of the association; the simulator in
 * tests/sim is the thorough one.
 */
#ifndef TESTS_UNIT_PTCP_PAIR_H
#define TESTS_UNIT_PTCP_PAIR_H

#include "base/base.h"
#include "ptcp/ptcp.h"

#define PAIR_LINKS 4

struct pair_tls {
	int is_server;
	size_t out_bytes, in_bytes;  /* of the flight still to be taken; received so far */
	size_t flight_bytes;         /* of each of the three flights */
	int flights_in, flights_out; /* whole */
	bool done, refuse;
	uint32_t phase_ready;
};

struct pair_datagram {
	struct pair_datagram *next;
	uint64_t at_us;
	uint32_t path_id;
	size_t n_bytes;
	uint8_t data[];
};

struct pair_link {
	/* What the test sets. */
	uint64_t delay_us;
	uint64_t bytes_per_s; /* 0: no limit */
	uint64_t queue_us;    /* drops what would wait longer; 0: no limit */
	unsigned loss_permille;
	unsigned reorder_permille; /* these are late by reorder_us */
	uint64_t reorder_us;
	unsigned duplicate_permille;
	unsigned corrupt_permille; /* one bit flipped */
	size_t mtu_bytes;          /* 0: no limit */
	bool refuses;              /* what is larger: the sender's system does */
	bool cut;
	uint32_t renumber; /* arrives on this path id instead; 0: as sent */
	/* State. */
	uint64_t busy_until_us;
	uint64_t n_sent, n_dropped, n_refused;
};

struct pair_end {
	struct ptcp_assoc *a;
	struct pair_tls tls;
	uint64_t n_established, n_verified, n_closed, close_code, n_path_up, n_path_down,
		n_all_down, n_switched;
	uint64_t n_path_new, n_pongs, pong_rtt_us, n_room;
	bool closed_by_peer;
	uint64_t n_messages, message_bytes;
	/* Called for each delivered message; may be NULL. */
	void (*on_message)(struct pair_end *end, const uint8_t *data, size_t n_bytes);
	void *user;
};

struct pair {
	uint64_t now_us;
	uint64_t random;
	struct pair_end end[2];                /* 0: client */
	struct pair_link links[2][PAIR_LINKS]; /* by sender and path id - 1 */
	struct pair_datagram *head, *tail;     /* ordered by time */
	uint8_t batch[PTCP_BATCH_BYTES_MAX];
	uint64_t n_batches, n_unequal;
};

/* Called each time the clock moves; returns the next time it wants, or NEVER_US. */
typedef uint64_t pair_source_fn(struct pair *p, void *user);

void pair_init(struct pair *p, uint64_t seed, const struct ptcp_config *config /* or NULL */);
void pair_fini(struct pair *p);
/* Both links of a path alike. */
void pair_link_set(struct pair *p, uint32_t path_id, struct pair_link link);
void pair_path_add(struct pair *p, uint32_t path_id, enum ptcp_path_kind kind, uint16_t mtu_bytes);
/* Runs for so long, or until nothing more can happen. */
void pair_run(struct pair *p, uint64_t for_us, pair_source_fn *source, void *user);
/* Runs until both are established; false after 10 s. */
bool pair_establish(struct pair *p);
uint64_t pair_random(struct pair *p);
struct ptcp_crypto pair_null_cipher(struct pair_tls *tls);

#endif
