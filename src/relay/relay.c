/* Accounts, presence and rendezvous. */
#include "relay/internal.h"

#define SLICE_US (50 * US_PER_MS)

void relay_config_default(struct relay_config *ret_config)
{
	*ret_config = (struct relay_config){
		.ends_max = 65536,
		.listens_per_end_max = 32,
		.listeners_max = 32,
		.rendezvous_max = 262144,
		.rendezvous_per_end_max = 2048,
		.bytes_per_s = 16 * 1024 * 1024,
		.burst_bytes = 16 * 1024 * 1024,
		.signals_per_s = 50,
		.signals_burst = 500,
		.queue_max_bytes = 256 * 1024,
	};
}

unsigned relay_hash(const struct relay *r, const void *key, size_t key_bytes)
{
	return (unsigned)hash_bytes(&r->config.seed, key, key_bytes);
}

/* ---- token buckets ------------------------------------------------------------ */

#define BUCKET_SCALE UINT64_C(1000000)

static void bucket_init(struct bucket *b, uint64_t burst, uint64_t now_us)
{
	b->level = burst * BUCKET_SCALE;
	b->updated_us = now_us;
}

/* Fills by rate per second up to burst, then takes n if they are there. */
static bool bucket_take(struct bucket *b, uint64_t n, uint64_t rate, uint64_t burst,
			uint64_t now_us)
{
	const uint64_t passed_us = now_us > b->updated_us ? now_us - b->updated_us : 0;
	const uint64_t full = burst * BUCKET_SCALE;

	/* After burst/rate seconds it is full; so the product below cannot wrap. */
	if (rate > 0 && passed_us / BUCKET_SCALE > burst / rate)
		b->level = full;
	else
		b->level = min_u64(full, b->level + passed_us * rate);
	b->updated_us = now_us;
	if (b->level < n * BUCKET_SCALE)
		return false;
	b->level -= n * BUCKET_SCALE;
	return true;
}

/* ---- accounts ------------------------------------------------------------------ */

static struct account *account_get(struct relay *r, const char *address, uint64_t now_us)
{
	const size_t n_bytes = strlen(address);
	const unsigned hash = relay_hash(r, address, n_bytes);
	struct account *a;

	HASH_FIND_BYHASHVALUE(hh, r->accounts, address, n_bytes, hash, a);
	if (a)
		return a;
	a = calloc(1, sizeof(*a) + n_bytes + 1);
	if (!a)
		return NULL;
	memcpy(a->address, address, n_bytes);
	bucket_init(&a->bytes, r->config.burst_bytes, now_us);
	bucket_init(&a->signals, r->config.signals_burst, now_us);
	HASH_ADD_KEYPTR_BYHASHVALUE(hh, r->accounts, a->address, n_bytes, hash, a);
	if (!a->hh.tbl) {
		free(a);
		return NULL;
	}
	r->stats.n_accounts++;
	return a;
}

/*
 * The buckets go with the last connection. Connecting again to get a full one
 * is held back by the limits that the server puts on connections.
 */
static void account_unref(struct relay *r, struct account *a)
{
	if (--a->n_ends > 0)
		return;
	HASH_DEL(r->accounts, a);
	r->stats.n_accounts--;
	free(a);
}

/* ---- rendezvous ---------------------------------------------------------------- */

static void side_detach(struct side *s)
{
	if (!s->end)
		return;
	relay_channel_drop(s->end->relay, s);
	if (s->rendezvous->gone) {
		TAILQ_REMOVE(&s->end->gone_sides, s, of_end);
	} else {
		TAILQ_REMOVE(&s->end->sides, s, of_end);
		s->end->n_sides--;
	}
	s->end = NULL;
}

static void side_attach(struct side *s, struct rendezvous *v, struct relay_end *end)
{
	s->rendezvous = v;
	s->end = end;
	TAILQ_INSERT_HEAD(&end->sides, s, of_end);
	end->n_sides++;
}

