/*
 * conn - pseudo-connections: reliable byte streams inside one association.
 *
 * A pseudo-connection is named by its pair of pseudo-ports and a service name,
 * and goes through the states of RFC 9293; the wire format stands in
 * doc/ptcp-connections.md. Part of the public face of ptcp: include ptcp/ptcp.h.
 *
 * A connection is held by its id, as a file is by its descriptor: who connects,
 * listens or is told of an incoming connection holds one, and gives it back
 * with ptcp_conn_close() or ptcp_conn_abort(), also after the connection ended.
 * Ids are never used again within an association.
 *
 * Events are edges: after PTCP_CONN_EVENT_READABLE read until PTCP_BLOCKED,
 * after PTCP_CONN_EVENT_WRITABLE write until PTCP_BLOCKED.
 */
#ifndef PTCP_CONN_H
#define PTCP_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ptcp_assoc;

#define PTCP_CONN_SERVICE_BYTES_MAX 64
#define PTCP_CONN_PORT_ANY          0

/* Named outcomes of the calls below. */
#define PTCP_BLOCKED  1 /* nothing can be read or written now; an event tells when */
#define PTCP_CONN_EOF 2 /* the peer ended its stream and everything of it was read */

/*
 *                     CLOSED
 *        passive open |    | active open: SYN
 *                  LISTEN  +----------------> SYN_SENT
 *          SYN: tell  |      SYN: SYN+ACK      |  |
 *                SYN_RCVD <--------------------+  | SYN+ACK
 *                     |  ACK of SYN+ACK           |
 *                     +------> ESTABLISHED <------+
 *         shutdown: FIN |                  | FIN
 *                FIN_WAIT_1            CLOSE_WAIT
 *     ACK of FIN |      | FIN              | shutdown: FIN
 *        FIN_WAIT_2   CLOSING          LAST_ACK
 *            FIN |      | ACK of FIN       | ACK of FIN
 *                TIME_WAIT --timeout--> CLOSED
 *
 * RST, abort, a vanished association and the timeouts lead to CLOSED from
 * everywhere; a shutdown in SYN_RCVD leads to FIN_WAIT_1.
 */
enum ptcp_conn_state {
	PTCP_CONN_CLOSED,
	PTCP_CONN_LISTEN,
	PTCP_CONN_SYN_SENT,
	PTCP_CONN_SYN_RCVD,
	PTCP_CONN_ESTABLISHED,
	PTCP_CONN_FIN_WAIT_1,
	PTCP_CONN_FIN_WAIT_2,
	PTCP_CONN_CLOSE_WAIT,
	PTCP_CONN_CLOSING,
	PTCP_CONN_LAST_ACK,
	PTCP_CONN_TIME_WAIT,
	PTCP_CONN_STATE_COUNT,
};

enum ptcp_conn_input {
	PTCP_CONN_PASSIVE_OPEN,
	PTCP_CONN_ACTIVE_OPEN,
	PTCP_CONN_ACCEPT,    /* the application takes an incoming connection */
	PTCP_CONN_SHUTDOWN,  /* the application ends its own stream */
	PTCP_CONN_CLOSE,     /* ... and will not read any more */
	PTCP_CONN_ABORT,     /* the application, or we ourselves, give it up */
	PTCP_CONN_SYN,       /* the peer's SYN */
	PTCP_CONN_SYN_ACK,   /* the peer's SYN+ACK */
	PTCP_CONN_SYN_ACKED, /* the peer has our SYN+ACK */
	PTCP_CONN_FIN,       /* the peer's stream has come to its end */
	PTCP_CONN_FIN_ACKED, /* the peer has our stream to its end */
	PTCP_CONN_RST,       /* the peer gave it up */
	PTCP_CONN_TIMEOUT,
	PTCP_CONN_LOST, /* the association is gone */
	PTCP_CONN_INPUT_COUNT,
};

/* Why a connection is CLOSED. Those up to PTCP_CONN_ERROR_COUNT travel in RST frames. */
enum ptcp_conn_error {
	PTCP_CONN_OK,        /* both streams ended in order */
	PTCP_CONN_REFUSED,   /* nobody listens there, or it was closed instead of accepted */
	PTCP_CONN_BUSY,      /* too many connections */
	PTCP_CONN_ABORTED,   /* an application called abort */
	PTCP_CONN_UNREAD,    /* closed with data that nobody read (RFC 1122, 4.2.2.13) */
	PTCP_CONN_TIMED_OUT, /* no answer to the SYN, or no end of a closed connection */
	PTCP_CONN_BAD_PEER,  /* the other end broke the rules: window, offsets */
	PTCP_CONN_NO_MEMORY,
	PTCP_CONN_ASSOCIATION, /* the association closed under it */
	PTCP_CONN_ERROR_COUNT,
};

const char *ptcp_conn_state_name(enum ptcp_conn_state state);
const char *ptcp_conn_input_name(enum ptcp_conn_input input);
const char *ptcp_conn_error_name(enum ptcp_conn_error error);

enum ptcp_conn_event_type {
	PTCP_CONN_EVENT_INCOMING, /* accept or close it: ports, service and listener say what it is
				   */
	PTCP_CONN_EVENT_OPEN,     /* ESTABLISHED was reached */
	PTCP_CONN_EVENT_READABLE,
	PTCP_CONN_EVENT_WRITABLE, /* after a write that was cut short */
	PTCP_CONN_EVENT_FIN,      /* the peer's stream has come whole; there may be some to read */
	PTCP_CONN_EVENT_CLOSED,   /* the last event; why it closed stands in error */
	PTCP_CONN_EVENT_TYPE_COUNT,
};

