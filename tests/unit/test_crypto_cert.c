#include "unit.h"
#include "forge.h"

#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#define NOW_S INT64_C(1800000000)
#define DAY_S INT64_C(86400)

#define ALICE "alice@example.com"

/* A domain with one user, made by our own calls; the keys are made once. */
struct world {
	struct crypto_key *domain_key, *other_key, *alice_key;
	struct crypto_cert *domain, *other, *alice;
	EVP_PKEY *rsa, *rsa_user, *ec;
};
static struct world w;

static struct crypto_csr *request(const struct crypto_key *key, const char *cn)
{
	struct crypto_csr *csr = NULL;
	struct buffer der;

	buffer_init(&der, 8192, false);
	assert_int_equal(crypto_csr_make(key, cn, &der), 0);
	assert_int_equal(crypto_csr_from_der(buffer_peek(&der), buffer_used(&der), &csr), 0);
	buffer_fini(&der);
	return csr;
}

static struct crypto_cert *issue(const struct crypto_cert *issuer,
				 const struct crypto_key *issuer_key, const struct crypto_key *key,
				 const char *cn)
{
	_cleanup_(crypto_csr_freep) struct crypto_csr *csr = request(key, cn);
	struct crypto_cert *cert = NULL;

	assert_int_equal(crypto_cert_issue(issuer, issuer_key, csr, cn, NOW_S, 90, &cert), 0);
	return cert;
}

static int make_world(void **state)
{
	(void)state;
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &w.domain_key), 0);
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &w.other_key), 0);
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &w.alice_key), 0);
	assert_int_equal(
		crypto_cert_make_domain(w.domain_key, "example.com", NOW_S, 365, &w.domain), 0);
	assert_int_equal(crypto_cert_make_domain(w.other_key, "example.com", NOW_S, 365, &w.other),
			 0);
	w.alice = issue(w.domain, w.domain_key, w.alice_key, ALICE);
	w.rsa = forge_rsa(2048);
	w.rsa_user = forge_rsa(2048);
	w.ec = forge_ec("P-256");
	return 0;
}

static int end_world(void **state)
{
	(void)state;
	crypto_key_free(w.domain_key);
	crypto_key_free(w.other_key);
	crypto_key_free(w.alice_key);
	crypto_cert_unref(w.domain);
	crypto_cert_unref(w.other);
	crypto_cert_unref(w.alice);
	EVP_PKEY_free(w.rsa);
	EVP_PKEY_free(w.rsa_user);
	EVP_PKEY_free(w.ec);
	return 0;
}

static int queue_is_empty(void **state)
{
	(void)state;
	return ERR_peek_error() == 0 ? 0 : -1;
}

/* ---- keys ---------------------------------------------------------------------- */

static void keys_of_each_kind_make_the_round_trip_through_pem(void **state)
{
	(void)state;
	for (int kind = 0; kind < CRYPTO_KEY_KIND_COUNT; kind++) {
		_cleanup_(crypto_key_freep) struct crypto_key *key = NULL, *again = NULL;
		uint8_t a[32], b[32];
		struct buffer pem;

		assert_int_equal(crypto_key_generate((enum crypto_key_kind)kind, &key), 0);
		assert_int_equal(crypto_key_kind(key), kind);
		buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
		assert_int_equal(crypto_key_to_pem(key, &pem), 0);
		assert_memory_equal(buffer_peek(&pem), "-----BEGIN PRIVATE KEY-----\n", 28);
		assert_int_equal(crypto_key_from_pem(buffer_peek(&pem), buffer_used(&pem), &again),
				 0);
		buffer_fini(&pem);
		crypto_key_spki_hash(key, a);
		crypto_key_spki_hash(again, b);
		assert_memory_equal(a, b, 32);
		assert_int_equal(crypto_key_kind(again), kind);
	}
}

static void a_file_of_certificate_and_key_gives_both(void **state)
{
	_cleanup_(crypto_key_freep) struct crypto_key *key = NULL;
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	struct buffer pem;

	(void)state;
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	assert_int_equal(crypto_cert_to_pem(w.alice, &pem), 0);
	assert_int_equal(crypto_key_to_pem(w.alice_key, &pem), 0);
	assert_int_equal(crypto_key_from_pem(buffer_peek(&pem), buffer_used(&pem), &key), 0);
	assert_int_equal(crypto_cert_from_pem(buffer_peek(&pem), buffer_used(&pem), &cert), 0);
	assert_true(crypto_cert_matches_key(cert, key));
	assert_false(crypto_cert_matches_key(cert, w.domain_key));
	buffer_fini(&pem);
}

static int key_from_pkey(EVP_PKEY *pkey, const EVP_CIPHER *cipher)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char password[] = "secret", *data;
	struct crypto_key *key = NULL;
	long n;
	int r;

	assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, pkey, cipher, cipher ? password : NULL,
						       cipher ? 6 : 0, NULL, NULL),
			 1);
	n = BIO_get_mem_data(bio, &data);
	r = crypto_key_from_pem(data, (size_t)n, &key);
	BIO_free(bio);
	crypto_key_free(key);
	return r;
}

static void weak_and_strange_keys_are_refused(void **state)
{
	EVP_PKEY *rsa1024 = forge_rsa(1024), *p384 = forge_ec("P-384"), *k1 = forge_ec("secp256k1");

	(void)state;
	assert_int_equal(key_from_pkey(w.rsa, NULL), 0);
	assert_int_equal(key_from_pkey(w.rsa, EVP_aes_128_cbc()), -ENOTSUP);
	assert_int_equal(key_from_pkey(rsa1024, NULL), -ENOTSUP);
	assert_int_equal(key_from_pkey(p384, NULL), -ENOTSUP);
	assert_int_equal(key_from_pkey(k1, NULL), -ENOTSUP);
	EVP_PKEY_free(rsa1024);
	EVP_PKEY_free(p384);
	EVP_PKEY_free(k1);
}

