/* The arithmetic of parity. */
#include "config.h"

#include "ptcp/parity_code.h"

#ifdef HAVE_ISAL

#include <isa-l/erasure_code.h>

#define TABLE_BYTES 32 /* that ISA-L wants for one coefficient */

bool parity_code_available(void)
{
	return true;
}

static uint8_t coefficient(uint8_t number, unsigned position)
{
	return gf_inv((uint8_t)((PARITY_SPAN + number) ^ position));
}

void parity_code_add(uint8_t *const rows[], const uint8_t numbers[], unsigned n_rows,
		     unsigned position, const uint8_t *frames, size_t n_bytes)
{
	uint8_t coefficients[PARITY_ROWS_MAX], tables[PARITY_ROWS_MAX * TABLE_BYTES];
	uint8_t *behind_length[PARITY_ROWS_MAX];

	assert(n_rows > 0 && n_rows <= PARITY_ROWS_MAX && n_bytes <= PARITY_SYMBOL_BYTES - 2);
	for (unsigned i = 0; i < n_rows; i++) {
		coefficients[i] = coefficient(numbers[i], position);
		rows[i][0] ^= gf_mul(coefficients[i], (uint8_t)(n_bytes >> 8));
		rows[i][1] ^= gf_mul(coefficients[i], (uint8_t)n_bytes);
		behind_length[i] = rows[i] + 2;
	}
	ec_init_tables(1, (int)n_rows, coefficients, tables);
	/* ISA-L takes what it reads without const. */
	ec_encode_data_update((int)n_bytes, 1, (int)n_rows, 0, tables, (uint8_t *)(uintptr_t)frames,
			      behind_length);
}

void parity_code_solve(uint8_t *const rows[], const uint8_t numbers[], uint8_t *const out[],
		       const uint8_t positions[], unsigned n, size_t symbol_bytes)
{
	uint8_t matrix[PARITY_ROWS_MAX * PARITY_ROWS_MAX];
	uint8_t inverse[PARITY_ROWS_MAX * PARITY_ROWS_MAX];
	uint8_t tables[PARITY_ROWS_MAX * PARITY_ROWS_MAX * TABLE_BYTES];
	uint8_t *from[PARITY_ROWS_MAX], *to[PARITY_ROWS_MAX];

	assert(n > 0 && n <= PARITY_ROWS_MAX && symbol_bytes <= PARITY_SYMBOL_BYTES);
	for (unsigned i = 0; i < n; i++) {
		from[i] = rows[i];
		to[i] = out[i];
		for (unsigned j = 0; j < n; j++)
			matrix[i * n + j] = coefficient(numbers[i], positions[j]);
	}
	/* A square part of a Cauchy matrix always has an inverse. */
	const int singular = gf_invert_matrix(matrix, inverse, (int)n);
	assert(singular == 0);
	(void)singular;
	ec_init_tables((int)n, (int)n, inverse, tables);
	ec_encode_data((int)symbol_bytes, (int)n, (int)n, tables, from, to);
}

#else

bool parity_code_available(void)
{
	return false;
}

void parity_code_add(uint8_t *const rows[], const uint8_t numbers[], unsigned n_rows,
		     unsigned position, const uint8_t *frames, size_t n_bytes)
{
	(void)rows, (void)numbers, (void)n_rows, (void)position, (void)frames, (void)n_bytes;
	abort();
}

void parity_code_solve(uint8_t *const rows[], const uint8_t numbers[], uint8_t *const out[],
		       const uint8_t positions[], unsigned n, size_t symbol_bytes)
{
	(void)rows, (void)numbers, (void)out, (void)positions, (void)n, (void)symbol_bytes;
	abort();
}

#endif
