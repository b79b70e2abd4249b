/*
 * Parity on its way in. The frames of the last sources are kept in a ring by
 * packet number, rows that cannot be used yet in a small table. As soon as a
 * block lacks no more sources than it has rows, those are rebuilt.
 *
 * What is rebuilt needs no seal of its own: everything that it was made of was
 * authenticated, and nothing else.
 */
#include "ptcp/assoc.h"

#define NO_PN          UINT64_MAX
#define RECEIVING_US   (500 * US_PER_MS)
#define LONG_US        (100 * US_PER_MS)
#define TOLD_TIMES     3
#define LONG_SOURCES   64          /* more are in blocks of a path that has been full for long */
#define REPAIRED_BYTES (1 + 2 + 8) /* with one number; 2 to 8 for each further one */
#define STEP_BYTES     8

struct parity_slot {
	uint64_t pn;
	uint16_t n_bytes; /* of frames */
	bool rebuilt;     /* and did not come by itself so far */
};

struct parity_block {
	uint64_t base_pn;
	uint16_t symbol_bytes;
	uint8_t n_sources;
	uint8_t n_rows; /* 0: not used */
	bool ready;     /* something came since it was looked at */
	uint8_t numbers[PARITY_ROWS_MAX];
	uint8_t rows[PARITY_ROWS_MAX]; /* where they are kept */
};

struct parity_symbols {
	struct parity_slot slots[PARITY_SLOTS];
	struct parity_block blocks[PARITY_BLOCKS_KEPT];
	unsigned next_block;
	uint8_t free_rows[PARITY_ROWS_KEPT];
	unsigned n_free_rows;
	/* Rebuilt, and not handed out yet. */
	uint64_t out_pn[PARITY_ROWS_MAX];
	unsigned n_out;
	uint8_t frames[PARITY_SLOTS][PARITY_SYMBOL_BYTES]; /* with their length in front */
	uint8_t rows[PARITY_ROWS_KEPT][PARITY_SYMBOL_BYTES];
};

static bool prepare(struct ptcp_assoc *a)
{
	struct parity_receiver *const r = &a->parity_rx;

	if (r->symbols)
		return true;
	if (memory_room(a->config.memory, 0) < sizeof(*r->symbols))
		return false;
	struct parity_symbols *const s = malloc(sizeof(*s));
	if (!s)
		return false;
	memory_account(a->config.memory, 0, sizeof(*s));
	for (unsigned i = 0; i < PARITY_SLOTS; i++)
		s->slots[i] = (struct parity_slot){ .pn = NO_PN };
	memset(s->blocks, 0, sizeof(s->blocks));
	s->next_block = s->n_out = 0;
	for (unsigned i = 0; i < PARITY_ROWS_KEPT; i++)
		s->free_rows[i] = (uint8_t)i;
	s->n_free_rows = PARITY_ROWS_KEPT;
	r->symbols = s;
	return true;
}

static unsigned slot_of(uint64_t pn)
{
	return pn % PARITY_SLOTS;
}

static bool has(const struct parity_symbols *s, uint64_t pn)
{
	return s->slots[slot_of(pn)].pn == pn;
}

static bool covers(const struct parity_block *b, uint64_t pn)
{
	return b->n_rows > 0 && pn >= b->base_pn && pn - b->base_pn < b->n_sources;
}

static void mark_ready(struct parity_receiver *r, struct parity_block *b)
{
	r->n_ready += !b->ready;
	b->ready = true;
}

void parity_keep(struct ptcp_assoc *a, uint64_t pn, const uint8_t *frames, size_t n_bytes)
{
	struct parity_receiver *const r = &a->parity_rx;

	r->used_us = a->now_us;
	if (n_bytes > PARITY_SYMBOL_BYTES - 2 || !prepare(a))
		return;
	struct parity_symbols *const s = r->symbols;
	struct parity_slot *const slot = &s->slots[slot_of(pn)];

	if (slot->pn != NO_PN && slot->pn > pn)
		return; /* far too late */
	*slot = (struct parity_slot){ .pn = pn, .n_bytes = (uint16_t)n_bytes };
	memcpy(s->frames[slot_of(pn)] + 2, frames, n_bytes);
	for (unsigned i = 0; i < PARITY_BLOCKS_KEPT; i++)
		if (covers(&s->blocks[i], pn))
			mark_ready(r, &s->blocks[i]);
}