static void a_traditional_pem_of_a_stock_program_is_read(void **state)
{
	BIO *bio = BIO_new(BIO_s_mem());
	struct crypto_key *key = NULL;
	char *data;
	long n;

	(void)state;
	assert_int_equal(
		PEM_write_bio_PrivateKey_traditional(bio, w.rsa, NULL, NULL, 0, NULL, NULL), 1);
	n = BIO_get_mem_data(bio, &data);
	assert_non_null(strstr(data, "BEGIN RSA PRIVATE KEY"));
	assert_int_equal(crypto_key_from_pem(data, (size_t)n, &key), 0);
	assert_int_equal(crypto_key_kind(key), CRYPTO_KEY_RSA);
	crypto_key_free(key);
	BIO_free(bio);
}

static void a_damaged_key_file_is_refused(void **state)
{
	struct crypto_key *key = NULL;
	uint8_t copy[1024];
	struct buffer pem;
	size_t n;

	(void)state;
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	assert_int_equal(crypto_key_to_pem(w.alice_key, &pem), 0);
	n = buffer_used(&pem);
	memcpy(copy, buffer_peek(&pem), n);
	buffer_fini(&pem);
	for (size_t i = 0; i < n - 2; i++) {
		assert_true(crypto_key_from_pem(copy, i, &key) < 0);
		assert_int_equal(ERR_peek_error(), 0);
	}
	for (size_t i = 28; i < n - 30; i++) {
		copy[i] ^= 1;
		/* One base64 digit for another: another key, or none, but never the old one. */
		if (crypto_key_from_pem(copy, n, &key) == 0) {
			assert_false(crypto_cert_matches_key(w.alice, key));
			crypto_key_free(key);
		}
		copy[i] ^= 1;
	}
	assert_int_equal(crypto_key_from_pem("", 0, &key), -EBADMSG);
	assert_int_equal(crypto_key_from_pem("hello", 5, &key), -EBADMSG);
}

/* ---- what we make ------------------------------------------------------------------ */

static void a_domain_certificate_says_what_it_should(void **state)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *again = NULL;
	char text[CRYPTO_FINGERPRINT_BYTES];
	uint8_t hash[32];
	size_t n;

	(void)state;
	assert_string_equal(crypto_cert_subject(w.domain), "example.com");
	assert_string_equal(crypto_cert_issuer(w.domain), "example.com");
	assert_true(crypto_cert_is_self_signed(w.domain));
	assert_false(crypto_cert_is_self_signed(w.alice));
	assert_int_equal(crypto_cert_not_before_s(w.domain), NOW_S - CRYPTO_CERT_BACKDATE_S);
	assert_int_equal(crypto_cert_not_after_s(w.domain), NOW_S + 365 * DAY_S);
	assert_int_equal(crypto_cert_verify(w.domain, w.domain, "example.com", NOW_S), 0);
	assert_int_equal(crypto_cert_check(w.domain, "example.com", NOW_S), 0);
	crypto_key_spki_hash(w.domain_key, hash);
	assert_memory_equal(crypto_cert_spki_hash(w.domain), hash, 32);
	crypto_fingerprint(hash, text);
	assert_int_equal(strlen(text), CRYPTO_FINGERPRINT_BYTES - 1);
	const uint8_t *der = crypto_cert_der(w.domain, &n);
	assert_int_equal(crypto_cert_from_der(der, n, &again), 0);
	assert_true(crypto_cert_same_key(again, w.domain));
	assert_false(crypto_cert_same_key(again, w.other));
}

/* The file of the openssl program would say the same; its library reads what we wrote. */
static void the_certificates_please_openssl_s_own_path_validation(void **state)
{
	static const int purposes[] = { X509_PURPOSE_SSL_CLIENT, X509_PURPOSE_SSL_SERVER };

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(purposes); i++) {
		const struct crypto_cert *leaf = i % 2 ? w.alice : w.domain;
		X509_STORE *store = X509_STORE_new();
		X509_STORE_CTX *ctx = X509_STORE_CTX_new();
		X509_VERIFY_PARAM *param;
		const uint8_t *der;
		X509 *anchor, *cert;
		size_t n;

		der = crypto_cert_der(w.domain, &n);
		anchor = d2i_X509(NULL, &der, (long)n);
		der = crypto_cert_der(leaf, &n);
		cert = d2i_X509(NULL, &der, (long)n);
		X509_STORE_add_cert(store, anchor);
		assert_int_equal(X509_STORE_CTX_init(ctx, store, cert, NULL), 1);
		param = X509_STORE_CTX_get0_param(ctx);
		X509_VERIFY_PARAM_set_time(param, NOW_S);
		X509_VERIFY_PARAM_set_auth_level(param, 2);
		X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
		X509_STORE_CTX_set_purpose(ctx, purposes[i / 2]);
		if (X509_verify_cert(ctx) != 1)
			fail_msg("%s",
				 X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
		X509_STORE_CTX_free(ctx);
		X509_STORE_free(store);
		X509_free(anchor);
		X509_free(cert);
	}
}

