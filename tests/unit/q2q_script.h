/*
 * A scripted peer for one q2q connection: plays one side of a recorded
 * transcript byte by byte, TLS included, while the connection under test takes
 * the other side and must send exactly what was recorded.
 */
#ifndef TESTS_UNIT_Q2Q_SCRIPT_H
#define TESTS_UNIT_Q2Q_SCRIPT_H

#include "q2q/q2q.h"
#include "vectors.h"

#define SCRIPT_CALLS_MAX 32

/* Keys and certificates of a domain and one of its users. */
struct script_domain {
	struct crypto_key *key, *user_key;
	struct crypto_cert *cert, *user_cert;
};
void script_domain_init(struct script_domain *d, const char *domain, const char *user,
			enum crypto_key_kind kind);
void script_domain_fini(struct script_domain *d);

/* A question of the peer that waits for us. */
struct script_call {
	enum q2q_command command;
	uint64_t handle;
	int64_t virtual_id;
	char ask[64];
};

struct script {
	struct q2q_conn *conn;
	enum q2q_role role; /* of the connection under test */
	uint64_t now_us;
	struct crypto_tls_context *our_context, *peer_context;
	struct crypto_tls *peer_tls;
	struct buffer got; /* what the peer has read and nobody has looked at */
	struct script_call calls[SCRIPT_CALLS_MAX];
	size_t n_calls;
	char step_ask[64];  /* of the box that the peer sent last */
	int64_t virtual_id; /* the last one that was opened, by either side */
	/* The last event of each kind, without what it borrowed, and how many came. */
	struct q2q_event last[Q2Q_EVENT_KIND_COUNT];
	unsigned n_events[Q2Q_EVENT_KIND_COUNT];
	uint8_t data[4096]; /* of VIRTUAL_DATA */
	size_t data_bytes;
	enum q2q_inner inner; /* of transports that the peer opens */
	int verify_result;    /* of our verify callback */
	unsigned n_verified;
};

/* Both must outlive the script; NULL: an anonymous throw-away certificate for that side. */
void script_init(struct script *s, enum q2q_role role, const struct q2q_conn_config *config,
		 struct crypto_tls_context *our_context, struct crypto_tls_context *peer_context);
void script_fini(struct script *s);
struct crypto_tls_context *script_context(const struct crypto_key *key, struct crypto_cert *cert);

/* Moves bytes and pulls events until nothing moves. */
void script_pump(struct script *s);
/* The peer sends these bytes, in clear or inside its TLS. */
void script_send(struct script *s, const void *data, size_t n_bytes);
void script_send_box(struct script *s, const struct amp_box *box);
/* The peer starts TLS; what it has read and not looked at is TLS already. */
void script_start_tls(struct script *s);
/* The peer has read exactly this next. */
void script_expect(struct script *s, const void *data, size_t n_bytes);
/* The next box that the peer has read; false: none. Borrowed until the next call. */
bool script_next_box(struct script *s, struct amp_box *ret_box);
struct script_call *script_find_call(struct script *s, enum q2q_command command);
uint64_t script_take_call(struct script *s, enum q2q_command command); /* fails if not there */

/* Plays the steps of that array. `them` is how the peer's role is called in "dir". */
void script_play(struct script *s, json_t *steps, const char *them);
/* Makes the connection secure without a transcript: source-ip is asked as by the original, so that
 * the numbers of later questions are the recorded ones. */
void script_secure(struct script *s, const char *from, const char *to, bool authorize,
		   bool ask_source_ip);

#endif
