#define _GNU_SOURCE /* memmem() */
#include "unit.h"
#include "crypto/crypto.h"

#include <openssl/err.h>

#define NOW_S INT64_C(1800000000)

static const char context[] = "q2q-tun offer v1\0alice@a.test\0bob@b.test\0"
			      "00112233445566778899aabbccddeeff";

static struct {
	struct crypto_key *alice_key, *bob_key, *ed_key, *rsa_key;
	struct crypto_cert *alice, *bob, *ed, *rsa;
} w;

static void make_party(enum crypto_key_kind kind, const char *cn, struct crypto_key **ret_key,
		       struct crypto_cert **ret_cert)
{
	assert_int_equal(crypto_key_generate(kind, ret_key), 0);
	assert_int_equal(crypto_cert_make_throwaway(*ret_key, cn, NOW_S, ret_cert), 0);
}

static int make_world(void **state)
{
	(void)state;
	make_party(CRYPTO_KEY_P256, "alice@a.test", &w.alice_key, &w.alice);
	make_party(CRYPTO_KEY_P256, "bob@b.test", &w.bob_key, &w.bob);
	make_party(CRYPTO_KEY_ED25519, "ed@b.test", &w.ed_key, &w.ed);
	make_party(CRYPTO_KEY_RSA, "rsa@b.test", &w.rsa_key, &w.rsa);
	return 0;
}

static int end_world(void **state)
{
	(void)state;
	crypto_key_free(w.alice_key);
	crypto_key_free(w.bob_key);
	crypto_key_free(w.ed_key);
	crypto_key_free(w.rsa_key);
	crypto_cert_unref(w.alice);
	crypto_cert_unref(w.bob);
	crypto_cert_unref(w.ed);
	crypto_cert_unref(w.rsa);
	return 0;
}

static size_t seal(const struct crypto_cert *recipient, const struct crypto_key *sender,
		   const void *plain, size_t n_bytes, uint8_t *out)
{
	struct buffer b;
	size_t n;

	buffer_init(&b, CRYPTO_SEALED_MAX_BYTES, false);
	assert_int_equal(crypto_seal_to_cert(recipient, sender, context, sizeof(context), plain,
					     n_bytes, &b),
			 0);
	n = buffer_used(&b);
	memcpy(out, buffer_peek(&b), n);
	buffer_fini(&b);
	return n;
}

static int open_as(const struct crypto_key *recipient, const struct crypto_cert *sender,
		   const void *c, size_t c_bytes, const void *blob, size_t n_bytes,
		   const void *expected, size_t expected_bytes)
{
	struct buffer out;
	int r;

	buffer_init(&out, CRYPTO_SEALED_MAX_BYTES, true);
	assert_int_equal(buffer_append(&out, "before", 6), 0);
	r = crypto_open_sealed(recipient, sender, c, c_bytes, blob, n_bytes, &out);
	if (r == 0) {
		assert_int_equal(buffer_used(&out), 6 + expected_bytes);
		assert_memory_equal(buffer_peek(&out) + 6, expected, expected_bytes);
	} else {
		assert_int_equal(buffer_used(&out), 6);
	}
	buffer_fini(&out);
	assert_int_equal(ERR_peek_error(), 0);
	return r;
}

static void a_sealed_message_reaches_its_recipient(void **state)
{
	static uint8_t plain[CRYPTO_SEALED_PLAIN_MAX_BYTES], blob[CRYPTO_SEALED_MAX_BYTES];
	static const size_t sizes[] = { 0, 1, 15, 16, 500, CRYPTO_SEALED_PLAIN_MAX_BYTES };

	(void)state;
	assert_int_equal(crypto_random(plain, sizeof(plain)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t n = seal(w.bob, w.alice_key, plain, sizes[i], blob);

		assert_int_equal(open_as(w.bob_key, w.alice, context, sizeof(context), blob, n,
					 plain, sizes[i]),
				 0);
		n = seal(w.bob, w.ed_key, plain, sizes[i], blob);
		assert_int_equal(open_as(w.bob_key, w.ed, context, sizeof(context), blob, n, plain,
					 sizes[i]),
				 0);
	}
}

static void sealing_twice_never_looks_the_same_and_hides_the_text(void **state)
{
	uint8_t a[512], b[512];
	size_t n;

	(void)state;
	n = seal(w.bob, w.ed_key, "192.168.1.20:4000", 17, a);
	assert_int_equal(seal(w.bob, w.ed_key, "192.168.1.20:4000", 17, b), n);
	assert_memory_not_equal(a + 1, b + 1, 65);
	assert_memory_not_equal(a + 68, b + 68, 17);
	assert_null(memmem(a, n, "192.168", 7));
}

static void nobody_else_opens_it_and_nobody_else_sent_it(void **state)
{
	uint8_t blob[512];
	const size_t n = seal(w.bob, w.alice_key, "x", 1, blob);
	const size_t c = sizeof(context);

	(void)state;
	assert_int_equal(open_as(w.bob_key, w.alice, context, c, blob, n, "x", 1), 0);
	assert_int_equal(open_as(w.alice_key, w.alice, context, c, blob, n, "", 0), -EBADMSG);
	assert_int_equal(open_as(w.bob_key, w.bob, context, c, blob, n, "", 0), -EBADMSG);
	assert_int_equal(open_as(w.bob_key, w.ed, context, c, blob, n, "", 0), -EBADMSG);
	assert_int_equal(open_as(w.bob_key, w.alice, context, c - 1, blob, n, "", 0), -EBADMSG);
	assert_int_equal(open_as(w.bob_key, w.alice, "", 0, blob, n, "", 0), -EBADMSG);
}

static void a_blob_with_any_byte_changed_or_cut_is_refused(void **state)
{
	uint8_t blob[512];

	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		const struct crypto_cert *sender = kind ? w.ed : w.alice;
		const size_t n = seal(w.bob, kind ? w.ed_key : w.alice_key, "hello", 5, blob);

		for (size_t i = 0; i < n; i++) {
			for (int flip = 1; flip <= 0x80; flip <<= 1) {
				blob[i] ^= (uint8_t)flip;
				assert_int_equal(open_as(w.bob_key, sender, context,
							 sizeof(context), blob, n, "", 0),
						 -EBADMSG);
				blob[i] ^= (uint8_t)flip;
			}
			assert_int_equal(open_as(w.bob_key, sender, context, sizeof(context), blob,
						 i, "", 0),
					 -EBADMSG);
		}
		blob[n] = 0;
		assert_int_equal(
			open_as(w.bob_key, sender, context, sizeof(context), blob, n + 1, "", 0),
			-EBADMSG);
	}
}

