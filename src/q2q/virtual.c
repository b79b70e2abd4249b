/*
 * Virtual transports: byte streams inside the control connection, numbered
 * upwards from 1 by the side that opened the TCP connection and downwards from
 * -1 by the other. Each begins as AMP with Retrieve-Connection; after its
 * answer the stream belongs to an inner protocol.
 *
 * One bad id never costs more than its own stream: where the original drops the
 * whole connection, we drop the box.
 */
#include "q2q/conn.h"

/* Inside a stream AMP starts anew: its first question has number 1, and there is only one. */
#define INNER_ASK "1"

static struct virtual_transport *find(const struct q2q_conn *conn, int64_t id)
{
	struct virtual_transport *v;

	LIST_FOREACH (v, &conn->virtuals, entry)
		if (v->id == id)
			return v;
	return NULL;
}

static void free_one(struct q2q_conn *conn, struct virtual_transport *v)
{
	for (size_t i = 0; i < conn->config.pending_max; i++)
		if (conn->pending[i].handle != 0 && conn->pending[i].virtual_id == v->id)
			conn_unpend(conn, &conn->pending[i]);
	LIST_REMOVE(v, entry);
	conn->n_virtuals--;
	amp_reader_fini(&v->reader);
	buffer_fini(&v->first);
	buffer_fini(&v->second);
	free(v);
}

void virtual_free_all(struct q2q_conn *conn)
{
	struct virtual_transport *v;

	while ((v = LIST_FIRST(&conn->virtuals)) != NULL)
		free_one(conn, v);
}

static struct virtual_transport *new_one(struct q2q_conn *conn, int64_t id, bool ours,
					 uint64_t now_us)
{
	struct virtual_transport *v;

	if (conn->n_virtuals >= conn->config.virtuals_max)
		return NULL;
	v = calloc(1, sizeof(*v));
	if (!v)
		return NULL;
	v->id = id;
	v->ours = ours;
	v->state = ours ? VIRTUAL_OPENING : VIRTUAL_RETRIEVING;
	v->deadline_us = add_sat_u64(now_us, INNER_TIMEOUT_US);
	amp_reader_init(&v->reader, INNER_BOX_MAX_BYTES, INNER_MAX_BYTES);
	buffer_init(&v->first, INNER_BOX_MAX_BYTES, true);
	buffer_init(&v->second, INNER_BOX_MAX_BYTES, true);
	LIST_INSERT_HEAD(&conn->virtuals, v, entry);
	conn->n_virtuals++;
	return v;
}

/* ---- the end of one ----------------------------------------------------------------------- */

static const struct q2q_call *id_call(enum q2q_command command, int64_t id, struct q2q_call *out)
{
	out->command = command;
	out->virtual_open.id = id;
	return out;
}

static void send_close(struct q2q_conn *conn, struct virtual_transport *v, uint64_t now_us)
{
	struct q2q_call call;
	int r;

	if (v->gone || v->state == VIRTUAL_CLOSING)
		return;
	r = conn_ask(conn, id_call(Q2Q_CLOSE, v->id, &call), ASK_CLOSE, (uint64_t)v->id,
		     add_sat_u64(now_us, CLOSE_TIMEOUT_US));
	if (r < 0 && r != -EPIPE)
		conn_over(conn, r, "there is no room to close a virtual transport");
}

/* Ends it for us; what the program is owed stays until it was handed out. */
static void end(struct q2q_conn *conn, struct virtual_transport *v,
		const struct q2q_failure *failure, uint64_t now_us)
{
	send_close(conn, v, now_us);
	if (v->known || v->add_user) {
		v->ended = true;
		v->failure = *failure;
	}
	v->known = v->opened = v->blocked = v->busy = false;
	v->state = VIRTUAL_CLOSING;
	v->deadline_us = NEVER_US;
	amp_reader_drop(&v->reader);
}

static void reap(struct q2q_conn *conn, struct virtual_transport *v)
{
	if (v->gone && !v->ended)
		free_one(conn, v);
}

