/*
 * crypto - the one home of OpenSSL: keys, certificates, TLS over memory
 * buffers, AEAD, key derivation, password hashes, sealed messages.
 *
 * No I/O, no clock, no log, no state of its own outside the objects. An object
 * belongs to one thread at a time; certificates, keys and TLS contexts may be
 * shared by several threads once they are made. Randomness is OpenSSL's, the
 * one exception to "randomness comes in": keys are made here.
 *
 * Results: 0 done, negative -Exxx a fault, positive a named outcome.
 *   -EBADMSG  what came in is malformed or forged
 *   -ENOTSUP  well-formed, but a kind that we do not use
 *   -ENOMEM   memory
 *   -EIO      OpenSSL failed otherwise (an entropy source that is gone, say)
 * OpenSSL's error queue is empty before and after each call.
 */
#ifndef CRYPTO_CRYPTO_H
#define CRYPTO_CRYPTO_H

#include "base/base.h"

enum {
	CRYPTO_HASH_BYTES = 32,        /* SHA-256 */
	CRYPTO_NAME_MAX_BYTES = 320,   /* a common name: 64 + 1 + 253, rounded up, with its NUL */
	CRYPTO_FINGERPRINT_BYTES = 51, /* "SHA256:", 43 characters, NUL */
	CRYPTO_CERT_MAX_BYTES = 8192,  /* DER */
	CRYPTO_PEM_MAX_BYTES = 64 * 1024,
	CRYPTO_CERT_BACKDATE_S = 3600, /* not_before lies this far back: clocks differ */
};

/* ---- random, hashes, derivation --------------------------------------------- */

int crypto_random(void *out, size_t n_bytes) WARN_UNUSED;
int crypto_sha256(const void *data, size_t n_bytes, uint8_t out[static CRYPTO_HASH_BYTES]);
int crypto_hmac_sha256(const void *key, size_t key_bytes, const void *data, size_t n_bytes,
		       uint8_t out[static CRYPTO_HASH_BYTES]) WARN_UNUSED;
/* RFC 5869. An empty salt is a zeroed one, as the RFC has it. */
int crypto_hkdf_extract(const void *salt, size_t salt_bytes, const void *ikm, size_t ikm_bytes,
			uint8_t prk[static CRYPTO_HASH_BYTES]) WARN_UNUSED;
/* -EINVAL for more than 255 * 32 bytes. */
int crypto_hkdf_expand(const uint8_t prk[static CRYPTO_HASH_BYTES], const void *info,
		       size_t info_bytes, void *out, size_t out_bytes) WARN_UNUSED;
/* Both steps. */
int crypto_hkdf(const void *salt, size_t salt_bytes, const void *ikm, size_t ikm_bytes,
		const void *info, size_t info_bytes, void *out, size_t out_bytes) WARN_UNUSED;

/* ---- passwords ------------------------------------------------------------------ */

enum {
	CRYPTO_PASSWORD_TEXT_BYTES = 128, /* holds any string that crypto_password_hash() makes */
	CRYPTO_PASSWORD_MAX_BYTES = 1024,
	CRYPTO_PASSWORD_COST_MIN = 10, /* log2(N) that verify accepts: 1 MiB */
	CRYPTO_PASSWORD_COST_MAX = 17, /* 128 MiB */
	CRYPTO_PASSWORD_COST = 15,     /* what we store: 32 MiB, some 0.1 s */
};
enum crypto_password { CRYPTO_PASSWORD_WRONG = 1 };

/* RFC 7914. -EINVAL for parameters that are invalid or need more than 160 MiB. */
int crypto_scrypt(const void *password, size_t password_bytes, const void *salt, size_t salt_bytes,
		  uint64_t n, uint32_t r, uint32_t p, void *out, size_t out_bytes) WARN_UNUSED;
/*
 * Makes "$scrypt$ln=15,r=8,p=1$salt$hash" (base64 without padding) with a fresh salt.
 * Slow on purpose: a program with an event loop calls it and the next on a helper thread.
 * -EINVAL for a cost outside the limits or a password that is too long.
 */
