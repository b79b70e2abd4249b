/*
 * sim - associations on a virtual network, under a virtual clock.
 *
 * A world holds one or several pairs of ends. Wires join the two ends of a pair; each has two
 * links, one per direction, that lose, delay, reorder, repeat, cut and flip. Nothing is random
 * but what the world's seed says, so a seed is a whole story and can be told again.
 *
 *   net.c       wires, links, datagrams under way
 *   cipher.c    the null cipher and the handshake; checks what the core promises its keys
 *   memory.c    counts what the core allocates, and refuses it where asked to
 *   messages.c  who sends messages, and what must be true of those that come out
 *   streams.c   the same for pseudo-connections
 *   world.c     time, the pump of each end, the verdict
 *   chaos.c     a world and its mishaps, made from a seed
 *
 * Any check that fails says so by sim_fail(); the first one ends the world.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "base/base.h"
#include "ptcp/ptcp.h"

#define SIM_PAIRS_MAX    3
#define SIM_WIRES_MAX    16
#define SIM_STREAMS_MAX  8
#define SIM_FLOWS_MAX    8
#define SIM_SCRIPT_MAX   64
#define SIM_RECENT       16 /* datagrams kept per pair, to be sent again by an attacker */
#define SIM_MESSAGES_MAX 65536

/* ---- chance ----------------------------------------------------------------------------- */

struct sim_rng {
	uint64_t state;
};
uint64_t sim_random(struct sim_rng *r);
uint64_t sim_below(struct sim_rng *r, uint64_t n); /* 0 .. n-1; n > 0 */
uint64_t sim_between(struct sim_rng *r, uint64_t low, uint64_t high);
bool sim_chance(struct sim_rng *r, unsigned permille);
/* Bytes [offset, offset + n) of an endless text named by `key`. */
void sim_text(uint64_t key, uint64_t offset, uint8_t *out, size_t n_bytes);
bool sim_text_equal(uint64_t key, uint64_t offset, const uint8_t *data, size_t n_bytes);

/* ---- memory: what the code under test holds ------------------------------------------------ */

void *sim_own_alloc(size_t n_bytes); /* zeroed, never NULL, not counted: of the simulator itself */
void sim_own_free(void *p);
size_t sim_memory_used(void);
size_t sim_memory_peak(void);
void sim_memory_peak_reset(void);
uint64_t sim_memory_calls(void);
/* The allocation number `first` from now on fails, and n_more after it; 0: none. */
void sim_memory_refuse(uint64_t first, uint64_t n_more);

/* ---- cipher -----------------------------------------------------------------------------------
 */

struct sim_end;

struct sim_tls {
	struct sim_end *end;
	bool is_server;
	uint64_t key;               /* of the pair */
	size_t flight_bytes[3];     /* client, server, client */
	size_t in_bytes, out_bytes; /* taken in; handed out */
	size_t out_limit;           /* may be handed out by now */
	bool done, refuses;
	uint32_t phase_ready;
	bool sealed_any[2];
	uint64_t sealed_pn[2]; /* last, by epoch */
	uint64_t n_opened, n_forged;
};
struct ptcp_crypto sim_crypto(struct sim_tls *tls);
/* The rendezvous has passed on the client's first flight. */
void sim_tls_begin_early(struct sim_tls *tls);

/* ---- network ------------------------------------------------------------------------------------
 */

struct sim_link { /* one direction */
	uint64_t delay_us, jitter_us;
	uint64_t bytes_per_s; /* 0: no limit */
	uint64_t queue_us;    /* longer waits are drops; 0: no limit */
	unsigned loss_permille, burst_permille, duplicate_permille, corrupt_permille;
	unsigned truncate_permille, reorder_permille, ce_permille;
	unsigned burst_packets; /* lost together */
	uint64_t reorder_us;
	size_t mtu_bytes;  /* larger ones vanish; 0: no limit */
	bool says_too_big; /* ... and the sender is told */
	uint64_t dark_until_us;
	/* State. */
	uint64_t busy_until_us, n_sent, n_dropped, bytes_sent, bytes_delivered, queue_max_us;
	unsigned burst_left;
};