/* Somebody who may sign, but whose signature is put on another's ciphertext, opens nothing. */
static void a_signature_does_not_move_to_another_message(void **state)
{
	uint8_t mine[512], theirs[512];
	const size_t n_mine = seal(w.bob, w.ed_key, "hello", 5, mine);
	const size_t n_theirs = seal(w.bob, w.alice_key, "hello", 5, theirs);
	const size_t n_body = 1 + 65 + 2 + 5 + 16;

	(void)state;
	memcpy(mine, theirs, n_body);
	assert_int_equal(open_as(w.bob_key, w.ed, context, sizeof(context), mine, n_mine, "", 0),
			 -EBADMSG);
	assert_true(n_theirs > n_body);
}

static void kinds_of_keys_that_cannot_take_part_are_told(void **state)
{
	uint8_t blob[512];
	const size_t n = seal(w.bob, w.alice_key, "x", 1, blob);
	struct buffer out;

	(void)state;
	buffer_init(&out, CRYPTO_SEALED_MAX_BYTES, false);
	assert_int_equal(crypto_seal_to_cert(w.ed, w.alice_key, "", 0, "x", 1, &out), -ENOTSUP);
	assert_int_equal(crypto_seal_to_cert(w.rsa, w.alice_key, "", 0, "x", 1, &out), -ENOTSUP);
	assert_int_equal(crypto_seal_to_cert(w.bob, w.rsa_key, "", 0, "x", 1, &out), -ENOTSUP);
	buffer_fini(&out);
	assert_int_equal(open_as(w.ed_key, w.alice, "", 0, blob, n, "", 0), -ENOTSUP);
	assert_int_equal(open_as(w.bob_key, w.rsa, "", 0, blob, n, "", 0), -ENOTSUP);
}

static void sizes_are_bounded(void **state)
{
	static uint8_t big[CRYPTO_SEALED_MAX_BYTES + 1];
	struct buffer out;

	(void)state;
	buffer_init(&out, CRYPTO_SEALED_MAX_BYTES, false);
	assert_int_equal(crypto_seal_to_cert(w.bob, w.alice_key, "", 0, big,
					     CRYPTO_SEALED_PLAIN_MAX_BYTES + 1, &out),
			 -EMSGSIZE);
	assert_int_equal(crypto_seal_to_cert(w.bob, w.alice_key, big,
					     CRYPTO_SEALED_CONTEXT_MAX_BYTES + 1, "x", 1, &out),
			 -EMSGSIZE);
	assert_int_equal(buffer_used(&out), 0);
	buffer_fini(&out);
	buffer_init(&out, 50, false);
	assert_int_equal(crypto_seal_to_cert(w.bob, w.alice_key, "", 0, "x", 1, &out), -ENOBUFS);
	buffer_fini(&out);
	big[0] = 1;
	assert_int_equal(open_as(w.bob_key, w.alice, "", 0, big, sizeof(big), "", 0), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sealed_message_reaches_its_recipient),
		cmocka_unit_test(sealing_twice_never_looks_the_same_and_hides_the_text),
		cmocka_unit_test(nobody_else_opens_it_and_nobody_else_sent_it),
		cmocka_unit_test(a_blob_with_any_byte_changed_or_cut_is_refused),
		cmocka_unit_test(a_signature_does_not_move_to_another_message),
		cmocka_unit_test(kinds_of_keys_that_cannot_take_part_are_told),
		cmocka_unit_test(sizes_are_bounded),
	};

	return cmocka_run_group_tests_name("crypto: sealed messages", tests, make_world, end_world);
}
