/*
 * Q2Q. The first byte chooses what gets the rest: the texts, the codec of commands, or a
 * connection as server or client, in clear or inside TLS, in pieces.
 */
#include "q2q/q2q.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

#define NOW_S  1795420800
#define NOW_US (1000 * US_PER_S)

/* ---- texts and commands -------------------------------------------------------------------- */

static void fuzz_texts(const uint8_t *data, size_t n)
{
	struct reader r = reader_over(data, n);
	struct q2q_address address, again;
	struct q2q_host_port host_port;
	struct q2q_method method;
	char text[Q2Q_TIME_TEXT_BYTES];
	int64_t unix_s, back;

	if (q2q_address_parse(data, n, &address) == 0) {
		CHECK(!strchr(address.text, '/') && !strstr(address.text, ".."));
		CHECK(q2q_address_parse(address.text, strlen(address.text), &again) == 0);
		CHECK(q2q_address_equal(&address, &again));
	}
	if (q2q_host_port_parse(data, n, &host_port) == 0)
		CHECK(strlen(host_port.host) > 0 && !strchr(host_port.host, ':'));
	if (q2q_time_parse(data, n, &unix_s) == 0 && unix_s >= 0) {
		q2q_time_format(unix_s, text);
		CHECK(q2q_time_parse(text, strlen(text), &back) == 0 && back == unix_s);
	}
	while (q2q_methods_next(&r, &method) == 0)
		CHECK(method.kind < Q2Q_METHOD_KIND_COUNT);
	(void)q2q_protocol_valid(data, n);
}

static void fuzz_codec(const uint8_t *data, size_t n)
{
	static struct q2q_answer answer;
	struct buffer scratch;
	struct amp_box box, again;
	struct q2q_call call;
	size_t used;

	if (amp_box_parse(data, n, &box, &used) != 0)
		return;
	buffer_init(&scratch, 4 * AMP_BOX_MAX_BYTES, false);
	for (enum q2q_command command = 0; command < Q2Q_COMMAND_COUNT; command++) {
		/* What can be read can be written; years past 9999 cannot be read. */
		if (q2q_call_decode(command, &box, &call) == 0) {
			amp_box_init(&again);
			CHECK(q2q_call_encode(&call, &again, &scratch) == 0);
			CHECK(q2q_call_decode(command, &again, &call) == 0);
		}
		if (q2q_answer_decode(command, &box, &answer) == 0) {
			buffer_consume(&scratch, buffer_used(&scratch));
			amp_box_init(&again);
			CHECK(q2q_answer_encode(&answer, &again, &scratch) == 0);
		}
	}
	buffer_fini(&scratch);
}

/* ---- connections
 * ---------------------------------------------------------------------------------- */

static struct crypto_tls_context *domain_context, *user_context;

static void make_contexts(void)
{
	struct crypto_tls_config config = { 0 };
	struct crypto_key *key, *user_key;
	struct crypto_cert *cert, *user_cert;
	struct crypto_csr *csr;
	struct buffer der;

	if (domain_context)
		return;
	buffer_init(&der, 8192, false);
	CHECK(crypto_key_generate(CRYPTO_KEY_P256, &key) == 0);
	CHECK(crypto_key_generate(CRYPTO_KEY_P256, &user_key) == 0);
	CHECK(crypto_cert_make_domain(key, "example.com", NOW_S, 365, &cert) == 0);
	CHECK(crypto_csr_make(user_key, "alice@example.com", &der) == 0);
	CHECK(crypto_csr_from_der(buffer_peek(&der), buffer_used(&der), &csr) == 0);
	CHECK(crypto_cert_issue(cert, key, csr, "alice@example.com", NOW_S, 365, &user_cert) == 0);
	config.cert = cert;
	config.key = key;
	CHECK(crypto_tls_context_new(&config, &domain_context) == 0);
	config.cert = user_cert;
	config.key = user_key;
	CHECK(crypto_tls_context_new(&config, &user_context) == 0);
	crypto_cert_unref(cert);
	crypto_cert_unref(user_cert);
	crypto_csr_free(csr);
	crypto_key_free(key);
	crypto_key_free(user_key);
	buffer_fini(&der);
}

static int accept_all(void *user, struct crypto_cert *cert)
{
	(void)user;
	(void)cert;
	return 0;
}

struct fuzz {
	struct q2q_conn *conn;
	struct crypto_tls *peer; /* NULL: in clear */
	uint64_t now_us;
	unsigned n_events, n_closed;
};

