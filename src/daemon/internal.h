/*
 * The inside of the daemon, shared by its files. One struct daemon owns it all;
 * each part has its own section here and its own file:
 *
 *   daemon.c      the loop, start, stop, the monitor's socket
 *   workers.c     who moves packets
 *   files.c       the state directory             identities.c  who we are
 *   domains.c     pinned domains                  peers.c       whom we know
 *   requests.c    who asked in vain               serverlink.c  one control connection
 *   hub.c         the connections that we keep    ask.c         asking for peers
 *   renew.c       certificates that end soon
 *   inbound.c     what servers ask and tell
 *   links.c       one peer's session and its pump
 *   index.c       which session a datagram is for
 *   channel.c     its relay by UDP
 *   device.c      its TUN device                  status.c      what people see of it
 *   doctor.c      what is wrong with the network, in words
 *   udp.c         sockets, who gets a datagram    gather.c      our addresses, STUN
 *   volley.c      many sockets for guessing ports
 *   nat64.c       IPv4 from a network of IPv6
 *   portmap.c     the gateway's port for us
 *   lifetime.c    how far apart keepalives may be
 *   streams.c     TCP connections with peers
 *   control.c     the control socket              commands_*.c, enroll.c  what it can do
 *   upkeep.c      now and then                    reload.c      the configuration, again
 *   names.c       the socket of libnss_q2q        logring.c     the last lines of the log
 */
#ifndef DAEMON_INTERNAL_H
#define DAEMON_INTERNAL_H

#include "ctl/ctl.h"
#include "daemon/daemon.h"
#include "daemon/disk.h"
#include "daemon/domains.h"
#include "daemon/identities.h"
#include "net/net.h"
#include "q2q/q2q.h"
#include "session/session.h"
#include "stun/stun.h"
#include "tun/tun.h"

#include <pthread.h>
#include <sys/types.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct daemon;
struct directory;
struct gate;
struct worker;
struct hub_link;
struct link;
struct op;

/* ---- problems: what failed, why, and what to do next ---- */

struct problem {
	enum ctl_code code;
	char error[512], hint[512];
};
void problem_set(struct problem *p, enum ctl_code code, const char *format, ...) PRINTF_LIKE(3, 4);
void problem_hint(struct problem *p, const char *format, ...) PRINTF_LIKE(2, 3);

int64_t wall_clock_s(void);

/* ---- peers ---- */

#define PEERS_MAX 1024

/* STATE/known-peers/ADDRESS.json, and what there is of it now. */
struct peer {
	struct q2q_address address;
	bool pinned;
	uint8_t spki[CRYPTO_HASH_BYTES];
	int64_t pinned_at_s;
	bool allowed;            /* may connect to us */
	int64_t allowed_until_s; /* 0: for ever */
	bool wanted;             /* we connect, at start too */
	bool linked;             /* it was up, and nobody took it down: worth a question at start */
	bool held;               /* taken down by the user: refused until up or allow */
	bool unsaved;            /* upkeep_save() writes it */
	bool damaged; /* its file cannot be read, and stays as it is; nothing else holds */
	char as[Q2Q_ADDRESS_TEXT_BYTES]; /* the identity of ours to use, or "" */
	enum session_path_mode path_mode;
	bool has_local4;
	uint8_t local4[4]; /* shown instead of the canonical address */
	struct link *link; /* NULL: nothing goes on */
	struct vip vip;    /* canonical addresses */
	struct nat_allowance guesses;
	TAILQ_ENTRY(peer) entry;
	UT_hash_handle hh; /* by address.text */
};
TAILQ_HEAD(peer_list, peer);

/* Writes a file of the state without waiting for the disk; answers wait, see op_done(). */
int store_json(struct daemon *d, const char *path, const json_t *object);

int peers_load(struct daemon *d);
void peers_fini(struct daemon *d);
struct peer *peers_find(struct daemon *d, const char *address);
/* Finds, or makes one that is not on disk yet. NULL: PEERS_MAX, or no memory. */
struct peer *peers_get(struct daemon *d, const struct q2q_address *address);
int peers_save(struct daemon *d, const struct peer *peer);
/* Stores what the user said of a peer. Where that fails, all is as it was: as in `before`, or
 * forgotten where nobody knew it (before->address is empty). */
int peers_store(struct daemon *d, struct peer *peer, const struct peer *before);
/* What to do about a damaged file; false: it is sound. */
bool peers_problem(struct daemon *d, const struct peer *peer, struct problem *ret_problem);
/* From memory and disk; its link is ended first. */
int peers_forget(struct daemon *d, struct peer *peer);
bool peer_is_allowed(const struct peer *peer);
int peers_pin(struct daemon *d, struct peer *peer, const uint8_t spki[static CRYPTO_HASH_BYTES]);
void peers_path(const struct daemon *d, const char *address, char *out, size_t out_bytes);

/* May this certificate be that peer's? UNPINNED: it is good, but we see the key for the first
 * time. DISTRUSTED: the problem says why. */
