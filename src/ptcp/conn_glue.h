/*
 * conn_glue - what the association and its pseudo-connections need of each other.
 *
 * Private to src/ptcp. The association owns packets: it asks for frames, tells
 * the fate of each, and hands in the peer's. The table of connections knows
 * nothing of packet numbers, keys or paths and never calls back.
 */
#ifndef PTCP_CONN_GLUE_H
#define PTCP_CONN_GLUE_H

#include "base/base.h"
#include "ptcp/conn.h"

/* Frame types of pseudo-connections; doc/ptcp-connections.md. */
enum conn_frame_type {
	CONN_FRAME_SYN = 0x20,
	CONN_FRAME_SYN_ACK = 0x21,
	CONN_FRAME_DATA = 0x22,
	CONN_FRAME_DATA_FIN = 0x23,
	CONN_FRAME_WINDOW = 0x24,
	CONN_FRAME_RST = 0x25,
	CONN_FRAME_FIRST = 0x20,
	CONN_FRAME_LAST = 0x2f,
};

/* One frame that was sent; kept by value in the record of its packet. */
struct ptcp_conn_sent {
	uint64_t offset;
	uint32_t conn, length;
	uint8_t type; /* enum conn_frame_type */
};

struct ptcp_conns;
struct ptcp_memory;

struct ptcp_conns_config {
	struct ptcp_conn_limits limits;
	struct ptcp_memory *memory; /* NULL: no bound but these limits */
	ptcp_conn_trace_fn *trace; /* may be NULL */
	void *trace_user;
};

/* NULL without memory. */
struct ptcp_conns *ptcp_conns_new(const struct ptcp_conns_config *config);
void ptcp_conns_free(struct ptcp_conns *t);

/*
 * One frame of type CONN_FRAME_FIRST..LAST; r stands behind the type and is moved behind the
 * frame. 0, or -EBADMSG: the peer broke the protocol, the association must be closed. Frames
 * may come twice and in any order; a packet whose frames were taken must be acknowledged.
 */
int ptcp_conns_frame(struct ptcp_conns *t, uint64_t type, struct reader *r, uint64_t now_us);

/* Whether ptcp_conns_write() has something, given room enough. */
bool ptcp_conns_want_send(const struct ptcp_conns *t);

/*
 * Writes one whole frame, type included, and says what it was. False when there is nothing to
 * send or it does not fit: any frame fits into CONN_FRAME_ROOM_BYTES. Call until false.
 */
#define CONN_FRAME_ROOM_BYTES 128
bool ptcp_conns_write(struct ptcp_conns *t, struct writer *w, struct ptcp_conn_sent *ret_sent,
		      uint64_t now_us);

/* The fate of a frame. Both may come, in any order (spurious loss), and more than once. */
void ptcp_conns_acked(struct ptcp_conns *t, const struct ptcp_conn_sent *sent, uint64_t now_us);
void ptcp_conns_lost(struct ptcp_conns *t, const struct ptcp_conn_sent *sent, uint64_t now_us);

/* Whenever the active path's estimate changes: the receive window and TIME_WAIT follow it. */
void ptcp_conns_set_rtt(struct ptcp_conns *t, uint64_t srtt_us, uint64_t pto_us);

uint64_t ptcp_conns_deadline_us(const struct ptcp_conns *t);
void ptcp_conns_tick(struct ptcp_conns *t, uint64_t now_us);
bool ptcp_conns_next_event(struct ptcp_conns *t, struct ptcp_conn_event *ret_event);

/* The association closed: every connection goes to CLOSED, nothing is sent any more. */
void ptcp_conns_association_lost(struct ptcp_conns *t, uint64_t now_us);

/* No connection is left; listeners do not count. */
bool ptcp_conns_idle(const struct ptcp_conns *t);

/* Given by the association; the calls of conn.h are thin covers over those below. */
struct ptcp_conns *ptcp_assoc_conns(const struct ptcp_assoc *a);

int64_t ptcp_conns_connect(struct ptcp_conns *t, uint16_t local_port, uint16_t port,
			   const char *service, uint64_t now_us);
int64_t ptcp_conns_listen(struct ptcp_conns *t, uint16_t port, const char *service,
			  uint32_t n_backlog, uint64_t now_us);
int ptcp_conns_accept(struct ptcp_conns *t, uint32_t id, uint64_t now_us);
int ptcp_conns_send(struct ptcp_conns *t, uint32_t id, const void *data, size_t n_bytes,
		    size_t *ret_bytes, uint64_t now_us);
int ptcp_conns_read(struct ptcp_conns *t, uint32_t id, void *out, size_t out_bytes,
		    size_t *ret_bytes, uint64_t now_us);
int ptcp_conns_peek(struct ptcp_conns *t, uint32_t id, const uint8_t **ret_data, size_t *ret_bytes);
int ptcp_conns_consume(struct ptcp_conns *t, uint32_t id, size_t n_bytes, uint64_t now_us);
int ptcp_conns_shutdown(struct ptcp_conns *t, uint32_t id, uint64_t now_us);
int ptcp_conns_close(struct ptcp_conns *t, uint32_t id, uint64_t now_us);
int ptcp_conns_abort(struct ptcp_conns *t, uint32_t id, uint64_t now_us);
int ptcp_conns_info(const struct ptcp_conns *t, uint32_t id, struct ptcp_conn_info *ret_info);

#endif
