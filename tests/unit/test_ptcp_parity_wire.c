/*
 * Parity as a peer may send it: packets made by hand, sealed as that peer's. What the specification
 * allows is rebuilt, everything else ends the association, and nothing takes more memory than
 * doc/ptcp.md, section 6.4 says.
 */
#include "unit.h"
#include "wrapped_memory.h"

#include <malloc.h>

#include "ptcp/frames.h"
#include "ptcp/packet.h"
#include "ptcp/parity.h"
#include "ptcp/replay.h"
#include "ptcp_pair.h"

#define BASE         1000 /* above all numbers that the handshake took */
#define RETIRE_US    (11 * US_PER_S)
#define MEMORY_BYTES 900000

static struct pair pair;
static uint64_t n_messages, last_message;

/* ---- memory: linked with --wrap ---- */

static size_t used_bytes, peak_bytes;
static bool refuse;

static void *taken(void *p)
{
	if (p)
		used_bytes += malloc_usable_size(p);
	if (used_bytes > peak_bytes)
		peak_bytes = used_bytes;
	return p;
}

void *__wrap_malloc(size_t n)
{
	return refuse ? NULL : taken(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t each)
{
	return refuse ? NULL : taken(__real_calloc(n, each));
}

void *__wrap_realloc(void *p, size_t n)
{
	const size_t before_bytes = p ? malloc_usable_size(p) : 0;
	void *const q = refuse ? NULL : __real_realloc(p, n);

	if (q)
		used_bytes -= before_bytes;
	return taken(q);
}

void __wrap_free(void *p)
{
	if (p)
		used_bytes -= malloc_usable_size(p);
	__real_free(p);
}

/* ---- packets by hand ---- */

struct packet {
	uint8_t data[PTCP_MTU_MAX];
	struct writer w;
	uint64_t pn;
};

static void packet_start(struct packet *p, uint64_t pn, bool source)
{
	static const uint8_t cid[PTCP_CID_BYTES] = {
		0xa1, 0xa1, 0xa1, 0xa1, 0xa1, 0xa1, 0xa1, 0xa1
	};

	p->w = writer_over(p->data, sizeof(p->data) - PTCP_TAG_BYTES);
	p->pn = pn;
	packet_write_short(&p->w, cid, false, pn);
	if (source)
		p->data[0] |= PACKET_SHORT_SOURCE;
}

/* Seals it and gives it to the server, as the client's. */
static int packet_input(struct packet *p)
{
	const struct ptcp_crypto cipher = pair_null_cipher(&pair.end[0].tls);
	const size_t n_bytes = p->w.used_bytes - PACKET_SHORT_BYTES;

	assert_false(p->w.failed);
	assert_int_equal(cipher.seal(cipher.ctx, PTCP_EPOCH_DATA, 0, p->pn, p->data,
				     PACKET_SHORT_BYTES, p->data + PACKET_SHORT_BYTES, n_bytes),
			 0);
	return ptcp_input(pair.end[1].a, 1, p->data, p->w.used_bytes + PTCP_TAG_BYTES, 0,
			  pair.now_us);
}

static bool is_open(void)
{
	return ptcp_assoc_state(pair.end[1].a) == PTCP_ESTABLISHED;
}

struct frames {
	uint8_t bytes[PARITY_SYMBOL_BYTES];
	size_t n_bytes;
};

/* The frames of a packet with one message that tells its number. */
static struct frames message_frames(uint64_t number)
{
	struct frames f;
	struct writer w = writer_over(f.bytes, sizeof(f.bytes));

	writer_u8(&w, FRAME_MESSAGE);
	writer_u32(&w, (uint32_t)number);
	writer_u64(&w, number);
	f.n_bytes = w.used_bytes;
	return f;
}

static int input_source(uint64_t pn, const struct frames *f)
{
	struct packet p;

	packet_start(&p, pn, true);
	writer_bytes(&p.w, f->bytes, f->n_bytes);
	return packet_input(&p);
}

struct parity {
	uint64_t pn;
	uint8_t distance, n_sources, row;
	uint8_t symbol[PTCP_MTU_MAX];
	size_t symbol_bytes;
};

static void write_parity(struct writer *w, const struct parity *f)
{
	writer_u8(w, FRAME_PARITY);
	writer_u8(w, f->distance);
	writer_u8(w, f->n_sources);
	writer_u8(w, f->row);
	writer_bytes(w, f->symbol, f->symbol_bytes);
}

static int input_parity(const struct parity *f)
{
	struct packet p;

	packet_start(&p, f->pn, false);
	write_parity(&p.w, f);
	return packet_input(&p);
}

/* Row `row` of a block of these sources. */
static struct parity parity_over(uint64_t base, const struct frames sources[], unsigned n,
				 uint8_t row)
{
	struct parity f = {
		.pn = base + n + row,
		.distance = (uint8_t)(n + row),
		.n_sources = (uint8_t)n,
		.row = row,
	};
	uint8_t *rows[] = { f.symbol };

	for (unsigned i = 0; i < n; i++) {
		parity_code_add(rows, &row, 1, i, sources[i].bytes, sources[i].n_bytes);
		f.symbol_bytes = sources[i].n_bytes + 2 > f.symbol_bytes ? sources[i].n_bytes + 2
									 : f.symbol_bytes;
	}
	return f;
}

static void got_message(struct pair_end *end, const uint8_t *data, size_t n_bytes)
{
	struct reader r = reader_over(data, n_bytes);

	(void)end;
	n_messages++;
	last_message = reader_u64(&r);
	assert_false(r.failed);
}

static struct ptcp_memory memory; /* of both */

static void begin(enum ptcp_parity parity)
{
	const struct ptcp_config config = { .parity = parity, .memory = &memory };

	memory = (struct ptcp_memory){ .limit_bytes = 64 << 20 };

	pair_init(&pair, 1, &config);
	pair_link_set(&pair, 1, (struct pair_link){ .delay_us = 10000 });
	pair_path_add(&pair, 1, PTCP_PATH_DIRECT, 1472);
	assert_true(pair_establish(&pair));
	n_messages = 0;
	pair.end[1].on_message = got_message;
}

/* What was delivered; the client never hears of packets that it did not send. */
static void deliver(void)
{
	const uint8_t *data;
	size_t n_bytes;

	while (ptcp_message_next(pair.end[1].a, &data, &n_bytes))
		got_message(&pair.end[1], data, n_bytes);
}

static uint64_t n_rebuilt(void)
{
	struct ptcp_stats stats;

	ptcp_get_stats(pair.end[1].a, &stats);
	return stats.packets_rebuilt;
}

/* ---- what is right ---- */

static void a_lost_source_is_rebuilt_once(void **state)
{
	const struct frames sources[] = { message_frames(500), message_frames(501) };

	(void)state;
	for (unsigned lost = 0; lost < 2; lost++) {
		begin(PTCP_PARITY_AUTO);
		const struct parity first = parity_over(BASE, sources, 2, 0),
				    second = parity_over(BASE, sources, 2, 1);

		assert_int_equal(input_source(BASE + !lost, &sources[!lost]), 0);
		deliver();
		assert_int_equal(last_message, 500 + !lost);
		assert_int_equal(input_parity(&first), 0);
		deliver();
		assert_int_equal(last_message, 500 + lost);
		assert_int_equal(n_messages, 2);
		assert_int_equal(n_rebuilt(), 1);
		/* Neither another row nor the source itself says it again. */
		assert_int_equal(input_parity(&second), 0);
		assert_int_equal(input_source(BASE + lost, &sources[lost]), -ESTALE);
		deliver();
		assert_int_equal(n_messages, 2);
		assert_int_equal(n_rebuilt(), 1);
		assert_true(is_open());
		pair_fini(&pair);
	}
}

static void rows_that_come_before_their_sources_wait_for_them(void **state)
{
	const struct frames sources[] = { message_frames(500), message_frames(501),
					  message_frames(502) };

	(void)state;
	begin(PTCP_PARITY_AUTO);
	const struct parity row = parity_over(BASE, sources, 3, 0);
	assert_int_equal(input_parity(&row), 0);
	assert_int_equal(input_source(BASE + 2, &sources[2]), 0);
	assert_int_equal(n_rebuilt(), 0);
	assert_int_equal(input_source(BASE, &sources[0]), 0);
	deliver();
	assert_int_equal(n_rebuilt(), 1);
	assert_int_equal(n_messages, 3);
	pair_fini(&pair);
}

/* ---- what is wrong ---- */

/* A frame that is right but for what `spoil` does to it ends the association, as wrong. */
static void is_refused(void (*spoil)(struct parity *f))
{
	const struct frames sources[] = { message_frames(500), message_frames(501) };

	begin(PTCP_PARITY_AUTO);
	struct parity f = parity_over(BASE, sources, 2, 0);
	spoil(&f);
	assert_int_equal(input_parity(&f), -EBADMSG);
	assert_int_equal(ptcp_assoc_state(pair.end[1].a), PTCP_CLOSING);
	assert_int_equal(n_rebuilt(), 0);
	pair_run(&pair, 0, NULL, NULL);
	assert_int_equal(pair.end[1].close_code, PTCP_CLOSE_PROTOCOL);
	pair_fini(&pair);
}

static void no_distance(struct parity *f)
{
	f->distance = 0;
}

static void starts_below_zero(struct parity *f)
{
	f->pn = 100;
	f->distance = 101;
}

static void has_no_source(struct parity *f)
{
	f->n_sources = 0;
}

static void covers_itself(struct parity *f)
{
	f->n_sources = (uint8_t)(f->distance + 1);
}

static void covers_what_is_to_come(struct parity *f)
{
	f->n_sources = PARITY_SPAN;
}

static void has_129_sources(struct parity *f)
{
	f->distance = UINT8_MAX;
	f->n_sources = PARITY_SPAN + 1;
}

static void has_row_128(struct parity *f)
{
	f->row = PARITY_SPAN;
}

static void has_row_255(struct parity *f)
{
	f->row = 255;
}

static void has_no_symbol(struct parity *f)
{
	f->symbol_bytes = 0;
}

static void has_a_symbol_of_a_length_alone(struct parity *f)
{
	f->symbol_bytes = 2;
}

static void has_a_symbol_too_long(struct parity *f)
{
	f->symbol_bytes = PARITY_SYMBOL_BYTES + 1;
}

static void each_field_that_is_wrong_ends_the_association(void **state)
{
	static void (*const spoils[])(struct parity * f) = {
		no_distance,
		starts_below_zero,
		has_no_source,
		covers_itself,
		covers_what_is_to_come,
		has_129_sources,
		has_row_128,
		has_row_255,
		has_no_symbol,
		has_a_symbol_too_long,
		has_a_symbol_of_a_length_alone,
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(spoils); i++)
		is_refused(spoils[i]);
}

static void a_frame_cut_in_its_fields_ends_the_association(void **state)
{
	const struct frames sources[] = { message_frames(500), message_frames(501) };
	const size_t whole_bytes = PARITY_FRAME_BYTES + 3; /* the shortest there is */

	(void)state;
	for (size_t n = 1; n <= whole_bytes; n++) {
		struct packet p;

		begin(PTCP_PARITY_AUTO);
		const struct parity f = parity_over(BASE, sources, 2, 0);
		packet_start(&p, f.pn, false);
		write_parity(&p.w, &f);
		p.w.used_bytes = PACKET_SHORT_BYTES + n;
		assert_int_equal(packet_input(&p), n == whole_bytes ? 0 : -EBADMSG);
		assert_int_equal(is_open(), n == whole_bytes);
		pair_fini(&pair);
	}
}

/* With each bit flipped it is refused, or does no harm: one source at most comes of it. */
static void each_flipped_bit_is_survived(void **state)
{
	const struct frames sources[] = { message_frames(500), message_frames(501) };
	struct packet whole;
	unsigned n_refused = 0;

	(void)state;
	const struct parity f = parity_over(BASE, sources, 2, 0);
	packet_start(&whole, f.pn, false);
	write_parity(&whole.w, &f);
	for (size_t bit = 0; bit < 8 * (whole.w.used_bytes - PACKET_SHORT_BYTES); bit++) {
		struct packet p;

		begin(PTCP_PARITY_AUTO);
		assert_int_equal(input_source(BASE + 1, &sources[1]), 0);
		packet_start(&p, f.pn, false);
		write_parity(&p.w, &f);
		p.data[PACKET_SHORT_BYTES + bit / 8] ^= (uint8_t)(1 << bit % 8);
		const int result = packet_input(&p);
		/* One bit more makes a CLOSE of it, which is right. */
		assert_true(result == 0 || (result == -EBADMSG && !is_open()));
		assert_in_range(n_rebuilt(), 0, 1);
		n_refused += result != 0;
		pair_fini(&pair);
	}
	assert_true(n_refused > 0);
}

static void two_stories_of_one_block_end_the_association(void **state)
{
	const struct frames sources[] = { message_frames(500), message_frames(501),
					  message_frames(502) };

	(void)state;
	for (int longer = 0; longer < 2; longer++) {
		begin(PTCP_PARITY_AUTO);
		const struct parity first = parity_over(BASE, sources, 3, 0);
		struct parity second = parity_over(BASE, sources, 3, 1);

		if (longer)
			second.symbol_bytes++;
		else
			second.n_sources = 2;
		assert_int_equal(input_parity(&first), 0);
		assert_int_equal(input_parity(&second), -EBADMSG);
		assert_false(is_open());
		pair_fini(&pair);
	}
}

static void a_source_longer_than_its_block_ends_the_association(void **state)
{
	struct frames sources[] = { message_frames(500), message_frames(501) };

	(void)state;
	begin(PTCP_PARITY_AUTO);
	/* Cut behind the shorter one, which the row would still yield. */
	sources[1].bytes[sources[1].n_bytes++] = 0;
	struct parity f = parity_over(BASE, sources, 2, 0);
	f.symbol_bytes--;
	assert_int_equal(input_source(BASE + 1, &sources[1]), 0);
	assert_int_equal(input_parity(&f), -EBADMSG);
	assert_false(is_open());
	pair_fini(&pair);
}

/* What the row makes of the lost source is what the peer wrote into it: these frames, that length.
 */
static int input_made_up(const struct frames *lost, uint16_t length)
{
	const uint8_t row = 0, difference[2] = { (uint8_t)((length ^ lost->n_bytes) >> 8),
						 (uint8_t)(length ^ lost->n_bytes) };
	const struct frames sources[] = { *lost, message_frames(501) };
	uint8_t scaled[PARITY_SYMBOL_BYTES] = { 0 }, *rows[] = { scaled };

	begin(PTCP_PARITY_AUTO);
	struct parity f = parity_over(BASE, sources, 2, 0);
	/* The difference of lengths, times the coefficient of position 0: it is behind the length
	 * that parity_code_add() puts in front. */
	parity_code_add(rows, &row, 1, 0, difference, sizeof(difference));
	f.symbol[0] ^= scaled[2];
	f.symbol[1] ^= scaled[3];
	assert_int_equal(input_source(BASE + 1, &sources[1]), 0);
	return input_parity(&f);
}

static void a_rebuilt_length_must_fit(void **state)
{
	const struct frames lost = message_frames(500); /* as long as the block */
	static const uint16_t wrong[] = { 0, 14, 15, 256, 1534, 1535, 65535 };

	(void)state;
	assert_int_equal(lost.n_bytes, 13);
	assert_int_equal(input_made_up(&lost, 13), 0);
	deliver();
	assert_int_equal(last_message, 500);
	pair_fini(&pair);
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(input_made_up(&lost, wrong[i]), -EBADMSG);
		assert_false(is_open());
		pair_fini(&pair);
	}
}