enum peer_trust { PEER_TRUSTED, PEER_UNPINNED, PEER_DISTRUSTED };
enum peer_trust peers_judge(struct daemon *d, const struct peer *peer, struct crypto_cert *cert,
			    struct problem *ret_problem);

/* ---- requests ---- */

#define REQUESTS_MAX           256
#define REQUESTS_OF_DOMAIN_MAX 64

struct request {
	char address[Q2Q_ADDRESS_TEXT_BYTES];
	bool has_key;
	uint8_t spki[CRYPTO_HASH_BYTES];
	int64_t first_s, last_s;
	uint64_t count;
};

struct requests {
	struct request list[REQUESTS_MAX];
	size_t n;
	bool dirty;
	struct net_timer save_timer;
};

int requests_load(struct daemon *d);
void requests_save(struct daemon *d); /* if something changed */
void requests_note(struct daemon *d, const struct q2q_address *from, struct crypto_cert *cert);
const struct request *requests_find(const struct daemon *d, const char *address);
void requests_remove(struct daemon *d, const char *address);

/* ---- one control connection ---- */

enum serverlink_state {
	SERVERLINK_IDLE,
	SERVERLINK_RESOLVING,
	SERVERLINK_CONNECTING,
	SERVERLINK_IDENTIFYING,
	SERVERLINK_SECURING,
	SERVERLINK_READY,
	SERVERLINK_STATE_COUNT,
};
const char *serverlink_state_name(enum serverlink_state state);

struct serverlink;

struct serverlink_config {
	struct daemon *daemon;
	const char *domain;             /* whose server; copied */
	const char *server;             /* "host:port" instead of what DNS says; NULL; copied */
	struct q2q_address from;        /* anonymous: no claim */
	bool authorize;                 /* prove `from` */
	struct crypto_tls_context *tls; /* referenced */
	bool trust_new;                 /* pin a domain that is not known without asking */
	const char *expect; /* fingerprint: pin what has it, in place of an older pin; NULL */
	bool identify_only; /* ready once the domain is pinned, without TLS */
	void (*on_ready)(void *user, struct serverlink *l);
	/* It is IDLE again. */
	void (*on_failed)(void *user, struct serverlink *l, const struct problem *problem);
	void (*on_event)(void *user, struct serverlink *l, const struct q2q_event *event);
	void *user;
};

enum { SERVERLINK_FOUND_MAX = 4 };

struct serverlink {
	struct serverlink_config config;
	char domain[Q2Q_DOMAIN_MAX_BYTES + 1];
	char server[Q2Q_HOST_TEXT_BYTES + 8];
	char expect[CRYPTO_FINGERPRINT_BYTES];
	enum serverlink_state state;
	struct net_query *query;
	struct lanes lanes;
	enum lane_kind lane; /* in use, once connected */
	struct net_q2q *driver;
	struct q2q_conn *conn;       /* of the driver; NULL without */
	struct net_timer deadline;   /* of RESOLVING to SECURING */
	struct net_timer patience;   /* with one lane, while there is another */
	struct net_soon report;      /* on_failed from outside of its own calls */
	struct crypto_cert *offered; /* a domain certificate that is not pinned, or differs */
	bool untrusted_new;          /* failed because nobody said yes to `offered` yet */
	struct endpoint remote;      /* the server, once connected */
	struct endpoint found[SERVERLINK_FOUND_MAX]; /* its addresses, as names gave them */
	size_t n_found;
	struct problem problem;
	unsigned busy; /* inside of callbacks */
	bool dead;     /* freed in one of them */
};

int serverlink_new(const struct serverlink_config *config, struct serverlink **ret_link);
void serverlink_free(struct serverlink *l); /* no more callbacks */
/* "TLS on port 443", or "" on the usual port. */
const char *serverlink_way(const struct serverlink *l);
/* Only when IDLE, and after on_failed where it had failed. */
void serverlink_start(struct serverlink *l);
/* The network changed: ends a connection from an address that this machine has no more, and asks
 * the server for a sign of life on another one. */
void serverlink_check(struct serverlink *l);
/* Something was asked of the connection outside of on_event: move it. */
void serverlink_pump(struct serverlink *l);

/* ---- the connections that we keep ---- */

/*
 * One per (identity, domain). That of the identity's own domain listens; another one is there as
 * long as peers of that domain need it. Both come back after a failure, ever more slowly.
 */
struct hub_link {
	struct daemon *daemon;
	struct identity *identity;
	struct serverlink *server;
	char domain[Q2Q_DOMAIN_MAX_BYTES + 1];
	bool own;
	bool listening;
	bool ready;        /* and not known to have failed: see hub_is_ready() */
	bool wake;         /* again at once, when those that it failed have been told */
	unsigned n_asking; /* inbound calls without an answer yet */
	unsigned n_failures;
	uint64_t ready_us;      /* when it was last made; NEVER_US: never */
	uint64_t idle_since_us; /* foreign: nobody needs it since then */
	char about[Q2Q_SERVER_TEXT_BYTES]; /* its program and version; "": not told */
	int64_t ahead_s;                   /* its clock, of ours; INT64_MIN: not told */
	struct net_timer retry;
	struct problem problem; /* why it is not ready; code 0: none yet */
	LIST_ENTRY(hub_link) entry;
};
LIST_HEAD(hub_list, hub_link);