struct ptcp_conn_event {
	enum ptcp_conn_event_type type;
	uint32_t id;
	enum ptcp_conn_error error; /* CLOSED */
	bool by_peer;               /* CLOSED with an error: the peer's RST said so */
	uint32_t listener;          /* INCOMING: id of the listener, 0 once that was closed */
	uint16_t local_port, remote_port;
	uint8_t service_bytes;
	char service[PTCP_CONN_SERVICE_BYTES_MAX + 1]; /* ends in NUL, but may hold any byte */
};

struct ptcp_conn_info {
	enum ptcp_conn_state state;
	uint16_t local_port, remote_port;
	uint64_t written_bytes;  /* taken from the application */
	uint64_t acked_bytes;    /* of those, what the peer has */
	uint64_t received_bytes; /* in order */
	uint64_t read_bytes;     /* of those, what the application has taken */
	uint64_t resent_bytes;
	size_t receive_window_bytes, send_room_bytes;
};

/* All of them bounds; 0 takes the default. */
struct ptcp_conn_limits {
	uint32_t n_conns;            /* connections and listeners; 1024 */
	uint32_t n_holes;            /* ranges kept out of order per connection; 4096 */
	size_t send_bytes;           /* send buffer of one connection; 4 MiB */
	size_t send_total_bytes;     /* of all of them; 64 MiB */
	size_t window_first_bytes;   /* receive window at first; 128 KiB */
	size_t window_bytes;         /* up to which it is tuned; 8 MiB */
	size_t window_total_bytes;   /* promised to the peer over all connections; 64 MiB */
	uint64_t connect_timeout_us; /* SYN_SENT, SYN_RCVD; 30 s */
	uint64_t fin_timeout_us;     /* FIN_WAIT_2 and stuck ends after close; 60 s */
	uint64_t time_wait_min_us;   /* TIME_WAIT lasts 6 PTO, not less; 1 s */
	uint64_t time_wait_max_us;   /* not more; 10 s */
};

/* Each transition, as `from -> to because input`. Must not call back. */
typedef void ptcp_conn_trace_fn(void *user, uint32_t id, enum ptcp_conn_state from,
				enum ptcp_conn_state to, enum ptcp_conn_input because,
				uint64_t now_us);

/*
 * Opens a connection to `port` of the peer. local_port may be PTCP_CONN_PORT_ANY. Data can be
 * written at once; it leaves when the connection is open. Positive: the id. -ENOTCONN: the
 * association is closed; -EADDRINUSE; -ENOBUFS: too many connections; -ENOMEM; -EINVAL.
 */
int64_t ptcp_connect(struct ptcp_assoc *a, uint16_t local_port, uint16_t port, const char *service,
		     uint64_t now_us);

/*
 * Takes connections to `port` (or PTCP_CONN_PORT_ANY) and `service` (NULL: any). At most
 * `n_backlog` wait for ptcp_conn_accept(). Results as above.
 */
int64_t ptcp_listen(struct ptcp_assoc *a, uint16_t port, const char *service, uint32_t n_backlog,
		    uint64_t now_us);

/* Answers the peer's SYN. 0; -ENOENT: no such id; -EINVAL: not an incoming connection. */
int ptcp_conn_accept(struct ptcp_assoc *a, uint32_t id, uint64_t now_us);

/*
 * Takes up to n_bytes into the send buffer. 0 with *ret_bytes taken (at least 1), PTCP_BLOCKED
 * with nothing taken; -ENOENT, -EPIPE after shutdown, -ECONNRESET once closed. A short write is
 * followed by PTCP_CONN_EVENT_WRITABLE.
 */
int ptcp_conn_write(struct ptcp_assoc *a, uint32_t id, const void *data, size_t n_bytes,
		    size_t *ret_bytes, uint64_t now_us);

/* 0 with *ret_bytes read, PTCP_BLOCKED, PTCP_CONN_EOF, -ENOENT, -ECONNRESET. */
int ptcp_conn_read(struct ptcp_assoc *a, uint32_t id, void *out, size_t out_bytes,
		   size_t *ret_bytes, uint64_t now_us);

/*
 * Reads without a copy: lends what is there (perhaps not all of it), until the next call with
 * this association; ptcp_conn_consume() then takes bytes away. Results as ptcp_conn_read().
 */
int ptcp_conn_peek(struct ptcp_assoc *a, uint32_t id, const uint8_t **ret_data, size_t *ret_bytes);
int ptcp_conn_consume(struct ptcp_assoc *a, uint32_t id, size_t n_bytes, uint64_t now_us);

/* Half close: ends our own stream after what was written. 0; -ENOENT, -ECONNRESET. */
int ptcp_conn_shutdown(struct ptcp_assoc *a, uint32_t id, uint64_t now_us);

/*
 * Gives the id back and closes in order: what was written still arrives, nothing is read any
 * more. Unread data, or more data from the peer, turns it into a reset (RFC 1122, 4.2.2.13), so
 * that the peer does not take for delivered what nobody read. 0 or -ENOENT.
 */
int ptcp_conn_close(struct ptcp_assoc *a, uint32_t id, uint64_t now_us);

/* Gives the id back and ends the connection at once with a RST. 0 or -ENOENT. */
int ptcp_conn_abort(struct ptcp_assoc *a, uint32_t id, uint64_t now_us);

/* 0 or -ENOENT. */
int ptcp_conn_info(const struct ptcp_assoc *a, uint32_t id, struct ptcp_conn_info *ret_info);

#endif
