#include "q2q_script.h"
#include "unit.h"

#include <stdio.h>

#define NOW_S 1795420800 /* 2026-11-23 */

/* ---- certificates --------------------------------------------------------------------- */

static struct crypto_cert *issue_user(const struct script_domain *d, const char *user)
{
	struct crypto_cert *cert;
	struct crypto_csr *csr;
	struct buffer der;

	buffer_init(&der, 8192, false);
	assert_int_equal(crypto_csr_make(d->user_key, user, &der), 0);
	assert_int_equal(crypto_csr_from_der(buffer_peek(&der), buffer_used(&der), &csr), 0);
	assert_int_equal(crypto_cert_issue(d->cert, d->key, csr, user, NOW_S, 365, &cert), 0);
	crypto_csr_free(csr);
	buffer_fini(&der);
	return cert;
}

void script_domain_init(struct script_domain *d, const char *domain, const char *user,
			enum crypto_key_kind kind)
{
	assert_int_equal(crypto_key_generate(kind, &d->key), 0);
	assert_int_equal(crypto_key_generate(kind, &d->user_key), 0);
	assert_int_equal(crypto_cert_make_domain(d->key, domain, NOW_S, 365, &d->cert), 0);
	d->user_cert = issue_user(d, user);
}

void script_domain_fini(struct script_domain *d)
{
	crypto_key_free(d->key);
	crypto_key_free(d->user_key);
	crypto_cert_unref(d->cert);
	crypto_cert_unref(d->user_cert);
}

struct crypto_tls_context *script_context(const struct crypto_key *key, struct crypto_cert *cert)
{
	const struct crypto_tls_config config = { .cert = cert, .key = key };
	struct crypto_tls_context *context;

	assert_int_equal(crypto_tls_context_new(&config, &context), 0);
	return context;
}

/* ---- life --------------------------------------------------------------------------------- */

void script_init(struct script *s, enum q2q_role role, const struct q2q_conn_config *config,
		 struct crypto_tls_context *our_context, struct crypto_tls_context *peer_context)
{
	struct q2q_conn_config c = { 0 };

	memset(s, 0, sizeof(*s));
	if (config)
		c = *config;
	c.role = role;
	s->role = role;
	s->now_us = 1000000;
	s->our_context = our_context;
	s->peer_context = peer_context;
	buffer_init(&s->got, 4u << 20, false);
	assert_int_equal(q2q_conn_new(&c, s->now_us, &s->conn), 0);
}

void script_fini(struct script *s)
{
	q2q_conn_free(s->conn);
	crypto_tls_free(s->peer_tls);
	buffer_fini(&s->got);
}

/* ---- events -----------------------------------------------------------------------------------
 */

static void note_event(struct script *s, const struct q2q_event *event)
{
	s->last[event->kind] = *event;
	s->n_events[event->kind]++;
	if (event->kind == Q2Q_EVENT_CALL && event->ask != 0) {
		struct script_call *call = &s->calls[s->n_calls++];

		assert_true(s->n_calls <= SCRIPT_CALLS_MAX);
		call->command = event->command;
		call->handle = event->ask;
		call->virtual_id = event->virtual_id;
		snprintf(call->ask, sizeof(call->ask), "%s", s->step_ask);
	}
	if (event->kind == Q2Q_EVENT_CALL && event->virtual_id != 0)
		s->virtual_id = event->virtual_id;
	if (event->kind == Q2Q_EVENT_VIRTUAL_DATA) {
		const size_t n = min_size(event->data.n_bytes, sizeof(s->data) - s->data_bytes);

		memcpy(s->data + s->data_bytes, event->data.data, n);
		s->data_bytes += n;
	}
}

struct script_call *script_find_call(struct script *s, enum q2q_command command)
{
	for (size_t i = 0; i < s->n_calls; i++)
		if (s->calls[i].handle != 0 && s->calls[i].command == command)
			return &s->calls[i];
	return NULL;
}

