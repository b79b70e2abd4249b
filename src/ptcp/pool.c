/* Message buffers. */
#include "ptcp/pool.h"
#include "ptcp/memory.h"

#define OWN_BYTES (2 * POOL_BYTES_MAX) /* whatever others hold */

struct pool_idle {
	struct pool_idle *next;
};

static const size_t class_bytes[POOL_CLASSES] = { 256, 2048, 16384, POOL_BYTES_MAX };

size_t pool_class_bytes(unsigned class)
{
	return class_bytes[class];
}

void pool_init(struct pool *p, size_t budget_bytes, struct ptcp_memory *shared)
{
	*p = (struct pool){ .budget_bytes = budget_bytes, .shared = shared };
}

static void account(struct pool *p, size_t n_bytes)
{
	memory_account(p->shared, p->held_bytes, p->held_bytes + n_bytes);
	p->held_bytes += n_bytes;
}

static void trim_class(struct pool *p, unsigned class, uint32_t n)
{
	while (p->idle[class] && n-- > 0) {
		struct pool_idle *const b = p->idle[class];

		p->idle[class] = b->next;
		p->n_idle[class]--;
		account(p, -class_bytes[class]);
		free(b);
	}
	p->low_idle[class] = p->n_idle[class];
}

void pool_trim(struct pool *p)
{
	for (unsigned i = 0; i < POOL_CLASSES; i++)
		trim_class(p, i, UINT32_MAX);
}

void pool_decay(struct pool *p)
{
	for (unsigned i = 0; i < POOL_CLASSES; i++)
		trim_class(p, i, p->low_idle[i]);
}

void pool_fini(struct pool *p)
{
	pool_trim(p);
	assert(p->held_bytes == 0);
}

/* May the pool hold that much? */
static bool within(const struct pool *p, size_t n_bytes)
{
	if (n_bytes > p->budget_bytes)
		return false;
	return n_bytes <= OWN_BYTES || n_bytes <= memory_room(p->shared, 0);
}

bool pool_get(struct pool *p, size_t n_bytes, struct pool_buffer *ret_buffer)
{
	unsigned class = 0;

	while (class < POOL_CLASSES && class_bytes[class] < n_bytes)
		class ++;
	if (class == POOL_CLASSES || !within(p, p->used_bytes + class_bytes[class]))
		return false;

	struct pool_idle *b = p->idle[class];
	if (b) {
		p->idle[class] = b->next;
		if (--p->n_idle[class] < p->low_idle[class])
			p->low_idle[class] = p->n_idle[class];
	} else {
		if (!within(p, p->held_bytes + class_bytes[class]))
			pool_trim(p);
		b = malloc(class_bytes[class]);
		if (!b)
			return false;
		account(p, class_bytes[class]);
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
	p->n_idle[buffer->class]++;
	p->used_bytes -= class_bytes[buffer->class];
	*buffer = (struct pool_buffer){ 0 };
}

bool pool_has_room(const struct pool *p)
{
	return within(p, p->used_bytes + POOL_BYTES_MAX);
}
