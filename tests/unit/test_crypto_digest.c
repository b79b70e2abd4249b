#include "unit.h"
#include "crypto/crypto.h"

#include <openssl/err.h>

static size_t from_hex(const char *text, uint8_t *out)
{
	const size_t n_bytes = strlen(text) / 2;

	assert_int_equal(hex_decode(text, out, n_bytes), 0);
	return n_bytes;
}

static void assert_hex(const uint8_t *data, size_t n_bytes, const char *expected)
{
	uint8_t wanted[256];

	assert_int_equal(from_hex(expected, wanted), n_bytes);
	assert_memory_equal(data, wanted, n_bytes);
}

static void sha256_and_hmac_give_the_published_values(void **state)
{
	uint8_t out[CRYPTO_HASH_BYTES];

	(void)state;
	assert_int_equal(crypto_sha256("abc", 3, out), 0);
	assert_hex(out, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	/* RFC 4231, test case 2 */
	assert_int_equal(crypto_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, out), 0);
	assert_hex(out, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

struct hkdf_vector {
	const char *ikm, *salt, *info, *prk, *okm;
};

/* RFC 5869, appendix A */
static const struct hkdf_vector hkdf_vectors[] = {
	{ "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
	  "f0f1f2f3f4f5f6f7f8f9",
	  "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
	  "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865" },
	{ "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	  "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
	  "404142434445464748494a4b4c4d4e4f",
	  "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
	  "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
	  "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
	  "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
	  "d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeef"
	  "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
	  "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
	  "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
	  "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
	  "cc30c58179ec3e87c14c01d5c1f3434f1d87" },
	{ "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
	  "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
	  "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
	  "9d201395faa4b61a96c8" },
};

static void hkdf_gives_the_values_of_rfc_5869(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hkdf_vectors); i++) {
		const struct hkdf_vector *v = &hkdf_vectors[i];
		uint8_t ikm[128], salt[128], info[128], prk[32], okm[128];
		const size_t ikm_bytes = from_hex(v->ikm, ikm);
		const size_t salt_bytes = from_hex(v->salt, salt);
		const size_t info_bytes = from_hex(v->info, info);
		const size_t okm_bytes = strlen(v->okm) / 2;

		assert_int_equal(crypto_hkdf_extract(salt, salt_bytes, ikm, ikm_bytes, prk), 0);
		assert_hex(prk, sizeof(prk), v->prk);
		assert_int_equal(crypto_hkdf_expand(prk, info, info_bytes, okm, okm_bytes), 0);
		assert_hex(okm, okm_bytes, v->okm);
		memset(okm, 0, sizeof(okm));
		assert_int_equal(crypto_hkdf(salt, salt_bytes, ikm, ikm_bytes, info, info_bytes,
					     okm, okm_bytes),
				 0);
		assert_hex(okm, okm_bytes, v->okm);
	}
}

static void hkdf_stops_at_its_limit(void **state)
{
	static uint8_t out[255 * 32 + 1];
	const uint8_t prk[32] = { 1 };

	(void)state;
	assert_int_equal(crypto_hkdf_expand(prk, NULL, 0, out, 255 * 32), 0);
	assert_int_equal(crypto_hkdf_expand(prk, NULL, 0, out, 255 * 32 + 1), -EINVAL);
}

static void scrypt_gives_the_values_of_rfc_7914(void **state)
{
	uint8_t out[64];

	(void)state;
	assert_int_equal(crypto_scrypt("", 0, "", 0, 16, 1, 1, out, sizeof(out)), 0);
	assert_hex(out, sizeof(out),
		   "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
		   "fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906");
	assert_int_equal(crypto_scrypt("password", 8, "NaCl", 4, 1024, 8, 16, out, sizeof(out)), 0);
	assert_hex(out, sizeof(out),
		   "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
		   "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640");
}

static void scrypt_refuses_parameters_without_sense_or_measure(void **state)
{
	uint8_t out[32];

	(void)state;
	assert_int_equal(crypto_scrypt("x", 1, "y", 1, 1000, 8, 1, out, 32), -EINVAL);
	assert_int_equal(crypto_scrypt("x", 1, "y", 1, 1u << 20, 8, 1, out, 32), -EINVAL);
	assert_int_equal(crypto_scrypt("x", 1, "y", 1, 1024, 0, 1, out, 32), -EINVAL);
	assert_int_equal(ERR_peek_error(), 0);
}

static void a_password_is_known_again_and_no_other_is(void **state)
{
	char text[CRYPTO_PASSWORD_TEXT_BYTES], again[CRYPTO_PASSWORD_TEXT_BYTES];

	(void)state;
	assert_int_equal(crypto_password_hash("correct horse", 13, CRYPTO_PASSWORD_COST, text), 0);
	assert_int_equal(crypto_password_verify(text, "correct horse", 13), 0);
	assert_int_equal(crypto_password_verify(text, "correct horsf", 13), CRYPTO_PASSWORD_WRONG);
	assert_int_equal(crypto_password_verify(text, "correct hors", 12), CRYPTO_PASSWORD_WRONG);
	assert_int_equal(crypto_password_verify(text, "", 0), CRYPTO_PASSWORD_WRONG);
	assert_int_equal(crypto_password_verify(NULL, "correct horse", 13), CRYPTO_PASSWORD_WRONG);

	/* A salt of its own each time. */
	assert_int_equal(crypto_password_hash("correct horse", 13, 10, text), 0);
	assert_int_equal(crypto_password_hash("correct horse", 13, 10, again), 0);
	assert_string_not_equal(text, again);
}

