/*
 * igd - one conversation with the gateway, by libminiupnpc.
 *
 * Whatever is asked and answered goes to and comes from the gateway's own address: searches are
 * answered by anybody on the LAN, and a description may name other machines, or redirect. The
 * library is kept to it twice: by looking at each URL, and by connect() and getaddrinfo() below,
 * which it calls instead of the C library's.
 */
#include "config.h"
#include "upnp/upnp.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <miniupnpc/miniupnpc.h>
#include <miniupnpc/upnpcommands.h>

#define GROUP               "239.255.255.250"
#define VERSIONS            2 /* of InternetGatewayDevice */
#define SEARCHES            3
#define SEARCH_EVERY_MS     700
#define SEARCH_SETTLE_MS    100 /* after an answer, for others */
#define DESCRIPTION         "q2q-tun"
#define PORTS_TRIED         4
#define PORT_MIN            1024
#define ERROR_NO_ENTRY      714
#define ERROR_CONFLICT      718
#define ERROR_SAME_PORTS    724
#define ERROR_PERMANENT     725
#define ERROR_OTHER_MEANS   729
#define ERROR_NO_ACTION     401
#define ERROR_UNIMPLEMENTED 602

struct conversation {
	const struct nat_igd_request *request;
	struct ip_address gateway;
	char urls[UPNP_LOCATIONS_MAX][UPNP_URL_BYTES];
	size_t n_urls;
};

/* One way out of a gateway. */
struct service {
	const char *control_url, *type;
};

/* ---- the library goes nowhere else ------------------------------------------------------ */

static struct in_addr allowed, own;

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int connect(int fd, const struct sockaddr *address, socklen_t address_bytes);
EXPORTED int getaddrinfo(const char *restrict node, const char *restrict service,
			 const struct addrinfo *restrict hints, struct addrinfo **restrict result);

int connect(int fd, const struct sockaddr *address, socklen_t address_bytes)
{
	/* From the address that is to be mapped: a gateway maps to nobody but who asks. */
	const struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr = own };
	struct sockaddr_in in;

	if (address_bytes < sizeof(in)) {
		errno = EINVAL;
		return -1;
	}
	memcpy(&in, address, sizeof(in));
	if (in.sin_family != AF_INET || in.sin_addr.s_addr != allowed.s_addr) {
		errno = EACCES;
		return -1;
	}
	if (bind(fd, (const struct sockaddr *)&from, sizeof(from)) < 0)
		return -1;
	return (int)syscall(SYS_connect, fd, address, address_bytes);
}

/* Addresses in figures; no name of a gateway's is looked up. */
int getaddrinfo(const char *restrict node, const char *restrict service,
		const struct addrinfo *restrict hints, struct addrinfo **restrict result)
{
	typedef int lookup_fn(const char *, const char *, const struct addrinfo *,
			      struct addrinfo **);
	lookup_fn *lookup = (lookup_fn *)dlsym(RTLD_NEXT, "getaddrinfo");
	struct addrinfo numeric = hints ? *hints : (struct addrinfo){ 0 };

	if (!lookup)
		return EAI_SYSTEM;
	numeric.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	return lookup(node, service, &numeric, result);
}

/* ---- the search ---------------------------------------------------------------------------- */

int upnp_search_open(const struct nat_igd_request *request)
{
	struct sockaddr_in local = { .sin_family = AF_INET };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const unsigned char hops = 2; /* UPnP Device Architecture 2.0, section 1.3.2 */

	memcpy(&local.sin_addr, request->local, sizeof(request->local));
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&local, sizeof(local)) < 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &local.sin_addr, sizeof(local.sin_addr)) <
		    0 ||
	    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof(hops)) < 0) {
		const int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static int64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* To the gateway itself, which needs no multicast to work, and to the group, for gateways that
 * hear nothing else. Lost ones are sent again. */
static void send_searches(const struct conversation *c, int fd)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(UPNP_PORT) };
	char text[UPNP_SEARCH_BYTES], host[IP_TEXT_BYTES];

	ip_format(&c->gateway, host);
	for (unsigned i = 0; i < 2 * VERSIONS; i++) {
		const bool direct = i < VERSIONS;
		const size_t n = upnp_search(direct ? host : GROUP, i % VERSIONS + 1, text);

		memcpy(&to.sin_addr, c->gateway.bytes, sizeof(to.sin_addr));
		if (!direct)
			to.sin_addr.s_addr = inet_addr(GROUP);
		(void)sendto(fd, text, n, 0, (struct sockaddr *)&to, sizeof(to));
	}
}

static bool is_known(const struct conversation *c, const char *url)
{
	for (size_t i = 0; i < c->n_urls; i++)
		if (strcmp(c->urls[i], url) == 0)
			return true;
	return false;
}