static void end_local(struct q2q_conn *conn, struct virtual_transport *v, enum q2q_error error,
		      const char *text, uint64_t now_us)
{
	const struct q2q_failure failure = failure_local(error, text);

	end(conn, v, &failure, now_us);
}

/* ---- bytes out ----------------------------------------------------------------------------------
 */

bool virtual_writable(const struct q2q_conn *conn, const struct virtual_transport *v)
{
	return !v->choked && conn_output_used(conn) <= conn->config.droppable_max_bytes;
}

static int write_body(struct q2q_conn *conn, const struct virtual_transport *v, const void *data,
		      size_t n_bytes)
{
	const struct q2q_call call = {
		.command = Q2Q_WRITE,
		.write = { .id = v->id, .body = amp_value(data, n_bytes) },
	};

	return conn_tell(conn, &call);
}

/* An inner box, small; it must go out. */
static void write_box(struct q2q_conn *conn, const struct virtual_transport *v,
		      const struct amp_box *box)
{
	struct buffer bytes;
	int r;

	buffer_init(&bytes, INNER_BOX_MAX_BYTES, true);
	r = amp_box_write(box, &bytes);
	if (r == 0)
		r = write_body(conn, v, buffer_peek(&bytes), buffer_used(&bytes));
	buffer_fini(&bytes);
	if (r < 0 && r != -EPIPE)
		conn_over(conn, r, "there is no room for an answer in a virtual transport");
}

static void write_kept(struct q2q_conn *conn, struct virtual_transport *v, struct buffer *kept)
{
	const int r = write_body(conn, v, buffer_peek(kept), buffer_used(kept));

	if (r < 0 && r != -EPIPE)
		conn_over(conn, r, "there is no room for a question in a virtual transport");
	buffer_fini(kept);
}

/* ---- what comes inside
 * --------------------------------------------------------------------------- */

/* A box to one that we opened: the answer to the one question that we asked. */
static void handle_inner_answer(struct q2q_conn *conn, struct virtual_transport *v,
				const struct amp_box *box, uint64_t now_us)
{
	const bool admin = v->state == VIRTUAL_ADMIN;
	struct q2q_failure failure;
	struct amp_value text;

	if (amp_get(box, "_answer", &text) && amp_value_is(&text, INNER_ASK)) {
		if (admin) {
			v->answered = true;
			end_local(conn, v, Q2Q_ERROR_OTHER, "", now_us);
		} else if (v->add_user) {
			v->state = VIRTUAL_ADMIN;
			write_kept(conn, v, &v->second);
		} else {
			v->state = VIRTUAL_BYTES;
			v->deadline_us = NEVER_US;
			v->opened = true;
		}
		return;
	}
	if (amp_get(box, "_error", &text) && amp_value_is(&text, INNER_ASK)) {
		failure_decode(command_of(admin ? Q2Q_ADD_USER : Q2Q_RETRIEVE_CONNECTION), box,
			       &failure);
		end(conn, v, &failure, now_us);
		return;
	}
	end_local(conn, v, Q2Q_ERROR_MALFORMED, "the other end of the stream does not answer",
		  now_us);
}

static void inner_error(struct q2q_conn *conn, struct virtual_transport *v,
			const struct amp_value *ask, enum q2q_error error, const char *text,
			uint64_t now_us)
{
	struct amp_box box;

	if (ask->data) {
		amp_box_init(&box);
		failure_encode(&box, ask, error, text);
		write_box(conn, v, &box);
	}
	if (error != Q2Q_ERROR_UNHANDLED || !ask->data)
		end_local(conn, v, Q2Q_ERROR_MALFORMED, text, now_us);
}

