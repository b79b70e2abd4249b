/*
 * What `status` says about one peer.
 */
#include "daemon/internal.h"

const char *status_path_kind(const struct session_status *s)
{
	if (!s->has_path)
		return "none";
	if (!s->relay)
		return s->stream ? "direct-tcp" : "direct-udp";
	return s->relay_udp ? "relay-udp" : "relay-tcp";
}

static uint16_t port_of(const struct link *link, uint8_t socket)
{
	return socket < UDP_SOCKETS_MAX ? link->worker->udp.sockets[socket].local.port : 0;
}

static json_t *status_path(const struct link *link, const struct session_status *s)
{
	struct endpoint from;
	char local[ENDPOINT_TEXT_BYTES] = "", remote[ENDPOINT_TEXT_BYTES] = "";

	if (s->state != SESSION_UP || !s->has_path)
		return json_null();
	if (s->stream) {
		endpoint_format(&s->remote, remote);
	} else if (!s->relay || s->relay_udp) {
		from = udp_local_for(link->daemon, port_of(link, s->socket), &s->remote);
		endpoint_format(&from, local);
		endpoint_format(&s->remote, remote);
	}
	return json_pack("{s:s,s:s,s:s,s:I,s:i,s:b}", "kind", status_path_kind(s), "local", local,
			 "remote", remote, "rtt_us", (json_int_t)s->rtt_us, "mtu",
			 (int)s->mtu_bytes, "same_lan", s->same_lan);
}

static const char *state_text(const struct peer *peer, const struct session_status *s)
{
	switch (s->state) {
	case SESSION_UP:
		return "up";
	case SESSION_DOWN:
	case SESSION_CLOSING:
		return "down";
	case SESSION_WAITING:
		return peer->wanted ? "connecting" : "down";
	default:
		return "connecting";
	}
}

static const char *ip4_text(const uint8_t ip4[static 4], char out[static IP_TEXT_BYTES])
{
	struct ip_address ip = { .family = FAMILY_IPV4 };

	memcpy(ip.bytes, ip4, 4);
	return ip_format(&ip, out);
}

static const char *ip6_text(const uint8_t ip6[static 16], char out[static IP_TEXT_BYTES])
{
	struct ip_address ip = { .family = FAMILY_IPV6 };

	memcpy(ip.bytes, ip6, 16);
	return ip_format(&ip, out);
}

static json_t *status_without_link(const struct peer *peer)
{
	char v4[IP_TEXT_BYTES], v6[IP_TEXT_BYTES];
	struct vip vip;

	if (vip_from_address(peer->address.text, &vip))
		return NULL;
	return json_pack("{s:s,s:s,s:n,s:s,s:s,s:n,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s}", "address",
			 peer->address.text, "state", "down", "interface", "ipv4",
			 ip4_text(peer->has_local4 ? peer->local4 : vip.ip4, v4), "ipv6",
			 ip6_text(vip.ip6, v6), "path", "since", (json_int_t)0, "bytes_sent",
			 (json_int_t)0, "bytes_received", (json_int_t)0, "packets_lost",
			 (json_int_t)0, "packets_retransmitted", (json_int_t)0, "packets_rebuilt",
			 (json_int_t)0, "parity_bytes_sent", (json_int_t)0, "reason",
			 peer->held ? "taken down on this machine" : "nobody asked for it");
}

/* Packets on their way to the peer: what stands, and how senders were told to slow down. */
static json_t *status_queue(const struct ptcp_stats *p)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "bytes", (json_int_t)p->send_queue_bytes,
			 "copied", (json_int_t)p->messages_copied, "marked",
			 (json_int_t)p->messages_marked, "shortened",
			 (json_int_t)p->messages_shortened, "dropped",
			 (json_int_t)p->messages_dropped_queue, "dropped_full",
			 (json_int_t)p->messages_dropped_full);
}

/* Figures that explain the rest; scripts may use them, but they may change. */
static json_t *status_detail(const struct link *link, const struct session_status *s)
{
	return json_pack(
		"{s:i,s:s,s:s,s:b,s:s,s:s?,s:s,s:s,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}",
		"worker", (int)link->worker->number, "session", session_state_name(s->state), "why",
		session_why_name(s->why), "rendezvous", s->has_rendezvous, "tls", s->tls, "nat",
		s->has_nat ? s->nat.reason : NULL, "nat_local",
		nat_mapping_name(s->nat.local_mapping), "nat_remote",
		nat_mapping_name(s->nat.remote_mapping), "nat_round", (int)s->nat.round, "nat_sent",
		(json_int_t)s->nat.n_sent, "nat_over_budget", (json_int_t)s->nat.n_over_budget,
		"tun_bad", (json_int_t)s->tun_bad, "tun_discarded", (json_int_t)s->tun_discard,
		"tun_write_dropped", (json_int_t)link->tun_write_dropped, "peer_bad",
		(json_int_t)s->peer_bad, "datagrams_bad", (json_int_t)s->datagrams_bad,
		"messages_abandoned", (json_int_t)s->ptcp.messages_abandoned, "messages_dropped",
		(json_int_t)(s->ptcp.messages_dropped_queue + s->ptcp.messages_dropped_memory),
		"queue", status_queue(&s->ptcp));
}