struct sim_wire {
	bool alive;
	int pair;
	enum ptcp_path_kind kind;
	uint16_t path_mtu_bytes; /* as told to the ends */
	uint32_t id[2];          /* what each end calls it now */
	struct sim_link link[2]; /* by sender */
};

struct sim_datagram {
	uint64_t at_us, order;
	uint32_t path_id;
	uint8_t pair, to, ecn;
	size_t n_bytes;
	uint8_t data[];
};

/* ---- messages
 * ------------------------------------------------------------------------------------- */

struct sim_flow {
	uint32_t id;
	bool ordered;
	uint32_t n_sent;
	uint32_t last_seen; /* 1 + number, of those from the peer */
};

struct sim_messages {
	/* To be sent. */
	uint64_t n_left, start_us, interval_us; /* interval 0: as many as there is room for */
	size_t size_min, size_max;
	unsigned big_permille, tiny_permille; /* of 64 KiB; of a few bytes */
	uint64_t persistence_us;
	unsigned n_flows;
	struct sim_flow flows[SIM_FLOWS_MAX];
	uint64_t next_us;
	bool blocked, lend;
	uint64_t n_sent, n_tiny_sent, bytes_sent;
	/* Came from the peer. */
	uint8_t *seen; /* a bit per number */
	uint64_t n_seen, n_tiny_seen, bytes_seen, n_late;
	uint64_t first_us, last_us, delay_max_us;
};

/* ---- streams
 * ---------------------------------------------------------------------------------------- */

enum sim_ending {
	SIM_SHUT_THEN_READ,  /* write, shut down, read to the end, close */
	SIM_READ_THEN_CLOSE, /* write, read to the end, close */
	SIM_CLOSE,           /* write, close without reading */
	SIM_ABORT,           /* at a point within */
};

struct sim_side {
	/* The plan. */
	uint64_t n_bytes, abort_at; /* written and read bytes together */
	enum sim_ending ending;
	size_t chunk_bytes;
	unsigned pause_permille;
	bool peeks;
	/* What happened. */
	uint32_t id; /* 0: none yet */
	bool known, opened, shut, got_eof, released, closed, failed, may_read, may_write;
	uint64_t next_us; /* no reading before; a slow reader */
	enum ptcp_conn_error error;
	uint64_t written, read;
	uint64_t finished_us; /* when the end of the peer's stream was read */
};

struct sim_stream {
	bool used, refused, both_open;
	int opener;
	uint16_t port, local_port;
	uint64_t start_us;
	bool started[2];
	struct sim_side side[2]; /* by end */
};

/* ---- the world
 * ---------------------------------------------------------------------------------------- */

struct sim_world;

struct sim_end {
	struct sim_world *world;
	struct sim_pair *pair;
	int index;
	struct ptcp_assoc *a; /* NULL once freed, or killed */
	struct ptcp_config config;
	struct sim_tls tls;
	bool dirty; /* to be pumped now */
	uint64_t wake_us, asleep_until_us, late_us;
	unsigned n_spins;
	size_t batch_bytes;
	bool adopts; /* tells the core of paths that came up by themselves */
	struct sim_messages messages;
	uint32_t listener;
	/* Seen. */
	uint64_t n_established, n_verified, n_closed, close_code, n_path_up, n_path_down,
		n_path_new, n_all_down, n_switched, n_pongs;
	uint64_t closed_us, path_down_us, all_down_us, established_us, switched_us;
	bool closed_by_peer;
	uint64_t n_datagrams_sent, n_datagrams_received, bytes_sent;
};

struct sim_pair {
	bool used;
	int index;
	struct sim_end end[2]; /* 0: client */
	struct sim_stream streams[SIM_STREAMS_MAX];
	struct sim_datagram *recent[SIM_RECENT];
	unsigned n_recent;
	bool killed, torn, turned_away; /* an end vanished; closed in the middle; by TLS */
};

typedef void sim_action(struct sim_world *w, int pair, int end, uint64_t value);

