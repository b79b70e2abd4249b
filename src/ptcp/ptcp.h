/*
 * ptcp - PTCP/2: the encrypted, loss-repairing transport between two daemons.
 *
 * One association per pair of daemons carries messages (IP packets, bounded
 * reliability) and pseudo-connections (ptcp/conn.h, byte streams) over any
 * number of paths, and moves from one path to another without losing a packet.
 * The wire stands in doc/ptcp.md.
 *
 * Sans-IO: the caller owns sockets, clock, randomness and keys. The pump is:
 * ptcp_input() for what has come; ptcp_message_next() until false;
 * ptcp_tick() if ptcp_deadline_us() has passed; ptcp_next_event() until false;
 * ptcp_output() until false; then sleep until ptcp_deadline_us(). One thread
 * per association. now_us never runs backwards; where it does, the last value
 * is used.
 */
#ifndef PTCP_PTCP_H
#define PTCP_PTCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ptcp/conn.h"

#define PTCP_CID_BYTES          8
#define PTCP_TAG_BYTES          16
#define PTCP_MESSAGE_BYTES_MAX  (65535 + 16) /* an IP packet with a virtio header in front */
#define PTCP_MTU_MIN            1200         /* UDP payload that every path must carry */
#define PTCP_MTU_MAX            16384
#define PTCP_BATCH_BYTES_MAX    65507 /* one UDP_SEGMENT send */
#define PTCP_BATCH_SEGMENTS_MAX 64
#define PTCP_PATHS_MAX          16
#define PTCP_PATH_NONE          UINT32_MAX

/* ---- what the association needs of the outside -------------------------------- */

enum ptcp_role { PTCP_CLIENT, PTCP_SERVER };

enum ptcp_epoch {
	PTCP_EPOCH_HANDSHAKE, /* key from the rendezvous secret; phase is 0 */
	PTCP_EPOCH_DATA,      /* keys of the TLS exporter; phase counts key updates */
};

struct ptcp_crypto {
	void *ctx;
	/* TLS bytes of the peer, in order. Called once with 0 bytes to start the client. < 0:
	 * fatal. */
	int (*handshake_input)(void *ctx, const uint8_t *data, size_t n_bytes);
	/* Takes TLS bytes to send. Returns how many; 0: none now. */
	size_t (*handshake_output)(void *ctx, uint8_t *out, size_t out_bytes);
	/* The peer is verified and the keys of epoch DATA, phase 0 and 1, can be used. */
	bool (*handshake_done)(void *ctx);
	/* Seals data[0..data_bytes) in place, the tag goes behind it. 0, or < 0: fatal. */
	int (*seal)(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn,
		    const uint8_t *aad, size_t aad_bytes, uint8_t *data, size_t data_bytes);
	/* Opens in place; data_bytes includes the tag. 0, or -EBADMSG. */
	int (*open)(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn,
		    const uint8_t *aad, size_t aad_bytes, uint8_t *data, size_t data_bytes);
	/*
	 * Makes the keys of `phase` ready, which is one above any so far. Those of the two phases
	 * before it stay, older ones are wiped. 0, or < 0: fatal.
	 */
	int (*next_phase)(void *ctx, uint32_t phase);
	/* Both ends have finished: handshake_input, _output and _done are not called again. May be
	 * NULL. */
	void (*handshake_over)(void *ctx);
};

/*
 *   HANDSHAKING --TLS done--> ESTABLISHED --close()--> CLOSING --> CLOSED
 *        |                         |                                 ^
 *        +--- timeout, TLS error, peer's close, idle timeout --------+
 *
 * HANDSHAKING  only handshake packets are sent and understood; an early server skips it
 * ESTABLISHED  messages and connections flow; at least one path was validated once
 * CLOSING      our CLOSE is repeated until the peer's comes or 3 were sent; nothing else is sent
 * CLOSED       nothing is sent or understood any more; free it
 */
enum ptcp_state { PTCP_HANDSHAKING, PTCP_ESTABLISHED, PTCP_CLOSING, PTCP_CLOSED, PTCP_STATE_COUNT };
const char *ptcp_state_name(enum ptcp_state state);

