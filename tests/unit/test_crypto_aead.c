#include "unit.h"
#include "crypto/crypto.h"

#include <openssl/err.h>

struct vector {
	enum crypto_aead_kind kind;
	const char *key, *nonce, *aad, *plain, *sealed; /* hex; the tag at the end */
};

static const struct vector vectors[] = {
	/* The GCM specification, test cases 13, 14 and 16 */
	{ CRYPTO_AEAD_AES_256_GCM,
	  "0000000000000000000000000000000000000000000000000000000000000000",
	  "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b" },
	{ CRYPTO_AEAD_AES_256_GCM,
	  "0000000000000000000000000000000000000000000000000000000000000000",
	  "000000000000000000000000", "", "00000000000000000000000000000000",
	  "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919" },
	{ CRYPTO_AEAD_AES_256_GCM,
	  "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
	  "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	  "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
	  "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	  "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
	  "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
	  "76fc6ece0f4e1768cddf8853bb2d551b" },
	/* RFC 8439, section 2.8.2 */
	{ CRYPTO_AEAD_CHACHA20_POLY1305,
	  "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
	  "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
	  "4c616469657320616e642047656e746c656d656e206f662074686520636c6173"
	  "73206f66202739393a204966204920636f756c64206f6666657220796f75206f"
	  "6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
	  "637265656e20776f756c642062652069742e",
	  "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
	  "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
	  "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
	  "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691" },
};

static size_t from_hex(const char *text, uint8_t *out)
{
	assert_int_equal(hex_decode(text, out, strlen(text) / 2), 0);
	return strlen(text) / 2;
}

static void sealing_gives_the_published_values_in_place_and_beside(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		const struct vector *v = &vectors[i];
		uint8_t key[32], nonce[12], aad[32], plain[128], sealed[160], out[160];
		_cleanup_(crypto_aead_freep) struct crypto_aead *aead = NULL;
		const size_t aad_bytes = from_hex(v->aad, aad);
		const size_t n_bytes = from_hex(v->plain, plain);
		const size_t sealed_bytes = from_hex(v->sealed, sealed);

		from_hex(v->key, key);
		from_hex(v->nonce, nonce);
		assert_int_equal(sealed_bytes, n_bytes + CRYPTO_AEAD_TAG_BYTES);
		assert_int_equal(crypto_aead_new(v->kind, key, NULL, &aead), 0);
		for (int round = 0; round < 3; round++) { /* the context is kept between packets */
			assert_int_equal(
				crypto_aead_seal(aead, nonce, aad, aad_bytes, plain, n_bytes, out),
				0);
			assert_memory_equal(out, sealed, sealed_bytes);
			assert_int_equal(crypto_aead_open(aead, nonce, aad, aad_bytes, out,
							  sealed_bytes, out),
					 0);
			assert_memory_equal(out, plain, n_bytes);
			assert_int_equal(
				crypto_aead_seal(aead, nonce, aad, aad_bytes, out, n_bytes, out),
				0);
			assert_memory_equal(out, sealed, sealed_bytes);
		}
	}
}

static void the_packet_number_makes_the_nonce_as_in_rfc_9001(void **state)
{
	_cleanup_(crypto_aead_freep) struct crypto_aead *aead = NULL;
	uint8_t key[32], iv[12], aad[4], sealed[17], packet[17] = { 0x01 };

	(void)state;
	/* Appendix A.5 */
	from_hex("c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8", key);
	from_hex("e0459b3474bdd0e44a41c144", iv);
	from_hex("4200bff4", aad);
	from_hex("655e5cd55c41f69080575d7999c25a5bfb", sealed);
	assert_int_equal(crypto_aead_new(CRYPTO_AEAD_CHACHA20_POLY1305, key, iv, &aead), 0);
	assert_int_equal(crypto_aead_seal_packet(aead, 654360564, aad, 4, packet, 1), 0);
	assert_memory_equal(packet, sealed, sizeof(sealed));
	assert_int_equal(crypto_aead_open_packet(aead, 654360563, aad, 4, packet, 17), -EBADMSG);
	memcpy(packet, sealed, sizeof(sealed));
	assert_int_equal(crypto_aead_open_packet(aead, 654360564, aad, 4, packet, 17), 0);
	assert_int_equal(packet[0], 1);
}

static void all_64_bits_of_the_packet_number_count(void **state)
{
	const uint8_t key[32] = { 7 }, iv[12] = { 1, 2, 3 };

	(void)state;
	for (int kind = 0; kind < CRYPTO_AEAD_KIND_COUNT; kind++) {
		_cleanup_(crypto_aead_freep) struct crypto_aead *aead = NULL;

		assert_int_equal(crypto_aead_new((enum crypto_aead_kind)kind, key, iv, &aead), 0);
		for (int bit = 0; bit < 64; bit++) {
			uint8_t packet[4 + 16] = "abcd";

			assert_int_equal(crypto_aead_seal_packet(aead, 0, NULL, 0, packet, 4), 0);
			assert_int_equal(crypto_aead_open_packet(aead, UINT64_C(1) << bit, NULL, 0,
								 packet, sizeof(packet)),
					 -EBADMSG);
		}
	}
}

