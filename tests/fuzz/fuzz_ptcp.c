/*
 * Two established associations, and an input that is a script: datagrams and frames made up by the
 * fuzzer, messages, calls of the application, lost packets, time. The cipher seals nothing and
 * opens everything, so that all behind it is reached.
 */
#include "base/base.h"
#include "ptcp/ptcp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

#define ROUNDS_MAX 200

struct end {
	struct ptcp_assoc *a;
	int is_server;
	size_t to_send, got;
	bool done;
};

struct world {
	struct end end[2];
	uint64_t now_us;
	uint32_t pn[2]; /* for made-up packets */
	uint8_t drop_mask;
	uint64_t n_sent;
	uint8_t batch[PTCP_BATCH_BYTES_MAX];
};

static int tls_input(void *ctx, const uint8_t *data, size_t n_bytes)
{
	struct end *const e = ctx;

	(void)data;
	e->got += n_bytes;
	if (!e->is_server && e->got == 0)
		e->to_send = 20;
	if (!e->is_server && e->got >= 20 && !e->done) {
		e->to_send = 20;
		e->done = true;
	}
	if (e->is_server && e->got >= 20 && e->to_send == 0 && !e->done && e->got < 40)
		e->to_send = 20;
	if (e->is_server && e->got >= 40)
		e->done = true;
	return e->got > 100000 ? -EBADMSG : 0;
}

static size_t tls_output(void *ctx, uint8_t *out, size_t out_bytes)
{
	struct end *const e = ctx;
	const size_t n = min_size(e->to_send, out_bytes);

	memset(out, 7, n);
	e->to_send -= n;
	return n;
}

static bool tls_done(void *ctx)
{
	return ((struct end *)ctx)->done;
}

static int seal(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn, const uint8_t *aad,
		size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	(void)ctx, (void)epoch, (void)phase, (void)pn, (void)aad, (void)aad_bytes;
	memset(data + data_bytes, 0, PTCP_TAG_BYTES);
	return 0;
}

