#include "session/stream.h"

#define HELLO_VERSION 1
#define LENGTH_BYTES  2

enum label { LABEL_HELLO = 1, LABEL_WELCOME, LABEL_CONFIRM };

const char *stream_state_name(enum stream_state state)
{
	static const char *const names[] = { "wants welcome", "wants confirm", "open", "failed" };

	static_assert(ARRAY_SIZE(names) == STREAM_STATE_COUNT, "a name for each state");
	return names[state];
}

/* ---- who is there ---- */

static int make_mac(const struct stream *st, enum label label, const void *data, size_t n_bytes,
		    uint8_t out[static STREAM_MAC_BYTES])
{
	uint8_t input[1 + SESSION_STREAM_HELLO_BYTES], mac[CRYPTO_HASH_BYTES];
	int r;

	assert(n_bytes < sizeof(input));
	input[0] = (uint8_t)label;
	memcpy(input + 1, data, n_bytes);
	r = crypto_hmac_sha256(st->key, sizeof(st->key), input, 1 + n_bytes, mac);
	if (r == 0)
		memcpy(out, mac, STREAM_MAC_BYTES);
	secret_wipe(mac, sizeof(mac));
	return r;
}

static int check_mac(const struct stream *st, enum label label, const void *data, size_t n_bytes,
		     const uint8_t *theirs)
{
	uint8_t ours[STREAM_MAC_BYTES];
	const int r = make_mac(st, label, data, n_bytes, ours);

	if (r)
		return r;
	return secret_equal(ours, theirs, sizeof(ours)) ? 0 : -EBADMSG;
}

static int begin(struct stream *st, const uint8_t *key)
{
	*st = (struct stream){ .state = STREAM_FAILED };
	memcpy(st->key, key, sizeof(st->key));
	st->partial = malloc(LENGTH_BYTES + STREAM_FRAME_BYTES_MAX);
	return st->partial ? 0 : -ENOMEM;
}

int stream_connect(struct stream *st, const uint8_t key[static STREAM_KEY_BYTES],
		   const uint8_t their_tag[static SESSION_STREAM_TAG_BYTES],
		   const uint8_t nonce[static STREAM_NONCE_BYTES])
{
	struct writer w = writer_over(st->out, sizeof(st->out));
	int r = begin(st, key);

	if (r)
		return r;
	writer_u8(&w, HELLO_VERSION);
	writer_bytes(&w, their_tag, SESSION_STREAM_TAG_BYTES);
	writer_bytes(&w, nonce, STREAM_NONCE_BYTES);
	memcpy(st->nonces, nonce, STREAM_NONCE_BYTES);
	r = make_mac(st, LABEL_HELLO, st->out, w.used_bytes, st->out + w.used_bytes);
	if (r)
		return r;
	st->out_bytes = SESSION_STREAM_HELLO_BYTES;
	st->state = STREAM_WANTS_WELCOME;
	return 0;
}

int stream_accept(struct stream *st, const uint8_t key[static STREAM_KEY_BYTES],
		  const uint8_t hello[static SESSION_STREAM_HELLO_BYTES],
		  const uint8_t nonce[static STREAM_NONCE_BYTES])
{
	const size_t signed_bytes = SESSION_STREAM_HELLO_BYTES - STREAM_MAC_BYTES;
	int r = begin(st, key);

	if (r)
		return r;
	if (hello[0] != HELLO_VERSION)
		return -EBADMSG;
	r = check_mac(st, LABEL_HELLO, hello, signed_bytes, hello + signed_bytes);
	if (r)
		return r;
	memcpy(st->nonces, hello + signed_bytes - STREAM_NONCE_BYTES, STREAM_NONCE_BYTES);
	memcpy(st->nonces + STREAM_NONCE_BYTES, nonce, STREAM_NONCE_BYTES);
	memcpy(st->out, nonce, STREAM_NONCE_BYTES);
	r = make_mac(st, LABEL_WELCOME, st->nonces, sizeof(st->nonces),
		     st->out + STREAM_NONCE_BYTES);
	if (r)
		return r;
	st->out_bytes = STREAM_WELCOME_BYTES;
	st->state = STREAM_WANTS_CONFIRM;
	return 0;
}

