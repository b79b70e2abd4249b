/*
 * net - the loop and the sockets of the programs: timers, signals, UDP in
 * batches, name resolution, TCP, control connections, and the driver that
 * joins a q2q connection to a TCP socket. The only folder that includes
 * libevent and c-ares.
 *
 * One loop is one thread; nothing here may be called from another, but
 * net_mailbox_post() and net_mailbox_ring(). Callbacks
 * run from net_loop_run() and never from inside the call that registered them.
 * Every object may be freed or cancelled inside any callback, its own too.
 *
 * Time is CLOCK_BOOTTIME in microseconds, read once per wake-up.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include "base/base.h"

#include <sys/types.h>

/* ---- limits -------------------------------------------------------------------- */

#define NET_UDP_BATCH          16           /* messages per recvmmsg() or sendmmsg() */
#define NET_UDP_MESSAGE_BYTES  65536        /* one received message, GRO included */
#define NET_UDP_PENDING_BYTES  (512 * 1024) /* waiting for the socket to become writable */
#define NET_UDP_SEGMENTS_MAX   64           /* datagrams per UDP_SEGMENT send */
#define NET_ENDPOINTS_MAX      16           /* endpoints in one resolver result */
#define NET_RESOLVE_TIMEOUT_US (5 * US_PER_S)
#define NET_CONNECT_STAGGER_US (250 * US_PER_MS)
#define NET_FLUSH_TIMEOUT_US   (5 * US_PER_S) /* how long a closed connection may go on writing */
#define NET_LINE_BYTES_MAX     (256 * 1024)
#define NET_GROUPS_MAX         64

/* ---- loop ------------------------------------------------------------------------ */

struct net_loop;

/* -ENOMEM or the fault of epoll or timerfd. */
int net_loop_new(struct net_loop **ret_loop);
/* Everything registered must have been freed before; what was closed and still writes is freed
 * here. NULL is fine. */
void net_loop_free(struct net_loop *loop);
DEFINE_CLEANUP(struct net_loop *, net_loop_free)
/* Runs until net_loop_stop(). 0, or the fault that ended it. */
int net_loop_run(struct net_loop *loop);
/* net_loop_run() returns after the callbacks that are due now. */
void net_loop_stop(struct net_loop *loop);
/* One wake-up: waits for something to happen if `wait`, then calls back. 0 or a fault. */
int net_loop_turn(struct net_loop *loop, bool wait);
/* The time of this wake-up. */
uint64_t net_loop_now_us(struct net_loop *loop);
/* Nothing happens for a while: gives back what receiving a burst used. */
void net_loop_rest(struct net_loop *loop);
/* Reads the clock now. For measuring work, not for deadlines. */
uint64_t net_clock_us(void);

/* A timer is embedded in its owner. Arming never fails and allocates nothing. */
struct net_timer {
	struct net_loop *loop;
	void (*fn)(void *user, uint64_t now_us);
	void *user;
	uint64_t due_us;                           /* NEVER_US: not armed */
	struct net_timer *child, *next, *previous; /* the loop's heap */
};

void net_timer_init(struct net_timer *t, struct net_loop *loop,
		    void (*fn)(void *user, uint64_t now_us), void *user);
/* One shot, at an absolute time; replaces what was armed. NEVER_US disarms. */
void net_timer_arm(struct net_timer *t, uint64_t due_us);
void net_timer_disarm(struct net_timer *t); /* also the destructor; fine on a zeroed timer */

/* Runs once, after the callbacks of this wake-up and before the loop waits again. */
struct net_soon {
	struct net_loop *loop;
	void (*fn)(void *user);
	void *user;
	uint64_t turn; /* of the loop, when it ran last */
	bool queued;
	TAILQ_ENTRY(net_soon) entry;
};

void net_soon_init(struct net_soon *s, struct net_loop *loop, void (*fn)(void *user), void *user);
void net_soon_queue(struct net_soon *s);  /* once, however often it is called */
void net_soon_cancel(struct net_soon *s); /* also the destructor; fine on a zeroed object */

enum net_ready { NET_READ = 1, NET_WRITE = 2 };

