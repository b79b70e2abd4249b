/*
 * Datagrams in: header, replay window, keys, then each frame to its owner.
 *
 * Nothing changes before a packet has authenticated. What is malformed inside
 * an authenticated packet closes the association: the peer is broken.
 */
#include "ptcp/assoc.h"

#define ACK_EVERY_FIRST 2
#define ACK_EVERY       10
#define ACK_WARM_UP     100 /* packets */

typedef int frame_fn(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r);

static int on_padding(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)a;
	(void)p;
	(void)type;
	while (r->left_bytes > 0 && r->data[0] == FRAME_PADDING) {
		r->data++;
		r->left_bytes--;
	}
	return 0;
}

static int on_ping(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	const uint32_t id = reader_u32(r);

	(void)p;
	(void)type;
	if (r->failed)
		return -EBADMSG;
	if (id != 0 && a->n_pongs < PONGS_MAX)
		a->pongs[a->n_pongs++] = id;
	return 0;
}

static int on_pong(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	const uint32_t id = reader_u32(r);

	(void)type;
	if (r->failed)
		return -EBADMSG;
	for (unsigned i = 0; i < a->n_pings; i++) {
		const struct ping ping = a->pings[i];

		if (ping.wire_id != id || ping.sent_us == NEVER_US)
			continue;
		a->n_pings--;
		memmove(&a->pings[i], &a->pings[i + 1], (a->n_pings - i) * sizeof(ping));
		assoc_event(a, &(struct ptcp_event){
				       .type = PTCP_EVENT_PONG,
				       .pong = { .id = ping.id,
						 .path_id = p->id,
						 .rtt_us = a->now_us - ping.sent_us },
			       });
		break;
	}
	return 0;
}

static int on_ack(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)p;
	return recovery_ack_frame(a, r, type == FRAME_ACK_ECN);
}

static int on_handshake(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)p;
	(void)type;
	return handshake_frame(a, r);
}

static int on_handshake_done(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)p;
	(void)type;
	(void)r;
	if (a->config.role != PTCP_CLIENT)
		return -EBADMSG;
	handshake_confirmed(a);
	return 0;
}

static int on_challenge(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)type;
	return path_challenge_frame(a, p, r);
}

static int on_response(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)type;
	return path_response_frame(a, p, r);
}

static int on_close(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	const uint64_t code = reader_varint(r);

	(void)p;
	(void)type;
	if (r->failed)
		return -EBADMSG;
	assoc_closed(a, code, true, "the peer's close");
	return 0;
}

static int on_abandon(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)p;
	(void)type;
	return receiver_abandon_frame(a, r);
}

static int on_message(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)p;
	return receiver_message_frame(a, type, r);
}

static int on_conn(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)p;
	return ptcp_conns_frame(a->conns, type, r, a->now_us);
}

static int on_parity(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)p;
	(void)type;
	return parity_frame(a, r);
}

static int on_repaired(struct ptcp_assoc *a, struct path *p, uint8_t type, struct reader *r)
{
	(void)p;
	(void)type;
	return parity_repaired_frame(a, r);
}

#define IN_HANDSHAKE 0x01 /* may come in a handshake packet */
#define IN_PACKET    0x02
#define IN_REBUILT   0x08 /* ... and in one that parity brought back */
#define IN_DATA      (IN_PACKET | IN_REBUILT)
#define ELICITS      0x04 /* wants an acknowledgement */