uint64_t script_take_call(struct script *s, enum q2q_command command)
{
	struct script_call *call = script_find_call(s, command);
	uint64_t handle;

	if (!call)
		fail_msg("the peer's %s did not arrive", q2q_command_name(command));
	handle = call->handle;
	call->handle = 0;
	return handle;
}

/* ---- bytes
 * ---------------------------------------------------------------------------------------- */

static bool move_out(struct script *s)
{
	uint8_t bytes[16384];
	const size_t n = q2q_conn_output(s->conn, bytes, sizeof(bytes), s->now_us);

	if (n == 0)
		return false;
	if (s->peer_tls)
		(void)!crypto_tls_input(s->peer_tls, bytes, n);
	else
		assert_int_equal(buffer_append(&s->got, bytes, n), 0);
	return true;
}

static void read_tls(struct script *s)
{
	uint8_t plain[16384];
	size_t n;

	while (crypto_tls_read(s->peer_tls, plain, sizeof(plain), &n) == 0)
		assert_int_equal(buffer_append(&s->got, plain, n), 0);
}

static bool move_in(struct script *s)
{
	uint8_t bytes[16384];
	size_t n;

	if (!s->peer_tls)
		return false;
	read_tls(s);
	n = crypto_tls_output(s->peer_tls, bytes, sizeof(bytes));
	if (n > 0)
		assert_int_equal(q2q_conn_input(s->conn, bytes, n, s->now_us), 0);
	return n > 0;
}

static bool pull_events(struct script *s)
{
	struct q2q_event event;
	bool any = false;

	while (q2q_conn_next_event(s->conn, &event, s->now_us)) {
		note_event(s, &event);
		any = true;
	}
	return any;
}

void script_pump(struct script *s)
{
	bool moved;

	do {
		moved = pull_events(s);
		moved |= move_out(s);
		moved |= move_in(s);
	} while (moved);
}

void script_send(struct script *s, const void *data, size_t n_bytes)
{
	const uint8_t *at = data;

	if (!s->peer_tls) {
		assert_int_equal(q2q_conn_input(s->conn, data, n_bytes, s->now_us), 0);
	} else {
		while (n_bytes > 0) {
			size_t n;

			assert_int_equal(crypto_tls_write(s->peer_tls, at, n_bytes, &n), 0);
			at += n;
			n_bytes -= n;
			script_pump(s);
		}
	}
	script_pump(s);
}

void script_send_box(struct script *s, const struct amp_box *box)
{
	struct amp_value ask = amp_text("");
	struct buffer bytes;

	(void)amp_get(box, "_ask", &ask);
	snprintf(s->step_ask, sizeof(s->step_ask), "%.*s", (int)ask.n_bytes,
		 (const char *)ask.data);
	buffer_init(&bytes, AMP_BOX_MAX_BYTES, false);
	assert_int_equal(amp_box_write(box, &bytes), 0);
	script_send(s, buffer_peek(&bytes), buffer_used(&bytes));
	buffer_fini(&bytes);
}

static int accept_peer(void *user, struct crypto_cert *cert)
{
	(void)user;
	(void)cert;
	return 0;
}

static int verify_peer(void *user, struct crypto_cert *cert)
{
	struct script *s = user;

	assert_non_null(cert);
	s->n_verified++;
	return s->verify_result;
}

void script_start_tls(struct script *s)
{
	const bool server = s->role == Q2Q_CLIENT; /* of the peer */
	const struct crypto_tls_policy policy = {
		.role = server ? CRYPTO_TLS_SERVER : CRYPTO_TLS_CLIENT,
		.peer = server ? CRYPTO_TLS_PEER_ASK : CRYPTO_TLS_PEER_REQUIRE,
		.verify = accept_peer,
	};

	script_pump(s);
	assert_int_equal(crypto_tls_new(s->peer_context, &policy, &s->peer_tls), 0);
	if (buffer_used(&s->got) > 0)
		(void)!crypto_tls_input(s->peer_tls, buffer_peek(&s->got), buffer_used(&s->got));
	buffer_consume(&s->got, buffer_used(&s->got));
	script_pump(s);
}