/* Watches a descriptor that stays the caller's. Level triggered. */
struct net_watch {
	struct net_loop *loop;
	void (*fn)(void *user, unsigned ready);
	void *user;
	int fd;
	unsigned want;
	void *event; /* libevent's; NULL while nothing is wanted */
};

void net_watch_init(struct net_watch *w, struct net_loop *loop, int fd,
		    void (*fn)(void *user, unsigned ready), void *user);
/* NET_READ, NET_WRITE, both, or 0. 0, -ENOMEM, or the fault of epoll. */
int net_watch_want(struct net_watch *w, unsigned want);
/* Call it before closing the descriptor. Fine on a zeroed object. */
void net_watch_fini(struct net_watch *w);

/* Calls fn in the loop when the signal arrives. Lives as long as the loop. */
int net_loop_on_signal(struct net_loop *loop, int signal_number,
		       void (*fn)(void *user, int signal_number), void *user);

/*
 * Calls fn when a turn has something to do, before the first callback, and again after the last:
 * around whatever this loop may change. For those who share it with other threads.
 */
void net_loop_on_turn(struct net_loop *loop, void (*fn)(void *user, bool begins), void *user);

/* ---- mailboxes: the way into a loop from other threads ----------------------------- */

struct net_mailbox;

struct net_mailbox_config {
	size_t letters_max, bytes_max; /* that wait */
	/* In the loop's thread, in the order they were posted; valid during the callback, and
	 * aligned for any type. */
	void (*on_letter)(void *user, void *letter);
	void (*on_rung)(void *user); /* after the letters, or by net_mailbox_ring(). May be NULL */
	void *user;
};

int net_mailbox_new(struct net_loop *loop, const struct net_mailbox_config *config,
		    struct net_mailbox **ret_mailbox);
/* Nobody posts any more; what waits is dropped. Not inside its own callbacks. NULL is fine. */
void net_mailbox_free(struct net_mailbox *mailbox);
/* From any thread: one letter, a copy of head and, right behind, body. 0, -ENOBUFS: full, -ENOMEM. */
int net_mailbox_post(struct net_mailbox *mailbox, const void *head, size_t head_bytes,
		     const void *body, size_t body_bytes);
/* From any thread: on_rung, without a letter. */
void net_mailbox_ring(struct net_mailbox *mailbox);

/* ---- IPv4 through NAT64 ------------------------------------------------------------ */

/* How a network that has IPv6 alone reaches IPv4: by addresses of a prefix (RFC 6052). */
struct net_nat64 {
	struct ip_address prefix; /* zeros behind prefix_bits */
	uint8_t prefix_bits;      /* 32, 40, 48, 56, 64 or 96; 0: there is no NAT64 */
	bool private_is_near; /* this machine has IPv4 addresses too: RFC 1918 is not behind it */
};

/* The IPv6 address that stands for an IPv4 one, and back. False: none does. The well-known prefix
 * stands for global addresses alone (RFC 6052, section 3.1), none for loopback and the like. */
bool net_nat64_embed(const struct net_nat64 *nat64, const struct ip_address *ip4,
		     struct ip_address *ret_ip6);
bool net_nat64_extract(const struct net_nat64 *nat64, const struct ip_address *ip6,
		       struct ip_address *ret_ip4);
/* What the answers to net_resolve_nat64() say (RFC 7050, section 3). False: there is none. */
bool net_nat64_detect(const struct endpoint *answers, size_t n_answers,
		      struct net_nat64 *ret_nat64);
/*
 * From now on the sockets of this loop, UDP and outgoing TCP, reach IPv4 endpoints so, and say of
 * what comes from the prefix that it comes from the IPv4 endpoint. NULL: no longer. Copied.
 */
void net_loop_set_nat64(struct net_loop *loop, const struct net_nat64 *nat64);
/* What a socket of this loop would send to instead; and who something that came from there is from.
 * The same endpoint where NAT64 has no part in it. */
struct endpoint net_nat64_outward(const struct net_loop *loop, const struct endpoint *e);
struct endpoint net_nat64_inward(const struct net_loop *loop, const struct endpoint *e);

/* ---- UDP --------------------------------------------------------------------------- */

struct net_udp;

