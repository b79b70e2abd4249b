/*
 * relay - who listens for what at this server, which two connections belong to
 * one rendezvous, and what each account may still send through it. Sans-IO: the
 * server owns the connections; the relay names them by `struct relay_end`.
 *
 *     end ---- listens ----> presence (address, protocol) <---- listens ---- end
 *      |                                                                      |
 *      +------------------------- rendezvous (id) ----------------------------+
 *
 * An end is one control connection. It is charged to an account, the address
 * that its certificate proves; several ends of one address share one budget.
 * Everything is bounded by the config, and what is dropped is counted.
 *
 * Nothing here calls back. When an end goes, the ends that were left alone are
 * pulled with relay_next_gone() and told by the server.
 */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include "base/base.h"

#define RELAY_ID_BYTES     32  /* a rendezvous id: 32 lower-case hex digits */
#define RELAY_ADDRESS_MAX  320 /* resource, @, domain */
#define RELAY_PROTOCOL_MAX 64

/* Outcomes of the functions below. */
enum relay_outcome {
	RELAY_UNKNOWN = 1, /* no such rendezvous, or this end is no part of it: drop */
	RELAY_LIMITED,     /* a quota or a rate is used up: drop, or refuse */
	RELAY_FULL,        /* the receiver does not keep up: drop */
	RELAY_TAKEN,       /* the id is in use */
};

struct relay_config {
	struct hash_seed seed;
	unsigned ends_max;               /* connections */
	unsigned listens_per_end_max;    /* (address, protocol) pairs of one connection */
	unsigned listeners_max;          /* connections that listen for one pair */
	unsigned rendezvous_max;         /* in all */
	unsigned rendezvous_per_end_max; /* past it the one least used makes room */
	uint64_t bytes_per_s;            /* relayed for one account */
	uint64_t burst_bytes;
	uint64_t total_bytes_per_s; /* for all accounts together; 0: as much as the line takes */
	unsigned signals_per_s;     /* signals and inbounds of one account */
	unsigned signals_burst;
	size_t queue_max_bytes; /* waiting at one receiver before relayed data is dropped */
};

/* What a server of one machine should use. */
void relay_config_default(struct relay_config *ret_config);

struct relay_stats {
	unsigned n_ends, n_listens, n_accounts, n_rendezvous, n_channels;
	uint64_t n_rendezvous_made;
	uint64_t relayed_bytes, n_relayed, n_signals;
	uint64_t n_unknown, n_limited, n_full, n_evicted;
	uint64_t channel_bytes, n_channel_bad, n_channel_unbound;
};

struct relay;
struct relay_end;

/* NULL when out of memory. */
struct relay *relay_new(const struct relay_config *config);
/* All ends must have been freed before. NULL is fine. */
void relay_free(struct relay *r);
DEFINE_CLEANUP(struct relay *, relay_free)
/* Holds from now on, for the ends that there are too; more than ends_max stay. */
void relay_set_limits(struct relay *r, unsigned ends_max, uint64_t bytes_per_s,
		      uint64_t total_bytes_per_s, uint64_t burst_bytes);
void relay_stats(const struct relay *r, struct relay_stats *ret_stats);

/*
 * An end for a connection; `user` is given back by relay_end_user().
 * 0, RELAY_LIMITED past ends_max, or -ENOMEM.
 */
int relay_end_new(struct relay *r, const char *account, void *user, uint64_t now_us,
		  struct relay_end **ret_end);
/* Takes its listens and rendezvous with it; see relay_next_gone(). NULL is fine. */
void relay_end_free(struct relay_end *end);
void *relay_end_user(const struct relay_end *end);
const char *relay_end_account(const struct relay_end *end);

/*
 * Presence. Listening again for the same pair changes nothing.
 * 0, RELAY_LIMITED, -EINVAL if a text is empty or too long, -ENOMEM.
 */
int relay_listen(struct relay_end *end, const char *address, const char *protocol);
/* Fills ends with up to n_max listeners of the pair, in the order in which they came. */
size_t relay_listeners(const struct relay *r, const char *address, const char *protocol,
		       struct relay_end **ends, size_t n_max);
/* Whether this end listens for the pair. */
bool relay_end_listens(const struct relay_end *end, const char *address, const char *protocol);

/* Calls visit for each (address, protocol) with its number of listeners, until it returns false. */
void relay_presence_visit(const struct relay *r,
			  bool (*visit)(void *user, const char *address, const char *protocol,
					unsigned n_listeners),
			  void *user);

/* Charges one signal or inbound to the account of the end. 0 or RELAY_LIMITED. */
int relay_charge_signal(struct relay_end *end, uint64_t now_us);

/*
 * A listener answered a requester with this id: from now on they reach each
 * other by it. 0; RELAY_TAKEN if the id is in use or both ends are one;
 * RELAY_LIMITED past rendezvous_max; -EINVAL if it is not an id; -ENOMEM.
 */
int relay_rendezvous_add(struct relay_end *requester, struct relay_end *listener, const char *id,
			 size_t id_bytes);

/* The end at the other side. 0 or RELAY_UNKNOWN, which is counted. */
int relay_route(struct relay_end *from, const char *id, size_t id_bytes, struct relay_end **ret_to);

/*
 * Whether n_bytes of relayed data may be queued for a receiver that has
 * queued_bytes waiting; charges the account of `from` if so.
 * 0, RELAY_LIMITED or RELAY_FULL; both are counted.
 */
int relay_charge_bytes(struct relay_end *from, size_t n_bytes, size_t queued_bytes,
		       uint64_t now_us);

/* One end is done with a rendezvous. The other one comes out of relay_next_gone(). */
int relay_rendezvous_close(struct relay_end *from, const char *id, size_t id_bytes);

/* ---- channels: a rendezvous by UDP (q2q.h has the datagrams)
 * -------------------------------------
 */

/* Where an end was heard, and the socket that it came to, which is the server's business. */
struct relay_place {
	struct endpoint remote;
	struct ip_address local;
	void *socket;
};

/*
 * Gives this end's side of a rendezvous a channel by this name and key, which are fresh random
 * bytes; one that it had before is over. 0, RELAY_UNKNOWN, RELAY_TAKEN, -ENOMEM.
 */
int relay_channel_new(struct relay_end *end, const char *id, size_t id_bytes, const uint8_t *name,
		      const uint8_t *key);
bool relay_channel_known(const struct relay *r, const uint8_t *name);
/*
 * A BIND from there: from now on the end is there. 0 with the answer to send back; RELAY_UNKNOWN:
 * no such channel; -EBADMSG: forged, or older than one that came before. Both are counted.
 */
int relay_channel_bind(struct relay *r, const uint8_t *bind, const struct relay_place *from,
		       uint64_t now_us, uint8_t *ret_bound);
/*
 * DATA of n_bytes for the other side: where it goes, and the name that it carries there. The
 * datagram must come from where the end is. `congested`: the socket is full, so whoever sends more
 * than others has to wait. 0; RELAY_UNKNOWN; RELAY_FULL; RELAY_LIMITED. All are counted.
 */
int relay_channel_route(struct relay *r, const uint8_t *name, const struct endpoint *from,
			size_t n_bytes, bool congested, uint64_t now_us, const uint8_t **ret_name,
			const struct relay_place **ret_to);

/* The next end to be told that its rendezvous `id` is over. False: none left. */
bool relay_next_gone(struct relay *r, struct relay_end **ret_end, char ret_id[RELAY_ID_BYTES + 1]);

#endif
