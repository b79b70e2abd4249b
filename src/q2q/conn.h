/*
 * The inside of a control connection.
 *
 *   CLEAR ----secure----> SECURING ----answer----> HANDSHAKE ---TLS up---> SECURED
 *     |                       |                        |                      |
 *     +-----------------------+------------------------+----------------------+---> OVER
 *
 * CLEAR      Boxes in clear in both directions.
 * SECURING   `secure` was sent (client) or waits for the program (server). The client holds back
 *            every box; the server may still send in clear, and reads no more boxes: what comes
 *            now is TLS.
 * HANDSHAKE  tls exists. Nothing leaves in clear any more; boxes wait in plain_out.
 * SECURED    TLS is up; boxes are TLS plaintext.
 * OVER       The events that are owed are handed out, what waits may leave, nothing is read.
 */
#ifndef Q2Q_CONN_H
#define Q2Q_CONN_H

#include "q2q/command.h"

#define ASK_MAX_BYTES       64u          /* of a peer's _ask that we echo */
#define INPUT_MAX_BYTES     (64u * 1024) /* of one q2q_conn_input() */
#define READER_MAX_BYTES    (AMP_BOX_MAX_BYTES + 2 * INPUT_MAX_BYTES)
#define INNER_BOX_MAX_BYTES 4096u /* Retrieve-Connection, add_user */
#define INNER_MAX_BYTES     8192u
#define INNER_TIMEOUT_US    (60 * US_PER_S)
#define PROBE_WAIT_US       (4 * US_PER_S) /* there is reason to doubt, and a way without it */
#define CLOSE_TIMEOUT_US    (60 * US_PER_S) /* a close that is never answered is forgotten */
#define VIRTUAL_WRITE_MAX   60000u
#define TLS_AHEAD_BYTES     (64u * 1024) /* ciphertext made before the network asks for it */

enum conn_state {
	CONN_CLEAR,
	CONN_SECURING,
	CONN_HANDSHAKE,
	CONN_SECURED,
	CONN_OVER,
	CONN_STATE_COUNT,
};

/* Kinds of our own questions that the program does not see; below them: enum q2q_command. */
enum ask_kind {
	ASK_KEEPALIVE = Q2Q_COMMAND_COUNT,
	ASK_SECURE,
	ASK_VIRTUAL, /* cookie: the id */
	ASK_CLOSE,   /* cookie: the id */
};

/* A question of the peer that the program will answer. */
struct pending {
	uint64_t handle; /* 0: free */
	enum q2q_command command;
	int64_t virtual_id; /* it came inside that virtual transport; 0: on the connection */
	bool q2q_tun;       /* the asker understands our errors */
	uint8_t ask_bytes;
	uint8_t ask[ASK_MAX_BYTES];
};

enum virtual_state {
	VIRTUAL_OPENING,    /* ours; `virtual` is not answered yet */
	VIRTUAL_RETRIEVING, /* AMP with Retrieve-Connection: ours waits for the answer to it */
	VIRTUAL_ADMIN,      /* AMP with add_user */
	VIRTUAL_BYTES,      /* the program's */
	VIRTUAL_CLOSING,    /* our close is not answered yet; what comes is dropped */
	VIRTUAL_STATE_COUNT,
};

struct virtual_transport {
	LIST_ENTRY(virtual_transport) entry;
	int64_t id;
	enum virtual_state state;
	bool ours;
	bool known;    /* the program was told of it, so it is told of its end */
	bool busy;     /* a question from inside waits for the program: read no further */
	bool choked;   /* the peer wants no more writes */
	bool blocked;  /* the program is owed a WRITABLE */
	bool opened;   /* the program is owed an OPENED */
	bool ended;    /* the program is owed the end; then it is freed */
	bool gone;     /* over for the peer, too */
	bool rest_out; /* what came behind the last box was handed out */
	uint64_t cookie;
	uint64_t deadline_us;
	struct amp_reader reader; /* of the AMP states, and what came behind them */
	struct buffer first;      /* ours: the box to send when it is open */
	struct buffer second;     /* ours: add_user, to be sent when it is retrieved */
	bool add_user;            /* ours: ends in ANSWER or ERROR, not in VIRTUAL_* */
	bool answered;            /* add_user was a success */
	struct q2q_failure failure;
};

struct q2q_conn {
	struct q2q_conn_config config;
	enum conn_state state;
	uint64_t state_deadline_us;

	struct amp_reader reader;
	struct buffer clear_out, plain_out, scratch;
	struct amp_asks asks;
	struct pending *pending;
	size_t n_pending;
	uint64_t last_handle;

