/* Password hashes: scrypt (RFC 7914) in the text form of the PHC string format. */
#include "crypto/private.h"

#include <stdio.h>

enum {
	SALT_BYTES = 16,
	HASH_BYTES = 32,
	FIELD_MAX_BYTES = 64, /* salt or hash of a string that someone else made */
	BLOCK_MAX = 16,       /* r */
	PARALLEL_MAX = 4,     /* p */
	MEMORY_MAX_BYTES = 160 * 1024 * 1024,
};

struct phc {
	unsigned cost, block, parallel;
	uint8_t salt[FIELD_MAX_BYTES], hash[FIELD_MAX_BYTES];
	size_t salt_bytes, hash_bytes;
};

int crypto_scrypt(const void *password, size_t password_bytes, const void *salt, size_t salt_bytes,
		  uint64_t n, uint32_t r, uint32_t p, void *out, size_t out_bytes)
{
	/* A dry run first: bad parameters are the caller's mistake, not a fault of OpenSSL. */
	if (EVP_PBE_scrypt(NULL, 0, NULL, 0, n, r, p, MEMORY_MAX_BYTES, NULL, 0) != 1)
		return crypto_fault(-EINVAL);
	if (EVP_PBE_scrypt(password_bytes ? password : "", password_bytes, salt, salt_bytes, n, r,
			   p, MEMORY_MAX_BYTES, out, out_bytes) != 1)
		return crypto_fault(-EIO);
	return 0;
}

int crypto_password_hash(const void *password, size_t password_bytes, unsigned cost,
			 char out[static CRYPTO_PASSWORD_TEXT_BYTES])
{
	uint8_t salt[SALT_BYTES], hash[HASH_BYTES];
	char salt_text[32], hash_text[48];
	int r;

	if (cost < CRYPTO_PASSWORD_COST_MIN || cost > CRYPTO_PASSWORD_COST_MAX ||
	    password_bytes > CRYPTO_PASSWORD_MAX_BYTES)
		return -EINVAL;
	r = crypto_random(salt, sizeof(salt));
	if (r < 0)
		return r;
	r = crypto_scrypt(password, password_bytes, salt, sizeof(salt), UINT64_C(1) << cost, 8, 1,
			  hash, sizeof(hash));
	if (r < 0)
		return r;
	crypto_base64_encode(salt, sizeof(salt), salt_text);
	crypto_base64_encode(hash, sizeof(hash), hash_text);
	snprintf(out, CRYPTO_PASSWORD_TEXT_BYTES, "$scrypt$ln=%u,r=8,p=1$%s$%s", cost, salt_text,
		 hash_text);
	secret_wipe(hash, sizeof(hash));
	secret_wipe(hash_text, sizeof(hash_text));
	return 0;
}

/* Moves *text past `prefix`. */
static bool take_prefix(const char **text, const char *prefix)
{
	const size_t n = strlen(prefix);

	if (strncmp(*text, prefix, n) != 0)
		return false;
	*text += n;
	return true;
}

/* Decimal without sign or leading zero, at most three digits. */
static bool take_number(const char **text, unsigned *ret_value)
{
	unsigned value = 0, n_digits = 0;

	while (**text >= '0' && **text <= '9' && n_digits < 3) {
		value = value * 10 + (unsigned)(*(*text)++ - '0');
		n_digits++;
	}
	*ret_value = value;
	return n_digits > 0 && value > 0 && (*text)[-(int)n_digits] != '0';
}

static bool take_base64(const char **text, char end, uint8_t *out, size_t *ret_bytes)
{
	const size_t n = strcspn(*text, "$");
	const int n_bytes = crypto_base64_decode(*text, n, out, FIELD_MAX_BYTES);

	if (n_bytes < 0 || (*text)[n] != end)
		return false;
	*ret_bytes = (size_t)n_bytes;
	*text += n + (end != '\0');
	return true;
}

static bool phc_parse(const char *text, struct phc *p)
{
	return take_prefix(&text, "$scrypt$ln=") && take_number(&text, &p->cost) &&
	       take_prefix(&text, ",r=") && take_number(&text, &p->block) &&
	       take_prefix(&text, ",p=") && take_number(&text, &p->parallel) &&
	       take_prefix(&text, "$") && take_base64(&text, '$', p->salt, &p->salt_bytes) &&
	       take_base64(&text, '\0', p->hash, &p->hash_bytes) &&
	       p->cost >= CRYPTO_PASSWORD_COST_MIN && p->cost <= CRYPTO_PASSWORD_COST_MAX &&
	       p->block <= BLOCK_MAX && p->parallel <= PARALLEL_MAX && p->salt_bytes >= 8 &&
	       p->hash_bytes >= HASH_BYTES && /* scrypt's output, cut, is a good shorter one */
	       ((uint64_t)128 * p->block << p->cost) <= (uint64_t)128 * 8
								<< CRYPTO_PASSWORD_COST_MAX;
}

int crypto_password_verify(const char *text, const void *password, size_t password_bytes)
{
	struct phc phc = { .cost = CRYPTO_PASSWORD_COST,
			   .block = 8,
			   .parallel = 1,
			   .salt_bytes = SALT_BYTES,
			   .hash_bytes = HASH_BYTES };
	uint8_t hash[FIELD_MAX_BYTES];
	bool equal = false;
	int r;

	if (text && !phc_parse(text, &phc))
		return -EBADMSG;
	if (password_bytes > CRYPTO_PASSWORD_MAX_BYTES)
		return CRYPTO_PASSWORD_WRONG;
	r = crypto_scrypt(password, password_bytes, phc.salt, phc.salt_bytes,
			  UINT64_C(1) << phc.cost, phc.block, phc.parallel, hash, phc.hash_bytes);
	if (r == 0)
		equal = secret_equal(hash, phc.hash, phc.hash_bytes) && text;
	secret_wipe(hash, sizeof(hash));
	secret_wipe(&phc, sizeof(phc));
	return r < 0 ? r : equal ? 0 : CRYPTO_PASSWORD_WRONG;
}
