#include "link.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S           UINT64_C(1000000000)
#define RATE_MAX_BPS       (100 * NS_PER_S)
#define TIME_MAX_NS        (60 * NS_PER_S)
#define QUEUE_MAX_BYTES    (UINT64_C(1) << 32)
#define REORDER_DEFAULT_NS UINT64_C(5000000)

/* ---- options ---------------------------------------------------------------------------- */

const char link_options_help[] =
	"  rate=R              bits of IP packets a second: 100mbit, 1gbit, 64kbit (no limit)\n"
	"  queue=Q             drop-tail, as time at the rate or in bytes: 50ms, 64kb, 1mb (no "
	"limit)\n"
	"  delay=T             one way: 25ms, 800us (0)\n"
	"  jitter=T            the delay is uniform within +-T (0)\n"
	"  order=keep|free     whether jitter keeps the order (keep)\n"
	"  loss=P              random loss: 1%, 0.01 (0)\n"
	"  burst=P,N           a share P is lost, in bursts of N packets on average (Gilbert)\n"
	"  ge=BAD,GOOD[,H[,K]] Gilbert-Elliott: the chances to become bad and good at each "
	"packet,\n"
	"                      and to be lost while bad (100%) and good (0)\n"
	"  dup=P               packets that arrive twice (0)\n"
	"  reorder=P[,T]       packets that are held back by T (5ms), so that others overtake\n"
	"  seed=N              what chance does (1)\n";

void link_config_init(struct link_config *config)
{
	*config = (struct link_config){ .keep_order = true,
					.become_good = 1,
					.loss_bad = 1,
					.reorder_ns = REORDER_DEFAULT_NS,
					.seed = 1 };
}

struct unit {
	const char *name;
	double scale;
};

static const struct unit rate_units[] = {
	{ "kbit", 1e3 }, { "mbit", 1e6 }, { "gbit", 1e9 }, { 0 }
};
static const struct unit time_units[] = {
	{ "ns", 1 }, { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { 0 }
};
static const struct unit byte_units[] = { { "b", 1 }, { "kb", 1e3 }, { "mb", 1e6 }, { 0 } };

/* A number with one of the units; plain 0 needs none. */
static bool read_scaled(const char *text, const struct unit *units, double max, uint64_t *ret)
{
	char *end;
	const double value = strtod(text, &end);

	if (end == text || !isfinite(value) || value < 0)
		return false;
	if (value == 0 && *end == '\0') {
		*ret = 0;
		return true;
	}
	for (; units->name; units++)
		if (strcmp(end, units->name) == 0 && value * units->scale <= max) {
			*ret = (uint64_t)llround(value * units->scale);
			return true;
		}
	return false;
}

/* A share: "1%" or "0.01". `*ret_end` is where reading stopped. */
static bool read_share(const char *text, double *ret, const char **ret_end)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || !isfinite(value))
		return false;
	if (*end == '%') {
		value /= 100;
		end++;
	}
	if (value < 0 || value > 1 || (*end != '\0' && *end != ','))
		return false;
	*ret = value;
	*ret_end = end;
	return true;
}

static bool set_rate(struct link_config *c, const char *value)
{
	return read_scaled(value, rate_units, (double)RATE_MAX_BPS, &c->rate_bps);
}

static bool set_queue(struct link_config *c, const char *value)
{
	uint64_t ns = 0, bytes = 0;

	if (!read_scaled(value, time_units, (double)TIME_MAX_NS, &ns) &&
	    !read_scaled(value, byte_units, (double)QUEUE_MAX_BYTES, &bytes))
		return false;
	c->queue_ns = ns;
	c->queue_bytes = bytes;
	return true;
}

static bool set_delay(struct link_config *c, const char *value)
{
	return read_scaled(value, time_units, (double)TIME_MAX_NS, &c->delay_ns);
}

static bool set_jitter(struct link_config *c, const char *value)
{
	return read_scaled(value, time_units, (double)TIME_MAX_NS, &c->jitter_ns);
}

static bool set_order(struct link_config *c, const char *value)
{
	c->keep_order = strcmp(value, "keep") == 0;
	return c->keep_order || strcmp(value, "free") == 0;
}

static bool set_loss(struct link_config *c, const char *value)
{
	const char *end;

	return read_share(value, &c->loss, &end) && *end == '\0';
}

/* From the share that is lost and the mean length of a burst: every packet in the bad state is. */
static bool set_burst(struct link_config *c, const char *value)
{
	const char *rest;
	char *end;
	double share, length;

	if (!read_share(value, &share, &rest) || *rest != ',' || share >= 1)
		return false;
	length = strtod(rest + 1, &end);
	if (end == rest + 1 || *end != '\0' || !(length >= 1 && length <= 1e6))
		return false;
	c->become_good = 1 / length;
	c->become_bad = c->become_good * share / (1 - share);
	c->loss_bad = 1;
	c->loss_good = 0;
	return c->become_bad <= 1;
}

