/*
 * Paths: validation, keepalive, silence, and which one to send on
 * (doc/ptcp.md, section 7).
 */
#include "ptcp/assoc.h"

#define CHALLENGE_RETRY_US     (250 * US_PER_MS)
#define DIRECT_KEEPALIVE_US    (25 * US_PER_S)
#define YOUNG_FLOW_US          (3 * US_PER_S) /* Linux: 2 s, then it is a stream */
#define YOUNG_KEEPALIVE_US     (15 * US_PER_S)
#define SUSPICION_US           (300 * US_PER_MS)
#define AMPLIFICATION          3
#define CHALLENGE_PACKET_BYTES 64

const char *ptcp_path_state_name(enum ptcp_path_state state)
{
	static const char *const names[] = { "new", "up", "down" };

	static_assert(ARRAY_SIZE(names) == PTCP_PATH_STATE_COUNT, "a name for each state");
	return names[state];
}

struct path *path_find(struct ptcp_assoc *a, uint32_t id)
{
	if (a->heard && a->heard->id == id)
		return a->heard;
	PATH_FOREACH (a, p)
		if (p->id == id)
			return p;
	return NULL;
}

uint64_t path_pto_us(const struct path *p)
{
	return rtt_pto_us(&p->rtt, ACK_DELAY_MAX_US);
}

bool path_uses_ecn(const struct ptcp_assoc *a, const struct path *p)
{
	return a->config.ecn && !p->ecn_failed && !p->cc.marks_useless;
}

void path_reset(struct ptcp_assoc *a, struct path *p)
{
	p->ecn_works = p->ecn_failed = false;
	p->rtt = (struct rtt){ 0 };
	cc_init(&p->cc, a->cc_ops, p->mtu_bytes, 0, a->now_us);
	pacer_set_rate(&p->pacer, p->cc.pacing_rate, p->mtu_bytes, a->now_us);
	p->packet_threshold = 3;
	p->reorder_multiplier = 1;
	p->loss_us = NEVER_US;
	p->n_ptos = p->n_probes = 0;
	p->app_limited_until = 0;
	p->parity = (struct parity_meter){ 0 };
}

static struct path *path_new(struct ptcp_assoc *a, uint32_t id, enum ptcp_path_kind kind,
			     uint16_t mtu_bytes)
{
	for (uint8_t i = 0; i < PTCP_PATHS_MAX; i++) {
		struct path *const p = &a->paths[i];

		if (p->used)
			continue;
		const uint64_t first_sequence = p->next_sequence + 1;
		*p = (struct path){
			.used = true,
			.id = id,
			.index = i,
			.kind = kind,
			.state = PTCP_PATH_NEW,
			.challenge_us = NEVER_US,
			.head_pn = SENT_NO_PN,
			.tail_pn = SENT_NO_PN,
			.first_sequence = first_sequence,
			.next_sequence = first_sequence,
			.last_sent_us = a->now_us,
			.progress_us = a->now_us,
			.delivered_us = a->now_us,
			.first_sent_us = a->now_us,
			.born_us = a->now_us,
		};
		pmtu_init(p, mtu_bytes);
		path_reset(a, p);
		if (a->state == PTCP_ESTABLISHED)
			p->challenge_us = a->now_us;
		return p;
	}
	return NULL;
}

/* The slot is going to be free. */
static void forget(struct ptcp_assoc *a, const struct path *p)
{
	if (a->heard == p)
		a->heard = NULL;
	if (a->ack_path == p)
		a->ack_path = NULL;
}

/* May go, for a path that packets come from now: it came up by itself, and does not work. */
static bool may_make_room(const struct ptcp_assoc *a, const struct path *p)
{
	return p->by_itself && p != a->active && p->state != PTCP_PATH_UP &&
	       p->head_pn == SENT_NO_PN;
}

