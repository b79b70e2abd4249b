/* The replay window. */
#include "ptcp/replay.h"

static uint64_t *word_of(const struct replay *w, uint64_t pn)
{
	return &((struct replay *)(uintptr_t)w)->words[pn / 64 % REPLAY_WORDS];
}

bool replay_seen(const struct replay *w, uint64_t pn)
{
	if (pn >= w->next)
		return false;
	if (w->next - pn > REPLAY_WINDOW_BITS)
		return true;
	return (*word_of(w, pn) >> (pn % 64) & 1) != 0;
}

void replay_mark(struct replay *w, uint64_t pn)
{
	if (pn >= w->next) {
		/* Words between the old and the new highest one belong to numbers long gone. */
		const uint64_t first = w->next == 0 ? 0 : (w->next - 1) / 64 + 1, last = pn / 64;

		if (last >= first && last - first >= REPLAY_WORDS)
			memset(w->words, 0, sizeof(w->words));
		else
			for (uint64_t i = first; i <= last; i++)
				w->words[i % REPLAY_WORDS] = 0;
		w->next = pn + 1;
	}
	*word_of(w, pn) |= UINT64_C(1) << (pn % 64);
}
