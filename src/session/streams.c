/*
 * Direct paths by TCP, where UDP does not get through but one side can be
 * connected to (doc/nat.md, section 11). Each end tells, in its offers, where it
 * listens; whoever has no direct path after a while connects there.
 */
#include "session/internal.h"

#define CONNECT_AFTER_US   (3 * US_PER_S)    /* most direct paths by UDP are there before */
#define CONNECT_LOOK_US    (500 * US_PER_MS) /* so often, whether UDP is known not to get through */
#define CONNECT_TURN_US    (500 * US_PER_MS) /* the listener waits longer: one connection does */
#define CONNECT_RETRY_US   (10 * US_PER_S)   /* doubles */
#define CONNECT_RETRY_MAX  5                 /* times: 320 s */
#define AUTHENTICATE_US    (5 * US_PER_S)
#define KEEP_BESIDE_UDP_US (30 * US_PER_S) /* a direct path by UDP has taken over */

/* ---- the table ---- */

static struct stream_slot *find(struct session *s, uint16_t number)
{
	for (size_t i = 0; i < SESSION_STREAMS_MAX; i++)
		if (s->streams.slots[i].used && s->streams.slots[i].number == number)
			return &s->streams.slots[i];
	return NULL;
}

static bool is_direct_udp(const struct session *s)
{
	for (size_t i = 0; i < PATHS_MAX; i++)
		if (s->paths[i].id && s->paths[i].id == s->active_path_id)
			return s->paths[i].kind == PTCP_PATH_DIRECT;
	return false;
}

static bool has_open(const struct session *s)
{
	for (size_t i = 0; i < SESSION_STREAMS_MAX; i++)
		if (s->streams.slots[i].used && s->streams.slots[i].st.state == STREAM_OPEN)
			return true;
	return false;
}

static bool is_wanted(const struct session *s)
{
	return s->path_mode == SESSION_PATH_AUTO || s->path_mode == SESSION_PATH_DIRECT;
}

static bool udp_is_blocked(const struct session *s)
{
	return s->config.udp_blocked && s->config.udp_blocked(s->config.user);
}

/* Nothing of it is left here; the caller's connection is his. */
static void slot_free(struct session *s, struct stream_slot *slot, uint64_t now_us)
{
	struct path *p = slot->path_id ? session_path_by_id(s, slot->path_id) : NULL;

	if (p)
		session_path_remove(s, p, now_us);
	stream_fini(&slot->st);
	*slot = (struct stream_slot){ .used = false };
}

static void slot_end(struct session *s, struct stream_slot *slot, uint64_t now_us)
{
	const struct session_event event = { .type = SESSION_EVENT_STREAM_UNUSED,
					     .stream = slot->number };

	slot_free(s, slot, now_us);
	session_event_push(s, &event);
}

/* A free one; else one that is not authenticated yet goes. NULL: all are in use. */
static struct stream_slot *slot_new(struct session *s, uint16_t number,
				    const struct endpoint *remote, uint64_t now_us)
{
	struct stream_slot *slot = NULL;

	for (size_t i = 0; i < SESSION_STREAMS_MAX && !slot; i++)
		if (!s->streams.slots[i].used)
			slot = &s->streams.slots[i];
	for (size_t i = 0; i < SESSION_STREAMS_MAX && !slot; i++)
		if (s->streams.slots[i].st.state != STREAM_OPEN) {
			slot = &s->streams.slots[i];
			slot_end(s, slot, now_us);
		}
	if (!slot)
		return NULL;
	*slot = (struct stream_slot){
		.used = true,
		.number = number,
		.remote = *remote,
		.deadline_us = now_us + AUTHENTICATE_US,
	};
	return slot;
}

/* ---- a rendezvous ---- */

static void plan(struct session *s, uint64_t now_us)
{
	struct streams *t = &s->streams;

	t->n_tries = 0;
	t->connect_us = NEVER_US;
	if (t->n_targets == 0 || !t->has_key || !is_wanted(s))
		return;
	t->connect_us = now_us + (t->requester ? 0 : CONNECT_TURN_US);
	t->wait_udp_us = t->connect_us + CONNECT_AFTER_US;
	/* However often the peer tells of new addresses, or asks: it chooses where we connect to.
	 */
	if (t->tried_us)
		t->connect_us = max_u64(t->connect_us, t->tried_us + CONNECT_RETRY_US);
}

int session_streams_open(struct session *s, uint64_t now_us)
{
	const struct keys_rendezvous keys = rendezvous_keys(s, &s->open);
	struct streams *t = &s->streams;
	uint8_t all[KEYS_STREAM_BYTES];
	int r = keys_stream(&keys, all);

	t->has_key = r == 0;
	t->requester = s->open.requester;
	t->n_targets = t->n_seen = 0;
	memcpy(t->key, all, sizeof(t->key));
	memcpy(t->own_tag, all + STREAM_KEY_BYTES + (t->requester ? 0 : SESSION_STREAM_TAG_BYTES),
	       SESSION_STREAM_TAG_BYTES);
	memcpy(t->their_tag, all + STREAM_KEY_BYTES + (t->requester ? SESSION_STREAM_TAG_BYTES : 0),
	       SESSION_STREAM_TAG_BYTES);
	secret_wipe(all, sizeof(all));
	plan(s, now_us);
	return r;
}

