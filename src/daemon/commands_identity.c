/*
 * Commands about identities that need no server.
 */
#include "daemon/internal.h"

json_t *identities_json(struct daemon *d, const struct identity *id)
{
	char fingerprint[CRYPTO_FINGERPRINT_BYTES];
	const struct hub_link *h = hub_own(d, id);

	return json_pack("{s:s,s:b,s:s,s:I,s:s,s:b}", "address", id->address.text, "default",
			 id == identities_default(&d->identities, NULL), "fingerprint",
			 crypto_cert_fingerprint(id->cert, fingerprint), "expires",
			 (json_int_t)crypto_cert_not_after_s(id->cert), "server",
			 id->address.domain, "connected", h && hub_is_ready(h));
}

void command_identity_list(struct op *op)
{
	json_t *list = json_array();
	const struct identity *id;

	TAILQ_FOREACH (id, &op->daemon->identities.list, entry)
		json_array_append_new(list, identities_json(op->daemon, id));
	op_done(op, json_pack("{s:o}", "identities", list));
}

/* NULL: the op has ended. */
static struct identity *named_identity(struct op *op)
{
	const char *address = ctl_text(&op->request, "address");
	struct q2q_address parsed;
	struct identity *id;

	if (address && !op_user(op, "address", &parsed))
		return NULL;
	id = identities_default(&op->daemon->identities, address ? parsed.text : NULL);
	if (!id)
		op_failf(op, CTL_NOT_FOUND, "q2q-tun register YOU@DOMAIN, or q2q-tun authorize",
			 "this machine has no identity%s%s", address ? " " : "",
			 address ? parsed.text : "");
	return id;
}

void command_identity_show(struct op *op)
{
	const struct identity *id = named_identity(op);

	if (id)
		op_done(op, identities_json(op->daemon, id));
}

void command_identity_default(struct op *op)
{
	const struct identity *id = named_identity(op);
	int r;

	if (!id)
		return;
	r = identities_set_default(&op->daemon->identities, id->address.text);
	if (r)
		op_failf(op, CTL_FAILED, NULL, "cannot store the default: %s", strerror(-r));
	else
		op_done(op, json_object());
}

void command_identity_export(struct op *op)
{
	const struct identity *id = named_identity(op);
	struct buffer pem;
	json_t *result = NULL;

	if (!id)
		return;
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	if (!identities_export(id, &pem))
		result = json_pack("{s:s%}", "pem", (const char *)buffer_peek(&pem),
				   buffer_used(&pem));
	buffer_fini(&pem);
	if (result)
		op_done(op, result);
	else
		op_failf(op, CTL_FAILED, NULL, "cannot export %s", id->address.text);
}

void command_identity_import(struct op *op)
{
	const char *pem = ctl_text(&op->request, "pem");
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	_cleanup_(crypto_key_freep) struct crypto_key *key = NULL;
	struct q2q_address address;
	struct identity *id;
	int r = crypto_cert_from_pem(pem, strlen(pem), &cert);

	if (!r)
		r = crypto_key_from_pem(pem, strlen(pem), &key);
	if (r || !crypto_cert_subject(cert) ||
	    q2q_user_parse(crypto_cert_subject(cert), &address) ||
	    !crypto_cert_matches_key(cert, key)) {
		op_failf(op, CTL_USAGE, "it is what q2q-tun identity export prints",
			 "that is not a certificate of a Q2Q address and its private key");
		return;
	}
	r = hub_identity_set(op->daemon, &address, cert, key, &id);
	if (r)
		op_failf(op, CTL_FAILED, NULL, "cannot store %s: %s", address.text, strerror(-r));
	else
		op_done(op, identities_json(op->daemon, id));
}
