/*
 * parity_code - Reed-Solomon parity over packets (doc/ptcp.md, section 6.4).
 *
 * Systematic, with a Cauchy matrix over GF(2^8), polynomial 0x11d: row i, for
 * i in [0, 128), has for the source at position j in [0, 128) the coefficient
 * 1 / ((128 + i) ^ j). So a row does not depend on how many sources or rows
 * there are, rows are built while sources pass by, and any n rows that arrive
 * replace any n sources that did not. The arithmetic is ISA-L's.
 */
#ifndef PTCP_PARITY_CODE_H
#define PTCP_PARITY_CODE_H

#include "base/base.h"

#define PARITY_SPAN         128  /* positions in a block, and rows that have a number */
#define PARITY_ROWS_MAX     16   /* of one block that are sent, or kept */
#define PARITY_SYMBOL_BYTES 1536 /* length u16, then the frames of one packet */

/* False where this build has no arithmetic for it: then the other calls must not be made. */
bool parity_code_available(void);

/*
 * Adds a symbol, which is a length u16 and n_bytes of frames, at `position` to the rows with these
 * numbers. What of a row lies beyond stays, for a symbol goes on with zeroes.
 */
void parity_code_add(uint8_t *const rows[], const uint8_t numbers[], unsigned n_rows,
		     unsigned position, const uint8_t *frames, size_t n_bytes);

/*
 * Turns rows, to which all sources but those at `positions` were added, so n of each, into these
 * symbols, each symbol_bytes long, out[i] that of positions[i].
 */
void parity_code_solve(uint8_t *const rows[], const uint8_t numbers[], uint8_t *const out[],
		       const uint8_t positions[], unsigned n, size_t symbol_bytes);

#endif
