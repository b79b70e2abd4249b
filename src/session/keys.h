/*
 * keys - everything secret of one association: the handshake key from the
 * rendezvous, TLS 1.3 in memory, the data keys from its exporter. Fills
 * struct ptcp_crypto. Private to session.
 *
 *   rendezvous shares --HKDF--> handshake key of each direction, probe key of nat
 *   TLS exporter      ---------> secret of each direction, phase 0
 *   secret of phase n --HKDF--> key and iv of phase n; secret of phase n + 1
 */
#ifndef SESSION_KEYS_H
#define SESSION_KEYS_H

#include "crypto/crypto.h"
#include "ptcp/ptcp.h"

#define KEYS_SHARE_BYTES 32
#define KEYS_PROBE_BYTES 32
#define KEYS_STREAM_BYTES (32 + 2 * 8)
#define KEYS_ID_BYTES    32 /* of a rendezvous, hex digits */
#define KEYS_TAG_BYTES   16

/* What a rendezvous agreed on; both ends know the same. */
struct keys_rendezvous {
	char id[KEYS_ID_BYTES + 1];
	const char *requester, *listener; /* canonical addresses */
	uint8_t share_requester[KEYS_SHARE_BYTES], share_listener[KEYS_SHARE_BYTES];
};

/* 0, -ENOMEM, -EIO. */
int keys_probe(const struct keys_rendezvous *rendezvous, uint8_t out[static KEYS_PROBE_BYTES]);
/* Key of the TCP connections between the two, then the tags that the requester and the listener
 * are called by there. */
int keys_stream(const struct keys_rendezvous *rendezvous, uint8_t out[static KEYS_STREAM_BYTES]);

struct keys_config {
	enum ptcp_role role; /* the requester is the PTCP client */
	struct crypto_tls_context *tls;
	/* Judges the peer's certificate, as crypto_tls_policy. */
	int (*verify)(void *user, struct crypto_cert *cert);
	void *user;
	const struct keys_rendezvous *rendezvous;
	/*
	 * Early: the client's first flight went through the rendezvous. For the client: its TLS, of
	 * keys_hello(), taken over. For the server: the flight; -EPROTO if it cannot be answered by
	 * all of ours at once.
	 */
	struct crypto_tls *begun;
	const uint8_t *hello;
	size_t hello_bytes;
};

/*
 * The first flight of a client's TLS, of `config` as for keys_new() but without a rendezvous, and
 * that TLS for keys_config.begun. 0, -ENOMEM, -EIO, -EMSGSIZE.
 */
int keys_hello(const struct keys_config *config, uint8_t *out, size_t out_bytes, size_t *ret_bytes,
	       struct crypto_tls **ret_begun);

struct keys;

/* 0, -ENOMEM, -EIO, or as keys_config says; config.begun is gone in any case. */
int keys_new(const struct keys_config *config, struct keys **ret_keys);
void keys_free(struct keys *keys); /* wipes; NULL is fine */
/* The callbacks for an association; keys must outlive it. */
struct ptcp_crypto keys_ptcp(struct keys *keys);
/*
 * Names the association to nobody but its two ends: in an offer it says "I still have it".
 * False before the handshake is done.
 */
bool keys_tag(const struct keys *keys, uint8_t out[static KEYS_TAG_BYTES]);
/* Why TLS failed, for people; "" if it did not. The enum crypto_verify, or 0. */
const char *keys_error(const struct keys *keys);
int keys_verify_reason(const struct keys *keys);
bool keys_peer_rejected_us(const struct keys *keys);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384 X25519"; "" before it is done. */
void keys_describe(const struct keys *keys, char *out, size_t out_bytes);

#endif
