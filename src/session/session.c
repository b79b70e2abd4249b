/*
 * Life, time and figures of a session.
 */
#include "session/internal.h"

#include <stdio.h>

/* ---- life ---- */

static int set_texts(struct session *s, const struct session_config *config)
{
	const size_t own = strlen(config->own_address), peer = strlen(config->peer_address);

	if (own > VIP_ADDRESS_BYTES_MAX || peer > VIP_ADDRESS_BYTES_MAX || own == 0 || peer == 0)
		return -EINVAL;
	memcpy(s->own_address, config->own_address, own);
	memcpy(s->peer_address, config->peer_address, peer);
	snprintf(s->device, sizeof(s->device), "%s", config->device ? config->device : "");
	snprintf(s->about, sizeof(s->about), "%s", config->about ? config->about : "");
	s->config.own_address = s->own_address;
	s->config.peer_address = s->peer_address;
	s->config.device = s->device;
	s->config.about = s->about;
	return 0;
}

static int set_canonical(struct session *s)
{
	struct vip own, peer;
	int r = vip_from_address(s->own_address, &own);

	if (!r)
		r = vip_from_address(s->peer_address, &peer);
	if (r)
		return r;
	memcpy(s->canonical.own4, own.ip4, 4);
	memcpy(s->canonical.peer4, peer.ip4, 4);
	memcpy(s->canonical.own6, own.ip6, 16);
	memcpy(s->canonical.peer6, peer.ip6, 16);
	return 0;
}

struct session_scratch *session_scratch_new(void)
{
	return malloc(sizeof(struct session_scratch));
}

void session_scratch_free(struct session_scratch *scratch)
{
	free(scratch);
}

int session_new(const struct session_config *config, uint64_t now_us, struct session **ret_session)
{
	struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->config = *config;
	s->config.tls = crypto_tls_context_ref(config->tls);
	s->since_us = now_us;
	s->retry_us = now_us;
	s->close_deadline_us = NEVER_US;
	s->pending.deadline_us = s->open.deadline_us = NEVER_US;
	s->active_path_id = PTCP_PATH_NONE;
	s->next_path_id = 1;
	STAILQ_INIT(&s->signals);
	session_channel_clear(s);
	s->streams.connect_us = NEVER_US;
	s->own_scratch = config->scratch ? NULL : session_scratch_new();
	s->scratch = config->scratch ? config->scratch : s->own_scratch;
	s->events = malloc(EVENTS_FIRST * sizeof(*s->events));
	s->event_room = EVENTS_FIRST;
	r = s->scratch && s->events ? set_texts(s, config) : -ENOMEM;
	if (!r)
		r = set_canonical(s);
	if (r) {
		session_free(s);
		return r;
	}
	*ret_session = s;
	return 0;
}

void session_free(struct session *s)
{
	struct signal *signal;

	if (!s)
		return;
	session_drop_association(s);
	nat_agent_free(s->nat);
	session_streams_fini(s);
	session_channel_clear(s);
	rendezvous_clear(&s->open);
	rendezvous_clear(&s->pending);
	while ((signal = STAILQ_FIRST(&s->signals))) {
		STAILQ_REMOVE_HEAD(&s->signals, entry);
		free(signal);
	}
	free(s->signal_lent);
	crypto_tls_context_unref(s->config.tls);
	session_scratch_free(s->own_scratch);
	free(s->events);
	free(s);
}

void session_want(struct session *s, bool wanted, uint64_t now_us)
{
	if (wanted) {
		s->wanted = true;
		session_dispatch(s, INPUT_WANT, NULL, now_us);
		session_wake(s, now_us);
		return;
	}
	s->wanted = false;
	session_close(s, SESSION_CLOSE_DOWN, now_us);
	rendezvous_clear(&s->pending);
	session_dispatch(s, INPUT_UNWANT, NULL, now_us);
}

void session_close(struct session *s, uint64_t code, uint64_t now_us)
{
	if (!s->assoc || s->state == SESSION_CLOSING)
		return;
	ptcp_assoc_close(s->assoc, code, now_us);
	session_pull(s, now_us);
}