/* Those first that never worked: anybody who copies our packets can make such. */
static bool is_less_use(const struct path *p, const struct path *than)
{
	if (!than || p->was_up != than->was_up)
		return !than || !p->was_up;
	return p->last_received_us < than->last_received_us;
}

static struct path *least_useful(struct ptcp_assoc *a)
{
	struct path *found = NULL;

	PATH_FOREACH (a, p)
		if (may_make_room(a, p) && is_less_use(p, found))
			found = p;
	return found;
}

/* A free slot, or that of a path which came up by itself and is no use. */
static struct path *path_new_or_instead(struct ptcp_assoc *a, uint32_t id, enum ptcp_path_kind kind,
					uint16_t mtu_bytes)
{
	struct path *p = path_new(a, id, kind, mtu_bytes), *old;

	if (p)
		return p;
	old = least_useful(a);
	if (!old)
		return NULL;
	forget(a, old);
	old->used = false;
	return path_new(a, id, kind, mtu_bytes);
}

int ptcp_path_add(struct ptcp_assoc *a, uint32_t path_id, enum ptcp_path_kind kind,
		  uint16_t mtu_bytes, uint64_t now_us)
{
	if (mtu_bytes < PTCP_MTU_MIN || mtu_bytes > PTCP_MTU_MAX || kind >= PTCP_PATH_KIND_COUNT ||
	    path_id == PTCP_PATH_NONE)
		return -EINVAL;
	assoc_now(a, now_us);
	struct path *p = path_find(a, path_id);

	if (p) {
		p->kind = kind;
		p->mtu_max_bytes = mtu_bytes;
		p->named = true;
		if (p->state == PTCP_PATH_UP)
			pmtu_start(p, a->now_us);
		path_choose(a);
		return 0;
	}
	p = path_new_or_instead(a, path_id, kind, mtu_bytes);
	if (!p)
		return -ENOBUFS;
	handshake_path_added(a, p);
	return 0;
}

struct path *path_provisional(struct ptcp_assoc *a, uint32_t id)
{
	struct path *p = path_new_or_instead(a, id, PTCP_PATH_DIRECT, PTCP_MTU_MIN);

	if (!p)
		return NULL;
	p->by_itself = true;
	p->first_received_us = a->now_us;
	assoc_path_event(a, PTCP_EVENT_PATH_NEW, id, PTCP_PATH_NONE,
			 "the peer's packets come there");
	return p;
}

int ptcp_path_remove(struct ptcp_assoc *a, uint32_t path_id, uint64_t now_us)
{
	struct path *const p = path_find(a, path_id);

	assoc_now(a, now_us);
	if (!p)
		return -ENOENT;
	recovery_flush(a, p);
	p->used = false;
	forget(a, p);
	if (a->active == p)
		path_choose(a);
	return 0;
}

int ptcp_path_set_keepalive(struct ptcp_assoc *a, uint32_t path_id, uint64_t interval_us)
{
	struct path *const p = path_find(a, path_id);

	if (!p)
		return -ENOENT;
	p->keepalive_us = interval_us;
	return 0;
}

int ptcp_path_check(struct ptcp_assoc *a, uint32_t path_id, uint64_t now_us)
{
	struct path *const p = path_find(a, path_id);

	assoc_now(a, now_us);
	if (!p)
		return -ENOENT;
	if (a->state == PTCP_ESTABLISHED)
		path_challenge_now(a, p);
	pmtu_again(p, a->now_us);
	return 0;
}

void ptcp_set_relay_allowed(struct ptcp_assoc *a, bool allowed, uint64_t now_us)
{
	assoc_now(a, now_us);
	a->relay_allowed = allowed;
	path_choose(a);
}

/* Others may have died with the one in use, unnoticed because nothing was sent there. */
static void challenge_silent(struct ptcp_assoc *a)
{
	PATH_FOREACH (a, p)
		if (p->state == PTCP_PATH_UP && p->challenge_us == NEVER_US &&
		    a->now_us > p->last_received_us + SUSPICION_US + 3 * p->rtt.srtt_us)
			path_challenge_now(a, p);
}

