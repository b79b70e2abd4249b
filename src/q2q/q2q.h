/*
 * q2q - the Q2Q control protocol: addresses, commands, and one control
 * connection as client or as server. doc/q2q.md describes the protocol,
 * doc/q2q-extensions.md what we add to it.
 *
 * Sans-IO: bytes and the time go in; bytes, events and one deadline come out.
 * TLS is src/crypto's, inside the same byte stream. One thread per object.
 *
 * Results: 0 done, negative -Exxx a fault, positive a named outcome.
 */
#ifndef Q2Q_Q2Q_H
#define Q2Q_Q2Q_H

#include "base/base.h"
#include "amp/amp.h"
#include "crypto/crypto.h"

/* ---- limits ------------------------------------------------------------------------- */

enum {
	Q2Q_PORT = 8788,
	Q2Q_RESOURCE_MAX_BYTES = 64,
	Q2Q_DOMAIN_MAX_BYTES = 253,
	Q2Q_ADDRESS_TEXT_BYTES = 64 + 1 + 253 + 1,
	Q2Q_HOST_TEXT_BYTES = 254,
	Q2Q_TIME_TEXT_BYTES = 20,
	Q2Q_LISTENERS_MAX = 32,      /* entries of one answer that we read or make */
	Q2Q_PROTOCOLS_MAX = 16,      /* names in one listen */
	Q2Q_PROTOCOL_MAX_BYTES = 64, /* of one name */
	Q2Q_DESCRIPTION_MAX_BYTES = 512,
	Q2Q_ID_MAX_BYTES = 512, /* of a listener entry, a rendezvous, an ask */
	Q2Q_PASSWORD_MAX_BYTES = 1024,
	Q2Q_SIGNAL_MAX_BYTES = 20 * 1024, /* body of q2q-tun-signal; an offer */
	Q2Q_RELAY_MAX_BYTES = 60000,      /* body of q2q-tun-relay */
	Q2Q_CHANNEL_BYTES = 8,            /* name of a channel */
	Q2Q_CHANNEL_KEY_BYTES = 32,
	Q2Q_FAILURE_TEXT_BYTES = 256,
	Q2Q_CODE_TEXT_BYTES = 32,
};

/* ---- addresses ------------------------------------------------------------------------ */

enum q2q_address_kind { Q2Q_ANONYMOUS, Q2Q_DOMAIN, Q2Q_USER };

/* In canonical form: lower case. The anonymous address is three empty strings. */
struct q2q_address {
	char text[Q2Q_ADDRESS_TEXT_BYTES]; /* "alice@example.com", "example.com" or "" */
	char resource[Q2Q_RESOURCE_MAX_BYTES + 1];
	char domain[Q2Q_DOMAIN_MAX_BYTES + 1];
};

/*
 * resource "@" domain | domain | "@" domain | nothing. resource: 1..64 of [a-z0-9._+-], the
 * first one a letter or digit, no "..", no "." at the end. domain: labels of 1..63 of
 * [a-z0-9-], no "-" at their ends, joined by ".", at most 253 in all. Upper case is folded.
 * So no address can ever be a path or a file name with another meaning. -EINVAL otherwise.
 */
int q2q_address_parse(const void *text, size_t n_bytes, struct q2q_address *ret_address);
/* A C string that must be resource@domain (user), or a domain alone. */
int q2q_user_parse(const char *text, struct q2q_address *ret_address);
int q2q_domain_parse(const char *text, struct q2q_address *ret_address);
enum q2q_address_kind q2q_address_kind(const struct q2q_address *address);
bool q2q_address_equal(const struct q2q_address *a, const struct q2q_address *b);
/* "file-transfer", "q2q-tun": 1..64 printable ASCII characters without space, not starting
 * with a dot. */
bool q2q_protocol_valid(const void *text, size_t n_bytes);

/* ---- host:port, methods, times ----------------------------------------------------------- */