int crypto_password_hash(const void *password, size_t password_bytes, unsigned cost,
			 char out[static CRYPTO_PASSWORD_TEXT_BYTES]) WARN_UNUSED;
/*
 * 0, CRYPTO_PASSWORD_WRONG, -EBADMSG for a text that is no such string or asks for more
 * than the limits. With text NULL (no such account) it does the work of CRYPTO_PASSWORD_COST
 * and answers WRONG, so that the time does not tell which accounts exist.
 */
int crypto_password_verify(const char *text, const void *password,
			   size_t password_bytes) WARN_UNUSED;

/* ---- keys --------------------------------------------------------------------------- */

enum crypto_key_kind {
	CRYPTO_KEY_P256,
	CRYPTO_KEY_ED25519,
	CRYPTO_KEY_RSA, /* 2048 to 8192 bits */
	CRYPTO_KEY_KIND_COUNT,
};
const char *crypto_key_kind_name(enum crypto_key_kind kind);

struct crypto_key; /* a private key; its memory is wiped by crypto_key_free() */

int crypto_key_generate(enum crypto_key_kind kind, struct crypto_key **ret_key) WARN_UNUSED;
void crypto_key_free(struct crypto_key *key); /* NULL is fine */
DEFINE_CLEANUP(struct crypto_key *, crypto_key_free)
enum crypto_key_kind crypto_key_kind(const struct crypto_key *key);
/* The first private key of a text that may hold other PEM blocks before it (a certificate, say).
 * -EBADMSG; -ENOTSUP for other kinds, short RSA, or an encrypted key. */
int crypto_key_from_pem(const void *pem, size_t pem_bytes, struct crypto_key **ret_key) WARN_UNUSED;
/* Appends the key as PKCS#8 PEM, not encrypted; `out` must be a secret buffer. */
int crypto_key_to_pem(const struct crypto_key *key, struct buffer *out) WARN_UNUSED;
/* SHA-256 of the SubjectPublicKeyInfo: what pins and fingerprints are made of. */
void crypto_key_spki_hash(const struct crypto_key *key, uint8_t out[static CRYPTO_HASH_BYTES]);

/* "SHA256:" and unpadded base64, as ssh prints it. Returns out. */
const char *crypto_fingerprint(const uint8_t spki_hash[static CRYPTO_HASH_BYTES],
			       char out[static CRYPTO_FINGERPRINT_BYTES]);
/* The reverse, strict: -EINVAL for anything that crypto_fingerprint() would not print. */
int crypto_fingerprint_parse(const char *text,
			     uint8_t ret_spki_hash[static CRYPTO_HASH_BYTES]) WARN_UNUSED;

/* ---- certificates ----------------------------------------------------------------------- */

struct crypto_cert; /* immutable, shared by reference */

/* -EBADMSG: not exactly one certificate, or longer than CRYPTO_CERT_MAX_BYTES. A certificate
 * that parses may still be one that crypto_cert_verify() refuses. */
int crypto_cert_from_der(const void *der, size_t der_bytes, struct crypto_cert **ret) WARN_UNUSED;
/* The first certificate of a text that may hold other PEM blocks. */
int crypto_cert_from_pem(const void *pem, size_t pem_bytes, struct crypto_cert **ret) WARN_UNUSED;
struct crypto_cert *crypto_cert_ref(struct crypto_cert *cert);
void crypto_cert_unref(struct crypto_cert *cert); /* NULL is fine */
DEFINE_CLEANUP(struct crypto_cert *, crypto_cert_unref)
/* The DER bytes; borrowed, they live as long as the certificate. */
const uint8_t *crypto_cert_der(const struct crypto_cert *cert, size_t *ret_bytes);
int crypto_cert_to_pem(const struct crypto_cert *cert,
		       struct buffer *out) WARN_UNUSED; /* appends */

/*
 * Common names, borrowed. NULL unless the name holds exactly one CN of 1 to 318 printable
 * ASCII characters and nothing else: several CNs, an O or a NUL byte make it NULL.
 */
