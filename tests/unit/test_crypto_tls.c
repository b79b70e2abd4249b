#include "config.h" /* _GNU_SOURCE */
#include "unit.h"
#include "forge.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#define NOW_S INT64_C(1800000000)
#define ALICE "alice@example.com"
#define BOB   "bob@example.com"

struct party {
	struct crypto_key *key;
	struct crypto_cert *cert;
	struct crypto_tls_context *any, *only13;
};

static struct {
	struct party domain, alice, bob, stranger, none, stock;
} w;

static void make_contexts(struct party *p)
{
	const struct crypto_tls_config any = { p->cert, p->key, false };
	const struct crypto_tls_config only13 = { p->cert, p->key, true };

	assert_int_equal(crypto_tls_context_new(&any, &p->any), 0);
	assert_int_equal(crypto_tls_context_new(&only13, &p->only13), 0);
}

static void make_user(struct party *p, const struct party *domain, const char *address,
		      enum crypto_key_kind kind)
{
	struct crypto_csr *csr = NULL;
	struct buffer der;

	assert_int_equal(crypto_key_generate(kind, &p->key), 0);
	buffer_init(&der, 8192, false);
	assert_int_equal(crypto_csr_make(p->key, address, &der), 0);
	assert_int_equal(crypto_csr_from_der(buffer_peek(&der), buffer_used(&der), &csr), 0);
	assert_int_equal(
		crypto_cert_issue(domain->cert, domain->key, csr, address, NOW_S, 90, &p->cert), 0);
	crypto_csr_free(csr);
	buffer_fini(&der);
	make_contexts(p);
}

/* As a stock Vertex server makes it: version 1, RSA 2048, SHA-256. */
static void make_stock(struct party *p)
{
	EVP_PKEY *rsa = forge_rsa(2048);
	const struct forge recipe = { .subject = "example.org",
				      .pkey = rsa,
				      .not_before_s = NOW_S,
				      .not_after_s = NOW_S + 1000 };

	p->key = forge_key(rsa);
	p->cert = forge_cert(&recipe);
	EVP_PKEY_free(rsa);
	make_contexts(p);
}

static int make_world(void **state)
{
	(void)state;
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &w.domain.key), 0);
	assert_int_equal(
		crypto_cert_make_domain(w.domain.key, "example.com", NOW_S, 365, &w.domain.cert),
		0);
	make_contexts(&w.domain);
	make_user(&w.alice, &w.domain, ALICE, CRYPTO_KEY_P256);
	make_user(&w.bob, &w.domain, BOB, CRYPTO_KEY_ED25519);
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &w.stranger.key), 0);
	assert_int_equal(crypto_cert_make_throwaway(w.stranger.key, ALICE, NOW_S, &w.stranger.cert),
			 0);
	make_contexts(&w.stranger);
	make_contexts(&w.none);
	make_stock(&w.stock);
	return 0;
}

static void end_party(struct party *p)
{
	crypto_key_free(p->key);
	crypto_cert_unref(p->cert);
	crypto_tls_context_unref(p->any);
	crypto_tls_context_unref(p->only13);
}

static int end_world(void **state)
{
	(void)state;
	end_party(&w.domain);
	end_party(&w.alice);
	end_party(&w.bob);
	end_party(&w.stranger);
	end_party(&w.none);
	end_party(&w.stock);
	return 0;
}

/* What one end wants of the other. */
struct wish {
	const struct crypto_cert *anchor; /* NULL: refuse with `reason` */
	const char *cn;
	int64_t now_s;
	int reason;
	unsigned n_calls;
};

static int on_verify(void *user, struct crypto_cert *cert)
{
	struct wish *wish = user;

	wish->n_calls++;
	/* Leaves OpenSSL errors behind: they must not reach the connection. */
	ERR_raise(ERR_LIB_USER, ERR_R_INTERNAL_ERROR);
	if (!wish->anchor)
		return wish->reason;
	return crypto_cert_verify(cert, wish->anchor, wish->cn, wish->now_s);
}

struct link {
	struct crypto_tls *end[2]; /* client, server */
	struct wish wish[2];
};

static void open_link(struct link *l, struct crypto_tls_context *client,
		      struct crypto_tls_context *server, enum crypto_tls_peer peer)
{
	const struct crypto_tls_policy policies[2] = {
		{ CRYPTO_TLS_CLIENT, CRYPTO_TLS_PEER_REQUIRE, on_verify, &l->wish[0] },
		{ CRYPTO_TLS_SERVER, peer, on_verify, &l->wish[1] },
	};