void session_streams_drop(struct session *s, uint64_t now_us)
{
	for (size_t i = 0; i < SESSION_STREAMS_MAX; i++)
		if (s->streams.slots[i].used)
			slot_end(s, &s->streams.slots[i], now_us);
}

void session_streams_fini(struct session *s)
{
	for (size_t i = 0; i < SESSION_STREAMS_MAX; i++)
		stream_fini(&s->streams.slots[i].st);
	secret_wipe(&s->streams, sizeof(s->streams));
}

void session_streams_replan(struct session *s, uint64_t now_us)
{
	if (!is_wanted(s))
		session_streams_drop(s, now_us);
	plan(s, now_us);
}

const uint8_t *session_streams_tag(const struct session *s)
{
	return s->streams.has_key && s->streams.port && is_wanted(s) ? s->streams.own_tag : NULL;
}

/* ---- where we listen, and the peer ---- */

void session_set_stream_port(struct session *s, uint16_t port)
{
	s->streams.port = port;
}

static void tell(struct offer *offer, const struct ip_address *ip, uint16_t port)
{
	struct endpoint e = { .ip = *ip, .port = port };

	for (size_t i = 0; i < offer->n_streams; i++)
		if (endpoint_equal(&offer->streams[i], &e))
			return;
	if (offer->n_streams < OFFER_STREAMS_MAX && nat_endpoint_check(&e, false, NULL) == 0)
		offer->streams[offer->n_streams++] = e;
}

void session_streams_tell(const struct session *s, struct offer *offer)
{
	offer->n_streams = 0;
	if (!s->streams.port || !is_wanted(s))
		return;
	/* Public addresses first, should there be too many. */
	for (int private = 0; private < 2; private ++)
		for (size_t i = 0; i < s->n_locals; i++)
			if (s->locals[i].kind == NAT_HOST &&
			    ip_is_private(&s->locals[i].endpoint.ip) == private)
				tell(offer, &s->locals[i].endpoint.ip, s->streams.port);
}

void session_streams_told(struct session *s, const struct offer *offer, uint64_t now_us)
{
	struct streams *t = &s->streams;
	const size_t n_before = t->n_targets;
	bool same = true;

	t->n_targets = 0;
	for (size_t i = 0; i < offer->n_streams; i++) {
		const struct endpoint *e = &offer->streams[i];

		if (nat_endpoint_check(e, s->config.allow_loopback, NULL) != 0)
			continue;
		same = same && t->n_targets < n_before &&
		       endpoint_equal(&t->targets[t->n_targets], e);
		t->targets[t->n_targets++] = *e;
	}
	if (!same || t->n_targets != n_before)
		plan(s, now_us);
}

size_t session_stream_targets(struct session *s, struct endpoint *ret_list, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < s->streams.n_targets && n < max; i++)
		if (!s->config.refuse ||
		    !s->config.refuse(s->config.user, &s->streams.targets[i].ip))
			ret_list[n++] = s->streams.targets[i];
	return n;
}

/* ---- time ---- */

void session_streams_tick(struct session *s, uint64_t now_us)
{
	const struct session_event event = { .type = SESSION_EVENT_WANT_STREAM };
	struct streams *t = &s->streams;

	for (size_t i = 0; i < SESSION_STREAMS_MAX; i++)
		if (t->slots[i].used && now_us >= t->slots[i].deadline_us)
			slot_end(s, &t->slots[i], now_us);
	if (now_us < t->connect_us)
		return;
	t->connect_us = NEVER_US;
	if (!s->assoc || is_direct_udp(s) || has_open(s))
		return; /* session_streams_path() plans again when that ends */
	if (now_us < t->wait_udp_us && !udp_is_blocked(s)) {
		t->connect_us = min_u64(t->wait_udp_us, now_us + CONNECT_LOOK_US);
		return;
	}
	t->tried_us = now_us;
	t->connect_us = now_us + (CONNECT_RETRY_US << t->n_tries);
	if (t->n_tries < CONNECT_RETRY_MAX)
		t->n_tries++;
	session_event_push(s, &event);
}

uint64_t session_streams_deadline_us(const struct session *s)
{
	uint64_t due_us = s->streams.connect_us ? s->streams.connect_us : NEVER_US;

	for (size_t i = 0; i < SESSION_STREAMS_MAX; i++)
		if (s->streams.slots[i].used)
			due_us = min_u64(due_us, s->streams.slots[i].deadline_us);
	return due_us;
}

void session_streams_path(struct session *s, uint64_t now_us)
{
	const bool direct = is_direct_udp(s);
	struct streams *t = &s->streams;

	for (size_t i = 0; i < SESSION_STREAMS_MAX; i++) {
		struct stream_slot *slot = &t->slots[i];

		if (slot->used && slot->st.state == STREAM_OPEN)
			slot->deadline_us = !direct ? NEVER_US
					    : slot->deadline_us == NEVER_US
						    ? now_us + KEEP_BESIDE_UDP_US
						    : slot->deadline_us;
	}
	if (!direct && !has_open(s) && t->connect_us == NEVER_US)
		plan(s, now_us);
}