struct q2q_host_port {
	char host[Q2Q_HOST_TEXT_BYTES]; /* IPv4 or a name, never with a colon; "" where absent */
	uint16_t port;
};
/* Exactly one colon. -EINVAL otherwise. */
int q2q_host_port_parse(const void *text, size_t n_bytes, struct q2q_host_port *ret);
/* Of an IPv4 endpoint. -EAFNOSUPPORT for IPv6, which stock programs cannot read. */
int q2q_host_port_from_endpoint(const struct endpoint *endpoint, struct q2q_host_port *ret);

enum q2q_method_kind {
	Q2Q_METHOD_TCP,
	Q2Q_METHOD_PTCP,
	Q2Q_METHOD_RPTCP,
	Q2Q_METHOD_VIRTUAL,
	Q2Q_METHOD_UNKNOWN, /* never to be shown to a stock program: it breaks */
	Q2Q_METHOD_KIND_COUNT,
};
const char *q2q_method_kind_name(enum q2q_method_kind kind);
struct q2q_method {
	enum q2q_method_kind kind;
	struct q2q_host_port where; /* not for virtual and unknown */
};
/* The next method of a ListOf(Method). 0, AMP_END, -EBADMSG. Malformed ones are UNKNOWN. */
int q2q_methods_next(struct reader *methods, struct q2q_method *ret_method);
int q2q_methods_append(struct buffer *methods, const struct q2q_method *method) WARN_UNUSED;
/* Appends the methods that a server may pass on: no virtual, no unknown ones. */
int q2q_methods_relay(const struct amp_value *methods, struct buffer *out) WARN_UNUSED;

/* AmpTime, 19 characters without a zone. We write UTC and read it as UTC; stock programs mean
 * their local time, so what was read may be off by up to 14 hours. A "Z" behind it is read. */
const char *q2q_time_format(int64_t unix_s, char out[static Q2Q_TIME_TEXT_BYTES]);
int q2q_time_parse(const void *text, size_t n_bytes, int64_t *ret_unix_s);

/* ---- commands -------------------------------------------------------------------------------- */

enum q2q_command {
	Q2Q_SOURCE_IP,
	Q2Q_IDENTIFY,
	Q2Q_SECURE,
	Q2Q_SIGN,
	Q2Q_LISTEN,
	Q2Q_INBOUND,
	Q2Q_BIND_UDP,
	Q2Q_VIRTUAL,
	Q2Q_WRITE,
	Q2Q_CLOSE,
	Q2Q_CHOKE,
	Q2Q_UNCHOKE,
	Q2Q_OUTBOUND,
	Q2Q_SIGNAL, /* q2q-tun-signal, our own like the four that follow */
	Q2Q_RELAY,
	Q2Q_GONE,
	Q2Q_CHANNEL,
	Q2Q_RENEW, /* call.sign without a password; answer.identify */
	Q2Q_RETRIEVE_CONNECTION, /* these three on a stream of its own */
	Q2Q_WHO_AM_I,
	Q2Q_START_TLS,
	Q2Q_ADD_USER, /* identity-admin */
	Q2Q_COMMAND_COUNT,
};
const char *q2q_command_name(enum q2q_command command); /* as on the wire */

/*
 * What a command asks for. Values are borrowed: in an event until the next call for that
 * connection, in a call of ours until the function returns. Absent optional ones have data
 * NULL, host "" or, for From, the anonymous address.
 */
