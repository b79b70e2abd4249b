/*
 * replay - a sliding window over packet numbers that were received.
 *
 * As RFC 6479: a ring of words, advanced a word at a time. What is older than
 * the window counts as seen.
 */
#ifndef PTCP_REPLAY_H
#define PTCP_REPLAY_H

#include "base/base.h"

#define REPLAY_WINDOW_BITS 8192 /* at least 2048 (doc/ptcp.md, section 3.3) */
#define REPLAY_WORDS       (REPLAY_WINDOW_BITS / 64 + 1)

struct replay {
	uint64_t words[REPLAY_WORDS];
	uint64_t next; /* one above the highest number seen */
};

bool replay_seen(const struct replay *w, uint64_t pn);
/* Only for a number that is not seen yet, and only after its packet authenticated. */
void replay_mark(struct replay *w, uint64_t pn);

#endif
