/* Questions and answers in both directions. */
#include "q2q/conn.h"

#include <stdio.h>

/* ---- our questions ----------------------------------------------------------------------- */

/* `box` with the command; number 0: no answer is wanted. */
static int encode(struct q2q_conn *conn, const struct q2q_call *call, uint64_t number,
		  struct amp_box *box)
{
	char text[AMP_ASK_TEXT_BYTES];

	amp_box_init(box);
	buffer_consume(&conn->scratch, buffer_used(&conn->scratch));
	amp_put_text(box, "_command", command_of(call->command)->name);
	if (number > 0)
		amp_put_copy(box, "_ask", amp_ask_text(number, text));
	return q2q_call_encode(call, box, &conn->scratch);
}

int conn_ask(struct q2q_conn *conn, const struct q2q_call *call, unsigned kind, uint64_t cookie,
	     uint64_t deadline_us)
{
	struct amp_box box;
	uint64_t number;
	int r;

	if (conn->asks.n == conn->asks.max)
		return -ENOBUFS;
	r = encode(conn, call, conn->asks.last_number + 1, &box);
	if (r == 0)
		r = conn_send(conn, &box);
	if (r < 0)
		return r;
	return amp_asks_add(&conn->asks, kind, cookie, deadline_us, &number);
}

int conn_tell(struct q2q_conn *conn, const struct q2q_call *call)
{
	struct amp_box box;
	int r = encode(conn, call, 0, &box);

	if (r == 0)
		r = conn_send(conn, &box);
	/* The original's counter goes on for these, too. */
	if (r == 0)
		amp_asks_skip(&conn->asks);
	return r;
}

static bool may_send(const struct q2q_conn *conn, const struct command *command)
{
	return (command->ports & PORT_CONTROL) &&
	       (conn->config.role == Q2Q_CLIENT ? command->by_client : command->by_server);
}

/* Those that have a function of their own, because the connection takes part in them. */
static bool is_own(enum q2q_command command)
{
	return command == Q2Q_SECURE || command == Q2Q_VIRTUAL || command == Q2Q_CLOSE ||
	       command == Q2Q_WRITE || command == Q2Q_CHOKE || command == Q2Q_UNCHOKE;
}

static bool in_clear(enum q2q_command command)
{
	return command == Q2Q_SOURCE_IP || command == Q2Q_IDENTIFY;
}

int q2q_conn_call(struct q2q_conn *conn, const struct q2q_call *call, uint64_t cookie,
		  uint64_t timeout_us, uint64_t now_us)
{
	const struct command *command = command_of(call->command);
	int r;

	if (conn->state == CONN_OVER)
		return -EPIPE;
	if (!may_send(conn, command) || command->told || is_own(call->command))
		return -EINVAL;
	if (conn->state == CONN_CLEAR && !in_clear(call->command))
		return -EPERM;
	r = -ENOBUFS;
	/* Half of the budget stays for answers, which cannot be put off. */
	if (conn_output_used(conn) <= conn->config.output_max_bytes / 2 &&
	    conn->asks.n < conn->config.asks_max)
		r = conn_ask(conn, call, call->command, cookie,
			     add_sat_u64(now_us,
					 timeout_us ? timeout_us : conn->config.call_timeout_us));
	if (r == -ENOBUFS)
		conn->wants_writable = true;
	return r;
}

int q2q_conn_tell(struct q2q_conn *conn, const struct q2q_call *call, uint64_t now_us)
{
	const struct command *command = command_of(call->command);
	size_t max_bytes = conn->config.output_max_bytes / 2;
	int r;

	(void)now_us;
	if (conn->state == CONN_OVER)
		return -EPIPE;
	if (!may_send(conn, command) || !command->told || is_own(call->command))
		return -EINVAL;
	if (conn->state == CONN_CLEAR)
		return -EPERM;
	/* A stock program would end the connection. */
	if (!conn->peer_is_ours)
		return -EOPNOTSUPP;
	if (call->command == Q2Q_RELAY)
		max_bytes = min_size(max_bytes, conn->config.droppable_max_bytes);
	r = conn_output_used(conn) > max_bytes ? -ENOBUFS : conn_tell(conn, call);
	if (r != -ENOBUFS)
		return r;
	conn->stats.told_dropped++;
	conn->wants_writable = true;
	return Q2Q_BLOCKED;
}

