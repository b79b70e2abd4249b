/*
 * nat - opens direct UDP paths to one peer through the NATs between.
 *
 * One agent belongs to one peer link. The caller owns the sockets, the clock and
 * the signalling path (sealed messages through the servers). It tells the agent
 * its sockets and what addresses they have; it carries the agent's candidate
 * lists to the peer and the peer's to the agent; it feeds and sends datagrams.
 * The agent says which (socket, remote endpoint) pairs work. Which of them is
 * used, and whether it still lives, is the transport's business.
 *
 * Sans-IO: no socket, clock, random source or log. One thread per object.
 *
 * Life: candidates travel in numbered rounds. Whoever gets a list of a round for
 * which it has not sent its own sends that now (NAT_EVENT_SIGNAL) and starts at
 * once, holding its full-TTL probes back until the peer has the list too;
 * whoever gets the answer starts at once. A round in which no pair worked is
 * followed by another one, from a fresh port, ever more slowly, for ever.
 *
 * Wire format and rules: doc/nat.md.
 */
#ifndef NAT_NAT_H
#define NAT_NAT_H

#include "base/base.h"

/* ---- limits -------------------------------------------------------------------------- */

enum {
	NAT_KEY_BYTES = 32,
	NAT_TAG_BYTES = 8,
	NAT_PROBE_BYTES = 52,       /* every probe and every answer */
	NAT_SOCKETS_MAX = 8,        /* of one agent at a time */
	NAT_LOCAL_MAX = 32,         /* own candidates */
	NAT_REMOTE_MAX = 32,        /* candidates of the peer, per list and in all */
	NAT_REMOTE_PER_ADDRESS = 4, /* ports of one address among them */
	NAT_PEER_REFLEXIVE_MAX = 8, /* addresses learnt from authenticated probes */
	NAT_PAIRS_MAX = 96,
	NAT_LIST_BYTES_MAX = 1024, /* one encoded list */
	NAT_EVENTS_MAX = 128,      /* more than one call can cause */
	/*
	 * The budget: to an IP address from which nothing authentic ever came, one agent sends
	 * at most this many datagrams (openers and probes, all ports together) per round; and a
	 * round is only what the peer itself signalled, NAT_ROUND_MIN_US apart at least and more
	 * when it is in vain. So nobody, the peer included, can aim more than that at others.
	 */
	NAT_BUDGET = 20,
	/* And of one peer and hour, to all such addresses together, however many rounds and
	 * rendezvous it makes. An honest peer with a dozen addresses that cannot be reached stays
	 * below. */
	NAT_STRANGERS_ALLOWANCE = 4096,
	/*
	 * Guessing ports (guess.c) costs more than that, so it has an allowance of its own: of one
	 * peer and hour, both kinds of datagrams counted. It begins only after both sides said,
	 * in sealed lists, that one NAT maps per destination and the other does not.
	 */
	NAT_GUESS_SOCKETS = 256,    /* of the side whose NAT is to be guessed */
	NAT_GUESS_SOCKETS_FEW = 32, /* the same, where it gives ports out in sequence */
	NAT_GUESS_PROBES = 1024,    /* of the other side, in one round */
	NAT_GUESS_HITS_MAX = 4,     /* sockets that may be met */
	NAT_GUESS_ALLOWANCE = 2048,
};

#define NAT_PACE_US              (20 * US_PER_MS)  /* between two probes of one agent */
#define NAT_OPENER_LEAD_US       (50 * US_PER_MS)  /* from the low-TTL opener to the first probe */
#define NAT_OPENER_TTL           2                 /* passes our NAT, dies before the peer's */
#define NAT_OPENER_TTL_DEEP      4                 /* the second opener: behind a carrier's NAT */
#define NAT_SIGNAL_DELAY_US      (100 * US_PER_MS) /* assumed one way, unless told */
#define NAT_SIGNAL_DELAY_MAX_US  (2 * US_PER_S)
#define NAT_ROUND_MIN_US         (1 * US_PER_S)
#define NAT_RETRY_FIRST_US       (2 * US_PER_S) /* after the first failed round; doubles */
#define NAT_RETRY_MAX_US         (300 * US_PER_S)
#define NAT_FRESH_SOCKET_WAIT_US (2 * US_PER_S)