static void read_answer(struct conversation *c, int fd)
{
	char data[2048], url[UPNP_URL_BYTES];
	struct sockaddr_in from = { 0 };
	socklen_t from_bytes = sizeof(from);
	const ssize_t n = recvfrom(fd, data, sizeof(data), MSG_DONTWAIT, (struct sockaddr *)&from,
				   &from_bytes);

	if (n <= 0 || from_bytes != sizeof(from) || from.sin_addr.s_addr != allowed.s_addr ||
	    upnp_search_answer(data, (size_t)n, &c->gateway, url) < 0 || is_known(c, url) ||
	    c->n_urls == UPNP_LOCATIONS_MAX)
		return;
	memcpy(c->urls[c->n_urls++], url, sizeof(url));
}

/* Until an answer came and a moment has passed, or `until_ms`. */
static void await_answers(struct conversation *c, int fd, int64_t until_ms, unsigned *n_left)
{
	for (;;) {
		const int64_t left_ms = until_ms - clock_ms();
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		const size_t n_before = c->n_urls;

		if (left_ms <= 0 || *n_left == 0 || poll(&ready, 1, (int)left_ms) <= 0)
			return;
		--*n_left;
		read_answer(c, fd);
		if (n_before == 0 && c->n_urls == 1 && until_ms > clock_ms() + SEARCH_SETTLE_MS)
			until_ms = clock_ms() + SEARCH_SETTLE_MS;
	}
}

static void find_descriptions(struct conversation *c, int fd)
{
	unsigned n_left = UPNP_ANSWERS_MAX;

	for (int i = 0; i < SEARCHES && c->n_urls == 0; i++) {
		send_searches(c, fd);
		await_answers(c, fd, clock_ms() + SEARCH_EVERY_MS, &n_left);
	}
}

/* ---- the work -------------------------------------------------------------------------------- */

static enum nat_igd_result result_of(int error)
{
	if (error == UPNPCOMMAND_SUCCESS)
		return NAT_IGD_DONE;
	return error > 0 ? NAT_IGD_REFUSED : NAT_IGD_BROKEN;
}

static bool is_public(const struct ip_address *ip)
{
	return !ip_is_private(ip) && !ip_is_loopback(ip) && !ip_is_link_local(ip) &&
	       !ip_is_multicast(ip) && ip->bytes[0] != 0 && ip->bytes[0] < 240;
}

static int outside_address(const struct service *s, struct ip_address *ret_ip)
{
	char text[64] = "";
	int r = UPNP_GetExternalIPAddress(s->control_url, s->type, text);

	if (r != UPNPCOMMAND_SUCCESS)
		return r;
	*ret_ip = (struct ip_address){ .family = FAMILY_IPV4 };
	text[sizeof(text) - 1] = '\0';
	return inet_pton(AF_INET, text, ret_ip->bytes) == 1 ? 0 : UPNPCOMMAND_INVALID_RESPONSE;
}

static bool is_second_version(const struct service *s)
{
	const size_t n = strlen(s->type);

	return n > 2 && strcmp(s->type + n - 2, ":2") == 0;
}

/* IGD:2 finds another port by itself. 0, or the error of the gateway or of the library. */
static int map_any(const struct conversation *c, const struct service *s, uint16_t wish,
		   const char *lease, uint16_t *ret_port)
{
	char outer[8], inner[8], local[IP_TEXT_BYTES], reserved[8] = "";
	const struct nat_igd_request *q = c->request;
	struct ip_address ip = { .family = FAMILY_IPV4 };
	uint64_t port;
	int r;

	memcpy(ip.bytes, q->local, sizeof(q->local));
	ip_format(&ip, local);
	snprintf(outer, sizeof(outer), "%u", wish);
	snprintf(inner, sizeof(inner), "%u", q->port);
	r = UPNP_AddAnyPortMapping(s->control_url, s->type, outer, inner, local, DESCRIPTION, "UDP",
				   NULL, lease, reserved);
	if (r == UPNPCOMMAND_SUCCESS && (parse_u64(reserved, UINT16_MAX, &port) < 0 || port == 0))
		return UPNPCOMMAND_INVALID_RESPONSE;
	if (r == UPNPCOMMAND_SUCCESS)
		*ret_port = (uint16_t)port;
	return r;
}

static int map_one(const struct conversation *c, const struct service *s, uint16_t wish,
		   const char *lease)
{
	char outer[8], inner[8], local[IP_TEXT_BYTES];
	const struct nat_igd_request *q = c->request;
	struct ip_address ip = { .family = FAMILY_IPV4 };

	memcpy(ip.bytes, q->local, sizeof(q->local));
	ip_format(&ip, local);
	snprintf(outer, sizeof(outer), "%u", wish);
	snprintf(inner, sizeof(inner), "%u", q->port);
	return UPNP_AddPortMapping(s->control_url, s->type, outer, inner, local, DESCRIPTION, "UDP",
				   NULL, lease);
}

static uint16_t any_port(void)
{
	uint16_t port = 0;

	if (getrandom(&port, sizeof(port), 0) != (ssize_t)sizeof(port))
		return 0;
	return (uint16_t)(PORT_MIN + port % (UINT16_MAX - PORT_MIN));
}

