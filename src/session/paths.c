/*
 * Paths: ptcp names them by numbers, the world by (socket, remote endpoint) or
 * by the rendezvous that relays. Datagrams in and out.
 */
#include "session/internal.h"

/* ---- the table ---- */

struct path *session_path_find(struct session *s, uint8_t socket, const struct endpoint *remote)
{
	for (size_t i = 0; i < PATHS_MAX; i++) {
		struct path *p = &s->paths[i];

		if (p->id && p->kind == PTCP_PATH_DIRECT && p->socket == socket &&
		    endpoint_equal(&p->remote, remote))
			return p;
	}
	return NULL;
}

struct path *session_path_by_id(struct session *s, uint32_t id)
{
	for (size_t i = 0; i < PATHS_MAX; i++)
		if (s->paths[i].id == id && id)
			return &s->paths[i];
	return NULL;
}

struct path *session_path_of_kind(struct session *s, enum ptcp_path_kind kind)
{
	for (size_t i = 0; i < PATHS_MAX; i++)
		if (s->paths[i].id && s->paths[i].kind == kind)
			return &s->paths[i];
	return NULL;
}

static bool ptcp_has_path(const struct session *s, uint32_t id)
{
	struct ptcp_path_stats stats;

	for (unsigned i = 0; ptcp_get_path_stats(s->assoc, i, &stats); i++)
		if (stats.path_id == id)
			return true;
	return false;
}

/* An entry that is free, or that ptcp has given up. NULL: all are in use. */
struct path *session_path_new(struct session *s)
{
	struct path *found = NULL;

	for (size_t i = 0; i < PATHS_MAX && !found; i++)
		if (!s->paths[i].id)
			found = &s->paths[i];
	for (size_t i = 0; i < PATHS_MAX && !found; i++)
		if (!ptcp_has_path(s, s->paths[i].id))
			found = &s->paths[i];
	if (found)
		*found = (struct path){ .id = s->next_path_id++ };
	return found;
}

void session_paths_clear(struct session *s)
{
	memset(s->paths, 0, sizeof(s->paths));
}

void session_path_remove(struct session *s, struct path *p, uint64_t now_us)
{
	if (s->assoc)
		ptcp_path_remove(s->assoc, p->id, now_us);
	*p = (struct path){ .id = 0 };
}

void session_paths_drop_direct(struct session *s, uint64_t now_us)
{
	for (size_t i = 0; i < PATHS_MAX; i++)
		if (s->paths[i].id && s->paths[i].kind == PTCP_PATH_DIRECT)
			session_path_remove(s, &s->paths[i], now_us);
}

/* ---- the relay ---- */

void session_path_add_relay(struct session *s, uint64_t now_us)
{
	struct path *p;

	session_path_drop_relay(s, now_us);
	p = session_path_new(s);
	if (!p)
		return;
	p->kind = PTCP_PATH_RELAY_STREAM;
	if (ptcp_path_add(s->assoc, p->id, PTCP_PATH_RELAY_STREAM, PATH_MTU_RELAY, now_us))
		*p = (struct path){ .id = 0 };
}

void session_path_drop_relay(struct session *s, uint64_t now_us)
{
	struct path *p;

	while ((p = session_path_of_kind(s, PTCP_PATH_RELAY_STREAM)) ||
	       (p = session_path_of_kind(s, PTCP_PATH_RELAY)))
		session_path_remove(s, p, now_us);
	session_relay_forget(s);
}

int session_relay(struct session *s, const char *id, uint8_t *body, size_t n_bytes, uint64_t now_us)
{
	struct reader r = reader_over(body, n_bytes);
	const struct path *p = session_path_of_kind(s, PTCP_PATH_RELAY_STREAM);
	int result = 0;

	if (s->open.phase != RENDEZVOUS_OPEN || strcmp(s->open.id, id))
		return -ENOENT;
	if (!s->assoc || !p)
		return -EBADMSG;
	while (r.left_bytes > 0) {
		const size_t size = reader_u16(&r);
		const uint8_t *at = reader_bytes(&r, size);

		if (r.failed) {
			result = -EBADMSG;
			break;
		}
		/* The reader lends const; the bytes are the caller's, who lets us write. */
		if (ptcp_input(s->assoc, p->id, body + (at - body), size, 0, now_us))
			s->datagrams_bad++;
	}
	session_pull(s, now_us);
	return result;
}

