/*
 * Two connections back to back, through TLS, an inbound, a virtual transport and its end, while
 * the n-th allocation fails: for every n nothing crashes or leaks, every call ends, and so does the
 * connection that ran out.
 */
#include "q2q_script.h"
#include "unit.h"
#include "wrapped_memory.h"

/* Linked with --wrap: the n-th call from our own libraries fails. OpenSSL's are its own. */
static unsigned long n_calls, fail_at;

void *__wrap_malloc(size_t n)
{
	return ++n_calls == fail_at ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t each)
{
	return ++n_calls == fail_at ? NULL : __real_calloc(n, each);
}

struct pair {
	struct q2q_conn *conn[2]; /* client, server */
	struct crypto_tls_context *context[2];
	unsigned n_closed[2], n_data, n_owed;
	uint64_t now_us;
};

static int accept_all(void *user, struct crypto_cert *cert)
{
	(void)user;
	(void)cert;
	return 0;
}

static void as_client(struct pair *p, const struct q2q_event *event)
{
	const struct amp_value identifier = amp_text("x");
	struct q2q_call call = { .command = Q2Q_INBOUND };
	int64_t id;

	switch (event->kind) {
	case Q2Q_EVENT_SECURED:
		p->n_owed--;
		assert_int_equal(q2q_user_parse("alice@example.com", &call.inbound.from), 0);
		call.inbound.to = call.inbound.from;
		call.inbound.protocol = amp_text("p");
		if (q2q_conn_call(p->conn[0], &call, 2, 0, p->now_us) == 0)
			p->n_owed++;
		break;
	case Q2Q_EVENT_ANSWER:
	case Q2Q_EVENT_ERROR:
		p->n_owed--;
		if (event->command == Q2Q_INBOUND && event->kind == Q2Q_EVENT_ANSWER &&
		    q2q_conn_virtual_open(p->conn[0], &identifier, 3, p->now_us, &id) == 0)
			p->n_owed++;
		break;
	case Q2Q_EVENT_VIRTUAL_OPENED:
		(void)!q2q_conn_virtual_write(p->conn[0], event->virtual_id, "hello", 5, p->now_us);
		break;
	case Q2Q_EVENT_VIRTUAL_CLOSED:
		p->n_owed--;
		q2q_conn_close(p->conn[0], p->now_us);
		break;
	default:
		break;
	}
}

static void as_server(struct pair *p, const struct q2q_event *event)
{
	struct q2q_answer answer = { .command = Q2Q_INBOUND };

	if (event->kind == Q2Q_EVENT_VIRTUAL_DATA) {
		p->n_data += (unsigned)event->data.n_bytes;
		(void)!q2q_conn_virtual_close(p->conn[1], event->virtual_id, p->now_us);
	}
	if (event->kind != Q2Q_EVENT_CALL)
		return;
	if (event->command == Q2Q_SECURE)
		(void)!q2q_conn_accept_secure(p->conn[1], event->ask, p->context[1], accept_all,
					      NULL, p->now_us);
	else if (event->command == Q2Q_INBOUND)
		(void)!q2q_conn_answer(p->conn[1], event->ask, &answer, p->now_us);
	else if (event->command == Q2Q_RETRIEVE_CONNECTION)
		(void)!q2q_conn_accept_retrieve(p->conn[1], event->ask, Q2Q_INNER_BYTES, 0,
						p->now_us);
}

static bool pump_one(struct pair *p, int side)
{
	static struct q2q_event event;
	uint8_t bytes[16384];
	bool moved = false;
	size_t n;

	while (q2q_conn_next_event(p->conn[side], &event, p->now_us)) {
		moved = true;
		p->n_closed[side] += event.kind == Q2Q_EVENT_CLOSED;
		if (side == 0)
			as_client(p, &event);
		else
			as_server(p, &event);
	}
	while ((n = q2q_conn_output(p->conn[side], bytes, sizeof(bytes), p->now_us)) > 0) {
		moved = true;
		(void)!q2q_conn_input(p->conn[!side], bytes, n, p->now_us);
		while (q2q_conn_next_event(p->conn[!side], &event, p->now_us)) {
			p->n_closed[!side] += event.kind == Q2Q_EVENT_CLOSED;
			if (side == 0)
				as_server(p, &event);
			else
				as_client(p, &event);
		}
	}
	if (q2q_conn_is_over(p->conn[side]))
		q2q_conn_input_end(p->conn[!side], p->now_us);
	return moved;
}

static void start(struct pair *p)
{
	struct q2q_secure secure = { .authorize = true,
				     .tls = p->context[0],
				     .verify = accept_all };

	assert_int_equal(q2q_user_parse("alice@example.com", &secure.from), 0);
	assert_int_equal(q2q_domain_parse("example.com", &secure.to), 0);
	if (q2q_conn_secure(p->conn[0], &secure, 1, p->now_us) == 0)
		p->n_owed++;
	else
		q2q_conn_close(p->conn[0], p->now_us);
}

static unsigned long run(struct crypto_tls_context *alice, struct crypto_tls_context *server,
			 unsigned long fail, unsigned *ret_data)
{
	struct pair p = { .context = { alice, server }, .now_us = 1 };

	n_calls = 0;
	fail_at = fail;
	for (int side = 0; side < 2; side++) {
		const struct q2q_conn_config config = { .role = side == 0 ? Q2Q_CLIENT
									  : Q2Q_SERVER };

		if (q2q_conn_new(&config, p.now_us, &p.conn[side]) < 0) {
			assert_true(fail != 0);
			q2q_conn_free(p.conn[0]);
			return n_calls;
		}
	}
	start(&p);
	while (pump_one(&p, 0) || pump_one(&p, 1))
		;
	/* One that waits for what never comes has its time. */
	for (int i = 0; i < 20 && !(p.n_closed[0] && p.n_closed[1]); i++) {
		p.now_us += 20 * US_PER_S;
		q2q_conn_tick(p.conn[0], p.now_us);
		q2q_conn_tick(p.conn[1], p.now_us);
		while (pump_one(&p, 0) || pump_one(&p, 1))
			;
	}
	/* What failed may have been told to the program alone, and nobody waits for anything. */
	fail_at = 0;
	for (int side = 0; side < 2; side++)
		q2q_conn_close(p.conn[side], p.now_us);
	while (pump_one(&p, 0) || pump_one(&p, 1))
		;
	assert_int_equal(p.n_closed[0], 1);
	assert_int_equal(p.n_closed[1], 1);
	assert_int_equal(p.n_owed, 0); /* every call ended */
	*ret_data = p.n_data;
	q2q_conn_free(p.conn[0]);
	q2q_conn_free(p.conn[1]);
	return n_calls;
}

static void memory_that_runs_out_ends_one_connection_and_nothing_else(void **state)
{
	struct crypto_tls_context *alice, *server;
	struct script_domain d;
	unsigned long n;
	unsigned n_data;

	(void)state;
	script_domain_init(&d, "example.com", "alice@example.com", CRYPTO_KEY_P256);
	alice = script_context(d.user_key, d.user_cert);
	server = script_context(d.key, d.cert);
	n = run(alice, server, 0, &n_data);
	assert_int_equal(n_data, 5); /* the whole way */
	assert_true(n > 20 && n < 1000);
	for (unsigned long i = 1; i <= n; i++)
		run(alice, server, i, &n_data);
	crypto_tls_context_unref(alice);
	crypto_tls_context_unref(server);
	script_domain_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_that_runs_out_ends_one_connection_and_nothing_else),
	};

	return cmocka_run_group_tests_name("q2q memory", tests, NULL, NULL);
}