/* Touches what an event lends, so that a sanitizer sees whether it is there. */
static unsigned touch(const struct amp_value *value)
{
	unsigned sum = 0;

	for (size_t i = 0; value->data && i < value->n_bytes; i++)
		sum += value->data[i];
	return sum;
}

static void react(struct fuzz *f, const struct q2q_event *event)
{
	static volatile unsigned sink; /* so that what is touched is read */
	static const struct q2q_answer empty = { .command = Q2Q_INBOUND };

	(void)sink;
	CHECK(f->n_closed == 0); /* the last event is the last */
	f->n_closed += event->kind == Q2Q_EVENT_CLOSED;
	if (event->kind == Q2Q_EVENT_VIRTUAL_DATA) {
		sink += touch(&event->data);
		(void)!q2q_conn_virtual_write(f->conn, event->virtual_id, event->data.data,
					      min_size(event->data.n_bytes, 1000), f->now_us);
	}
	if (event->kind != Q2Q_EVENT_CALL)
		return;
	switch (event->command) {
	case Q2Q_RETRIEVE_CONNECTION:
		sink += touch(&event->call.retrieve.identifier);
		(void)!q2q_conn_accept_retrieve(f->conn, event->ask, f->n_events & 1, 7, f->now_us);
		return;
	case Q2Q_INBOUND:
		sink += touch(&event->call.inbound.protocol);
		(void)!q2q_conn_answer(f->conn, event->ask, &empty, f->now_us);
		return;
	case Q2Q_SECURE:
		(void)!q2q_conn_accept_secure(f->conn, event->ask, domain_context, accept_all, NULL,
					      f->now_us);
		return;
	case Q2Q_SIGNAL:
	case Q2Q_RELAY:
		sink += touch(&event->call.signal.body);
		(void)!q2q_conn_tell(f->conn, &event->call, f->now_us);
		return;
	case Q2Q_LISTEN:
	case Q2Q_ADD_USER:
		(void)!q2q_conn_answer(f->conn, event->ask, NULL, f->now_us);
		return;
	default:
		(void)!q2q_conn_fail(f->conn, event->ask, Q2Q_ERROR_NOT_FOUND, "x", f->now_us);
	}
}

static void pump(struct fuzz *f)
{
	uint8_t bytes[16384], plain[16384];
	struct q2q_event event;
	bool moved;
	size_t n;

	do {
		moved = false;
		while (q2q_conn_next_event(f->conn, &event, f->now_us)) {
			f->n_events++;
			react(f, &event);
		}
		while ((n = q2q_conn_output(f->conn, bytes, sizeof(bytes), f->now_us)) > 0)
			if (f->peer)
				(void)!crypto_tls_input(f->peer, bytes, n);
		while (f->peer && crypto_tls_read(f->peer, plain, sizeof(plain), &n) == 0)
			;
		while (f->peer && (n = crypto_tls_output(f->peer, bytes, sizeof(bytes))) > 0) {
			CHECK(q2q_conn_input(f->conn, bytes, n, f->now_us) == 0);
			moved = true;
		}
	} while (moved);
}

static void give(struct fuzz *f, const uint8_t *data, size_t n)
{
	while (n > 0) {
		size_t taken = min_size(n, 16384);

		if (f->peer && crypto_tls_write(f->peer, data, taken, &taken) != 0)
			return;
		if (!f->peer)
			CHECK(q2q_conn_input(f->conn, data, taken, f->now_us) == 0);
		pump(f);
		data += taken;
		n -= taken;
	}
}

static void put_box(struct amp_box *box, const char *command)
{
	amp_box_init(box);
	if (command)
		amp_put_text(box, "_command", command);
}

static void give_box(struct fuzz *f, const struct amp_box *box)
{
	struct buffer bytes;

	buffer_init(&bytes, 4096, false);
	CHECK(amp_box_write(box, &bytes) == 0);
	give(f, buffer_peek(&bytes), buffer_used(&bytes));
	buffer_fini(&bytes);
}

