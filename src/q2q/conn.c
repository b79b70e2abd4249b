/* One control connection: bytes in, bytes out, time, events. */
#include "q2q/conn.h"

#include <stdio.h>

static const char *const state_names[] = {
	[CONN_CLEAR] = "clear",     [CONN_SECURING] = "securing", [CONN_HANDSHAKE] = "handshake",
	[CONN_SECURED] = "secured", [CONN_OVER] = "over",
};
static_assert(ARRAY_SIZE(state_names) == CONN_STATE_COUNT, "a name for each state");

const char *q2q_event_kind_name(enum q2q_event_kind kind)
{
	static const char *const names[] = {
		[Q2Q_EVENT_CALL] = "call",
		[Q2Q_EVENT_ANSWER] = "answer",
		[Q2Q_EVENT_ERROR] = "error",
		[Q2Q_EVENT_SECURED] = "secured",
		[Q2Q_EVENT_VIRTUAL_OPENED] = "virtual-opened",
		[Q2Q_EVENT_VIRTUAL_DATA] = "virtual-data",
		[Q2Q_EVENT_VIRTUAL_CLOSED] = "virtual-closed",
		[Q2Q_EVENT_VIRTUAL_WRITABLE] = "virtual-writable",
		[Q2Q_EVENT_WRITABLE] = "writable",
		[Q2Q_EVENT_CLOSED] = "closed",
	};

	static_assert(ARRAY_SIZE(names) == Q2Q_EVENT_KIND_COUNT, "a name for each kind");
	return kind < Q2Q_EVENT_KIND_COUNT ? names[kind] : "?";
}

/* The one place that changes the state. */
void conn_set_state(struct q2q_conn *conn, enum conn_state state, uint64_t deadline_us,
		    const char *because)
{
	const enum conn_state from = conn->state;

	assert(from != CONN_OVER && state > from);
	conn->state = state;
	conn->state_deadline_us = deadline_us;
	if (conn->config.trace)
		conn->config.trace(conn->config.user, state_names[from], state_names[state],
				   because);
}

/* ---- life -------------------------------------------------------------------------------- */

static void default_u64(uint64_t *value, uint64_t to)
{
	if (*value == 0)
		*value = to;
}

static void default_size(size_t *value, size_t to)
{
	if (*value == 0)
		*value = to;
}

static void fill_defaults(struct q2q_conn_config *config)
{
	default_u64(&config->setup_us, 20 * US_PER_S);
	default_u64(&config->handshake_us, 15 * US_PER_S);
	default_u64(&config->keepalive_us, 30 * US_PER_S);
	default_u64(&config->dead_us, 15 * US_PER_S);
	default_u64(&config->call_timeout_us, 30 * US_PER_S);
	default_size(&config->asks_max, 128);
	default_size(&config->pending_max, 64);
	default_size(&config->virtuals_max, 16);
	default_size(&config->output_max_bytes, 1024u * 1024);
	default_size(&config->droppable_max_bytes, 256u * 1024);
}

int q2q_conn_new(const struct q2q_conn_config *config, uint64_t now_us, struct q2q_conn **ret_conn)
{
	_cleanup_(q2q_conn_freep) struct q2q_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return -ENOMEM;
	conn->config = *config;
	fill_defaults(&conn->config);
	LIST_INIT(&conn->virtuals);
	amp_reader_init(&conn->reader, AMP_BOX_MAX_BYTES, READER_MAX_BYTES);
	/* Each holds all of the budget at most; conn_send() keeps to it for both together. */
	buffer_init(&conn->clear_out, conn->config.output_max_bytes, false);
	buffer_init(&conn->plain_out, conn->config.output_max_bytes, true);
	buffer_init(&conn->scratch, 2 * AMP_BOX_MAX_BYTES, false);
	conn->pending = calloc(conn->config.pending_max, sizeof(*conn->pending));
	if (!conn->pending ||
	    amp_asks_init(&conn->asks, conn->config.asks_max + 2 * conn->config.virtuals_max + 8) <
		    0)
		return -ENOMEM;
	conn->stats.last_input_us = now_us;
	conn->state_deadline_us =
		config->role == Q2Q_SERVER ? add_sat_u64(now_us, conn->config.setup_us) : NEVER_US;
	*ret_conn = TAKE_PTR(conn);
	return 0;
}