static void serials_are_random_positive_and_long(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		_cleanup_(crypto_cert_unrefp) struct crypto_cert *a = NULL;
		const uint8_t *der;
		BIGNUM *number;
		size_t n;
		X509 *x509;

		assert_int_equal(crypto_cert_make_throwaway(w.alice_key, "@", NOW_S, &a), 0);
		der = crypto_cert_der(a, &n);
		x509 = d2i_X509(NULL, &der, (long)n);
		number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x509), NULL);
		assert_false(BN_is_negative(number));
		assert_in_range(BN_num_bits(number), 90, 127);
		BN_free(number);
		X509_free(x509);
	}
}

static void a_throwaway_certificate_serves_until_there_is_a_real_one(void **state)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *anonymous = NULL, *mine = NULL;

	(void)state;
	assert_int_equal(crypto_cert_make_throwaway(w.alice_key, "@", NOW_S, &anonymous), 0);
	assert_string_equal(crypto_cert_subject(anonymous), "@");
	assert_true(crypto_cert_is_self_signed(anonymous));
	assert_int_equal(crypto_cert_check(anonymous, "@", NOW_S), 0);
	assert_int_equal(crypto_cert_make_throwaway(w.alice_key, ALICE, NOW_S, &mine), 0);
	/* It must never pass for one of the domain. */
	assert_int_equal(crypto_cert_verify(mine, w.domain, ALICE, NOW_S),
			 CRYPTO_VERIFY_WRONG_ISSUER);
	assert_int_equal(crypto_cert_verify(w.alice, mine, ALICE, NOW_S), CRYPTO_VERIFY_NOT_A_CA);
}

static void user_certificates_verify_for_keys_of_each_kind(void **state)
{
	(void)state;
	for (int domain_kind = 0; domain_kind < CRYPTO_KEY_KIND_COUNT; domain_kind++) {
		_cleanup_(crypto_key_freep) struct crypto_key *domain_key = NULL;
		_cleanup_(crypto_cert_unrefp) struct crypto_cert *domain = NULL;

		assert_int_equal(
			crypto_key_generate((enum crypto_key_kind)domain_kind, &domain_key), 0);
		assert_int_equal(crypto_cert_make_domain(domain_key, "b.test", NOW_S, 1, &domain),
				 0);
		for (int kind = 0; kind < CRYPTO_KEY_KIND_COUNT; kind++) {
			_cleanup_(crypto_key_freep) struct crypto_key *key = NULL;
			_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;

			assert_int_equal(crypto_key_generate((enum crypto_key_kind)kind, &key), 0);
			cert = issue(domain, domain_key, key, "bob@b.test");
			assert_int_equal(crypto_cert_verify(cert, domain, "bob@b.test", NOW_S), 0);
			assert_int_equal(crypto_cert_verify(cert, domain, NULL, NOW_S), 0);
			assert_true(crypto_cert_matches_key(cert, key));
		}
	}
}

static void the_longest_address_fits_and_a_longer_one_is_refused(void **state)
{
	char cn[320];
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;

	(void)state;
	memset(cn, 'a', sizeof(cn));
	cn[318] = '\0';
	assert_int_equal(crypto_cert_make_throwaway(w.alice_key, cn, NOW_S, &cert), 0);
	assert_string_equal(crypto_cert_subject(cert), cn);
	cn[318] = 'a';
	cn[319] = '\0';
	assert_int_equal(crypto_cert_make_throwaway(w.alice_key, cn, NOW_S, &cert), -EINVAL);
	assert_int_equal(crypto_cert_make_throwaway(w.alice_key, "", NOW_S, &cert), -EINVAL);
	assert_int_equal(crypto_cert_make_throwaway(w.alice_key, "a b", NOW_S, &cert), -EINVAL);
	assert_int_equal(crypto_cert_make_throwaway(w.alice_key, "a\nb", NOW_S, &cert), -EINVAL);
	assert_int_equal(crypto_cert_make_domain(w.domain_key, "x", NOW_S, 0, &cert), -EINVAL);
}

static void issuing_needs_the_issuer_s_key_and_the_requested_name(void **state)
{
	_cleanup_(crypto_csr_freep) struct crypto_csr *csr = request(w.alice_key, ALICE);
	struct crypto_cert *cert = NULL;

	(void)state;
	assert_string_equal(crypto_csr_subject(csr), ALICE);
	assert_memory_equal(crypto_csr_spki_hash(csr), crypto_cert_spki_hash(w.alice), 32);
	assert_int_equal(crypto_cert_issue(w.domain, w.other_key, csr, ALICE, NOW_S, 1, &cert),
			 -EINVAL);
	assert_int_equal(
		crypto_cert_issue(w.domain, w.domain_key, csr, "bob@example.com", NOW_S, 1, &cert),
		-EINVAL);
	assert_null(cert);
}

/* ---- what we refuse -------------------------------------------------------------------- */

