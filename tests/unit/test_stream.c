/* Who is at the other end of a TCP connection, and frames in whatever pieces they come. */
#include "unit.h"
#include "session/stream.h"

static const uint8_t key[STREAM_KEY_BYTES] = "the key of one rendezvous alone";
static const uint8_t tag[SESSION_STREAM_TAG_BYTES] = "listener";
static const uint8_t nonces[2][STREAM_NONCE_BYTES] = { "of who connects", "of who accepts!" };

struct pair {
	struct stream end[2]; /* who connects, who accepts */
};

/* Takes what waits to be sent. */
static size_t take(struct stream *st, uint8_t out[static SESSION_STREAM_HELLO_BYTES])
{
	const size_t n = st->out_bytes;

	memcpy(out, st->out, n);
	st->out_bytes = 0;
	return n;
}

static void hello_of(struct stream *st, uint8_t out[static SESSION_STREAM_HELLO_BYTES])
{
	assert_int_equal(stream_connect(st, key, tag, nonces[0]), 0);
	assert_int_equal(st->state, STREAM_WANTS_WELCOME);
	assert_int_equal(take(st, out), SESSION_STREAM_HELLO_BYTES);
	assert_memory_equal(out + 1, tag, sizeof(tag));
}

/* Gives bytes, `step` at a time. The last result; frames are added up in *ret_sum. */
static int give(struct stream *st, const uint8_t *data, size_t n_bytes, size_t step,
		size_t *ret_frames, size_t *ret_sum)
{
	uint8_t piece[4096], *at, *frame;
	size_t left, frame_bytes;
	int r = 0;

	for (size_t given = 0; given < n_bytes && r >= 0; given += step) {
		left = min_size(step, n_bytes - given);
		memcpy(piece, data + given, left);
		at = piece;
		while ((r = stream_next(st, &at, &left, &frame, &frame_bytes)) > 0) {
			(*ret_frames)++;
			for (size_t i = 0; i < frame_bytes; i++)
				*ret_sum += frame[i];
		}
		assert_true(r < 0 || left == 0);
	}
	return r;
}

static void open_pair(struct pair *p)
{
	uint8_t bytes[SESSION_STREAM_HELLO_BYTES];
	size_t n, frames = 0, sum = 0;

	hello_of(&p->end[0], bytes);
	assert_int_equal(stream_accept(&p->end[1], key, bytes, nonces[1]), 0);
	n = take(&p->end[1], bytes);
	assert_int_equal(n, STREAM_WELCOME_BYTES);
	assert_int_equal(give(&p->end[0], bytes, n, 5, &frames, &sum), 0);
	assert_int_equal(p->end[0].state, STREAM_OPEN);
	n = take(&p->end[0], bytes);
	assert_int_equal(n, STREAM_CONFIRM_BYTES);
	assert_int_equal(p->end[1].state, STREAM_WANTS_CONFIRM);
	assert_int_equal(give(&p->end[1], bytes, n, 1, &frames, &sum), 0);
	assert_int_equal(p->end[1].state, STREAM_OPEN);
	assert_int_equal(p->end[1].out_bytes, 0);
	assert_int_equal(frames, 0);
}

static void close_pair(struct pair *p)
{
	stream_fini(&p->end[0]);
	stream_fini(&p->end[1]);
}

static void frames_pass_in_whatever_pieces_they_come(void **state)
{
	static const size_t sizes[] = { 1, 2, 1200, 16, 1, 255, 256, 1400 };
	uint8_t all[4096];
	struct writer w = writer_over(all, sizeof(all));
	size_t want = 0;
	struct pair p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		writer_u16(&w, (uint16_t)sizes[i]);
		for (size_t k = 0; k < sizes[i]; k++) {
			writer_u8(&w, (uint8_t)(k * 7 + i));
			want += (uint8_t)(k * 7 + i);
		}
	}
	assert_false(w.failed);
	open_pair(&p);
	for (size_t step = 1; step <= w.used_bytes; step += step < 20 ? 1 : 97) {
		size_t frames = 0, sum = 0;

		assert_int_equal(give(&p.end[0], all, w.used_bytes, step, &frames, &sum), 0);
		assert_int_equal(frames, ARRAY_SIZE(sizes));
		assert_int_equal(sum, want);
	}
	close_pair(&p);
}

static void a_hello_with_any_bit_changed_is_nobodys(void **state)
{
	uint8_t hello[SESSION_STREAM_HELLO_BYTES];
	struct stream from, to;

	(void)state;
	hello_of(&from, hello);
	for (size_t bit = 0; bit < 8 * sizeof(hello); bit++) {
		hello[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(stream_accept(&to, key, hello, nonces[1]), -EBADMSG);
		assert_int_equal(to.out_bytes, 0); /* not one byte for a stranger */
		stream_fini(&to);
		hello[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(stream_accept(&to, key, hello, nonces[1]), 0);
	stream_fini(&to);
	assert_int_equal(
		stream_accept(&to, (const uint8_t[STREAM_KEY_BYTES]){ 1 }, hello, nonces[1]),
		-EBADMSG);
	stream_fini(&to);
	stream_fini(&from);
}

static void a_wrong_welcome_or_confirmation_ends_it(void **state)
{
	uint8_t bytes[SESSION_STREAM_HELLO_BYTES];
	size_t n, frames = 0, sum = 0;
	struct pair p;

	(void)state;
	for (int wrong = 0; wrong < 2; wrong++) {
		hello_of(&p.end[0], bytes);
		assert_int_equal(stream_accept(&p.end[1], key, bytes, nonces[1]), 0);
		n = take(&p.end[1], bytes);
		bytes[n - 1] ^= wrong == 0;
		assert_int_equal(give(&p.end[0], bytes, n, n, &frames, &sum),
				 wrong == 0 ? -EBADMSG : 0);
		n = take(&p.end[0], bytes);
		if (wrong == 0) {
			assert_int_equal(n, 0);
			assert_int_equal(p.end[0].state, STREAM_FAILED);
		} else {
			bytes[0] ^= 1;
			assert_int_equal(give(&p.end[1], bytes, n, n, &frames, &sum), -EBADMSG);
			assert_int_equal(p.end[1].state, STREAM_FAILED);
			assert_int_equal(give(&p.end[1], bytes, n, n, &frames, &sum), -EBADMSG);
		}
		close_pair(&p);
	}
}

static void a_frame_that_cannot_be_ends_it(void **state)
{
	static const uint8_t lengths[][2] = { { 0, 0 }, { 0x40, 1 }, { 0xff, 0xff } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
		for (size_t step = 1; step <= 2; step++) {
			size_t frames = 0, sum = 0;
			struct pair p;

			open_pair(&p);
			assert_int_equal(give(&p.end[1], lengths[i], 2, step, &frames, &sum),
					 -EBADMSG);
			assert_int_equal(p.end[1].state, STREAM_FAILED);
			close_pair(&p);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_pass_in_whatever_pieces_they_come),
		cmocka_unit_test(a_hello_with_any_bit_changed_is_nobodys),
		cmocka_unit_test(a_wrong_welcome_or_confirmation_ends_it),
		cmocka_unit_test(a_frame_that_cannot_be_ends_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
