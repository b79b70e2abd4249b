/*
 * tun - virtual links and the packets that pass through them.
 *
 * Three things, each in its own files:
 *   device, link   open a TUN device, give it addresses and routes. Needs
 *                  CAP_NET_ADMIN; only the monitor calls it.
 *   ipc            the messages between monitor and daemon, both ends.
 *   packet         parsing, checking and rewriting of IP packets in the data
 *                  path. Sans-IO; bytes from the network, never trusted.
 *
 * Results: 0 done, negative -Exxx a fault, positive a named outcome.
 */
#ifndef TUN_TUN_H
#define TUN_TUN_H

#include "base/base.h"

/* ---- limits -------------------------------------------------------------------------- */

#define TUN_SLOTS_MAX     1024 /* links of one daemon; slots are 0..1023 */
#define TUN_NAME_BYTES    16   /* IFNAMSIZ */
#define TUN_ALIAS_BYTES   256  /* IFALIASZ: 255 characters and a NUL */
#define TUN_MTU_MIN       1280 /* IPv6 needs it */
#define TUN_MTU_MAX       65520
#define TUN_MTU           1500
#define TUN_VNET_BYTES    10    /* struct virtio_net_hdr */
#define TUN_PACKET_BYTES  65535 /* the largest IP packet */
#define TUN_FRAME_BYTES   (TUN_VNET_BYTES + TUN_PACKET_BYTES)
#define TUN_SEGMENTS_MAX  8192 /* packets one super-packet can become */
#define TUN_QUEUE_PACKETS 500  /* txqueuelen unless asked otherwise */

/* What a device can do. */
enum tun_feature {
	TUN_FEATURE_VNET = 1 << 0, /* a virtio_net_hdr in front of each packet, both ways */
	TUN_FEATURE_CSUM = 1 << 1, /* the kernel leaves TCP and UDP checksums to us */
	TUN_FEATURE_TSO4 = 1 << 2, /* the kernel hands out TCP super-packets ... */
	TUN_FEATURE_TSO6 = 1 << 3,
	TUN_FEATURE_TSO_ECN = 1 << 4,
	TUN_FEATURE_USO = 1 << 5,   /* ... and UDP ones (Linux 6.2), and takes them */
	TUN_FEATURE_IP4 = 1 << 6,   /* the link has its IPv4 addresses */
	TUN_FEATURE_IP6 = 1 << 7,   /* ... its IPv6 ones: not so where the system has no IPv6 */
	TUN_FEATURE_GUARD = 1 << 8, /* nothing gets to them but through tunnels */
};
/*
 * Taking super-packets is another matter than handing them out: every device
 * with TUN_FEATURE_VNET takes TCP ones; UDP ones only with TUN_FEATURE_USO.
 */

/* The four addresses of one link, network order. All-zero: that family is off. */
struct tun_addresses {
	uint8_t own4[4], peer4[4];
	uint8_t own6[16], peer6[16];
};

/* ---- device (monitor) ------------------------------------------------------------------- */

/*
 * Opens a new non-persistent TUN device under a free name made from
 * `wanted_name` ("q2q-bob", else "q2q-bob-2" and so on, cut to fit). It is gone
 * when the last descriptor is closed. Offloads are switched on as far as the
 * kernel has them. -ENODEV or -ENOENT: no /dev/net/tun; -EPERM; -EEXIST: no
 * name was free; -EINVAL: the name is not acceptable (tun_name_valid()).
 */
int tun_device_open(const char *wanted_name, char ret_name[static TUN_NAME_BYTES],
		    uint32_t *ret_features, int *ret_fd);

/* "q2q-" and 1..11 of [a-z0-9._+-]. */
bool tun_name_valid(const char *name);
/* "q2q-" and the part of a Q2Q address before the "@", cut; what does not fit becomes "-". */
void tun_name_from_address(const char *address, char ret_name[static TUN_NAME_BYTES]);

