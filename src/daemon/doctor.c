/*
 * doctor - what a helper would ask, answered: how each tunnel goes and why not
 * better, what the NATs on both sides are like, whether UDP works, what is wrong
 * with certificates and addresses. Facts for programs, sentences for people.
 */
#include "config.h"
#include "daemon/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/utsname.h>

enum {
	SENTENCE_BYTES = 512,
	ADDRESSES_MAX = 64,
	PEERS_SHOWN_MAX = 32, /* one answer has to fit into a line */
	PATIENT_TRIES = 4,    /* of a STUN question: some 2 s, then silence means something */
	CLOCK_APART_S = 120,
	CERTIFICATE_SOON_S = 14 * 86400, /* it should have been renewed by then */
};

static void say(json_t *list, const char *format, ...) PRINTF_LIKE(2, 3);
static void finding(json_t *list, const char *level, const char *hint, const char *format, ...)
	PRINTF_LIKE(4, 5);

static void say(json_t *list, const char *format, ...)
{
	char text[SENTENCE_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	json_array_append_new(list, json_string(text));
}

/* level: "ok", "note", "warning" or "problem". */
static void finding(json_t *list, const char *level, const char *hint, const char *format, ...)
{
	char text[SENTENCE_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	json_array_append_new(
		list, json_pack("{s:s,s:s,s:s}", "level", level, "text", text, "hint", hint));
}

/* ---- the system ---- */

/* PRETTY_NAME of os-release(5), or "". */
static void distribution(char *out, size_t out_bytes)
{
	FILE *file = fopen("/etc/os-release", "re");
	char line[256], name[64];

	*out = '\0';
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "PRETTY_NAME=\"%63[^\"\n]", name) == 1)
			text_sanitize(name, strlen(name), out, out_bytes);
	if (file)
		fclose(file);
}

void doctor_about(const struct utsname *names, char *out, size_t out_bytes)
{
	char system[64];

	distribution(system, sizeof(system));
	snprintf(out, out_bytes, "q2q-tun %s, %.16s %.24s %.12s%s%.40s", PACKAGE_VERSION,
		 names->sysname, names->release, names->machine, *system ? ", " : "", system);
}

/* ---- what STUN servers see of the main socket ---- */

struct view {
	size_t n_asked, n_answered, n_pending;
	bool has_mapped;
	struct endpoint mapped;
	enum nat_mapping mapping;
};

static bool is_own_address(const struct ip_address *ip)
{
	struct net_local_address list[ADDRESSES_MAX];
	const int n = net_local_addresses("q2q-", list, ARRAY_SIZE(list));

	for (int i = 0; i < n; i++)
		if (ip_equal(&list[i].ip, ip))
			return true;
	return false;
}

static void view_add(struct view *v, const struct gather_try *t)
{
	v->n_asked++;
	v->n_pending += !t->done && t->client.n_sent < PATIENT_TRIES;
	if (!t->done || t->client.state != STUN_DONE)
		return;
	v->n_answered++;
	if (!v->has_mapped) {
		v->has_mapped = true;
		v->mapped = t->client.mapped;
	} else if (v->mapping != NAT_MAPPING_DEPENDENT) {
		v->mapping = endpoint_equal(&v->mapped, &t->client.mapped) ? NAT_MAPPING_INDEPENDENT
									   : NAT_MAPPING_DEPENDENT;
	}
}

/* Of one family of servers. */
static struct view view_of(const struct daemon *d, int family)
{
	struct view v = { .mapping = NAT_MAPPING_UNKNOWN };

	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		const struct gather_try *t = &d->gather.tries[i];

		if (t->used && t->socket->number == 0 && (int)t->server.ip.family == family)
			view_add(&v, t);
	}
	if (v.has_mapped && is_own_address(&v.mapped.ip))
		v.mapping = NAT_MAPPING_NONE;
	return v;
}

static const char *udp_word(const struct view *v)
{
	if (v->n_answered)
		return "works";
	if (!v->n_asked)
		return "not tried";
	return v->n_pending ? "being tried" : "blocked";
}

