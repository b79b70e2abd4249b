#include "q2q_script.h"
#include "unit.h"

#include <stdio.h>

static struct fixture {
	struct script_domain com, org, rsa; /* alice@example.com, bob@example.org */
	struct crypto_tls_context *server, *alice, *bob, *nobody, *stock_server, *stock_alice;
} fx;

static int setup(void **state)
{
	struct crypto_key *key;
	struct crypto_cert *cert;

	(void)state;
	script_domain_init(&fx.com, "example.com", "alice@example.com", CRYPTO_KEY_P256);
	script_domain_init(&fx.org, "example.org", "bob@example.org", CRYPTO_KEY_P256);
	script_domain_init(&fx.rsa, "example.com", "alice@example.com", CRYPTO_KEY_RSA);
	fx.server = script_context(fx.com.key, fx.com.cert);
	fx.alice = script_context(fx.com.user_key, fx.com.user_cert);
	fx.bob = script_context(fx.org.user_key, fx.org.user_cert);
	fx.stock_server = script_context(fx.rsa.key, fx.rsa.cert);
	fx.stock_alice = script_context(fx.rsa.user_key, fx.rsa.user_cert);
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &key), 0);
	assert_int_equal(crypto_cert_make_throwaway(key, "@", 1795420800, &cert), 0);
	fx.nobody = script_context(key, cert);
	crypto_cert_unref(cert);
	crypto_key_free(key);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	crypto_tls_context_unref(fx.server);
	crypto_tls_context_unref(fx.alice);
	crypto_tls_context_unref(fx.bob);
	crypto_tls_context_unref(fx.nobody);
	crypto_tls_context_unref(fx.stock_server);
	crypto_tls_context_unref(fx.stock_alice);
	script_domain_fini(&fx.com);
	script_domain_fini(&fx.org);
	script_domain_fini(&fx.rsa);
	return 0;
}

static void play(struct script *s, const char *file, const char *array, const char *them)
{
	json_t *document = vector_load(file);

	script_play(s, json_object_get(document, array), them);
	json_decref(document);
}

static void start(struct script *s, enum q2q_role role, const char *client, const char *peer_ip)
{
	struct crypto_tls_context *of_client = strcmp(client, "alice") == 0 ? fx.alice
					       : strcmp(client, "bob") == 0 ? fx.bob
									    : fx.nobody;
	struct q2q_conn_config config = { 0 };

	if (peer_ip)
		assert_int_equal(ip_parse(peer_ip, &config.peer_ip), 0);
	if (role == Q2Q_CLIENT)
		script_init(s, role, &config, of_client, fx.server);
	else
		script_init(s, role, &config, fx.server, of_client);
}

static void nothing_is_left(struct script *s)
{
	script_pump(s);
	assert_int_equal(buffer_used(&s->got), 0);
	assert_false(q2q_conn_is_over(s->conn));
}

static void is_over(struct script *s, int error)
{
	script_pump(s);
	assert_true(q2q_conn_is_over(s->conn));
	assert_int_equal(s->n_events[Q2Q_EVENT_CLOSED], 1);
	assert_int_equal(s->last[Q2Q_EVENT_CLOSED].closed.error, error);
}

/* ---- the recorded sessions, as client and as server ---------------------------------------- */

static void register_as_client(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "nobody", "192.0.2.1");
	play(&s, "01-source-ip-identify", "steps", "server");
	assert_int_equal(s.n_events[Q2Q_EVENT_ANSWER], 2);
	play(&s, "02-secure-anonymous", "steps", "server");
	assert_int_equal(s.n_events[Q2Q_EVENT_SECURED], 1);
	assert_int_equal(s.n_verified, 1);
	play(&s, "03-inbound-identity-admin", "steps", "server");
	assert_int_equal(s.last[Q2Q_EVENT_ANSWER].answer.inbound.listeners.n, 1);
	play(&s, "04-virtual-retrieve-adduser-close", "steps", "server");
	assert_int_equal(s.last[Q2Q_EVENT_ANSWER].command, Q2Q_ADD_USER);
	assert_int_equal(s.last[Q2Q_EVENT_ANSWER].cookie, 200);
	nothing_is_left(&s);
	script_fini(&s);
}

static void register_as_server(void **state)
{
	static const uint8_t close_answer[] = "\0\7_answer\0\0018\0";
	struct script s;

	(void)state;
	start(&s, Q2Q_SERVER, "nobody", NULL);
	s.inner = Q2Q_INNER_ADMIN;
	play(&s, "01-source-ip-identify", "steps", "client");
	play(&s, "02-secure-anonymous", "steps", "client");
	assert_int_equal(s.n_events[Q2Q_EVENT_SECURED], 1);
	assert_false(q2q_conn_is_authorized(s.conn));
	play(&s, "03-inbound-identity-admin", "steps", "client");
	play(&s, "04-virtual-retrieve-adduser-close", "steps", "client");
	/* The recording ends with the question. */
	script_expect(&s, close_answer, sizeof(close_answer));
	nothing_is_left(&s);
	script_fini(&s);
}

/* 05 is the same in clear on a port of its own: we never send that, but the boxes are the same;
 * 06, a name that is taken, is the inside of a virtual transport. */
static void play_inside(struct script *s, json_t *steps, bool we_answer)
{
	json_t *step;
	size_t i;

	json_array_foreach (steps, i, step) {
		struct amp_box box;
		struct amp_value body;
		size_t n_bytes;
		uint8_t *bytes;
		const char *dir = json_string_value(json_object_get(step, "dir"));

		if (json_object_get(step, "event"))
			continue;
		bytes = vector_bytes(step, &n_bytes);
		if ((strncmp(dir, "client", 6) == 0) == we_answer) {
			amp_box_init(&box);
			amp_put_text(&box, "_command", "write");
			amp_put_text(&box, "id", "1");
			amp_put(&box, "body", bytes, n_bytes);
			script_send_box(s, &box);
			snprintf(s->step_ask, sizeof(s->step_ask), "1");
		} else {
			if (we_answer && script_find_call(s, Q2Q_RETRIEVE_CONNECTION))
				assert_int_equal(
					q2q_conn_accept_retrieve(
						s->conn,
						script_take_call(s, Q2Q_RETRIEVE_CONNECTION),
						Q2Q_INNER_ADMIN, 0, s->now_us),
					0);
			else if (we_answer &&
				 json_object_get(json_object_get(step, "decoded"), "_error"))
				assert_int_equal(
					q2q_conn_fail(s->conn, script_take_call(s, Q2Q_ADD_USER),
						      Q2Q_ERROR_NOT_ALLOWED, NULL, s->now_us),
					0);
			else if (we_answer)
				assert_int_equal(q2q_conn_answer(s->conn,
								 script_take_call(s, Q2Q_ADD_USER),
								 NULL, s->now_us),
						 0);
			assert_true(script_next_box(s, &box));
			assert_true(amp_get(&box, "body", &body));
			assert_int_equal(body.n_bytes, n_bytes);
			assert_memory_equal(body.data, bytes, n_bytes);
		}
		free(bytes);
	}
}

static void open_virtual_to_us(struct script *s, const char *id, const char *ask)
{
	struct amp_value value;
	struct amp_box box;

	amp_box_init(&box);
	amp_put_text(&box, "_command", "virtual");
	amp_put_text(&box, "_ask", ask);
	amp_put_text(&box, "id", id);
	script_send_box(s, &box);
	assert_true(script_next_box(s, &box));
	assert_true(amp_get(&box, "_answer", &value));
	assert_true(amp_value_is(&value, ask));
}

static void add_user_inside_a_stream_as_server(void **state)
{
	static const char *const files[] = { "05-retrieve-tcp-adduser-plaintext",
					     "06-adduser-notallowed" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		json_t *document = vector_load(files[i]);
		struct script s;

		start(&s, Q2Q_SERVER, "nobody", NULL);
		script_secure(&s, "", "example.com", false, false);
		open_virtual_to_us(&s, "1", "2");
		play_inside(&s, json_object_get(document, "steps"), true);
		nothing_is_left(&s);
		script_fini(&s);
		json_decref(document);
	}
}