#define NAT_GUESS_WAIT_US        (500 * US_PER_MS) /* ordinary probes come first */
#define NAT_GUESS_OPEN_PACE_US   500
#define NAT_GUESS_PROBE_PACE_US  (2 * US_PER_MS)
#define NAT_GUESS_LIFE_US        (6 * US_PER_S) /* the sockets stay open for the guesses */
#define NAT_ALLOWANCE_US         (3600 * US_PER_S)

/* ---- candidates ---------------------------------------------------------------------- */

enum nat_candidate_kind {
	NAT_HOST = 1,       /* an address of an interface */
	NAT_REFLEXIVE,      /* what a STUN server saw */
	NAT_PEER_REFLEXIVE, /* what the peer saw */
	NAT_MAPPED,         /* opened by PCP, NAT-PMP or UPnP */
	NAT_RELAY,          /* a marker without address: this side can be relayed to */
	NAT_CANDIDATE_KIND_COUNT,
};
const char *nat_candidate_kind_name(enum nat_candidate_kind kind);

struct nat_candidate {
	enum nat_candidate_kind kind;
	struct endpoint endpoint; /* FAMILY_NONE for a relay */
	uint8_t socket;           /* own candidates: the socket (base) it belongs to */
	struct endpoint server;   /* own reflexive ones: who saw it; FAMILY_NONE if unknown */
};

/* How a NAT gives out external ports (RFC 4787, section 4.1). */
enum nat_mapping {
	NAT_MAPPING_UNKNOWN,
	NAT_MAPPING_NONE,        /* the reflexive address is one of our own */
	NAT_MAPPING_INDEPENDENT, /* one port per socket: punching works */
	NAT_MAPPING_DEPENDENT,   /* another port per destination ("symmetric") */
	NAT_MAPPING_COUNT,
};
const char *nat_mapping_name(enum nat_mapping mapping);

/* In what order a NAT that maps per destination gives out its ports. */
enum nat_allocation {
	NAT_ALLOCATION_UNKNOWN,
	NAT_ALLOCATION_SEQUENTIAL,
	NAT_ALLOCATION_RANDOM,
	NAT_ALLOCATION_COUNT,
};
const char *nat_allocation_name(enum nat_allocation allocation);

/*
 * What the peer may aim us at. 0, or NAT_REFUSED with the reason in *ret_why (a constant
 * string, may be NULL). Refused are: unspecified, multicast, broadcast (255.255.255.255),
 * 0.0.0.0/8, 240.0.0.0/4, link-local, loopback (unless allowed), 100::/64, port 0 and every
 * port below 1024 (no server of this project takes probes there, and 53, 123 and the like
 * answer to strangers), and what `refuse` of the config names. Private addresses are allowed:
 * that is how two machines on one LAN meet.
 */
enum nat_outcome {
	NAT_REFUSED = 1, /* by policy */
	NAT_KNOWN = 2,   /* nothing new */
	NAT_FULL = 3,    /* the table has no room */
	NAT_IGNORED = 4, /* authentic, but too late or of no use */
};
int nat_endpoint_check(const struct endpoint *e, bool allow_loopback, const char **ret_why);

/* ---- the agent -------------------------------------------------------------------------- */

/* HMAC-SHA256; crypto_hmac_sha256() has this shape. 0 or a fault. */
typedef int nat_mac_fn(const void *key, size_t key_bytes, const void *data, size_t n_bytes,
		       uint8_t out[32]);

/* What one peer has cost those who never answered. It outlives agents and rendezvous, or the peer
 * could renew it; begins zeroed. */
