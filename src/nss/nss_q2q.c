/*
 * libnss_q2q.so.2 - bob.example.org.q2q to virtual addresses, and back.
 *
 * It is loaded into every process that looks names up, so it does little: one
 * question over the daemon's names socket, one answer, 200 ms at the most, and
 * none at all for names that do not end in ".q2q". When the daemon is down, the
 * connect fails at once. It opens no file, starts no thread, raises no signal
 * and leaves errno alone where it succeeds.
 */
#define _GNU_SOURCE /* secure_getenv() */
#include "base/names.h"

#include <netdb.h>
#include <nss.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <arpa/inet.h>
#include <time.h>
#include <unistd.h>

#define SOCKET_PATH RUNSTATEDIR "/q2q-tun/names"
#define LIMIT_US    (200 * US_PER_MS)
#define TTL_SECONDS 0 /* a cache would outlive a change of the peer's address here */

#define EXPORTED    __attribute__((visibility("default")))

/* ---- asking the daemon ------------------------------------------------------------- */

static uint64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * US_PER_S + (uint64_t)now.tv_nsec / 1000;
}

static bool wait_until(int fd, short events, uint64_t deadline_us)
{
	for (;;) {
		const uint64_t now_us = clock_us();
		struct pollfd wait = { .fd = fd, .events = events };
		int n;

		if (now_us >= deadline_us)
			return false;
		n = poll(&wait, 1, (int)((deadline_us - now_us) / 1000) + 1);
		if (n > 0)
			return true;
		if (n == 0 || errno != EINTR)
			return false;
	}
}

