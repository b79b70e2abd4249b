/*
 * The relay by UDP: a channel of the open rendezvous at the server, for peers
 * that have no direct path (doc/q2q-extensions.md, section 4). Until it is bound,
 * and where UDP does not get through, the server's TLS connection relays.
 */
#include "session/internal.h"

#define ASK_AFTER_US    (1 * US_PER_S)    /* most peers find a direct path before */
#define BIND_REFRESH_US (25 * US_PER_S)   /* keeps the NAT's mapping too */
#define BIND_RETRY_US   (250 * US_PER_MS) /* doubles */
#define BIND_LATER_US   (30 * US_PER_S)   /* UDP does not get through now */
#define BIND_TRIES      4

static bool is_direct(struct session *s)
{
	const struct path *p = session_path_by_id(s, s->active_path_id);

	return p && p->kind <= PTCP_PATH_DIRECT_STREAM;
}

static bool is_wanted(const struct session *s)
{
	return s->path_mode == SESSION_PATH_AUTO || s->path_mode == SESSION_PATH_RELAY;
}

bool session_has_channel(const struct session *s)
{
	return s->channel.state == CHANNEL_BINDING || s->channel.state == CHANNEL_BOUND;
}

void session_channel_clear(struct session *s)
{
	secret_wipe(s->channel.key, sizeof(s->channel.key));
	s->channel = (struct channel){ .ask_us = NEVER_US, .bind_us = NEVER_US };
}

void session_channel_reset(struct session *s, uint64_t now_us)
{
	session_channel_clear(s);
	s->channel.ask_us = s->path_mode == SESSION_PATH_RELAY ? now_us : now_us + ASK_AFTER_US;
}

/* ---- asking for one ---- */

static void ask(struct session *s)
{
	struct session_event event = { .type = SESSION_EVENT_CHANNEL };

	event.channel.route = s->open.route;
	memcpy(event.channel.id, s->open.id, sizeof(event.channel.id));
	s->channel.state = CHANNEL_ASKED;
	session_event_push(s, &event);
}

void session_channel_tick(struct session *s, uint64_t now_us)
{
	struct channel *c = &s->channel;

	if (c->state != CHANNEL_OFF || now_us < c->ask_us)
		return;
	c->ask_us = NEVER_US;
	if (s->open.phase == RENDEZVOUS_OPEN && s->assoc && is_wanted(s) && !is_direct(s))
		ask(s);
}

uint64_t session_channel_deadline_us(const struct session *s)
{
	return s->channel.state == CHANNEL_OFF ? s->channel.ask_us : s->channel.bind_us;
}

void session_channel_check(struct session *s, uint64_t now_us)
{
	struct channel *c = &s->channel;

	if (s->open.phase != RENDEZVOUS_OPEN || is_direct(s))
		return;
	/* A direct path was there when it was time to ask, and now it is not. */
	if (c->state == CHANNEL_OFF && c->ask_us == NEVER_US)
		c->ask_us = now_us;
	if (session_has_channel(s)) {
		c->n_tries = 0;
		c->bind_us = now_us;
	}
}

int session_channel(struct session *s, const char *id, const uint8_t *name, const uint8_t *key,
		    const struct endpoint *server, uint64_t now_us)
{
	struct channel *c = &s->channel;

	if (s->open.phase != RENDEZVOUS_OPEN || strcmp(s->open.id, id) != 0 ||
	    c->state != CHANNEL_ASKED)
		return -ENOENT;
	memcpy(c->name, name, sizeof(c->name));
	memcpy(c->key, key, sizeof(c->key));
	c->server = *server;
	c->state = CHANNEL_BINDING;
	c->bind_us = now_us;
	return 0;
}

/* ---- binding ---- */

static bool socket_for(const struct session *s, const struct endpoint *remote, uint8_t *ret_socket)
{
	for (size_t i = 0; i < s->n_sockets; i++)
		if (remote->ip.family == FAMILY_IPV6 ? s->sockets[i].ipv6 : s->sockets[i].ipv4) {
			*ret_socket = s->sockets[i].socket;
			return true;
		}
	return false;
}

static void unbind(struct session *s, uint64_t now_us)
{
	struct path *p = session_path_of_kind(s, PTCP_PATH_RELAY);

	s->channel.state = CHANNEL_BINDING;
	if (p)
		session_path_remove(s, p, now_us);
}

/* When the next BIND follows this one, unless it is answered. */
static uint64_t retry_us(const struct channel *c)
{
	return c->n_tries < BIND_TRIES ? (uint64_t)BIND_RETRY_US << c->n_tries : BIND_LATER_US;
}

