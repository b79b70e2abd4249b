/*
 * udp - datagrams in batches: recvmmsg() with UDP_GRO in, sendmmsg() with
 * UDP_SEGMENT out. One dual-stack socket serves both families, so that one
 * port serves both; IPv4 peers appear on it as mapped addresses, and the
 * control messages of both families are switched on.
 *
 * Whether UDP_SEGMENT works is found out by using it: a fault that only
 * segmentation can cause switches it off for the socket (EIO: the route cannot
 * do it) or for the one message (EINVAL: a segment is larger than the MTU), and
 * the message goes out cut up by us.
 */
#include "net/internal.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define BUFFER_BYTES      (4 * 1024 * 1024)
#define PAYLOAD_BYTES_MAX 65487 /* largest UDP payload of either family, less some slack */
#define CALLS_PER_WAKE_UP 8     /* then the other sockets get their turn */
#define CONTROL_BYTES     256

/* One message that waits for the socket; the data follow. */
struct pending {
	TAILQ_ENTRY(pending) entry;
	struct net_udp_send send;
	uint8_t data[];
};

TAILQ_HEAD(pending_list, pending);

struct net_udp {
	struct net_loop *loop;
	struct net_udp_config config;
	struct net_watch watch;
	struct net_trash trash;
	struct endpoint local;
	struct pending_list pending;
	size_t pending_bytes;
	struct net_udp_stats stats;
	int fd;
	bool ipv6;      /* an AF_INET6 socket */
	bool dual;      /* which also does IPv4 */
	bool gso_works; /* not refuted yet */
	bool freed;
};

/* ---- opening ------------------------------------------------------------------------ */

static void set_buffers(int fd, size_t buffer_bytes)
{
	const int bytes = (int)min_size(buffer_bytes ? buffer_bytes : BUFFER_BYTES, 1 << 28);

	/* FORCE needs CAP_NET_ADMIN; the plain option is cut to the system's maximum. */
	if (net_set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes) < 0)
		net_set_int(fd, SOL_SOCKET, SO_RCVBUF, bytes);
	if (net_set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes) < 0)
		net_set_int(fd, SOL_SOCKET, SO_SNDBUF, bytes);
}

