/* Classic PTCP: datagrams, each with its length in front (u8) and time between them. */
#include "q2q/q2q.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	const struct q2q_classic_config config = { .closing_max = 4, .replies_per_s_max = 50 };
	struct endpoint peer = { .ip = { .family = FAMILY_IPV4, .bytes = { 192, 0, 2, 1 } },
				 .port = 5000 };
	struct reader r = reader_over(data, data_bytes);
	uint8_t out[Q2Q_CLASSIC_DATAGRAM_MAX_BYTES];
	struct q2q_classic *classic;
	struct endpoint to;
	const uint8_t key[Q2Q_CHANNEL_KEY_BYTES] = { 1 };
	uint64_t now_us = 1, counter;

	if (q2q_classic_new(&config, &classic) < 0)
		return 0;
	while (r.left_bytes > 0 && !r.failed) {
		const size_t wanted = reader_u8(&r), n = min_size(wanted, r.left_bytes);
		const uint8_t *bytes = reader_bytes(&r, n);

		if (!bytes)
			break;
		/* The other inhabitant of that port. */
		if (q2q_channel_kind(bytes, n) == Q2Q_CHANNEL_BIND)
			(void)!q2q_channel_open(bytes, key, &counter);
		(void)!q2q_classic_input(classic, &peer, bytes, n, now_us);
		now_us += n * 1000;
		q2q_classic_tick(classic, now_us);
		if (n % 3)
			while (q2q_classic_output(classic, &to, out, now_us) > 0)
				;
	}
	/* All that it keeps goes away by itself. */
	while (q2q_classic_deadline_us(classic) != NEVER_US) {
		now_us = q2q_classic_deadline_us(classic);
		q2q_classic_tick(classic, now_us);
	}
	q2q_classic_free(classic);
	return 0;
}