/* One received message: one datagram, or several of one sender glued by GRO. */
struct net_udp_packet {
	uint8_t *data; /* may be written to (decryption in place); valid during the callback */
	size_t data_bytes;
	size_t segment_bytes; /* each datagram but the last has this size; never 0 */
	struct endpoint from;
	struct ip_address local; /* the address it was sent to; FAMILY_NONE if unknown */
	uint32_t interface;      /* index; 0 if unknown */
	uint8_t ecn;             /* two bits */
	uint8_t ttl;             /* hop limit on arrival; 0 if unknown */
};

struct net_udp_config {
	struct endpoint bind; /* FAMILY_NONE: every address of both families; port 0: any */
	/* Up to NET_UDP_BATCH packets at a time. */
	void (*on_packets)(void *user, struct net_udp *udp, struct net_udp_packet *packets,
			   size_t n_packets, uint64_t now_us);
	/* After NET_UDP_BLOCKED: what waited has left, sending may go on. May be NULL. */
	void (*on_writable)(void *user, struct net_udp *udp);
	void *user;
	bool shared;         /* others may bind it too: a multicast address */
	size_t buffer_bytes; /* wanted socket buffers; 0: 4 MiB. The kernel may give less */
	bool shared_port;    /* joins those that have the port: see net_udp_share_port() */
};

/* Which of the sockets that share a port gets a datagram, as the order of binding counts them. */
struct net_udp_steering {
	uint8_t mask, value; /* where byte 0 & mask == value, the one of: */
	uint8_t at;          /* the byte there, modulo */
	uint8_t n_sockets;   /* their number. Everything else is for the first */
};

struct net_udp_send {
	struct endpoint to;
	struct ip_address from; /* source address; FAMILY_NONE: the kernel chooses */
	const uint8_t *data;
	size_t data_bytes;
	size_t segment_bytes; /* cut into datagrams of this size; 0: one datagram */
	uint8_t ecn;          /* two bits */
	uint8_t dscp;         /* six bits */
	uint8_t ttl;          /* hop limit; 0: the system's */
};

enum net_udp_outcome { NET_UDP_SENT, NET_UDP_BLOCKED = 1 };

struct net_udp_stats {
	uint64_t rx_messages, rx_datagrams, rx_bytes, rx_calls, rx_truncated;
	uint64_t tx_messages, tx_datagrams, tx_bytes, tx_calls;
	uint64_t tx_blocked; /* times the socket was full */
	uint64_t tx_dropped; /* datagrams given up: queue full or a fault */
	bool gso, gro;       /* whether the kernel does UDP_SEGMENT and UDP_GRO here */
};

/*
 * Opens and binds. Datagrams are never fragmented and the kernel's path MTU is
 * ignored (IP_PMTUDISC_PROBE): packetization is the transport's business.
 * -EADDRINUSE, -EADDRNOTAVAIL, -EMFILE, -ENOMEM and so on. Where the system has
 * no IPv6, FAMILY_NONE gives an IPv4 socket.
 */
int net_udp_new(struct net_loop *loop, const struct net_udp_config *config,
		struct net_udp **ret_udp);
/* The socket has another owner: callbacks and buffers are those of `to` from now on. */
void net_udp_hand_over(struct net_udp *udp, const struct net_udp_config *to);
/* This user's sockets with shared_port may have the port of this one, which has it alone so far. 0 or
 * a fault. */
int net_udp_share_port(struct net_udp *udp);
/* For all sockets that share the port of this one: SO_ATTACH_REUSEPORT_CBPF. Without it, or with fewer
 * sockets, the kernel chooses by a hash of addresses and ports. 0 or a fault. */
int net_udp_steer(struct net_udp *udp, const struct net_udp_steering *steering);
void net_udp_free(struct net_udp *udp); /* NULL is fine; what waits is dropped */
/* Port as bound; the address is FAMILY_NONE for a socket on every address. */
struct endpoint net_udp_local(const struct net_udp *udp);
bool net_udp_has_family(const struct net_udp *udp, enum address_family family);
/*
 * NET_UDP_SENT; NET_UDP_BLOCKED: (the rest of it) waits here and leaves by
 * itself, hold off until on_writable; -ENOBUFS: the queue was full, dropped;
 * -EMSGSIZE: larger than the interface's MTU; -ENETUNREACH, -EHOSTUNREACH,
 * -EINVAL, -EPERM ...: not sent, this destination does not work now.
 */