static void set_options(struct net_udp *udp)
{
	if (udp->ipv6) {
		net_set_int(udp->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
		net_set_int(udp->fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
		net_set_int(udp->fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
		net_set_int(udp->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
	}
	if (!udp->ipv6 || udp->dual) {
		net_set_int(udp->fd, IPPROTO_IP, IP_PKTINFO, 1);
		net_set_int(udp->fd, IPPROTO_IP, IP_RECVTOS, 1);
		net_set_int(udp->fd, IPPROTO_IP, IP_RECVTTL, 1);
		net_set_int(udp->fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
	}
	udp->stats.gro = net_set_int(udp->fd, IPPROTO_UDP, UDP_GRO, 1) == 0;
	/* Setting the size to 0 changes nothing, but tells whether the kernel knows the option. */
	udp->gso_works = net_set_int(udp->fd, IPPROTO_UDP, UDP_SEGMENT, 0) == 0;
}

static int open_socket(struct net_udp *udp)
{
	const uint8_t family = udp->config.bind.ip.family;

	udp->ipv6 = family != FAMILY_IPV4;
	udp->fd = socket(udp->ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			 0);
	if (udp->fd < 0 && errno == EAFNOSUPPORT && family == FAMILY_NONE) {
		udp->ipv6 = false;
		udp->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	}
	if (udp->fd < 0)
		return -errno;
	if (udp->config.shared && net_set_int(udp->fd, SOL_SOCKET, SO_REUSEADDR, 1) < 0)
		return -errno;
	udp->dual = udp->ipv6 && family == FAMILY_NONE;
	if (udp->ipv6 && net_set_int(udp->fd, IPPROTO_IPV6, IPV6_V6ONLY, !udp->dual) < 0)
		return -errno;
	return 0;
}

static int bind_socket(struct net_udp *udp)
{
	struct endpoint to = udp->config.bind;
	struct sockaddr_storage sa;
	socklen_t length;

	if (to.ip.family == FAMILY_NONE)
		to.ip.family = udp->ipv6 ? FAMILY_IPV6 : FAMILY_IPV4;
	length = (socklen_t)endpoint_to_sockaddr(&to, false, &sa);
	if (bind(udp->fd, (struct sockaddr *)&sa, length) < 0)
		return -errno;
	length = sizeof(sa);
	if (getsockname(udp->fd, (struct sockaddr *)&sa, &length) < 0)
		return -errno;
	if (endpoint_from_sockaddr((struct sockaddr *)&sa, &to) < 0)
		return -EAFNOSUPPORT;
	udp->local = to;
	if (ip_is_unspecified(&to.ip))
		udp->local.ip = (struct ip_address){ .family = FAMILY_NONE };
	return 0;
}

static void on_ready(void *user, unsigned ready);

int net_udp_new(struct net_loop *loop, const struct net_udp_config *config,
		struct net_udp **ret_udp)
{
	struct net_udp *udp = calloc(1, sizeof(*udp));
	int r;

	if (!udp)
		return -ENOMEM;
	udp->loop = loop;
	udp->config = *config;
	udp->fd = -1;
	TAILQ_INIT(&udp->pending);
	r = open_socket(udp);
	if (r == 0) {
		set_options(udp);
		set_buffers(udp->fd, config->buffer_bytes);
		if (config->shared_port)
			r = net_set_int(udp->fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0 ? -errno : 0;
	}
	if (r == 0)
		r = bind_socket(udp);
	if (r == 0) {
		net_watch_init(&udp->watch, loop, udp->fd, on_ready, udp);
		r = net_watch_want(&udp->watch, NET_READ);
	}
	if (r < 0) {
		net_udp_free(udp);
		return r;
	}
	*ret_udp = udp;
	return 0;
}

int net_udp_share_port(struct net_udp *udp)
{
	return net_set_int(udp->fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0 ? -errno : 0;
}

/* The program sees the payload; a load beyond its end gives 0, the first socket. */
int net_udp_steer(struct net_udp *udp, const struct net_udp_steering *s)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, s->mask),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, s->value, 0, 3),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, s->at),
		BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, s->n_sockets),
		BPF_STMT(BPF_RET | BPF_A, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	const struct sock_fprog program = { .len = ARRAY_SIZE(code), .filter = code };

	if (setsockopt(udp->fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) <
	    0)
		return -errno;
	return 0;
}

void net_udp_hand_over(struct net_udp *udp, const struct net_udp_config *to)
{
	udp->config.on_packets = to->on_packets;
	udp->config.on_writable = to->on_writable;
	udp->config.user = to->user;
	set_buffers(udp->fd, to->buffer_bytes);
}

static void pending_drop(struct net_udp *udp, struct pending *p)
{
	TAILQ_REMOVE(&udp->pending, p, entry);
	udp->pending_bytes -= p->send.data_bytes;
	free(p);
}

static void release(void *memory)
{
	free(memory);
}

void net_udp_free(struct net_udp *udp)
{
	if (!udp)
		return;
	net_watch_fini(&udp->watch);
	while (!TAILQ_EMPTY(&udp->pending))
		pending_drop(udp, TAILQ_FIRST(&udp->pending));
	if (udp->fd >= 0)
		close(udp->fd);
	udp->fd = -1;
	udp->freed = true;
	net_loop_trash(udp->loop, &udp->trash, release, udp);
}

struct endpoint net_udp_local(const struct net_udp *udp)
{
	return udp->local;
}

bool net_udp_has_family(const struct net_udp *udp, enum address_family family)
{
	if (family == FAMILY_IPV6)
		return udp->ipv6;
	return family == FAMILY_IPV4 && (!udp->ipv6 || udp->dual);
}

bool net_udp_is_blocked(const struct net_udp *udp)
{
	return !TAILQ_EMPTY(&udp->pending);
}

struct net_udp_stats net_udp_stats(const struct net_udp *udp)
{
	struct net_udp_stats stats = udp->stats;

	stats.gso = udp->gso_works;
	return stats;
}

/* ---- receiving ------------------------------------------------------------------------ */

static void take_ipv6(const struct cmsghdr *c, struct net_udp_packet *p)
{
	const void *data = CMSG_DATA(c);
	struct in6_pktinfo info;
	int value;

	switch (c->cmsg_type) {
	case IPV6_PKTINFO: {
		struct sockaddr_in6 sa = { .sin6_family = AF_INET6 };
		struct endpoint local;

		memcpy(&info, data, sizeof(info));
		sa.sin6_addr = info.ipi6_addr;
		if (endpoint_from_sockaddr((struct sockaddr *)&sa, &local) == 0)
			p->local = local.ip;
		p->interface = info.ipi6_ifindex;
		break;
	}
	case IPV6_TCLASS:
		memcpy(&value, data, sizeof(value));
		p->ecn = (uint8_t)(value & 3);
		break;
	case IPV6_HOPLIMIT:
		memcpy(&value, data, sizeof(value));
		p->ttl = (uint8_t)value;
		break;
	default:
		break;
	}
}

static void take_ipv4(const struct cmsghdr *c, struct net_udp_packet *p)
{
	const void *data = CMSG_DATA(c);
	struct in_pktinfo info;
	int value;

	switch (c->cmsg_type) {
	case IP_PKTINFO:
		memcpy(&info, data, sizeof(info));
		p->local = (struct ip_address){ .family = FAMILY_IPV4 };
		/* spec_dst is what a reply should come from; for a broadcast it is not the
		 * header's. */
		memcpy(p->local.bytes, &info.ipi_spec_dst, 4);
		p->interface = (uint32_t)info.ipi_ifindex;
		break;
	case IP_TOS:
		p->ecn = *(const uint8_t *)data & 3;
		break;
	case IP_TTL:
		memcpy(&value, data, sizeof(value));
		p->ttl = (uint8_t)value;
		break;
	default:
		break;
	}
}

static void take_control(struct msghdr *m, struct net_udp_packet *p)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			int bytes;

			memcpy(&bytes, CMSG_DATA(c), sizeof(bytes));
			if (bytes > 0 && (size_t)bytes < p->data_bytes)
				p->segment_bytes = (size_t)bytes;
		} else if (c->cmsg_level == IPPROTO_IPV6) {
			take_ipv6(c, p);
		} else if (c->cmsg_level == IPPROTO_IP) {
			take_ipv4(c, p);
		}
	}
}

