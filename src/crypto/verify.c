/*
 * Is this certificate good for what it is shown for? Q2Q's chains have one
 * step: a domain certificate, which is pinned, signs its users'. So the rules
 * are spelt out here, each with its own answer, instead of being left to the
 * path building of a PKI that Q2Q has not.
 */
#include "crypto/private.h"

#include <openssl/x509v3.h>

static const struct {
	const char *name, *text;
} reasons[] = {
	[CRYPTO_VERIFY_OK] = { "ok", "the certificate is good" },
	[CRYPTO_VERIFY_MALFORMED] = { "malformed", "the certificate makes no sense: it must hold "
						   "one common name, and dates and extensions "
						   "that can be read" },
	[CRYPTO_VERIFY_WRONG_NAME] = { "wrong-name", "the certificate belongs to another address" },
	[CRYPTO_VERIFY_WRONG_ISSUER] = { "wrong-issuer",
					 "the certificate was issued by another domain" },
	[CRYPTO_VERIFY_BAD_SIGNATURE] = { "bad-signature",
					  "the certificate is not signed with the key that is "
					  "known for its domain" },
	[CRYPTO_VERIFY_NOT_A_CA] = { "not-a-ca",
				     "the domain's certificate may not sign certificates" },
	[CRYPTO_VERIFY_WRONG_USE] = { "wrong-use",
				      "the certificate was not made for TLS by a user" },
	[CRYPTO_VERIFY_WEAK_DIGEST] = { "weak-digest",
					"the certificate is signed with MD5, SHA-1 or another "
					"digest that can be forged; it must be issued again "
					"with SHA-256" },
	[CRYPTO_VERIFY_WEAK_KEY] = { "weak-key",
				     "the key is too weak or of a kind that is not accepted; use "
				     "ECDSA P-256, Ed25519, or RSA of at least 2048 bits" },
	[CRYPTO_VERIFY_NOT_YET_VALID] = { "not-yet-valid",
					  "the certificate is not valid yet; is the clock right?" },
	[CRYPTO_VERIFY_EXPIRED] = { "expired", "the certificate has expired; is the clock right?" },
	[CRYPTO_VERIFY_UNKNOWN_ISSUER] = { "unknown-issuer",
					   "the domain that issued the certificate is not known" },
	[CRYPTO_VERIFY_KEY_CHANGED] = { "key-changed",
					"the key is not the one that is pinned for this address" },
	[CRYPTO_VERIFY_REVOKED] = { "revoked", "the certificate was revoked" },
	[CRYPTO_VERIFY_REFUSED] = { "refused", "the certificate is not accepted here" },
};

static_assert(ARRAY_SIZE(reasons) == CRYPTO_VERIFY_COUNT, "a reason without a text");

const char *crypto_verify_name(enum crypto_verify reason)
{
	return (unsigned)reason < CRYPTO_VERIFY_COUNT ? reasons[reason].name : "?";
}

const char *crypto_verify_text(enum crypto_verify reason)
{
	return (unsigned)reason < CRYPTO_VERIFY_COUNT ? reasons[reason].text : "?";
}

bool crypto_digest_is_strong(int md_nid, int key_nid)
{
	return key_nid == NID_ED25519 || md_nid == NID_sha256 || md_nid == NID_sha384 ||
	       md_nid == NID_sha512;
}

static bool has_strong_digest(const struct crypto_cert *cert)
{
	int md_nid = NID_undef, key_nid = NID_undef;
	const bool known = X509_get_signature_info(cert->x509, &md_nid, &key_nid, NULL, NULL) == 1;

	ERR_clear_error();
	/* An unknown algorithm has no known digest, so it fails here. */
	return crypto_digest_is_strong(md_nid, known ? key_nid : NID_undef);
}

/* The key is of a kind that we use, and it signed this certificate. */
static bool signed_by(const struct crypto_cert *cert, EVP_PKEY *pkey)
{
	const bool good = pkey && X509_verify(cert->x509, pkey) == 1;

	ERR_clear_error();
	return good;
}

bool crypto_cert_is_self_signed(const struct crypto_cert *cert)
{
	return X509_NAME_cmp(X509_get_subject_name(cert->x509), X509_get_issuer_name(cert->x509)) ==
		       0 &&
	       signed_by(cert, cert->pkey);
}

