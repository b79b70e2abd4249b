/*
 * The gateway's port for our main socket, by PCP or NAT-PMP (nat.h). Nobody but
 * the default gateway is asked, and only what comes from its port is read. The
 * candidate is told to the sessions when it is there; it is given back when we end.
 */
#include "daemon/internal.h"

#include <net/route.h>
#include <stdio.h>

#define ROUTES "/proc/self/net/route" /* as /proc/net, which a service manager may hide */

/* ---- the default gateway ---- */

/* One line of ROUTES; the address is in memory order. False: it is no default route. */
static bool parse_route(const char *line, uint32_t *ret_gateway, unsigned *ret_metric)
{
	unsigned destination, gateway, flags, metric, mask;

	if (sscanf(line, "%*15s %8x %8x %4x %*d %*d %u %8x", &destination, &gateway, &flags,
		   &metric, &mask) != 5)
		return false;
	if (destination || mask || (flags & (RTF_UP | RTF_GATEWAY)) != (RTF_UP | RTF_GATEWAY))
		return false;
	*ret_gateway = gateway;
	*ret_metric = metric;
	return true;
}

static bool find_gateway(struct endpoint *ret_gateway)
{
	FILE *file = fopen(ROUTES, "re");
	unsigned best = UINT32_MAX, metric;
	uint32_t gateway;
	char line[256];
	bool found = false;

	while (file && fgets(line, sizeof(line), file))
		if (parse_route(line, &gateway, &metric) && (!found || metric < best)) {
			found = true;
			best = metric;
			*ret_gateway = (struct endpoint){ .ip.family = FAMILY_IPV4,
							  .port = NAT_PORTMAP_PORT };
			memcpy(ret_gateway->ip.bytes, &gateway, sizeof(gateway));
		}
	if (file)
		fclose(file);
	return found;
}

/* ---- the mapping ---- */

/* False: none. An address that the gateway's own NAT hides is of no use to peers. */
static bool candidate_of(const struct portmap *p, struct nat_candidate *ret_candidate)
{
	*ret_candidate =
		(struct nat_candidate){ .kind = NAT_MAPPED, .endpoint = p->client.external };
	return p->client.external.port != 0 && !ip_is_private(&p->client.external.ip);
}

void portmap_tell(struct daemon *d, struct link *link)
{
	struct nat_candidate c;

	if (candidate_of(&d->portmap, &c))
		session_add_local(link->session, &c, link_now_us(link));
}

static void tell_all(struct daemon *d)
{
	struct link *link;

	LIST_FOREACH (link, &d->links, entry) {
		portmap_tell(d, link);
		links_pump(link);
	}
}

/* What the client says now is news: into the log, and to the sessions. */
static void note_change(struct portmap *p, const struct endpoint *before)
{
	const struct endpoint *now = &p->client.external;
	char text[ENDPOINT_TEXT_BYTES];

	if (p->client.state == NAT_PORTMAP_NONE && p->reason != p->client.reason)
		log_info("no port is mapped: %s", p->client.reason);
	p->reason = p->client.reason;
	if (p->client.state != NAT_PORTMAP_MAPPED || endpoint_equal(before, now))
		return;
	log_info("the gateway maps %s to us (%s)%s", endpoint_format(now, text),
		 nat_portmap_method_name(p->client.method),
		 ip_is_private(&now->ip) ? "; it is behind a NAT itself" : "");
	tell_all(p->daemon);
}

static void send_request(struct portmap *p, const uint8_t *data, size_t n_bytes)
{
	const struct net_udp_send send = {
		.to = p->gateway, .from = p->local, .data = data, .data_bytes = n_bytes
	};

	if (n_bytes > 0)
		(void)net_udp_send(p->udp, &send); /* lost: it is sent again */
}

static void move(struct portmap *p, uint64_t now_us)
{
	const struct endpoint before = p->told;
	uint8_t request[NAT_PORTMAP_BYTES_MAX];

	nat_portmap_tick(&p->client, now_us);
	send_request(p, request, nat_portmap_output(&p->client, request, now_us));
	note_change(p, &before);
	if (p->client.state == NAT_PORTMAP_MAPPED || p->client.state == NAT_PORTMAP_NONE)
		p->told = p->client.external;
	net_timer_arm(&p->timer, nat_portmap_deadline_us(&p->client));
}

static void on_timer(void *user, uint64_t now_us)
{
	move(user, now_us);
}

static void on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		       size_t n_packets, uint64_t now_us)
{
	struct portmap *p = user;

	(void)udp;
	for (size_t i = 0; i < n_packets; i++)
		if (endpoint_equal(&packets[i].from, &p->gateway) &&
		    nat_portmap_input(&p->client, packets[i].data,
				      min_size(packets[i].segment_bytes, packets[i].data_bytes),
				      now_us) == 0)
			move(p, now_us);
}

/* ---- life ---- */

static void give_back(struct portmap *p)
{
	uint8_t request[NAT_PORTMAP_BYTES_MAX];

	if (p->udp)
		send_request(p, request, nat_portmap_release(&p->client, request));
	net_timer_disarm(&p->timer);
	p->client = (struct nat_portmap){ .state = NAT_PORTMAP_IDLE };
	p->told = (struct endpoint){ 0 };
}

static int open_socket(struct portmap *p)
{
	const struct net_udp_config config = { .bind.ip.family = FAMILY_IPV4,
					       .on_packets = on_packets,
					       .user = p,
					       .buffer_bytes = 4096 };

	return p->udp ? 0 : net_udp_new(p->daemon->loop, &config, &p->udp);
}

void portmap_restart(struct daemon *d)
{
	struct portmap *p = &d->portmap;
	struct nat_portmap_config config = { .lifetime_s = NAT_PORTMAP_LIFETIME_S };
	struct endpoint gateway, local;

	if (!d->options->port_mapping)
		return;
	if (!find_gateway(&gateway) || gather_avoids(d, &gateway.ip)) {
		give_back(p);
		return;
	}
	local = udp_local_for(d, udp_port(d), &gateway);
	if (p->client.state != NAT_PORTMAP_IDLE && endpoint_equal(&p->gateway, &gateway) &&
	    ip_equal(&p->local, &local.ip)) {
		tell_all(d);
		nat_portmap_renew(&p->client, net_loop_now_us(d->loop)); /* it may have restarted */
		move(p, net_loop_now_us(d->loop));
		return;
	}
	give_back(p);
	/* A machine with a public address of its own has nothing to map. */
	if (local.ip.family != FAMILY_IPV4 || !ip_is_private(&local.ip) || open_socket(p) ||
	    crypto_random(config.nonce, sizeof(config.nonce)))
		return;
	p->gateway = gateway;
	p->local = local.ip;
	config.gateway = gateway.ip;
	config.local = local.ip;
	config.port = local.port;
	nat_portmap_start(&p->client, &config, net_loop_now_us(d->loop));
	move(p, net_loop_now_us(d->loop));
}

void portmap_start(struct daemon *d)
{
	d->portmap.daemon = d;
	net_timer_init(&d->portmap.timer, d->loop, on_timer, &d->portmap);
	portmap_restart(d);
}

void portmap_stop(struct daemon *d)
{
	if (!d->portmap.daemon)
		return;
	give_back(&d->portmap);
	net_udp_free(d->portmap.udp);
	d->portmap.udp = NULL;
}
