/* Acknowledgements, both ways. */
#include "ptcp/ack.h"
#include "ptcp/frames.h"

/* Enters pn. Returns whether it opened or filled a hole. */
static bool insert(struct ack_state *s, uint64_t pn)
{
	struct ack_range *const r = s->ranges;
	unsigned i = 0;

	while (i < s->n_ranges && r[i].low > pn + 1)
		i++;
	/* Now range i, if there is one, reaches down to pn + 1 at most. */
	if (i < s->n_ranges && r[i].high + 1 >= pn) {
		if (r[i].high + 1 == pn)
			r[i].high = pn;
		else if (r[i].low == pn + 1)
			r[i].low = pn;
		if (i > 0 && r[i - 1].low == r[i].high + 1) {
			r[i - 1].low = r[i].low;
			s->n_ranges--;
			memmove(&r[i], &r[i + 1], (s->n_ranges - i) * sizeof(*r));
			return true;
		}
		if (i + 1 < s->n_ranges && r[i + 1].high + 1 == r[i].low) {
			r[i].low = r[i + 1].low;
			s->n_ranges--;
			memmove(&r[i + 1], &r[i + 2], (s->n_ranges - i - 1) * sizeof(*r));
			return true;
		}
		return i > 0;
	}
	if (i == ACK_RANGES_MAX)
		return false; /* older than all we keep: the sender has given it up */
	if (s->n_ranges == ACK_RANGES_MAX)
		s->n_ranges--;
	memmove(&r[i + 1], &r[i], (s->n_ranges - i) * sizeof(*r));
	r[i] = (struct ack_range){ .low = pn, .high = pn };
	s->n_ranges++;
	return s->n_ranges > 1;
}

void ack_on_packet(struct ack_state *s, uint64_t pn, bool eliciting, uint8_t ecn,
		   const struct ack_policy *policy, uint64_t now_us)
{
	const bool hole = insert(s, pn);

	s->n_received++;
	if (s->ranges[0].high == pn)
		s->largest_us = now_us;
	s->ect0 += ecn == 2;
	s->ect1 += ecn == 1;
	s->ce += ecn == 3;
	if (!eliciting)
		return;
	s->n_waiting++;
	if (hole || ecn == 3 || s->n_waiting >= policy->n_every)
		s->deadline_us = now_us;
	else
		s->deadline_us = min_u64(s->deadline_us, add_sat_u64(now_us, policy->delay_us));
}

void ack_forget(struct ack_state *s, uint64_t largest)
{
	while (s->n_ranges > 1 && s->ranges[s->n_ranges - 1].high <= largest)
		s->n_ranges--;
}

bool ack_write(struct ack_state *s, struct writer *w, bool ecn, uint64_t now_us)
{
	const size_t fixed_bytes = 1 + 8 + 8 + 2 + 8 + (ecn ? 24 : 0), range_bytes = 16;
	unsigned n = s->n_ranges;

	if (n == 0 || writer_left(w) < fixed_bytes)
		return false;
	n = (unsigned)min_size(n, 1 + (writer_left(w) - fixed_bytes) / range_bytes);

	writer_u8(w, ecn ? FRAME_ACK_ECN : FRAME_ACK);
	writer_varint(w, s->ranges[0].high);
	writer_varint(w, now_us > s->largest_us ? now_us - s->largest_us : 0);
	writer_varint(w, n - 1);
	writer_varint(w, s->ranges[0].high - s->ranges[0].low);
	for (unsigned i = 1; i < n; i++) {
		writer_varint(w, s->ranges[i - 1].low - s->ranges[i].high - 2);
		writer_varint(w, s->ranges[i].high - s->ranges[i].low);
	}
	if (ecn) {
		writer_varint(w, s->ect0);
		writer_varint(w, s->ect1);
		writer_varint(w, s->ce);
	}
	s->n_waiting = 0;
	s->deadline_us = NEVER_US;
	return true;
}

int ack_parse(struct reader *r, bool has_ecn, struct ack_frame *ret_frame)
{
	struct ack_frame *const f = ret_frame;
	const uint64_t largest = reader_varint(r);

	f->delay_us = reader_varint(r);
	const uint64_t n_more = reader_varint(r), first = reader_varint(r);
	if (r->failed || n_more >= ACK_RANGES_MAX || first > largest)
		return -EBADMSG;
	f->ranges[0] = (struct ack_range){ .low = largest - first, .high = largest };
	f->n_ranges = 1 + (unsigned)n_more;

	for (unsigned i = 1; i < f->n_ranges; i++) {
		const uint64_t gap = reader_varint(r), length = reader_varint(r);
		const uint64_t above = f->ranges[i - 1].low;

		if (r->failed || above < gap + 2 || above - gap - 2 < length)
			return -EBADMSG;
		f->ranges[i].high = above - gap - 2;
		f->ranges[i].low = f->ranges[i].high - length;
	}
	f->has_ecn = has_ecn;
	f->ect0 = has_ecn ? reader_varint(r) : 0;
	f->ect1 = has_ecn ? reader_varint(r) : 0;
	f->ce = has_ecn ? reader_varint(r) : 0;
	return r->failed ? -EBADMSG : 0;
}
