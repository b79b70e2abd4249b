/*
 * Sealing of packets. A key is expanded once, when the object is made; each
 * packet then only sets its nonce. Who computes is chosen when the first
 * object is made, or by crypto_aead_use(): Intel's IPsec-MB where the build
 * and the CPU have it and it gives the right answers, else OpenSSL.
 */
#include "crypto/aead_backend.h"

#include <pthread.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum { DATA_MAX_BYTES = 1 << 24 };

struct crypto_aead {
	const struct aead_backend *backend;
	void *state;
	enum crypto_aead_kind kind;
	uint8_t iv[CRYPTO_AEAD_NONCE_BYTES];
};

/* ---- who computes -------------------------------------------------------------- */

static pthread_once_t ipsec_mb_once = PTHREAD_ONCE_INIT;
static int ipsec_mb_fault; /* 0: started, and its answers were right */
static enum crypto_aead_backend wanted = CRYPTO_AEAD_BACKEND_AUTO;

enum {
	TEST_BYTES = 4 * 1024, /* long enough for every loop of vectorised code */
	TEST_AAD_BYTES = 21,
};

/* IPsec-MB seals one packet as OpenSSL does, opens it again, and refuses a forged one. */
static bool agrees(enum crypto_aead_kind kind, void *openssl, void *mb, size_t n_bytes)
{
	static const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES] = { 1, 2, 3, 5, 8, 13, 21, 34, 55 };
	uint8_t plain[TEST_BYTES], sealed[TEST_BYTES + CRYPTO_AEAD_TAG_BYTES],
		same[TEST_BYTES + CRYPTO_AEAD_TAG_BYTES] = { 0 };

	for (size_t i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)(i * 7 + i / 256);
	if (aead_openssl.seal(kind, openssl, nonce, plain, TEST_AAD_BYTES, plain, n_bytes,
			      sealed) ||
	    aead_ipsec_mb.seal(kind, mb, nonce, plain, TEST_AAD_BYTES, plain, n_bytes, same) ||
	    memcmp(sealed, same, n_bytes + CRYPTO_AEAD_TAG_BYTES) != 0 ||
	    aead_ipsec_mb.open(kind, mb, nonce, plain, TEST_AAD_BYTES, same, n_bytes, same) ||
	    memcmp(plain, same, n_bytes) != 0)
		return false;
	sealed[n_bytes / 2] ^= 1;
	return aead_ipsec_mb.open(kind, mb, nonce, plain, TEST_AAD_BYTES, sealed, n_bytes,
				  sealed) == -EBADMSG;
}

static bool test_kind(enum crypto_aead_kind kind)
{
	static const size_t sizes[] = { 0, 1, 16, 20, 63, 128, 300, 777, 1384, TEST_BYTES - 3 };
	const uint8_t key[CRYPTO_AEAD_KEY_BYTES] = "for a test and for nothing else";
	void *openssl = NULL, *mb = NULL;
	bool good = !aead_openssl.init(kind, key, &openssl) && !aead_ipsec_mb.init(kind, key, &mb);

	for (size_t i = 0; good && i < ARRAY_SIZE(sizes); i++)
		good = agrees(kind, openssl, mb, sizes[i]);
	aead_openssl.fini(kind, openssl);
	if (mb)
		aead_ipsec_mb.fini(kind, mb);
	return good;
}

static void start_ipsec_mb(void)
{
	int r = aead_ipsec_mb_start();

	for (int kind = 0; !r && kind < CRYPTO_AEAD_KIND_COUNT; kind++)
		if (!test_kind((enum crypto_aead_kind)kind))
			r = -EIO;
	ipsec_mb_fault = r;
}

static const struct aead_backend *choose_backend(void)
{
	if (wanted == CRYPTO_AEAD_BACKEND_OPENSSL)
		return &aead_openssl;
	pthread_once(&ipsec_mb_once, start_ipsec_mb);
	return ipsec_mb_fault ? &aead_openssl : &aead_ipsec_mb;
}

int crypto_aead_use(enum crypto_aead_backend backend)
{
	wanted = backend;
	choose_backend();
	if (backend == CRYPTO_AEAD_BACKEND_OPENSSL)
		return 0;
	/* Not having it is no fault, unless it was asked for. */
	return backend == CRYPTO_AEAD_BACKEND_AUTO && ipsec_mb_fault == -ENOTSUP ? 0
										 : ipsec_mb_fault;
}

const char *crypto_aead_backend_name(void)
{
	return choose_backend()->name;
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
	aead->backend = choose_backend();
	if (iv)
		memcpy(aead->iv, iv, sizeof(aead->iv));
	r = aead->backend->init(kind, key, &aead->state);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(aead);
	return 0;
}

void crypto_aead_free(struct crypto_aead *aead)
{
	if (!aead)
		return;
	aead->backend->fini(aead->kind, aead->state);
	secret_wipe(aead, sizeof(*aead));
	free(aead);
}

int crypto_aead_seal(struct crypto_aead *aead, const uint8_t nonce[static CRYPTO_AEAD_NONCE_BYTES],
		     const void *aad, size_t aad_bytes, const void *in, size_t n_bytes, void *out)
{
	if (n_bytes > DATA_MAX_BYTES || aad_bytes > DATA_MAX_BYTES)
		return -EINVAL;
	return aead->backend->seal(aead->kind, aead->state, nonce, aad, aad_bytes, in, n_bytes,
				   out);
}

int crypto_aead_open(struct crypto_aead *aead, const uint8_t nonce[static CRYPTO_AEAD_NONCE_BYTES],
		     const void *aad, size_t aad_bytes, const void *in, size_t n_bytes, void *out)
{
	if (n_bytes < CRYPTO_AEAD_TAG_BYTES)
		return -EBADMSG;
	if (n_bytes > DATA_MAX_BYTES || aad_bytes > DATA_MAX_BYTES)
		return -EINVAL;
	return aead->backend->open(aead->kind, aead->state, nonce, aad, aad_bytes, in,
				   n_bytes - CRYPTO_AEAD_TAG_BYTES, out);
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