/*
 * One frame to or from the device (non-blocking descriptors): vnet header, then
 * packet. For a device without TUN_FEATURE_VNET an empty header is made up and
 * left out again. Read: the frame's bytes; -EAGAIN: nothing there; -EBADFD: the
 * device is gone. Write: 0; -EAGAIN, -EINVAL (the kernel did not like the
 * packet: count and go on), -EIO (the link is down), -EBADFD.
 */
int tun_device_read(int fd, uint32_t features, uint8_t *frame, size_t frame_bytes);
int tun_device_write(int fd, uint32_t features, const uint8_t *frame, size_t frame_bytes);

/* ---- link (monitor) ------------------------------------------------------------------------ */

struct tun_link_config {
	const char *name;  /* as tun_device_open() returned it */
	const char *alias; /* shown by `ip link`: the peer's Q2Q address; NULL: none */
	struct tun_addresses addresses;
	uint32_t mtu;
	uint32_t queue_packets; /* txqueuelen; 0: TUN_QUEUE_PACKETS */
	uint32_t group;         /* see tun_link_delete_group(); 0: none */
};

/*
 * Point-to-point addresses, routes to the peer, no IPv6 autoconfiguration, MTU,
 * alias, then up. *ret_features says which families there are (TUN_FEATURE_IP4,
 * _IP6): where the system has no IPv6, IPv4 alone will do. -EADDRNOTAVAIL: none.
 * A fault undoes nothing: close the device, which ends it.
 */
int tun_link_setup(const struct tun_link_config *config, uint32_t *ret_ifindex,
		   uint32_t *ret_features);

/* ---- guard (monitor) ---------------------------------------------------------------------- */

#define TUN_GUARD_ADDRESSES_MAX 64

/* Rules that drop packets for virtual addresses which come by another way than a tunnel. */
struct tun_guard {
	bool open;
	int fd; /* netlink, to which the rules belong */
	uint32_t seq;
	char table[32];
	uint8_t known[TUN_GUARD_ADDRESSES_MAX][4];
	unsigned n_known;
};

/*
 * Guards the IPv6 prefix. `number` makes the table's name unique on this machine. 0, or a fault:
 * -EPERM, -EPROTONOSUPPORT or -EINVAL where the kernel has no nftables.
 */
int tun_guard_open(struct tun_guard *g, uint32_t number);
/* Guards an own address, as long as the guard is open. 0; -EBADF: it is not; -ENOSPC; a fault. */
int tun_guard_ip4(struct tun_guard *g, const uint8_t address[static 4]);
void tun_guard_close(struct tun_guard *g);

/* ---- routes ------------------------------------------------------------------------------- */

/*
 * Ends all devices of that group, whoever holds them open, in about the time of one: the kernel
 * waits for its packet paths to be clear of a device, and here once for all. Never for 0, where
 * everybody's are: -EINVAL. -ENODEV: there is none.
 */
int tun_link_delete_group(uint32_t group);

/*
 * Whether an IPv4 address is already taken on this machine: an own address, or
 * a route other than the default one covers it. Needs no privilege. 1 taken,
 * 0 free, negative fault.
 */
int tun_route_taken4(const uint8_t address[static 4]);

/* ---- virtual addresses that are acceptable ------------------------------------------------- */

/* clang-format off */
#define TUN_IP6_PREFIX { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e }
/* clang-format on */
bool tun_ip4_valid(const uint8_t address[static 4]);  /* 100.64.0.0/10 */
bool tun_ip6_valid(const uint8_t address[static 16]); /* fd71:3271:746e::/48 */

/* ---- monitor and daemon ------------------------------------------------------------------------
 *
 * A SOCK_SEQPACKET socketpair; one fixed-size struct is one message, host byte
 * order (both ends are one binary). The daemon asks, the monitor answers
 * LINK_CREATE and LINK_DELETE in order, each with the request's id; the others
 * have no answer. Unasked come replies of type RELOAD, read the configuration again,
 * each of which the daemon answers with a request of that type; and one of type STOPPING:
 * end in good order.
 * Whatever is malformed ends the monitor, and so everything.
 */

