/* Whatever arrives: nothing breaks, the server's answer is small and readable, and what was read
 * and written again is read the same. */
#include "stun/stun.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	static const struct endpoint from = { .ip = { .family = FAMILY_IPV6 }, .port = 9 };
	struct stun_message m, again;
	struct stun_client client;
	uint8_t out[STUN_MESSAGE_MAX_BYTES];
	size_t n_bytes;

	n_bytes = stun_server_answer(data, data_bytes, &from, NULL, out, sizeof(out));
	assert(n_bytes * 2 <= data_bytes * 5);
	assert(!n_bytes || stun_decode(out, n_bytes, &m) == 0);
	if (data_bytes >= STUN_HEADER_BYTES) {
		stun_client_start(&client, data + 8, 0);
		stun_client_output(&client, out, sizeof(out), 0);
		stun_client_input(&client, data, data_bytes, 1);
		assert(client.state != STUN_DONE || client.mapped.port);
	}
	if (stun_decode(data, data_bytes, &m) < 0)
		return 0;
	n_bytes = stun_encode(&m, out, sizeof(out));
	assert(n_bytes && stun_decode(out, n_bytes, &again) == 0);
	assert(again.class == m.class && again.method == m.method);
	assert(again.error_code == m.error_code);
	assert(endpoint_equal(&again.mapped, &m.mapped) || m.mapped.ip.family == FAMILY_NONE);
	return 0;
}
