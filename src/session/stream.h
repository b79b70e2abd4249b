/*
 * stream - one TCP connection between the two ends of a rendezvous, which carries PTCP packets:
 * who is there, then frames (doc/nat.md, section 11). Sans-IO. Private to session.
 *
 *   connects   --HELLO-->    accepts       HELLO says which rendezvous, and proves to be its other
 * end.
 *              <-WELCOME--                 Not one byte comes before it.
 *              --CONFIRM-->                then frames, both ways
 */
#ifndef SESSION_STREAM_H
#define SESSION_STREAM_H

#include "session/session.h"

enum {
	STREAM_KEY_BYTES = 32,
	STREAM_NONCE_BYTES = 16,
	STREAM_MAC_BYTES = 16,
	STREAM_WELCOME_BYTES = STREAM_NONCE_BYTES + STREAM_MAC_BYTES,
	STREAM_CONFIRM_BYTES = STREAM_MAC_BYTES,
	STREAM_FRAME_BYTES_MAX = PTCP_MTU_MAX,
};

enum stream_state {
	STREAM_WANTS_WELCOME, /* we connected */
	STREAM_WANTS_CONFIRM, /* we accepted */
	STREAM_OPEN,
	STREAM_FAILED,
	STREAM_STATE_COUNT,
};
const char *stream_state_name(enum stream_state state);

struct stream {
	enum stream_state state;
	uint8_t key[STREAM_KEY_BYTES];
	uint8_t nonces[2 * STREAM_NONCE_BYTES]; /* of who connects, then of who accepts */
	uint8_t out[SESSION_STREAM_HELLO_BYTES];
	size_t out_bytes; /* of `out`, to be sent before any frame */
	uint8_t *partial; /* what came of a frame that is not whole yet */
	size_t partial_bytes;
};

/* The nonces must be random. 0, -ENOMEM, or a fault of the MAC; stream_fini() after those too. */
int stream_connect(struct stream *st, const uint8_t key[static STREAM_KEY_BYTES],
		   const uint8_t their_tag[static SESSION_STREAM_TAG_BYTES],
		   const uint8_t nonce[static STREAM_NONCE_BYTES]);
/* -EBADMSG: it is not the peer's, and gets no answer. */
int stream_accept(struct stream *st, const uint8_t key[static STREAM_KEY_BYTES],
		  const uint8_t hello[static SESSION_STREAM_HELLO_BYTES],
		  const uint8_t nonce[static STREAM_NONCE_BYTES]);
void stream_fini(struct stream *st); /* wipes; fine on a zeroed object */
/*
 * Takes bytes that came, and moves *data and *n_bytes on. 1 with a frame, in the caller's bytes or
 * in ours, good until the next call; 0: more bytes are needed; -EBADMSG: the end of this
 * connection.
 */
int stream_next(struct stream *st, uint8_t **data, size_t *n_bytes, uint8_t **ret_frame,
		size_t *ret_frame_bytes);

#endif
