/* Allocation, counted and refused. Linked with --wrap. */
#include "sim.h"
#include "../unit/wrapped_memory.h"

#include <malloc.h>
#include <stdio.h>

static struct {
	size_t used_bytes, peak_bytes;
	uint64_t n_calls, refuse_from, refuse_until;
} memory;

static bool refused(void)
{
	memory.n_calls++;
	return memory.n_calls >= memory.refuse_from && memory.n_calls < memory.refuse_until;
}

static void *taken(void *p)
{
	if (!p)
		return NULL;
	memory.used_bytes += malloc_usable_size(p);
	if (memory.used_bytes > memory.peak_bytes)
		memory.peak_bytes = memory.used_bytes;
	return p;
}

void *__wrap_malloc(size_t n_bytes)
{
	return refused() ? NULL : taken(__real_malloc(n_bytes));
}

void *__wrap_calloc(size_t n, size_t n_bytes)
{
	return refused() ? NULL : taken(__real_calloc(n, n_bytes));
}

void *__wrap_realloc(void *p, size_t n_bytes)
{
	const size_t before_bytes = p ? malloc_usable_size(p) : 0;

	if (refused())
		return NULL;
	void *const q = __real_realloc(p, n_bytes);
	if (!q)
		return NULL;
	memory.used_bytes -= before_bytes;
	return taken(q);
}

void __wrap_free(void *p)
{
	if (p)
		memory.used_bytes -= malloc_usable_size(p);
	__real_free(p);
}

void *sim_own_alloc(size_t n_bytes)
{
	void *const p = __real_calloc(1, n_bytes);

	if (!p) {
		fputs("sim: out of memory\n", stderr);
		abort();
	}
	return p;
}

void sim_own_free(void *p)
{
	__real_free(p);
}

size_t sim_memory_used(void)
{
	return memory.used_bytes;
}

size_t sim_memory_peak(void)
{
	return memory.peak_bytes;
}

void sim_memory_peak_reset(void)
{
	memory.peak_bytes = memory.used_bytes;
}

uint64_t sim_memory_calls(void)
{
	return memory.n_calls;
}

void sim_memory_refuse(uint64_t first, uint64_t n_more)
{
	memory.refuse_from = memory.refuse_until = 0;
	if (first == 0)
		return;
	memory.refuse_from = memory.n_calls + first;
	memory.refuse_until = add_sat_u64(memory.refuse_from + 1, n_more);
}