/* An empty cell is a frame that does not exist. */
/* clang-format off */
static const struct {
	frame_fn *take;
	uint8_t flags;
} frames[CONN_FRAME_LAST + 1] = {
	[FRAME_PADDING]        = { on_padding,        IN_HANDSHAKE | IN_DATA },
	[FRAME_PING]           = { on_ping,           IN_DATA | ELICITS },
	[FRAME_PONG]           = { on_pong,           IN_DATA },
	[FRAME_ACK]            = { on_ack,            IN_DATA },
	[FRAME_ACK_ECN]        = { on_ack,            IN_DATA },
	[FRAME_HANDSHAKE]      = { on_handshake,      IN_HANDSHAKE },
	[FRAME_HANDSHAKE_DONE] = { on_handshake_done, IN_DATA | ELICITS },
	[FRAME_PATH_CHALLENGE] = { on_challenge,      IN_PACKET },
	[FRAME_PATH_RESPONSE]  = { on_response,       IN_PACKET },
	[FRAME_CLOSE]          = { on_close,          IN_HANDSHAKE | IN_DATA },
	[FRAME_ABANDON]        = { on_abandon,        IN_DATA | ELICITS },
	[FRAME_PARITY]         = { on_parity,         IN_PACKET | ELICITS },
	[FRAME_REPAIRED]       = { on_repaired,       IN_DATA },
	[FRAME_MESSAGE ... FRAME_MESSAGE_LAST] = { on_message, IN_DATA | ELICITS },
	[CONN_FRAME_FIRST ... CONN_FRAME_LAST] = { on_conn,    IN_DATA | ELICITS },
};
/* clang-format on */

static int take_frames(struct ptcp_assoc *a, struct path *p, struct reader *r, uint8_t epoch,
		       bool *ret_elicits)
{
	while (r->left_bytes > 0) {
		const uint8_t type = reader_u8(r);

		if (type >= ARRAY_SIZE(frames) || !frames[type].take ||
		    (frames[type].flags & epoch) == 0)
			return -EBADMSG;
		/* While closing, the peer's close is all we want to hear. */
		if (a->state >= PTCP_CLOSING && type != FRAME_CLOSE && type != FRAME_PADDING)
			return 0;
		int e = frames[type].take(a, p, type, r);
		if (e < 0)
			return e;
		*ret_elicits |= (frames[type].flags & ELICITS) != 0;
	}
	return 0;
}

/* The path a packet that authenticated came on. NULL: there are too many. */
static struct path *path_of(struct ptcp_assoc *a, uint32_t path_id, size_t n_bytes)
{
	struct path *p = path_find(a, path_id);

	if (!p)
		p = path_provisional(a, path_id);
	if (!p)
		return NULL;
	a->stats.packets_received++;
	a->stats.bytes_received += n_bytes;
	a->last_received_us = a->now_us;
	path_received(a, p, n_bytes);
	return p;
}

static int input_handshake(struct ptcp_assoc *a, uint32_t path_id, uint8_t *data, size_t n_bytes,
			   const struct packet_header *header)
{
	struct handshake *const h = &a->handshake;
	const struct ptcp_crypto *const c = &a->config.crypto;
	const uint64_t pn = packet_expand_pn(h->largest_pn, header->pn_low);
	struct reader r = reader_over(data + header->header_bytes,
				      n_bytes - header->header_bytes - PTCP_TAG_BYTES);
	bool elicits = false;

	if (!secret_equal(header->source, a->config.remote_cid, PTCP_CID_BYTES))
		return -EBADMSG;
	if (replay_seen(&h->replay, pn))
		return -ESTALE;
	if (c->open(c->ctx, PTCP_EPOCH_HANDSHAKE, 0, pn, data, header->header_bytes,
		    data + header->header_bytes, n_bytes - header->header_bytes) < 0)
		return -EBADMSG;
	replay_mark(&h->replay, pn);
	h->largest_pn = max_u64(h->largest_pn, pn);

	struct path *const p = path_of(a, path_id, n_bytes);
	if (!p)
		return -EBADMSG;
	if (!h->confirmed)
		h->path_id = path_id;
	if (take_frames(a, p, &r, IN_HANDSHAKE, &elicits) < 0) {
		assoc_fail(a, PTCP_CLOSE_PROTOCOL);
		return -EBADMSG;
	}
	return 0;
}

static struct ack_policy ack_policy(const struct ptcp_assoc *a, const struct path *p)
{
	return (struct ack_policy){
		.n_every = a->ack.n_received < ACK_WARM_UP ? ACK_EVERY_FIRST : ACK_EVERY,
		.delay_us = min_u64(max_u64(rtt_smoothed_us(&p->rtt) / 8, ACK_DELAY_MIN_US),
				    ACK_DELAY_MAX_US),
	};
}