void relay_side_touch(struct side *s)
{
	TAILQ_REMOVE(&s->end->sides, s, of_end);
	TAILQ_INSERT_HEAD(&s->end->sides, s, of_end);
}

/* What waits to be told counts no longer against the quota of its end. */
static void side_retire(struct side *s)
{
	if (!s->end)
		return;
	relay_channel_drop(s->end->relay, s);
	TAILQ_REMOVE(&s->end->sides, s, of_end);
	s->end->n_sides--;
	TAILQ_INSERT_TAIL(&s->end->gone_sides, s, of_end);
}

/* Both ends will be told, but for `done`, which may be NULL. */
static void rendezvous_end(struct relay *r, struct rendezvous *v, struct side *done)
{
	if (done)
		side_detach(done);
	HASH_DEL(r->rendezvous, v);
	r->stats.n_rendezvous--;
	side_retire(&v->side[0]);
	side_retire(&v->side[1]);
	v->gone = true;
	TAILQ_INSERT_TAIL(&r->gone, v, of_gone);
}

static void gone_free(struct relay *r, struct rendezvous *v)
{
	TAILQ_REMOVE(&r->gone, v, of_gone);
	side_detach(&v->side[0]);
	side_detach(&v->side[1]);
	free(v);
}

static struct side *rendezvous_side(struct rendezvous *v, const struct relay_end *end)
{
	if (v->side[0].end == end)
		return &v->side[0];
	if (v->side[1].end == end)
		return &v->side[1];
	return NULL;
}

static bool id_valid(const char *id, size_t id_bytes)
{
	if (id_bytes != RELAY_ID_BYTES)
		return false;
	for (size_t i = 0; i < id_bytes; i++)
		if (!(id[i] >= '0' && id[i] <= '9') && !(id[i] >= 'a' && id[i] <= 'f'))
			return false;
	return true;
}

static struct rendezvous *rendezvous_find(const struct relay *r, const char *id, size_t id_bytes)
{
	struct rendezvous *v;

	if (!id_valid(id, id_bytes))
		return NULL;
	HASH_FIND_BYHASHVALUE(hh, r->rendezvous, id, id_bytes, relay_hash(r, id, id_bytes), v);
	return v;
}

struct side *relay_side_find(struct relay_end *end, const char *id, size_t id_bytes)
{
	struct rendezvous *v = rendezvous_find(end->relay, id, id_bytes);

	return v ? rendezvous_side(v, end) : NULL;
}

struct side *relay_side_other(struct side *s)
{
	return s == &s->rendezvous->side[0] ? &s->rendezvous->side[1] : &s->rendezvous->side[0];
}

static void make_room(struct relay_end *end)
{
	while (end->n_sides >= end->relay->config.rendezvous_per_end_max) {
		struct side *last = TAILQ_LAST(&end->sides, side_list);

		rendezvous_end(end->relay, last->rendezvous, NULL);
		end->relay->stats.n_evicted++;
	}
}

int relay_rendezvous_add(struct relay_end *requester, struct relay_end *listener, const char *id,
			 size_t id_bytes)
{
	struct relay *r = requester->relay;
	struct rendezvous *v;

	if (!id_valid(id, id_bytes))
		return -EINVAL;
	if (requester == listener || rendezvous_find(r, id, id_bytes))
		return RELAY_TAKEN;
	if (r->stats.n_rendezvous >= r->config.rendezvous_max) {
		r->stats.n_limited++;
		return RELAY_LIMITED;
	}
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	memcpy(v->id, id, id_bytes);
	HASH_ADD_KEYPTR_BYHASHVALUE(hh, r->rendezvous, v->id, RELAY_ID_BYTES,
				    relay_hash(r, id, id_bytes), v);
	if (!v->hh.tbl) {
		free(v);
		return -ENOMEM;
	}
	r->stats.n_rendezvous++;
	r->stats.n_rendezvous_made++;
	make_room(requester);
	make_room(listener);
	side_attach(&v->side[0], v, requester);
	side_attach(&v->side[1], v, listener);
	return 0;
}