void session_set_identity(struct session *s, struct crypto_tls_context *tls,
			  const struct crypto_key *own_key)
{
	struct crypto_tls_context *old = s->config.tls;

	s->config.tls = crypto_tls_context_ref(tls);
	s->config.own_key = own_key;
	crypto_tls_context_unref(old);
}

void session_set_options(struct session *s, const struct session_options *options)
{
	s->config.copy_dscp = options->copy_dscp;
	s->config.parity = options->parity;
	s->config.congestion_control = options->congestion_control;
}

void session_set_path_mode(struct session *s, enum session_path_mode mode, uint64_t now_us)
{
	if (s->path_mode == mode)
		return;
	s->path_mode = mode;
	if (s->assoc)
		ptcp_set_relay_allowed(
			s->assoc, mode == SESSION_PATH_AUTO || mode == SESSION_PATH_RELAY, now_us);
	rendezvous_drop_agent(s);
	if (mode == SESSION_PATH_RELAY)
		session_paths_drop_direct(s, now_us);
	session_channel_check(s, now_us);
	session_streams_replan(s, now_us);
	if (s->open.phase == RENDEZVOUS_OPEN && !rendezvous_make_agent(s, now_us))
		rendezvous_trickle(s, now_us);
	session_pull(s, now_us);
}

/* ---- sockets and candidates ---- */

/* In place of an older one of that number. */
static int add_socket(struct session *s, uint8_t socket, bool ipv4, bool ipv6, uint64_t now_us)
{
	session_remove_socket(s, socket, now_us);
	if (s->n_sockets == SESSION_SOCKETS_MAX)
		return -ENOBUFS;
	s->sockets[s->n_sockets++] =
		(struct socket_info){ .socket = socket, .ipv4 = ipv4, .ipv6 = ipv6 };
	return 0;
}

int session_add_socket(struct session *s, uint8_t socket, bool ipv4, bool ipv6, uint64_t now_us)
{
	int r;

	for (size_t i = 0; i < s->n_sockets; i++)
		if (s->sockets[i].socket == socket && s->sockets[i].ipv4 == ipv4 &&
		    s->sockets[i].ipv6 == ipv6)
			return 0;
	r = add_socket(s, socket, ipv4, ipv6, now_us);
	if (r == 0 && s->nat)
		nat_agent_add_socket(s->nat, socket, ipv4, ipv6, now_us);
	return r;
}

int session_adopt_socket(struct session *s, uint8_t socket, bool ipv4, bool ipv6, uint64_t now_us)
{
	const int r = add_socket(s, socket, ipv4, ipv6, now_us);

	if (r == 0 && s->nat)
		nat_agent_adopt_socket(s->nat, socket, ipv4, ipv6, now_us);
	return r;
}

void session_volley_opened(struct session *s, unsigned n_sockets, uint64_t now_us)
{
	if (s->nat)
		nat_agent_volley_opened(s->nat, n_sockets, now_us);
	session_pull(s, now_us);
}

bool session_volley_input(struct session *s, const uint8_t *data, size_t n_bytes)
{
	return s->nat && nat_agent_volley_input(s->nat, data, n_bytes);
}

void session_remove_socket(struct session *s, uint8_t socket, uint64_t now_us)
{
	for (size_t i = 0; i < s->n_sockets; i++)
		if (s->sockets[i].socket == socket) {
			s->sockets[i] = s->sockets[--s->n_sockets];
			if (s->nat)
				nat_agent_remove_socket(s->nat, socket, now_us);
			break;
		}
	for (size_t i = 0; i < s->n_locals;)
		if (s->locals[i].socket == socket)
			s->locals[i] = s->locals[--s->n_locals];
		else
			i++;
	session_pull(s, now_us);
}

int session_add_local(struct session *s, const struct nat_candidate *candidate, uint64_t now_us)
{
	if (s->n_locals == NAT_LOCAL_MAX)
		return -ENOBUFS;
	for (size_t i = 0; i < s->n_locals; i++)
		if (s->locals[i].socket == candidate->socket &&
		    s->locals[i].kind == candidate->kind &&
		    endpoint_equal(&s->locals[i].endpoint, &candidate->endpoint) &&
		    endpoint_equal(&s->locals[i].server, &candidate->server))
			return 0;
	s->locals[s->n_locals++] = *candidate;
	if (s->nat && (s->path_mode != SESSION_PATH_LAN || candidate->kind == NAT_HOST))
		nat_agent_add_local(s->nat, candidate, now_us);
	session_pull(s, now_us);
	return 0;
}

