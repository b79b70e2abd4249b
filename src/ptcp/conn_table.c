/*
 * conn_table - all pseudo-connections of one association: ids, lists, timers,
 * events, and the opening exchange.
 */
#include "ptcp/conn_private.h"

#define DEFAULT(field, value)                                                                      \
	do {                                                                                       \
		if ((field) == 0)                                                                  \
			(field) = (value);                                                         \
	} while (0)

static void fill_in_defaults(struct ptcp_conn_limits *l)
{
	DEFAULT(l->n_conns, 1024);
	DEFAULT(l->n_holes, 4096);
	DEFAULT(l->send_bytes, (size_t)4 << 20);
	DEFAULT(l->send_total_bytes, (size_t)64 << 20);
	DEFAULT(l->window_first_bytes, (size_t)128 << 10);
	DEFAULT(l->window_bytes, (size_t)8 << 20);
	DEFAULT(l->window_total_bytes, (size_t)64 << 20);
	DEFAULT(l->connect_timeout_us, 30 * US_PER_S);
	DEFAULT(l->fin_timeout_us, 60 * US_PER_S);
	DEFAULT(l->time_wait_min_us, US_PER_S);
	DEFAULT(l->time_wait_max_us, 10 * US_PER_S);
}

struct ptcp_conns *ptcp_conns_new(const struct ptcp_conns_config *config)
{
	struct ptcp_conns *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->config = *config;
	fill_in_defaults(&t->config.limits);
	TAILQ_INIT(&t->all);
	TAILQ_INIT(&t->sendable);
	TAILQ_INIT(&t->with_events);
	t->next_id = 1;
	t->next_port = CONN_PORT_DYNAMIC;
	t->deadline_us = NEVER_US;
	return t;
}

static struct conn **bucket_of(struct ptcp_conns *t, uint32_t id)
{
	return &t->buckets[id % CONN_N_BUCKETS];
}

static void conn_free(struct conn *c)
{
	struct ptcp_conns *t = c->table;
	struct conn **at = bucket_of(t, c->id);

	conn_set_deadline(c, NEVER_US);
	while (*at != c)
		at = &(*at)->hash_next;
	*at = c->hash_next;
	TAILQ_REMOVE(&t->all, c, all_link);
	if (c->in_send)
		TAILQ_REMOVE(&t->sendable, c, send_link);
	if (c->in_event)
		TAILQ_REMOVE(&t->with_events, c, event_link);
	conn_out_fini(c);
	conn_in_fini(c);
	conn_account(c);
	assert(c->held_bytes == 0);
	t->n_conns--;
	if (c->is_listener)
		t->n_listeners--;
	free(c);
}

void ptcp_conns_free(struct ptcp_conns *t)
{
	struct conn *c;

	if (!t)
		return;
	while ((c = TAILQ_FIRST(&t->all)))
		conn_free(c);
	free(t);
}

struct conn *conn_find(const struct ptcp_conns *t, uint32_t id)
{
	struct conn *c = t->buckets[id % CONN_N_BUCKETS];

	while (c && c->id != id)
		c = c->hash_next;
	return c;
}

struct conn *conn_find_remote(const struct ptcp_conns *t, uint32_t remote_id)
{
	struct conn *c;

	TAILQ_FOREACH (c, &t->all, all_link)
		if (c->remote_id == remote_id)
			break;
	return c;
}

bool conn_has_room(const struct ptcp_conns *t)
{
	if (t->n_conns >= t->config.limits.n_conns || t->next_id > CONN_ID_MAX)
		return false;
	return t->n_conns < CONN_SURE ||
	       memory_room(t->config.memory, t->held_bytes) >= CONN_WINDOW_MIN + CONN_RING_SURE;
}

/*
 * The peer may fill what it was promised at any time, so that counts as held, in the size that the
 * ring would have then.
 */
void conn_account(struct conn *c)
{
	struct ptcp_conns *t = c->table;
	const size_t in_bytes = c->in.promised > 0
					? conn_ring_size_for(&c->in.ring, (size_t)c->in.promised)
					: c->in.ring.size_bytes;
	const size_t now_bytes = in_bytes + c->out.ring.size_bytes;

	memory_account(t->config.memory, c->held_bytes, now_bytes);
	t->held_bytes += now_bytes - c->held_bytes;
	c->held_bytes = now_bytes;
}

struct conn *conn_new(struct ptcp_conns *t)
{
	struct conn *c, **at;