int net_udp_send(struct net_udp *udp, const struct net_udp_send *send);
/* As many in one system call; faults of single ones are counted, not told. SENT or BLOCKED. */
int net_udp_send_many(struct net_udp *udp, const struct net_udp_send *sends, size_t n_sends);
bool net_udp_is_blocked(const struct net_udp *udp);
struct net_udp_stats net_udp_stats(const struct net_udp *udp);

/* ---- this machine's addresses ----------------------------------------------------------- */

struct net_local_address {
	struct ip_address ip;
	uint32_t scope_id;  /* interface index for link-local addresses, else 0 */
	uint32_t interface; /* index */
	char name[16];      /* of the interface */
	bool loopback, point_to_point, temporary;
	/* A tunnel, or a bridge that no network of the machine's is part of (containers, virtual
	 * machines): its addresses mean nothing, or something else, to other machines. */
	bool virtual;
};

/* Addresses of interfaces that are up and whose names do not begin with `but` (NULL: of all). The
 * number written (at most max), or a fault. */
int net_local_addresses(const char *but, struct net_local_address *ret_list, size_t max);

/* Calls back once things were quiet for 200 ms (at the latest after 2 s) after
 * links, addresses or routes changed. */
struct net_changes;
int net_changes_new(struct net_loop *loop, void (*fn)(void *user), void *user,
		    struct net_changes **ret_changes);
void net_changes_free(struct net_changes *changes);

/* ---- resolver ----------------------------------------------------------------------------- */

struct net_resolver;
struct net_query;

struct net_resolved {
	int error; /* 0, -ENOENT: no such name or no address, -ETIMEDOUT, -ENETUNREACH, -EINVAL */
	size_t n_endpoints;
	struct endpoint endpoints[NET_ENDPOINTS_MAX]; /* in the order to try */
	bool from_srv;
	char reason[160]; /* for people, when there is an error; what was asked and what came */
};

typedef void net_resolved_fn(void *user, const struct net_resolved *result);

int net_resolver_new(struct net_loop *loop, struct net_resolver **ret_resolver);
/* Running queries are cancelled: their callbacks do not come. */
void net_resolver_free(struct net_resolver *resolver);
/* Name servers to ask instead of the system's: "192.0.2.1:53,[2001:db8::1]:53". 0 or -ENOMEM;
 * text that is no such list shows as -EINVAL when something is asked. */
int net_resolver_use_servers(struct net_resolver *resolver, const char *servers);
/*
 * Finds the Q2Q server of a domain: SRV _q2q._tcp.DOMAIN (RFC 2782), and at the
 * same time A and AAAA with port 8788, used where SRV gives nothing. Takes
 * NET_RESOLVE_TIMEOUT_US at most. The callback comes exactly once, later, unless
 * cancelled; the query is gone then. 0, -EINVAL: no such name can exist, -ENOMEM.
 */
int net_resolve_domain(struct net_resolver *resolver, const char *domain, net_resolved_fn *fn,
		       void *user, struct net_query **ret_query);
/* A and AAAA (/etc/hosts and literal addresses too) with that port. */
int net_resolve_host(struct net_resolver *resolver, const char *host, uint16_t port,
		     net_resolved_fn *fn, void *user, struct net_query **ret_query);
/* Asks for what net_nat64_detect() wants to see. */
int net_resolve_nat64(struct net_resolver *resolver, net_resolved_fn *fn, void *user,
		      struct net_query **ret_query);
void net_query_cancel(struct net_query *query); /* NULL is fine */

/* "host:port", "host", "1.2.3.4:5", "[::1]:5", "::1": the port is default_port where none is
 * written. -EINVAL. */
int net_split_host_port(const char *text, uint16_t default_port, char ret_host[static 256],
			uint16_t *ret_port);

/* ---- TCP ------------------------------------------------------------------------------------- */

struct net_connect;
struct net_listener;

/*
 * Tries the endpoints in order, the next one after 250 ms or as soon as one
 * failed; the first that connects wins (RFC 8305). Callback exactly once, unless
 * cancelled: error 0 and a non-blocking fd that is the callee's, or the fault of
 * the last (-ETIMEDOUT, -ECONNREFUSED ...), -1 and no remote.
 */