	assert_int_equal(crypto_tls_new(client, &policies[0], &l->end[0]), 0);
	assert_int_equal(crypto_tls_new(server, &policies[1], &l->end[1]), 0);
}

static void close_link(struct link *l)
{
	crypto_tls_free(l->end[0]);
	crypto_tls_free(l->end[1]);
	assert_int_equal(ERR_peek_error(), 0);
}

/* Carries bytes, `step` at a time, until nothing moves. Alerts are taken in by a read. */
static void carry(struct link *l, size_t step)
{
	uint8_t bytes[16384], plain[1];
	bool moved = true;
	size_t n;

	while (moved) {
		moved = false;
		for (int i = 0; i < 2; i++) {
			while ((n = crypto_tls_output(l->end[i], bytes, step)) > 0) {
				moved = true;
				(void)!crypto_tls_input(l->end[!i], bytes, n);
				assert_int_equal(ERR_peek_error(), 0);
			}
			/* Only when no data is on the way, so that none is lost. */
			if (crypto_tls_handshake(l->end[!i]) == CRYPTO_TLS_DONE && moved)
				(void)!crypto_tls_read(l->end[!i], plain, 0, &n);
		}
	}
}

static void send_text(struct link *l, int from, const char *text)
{
	const size_t n = strlen(text);
	uint8_t bytes[16384], plain[256];
	size_t n_taken, n_bytes;

	assert_int_equal(crypto_tls_write(l->end[from], text, n, &n_taken), 0);
	assert_int_equal(n_taken, n);
	while ((n_bytes = crypto_tls_output(l->end[from], bytes, sizeof(bytes))) > 0)
		assert_int_equal(crypto_tls_input(l->end[!from], bytes, n_bytes), 0);
	assert_int_equal(crypto_tls_read(l->end[!from], plain, sizeof(plain), &n_bytes), 0);
	assert_int_equal(n_bytes, n);
	assert_memory_equal(plain, text, n);
	assert_int_equal(crypto_tls_read(l->end[!from], plain, sizeof(plain), &n_bytes),
			 CRYPTO_TLS_AGAIN);
}

static struct link mutual_link(void)
{
	return (struct link){ .wish = { { w.domain.cert, "example.com", NOW_S, 0, 0 },
					{ w.domain.cert, ALICE, NOW_S, 0, 0 } } };
}

static void two_parties_meet_and_talk(void **state)
{
	struct crypto_tls_context *const clients[] = { w.alice.any, w.alice.only13 };
	struct crypto_tls_context *const servers[] = { w.domain.any, w.domain.only13 };

	(void)state;
	for (size_t step = 1; step <= 16384; step *= 128) {
		for (int i = 0; i < 4; i++) {
			struct link l = mutual_link();

			open_link(&l, clients[i % 2], servers[i / 2], CRYPTO_TLS_PEER_REQUIRE);
			assert_int_equal(crypto_tls_handshake(l.end[0]), CRYPTO_TLS_WANT);
			carry(&l, step);
			for (int e = 0; e < 2; e++) {
				assert_string_equal(crypto_tls_error(l.end[e]), "");
				assert_int_equal(crypto_tls_handshake(l.end[e]), CRYPTO_TLS_DONE);
				assert_int_equal(l.wish[e].n_calls, 1);
				assert_string_equal(crypto_tls_version(l.end[e]), "TLSv1.3");
				assert_true(strlen(crypto_tls_cipher(l.end[e])) > 0);
			}
			assert_string_equal(crypto_cert_subject(crypto_tls_peer_cert(l.end[1])),
					    ALICE);
			assert_true(crypto_cert_same_key(crypto_tls_peer_cert(l.end[0]),
							 w.domain.cert));
			send_text(&l, 0, "hello");
			send_text(&l, 1, "good evening");
			close_link(&l);
		}
	}
}

static void two_users_meet_with_keys_of_different_kinds(void **state)
{
	struct link l = { .wish = { { w.domain.cert, BOB, NOW_S, 0, 0 },
				    { w.domain.cert, ALICE, NOW_S, 0, 0 } } };

	(void)state;
	open_link(&l, w.alice.only13, w.bob.only13, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 1200);
	assert_int_equal(crypto_tls_handshake(l.end[0]), CRYPTO_TLS_DONE);
	assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_DONE);
	send_text(&l, 1, "x");
	close_link(&l);
}

