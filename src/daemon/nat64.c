/*
 * Where this machine has a way out by IPv6 alone, its network may translate to
 * IPv4: the resolver's made-up addresses of ipv4only.arpa say by which prefix
 * (RFC 7050). The sockets of the loop are told, and do the rest (net/nat64.c).
 *
 * Asked when the network changes. Looking for paths waits a moment for the answer:
 * begun without, it would be in vain and had to begin again.
 */
#include "daemon/internal.h"

#include <stdio.h>

#define PATIENCE_US    (300 * US_PER_MS)
#define RETRY_FIRST_US (1 * US_PER_S)
#define RETRY_MAX_US   (300 * US_PER_S)

/* Addresses of nobody: only the kernel is asked for a way there. */
static bool has_way_out(const char *far)
{
	struct endpoint remote;

	return !endpoint_parse(far, false, &remote) && udp_route(&remote).ip.family != FAMILY_NONE;
}

static bool is_needed(void)
{
	return !has_way_out("192.0.2.1:9") && has_way_out("[2001:db8::1]:9");
}

static bool is_same(const struct net_nat64 *a, const struct net_nat64 *b)
{
	return a->prefix_bits == b->prefix_bits && a->private_is_near == b->private_is_near &&
	       ip_equal(&a->prefix, &b->prefix);
}

const char *nat64_text(const struct daemon *d, char out[static NAT64_TEXT_BYTES])
{
	const struct net_nat64 *known = &d->nat64.known;
	char prefix[IP_TEXT_BYTES];

	if (known->prefix_bits)
		snprintf(out, NAT64_TEXT_BYTES, "%s/%u", ip_format(&known->prefix, prefix),
			 known->prefix_bits);
	else
		*out = '\0';
	return out;
}

static void use(struct nat64 *n, const struct net_nat64 *found)
{
	char text[NAT64_TEXT_BYTES];

	n->known = *found;
	workers_set_nat64(n->daemon, found);
	if (found->prefix_bits)
		log_info("this network has no IPv4, but translates it: NAT64 with %s",
			 nat64_text(n->daemon, text));
	else
		log_info("no NAT64 any more");
}

/* Looking for paths has waited, or has begun with less than is known now. */
static void look_again(struct nat64 *n, bool changed)
{
	const bool waited = n->waiting;

	n->waiting = false;
	if (changed)
		hub_wake_all(n->daemon);
	if (changed || waited)
		gather_restart(n->daemon);
}

static void plan(struct nat64 *n, bool found)
{
	const uint64_t now_us = net_loop_now_us(n->daemon->loop);
	uint64_t delay_us = RETRY_FIRST_US;

	for (unsigned i = 0; i < n->n_failures && delay_us < RETRY_MAX_US; i++)
		delay_us *= 2;
	n->n_failures += !found;
	net_timer_arm(&n->timer, found ? NEVER_US : now_us + min_u64(delay_us, RETRY_MAX_US));
}

static void on_answer(void *user, const struct net_resolved *result)
{
	struct nat64 *n = user;
	struct net_nat64 found = { .prefix_bits = 0 };
	bool changed;

	n->query = NULL;
	/* That no answer came says nothing of the network. */
	if (result->error && result->error != -ENOENT)
		found = n->known;
	else if (net_nat64_detect(result->endpoints, result->n_endpoints, &found))
		found.private_is_near = gather_has_ipv4(n->daemon);
	changed = !is_same(&found, &n->known);
	if (changed)
		use(n, &found);
	plan(n, !result->error && found.prefix_bits);
	look_again(n, changed);
}

static void ask(struct nat64 *n)
{
	if (!net_resolve_nat64(n->daemon->resolver, on_answer, n, &n->query))
		return;
	n->query = NULL;
	plan(n, false);
}

static void on_timer(void *user, uint64_t now_us)
{
	struct nat64 *n = user;

	(void)now_us;
	if (!n->query)
		ask(n);
	look_again(n, false);
}

bool nat64_restart(struct daemon *d)
{
	struct nat64 *n = &d->nat64;
	const struct net_nat64 none = { .prefix_bits = 0 };

	net_query_cancel(n->query);
	n->query = NULL;
	n->waiting = false;
	n->n_failures = 0;
	net_timer_disarm(&n->timer);
	if (!is_needed()) {
		if (n->known.prefix_bits)
			use(n, &none);
		return false;
	}
	n->waiting = true;
	ask(n);
	if (n->query)
		net_timer_arm(&n->timer, net_loop_now_us(d->loop) + PATIENCE_US);
	return true;
}

void nat64_start(struct daemon *d)
{
	d->nat64.daemon = d;
	net_timer_init(&d->nat64.timer, d->loop, on_timer, &d->nat64);
	nat64_restart(d);
	d->nat64.waiting = false; /* nothing has begun yet */
}

void nat64_stop(struct daemon *d)
{
	net_query_cancel(d->nat64.query);
	d->nat64.query = NULL;
	net_timer_disarm(&d->nat64.timer);
}