bool parity_receiving_short(const struct ptcp_assoc *a)
{
	const struct parity_receiver *const r = &a->parity_rx;

	return r->symbols && a->now_us < r->used_us + RECEIVING_US && a->now_us >= r->long_us;
}

bool parity_was_rebuilt(const struct ptcp_assoc *a, uint64_t pn)
{
	const struct parity_symbols *const s = a->parity_rx.symbols;

	return s && has(s, pn) && s->slots[slot_of(pn)].rebuilt;
}

void parity_came_late(struct ptcp_assoc *a, uint64_t pn)
{
	a->parity_rx.symbols->slots[slot_of(pn)].rebuilt = false;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void block_free(struct parity_receiver *r, struct parity_block *b)
{
	struct parity_symbols *const s = r->symbols;

	while (b->n_rows > 0)
		s->free_rows[s->n_free_rows++] = b->rows[--b->n_rows];
	r->n_ready -= b->ready;
	b->ready = false;
}

static struct parity_block *block_oldest(struct parity_symbols *s)
{
	struct parity_block *found = NULL;

	for (struct parity_block *b = s->blocks; b < s->blocks + PARITY_BLOCKS_KEPT; b++)
		if (b->n_rows > 0 && (!found || b->base_pn < found->base_pn))
			found = b;
	return found;
}

/* The block that is already there, or room for it. */
static struct parity_block *block_get(struct parity_receiver *r, uint64_t base_pn,
				      uint8_t n_sources, size_t symbol_bytes)
{
	struct parity_symbols *const s = r->symbols;
	struct parity_block *spare = NULL;

	for (struct parity_block *b = s->blocks; b < s->blocks + PARITY_BLOCKS_KEPT; b++) {
		if (b->n_rows == 0)
			spare = b;
		else if (b->base_pn == base_pn)
			return b->n_sources == n_sources && b->symbol_bytes == symbol_bytes ? b
											    : NULL;
	}
	if (!spare) {
		spare = block_oldest(s);
		block_free(r, spare);
	}
	*spare = (struct parity_block){
		.base_pn = base_pn,
		.n_sources = n_sources,
		.symbol_bytes = (uint16_t)symbol_bytes,
	};
	return spare;
}

static void add_row(struct parity_receiver *r, struct parity_block *b, uint8_t number,
		    const uint8_t *row)
{
	struct parity_symbols *const s = r->symbols;

	for (unsigned i = 0; i < b->n_rows; i++)
		if (b->numbers[i] == number)
			return;
	if (b->n_rows == PARITY_ROWS_MAX)
		return;
	while (s->n_free_rows == 0) {
		struct parity_block *const oldest = block_oldest(s);

		block_free(r, oldest);
		if (oldest == b)
			return;
	}
	const uint8_t at = s->free_rows[--s->n_free_rows];
	memcpy(s->rows[at], row, b->symbol_bytes);
	b->numbers[b->n_rows] = number;
	b->rows[b->n_rows++] = at;
	mark_ready(r, b);
}

/* Whether the block has a packet that is still wanted, and is not too old to be solved. */
static bool is_wanted(const struct ptcp_assoc *a, uint64_t base_pn, unsigned n_sources)
{
	if (a->replay.next > base_pn + PARITY_SLOTS)
		return false;
	for (unsigned i = 0; i < n_sources; i++)
		if (!replay_seen(&a->replay, base_pn + i))
			return true;
	return false;
}

int parity_frame(struct ptcp_assoc *a, struct reader *reader)
{
	struct parity_receiver *const r = &a->parity_rx;
	const uint8_t distance = reader_u8(reader), n_sources = reader_u8(reader);
	const uint8_t number = reader_u8(reader);
	const size_t symbol_bytes = reader->left_bytes;
	const uint8_t *const row = reader_bytes(reader, symbol_bytes);

	if (!a->config.parity || reader->failed || n_sources == 0 || n_sources > PARITY_SPAN ||
	    distance < n_sources || distance > r->input_pn || number >= PARITY_SPAN ||
	    symbol_bytes < 3 || symbol_bytes > PARITY_SYMBOL_BYTES)
		return -EBADMSG;
	const uint64_t base_pn = r->input_pn - distance;

	a->stats.parity_received++;
	if (n_sources > LONG_SOURCES)
		r->long_us = a->now_us + LONG_US;
	r->used_us = a->now_us;
	if (!prepare(a) || !is_wanted(a, base_pn, n_sources))
		return 0;
	struct parity_block *const b = block_get(r, base_pn, n_sources, symbol_bytes);
	if (!b)
		return -EBADMSG; /* two stories of one block */
	add_row(r, b, number, row);
	return 0;
}

/* ---- rebuilding --------------------------------------------------------------------------------
 */

/* The positions whose frames are not here. False: more than can be solved. */
static bool find_missing(const struct parity_symbols *s, const struct parity_block *b,
			 uint8_t missing[PARITY_ROWS_MAX], unsigned *ret_n)
{
	unsigned n = 0;

	for (unsigned position = 0; position < b->n_sources; position++) {
		if (has(s, b->base_pn + position))
			continue;
		if (n == b->n_rows)
			return false;
		missing[n++] = (uint8_t)position;
	}
	*ret_n = n;
	return true;
}

/* Takes what is here out of the rows, so that they speak of the missing ones alone. False: a source
 * is longer than the block says. */
static bool reduce(struct parity_symbols *s, const struct parity_block *b, uint8_t *rows[],
		   unsigned n_rows)
{
	for (unsigned position = 0; position < b->n_sources; position++) {
		const unsigned at = slot_of(b->base_pn + position);

		if (!has(s, b->base_pn + position))
			continue;
		if (s->slots[at].n_bytes + 2u > b->symbol_bytes)
			return false;
		parity_code_add(rows, b->numbers, n_rows, position, s->frames[at] + 2,
				s->slots[at].n_bytes);
	}
	return true;
}

/* Enters a symbol that was rebuilt. */
static bool accept_symbol(struct parity_symbols *s, const struct parity_block *b, uint64_t pn)
{
	struct parity_slot *const slot = &s->slots[slot_of(pn)];
	const uint8_t *const symbol = s->frames[slot_of(pn)];
	const size_t n_bytes = (size_t)symbol[0] << 8 | symbol[1];

	if (n_bytes == 0 || n_bytes + 2 > b->symbol_bytes)
		return false;
	*slot = (struct parity_slot){ .pn = pn, .n_bytes = (uint16_t)n_bytes, .rebuilt = true };
	s->out_pn[s->n_out++] = pn;
	return true;
}

static int solve(struct parity_symbols *s, struct parity_block *b)
{
	uint8_t missing[PARITY_ROWS_MAX], *rows[PARITY_ROWS_MAX], *out[PARITY_ROWS_MAX];
	unsigned n;

	if (!find_missing(s, b, missing, &n) || n == 0)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		const unsigned at = slot_of(b->base_pn + missing[i]);

		if (s->slots[at].pn != NO_PN && s->slots[at].pn > b->base_pn + missing[i])
			return 0; /* its place is taken: too old */
		rows[i] = s->rows[b->rows[i]];
		out[i] = s->frames[at];
		s->slots[at].pn = NO_PN;
	}
	if (!reduce(s, b, rows, n))
		return -EBADMSG;
	parity_code_solve(rows, b->numbers, out, missing, n, b->symbol_bytes);
	for (unsigned i = n; i-- > 0;) /* handed out from the end: the oldest first */
		if (!accept_symbol(s, b, b->base_pn + missing[i]))
			return -EBADMSG;
	return n > 0;
}

