/*
 * Commands about identities: accounts and certificates.
 *
 *   register   anonymous connection: inbound to accounts@DOMAIN, add_user; then
 *   authorize  connection as ADDRESS with a throw-away certificate: sign
 */
#include "daemon/internal.h"

#include <stdio.h>

enum phase { PHASE_ACCOUNT, PHASE_SIGN };

struct enroll {
	struct op *op;
	struct q2q_address address;
	enum phase phase;
	bool then_authorize, fresh_key;
	bool made_account;
	struct crypto_key *key;
	struct crypto_tls_context *tls;
	struct serverlink *server;
};

static int start_connection(struct enroll *e);

static void enroll_end(struct op *op)
{
	struct enroll *e = op->state;

	serverlink_free(e->server);
	crypto_tls_context_unref(e->tls);
	crypto_key_free(e->key);
	free(e);
}

static void fault(struct enroll *e, const char *what, int r)
{
	op_failf(e->op, CTL_FAILED, NULL, "cannot %s: %s", what, strerror(-r));
}

/* ---- the certificate ---- */

static void send_sign(struct enroll *e, uint64_t now_us)
{
	struct q2q_call call = { .command = Q2Q_SIGN };
	const char *password = ctl_text(&e->op->request, "password");
	struct buffer csr;
	int r;

	buffer_init(&csr, 4096, false);
	r = crypto_csr_make(e->key, e->address.text, &csr);
	call.sign.certificate_request = amp_value(buffer_peek(&csr), buffer_used(&csr));
	call.sign.password = amp_text(password ? password : "");
	call.sign.q2q_tun = true;
	if (!r)
		r = q2q_conn_call(e->server->conn, &call, ++e->op->daemon->next_cookie, 0, now_us);
	buffer_fini(&csr);
	if (r) {
		fault(e, "ask for a certificate", r);
		return;
	}
	op_progress(e->op, "asking the server of %s to sign this machine's key", e->address.domain);
	serverlink_pump(e->server);
}

/* Is this what we asked for? 0, an enum crypto_verify, or a fault. */
static int check_cert(const struct enroll *e, const struct amp_value *der,
		      struct crypto_cert **ret_cert)
{
	struct daemon *d = e->op->daemon;
	struct crypto_cert *anchor = domains_pin(&d->domains, e->address.domain);
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	int r = crypto_cert_from_der(der->data, der->n_bytes, &cert);

	if (!r)
		r = anchor ? crypto_cert_verify(cert, anchor, e->address.text, wall_clock_s())
			   : -ENOENT;
	if (!r && !crypto_cert_matches_key(cert, e->key))
		r = CRYPTO_VERIFY_KEY_CHANGED;
	if (!r)
		*ret_cert = TAKE_PTR(cert);
	return r;
}

static void signed_by_server(struct enroll *e, const struct amp_value *der)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	struct daemon *d = e->op->daemon;
	struct identity *identity;
	int r = check_cert(e, der, &cert);

	if (r) {
		op_failf(e->op, CTL_UNTRUSTED, NULL,
			 "the server's certificate for %s is not good: %s", e->address.text,
			 r > 0 ? crypto_verify_text((enum crypto_verify)r) : strerror(-r));
		return;
	}
	r = hub_identity_set(d, &e->address, cert, e->key, &identity);
	if (r) {
		fault(e, "store the certificate", r);
		return;
	}
	log_note("%s: this machine is authorized", e->address.text);
	op_done(e->op, identities_json(d, identity));
}

static void sign_failed(struct enroll *e, const struct q2q_failure *f)
{
	switch (f->error) {
	case Q2Q_ERROR_WRONG_PASSWORD:
	case Q2Q_ERROR_UNKNOWN: /* how stock servers say it */
		op_failf(e->op, CTL_DENIED,
			 "check both. A new account is made by: q2q-tun register ADDRESS",
			 "the server of %s knows no %s with that password", e->address.domain,
			 e->address.text);
		return;
	case Q2Q_ERROR_NO_SUCH_USER:
		op_failf(e->op, CTL_NOT_FOUND, "is the domain written right?",
			 "the server that answers for %s does not serve that domain",
			 e->address.domain);
		return;
	case Q2Q_ERROR_TOO_MANY_ATTEMPTS:
		op_failf(e->op, CTL_DENIED, "wait some minutes, then try again",
			 "the server of %s refuses: too many attempts", e->address.domain);
		return;
	default:
		op_failf(e->op, CTL_FAILED, NULL, "the server of %s did not sign: %s %s",
			 e->address.domain, f->code_text, f->description);
		return;
	}
}

/* ---- the account ---- */

