/*
 * conn_private - the objects behind conn_glue.h, shared by the conn_*.c files.
 */
#ifndef PTCP_CONN_PRIVATE_H
#define PTCP_CONN_PRIVATE_H

#include "ptcp/conn_glue.h"
#include "ptcp/conn_ranges.h"
#include "ptcp/conn_ring.h"
#include "ptcp/memory.h"

#define CONN_N_BUCKETS    256u
#define CONN_ID_MAX       ((UINT32_C(1) << 30) - 1) /* four bytes on the wire */
#define CONN_SYN_BITS     4096u                     /* SYNs remembered, see syn_is_new() */
#define CONN_N_REFUSED    256u                      /* refusals on their way to the peer */
#define CONN_WINDOW_MIN   8192u                     /* promised to every connection */
#define CONN_OFFSET_MAX   ((UINT64_C(1) << 62) - 1)
#define CONN_SURE         16u   /* so many may be there whatever others hold */
#define CONN_RING_SURE    4096u /* of our own stream, for each of those that are there */
#define CONN_PORT_DYNAMIC 49152u
/* A data frame carries at most this, so that its length is a varint of two bytes. */
#define CONN_DATA_BYTES_MAX 16383u

TAILQ_HEAD(conn_list, conn);

/* Our own stream: [una, end) is in the ring, of which [una, next) was sent at least once. */
struct conn_out {
	struct conn_ring ring;
	struct conn_ranges acked; /* above una */
	struct conn_ranges lost;  /* to be sent again; nothing of it is acked */
	uint64_t una, next, end;
	uint64_t limit; /* the peer takes offsets below this */
	bool fin;       /* the stream ends at `end` */
	bool fin_sent, fin_lost, fin_acked;
	bool short_write; /* the application waits for room */
	uint64_t resent_bytes;
};

/* The peer's stream: [read, next) can be read, ranges above next are in `early`. */
struct conn_in {
	struct conn_ring ring;
	struct conn_ranges early;
	uint64_t read, next, highest;
	uint64_t limit;    /* promised to the peer; never goes back */
	uint64_t promised; /* of that, what counts in window_total_bytes */
	bool fin;          /* the stream ends at final */
	uint64_t final;
	size_t window_bytes;
	uint64_t epoch_us, epoch_read; /* autotuning */
};

struct conn {
	struct ptcp_conns *table;
	struct conn *hash_next;
	TAILQ_ENTRY(conn) all_link, send_link, event_link;
	bool in_send, in_event;

	uint32_t id, remote_id; /* remote_id 0: not known yet */
	uint16_t local_port, remote_port;
	uint32_t listener; /* that brought it in, or 0 */
	uint8_t service_bytes;
	char service[PTCP_CONN_SERVICE_BYTES_MAX + 1];

	enum ptcp_conn_state state;
	enum ptcp_conn_error error;
	bool by_peer;
	bool incoming;     /* came in by a SYN */
	bool accepted;     /* our SYN+ACK may leave */
	bool syn_ack_sent; /* so the peer may know our id */
	bool syn_acked;    /* the peer has our SYN+ACK, or we have its own */
	bool released;     /* the application gave the id back */
	bool rst_owed;     /* the peer must hear of the end ... */
	bool rst_done;     /* ... and has */
	bool want_syn, want_syn_ack, want_window, want_rst;
	bool is_listener; /* not one of its copies */
	uint32_t n_backlog;
	uint32_t events; /* bit set of enum ptcp_conn_event_type not handed out yet */
	uint64_t deadline_us;

	struct conn_out out;
	struct conn_in in;
	size_t held_bytes; /* of the memory that is shared: rings, and what the peer may fill */
};

enum refusal_state { REFUSAL_FREE, REFUSAL_DUE, REFUSAL_SENT };

/*
 * A RST for a connection of the peer's of which we have none. Kept apart from connections and
 * without allocation, because the want of those may be the reason.
 */