static void each_wrong_certificate_gets_its_own_reason(void **state)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *elsewhere = NULL, *same_name = NULL;
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *b = NULL;

	(void)state;
	assert_int_equal(crypto_cert_verify(w.alice, w.domain, ALICE, NOW_S), 0);
	assert_int_equal(crypto_cert_verify(w.alice, w.domain, "bob@example.com", NOW_S),
			 CRYPTO_VERIFY_WRONG_NAME);
	assert_int_equal(crypto_cert_verify(w.alice, w.domain, "Alice@example.com", NOW_S),
			 CRYPTO_VERIFY_WRONG_NAME);
	assert_int_equal(crypto_cert_verify(w.alice, w.domain, ALICE, NOW_S - 2 * DAY_S),
			 CRYPTO_VERIFY_NOT_YET_VALID);
	assert_int_equal(crypto_cert_verify(w.alice, w.domain, ALICE, NOW_S + 90 * DAY_S), 0);
	assert_int_equal(crypto_cert_verify(w.alice, w.domain, ALICE, NOW_S + 90 * DAY_S + 1),
			 CRYPTO_VERIFY_EXPIRED);
	assert_int_equal(crypto_cert_verify(w.alice, w.other, ALICE, NOW_S),
			 CRYPTO_VERIFY_BAD_SIGNATURE);
	assert_int_equal(crypto_cert_verify(w.other, w.domain, "example.com", NOW_S),
			 CRYPTO_VERIFY_BAD_SIGNATURE);
	assert_int_equal(crypto_cert_make_domain(w.other_key, "b.test", NOW_S, 9, &b), 0);
	assert_int_equal(crypto_cert_verify(w.alice, b, ALICE, NOW_S), CRYPTO_VERIFY_WRONG_ISSUER);
	/* A user is no issuer. */
	elsewhere = issue(w.alice, w.alice_key, w.other_key, "mallory@example.com");
	assert_int_equal(crypto_cert_verify(elsewhere, w.alice, NULL, NOW_S),
			 CRYPTO_VERIFY_NOT_A_CA);
	/* A renewed domain certificate with the same key is the same anchor. */
	assert_int_equal(crypto_cert_make_domain(w.domain_key, "example.com", NOW_S + DAY_S, 365,
						 &same_name),
			 0);
	assert_int_equal(crypto_cert_verify(same_name, w.domain, "example.com", NOW_S + DAY_S), 0);
	assert_int_equal(crypto_cert_verify(w.alice, same_name, ALICE, NOW_S), 0);
}

static struct forge stock(void)
{
	return (struct forge){ .subject = "example.com",
			       .pkey = w.rsa,
			       .not_before_s = NOW_S,
			       .not_after_s = NOW_S + 365 * DAY_S };
}

static struct forge stock_user(void)
{
	return (struct forge){ .subject = ALICE,
			       .issuer = "example.com",
			       .pkey = w.rsa_user,
			       .signer = w.rsa,
			       .not_before_s = NOW_S,
			       .not_after_s = NOW_S + 365 * DAY_S };
}

static void certificates_of_a_stock_server_are_accepted(void **state)
{
	const struct forge domain_recipe = stock(), user_recipe = stock_user();
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *domain = forge_cert(&domain_recipe);
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *user = forge_cert(&user_recipe);

	(void)state;
	assert_true(crypto_cert_is_self_signed(domain));
	assert_int_equal(crypto_cert_verify(domain, domain, "example.com", NOW_S), 0);
	assert_int_equal(crypto_cert_verify(user, domain, ALICE, NOW_S), 0);
	assert_int_equal(crypto_cert_verify(user, w.domain, ALICE, NOW_S),
			 CRYPTO_VERIFY_BAD_SIGNATURE);
}

/* What a stock Vertex server and client wrote in a recorded run: RSA 2048, SHA-256, version 1. */
static const char vertex_domain[] =
	"-----BEGIN CERTIFICATE-----\n"
	"MIICozCCAYsCBFq6vWAwDQYJKoZIhvcNAQELBQAwFjEUMBIGA1UEAwwLZXhhbXBs\n"
	"ZS5jb20wHhcNMjYxMTIyMDg1MzE0WhcNMjcxMTIyMDg1MzE0WjAWMRQwEgYDVQQD\n"
	"DAtleGFtcGxlLmNvbTCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBALOP\n"
	"pJogZm4z9Ge/2BDnIzUsYjXwEgX8IIaRF08oEM7VtdMJyjNc2Kf4jjzhfJKFpcGI\n"
	"EjfHVo8gSsY327U4lorYuui5XyRm8mGJxWcCXuVqWW3dqe416/2rtoDr+6NmHi0H\n"
	"BgGMqiWoRTuZCtuANYe6BK4cve2Oq7K8YaeSwURtEcCjsOkciEuFv/fv2FYDSEs1\n"
	"0uWgTzMCEBO08ko2nLU+BTFN+BVz4ST7tH9xs4aufjFG4etA7MpIBmT+pDqjaeEe\n"
	"WWbprl05VWdqN+7pxNooWKV2xqCg8PXGBlSH9t9taDZEHOrAwBejW3BL6tYSXLg2\n"
	"xuuaZkk2Cs6E0Fy8gkMCAwEAATANBgkqhkiG9w0BAQsFAAOCAQEAFd572Gk33e5c\n"
	"AowMD1MtgzCCWq/BqMMSvSnhzDsk5eLxT4Zjx8quNBWHA2Hy4z5O9Uk3WOi1zwK+\n"
	"wr/Y4uZTjcqwIVlb7zqDlNyQCywN8HB8TzEvuPgirpCPoax20EgCl7vtoSjUOX1E\n"
	"nzO2mB8HSotPF6dNkSYNDBISnUfFpFhPWXl6LLs5+oJ9Il7PaD+bpPHvqCFeY4Kd\n"
	"8/adObgnQVROC1k1ZyfdueIldOs4ZldaZMMBrR4UfXhz+uGpqSUKS7I2aZpe1TYu\n"
	"IdkeD41zbHspv5JmckKgFDyO257VYoRuczL56LEJMhLK1A0J3/ZmoNVqjwIy6x+3\n"
	"dJX3sFV/Ew==\n"
	"-----END CERTIFICATE-----\n";

