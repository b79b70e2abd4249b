/*
 * Sealed messages: a few hundred bytes that pass through servers which must
 * neither read nor change them. Encrypted to the recipient's certificate by an
 * ephemeral key, signed by the sender. doc/sealed.md has the format.
 *
 *   version 1 | ephemeral P-256 point[65] | n u16 | ciphertext and tag[n] | signature to the end
 */
#include "crypto/private.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>

enum {
	VERSION = 1,
	POINT_BYTES = 65, /* uncompressed */
	SHARED_BYTES = 32,
	SIGNATURE_MAX_BYTES = 80, /* ECDSA P-256 in DER: 72; Ed25519: 64 */
	HEAD_BYTES = 1 + POINT_BYTES + 2,
	SIGNED_MAX_BYTES = 32 + 1 + 4 + CRYPTO_SEALED_CONTEXT_MAX_BYTES + 2 * CRYPTO_HASH_BYTES +
			   CRYPTO_SEALED_MAX_BYTES,
};

static const char sign_label[] = "q2q-tun sealed message v1";
static const char key_label[] = "q2q-tun sealed message key v1";
static const uint8_t zero_nonce[CRYPTO_AEAD_NONCE_BYTES];

/* What both ends agree on before the message itself. */
struct envelope {
	const void *context;
	size_t context_bytes;
	const uint8_t *recipient_hash, *sender_hash;
};

/* The public point as 65 bytes, in whatever form the key was written. */
static int point_of(EVP_PKEY *pkey, uint8_t out[static POINT_BYTES])
{
	uint8_t *point = NULL;
	size_t n_bytes;
	int r = -ENOTSUP;

	if (EVP_PKEY_set_utf8_string_param(pkey, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
					   OSSL_PKEY_EC_POINT_CONVERSION_FORMAT_UNCOMPRESSED) != 1)
		return crypto_fault(-EIO);
	n_bytes = EVP_PKEY_get1_encoded_public_key(pkey, &point);
	if (n_bytes == POINT_BYTES) {
		memcpy(out, point, POINT_BYTES);
		r = 0;
	}
	OPENSSL_free(point);
	return r < 0 ? crypto_fault(r) : 0;
}

/* A public key from a point of the wire; OpenSSL checks that it lies on the curve. */
static EVP_PKEY *pkey_of(const uint8_t point[static POINT_BYTES])
{
	_cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx =
		EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	char group[] = SN_X9_62_prime256v1;
	uint8_t copy[POINT_BYTES];
	EVP_PKEY *pkey = NULL;

	memcpy(copy, point, sizeof(copy));
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, copy, sizeof(copy)),
		OSSL_PARAM_construct_end(),
	};

	/* 4: uncompressed. Other forms would give one message several shapes. */
	if (point[0] != 4 || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)(uintptr_t)params) !=
		    1)
		return NULL;
	return pkey;
}

static int agree(EVP_PKEY *own, EVP_PKEY *other, uint8_t shared[static SHARED_BYTES])
{
	_cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx =
		EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
	size_t n_bytes = SHARED_BYTES;

	if (!ctx || EVP_PKEY_derive_init(ctx) != 1 ||
	    EVP_PKEY_derive_set_peer_ex(ctx, other, 1) != 1 ||
	    EVP_PKEY_derive(ctx, shared, &n_bytes) != 1 || n_bytes != SHARED_BYTES)
		return crypto_fault(-EBADMSG);
	return 0;
}