#define HUB_PROTOCOL "q2q-tun" /* what we listen for */

/* ask.c: what hub_ask() started. */
enum session_why ask_why(const struct problem *problem);
void ask_failed(struct link *link, enum session_why why, const struct problem *problem);
/* Now, or where many wait for an answer, after one of those: ask_over() tells of it. */
void ask_send(struct hub_link *h, struct link *link);
void ask_over(struct hub_link *h);
bool ask_trusts_new(struct link *link); /* somebody said in advance that a new key is fine */
void ask_answered(struct hub_link *h, const struct q2q_event *event);

/* channel.c */
void channel_ask(struct link *link, const void *route, const char *id);
void channel_answered(struct hub_link *h, const struct q2q_event *event);
void ask_error(struct hub_link *h, const struct q2q_event *event);
/* inbound.c: a call of the server. */
void hub_call(struct hub_link *h, const struct q2q_event *event);
int hub_start(struct daemon *d); /* own connections of all identities */
void hub_stop(struct daemon *d);
/* Takes a certificate into use and onto disk, for a new identity or one that is there: faults as
 * identities_add(). Connections to servers are made anew, tunnels stay. */
int hub_identity_set(struct daemon *d, const struct q2q_address *address, struct crypto_cert *cert,
		     struct crypto_key *key, struct identity **ret_identity);
/* renew.c: the identity's own server is connected; what it said of q2q-tun-renew; the end. */
void renew_plan(struct daemon *d, struct identity *identity);
void renew_answered(struct hub_link *h, const struct q2q_event *event);
void renew_stop(struct daemon *d);
/* The server was asked, and does not renew it. */
bool renew_is_refused(const struct identity *identity);
/* Finds or opens. NULL: no memory. */
struct hub_link *hub_get(struct daemon *d, struct identity *identity, const char *domain);
struct hub_link *hub_own(struct daemon *d, const struct identity *identity);
/* Can something be asked there? A connection that has just failed is not told of yet. */
bool hub_is_ready(const struct hub_link *h);
/* The addresses of the servers that we are connected to: they answer STUN. */
void hub_tell_servers(struct daemon *d);
/* Try now: the user waits, or the network came back. */
void hub_wake(struct hub_link *h);
void hub_wake_all(struct daemon *d);
/* The user tries again: the servers that did not let this identity in may do so now. */
void hub_wake_denied(struct daemon *d, const struct identity *identity);
/* Closes those that nobody needed for a while. True: there are some to look at again. */
bool hub_sweep(struct daemon *d);
/* The user trusts what the server showed. */
int hub_trust(struct hub_link *h);
/* Sends `inbound` for a session that asked; its answer goes there. */
void hub_ask(struct link *link, const char *request);
/* Sends a session's signal or relayed datagrams; route is a hub_link. */
/* The connection that a session knows as its route; NULL: it is gone, or not ready. */
struct hub_link *hub_of_route(struct daemon *d, const void *route);
void hub_signal(struct daemon *d, void *route, const char *id, const void *body, size_t n_bytes,
		bool relay);

/* ---- links ---- */

enum device_state { DEVICE_NONE, DEVICE_ASKED, DEVICE_READY, DEVICE_FAILED };

/* One name of a session in the daemon's index. */
struct link_name {
	struct session_name name;
	bool entered, listed; /* in its worker's index, and in the directory of all */
	struct link *link;
	UT_hash_handle hh, directory_hh;
};

/* What one peer's tunnel is made of, while there is something going on. */
struct link {
	struct daemon *daemon;
	struct worker *worker; /* for its life */
	uint64_t serial;       /* no other link had it */
	struct peer *peer;
	struct identity *identity;
	struct session *session;
	struct tun_addresses shown;
	uint32_t slot;
	enum device_state device;
	uint32_t device_request; /* id of the message to the monitor */
	char ifname[TUN_NAME_BYTES];
	uint32_t features;
	int tun_fd;
	struct net_watch tun_watch;
	bool tun_wanted; /* reading */
	struct net_timer timer;
	struct net_soon pump;
	int64_t since_s; /* wall clock of the state */
	/* An inbound of ours on its way. */
	char asking[OFFER_ID_BYTES + 1];
	struct hub_link *ask_hub;
	uint64_t ask_cookie;
	/* the question for a channel that waits; 0: none */
	uint64_t channel_cookie;
	char channel_id[OFFER_ID_BYTES + 1];
	bool ask_sent;
	/* What the user has to decide: a key seen, not pinned. */
	struct crypto_cert *offered_peer;
	struct problem problem; /* the last attempt's; code 0: none */
	uint32_t next_ping;
	uint64_t tun_write_dropped;
	struct link_name names[SESSION_NAMES_MAX];
	bool has_untold; /* an event that its worker could not tell the control plane yet: */
	struct session_event untold;
	bool waits_udp; /* has something to send, once the socket takes it */
	TAILQ_ENTRY(link) udp_entry;
	LIST_ENTRY(link) entry;
};
LIST_HEAD(link_list, link);
TAILQ_HEAD(link_queue, link);

