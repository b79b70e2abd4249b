/*
 * session - one peer's link: rendezvous, NAT traversal, association, packets.
 *
 * A session joins for one peer what the protocols give: nat finds direct paths,
 * ptcp moves packets, crypto keeps them secret, tun checks and rewrites them.
 * It decides when to ask for a rendezvous, keeps an association alive across
 * servers that restart and networks that change, and comes back by itself.
 *
 * Sans-IO. What comes in: answers and signals of the servers, datagrams, relayed
 * datagrams, packets of the TUN device, the time. What goes out: datagrams,
 * signals, packets for the TUN device, events, one deadline. The caller's pump:
 * inputs; session_tick() if session_deadline_us() has passed; then
 * session_tun_next(), session_next_event(), session_next_signal() and
 * session_output() until each has no more.
 *
 * Who the peer is was decided by the caller, which knows pins and users: a
 * rendezvous comes with the peer's certificate, and the association is tied to it.
 */
#ifndef SESSION_SESSION_H
#define SESSION_SESSION_H

#include "base/base.h"
#include "crypto/crypto.h"
#include "nat/nat.h"
#include "ptcp/ptcp.h"
#include "tun/tun.h"

/* ---- virtual addresses ---- */

enum {
	VIP_ADDRESS_BYTES_MAX = 64 + 1 + 253,
	VIP_LOCAL_TRIES = 32,
};

struct vip {
	uint8_t ip4[4], ip6[16]; /* network order */
};

/* The addresses that everybody computes for a canonical Q2Q address. */
int vip_from_address(const char *address, struct vip *ret_vip);
/*
 * The IPv4 address to show on this machine: the canonical one, or if that is taken another one
 * from the same range, always the same for this address. -EADDRINUSE: all of them are.
 */
int vip_choose4(const char *address, bool (*taken)(void *user, const uint8_t ip4[static 4]),
		void *user, uint8_t ret_ip4[static 4]);
bool vip_is_ip4(const uint8_t ip4[static 4]);  /* 100.64.0.0/10 */
bool vip_is_ip6(const uint8_t ip6[static 16]); /* our prefix */

/* ---- the sealed offer ---- */

enum {
	OFFER_SHARE_BYTES = 32,
	OFFER_TAG_BYTES = 16,
	OFFER_ID_BYTES = 32, /* of a rendezvous or a request: hex digits */
	OFFER_NAME_BYTES = 64,
	OFFER_ABOUT_BYTES = 120,
	OFFER_PLAIN_BYTES_MAX = 2048,
	OFFER_STREAMS_MAX = 8,
	OFFER_HELLO_BYTES_MAX = 1664, /* with a post-quantum key share; the rest fits beside it */
};

/* Bits of an offer's features: what its sender understands. A feature is used if both do. */
enum offer_feature {
	OFFER_FEATURE_PARITY = 2, /* doc/ptcp.md, section 6.4 */
};

/* What one end tells the other inside a sealed message; doc/session.md, "Offers". */
struct offer {
	bool has_share; /* the first of an end; then cid is there too. Else a trickle */
	uint8_t share[OFFER_SHARE_BYTES];
	uint8_t cid[PTCP_CID_BYTES];
	bool has_tag; /* "I still have the association of this tag" */
	uint8_t tag[OFFER_TAG_BYTES];
	bool keep;                        /* the requester's decision to go on with it */
	char request[OFFER_ID_BYTES + 1]; /* listener: the request that this answers; or "" */
	uint32_t features;                /* enum offer_feature; others are ignored */
	char device[OFFER_NAME_BYTES + 1];      /* printable; or "" */
	char about[OFFER_ABOUT_BYTES + 1];      /* program, version, system: printable; or "" */
	uint8_t candidates[NAT_LIST_BYTES_MAX]; /* of nat_agent_encode() */
	size_t candidates_bytes;
	struct endpoint streams[OFFER_STREAMS_MAX]; /* where its sender listens by TCP */
	size_t n_streams;
	uint8_t hello[OFFER_HELLO_BYTES_MAX]; /* listener: the first flight of TLS as its client */
	size_t hello_bytes;
	bool takes_hello; /* requester: it is that client's server; else it is client itself */
};
/* The size, or 0 if it does not fit. */
size_t offer_encode(const struct offer *offer, uint8_t *out, size_t out_bytes);
/* 0 or -EBADMSG. Fields of later versions are skipped. */
int offer_decode(const void *data, size_t data_bytes, struct offer *ret_offer);

