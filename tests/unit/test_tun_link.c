/*
 * Real devices in network namespaces of their own: two kernels' ends of one
 * link, with this program as the tunnel between. Each end shows the other under
 * an IPv4 address of its own choice. Needs root.
 */
#include "config.h" /* _GNU_SOURCE */

#include "unit.h"
#include "tun/tun.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define PORT       7777
#define BULK_BYTES (3u << 20)

struct side {
	int namespace_fd, tun_fd;
	uint32_t features;
	struct tun_addresses shown;
	char name[TUN_NAME_BYTES];
};

static struct side side[2];
static uint32_t features_there; /* what the receiving device is taken to do */
static unsigned n_super, n_refused, n_carried;
static const char *why_not;

/* On the wire: 100.64.0.1 and 100.64.0.2; each side sees the other elsewhere. */
static const struct tun_addresses canonical[2] = {
	{ .own4 = { 100, 64, 0, 1 },
	  .peer4 = { 100, 64, 0, 2 },
	  .own6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 1 },
	  .peer6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 2 } },
	{ .own4 = { 100, 64, 0, 2 },
	  .peer4 = { 100, 64, 0, 1 },
	  .own6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 2 },
	  .peer6 = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e, [15] = 1 } },
};

static void enter(const struct side *s)
{
	assert_int_equal(setns(s->namespace_fd, CLONE_NEWNET), 0);
}

static bool new_namespace(struct side *s)
{
	struct ifreq loopback = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	_cleanup_(closep) int fd = -1;

	if (unshare(CLONE_NEWNET) < 0)
		return false;
	s->namespace_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return s->namespace_fd >= 0 && fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &loopback) == 0;
}

static int make_device(struct side *s, const struct tun_addresses *addresses)
{
	struct tun_link_config config = {
		.name = s->name, .alias = "peer@b.test", .addresses = *addresses, .mtu = TUN_MTU
	};
	uint32_t ifindex = 0, families = 0;
	int r = tun_device_open("q2q-peer", s->name, &s->features, &s->tun_fd);

	if (r == 0)
		r = tun_link_setup(&config, &ifindex, &families);
	s->features |= families;
	return r;
}

static int make_both(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		side[i].tun_fd = -1;
		side[i].shown = canonical[i];
		side[i].shown.peer4[1] = (uint8_t)(100 + i);
		if (!new_namespace(&side[i])) {
			why_not = "network namespaces need root";
			return 0;
		}
		if (access("/dev/net/tun", R_OK | W_OK) < 0) {
			why_not = "there is no /dev/net/tun";
			return 0;
		}
		if (make_device(&side[i], &side[i].shown) < 0)
			return -1;
	}
	return 0;
}

static int close_both(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		closep(&side[i].tun_fd);
		closep(&side[i].namespace_fd);
	}
	return 0;
}

static void need_namespaces(void)
{
	if (why_not) {
		print_message("# SKIP %s\n", why_not);
		skip();
	}
}

/* ---- the tunnel between ------------------------------------------------------------------ */

static void deliver(unsigned to, struct tun_packet *p)
{
	static uint8_t frame[TUN_FRAME_BYTES];
	const uint32_t features = features_there & side[to].features;
	struct tun_segments segments;
	size_t n_bytes;

	if (tun_packet_fits(p, features)) {
		tun_packet_vnet(p, frame);
		memcpy(frame + TUN_VNET_BYTES, p->data, p->data_bytes);
		assert_int_equal(tun_device_write(side[to].tun_fd, side[to].features, frame,
						  TUN_VNET_BYTES + p->data_bytes),
				 0);
		return;
	}
	memset(frame, 0, TUN_VNET_BYTES);
	tun_segments_init(&segments, p);
	while ((n_bytes = tun_segments_next(&segments, frame + TUN_VNET_BYTES,
					    sizeof(frame) - TUN_VNET_BYTES)) > 0) {
		assert_true(n_bytes <= TUN_MTU);
		assert_int_equal(tun_device_write(side[to].tun_fd, side[to].features, frame,
						  TUN_VNET_BYTES + n_bytes),
				 0);
	}
}

