/*
 * loop - libevent for readiness and signals, one timerfd for all timers.
 *
 * libevent's own timers run on a coarse clock that stops while the machine
 * sleeps. Ours are a pairing heap inside the timers themselves; the timerfd is
 * armed to the earliest one, and only when that moved forward: a deadline that
 * is pushed back again and again (the usual life of a retransmission timer)
 * costs one spurious wake-up instead of a system call each time. What is due by
 * the time at which the loop would wait needs no timerfd at all.
 */
#include "net/internal.h"

#include <event2/event.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define TIMER_NEAR_US 10 /* setting the timerfd and being interrupted takes longer */

struct signal_watch {
	struct signal_watch *next;
	struct event *event;
	void (*fn)(void *user, int signal_number);
	void *user;
	struct net_loop *loop;
};

TAILQ_HEAD(soon_list, net_soon);

struct net_loop {
	struct event_base *base;
	int timer_fd;
	struct event *timer_event;
	uint64_t armed_us; /* what the timerfd is set to; NEVER_US: off */
	struct net_timer *heap;
	struct soon_list soon;
	struct net_trash *trash;
	LIST_HEAD(, net_linger) lingers;
	struct signal_watch *signals;
	struct net_nat64 nat64;
	uint8_t *scratch;
	uint64_t turn;
	uint64_t now_us;
	bool now_stale;
	bool stop;
	bool in_turn; /* on_turn was told so */
	void (*on_turn)(void *user, bool begins);
	void *turn_user;
};

void net_loop_set_nat64(struct net_loop *loop, const struct net_nat64 *nat64)
{
	loop->nat64 = nat64 ? *nat64 : (struct net_nat64){ .prefix_bits = 0 };
}

const struct net_nat64 *net_loop_nat64(const struct net_loop *loop)
{
	return &loop->nat64;
}

uint64_t net_clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * US_PER_S + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t net_loop_now_us(struct net_loop *loop)
{
	if (loop->now_stale) {
		const uint64_t now_us = net_clock_us();

		loop->now_us = max_u64(now_us, loop->now_us);
		loop->now_stale = false;
	}
	return loop->now_us;
}

void net_loop_on_turn(struct net_loop *loop, void (*fn)(void *user, bool begins), void *user)
{
	loop->on_turn = fn;
	loop->turn_user = user;
}

static void turn_begins(struct net_loop *loop)
{
	if (!loop->on_turn || loop->in_turn)
		return;
	loop->in_turn = true;
	loop->on_turn(loop->turn_user, true);
}

static void turn_ends(struct net_loop *loop)
{
	if (!loop->in_turn)
		return;
	loop->in_turn = false;
	loop->on_turn(loop->turn_user, false);
}

/* ---- timers: a pairing heap ------------------------------------------------------ */

/* `previous` is the left sibling, or the parent for a first child; NULL for the root. */
static struct net_timer *heap_meld(struct net_timer *a, struct net_timer *b)
{
	if (!a)
		return b;
	if (!b)
		return a;
	if (b->due_us < a->due_us) {
		struct net_timer *swap = a;

		a = b;
		b = swap;
	}
	b->previous = a;
	b->next = a->child;
	if (b->next)
		b->next->previous = b;
	a->child = b;
	a->next = NULL;
	a->previous = NULL;
	return a;
}

/* Two passes: pair neighbours from the left, then meld the pairs from the right. */
static struct net_timer *heap_meld_siblings(struct net_timer *first)
{
	struct net_timer *pairs = NULL, *all = NULL;

	while (first) {
		struct net_timer *a = first, *b = first->next;

		first = b ? b->next : NULL;
		a->next = a->previous = NULL;
		if (b)
			b->next = b->previous = NULL;
		a = heap_meld(a, b);
		a->next = pairs;
		pairs = a;
	}
	while (pairs) {
		struct net_timer *next = pairs->next;

		pairs->next = NULL;
		all = heap_meld(all, pairs);
		pairs = next;
	}
	return all;
}

static void heap_remove(struct net_loop *loop, struct net_timer *t)
{
	struct net_timer *below = heap_meld_siblings(t->child);

	if (t == loop->heap) {
		loop->heap = below;
	} else {
		if (t->previous->child == t)
			t->previous->child = t->next;
		else
			t->previous->next = t->next;
		if (t->next)
			t->next->previous = t->previous;
		loop->heap = heap_meld(loop->heap, below);
	}
	t->child = t->next = t->previous = NULL;
}

void net_timer_init(struct net_timer *t, struct net_loop *loop,
		    void (*fn)(void *user, uint64_t now_us), void *user)
{
	*t = (struct net_timer){ .loop = loop, .fn = fn, .user = user, .due_us = NEVER_US };
}

