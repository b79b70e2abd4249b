/* Private keys, and the fingerprints of public ones. */
#include "crypto/private.h"

#include <openssl/core_names.h>
#include <openssl/pem.h>

enum { RSA_MIN_BITS = 2048, RSA_MAX_BITS = 8192 };

const char *crypto_key_kind_name(enum crypto_key_kind kind)
{
	static const char *const names[] = {
		[CRYPTO_KEY_P256] = "ECDSA P-256",
		[CRYPTO_KEY_ED25519] = "Ed25519",
		[CRYPTO_KEY_RSA] = "RSA",
	};

	static_assert(ARRAY_SIZE(names) == CRYPTO_KEY_KIND_COUNT, "a kind without a name");
	return (unsigned)kind < CRYPTO_KEY_KIND_COUNT ? names[kind] : "?";
}

/* P-256 by name. Curves spelt out as parameters are refused: they are a known trap. */
static bool is_p256(EVP_PKEY *pkey)
{
	char text[64];
	size_t n_bytes;

	return EVP_PKEY_get_group_name(pkey, text, sizeof(text), &n_bytes) == 1 &&
	       strcmp(text, SN_X9_62_prime256v1) == 0 &&
	       EVP_PKEY_get_utf8_string_param(pkey, OSSL_PKEY_PARAM_EC_ENCODING, text, sizeof(text),
					      &n_bytes) == 1 &&
	       strcmp(text, OSSL_PKEY_EC_ENCODING_GROUP) == 0;
}

int crypto_pkey_kind(EVP_PKEY *pkey)
{
	int kind = -ENOTSUP;

	if (!pkey)
		return -ENOTSUP;
	if (EVP_PKEY_is_a(pkey, "EC") && is_p256(pkey))
		kind = CRYPTO_KEY_P256;
	if (EVP_PKEY_is_a(pkey, "ED25519"))
		kind = CRYPTO_KEY_ED25519;
	if (EVP_PKEY_is_a(pkey, "RSA") && EVP_PKEY_get_bits(pkey) >= RSA_MIN_BITS &&
	    EVP_PKEY_get_bits(pkey) <= RSA_MAX_BITS)
		kind = CRYPTO_KEY_RSA;
	ERR_clear_error();
	return kind;
}

const EVP_MD *crypto_pkey_digest(enum crypto_key_kind kind)
{
	return kind == CRYPTO_KEY_ED25519 ? NULL : EVP_sha256();
}

int crypto_pkey_spki_hash(EVP_PKEY *pkey, uint8_t out[static CRYPTO_HASH_BYTES])
{
	unsigned char *der = NULL;
	const int n_bytes = i2d_PUBKEY(pkey, &der);
	int r;

	if (n_bytes <= 0)
		return crypto_fault(-EIO);
	r = crypto_sha256(der, (size_t)n_bytes, out);
	OPENSSL_free(der);
	return r;
}

/* Takes over pkey. */
static int key_from_pkey(EVP_PKEY *owned, struct crypto_key **ret)
{
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *pkey = owned;
	struct crypto_key *key;
	const int kind = crypto_pkey_kind(pkey);
	int r;

	if (kind < 0)
		return kind;
	key = calloc(1, sizeof(*key));
	if (!key)
		return -ENOMEM;
	key->kind = (enum crypto_key_kind)kind;
	r = crypto_pkey_spki_hash(pkey, key->spki_hash);
	if (r < 0) {
		free(key);
		return r;
	}
	key->pkey = TAKE_PTR(pkey);
	*ret = key;
	return 0;
}

int crypto_key_generate(enum crypto_key_kind kind, struct crypto_key **ret_key)
{
	EVP_PKEY *pkey = NULL;

	switch (kind) {
	case CRYPTO_KEY_P256:
		pkey = EVP_EC_gen("P-256");
		break;
	case CRYPTO_KEY_ED25519:
		pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
		break;
	case CRYPTO_KEY_RSA:
		pkey = EVP_RSA_gen(RSA_MIN_BITS);
		break;
	case CRYPTO_KEY_KIND_COUNT:
		return -EINVAL;
	}
	if (!pkey)
		return crypto_fault(-EIO);
	return key_from_pkey(pkey, ret_key);
}

