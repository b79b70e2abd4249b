#include "server/domain.h"

#include "server/options.h"

#include <stdio.h>

#define META_KEY  "domain-key"
#define META_CERT "domain-certificate"

static int error_set(struct domain_error *e, int rc, int exit_code, const char *format, ...)
	PRINTF_LIKE(4, 5);

static int error_set(struct domain_error *e, int rc, int exit_code, const char *format, ...)
{
	va_list args;

	e->exit_code = exit_code;
	va_start(args, format);
	vsnprintf(e->text, sizeof(e->text), format, args);
	va_end(args);
	return rc;
}

static int open_error(const char *dir, int rc, struct domain_error *e)
{
	switch (rc) {
	case STORE_NOT_INITIALISED:
		return error_set(e, -ENOENT, EXIT_NOT_FOUND,
				 "there is no identity server in %s. Make one with `q2q-server "
				 "--data-dir %s init DOMAIN`, or put a backup there with `restore "
				 "FILE`",
				 dir, dir);
	case STORE_LOST:
		return error_set(e, -EUCLEAN, EXIT_FAILED,
				 "%s was initialised once, but its database is gone. Nothing was "
				 "started: a new key would lock out everybody who knows the old "
				 "one. Put the last backup back with `q2q-server --data-dir %s "
				 "restore FILE`, or mount the right file system",
				 dir, dir);
	case STORE_TOO_NEW:
		return error_set(e, -ENOTSUP, EXIT_FAILED,
				 "the database in %s was written by a later version of q2q-server; "
				 "install that version",
				 dir);
	case -EUCLEAN:
		return error_set(e, rc, EXIT_FAILED,
				 "the database in %s is damaged. Put the last backup back", dir);
	case -EACCES:
	case -EPERM:
		return error_set(e, rc, EXIT_DENIED,
				 "%s: permission denied; run this as root or as the user of the "
				 "server",
				 dir);
	default:
		return error_set(e, rc > 0 ? -EIO : rc, EXIT_FAILED, "cannot open %s: %s", dir,
				 strerror(rc < 0 ? -rc : EIO));
	}
}

int domain_open_store(const char *dir, struct store **ret_store, struct domain_error *ret_error)
{
	const int rc = store_open(dir, ret_store);

	return rc == 0 ? 0 : open_error(dir, rc, ret_error);
}

static int store_key(struct store *s, const struct crypto_key *key)
{
	struct buffer pem;
	int rc;

	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	rc = crypto_key_to_pem(key, &pem);
	if (rc == 0)
		rc = store_meta_set(s, META_KEY, buffer_peek(&pem), buffer_used(&pem));
	buffer_fini(&pem);
	return rc;
}

static int store_cert(struct store *s, const struct crypto_cert *cert)
{
	size_t der_bytes;
	const uint8_t *der = crypto_cert_der(cert, &der_bytes);

	return store_meta_set(s, META_CERT, der, der_bytes);
}

static int load_key(struct store *s, struct crypto_key **ret_key)
{
	struct buffer pem;
	int rc;

	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	rc = store_meta_get(s, META_KEY, &pem);
	if (rc == 0)
		rc = crypto_key_from_pem(buffer_peek(&pem), buffer_used(&pem), ret_key);
	buffer_fini(&pem);
	return rc;
}

static int load_cert(struct store *s, struct crypto_cert **ret_cert)
{
	struct buffer der;
	int rc;

	buffer_init(&der, CRYPTO_CERT_MAX_BYTES, false);
	rc = store_meta_get(s, META_CERT, &der);
	if (rc == 0)
		rc = crypto_cert_from_der(buffer_peek(&der), buffer_used(&der), ret_cert);
	buffer_fini(&der);
	return rc;
}

/* The key first: a certificate without its key would be worth nothing. */
static int make_identity(struct store *s, const char *name, int64_t now_s)
{
	_cleanup_(crypto_key_freep) struct crypto_key *key = NULL;
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	int rc = load_key(s, &key);

	if (rc == STORE_NOT_FOUND) {
		rc = crypto_key_generate(CRYPTO_KEY_P256, &key);
		if (rc == 0)
			rc = store_key(s, key);
	}
	if (rc != 0)
		return rc;
	rc = crypto_cert_make_domain(key, name, now_s, DOMAIN_CERT_DAYS, &cert);
	return rc == 0 ? store_cert(s, cert) : rc;
}