void script_expect(struct script *s, const void *data, size_t n_bytes)
{
	script_pump(s);
	if (buffer_used(&s->got) < n_bytes)
		fail_msg("%zu bytes were to be sent, %zu came", n_bytes, buffer_used(&s->got));
	assert_memory_equal(buffer_peek(&s->got), data, n_bytes);
	buffer_consume(&s->got, n_bytes);
}

bool script_next_box(struct script *s, struct amp_box *ret_box)
{
	static uint8_t bytes[AMP_BOX_MAX_BYTES];
	size_t used;

	script_pump(s);
	if (amp_box_parse(buffer_peek(&s->got), buffer_used(&s->got), ret_box, &used) != 0)
		return false;
	memcpy(bytes, buffer_peek(&s->got), used);
	assert_int_equal(amp_box_parse(bytes, used, ret_box, &used), 0);
	buffer_consume(&s->got, used);
	return true;
}

/* ---- our side of a recorded step
 * -------------------------------------------------------------------- */

static bool value_of(const struct amp_box *box, const char *key, char *out, size_t out_bytes)
{
	struct amp_value value;

	if (!amp_get(box, key, &value))
		return false;
	snprintf(out, out_bytes, "%.*s", (int)value.n_bytes, (const char *)value.data);
	return true;
}

static struct script_call *call_of(struct script *s, const char *ask, bool inner)
{
	for (size_t i = 0; i < s->n_calls; i++)
		if (s->calls[i].handle != 0 && (s->calls[i].virtual_id != 0) == inner &&
		    strcmp(s->calls[i].ask, ask) == 0)
			return &s->calls[i];
	return NULL;
}

static void do_answer(struct script *s, struct script_call *call, const struct amp_box *box)
{
	const uint64_t handle = call->handle;
	struct q2q_answer answer;
	int r;

	call->handle = 0;
	if (call->command == Q2Q_SECURE) {
		r = q2q_conn_accept_secure(s->conn, handle, s->our_context, verify_peer, s,
					   s->now_us);
	} else if (call->command == Q2Q_RETRIEVE_CONNECTION) {
		r = q2q_conn_accept_retrieve(s->conn, handle, s->inner, 0, s->now_us);
	} else {
		assert_int_equal(q2q_answer_decode(call->command, box, &answer), 0);
		r = q2q_conn_answer(s->conn, handle,
				    call->command == Q2Q_BIND_UDP || call->command == Q2Q_ADD_USER
					    ? NULL
					    : &answer,
				    s->now_us);
	}
	assert_int_equal(r, 0);
}

static void do_fail(struct script *s, struct script_call *call, const struct amp_box *box)
{
	const uint64_t handle = call->handle;
	char code[64], text[256];
	enum q2q_error error;

	assert_true(value_of(box, "_error_code", code, sizeof(code)));
	assert_true(value_of(box, "_error_description", text, sizeof(text)));
	for (error = 0; error < Q2Q_ERROR_OTHER; error++)
		if (strcmp(q2q_error_name(error), code) == 0)
			break;
	call->handle = 0;
	assert_int_equal(q2q_conn_fail(s->conn, handle, error, text, s->now_us), 0);
}

static void do_secure(struct script *s, const struct q2q_call *call)
{
	const struct q2q_secure secure = { .from = call->secure.from,
					   .to = call->secure.to,
					   .authorize = call->secure.authorize,
					   .tls = s->our_context,
					   .verify = verify_peer,
					   .user = s };

	assert_int_equal(q2q_conn_secure(s->conn, &secure, 100, s->now_us), 0);
}