const char *crypto_cert_subject(const struct crypto_cert *cert);
const char *crypto_cert_issuer(const struct crypto_cert *cert);
int64_t crypto_cert_not_before_s(const struct crypto_cert *cert); /* Unix seconds */
int64_t crypto_cert_not_after_s(const struct crypto_cert *cert);
/* CRYPTO_HASH_BYTES, borrowed. This, never a hash of the certificate, is what to pin. */
const uint8_t *crypto_cert_spki_hash(const struct crypto_cert *cert);
const char *crypto_cert_fingerprint(const struct crypto_cert *cert,
				    char out[static CRYPTO_FINGERPRINT_BYTES]);
bool crypto_cert_same_key(const struct crypto_cert *a, const struct crypto_cert *b);
bool crypto_cert_matches_key(const struct crypto_cert *cert, const struct crypto_key *key);
/* Subject is issuer, and the signature is by its own key (checked). */
bool crypto_cert_is_self_signed(const struct crypto_cert *cert);

/* The domain's certificate: v3, CA with path length 0, subject = issuer = CN=domain. */
int crypto_cert_make_domain(const struct crypto_key *key, const char *domain, int64_t now_s,
			    unsigned days, struct crypto_cert **ret) WARN_UNUSED;
/* The throw-away certificate of somebody who has none yet: CN=@ or CN=address, self-signed. */
int crypto_cert_make_throwaway(const struct crypto_key *key, const char *cn, int64_t now_s,
			       struct crypto_cert **ret) WARN_UNUSED;

struct crypto_csr; /* a certificate request whose signature and name were checked */

/*
 * Makes a PKCS#10 request, version 1, subject CN only; appends its DER to out. A key rotation
 * signed by the old key is a matter of the caller; here the request proves its own key alone.
 */
int crypto_csr_make(const struct crypto_key *key, const char *cn, struct buffer *out) WARN_UNUSED;
/* 0; a positive enum crypto_verify (MALFORMED, WRONG_NAME, BAD_SIGNATURE, WEAK_DIGEST, WEAK_KEY)
 * that says what is wrong with it; -ENOMEM. */
int crypto_csr_from_der(const void *der, size_t der_bytes, struct crypto_csr **ret) WARN_UNUSED;
void crypto_csr_free(struct crypto_csr *csr);
DEFINE_CLEANUP(struct crypto_csr *, crypto_csr_free)
const char *crypto_csr_subject(const struct crypto_csr *csr); /* never NULL */
const uint8_t *crypto_csr_spki_hash(const struct crypto_csr *csr);

/*
 * Signs a user certificate for the request: v3, no CA, TLS client and server, subject exactly
 * CN=address (which must be the request's, else -EINVAL), random serial. Extensions that were
 * asked for are ignored. -EINVAL as well if the key is not the issuer's.
 */
int crypto_cert_issue(const struct crypto_cert *issuer, const struct crypto_key *issuer_key,
		      const struct crypto_csr *csr, const char *address, int64_t now_s,
		      unsigned days, struct crypto_cert **ret) WARN_UNUSED;
int crypto_cert_issue_for(const struct crypto_cert *issuer, const struct crypto_key *issuer_key,
			  const struct crypto_csr *csr, const char *address, int64_t now_s,
			  int64_t lifetime_s, struct crypto_cert **ret) WARN_UNUSED;

enum crypto_verify {
	CRYPTO_VERIFY_OK,
	CRYPTO_VERIFY_MALFORMED,     /* names, dates or extensions that make no sense */
	CRYPTO_VERIFY_WRONG_NAME,    /* good, but somebody else's */
	CRYPTO_VERIFY_WRONG_ISSUER,  /* issued by another domain */
	CRYPTO_VERIFY_BAD_SIGNATURE, /* says the right issuer, but another key signed it */
	CRYPTO_VERIFY_NOT_A_CA,      /* the anchor may not sign certificates */
	CRYPTO_VERIFY_WRONG_USE,     /* not made for TLS by both sides */
	CRYPTO_VERIFY_WEAK_DIGEST,   /* MD5, SHA-1 or the like */
	CRYPTO_VERIFY_WEAK_KEY,      /* short RSA, or a kind of key that we do not accept */
	CRYPTO_VERIFY_NOT_YET_VALID,
	CRYPTO_VERIFY_EXPIRED,
	/* For callers, whose verify callback says more than the certificate alone can: */
	CRYPTO_VERIFY_UNKNOWN_ISSUER, /* nothing pinned for that domain */
	CRYPTO_VERIFY_KEY_CHANGED,    /* not the key that is pinned */
	CRYPTO_VERIFY_REVOKED,
	CRYPTO_VERIFY_REFUSED, /* policy: not allowed here */
	CRYPTO_VERIFY_COUNT,
};
const char *crypto_verify_name(enum crypto_verify reason); /* "expired": for JSON and logs */
const char *crypto_verify_text(enum crypto_verify reason); /* a sentence for people */

