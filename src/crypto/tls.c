/*
 * TLS between two memory buffers: bytes of the network in and out, plaintext
 * out and in. OpenSSL does the protocol; who is trusted is decided by the
 * caller's verify function alone, never by OpenSSL's trust store. Nothing is
 * remembered between connections: no tickets, no session cache, so each
 * handshake shows both certificates anew.
 */
#include "crypto/private.h"

#include <openssl/ssl.h>
#include <stdio.h>

enum {
	PEER_CHAIN_MAX_BYTES = 16 * 1024,
	ALERT_CERTIFICATE_REQUIRED = 116, /* RFC 8446; OpenSSL 3.0 has no text for it */
};

struct crypto_tls_context {
	unsigned n_refs; /* atomic */
	SSL_CTX *ssl_ctx;
};

struct crypto_tls {
	struct crypto_tls_context *context;
	struct crypto_tls_policy policy;
	SSL *ssl;
	BIO *from_network, *to_network; /* owned by ssl */
	enum crypto_tls_state state;
	struct crypto_cert *peer_cert;
	int verify_reason;
	int alert_received; /* the fatal one, or -1 */
	bool shown_cert;    /* we have one to show */
	bool flight_done;   /* server, TLS 1.3: all but the client's second flight is there */
	bool got_data;      /* plaintext came through */
	bool said_goodbye;
	char error[CRYPTO_TLS_ERROR_BYTES];
};

/* ---- the context ------------------------------------------------------------- */