/* The one place that changes a path's state. */
void path_set_state(struct ptcp_assoc *a, struct path *p, enum ptcp_path_state state,
		    const char *because)
{
	const enum ptcp_path_state from = p->state;

	if (from == state)
		return;
	p->state = state;
	assoc_trace(a, &(struct ptcp_trace){
			       .what = PTCP_TRACE_PATH_STATE,
			       .from = ptcp_path_state_name(from),
			       .to = ptcp_path_state_name(state),
			       .because = because,
			       .path_id = p->id,
		       });
	if (state == PTCP_PATH_UP) {
		p->was_up = true;
		p->progress_us = a->now_us;
		p->n_ptos = 0;
		pmtu_start(p, a->now_us);
		assoc_path_event(a, PTCP_EVENT_PATH_UP, p->id, PTCP_PATH_NONE, because);
	} else {
		recovery_flush(a, p);
		path_reset(a, p);
		pmtu_black_hole(p, a->now_us);
		p->n_tries = 0;
		p->challenge_us = a->now_us;
		assoc_path_event(a, PTCP_EVENT_PATH_DOWN, p->id, PTCP_PATH_NONE, because);
		if (p == a->active)
			challenge_silent(a);
	}
	path_choose(a);
}

void path_received(struct ptcp_assoc *a, struct path *p, size_t n_bytes)
{
	p->bytes_received += n_bytes;
	p->last_received_us = a->now_us;
	if (p->first_received_us == 0)
		p->first_received_us = a->now_us;
	a->heard = p;
	/* Silent for long, and here it is again: no reason to wait for the next try. */
	if (p->state == PTCP_PATH_DOWN)
		p->challenge_us = min_u64(p->challenge_us,
					  p->challenge_sent_us +
						  max_u64(CHALLENGE_RETRY_US, 3 * p->rtt.srtt_us));
	if (p->state == PTCP_PATH_NEW && p->challenge_us == NEVER_US &&
	    a->state == PTCP_ESTABLISHED)
		p->challenge_us = a->now_us;
}

void path_heard_data(struct ptcp_assoc *a, struct path *p)
{
	struct path *const active = a->active;

	a->ack_path = p;
	if (!active || p == active || p->state != PTCP_PATH_UP || active->challenge_us != NEVER_US)
		return;
	/* The peer sends elsewhere, and ours has been silent: does it still work? */
	if (a->now_us > active->last_received_us + SUSPICION_US + 3 * active->rtt.srtt_us)
		challenge_silent(a);
}

/* ---- validation --------------------------------------------------------------------------- */

void path_challenge_now(struct ptcp_assoc *a, struct path *p)
{
	p->n_tries = 0;
	p->challenge_us = a->now_us;
}

int path_challenge_frame(struct ptcp_assoc *a, struct path *p, struct reader *r)
{
	uint8_t data[8];

	(void)a;
	if (!reader_copy(r, data, sizeof(data)))
		return -EBADMSG;
	if (p->n_responses == RESPONSES_MAX) {
		memmove(p->responses[0], p->responses[1], sizeof(p->responses) - 8);
		p->n_responses--;
	}
	memcpy(p->responses[p->n_responses++], data, sizeof(data));
	return 0;
}

static void answered(struct ptcp_assoc *a, struct path *p, uint64_t rtt_us)
{
	p->n_tries = 0;
	p->challenge_us = NEVER_US;
	memset(p->challenges, 0, sizeof(p->challenges));
	/* Data gives better samples where it flows. */
	if (p->rtt.srtt_us == 0 || p->head_pn == SENT_NO_PN)
		rtt_sample(&p->rtt, rtt_us, 0);
	if (p->state != PTCP_PATH_UP) {
		cc_init(&p->cc, a->cc_ops, p->mtu_bytes, p->rtt.srtt_us, a->now_us);
		pacer_set_rate(&p->pacer, p->cc.pacing_rate, p->mtu_bytes, a->now_us);
		path_set_state(a, p, PTCP_PATH_UP, "challenge answered");
	} else {
		path_choose(a);
	}
}