static bool set_ge(struct link_config *c, const char *value)
{
	double share[4] = { 0, 0, 1, 0 };
	unsigned n = 0;
	const char *at = value;

	do {
		if (n == 4 || !read_share(at, &share[n++], &at))
			return false;
	} while (*at++ == ',');
	c->become_bad = share[0];
	c->become_good = share[1];
	c->loss_bad = share[2];
	c->loss_good = share[3];
	return n >= 2;
}

static bool set_dup(struct link_config *c, const char *value)
{
	const char *end;

	return read_share(value, &c->duplicate, &end) && *end == '\0';
}

static bool set_reorder(struct link_config *c, const char *value)
{
	const char *rest;

	if (!read_share(value, &c->reorder, &rest))
		return false;
	return *rest == '\0' ||
	       read_scaled(rest + 1, time_units, (double)TIME_MAX_NS, &c->reorder_ns);
}

static bool set_seed(struct link_config *c, const char *value)
{
	char *end;

	errno = 0;
	c->seed = strtoull(value, &end, 10);
	return end != value && *end == '\0' && errno == 0 && *value != '-';
}

static const struct {
	const char *name;
	bool (*set)(struct link_config *c, const char *value);
} options[] = {
	{ "rate", set_rate },       { "queue", set_queue }, { "delay", set_delay },
	{ "jitter", set_jitter },   { "order", set_order }, { "loss", set_loss },
	{ "burst", set_burst },     { "ge", set_ge },       { "dup", set_dup },
	{ "reorder", set_reorder }, { "seed", set_seed },
};

int link_option(struct link_config pair[2], const char *option, char *error, size_t error_bytes)
{
	const bool only_ab = strncmp(option, "ab.", 3) == 0;
	const bool only_ba = strncmp(option, "ba.", 3) == 0;
	const char *const name = only_ab || only_ba ? option + 3 : option;
	const char *const equals = strchr(name, '=');

	for (size_t i = 0; equals && i < sizeof(options) / sizeof(options[0]); i++) {
		if (strlen(options[i].name) != (size_t)(equals - name) ||
		    strncmp(options[i].name, name, (size_t)(equals - name)) != 0)
			continue;
		if ((!only_ba && !options[i].set(&pair[0], equals + 1)) ||
		    (!only_ab && !options[i].set(&pair[1], equals + 1))) {
			snprintf(error, error_bytes, "\"%s\" is no value of %s", equals + 1,
				 options[i].name);
			return -1;
		}
		return 0;
	}
	snprintf(error, error_bytes, "\"%s\" is no option of a link", option);
	return -1;
}

int link_config_check(const struct link_config *c, char *error, size_t error_bytes)
{
	const char *why = NULL;

	if (c->rate_bps == 0 && (c->queue_ns || c->queue_bytes))
		why = "a queue needs a rate: without one nothing waits";
	else if (c->rate_bps > 0 && c->rate_bps < 8000)
		why = "a rate is at least 8kbit";
	else if (c->jitter_ns > c->delay_ns)
		why = "jitter cannot be more than the delay";
	if (why)
		snprintf(error, error_bytes, "%s", why);
	return why ? -1 : 0;
}

/* ---- chance ----------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Uniform in [0, 1) */
static double uniform(struct link_direction *d, enum link_random which)
{
	return (double)(next_random(&d->random[which]) >> 11) * 0x1p-53;
}

static bool happens(struct link_direction *d, enum link_random which, double share)
{
	return share > 0 && uniform(d, which) < share;
}

void link_init(struct link_direction *d, const struct link_config *config, unsigned stream)
{
	uint64_t seed = config->seed;

	*d = (struct link_direction){ .config = *config };
	for (unsigned i = 0; i <= stream; i++)
		for (int each = 0; each < LINK_RANDOMS; each++)
			d->random[each] = next_random(&seed);
}

/* ---- one packet ------------------------------------------------------------------------- */

/* When the last of `bytes` leaves the transmitter, or LINK_NEVER_NS if the queue is full. */
static uint64_t transmit(struct link_direction *d, size_t bytes, uint64_t now_ns)
{
	const struct link_config *const c = &d->config;
	struct link_counters *const n = &d->counters;

	if (c->rate_bps == 0)
		return now_ns;

	const uint64_t begin_ns = d->free_ns > now_ns ? d->free_ns : now_ns;
	const uint64_t rest = d->free_ns > now_ns ? d->free_rest : 0;
	const uint64_t work = (uint64_t)bytes * 8 * NS_PER_S + rest;
	const uint64_t end_ns = begin_ns + work / c->rate_bps;
	const uint64_t wait_ns = end_ns - now_ns;
	const uint64_t waiting_bytes =
		(uint64_t)((double)(begin_ns - now_ns) * (double)c->rate_bps / 8e9) + bytes;

	/* A packet that finds nobody always fits. */
	if (begin_ns > now_ns && ((c->queue_ns && wait_ns > c->queue_ns) ||
				  (c->queue_bytes && waiting_bytes > c->queue_bytes)))
		return LINK_NEVER_NS;
	d->free_ns = end_ns;
	d->free_rest = work % c->rate_bps;
	if (wait_ns > n->queue_max_ns)
		n->queue_max_ns = wait_ns;
	if (waiting_bytes > n->queue_max_bytes)
		n->queue_max_bytes = waiting_bytes;
	return end_ns;
}