static void a_packet_with_any_bit_flipped_or_cut_is_refused_and_wiped(void **state)
{
	const uint8_t key[32] = { 1 }, nonce[12] = { 2 };

	(void)state;
	for (int kind = 0; kind < CRYPTO_AEAD_KIND_COUNT; kind++) {
		_cleanup_(crypto_aead_freep) struct crypto_aead *aead = NULL;
		uint8_t aad[] = "header", plain[] = "the secret", sealed[sizeof(plain) + 16];
		const uint8_t zeros[sizeof(plain)] = { 0 };

		assert_int_equal(crypto_aead_new((enum crypto_aead_kind)kind, key, NULL, &aead), 0);
		assert_int_equal(crypto_aead_seal(aead, nonce, aad, sizeof(aad), plain,
						  sizeof(plain), sealed),
				 0);
		for (size_t bit = 0; bit < 8 * (sizeof(sealed) + sizeof(aad)); bit++) {
			uint8_t *at = bit / 8 < sizeof(sealed) ? &sealed[bit / 8]
							       : &aad[bit / 8 - sizeof(sealed)];
			uint8_t out[sizeof(plain)] = { 0 };

			*at ^= (uint8_t)(1 << bit % 8);
			assert_int_equal(crypto_aead_open(aead, nonce, aad, sizeof(aad), sealed,
							  sizeof(sealed), out),
					 -EBADMSG);
			assert_memory_equal(out, zeros, sizeof(out));
			assert_int_equal(ERR_peek_error(), 0);
			*at ^= (uint8_t)(1 << bit % 8);
		}
		for (size_t n = 0; n < sizeof(sealed); n++) {
			uint8_t out[sizeof(plain)];

			assert_int_equal(
				crypto_aead_open(aead, nonce, aad, sizeof(aad), sealed, n, out),
				-EBADMSG);
		}
	}
}

static void every_size_up_to_a_datagram_makes_the_round_trip(void **state)
{
	static uint8_t plain[1500], packet[1500 + 16];
	const uint8_t key[32] = { 3 }, iv[12] = { 4 };

	(void)state;
	for (size_t i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)(i * 31);
	for (int kind = 0; kind < CRYPTO_AEAD_KIND_COUNT; kind++) {
		_cleanup_(crypto_aead_freep) struct crypto_aead *aead = NULL;

		assert_int_equal(crypto_aead_new((enum crypto_aead_kind)kind, key, iv, &aead), 0);
		for (size_t n = 0; n <= sizeof(plain); n++) {
			memcpy(packet, plain, n);
			assert_int_equal(crypto_aead_seal_packet(aead, n, plain, n % 40, packet, n),
					 0);
			assert_int_equal(
				crypto_aead_open_packet(aead, n, plain, n % 40, packet, n + 16), 0);
			assert_memory_equal(packet, plain, n);
		}
	}
}

/* SplitMix64: the seed alone decides. */
static uint64_t next_random(uint64_t *seed)
{
	uint64_t x = *seed += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static struct crypto_aead *aead_by(enum crypto_aead_backend backend, enum crypto_aead_kind kind,
				   const uint8_t *key)
{
	struct crypto_aead *aead = NULL;

	assert_int_equal(crypto_aead_use(backend), 0);
	assert_int_equal(crypto_aead_new(kind, key, NULL, &aead), 0);
	return aead;
}

enum { LONG_BYTES = 17000, TAG = CRYPTO_AEAD_TAG_BYTES };

/* One packet of `a`: the same as that of `b`, opened by `b`, and refused with a bad tag. */
static void compare_once(struct crypto_aead *a, struct crypto_aead *b, uint64_t *seed,
			 size_t n_bytes)
{
	static uint8_t plain[LONG_BYTES + 64], sealed_a[LONG_BYTES + TAG + 64],
		sealed_b[LONG_BYTES + TAG + 64], out[LONG_BYTES + 64];
	static const uint8_t zeros[LONG_BYTES];
	const size_t aad_bytes = next_random(seed) % 70, skew = next_random(seed) % 64;
	uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES], aad[70];
	const bool in_place = next_random(seed) & 1;
	uint8_t *const at = plain + skew, *const sealed = sealed_a + next_random(seed) % 64;

	for (size_t i = 0; i < sizeof(nonce); i++)
		nonce[i] = (uint8_t)next_random(seed);
	for (size_t i = 0; i < sizeof(aad); i++)
		aad[i] = (uint8_t)next_random(seed);
	for (size_t i = 0; i < n_bytes; i += 13)
		at[i] = (uint8_t)next_random(seed);
	memcpy(sealed, at, n_bytes);
	assert_int_equal(
		crypto_aead_seal(a, nonce, aad, aad_bytes, in_place ? sealed : at, n_bytes, sealed),
		0);
	assert_int_equal(crypto_aead_seal(b, nonce, aad, aad_bytes, at, n_bytes, sealed_b), 0);
	assert_memory_equal(sealed, sealed_b, n_bytes + TAG);

	assert_int_equal(crypto_aead_open(b, nonce, aad, aad_bytes, sealed, n_bytes + TAG,
					  in_place ? sealed : out + skew),
			 0);
	assert_memory_equal(in_place ? sealed : out + skew, at, n_bytes);

	sealed_b[n_bytes + next_random(seed) % TAG] ^= (uint8_t)(1 << next_random(seed) % 8);
	assert_int_equal(
		crypto_aead_open(b, nonce, aad, aad_bytes, sealed_b, n_bytes + TAG, sealed_b),
		-EBADMSG);
	assert_memory_equal(sealed_b, zeros, n_bytes);
}