static void secure(struct fuzz *f, enum q2q_role role)
{
	const struct crypto_tls_policy policy = {
		.role = role == Q2Q_SERVER ? CRYPTO_TLS_CLIENT : CRYPTO_TLS_SERVER,
		.peer = CRYPTO_TLS_PEER_REQUIRE,
		.verify = accept_all,
	};
	struct q2q_secure request = { .authorize = true,
				      .tls = user_context,
				      .verify = accept_all };
	struct crypto_tls *peer;
	struct amp_box box;

	if (role == Q2Q_SERVER) {
		put_box(&box, "secure");
		amp_put_text(&box, "_ask", "1");
		amp_put_text(&box, "From", "alice@example.com");
		amp_put_text(&box, "to", "example.com");
		amp_put_boolean(&box, "authorize", true);
		give_box(f, &box);
		CHECK(crypto_tls_new(user_context, &policy, &peer) == 0);
		f->peer = peer;
	} else {
		CHECK(q2q_user_parse("alice@example.com", &request.from) == 0);
		CHECK(q2q_domain_parse("example.com", &request.to) == 0);
		CHECK(q2q_conn_secure(f->conn, &request, 1, f->now_us) == 0);
		pump(f);
		put_box(&box, NULL);
		amp_put_text(&box, "_answer", "1");
		CHECK(crypto_tls_new(domain_context, &policy, &peer) == 0);
		/* The answer in clear, the ClientHello to the peer. */
		{
			struct buffer bytes;

			buffer_init(&bytes, 64, false);
			CHECK(amp_box_write(&box, &bytes) == 0);
			CHECK(q2q_conn_input(f->conn, buffer_peek(&bytes), buffer_used(&bytes),
					     f->now_us) == 0);
			buffer_fini(&bytes);
		}
		f->peer = peer;
	}
	pump(f);
	CHECK(q2q_conn_is_secured(f->conn));
}

/* Questions of ours, so that answers have something to belong to. */
static void ask(struct fuzz *f, enum q2q_role role)
{
	struct q2q_call call = { .command = Q2Q_SOURCE_IP };
	const struct amp_value identifier = amp_text("x");
	int64_t id;

	(void)!q2q_conn_call(f->conn, &call, 1, 0, f->now_us);
	if (!f->peer && role == Q2Q_CLIENT) {
		call.command = Q2Q_IDENTIFY;
		(void)!q2q_conn_call(f->conn, &call, 2, 0, f->now_us);
	}
	if (f->peer) {
		call.command = Q2Q_INBOUND;
		call.inbound.protocol = amp_text("p");
		(void)!q2q_conn_call(f->conn, &call, 3, 0, f->now_us);
		(void)!q2q_conn_virtual_open(f->conn, &identifier, 4, f->now_us, &id);
	}
	pump(f);
}

static void fuzz_conn(const uint8_t *data, size_t n, enum q2q_role role, bool tls)
{
	const struct q2q_conn_config config = { .role = role };
	struct fuzz f = { .now_us = NOW_US };
	uint64_t deadline_us;

	make_contexts();
	CHECK(q2q_conn_new(&config, f.now_us, &f.conn) == 0);
	if (tls)
		secure(&f, role);
	ask(&f, role);
	/* Pieces of one size that the input chooses. */
	for (size_t piece = n > 0 ? (size_t)data[0] * 16 + 1 : 1, at = 1; at < n; at += piece)
		give(&f, data + at, min_size(piece, n - at));
	for (int i = 0; i < 4 && (deadline_us = q2q_conn_deadline_us(f.conn)) != NEVER_US; i++) {
		f.now_us = max_u64(f.now_us, deadline_us);
		q2q_conn_tick(f.conn, f.now_us);
		pump(&f);
	}
	q2q_conn_input_end(f.conn, f.now_us);
	pump(&f);
	CHECK(q2q_conn_is_over(f.conn) && f.n_closed == 1);
	q2q_conn_free(f.conn);
	crypto_tls_free(f.peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	if (data_bytes < 1 || data_bytes > 128 * 1024)
		return 0;
	switch (data[0]) {
	case 't':
		fuzz_texts(data + 1, data_bytes - 1);
		break;
	case 'b':
		fuzz_codec(data + 1, data_bytes - 1);
		break;
	case 's':
		fuzz_conn(data + 1, data_bytes - 1, Q2Q_SERVER, false);
		break;
	case 'c':
		fuzz_conn(data + 1, data_bytes - 1, Q2Q_CLIENT, false);
		break;
	case 'S':
		fuzz_conn(data + 1, data_bytes - 1, Q2Q_SERVER, true);
		break;
	case 'C':
		fuzz_conn(data + 1, data_bytes - 1, Q2Q_CLIENT, true);
		break;
	default:
		break;
	}
	return 0;
}