/* Of this machine's side, or of the peer's. */
static const char *nat_words(enum nat_mapping mapping)
{
	switch (mapping) {
	case NAT_MAPPING_NONE:
		return "there is no NAT: the outside sees one of its own addresses";
	case NAT_MAPPING_INDEPENDENT:
		return "an easy NAT (one outside port for all destinations): direct paths through "
		       "it can be opened";
	case NAT_MAPPING_DEPENDENT:
		return "a hard NAT (another outside port for each destination, \"symmetric\"): a "
		       "direct path needs a peer that lets strangers' ports in, or luck";
	default:
		return "its NAT is not known: too few servers said how it looks from outside";
	}
}

/* How long a silent flow may be, in words for people too. */
static json_t *keepalive_json(const struct daemon *d, enum address_family family)
{
	const struct lifetime_search *s = &d->lifetime.searches[family == FAMILY_IPV6];
	const struct nat_lifetime *l = &s->search;
	const double interval_s = (double)lifetime_interval_us(d, family) / US_PER_S;

	if (!s->started)
		return json_null();
	return json_pack("{s:s,s:f,s:f,s:f,s:i,s:s}", "state", nat_lifetime_state_name(l->state),
			 "remembered_s", (double)l->lives_us / US_PER_S, "forgotten_s",
			 l->dies_us == NEVER_US ? 0.0 : (double)l->dies_us / US_PER_S, "interval_s",
			 interval_s, "tries", (int)l->n_tries, "reason",
			 l->reason ? l->reason : "");
}

static json_t *view_json(const struct view *v)
{
	char mapped[ENDPOINT_TEXT_BYTES];

	return json_pack("{s:s,s:i,s:i,s:s?,s:s,s:s}", "udp", udp_word(v), "asked", (int)v->n_asked,
			 "answered", (int)v->n_answered, "outside",
			 v->has_mapped ? endpoint_format(&v->mapped, mapped) : NULL, "nat",
			 nat_mapping_name(v->mapping), "nat_text",
			 v->has_mapped ? nat_words(v->mapping) : "");
}

static json_t *questions_json(const struct daemon *d)
{
	json_t *list = json_array();
	char server[ENDPOINT_TEXT_BYTES], mapped[ENDPOINT_TEXT_BYTES];

	for (size_t i = 0; i < GATHER_TRIES_MAX; i++) {
		const struct gather_try *t = &d->gather.tries[i];

		if (t->used)
			json_array_append_new(
				list, json_pack("{s:s,s:i,s:b,s:s?}", "server",
						endpoint_format(&t->server, server), "local_port",
						t->socket->local.port, "done", t->done, "outside",
						t->done && t->client.state == STUN_DONE
							? endpoint_format(&t->client.mapped, mapped)
							: NULL));
	}
	return list;
}

static json_t *addresses_json(void)
{
	struct net_local_address list[ADDRESSES_MAX];
	const int n = net_local_addresses("q2q-", list, ARRAY_SIZE(list));
	json_t *array = json_array();
	char text[IP_TEXT_BYTES];

	for (int i = 0; i < n; i++)
		if (!list[i].loopback && !ip_is_link_local(&list[i].ip))
			json_array_append_new(array,
					      json_pack("{s:s,s:s}", "interface", list[i].name,
							"address", ip_format(&list[i].ip, text)));
	return array;
}

static json_t *network_json(const struct daemon *d)
{
	const struct view v4 = view_of(d, FAMILY_IPV4), v6 = view_of(d, FAMILY_IPV6);
	char prefix[NAT64_TEXT_BYTES];
	json_t *ipv4 = view_json(&v4), *ipv6 = view_json(&v6);

	json_object_set_new(ipv4, "keepalive", keepalive_json(d, FAMILY_IPV4));
	json_object_set_new(ipv6, "keepalive", keepalive_json(d, FAMILY_IPV6));
	return json_pack("{s:i,s:o,s:o,s:o,s:o,s:s,s:o}", "udp_port", udp_port(d), "ipv4", ipv4,
			 "ipv6", ipv6, "stun", questions_json(d), "addresses", addresses_json(),
			 "nat64", nat64_text(d, prefix), "port_mapping", portmap_json(d));
}

/* ---- one peer: why its path is what it is ---- */