struct q2q_call {
	enum q2q_command command;
	union {
		struct {
			struct q2q_address subject;
		} identify;
		struct {
			struct q2q_address from, to;
			bool authorize;
		} secure; /* not by q2q_conn_call(): see q2q_conn_secure() */
		struct {
			struct amp_value certificate_request, password;
			bool q2q_tun; /* the asker understands WrongPassword */
		} sign;
		struct {
			struct q2q_address from;
			struct amp_value protocols;   /* ListOf(String): amp_list_next() */
			struct amp_value description; /* UTF-8 */
		} listen;
		struct {
			struct q2q_address from, to;
			struct amp_value protocol;
			struct q2q_host_port udp_source; /* optional */
			bool q2q_tun;                    /* the asker is one of us */
			struct amp_value certificate;    /* q2q-tun-certificate, DER; optional */
			struct amp_value request;        /* q2q-tun-request, 32 hex; optional */
		} inbound;
		struct {
			struct amp_value protocol;
			struct q2q_address q2qsrc, q2qdst;
			struct q2q_host_port udpsrc, udpdst;
		} bind_udp;
		struct {
			int64_t id;
		} virtual_open; /* virtual, close, Choke, Unchoke: the connection's own */
		struct {
			int64_t id;
			struct amp_value body;
		} write;
		struct {
			struct q2q_address from, to;
			struct amp_value protocol, id, methods;
		} outbound;
		struct {
			struct amp_value id, body;
		} signal; /* relay too */
		struct {
			struct amp_value id;
		} gone;
		struct {
			struct amp_value id; /* of the rendezvous */
		} channel;
		struct {
			struct amp_value identifier;
		} retrieve;
		struct {
			struct amp_value name, password;
			struct amp_value invite; /* our own, optional */
		} add_user;
	};
};

/* An entry of `listeners`. */
struct q2q_listener {
	struct amp_value id;
	struct amp_value certificate; /* DER, optional */
	struct amp_value methods;     /* ListOf(Method): q2q_methods_next() */
	int64_t expires_s;            /* AmpTime; see q2q_time_parse() */
	struct amp_value description;
	int64_t expires_in_s;   /* q2q-tun-expires-in; absent: -1 read, 0 written */
	struct amp_value offer; /* q2q-tun-offer, optional */
};
struct q2q_listeners {
	size_t n;
	struct q2q_listener entries[Q2Q_LISTENERS_MAX];
};

enum { Q2Q_SERVER_TEXT_BYTES = 64 };

struct q2q_answer {
	enum q2q_command command;
	union {
		struct {
			struct amp_value ip;
		} source_ip;
		struct {
			struct amp_value certificate; /* DER */
		} identify;                           /* sign too */
		struct {
			struct q2q_listeners listeners;
			struct amp_value status; /* q2q-tun-status, optional */
		} inbound;
		struct {
			/* q2q-tun-server, optional: the program, its version and the seconds since
			 * 1970 there, parted by blanks. Not authentic enough to set a clock by. */
			struct amp_value server;
		} listen;
		struct {
			struct q2q_host_port address;
		} who_am_i;
		struct {
			struct amp_value name, key; /* Q2Q_CHANNEL_BYTES, Q2Q_CHANNEL_KEY_BYTES */
		} channel;
	};
};

enum q2q_error {
	Q2Q_ERROR_UNHANDLED, /* the peer does not know the command */
	Q2Q_ERROR_UNKNOWN,   /* undeclared: a wrong password, a bug */
	Q2Q_ERROR_NO_SUCH_USER,
	Q2Q_ERROR_BAD_CERTIFICATE_REQUEST,
	Q2Q_ERROR_NOT_FOUND,
	Q2Q_ERROR_VERIFY,
	Q2Q_ERROR_CONNECTION,
	Q2Q_ERROR_ATTEMPTS_FAILED,
	Q2Q_ERROR_NO_SUCH_CONNECTION,
	Q2Q_ERROR_NOT_ALLOWED, /* add_user: the name is taken */
	/* our own: */
	Q2Q_ERROR_INVITE_REQUIRED,
	Q2Q_ERROR_REGISTRATION_CLOSED,
	Q2Q_ERROR_TOO_MANY_ATTEMPTS,
	Q2Q_ERROR_WRONG_PASSWORD,
	/* never on the wire: */
	Q2Q_ERROR_OTHER,           /* a code that the command does not declare; see code_text */
	Q2Q_ERROR_MALFORMED,       /* the answer cannot be read */
	Q2Q_ERROR_TIMED_OUT,       /* no answer in time */
	Q2Q_ERROR_CONNECTION_LOST, /* the connection ended first; Q2Q_EVENT_CLOSED says why */
	Q2Q_ERROR_COUNT,
};
const char *q2q_error_name(enum q2q_error error); /* the code on the wire, or a word of ours */