/* Codes of a close. The application may use those from PTCP_CLOSE_APPLICATION on. */
enum ptcp_close_code {
	PTCP_CLOSE_DONE,              /* closed in order */
	PTCP_CLOSE_HANDSHAKE_FAILED,  /* TLS said no: wrong key, certificate, version */
	PTCP_CLOSE_HANDSHAKE_TIMEOUT, /* local only */
	PTCP_CLOSE_IDLE_TIMEOUT,      /* local only: nothing heard for config.idle_timeout_us */
	PTCP_CLOSE_PROTOCOL,          /* the peer sent what the specification forbids */
	PTCP_CLOSE_KEYS_EXHAUSTED,    /* packet numbers or forgeries reached their limit */
	PTCP_CLOSE_INTERNAL,          /* no memory, sealing failed */
	PTCP_CLOSE_APPLICATION = 64,  /* and above, up to 2^32 - 1 */
};
const char *ptcp_close_code_name(uint64_t code);

/* In order of preference. */
enum ptcp_path_kind {
	PTCP_PATH_DIRECT,
	PTCP_PATH_DIRECT_STREAM, /* a byte stream to the peer: it never loses, and it queues */
	PTCP_PATH_RELAY,        /* a relay of datagrams */
	PTCP_PATH_RELAY_STREAM, /* such a stream through a relay */
	PTCP_PATH_KIND_COUNT,
};

/*
 *   NEW --challenge answered--> UP --silence--> DOWN --challenge answered--> UP
 *    \------ 3 challenges unanswered -----------^
 */
enum ptcp_path_state { PTCP_PATH_NEW, PTCP_PATH_UP, PTCP_PATH_DOWN, PTCP_PATH_STATE_COUNT };
const char *ptcp_path_state_name(enum ptcp_path_state state);

/* What happened, for logs. Must not call back. Text is static. */
struct ptcp_trace {
	enum { PTCP_TRACE_STATE, PTCP_TRACE_PATH_STATE, PTCP_TRACE_NOTE } what;
	const char *from, *to, *because;
	uint32_t path_id; /* PTCP_PATH_NONE if it concerns no path */
	uint64_t value;
};

enum ptcp_signal {
	PTCP_SIGNAL_DROP,      /* it is dropped: nothing else says it */
	PTCP_SIGNAL_MARKED,    /* it says so itself now (ECN), and is sent */
	PTCP_SIGNAL_SHORTENED, /* it is sent without its first *ret_cut_bytes; not all of them */
};

/* Parity packets beside retransmission (doc/ptcp.md, section 6.4). */
enum ptcp_parity {
	PTCP_PARITY_OFF,    /* none are sent, and the peer must send none */
	PTCP_PARITY_AUTO,   /* where it pays */
	PTCP_PARITY_ALWAYS, /* for tests: whatever was measured */
};
enum ptcp_congestion_control { PTCP_CC_BBR, PTCP_CC_CUBIC, PTCP_CC_COUNT };
/* "bbr", "cubic"; NULL: no such one. */
const char *ptcp_congestion_control_name(enum ptcp_congestion_control cc);

struct ptcp_config {
	enum ptcp_role role;
	uint8_t local_cid[PTCP_CID_BYTES], remote_cid[PTCP_CID_BYTES];
	struct ptcp_crypto crypto;
	/*
	 * The client's first flight was passed on by the rendezvous, which proved whose it is. The
	 * server's crypto has taken it: handshake_output gives the whole answer, epoch DATA can be
	 * sealed, and the server is established at once. It understands no data before the client
	 * has proved itself by TLS too (PTCP_EVENT_VERIFIED). Both ends must say the same.
	 */
	bool early;
	uint64_t random_seed[2]; /* challenges and jitter; secret, never the same twice */
	/* All of these: 0 takes the default. UINT64_MAX turns a time off where that makes sense. */
	uint64_t handshake_timeout_us; /* 15 s */
	uint64_t idle_timeout_us;      /* nothing heard from the peer; 5 min */
	uint64_t outage_us;            /* no path up for so long: ALL_PATHS_DOWN; 5 s */
	uint64_t keepalive_direct_us;  /* on direct paths, for NATs; 25 s */
	uint64_t keepalive_relay_us;   /* on relay paths; off */
	uint64_t liveness_us;          /* silence after which the active path is tested; 5 s */
	uint64_t key_update_us;        /* 10 min */
	uint64_t key_update_packets;   /* 2^26 */
	uint64_t persistence_us;       /* 0: min(4 SRTT, 1 s), at least 100 ms */
	struct ptcp_memory *memory;    /* shared by all associations; NULL: no common bound */
	size_t send_queue_bytes;       /* not sent yet; above, the fattest flow pays; 24 MiB */
	size_t send_memory_bytes;      /* messages queued or in flight; 48 MiB */
	/* Reassembly, order and delivery; at least what the peer may have in flight. 48 MiB */
	size_t receive_memory_bytes;
	uint32_t in_flight_packets; /* rounded up to a power of two; 32768 */
	bool ecn;                   /* mark packets ECT(0) and answer to CE */
	/*
	 * The flow of this message has a standing queue, and its sender must hear of it: changes
	 * the message in place, for PTCP does not know what is in it. NULL: such are dropped.
	 */
	enum ptcp_signal (*signal)(void *user, uint8_t *message, size_t n_bytes,
				   size_t *ret_cut_bytes);
	void *signal_user;
	/* Anything but OFF: the peer understands it too, and ptcp_parity_available(). */
	enum ptcp_parity parity;

