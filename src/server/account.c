/*
 * Accounts over the network: sign (a certificate for a password), add_user
 * (a new account) and q2q-tun-renew (a certificate for one that ends). The first two
 * hash a password on a helper thread; a client has at most one of each in work.
 *
 * A wrong password, an unknown user and a disabled one look the same and take
 * the same time. After a few failures an account and a network address have to
 * wait, longer each time; so has whoever tries invites.
 */
#include "server/state.h"

#include "server/policy.h"

#include <stdio.h>

static void fail(struct client *c, uint64_t ask, enum q2q_error error, const char *text)
{
	q2q_conn_fail(c->conn, ask, error, text, server_now_us(c->server));
	client_pump(c);
}

int account_judge(struct server *s, const struct q2q_address *address,
		  const struct crypto_cert *cert)
{
	struct store_user user = { .disabled = true };
	const char *subject = crypto_cert_subject(cert);
	int rc;

	if (q2q_address_kind(address) != Q2Q_USER || !subject ||
	    strcmp(subject, address->domain) == 0)
		return 0; /* the domain itself */
	rc = store_user_find(s->domain.store, address->resource, &user);
	secret_wipe(user.password, sizeof(user.password));
	if (rc == STORE_NOT_FOUND)
		return CRYPTO_VERIFY_REVOKED;
	if (rc != 0)
		return -EIO;
	if (user.disabled)
		return CRYPTO_VERIFY_REVOKED;
	/* Not in the log is fine: a restored backup may be older than the certificate. */
	rc = store_cert_status(s->domain.store, address->text, crypto_cert_spki_hash(cert));
	if (rc == STORE_REVOKED)
		return CRYPTO_VERIFY_REVOKED;
	return rc < 0 ? -EIO : 0;
}

/* ---- sign --------------------------------------------------------------------------------- */

static void sign_forget(struct sign_job *job)
{
	crypto_csr_free(job->csr);
	*job = (struct sign_job){ 0 };
}

static void refuse_password(struct client *c, uint64_t ask, bool q2q_tun, const char *text)
{
	fail(c, ask, q2q_tun ? Q2Q_ERROR_WRONG_PASSWORD : Q2Q_ERROR_UNKNOWN, text);
}

static void refuse_often(struct client *c, uint64_t ask, bool q2q_tun, uint64_t wait_us)
{
	char text[96];

	c->server->counters.limited++;
	client_log(c, LOG_NOTE_, "too many attempts");
	snprintf(text, sizeof(text), "too many attempts; try again in %llu s",
		 (unsigned long long)(wait_us / US_PER_S + 1));
	fail(c, ask, q2q_tun ? Q2Q_ERROR_TOO_MANY_ATTEMPTS : Q2Q_ERROR_UNKNOWN, text);
}

static uint64_t password_pause_us(struct client *c, const struct q2q_address *address)
{
	struct server *s = c->server;
	const uint64_t now_us = server_now_us(s);
	uint8_t key[9];
	const size_t key_bytes = limiter_address_key(&c->remote.ip, key);

	return max_u64(
		limiter_pause_us(s->address_tries, key, key_bytes, now_us),
		limiter_pause_us(s->account_tries, address->text, strlen(address->text), now_us));
}

static void password_was(struct client *c, const struct q2q_address *address, bool right)
{
	struct server *s = c->server;
	const uint64_t now_us = server_now_us(s);
	uint8_t key[9];
	const size_t key_bytes = limiter_address_key(&c->remote.ip, key);

	if (right) {
		limiter_succeeded(s->account_tries, address->text, strlen(address->text));
		return;
	}
	s->counters.wrong_passwords++;
	limiter_failed(s->address_tries, key, key_bytes, now_us);
	limiter_failed(s->account_tries, address->text, strlen(address->text), now_us);
}

/* Logged before it is handed out, so that it can be revoked whatever happens. */
static int issue(struct server *s, const struct crypto_csr *csr, const char *address,
		 struct crypto_cert **ret_cert)
{
	const int64_t now_s = server_wall_s();
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	int rc = crypto_cert_issue_for(s->domain.cert, s->domain.key, csr, address, now_s,
				       (int64_t)s->options->certificate_lifetime_s, &cert);

	if (rc == 0)
		rc = store_cert_add(s->domain.store, address, crypto_cert_spki_hash(cert),
				    crypto_cert_not_after_s(cert), now_s);
	if (rc == 0)
		*ret_cert = TAKE_PTR(cert);
	return rc;
}