/* The key serves one message, so its nonce can be zero. */
static int aead_of(const struct envelope *e, EVP_PKEY *own, EVP_PKEY *other,
		   const uint8_t point[static POINT_BYTES], struct crypto_aead **ret)
{
	uint8_t shared[SHARED_BYTES], key[CRYPTO_AEAD_KEY_BYTES];
	uint8_t info[sizeof(key_label) + POINT_BYTES + 3 * CRYPTO_HASH_BYTES];
	struct writer w = writer_over(info, sizeof(info));
	uint8_t context_hash[CRYPTO_HASH_BYTES];
	int r = agree(own, other, shared);

	if (r == 0)
		r = crypto_sha256(e->context, e->context_bytes, context_hash);
	if (r < 0)
		return r;
	writer_bytes(&w, key_label, sizeof(key_label)); /* with its NUL */
	writer_bytes(&w, point, POINT_BYTES);
	writer_bytes(&w, e->recipient_hash, CRYPTO_HASH_BYTES);
	writer_bytes(&w, e->sender_hash, CRYPTO_HASH_BYTES);
	writer_bytes(&w, context_hash, sizeof(context_hash));
	assert(!w.failed);
	r = crypto_hkdf(NULL, 0, shared, sizeof(shared), info, w.used_bytes, key, sizeof(key));
	if (r == 0)
		r = crypto_aead_new(CRYPTO_AEAD_AES_256_GCM, key, NULL, ret);
	secret_wipe(shared, sizeof(shared));
	secret_wipe(key, sizeof(key));
	return r;
}

/* Everything that the signature covers, each part with a length that is fixed or told. */
static size_t signed_bytes(const struct envelope *e, const uint8_t *body, size_t body_bytes,
			   uint8_t out[static SIGNED_MAX_BYTES])
{
	struct writer w = writer_over(out, SIGNED_MAX_BYTES);

	writer_bytes(&w, sign_label, sizeof(sign_label));
	writer_u32(&w, (uint32_t)e->context_bytes);
	writer_bytes(&w, e->context, e->context_bytes);
	writer_bytes(&w, e->recipient_hash, CRYPTO_HASH_BYTES);
	writer_bytes(&w, e->sender_hash, CRYPTO_HASH_BYTES);
	writer_bytes(&w, body, body_bytes);
	assert(!w.failed);
	return w.used_bytes;
}

static int sign(const struct envelope *e, const struct crypto_key *sender, const uint8_t *body,
		size_t body_bytes, uint8_t *out, size_t *out_bytes)
{
	_cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	_cleanup_(freep) uint8_t *covered = malloc(SIGNED_MAX_BYTES);
	size_t n_bytes;

	if (!ctx || !covered)
		return crypto_fault(-ENOMEM);
	n_bytes = signed_bytes(e, body, body_bytes, covered);
	if (EVP_DigestSignInit(ctx, NULL, crypto_pkey_digest(sender->kind), NULL, sender->pkey) !=
		    1 ||
	    EVP_DigestSign(ctx, out, out_bytes, covered, n_bytes) != 1)
		return crypto_fault(-EIO);
	return 0;
}

static int check_signature(const struct envelope *e, const struct crypto_cert *sender,
			   const uint8_t *body, size_t body_bytes, const uint8_t *signature,
			   size_t signature_bytes)
{
	_cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	_cleanup_(freep) uint8_t *covered = malloc(SIGNED_MAX_BYTES);
	size_t n_bytes;

	if (!ctx || !covered)
		return crypto_fault(-ENOMEM);
	n_bytes = signed_bytes(e, body, body_bytes, covered);
	if (EVP_DigestVerifyInit(ctx, NULL,
				 crypto_pkey_digest((enum crypto_key_kind)sender->key_kind), NULL,
				 sender->pkey) != 1)
		return crypto_fault(-EIO);
	if (EVP_DigestVerify(ctx, signature, signature_bytes, covered, n_bytes) != 1)
		return crypto_fault(-EBADMSG);
	return 0;
}

static bool can_sign(int key_kind)
{
	return key_kind == CRYPTO_KEY_P256 || key_kind == CRYPTO_KEY_ED25519;
}

