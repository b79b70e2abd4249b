/*
 * null_tunnel - the fastest way through user space that we know, as a baseline.
 *
 * It does what a tunnel must do with packets, and nothing else: no handshake, no
 * acknowledgement, no repair, no congestion control, no second peer. One thread.
 *
 * A super-packet of up to 64 KiB is read from the TUN device straight into the
 * datagrams that carry it (readv leaves gaps for headers and tags), leaves in one
 * sendmsg with UDP_SEGMENT, arrives in one recvmmsg with UDP_GRO, and is written to
 * the other device from where it lies. With --aead each datagram is sealed and opened
 * in place by AES-256-GCM, under a fixed key: this is a yardstick, nothing to send
 * secrets through.
 *
 * Datagram: packet number u32 | fragment u16 | fragments u16 | bytes | tag of 16 bytes,
 * if sealed. The first eight bytes are authenticated, and the nonce.
 */
#include "config.h" /* _GNU_SOURCE */
#include "base/base.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef HAVE_IPSEC_MB
#include <intel-ipsec-mb.h>
#endif

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define DATAGRAM_BYTES  1400
#define HEADER_BYTES    8
#define TAG_BYTES       16
#define NONCE_BYTES     12
#define KEY_BYTES       32
#define FRAME_MAX       (10 + 65535) /* with its virtio header */
#define PIECE_BYTES     (DATAGRAM_BYTES - HEADER_BYTES - TAG_BYTES)
#define PIECES_MAX      ((FRAME_MAX + PIECE_BYTES - 1) / PIECE_BYTES)
#define SEND_MAX        (65507 / DATAGRAM_BYTES) /* datagrams of one sendmsg, for full ones */
#define SEGMENTS_MAX    64                       /* the kernel's UDP_MAX_SEGMENTS */
#define READ_BURST      64
#define RECEIVE_BUFFERS 16
#define BUFFER_BYTES    65536
#define SOCKET_BUFFER   (8 << 20)

/* ---- sealing ----------------------------------------------------------------------------- */

enum aead { AEAD_NONE, AEAD_OPENSSL, AEAD_IPSEC_MB };

static const uint8_t fixed_key[KEY_BYTES] = "a yardstick, nothing for secrets";

static struct {
	enum aead kind;
	EVP_CIPHER_CTX *seal, *open;
#ifdef HAVE_IPSEC_MB
	IMB_MGR *mgr;
	struct gcm_key_data key;
	struct gcm_context_data context;
#endif
} aead;

static int aead_init_openssl(void)
{
	aead.seal = EVP_CIPHER_CTX_new();
	aead.open = EVP_CIPHER_CTX_new();
	return aead.seal && aead.open &&
			       EVP_EncryptInit_ex(aead.seal, EVP_aes_256_gcm(), NULL, fixed_key,
						  NULL) == 1 &&
			       EVP_DecryptInit_ex(aead.open, EVP_aes_256_gcm(), NULL, fixed_key,
						  NULL) == 1
		       ? 0
		       : -1;
}

#ifdef HAVE_IPSEC_MB
static int aead_init_ipsec_mb(void)
{
	aead.mgr = alloc_mb_mgr(0);
	if (!aead.mgr)
		return -1;
	init_mb_mgr_auto(aead.mgr, NULL);
	IMB_AES256_GCM_PRE(aead.mgr, fixed_key, &aead.key);
	return 0;
}
#endif

static int aead_init(const char *name)
{
	if (strcmp(name, "none") == 0)
		return 0;
	if (strcmp(name, "openssl") == 0) {
		aead.kind = AEAD_OPENSSL;
		return aead_init_openssl();
	}
#ifdef HAVE_IPSEC_MB
	if (strcmp(name, "ipsec-mb") == 0) {
		aead.kind = AEAD_IPSEC_MB;
		return aead_init_ipsec_mb();
	}
#endif
	return -1;
}

static bool openssl_seal(uint8_t *datagram, int bytes, const uint8_t nonce[NONCE_BYTES])
{
	uint8_t *const text = datagram + HEADER_BYTES;
	int n;

	return EVP_EncryptInit_ex(aead.seal, NULL, NULL, NULL, nonce) == 1 &&
	       EVP_EncryptUpdate(aead.seal, NULL, &n, datagram, HEADER_BYTES) == 1 &&
	       EVP_EncryptUpdate(aead.seal, text, &n, text, bytes) == 1 &&
	       EVP_EncryptFinal_ex(aead.seal, text + n, &n) == 1 &&
	       EVP_CIPHER_CTX_ctrl(aead.seal, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, text + bytes) == 1;
}

