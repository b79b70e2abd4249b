/*
 * state - what the running server holds, and what its files offer each other.
 *
 *     run.c        starts and stops everything, signals, sockets
 *     client.c     one control connection: its life, and who answers which command
 *     inquiry.c    inbound and bind-udp: asks the listeners, gathers their answers
 *     account.c    sign and add_user
 *     federation.c fetches the certificate of another domain
 *     udp.c        STUN and classic PTCP
 *     admin.c      the local socket in the data directory
 *
 * One thread, one loop. Password hashing alone happens elsewhere (hasher.h).
 */
#ifndef SERVER_STATE_H
#define SERVER_STATE_H

#include "base/base.h"
#include "crypto/crypto.h"
#include "net/net.h"
#include "q2q/q2q.h"
#include "relay/relay.h"
#include "server/admin.h"
#include "server/domain.h"
#include "server/hasher.h"
#include "server/limiter.h"
#include "server/options.h"
#include "server/server.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* ---- limits, in one place --------------------------------------------------------- */

enum {
	CLIENT_SETUP_S = 10,      /* until the first box */
	CLIENT_CLEAR_S = 120,     /* until TLS: a person may be comparing fingerprints */
	CLIENT_ANONYMOUS_S = 300, /* in TLS without a proven address */
	CLIENT_PROOF_S = 3600,    /* then certificate and account are looked at again */
	CLIENT_KEEPALIVE_DEAD_S = 30,
	CLIENT_TICKETS_MAX = 8, /* identifiers for identity-admin that wait to be used */
	CLIENT_TICKET_S = 120,
	CLIENT_INQUIRIES_MAX = 32, /* inbounds of one requester at a time */
	INQUIRY_TIMEOUT_S = 5,     /* per listener */
	INQUIRY_GRACE_MS = 300,    /* for the others, once one of ours has made an offer */
	FETCHES_MAX = 16,          /* certificates of other domains being fetched at a time */
	FETCH_TIMEOUT_S = 8,
	FETCH_PATIENCE_S = 3, /* for the first answer, while another way is untried */
	SHUTDOWN_S = 2,
	EXPIRE_INTERVAL_S = 3600, /* forgetting old invites and log entries in the store */
	HASHER_THREADS = 2,
	ADMIN_CONNECTIONS_MAX = 16,
};

#define ACCOUNTS_RESOURCE "accounts"       /* accounts@domain answers */
#define ADMIN_PROTOCOL    "identity-admin" /* this protocol by itself */

struct server;
struct client;
struct fetch;

/* ---- the server --------------------------------------------------------------------- */

struct server_socket {
	struct net_listener *tcp;
	struct net_udp *udp;
};

struct address_use {
	UT_hash_handle hh;
	unsigned n_clients;
	size_t key_bytes;
	uint8_t key[9];
};

struct server_counters {
	uint64_t accepted, refused_full, refused_address;
	uint64_t signed_certificates, wrong_passwords, registered, refused_registrations;
	uint64_t limited, inquiries, inquiries_timed_out;
	uint64_t fetched, fetch_failures, key_changes;
	uint64_t stun_requests, udp_other;
};

struct server {
	struct server_options *options;
	struct domain domain;
	struct net_loop *loop;
	struct net_resolver *resolver;
	struct relay *relay;
	struct hasher *hasher;
	struct hash_seed seed;

	struct server_socket sockets[SERVER_LISTEN_MAX];
	size_t n_sockets;
	struct net_udp *stun_second; /* the next port: lets clients compare mappings */
	struct q2q_classic *classic;
	struct net_udp *classic_udp; /* where its last datagram came in */
	struct net_timer classic_timer;
	struct net_listener *admin;
	unsigned n_admin;
	LIST_HEAD(, admin_connection) admin_connections;

	TAILQ_HEAD(client_list, client) clients;
	struct client_list leaving; /* out of the books, last bytes on their way */
	unsigned n_clients;
	uint64_t last_client_number;
	struct address_use *address_uses;

	struct inquiry *inquiries; /* by number */
	uint64_t last_inquiry;
	LIST_HEAD(, fetch) fetches;
	unsigned n_fetches;

	struct limiter *accepts;       /* per network address */
	struct limiter *address_tries; /* passwords and invites, per network address */
	struct limiter *account_tries; /* passwords, per account */
	struct limiter *registrations; /* per network address */
	struct limiter *renewals;      /* of certificates, per account: all its machines */
	struct limiter *fetch_asks;    /* certificates of other domains, per network address */
	struct limiter *fetch_domains; /* failures, per domain */
	struct log_limit log_client, log_refused, log_trust;

	struct server_counters counters;
	uint64_t started_us;
	bool stopping;
	struct net_timer stop_timer, watchdog_timer, expire_timer;
	uint64_t watchdog_us; /* half of what the service manager waits; 0: it does not */
	int (*reload)(struct server_options *ret_fresh);
};