/* device.c: chooses link->shown; asks the monitor for the device; reads it, or not; writes it. */
int link_choose_addresses(struct link *link);
int link_device_ask(struct link *link);
void link_device_close(struct link *link);
void link_device_want(struct link *link, bool wanted);
/* It vanished: makes another one. */
void link_device_lost(struct link *link);
void link_device_write(struct link *link, const struct session_frame *frame);
/* Finds or makes the link of a peer; problem says why not. */
struct link *links_get(struct daemon *d, struct peer *peer, struct problem *ret_problem);
/* The identity named `as`, or the default one for ""; NULL with the problem if there is none. */
struct identity *links_identity(struct daemon *d, const char *as, struct problem *ret_problem);
/* The same for a call to this identity of ours; also NULL if another one has a tunnel there. */
struct link *links_get_called(struct daemon *d, struct peer *peer, struct identity *identity,
			      struct problem *ret_problem);
/* At once; sends nothing, so close the session first. */
void links_free(struct link *link);
/* Input was given to the session: move what comes out of it, soon. */
void links_pump(struct link *link);
void links_pump_now(struct link *link);
/* What its session tells, in the control plane's thread. */
void links_on_event(struct link *link, const struct session_event *event);
/* q2q-tun-signal, -relay or -gone, in the thread of the link's worker; body is changed. */
void links_told(struct worker *w, enum q2q_command command, const char *id, uint8_t *body,
		size_t n_bytes);
/* UDP takes datagrams again: those that waited go on, in their order. */
void links_pump_waiting(struct worker *w);
/* The monitor answered. */
void links_on_reply(struct daemon *d, const struct tun_reply *reply, int fd);
/* Frees what is down and not wanted, closes what is allowed no longer. Returns when somebody's
 * permission ends, on the wall clock, or INT64_MAX. */
int64_t links_sweep(struct daemon *d);
/* Brings up what is wanted. */
void links_start_wanted(struct daemon *d);
/* The same for those that have no link any more, as after a sleep. */
void links_start_lost(struct daemon *d);
/* The attempt failed, as the user shall read it. */
void links_attempt_failed(struct link *link, enum session_why why, const struct problem *problem);
/* "direct-udp", "direct-tcp", "relay-udp", "relay-tcp", or "none". */
const char *status_path_kind(const struct session_status *s);
/* The object of `status`. */
json_t *links_status(struct peer *peer);
/* The same with all candidates, pairs and paths. */
json_t *links_status_full(struct peer *peer);
/* doctor.c: program, version and system in one line. */
struct utsname;
void doctor_about(const struct utsname *names, char *out, size_t out_bytes);
/* This machine in `status`. */
json_t *status_self(struct daemon *d);
/* What stands between a peer and being up, in words. False: it is up. */
bool links_problem(struct link *link, struct problem *ret_problem);

/* index.c: after input to the session; before it is freed; n_bytes up to OFFER_ID_BYTES. */
void index_update(struct link *link);
void index_remove(struct link *link);
struct link *index_find(struct worker *w, enum session_name_kind kind, const void *bytes,
			size_t n_bytes);

/* Of all workers, with more than one: whose a name is. Any thread may ask. */
int directory_init(struct daemon *d);
void directory_fini(struct daemon *d);
struct worker *directory_find(struct daemon *d, enum session_name_kind kind, const void *bytes,
			      size_t n_bytes);

/* ---- UDP ---- */

#define UDP_SOCKETS_MAX 64

struct udp_socket {
	struct worker *worker;
	struct net_udp *udp; /* NULL: this number is free */
	uint8_t number;
	struct link *owner; /* NULL: the main socket, of all */
	struct endpoint local;
	bool ipv4, ipv6;
};

struct udp {
	struct udp_socket sockets[UDP_SOCKETS_MAX];
	bool blocked;
	uint64_t n_strange; /* datagrams for nobody */
};

int udp_start(struct daemon *d);
void udp_stop(struct daemon *d);
/* A socket on a fresh port for one link; -EMFILE: too many. */
int udp_open(struct link *owner, struct udp_socket **ret_socket);
void udp_close(struct worker *w, uint8_t number);
/* Takes a socket of a volley over as one of that link; -EMFILE: too many. */
int udp_adopt(struct link *owner, struct net_udp *udp, struct udp_socket **ret_socket);
/* Of the main sockets. */
uint16_t udp_port(const struct daemon *d);
/* Where the kernel would send from to get there; FAMILY_NONE: no way leads there. */
struct endpoint udp_route(const struct endpoint *remote);
/* Where this machine would send from to get there, by NAT64 too, with that port. */
struct endpoint udp_local_for(const struct daemon *d, uint16_t port, const struct endpoint *remote);
void udp_send(struct link *link, const struct session_send *send);
/* A datagram that came to the main socket of another worker. */
void udp_passed(struct worker *w, const struct endpoint *from, uint8_t ecn, uint8_t *data,
		size_t n_bytes);

