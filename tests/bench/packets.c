/*
 * packets - a flow of UDP packets at a steady rate from one host of the lab to
 * another: how many arrive, and after what time. Both hosts are namespaces of one
 * machine, so one clock measures one-way delays.
 *
 * One system call sends one packet, as from many small flows; a packet carries its
 * number and the time when it was due. With --search it looks for the highest rate
 * at which no more than --max-loss is lost: doubling, then halving the interval.
 */
#include "config.h" /* _GNU_SOURCE */
#include "base/base.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S      UINT64_C(1000000000)
#define BYTES_MIN     16
#define BYTES_MAX     1400
#define RATE_MAX      4000000.0
#define PACKETS_MAX   (1u << 24)
#define TICK_NS       100000
#define LATE_NS       (NS_PER_S / 2) /* how long after the last one packets may still come */
#define SOCKET_BUFFER (4 << 20)
#define RECEIVE_BATCH 64
#define SEARCH_START  5000.0
#define SEARCH_STEPS  6 /* of halving an octave: to 1 % */

struct options {
	const char *from, *to;
	struct sockaddr_storage address; /* IPv4 or IPv6; the port is set */
	unsigned port, bytes;
	double rate, seconds, max_loss, within_ms;
	bool search;
};

struct result {
	uint64_t sent, received, doubled, within;
	double seconds; /* that sending took */
};

