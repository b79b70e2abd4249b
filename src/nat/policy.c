/* policy - what a peer may aim us at, and the names of things. */
#include "nat/internal.h"

#define PORT_MIN 1024

const char *nat_candidate_kind_name(enum nat_candidate_kind kind)
{
	static const char *const names[] = {
		[NAT_HOST] = "host",
		[NAT_REFLEXIVE] = "reflexive",
		[NAT_PEER_REFLEXIVE] = "peer-reflexive",
		[NAT_MAPPED] = "port-mapped",
		[NAT_RELAY] = "relay",
	};

	static_assert(ARRAY_SIZE(names) == NAT_CANDIDATE_KIND_COUNT, "a name for each");
	return kind >= NAT_HOST && kind < NAT_CANDIDATE_KIND_COUNT ? names[kind] : "?";
}

const char *nat_mapping_name(enum nat_mapping mapping)
{
	static const char *const names[] = {
		[NAT_MAPPING_UNKNOWN] = "unknown",
		[NAT_MAPPING_NONE] = "none",
		[NAT_MAPPING_INDEPENDENT] = "endpoint-independent",
		[NAT_MAPPING_DEPENDENT] = "endpoint-dependent",
	};

	static_assert(ARRAY_SIZE(names) == NAT_MAPPING_COUNT, "a name for each");
	return mapping < NAT_MAPPING_COUNT ? names[mapping] : "?";
}

const char *nat_allocation_name(enum nat_allocation allocation)
{
	static const char *const names[] = {
		[NAT_ALLOCATION_UNKNOWN] = "unknown",
		[NAT_ALLOCATION_SEQUENTIAL] = "sequential",
		[NAT_ALLOCATION_RANDOM] = "random",
	};

	static_assert(ARRAY_SIZE(names) == NAT_ALLOCATION_COUNT, "a name for each");
	return allocation < NAT_ALLOCATION_COUNT ? names[allocation] : "?";
}

const char *nat_pair_state_name(enum nat_pair_state state)
{
	static const char *const names[] = {
		[NAT_PAIR_WAITING] = "waiting", [NAT_PAIR_OPENING] = "opening",
		[NAT_PAIR_PROBING] = "probing", [NAT_PAIR_VALID] = "valid",
		[NAT_PAIR_FAILED] = "failed",
	};

	static_assert(ARRAY_SIZE(names) == NAT_PAIR_STATE_COUNT, "a name for each");
	return state < NAT_PAIR_STATE_COUNT ? names[state] : "?";
}

const char *nat_event_kind_name(enum nat_event_kind kind)
{
	static const char *const names[] = {
		[NAT_EVENT_SIGNAL] = "signal",
		[NAT_EVENT_PAIR_VALID] = "pair valid",
		[NAT_EVENT_PAIR_LOST] = "pair lost",
		[NAT_EVENT_WANT_FRESH_SOCKET] = "want fresh socket",
		[NAT_EVENT_SOCKET_UNUSED] = "socket unused",
		[NAT_EVENT_ROUND_FAILED] = "round failed",
		[NAT_EVENT_WANT_VOLLEY] = "want volley",
		[NAT_EVENT_VOLLEY_DONE] = "volley done",
	};

	static_assert(ARRAY_SIZE(names) == NAT_EVENT_KIND_COUNT, "a name for each");
	return kind >= NAT_EVENT_SIGNAL && kind < NAT_EVENT_KIND_COUNT ? names[kind] : "?";
}

static const char *why_not_ipv4(const uint8_t *bytes)
{
	if (bytes[0] == 0)
		return "unspecified or this network";
	if (bytes[0] >= 240)
		return "broadcast or reserved";
	return NULL;
}

static const char *why_not_ipv6(const uint8_t *bytes)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	static const uint8_t discard[8] = { 0x01 }; /* 100::/64, RFC 6666 */
	static const uint8_t zero[12];

	if (memcmp(bytes, mapped, sizeof(mapped)) == 0 || memcmp(bytes, zero, sizeof(zero)) == 0)
		return "IPv4 inside IPv6, unspecified or loopback";
	if (memcmp(bytes, discard, sizeof(discard)) == 0)
		return "discard-only";
	return NULL;
}

static const char *why_not(const struct endpoint *e, bool allow_loopback)
{
	if (e->ip.family != FAMILY_IPV4 && e->ip.family != FAMILY_IPV6)
		return "no address";
	if (e->port < PORT_MIN)
		return "port below 1024";
	if (ip_is_loopback(&e->ip))
		return allow_loopback ? NULL : "loopback";
	if (ip_is_multicast(&e->ip))
		return "multicast";
	if (ip_is_link_local(&e->ip))
		return "link-local";
	return e->ip.family == FAMILY_IPV4 ? why_not_ipv4(e->ip.bytes) : why_not_ipv6(e->ip.bytes);
}

int nat_endpoint_check(const struct endpoint *e, bool allow_loopback, const char **ret_why)
{
	const char *why = why_not(e, allow_loopback);

	if (ret_why)
		*ret_why = why;
	return why ? NAT_REFUSED : 0;
}
