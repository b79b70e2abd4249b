/*
 * AEAD by OpenSSL's EVP: works everywhere. The calls cost more than the cipher
 * does for small packets.
 */
#include "crypto/aead_backend.h"

static int openssl_init(enum crypto_aead_kind kind, const uint8_t *key, void **ret_state)
{
	static const char *const names[] = {
		[CRYPTO_AEAD_AES_256_GCM] = "AES-256-GCM",
		[CRYPTO_AEAD_CHACHA20_POLY1305] = "ChaCha20-Poly1305",
	};
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, names[kind], NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	const bool done = cipher && ctx && EVP_EncryptInit_ex2(ctx, cipher, key, NULL, NULL) == 1;

	EVP_CIPHER_free(cipher); /* the context keeps it */
	if (!done) {
		EVP_CIPHER_CTX_free(ctx);
		return crypto_fault(-EIO);
	}
	*ret_state = ctx;
	return 0;
}

static void openssl_fini(enum crypto_aead_kind kind, void *state)
{
	(void)kind;
	EVP_CIPHER_CTX_free(state); /* wipes the key schedule */
}

static int openssl_seal(enum crypto_aead_kind kind, void *state, const uint8_t *nonce,
			const void *aad, size_t aad_bytes, const uint8_t *in, size_t n_bytes,
			uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = state;
	int n;

	(void)kind;
	if (EVP_EncryptInit_ex2(ctx, NULL, NULL, nonce, NULL) != 1 ||
	    (aad_bytes > 0 && EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_bytes) != 1) ||
	    (n_bytes > 0 && EVP_EncryptUpdate(ctx, out, &n, in, (int)n_bytes) != 1) ||
	    EVP_EncryptFinal_ex(ctx, out + n_bytes, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, CRYPTO_AEAD_TAG_BYTES, out + n_bytes) !=
		    1)
		return crypto_fault(-EIO);
	return 0;
}

static int openssl_open(enum crypto_aead_kind kind, void *state, const uint8_t *nonce,
			const void *aad, size_t aad_bytes, const uint8_t *in, size_t n_bytes,
			uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = state;
	uint8_t tag[CRYPTO_AEAD_TAG_BYTES], rest[16];
	int n;

	(void)kind;
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

const struct aead_backend aead_openssl = {
	.name = "openssl",
	.init = openssl_init,
	.fini = openssl_fini,
	.seal = openssl_seal,
	.open = openssl_open,
};