/* Hybrid post-quantum key exchange first where this OpenSSL has it (3.5 and later). */
static bool set_groups(SSL_CTX *ctx)
{
	/* Not const: the macro of OpenSSL casts that away, which clang warns of. */
	char lists[][40] = {
		/* With a key share for both, so that an older peer costs no further round trip. */
		"*X25519MLKEM768:*X25519:P-256:P-384",
		"X25519MLKEM768:X25519:P-256:P-384",
		"X25519:P-256:P-384",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		if (SSL_CTX_set1_groups_list(ctx, lists[i]) == 1)
			return true;
	return false;
}

/* OpenSSL calls this instead of its own path validation. 1: accepted. */
static int on_verify(X509_STORE_CTX *store_ctx, void *unused);

/* OpenSSL calls this for what a client offers. */
static int on_alpn(SSL *ssl, const unsigned char **ret, unsigned char *ret_bytes,
		   const unsigned char *offered, unsigned offered_bytes, void *unused)
{
	const struct crypto_tls *tls = SSL_get_app_data(ssl);
	const char *ours = tls->policy.alpn;
	struct reader r = reader_over(offered, offered_bytes);

	(void)unused;
	if (!ours)
		return SSL_TLSEXT_ERR_NOACK;
	while (r.left_bytes > 0) {
		const uint8_t n_bytes = reader_u8(&r);
		const uint8_t *name = reader_bytes(&r, n_bytes);

		if (!name || n_bytes != strlen(ours) || memcmp(name, ours, n_bytes) != 0)
			continue;
		*ret = name;
		*ret_bytes = n_bytes;
		return SSL_TLSEXT_ERR_OK;
	}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool set_up(SSL_CTX *ctx, bool tls13_only)
{
	SSL_CTX_set_options(ctx,
			    SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	if (tls13_only) /* no middlebox looks into PTCP */
		SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_max_cert_list(ctx, PEER_CHAIN_MAX_BYTES);
	SSL_CTX_set_security_level(ctx, 2);
	SSL_CTX_set_cert_verify_callback(ctx, on_verify, NULL);
	SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
	return SSL_CTX_set_min_proto_version(ctx, tls13_only ? TLS1_3_VERSION : TLS1_2_VERSION) ==
		       1 &&
	       SSL_CTX_set_max_proto_version(ctx, 0) == 1 && SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
	       SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL") == 1 &&
	       SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"q2q", 3) == 1 &&
	       set_groups(ctx);
}

static bool is_consistent(const struct crypto_tls_config *config)
{
	if (!config->cert != !config->key)
		return false;
	return !config->cert || crypto_cert_matches_key(config->cert, config->key);
}

int crypto_tls_context_new(const struct crypto_tls_config *config, struct crypto_tls_context **ret)
{
	_cleanup_(crypto_tls_context_unrefp) struct crypto_tls_context *context = NULL;

	if (!is_consistent(config))
		return -EINVAL;
	context = calloc(1, sizeof(*context));
	if (!context)
		return -ENOMEM;
	context->n_refs = 1;
	context->ssl_ctx = SSL_CTX_new(TLS_method());
	if (!context->ssl_ctx || !set_up(context->ssl_ctx, config->tls13_only))
		return crypto_fault(-EIO);
	if (config->cert && (SSL_CTX_use_certificate(context->ssl_ctx, config->cert->x509) != 1 ||
			     SSL_CTX_use_PrivateKey(context->ssl_ctx, config->key->pkey) != 1))
		return crypto_fault(-EINVAL);
	ERR_clear_error(); /* of the lists of groups that were not known */
	*ret = TAKE_PTR(context);
	return 0;
}

struct crypto_tls_context *crypto_tls_context_ref(struct crypto_tls_context *context)
{
	__atomic_add_fetch(&context->n_refs, 1, __ATOMIC_RELAXED);
	return context;
}

void crypto_tls_context_unref(struct crypto_tls_context *context)
{
	if (!context || __atomic_sub_fetch(&context->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	SSL_CTX_free(context->ssl_ctx);
	free(context);
}

/* ---- the peer's certificate ------------------------------------------------------ */

/* What OpenSSL turns into the alert that fits (ssl_x509err2alert()). */
static int x509_error_of(int reason)
{
	switch (reason) {
	case CRYPTO_VERIFY_WRONG_ISSUER:
	case CRYPTO_VERIFY_UNKNOWN_ISSUER:
	case CRYPTO_VERIFY_NOT_A_CA:
	case CRYPTO_VERIFY_BAD_SIGNATURE: /* a domain that lost its key: unknown CA tells more */
		return X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;
	case CRYPTO_VERIFY_WRONG_USE:
		return X509_V_ERR_INVALID_PURPOSE;
	case CRYPTO_VERIFY_NOT_YET_VALID:
		return X509_V_ERR_CERT_NOT_YET_VALID;
	case CRYPTO_VERIFY_EXPIRED:
		return X509_V_ERR_CERT_HAS_EXPIRED;
	case CRYPTO_VERIFY_REVOKED:
		return X509_V_ERR_CERT_REVOKED;
	default:
		return X509_V_ERR_CERT_REJECTED; /* bad certificate */
	}
}

static int judge(struct crypto_tls *tls, X509 *x509)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	int r = crypto_cert_from_x509(x509, &cert);

	if (r == -EBADMSG)
		return CRYPTO_VERIFY_MALFORMED;
	if (r == 0)
		r = tls->policy.verify(tls->policy.user, cert);
	if (r == 0) {
		crypto_cert_unref(tls->peer_cert);
		tls->peer_cert = TAKE_PTR(cert);
	}
	return r;
}

static int on_verify(X509_STORE_CTX *store_ctx, void *unused)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store_ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct crypto_tls *tls = SSL_get_app_data(ssl);
	X509 *x509 = X509_STORE_CTX_get0_cert(store_ctx);
	int r;

	(void)unused;
	r = x509 ? judge(tls, x509) : CRYPTO_VERIFY_MALFORMED;
	ERR_clear_error(); /* whatever the verify function did, this call leaves nothing */
	tls->verify_reason = r;
	X509_STORE_CTX_set_error(store_ctx, r == 0  ? X509_V_OK
					    : r < 0 ? X509_V_ERR_UNSPECIFIED
						    : x509_error_of(r));
	return r == 0;
}

static void on_info(const SSL *ssl, int where, int value)
{
	struct crypto_tls *tls = SSL_get_app_data(ssl);

	if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT && value >> 8 == SSL3_AL_FATAL)
		tls->alert_received = value & 0xff;
}

/* ---- one connection ---------------------------------------------------------------- */

static bool is_about_certificates(int alert)
{
	switch (alert) {
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
	case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_UNKNOWN_CA:
	case SSL_AD_ACCESS_DENIED:
	case ALERT_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

static const char *alert_text(int alert)
{
	return alert == ALERT_CERTIFICATE_REQUIRED ? "certificate required"
						   : SSL_alert_desc_string_long(alert);
}

static void describe_failure(struct crypto_tls *tls)
{
	const unsigned long code = ERR_peek_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;
	char *out = tls->error;

	if (tls->verify_reason > 0)
		snprintf(out, sizeof(tls->error), "the peer's certificate was refused: %s",
			 crypto_verify_text((enum crypto_verify)tls->verify_reason));
	else if (tls->verify_reason < 0)
		snprintf(out, sizeof(tls->error), "the peer's certificate could not be checked: %s",
			 strerror(-tls->verify_reason));
	else if (tls->alert_received == ALERT_CERTIFICATE_REQUIRED && !tls->shown_cert)
		snprintf(out, sizeof(tls->error),
			 "the peer asked for a certificate, and we have "
			 "none (alert: certificate required)");
	else if (is_about_certificates(tls->alert_received))
		snprintf(out, sizeof(tls->error), "the peer rejected our certificate (alert: %s)",
			 alert_text(tls->alert_received));
	else if (tls->alert_received >= 0)
		snprintf(out, sizeof(tls->error), "the peer ended TLS (alert: %s)",
			 alert_text(tls->alert_received));
	else if (ERR_GET_REASON(code) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		snprintf(out, sizeof(tls->error), "the peer showed no certificate");
	else
		snprintf(out, sizeof(tls->error), "TLS failed: %s", reason ? reason : "unknown");
}

/* The one place where a connection fails. */
static int fail(struct crypto_tls *tls)
{
	if (tls->state != CRYPTO_TLS_FAILED) {
		describe_failure(tls);
		tls->state = CRYPTO_TLS_FAILED;
	}
	ERR_clear_error();
	return -EPROTO;
}

static int fail_with(struct crypto_tls *tls, const char *text)
{
	if (tls->state != CRYPTO_TLS_FAILED) {
		snprintf(tls->error, sizeof(tls->error), "%s", text);
		tls->state = CRYPTO_TLS_FAILED;
	}
	ERR_clear_error();
	return -EPROTO;
}

const char *crypto_tls_state_name(enum crypto_tls_state state)
{
	static const char *const names[] = {
		[CRYPTO_TLS_WANT] = "handshake",
		[CRYPTO_TLS_DONE] = "open",
		[CRYPTO_TLS_CLOSED] = "closed",
		[CRYPTO_TLS_FAILED] = "failed",
	};

	static_assert(ARRAY_SIZE(names) == CRYPTO_TLS_STATE_COUNT, "a state without a name");
	return (unsigned)state < CRYPTO_TLS_STATE_COUNT ? names[state] : "?";
}

/*
 * A server of TLS 1.3 that waits for the client's certificate and Finished has all secrets by then
 * (RFC 8446, section 7.1), and OpenSSL exports from when its own Finished was written.
 */
static bool has_exporter(const struct crypto_tls *tls)
{
	uint8_t probe[CRYPTO_HASH_BYTES];
	bool has;

	if (tls->policy.role != CRYPTO_TLS_SERVER || SSL_version(tls->ssl) != TLS1_3_VERSION)
		return false;
	has = SSL_export_keying_material(tls->ssl, probe, sizeof(probe), "EXPORTER-probe", 14, NULL,
					 0, 1) == 1;
	secret_wipe(probe, sizeof(probe));
	return has;
}

static int drive_handshake(struct crypto_tls *tls)
{
	int r;

	if (tls->state != CRYPTO_TLS_WANT)
		return tls->state == CRYPTO_TLS_FAILED ? -EPROTO : 0;
	ERR_clear_error();
	r = SSL_do_handshake(tls->ssl);
	if (r == 1)
		tls->state = CRYPTO_TLS_DONE;
	else if (SSL_get_error(tls->ssl, r) != SSL_ERROR_WANT_READ)
		return fail(tls);
	tls->flight_done = tls->state == CRYPTO_TLS_WANT && has_exporter(tls);
	ERR_clear_error();
	return 0;
}

static int verify_mode(const struct crypto_tls_policy *policy)
{
	if (policy->role == CRYPTO_TLS_CLIENT || policy->peer == CRYPTO_TLS_PEER_REQUIRE)
		return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	return policy->peer == CRYPTO_TLS_PEER_ASK ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
}

static int connect_buffers(struct crypto_tls *tls)
{
	tls->ssl = SSL_new(tls->context->ssl_ctx);
	tls->from_network = BIO_new(BIO_s_mem());
	tls->to_network = BIO_new(BIO_s_mem());
	if (!tls->ssl || !tls->from_network || !tls->to_network) {
		BIO_free_all(tls->from_network);
		BIO_free_all(tls->to_network);
		return crypto_fault(-ENOMEM);
	}
	/* An empty buffer means "later", not the end. */
	BIO_set_mem_eof_return(tls->from_network, -1);
	BIO_set_mem_eof_return(tls->to_network, -1);
	SSL_set_bio(tls->ssl, tls->from_network, tls->to_network);
	return 0;
}

/* What a client's hello names. False: a name is too long, or there is no memory. */
static bool set_names(struct crypto_tls *tls)
{
	const struct crypto_tls_policy *policy = &tls->policy;
	unsigned char offer[256];
	const size_t n_bytes = policy->alpn ? strlen(policy->alpn) : 0;

	if (policy->role != CRYPTO_TLS_CLIENT)
		return true;
	if (policy->server_name && SSL_set_tlsext_host_name(tls->ssl, policy->server_name) != 1)
		return false;
	tls->policy.server_name = NULL; /* OpenSSL has a copy */
	if (!policy->alpn)
		return true;
	if (n_bytes == 0 || n_bytes >= sizeof(offer))
		return false;
	offer[0] = (unsigned char)n_bytes;
	memcpy(offer + 1, policy->alpn, n_bytes);
	return SSL_set_alpn_protos(tls->ssl, offer, (unsigned)n_bytes + 1) == 0;
}

int crypto_tls_new(struct crypto_tls_context *context, const struct crypto_tls_policy *policy,
		   struct crypto_tls **ret)
{
	_cleanup_(crypto_tls_freep) struct crypto_tls *tls = calloc(1, sizeof(*tls));
	int r;

	assert(policy->verify ||
	       (policy->role == CRYPTO_TLS_SERVER && policy->peer == CRYPTO_TLS_PEER_NONE));
	if (!tls)
		return -ENOMEM;
	tls->context = crypto_tls_context_ref(context);
	tls->policy = *policy;
	tls->alert_received = -1;
	tls->shown_cert = SSL_CTX_get0_certificate(context->ssl_ctx) != NULL;
	r = connect_buffers(tls);
	if (r < 0)
		return r;
	SSL_set_app_data(tls->ssl, tls);
	SSL_set_info_callback(tls->ssl, on_info);
	SSL_set_verify(tls->ssl, verify_mode(policy), NULL);
	if (!set_names(tls))
		return crypto_fault(-EINVAL);
	if (policy->role == CRYPTO_TLS_CLIENT)
		SSL_set_connect_state(tls->ssl);
	else
		SSL_set_accept_state(tls->ssl);
	if (drive_handshake(tls) < 0) /* a client writes its first flight */
		return -EIO;
	*ret = TAKE_PTR(tls);
	return 0;
}

void crypto_tls_free(struct crypto_tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	crypto_cert_unref(tls->peer_cert);
	crypto_tls_context_unref(tls->context);
	free(tls);
}

int crypto_tls_input(struct crypto_tls *tls, const void *data, size_t n_bytes)
{
	if (tls->state == CRYPTO_TLS_FAILED)
		return -EPROTO;
	if (tls->state == CRYPTO_TLS_CLOSED)
		return 0; /* after the goodbye nothing counts */
	if (n_bytes > CRYPTO_TLS_QUEUE_MAX_BYTES - min_size(CRYPTO_TLS_QUEUE_MAX_BYTES,
							    BIO_ctrl_pending(tls->from_network)))
		return -ENOBUFS;
	if (n_bytes > 0 && BIO_write(tls->from_network, data, (int)n_bytes) != (int)n_bytes)
		return crypto_fault(-ENOMEM);
	return drive_handshake(tls);
}

void crypto_tls_input_end(struct crypto_tls *tls)
{
	if (tls->state == CRYPTO_TLS_WANT)
		fail_with(tls, "the connection ended during the TLS handshake");
	/* With TLS 1.3 a refused client hears of it last, and a Vertex server may not say it. */
	if (tls->state == CRYPTO_TLS_DONE && !tls->got_data && tls->shown_cert)
		fail_with(tls, "the connection ended before any data came; "
			       "the peer probably rejected our certificate");
	if (tls->state == CRYPTO_TLS_DONE)
		fail_with(tls, "the connection was cut: it ended without a goodbye");
}

size_t crypto_tls_output(struct crypto_tls *tls, void *out, size_t out_bytes)
{
	size_t n_bytes = 0;

	if (BIO_read_ex(tls->to_network, out, out_bytes, &n_bytes) != 1)
		n_bytes = 0;
	ERR_clear_error();
	return n_bytes;
}

size_t crypto_tls_output_waiting(const struct crypto_tls *tls)
{
	return BIO_ctrl_pending(tls->to_network);
}

enum crypto_tls_state crypto_tls_handshake(const struct crypto_tls *tls)
{
	return tls->state;
}

bool crypto_tls_flight_done(const struct crypto_tls *tls)
{
	return tls->state == CRYPTO_TLS_WANT && tls->flight_done;
}

const char *crypto_tls_error(const struct crypto_tls *tls)
{
	return tls->error;
}

int crypto_tls_verify_reason(const struct crypto_tls *tls)
{
	return tls->verify_reason > 0 ? tls->verify_reason : 0;
}

bool crypto_tls_peer_rejected_us(const struct crypto_tls *tls)
{
	return tls->state == CRYPTO_TLS_FAILED && is_about_certificates(tls->alert_received);
}

int crypto_tls_read(struct crypto_tls *tls, void *out, size_t out_bytes, size_t *ret_bytes)
{
	size_t n_bytes = 0;
	int r;

	if (tls->state == CRYPTO_TLS_WANT)
		return CRYPTO_TLS_AGAIN;
	if (tls->state == CRYPTO_TLS_CLOSED)
		return CRYPTO_TLS_EOF;
	if (tls->state == CRYPTO_TLS_FAILED)
		return -EPROTO;
	ERR_clear_error();
	if (SSL_read_ex(tls->ssl, out, out_bytes, &n_bytes) == 1) {
		tls->got_data = true;
		*ret_bytes = n_bytes;
		return 0;
	}
	r = SSL_get_error(tls->ssl, 0);
	if (r == SSL_ERROR_ZERO_RETURN) {
		tls->state = CRYPTO_TLS_CLOSED;
		return CRYPTO_TLS_EOF;
	}
	if (r != SSL_ERROR_WANT_READ)
		return fail(tls);
	/* A peer can make us answer (key updates) without reading the answers. */
	if (BIO_ctrl_pending(tls->to_network) > 2 * CRYPTO_TLS_QUEUE_MAX_BYTES)
		return fail_with(tls, "the peer asks for more than it reads");
	ERR_clear_error();
	return CRYPTO_TLS_AGAIN;
}

int crypto_tls_write(struct crypto_tls *tls, const void *data, size_t n_bytes, size_t *ret_bytes)
{
	const size_t waiting = BIO_ctrl_pending(tls->to_network);
	size_t n_written = 0;

	if (tls->state == CRYPTO_TLS_FAILED || tls->said_goodbye)
		return -EPROTO;
	if (tls->state == CRYPTO_TLS_WANT || waiting >= CRYPTO_TLS_QUEUE_MAX_BYTES)
		return CRYPTO_TLS_AGAIN;
	if (n_bytes == 0) {
		*ret_bytes = 0;
		return 0;
	}
	ERR_clear_error();
	n_bytes = min_size(n_bytes, CRYPTO_TLS_QUEUE_MAX_BYTES - waiting);
	if (SSL_write_ex(tls->ssl, data, n_bytes, &n_written) != 1)
		return fail(tls);
	*ret_bytes = n_written;
	return 0;
}

void crypto_tls_shutdown(struct crypto_tls *tls)
{
	if (tls->said_goodbye || (tls->state != CRYPTO_TLS_DONE && tls->state != CRYPTO_TLS_CLOSED))
		return;
	tls->said_goodbye = true;
	ERR_clear_error();
	SSL_shutdown(tls->ssl);
	ERR_clear_error();
}

int crypto_tls_export(struct crypto_tls *tls, const char *label, const void *context,
		      size_t context_bytes, void *out, size_t out_bytes)
{
	if (tls->state != CRYPTO_TLS_DONE && !crypto_tls_flight_done(tls))
		return -EAGAIN;
	ERR_clear_error();
	if (SSL_export_keying_material(tls->ssl, out, out_bytes, label, strlen(label), context,
				       context_bytes, 1) != 1)
		return crypto_fault(-EIO);
	return 0;
}

struct crypto_cert *crypto_tls_peer_cert(const struct crypto_tls *tls)
{
	return tls->peer_cert;
}

static bool is_negotiated(const struct crypto_tls *tls)
{
	return tls->state == CRYPTO_TLS_DONE || tls->state == CRYPTO_TLS_CLOSED ||
	       crypto_tls_flight_done(tls);
}

const char *crypto_tls_version(const struct crypto_tls *tls)
{
	return is_negotiated(tls) ? SSL_get_version(tls->ssl) : "";
}

const char *crypto_tls_cipher(const struct crypto_tls *tls)
{
	return is_negotiated(tls) ? SSL_get_cipher_name(tls->ssl) : "";
}

const char *crypto_tls_group(const struct crypto_tls *tls)
{
	const char *name =
		is_negotiated(tls)
			? SSL_group_to_name(tls->ssl, (int)SSL_get_negotiated_group(tls->ssl))
			: NULL;

	return name ? name : "";
}
