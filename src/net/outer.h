/*
 * outer - TLS around the whole byte stream of a control connection, for networks that let
 * nothing else through (doc/q2q-extensions.md, section 9). It hides what the stream is and proves
 * nothing: who the server is, the TLS inside of it says.
 */
#ifndef NET_OUTER_H
#define NET_OUTER_H

#include "crypto/crypto.h"

struct q2q_conn;

struct net_outer;

/* The client's side, which asks for that name. 0, -ENOMEM, or the fault of TLS. */
int net_outer_connect(const char *server_name, struct net_outer **ret_outer);
/* The server's side, with the certificate of the context. */
int net_outer_accept(struct crypto_tls_context *tls, struct net_outer **ret_outer);
/* Is this the first byte of a TLS connection? Clear AMP never begins with it. */
bool net_outer_begins(uint8_t first);
void net_outer_free(struct net_outer *outer); /* NULL is fine */

/* Bytes for the socket, made of what the connection wants to send. 0: nothing. */
size_t net_outer_output(struct net_outer *outer, struct q2q_conn *conn, void *out, size_t out_bytes,
			uint64_t now_us);
/* Bytes that wait in here. */
size_t net_outer_waiting(const struct net_outer *outer);
/* Takes bytes of the socket. 0, or the fault that ends the connection. */
int net_outer_input(struct net_outer *outer, const void *data, size_t n_bytes);
/* Plaintext of them: 0 with at least one byte, CRYPTO_TLS_AGAIN, CRYPTO_TLS_EOF, or a fault. */
int net_outer_read(struct net_outer *outer, void *out, size_t out_bytes, size_t *ret_bytes);
/* The last bytes of the connection have been taken: says goodbye, once. */
void net_outer_shut(struct net_outer *outer);

#endif
