/*
 * The objects behind relay.h:
 *
 *   account     one proved address; the token buckets live here
 *   end         one connection; owns its listens and its sides of rendezvous
 *   presence    one (address, protocol) pair with its listens in order
 *   rendezvous  one id with two sides; a side hangs in the list of its end,
 *               most recently used first, so that the last one makes room
 *   channel     one side's way by UDP; it goes with its side
 *
 * A rendezvous that lost a side stays, out of the id table, in the list `gone`
 * until the server pulled it: telling needs no memory that is not there already.
 */
#ifndef RELAY_INTERNAL_H
#define RELAY_INTERNAL_H

#include "relay/relay.h"
#include "q2q/q2q.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct bucket {
	uint64_t level; /* in 1/1000000 of a unit */
	uint64_t updated_us;
};

struct account {
	UT_hash_handle hh;
	unsigned n_ends;
	struct bucket bytes, signals;
	uint32_t slice; /* the last one in which it sent, and how much */
	uint64_t slice_bytes;
	char address[];
};

struct presence;

struct listen {
	TAILQ_ENTRY(listen) of_presence;
	LIST_ENTRY(listen) of_end;
	struct presence *presence;
	struct relay_end *end;
};

struct presence {
	UT_hash_handle hh;
	TAILQ_HEAD(, listen) listens;
	unsigned n_listens;
	const char *protocol; /* inside key, behind the NUL of the address */
	size_t key_bytes;
	char key[];
};

struct rendezvous;

/* One side's way to its rendezvous by UDP. */
struct channel {
	UT_hash_handle hh; /* by name */
	struct side *side;
	uint8_t name[Q2Q_CHANNEL_BYTES], key[Q2Q_CHANNEL_KEY_BYTES];
	uint64_t counter; /* of the last BIND */
	bool bound;
	struct relay_place place;
	uint64_t heard_us;
};

struct side {
	TAILQ_ENTRY(side) of_end;
	struct relay_end *end; /* NULL: it went, or needs not be told */
	struct rendezvous *rendezvous;
	struct channel *channel; /* NULL: none */
};

struct rendezvous {
	UT_hash_handle hh;
	struct side side[2];
	TAILQ_ENTRY(rendezvous) of_gone;
	bool gone; /* in the list `gone`, not in the table */
	char id[RELAY_ID_BYTES + 1];
};

struct relay_end {
	struct relay *relay;
	struct account *account;
	void *user;
	LIST_HEAD(, listen) listens;
	TAILQ_HEAD(side_list, side) sides;      /* most recently used first */
	TAILQ_HEAD(gone_list, side) gone_sides; /* over, and not yet told */
	unsigned n_listens, n_sides;
};

struct relay {
	struct relay_config config;
	struct account *accounts;
	struct presence *presences;
	struct rendezvous *rendezvous;
	struct channel *channels;
	TAILQ_HEAD(, rendezvous) gone;
	/* Who shares the server's own limits: all accounts that send in this slice of time. */
	struct {
		uint32_t number;
		uint64_t start_us, bytes;
		unsigned n_accounts, n_accounts_before;
	} slice;
	struct relay_stats stats;
};

/* ---- relay.c ---- */
unsigned relay_hash(const struct relay *r, const void *key, size_t key_bytes);
/* The side of this end in a rendezvous that is open; NULL: none. */
struct side *relay_side_find(struct relay_end *end, const char *id, size_t id_bytes);
struct side *relay_side_other(struct side *s);
void relay_side_touch(struct side *s);
/* Charges one account for relayed bytes, and sees to it that all get their share. */
int relay_charge(struct relay *r, struct account *a, size_t n_bytes, bool congested,
		 uint64_t now_us);

/* ---- channel.c ---- */
void relay_channel_drop(struct relay *r, struct side *s);

#endif