struct q2q_failure {
	enum q2q_error error;
	char code_text[Q2Q_CODE_TEXT_BYTES];      /* as it came, made printable */
	char description[Q2Q_FAILURE_TEXT_BYTES]; /* for people, made printable */
};

/*
 * The codec alone, driven by the table of commands. encode fills `box` (init it first; `call`,
 * its values and `scratch` must outlive the box; reset the scratch buffer for each box): -EINVAL
 * for a call that is not valid, -ENOMEM, -EMSGSIZE. decode: -EBADMSG for a missing or malformed
 * argument. _ask, _answer, _command are not touched.
 */
int q2q_call_encode(const struct q2q_call *call, struct amp_box *box, struct buffer *scratch);
int q2q_call_decode(enum q2q_command command, const struct amp_box *box, struct q2q_call *ret_call);
int q2q_answer_encode(const struct q2q_answer *answer, struct amp_box *box, struct buffer *scratch);
int q2q_answer_decode(enum q2q_command command, const struct amp_box *box,
		      struct q2q_answer *ret_answer);
/* -ENOENT: not a command of ours. */
int q2q_command_find(const struct amp_value *name, enum q2q_command *ret_command);

/* ---- who may speak for whom --------------------------------------------------------------------
 */

/*
 * May the peer whose certificate has these common names (NULL: none) speak for `theirs`? Yes if
 * it is theirs, or the certificate of the domain of theirs, issued by that domain; an anonymous
 * claim is fine from everybody. The chain itself was checked by TLS. doc/q2q.md, section 5.
 */
bool q2q_may_speak_for(const char *peer_subject, const char *peer_issuer,
		       const struct q2q_address *theirs);

/* ---- one control connection
 * ----------------------------------------------------------------------- */

enum q2q_role {
	Q2Q_CLIENT, /* we opened the TCP connection */
	Q2Q_SERVER,
};

/* 0 in any field: the default. */
struct q2q_conn_config {
	enum q2q_role role;
	/* The peer as TCP sees it: source-ip is answered with it. FAMILY_NONE: a
	 * Q2Q_EVENT_CALL tells the program to answer. */
	struct ip_address peer_ip;
	uint64_t setup_us;          /* server: until TLS is up or the first box. 20 s */
	uint64_t handshake_us;      /* of TLS, from the answer to secure on. 15 s */
	uint64_t keepalive_us;      /* idle this long: ask source-ip. 30 s; NEVER_US: never */
	uint64_t dead_us;           /* nothing comes after that: closed. 15 s */
	uint64_t call_timeout_us;   /* for calls without their own. 30 s */
	size_t asks_max;            /* questions of ours that wait. 128 */
	size_t pending_max;         /* questions of the peer that wait for the program. 64 */
	size_t virtuals_max;        /* open virtual transports. 16 */
	size_t output_max_bytes;    /* waiting to leave, in all. 1 MiB */
	size_t droppable_max_bytes; /* q2q_conn_tell() drops above this. 256 KiB */
	/* Called after each change of state; may be NULL; must not call back. */
	void (*trace)(void *user, const char *from, const char *to, const char *because);
	void *user;
};

