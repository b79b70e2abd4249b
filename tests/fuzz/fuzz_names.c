/* Questions and answers of the name service module: what decodes encodes to the same bytes. */
#include "base/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	uint8_t wire[NAMES_REPLY_BYTES > NAMES_REQUEST_BYTES ? NAMES_REPLY_BYTES
							     : NAMES_REQUEST_BYTES] = { 0 };
	uint8_t again[sizeof(wire)] = { 0 };
	char text[512] = "", name[NAMES_TEXT_BYTES], twice[NAMES_TEXT_BYTES];
	struct names_request request;
	struct names_reply reply;

	memcpy(wire, data, min_size(data_bytes, sizeof(wire)));
	if (names_decode_request(wire, &request) == 0) {
		names_encode_request(&request, again);
		if (memcmp(again, wire, NAMES_REQUEST_BYTES) != 0)
			abort();
	}
	if (names_decode_reply(wire, &reply) == 0) {
		names_encode_reply(&reply, again);
		if (memcmp(again, wire, NAMES_REPLY_BYTES) != 0)
			abort();
	}
	memcpy(text, data, min_size(data_bytes, sizeof(text) - 1));
	if (names_canonical(text, name) == 0)
		if (names_canonical(name, twice) < 0 || strcmp(name, twice) != 0)
			abort();
	return 0;
}