static const char vertex_user[] =
	"-----BEGIN CERTIFICATE-----\n"
	"MIICqTCCAZECBFq6vWAwDQYJKoZIhvcNAQELBQAwFjEUMBIGA1UEAwwLZXhhbXBs\n"
	"ZS5jb20wHhcNMjYxMTIyMDg1MzE2WhcNMjcxMTIyMDg1MzE2WjAcMRowGAYDVQQD\n"
	"DBFhbGljZUBleGFtcGxlLmNvbTCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoC\n"
	"ggEBAMtbRMHw8+nSM+uD0uoRgugNl/jXTGJfD2aezkGMFA9o5W+Cv7bnW3IDy0gO\n"
	"sP3kzRscrVrzDP9SctsbU02wjDrl+NA1XOpQ97BrkmrZb32fB5ARIJl4msk7WqZH\n"
	"tMiQyi1/eNn8yg+l4Ux9GmQHbhekNiGdwqGckSeDWKbdiA4g95Jc6AH/ekPsk3Nb\n"
	"0kL8PAtfp1aKKrfNWiW7W/oL9YUxhq5Cvj0d8qXGXOvkuV0lRXd2fP/tESW1Glt3\n"
	"uLCmBJO/vab/RpJy0SxXi90J57o/Q3d2k1kn/mxXOLxqfvO8p+JPRLUzYyflvk+E\n"
	"FOJGSX3Ele0P+C0bZ8bNnb2x/WkCAwEAATANBgkqhkiG9w0BAQsFAAOCAQEAh3kr\n"
	"Dfn98VxVfDb+0cmPsX4yUAR+UthcYbYU85xGUce7VE2MNQLjTc2nEOENwpZs8TOG\n"
	"gXo5yHblMcY1JT9TMqy0E3AjfJQ6833qVMX23r6xmW/xXpKsq3IzDP3AkNDjpck8\n"
	"HhEJuPGpWPQIP1OHYzpC1En/0or0QdjK5vpZjiMRRy3/nEajypJmIy+y5ifMNCgJ\n"
	"In2We0gKByvCJwnvU12RdY5pgqSMB2SXtWqo9knKhEYR2Ldeow6G/yMUNt9EN66S\n"
	"0ZY9yGcdrjvnHPsJMJg3/9Y9i35+SDp0IpPp+VhUh9f4BYJszkNnYsEKxXtx7Ji3\n"
	"ito4T8FWhOLUYP94aQ==\n"
	"-----END CERTIFICATE-----\n";

static const char vertex_request_hex[] =
	"3082026130820149020100301c311a301806035504030c11616c696365406578616d706c652e636f"
	"6d30820122300d06092a864886f70d01010105000382010f003082010a0282010100cb5b44c1f0f3"
	"e9d233eb83d2ea1182e80d97f8d74c625f0f669ece418c140f68e56f82bfb6e75b7203cb480eb0fd"
	"e4cd1b1cad5af30cff5272db1b534db08c3ae5f8d0355cea50f7b06b926ad96f7d9f079011209978"
	"9ac93b5aa647b4c890ca2d7f78d9fcca0fa5e14c7d1a64076e17a436219dc2a19c91278358a6dd88"
	"0e20f7925ce801ff7a43ec93735bd242fc3c0b5fa7568a2ab7cd5a25bb5bfa0bf5853186ae42be3d"
	"1df2a5c65cebe4b95d254577767cffed1125b51a5b77b8b0a60493bfbda6ff469272d12c578bdd09"
	"e7ba3f437776935927fe6c5738bc6a7ef3bca7e24f44b5336327e5be4f8414e246497dc495ed0ff8"
	"2d1b67c6cd9dbdb1fd690203010001a000300d06092a864886f70d01010b050003820101007e28ef"
	"21a4c4b54773e85ee00b7d7063e5e4a11a88b2a31630555d4c4bf6592194f05c0b10c26e151dbe41"
	"8b42f3975400185d96f379b953c98ec10532475a48f2ee4f5ddd8d8185d10d49900c066bcf06029d"
	"852b62e69930cdbbaa46b5b2839850e3763e660448929bd4a3453e131677acd26b46586e569d21be"
	"e2e94c3f609bb15c7c879346a4e2b610e7bf9d2eef95a0048e454029bd3ca2ed4d47b60e597d0e1a"
	"86c65ccb8a0dc4c4bf3dd1136475c7b260b89b3850885ba0d80668df0b1df9f61c73d5b4af7caa71"
	"214cf70f21aff7da4cb3c35b32844087da73c2119a526a48482043977a9a99e3b7f95726a4ebdc87"
	"bee4d5fd3b96e9d9cbffdd8833";

static void the_recorded_certificates_of_a_stock_server_verify(void **state)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *domain = NULL, *user = NULL;
	_cleanup_(crypto_csr_freep) struct crypto_csr *csr = NULL;
	uint8_t request[sizeof(vertex_request_hex) / 2];
	int64_t now_s;

	(void)state;
	assert_int_equal(crypto_cert_from_pem(vertex_domain, strlen(vertex_domain), &domain), 0);
	assert_int_equal(crypto_cert_from_pem(vertex_user, strlen(vertex_user), &user), 0);
	assert_int_equal(hex_decode(vertex_request_hex, request, sizeof(request)), 0);
	assert_int_equal(crypto_csr_from_der(request, sizeof(request), &csr), 0);
	now_s = crypto_cert_not_before_s(user) + 1;
	assert_true(crypto_cert_is_self_signed(domain));
	assert_int_equal(crypto_cert_verify(domain, domain, "example.com", now_s), 0);
	assert_int_equal(crypto_cert_verify(user, domain, "alice@example.com", now_s), 0);
	assert_string_equal(crypto_csr_subject(csr), "alice@example.com");
	assert_memory_equal(crypto_csr_spki_hash(csr), crypto_cert_spki_hash(user), 32);
	assert_int_equal(crypto_cert_not_after_s(user) - crypto_cert_not_before_s(user),
			 365 * DAY_S);
}