static int input_welcome(struct stream *st, const uint8_t *welcome)
{
	int r;

	memcpy(st->nonces + STREAM_NONCE_BYTES, welcome, STREAM_NONCE_BYTES);
	r = check_mac(st, LABEL_WELCOME, st->nonces, sizeof(st->nonces),
		      welcome + STREAM_NONCE_BYTES);
	if (r == 0)
		r = make_mac(st, LABEL_CONFIRM, st->nonces, sizeof(st->nonces), st->out);
	if (r)
		return r;
	st->out_bytes = STREAM_CONFIRM_BYTES;
	st->state = STREAM_OPEN;
	return 0;
}

void stream_fini(struct stream *st)
{
	free(st->partial);
	secret_wipe(st, sizeof(*st));
	st->state = STREAM_FAILED;
}

/* ---- frames ---- */

/* `wanted` bytes in one piece, as soon as they are there: mostly where they came. */
static uint8_t *whole(struct stream *st, size_t wanted, uint8_t **data, size_t *n_bytes)
{
	const size_t taken = st->partial_bytes == 0 && *n_bytes >= wanted
				     ? wanted
				     : min_size(wanted - st->partial_bytes, *n_bytes);
	uint8_t *at = *data;

	*data += taken;
	*n_bytes -= taken;
	if (st->partial_bytes == 0 && taken == wanted)
		return at;
	if (taken > 0)
		memcpy(st->partial + st->partial_bytes, at, taken);
	st->partial_bytes += taken;
	if (st->partial_bytes < wanted)
		return NULL;
	st->partial_bytes = 0;
	return st->partial;
}

static size_t length_at(const uint8_t *at)
{
	return (size_t)at[0] << 8 | at[1];
}

/* Of the frame that comes next, its length included; 0: not known yet. */
static size_t wanted_bytes(struct stream *st, uint8_t **data, size_t *n_bytes)
{
	/* The length alone, byte by byte: it stays where the rest of the frame will follow. */
	while (st->partial_bytes > 0 && st->partial_bytes<LENGTH_BYTES && * n_bytes> 0) {
		st->partial[st->partial_bytes++] = *(*data)++;
		(*n_bytes)--;
	}
	if (st->partial_bytes >= LENGTH_BYTES)
		return LENGTH_BYTES + length_at(st->partial);
	if (st->partial_bytes > 0 || *n_bytes == 0)
		return 0;
	if (*n_bytes >= LENGTH_BYTES)
		return LENGTH_BYTES + length_at(*data);
	st->partial[st->partial_bytes++] = *(*data)++;
	(*n_bytes)--;
	return 0;
}

static int next_frame(struct stream *st, uint8_t **data, size_t *n_bytes, uint8_t **ret_frame,
		      size_t *ret_frame_bytes)
{
	const size_t wanted = wanted_bytes(st, data, n_bytes);
	uint8_t *at;

	if (wanted == 0)
		return 0;
	if (wanted == LENGTH_BYTES || wanted > LENGTH_BYTES + STREAM_FRAME_BYTES_MAX) {
		st->state = STREAM_FAILED;
		return -EBADMSG;
	}
	at = whole(st, wanted, data, n_bytes);
	if (!at)
		return 0;
	*ret_frame = at + LENGTH_BYTES;
	*ret_frame_bytes = wanted - LENGTH_BYTES;
	return 1;
}

int stream_next(struct stream *st, uint8_t **data, size_t *n_bytes, uint8_t **ret_frame,
		size_t *ret_frame_bytes)
{
	const uint8_t *at;
	int r = -EBADMSG;

	switch (st->state) {
	case STREAM_WANTS_WELCOME:
		at = whole(st, STREAM_WELCOME_BYTES, data, n_bytes);
		if (!at)
			return 0;
		r = input_welcome(st, at);
		break;
	case STREAM_WANTS_CONFIRM:
		at = whole(st, STREAM_CONFIRM_BYTES, data, n_bytes);
		if (!at)
			return 0;
		r = check_mac(st, LABEL_CONFIRM, st->nonces, sizeof(st->nonces), at);
		if (r == 0)
			st->state = STREAM_OPEN;
		break;
	case STREAM_OPEN:
		return next_frame(st, data, n_bytes, ret_frame, ret_frame_bytes);
	default:
		return r;
	}
	if (r) {
		st->state = STREAM_FAILED;
		return r;
	}
	return next_frame(st, data, n_bytes, ret_frame, ret_frame_bytes);
}
