/* Message buffers. */
#include "ptcp/pool.h"

struct pool_idle {
	struct pool_idle *next;
};

static const size_t class_bytes[POOL_CLASSES] = { 256, 2048, 16384, POOL_BYTES_MAX };

size_t pool_class_bytes(unsigned class)
{
	return class_bytes[class];
}

void pool_init(struct pool *p, size_t budget_bytes)
{
	*p = (struct pool){ .budget_bytes = budget_bytes };
}

static void trim_class(struct pool *p, unsigned class)
{
	while (p->idle[class]) {
		struct pool_idle *const b = p->idle[class];

		p->idle[class] = b->next;
		p->held_bytes -= class_bytes[class];
		free(b);
	}
}

void pool_trim(struct pool *p)
{
	for (unsigned i = 0; i < POOL_CLASSES; i++)
		trim_class(p, i);
}

void pool_fini(struct pool *p)
{
	pool_trim(p);
	assert(p->held_bytes == 0);
}

bool pool_get(struct pool *p, size_t n_bytes, struct pool_buffer *ret_buffer)
{
	unsigned class = 0;

	while (class < POOL_CLASSES && class_bytes[class] < n_bytes)
		class ++;
	if (class == POOL_CLASSES || p->used_bytes + class_bytes[class] > p->budget_bytes)
		return false;

	struct pool_idle *b = p->idle[class];
	if (b) {
		p->idle[class] = b->next;
	} else {
		if (p->held_bytes + class_bytes[class] > p->budget_bytes)
			pool_trim(p);
		b = malloc(class_bytes[class]);
		if (!b)
			return false;
		p->held_bytes += class_bytes[class];
	}
	p->used_bytes += class_bytes[class];
	*ret_buffer = (struct pool_buffer){ .data = (uint8_t *)b, .class = (uint8_t) class };
	return true;
}

void pool_put(struct pool *p, struct pool_buffer *buffer)
{
	if (!buffer->data)
		return;
	struct pool_idle *const b = (struct pool_idle *)(void *)buffer->data;

	b->next = p->idle[buffer->class];
	p->idle[buffer->class] = b;
	p->used_bytes -= class_bytes[buffer->class];
	*buffer = (struct pool_buffer){ 0 };
}

bool pool_has_room(const struct pool *p)
{
	return p->used_bytes + POOL_BYTES_MAX <= p->budget_bytes;
}