static void add_user_inside_a_stream_as_client(void **state)
{
	static const struct {
		const char *file, *identifier, *name, *password;
		bool allowed;
	} cases[] = {
		{ "05-retrieve-tcp-adduser-plaintext", "->accounts@example.org:1", "bob",
		  "battery staple", true },
		{ "06-adduser-notallowed", "->accounts@example.com:2", "alice", "other", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct amp_value identifier = amp_text(cases[i].identifier);
		const struct q2q_call add_user = {
			.command = Q2Q_ADD_USER,
			.add_user = { .name = amp_text(cases[i].name),
				      .password = amp_text(cases[i].password) },
		};
		json_t *document = vector_load(cases[i].file);
		struct amp_value ask;
		struct amp_box box;
		struct script s;

		start(&s, Q2Q_CLIENT, "nobody", NULL);
		assert_int_equal(q2q_conn_add_user(s.conn, &identifier, &add_user, 7, s.now_us),
				 -EPERM); /* not in clear */
		script_secure(&s, "", "example.com", false, false);
		assert_int_equal(q2q_conn_add_user(s.conn, &identifier, &add_user, 7, s.now_us), 0);
		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_ask", &ask));
		amp_box_init(&box);
		amp_put_value(&box, "_answer", &ask);
		script_send_box(&s, &box);
		play_inside(&s, json_object_get(document, "steps"), false);
		script_pump(&s);
		if (cases[i].allowed) {
			assert_int_equal(s.last[Q2Q_EVENT_ANSWER].command, Q2Q_ADD_USER);
			assert_int_equal(s.last[Q2Q_EVENT_ANSWER].cookie, 7);
		} else {
			assert_int_equal(s.n_events[Q2Q_EVENT_ERROR], 1);
			assert_int_equal(s.last[Q2Q_EVENT_ERROR].failure.error,
					 Q2Q_ERROR_NOT_ALLOWED);
		}
		/* And it is closed behind us. */
		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_command", &ask));
		assert_true(amp_value_is(&ask, "close"));
		script_fini(&s);
		json_decref(document);
	}
}

static void sign_as_client(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	play(&s, "07-sign", "steps", "server");
	assert_int_equal(s.last[Q2Q_EVENT_ANSWER].command, Q2Q_SIGN);
	assert_int_equal(s.last[Q2Q_EVENT_ANSWER].answer.identify.certificate.n_bytes, 685);
	nothing_is_left(&s);
	script_fini(&s);

	start(&s, Q2Q_CLIENT, "alice", NULL);
	play(&s, "08-sign-wrong-password", "steps", "server");
	assert_int_equal(s.last[Q2Q_EVENT_ERROR].command, Q2Q_SIGN);
	assert_int_equal(s.last[Q2Q_EVENT_ERROR].failure.error, Q2Q_ERROR_UNKNOWN);
	script_fini(&s);
}

static void sign_as_server(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_SERVER, "nobody", NULL);
	play(&s, "07-sign", "steps", "client");
	nothing_is_left(&s);
	script_fini(&s);

	start(&s, Q2Q_SERVER, "nobody", NULL);
	play(&s, "08-sign-wrong-password", "steps", "client");
	is_over(&s, 0);
	script_fini(&s);
}

static void secure_with_authorization_and_the_fetch_before_it(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "bob", NULL);
	play(&s, "09-secure-authorized", "steps", "server");
	assert_int_equal(s.n_events[Q2Q_EVENT_SECURED], 1);
	play(&s, "11-inbound-relayed-and-bind-udp", "requester_steps", "server");
	assert_int_equal(s.last[Q2Q_EVENT_ANSWER].command, Q2Q_BIND_UDP);
	nothing_is_left(&s);
	script_fini(&s);

	start(&s, Q2Q_SERVER, "bob", NULL);
	play(&s, "09-secure-authorized", "steps", "client");
	assert_true(q2q_conn_is_authorized(s.conn));
	assert_int_equal(s.n_verified, 1);
	assert_string_equal(q2q_conn_from(s.conn)->text, "bob@example.org");
	assert_string_equal(crypto_cert_subject(q2q_conn_peer_cert(s.conn)), "bob@example.org");
	play(&s, "11-inbound-relayed-and-bind-udp", "requester_steps", "client");
	nothing_is_left(&s);
	script_fini(&s);

	/* The connection on which the server fetches a certificate. */
	start(&s, Q2Q_CLIENT, "nobody", NULL);
	play(&s, "09-secure-authorized", "fetch_steps", "example.org");
	assert_int_equal(s.last[Q2Q_EVENT_ANSWER].answer.identify.certificate.n_bytes, 679);
	script_fini(&s);
	start(&s, Q2Q_SERVER, "nobody", NULL);
	play(&s, "09-secure-authorized", "fetch_steps", "example.com");
	nothing_is_left(&s);
	script_fini(&s);
}

static void listen_and_be_found(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	play(&s, "10-listen", "steps", "server");
	play(&s, "11-inbound-relayed-and-bind-udp", "listener_steps", "server");
	nothing_is_left(&s);
	script_fini(&s);

	start(&s, Q2Q_SERVER, "alice", NULL);
	play(&s, "10-listen", "steps", "client");
	play(&s, "11-inbound-relayed-and-bind-udp", "listener_steps", "client");
	assert_int_equal(s.last[Q2Q_EVENT_ANSWER].command, Q2Q_BIND_UDP);
	nothing_is_left(&s);
	script_fini(&s);
}

static void retrieve_a_connection_and_use_it(void **state)
{
	struct script s;

	/* 12 and 13 are recorded on a TCP port of their own; the stream inside is the same. */
	(void)state;
	start(&s, Q2Q_SERVER, "bob", NULL);
	script_secure(&s, "bob@example.org", "example.com", true, false);
	open_virtual_to_us(&s, "1", "2");
	for (int i = 0; i < 2; i++) {
		json_t *document = vector_load(i == 0 ? "12-retrieve-connection-tcp"
						      : "13-retrieve-connection-error");
		json_t *steps = json_object_get(document, "steps"), *step;
		size_t at;

		if (i == 1)
			open_virtual_to_us(&s, "2", "5");
		json_array_foreach (steps, at, step) {
			const char *dir = json_string_value(json_object_get(step, "dir"));
			struct amp_value body;
			struct amp_box box;
			size_t n_bytes;
			uint8_t *bytes;

			if (!dir)
				continue;
			bytes = vector_bytes(step, &n_bytes);
			if (strncmp(dir, "connector", 9) == 0) {
				amp_box_init(&box);
				amp_put_text(&box, "_command", "write");
				amp_put_integer(&box, "id", i + 1);
				amp_put(&box, "body", bytes, n_bytes);
				script_send_box(&s, &box);
			} else {
				const uint64_t ask = script_take_call(&s, Q2Q_RETRIEVE_CONNECTION);
				const int r =
					i == 0 ? q2q_conn_accept_retrieve(
							 s.conn, ask, Q2Q_INNER_BYTES, 9, s.now_us)
					       : q2q_conn_fail(
							 s.conn, ask, Q2Q_ERROR_NO_SUCH_CONNECTION,
							 "'bob@example.org->alice@example.com:1'",
							 s.now_us);

				assert_int_equal(r, 0);
				assert_true(script_next_box(&s, &box));
				assert_true(amp_get(&box, "body", &body));
				assert_int_equal(body.n_bytes, n_bytes);
				assert_memory_equal(body.data, bytes, n_bytes);
			}
			free(bytes);
		}
		json_decref(document);
	}
	assert_int_equal(s.data_bytes, 19);
	assert_memory_equal(s.data + 8, "hello, q2q\n", 11);
	assert_int_equal(s.last[Q2Q_EVENT_VIRTUAL_DATA].cookie, 9);
	script_fini(&s);
}

static void choke_unchoke_and_close(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "bob", NULL);
	script_secure(&s, "bob@example.org", "example.com", true, true);
	play(&s, "14-choke-unchoke-close", "steps", "server");
	assert_int_equal(s.n_events[Q2Q_EVENT_VIRTUAL_OPENED], 1);
	assert_memory_equal(s.data, "unchoked\n", 9);
	assert_int_equal(s.n_events[Q2Q_EVENT_VIRTUAL_CLOSED], 1);
	assert_int_equal(s.last[Q2Q_EVENT_VIRTUAL_CLOSED].cookie, 201);
	nothing_is_left(&s);
	script_fini(&s);

	start(&s, Q2Q_SERVER, "bob", NULL);
	script_secure(&s, "bob@example.org", "example.com", true, false);
	play(&s, "14-choke-unchoke-close", "steps", "client");
	assert_memory_equal(s.data, "hello, q2q\nchoke me\npoke\nbye\n", 29);
	nothing_is_left(&s);
	script_fini(&s);
}

static void a_connection_opened_by_the_server(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, true);
	play(&s, "15-server-originated-virtual", "steps", "server");
	assert_memory_equal(s.data, "ping from server\n", 17);
	assert_int_equal(s.virtual_id, -1);
	nothing_is_left(&s);
	script_fini(&s);

	start(&s, Q2Q_SERVER, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, false);
	play(&s, "15-server-originated-virtual", "steps", "client");
	assert_memory_equal(s.data, "echo: ping from server\n", 23);
	nothing_is_left(&s);
	script_fini(&s);
}

static void a_listener_behind_a_nat(void **state)
{
	struct script_domain d;
	struct crypto_tls_context *dave;
	struct script s;

	(void)state;
	script_domain_init(&d, "example.com", "dave@example.com", CRYPTO_KEY_P256);
	dave = script_context(d.user_key, d.user_cert);
	script_init(&s, Q2Q_CLIENT, NULL, dave, fx.server);
	play(&s, "16-listener-behind-nat", "steps", "server");
	nothing_is_left(&s);
	script_fini(&s);

	script_init(&s, Q2Q_SERVER, NULL, fx.server, dave);
	play(&s, "16-listener-behind-nat", "steps", "client");
	nothing_is_left(&s);
	script_fini(&s);
	crypto_tls_context_unref(dave);
	script_domain_fini(&d);
}

static void stock_certificates_do_as_well(void **state)
{
	struct script s;

	(void)state;
	script_init(&s, Q2Q_CLIENT, NULL, fx.stock_alice, fx.stock_server);
	play(&s, "10-listen", "steps", "server");
	nothing_is_left(&s);
	script_fini(&s);
	script_init(&s, Q2Q_SERVER, NULL, fx.stock_server, fx.stock_alice);
	play(&s, "10-listen", "steps", "client");
	nothing_is_left(&s);
	script_fini(&s);
}

/* ---- recorded edge cases -------------------------------------------------------------------- */