typedef void net_connected_fn(void *user, int error, int fd, const struct endpoint *remote);
int net_connect_new(struct net_loop *loop, const struct endpoint *endpoints, size_t n_endpoints,
		    uint64_t timeout_us, net_connected_fn *fn, void *user,
		    struct net_connect **ret_connect);
void net_connect_cancel(struct net_connect *connect); /* NULL is fine */

/* fd is non-blocking, close-on-exec and the callee's. */
typedef void net_accepted_fn(void *user, int fd, const struct endpoint *from);
/* One address. FAMILY_NONE: IPv6 and IPv4 on one socket. */
int net_listen_tcp(struct net_loop *loop, const struct endpoint *local, net_accepted_fn *fn,
		   void *user, struct net_listener **ret_listener);
struct endpoint net_listener_local(const struct net_listener *listener); /* with the real port */
/* Paused: connections wait in the backlog. */
void net_listener_pause(struct net_listener *listener, bool pause);
void net_listener_free(struct net_listener *listener); /* NULL is fine */

/* ---- a q2q connection on a TCP socket ------------------------------------------------------- */

struct crypto_tls_context;
struct q2q_conn;
struct net_q2q;

struct net_q2q_config {
	int fd;                /* taken over, also when net_q2q_new() fails */
	struct q2q_conn *conn; /* taken over on success; freed with the driver */
	/* Client: TLS comes first, around everything, and asks for this name; NULL: not so. Copied. */
	const char *outer_name;
	/* Server: whoever begins with TLS gets it, with this; NULL: nobody does. Referenced. */
	struct crypto_tls_context *outer_tls;
	/* The connection has events: pull them with q2q_conn_next_event(). Commands given to the
	 * connection in here leave by themselves; outside of it call net_q2q_pump(). */
	void (*on_events)(void *user, struct net_q2q *driver, struct q2q_conn *conn);
	/* The socket has ended, once: 0 closed in order, else the fault. All events were
	 * delivered before. The callee (or the owner, later) calls net_q2q_free(). */
	void (*on_closed)(void *user, struct net_q2q *driver, int error);
	void *user;
};

int net_q2q_new(struct net_loop *loop, const struct net_q2q_config *config,
		struct net_q2q **ret_driver);
struct q2q_conn *net_q2q_conn(struct net_q2q *driver);
struct endpoint net_q2q_remote(const struct net_q2q *driver);
struct endpoint net_q2q_local(const struct net_q2q *driver);
bool net_q2q_is_wrapped(const struct net_q2q *driver); /* TLS is around it */
/* Something was asked of the connection from outside its callbacks: move its output. */
void net_q2q_pump(struct net_q2q *driver);
/* Bytes that wait for the socket. */
size_t net_q2q_unsent(const struct net_q2q *driver);
/* No more callbacks; what waits is written for NET_FLUSH_TIMEOUT_US at most, then all is freed. */
void net_q2q_close(struct net_q2q *driver);
/* At once, nothing more is written. NULL is fine. */
void net_q2q_free(struct net_q2q *driver);

/* ---- lanes: the two ways to a server ---------------------------------------------------------
 *
 * Reaching a server over networks that stop its usual port: in clear over that port, or with TLS
 * around it over port 443 (doc/q2q-extensions.md, section 9). Both are tried, one with a head
 * start; the first TCP connection wins.
 */

#define LANES_TLS_PORT      443
#define LANES_HEAD_START_US US_PER_S
#define LANES_PATIENCE_US   (6 * US_PER_S) /* for the first answer, while the other is untried */
#define LANES_NETWORKS_MAX  16
#define LANES_MEMORY_US     (3600 * US_PER_S) /* then the usual port has the head start again */

enum lane_kind { LANE_CLEAR, LANE_TLS, LANE_KIND_COUNT };

struct lanes;

struct lane {
	struct lanes *lanes;
	enum lane_kind kind;
	struct endpoint endpoints[NET_ENDPOINTS_MAX]; /* in the order to try */
	size_t n_endpoints;
	struct net_connect *connect; /* while it is tried */
	bool tried;                  /* and not again in this attempt */
	int error;                   /* why it failed; 0: it did not, or not yet */
};

