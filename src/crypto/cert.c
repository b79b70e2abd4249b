/*
 * Certificates as immutable objects: everything that can go wrong goes wrong
 * when one is made, so that the accessors cannot fail.
 */
#include "crypto/private.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <time.h>

bool crypto_cn_ok(const char *cn)
{
	const size_t n = strnlen(cn, CRYPTO_NAME_MAX_BYTES);

	if (n == 0 || n > CRYPTO_NAME_MAX_BYTES - 2)
		return false;
	for (size_t i = 0; i < n; i++)
		if (cn[i] < 0x21 || cn[i] > 0x7e)
			return false;
	return true;
}

bool crypto_name_cn(const X509_NAME *name, char out[static CRYPTO_NAME_MAX_BYTES])
{
	const X509_NAME_ENTRY *entry;
	const ASN1_STRING *value;
	int type, n_bytes;

	out[0] = '\0';
	if (X509_NAME_entry_count(name) != 1)
		return false;
	entry = X509_NAME_get_entry(name, 0);
	if (OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry)) != NID_commonName)
		return false;
	value = X509_NAME_ENTRY_get_data(entry);
	type = ASN1_STRING_type(value);
	/* All of these are ASCII where crypto_cn_ok() lets them through. */
	if (type != V_ASN1_UTF8STRING && type != V_ASN1_PRINTABLESTRING &&
	    type != V_ASN1_IA5STRING && type != V_ASN1_T61STRING)
		return false;
	n_bytes = ASN1_STRING_length(value);
	if (n_bytes < 1 || n_bytes > CRYPTO_NAME_MAX_BYTES - 2)
		return false;
	memcpy(out, ASN1_STRING_get0_data(value), (size_t)n_bytes);
	out[n_bytes] = '\0';
	if (strlen(out) != (size_t)n_bytes || !crypto_cn_ok(out)) {
		out[0] = '\0';
		return false;
	}
	return true;
}

static bool time_to_unix(const ASN1_TIME *time, int64_t *ret_s)
{
	struct tm tm = { 0 };

	if (!time || ASN1_TIME_to_tm(time, &tm) != 1)
		return false;
	*ret_s = (int64_t)timegm(&tm);
	return true;
}

static int hash_spki(X509 *x509, uint8_t out[static CRYPTO_HASH_BYTES])
{
	unsigned char *der = NULL;
	const int n_bytes = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x509), &der);
	int r;

	if (n_bytes <= 0)
		return crypto_fault(-EBADMSG);
	r = crypto_sha256(der, (size_t)n_bytes, out);
	OPENSSL_free(der);
	return r;
}

static int cert_fill(struct crypto_cert *cert)
{
	int n_bytes, r;

	n_bytes = i2d_X509(cert->x509, &cert->der);
	if (n_bytes <= 0 || n_bytes > CRYPTO_CERT_MAX_BYTES)
		return crypto_fault(-EBADMSG);
	cert->der_bytes = (size_t)n_bytes;
	r = hash_spki(cert->x509, cert->spki_hash);
	if (r < 0)
		return r;
	crypto_name_cn(X509_get_subject_name(cert->x509), cert->subject);
	crypto_name_cn(X509_get_issuer_name(cert->x509), cert->issuer);
	cert->dates_ok = time_to_unix(X509_get0_notBefore(cert->x509), &cert->not_before_s) &&
			 time_to_unix(X509_get0_notAfter(cert->x509), &cert->not_after_s);
	cert->pkey = X509_get0_pubkey(cert->x509);
	cert->key_kind = crypto_pkey_kind(cert->pkey);
	/* Has OpenSSL note what the extensions say now, so that the object never changes later. */
	X509_check_purpose(cert->x509, -1, 0);
	ERR_clear_error();
	return 0;
}

int crypto_cert_from_x509(X509 *x509, struct crypto_cert **ret)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = calloc(1, sizeof(*cert));
	int r;

	if (!cert)
		return -ENOMEM;
	cert->n_refs = 1;
	X509_up_ref(x509);
	cert->x509 = x509;
	r = cert_fill(cert);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(cert);
	return 0;
}