static void ask_for_admin(struct enroll *e, uint64_t now_us)
{
	struct q2q_call call = { .command = Q2Q_INBOUND };
	char accounts[Q2Q_ADDRESS_TEXT_BYTES];
	int r;

	snprintf(accounts, sizeof(accounts), "accounts@%s", e->address.domain);
	call.inbound.protocol = amp_text("identity-admin");
	call.inbound.q2q_tun = true;
	r = q2q_user_parse(accounts, &call.inbound.to);
	if (!r)
		r = q2q_conn_call(e->server->conn, &call, ++e->op->daemon->next_cookie, 0, now_us);
	if (r) {
		fault(e, "ask for an account", r);
		return;
	}
	op_progress(e->op, "making the account %s", e->address.text);
	serverlink_pump(e->server);
}

static void add_user(struct enroll *e, const struct q2q_listeners *listeners, uint64_t now_us)
{
	struct q2q_call call = { .command = Q2Q_ADD_USER };
	const char *password = ctl_text(&e->op->request, "password");
	int r;

	if (listeners->n == 0) {
		op_failf(e->op, CTL_DENIED, "ask who runs it for an account",
			 "the server of %s does not make accounts", e->address.domain);
		return;
	}
	call.add_user.name = amp_text(e->address.resource);
	call.add_user.password = amp_text(password ? password : "");
	call.add_user.invite = amp_text(ctl_text(&e->op->request, "invite"));
	r = q2q_conn_add_user(e->server->conn, &listeners->entries[0].id, &call,
			      ++e->op->daemon->next_cookie, now_us);
	if (r) {
		fault(e, "ask for an account", r);
		return;
	}
	serverlink_pump(e->server);
}

static void account_failed(struct enroll *e, const struct q2q_failure *f)
{
	const char *domain = e->address.domain;

	switch (f->error) {
	case Q2Q_ERROR_NOT_ALLOWED:
		op_failf(e->op, CTL_DENIED,
			 "if that account is yours: q2q-tun authorize ADDRESS. Else choose another "
			 "name, or what else the server asks for",
			 "%s was not registered: %s", e->address.text,
			 *f->description ? f->description : "it exists already");
		return;
	case Q2Q_ERROR_INVITE_REQUIRED:
		op_failf(e->op, CTL_DENIED,
			 "ask who runs it for one, then: q2q-tun register ADDRESS --invite CODE",
			 "%s was not registered: the server of %s wants an invitation that is "
			 "valid%s%s",
			 e->address.text, domain, *f->description ? ": " : "", f->description);
		return;
	case Q2Q_ERROR_REGISTRATION_CLOSED:
		op_failf(e->op, CTL_DENIED,
			 "ask who runs it for an account, then: q2q-tun authorize ADDRESS",
			 "%s was not registered: the server of %s does not let people register",
			 e->address.text, domain);
		return;
	case Q2Q_ERROR_TOO_MANY_ATTEMPTS:
		op_failf(e->op, CTL_DENIED, "wait some minutes, then try again",
			 "the server of %s refuses: too many attempts", domain);
		return;
	default:
		op_failf(e->op, CTL_FAILED, NULL,
			 "the server of %s did not make the account: %s %s", domain, f->code_text,
			 f->description);
		return;
	}
}

static void account_made(struct enroll *e)
{
	log_note("%s: registered", e->address.text);
	e->made_account = true;
	if (!e->then_authorize) {
		op_done(e->op, json_pack("{s:s}", "address", e->address.text));
		return;
	}
	e->phase = PHASE_SIGN;
	start_connection(e);
}

/* ---- the connection ---- */

static void on_ready(void *user, struct serverlink *l)
{
	struct enroll *e = user;
	struct daemon *d = e->op->daemon;
	const char *server = ctl_text(&e->op->request, "server");
	const uint64_t now_us = net_loop_now_us(d->loop);

	(void)l;
	/* Where DNS does not lead to it, later connections need the user's word too. */
	if (server && domains_set_server(&d->domains, e->address.domain, server))
		log_warn("%s: cannot remember the server %s", e->address.domain, server);
	if (e->phase == PHASE_ACCOUNT)
		ask_for_admin(e, now_us);
	else
		send_sign(e, now_us);
}

static void on_event(void *user, struct serverlink *l, const struct q2q_event *event)
{
	struct enroll *e = user;
	const uint64_t now_us = net_loop_now_us(e->op->daemon->loop);

	if (event->kind == Q2Q_EVENT_CALL) {
		if (event->ask)
			q2q_conn_fail(l->conn, event->ask, Q2Q_ERROR_UNHANDLED, NULL, now_us);
		return;
	}
	if (event->kind == Q2Q_EVENT_ERROR) {
		/* The end of the connection itself comes as on_failed. */
		if (event->failure.error == Q2Q_ERROR_CONNECTION_LOST)
			return;
		if (event->command == Q2Q_SIGN)
			sign_failed(e, &event->failure);
		else
			account_failed(e, &event->failure);
		return;
	}
	if (event->kind != Q2Q_EVENT_ANSWER)
		return;
	if (event->command == Q2Q_INBOUND)
		add_user(e, &event->answer.inbound.listeners, now_us);
	else if (event->command == Q2Q_ADD_USER)
		account_made(e);
	else if (event->command == Q2Q_SIGN)
		signed_by_server(e, &event->answer.identify.certificate);
}