struct nat_allowance {
	uint64_t since_us;
	unsigned n_used;      /* by guessing ports */
	unsigned n_strangers; /* by probing */
};

struct nat_config {
	bool controlling; /* true on exactly one side: the one that asked for the rendezvous */
	uint8_t key[NAT_KEY_BYTES]; /* secret; known to the two sides only, new per rendezvous */
	nat_mac_fn *mac;
	uint64_t seed; /* for jitter; need not be secret */
	bool allow_loopback;
	/* True: never probe this address (our own virtual networks, say). May be NULL. */
	bool (*refuse)(void *user, const struct ip_address *ip);
	/* Each change of a pair's state; may be NULL; must not call back. */
	void (*trace)(void *user, uint8_t socket, const struct endpoint *remote, const char *from,
		      const char *to, const char *because);
	void *user;
	struct nat_allowance
		*allowance; /* outlives the agent; NULL: no port is guessed, no hourly bound */
};

enum nat_event_kind {
	/* Encode our candidates (nat_agent_encode()) and send them to the peer. */
	NAT_EVENT_SIGNAL = 1,
	/* This pair works in both directions: offer it to the transport as a path. */
	NAT_EVENT_PAIR_VALID,
	/* It does not any more (its socket went, or a check after a network change failed). */
	NAT_EVENT_PAIR_LOST,
	/* Open a UDP socket on a new port, ask STUN what it looks like, nat_agent_add_socket(),
	 * nat_agent_add_local(), then nat_agent_gathered(). Not doing it is allowed: the round goes
	 * on without after NAT_FRESH_SOCKET_WAIT_US. */
	NAT_EVENT_WANT_FRESH_SOCKET,
	/* No pair uses this socket and none will: nat_agent_remove_socket() and close it, unless it
	 * is shared with other peers. */
	NAT_EVENT_SOCKET_UNUSED,
	/* A round ended without any valid pair; `reason` says what was seen. */
	NAT_EVENT_ROUND_FAILED,
	/* Open n_sockets UDP sockets, each on a port of its own, apart from the others: they are
	 * named by their index, 0 up. Then nat_agent_volley_opened(). */
	NAT_EVENT_WANT_VOLLEY,
	/* Close those that were not taken over. */
	NAT_EVENT_VOLLEY_DONE,
	NAT_EVENT_KIND_COUNT,
};
const char *nat_event_kind_name(enum nat_event_kind kind);

struct nat_event {
	enum nat_event_kind kind;
	uint8_t socket;                      /* PAIR_*, SOCKET_UNUSED */
	struct endpoint remote;              /* PAIR_* */
	enum nat_candidate_kind remote_kind; /* PAIR_VALID */
	bool same_lan;                       /* PAIR_VALID: no NAT between */
	struct endpoint mapped; /* PAIR_VALID: ours, as the peer sees it; else FAMILY_NONE */
	uint64_t rtt_us;        /* PAIR_VALID */
	uint64_t retry_us;      /* ROUND_FAILED: when we try again */
	const char *reason;     /* PAIR_LOST, ROUND_FAILED: a constant string */
	unsigned n_sockets;     /* WANT_VOLLEY */
};

/* One datagram to send. Losing it is fine. */
struct nat_send {
	uint8_t socket;
	struct endpoint to;
	uint8_t ttl; /* 0: the system's */
	bool volley; /* from the volley's socket of this index, not from `socket` */
	uint16_t volley_index;
	size_t data_bytes;
	uint8_t data[NAT_PROBE_BYTES];
};

struct nat_agent;

/* -ENOMEM, -EINVAL, or the fault of the MAC. */
int nat_agent_new(const struct nat_config *config, uint64_t now_us, struct nat_agent **ret_agent);
void nat_agent_free(struct nat_agent *agent); /* wipes the keys; NULL is fine */
DEFINE_CLEANUP(struct nat_agent *, nat_agent_free)
/* Bytes 1..8 of what the peer sends us: how a shared socket finds this agent. */
const uint8_t *nat_agent_local_tag(const struct nat_agent *agent);
/* How long a signal needs from one side to the other, as far as the caller can tell. */
void nat_agent_set_signal_delay(struct nat_agent *agent, uint64_t delay_us);