/* ---- volleys: see NAT_EVENT_WANT_VOLLEY ---- */

struct volley;

/* Opens them for a link, which is told how many there are: none, while another link of its
 * worker has some. */
void volley_open(struct link *link, unsigned n_sockets);
/* Closes those of that link; NULL: anyone's. */
void volley_close(struct worker *w, const struct link *link);
void volley_send(struct link *link, const struct session_send *send);

/* ---- our addresses ---- */

#define GATHER_SERVERS_MAX 24
#define GATHER_TRIES_MAX   128

/* One question to one STUN server from one socket. */
struct gather_try {
	bool used, done;
	struct udp_socket *socket;
	struct endpoint server;
	struct stun_client client;
};

/* A STUN server, and the other port of it that it told us of; 0: none. */
struct gather_server {
	struct endpoint endpoint;
	uint16_t other_port;
};

#define GATHER_WAYS 64 /* what the kernel said of so many addresses is known */

/* Whether we would send to an address through an interface that is avoided. */
struct gather_way {
	struct ip_address to;
	bool astray;
};

struct gather {
	struct net_local_address hosts[64]; /* of interfaces, as the last change left them */
	int n_hosts;
	bool hosts_known;
	bool avoided[64]; /* hosts[] that are not told, nor used to reach anybody */
	int n_avoided;
	struct gather_way ways[GATHER_WAYS]; /* by hash; until the network changes */
	struct gather_server servers[GATHER_SERVERS_MAX];
	size_t n_servers;
	struct gather_try tries[GATHER_TRIES_MAX];
	struct net_timer timer;
	uint64_t last_us;
};

int gather_start(struct daemon *d);
/* Would we get there through an interface that is not for this (another VPN, containers), while
 * others are reached otherwise? */
bool gather_avoids(struct daemon *d, const struct ip_address *ip);
/* No STUN server has answered the main socket, though each was asked more than once. */
bool gather_is_silent(const struct daemon *d);
void gather_stop(struct daemon *d);
/* An address of a server: its UDP port answers STUN. */
void gather_add_server(struct daemon *d, const struct endpoint *address);
/* Has this machine an IPv4 address that is more than its own? */
bool gather_has_ipv4(struct daemon *d);
/* What we look like from outside may be another now, though nothing changed at this machine. */
void gather_again(struct daemon *d);
/* A STUN server that has answered, best one of the project. */
bool gather_server(const struct daemon *d, enum address_family family, struct endpoint *ret_server);
/* Everything anew, for all links; after the network changed. */
void gather_restart(struct daemon *d);
/* The configuration names other STUN servers, or other interfaces. */
void gather_reload(struct daemon *d, bool stun, bool interfaces);
/* What is known of a socket, for a session that is new. */
void gather_tell(struct daemon *d, struct link *link);
/* A link's fresh socket: its addresses, then STUN. */
void gather_socket(struct daemon *d, struct udp_socket *socket);
void gather_forget_socket(struct udp_socket *socket);
/* Changes when this machine's addresses, or the ones it would send from, do. */
uint64_t gather_signature(struct daemon *d);
bool gather_input(struct daemon *d, const struct udp_socket *socket, const struct endpoint *from,
		  const uint8_t *data, size_t n_bytes);

/* ---- IPv4 from a network of IPv6 ---- */

struct nat64 {
	struct daemon *daemon;
	struct net_query *query;
	struct net_timer timer; /* of the question: patience, then the next try */
	unsigned n_failures;
	bool waiting; /* gather_restart() is due with the answer */
	struct net_nat64 known;
};

void nat64_start(struct daemon *d);
void nat64_stop(struct daemon *d);
/* The network changed. True: gather_restart() is called here, when more is known. */
bool nat64_restart(struct daemon *d);
#define NAT64_TEXT_BYTES (IP_TEXT_BYTES + 4)
/* "64:ff9b::/96"; "": none. */
const char *nat64_text(const struct daemon *d, char out[static NAT64_TEXT_BYTES]);

/* ---- how far apart keepalives may be ---- */

enum { LIFETIME_NETWORK_BYTES = 80 };

struct lifetime_search {
	struct daemon *daemon;
	enum address_family family;
	bool started;
	struct nat_lifetime search;
	enum nat_lifetime_state noted; /* in the log */
	uint64_t told_us;
	char network[LIFETIME_NETWORK_BYTES];
	struct endpoint server;
	uint8_t transaction[STUN_TRANSACTION_BYTES]; /* random, the last four bytes a number */
	struct net_udp *aged, *asking;
	struct net_timer timer;
};