/* Version, point, length, ciphertext; returns the number of bytes, or a fault. */
static int write_body(const struct envelope *e, EVP_PKEY *recipient, const void *plain,
		      size_t plain_bytes, uint8_t *body)
{
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *ephemeral = EVP_EC_gen("P-256");
	_cleanup_(crypto_aead_freep) struct crypto_aead *aead = NULL;
	const size_t n_bytes = plain_bytes + CRYPTO_AEAD_TAG_BYTES;
	int r;

	if (!ephemeral)
		return crypto_fault(-EIO);
	body[0] = VERSION;
	r = point_of(ephemeral, body + 1);
	if (r == 0)
		r = aead_of(e, ephemeral, recipient, body + 1, &aead);
	if (r < 0)
		return r;
	body[1 + POINT_BYTES] = (uint8_t)(n_bytes >> 8);
	body[2 + POINT_BYTES] = (uint8_t)n_bytes;
	r = crypto_aead_seal(aead, zero_nonce, body, HEAD_BYTES, plain, plain_bytes,
			     body + HEAD_BYTES);
	return r < 0 ? r : (int)(HEAD_BYTES + n_bytes);
}

int crypto_seal_to_cert(const struct crypto_cert *recipient, const struct crypto_key *sender,
			const void *context, size_t context_bytes, const void *plain,
			size_t plain_bytes, struct buffer *out)
{
	const struct envelope e = { context, context_bytes, recipient->spki_hash,
				    sender->spki_hash };
	size_t signature_bytes = SIGNATURE_MAX_BYTES;
	uint8_t *room;
	int n_body, r;

	if (recipient->key_kind != CRYPTO_KEY_P256 || !can_sign((int)sender->kind))
		return -ENOTSUP;
	if (plain_bytes > CRYPTO_SEALED_PLAIN_MAX_BYTES ||
	    context_bytes > CRYPTO_SEALED_CONTEXT_MAX_BYTES)
		return -EMSGSIZE;
	r = buffer_reserve(
		out, HEAD_BYTES + plain_bytes + CRYPTO_AEAD_TAG_BYTES + SIGNATURE_MAX_BYTES, &room);
	if (r < 0)
		return r;
	n_body = write_body(&e, recipient->pkey, plain, plain_bytes, room);
	if (n_body < 0)
		return n_body;
	r = sign(&e, sender, room, (size_t)n_body, room + n_body, &signature_bytes);
	if (r < 0)
		return r;
	buffer_commit(out, (size_t)n_body + signature_bytes);
	return 0;
}

int crypto_open_sealed(const struct crypto_key *recipient, const struct crypto_cert *sender,
		       const void *context, size_t context_bytes, const void *blob,
		       size_t blob_bytes, struct buffer *out)
{
	const struct envelope e = { context, context_bytes, recipient->spki_hash,
				    sender->spki_hash };
	_cleanup_(crypto_aead_freep) struct crypto_aead *aead = NULL;
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *ephemeral = NULL;
	struct reader reader = reader_over(blob, blob_bytes);
	const uint8_t version = reader_u8(&reader);
	const uint8_t *point = reader_bytes(&reader, POINT_BYTES);
	const size_t n_bytes = reader_u16(&reader);
	const uint8_t *ciphertext = reader_bytes(&reader, n_bytes);
	uint8_t *room;
	int r;

	if (recipient->kind != CRYPTO_KEY_P256 || !can_sign(sender->key_kind))
		return -ENOTSUP;
	if (reader.failed || version != VERSION || blob_bytes > CRYPTO_SEALED_MAX_BYTES ||
	    n_bytes < CRYPTO_AEAD_TAG_BYTES || reader.left_bytes > SIGNATURE_MAX_BYTES ||
	    context_bytes > CRYPTO_SEALED_CONTEXT_MAX_BYTES)
		return -EBADMSG;
	r = check_signature(&e, sender, blob, HEAD_BYTES + n_bytes, reader.data, reader.left_bytes);
	if (r < 0)
		return r;
	ephemeral = pkey_of(point);
	if (!ephemeral)
		return crypto_fault(-EBADMSG);
	r = aead_of(&e, recipient->pkey, ephemeral, point, &aead);
	if (r < 0)
		return r;
	r = buffer_reserve(out, n_bytes - CRYPTO_AEAD_TAG_BYTES, &room);
	if (r < 0)
		return r;
	r = crypto_aead_open(aead, zero_nonce, blob, HEAD_BYTES, ciphertext, n_bytes, room);
	if (r < 0)
		return r;
	buffer_commit(out, n_bytes - CRYPTO_AEAD_TAG_BYTES);
	return 0;
}
