/*
 * Loss recovery (doc/ptcp.md, section 6; RFC 9002, RFC 8985): acknowledgements,
 * losses by packet threshold and by time, probe timeouts, delivery rate.
 *
 * All paths share one packet number space, so thresholds count each path's own
 * sequence: a packet is judged only by what left later on the same path.
 */
#include "ptcp/assoc.h"

#define PACKET_THRESHOLD_MAX   512
#define REORDER_MULTIPLIER_MAX 8
#define REORDER_DECAY_US       (16 * US_PER_S)
#define SPURIOUS_MIN_US        (100 * US_PER_MS)
#define PROBES                 2
#define COLLAPSE_PTOS          3
#define PEER_DELAY_MAX_US      25000
#define GRACE_US               (500 * US_PER_MS) /* to send again what a lost path held */

/* ---- in flight ------------------------------------------------------------------------------- */

static void link_packet(struct ptcp_assoc *a, struct path *p, struct sent_packet *packet,
			uint64_t pn)
{
	packet->previous = p->tail_pn;
	packet->next = SENT_NO_PN;
	if (p->tail_pn != SENT_NO_PN)
		sent_at(&a->sent, p->tail_pn)->next = pn;
	else
		p->head_pn = pn;
	p->tail_pn = pn;
	p->in_flight_bytes += packet->size_bytes;
}

static void unlink_packet(struct ptcp_assoc *a, struct path *p, const struct sent_packet *packet)
{
	if (packet->previous != SENT_NO_PN)
		sent_at(&a->sent, packet->previous)->next = packet->next;
	else
		p->head_pn = packet->next;
	if (packet->next != SENT_NO_PN)
		sent_at(&a->sent, packet->next)->previous = packet->previous;
	else
		p->tail_pn = packet->previous;
	p->in_flight_bytes -= packet->size_bytes;
}

void recovery_sent(struct ptcp_assoc *a, const struct build *b, size_t size_bytes)
{
	struct path *const p = b->path;
	const uint64_t pn = a->sent.next_pn;

	if (!b->eliciting) {
		sent_skip(&a->sent);
		return;
	}
	if (p->in_flight_bytes == 0) {
		p->cc.ops->on_restart(&p->cc, a->now_us - max_u64(p->eliciting_us, p->delivered_us),
				      a->now_us);
		pacer_set_rate(&p->pacer, p->cc.pacing_rate, p->mtu_bytes, a->now_us);
		p->first_sent_us = p->delivered_us = a->now_us;
		p->progress_us = a->now_us;
	}
	struct sent_packet *const packet = sent_enter(&a->sent, b->records, b->n_records);
	packet->sent_us = a->now_us;
	packet->delivered_bytes = p->delivered_bytes;
	packet->delivered_us = p->delivered_us;
	packet->first_sent_us = p->first_sent_us;
	packet->path_sequence = p->next_sequence++;
	packet->size_bytes = (uint16_t)size_bytes;
	packet->path = p->index;
	packet->flags = b->flags;
	if (b->ect)
		packet->flags |= SENT_ECT;
	if (b->flags & SENT_SOURCE)
		packet->parity_distance = SENT_PARITY_OPEN;
	if (p->app_limited_until != 0)
		packet->flags |= SENT_APP_LIMITED;
	p->eliciting_us = a->now_us;
	link_packet(a, p, packet, pn);
}

static void tell_records(struct ptcp_assoc *a, struct sent_packet *packet)
{
	struct sent_cursor c = sent_records(&a->sent, packet);

	for (struct sent_record *r; (r = sent_next_record(&c)) != NULL;)
		switch ((enum sent_kind)r->kind) {
		case SENT_FRAGMENT:
			sender_fragment_acked(a, r);
			break;
		case SENT_ABANDON:
			sender_abandon_acked(a, r);
			break;
		case SENT_CONN:
			ptcp_conns_acked(a->conns, &r->conn, a->now_us);
			break;
		case SENT_ACK:
			ack_forget(&a->ack, r->ack_largest);
			break;
		case SENT_HANDSHAKE_DONE:
			break;
		}
}