struct lifetime {
	struct lifetime_search searches[2]; /* IPv4, IPv6 */
};

void lifetime_start(struct daemon *d);
void lifetime_stop(struct daemon *d);
/* The network changed. */
void lifetime_restart(struct daemon *d);
/* A link goes directly, through what may be a NAT: from then on it is worth knowing. */
void lifetime_path(struct link *link, enum address_family family);
/* The configuration says something else. */
void lifetime_reload(struct daemon *d);
/* A path that rested has died. */
void lifetime_doubt(struct daemon *d, enum address_family family);
/* 0: not known, and not being found out. */
uint64_t lifetime_interval_us(const struct daemon *d, enum address_family family);

/* ---- the gateway's port for us ---- */

struct portmap {
	struct daemon *daemon;
	struct net_udp *udp;       /* NULL: nothing was asked yet */
	struct net_udp *announced; /* hears what gateways tell everybody; NULL: cannot be had */
	struct net_watch igd_watch;
	bool igd;                 /* q2q-tun-upnp is there */
	uint32_t unmap_id;        /* it has been asked to give back, under this id; 0: it has not */
	struct net_timer timer;
	struct endpoint gateway, told;
	struct ip_address local; /* ours, towards it */
	const char *reason, *idle_reason;
	uint32_t n_restarts;
	struct nat_portmap client;
};

void portmap_start(struct daemon *d);
void portmap_stop(struct daemon *d);
/* The network changed. */
void portmap_restart(struct daemon *d);
/* The configuration says something else. */
void portmap_reload(struct daemon *d);
void portmap_tell(struct daemon *d, struct link *link);
/* The default gateway's IPv4 address. False: there is none. */
bool portmap_gateway(struct ip_address *ret_ip);
/* The end is near: the port is given back, which takes a moment. */
void portmap_release(struct daemon *d);
bool portmap_is_released(const struct daemon *d);
/* Whether there is one, and peers can reach it. */
bool portmap_helps(const struct daemon *d);
/* What became of it, for programs and in words. */
json_t *portmap_json(const struct daemon *d);

/* ---- TCP connections with peers ---- */

#define STREAMS_MAX 256

struct daemon_stream;

struct streams {
	LIST_HEAD(, daemon_stream) list;
	struct net_listener *listener; /* NULL: nobody can connect to us */
	uint8_t *room;                 /* to read into */
	uint16_t last_number;
	uint64_t n_strange; /* who came and was nobody's peer */
	uint64_t n_dropped; /* frames without room */
};

void streams_start(struct daemon *d);
void streams_stop(struct daemon *d);
uint16_t streams_port(const struct daemon *d); /* 0: we do not listen */
/* SESSION_EVENT_WANT_STREAM, _STREAM_UNUSED; a session's frames or handshake. */
void streams_connect(struct link *link);
void streams_close(struct daemon *d, uint16_t number);
/* framed: each with its length in front; else a handshake, which goes as it is. */
void streams_send(struct daemon *d, uint16_t number, bool framed, const uint8_t *data,
		  size_t n_bytes);
/* The link goes: closes those that are its. */
void streams_forget(struct link *link);

/* ---- control socket ---- */

#define CLIENTS_MAX         128
#define CLIENTS_PUBLIC_MAX  96 /* of those who are no operators: who is finds a place */
#define CLIENTS_PER_UID_MAX 24 /* of one of those */
#define OPS_MAX             64 /* of one client at a time */

struct client {
	struct daemon *daemon;
	struct net_line *line;
	bool is_operator;
	uid_t uid;
	unsigned n_ops;
	TAILQ_HEAD(, op) ops;
	LIST_ENTRY(client) entry;
	struct net_soon gone;
};

/* A request that is not answered yet. */
struct op {
	struct daemon *daemon;
	struct client *client; /* NULL: the client went; it ends silently */
	uint64_t id;
	struct ctl_request request;
	struct peer *peer;  /* that it is about; for those that wait for a link */
	uint64_t n_written; /* disk_asked() when it began ... */
	uint64_t n_until;   /* ... and when it ended */
	char *answer;       /* the last line; it waits for the disk */
	bool asking;        /* a question is with the user, about: */
	enum ctl_ask_kind asked;
	char asked_fingerprint[CRYPTO_FINGERPRINT_BYTES];
	struct net_timer timer;
	/* Set by those that take part; each may be NULL. */
	void (*on_answer)(struct op *op, const char *answer);
	void (*on_link)(struct op *op, struct link *link); /* something about op->peer changed */
	void (*on_timer)(struct op *op);
	void (*on_pong)(struct op *op, uint32_t id, uint64_t rtt_us, struct link *link);
	void (*on_log)(struct op *op, int level, const char *line);
	void (*on_event)(struct op *op, json_t *event); /* monitor */
	void (*on_end)(struct op *op);                  /* frees state */
	void *state;
	TAILQ_ENTRY(op) entry; /* of the client */
	TAILQ_ENTRY(op) all;   /* of the daemon */
};
TAILQ_HEAD(op_list, op);