struct conn_refusal {
	uint32_t remote_id;
	uint8_t error; /* enum ptcp_conn_error */
	enum refusal_state state;
	bool is_open; /* the peer takes it for open, no timeout would end it */
};

struct ptcp_conns {
	struct ptcp_conns_config config; /* limits with the defaults filled in */
	struct conn *buckets[CONN_N_BUCKETS];
	struct conn_list all, sendable, with_events;
	uint32_t n_conns, n_listeners;
	uint32_t next_id;
	uint16_t next_port;
	bool lost;                   /* the association is gone */
	size_t send_total_bytes;     /* allocated in rings of our streams */
	uint64_t window_total_bytes; /* promised and not read yet */
	size_t held_bytes;           /* by all connections, as struct conn has it */
	uint64_t srtt_us, pto_us;
	uint64_t deadline_us;
	struct conn_refusal refusals[CONN_N_REFUSED];
	uint32_t n_refusals;  /* not FREE ... */
	uint32_t n_due;       /* ... and to be sent */
	uint64_t syn_highest; /* of the peer's ids */
	uint64_t syn_seen[CONN_SYN_BITS / 64];
};

struct conn_syn {
	uint32_t id; /* the peer's */
	uint16_t from_port, to_port;
	uint64_t window;
	const uint8_t *service;
	size_t service_bytes;
};

/* ---- conn_table.c ---- */

struct conn *conn_find(const struct ptcp_conns *t, uint32_t id);
/* By the peer's id. */
struct conn *conn_find_remote(const struct ptcp_conns *t, uint32_t remote_id);
/* Whether there may be one more: the limit, ids, and the memory that is shared. */
bool conn_has_room(const struct ptcp_conns *t);
/* Tells the memory that is shared what c holds now. */
void conn_account(struct conn *c);
/* A connection in state CLOSED. NULL without memory, or where there is no room. */
struct conn *conn_new(struct ptcp_conns *t);
/* Every entry point ends with this: lists, deadline, and freeing what nobody needs any more. */
void conn_settle(struct conn *c, uint64_t now_us);
void conn_syn_input(struct ptcp_conns *t, const struct conn_syn *syn, uint64_t now_us);
void conn_event(struct conn *c, enum ptcp_conn_event_type type);
void conn_set_deadline(struct conn *c, uint64_t deadline_us);

/* ---- conn_state.c ---- */

/* Feeds one input to the state machine; false when it means nothing in this state. */
bool conn_dispatch(struct conn *c, enum ptcp_conn_input input, uint64_t now_us);
/* Ends c with a RST (where the peer knows of it) and this reason. */
void conn_fail(struct conn *c, enum ptcp_conn_error error, uint64_t now_us);
bool conn_can_send(const struct conn *c);    /* data and FIN may leave now */
bool conn_can_receive(const struct conn *c); /* the peer's stream has not ended */

/* ---- conn_refuse.c ---- */

/* Tells the peer's connection `remote_id`, of which we have none, to go away. */
void conn_refuse(struct ptcp_conns *t, uint32_t remote_id, enum ptcp_conn_error error,
		 bool is_open);
bool conn_refusal_write(struct ptcp_conns *t, struct writer *w, struct ptcp_conn_sent *ret_sent);
void conn_refusal_acked(struct ptcp_conns *t, uint32_t remote_id);
void conn_refusal_lost(struct ptcp_conns *t, uint32_t remote_id);
void conn_refusal_clear(struct ptcp_conns *t);

/* ---- conn_send.c ---- */

bool conn_has_work(const struct conn *c);
void conn_out_fini(struct conn *c);
/* A closed connection that the peer's window alone holds up gets a deadline. */
void conn_out_watch(struct conn *c, uint64_t now_us);

/* ---- conn_recv.c ---- */

void conn_in_init(struct conn *c, uint64_t now_us); /* the first window */
void conn_in_fini(struct conn *c);                  /* drops what was not read */
bool conn_in_whole(const struct conn *c);           /* the peer's stream has come to its end */

#endif