enum q2q_event_kind {
	Q2Q_EVENT_CALL,    /* the peer asks or tells: `call`. If ask is not 0, answer it, now or
			    * later, by q2q_conn_answer(), q2q_conn_fail() or their relatives */
	Q2Q_EVENT_ANSWER,  /* to our call with `cookie`: `answer` */
	Q2Q_EVENT_ERROR,   /* our call with `cookie` failed: `failure`. Every call ends in one of
			    * these two, when the connection ends at the latest */
	Q2Q_EVENT_SECURED, /* TLS is up, the peer's certificate was accepted */
	Q2Q_EVENT_VIRTUAL_OPENED,   /* our virtual transport is ready for bytes */
	Q2Q_EVENT_VIRTUAL_DATA,     /* `data`, 1 byte or more */
	Q2Q_EVENT_VIRTUAL_CLOSED,   /* by the peer, or because opening failed: `failure` */
	Q2Q_EVENT_VIRTUAL_WRITABLE, /* after Q2Q_BLOCKED, or after the peer's Unchoke */
	Q2Q_EVENT_WRITABLE,         /* after Q2Q_BLOCKED or -ENOBUFS: there is room again */
	Q2Q_EVENT_CLOSED,           /* the last event: `closed` */
	Q2Q_EVENT_KIND_COUNT,
};
const char *q2q_event_kind_name(enum q2q_event_kind kind);

struct q2q_closed {
	int error; /* 0: in order, by us or by the peer; -EPROTO: TLS; -EBADMSG: what came was
		    * malformed; -EACCES: a claim that the certificate does not cover;
		    * -ETIMEDOUT: the peer is silent; -ECONNRESET: the network ended in the
		    * middle; -ENOBUFS: the peer does not read; -ENOMEM */
	enum crypto_verify verify;      /* why we refused the peer's certificate, or OK */
	bool peer_rejected_certificate; /* the peer refused ours */
	char text[Q2Q_FAILURE_TEXT_BYTES];
};

struct q2q_event {
	enum q2q_event_kind kind;
	enum q2q_command command; /* CALL, ANSWER, ERROR */
	uint64_t ask;             /* CALL; 0: no answer is wanted */
	uint64_t cookie;          /* ANSWER, ERROR, VIRTUAL_* of transports that we opened */
	int64_t virtual_id;       /* VIRTUAL_*; CALL of Retrieve-Connection and add_user */
	union {
		struct q2q_call call;
		struct q2q_answer answer;
		struct q2q_failure failure;
		struct amp_value data;
		struct q2q_closed closed;
	};
};

enum q2q_outcome {
	Q2Q_BLOCKED = 1, /* nothing was taken; Q2Q_EVENT_WRITABLE or VIRTUAL_WRITABLE follows */
};

struct q2q_conn;

int q2q_conn_new(const struct q2q_conn_config *config, uint64_t now_us, struct q2q_conn **ret_conn);
void q2q_conn_free(struct q2q_conn *conn); /* NULL is fine */
DEFINE_CLEANUP(struct q2q_conn *, q2q_conn_free)

/*
 * Feeds bytes of the network, at most 64 KiB at a time. Then pull the events until there are
 * none: boxes are read one by one while events are pulled. 0; a fault (-ENOBUFS: events were not
 * pulled; -ENOMEM) after which the connection is closed. What the peer did wrong is no fault:
 * Q2Q_EVENT_CLOSED tells it.
 */
int q2q_conn_input(struct q2q_conn *conn, const void *data, size_t n_bytes, uint64_t now_us);
/* The network has ended. */
void q2q_conn_input_end(struct q2q_conn *conn, uint64_t now_us);
/* Takes bytes for the network; 0: nothing waits. */
size_t q2q_conn_output(struct q2q_conn *conn, void *out, size_t out_bytes, uint64_t now_us);
size_t q2q_conn_output_waiting(const struct q2q_conn *conn); /* about */
uint64_t q2q_conn_deadline_us(const struct q2q_conn *conn);
void q2q_conn_tick(struct q2q_conn *conn, uint64_t now_us);
/* Something happened to the network: asks for a sign of life at once, as keepalive_us would later.
 */