void q2q_conn_free(struct q2q_conn *conn)
{
	if (!conn)
		return;
	virtual_free_all(conn);
	amp_asks_fini(&conn->asks);
	free(conn->pending);
	amp_reader_fini(&conn->reader);
	buffer_fini(&conn->clear_out);
	buffer_fini(&conn->plain_out);
	buffer_fini(&conn->scratch);
	crypto_tls_free(conn->tls);
	crypto_tls_context_unref(conn->tls_context);
	free(conn);
}

void conn_over(struct q2q_conn *conn, int error, const char *text)
{
	if (conn->state == CONN_OVER)
		return;
	conn->closed.error = error;
	snprintf(conn->closed.text, sizeof(conn->closed.text), "%s", text);
	if (conn->tls) {
		conn->closed.verify = (enum crypto_verify)crypto_tls_verify_reason(conn->tls);
		conn->closed.peer_rejected_certificate = crypto_tls_peer_rejected_us(conn->tls);
	}
	conn->closed_event = true;
	conn->n_pending = 0;
	memset(conn->pending, 0, conn->config.pending_max * sizeof(*conn->pending));
	/* What was held back for a TLS that never came must not leave at all. */
	if (conn->state != CONN_SECURED)
		buffer_consume(&conn->plain_out, buffer_used(&conn->plain_out));
	conn_set_state(conn, CONN_OVER, NEVER_US, text);
}

void q2q_conn_abort(struct q2q_conn *conn, int error, const char *text, uint64_t now_us)
{
	(void)now_us;
	conn_over(conn, error, text);
}

void q2q_conn_close(struct q2q_conn *conn, uint64_t now_us)
{
	q2q_conn_abort(conn, 0, "closed by us", now_us);
}

bool q2q_conn_is_over(const struct q2q_conn *conn)
{
	return conn->state == CONN_OVER;
}

/* ---- output -----------------------------------------------------------------------------------
 */

size_t conn_output_used(const struct q2q_conn *conn)
{
	return buffer_used(&conn->clear_out) + buffer_used(&conn->plain_out) +
	       (conn->tls ? crypto_tls_output_waiting(conn->tls) : 0);
}

/* A client that has sent `secure` sends nothing more in clear; a server may until it answers. */
static bool sends_clear(const struct q2q_conn *conn)
{
	return conn->state == CONN_CLEAR ||
	       (conn->state == CONN_SECURING && conn->config.role == Q2Q_SERVER);
}

int conn_send(struct q2q_conn *conn, const struct amp_box *box)
{
	int r;

	if (conn->state == CONN_OVER)
		return -EPIPE;
	if (conn_output_used(conn) + amp_box_bytes(box) > conn->config.output_max_bytes)
		return -ENOBUFS;
	r = amp_box_write(box, sends_clear(conn) ? &conn->clear_out : &conn->plain_out);
	if (r == 0)
		conn->stats.boxes_out++;
	return r;
}

void conn_must_send(struct q2q_conn *conn, const struct amp_box *box)
{
	const int r = conn_send(conn, box);

	if (r < 0 && r != -EPIPE)
		conn_over(conn, r, r == -ENOBUFS ? "the peer does not read" : strerror(-r));
}

static void encrypt(struct q2q_conn *conn)
{
	if (conn->state != CONN_SECURED && conn->state != CONN_OVER)
		return;
	while (buffer_used(&conn->plain_out) > 0 &&
	       crypto_tls_output_waiting(conn->tls) < TLS_AHEAD_BYTES) {
		size_t n_bytes;
		const int r = crypto_tls_write(
			conn->tls, buffer_peek(&conn->plain_out),
			min_size(buffer_used(&conn->plain_out), TLS_AHEAD_BYTES), &n_bytes);

		if (r < 0) {
			buffer_consume(&conn->plain_out, buffer_used(&conn->plain_out));
			conn_over(conn, r, crypto_tls_error(conn->tls));
		}
		if (r != 0)
			return;
		buffer_consume(&conn->plain_out, n_bytes);
	}
	if (conn->state == CONN_OVER && buffer_used(&conn->plain_out) == 0 && !conn->shut_down) {
		conn->shut_down = true;
		crypto_tls_shutdown(conn->tls);
	}
}

size_t q2q_conn_output(struct q2q_conn *conn, void *out, size_t out_bytes, uint64_t now_us)
{
	size_t n_bytes = min_size(buffer_used(&conn->clear_out), out_bytes);

	(void)now_us;
	if (n_bytes > 0) {
		memcpy(out, buffer_peek(&conn->clear_out), n_bytes);
		buffer_consume(&conn->clear_out, n_bytes);
	} else if (conn->tls) {
		encrypt(conn);
		n_bytes = crypto_tls_output(conn->tls, out, out_bytes);
	}
	conn->stats.bytes_out += n_bytes;
	return n_bytes;
}