/* As session does it: kernel, check, translate, message; there: check, translate, kernel. */
static bool carry(unsigned from)
{
	static uint8_t frame[TUN_FRAME_BYTES], message[TUN_FRAME_BYTES];
	const unsigned to = !from;
	struct tun_packet p, q;
	const int n = tun_device_read(side[from].tun_fd, side[from].features, frame, sizeof(frame));
	size_t header;

	if (n == -EAGAIN)
		return false;
	assert_true(n > 0);
	if (tun_packet_parse_frame(frame, (size_t)n, &p) != 0 ||
	    tun_packet_check(&p, &side[from].shown, TUN_TO_PEER) != 0) {
		n_refused++;
		return true;
	}
	n_carried++;
	n_super += p.gso != TUN_GSO_NONE;
	tun_packet_translate(&p, &side[from].shown, &canonical[from]);
	header = tun_packet_message_header(&p, message);
	memcpy(message + header, p.data, p.data_bytes);

	assert_int_equal(tun_packet_parse_message(message, header + p.data_bytes, &q), 0);
	assert_int_equal(tun_packet_check(&q, &canonical[to], TUN_FROM_PEER), 0);
	tun_packet_translate(&q, &canonical[to], &side[to].shown);
	deliver(to, &q);
	return true;
}

static void carry_all(void)
{
	for (bool more = true; more;) {
		more = carry(0);
		more |= carry(1);
	}
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Carries packets until the socket is ready; false after five seconds. */
static bool carry_until(int fd, short events)
{
	const uint64_t end_ms = now_ms() + 5000;

	while (now_ms() < end_ms) {
		struct pollfd fds[] = { { .fd = fd, .events = events },
					{ .fd = side[0].tun_fd, .events = POLLIN },
					{ .fd = side[1].tun_fd, .events = POLLIN } };

		carry_all();
		if (poll(fds, 1, 0) > 0)
			return true;
		poll(fds, 3, 50);
	}
	return false;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static socklen_t address_of(int family, unsigned whose, bool own, struct sockaddr_storage *ret)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
	const struct tun_addresses *a = &side[whose].shown;

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		in4->sin_port = htons(PORT);
		memcpy(&in4->sin_addr, own ? a->own4 : a->peer4, 4);
		return sizeof(*in4);
	}
	in6->sin6_port = htons(PORT);
	memcpy(&in6->sin6_addr, own ? a->own6 : a->peer6, 16);
	return sizeof(*in6);
}

static int new_socket(int family, int type, unsigned where)
{
	int fd;

	enter(&side[where]);
	fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	return fd;
}

static int bound(int family, int type)
{
	struct sockaddr_storage own;
	const socklen_t n = address_of(family, 1, true, &own);
	const int fd = new_socket(family, type, 1), one = 1;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&own, n), 0);
	return fd;
}

static int connecting(int family, int type)
{
	struct sockaddr_storage peer;
	const socklen_t n = address_of(family, 0, false, &peer);
	const int fd = new_socket(family, type, 0);
	const int r = connect(fd, (struct sockaddr *)&peer, n);

	assert_true(r == 0 || errno == EINPROGRESS);
	return fd;
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + i / 251);
}

/* ---- tests --------------------------------------------------------------------------------------
 */

