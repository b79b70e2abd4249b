/*
 * wan - a bad link between two hosts of the lab: two TAP devices, one in each
 * network namespace, and this program between them (the kernels that tests run on
 * need not have netem). link.h says what befalls a packet on its way.
 *
 * The devices have no offloads: as on a real link, every packet is at most an MTU.
 * They are Ethernet to look at, so that nothing takes them for a tunnel; rates and
 * queues count the IP packets alone.
 *
 * One thread with both file descriptors. It reads whatever has come, sends whatever
 * is due, and sleeps until the next packet is due, in steps of --grain at least.
 */
#include "config.h" /* _GNU_SOURCE */
#include "base/base.h"
#include "link.h"
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S         UINT64_C(1000000000)
#define ETHERNET_BYTES   14
#define SLOT_BYTES       2048
#define MTU_MAX          (SLOT_BYTES - ETHERNET_BYTES)
#define PACKETS_DEFAULT  65536 /* per direction; touched only as far as they are used */
#define PACKETS_MAX      (1u << 20)
#define READ_BURST       256
#define GRAIN_DEFAULT_US 50
#define DEVICE_QUEUE     10000 /* packets that wait for this program while it does not run */

struct end {
	const char *netns, *name;
	int fd;
};

/* Packets are kept in slots; a stack of free ones reuses what is warm. */
struct direction {
	struct link_direction link;
	struct link_heap heap;
	uint8_t *slots;
	uint16_t *bytes; /* of each slot */
	uint8_t *copies; /* of each slot, still on their way */
	uint32_t *free;
	size_t n_free, n_slots;
	uint64_t dropped_memory, dropped_output, late_max_ns;
	int in, out;
};

struct options {
	struct end end[2];
	struct link_config link[2];
	unsigned mtu, packets, grain_us;
	bool realtime;
};

static volatile sig_atomic_t ended, asked;

static void on_signal(int number)
{
	if (number == SIGUSR1)
		asked = 1;
	else
		ended = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- devices ----------------------------------------------------------------------------- */

static int fail(const char *what, const char *which)
{
	fprintf(stderr, "wan: %s %s: %s\n", what, which, strerror(errno));
	return -1;
}

static int set_up_interface(const char *name, unsigned mtu)
{
	struct ifreq request = { 0 };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = -1;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0)
		return -1;
	request.ifr_mtu = (int)mtu;
	if (ioctl(fd, SIOCSIFMTU, &request) < 0)
		goto out;
	request.ifr_qlen = DEVICE_QUEUE;
	if (ioctl(fd, SIOCSIFTXQLEN, &request) < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		goto out;
	request.ifr_flags |= IFF_UP;
	r = ioctl(fd, SIOCSIFFLAGS, &request);
out:
	close(fd);
	return r;
}

/* A TAP device belongs to the namespace in which /dev/net/tun was opened. */
static int open_end(struct end *e, unsigned mtu)
{
	struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL) };
	_cleanup_(closep) int ns = open(e->netns, O_RDONLY | O_CLOEXEC);

	if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
		return fail("network namespace", e->netns);
	e->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (e->fd < 0)
		return fail("cannot open", "/dev/net/tun");
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", e->name);
	if (ioctl(e->fd, TUNSETIFF, &request) < 0 || ioctl(e->fd, TUNSETOFFLOAD, 0) < 0 ||
	    set_up_interface(e->name, mtu) < 0)
		return fail("cannot make interface", e->name);
	return 0;
}

/* ---- packets ----------------------------------------------------------------------------- */

