/*
 * What is done now and then, and only where there is something to do: a daemon
 * whose peers are idle sleeps.
 */
#include "daemon/internal.h"
#include "daemon/files.h"

#define SWEEP_US      (10 * US_PER_S)
#define SWEEP_IDLE_US (300 * US_PER_S)
#define TRIM_BYTES    ((size_t)64 << 10) /* so much freed is worth the work */
#define TRIM_US       (2 * US_PER_S)
#define SAVE_US       (50 * US_PER_MS)

/*
 * Certificates and permissions end by the clock, connections by not being needed: while something
 * like that may happen soon it is looked for every ten seconds, else every few minutes.
 */
static void on_sweep(void *user, uint64_t now_us)
{
	struct daemon *d = user;
	const int64_t until_s = links_sweep(d), now_s = wall_clock_s();
	uint64_t wait_us = hub_sweep(d) ? SWEEP_US : SWEEP_IDLE_US;

	if (until_s < now_s)
		wait_us = SWEEP_US;
	else if (until_s - now_s < (int64_t)(wait_us / US_PER_S))
		wait_us = (uint64_t)(until_s - now_s + 1) * US_PER_S;
	net_timer_arm(&d->sweep, now_us + wait_us);
}

void upkeep_soon(struct daemon *d)
{
	const uint64_t due_us = net_loop_now_us(d->loop) + SWEEP_US;

	if (d->sweep.due_us > due_us)
		net_timer_arm(&d->sweep, due_us);
}

static void on_trim(void *user, uint64_t now_us)
{
	struct worker *w = user;

	(void)now_us;
	w->freed_bytes = 0;
	footprint_shrink();
	net_loop_rest(w->loop);
}

void upkeep_freed(struct worker *w, size_t n_bytes)
{
	w->freed_bytes += n_bytes;
	if (w->freed_bytes >= TRIM_BYTES && w->trim.due_us == NEVER_US)
		net_timer_arm(&w->trim, net_loop_now_us(w->loop) + TRIM_US);
}

void upkeep_worker(struct worker *w)
{
	net_timer_init(&w->trim, w->loop, on_trim, w);
}

int store_json(struct daemon *d, const char *path, const json_t *object)
{
	_cleanup_(freep) char *text = json_dumps(object, JSON_INDENT(1) | JSON_SORT_KEYS);

	if (!text)
		return -ENOMEM;
	return d->disk ? disk_write(d->disk, path, text, strlen(text))
		       : files_write(path, text, strlen(text));
}

static struct peer *next_unsaved(struct daemon *d)
{
	struct peer *peer;

	TAILQ_FOREACH (peer, &d->peers, entry)
		if (peer->unsaved)
			break;
	return peer;
}

static struct peer *save_one(struct daemon *d)
{
	struct peer *peer = next_unsaved(d);

	if (!peer)
		return NULL;
	peer->unsaved = false;
	peers_save(d, peer);
	return peer;
}

static void on_save(void *user, uint64_t now_us)
{
	struct daemon *d = user;

	/* Not faster than the disk. */
	if (disk_settled(d->disk) < disk_asked(d->disk) || save_one(d))
		net_timer_arm(&d->save, now_us + SAVE_US);
}

void upkeep_save(struct daemon *d, struct peer *peer)
{
	peer->unsaved = true;
	if (d->save.due_us == NEVER_US)
		net_timer_arm(&d->save, net_loop_now_us(d->loop) + SAVE_US);
}

void upkeep_start(struct daemon *d)
{
	net_timer_init(&d->sweep, d->loop, on_sweep, d);
	net_timer_init(&d->save, d->loop, on_save, d);
}

void upkeep_stop(struct daemon *d)
{
	net_timer_disarm(&d->sweep);
	net_timer_disarm(&d->save);
	while (save_one(d))
		;
}