/* ---- answers to them ------------------------------------------------------------------------- */

static bool make_error(struct q2q_event *event, enum q2q_command command, uint64_t cookie,
		       const struct q2q_failure *failure)
{
	event->kind = Q2Q_EVENT_ERROR;
	event->command = command;
	event->cookie = cookie;
	event->failure = *failure;
	return true;
}

bool conn_ask_lost(struct q2q_conn *conn, const struct amp_ask *ask,
		   const struct q2q_failure *failure, struct q2q_event *event, uint64_t now_us)
{
	switch (ask->kind) {
	case ASK_KEEPALIVE:
		return false;
	case ASK_SECURE:
		conn->secure_owed = false;
		conn_over(conn, failure->error == Q2Q_ERROR_TIMED_OUT ? -ETIMEDOUT : -ECONNREFUSED,
			  failure->description[0] ? failure->description
						  : "the server refused to start TLS");
		return make_error(event, Q2Q_SECURE, ask->cookie, failure);
	case ASK_VIRTUAL:
		virtual_answered(conn, (int64_t)ask->cookie, failure, now_us);
		return false;
	case ASK_CLOSE:
		virtual_close_answered(conn, (int64_t)ask->cookie);
		return false;
	default:
		return make_error(event, (enum q2q_command)ask->kind, ask->cookie, failure);
	}
}

/* Only one of us sends these keys, and a stock server strips them. */
static bool answer_is_ours(const struct q2q_answer *answer)
{
	if (answer->command != Q2Q_INBOUND)
		return false;
	for (size_t i = 0; i < answer->inbound.listeners.n; i++)
		if (answer->inbound.listeners.entries[i].expires_in_s >= 0 ||
		    answer->inbound.listeners.entries[i].offer.data)
			return true;
	return answer->inbound.status.data != NULL;
}

static bool make_answer(struct q2q_conn *conn, const struct amp_ask *ask, const struct amp_box *box,
			struct q2q_event *event)
{
	const enum q2q_command command = (enum q2q_command)ask->kind;
	struct q2q_failure failure;

	if (q2q_answer_decode(command, box, &event->answer) < 0) {
		failure = failure_local(Q2Q_ERROR_MALFORMED, "the answer cannot be read");
		return make_error(event, command, ask->cookie, &failure);
	}
	conn->peer_is_ours = conn->peer_is_ours || answer_is_ours(&event->answer);
	event->kind = Q2Q_EVENT_ANSWER;
	event->command = command;
	event->cookie = ask->cookie;
	return true;
}

/*
 * The question that this box answers. While a client waits for the answer to `secure`, its later
 * questions are held back: whoever answers one of those in clear is somebody on the way who
 * counts along.
 */
static bool take_ask(struct q2q_conn *conn, const struct amp_box *box, const char *key,
		     struct amp_ask *ret_ask)
{
	struct amp_value text;

	/* One that came too late looks like one that nobody asked for: counted, not punished. */
	if (!amp_get(box, key, &text) || amp_asks_take(&conn->asks, &text, ret_ask) != 0) {
		conn->stats.strange_answers++;
		return false;
	}
	if (conn->state == CONN_SECURING && conn->config.role == Q2Q_CLIENT &&
	    ret_ask->number > conn->secure_number) {
		conn_over(conn, -EPROTO, "an answer came to a question that has not left yet");
		return false;
	}
	return true;
}

static bool handle_answer(struct q2q_conn *conn, const struct amp_box *box, struct q2q_event *event,
			  uint64_t now_us)
{
	struct amp_ask ask;

	if (!take_ask(conn, box, "_answer", &ask))
		return false;
	switch (ask.kind) {
	case ASK_KEEPALIVE:
		conn->stats.keepalive_rtt_us = now_us - conn->keepalive_sent_us;
		return false;
	case ASK_SECURE:
		conn_secure_answered(conn, now_us);
		return false;
	case ASK_VIRTUAL:
		virtual_answered(conn, (int64_t)ask.cookie, NULL, now_us);
		return false;
	case ASK_CLOSE:
		virtual_close_answered(conn, (int64_t)ask.cookie);
		return false;
	default:
		return make_answer(conn, &ask, box, event);
	}
}