static bool openssl_open(uint8_t *datagram, int bytes, const uint8_t nonce[NONCE_BYTES])
{
	uint8_t *const text = datagram + HEADER_BYTES;
	int n;

	return EVP_DecryptInit_ex(aead.open, NULL, NULL, NULL, nonce) == 1 &&
	       EVP_CIPHER_CTX_ctrl(aead.open, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, text + bytes) == 1 &&
	       EVP_DecryptUpdate(aead.open, NULL, &n, datagram, HEADER_BYTES) == 1 &&
	       EVP_DecryptUpdate(aead.open, text, &n, text, bytes) == 1 &&
	       EVP_DecryptFinal_ex(aead.open, text + n, &n) == 1;
}

static size_t tag_bytes(void)
{
	return aead.kind == AEAD_NONE ? 0 : TAG_BYTES;
}

/* Header and `bytes` of text, with room for a tag behind them. */
static bool seal(uint8_t *datagram, size_t bytes)
{
	uint8_t nonce[NONCE_BYTES] = { 0 };

	memcpy(nonce + 4, datagram, HEADER_BYTES);
	if (aead.kind == AEAD_OPENSSL)
		return openssl_seal(datagram, (int)bytes, nonce);
#ifdef HAVE_IPSEC_MB
	if (aead.kind == AEAD_IPSEC_MB) {
		uint8_t *const text = datagram + HEADER_BYTES;

		IMB_AES256_GCM_ENC(aead.mgr, &aead.key, &aead.context, text, text, bytes, nonce,
				   datagram, HEADER_BYTES, text + bytes, TAG_BYTES);
	}
#endif
	return true;
}

static bool unseal(uint8_t *datagram, size_t bytes)
{
	uint8_t nonce[NONCE_BYTES] = { 0 };

	memcpy(nonce + 4, datagram, HEADER_BYTES);
	if (aead.kind == AEAD_OPENSSL)
		return openssl_open(datagram, (int)bytes, nonce);
#ifdef HAVE_IPSEC_MB
	if (aead.kind == AEAD_IPSEC_MB) {
		uint8_t tag[TAG_BYTES], *const text = datagram + HEADER_BYTES;

		IMB_AES256_GCM_DEC(aead.mgr, &aead.key, &aead.context, text, text, bytes, nonce,
				   datagram, HEADER_BYTES, tag, TAG_BYTES);
		return memcmp(tag, text + bytes, TAG_BYTES) == 0;
	}
#endif
	return true;
}

/* ---- device and socket ------------------------------------------------------------------- */

static int open_device(const char *name)
{
	struct ifreq request = { .ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR |
						      (short)IFF_TUN_EXCL) };
	const unsigned tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
		return -1;
	if (ioctl(fd, TUNSETOFFLOAD, tso | TUN_F_USO4 | TUN_F_USO6) < 0 &&
	    ioctl(fd, TUNSETOFFLOAD, tso) < 0)
		return -1;
	return fd;
}

static bool read_endpoint(const char *text, struct sockaddr_in *ret)
{
	char address[INET_ADDRSTRLEN] = "", *end;
	const char *const colon = strchr(text, ':');

	if (!colon || (size_t)(colon - text) >= sizeof(address))
		return false;
	memcpy(address, text, (size_t)(colon - text));
	*ret = (struct sockaddr_in){ .sin_family = AF_INET };

	const unsigned long port = strtoul(colon + 1, &end, 10);

	ret->sin_port = htons((uint16_t)port);
	return *end == '\0' && port > 0 && port < 65536 &&
	       inet_pton(AF_INET, address, &ret->sin_addr) == 1;
}

static int open_socket(const struct sockaddr_in *local, const struct sockaddr_in *remote)
{
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	const int on = 1, bytes = SOCKET_BUFFER;

	if (fd < 0 || bind(fd, (const struct sockaddr *)local, sizeof(*local)) < 0 ||
	    connect(fd, (const struct sockaddr *)remote, sizeof(*remote)) < 0 ||
	    setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		return -1;
	return fd;
}

/* ---- from the device to the network -------------------------------------------------------- */

struct sender {
	int tun, udp;
	uint32_t number;
	uint8_t train[SEGMENTS_MAX + PIECES_MAX][DATAGRAM_BYTES];
	size_t n;              /* small datagrams of one size that wait for company */
	size_t datagram_bytes; /* of each of them */
};

/* Datagrams of one size, of which the last may be shorter, lie `stride` apart in memory. */
static void send_train(int udp, uint8_t (*train)[DATAGRAM_BYTES], size_t n, size_t each_bytes,
		       size_t last_bytes)
{
	struct iovec iov[SEGMENTS_MAX];
	union {
		char bytes[CMSG_SPACE(sizeof(uint16_t))];
		struct cmsghdr align;
	} control = { 0 };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };

	for (size_t i = 0; i < n; i++)
		iov[i] = (struct iovec){ train[i], i + 1 < n ? each_bytes : last_bytes };
	if (each_bytes == DATAGRAM_BYTES) { /* they lie one behind the other */
		iov[0].iov_len = (n - 1) * each_bytes + last_bytes;
		m.msg_iovlen = 1;
	}
	if (n > 1) {
		const uint16_t segment = (uint16_t)each_bytes;
		struct cmsghdr *c;

		m.msg_control = control.bytes;
		m.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_UDP;
		c->cmsg_type = UDP_SEGMENT;
		c->cmsg_len = CMSG_LEN(sizeof(segment));
		memcpy(CMSG_DATA(c), &segment, sizeof(segment));
	}
	/* A full buffer loses packets, as on any network. */
	(void)!sendmsg(udp, &m, 0);
}