void q2q_conn_probe(struct q2q_conn *conn, uint64_t now_us);
bool q2q_conn_next_event(struct q2q_conn *conn, struct q2q_event *ret_event, uint64_t now_us);
/* The connection is over for us: once the output has left, close the socket. */
bool q2q_conn_is_over(const struct q2q_conn *conn);
/* Ends it in order: calls fail, what waits may still leave. No more input is read. */
void q2q_conn_close(struct q2q_conn *conn, uint64_t now_us);
/* The same, with the reason that Q2Q_EVENT_CLOSED shall give. */
void q2q_conn_abort(struct q2q_conn *conn, int error, const char *text, uint64_t now_us);

/* ---- what is known about the peer ---- */

bool q2q_conn_is_secured(const struct q2q_conn *conn);
/* Server: secured with authorize=True, so `from` is proven. Client: secured. */
bool q2q_conn_is_authorized(const struct q2q_conn *conn);
/* Server: whom the peer said to be and whom it wanted; client: whom we said and wanted. The
 * anonymous address before secure. */
const struct q2q_address *q2q_conn_from(const struct q2q_conn *conn);
const struct q2q_address *q2q_conn_to(const struct q2q_conn *conn);
/* Borrowed; NULL before Q2Q_EVENT_SECURED and where none was asked for. */
struct crypto_cert *q2q_conn_peer_cert(const struct q2q_conn *conn);
const struct crypto_tls *q2q_conn_tls(const struct q2q_conn *conn); /* for status; may be NULL */
/* Has the peer shown that it is one of us? (inbound or sign with the key q2q-tun, our commands) */
bool q2q_conn_peer_is_q2q_tun(const struct q2q_conn *conn);

struct q2q_conn_stats {
	uint64_t boxes_in, boxes_out, bytes_in, bytes_out; /* bytes of the network */
	uint64_t strange_answers;                          /* nobody asked, or too late */
	uint64_t told_dropped; /* by q2q_conn_tell(), for want of room */
	uint64_t last_input_us;
	uint64_t keepalive_rtt_us; /* of the last keepalive; 0: none yet */
};
void q2q_conn_stats(const struct q2q_conn *conn, struct q2q_conn_stats *ret_stats);

/* ---- asking ---- */

/*
 * Sends a command that wants an answer: source-ip, identify, sign, listen, inbound, bind-udp.
 * timeout_us 0: the default. 0; -ENOBUFS: too many are waiting, try again after
 * Q2Q_EVENT_WRITABLE; -EINVAL; -EMSGSIZE; -EPIPE: the connection is over; -EPERM: before
 * q2q_conn_secure() only source-ip and identify may leave.
 */
int q2q_conn_call(struct q2q_conn *conn, const struct q2q_call *call, uint64_t cookie,
		  uint64_t timeout_us, uint64_t now_us) WARN_UNUSED;
/* Sends one without an answer: q2q-tun-signal, -relay, -gone. 0, Q2Q_BLOCKED: dropped (for relay:
 * more than droppable_max_bytes wait). Faults as above; -EOPNOTSUPP: the peer has not shown that
 * it is one of us, and a stock program would end the connection. */
int q2q_conn_tell(struct q2q_conn *conn, const struct q2q_call *call, uint64_t now_us);

/* Client: starts TLS by `secure`. */
struct q2q_secure {
	struct q2q_address from; /* anonymous, a domain or a user */
	struct q2q_address to;   /* the domain; a resource is left out */
	bool authorize;          /* prove `from` by the certificate of the context */
	struct crypto_tls_context *tls;
	/* Judges the server's certificate against the pin for `to`: 0 or enum crypto_verify;
	 * see crypto_tls_policy. Its name was compared with `to` before. */
	int (*verify)(void *user, struct crypto_cert *cert);
	void *user;
};
/* Everything sent from now on leaves inside TLS. Ends in Q2Q_EVENT_SECURED; or, when the server
 * answers by an error or the handshake fails, in Q2Q_EVENT_ERROR with command Q2Q_SECURE and the
 * cookie, and the connection ends. -EALREADY the second time. */