static const struct nat_pair_info *pair_in_use(const struct session_status *s,
					       const struct nat_pair_info *pairs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (pairs[i].socket == s->socket && endpoint_equal(&pairs[i].remote, &s->remote))
			return &pairs[i];
	return NULL;
}

static const char *how_found(const struct session_status *s, const struct nat_pair_info *pair)
{
	if (s->same_lan)
		return "both machines are on one network";
	if (!pair)
		return "the peer's packets come from there since its network or NAT changed";
	switch (pair->remote_kind) {
	case NAT_HOST:
		return s->remote.ip.family == FAMILY_IPV6 ? "by IPv6, which needs no translation"
							  : "the peer's own address is reachable";
	case NAT_MAPPED:
		return "the peer's router opened a port for it";
	case NAT_PEER_REFLEXIVE:
		return "the peer's probes came from there, and ours get back";
	default:
		return "both sides' probes opened the NATs between";
	}
}

static void explain_direct(json_t *list, const struct session_status *s,
			   const struct nat_pair_info *pairs, size_t n)
{
	char remote[ENDPOINT_TEXT_BYTES];

	if (s->stream) {
		say(list,
		    "packets go directly to %s by TCP, because no way for UDP was found: they wait "
		    "for "
		    "those that were lost, so a bad line is felt more",
		    endpoint_format(&s->remote, remote));
		return;
	}
	say(list, "packets go directly to %s: %s", endpoint_format(&s->remote, remote),
	    how_found(s, pair_in_use(s, pairs, n)));
}

struct families {
	bool ipv4, ipv6, outside;
	struct ip_address nat; /* IPv4: what a STUN server saw; FAMILY_NONE: nothing */
};

static struct families families_of(const struct nat_candidate *list, size_t n)
{
	struct families f = { .ipv4 = false };

	for (size_t i = 0; i < n; i++) {
		if (list[i].kind == NAT_RELAY)
			continue;
		f.ipv4 |= list[i].endpoint.ip.family == FAMILY_IPV4;
		f.ipv6 |= list[i].endpoint.ip.family == FAMILY_IPV6;
		if (list[i].kind == NAT_REFLEXIVE && list[i].endpoint.ip.family == FAMILY_IPV4)
			f.nat = list[i].endpoint.ip;
		f.outside |= list[i].kind == NAT_REFLEXIVE || list[i].kind == NAT_MAPPED ||
			     !ip_is_private(&list[i].endpoint.ip);
	}
	return f;
}

/* The reasons, the most likely first; more than one can hold. */
static void explain_relay(json_t *list, const struct link *link, const struct session_status *s)
{
	char outside[IP_TEXT_BYTES];
	struct nat_candidate own[NAT_LOCAL_MAX], theirs[NAT_REMOTE_MAX];
	const struct daemon *d = link->daemon;
	const struct view v4 = view_of(d, FAMILY_IPV4), v6 = view_of(d, FAMILY_IPV6);
	const struct families ours =
		families_of(own, session_nat_local(link_session(link), own, ARRAY_SIZE(own)));
	const struct families peers = families_of(
		theirs, session_nat_remote(link_session(link), theirs, ARRAY_SIZE(theirs)));

	if (link->peer->path_mode == SESSION_PATH_RELAY) {
		say(list, "nobody looks for a direct path: --path relay was asked for here");
		return;
	}
	if (v4.n_asked + v6.n_asked &&
	    !(v4.n_answered + v6.n_answered + v4.n_pending + v6.n_pending))
		say(list, "UDP does not get through this network: none of the servers asked "
			  "has answered, so no direct path can begin here");
	if (s->nat.n_remote && !peers.ipv4 && !peers.ipv6)
		say(list, "the peer named no address: it wants the relay, or has no UDP");
	else if (s->nat.n_remote && !peers.outside)
		say(list, "the peer named no address that is seen from outside: UDP is probably "
			  "blocked in its network");
	if ((ours.ipv4 || ours.ipv6) && (peers.ipv4 || peers.ipv6) && !(ours.ipv4 && peers.ipv4) &&
	    !(ours.ipv6 && peers.ipv6))
		say(list, "the two have no family of addresses in common: %s here, %s there",
		    ours.ipv6 ? "only IPv6" : "only IPv4", peers.ipv6 ? "only IPv6" : "only IPv4");
	if (ours.nat.family == FAMILY_IPV4 && ip_equal(&ours.nat, &peers.nat))
		say(list,
		    "both machines are behind one NAT, %s, which does not let its inside reach its "
		    "outside (\"hairpin\"): if it is your router, switch NAT loopback on; if it is "
		    "the provider's, IPv6 helps, or a port that each router opens (port-mapping)",
		    ip_format(&ours.nat, outside));
	if (s->nat.local_mapping == NAT_MAPPING_DEPENDENT &&
	    s->nat.remote_mapping == NAT_MAPPING_DEPENDENT)
		say(list, "both NATs give another port to each destination%s",
		    s->nat.local_allocation == NAT_ALLOCATION_SEQUENTIAL
			    ? ", the one here in sequence: a direct path is possible if the peer's "
			      "does so too"
			    : ", the one here at random: the peer cannot know where to send to");
	if (s->nat.n_over_budget)
		say(list,
		    "%llu packets were not sent because addresses that never answered had "
		    "got their share",
		    (unsigned long long)s->nat.n_over_budget);
	if (s->has_nat && s->nat.checking)
		say(list, "direct paths are being probed right now");
	else if (s->has_nat && !json_array_size(list))
		say(list, "%s", s->nat.reason);
}