/* The identifier that the next write of the script carries, and what comes after it. */
static void do_virtual(struct script *s, json_t *steps, size_t at)
{
	struct q2q_call add_user = { .command = Q2Q_ADD_USER };
	struct amp_value identifier = { NULL, 0 };
	bool admin = false;
	json_t *step;
	size_t i;

	for (i = at; (step = json_array_get(steps, i)) != NULL; i++) {
		json_t *body = json_object_get(json_object_get(step, "decoded"), "body");
		json_t *box = json_array_get(json_object_get(body, "amp_boxes"), 0);
		const char *id = json_string_value(json_object_get(box, "identifier"));

		if (id)
			identifier = amp_text(id);
		if (json_object_get(box, "name")) {
			admin = true;
			add_user.add_user.name =
				amp_text(json_string_value(json_object_get(box, "name")));
			add_user.add_user.password =
				amp_text(json_string_value(json_object_get(box, "password")));
		}
	}
	assert_non_null(identifier.data);
	if (admin)
		assert_int_equal(q2q_conn_add_user(s->conn, &identifier, &add_user, 200, s->now_us),
				 0);
	else
		assert_int_equal(
			q2q_conn_virtual_open(s->conn, &identifier, 201, s->now_us, &s->virtual_id),
			0);
}

/* A write: an answer to a question from inside, bytes, or what the connection sends by itself. */
static void do_write(struct script *s, const struct q2q_call *call)
{
	struct amp_box inner;
	struct script_call *waiting;
	char ask[64];
	size_t used;

	if (amp_box_parse(call->write.body.data, call->write.body.n_bytes, &inner, &used) != 0 ||
	    amp_box_shape(&inner) == AMP_SHAPE_NONE) {
		assert_int_equal(q2q_conn_virtual_write(s->conn, call->write.id,
							call->write.body.data,
							call->write.body.n_bytes, s->now_us),
				 0);
		return;
	}
	if (value_of(&inner, "_answer", ask, sizeof(ask))) {
		waiting = call_of(s, s->step_ask, true);
		assert_non_null(waiting);
		do_answer(s, waiting, &inner);
	} else if (value_of(&inner, "_error", ask, sizeof(ask))) {
		waiting = call_of(s, s->step_ask, true);
		assert_non_null(waiting);
		do_fail(s, waiting, &inner);
	}
}

static void do_command(struct script *s, const struct amp_box *box, json_t *steps, size_t at)
{
	struct amp_value name;
	enum q2q_command command;
	struct q2q_call call;

	assert_true(amp_get(box, "_command", &name));
	assert_int_equal(q2q_command_find(&name, &command), 0);
	assert_int_equal(q2q_call_decode(command, box, &call), 0);
	switch (command) {
	case Q2Q_SECURE:
		do_secure(s, &call);
		return;
	case Q2Q_VIRTUAL:
		do_virtual(s, steps, at);
		return;
	case Q2Q_WRITE:
		do_write(s, &call);
		return;
	case Q2Q_CLOSE:
		/* add_user closes by itself. */
		(void)!q2q_conn_virtual_close(s->conn, call.virtual_open.id, s->now_us);
		return;
	case Q2Q_CHOKE:
	case Q2Q_UNCHOKE:
		assert_int_equal(q2q_conn_virtual_pause(s->conn, call.virtual_open.id,
							command == Q2Q_CHOKE, s->now_us),
				 0);
		return;
	default:
		assert_int_equal(q2q_conn_call(s->conn, &call, at, 0, s->now_us), 0);
	}
}

static void play_ours(struct script *s, const uint8_t *bytes, size_t n_bytes, json_t *steps,
		      size_t at)
{
	struct script_call *call = NULL;
	struct amp_box box;
	char ask[64];
	size_t used;

	assert_int_equal(amp_box_parse(bytes, n_bytes, &box, &used), 0);
	switch (amp_box_shape(&box)) {
	case AMP_SHAPE_ANSWER:
		assert_true(value_of(&box, "_answer", ask, sizeof(ask)));
		call = call_of(s, ask, false);
		if (call)
			do_answer(s, call, &box);
		break;
	case AMP_SHAPE_ERROR:
		assert_true(value_of(&box, "_error", ask, sizeof(ask)));
		call = call_of(s, ask, false);
		if (call)
			do_fail(s, call, &box);
		break;
	case AMP_SHAPE_COMMAND:
		do_command(s, &box, steps, at);
		break;
	case AMP_SHAPE_NONE:
		fail();
	}
	script_expect(s, bytes, n_bytes);
}