static void weak_digests_are_refused_in_users_and_domains(void **state)
{
	static const char *const digests[] = { "MD5", "SHA1", "SHA224" };
	const struct forge anchor_recipe = stock();
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *anchor = forge_cert(&anchor_recipe);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(digests); i++) {
		struct forge domain_recipe = stock(), user_recipe = stock_user();

		domain_recipe.digest = user_recipe.digest = digests[i];
		struct crypto_cert *domain = forge_cert(&domain_recipe);
		struct crypto_cert *user = forge_cert(&user_recipe);

		assert_int_equal(crypto_cert_verify(user, anchor, ALICE, NOW_S),
				 CRYPTO_VERIFY_WEAK_DIGEST);
		assert_int_equal(crypto_cert_check(domain, "example.com", NOW_S),
				 CRYPTO_VERIFY_WEAK_DIGEST);
		assert_int_equal(crypto_cert_verify(domain, domain, "example.com", NOW_S),
				 CRYPTO_VERIFY_WEAK_DIGEST);
		crypto_cert_unref(domain);
		crypto_cert_unref(user);
	}
}

static void short_and_strange_keys_are_refused_in_users_and_domains(void **state)
{
	EVP_PKEY *keys[] = { forge_rsa(1024), forge_rsa(2040), forge_ec("P-384"),
			     forge_ec("secp256k1") };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const struct forge good_recipe = stock();
		struct forge user_recipe = stock_user(), domain_recipe = stock();

		user_recipe.pkey = keys[i];
		domain_recipe.pkey = keys[i];
		struct crypto_cert *good = forge_cert(&good_recipe);
		struct crypto_cert *user = forge_cert(&user_recipe);
		struct crypto_cert *domain = forge_cert(&domain_recipe);
		user_recipe.pkey = w.rsa_user;
		user_recipe.signer = keys[i];
		struct crypto_cert *user_of_weak = forge_cert(&user_recipe);

		assert_int_equal(crypto_cert_verify(user, good, ALICE, NOW_S),
				 CRYPTO_VERIFY_WEAK_KEY);
		assert_int_equal(crypto_cert_check(domain, NULL, NOW_S), CRYPTO_VERIFY_WEAK_KEY);
		assert_int_equal(crypto_cert_verify(user_of_weak, domain, ALICE, NOW_S),
				 CRYPTO_VERIFY_WEAK_KEY);
		crypto_cert_unref(good);
		crypto_cert_unref(user);
		crypto_cert_unref(domain);
		crypto_cert_unref(user_of_weak);
		EVP_PKEY_free(keys[i]);
	}
}

static void names_that_could_be_read_in_two_ways_are_refused(void **state)
{
	static const struct forge_name two[] = { { NID_commonName, ALICE, -1, 0 },
						 { NID_commonName, "bob@example.com", -1, 0 },
						 { 0 } };
	static const struct forge_name with_o[] = { { NID_organizationName, "Acme", -1, 0 },
						    { NID_commonName, ALICE, -1, 0 },
						    { 0 } };
	static const struct forge_name nul[] = {
		{ NID_commonName, "alice@example.com\0.evil.test", 28, 0 }, { 0 }
	};
	static const struct forge_name control[] = { { NID_commonName, "alice@\x1b[31mx", -1, 0 },
						     { 0 } };
	static const struct forge_name wide[] = {
		{ NID_commonName, "alice@ex\xc3\xa4mple.com", -1, 0 }, { 0 }
	};
	static const struct forge_name bmp[] = {
		{ NID_commonName, "\0a\0@\0b", 6, V_ASN1_BMPSTRING }, { 0 }
	};
	static const struct forge_name o_only[] = { { NID_organizationName, ALICE, -1, 0 }, { 0 } };
	static const struct forge_name empty[] = { { NID_commonName, "", 0, 0 }, { 0 } };
	static const struct forge_name none[] = { { 0 } };
	static const struct forge_name *const names[] = { two, with_o, nul,   control, wide,
							  bmp, o_only, empty, none };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct forge good_recipe = stock();
		struct forge user_recipe = stock_user(), domain_recipe = stock();

		user_recipe.subject_names = names[i];
		domain_recipe.subject_names = names[i];
		struct crypto_cert *good = forge_cert(&good_recipe);
		struct crypto_cert *user = forge_cert(&user_recipe);
		struct crypto_cert *domain = forge_cert(&domain_recipe);

		assert_null(crypto_cert_subject(user));
		assert_non_null(crypto_cert_issuer(user));
		assert_null(crypto_cert_issuer(domain));
		assert_int_equal(crypto_cert_verify(user, good, ALICE, NOW_S),
				 CRYPTO_VERIFY_MALFORMED);
		assert_int_equal(crypto_cert_verify(user, good, NULL, NOW_S),
				 CRYPTO_VERIFY_MALFORMED);
		assert_int_equal(crypto_cert_verify(domain, domain, NULL, NOW_S),
				 CRYPTO_VERIFY_MALFORMED);
		crypto_cert_unref(good);
		crypto_cert_unref(user);
		crypto_cert_unref(domain);
	}
}

