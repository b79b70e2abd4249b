/*
 * The inside of a session, shared by its files:
 *   session.c     life, time, figures
 *   states.c      the table of states, retries
 *   association.c the association and what it tells
 *   rendezvous.c  asking, answering, offers, signals
 *   paths.c       path ids, datagrams in and out, the relay by TLS
 *   channel.c     the relay by UDP
 *   packets.c     packets of the device
 *   streams.c     direct paths by TCP; stream.c: one such connection
 */
#ifndef SESSION_INTERNAL_H
#define SESSION_INTERNAL_H

#include "q2q/q2q.h"
#include "session/session.h"
#include "session/keys.h"
#include "session/stream.h"

enum {
	PATHS_MAX = 32,
	EVENTS_FIRST = 8,
	PATH_MTU_IPV4 = 8972, /* jumbo frames; what the interface cannot take costs no packet */
	PATH_MTU_IPV6 = 8952,
	PATH_MTU_RELAY = 9000, /* TCP below: fewer, larger datagrams */
	PATH_MTU_CHANNEL = 1472 - Q2Q_CHANNEL_HEADER_BYTES,
	CONTEXT_BYTES_MAX = 16 + 2 * (VIP_ADDRESS_BYTES_MAX + 2) + OFFER_ID_BYTES + 8,
};

#define ANSWER_TIMEOUT_US (20 * US_PER_S) /* from asking to the answer */
#define OFFER_TIMEOUT_US                                                                           \
	(6 * US_PER_S) /* from our answer to the peer's offer, which no user delays */
#define CLOSE_TIMEOUT_US (500 * US_PER_MS)
#define OPEN_GRACE_US    (8 * US_PER_S)
#define GONE_NUDGE_US    (6 * US_PER_S) /* longer than who wants the link takes to ask anew */

enum rendezvous_phase {
	RENDEZVOUS_NONE,
	RENDEZVOUS_ASKING,   /* we asked and wait for the answer */
	RENDEZVOUS_ANSWERED, /* we answered and wait for the requester's offer */
	RENDEZVOUS_OPEN,     /* both have both offers: signals and relay work */
};

struct rendezvous {
	enum rendezvous_phase phase;
	bool requester;
	void *route;
	char request[OFFER_ID_BYTES + 1];
	char id[OFFER_ID_BYTES + 1];
	uint8_t own_share[OFFER_SHARE_BYTES], peer_share[OFFER_SHARE_BYTES];
	uint8_t own_cid[PTCP_CID_BYTES], peer_cid[PTCP_CID_BYTES];
	uint32_t peer_features; /* enum offer_feature */
	struct crypto_cert *peer_cert;
	struct crypto_tls *begun; /* listener: what the hello of our answer has begun; or NULL */
	bool early;               /* the requester took that hello */
	uint64_t deadline_us;     /* ASKING, ANSWERED */
	uint64_t told_us; /* when we sent what the peer answers at once; NEVER_US: not now */
};

struct path {
	uint32_t id; /* 0: this entry is free */
	enum ptcp_path_kind kind;
	bool same_lan;
	uint8_t socket;
	uint16_t stream; /* DIRECT_STREAM: the caller's number of it */
	struct endpoint remote;
};

/*
 * The relay by UDP, for the open rendezvous.
 *
 *   OFF --no direct path for a while--> ASKED --answer--> BINDING --BOUND--> BOUND
 *                                                            ^__unanswered__/
 */
struct channel {
	enum { CHANNEL_OFF, CHANNEL_ASKED, CHANNEL_BINDING, CHANNEL_BOUND } state;
	uint64_t ask_us; /* when it is asked for, unless a direct path is there */
	uint8_t name[Q2Q_CHANNEL_BYTES], key[Q2Q_CHANNEL_KEY_BYTES];
	struct endpoint server;
	uint64_t counter; /* of the last BIND */
	unsigned n_tries; /* BINDs since the last answer */
	uint64_t bind_us; /* when the next is due */
	uint8_t bind[Q2Q_CHANNEL_BIND_BYTES];
};

struct stream_slot {
	bool used;
	uint16_t number;
	uint32_t path_id; /* once it is open */
	struct endpoint remote;
	uint64_t deadline_us; /* until then it is authenticated, or of use */
	struct stream st;
};

#define STREAM_SEEN_MAX 16

