/*
 * Workers: which thread moves the packets of which link.
 */
#include "daemon/internal.h"

/* For the messages of all peers that are queued, in flight or put together; see ptcp_memory. */
#define MEMORY_BYTES ((size_t)128 << 20)

static int worker_init(struct daemon *d, unsigned number)
{
	struct worker *w = &d->workers[number];
	int r;

	w->daemon = d;
	w->number = number;
	w->memory.limit_bytes = MEMORY_BYTES / d->n_workers;
	TAILQ_INIT(&w->waiting_udp);
	r = net_loop_new(&w->loop);
	if (r)
		return r;
	w->scratch = session_scratch_new();
	return w->scratch ? 0 : -ENOMEM;
}

int workers_init(struct daemon *d)
{
	int r = 0;

	d->n_workers = 1;
	for (unsigned i = 0; i < d->n_workers && !r; i++)
		r = worker_init(d, i);
	d->loop = d->workers[0].loop;
	return r;
}

void workers_fini(struct daemon *d)
{
	for (unsigned i = 0; i < d->n_workers; i++) {
		net_loop_free(d->workers[i].loop);
		session_scratch_free(d->workers[i].scratch);
	}
}

struct worker *workers_choose(struct daemon *d)
{
	struct worker *best = &d->workers[0];

	/* The first has the control plane as well, so it is the last to get one more. */
	for (unsigned i = 1; i < d->n_workers; i++)
		if (d->workers[i].n_links <= best->n_links)
			best = &d->workers[i];
	return best;
}

void workers_set_nat64(struct daemon *d, const struct net_nat64 *nat64)
{
	for (unsigned i = 0; i < d->n_workers; i++)
		net_loop_set_nat64(d->workers[i].loop, nat64);
}

uint64_t link_now_us(const struct link *link)
{
	return net_loop_now_us(link->worker->loop);
}