/* A box to one that the peer opened. True: it made an event. */
static bool handle_inner_call(struct q2q_conn *conn, struct virtual_transport *v,
			      const struct amp_box *box, struct q2q_event *event, uint64_t now_us)
{
	const enum q2q_command wanted =
		v->state == VIRTUAL_ADMIN ? Q2Q_ADD_USER : Q2Q_RETRIEVE_CONNECTION;
	struct amp_value name, ask = { NULL, 0 };
	struct pending *pending;

	if (amp_box_shape(box) != AMP_SHAPE_COMMAND || !amp_get(box, "_command", &name)) {
		inner_error(conn, v, &ask, Q2Q_ERROR_UNKNOWN, "no command", now_us);
		return false;
	}
	if (!amp_get(box, "_ask", &ask) || ask.n_bytes > ASK_MAX_BYTES) {
		ask.data = NULL;
		inner_error(conn, v, &ask, Q2Q_ERROR_UNKNOWN, "a bad question", now_us);
		return false;
	}
	if (!amp_value_is(&name, q2q_command_name(wanted))) {
		inner_error(conn, v, &ask, Q2Q_ERROR_UNHANDLED, "Unhandled Command", now_us);
		return false;
	}
	pending = NULL;
	if (q2q_call_decode(wanted, box, &event->call) == 0)
		pending = conn_pend(conn, wanted, &ask, v->id);
	if (!pending) {
		inner_error(conn, v, &ask, Q2Q_ERROR_UNKNOWN, "Unknown Error", now_us);
		return false;
	}
	v->busy = true;
	event->kind = Q2Q_EVENT_CALL;
	event->command = wanted;
	event->ask = pending->handle;
	event->virtual_id = v->id;
	return true;
}

static bool read_inner(struct q2q_conn *conn, struct virtual_transport *v, struct q2q_event *event,
		       uint64_t now_us)
{
	struct amp_box box;

	while ((v->state == VIRTUAL_RETRIEVING || v->state == VIRTUAL_ADMIN) && !v->busy) {
		const int r = amp_reader_next(&v->reader, &box);

		if (r < 0)
			end_local(conn, v, Q2Q_ERROR_MALFORMED, "the stream holds what is no box",
				  now_us);
		if (r != 0)
			return false;
		if (v->ours)
			handle_inner_answer(conn, v, &box, now_us);
		else if (handle_inner_call(conn, v, &box, event, now_us))
			return true;
	}
	return false;
}

/* Bytes that came behind the last box, in the same write, belong to the inner protocol. */
static bool take_rest(struct virtual_transport *v, struct q2q_event *event)
{
	struct amp_value rest;

	if (v->state != VIRTUAL_BYTES || v->opened)
		return false;
	if (v->rest_out) {
		v->rest_out = false;
		amp_reader_drop(&v->reader);
		return false;
	}
	rest = amp_reader_rest(&v->reader);
	if (rest.n_bytes == 0)
		return false;
	v->rest_out = true;
	event->kind = Q2Q_EVENT_VIRTUAL_DATA;
	event->virtual_id = v->id;
	event->cookie = v->cookie;
	event->data = rest;
	return true;
}

/* ---- events
 * ------------------------------------------------------------------------------------------ */

static bool make(struct q2q_event *event, enum q2q_event_kind kind,
		 const struct virtual_transport *v)
{
	event->kind = kind;
	event->virtual_id = v->id;
	event->cookie = v->cookie;
	return true;
}

/* The end: ANSWER or ERROR for add_user, CLOSED for a stream of bytes. */
static bool make_end(struct q2q_event *event, struct virtual_transport *v)
{
	v->ended = false;
	if (!v->add_user) {
		event->failure = v->failure;
		return make(event, Q2Q_EVENT_VIRTUAL_CLOSED, v);
	}
	event->command = Q2Q_ADD_USER;
	if (v->answered)
		event->answer.command = Q2Q_ADD_USER;
	else
		event->failure = v->failure;
	(void)make(event, v->answered ? Q2Q_EVENT_ANSWER : Q2Q_EVENT_ERROR, v);
	event->virtual_id = 0;
	return true;
}

static bool take_one(struct q2q_conn *conn, struct virtual_transport *v, struct q2q_event *event,
		     uint64_t now_us)
{
	if (now_us >= v->deadline_us)
		end_local(conn, v, Q2Q_ERROR_TIMED_OUT, "the stream was not used in time", now_us);
	if (read_inner(conn, v, event, now_us))
		return true;
	if (v->opened) {
		v->opened = false;
		return make(event, Q2Q_EVENT_VIRTUAL_OPENED, v);
	}
	if (take_rest(v, event))
		return true;
	if (v->ended)
		return make_end(event, v);
	if (v->blocked && virtual_writable(conn, v)) {
		v->blocked = false;
		return make(event, Q2Q_EVENT_VIRTUAL_WRITABLE, v);
	}
	return false;
}