static void explain_retry(json_t *list, const struct link *link, const struct session_status *s)
{
	const uint64_t now_us = net_loop_now_us(link->daemon->loop);

	if (s->has_nat && s->nat.retry_us != NEVER_US && s->nat.retry_us > now_us)
		say(list,
		    "a direct path is tried again in %llu s (round %u), and at once when a "
		    "network changes",
		    (unsigned long long)((s->nat.retry_us - now_us) / US_PER_S + 1), s->nat.round);
}

/* Over which kind of connection a server relays for this link. */
static const char *relay_way(const struct link *link)
{
	const struct hub_link *h;

	LIST_FOREACH (h, &link->daemon->hubs, entry)
		if (h->identity == link->identity && hub_is_ready(h) && *serverlink_way(h->server))
			return serverlink_way(h->server);
	return "TLS over TCP";
}

static json_t *explanation(struct link *link, const struct session_status *s)
{
	struct nat_pair_info pairs[NAT_PAIRS_MAX];
	const size_t n = session_nat_pairs(link_session(link), pairs, ARRAY_SIZE(pairs));
	json_t *list = json_array();
	struct problem problem;

	if (links_problem(link, &problem)) {
		say(list, "the tunnel is not up: %s", problem.error);
	} else if (!s->has_path) {
		say(list, "no path works at the moment");
	} else if (!s->relay) {
		explain_direct(list, s, pairs, n);
	} else {
		json_t *reasons = json_array();

		say(list,
		    "packets go through the server's relay by %s; they are sealed for the "
		    "peer, so the server cannot read them",
		    s->relay_udp ? "UDP" : relay_way(link));
		explain_relay(reasons, link, s);
		json_array_extend(list, reasons);
		json_decref(reasons);
		explain_retry(list, link, s);
	}
	return list;
}

static json_t *peer_json(struct peer *peer)
{
	json_t *o = links_status_full(peer);
	struct session_status s;
	struct crypto_cert *cert;

	if (!o || !peer->link)
		return o;
	session_get_status(link_session(peer->link), &s);
	cert = session_peer_cert(link_session(peer->link));
	if (cert)
		json_object_set_new(o, "certificate_expires",
				    json_integer((json_int_t)crypto_cert_not_after_s(cert)));
	json_object_set_new(o, "explanation", explanation(peer->link, &s));
	json_object_set_new(o, "nat_here",
			    json_string(s.has_nat ? nat_words(s.nat.local_mapping) : ""));
	json_object_set_new(
		o, "nat_there",
		json_string(s.has_nat && s.nat.n_remote ? nat_words(s.nat.remote_mapping) : ""));
	return o;
}

/* ---- findings ---- */

