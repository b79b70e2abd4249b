/* Two associations on a virtual network. */
#include "ptcp_pair.h"

/* ---- the cipher: a keyed checksum -------------------------------------------------------------
 */

static uint64_t checksum(enum ptcp_epoch epoch, uint32_t phase, uint64_t pn, const uint8_t *aad,
			 size_t aad_bytes, const uint8_t *data, size_t data_bytes)
{
	const struct hash_seed seed = { (uint64_t)epoch << 32 | phase, pn };
	const uint64_t part = hash_bytes(&seed, aad, aad_bytes);
	const struct hash_seed second = { part, data_bytes };
	uint64_t sum = 0, word = 0;

	/* A cheap sum over all, so that every flipped bit shows. */
	for (size_t i = 0; i + 8 <= data_bytes; i += 8) {
		memcpy(&word, data + i, 8);
		sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	}
	for (size_t i = data_bytes & ~(size_t)7; i < data_bytes; i++)
		sum = (sum ^ data[i]) * UINT64_C(0x9e3779b97f4a7c15);
	return hash_bytes(&second, &sum, sizeof(sum));
}

static int null_seal(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn,
		     const uint8_t *aad, size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	const uint64_t sum = checksum(epoch, phase, pn, aad, aad_bytes, data, data_bytes);
	struct pair_tls *const t = ctx;

	assert(phase <= t->phase_ready);
	memcpy(data + data_bytes, &sum, 8);
	memset(data + data_bytes + 8, 0, 8);
	return 0;
}

static int null_open(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn,
		     const uint8_t *aad, size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	struct pair_tls *const t = ctx;

	assert(phase <= t->phase_ready && (epoch == PTCP_EPOCH_HANDSHAKE || t->done));
	if (data_bytes < PTCP_TAG_BYTES)
		return -EBADMSG;
	const size_t n = data_bytes - PTCP_TAG_BYTES;
	const uint64_t sum = checksum(epoch, phase, pn, aad, aad_bytes, data, n);
	static const uint8_t zeros[8];

	return memcmp(data + n, &sum, 8) == 0 && memcmp(data + n + 8, zeros, 8) == 0 ? 0 : -EBADMSG;
}

static int null_next_phase(void *ctx, uint32_t phase)
{
	struct pair_tls *const t = ctx;

	assert(phase == t->phase_ready + 1);
	t->phase_ready = phase;
	return 0;
}

/* ---- a handshake of three flights, as TLS 1.3 has them
 * --------------------------------------------- */

static int null_handshake_input(void *ctx, const uint8_t *data, size_t n_bytes)
{
	struct pair_tls *const t = ctx;

	if (t->refuse)
		return -EACCES;
	for (size_t i = 0; i < n_bytes; i++)
		if (data[i] != (uint8_t)(t->in_bytes + i))
			return -EBADMSG;
	t->in_bytes += n_bytes;
	const int flights_in = (int)(t->in_bytes / t->flight_bytes);
	if (!t->is_server && t->flights_out == 0) {
		t->flights_out++;
		t->out_bytes += t->flight_bytes;
	}
	if (t->is_server && flights_in == 1 && t->flights_out == 0) {
		t->flights_out++;
		t->out_bytes += t->flight_bytes;
	}
	if (!t->is_server && flights_in == 1 && t->flights_out == 1) {
		t->flights_out++;
		t->out_bytes += t->flight_bytes;
		t->done = true;
	}
	if (t->is_server && flights_in == 2)
		t->done = true;
	return 0;
}

static size_t null_handshake_output(void *ctx, uint8_t *out, size_t out_bytes)
{
	struct pair_tls *const t = ctx;
	const size_t n = min_size(t->out_bytes, out_bytes);
	const size_t start = (size_t)t->flights_out * t->flight_bytes - t->out_bytes;

	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(start + i);
	t->out_bytes -= n;
	return n;
}

static bool null_handshake_done(void *ctx)
{
	return ((struct pair_tls *)ctx)->done;
}

struct ptcp_crypto pair_null_cipher(struct pair_tls *tls)
{
	return (struct ptcp_crypto){
		.ctx = tls,
		.handshake_input = null_handshake_input,
		.handshake_output = null_handshake_output,
		.handshake_done = null_handshake_done,
		.seal = null_seal,
		.open = null_open,
		.next_phase = null_next_phase,
	};
}

