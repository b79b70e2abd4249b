#include "server/limiter.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct entry {
	UT_hash_handle hh;
	TAILQ_ENTRY(entry) by_use;
	uint64_t refilled_us; /* when the bucket held `tokens` */
	uint64_t failed_us;
	unsigned tokens;
	unsigned n_failures;
	size_t key_bytes;
	uint8_t key[];
};

struct limiter {
	struct limiter_config config;
	struct entry *entries;
	TAILQ_HEAD(entry_list, entry) by_use; /* most recent first */
	unsigned n_entries;
};

struct limiter *limiter_new(const struct limiter_config *config)
{
	struct limiter *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	assert(config->n_keys_max > 0 && (config->burst == 0 || config->interval_us > 0));
	l->config = *config;
	TAILQ_INIT(&l->by_use);
	return l;
}

static void entry_free(struct limiter *l, struct entry *e)
{
	HASH_DEL(l->entries, e);
	TAILQ_REMOVE(&l->by_use, e, by_use);
	l->n_entries--;
	free(e);
}

void limiter_free(struct limiter *l)
{
	if (!l)
		return;
	while (!TAILQ_EMPTY(&l->by_use))
		entry_free(l, TAILQ_FIRST(&l->by_use));
	free(l);
}

static unsigned hash_of(const struct limiter *l, const void *key, size_t key_bytes)
{
	return (unsigned)hash_bytes(&l->config.seed, key, key_bytes);
}

static struct entry *entry_find(const struct limiter *l, const void *key, size_t key_bytes)
{
	struct entry *e;

	HASH_FIND_BYHASHVALUE(hh, l->entries, key, key_bytes, hash_of(l, key, key_bytes), e);
	return e;
}

static struct entry *entry_new(struct limiter *l, const void *key, size_t key_bytes,
			       uint64_t now_us)
{
	struct entry *e = calloc(1, sizeof(*e) + key_bytes);

	if (!e)
		return NULL;
	memcpy(e->key, key, key_bytes);
	e->key_bytes = key_bytes;
	e->tokens = l->config.burst;
	e->refilled_us = now_us;
	HASH_ADD_KEYPTR_BYHASHVALUE(hh, l->entries, e->key, key_bytes, hash_of(l, key, key_bytes),
				    e);
	if (!e->hh.tbl) {
		free(e);
		return NULL;
	}
	TAILQ_INSERT_HEAD(&l->by_use, e, by_use);
	if (l->n_entries++ >= l->config.n_keys_max)
		entry_free(l, TAILQ_LAST(&l->by_use, entry_list));
	return e;
}

static struct entry *entry_get(struct limiter *l, const void *key, size_t key_bytes,
			       uint64_t now_us)
{
	struct entry *e;

	key_bytes = min_size(key_bytes, LIMITER_KEY_MAX);
	e = entry_find(l, key, key_bytes);
	if (!e)
		return entry_new(l, key, key_bytes, now_us);
	TAILQ_REMOVE(&l->by_use, e, by_use);
	TAILQ_INSERT_HEAD(&l->by_use, e, by_use);
	return e;
}

static void refill(const struct limiter *l, struct entry *e, uint64_t now_us)
{
	const uint64_t passed_us = now_us > e->refilled_us ? now_us - e->refilled_us : 0;
	const uint64_t n = passed_us / l->config.interval_us;

	if (n >= l->config.burst - e->tokens) {
		e->tokens = l->config.burst;
		e->refilled_us = now_us;
		return;
	}
	e->tokens += (unsigned)n;
	e->refilled_us += n * l->config.interval_us; /* keeps the part of an interval that passed */
}

uint64_t limiter_take(struct limiter *l, const void *key, size_t key_bytes, uint64_t now_us)
{
	struct entry *e;

	if (l->config.burst == 0)
		return 0;
	e = entry_get(l, key, key_bytes, now_us);
	if (!e)
		return 0;
	refill(l, e, now_us);
	if (e->tokens == 0)
		return e->refilled_us + l->config.interval_us - now_us;
	e->tokens--;
	return 0;
}

static uint64_t pause_of(const struct limiter *l, unsigned n_failures)
{
	uint64_t pause_us = l->config.first_pause_us;

	if (n_failures <= l->config.free_failures)
		return 0;
	for (unsigned i = l->config.free_failures + 1; i < n_failures; i++) {
		if (pause_us >= l->config.longest_pause_us)
			break;
		pause_us *= 2;
	}
	return min_u64(pause_us, l->config.longest_pause_us);
}

uint64_t limiter_pause_us(struct limiter *l, const void *key, size_t key_bytes, uint64_t now_us)
{
	struct entry *e = entry_find(l, key, min_size(key_bytes, LIMITER_KEY_MAX));
	uint64_t until_us;

	if (!e)
		return 0;
	until_us = add_sat_u64(e->failed_us, pause_of(l, e->n_failures));
	return until_us > now_us ? until_us - now_us : 0;
}

void limiter_failed(struct limiter *l, const void *key, size_t key_bytes, uint64_t now_us)
{
	struct entry *e = entry_get(l, key, key_bytes, now_us);

	if (!e)
		return;
	if (now_us > add_sat_u64(e->failed_us, l->config.forget_us))
		e->n_failures = 0;
	if (e->n_failures < UINT32_MAX)
		e->n_failures++;
	e->failed_us = now_us;
}

void limiter_succeeded(struct limiter *l, const void *key, size_t key_bytes)
{
	struct entry *e = entry_find(l, key, min_size(key_bytes, LIMITER_KEY_MAX));

	if (e)
		e->n_failures = 0;
}

size_t limiter_address_key(const struct ip_address *ip, uint8_t out[static 9])
{
	const size_t n_bytes = ip->family == FAMILY_IPV4 ? 4 : 8;

	out[0] = ip->family;
	memcpy(out + 1, ip->bytes, n_bytes);
	return 1 + n_bytes;
}