/* ---- the session ---- */

/*
 *   DOWN ---want--> WAITING --ask--> RENDEZVOUS --offers--> CONNECTING --TLS--> UP
 *     ^               ^  ^___failed______/                    |   ^            |  ^
 *     |               |_______________lost____________________/   |     outage |  | path
 *     |               |__________________________________________ | ___________v__/
 *     |                                    lost                   |         STALLED
 *     \--lost-- CLOSING <--unwant-- (CONNECTING, UP, STALLED) ----/ peer starts anew
 *
 * DOWN        nothing to do: nobody wants the link; the peer may still ask
 * WAITING     wanted; the next attempt has a time
 * RENDEZVOUS  we asked, or answered, and wait for the peer's offer
 * CONNECTING  an association exists and is in its handshake
 * UP          packets may leave; the peer's are taken once its TLS is complete (doc/session.md)
 * STALLED     the association lives, but no path works; a new rendezvous is tried
 * CLOSING     the peer is being told
 */
enum session_state {
	SESSION_DOWN,
	SESSION_WAITING,
	SESSION_RENDEZVOUS,
	SESSION_CONNECTING,
	SESSION_UP,
	SESSION_STALLED,
	SESSION_CLOSING,
	SESSION_STATE_COUNT,
};
const char *session_state_name(enum session_state state);

/* Why the link is not up. Decides when it is tried again. */
enum session_why {
	SESSION_WHY_NONE,
	SESSION_WHY_OFFLINE,    /* the account exists, its daemon is not there */
	SESSION_WHY_UNKNOWN,    /* no such account */
	SESSION_WHY_DISABLED,   /* its server has shut the account out */
	SESSION_WHY_REFUSED,    /* the peer has not allowed us */
	SESSION_WHY_BUSY,       /* both asked at once, the peer's attempt goes on */
	SESSION_WHY_PEER_DOWN,  /* the peer's user took the link down */
	SESSION_WHY_SERVER,     /* a server cannot be reached or failed */
	SESSION_WHY_UNTRUSTED,  /* certificate or key of peer or domain: the user must decide */
	SESSION_WHY_REJECTED,   /* the peer does not accept our certificate */
	SESSION_WHY_TIMED_OUT,  /* no answer, or no path */
	SESSION_WHY_LOST,       /* the peer vanished */
	SESSION_WHY_GOING_AWAY, /* the peer's daemon ended in order */
	SESSION_WHY_PROTOCOL,   /* what came made no sense */
	SESSION_WHY_STOPPED,    /* we took it down */
	SESSION_WHY_COUNT,
};
const char *session_why_name(enum session_why why);

enum session_path_mode {
	SESSION_PATH_AUTO,
	SESSION_PATH_DIRECT, /* the relay carries the handshake only */
	SESSION_PATH_RELAY,  /* no address of ours is told */
	SESSION_PATH_LAN,    /* like direct, with addresses of interfaces alone */
	SESSION_PATH_MODE_COUNT,
};
const char *session_path_mode_name(enum session_path_mode mode);

/* Codes of a PTCP close between two sessions. */
enum {
	SESSION_CLOSE_DOWN = PTCP_CLOSE_APPLICATION, /* the user took the link down */
	SESSION_CLOSE_GOING_AWAY,                    /* the daemon ends; it will be back */
	SESSION_CLOSE_DENIED,                        /* the user took back the permission */
};

enum {
	SESSION_SOCKETS_MAX = 8,
	SESSION_SIGNALS_MAX = 16, /* waiting to be taken; the oldest trickle goes first */
	SESSION_EVENTS_MAX = 128,
	SESSION_SIGNAL_BYTES_MAX = 4096,
	SESSION_RELAY_BYTES_MAX = 60000, /* one relayed body */
	SESSION_WHY_BYTES = 256,
	SESSION_STREAMS_MAX = 4, /* TCP connections with the peer, those in their handshake included */
	SESSION_STREAM_TAG_BYTES = 8,
	SESSION_STREAM_HELLO_BYTES = 1 + SESSION_STREAM_TAG_BYTES + 16 + 16,
};

/*
 * Room to build datagrams and packets in, for all sessions of one thread: what one of them lends is
 * good until the next call for any. -> NULL: no memory.
 */