static void an_old_string_type_that_holds_ascii_is_read(void **state)
{
	static const struct forge_name types[][2] = {
		{ { NID_commonName, ALICE, -1, V_ASN1_T61STRING }, { 0 } },
		{ { NID_commonName, ALICE, -1, V_ASN1_IA5STRING }, { 0 } },
		{ { NID_commonName, ALICE, -1, V_ASN1_PRINTABLESTRING }, { 0 } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct forge recipe = stock_user();

		recipe.subject_names = types[i];
		struct crypto_cert *cert = forge_cert(&recipe);
		assert_string_equal(crypto_cert_subject(cert), ALICE);
		crypto_cert_unref(cert);
	}
}

struct extension_case {
	struct forge_extension extensions[4];
	int as_user, as_anchor;
};

static void extensions_are_obeyed(void **state)
{
	static const struct extension_case cases[] = {
		{ { { 0 } }, 0, CRYPTO_VERIFY_NOT_A_CA }, /* version 3 that says nothing */
		{ { { NID_basic_constraints, "critical,CA:TRUE" } }, CRYPTO_VERIFY_WRONG_USE, 0 },
		{ { { NID_basic_constraints, "critical,CA:FALSE" } }, 0, CRYPTO_VERIFY_NOT_A_CA },
		{ { { NID_basic_constraints, "CA:TRUE" }, { NID_key_usage, "digitalSignature" } },
		  CRYPTO_VERIFY_WRONG_USE,
		  CRYPTO_VERIFY_NOT_A_CA },
		{ { { NID_basic_constraints, "CA:TRUE" }, { NID_key_usage, "keyCertSign" } },
		  CRYPTO_VERIFY_WRONG_USE,
		  0 },
		{ { { NID_ext_key_usage, "clientAuth" } },
		  CRYPTO_VERIFY_WRONG_USE,
		  CRYPTO_VERIFY_NOT_A_CA },
		{ { { NID_ext_key_usage, "clientAuth,serverAuth" } }, 0, CRYPTO_VERIFY_NOT_A_CA },
		{ { { NID_ext_key_usage, "codeSigning" } },
		  CRYPTO_VERIFY_WRONG_USE,
		  CRYPTO_VERIFY_NOT_A_CA },
		{ { { NID_key_usage, "keyAgreement" } },
		  CRYPTO_VERIFY_WRONG_USE,
		  CRYPTO_VERIFY_NOT_A_CA },
		/* Critical, and nothing that we know. */
		{ { { NID_netscape_comment, "critical,x" } },
		  CRYPTO_VERIFY_MALFORMED,
		  CRYPTO_VERIFY_MALFORMED },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct forge good_recipe = stock(), good_user_recipe = stock_user();
		struct forge user_recipe = stock_user(), domain_recipe = stock();

		user_recipe.version = domain_recipe.version = 2;
		user_recipe.extensions = domain_recipe.extensions = cases[i].extensions;
		struct crypto_cert *good = forge_cert(&good_recipe);
		struct crypto_cert *good_user = forge_cert(&good_user_recipe);
		struct crypto_cert *user = forge_cert(&user_recipe);
		struct crypto_cert *domain = forge_cert(&domain_recipe);

		if (crypto_cert_verify(user, good, ALICE, NOW_S) != cases[i].as_user ||
		    crypto_cert_verify(good_user, domain, ALICE, NOW_S) != cases[i].as_anchor)
			fail_msg("case %zu: user %s, anchor %s", i,
				 crypto_verify_name((enum crypto_verify)crypto_cert_verify(
					 user, good, ALICE, NOW_S)),
				 crypto_verify_name((enum crypto_verify)crypto_cert_verify(
					 good_user, domain, ALICE, NOW_S)));
		crypto_cert_unref(good);
		crypto_cert_unref(good_user);
		crypto_cert_unref(user);
		crypto_cert_unref(domain);
	}
}

static void a_certificate_with_any_byte_changed_is_refused(void **state)
{
	uint8_t copy[CRYPTO_CERT_MAX_BYTES];
	const uint8_t *der;
	size_t n;

	(void)state;
	der = crypto_cert_der(w.alice, &n);
	memcpy(copy, der, n);
	for (size_t i = 0; i < n; i++) {
		for (int flip = 1; flip <= 0x80; flip <<= 1) {
			_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;

			copy[i] ^= (uint8_t)flip;
			if (crypto_cert_from_der(copy, n, &cert) == 0 &&
			    crypto_cert_verify(cert, w.domain, ALICE, NOW_S) == 0)
				fail_msg("byte %zu, bit %02x", i, flip);
			assert_int_equal(ERR_peek_error(), 0);
			copy[i] ^= (uint8_t)flip;
		}
	}
	for (size_t i = 0; i <= n + 1; i++) {
		struct crypto_cert *cert = NULL;

		if (i != n)
			assert_int_equal(crypto_cert_from_der(copy, i, &cert), -EBADMSG);
	}
}

static void ber_is_not_taken_for_der(void **state)
{
	uint8_t ber[CRYPTO_CERT_MAX_BYTES];
	struct crypto_cert *cert = NULL;
	const uint8_t *der;
	size_t n;

	(void)state;
	der = crypto_cert_der(w.alice, &n);
	assert_int_equal(der[0], 0x30);
	assert_int_equal(der[1], 0x82);
	/* The outer length in three bytes instead of two. */
	ber[0] = 0x30;
	ber[1] = 0x83;
	ber[2] = 0;
	memcpy(ber + 3, der + 2, n - 2);
	assert_int_equal(crypto_cert_from_der(ber, n + 1, &cert), -EBADMSG);
}

/* ---- requests -------------------------------------------------------------------------- */

static void a_request_with_any_byte_changed_is_refused(void **state)
{
	struct buffer der;
	uint8_t copy[2048];
	size_t n;

	(void)state;
	buffer_init(&der, 8192, false);
	assert_int_equal(crypto_csr_make(w.alice_key, ALICE, &der), 0);
	n = buffer_used(&der);
	memcpy(copy, buffer_peek(&der), n);
	buffer_fini(&der);
	for (size_t i = 0; i < n; i++) {
		struct crypto_csr *csr = NULL;

		copy[i] ^= 0x04;
		if (crypto_csr_from_der(copy, n, &csr) <= 0)
			fail_msg("byte %zu", i);
		assert_int_equal(ERR_peek_error(), 0);
		copy[i] ^= 0x04;
		assert_int_equal(crypto_csr_from_der(copy, i, &csr), CRYPTO_VERIFY_MALFORMED);
	}
	copy[n] = 0;
	assert_int_equal(crypto_csr_from_der(copy, n + 1, &(struct crypto_csr *){ NULL }),
			 CRYPTO_VERIFY_MALFORMED);
}

static int parse_forged_request(EVP_PKEY *pkey, const char *digest, const struct forge_name *names)
{
	X509_REQ *req = X509_REQ_new();
	X509_NAME *name = X509_NAME_new();
	struct crypto_csr *csr = NULL;
	unsigned char *der = NULL;
	int n, r;

	for (; names->nid; names++)
		X509_NAME_add_entry_by_NID(name, names->nid, V_ASN1_UTF8STRING,
					   (const unsigned char *)names->text, names->n_bytes, -1,
					   0);
	X509_REQ_set_subject_name(req, name);
	X509_REQ_set_pubkey(req, pkey);
	assert_true(X509_REQ_sign(req, pkey, EVP_get_digestbyname(digest)) > 0);
	n = i2d_X509_REQ(req, &der);
	r = crypto_csr_from_der(der, (size_t)n, &csr);
	crypto_csr_free(csr);
	OPENSSL_free(der);
	X509_NAME_free(name);
	X509_REQ_free(req);
	return r;
}

static void bad_requests_get_their_reason(void **state)
{
	static const struct forge_name good[] = { { NID_commonName, ALICE, -1, 0 }, { 0 } };
	static const struct forge_name two[] = { { NID_commonName, ALICE, -1, 0 },
						 { NID_commonName, "b", -1, 0 },
						 { 0 } };
	static const struct forge_name nul[] = { { NID_commonName, "a\0b", 3, 0 }, { 0 } };
	static const struct forge_name none[] = { { 0 } };
	EVP_PKEY *rsa1024 = forge_rsa(1024);

	(void)state;
	assert_int_equal(parse_forged_request(w.rsa, "SHA256", good), 0);
	assert_int_equal(parse_forged_request(w.ec, "SHA384", good), 0);
	assert_int_equal(parse_forged_request(w.rsa, "SHA1", good), CRYPTO_VERIFY_WEAK_DIGEST);
	assert_int_equal(parse_forged_request(w.rsa, "MD5", good), CRYPTO_VERIFY_WEAK_DIGEST);
	assert_int_equal(parse_forged_request(rsa1024, "SHA256", good), CRYPTO_VERIFY_WEAK_KEY);
	assert_int_equal(parse_forged_request(w.rsa, "SHA256", two), CRYPTO_VERIFY_WRONG_NAME);
	assert_int_equal(parse_forged_request(w.rsa, "SHA256", nul), CRYPTO_VERIFY_WRONG_NAME);
	assert_int_equal(parse_forged_request(w.rsa, "SHA256", none), CRYPTO_VERIFY_WRONG_NAME);
	EVP_PKEY_free(rsa1024);
}

static void every_reason_has_a_name_and_a_sentence(void **state)
{
	(void)state;
	for (int i = 0; i < CRYPTO_VERIFY_COUNT; i++) {
		assert_true(strlen(crypto_verify_name((enum crypto_verify)i)) > 1);
		assert_true(strlen(crypto_verify_text((enum crypto_verify)i)) > 10);
	}
	assert_string_equal(crypto_verify_name(CRYPTO_VERIFY_COUNT), "?");
}

#define TEST(f) cmocka_unit_test_teardown(f, queue_is_empty)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(keys_of_each_kind_make_the_round_trip_through_pem),
		TEST(a_file_of_certificate_and_key_gives_both),
		TEST(weak_and_strange_keys_are_refused),
		TEST(a_traditional_pem_of_a_stock_program_is_read),
		TEST(a_damaged_key_file_is_refused),
		TEST(a_domain_certificate_says_what_it_should),
		TEST(the_certificates_please_openssl_s_own_path_validation),
		TEST(serials_are_random_positive_and_long),
		TEST(a_throwaway_certificate_serves_until_there_is_a_real_one),
		TEST(user_certificates_verify_for_keys_of_each_kind),
		TEST(the_longest_address_fits_and_a_longer_one_is_refused),
		TEST(issuing_needs_the_issuer_s_key_and_the_requested_name),
		TEST(each_wrong_certificate_gets_its_own_reason),
		TEST(certificates_of_a_stock_server_are_accepted),
		TEST(the_recorded_certificates_of_a_stock_server_verify),
		TEST(weak_digests_are_refused_in_users_and_domains),
		TEST(short_and_strange_keys_are_refused_in_users_and_domains),
		TEST(names_that_could_be_read_in_two_ways_are_refused),
		TEST(an_old_string_type_that_holds_ascii_is_read),
		TEST(extensions_are_obeyed),
		TEST(a_certificate_with_any_byte_changed_is_refused),
		TEST(ber_is_not_taken_for_der),
		TEST(a_request_with_any_byte_changed_is_refused),
		TEST(bad_requests_get_their_reason),
		TEST(every_reason_has_a_name_and_a_sentence),
	};

	return cmocka_run_group_tests_name("crypto: certificates", tests, make_world, end_world);
}