/*
 * What the packet carried must be sent again: it is lost, or to be rescued without a verdict. What
 * was rescued is not sent again when the packet is lost indeed.
 */
static void requeue_records(struct ptcp_assoc *a, struct sent_packet *packet, bool rescue)
{
	struct sent_cursor c = sent_records(&a->sent, packet);
	const bool rescued = !rescue && (packet->flags & SENT_RESCUED) != 0;

	for (struct sent_record *r; (r = sent_next_record(&c)) != NULL;) {
		if (r->kind == SENT_FRAGMENT) {
			sender_fragment_lost(a, r, rescue);
			continue;
		}
		if (rescued)
			continue;
		switch ((enum sent_kind)r->kind) {
		case SENT_FRAGMENT:
		case SENT_ABANDON:
			sender_abandon_lost(a, r);
			break;
		case SENT_CONN:
			ptcp_conns_lost(a->conns, &r->conn, a->now_us);
			break;
		case SENT_ACK:
			break;
		case SENT_HANDSHAKE_DONE:
			a->handshake.done_owed = true;
			break;
		}
	}
}

/* ---- loss ---------------------------------------------------------------------------------------
 */

static void lose(struct ptcp_assoc *a, struct path *p, uint64_t pn, bool blame)
{
	struct sent_packet *const packet = sent_at(&a->sent, pn);

	unlink_packet(a, p, packet);
	packet->state = SENT_LOST;
	packet->lost_us = a->now_us;
	requeue_records(a, packet, false);
	if (packet->flags & SENT_MTU_PROBE) {
		pmtu_probe_lost(p, packet->size_bytes, a->now_us);
		return;
	}
	a->stats.packets_lost++;
	p->n_lost++;
	if (!blame)
		return;
	parity_note_lost(p);
	p->cc.ops->on_lost(&p->cc, packet->size_bytes, p->in_flight_bytes, a->now_us);
	pmtu_packet_lost(p, packet->size_bytes, packet->path_sequence, a->now_us);
}

/* For congestion control it was lost, for what it carried it has arrived. */
void recovery_repaired(struct ptcp_assoc *a, uint64_t pn)
{
	if (pn < a->sent.tail)
		return;
	struct sent_packet *const packet = sent_at(&a->sent, pn);
	struct path *const p = &a->paths[packet->path];

	if (packet->state == SENT_DONE || !(packet->flags & SENT_SOURCE))
		return;
	a->stats.packets_repaired++;
	packet->flags &= (uint8_t)~SENT_SOURCE; /* it is told several times */
	tell_records(a, packet);
	sent_drop_records(&a->sent, packet);
	if (packet->state == SENT_IN_FLIGHT)
		lose(a, p, pn, p->used && packet->path_sequence >= p->first_sequence);
}

void recovery_flush(struct ptcp_assoc *a, struct path *p)
{
	if (p->head_pn != SENT_NO_PN)
		a->sender.grace_us = a->now_us + GRACE_US;
	while (p->head_pn != SENT_NO_PN)
		lose(a, p, p->head_pn, false);
	p->loss_us = NEVER_US;
}

void recovery_relieve(struct ptcp_assoc *a)
{
	struct sent_ring *const s = &a->sent;

	/* At 5 Gbit/s the ring spans 60 ms: the last packets of a slow path that we left must not
	 * stop the fast one that long. */
	while (!recovery_data_room(a)) {
		const struct sent_packet *const packet = sent_at(s, s->tail);

		if (packet->state == SENT_IN_FLIGHT && &a->paths[packet->path] != a->active)
			lose(a, &a->paths[packet->path], s->tail, false);
		else if (packet->state == SENT_IN_FLIGHT)
			return;
		sent_trim(s, NEVER_US);
	}
}

/*
 * An eighth of the ring is for acknowledgements, probes and answers: they must not wait for a
 * packet that is stuck on a path of its own.
 */
bool recovery_data_room(const struct ptcp_assoc *a)
{
	const uint32_t n_max = a->sent.n_packets_max;

	return a->sent.next_pn - a->sent.tail < n_max - n_max / 8;
}