/* Answers with a certificate, or says that there is none. True: it was signed. */
static bool hand_out(struct client *c, uint64_t ask, enum q2q_command command,
		     const struct crypto_csr *csr, const struct q2q_address *address)
{
	struct server *s = c->server;
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	struct q2q_answer answer = { .command = command };
	const uint8_t *der;
	size_t der_bytes;
	int rc = issue(s, csr, address->text, &cert);

	if (rc == 0 && command == Q2Q_SIGN)
		rc = store_user_logged_in(s->domain.store, address->resource, server_wall_s());
	if (rc != 0) {
		log_error("%s: cannot sign a certificate for %s: %s", c->name, address->text,
			  rc < 0 ? strerror(-rc) : store_outcome_name((enum store_outcome)rc));
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "the server cannot sign now");
		return false;
	}
	der = crypto_cert_der(cert, &der_bytes);
	answer.identify.certificate = amp_value(der, der_bytes);
	q2q_conn_answer(c->conn, ask, &answer, server_now_us(s));
	client_pump(c);
	s->counters.signed_certificates++;
	return true;
}

static void sign_finish(struct client *c, const struct sign_job *job)
{
	struct server *s = c->server;

	if (store_cert_status(s->domain.store, job->address.text, crypto_csr_spki_hash(job->csr)) ==
	    STORE_REVOKED) {
		client_log(c, LOG_NOTE_, "%s asks to sign a revoked key", job->address.text);
		fail(c, job->ask, Q2Q_ERROR_BAD_CERTIFICATE_REQUEST,
		     "this key was revoked; authorize with a new one");
		return;
	}
	if (hand_out(c, job->ask, Q2Q_SIGN, job->csr, &job->address))
		client_log(c, LOG_INFO_, "signed a certificate for %s", job->address.text);
}

static void on_verified(void *user, int result, const char *text)
{
	struct client *c = user;
	struct sign_job job = c->sign;

	(void)text;
	c->sign = (struct sign_job){ 0 };
	password_was(c, &job.address, result == 0);
	if (result == 0 && job.exists && !job.disabled) {
		sign_finish(c, &job);
	} else if (result == 0 && job.exists) {
		client_log(c, LOG_NOTE_, "%s is disabled: no certificate", job.address.text);
		refuse_password(c, job.ask, job.q2q_tun, "this account is disabled");
	} else {
		client_log(c, LOG_NOTE_, "wrong password for %s", job.address.text);
		refuse_password(c, job.ask, job.q2q_tun, "wrong name or password");
	}
	sign_forget(&job);
}

/* 0, or the error to answer with. */
static int read_request(struct server *s, const struct q2q_call *call, struct sign_job *job)
{
	const struct amp_value *der = &call->sign.certificate_request;

	if (crypto_csr_from_der(der->data, der->n_bytes, &job->csr) != 0)
		return Q2Q_ERROR_BAD_CERTIFICATE_REQUEST;
	if (q2q_user_parse(crypto_csr_subject(job->csr), &job->address) != 0 ||
	    strcmp(job->address.text, crypto_csr_subject(job->csr)) != 0)
		return Q2Q_ERROR_BAD_CERTIFICATE_REQUEST;
	if (strcmp(job->address.domain, s->domain.name) != 0)
		return Q2Q_ERROR_NO_SUCH_USER;
	return 0;
}

static int start_verify(struct client *c, struct sign_job *job, const struct amp_value *password)
{
	struct server *s = c->server;
	struct store_user user;
	int rc = store_user_find(s->domain.store, job->address.resource, &user);

	if (rc != 0 && rc != STORE_NOT_FOUND)
		return -EIO;
	job->exists = rc == 0;
	job->disabled = rc == 0 && user.disabled;
	rc = hasher_verify(s->hasher, job->exists ? user.password : NULL, password->data,
			   password->n_bytes, on_verified, c, &job->hash);
	secret_wipe(&user, sizeof(user));
	return rc;
}

void account_sign(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	struct server *s = c->server;
	struct sign_job job = { .ask = ask, .q2q_tun = call->sign.q2q_tun };
	uint64_t wait_us;
	int rc;

	if (!q2q_conn_is_secured(c->conn)) {
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "passwords are taken inside TLS only");
		return;
	}
	rc = read_request(s, call, &job);
	if (rc != 0) {
		fail(c, ask, (enum q2q_error)rc,
		     rc == Q2Q_ERROR_NO_SUCH_USER ? "not a domain of this server"
						  : "the request is malformed or its key too weak");
		sign_forget(&job);
		return;
	}
	wait_us = password_pause_us(c, &job.address);
	if (c->sign.hash)
		wait_us = US_PER_S;
	if (wait_us > 0) {
		refuse_often(c, ask, job.q2q_tun, wait_us);
		sign_forget(&job);
		return;
	}
	rc = start_verify(c, &job, &call->sign.password);
	if (rc == -EBUSY) {
		refuse_often(c, ask, job.q2q_tun, 5 * US_PER_S);
	} else if (rc != 0) {
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "the server cannot check passwords now");
	} else {
		c->sign = job;
		return;
	}
	sign_forget(&job);
}

