/*
 * Pinned domains. See domains.h.
 */
#include "daemon/domains.h"
#include "daemon/files.h"
#include "q2q/q2q.h"

#include <stdio.h>

static struct known_domain *find(const struct domains *domains, const char *domain)
{
	struct known_domain *known;

	TAILQ_FOREACH (known, &domains->list, entry)
		if (!strcmp(known->domain, domain))
			return known;
	return NULL;
}

static int insert(struct domains *domains, const char *domain, struct crypto_cert *cert)
{
	struct known_domain *known = find(domains, domain);

	if (known) {
		crypto_cert_unref(known->cert);
		known->cert = cert ? crypto_cert_ref(cert) : NULL;
		return 0;
	}
	if (domains->n == KNOWN_DOMAINS_MAX)
		return -ENOSPC;
	known = calloc(1, sizeof(*known));
	if (!known)
		return -ENOMEM;
	known->domain = strdup(domain);
	if (!known->domain) {
		free(known);
		return -ENOMEM;
	}
	known->cert = cert ? crypto_cert_ref(cert) : NULL;
	TAILQ_INSERT_TAIL(&domains->list, known, entry);
	domains->n++;
	return 0;
}

static void load_server(struct domains *domains, const char *name)
{
	struct known_domain *known = find(domains, name);
	char path[FILES_PATH_BYTES];
	struct buffer text;

	buffer_init(&text, 4096, false);
	if (known && !files_path(path, domains->state_dir, "known-domains", name, ".server") &&
	    !files_read(path, &text) && buffer_used(&text) > 0)
		known->server = strndup((const char *)buffer_peek(&text), buffer_used(&text));
	buffer_fini(&text);
}

static int load_one(void *user, const char *name)
{
	struct domains *domains = user;
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	struct q2q_address address;
	char path[FILES_PATH_BYTES];
	struct buffer pem;
	int r;

	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, false);
	r = q2q_domain_parse(name, &address);
	if (!r)
		r = files_path(path, domains->state_dir, "known-domains", name, ".pem");
	if (!r)
		r = files_read(path, &pem);
	if (!r)
		r = crypto_cert_from_pem(buffer_peek(&pem), buffer_used(&pem), &cert);
	if (!r)
		r = insert(domains, address.text, cert);
	buffer_fini(&pem);
	if (!r)
		load_server(domains, address.text);
	if (!r)
		return 0;
	log_error("domain %s: %s/known-domains/%s.pem cannot be used (%s); it is left as it is",
		  name, domains->state_dir, name, strerror(-r));
	if (r != -ENOMEM && !q2q_domain_parse(name, &address))
		r = insert(domains, address.text, NULL);
	return r == -ENOMEM ? r : 0;
}

int domains_load(struct domains *domains, const char *state_dir)
{
	char path[FILES_PATH_BYTES];
	int r;

	*domains = (struct domains){ .state_dir = state_dir };
	TAILQ_INIT(&domains->list);
	r = files_path(path, state_dir, NULL, "known-domains", "");
	if (!r)
		r = files_make_dir(path);
	return r ? r : files_list(path, ".pem", load_one, domains);
}

static void known_free(struct domains *domains, struct known_domain *known)
{
	TAILQ_REMOVE(&domains->list, known, entry);
	domains->n--;
	crypto_cert_unref(known->cert);
	free(known->domain);
	free(known->server);
	free(known);
}

void domains_fini(struct domains *domains)
{
	struct known_domain *known;

	while ((known = TAILQ_FIRST(&domains->list)))
		known_free(domains, known);
}

struct crypto_cert *domains_pin(const struct domains *domains, const char *domain)
{
	const struct known_domain *known = find(domains, domain);

	return known ? known->cert : NULL;
}

bool domains_damaged(const struct domains *domains, const char *domain)
{
	const struct known_domain *known = find(domains, domain);

	return known && !known->cert;
}

int domains_set(struct domains *domains, const char *domain, struct crypto_cert *cert)
{
	char path[FILES_PATH_BYTES];
	struct buffer pem;
	int r = files_path(path, domains->state_dir, "known-domains", domain, ".pem");

	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, false);
	if (!r)
		r = crypto_cert_to_pem(cert, &pem);
	if (!r)
		r = files_write(path, buffer_peek(&pem), buffer_used(&pem));
	buffer_fini(&pem);
	return r ? r : insert(domains, domain, cert);
}

int domains_forget(struct domains *domains, const char *domain)
{
	struct known_domain *known = find(domains, domain);
	char path[FILES_PATH_BYTES];
	int r = files_path(path, domains->state_dir, "known-domains", domain, ".pem");

	if (!r)
		r = files_remove(path);
	if (!r)
		r = files_path(path, domains->state_dir, "known-domains", domain, ".server");
	if (!r)
		r = files_remove(path);
	if (!r && known)
		known_free(domains, known);
	return r;
}

const char *domains_server(const struct domains *domains, const char *domain)
{
	const struct known_domain *known = find(domains, domain);

	return known ? known->server : NULL;
}

int domains_set_server(struct domains *domains, const char *domain, const char *server)
{
	struct known_domain *known = find(domains, domain);
	char path[FILES_PATH_BYTES];
	char *copy;
	int r;

	if (!known)
		return -ENOENT;
	if (known->server && !strcmp(known->server, server))
		return 0;
	copy = strdup(server);
	r = copy ? files_path(path, domains->state_dir, "known-domains", domain, ".server")
		 : -ENOMEM;
	if (!r)
		r = files_write(path, server, strlen(server));
	if (r) {
		free(copy);
		return r;
	}
	free(known->server);
	known->server = copy;
	return 0;
}

void domains_path(const struct domains *domains, const char *domain, char *out, size_t out_bytes)
{
	snprintf(out, out_bytes, "%s/known-domains/%s.pem", domains->state_dir, domain);
}
