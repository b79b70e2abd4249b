/*
 * The keys of one association. See keys.h for the picture.
 */
#include "session/keys.h"

#include <stdio.h>

#define SECRET_BYTES CRYPTO_HASH_BYTES
#define KEYIV_BYTES  (CRYPTO_AEAD_KEY_BYTES + CRYPTO_AEAD_NONCE_BYTES)
#define N_PHASES     3 /* previous, current, next */

enum direction { CLIENT_TO_SERVER, SERVER_TO_CLIENT, N_DIRECTIONS };

struct keys {
	enum ptcp_role role;
	struct crypto_tls *tls; /* NULL once the handshake is over */
	char described[128];    /* then: how it went */
	enum crypto_aead_kind aead;
	struct crypto_aead *handshake[N_DIRECTIONS];
	struct crypto_aead *data[N_DIRECTIONS][N_PHASES]; /* at phase % N_PHASES */
	uint8_t secret[N_DIRECTIONS][SECRET_BYTES];       /* of the newest phase */
	uint8_t tag[KEYS_TAG_BYTES];
	uint32_t newest_phase;
	bool ready; /* the keys are there */
	bool done;  /* and TLS is complete: the peer has proved who it is */
	bool failed;
};

/* ---- derivation ---- */

/* label || requester || 0 || listener */
static size_t rendezvous_info(const char *label, const struct keys_rendezvous *r, uint8_t *out,
			      size_t out_bytes)
{
	struct writer w = writer_over(out, out_bytes);

	writer_bytes(&w, label, strlen(label));
	writer_bytes(&w, r->requester, strlen(r->requester) + 1);
	writer_bytes(&w, r->listener, strlen(r->listener));
	assert(!w.failed);
	return w.used_bytes;
}

static int rendezvous_derive(const char *label, const struct keys_rendezvous *r, void *out,
			     size_t out_bytes)
{
	uint8_t ikm[2 * KEYS_SHARE_BYTES], info[64 + 2 * 320];
	const size_t info_bytes = rendezvous_info(label, r, info, sizeof(info));
	int result;

	memcpy(ikm, r->share_listener, KEYS_SHARE_BYTES);
	memcpy(ikm + KEYS_SHARE_BYTES, r->share_requester, KEYS_SHARE_BYTES);
	result = crypto_hkdf(r->id, strlen(r->id), ikm, sizeof(ikm), info, info_bytes, out,
			     out_bytes);
	secret_wipe(ikm, sizeof(ikm));
	return result;
}

int keys_probe(const struct keys_rendezvous *rendezvous, uint8_t out[static KEYS_PROBE_BYTES])
{
	return rendezvous_derive("q2q-tun probe v1", rendezvous, out, KEYS_PROBE_BYTES);
}

int keys_stream(const struct keys_rendezvous *rendezvous, uint8_t out[static KEYS_STREAM_BYTES])
{
	return rendezvous_derive("q2q-tun stream v1", rendezvous, out, KEYS_STREAM_BYTES);
}

static int aead_from(enum crypto_aead_kind kind, const uint8_t keyiv[static KEYIV_BYTES],
		     struct crypto_aead **ret_aead)
{
	return crypto_aead_new(kind, keyiv, keyiv + CRYPTO_AEAD_KEY_BYTES, ret_aead);
}

/* Where the roles are others the keys are others: no number is used twice under one. */
static int derive_handshake(struct keys *k, const struct keys_config *config)
{
	const bool early = config->begun || config->hello_bytes > 0;
	uint8_t both[N_DIRECTIONS * KEYIV_BYTES];
	int r = rendezvous_derive(early ? "q2q-tun ptcp early handshake v1"
					: "q2q-tun ptcp handshake v1",
				  config->rendezvous, both, sizeof(both));

	for (unsigned d = 0; !r && d < N_DIRECTIONS; d++)
		r = aead_from(CRYPTO_AEAD_AES_256_GCM, both + d * KEYIV_BYTES, &k->handshake[d]);
	secret_wipe(both, sizeof(both));
	return r;
}

static int expand(const uint8_t secret[static SECRET_BYTES], const char *label, void *out,
		  size_t out_bytes)
{
	return crypto_hkdf_expand(secret, label, strlen(label), out, out_bytes);
}

/* Keys of `phase` from the secrets as they are; whatever used that slot is wiped. */
static int install_phase(struct keys *k, uint32_t phase)
{
	uint8_t keyiv[KEYIV_BYTES];
	int r = 0;

	for (unsigned d = 0; !r && d < N_DIRECTIONS; d++) {
		struct crypto_aead **slot = &k->data[d][phase % N_PHASES];

		crypto_aead_free(*slot);
		*slot = NULL;
		r = expand(k->secret[d], "q2q-tun ptcp data v1", keyiv, sizeof(keyiv));
		if (!r)
			r = aead_from(k->aead, keyiv, slot);
	}
	secret_wipe(keyiv, sizeof(keyiv));
	if (!r)
		k->newest_phase = phase;
	return r;
}