/* ---- q2q-tun-renew ----------------------------------------------------------------------------
 */

/* Why this connection's certificate does not get a successor; NULL: it does. */
static const char *renewal_refused(struct client *c)
{
	const struct q2q_address *from = q2q_conn_from(c->conn);
	const struct crypto_cert *cert = c->local_user ? q2q_conn_peer_cert(c->conn) : NULL;

	/* The domain's own certificate speaks for its users, and is none of theirs. */
	if (!cert || !crypto_cert_subject(cert) || strcmp(crypto_cert_subject(cert), from->text))
		return "only a connection that a certificate of a user here has proven renews it";
	if (!c->server->options->certificate_renewal)
		return "this server renews no certificates; sign in with the password";
	if (crypto_cert_not_after_s(cert) < server_wall_s())
		return "the certificate has expired; sign in with the password";
	if (account_judge(c->server, from, cert) != 0)
		return "the account was disabled, or its certificate revoked";
	return NULL;
}

/*
 * For the same key and address alone: another key takes the password, so that whoever took a key
 * gets no second one by it, and its fingerprint stays what is revoked.
 */
static bool is_successor(const struct client *c, const struct sign_job *job)
{
	return strcmp(job->address.text, q2q_conn_from(c->conn)->text) == 0 &&
	       memcmp(crypto_csr_spki_hash(job->csr),
		      crypto_cert_spki_hash(q2q_conn_peer_cert(c->conn)), CRYPTO_HASH_BYTES) == 0;
}

void account_renew(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	struct server *s = c->server;
	const char *const address = q2q_conn_from(c->conn)->text;
	const char *const why = renewal_refused(c);
	struct sign_job job = { .csr = NULL };
	uint64_t wait_us;

	if (why) {
		client_log(c, LOG_NOTE_, "renewal refused: %s", why);
		fail(c, ask, Q2Q_ERROR_NOT_ALLOWED, why);
		return;
	}
	wait_us = limiter_take(s->renewals, address, strlen(address), server_now_us(s));
	if (wait_us > 0) {
		refuse_often(c, ask, true, wait_us);
		return;
	}
	if (read_request(s, call, &job) != 0 || !is_successor(c, &job)) {
		client_log(c, LOG_NOTE_, "renewal refused: another key or address");
		fail(c, ask, Q2Q_ERROR_BAD_CERTIFICATE_REQUEST,
		     "a certificate is renewed for its own key and address alone");
	} else if (hand_out(c, ask, Q2Q_RENEW, job.csr, &job.address)) {
		client_log(c, LOG_INFO_, "renewed the certificate of %s", address);
	}
	sign_forget(&job);
}

/* ---- add_user ----------------------------------------------------------------------------------
 */

static void refuse_registration(struct client *c, uint64_t ask, enum q2q_error error,
				const char *text)
{
	c->server->counters.refused_registrations++;
	client_log(c, LOG_NOTE_, "registration refused: %s", text);
	fail(c, ask, error, text);
}

/* A wrong invite counts like a wrong password: both are guessed. */
static void refuse_invite(struct client *c, uint64_t ask)
{
	struct server *s = c->server;
	uint8_t key[9];
	const size_t key_bytes = limiter_address_key(&c->remote.ip, key);

	limiter_failed(s->address_tries, key, key_bytes, server_now_us(s));
	refuse_registration(c, ask, Q2Q_ERROR_INVITE_REQUIRED,
			    "this invite is not valid (any more); ask the operator for another");
}

static void register_finish(struct client *c, const struct register_job *job, const char *hash)
{
	struct server *s = c->server;
	const int64_t now_s = server_wall_s();
	const char *name = job->address.resource;
	/* An invite counts where it was given, so that it is used up in open mode as well. */
	const int rc = job->invite[0] ? store_user_add_invited(s->domain.store, name, hash,
							       job->invite, now_s)
				      : store_user_add(s->domain.store, name, hash, now_s);

	switch (rc) {
	case 0:
		s->counters.registered++;
		client_log(c, LOG_INFO_, "registered %s", job->address.text);
		q2q_conn_answer(c->conn, job->ask, NULL, server_now_us(s));
		client_pump(c);
		break;
	case STORE_EXISTS:
		refuse_registration(c, job->ask, Q2Q_ERROR_NOT_ALLOWED, "that name is taken");
		break;
	case STORE_INVITE_INVALID:
		refuse_invite(c, job->ask);
		break;
	default:
		log_error("%s: cannot add %s: %s", c->name, job->address.text,
			  rc < 0 ? store_error(s->domain.store)
				 : store_outcome_name((enum store_outcome)rc));
		fail(c, job->ask, Q2Q_ERROR_UNKNOWN, "the server cannot add accounts now");
	}
}

