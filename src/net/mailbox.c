/*
 * mailbox - letters from other threads to a loop: a list under a mutex, and an
 * eventfd that is written when the list was empty. Bounded, for a loop that is
 * busy must not be buried: who finds it full keeps or drops what he has.
 */
#include "net/internal.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct letter {
	STAILQ_ENTRY(letter) entry;
	size_t n_bytes;
	_Alignas(max_align_t) uint8_t data[];
};

STAILQ_HEAD(letter_list, letter);

struct net_mailbox {
	struct net_mailbox_config config;
	struct net_watch watch;
	int fd;
	pthread_mutex_t mutex; /* what follows */
	struct letter_list letters;
	size_t n_letters, n_bytes;
	bool rung; /* the eventfd is readable, or its reader is on the way here */
};

static void ring(struct net_mailbox *m)
{
	const uint64_t one = 1;

	if (m->rung)
		return;
	/* It fails only when the counter would overflow, and then it is readable. */
	m->rung = true;
	if (write(m->fd, &one, sizeof(one)) < 0)
		m->rung = true;
}

static struct letter_list take_all(struct net_mailbox *m)
{
	struct letter_list list = STAILQ_HEAD_INITIALIZER(list);
	uint64_t count;

	pthread_mutex_lock(&m->mutex);
	STAILQ_CONCAT(&list, &m->letters);
	m->n_letters = m->n_bytes = 0;
	if (read(m->fd, &count, sizeof(count)) > 0)
		m->rung = false;
	pthread_mutex_unlock(&m->mutex);
	return list;
}

static void on_ring(void *user, unsigned ready)
{
	struct net_mailbox *m = user;
	struct letter_list list = take_all(m);
	struct letter *letter;

	(void)ready;
	while ((letter = STAILQ_FIRST(&list))) {
		STAILQ_REMOVE_HEAD(&list, entry);
		m->config.on_letter(m->config.user, letter->data);
		free(letter);
	}
	if (m->config.on_rung)
		m->config.on_rung(m->config.user);
}

int net_mailbox_new(struct net_loop *loop, const struct net_mailbox_config *config,
		    struct net_mailbox **ret_mailbox)
{
	struct net_mailbox *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->config = *config;
	STAILQ_INIT(&m->letters);
	m->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (m->fd < 0 || pthread_mutex_init(&m->mutex, NULL)) {
		r = m->fd < 0 ? -errno : -ENOMEM;
		closep(&m->fd);
		free(m);
		return r;
	}
	net_watch_init(&m->watch, loop, m->fd, on_ring, m);
	r = net_watch_want(&m->watch, NET_READ);
	if (r) {
		net_mailbox_free(m);
		return r;
	}
	*ret_mailbox = m;
	return 0;
}

void net_mailbox_free(struct net_mailbox *m)
{
	struct letter *letter;

	if (!m)
		return;
	net_watch_fini(&m->watch);
	while ((letter = STAILQ_FIRST(&m->letters))) {
		STAILQ_REMOVE_HEAD(&m->letters, entry);
		free(letter);
	}
	pthread_mutex_destroy(&m->mutex);
	closep(&m->fd);
	free(m);
}

int net_mailbox_post(struct net_mailbox *m, const void *head, size_t head_bytes, const void *body,
		     size_t body_bytes)
{
	const size_t n_bytes = head_bytes + body_bytes;
	struct letter *letter = malloc(sizeof(*letter) + n_bytes);
	bool full;

	if (!letter)
		return -ENOMEM;
	letter->n_bytes = n_bytes;
	memcpy(letter->data, head, head_bytes);
	if (body_bytes)
		memcpy(letter->data + head_bytes, body, body_bytes);
	pthread_mutex_lock(&m->mutex);
	full = m->n_letters >= m->config.letters_max || n_bytes > m->config.bytes_max - m->n_bytes;
	if (!full) {
		STAILQ_INSERT_TAIL(&m->letters, letter, entry);
		m->n_letters++;
		m->n_bytes += n_bytes;
		ring(m);
	}
	pthread_mutex_unlock(&m->mutex);
	if (full)
		free(letter);
	return full ? -ENOBUFS : 0;
}

void net_mailbox_ring(struct net_mailbox *m)
{
	pthread_mutex_lock(&m->mutex);
	ring(m);
	pthread_mutex_unlock(&m->mutex);
}