int q2q_conn_secure(struct q2q_conn *conn, const struct q2q_secure *secure, uint64_t cookie,
		    uint64_t now_us) WARN_UNUSED;

/* ---- answering ---- */

/* `answer` NULL: an empty answer (listen, bind-udp). 0; -ENOENT: the ask is gone (the connection
 * is over, or it was answered); -EMSGSIZE: does not fit, the ask still waits; -EINVAL. */
int q2q_conn_answer(struct q2q_conn *conn, uint64_t ask, const struct q2q_answer *answer,
		    uint64_t now_us);
/* `description` NULL: none. An error that the command does not declare goes out as UNKNOWN, and
 * like a declared fatal one it ends the connection (after what waits has left), as stock
 * programs do. */
int q2q_conn_fail(struct q2q_conn *conn, uint64_t ask, enum q2q_error error,
		  const char *description, uint64_t now_us);
/*
 * Server: answers `secure` and starts TLS. With authorize=True of the client, a certificate is
 * required; its names are compared with `from`, then verify judges it against the pin for the
 * domain of `from`. Else none is asked for and verify may be NULL.
 */
int q2q_conn_accept_secure(struct q2q_conn *conn, uint64_t ask, struct crypto_tls_context *tls,
			   int (*verify)(void *user, struct crypto_cert *cert), void *user,
			   uint64_t now_us);

/* ---- virtual transports ---- */

enum q2q_inner {
	Q2Q_INNER_BYTES, /* bytes for the program: Q2Q_EVENT_VIRTUAL_DATA */
	Q2Q_INNER_ADMIN, /* identity-admin: add_user comes as Q2Q_EVENT_CALL */
};
/*
 * A virtual transport that the peer opens starts with Retrieve-Connection: it comes as
 * Q2Q_EVENT_CALL with the identifier and virtual_id. Accept it with this and say what follows,
 * or refuse it by q2q_conn_fail(Q2Q_ERROR_NO_SUCH_CONNECTION).
 */
int q2q_conn_accept_retrieve(struct q2q_conn *conn, uint64_t ask, enum q2q_inner inner,
			     uint64_t cookie, uint64_t now_us);
/* Opens one and sends Retrieve-Connection with the identifier. Ends in VIRTUAL_OPENED or
 * VIRTUAL_CLOSED with the cookie. -ENOBUFS: too many are open. */
int q2q_conn_virtual_open(struct q2q_conn *conn, const struct amp_value *identifier,
			  uint64_t cookie, uint64_t now_us, int64_t *ret_id) WARN_UNUSED;
/* 0: all of it was taken. Q2Q_BLOCKED: nothing was; the peer choked it or too much waits. At
 * most 60000 bytes at a time. */
int q2q_conn_virtual_write(struct q2q_conn *conn, int64_t id, const void *data, size_t n_bytes,
			   uint64_t now_us);
/* Asks the peer to stop (Choke) or to go on (Unchoke). */
int q2q_conn_virtual_pause(struct q2q_conn *conn, int64_t id, bool pause, uint64_t now_us);
/* Both directions at once. No event follows. */
int q2q_conn_virtual_close(struct q2q_conn *conn, int64_t id, uint64_t now_us);

/*
 * Client: registers a user over a virtual transport of its own, opened for the identifier that an
 * inbound to accounts@domain gave. Ends in ANSWER or ERROR with command Q2Q_ADD_USER and the
 * cookie. -EPERM before TLS.
 */
int q2q_conn_add_user(struct q2q_conn *conn, const struct amp_value *identifier,
		      const struct q2q_call *add_user, uint64_t cookie,
		      uint64_t now_us) WARN_UNUSED;

/* ---- channels: the relay over UDP; doc/q2q-extensions.md, section 4 ---------------------------- */

