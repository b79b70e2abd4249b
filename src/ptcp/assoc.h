/*
 * assoc - the association's own state, shared by the files that work on it.
 *
 *   input.c      datagrams in: headers, keys, replay, frames out to their owners
 *   output.c     batches out: which path, which frames, sealing
 *   handshake.c  TLS bytes under the rendezvous key, before anything else
 *   keys.c       key phases
 *   path.c       paths: validation, choice, silence;  pmtu.c their MTU
 *   recovery.c   acknowledgements, loss, probe timeouts
 *   parity.h     parity beside retransmission, both ways
 *   send.c       messages out: queue, fragments, resending, giving up
 *   receive.c    messages in: reassembly, order, delivery
 *   assoc.c      life, timers, events, figures
 *
 * Every function takes the time from its caller; a->now_us is the newest seen.
 */
#ifndef PTCP_ASSOC_H
#define PTCP_ASSOC_H

#include "base/base.h"
#include "ptcp/ack.h"
#include "ptcp/cc.h"
#include "ptcp/conn_glue.h"
#include "ptcp/frames.h"
#include "ptcp/pacer.h"
#include "ptcp/packet.h"
#include "ptcp/memory.h"
#include "ptcp/parity.h"
#include "ptcp/pool.h"
#include "ptcp/ptcp.h"
#include "ptcp/queue.h"
#include "ptcp/replay.h"
#include "ptcp/rtt.h"
#include "ptcp/sent.h"

/* ---- limits ------------------------------------------------------------------------- */

enum {
	HANDSHAKE_BYTES_MAX = 65536, /* TLS bytes in each direction */
	HANDSHAKE_HOLES_MAX = 16,    /* ranges of TLS bytes out of order */
	EVENTS_MAX = 128,            /* waiting for ptcp_next_event() */
	EVENTS_FIRST = 8,
	REST_US = 2000000,   /* without a message for so long, what a burst needed is given back */
	PINGS_MAX = 8,       /* waiting for their PONG */
	PONGS_MAX = 8,       /* to be sent */
	RESPONSES_MAX = 4,   /* PATH_RESPONSEs to be sent, per path */
	CHALLENGES_MAX = 8,  /* whose answers are accepted, per path */
	CHALLENGE_TRIES = 3, /* unanswered, and the path is down */
	OUTAGE_TRIES_FAST = 20, /* on a path that was up, every half second */
	OUTAGE_TRIES = 70,      /* and then every second */
	CLOSE_TRIES = 3,
	MESSAGES_MAX = 16384,         /* queued or in flight */
	COPIES_MAX = 32,              /* waiting for their time */
	MESSAGE_ID_SPAN = 32000,      /* between the oldest in flight and the newest */
	PARTIALS_MAX = 4096,          /* being reassembled or held for order */
	PARTIAL_RANGES_MAX = 64,      /* separate pieces of one message */
	DELIVERED_MAX = 4096,         /* waiting for ptcp_message_next() */
	PARTIAL_AGE_US = 10000000,    /* incomplete for so long, it stays so */
	DONE_BITS = 65536,            /* message ids remembered as seen */
	PATH_SWITCH_MIN_US = 1000000, /* between two switches for the sake of RTT alone */
	ACK_DELAY_MIN_US = 500,
	ACK_DELAY_MAX_US = 5000,
	LOSS_GRANULARITY_US = 1000,
	RATE_WINDOW_US = 2000,
	PATH_SILENCE_MIN_US = 1000000, /* unanswered for so long, the path is down */
	PATH_SILENCE_MAX_US = 5000000,
	LIVENESS_MAX_US = 30000000, /* or config.liveness_us: silence on a path long idle */
	PTO_LEFT_US = 1000000,      /* on a path that is not the active one */
	PTO_MAX_US = 400000,        /* or twice the base, where that is more */
	CHALLENGE_RETRY_MAX_US = 15000000,
};

/* ---- parts -------------------------------------------------------------------------------- */