static bool handle_error(struct q2q_conn *conn, const struct amp_box *box, struct q2q_event *event,
			 uint64_t now_us)
{
	struct q2q_failure failure;
	struct amp_ask ask;

	if (!take_ask(conn, box, "_error", &ask))
		return false;
	failure_decode(
		command_of(ask.kind < Q2Q_COMMAND_COUNT ? (enum q2q_command)ask.kind : Q2Q_SECURE),
		box, &failure);
	return conn_ask_lost(conn, &ask, &failure, event, now_us);
}

/* ---- the peer's questions
 * ------------------------------------------------------------------------ */

void conn_answer_empty(struct q2q_conn *conn, const struct amp_value *ask)
{
	struct amp_box box;

	if (!ask->data)
		return;
	amp_box_init(&box);
	amp_put_value(&box, "_answer", ask);
	conn_must_send(conn, &box);
}

void conn_answer_error(struct q2q_conn *conn, const struct amp_value *ask, enum q2q_error error,
		       const char *text)
{
	struct amp_box box;

	if (!ask->data)
		return;
	amp_box_init(&box);
	failure_encode(&box, ask, error, text);
	conn_must_send(conn, &box);
}

/* An undeclared failure: says so where somebody asked, and ends the connection. */
static void refuse(struct q2q_conn *conn, const struct amp_value *ask, int error, const char *text)
{
	conn_answer_error(conn, ask, Q2Q_ERROR_UNKNOWN, "Unknown Error");
	conn_over(conn, error, text);
}

struct pending *conn_pend(struct q2q_conn *conn, enum q2q_command command,
			  const struct amp_value *ask, int64_t virtual_id)
{
	for (size_t i = 0; i < conn->config.pending_max; i++) {
		struct pending *p = &conn->pending[i];

		if (p->handle != 0)
			continue;
		*p = (struct pending){ .handle = ++conn->last_handle,
				       .command = command,
				       .virtual_id = virtual_id,
				       .ask_bytes = (uint8_t)ask->n_bytes };
		memcpy(p->ask, ask->data, ask->n_bytes);
		conn->n_pending++;
		return p;
	}
	return NULL;
}

struct pending *conn_pending(struct q2q_conn *conn, uint64_t handle)
{
	for (size_t i = 0; handle != 0 && i < conn->config.pending_max; i++)
		if (conn->pending[i].handle == handle)
			return &conn->pending[i];
	return NULL;
}

void conn_unpend(struct q2q_conn *conn, struct pending *pending)
{
	pending->handle = 0;
	conn->n_pending--;
}

/* What the connection does with a command before the program hears of it. */
enum verdict {
	DELIVER,    /* the program's */
	HANDLED,    /* done with */
	MADE_EVENT, /* handled, and it made another event */
};
typedef enum verdict handler_fn(struct q2q_conn *conn, const struct q2q_call *call,
				const struct amp_value *ask, struct q2q_event *event,
				uint64_t now_us);

static enum verdict handle_source_ip(struct q2q_conn *conn, const struct q2q_call *call,
				     const struct amp_value *ask, struct q2q_event *event,
				     uint64_t now_us)
{
	char text[IP_TEXT_BYTES];
	struct amp_box box;

	(void)call;
	(void)event;
	(void)now_us;
	if (conn->config.peer_ip.family == FAMILY_NONE)
		return DELIVER;
	if (!ask->data)
		return HANDLED;
	amp_box_init(&box);
	amp_put_value(&box, "_answer", ask);
	amp_put_text(&box, "ip", ip_format(&conn->config.peer_ip, text));
	conn_must_send(conn, &box);
	return HANDLED;
}

static enum verdict handle_secure(struct q2q_conn *conn, const struct q2q_call *call,
				  const struct amp_value *ask, struct q2q_event *event,
				  uint64_t now_us)
{
	const bool anonymous = q2q_address_kind(&call->secure.from) == Q2Q_ANONYMOUS;

	(void)event;
	if (conn->state == CONN_CLEAR && ask->data && call->secure.to.domain[0] &&
	    !(anonymous && call->secure.authorize)) {
		conn->from = call->secure.from;
		conn->to = call->secure.to;
		conn->authorize = call->secure.authorize;
		conn_set_state(conn, CONN_SECURING, add_sat_u64(now_us, conn->config.setup_us),
			       "secure");
		return DELIVER;
	}
	refuse(conn, ask, -EPROTO, "the client asked for TLS in a way that cannot be");
	return HANDLED;
}