struct sim_world {
	uint64_t seed, now_us;
	struct sim_rng rng;
	bool verbose, tells_all; /* tells_all: of each datagram */
	bool forgiving; /* memory is refused: what fails is fine as long as nothing breaks */
	struct sim_pair pairs[SIM_PAIRS_MAX];
	struct sim_wire wires[SIM_WIRES_MAX];
	uint32_t next_path_id;
	struct sim_datagram **heap;
	size_t n_heap, heap_size;
	uint64_t next_order;
	struct {
		uint64_t at_us;
		sim_action *action;
		int pair, end;
		uint64_t value;
	} script[SIM_SCRIPT_MAX];
	unsigned n_script;
	uint64_t n_datagrams, n_pumps, n_idle_pumps;
	char failure[512]; /* empty: none */
};

struct sim_world *sim_world_new(uint64_t seed);
/* Also checks that nothing of the core's memory is left. */
void sim_world_free(struct sim_world *w);
void sim_fail(struct sim_world *w, const char *format, ...) PRINTF_LIKE(2, 3);
void sim_log(const struct sim_world *w, const char *format, ...) PRINTF_LIKE(2, 3);

/* A pair with these configurations; what matters for joining them is filled in. */
struct sim_pair *sim_pair_add(struct sim_world *w, const struct ptcp_config *config);
/* Creates the associations. False without memory. */
bool sim_pair_start(struct sim_world *w, struct sim_pair *pair);
void sim_at(struct sim_world *w, uint64_t at_us, sim_action *action, int pair, int end,
	    uint64_t value);
typedef bool sim_until(struct sim_world *w);
/* Runs until `until` says so (true), the time is over, or a check failed. */
bool sim_run(struct sim_world *w, uint64_t for_us, sim_until *until);
#define SIM_PAIR_FOREACH(w, p)                                                                     \
	for (struct sim_pair *p = (w)->pairs; p < (w)->pairs + SIM_PAIRS_MAX; p++)                 \
		if (!p->used) {                                                                    \
		} else

/* net.c. A wire exists at once; the ends learn of it by sim_wire_tell(). NULL: too many. */
struct sim_wire *sim_wire_add(struct sim_world *w, int pair, enum ptcp_path_kind kind,
			      const struct sim_link *there, const struct sim_link *back);
void sim_wire_tell(struct sim_world *w, struct sim_wire *wire, int end);
/* The end `seen_by` finds the peer at a new address. */
void sim_wire_rebind(struct sim_world *w, struct sim_wire *wire, int seen_by);
struct sim_wire *sim_wire_find(struct sim_world *w, int pair, int end, uint32_t path_id);
void sim_transmit(struct sim_end *from, const struct ptcp_batch *batch);
uint64_t sim_net_next_us(const struct sim_world *w);
void sim_net_deliver(struct sim_world *w);
void sim_net_fini(struct sim_world *w);
/* Something not from the peer: kind 0 a copy of an old datagram, 1 noise, 2 from another pair. */
void sim_net_forge(struct sim_world *w, struct sim_pair *pair, int to, unsigned kind);

/* messages.c, streams.c: take their turn; true if anything was done. */
void sim_messages_init(struct sim_messages *m);
bool sim_messages_run(struct sim_end *e);
uint64_t sim_messages_next_us(const struct sim_end *e);
void sim_messages_take(struct sim_end *e, const uint8_t *data, size_t n_bytes);
bool sim_messages_sent(const struct sim_end *e);
void sim_messages_check(struct sim_end *e); /* once nothing is under way */

void sim_streams_listen(struct sim_end *e);
bool sim_streams_run(struct sim_end *e);
uint64_t sim_streams_next_us(const struct sim_end *e);
void sim_streams_event(struct sim_end *e, const struct ptcp_conn_event *event);
bool sim_streams_done(const struct sim_end *e);
void sim_streams_check(struct sim_pair *p);

/* ---- a seed's story
 * ----------------------------------------------------------------------------------------- */

/* Plays it. False: failed; text (static) says how. */
bool sim_play(uint64_t seed, bool verbose, const char **ret_failure);

#endif