int relay_route(struct relay_end *from, const char *id, size_t id_bytes, struct relay_end **ret_to)
{
	struct side *own = relay_side_find(from, id, id_bytes);
	struct side *other;

	if (!own) {
		from->relay->stats.n_unknown++;
		return RELAY_UNKNOWN;
	}
	other = relay_side_other(own);
	relay_side_touch(own);
	relay_side_touch(other);
	*ret_to = other->end;
	return 0;
}

int relay_rendezvous_close(struct relay_end *from, const char *id, size_t id_bytes)
{
	struct side *own = relay_side_find(from, id, id_bytes);

	if (!own) {
		from->relay->stats.n_unknown++;
		return RELAY_UNKNOWN;
	}
	rendezvous_end(from->relay, own->rendezvous, own);
	return 0;
}

bool relay_next_gone(struct relay *r, struct relay_end **ret_end, char ret_id[RELAY_ID_BYTES + 1])
{
	struct rendezvous *v;

	while ((v = TAILQ_FIRST(&r->gone))) {
		struct side *left = v->side[0].end ? &v->side[0] : &v->side[1];

		if (left->end) {
			*ret_end = left->end;
			memcpy(ret_id, v->id, sizeof(v->id));
			side_detach(left);
			return true;
		}
		gone_free(r, v);
	}
	return false;
}

int relay_charge_signal(struct relay_end *end, uint64_t now_us)
{
	struct relay *r = end->relay;

	if (!bucket_take(&end->account->signals, 1, r->config.signals_per_s,
			 r->config.signals_burst, now_us)) {
		r->stats.n_limited++;
		return RELAY_LIMITED;
	}
	r->stats.n_signals++;
	return 0;
}

/* A new slice begins when the last one is over. */
static void turn_slice(struct relay *r, uint64_t now_us)
{
	if (now_us - r->slice.start_us < SLICE_US && r->slice.number > 0)
		return;
	r->slice.n_accounts_before =
		now_us - r->slice.start_us < 2 * SLICE_US ? r->slice.n_accounts : 0;
	r->slice.number++;
	r->slice.start_us = now_us;
	r->slice.bytes = 0;
	r->slice.n_accounts = 0;
}

/*
 * Whether the server as a whole has room for this account. Who sent less than an equal share
 * always has; what the others leave is there for everybody, as time passes.
 */
static bool has_share(const struct relay *r, const struct account *a, bool congested,
		      uint64_t now_us)
{
	const unsigned n = (unsigned)max_u64(r->slice.n_accounts, r->slice.n_accounts_before);
	const uint64_t total = r->config.total_bytes_per_s;

	if (congested && a->slice_bytes > r->slice.bytes / max_u64(n, 1))
		return false;
	if (total == 0)
		return true;
	/* A batch may be larger than a share, so the one that passes the limit still goes. */
	return a->slice_bytes < total * SLICE_US / US_PER_S / max_u64(n, 1) ||
	       r->slice.bytes < total * (now_us - r->slice.start_us) / US_PER_S;
}

int relay_charge(struct relay *r, struct account *a, size_t n_bytes, bool congested,
		 uint64_t now_us)
{
	turn_slice(r, now_us);
	if (a->slice != r->slice.number) {
		a->slice = r->slice.number;
		a->slice_bytes = 0;
		r->slice.n_accounts++;
	}
	if (!has_share(r, a, congested, now_us)) {
		r->stats.n_full++;
		return RELAY_FULL;
	}
	if (!bucket_take(&a->bytes, n_bytes, r->config.bytes_per_s, r->config.burst_bytes,
			 now_us)) {
		r->stats.n_limited++;
		return RELAY_LIMITED;
	}
	a->slice_bytes += n_bytes;
	r->slice.bytes += n_bytes;
	r->stats.n_relayed++;
	r->stats.relayed_bytes += n_bytes;
	return 0;
}