struct session_scratch;
struct session_scratch *session_scratch_new(void);
void session_scratch_free(struct session_scratch *scratch); /* after the sessions; NULL is fine */

struct session_config {
	struct session_scratch *scratch;        /* NULL: one of its own */
	const char *own_address, *peer_address; /* canonical; copied */
	const char *device;                     /* our host's name, for the peer; copied */
	const char *about; /* our program, version and system, for the peer; copied; may be NULL */
	struct crypto_tls_context *tls;   /* ours, TLS 1.3; referenced */
	const struct crypto_key *own_key; /* opens and signs offers; must outlive it */
	struct tun_addresses shown;       /* as this machine sees them */
	/* Judges the certificate that the peer shows in TLS, which has the key of the rendezvous:
	 * 0 or an enum crypto_verify. */
	int (*verify)(void *user, struct crypto_cert *cert);
	int (*random_bytes)(void *user, void *out, size_t n_bytes); /* 0 or a fault */
	bool (*refuse)(void *user, const struct ip_address *ip);    /* as nat_config; may be NULL */
	/* True: no datagram gets out of this network, as far as is known; may be NULL. */
	bool (*udp_blocked)(void *user);
	void (*trace)(void *user, const char *what, const char *from, const char *to,
		      const char *because); /* may be NULL; must not call back */
	void *user;
	enum ptcp_congestion_control congestion_control;
	bool no_early; /* for tests: no hello is given or taken, as by versions that know of none */
	bool parity;   /* repair by it, where the peer does too; see ptcp_parity_available() */
	bool allow_loopback;
	bool copy_dscp;       /* of packets to the datagrams that carry them; else those have 0 */
	uint64_t liveness_us; /* 0: PTCP's default */
	struct ptcp_memory *memory; /* shared by all sessions; NULL: no common bound */
	struct nat_allowance *allowance; /* the peer's, see nat.h; may be NULL */
	struct hash_seed flow_seed;
	/* Our connection ids have cid_remainder as the remainder of their first byte and cid_divisor,
	 * so that a datagram says which worker's it is. 0, 0: any. */
	uint8_t cid_divisor, cid_remainder;
};

struct session;

int session_new(const struct session_config *config, uint64_t now_us, struct session **ret_session);
void session_free(struct session *s); /* sends nothing; NULL is fine */
DEFINE_CLEANUP(struct session *, session_free)

/* The user wants the link (it is tried for ever), or not any more (it is closed). */
void session_want(struct session *s, bool wanted, uint64_t now_us);
/* Asks once, though nobody here wants the link: we were gone, and the peer may be waiting for us.
 */
void session_nudge(struct session *s, uint64_t now_us);
/* The peer's certificate in the association; NULL without one. */
struct crypto_cert *session_peer_cert(const struct session *s);
/* Ends the association, if there is one, with this code. The state goes to DOWN by itself; what
 * is wanted stays wanted. */
void session_close(struct session *s, uint64_t code, uint64_t now_us);
void session_set_path_mode(struct session *s, enum session_path_mode mode, uint64_t now_us);
/* Something got better (a server is back, the user asks): do not wait for the next attempt. */
void session_wake(struct session *s, uint64_t now_us);
/* After a renewal of our certificate; used by the next association. */
void session_set_identity(struct session *s, struct crypto_tls_context *tls,
			  const struct crypto_key *own_key);
/* What the configuration says of tunnels: copy_dscp holds at once, the rest for the next
 * association. */
struct session_options {
	bool copy_dscp, parity;
	enum ptcp_congestion_control congestion_control;
};
void session_set_options(struct session *s, const struct session_options *options);
/* The device's addresses and features (enum tun_feature); without it every packet is dropped. */
void session_set_device(struct session *s, const struct tun_addresses *shown, uint32_t features);

/* ---- sockets and addresses of this machine (see nat.h) ---- */

int session_add_socket(struct session *s, uint8_t socket, bool ipv4, bool ipv6, uint64_t now_us);
void session_remove_socket(struct session *s, uint8_t socket, uint64_t now_us);
/* A volley's sockets, as in nat.h: opened; does this datagram belong to us; the socket that it came to
 * has this number now. */
