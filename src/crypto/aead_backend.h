/* Who computes the AEAD: what aead.c and the backends share. */
#ifndef CRYPTO_AEAD_BACKEND_H
#define CRYPTO_AEAD_BACKEND_H

#include "crypto/private.h"

struct aead_backend {
	const char *name;
	/* state is the backend's own, made by init and wiped by fini. */
	int (*init)(enum crypto_aead_kind kind, const uint8_t *key, void **ret_state);
	void (*fini)(enum crypto_aead_kind kind, void *state);
	/* The tag goes to the end of out, or comes from the end of in. */
	int (*seal)(enum crypto_aead_kind kind, void *state, const uint8_t *nonce, const void *aad,
		    size_t aad_bytes, const uint8_t *in, size_t n_bytes, uint8_t *out);
	int (*open)(enum crypto_aead_kind kind, void *state, const uint8_t *nonce, const void *aad,
		    size_t aad_bytes, const uint8_t *in, size_t n_bytes, uint8_t *out);
};

extern const struct aead_backend aead_openssl;
extern const struct aead_backend aead_ipsec_mb;

/* 0: can be used from now on; -ENOTSUP: not built in, or not with this CPU; -ENOMEM. */
int aead_ipsec_mb_start(void);

#endif
