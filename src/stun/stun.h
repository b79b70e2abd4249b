/*
 * stun - what the network sees of us: RFC 8489 Binding, as client and as server.
 *
 * Sans-IO and stateless but for the client's one transaction. Only what the
 * project needs: no authentication (nothing is decided by what a STUN server
 * says alone: a wrong address merely does not work), no TCP, no other method.
 */
#ifndef STUN_STUN_H
#define STUN_STUN_H

#include "base/base.h"

enum {
	STUN_HEADER_BYTES = 20,
	STUN_TRANSACTION_BYTES = 12,
	STUN_MESSAGE_MAX_BYTES = 548, /* what we write, and the most that we read */
	STUN_SOFTWARE_MAX_BYTES = 64, /* what we keep of the peer's */
	STUN_UNKNOWN_MAX = 8,         /* unknown attributes that an answer lists */
	STUN_TRIES = 7,               /* requests of one transaction */
};

#define STUN_RTO_US (250 * US_PER_MS) /* then doubling */

enum stun_class { STUN_REQUEST, STUN_INDICATION, STUN_SUCCESS, STUN_ERROR, STUN_CLASS_COUNT };
enum { STUN_BINDING = 1 };

struct stun_message {
	enum stun_class class;
	uint16_t method;
	uint8_t transaction[STUN_TRANSACTION_BYTES];
	struct endpoint mapped; /* FAMILY_NONE: none. XOR-MAPPED-ADDRESS wins over MAPPED-ADDRESS */
	struct endpoint alternate_server;           /* FAMILY_NONE: none */
	struct endpoint other;                      /* OTHER-ADDRESS, RFC 5780; FAMILY_NONE: none */
	uint16_t response_port;                     /* RESPONSE-PORT, RFC 5780; 0: none */
	uint16_t error_code;                        /* 0: none */
	char software[STUN_SOFTWARE_MAX_BYTES + 1]; /* made printable; "" if there is none */
	bool has_fingerprint;                       /* and it was right */
	uint16_t unknown[STUN_UNKNOWN_MAX]; /* comprehension-required attributes we do not know */
	size_t n_unknown;                   /* may exceed STUN_UNKNOWN_MAX */
};

/* Could this datagram be STUN? First two bits 0, magic cookie, length: RFC 8489, section 6.3. */
bool stun_is_message(const void *data, size_t data_bytes);
/* 0, or -EBADMSG: not well-formed, or FINGERPRINT is wrong. */
int stun_decode(const void *data, size_t data_bytes, struct stun_message *ret_message);
/* Writes header, SOFTWARE (if not ""), XOR-MAPPED-ADDRESS, OTHER-ADDRESS and RESPONSE-PORT (if any),
 * ERROR-CODE with UNKNOWN-ATTRIBUTES (if error_code) and FINGERPRINT (if has_fingerprint). The size,
 * or 0 if it does not fit. */
size_t stun_encode(const struct stun_message *message, uint8_t *out, size_t out_bytes);

/*
 * The server: the answer to one datagram from `from`. Its size; 0: no answer (not a Binding
 * request; malformed). An unknown comprehension-required attribute is answered with 420. The
 * answer is never more than 2.5 times the request's size, and goes to nobody but the sender.
 * `other` is where the same server answers too, and may be NULL; a client that asks there as well
 * learns what its NAT does (OTHER-ADDRESS, RFC 5780, section 7.4). It is left out where the answer
 * would become too large.
 */
size_t stun_server_answer(const void *request, size_t request_bytes, const struct endpoint *from,
			  const struct endpoint *other, uint8_t *out, size_t out_bytes);
/*
 * Where the answer goes: to `from`, or to another port of the same address that the request names
 * (RESPONSE-PORT, RFC 5780, section 7.5), so that a client learns how long a NAT remembers a port.
 * Ports of well-known services are not answered to: *ret_to is `from` then.
 */
void stun_server_answer_to(const void *request, size_t request_bytes, const struct endpoint *from,
			   struct endpoint *ret_to);

/* ---- the client: one transaction, embedded in its owner ------------------------------------ */

enum stun_client_state { STUN_IDLE, STUN_WAITING, STUN_DONE, STUN_FAILED, STUN_STATE_COUNT };

struct stun_client {
	enum stun_client_state state;
	uint8_t transaction[STUN_TRANSACTION_BYTES];
	unsigned n_sent;
	bool send_due;
	uint64_t sent_us, deadline_us;
	struct endpoint mapped; /* once DONE */
	struct endpoint other;  /* once DONE: the server's other address; FAMILY_NONE: not told */
	uint64_t rtt_us;        /* once DONE; of the last request sent */
	int error;              /* once FAILED: -ETIMEDOUT, -EPROTO (an error answer) */
	uint16_t error_code;    /* of the error answer */
};

/* `transaction` must be unpredictable: it is what proves that an answer is one. */
void stun_client_start(struct stun_client *c, const uint8_t transaction[STUN_TRANSACTION_BYTES],
		       uint64_t now_us);
/* Feeds a datagram that came from the server. 0: it was the answer, look at the state. -EBADMSG:
 * not ours, give it to the next. The caller checks that it came from the server it asked. */
int stun_client_input(struct stun_client *c, const void *data, size_t data_bytes, uint64_t now_us);
/* The request to send now; its size or 0. */
size_t stun_client_output(struct stun_client *c, uint8_t *out, size_t out_bytes, uint64_t now_us);
uint64_t stun_client_deadline_us(const struct stun_client *c); /* NEVER_US: none */
void stun_client_tick(struct stun_client *c, uint64_t now_us);

#endif