enum judgement {
	SAME,      /* the same bytes, and the same end */
	SAME_CODE, /* the same error code and end, other words */
	OTHERWISE, /* a deviation: doc/q2q-extensions.md, section 7; tested below */
	ELSEWHERE, /* not about the control connection */
};

/* How the recorded edge cases end with us. */
static const struct {
	const char *name;
	enum judgement judgement;
} edge_cases[] = {
	{ "unknown command with _ask", SAME_CODE },
	{ "unknown command without _ask", OTHERWISE },
	{ "missing argument", SAME },
	{ "extra argument is ignored", SAME },
	{ "keys in any order, any _ask value", SAME },
	{ "Boolean not exactly True or False", SAME },
	{ "key length 256", SAME },
	{ "empty box", SAME },
	{ "answer that nobody asked for", OTHERWISE },
	{ "write to an unknown virtual id, no _ask", SAME },
	{ "close of an unknown virtual id", SAME },
	{ "Choke of an unknown virtual id", SAME },
	{ "Who-Am-I on the control port", SAME_CODE },
	{ "Who-Am-I on the retrieve port", ELSEWHERE },
	{ "Retrieve-Connection with an unknown id", ELSEWHERE },
	{ "inbound in cleartext, anonymous: allowed", SAME },
	{ "inbound in cleartext with a From: VerifyError, fatal", SAME },
	{ "inbound with nobody listening", SAME },
	{ "inbound From another user of the same domain", SAME_CODE },
	{ "inbound From any foreign address with a certificate of the server's own domain: allowed",
	  OTHERWISE },
	{ "listen for somebody else", SAME },
	{ "listen on a protocol starting with a dot", SAME },
	{ "secure a second time", SAME },
	{ "virtual with a negative id from the connecting side", SAME },
	{ "sign: CN without @", SAME },
	{ "sign: more than CN", SAME },
	{ "sign: wrong password", SAME },
	{ "bind-udp that nobody can serve", SAME },
	{ "bind-udp for somebody else", SAME },
	{ "crossed close answered with _answer", OTHERWISE },
	{ "crossed close answered with _error", OTHERWISE },
};

static const char *client_of(json_t *steps)
{
	json_t *decoded = json_object_get(json_array_get(steps, 0), "decoded");
	const char *from = json_string_value(json_object_get(decoded, "From"));

	if (from && strcmp(from, "alice@example.com") == 0)
		return "alice";
	return from && strcmp(from, "bob@example.org") == 0 ? "bob" : "nobody";
}

/* Up to our last step, which only has to carry the same code. */
static void play_same_code(struct script *s, json_t *steps)
{
	const size_t n = json_array_size(steps);
	json_t *last = json_array_get(steps, n - 1), *first = json_array(), *step;
	struct amp_value code;
	struct amp_box box;
	size_t i;

	json_array_foreach (steps, i, step)
		if (i + 1 < n)
			json_array_append(first, step);
	script_play(s, first, "probe");
	json_decref(first);
	assert_true(script_next_box(s, &box));
	assert_int_equal(amp_box_shape(&box), AMP_SHAPE_ERROR);
	assert_true(amp_get(&box, "_error_code", &code));
	assert_true(amp_value_is(&code, json_string_value(json_object_get(
						json_object_get(last, "decoded"), "_error_code"))));
}

static void play_edge_case(json_t *c, enum judgement judgement)
{
	json_t *steps = json_object_get(c, "steps");
	struct script s;

	if (judgement == OTHERWISE || judgement == ELSEWHERE)
		return;
	start(&s, Q2Q_SERVER, client_of(steps), NULL);
	if (judgement == SAME)
		script_play(&s, steps, "probe");
	else
		play_same_code(&s, steps);
	assert_int_equal(buffer_used(&s.got), 0);
	assert_int_equal(q2q_conn_is_over(s.conn),
			 json_is_true(json_object_get(c, "oracle_closes_afterwards")));
	script_fini(&s);
}

static void the_recorded_edge_cases_end_as_they_should(void **state)
{
	json_t *document = vector_load("17-errors-and-edge-cases");
	json_t *cases = json_object_get(document, "cases");

	(void)state;
	/* None was forgotten. */
	assert_int_equal(json_array_size(cases), ARRAY_SIZE(edge_cases));
	for (size_t i = 0; i < ARRAY_SIZE(edge_cases); i++) {
		play_edge_case(vector_case(document, edge_cases[i].name), edge_cases[i].judgement);
	}
	json_decref(document);
}

static void what_nobody_asked_for_is_counted_and_survived(void **state)
{
	struct q2q_conn_stats stats;
	struct amp_box box;
	struct script s;

	(void)state;
	start(&s, Q2Q_SERVER, "nobody", NULL);
	amp_box_init(&box);
	amp_put_text(&box, "_command", "bogus-command");
	script_send_box(&s, &box);
	amp_box_init(&box);
	amp_put_text(&box, "_answer", "999");
	script_send_box(&s, &box);
	amp_box_init(&box);
	amp_put_text(&box, "_error", "999");
	script_send_box(&s, &box);
	nothing_is_left(&s);
	q2q_conn_stats(s.conn, &stats);
	assert_int_equal(stats.strange_answers, 2);
	assert_int_equal(stats.boxes_in, 3);
	script_fini(&s);
}

static void a_certificate_of_our_own_domain_speaks_for_nobody_else(void **state)
{
	struct amp_value code;
	struct amp_box box;
	struct script s;

	(void)state;
	start(&s, Q2Q_SERVER, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, false);
	amp_box_init(&box);
	amp_put_text(&box, "_command", "inbound");
	amp_put_text(&box, "_ask", "2");
	amp_put_text(&box, "From", "ceo@example.net");
	amp_put_text(&box, "to", "service@example.com");
	amp_put_text(&box, "protocol", "choker");
	script_send_box(&s, &box);
	assert_true(script_next_box(&s, &box));
	assert_true(amp_get(&box, "_error_code", &code));
	assert_true(amp_value_is(&code, "VerifyError"));
	is_over(&s, -EACCES);
	assert_int_equal(s.n_events[Q2Q_EVENT_CALL], 1); /* secure alone */
	script_fini(&s);
}

static void put_command(struct amp_box *box, const char *command, const char *ask, const char *id)
{
	amp_box_init(box);
	amp_put_text(box, "_command", command);
	if (ask)
		amp_put_text(box, "_ask", ask);
	if (id)
		amp_put_text(box, "id", id);
}

/* A stream that the peer opened and retrieved, with id 5. */
static void open_stream(struct script *s)
{
	struct amp_value body;
	struct buffer inner;
	struct amp_box box;

	start(s, Q2Q_SERVER, "bob", NULL);
	script_secure(s, "bob@example.org", "example.com", true, false);
	open_virtual_to_us(s, "5", "3");
	put_command(&box, "Retrieve-Connection", "1", NULL);
	amp_put_text(&box, "identifier", "x");
	buffer_init(&inner, 1024, false);
	assert_int_equal(amp_box_write(&box, &inner), 0);
	/* The first bytes of the inner protocol share the segment. */
	assert_int_equal(buffer_append(&inner, "early", 5), 0);
	put_command(&box, "write", NULL, "5");
	amp_put(&box, "body", buffer_peek(&inner), buffer_used(&inner));
	script_send_box(s, &box);
	buffer_fini(&inner);
	assert_int_equal(s->data_bytes, 0);
	assert_int_equal(q2q_conn_accept_retrieve(s->conn,
						  script_take_call(s, Q2Q_RETRIEVE_CONNECTION),
						  Q2Q_INNER_BYTES, 11, s->now_us),
			 0);
	assert_true(script_next_box(s, &box));
	assert_true(amp_get(&box, "body", &body));
	assert_int_equal(s->data_bytes, 5);
	assert_memory_equal(s->data, "early", 5);
}

static void crossed_closes_end_one_stream_and_nothing_else(void **state)
{
	struct amp_value value;
	struct amp_box box;
	struct script s;
	char ask[32];

	for (int variant = 0; variant < 2; variant++) {
		(void)state;
		open_stream(&s);
		assert_int_equal(q2q_conn_virtual_close(s.conn, 5, s.now_us), 0);
		assert_true(script_next_box(&s, &box)); /* our close */
		assert_true(amp_get(&box, "_ask", &value));
		snprintf(ask, sizeof(ask), "%.*s", (int)value.n_bytes, (const char *)value.data);
		put_command(&box, "close", "e1", "5");
		script_send_box(&s, &box);
		/* An error, because an ordinary answer would make a stock peer fail. */
		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_error", &value));
		assert_true(amp_value_is(&value, "e1"));
		amp_box_init(&box);
		if (variant == 0) {
			amp_put_text(&box, "_answer", ask);
		} else {
			amp_put_text(&box, "_error", ask);
			amp_put_text(&box, "_error_code", "UNKNOWN");
			amp_put_text(&box, "_error_description", "already closed");
		}
		script_send_box(&s, &box);
		nothing_is_left(&s);
		/* The number is free again only in the sense that nothing listens there. */
		put_command(&box, "write", NULL, "5");
		amp_put_text(&box, "body", "late");
		script_send_box(&s, &box);
		nothing_is_left(&s);
		assert_int_equal(s.n_events[Q2Q_EVENT_VIRTUAL_CLOSED], 0);
		script_fini(&s);
	}
}