/* Sockets are named by the caller, 0..255. NAT_FULL, NAT_KNOWN. */
int nat_agent_add_socket(struct nat_agent *agent, uint8_t socket, bool ipv4, bool ipv6,
			 uint64_t now_us);
void nat_agent_remove_socket(struct nat_agent *agent, uint8_t socket, uint64_t now_us);

/* What WANT_VOLLEY asked for: how many there are now; 0: none. */
void nat_agent_volley_opened(struct nat_agent *agent, unsigned n_sockets, uint64_t now_us);
/* A datagram arrived on a volley's socket. True: it is the peer's. Give the socket a number, take
 * it over with nat_agent_adopt_socket(), then give the datagram to nat_agent_input(). */
bool nat_agent_volley_input(struct nat_agent *agent, const uint8_t *data, size_t data_bytes);
/* As nat_agent_add_socket(), for one that is good for the address that has met it alone. */
int nat_agent_adopt_socket(struct nat_agent *agent, uint8_t socket, bool ipv4, bool ipv6,
			   uint64_t now_us);

/* A candidate of ours. 0, NAT_KNOWN, NAT_FULL, or NAT_REFUSED: not fit to be told. After the first
 * list was sent it travels as a trickle (NAT_EVENT_SIGNAL). */
int nat_agent_add_local(struct nat_agent *agent, const struct nat_candidate *candidate,
			uint64_t now_us);
/* Forgets own candidates (of all sockets): gather again after a network change. */
void nat_agent_clear_local(struct nat_agent *agent);
/* What WANT_FRESH_SOCKET or a restart asked for has been added. */
void nat_agent_gathered(struct nat_agent *agent, uint64_t now_us);

/* Our list for the offer or a signal, and marks it as sent. At most NAT_LIST_BYTES_MAX; 0 if it
 * does not fit into out. */
size_t nat_agent_encode(struct nat_agent *agent, uint8_t *out, size_t out_bytes, uint64_t now_us);
/* The peer's list, from its offer or a signal. 0; NAT_IGNORED: an old round, or too soon after the
 * last; -EBADMSG: nothing of it was taken. Starts the round. */
int nat_agent_input_list(struct nat_agent *agent, const uint8_t *data, size_t data_bytes,
			 uint64_t now_us);

/* The network changed: checks what is valid again and starts a new round. Update sockets and local
 * candidates first. */
void nat_agent_restart(struct nat_agent *agent, uint64_t now_us);
/* The transport says that this path is dead. */
void nat_agent_path_lost(struct nat_agent *agent, uint8_t socket, const struct endpoint *remote,
			 uint64_t now_us);

/* A datagram whose first byte is 0x80..0xbf. -EBADMSG: not authentic or malformed, drop and count.
 * NAT_IGNORED: a replay, or an answer to nothing. */
int nat_agent_input(struct nat_agent *agent, uint8_t socket, const struct endpoint *from,
		    const uint8_t *data, size_t data_bytes, uint64_t now_us);
/* The next datagram to send now. */
bool nat_agent_output(struct nat_agent *agent, struct nat_send *ret_send, uint64_t now_us);
uint64_t nat_agent_deadline_us(const struct nat_agent *agent);
void nat_agent_tick(struct nat_agent *agent, uint64_t now_us);
bool nat_agent_next_event(struct nat_agent *agent, struct nat_event *ret_event);

/* ---- port mapping: PCP, else NAT-PMP, else UPnP IGD -------------------------------------- */