/* Solves one block that is ready, if any. */
static int solve_next(struct ptcp_assoc *a)
{
	struct parity_receiver *const r = &a->parity_rx;
	struct parity_symbols *const s = r->symbols;

	for (struct parity_block *b = s->blocks; r->n_ready > 0; b++) {
		if (!b->ready)
			continue;
		b->ready = false;
		r->n_ready--;
		if (!is_wanted(a, b->base_pn, b->n_sources)) {
			block_free(r, b);
			continue;
		}
		const int solved = solve(s, b);
		if (solved != 0)
			block_free(r, b);
		if (solved != 0)
			return solved;
	}
	return 0;
}

int parity_rebuild(struct ptcp_assoc *a, uint64_t *ret_pn, const uint8_t **ret_frames,
		   size_t *ret_bytes)
{
	struct parity_receiver *const r = &a->parity_rx;
	struct parity_symbols *const s = r->symbols;

	*ret_bytes = 0;
	while (s && (s->n_out > 0 || r->n_ready > 0)) {
		if (s->n_out == 0) {
			const int solved = solve_next(a);

			if (solved <= 0)
				return solved;
		}
		const uint64_t pn = s->out_pn[--s->n_out];
		if (replay_seen(&a->replay, pn)) {
			/* It did come once, and was not kept. */
			s->slots[slot_of(pn)].rebuilt = false;
			continue;
		}
		*ret_pn = pn;
		*ret_frames = s->frames[slot_of(pn)] + 2;
		*ret_bytes = s->slots[slot_of(pn)].n_bytes;
		if (r->n_repaired == PARITY_REPAIRED_MAX)
			memmove(&r->repaired[0], &r->repaired[1],
				--r->n_repaired * sizeof(r->repaired[0]));
		r->repaired[r->n_repaired].pn = pn;
		r->repaired[r->n_repaired++].n_told = 0;
		a->stats.packets_rebuilt++;
		return 0;
	}
	return 0;
}

