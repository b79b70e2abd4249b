/* Links, time, tunnels, figures. */
#include "rig.h"

#include <stdio.h>

#define OUTER_BYTES  28 /* IP and UDP around a datagram */
#define GREEDY_BYTES 1430
#define QUEUE_MIN    65536
#define SAMPLES_MAX  200000
#define PATH_ID      1
#define TLS_BYTES    200

struct packet {
	uint64_t at_us, order;
	int8_t tunnel; /* RIG_RAW: a segment */
	uint8_t to, ecn;
	struct rig_segment segment;
	size_t n_bytes;
	uint8_t data[];
};

struct link {
	struct rig_link_config config;
	uint64_t busy_until_ns; /* finer than the clock, or fast links would round their rate */
	uint64_t bytes, wire_packets, lost, overflowed, marked;
	bool in_burst;
};

struct end {
	struct ptcp_assoc *a;
	int tunnel, index;
	unsigned tls_sent, tls_got;
	uint64_t sent_bytes, message_bytes;
	uint64_t ms, ms_bytes;
};

struct rig {
	struct rig_config config;
	uint64_t now_us, start_us, random, order;
	struct link link[2];
	struct packet **heap;
	size_t n_heap, heap_size;
	struct end ends[RIG_TUNNELS_MAX][2];
	struct rig_tcp *flows[RIG_FLOWS_MAX];
	unsigned n_flows;
	uint16_t *samples;
	size_t n_samples;
	uint64_t sample_us;
	uint64_t through[RIG_TUNNELS_MAX + 1]; /* bytes over the forward link */
	struct rig_result result;
};

