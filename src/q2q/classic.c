/*
 * Classic PTCP, as much of it as a stock client needs before it listens: one
 * Who-Am-I on the server's UDP port.
 *
 * A stock connection starts both sequence numbers at 0, and every packet carries
 * the number it expects next. So the packet itself says all that an answer
 * needs, and no connection is kept: a SYN gets its SYN+ACK, a segment that holds
 * a question gets its answer with an ACK, a lost answer is asked for again. Only
 * the FIN that we owe after the peer's is ours to repeat; those wait in a short
 * list. A SYN flood finds nothing to fill, and the weaknesses of the original have
 * no place: STB (which stops it) and RST are ignored, a segment out of step waits
 * for its repetition.
 *
 *   0 source pseudo-port u16 | 2 destination u16 | 4 sequence u32 | 8 acknowledgement u32
 *   12 window u32 | 16 flags u8 | 17 CRC-32 of the data | 21 data length u16 | 23 data
 */
#include "q2q/command.h"

#include <stdio.h>

#define HEADER_BYTES      23u
#define SEGMENT_MAX_BYTES 489u /* of data; also the window that everybody announces */
#define SERVICE_PORT      1u
#define FIN_DELAY_US      (10 * US_PER_MS) /* the original's, between its ACK and its FIN */
#define FIN_RESEND_US     (500 * US_PER_MS)
#define FIN_SENDS_MAX     3u
#define OUT_MAX           32u
#define OUT_BYTES         320u
#define INNER_ASK_MAX     64u

enum flag { FLAG_SYN = 0x01, FLAG_ACK = 0x02, FLAG_FIN = 0x04, FLAG_RST = 0x08, FLAG_STB = 0x10 };

struct header {
	uint16_t from, to;
	uint32_t seq, ack;
	uint8_t flags;
	const uint8_t *data;
	size_t data_bytes;
};

struct out {
	struct endpoint to;
	size_t n_bytes;
	uint8_t bytes[OUT_BYTES];
};

/* A FIN of ours that waits for its ACK. */
struct closing {
	struct endpoint peer;
	uint16_t port;
	uint32_t seq, ack;
	unsigned n_sent;
	uint64_t due_us;
};

struct q2q_classic {
	struct q2q_classic_config config;
	struct q2q_classic_stats stats;
	struct out out[OUT_MAX];
	size_t out_first, n_out;
	struct closing *closing;
	size_t n_closing;
	uint64_t second_us;
	uint32_t n_in_second;
};

int q2q_classic_new(const struct q2q_classic_config *config, struct q2q_classic **ret_classic)
{
	struct q2q_classic *classic = calloc(1, sizeof(*classic));

	if (!classic)
		return -ENOMEM;
	classic->config = *config;
	if (classic->config.closing_max == 0)
		classic->config.closing_max = 64;
	if (classic->config.replies_per_s_max == 0)
		classic->config.replies_per_s_max = 1000;
	classic->closing = calloc(classic->config.closing_max, sizeof(*classic->closing));
	if (!classic->closing) {
		free(classic);
		return -ENOMEM;
	}
	*ret_classic = classic;
	return 0;
}

void q2q_classic_free(struct q2q_classic *classic)
{
	if (!classic)
		return;
	free(classic->closing);
	free(classic);
}

/* ---- packets -------------------------------------------------------------------------------- */