/*
 * Is `cert` the anchor's own certificate (same key, same name), or issued by it? The anchor is
 * a pin: its name and key count, not its dates. expected_cn NULL: any well-formed name.
 * Version 1 certificates (of a stock Vertex server) are fine. 0 or an enum crypto_verify.
 */
int crypto_cert_verify(const struct crypto_cert *cert, const struct crypto_cert *anchor,
		       const char *expected_cn, int64_t now_s) WARN_UNUSED;
/* The same without an issuer: names, key, dates, digest. For throw-away certificates, and for a
 * domain certificate before it is pinned (then also crypto_cert_is_self_signed()). */
int crypto_cert_check(const struct crypto_cert *cert, const char *expected_cn,
		      int64_t now_s) WARN_UNUSED;

/* ---- TLS over memory buffers ---------------------------------------------------------------- */

/* Who we are and what we speak; made once, shared by many connections. */
struct crypto_tls_context;
struct crypto_tls_config {
	struct crypto_cert *cert; /* our certificate and key; both NULL for a client without */
	const struct crypto_key
		*key;    /* referenced as long as needed; the caller may free its own */
	bool tls13_only; /* PTCP; else TLS 1.2 is accepted as well */
};
/* -EINVAL if key and certificate do not belong together. */
int crypto_tls_context_new(const struct crypto_tls_config *config,
			   struct crypto_tls_context **ret) WARN_UNUSED;
struct crypto_tls_context *crypto_tls_context_ref(struct crypto_tls_context *context);
void crypto_tls_context_unref(struct crypto_tls_context *context);
DEFINE_CLEANUP(struct crypto_tls_context *, crypto_tls_context_unref)

enum crypto_tls_role { CRYPTO_TLS_CLIENT, CRYPTO_TLS_SERVER };
enum crypto_tls_peer {
	CRYPTO_TLS_PEER_NONE,    /* a server that does not ask for a certificate */
	CRYPTO_TLS_PEER_ASK,     /* a server that takes one if it is shown */
	CRYPTO_TLS_PEER_REQUIRE, /* a client always means this */
};
struct crypto_tls_policy {
	enum crypto_tls_role role;
	enum crypto_tls_peer peer;
	/*
	 * Judges the peer's certificate: 0 accepts; a positive enum crypto_verify refuses, and the
	 * peer gets the alert that fits; negative is a fault of ours. Must not call back into this
	 * connection; takes a reference if it keeps the certificate. Needed unless peer is NONE.
	 */
	int (*verify)(void *user, struct crypto_cert *cert);
	void *user;
	/* Client: the name to ask for (RFC 6066, section 3); NULL: none. Copied. */
	const char *server_name;
	/* The one application protocol (RFC 7301), at most 255 bytes: a client offers it, a server
	 * refuses those that offer others alone. NULL: no word of it. Must outlive the connection. */
	const char *alpn;
};

enum crypto_tls_state {
	CRYPTO_TLS_WANT, /* handshake: send what crypto_tls_output() gives, feed what comes */
	CRYPTO_TLS_DONE, /* open for data; with TLS 1.3 a client may still be refused (see read) */
	CRYPTO_TLS_CLOSED, /* the peer said goodbye properly */
	CRYPTO_TLS_FAILED, /* for good; crypto_tls_error() says why. Send the output: an alert */
	CRYPTO_TLS_STATE_COUNT,
};
const char *crypto_tls_state_name(enum crypto_tls_state state);

