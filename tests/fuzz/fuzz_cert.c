/*
 * Whatever comes as a certificate, a request or a PEM file is parsed, judged
 * or refused. The first byte says as which.
 */
#include "crypto/crypto.h"

enum { NOW_S = 1800000000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

/* The name that was let through must be one that can be shown and compared. */
static void check_name(const char *name)
{
	if (!name)
		return;
	if (name[0] == '\0' || strlen(name) >= CRYPTO_NAME_MAX_BYTES - 1)
		abort();
	for (; *name; name++)
		if (*name < 0x21 || *name > 0x7e)
			abort();
}

static void use_cert(struct crypto_cert *cert)
{
	char text[CRYPTO_FINGERPRINT_BYTES];
	uint8_t hash[CRYPTO_HASH_BYTES];
	struct crypto_cert *again = NULL;
	const uint8_t *der;
	size_t der_bytes;
	int r;

	check_name(crypto_cert_subject(cert));
	check_name(crypto_cert_issuer(cert));
	r = crypto_cert_verify(cert, cert, NULL, NOW_S);
	if (r < 0 || r >= CRYPTO_VERIFY_COUNT)
		abort();
	if (r == 0 && (!crypto_cert_subject(cert) || !crypto_cert_is_self_signed(cert)))
		abort();
	r = crypto_cert_check(cert, "example.com", NOW_S);
	if (r < 0 || r >= CRYPTO_VERIFY_COUNT)
		abort();
	if (crypto_fingerprint_parse(crypto_cert_fingerprint(cert, text), hash) != 0)
		abort();
	der = crypto_cert_der(cert, &der_bytes);
	if (crypto_cert_from_der(der, der_bytes, &again) != 0 || !crypto_cert_same_key(cert, again))
		abort();
	crypto_cert_unref(again);
}

static void try_csr(const uint8_t *data, size_t data_bytes)
{
	struct crypto_csr *csr = NULL;
	const int r = crypto_csr_from_der(data, data_bytes, &csr);

	if (r == 0)
		check_name(crypto_csr_subject(csr));
	else if (r < 0 || csr)
		abort();
	crypto_csr_free(csr);
}

static void try_pem(const uint8_t *data, size_t data_bytes)
{
	struct crypto_cert *cert = NULL;
	struct crypto_key *key = NULL;
	struct buffer out;

	if (crypto_cert_from_pem(data, data_bytes, &cert) == 0)
		use_cert(cert);
	if (crypto_key_from_pem(data, data_bytes, &key) == 0) {
		buffer_init(&out, CRYPTO_PEM_MAX_BYTES, true);
		if (crypto_key_to_pem(key, &out) != 0)
			abort();
		buffer_fini(&out);
		if (cert)
			crypto_cert_matches_key(cert, key);
	}
	crypto_cert_unref(cert);
	crypto_key_free(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	struct crypto_cert *cert = NULL;

	if (data_bytes == 0)
		return 0;
	switch (*data % 3) {
	case 0:
		if (crypto_cert_from_der(data + 1, data_bytes - 1, &cert) == 0)
			use_cert(cert);
		crypto_cert_unref(cert);
		break;
	case 1:
		try_csr(data + 1, data_bytes - 1);
		break;
	default:
		try_pem(data + 1, data_bytes - 1);
		break;
	}
	return 0;
}