static int unseal(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn, const uint8_t *aad,
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

static void drain(struct world *w, int i)
{
	struct ptcp_event event;
	const uint8_t *data;
	size_t n_bytes;
	uint64_t sum = 0;

	while (ptcp_message_next(w->end[i].a, &data, &n_bytes))
		for (size_t k = 0; k < n_bytes; k++)
			sum += data[k];
	while (ptcp_next_event(w->end[i].a, &event))
		if (event.type == PTCP_EVENT_CONN && event.conn.type == PTCP_CONN_EVENT_INCOMING &&
		    event.conn.id % 3 != 0)
			ptcp_conn_accept(w->end[i].a, event.conn.id, w->now_us);
	if (sum == 1) /* keeps the reads */
		w->n_sent++;
}

static void output(struct world *w, int i)
{
	struct ptcp_batch b = { .data = w->batch, .size_bytes = sizeof(w->batch) };

	for (int n = 0; n < 200 && ptcp_output(w->end[i].a, &b, w->now_us); n++) {
		assert(b.used_bytes > 0 && b.used_bytes <= sizeof(w->batch));
		assert(b.segment_bytes > 0 && b.segment_bytes <= b.used_bytes);
		for (size_t at = 0; at < b.used_bytes; at += b.segment_bytes) {
			uint8_t copy[PTCP_MTU_MAX];
			const size_t size = min_size(b.segment_bytes, b.used_bytes - at);

			if (w->drop_mask >> (w->n_sent++ % 8) & 1)
				continue;
			memcpy(copy, b.data + at, size);
			ptcp_input(w->end[!i].a, b.path_id, copy, size, 0, w->now_us);
		}
	}
}

static void step(struct world *w, uint64_t for_us)
{
	const uint64_t end_us = w->now_us + for_us;

	for (int round = 0; round < ROUNDS_MAX; round++) {
		const uint64_t n_before = w->n_sent;
		uint64_t next_us = NEVER_US;

		for (int i = 0; i < 2; i++) {
			ptcp_tick(w->end[i].a, w->now_us);
			drain(w, i);
			output(w, i);
			next_us = min_u64(next_us, ptcp_deadline_us(w->end[i].a));
		}
		if (w->n_sent > n_before)
			next_us = min_u64(next_us, w->now_us + 100);
		if (next_us >= end_us)
			break;
		w->now_us = max_u64(w->now_us + 100, next_us);
	}
	w->now_us = max_u64(w->now_us, end_us);
}

/* Early: the server has begun, and nothing of it has come through yet. */
static void start(struct world *w, bool early)
{
	w->now_us = 1000000;
	for (int i = 0; i < 2; i++) {
		struct ptcp_config c = { .role = i == 0 ? PTCP_CLIENT : PTCP_SERVER,
					 .early = early,
					 .random_seed = { 1, (uint64_t)i },
					 .receive_memory_bytes = 400000,
					 .send_memory_bytes = 400000,
					 .send_queue_bytes = 100000,
					 .in_flight_packets = 512,
					 .key_update_packets = 50,
					 .parity = ptcp_parity_available() ? PTCP_PARITY_ALWAYS
									   : PTCP_PARITY_OFF,
					 .congestion_control = i ? PTCP_CC_CUBIC : PTCP_CC_BBR };

		w->end[i] = (struct end){ .is_server = i };
		if (early && i == 1)
			w->end[i].got = w->end[i].to_send = 20;
		memset(c.local_cid, 0x10 + i, sizeof(c.local_cid));
		memset(c.remote_cid, 0x10 + !i, sizeof(c.remote_cid));
		c.crypto = (struct ptcp_crypto){ &w->end[i], tls_input, tls_output, tls_done,
						 seal,       unseal,    next_phase };
		w->end[i].a = ptcp_assoc_new(&c, w->now_us);
		assert(w->end[i].a);
		ptcp_path_add(w->end[i].a, 1, PTCP_PATH_DIRECT, 1472, w->now_us);
	}
	w->drop_mask = early ? 0xff : 0;
	step(w, early ? 1 : 10000);
	w->drop_mask = 0;
	assert(early || ptcp_assoc_state(w->end[0].a) == PTCP_ESTABLISHED);
	assert(ptcp_assoc_state(w->end[1].a) == PTCP_ESTABLISHED);
	ptcp_listen(w->end[1].a, 80, NULL, 4, w->now_us);
	w->pn[0] = w->pn[1] = 100000;
}

#define FIRST_LONG   0xc2
#define FIRST_SHORT  0x40
#define FIRST_SOURCE 0x50 /* of a block with parity */

/* Frames of the fuzzer's in a packet that opens. */
static void make_packet(struct world *w, int to, uint8_t first, const uint8_t *frames,
			size_t n_bytes)
{
	const bool is_long = first == FIRST_LONG;
	uint8_t packet[600];
	struct writer p = writer_over(packet, sizeof(packet));

	writer_u8(&p, first);
	for (int i = 0; i < 8; i++)
		writer_u8(&p, (uint8_t)(0x10 + to));
	for (int i = 0; is_long && i < 8; i++)
		writer_u8(&p, (uint8_t)(0x10 + !to));
	writer_u32(&p, w->pn[to]++);
	writer_bytes(&p, frames, min_size(n_bytes, 500));
	for (int i = 0; i < PTCP_TAG_BYTES; i++)
		writer_u8(&p, 0);
	ptcp_input(w->end[to].a, 1 + (uint32_t)(n_bytes % 3), packet, p.used_bytes, 0, w->now_us);
}

static void call_application(struct world *w, int i, uint8_t what, uint8_t arg,
			     const uint8_t *bytes, size_t n_bytes)
{
	struct ptcp_assoc *const a = w->end[i].a;
	size_t done;

	switch (what % 12) {
	case 0:
		ptcp_path_add(a, arg % 20, arg % 2 ? PTCP_PATH_DIRECT : PTCP_PATH_RELAY, 1400,
			      w->now_us);
		break;
	case 1:
		ptcp_path_remove(a, arg % 20, w->now_us);
		break;
	case 2:
		ptcp_path_check(a, arg % 20, w->now_us);
		break;
	case 3:
		ptcp_assoc_update_keys(a);
		break;
	case 4:
		ptcp_ping(a, arg, w->now_us);
		break;
	case 5:
		ptcp_path_too_big(a, 1, 1201 + arg, w->now_us);
		break;
	case 6:
		ptcp_connect(a, 0, 80, "s", w->now_us);
		break;
	case 7:
		ptcp_conn_write(a, arg % 8, bytes, n_bytes, &done, w->now_us);
		break;
	case 8:
		ptcp_conn_close(a, arg % 8, w->now_us);
		break;
	case 9:
		ptcp_set_relay_allowed(a, arg & 1, w->now_us);
		break;
	case 10:
		ptcp_conn_abort(a, arg % 8, w->now_us);
		break;
	default:
		if (arg == 255)
			ptcp_assoc_close(a, 70, w->now_us);
		break;
	}
}

static void run_script(struct world *w, struct reader *r)
{
	for (int n = 0; n < 60 && r->left_bytes >= 3; n++) {
		const uint8_t op = reader_u8(r), arg = reader_u8(r);
		const size_t size = min_size(reader_u8(r), r->left_bytes);
		const uint8_t *bytes = reader_bytes(r, size);
		const int i = op >> 7;

		switch (op % 8) {
		case 0: { /* a datagram as it is */
			uint8_t copy[256];

			memcpy(copy, bytes, size);
			ptcp_input(w->end[i].a, arg, copy, size, arg & 3, w->now_us);
			break;
		}
		case 1:
		case 2:
			make_packet(w, i,
				    op % 8 == 2   ? FIRST_LONG
				    : (op & 0x40) ? FIRST_SOURCE
						  : FIRST_SHORT,
				    bytes, size);
			break;
		case 3: { /* a message: some of the script, repeated */
			const struct ptcp_message_info info = { .flow = arg & 15,
								.ordered = arg & 16,
								.urgent = arg & 32 };
			struct ptcp_part parts[256];

			for (int k = 0; k <= arg; k++)
				parts[k] = (struct ptcp_part){ bytes, size };
			ptcp_message_send(w->end[i].a, &info, parts, (size_t)arg + 1, w->now_us);
			break;
		}
		case 4:
			call_application(w, i, arg, size > 0 ? bytes[0] : 0, bytes, size);
			break;
		case 5:
			w->drop_mask = arg;
			break;
		case 6:
			step(w, arg * UINT64_C(1000));
			break;
		case 7:
			w->now_us += (uint64_t)arg * arg * 10000;
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	static struct world w;
	struct reader r = reader_over(data, data_bytes);

	memset(&w, 0, sizeof(w));
	start(&w, data_bytes > 0 && (data[0] & 0x20) != 0);
	run_script(&w, &r);
	step(&w, 100000);
	w.drop_mask = 0;
	step(&w, 3000000);
	for (int i = 0; i < 2; i++)
		ptcp_assoc_free(w.end[i].a);
	return 0;
}