struct handshake {
	uint8_t *out; /* TLS bytes to send; both buffers go when the handshake is confirmed */
	size_t out_room, out_end, out_acked, out_sent;
	uint8_t *in;
	size_t in_room, in_done; /* in_done: given to TLS */
	struct {
		size_t low, high;
	} in_ranges[HANDSHAKE_HOLES_MAX];
	unsigned n_in_ranges;
	uint64_t next_pn, largest_pn;
	struct replay replay;
	bool done;      /* TLS is complete here */
	bool confirmed; /* ... and there */
	bool ack_owed;
	bool done_owed; /* HANDSHAKE_DONE is to be sent */
	uint64_t retry_us;
	unsigned n_retries;
	uint64_t flight_sent_us; /* of bytes sent once: for the RTT */
	size_t flight_end;
	uint32_t path_id;    /* where the peer was heard last */
	unsigned send_paths; /* bit per path that the flight must still leave on */
};

struct keys {
	uint32_t tx_phase, rx_phase; /* tx is rx, or one ahead until the peer follows */
	uint64_t rx_first_pn;        /* lowest packet number opened in rx_phase */
	uint64_t tx_first_pn;        /* first sealed in tx_phase */
	bool tx_confirmed;           /* a packet sealed in tx_phase was acknowledged */
	bool wanted;
	uint64_t changed_us;
	uint64_t n_forged;
};

struct path_challenge {
	uint8_t data[8];
	uint64_t sent_us;
};

struct path {
	bool used;
	uint32_t id;
	uint8_t index;
	enum ptcp_path_kind kind;
	enum ptcp_path_state state;
	bool by_itself; /* came up by the peer's packets */
	bool named;     /* ... and ptcp_path_add() told us of it afterwards */
	bool was_up;
	uint64_t born_us, first_received_us, last_received_us, last_sent_us;
	uint64_t bytes_received, bytes_sent, n_lost;
	uint64_t keepalive_us; /* 0: by kind */

	/* Validation. */
	struct path_challenge challenges[CHALLENGES_MAX];
	unsigned n_challenges, n_tries; /* ever; since the last answer */
	uint64_t challenge_us;          /* when the next one is to be sent; NEVER_US: none */
	uint64_t challenge_sent_us;
	uint8_t responses[RESPONSES_MAX][8];
	unsigned n_responses;

	/* MTU (pmtu.c). */
	uint16_t mtu_bytes, mtu_max_bytes, mtu_probe_bytes; /* probe: 0 if none is in flight */
	unsigned mtu_step, mtu_tries;
	uint64_t mtu_next_us, mtu_pause_us; /* of the next probe; from this search to the next one */
	bool mtu_rests; /* the next one only after full-size packets again: an idle path has none */
	unsigned n_full_lost; /* full-size packets lost that left after the newest acknowledged one
			       */
	uint64_t full_acked_sequence;

	/* Recovery and congestion. */
	struct rtt rtt;
	struct cc cc;
	struct pacer pacer;
	uint64_t head_pn, tail_pn; /* in flight, in the order they left */
	uint64_t in_flight_bytes;
	/* Sequences of one slot of a->paths never repeat, so a late packet of a removed path shows.
	 */
	uint64_t first_sequence, next_sequence, largest_acked_sequence;
	bool any_acked;
	uint64_t rack_sent_us;     /* of the newest packet that was acknowledged */
	uint64_t loss_us;          /* when the time threshold of the oldest passes */
	uint64_t eliciting_us;     /* last ack-eliciting packet */
	uint64_t progress_us;      /* when something was last acknowledged, or sending began */
	unsigned n_ptos, n_probes; /* in a row; to be sent now, whatever the window */
	unsigned packet_threshold, reorder_multiplier;
	uint64_t reorder_decay_us;
	uint64_t delivered_bytes, delivered_us, first_sent_us;
	uint64_t app_limited_until; /* delivered_bytes up to which samples are limited; 0: none */
	/* Delivery over at least RATE_WINDOW_US, where round trips are too short to measure by. */
	uint64_t window_start_us, window_start_bytes;
	bool window_app_limited;

