/* Chance, and endless texts. */
#include "sim.h"

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t sim_random(struct sim_rng *r)
{
	return mix(r->state += UINT64_C(0x9e3779b97f4a7c15));
}

uint64_t sim_below(struct sim_rng *r, uint64_t n)
{
	return sim_random(r) % n;
}

uint64_t sim_between(struct sim_rng *r, uint64_t low, uint64_t high)
{
	return low + sim_below(r, high - low + 1);
}

bool sim_chance(struct sim_rng *r, unsigned permille)
{
	return permille > 0 && sim_below(r, 1000) < permille;
}

static uint64_t word_at(uint64_t key, uint64_t index)
{
	const uint64_t z = (key + index) * UINT64_C(0x9e3779b97f4a7c15);

	return z ^ (z >> 29);
}

void sim_text(uint64_t key, uint64_t offset, uint8_t *out, size_t n_bytes)
{
	while (n_bytes > 0) {
		const uint64_t word = word_at(key, offset / 8);
		const size_t skip = (size_t)(offset % 8), n = min_size(8 - skip, n_bytes);

		memcpy(out, (const uint8_t *)&word + skip, n);
		out += n;
		offset += n;
		n_bytes -= n;
	}
}

bool sim_text_equal(uint64_t key, uint64_t offset, const uint8_t *data, size_t n_bytes)
{
	while (n_bytes > 0) {
		const uint64_t word = word_at(key, offset / 8);
		const size_t skip = (size_t)(offset % 8), n = min_size(8 - skip, n_bytes);

		if (memcmp(data, (const uint8_t *)&word + skip, n) != 0)
			return false;
		data += n;
		offset += n;
		n_bytes -= n;
	}
	return true;
}