static void frames_that_no_rebuilt_packet_has_end_the_association(void **state)
{
	static const uint8_t wrong[] = { FRAME_HANDSHAKE,
					 FRAME_PATH_CHALLENGE,
					 FRAME_PATH_RESPONSE,
					 FRAME_PARITY,
					 0x0d,
					 0x18,
					 0x30,
					 0xff };
	struct frames f = { .n_bytes = 13 };

	(void)state;
	f.bytes[0] = FRAME_PADDING;
	assert_int_equal(input_made_up(&f, 13), 0);
	assert_true(is_open());
	assert_int_equal(n_rebuilt(), 1);
	pair_fini(&pair);
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		f.bytes[0] = wrong[i];
		assert_int_equal(input_made_up(&f, 13), -EBADMSG);
		assert_false(is_open());
		pair_fini(&pair);
	}
}

/* ---- REPAIRED ---- */

static int input_repaired(const uint64_t fields[], unsigned n)
{
	struct packet p;

	packet_start(&p, BASE, false);
	writer_u8(&p.w, FRAME_REPAIRED);
	for (unsigned i = 0; i < n; i++)
		writer_varint(&p.w, fields[i]);
	return packet_input(&p);
}

static void a_repaired_frame_names_what_was_sent(void **state)
{
	static const struct {
		uint64_t fields[4];
		unsigned n;
		int result;
	} cases[] = {
		{ { 1, 0 }, 2, 0 },
		{ { 2, 1, 1 }, 3, 0 },
		{ { 0, 0 }, 2, -EBADMSG },  /* of none */
		{ { 65, 0 }, 2, -EBADMSG }, /* of too many */
		{ { UINT64_C(1) << 61, 0 }, 2, -EBADMSG },
		{ { 1, 60000 }, 2, -EBADMSG }, /* never sent */
		{ { 1, UINT64_C(1) << 61 }, 2, -EBADMSG },
		{ { 2, 1, 0 }, 3, -EBADMSG }, /* the same again */
		{ { 2, 1, 2 }, 3, -EBADMSG }, /* below zero */
		{ { 3, 1, 1 }, 3, -EBADMSG }, /* cut */
		{ { 1 }, 1, -EBADMSG },
		{ { 0 }, 0, -EBADMSG },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(PTCP_PARITY_AUTO);
		assert_int_equal(input_repaired(cases[i].fields, cases[i].n), cases[i].result);
		assert_int_equal(is_open(), cases[i].result == 0);
		pair_fini(&pair);
	}
}