	if (!conn_has_room(t))
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->table = t;
	c->id = t->next_id++;
	c->deadline_us = NEVER_US;
	conn_ranges_init(&c->out.acked, t->config.limits.n_holes);
	conn_ranges_init(&c->out.lost, t->config.limits.n_holes);
	conn_ranges_init(&c->in.early, t->config.limits.n_holes);
	at = bucket_of(t, c->id);
	c->hash_next = *at;
	*at = c;
	TAILQ_INSERT_TAIL(&t->all, c, all_link);
	t->n_conns++;
	return c;
}

/* ---- lists and lifetimes --------------------------------------------------------- */

/* Nobody needs it: the application has seen the last of it, and so has the peer. */
static bool is_done(const struct conn *c)
{
	return c->state == PTCP_CONN_CLOSED && c->released && !c->events &&
	       (!c->rst_owed || c->rst_done);
}

void conn_settle(struct conn *c, uint64_t now_us)
{
	struct ptcp_conns *t = c->table;
	const bool has_work = !t->lost && conn_has_work(c);

	conn_account(c);
	if (is_done(c)) {
		conn_free(c);
		return;
	}
	if (has_work && !c->in_send)
		TAILQ_INSERT_TAIL(&t->sendable, c, send_link);
	if (!has_work && c->in_send)
		TAILQ_REMOVE(&t->sendable, c, send_link);
	c->in_send = has_work;
	conn_out_watch(c, now_us);
}

bool ptcp_conns_want_send(const struct ptcp_conns *t)
{
	return t->n_due > 0 || !TAILQ_EMPTY(&t->sendable);
}

bool ptcp_conns_idle(const struct ptcp_conns *t)
{
	return t->n_conns == t->n_listeners && t->n_refusals == 0;
}

void ptcp_conns_set_rtt(struct ptcp_conns *t, uint64_t srtt_us, uint64_t pto_us)
{
	t->srtt_us = srtt_us;
	t->pto_us = pto_us;
}

/* ---- events ------------------------------------------------------------------------ */

void conn_event(struct conn *c, enum ptcp_conn_event_type type)
{
	c->events |= UINT32_C(1) << type;
	if (!c->in_event)
		TAILQ_INSERT_TAIL(&c->table->with_events, c, event_link);
	c->in_event = true;
}

static void take_event(struct conn *c, struct ptcp_conn_event *ret_event)
{
	unsigned type = PTCP_CONN_EVENT_INCOMING;

	while (!(c->events & (UINT32_C(1) << type)))
		type++;
	c->events &= ~(UINT32_C(1) << type);
	*ret_event = (struct ptcp_conn_event){
		.type = type,
		.id = c->id,
		.error = type == PTCP_CONN_EVENT_CLOSED ? c->error : PTCP_CONN_OK,
		.by_peer = type == PTCP_CONN_EVENT_CLOSED && c->by_peer,
		.listener = c->listener,
		.local_port = c->local_port,
		.remote_port = c->remote_port,
		.service_bytes = c->service_bytes,
	};
	memcpy(ret_event->service, c->service, sizeof(c->service));
}

bool ptcp_conns_next_event(struct ptcp_conns *t, struct ptcp_conn_event *ret_event)
{
	bool found = false;
	struct conn *c;

	while (!found && (c = TAILQ_FIRST(&t->with_events))) {
		/* Who gave the id back wants to hear no more than the end. */
		if (c->released)
			c->events &= UINT32_C(1) << PTCP_CONN_EVENT_CLOSED;
		found = c->events != 0;
		if (found)
			take_event(c, ret_event);
		if (c->events)
			continue;
		TAILQ_REMOVE(&t->with_events, c, event_link);
		c->in_event = false;
		if (is_done(c))
			conn_free(c);
	}
	return found;
}

/* ---- timers ------------------------------------------------------------------------- */

void conn_set_deadline(struct conn *c, uint64_t deadline_us)
{
	struct ptcp_conns *t = c->table;
	const bool was_first = c->deadline_us == t->deadline_us;
	const struct conn *other;

	if (deadline_us == c->deadline_us)
		return;
	c->deadline_us = deadline_us;
	if (!was_first) {
		t->deadline_us = min_u64(t->deadline_us, deadline_us);
		return;
	}
	t->deadline_us = NEVER_US;
	TAILQ_FOREACH (other, &t->all, all_link)
		t->deadline_us = min_u64(t->deadline_us, other->deadline_us);
}

uint64_t ptcp_conns_deadline_us(const struct ptcp_conns *t)
{
	return t->deadline_us;
}