bool virtual_next_event(struct q2q_conn *conn, struct q2q_event *event, uint64_t now_us)
{
	struct virtual_transport *v = LIST_FIRST(&conn->virtuals);

	while (v && conn->state != CONN_OVER) {
		struct virtual_transport *next = LIST_NEXT(v, entry);
		const bool made = take_one(conn, v, event, now_us);

		reap(conn, v);
		if (made)
			return true;
		v = next;
	}
	return false;
}

bool virtual_drain(struct q2q_conn *conn, struct q2q_event *event)
{
	const struct q2q_failure failure =
		failure_local(Q2Q_ERROR_CONNECTION_LOST, conn->closed.text);
	struct virtual_transport *v;

	while ((v = LIST_FIRST(&conn->virtuals)) != NULL) {
		const bool owed =
			v->ended || v->known || (v->add_user && v->state != VIRTUAL_CLOSING);

		if (owed) {
			if (!v->ended)
				v->failure = failure;
			(void)make_end(event, v);
		}
		free_one(conn, v);
		if (owed)
			return true;
	}
	return false;
}

uint64_t virtual_deadline_us(const struct q2q_conn *conn)
{
	const struct virtual_transport *v;
	uint64_t first_us = NEVER_US;

	LIST_FOREACH (v, &conn->virtuals, entry)
		first_us = min_u64(first_us, v->deadline_us);
	return first_us;
}

/* ---- boxes of the peer
 * --------------------------------------------------------------------------------- */

static void handle_open(struct q2q_conn *conn, int64_t id, const struct amp_value *ask,
			uint64_t now_us)
{
	/* The peer opened the TCP connection if we are the server. */
	const bool sign_right = conn->config.role == Q2Q_SERVER ? id > 0 : id < 0;

	if (!sign_right || find(conn, id)) {
		conn_answer_error(conn, ask, Q2Q_ERROR_UNKNOWN, "Unknown Error");
		conn_over(conn, -EBADMSG, "a virtual transport with a wrong number");
		return;
	}
	if (!ask->data)
		return;
	if (!new_one(conn, id, false, now_us))
		conn_answer_error(conn, ask, Q2Q_ERROR_UNKNOWN, "Too many virtual transports");
	else
		conn_answer_empty(conn, ask);
}

static bool handle_write(struct q2q_conn *conn, struct virtual_transport *v,
			 const struct amp_value *body, struct q2q_event *event, uint64_t now_us)
{
	if (!v || body->n_bytes == 0)
		return false;
	switch (v->state) {
	case VIRTUAL_RETRIEVING:
	case VIRTUAL_ADMIN:
		if (amp_reader_input(&v->reader, body->data, body->n_bytes) < 0)
			end_local(conn, v, Q2Q_ERROR_MALFORMED, "too much before an answer",
				  now_us);
		return false;
	case VIRTUAL_BYTES:
		event->data = *body;
		return make(event, Q2Q_EVENT_VIRTUAL_DATA, v);
	case VIRTUAL_OPENING: /* nothing may come before the answer to `virtual` */
	case VIRTUAL_CLOSING:
	case VIRTUAL_STATE_COUNT:
		break;
	}
	return false;
}

/*
 * Crossed closes: a stock peer that gets an ordinary answer to its close after having answered
 * ours fails on the forgotten id and drops the connection; an error it only logs.
 */
static void handle_close(struct q2q_conn *conn, struct virtual_transport *v,
			 const struct amp_value *ask, uint64_t now_us)
{
	if (!v || v->state == VIRTUAL_CLOSING) {
		conn_answer_error(conn, ask, Q2Q_ERROR_UNKNOWN, "already closed");
		return;
	}
	conn_answer_empty(conn, ask);
	v->gone = true;
	end_local(conn, v, Q2Q_ERROR_CONNECTION_LOST, "closed by the peer", now_us);
	reap(conn, v);
}