enum crypto_tls_outcome {
	CRYPTO_TLS_AGAIN = 1, /* read: nothing there yet; write: take the output first */
	CRYPTO_TLS_EOF = 2,   /* the peer closed properly */
};
enum {
	CRYPTO_TLS_QUEUE_MAX_BYTES = 256 * 1024, /* per direction, not yet read or taken */
	CRYPTO_TLS_ERROR_BYTES = 192,
};

struct crypto_tls; /* one connection */

/* A client's first flight is ready in the output at once. */
int crypto_tls_new(struct crypto_tls_context *context, const struct crypto_tls_policy *policy,
		   struct crypto_tls **ret) WARN_UNUSED;
void crypto_tls_free(struct crypto_tls *tls);
DEFINE_CLEANUP(struct crypto_tls *, crypto_tls_free)
/*
 * Feeds bytes of the network and moves the handshake on. Afterwards: crypto_tls_read() until
 * AGAIN (also during TLS 1.3 connections that carry no data: alerts arrive there), then send
 * the output. -EPROTO: failed; -ENOBUFS: read first, nothing was taken.
 */
int crypto_tls_input(struct crypto_tls *tls, const void *data, size_t n_bytes) WARN_UNUSED;
/* The network ended. Without a goodbye the state becomes FAILED. */
void crypto_tls_input_end(struct crypto_tls *tls);
/* Takes up to out_bytes for the network; 0: nothing waits. */
size_t crypto_tls_output(struct crypto_tls *tls, void *out, size_t out_bytes);
size_t crypto_tls_output_waiting(const struct crypto_tls *tls);
enum crypto_tls_state crypto_tls_handshake(const struct crypto_tls *tls);
/*
 * A server of TLS 1.3 has sent its whole flight and waits for the client's certificate and
 * Finished: the secrets are there, but nobody has proved to be the client yet.
 */
bool crypto_tls_flight_done(const struct crypto_tls *tls);
/* Why it failed, e.g. "the peer rejected our certificate (alert: unknown CA)"; "" before. */
const char *crypto_tls_error(const struct crypto_tls *tls);
/* The enum crypto_verify with which our side refused the peer, or 0. */
int crypto_tls_verify_reason(const struct crypto_tls *tls);
/* Did the peer refuse our certificate? (Known by its alert.) */
bool crypto_tls_peer_rejected_us(const struct crypto_tls *tls);
/* Plaintext. 0 with at least one byte, AGAIN, EOF, -EPROTO (crypto_tls_error() says why). */
int crypto_tls_read(struct crypto_tls *tls, void *out, size_t out_bytes,
		    size_t *ret_bytes) WARN_UNUSED;
/* 0 with at least one byte taken, maybe not all; AGAIN; -EPROTO. Not before DONE: AGAIN. */
int crypto_tls_write(struct crypto_tls *tls, const void *data, size_t n_bytes,
		     size_t *ret_bytes) WARN_UNUSED;
/* Queues our goodbye; the peer's may still come. */
void crypto_tls_shutdown(struct crypto_tls *tls);
/* RFC 5705, RFC 8446 section 7.5: the same bytes on both sides, once DONE or
 * crypto_tls_flight_done(); else -EAGAIN. */
int crypto_tls_export(struct crypto_tls *tls, const char *label, const void *context,
		      size_t context_bytes, void *out, size_t out_bytes) WARN_UNUSED;
/* Borrowed; NULL until a certificate was shown and accepted. */
struct crypto_cert *crypto_tls_peer_cert(const struct crypto_tls *tls);
/* "TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519": for status and logs; "" before, as for export. */
const char *crypto_tls_version(const struct crypto_tls *tls);
const char *crypto_tls_cipher(const struct crypto_tls *tls);
const char *crypto_tls_group(const struct crypto_tls *tls);

/* ---- AEAD --------------------------------------------------------------------------------------
 */

enum crypto_aead_kind {
	CRYPTO_AEAD_AES_256_GCM,
	CRYPTO_AEAD_CHACHA20_POLY1305,
	CRYPTO_AEAD_KIND_COUNT,
};
enum { CRYPTO_AEAD_KEY_BYTES = 32, CRYPTO_AEAD_NONCE_BYTES = 12, CRYPTO_AEAD_TAG_BYTES = 16 };
const char *crypto_aead_kind_name(enum crypto_aead_kind kind);
/* Does this CPU have instructions for AES? Where not, ChaCha20-Poly1305 is the better choice. */
bool crypto_aead_aes_is_fast(void);

