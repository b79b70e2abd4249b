/* Wires, and what is under way on them: a heap by time, then by order. */
#include "sim.h"

/* ---- the heap
 * ------------------------------------------------------------------------------------- */

static bool before(const struct sim_datagram *a, const struct sim_datagram *b)
{
	return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

static void heap_push(struct sim_world *w, struct sim_datagram *d)
{
	if (w->n_heap == w->heap_size) {
		const size_t size = w->heap_size ? 2 * w->heap_size : 256;
		struct sim_datagram **heap = sim_own_alloc(size * sizeof(struct sim_datagram *));

		if (w->n_heap > 0)
			memcpy(heap, w->heap, w->n_heap * sizeof(struct sim_datagram *));
		sim_own_free(w->heap);
		w->heap = heap;
		w->heap_size = size;
	}
	size_t at = w->n_heap++;
	while (at > 0 && before(d, w->heap[(at - 1) / 2])) {
		w->heap[at] = w->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	w->heap[at] = d;
}

static struct sim_datagram *heap_pop(struct sim_world *w)
{
	struct sim_datagram *const first = w->heap[0], *const last = w->heap[--w->n_heap];
	size_t at = 0;

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= w->n_heap)
			break;
		if (child + 1 < w->n_heap && before(w->heap[child + 1], w->heap[child]))
			child++;
		if (!before(w->heap[child], last))
			break;
		w->heap[at] = w->heap[child];
		at = child;
	}
	w->heap[at] = last;
	return first;
}

uint64_t sim_net_next_us(const struct sim_world *w)
{
	return w->n_heap > 0 ? w->heap[0]->at_us : NEVER_US;
}

void sim_net_fini(struct sim_world *w)
{
	while (w->n_heap > 0)
		sim_own_free(w->heap[--w->n_heap]);
	sim_own_free(w->heap);
	SIM_PAIR_FOREACH(w, p)
	for (unsigned i = 0; i < SIM_RECENT; i++)
		sim_own_free(p->recent[i]);
}

/* ---- wires
 * ------------------------------------------------------------------------------------------- */

struct sim_wire *sim_wire_add(struct sim_world *w, int pair, enum ptcp_path_kind kind,
			      const struct sim_link *there, const struct sim_link *back)
{
	for (unsigned i = 0; i < SIM_WIRES_MAX; i++) {
		struct sim_wire *const wire = &w->wires[i];

		if (wire->alive)
			continue;
		*wire = (struct sim_wire){
			.alive = true,
			.pair = pair,
			.kind = kind,
			.path_mtu_bytes = 1472,
			.id = { w->next_path_id, w->next_path_id + 1 },
			.link = { *there, *back },
		};
		w->next_path_id += 2;
		return wire;
	}
	return NULL;
}

void sim_wire_tell(struct sim_world *w, struct sim_wire *wire, int end)
{
	struct sim_end *const e = &w->pairs[wire->pair].end[end];
	int r;

	if (!e->a || ptcp_assoc_state(e->a) >= PTCP_CLOSING)
		return;
	r = ptcp_path_add(e->a, wire->id[end], wire->kind, wire->path_mtu_bytes, w->now_us);
	sim_log(w, "pair %d end %d: path %u added, %d", wire->pair, end, wire->id[end], r);
	if (r < 0 && r != -ENOBUFS)
		sim_fail(w, "ptcp_path_add: %d", r);
	e->dirty = true;
}

void sim_wire_rebind(struct sim_world *w, struct sim_wire *wire, int seen_by)
{
	sim_log(w, "pair %d: rebinding, end %d sees %u instead of %u", wire->pair, seen_by,
		w->next_path_id, wire->id[seen_by]);
	wire->id[seen_by] = w->next_path_id++;
}

struct sim_wire *sim_wire_find(struct sim_world *w, int pair, int end, uint32_t path_id)
{
	for (struct sim_wire *wire = w->wires; wire < w->wires + SIM_WIRES_MAX; wire++)
		if (wire->alive && wire->pair == pair && wire->id[end] == path_id)
			return wire;
	return NULL;
}

/* ---- datagrams
 * ------------------------------------------------------------------------------------------ */

static struct sim_datagram *datagram_new(const uint8_t *data, size_t n_bytes)
{
	struct sim_datagram *const d = sim_own_alloc(sizeof(*d) + n_bytes);

	d->n_bytes = n_bytes;
	memcpy(d->data, data, n_bytes);
	return d;
}

static void launch(struct sim_world *w, struct sim_datagram *d, uint64_t at_us)
{
	d->at_us = at_us;
	d->order = w->next_order++;
	w->n_datagrams++;
	heap_push(w, d);
}

static void keep_recent(struct sim_pair *p, const struct sim_datagram *d)
{
	struct sim_datagram **const slot = &p->recent[p->n_recent++ % SIM_RECENT];

	sim_own_free(*slot);
	*slot = datagram_new(d->data, d->n_bytes);
	(*slot)->to = d->to;
	(*slot)->pair = d->pair;
}

static bool is_lost(struct sim_world *w, struct sim_link *l, size_t n_bytes)
{
	if (w->now_us < l->dark_until_us || (l->mtu_bytes > 0 && n_bytes > l->mtu_bytes))
		return true;
	if (l->burst_left > 0) {
		l->burst_left--;
		return true;
	}
	if (sim_chance(&w->rng, l->burst_permille))
		l->burst_left = (unsigned)sim_below(&w->rng, l->burst_packets + 1);
	return sim_chance(&w->rng, l->loss_permille) ||
	       (l->queue_us > 0 && l->busy_until_us > w->now_us + l->queue_us);
}