/* Direct paths by TCP. */
struct streams {
	uint16_t port; /* ours; 0: nobody can connect to us */
	bool has_key, requester;
	uint8_t key[STREAM_KEY_BYTES];
	uint8_t own_tag[SESSION_STREAM_TAG_BYTES], their_tag[SESSION_STREAM_TAG_BYTES];
	struct endpoint targets[OFFER_STREAMS_MAX]; /* the peer's */
	size_t n_targets;
	uint64_t connect_us;  /* when to connect there; NEVER_US: no need */
	uint64_t tried_us;    /* the last time; 0: not yet. Of all rendezvous */
	uint64_t wait_udp_us; /* until then UDP may still do it */
	unsigned n_tries;
	uint8_t seen[STREAM_SEEN_MAX][STREAM_NONCE_BYTES]; /* hellos, the last ones */
	size_t n_seen;
	struct stream_slot slots[SESSION_STREAMS_MAX];
};

struct socket_info {
	uint8_t socket;
	bool ipv4, ipv6;
};

struct signal {
	void *route;
	char id[OFFER_ID_BYTES + 1];
	size_t n_bytes;
	uint8_t body[SESSION_SIGNAL_BYTES_MAX];
	STAILQ_ENTRY(signal) entry;
};

/* What can happen to a link; see the table in session.c. */
enum session_input {
	INPUT_WANT,
	INPUT_UNWANT,      /* and there is an association */
	INPUT_REST,        /* nothing goes on (any more) */
	INPUT_ATTEMPT,     /* we asked or answered */
	INPUT_ASSOCIATION, /* offers exchanged, the handshake starts */
	INPUT_ESTABLISHED,
	INPUT_OUTAGE,
	INPUT_PATH,
	INPUT_CLOSE,
	INPUT_LOST, /* the association is gone */
	INPUT_COUNT,
};

struct session_scratch {
	uint8_t batch[PTCP_BATCH_BYTES_MAX];
	uint8_t relay[SESSION_RELAY_BYTES_MAX];
	uint8_t segment[TUN_PACKET_BYTES]; /* for devices without offloads */
};

struct session {
	struct session_config config;
	char own_address[VIP_ADDRESS_BYTES_MAX + 1], peer_address[VIP_ADDRESS_BYTES_MAX + 1];
	char device[OFFER_NAME_BYTES + 1], peer_device[OFFER_NAME_BYTES + 1];
	char about[OFFER_ABOUT_BYTES + 1], peer_about[OFFER_ABOUT_BYTES + 1];

	enum session_state state;
	uint64_t since_us;
	bool wanted, nudge;
	enum session_path_mode path_mode;
	enum session_why why;
	char why_text[SESSION_WHY_BYTES];
	unsigned n_failures; /* in a row */
	uint64_t retry_us, close_deadline_us;
	enum session_why closed_why; /* CLOSING */
	char closed_because[SESSION_WHY_BYTES];

	struct rendezvous open, pending;

	struct ptcp_assoc *assoc;
	struct keys *keys;
	uint8_t local_cid[PTCP_CID_BYTES];
	bool has_cid;
	struct crypto_cert *assoc_cert; /* the peer's, as the rendezvous told */

	struct nat_agent *nat;
	bool has_volley; /* asked for, and not given back */
	uint64_t keepalive_us[2]; /* IPv4, IPv6; 0: ptcp's own */
	struct socket_info sockets[SESSION_SOCKETS_MAX];
	size_t n_sockets;
	struct nat_candidate locals[NAT_LOCAL_MAX];
	size_t n_locals;

	struct path paths[PATHS_MAX];
	uint32_t next_path_id, active_path_id;
	struct channel channel;
	struct streams streams;

	STAILQ_HEAD(, signal) signals;
	unsigned n_signals;
	struct signal *signal_lent;

	struct session_event *events; /* ring */
	unsigned first_event, n_events, event_room;

	/* datagrams */
	struct session_scratch *scratch, *own_scratch;
	struct ptcp_batch relay_batch;
	size_t relay_taken;  /* of relay_batch; all of it: nothing is left to send */
	uint8_t *relay_kept; /* its data, where they outlast one call; or NULL */
	struct nat_send nat_send;
	uint64_t datagrams_bad;

	/* packets */
	struct tun_addresses canonical; /* as they travel */
	bool has_device, tun_waits;
	uint32_t features;
	uint8_t *tun_room; /* lent by ptcp */
	struct tun_packet packet;
	struct tun_segments segments;
	bool segmenting;
	uint64_t tun_sent, tun_sent_bytes, tun_received, tun_received_bytes;
	uint64_t tun_bad, tun_discard, peer_bad;
};