/* Turns one received message into a packet; false: nothing to hand out. */
static bool take_message(struct net_udp *udp, struct mmsghdr *m, struct net_udp_packet *p)
{
	*p = (struct net_udp_packet){
		.data = m->msg_hdr.msg_iov->iov_base,
		.data_bytes = m->msg_len,
		.segment_bytes = m->msg_len,
	};
	if (m->msg_hdr.msg_flags & MSG_TRUNC) {
		udp->stats.rx_truncated++;
		return false;
	}
	if (m->msg_len == 0 || endpoint_from_sockaddr(m->msg_hdr.msg_name, &p->from) < 0)
		return false;
	p->from = net_nat64_inward(udp->loop, &p->from);
	take_control(&m->msg_hdr, p);
	udp->stats.rx_messages++;
	udp->stats.rx_bytes += p->data_bytes;
	udp->stats.rx_datagrams += (p->data_bytes + p->segment_bytes - 1) / p->segment_bytes;
	return true;
}

/* The number of messages read; below NET_UDP_BATCH the socket is empty for now. */
static int receive_batch(struct net_udp *udp, uint64_t now_us)
{
	uint8_t *scratch = net_loop_scratch(udp->loop);
	struct mmsghdr messages[NET_UDP_BATCH] = { 0 };
	struct sockaddr_storage names[NET_UDP_BATCH];
	struct iovec iov[NET_UDP_BATCH];
	_Alignas(struct cmsghdr) uint8_t control[NET_UDP_BATCH][CONTROL_BYTES];
	struct net_udp_packet packets[NET_UDP_BATCH];
	size_t n_packets = 0;
	int n;

	for (size_t i = 0; i < NET_UDP_BATCH; i++) {
		iov[i].iov_base = scratch + i * NET_UDP_MESSAGE_BYTES;
		iov[i].iov_len = NET_UDP_MESSAGE_BYTES;
		messages[i].msg_hdr = (struct msghdr){
			.msg_name = &names[i],
			.msg_namelen = sizeof(names[i]),
			.msg_iov = &iov[i],
			.msg_iovlen = 1,
			.msg_control = control[i],
			.msg_controllen = CONTROL_BYTES,
		};
	}
	n = recvmmsg(udp->fd, messages, NET_UDP_BATCH, MSG_DONTWAIT, NULL);
	if (n < 0)
		/* An ICMP error of an earlier send shows up here once; the queue goes on behind. */
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	udp->stats.rx_calls++;
	for (int i = 0; i < n; i++)
		if (take_message(udp, &messages[i], &packets[n_packets]))
			n_packets++;
	if (n_packets)
		udp->config.on_packets(udp->config.user, udp, packets, n_packets, now_us);
	return n;
}