static void flush(struct sender *s)
{
	if (s->n > 0)
		send_train(s->udp, s->train, s->n, s->datagram_bytes, s->datagram_bytes);
	s->n = 0;
}

static void put_header(uint8_t *datagram, uint32_t number, size_t piece, size_t pieces)
{
	const uint16_t two[2] = { (uint16_t)piece, (uint16_t)pieces };

	memcpy(datagram, &number, 4);
	memcpy(datagram + 4, two, 4);
}

/* A packet that needs several datagrams: they go at once. */
static void send_pieces(struct sender *s, uint8_t (*at)[DATAGRAM_BYTES], size_t pieces,
			size_t last_bytes)
{
	for (size_t sent = 0; sent < pieces;) {
		const size_t n = min_u64(pieces - sent, SEND_MAX);
		const bool last = sent + n == pieces;

		send_train(s->udp, at + sent, n, DATAGRAM_BYTES,
			   last ? last_bytes : DATAGRAM_BYTES);
		sent += n;
	}
}

/* The packet in the slots from s->n on. Small ones of one size wait to be sent together. */
static void send_packet(struct sender *s, size_t frame_bytes)
{
	const size_t piece_bytes = DATAGRAM_BYTES - HEADER_BYTES - tag_bytes();
	const size_t pieces = (frame_bytes + piece_bytes - 1) / piece_bytes;
	const size_t overhead = HEADER_BYTES + tag_bytes();
	size_t rest = frame_bytes - (pieces - 1) * piece_bytes;

	for (size_t i = 0; i < pieces; i++) {
		put_header(s->train[s->n + i], s->number, i, pieces);
		if (!seal(s->train[s->n + i], i + 1 < pieces ? piece_bytes : rest))
			return;
	}
	s->number++;
	rest += overhead;
	if (pieces > 1) {
		const size_t at = s->n;

		flush(s);
		send_pieces(s, s->train + at, pieces, rest);
		return;
	}
	if (s->n > 0 && rest != s->datagram_bytes) {
		const size_t at = s->n;

		flush(s);
		memcpy(s->train[0], s->train[at], rest);
	}
	s->datagram_bytes = rest;
	s->n++;
	if (s->n == SEGMENTS_MAX || (s->n + 1) * rest > 65507)
		flush(s);
}

static void from_device(struct sender *s)
{
	const size_t piece_bytes = DATAGRAM_BYTES - HEADER_BYTES - tag_bytes();
	struct iovec iov[PIECES_MAX];

	for (int burst = 0; burst < READ_BURST; burst++) {
		ssize_t n;

		for (size_t i = 0; i < PIECES_MAX; i++)
			iov[i] = (struct iovec){ s->train[s->n + i] + HEADER_BYTES, piece_bytes };
		n = readv(s->tun, iov, PIECES_MAX);
		if (n <= 0)
			break;
		send_packet(s, (size_t)n);
	}
	flush(s);
}

/* ---- from the network to the device -------------------------------------------------------- */

struct receiver {
	int tun, udp;
	struct iovec pieces[PIECES_MAX + 1];
	size_t n_pieces, next, count; /* `next` of `count` fragments is awaited; 0 of 0: none */
	uint32_t number;
	uint8_t partial[FRAME_MAX]; /* what came in an earlier batch of a packet */
	size_t partial_bytes;
	uint8_t buffers[RECEIVE_BUFFERS][BUFFER_BYTES];
};

static void forget_packet(struct receiver *r)
{
	r->n_pieces = r->next = r->count = r->partial_bytes = 0;
}

