/* The ring of sent packets. */
#include "ptcp/sent.h"

#define RING_FIRST    64 /* at least one word of the bitmap */
#define BLOCK_RECORDS 6
#define BLOCKS_FIRST  16
#define BLOCKS_MAX    65536
#define NO_BLOCK      UINT32_MAX

struct sent_block {
	struct sent_record records[BLOCK_RECORDS];
	uint32_t next;
};

int sent_init(struct sent_ring *s, uint32_t n_packets_max)
{
	*s = (struct sent_ring){ .n_packets_max = RING_FIRST, .free_block = NO_BLOCK };
	while (s->n_packets_max < n_packets_max && s->n_packets_max < UINT32_C(1) << 20)
		s->n_packets_max *= 2;
	s->packets = calloc(RING_FIRST, sizeof(*s->packets));
	s->outstanding = calloc(RING_FIRST / 64, sizeof(*s->outstanding));
	if (!s->packets || !s->outstanding) {
		sent_fini(s);
		return -ENOMEM;
	}
	s->n_packets = RING_FIRST;
	return 0;
}

void sent_fini(struct sent_ring *s)
{
	free(s->packets);
	free(s->outstanding);
	free(s->blocks);
	*s = (struct sent_ring){ .free_block = NO_BLOCK };
}

bool sent_can_rest(const struct sent_ring *s)
{
	return s->tail == s->next_pn && (s->n_packets > RING_FIRST || s->n_blocks > BLOCKS_FIRST);
}

void sent_rest(struct sent_ring *s)
{
	struct sent_packet *packets;

	if (!sent_can_rest(s))
		return;
	free(s->blocks);
	s->blocks = NULL;
	s->n_blocks = s->n_blocks_free = 0;
	s->free_block = NO_BLOCK;
	packets = realloc(s->packets, RING_FIRST * sizeof(*s->packets));
	if (!packets)
		return;
	/* Empty: where a packet number lies makes no difference, and no bit is set. */
	s->packets = packets;
	s->n_packets = RING_FIRST;
}

static uint64_t *word_of(const struct sent_ring *s, uint64_t pn)
{
	return &s->outstanding[(pn & (s->n_packets - 1)) / 64];
}

static bool resize_ring(struct sent_ring *s, uint32_t n)
{
	struct sent_packet *packets = calloc(n, sizeof(*packets));
	uint64_t *outstanding = calloc(n / 64, sizeof(*outstanding));

	if (!packets || !outstanding) {
		free(packets);
		free(outstanding);
		return false;
	}
	for (uint64_t pn = s->tail; pn < s->next_pn; pn++) {
		packets[pn & (n - 1)] = *sent_at(s, pn);
		if (sent_at(s, pn)->state != SENT_DONE)
			outstanding[(pn & (n - 1)) / 64] |= UINT64_C(1) << (pn % 64);
	}
	free(s->packets);
	free(s->outstanding);
	s->packets = packets;
	s->outstanding = outstanding;
	s->n_packets = n;
	return true;
}

void sent_decay(struct sent_ring *s)
{
	if (s->n_packets > RING_FIRST && s->next_pn - s->tail < s->n_packets / 8)
		resize_ring(s, s->n_packets / 2);
}

static bool grow_blocks(struct sent_ring *s)
{
	const uint32_t n = s->n_blocks == 0 ? BLOCKS_FIRST : 2 * s->n_blocks;
	struct sent_block *blocks;

	if (n > BLOCKS_MAX)
		return false;
	blocks = realloc(s->blocks, n * sizeof(*blocks));
	if (!blocks)
		return false;
	s->blocks = blocks;
	for (uint32_t i = s->n_blocks; i < n; i++) {
		blocks[i].next = s->free_block;
		s->free_block = i;
	}
	s->n_blocks_free += n - s->n_blocks;
	s->n_blocks = n;
	return true;
}

bool sent_make_room(struct sent_ring *s, unsigned n_records, uint64_t now_us)
{
	const unsigned n_more =
		n_records > SENT_RECORDS_INLINE ? n_records - SENT_RECORDS_INLINE : 0;
	const unsigned n_blocks = (n_more + BLOCK_RECORDS - 1) / BLOCK_RECORDS;

	if (s->next_pn - s->tail >= s->n_packets &&
	    !(s->n_packets < s->n_packets_max && resize_ring(s, 2 * s->n_packets)))
		sent_trim(s, now_us); /* a lost packet that blocks the ring has waited enough */
	if (s->next_pn - s->tail >= s->n_packets)
		return false;
	return s->n_blocks_free >= n_blocks || grow_blocks(s);
}