	struct parity_meter parity;

	/* Of the acknowledgement that is being worked on. */
	uint64_t round_acked_bytes, round_newest_sequence, round_newest_pn;
	uint64_t round_rate, round_prior_delivered;
	bool round_app_limited;
	unsigned round_acked, round_ect;
	bool ecn_works, ecn_failed; /* marks came through once; they do not (RFC 9000, 13.4.2) */
};

/* A message on its way out. */
enum message_state { MESSAGE_FREE, MESSAGE_QUEUED, MESSAGE_SENDING, MESSAGE_ABANDONED };

struct message {
	struct queue_item item; /* while in the queue; next also links the free ones */
	struct pool_buffer buffer;
	uint32_t start_bytes; /* of the buffer, left out in front */
	uint32_t total_bytes, sent_bytes;
	uint32_t generation; /* changes with each use of the slot */
	uint32_t id;
	uint32_t n_pending;      /* fragments in flight or to be sent again */
	uint32_t previous, next; /* in the order of ids */
	uint16_t sequence;
	uint8_t lane;
	uint8_t state; /* enum message_state */
	uint8_t dscp;
	uint8_t sends_max; /* of each fragment; 0: until it is too old */
	bool has_id;       /* linked among those with an id */
	bool in_pieces;    /* the peer may have a part of it */
	uint64_t expires_us;
	uint64_t persistence_us;
};

struct resend {
	uint32_t slot, generation;
	uint32_t offset, length;
	uint8_t n_sends;
	bool cancelled;
	bool rescued; /* the packet that it left in is not lost yet */
};

struct sender {
	struct message *messages;
	uint32_t n_slots, free_slot, n_used;
	struct queue queue;
	struct pool pool;
	uint32_t next_id;
	uint32_t oldest, newest; /* slots with an id, oldest first */
	uint16_t lane_sequence[MESSAGE_LANES];
	/* A ring of lost fragments; numbers grow, head <= tail. */
	struct resend *resends;
	uint32_t resend_head, resend_tail, n_resends; /* n_resends: its size */
	size_t resend_bytes;
	/* A ring of those whose ABANDON is to be sent. */
	struct abandon {
		uint32_t slot, generation;
	} * abandons;
	uint32_t abandon_head, abandon_tail, n_abandons; /* n_abandons: the ring's size */
	/*
	 * Small urgent messages that are to be sent once more, though nobody said that they are
	 * lost, since saying so takes longer than they are worth. A ring, in the order of due_us.
	 */
	struct copy {
		uint32_t slot, generation;
		uint64_t due_us;
	} copies[COPIES_MAX];
	uint32_t copy_head, copy_tail;
	uint64_t copy_tokens, copy_us; /* bytes that copies may cost, and since when */
	struct pool_buffer lent;                         /* by ptcp_message_reserve() */
	bool is_lent;                                    /* the caller has it now */
	uint64_t grace_us; /* nothing is given up for its age before */
	bool blocked;
	uint64_t memory_us; /* no memory: not asked again before; 0: there is some */
};

/* A message on its way in: pieces of it, or the whole, held for its turn. */
struct partial {
	uint32_t id;
	uint32_t next;         /* in its hash bucket, in its lane, or free */
	uint32_t older, newer; /* among those being reassembled */
	struct pool_buffer buffer;
	struct pool_buffer
		range_buffer; /* struct piece[PARTIAL_RANGES_MAX], if inline is too few */
	uint32_t total_bytes, n_pieces;
	uint64_t arrived_us;
	uint16_t sequence;
	uint8_t lane;
	struct piece {
		uint32_t low, high;
	} pieces[2];
};

struct lane {
	uint16_t next_sequence;
	uint32_t head, tail; /* held, in order of their sequence */
};

struct delivered {
	struct pool_buffer buffer;
	uint32_t n_bytes;
};