bool recovery_make_room(struct ptcp_assoc *a, unsigned n_records)
{
	struct sent_ring *const s = &a->sent;

	if (sent_make_room(s, n_records, a->now_us))
		return true;
	if (s->next_pn - s->tail < s->n_packets)
		return false; /* no memory for the records */
	/* So much left since then that the oldest may be called lost. */
	const struct sent_packet *const packet = sent_at(s, s->tail);
	if (packet->state == SENT_IN_FLIGHT)
		lose(a, &a->paths[packet->path], s->tail, false);
	sent_trim(s, a->now_us + 1);
	return sent_make_room(s, n_records, a->now_us);
}

static uint64_t reorder_window_us(const struct path *p)
{
	const uint64_t rtt_us = max_u64(p->rtt.srtt_us, p->rtt.latest_us);

	return max_u64(rtt_us * p->reorder_multiplier / 8, LOSS_GRANULARITY_US);
}

/*
 * How many later packets must be acknowledged before this one is called lost: its block's parity
 * has its chance first.
 */
static uint64_t loss_threshold(const struct path *p, const struct sent_packet *packet)
{
	return (uint64_t)p->packet_threshold + packet->parity_distance;
}

static void detect_losses(struct ptcp_assoc *a, struct path *p)
{
	const uint64_t wait_us = max_u64(p->rtt.srtt_us, p->rtt.latest_us) + reorder_window_us(p);

	const uint64_t parity_us = parity_wait_us(a, p);

	p->loss_us = NEVER_US;
	while (p->head_pn != SENT_NO_PN && p->any_acked) {
		const uint64_t pn = p->head_pn;
		const struct sent_packet *const packet = sent_at(&a->sent, pn);

		if (packet->path_sequence >= p->largest_acked_sequence)
			return;
		const uint64_t due_us =
			packet->sent_us + wait_us + (packet->parity_distance > 0 ? parity_us : 0);
		if (p->largest_acked_sequence - packet->path_sequence < loss_threshold(p, packet) &&
		    a->now_us < due_us) {
			p->loss_us = due_us;
			return;
		}
		lose(a, p, pn, true);
	}
}

/* A packet given up for lost has arrived: be slower to judge for a while (RFC 8985, 6.2). */
static void on_spurious(struct ptcp_assoc *a, struct path *p, const struct sent_packet *packet)
{
	const uint64_t distance = p->largest_acked_sequence - packet->path_sequence + 1;

	a->stats.packets_spurious++;
	if (p->largest_acked_sequence > packet->path_sequence && distance > p->packet_threshold)
		p->packet_threshold = (unsigned)min_u64(distance, PACKET_THRESHOLD_MAX);
	if (a->now_us > packet->lost_us && p->reorder_multiplier < REORDER_MULTIPLIER_MAX)
		p->reorder_multiplier++;
	p->reorder_decay_us = a->now_us + REORDER_DECAY_US;
	p->n_full_lost = 0;
	p->cc.ops->on_spurious(&p->cc, packet->size_bytes);
}

static void decay_reordering(struct ptcp_assoc *a, struct path *p)
{
	if (p->reorder_decay_us == 0 || a->now_us < p->reorder_decay_us)
		return;
	p->packet_threshold = (unsigned)max_u64(3, p->packet_threshold / 2);
	p->reorder_multiplier = (unsigned)max_u64(1, p->reorder_multiplier / 2);
	p->reorder_decay_us = p->packet_threshold > 3 || p->reorder_multiplier > 1
				      ? a->now_us + REORDER_DECAY_US
				      : 0;
}

/* ---- acknowledgements
 * ------------------------------------------------------------------------------ */