static bool is_malformed(const struct crypto_cert *cert)
{
	const uint32_t flags = X509_get_extension_flags(cert->x509);

	/* A critical extension is one that must be understood to judge the certificate. */
	return !cert->subject[0] || !cert->issuer[0] || !cert->dates_ok ||
	       (flags & (EXFLAG_INVALID | EXFLAG_CRITICAL | EXFLAG_PROXY)) != 0;
}

static int check_dates(const struct crypto_cert *cert, int64_t now_s)
{
	if (now_s < cert->not_before_s)
		return CRYPTO_VERIFY_NOT_YET_VALID;
	return now_s > cert->not_after_s ? CRYPTO_VERIFY_EXPIRED : 0;
}

/* All but the dates, which come last: "expired" is only worth saying of a genuine one. */
static int check_form(const struct crypto_cert *cert, const char *expected_cn)
{
	if (is_malformed(cert))
		return CRYPTO_VERIFY_MALFORMED;
	if (cert->key_kind < 0)
		return CRYPTO_VERIFY_WEAK_KEY;
	if (!has_strong_digest(cert))
		return CRYPTO_VERIFY_WEAK_DIGEST;
	/* TLS signs with this key. X509_get_key_usage() is all ones where nothing is said. */
	if (!(X509_get_key_usage(cert->x509) & KU_DIGITAL_SIGNATURE))
		return CRYPTO_VERIFY_WRONG_USE;
	if (expected_cn && strcmp(cert->subject, expected_cn) != 0)
		return CRYPTO_VERIFY_WRONG_NAME;
	return 0;
}

static int check_anchor(const struct crypto_cert *anchor)
{
	int ca;

	if (is_malformed(anchor))
		return CRYPTO_VERIFY_MALFORMED;
	if (anchor->key_kind < 0)
		return CRYPTO_VERIFY_WEAK_KEY;
	/* 1: says so in its extensions; 3: self-signed version 1, as stock Vertex makes them. */
	ca = X509_check_ca(anchor->x509);
	ERR_clear_error();
	return ca == 1 || ca == 3 ? 0 : CRYPTO_VERIFY_NOT_A_CA;
}

/* Beyond the form: what a user's certificate may be used for. */
static bool is_for_users(const struct crypto_cert *cert)
{
	const uint32_t eku = X509_get_extended_key_usage(cert->x509); /* all ones: not limited */
	const uint32_t both = XKU_SSL_CLIENT | XKU_SSL_SERVER;

	return !(X509_get_extension_flags(cert->x509) & EXFLAG_CA) &&
	       ((eku & XKU_ANYEKU) || (eku & both) == both);
}

static bool is_anchor_itself(const struct crypto_cert *cert, const struct crypto_cert *anchor)
{
	return crypto_cert_same_key(cert, anchor) && strcmp(cert->subject, cert->issuer) == 0 &&
	       strcmp(cert->subject, anchor->subject) == 0;
}

static int check_chain(const struct crypto_cert *cert, const struct crypto_cert *anchor)
{
	int r = check_anchor(anchor);

	if (r != 0)
		return r;
	if (strcmp(cert->issuer, anchor->subject) != 0)
		return CRYPTO_VERIFY_WRONG_ISSUER;
	if (!signed_by(cert, anchor->pkey))
		return CRYPTO_VERIFY_BAD_SIGNATURE;
	if (!is_anchor_itself(cert, anchor) && !is_for_users(cert))
		return CRYPTO_VERIFY_WRONG_USE;
	return 0;
}

int crypto_cert_verify(const struct crypto_cert *cert, const struct crypto_cert *anchor,
		       const char *expected_cn, int64_t now_s)
{
	int r = check_form(cert, expected_cn);

	if (r == 0)
		r = check_chain(cert, anchor);
	return r != 0 ? r : check_dates(cert, now_s);
}

int crypto_cert_check(const struct crypto_cert *cert, const char *expected_cn, int64_t now_s)
{
	const int r = check_form(cert, expected_cn);

	return r != 0 ? r : check_dates(cert, now_s);
}
