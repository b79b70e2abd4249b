/*
 * What comes over a TCP connection of a peer, in pieces. The first byte chooses the state: a hello
 * of a stranger, somebody who has connected or accepted, or an open one; the second the size of
 * pieces. Frames do not depend on the pieces.
 */
#include "session/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

static const uint8_t key[STREAM_KEY_BYTES] = { 1 }, nonce[STREAM_NONCE_BYTES] = { 2 };
static const uint8_t tag[SESSION_STREAM_TAG_BYTES] = { 3 };

struct outcome {
	uint64_t n_frames, sum;
	int result;
};

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void begin(struct stream *st, unsigned choice)
{
	uint8_t hello[SESSION_STREAM_HELLO_BYTES];
	struct stream other;

	must(stream_connect(st, key, tag, nonce) == 0);
	memcpy(hello, st->out, sizeof(hello));
	if (choice % 3 == 1) {
		must(stream_accept(&other, key, hello, nonce) == 0);
		stream_fini(st);
		*st = other;
	}
	if (choice % 3 == 2)
		st->state = STREAM_OPEN;
}

static struct outcome feed(unsigned choice, const uint8_t *data, size_t data_bytes, size_t step)
{
	struct outcome o = { 0 };
	uint8_t *copy = malloc(data_bytes ? data_bytes : 1), *at = copy, *frame;
	size_t frame_bytes;
	struct stream st;

	must(copy);
	memcpy(copy, data, data_bytes);
	begin(&st, choice);
	while (o.result >= 0 && data_bytes > 0) {
		size_t left = min_size(step, data_bytes);

		data_bytes -= left;
		while ((o.result = stream_next(&st, &at, &left, &frame, &frame_bytes)) > 0) {
			must(frame_bytes > 0 && frame_bytes <= STREAM_FRAME_BYTES_MAX);
			o.n_frames++;
			for (size_t i = 0; i < frame_bytes; i++)
				o.sum = o.sum * 31 + frame[i];
		}
		must(o.result < 0 || left == 0);
	}
	stream_fini(&st);
	free(copy);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	struct outcome pieces, one;
	struct stream st;

	if (data_bytes < 2)
		return 0;
	if (data[0] % 4 == 3) {
		if (data_bytes < 2 + SESSION_STREAM_HELLO_BYTES)
			return 0;
		(void)stream_accept(&st, key, data + 2, nonce);
		stream_fini(&st);
		return 0;
	}
	pieces = feed(data[0], data + 2, data_bytes - 2, 1 + data[1]);
	one = feed(data[0], data + 2, data_bytes - 2, data_bytes);
	must(pieces.n_frames == one.n_frames && pieces.sum == one.sum &&
	     (pieces.result < 0) == (one.result < 0));
	return 0;
}