static void one_bad_stream_number_costs_nothing_else(void **state)
{
	static const char *const commands[] = { "write", "Choke", "Unchoke" };
	struct amp_value value;
	struct amp_box box;
	struct script s;

	(void)state;
	open_stream(&s);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		put_command(&box, commands[i], NULL, "77");
		amp_put_text(&box, "body", "x");
		script_send_box(&s, &box);
	}
	put_command(&box, "close", "9", "77");
	script_send_box(&s, &box);
	assert_true(script_next_box(&s, &box));
	assert_true(amp_get(&box, "_error", &value));
	nothing_is_left(&s);
	assert_int_equal(q2q_conn_virtual_write(s.conn, 5, "still here", 10, s.now_us), 0);
	assert_true(script_next_box(&s, &box));
	script_fini(&s);
}

static void choking_stops_us_and_unchoking_is_told(void **state)
{
	struct amp_box box;
	struct script s;

	(void)state;
	open_stream(&s);
	put_command(&box, "Choke", NULL, "5");
	script_send_box(&s, &box);
	assert_int_equal(q2q_conn_virtual_write(s.conn, 5, "x", 1, s.now_us), Q2Q_BLOCKED);
	nothing_is_left(&s);
	assert_int_equal(s.n_events[Q2Q_EVENT_VIRTUAL_WRITABLE], 0);
	put_command(&box, "Unchoke", NULL, "5");
	script_send_box(&s, &box);
	assert_int_equal(s.n_events[Q2Q_EVENT_VIRTUAL_WRITABLE], 1);
	assert_int_equal(q2q_conn_virtual_write(s.conn, 5, "x", 1, s.now_us), 0);
	assert_int_equal(q2q_conn_virtual_write(s.conn, 6, "x", 1, s.now_us), -ENOENT);
	script_fini(&s);
}

static void streams_are_counted_and_unused_ones_expire(void **state)
{
	const struct q2q_conn_config config = { .virtuals_max = 3, .keepalive_us = NEVER_US };
	struct amp_value value;
	struct amp_box box;
	struct script s;
	char number[16];

	(void)state;
	script_init(&s, Q2Q_SERVER, &config, fx.server, fx.bob);
	script_secure(&s, "bob@example.org", "example.com", true, false);
	for (int i = 1; i <= 3; i++) {
		snprintf(number, sizeof(number), "%d", i);
		open_virtual_to_us(&s, number, number);
	}
	put_command(&box, "virtual", "4", "4");
	script_send_box(&s, &box);
	assert_true(script_next_box(&s, &box));
	assert_true(amp_get(&box, "_error", &value));
	nothing_is_left(&s);

	/* Nobody retrieved anything: they are closed, and one is free again. */
	s.now_us = q2q_conn_deadline_us(s.conn);
	assert_true(s.now_us != NEVER_US);
	q2q_conn_tick(s.conn, s.now_us);
	for (int i = 1; i <= 3; i++) {
		char ask[32];

		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_command", &value));
		assert_true(amp_value_is(&value, "close"));
		assert_true(amp_get(&box, "_ask", &value));
		snprintf(ask, sizeof(ask), "%.*s", (int)value.n_bytes, (const char *)value.data);
		amp_box_init(&box);
		amp_put_text(&box, "_answer", ask);
		script_send_box(&s, &box);
	}
	open_virtual_to_us(&s, "5", "5");
	nothing_is_left(&s);
	script_fini(&s);
}

static void a_stream_that_talks_nonsense_is_closed_alone(void **state)
{
	static const uint8_t flood[9000] = { 0, 1, 'k', 0xff, 0xff };
	struct amp_value value;
	struct amp_box box;
	struct script s;

	(void)state;
	for (int variant = 0; variant < 2; variant++) {
		start(&s, Q2Q_SERVER, "bob", NULL);
		script_secure(&s, "bob@example.org", "example.com", true, false);
		open_virtual_to_us(&s, "1", "2");
		put_command(&box, "write", NULL, "1");
		amp_put(&box, "body", variant == 0 ? (const void *)"\xff\xff" : flood,
			variant == 0 ? 2 : sizeof(flood));
		script_send_box(&s, &box);
		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_command", &value));
		assert_true(amp_value_is(&value, "close"));
		nothing_is_left(&s);
		script_fini(&s);
	}
}

static void
a_server_closes_by_an_error_where_the_number_has_the_wrong_sign_or_is_taken(void **state)
{
	struct amp_box box;
	struct script s;

	(void)state;
	open_stream(&s);
	put_command(&box, "virtual", "8", "5");
	script_send_box(&s, &box);
	assert_true(script_next_box(&s, &box));
	is_over(&s, -EBADMSG);
	/* The program is told of the end of the stream that it knew. */
	assert_int_equal(s.n_events[Q2Q_EVENT_VIRTUAL_CLOSED], 1);
	script_fini(&s);
}

/* ---- relaying
 * ------------------------------------------------------------------------------------ */

/* What a server does with a listener's answer, as far as this library helps it. */
static void relay(const struct q2q_answer *from, struct crypto_cert *cert, struct q2q_answer *to,
		  struct buffer *methods)
{
	to->command = Q2Q_INBOUND;
	to->inbound.listeners.n = 0;
	for (size_t i = 0; i < from->inbound.listeners.n; i++) {
		struct q2q_listener *entry =
			&to->inbound.listeners.entries[to->inbound.listeners.n];
		size_t der_bytes;

		*entry = from->inbound.listeners.entries[i];
		buffer_consume(methods, buffer_used(methods));
		assert_int_equal(q2q_methods_relay(&entry->methods, methods), 0);
		if (buffer_used(methods) == 0)
			continue;
		entry->methods = amp_value(buffer_peek(methods), buffer_used(methods));
		entry->certificate.data = crypto_cert_der(cert, &der_bytes);
		entry->certificate.n_bytes = der_bytes;
		to->inbound.listeners.n++;
	}
}

static struct crypto_cert *recorded_certificate(json_t *c)
{
	json_t *answer = json_array_get(json_object_get(c, "requester_steps"), 1);
	struct q2q_answer decoded;
	struct crypto_cert *cert;
	struct amp_box box;
	size_t n_bytes, used;
	uint8_t *bytes = vector_bytes(answer, &n_bytes);

	assert_int_equal(amp_box_parse(bytes, n_bytes, &box, &used), 0);
	assert_int_equal(q2q_answer_decode(Q2Q_INBOUND, &box, &decoded), 0);
	assert_int_equal(decoded.inbound.listeners.n, 1);
	assert_int_equal(crypto_cert_from_der(
				 decoded.inbound.listeners.entries[0].certificate.data,
				 decoded.inbound.listeners.entries[0].certificate.n_bytes, &cert),
			 0);
	free(bytes);
	return cert;
}

static void play_relay(json_t *c, struct crypto_cert *cert, bool same)
{
	json_t *listener_steps = json_object_get(c, "listener_steps");
	json_t *requester_steps = json_object_get(c, "requester_steps");
	struct script listener, requester;
	struct q2q_answer answer;
	struct q2q_call call;
	struct buffer methods;
	struct q2q_event *event;
	uint8_t *bytes[4];
	size_t n[4];
	struct amp_box box;

	start(&listener, Q2Q_SERVER, "alice", NULL);
	script_secure(&listener, "alice@example.com", "example.com", true, false);
	start(&requester, Q2Q_SERVER, "bob", NULL);
	script_secure(&requester, "bob@example.org", "example.com", true, false);
	bytes[0] = vector_bytes(json_array_get(requester_steps, 0), &n[0]);
	bytes[1] = vector_bytes(json_array_get(listener_steps, 0), &n[1]);
	bytes[2] = vector_bytes(json_array_get(listener_steps, 1), &n[2]);
	bytes[3] = vector_bytes(json_array_get(requester_steps, 1), &n[3]);
	buffer_init(&methods, 4096, false);

	snprintf(requester.step_ask, sizeof(requester.step_ask), "2");
	script_send(&requester, bytes[0], n[0]);
	/* What the event borrowed is gone by now; the box is here. */
	assert_int_equal(amp_box_parse(bytes[0], n[0], &box, &n[0]), 0);
	assert_int_equal(q2q_call_decode(Q2Q_INBOUND, &box, &call), 0);
	assert_int_equal(q2q_conn_call(listener.conn, &call, 5, 0, listener.now_us), 0);
	script_expect(&listener, bytes[1], n[1]);
	script_send(&listener, bytes[2], n[2]);

	answer.command = Q2Q_INBOUND;
	answer.inbound.status = (struct amp_value){ NULL, 0 };
	answer.inbound.listeners.n = 0;
	event = &listener.last[Q2Q_EVENT_ANSWER];
	if (listener.n_events[Q2Q_EVENT_ANSWER] > 0) {
		assert_int_equal(event->cookie, 5);
		assert_int_equal(amp_box_parse(bytes[2], n[2], &box, &n[2]), 0);
		assert_int_equal(q2q_answer_decode(Q2Q_INBOUND, &box, &event->answer), 0);
		relay(&event->answer, cert, &answer, &methods);
	} else {
		assert_int_equal(listener.n_events[Q2Q_EVENT_ERROR], 1);
	}
	assert_int_equal(q2q_conn_answer(requester.conn, script_take_call(&requester, Q2Q_INBOUND),
					 &answer, requester.now_us),
			 0);
	if (same)
		script_expect(&requester, bytes[3], n[3]);
	else
		assert_true(script_next_box(&requester, &box));
	nothing_is_left(&requester);
	nothing_is_left(&listener);
	if (!same) {
		assert_int_equal(q2q_answer_decode(Q2Q_INBOUND, &box, &answer), 0);
		assert_int_equal(answer.inbound.listeners.n, 1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bytes); i++)
		free(bytes[i]);
	buffer_fini(&methods);
	script_fini(&listener);
	script_fini(&requester);
}

