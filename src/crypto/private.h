/* What the files of this folder share; nobody else includes it. */
#ifndef CRYPTO_PRIVATE_H
#define CRYPTO_PRIVATE_H

#include "crypto/crypto.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

DEFINE_CLEANUP(BIO *, BIO_free_all)
DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free)
DEFINE_CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free)
DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free)
DEFINE_CLEANUP(X509 *, X509_free)
DEFINE_CLEANUP(X509_REQ *, X509_REQ_free)
DEFINE_CLEANUP(X509_NAME *, X509_NAME_free)

struct crypto_key {
	EVP_PKEY *pkey;
	enum crypto_key_kind kind;
	uint8_t spki_hash[CRYPTO_HASH_BYTES];
};

struct crypto_cert {
	unsigned n_refs; /* atomic */
	X509 *x509;
	EVP_PKEY *pkey; /* borrowed from x509; NULL if OpenSSL cannot read the key */
	int key_kind;   /* enum crypto_key_kind, or -ENOTSUP */
	uint8_t *der;
	size_t der_bytes;
	char subject[CRYPTO_NAME_MAX_BYTES]; /* "": not exactly one good CN */
	char issuer[CRYPTO_NAME_MAX_BYTES];
	bool dates_ok;
	int64_t not_before_s, not_after_s;
	uint8_t spki_hash[CRYPTO_HASH_BYTES];
};

struct crypto_csr {
	X509_REQ *req;
	char subject[CRYPTO_NAME_MAX_BYTES];
	uint8_t spki_hash[CRYPTO_HASH_BYTES];
};

/* Empties OpenSSL's error queue. Returns -ENOMEM if memory was what failed, else `error`. */
int crypto_fault(int error);
/* Which kind of key, or -ENOTSUP for one that we do not use. */
int crypto_pkey_kind(EVP_PKEY *pkey);
int crypto_pkey_spki_hash(EVP_PKEY *pkey, uint8_t out[static CRYPTO_HASH_BYTES]);
/* The digest to sign with: NULL for Ed25519, which brings its own. */
const EVP_MD *crypto_pkey_digest(enum crypto_key_kind kind);
/* Is this the digest of a signature that we accept? */
bool crypto_digest_is_strong(int md_nid, int key_nid);
/* Takes its own reference to x509. -EBADMSG: too large or not to be read. */
int crypto_cert_from_x509(X509 *x509, struct crypto_cert **ret);
/* Copies the one CN of a name; false if there is anything else. */
bool crypto_name_cn(const X509_NAME *name, char out[static CRYPTO_NAME_MAX_BYTES]);
/* May this text be a CN at all? */
bool crypto_cn_ok(const char *cn);
/* Base64 without padding; strict, canonical. The number of bytes, or -EBADMSG. */
int crypto_base64_decode(const char *text, size_t text_bytes, uint8_t *out, size_t out_bytes);
/* Writes text and NUL; out has at least 4 * ((n + 2) / 3) + 1 bytes. */
void crypto_base64_encode(const uint8_t *data, size_t n_bytes, char *out);

#endif