static void note_delivery(struct ptcp_assoc *a, struct path *p, uint64_t pn,
			  const struct sent_packet *packet)
{
	p->delivered_bytes += packet->size_bytes;
	p->delivered_us = a->now_us;
	p->round_acked_bytes += packet->size_bytes;
	p->round_acked++;
	if (p->round_newest_pn != SENT_NO_PN && packet->path_sequence <= p->round_newest_sequence)
		return;
	p->round_newest_pn = pn;
	p->round_newest_sequence = packet->path_sequence;
	p->round_prior_delivered = packet->delivered_bytes;
	p->round_app_limited = (packet->flags & SENT_APP_LIMITED) != 0;
	/* The interval is the longer one of sending and of acknowledging. */
	const uint64_t interval_us =
		max_u64(packet->sent_us - packet->first_sent_us, a->now_us - packet->delivered_us);
	p->first_sent_us = packet->sent_us;
	p->round_rate =
		interval_us > 0 && interval_us >= p->rtt.min_us
			? (p->delivered_bytes - packet->delivered_bytes) * US_PER_S / interval_us
			: 0;
}

static void ack_packet(struct ptcp_assoc *a, uint64_t pn)
{
	struct sent_packet *const packet = sent_at(&a->sent, pn);
	struct path *const p = &a->paths[packet->path];
	const bool was_lost = packet->state == SENT_LOST;

	a->stats.packets_acked++;
	if (!was_lost)
		unlink_packet(a, p, packet);
	if (p->used && packet->path_sequence >= p->first_sequence) {
		if (!(packet->flags & SENT_MTU_PROBE)) {
			parity_note_acked(p, was_lost);
			if (was_lost)
				on_spurious(a, p, packet);
		}
		note_delivery(a, p, pn, packet);
		p->round_ect += (packet->flags & SENT_ECT) != 0;
		if (!p->any_acked || packet->path_sequence > p->largest_acked_sequence)
			p->largest_acked_sequence = packet->path_sequence;
		p->any_acked = true;
		if (packet->flags & SENT_MTU_PROBE)
			pmtu_probe_acked(p, packet->size_bytes, a->now_us);
		else
			pmtu_packet_acked(p, packet->size_bytes, packet->path_sequence);
	}
	keys_acked(a, pn);
	tell_records(a, packet);
	sent_done(&a->sent, pn);
}

/* Of the largest packet in the frame, if it is news. Returns its path; NULL: no sample. */
static struct path *sample_rtt(struct ptcp_assoc *a, const struct ack_frame *f)
{
	const uint64_t largest = f->ranges[0].high;

	if (largest < a->sent.tail)
		return NULL;
	const struct sent_packet *const packet = sent_at(&a->sent, largest);
	struct path *const p = &a->paths[packet->path];
	const uint64_t rtt_us = a->now_us - packet->sent_us;
	if (packet->state != SENT_IN_FLIGHT || !p->used)
		return NULL;
	/* Shorter than ever, by an answer on another path: no round trip of this one. */
	if (a->heard != p && rtt_us < p->rtt.min_us)
		return NULL;
	rtt_sample(&p->rtt, rtt_us, min_u64(f->delay_us, PEER_DELAY_MAX_US));
	return p;
}

/*
 * Acknowledgements come in lumps, and over a round trip of 100 us a lump is all there is: such
 * samples are too high by any factor. There, count over a fixed time instead.
 */
static void sample_window(struct ptcp_assoc *a, struct path *p)
{
	if (p->rtt.srtt_us >= RATE_WINDOW_US) {
		p->window_start_us = 0;
		return;
	}
	const uint64_t passed_us = a->now_us - p->window_start_us;
	const bool app_limited = p->window_app_limited || p->round_app_limited;

	p->round_rate = 0;
	p->window_app_limited = app_limited;
	if (p->window_start_us != 0 && passed_us < RATE_WINDOW_US)
		return;
	if (p->window_start_us != 0) {
		p->round_rate = (p->delivered_bytes - p->window_start_bytes) * US_PER_S / passed_us;
		p->round_app_limited = app_limited;
	}
	p->window_start_us = a->now_us;
	p->window_start_bytes = p->delivered_bytes;
	p->window_app_limited = false;
}

