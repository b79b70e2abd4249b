/*
 * Packets of the device. To the peer: checked, rewritten to canonical addresses,
 * one message each. From the peer: the same in reverse; nothing passes whose
 * source is not the peer or whose destination is not us.
 */
#include "session/internal.h"

#define URGENT_RESENDS 1 /* what comes later than the next one is worthless */

void session_set_device(struct session *s, const struct tun_addresses *shown, uint32_t features)
{
	s->config.shown = *shown;
	s->features = features;
	s->has_device = true;
}

/* ---- to the peer ---- */

int session_tun_room(struct session *s, uint8_t **ret_room)
{
	switch (s->state) {
	case SESSION_UP:
	case SESSION_STALLED:
		break;
	case SESSION_RENDEZVOUS:
	case SESSION_CONNECTING:
		/* A moment, then it can travel: what waits in the device is the user's first
		 * packet. */
		return SESSION_BLOCKED;
	default:
		return SESSION_DISCARD;
	}
	s->tun_room = ptcp_message_reserve(s->assoc);
	if (!s->tun_room) {
		s->tun_waits = true;
		return SESSION_BLOCKED;
	}
	*ret_room = s->tun_room;
	return 0;
}

/* How many bytes of the room are a message now; 0: none. */
static size_t make_message(struct session *s, size_t frame_bytes, struct tun_packet *packet)
{
	uint8_t header[TUN_VNET_BYTES];

	if (tun_packet_parse_frame(s->tun_room, frame_bytes, packet) ||
	    tun_packet_check(packet, &s->config.shown, TUN_TO_PEER))
		return 0;
	tun_packet_translate(packet, &s->config.shown, &s->canonical);
	if (tun_packet_message_header(packet, header) > 0) {
		memcpy(s->tun_room, header, sizeof(header));
		return frame_bytes;
	}
	/* The packet goes alone. Those that do are small. */
	memmove(s->tun_room, packet->data, packet->data_bytes);
	return packet->data_bytes;
}

void session_tun_commit(struct session *s, size_t frame_bytes, uint64_t now_us)
{
	struct ptcp_message_info info = { .flow = 0 };
	struct tun_packet packet = { .data = NULL };
	size_t n_bytes = 0;

	if (!s->assoc || !s->tun_room)
		return;
	if (frame_bytes > 0) {
		n_bytes = s->has_device ? make_message(s, frame_bytes, &packet) : 0;
		if (n_bytes == 0)
			s->tun_bad++;
	}
	if (n_bytes > 0) {
		info.flow = tun_packet_flow(&packet, &s->config.flow_seed);
		/* To hold acknowledgements for one that was lost would stop the flow for nothing. */
		info.ordered = packet.tcp && !packet.pure_ack;
		info.urgent = packet.urgent;
		info.resends_max = packet.urgent ? URGENT_RESENDS : 0;
		info.dscp = s->config.copy_dscp ? packet.dscp : 0;
		s->tun_sent++;
		s->tun_sent_bytes += packet.data_bytes;
	}
	ptcp_message_commit(s->assoc, &info, n_bytes, now_us);
	s->tun_room = NULL;
}

bool session_tun_full(const struct session *s)
{
	return s->assoc && !ptcp_message_room(s->assoc);
}

/* ---- from the peer ---- */

/* The next message that is a packet for us, in s->packet. */
static bool next_packet(struct session *s)
{
	const uint8_t *data;
	size_t n_bytes;

	while (s->assoc && ptcp_message_next(s->assoc, &data, &n_bytes)) {
		/* Lent to us alone, until the next call: it is rewritten in place. */
		uint8_t *message = (uint8_t *)(uintptr_t)data;

		if (s->has_device && !tun_packet_parse_message(message, n_bytes, &s->packet) &&
		    !tun_packet_check(&s->packet, &s->canonical, TUN_FROM_PEER)) {
			tun_packet_translate(&s->packet, &s->canonical, &s->config.shown);
			s->tun_received++;
			s->tun_received_bytes += s->packet.data_bytes;
			return true;
		}
		s->peer_bad++;
	}
	return false;
}

static bool next_segment(struct session *s, struct session_frame *frame)
{
	const size_t n_bytes =
		tun_segments_next(&s->segments, s->scratch->segment, TUN_PACKET_BYTES);

	if (n_bytes == 0)
		return false;
	memset(frame->header, 0, sizeof(frame->header));
	frame->packet = s->scratch->segment;
	frame->packet_bytes = n_bytes;
	return true;
}

bool session_tun_next(struct session *s, struct session_frame *ret_frame)
{
	for (;;) {
		if (s->segmenting && next_segment(s, ret_frame))
			return true;
		s->segmenting = false;
		if (!next_packet(s))
			return false;
		if (tun_packet_fits(&s->packet, s->features)) {
			tun_packet_vnet(&s->packet, ret_frame->header);
			ret_frame->packet = s->packet.data;
			ret_frame->packet_bytes = s->packet.data_bytes;
			return true;
		}
		tun_segments_init(&s->segments, &s->packet);
		s->segmenting = true;
	}
}
