/* Certificates that crypto itself would not make: weak, old and wrong ones, for tests. */
#ifndef TESTS_UNIT_FORGE_H
#define TESTS_UNIT_FORGE_H

#include "crypto/crypto.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

struct forge_name {
	int nid; /* 0 ends the list */
	const char *text;
	int n_bytes; /* -1: strlen */
	int type;    /* 0: V_ASN1_UTF8STRING */
};

struct forge_extension {
	int nid; /* 0 ends the list */
	const char *value;
};

struct forge {
	const char *subject, *issuer;           /* one CN each */
	const struct forge_name *subject_names; /* instead of subject */
	EVP_PKEY *pkey;                         /* borrowed */
	EVP_PKEY *signer;                       /* NULL: pkey */
	const char *digest;                     /* NULL: SHA-256; "" for Ed25519 */
	int version;                            /* 0: version 1; 2: version 3 */
	int64_t not_before_s, not_after_s;
	const struct forge_extension *extensions;
};

EVP_PKEY *forge_rsa(unsigned bits);
EVP_PKEY *forge_ec(const char *curve);
/* A private key as crypto's object. Takes its own reference. */
struct crypto_key *forge_key(EVP_PKEY *pkey);
/* The certificate as DER, malloc()ed. */
uint8_t *forge_der(const struct forge *f, size_t *ret_bytes);
struct crypto_cert *forge_cert(const struct forge *f);

#endif