static void store_records(struct sent_ring *s, struct sent_packet *p,
			  const struct sent_record *records, unsigned n_records)
{
	uint32_t *link = &p->more;

	p->n_records = (uint8_t)n_records;
	for (unsigned i = 0; i < n_records && i < SENT_RECORDS_INLINE; i++)
		p->records[i] = records[i];
	for (unsigned i = SENT_RECORDS_INLINE; i < n_records; i++) {
		const unsigned at = (i - SENT_RECORDS_INLINE) % BLOCK_RECORDS;

		if (at == 0) {
			if (i > SENT_RECORDS_INLINE)
				link = &s->blocks[*link].next;
			*link = s->free_block;
			s->free_block = s->blocks[*link].next;
			s->n_blocks_free--;
			s->blocks[*link].next = NO_BLOCK;
		}
		s->blocks[*link].records[at] = records[i];
	}
}

struct sent_packet *sent_enter(struct sent_ring *s, const struct sent_record *records,
			       unsigned n_records)
{
	const uint64_t pn = s->next_pn++;
	struct sent_packet *const p = sent_at(s, pn);

	assert(pn - s->tail < s->n_packets && n_records <= SENT_RECORDS_MAX);
	*p = (struct sent_packet){
		.previous = SENT_NO_PN,
		.next = SENT_NO_PN,
		.more = NO_BLOCK,
		.state = SENT_IN_FLIGHT,
	};
	*word_of(s, pn) |= UINT64_C(1) << (pn % 64);
	store_records(s, p, records, n_records);
	return p;
}

void sent_skip(struct sent_ring *s)
{
	struct sent_packet *const p = sent_at(s, s->next_pn);

	p->state = SENT_DONE;
	p->more = NO_BLOCK;
	p->n_records = 0;
	s->next_pn++;
	sent_trim(s, 0);
}

uint64_t sent_next_outstanding(const struct sent_ring *s, uint64_t from, uint64_t last)
{
	for (uint64_t pn = from; pn <= last;) {
		const uint64_t bits = *word_of(s, pn) >> (pn % 64);

		if (bits != 0) {
			pn += (unsigned)__builtin_ctzll(bits);
			return pn <= last ? pn : SENT_NO_PN;
		}
		pn = (pn | 63) + 1;
	}
	return SENT_NO_PN;
}

void sent_drop_records(struct sent_ring *s, struct sent_packet *p)
{
	while (p->more != NO_BLOCK) {
		const uint32_t block = p->more;

		p->more = s->blocks[block].next;
		s->blocks[block].next = s->free_block;
		s->free_block = block;
		s->n_blocks_free++;
	}
	p->n_records = 0;
}

void sent_done(struct sent_ring *s, uint64_t pn)
{
	struct sent_packet *const p = sent_at(s, pn);

	sent_drop_records(s, p);
	p->state = SENT_DONE;
	*word_of(s, pn) &= ~(UINT64_C(1) << (pn % 64));
}

void sent_trim(struct sent_ring *s, uint64_t lost_before_us)
{
	for (; s->tail < s->next_pn; s->tail++) {
		const struct sent_packet *p = sent_at(s, s->tail);

		if (p->state == SENT_IN_FLIGHT)
			return;
		if (p->state == SENT_LOST && p->lost_us >= lost_before_us)
			return;
		if (p->state == SENT_LOST)
			sent_done(s, s->tail);
	}
}

struct sent_cursor sent_records(const struct sent_ring *s, struct sent_packet *p)
{
	return (struct sent_cursor){ .ring = s, .packet = p, .block = p->more };
}

struct sent_record *sent_next_record(struct sent_cursor *c)
{
	const unsigned i = c->index;

	if (i >= c->packet->n_records)
		return NULL;
	c->index++;
	if (i < SENT_RECORDS_INLINE)
		return &c->packet->records[i];

	const unsigned at = (i - SENT_RECORDS_INLINE) % BLOCK_RECORDS;
	struct sent_block *const block = &c->ring->blocks[c->block];
	if (at == BLOCK_RECORDS - 1)
		c->block = block->next;
	return &block->records[at];
}