struct receiver {
	struct pool pool;
	uint64_t done[DONE_BITS / 64];
	uint32_t next_id; /* one above the highest seen */
	struct partial *partials;
	uint32_t n_slots, free_slot;
	uint32_t buckets[1024];
	uint32_t oldest, newest;
	struct lane lanes[MESSAGE_LANES];
	uint64_t held_lanes[MESSAGE_LANES / 64];
	uint32_t n_held;
	uint64_t order_us;                                    /* no held message is due before */
	struct delivered *delivered;                          /* ring */
	uint32_t delivered_head, delivered_tail, n_delivered; /* n_delivered: its size */
	struct pool_buffer borrowed; /* what ptcp_message_next() gave last */
};

struct ping {
	uint32_t id, wire_id;
	uint64_t sent_us; /* NEVER_US: not yet */
};

struct ptcp_assoc {
	struct ptcp_config config;
	enum ptcp_state state;
	uint64_t now_us;
	uint64_t random_counter;
	uint64_t handshake_timeout_us; /* absolute */
	uint64_t last_received_us;
	struct handshake handshake;
	struct keys keys;
	struct sent_ring sent;
	struct ack_state ack;
	struct replay replay;
	struct path paths[PTCP_PATHS_MAX];
	const struct cc_ops *cc_ops;
	struct path *active;   /* NULL: none to send on */
	struct path *heard;    /* where the peer was heard last */
	struct path *ack_path; /* where what is to be acknowledged came last */
	bool relay_allowed;
	uint64_t switched_us, all_down_us; /* all_down_us: when ALL_PATHS_DOWN is due */
	bool all_down_told;
	struct sender sender;
	struct receiver receiver;
	struct parity_sender parity_tx;
	struct parity_receiver parity_rx;
	struct ptcp_conns *conns;
	bool conns_first; /* connections and messages take turns in beginning a packet */
	struct ping pings[PINGS_MAX];
	unsigned n_pings;
	uint32_t next_ping;
	uint32_t pongs[PONGS_MAX];
	unsigned n_pongs;
	uint64_t peer_ce, peer_marked, peer_largest; /* as of its ACKs */
	/* Closing. */
	uint64_t close_code;
	unsigned n_closes;
	uint64_t close_us;
	bool close_answer_owed;
	struct ptcp_event *events; /* ring */
	unsigned event_head, n_events, event_room;
	uint64_t busy_us;  /* a message was last sent or delivered */
	uint64_t decay_us; /* what was not needed till then goes */
	struct ptcp_stats stats;
};

/* A packet being built. */
struct build {
	struct writer w; /* header and frames; 16 bytes of tag fit behind */
	struct path *path;
	struct sent_record records[SENT_RECORDS_MAX];
	unsigned n_records, records_max;
	bool eliciting;
	bool ect; /* leaves as ECT(0) */
	bool ack;
	uint8_t flags;
	/* Of the messages in it: others must not share the batch. */
	uint8_t dscp;
	bool has_dscp, ended;
};
/* One frame was written: remember what it was. */
static inline void build_record(struct build *b, const struct sent_record *record)
{
	b->records[b->n_records++] = *record;
	b->eliciting = true;
}
/* One is left for the acknowledgement. */
static inline bool build_full(const struct build *b)
{
	return b->n_records + 1 >= b->records_max;
}

/* ---- assoc.c --------------------------------------------------------------------------- */
void assoc_set_state(struct ptcp_assoc *a, enum ptcp_state state, const char *because);
/* An early server has keys to send with. */
void assoc_established_early(struct ptcp_assoc *a);
/* TLS is complete: established, if it was not yet. */
void assoc_verified(struct ptcp_assoc *a);
/* Fails the association from inside: tells the peer where that makes sense. */
void assoc_fail(struct ptcp_assoc *a, enum ptcp_close_code code);
void assoc_closed(struct ptcp_assoc *a, uint64_t code, bool by_peer, const char *because);
void assoc_event(struct ptcp_assoc *a, const struct ptcp_event *event);
void assoc_path_event(struct ptcp_assoc *a, enum ptcp_event_type type, uint32_t id, uint32_t from,
		      const char *reason);