void net_timer_arm(struct net_timer *t, uint64_t due_us)
{
	assert(t->loop);
	if (due_us == t->due_us)
		return;
	if (t->due_us != NEVER_US)
		heap_remove(t->loop, t);
	t->due_us = due_us;
	if (due_us != NEVER_US)
		t->loop->heap = heap_meld(t->loop->heap, t);
}

void net_timer_disarm(struct net_timer *t)
{
	if (t->loop)
		net_timer_arm(t, NEVER_US);
}

/*
 * Timers that callbacks arm for now or earlier run in this turn too, but the
 * number is bounded by `turns`, so that sockets get theirs.
 */
static void run_timers(struct net_loop *loop)
{
	const uint64_t now_us = net_loop_now_us(loop);

	for (int turns = 0; turns < 10000; turns++) {
		struct net_timer *t = loop->heap;

		if (!t || t->due_us > now_us)
			return;
		heap_remove(loop, t);
		t->due_us = NEVER_US;
		t->fn(t->user, now_us);
	}
}

/*
 * False: a timer is due by now, or nearly so, and the loop must not wait. Under load most are, for
 * they were set by the time at which this turn began, and in a virtual machine the interrupt that
 * comes at once costs 20 us.
 */
static bool arm_timer_fd(struct net_loop *loop)
{
	const uint64_t due_us = loop->heap ? loop->heap->due_us : NEVER_US;
	struct itimerspec spec = { 0 };

	if (due_us >= loop->armed_us)
		return true;
	if (due_us <= net_clock_us() + TIMER_NEAR_US)
		return false;
	spec.it_value.tv_sec = (time_t)(due_us / US_PER_S);
	spec.it_value.tv_nsec = (long)(due_us % US_PER_S) * 1000;
	if (timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
		loop->armed_us = due_us;
	return true;
}

static void on_timer_fd(evutil_socket_t fd, short what, void *user)
{
	struct net_loop *loop = user;
	uint64_t n_expired;

	(void)what;
	if (read(fd, &n_expired, sizeof(n_expired)) > 0)
		loop->armed_us = NEVER_US;
}

/* ---- soon and trash ----------------------------------------------------------------- */

void net_soon_init(struct net_soon *s, struct net_loop *loop, void (*fn)(void *user), void *user)
{
	*s = (struct net_soon){ .loop = loop, .fn = fn, .user = user };
}

void net_soon_queue(struct net_soon *s)
{
	if (s->queued)
		return;
	s->queued = true;
	TAILQ_INSERT_TAIL(&s->loop->soon, s, entry);
}

void net_soon_cancel(struct net_soon *s)
{
	if (!s->queued)
		return;
	s->queued = false;
	TAILQ_REMOVE(&s->loop->soon, s, entry);
}

/* What a callback queues runs in this wake-up too; who queues himself again lets sockets go first.
 */
static void run_soon(struct net_loop *loop)
{
	struct net_soon *s;

	loop->turn++;
	while ((s = TAILQ_FIRST(&loop->soon)) != NULL && s->turn != loop->turn) {
		s->turn = loop->turn;
		net_soon_cancel(s);
		s->fn(s->user);
	}
}

void net_loop_trash(struct net_loop *loop, struct net_trash *trash, void (*fn)(void *memory),
		    void *memory)
{
	*trash = (struct net_trash){ .next = loop->trash, .fn = fn, .memory = memory };
	loop->trash = trash;
}

static void empty_trash(struct net_loop *loop)
{
	while (loop->trash) {
		struct net_trash *trash = loop->trash;

		loop->trash = trash->next;
		trash->fn(trash->memory);
	}
}

void net_loop_linger(struct net_loop *loop, struct net_linger *linger, void (*fn)(void *object),
		     void *object)
{
	net_linger_end(linger);
	linger->fn = fn;
	linger->object = object;
	LIST_INSERT_HEAD(&loop->lingers, linger, entry);
}

void net_linger_end(struct net_linger *linger)
{
	if (linger->object)
		LIST_REMOVE(linger, entry);
	linger->object = NULL;
}

uint8_t *net_loop_scratch(struct net_loop *loop)
{
	return loop->scratch;
}

/* What is in there is only good during a callback. */
void net_loop_rest(struct net_loop *loop)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	const uintptr_t from = ((uintptr_t)loop->scratch + page - 1) / page * page;
	const uintptr_t to =
		((uintptr_t)loop->scratch + (size_t)NET_UDP_BATCH * NET_UDP_MESSAGE_BYTES) / page *
		page;

	if (to > from)
		(void)madvise((void *)from, to - from, MADV_DONTNEED);
}

/* ---- watches and signals --------------------------------------------------------------- */