/* A TCP connection through both kernels, and every byte arrives. */
static void bulk(int family)
{
	static uint8_t data[BULK_BYTES], got[65536];
	_cleanup_(closep) int listener = bound(family, SOCK_STREAM);
	_cleanup_(closep) int out = -1, in = -1;
	size_t sent = 0, received = 0;
	ssize_t n;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = pattern(i);
	assert_int_equal(listen(listener, 1), 0);
	out = connecting(family, SOCK_STREAM);
	assert_true(carry_until(listener, POLLIN));
	in = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(in >= 0);
	while (received < sizeof(data)) {
		if (sent < sizeof(data)) {
			n = send(out, data + sent, sizeof(data) - sent, MSG_NOSIGNAL);
			assert_true(n >= 0 || errno == EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
		}
		assert_true(carry_until(in, POLLIN));
		while ((n = recv(in, got, sizeof(got), 0)) > 0) {
			assert_memory_equal(got, data + received, (size_t)n);
			received += (size_t)n;
		}
		assert_true(n < 0 && errno == EAGAIN);
	}
	close(out);
	out = -1;
	assert_true(carry_until(in, POLLIN));
	assert_int_equal(recv(in, got, sizeof(got), 0), 0);
}

static void tcp_passes_in_super_packets(void **state)
{
	(void)state;
	need_namespaces();
	features_there = UINT32_MAX;
	n_super = 0;
	bulk(AF_INET);
	if (side[0].features & TUN_FEATURE_TSO4)
		assert_true(n_super > 10);
	n_super = 0;
	bulk(AF_INET6);
	if (side[0].features & TUN_FEATURE_TSO6)
		assert_true(n_super > 10);
}

static void tcp_passes_to_a_device_without_offloads(void **state)
{
	(void)state;
	need_namespaces();
	features_there = 0;
	bulk(AF_INET);
	bulk(AF_INET6);
}

static void udp(int family, int segment_bytes)
{
	static const uint8_t data[9000] = { 1, 2, 3 };
	_cleanup_(closep) int in = bound(family, SOCK_DGRAM), out = connecting(family, SOCK_DGRAM);
	uint8_t got[sizeof(data)];
	size_t received = 0;

	if (segment_bytes > 0 &&
	    setsockopt(out, IPPROTO_UDP, UDP_SEGMENT, &segment_bytes, sizeof(segment_bytes)) < 0)
		return;
	assert_int_equal(send(out, data, sizeof(data), 0), sizeof(data));
	while (received < sizeof(data)) {
		assert_true(carry_until(in, POLLIN));
		const ssize_t n = recv(in, got, sizeof(got), 0);

		assert_int_equal(n, segment_bytes > 0 ? min_size(sizeof(data) - received,
								 (size_t)segment_bytes)
						      : sizeof(data));
		assert_memory_equal(got, data + received, (size_t)n);
		received += (size_t)n;
	}
}

static void udp_passes_in_fragments_and_in_super_packets(void **state)
{
	(void)state;
	need_namespaces();
	for (unsigned i = 0; i < 2; i++) {
		features_there = i ? UINT32_MAX : 0;
		n_super = 0;
		udp(AF_INET, 0); /* larger than the MTU: the kernel makes fragments */
		udp(AF_INET6, 0);
		assert_int_equal(n_super, 0);
		udp(AF_INET, 1000);
		udp(AF_INET6, 1000);
		if (side[0].features & TUN_FEATURE_USO)
			assert_int_equal(n_super, 2);
	}
}

/* The error quotes our packet under the other side's names for us; it must find its way. */
static void an_icmp_error_finds_the_socket_it_is_about(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };

	(void)state;
	need_namespaces();
	features_there = UINT32_MAX;
	for (size_t i = 0; i < 2; i++) {
		_cleanup_(closep) int out = connecting(families[i], SOCK_DGRAM);
		char byte;

		assert_int_equal(send(out, "x", 1, 0), 1); /* nobody listens there */
		assert_true(carry_until(out, POLLIN | POLLERR));
		assert_int_equal(recv(out, &byte, 1, 0), -1);
		assert_int_equal(errno, ECONNREFUSED);
	}
}

static void a_kernel_says_nothing_on_an_idle_link(void **state)
{
	struct pollfd fds[] = { { .fd = side[0].tun_fd, .events = POLLIN },
				{ .fd = side[1].tun_fd, .events = POLLIN } };

	(void)state;
	need_namespaces();
	carry_all();
	n_carried = 0;
	poll(fds, 2, 300); /* multicast listener reports at most: no business of the peer */
	carry_all();
	assert_int_equal(n_carried, 0);
}