void ptcp_conns_tick(struct ptcp_conns *t, uint64_t now_us)
{
	struct conn *c, *next;

	if (now_us < t->deadline_us)
		return;
	for (c = TAILQ_FIRST(&t->all); c; c = next) {
		next = TAILQ_NEXT(c, all_link);
		if (now_us < c->deadline_us)
			continue;
		conn_set_deadline(c, NEVER_US);
		conn_dispatch(c, PTCP_CONN_TIMEOUT, now_us);
		conn_settle(c, now_us);
	}
}

void ptcp_conns_association_lost(struct ptcp_conns *t, uint64_t now_us)
{
	struct conn *c, *next;

	t->lost = true;
	conn_refusal_clear(t);
	for (c = TAILQ_FIRST(&t->all); c; c = next) {
		next = TAILQ_NEXT(c, all_link);
		c->rst_done = true;
		if (c->state != PTCP_CONN_CLOSED) {
			c->error = PTCP_CONN_ASSOCIATION;
			conn_dispatch(c, PTCP_CONN_LOST, now_us);
		}
		conn_settle(c, now_us);
	}
}

/* ---- opening --------------------------------------------------------------------------- */

static struct conn *find_pair(const struct ptcp_conns *t, uint16_t local_port, uint16_t remote_port)
{
	struct conn *c;

	TAILQ_FOREACH (c, &t->all, all_link)
		if (c->state != PTCP_CONN_CLOSED && c->state != PTCP_CONN_LISTEN &&
		    c->local_port == local_port && c->remote_port == remote_port)
			break;
	return c;
}

/* A dynamic port that makes a new pair with `remote_port`; 0 when all are in use. */
static uint16_t choose_port(struct ptcp_conns *t, uint16_t remote_port)
{
	for (uint32_t tries = 0; tries <= UINT16_MAX - CONN_PORT_DYNAMIC; tries++) {
		const uint16_t port = t->next_port;

		t->next_port = port == UINT16_MAX ? CONN_PORT_DYNAMIC : (uint16_t)(port + 1);
		if (!find_pair(t, port, remote_port))
			return port;
	}
	return 0;
}

static int new_named(struct ptcp_conns *t, const char *service, struct conn **ret_conn)
{
	const size_t service_bytes = service ? strlen(service) : 0;
	struct conn *c;

	if (t->lost)
		return -ENOTCONN;
	if (service_bytes > PTCP_CONN_SERVICE_BYTES_MAX)
		return -EINVAL;
	if (!conn_has_room(t))
		return -ENOBUFS;
	c = conn_new(t);
	if (!c)
		return -ENOMEM;
	c->service_bytes = (uint8_t)service_bytes;
	if (service_bytes > 0)
		memcpy(c->service, service, service_bytes);
	*ret_conn = c;
	return 0;
}

int64_t ptcp_conns_connect(struct ptcp_conns *t, uint16_t local_port, uint16_t port,
			   const char *service, uint64_t now_us)
{
	struct conn *c;
	int r;

	if (port == PTCP_CONN_PORT_ANY)
		return -EINVAL;
	if (local_port == PTCP_CONN_PORT_ANY)
		local_port = choose_port(t, port);
	if (local_port == 0 || find_pair(t, local_port, port))
		return -EADDRINUSE;
	r = new_named(t, service, &c);
	if (r < 0)
		return r;

	const uint32_t id = c->id;

	c->local_port = local_port;
	c->remote_port = port;
	conn_dispatch(c, PTCP_CONN_ACTIVE_OPEN, now_us);
	conn_settle(c, now_us);
	return id;
}

static bool same_service(const struct conn *c, const void *service, size_t service_bytes)
{
	return c->service_bytes == service_bytes && !memcmp(c->service, service, service_bytes);
}

/* The listener for a SYN: one that names port and service before one that takes any. */
static struct conn *find_listener(const struct ptcp_conns *t, uint16_t port, const void *service,
				  size_t service_bytes)
{
	struct conn *c, *best = NULL;
	unsigned best_score = 0;

	TAILQ_FOREACH (c, &t->all, all_link) {
		const bool port_named = c->local_port == port;
		const bool service_named = same_service(c, service, service_bytes);
		const unsigned score = 1 + 2u * port_named + service_named;

		if (c->state != PTCP_CONN_LISTEN || score <= best_score)
			continue;
		if ((port_named || c->local_port == PTCP_CONN_PORT_ANY) &&
		    (service_named || c->service_bytes == 0)) {
			best = c;
			best_score = score;
		}
	}
	return best;
}

