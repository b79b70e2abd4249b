/* Reads the recorded transcripts of tests/vectors/q2q. */
#ifndef TESTS_UNIT_VECTORS_H
#define TESTS_UNIT_VECTORS_H

#include "base/base.h"

#include <jansson.h>

/* NULL-terminated list of the names of the transcripts of boxes. */
extern const char *const vector_files[];

/* The root object of a transcript; decref it. Fails the test if it cannot be read. */
json_t *vector_load(const char *name);

/* Calls fn for each object with a "hex" string in the document, in order. */
void vector_each_step(json_t *document,
		      void (*fn)(void *user, json_t *step, const uint8_t *bytes, size_t n_bytes),
		      void *user);

/* The bytes of step["hex"], to be freed. */
uint8_t *vector_bytes(json_t *step, size_t *ret_bytes);

/* The step of that array: vector_step(d, "steps", 3). */
json_t *vector_step(json_t *document, const char *array, size_t i);

/* The case of that name in the array "cases". */
json_t *vector_case(json_t *document, const char *name);

#endif