static void a_server_that_does_not_ask_gets_no_certificate(void **state)
{
	struct link l = mutual_link();

	(void)state;
	open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_NONE);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_DONE);
	assert_null(crypto_tls_peer_cert(l.end[1]));
	assert_int_equal(l.wish[1].n_calls, 0);
	send_text(&l, 0, "sign this");
	close_link(&l);
}

static void a_client_without_certificate_passes_where_it_is_optional_only(void **state)
{
	struct link l = mutual_link();

	(void)state;
	open_link(&l, w.none.any, w.domain.any, CRYPTO_TLS_PEER_ASK);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_DONE);
	assert_null(crypto_tls_peer_cert(l.end[1]));
	send_text(&l, 0, "anonymous");
	close_link(&l);

	l = mutual_link();
	open_link(&l, w.none.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_FAILED);
	assert_string_equal(crypto_tls_error(l.end[1]), "the peer showed no certificate");
	assert_int_equal(crypto_tls_handshake(l.end[0]), CRYPTO_TLS_FAILED);
	assert_string_equal(crypto_tls_error(l.end[0]),
			    "the peer asked for a certificate, and we have none "
			    "(alert: certificate required)");
	close_link(&l);
}

static void a_client_refuses_a_server_and_says_why(void **state)
{
	struct link l = mutual_link();

	(void)state;
	l.wish[0].cn = "example.org";
	open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_handshake(l.end[0]), CRYPTO_TLS_FAILED);
	assert_int_equal(crypto_tls_verify_reason(l.end[0]), CRYPTO_VERIFY_WRONG_NAME);
	assert_non_null(strstr(crypto_tls_error(l.end[0]), "belongs to another address"));
	assert_null(crypto_tls_peer_cert(l.end[0]));
	assert_false(crypto_tls_peer_rejected_us(l.end[0]));
	assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_FAILED);
	assert_true(crypto_tls_peer_rejected_us(l.end[1]));
	assert_string_equal(crypto_tls_error(l.end[1]),
			    "the peer rejected our certificate (alert: bad certificate)");
	close_link(&l);
}

struct refusal {
	int reason;
	const char *alert;
};

static void a_server_refuses_a_client_with_the_alert_that_fits(void **state)
{
	static const struct refusal refusals[] = {
		{ CRYPTO_VERIFY_MALFORMED, "bad certificate" },
		{ CRYPTO_VERIFY_WRONG_NAME, "bad certificate" },
		{ CRYPTO_VERIFY_WRONG_ISSUER, "unknown CA" },
		{ CRYPTO_VERIFY_UNKNOWN_ISSUER, "unknown CA" },
		{ CRYPTO_VERIFY_BAD_SIGNATURE, "unknown CA" },
		{ CRYPTO_VERIFY_WRONG_USE, "unsupported certificate" },
		{ CRYPTO_VERIFY_NOT_YET_VALID, "bad certificate" },
		{ CRYPTO_VERIFY_EXPIRED, "certificate expired" },
		{ CRYPTO_VERIFY_REVOKED, "certificate revoked" },
		{ CRYPTO_VERIFY_KEY_CHANGED, "bad certificate" },
		{ CRYPTO_VERIFY_REFUSED, "bad certificate" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct link l = mutual_link();
		uint8_t byte;
		size_t n;

		l.wish[1].anchor = NULL;
		l.wish[1].reason = refusals[i].reason;
		open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
		carry(&l, 16384);
		assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_FAILED);
		assert_int_equal(crypto_tls_verify_reason(l.end[1]), refusals[i].reason);
		assert_int_equal(crypto_tls_read(l.end[0], &byte, 1, &n), -EPROTO);
		assert_true(crypto_tls_peer_rejected_us(l.end[0]));
		assert_non_null(strstr(crypto_tls_error(l.end[0]), refusals[i].alert));
		assert_int_equal(crypto_tls_write(l.end[0], "x", 1, &n), -EPROTO);
		assert_int_equal(crypto_tls_input(l.end[0], "x", 1), -EPROTO);
		close_link(&l);
	}
}

static void a_stranger_with_the_right_name_is_refused(void **state)
{
	struct link l = mutual_link();

	(void)state;
	open_link(&l, w.stranger.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_verify_reason(l.end[1]), CRYPTO_VERIFY_WRONG_ISSUER);
	close_link(&l);
}

