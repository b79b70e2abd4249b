/* Making certificates and requests. */
#include "crypto/private.h"

#include <openssl/x509v3.h>

enum { DAYS_MAX = 36500, THROWAWAY_DAYS = 365 };

#define DAY_S INT64_C(86400)

struct extension {
	int nid;
	const char *value;
};

static const struct extension domain_extensions[] = {
	{ NID_basic_constraints, "critical,CA:TRUE,pathlen:0" },
	/* Without digitalSignature a Vertex program refuses it in TLS. */
	{ NID_key_usage, "critical,keyCertSign,digitalSignature" },
	{ NID_subject_key_identifier, "hash" },
};

static const struct extension user_extensions[] = {
	{ NID_basic_constraints, "critical,CA:FALSE" },
	{ NID_key_usage, "critical,digitalSignature,keyAgreement" },
	{ NID_ext_key_usage, "clientAuth,serverAuth" },
	{ NID_subject_key_identifier, "hash" },
	{ NID_authority_key_identifier, "keyid" },
};

/*
 * A name of one CN. Raw, because OpenSSL's usual way stops at the 64 characters
 * of X.520, and an address may have 318. UTF8String, as stock Vertex writes it.
 */
static X509_NAME *name_of(const char *cn)
{
	_cleanup_(X509_NAME_freep) X509_NAME *name = X509_NAME_new();

	if (!name ||
	    X509_NAME_add_entry_by_NID(name, NID_commonName, V_ASN1_UTF8STRING,
				       (const unsigned char *)cn, (int)strlen(cn), -1, 0) != 1)
		return NULL;
	return TAKE_PTR(name);
}

/* 127 random bits: positive, and within the 20 octets of RFC 5280. */
static bool set_serial(X509 *x509)
{
	uint8_t bytes[16];
	BIGNUM *number;
	bool done;

	if (crypto_random(bytes, sizeof(bytes)) < 0)
		return false;
	bytes[0] &= 0x7f;
	number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	done = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x509)) != NULL;
	BN_free(number);
	return done;
}

static bool set_dates(X509 *x509, int64_t now_s, int64_t lifetime_s)
{
	return ASN1_TIME_set(X509_getm_notBefore(x509), now_s - CRYPTO_CERT_BACKDATE_S) != NULL &&
	       ASN1_TIME_set(X509_getm_notAfter(x509), now_s + lifetime_s) != NULL;
}

static bool add_extension(X509 *x509, X509 *issuer, const struct extension *e)
{
	X509_EXTENSION *extension;
	X509V3_CTX ctx;
	bool done;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, x509, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, e->nid, e->value);
	done = extension && X509_add_ext(x509, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return done;
}

struct recipe {
	const char *subject, *issuer;
	EVP_PKEY *pkey;    /* of the subject */
	X509 *issuer_x509; /* NULL: itself */
	const struct crypto_key *signer;
	int64_t now_s;
	int64_t lifetime_s;
	const struct extension *extensions;
	size_t n_extensions;
};

static bool fill_in(X509 *x509, const struct recipe *r)
{
	_cleanup_(X509_NAME_freep) X509_NAME *subject = name_of(r->subject);
	_cleanup_(X509_NAME_freep) X509_NAME *issuer = name_of(r->issuer);
	/* The issuer's own encoding of its name, for OpenSSL's peers compare the two. */
	const X509_NAME *issuer_name =
		r->issuer_x509 ? X509_get_subject_name(r->issuer_x509) : issuer;

	if (!subject || !issuer || X509_set_version(x509, X509_VERSION_3) != 1 ||
	    X509_set_subject_name(x509, subject) != 1 ||
	    X509_set_issuer_name(x509, issuer_name) != 1 || X509_set_pubkey(x509, r->pkey) != 1 ||
	    !set_serial(x509) || !set_dates(x509, r->now_s, r->lifetime_s))
		return false;
	for (size_t i = 0; i < r->n_extensions; i++)
		if (!add_extension(x509, r->issuer_x509 ? r->issuer_x509 : x509, &r->extensions[i]))
			return false;
	return X509_sign(x509, r->signer->pkey, crypto_pkey_digest(r->signer->kind)) > 0;
}

static int make(const struct recipe *recipe, struct crypto_cert **ret)
{
	_cleanup_(X509_freep) X509 *x509 = NULL;
	unsigned char *der = NULL;
	int n_bytes, r;

	if (!crypto_cn_ok(recipe->subject) || recipe->lifetime_s < 1 ||
	    recipe->lifetime_s > DAYS_MAX * DAY_S)
		return -EINVAL;
	x509 = X509_new();
	if (!x509)
		return crypto_fault(-ENOMEM);
	if (!fill_in(x509, recipe))
		return crypto_fault(-EIO);
	/* Read back what was written, so that the object is what others will see. */
	n_bytes = i2d_X509(x509, &der);
	if (n_bytes <= 0)
		return crypto_fault(-EIO);
	r = crypto_cert_from_der(der, (size_t)n_bytes, ret);
	OPENSSL_free(der);
	ERR_clear_error();
	return r;
}

int crypto_cert_make_domain(const struct crypto_key *key, const char *domain, int64_t now_s,
			    unsigned days, struct crypto_cert **ret)
{
	const struct recipe recipe = {
		.subject = domain,
		.issuer = domain,
		.pkey = key->pkey,
		.signer = key,
		.now_s = now_s,
		.lifetime_s = days * DAY_S,
		.extensions = domain_extensions,
		.n_extensions = ARRAY_SIZE(domain_extensions),
	};

	return make(&recipe, ret);
}