	enum ptcp_congestion_control congestion_control;
	struct ptcp_conn_limits conn_limits;
	void (*trace)(void *user, const struct ptcp_trace *trace,
		      uint64_t now_us); /* may be NULL */
	ptcp_conn_trace_fn *conn_trace; /* may be NULL */
	void *trace_user;
};

/*
 * A bound on the buffers of many associations together: messages both ways, streams both ways (with
 * what their peers were promised), parity. None takes more than the rest leave free, so one that is
 * alone gets half, each of two a third, and so on (the dynamic threshold of shared packet buffers,
 * Choudhury and Hahne 1998). A little is everybody's whatever the others do: 128 KiB of messages
 * each way, and 8 KiB to receive and 4 KiB to send for each of 16 streams.
 */
struct ptcp_memory {
	size_t limit_bytes, held_bytes;
};

/* ---- life ------------------------------------------------------------------------ */

struct ptcp_assoc;

/* Whether this build can do parity (doc/ptcp.md, section 6.4). */
bool ptcp_parity_available(void);

/* NULL without memory. The configuration is copied. */
struct ptcp_assoc *ptcp_assoc_new(const struct ptcp_config *config, uint64_t now_us);
/* Sends nothing: close first where the peer should know. NULL is fine. */
void ptcp_assoc_free(struct ptcp_assoc *a);
enum ptcp_state ptcp_assoc_state(const struct ptcp_assoc *a);
/* Tells the peer; the state goes to CLOSING and soon to CLOSED. 0, -EALREADY. */
int ptcp_assoc_close(struct ptcp_assoc *a, uint64_t code, uint64_t now_us);
/* Starts a key update as soon as one is allowed. 0, -ENOTCONN. */
int ptcp_assoc_update_keys(struct ptcp_assoc *a);

/* ---- paths: ids are chosen by the caller ------------------------------------------ */

/*
 * Adds a path, or fixes kind and MTU of one that came up by itself. mtu_bytes: the largest UDP
 * payload worth probing for, PTCP_MTU_MIN to PTCP_MTU_MAX; the path starts at PTCP_MTU_MIN.
 * Kinds are preferred in their order, then paths with clearly lower RTT.
 * 0; -ENOBUFS: PTCP_PATHS_MAX reached; -EINVAL.
 */
int ptcp_path_add(struct ptcp_assoc *a, uint32_t path_id, enum ptcp_path_kind kind,
		  uint16_t mtu_bytes, uint64_t now_us);
/* What is in flight there counts as lost. -ENOENT. */
int ptcp_path_remove(struct ptcp_assoc *a, uint32_t path_id, uint64_t now_us);
/* Overrides the keepalive of one path; UINT64_MAX: none. -ENOENT. */
int ptcp_path_set_keepalive(struct ptcp_assoc *a, uint32_t path_id, uint64_t interval_us);
/* The network changed below: test this path now, and forget what was measured. -ENOENT. */
int ptcp_path_check(struct ptcp_assoc *a, uint32_t path_id, uint64_t now_us);
/* Direct paths only if false: then a relay path is used for the handshake and nothing else. */
void ptcp_set_relay_allowed(struct ptcp_assoc *a, bool allowed, uint64_t now_us);

/* ---- datagrams -------------------------------------------------------------------- */

/* 0x40..0x7f or 0xc0..0xff in the first byte, and long enough to be looked at. */
bool ptcp_is_packet(const uint8_t *data, size_t n_bytes);
/* The association a datagram is for: its local connection id. Only where ptcp_is_packet(). */
const uint8_t *ptcp_packet_cid(const uint8_t *data);