static int connect_daemon(void)
{
	const char *path = secure_getenv("Q2Q_TUN_NAMES");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (!path)
		path = SOCKET_PATH;
	if (strlen(path) >= sizeof(address.sun_path))
		return -1;
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Never EINPROGRESS: a Unix socket connects or does not; with a full backlog it does not.
	 */
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static bool send_all(int fd, const uint8_t *data, size_t n_bytes, uint64_t deadline_us)
{
	while (n_bytes > 0) {
		const ssize_t n = send(fd, data, n_bytes, MSG_NOSIGNAL);

		if (n > 0) {
			data += n;
			n_bytes -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			if (!wait_until(fd, POLLOUT, deadline_us))
				return false;
		} else if (n == 0 || errno != EINTR) {
			return false;
		}
	}
	return true;
}

static bool receive_all(int fd, uint8_t *data, size_t n_bytes, uint64_t deadline_us)
{
	while (n_bytes > 0) {
		const ssize_t n = recv(fd, data, n_bytes, 0);

		if (n > 0) {
			data += n;
			n_bytes -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			if (!wait_until(fd, POLLIN, deadline_us))
				return false;
		} else if (n == 0 || errno != EINTR) {
			return false;
		}
	}
	return true;
}

/* SUCCESS: *ret_reply is what was asked for. NOTFOUND, or UNAVAIL without a daemon that answers. */
static enum nss_status ask(const struct names_request *request, struct names_reply *ret_reply)
{
	uint8_t out[NAMES_REQUEST_BYTES], in[NAMES_REPLY_BYTES];
	const uint64_t deadline_us = clock_us() + LIMIT_US;
	_cleanup_(closep) int fd = connect_daemon();

	if (fd < 0)
		return NSS_STATUS_UNAVAIL;
	names_encode_request(request, out);
	if (!send_all(fd, out, sizeof(out), deadline_us) ||
	    !receive_all(fd, in, sizeof(in), deadline_us) ||
	    names_decode_reply(in, ret_reply) < 0 || ret_reply->id != request->id)
		return NSS_STATUS_UNAVAIL;
	switch (ret_reply->status) {
	case NAMES_FOUND:
		return NSS_STATUS_SUCCESS;
	case NAMES_TRY_AGAIN:
		return NSS_STATUS_TRYAGAIN;
	default:
		return NSS_STATUS_NOTFOUND;
	}
}

static enum nss_status ask_by_name(const char *name, struct names_reply *ret_reply)
{
	struct names_request request = { .kind = NAMES_BY_NAME, .id = 1 };

	if (names_canonical(name, request.name) < 0)
		return NSS_STATUS_NOTFOUND;
	return ask(&request, ret_reply);
}

/* ---- the caller's buffer --------------------------------------------------------------- */

struct arena {
	char *at;
	size_t left_bytes;
};

/* Zeroed and aligned for pointers; NULL if the caller's buffer is too small. */
static void *take(struct arena *arena, size_t n_bytes)
{
	const size_t pad = (size_t)(-(uintptr_t)arena->at & (sizeof(void *) - 1));
	char *start;

	if (pad > arena->left_bytes || n_bytes > arena->left_bytes - pad)
		return NULL;
	start = arena->at + pad;
	memset(start, 0, n_bytes);
	arena->at = start + n_bytes;
	arena->left_bytes -= pad + n_bytes;
	return start;
}

static char *take_text(struct arena *arena, const char *text)
{
	char *copy = take(arena, strlen(text) + 1);

	if (copy)
		memcpy(copy, text, strlen(text) + 1);
	return copy;
}

/* How glibc is told each outcome. */
static enum nss_status outcome(enum nss_status status, int *errnop, int *h_errnop)
{
	switch (status) {
	case NSS_STATUS_TRYAGAIN:
		*errnop = EAGAIN;
		*h_errnop = TRY_AGAIN;
		break;
	case NSS_STATUS_UNAVAIL:
		*errnop = ECONNREFUSED;
		*h_errnop = NO_RECOVERY;
		break;
	default:
		*errnop = ENOENT;
		*h_errnop = HOST_NOT_FOUND;
		break;
	}
	return status;
}

static enum nss_status no_room(int *errnop, int *h_errnop)
{
	*errnop = ERANGE;
	*h_errnop = NETDB_INTERNAL;
	return NSS_STATUS_TRYAGAIN;
}

static enum nss_status no_address(int *errnop, int *h_errnop)
{
	*errnop = ENOENT;
	*h_errnop = NO_DATA; /* the name is there, an address of this family is not */
	return NSS_STATUS_NOTFOUND;
}

/* One name, at most one address. */
static bool fill(struct hostent *result, struct arena *arena, const char *name, int af,
		 const struct ip_address *address)
{
	const size_t n_bytes = af == AF_INET ? 4 : 16;
	char **aliases = take(arena, sizeof(char *));
	char **addresses = take(arena, 2 * sizeof(char *));
	char *bytes = take(arena, n_bytes);
	char *copy = take_text(arena, name);

	if (!aliases || !addresses || !bytes || !copy)
		return false;
	memcpy(bytes, address->bytes, n_bytes);
	addresses[0] = bytes;
	*result = (struct hostent){ .h_name = copy,
				    .h_aliases = aliases,
				    .h_addrtype = af,
				    .h_length = (int)n_bytes,
				    .h_addr_list = addresses };
	return true;
}

/* ---- what glibc calls ------------------------------------------------------------------------ */

/* The declarations that no header has. */
enum nss_status _nss_q2q_gethostbyname4_r(const char *name, struct gaih_addrtuple **pat,
					  char *buffer, size_t buffer_bytes, int *errnop,
					  int *h_errnop, int32_t *ttlp);
enum nss_status _nss_q2q_gethostbyname3_r(const char *name, int af, struct hostent *result,
					  char *buffer, size_t buffer_bytes, int *errnop,
					  int *h_errnop, int32_t *ttlp, char **canonp);
enum nss_status _nss_q2q_gethostbyname2_r(const char *name, int af, struct hostent *result,
					  char *buffer, size_t buffer_bytes, int *errnop,
					  int *h_errnop);
enum nss_status _nss_q2q_gethostbyname_r(const char *name, struct hostent *result, char *buffer,
					 size_t buffer_bytes, int *errnop, int *h_errnop);
enum nss_status _nss_q2q_gethostbyaddr2_r(const void *address, socklen_t address_bytes, int af,
					  struct hostent *result, char *buffer, size_t buffer_bytes,
					  int *errnop, int *h_errnop, int32_t *ttlp);
enum nss_status _nss_q2q_gethostbyaddr_r(const void *address, socklen_t address_bytes, int af,
					 struct hostent *result, char *buffer, size_t buffer_bytes,
					 int *errnop, int *h_errnop);

static bool add_tuple(struct gaih_addrtuple ***tail, struct arena *arena, char *name,
		      const struct ip_address *address)
{
	struct gaih_addrtuple *tuple = **tail;

	if (address->family == FAMILY_NONE)
		return true;
	if (!tuple) { /* glibc lends the first one */
		tuple = take(arena, sizeof(*tuple));
		if (!tuple)
			return false;
		**tail = tuple;
	}
	tuple->next = NULL;
	tuple->name = name;
	tuple->family = address->family == FAMILY_IPV4 ? AF_INET : AF_INET6;
	tuple->scopeid = 0;
	memcpy(tuple->addr, address->bytes, address->family == FAMILY_IPV4 ? 4 : 16);
	*tail = &tuple->next;
	return true;
}

EXPORTED enum nss_status _nss_q2q_gethostbyname4_r(const char *name, struct gaih_addrtuple **pat,
						   char *buffer, size_t buffer_bytes, int *errnop,
						   int *h_errnop, int32_t *ttlp)
{
	const int saved = errno;
	struct arena arena = { buffer, buffer_bytes };
	struct names_reply reply;
	enum nss_status status = ask_by_name(name, &reply);
	struct gaih_addrtuple **tail = pat;
	char *copy;

	if (status != NSS_STATUS_SUCCESS)
		return outcome(status, errnop, h_errnop);
	if (reply.ipv4.family == FAMILY_NONE && reply.ipv6.family == FAMILY_NONE)
		return no_address(errnop, h_errnop);
	copy = take_text(&arena, reply.name);
	if (!copy || !add_tuple(&tail, &arena, copy, &reply.ipv6) ||
	    !add_tuple(&tail, &arena, copy, &reply.ipv4))
		return no_room(errnop, h_errnop);
	if (ttlp)
		*ttlp = TTL_SECONDS;
	errno = saved;
	return NSS_STATUS_SUCCESS;
}

EXPORTED enum nss_status _nss_q2q_gethostbyname3_r(const char *name, int af, struct hostent *result,
						   char *buffer, size_t buffer_bytes, int *errnop,
						   int *h_errnop, int32_t *ttlp, char **canonp)
{
	const int saved = errno;
	struct arena arena = { buffer, buffer_bytes };
	const struct ip_address *address;
	struct names_reply reply;
	enum nss_status status;

	if (af == AF_UNSPEC)
		af = AF_INET6;
	if (af != AF_INET && af != AF_INET6) {
		*errnop = EAFNOSUPPORT;
		*h_errnop = NO_DATA;
		return NSS_STATUS_UNAVAIL;
	}
	status = ask_by_name(name, &reply);
	if (status != NSS_STATUS_SUCCESS)
		return outcome(status, errnop, h_errnop);
	address = af == AF_INET ? &reply.ipv4 : &reply.ipv6;
	if (address->family == FAMILY_NONE)
		return no_address(errnop, h_errnop);
	if (!fill(result, &arena, reply.name, af, address))
		return no_room(errnop, h_errnop);
	if (ttlp)
		*ttlp = TTL_SECONDS;
	if (canonp)
		*canonp = result->h_name;
	errno = saved;
	return NSS_STATUS_SUCCESS;
}

EXPORTED enum nss_status _nss_q2q_gethostbyname2_r(const char *name, int af, struct hostent *result,
						   char *buffer, size_t buffer_bytes, int *errnop,
						   int *h_errnop)
{
	return _nss_q2q_gethostbyname3_r(name, af, result, buffer, buffer_bytes, errnop, h_errnop,
					 NULL, NULL);
}

EXPORTED enum nss_status _nss_q2q_gethostbyname_r(const char *name, struct hostent *result,
						  char *buffer, size_t buffer_bytes, int *errnop,
						  int *h_errnop)
{
	return _nss_q2q_gethostbyname3_r(name, AF_INET, result, buffer, buffer_bytes, errnop,
					 h_errnop, NULL, NULL);
}

/* Only the ranges that virtual addresses come from are worth a question. */
static bool may_be_ours(const struct ip_address *address)
{
	static const uint8_t prefix6[] = { 0xfd, 0x71, 0x32, 0x71, 0x74, 0x6e };

	if (address->family == FAMILY_IPV4)
		return address->bytes[0] == 100 && (address->bytes[1] & 0xc0) == 64;
	return memcmp(address->bytes, prefix6, sizeof(prefix6)) == 0;
}

EXPORTED enum nss_status _nss_q2q_gethostbyaddr2_r(const void *address, socklen_t address_bytes,
						   int af, struct hostent *result, char *buffer,
						   size_t buffer_bytes, int *errnop, int *h_errnop,
						   int32_t *ttlp)
{
	const int saved = errno;
	struct names_request request = { .kind = NAMES_BY_ADDRESS, .id = 1 };
	struct arena arena = { buffer, buffer_bytes };
	struct names_reply reply;
	enum nss_status status;

	if (!((af == AF_INET && address_bytes == 4) || (af == AF_INET6 && address_bytes == 16))) {
		*errnop = EINVAL;
		*h_errnop = NO_RECOVERY;
		return NSS_STATUS_UNAVAIL;
	}
	request.address.family = af == AF_INET ? FAMILY_IPV4 : FAMILY_IPV6;
	memcpy(request.address.bytes, address, address_bytes);
	status = may_be_ours(&request.address) ? ask(&request, &reply) : NSS_STATUS_NOTFOUND;
	if (status != NSS_STATUS_SUCCESS)
		return outcome(status, errnop, h_errnop);
	if (!fill(result, &arena, reply.name, af, &request.address))
		return no_room(errnop, h_errnop);
	if (ttlp)
		*ttlp = TTL_SECONDS;
	errno = saved;
	return NSS_STATUS_SUCCESS;
}

EXPORTED enum nss_status _nss_q2q_gethostbyaddr_r(const void *address, socklen_t address_bytes,
						  int af, struct hostent *result, char *buffer,
						  size_t buffer_bytes, int *errnop, int *h_errnop)
{
	return _nss_q2q_gethostbyaddr2_r(address, address_bytes, af, result, buffer, buffer_bytes,
					 errnop, h_errnop, NULL);
}