static void relayed_answers_are_what_a_stock_server_makes_of_them(void **state)
{
	/* Where it would disconnect somebody, we do not; where a stock requester would break, the
	 * method is left out. */
	static const struct {
		const char *name;
		bool same;
	} cases[] = {
		{ "tcp and virtual: virtual is removed, certificate is added", true },
		{ "virtual only: entry is dropped", true },
		{ "certificate sent by the listener is replaced", true },
		{ "additional key in an entry is stripped", true },
		{ "empty list", true },
		{ "error answer: requester gets an empty list, listener is disconnected", true },
		{ "unknown method: requester gets UNKNOWN and is disconnected", false },
		{ "IPv6 literal in a method: listener is disconnected", true },
		{ "expires with a zone suffix: listener is disconnected", false },
	};
	json_t *document = vector_load("18-relay-cases");
	struct crypto_cert *cert = recorded_certificate(vector_case(document, cases[0].name));

	(void)state;
	assert_int_equal(json_array_size(json_object_get(document, "cases")), ARRAY_SIZE(cases));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		play_relay(vector_case(document, cases[i].name), cert, cases[i].same);
	}
	crypto_cert_unref(cert);
	json_decref(document);
}

/* ---- who may say what
 * ------------------------------------------------------------------------------- */

static void a_client_believes_its_own_server_and_no_foreign_one(void **state)
{
	static const struct {
		const char *from, *to;
		bool believed;
	} cases[] = {
		{ "bob@example.org", "alice@example.com", true }, /* relayed by our own server */
		{ "carol@example.com", "alice@example.com", true },
		{ "carol@example.com", "bob@example.org", true }, /* its own user */
		{ "bob@example.org", "bob@example.org", false },  /* none of its business */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct amp_value value;
		struct amp_box box;
		struct script s;

		start(&s, Q2Q_CLIENT, "alice", NULL);
		script_secure(&s, "alice@example.com", "example.com", true, false);
		put_command(&box, "inbound", "1", NULL);
		amp_put_text(&box, "From", cases[i].from);
		amp_put_text(&box, "to", cases[i].to);
		amp_put_text(&box, "protocol", "q2q-tun");
		script_send_box(&s, &box);
		assert_int_equal(s.n_events[Q2Q_EVENT_CALL], cases[i].believed);
		if (!cases[i].believed) {
			/* An empty list: an error would make a stock server drop us. */
			assert_true(script_next_box(&s, &box));
			assert_true(amp_get(&box, "listeners", &value));
			assert_int_equal(value.n_bytes, 0);
		}
		nothing_is_left(&s);
		script_fini(&s);
	}
}

static void a_server_serves_its_own_domain_alone(void **state)
{
	static const struct {
		const char *command, *key, *value, *code;
	} cases[] = {
		/* bob is who he says, but neither a user nor a target is of this server's domain.
		 */
		{ "listen", "description", "d", "UNKNOWN" },
		{ "inbound", "to", "carol@example.org", "VerifyError" },
		{ "bind-udp", "q2qsrc", "carol@example.org", "UNKNOWN" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct amp_value value;
		struct amp_box box;
		struct script s;

		start(&s, Q2Q_SERVER, "bob", NULL);
		script_secure(&s, "bob@example.org", "example.com", true, false);
		put_command(&box, cases[i].command, "2", NULL);
		amp_put_text(&box, cases[i].key, cases[i].value);
		amp_put_text(&box, "From", "bob@example.org");
		amp_put_text(&box, "q2qdst", "bob@example.org");
		amp_put_text(&box, "protocol", "x");
		amp_put(&box, "protocols", "\0\1x", 3);
		amp_put_text(&box, "udpsrc", "192.0.2.1:1");
		amp_put_text(&box, "udpdst", "192.0.2.2:1");
		script_send_box(&s, &box);
		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_error_code", &value));
		assert_true(amp_value_is(&value, cases[i].code));
		is_over(&s, -EACCES);
		assert_int_equal(s.n_events[Q2Q_EVENT_CALL], 1); /* secure */
		script_fini(&s);
	}
}

static void wrong_password_is_said_to_those_who_understand_it(void **state)
{
	(void)state;
	for (int ours = 0; ours < 2; ours++) {
		struct amp_value value;
		struct amp_box box;
		struct script s;

		start(&s, Q2Q_SERVER, "nobody", NULL);
		script_secure(&s, "", "example.com", false, false);
		put_command(&box, "sign", "2", NULL);
		amp_put_text(&box, "certificate_request", "csr");
		amp_put_text(&box, "password", "secret");
		if (ours)
			amp_put_text(&box, "q2q-tun", "1");
		script_send_box(&s, &box);
		assert_int_equal(q2q_conn_fail(s.conn, script_take_call(&s, Q2Q_SIGN),
					       Q2Q_ERROR_WRONG_PASSWORD, "try again", s.now_us),
				 0);
		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_error_code", &value));
		assert_true(amp_value_is(&value, ours ? "WrongPassword" : "UNKNOWN"));
		assert_true(amp_get(&box, "_error_description", &value));
		assert_true(amp_value_is(&value, ours ? "try again" : "Unknown Error"));
		assert_int_equal(q2q_conn_is_over(s.conn), !ours);
		script_fini(&s);
	}
}

static void errors_that_a_command_does_not_declare_are_other_errors(void **state)
{
	static const struct {
		const char *code;
		enum q2q_error error;
	} cases[] = {
		{ "UNHANDLED", Q2Q_ERROR_UNHANDLED },
		{ "UNKNOWN", Q2Q_ERROR_UNKNOWN },
		{ "NotAllowed", Q2Q_ERROR_OTHER }, /* add_user declares it, identify does not */
		{ "\x1b[31mred", Q2Q_ERROR_OTHER },
	};
	struct q2q_call call = { .command = Q2Q_IDENTIFY };
	struct amp_value ask;
	struct amp_box box;
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "nobody", NULL);
	assert_int_equal(q2q_domain_parse("example.com", &call.identify.subject), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(q2q_conn_call(s.conn, &call, i, 0, s.now_us), 0);
		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_ask", &ask));
		amp_box_init(&box);
		amp_put_value(&box, "_error", &ask);
		amp_put_text(&box, "_error_code", cases[i].code);
		amp_put_text(&box, "_error_description", "a\x1b[0mb");
		script_send_box(&s, &box);
		assert_int_equal(s.last[Q2Q_EVENT_ERROR].cookie, i);
		assert_int_equal(s.last[Q2Q_EVENT_ERROR].failure.error, cases[i].error);
		/* Nothing that drives a terminal comes through. */
		assert_null(strchr(s.last[Q2Q_EVENT_ERROR].failure.code_text, '\x1b'));
		assert_null(strchr(s.last[Q2Q_EVENT_ERROR].failure.description, '\x1b'));
	}
	nothing_is_left(&s);
	script_fini(&s);
}

static void an_orderly_end_says_goodbye_inside_tls(void **state)
{
	const struct q2q_call call = { .command = Q2Q_SOURCE_IP };
	uint8_t plain[64];
	struct amp_box box;
	struct script s;
	size_t n;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, false);
	assert_int_equal(q2q_conn_call(s.conn, &call, 1, 0, s.now_us), 0);
	q2q_conn_close(s.conn, s.now_us);
	is_over(&s, 0);
	/* What was asked before still leaves, then the goodbye. */
	assert_true(script_next_box(&s, &box));
	assert_int_equal(crypto_tls_read(s.peer_tls, plain, sizeof(plain), &n), CRYPTO_TLS_EOF);
	script_fini(&s);
}

static void a_client_offers_what_a_server_offers_to_nobody(void **state)
{
	static const char *const commands[] = { "identify", "secure", "sign", "listen", "bogus" };
	struct amp_value value;
	struct amp_box box;
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		put_command(&box, commands[i], "a", NULL);
		script_send_box(&s, &box);
		assert_true(script_next_box(&s, &box));
		assert_true(amp_get(&box, "_error_code", &value));
		assert_true(amp_value_is(&value, "UNHANDLED"));
	}
	nothing_is_left(&s);
	script_fini(&s);
}

static void nothing_secret_leaves_in_clear(void **state)
{
	struct q2q_call call = { .command = Q2Q_SIGN,
				 .sign = { .certificate_request = amp_text("csr"),
					   .password = amp_text("secret") } };
	struct q2q_call signal = { .command = Q2Q_SIGNAL,
				   .signal = { .id = amp_text("1"), .body = amp_text("b") } };
	struct amp_box box;
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	assert_int_equal(q2q_conn_call(s.conn, &call, 1, 0, s.now_us), -EPERM);
	assert_int_equal(q2q_conn_tell(s.conn, &signal, s.now_us), -EPERM);
	nothing_is_left(&s);
	script_fini(&s);

	/* A client that asks for signing in clear is shown the door. */
	start(&s, Q2Q_SERVER, "alice", NULL);
	put_command(&box, "sign", "1", NULL);
	amp_put_text(&box, "certificate_request", "csr");
	amp_put_text(&box, "password", "secret");
	script_send_box(&s, &box);
	is_over(&s, -EPERM);
	assert_int_equal(s.n_events[Q2Q_EVENT_CALL], 0);
	script_fini(&s);
}