void session_clear_local(struct session *s)
{
	s->n_locals = 0;
	if (s->nat)
		nat_agent_clear_local(s->nat);
}

void session_gathered(struct session *s, uint64_t now_us)
{
	if (s->nat)
		nat_agent_gathered(s->nat, now_us);
	session_pull(s, now_us);
}

void session_network_changed(struct session *s, uint64_t now_us)
{
	if (s->assoc)
		for (size_t i = 0; i < PATHS_MAX; i++)
			if (s->paths[i].id)
				ptcp_path_check(s->assoc, s->paths[i].id, now_us);
	if (s->nat)
		nat_agent_restart(s->nat, now_us);
	session_channel_check(s, now_us);
	session_streams_replan(s, now_us);
	session_wake(s, now_us);
	session_pull(s, now_us);
}

/* ---- time ---- */

uint64_t session_deadline_us(const struct session *s)
{
	uint64_t due_us = min_u64(s->close_deadline_us, NEVER_US);

	if (s->assoc)
		due_us = min_u64(due_us, ptcp_deadline_us(s->assoc));
	if (s->nat)
		due_us = min_u64(due_us, nat_agent_deadline_us(s->nat));
	if (s->pending.phase != RENDEZVOUS_NONE)
		due_us = min_u64(due_us, s->pending.deadline_us);
	if (session_needs_rendezvous(s))
		due_us = min_u64(due_us, s->retry_us);
	due_us = min_u64(due_us, session_channel_deadline_us(s));
	due_us = min_u64(due_us, session_streams_deadline_us(s));
	return due_us;
}

void session_tick(struct session *s, uint64_t now_us)
{
	if (s->assoc)
		ptcp_tick(s->assoc, now_us);
	if (s->nat)
		nat_agent_tick(s->nat, now_us);
	session_channel_tick(s, now_us);
	session_streams_tick(s, now_us);
	session_pull(s, now_us);
	if (now_us >= s->close_deadline_us)
		session_finish_close(s, now_us);
	if (s->pending.phase != RENDEZVOUS_NONE && now_us >= s->pending.deadline_us)
		rendezvous_fail(s, SESSION_WHY_TIMED_OUT,
				s->pending.phase == RENDEZVOUS_ASKING
					? "the peer's server did not answer in time"
					: "the peer asked for a link, then said no more",
				now_us);
	if (session_needs_rendezvous(s) && now_us >= s->retry_us)
		rendezvous_ask(s, now_us);
}

int session_ping(struct session *s, uint32_t id, uint64_t now_us)
{
	return s->state == SESSION_UP ? ptcp_ping(s->assoc, id, now_us) : -ENOTCONN;
}

struct crypto_cert *session_peer_cert(const struct session *s)
{
	return s->assoc_cert;
}

struct ptcp_assoc *session_assoc(struct session *s)
{
	return s->state == SESSION_UP || s->state == SESSION_STALLED ? s->assoc : NULL;
}

/* ---- names ---- */

static struct session_name name_of(enum session_name_kind kind, const void *bytes, size_t n_bytes)
{
	struct session_name name = { .kind = (uint8_t)kind };

	memcpy(name.bytes, bytes, n_bytes);
	return name;
}

size_t session_names(const struct session *s, struct session_name ret_names[SESSION_NAMES_MAX])
{
	size_t n = 0;

	if (s->has_cid)
		ret_names[n++] = name_of(SESSION_NAME_CID, s->local_cid, PTCP_CID_BYTES);
	if (s->nat)
		ret_names[n++] =
			name_of(SESSION_NAME_TAG, nat_agent_local_tag(s->nat), NAT_TAG_BYTES);
	if (session_has_channel(s))
		ret_names[n++] = name_of(SESSION_NAME_CHANNEL, s->channel.name, Q2Q_CHANNEL_BYTES);
	if (session_streams_tag(s))
		ret_names[n++] = name_of(SESSION_NAME_STREAM, session_streams_tag(s),
					 SESSION_STREAM_TAG_BYTES);
	if (s->pending.phase == RENDEZVOUS_ANSWERED)
		ret_names[n++] = name_of(SESSION_NAME_ID, s->pending.id, OFFER_ID_BYTES);
	if (s->open.phase == RENDEZVOUS_OPEN)
		ret_names[n++] = name_of(SESSION_NAME_ID, s->open.id, OFFER_ID_BYTES);
	return n;
}