size_t q2q_conn_output_waiting(const struct q2q_conn *conn)
{
	return conn_output_used(conn);
}

/* ---- input
 * ---------------------------------------------------------------------------------------- */

/* No more bytes will be read. Boxes that are there already still count. */
static void end_input(struct q2q_conn *conn, int error, const char *text)
{
	if (conn->input_ended)
		return;
	conn->input_ended = true;
	conn->ended.error = error;
	snprintf(conn->ended.text, sizeof(conn->ended.text), "%s", text);
}

static void read_plaintext(struct q2q_conn *conn)
{
	uint8_t plain[16 * 1024];
	size_t n_bytes;
	int r;

	while ((r = crypto_tls_read(conn->tls, plain, sizeof(plain), &n_bytes)) == 0) {
		r = amp_reader_input(&conn->reader, plain, n_bytes);
		secret_wipe(plain, n_bytes);
		if (r < 0) {
			conn_over(conn, r, "events were not pulled");
			return;
		}
	}
	if (r == CRYPTO_TLS_EOF)
		end_input(conn, 0, "closed by the peer");
	else if (r < 0)
		end_input(conn, -EPROTO, crypto_tls_error(conn->tls));
}

void conn_tls_progress(struct q2q_conn *conn)
{
	const enum crypto_tls_state state = crypto_tls_handshake(conn->tls);

	if (conn->state == CONN_HANDSHAKE && state == CRYPTO_TLS_DONE) {
		conn_set_state(conn, CONN_SECURED, NEVER_US, "TLS is up");
		conn->secured = conn->secured_event = true;
	}
	if (conn->state == CONN_SECURED)
		read_plaintext(conn);
	else if (state == CRYPTO_TLS_FAILED)
		end_input(conn, -EPROTO, crypto_tls_error(conn->tls));
	else if (state == CRYPTO_TLS_CLOSED)
		end_input(conn, -EPROTO, "closed by the peer during the TLS handshake");
}

void conn_feed(struct q2q_conn *conn, const struct amp_value *bytes)
{
	int r;

	if (conn->tls)
		r = crypto_tls_input(conn->tls, bytes->data, bytes->n_bytes);
	else
		r = amp_reader_input(&conn->reader, bytes->data, bytes->n_bytes);
	if (r == -EPROTO)
		end_input(conn, r, crypto_tls_error(conn->tls));
	else if (r < 0)
		conn_over(conn, r, r == -ENOMEM ? "out of memory" : "events were not pulled");
}

int q2q_conn_input(struct q2q_conn *conn, const void *data, size_t n_bytes, uint64_t now_us)
{
	const struct amp_value bytes = amp_value(data, n_bytes);
	const bool was_over = conn->state == CONN_OVER;

	conn->stats.bytes_in += n_bytes;
	conn->stats.last_input_us = now_us;
	conn->keepalive_waiting = false;
	if (was_over || conn->input_ended || n_bytes == 0)
		return 0;
	conn_feed(conn, &bytes);
	if (conn->tls)
		conn_tls_progress(conn);
	if (conn->state != CONN_OVER)
		return 0;
	return conn->closed.error == -ENOBUFS || conn->closed.error == -ENOMEM ? conn->closed.error
									       : 0;
}

void q2q_conn_input_end(struct q2q_conn *conn, uint64_t now_us)
{
	(void)now_us;
	if (conn->state == CONN_OVER || conn->input_ended)
		return;
	if (conn->tls) {
		crypto_tls_input_end(conn->tls);
		conn_tls_progress(conn);
		end_input(conn, -ECONNRESET, "the network connection ended without a goodbye");
		return;
	}
	end_input(conn, 0, "closed by the peer");
}

/* ---- time
 * ------------------------------------------------------------------------------------------- */

static bool keeps_alive(const struct q2q_conn *conn)
{
	return (conn->state == CONN_CLEAR || conn->state == CONN_SECURED) && !conn->input_ended &&
	       conn->config.keepalive_us != NEVER_US;
}

