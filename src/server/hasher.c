#include "server/hasher.h"

#include "crypto/crypto.h"
#include "net/net.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

/*
 * A job is in one of three places: `waiting` or `done` (under the lock) or in
 * the hands of one thread. fn is touched by the loop alone; NULL: cancelled.
 */
struct hasher_job {
	TAILQ_ENTRY(hasher_job) entry;
	hasher_fn *fn;
	void *user;
	bool make; /* hash, else verify */
	bool has_text;
	int result;
	char text[CRYPTO_PASSWORD_TEXT_BYTES];
	size_t password_bytes;
	uint8_t password[];
};

TAILQ_HEAD(job_list, hasher_job);

struct hasher {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct job_list waiting, done;
	bool stop;
	unsigned n_jobs; /* given and not yet called back; the loop's */
	unsigned n_threads;
	int event_fd;
	struct net_watch watch;
	pthread_t threads[];
};

static void job_free(struct hasher_job *job)
{
	secret_wipe(job->password, job->password_bytes);
	secret_wipe(job->text, sizeof(job->text));
	free(job);
}

static void compute(struct hasher_job *job)
{
	if (job->make)
		job->result = crypto_password_hash(job->password, job->password_bytes,
						   CRYPTO_PASSWORD_COST, job->text);
	else
		job->result = crypto_password_verify(job->has_text ? job->text : NULL,
						     job->password, job->password_bytes);
}

static void *work(void *user)
{
	struct hasher *h = user;
	const uint64_t one = 1;

	pthread_mutex_lock(&h->lock);
	while (!h->stop) {
		struct hasher_job *job = TAILQ_FIRST(&h->waiting);

		if (!job) {
			pthread_cond_wait(&h->wake, &h->lock);
			continue;
		}
		TAILQ_REMOVE(&h->waiting, job, entry);
		pthread_mutex_unlock(&h->lock);
		compute(job);
		pthread_mutex_lock(&h->lock);
		TAILQ_INSERT_TAIL(&h->done, job, entry);
		/* Fails only at 2^64 - 1 unread events, which would wake the loop as well. */
		if (write(h->event_fd, &one, sizeof(one)) < 0)
			continue;
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

static struct hasher_job *take_done(struct hasher *h)
{
	struct hasher_job *job;

	pthread_mutex_lock(&h->lock);
	job = TAILQ_FIRST(&h->done);
	if (job)
		TAILQ_REMOVE(&h->done, job, entry);
	pthread_mutex_unlock(&h->lock);
	return job;
}

static void on_event(void *user, unsigned ready)
{
	struct hasher *h = user;
	struct hasher_job *job;
	uint64_t n;

	(void)ready;
	if (read(h->event_fd, &n, sizeof(n)) < 0)
		return;
	while ((job = take_done(h))) {
		h->n_jobs--;
		if (job->fn)
			job->fn(job->user, job->result, job->make ? job->text : NULL);
		job_free(job);
	}
}

static int start_threads(struct hasher *h, unsigned n_threads)
{
	sigset_t all, saved;
	int rc = 0;

	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	for (unsigned i = 0; i < n_threads && rc == 0; i++) {
		rc = -pthread_create(&h->threads[i], NULL, work, h);
		if (rc == 0)
			h->n_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return rc;
}

int hasher_new(struct net_loop *loop, unsigned n_threads, struct hasher **ret_hasher)
{
	struct hasher *h = calloc(1, sizeof(*h) + n_threads * sizeof(h->threads[0]));
	int rc;

	if (!h)
		return -ENOMEM;
	TAILQ_INIT(&h->waiting);
	TAILQ_INIT(&h->done);
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->wake, NULL);
	h->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = h->event_fd < 0 ? -errno : 0;
	if (rc == 0) {
		net_watch_init(&h->watch, loop, h->event_fd, on_event, h);
		rc = net_watch_want(&h->watch, NET_READ);
	}
	if (rc == 0)
		rc = start_threads(h, n_threads);
	if (rc != 0) {
		hasher_free(h);
		return rc;
	}
	*ret_hasher = h;
	return 0;
}

static void free_all(struct job_list *list)
{
	struct hasher_job *job;

	while ((job = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, job, entry);
		job_free(job);
	}
}

void hasher_free(struct hasher *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	h->stop = true;
	pthread_cond_broadcast(&h->wake);
	pthread_mutex_unlock(&h->lock);
	for (unsigned i = 0; i < h->n_threads; i++)
		pthread_join(h->threads[i], NULL);
	free_all(&h->waiting);
	free_all(&h->done);
	net_watch_fini(&h->watch);
	closep(&h->event_fd);
	pthread_cond_destroy(&h->wake);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static int submit(struct hasher *h, bool make, const char *text, const void *password,
		  size_t password_bytes, hasher_fn *fn, void *user, struct hasher_job **ret_job)
{
	struct hasher_job *job;

	if (h->n_jobs >= HASHER_QUEUE_MAX)
		return -EBUSY;
	if (password_bytes > CRYPTO_PASSWORD_MAX_BYTES)
		return -EINVAL;
	if (text && strlen(text) >= sizeof(job->text))
		return -EINVAL;
	job = calloc(1, sizeof(*job) + password_bytes);
	if (!job)
		return -ENOMEM;
	job->make = make;
	job->has_text = text != NULL;
	if (text)
		memcpy(job->text, text, strlen(text) + 1);
	memcpy(job->password, password, password_bytes);
	job->password_bytes = password_bytes;
	job->fn = fn;
	job->user = user;
	h->n_jobs++;
	pthread_mutex_lock(&h->lock);
	TAILQ_INSERT_TAIL(&h->waiting, job, entry);
	pthread_cond_signal(&h->wake);
	pthread_mutex_unlock(&h->lock);
	*ret_job = job;
	return 0;
}

int hasher_verify(struct hasher *h, const char *text, const void *password, size_t password_bytes,
		  hasher_fn *fn, void *user, struct hasher_job **ret_job)
{
	return submit(h, false, text, password, password_bytes, fn, user, ret_job);
}

int hasher_hash(struct hasher *h, const void *password, size_t password_bytes, hasher_fn *fn,
		void *user, struct hasher_job **ret_job)
{
	return submit(h, true, NULL, password, password_bytes, fn, user, ret_job);
}

void hasher_cancel(struct hasher_job *job)
{
	if (job)
		job->fn = NULL;
}

unsigned hasher_waiting(const struct hasher *h)
{
	return h->n_jobs;
}