enum {
	NAT_PORTMAP_NONCE_BYTES = 12,
	NAT_PORTMAP_BYTES_MAX = 64,
	NAT_PORTMAP_PORT = 5351,          /* where a gateway is asked */
	NAT_PORTMAP_ANNOUNCE_PORT = 5350, /* where it announces itself, to 224.0.0.1 */
	NAT_PORTMAP_LIFETIME_S = 3600,    /* what is asked for, by default */
	NAT_PORTMAP_LIFETIME_S_MIN = 10,
	NAT_PORTMAP_LIFETIME_S_MAX = 86400,
};

enum nat_portmap_state {
	NAT_PORTMAP_IDLE,
	NAT_PORTMAP_ASKING, /* also to renew: `external` stays until it expires */
	NAT_PORTMAP_MAPPED,
	NAT_PORTMAP_NONE, /* `reason`; it is tried again after a while */
};

enum nat_portmap_method {
	NAT_PORTMAP_PCP,
	NAT_PORTMAP_PMP,
	NAT_PORTMAP_IGD,
	NAT_PORTMAP_METHOD_COUNT
};

const char *nat_portmap_method_name(enum nat_portmap_method method);

struct nat_portmap_config {
	struct ip_address gateway, local; /* IPv4: whom to ask, and our address towards it */
	uint16_t port;                    /* ours, UDP */
	uint32_t lifetime_s;
	bool igd; /* somebody takes requests of struct nat_igd_request */
	/* Unpredictable: it is what keeps others from changing the mapping (RFC 6887, section
	 * 11.2). */
	uint8_t nonce[NAT_PORTMAP_NONCE_BYTES];
};

/* One UDP port at one gateway; embedded in its owner, who reads what is documented. */
struct nat_portmap {
	enum nat_portmap_state state;
	enum nat_portmap_method method; /* the one in use */
	struct endpoint external;       /* what leads to our port; port 0: nothing does */
	uint64_t expires_us;            /* NEVER_US: nothing is mapped, or it never ends */
	const char *reason;             /* NONE: a constant string */
	uint32_t n_restarts;            /* of the gateway, noticed by its clock */
	/* private */
	struct nat_portmap_config config;
	unsigned n_sent, n_vain;
	bool has_address, refused, igd_waits, has_epoch;
	uint32_t igd_id, epoch_s;
	uint64_t epoch_at_us, announced_us, due_us;
};

void nat_portmap_start(struct nat_portmap *m, const struct nat_portmap_config *config,
		       uint64_t now_us);
/* The request to send to the gateway's NAT_PORTMAP_PORT now; its size or 0. */
size_t nat_portmap_output(struct nat_portmap *m, uint8_t out[static NAT_PORTMAP_BYTES_MAX],
			  uint64_t now_us);
/* A datagram from there; the caller has checked that it is. 0: look at the state. -EBADMSG: it is
 * no answer to what was asked. */
int nat_portmap_input(struct nat_portmap *m, const uint8_t *data, size_t data_bytes,
		      uint64_t now_us);
/* A datagram from there to NAT_PORTMAP_ANNOUNCE_PORT. 0: it is an announcement, perhaps acted on.
 * -EBADMSG: it is none. */
int nat_portmap_announced(struct nat_portmap *m, const uint8_t *data, size_t data_bytes,
			  uint64_t now_us);
/* The network had a hiccup, the gateway is the same: what we have is asked for again now. */
void nat_portmap_renew(struct nat_portmap *m, uint64_t now_us);
uint64_t nat_portmap_deadline_us(const struct nat_portmap *m);
void nat_portmap_tick(struct nat_portmap *m, uint64_t now_us);
/* The end: the request that deletes the mapping, or what was asked for and not answered; its size,
 * or 0. Call nat_portmap_igd_release() first. */
size_t nat_portmap_release(struct nat_portmap *m, uint8_t out[static NAT_PORTMAP_BYTES_MAX]);

/*
 * UPnP is a conversation over HTTP that a library holds, and it blocks: another process does it
 * (src/upnp). One struct is one message between the two; all integers in the host's order.
 */
enum { NAT_IGD_REQUEST_MAGIC = 0x71324944, NAT_IGD_ANSWER_MAGIC = 0x71324941 };

