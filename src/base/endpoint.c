/* IP addresses and endpoints, in text and as socket addresses. */
#include "base/base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

static const uint8_t mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

static size_t ip_bytes(const struct ip_address *ip)
{
	return ip->family == FAMILY_IPV4 ? 4 : 16;
}

int ip_parse(const char *text, struct ip_address *ret_ip)
{
	struct ip_address ip = { .family = FAMILY_IPV4 };

	if (inet_pton(AF_INET, text, ip.bytes) != 1) {
		ip.family = FAMILY_IPV6;
		if (inet_pton(AF_INET6, text, ip.bytes) != 1)
			return -EINVAL;
	}
	*ret_ip = ip;
	return 0;
}

const char *ip_format(const struct ip_address *ip, char out[static IP_TEXT_BYTES])
{
	if (ip->family == FAMILY_NONE || !inet_ntop(ip->family == FAMILY_IPV4 ? AF_INET : AF_INET6,
						    ip->bytes, out, IP_TEXT_BYTES))
		snprintf(out, IP_TEXT_BYTES, "-");
	return out;
}

bool ip_equal(const struct ip_address *a, const struct ip_address *b)
{
	return a->family == b->family && memcmp(a->bytes, b->bytes, ip_bytes(a)) == 0;
}

bool ip_is_loopback(const struct ip_address *ip)
{
	static const uint8_t one[16] = { [15] = 1 };

	if (ip->family == FAMILY_IPV4)
		return ip->bytes[0] == 127;
	return memcmp(ip->bytes, one, 16) == 0;
}

bool ip_is_link_local(const struct ip_address *ip)
{
	if (ip->family == FAMILY_IPV4)
		return ip->bytes[0] == 169 && ip->bytes[1] == 254;
	return ip->bytes[0] == 0xfe && (ip->bytes[1] & 0xc0) == 0x80;
}

bool ip_is_multicast(const struct ip_address *ip)
{
	if (ip->family == FAMILY_IPV4)
		return ip->bytes[0] >= 224;
	return ip->bytes[0] == 0xff;
}

bool ip_is_unspecified(const struct ip_address *ip)
{
	static const uint8_t zero[16];

	if (ip->family == FAMILY_IPV4)
		return ip->bytes[0] == 0;
	return memcmp(ip->bytes, zero, 16) == 0;
}

bool ip_is_private(const struct ip_address *ip)
{
	const uint8_t *b = ip->bytes;

	if (ip->family == FAMILY_IPV6)
		return (b[0] & 0xfe) == 0xfc;
	return b[0] == 10 || (b[0] == 172 && (b[1] & 0xf0) == 16) || (b[0] == 192 && b[1] == 168) ||
	       (b[0] == 100 && (b[1] & 0xc0) == 64);
}

/* Splits "host:port" or "[host%scope]:port" into its parts, in a copy. */
static int split(char *text, char **ret_host, char **ret_scope, char **ret_port)
{
	char *host = text, *scope = NULL, *port;

	if (*text == '[') {
		host = text + 1;
		port = strchr(host, ']');
		if (!port || port[1] != ':')
			return -EINVAL;
		*port++ = '\0';
		*port++ = '\0';
		scope = strchr(host, '%');
		if (scope)
			*scope++ = '\0';
	} else {
		port = strchr(text, ':');
		if (!port || strchr(port + 1, ':'))
			return -EINVAL;
		*port++ = '\0';
	}
	*ret_host = host;
	*ret_scope = scope;
	*ret_port = port;
	return 0;
}

int endpoint_parse(const char *text, bool allow_port_zero, struct endpoint *ret_endpoint)
{
	char copy[ENDPOINT_TEXT_BYTES], *host, *scope, *port;
	struct endpoint e = { 0 };
	uint64_t number;

	if (strlen(text) >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, strlen(text) + 1);
	if (split(copy, &host, &scope, &port) < 0 || ip_parse(host, &e.ip) < 0)
		return -EINVAL;
	if ((e.ip.family == FAMILY_IPV6) != (*text == '['))
		return -EINVAL;
	if (scope) {
		if (parse_u64(scope, UINT32_MAX, &number) < 0 || !ip_is_link_local(&e.ip))
			return -EINVAL;
		e.scope_id = (uint32_t)number;
	}
	if (parse_u64(port, UINT16_MAX, &number) < 0 || (number == 0 && !allow_port_zero))
		return -EINVAL;
	e.port = (uint16_t)number;
	*ret_endpoint = e;
	return 0;
}

const char *endpoint_format(const struct endpoint *e, char out[static ENDPOINT_TEXT_BYTES])
{
	char ip[IP_TEXT_BYTES];

	ip_format(&e->ip, ip);
	if (e->ip.family != FAMILY_IPV6)
		snprintf(out, ENDPOINT_TEXT_BYTES, "%s:%u", ip, (unsigned)e->port);
	else if (e->scope_id != 0)
		snprintf(out, ENDPOINT_TEXT_BYTES, "[%s%%%u]:%u", ip, e->scope_id,
			 (unsigned)e->port);
	else
		snprintf(out, ENDPOINT_TEXT_BYTES, "[%s]:%u", ip, (unsigned)e->port);
	return out;
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && a->scope_id == b->scope_id && ip_equal(&a->ip, &b->ip);
}

int endpoint_from_sockaddr(const struct sockaddr *sa, struct endpoint *ret_endpoint)
{
	struct endpoint e = { 0 };

	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)sa;

		e.ip.family = FAMILY_IPV4;
		memcpy(e.ip.bytes, &in->sin_addr, 4);
		e.port = ntohs(in->sin_port);
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)sa;
		const uint8_t *bytes = in6->sin6_addr.s6_addr;

		e.port = ntohs(in6->sin6_port);
		if (memcmp(bytes, mapped_prefix, 12) == 0) {
			e.ip.family = FAMILY_IPV4;
			memcpy(e.ip.bytes, bytes + 12, 4);
		} else {
			e.ip.family = FAMILY_IPV6;
			memcpy(e.ip.bytes, bytes, 16);
			if (ip_is_link_local(&e.ip))
				e.scope_id = in6->sin6_scope_id;
		}
	} else {
		return -EAFNOSUPPORT;
	}
	*ret_endpoint = e;
	return 0;
}

size_t endpoint_to_sockaddr(const struct endpoint *e, bool map_ipv4,
			    struct sockaddr_storage *ret_sa)
{
	memset(ret_sa, 0, sizeof(*ret_sa));
	if (e->ip.family == FAMILY_IPV4 && !map_ipv4) {
		struct sockaddr_in *in = (struct sockaddr_in *)ret_sa;

		in->sin_family = AF_INET;
		in->sin_port = htons(e->port);
		memcpy(&in->sin_addr, e->ip.bytes, 4);
		return sizeof(*in);
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret_sa;

	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(e->port);
	in6->sin6_scope_id = e->scope_id;
	if (e->ip.family == FAMILY_IPV4) {
		memcpy(in6->sin6_addr.s6_addr, mapped_prefix, 12);
		memcpy(in6->sin6_addr.s6_addr + 12, e->ip.bytes, 4);
	} else {
		memcpy(in6->sin6_addr.s6_addr, e->ip.bytes, 16);
	}
	return sizeof(*in6);
}
