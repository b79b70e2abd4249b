/*
 * A sealed message as a hostile server would change it, and as a hostile but
 * genuine sender would write it: with an odd first byte the rest is signed
 * properly first, or no input would get past the signature.
 */
#include "crypto/seal.c" /* for sign(); the library's copy is then left out */

/* Keys of this test and of nothing else. */
static const char recipient_pem[] =
	"-----BEGIN PRIVATE KEY-----\n"
	"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgo6OzyDIMhXa1mONT\n"
	"lLMkaJ9dcI1OOshvgnTjKz7e2wihRANCAATalLLGh3o8NiJt2WmCCMCKIRthC1BL\n"
	"sz1UeVP2foB+JuZwH0lo6oF0CEgJcH0V4WXIOXcJbLj+8YOtmxyON52m\n"
	"-----END PRIVATE KEY-----\n";
static const char sender_pem[] =
	"-----BEGIN PRIVATE KEY-----\n"
	"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWnMQJceay8n0tqaP\n"
	"Y9dNdLLSztXjNufK6Z9xn/m0oIOhRANCAAQGdOYHQ51r8kGtPJxmf82Fs3fdGauV\n"
	"RO3RpaSN4c6V5jqMFJ4GHxIo/rChJQmwPv4QedURzDXwLdRhh7GMKIJj\n"
	"-----END PRIVATE KEY-----\n";
static const char context[] = "fuzz";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

static struct crypto_key *recipient, *sender;
static struct crypto_cert *sender_cert;

static void set_up(void)
{
	if (sender_cert)
		return;
	if (crypto_key_from_pem(recipient_pem, strlen(recipient_pem), &recipient) != 0 ||
	    crypto_key_from_pem(sender_pem, strlen(sender_pem), &sender) != 0 ||
	    crypto_cert_make_throwaway(sender, "alice@a.test", 1800000000, &sender_cert) != 0)
		abort();
}

static int try_open(const uint8_t *blob, size_t blob_bytes)
{
	struct buffer out;
	int r;

	buffer_init(&out, CRYPTO_SEALED_MAX_BYTES, true);
	r = crypto_open_sealed(recipient, sender_cert, context, sizeof(context), blob, blob_bytes,
			       &out);
	if (r != 0 && (r != -EBADMSG || buffer_used(&out) > 0))
		abort();
	buffer_fini(&out);
	return r;
}

static void try_signed(const uint8_t *body, size_t body_bytes)
{
	const struct envelope e = { context, sizeof(context), recipient->spki_hash,
				    sender->spki_hash };
	size_t signature_bytes = SIGNATURE_MAX_BYTES;
	uint8_t *blob;

	if (body_bytes < HEAD_BYTES || body_bytes > CRYPTO_SEALED_MAX_BYTES - SIGNATURE_MAX_BYTES)
		return;
	blob = malloc(body_bytes + SIGNATURE_MAX_BYTES);
	if (!blob)
		return;
	memcpy(blob, body, body_bytes);
	/* The length that makes the rest the ciphertext, or every input would be cut wrong. */
	blob[1 + POINT_BYTES] = (uint8_t)((body_bytes - HEAD_BYTES) >> 8);
	blob[2 + POINT_BYTES] = (uint8_t)(body_bytes - HEAD_BYTES);
	if (sign(&e, sender, blob, body_bytes, blob + body_bytes, &signature_bytes) != 0)
		abort();
	try_open(blob, body_bytes + signature_bytes);
	free(blob);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	set_up();
	if (data_bytes == 0)
		return 0;
	if (*data % 2)
		try_signed(data + 1, data_bytes - 1);
	else
		try_open(data + 1, data_bytes - 1);
	return 0;
}