bool virtual_handle(struct q2q_conn *conn, const struct q2q_call *call, const struct amp_value *ask,
		    struct q2q_event *event, uint64_t now_us)
{
	const int64_t id = call->virtual_open.id; /* at the same place in `write` */
	struct virtual_transport *v = find(conn, id);
	bool made = false;

	switch (call->command) {
	case Q2Q_VIRTUAL:
		handle_open(conn, id, ask, now_us);
		return false;
	case Q2Q_CLOSE:
		handle_close(conn, v, ask, now_us);
		return false;
	case Q2Q_WRITE: {
		const struct amp_value body = call->write.body;

		made = handle_write(conn, v, &body, event, now_us);
		break;
	}
	case Q2Q_CHOKE:
	case Q2Q_UNCHOKE:
		if (v)
			v->choked = call->command == Q2Q_CHOKE;
		break;
	default:
		return false;
	}
	/* Told without a question as a rule; where somebody asks, an answer costs nothing. */
	conn_answer_empty(conn, ask);
	return made;
}

void virtual_answered(struct q2q_conn *conn, int64_t id, const struct q2q_failure *failure,
		      uint64_t now_us)
{
	struct virtual_transport *v = find(conn, id);

	if (!v)
		return;
	if (failure) {
		/* The peer knows of no such stream, so there is nothing to close there. */
		v->gone = true;
		if (v->state == VIRTUAL_OPENING)
			end(conn, v, failure, now_us);
		reap(conn, v);
		return;
	}
	if (v->state == VIRTUAL_OPENING) {
		v->state = VIRTUAL_RETRIEVING;
		write_kept(conn, v, &v->first);
	}
}

void virtual_close_answered(struct q2q_conn *conn, int64_t id)
{
	struct virtual_transport *v = find(conn, id);

	if (!v)
		return;
	v->gone = true;
	reap(conn, v);
}

/* ---- the program
 * ------------------------------------------------------------------------------------------ */

int virtual_answer_box(struct q2q_conn *conn, struct pending *pending, const struct amp_box *box,
		       bool last, uint64_t now_us)
{
	struct virtual_transport *v = find(conn, pending->virtual_id);

	conn_unpend(conn, pending);
	if (!v || v->state == VIRTUAL_CLOSING)
		return -ENOENT;
	v->busy = false;
	write_box(conn, v, box);
	v->deadline_us = add_sat_u64(now_us, INNER_TIMEOUT_US);
	if (last)
		end_local(conn, v, Q2Q_ERROR_OTHER, "closed by us after an error", now_us);
	return 0;
}

int q2q_conn_accept_retrieve(struct q2q_conn *conn, uint64_t ask, enum q2q_inner inner,
			     uint64_t cookie, uint64_t now_us)
{
	struct pending *pending = conn_pending(conn, ask);
	struct virtual_transport *v;
	struct amp_box box;
	int r;

	if (!pending)
		return -ENOENT;
	if (pending->command != Q2Q_RETRIEVE_CONNECTION)
		return -EINVAL;
	v = find(conn, pending->virtual_id);
	amp_box_init(&box);
	amp_put(&box, "_answer", pending->ask, pending->ask_bytes);
	r = virtual_answer_box(conn, pending, &box, false, now_us);
	if (r < 0 || !v)
		return -ENOENT;
	v->cookie = cookie;
	v->state = inner == Q2Q_INNER_ADMIN ? VIRTUAL_ADMIN : VIRTUAL_BYTES;
	v->known = inner == Q2Q_INNER_BYTES;
	if (inner == Q2Q_INNER_BYTES)
		v->deadline_us = NEVER_US;
	return 0;
}