/* Packets that parity brought back: their frames count as if they had come, once. */
static int take_rebuilt(struct ptcp_assoc *a, struct path *p)
{
	const uint8_t *rebuilt;
	size_t n_bytes;
	uint64_t pn;

	for (;;) {
		bool elicits = false;
		int e = parity_rebuild(a, &pn, &rebuilt, &n_bytes);

		if (e < 0 || n_bytes == 0)
			return e;
		struct reader r = reader_over(rebuilt, n_bytes);
		replay_mark(&a->replay, pn);
		e = take_frames(a, p, &r, IN_REBUILT, &elicits);
		if (e < 0)
			return e;
		a->ack.deadline_us = a->now_us; /* the sender is about to send it again */
	}
}

/* Rebuilt a moment ago, and here it is: only its number is news. */
static int input_late(struct ptcp_assoc *a, uint64_t pn, uint8_t *data, size_t n_bytes, uint8_t ecn,
		      const struct packet_header *header)
{
	static const struct ack_policy at_once = { .n_every = 1 };

	if (keys_open(a, header->phase, pn, data, header->header_bytes, data + header->header_bytes,
		      n_bytes - header->header_bytes) < 0)
		return -EBADMSG;
	parity_came_late(a, pn);
	ack_on_packet(&a->ack, pn, true, ecn & 3, &at_once, a->now_us);
	return -ESTALE;
}

static int input_data(struct ptcp_assoc *a, uint32_t path_id, uint8_t *data, size_t n_bytes,
		      uint8_t ecn, const struct packet_header *header)
{
	const uint64_t pn = packet_expand_pn(a->replay.next, header->pn_low);
	struct reader r = reader_over(data + header->header_bytes,
				      n_bytes - header->header_bytes - PTCP_TAG_BYTES);
	bool elicits = false;

	if (!a->handshake.done)
		return -EBADMSG; /* too soon: it will be sent again */
	if (header->covered && !a->config.parity)
		return -EBADMSG;
	if (replay_seen(&a->replay, pn))
		return parity_was_rebuilt(a, pn) ? input_late(a, pn, data, n_bytes, ecn, header)
						 : -ESTALE;
	int e = keys_open(a, header->phase, pn, data, header->header_bytes,
			  data + header->header_bytes, n_bytes - header->header_bytes);
	if (e < 0)
		return -EBADMSG;
	struct path *const p = path_of(a, path_id, n_bytes);
	if (!p)
		return -EBADMSG;
	replay_mark(&a->replay, pn);
	/* An early server sends before it knows that our TLS is complete. */
	if (!a->handshake.confirmed && !a->config.early)
		handshake_confirmed(a);
	a->parity_rx.input_pn = pn;
	if (header->covered)
		parity_keep(a, pn, r.data, r.left_bytes);
	if (take_frames(a, p, &r, IN_PACKET, &elicits) < 0 ||
	    (a->parity_rx.n_ready > 0 && take_rebuilt(a, p) < 0)) {
		assoc_fail(a, PTCP_CLOSE_PROTOCOL);
		return -EBADMSG;
	}
	if (elicits)
		path_heard_data(a, p);
	const struct ack_policy policy = ack_policy(a, p);
	ack_on_packet(&a->ack, pn, elicits, ecn & 3, &policy, a->now_us);
	return 0;
}

int ptcp_input(struct ptcp_assoc *a, uint32_t path_id, uint8_t *data, size_t n_bytes, uint8_t ecn,
	       uint64_t now_us)
{
	struct packet_header header;
	int e = packet_parse(data, n_bytes, &header);

	assoc_now(a, now_us);
	if (a->state == PTCP_CLOSED)
		return -ENOTCONN;
	if (e == 0 && memcmp(header.destination, a->config.local_cid, PTCP_CID_BYTES) != 0)
		e = -EBADMSG;
	if (e == 0 && path_id == PTCP_PATH_NONE)
		e = -EBADMSG;
	if (e == 0)
		e = header.is_long ? input_handshake(a, path_id, data, n_bytes, &header)
				   : input_data(a, path_id, data, n_bytes, ecn, &header);
	a->stats.packets_bad += e == -EBADMSG;
	a->stats.packets_duplicate += e == -ESTALE;
	return e;
}