/* Frames what is left of the batch for a byte stream, as much as fits into one body. */
static void relay_frame(struct session *s, const struct path *p, struct session_send *send)
{
	struct writer w = writer_over(s->scratch->relay, SESSION_RELAY_BYTES_MAX);
	const struct ptcp_batch *b = &s->relay_batch;

	while (s->relay_taken < b->used_bytes) {
		const size_t size = min_size(b->segment_bytes, b->used_bytes - s->relay_taken);

		if (writer_left(&w) < 2 + size)
			break;
		writer_u16(&w, (uint16_t)size);
		writer_bytes(&w, b->data + s->relay_taken, size);
		s->relay_taken += size;
	}
	*send = (struct session_send){
		.relay = p->kind == PTCP_PATH_RELAY_STREAM,
		.stream = p->stream,
		.path_id = p->id,
		.route = s->open.route,
		.data = s->scratch->relay,
		.n_bytes = w.used_bytes,
	};
	memcpy(send->id, s->open.id, sizeof(send->id));
}

void session_relay_forget(struct session *s)
{
	free(s->relay_kept);
	s->relay_kept = NULL;
	s->relay_taken = s->relay_batch.used_bytes = 0;
}

/* The scratch is others' after this call: what is left of the batch waits in a copy, or without
 * memory is lost. */
static void relay_keep(struct session *s)
{
	const size_t left = s->relay_batch.used_bytes - s->relay_taken;
	uint8_t *kept = left > 0 && !s->relay_kept ? malloc(left) : NULL;

	if (left > 0 && s->relay_kept)
		return;
	if (!kept) {
		session_relay_forget(s);
		return;
	}
	memcpy(kept, s->relay_batch.data + s->relay_taken, left);
	s->relay_batch.data = s->relay_kept = kept;
	s->relay_batch.used_bytes = left;
	s->relay_taken = 0;
}

/* More of the relay batch. False: its path has gone meanwhile. */
static bool relay_fill(struct session *s, struct session_send *send)
{
	const struct path *p = session_path_by_id(s, s->relay_batch.path_id);

	if (!p || (p->kind != PTCP_PATH_DIRECT_STREAM && s->open.phase != RENDEZVOUS_OPEN)) {
		session_relay_forget(s);
		return false;
	}
	if (p->kind == PTCP_PATH_RELAY)
		session_channel_wrap(s, &s->relay_batch, send);
	else
		relay_frame(s, p, send);
	relay_keep(s);
	return true;
}

/* ---- what nat finds ---- */

uint16_t session_path_mtu(const struct endpoint *remote)
{
	return remote->ip.family == FAMILY_IPV6 ? PATH_MTU_IPV6 : PATH_MTU_IPV4;
}

void session_path_set_keepalive(struct session *s, const struct path *p)
{
	const uint64_t interval_us = s->keepalive_us[p->remote.ip.family == FAMILY_IPV6];

	if (p->kind == PTCP_PATH_DIRECT)
		ptcp_path_set_keepalive(s->assoc, p->id, p->same_lan ? 0 : interval_us);
}

void session_set_keepalive(struct session *s, enum address_family family, uint64_t interval_us)
{
	s->keepalive_us[family == FAMILY_IPV6] = interval_us;
	for (size_t i = 0; s->assoc && i < PATHS_MAX; i++)
		if (s->paths[i].id)
			session_path_set_keepalive(s, &s->paths[i]);
}

void session_path_valid(struct session *s, const struct nat_event *event, uint64_t now_us)
{
	struct path *p = session_path_find(s, event->socket, &event->remote);

	if (!s->assoc || (s->path_mode == SESSION_PATH_LAN && !event->same_lan))
		return;
	if (!p) {
		p = session_path_new(s);
		if (!p)
			return;
		p->socket = event->socket;
		p->remote = event->remote;
	}
	p->same_lan = event->same_lan;
	if (ptcp_path_add(s->assoc, p->id, PTCP_PATH_DIRECT, session_path_mtu(&event->remote),
			  now_us) == -ENOBUFS)
		*p = (struct path){ .id = 0 };
	else
		session_path_set_keepalive(s, p);
}

void session_path_lost(struct session *s, const struct nat_event *event, uint64_t now_us)
{
	struct path *p = session_path_find(s, event->socket, &event->remote);

	if (p)
		session_path_remove(s, p, now_us);
}

/* ---- datagrams in ---- */

/*
 * A tunnel must not become a path of itself, whatever the peer sends through it. To say so may cost
 * the caller a question to the kernel, so strangers do not get here: this is for what is authentic.
 */
static bool may_stay(const struct session *s, const struct endpoint *from)
{
	return !(s->config.refuse && s->config.refuse(s->config.user, &from->ip));
}

