/*
 * conn_state - the states of RFC 9293, section 3.3.2, as a table.
 *
 * What differs from TCP: segments are frames in sealed packets, so "the peer
 * has our SYN+ACK" and "the peer has our FIN" come from the acknowledgement of
 * packets, or from any later frame; a FIN counts when the stream is whole up to
 * it; connections are known by ids that never come again, so no old segment can
 * be taken for a new one, and TIME_WAIT only keeps the pair of ports from being
 * used at once. What is true in each state is checked in assert_state().
 */
#include "ptcp/conn_private.h"

static const char *const state_names[] = {
	"CLOSED",     "LISTEN",     "SYN_SENT", "SYN_RCVD", "ESTABLISHED", "FIN_WAIT_1",
	"FIN_WAIT_2", "CLOSE_WAIT", "CLOSING",  "LAST_ACK", "TIME_WAIT",
};
static_assert(ARRAY_SIZE(state_names) == PTCP_CONN_STATE_COUNT, "one name per state");

static const char *const input_names[] = {
	"PASSIVE_OPEN", "ACTIVE_OPEN", "ACCEPT", "SHUTDOWN",  "CLOSE", "ABORT",   "SYN",
	"SYN_ACK",      "SYN_ACKED",   "FIN",    "FIN_ACKED", "RST",   "TIMEOUT", "LOST",
};
static_assert(ARRAY_SIZE(input_names) == PTCP_CONN_INPUT_COUNT, "one name per input");

static const char *const error_names[] = {
	"ok",
	"refused",
	"busy",
	"aborted",
	"closed with unread data",
	"timed out",
	"broken rule",
	"no memory",
	"association closed",
};
static_assert(ARRAY_SIZE(error_names) == PTCP_CONN_ERROR_COUNT, "one name per error");

const char *ptcp_conn_state_name(enum ptcp_conn_state state)
{
	return (unsigned)state < PTCP_CONN_STATE_COUNT ? state_names[state] : "?";
}

const char *ptcp_conn_input_name(enum ptcp_conn_input input)
{
	return (unsigned)input < PTCP_CONN_INPUT_COUNT ? input_names[input] : "?";
}

const char *ptcp_conn_error_name(enum ptcp_conn_error error)
{
	return (unsigned)error < PTCP_CONN_ERROR_COUNT ? error_names[error] : "?";
}

/* ---- actions: act on one input, return the state to enter --------------------- */

typedef enum ptcp_conn_state action_fn(struct conn *c, uint64_t now_us);

static enum ptcp_conn_state listen_(struct conn *c, uint64_t now_us)
{
	(void)c;
	(void)now_us;
	return PTCP_CONN_LISTEN;
}

static enum ptcp_conn_state open_(struct conn *c, uint64_t now_us)
{
	conn_in_init(c, now_us);
	c->want_syn = true;
	return PTCP_CONN_SYN_SENT;
}

/* A SYN for a listener: the application decides what to answer. */
static enum ptcp_conn_state announce(struct conn *c, uint64_t now_us)
{
	conn_in_init(c, now_us);
	c->incoming = true;
	conn_event(c, PTCP_CONN_EVENT_INCOMING);
	return PTCP_CONN_SYN_RCVD;
}

static enum ptcp_conn_state accept_(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->accepted = c->want_syn_ack = true;
	return c->state;
}

/* Simultaneous open: both sent SYNs, so nobody has to be asked. */
static enum ptcp_conn_state cross(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->want_syn = false;
	c->accepted = c->want_syn_ack = true;
	return PTCP_CONN_SYN_RCVD;
}

/* The peer is there and ready. A shutdown that came before is made up for in conn_dispatch(). */
static enum ptcp_conn_state establish(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->syn_acked = true;
	c->want_syn = c->want_syn_ack = false;
	return PTCP_CONN_ESTABLISHED;
}

/* A close came before the end of the handshake; now data and FIN may leave. */
static enum ptcp_conn_state note_syn_acked(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->syn_acked = true;
	c->want_syn_ack = false;
	return c->state;
}

static enum ptcp_conn_state fin_later(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->out.fin = true;
	return c->state;
}