/* The receiver's notes, shared by the two processes: delay of each packet in ns, 0 if lost. */
struct notes {
	volatile uint32_t ended;
	uint64_t doubled;
	uint64_t delay_ns[];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static int socket_in(const char *netns, int family)
{
	_cleanup_(closep) int ns = open(netns, O_RDONLY | O_CLOEXEC);
	const int bytes = SOCKET_BUFFER;
	int fd;

	if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
		return -1;
	fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		return -1;
	return fd;
}

/* ---- receiving (the child) ------------------------------------------------------------------ */

static void note(struct notes *notes, const uint8_t *packet, uint64_t at_ns, uint64_t n_max)
{
	uint64_t number, due_ns;

	memcpy(&number, packet, 8);
	memcpy(&due_ns, packet + 8, 8);
	if (number >= n_max)
		return;
	if (notes->delay_ns[number])
		notes->doubled++;
	else
		notes->delay_ns[number] = at_ns > due_ns ? at_ns - due_ns : 1;
}

static void receive(int fd, struct notes *notes, uint64_t n_max)
{
	static uint8_t packets[RECEIVE_BATCH][BYTES_MAX];
	struct iovec iov[RECEIVE_BATCH];
	struct mmsghdr m[RECEIVE_BATCH] = { 0 };
	const struct timeval limit = { .tv_usec = 20000 };
	uint64_t last_ns = now_ns();

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	for (int i = 0; i < RECEIVE_BATCH; i++) {
		iov[i] = (struct iovec){ packets[i], BYTES_MAX };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	for (;;) {
		const int n = recvmmsg(fd, m, RECEIVE_BATCH, MSG_WAITFORONE, NULL);
		const uint64_t at_ns = now_ns();

		for (int i = 0; i < n; i++)
			if (m[i].msg_len >= BYTES_MIN)
				note(notes, packets[i], at_ns, n_max);
		if (n > 0 || !notes->ended)
			last_ns = at_ns;
		else if (at_ns - last_ns > LATE_NS)
			return;
	}
}

/* ---- sending ------------------------------------------------------------------------------- */

static void sleep_until(uint64_t until_ns)
{
	const struct timespec t = { .tv_sec = (time_t)(until_ns / NS_PER_S),
				    .tv_nsec = (long)(until_ns % NS_PER_S) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* Packets are due at equal distances; what became due while asleep goes out at once. */
static double send_all(int fd, const struct options *o, double rate, uint64_t n)
{
	const uint64_t start_ns = now_ns();
	uint8_t packet[BYTES_MAX] = { 0 };

	for (uint64_t i = 0; i < n; i++) {
		const uint64_t due_ns = start_ns + (uint64_t)((double)i / rate * 1e9);

		if (due_ns > now_ns())
			sleep_until(max_u64(due_ns, now_ns() + TICK_NS));
		memcpy(packet, &i, 8);
		memcpy(packet + 8, &due_ns, 8);
		(void)!send(fd, packet, o->bytes, 0);
	}
	return (double)(now_ns() - start_ns) / 1e9;
}

/* ---- one run ------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void count(const struct options *o, struct notes *notes, uint64_t n, struct result *ret)
{
	ret->doubled = notes->doubled;
	for (uint64_t i = 0; i < n; i++) {
		ret->received += notes->delay_ns[i] != 0;
		ret->within +=
			notes->delay_ns[i] != 0 && (double)notes->delay_ns[i] <= o->within_ms * 1e6;
	}
	/* The lost ones come first; the quantiles below are of those that arrived. */
	qsort(notes->delay_ns, n, sizeof(notes->delay_ns[0]), by_size);
}

static double loss(const struct result *r)
{
	return r->sent ? 1 - (double)r->received / (double)r->sent : 1;
}

static double quantile_ms(const struct notes *notes, const struct result *r, double share)
{
	const uint64_t at = (uint64_t)(share * (double)(r->received - 1));

	return r->received ? (double)notes->delay_ns[r->sent - r->received + at] / 1e6 : -1;
}

static int run(const struct options *o, double rate, struct notes *notes, struct result *ret)
{
	const uint64_t n = (uint64_t)ceil(rate * o->seconds);
	const struct sockaddr *const to = (const struct sockaddr *)&o->address;
	struct sockaddr_storage any = o->address;
	_cleanup_(closep) int in = socket_in(o->to, to->sa_family);
	_cleanup_(closep) int out = socket_in(o->from, to->sa_family);
	pid_t child;

	if (to->sa_family == AF_INET)
		((struct sockaddr_in *)&any)->sin_addr.s_addr = INADDR_ANY;
	else
		((struct sockaddr_in6 *)&any)->sin6_addr = in6addr_any;
	if (in < 0 || out < 0 || bind(in, (struct sockaddr *)&any, sizeof(any)) < 0 ||
	    connect(out, to, sizeof(o->address)) < 0) {
		fprintf(stderr, "packets: %s\n", strerror(errno));
		return -1;
	}
	*ret = (struct result){ .sent = n };
	memset(notes, 0, sizeof(*notes) + n * sizeof(notes->delay_ns[0]));
	child = fork();
	if (child < 0)
		return -1;
	if (child == 0) {
		receive(in, notes, n);
		_exit(0);
	}
	ret->seconds = send_all(out, o, rate, n);
	notes->ended = 1;
	waitpid(child, NULL, 0);
	count(o, notes, n, ret);
	return 0;
}

/* Good: little is lost, and the sender itself could keep up. */
static bool good(const struct options *o, const struct result *r)
{
	return loss(r) <= o->max_loss && r->seconds <= o->seconds * 1.05;
}

static int search(const struct options *o, struct notes *notes, double *ret_rate)
{
	struct result r;
	double low = 0, high = SEARCH_START;

	for (;; high *= 2) {
		if (high > RATE_MAX || run(o, high, notes, &r) < 0)
			return -1;
		/* One more try: a single stumble of a machine is not its limit. */
		if (!good(o, &r) && (run(o, high, notes, &r) < 0 || !good(o, &r)))
			break;
		low = high;
	}
	for (int step = 0; step < SEARCH_STEPS && low > 0; step++) {
		const double middle = (low + high) / 2;

		if (run(o, middle, notes, &r) < 0)
			return -1;
		if (good(o, &r))
			low = middle;
		else
			high = middle;
	}
	*ret_rate = low;
	return 0;
}

static void print(const struct options *o, const struct notes *notes, const struct result *r)
{
	printf("{\"sent\": %" PRIu64 ", \"received\": %" PRIu64 ", \"doubled\": %" PRIu64
	       ", \"sent_per_s\": %.1f, \"loss_percent\": %.4f, \"delay_median_ms\": %.3f"
	       ", \"delay_p95_ms\": %.3f, \"delay_p99_ms\": %.3f, \"delay_max_ms\": %.3f",
	       r->sent, r->received, r->doubled, (double)r->sent / r->seconds, loss(r) * 100,
	       quantile_ms(notes, r, 0.5), quantile_ms(notes, r, 0.95), quantile_ms(notes, r, 0.99),
	       quantile_ms(notes, r, 1));
	if (isfinite(o->within_ms))
		printf(", \"within_percent\": %.4f", (double)r->within / (double)r->sent * 100);
	printf("}\n");
}

/* ---- main -------------------------------------------------------------------------------- */

static int usage(FILE *to)
{
	fprintf(to, "usage: packets [OPTION...] FROM-NETNS TO-NETNS ADDRESS\n"
		    "  --port N        (5301)            --rate PACKETS-PER-SECOND   (50)\n"
		    "  --bytes N       of payload (128)  --seconds N                 (2)\n"
		    "  --within MS     also the share of all packets that arrive in that time\n"
		    "  --search        the highest rate with at most --max-loss PERCENT (1)\n");
	return to == stderr ? 2 : 0;
}

static bool read_value(const char *text, double min, double max, double *ret)
{
	char *end;
	const double value = strtod(text, &end);

	*ret = value;
	return end != text && *end == '\0' && value >= min && value <= max;
}

static bool read_option(int c, const char *text, struct options *o)
{
	double value;

	switch (c) {
	case 'p':
		if (!read_value(text, 1, 65535, &value))
			return false;
		o->port = (unsigned)value;
		return true;
	case 'b':
		if (!read_value(text, BYTES_MIN, BYTES_MAX, &value))
			return false;
		o->bytes = (unsigned)value;
		return true;
	case 'r':
		return read_value(text, 0.1, RATE_MAX, &o->rate);
	case 's':
		return read_value(text, 0.01, 600, &o->seconds);
	case 'w':
		return read_value(text, 0, 1e6, &o->within_ms);
	case 'l':
		if (!read_value(text, 0, 100, &value))
			return false;
		o->max_loss = value / 100;
		return true;
	case 'f':
		o->search = true;
		return true;
	default:
		return false;
	}
}

static bool read_address(const char *text, struct options *o)
{
	struct sockaddr_in *const v4 = (struct sockaddr_in *)&o->address;
	struct sockaddr_in6 *const v6 = (struct sockaddr_in6 *)&o->address;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)o->port);
		return true;
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons((uint16_t)o->port);
	return inet_pton(AF_INET6, text, &v6->sin6_addr) == 1;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "bytes", required_argument, NULL, 'b' },
		{ "rate", required_argument, NULL, 'r' },
		{ "seconds", required_argument, NULL, 's' },
		{ "within", required_argument, NULL, 'w' },
		{ "max-loss", required_argument, NULL, 'l' },
		{ "search", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct options o = { .port = 5301,
			     .bytes = 128,
			     .rate = 50,
			     .seconds = 2,
			     .max_loss = 0.01,
			     .within_ms = (double)INFINITY };
	struct notes *notes;
	struct result r;
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		if (c == 'h' || !read_option(c, optarg, &o))
			return usage(c == 'h' ? stdout : stderr);
	if (argc - optind != 3 || !read_address(argv[optind + 2], &o) ||
	    o.rate * o.seconds > PACKETS_MAX || RATE_MAX * (o.search ? o.seconds : 0) > PACKETS_MAX)
		return usage(stderr);
	o.from = argv[optind];
	o.to = argv[optind + 1];
	notes = mmap(NULL, sizeof(*notes) + PACKETS_MAX * sizeof(notes->delay_ns[0]),
		     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (notes == MAP_FAILED)
		return 1;
	if (!o.search) {
		if (run(&o, o.rate, notes, &r) < 0)
			return 1;
		print(&o, notes, &r);
		return 0;
	}
	if (search(&o, notes, &o.rate) < 0)
		return 1;
	printf("{\"packets_per_s\": %.0f, \"bytes\": %u, \"max_loss_percent\": %g}\n", o.rate,
	       o.bytes, o.max_loss * 100);
	return 0;
}