static void flush_pending(struct net_udp *udp);

static void on_ready(void *user, unsigned ready)
{
	struct net_udp *udp = user;
	const uint64_t now_us = net_loop_now_us(udp->loop);

	if (ready & NET_WRITE)
		flush_pending(udp);
	if (!(ready & NET_READ))
		return;
	for (int calls = 0; calls < CALLS_PER_WAKE_UP && !udp->freed; calls++) {
		const int n = receive_batch(udp, now_us);

		if (n >= 0 && n < NET_UDP_BATCH)
			return;
	}
}

/* ---- sending -------------------------------------------------------------------------- */

/* What sendmmsg() needs for one message; points into the send it was made from. */
struct outgoing {
	struct sockaddr_storage name;
	struct iovec iov;
	_Alignas(struct cmsghdr) uint8_t control[CONTROL_BYTES];
};

static void control_add(struct msghdr *m, int level, int type, const void *data, size_t data_bytes)
{
	struct cmsghdr *c = (struct cmsghdr *)((uint8_t *)m->msg_control + m->msg_controllen);

	assert(m->msg_controllen + CMSG_SPACE(data_bytes) <= CONTROL_BYTES);
	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(data_bytes);
	memcpy(CMSG_DATA(c), data, data_bytes);
	m->msg_controllen += CMSG_SPACE(data_bytes);
}

static void control_add_int(struct msghdr *m, int level, int type, int value)
{
	control_add(m, level, type, &value, sizeof(value));
}

