/*
 * What is done now and then, and only where there is something to do: a daemon
 * whose peers are idle sleeps.
 */
#include "daemon/internal.h"
#include "daemon/files.h"

#include <time.h>

#define SWEEP_US      (10 * US_PER_S)
#define SWEEP_IDLE_US (300 * US_PER_S)
#define TRIM_BYTES    ((size_t)64 << 10) /* so much freed is worth the work */
#define TRIM_US       (2 * US_PER_S)
#define BUSY_CPU_US   (40 * US_PER_MS) /* used in that time: there is traffic */
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

static uint64_t cpu_used_us(void)
{
	struct timespec used;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) < 0)
		return 0;
	return (uint64_t)used.tv_sec * US_PER_S + (uint64_t)used.tv_nsec / 1000;
}

static void trim_soon(struct worker *w)
{
	if (w->trim.due_us != NEVER_US)
		return;
	w->trim_cpu_us = cpu_used_us();
	net_timer_arm(&w->trim, net_loop_now_us(w->loop) + TRIM_US);
}

/*
 * Heap goes back at any time. Code, and the room of what is received, are needed again at once
 * while there is traffic, and all threads have the same code: they go when the process rests.
 */
static void on_trim(void *user, uint64_t now_us)
{
	struct worker *w = user;
	const bool busy = cpu_used_us() - w->trim_cpu_us > BUSY_CPU_US;

	(void)now_us;
	if (!busy && w->ran_once)
		footprint_shrink();
	else if (w->freed_bytes >= TRIM_BYTES)
		footprint_trim();
	w->freed_bytes = 0;
	if (busy) {
		trim_soon(w);
		return;
	}
	w->ran_once = false;
	net_loop_rest(w->loop);
}

void upkeep_freed(struct worker *w, size_t n_bytes)
{
	w->freed_bytes += n_bytes;
	if (w->freed_bytes >= TRIM_BYTES)
		trim_soon(w);
}

void upkeep_ran_once(struct worker *w)
{
	w->ran_once = true;
	trim_soon(w);
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
	upkeep_ran_once(&d->workers[0]);
}

void upkeep_stop(struct daemon *d)
{
	net_timer_disarm(&d->sweep);
	net_timer_disarm(&d->save);
	while (save_one(d))
		;
}
