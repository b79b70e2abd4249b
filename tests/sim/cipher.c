/*
 * A cipher that hides nothing but shows every change: the tag is a sum over
 * key, epoch, phase, number, header and data. It also holds the core to what it
 * promises its keys: no number is sealed twice, no phase is skipped or used
 * before it is ready or after it was wiped.
 */
#include "sim.h"

struct tag {
	uint64_t low, high;
};

static struct tag sum(uint64_t key, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn,
		      const uint8_t *aad, size_t aad_bytes, const uint8_t *data, size_t data_bytes)
{
	uint64_t a = key ^ (uint64_t)epoch << 40 ^ phase, b = pn + UINT64_C(0x632be59bd9b4e019),
		 word;
	const uint8_t *parts[] = { aad, data };
	const size_t sizes[] = { aad_bytes, data_bytes };

	for (unsigned i = 0; i < 2; i++) {
		for (size_t at = 0; at < sizes[i]; at += 8) {
			word = 0;
			memcpy(&word, parts[i] + at, min_size(8, sizes[i] - at));
			a = (a ^ word) * UINT64_C(0x9e3779b97f4a7c15);
			b = ((b + word) << 27 | (b + word) >> 37) * UINT64_C(0x94d049bb133111eb);
		}
		a ^= sizes[i] + (a >> 32);
	}
	return (struct tag){ (a ^ a >> 29) * UINT64_C(0xbf58476d1ce4e5b9), b ^ a };
}

/* Each direction has its own key. */
static uint64_t key_of(const struct sim_tls *t, bool from_server)
{
	return t->key * 2 + from_server;
}

/* An early server has all keys as soon as its flight is made. */
static bool may_seal(const struct sim_tls *t)
{
	return t->done || (t->end->config.early && t->is_server && t->out_bytes > 0);
}

static int seal(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn, const uint8_t *aad,
		size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	struct sim_tls *const t = ctx;
	const struct tag tag =
		sum(key_of(t, t->is_server), epoch, phase, pn, aad, aad_bytes, data, data_bytes);

	if (t->sealed_any[epoch] && pn <= t->sealed_pn[epoch])
		sim_fail(t->end->world, "number %llu sealed twice", (unsigned long long)pn);
	if (epoch == PTCP_EPOCH_DATA &&
	    (!may_seal(t) || phase > t->phase_ready || phase + 2 < t->phase_ready))
		sim_fail(t->end->world, "sealed in phase %u, ready is %u", phase, t->phase_ready);
	t->sealed_any[epoch] = true;
	t->sealed_pn[epoch] = pn;
	memcpy(data + data_bytes, &tag, PTCP_TAG_BYTES);
	return 0;
}

static int open_(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn, const uint8_t *aad,
		 size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	struct sim_tls *const t = ctx;

	if (data_bytes < PTCP_TAG_BYTES) {
		sim_fail(t->end->world, "opening %zu bytes", data_bytes);
		return -EBADMSG;
	}
	if (epoch == PTCP_EPOCH_DATA &&
	    (!t->done || phase > t->phase_ready || phase + 2 < t->phase_ready))
		sim_fail(t->end->world, "opened in phase %u, ready is %u", phase, t->phase_ready);
	const size_t n = data_bytes - PTCP_TAG_BYTES;
	const struct tag tag =
		sum(key_of(t, !t->is_server), epoch, phase, pn, aad, aad_bytes, data, n);
	if (memcmp(data + n, &tag, PTCP_TAG_BYTES) != 0) {
		t->n_forged++;
		memset(data, 0xaa, n); /* as a real one does, it leaves nothing of use */
		return -EBADMSG;
	}
	t->n_opened++;
	return 0;
}

static int next_phase(void *ctx, uint32_t phase)
{
	struct sim_tls *const t = ctx;

	if (phase != t->phase_ready + 1)
		sim_fail(t->end->world, "phase %u made ready after %u", phase, t->phase_ready);
	t->phase_ready = phase;
	return 0;
}

/* ---- a handshake of three flights
 * ---------------------------------------------------------------- */

static size_t bytes_due(const struct sim_tls *t)
{
	return t->is_server ? t->flight_bytes[0] + t->flight_bytes[2] : t->flight_bytes[1];
}

static int handshake_input(void *ctx, const uint8_t *data, size_t n_bytes)
{
	struct sim_tls *const t = ctx;

	if (n_bytes > bytes_due(t) - t->in_bytes ||
	    !sim_text_equal(key_of(t, !t->is_server), t->in_bytes, data, n_bytes)) {
		sim_fail(t->end->world, "handshake bytes at %zu are wrong", t->in_bytes);
		return -EBADMSG;
	}
	t->in_bytes += n_bytes;
	if (t->refuses && t->in_bytes > 0)
		return -EACCES;
	if (t->is_server) {
		if (t->in_bytes >= t->flight_bytes[0])
			t->out_limit = t->flight_bytes[1];
		t->done = t->in_bytes == bytes_due(t);
		return 0;
	}
	t->out_limit = t->flight_bytes[0];
	if (t->in_bytes == bytes_due(t)) {
		t->out_limit += t->flight_bytes[2];
		t->done = true;
	}
	return 0;
}

static size_t handshake_output(void *ctx, uint8_t *out, size_t out_bytes)
{
	struct sim_tls *const t = ctx;
	const size_t n = min_size(t->out_limit - t->out_bytes, out_bytes);

	sim_text(key_of(t, t->is_server), t->out_bytes, out, n);
	t->out_bytes += n;
	return n;
}

static bool handshake_done(void *ctx)
{
	return ((struct sim_tls *)ctx)->done;
}

void sim_tls_begin_early(struct sim_tls *t)
{
	if (t->is_server) {
		t->in_bytes = t->flight_bytes[0];
		t->out_limit = t->flight_bytes[1];
	} else {
		t->out_bytes = t->out_limit = t->flight_bytes[0];
	}
}

struct ptcp_crypto sim_crypto(struct sim_tls *tls)
{
	return (struct ptcp_crypto){
		.ctx = tls,
		.handshake_input = handshake_input,
		.handshake_output = handshake_output,
		.handshake_done = handshake_done,
		.seal = seal,
		.open = open_,
		.next_phase = next_phase,
	};
}