/* The port wished for, then others; for a lease, else for ever where only that is given. */
static int map_some(const struct conversation *c, const struct service *s, uint16_t *ret_port,
		    uint32_t *ret_lifetime_s)
{
	const struct nat_igd_request *q = c->request;
	uint16_t wish = q->external_port ? q->external_port : q->port;
	uint32_t lifetime_s = q->lifetime_s;
	int r = UPNPCOMMAND_UNKNOWN_ERROR;

	for (int i = 0; i < PORTS_TRIED && wish; i++) {
		char lease[12];

		snprintf(lease, sizeof(lease), "%u", lifetime_s);
		r = map_one(c, s, wish, lease);
		*ret_port = wish;
		*ret_lifetime_s = lifetime_s;
		if (r == ERROR_PERMANENT && lifetime_s)
			lifetime_s = 0;
		else if (r == ERROR_CONFLICT || r == ERROR_OTHER_MEANS)
			wish = any_port();
		else if (r == ERROR_SAME_PORTS && wish != q->port)
			wish = q->port;
		else
			break;
	}
	return r;
}

static int map(const struct conversation *c, const struct service *s, uint16_t *ret_port,
	       uint32_t *ret_lifetime_s)
{
	const struct nat_igd_request *q = c->request;
	char lease[12];
	int r;

	if (is_second_version(s)) {
		snprintf(lease, sizeof(lease), "%u", q->lifetime_s);
		*ret_lifetime_s = q->lifetime_s;
		r = map_any(c, s, q->external_port ? q->external_port : q->port, lease, ret_port);
		if (r != ERROR_NO_ACTION && r != ERROR_UNIMPLEMENTED && r != ERROR_PERMANENT)
			return r;
	}
	return map_some(c, s, ret_port, ret_lifetime_s);
}

static void unmap(const struct conversation *c, const struct service *s,
		  struct nat_igd_answer *answer)
{
	char outer[8];
	int r;

	snprintf(outer, sizeof(outer), "%u", c->request->external_port);
	r = UPNP_DeletePortMapping(s->control_url, s->type, outer, "UDP", NULL);
	answer->result = result_of(r == ERROR_NO_ENTRY ? UPNPCOMMAND_SUCCESS : r);
}

static void work(const struct conversation *c, const struct service *s,
		 struct nat_igd_answer *answer)
{
	struct ip_address outside;
	int r;

	if (c->request->op == NAT_IGD_UNMAP) {
		unmap(c, s, answer);
		return;
	}
	r = outside_address(s, &outside);
	answer->result = result_of(r);
	if (r != 0)
		return;
	memcpy(answer->external, outside.bytes, sizeof(answer->external));
	answer->result = NAT_IGD_HIDDEN;
	if (is_public(&outside))
		answer->result = result_of(map(c, s, &answer->external_port, &answer->lifetime_s));
}

/* ---- the description --------------------------------------------------------------------------
 */

static bool is_way_out(const char *type)
{
	return strncmp(type, "urn:schemas-upnp-org:service:WANIPConnection:", 45) == 0 ||
	       strncmp(type, "urn:schemas-upnp-org:service:WANPPPConnection:", 46) == 0;
}

/* A service of the description, if it is one of the gateway's own. False: it is not. */
static bool try_service(const struct conversation *c, const struct UPNPUrls *urls,
			const struct IGDdatas_service *service, struct nat_igd_answer *answer)
{
	const struct service s = { .control_url = urls->controlURL, .type = service->servicetype };

	if (!is_way_out(s.type) || !s.control_url || !upnp_url_is_at(s.control_url, &c->gateway))
		return false;
	work(c, &s, answer);
	return true;
}

/* A gateway may have two ways out, of which one works. */
static void try_description(const struct conversation *c, const char *url,
			    struct nat_igd_answer *answer)
{
	struct IGDdatas data = { 0 };
	struct UPNPUrls urls = { 0 };
	char local[IP_TEXT_BYTES];

	if (UPNP_GetIGDFromUrl(url, &urls, &data, local, sizeof(local)) != 1)
		return;
	answer->result = NAT_IGD_BROKEN;
	(void)try_service(c, &urls, &data.first, answer);
	FreeUPNPUrls(&urls);
	if (answer->result == NAT_IGD_DONE || !*data.second.servicetype)
		return;
	data.first = data.second;
	urls = (struct UPNPUrls){ 0 };
	GetUPNPUrls(&urls, &data, url, 0);
	(void)try_service(c, &urls, &data.first, answer);
	FreeUPNPUrls(&urls);
}

void upnp_converse(int search_fd, const struct nat_igd_request *request,
		   struct nat_igd_answer *ret_answer)
{
	struct conversation c = { .request = request, .gateway.family = FAMILY_IPV4 };
	struct nat_igd_answer answer = { .result = NAT_IGD_SILENT };

	memcpy(c.gateway.bytes, request->gateway, sizeof(request->gateway));
	memcpy(&allowed, request->gateway, sizeof(allowed));
	memcpy(&own, request->local, sizeof(own));
	find_descriptions(&c, search_fd);
	for (size_t i = 0; i < c.n_urls && answer.result != NAT_IGD_DONE; i++)
		try_description(&c, c.urls[i], &answer);
	*ret_answer = answer;
}