/* Passwords do not travel in clear: the original takes them, we do not. */
static enum verdict handle_sign(struct q2q_conn *conn, const struct q2q_call *call,
				const struct amp_value *ask, struct q2q_event *event,
				uint64_t now_us)
{
	(void)event;
	(void)now_us;
	conn->peer_is_ours = conn->peer_is_ours || call->sign.q2q_tun;
	if (conn->state == CONN_SECURED)
		return DELIVER;
	refuse(conn, ask, -EPERM, "the client sent a password in clear");
	return HANDLED;
}

/*
 * May the peer speak for `theirs`, to `ours`? A server has the domain of the client's `to`, and
 * goes by the client's certificate. A client's own server tells it who asks, whoever that is; a
 * foreign one speaks for its own domain alone.
 */
static bool claim_holds(const struct q2q_conn *conn, const struct q2q_address *ours,
			const struct q2q_address *theirs)
{
	const struct crypto_cert *cert = q2q_conn_peer_cert(conn);

	if (!q2q_conn_is_authorized(conn) || !cert)
		return false;
	if (conn->config.role == Q2Q_SERVER)
		return strcmp(ours->domain, conn->to.domain) == 0 &&
		       q2q_may_speak_for(crypto_cert_subject(cert), crypto_cert_issuer(cert),
					 theirs);
	return strcmp(ours->domain, conn->to.domain) == 0 ||
	       strcmp(theirs->domain, conn->to.domain) == 0;
}

static enum verdict handle_listen(struct q2q_conn *conn, const struct q2q_call *call,
				  const struct amp_value *ask, struct q2q_event *event,
				  uint64_t now_us)
{
	const struct q2q_address *from = &call->listen.from;

	(void)event;
	(void)now_us;
	if (q2q_address_kind(from) != Q2Q_ANONYMOUS && claim_holds(conn, from, from))
		return DELIVER;
	refuse(conn, ask, -EACCES, "listen for an address that the certificate does not cover");
	return HANDLED;
}

/* A client refuses by an empty list: an error would make a stock server drop it. */
static void refuse_relayed(struct q2q_conn *conn, const struct amp_value *ask)
{
	struct amp_box box;

	if (!ask->data)
		return;
	amp_box_init(&box);
	amp_put_value(&box, "_answer", ask);
	amp_put_text(&box, "listeners", "");
	conn_must_send(conn, &box);
}

static enum verdict handle_inbound(struct q2q_conn *conn, const struct q2q_call *call,
				   const struct amp_value *ask, struct q2q_event *event,
				   uint64_t now_us)
{
	const bool anonymous = q2q_address_kind(&call->inbound.from) == Q2Q_ANONYMOUS;

	(void)event;
	(void)now_us;
	conn->peer_is_ours = conn->peer_is_ours || call->inbound.q2q_tun;
	if (conn->config.role == Q2Q_CLIENT) {
		if (claim_holds(conn, &call->inbound.to, &call->inbound.from))
			return DELIVER;
		refuse_relayed(conn, ask);
		return HANDLED;
	}
	if (anonymous || claim_holds(conn, &call->inbound.to, &call->inbound.from))
		return DELIVER;
	conn_answer_error(conn, ask, Q2Q_ERROR_VERIFY,
			  q2q_conn_is_authorized(conn)
				  ? "The certificate does not cover this address."
				  : "No official negotiation has taken place.");
	conn_over(conn, -EACCES, "inbound from an address that the certificate does not cover");
	return HANDLED;
}

static enum verdict handle_bind_udp(struct q2q_conn *conn, const struct q2q_call *call,
				    const struct amp_value *ask, struct q2q_event *event,
				    uint64_t now_us)
{
	(void)event;
	(void)now_us;
	if (q2q_address_kind(&call->bind_udp.q2qdst) != Q2Q_ANONYMOUS &&
	    claim_holds(conn, &call->bind_udp.q2qsrc, &call->bind_udp.q2qdst))
		return DELIVER;
	refuse(conn, ask, -EACCES, "bind-udp for an address that the certificate does not cover");
	return HANDLED;
}