bool session_channel_bind(struct session *s, struct session_send *send, uint64_t now_us)
{
	struct channel *c = &s->channel;
	uint8_t socket;

	if (!session_has_channel(s) || now_us < c->bind_us)
		return false;
	c->bind_us = NEVER_US;
	/* Not refreshed, the path would be a trap for when the direct one fails. */
	if (is_direct(s) || !is_wanted(s) || c->n_tries >= BIND_TRIES)
		unbind(s, now_us);
	if (is_direct(s) || !is_wanted(s) || !socket_for(s, &c->server, &socket))
		return false;
	if (q2q_channel_seal(Q2Q_CHANNEL_BIND, c->name, c->key, ++c->counter, c->bind) != 0)
		return false;
	c->bind_us = now_us + retry_us(c);
	c->n_tries++;
	*send = (struct session_send){
		.socket = socket,
		.to = c->server,
		.data = c->bind,
		.n_bytes = sizeof(c->bind),
	};
	return true;
}

static void bound(struct session *s, uint64_t now_us)
{
	struct channel *c = &s->channel;
	struct path *p = session_path_of_kind(s, PTCP_PATH_RELAY);

	c->state = CHANNEL_BOUND;
	c->n_tries = 0;
	c->bind_us = now_us + BIND_REFRESH_US;
	if (p || !s->assoc)
		return;
	p = session_path_new(s);
	if (!p)
		return;
	p->kind = PTCP_PATH_RELAY;
	p->remote = c->server;
	if (!socket_for(s, &c->server, &p->socket) ||
	    ptcp_path_add(s->assoc, p->id, PTCP_PATH_RELAY, PATH_MTU_CHANNEL, now_us))
		*p = (struct path){ .id = 0 };
}

/* ---- datagrams ---- */

static bool is_our_channel(const struct session *s, const uint8_t *name)
{
	return session_has_channel(s) && memcmp(s->channel.name, name, Q2Q_CHANNEL_BYTES) == 0;
}

static int input(struct session *s, uint8_t *data, size_t n_bytes, uint64_t now_us)
{
	struct channel *c = &s->channel;
	const struct path *p = session_path_of_kind(s, PTCP_PATH_RELAY);
	uint64_t counter;

	switch (q2q_channel_kind(data, n_bytes)) {
	case Q2Q_CHANNEL_BOUND:
		if (q2q_channel_open(data, c->key, &counter) != 0)
			return -EBADMSG;
		if (counter != c->counter)
			return NAT_IGNORED; /* of an earlier one: the last is on its way */
		bound(s, now_us);
		return 0;
	case Q2Q_CHANNEL_DATA:
		if (!s->assoc || !p)
			return -ENOTCONN;
		return ptcp_input(s->assoc, p->id, data + Q2Q_CHANNEL_HEADER_BYTES,
				  n_bytes - Q2Q_CHANNEL_HEADER_BYTES, 0, now_us);
	default:
		return -EBADMSG;
	}
}

int session_channel_input(struct session *s, const struct endpoint *from, uint8_t *data,
			  size_t n_bytes, uint64_t now_us)
{
	int r = -EBADMSG;

	if (n_bytes > Q2Q_CHANNEL_HEADER_BYTES && is_our_channel(s, data + 1) &&
	    endpoint_equal(from, &s->channel.server))
		r = input(s, data, n_bytes, now_us);
	if (r < 0)
		s->datagrams_bad++;
	session_pull(s, now_us);
	return r;
}

void session_channel_wrap(struct session *s, const struct ptcp_batch *batch,
			  struct session_send *send)
{
	const struct path *p = session_path_by_id(s, batch->path_id);
	struct writer w = writer_over(s->scratch->relay, SESSION_RELAY_BYTES_MAX);
	uint8_t header[Q2Q_CHANNEL_HEADER_BYTES];

	q2q_channel_header(Q2Q_CHANNEL_DATA, s->channel.name, header);
	while (s->relay_taken < batch->used_bytes) {
		const size_t size =
			min_size(batch->segment_bytes, batch->used_bytes - s->relay_taken);

		if (writer_left(&w) < sizeof(header) + size)
			break;
		writer_bytes(&w, header, sizeof(header));
		writer_bytes(&w, batch->data + s->relay_taken, size);
		s->relay_taken += size;
	}
	*send = (struct session_send){
		.socket = p->socket,
		.to = p->remote,
		.path_id = p->id,
		.data = s->scratch->relay,
		.n_bytes = w.used_bytes,
	};
	if (w.used_bytes > sizeof(header) + batch->segment_bytes)
		send->segment_bytes = sizeof(header) + batch->segment_bytes;
}
