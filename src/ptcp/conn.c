/*
 * conn - what the application does with a connection.
 */
#include "ptcp/conn_private.h"

int ptcp_conns_accept(struct ptcp_conns *t, uint32_t id, uint64_t now_us)
{
	struct conn *c = conn_find(t, id);

	if (!c || c->released)
		return -ENOENT;
	if (c->accepted || !conn_dispatch(c, PTCP_CONN_ACCEPT, now_us))
		return -EINVAL;
	conn_settle(c, now_us);
	return 0;
}

int ptcp_conns_shutdown(struct ptcp_conns *t, uint32_t id, uint64_t now_us)
{
	struct conn *c = conn_find(t, id);

	if (!c || c->released)
		return -ENOENT;
	if (c->state == PTCP_CONN_CLOSED)
		return -ECONNRESET;
	if (c->state == PTCP_CONN_LISTEN)
		return -EINVAL;
	if (!c->out.fin)
		conn_dispatch(c, PTCP_CONN_SHUTDOWN, now_us);
	conn_settle(c, now_us);
	return 0;
}

static bool has_unread(const struct conn *c)
{
	return c->in.next > c->in.read || !conn_ranges_empty(&c->in.early);
}

int ptcp_conns_close(struct ptcp_conns *t, uint32_t id, uint64_t now_us)
{
	struct conn *c = conn_find(t, id);

	if (!c || c->released)
		return -ENOENT;
	c->released = true;
	if (has_unread(c) && c->state != PTCP_CONN_TIME_WAIT)
		conn_fail(c, PTCP_CONN_UNREAD, now_us);
	else
		conn_dispatch(c, PTCP_CONN_CLOSE, now_us);
	if (c->state == PTCP_CONN_CLOSED || c->state == PTCP_CONN_TIME_WAIT)
		conn_in_fini(c);
	if (c->state == PTCP_CONN_FIN_WAIT_2)
		conn_set_deadline(c, add_sat_u64(now_us, t->config.limits.fin_timeout_us));
	conn_settle(c, now_us);
	return 0;
}

int ptcp_conns_abort(struct ptcp_conns *t, uint32_t id, uint64_t now_us)
{
	struct conn *c = conn_find(t, id);

	if (!c || c->released)
		return -ENOENT;
	c->released = true;
	conn_fail(c, PTCP_CONN_ABORTED, now_us);
	conn_in_fini(c);
	conn_settle(c, now_us);
	return 0;
}

int ptcp_conns_info(const struct ptcp_conns *t, uint32_t id, struct ptcp_conn_info *ret_info)
{
	const struct conn *c = conn_find(t, id);
	size_t used_bytes;

	if (!c)
		return -ENOENT;
	used_bytes = (size_t)(c->out.end - c->out.una);
	*ret_info = (struct ptcp_conn_info){
		.state = c->state,
		.local_port = c->local_port,
		.remote_port = c->remote_port,
		.written_bytes = c->out.end,
		.acked_bytes = c->out.una,
		.received_bytes = c->in.next,
		.read_bytes = c->in.read,
		.resent_bytes = c->out.resent_bytes,
		.receive_window_bytes = (size_t)(c->in.limit - c->in.read),
		.send_room_bytes = t->config.limits.send_bytes -
				   min_size(used_bytes, t->config.limits.send_bytes),
	};
	return 0;
}