/* A packet from an unknown address: the peer's NAT gave it another one, if it is authentic. */
static int input_unknown(struct session *s, uint8_t socket, const struct endpoint *from,
			 uint8_t *data, size_t n_bytes, uint8_t ecn, uint64_t now_us)
{
	struct path *p;
	uint32_t id;
	int r;

	if (s->path_mode == SESSION_PATH_RELAY || s->path_mode == SESSION_PATH_LAN ||
	    (ip_is_loopback(&from->ip) && !s->config.allow_loopback))
		return -EPERM;
	p = session_path_new(s);
	if (!p)
		return -ENOBUFS;
	p->socket = socket;
	p->remote = *from;
	id = p->id;
	r = ptcp_input(s->assoc, id, data, n_bytes, ecn, now_us);
	if (r) {
		/* It meant nothing: a flood of such does not use up the numbers either. */
		*p = (struct path){ .id = 0 };
		if (!ptcp_has_path(s, id))
			s->next_path_id = id;
	} else if (s->assoc && p->id == id && !may_stay(s, from)) {
		session_path_remove(s, p, now_us);
		r = -EPERM;
	}
	return r;
}

int session_input(struct session *s, uint8_t socket, const struct endpoint *from, uint8_t *data,
		  size_t n_bytes, uint8_t ecn, uint64_t now_us)
{
	const struct path *p;
	int r = -ENOTCONN;

	if (!ptcp_is_packet(data, n_bytes)) {
		if (s->nat)
			r = nat_agent_input(s->nat, socket, from, data, n_bytes, now_us);
	} else if (s->assoc) {
		p = session_path_find(s, socket, from);
		r = p ? ptcp_input(s->assoc, p->id, data, n_bytes, ecn, now_us)
		      : input_unknown(s, socket, from, data, n_bytes, ecn, now_us);
	}
	if (r < 0)
		s->datagrams_bad++;
	session_pull(s, now_us);
	return r;
}

/* ---- datagrams out ---- */

static bool output_nat(struct session *s, struct session_send *send, uint64_t now_us)
{
	if (!s->nat || !nat_agent_output(s->nat, &s->nat_send, now_us))
		return false;
	*send = (struct session_send){
		.socket = s->nat_send.socket,
		.to = s->nat_send.to,
		.ttl = s->nat_send.ttl,
		.volley = s->nat_send.volley,
		.volley_index = s->nat_send.volley_index,
		.data = s->nat_send.data,
		.n_bytes = s->nat_send.data_bytes,
	};
	return true;
}

static void send_direct(const struct path *p, const struct ptcp_batch *batch,
			struct session_send *send)
{
	*send = (struct session_send){
		.socket = p->socket,
		.to = p->remote,
		.segment_bytes =
			batch->segment_bytes < batch->used_bytes ? batch->segment_bytes : 0,
		.ecn = batch->ecn,
		.dscp = batch->dscp,
		.path_id = batch->path_id,
		.data = batch->data,
		.n_bytes = batch->used_bytes,
	};
}

static struct ptcp_batch empty_batch(const struct session *s)
{
	return (struct ptcp_batch){
		.data = s->scratch->batch,
		.size_bytes = PTCP_BATCH_BYTES_MAX,
	};
}

bool session_output(struct session *s, struct session_send *ret_send, uint64_t now_us)
{
	struct ptcp_batch batch = empty_batch(s);
	const struct path *p;

	if (s->relay_taken < s->relay_batch.used_bytes && relay_fill(s, ret_send))
		return true;
	if (output_nat(s, ret_send, now_us) || session_channel_bind(s, ret_send, now_us) ||
	    session_streams_output(s, ret_send))
		return true;
	while (s->assoc && ptcp_output(s->assoc, &batch, now_us)) {
		p = session_path_by_id(s, batch.path_id);
		if (p && p->kind == PTCP_PATH_DIRECT) {
			send_direct(p, &batch, ret_send);
			return true;
		}
		s->relay_batch = batch;
		s->relay_taken = 0;
		if (relay_fill(s, ret_send))
			return true;
		batch = empty_batch(s);
	}
	session_pull(s, now_us);
	return false;
}

void session_too_big(struct session *s, const struct session_send *send, uint64_t now_us)
{
	const struct path *p = send->relay ? NULL : session_path_by_id(s, send->path_id);
	size_t n_bytes = send->segment_bytes ? send->segment_bytes : send->n_bytes;

	if (!s->assoc || !p)
		return;
	if (p->kind == PTCP_PATH_RELAY)
		n_bytes -= Q2Q_CHANNEL_HEADER_BYTES;
	ptcp_path_too_big(s->assoc, send->path_id, n_bytes, now_us);
}
