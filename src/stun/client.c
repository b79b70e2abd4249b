/*
 * client - one Binding transaction: requests until an answer comes or all tries
 * are used up (RFC 8489, section 6.2.1; our first RTO is 250 ms, for a tunnel
 * waits for the outcome and a lost datagram should not cost more).
 */
#include "stun/stun.h"

#define LAST_WAIT_RTOS 16 /* Rm: how long to wait after the last request, in first RTOs */

void stun_client_start(struct stun_client *c, const uint8_t transaction[STUN_TRANSACTION_BYTES],
		       uint64_t now_us)
{
	*c = (struct stun_client){ .state = STUN_WAITING, .send_due = true, .deadline_us = now_us };
	memcpy(c->transaction, transaction, STUN_TRANSACTION_BYTES);
}

static void fail(struct stun_client *c, int error)
{
	c->state = STUN_FAILED;
	c->error = error;
	c->send_due = false;
	c->deadline_us = NEVER_US;
}

int stun_client_input(struct stun_client *c, const void *data, size_t data_bytes, uint64_t now_us)
{
	struct stun_message m;

	if (c->state != STUN_WAITING || !c->n_sent || stun_decode(data, data_bytes, &m) < 0)
		return -EBADMSG;
	if (m.method != STUN_BINDING || (m.class != STUN_SUCCESS && m.class != STUN_ERROR) ||
	    memcmp(m.transaction, c->transaction, STUN_TRANSACTION_BYTES) != 0)
		return -EBADMSG;
	c->rtt_us = now_us - c->sent_us;
	if (m.class == STUN_ERROR || m.n_unknown || m.mapped.ip.family == FAMILY_NONE ||
	    m.mapped.port == 0) {
		c->error_code = m.error_code;
		fail(c, -EPROTO);
		return 0;
	}
	c->mapped = m.mapped;
	c->other = m.other;
	c->state = STUN_DONE;
	c->send_due = false;
	c->deadline_us = NEVER_US;
	return 0;
}

size_t stun_client_output(struct stun_client *c, uint8_t *out, size_t out_bytes, uint64_t now_us)
{
	struct stun_message m = { .class = STUN_REQUEST,
				  .method = STUN_BINDING,
				  .has_fingerprint = true };
	size_t n_bytes;

	if (c->state != STUN_WAITING || !c->send_due)
		return 0;
	memcpy(m.transaction, c->transaction, STUN_TRANSACTION_BYTES);
	n_bytes = stun_encode(&m, out, out_bytes);
	if (!n_bytes)
		return 0;
	c->send_due = false;
	c->sent_us = now_us;
	c->deadline_us = now_us + (STUN_RTO_US << c->n_sent);
	c->n_sent++;
	if (c->n_sent == STUN_TRIES)
		c->deadline_us = now_us + LAST_WAIT_RTOS * STUN_RTO_US;
	return n_bytes;
}

uint64_t stun_client_deadline_us(const struct stun_client *c)
{
	return c->state == STUN_WAITING ? c->deadline_us : NEVER_US;
}

void stun_client_tick(struct stun_client *c, uint64_t now_us)
{
	if (c->state != STUN_WAITING || c->send_due || now_us < c->deadline_us)
		return;
	if (c->n_sent == STUN_TRIES)
		fail(c, -ETIMEDOUT);
	else
		c->send_due = true;
}