static int advance_secrets(struct keys *k)
{
	uint8_t next[SECRET_BYTES];
	int r = 0;

	for (unsigned d = 0; !r && d < N_DIRECTIONS; d++) {
		r = expand(k->secret[d], "q2q-tun ptcp update v1", next, sizeof(next));
		if (!r)
			memcpy(k->secret[d], next, sizeof(next));
	}
	secret_wipe(next, sizeof(next));
	return r;
}

/* TLS is done: take the secrets of both directions, and make phases 0 and 1. */
static int derive_data(struct keys *k)
{
	uint8_t exported[N_DIRECTIONS * SECRET_BYTES];
	int r = crypto_tls_export(k->tls, "EXPORTER-q2q-tun-ptcp", NULL, 0, exported,
				  sizeof(exported));

	if (!r)
		r = crypto_tls_export(k->tls, "EXPORTER-q2q-tun-association", NULL, 0, k->tag,
				      sizeof(k->tag));
	/* TLS chose what suits both CPUs. */
	k->aead = strstr(crypto_tls_cipher(k->tls), "CHACHA20") ? CRYPTO_AEAD_CHACHA20_POLY1305
								: CRYPTO_AEAD_AES_256_GCM;
	for (unsigned d = 0; !r && d < N_DIRECTIONS; d++)
		memcpy(k->secret[d], exported + d * SECRET_BYTES, SECRET_BYTES);
	secret_wipe(exported, sizeof(exported));
	if (!r)
		r = install_phase(k, 0);
	if (!r)
		r = advance_secrets(k);
	if (!r)
		r = install_phase(k, 1);
	k->ready = !r;
	return r;
}

/* ---- what ptcp calls ---- */

static int handshake_input(void *ctx, const uint8_t *data, size_t n_bytes)
{
	struct keys *k = ctx;
	uint8_t unused[256];
	size_t n_read;
	int r = n_bytes ? crypto_tls_input(k->tls, data, n_bytes) : 0;

	/* No data travels in this TLS; reading is how a late alert shows. */
	while (!r && crypto_tls_handshake(k->tls) == CRYPTO_TLS_DONE) {
		r = crypto_tls_read(k->tls, unused, sizeof(unused), &n_read);
		if (!r)
			r = -EPROTO;
	}
	if (r < 0 || crypto_tls_handshake(k->tls) == CRYPTO_TLS_FAILED) {
		k->failed = true;
		return r < 0 ? r : -EPROTO;
	}
	if (k->done || crypto_tls_handshake(k->tls) != CRYPTO_TLS_DONE)
		return 0;
	r = k->ready ? 0 : derive_data(k);
	k->done = !r;
	return r;
}

static size_t handshake_output(void *ctx, uint8_t *out, size_t out_bytes)
{
	struct keys *k = ctx;

	return crypto_tls_output(k->tls, out, out_bytes);
}

static bool handshake_done(void *ctx)
{
	const struct keys *k = ctx;

	return k->done && !k->failed;
}

static void describe(const struct keys *k, char *out, size_t out_bytes)
{
	snprintf(out, out_bytes, "%s %s %s", crypto_tls_version(k->tls), crypto_tls_cipher(k->tls),
		 crypto_tls_group(k->tls));
}

/* TLS has served: it holds some 30 KiB for each peer. */
static void handshake_over(void *ctx)
{
	struct keys *k = ctx;

	describe(k, k->described, sizeof(k->described));
	crypto_tls_free(k->tls);
	k->tls = NULL;
}

static struct crypto_aead *aead_find(const struct keys *k, enum ptcp_epoch epoch, uint32_t phase,
				     bool sending)
{
	const bool from_client = (k->role == PTCP_CLIENT) == sending;
	const enum direction d = from_client ? CLIENT_TO_SERVER : SERVER_TO_CLIENT;

	if (epoch == PTCP_EPOCH_HANDSHAKE)
		return k->handshake[d];
	/* Nothing is believed of a peer that has not proved itself. */
	if (!sending && !k->done)
		return NULL;
	if (!k->ready || phase > k->newest_phase || k->newest_phase - phase >= N_PHASES)
		return NULL;
	return k->data[d][phase % N_PHASES];
}