static uint64_t keepalive_due_us(const struct q2q_conn *conn)
{
	if (!keeps_alive(conn))
		return NEVER_US;
	if (conn->keepalive_waiting)
		return add_sat_u64(conn->keepalive_sent_us, conn->keepalive_wait_us);
	return add_sat_u64(conn->stats.last_input_us, conn->config.keepalive_us);
}

static void ask_for_life(struct q2q_conn *conn, uint64_t wait_us, uint64_t now_us)
{
	const struct q2q_call source_ip = { .command = Q2Q_SOURCE_IP };
	const uint64_t deadline_us =
		add_sat_u64(now_us, add_sat_u64(conn->config.dead_us, conn->config.keepalive_us));

	conn->keepalive_waiting = true;
	conn->keepalive_sent_us = now_us;
	conn->keepalive_wait_us = wait_us;
	/* Where there is no room to ask, questions are waiting already; their answers will do. */
	(void)!conn_ask(conn, &source_ip, ASK_KEEPALIVE, 0, deadline_us);
}

void q2q_conn_probe(struct q2q_conn *conn, uint64_t now_us)
{
	if (keeps_alive(conn) && !conn->keepalive_waiting)
		ask_for_life(conn, min_u64(conn->config.dead_us, PROBE_WAIT_US), now_us);
}

static void keep_alive(struct q2q_conn *conn, uint64_t now_us)
{
	if (now_us < keepalive_due_us(conn))
		return;
	if (conn->keepalive_waiting) {
		conn_over(conn, -ETIMEDOUT, "the peer is silent");
		return;
	}
	ask_for_life(conn, conn->config.dead_us, now_us);
}

static bool writable_again(const struct q2q_conn *conn)
{
	return conn->wants_writable && conn->asks.n < conn->config.asks_max &&
	       conn_output_used(conn) <= conn->config.droppable_max_bytes / 2;
}

static bool virtual_writable_again(const struct q2q_conn *conn)
{
	const struct virtual_transport *v;

	LIST_FOREACH (v, &conn->virtuals, entry)
		if (v->blocked && virtual_writable(conn, v))
			return true;
	return false;
}

uint64_t q2q_conn_deadline_us(const struct q2q_conn *conn)
{
	uint64_t due_us;

	if (conn->state == CONN_OVER)
		return NEVER_US;
	/* Room came back after the events were pulled: due at once, so that they are pulled again.
	 */
	if (writable_again(conn) || virtual_writable_again(conn))
		return 0;
	due_us = min_u64(conn->state_deadline_us, keepalive_due_us(conn));
	due_us = min_u64(due_us, amp_asks_deadline_us(&conn->asks));
	return min_u64(due_us, virtual_deadline_us(conn));
}

static const char *const too_slow[CONN_STATE_COUNT] = {
	[CONN_CLEAR] = "the client did not start TLS in time",
	[CONN_SECURING] = "it took too long to find out about the client",
	[CONN_HANDSHAKE] = "the TLS handshake took too long",
};

void q2q_conn_tick(struct q2q_conn *conn, uint64_t now_us)
{
	if (conn->state == CONN_OVER)
		return;
	if (now_us >= conn->state_deadline_us)
		conn_over(conn, -ETIMEDOUT, too_slow[conn->state]);
	else
		keep_alive(conn, now_us);
}

/* ---- events
 * ------------------------------------------------------------------------------------------- */

static bool take_secured(struct q2q_conn *conn, struct q2q_event *event)
{
	if (!conn->secured_event)
		return false;
	conn->secured_event = false;
	conn->secure_owed = false;
	event->kind = Q2Q_EVENT_SECURED;
	event->command = Q2Q_SECURE;
	event->cookie = conn->secure_cookie;
	return true;
}

static bool take_expired(struct q2q_conn *conn, struct q2q_event *event, uint64_t now_us)
{
	const struct q2q_failure failure =
		failure_local(Q2Q_ERROR_TIMED_OUT, "no answer came in time");
	struct amp_ask ask;

	if (conn->asks.n == 0 || now_us == NEVER_US)
		return false;
	while (amp_asks_expire(&conn->asks, now_us, &ask))
		if (conn_ask_lost(conn, &ask, &failure, event, now_us))
			return true;
	return false;
}

/* While the server's program thinks about `secure`, and during the handshake, no boxes are read. */
static bool reads_boxes(const struct q2q_conn *conn)
{
	return conn->state == CONN_CLEAR || conn->state == CONN_SECURED ||
	       (conn->state == CONN_SECURING && conn->config.role == Q2Q_CLIENT);
}

