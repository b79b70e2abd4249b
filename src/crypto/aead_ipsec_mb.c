/*
 * AEAD by Intel's IPsec-MB, which picks code for the CPU when it starts (SSE,
 * AVX, AVX-512 with VAES) and costs about a tenth of OpenSSL 3.0 per packet.
 *
 * Only its direct calls are used: they work on the key and context they are
 * given and keep nothing in the library's manager. So the manager is asked
 * once for the functions that suit this CPU, and freed again.
 *
 * The library decrypts without looking at the tag. It computes one; comparing,
 * and wiping what was decrypted from a forgery, is done here.
 */
#include "config.h"

#include "crypto/aead_backend.h"

#ifdef HAVE_IPSEC_MB

#include <intel-ipsec-mb.h>

#define KEY_ALIGNMENT 64 /* as the library wants struct gcm_key_data */

struct mb_state {
	union {
		struct gcm_key_data aes;
		uint8_t chacha[CRYPTO_AEAD_KEY_BYTES];
	} key;
	union { /* of the packet at hand; holds secrets too */
		struct gcm_context_data aes;
		struct chacha20_poly1305_context_data chacha;
	} ctx;
};

/* Written once by aead_ipsec_mb_start(). */
static struct {
	aes_gcm_pre_t gcm_pre;
	aes_gcm_enc_dec_t gcm_seal, gcm_open;
	chacha_poly_init_t chacha_init;
	chacha_poly_enc_dec_update_t chacha_seal, chacha_open;
	chacha_poly_finalize_t chacha_finalize;
} mb;

int aead_ipsec_mb_start(void)
{
	const uint64_t wanted = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_SSE4_2;
	IMB_MGR *manager = alloc_mb_mgr(0);
	IMB_ARCH arch = IMB_ARCH_NONE;
	int r = 0;

	if (!manager)
		return -ENOMEM;
	/* Without AES instructions the library would work too, by tables that leak the key. */
	if ((manager->features & wanted) != wanted)
		r = -ENOTSUP;
	if (!r) {
		init_mb_mgr_auto(manager, &arch);
		if (imb_get_errno(manager) != 0 || arch == IMB_ARCH_NONE ||
		    arch == IMB_ARCH_NOAESNI)
			r = -ENOTSUP;
	}
	if (!r) {
		mb.gcm_pre = manager->gcm256_pre;
		mb.gcm_seal = manager->gcm256_enc;
		mb.gcm_open = manager->gcm256_dec;
		mb.chacha_init = manager->chacha20_poly1305_init;
		mb.chacha_seal = manager->chacha20_poly1305_enc_update;
		mb.chacha_open = manager->chacha20_poly1305_dec_update;
		mb.chacha_finalize = manager->chacha20_poly1305_finalize;
	}
	free_mb_mgr(manager);
	return r;
}

static int mb_init(enum crypto_aead_kind kind, const uint8_t *key, void **ret_state)
{
	const size_t bytes =
		(sizeof(struct mb_state) + KEY_ALIGNMENT - 1) & ~(size_t)(KEY_ALIGNMENT - 1);
	struct mb_state *s = aligned_alloc(KEY_ALIGNMENT, bytes);

	if (!s)
		return -ENOMEM;
	memset(s, 0, sizeof(*s));
	if (kind == CRYPTO_AEAD_AES_256_GCM)
		mb.gcm_pre(key, &s->key.aes);
	else
		memcpy(s->key.chacha, key, CRYPTO_AEAD_KEY_BYTES);
	*ret_state = s;
	return 0;
}

static void mb_fini(enum crypto_aead_kind kind, void *state)
{
	(void)kind;
	secret_wipe(state, sizeof(struct mb_state));
	free(state);
}

/* The library refuses NULL, even for no bytes at all, and says nothing. */
static const void *not_null(const void *data)
{
	return data ? data : "";
}

static int mb_seal(enum crypto_aead_kind kind, void *state, const uint8_t *nonce, const void *aad,
		   size_t aad_bytes, const uint8_t *in, size_t n_bytes, uint8_t *out)
{
	struct mb_state *s = state;

	if (kind == CRYPTO_AEAD_AES_256_GCM) {
		mb.gcm_seal(&s->key.aes, &s->ctx.aes, out, not_null(in), n_bytes, nonce,
			    not_null(aad), aad_bytes, out + n_bytes, CRYPTO_AEAD_TAG_BYTES);
	} else {
		mb.chacha_init(s->key.chacha, &s->ctx.chacha, nonce, not_null(aad), aad_bytes);
		mb.chacha_seal(s->key.chacha, &s->ctx.chacha, out, not_null(in), n_bytes);
		mb.chacha_finalize(&s->ctx.chacha, out + n_bytes, CRYPTO_AEAD_TAG_BYTES);
	}
	return 0;
}

static int mb_open(enum crypto_aead_kind kind, void *state, const uint8_t *nonce, const void *aad,
		   size_t aad_bytes, const uint8_t *in, size_t n_bytes, uint8_t *out)
{
	struct mb_state *s = state;
	uint8_t tag[CRYPTO_AEAD_TAG_BYTES], computed[CRYPTO_AEAD_TAG_BYTES];
	bool genuine;

	/* Should the library ever return without computing, nothing passes for genuine. */
	for (size_t i = 0; i < sizeof(tag); i++) {
		tag[i] = in[n_bytes + i];
		computed[i] = (uint8_t)~tag[i];
	}
	if (kind == CRYPTO_AEAD_AES_256_GCM) {
		mb.gcm_open(&s->key.aes, &s->ctx.aes, out, in, n_bytes, nonce, not_null(aad),
			    aad_bytes, computed, sizeof(computed));
	} else {
		mb.chacha_init(s->key.chacha, &s->ctx.chacha, nonce, not_null(aad), aad_bytes);
		mb.chacha_open(s->key.chacha, &s->ctx.chacha, out, in, n_bytes);
		mb.chacha_finalize(&s->ctx.chacha, computed, sizeof(computed));
	}
	genuine = secret_equal(tag, computed, sizeof(tag));
	/* The right tag of a forgery is the forger's wish. */
	secret_wipe(computed, sizeof(computed));
	if (genuine)
		return 0;
	secret_wipe(out, n_bytes);
	return -EBADMSG;
}

const struct aead_backend aead_ipsec_mb = {
	.name = "ipsec-mb",
	.init = mb_init,
	.fini = mb_fini,
	.seal = mb_seal,
	.open = mb_open,
};

#else

int aead_ipsec_mb_start(void)
{
	return -ENOTSUP;
}

const struct aead_backend aead_ipsec_mb = { .name = "ipsec-mb" };

#endif