void assoc_trace(struct ptcp_assoc *a, const struct ptcp_trace *trace);
uint64_t assoc_random(struct ptcp_assoc *a);
/* Advances a->now_us; returns it. */
uint64_t assoc_now(struct ptcp_assoc *a, uint64_t now_us);

/* ---- handshake.c ------------------------------------------------------------------------- */
int handshake_init(struct ptcp_assoc *a);
void handshake_fini(struct ptcp_assoc *a);
int handshake_frame(struct ptcp_assoc *a, struct reader *r);
void handshake_confirmed(struct ptcp_assoc *a);
/* What is not acknowledged leaves there too. */
void handshake_path_added(struct ptcp_assoc *a, const struct path *p);
void handshake_tick(struct ptcp_assoc *a);
uint64_t handshake_deadline_us(const struct ptcp_assoc *a);
/* One handshake packet into the batch. False: none to send. */
bool handshake_output(struct ptcp_assoc *a, struct ptcp_batch *batch);

/* ---- keys.c -------------------------------------------------------------------------------- */
int keys_open(struct ptcp_assoc *a, bool phase_bit, uint64_t pn, const uint8_t *aad,
	      size_t aad_bytes, uint8_t *data, size_t data_bytes);
/* Before a packet is sealed: moves on to the next phase where that is due. */
void keys_before_seal(struct ptcp_assoc *a);
void keys_acked(struct ptcp_assoc *a, uint64_t pn);

/* ---- path.c ------------------------------------------------------------------------------- */
struct path *path_find(struct ptcp_assoc *a, uint32_t id);
struct path *path_provisional(struct ptcp_assoc *a, uint32_t id);
void path_set_state(struct ptcp_assoc *a, struct path *p, enum ptcp_path_state state,
		    const char *because);
void path_received(struct ptcp_assoc *a, struct path *p, size_t n_bytes);
/* Something that wants an acknowledgement came on p. */
void path_heard_data(struct ptcp_assoc *a, struct path *p);
void path_challenge_now(struct ptcp_assoc *a, struct path *p);
int path_challenge_frame(struct ptcp_assoc *a, struct path *p, struct reader *r);
int path_response_frame(struct ptcp_assoc *a, struct path *p, struct reader *r);
void path_choose(struct ptcp_assoc *a);
void path_tick(struct ptcp_assoc *a, struct path *p);
uint64_t path_deadline_us(const struct ptcp_assoc *a, const struct path *p);
/* Whether what nobody asked for may go there: a path that was not validated may be a stranger's. */
bool path_may_send(const struct path *p);
/* Writes PATH_RESPONSEs and a PATH_CHALLENGE that are due. */
bool path_control_due(const struct ptcp_assoc *a, const struct path *p);
void path_write_control(struct ptcp_assoc *a, struct path *p, struct build *b);
/* Nothing measured there holds any more. */
void path_reset(struct ptcp_assoc *a, struct path *p);
uint64_t path_pto_us(const struct path *p);
/* Whether data leaves there as ECT(0). */
bool path_uses_ecn(const struct ptcp_assoc *a, const struct path *p);
#define PATH_FOREACH(a, p)                                                                         \
	for (struct path *p = (a)->paths; p < (a)->paths + PTCP_PATHS_MAX; p++)                    \
		if (!p->used) {                                                                    \
		} else

/* ---- pmtu.c -------------------------------------------------------------------------------- */
void pmtu_init(struct path *p, uint16_t max_bytes);
void pmtu_start(struct path *p, uint64_t now_us);
/* More may be possible than was: looks for it now. */
void pmtu_again(struct path *p, uint64_t now_us);
/* Size of the probe that is due now; 0: none. */
uint16_t pmtu_probe_due(const struct path *p, uint64_t now_us);
void pmtu_probe_sent(struct path *p, uint16_t n_bytes);
void pmtu_probe_acked(struct path *p, uint16_t n_bytes, uint64_t now_us);
void pmtu_probe_lost(struct path *p, uint16_t n_bytes, uint64_t now_us);
void pmtu_packet_acked(struct path *p, uint16_t n_bytes, uint64_t sequence);
void pmtu_packet_lost(struct path *p, uint16_t n_bytes, uint64_t sequence, uint64_t now_us);
void pmtu_black_hole(struct path *p, uint64_t now_us);