void session_volley_opened(struct session *s, unsigned n_sockets, uint64_t now_us);
bool session_volley_input(struct session *s, const uint8_t *data, size_t n_bytes);
int session_adopt_socket(struct session *s, uint8_t socket, bool ipv4, bool ipv6, uint64_t now_us);
int session_add_local(struct session *s, const struct nat_candidate *candidate, uint64_t now_us);
void session_clear_local(struct session *s);
void session_gathered(struct session *s, uint64_t now_us);
/* Call it when sockets and candidates are as the new network wants them. */
void session_network_changed(struct session *s, uint64_t now_us);

/* ---- TCP connections with the peer ----
 *
 * They are the caller's, who numbers them, from 1. A stranger's gets no byte: the caller reads
 * SESSION_STREAM_HELLO_BYTES of one that it accepted, finds the session by bytes 1..8, and closes it if
 * there is none or session_stream_accepted() fails.
 */

/* Where we accept them; 0: nowhere. Told to the peer with the addresses of our interfaces. */
void session_set_stream_port(struct session *s, uint16_t port);
/* Where to connect to. The number written. */
size_t session_stream_targets(struct session *s, struct endpoint *ret_list, size_t max);
/* 0; else close it: -ENOTCONN, -ENOBUFS, -EBADMSG, -ENOMEM. */
int session_stream_connected(struct session *s, uint16_t number, const struct endpoint *remote,
			     uint64_t now_us);
int session_stream_accepted(struct session *s, uint16_t number, const struct endpoint *remote,
			    const uint8_t hello[static SESSION_STREAM_HELLO_BYTES],
			    uint64_t now_us);
/* Bytes that came, decrypted in place. Negative: close it, it is forgotten here. */
int session_stream_input(struct session *s, uint16_t number, uint8_t *data, size_t n_bytes,
			 uint64_t now_us);
/* It has ended. */
void session_stream_closed(struct session *s, uint16_t number, uint64_t now_us);

/* ---- rendezvous ---- */

/* What `inbound` brought. */
struct session_answer {
	const char *request; /* of SESSION_EVENT_ASK */
	void *route;         /* the caller's name for the connection that signals take */
	const char *id;      /* 32 hex digits */
	struct crypto_cert *peer_cert;
	const uint8_t *offer; /* sealed */
	size_t offer_bytes;
};
/* 0; -ENOENT: nobody asked that (any more); -EBADMSG: the offer is not good, the attempt failed. */
int session_answer(struct session *s, const struct session_answer *answer, uint64_t now_us);
/* It failed; `text` for people may be NULL. Waits, then asks again. */
void session_answer_failed(struct session *s, const char *request, enum session_why why,
			   const char *text, uint64_t now_us);
/* Does it still want the answer to that request? */
bool session_asks(const struct session *s, const char *request);
/* The status of an empty answer: "offline", "refused" ...; NULL or unknown: OFFLINE. */
enum session_why session_why_from_status(const char *status, size_t n_bytes);

/* The peer asks. */
struct session_inbound {
	void *route;
	const char *request; /* 32 hex digits, or "" */
	struct crypto_cert *peer_cert;
};
struct session_reply {
	char id[OFFER_ID_BYTES + 1];
	uint8_t offer[SESSION_SIGNAL_BYTES_MAX];
	size_t offer_bytes;
};
enum session_outcome {
	SESSION_BUSY = 1,    /* answer with status "busy": our own attempt goes on */
	SESSION_BLOCKED = 2, /* tun: hold until SESSION_EVENT_TUN_ROOM */
	SESSION_DISCARD = 3, /* tun: read and throw away */
};
/* 0 with a reply to send, SESSION_BUSY, or a fault (answer an empty list). */
int session_inbound(struct session *s, const struct session_inbound *inbound,
		    struct session_reply *ret_reply, uint64_t now_us);

/* q2q-tun-signal, -relay, -gone. -ENOENT: no such rendezvous here; -EBADMSG: dropped. */
int session_signal(struct session *s, const char *id, const void *body, size_t n_bytes,
		   uint64_t now_us);
/* The body is decrypted in place. */
int session_relay(struct session *s, const char *id, uint8_t *body, size_t n_bytes,
		  uint64_t now_us);
int session_gone(struct session *s, const char *id, uint64_t now_us);
/*
 * The answer to SESSION_EVENT_CHANNEL: the relay by UDP. name and key as q2q.h has them; `server`
 * is where the channel's datagrams go. -ENOENT: that rendezvous is over.
 */