enum tun_request_type {
	TUN_REQUEST_LINK_CREATE = 1,
	TUN_REQUEST_LINK_DELETE, /* only the slot matters; close the device first */
	TUN_REQUEST_READY,       /* the daemon serves; once (READY=1 for systemd) */
	TUN_REQUEST_ALIVE,       /* the daemon's loop turns (WATCHDOG=1) */
	TUN_REQUEST_STOPPING,    /* the daemon is on its way out (STOPPING=1) */
	TUN_REQUEST_LINKS_END,   /* no link is needed any more; LINK_DELETE may follow for each */
	TUN_REQUEST_RELOAD,      /* the configuration was read again; id: 0, or 1 if it has a fault */
	TUN_REQUEST_COUNT,
};

struct tun_request {
	uint32_t magic; /* tun_ipc_send_request() sets it */
	uint32_t type;
	uint32_t id;   /* the daemon's choice, comes back in the reply */
	uint32_t slot; /* < TUN_SLOTS_MAX; the daemon's number for this link */
	char ifname[TUN_NAME_BYTES];
	char alias[TUN_ALIAS_BYTES];
	struct tun_addresses addresses;
	uint32_t mtu;           /* 0: TUN_MTU */
	uint32_t queue_packets; /* 0: TUN_QUEUE_PACKETS */
};

struct tun_reply {
	uint32_t magic;
	uint32_t type, id, slot;     /* of the request */
	int32_t status;              /* 0, or -Exxx: then there is no descriptor */
	char ifname[TUN_NAME_BYTES]; /* the rest: of a created link */
	uint32_t ifindex;
	uint32_t features; /* enum tun_feature */
};

const char *tun_request_name(uint32_t type); /* "link-create"; "?" for unknown ones */

/* [0] is the monitor's end, [1] the daemon's; both close-on-exec and blocking. */
int tun_ipc_pair(int ret_fds[static 2]);

enum tun_ipc_outcome { TUN_IPC_CLOSED = 1 }; /* the other end is gone */

/* 0, TUN_IPC_CLOSED, -EAGAIN (non-blocking descriptor), or a fault of sendmsg(). */
int tun_ipc_send_request(int fd, const struct tun_request *request);
/* The same; -EBADMSG: not a request (size, magic, a descriptor came along). */
int tun_ipc_receive_request(int fd, struct tun_request *ret_request);
/* pass_fd: a descriptor to hand over (stays open here), or -1. */
int tun_ipc_send_reply(int fd, const struct tun_reply *reply, int pass_fd);
/* *ret_fd is the receiver's, close-on-exec and non-blocking, or -1: none came, or there was no room
 * for it in this process. */
int tun_ipc_receive_reply(int fd, struct tun_reply *ret_reply, int *ret_fd);

/* ---- packets ------------------------------------------------------------------------------------
 *
 * A frame is what the device reads and writes: 10 bytes of virtio_net_hdr
 * (little-endian), then one IP packet, possibly a TCP or UDP super-packet that
 * the other kernel need not see cut.
 *
 * A message is what goes to the peer: a frame, or, where its header says
 * nothing, the IP packet alone. The first byte tells: an IP packet starts with
 * 0x4_ or 0x6_, a header with 0x0_.
 */

enum tun_gso {
	TUN_GSO_NONE = 0, /* numbers of virtio_net_hdr */
	TUN_GSO_TCP4 = 1,
	TUN_GSO_TCP6 = 4,
	TUN_GSO_UDP = 5,
};

/* A packet that was found sound. The struct borrows the caller's bytes. */
struct tun_packet {
	uint8_t *data; /* the IP header */
	size_t data_bytes;
	uint8_t family;        /* enum address_family */
	uint8_t protocol;      /* IPPROTO_x of the transport header, past IPv6's fragment header */
	uint8_t dscp;          /* six bits */
	uint8_t ecn;           /* two bits */
	bool tcp;
	bool pure_ack;         /* TCP, with nothing but an acknowledgement: the next one says more */
	bool urgent;           /* EF, AF4x, CS5 and up, or a small UDP packet: late is worthless */
	bool fragment;         /* no ports then, except in `first` */
	bool first;            /* not a fragment, or the one at offset 0 */
	bool checksum_partial; /* TCP or UDP checksum holds the pseudo-header's sum only */
	bool checksum_valid;   /* somebody checked it already (DATA_VALID) */
	uint8_t gso;           /* enum tun_gso */
	bool gso_ecn;          /* CWR is on the first segment only */
	uint16_t gso_bytes;    /* payload of each segment; 0 without gso */
	uint32_t transport_offset; /* == length of IP header and extension headers */
	uint32_t payload_offset;   /* past the TCP or UDP header; else == transport_offset */
	uint16_t source_port, destination_port; /* TCP, UDP and their kin; else 0 */
};