static struct q2q_secure secure_request(struct script *s,
					int (*verify)(void *, struct crypto_cert *))
{
	struct q2q_secure secure = {
		.authorize = true, .tls = s->our_context, .verify = verify, .user = s
	};

	assert_int_equal(q2q_user_parse("alice@example.com", &secure.from), 0);
	assert_int_equal(q2q_domain_parse("example.com", &secure.to), 0);
	return secure;
}

static int accept_all(void *user, struct crypto_cert *cert)
{
	(void)user;
	(void)cert;
	return 0;
}

static void after_secure_a_client_holds_everything_back(void **state)
{
	struct q2q_call call = { .command = Q2Q_SIGN,
				 .sign = { .certificate_request = amp_text("csr"),
					   .password = amp_text("secret") } };
	struct q2q_conn_config config = { 0 };
	struct q2q_secure secure;
	struct amp_value value;
	struct amp_box box;
	struct script s;

	(void)state;
	assert_int_equal(ip_parse("192.0.2.1", &config.peer_ip), 0);
	script_init(&s, Q2Q_CLIENT, &config, fx.alice, fx.server);
	secure = secure_request(&s, accept_all);
	assert_int_equal(q2q_conn_secure(s.conn, &secure, 1, s.now_us), 0);
	assert_int_equal(q2q_conn_secure(s.conn, &secure, 1, s.now_us), -EALREADY);
	assert_int_equal(q2q_conn_call(s.conn, &call, 2, 0, s.now_us), 0);
	assert_true(script_next_box(&s, &box)); /* secure */
	/* A question of the server in between is answered inside TLS as well. */
	put_command(&box, "source-ip", "77", NULL);
	script_send_box(&s, &box);
	nothing_is_left(&s);
	amp_box_init(&box);
	amp_put_text(&box, "_answer", "1");
	script_send_box(&s, &box);
	script_start_tls(&s);
	assert_int_equal(s.n_events[Q2Q_EVENT_SECURED], 1);
	assert_true(script_next_box(&s, &box));
	assert_true(amp_get(&box, "_command", &value));
	assert_true(amp_value_is(&value, "sign"));
	assert_true(script_next_box(&s, &box));
	assert_true(amp_get(&box, "_answer", &value));
	assert_true(amp_value_is(&value, "77"));
	nothing_is_left(&s);
	script_fini(&s);
}

static void an_answer_in_clear_to_what_was_held_back_is_an_attack(void **state)
{
	struct q2q_call call = { .command = Q2Q_INBOUND };
	struct q2q_secure secure;
	struct amp_box box;
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	secure = secure_request(&s, accept_all);
	assert_int_equal(q2q_conn_secure(s.conn, &secure, 1, s.now_us), 0);
	call.inbound.from = secure.from;
	call.inbound.to = secure.from;
	call.inbound.protocol = amp_text("q2q-tun");
	assert_int_equal(q2q_conn_call(s.conn, &call, 2, 0, s.now_us), 0);
	amp_box_init(&box);
	amp_put_text(&box, "_answer", "2");
	amp_put_text(&box, "listeners", "");
	script_send_box(&s, &box);
	is_over(&s, -EPROTO);
	assert_int_equal(s.n_events[Q2Q_EVENT_ANSWER], 0);
	script_fini(&s);
}

static void boxes_behind_the_last_clear_one_are_never_read(void **state)
{
	static const char secure[] = "\0\4From\0\0\0\4_ask\0\0011\0\10_command\0\6secure"
				     "\0\11authorize\0\5False\0\2to\0\13example.com\0";
	static const char smuggled[] = "\0\4_ask\0\0012\0\10_command\0\10identify"
				       "\0\7subject\0\13example.com\0";
	static const char answer[] = "\0\7_answer\0\0011\0";
	uint8_t both[sizeof(secure) + sizeof(smuggled)];
	struct q2q_secure request;
	struct amp_box box;
	struct script s;

	(void)state;
	/* To a server: in the segment of `secure`. */
	memcpy(both, secure, sizeof(secure));
	memcpy(both + sizeof(secure), smuggled, sizeof(smuggled));
	start(&s, Q2Q_SERVER, "nobody", NULL);
	script_send(&s, both, sizeof(both));
	assert_int_equal(s.n_events[Q2Q_EVENT_CALL], 1);
	assert_int_equal(q2q_conn_accept_secure(s.conn, script_take_call(&s, Q2Q_SECURE),
						s.our_context, NULL, NULL, s.now_us),
			 0);
	is_over(&s, -EPROTO);
	assert_int_equal(s.n_events[Q2Q_EVENT_CALL], 1);
	script_fini(&s);

	/* To a client: in the segment of the answer. */
	start(&s, Q2Q_CLIENT, "alice", NULL);
	request = secure_request(&s, accept_all);
	assert_int_equal(q2q_conn_secure(s.conn, &request, 1, s.now_us), 0);
	assert_true(script_next_box(&s, &box));
	memcpy(both, answer, sizeof(answer));
	memcpy(both + sizeof(answer), smuggled, sizeof(smuggled));
	script_send(&s, both, sizeof(answer) + sizeof(smuggled));
	is_over(&s, -EPROTO);
	assert_int_equal(s.n_events[Q2Q_EVENT_CALL], 0);
	assert_int_equal(s.last[Q2Q_EVENT_ERROR].command, Q2Q_SECURE);
	script_fini(&s);
}

static void a_refused_secure_ends_the_connection_and_leaks_nothing(void **state)
{
	struct q2q_call call = { .command = Q2Q_SIGN,
				 .sign = { .certificate_request = amp_text("csr"),
					   .password = amp_text("secret") } };
	struct q2q_secure secure;
	struct amp_box box;
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	secure = secure_request(&s, accept_all);
	assert_int_equal(q2q_conn_secure(s.conn, &secure, 41, s.now_us), 0);
	assert_int_equal(q2q_conn_call(s.conn, &call, 42, 0, s.now_us), 0);
	assert_true(script_next_box(&s, &box));
	amp_box_init(&box);
	amp_put_text(&box, "_error", "1");
	amp_put_text(&box, "_error_code", "UNKNOWN");
	amp_put_text(&box, "_error_description", "no");
	script_send_box(&s, &box);
	is_over(&s, -ECONNREFUSED);
	assert_int_equal(s.n_events[Q2Q_EVENT_ERROR], 2); /* secure and sign */
	assert_int_equal(buffer_used(&s.got), 0);
	script_fini(&s);
}

static void certificates_of_the_wrong_name_or_key_end_the_handshake(void **state)
{
	struct script s;

	(void)state;
	/* A client that is shown another domain's certificate. */
	script_init(&s, Q2Q_CLIENT, NULL, fx.bob, fx.server);
	script_secure(&s, "bob@example.org", "example.org", true, false);
	is_over(&s, -EPROTO);
	assert_int_equal(s.last[Q2Q_EVENT_CLOSED].closed.verify, CRYPTO_VERIFY_WRONG_NAME);
	assert_int_equal(s.n_verified, 0);
	script_fini(&s);

	/* The right name, but not the pinned key: the program says so. */
	script_init(&s, Q2Q_CLIENT, NULL, fx.alice, fx.server);
	s.verify_result = CRYPTO_VERIFY_KEY_CHANGED;
	script_secure(&s, "alice@example.com", "example.com", true, false);
	is_over(&s, -EPROTO);
	assert_int_equal(s.last[Q2Q_EVENT_CLOSED].closed.verify, CRYPTO_VERIFY_KEY_CHANGED);
	assert_int_equal(s.n_verified, 1);
	script_fini(&s);

	/* A server to which alice claims to be bob. */
	script_init(&s, Q2Q_SERVER, NULL, fx.server, fx.alice);
	script_secure(&s, "bob@example.org", "example.com", true, false);
	is_over(&s, -EPROTO);
	assert_int_equal(s.last[Q2Q_EVENT_CLOSED].closed.verify, CRYPTO_VERIFY_WRONG_ISSUER);
	assert_int_equal(s.n_verified, 0);
	script_fini(&s);

	script_init(&s, Q2Q_SERVER, NULL, fx.server, fx.alice);
	script_secure(&s, "carol@example.com", "example.com", true, false);
	is_over(&s, -EPROTO);
	assert_int_equal(s.last[Q2Q_EVENT_CLOSED].closed.verify, CRYPTO_VERIFY_WRONG_NAME);
	script_fini(&s);
}

/* ---- time and budgets
 * -------------------------------------------------------------------------------- */

static void an_idle_peer_is_asked_and_a_silent_one_given_up(void **state)
{
	struct q2q_conn_stats stats;
	struct amp_value ask;
	struct amp_box box;
	struct script s;
	uint64_t began_us;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, false);
	began_us = s.now_us;
	assert_true(q2q_conn_deadline_us(s.conn) == began_us + 30 * US_PER_S);
	s.now_us = q2q_conn_deadline_us(s.conn);
	q2q_conn_tick(s.conn, s.now_us);
	assert_true(script_next_box(&s, &box));
	assert_true(amp_get(&box, "_ask", &ask));
	s.now_us += 20000;
	amp_box_init(&box);
	amp_put_value(&box, "_answer", &ask);
	amp_put_text(&box, "ip", "192.0.2.1");
	script_send_box(&s, &box);
	q2q_conn_stats(s.conn, &stats);
	assert_int_equal(stats.keepalive_rtt_us, 20000);
	assert_true(q2q_conn_deadline_us(s.conn) > s.now_us + 29 * US_PER_S);

	s.now_us = q2q_conn_deadline_us(s.conn);
	q2q_conn_tick(s.conn, s.now_us);
	assert_true(script_next_box(&s, &box));
	assert_true(q2q_conn_deadline_us(s.conn) == s.now_us + 15 * US_PER_S);
	s.now_us = q2q_conn_deadline_us(s.conn);
	q2q_conn_tick(s.conn, s.now_us);
	is_over(&s, -ETIMEDOUT);
	assert_true(q2q_conn_deadline_us(s.conn) == NEVER_US);
	script_fini(&s);
}

