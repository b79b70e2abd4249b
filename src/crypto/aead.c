/*
 * Sealing of packets. A key is expanded once, when the object is made; each
 * packet then only sets its nonce. Who computes is chosen behind struct
 * backend, so that a faster library can take the place of OpenSSL's EVP,
 * whose calls cost more than the cipher does for small packets.
 */
#include "crypto/private.h"

#include <limits.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum { DATA_MAX_BYTES = 1 << 24 };

struct backend {
	const char *name;
	int (*init)(struct crypto_aead *aead, const uint8_t *key);
	void (*fini)(struct crypto_aead *aead);
	/* The tag goes to, or comes from, the end of out or in. */
	int (*seal)(struct crypto_aead *aead, const uint8_t *nonce, const void *aad,
		    size_t aad_bytes, const uint8_t *in, size_t n_bytes, uint8_t *out);
	int (*open)(struct crypto_aead *aead, const uint8_t *nonce, const void *aad,
		    size_t aad_bytes, const uint8_t *in, size_t n_bytes, uint8_t *out);
};

struct crypto_aead {
	const struct backend *backend;
	enum crypto_aead_kind kind;
	uint8_t iv[CRYPTO_AEAD_NONCE_BYTES];
	EVP_CIPHER_CTX *ctx;
};

/* ---- OpenSSL ------------------------------------------------------------------- */

static int openssl_init(struct crypto_aead *aead, const uint8_t *key)
{
	static const char *const names[] = {
		[CRYPTO_AEAD_AES_256_GCM] = "AES-256-GCM",
		[CRYPTO_AEAD_CHACHA20_POLY1305] = "ChaCha20-Poly1305",
	};
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, names[aead->kind], NULL);
	bool done;

	aead->ctx = EVP_CIPHER_CTX_new();
	done = cipher && aead->ctx &&
	       EVP_EncryptInit_ex2(aead->ctx, cipher, key, aead->iv, NULL) == 1;
	EVP_CIPHER_free(cipher); /* the context keeps it */
	return done ? 0 : crypto_fault(-EIO);
}

static void openssl_fini(struct crypto_aead *aead)
{
	EVP_CIPHER_CTX_free(aead->ctx); /* wipes the key schedule */
}

static int openssl_seal(struct crypto_aead *aead, const uint8_t *nonce, const void *aad,
			size_t aad_bytes, const uint8_t *in, size_t n_bytes, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = aead->ctx;
	int n;

	if (EVP_EncryptInit_ex2(ctx, NULL, NULL, nonce, NULL) != 1 ||
	    (aad_bytes > 0 && EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_bytes) != 1) ||
	    (n_bytes > 0 && EVP_EncryptUpdate(ctx, out, &n, in, (int)n_bytes) != 1) ||
	    EVP_EncryptFinal_ex(ctx, out + n_bytes, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, CRYPTO_AEAD_TAG_BYTES, out + n_bytes) !=
		    1)
		return crypto_fault(-EIO);
	return 0;
}

static int openssl_open(struct crypto_aead *aead, const uint8_t *nonce, const void *aad,
			size_t aad_bytes, const uint8_t *in, size_t n_bytes, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = aead->ctx;
	uint8_t tag[CRYPTO_AEAD_TAG_BYTES], rest[16];
	int n;

	memcpy(tag, in + n_bytes, sizeof(tag));
	if (EVP_DecryptInit_ex2(ctx, NULL, NULL, nonce, NULL) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, sizeof(tag), tag) != 1 ||
	    (aad_bytes > 0 && EVP_DecryptUpdate(ctx, NULL, &n, aad, (int)aad_bytes) != 1) ||
	    (n_bytes > 0 && EVP_DecryptUpdate(ctx, out, &n, in, (int)n_bytes) != 1))
		return crypto_fault(-EIO);
	if (EVP_DecryptFinal_ex(ctx, rest, &n) != 1) {
		secret_wipe(out, n_bytes);
		return crypto_fault(-EBADMSG);
	}
	return 0;
}

static const struct backend openssl_backend = {
	.name = "openssl",
	.init = openssl_init,
	.fini = openssl_fini,
	.seal = openssl_seal,
	.open = openssl_open,
};

/* ---- the interface --------------------------------------------------------------- */