static void judge_server(json_t *findings, struct daemon *d)
{
	struct identity *id = identities_default(&d->identities, NULL);
	const struct hub_link *h = id ? hub_own(d, id) : NULL;

	if (!id)
		finding(findings, "problem", "q2q-tun register ADDRESS",
			"this machine has no identity");
	else if (h && hub_is_ready(h) && *serverlink_way(h->server))
		finding(findings, "note", "let TCP port 8788 and UDP out of this network",
			"only TLS on port 443 gets to the server of %s from here",
			id->address.domain);
	else if (h && hub_is_ready(h))
		finding(findings, "ok", "", "the server of %s is connected%s%s", id->address.domain,
			*h->about ? ": " : "", h->about);
	else
		finding(findings, "problem", "q2q-tun log shows what was tried",
			"the server of %s is not connected: %s", id->address.domain,
			h && h->problem.code ? h->problem.error : "not yet tried");
}

/* Certificates have a beginning and an end, which a clock that is wrong puts elsewhere. */
static void judge_clock(json_t *findings, struct daemon *d)
{
	struct identity *id = identities_default(&d->identities, NULL);
	const struct hub_link *h = id ? hub_own(d, id) : NULL;

	if (!h || !hub_is_ready(h) || !*h->about)
		return;
	if (llabs(h->ahead_s) > CLOCK_APART_S)
		finding(findings, "warning",
			"compare both with the real time (timedatectl here), and set the one that "
			"is wrong: certificates are judged by these clocks",
			"this machine's clock is %lld s %s that of the server of %s",
			(long long)llabs(h->ahead_s), h->ahead_s > 0 ? "behind" : "ahead of",
			h->domain);
	else
		finding(findings, "ok", "", "this machine's clock agrees with that of its server");
}

static void judge_udp(json_t *findings, const struct daemon *d)
{
	const struct view v4 = view_of(d, FAMILY_IPV4), v6 = view_of(d, FAMILY_IPV6);
	char prefix[NAT64_TEXT_BYTES];

	if (v4.n_answered || v6.n_answered)
		finding(findings, "ok", "", "UDP works%s",
			v4.n_answered && v6.n_answered ? " by IPv4 and IPv6"
			: v6.n_answered                ? " by IPv6"
						       : "");
	else if ((v4.n_asked || v6.n_asked) && !v4.n_pending && !v6.n_pending)
		finding(findings, "warning",
			"let UDP out of this network; until then tunnels go by TCP: directly where "
			"a peer can be reached by it, else through the relay",
			"UDP is blocked: no answer from any of %zu questions to servers",
			v4.n_asked + v6.n_asked);
	if (d->nat64.known.prefix_bits)
		finding(findings, "ok", "",
			"this network has IPv6 alone; IPv4 is reached through its NAT64, %s",
			nat64_text(d, prefix));
	if (v4.mapping == NAT_MAPPING_DEPENDENT && !portmap_helps(d))
		finding(findings, "note",
			"PCP, NAT-PMP or UPnP switched on in the router, or a port forwarded by "
			"hand, makes direct paths likely",
			"the NAT of this network gives another port to each destination");
}

static const char *time_left(int64_t left_s, char out[static 32])
{
	if (left_s >= 2 * 86400)
		snprintf(out, 32, "%lld days", (long long)(left_s / 86400));
	else if (left_s >= 2 * 3600)
		snprintf(out, 32, "%lld hours", (long long)(left_s / 3600));
	else
		snprintf(out, 32, "%lld minutes", (long long)(left_s / 60));
	return out;
}

static void judge_certificate(json_t *findings, const struct identity *id)
{
	const int64_t now_s = wall_clock_s(), until_s = crypto_cert_not_after_s(id->cert);
	const int64_t life_s = until_s - crypto_cert_not_before_s(id->cert);
	/* A short one is renewed when a third is left. */
	const int64_t soon_s = life_s / 6 < CERTIFICATE_SOON_S ? life_s / 6 : CERTIFICATE_SOON_S;
	char left[32];

	if (now_s >= until_s)
		finding(findings, "problem", "q2q-tun authorize ADDRESS",
			"the certificate of %s has expired", id->address.text);
	else if (now_s < crypto_cert_not_before_s(id->cert))
		finding(findings, "problem", "set this machine's clock (timedatectl)",
			"the certificate of %s is not valid yet: the clock of this machine is slow",
			id->address.text);
	else if (renew_is_refused(id) || until_s - now_s < soon_s)
		finding(findings, "warning", "q2q-tun authorize ADDRESS",
			"the certificate of %s ends in %s%s", id->address.text,
			time_left(until_s - now_s, left),
			renew_is_refused(id) ? ", and its server does not renew it" : "");
	else
		finding(findings, "ok", "", "the certificate of %s is good for %s",
			id->address.text, time_left(until_s - now_s, left));
}