/* error 0: fd is the callee's, and lane says what goes over it. Else both failed; remote is where
 * the usual one was looked for. */
typedef void lanes_fn(void *user, int error, int fd, const struct endpoint *remote,
		      enum lane_kind kind);

/* Embedded in its owner; begins zeroed. */
struct lanes {
	struct net_loop *loop;
	struct lane lanes[LANE_KIND_COUNT];
	struct net_timer head_start;
	enum lane_kind first; /* gets the head start */
	uint64_t timeout_us;  /* of each */
	lanes_fn *fn;
	void *user;
};

/*
 * Sorts a server's endpoints into lanes. `named`: the user said where it is, port included, so
 * that only port 443 is added; else the default port too.
 */
void lanes_plan(struct lanes *l, const struct net_resolved *found, bool named);
/* Tries them; fn comes exactly once, never from in here, unless cancelled. `prefer_tls`: that is
 * what works in this network. 0 or a fault. */
int lanes_start(struct lanes *l, struct net_loop *loop, bool prefer_tls, uint64_t timeout_us,
		lanes_fn *fn, void *user);
/* Something connected, but no server answered by it. True: the other lane is tried now, and fn
 * comes again. */
bool lanes_other(struct lanes *l);
bool lanes_has_other(const struct lanes *l);
void lanes_cancel(struct lanes *l); /* fine on a zeroed object */

/* Which networks of this machine let nothing but TLS through, as far as is known. */
struct lanes_memory {
	struct lanes_network {
		uint64_t network; /* what names it */
		uint64_t until_us;
	} networks[LANES_NETWORKS_MAX];
	size_t next;
};

bool lanes_recall(const struct lanes_memory *m, uint64_t network, uint64_t now_us);
/* A server answered over that lane. Only what shows that the other one does not work counts. */
void lanes_remember(struct lanes_memory *m, uint64_t network, const struct lanes *l,
		    enum lane_kind kind, uint64_t now_us);

/* ---- control sockets: lines on a Unix stream socket --------------------------------------------
 */

struct net_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	gid_t groups[NET_GROUPS_MAX]; /* supplementary groups at the time of connect() */
	size_t n_groups;
};

bool net_peer_in_group(const struct net_peer *peer, gid_t gid); /* gid or supplementary */

typedef void net_unix_accepted_fn(void *user, int fd, const struct net_peer *peer);
/* Replaces a socket file that nobody listens on; -EADDRINUSE if somebody does. `mode` are the
 * file's permissions. The file is removed by net_listener_free(). */
int net_listen_unix(struct net_loop *loop, const char *path, mode_t mode, net_unix_accepted_fn *fn,
		    void *user, struct net_listener **ret_listener);
/* A connected non-blocking socket, or a fault (-ENOENT, -ECONNREFUSED: nobody there). */
int net_connect_unix(const char *path, int *ret_fd);

struct net_line;

struct net_line_config {
	int fd;                  /* taken over, also when net_line_new() fails */
	size_t line_bytes_max;   /* 0: NET_LINE_BYTES_MAX */
	size_t output_bytes_max; /* 0: 4 * NET_LINE_BYTES_MAX */
	/* One line without its newline, ended by NUL; valid during the callback. */
	void (*on_line)(void *user, struct net_line *line, char *text, size_t text_bytes);
	/* Once: 0 end of file, -EMSGSIZE the peer's line was too long, else the fault. Then
	 * call net_line_free() or net_line_close(). */
	void (*on_closed)(void *user, struct net_line *line, int error);
	/* The output queue has emptied. May be NULL. */
	void (*on_drained)(void *user, struct net_line *line);
	void *user;
};

int net_line_new(struct net_loop *loop, const struct net_line_config *config,
		 struct net_line **ret_line);
/* Appends a newline. 0, or -ENOBUFS: the bound is reached, nothing was queued. */
int net_line_send(struct net_line *line, const char *text, size_t text_bytes);
size_t net_line_unsent(const struct net_line *line);
/* No more callbacks; flushes for NET_FLUSH_TIMEOUT_US at most, then frees. */
void net_line_close(struct net_line *line);
void net_line_free(struct net_line *line); /* at once; NULL is fine */

#endif