/* Opens one and keeps the box that it will begin with. */
static int open_one(struct q2q_conn *conn, const struct amp_value *identifier, uint64_t cookie,
		    uint64_t now_us, struct virtual_transport **ret_v)
{
	const struct q2q_call retrieve = { .command = Q2Q_RETRIEVE_CONNECTION,
					   .retrieve = { .identifier = *identifier } };
	struct virtual_transport *v;
	struct q2q_call call;
	struct amp_box box;
	int64_t id;
	int r;

	if (conn->state == CONN_OVER)
		return -EPIPE;
	if (conn->state == CONN_CLEAR)
		return -EPERM;
	id = conn->config.role == Q2Q_CLIENT ? conn->last_virtual_id + 1
					     : conn->last_virtual_id - 1;
	v = new_one(conn, id, true, now_us);
	if (!v)
		return -ENOBUFS;
	amp_box_init(&box);
	amp_put_text(&box, "_command", q2q_command_name(Q2Q_RETRIEVE_CONNECTION));
	amp_put_text(&box, "_ask", INNER_ASK);
	r = q2q_call_encode(&retrieve, &box, &conn->scratch);
	if (r == 0)
		r = amp_box_write(&box, &v->first);
	if (r == 0)
		r = conn_ask(conn, id_call(Q2Q_VIRTUAL, id, &call), ASK_VIRTUAL, (uint64_t)id,
			     add_sat_u64(now_us, conn->config.call_timeout_us));
	if (r < 0) {
		free_one(conn, v);
		return r;
	}
	conn->last_virtual_id = id;
	v->cookie = cookie;
	*ret_v = v;
	return 0;
}

int q2q_conn_virtual_open(struct q2q_conn *conn, const struct amp_value *identifier,
			  uint64_t cookie, uint64_t now_us, int64_t *ret_id)
{
	struct virtual_transport *v;
	const int r = open_one(conn, identifier, cookie, now_us, &v);

	if (r < 0)
		return r;
	v->known = true;
	*ret_id = v->id;
	return 0;
}

int q2q_conn_add_user(struct q2q_conn *conn, const struct amp_value *identifier,
		      const struct q2q_call *add_user, uint64_t cookie, uint64_t now_us)
{
	struct virtual_transport *v;
	struct amp_box box;
	int r;

	if (conn->config.role != Q2Q_CLIENT || add_user->command != Q2Q_ADD_USER)
		return -EINVAL;
	r = open_one(conn, identifier, cookie, now_us, &v);
	if (r < 0)
		return r;
	v->add_user = true;
	amp_box_init(&box);
	amp_put_text(&box, "_command", q2q_command_name(Q2Q_ADD_USER));
	amp_put_text(&box, "_ask", INNER_ASK);
	r = q2q_call_encode(add_user, &box, &conn->scratch);
	if (r == 0)
		r = amp_box_write(&box, &v->second);
	if (r < 0) {
		v->add_user = false;
		end_local(conn, v, Q2Q_ERROR_OTHER, "", now_us);
	}
	return r;
}

int q2q_conn_virtual_write(struct q2q_conn *conn, int64_t id, const void *data, size_t n_bytes,
			   uint64_t now_us)
{
	struct virtual_transport *v = find(conn, id);
	int r;

	(void)now_us;
	if (conn->state == CONN_OVER)
		return -EPIPE;
	if (!v || v->state != VIRTUAL_BYTES)
		return -ENOENT;
	if (n_bytes > VIRTUAL_WRITE_MAX)
		return -EMSGSIZE;
	if (n_bytes == 0)
		return 0;
	r = virtual_writable(conn, v) ? write_body(conn, v, data, n_bytes) : -ENOBUFS;
	if (r != -ENOBUFS)
		return r;
	v->blocked = true;
	return Q2Q_BLOCKED;
}

int q2q_conn_virtual_pause(struct q2q_conn *conn, int64_t id, bool pause, uint64_t now_us)
{
	struct virtual_transport *v = find(conn, id);
	struct q2q_call call;

	(void)now_us;
	if (!v || v->state != VIRTUAL_BYTES)
		return -ENOENT;
	return conn_tell(conn, id_call(pause ? Q2Q_CHOKE : Q2Q_UNCHOKE, id, &call));
}

int q2q_conn_virtual_close(struct q2q_conn *conn, int64_t id, uint64_t now_us)
{
	struct virtual_transport *v = find(conn, id);

	if (!v || v->state == VIRTUAL_CLOSING)
		return -ENOENT;
	v->known = v->add_user = false; /* no event follows */
	end_local(conn, v, Q2Q_ERROR_OTHER, "closed by us", now_us);
	return 0;
}