int control_start(struct daemon *d);
/* The disk has taken something: answers that waited for it leave. */
void control_settled(struct daemon *d);
void control_stop(struct daemon *d);
/* Each of these ends the op. The answer leaves when what was written since it began is on disk. */
void op_done(struct op *op, json_t *result);
void op_fail(struct op *op, const struct problem *problem);
void op_failf(struct op *op, enum ctl_code code, const char *hint, const char *format, ...)
	PRINTF_LIKE(4, 5);
/* These do not. event is consumed. */
void op_progress(struct op *op, const char *format, ...) PRINTF_LIKE(2, 3);
void op_event(struct op *op, json_t *event);
void op_ask(struct op *op, enum ctl_ask_kind kind, const char *subject, const char *fingerprint,
	    const char *text);
/* Is this the user's yes to a question about this key: "yes" or its fingerprint? */
bool op_says_yes(const char *answer, const char *fingerprint);
/* Tells all ops that wait for this peer. */
void control_link_changed(struct daemon *d, struct link *link);
/* An event for `monitor`; consumed. */
void control_event(struct daemon *d, json_t *event);

/* The commands; each ends its op or leaves it waiting. */
typedef void op_fn(struct op *op);
op_fn command_register, command_authorize, command_identity_list, command_identity_show,
	command_identity_default, command_identity_export, command_identity_import,
	command_identity_rotate, command_up, command_down, command_wait, command_status,
	command_doctor, command_peers, command_peers_forget, command_peers_pin, command_allow,
	command_deny, command_requests, command_ping, command_log, command_monitor, command_version;
/* The address argument, checked; false: the op has ended. */
bool op_user(struct op *op, const char *name, struct q2q_address *ret_address);
/* The peer that the address argument names; NULL: the op has ended. */
struct peer *op_peer(struct op *op);
/* Asks whether the server of a domain is the right one. */
void op_ask_domain(struct op *op, const char *domain, struct crypto_cert *cert);
/* What the commands say about an identity. */
json_t *identities_json(struct daemon *d, const struct identity *identity);

/* ---- names, log ---- */

int names_start(struct daemon *d);
void names_stop(struct daemon *d);

#define LOGRING_LINES 1000
#define LOGRING_TEXT  320

struct logring_line {
	int64_t time_s;
	int level;
	char text[LOGRING_TEXT];
};
struct logring {
	struct logring_line *lines; /* LOGRING_LINES */
	size_t first, n;
	bool busy; /* telling: what is logged meanwhile is kept, not told */
};

int logring_init(struct daemon *d);
void logring_fini(struct daemon *d);
void logring_add(struct daemon *d, int level, const char *text);
json_t *logring_event(const struct logring_line *line);

/* ---- upkeep ---- */

void upkeep_start(struct daemon *d);
void upkeep_stop(struct daemon *d);
/* Something changed that may leave a link or a connection without a use. */
void upkeep_soon(struct daemon *d);
/* Writes what nobody waits for, when there is time: a disk may take long to confirm each. */
void upkeep_save(struct daemon *d, struct peer *peer);
/* Messages were given back: the heap may be too. */
void upkeep_freed(struct worker *w, size_t n_bytes);
/* So did what runs once, at the start or in a handshake, and its code with it. */
void upkeep_ran_once(struct worker *w);
void upkeep_worker(struct worker *w); /* prepares it for that */

/* ---- workers ---- */

/*
 * The data plane of some links: what the packets of a link touch on their way between its device
 * and the network. It belongs to one thread; the first worker's is also the thread of all the
 * rest, the control plane.
 */
struct worker {
	struct daemon *daemon;
	unsigned number; /* index in daemon.workers */
	struct net_loop *loop;
	struct udp udp;
	struct volley *volley; /* NULL: none is open */
	struct link_queue waiting_udp;
	struct link_name *names_index, *last_found;
	struct session_scratch *scratch; /* of all its sessions */
	struct ptcp_memory memory;       /* its share */
	struct net_timer trim;
	size_t freed_bytes;   /* of messages, not yet given back to the system */
	bool ran_once;        /* and code that nobody needs any more */
	uint64_t trim_cpu_us; /* what the process had used when `trim` was armed */
	uint64_t tun_turn_us;        /* the turn in which devices were read last, */
	unsigned n_tun_ready;        /* how many of them had something, */
	unsigned n_tun_ready_before; /* and in the turn before */
	unsigned n_links;
	uint64_t n_dropped; /* what had to cross while a mailbox was full */
	/* With more than one of them; see workers.c. */
	struct net_mailbox *mailbox;
	struct udp_socket channel; /* for relays: of this worker alone; not of the first */
	pthread_t thread;
	bool runs;    /* it has its own thread, now */
	bool entered; /* the control plane wants it to stand still, */
	bool parked;  /* and it does */
	bool ending;  /* its loop shall */
	enum log_level log_level; /* which its thread takes when it goes on */
	uint8_t discard[TUN_FRAME_BYTES]; /* read and thrown away */
};

