/*
 * Who this machine is. See identities.h.
 */
#include "daemon/identities.h"
#include "daemon/files.h"

#include <stdio.h>

static void identity_free(struct identity *id)
{
	if (!id)
		return;
	crypto_tls_context_unref(id->tls);
	crypto_tls_context_unref(id->tls_ptcp);
	crypto_cert_unref(id->cert);
	crypto_key_free(id->key);
	free(id);
}
DEFINE_CLEANUP(struct identity *, identity_free)

static int make_contexts(struct identity *id)
{
	struct crypto_tls_config config = { .cert = id->cert, .key = id->key };
	int r;

	crypto_tls_context_unref(id->tls);
	crypto_tls_context_unref(id->tls_ptcp);
	id->tls = NULL;
	id->tls_ptcp = NULL;
	r = crypto_tls_context_new(&config, &id->tls);
	if (r)
		return r;
	config.tls13_only = true;
	return crypto_tls_context_new(&config, &id->tls_ptcp);
}

/* ---- disk ---- */

static int read_identity(struct identities *ids, const char *name, struct identity *id)
{
	char path[FILES_PATH_BYTES];
	struct buffer pem;
	int r = files_path(path, ids->state_dir, "identities", name, ".pem");

	if (r)
		return r;
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	r = files_read(path, &pem);
	if (!r)
		r = crypto_cert_from_pem(buffer_peek(&pem), buffer_used(&pem), &id->cert);
	if (!r)
		r = crypto_key_from_pem(buffer_peek(&pem), buffer_used(&pem), &id->key);
	buffer_fini(&pem);
	if (!r)
		r = make_contexts(id);
	return r;
}

static int load_one(void *user, const char *name)
{
	struct identities *ids = user;
	_cleanup_(identity_freep) struct identity *id = calloc(1, sizeof(*id));
	const char *subject;
	int r;

	if (!id)
		return -ENOMEM;
	r = q2q_user_parse(name, &id->address);
	if (!r)
		r = read_identity(ids, name, id);
	subject = r ? NULL : crypto_cert_subject(id->cert);
	if (!r && (!subject || strcmp(subject, id->address.text)))
		r = -EINVAL;
	if (!r && ids->n == IDENTITIES_MAX)
		r = -ENOSPC;
	if (r) {
		log_error("identity %s: %s/identities/%s.pem cannot be used (%s); it is left "
			  "as it is",
			  name, ids->state_dir, name, strerror(-r));
		return r == -ENOMEM ? r : 0;
	}
	ids->n++;
	TAILQ_INSERT_TAIL(&ids->list, id, entry);
	TAKE_PTR(id);
	return 0;
}

static void load_settings(struct identities *ids)
{
	char path[FILES_PATH_BYTES];
	const char *text;
	struct q2q_address address;
	json_t *settings;
	int r = files_path(path, ids->state_dir, NULL, "settings", ".json");

	if (!r)
		r = files_read_json(path, &settings);
	if (r && r != -ENOENT)
		log_error("%s cannot be used (%s): which identity is the default is not known",
			  path, strerror(-r));
	if (r)
		return;
	text = json_string_value(json_object_get(settings, "default"));
	if (text && !q2q_user_parse(text, &address))
		memcpy(ids->default_address, address.text, sizeof(address.text));
	json_decref(settings);
}

int identities_load(struct identities *ids, const char *state_dir)
{
	char path[FILES_PATH_BYTES];
	int r;

	*ids = (struct identities){ .state_dir = state_dir };
	TAILQ_INIT(&ids->list);
	r = files_path(path, state_dir, NULL, "identities", "");
	if (!r)
		r = files_make_dir(path);
	if (!r)
		r = files_list(path, ".pem", load_one, ids);
	load_settings(ids);
	return r;
}

void identities_fini(struct identities *ids)
{
	struct identity *id;

	while ((id = TAILQ_FIRST(&ids->list))) {
		TAILQ_REMOVE(&ids->list, id, entry);
		identity_free(id);
	}
}

static int store(const struct identities *ids, const struct identity *id)
{
	char path[FILES_PATH_BYTES];
	struct buffer pem;
	int r = files_path(path, ids->state_dir, "identities", id->address.text, ".pem");

	if (r)
		return r;
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	r = identities_export(id, &pem);
	if (!r)
		r = files_write(path, buffer_peek(&pem), buffer_used(&pem));
	buffer_fini(&pem);
	return r;
}

