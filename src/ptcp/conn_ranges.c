#include "ptcp/conn_ranges.h"

#define ROOM_FIRST 8

void conn_ranges_init(struct conn_ranges *s, uint32_t n_max)
{
	*s = (struct conn_ranges){ .n_max = n_max };
}

void conn_ranges_fini(struct conn_ranges *s)
{
	free(s->items);
	conn_ranges_init(s, s->n_max);
}

/* Index of the first entry that ends at or after `offset`. */
static uint32_t find(const struct conn_ranges *s, uint64_t offset)
{
	uint32_t low = 0, high = s->n_items;

	/* Data comes in order mostly: look at the last entry first. */
	if (high > 0 && s->items[high - 1].end < offset)
		return high;
	while (low < high) {
		const uint32_t mid = low + (high - low) / 2;

		if (s->items[mid].end < offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int grow(struct conn_ranges *s)
{
	const uint32_t n_room = s->n_room ? s->n_room * 2 : ROOM_FIRST;
	struct conn_range *items;

	if (s->n_items < s->n_room)
		return 0;
	if (s->n_items >= s->n_max)
		return -ENOBUFS;
	items = realloc(s->items, n_room * sizeof(*items));
	if (!items)
		return -ENOMEM;
	s->items = items;
	s->n_room = n_room;
	return 0;
}

static int insert_at(struct conn_ranges *s, uint32_t i, struct conn_range range)
{
	const int r = grow(s);

	if (r < 0)
		return r;
	memmove(&s->items[i + 1], &s->items[i], (s->n_items - i) * sizeof(*s->items));
	s->items[i] = range;
	s->n_items++;
	return 0;
}

static void delete_at(struct conn_ranges *s, uint32_t i, uint32_t n)
{
	if (n == 0)
		return; /* there may be no array yet */
	memmove(&s->items[i], &s->items[i + n], (s->n_items - i - n) * sizeof(*s->items));
	s->n_items -= n;
}

int conn_ranges_add(struct conn_ranges *s, uint64_t start, uint64_t end)
{
	const uint32_t i = find(s, start);
	uint32_t n = 0;

	if (start >= end)
		return 0;
	if (i == s->n_items || s->items[i].start > end)
		return insert_at(s, i, (struct conn_range){ start, end });

	/* Joins the entries i .. i + n - 1, all of which touch the new range. */
	while (i + n < s->n_items && s->items[i + n].start <= end)
		n++;
	s->items[i].start = min_u64(s->items[i].start, start);
	s->items[i].end = max_u64(s->items[i + n - 1].end, end);
	delete_at(s, i + 1, n - 1);
	return 0;
}

int conn_ranges_remove(struct conn_ranges *s, uint64_t start, uint64_t end)
{
	uint32_t i = find(s, start), n = 0;

	if (start >= end)
		return 0;
	if (i < s->n_items && s->items[i].end == start)
		i++;
	if (i == s->n_items || s->items[i].start >= end)
		return 0;
	if (s->items[i].start < start) {
		if (s->items[i].end > end) {
			const struct conn_range tail = { end, s->items[i].end };
			const int r = insert_at(s, i + 1, tail);

			if (r < 0)
				return r;
		}
		s->items[i++].end = start;
	}
	while (i + n < s->n_items && s->items[i + n].end <= end)
		n++;
	delete_at(s, i, n);
	if (i < s->n_items && s->items[i].start < end)
		s->items[i].start = end;
	return 0;
}

void conn_ranges_trim(struct conn_ranges *s, uint64_t offset)
{
	uint32_t n = 0;

	while (n < s->n_items && s->items[n].end <= offset)
		n++;
	delete_at(s, 0, n);
	if (s->n_items > 0 && s->items[0].start < offset)
		s->items[0].start = offset;
}

bool conn_ranges_first_gap(const struct conn_ranges *s, uint64_t start, uint64_t end,
			   struct conn_range *ret_gap)
{
	for (uint32_t i = find(s, start); i < s->n_items && start < end; i++) {
		if (s->items[i].start > start)
			break;
		start = max_u64(start, s->items[i].end);
	}
	if (start >= end)
		return false;

	const uint32_t next = find(s, start + 1);

	ret_gap->start = start;
	ret_gap->end = next < s->n_items ? min_u64(end, s->items[next].start) : end;
	return true;
}