/*
 * One received datagram (or one segment of a GRO batch); decrypted in place, not needed
 * afterwards. ecn: the two ECN bits of the IP header, 0 if unknown. A path_id not added before
 * becomes a path once a packet on it authenticates (event PATH_NEW): it is challenged, gets at
 * most 3 times what came from it until that is answered, and is used if the peer moved there.
 * 0; -EBADMSG: not ours, forged or malformed; -ESTALE: seen before or too old; -ENOTCONN: closed.
 * All but 0 mean: dropped and counted.
 */
int ptcp_input(struct ptcp_assoc *a, uint32_t path_id, uint8_t *data, size_t n_bytes, uint8_t ecn,
	       uint64_t now_us);

struct ptcp_batch {
	/* in: room, at least PTCP_MTU_MIN; PTCP_BATCH_BYTES_MAX is best */
	uint8_t *data;
	size_t size_bytes;
	/* out: all segments are segment_bytes long, but the last may be shorter */
	uint32_t path_id;
	size_t used_bytes;
	size_t segment_bytes;
	uint8_t ecn, dscp;  /* bits to set */
	bool dont_fragment; /* an MTU probe: must leave with DF set or not at all */
};
/* Fills one batch for one path. False: nothing to send now. Call until false. */
bool ptcp_output(struct ptcp_assoc *a, struct ptcp_batch *batch, uint64_t now_us);
/* The system refused a batch with EMSGSIZE: the path's MTU falls at once. */
void ptcp_path_too_big(struct ptcp_assoc *a, uint32_t path_id, size_t segment_bytes,
		       uint64_t now_us);

uint64_t ptcp_deadline_us(const struct ptcp_assoc *a); /* UINT64_MAX: none */
void ptcp_tick(struct ptcp_assoc *a, uint64_t now_us);

/* ---- events ------------------------------------------------------------------------ */

enum ptcp_event_type {
	PTCP_EVENT_ESTABLISHED, /* data can be sent */
	PTCP_EVENT_VERIFIED,    /* TLS is complete; with the one above but for an early server */
	/* closed; once, as soon as it is decided. Go on until the state is PTCP_CLOSED, so that the
	 * peer hears of it. */
	PTCP_EVENT_CLOSED,
	PTCP_EVENT_PATH_NEW,       /* path.id: the peer's packets come from an unknown path */
	PTCP_EVENT_PATH_UP,        /* path.id was validated */
	PTCP_EVENT_PATH_DOWN,      /* path.id, path.reason: not heard from; it is tried again */
	PTCP_EVENT_PATH_SWITCHED,  /* path.from -> path.id is the one we send on */
	PTCP_EVENT_ALL_PATHS_DOWN, /* no path was up for config.outage_us */
	PTCP_EVENT_PONG,           /* pong */
	PTCP_EVENT_MESSAGE_ROOM,   /* after PTCP_BLOCKED: messages can be sent again */
	PTCP_EVENT_CONN,           /* conn */
	PTCP_EVENT_TYPE_COUNT,
};
const char *ptcp_event_type_name(enum ptcp_event_type type);

struct ptcp_event {
	enum ptcp_event_type type;
	union {
		struct {
			uint64_t code; /* enum ptcp_close_code or the application's */
			bool by_peer;
		} closed;
		struct {
			uint32_t id, from; /* from: PTCP_PATH_NONE at first */
			const char *reason;
		} path;
		struct {
			uint32_t id, path_id;
			uint64_t rtt_us;
		} pong;
		struct ptcp_conn_event conn;
	};
};
bool ptcp_next_event(struct ptcp_assoc *a, struct ptcp_event *ret_event);

/* ---- messages ------------------------------------------------------------------------ */

struct ptcp_message_info {
	uint32_t flow;       /* hash of the inner flow; 0: none, a queue of its own */
	bool ordered;        /* keep order within the flow; else delivered as it comes */
	bool urgent;         /* may overtake other flows, within its share (EF, small packets) */
	uint8_t resends_max; /* lost fragments are sent again so often; 0: until it is too old */
	uint8_t dscp;        /* of the datagrams that carry it: they carry no others then */
	uint64_t persistence_us; /* how long losses are repaired; 0: config.persistence_us */
};

struct ptcp_part { /* as struct iovec */
	const void *data;
	size_t n_bytes;
};