int session_channel(struct session *s, const char *id, const uint8_t *name, const uint8_t *key,
		    const struct endpoint *server, uint64_t now_us);
/* That connection has ended. */
void session_route_lost(struct session *s, const void *route, uint64_t now_us);

/*
 * What datagrams and signals call a session by, for the caller's index: the connection id of a PTCP
 * packet, the tag of a probe or of a TCP connection's hello, the name of a relay channel (bytes 1..8
 * of each), the id of a rendezvous. They may change with any input.
 */
enum session_name_kind {
	SESSION_NAME_CID = 1,
	SESSION_NAME_TAG,
	SESSION_NAME_CHANNEL,
	SESSION_NAME_ID,
	SESSION_NAME_STREAM,
	SESSION_NAMES_MAX = 6,
};
struct session_name {
	uint8_t kind;
	uint8_t bytes[OFFER_ID_BYTES]; /* zeros behind a shorter one */
};
/* How many were written. */
size_t session_names(const struct session *s, struct session_name ret_names[SESSION_NAMES_MAX]);

struct session_signal_out {
	void *route;
	char id[OFFER_ID_BYTES + 1];
	const uint8_t *body; /* until the next call for this session */
	size_t n_bytes;
};
bool session_next_signal(struct session *s, struct session_signal_out *ret_signal);

/* ---- datagrams ---- */

/* One of those; decrypted in place. 0, or it was dropped and counted. */
int session_channel_input(struct session *s, const struct endpoint *from, uint8_t *data,
			  size_t n_bytes, uint64_t now_us);
/* One datagram of either kind; decrypted in place. 0, or it was dropped and counted. */
int session_input(struct session *s, uint8_t socket, const struct endpoint *from, uint8_t *data,
		  size_t n_bytes, uint8_t ecn, uint64_t now_us);

struct session_send {
	bool relay;
	/* A TCP connection of this number; 0: not by one. The data is frames, each a length u16 and so
	 * many bytes, or, of a connection that has sent none yet, its handshake. What finds no room is
	 * dropped, frame by frame. */
	uint16_t stream;
	/* UDP */
	uint8_t socket;
	struct endpoint to;
	size_t segment_bytes; /* 0: one datagram */
	uint8_t ttl, ecn, dscp;
	bool volley; /* from the volley's socket of that index, not from `socket` */
	uint16_t volley_index;
	uint32_t path_id; /* for session_too_big() */
	/* relay */
	void *route;
	char id[OFFER_ID_BYTES + 1];
	/* both; until the next call for this session */
	const uint8_t *data;
	size_t n_bytes;
};
bool session_output(struct session *s, struct session_send *ret_send, uint64_t now_us);
/* Sending it gave EMSGSIZE. */
void session_too_big(struct session *s, const struct session_send *send, uint64_t now_us);

/* ---- packets ---- */

/*
 * Lends TUN_FRAME_BYTES to read one frame into; 0, SESSION_BLOCKED (ask again after
 * SESSION_EVENT_TUN_ROOM) or SESSION_DISCARD. Give it back with session_tun_commit(), with the
 * frame's size, or 0 if there was none.
 */
int session_tun_room(struct session *s, uint8_t **ret_room);
void session_tun_commit(struct session *s, size_t frame_bytes, uint64_t now_us);
/* The queue is full: for one more message the fattest flow loses one. */
bool session_tun_full(const struct session *s);

struct session_frame {
	uint8_t header[TUN_VNET_BYTES]; /* virtio_net_hdr for devices that want one */
	const uint8_t *packet;          /* until the next call for this session */
	size_t packet_bytes;
};
bool session_tun_next(struct session *s, struct session_frame *ret_frame);

/* ---- time and events ---- */

uint64_t session_deadline_us(const struct session *s);
void session_tick(struct session *s, uint64_t now_us);

