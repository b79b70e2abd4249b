/*
 * delay - a TUN device that gives back every packet a fixed time later:
 * delay NAME MICROSECONDS. A router that sends what it forwards through it is as
 * far from everybody as one likes. Prints "ready"; ends with a signal.
 */
#include "config.h" /* _GNU_SOURCE */
#include "base/base.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 8192, SLOT_BYTES = 2048, READ_BURST = 64 };

struct slot {
	uint64_t due_us;
	size_t n_bytes;
	uint8_t data[SLOT_BYTES];
};

/* A ring: what came first goes first. Its memory is touched only as far as it is used. */
static struct slot slots[SLOTS];
static size_t first, used;

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * US_PER_S + (uint64_t)t.tv_nsec / 1000;
}

static int open_tun(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -1;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	return ioctl(fd, TUNSETIFF, &request) < 0 ? -1 : fd;
}

/* With no room left a packet is read and forgotten: it must not wait in the device. */
static bool take(int fd, uint64_t delay_us)
{
	struct slot *s = &slots[(first + used) % SLOTS];
	uint8_t scratch[SLOT_BYTES];
	const ssize_t n = read(fd, used < SLOTS ? s->data : scratch, SLOT_BYTES);

	if (n <= 0)
		return false;
	if (used < SLOTS) {
		s->n_bytes = (size_t)n;
		s->due_us = now_us() + delay_us;
		used++;
	}
	return true;
}

static void give(int fd)
{
	while (used > 0 && slots[first].due_us <= now_us()) {
		/* A packet that the kernel does not take is lost, as in any network. */
		if (write(fd, slots[first].data, slots[first].n_bytes) < 0)
			fprintf(stderr, "delay: %s\n", strerror(errno));
		first = (first + 1) % SLOTS;
		used--;
	}
}

static void wait_for_work(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	const uint64_t now = now_us(), due_us = used ? slots[first].due_us : now;
	const uint64_t left_us = due_us > now ? due_us - now : 0;
	const struct timespec limit = { .tv_sec = (time_t)(left_us / US_PER_S),
					.tv_nsec = (long)(left_us % US_PER_S * 1000) };

	ppoll(&p, 1, used ? &limit : NULL, NULL);
}

int main(int argc, char **argv)
{
	const uint64_t delay_us = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
	const int fd = delay_us ? open_tun(argv[1]) : -1;

	if (!delay_us) {
		fprintf(stderr, "usage: delay NAME MICROSECONDS\n");
		return 2;
	}
	if (fd < 0) {
		fprintf(stderr, "delay: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	prctl(PR_SET_TIMERSLACK, 1);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		wait_for_work(fd);
		for (int n = 0; n < READ_BURST && take(fd, delay_us); n++)
			;
		give(fd);
	}
}