static void an_expired_certificate_is_refused_by_either_side(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct link l = mutual_link();

		l.wish[i].now_s += INT64_C(4000) * 86400;
		open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
		carry(&l, 16384);
		assert_int_equal(crypto_tls_verify_reason(l.end[i]), CRYPTO_VERIFY_EXPIRED);
		assert_non_null(strstr(crypto_tls_error(l.end[!i]), "certificate expired"));
		close_link(&l);
	}
}

static void a_fault_while_verifying_fails_and_blames_nobody(void **state)
{
	struct link l = mutual_link();

	(void)state;
	l.wish[0].anchor = NULL;
	l.wish[0].reason = -ENOMEM;
	open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_handshake(l.end[0]), CRYPTO_TLS_FAILED);
	assert_int_equal(crypto_tls_verify_reason(l.end[0]), 0);
	close_link(&l);
}

static void a_stock_server_is_met(void **state)
{
	struct link l = { .wish = { { w.stock.cert, "example.org", NOW_S, 0, 0 },
				    { w.domain.cert, ALICE, NOW_S, 0, 0 } } };

	(void)state;
	open_link(&l, w.alice.any, w.stock.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_handshake(l.end[0]), CRYPTO_TLS_DONE);
	send_text(&l, 0, "hello");
	close_link(&l);
}

/* ---- against a peer that is plain OpenSSL ------------------------------------------------- */

struct plain_peer {
	SSL_CTX *ctx;
	SSL *ssl;
	BIO *in, *out;
};

static void plain_open(struct plain_peer *p, const struct party *party, int max_version,
		       bool server)
{
	const uint8_t *der;
	size_t n;
	X509 *x509, *anchor;
	struct buffer pem;
	EVP_PKEY *pkey;
	BIO *bio;

	p->ctx = SSL_CTX_new(TLS_method());
	SSL_CTX_set_max_proto_version(p->ctx, max_version);
	SSL_CTX_set_min_proto_version(p->ctx, TLS1_VERSION);
	SSL_CTX_set_security_level(p->ctx, 0);
	der = crypto_cert_der(party->cert, &n);
	x509 = d2i_X509(NULL, &der, (long)n);
	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	assert_int_equal(crypto_key_to_pem(party->key, &pem), 0);
	bio = BIO_new_mem_buf(buffer_peek(&pem), (int)buffer_used(&pem));
	pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	SSL_CTX_use_certificate(p->ctx, x509);
	SSL_CTX_use_PrivateKey(p->ctx, pkey);
	/* Trusts the domain's certificate by OpenSSL's own rules, as a Vertex program does. */
	der = crypto_cert_der(w.domain.cert, &n);
	anchor = d2i_X509(NULL, &der, (long)n);
	X509_STORE_add_cert(SSL_CTX_get_cert_store(p->ctx), anchor);
	X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(p->ctx), NOW_S);
	SSL_CTX_set_verify(p->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	p->ssl = SSL_new(p->ctx);
	p->in = BIO_new(BIO_s_mem());
	p->out = BIO_new(BIO_s_mem());
	BIO_set_mem_eof_return(p->in, -1);
	SSL_set_bio(p->ssl, p->in, p->out);
	if (server)
		SSL_set_accept_state(p->ssl);
	else
		SSL_set_connect_state(p->ssl);
	X509_free(x509);
	X509_free(anchor);
	EVP_PKEY_free(pkey);
	BIO_free(bio);
	buffer_fini(&pem);
}

static void plain_carry(struct plain_peer *p, struct crypto_tls *tls)
{
	uint8_t bytes[16384];

	for (int turn = 0; turn < 10; turn++) {
		size_t n = crypto_tls_output(tls, bytes, sizeof(bytes));

		if (n > 0)
			BIO_write(p->in, bytes, (int)n);
		SSL_do_handshake(p->ssl);
		ERR_clear_error();
		if (BIO_read_ex(p->out, bytes, sizeof(bytes), &n) == 1)
			(void)!crypto_tls_input(tls, bytes, n);
		ERR_clear_error();
	}
}

static void plain_close(struct plain_peer *p)
{
	SSL_free(p->ssl);
	SSL_CTX_free(p->ctx);
	ERR_clear_error();
}