int crypto_cert_make_throwaway(const struct crypto_key *key, const char *cn, int64_t now_s,
			       struct crypto_cert **ret)
{
	const struct recipe recipe = {
		.subject = cn,
		.issuer = cn,
		.pkey = key->pkey,
		.signer = key,
		.now_s = now_s,
		.lifetime_s = THROWAWAY_DAYS * DAY_S,
		.extensions = user_extensions,
		.n_extensions = ARRAY_SIZE(user_extensions) - 1, /* its issuer is itself */
	};

	return make(&recipe, ret);
}

int crypto_cert_issue_for(const struct crypto_cert *issuer, const struct crypto_key *issuer_key,
			  const struct crypto_csr *csr, const char *address, int64_t now_s,
			  int64_t lifetime_s, struct crypto_cert **ret)
{
	const struct recipe recipe = {
		.subject = address,
		.issuer = issuer->subject,
		.pkey = X509_REQ_get0_pubkey(csr->req),
		.issuer_x509 = issuer->x509,
		.signer = issuer_key,
		.now_s = now_s,
		.lifetime_s = lifetime_s,
		.extensions = user_extensions,
		.n_extensions = ARRAY_SIZE(user_extensions),
	};

	if (strcmp(csr->subject, address) != 0 || !issuer->subject[0] ||
	    !crypto_cert_matches_key(issuer, issuer_key))
		return -EINVAL;
	return make(&recipe, ret);
}

int crypto_cert_issue(const struct crypto_cert *issuer, const struct crypto_key *issuer_key,
		      const struct crypto_csr *csr, const char *address, int64_t now_s,
		      unsigned days, struct crypto_cert **ret)
{
	return crypto_cert_issue_for(issuer, issuer_key, csr, address, now_s, days * DAY_S, ret);
}

int crypto_csr_make(const struct crypto_key *key, const char *cn, struct buffer *out)
{
	_cleanup_(X509_REQ_freep) X509_REQ *req = NULL;
	_cleanup_(X509_NAME_freep) X509_NAME *name = NULL;
	unsigned char *der = NULL;
	int n_bytes, r;

	if (!crypto_cn_ok(cn))
		return -EINVAL;
	req = X509_REQ_new();
	name = name_of(cn);
	if (!req || !name)
		return crypto_fault(-ENOMEM);
	if (X509_REQ_set_version(req, X509_REQ_VERSION_1) != 1 ||
	    X509_REQ_set_subject_name(req, name) != 1 || X509_REQ_set_pubkey(req, key->pkey) != 1 ||
	    X509_REQ_sign(req, key->pkey, crypto_pkey_digest(key->kind)) <= 0)
		return crypto_fault(-EIO);
	n_bytes = i2d_X509_REQ(req, &der);
	if (n_bytes <= 0)
		return crypto_fault(-EIO);
	r = buffer_append(out, der, (size_t)n_bytes);
	OPENSSL_free(der);
	return r;
}

/* 0 or an enum crypto_verify. */
static int csr_check(struct crypto_csr *csr)
{
	EVP_PKEY *pkey = X509_REQ_get0_pubkey(csr->req);
	int md_nid = NID_undef, key_nid = NID_undef;

	if (X509_REQ_get_version(csr->req) != X509_REQ_VERSION_1)
		return CRYPTO_VERIFY_MALFORMED;
	if (!crypto_name_cn(X509_REQ_get_subject_name(csr->req), csr->subject))
		return CRYPTO_VERIFY_WRONG_NAME;
	if (crypto_pkey_kind(pkey) < 0)
		return CRYPTO_VERIFY_WEAK_KEY;
	if (OBJ_find_sigid_algs(X509_REQ_get_signature_nid(csr->req), &md_nid, &key_nid) != 1 ||
	    !crypto_digest_is_strong(md_nid, key_nid))
		return CRYPTO_VERIFY_WEAK_DIGEST;
	return X509_REQ_verify(csr->req, pkey) == 1 ? 0 : CRYPTO_VERIFY_BAD_SIGNATURE;
}

static int csr_parse(const void *der, size_t der_bytes, X509_REQ **ret)
{
	const unsigned char *at = der;

	if (der_bytes == 0 || der_bytes > CRYPTO_CERT_MAX_BYTES)
		return CRYPTO_VERIFY_MALFORMED;
	*ret = d2i_X509_REQ(NULL, &at, (long)der_bytes);
	if (!*ret)
		return crypto_fault(CRYPTO_VERIFY_MALFORMED);
	return at == (const unsigned char *)der + der_bytes ? 0 : CRYPTO_VERIFY_MALFORMED;
}

int crypto_csr_from_der(const void *der, size_t der_bytes, struct crypto_csr **ret)
{
	_cleanup_(crypto_csr_freep) struct crypto_csr *csr = calloc(1, sizeof(*csr));
	int r;

	if (!csr)
		return -ENOMEM;
	r = csr_parse(der, der_bytes, &csr->req);
	if (r == 0)
		r = csr_check(csr);
	ERR_clear_error();
	if (r == 0)
		r = crypto_pkey_spki_hash(X509_REQ_get0_pubkey(csr->req), csr->spki_hash);
	if (r != 0)
		return r;
	*ret = TAKE_PTR(csr);
	return 0;
}

void crypto_csr_free(struct crypto_csr *csr)
{
	if (!csr)
		return;
	X509_REQ_free(csr->req);
	free(csr);
}

const char *crypto_csr_subject(const struct crypto_csr *csr)
{
	return csr->subject;
}

const uint8_t *crypto_csr_spki_hash(const struct crypto_csr *csr)
{
	return csr->spki_hash;
}