/* Who computes. AUTO: IPsec-MB where the build and the CPU have it, else OpenSSL. */
enum crypto_aead_backend {
	CRYPTO_AEAD_BACKEND_AUTO,
	CRYPTO_AEAD_BACKEND_OPENSSL,
	CRYPTO_AEAD_BACKEND_IPSEC_MB,
};
/*
 * For the objects made from now on; before other threads start. 0; else OpenSSL computes, because
 * IPsec-MB is not there (-ENOTSUP, no fault with AUTO), gave wrong answers (-EIO), or -ENOMEM.
 */
int crypto_aead_use(enum crypto_aead_backend backend);
/* Of objects made now: "openssl" or "ipsec-mb". */
const char *crypto_aead_backend_name(void);

struct crypto_aead; /* one key, expanded once; wiped by crypto_aead_free() */

/* iv NULL: zeros. Allocates here and never again. */
int crypto_aead_new(enum crypto_aead_kind kind, const uint8_t key[static CRYPTO_AEAD_KEY_BYTES],
		    const uint8_t *iv, struct crypto_aead **ret) WARN_UNUSED;
void crypto_aead_free(struct crypto_aead *aead);
DEFINE_CLEANUP(struct crypto_aead *, crypto_aead_free)
/*
 * Seals in to out, which is the same place or does not overlap; the tag of 16 bytes follows
 * the n_bytes in out. The caller never uses a nonce twice with one key.
 */
int crypto_aead_seal(struct crypto_aead *aead, const uint8_t nonce[static CRYPTO_AEAD_NONCE_BYTES],
		     const void *aad, size_t aad_bytes, const void *in, size_t n_bytes,
		     void *out) WARN_UNUSED;
/* n_bytes includes the tag; out gets n_bytes - 16. -EBADMSG: forged or cut; out is then wiped. */
int crypto_aead_open(struct crypto_aead *aead, const uint8_t nonce[static CRYPTO_AEAD_NONCE_BYTES],
		     const void *aad, size_t aad_bytes, const void *in, size_t n_bytes,
		     void *out) WARN_UNUSED;
/* The same in place, with the nonce made of the iv and a packet number (RFC 9001, 5.3). */
int crypto_aead_seal_packet(struct crypto_aead *aead, uint64_t packet_number, const void *aad,
			    size_t aad_bytes, void *data, size_t n_bytes) WARN_UNUSED;
int crypto_aead_open_packet(struct crypto_aead *aead, uint64_t packet_number, const void *aad,
			    size_t aad_bytes, void *data, size_t n_bytes) WARN_UNUSED;

/* ---- sealed messages
 * ------------------------------------------------------------------------------ */

enum {
	CRYPTO_SEALED_MAX_BYTES = 16 * 1024,
	CRYPTO_SEALED_PLAIN_MAX_BYTES = CRYPTO_SEALED_MAX_BYTES - 256,
	CRYPTO_SEALED_CONTEXT_MAX_BYTES = 1024,
};

/*
 * Encrypts to the key of the recipient's certificate (P-256, else -ENOTSUP) and signs with the
 * sender's (P-256 or Ed25519, else -ENOTSUP). The context travels not; both must give the same.
 * doc/sealed.md has the format. Appends to out. -EMSGSIZE past the limits.
 */
int crypto_seal_to_cert(const struct crypto_cert *recipient, const struct crypto_key *sender,
			const void *context, size_t context_bytes, const void *plain,
			size_t plain_bytes, struct buffer *out) WARN_UNUSED;
/*
 * Checks the signature, then decrypts; appends to out, which should be a secret buffer.
 * -EBADMSG for whatever is wrong with it: it tells nobody which. There is no replay
 * protection: the context must hold something fresh.
 */
int crypto_open_sealed(const struct crypto_key *recipient, const struct crypto_cert *sender,
		       const void *context, size_t context_bytes, const void *blob,
		       size_t blob_bytes, struct buffer *out) WARN_UNUSED;

#endif
