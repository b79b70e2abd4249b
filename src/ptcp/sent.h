/*
 * sent - the packets that were sent and not yet forgotten, in a ring indexed by
 * packet number, and what each one carried.
 *
 *        tail                                  next_pn
 *   ......|A L F F A F F . F F ................|......     F in flight, L lost, A done
 *
 * A bitmap marks those that an acknowledgement can still change (F and L), so
 * an ACK range costs one step per 64 numbers plus one per news. A lost packet
 * stays for a while: when it is acknowledged after all, the loss was spurious.
 */
#ifndef PTCP_SENT_H
#define PTCP_SENT_H

#include "base/base.h"
#include "ptcp/conn_glue.h"

#define SENT_RECORDS_INLINE 2
#define SENT_RECORDS_MAX    64 /* in one packet */
#define SENT_NO_PN          UINT64_MAX

enum sent_kind {
	SENT_FRAGMENT,
	SENT_ABANDON,
	SENT_CONN,
	SENT_ACK,
	SENT_HANDSHAKE_DONE,
};

/* What one frame carried. Frames that are not repeated have none. */
struct sent_record {
	union {
		struct {
			uint32_t slot, generation; /* of the message */
			uint32_t offset, length;
			uint32_t resend; /* once lost: its number in the resend queue */
		} fragment;
		struct {
			uint32_t slot, generation;
		} abandon;
		struct ptcp_conn_sent conn;
		uint64_t ack_largest;
	};
	uint8_t kind;
	uint8_t n_sends; /* of a fragment: how often it left, with this one */
	bool requeued;   /* of a fragment: it is, or was, to be sent again; see `resend` */
};

enum sent_state { SENT_DONE, SENT_IN_FLIGHT, SENT_LOST };

#define SENT_APP_LIMITED 0x01
#define SENT_MTU_PROBE   0x02
#define SENT_RESCUED     0x04 /* its frames were already queued again by a probe timeout */
#define SENT_SOURCE      0x08 /* parity covers it */
#define SENT_ECT         0x10 /* it left marked ECT(0) */

#define SENT_PARITY_OPEN UINT16_MAX /* parity_distance while the block's parity has not left */

struct sent_packet {
	uint64_t sent_us;
	uint64_t lost_us;
	/* The path's delivery when this left (draft-cheng-iccrg-delivery-rate-estimation). */
	uint64_t delivered_bytes, delivered_us, first_sent_us;
	uint64_t previous, next; /* in flight on the same path, by packet number */
	uint64_t path_sequence;
	uint32_t more; /* block with further records, or UINT32_MAX */
	uint16_t size_bytes;
	uint8_t path;
	uint8_t flags;
	uint8_t state; /* enum sent_state */
	uint8_t n_records;
	uint16_t phase_low; /* key phase it was sealed with */
	/* How many packets of the path later the last one with parity for it left; 0: none did. */
	uint16_t parity_distance;
	struct sent_record records[SENT_RECORDS_INLINE];
};

struct sent_block;

struct sent_ring {
	struct sent_packet *packets;
	uint64_t *outstanding;
	uint32_t n_packets, n_packets_max; /* powers of two */
	uint64_t tail, next_pn;
	struct sent_block *blocks;
	uint32_t n_blocks, n_blocks_free, free_block;
};

/* 0 or -ENOMEM. */
int sent_init(struct sent_ring *s, uint32_t n_packets_max) WARN_UNUSED;
void sent_fini(struct sent_ring *s);
/* Nothing is in the ring: gives back what it grew by. */
void sent_rest(struct sent_ring *s);
/* Halves a ring of which little is used. */
void sent_decay(struct sent_ring *s);
bool sent_can_rest(const struct sent_ring *s); /* and it grew */

/* Makes sure that one more packet with n_records can be entered; may grow. False: not now. */
bool sent_make_room(struct sent_ring *s, unsigned n_records, uint64_t now_us);
/* Enters packet next_pn, which must carry something to be acknowledged. Room was made. */
struct sent_packet *sent_enter(struct sent_ring *s, const struct sent_record *records,
			       unsigned n_records);
/* Takes packet number next_pn for a packet that nobody waits for. Room was made. */
void sent_skip(struct sent_ring *s);

static inline struct sent_packet *sent_at(const struct sent_ring *s, uint64_t pn)
{
	return &s->packets[pn & (s->n_packets - 1)];
}
/* The lowest pn in [from, last] that is in flight or lost; SENT_NO_PN if none. */
uint64_t sent_next_outstanding(const struct sent_ring *s, uint64_t from, uint64_t last);
/* Forgets what the packet carried. */
void sent_drop_records(struct sent_ring *s, struct sent_packet *p);
/* Nothing can happen to this packet any more. Its records are gone. */
void sent_done(struct sent_ring *s, uint64_t pn);
/* Forgets from the tail on: done packets, and those lost before `lost_before_us`. */
void sent_trim(struct sent_ring *s, uint64_t lost_before_us);

struct sent_cursor {
	const struct sent_ring *ring;
	struct sent_packet *packet;
	unsigned index;
	uint32_t block;
};
struct sent_cursor sent_records(const struct sent_ring *s, struct sent_packet *p);
/* The records one after the other, then NULL. */
struct sent_record *sent_next_record(struct sent_cursor *c);

#endif