/* ---- not agreed ---- */

static void without_agreement_there_is_no_parity(void **state)
{
	static const uint64_t repaired[] = { 1, 0 };
	const struct frames sources[] = { message_frames(500), message_frames(501) };
	const struct parity f = parity_over(BASE, sources, 2, 0);
	const size_t used_before_bytes = used_bytes;

	(void)state;
	begin(PTCP_PARITY_OFF);
	/* A packet with S is dropped, and may come again without it. */
	assert_int_equal(input_source(BASE + 1, &sources[1]), -EBADMSG);
	assert_true(is_open());
	deliver();
	assert_int_equal(n_messages, 0);
	assert_int_equal(input_parity(&f), -EBADMSG);
	assert_false(is_open());
	pair_fini(&pair);

	begin(PTCP_PARITY_OFF);
	assert_int_equal(input_repaired(repaired, 2), -EBADMSG);
	assert_false(is_open());
	pair_fini(&pair);
	assert_int_equal(used_bytes, used_before_bytes);
}

/* ---- memory ---- */

static void a_flood_of_parity_stays_within_its_memory(void **state)
{
	struct parity f = { .n_sources = PARITY_SPAN, .symbol_bytes = 1400 };
	const struct frames source = message_frames(500);

	(void)state;
	begin(PTCP_PARITY_AUTO);
	const size_t before_bytes = used_bytes;
	peak_bytes = used_bytes;
	/* Sources now and then, and rows of blocks that lack more of them than can be solved. */
	for (uint64_t pn = BASE; pn < BASE + 20000; pn++) {
		if (pn % 3 == 0) {
			assert_int_equal(input_source(pn, &source), 0);
			deliver();
			continue;
		}
		f.pn = pn;
		f.distance = (uint8_t)(PARITY_SPAN + pn % 100);
		f.row = (uint8_t)(pn % PARITY_SPAN);
		assert_int_equal(input_parity(&f), 0);
	}
	assert_int_equal(n_rebuilt(), 0);
	assert_true(peak_bytes > before_bytes + MEMORY_BYTES / 2);
	assert_true(peak_bytes < before_bytes + MEMORY_BYTES);
	pair_fini(&pair);
}