static uint32_t crc32_of(const uint8_t *data, size_t n_bytes)
{
	uint32_t crc = 0xffffffff;

	/* Bit by bit: a few hundred bytes of data now and then need no table. */
	for (size_t i = 0; i < n_bytes; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static int parse(const void *data, size_t n_bytes, struct header *ret_header)
{
	struct reader r = reader_over(data, n_bytes);
	struct header h;
	uint32_t crc;

	h.from = reader_u16(&r);
	h.to = reader_u16(&r);
	h.seq = reader_u32(&r);
	h.ack = reader_u32(&r);
	(void)reader_u32(&r); /* the window: nobody reads it */
	h.flags = reader_u8(&r);
	crc = reader_u32(&r);
	h.data_bytes = reader_u16(&r);
	h.data = reader_bytes(&r, h.data_bytes);
	if (reader_finish(&r) < 0 || h.data_bytes > SEGMENT_MAX_BYTES)
		return -EBADMSG;
	if (crc != (h.data_bytes > 0 ? crc32_of(h.data, h.data_bytes) : 0))
		return -EBADMSG;
	*ret_header = h;
	return 0;
}

/* A full queue drops: the peer repeats. */
static void emit(struct q2q_classic *classic, const struct endpoint *to, uint16_t port,
		 uint32_t seq, uint32_t ack, uint8_t flags, const struct buffer *data)
{
	const size_t data_bytes = data ? buffer_used(data) : 0;
	struct out *out;
	struct writer w;

	if (classic->n_out == OUT_MAX || data_bytes > OUT_BYTES - HEADER_BYTES)
		return;
	out = &classic->out[(classic->out_first + classic->n_out++) % OUT_MAX];
	out->to = *to;
	w = writer_over(out->bytes, sizeof(out->bytes));
	writer_u16(&w, SERVICE_PORT);
	writer_u16(&w, port);
	writer_u32(&w, seq);
	writer_u32(&w, ack);
	writer_u32(&w, SEGMENT_MAX_BYTES);
	writer_u8(&w, flags);
	writer_u32(&w, data_bytes > 0 ? crc32_of(buffer_peek(data), data_bytes) : 0);
	writer_u16(&w, (uint16_t)data_bytes);
	if (data_bytes > 0)
		writer_bytes(&w, buffer_peek(data), data_bytes);
	assert(!w.failed);
	out->n_bytes = w.used_bytes;
}

size_t q2q_classic_output(struct q2q_classic *classic, struct endpoint *ret_to,
			  uint8_t out[static Q2Q_CLASSIC_DATAGRAM_MAX_BYTES], uint64_t now_us)
{
	const struct out *first = &classic->out[classic->out_first];

	(void)now_us;
	if (classic->n_out == 0)
		return 0;
	static_assert(OUT_BYTES <= Q2Q_CLASSIC_DATAGRAM_MAX_BYTES, "each fits");
	memcpy(out, first->bytes, first->n_bytes);
	*ret_to = first->to;
	classic->out_first = (classic->out_first + 1) % OUT_MAX;
	classic->n_out--;
	return first->n_bytes;
}

/* ---- closing
 * ------------------------------------------------------------------------------------- */

static struct closing *find_closing(struct q2q_classic *classic, const struct endpoint *peer,
				    uint16_t port)
{
	for (size_t i = 0; i < classic->n_closing; i++)
		if (classic->closing[i].port == port &&
		    endpoint_equal(&classic->closing[i].peer, peer))
			return &classic->closing[i];
	return NULL;
}

static void forget(struct q2q_classic *classic, struct closing *c)
{
	*c = classic->closing[--classic->n_closing];
}

/* With the list full the FIN goes out at once and is not repeated. */
static void close_later(struct q2q_classic *classic, const struct endpoint *peer, uint16_t port,
			uint32_t seq, uint32_t ack, uint64_t now_us)
{
	struct closing *c;

	if (find_closing(classic, peer, port))
		return;
	if (classic->n_closing == classic->config.closing_max) {
		emit(classic, peer, port, seq, ack, FLAG_FIN, NULL);
		return;
	}
	c = &classic->closing[classic->n_closing++];
	*c = (struct closing){ .peer = *peer,
			       .port = port,
			       .seq = seq,
			       .ack = ack,
			       .due_us = add_sat_u64(now_us, FIN_DELAY_US) };
}

uint64_t q2q_classic_deadline_us(const struct q2q_classic *classic)
{
	uint64_t first_us = NEVER_US;

	for (size_t i = 0; i < classic->n_closing; i++)
		first_us = min_u64(first_us, classic->closing[i].due_us);
	return first_us;
}

void q2q_classic_tick(struct q2q_classic *classic, uint64_t now_us)
{
	for (size_t i = classic->n_closing; i > 0; i--) {
		struct closing *c = &classic->closing[i - 1];

		if (c->due_us > now_us)
			continue;
		if (c->n_sent == FIN_SENDS_MAX) {
			forget(classic, c);
			continue;
		}
		emit(classic, &c->peer, c->port, c->seq, c->ack, FLAG_FIN, NULL);
		c->due_us = add_sat_u64(now_us, (uint64_t)FIN_RESEND_US << c->n_sent++);
	}
}

/* ---- questions
 * -------------------------------------------------------------------------------------- */

static void fail_question(struct amp_box *out, const struct amp_value *ask, enum q2q_error error,
			  const char *text)
{
	amp_box_init(out);
	failure_encode(out, ask, error, text);
}

/* The answer to the box, or false: it is none that we answer. */
static bool answer(const struct endpoint *from, const struct amp_box *box, struct amp_box *out,
		   bool *ret_fatal)
{
	char ip[IP_TEXT_BYTES], text[IP_TEXT_BYTES + 6];
	struct amp_value name, ask;
	enum q2q_command command;

	*ret_fatal = false;
	if (amp_box_shape(box) != AMP_SHAPE_COMMAND || !amp_get(box, "_command", &name) ||
	    !amp_get(box, "_ask", &ask) || ask.n_bytes > INNER_ASK_MAX)
		return false;
	if (q2q_command_find(&name, &command) < 0 ||
	    !(command_of(command)->ports & PORT_RETRIEVE)) {
		fail_question(out, &ask, Q2Q_ERROR_UNHANDLED, "");
		return true;
	}
	if (command == Q2Q_RETRIEVE_CONNECTION) {
		*ret_fatal = true;
		fail_question(out, &ask, Q2Q_ERROR_NO_SUCH_CONNECTION, "");
		return true;
	}
	snprintf(text, sizeof(text), "%s:%u", ip_format(&from->ip, ip), from->port);
	amp_box_init(out);
	amp_put_value(out, "_answer", &ask);
	amp_put_copy(out, "address", text);
	return true;
}

/* A segment must hold one whole question: that is how stock clients send it. */
static void handle_data(struct q2q_classic *classic, const struct endpoint *from,
			const struct header *h, uint64_t now_us)
{
	struct amp_box box, reply;
	struct buffer bytes;
	bool fatal;
	size_t used;

	if (amp_box_parse(h->data, h->data_bytes, &box, &used) != 0 || used != h->data_bytes ||
	    !answer(from, &box, &reply, &fatal))
		return;
	buffer_init(&bytes, OUT_BYTES - HEADER_BYTES, false);
	if (amp_box_write(&reply, &bytes) == 0) {
		const uint32_t ack = h->seq + (uint32_t)h->data_bytes;

		classic->stats.answered++;
		emit(classic, from, h->from, h->ack, ack, FLAG_ACK, &bytes);
		if (fatal)
			close_later(classic, from, h->from, h->ack + (uint32_t)buffer_used(&bytes),
				    ack, now_us);
	}
	buffer_fini(&bytes);
}

static bool within_rate(struct q2q_classic *classic, uint64_t now_us)
{
	if (now_us - classic->second_us >= US_PER_S) {
		classic->second_us = now_us;
		classic->n_in_second = 0;
	}
	if (classic->n_in_second < classic->config.replies_per_s_max) {
		classic->n_in_second++;
		return true;
	}
	classic->stats.refused_rate++;
	return false;
}

static void handle(struct q2q_classic *classic, const struct endpoint *from, const struct header *h,
		   uint64_t now_us)
{
	struct closing *c;

	switch (h->flags) {
	case FLAG_SYN:
		if (h->data_bytes == 0)
			emit(classic, from, h->from, 0, h->seq + 1, FLAG_SYN | FLAG_ACK, NULL);
		return;
	case FLAG_ACK:
		c = find_closing(classic, from, h->from);
		if (c && h->ack == c->seq + 1)
			forget(classic, c);
		if (h->data_bytes > 0)
			handle_data(classic, from, h, now_us);
		return;
	case FLAG_FIN:
	case FLAG_FIN | FLAG_ACK:
		emit(classic, from, h->from, h->ack, h->seq + 1, FLAG_ACK, NULL);
		close_later(classic, from, h->from, h->ack, h->seq + 1, now_us);
		return;
	default: /* STB, RST and mixtures: nothing that a Who-Am-I needs */
		return;
	}
}

int q2q_classic_input(struct q2q_classic *classic, const struct endpoint *from, const void *data,
		      size_t n_bytes, uint64_t now_us)
{
	struct header h;

	classic->stats.datagrams++;
	if (from->ip.family != FAMILY_IPV4 || parse(data, n_bytes, &h) < 0 ||
	    h.to != SERVICE_PORT) {
		classic->stats.malformed++;
		return -EBADMSG;
	}
	if (within_rate(classic, now_us))
		handle(classic, from, &h, now_us);
	return 0;
}

void q2q_classic_stats(const struct q2q_classic *classic, struct q2q_classic_stats *ret_stats)
{
	*ret_stats = classic->stats;
	ret_stats->closing = classic->n_closing;
}
