/* What the files of nat share among themselves. */
#ifndef NAT_INTERNAL_H
#define NAT_INTERNAL_H

#include "nat/nat.h"

#define NAT_OUTSTANDING_MAX 12 /* probes of one pair that may still be answered */
#define NAT_ACKS_MAX        16
#define NAT_EVENTS_FIRST    8 /* room for so many; more as they come, up to NAT_EVENTS_MAX */
#define NAT_ADDRESSES_MAX   48
#define NAT_WINDOW_WORDS    16
#define NAT_MAC_BYTES       16
#define NAT_SAMPLES_MAX     16
#define NAT_SAMPLE_GONE     256

/* ---- wire ----------------------------------------------------------------------------- */

enum nat_wire_type { NAT_WIRE_PROBE = 1, NAT_WIRE_ACK = 2 };

/* A probe or the answer to one; doc/nat.md, section 2. */
struct nat_wire {
	enum nat_wire_type type;
	uint64_t transaction;   /* of the probe; counts up from 1 */
	struct endpoint mapped; /* answer: where the probe came from; probe: where it goes */
};

struct nat_keys {
	nat_mac_fn *mac;
	uint8_t mac_key[32];
	uint8_t local_tag[NAT_TAG_BYTES], remote_tag[NAT_TAG_BYTES];
};

int nat_keys_derive(struct nat_keys *keys, nat_mac_fn *mac, const uint8_t *key, bool controlling);
/* 0, or the fault of the MAC. */
int nat_wire_write(const struct nat_keys *keys, const struct nat_wire *m,
		   uint8_t out[static NAT_PROBE_BYTES]);
/* -EBADMSG: not authentic, or not well-formed. */
int nat_wire_read(const struct nat_keys *keys, const uint8_t *data, size_t data_bytes,
		  struct nat_wire *ret_m);

/* Ports that are open for guesses; doc/nat.md, section 8. */
struct nat_guess_offer {
	struct endpoint towards; /* of the receiver: who may come in */
	uint16_t n_ports;
	uint16_t from, to;   /* where they probably are */
	uint16_t next, step; /* step 0: not in sequence */
};

/* A candidate list; doc/nat.md, section 3. */
struct nat_list {
	uint32_t round;
	enum nat_mapping mapping;
	size_t n_candidates;
	struct nat_candidate candidates[NAT_REMOTE_MAX];
	bool has_guess;
	struct nat_guess_offer guess;
};

size_t nat_list_write(const struct nat_list *list, uint8_t *out, size_t out_bytes);
int nat_list_read(const uint8_t *data, size_t data_bytes, struct nat_list *ret_list);

/* ---- the agent --------------------------------------------------------------------------- */

struct nat_socket {
	uint8_t id;
	bool ipv4, ipv6;
	bool adopted; /* of a volley: for those that have met it */
	/* What STUN servers saw of it, IPv4: two that differ give a symmetric NAT away. */
	struct endpoint seen, seen_by;
	bool seen_twice, seen_other;
};

struct nat_outstanding {
	uint64_t transaction, sent_us;
};

struct nat_pair {
	uint8_t socket;
	struct endpoint remote;
	enum nat_candidate_kind kind;
	enum nat_pair_state state;
	const char *reason;
	uint32_t priority;
	bool same_lan;
	bool wants_openers; /* see needs_openers() */
	bool heard;
	bool announced; /* the caller holds it for valid */
	unsigned n_openers, n_probes;
	uint64_t due_us;  /* the next step; NEVER_US: none */
	uint64_t hold_us; /* no probe with full TTL before this */
	uint64_t last_sent_us, rtt_us;
	struct endpoint mapped;
	struct nat_outstanding outstanding[NAT_OUTSTANDING_MAX];
	unsigned next_outstanding;
};

/* What went to an address that may belong to anybody. */
struct nat_address {
	struct ip_address ip;
	unsigned n_sent; /* in this round */
	bool answered;   /* it has answered a probe of ours: it wants them */
};