static void setup_and_handshake_have_their_time(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_SERVER, "nobody", NULL);
	s.now_us = q2q_conn_deadline_us(s.conn);
	assert_true(s.now_us < 30 * US_PER_S);
	q2q_conn_tick(s.conn, s.now_us);
	is_over(&s, -ETIMEDOUT);
	script_fini(&s);

	start(&s, Q2Q_CLIENT, "alice", NULL);
	{
		struct q2q_secure secure = secure_request(&s, accept_all);
		struct amp_box box;

		assert_int_equal(q2q_conn_secure(s.conn, &secure, 1, s.now_us), 0);
		amp_box_init(&box);
		amp_put_text(&box, "_answer", "1");
		script_send_box(&s, &box);
	}
	s.now_us = q2q_conn_deadline_us(s.conn);
	q2q_conn_tick(s.conn, s.now_us);
	is_over(&s, -ETIMEDOUT);
	assert_int_equal(s.last[Q2Q_EVENT_ERROR].command, Q2Q_SECURE);
	script_fini(&s);
}

static void a_call_without_an_answer_times_out_and_a_late_answer_is_nothing(void **state)
{
	struct q2q_call call = { .command = Q2Q_IDENTIFY };
	const struct q2q_conn_config config = { .keepalive_us = NEVER_US };
	struct q2q_conn_stats stats;
	struct amp_box box;
	struct script s;

	(void)state;
	script_init(&s, Q2Q_CLIENT, &config, fx.alice, fx.server);
	assert_int_equal(q2q_domain_parse("example.com", &call.identify.subject), 0);
	assert_int_equal(q2q_conn_call(s.conn, &call, 9, 5 * US_PER_S, s.now_us), 0);
	assert_true(q2q_conn_deadline_us(s.conn) == s.now_us + 5 * US_PER_S);
	s.now_us += 5 * US_PER_S;
	q2q_conn_tick(s.conn, s.now_us);
	script_pump(&s);
	assert_int_equal(s.n_events[Q2Q_EVENT_ERROR], 1);
	assert_int_equal(s.last[Q2Q_EVENT_ERROR].failure.error, Q2Q_ERROR_TIMED_OUT);
	assert_int_equal(s.last[Q2Q_EVENT_ERROR].cookie, 9);
	amp_box_init(&box);
	amp_put_text(&box, "_answer", "1");
	amp_put_text(&box, "certificate", "der");
	script_send_box(&s, &box);
	assert_int_equal(s.n_events[Q2Q_EVENT_ANSWER], 0);
	q2q_conn_stats(s.conn, &stats);
	assert_int_equal(stats.strange_answers, 1);
	assert_false(q2q_conn_is_over(s.conn));
	script_fini(&s);
}

static void every_call_ends_when_the_connection_does(void **state)
{
	struct q2q_call call = { .command = Q2Q_SOURCE_IP };
	const struct amp_value identifier = amp_text("x");
	int64_t id;
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, false);
	for (uint64_t i = 0; i < 5; i++)
		assert_int_equal(q2q_conn_call(s.conn, &call, i, 0, s.now_us), 0);
	assert_int_equal(q2q_conn_virtual_open(s.conn, &identifier, 77, s.now_us, &id), 0);
	crypto_tls_shutdown(s.peer_tls);
	script_pump(&s);
	is_over(&s, 0);
	assert_int_equal(s.n_events[Q2Q_EVENT_ERROR], 5);
	assert_int_equal(s.last[Q2Q_EVENT_ERROR].failure.error, Q2Q_ERROR_CONNECTION_LOST);
	assert_int_equal(s.n_events[Q2Q_EVENT_VIRTUAL_CLOSED], 1);
	assert_int_equal(s.last[Q2Q_EVENT_VIRTUAL_CLOSED].cookie, 77);
	assert_int_equal(q2q_conn_call(s.conn, &call, 1, 0, s.now_us), -EPIPE);
	script_fini(&s);
}

static void the_end_of_the_network_is_told_apart_from_a_goodbye(void **state)
{
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	q2q_conn_input_end(s.conn, s.now_us);
	is_over(&s, 0);
	script_fini(&s);

	start(&s, Q2Q_CLIENT, "alice", NULL);
	assert_int_equal(q2q_conn_input(s.conn, "\0\1k", 3, s.now_us), 0);
	q2q_conn_input_end(s.conn, s.now_us);
	is_over(&s, -ECONNRESET);
	script_fini(&s);

	/* Inside TLS nobody but the peer can say goodbye. */
	start(&s, Q2Q_CLIENT, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, false);
	q2q_conn_input_end(s.conn, s.now_us);
	script_pump(&s);
	assert_true(q2q_conn_is_over(s.conn));
	assert_int_not_equal(s.last[Q2Q_EVENT_CLOSED].closed.error, 0);
	script_fini(&s);
}

static void questions_of_the_peer_are_bounded(void **state)
{
	const struct q2q_conn_config config = { .pending_max = 2 };
	struct amp_value value;
	struct amp_box box;
	struct script s;

	(void)state;
	script_init(&s, Q2Q_SERVER, &config, fx.server, fx.nobody);
	for (int i = 0; i < 3; i++) {
		put_command(&box, "identify", "5", NULL);
		amp_put_text(&box, "subject", "example.com");
		script_send_box(&s, &box);
	}
	assert_int_equal(s.n_events[Q2Q_EVENT_CALL], 2);
	assert_true(script_next_box(&s, &box));
	assert_true(amp_get(&box, "_error_code", &value));
	assert_true(amp_value_is(&value, "UNKNOWN"));
	nothing_is_left(&s);
	/* One that is answered makes room for another. */
	{
		const struct q2q_answer answer = { .command = Q2Q_IDENTIFY,
						   .identify = { amp_text("der") } };
		const uint64_t ask = script_take_call(&s, Q2Q_IDENTIFY);

		assert_int_equal(q2q_conn_answer(s.conn, ask, &answer, s.now_us), 0);
		assert_int_equal(q2q_conn_answer(s.conn, ask, &answer, s.now_us), -ENOENT);
		assert_int_equal(
			q2q_conn_answer(s.conn, script_take_call(&s, Q2Q_IDENTIFY), NULL, s.now_us),
			-EINVAL);
	}
	script_fini(&s);
}

static void our_questions_are_bounded_and_room_is_told(void **state)
{
	const struct q2q_conn_config config = { .asks_max = 2 };
	const struct q2q_call call = { .command = Q2Q_SOURCE_IP };
	struct amp_box box;
	struct script s;

	(void)state;
	script_init(&s, Q2Q_CLIENT, &config, fx.alice, fx.server);
	assert_int_equal(q2q_conn_call(s.conn, &call, 1, 0, s.now_us), 0);
	assert_int_equal(q2q_conn_call(s.conn, &call, 2, 0, s.now_us), 0);
	assert_int_equal(q2q_conn_call(s.conn, &call, 3, 0, s.now_us), -ENOBUFS);
	script_pump(&s);
	assert_int_equal(s.n_events[Q2Q_EVENT_WRITABLE], 0);
	amp_box_init(&box);
	amp_put_text(&box, "_answer", "1");
	amp_put_text(&box, "ip", "192.0.2.1");
	script_send_box(&s, &box);
	assert_int_equal(s.n_events[Q2Q_EVENT_WRITABLE], 1);
	assert_int_equal(q2q_conn_call(s.conn, &call, 3, 0, s.now_us), 0);
	script_fini(&s);
}

static void relayed_bytes_are_dropped_before_they_pile_up(void **state)
{
	static const uint8_t body[50000];
	struct q2q_call call = { .command = Q2Q_RELAY,
				 .signal = { .id = amp_text("1"),
					     .body = amp_value(body, sizeof(body)) } };
	struct q2q_call hello = { .command = Q2Q_SIGNAL,
				  .signal = { .id = amp_text("1"), .body = amp_text("b") } };
	struct q2q_conn_stats stats;
	unsigned n_taken = 0, n_boxes = 0;
	struct amp_box box;
	struct script s;

	(void)state;
	start(&s, Q2Q_CLIENT, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, false);
	/* Never to a stock peer. */
	assert_int_equal(q2q_conn_tell(s.conn, &call, s.now_us), -EOPNOTSUPP);
	put_command(&box, "q2q-tun-gone", NULL, "1");
	script_send_box(&s, &box);
	assert_true(q2q_conn_peer_is_q2q_tun(s.conn));
	assert_int_equal(s.n_events[Q2Q_EVENT_CALL], 1);

	while (q2q_conn_tell(s.conn, &call, s.now_us) == 0)
		n_taken++;
	assert_true(n_taken >= 5 && n_taken <= 7);
	/* What matters more still fits. */
	assert_int_equal(q2q_conn_tell(s.conn, &hello, s.now_us), 0);
	assert_int_equal(q2q_conn_tell(s.conn, &call, s.now_us), Q2Q_BLOCKED);
	q2q_conn_stats(s.conn, &stats);
	assert_int_equal(stats.told_dropped, 2);
	while (script_next_box(&s, &box))
		n_boxes++;
	assert_int_equal(n_boxes, n_taken + 1);
	/* There is room again, and the deadline makes sure that somebody looks. */
	assert_int_equal(s.n_events[Q2Q_EVENT_WRITABLE], 1);
	assert_int_equal(q2q_conn_tell(s.conn, &call, s.now_us), 0);
	script_fini(&s);
}

