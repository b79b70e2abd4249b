/* Declarations for programs that are linked with --wrap=malloc and its kin. */
#ifndef TESTS_UNIT_WRAPPED_MEMORY_H
#define TESTS_UNIT_WRAPPED_MEMORY_H

#include <stddef.h>

void *__real_malloc(size_t n_bytes);
void *__real_calloc(size_t n, size_t n_bytes);
void *__real_realloc(void *p, size_t n_bytes);
void __real_free(void *p);
void *__wrap_malloc(size_t n_bytes);
void *__wrap_calloc(size_t n, size_t n_bytes);
void *__wrap_realloc(void *p, size_t n_bytes);
void __wrap_free(void *p);

#endif