/*
 * Queues one message, gathered from n_parts. Exactly one of: 0, it was copied; PTCP_BLOCKED: what
 * is in flight fills the memory (stop reading the TUN; PTCP_EVENT_MESSAGE_ROOM tells when to go
 * on); -EMSGSIZE; -ENOTCONN: not established or closed. Above config.send_queue_bytes messages of
 * the flow that has most are dropped, perhaps this one.
 */
int ptcp_message_send(struct ptcp_assoc *a, const struct ptcp_message_info *info,
		      const struct ptcp_part *parts, size_t n_parts, uint64_t now_us);
/*
 * The same without a copy: reserve lends PTCP_MESSAGE_BYTES_MAX bytes to read a packet into
 * (NULL: blocked, as above, or not established), commit queues the first n_bytes of them; 0 bytes
 * give it back. At most one is lent at a time; it stays valid until commit.
 */
uint8_t *ptcp_message_reserve(struct ptcp_assoc *a);
int ptcp_message_commit(struct ptcp_assoc *a, const struct ptcp_message_info *info, size_t n_bytes,
			uint64_t now_us);
/* Whether a message can be queued now and none is dropped for it. */
bool ptcp_message_room(const struct ptcp_assoc *a);
/* Takes the next delivered message; borrowed until the next call with this association. */
bool ptcp_message_next(struct ptcp_assoc *a, const uint8_t **ret_data, size_t *ret_bytes);

/* Sends a PING; PTCP_EVENT_PONG with this id follows if it is answered. 0, -ENOTCONN, -ENOBUFS. */
int ptcp_ping(struct ptcp_assoc *a, uint32_t id, uint64_t now_us);

/* ---- figures ---------------------------------------------------------------------------- */

struct ptcp_stats {
	uint64_t bytes_sent, bytes_received; /* UDP payload */
	uint64_t packets_sent, packets_received;
	uint64_t packets_acked, packets_lost,
		packets_spurious;                /* spurious: lost, then acknowledged */
	uint64_t packets_bad, packets_duplicate; /* received and dropped */
	uint64_t fragments_resent, bytes_resent;
	uint64_t messages_sent, messages_delivered, message_bytes_sent, message_bytes_delivered;
	uint64_t messages_abandoned;      /* given up by us: too old */
	uint64_t messages_abandoned_peer; /* given up by the peer */
	uint64_t messages_dropped_queue;  /* before sending: old, no room, or as a signal */
	uint64_t messages_dropped_full;   /* of those: no room */
	uint64_t messages_marked;         /* sent with a sign of congestion in them */
	uint64_t messages_shortened;      /* sent without their first part, as a signal */
	uint64_t messages_dropped_memory; /* received, but receive_memory_bytes was used up */
	uint64_t messages_copied; /* sent twice: urgent ones, on a path that loses */
	uint64_t messages_duplicate;
	uint64_t order_timeouts; /* a flow moved on without a missing message */
	uint64_t parity_sent, parity_bytes_sent, parity_received; /* packets with parity */
	uint64_t packets_rebuilt;                                 /* by us; the peer lost them */
	uint64_t packets_repaired;                                /* by the peer */
	uint64_t ptos, path_switches, key_updates;
	uint64_t rests; /* times that what a burst needed was given back */
	size_t send_queue_bytes, send_memory_bytes, receive_memory_bytes; /* now */
	uint32_t active_path_id;                                          /* or PTCP_PATH_NONE */
};
void ptcp_get_stats(const struct ptcp_assoc *a, struct ptcp_stats *ret_stats);

struct ptcp_path_stats {
	uint32_t path_id;
	enum ptcp_path_kind kind;
	enum ptcp_path_state state;
	bool active;
	uint16_t mtu_bytes;
	uint64_t srtt_us, rttvar_us, min_rtt_us, latest_rtt_us; /* 0: not measured */
	uint64_t cwnd_bytes, in_flight_bytes, pacing_bytes_per_s, bandwidth_bytes_per_s;
	uint64_t bytes_sent, bytes_received, packets_lost;
	uint32_t random_loss_ppm; /* measured while no queue explains it */
	bool parity;              /* protects what we send there */
	uint64_t last_received_us;
	const char *cc, *cc_mode; /* the controller, and what it is doing */
	bool ecn;                 /* packets leave with ECN marks */
};
/* The path at `index` of those that there are. False: no more. */
bool ptcp_get_path_stats(const struct ptcp_assoc *a, unsigned index,
			 struct ptcp_path_stats *ret_stats);

#endif