static void control_add_source(struct msghdr *m, const struct net_udp_send *s,
			       const struct endpoint *to)
{
	if (s->from.family == FAMILY_IPV4 && to->ip.family == FAMILY_IPV4) {
		struct in_pktinfo info = { 0 };

		memcpy(&info.ipi_spec_dst, s->from.bytes, 4);
		control_add(m, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	} else if (s->from.family == FAMILY_IPV6 && to->ip.family == FAMILY_IPV6) {
		struct in6_pktinfo info = { .ipi6_ifindex = to->scope_id };

		memcpy(&info.ipi6_addr, s->from.bytes, 16);
		control_add(m, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	}
}

static void control_fill(struct msghdr *m, const struct net_udp_send *s, const struct endpoint *to,
			 bool gso)
{
	const bool ipv4 = to->ip.family == FAMILY_IPV4;
	const int tos = (s->dscp & 0x3f) << 2 | (s->ecn & 3);

	memset(m->msg_control, 0, CONTROL_BYTES);
	m->msg_controllen = 0;
	control_add_source(m, s, to);
	if (tos)
		control_add_int(m, ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_TOS : IPV6_TCLASS,
				tos);
	if (s->ttl)
		control_add_int(m, ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_TTL : IPV6_HOPLIMIT,
				s->ttl);
	if (gso) {
		const uint16_t segment_bytes = (uint16_t)s->segment_bytes;

		control_add(m, IPPROTO_UDP, UDP_SEGMENT, &segment_bytes, sizeof(segment_bytes));
	}
	if (!m->msg_controllen)
		m->msg_control = NULL;
}

static void message_fill(const struct net_udp *udp, const struct net_udp_send *s, bool gso,
			 struct outgoing *o, struct mmsghdr *m)
{
	/* A socket of IPv4 alone has nothing else to say it with. */
	const struct endpoint to = udp->ipv6 ? net_nat64_outward(udp->loop, &s->to) : s->to;

	o->iov.iov_base = (void *)(uintptr_t)s->data;
	o->iov.iov_len = s->data_bytes;
	m->msg_len = 0;
	m->msg_hdr = (struct msghdr){
		.msg_name = &o->name,
		.msg_namelen = (socklen_t)endpoint_to_sockaddr(&to, udp->ipv6, &o->name),
		.msg_iov = &o->iov,
		.msg_iovlen = 1,
		.msg_control = o->control,
	};
	control_fill(&m->msg_hdr, s, &to, gso);
}

static size_t n_segments(const struct net_udp_send *s)
{
	return s->segment_bytes ? (s->data_bytes + s->segment_bytes - 1) / s->segment_bytes : 1;
}

/* The largest first part of a send that one UDP_SEGMENT message can carry. */
static size_t gso_part_bytes(const struct net_udp_send *s)
{
	const size_t n = min_size(NET_UDP_SEGMENTS_MAX, PAYLOAD_BYTES_MAX / s->segment_bytes);

	return min_size(s->data_bytes, n * s->segment_bytes);
}

static void count_sent(struct net_udp *udp, const struct net_udp_send *part)
{
	udp->stats.tx_messages++;
	udp->stats.tx_datagrams += n_segments(part);
	udp->stats.tx_bytes += part->data_bytes;
}

/* Sends the datagrams of one message singly. What is left is in *s. 0, -EAGAIN or a fault. */
static int send_singly(struct net_udp *udp, struct net_udp_send *s)
{
	while (s->data_bytes) {
		struct outgoing out[NET_UDP_BATCH];
		struct mmsghdr messages[NET_UDP_BATCH];
		struct net_udp_send parts[NET_UDP_BATCH];
		size_t n_parts = 0, offset = 0;
		int n;

		while (n_parts < NET_UDP_BATCH && offset < s->data_bytes) {
			struct net_udp_send *part = &parts[n_parts];

			*part = *s;
			part->segment_bytes = 0;
			part->data = s->data + offset;
			part->data_bytes = s->data_bytes - offset;
			if (s->segment_bytes)
				part->data_bytes = min_size(part->data_bytes, s->segment_bytes);
			message_fill(udp, part, false, &out[n_parts], &messages[n_parts]);
			offset += part->data_bytes;
			n_parts++;
		}
		do {
			n = sendmmsg(udp->fd, messages, (unsigned)n_parts, MSG_DONTWAIT);
		} while (n < 0 && errno == EINTR);
		udp->stats.tx_calls++;
		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++) {
			count_sent(udp, &parts[i]);
			s->data += parts[i].data_bytes;
			s->data_bytes -= parts[i].data_bytes;
		}
	}
	return 0;
}

static int send_part(struct net_udp *udp, const struct net_udp_send *part)
{
	struct outgoing out;
	struct mmsghdr m;
	ssize_t n;

	message_fill(udp, part, true, &out, &m);
	do {
		n = sendmsg(udp->fd, &m.msg_hdr, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	udp->stats.tx_calls++;
	if (n < 0)
		return -errno;
	count_sent(udp, part);
	return 0;
}

/* Tries to get all of *s out; what is left stays in it. 0, -EAGAIN or a fault. */
static int send_now(struct net_udp *udp, struct net_udp_send *s)
{
	while (udp->gso_works && s->segment_bytes && s->data_bytes > s->segment_bytes) {
		struct net_udp_send part = *s;
		int r;

		part.data_bytes = gso_part_bytes(s);
		r = send_part(udp, &part);
		if (r == -EIO || r == -EOPNOTSUPP || r == -ENOPROTOOPT)
			udp->gso_works = false;
		if (r == -EIO || r == -EOPNOTSUPP || r == -ENOPROTOOPT || r == -EINVAL ||
		    r == -EMSGSIZE)
			break;
		if (r < 0)
			return r;
		s->data += part.data_bytes;
		s->data_bytes -= part.data_bytes;
	}
	return send_singly(udp, s);
}

static bool is_sendable(const struct net_udp *udp, const struct net_udp_send *s)
{
	if (!s->data_bytes || !s->to.port || s->segment_bytes > PAYLOAD_BYTES_MAX)
		return false;
	return net_udp_has_family(udp, s->to.ip.family);
}

/* NET_UDP_BLOCKED: it waits. -ENOBUFS: no room, dropped. */
static int enqueue(struct net_udp *udp, const struct net_udp_send *s)
{
	struct pending *p = NULL;

	if (udp->pending_bytes + s->data_bytes <= NET_UDP_PENDING_BYTES)
		p = malloc(sizeof(*p) + s->data_bytes);
	if (!p) {
		udp->stats.tx_dropped += n_segments(s);
		return -ENOBUFS;
	}
	p->send = *s;
	memcpy(p->data, s->data, s->data_bytes);
	p->send.data = p->data;
	if (TAILQ_EMPTY(&udp->pending)) {
		udp->stats.tx_blocked++;
		net_watch_want(&udp->watch, NET_READ | NET_WRITE);
	}
	TAILQ_INSERT_TAIL(&udp->pending, p, entry);
	udp->pending_bytes += s->data_bytes;
	return NET_UDP_BLOCKED;
}

int net_udp_send(struct net_udp *udp, const struct net_udp_send *send)
{
	struct net_udp_send rest = *send;
	int r;

	if (!is_sendable(udp, send))
		return net_udp_has_family(udp, send->to.ip.family) ? -EINVAL : -EAFNOSUPPORT;
	if (net_udp_is_blocked(udp))
		return enqueue(udp, send);
	r = send_now(udp, &rest);
	if (r == -EAGAIN)
		return enqueue(udp, &rest);
	if (r < 0)
		udp->stats.tx_dropped += n_segments(&rest);
	return r;
}

/* Messages that one sendmmsg() can take as they are; the others go their own way. */
static bool is_simple(const struct net_udp *udp, const struct net_udp_send *s)
{
	if (!is_sendable(udp, s))
		return false;
	if (!s->segment_bytes || s->data_bytes <= s->segment_bytes)
		return true;
	return udp->gso_works && gso_part_bytes(s) == s->data_bytes;
}

static size_t send_run(struct net_udp *udp, const struct net_udp_send *sends, size_t n_sends)
{
	struct outgoing out[NET_UDP_BATCH];
	struct mmsghdr messages[NET_UDP_BATCH];
	size_t n = 0;
	int sent;

	while (n < n_sends && n < NET_UDP_BATCH && is_simple(udp, &sends[n])) {
		const bool gso =
			sends[n].segment_bytes && sends[n].data_bytes > sends[n].segment_bytes;

		message_fill(udp, &sends[n], gso, &out[n], &messages[n]);
		n++;
	}
	if (n < 2)
		return 0;
	sent = sendmmsg(udp->fd, messages, (unsigned)n, MSG_DONTWAIT);
	udp->stats.tx_calls++;
	for (int i = 0; i < sent; i++)
		count_sent(udp, &sends[i]);
	return sent > 0 ? (size_t)sent : 0;
}

int net_udp_send_many(struct net_udp *udp, const struct net_udp_send *sends, size_t n_sends)
{
	size_t i = 0;

	while (i < n_sends) {
		const size_t n =
			net_udp_is_blocked(udp) ? 0 : send_run(udp, sends + i, n_sends - i);

		/* None left: the first of them has a fault or the socket is full; find out which.
		 */
		if (n == 0)
			net_udp_send(udp, &sends[i]);
		i += n ? n : 1;
	}
	return net_udp_is_blocked(udp) ? NET_UDP_BLOCKED : NET_UDP_SENT;
}

static void flush_pending(struct net_udp *udp)
{
	struct pending *p;

	while ((p = TAILQ_FIRST(&udp->pending)) != NULL) {
		struct net_udp_send rest = p->send;
		const int r = send_now(udp, &rest);

		udp->pending_bytes -= p->send.data_bytes - rest.data_bytes;
		p->send = rest;
		if (r == -EAGAIN)
			return;
		if (r < 0)
			udp->stats.tx_dropped += n_segments(&rest);
		pending_drop(udp, p);
	}
	net_watch_want(&udp->watch, NET_READ);
	if (udp->config.on_writable)
		udp->config.on_writable(udp->config.user, udp);
}