enum nat_igd_op { NAT_IGD_MAP = 1, NAT_IGD_UNMAP = 2 };

struct nat_igd_request {
	uint32_t magic, id;
	uint32_t op; /* enum nat_igd_op */
	uint32_t lifetime_s;
	uint8_t gateway[4], local[4];
	uint16_t port, external_port; /* the latter: the one wished for, or the one to delete */
};

enum nat_igd_result {
	NAT_IGD_DONE,
	NAT_IGD_SILENT,  /* the gateway does not answer, or is no IGD */
	NAT_IGD_REFUSED, /* it does not map ports, or not for us */
	NAT_IGD_HIDDEN,  /* its outside address is no public one: nothing was mapped */
	NAT_IGD_BROKEN,  /* what it says makes no sense, or takes for ever */
	NAT_IGD_RESULT_COUNT
};

struct nat_igd_answer {
	uint32_t magic, id;
	uint32_t result;     /* enum nat_igd_result */
	uint32_t lifetime_s; /* DONE: granted; 0: for ever */
	uint8_t external[4]; /* DONE, HIDDEN */
	uint16_t external_port;
	uint16_t zero;
};

/* The request to hand on now. False: none. */
bool nat_portmap_igd_output(struct nat_portmap *m, struct nat_igd_request *ret_request,
			    uint64_t now_us);
/* As nat_portmap_input(): nothing in the answer is believed that need not be. */
int nat_portmap_igd_input(struct nat_portmap *m, const struct nat_igd_answer *answer,
			  uint64_t now_us);
/* The end. False: nothing is mapped by UPnP. */
bool nat_portmap_igd_release(struct nat_portmap *m, struct nat_igd_request *ret_request);

/* ---- how long a NAT remembers an idle flow ------------------------------------------------- */

#define NAT_LIFETIME_MIN_US (15 * US_PER_S)  /* between two keepalives */
#define NAT_LIFETIME_MAX_US (120 * US_PER_S) /* RFC 4787, REQ-5 */
#define NAT_LIFETIME_PRIME_US                                                                      \
	(3 * US_PER_S) /* what was answered after more than 2 s is a stream to Linux */

/*
 * Finds by bisection how long a flow of this network may be silent, from sockets that nobody
 * needs: an "aged" one asks a STUN server twice, so that its flow is like a tunnel's, and is then
 * left alone; when its time has come, another one asks the server to answer to the aged one's
 * outside port (RESPONSE-PORT, RFC 5780, section 4.6). What arrives there says that the NAT still
 * knew it. Every try has fresh sockets. The tunnel's own flows risk nothing: they are kept alive by
 * what is known so far.
 *
 *   IDLE -> PRIMING -> AGING -> CHECKING -> (CONTROL) -> IDLE ... -> FOUND
 *
 * CONTROL: nothing came; does the server answer at all? If not, the try says nothing.
 */
enum nat_lifetime_state {
	NAT_LIFETIME_IDLE,
	NAT_LIFETIME_PRIMING,
	NAT_LIFETIME_AGING,
	NAT_LIFETIME_CHECKING,
	NAT_LIFETIME_CONTROL,
	NAT_LIFETIME_FOUND,
	NAT_LIFETIME_OFF, /* `reason` */
	NAT_LIFETIME_STATE_COUNT,
};
const char *nat_lifetime_state_name(enum nat_lifetime_state state);

/* Embedded in its owner, who reads what is documented. */
struct nat_lifetime {
	enum nat_lifetime_state state;
	uint64_t lives_us; /* so long a silent flow was still known; 0: nothing is known */
	uint64_t dies_us;  /* so long it was not; NEVER_US: nothing is known */
	unsigned n_tries;  /* that had a result */
	const char *reason;
	/* private */
	uint64_t min_us, max_us;
	uint64_t try_us;     /* the time that is tried */
	uint64_t doubted_us; /* what lives_us was; 0: nothing is in doubt */
	uint64_t due_us, aged_us;
	uint32_t number, first_check;
	uint16_t port; /* of the aged socket, outside */
	unsigned n_sent, n_primed, n_vain;
	bool fresh;
};