int relay_charge_bytes(struct relay_end *from, size_t n_bytes, size_t queued_bytes, uint64_t now_us)
{
	struct relay *r = from->relay;

	if (queued_bytes > r->config.queue_max_bytes ||
	    n_bytes > r->config.queue_max_bytes - queued_bytes) {
		r->stats.n_full++;
		return RELAY_FULL;
	}
	return relay_charge(r, from->account, n_bytes, false, now_us);
}

/* ---- presence ------------------------------------------------------------------ */

#define PRESENCE_KEY_MAX (RELAY_ADDRESS_MAX + 1 + RELAY_PROTOCOL_MAX)

/* address, NUL, protocol. 0 bytes: not a key. */
static size_t presence_key(const char *address, const char *protocol,
			   char out[static PRESENCE_KEY_MAX])
{
	const size_t address_bytes = strlen(address), protocol_bytes = strlen(protocol);

	if (address_bytes == 0 || address_bytes > RELAY_ADDRESS_MAX)
		return 0;
	if (protocol_bytes == 0 || protocol_bytes > RELAY_PROTOCOL_MAX)
		return 0;
	memcpy(out, address, address_bytes + 1);
	memcpy(out + address_bytes + 1, protocol, protocol_bytes);
	return address_bytes + 1 + protocol_bytes;
}

static struct presence *presence_find(const struct relay *r, const char *key, size_t key_bytes)
{
	struct presence *p;

	HASH_FIND_BYHASHVALUE(hh, r->presences, key, key_bytes, relay_hash(r, key, key_bytes), p);
	return p;
}

static struct presence *presence_new(struct relay *r, const char *key, size_t key_bytes)
{
	struct presence *p = calloc(1, sizeof(*p) + key_bytes + 1);

	if (!p)
		return NULL;
	memcpy(p->key, key, key_bytes);
	p->key_bytes = key_bytes;
	p->protocol = p->key + strlen(p->key) + 1;
	TAILQ_INIT(&p->listens);
	HASH_ADD_KEYPTR_BYHASHVALUE(hh, r->presences, p->key, key_bytes,
				    relay_hash(r, key, key_bytes), p);
	if (!p->hh.tbl) {
		free(p);
		return NULL;
	}
	return p;
}

static void presence_drop_if_empty(struct relay *r, struct presence *p)
{
	if (p->n_listens > 0)
		return;
	HASH_DEL(r->presences, p);
	free(p);
}

static struct listen *listen_find(const struct relay_end *end, const struct presence *p)
{
	struct listen *l;

	LIST_FOREACH (l, &end->listens, of_end) {
		if (l->presence == p)
			return l;
	}
	return NULL;
}

static void listen_free(struct listen *l)
{
	struct relay *r = l->end->relay;
	struct presence *p = l->presence;

	TAILQ_REMOVE(&p->listens, l, of_presence);
	LIST_REMOVE(l, of_end);
	p->n_listens--;
	l->end->n_listens--;
	r->stats.n_listens--;
	free(l);
	presence_drop_if_empty(r, p);
}