/* Loops and memory of all workers. On a fault workers_fini() frees what is there. */
int workers_init(struct daemon *d);
void workers_fini(struct daemon *d); /* NULLs are fine */
/* The one with the fewest links, for one more. */
struct worker *workers_choose(struct daemon *d);
/* Their threads run from now on. 0, or a fault: the daemon must end. */
int workers_start(struct daemon *d);
/* Waits for the ends of their threads: all is this one's again. */
void workers_stop(struct daemon *d);

/* Is this the control plane's thread? It may use any link that it has entered. */
bool workers_in_control(void);
/*
 * What is a link's (session, timers, device, sockets) may be used until the end of this turn of the
 * control plane's loop. Nothing to do in the worker's own thread.
 */
void workers_enter(struct worker *w);
/* In a worker's thread: between these two the control plane stands still. Short, no entering. */
void workers_borrow(struct daemon *d);
void workers_return(struct daemon *d);

static inline void link_enter(const struct link *link)
{
	if (link->worker->number != 0)
		workers_enter(link->worker);
}

/* To copy a peer: its allowance is what its link's worker changes. */
static inline void peer_enter(const struct peer *peer)
{
	if (peer->link)
		link_enter(peer->link);
}

/* For the control plane. */
static inline struct session *link_session(const struct link *link)
{
	link_enter(link);
	return link->session;
}

/* The time of its worker: sessions see no other. */
static inline uint64_t link_now_us(const struct link *link)
{
	link_enter(link);
	return net_loop_now_us(link->worker->loop);
}

/* From a worker's thread to the control plane. 0, or it has no room now. */
int workers_tell_event(struct link *link, const struct session_event *event);
int workers_tell_device_lost(struct link *link);
int workers_tell_stream(const struct session_send *send);
int workers_tell_signal(void *route, const char *id, const void *body, size_t n_bytes, bool relay);
void workers_tell_stun(struct udp_socket *socket, const struct endpoint *from, const uint8_t *data,
		       size_t n_bytes);
void workers_tell_log(enum log_level level, const char *text);
/* To a worker. */
void workers_pass_told(struct worker *to, enum q2q_command command, const char *id,
		       const void *body, size_t n_bytes);
void workers_pass_datagram(struct worker *to, const struct endpoint *from, uint8_t ecn,
			   const uint8_t *data, size_t n_bytes);
/* All loops reach IPv4 so from now on. */
void workers_set_nat64(struct daemon *d, const struct net_nat64 *nat64);
void workers_set_log_level(struct daemon *d, enum log_level level);

/* ---- the daemon ---- */

struct daemon {
	struct daemon_options *options; /* reload() alone changes them */
	struct worker *workers;
	unsigned n_workers;
	struct gate *gate;           /* NULL with one worker, */
	struct directory *directory; /* as this */
	uint64_t next_link_serial;
	struct net_loop *loop; /* of the control plane, and of the first worker */
	struct net_resolver *resolver;
	struct net_changes *changes;
	struct identities identities;
	struct domains domains;
	struct peer_list peers;
	struct peer *peers_index; /* by address */
	size_t n_peers;
	struct requests requests;
	struct disk *disk;
	struct hub_list hubs;
	struct link_list links;
	struct link *slots[TUN_SLOTS_MAX];
	struct nat64 nat64;
	struct portmap portmap;
	struct lifetime lifetime;
	struct gather gather;
	struct lanes_memory lanes;
	struct streams streams;
	struct logring log;

	struct net_listener *control;
	LIST_HEAD(, client) clients;
	unsigned n_clients;
	struct op_list ops;
	void *names;

	struct net_watch monitor_watch;
	STAILQ_HEAD(, waiting_request) monitor_waiting; /* requests that it has no room for yet */
	unsigned n_monitor_waiting;
	struct net_timer alive, sweep, save, stop_timer;
	uint32_t monitor_id;
	uint64_t next_cookie;
	struct hash_seed seed;
	char device[OFFER_NAME_BYTES + 1], about[OFFER_ABOUT_BYTES + 1];
	int64_t started_s;
	bool stopping;
	uint64_t stop_deadline_us;
	uint64_t device_changed_us; /* an interface of ours came or went */
	uint64_t network_signature;
	int exit_status;
	int lock_fd; /* of the state directory */
};

/* reload.c: reads the configuration again. 0, or a fault: then nothing has changed. */
int reload(struct daemon *d);

/* Sends a request to the monitor, or keeps it until there is room; a fault ends the daemon. */
int daemon_monitor_send(struct daemon *d, struct tun_request *request);
/* Leaves the loop. */
void daemon_stop_now(struct daemon *d, int exit_status);
/* crypto_random() with a user pointer. */
int daemon_random(void *user, void *out, size_t n_bytes);

#endif