	struct q2q_address from, to;
	bool authorize;
	struct crypto_tls_context *tls_context;
	struct crypto_tls *tls;
	int (*verify)(void *user, struct crypto_cert *cert);
	void *verify_user;
	uint64_t secure_cookie;
	uint64_t secure_number; /* of the question `secure`; later ones are held back */
	bool secure_owed;       /* client: SECURED or ERROR is owed to the program */

	LIST_HEAD(, virtual_transport) virtuals;
	size_t n_virtuals;
	int64_t last_virtual_id;

	bool secured; /* TLS came up at some time */
	bool peer_is_ours, wants_writable, secured_event, closed_event, shut_down;
	bool input_ended; /* no more comes: over with `ended` once all boxes were read */
	struct q2q_closed ended;
	struct q2q_closed closed;
	bool keepalive_waiting; /* for any sign of life */
	uint64_t keepalive_sent_us, keepalive_wait_us;
	struct q2q_conn_stats stats;
};

/* ---- conn.c ---- */

/* Ends the connection; the first reason stays. */
void conn_over(struct q2q_conn *conn, int error, const char *text);
void conn_set_state(struct q2q_conn *conn, enum conn_state state, uint64_t deadline_us,
		    const char *because);
size_t conn_output_used(const struct q2q_conn *conn);
/* 0, -EMSGSIZE, -ENOBUFS, -ENOMEM. */
int conn_send(struct q2q_conn *conn, const struct amp_box *box) WARN_UNUSED;
/* The same for what must go out: if it cannot, the connection ends. */
void conn_must_send(struct q2q_conn *conn, const struct amp_box *box);
/* Bytes of the network to TLS or to the boxes; conn_tls_progress() comes after it. */
void conn_feed(struct q2q_conn *conn, const struct amp_value *bytes);
/* Moves the handshake and plaintext on after the TLS object got bytes. */
void conn_tls_progress(struct q2q_conn *conn);

/* ---- calls.c ---- */

/* Handles a box of the peer; true: it made an event. */
bool conn_handle_box(struct q2q_conn *conn, const struct amp_box *box, struct q2q_event *event,
		     uint64_t now_us);
/* A question of ours that got no answer; true: it made an event. */
bool conn_ask_lost(struct q2q_conn *conn, const struct amp_ask *ask,
		   const struct q2q_failure *failure, struct q2q_event *event, uint64_t now_us);
/* Sends a command of our own with _ask. */
int conn_ask(struct q2q_conn *conn, const struct q2q_call *call, unsigned kind, uint64_t cookie,
	     uint64_t deadline_us) WARN_UNUSED;
int conn_tell(struct q2q_conn *conn, const struct q2q_call *call) WARN_UNUSED;
/* Notes a question of the peer. NULL: too many, or an _ask that is too long; answered already. */
struct pending *conn_pend(struct q2q_conn *conn, enum q2q_command command,
			  const struct amp_value *ask, int64_t virtual_id);
struct pending *conn_pending(struct q2q_conn *conn, uint64_t handle);
void conn_unpend(struct q2q_conn *conn, struct pending *pending);
void conn_answer_empty(struct q2q_conn *conn, const struct amp_value *ask);
void conn_answer_error(struct q2q_conn *conn, const struct amp_value *ask, enum q2q_error error,
		       const char *text);

/* ---- secure.c ---- */

void conn_secure_answered(struct q2q_conn *conn, uint64_t now_us);

/* ---- virtual.c ---- */

/* virtual, write, close, Choke, Unchoke of the peer; true: it made an event. */
bool virtual_handle(struct q2q_conn *conn, const struct q2q_call *call, const struct amp_value *ask,
		    struct q2q_event *event, uint64_t now_us);
void virtual_answered(struct q2q_conn *conn, int64_t id, const struct q2q_failure *failure,
		      uint64_t now_us);
void virtual_close_answered(struct q2q_conn *conn, int64_t id);
/* What transports owe to the program; true: an event. */
bool virtual_next_event(struct q2q_conn *conn, struct q2q_event *event, uint64_t now_us);
/* The connection is over: the ends of all transports, one by one. */
bool virtual_drain(struct q2q_conn *conn, struct q2q_event *event);
uint64_t virtual_deadline_us(const struct q2q_conn *conn);
/* Answers from the program to a question from inside a transport. */
int virtual_answer_box(struct q2q_conn *conn, struct pending *pending, const struct amp_box *box,
		       bool end, uint64_t now_us);
void virtual_free_all(struct q2q_conn *conn);
bool virtual_writable(const struct q2q_conn *conn, const struct virtual_transport *v);

#endif
