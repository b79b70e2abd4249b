/*
 * identities - who this machine is: address, certificate, key. Private to daemon.
 *
 * STATE/identities/ADDRESS.pem holds certificate and key; which one is used
 * where nobody says stands in STATE/settings.json. A key that was made but has
 * no certificate yet is kept too (ADDRESS.key), so that a second authorize uses it again.
 */
#ifndef DAEMON_IDENTITIES_H
#define DAEMON_IDENTITIES_H

#include "crypto/crypto.h"
#include "q2q/q2q.h"

#define IDENTITIES_MAX 32

struct renewal;

struct identity {
	struct q2q_address address;
	struct crypto_cert *cert;
	struct crypto_key *key;
	struct crypto_tls_context *tls;      /* control connections */
	struct crypto_tls_context *tls_ptcp; /* associations: TLS 1.3 alone */
	struct renewal *renewal;             /* renew.c's, which frees it; NULL: none yet */
	TAILQ_ENTRY(identity) entry;
};

TAILQ_HEAD(identity_list, identity);

struct identities {
	const char *state_dir;
	struct identity_list list;
	size_t n;
	char default_address[Q2Q_ADDRESS_TEXT_BYTES]; /* chosen by the user, or "" */
	const char *configured; /* the default where the user has chosen none; borrowed, or NULL */
};

/* Reads all of them; files that cannot be used are named in the log and left alone. */
int identities_load(struct identities *ids, const char *state_dir);
void identities_fini(struct identities *ids);
struct identity *identities_find(struct identities *ids, const char *address);
/* The one to use: `wanted` if given, else the chosen default, else the configured one, else the
 * first. NULL: none. */
struct identity *identities_default(struct identities *ids, const char *wanted);
int identities_set_default(struct identities *ids, const char *address);
/*
 * Takes a certificate for `key` into use and onto disk; replaces an older one of that address.
 * -EINVAL: they do not belong together; -ENOSPC: IDENTITIES_MAX.
 */
int identities_add(struct identities *ids, const struct q2q_address *address,
		   struct crypto_cert *cert, struct crypto_key *key,
		   struct identity **ret_identity);
/* The key for a new certificate of that address: the pending one, or a new one, stored first. */
int identities_pending_key(struct identities *ids, const struct q2q_address *address, bool fresh,
			   struct crypto_key **ret_key);
/* Appends certificate and key as PEM; out must be a secret buffer. */
int identities_export(const struct identity *identity, struct buffer *out);

#endif