/* A network of ours in the range that peers' addresses come from. */
static void judge_addresses(json_t *findings, struct daemon *d)
{
	struct net_local_address list[ADDRESSES_MAX];
	const int n = net_local_addresses("q2q-", list, ARRAY_SIZE(list));
	char text[IP_TEXT_BYTES];
	const struct link *link;
	struct vip vip;

	for (int i = 0; i < n; i++)
		if (list[i].ip.family == FAMILY_IPV4 && vip_is_ip4(list[i].ip.bytes))
			finding(findings, "note", "",
				"%s has %s, from the range that peers' addresses come from; a peer "
				"whose address is in use here is shown under another one",
				list[i].name, ip_format(&list[i].ip, text));
	LIST_FOREACH (link, &d->links, entry) {
		struct ip_address ip = { .family = FAMILY_IPV4 };

		memcpy(ip.bytes, link->shown.peer4, 4);
		if (!vip_from_address(link->peer->address.text, &vip) &&
		    memcmp(vip.ip4, link->shown.peer4, 4))
			finding(findings, "note", "",
				"the usual address of %s is taken on this machine; it is %s here",
				link->peer->address.text, ip_format(&ip, text));
	}
}

/* Whether others on this machine's networks can reach virtual addresses (CVE-2019-14899). */
static void judge_guard(json_t *findings, const struct daemon *d)
{
	const struct link *link;
	unsigned n_guarded = 0, n_open = 0;

	LIST_FOREACH (link, &d->links, entry) {
		if (link->device != DEVICE_READY)
			continue;
		n_guarded += (link->features & TUN_FEATURE_GUARD) != 0;
		n_open += (link->features & TUN_FEATURE_GUARD) == 0;
	}
	if (n_open > 0)
		finding(findings, "warning",
			"a kernel with nftables (nf_tables), or a firewall rule of your own, keeps "
			"them out",
			"packets for virtual addresses that others on this machine's networks send "
			"are not dropped");
	else if (n_guarded > 0)
		finding(findings, "ok", "", "virtual addresses are reached through tunnels alone");
}

static json_t *findings_json(struct daemon *d)
{
	json_t *findings = json_array();
	const struct identity *id;

	judge_server(findings, d);
	judge_clock(findings, d);
	TAILQ_FOREACH (id, &d->identities.list, entry)
		judge_certificate(findings, id);
	judge_udp(findings, d);
	judge_addresses(findings, d);
	judge_guard(findings, d);
	return findings;
}

/* ---- the command ---- */

void command_doctor(struct op *op)
{
	struct daemon *d = op->daemon;
	const bool one = ctl_text(&op->request, "address") != NULL;
	json_t *peers = json_array(), *identities = json_array();
	const struct identity *id;
	struct peer *peer = NULL;

	if (one) {
		peer = op_peer(op);
		if (!peer) {
			json_decref(peers);
			json_decref(identities);
			return;
		}
		json_array_append_new(peers, peer_json(peer));
	}
	TAILQ_FOREACH (peer, &d->peers, entry)
		if (!one && peer->link && json_array_size(peers) < PEERS_SHOWN_MAX)
			json_array_append_new(peers, peer_json(peer));
	TAILQ_FOREACH (id, &d->identities.list, entry)
		json_array_append_new(identities, identities_json(d, id));
	op_done(op, json_pack("{s:i,s:{s:s,s:s,s:I},s:o,s:o,s:o,s:o,s:o}", "v", CTL_VERSION,
			      "daemon", "about", d->about, "device", d->device, "up_s",
			      (json_int_t)(wall_clock_s() - d->started_s), "self", status_self(d),
			      "identities", identities, "network", network_json(d), "peers", peers,
			      "findings", findings_json(d)));
}