static void memory_of_parity_is_given_back_when_it_rests(void **state)
{
	const struct frames sources[] = { message_frames(500), message_frames(501) };

	(void)state;
	begin(PTCP_PARITY_AUTO);
	const size_t before_bytes = used_bytes;
	const struct parity f = parity_over(BASE, sources, 2, 0);

	assert_int_equal(input_source(BASE + 1, &sources[1]), 0);
	assert_int_equal(input_parity(&f), 0);
	deliver();
	assert_true(used_bytes > before_bytes + 500000);
	assert_in_range(memory.held_bytes, 500000, MEMORY_BYTES + 10000);
	pair.now_us += RETIRE_US;
	ptcp_tick(pair.end[1].a, pair.now_us);
	assert_true(used_bytes < before_bytes + 10000);
	assert_true(memory.held_bytes < 10000);
	/* And it begins again. */
	const struct frames later[] = { message_frames(502), message_frames(503) };
	const struct parity again = parity_over(BASE + 100, later, 2, 0);
	assert_int_equal(input_source(BASE + 101, &later[1]), 0);
	assert_int_equal(input_parity(&again), 0);
	deliver();
	assert_int_equal(n_messages, 4);
	pair_fini(&pair);
}

static void without_memory_packets_still_come_but_none_is_rebuilt(void **state)
{
	const struct frames sources[] = { message_frames(500), message_frames(501) };

	(void)state;
	begin(PTCP_PARITY_AUTO);
	const struct parity f = parity_over(BASE, sources, 2, 0);
	deliver();
	/* None in the common bound, or none at all. */
	memory.limit_bytes = 0;
	assert_int_equal(input_source(BASE + 50, &sources[0]), 0);
	memory.limit_bytes = 64 << 20;
	refuse = true;
	const int taken[] = { input_source(BASE + 1, &sources[1]), input_parity(&f) };
	refuse = false;
	assert_int_equal(taken[0], 0);
	assert_int_equal(taken[1], 0);
	assert_true(is_open());
	assert_int_equal(n_rebuilt(), 0);
	pair_fini(&pair);
	assert_int_equal(memory.held_bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lost_source_is_rebuilt_once),
		cmocka_unit_test(rows_that_come_before_their_sources_wait_for_them),
		cmocka_unit_test(each_field_that_is_wrong_ends_the_association),
		cmocka_unit_test(a_frame_cut_in_its_fields_ends_the_association),
		cmocka_unit_test(each_flipped_bit_is_survived),
		cmocka_unit_test(two_stories_of_one_block_end_the_association),
		cmocka_unit_test(a_source_longer_than_its_block_ends_the_association),
		cmocka_unit_test(a_rebuilt_length_must_fit),
		cmocka_unit_test(frames_that_no_rebuilt_packet_has_end_the_association),
		cmocka_unit_test(a_repaired_frame_names_what_was_sent),
		cmocka_unit_test(without_agreement_there_is_no_parity),
		cmocka_unit_test(a_flood_of_parity_stays_within_its_memory),
		cmocka_unit_test(memory_of_parity_is_given_back_when_it_rests),
		cmocka_unit_test(without_memory_packets_still_come_but_none_is_rebuilt),
	};

	if (!ptcp_parity_available()) {
		print_message("1..0 # SKIP this build has no arithmetic for parity\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
