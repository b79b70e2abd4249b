/*
 * Messages: each carries its number, flow and size in front and a text of its
 * own behind, so that what comes out can be checked against nothing else.
 * A message may be given up, but comes at most once, whole and unchanged, and
 * within an ordered flow in order, unless the core says that it stopped waiting.
 */
#include "sim.h"

#define MAGIC      UINT32_C(0x6d736721)
#define HEAD_BYTES sizeof(struct head)
#define TINY_BYTE  0xee
#define BURST      32 /* messages in one turn */

struct head {
	uint32_t magic, from; /* pair and end */
	uint32_t number, flow, flow_number, n_bytes;
};

void sim_messages_init(struct sim_messages *m)
{
	sim_own_free(m->seen);
	m->seen = sim_own_alloc(SIM_MESSAGES_MAX / 8);
	m->next_us = m->start_us;
}

static uint32_t name_of(const struct sim_end *e)
{
	return (uint32_t)(e->pair->index * 2 + e->index);
}

static uint64_t text_key(const struct head *h)
{
	return (uint64_t)h->from << 40 ^ (uint64_t)h->number << 8 ^ UINT64_C(0x5bd1e995);
}

static size_t choose_size(struct sim_end *e)
{
	const struct sim_messages *const m = &e->messages;
	struct sim_rng *const rng = &e->world->rng;

	if (sim_chance(rng, m->tiny_permille))
		return (size_t)sim_between(rng, 1, HEAD_BYTES - 1);
	if (sim_chance(rng, m->big_permille))
		return (size_t)sim_between(rng, 40000, PTCP_MESSAGE_BYTES_MAX);
	return (size_t)sim_between(rng, max_u64(m->size_min, HEAD_BYTES), m->size_max);
}

static void compose(struct sim_end *e, const struct sim_flow *flow, uint8_t *out, size_t n_bytes)
{
	const struct head h = {
		.magic = MAGIC,
		.from = name_of(e),
		.number = (uint32_t)e->messages.n_sent,
		.flow = flow->id,
		.flow_number = flow->n_sent,
		.n_bytes = (uint32_t)n_bytes,
	};

	if (n_bytes < HEAD_BYTES) {
		memset(out, TINY_BYTE, n_bytes);
		return;
	}
	memcpy(out, &h, HEAD_BYTES);
	sim_text(text_key(&h), 0, out + HEAD_BYTES, n_bytes - HEAD_BYTES);
}

static int hand_over(struct sim_end *e, const struct ptcp_message_info *info, uint8_t *data,
		     size_t n_bytes)
{
	const uint64_t now_us = e->world->now_us;
	const size_t cut = (size_t)sim_below(&e->world->rng, n_bytes + 1);
	const struct ptcp_part parts[] = { { data, cut }, { data + cut, n_bytes - cut } };

	if (!e->messages.lend)
		return ptcp_message_send(e->a, info, parts, 2, now_us);
	uint8_t *const room = ptcp_message_reserve(e->a);
	if (!room)
		return PTCP_BLOCKED;
	memcpy(room, data, n_bytes);
	return ptcp_message_commit(e->a, info, n_bytes, now_us);
}

/* False: no room now. */
static bool send_one(struct sim_end *e)
{
	static uint8_t data[PTCP_MESSAGE_BYTES_MAX];
	struct sim_messages *const m = &e->messages;
	struct sim_flow *const flow = &m->flows[sim_below(&e->world->rng, m->n_flows)];
	const struct ptcp_message_info info = {
		.flow = flow->id,
		.ordered = flow->ordered,
		.urgent = !flow->ordered && sim_chance(&e->world->rng, 100),
		.persistence_us = m->persistence_us,
	};
	const size_t n_bytes = choose_size(e);

	compose(e, flow, data, n_bytes);
	const int r = hand_over(e, &info, data, n_bytes);
	if (r == PTCP_BLOCKED) {
		m->blocked = true;
		return false;
	}
	if (r != 0) {
		sim_fail(e->world, "sending a message: %d", r);
		return false;
	}
	m->n_left--;
	m->bytes_sent += n_bytes;
	if (n_bytes < HEAD_BYTES) {
		m->n_tiny_sent++;
		return true;
	}
	m->n_sent++;
	flow->n_sent++;
	return true;
}