/* RFC 9293, 3.10.4: a SYN that was not accepted yet is refused, not closed. */
static enum ptcp_conn_state end_in_syn_rcvd(struct conn *c, uint64_t now_us)
{
	if (!c->accepted)
		return fin_later(c, now_us);
	c->out.fin = true;
	return PTCP_CONN_FIN_WAIT_1;
}

static enum ptcp_conn_state reset(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->rst_owed = c->want_rst = true;
	return PTCP_CONN_CLOSED;
}

static enum ptcp_conn_state close_in_syn_rcvd(struct conn *c, uint64_t now_us)
{
	if (c->accepted)
		return end_in_syn_rcvd(c, now_us);
	c->error = PTCP_CONN_REFUSED;
	return reset(c, now_us);
}

static enum ptcp_conn_state fin_first(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->out.fin = true;
	return PTCP_CONN_FIN_WAIT_1;
}

static enum ptcp_conn_state fin_second(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->out.fin = true;
	return PTCP_CONN_LAST_ACK;
}

static enum ptcp_conn_state peer_first(struct conn *c, uint64_t now_us)
{
	(void)c;
	(void)now_us;
	return PTCP_CONN_CLOSE_WAIT;
}

static enum ptcp_conn_state both_fins(struct conn *c, uint64_t now_us)
{
	(void)c;
	(void)now_us;
	return PTCP_CONN_CLOSING;
}

static enum ptcp_conn_state wait_for_peer(struct conn *c, uint64_t now_us)
{
	(void)c;
	(void)now_us;
	return PTCP_CONN_FIN_WAIT_2;
}

static enum ptcp_conn_state wait_time(struct conn *c, uint64_t now_us)
{
	(void)c;
	(void)now_us;
	return PTCP_CONN_TIME_WAIT;
}

/* The same state; what else a close means was done in ptcp_conns_close(). */
static enum ptcp_conn_state stay(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	return c->state;
}

static enum ptcp_conn_state end(struct conn *c, uint64_t now_us)
{
	(void)c;
	(void)now_us;
	return PTCP_CONN_CLOSED;
}

/* Both streams had ended: the rest is forgotten without a word (RFC 9293, 3.10.7.4). */
static enum ptcp_conn_state end_well(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->error = PTCP_CONN_OK;
	c->by_peer = false;
	return PTCP_CONN_CLOSED;
}

/* We know no id of the peer's yet; its SYN+ACK, if one comes, will be answered by a RST. */
static enum ptcp_conn_state give_up(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	if (c->error == PTCP_CONN_OK)
		c->error = PTCP_CONN_ABORTED;
	return PTCP_CONN_CLOSED;
}

static enum ptcp_conn_state time_out(struct conn *c, uint64_t now_us)
{
	c->error = PTCP_CONN_TIMED_OUT;
	return reset(c, now_us);
}

static enum ptcp_conn_state time_out_unheard(struct conn *c, uint64_t now_us)
{
	(void)now_us;
	c->error = PTCP_CONN_TIMED_OUT;
	return PTCP_CONN_CLOSED;
}

/*
 * An empty cell: the input means nothing in that state and changes nothing.
 * LISTEN takes a SYN only in the copy of the listener that the SYN brought into being.
 */