static void tell_cc(struct ptcp_assoc *a, struct path *p, uint64_t rtt_us, uint64_t ce_packets)
{
	sample_window(a, p);
	const struct cc_ack ack = {
		.now_us = a->now_us,
		.acked_bytes = p->round_acked_bytes,
		.delivered_bytes = p->delivered_bytes,
		.prior_delivered = p->round_prior_delivered,
		.rate = p->round_rate,
		.rate_app_limited = p->round_app_limited,
		.rtt_us = rtt_us,
		.srtt_us = p->rtt.srtt_us,
		.in_flight_bytes = p->in_flight_bytes,
		.ect_packets = p->round_ect,
		.ce_packets = ce_packets,
	};

	if (p->app_limited_until != 0 && p->delivered_bytes > p->app_limited_until)
		p->app_limited_until = 0;
	p->cc.ops->on_ack(&p->cc, &ack);
	pacer_set_rate(&p->pacer, p->cc.pacing_rate, p->mtu_bytes, a->now_us);
}

static void after_ack(struct ptcp_assoc *a, struct path *p, uint64_t sampled_us,
		      uint64_t ce_packets)
{
	p->n_ptos = p->n_probes = 0;
	p->progress_us = a->now_us;
	decay_reordering(a, p);
	detect_losses(a, p);
	tell_cc(a, p, sampled_us, ce_packets);
	if (p == a->active)
		ptcp_conns_set_rtt(a->conns, rtt_smoothed_us(&p->rtt), path_pto_us(p));
}

static uint64_t new_ce(struct ptcp_assoc *a, const struct ack_frame *f)
{
	const uint64_t news = f->has_ecn && f->ce > a->peer_ce ? f->ce - a->peer_ce : 0;

	a->peer_ce += news;
	return min_u64(news, 65536);
}

static void stop_ecn(struct ptcp_assoc *a, struct path *p, const char *because)
{
	if (p->ecn_failed)
		return;
	p->ecn_failed = true;
	assoc_trace(a, &(struct ptcp_trace){
			       .what = PTCP_TRACE_NOTE,
			       .because = because,
			       .path_id = p->id,
		       });
}

/*
 * RFC 9000, section 13.4.2.1: as many marks must have come as packets with marks did, or somebody
 * on the way clears them. An ACK that was overtaken says nothing.
 */
static void validate_ecn(struct ptcp_assoc *a, const struct ack_frame *f)
{
	const uint64_t marked = f->has_ecn ? f->ect0 + f->ce : 0;
	unsigned n_ect = 0, n_paths = 0;

	PATH_FOREACH (a, p) {
		n_ect += p->round_ect;
		n_paths += p->round_ect > 0;
	}
	if (f->ranges[0].high <= a->peer_largest && a->peer_largest != 0)
		return;
	a->peer_largest = f->ranges[0].high;
	PATH_FOREACH (a, p)
		if (p->round_ect > 0 && marked >= a->peer_marked + n_ect)
			p->ecn_works = true;
		else if (p->round_ect > 0 && n_paths == 1)
			stop_ecn(a, p, "ECN marks are lost on the way");
	a->peer_marked = max_u64(a->peer_marked, marked);
}

int recovery_ack_frame(struct ptcp_assoc *a, struct reader *r, bool ecn)
{
	struct ack_frame f;
	int e = ack_parse(r, ecn, &f);

	if (e < 0)
		return e;
	if (f.ranges[0].high >= a->sent.next_pn)
		return -EBADMSG; /* never sent */
	PATH_FOREACH (a, p) {
		p->round_acked_bytes = 0;
		p->round_acked = p->round_ect = 0;
		p->round_rate = 0;
		p->round_newest_pn = SENT_NO_PN;
	}
	const uint64_t before_us = a->now_us;
	const struct path *const sampled = sample_rtt(a, &f);

	for (unsigned i = f.n_ranges; i-- > 0;) {
		uint64_t pn = max_u64(f.ranges[i].low, a->sent.tail);

		while (pn <= f.ranges[i].high &&
		       (pn = sent_next_outstanding(&a->sent, pn, f.ranges[i].high)) != SENT_NO_PN)
			ack_packet(a, pn++);
	}
	const uint64_t ce_packets = new_ce(a, &f);
	validate_ecn(a, &f);
	PATH_FOREACH (a, p)
		if (p->round_acked > 0)
			after_ack(a, p, p == sampled ? p->rtt.adjusted_us : 0,
				  p == a->active ? ce_packets : 0);

	const uint64_t keep_us =
		a->active ? max_u64(3 * path_pto_us(a->active), SPURIOUS_MIN_US) : SPURIOUS_MIN_US;
	sent_trim(&a->sent, before_us > keep_us ? before_us - keep_us : 0);
	return 0;
}