struct nat_ack {
	uint8_t socket;
	struct endpoint to;
	uint64_t transaction;
};

/* A port that a STUN server saw, in the order in which they were told. */
struct nat_sample {
	uint16_t socket; /* NAT_SAMPLE_GONE: a closed one, whose number may be given out again */
	uint16_t port;
};

struct nat_range {
	uint16_t from;
	unsigned n_ports, start, stride;
};

enum nat_guess_phase {
	NAT_GUESS_NONE,
	NAT_GUESS_TOLD,    /* both hard: the peer knows what we predict, we wait for what it does */
	NAT_GUESS_WANTED,  /* hard: the caller opens sockets */
	NAT_GUESS_OPENING, /* hard: the first datagrams are leaving */
	NAT_GUESS_OPEN,    /* hard: the peer knows, its guesses are on their way */
	NAT_GUESS_PROBING, /* easy */
	NAT_GUESS_WAITING, /* easy: all probes are out */
	NAT_GUESS_OVER,    /* until the next round */
};

struct nat_guess {
	enum nat_guess_phase phase;
	struct endpoint target; /* the peer's outside */
	uint64_t due_us;
	unsigned n_sockets, n_sent, n_hits;
	bool meets;          /* both sides are hard, and predict */
	unsigned n_passes;   /* then: how often all sockets have sent */
	uint8_t socket;      /* easy */
	uint16_t next, step; /* easy: of the peer's ports; both hard: of ours, as told */
	struct nat_range likely, all;
};

/*
 *            start, retry                      our list is out
 *   IDLE  ----------------> GATHERING --------------------------> SIGNALLED
 *                 (only after a failure)                              | the peer's list came
 *                                                                     v
 *   RESTING <---------------- no pair works ------------------- CHECKING
 *      |                                                             |
 *      +--> the next round                 CONNECTED <---- some do --+
 *
 * IDLE: nothing was sent or received. GATHERING: the caller is making a fresh
 * socket; gather_us bounds it. SIGNALLED: the peer does not know yet that it
 * should start, or has not said so. CHECKING: some pair has a step to come.
 * RESTING: none, and no pair is announced; retry_us is armed. CONNECTED: some
 * pair is announced and none has a step to come.
 */
enum nat_phase {
	NAT_IDLE,
	NAT_GATHERING,
	NAT_SIGNALLED,
	NAT_CHECKING,
	NAT_RESTING,
	NAT_CONNECTED,
	NAT_PHASE_COUNT,
};

struct nat_agent {
	struct nat_config config;
	struct nat_keys keys;
	uint64_t random;

	enum nat_phase phase;
	uint32_t round;
	bool signalled;    /* our list of this round is out, or SIGNAL told the caller to send it */
	bool listed;       /* the peer's list of this round is here */
	bool fresh;        /* the next round wants a fresh socket */
	unsigned n_failed; /* rounds without success since the last one */
	uint64_t round_us; /* when this round began */
	uint64_t gather_us, answer_us, retry_us;
	uint64_t signal_delay_us;
	const char *fail_reason;

	struct nat_socket sockets[NAT_SOCKETS_MAX];
	size_t n_sockets;
	struct nat_candidate local[NAT_LOCAL_MAX];
	size_t n_local;
	struct nat_candidate remote[NAT_REMOTE_MAX];
	size_t n_remote;
	enum nat_mapping remote_mapping;
	struct nat_address addresses[NAT_ADDRESSES_MAX];
	size_t n_addresses;

	struct nat_pair *pairs[NAT_PAIRS_MAX]; /* most agents have few */
	size_t n_pairs;
	size_t n_learnt; /* of them peer-reflexive */
	struct nat_ack acks[NAT_ACKS_MAX];
	size_t n_acks;
	uint64_t pace_us; /* no probe before this */

	struct nat_sample samples[NAT_SAMPLES_MAX];
	size_t n_samples;
	struct nat_guess guess;
	uint64_t guess_us; /* when to consider it in this round; NEVER_US: not (again) */
	const char *guess_reason;