/* The wall clock, for certificates. */
int64_t server_wall_s(void);
uint64_t server_now_us(const struct server *s);

/* ---- clients ---------------------------------------------------------------------------- */

struct ticket {
	char id[RELAY_ID_BYTES + 1]; /* "" where free */
	uint64_t expires_us;
};

/* What a client waits for; at most one of each kind at a time. */
struct sign_job {
	struct hasher_job *hash; /* NULL: none is running */
	struct crypto_csr *csr;
	struct q2q_address address;
	uint64_t ask;
	bool exists, disabled, q2q_tun;
};

struct register_job {
	struct hasher_job *hash;
	struct q2q_address address;
	char invite[64];
	uint64_t ask;
};

struct secure_wait {
	struct fetch *fetch; /* NULL: none */
	LIST_ENTRY(client) entry;
	uint64_t ask;
};

struct client {
	struct server *server;
	TAILQ_ENTRY(client) entry;
	struct net_q2q *driver;
	struct q2q_conn *conn;
	struct endpoint remote;
	uint64_t number;
	struct relay_end *end;      /* NULL before TLS */
	bool authorized;            /* the address of `end` is proven */
	bool local_user;            /* ... and a user of ours */
	bool closing;               /* out of the books; only its bytes still leave */
	struct crypto_cert *anchor; /* against which TLS judges the certificate */
	struct net_timer age_timer;
	struct ticket tickets[CLIENT_TICKETS_MAX];
	struct sign_job sign;
	struct register_job registering;
	struct secure_wait secure;
	unsigned n_inquiries;
	char name[Q2Q_ADDRESS_TEXT_BYTES + ENDPOINT_TEXT_BYTES + 4]; /* for the log */
};

/* Takes the socket. */
void client_accept(struct server *s, int fd, const struct endpoint *from);
/* Ends it with a reason; the peer gets what is queued. May be called at any time. */
void client_abort(struct client *c, int error, const char *text);
/* What was asked of its connection leaves soon. */
void client_pump(struct client *c);
/* Tells every end that its rendezvous is over. */
void clients_tell_gone(struct server *s);
/* Closes the sessions of an account of ours; how many. */
unsigned clients_disconnect(struct server *s, const char *name, const char *why);
/* Says goodbye to all; the loop stops once they are gone if the server is stopping. */
void clients_close_all(struct server *s);
void clients_free_all(struct server *s); /* at once */
/* A log line a stranger may cause: begins with the client, rate limited. */
void client_log(struct client *c, enum log_level level, const char *format, ...) PRINTF_LIKE(3, 4);
/* May the client speak for this address? Anonymous claims only if it proved nothing. */
bool client_may_speak_for(const struct client *c, const struct q2q_address *theirs);
struct client *client_of_end(const struct relay_end *end);

/* ---- accounts ------------------------------------------------------------------------------ */

void account_sign(struct client *c, uint64_t ask, const struct q2q_call *call);
void account_add_user(struct client *c, uint64_t ask, const struct q2q_call *call);
void account_renew(struct client *c, uint64_t ask, const struct q2q_call *call);
/* 0, or the enum crypto_verify that refuses a certificate of ours. */
int account_judge(struct server *s, const struct q2q_address *address,
		  const struct crypto_cert *cert);
void account_cancel(struct client *c);

/* ---- inquiries ------------------------------------------------------------------------------ */

void inquiry_inbound(struct client *c, uint64_t ask, const struct q2q_call *call);
void inquiry_bind_udp(struct client *c, uint64_t ask, const struct q2q_call *call);
/* An answer, or with `failure` an error, of a listener to the inquiry named by the cookie. */
void inquiry_answered(struct client *listener, const struct q2q_event *event);
/* The requester is gone. */
void inquiry_cancel_of(struct client *c);

/* ---- certificates of other domains -------------------------------------------------------------
 */

/* The pinned certificate; the caller unrefs it. 0, STORE_NOT_FOUND, or a fault. */
int federation_pin(struct server *s, const char *domain, struct crypto_cert **ret_cert);
/* Fetches and pins; then the client's secure goes on or fails. 0, or why not, for people. */
const char *federation_wait(struct client *c, const char *domain, uint64_t ask);
void federation_cancel(struct client *c);
void federation_stop(struct server *s);
/* client.c: what a fetch ends in. cert NULL: failed. */
void client_secure_resume(struct client *c, uint64_t ask, struct crypto_cert *cert,
			  const char *why);

/* ---- UDP, admin, notification
 * --------------------------------------------------------------------- */

void udp_on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		    size_t n_packets, uint64_t now_us);
int udp_start(struct server *s);
void udp_stop(struct server *s);

int admin_start(struct server *s);
void admin_stop(struct server *s);

#endif