/* ---- access ---- */

struct identity *identities_find(struct identities *ids, const char *address)
{
	struct identity *id;

	TAILQ_FOREACH (id, &ids->list, entry)
		if (!strcmp(id->address.text, address))
			return id;
	return NULL;
}

struct identity *identities_default(struct identities *ids, const char *wanted)
{
	struct identity *first = TAILQ_FIRST(&ids->list), *chosen;

	if (wanted)
		return identities_find(ids, wanted);
	chosen = identities_find(ids, ids->default_address);
	if (!chosen && ids->configured)
		chosen = identities_find(ids, ids->configured);
	return chosen ? chosen : first;
}

int identities_set_default(struct identities *ids, const char *address)
{
	char path[FILES_PATH_BYTES];
	json_t *settings;
	int r = files_path(path, ids->state_dir, NULL, "settings", ".json");

	if (r)
		return r;
	settings = json_pack("{s:s}", "default", address);
	r = settings ? files_write_json(path, settings) : -ENOMEM;
	json_decref(settings);
	if (!r)
		snprintf(ids->default_address, sizeof(ids->default_address), "%s", address);
	return r;
}

int identities_add(struct identities *ids, const struct q2q_address *address,
		   struct crypto_cert *cert, struct crypto_key *key, struct identity **ret_identity)
{
	_cleanup_(identity_freep) struct identity *made = calloc(1, sizeof(*made));
	struct identity *old = identities_find(ids, address->text);
	char path[FILES_PATH_BYTES];
	struct buffer pem;
	int r;

	if (!made)
		return -ENOMEM;
	if (!old && ids->n == IDENTITIES_MAX)
		return -ENOSPC;
	made->address = *address;
	made->cert = crypto_cert_ref(cert);
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	r = crypto_key_to_pem(key, &pem);
	if (!r)
		r = crypto_key_from_pem(buffer_peek(&pem), buffer_used(&pem), &made->key);
	buffer_fini(&pem);
	if (!r)
		r = make_contexts(made);
	if (!r)
		r = store(ids, made);
	if (r)
		return r;
	/* The certificate is on disk with its key: the pending copy has served. */
	if (!files_path(path, ids->state_dir, "identities", address->text, ".key"))
		files_remove(path);
	if (old) {
		/* Others hold the struct: exchange what is in it. */
		crypto_cert_unref(old->cert);
		crypto_key_free(old->key);
		crypto_tls_context_unref(old->tls);
		crypto_tls_context_unref(old->tls_ptcp);
		old->cert = TAKE_PTR(made->cert);
		old->key = TAKE_PTR(made->key);
		old->tls = TAKE_PTR(made->tls);
		old->tls_ptcp = TAKE_PTR(made->tls_ptcp);
		*ret_identity = old;
		return 0;
	}
	ids->n++;
	TAILQ_INSERT_TAIL(&ids->list, made, entry);
	*ret_identity = TAKE_PTR(made);
	return 0;
}

int identities_pending_key(struct identities *ids, const struct q2q_address *address, bool fresh,
			   struct crypto_key **ret_key)
{
	char path[FILES_PATH_BYTES];
	struct crypto_key *key = NULL;
	struct buffer pem;
	int r = files_path(path, ids->state_dir, "identities", address->text, ".key");

	if (r)
		return r;
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	if (!fresh && !files_read(path, &pem) &&
	    !crypto_key_from_pem(buffer_peek(&pem), buffer_used(&pem), ret_key)) {
		buffer_fini(&pem);
		return 0;
	}
	buffer_consume(&pem, buffer_used(&pem));
	r = crypto_key_generate(CRYPTO_KEY_P256, &key);
	if (!r)
		r = crypto_key_to_pem(key, &pem);
	if (!r)
		r = files_write(path, buffer_peek(&pem), buffer_used(&pem));
	buffer_fini(&pem);
	if (r) {
		crypto_key_free(key);
		return r;
	}
	*ret_key = key;
	return 0;
}

int identities_export(const struct identity *identity, struct buffer *out)
{
	const int r = crypto_cert_to_pem(identity->cert, out);

	return r ? r : crypto_key_to_pem(identity->key, out);
}
