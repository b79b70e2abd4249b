/*
 * Parity on its way out: the loss that is measured, whether it pays, blocks.
 *
 * Loss is counted per path over some thousand packets. What is lost while a
 * queue of ours stands on the path is put down to that queue, and such times
 * are not counted at all: more packets would not help there.
 */
#include "ptcp/assoc.h"

#define METER_MAX         8192 /* packets; then both counts are halved */
#define GUESS_JUDGED      128  /* a path that has told little: as if of so many */
#define GUESS_LOST        4    /* packets so many had been lost */
#define GUESS_PPM         4000 /* below, the guess alone is no reason any more */
#define ON_LOSSES         2    /* so many at least, and so much of all */
#define ON_PPM            500
#define OFF_PPM           300
#define RTT_MIN_US        (5 * US_PER_MS) /* below, sending again is as fast */
#define QUEUE_MIN_US      (5 * US_PER_MS) /* of standing queue, or half the round trip */
#define BLOCK_US_MIN      (1 * US_PER_MS)
#define BLOCK_US_MAX      (5 * US_PER_MS)
#define BLOCK_US_ROOMY    (2 * US_PER_MS)
#define BLOCK_US_STEADY   (8 * US_PER_MS)
#define BLOCK_US_LONG     (14 * US_PER_MS)
#define BLOCK_WAIT_US     (5 * US_PER_MS) /* for the parity behind its last source */
#define WAIT_MIN_US       (10 * US_PER_MS)
#define SOURCES_FEW_PPM   5000 /* loss below which longer blocks do */
#define SOURCES_MAX       40
#define SOURCES_MAX_FEW   60
#define SOURCES_LONG      120
#define FAIL_PPM          3000 /* of blocks that may need more than parity */
#define FAIL_PPM_ROOMY    500
#define FAIL_PPM_STEADY   10000
#define STEADY_US         US_PER_S /* so long has the path been full */
#define SHARE_OF_SOURCES  2        /* parity is at most 1/2 of the sources: a third of all */
#define CREDIT_MAX        (16 * PARITY_SYMBOL_BYTES)
#define BULK_WINDOW_US    (100 * US_PER_MS)
#define BULK_WINDOW_BYTES 8192
#define BULK_KEEP_US      US_PER_S

/* ---- the loss ------------------------------------------------------------------------------ */

static bool queue_stands(const struct path *p)
{
	return p->rtt.latest_us > p->rtt.min_us + max_u64(p->rtt.min_us / 2, QUEUE_MIN_US);
}

static void judge(struct path *p, unsigned n_lost)
{
	struct parity_meter *const m = &p->parity;

	if (queue_stands(p))
		return;
	m->n_judged++;
	m->n_lost += n_lost;
	if (m->n_judged >= METER_MAX) {
		m->n_judged /= 2;
		m->n_lost = (m->n_lost + 1) / 2;
	}
}

void parity_note_acked(struct path *p, bool was_lost)
{
	if (!was_lost)
		judge(p, 0);
	else if (p->parity.n_lost > 0)
		p->parity.n_lost--;
}

void parity_note_lost(struct path *p)
{
	judge(p, 1);
}

uint32_t parity_loss_ppm(const struct path *p)
{
	const struct parity_meter *const m = &p->parity;

	return m->n_judged == 0 ? 0 : (uint32_t)(m->n_lost * UINT64_C(1000000) / m->n_judged);
}

/*
 * What is known of the path, and before that a guess: in the first rounds of a TCP inside a lost
 * packet does most harm, for slow start ends by it, and nothing has been measured yet.
 */
static uint32_t expected_loss_ppm(const struct path *p)
{
	const struct parity_meter *const m = &p->parity;

	return (uint32_t)((m->n_lost + GUESS_LOST) * UINT64_C(1000000) /
			  (m->n_judged + GUESS_JUDGED));
}