	uint64_t next_transaction;
	uint64_t seen_top; /* the peer's largest transaction; the window below it follows */
	uint64_t seen[NAT_WINDOW_WORDS];

	struct nat_event *events; /* ring */
	size_t first_event, n_events, event_room;

	uint64_t n_refused, n_bad, n_replayed, n_sent, n_over_budget, n_guessed;
};

void nat_event_push(struct nat_agent *a, const struct nat_event *event);
struct nat_socket *nat_socket_find(struct nat_agent *a, uint8_t id);
/* The newest one that STUN servers have seen: what goes through our NAT goes by this one. */
const struct nat_socket *nat_socket_outer(const struct nat_agent *a);
enum nat_mapping nat_local_mapping(const struct nat_agent *a);
uint64_t nat_random(struct nat_agent *a);

/* ---- pairs: check.c ------------------------------------------------------------------------ */

/* Makes the pairs that are missing, and starts all that are not valid. `lead_us`: how much later
 * than now the peer starts. */
void nat_pairs_start(struct nat_agent *a, uint64_t lead_us, uint64_t now_us);
/* Makes and starts pairs that are missing, and leaves the others as they are. */
void nat_pairs_add(struct nat_agent *a, uint64_t lead_us, uint64_t now_us);
void nat_pair_set_state(struct nat_agent *a, struct nat_pair *p, enum nat_pair_state state,
			const char *because);
void nat_pair_remove(struct nat_agent *a, struct nat_pair *p, const char *because);
struct nat_pair *nat_pair_find(struct nat_agent *a, uint8_t socket, const struct endpoint *remote);
/* Valid pairs are checked again; one that does not answer is lost. */
void nat_pairs_recheck(struct nat_agent *a, uint64_t now_us);
/* Nothing more is sent for pairs that are not valid. */
void nat_pairs_stop(struct nat_agent *a, const char *because);
bool nat_pairs_active(const struct nat_agent *a);
bool nat_pairs_announced(const struct nat_agent *a);
uint64_t nat_pairs_deadline_us(const struct nat_agent *a);
void nat_pairs_tick(struct nat_agent *a, uint64_t now_us);
/* A new round: the budget is full again. */
void nat_budget_renew(struct nat_agent *a);

/* Writes one message, to be sent now. False: the MAC failed. */
bool nat_message_write(struct nat_agent *a, uint8_t socket, const struct endpoint *to,
		       const struct nat_wire *m, struct nat_send *ret_send);

/* ---- guessing ports: guess.c ------------------------------------------------------------------
 */

/* NULL: there is none. Renewed when its hour is over. */
struct nat_allowance *nat_allowance_of(const struct nat_agent *a, uint64_t now_us);
void nat_samples_add(struct nat_agent *a, uint8_t socket, uint16_t port);
void nat_samples_close(struct nat_agent *a, uint8_t socket);
enum nat_allocation nat_local_allocation(const struct nat_agent *a);
/* A round's checks begin; guessing may begin at that time. */
void nat_guess_arm(struct nat_agent *a, uint64_t at_us);
void nat_guess_stop(struct nat_agent *a, const char *because);
bool nat_guess_active(const struct nat_agent *a);
/* What our list says of it, if anything. */
bool nat_guess_offer(const struct nat_agent *a, struct nat_guess_offer *ret_offer);
/* The peer's list may ask for guesses. */
void nat_guess_input(struct nat_agent *a, const struct nat_list *list, uint64_t now_us);
bool nat_guess_output(struct nat_agent *a, struct nat_send *ret_send, uint64_t now_us);
uint64_t nat_guess_deadline_us(const struct nat_agent *a);
void nat_guess_tick(struct nat_agent *a, uint64_t now_us);

/* The agent's reaction to what checking found: agent.c. */
void nat_agent_pair_started(struct nat_agent *a);
void nat_agent_pair_valid(struct nat_agent *a);

#endif