int path_response_frame(struct ptcp_assoc *a, struct path *heard_on, struct reader *r)
{
	uint8_t data[8];

	(void)heard_on;
	if (!reader_copy(r, data, sizeof(data)))
		return -EBADMSG;
	PATH_FOREACH (a, p)
		for (unsigned i = 0; i < CHALLENGES_MAX; i++)
			if (p->challenges[i].sent_us != 0 &&
			    secret_equal(p->challenges[i].data, data, sizeof(data))) {
				answered(a, p, a->now_us - p->challenges[i].sent_us);
				return 0;
			}
	return 0; /* late, or of a path that is gone */
}

static uint64_t keepalive_due_us(const struct ptcp_assoc *a, const struct path *p)
{
	uint64_t interval_us = p->keepalive_us;

	if (interval_us == 0)
		interval_us = p->kind == PTCP_PATH_DIRECT ? a->config.keepalive_direct_us
							  : a->config.keepalive_relay_us;
	/* NATs forget flows sooner that have just begun, or were not answered for long. */
	if (p->kind == PTCP_PATH_DIRECT && p->last_sent_us - p->born_us < YOUNG_FLOW_US)
		interval_us = min_u64(interval_us, YOUNG_KEEPALIVE_US);
	return p->state == PTCP_PATH_UP ? add_sat_u64(p->last_sent_us, interval_us) : NEVER_US;
}

bool path_may_send(const struct path *p)
{
	return !p->by_itself || p->named || p->was_up ||
	       p->bytes_sent + CHALLENGE_PACKET_BYTES <= AMPLIFICATION * p->bytes_received;
}

bool path_control_due(const struct ptcp_assoc *a, const struct path *p)
{
	if (!path_may_send(p))
		return false;
	return p->n_responses > 0 || a->now_us >= p->challenge_us ||
	       a->now_us >= keepalive_due_us(a, p);
}

/*
 * How long the next challenge waits for its answer. Most outages are short, so a path that worked
 * before is tried at a steady pace for a while; others are given up soon.
 */
static uint64_t challenge_wait_us(const struct path *p)
{
	const uint64_t base_us = max_u64(3 * p->rtt.srtt_us, CHALLENGE_RETRY_US);
	const unsigned shift = p->n_tries < 8 ? p->n_tries : 8;

	if (p->state != PTCP_PATH_DOWN && p->n_tries < CHALLENGE_TRIES)
		return base_us;
	if (p->was_up && p->n_tries < OUTAGE_TRIES_FAST)
		return max_u64(base_us, US_PER_S / 2);
	if (p->was_up && p->n_tries < OUTAGE_TRIES)
		return max_u64(base_us, US_PER_S);
	return min_u64(base_us << shift, CHALLENGE_RETRY_MAX_US);
}

static void write_challenge(struct ptcp_assoc *a, struct path *p, struct build *b)
{
	struct path_challenge *const c = &p->challenges[p->n_challenges++ % CHALLENGES_MAX];
	const uint64_t random = assoc_random(a);

	p->challenge_us = a->now_us + challenge_wait_us(p);
	p->n_tries++;
	p->challenge_sent_us = a->now_us;
	memcpy(c->data, &random, sizeof(c->data));
	c->sent_us = max_u64(a->now_us, 1);
	writer_u8(&b->w, FRAME_PATH_CHALLENGE);
	writer_bytes(&b->w, c->data, sizeof(c->data));
}

