#include "forge.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>

static void must(bool good, const char *what)
{
	if (!good) {
		fprintf(stderr, "forge: %s\n", what);
		abort();
	}
}

EVP_PKEY *forge_rsa(unsigned bits)
{
	EVP_PKEY *pkey = EVP_RSA_gen(bits);

	must(pkey, "RSA");
	return pkey;
}

EVP_PKEY *forge_ec(const char *curve)
{
	EVP_PKEY *pkey = EVP_EC_gen(curve);

	must(pkey, "EC");
	return pkey;
}

struct crypto_key *forge_key(EVP_PKEY *pkey)
{
	BIO *bio = BIO_new(BIO_s_mem());
	struct crypto_key *key = NULL;
	char *data;
	long n;

	must(PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL) == 1, "PEM");
	n = BIO_get_mem_data(bio, &data);
	must(crypto_key_from_pem(data, (size_t)n, &key) == 0, "key");
	BIO_free(bio);
	return key;
}

static void set_names(X509_NAME *name, const char *cn, const struct forge_name *names)
{
	const struct forge_name one[] = { { NID_commonName, cn, -1, 0 }, { 0 } };

	for (const struct forge_name *n = names ? names : one; n->nid; n++)
		must(X509_NAME_add_entry_by_NID(name, n->nid, n->type ? n->type : V_ASN1_UTF8STRING,
						(const unsigned char *)n->text, n->n_bytes, -1,
						0) == 1,
		     "name");
}

static void add_extensions(X509 *x509, const struct forge_extension *e)
{
	for (; e && e->nid; e++) {
		X509V3_CTX ctx;
		X509_EXTENSION *extension;

		X509V3_set_ctx_nodb(&ctx);
		X509V3_set_ctx(&ctx, x509, x509, NULL, NULL, 0);
		extension = X509V3_EXT_conf_nid(NULL, &ctx, e->nid, e->value);
		must(extension && X509_add_ext(x509, extension, -1) == 1, "extension");
		X509_EXTENSION_free(extension);
	}
}

uint8_t *forge_der(const struct forge *f, size_t *ret_bytes)
{
	X509 *x509 = X509_new();
	const EVP_MD *md = !f->digest     ? EVP_sha256()
			   : f->digest[0] ? EVP_get_digestbyname(f->digest)
					  : NULL;
	unsigned char *der = NULL;
	int n;

	must(X509_set_version(x509, f->version) == 1, "version");
	ASN1_INTEGER_set(X509_get_serialNumber(x509), 1522056544);
	set_names(X509_get_subject_name(x509), f->subject, f->subject_names);
	set_names(X509_get_issuer_name(x509), f->issuer ? f->issuer : f->subject,
		  f->issuer ? NULL : f->subject_names);
	must(ASN1_TIME_set(X509_getm_notBefore(x509), f->not_before_s) &&
		     ASN1_TIME_set(X509_getm_notAfter(x509), f->not_after_s),
	     "dates");
	must(X509_set_pubkey(x509, f->pkey) == 1, "key");
	add_extensions(x509, f->extensions);
	must(X509_sign(x509, f->signer ? f->signer : f->pkey, md) > 0, "signature");
	n = i2d_X509(x509, &der);
	must(n > 0, "DER");
	X509_free(x509);
	*ret_bytes = (size_t)n;
	return der;
}

struct crypto_cert *forge_cert(const struct forge *f)
{
	struct crypto_cert *cert = NULL;
	size_t n;
	uint8_t *der = forge_der(f, &n);

	must(crypto_cert_from_der(der, n, &cert) == 0, "certificate");
	OPENSSL_free(der);
	return cert;
}