enum session_event_type {
	SESSION_EVENT_STATE = 1,     /* from, to */
	SESSION_EVENT_ASK,           /* send `inbound` with `request` */
	SESSION_EVENT_PATH,          /* the path in use changed */
	SESSION_EVENT_PONG,          /* pong */
	SESSION_EVENT_TUN_ROOM,      /* read the device again */
	SESSION_EVENT_WANT_SOCKET,   /* as NAT_EVENT_WANT_FRESH_SOCKET */
	SESSION_EVENT_SOCKET_UNUSED, /* as NAT_EVENT_SOCKET_UNUSED: socket */
	SESSION_EVENT_WANT_VOLLEY,   /* as NAT_EVENT_WANT_VOLLEY: n_sockets */
	SESSION_EVENT_VOLLEY_DONE,   /* as NAT_EVENT_VOLLEY_DONE */
	SESSION_EVENT_CHANNEL,       /* send `q2q-tun-channel` with channel.id by channel.route */
	SESSION_EVENT_CONN,          /* conn */
	SESSION_EVENT_IDLE_LOST,     /* a direct path that rested is dead: family */
	SESSION_EVENT_WANT_STREAM,   /* connect by TCP to session_stream_targets() */
	SESSION_EVENT_STREAM_UNUSED, /* close the TCP connection `stream` */
	SESSION_EVENT_TYPE_COUNT,
};

struct session_event {
	enum session_event_type type;
	union {
		struct {
			enum session_state from, to;
		} state;
		char request[OFFER_ID_BYTES + 1];
		struct {
			uint32_t id;
			uint64_t rtt_us;
			bool relay;
			uint8_t socket;
			struct endpoint remote;
		} pong;
		uint8_t socket;
		uint16_t stream;
		unsigned n_sockets;
		enum address_family family;
		struct {
			void *route;
			char id[OFFER_ID_BYTES + 1];
		} channel;
		struct ptcp_conn_event conn;
	};
};
bool session_next_event(struct session *s, struct session_event *ret_event);

/* How far apart keepalives on direct paths of a family may be, for this network's NAT; 0: the
 * built-in time. Paths within a LAN have no NAT and keep that. */
void session_set_keepalive(struct session *s, enum address_family family, uint64_t interval_us);
/* 0, -ENOTCONN, -ENOBUFS. */
int session_ping(struct session *s, uint32_t id, uint64_t now_us);
/* For pseudo-connections; NULL unless UP or STALLED. */
struct ptcp_assoc *session_assoc(struct session *s);

/* ---- figures ---- */

struct session_status {
	enum session_state state;
	enum session_why why; /* of not being up */
	char why_text[SESSION_WHY_BYTES];
	uint64_t since_us; /* in this state */
	uint64_t retry_us; /* the next attempt, NEVER_US: none planned */
	bool wanted;
	bool has_rendezvous; /* signals and relay work */
	/* the path in use */
	bool has_path, same_lan;
	bool relay, relay_udp; /* relay_udp: by a channel, not by the server's TLS connection */
	bool stream;           /* direct, by TCP */
	uint8_t socket;
	struct endpoint remote;
	uint64_t rtt_us;
	uint16_t mtu_bytes;
	char tls[96]; /* protocol, cipher, key exchange */
	char device[OFFER_NAME_BYTES + 1], about[OFFER_ABOUT_BYTES + 1]; /* the peer's */
	/* packets of the device, and what was dropped of them */
	uint64_t tun_sent, tun_sent_bytes, tun_received, tun_received_bytes;
	uint64_t tun_bad;     /* malformed, not carried, or not ours, from the device */
	uint64_t tun_discard; /* while the link was not up */
	uint64_t peer_bad;    /* the same, from the peer: spoofed sources too */
	uint64_t datagrams_bad;
	struct ptcp_stats ptcp;
	struct nat_status nat;
	bool has_ptcp, has_nat;
};
void session_get_status(const struct session *s, struct session_status *ret_status);
enum session_state session_state_of(const struct session *s);
/* Pairs of the nat agent, for "why is it not direct"; the number written. */
size_t session_nat_pairs(const struct session *s, struct nat_pair_info *ret_list, size_t max);
/* Its own candidates, and the peer's; the number written. */
size_t session_nat_local(const struct session *s, struct nat_candidate *ret_list, size_t max);
size_t session_nat_remote(const struct session *s, struct nat_candidate *ret_list, size_t max);

/* Every path of the association, in use or not. */
struct session_path_info {
	bool same_lan;
	uint8_t socket;
	struct endpoint remote; /* FAMILY_NONE for the relay by TLS */
	struct ptcp_path_stats stats;
};
size_t session_paths(const struct session *s, struct session_path_info *ret_list, size_t max);

#endif
