/*
 * parity - hybrid repair: parity packets beside retransmission (doc/ptcp.md,
 * section 6.4).
 *
 *   parity_code.c     the arithmetic
 *   parity_send.c     when it is on, how much of it, blocks on their way out
 *   parity_receive.c  symbols kept, packets rebuilt, and telling the peer of them
 *
 * Sending, a block is
 *
 *   NONE --first source--> OPEN --full, or old--> CLOSED --all rows sent--> NONE
 *
 * OPEN    each source that leaves is added to the rows
 * CLOSED  rows wait to be sent, and nothing becomes a source before they have left
 *
 * Both halves allocate once when parity is first used, nothing per packet, and
 * give it back when it has not been used for PARITY_KEEP_US.
 */
#ifndef PTCP_PARITY_H
#define PTCP_PARITY_H

#include "base/base.h"
#include "ptcp/parity_code.h"

#define PARITY_FRAME_BYTES  (1 + 1 + 1 + 1) /* type, distance, count, row; the row follows */
#define PARITY_DISTANCE_MAX UINT8_MAX
/* By so much a source stays below the MTU, so that its block's parity packets keep it. */
#define PARITY_ROOM_BYTES   (PARITY_FRAME_BYTES + 2)
#define PARITY_SLOTS        512 /* sources kept by the receiver; a power of two */
#define PARITY_ROWS_KEPT    64
#define PARITY_BLOCKS_KEPT  16
#define PARITY_REPAIRED_MAX 64 /* in one frame, and waiting to be told */
#define PARITY_KEEP_US      (10 * US_PER_S)

struct ptcp_assoc;
struct path;
struct build;

/* How many of a path's packets are lost for no fault of ours: a long memory, in halves. */
struct parity_meter {
	uint32_t n_judged, n_lost;
	bool on;
};

enum parity_block_state { PARITY_NONE, PARITY_OPEN, PARITY_CLOSED };

struct parity_rows {
	uint8_t bytes[PARITY_ROWS_MAX][PARITY_SYMBOL_BYTES];
};

struct parity_sender {
	struct parity_rows *rows; /* NULL: not used for long */
	enum parity_block_state state;
	uint8_t path;     /* index */
	uint64_t base_pn; /* of the first source; the others follow without a gap */
	unsigned n_sources, n_sources_max, n_rows, n_rows_sent;
	size_t symbol_bytes;
	uint64_t opened_us, used_us;
	uint64_t full_us;     /* for how long the path has been full, about */
	int64_t credit_bytes; /* what parity may still spend of its share */
	/* Bulk traffic whose order is kept, which is what parity is for. */
	uint64_t bulk_start_us, bulk_until_us, bulk_bytes;
};

struct parity_symbols;

struct parity_receiver {
	struct parity_symbols *symbols; /* NULL: not used for long */
	uint64_t used_us;
	uint64_t long_us;  /* until then the peer's path counts as full: its blocks are long */
	uint64_t input_pn; /* of the packet that is being worked on */
	unsigned n_ready;  /* blocks that may be solved now */
	struct {
		uint64_t pn;
		unsigned n_told;
	} repaired[PARITY_REPAIRED_MAX];
	unsigned n_repaired;
};

/* ---- parity_send.c ------------------------------------------------------------------------ */

/* A verdict on a packet: judged while no queue of ours explains it. */
void parity_note_acked(struct path *p, bool was_lost);
void parity_note_lost(struct path *p);
/* In parts per million. */
uint32_t parity_loss_ppm(const struct path *p);
/* So many bytes of ordered messages left for the first time. */
void parity_note_ordered(struct ptcp_assoc *a, size_t n_bytes);

/* Whether packets that leave on p now are to be sources. */
bool parity_protects(struct ptcp_assoc *a, const struct path *p);
/* A block is open: what leaves now is to be a source as well, or the block ends. */
bool parity_open(const struct ptcp_assoc *a);
/* More patience with a source on this path before it is called lost. */
uint64_t parity_wait_us(const struct ptcp_assoc *a, const struct path *p);
/* A source is built, and not sealed yet. */
void parity_add(struct ptcp_assoc *a, const struct build *b);
/* Closes the block if it is full or old. */
void parity_close_due(struct ptcp_assoc *a);
bool parity_pending(const struct ptcp_assoc *a);
size_t parity_pending_bytes(const struct ptcp_assoc *a);
/* Size of a parity packet of the closed block. */
size_t parity_packet_bytes(const struct ptcp_assoc *a);
/* Writes the frame with the next row. */
void parity_write(struct ptcp_assoc *a, struct build *b);
/* The parity packet just built has entered the ring. */
void parity_sent(struct ptcp_assoc *a);
/* The block is given up; its sources are judged like any packet. */
void parity_drop_block(struct ptcp_assoc *a);
uint64_t parity_deadline_us(const struct ptcp_assoc *a);
int parity_repaired_frame(struct ptcp_assoc *a, struct reader *r);

/* ---- parity_receive.c ---------------------------------------------------------------------- */

/* Keeps the frames of a source that came. */
void parity_keep(struct ptcp_assoc *a, uint64_t pn, const uint8_t *frames, size_t n_bytes);
int parity_frame(struct ptcp_assoc *a, struct reader *r);
/*
 * The next packet that was rebuilt and did not come before: its frames, borrowed until the next
 * call. 0 and *ret_bytes == 0: there is none; -EBADMSG: what was rebuilt is no packet.
 */
int parity_rebuild(struct ptcp_assoc *a, uint64_t *ret_pn, const uint8_t **ret_frames,
		   size_t *ret_bytes);
/* Whether pn was rebuilt and has not come by itself so far. */
bool parity_was_rebuilt(const struct ptcp_assoc *a, uint64_t pn);
/* Now it has. */
void parity_came_late(struct ptcp_assoc *a, uint64_t pn);
/* Whether the peer protects what it sends now, by blocks that are short: it has room, or had until
 * a moment ago. */
bool parity_receiving_short(const struct ptcp_assoc *a);
/* Tells the peer what was rebuilt, some times over. */
void parity_write_repaired(struct ptcp_assoc *a, struct build *b);

/* Both: gives back what was not used for long; all of it. */
void parity_tick(struct ptcp_assoc *a);
void parity_fini(struct ptcp_assoc *a);

#endif