static uint64_t arrival_us(struct sim_world *w, struct sim_link *l, size_t n_bytes)
{
	uint64_t at_us = max_u64(w->now_us, l->busy_until_us);

	if (l->bytes_per_s > 0) {
		at_us += (n_bytes + 28) * US_PER_S / l->bytes_per_s;
		l->busy_until_us = at_us;
	}
	l->queue_max_us = max_u64(l->queue_max_us, at_us - w->now_us);
	at_us += l->delay_us;
	if (l->jitter_us > 0)
		at_us += sim_below(&w->rng, l->jitter_us + 1);
	if (sim_chance(&w->rng, l->reorder_permille))
		at_us += sim_below(&w->rng, l->reorder_us + 1);
	return at_us;
}

static void spoil(struct sim_world *w, const struct sim_link *l, struct sim_datagram *d)
{
	if (sim_chance(&w->rng, l->corrupt_permille))
		for (uint64_t n = sim_between(&w->rng, 1, 3); n > 0; n--)
			d->data[sim_below(&w->rng, d->n_bytes)] ^=
				(uint8_t)(1U << sim_below(&w->rng, 8));
	if (sim_chance(&w->rng, l->truncate_permille))
		d->n_bytes = sim_below(&w->rng, d->n_bytes);
	if (d->ecn == 2 && sim_chance(&w->rng, l->ce_permille))
		d->ecn = 3;
}

static void transmit_one(struct sim_end *from, struct sim_wire *wire, const uint8_t *data,
			 size_t n_bytes, uint8_t ecn)
{
	struct sim_world *const w = from->world;
	struct sim_link *const l = &wire->link[from->index];
	const int to = !from->index;

	l->n_sent++;
	l->bytes_sent += n_bytes;
	if (w->tells_all)
		sim_log(w, "pair %d end %d: path %u takes %zu bytes of type %02x",
			from->pair->index, from->index, wire->id[from->index], n_bytes, data[0]);
	if (is_lost(w, l, n_bytes)) {
		l->n_dropped++;
		return;
	}
	l->bytes_delivered += n_bytes;
	for (bool again = true; again; again = sim_chance(&w->rng, l->duplicate_permille)) {
		struct sim_datagram *const d = datagram_new(data, n_bytes);

		d->path_id = wire->id[to];
		d->pair = (uint8_t)from->pair->index;
		d->to = (uint8_t)to;
		d->ecn = ecn;
		if (sim_chance(&w->rng, 20))
			keep_recent(from->pair, d);
		spoil(w, l, d);
		launch(w, d, arrival_us(w, l, n_bytes));
	}
}

void sim_transmit(struct sim_end *from, const struct ptcp_batch *batch)
{
	struct sim_world *const w = from->world;
	struct sim_wire *const wire =
		sim_wire_find(w, from->pair->index, from->index, batch->path_id);
	size_t n_bytes;

	for (size_t at = 0; at < batch->used_bytes; at += n_bytes) {
		n_bytes = min_size(batch->segment_bytes, batch->used_bytes - at);
		from->n_datagrams_sent++;
		from->bytes_sent += n_bytes;
		if (wire)
			transmit_one(from, wire, batch->data + at, n_bytes, batch->ecn);
	}
	if (wire && wire->link[from->index].says_too_big &&
	    batch->segment_bytes > wire->link[from->index].mtu_bytes)
		ptcp_path_too_big(from->a, batch->path_id, batch->segment_bytes, w->now_us);
}

static void deliver(struct sim_world *w, struct sim_datagram *d)
{
	struct sim_end *const e = &w->pairs[d->pair].end[d->to];
	uint64_t now_us = w->now_us;

	if (!e->a || w->now_us < e->asleep_until_us)
		return;
	/* Clocks of several threads differ a little. */
	if (sim_chance(&w->rng, 10))
		now_us -= sim_below(&w->rng, 1000);
	e->n_datagrams_received++;
	e->dirty = true;
	const uint8_t type = d->n_bytes > 0 ? d->data[0] : 0;
	const int r = ptcp_input(e->a, d->path_id, d->data, d->n_bytes, d->ecn, now_us);
	if (w->tells_all)
		sim_log(w, "pair %d end %d: path %u brought %zu bytes of type %02x: %d", d->pair,
			d->to, d->path_id, d->n_bytes, type, r);
}

void sim_net_deliver(struct sim_world *w)
{
	while (w->n_heap > 0 && w->heap[0]->at_us <= w->now_us) {
		struct sim_datagram *const d = heap_pop(w);

		deliver(w, d);
		sim_own_free(d);
	}
}

void sim_net_forge(struct sim_world *w, struct sim_pair *pair, int to, unsigned kind)
{
	const struct sim_pair *from = pair;
	uint8_t noise[1500];
	struct sim_datagram *d;

	if (kind == 2)
		from = &w->pairs[sim_below(&w->rng, SIM_PAIRS_MAX)];
	const struct sim_datagram *const old = from->recent[sim_below(&w->rng, SIM_RECENT)];
	if (kind == 1) {
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)sim_random(&w->rng);
		noise[0] |= 0x40;
		memcpy(noise + 1, pair->end[to].config.local_cid, PTCP_CID_BYTES);
		d = datagram_new(noise, sim_between(&w->rng, 1, sizeof(noise)));
	} else {
		if (!old || (kind == 0 && old->to != to))
			return;
		d = datagram_new(old->data, old->n_bytes);
		if (kind == 2 && d->n_bytes > PTCP_CID_BYTES)
			memcpy(d->data + 1, pair->end[to].config.local_cid, PTCP_CID_BYTES);
	}
	d->pair = (uint8_t)pair->index;
	d->to = (uint8_t)to;
	d->path_id = w->next_path_id++;
	launch(w, d, w->now_us + sim_below(&w->rng, 1000));
}
