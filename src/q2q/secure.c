/*
 * The start of TLS in the middle of the connection. The client's last clear box is `secure`, the
 * server's its answer. Whatever bytes came behind those boxes belong to TLS: they are never read
 * as boxes, so nobody on the way can slip a clear box into the encrypted part.
 */
#include "q2q/conn.h"

/* Names first, then the program's pins: a certificate of another name is never right. */
static int verify_names(const struct q2q_conn *conn, const struct crypto_cert *cert)
{
	const char *subject = crypto_cert_subject(cert);
	const char *issuer = crypto_cert_issuer(cert);

	if (!subject || !issuer)
		return CRYPTO_VERIFY_MALFORMED;
	if (conn->config.role == Q2Q_CLIENT)
		return strcmp(subject, conn->to.domain) == 0 ? 0 : CRYPTO_VERIFY_WRONG_NAME;
	if (strcmp(issuer, conn->from.domain) != 0)
		return CRYPTO_VERIFY_WRONG_ISSUER;
	return q2q_may_speak_for(subject, issuer, &conn->from) ? 0 : CRYPTO_VERIFY_WRONG_NAME;
}

static int verify_peer(void *user, struct crypto_cert *cert)
{
	struct q2q_conn *conn = user;
	const int r = verify_names(conn, cert);

	return r != 0 ? r : conn->verify(conn->verify_user, cert);
}

static void start_tls(struct q2q_conn *conn, enum crypto_tls_role role, enum crypto_tls_peer peer,
		      uint64_t now_us)
{
	const struct crypto_tls_policy policy = {
		.role = role, .peer = peer, .verify = verify_peer, .user = conn
	};
	struct amp_value rest = amp_reader_rest(&conn->reader);
	const int r = crypto_tls_new(conn->tls_context, &policy, &conn->tls);

	if (r < 0) {
		conn_over(conn, r, "TLS could not be started");
		return;
	}
	conn_set_state(conn, CONN_HANDSHAKE, add_sat_u64(now_us, conn->config.handshake_us),
		       "TLS starts");
	if (rest.n_bytes > 0)
		conn_feed(conn, &rest);
	/* Before plaintext goes into the same reader. */
	amp_reader_drop(&conn->reader);
	conn_tls_progress(conn);
}

/* ---- client ---------------------------------------------------------------------------------- */

int q2q_conn_secure(struct q2q_conn *conn, const struct q2q_secure *secure, uint64_t cookie,
		    uint64_t now_us)
{
	const uint64_t wait_us = add_sat_u64(conn->config.setup_us, conn->config.handshake_us);
	struct q2q_call call = { .command = Q2Q_SECURE };
	int r;

	if (conn->state == CONN_OVER)
		return -EPIPE;
	if (conn->state != CONN_CLEAR)
		return -EALREADY;
	if (conn->config.role != Q2Q_CLIENT || !secure->tls || !secure->verify ||
	    (secure->authorize && q2q_address_kind(&secure->from) == Q2Q_ANONYMOUS) ||
	    q2q_domain_parse(secure->to.domain, &call.secure.to) < 0)
		return -EINVAL;
	call.secure.from = secure->from;
	call.secure.authorize = secure->authorize;
	r = conn_ask(conn, &call, ASK_SECURE, cookie, add_sat_u64(now_us, wait_us));
	if (r < 0)
		return r;
	conn->from = secure->from;
	conn->to = call.secure.to;
	conn->authorize = secure->authorize;
	conn->tls_context = crypto_tls_context_ref(secure->tls);
	conn->verify = secure->verify;
	conn->verify_user = secure->user;
	conn->secure_cookie = cookie;
	conn->secure_number = conn->asks.last_number;
	conn_set_state(conn, CONN_SECURING, NEVER_US, "secure");
	return 0;
}

void conn_secure_answered(struct q2q_conn *conn, uint64_t now_us)
{
	conn->secure_owed = true;
	start_tls(conn, CRYPTO_TLS_CLIENT, CRYPTO_TLS_PEER_REQUIRE, now_us);
}

/* ---- server ------------------------------------------------------------------------------------
 */

int q2q_conn_accept_secure(struct q2q_conn *conn, uint64_t ask, struct crypto_tls_context *tls,
			   int (*verify)(void *user, struct crypto_cert *cert), void *user,
			   uint64_t now_us)
{
	struct pending *pending = conn_pending(conn, ask);
	struct amp_box box;

	if (!pending)
		return -ENOENT;
	if (pending->command != Q2Q_SECURE || !tls || (conn->authorize && !verify))
		return -EINVAL;
	amp_box_init(&box);
	amp_put(&box, "_answer", pending->ask, pending->ask_bytes);
	conn_must_send(conn, &box);
	if (conn->state == CONN_OVER)
		return 0;
	conn_unpend(conn, pending);
	conn->tls_context = crypto_tls_context_ref(tls);
	conn->verify = verify;
	conn->verify_user = user;
	start_tls(conn, CRYPTO_TLS_SERVER,
		  conn->authorize ? CRYPTO_TLS_PEER_REQUIRE : CRYPTO_TLS_PEER_NONE, now_us);
	return 0;
}