/* clang-format off */
static action_fn *const table[PTCP_CONN_STATE_COUNT][PTCP_CONN_INPUT_COUNT] = {
	[PTCP_CONN_CLOSED] = {
		[PTCP_CONN_PASSIVE_OPEN] = listen_,
		[PTCP_CONN_ACTIVE_OPEN]  = open_,
		[PTCP_CONN_CLOSE]        = stay,
	},
	[PTCP_CONN_LISTEN] = {
		[PTCP_CONN_SYN]          = announce,
		[PTCP_CONN_CLOSE]        = end,
		[PTCP_CONN_ABORT]        = end,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_SYN_SENT] = {
		[PTCP_CONN_SYN]          = cross,
		[PTCP_CONN_SYN_ACK]      = establish,
		[PTCP_CONN_SHUTDOWN]     = fin_later,
		[PTCP_CONN_CLOSE]        = give_up,
		[PTCP_CONN_ABORT]        = give_up,
		[PTCP_CONN_RST]          = end,
		[PTCP_CONN_TIMEOUT]      = time_out_unheard,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_SYN_RCVD] = {
		[PTCP_CONN_ACCEPT]       = accept_,
		[PTCP_CONN_SYN_ACK]      = establish,
		[PTCP_CONN_SYN_ACKED]    = establish,
		[PTCP_CONN_SHUTDOWN]     = end_in_syn_rcvd,
		[PTCP_CONN_CLOSE]        = close_in_syn_rcvd,
		[PTCP_CONN_ABORT]        = reset,
		[PTCP_CONN_RST]          = end,
		[PTCP_CONN_TIMEOUT]      = time_out,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_ESTABLISHED] = {
		[PTCP_CONN_SHUTDOWN]     = fin_first,
		[PTCP_CONN_CLOSE]        = fin_first,
		[PTCP_CONN_ABORT]        = reset,
		[PTCP_CONN_FIN]          = peer_first,
		[PTCP_CONN_RST]          = end,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_FIN_WAIT_1] = {
		[PTCP_CONN_SYN_ACK]      = note_syn_acked,
		[PTCP_CONN_SYN_ACKED]    = note_syn_acked,
		[PTCP_CONN_CLOSE]        = stay,
		[PTCP_CONN_ABORT]        = reset,
		[PTCP_CONN_FIN]          = both_fins,
		[PTCP_CONN_FIN_ACKED]    = wait_for_peer,
		[PTCP_CONN_RST]          = end,
		[PTCP_CONN_TIMEOUT]      = time_out,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_FIN_WAIT_2] = {
		[PTCP_CONN_CLOSE]        = stay,
		[PTCP_CONN_ABORT]        = reset,
		[PTCP_CONN_FIN]          = wait_time,
		[PTCP_CONN_RST]          = end,
		[PTCP_CONN_TIMEOUT]      = time_out,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_CLOSE_WAIT] = {
		[PTCP_CONN_SHUTDOWN]     = fin_second,
		[PTCP_CONN_CLOSE]        = fin_second,
		[PTCP_CONN_ABORT]        = reset,
		[PTCP_CONN_RST]          = end,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_CLOSING] = {
		[PTCP_CONN_CLOSE]        = stay,
		[PTCP_CONN_ABORT]        = reset,
		[PTCP_CONN_FIN_ACKED]    = wait_time,
		[PTCP_CONN_RST]          = end,
		[PTCP_CONN_TIMEOUT]      = time_out,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_LAST_ACK] = {
		[PTCP_CONN_CLOSE]        = stay,
		[PTCP_CONN_ABORT]        = reset,
		[PTCP_CONN_FIN_ACKED]    = end_well,
		[PTCP_CONN_RST]          = end,
		[PTCP_CONN_TIMEOUT]      = time_out,
		[PTCP_CONN_LOST]         = end,
	},
	[PTCP_CONN_TIME_WAIT] = {
		[PTCP_CONN_CLOSE]        = stay,
		[PTCP_CONN_ABORT]        = end_well,
		[PTCP_CONN_RST]          = end_well,
		[PTCP_CONN_TIMEOUT]      = end_well,
		[PTCP_CONN_LOST]         = end_well,
	},
};
/* clang-format on */

/* ---- the one place that assigns the state ------------------------------------- */

