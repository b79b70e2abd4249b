/* The common bound. */
#include "ptcp/memory.h"
#include "ptcp/ptcp.h"

size_t memory_room(const struct ptcp_memory *m, size_t own_bytes)
{
	if (!m)
		return SIZE_MAX;
	const size_t left_bytes = m->limit_bytes - min_size(m->held_bytes, m->limit_bytes);

	return left_bytes - min_size(own_bytes, left_bytes);
}

void memory_account(struct ptcp_memory *m, size_t before_bytes, size_t after_bytes)
{
	if (m)
		m->held_bytes += after_bytes - before_bytes;
}
