/* The plain text of an offer. What decodes must encode to what decodes to the same. */
#include "session/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	uint8_t again[OFFER_PLAIN_BYTES_MAX];
	struct offer first, second;
	size_t n_bytes;

	if (offer_decode(data, data_bytes, &first))
		return 0;
	n_bytes = offer_encode(&first, again, sizeof(again));
	if (n_bytes == 0 || offer_decode(again, n_bytes, &second) ||
	    memcmp(&first, &second, sizeof(first)))
		abort();
	return 0;
}
