/*
 * conn_refuse - RSTs for connections of the peer's that we do not have.
 *
 * Refused SYNs, and SYN+ACKs that came after we gave up. In a sent record such
 * a RST has conn 0 and the peer's id as its offset.
 */
#include "ptcp/conn_private.h"

static struct conn_refusal *find(struct ptcp_conns *t, uint32_t remote_id)
{
	for (uint32_t i = 0; i < CONN_N_REFUSED && t->n_refusals > 0; i++)
		if (t->refusals[i].state != REFUSAL_FREE && t->refusals[i].remote_id == remote_id)
			return &t->refusals[i];
	return NULL;
}

/* The one place that changes the state of a refusal. */
static void set_state(struct ptcp_conns *t, struct conn_refusal *r, enum refusal_state state)
{
	t->n_refusals += (state != REFUSAL_FREE) - (unsigned)(r->state != REFUSAL_FREE);
	t->n_due += (state == REFUSAL_DUE) - (unsigned)(r->state == REFUSAL_DUE);
	r->state = state;
}

/*
 * When all are taken, one for a SYN gives way to one for a connection that is open at the peer: it
 * has a timeout that ends it, the other has not.
 */
static struct conn_refusal *choose(struct ptcp_conns *t, bool is_open)
{
	for (uint32_t i = 0; i < CONN_N_REFUSED; i++)
		if (t->refusals[i].state == REFUSAL_FREE)
			return &t->refusals[i];
	for (uint32_t i = 0; i < CONN_N_REFUSED; i++)
		if (is_open && !t->refusals[i].is_open)
			return &t->refusals[i];
	return NULL;
}

void conn_refuse(struct ptcp_conns *t, uint32_t remote_id, enum ptcp_conn_error error, bool is_open)
{
	struct conn_refusal *r = find(t, remote_id);

	if (t->lost || r)
		return;
	r = choose(t, is_open);
	if (!r)
		return;
	set_state(t, r, REFUSAL_FREE);
	r->remote_id = remote_id;
	r->error = (uint8_t)error;
	r->is_open = is_open;
	set_state(t, r, REFUSAL_DUE);
}

bool conn_refusal_write(struct ptcp_conns *t, struct writer *w, struct ptcp_conn_sent *ret_sent)
{
	struct conn_refusal *r = t->refusals;

	if (writer_left(w) < CONN_FRAME_ROOM_BYTES)
		return false;
	while (r->state != REFUSAL_DUE)
		r++;
	writer_varint(w, CONN_FRAME_RST);
	writer_varint(w, r->remote_id);
	writer_varint(w, r->error);
	*ret_sent = (struct ptcp_conn_sent){ .offset = r->remote_id, .type = CONN_FRAME_RST };
	set_state(t, r, REFUSAL_SENT);
	return true;
}

void conn_refusal_acked(struct ptcp_conns *t, uint32_t remote_id)
{
	struct conn_refusal *r = find(t, remote_id);

	if (r)
		set_state(t, r, REFUSAL_FREE);
}

void conn_refusal_lost(struct ptcp_conns *t, uint32_t remote_id)
{
	struct conn_refusal *r = find(t, remote_id);

	if (r)
		set_state(t, r, REFUSAL_DUE);
}

void conn_refusal_clear(struct ptcp_conns *t)
{
	for (uint32_t i = 0; i < CONN_N_REFUSED; i++)
		set_state(t, &t->refusals[i], REFUSAL_FREE);
}