static enum verdict handle_virtual(struct q2q_conn *conn, const struct q2q_call *call,
				   const struct amp_value *ask, struct q2q_event *event,
				   uint64_t now_us)
{
	if (conn->state == CONN_SECURED)
		return virtual_handle(conn, call, ask, event, now_us) ? MADE_EVENT : HANDLED;
	refuse(conn, ask, -EPERM, "a virtual transport in clear");
	return HANDLED;
}

static enum verdict handle_ours(struct q2q_conn *conn, const struct q2q_call *call,
				const struct amp_value *ask, struct q2q_event *event,
				uint64_t now_us)
{
	(void)call;
	(void)event;
	(void)now_us;
	conn->peer_is_ours = true;
	if (conn->state == CONN_SECURED)
		return DELIVER;
	refuse(conn, ask, -EPERM, "a command that belongs inside TLS");
	return HANDLED;
}

/* clang-format off */
static handler_fn *const handlers[Q2Q_COMMAND_COUNT] = {
	[Q2Q_SOURCE_IP] = handle_source_ip,
	[Q2Q_SECURE]    = handle_secure,
	[Q2Q_SIGN]      = handle_sign,
	[Q2Q_LISTEN]    = handle_listen,
	[Q2Q_INBOUND]   = handle_inbound,
	[Q2Q_BIND_UDP]  = handle_bind_udp,
	[Q2Q_VIRTUAL]   = handle_virtual,
	[Q2Q_WRITE]     = handle_virtual,
	[Q2Q_CLOSE]     = handle_virtual,
	[Q2Q_CHOKE]     = handle_virtual,
	[Q2Q_UNCHOKE]   = handle_virtual,
	[Q2Q_SIGNAL]    = handle_ours,
	[Q2Q_RELAY]     = handle_ours,
	[Q2Q_GONE]      = handle_ours,
	[Q2Q_CHANNEL]   = handle_ours,
	[Q2Q_RENEW]     = handle_ours,
	/* identify needs nothing of the connection. */
};
/* clang-format on */

static void answer_unhandled(struct q2q_conn *conn, const struct amp_value *ask,
			     const struct amp_value *name)
{
	char printable[64], text[96];

	text_sanitize(name->data, name->n_bytes, printable, sizeof(printable));
	snprintf(text, sizeof(text), "Unhandled Command: '%s'", printable);
	conn_answer_error(conn, ask, Q2Q_ERROR_UNHANDLED, text);
	/* Without _ask it is something that a later version tells, and may be missed. */
}

static bool deliver(struct q2q_conn *conn, const struct amp_value *ask, struct q2q_event *event)
{
	const enum q2q_command command = event->call.command;
	struct pending *pending;

	event->kind = Q2Q_EVENT_CALL;
	event->command = command;
	if (!ask->data)
		return true;
	pending = conn_pend(conn, command, ask, 0);
	if (!pending) {
		conn_answer_error(conn, ask, Q2Q_ERROR_UNKNOWN, "Too many questions at once");
		return false;
	}
	pending->q2q_tun = command == Q2Q_SIGN && event->call.sign.q2q_tun;
	event->ask = pending->handle;
	return true;
}

static bool handle_command(struct q2q_conn *conn, const struct amp_box *box,
			   struct q2q_event *event, uint64_t now_us)
{
	struct amp_value name = amp_text(""), ask = { NULL, 0 };
	enum verdict verdict = DELIVER;
	enum q2q_command command;

	(void)amp_get(box, "_command", &name);
	if (amp_get(box, "_ask", &ask) && ask.n_bytes > ASK_MAX_BYTES) {
		conn_over(conn, -EBADMSG, "the peer numbers its questions by something too long");
		return false;
	}
	if (q2q_command_find(&name, &command) < 0 || !(command_of(command)->ports & PORT_CONTROL) ||
	    !(conn->config.role == Q2Q_CLIENT ? command_of(command)->by_server
					      : command_of(command)->by_client)) {
		answer_unhandled(conn, &ask, &name);
		return false;
	}
	if (q2q_call_decode(command, box, &event->call) < 0) {
		refuse(conn, &ask, -EBADMSG, "the peer sent a command with bad arguments");
		return false;
	}
	if (handlers[command])
		verdict = handlers[command](conn, &event->call, &ask, event, now_us);
	return verdict == DELIVER ? deliver(conn, &ask, event) : verdict == MADE_EVENT;
}

