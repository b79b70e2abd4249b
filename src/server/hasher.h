/*
 * hasher - password hashing off the loop. scrypt takes a tenth of a second by
 * design, so a few threads do it, fed by a bounded queue: a flood of wrong
 * passwords makes new ones wait or be refused and never stops the loop.
 */
#ifndef SERVER_HASHER_H
#define SERVER_HASHER_H

#include "base/base.h"

struct net_loop;
struct hasher;
struct hasher_job;

#define HASHER_QUEUE_MAX 64

/* `result` is that of crypto_password_verify(), or of crypto_password_hash(), then with text. */
typedef void hasher_fn(void *user, int result, const char *text);

/* Starts the threads. 0 or a fault. */
int hasher_new(struct net_loop *loop, unsigned n_threads, struct hasher **ret_hasher);
/* Waits for what is being computed; callbacks of all jobs left do not come. NULL is fine. */
void hasher_free(struct hasher *h);

/*
 * Text NULL: there is no such account, takes as long as if there were. The password is copied,
 * and wiped when done. 0; -EBUSY when the queue is full; -ENOMEM. The callback comes exactly
 * once, from the loop, unless the job is cancelled.
 */
int hasher_verify(struct hasher *h, const char *text, const void *password, size_t password_bytes,
		  hasher_fn *fn, void *user, struct hasher_job **ret_job);
int hasher_hash(struct hasher *h, const void *password, size_t password_bytes, hasher_fn *fn,
		void *user, struct hasher_job **ret_job);
void hasher_cancel(struct hasher_job *job); /* NULL is fine; the job is gone for its owner */
unsigned hasher_waiting(const struct hasher *h);

#endif