void crypto_key_free(struct crypto_key *key)
{
	if (!key)
		return;
	EVP_PKEY_free(key->pkey); /* wipes the private part */
	secret_wipe(key, sizeof(*key));
	free(key);
}

enum crypto_key_kind crypto_key_kind(const struct crypto_key *key)
{
	return key->kind;
}

void crypto_key_spki_hash(const struct crypto_key *key, uint8_t out[static CRYPTO_HASH_BYTES])
{
	memcpy(out, key->spki_hash, CRYPTO_HASH_BYTES);
}

/* Without this OpenSSL would ask for the password on the terminal. */
static int refuse_password(char *out, int out_bytes, int writing, void *user)
{
	(void)out;
	(void)out_bytes;
	(void)writing;
	*(bool *)user = true;
	return -1;
}

/* Does the public part belong to the private one? A mixed-up file is better found here. */
static bool is_a_pair(EVP_PKEY *pkey)
{
	_cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx =
		EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);

	return ctx && EVP_PKEY_pairwise_check(ctx) == 1;
}

int crypto_key_from_pem(const void *pem, size_t pem_bytes, struct crypto_key **ret_key)
{
	_cleanup_(BIO_free_allp) BIO *bio = NULL;
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *pkey = NULL;
	bool encrypted = false;
	int r;

	if (pem_bytes == 0 || pem_bytes > CRYPTO_PEM_MAX_BYTES)
		return -EBADMSG;
	bio = BIO_new_mem_buf(pem, (int)pem_bytes);
	if (!bio)
		return crypto_fault(-ENOMEM);
	pkey = PEM_read_bio_PrivateKey(bio, NULL, refuse_password, &encrypted);
	if (!pkey)
		return crypto_fault(encrypted ? -ENOTSUP : -EBADMSG);
	r = crypto_pkey_kind(pkey);
	if (r < 0)
		return r;
	if (!is_a_pair(pkey))
		return crypto_fault(-EBADMSG);
	ERR_clear_error();
	return key_from_pkey(TAKE_PTR(pkey), ret_key);
}

int crypto_key_to_pem(const struct crypto_key *key, struct buffer *out)
{
	_cleanup_(BIO_free_allp) BIO *bio = BIO_new(BIO_s_secmem()); /* wiped when freed */
	char *data = NULL;
	long n_bytes;

	assert(out->secret);
	if (!bio)
		return crypto_fault(-ENOMEM);
	if (PEM_write_bio_PKCS8PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL) != 1)
		return crypto_fault(-EIO);
	n_bytes = BIO_get_mem_data(bio, &data);
	return buffer_append(out, data, (size_t)n_bytes);
}

const char *crypto_fingerprint(const uint8_t spki_hash[static CRYPTO_HASH_BYTES],
			       char out[static CRYPTO_FINGERPRINT_BYTES])
{
	char text[48];

	crypto_base64_encode(spki_hash, CRYPTO_HASH_BYTES, text);
	memcpy(out, "SHA256:", 7);
	memcpy(out + 7, text, CRYPTO_FINGERPRINT_BYTES - 7);
	return out;
}

int crypto_fingerprint_parse(const char *text, uint8_t ret_spki_hash[static CRYPTO_HASH_BYTES])
{
	uint8_t hash[CRYPTO_HASH_BYTES];

	if (strlen(text) != CRYPTO_FINGERPRINT_BYTES - 1 || strncmp(text, "SHA256:", 7) != 0)
		return -EINVAL;
	if (crypto_base64_decode(text + 7, CRYPTO_FINGERPRINT_BYTES - 8, hash, sizeof(hash)) !=
	    CRYPTO_HASH_BYTES)
		return -EINVAL;
	memcpy(ret_spki_hash, hash, sizeof(hash));
	return 0;
}