static void on_failed(void *user, struct serverlink *l, const struct problem *problem)
{
	struct enroll *e = user;
	struct problem p = *problem;

	if (l->untrusted_new && l->offered) {
		op_ask_domain(e->op, e->address.domain, l->offered);
		return;
	}
	if (e->made_account) {
		snprintf(p.error, sizeof(p.error),
			 "the account was made, but this machine has no certificate yet: %.380s",
			 problem->error);
		problem_hint(&p, "q2q-tun authorize %s", e->address.text);
	}
	op_fail(e->op, &p);
}

static void on_answer(struct op *op, const char *answer)
{
	struct enroll *e = op->state;
	char fingerprint[CRYPTO_FINGERPRINT_BYTES];
	int r;

	crypto_cert_fingerprint(e->server->offered, fingerprint);
	if (!op_says_yes(answer, fingerprint)) {
		op_fail(op, &e->server->problem);
		return;
	}
	r = domains_set(&op->daemon->domains, e->address.domain, e->server->offered);
	if (r)
		fault(e, "store the key of the server", r);
	else
		serverlink_start(e->server);
}

/* What we show as client: nothing when registering, a throw-away certificate when authorizing. */
static int make_tls(struct enroll *e)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	struct crypto_tls_config config = { .cert = NULL };
	int r = 0;

	crypto_tls_context_unref(e->tls);
	e->tls = NULL;
	if (e->phase == PHASE_SIGN)
		r = crypto_cert_make_throwaway(e->key, e->address.text, wall_clock_s(), &cert);
	if (!r && e->phase == PHASE_SIGN) {
		config.cert = cert;
		config.key = e->key;
	}
	return r ? r : crypto_tls_context_new(&config, &e->tls);
}

/* The key in use stays, so that peers who pinned it see the same one. */
static int take_key(struct enroll *e)
{
	struct identities *ids = &e->op->daemon->identities;
	const struct identity *old = identities_find(ids, e->address.text);
	struct buffer pem;
	int r;

	if (!old || e->fresh_key)
		return identities_pending_key(ids, &e->address, e->fresh_key, &e->key);
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	r = crypto_key_to_pem(old->key, &pem);
	if (!r)
		r = crypto_key_from_pem(buffer_peek(&pem), buffer_used(&pem), &e->key);
	buffer_fini(&pem);
	return r;
}

/* 0, or the op has ended. */
static int start_connection(struct enroll *e)
{
	struct serverlink_config config = {
		.daemon = e->op->daemon,
		.domain = e->address.domain,
		.server = ctl_text(&e->op->request, "server"),
		.trust_new = ctl_bool(&e->op->request, "yes"),
		.on_ready = on_ready,
		.on_failed = on_failed,
		.on_event = on_event,
		.user = e,
	};
	int r = e->phase == PHASE_SIGN && !e->key ? take_key(e) : 0;

	if (!r)
		r = make_tls(e);
	serverlink_free(e->server);
	e->server = NULL;
	config.tls = e->tls;
	if (e->phase == PHASE_SIGN)
		config.from = e->address;
	if (!r)
		r = serverlink_new(&config, &e->server);
	if (r) {
		fault(e, "prepare the connection", r);
		return r;
	}
	serverlink_start(e->server);
	return 0;
}

static void enroll(struct op *op, enum phase phase, bool fresh_key)
{
	struct enroll *e = calloc(1, sizeof(*e));
	const char *password = ctl_text(&op->request, "password");

	if (!e) {
		op_failf(op, CTL_FAILED, NULL, "out of memory");
		return;
	}
	e->op = op;
	e->phase = phase;
	e->fresh_key = fresh_key;
	e->then_authorize = ctl_bool(&op->request, "authorize");
	op->state = e;
	op->on_end = enroll_end;
	op->on_answer = on_answer;
	if (!op_user(op, "address", &e->address))
		return;
	if (!password || !*password || strlen(password) > Q2Q_PASSWORD_MAX_BYTES) {
		op_failf(op, CTL_USAGE, NULL, "a password of 1 to %d bytes is needed",
			 Q2Q_PASSWORD_MAX_BYTES);
		return;
	}
	op_progress(op, "looking for the server of %s", e->address.domain);
	start_connection(e);
}

void command_register(struct op *op)
{
	enroll(op, PHASE_ACCOUNT, false);
}

void command_authorize(struct op *op)
{
	enroll(op, PHASE_SIGN, false);
}

void command_identity_rotate(struct op *op)
{
	enroll(op, PHASE_SIGN, true);
}
