#include "net/outer.h"

#include "q2q/q2q.h"

#define PLAIN_BYTES 16384 /* one TLS record */

static const char protocol[] = "q2q";

struct net_outer {
	struct crypto_tls *tls;
	uint8_t plain[PLAIN_BYTES]; /* taken from the connection, not yet by TLS */
	size_t plain_start, plain_end;
	bool shut;
};

/* Whoever it is: a proxy that looks into the outer TLS sees what goes over port 8788 in clear. */
static int accept_any(void *user, struct crypto_cert *cert)
{
	(void)user;
	(void)cert;
	return CRYPTO_VERIFY_OK;
}

static int outer_new(struct crypto_tls_context *context, const struct crypto_tls_policy *policy,
		     struct net_outer **ret_outer)
{
	struct net_outer *o = calloc(1, sizeof(*o));
	int r = o ? crypto_tls_new(context, policy, &o->tls) : -ENOMEM;

	if (r < 0) {
		free(o);
		return r;
	}
	*ret_outer = o;
	return 0;
}

int net_outer_connect(const char *server_name, struct net_outer **ret_outer)
{
	/* Without our certificate: who we are is for the server alone, inside. */
	const struct crypto_tls_config nobody = { .cert = NULL };
	const struct crypto_tls_policy policy = {
		.role = CRYPTO_TLS_CLIENT,
		.peer = CRYPTO_TLS_PEER_REQUIRE,
		.verify = accept_any,
		.server_name = server_name,
		.alpn = protocol,
	};
	_cleanup_(crypto_tls_context_unrefp) struct crypto_tls_context *context = NULL;
	const int r = crypto_tls_context_new(&nobody, &context);

	return r < 0 ? r : outer_new(context, &policy, ret_outer);
}

int net_outer_accept(struct crypto_tls_context *tls, struct net_outer **ret_outer)
{
	const struct crypto_tls_policy policy = {
		.role = CRYPTO_TLS_SERVER,
		.peer = CRYPTO_TLS_PEER_NONE,
		.alpn = protocol,
	};

	return outer_new(tls, &policy, ret_outer);
}

bool net_outer_begins(uint8_t first)
{
	/* ContentType handshake (RFC 8446, section 5.1). A box begins with the two-byte length of
	 * a key, which is at most 255: with zero. */
	return first == 0x16;
}

void net_outer_free(struct net_outer *outer)
{
	if (!outer)
		return;
	crypto_tls_free(outer->tls);
	secret_wipe(outer->plain, sizeof(outer->plain));
	free(outer);
}

/* Moves what the connection has into TLS, one record at a time. */
static void encrypt(struct net_outer *o, struct q2q_conn *conn, uint64_t now_us)
{
	size_t taken = 0;

	if (crypto_tls_handshake(o->tls) != CRYPTO_TLS_DONE || o->shut)
		return;
	if (o->plain_start == o->plain_end) {
		o->plain_start = 0;
		o->plain_end = q2q_conn_output(conn, o->plain, sizeof(o->plain), now_us);
	}
	if (o->plain_start < o->plain_end &&
	    crypto_tls_write(o->tls, o->plain + o->plain_start, o->plain_end - o->plain_start,
			     &taken) == 0)
		o->plain_start += taken;
}

size_t net_outer_output(struct net_outer *outer, struct q2q_conn *conn, void *out, size_t out_bytes,
			uint64_t now_us)
{
	if (crypto_tls_output_waiting(outer->tls) == 0)
		encrypt(outer, conn, now_us);
	return crypto_tls_output(outer->tls, out, out_bytes);
}

size_t net_outer_waiting(const struct net_outer *outer)
{
	return outer->plain_end - outer->plain_start + crypto_tls_output_waiting(outer->tls);
}

int net_outer_input(struct net_outer *outer, const void *data, size_t n_bytes)
{
	return crypto_tls_input(outer->tls, data, n_bytes);
}

int net_outer_read(struct net_outer *outer, void *out, size_t out_bytes, size_t *ret_bytes)
{
	return crypto_tls_read(outer->tls, out, out_bytes, ret_bytes);
}

void net_outer_shut(struct net_outer *outer)
{
	if (!outer->shut)
		crypto_tls_shutdown(outer->tls);
	outer->shut = true;
}