/*
 * Checks everything that can be wrong: lengths, header checksum, options,
 * extension headers (all but fragment: refused), offload header against the
 * packet. 0; -EBADMSG: malformed, drop and count; -EPROTONOSUPPORT: well formed
 * but not carried (an extension header, a protocol outside of the list, source
 * routing). Trailing bytes past the IP length are refused too.
 */
int tun_packet_parse_frame(uint8_t *frame, size_t frame_bytes, struct tun_packet *ret_packet);
int tun_packet_parse_message(uint8_t *message, size_t message_bytes, struct tun_packet *ret_packet);

/* Writes the header for the device. */
void tun_packet_vnet(const struct tun_packet *packet, uint8_t ret_header[static TUN_VNET_BYTES]);
/*
 * The header for the peer: TUN_VNET_BYTES, or 0 where the packet goes alone.
 * A small packet's checksum is finished here instead, which costs less than ten
 * bytes on the wire.
 */
size_t tun_packet_message_header(struct tun_packet *packet,
				 uint8_t ret_header[static TUN_VNET_BYTES]);
/* Makes the checksum whole, where it was partial. Not for super-packets (no-op there). */
void tun_packet_finish_checksum(struct tun_packet *packet);

/* Of the inner 5-tuple (3-tuple for fragments); never 0. Both directions differ. */
uint32_t tun_packet_flow(const struct tun_packet *packet, const struct hash_seed *seed);

/*
 * Tells the sender of a message that its flow has a standing queue: an ECN-capable packet gets CE
 * (RFC 3168; a super-packet in all its segments), from another super-packet the first segment is
 * taken away: then the message begins *ret_cut_bytes later. DROP: neither is possible.
 */
enum tun_signal { TUN_SIGNAL_DROP, TUN_SIGNAL_MARKED, TUN_SIGNAL_SHORTENED };
enum tun_signal tun_message_signal(uint8_t *message, size_t message_bytes, size_t *ret_cut_bytes);

enum tun_direction { TUN_TO_PEER, TUN_FROM_PEER };

/*
 * The source must be the sender's address and the destination the other's, as
 * `addresses` names them: for TUN_TO_PEER own -> peer. -EPERM otherwise (link-
 * local and multicast included), and for a family that is off.
 */
int tun_packet_check(const struct tun_packet *packet, const struct tun_addresses *addresses,
		     enum tun_direction direction);

/*
 * Replaces IPv4 addresses: those of `from` by those of `to` (IPv6 packets stay
 * as they are), with all checksums, also inside ICMP errors. Call it after
 * tun_packet_check(packet, from, ...). To the peer: from = as shown here, to =
 * canonical; from the peer: the reverse.
 */
void tun_packet_translate(struct tun_packet *packet, const struct tun_addresses *from,
			  const struct tun_addresses *to);

/*
 * Cuts a super-packet into packets as they would have been sent, checksums
 * whole; any other packet comes out once, checksum whole. For a device (or a
 * peer) without the offload. The original must stay until the end.
 */
struct tun_segments {
	const struct tun_packet *packet;
	size_t offset; /* of the payload, what is cut already */
	uint32_t n;    /* segments made */
	bool done;
};
void tun_segments_init(struct tun_segments *segments, const struct tun_packet *packet);
/* Bytes written to out, which has room for the headers and gso_bytes; 0: that was all (or
 * does not fit: out_bytes too small). */
size_t tun_segments_next(struct tun_segments *segments, uint8_t *out, size_t out_bytes);
/* Whether this device takes the packet as it is. */
bool tun_packet_fits(const struct tun_packet *packet, uint32_t features);

#endif