static void *lazy_memory(size_t bytes)
{
	void *const p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int direction_init(struct direction *d, const struct link_config *config, unsigned stream,
			  size_t packets)
{
	*d = (struct direction){ .n_slots = packets, .n_free = packets };
	link_init(&d->link, config, stream);
	d->slots = lazy_memory(packets * SLOT_BYTES);
	d->bytes = calloc(packets, sizeof(*d->bytes));
	d->copies = calloc(packets, sizeof(*d->copies));
	d->free = calloc(packets, sizeof(*d->free));
	if (!d->slots || !d->bytes || !d->copies || !d->free ||
	    link_heap_init(&d->heap, packets * LINK_COPIES) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < packets; i++)
		d->free[i] = (uint32_t)(packets - 1 - i);
	return 0;
}

static void direction_fini(struct direction *d)
{
	link_heap_fini(&d->heap);
	if (d->slots)
		munmap(d->slots, d->n_slots * SLOT_BYTES);
	free(d->bytes);
	free(d->copies);
	free(d->free);
}

/* With no room left a packet is read and forgotten: it must not wait in the device. */
static void discard_packet(struct direction *d)
{
	uint8_t scratch[SLOT_BYTES];

	if (read(d->in, scratch, sizeof(scratch)) > 0)
		d->dropped_memory++;
}

/* Reads one packet and decides its fate. False: there is none. */
static bool take_packet(struct direction *d)
{
	uint64_t out_ns[LINK_COPIES];
	uint32_t slot;
	ssize_t n;
	unsigned copies;

	if (d->n_free == 0) {
		discard_packet(d);
		return false;
	}
	slot = d->free[d->n_free - 1];
	n = read(d->in, d->slots + (size_t)slot * SLOT_BYTES, SLOT_BYTES);
	if (n <= ETHERNET_BYTES)
		return n > 0;
	copies = link_offer(&d->link, (size_t)n - ETHERNET_BYTES, now_ns(), out_ns);
	if (copies == 0)
		return true;
	d->n_free--;
	d->bytes[slot] = (uint16_t)n;
	d->copies[slot] = (uint8_t)copies;
	for (unsigned i = 0; i < copies; i++)
		link_heap_push(&d->heap, out_ns[i], slot); /* never full: made for all copies */
	return true;
}

static void send_due(struct direction *d, uint64_t until_ns)
{
	while (link_heap_next_ns(&d->heap) <= until_ns) {
		const uint64_t late_ns = until_ns - link_heap_next_ns(&d->heap);
		const uint32_t slot = link_heap_pop(&d->heap);

		if (late_ns > d->late_max_ns)
			d->late_max_ns = late_ns;
		if (write(d->out, d->slots + (size_t)slot * SLOT_BYTES, d->bytes[slot]) < 0)
			d->dropped_output++;
		if (--d->copies[slot] == 0)
			d->free[d->n_free++] = slot;
	}
}

static void print_direction(const struct direction *d, const char *name)
{
	const struct link_counters *const n = &d->link.counters;

	printf("\"%s\": {\"in_packets\": %" PRIu64 ", \"in_bytes\": %" PRIu64
	       ", \"out_packets\": %" PRIu64 ", \"out_bytes\": %" PRIu64
	       ", \"dropped_queue\": %" PRIu64 ", \"dropped_loss\": %" PRIu64
	       ", \"dropped_burst\": %" PRIu64 ", \"dropped_memory\": %" PRIu64
	       ", \"dropped_output\": %" PRIu64 ", \"duplicated\": %" PRIu64
	       ", \"held_back\": %" PRIu64 ", \"queue_max_ms\": %.3f, \"queue_max_bytes\": %" PRIu64
	       ", \"late_max_ms\": %.3f, \"on_the_way\": %zu}",
	       name, n->in_packets, n->in_bytes, n->out_packets, n->out_bytes, n->dropped_queue,
	       n->dropped_loss, n->dropped_burst, d->dropped_memory, d->dropped_output,
	       n->duplicated, n->held_back, (double)n->queue_max_ns / 1e6, n->queue_max_bytes,
	       (double)d->late_max_ns / 1e6, d->heap.n);
}

static void print_counters(const struct direction d[2])
{
	printf("{");
	print_direction(&d[0], "ab");
	printf(", ");
	print_direction(&d[1], "ba");
	printf("}\n");
	fflush(stdout);
}

/* ---- the loop ---------------------------------------------------------------------------- */

static void sleep_until(uint64_t until_ns)
{
	const struct timespec t = { .tv_sec = (time_t)(until_ns / NS_PER_S),
				    .tv_nsec = (long)(until_ns % NS_PER_S) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* Until a packet comes or one is due; signals are let in only here. */
static void wait_for_work(const struct direction d[2], const sigset_t *open)
{
	struct pollfd fds[2] = { { .fd = d[0].in, .events = POLLIN },
				 { .fd = d[1].in, .events = POLLIN } };
	const uint64_t next_ns =
		min_u64(link_heap_next_ns(&d[0].heap), link_heap_next_ns(&d[1].heap));
	const uint64_t at_ns = now_ns();
	const uint64_t rest_ns = next_ns > at_ns ? next_ns - at_ns : 0;
	const struct timespec limit = { .tv_sec = (time_t)(rest_ns / NS_PER_S),
					.tv_nsec = (long)(rest_ns % NS_PER_S) };

	ppoll(fds, 2, next_ns == LINK_NEVER_NS ? NULL : &limit, open);
}

static void forward(struct direction d[2], uint64_t grain_ns, const sigset_t *open)
{
	uint64_t awake_ns = 0;

	while (!ended) {
		if (asked) {
			asked = 0;
			print_counters(d);
		}
		wait_for_work(d, open);
		if (now_ns() < awake_ns + grain_ns)
			sleep_until(awake_ns + grain_ns);
		awake_ns = now_ns();
		for (int i = 0; i < 2; i++)
			for (int n = 0; n < READ_BURST && take_packet(&d[i]); n++)
				;
		for (int i = 0; i < 2; i++)
			send_due(&d[i], now_ns());
	}
}

static void be_punctual(bool realtime)
{
	const struct sched_param first = { .sched_priority = 1 };

	prctl(PR_SET_TIMERSLACK, 1);
	if (realtime && sched_setscheduler(0, SCHED_RR, &first) < 0)
		fprintf(stderr,
			"wan: no real-time priority (%s); a loaded machine will add delay\n",
			strerror(errno));
}

/* ---- options ----------------------------------------------------------------------------- */

static int usage(FILE *to)
{
	fprintf(to,
		"usage: wan [OPTION...] NETNS-A NAME-A NETNS-B NAME-B [LINK-OPTION...]\n"
		"Joins two network namespaces (files such as /proc/PID/ns/net) by an emulated "
		"link.\n"
		"Prints \"ready\", and its counters as JSON at SIGUSR1 and when it ends.\n\n"
		"  --mtu N          of both interfaces, at most %d (1500)\n"
		"  --packets N      that may be on their way, in each direction (%d)\n"
		"  --grain US       shortest time between two wake-ups, which rounds times up "
		"(%d)\n"
		"  --no-realtime    do not ask for a real-time priority\n\n"
		"Link options, for both directions, or for one with \"ab.\" or \"ba.\" before "
		"them:\n%s",
		MTU_MAX, PACKETS_DEFAULT, GRAIN_DEFAULT_US, link_options_help);
	return to == stderr ? 2 : 0;
}

static bool read_number(const char *name, const char *text, unsigned min, unsigned max,
			unsigned *ret)
{
	char *end;
	const unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end != '\0' || *text == '-' || value < min || value > max) {
		fprintf(stderr, "wan: --%s takes a number from %u to %u, not \"%s\"\n", name, min,
			max, text);
		return false;
	}
	*ret = (unsigned)value;
	return true;
}

static int read_link_options(char *const *at, struct link_config pair[2])
{
	char error[160];

	for (; *at; at++)
		if (link_option(pair, *at, error, sizeof(error)) < 0)
			goto bad;
	for (int i = 0; i < 2; i++)
		if (link_config_check(&pair[i], error, sizeof(error)) < 0)
			goto bad;
	return 0;
bad:
	fprintf(stderr, "wan: %s\n", error);
	return -1;
}

/* 0; positive: end with that code less one. */
static int read_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = { { "mtu", required_argument, NULL, 'm' },
					       { "packets", required_argument, NULL, 'p' },
					       { "grain", required_argument, NULL, 'g' },
					       { "no-realtime", no_argument, NULL, 'n' },
					       { "help", no_argument, NULL, 'h' },
					       { 0 } };
	int c;
	bool good = true;

	while (good && (c = getopt_long(argc, argv, "+h", longs, NULL)) != -1) {
		if (c == 'm')
			good = read_number("mtu", optarg, 576, MTU_MAX, &o->mtu);
		else if (c == 'p')
			good = read_number("packets", optarg, 16, PACKETS_MAX, &o->packets);
		else if (c == 'g')
			good = read_number("grain", optarg, 0, 10000, &o->grain_us);
		else if (c == 'n')
			o->realtime = false;
		else
			return usage(c == 'h' ? stdout : stderr) + 1;
	}
	if (!good)
		return 3;
	if (argc - optind < 4)
		return usage(stderr) + 1;
	for (int i = 0; i < 2; i++) {
		o->end[i].netns = argv[optind++];
		o->end[i].name = argv[optind++];
		if (strlen(o->end[i].name) >= IFNAMSIZ) {
			fprintf(stderr, "wan: \"%s\" is too long for an interface\n",
				o->end[i].name);
			return 3;
		}
	}
	return read_link_options(argv + optind, o->link) < 0 ? 3 : 0;
}

/* Signals come in only while waiting, so that none is missed between a look and a sleep. */
static void catch_signals(sigset_t *ret_open)
{
	const struct sigaction action = { .sa_handler = on_signal };
	sigset_t caught;

	sigemptyset(&caught);
	sigaddset(&caught, SIGUSR1);
	sigaddset(&caught, SIGINT);
	sigaddset(&caught, SIGTERM);
	sigprocmask(SIG_BLOCK, &caught, ret_open);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigdelset(ret_open, SIGUSR1);
	sigdelset(ret_open, SIGINT);
	sigdelset(ret_open, SIGTERM);
}

int main(int argc, char **argv)
{
	struct options o = { .mtu = 1500,
			     .packets = PACKETS_DEFAULT,
			     .grain_us = GRAIN_DEFAULT_US,
			     .realtime = true };
	struct direction d[2];
	sigset_t open;
	int r, out_of_memory;

	link_config_init(&o.link[0]);
	link_config_init(&o.link[1]);
	r = read_options(argc, argv, &o);
	if (r > 0)
		return r - 1;
	catch_signals(&open);
	if (open_end(&o.end[0], o.mtu) < 0 || open_end(&o.end[1], o.mtu) < 0)
		return 1;
	out_of_memory = direction_init(&d[0], &o.link[0], 0, o.packets) < 0;
	out_of_memory |= direction_init(&d[1], &o.link[1], 1, o.packets) < 0;
	if (out_of_memory) {
		fprintf(stderr, "wan: not enough memory for %u packets\n", o.packets);
		return 1;
	}
	for (int i = 0; i < 2; i++) {
		d[i].in = o.end[i].fd;
		d[i].out = o.end[!i].fd;
	}
	be_punctual(o.realtime);
	printf("ready\n");
	fflush(stdout);
	forward(d, (uint64_t)o.grain_us * 1000, &open);
	print_counters(d);
	direction_fini(&d[0]);
	direction_fini(&d[1]);
	return 0;
}
