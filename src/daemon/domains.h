/*
 * domains - the pinned certificates of domains, as ssh's known_hosts: files
 * STATE/known-domains/DOMAIN.pem. Private to daemon.
 */
#ifndef DAEMON_DOMAINS_H
#define DAEMON_DOMAINS_H

#include "crypto/crypto.h"

#define KNOWN_DOMAINS_MAX 4096

struct known_domain {
	char *domain;
	char *server; /* "host:port", or NULL: as DNS says. STATE/known-domains/DOMAIN.server */
	struct crypto_cert *cert;
	TAILQ_ENTRY(known_domain) entry;
};
TAILQ_HEAD(known_domain_list, known_domain);

struct domains {
	const char *state_dir;
	struct known_domain_list list;
	size_t n;
};

int domains_load(struct domains *domains, const char *state_dir);
void domains_fini(struct domains *domains);
/* Borrowed; NULL: not pinned. */
/* Its file is there, and cannot be read: the pin is not known, but the domain is not new. */
bool domains_damaged(const struct domains *domains, const char *domain);
struct crypto_cert *domains_pin(const struct domains *domains, const char *domain);
/* Pins, or pins anew. On disk before it counts. */
int domains_set(struct domains *domains, const char *domain, struct crypto_cert *cert);
int domains_forget(struct domains *domains, const char *domain);
/* "host:port" that the user gave for this domain once, or NULL; and to keep one. */
const char *domains_server(const struct domains *domains, const char *domain);
int domains_set_server(struct domains *domains, const char *domain, const char *server);
/* Where the pin is, for messages. */
void domains_path(const struct domains *domains, const char *domain, char *out, size_t out_bytes);

#endif