/*
 * Datagrams between one end of a rendezvous and the server, on the number of the control port:
 *
 *   BIND   0x20 | channel[8] | counter u64 | mac[16]   end to server: this is where I am
 *   BOUND  0x21 | channel[8] | counter u64 | mac[16]   the answer
 *   DATA   0x22 | channel[8] | a PTCP packet           in both directions
 *
 * mac: the first half of HMAC-SHA256 with the channel's key over what precedes it.
 */
enum q2q_channel_kind {
	Q2Q_CHANNEL_NONE, /* something else */
	Q2Q_CHANNEL_BIND = 0x20,
	Q2Q_CHANNEL_BOUND = 0x21,
	Q2Q_CHANNEL_DATA = 0x22,
};
enum {
	Q2Q_CHANNEL_HEADER_BYTES = 1 + Q2Q_CHANNEL_BYTES,
	Q2Q_CHANNEL_BIND_BYTES = Q2Q_CHANNEL_HEADER_BYTES + 8 + 16,
};
/* By the first byte and the length. Its channel's name follows the first byte. */
enum q2q_channel_kind q2q_channel_kind(const void *data, size_t n_bytes);
void q2q_channel_header(enum q2q_channel_kind kind, const uint8_t name[static Q2Q_CHANNEL_BYTES],
			uint8_t out[static Q2Q_CHANNEL_HEADER_BYTES]);
/* A BIND or BOUND. 0, or the fault of the MAC. */
int q2q_channel_seal(enum q2q_channel_kind kind, const uint8_t name[static Q2Q_CHANNEL_BYTES],
		     const uint8_t key[static Q2Q_CHANNEL_KEY_BYTES], uint64_t counter,
		     uint8_t out[static Q2Q_CHANNEL_BIND_BYTES]);
/* Reads one of Q2Q_CHANNEL_BIND_BYTES. 0, -EBADMSG: not of this key. */
int q2q_channel_open(const uint8_t data[static Q2Q_CHANNEL_BIND_BYTES],
		     const uint8_t key[static Q2Q_CHANNEL_KEY_BYTES], uint64_t *ret_counter);

/* ---- classic PTCP: what stock clients need on the server's UDP port -----------------------------
 */

/*
 * Answers Who-Am-I over classic PTCP, and nothing else: every Retrieve-Connection is
 * NoSuchConnection. It needs no state until a connection closes: what it must know of a stock
 * peer stands in each packet. Only FINs that wait for their ACK are kept, a few of them for a
 * few seconds. doc/q2q.md, section 8.
 */
struct q2q_classic;

struct q2q_classic_config {         /* 0 in any field: the default */
	size_t closing_max;         /* FINs that wait for their ACK. 64 */
	uint32_t replies_per_s_max; /* datagrams that we answer, from all. 1000 */
};
struct q2q_classic_stats {
	uint64_t datagrams, malformed, answered, refused_rate;
	size_t closing;
};
enum { Q2Q_CLASSIC_DATAGRAM_MAX_BYTES = 512 };

int q2q_classic_new(const struct q2q_classic_config *config, struct q2q_classic **ret_classic);
void q2q_classic_free(struct q2q_classic *classic); /* NULL is fine */
DEFINE_CLEANUP(struct q2q_classic *, q2q_classic_free)
/* 0, or -EBADMSG: not classic PTCP, or forged; counted. */
int q2q_classic_input(struct q2q_classic *classic, const struct endpoint *from, const void *data,
		      size_t n_bytes, uint64_t now_us);
/* The next datagram to send: its size, or 0. */
size_t q2q_classic_output(struct q2q_classic *classic, struct endpoint *ret_to,
			  uint8_t out[static Q2Q_CLASSIC_DATAGRAM_MAX_BYTES], uint64_t now_us);
uint64_t q2q_classic_deadline_us(const struct q2q_classic *classic);
void q2q_classic_tick(struct q2q_classic *classic, uint64_t now_us);
void q2q_classic_stats(const struct q2q_classic *classic, struct q2q_classic_stats *ret_stats);

#endif
