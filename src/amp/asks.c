/* Which answer belongs to which question. Few wait at a time, so a plain list will do. */
#include "amp/amp.h"

int amp_asks_init(struct amp_asks *asks, size_t max)
{
	*asks = (struct amp_asks){ .max = max };
	asks->list = calloc(max, sizeof(*asks->list));
	return asks->list ? 0 : -ENOMEM;
}

void amp_asks_fini(struct amp_asks *asks)
{
	free(asks->list);
	*asks = (struct amp_asks){ 0 };
}

void amp_asks_skip(struct amp_asks *asks)
{
	asks->last_number++;
}

int amp_asks_add(struct amp_asks *asks, unsigned kind, uint64_t cookie, uint64_t deadline_us,
		 uint64_t *ret_number)
{
	if (asks->n == asks->max)
		return -ENOBUFS;
	asks->list[asks->n++] = (struct amp_ask){ .number = ++asks->last_number,
						  .deadline_us = deadline_us,
						  .cookie = cookie,
						  .kind = kind };
	*ret_number = asks->last_number;
	return 0;
}

static void remove_at(struct amp_asks *asks, size_t i, struct amp_ask *ret_ask)
{
	*ret_ask = asks->list[i];
	asks->list[i] = asks->list[--asks->n];
}

const char *amp_ask_text(uint64_t number, char out[static AMP_ASK_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	size_t n_digits = 1;

	while (n_digits < 16 && number >> (4 * n_digits) != 0)
		n_digits++;
	for (size_t i = 0; i < n_digits; i++)
		out[i] = digits[number >> (4 * (n_digits - 1 - i)) & 15];
	out[n_digits] = '\0';
	return out;
}

int amp_asks_take(struct amp_asks *asks, const struct amp_value *text, struct amp_ask *ret_ask)
{
	for (size_t i = 0; i < asks->n; i++) {
		char number[AMP_ASK_TEXT_BYTES];

		if (!amp_value_is(text, amp_ask_text(asks->list[i].number, number)))
			continue;
		remove_at(asks, i, ret_ask);
		return 0;
	}
	return AMP_ABSENT;
}

bool amp_asks_expire(struct amp_asks *asks, uint64_t now_us, struct amp_ask *ret_ask)
{
	for (size_t i = 0; i < asks->n; i++) {
		if (asks->list[i].deadline_us > now_us)
			continue;
		remove_at(asks, i, ret_ask);
		return true;
	}
	return false;
}

uint64_t amp_asks_deadline_us(const struct amp_asks *asks)
{
	uint64_t first_us = NEVER_US;

	for (size_t i = 0; i < asks->n; i++)
		first_us = min_u64(first_us, asks->list[i].deadline_us);
	return first_us;
}