static int seal(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn, const uint8_t *aad,
		size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	struct crypto_aead *aead = aead_find(ctx, epoch, phase, true);

	if (!aead)
		return -EINVAL;
	return crypto_aead_seal_packet(aead, pn, aad, aad_bytes, data, data_bytes);
}

static int open_packet(void *ctx, enum ptcp_epoch epoch, uint32_t phase, uint64_t pn,
		       const uint8_t *aad, size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	struct crypto_aead *aead = aead_find(ctx, epoch, phase, false);

	if (!aead)
		return -EBADMSG;
	return crypto_aead_open_packet(aead, pn, aad, aad_bytes, data, data_bytes) ? -EBADMSG : 0;
}

static int next_phase(void *ctx, uint32_t phase)
{
	struct keys *k = ctx;
	int r;

	if (!k->ready || phase != k->newest_phase + 1)
		return -EINVAL;
	r = advance_secrets(k);
	return r ? r : install_phase(k, phase);
}

struct ptcp_crypto keys_ptcp(struct keys *keys)
{
	return (struct ptcp_crypto){
		.ctx = keys,
		.handshake_input = handshake_input,
		.handshake_output = handshake_output,
		.handshake_done = handshake_done,
		.handshake_over = handshake_over,
		.seal = seal,
		.open = open_packet,
		.next_phase = next_phase,
	};
}

/* ---- life ---- */

static int new_tls(const struct keys_config *config, struct crypto_tls **ret_tls)
{
	const struct crypto_tls_policy policy = {
		.role = config->role == PTCP_CLIENT ? CRYPTO_TLS_CLIENT : CRYPTO_TLS_SERVER,
		.peer = CRYPTO_TLS_PEER_REQUIRE,
		.verify = config->verify,
		.user = config->user,
	};

	return crypto_tls_new(config->tls, &policy, ret_tls);
}

int keys_hello(const struct keys_config *config, uint8_t *out, size_t out_bytes, size_t *ret_bytes,
	       struct crypto_tls **ret_begun)
{
	int r = new_tls(config, ret_begun);

	if (r)
		return r;
	*ret_bytes = crypto_tls_output(*ret_begun, out, out_bytes);
	if (*ret_bytes > 0 && crypto_tls_output_waiting(*ret_begun) == 0)
		return 0;
	crypto_tls_free(*ret_begun);
	*ret_begun = NULL;
	return -EMSGSIZE;
}

/* The server's whole flight must be the answer: then the keys rest on this hello. */
static int take_hello(struct keys *k, const uint8_t *hello, size_t n_bytes)
{
	if (crypto_tls_input(k->tls, hello, n_bytes) || !crypto_tls_flight_done(k->tls))
		return -EPROTO;
	return derive_data(k);
}

int keys_new(const struct keys_config *config, struct keys **ret_keys)
{
	struct keys *k = calloc(1, sizeof(*k));
	int r;

	if (!k) {
		crypto_tls_free(config->begun);
		return -ENOMEM;
	}
	k->role = config->role;
	k->tls = config->begun;
	r = derive_handshake(k, config);
	if (!r && !k->tls)
		r = new_tls(config, &k->tls);
	if (!r && config->hello_bytes > 0)
		r = take_hello(k, config->hello, config->hello_bytes);
	if (r) {
		keys_free(k);
		return r;
	}
	*ret_keys = k;
	return 0;
}

void keys_free(struct keys *keys)
{
	if (!keys)
		return;
	for (unsigned d = 0; d < N_DIRECTIONS; d++) {
		crypto_aead_free(keys->handshake[d]);
		for (unsigned i = 0; i < N_PHASES; i++)
			crypto_aead_free(keys->data[d][i]);
	}
	crypto_tls_free(keys->tls);
	secret_wipe(keys, sizeof(*keys));
	free(keys);
}

bool keys_tag(const struct keys *keys, uint8_t out[static KEYS_TAG_BYTES])
{
	if (!keys->done)
		return false;
	memcpy(out, keys->tag, KEYS_TAG_BYTES);
	return true;
}

const char *keys_error(const struct keys *keys)
{
	return keys->tls ? crypto_tls_error(keys->tls) : "";
}

int keys_verify_reason(const struct keys *keys)
{
	return keys->tls ? crypto_tls_verify_reason(keys->tls) : 0;
}

bool keys_peer_rejected_us(const struct keys *keys)
{
	return keys->tls && crypto_tls_peer_rejected_us(keys->tls);
}

void keys_describe(const struct keys *keys, char *out, size_t out_bytes)
{
	*out = '\0';
	if (!keys->tls)
		snprintf(out, out_bytes, "%s", keys->described);
	else if (keys->ready)
		describe(keys, out, out_bytes);
}