static void a_peer_that_asks_and_never_reads_is_given_up(void **state)
{
	struct q2q_conn_config config = { .output_max_bytes = 4096 };
	struct q2q_event event;
	struct amp_box box;
	struct buffer bytes;
	struct q2q_conn *conn;

	(void)state;
	config.role = Q2Q_SERVER;
	assert_int_equal(ip_parse("192.0.2.1", &config.peer_ip), 0);
	assert_int_equal(q2q_conn_new(&config, 0, &conn), 0);
	put_command(&box, "source-ip", "1", NULL);
	buffer_init(&bytes, 1024, false);
	assert_int_equal(amp_box_write(&box, &bytes), 0);
	for (int i = 0; i < 1000 && !q2q_conn_is_over(conn); i++) {
		assert_int_equal(q2q_conn_input(conn, buffer_peek(&bytes), buffer_used(&bytes), 0),
				 0);
		while (q2q_conn_next_event(conn, &event, 0))
			;
	}
	assert_true(q2q_conn_is_over(conn));
	assert_int_equal(event.kind, Q2Q_EVENT_CLOSED);
	assert_int_equal(event.closed.error, -ENOBUFS);
	assert_true(q2q_conn_output_waiting(conn) <= 4096);
	buffer_fini(&bytes);
	q2q_conn_free(conn);
}

static void a_question_numbered_by_something_long_is_refused(void **state)
{
	char ask[66] = { 0 };
	struct amp_box box;
	struct script s;

	(void)state;
	memset(ask, 'x', 64);
	start(&s, Q2Q_SERVER, "nobody", NULL);
	put_command(&box, "bogus", ask, NULL);
	script_send_box(&s, &box);
	assert_true(script_next_box(&s, &box));
	ask[64] = 'x';
	put_command(&box, "bogus", ask, NULL);
	script_send_box(&s, &box);
	is_over(&s, -EBADMSG);
	script_fini(&s);
}

/* ---- damage
 * ------------------------------------------------------------------------------------------------
 */

/* Whatever comes in clear, the connection answers or ends; it never crashes, and what it hands out
 * stays inside its bounds. */
static void survive(const uint8_t *bytes, size_t n_bytes, enum q2q_role role)
{
	const struct q2q_conn_config config = { .role = role };
	struct q2q_event event;
	struct q2q_conn *conn;
	uint8_t out[1024];

	assert_int_equal(q2q_conn_new(&config, 0, &conn), 0);
	assert_int_equal(q2q_conn_input(conn, bytes, n_bytes, 0), 0);
	while (q2q_conn_next_event(conn, &event, 0))
		if (event.kind == Q2Q_EVENT_CALL && event.ask)
			(void)!q2q_conn_fail(conn, event.ask, Q2Q_ERROR_NOT_FOUND, "x", 0);
	while (q2q_conn_output(conn, out, sizeof(out), 0) > 0)
		;
	q2q_conn_input_end(conn, 1);
	while (q2q_conn_next_event(conn, &event, 1))
		;
	assert_true(q2q_conn_is_over(conn));
	assert_int_equal(event.kind, Q2Q_EVENT_CLOSED);
	q2q_conn_free(conn);
}

static void cut_and_flip(void *user, json_t *step, const uint8_t *bytes, size_t n_bytes)
{
	unsigned *n = user;
	uint8_t *copy = malloc(n_bytes);

	(void)step;
	assert_non_null(copy);
	for (size_t at = 0; at < n_bytes; at++) {
		survive(bytes, at, Q2Q_SERVER);
		memcpy(copy, bytes, n_bytes);
		copy[at] ^= (uint8_t)(1u << at % 8);
		survive(copy, n_bytes, (*n)++ % 2 ? Q2Q_SERVER : Q2Q_CLIENT);
	}
	free(copy);
}

static void a_connection_survives_every_message_cut_and_flipped(void **state)
{
	unsigned n = 0;

	(void)state;
	for (size_t i = 0; i < 16; i++) {
		json_t *document = vector_load(vector_files[i]);

		vector_each_step(document, cut_and_flip, &n);
		json_decref(document);
	}
	assert_true(n > 10000);
}

static void a_flipped_byte_inside_tls_ends_the_connection(void **state)
{
	uint8_t bytes[16384];
	struct amp_box box;
	struct buffer plain;
	struct script s;
	size_t n;

	(void)state;
	start(&s, Q2Q_SERVER, "alice", NULL);
	script_secure(&s, "alice@example.com", "example.com", true, false);
	put_command(&box, "listen", "2", NULL);
	buffer_init(&plain, 1024, false);
	assert_int_equal(amp_box_write(&box, &plain), 0);
	assert_int_equal(crypto_tls_write(s.peer_tls, buffer_peek(&plain), buffer_used(&plain), &n),
			 0);
	n = crypto_tls_output(s.peer_tls, bytes, sizeof(bytes));
	assert_true(n > 20);
	bytes[n - 1] ^= 1;
	assert_int_equal(q2q_conn_input(s.conn, bytes, n, s.now_us), 0);
	is_over(&s, -EPROTO);
	buffer_fini(&plain);
	script_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(register_as_client),
		cmocka_unit_test(register_as_server),
		cmocka_unit_test(add_user_inside_a_stream_as_server),
		cmocka_unit_test(add_user_inside_a_stream_as_client),
		cmocka_unit_test(sign_as_client),
		cmocka_unit_test(sign_as_server),
		cmocka_unit_test(secure_with_authorization_and_the_fetch_before_it),
		cmocka_unit_test(listen_and_be_found),
		cmocka_unit_test(retrieve_a_connection_and_use_it),
		cmocka_unit_test(choke_unchoke_and_close),
		cmocka_unit_test(a_connection_opened_by_the_server),
		cmocka_unit_test(a_listener_behind_a_nat),
		cmocka_unit_test(stock_certificates_do_as_well),
		cmocka_unit_test(the_recorded_edge_cases_end_as_they_should),
		cmocka_unit_test(what_nobody_asked_for_is_counted_and_survived),
		cmocka_unit_test(a_certificate_of_our_own_domain_speaks_for_nobody_else),
		cmocka_unit_test(crossed_closes_end_one_stream_and_nothing_else),
		cmocka_unit_test(one_bad_stream_number_costs_nothing_else),
		cmocka_unit_test(choking_stops_us_and_unchoking_is_told),
		cmocka_unit_test(streams_are_counted_and_unused_ones_expire),
		cmocka_unit_test(a_stream_that_talks_nonsense_is_closed_alone),
		cmocka_unit_test(
			a_server_closes_by_an_error_where_the_number_has_the_wrong_sign_or_is_taken),
		cmocka_unit_test(relayed_answers_are_what_a_stock_server_makes_of_them),
		cmocka_unit_test(a_client_believes_its_own_server_and_no_foreign_one),
		cmocka_unit_test(a_server_serves_its_own_domain_alone),
		cmocka_unit_test(wrong_password_is_said_to_those_who_understand_it),
		cmocka_unit_test(errors_that_a_command_does_not_declare_are_other_errors),
		cmocka_unit_test(an_orderly_end_says_goodbye_inside_tls),
		cmocka_unit_test(a_client_offers_what_a_server_offers_to_nobody),
		cmocka_unit_test(nothing_secret_leaves_in_clear),
		cmocka_unit_test(after_secure_a_client_holds_everything_back),
		cmocka_unit_test(an_answer_in_clear_to_what_was_held_back_is_an_attack),
		cmocka_unit_test(boxes_behind_the_last_clear_one_are_never_read),
		cmocka_unit_test(a_refused_secure_ends_the_connection_and_leaks_nothing),
		cmocka_unit_test(certificates_of_the_wrong_name_or_key_end_the_handshake),
		cmocka_unit_test(an_idle_peer_is_asked_and_a_silent_one_given_up),
		cmocka_unit_test(setup_and_handshake_have_their_time),
		cmocka_unit_test(a_call_without_an_answer_times_out_and_a_late_answer_is_nothing),
		cmocka_unit_test(every_call_ends_when_the_connection_does),
		cmocka_unit_test(the_end_of_the_network_is_told_apart_from_a_goodbye),
		cmocka_unit_test(questions_of_the_peer_are_bounded),
		cmocka_unit_test(our_questions_are_bounded_and_room_is_told),
		cmocka_unit_test(relayed_bytes_are_dropped_before_they_pile_up),
		cmocka_unit_test(a_peer_that_asks_and_never_reads_is_given_up),
		cmocka_unit_test(a_question_numbered_by_something_long_is_refused),
		cmocka_unit_test(a_connection_survives_every_message_cut_and_flipped),
		cmocka_unit_test(a_flipped_byte_inside_tls_ends_the_connection),
	};

	return cmocka_run_group_tests_name("q2q connection", tests, setup, teardown);
}
