/*
 * limiter - how often a stranger may try something: a bounded table of keys
 * (an account, a network address), each with a token bucket and, for attempts
 * that can fail, a growing pause after each failure. Sans-IO.
 *
 * The table evicts the key that was used least recently, so whoever wants a
 * key forgotten has to bring more fresh keys than the table holds; the limits
 * on connections per address make that slow.
 */
#ifndef SERVER_LIMITER_H
#define SERVER_LIMITER_H

#include "base/base.h"

#define LIMITER_KEY_MAX 320

struct limiter_config {
	struct hash_seed seed;
	unsigned n_keys_max;
	/* The bucket: `burst` at once, then one per interval. burst 0: no bucket. */
	unsigned burst;
	uint64_t interval_us;
	/* The pause: none for the first free_failures, then first_pause_us, doubled by each further
	 * failure up to longest_pause_us. All is forgotten forget_us after the last failure. */
	unsigned free_failures;
	uint64_t first_pause_us, longest_pause_us, forget_us;
};

struct limiter;

struct limiter *limiter_new(const struct limiter_config *config); /* NULL: no memory */
void limiter_free(struct limiter *l);                             /* NULL is fine */

/* Takes one token. 0, or the microseconds until it may be tried again. No memory: 0. */
uint64_t limiter_take(struct limiter *l, const void *key, size_t key_bytes, uint64_t now_us);
/* Does not take, only asks whether the pause after failures is over. */
uint64_t limiter_pause_us(struct limiter *l, const void *key, size_t key_bytes, uint64_t now_us);
void limiter_failed(struct limiter *l, const void *key, size_t key_bytes, uint64_t now_us);
void limiter_succeeded(struct limiter *l, const void *key, size_t key_bytes);

/* Writes what stands for the network address: all of IPv4, the /64 of IPv6. Returns its size. */
size_t limiter_address_key(const struct ip_address *ip, uint8_t out[static 9]);

#endif