/* ---- recovery.c ------------------------------------------------------------------------------ */
int recovery_ack_frame(struct ptcp_assoc *a, struct reader *r, bool ecn);
/* Makes room for one more packet with so many records. False: no memory. */
bool recovery_make_room(struct ptcp_assoc *a, unsigned n_records);
/* Whether there is room for data too. */
bool recovery_data_room(const struct ptcp_assoc *a);
/* Makes it, where what holds the ring is of no more use. */
void recovery_relieve(struct ptcp_assoc *a);
/* Enters a packet that was just built; its number is a->sent.next_pn. */
void recovery_sent(struct ptcp_assoc *a, const struct build *b, size_t size_bytes);
/* The peer rebuilt this packet: what it carried has arrived, the packet itself was lost. */
void recovery_repaired(struct ptcp_assoc *a, uint64_t pn);
void recovery_tick(struct ptcp_assoc *a, struct path *p);
uint64_t recovery_deadline_us(const struct ptcp_assoc *a, const struct path *p);
/* All in flight on p is lost, without blame. */
void recovery_flush(struct ptcp_assoc *a, struct path *p);

/* ---- send.c ---------------------------------------------------------------------------------- */
int sender_init(struct ptcp_assoc *a);
void sender_fini(struct ptcp_assoc *a);
size_t sender_pending_bytes(const struct sender *s);
/* Writes fragments, lost ones first, until the packet is full or nothing is left. */
void sender_write(struct ptcp_assoc *a, struct build *b);
/* Tells that messages can be taken again, after they could not. */
void sender_check_room(struct ptcp_assoc *a);
/* When the next copy is to leave; NEVER_US: none waits. */
uint64_t sender_copy_due_us(const struct ptcp_assoc *a);
/* Before a batch for this path. */
void sender_fit_queue(struct ptcp_assoc *a, const struct path *p);
void sender_write_abandons(struct ptcp_assoc *a, struct build *b);
void sender_fragment_acked(struct ptcp_assoc *a, struct sent_record *r);
void sender_fragment_lost(struct ptcp_assoc *a, struct sent_record *r, bool rescue);
void sender_abandon_acked(struct ptcp_assoc *a, const struct sent_record *r);
void sender_abandon_lost(struct ptcp_assoc *a, const struct sent_record *r);
/* Nothing is queued or in flight: gives its memory back. */
void sender_rest(struct ptcp_assoc *a);
bool sender_can_rest(const struct ptcp_assoc *a); /* and there is some to give back */

/* ---- receive.c --------------------------------------------------------------------------------
 */
int receiver_init(struct ptcp_assoc *a);
void receiver_fini(struct ptcp_assoc *a);
int receiver_message_frame(struct ptcp_assoc *a, uint8_t type, struct reader *r);
int receiver_abandon_frame(struct ptcp_assoc *a, struct reader *r);
void receiver_tick(struct ptcp_assoc *a);
/* Gives up what has been incomplete for so long that nothing will complete it. */
void receiver_expire(struct ptcp_assoc *a);
uint64_t receiver_deadline_us(const struct ptcp_assoc *a);
void receiver_rest(struct ptcp_assoc *a);
bool receiver_can_rest(const struct ptcp_assoc *a);

/* ---- output.c ---------------------------------------------------------------------------------
 */
/* A path to send a last word on; NULL: there is none. */
struct path *output_any_path(struct ptcp_assoc *a);
uint64_t output_deadline_us(const struct ptcp_assoc *a);
/* Anything congestion controlled to send? */
size_t output_pending_bytes(const struct ptcp_assoc *a);

#endif