static int listen_new(struct relay_end *end, struct presence *p)
{
	struct relay *r = end->relay;
	struct listen *l;

	if (end->n_listens >= r->config.listens_per_end_max ||
	    p->n_listens >= r->config.listeners_max) {
		r->stats.n_limited++;
		return RELAY_LIMITED;
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->end = end;
	l->presence = p;
	TAILQ_INSERT_TAIL(&p->listens, l, of_presence);
	LIST_INSERT_HEAD(&end->listens, l, of_end);
	p->n_listens++;
	end->n_listens++;
	r->stats.n_listens++;
	return 0;
}

int relay_listen(struct relay_end *end, const char *address, const char *protocol)
{
	struct relay *r = end->relay;
	char key[PRESENCE_KEY_MAX];
	const size_t key_bytes = presence_key(address, protocol, key);
	struct presence *p;
	int rc;

	if (key_bytes == 0)
		return -EINVAL;
	p = presence_find(r, key, key_bytes);
	if (!p)
		p = presence_new(r, key, key_bytes);
	if (!p)
		return -ENOMEM;
	rc = listen_find(end, p) ? 0 : listen_new(end, p);
	presence_drop_if_empty(r, p);
	return rc;
}

size_t relay_listeners(const struct relay *r, const char *address, const char *protocol,
		       struct relay_end **ends, size_t n_max)
{
	char key[PRESENCE_KEY_MAX];
	const size_t key_bytes = presence_key(address, protocol, key);
	const struct presence *p = key_bytes > 0 ? presence_find(r, key, key_bytes) : NULL;
	const struct listen *l;
	size_t n = 0;

	if (!p)
		return 0;
	TAILQ_FOREACH (l, &p->listens, of_presence) {
		if (n == n_max)
			break;
		ends[n++] = l->end;
	}
	return n;
}

bool relay_end_listens(const struct relay_end *end, const char *address, const char *protocol)
{
	char key[PRESENCE_KEY_MAX];
	const size_t key_bytes = presence_key(address, protocol, key);
	const struct presence *p = key_bytes > 0 ? presence_find(end->relay, key, key_bytes) : NULL;

	return p && listen_find(end, p);
}

void relay_presence_visit(const struct relay *r,
			  bool (*visit)(void *user, const char *address, const char *protocol,
					unsigned n_listeners),
			  void *user)
{
	for (const struct presence *p = r->presences; p; p = p->hh.next)
		if (!visit(user, p->key, p->protocol, p->n_listens))
			return;
}

/* ---- ends ---------------------------------------------------------------------- */

int relay_end_new(struct relay *r, const char *account, void *user, uint64_t now_us,
		  struct relay_end **ret_end)
{
	struct relay_end *end;

	if (r->stats.n_ends >= r->config.ends_max) {
		r->stats.n_limited++;
		return RELAY_LIMITED;
	}
	end = calloc(1, sizeof(*end));
	if (!end)
		return -ENOMEM;
	end->account = account_get(r, account, now_us);
	if (!end->account) {
		free(end);
		return -ENOMEM;
	}
	end->account->n_ends++;
	end->relay = r;
	end->user = user;
	LIST_INIT(&end->listens);
	TAILQ_INIT(&end->sides);
	TAILQ_INIT(&end->gone_sides);
	r->stats.n_ends++;
	*ret_end = end;
	return 0;
}

void relay_end_free(struct relay_end *end)
{
	struct relay *r;
	struct side *s;

	if (!end)
		return;
	r = end->relay;
	while (!LIST_EMPTY(&end->listens))
		listen_free(LIST_FIRST(&end->listens));
	while ((s = TAILQ_FIRST(&end->sides)))
		rendezvous_end(r, s->rendezvous, s);
	while ((s = TAILQ_FIRST(&end->gone_sides)))
		side_detach(s);
	account_unref(r, end->account);
	r->stats.n_ends--;
	free(end);
}

void *relay_end_user(const struct relay_end *end)
{
	return end->user;
}

const char *relay_end_account(const struct relay_end *end)
{
	return end->account->address;
}

/* ---- the whole ------------------------------------------------------------------- */

struct relay *relay_new(const struct relay_config *config)
{
	struct relay *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->config = *config;
	TAILQ_INIT(&r->gone);
	return r;
}

void relay_free(struct relay *r)
{
	if (!r)
		return;
	assert(r->stats.n_ends == 0);
	while (!TAILQ_EMPTY(&r->gone))
		gone_free(r, TAILQ_FIRST(&r->gone));
	free(r);
}

void relay_set_limits(struct relay *r, unsigned ends_max, uint64_t bytes_per_s,
		      uint64_t total_bytes_per_s, uint64_t burst_bytes)
{
	r->config.ends_max = ends_max;
	r->config.bytes_per_s = bytes_per_s;
	r->config.total_bytes_per_s = total_bytes_per_s;
	r->config.burst_bytes = burst_bytes;
}

void relay_stats(const struct relay *r, struct relay_stats *ret_stats)
{
	*ret_stats = r->stats;
}