int crypto_cert_from_der(const void *der, size_t der_bytes, struct crypto_cert **ret)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	_cleanup_(X509_freep) X509 *x509 = NULL;
	const unsigned char *at = der;
	int r;

	if (der_bytes == 0 || der_bytes > CRYPTO_CERT_MAX_BYTES)
		return -EBADMSG;
	x509 = d2i_X509(NULL, &at, (long)der_bytes);
	if (!x509)
		return crypto_fault(-EBADMSG);
	r = crypto_cert_from_x509(x509, &cert);
	if (r < 0)
		return r;
	/* OpenSSL also reads BER, and stops at the end; DER comes out as it went in. */
	if (cert->der_bytes != der_bytes || memcmp(cert->der, der, der_bytes) != 0)
		return -EBADMSG;
	*ret = TAKE_PTR(cert);
	return 0;
}

int crypto_cert_from_pem(const void *pem, size_t pem_bytes, struct crypto_cert **ret)
{
	_cleanup_(BIO_free_allp) BIO *bio = NULL;
	unsigned char *der = NULL;
	long n_bytes = 0;
	int r;

	if (pem_bytes == 0 || pem_bytes > CRYPTO_PEM_MAX_BYTES)
		return -EBADMSG;
	bio = BIO_new_mem_buf(pem, (int)pem_bytes);
	if (!bio)
		return crypto_fault(-ENOMEM);
	if (PEM_bytes_read_bio(&der, &n_bytes, NULL, PEM_STRING_X509, bio, NULL, NULL) != 1)
		return crypto_fault(-EBADMSG);
	ERR_clear_error();
	r = crypto_cert_from_der(der, (size_t)n_bytes, ret);
	OPENSSL_free(der);
	return r;
}

struct crypto_cert *crypto_cert_ref(struct crypto_cert *cert)
{
	__atomic_add_fetch(&cert->n_refs, 1, __ATOMIC_RELAXED);
	return cert;
}

void crypto_cert_unref(struct crypto_cert *cert)
{
	if (!cert || __atomic_sub_fetch(&cert->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	OPENSSL_free(cert->der);
	X509_free(cert->x509);
	free(cert);
}

const uint8_t *crypto_cert_der(const struct crypto_cert *cert, size_t *ret_bytes)
{
	*ret_bytes = cert->der_bytes;
	return cert->der;
}

int crypto_cert_to_pem(const struct crypto_cert *cert, struct buffer *out)
{
	_cleanup_(BIO_free_allp) BIO *bio = BIO_new(BIO_s_mem());
	char *data = NULL;
	long n_bytes;

	if (!bio)
		return crypto_fault(-ENOMEM);
	if (PEM_write_bio_X509(bio, cert->x509) != 1)
		return crypto_fault(-EIO);
	n_bytes = BIO_get_mem_data(bio, &data);
	return buffer_append(out, data, (size_t)n_bytes);
}

const char *crypto_cert_subject(const struct crypto_cert *cert)
{
	return cert->subject[0] ? cert->subject : NULL;
}

const char *crypto_cert_issuer(const struct crypto_cert *cert)
{
	return cert->issuer[0] ? cert->issuer : NULL;
}

int64_t crypto_cert_not_before_s(const struct crypto_cert *cert)
{
	return cert->not_before_s;
}

int64_t crypto_cert_not_after_s(const struct crypto_cert *cert)
{
	return cert->not_after_s;
}

const uint8_t *crypto_cert_spki_hash(const struct crypto_cert *cert)
{
	return cert->spki_hash;
}

const char *crypto_cert_fingerprint(const struct crypto_cert *cert,
				    char out[static CRYPTO_FINGERPRINT_BYTES])
{
	return crypto_fingerprint(cert->spki_hash, out);
}

bool crypto_cert_same_key(const struct crypto_cert *a, const struct crypto_cert *b)
{
	return memcmp(a->spki_hash, b->spki_hash, CRYPTO_HASH_BYTES) == 0;
}

bool crypto_cert_matches_key(const struct crypto_cert *cert, const struct crypto_key *key)
{
	/* By value: a stock file may hold the same key in another encoding. */
	const bool equal = cert->pkey && EVP_PKEY_eq(cert->pkey, key->pkey) == 1;

	ERR_clear_error();
	return equal;
}
