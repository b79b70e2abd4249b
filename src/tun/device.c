/*
 * TUN devices: the one place with their ioctls, for netlink cannot make one.
 *
 * A device is never persistent: it lives as long as its descriptor, so a daemon
 * that is killed takes its interfaces with it.
 */
#include "tun/tun.h"

#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

static_assert(TUN_NAME_BYTES == IFNAMSIZ, "names are the kernel's");

/* Newer than the headers of Debian 12; the kernel may be newer than these. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define NAME_PREFIX       "q2q-"
#define NAME_PREFIX_BYTES (sizeof(NAME_PREFIX) - 1)
#define NAME_TRIES        200

/* ---- names --------------------------------------------------------------------------- */

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr("._+-", c));
}

bool tun_name_valid(const char *name)
{
	const size_t n = strnlen(name, TUN_NAME_BYTES);

	if (n <= NAME_PREFIX_BYTES || n >= TUN_NAME_BYTES ||
	    memcmp(name, NAME_PREFIX, NAME_PREFIX_BYTES) != 0)
		return false;
	for (size_t i = NAME_PREFIX_BYTES; i < n; i++)
		if (!name_char(name[i]))
			return false;
	return true;
}

void tun_name_from_address(const char *address, char ret_name[static TUN_NAME_BYTES])
{
	size_t used = NAME_PREFIX_BYTES;

	memset(ret_name, 0, TUN_NAME_BYTES);
	memcpy(ret_name, NAME_PREFIX, NAME_PREFIX_BYTES);
	for (; *address && *address != '@' && used < TUN_NAME_BYTES - 1; address++)
		ret_name[used++] = name_char(*address) ? *address : '-';
	if (used == NAME_PREFIX_BYTES)
		ret_name[used] = '-';
}

/* The nth try at a free name: "q2q-bob", "q2q-bob-2", ..., the stem cut to fit. */
static void name_try(const char *wanted, unsigned n, char ret_name[static TUN_NAME_BYTES])
{
	char suffix[16] = "";
	size_t stem, suffix_bytes;

	if (n > 1)
		snprintf(suffix, sizeof(suffix), "-%u", n);
	suffix_bytes = strlen(suffix);
	stem = min_size(strlen(wanted), TUN_NAME_BYTES - 1 - suffix_bytes);
	memset(ret_name, 0, TUN_NAME_BYTES);
	memcpy(ret_name, wanted, stem);
	memcpy(ret_name + stem, suffix, suffix_bytes);
}

/* ---- making one ------------------------------------------------------------------------- */

/* From all that we can use down to what any kernel has; the first that works counts. */
static const struct {
	unsigned kernel;
	uint32_t features;
} offloads[] = {
	{ TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
	  TUN_FEATURE_CSUM | TUN_FEATURE_TSO4 | TUN_FEATURE_TSO6 | TUN_FEATURE_TSO_ECN |
		  TUN_FEATURE_USO },
	{ TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
	  TUN_FEATURE_CSUM | TUN_FEATURE_TSO4 | TUN_FEATURE_TSO6 | TUN_FEATURE_TSO_ECN },
	{ TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
	  TUN_FEATURE_CSUM | TUN_FEATURE_TSO4 | TUN_FEATURE_TSO6 },
	{ TUN_F_CSUM | TUN_F_TSO4, TUN_FEATURE_CSUM | TUN_FEATURE_TSO4 },
	{ TUN_F_CSUM, TUN_FEATURE_CSUM },
	{ 0, 0 },
};

static uint32_t enable_offloads(int fd)
{
	for (size_t i = 0; i < ARRAY_SIZE(offloads); i++)
		if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)offloads[i].kernel) == 0)
			return offloads[i].features;
	return 0;
}

/* The header as it goes to the peer too: ten bytes, little-endian on every machine. */
static int set_header_format(int fd)
{
	int header_bytes = TUN_VNET_BYTES, little_endian = 1;

	if (ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 ||
	    ioctl(fd, TUNSETVNETLE, &little_endian) < 0)
		return -errno;
	return 0;
}

/* 0, -EBUSY: somebody has that name, or another fault. */
static int attach(int fd, const char *name, short flags)
{
	struct ifreq request = { .ifr_flags = flags };

	memcpy(request.ifr_name, name, TUN_NAME_BYTES);
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		/* EINVAL: an interface of another kind has the name. */
		return errno == EINVAL && if_nametoindex(name) > 0 ? -EBUSY : -errno;
	return 0;
}

/* IFF_TUN_EXCL: never join a device that is there already. */
static int attach_free_name(int fd, const char *wanted, short flags,
			    char ret_name[static TUN_NAME_BYTES])
{
	char name[TUN_NAME_BYTES];
	int r = -EBUSY;

	for (unsigned n = 1; n <= NAME_TRIES && r == -EBUSY; n++) {
		name_try(wanted, n, name);
		r = attach(fd, name, flags);
	}
	if (r == 0)
		memcpy(ret_name, name, TUN_NAME_BYTES);
	return r == -EBUSY ? -EEXIST : r;
}

int tun_device_open(const char *wanted_name, char ret_name[static TUN_NAME_BYTES],
		    uint32_t *ret_features, int *ret_fd)
{
	const short base = IFF_TUN | IFF_NO_PI;
	_cleanup_(closep) int fd = -1;
	uint32_t features = TUN_FEATURE_VNET;
	int r;

	if (!tun_name_valid(wanted_name))
		return -EINVAL;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	r = attach_free_name(fd, wanted_name, (short)(base | IFF_VNET_HDR | (short)IFF_TUN_EXCL),
			     ret_name);
	if (r == -EINVAL) { /* a kernel without IFF_VNET_HDR */
		features = 0;
		r = attach_free_name(fd, wanted_name, (short)(base | (short)IFF_TUN_EXCL),
				     ret_name);
	}
	if (r < 0)
		return r;
	if (features) {
		r = set_header_format(fd);
		if (r < 0)
			return r;
		features |= enable_offloads(fd);
	}
	*ret_features = features;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* ---- frames ------------------------------------------------------------------------------- */

int tun_device_read(int fd, uint32_t features, uint8_t *frame, size_t frame_bytes)
{
	const size_t made_up = features & TUN_FEATURE_VNET ? 0 : TUN_VNET_BYTES;
	ssize_t n;

	assert(frame_bytes > TUN_VNET_BYTES);
	memset(frame, 0, made_up);
	do
		n = read(fd, frame + made_up, frame_bytes - made_up);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (int)((size_t)n + made_up);
}

int tun_device_write(int fd, uint32_t features, const uint8_t *frame, size_t frame_bytes)
{
	const size_t left_out = features & TUN_FEATURE_VNET ? 0 : TUN_VNET_BYTES;
	ssize_t n;

	if (frame_bytes <= TUN_VNET_BYTES)
		return -EINVAL;
	do
		n = write(fd, frame + left_out, frame_bytes - left_out);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}