static void a_peer_of_tls_1_2_is_met_on_the_control_connection_only(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		struct wish wish = { w.domain.cert, NULL, NOW_S, 0, 0 };
		const bool we_serve = i % 2;
		const struct crypto_tls_policy policy = { we_serve ? CRYPTO_TLS_SERVER
								   : CRYPTO_TLS_CLIENT,
							  CRYPTO_TLS_PEER_REQUIRE, on_verify,
							  &wish };
		const struct party *us = we_serve ? &w.domain : &w.alice;
		const struct party *them = we_serve ? &w.alice : &w.domain;
		struct plain_peer peer;
		struct crypto_tls *tls;

		plain_open(&peer, them, TLS1_2_VERSION, !we_serve);
		assert_int_equal(crypto_tls_new(i < 2 ? us->any : us->only13, &policy, &tls), 0);
		plain_carry(&peer, tls);
		if (i < 2) {
			assert_string_equal(crypto_tls_error(tls), "");
			assert_string_equal(crypto_tls_version(tls), "TLSv1.2");
			assert_true(SSL_is_init_finished(peer.ssl));
			assert_int_equal(SSL_get_verify_result(peer.ssl), X509_V_OK);
		} else {
			assert_int_equal(crypto_tls_handshake(tls), CRYPTO_TLS_FAILED);
		}
		crypto_tls_free(tls);
		plain_close(&peer);
	}
}

static void older_tls_is_refused(void **state)
{
	struct wish wish = { w.domain.cert, NULL, NOW_S, 0, 0 };
	const struct crypto_tls_policy policy = { CRYPTO_TLS_SERVER, CRYPTO_TLS_PEER_REQUIRE,
						  on_verify, &wish };
	struct plain_peer peer;
	struct crypto_tls *tls;

	(void)state;
	plain_open(&peer, &w.alice, TLS1_1_VERSION, false);
	assert_int_equal(crypto_tls_new(w.domain.any, &policy, &tls), 0);
	plain_carry(&peer, tls);
	assert_int_equal(crypto_tls_handshake(tls), CRYPTO_TLS_FAILED);
	crypto_tls_free(tls);
	plain_close(&peer);
}

static int see_hello(SSL *ssl, int *alert, void *user)
{
	const unsigned char *data;
	size_t n;

	(void)alert;
	*(bool *)user =
		SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &n) == 0 &&
		SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_session_ticket, &data, &n) == 0 &&
		SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation,
					  &data, &n) == 0;
	return SSL_CLIENT_HELLO_SUCCESS;
}

static void the_hello_names_no_server_no_protocol_and_asks_for_no_ticket(void **state)
{
	struct wish wish = { w.domain.cert, NULL, NOW_S, 0, 0 };
	const struct crypto_tls_policy policy = { CRYPTO_TLS_CLIENT, CRYPTO_TLS_PEER_REQUIRE,
						  on_verify, &wish };
	struct plain_peer peer;
	struct crypto_tls *tls;
	bool is_bare = false;

	(void)state;
	plain_open(&peer, &w.domain, TLS1_3_VERSION, true);
	SSL_CTX_set_client_hello_cb(peer.ctx, see_hello, &is_bare);
	SSL_set_SSL_CTX(peer.ssl, peer.ctx);
	assert_int_equal(crypto_tls_new(w.alice.any, &policy, &tls), 0);
	plain_carry(&peer, tls);
	assert_int_equal(crypto_tls_handshake(tls), CRYPTO_TLS_DONE);
	assert_true(is_bare);
	assert_false(SSL_session_reused(peer.ssl));
	crypto_tls_free(tls);
	plain_close(&peer);
}

/* ---- data ------------------------------------------------------------------------------------ */

static void exported_keys_are_equal_and_depend_on_label_and_context(void **state)
{
	struct link l = mutual_link(), other = mutual_link();
	uint8_t a[64], b[64];

	(void)state;
	open_link(&l, w.alice.only13, w.domain.only13, CRYPTO_TLS_PEER_REQUIRE);
	assert_int_equal(crypto_tls_export(l.end[0], "EXPERIMENTAL x", "c", 1, a, 64), -EAGAIN);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_export(l.end[0], "EXPERIMENTAL x", "c", 1, a, 64), 0);
	assert_int_equal(crypto_tls_export(l.end[1], "EXPERIMENTAL x", "c", 1, b, 64), 0);
	assert_memory_equal(a, b, 64);
	assert_int_equal(crypto_tls_export(l.end[1], "EXPERIMENTAL x", "d", 1, b, 64), 0);
	assert_memory_not_equal(a, b, 64);
	assert_int_equal(crypto_tls_export(l.end[1], "EXPERIMENTAL y", "c", 1, b, 64), 0);
	assert_memory_not_equal(a, b, 64);
	open_link(&other, w.alice.only13, w.domain.only13, CRYPTO_TLS_PEER_REQUIRE);
	carry(&other, 16384);
	assert_int_equal(crypto_tls_export(other.end[0], "EXPERIMENTAL x", "c", 1, b, 64), 0);
	assert_memory_not_equal(a, b, 64);
	close_link(&l);
	close_link(&other);
}