json_t *links_status(struct peer *peer)
{
	char v4[IP_TEXT_BYTES], v6[IP_TEXT_BYTES];
	struct link *link = peer->link;
	struct problem problem = { .error = "" };
	struct session_status s;

	if (!link)
		return status_without_link(peer);
	session_get_status(link_session(link), &s);
	links_problem(link, &problem);
	return json_pack("{s:s,s:s,s:s?,s:s,s:s,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:s,s:o}",
			 "address", peer->address.text, "state", state_text(peer, &s), "interface",
			 link->device == DEVICE_READY ? link->ifname : NULL, "ipv4",
			 ip4_text(link->shown.peer4, v4), "ipv6", ip6_text(link->shown.peer6, v6),
			 "path", status_path(link, &s), "since", (json_int_t)link->since_s,
			 "bytes_sent", (json_int_t)s.tun_sent_bytes, "bytes_received",
			 (json_int_t)s.tun_received_bytes, "packets_lost",
			 (json_int_t)s.ptcp.packets_lost, "packets_retransmitted",
			 (json_int_t)s.ptcp.fragments_resent, "packets_rebuilt",
			 (json_int_t)s.ptcp.packets_rebuilt, "parity_bytes_sent",
			 (json_int_t)s.ptcp.parity_bytes_sent, "reason", problem.error, "device",
			 s.device, "detail", status_detail(link, &s));
}

/* ---- everything ---- */

static json_t *candidates_json(const struct link *link, const struct nat_candidate *list, size_t n,
			       bool own)
{
	json_t *array = json_array();
	char text[ENDPOINT_TEXT_BYTES], server[ENDPOINT_TEXT_BYTES];

	for (size_t i = 0; i < n; i++) {
		const struct nat_candidate *c = &list[i];
		json_t *one =
			json_pack("{s:s,s:s}", "kind", nat_candidate_kind_name(c->kind), "address",
				  c->kind == NAT_RELAY ? "" : endpoint_format(&c->endpoint, text));

		if (own && c->kind != NAT_RELAY)
			json_object_set_new(one, "local_port",
					    json_integer(port_of(link, c->socket)));
		if (own && c->kind == NAT_REFLEXIVE && c->server.ip.family != FAMILY_NONE)
			json_object_set_new(one, "seen_by",
					    json_string(endpoint_format(&c->server, server)));
		json_array_append_new(array, one);
	}
	return array;
}

static json_t *local_json(struct link *link)
{
	struct nat_candidate list[NAT_LOCAL_MAX];

	return candidates_json(link, list,
			       session_nat_local(link_session(link), list, ARRAY_SIZE(list)), true);
}

static json_t *remote_json(struct link *link)
{
	struct nat_candidate list[NAT_REMOTE_MAX];

	return candidates_json(
		link, list, session_nat_remote(link_session(link), list, ARRAY_SIZE(list)), false);
}

static json_t *pairs_json(struct link *link, const struct session_status *s)
{
	struct nat_pair_info list[NAT_PAIRS_MAX];
	const size_t n = session_nat_pairs(link_session(link), list, ARRAY_SIZE(list));
	json_t *array = json_array();
	char text[ENDPOINT_TEXT_BYTES];

	for (size_t i = 0; i < n; i++) {
		const struct nat_pair_info *p = &list[i];

		json_array_append_new(
			array, json_pack("{s:i,s:s,s:s,s:s,s:s,s:i,s:b,s:I,s:b,s:b}", "local_port",
					 port_of(link, p->socket), "remote",
					 endpoint_format(&p->remote, text), "kind",
					 nat_candidate_kind_name(p->remote_kind), "state",
					 nat_pair_state_name(p->state), "reason", p->reason, "sent",
					 (int)p->n_sent, "heard", p->heard, "rtt_us",
					 (json_int_t)p->rtt_us, "same_lan", p->same_lan, "in_use",
					 s->has_path && !s->relay && s->socket == p->socket &&
						 endpoint_equal(&s->remote, &p->remote)));
	}
	return array;
}

static const char *path_kind_text(enum ptcp_path_kind kind)
{
	if (kind <= PTCP_PATH_DIRECT_STREAM)
		return kind == PTCP_PATH_DIRECT ? "direct-udp" : "direct-tcp";
	return kind == PTCP_PATH_RELAY ? "relay-udp" : "relay-tcp";
}

static json_t *paths_json(const struct link *link)
{
	struct session_path_info list[PTCP_PATHS_MAX];
	const size_t n = session_paths(link_session(link), list, ARRAY_SIZE(list));
	json_t *array = json_array();
	char text[ENDPOINT_TEXT_BYTES];

	for (size_t i = 0; i < n; i++) {
		const struct session_path_info *p = &list[i];

		json_array_append_new(
			array, json_pack("{s:s,s:s,s:s,s:b,s:i,s:I,s:I,s:I,s:I,s:s,s:b}", "kind",
					 path_kind_text(p->stats.kind), "remote",
					 p->remote.ip.family == FAMILY_NONE
						 ? ""
						 : endpoint_format(&p->remote, text),
					 "state", ptcp_path_state_name(p->stats.state), "in_use",
					 p->stats.active, "mtu", (int)p->stats.mtu_bytes, "rtt_us",
					 (json_int_t)p->stats.srtt_us, "bytes_sent",
					 (json_int_t)p->stats.bytes_sent, "bytes_received",
					 (json_int_t)p->stats.bytes_received, "packets_lost",
					 (json_int_t)p->stats.packets_lost, "congestion_control",
					 p->stats.cc ? p->stats.cc : "", "ecn", p->stats.ecn));
	}
	return array;
}

json_t *links_status_full(struct peer *peer)
{
	json_t *status = links_status(peer);
	struct session_status s;

	if (!status || !peer->link)
		return status;
	session_get_status(link_session(peer->link), &s);
	json_object_set_new(status, "about", json_string(s.about));
	json_object_set_new(status, "local", local_json(peer->link));
	json_object_set_new(status, "remote", remote_json(peer->link));
	json_object_set_new(status, "pairs", pairs_json(peer->link, &s));
	json_object_set_new(status, "paths", paths_json(peer->link));
	return status;
}