/* ---- the network
 * --------------------------------------------------------------------------------------- */

uint64_t pair_random(struct pair *p)
{
	uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static bool chance(struct pair *p, unsigned permille)
{
	return permille > 0 && pair_random(p) % 1000 < permille;
}

void pair_init(struct pair *p, uint64_t seed, const struct ptcp_config *config)
{
	memset(p, 0, sizeof(*p));
	p->random = seed;
	p->now_us = 1000000;
	for (int i = 0; i < 2; i++) {
		struct ptcp_config c = config ? *config : (struct ptcp_config){ 0 };
		struct pair_end *const e = &p->end[i];

		e->tls =
			(struct pair_tls){ .is_server = i, .flight_bytes = 2000, .phase_ready = 1 };
		if (c.early) { /* the rendezvous has passed on the first flight */
			e->tls.flights_out = 1;
			e->tls.in_bytes = i ? e->tls.flight_bytes : 0;
			e->tls.out_bytes = i ? e->tls.flight_bytes : 0;
		}
		c.role = i == 0 ? PTCP_CLIENT : PTCP_SERVER;
		memset(c.local_cid, 0xa0 + i, sizeof(c.local_cid));
		memset(c.remote_cid, 0xa0 + !i, sizeof(c.remote_cid));
		c.crypto = pair_null_cipher(&e->tls);
		c.random_seed[0] = seed;
		c.random_seed[1] = (uint64_t)i;
		e->a = ptcp_assoc_new(&c, p->now_us);
		assert(e->a);
	}
}

void pair_fini(struct pair *p)
{
	for (int i = 0; i < 2; i++)
		ptcp_assoc_free(p->end[i].a);
	while (p->head) {
		struct pair_datagram *const d = p->head;

		p->head = d->next;
		free(d);
	}
	p->tail = NULL;
}

void pair_link_set(struct pair *p, uint32_t path_id, struct pair_link link)
{
	p->links[0][path_id - 1] = p->links[1][path_id - 1] = link;
}

void pair_path_add(struct pair *p, uint32_t path_id, enum ptcp_path_kind kind, uint16_t mtu_bytes)
{
	for (int i = 0; i < 2; i++)
		assert(ptcp_path_add(p->end[i].a, path_id, kind, mtu_bytes, p->now_us) == 0);
}

static void enqueue(struct pair *p, int from, uint32_t path_id, const uint8_t *data, size_t n_bytes,
		    uint64_t at_us, bool corrupt)
{
	struct pair_datagram *const d = malloc(sizeof(*d) + n_bytes);
	struct pair_datagram **link = &p->head;

	assert(d);
	*d = (struct pair_datagram){ .at_us = at_us, .n_bytes = n_bytes };
	d->path_id = path_id << 1 | (uint32_t)from;
	memcpy(d->data, data, n_bytes);
	if (corrupt)
		d->data[pair_random(p) % n_bytes] ^= (uint8_t)(1 << pair_random(p) % 8);
	if (p->tail && p->tail->at_us <= at_us)
		link = &p->tail->next;
	while (*link && (*link)->at_us <= at_us)
		link = &(*link)->next;
	d->next = *link;
	*link = d;
	if (!d->next)
		p->tail = d;
}

static void transmit(struct pair *p, int from, uint32_t path_id, const uint8_t *data,
		     size_t n_bytes)
{
	struct pair_link *const l = &p->links[from][path_id - 1];
	uint64_t start_us = max_u64(p->now_us, l->busy_until_us), at_us;

	l->n_sent++;
	if (l->cut || chance(p, l->loss_permille) || (l->mtu_bytes > 0 && n_bytes > l->mtu_bytes) ||
	    (l->queue_us > 0 && start_us - p->now_us > l->queue_us)) {
		l->n_dropped++;
		return;
	}
	if (l->bytes_per_s > 0) {
		start_us += n_bytes * US_PER_S / l->bytes_per_s;
		l->busy_until_us = start_us;
	}
	at_us = start_us + l->delay_us + (chance(p, l->reorder_permille) ? l->reorder_us : 0);
	if (l->renumber != 0)
		path_id = l->renumber;
	enqueue(p, from, path_id, data, n_bytes, at_us, chance(p, l->corrupt_permille));
	if (chance(p, l->duplicate_permille))
		enqueue(p, from, path_id, data, n_bytes, at_us + 50, false);
}

static void pull_events(struct pair_end *e)
{
	struct ptcp_event event;

	while (ptcp_next_event(e->a, &event)) {
		e->n_established += event.type == PTCP_EVENT_ESTABLISHED;
		e->n_verified += event.type == PTCP_EVENT_VERIFIED;
		e->n_path_up += event.type == PTCP_EVENT_PATH_UP;
		e->n_path_down += event.type == PTCP_EVENT_PATH_DOWN;
		e->n_path_new += event.type == PTCP_EVENT_PATH_NEW;
		e->n_all_down += event.type == PTCP_EVENT_ALL_PATHS_DOWN;
		e->n_switched += event.type == PTCP_EVENT_PATH_SWITCHED;
		e->n_room += event.type == PTCP_EVENT_MESSAGE_ROOM;
		if (event.type == PTCP_EVENT_PONG) {
			e->n_pongs++;
			e->pong_rtt_us = event.pong.rtt_us;
		}
		if (event.type == PTCP_EVENT_CLOSED) {
			e->n_closed++;
			e->close_code = event.closed.code;
			e->closed_by_peer = event.closed.by_peer;
		}
	}
}

static void pull_messages(struct pair_end *e)
{
	const uint8_t *data;
	size_t n_bytes;

	while (ptcp_message_next(e->a, &data, &n_bytes)) {
		e->n_messages++;
		e->message_bytes += n_bytes;
		if (e->on_message)
			e->on_message(e, data, n_bytes);
	}
}

static bool refused(struct pair *p, int i, const struct ptcp_batch *batch)
{
	struct pair_link *const l = &p->links[i][batch->path_id - 1];

	if (!l->refuses || batch->segment_bytes <= l->mtu_bytes)
		return false;
	l->n_refused++;
	ptcp_path_too_big(p->end[i].a, batch->path_id, batch->segment_bytes, p->now_us);
	return true;
}

static void pull_output(struct pair *p, int i)
{
	struct ptcp_batch batch = { .data = p->batch, .size_bytes = sizeof(p->batch) };

	for (int n = 0; ptcp_output(p->end[i].a, &batch, p->now_us); n++) {
		assert(n < 100000 && batch.used_bytes > 0 && batch.segment_bytes > 0);
		p->n_batches++;
		if (refused(p, i, &batch))
			continue;
		for (size_t at = 0; at < batch.used_bytes; at += batch.segment_bytes)
			transmit(p, i, batch.path_id, batch.data + at,
				 min_size(batch.segment_bytes, batch.used_bytes - at));
	}
}

static void deliver_due(struct pair *p)
{
	while (p->head && p->head->at_us <= p->now_us) {
		struct pair_datagram *const d = p->head;
		const int to = !(d->path_id & 1);

		p->head = d->next;
		if (!p->head)
			p->tail = NULL;
		ptcp_input(p->end[to].a, d->path_id >> 1, d->data, d->n_bytes, 0, p->now_us);
		pull_messages(&p->end[to]);
		free(d);
	}
}

void pair_run(struct pair *p, uint64_t for_us, pair_source_fn *source, void *user)
{
	const uint64_t end_us = p->now_us + for_us;
	uint64_t stuck = 0, last_us = 0;

	for (;;) {
		uint64_t next_us = source ? source(p, user) : NEVER_US;

		for (int i = 0; i < 2; i++) {
			if (ptcp_deadline_us(p->end[i].a) <= p->now_us)
				ptcp_tick(p->end[i].a, p->now_us);
			pull_messages(&p->end[i]);
			pull_events(&p->end[i]);
			pull_output(p, i);
			pull_events(&p->end[i]);
			next_us = min_u64(next_us, ptcp_deadline_us(p->end[i].a));
		}
		if (p->head)
			next_us = min_u64(next_us, p->head->at_us);
		if (next_us == NEVER_US || next_us > end_us)
			break;
		/* A core that asks to be called again and again at one time is broken. */
		stuck = next_us <= last_us ? stuck + 1 : 0;
		assert(stuck < 1000);
		last_us = p->now_us = max_u64(p->now_us, next_us);
		deliver_due(p);
	}
	p->now_us = end_us;
}

bool pair_establish(struct pair *p)
{
	for (int i = 0; i < 10000 && !(p->end[0].n_established && p->end[1].n_established); i++)
		pair_run(p, 1000, NULL, NULL);
	return p->end[0].n_established == 1 && p->end[1].n_established == 1;
}