bool sim_messages_run(struct sim_end *e)
{
	struct sim_messages *const m = &e->messages;
	struct sim_world *const w = e->world;
	unsigned n = 0;

	if (ptcp_assoc_state(e->a) != PTCP_ESTABLISHED)
		return false;
	while (n < BURST && m->n_left > 0 && !m->blocked && w->now_us >= m->next_us &&
	       m->n_sent < SIM_MESSAGES_MAX && send_one(e)) {
		n++;
		if (m->interval_us > 0)
			m->next_us = w->now_us + sim_below(&w->rng, 2 * m->interval_us + 1);
	}
	return n > 0;
}

uint64_t sim_messages_next_us(const struct sim_end *e)
{
	const struct sim_messages *const m = &e->messages;

	if (ptcp_assoc_state(e->a) != PTCP_ESTABLISHED || m->n_left == 0 || m->blocked)
		return NEVER_US;
	return m->next_us;
}

bool sim_messages_sent(const struct sim_end *e)
{
	return e->messages.n_left == 0 || e->messages.n_sent >= SIM_MESSAGES_MAX;
}

/* ---- those that come ----------------------------------------------------------------------------
 */

static void take_tiny(struct sim_end *e, const uint8_t *data, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++)
		if (data[i] != TINY_BYTE)
			sim_fail(e->world, "a tiny message was changed");
	if (++e->messages.n_tiny_seen > e->pair->end[!e->index].messages.n_tiny_sent)
		sim_fail(e->world, "more tiny messages came than were sent");
}

static void check_order(struct sim_end *e, const struct head *h)
{
	struct sim_messages *const m = &e->messages;
	const struct sim_messages *const from = &e->pair->end[!e->index].messages;

	for (unsigned i = 0; i < from->n_flows; i++) {
		if (from->flows[i].id != h->flow)
			continue;
		if (from->flows[i].ordered && h->flow_number + 1 <= m->flows[i].last_seen)
			m->n_late++;
		m->flows[i].last_seen =
			(uint32_t)max_u64(m->flows[i].last_seen, h->flow_number + 1);
		return;
	}
	sim_fail(e->world, "message %u of an unknown flow", h->number);
}

void sim_messages_take(struct sim_end *e, const uint8_t *data, size_t n_bytes)
{
	struct sim_messages *const m = &e->messages;
	struct head h;

	m->bytes_seen += n_bytes;
	if (m->first_us == 0)
		m->first_us = e->world->now_us;
	m->last_us = e->world->now_us;
	if (n_bytes < HEAD_BYTES) {
		take_tiny(e, data, n_bytes);
		return;
	}
	memcpy(&h, data, HEAD_BYTES);
	if (h.magic != MAGIC || h.from != name_of(&e->pair->end[!e->index]) ||
	    h.n_bytes != n_bytes || h.number >= e->pair->end[!e->index].messages.n_sent ||
	    !sim_text_equal(text_key(&h), 0, data + HEAD_BYTES, n_bytes - HEAD_BYTES)) {
		sim_fail(e->world, "message %u of %zu bytes was changed", h.number, n_bytes);
		return;
	}
	if (m->seen[h.number / 8] >> (h.number % 8) & 1)
		sim_fail(e->world, "message %u came twice", h.number);
	m->seen[h.number / 8] |= (uint8_t)(1U << (h.number % 8));
	m->n_seen++;
	check_order(e, &h);
}

/* Each message sent was delivered, or one of the figures says where it went. */
void sim_messages_check(struct sim_end *e)
{
	const struct sim_messages *const m = &e->messages;
	const struct sim_end *const from = &e->pair->end[!e->index];
	struct ptcp_stats here, there;

	if (!e->a || !from->a)
		return;
	ptcp_get_stats(e->a, &here);
	ptcp_get_stats(from->a, &there);
	const uint64_t n_sent = from->messages.n_sent + from->messages.n_tiny_sent;
	const uint64_t n_seen = m->n_seen + m->n_tiny_seen;
	const uint64_t n_excused = there.messages_abandoned + there.messages_dropped_queue +
				   here.messages_dropped_memory;
	if (n_seen + n_excused < n_sent)
		sim_fail(e->world,
			 "pair %d end %d: of %llu messages %llu came, only %llu were given up",
			 e->pair->index, e->index, (unsigned long long)n_sent,
			 (unsigned long long)n_seen, (unsigned long long)n_excused);
	if (m->n_late > 0 && here.order_timeouts == 0 && here.messages_dropped_memory == 0)
		sim_fail(e->world, "%llu messages came out of order for no reason",
			 (unsigned long long)m->n_late);
	if (n_seen != here.messages_delivered || n_sent != there.messages_sent)
		sim_fail(e->world, "the figures of messages are wrong");
}
