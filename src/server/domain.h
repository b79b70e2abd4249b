/*
 * domain - the data directory of a domain: its store, key and certificate.
 *
 * Key and certificate are values of the store, so that a backup is one file
 * and never half of a domain.
 */
#ifndef SERVER_DOMAIN_H
#define SERVER_DOMAIN_H

#include "base/base.h"
#include "crypto/crypto.h"
#include "store/store.h"

#define DOMAIN_CERT_DAYS 3650

struct domain {
	struct store *store;
	struct crypto_key *key;
	struct crypto_cert *cert;
	struct crypto_tls_context *tls;
	char name[STORE_DOMAIN_BYTES];
	char fingerprint[CRYPTO_FINGERPRINT_BYTES];
};

/* What went wrong, for people, and the exit code that fits. */
struct domain_error {
	int exit_code;
	char text[512];
};

/* Makes directory, store, key and certificate. What a killed init left is completed. */
int domain_init(const char *dir, const char *name, int64_t now_s, struct domain_error *ret_error);
/* Opens what domain_init() made; never makes anything. */
int domain_open(const char *dir, struct domain *ret_domain, struct domain_error *ret_error);
void domain_close(struct domain *d); /* fine on a zeroed object */
/* The same for the store alone, for commands that need no key. */
int domain_open_store(const char *dir, struct store **ret_store, struct domain_error *ret_error);
/* Reads key and certificate again (SIGHUP). On a fault all stays as it was. */
int domain_reload(struct domain *d, struct domain_error *ret_error);

#endif
