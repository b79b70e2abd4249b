/* Hashes, derivation, randomness, base64, and the discipline of OpenSSL's error queue. */
#include "crypto/private.h"

#include <limits.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

int crypto_fault(int error)
{
	const unsigned long last = ERR_peek_last_error();
	const bool out_of_memory = last != 0 && ERR_GET_REASON(last) == ERR_R_MALLOC_FAILURE;

	ERR_clear_error();
	return out_of_memory ? -ENOMEM : error;
}

int crypto_random(void *out, size_t n_bytes)
{
	if (n_bytes > INT_MAX)
		return -EINVAL;
	return RAND_bytes(out, (int)n_bytes) == 1 ? 0 : crypto_fault(-EIO);
}

int crypto_sha256(const void *data, size_t n_bytes, uint8_t out[static CRYPTO_HASH_BYTES])
{
	return EVP_Digest(data, n_bytes, out, NULL, EVP_sha256(), NULL) == 1 ? 0
									     : crypto_fault(-EIO);
}

int crypto_hmac_sha256(const void *key, size_t key_bytes, const void *data, size_t n_bytes,
		       uint8_t out[static CRYPTO_HASH_BYTES])
{
	if (key_bytes > INT_MAX)
		return -EINVAL;
	/* HMAC() reads a NULL key as "the key of last time". */
	if (!HMAC(EVP_sha256(), key_bytes ? key : "", (int)key_bytes, data, n_bytes, out, NULL))
		return crypto_fault(-EIO);
	return 0;
}

int crypto_hkdf_extract(const void *salt, size_t salt_bytes, const void *ikm, size_t ikm_bytes,
			uint8_t prk[static CRYPTO_HASH_BYTES])
{
	/* HMAC pads its key with zeros, so an empty salt and one of 32 zeros are the same. */
	return crypto_hmac_sha256(salt, salt_bytes, ikm, ikm_bytes, prk);
}

int crypto_hkdf_expand(const uint8_t prk[static CRYPTO_HASH_BYTES], const void *info,
		       size_t info_bytes, void *out, size_t out_bytes)
{
	uint8_t block[CRYPTO_HASH_BYTES];
	_cleanup_(freep) uint8_t *input = NULL;
	uint8_t *at = out;
	int r = 0;

	if (out_bytes > 255 * sizeof(block) || info_bytes > 65536)
		return -EINVAL;
	input = malloc(sizeof(block) + info_bytes + 1); /* T(i-1) | info | i */
	if (!input)
		return -ENOMEM;
	for (unsigned i = 1; out_bytes > 0; i++) {
		const size_t before = i == 1 ? 0 : sizeof(block);
		const size_t n = min_size(out_bytes, sizeof(block));

		memcpy(input, block, before);
		if (info_bytes > 0)
			memcpy(input + before, info, info_bytes);
		input[before + info_bytes] = (uint8_t)i;
		r = crypto_hmac_sha256(prk, CRYPTO_HASH_BYTES, input, before + info_bytes + 1,
				       block);
		if (r < 0)
			break;
		memcpy(at, block, n);
		at += n;
		out_bytes -= n;
	}
	secret_wipe(input, sizeof(block));
	secret_wipe(block, sizeof(block));
	return r;
}

int crypto_hkdf(const void *salt, size_t salt_bytes, const void *ikm, size_t ikm_bytes,
		const void *info, size_t info_bytes, void *out, size_t out_bytes)
{
	uint8_t prk[CRYPTO_HASH_BYTES];
	int r = crypto_hkdf_extract(salt, salt_bytes, ikm, ikm_bytes, prk);

	if (r == 0)
		r = crypto_hkdf_expand(prk, info, info_bytes, out, out_bytes);
	secret_wipe(prk, sizeof(prk));
	return r;
}

void crypto_base64_encode(const uint8_t *data, size_t n_bytes, char *out)
{
	size_t end = (size_t)EVP_EncodeBlock((unsigned char *)out, data, (int)n_bytes);

	while (end > 0 && out[end - 1] == '=')
		end--;
	out[end] = '\0';
}

int crypto_base64_decode(const char *text, size_t text_bytes, uint8_t *out, size_t out_bytes)
{
	const size_t n_bytes = text_bytes / 4 * 3 + (text_bytes % 4 ? text_bytes % 4 - 1 : 0);
	uint8_t padded[264], wide[200];
	char again[272];
	int r = -EBADMSG;

	if (text_bytes % 4 == 1 || text_bytes > 256 || n_bytes > out_bytes)
		return -EBADMSG;
	memset(padded, '=', sizeof(padded));
	memcpy(padded, text, text_bytes);
	/* OpenSSL's decoder is lenient; what does not come out the same again was not strict. */
	if (EVP_DecodeBlock(wide, padded, (int)((text_bytes + 3) / 4 * 4)) >= 0) {
		crypto_base64_encode(wide, n_bytes, again);
		if (strlen(again) == text_bytes && memcmp(again, text, text_bytes) == 0) {
			memcpy(out, wide, n_bytes);
			r = (int)n_bytes;
		}
	}
	ERR_clear_error();
	secret_wipe(wide, sizeof(wide));
	return r;
}