/* ---- figures ---- */

enum session_state session_state_of(const struct session *s)
{
	return s->state;
}

static void status_path(const struct session *s, struct session_status *out)
{
	struct ptcp_path_stats path;

	for (unsigned i = 0; ptcp_get_path_stats(s->assoc, i, &path); i++)
		if (path.path_id == s->active_path_id) {
			out->rtt_us = path.srtt_us;
			out->mtu_bytes = path.mtu_bytes;
		}
	for (size_t i = 0; i < PATHS_MAX; i++)
		if (s->paths[i].id && s->paths[i].id == s->active_path_id) {
			out->has_path = true;
			out->relay = s->paths[i].kind > PTCP_PATH_DIRECT_STREAM;
			out->stream = s->paths[i].kind == PTCP_PATH_DIRECT_STREAM;
			out->relay_udp = s->paths[i].kind == PTCP_PATH_RELAY;
			out->same_lan = s->paths[i].same_lan;
			out->socket = s->paths[i].socket;
			out->remote = s->paths[i].remote;
		}
}

void session_get_status(const struct session *s, struct session_status *ret_status)
{
	struct session_status *out = ret_status;

	*out = (struct session_status){
		.state = s->state,
		.why = s->why,
		.since_us = s->since_us,
		.retry_us = session_needs_rendezvous(s) ? s->retry_us : NEVER_US,
		.wanted = s->wanted,
		.has_rendezvous = s->open.phase == RENDEZVOUS_OPEN,
		.tun_sent = s->tun_sent,
		.tun_sent_bytes = s->tun_sent_bytes,
		.tun_received = s->tun_received,
		.tun_received_bytes = s->tun_received_bytes,
		.tun_bad = s->tun_bad,
		.tun_discard = s->tun_discard,
		.peer_bad = s->peer_bad,
		.datagrams_bad = s->datagrams_bad,
		.has_ptcp = s->assoc != NULL,
		.has_nat = s->nat != NULL,
	};
	memcpy(out->why_text, s->why_text, sizeof(out->why_text));
	memcpy(out->device, s->peer_device, sizeof(out->device));
	memcpy(out->about, s->peer_about, sizeof(out->about));
	if (s->assoc) {
		keys_describe(s->keys, out->tls, sizeof(out->tls));
		ptcp_get_stats(s->assoc, &out->ptcp);
		status_path(s, out);
	}
	if (s->nat)
		out->nat = nat_agent_status(s->nat);
}

size_t session_nat_pairs(const struct session *s, struct nat_pair_info *ret_list, size_t max)
{
	return s->nat ? nat_agent_pairs(s->nat, ret_list, max) : 0;
}

size_t session_nat_local(const struct session *s, struct nat_candidate *ret_list, size_t max)
{
	return s->nat ? nat_agent_local(s->nat, ret_list, max) : 0;
}

size_t session_nat_remote(const struct session *s, struct nat_candidate *ret_list, size_t max)
{
	return s->nat ? nat_agent_remote(s->nat, ret_list, max) : 0;
}

static const struct path *path_of_id(const struct session *s, uint32_t id)
{
	for (size_t i = 0; i < PATHS_MAX; i++)
		if (s->paths[i].id == id)
			return &s->paths[i];
	return NULL;
}

size_t session_paths(const struct session *s, struct session_path_info *ret_list, size_t max)
{
	struct ptcp_path_stats stats;
	size_t n = 0;

	for (unsigned i = 0; s->assoc && n < max && ptcp_get_path_stats(s->assoc, i, &stats); i++) {
		const struct path *p = path_of_id(s, stats.path_id);

		if (p)
			ret_list[n++] = (struct session_path_info){
				.same_lan = p->same_lan,
				.socket = p->socket,
				.remote = p->remote,
				.stats = stats,
			};
	}
	return n;
}