static uint64_t random64(struct rig *r)
{
	uint64_t z = r->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* ---- packets under way --------------------------------------------------------------------------
 */

static bool before(const struct packet *a, const struct packet *b)
{
	return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

static void push(struct rig *r, struct packet *p)
{
	size_t at = r->n_heap++;

	if (at == r->heap_size) {
		r->heap_size = at ? 2 * at : 1024;
		r->heap = realloc(r->heap, r->heap_size * sizeof(struct packet *));
		assert(r->heap);
	}
	for (; at > 0 && before(p, r->heap[(at - 1) / 2]); at = (at - 1) / 2)
		r->heap[at] = r->heap[(at - 1) / 2];
	r->heap[at] = p;
}

static struct packet *pop(struct rig *r)
{
	struct packet *const first = r->heap[0], *const last = r->heap[--r->n_heap];
	size_t at = 0, child;

	while ((child = 2 * at + 1) < r->n_heap) {
		if (child + 1 < r->n_heap && before(r->heap[child + 1], r->heap[child]))
			child++;
		if (!before(r->heap[child], last))
			break;
		r->heap[at] = r->heap[child];
		at = child;
	}
	r->heap[at] = last;
	return first;
}

static bool is_lost(struct rig *r, struct link *l)
{
	const unsigned burst = l->config.burst_packets;

	if (burst > 1) { /* Gilbert's model: the bad state loses everything */
		const uint64_t enter_ppm = l->config.loss_ppm / burst;

		l->in_burst =
			l->in_burst ? random64(r) % burst != 0 : random64(r) % 1000000 < enter_ppm;
		return l->in_burst;
	}
	return random64(r) % 1000000 < l->config.loss_ppm;
}

static void transmit(struct rig *r, unsigned direction, const struct packet *head,
		     const uint8_t *data, size_t n_bytes, size_t wire_bytes)
{
	struct link *const l = &r->link[direction];
	const struct rig_link_config *const c = &l->config;
	const uint64_t now_ns = r->now_us * 1000;
	uint64_t start_ns = max_u64(l->busy_until_ns, now_ns);
	const uint64_t wait_us = (start_ns - now_ns) / 1000;

	l->wire_packets++;
	if (wait_us > c->queue_us) {
		l->overflowed++;
		return;
	}
	l->busy_until_ns = start_ns + wire_bytes * UINT64_C(1000000000) / c->bytes_per_s;
	l->bytes += wire_bytes;
	if (direction == 0)
		r->through[head->tunnel == RIG_RAW ? RIG_TUNNELS_MAX : head->tunnel] += wire_bytes;
	/* What is lost has used the link. */
	if (is_lost(r, l) || (c->eats_ect && head->ecn != 0)) {
		l->lost++;
		return;
	}
	struct packet *const p = malloc(sizeof(*p) + n_bytes);
	assert(p);
	*p = *head;
	p->to = !direction;
	p->order = r->order++;
	p->at_us = l->busy_until_ns / 1000 + c->delay_us +
		   (c->jitter_us ? random64(r) % (c->jitter_us + 1) : 0);
	if (c->bleaches)
		p->ecn = 0;
	if (p->ecn == 2 && (c->marks_all || (c->mark_us > 0 && wait_us > c->mark_us))) {
		p->ecn = 3;
		l->marked++;
	}
	p->n_bytes = n_bytes;
	if (n_bytes > 0)
		memcpy(p->data, data, n_bytes);
	push(r, p);
}

/* ---- tunnels
 * --------------------------------------------------------------------------------------- */

static int tls_input(void *ctx, const uint8_t *data, size_t n_bytes)
{
	(void)data;
	((struct end *)ctx)->tls_got += (unsigned)n_bytes;
	return 0;
}

/* Three flights, as of TLS 1.3 with both certificates: client, server, client. */
static size_t tls_output(void *ctx, uint8_t *out, size_t out_bytes)
{
	struct end *const e = ctx;
	const unsigned n_may = e->tls_got == 0 ? (e->index == 0) : e->index == 0 ? 2 : 1;
	const size_t n = min_size(out_bytes, n_may * TLS_BYTES - e->tls_sent);

	memset(out, 0, n);
	e->tls_sent += (unsigned)n;
	return n;
}

static bool tls_done(void *ctx)
{
	const struct end *const e = ctx;

	return e->tls_sent + e->tls_got == 3 * TLS_BYTES;
}

static int seal(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn, const uint8_t *aad,
		size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	(void)ctx, (void)epoch, (void)phase, (void)pn, (void)aad, (void)aad_bytes;
	memset(data + data_bytes, 0, PTCP_TAG_BYTES);
	return 0;
}

static int open_(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn, const uint8_t *aad,
		 size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	(void)ctx, (void)epoch, (void)phase, (void)pn, (void)aad, (void)aad_bytes, (void)data;
	return data_bytes < PTCP_TAG_BYTES ? -EBADMSG : 0;
}

static int next_phase(void *ctx, uint32_t phase)
{
	(void)ctx, (void)phase;
	return 0;
}

static void tunnel_start(struct rig *r, int tunnel)
{
	for (int i = 0; i < 2; i++) {
		struct end *const e = &r->ends[tunnel][i];
		struct ptcp_config config = {
			.role = i == 0 ? PTCP_CLIENT : PTCP_SERVER,
			.random_seed = { random64(r), random64(r) },
			.ecn = true,
			.parity = r->config.parity,
			.congestion_control = r->config.cc[tunnel],
			.crypto = { .ctx = e,
				    .handshake_input = tls_input,
				    .handshake_output = tls_output,
				    .handshake_done = tls_done,
				    .seal = seal,
				    .open = open_,
				    .next_phase = next_phase },
		};
		memset(config.local_cid, 16 * tunnel + i + 1, PTCP_CID_BYTES);
		memset(config.remote_cid, 16 * tunnel + !i + 1, PTCP_CID_BYTES);
		e->tunnel = tunnel;
		e->index = i;
		e->a = ptcp_assoc_new(&config, r->now_us);
		assert(e->a);
		ptcp_path_add(e->a, PATH_ID, PTCP_PATH_DIRECT, 1472, r->now_us);
	}
}

static bool greedy_now(const struct rig *r)
{
	const uint64_t t = r->now_us - r->start_us;

	return r->config.greedy && (t < r->config.pause_from_us || t >= r->config.pause_to_us);
}

static void feed(struct rig *r, struct end *e)
{
	static const uint8_t zeroes[GREEDY_BYTES];
	const struct ptcp_part part = { zeroes, GREEDY_BYTES };
	const struct ptcp_message_info info = { .flow = 1, .ordered = true };
	struct ptcp_stats s;

	if (e->index != 0 || !greedy_now(r))
		return;
	ptcp_get_stats(e->a, &s);
	const size_t most = max_u64(QUEUE_MIN, r->config.link[0].bytes_per_s / 200);
	for (size_t n = s.send_queue_bytes; n < most; n += GREEDY_BYTES)
		if (ptcp_message_send(e->a, &info, &part, 1, r->now_us) != 0)
			return;
}

static void count_sent(struct rig *r, struct end *e, size_t n_bytes)
{
	e->sent_bytes += n_bytes;
	if (e->index != 0 || e->tunnel != 0)
		return;
	if (r->now_us / 1000 != e->ms) {
		e->ms = r->now_us / 1000;
		e->ms_bytes = 0;
	}
	e->ms_bytes += n_bytes;
	r->result.burst_max_bytes = max_u64(r->result.burst_max_bytes, e->ms_bytes);
	const uint64_t t = r->now_us - r->start_us;
	if (r->config.pause_to_us > 0 && t >= r->config.pause_to_us &&
	    t < r->config.pause_to_us + 10000)
		r->result.first_ms_bytes += n_bytes;
}

static void take_messages(struct rig *r, struct end *e)
{
	const uint8_t *data;
	size_t n_bytes;

	while (ptcp_message_next(e->a, &data, &n_bytes)) {
		struct rig_segment s;

		e->message_bytes += n_bytes;
		if (r->config.greedy || n_bytes < sizeof(s))
			continue;
		memcpy(&s, data, sizeof(s));
		rig_tcp_input(r->flows[s.flow], r, &s, r->now_us);
	}
}

static void pump(struct rig *r, struct end *e)
{
	static uint8_t room[PTCP_BATCH_BYTES_MAX];
	struct ptcp_batch batch;
	struct ptcp_event event;

	if (ptcp_deadline_us(e->a) <= r->now_us)
		ptcp_tick(e->a, r->now_us);
	take_messages(r, e);
	while (ptcp_next_event(e->a, &event)) {
	}
	feed(r, e);
	for (;;) {
		batch = (struct ptcp_batch){ .data = room, .size_bytes = sizeof(room) };
		if (!ptcp_output(e->a, &batch, r->now_us))
			break;
		count_sent(r, e, batch.used_bytes);
		for (size_t at = 0, n; at < batch.used_bytes; at += n) {
			const struct packet head = { .tunnel = (int8_t)e->tunnel,
						     .ecn = batch.ecn };

			n = min_size(batch.segment_bytes, batch.used_bytes - at);
			transmit(r, (unsigned)e->index, &head, room + at, n, n + OUTER_BYTES);
		}
		feed(r, e);
	}
}

/* ---- flows
 * ------------------------------------------------------------------------------------------- */

void rig_carry(struct rig *r, const struct rig_segment *s)
{
	static uint8_t data[RIG_SEGMENT_BYTES];
	const bool inner = s->flow < r->config.n_inner;
	const size_t n_bytes = s->is_ack ? RIG_ACK_BYTES : RIG_SEGMENT_BYTES;
	const struct packet head = { .tunnel = RIG_RAW, .segment = *s };
	const struct ptcp_message_info info = { .flow = 1 + s->flow, .ordered = !s->is_ack };
	const struct ptcp_part part = { data, n_bytes };

	if (!inner) {
		transmit(r, s->is_ack, &head, NULL, 0, n_bytes);
		return;
	}
	memcpy(data, s, sizeof(*s));
	/* A full queue drops, as a TUN's does. */
	ptcp_message_send(r->ends[0][s->is_ack].a, &info, &part, 1, r->now_us);
}

static bool flow_started(const struct rig *r, unsigned i)
{
	if (i < r->config.n_inner)
		return ptcp_assoc_state(r->ends[0][0].a) == PTCP_ESTABLISHED &&
		       ptcp_assoc_state(r->ends[0][1].a) == PTCP_ESTABLISHED;
	return r->now_us - r->start_us >= r->config.outer_start_us;
}

/* ---- time
 * ---------------------------------------------------------------------------------------------- */

static void deliver(struct rig *r)
{
	while (r->n_heap > 0 && r->heap[0]->at_us <= r->now_us) {
		struct packet *const p = pop(r);

		if (p->tunnel == RIG_RAW)
			rig_tcp_input(r->flows[p->segment.flow], r, &p->segment, r->now_us);
		else
			ptcp_input(r->ends[p->tunnel][p->to].a, PATH_ID, p->data, p->n_bytes,
				   p->ecn, r->now_us);
		free(p);
	}
}

static void sample(struct rig *r)
{
	const uint64_t busy_us = r->link[0].busy_until_ns / 1000;

	for (; r->sample_us <= r->now_us; r->sample_us += US_PER_MS)
		if (r->sample_us >= r->start_us + r->config.warm_us && r->n_samples < SAMPLES_MAX)
			r->samples[r->n_samples++] = (uint16_t)min_u64(
				busy_us > r->sample_us ? (busy_us - r->sample_us) / 100 : 0, 65535);
}

static uint64_t next_us(const struct rig *r)
{
	uint64_t t = r->n_heap > 0 ? r->heap[0]->at_us : NEVER_US;

	for (unsigned i = 0; i < r->config.n_tunnels; i++)
		for (unsigned k = 0; k < 2; k++)
			t = min_u64(t, r->ends[i][k].a
					       ? ptcp_deadline_us(r->ends[i][k].a)
					       : r->start_us + r->config.tunnel_start_us[i]);
	for (unsigned i = 0; i < r->n_flows; i++)
		t = min_u64(t, rig_tcp_deadline_us(r->flows[i]));
	if (r->config.greedy && r->now_us < r->start_us + r->config.pause_to_us)
		t = min_u64(t, r->start_us + r->config.pause_to_us);
	return max_u64(t, r->now_us);
}

static void say(const struct rig *r)
{
	char text[200] = "";
	struct ptcp_path_stats p = { 0 };

	if (r->config.n_tunnels > 0 && r->ends[0][0].a)
		ptcp_get_path_stats(r->ends[0][0].a, 0, &p);
	if (r->config.n_tunnels > 1 && r->ends[1][0].a) {
		struct ptcp_path_stats q = { 0 };

		ptcp_get_path_stats(r->ends[1][0].a, 0, &q);
		snprintf(text, sizeof(text), "second: %-10s bw %6.1f pace %6.1f rtt %5.1f/%5.1f",
			 q.cc_mode ? q.cc_mode : "", (double)q.bandwidth_bytes_per_s / MBIT,
			 (double)q.pacing_bytes_per_s / MBIT, (double)q.latest_rtt_us / 1000,
			 (double)q.min_rtt_us / 1000);
	}
	if (r->n_flows > 0)
		rig_tcp_describe(r->flows[r->n_flows - 1], text, sizeof(text));
	fprintf(stderr,
		"# %7.2f q %5.1f ms | %-10s bw %6.1f pace %6.1f Mbit/s cwnd %4zu fl %4zu kB rtt "
		"%5.1f/%5.1f lost %llu | %s\n",
		(double)(r->now_us - r->start_us) / 1e6,
		(double)(r->link[0].busy_until_ns -
			 min_u64(r->now_us * 1000, r->link[0].busy_until_ns)) /
			1e6,
		p.cc_mode ? p.cc_mode : "", (double)p.bandwidth_bytes_per_s / MBIT,
		(double)p.pacing_bytes_per_s / MBIT, (size_t)p.cwnd_bytes / 1000,
		(size_t)p.in_flight_bytes / 1000, (double)p.latest_rtt_us / 1000,
		(double)p.min_rtt_us / 1000, (unsigned long long)p.packets_lost, text);
}

static void change(struct rig *r)
{
	if (r->config.change_bytes_per_s > 0)
		r->link[0].config.bytes_per_s = r->config.change_bytes_per_s;
	if (r->config.change_delay_us > 0)
		r->link[0].config.delay_us = r->config.change_delay_us;
}

static void run_until(struct rig *r, uint64_t end_us)
{
	unsigned n_same = 0;
	uint64_t said_us = r->now_us;

	for (;;) {
		const uint64_t t = next_us(r);

		if (t >= end_us)
			break;
		n_same = t == r->now_us ? n_same + 1 : 0;
		assert(n_same < 10000);
		r->now_us = t;
		sample(r);
		if (r->config.change_us > 0 && t - r->start_us >= r->config.change_us)
			change(r);
		for (unsigned i = 0; i < r->config.n_tunnels; i++)
			if (!r->ends[i][0].a && t >= r->start_us + r->config.tunnel_start_us[i])
				tunnel_start(r, (int)i);
		deliver(r);
		for (unsigned i = 0; i < r->n_flows; i++)
			if (flow_started(r, i))
				rig_tcp_run(r->flows[i], r, r->now_us);
		for (unsigned i = 0; i < r->config.n_tunnels; i++)
			for (unsigned k = 0; k < 2; k++)
				if (r->ends[i][k].a)
					pump(r, &r->ends[i][k]);
		if (r->config.verbose && t >= said_us + 20000) {
			said_us = t;
			say(r);
		}
	}
	r->now_us = end_us;
}

/* ---- figures
 * --------------------------------------------------------------------------------------------- */

struct counts {
	uint64_t link_bytes, wire, lost, overflowed, through[RIG_TUNNELS_MAX + 1];
	uint64_t message_bytes, flow[RIG_FLOWS_MAX];
};

static struct counts count(const struct rig *r)
{
	struct counts c = {
		.link_bytes = r->link[0].bytes,
		.wire = r->link[0].wire_packets,
		.lost = r->link[0].lost,
		.overflowed = r->link[0].overflowed,
	};

	memcpy(c.through, r->through, sizeof(c.through));
	for (unsigned i = 0; i < r->config.n_tunnels; i++)
		c.message_bytes += r->ends[i][1].message_bytes;
	for (unsigned i = 0; i < r->n_flows; i++)
		c.flow[i] = rig_tcp_received(r->flows[i]);
	return c;
}

static int compare_u16(const void *a, const void *b)
{
	return *(const uint16_t *)a - *(const uint16_t *)b;
}

static void conclude(struct rig *r, const struct counts *from)
{
	const struct counts to = count(r);
	struct rig_result *const x = &r->result;
	const double seconds = (double)r->config.measure_us / 1e6;
	const double bytes = (double)(to.link_bytes - from->link_bytes);
	const uint64_t rate = r->link[0].config.bytes_per_s;
	double sum = 0, squares = 0;

	x->utilisation = bytes / seconds / (double)rate;
	for (unsigned i = 0; i <= RIG_TUNNELS_MAX; i++)
		x->share[i] = (double)(to.through[i] - from->through[i]) / bytes;
	x->goodput_mbit_s = (double)(to.message_bytes - from->message_bytes) / seconds / MBIT;
	for (unsigned i = 0; i < r->config.n_inner; i++) {
		const double n = (double)(to.flow[i] - from->flow[i]);

		sum += n;
		squares += n * n;
	}
	if (r->config.n_inner > 0) {
		x->jain = sum * sum / (r->config.n_inner * squares);
		x->goodput_mbit_s = sum * 1448 / seconds / MBIT;
	}
	qsort(r->samples, r->n_samples, sizeof(*r->samples), compare_u16);
	x->queue_median_ms = r->samples[r->n_samples / 2] / 10.0;
	x->queue_p95_ms = r->samples[r->n_samples * 95 / 100] / 10.0;
	x->loss_percent = 100.0 * (double)(to.lost - from->lost) / (double)(to.wire - from->wire);
	x->overflow_percent =
		100.0 * (double)(to.overflowed - from->overflowed) / (double)(to.wire - from->wire);
	x->marked = r->link[0].marked;
	if (r->config.n_tunnels > 0) {
		ptcp_get_stats(r->ends[0][0].a, &x->stats);
		ptcp_get_path_stats(r->ends[0][0].a, 0, &x->path);
	}
}

struct rig_result rig_run(const struct rig_config *config)
{
	struct rig *const r = calloc(1, sizeof(*r));

	assert(r);
	r->config = *config;
	r->random = config->seed;
	r->now_us = r->start_us = r->sample_us = US_PER_S;
	r->samples = calloc(SAMPLES_MAX, sizeof(*r->samples));
	assert(r->samples);
	for (unsigned i = 0; i < 2; i++)
		r->link[i].config = config->link[i];
	for (unsigned i = 0; i < config->n_tunnels; i++)
		if (config->tunnel_start_us[i] == 0)
			tunnel_start(r, (int)i);
	r->n_flows = config->n_inner + config->n_outer;
	for (unsigned i = 0; i < r->n_flows; i++)
		r->flows[i] = rig_tcp_new(i);

	run_until(r, r->start_us + config->warm_us);
	const struct counts from = count(r);
	run_until(r, r->start_us + config->warm_us + config->measure_us);
	conclude(r, &from);

	const struct rig_result result = r->result;
	for (unsigned i = 0; i < config->n_tunnels; i++)
		for (unsigned k = 0; k < 2; k++)
			ptcp_assoc_free(r->ends[i][k].a);
	for (unsigned i = 0; i < r->n_flows; i++)
		rig_tcp_free(r->flows[i]);
	while (r->n_heap > 0)
		free(pop(r));
	free(r->heap);
	free(r->samples);
	free(r);
	return result;
}