/* ---- telling -----------------------------------------------------------------------------------
 */

void parity_write_repaired(struct ptcp_assoc *a, struct build *b)
{
	struct parity_receiver *const r = &a->parity_rx;
	unsigned n = r->n_repaired;

	if (n == 0 || writer_left(&b->w) < REPAIRED_BYTES)
		return;
	/* Newest first; an insertion sort, for they nearly are in order. */
	for (unsigned i = 1; i < n; i++)
		for (unsigned j = i; j > 0 && r->repaired[j].pn > r->repaired[j - 1].pn; j--) {
			const __typeof__(r->repaired[0]) swap = r->repaired[j];

			r->repaired[j] = r->repaired[j - 1];
			r->repaired[j - 1] = swap;
		}
	n = (unsigned)min_size(n, 1 + (writer_left(&b->w) - REPAIRED_BYTES) / STEP_BYTES);
	writer_u8(&b->w, FRAME_REPAIRED);
	writer_varint(&b->w, n);
	writer_varint(&b->w, r->repaired[0].pn);
	for (unsigned i = 1; i < n; i++)
		writer_varint(&b->w, r->repaired[i - 1].pn - r->repaired[i].pn);

	unsigned n_left = 0;
	for (unsigned i = 0; i < r->n_repaired; i++) {
		r->repaired[i].n_told += i < n;
		if (r->repaired[i].n_told < TOLD_TIMES)
			r->repaired[n_left++] = r->repaired[i];
	}
	r->n_repaired = n_left;
}

/* ---- memory
 * -------------------------------------------------------------------------------------- */

static void give_back(struct ptcp_assoc *a)
{
	struct parity_receiver *const r = &a->parity_rx;

	if (!r->symbols)
		return;
	free(r->symbols);
	r->symbols = NULL;
	r->n_ready = 0;
	memory_account(a->config.memory, sizeof(*r->symbols), 0);
}

void parity_tick(struct ptcp_assoc *a)
{
	struct parity_sender *const tx = &a->parity_tx;
	struct parity_receiver *const rx = &a->parity_rx;

	if (tx->rows && tx->state == PARITY_NONE && a->now_us >= tx->used_us + PARITY_KEEP_US) {
		free(tx->rows);
		tx->rows = NULL;
	}
	if (a->now_us >= rx->used_us + PARITY_KEEP_US)
		give_back(a);
}

void parity_fini(struct ptcp_assoc *a)
{
	free(a->parity_tx.rows);
	give_back(a);
}