void path_write_control(struct ptcp_assoc *a, struct path *p, struct build *b)
{
	while (p->n_responses > 0 && writer_left(&b->w) >= 9) {
		writer_u8(&b->w, FRAME_PATH_RESPONSE);
		writer_bytes(&b->w, p->responses[--p->n_responses], 8);
	}
	if ((a->now_us >= p->challenge_us || a->now_us >= keepalive_due_us(a, p)) &&
	    writer_left(&b->w) >= 9)
		write_challenge(a, p, b);
}

/* ---- choice ---------------------------------------------------------------------------------- */

static bool usable(const struct ptcp_assoc *a, const struct path *p)
{
	return p->state == PTCP_PATH_UP && (p->kind <= PTCP_PATH_DIRECT_STREAM || a->relay_allowed);
}

/* A challenge had its time, and nothing else came either: not dead yet, but nothing to rely on. */
static bool in_doubt(const struct ptcp_assoc *a, const struct path *p)
{
	return (p->n_tries > 1 || (p->n_tries == 1 && a->now_us >= p->challenge_us)) &&
	       a->now_us > p->last_received_us + SUSPICION_US;
}

/* The peer left `old` for `p`: nothing came on the old one since it began on the new one. */
static bool peer_moved(const struct path *old, const struct path *p)
{
	return p->first_received_us != 0 && old->last_received_us < p->first_received_us;
}

static bool better(const struct ptcp_assoc *a, const struct path *p, const struct path *old)
{
	if (!old || !usable(a, old))
		return true;
	if (in_doubt(a, p) != in_doubt(a, old))
		return in_doubt(a, old);
	if (p->kind != old->kind)
		return p->kind < old->kind;
	if (peer_moved(old, p))
		return true;
	/* Clearly faster, and not back and forth. */
	return p->rtt.min_us > 0 && old->rtt.min_us > 0 &&
	       a->now_us >= a->switched_us + PATH_SWITCH_MIN_US &&
	       p->rtt.min_us + US_PER_MS < old->rtt.min_us - old->rtt.min_us / 5;
}

void path_choose(struct ptcp_assoc *a)
{
	struct path *best = a->active && a->active->used ? a->active : NULL;
	const uint32_t from = a->stats.active_path_id;

	if (a->state != PTCP_ESTABLISHED)
		return;
	PATH_FOREACH (a, p)
		if (p != best && usable(a, p) && better(a, p, best))
			best = p;
	if (best && !usable(a, best))
		best = NULL;
	a->active = best;
	if (best) {
		a->all_down_us = NEVER_US;
		a->all_down_told = false;
	} else if (a->all_down_us == NEVER_US && !a->all_down_told) {
		a->all_down_us = add_sat_u64(a->now_us, a->config.outage_us);
	}
	if (!best || best->id == from)
		return;
	a->stats.active_path_id = best->id;
	a->switched_us = a->now_us;
	a->stats.path_switches += from != PTCP_PATH_NONE;
	best->progress_us = a->now_us;
	if (a->conns)
		ptcp_conns_set_rtt(a->conns, rtt_smoothed_us(&best->rtt), path_pto_us(best));
	assoc_path_event(a, PTCP_EVENT_PATH_SWITCHED, best->id, from, "better path");
}

void path_tick(struct ptcp_assoc *a, struct path *p)
{
	if (a->now_us < p->challenge_us)
		return;
	if (p == a->active && in_doubt(a, p))
		path_choose(a);
	if (p->n_tries < CHALLENGE_TRIES)
		return;
	/* The last of the tries had its time. A path that is down goes on trying. */
	if (p->state == PTCP_PATH_NEW || p->state == PTCP_PATH_UP)
		path_set_state(a, p, PTCP_PATH_DOWN, "challenges unanswered");
}

uint64_t path_deadline_us(const struct ptcp_assoc *a, const struct path *p)
{
	if (!path_may_send(p))
		return NEVER_US;
	return min_u64(p->challenge_us, keepalive_due_us(a, p));
}