static void play_theirs(struct script *s, const uint8_t *bytes, size_t n_bytes)
{
	struct amp_box box;
	size_t used;

	s->step_ask[0] = '\0';
	if (amp_box_parse(bytes, n_bytes, &box, &used) == 0 &&
	    !value_of(&box, "_ask", s->step_ask, sizeof(s->step_ask)))
		snprintf(s->step_ask, sizeof(s->step_ask), "1"); /* inside a write */
	script_send(s, bytes, n_bytes);
}

void script_play(struct script *s, json_t *steps, const char *them)
{
	json_t *step;
	size_t at;

	json_array_foreach (steps, at, step) {
		const char *event = json_string_value(json_object_get(step, "event"));
		const char *dir = json_string_value(json_object_get(step, "dir"));
		size_t n_bytes;
		uint8_t *bytes;

		if (event) {
			if (strcmp(event, "tls-start") == 0)
				script_start_tls(s);
			continue;
		}
		bytes = vector_bytes(step, &n_bytes);
		if (strncmp(dir, them, strlen(them)) == 0)
			play_theirs(s, bytes, n_bytes);
		else
			play_ours(s, bytes, n_bytes, steps, at);
		free(bytes);
	}
	script_pump(s);
}

/* ---- without a transcript
 * ------------------------------------------------------------------------------- */

static void put_number(struct amp_box *box, const char *key, uint64_t number)
{
	char text[AMP_ASK_TEXT_BYTES];

	amp_put_copy(box, key, amp_ask_text(number, text));
}

static void secure_ours(struct script *s, const struct q2q_call *call, bool ask_source_ip)
{
	const struct q2q_call source_ip = { .command = Q2Q_SOURCE_IP };
	struct amp_box box;

	if (ask_source_ip) {
		assert_int_equal(q2q_conn_call(s->conn, &source_ip, 0, 0, s->now_us), 0);
		assert_true(script_next_box(s, &box));
		amp_box_init(&box);
		put_number(&box, "_answer", 1);
		amp_put_text(&box, "ip", "192.0.2.11");
		script_send_box(s, &box);
	}
	do_secure(s, call);
	assert_true(script_next_box(s, &box));
	amp_box_init(&box);
	put_number(&box, "_answer", ask_source_ip ? 2 : 1);
	script_send_box(s, &box);
	script_start_tls(s);
}

static void secure_theirs(struct script *s, const struct q2q_call *call)
{
	struct buffer scratch;
	struct amp_box box;

	buffer_init(&scratch, 1024, false);
	amp_box_init(&box);
	amp_put_text(&box, "_command", "secure");
	put_number(&box, "_ask", 1);
	assert_int_equal(q2q_call_encode(call, &box, &scratch), 0);
	script_send_box(s, &box);
	buffer_fini(&scratch);
	assert_int_equal(q2q_conn_accept_secure(s->conn, script_take_call(s, Q2Q_SECURE),
						s->our_context, verify_peer, s, s->now_us),
			 0);
	assert_true(script_next_box(s, &box));
	script_start_tls(s);
}

void script_secure(struct script *s, const char *from, const char *to, bool authorize,
		   bool ask_source_ip)
{
	struct q2q_call call = { .command = Q2Q_SECURE, .secure = { .authorize = authorize } };

	assert_int_equal(q2q_address_parse(from, strlen(from), &call.secure.from), 0);
	assert_int_equal(q2q_address_parse(to, strlen(to), &call.secure.to), 0);
	if (s->role == Q2Q_CLIENT)
		secure_ours(s, &call, ask_source_ip);
	else
		secure_theirs(s, &call);
}