/* ---- connections ---- */

int session_stream_connected(struct session *s, uint16_t number, const struct endpoint *remote,
			     uint64_t now_us)
{
	struct streams *t = &s->streams;
	uint8_t nonce[STREAM_NONCE_BYTES];
	struct stream_slot *slot;
	int r;

	if (!t->has_key || !s->assoc || !is_wanted(s))
		return -ENOTCONN;
	r = s->config.random_bytes(s->config.user, nonce, sizeof(nonce));
	if (r)
		return r;
	slot = slot_new(s, number, remote, now_us);
	if (!slot)
		return -ENOBUFS;
	r = stream_connect(&slot->st, t->key, t->their_tag, nonce);
	if (r)
		slot_free(s, slot, now_us);
	return r;
}

/* Each is good once: a copy of it makes us say nothing. */
static bool is_new(struct streams *t, const uint8_t *hello)
{
	const uint8_t *nonce =
		hello + SESSION_STREAM_HELLO_BYTES - STREAM_MAC_BYTES - STREAM_NONCE_BYTES;

	for (size_t i = 0; i < min_size(t->n_seen, STREAM_SEEN_MAX); i++)
		if (memcmp(t->seen[i], nonce, STREAM_NONCE_BYTES) == 0)
			return false;
	memcpy(t->seen[t->n_seen++ % STREAM_SEEN_MAX], nonce, STREAM_NONCE_BYTES);
	return true;
}

int session_stream_accepted(struct session *s, uint16_t number, const struct endpoint *remote,
			    const uint8_t hello[static SESSION_STREAM_HELLO_BYTES], uint64_t now_us)
{
	struct streams *t = &s->streams;
	uint8_t nonce[STREAM_NONCE_BYTES];
	struct stream_slot *slot;
	struct stream st;
	int r;

	if (!session_streams_tag(s) || !s->assoc)
		return -ENOTCONN;
	/* Our own, sent back to us, has the peer's. */
	if (memcmp(hello + 1, t->own_tag, SESSION_STREAM_TAG_BYTES) != 0)
		return -EBADMSG;
	r = s->config.random_bytes(s->config.user, nonce, sizeof(nonce));
	if (r)
		return r;
	r = stream_accept(&st, t->key, hello, nonce);
	if (r == 0 && !is_new(t, hello))
		r = -EBADMSG;
	slot = r == 0 ? slot_new(s, number, remote, now_us) : NULL;
	if (!slot) {
		stream_fini(&st);
		return r ? r : -ENOBUFS;
	}
	slot->st = st;
	secret_wipe(st.key, sizeof(st.key));
	return 0;
}

static void became_open(struct session *s, struct stream_slot *slot, uint64_t now_us)
{
	struct path *p = session_path_new(s);

	slot->deadline_us = NEVER_US;
	if (!p)
		return;
	p->kind = PTCP_PATH_DIRECT_STREAM;
	p->remote = slot->remote;
	p->stream = slot->number;
	if (ptcp_path_add(s->assoc, p->id, PTCP_PATH_DIRECT_STREAM, PATH_MTU_RELAY, now_us))
		*p = (struct path){ .id = 0 };
	else
		slot->path_id = p->id;
	session_streams_path(s, now_us);
}

int session_stream_input(struct session *s, uint16_t number, uint8_t *data, size_t n_bytes,
			 uint64_t now_us)
{
	struct stream_slot *slot = find(s, number);
	uint8_t *frame;
	size_t frame_bytes;
	int r = slot && s->assoc ? 1 : -ENOTCONN;

	while (r > 0) {
		const bool was_open = slot->st.state == STREAM_OPEN;

		r = stream_next(&slot->st, &data, &n_bytes, &frame, &frame_bytes);
		if (!was_open && slot->st.state == STREAM_OPEN)
			became_open(s, slot, now_us);
		if (r > 0 && slot->path_id &&
		    ptcp_input(s->assoc, slot->path_id, frame, frame_bytes, 0, now_us))
			s->datagrams_bad++;
	}
	if (r < 0 && slot)
		slot_free(s, slot, now_us);
	session_pull(s, now_us);
	return r;
}

void session_stream_closed(struct session *s, uint16_t number, uint64_t now_us)
{
	struct stream_slot *slot = find(s, number);

	if (!slot)
		return;
	slot_free(s, slot, now_us);
	session_streams_path(s, now_us);
	session_pull(s, now_us);
}

bool session_streams_output(struct session *s, struct session_send *send)
{
	for (size_t i = 0; i < SESSION_STREAMS_MAX; i++) {
		struct stream_slot *slot = &s->streams.slots[i];

		if (!slot->used || slot->st.out_bytes == 0)
			continue;
		*send = (struct session_send){
			.stream = slot->number,
			.data = slot->st.out,
			.n_bytes = slot->st.out_bytes,
		};
		slot->st.out_bytes = 0;
		return true;
	}
	return false;
}