int64_t ptcp_conns_listen(struct ptcp_conns *t, uint16_t port, const char *service,
			  uint32_t n_backlog, uint64_t now_us)
{
	struct conn *c;
	int r;

	TAILQ_FOREACH (c, &t->all, all_link)
		if (c->state == PTCP_CONN_LISTEN && c->local_port == port &&
		    same_service(c, service ? service : "", service ? strlen(service) : 0))
			return -EADDRINUSE;
	r = new_named(t, service, &c);
	if (r < 0)
		return r;

	const uint32_t id = c->id;

	c->local_port = port;
	c->n_backlog = n_backlog;
	c->is_listener = true;
	t->n_listeners++;
	conn_dispatch(c, PTCP_CONN_PASSIVE_OPEN, now_us);
	conn_settle(c, now_us);
	return id;
}

/* ---- the peer's SYN ---------------------------------------------------------------------- */

/*
 * A SYN may come again, late, when its connection is long gone, and must not bring a ghost into
 * being. So the newest CONN_SYN_BITS ids of the peer are remembered; what is older counts as
 * seen.
 */
static bool syn_is_new(struct ptcp_conns *t, uint64_t id)
{
	uint64_t *word = &t->syn_seen[id / 64 % ARRAY_SIZE(t->syn_seen)];
	const uint64_t bit = UINT64_C(1) << id % 64;
	bool seen;

	if (id + CONN_SYN_BITS <= t->syn_highest)
		return false;
	if (id > t->syn_highest) {
		const uint64_t first = max_u64(t->syn_highest + 1,
					       id >= CONN_SYN_BITS ? id - CONN_SYN_BITS + 1 : 0);

		for (uint64_t i = first; i <= id; i++)
			t->syn_seen[i / 64 % ARRAY_SIZE(t->syn_seen)] &= ~(UINT64_C(1) << i % 64);
		t->syn_highest = id;
	}
	seen = *word & bit;
	*word |= bit;
	return !seen;
}

static uint32_t n_waiting(const struct ptcp_conns *t, uint32_t listener)
{
	const struct conn *c;
	uint32_t n = 0;

	TAILQ_FOREACH (c, &t->all, all_link)
		n += c->listener == listener && c->state == PTCP_CONN_SYN_RCVD && !c->accepted;
	return n;
}

/* The copy of the listener that becomes the connection. */
static void spawn(struct ptcp_conns *t, const struct conn *listener, const struct conn_syn *syn,
		  uint64_t now_us)
{
	struct conn *c = conn_new(t);

	if (!c) {
		conn_refuse(t, syn->id, PTCP_CONN_BUSY, false);
		return;
	}
	c->listener = listener->id;
	c->local_port = syn->to_port;
	c->remote_port = syn->from_port;
	c->service_bytes = (uint8_t)syn->service_bytes;
	memcpy(c->service, syn->service, syn->service_bytes);
	conn_dispatch(c, PTCP_CONN_PASSIVE_OPEN, now_us);
	c->remote_id = syn->id;
	c->out.limit = syn->window;
	conn_dispatch(c, PTCP_CONN_SYN, now_us);
	conn_settle(c, now_us);
}

void conn_syn_input(struct ptcp_conns *t, const struct conn_syn *syn, uint64_t now_us)
{
	struct conn *c = find_pair(t, syn->to_port, syn->from_port);
	const struct conn *listener;

	if (!syn_is_new(t, syn->id) || conn_find_remote(t, syn->id))
		return;
	if (c && c->state == PTCP_CONN_SYN_SENT &&
	    same_service(c, syn->service, syn->service_bytes)) {
		c->remote_id = syn->id;
		c->out.limit = syn->window;
		conn_dispatch(c, PTCP_CONN_SYN, now_us);
		conn_settle(c, now_us);
		return;
	}
	if (c && c->state == PTCP_CONN_TIME_WAIT) { /* RFC 9293, 3.6.1: it may begin anew */
		conn_dispatch(c, PTCP_CONN_TIMEOUT, now_us);
		conn_settle(c, now_us);
		c = NULL;
	}
	listener = find_listener(t, syn->to_port, syn->service, syn->service_bytes);
	if (c || !listener)
		conn_refuse(t, syn->id, PTCP_CONN_REFUSED, false);
	else if (n_waiting(t, listener->id) >= listener->n_backlog)
		conn_refuse(t, syn->id, PTCP_CONN_BUSY, false);
	else
		spawn(t, listener, syn, now_us);
}