/* The chain moves with each packet, before its fate is drawn. */
static bool lost_in_burst(struct link_direction *d)
{
	const struct link_config *const c = &d->config;

	if (c->become_bad <= 0 && c->loss_good <= 0)
		return false;
	if (uniform(d, LINK_BURST) < (d->bad ? c->become_good : c->become_bad))
		d->bad = !d->bad;
	return happens(d, LINK_BURST, d->bad ? c->loss_bad : c->loss_good);
}

static uint64_t travel(struct link_direction *d, uint64_t sent_ns)
{
	const struct link_config *const c = &d->config;
	uint64_t out_ns = sent_ns + c->delay_ns;

	if (c->jitter_ns)
		out_ns += (uint64_t)(uniform(d, LINK_JITTER) * 2 * (double)c->jitter_ns) -
			  c->jitter_ns;
	if (c->keep_order && out_ns < d->last_out_ns)
		out_ns = d->last_out_ns;
	d->last_out_ns = out_ns;
	if (happens(d, LINK_REORDER, c->reorder)) {
		d->counters.held_back++;
		out_ns += c->reorder_ns;
	}
	return out_ns;
}

unsigned link_offer(struct link_direction *d, size_t bytes, uint64_t now_ns,
		    uint64_t ret_out_ns[static LINK_COPIES])
{
	struct link_counters *const n = &d->counters;
	unsigned copies = 1;

	n->in_packets++;
	n->in_bytes += bytes;

	const uint64_t sent_ns = transmit(d, bytes, now_ns);

	if (sent_ns == LINK_NEVER_NS) {
		n->dropped_queue++;
		return 0;
	}
	if (happens(d, LINK_LOSS, d->config.loss)) {
		n->dropped_loss++;
		return 0;
	}
	if (lost_in_burst(d)) {
		n->dropped_burst++;
		return 0;
	}
	if (happens(d, LINK_DUPLICATE, d->config.duplicate)) {
		n->duplicated++;
		copies = LINK_COPIES;
	}
	for (unsigned i = 0; i < copies; i++)
		ret_out_ns[i] = travel(d, sent_ns);
	n->out_packets += copies;
	n->out_bytes += copies * bytes;
	return copies;
}

/* ---- packets on their way ---------------------------------------------------------------- */

int link_heap_init(struct link_heap *heap, size_t n_max)
{
	*heap = (struct link_heap){ .at = calloc(n_max, sizeof(*heap->at)), .n_max = n_max };
	return heap->at ? 0 : -ENOMEM;
}

void link_heap_fini(struct link_heap *heap)
{
	free(heap->at);
	*heap = (struct link_heap){ 0 };
}

static bool earlier(const struct link_transit *a, const struct link_transit *b)
{
	return a->out_ns != b->out_ns ? a->out_ns < b->out_ns : a->order < b->order;
}

bool link_heap_push(struct link_heap *heap, uint64_t out_ns, uint32_t packet)
{
	const struct link_transit added = { .out_ns = out_ns,
					    .order = heap->order,
					    .packet = packet };
	size_t i = heap->n;

	if (heap->n == heap->n_max)
		return false;
	heap->order++;
	heap->n++;
	for (; i > 0 && earlier(&added, &heap->at[(i - 1) / 2]); i = (i - 1) / 2)
		heap->at[i] = heap->at[(i - 1) / 2];
	heap->at[i] = added;
	return true;
}

uint64_t link_heap_next_ns(const struct link_heap *heap)
{
	return heap->n ? heap->at[0].out_ns : LINK_NEVER_NS;
}

uint32_t link_heap_pop(struct link_heap *heap)
{
	assert(heap->n > 0);

	const uint32_t packet = heap->at[0].packet;
	const struct link_transit last = heap->at[--heap->n];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= heap->n)
			break;
		if (child + 1 < heap->n && earlier(&heap->at[child + 1], &heap->at[child]))
			child++;
		if (!earlier(&heap->at[child], &last))
			break;
		heap->at[i] = heap->at[child];
		i = child;
	}
	heap->at[i] = last;
	return packet;
}