bool conn_handle_box(struct q2q_conn *conn, const struct amp_box *box, struct q2q_event *event,
		     uint64_t now_us)
{
	switch (amp_box_shape(box)) {
	case AMP_SHAPE_ANSWER:
		return handle_answer(conn, box, event, now_us);
	case AMP_SHAPE_ERROR:
		return handle_error(conn, box, event, now_us);
	case AMP_SHAPE_COMMAND:
		return handle_command(conn, box, event, now_us);
	case AMP_SHAPE_NONE:
		break;
	}
	conn_over(conn, -EBADMSG, "the peer sent a box that is neither question nor answer");
	return false;
}

/* ---- our answers
 * ------------------------------------------------------------------------------------- */

int q2q_conn_answer(struct q2q_conn *conn, uint64_t ask, const struct q2q_answer *answer,
		    uint64_t now_us)
{
	struct pending *pending = conn_pending(conn, ask);
	struct amp_box box;
	int r = 0;

	if (!pending)
		return -ENOENT;
	if (pending->command == Q2Q_SECURE || pending->command == Q2Q_RETRIEVE_CONNECTION ||
	    (answer && answer->command != pending->command) ||
	    (!answer && command_of(pending->command)->answer))
		return -EINVAL;
	amp_box_init(&box);
	amp_put(&box, "_answer", pending->ask, pending->ask_bytes);
	buffer_consume(&conn->scratch, buffer_used(&conn->scratch));
	if (answer)
		r = q2q_answer_encode(answer, &box, &conn->scratch);
	if (r < 0)
		return r;
	if (pending->virtual_id != 0)
		return virtual_answer_box(conn, pending, &box, false, now_us);
	conn_must_send(conn, &box);
	if (conn->state != CONN_OVER)
		conn_unpend(conn, pending);
	return 0;
}

/* What the command may say on the wire; anything else is UNKNOWN, and ends the stream. */
static enum q2q_error wire_error(const struct pending *pending, enum q2q_error error)
{
	const bool new_ones =
		error == Q2Q_ERROR_WRONG_PASSWORD || error == Q2Q_ERROR_TOO_MANY_ATTEMPTS;

	if (error == Q2Q_ERROR_UNHANDLED)
		return error;
	if (error >= Q2Q_ERROR_OTHER || !(command_of(pending->command)->errors & ERROR_BIT(error)))
		return Q2Q_ERROR_UNKNOWN;
	if (pending->command == Q2Q_SIGN && new_ones && !pending->q2q_tun)
		return Q2Q_ERROR_UNKNOWN;
	return error;
}

int q2q_conn_fail(struct q2q_conn *conn, uint64_t ask, enum q2q_error error,
		  const char *description, uint64_t now_us)
{
	struct pending *pending = conn_pending(conn, ask);
	enum q2q_error wire;
	struct amp_value text;
	struct amp_box box;
	bool end;

	if (!pending)
		return -ENOENT;
	wire = wire_error(pending, error);
	end = wire == Q2Q_ERROR_UNKNOWN ||
	      (command_of(pending->command)->fatal & ERROR_BIT(wire)) ||
	      pending->command == Q2Q_SECURE;
	text = amp_value(pending->ask, pending->ask_bytes);
	amp_box_init(&box);
	failure_encode(&box, &text, wire,
		       wire == Q2Q_ERROR_UNKNOWN ? "Unknown Error"
		       : description             ? description
						 : "");
	if (box.failed)
		return -EMSGSIZE;
	if (pending->virtual_id != 0)
		return virtual_answer_box(conn, pending, &box, end, now_us);
	conn_must_send(conn, &box);
	if (conn->state != CONN_OVER)
		conn_unpend(conn, pending);
	if (end)
		conn_over(conn, 0, "closed by us after an error");
	return 0;
}