static const struct backend *choose_backend(enum crypto_aead_kind kind)
{
	(void)kind;
	return &openssl_backend;
}

const char *crypto_aead_backend_name(void)
{
	return choose_backend(CRYPTO_AEAD_AES_256_GCM)->name;
}

const char *crypto_aead_kind_name(enum crypto_aead_kind kind)
{
	static const char *const names[] = {
		[CRYPTO_AEAD_AES_256_GCM] = "aes-256-gcm",
		[CRYPTO_AEAD_CHACHA20_POLY1305] = "chacha20-poly1305",
	};

	static_assert(ARRAY_SIZE(names) == CRYPTO_AEAD_KIND_COUNT, "a kind without a name");
	return (unsigned)kind < CRYPTO_AEAD_KIND_COUNT ? names[kind] : "?";
}

bool crypto_aead_aes_is_fast(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	return (getauxval(AT_HWCAP) & HWCAP_AES) && (getauxval(AT_HWCAP) & HWCAP_PMULL);
#else
	return false;
#endif
}

int crypto_aead_new(enum crypto_aead_kind kind, const uint8_t key[static CRYPTO_AEAD_KEY_BYTES],
		    const uint8_t *iv, struct crypto_aead **ret)
{
	_cleanup_(crypto_aead_freep) struct crypto_aead *aead = NULL;
	int r;

	if ((unsigned)kind >= CRYPTO_AEAD_KIND_COUNT)
		return -EINVAL;
	aead = calloc(1, sizeof(*aead));
	if (!aead)
		return -ENOMEM;
	aead->kind = kind;
	aead->backend = choose_backend(kind);
	if (iv)
		memcpy(aead->iv, iv, sizeof(aead->iv));
	r = aead->backend->init(aead, key);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(aead);
	return 0;
}

void crypto_aead_free(struct crypto_aead *aead)
{
	if (!aead)
		return;
	aead->backend->fini(aead);
	secret_wipe(aead, sizeof(*aead));
	free(aead);
}

int crypto_aead_seal(struct crypto_aead *aead, const uint8_t nonce[static CRYPTO_AEAD_NONCE_BYTES],
		     const void *aad, size_t aad_bytes, const void *in, size_t n_bytes, void *out)
{
	if (n_bytes > DATA_MAX_BYTES || aad_bytes > DATA_MAX_BYTES)
		return -EINVAL;
	return aead->backend->seal(aead, nonce, aad, aad_bytes, in, n_bytes, out);
}

int crypto_aead_open(struct crypto_aead *aead, const uint8_t nonce[static CRYPTO_AEAD_NONCE_BYTES],
		     const void *aad, size_t aad_bytes, const void *in, size_t n_bytes, void *out)
{
	if (n_bytes < CRYPTO_AEAD_TAG_BYTES)
		return -EBADMSG;
	if (n_bytes > DATA_MAX_BYTES || aad_bytes > DATA_MAX_BYTES)
		return -EINVAL;
	return aead->backend->open(aead, nonce, aad, aad_bytes, in, n_bytes - CRYPTO_AEAD_TAG_BYTES,
				   out);
}

/* The packet number, in network order, over the last eight bytes of the iv. */
static void nonce_of(const struct crypto_aead *aead, uint64_t packet_number,
		     uint8_t nonce[static CRYPTO_AEAD_NONCE_BYTES])
{
	memcpy(nonce, aead->iv, CRYPTO_AEAD_NONCE_BYTES);
	for (size_t i = 0; i < 8; i++)
		nonce[CRYPTO_AEAD_NONCE_BYTES - 1 - i] ^= (uint8_t)(packet_number >> (8 * i));
}

int crypto_aead_seal_packet(struct crypto_aead *aead, uint64_t packet_number, const void *aad,
			    size_t aad_bytes, void *data, size_t n_bytes)
{
	uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];

	nonce_of(aead, packet_number, nonce);
	return crypto_aead_seal(aead, nonce, aad, aad_bytes, data, n_bytes, data);
}

int crypto_aead_open_packet(struct crypto_aead *aead, uint64_t packet_number, const void *aad,
			    size_t aad_bytes, void *data, size_t n_bytes)
{
	uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];

	nonce_of(aead, packet_number, nonce);
	return crypto_aead_open(aead, nonce, aad, aad_bytes, data, n_bytes, data);
}