static void a_stored_hash_that_was_altered_matches_nothing(void **state)
{
	char text[CRYPTO_PASSWORD_TEXT_BYTES];
	size_t n;

	(void)state;
	assert_int_equal(crypto_password_hash("pw", 2, 10, text), 0);
	assert_memory_equal(text, "$scrypt$ln=10,r=8,p=1$", 22);
	n = strlen(text);
	for (size_t i = 0; i < n; i++) {
		const char kept = text[i];

		text[i] = kept == 'A' ? 'B' : 'A';
		assert_int_not_equal(crypto_password_verify(text, "pw", 2), 0);
		text[i] = kept;
	}
	assert_int_equal(crypto_password_verify(text, "pw", 2), 0);
	for (size_t i = 0; i < n; i++) {
		char cut[CRYPTO_PASSWORD_TEXT_BYTES];

		memcpy(cut, text, i);
		cut[i] = '\0';
		assert_int_not_equal(crypto_password_verify(cut, "pw", 2), 0);
	}
}

static void a_stored_hash_cannot_ask_for_too_much_work(void **state)
{
	static const char *const bad[] = {
		"",
		"$scrypt$",
		"$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=18,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=9,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=17,r=16,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=10,r=8,p=5$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=10,r=8,p=0$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=010,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=-1,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=10,r=8,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
		"$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA$",
		"$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA$",
		"$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAB$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA==$"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$scrypt$ln=10,r=8,p=1$AAAAAAAA "
		"AAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	};
	char out[CRYPTO_PASSWORD_TEXT_BYTES];
	static char long_password[CRYPTO_PASSWORD_MAX_BYTES + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(crypto_password_verify(bad[i], "pw", 2), -EBADMSG);
	assert_int_equal(crypto_password_hash("pw", 2, 9, out), -EINVAL);
	assert_int_equal(crypto_password_hash("pw", 2, 18, out), -EINVAL);
	assert_int_equal(crypto_password_hash(long_password, sizeof(long_password), 10, out),
			 -EINVAL);
}

static void a_hash_of_another_scrypt_program_is_understood(void **state)
{
	(void)state;
	/* python3: hashlib.scrypt(b'correct horse', salt=bytes(range(16)), n=2**14, r=8, p=1,
	 * dklen=32) */
	assert_int_equal(crypto_password_verify("$scrypt$ln=14,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$"
						"JbN2hANm9NOw4h5BRHZnbjzQ6Jr0QwNWojTOC2WgIbU",
						"correct horse", 13),
			 0);
}

static void a_fingerprint_makes_the_round_trip(void **state)
{
	uint8_t hash[32], back[32];
	char text[CRYPTO_FINGERPRINT_BYTES];

	(void)state;
	assert_int_equal(crypto_sha256("abc", 3, hash), 0);
	/* printf abc | openssl dgst -sha256 -binary | base64 */
	assert_string_equal(crypto_fingerprint(hash, text),
			    "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0");
	assert_int_equal(crypto_fingerprint_parse(text, back), 0);
	assert_memory_equal(back, hash, 32);
	assert_int_equal(crypto_fingerprint_parse("SHA256:", back), -EINVAL);
	assert_int_equal(crypto_fingerprint_parse(text + 1, back), -EINVAL);
	text[CRYPTO_FINGERPRINT_BYTES - 2]++; /* the two bits that must be zero */
	assert_int_equal(crypto_fingerprint_parse(text, back), -EINVAL);
	text[CRYPTO_FINGERPRINT_BYTES - 2] = '=';
	assert_int_equal(crypto_fingerprint_parse(text, back), -EINVAL);
}

static void random_bytes_differ(void **state)
{
	uint8_t a[32] = { 0 }, b[32] = { 0 };

	(void)state;
	assert_int_equal(crypto_random(a, sizeof(a)), 0);
	assert_int_equal(crypto_random(b, sizeof(b)), 0);
	assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sha256_and_hmac_give_the_published_values),
		cmocka_unit_test(hkdf_gives_the_values_of_rfc_5869),
		cmocka_unit_test(hkdf_stops_at_its_limit),
		cmocka_unit_test(scrypt_gives_the_values_of_rfc_7914),
		cmocka_unit_test(scrypt_refuses_parameters_without_sense_or_measure),
		cmocka_unit_test(a_password_is_known_again_and_no_other_is),
		cmocka_unit_test(a_stored_hash_that_was_altered_matches_nothing),
		cmocka_unit_test(a_stored_hash_cannot_ask_for_too_much_work),
		cmocka_unit_test(a_hash_of_another_scrypt_program_is_understood),
		cmocka_unit_test(a_fingerprint_makes_the_round_trip),
		cmocka_unit_test(random_bytes_differ),
	};

	return cmocka_run_group_tests_name("crypto: digests and passwords", tests, NULL, NULL);
}