/* Before the client has shown who it is, a server has the secrets, and can say how it agreed. */
static void a_server_that_has_said_all_exports_what_the_client_will(void **state)
{
	uint8_t bytes[16384], a[64], b[64], c[64];
	struct link l = mutual_link();
	size_t n;

	(void)state;
	open_link(&l, w.alice.only13, w.domain.only13, CRYPTO_TLS_PEER_REQUIRE);
	assert_false(crypto_tls_flight_done(l.end[0]));
	assert_false(crypto_tls_flight_done(l.end[1]));
	assert_int_equal(crypto_tls_export(l.end[1], "EXPERIMENTAL x", NULL, 0, a, 64), -EAGAIN);
	n = crypto_tls_output(l.end[0], bytes, sizeof(bytes));
	/* All but its last byte is not a hello. */
	assert_int_equal(crypto_tls_input(l.end[1], bytes, n - 1), 0);
	assert_false(crypto_tls_flight_done(l.end[1]));
	assert_int_equal(crypto_tls_input(l.end[1], bytes + n - 1, 1), 0);
	assert_true(crypto_tls_flight_done(l.end[1]));
	assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_WANT);
	assert_null(crypto_tls_peer_cert(l.end[1]));
	assert_int_equal(l.wish[1].n_calls, 0);
	assert_int_equal(crypto_tls_export(l.end[1], "EXPERIMENTAL x", NULL, 0, a, 64), 0);
	assert_string_equal(crypto_tls_version(l.end[1]), "TLSv1.3");
	assert_true(strlen(crypto_tls_cipher(l.end[1])) > 0);
	assert_true(strlen(crypto_tls_group(l.end[1])) > 0);
	carry(&l, 16384);
	assert_false(crypto_tls_flight_done(l.end[1]));
	assert_int_equal(l.wish[1].n_calls, 1);
	assert_int_equal(crypto_tls_export(l.end[0], "EXPERIMENTAL x", NULL, 0, b, 64), 0);
	assert_int_equal(crypto_tls_export(l.end[1], "EXPERIMENTAL x", NULL, 0, c, 64), 0);
	assert_memory_equal(a, b, 64);
	assert_memory_equal(a, c, 64);
	close_link(&l);
}

static void much_data_passes_with_bounded_queues(void **state)
{
	static uint8_t data[1 << 20], got[1 << 20], bytes[40000];
	struct link l = mutual_link();
	size_t n_sent = 0, n_got = 0, n;
	bool was_blocked = false;

	(void)state;
	assert_int_equal(crypto_random(data, sizeof(data)), 0);
	open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	while (n_got < sizeof(data)) {
		while (n_sent < sizeof(data)) {
			const int r = crypto_tls_write(l.end[0], data + n_sent,
						       sizeof(data) - n_sent, &n);

			if (r == CRYPTO_TLS_AGAIN) {
				was_blocked = true;
				break;
			}
			assert_int_equal(r, 0);
			n_sent += n;
			assert_in_range(crypto_tls_output_waiting(l.end[0]), 1,
					CRYPTO_TLS_QUEUE_MAX_BYTES + 65536);
		}
		n = crypto_tls_output(l.end[0], bytes, sizeof(bytes));
		assert_int_equal(crypto_tls_input(l.end[1], bytes, n), 0);
		while (crypto_tls_read(l.end[1], got + n_got, sizeof(got) - n_got + 1, &n) == 0)
			n_got += n;
	}
	assert_true(was_blocked);
	assert_memory_equal(data, got, sizeof(data));
	close_link(&l);
}

static void input_that_nobody_reads_is_refused_at_the_bound(void **state)
{
	static uint8_t junk[CRYPTO_TLS_QUEUE_MAX_BYTES];
	struct link l = mutual_link();

	(void)state;
	open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_input(l.end[0], junk, sizeof(junk)), 0);
	assert_int_equal(crypto_tls_input(l.end[0], junk, 1), -ENOBUFS);
	close_link(&l);
}