void net_watch_init(struct net_watch *w, struct net_loop *loop, int fd,
		    void (*fn)(void *user, unsigned ready), void *user)
{
	*w = (struct net_watch){ .loop = loop, .fd = fd, .fn = fn, .user = user };
}

static void on_watch(evutil_socket_t fd, short what, void *user)
{
	struct net_watch *w = user;
	unsigned ready = 0;

	(void)fd;
	if (what & EV_READ)
		ready |= NET_READ;
	if (what & EV_WRITE)
		ready |= NET_WRITE;
	turn_begins(w->loop);
	ready &= w->want;
	if (ready)
		w->fn(w->user, ready);
}

int net_watch_want(struct net_watch *w, unsigned want)
{
	short what = EV_PERSIST;

	if (want == w->want)
		return 0;
	if (w->event) {
		event_free(w->event);
		w->event = NULL;
	}
	w->want = 0;
	if (!want)
		return 0;
	what |= (want & NET_READ) ? EV_READ : 0;
	what |= (want & NET_WRITE) ? EV_WRITE : 0;
	w->event = event_new(w->loop->base, w->fd, what, on_watch, w);
	if (!w->event)
		return -ENOMEM;
	if (event_add(w->event, NULL) < 0) {
		event_free(w->event);
		w->event = NULL;
		return errno ? -errno : -EBADF;
	}
	w->want = want;
	return 0;
}

void net_watch_fini(struct net_watch *w)
{
	if (w->loop)
		net_watch_want(w, 0);
}

static void on_signal(evutil_socket_t number, short what, void *user)
{
	struct signal_watch *watch = user;

	(void)what;
	turn_begins(watch->loop);
	watch->fn(watch->user, (int)number);
}

int net_loop_on_signal(struct net_loop *loop, int signal_number,
		       void (*fn)(void *user, int signal_number), void *user)
{
	struct signal_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return -ENOMEM;
	*watch = (struct signal_watch){
		.next = loop->signals, .fn = fn, .user = user, .loop = loop
	};
	watch->event = evsignal_new(loop->base, signal_number, on_signal, watch);
	if (!watch->event || event_add(watch->event, NULL) < 0) {
		if (watch->event)
			event_free(watch->event);
		free(watch);
		return -ENOMEM;
	}
	loop->signals = watch;
	return 0;
}

/* ---- the loop itself --------------------------------------------------------------------- */

static struct event_base *new_base(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (!config)
		return NULL;
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
	base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

int net_loop_new(struct net_loop **ret_loop)
{
	struct net_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	TAILQ_INIT(&loop->soon);
	loop->armed_us = NEVER_US;
	loop->now_stale = true;
	loop->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (loop->timer_fd < 0) {
		free(loop);
		return -errno;
	}
	loop->base = new_base();
	loop->scratch = malloc((size_t)NET_UDP_BATCH * NET_UDP_MESSAGE_BYTES);
	if (loop->base)
		loop->timer_event = event_new(loop->base, loop->timer_fd, EV_READ | EV_PERSIST,
					      on_timer_fd, loop);
	if (!loop->scratch || !loop->timer_event || event_add(loop->timer_event, NULL) < 0) {
		net_loop_free(loop);
		return -ENOMEM;
	}
	*ret_loop = loop;
	return 0;
}

void net_loop_free(struct net_loop *loop)
{
	struct net_linger *linger;

	if (!loop)
		return;
	while ((linger = LIST_FIRST(&loop->lingers)))
		linger->fn(linger->object);
	empty_trash(loop);
	while (loop->signals) {
		struct signal_watch *watch = loop->signals;

		loop->signals = watch->next;
		event_free(watch->event);
		free(watch);
	}
	if (loop->timer_event)
		event_free(loop->timer_event);
	if (loop->base)
		event_base_free(loop->base);
	close(loop->timer_fd);
	free(loop->scratch);
	free(loop);
}

int net_loop_turn(struct net_loop *loop, bool wait)
{
	int flags = EVLOOP_ONCE;

	if (!arm_timer_fd(loop) || !wait || !TAILQ_EMPTY(&loop->soon))
		flags |= EVLOOP_NONBLOCK;
	loop->now_stale = true;
	if (event_base_loop(loop->base, flags) < 0) {
		const int fault = errno ? -errno : -EIO;

		turn_ends(loop);
		return fault;
	}
	turn_begins(loop);
	run_timers(loop);
	run_soon(loop);
	empty_trash(loop);
	turn_ends(loop);
	return 0;
}

int net_loop_run(struct net_loop *loop)
{
	loop->stop = false;
	while (!loop->stop) {
		const int r = net_loop_turn(loop, true);

		if (r < 0)
			return r;
	}
	return 0;
}

void net_loop_stop(struct net_loop *loop)
{
	loop->stop = true;
}