/* STORE_EXISTS is fine if all that lacks is the identity: an init was killed there. */
static int open_unfinished(const char *dir, const char *name, struct store **ret_store,
			   struct domain_error *e)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	_cleanup_(store_closep) struct store *s = NULL;
	int rc = domain_open_store(dir, &s, e);

	if (rc != 0)
		return rc;
	if (load_cert(s, &cert) == STORE_NOT_FOUND && strcmp(store_domain(s), name) == 0) {
		*ret_store = TAKE_PTR(s);
		return 0;
	}
	return error_set(
		e, -EEXIST, EXIT_FAILED,
		"%s holds the domain %s already. Its key is what its users trust; to begin "
		"anew, move the directory away yourself",
		dir, store_domain(s));
}

int domain_init(const char *dir, const char *name, int64_t now_s, struct domain_error *ret_error)
{
	_cleanup_(store_closep) struct store *s = NULL;
	int rc = store_init(dir, name, now_s);

	if (rc == STORE_EXISTS)
		rc = open_unfinished(dir, name, &s, ret_error);
	else if (rc == 0)
		rc = domain_open_store(dir, &s, ret_error);
	else
		rc = open_error(dir, rc, ret_error);
	if (rc != 0)
		return rc;
	rc = make_identity(s, name, now_s);
	if (rc == 0)
		return 0;
	return error_set(ret_error, rc < 0 ? rc : -EIO, EXIT_FAILED,
			 "cannot make the key of the domain in %s: %s", dir,
			 rc < 0 ? strerror(-rc) : store_outcome_name((enum store_outcome)rc));
}

static int load_identity(struct domain *d)
{
	struct crypto_tls_config config = { 0 };
	int rc = load_key(d->store, &d->key);

	if (rc == 0)
		rc = load_cert(d->store, &d->cert);
	if (rc != 0)
		return rc;
	config.cert = d->cert;
	config.key = d->key;
	rc = crypto_tls_context_new(&config, &d->tls);
	if (rc == 0)
		crypto_cert_fingerprint(d->cert, d->fingerprint);
	return rc;
}

static void drop_identity(struct domain *d)
{
	crypto_tls_context_unref(d->tls);
	crypto_cert_unref(d->cert);
	crypto_key_free(d->key);
}

static int identity_error(const char *dir, int rc, struct domain_error *e)
{
	if (rc == STORE_NOT_FOUND)
		return error_set(e, -ENOENT, EXIT_FAILED,
				 "%s has no key: its init was not completed. Run init again", dir);
	return error_set(e, rc < 0 ? rc : -EIO, EXIT_FAILED,
			 "the key or certificate in %s cannot be used (%s). Put the last backup "
			 "back",
			 dir, strerror(rc < 0 ? -rc : EIO));
}

int domain_open(const char *dir, struct domain *ret_domain, struct domain_error *ret_error)
{
	struct domain d = { 0 };
	int rc = domain_open_store(dir, &d.store, ret_error);

	if (rc != 0)
		return rc;
	snprintf(d.name, sizeof(d.name), "%s", store_domain(d.store));
	rc = load_identity(&d);
	if (rc != 0) {
		domain_close(&d);
		return identity_error(dir, rc, ret_error);
	}
	*ret_domain = d;
	return 0;
}

int domain_reload(struct domain *d, struct domain_error *ret_error)
{
	struct domain fresh = { .store = d->store };
	const int rc = load_identity(&fresh);

	if (rc != 0) {
		drop_identity(&fresh);
		return identity_error("the data directory", rc, ret_error);
	}
	drop_identity(d);
	d->key = fresh.key;
	d->cert = fresh.cert;
	d->tls = fresh.tls;
	memcpy(d->fingerprint, fresh.fingerprint, sizeof(d->fingerprint));
	return 0;
}

void domain_close(struct domain *d)
{
	drop_identity(d);
	store_close(d->store);
	*d = (struct domain){ 0 };
}