static void a_goodbye_is_told_from_a_cut(void **state)
{
	struct link l = mutual_link();
	uint8_t bytes[64];
	size_t n;

	(void)state;
	open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	send_text(&l, 0, "x");
	crypto_tls_shutdown(l.end[0]);
	crypto_tls_shutdown(l.end[0]);
	assert_int_equal(crypto_tls_write(l.end[0], "x", 1, &n), -EPROTO);
	carry(&l, 16384);
	assert_int_equal(crypto_tls_read(l.end[1], bytes, sizeof(bytes), &n), CRYPTO_TLS_EOF);
	assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_CLOSED);
	crypto_tls_input_end(l.end[1]);
	assert_int_equal(crypto_tls_handshake(l.end[1]), CRYPTO_TLS_CLOSED);
	/* The other direction is still open. */
	send_text(&l, 1, "last words");
	crypto_tls_input_end(l.end[0]);
	assert_int_equal(crypto_tls_handshake(l.end[0]), CRYPTO_TLS_FAILED);
	assert_non_null(strstr(crypto_tls_error(l.end[0]), "without a goodbye"));
	close_link(&l);

	l = mutual_link();
	open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	crypto_tls_input_end(l.end[0]);
	assert_non_null(strstr(crypto_tls_error(l.end[0]), "during the TLS handshake"));
	close_link(&l);

	l = mutual_link();
	open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
	carry(&l, 16384);
	crypto_tls_input_end(l.end[0]);
	assert_non_null(strstr(crypto_tls_error(l.end[0]), "probably rejected our certificate"));
	close_link(&l);
}

static void garbage_instead_of_tls_fails_and_no_more(void **state)
{
	static const char *const garbage[] = { "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
					       "\x16\x03\x01\xff\xff\x01\xff\xff\xff", "\x80",
					       "\x15\x03\x03\x01\x02\x02\x28" };

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(garbage); i++) {
		struct link l = mutual_link();
		const char *text = garbage[i / 2];
		uint8_t rest[4096] = { 0 };

		open_link(&l, w.alice.any, w.domain.any, CRYPTO_TLS_PEER_REQUIRE);
		(void)!crypto_tls_input(l.end[i % 2], text, strlen(text));
		for (int k = 0; k < 6; k++)
			(void)!crypto_tls_input(l.end[i % 2], rest, sizeof(rest));
		assert_int_equal(crypto_tls_handshake(l.end[i % 2]), CRYPTO_TLS_FAILED);
		assert_true(strlen(crypto_tls_error(l.end[i % 2])) > 0);
		close_link(&l);
	}
}

static void a_flipped_byte_anywhere_ends_the_connection(void **state)
{
	(void)state;
	for (int end = 0; end < 2; end++) {
		for (size_t at = 0; at < 3000; at += 37) {
			struct link l = mutual_link();
			size_t n_passed = 0, n;
			uint8_t bytes[16384];
			bool moved = true, flipped = false;

			open_link(&l, w.alice.only13, w.domain.only13, CRYPTO_TLS_PEER_REQUIRE);
			while (moved) {
				moved = false;
				for (int i = 0; i < 2; i++) {
					n = crypto_tls_output(l.end[i], bytes, sizeof(bytes));
					if (n == 0)
						continue;
					moved = true;
					if (i == end && at >= n_passed && at < n_passed + n) {
						bytes[at - n_passed] ^= 0x10;
						flipped = true;
					}
					if (i == end)
						n_passed += n;
					(void)!crypto_tls_input(l.end[!i], bytes, n);
				}
			}
			if (flipped)
				assert_false(crypto_tls_handshake(l.end[0]) == CRYPTO_TLS_DONE &&
					     crypto_tls_handshake(l.end[1]) == CRYPTO_TLS_DONE);
			close_link(&l);
		}
	}
}