static void assert_state(const struct conn *c)
{
	const bool sent_all = c->out.fin && c->out.fin_acked && c->out.una == c->out.end;
	const bool got_all = conn_in_whole(c);

	switch (c->state) {
	case PTCP_CONN_CLOSED:
		assert(c->deadline_us == NEVER_US && !c->out.ring.data);
		break;
	case PTCP_CONN_LISTEN:
		assert(c->remote_id == 0 && !c->incoming);
		break;
	case PTCP_CONN_SYN_SENT:
		assert(c->remote_id == 0 && c->deadline_us != NEVER_US);
		break;
	case PTCP_CONN_SYN_RCVD:
		assert(c->remote_id != 0 && !c->syn_acked && c->deadline_us != NEVER_US);
		break;
	case PTCP_CONN_ESTABLISHED:
		assert(c->remote_id != 0 && c->syn_acked && !got_all && !sent_all);
		break;
	case PTCP_CONN_FIN_WAIT_1:
		assert(c->out.fin && !sent_all && !got_all);
		break;
	case PTCP_CONN_FIN_WAIT_2:
		assert(sent_all && !got_all);
		break;
	case PTCP_CONN_CLOSE_WAIT:
		assert(got_all && !c->out.fin_sent);
		break;
	case PTCP_CONN_CLOSING:
	case PTCP_CONN_LAST_ACK:
		assert(got_all && c->out.fin && !sent_all);
		break;
	case PTCP_CONN_TIME_WAIT:
		assert(got_all && sent_all && c->deadline_us != NEVER_US);
		break;
	case PTCP_CONN_STATE_COUNT:
		break;
	}
}

static uint64_t time_wait_us(const struct ptcp_conns *t)
{
	const struct ptcp_conn_limits *l = &t->config.limits;

	return min_u64(max_u64(6 * t->pto_us, l->time_wait_min_us), l->time_wait_max_us);
}

static uint64_t deadline_of(const struct conn *c, uint64_t now_us)
{
	const struct ptcp_conn_limits *l = &c->table->config.limits;

	switch (c->state) {
	case PTCP_CONN_SYN_SENT:
	case PTCP_CONN_SYN_RCVD:
		return add_sat_u64(now_us, l->connect_timeout_us);
	case PTCP_CONN_FIN_WAIT_2:
		return c->released ? add_sat_u64(now_us, l->fin_timeout_us) : NEVER_US;
	case PTCP_CONN_TIME_WAIT:
		return add_sat_u64(now_us, time_wait_us(c->table));
	default:
		return NEVER_US;
	}
}

static void set_state(struct conn *c, enum ptcp_conn_state to, enum ptcp_conn_input because,
		      uint64_t now_us)
{
	const struct ptcp_conns_config *config = &c->table->config;
	const enum ptcp_conn_state from = c->state;

	c->state = to;
	conn_set_deadline(c, deadline_of(c, now_us));
	if (to == PTCP_CONN_ESTABLISHED) {
		conn_event(c, PTCP_CONN_EVENT_OPEN);
	} else if (to == PTCP_CONN_CLOSED) {
		conn_out_fini(c);
		if (c->released || !conn_in_whole(c))
			conn_in_fini(c);
		conn_event(c, PTCP_CONN_EVENT_CLOSED);
	}
	assert_state(c);
	if (config->trace)
		config->trace(config->trace_user, c->id, from, to, because, now_us);
}

bool conn_dispatch(struct conn *c, enum ptcp_conn_input input, uint64_t now_us)
{
	action_fn *const action = table[c->state][input];
	enum ptcp_conn_state to;

	if (!action)
		return false;
	to = action(c, now_us);
	if (to != c->state)
		set_state(c, to, input, now_us);
	/* A shutdown during the handshake was only noted; now it can be done. */
	if (c->state == PTCP_CONN_ESTABLISHED && c->out.fin)
		conn_dispatch(c, PTCP_CONN_SHUTDOWN, now_us);
	return true;
}

void conn_fail(struct conn *c, enum ptcp_conn_error error, uint64_t now_us)
{
	if (c->state == PTCP_CONN_CLOSED)
		return;
	c->error = error;
	conn_dispatch(c, PTCP_CONN_ABORT, now_us);
}

bool conn_can_send(const struct conn *c)
{
	switch (c->state) {
	case PTCP_CONN_ESTABLISHED:
	case PTCP_CONN_CLOSE_WAIT:
	case PTCP_CONN_FIN_WAIT_1:
	case PTCP_CONN_CLOSING:
	case PTCP_CONN_LAST_ACK:
		return c->syn_acked;
	default:
		return false;
	}
}

bool conn_can_receive(const struct conn *c)
{
	switch (c->state) {
	case PTCP_CONN_ESTABLISHED:
	case PTCP_CONN_FIN_WAIT_1:
	case PTCP_CONN_FIN_WAIT_2:
		return true;
	default:
		return false;
	}
}