static void foreign_packets_stay_here(void **state)
{
	_cleanup_(closep) int out = -1;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PORT) };

	(void)state;
	need_namespaces();
	carry_all();
	n_refused = n_carried = 0;
	out = new_socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(setsockopt(out, SOL_SOCKET, SO_BINDTODEVICE, side[0].name,
				    (socklen_t)strlen(side[0].name) + 1),
			 0);
	/* another address through the same device: multicast */
	to.sin_addr.s_addr = htonl(0xe00000fb);
	struct ip_mreqn through = { .imr_ifindex = (int)if_nametoindex(side[0].name) };

	assert_int_equal(setsockopt(out, IPPROTO_IP, IP_MULTICAST_IF, &through, sizeof(through)),
			 0);
	assert_int_equal(sendto(out, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
	carry_all();
	assert_true(n_refused >= 1);
	assert_int_equal(n_carried, 0);
}

static void names_are_made_unique_and_devices_end_with_their_descriptor(void **state)
{
	char first[TUN_NAME_BYTES], second[TUN_NAME_BYTES], tap[TUN_NAME_BYTES];
	struct ifreq request = { .ifr_name = "q2q-tap", .ifr_flags = IFF_TAP | IFF_NO_PI };
	uint32_t features;
	int a = -1, b = -1;

	(void)state;
	need_namespaces();
	enter(&side[0]);
	assert_int_equal(tun_device_open("q2q-averylongre", first, &features, &a), 0);
	assert_string_equal(first, "q2q-averylongre");
	assert_true(features & TUN_FEATURE_VNET);
	assert_int_equal(tun_device_open("q2q-averylongre", second, &features, &b), 0);
	assert_string_equal(second, "q2q-averylong-2");
	closep(&a);
	assert_int_equal(if_nametoindex(first), 0);
	assert_true(if_nametoindex(second) > 0);
	closep(&b);
	assert_int_equal(if_nametoindex(second), 0);

	/* the name of a device of another kind is taken too */
	a = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	assert_int_equal(ioctl(a, TUNSETIFF, &request), 0);
	assert_int_equal(tun_device_open("q2q-tap", tap, &features, &b), 0);
	assert_string_equal(tap, "q2q-tap-2");
	closep(&a);
	closep(&b);
	assert_int_equal(tun_device_open("eth0", first, &features, &a), -EINVAL);
}

static void a_device_that_is_gone_says_so(void **state)
{
	struct side lone = { .tun_fd = -1 };
	struct tun_addresses addresses = canonical[0];
	struct ifreq request = { 0 };
	uint8_t frame[2048] = { 0 };
	_cleanup_(closep) int control = -1;

	(void)state;
	need_namespaces();
	enter(&side[0]);
	addresses.peer4[3] = 9;
	addresses.peer6[15] = 9;
	assert_int_equal(make_device(&lone, &addresses), 0);
	assert_int_equal(tun_device_read(lone.tun_fd, lone.features, frame, sizeof(frame)),
			 -EAGAIN);
	assert_int_equal(tun_device_write(lone.tun_fd, lone.features, frame, TUN_VNET_BYTES),
			 -EINVAL);
	control = new_socket(AF_INET, SOCK_DGRAM, 0);
	memcpy(request.ifr_name, lone.name, TUN_NAME_BYTES);
	assert_int_equal(ioctl(control, SIOCSIFFLAGS, &request), 0); /* down */
	frame[TUN_VNET_BYTES] = 0x45;
	assert_int_equal(tun_device_write(lone.tun_fd, lone.features, frame, TUN_VNET_BYTES + 40),
			 -EIO);
	closep(&lone.tun_fd);
}

static void taken_addresses_are_known(void **state)
{
	const uint8_t own[] = { 100, 64, 0, 1 }, peer[] = { 100, 100, 0, 2 },
		      free_one[] = { 100, 77, 7, 7 };

	(void)state;
	need_namespaces();
	enter(&side[0]);
	assert_int_equal(tun_route_taken4(own), 1);
	assert_int_equal(tun_route_taken4(peer), 1);
	assert_int_equal(tun_route_taken4(free_one), 0);
}

static void a_link_needs_an_address(void **state)
{
	struct side lone = { .tun_fd = -1 };
	const struct tun_addresses none = { 0 };

	(void)state;
	need_namespaces();
	enter(&side[0]);
	assert_int_equal(make_device(&lone, &none), -EADDRNOTAVAIL);
	closep(&lone.tun_fd);
	lone.tun_fd = -1;

	/* one family alone will do */
	struct tun_addresses only4 = { .own4 = { 100, 64, 0, 1 }, .peer4 = { 100, 64, 0, 77 } };
	assert_int_equal(make_device(&lone, &only4), 0);
	assert_int_equal(lone.features & (TUN_FEATURE_IP4 | TUN_FEATURE_IP6), TUN_FEATURE_IP4);
	closep(&lone.tun_fd);
}

/* Hardened machines switch IPv6 off; the IPv4 half must work there. */
static void without_ipv6_a_link_has_ipv4(void **state)
{
	struct side lone = { .tun_fd = -1 };
	struct tun_addresses only6 = canonical[0];
	_cleanup_(closep) int fd = -1;

	(void)state;
	need_namespaces();
	assert_true(new_namespace(&lone));
	fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		skip(); /* no IPv6 to switch off, or /proc/sys is read-only */
	assert_int_equal(make_device(&lone, &canonical[0]), 0);
	assert_int_equal(lone.features & (TUN_FEATURE_IP4 | TUN_FEATURE_IP6), TUN_FEATURE_IP4);
	closep(&lone.tun_fd);
	lone.tun_fd = -1;
	memset(only6.own4, 0, 4);
	memset(only6.peer4, 0, 4);
	assert_true(make_device(&lone, &only6) < 0);
	closep(&lone.tun_fd);
	closep(&lone.namespace_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tcp_passes_in_super_packets),
		cmocka_unit_test(tcp_passes_to_a_device_without_offloads),
		cmocka_unit_test(udp_passes_in_fragments_and_in_super_packets),
		cmocka_unit_test(an_icmp_error_finds_the_socket_it_is_about),
		cmocka_unit_test(a_kernel_says_nothing_on_an_idle_link),
		cmocka_unit_test(foreign_packets_stay_here),
		cmocka_unit_test(names_are_made_unique_and_devices_end_with_their_descriptor),
		cmocka_unit_test(a_device_that_is_gone_says_so),
		cmocka_unit_test(taken_addresses_are_known),
		cmocka_unit_test(a_link_needs_an_address),
		cmocka_unit_test(without_ipv6_a_link_has_ipv4),
	};

	return cmocka_run_group_tests_name("tun_link", tests, make_both, close_both);
}