/* The hello names server and protocol; a server that has another protocol refuses. */
static void the_protocol_is_agreed_on_or_nothing_is(void **state)
{
	static const struct {
		const char *client, *server;
		bool good;
	} cases[] = { { "q2q", "q2q", true },
		      { NULL, "q2q", true }, /* a client that says nothing of it */
		      { "q2q", NULL, true },
		      { "h2", "q2q", false },
		      { "q2q-next", "q2q", false } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct link l = mutual_link();
		struct crypto_tls_policy client = { .role = CRYPTO_TLS_CLIENT,
						    .peer = CRYPTO_TLS_PEER_REQUIRE,
						    .verify = on_verify,
						    .user = &l.wish[0],
						    .server_name = "example.com",
						    .alpn = cases[i].client };
		const struct crypto_tls_policy server = { .role = CRYPTO_TLS_SERVER,
							  .peer = CRYPTO_TLS_PEER_NONE,
							  .alpn = cases[i].server };
		const enum crypto_tls_state want =
			cases[i].good ? CRYPTO_TLS_DONE : CRYPTO_TLS_FAILED;

		assert_int_equal(crypto_tls_new(w.none.any, &client, &l.end[0]), 0);
		assert_int_equal(crypto_tls_new(w.domain.any, &server, &l.end[1]), 0);
		carry(&l, 16384);
		assert_int_equal(crypto_tls_handshake(l.end[0]), want);
		assert_int_equal(crypto_tls_handshake(l.end[1]), want);
		close_link(&l);
	}
}

static void the_hello_names_the_server_that_is_asked_for(void **state)
{
	struct link l = mutual_link();
	const struct crypto_tls_policy policy = { .role = CRYPTO_TLS_CLIENT,
						  .peer = CRYPTO_TLS_PEER_REQUIRE,
						  .verify = on_verify,
						  .user = &l.wish[0],
						  .server_name = "example.com",
						  .alpn = "q2q" };
	const struct crypto_tls_policy empty = { .role = CRYPTO_TLS_CLIENT,
						 .peer = CRYPTO_TLS_PEER_REQUIRE,
						 .verify = on_verify,
						 .alpn = "" };
	struct crypto_tls *tls;
	uint8_t hello[16384];
	size_t n;

	(void)state;
	assert_int_equal(crypto_tls_new(w.none.any, &policy, &tls), 0);
	n = crypto_tls_output(tls, hello, sizeof(hello));
	assert_non_null(memmem(hello, n, "example.com", 11));
	assert_non_null(memmem(hello, n, "\x03q2q", 4));
	crypto_tls_free(tls);
	assert_true(crypto_tls_new(w.none.any, &empty, &tls) < 0);
}

static void a_context_needs_a_key_that_fits(void **state)
{
	const struct crypto_tls_config wrong = { w.alice.cert, w.bob.key, false };
	const struct crypto_tls_config half = { w.alice.cert, NULL, false };
	struct crypto_tls_context *context = NULL;

	(void)state;
	assert_int_equal(crypto_tls_context_new(&wrong, &context), -EINVAL);
	assert_int_equal(crypto_tls_context_new(&half, &context), -EINVAL);
	assert_null(context);
	assert_int_equal(ERR_peek_error(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_parties_meet_and_talk),
		cmocka_unit_test(two_users_meet_with_keys_of_different_kinds),
		cmocka_unit_test(a_server_that_does_not_ask_gets_no_certificate),
		cmocka_unit_test(a_client_without_certificate_passes_where_it_is_optional_only),
		cmocka_unit_test(a_client_refuses_a_server_and_says_why),
		cmocka_unit_test(a_server_refuses_a_client_with_the_alert_that_fits),
		cmocka_unit_test(a_stranger_with_the_right_name_is_refused),
		cmocka_unit_test(an_expired_certificate_is_refused_by_either_side),
		cmocka_unit_test(a_fault_while_verifying_fails_and_blames_nobody),
		cmocka_unit_test(a_stock_server_is_met),
		cmocka_unit_test(a_peer_of_tls_1_2_is_met_on_the_control_connection_only),
		cmocka_unit_test(older_tls_is_refused),
		cmocka_unit_test(the_hello_names_no_server_no_protocol_and_asks_for_no_ticket),
		cmocka_unit_test(the_protocol_is_agreed_on_or_nothing_is),
		cmocka_unit_test(the_hello_names_the_server_that_is_asked_for),
		cmocka_unit_test(exported_keys_are_equal_and_depend_on_label_and_context),
		cmocka_unit_test(a_server_that_has_said_all_exports_what_the_client_will),
		cmocka_unit_test(much_data_passes_with_bounded_queues),
		cmocka_unit_test(input_that_nobody_reads_is_refused_at_the_bound),
		cmocka_unit_test(a_goodbye_is_told_from_a_cut),
		cmocka_unit_test(garbage_instead_of_tls_fails_and_no_more),
		cmocka_unit_test(a_flipped_byte_anywhere_ends_the_connection),
		cmocka_unit_test(a_context_needs_a_key_that_fits),
	};

	return cmocka_run_group_tests_name("crypto: tls", tests, make_world, end_world);
}