/* ---- timers
 * ---------------------------------------------------------------------------------------- */

static uint64_t pto_due_us(const struct ptcp_assoc *a, const struct path *p)
{
	const uint64_t base_us = path_pto_us(p);
	const unsigned shift = p->n_ptos < 12 ? p->n_ptos : 12;

	if (p->head_pn == SENT_NO_PN)
		return NEVER_US;
	uint64_t wait_us = min_u64(base_us << shift, max_u64(2 * base_us, PTO_MAX_US));
	/* Of a path that we have left nothing better will be heard: rescue what it holds. */
	if (p != a->active)
		wait_us = min_u64(wait_us, PTO_LEFT_US);
	return p->eliciting_us + wait_us;
}

/*
 * When a path that acknowledges nothing counts as dead: after several probes, or when packets went
 * out all the time. For each of those puts the probe timeout off, so that a steady stream which
 * does not fill the window would never come to probe.
 */
static uint64_t silence_due_us(const struct path *p)
{
	const uint64_t silence_us =
		min_u64(max_u64(PATH_SILENCE_MIN_US, 3 * path_pto_us(p)), PATH_SILENCE_MAX_US);

	if (p->head_pn == SENT_NO_PN ||
	    (p->n_ptos < 3 && p->eliciting_us < p->progress_us + silence_us / 2))
		return NEVER_US;
	return p->progress_us + silence_us;
}

uint64_t recovery_deadline_us(const struct ptcp_assoc *a, const struct path *p)
{
	return min_u64(p->loss_us, min_u64(pto_due_us(a, p), silence_due_us(p)));
}

/* Sends what the oldest packets carried once more, without a verdict about them. */
static void rescue(struct ptcp_assoc *a, struct path *p)
{
	uint64_t pn = p->head_pn;

	for (unsigned n = 0; n < p->n_probes && pn != SENT_NO_PN;) {
		struct sent_packet *const packet = sent_at(&a->sent, pn);

		pn = packet->next;
		if (packet->flags & (SENT_RESCUED | SENT_MTU_PROBE))
			continue;
		packet->flags |= SENT_RESCUED;
		requeue_records(a, packet, true);
		n++;
	}
}

static void on_pto(struct ptcp_assoc *a, struct path *p)
{
	a->stats.ptos++;
	p->n_ptos++;
	p->n_probes = p->n_ptos == 1 ? 1 : PROBES;
	if (p->n_ptos == 2)
		pmtu_black_hole(p, a->now_us);
	if (p->n_ptos == 2 && !p->ecn_works && path_uses_ecn(a, p))
		stop_ecn(a, p, "nothing with ECN marks arrives");
	if (p->n_ptos == COLLAPSE_PTOS) {
		p->cc.ops->on_collapse(&p->cc, a->now_us);
		pacer_set_rate(&p->pacer, p->cc.pacing_rate, p->mtu_bytes, a->now_us);
	}
	/* The timer runs from here even if the window or a missing path delays the probe. */
	p->eliciting_us = a->now_us;
	rescue(a, p);
}

void recovery_tick(struct ptcp_assoc *a, struct path *p)
{
	if (a->now_us >= p->loss_us)
		detect_losses(a, p);
	if (a->now_us >= silence_due_us(p))
		path_set_state(a, p, PTCP_PATH_DOWN, "nothing acknowledged");
	else if (a->now_us >= pto_due_us(a, p))
		on_pto(a, p);
}