/* states.c */
/* Is another rendezvous needed, by us? Where only the peer wants the link, it asks. */
bool session_needs_rendezvous(const struct session *s);
void session_dispatch(struct session *s, enum session_input input, const char *because,
		      uint64_t now_us);
void session_event_push(struct session *s, const struct session_event *event);
void session_set_why(struct session *s, enum session_why why, const char *text);
/* Plans the next attempt, the later the more have failed. */
void session_plan_retry(struct session *s, enum session_why why, uint64_t now_us);
/* association.c */
/* It is over, and the peer knows or will not hear. */
void session_finish_close(struct session *s, uint64_t now_us);
/* The hello of our offer, which the peer may take: r->begun. Without one all goes on as well. */
void session_make_hello(struct session *s, struct rendezvous *r, struct offer *offer);
/* A new association from s->open, to which `theirs` led; the old one is dropped. A requester knows
 * afterwards whether it is an early one. */
int session_start_association(struct session *s, const struct offer *theirs, uint64_t now_us);
/* The association goes on over a new rendezvous: takes the peer's certificate from there. */
void session_renew_peer_cert(struct session *s);
void session_drop_association(struct session *s);
/* ptcp and nat have events. */
void session_pull(struct session *s, uint64_t now_us);

/* rendezvous.c */
void rendezvous_clear(struct rendezvous *r);
void rendezvous_ask(struct session *s, uint64_t now_us);
void rendezvous_fail(struct session *s, enum session_why why, const char *text, uint64_t now_us);
void rendezvous_trickle(struct session *s, uint64_t now_us);
void rendezvous_close(struct session *s, uint64_t now_us);
struct keys_rendezvous rendezvous_keys(const struct session *s, const struct rendezvous *r);
void rendezvous_drop_agent(struct session *s);
int rendezvous_make_agent(struct session *s, uint64_t now_us);

/* paths.c */
struct path *session_path_find(struct session *s, uint8_t socket, const struct endpoint *remote);
struct path *session_path_by_id(struct session *s, uint32_t id);
void session_relay_forget(struct session *s);
uint16_t session_path_mtu(const struct endpoint *remote);
struct path *session_path_new(struct session *s);
struct path *session_path_of_kind(struct session *s, enum ptcp_path_kind kind);
void session_path_remove(struct session *s, struct path *p, uint64_t now_us);
void session_path_add_relay(struct session *s, uint64_t now_us);
void session_path_drop_relay(struct session *s, uint64_t now_us);
void session_path_valid(struct session *s, const struct nat_event *event, uint64_t now_us);
void session_path_lost(struct session *s, const struct nat_event *event, uint64_t now_us);
void session_paths_clear(struct session *s);
/* The keepalive of a path that ptcp has now. */
void session_path_set_keepalive(struct session *s, const struct path *p);
void session_paths_drop_direct(struct session *s, uint64_t now_us);

/* streams.c */
/* A rendezvous opened: its keys, and no targets yet. */
int session_streams_open(struct session *s, uint64_t now_us);
void session_streams_drop(struct session *s, uint64_t now_us); /* the connections */
void session_streams_fini(struct session *s);
void session_streams_replan(struct session *s, uint64_t now_us); /* network or mode changed */
/* What the peer's hello calls us; NULL: we take none. */
const uint8_t *session_streams_tag(const struct session *s);
void session_streams_tell(const struct session *s, struct offer *offer);
void session_streams_told(struct session *s, const struct offer *offer, uint64_t now_us);
void session_streams_tick(struct session *s, uint64_t now_us);
uint64_t session_streams_deadline_us(const struct session *s);
/* The path in use may be another one. */
void session_streams_path(struct session *s, uint64_t now_us);
/* The handshake of one. */
bool session_streams_output(struct session *s, struct session_send *send);

/* channel.c */
/* A rendezvous opened: a channel may be asked for. */
void session_channel_reset(struct session *s, uint64_t now_us);
void session_channel_clear(struct session *s);
bool session_has_channel(const struct session *s); /* and it has a name */
/* The network changed, or the path in use did. */
void session_channel_check(struct session *s, uint64_t now_us);
void session_channel_tick(struct session *s, uint64_t now_us);
uint64_t session_channel_deadline_us(const struct session *s);
/* A BIND that is due. */
bool session_channel_bind(struct session *s, struct session_send *send, uint64_t now_us);
/* Puts the channel's header in front of each datagram of the batch. */
void session_channel_wrap(struct session *s, const struct ptcp_batch *batch,
			  struct session_send *send);

#endif