void parity_note_ordered(struct ptcp_assoc *a, size_t n_bytes)
{
	struct parity_sender *const s = &a->parity_tx;

	if (a->now_us >= s->bulk_start_us + BULK_WINDOW_US) {
		s->bulk_start_us = a->now_us;
		s->bulk_bytes = 0;
	}
	s->bulk_bytes += n_bytes;
	if (s->bulk_bytes >= BULK_WINDOW_BYTES)
		s->bulk_until_us = a->now_us + BULK_KEEP_US;
}

/*
 * We send less than the path takes. Then parity costs little, and is wanted soon: a TCP in slow
 * start takes a round that is 6 ms late for a queue, and stops growing.
 */
static bool roomy(const struct path *p)
{
	return p->app_limited_until != 0;
}

/*
 * The path has been full for long. What is inside has left its slow start, and no controller there
 * minds a round that is late: longer blocks and fewer rows leave more of the path to what it sends.
 */
static bool steady(const struct parity_sender *s)
{
	return s->full_us >= STEADY_US;
}

/* Time in which the path was not full counts four times, for a flow that has just begun shows in
 * it. */
static void note_fullness(struct parity_sender *s, const struct path *p, uint64_t now_us)
{
	const uint64_t step_us = min_u64(now_us - s->opened_us, STEADY_US);

	if (!roomy(p))
		s->full_us = min_u64(s->full_us + step_us, 2 * STEADY_US);
	else
		s->full_us -= min_u64(s->full_us, 4 * step_us);
}

/*
 * The fewest rows that leave at most FAIL_PPM of blocks unsolved, where each of sources and rows is
 * lost by itself: a block is solved if no more of all are lost than there are rows.
 */
static unsigned rows_for(const struct parity_sender *s, const struct path *p, unsigned n_sources)
{
	const uint32_t loss_ppm = expected_loss_ppm(p);
	const double loss = loss_ppm / 1e6, kept = 1 - loss;
	const double fail = (steady(s)  ? FAIL_PPM_STEADY
			     : roomy(p) ? FAIL_PPM_ROOMY
					: FAIL_PPM) /
			    1e6;

	if (loss_ppm >= 500000)
		return PARITY_ROWS_MAX;
	for (unsigned n_rows = 0; n_rows < PARITY_ROWS_MAX; n_rows++) {
		const unsigned n = n_sources + n_rows;
		double term = 1, solved = 0;

		for (unsigned i = 0; i < n; i++)
			term *= kept;
		for (unsigned n_lost = 0; n_lost <= n_rows; n_lost++) {
			solved += term;
			term *= loss * (n - n_lost) / ((n_lost + 1) * kept);
		}
		if (1 - solved <= fail)
			return n_rows;
	}
	return PARITY_ROWS_MAX;
}

/* ---- whether it pays ------------------------------------------------------------------------- */

static bool is_lossy(const struct path *p)
{
	const struct parity_meter *const m = &p->parity;

	if (m->n_lost < ON_LOSSES)
		return expected_loss_ppm(p) >= GUESS_PPM;
	return parity_loss_ppm(p) >= (m->on ? OFF_PPM : ON_PPM);
}

static bool pays(const struct ptcp_assoc *a, const struct path *p)
{
	if (p->mtu_bytes > PARITY_SYMBOL_BYTES + PACKET_SHORT_BYTES + PTCP_TAG_BYTES)
		return false;
	if (a->config.parity == PTCP_PARITY_ALWAYS)
		return true;
	return p->rtt.min_us >= RTT_MIN_US && a->now_us < a->parity_tx.bulk_until_us && is_lossy(p);
}