/* 0: a box was handled, *ret_event says whether it made one; AMP_INCOMPLETE: no box is there. */
static int take_box(struct q2q_conn *conn, struct q2q_event *event, bool *ret_event,
		    uint64_t now_us)
{
	struct amp_box box;
	int r;

	if (!reads_boxes(conn))
		return AMP_INCOMPLETE;
	r = amp_reader_next(&conn->reader, &box);
	if (r < 0)
		conn_over(conn, -EBADMSG, "the peer sent what is no box");
	if (r != 0)
		return AMP_INCOMPLETE;
	conn->stats.boxes_in++;
	*ret_event = conn_handle_box(conn, &box, event, now_us);
	return 0;
}

static bool take_writable(struct q2q_conn *conn, struct q2q_event *event)
{
	if (!writable_again(conn))
		return false;
	conn->wants_writable = false;
	event->kind = Q2Q_EVENT_WRITABLE;
	return true;
}

/* What is still owed after the end: each call fails, each transport ends, then the last event. */
static bool take_last(struct q2q_conn *conn, struct q2q_event *event, uint64_t now_us)
{
	const struct q2q_failure failure =
		failure_local(Q2Q_ERROR_CONNECTION_LOST, conn->closed.text);
	struct amp_ask ask;

	while (amp_asks_expire(&conn->asks, NEVER_US, &ask))
		if (conn_ask_lost(conn, &ask, &failure, event, now_us))
			return true;
	if (conn->secure_owed) {
		conn->secure_owed = false;
		event->kind = Q2Q_EVENT_ERROR;
		event->command = Q2Q_SECURE;
		event->cookie = conn->secure_cookie;
		event->failure = failure;
		return true;
	}
	if (virtual_drain(conn, event))
		return true;
	if (!conn->closed_event)
		return false;
	conn->closed_event = false;
	event->kind = Q2Q_EVENT_CLOSED;
	event->closed = conn->closed;
	return true;
}

/* Those that come before the next box; false: none. */
static bool take_owed(struct q2q_conn *conn, struct q2q_event *event, uint64_t now_us)
{
	return take_secured(conn, event) || virtual_next_event(conn, event, now_us) ||
	       take_expired(conn, event, now_us);
}

bool q2q_conn_next_event(struct q2q_conn *conn, struct q2q_event *ret_event, uint64_t now_us)
{
	bool made = false;

	ret_event->command = Q2Q_COMMAND_COUNT;
	ret_event->ask = ret_event->cookie = 0;
	ret_event->virtual_id = 0;
	while (conn->state != CONN_OVER) {
		if (take_owed(conn, ret_event, now_us))
			return true;
		if (take_box(conn, ret_event, &made, now_us) == AMP_INCOMPLETE)
			break;
		if (made)
			return true;
	}
	if (conn->state != CONN_OVER && conn->input_ended) {
		if (amp_reader_rest(&conn->reader).n_bytes > 0 && conn->ended.error == 0)
			conn_over(conn, -ECONNRESET, "the connection ended in the middle of a box");
		else
			conn_over(conn, conn->ended.error, conn->ended.text);
	}
	if (conn->state == CONN_OVER)
		return take_last(conn, ret_event, now_us);
	return take_writable(conn, ret_event);
}

/* ---- what is known about the peer
 * -------------------------------------------------------------------------- */

bool q2q_conn_is_secured(const struct q2q_conn *conn)
{
	return conn->secured;
}

bool q2q_conn_is_authorized(const struct q2q_conn *conn)
{
	return conn->secured && (conn->config.role == Q2Q_CLIENT || conn->authorize);
}

const struct q2q_address *q2q_conn_from(const struct q2q_conn *conn)
{
	return &conn->from;
}

const struct q2q_address *q2q_conn_to(const struct q2q_conn *conn)
{
	return &conn->to;
}

struct crypto_cert *q2q_conn_peer_cert(const struct q2q_conn *conn)
{
	return conn->tls ? crypto_tls_peer_cert(conn->tls) : NULL;
}

const struct crypto_tls *q2q_conn_tls(const struct q2q_conn *conn)
{
	return conn->tls;
}

bool q2q_conn_peer_is_q2q_tun(const struct q2q_conn *conn)
{
	return conn->peer_is_ours;
}

void q2q_conn_stats(const struct q2q_conn *conn, struct q2q_conn_stats *ret_stats)
{
	*ret_stats = conn->stats;
}