/* One question to the STUN server. */
struct nat_lifetime_ask {
	bool fresh;           /* close both sockets, if any: this try has new ones */
	bool aged;            /* from the aged socket, else from the other one */
	uint32_t number;      /* goes into the transaction */
	uint16_t answer_port; /* RESPONSE-PORT; 0: without */
};

/* A network about which lives_us and dies_us are known from before, or 0 and NEVER_US. The interval
 * is kept between min_us and max_us. */
void nat_lifetime_start(struct nat_lifetime *l, uint64_t lives_us, uint64_t dies_us,
			uint64_t min_us, uint64_t max_us, uint64_t now_us);
/* The question to ask now. */
bool nat_lifetime_output(struct nat_lifetime *l, struct nat_lifetime_ask *ret_ask, uint64_t now_us);
/* An answer to question `number` came, on the aged socket or on the other one. port: outside, as
 * the server saw it; 0: an error answer. */
void nat_lifetime_input(struct nat_lifetime *l, uint32_t number, bool aged, uint16_t port,
			uint64_t now_us);
uint64_t nat_lifetime_deadline_us(const struct nat_lifetime *l);
void nat_lifetime_tick(struct nat_lifetime *l, uint64_t now_us);
/* A path that was idle turned out to be dead: what is known does not count until it was tried
 * again.
 */
void nat_lifetime_doubt(struct nat_lifetime *l, uint64_t now_us);
/* How far apart keepalives may be, by what is known. */
uint64_t nat_lifetime_interval_us(const struct nat_lifetime *l);

/* ---- what people ask: why is it not direct? ---------------------------------------------- */

enum nat_pair_state {
	NAT_PAIR_WAITING, /* its turn has not come */
	NAT_PAIR_OPENING, /* low-TTL openers are out; waiting for the peer to do the same */
	NAT_PAIR_PROBING,
	NAT_PAIR_VALID,
	NAT_PAIR_FAILED, /* no answer in this round, or out of budget */
	NAT_PAIR_STATE_COUNT,
};
const char *nat_pair_state_name(enum nat_pair_state state);

struct nat_pair_info {
	uint8_t socket;
	struct endpoint remote;
	enum nat_candidate_kind remote_kind;
	enum nat_pair_state state;
	const char *reason; /* of the state; a constant string, never NULL */
	uint32_t priority;  /* larger is tried earlier */
	bool same_lan;
	unsigned n_sent; /* in this round */
	bool heard;      /* an authentic probe came from there: one direction works */
	uint64_t rtt_us; /* 0: unknown */
};

struct nat_status {
	unsigned round;
	bool started, checking, connected;
	enum nat_mapping local_mapping, remote_mapping;
	enum nat_allocation local_allocation;
	size_t n_local, n_remote, n_pairs, n_valid;
	uint64_t n_refused; /* candidates of the peer that policy kept out */
	uint64_t n_bad;     /* datagrams that were not authentic */
	uint64_t n_replayed, n_sent, n_over_budget;
	uint64_t retry_us;  /* NEVER_US: none planned */
	bool guessing;      /* ports of a NAT are being guessed */
	uint64_t n_guessed; /* probes that cost */
	const char
		*guess_reason; /* how the last guessing ended, or why none began; NULL: neither */
	const char *reason;    /* one line for people, a constant string */
};
struct nat_status nat_agent_status(const struct nat_agent *agent);
/* In order of priority. The number written. */
size_t nat_agent_pairs(const struct nat_agent *agent, struct nat_pair_info *ret_list, size_t max);
size_t nat_agent_local(const struct nat_agent *agent, struct nat_candidate *ret_list, size_t max);
size_t nat_agent_remote(const struct nat_agent *agent, struct nat_candidate *ret_list, size_t max);

#endif