bool parity_protects(struct ptcp_assoc *a, const struct path *p)
{
	struct parity_sender *const s = &a->parity_tx;
	struct parity_meter *const m = &a->paths[p->index].parity;

	if (!a->config.parity)
		return false;
	m->on = pays(a, p);
	if (!m->on)
		return s->state == PARITY_OPEN && s->path == p->index;
	if (!s->rows) {
		s->rows = malloc(sizeof(*s->rows));
		s->credit_bytes = CREDIT_MAX;
	}
	return s->rows != NULL;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static uint64_t block_us(const struct parity_sender *s, const struct path *p)
{
	if (s->n_sources_max == SOURCES_LONG)
		return min_u64(max_u64(p->rtt.srtt_us / 4, BLOCK_US_MIN), BLOCK_US_LONG);
	return min_u64(max_u64(p->rtt.srtt_us / 8, BLOCK_US_MIN), steady(s)  ? BLOCK_US_STEADY
								  : roomy(p) ? BLOCK_US_ROOMY
									     : BLOCK_US_MAX);
}

uint64_t parity_wait_us(const struct ptcp_assoc *a, const struct path *p)
{
	return max_u64(block_us(&a->parity_tx, p) + BLOCK_WAIT_US, WAIT_MIN_US);
}

bool parity_open(const struct ptcp_assoc *a)
{
	return a->parity_tx.state == PARITY_OPEN;
}

/* Where much is lost, a long block would need more rows than there are. */
static unsigned sources_for(const struct parity_sender *s, const struct path *p)
{
	if (steady(s) && rows_for(s, p, SOURCES_LONG) < PARITY_ROWS_MAX)
		return SOURCES_LONG;
	return steady(s) || expected_loss_ppm(p) < SOURCES_FEW_PPM ? SOURCES_MAX_FEW : SOURCES_MAX;
}

static void open_block(struct ptcp_assoc *a, const struct path *p)
{
	struct parity_sender *const s = &a->parity_tx;

	if (s->path != p->index)
		s->full_us = 0;
	note_fullness(s, p, a->now_us);
	s->state = PARITY_OPEN;
	s->path = p->index;
	s->base_pn = a->sent.next_pn;
	s->n_sources = s->n_rows_sent = 0;
	s->n_sources_max = sources_for(s, p);
	s->n_rows = (unsigned)max_u64(rows_for(s, p, s->n_sources_max), 1);
	s->symbol_bytes = 0;
	s->opened_us = s->used_us = a->now_us;
	memset(s->rows, 0, s->n_rows * sizeof(s->rows->bytes[0]));
}

void parity_add(struct ptcp_assoc *a, const struct build *b)
{
	struct parity_sender *const s = &a->parity_tx;
	const size_t n_bytes = b->w.used_bytes - PACKET_SHORT_BYTES;
	uint8_t *rows[PARITY_ROWS_MAX], numbers[PARITY_ROWS_MAX];

	if (s->state == PARITY_NONE)
		open_block(a, b->path);
	const unsigned position = s->n_sources;
	assert(s->state == PARITY_OPEN && position < PARITY_SPAN &&
	       a->sent.next_pn == s->base_pn + position);
	for (unsigned i = 0; i < s->n_rows; i++) {
		rows[i] = s->rows->bytes[i];
		numbers[i] = (uint8_t)i;
	}
	parity_code_add(rows, numbers, s->n_rows, position, b->w.data + PACKET_SHORT_BYTES,
			n_bytes);
	s->n_sources++;
	if (s->symbol_bytes < n_bytes + 2)
		s->symbol_bytes = n_bytes + 2;
	s->credit_bytes += (int64_t)(n_bytes / SHARE_OF_SOURCES);
	if (s->credit_bytes > CREDIT_MAX)
		s->credit_bytes = CREDIT_MAX;
}

/* From now on the sources are judged once so many later packets of the path were acknowledged. */
static void tell_sources(struct ptcp_assoc *a)
{
	const struct parity_sender *const s = &a->parity_tx;
	const struct path *const p = &a->paths[s->path];

	for (uint64_t pn = max_u64(s->base_pn, a->sent.tail); pn < s->base_pn + s->n_sources;
	     pn++) {
		struct sent_packet *const packet = sent_at(&a->sent, pn);
		if (packet->state != SENT_DONE && packet->path == s->path)
			packet->parity_distance =
				s->n_rows_sent == 0
					? 0
					: (uint16_t)min_u64(p->next_sequence - 1 -
								    packet->path_sequence,
							    SENT_PARITY_OPEN - 1);
	}
}

void parity_drop_block(struct ptcp_assoc *a)
{
	if (a->parity_tx.state == PARITY_NONE)
		return;
	tell_sources(a);
	a->parity_tx.state = PARITY_NONE;
}

void parity_close_due(struct ptcp_assoc *a)
{
	struct parity_sender *const s = &a->parity_tx;
	const struct path *const p = &a->paths[s->path];

	if (s->state == PARITY_NONE)
		return;
	/* On another path the parity would come too late, in a smaller packet or too far behind its
	 * sources not at all. */
	if (p != a->active || parity_packet_bytes(a) > p->mtu_bytes ||
	    a->sent.next_pn - s->base_pn + PARITY_ROWS_MAX > PARITY_DISTANCE_MAX) {
		parity_drop_block(a);
		return;
	}
	if (s->state == PARITY_CLOSED ||
	    (s->n_sources < s->n_sources_max && a->sent.next_pn == s->base_pn + s->n_sources &&
	     a->now_us < s->opened_us + block_us(s, p)))
		return;
	const int64_t affordable = s->credit_bytes / (int64_t)s->symbol_bytes;
	const unsigned rows_min = a->config.parity == PTCP_PARITY_ALWAYS;
	s->n_rows = (unsigned)min_u64(
		min_u64(max_u64(rows_for(s, p, s->n_sources), rows_min), s->n_rows),
		affordable > 0 ? (uint64_t)affordable : 0);
	s->state = PARITY_CLOSED;
	if (s->n_rows == 0)
		parity_drop_block(a);
}

bool parity_pending(const struct ptcp_assoc *a)
{
	return a->parity_tx.state == PARITY_CLOSED;
}

size_t parity_packet_bytes(const struct ptcp_assoc *a)
{
	return PACKET_SHORT_BYTES + PARITY_FRAME_BYTES + a->parity_tx.symbol_bytes + PTCP_TAG_BYTES;
}

size_t parity_pending_bytes(const struct ptcp_assoc *a)
{
	const struct parity_sender *const s = &a->parity_tx;

	return parity_pending(a) ? (s->n_rows - s->n_rows_sent) * parity_packet_bytes(a) : 0;
}

void parity_write(struct ptcp_assoc *a, struct build *b)
{
	const struct parity_sender *const s = &a->parity_tx;

	writer_u8(&b->w, FRAME_PARITY);
	writer_u8(&b->w, (uint8_t)(a->sent.next_pn - s->base_pn));
	writer_u8(&b->w, (uint8_t)s->n_sources);
	writer_u8(&b->w, (uint8_t)s->n_rows_sent);
	writer_bytes(&b->w, s->rows->bytes[s->n_rows_sent], s->symbol_bytes);
	b->eliciting = true;
}

void parity_sent(struct ptcp_assoc *a)
{
	struct parity_sender *const s = &a->parity_tx;

	a->stats.parity_sent++;
	a->stats.parity_bytes_sent += parity_packet_bytes(a);
	s->credit_bytes -= (int64_t)s->symbol_bytes;
	if (++s->n_rows_sent == s->n_rows)
		parity_drop_block(a);
}

uint64_t parity_deadline_us(const struct ptcp_assoc *a)
{
	const struct parity_sender *const s = &a->parity_tx;

	return s->state == PARITY_OPEN ? s->opened_us + block_us(s, &a->paths[s->path]) : NEVER_US;
}

/* ---- what the peer rebuilt ---------------------------------------------------------------------
 */

int parity_repaired_frame(struct ptcp_assoc *a, struct reader *r)
{
	const uint64_t n = reader_varint(r);
	uint64_t pn = reader_varint(r);

	if (!a->config.parity || r->failed || n == 0 || n > PARITY_REPAIRED_MAX ||
	    pn >= a->sent.next_pn)
		return -EBADMSG;
	for (uint64_t i = 0;;) {
		recovery_repaired(a, pn);
		if (++i == n)
			return 0;
		const uint64_t step = reader_varint(r);
		if (r->failed || step == 0 || step > pn)
			return -EBADMSG;
		pn -= step;
	}
}