static void take_datagram(struct receiver *r, uint8_t *datagram, size_t bytes)
{
	uint32_t number;
	uint16_t two[2];

	if (bytes <= HEADER_BYTES + tag_bytes())
		return;
	bytes -= HEADER_BYTES + tag_bytes();
	if (!unseal(datagram, bytes))
		return;
	memcpy(&number, datagram, 4);
	memcpy(two, datagram + 4, 4);
	if (two[0] == 0) {
		forget_packet(r);
		r->number = number;
		r->count = two[1];
	}
	if (number != r->number || two[0] != r->next || two[1] != r->count ||
	    r->count > PIECES_MAX) {
		forget_packet(r);
		return;
	}
	r->pieces[r->n_pieces++] = (struct iovec){ datagram + HEADER_BYTES, bytes };
	if (++r->next == r->count) {
		(void)!writev(r->tun, r->pieces, (int)r->n_pieces);
		forget_packet(r);
	}
}

/* The buffers are about to be used again: what is there of a packet moves out. */
static void keep_partial(struct receiver *r)
{
	size_t bytes = r->partial_bytes;

	for (size_t i = bytes > 0; i < r->n_pieces; i++) {
		if (r->pieces[i].iov_len > sizeof(r->partial) - bytes) {
			forget_packet(r);
			return;
		}
		memcpy(r->partial + bytes, r->pieces[i].iov_base, r->pieces[i].iov_len);
		bytes += r->pieces[i].iov_len;
	}
	if (r->n_pieces == 0)
		return;
	r->partial_bytes = bytes;
	r->pieces[0] = (struct iovec){ r->partial, bytes };
	r->n_pieces = 1;
}

static size_t segment_bytes(struct msghdr *m, size_t whole)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			int n;

			memcpy(&n, CMSG_DATA(c), sizeof(n));
			return n > 0 ? (size_t)n : whole;
		}
	return whole;
}

static void from_network(struct receiver *r)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control[RECEIVE_BUFFERS];
	struct iovec iov[RECEIVE_BUFFERS];
	struct mmsghdr m[RECEIVE_BUFFERS] = { 0 };
	int n;

	for (int i = 0; i < RECEIVE_BUFFERS; i++) {
		iov[i] = (struct iovec){ r->buffers[i], BUFFER_BYTES };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i],
						.msg_iovlen = 1,
						.msg_control = control[i].bytes,
						.msg_controllen = sizeof(control[i].bytes) };
	}
	n = recvmmsg(r->udp, m, RECEIVE_BUFFERS, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		const size_t each = segment_bytes(&m[i].msg_hdr, m[i].msg_len);

		for (size_t at = 0; at < m[i].msg_len; at += each)
			take_datagram(r, r->buffers[i] + at, min_u64(each, m[i].msg_len - at));
	}
	keep_partial(r);
}

/* ---- main -------------------------------------------------------------------------------- */

static int usage(FILE *to)
{
	fprintf(to, "usage: null_tunnel [--aead none|openssl|ipsec-mb] INTERFACE LOCAL:PORT "
		    "REMOTE:PORT\n"
		    "Makes the TUN device and carries its packets. Prints \"ready\".\n");
	return to == stderr ? 2 : 0;
}

static void run(struct sender *s, struct receiver *r)
{
	struct pollfd fds[2] = { { .fd = s->tun, .events = POLLIN },
				 { .fd = r->udp, .events = POLLIN } };

	while (poll(fds, 2, -1) > 0) {
		if (fds[1].revents)
			from_network(r);
		if (fds[0].revents)
			from_device(s);
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "aead", required_argument, NULL, 'a' },
					       { "help", no_argument, NULL, 'h' },
					       { 0 } };
	static struct sender sender;
	static struct receiver receiver;
	struct sockaddr_in local, remote;
	const char *kind = "none";
	int c, tun, udp;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c != 'a')
			return usage(c == 'h' ? stdout : stderr);
		kind = optarg;
	}
	if (argc - optind != 3 || strlen(argv[optind]) >= IFNAMSIZ ||
	    !read_endpoint(argv[optind + 1], &local) || !read_endpoint(argv[optind + 2], &remote))
		return usage(stderr);
	if (aead_init(kind) < 0) {
		fprintf(stderr, "null_tunnel: no AEAD \"%s\" in this build\n", kind);
		return 77;
	}
	tun = open_device(argv[optind]);
	udp = tun < 0 ? -1 : open_socket(&local, &remote);
	if (udp < 0) {
		fprintf(stderr, "null_tunnel: %s: %s\n", tun < 0 ? argv[optind] : "socket",
			strerror(errno));
		return 1;
	}
	sender.tun = receiver.tun = tun;
	sender.udp = receiver.udp = udp;
	printf("ready\n");
	fflush(stdout);
	run(&sender, &receiver);
	return 1;
}