static void both_backends_give_the_same_for_all_lengths(void **state)
{
	uint64_t seed = 20260101;

	(void)state;
	if (crypto_aead_use(CRYPTO_AEAD_BACKEND_IPSEC_MB) != 0) {
		crypto_aead_use(CRYPTO_AEAD_BACKEND_AUTO);
		skip(); /* not built in, or not for this CPU */
	}
	for (int kind = 0; kind < CRYPTO_AEAD_KIND_COUNT; kind++) {
		const uint8_t key[CRYPTO_AEAD_KEY_BYTES] = { 9, (uint8_t)kind, 8 };
		_cleanup_(crypto_aead_freep) struct crypto_aead *openssl =
			aead_by(CRYPTO_AEAD_BACKEND_OPENSSL, (enum crypto_aead_kind)kind, key);
		_cleanup_(crypto_aead_freep) struct crypto_aead *mb =
			aead_by(CRYPTO_AEAD_BACKEND_IPSEC_MB, (enum crypto_aead_kind)kind, key);

		for (size_t n = 0; n < 1600; n++) {
			compare_once(openssl, mb, &seed, n);
			compare_once(mb, openssl, &seed, n);
		}
		for (size_t i = 0; i < 300; i++) {
			compare_once(openssl, mb, &seed, next_random(&seed) % LONG_BYTES);
			compare_once(mb, openssl, &seed, next_random(&seed) % LONG_BYTES);
		}
	}
	crypto_aead_use(CRYPTO_AEAD_BACKEND_AUTO);
}

static void the_backend_can_be_chosen(void **state)
{
	(void)state;
	assert_int_equal(crypto_aead_use(CRYPTO_AEAD_BACKEND_OPENSSL), 0);
	assert_string_equal(crypto_aead_backend_name(), "openssl");
	if (crypto_aead_use(CRYPTO_AEAD_BACKEND_IPSEC_MB) == 0)
		assert_string_equal(crypto_aead_backend_name(), "ipsec-mb");
	else
		assert_string_equal(crypto_aead_backend_name(), "openssl");
	assert_int_equal(crypto_aead_use(CRYPTO_AEAD_BACKEND_AUTO), 0);
}

static int use_openssl(void **state)
{
	(void)state;
	return crypto_aead_use(CRYPTO_AEAD_BACKEND_OPENSSL);
}

static int use_what_is_best(void **state)
{
	(void)state;
	return crypto_aead_use(CRYPTO_AEAD_BACKEND_AUTO);
}

static void names_are_told(void **state)
{
	(void)state;
	assert_string_equal(crypto_aead_kind_name(CRYPTO_AEAD_AES_256_GCM), "aes-256-gcm");
	assert_true(strlen(crypto_aead_backend_name()) > 0);
	(void)crypto_aead_aes_is_fast();
}

/* Each test of a packet twice: by OpenSSL, and by the backend that this machine chooses. */
#define BY_EITHER(test)                                                                            \
	cmocka_unit_test_setup_teardown(test, use_openssl, use_what_is_best), cmocka_unit_test(test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BY_EITHER(sealing_gives_the_published_values_in_place_and_beside),
		BY_EITHER(the_packet_number_makes_the_nonce_as_in_rfc_9001),
		BY_EITHER(all_64_bits_of_the_packet_number_count),
		BY_EITHER(a_packet_with_any_bit_flipped_or_cut_is_refused_and_wiped),
		BY_EITHER(every_size_up_to_a_datagram_makes_the_round_trip),
		cmocka_unit_test(names_are_told),
		cmocka_unit_test(the_backend_can_be_chosen),
		cmocka_unit_test(both_backends_give_the_same_for_all_lengths),
	};

	return cmocka_run_group_tests_name("crypto: aead", tests, NULL, NULL);
}