static void on_hashed(void *user, int result, const char *text)
{
	struct client *c = user;
	struct register_job job = c->registering;

	c->registering = (struct register_job){ 0 };
	if (result == 0)
		register_finish(c, &job, text);
	else
		fail(c, job.ask, Q2Q_ERROR_UNKNOWN, "the server cannot hash passwords now");
	secret_wipe(&job, sizeof(job));
}

/* The address of the account, if the name will do. */
static const char *name_reason(const struct server *s, const struct amp_value *name,
			       struct q2q_address *ret_address)
{
	char text[Q2Q_ADDRESS_TEXT_BYTES];

	if (name->n_bytes == 0 || name->n_bytes > Q2Q_RESOURCE_MAX_BYTES ||
	    memchr(name->data, '\0', name->n_bytes) || memchr(name->data, '@', name->n_bytes))
		return "that is no name for an account: up to 64 of a-z 0-9 . _ + -";
	snprintf(text, sizeof(text), "%.*s@%s", (int)name->n_bytes, (const char *)name->data,
		 s->domain.name);
	if (q2q_user_parse(text, ret_address) != 0 || strcmp(text, ret_address->text) != 0)
		return "that is no name for an account: lower case, up to 64 of a-z 0-9 . _ + -";
	if (strcmp(ret_address->resource, ACCOUNTS_RESOURCE) == 0)
		return "that name is the server's own";
	return NULL;
}

static bool invite_text(const struct amp_value *invite, char *out, size_t out_bytes)
{
	if (invite->n_bytes == 0 || invite->n_bytes >= out_bytes ||
	    memchr(invite->data, '\0', invite->n_bytes))
		return false;
	memcpy(out, invite->data, invite->n_bytes);
	out[invite->n_bytes] = '\0';
	return true;
}

/* What can be refused before the password is hashed. */
static bool registration_refused(struct client *c, uint64_t ask, const struct q2q_call *call,
				 struct register_job *job)
{
	struct server *s = c->server;
	const uint64_t now_us = server_now_us(s);
	const struct amp_value *invite = &call->add_user.invite;
	uint8_t key[9];
	const size_t key_bytes = limiter_address_key(&c->remote.ip, key);
	uint64_t wait_us;
	const char *why;

	if (s->options->registration == REGISTRATION_CLOSED) {
		refuse_registration(c, ask, Q2Q_ERROR_REGISTRATION_CLOSED,
				    "this server takes no registrations");
		return true;
	}
	wait_us = limiter_pause_us(s->address_tries, key, key_bytes, now_us);
	if (wait_us == 0)
		wait_us = limiter_take(s->registrations, key, key_bytes, now_us);
	if (c->registering.hash)
		wait_us = US_PER_S;
	if (wait_us > 0) {
		refuse_often(c, ask, true, wait_us);
		return true;
	}
	if (s->options->registration == REGISTRATION_INVITE && !invite->data) {
		refuse_registration(c, ask, Q2Q_ERROR_INVITE_REQUIRED,
				    "this server registers with an invite only");
		return true;
	}
	if (invite->data &&
	    (!invite_text(invite, job->invite, sizeof(job->invite)) ||
	     store_invite_check(s->domain.store, job->invite, server_wall_s()) != 0)) {
		refuse_invite(c, ask);
		return true;
	}
	why = name_reason(s, &call->add_user.name, &job->address);
	if (!why)
		why = policy_password_reason(call->add_user.password.data,
					     call->add_user.password.n_bytes, job->address.resource,
					     s->options->password_min_bytes);
	if (why) {
		refuse_registration(c, ask, Q2Q_ERROR_NOT_ALLOWED, why);
		return true;
	}
	return false;
}

void account_add_user(struct client *c, uint64_t ask, const struct q2q_call *call)
{
	struct register_job job = { .ask = ask };
	int rc;

	if (registration_refused(c, ask, call, &job)) {
		secret_wipe(&job, sizeof(job));
		return;
	}
	rc = hasher_hash(c->server->hasher, call->add_user.password.data,
			 call->add_user.password.n_bytes, on_hashed, c, &job.hash);
	if (rc == 0)
		c->registering = job;
	else if (rc == -EBUSY)
		refuse_often(c, ask, true, 5 * US_PER_S);
	else
		fail(c, ask, Q2Q_ERROR_UNKNOWN, "the server cannot hash passwords now");
	secret_wipe(&job, sizeof(job));
}

void account_cancel(struct client *c)
{
	hasher_cancel(c->sign.hash);
	hasher_cancel(c->registering.hash);
	sign_forget(&c->sign);
	secret_wipe(&c->registering, sizeof(c->registering));
}
