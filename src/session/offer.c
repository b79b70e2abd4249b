/*
 * The plain text of a sealed offer: a version byte, then fields of
 * type u8, length u16, value. A field that is not known is skipped, one that
 * comes twice or has the wrong size spoils the whole.
 */
#include "session/session.h"

#define OFFER_VERSION 1

enum field {
	FIELD_SHARE = 1,
	FIELD_CID,
	FIELD_TAG,
	FIELD_KEEP,
	FIELD_REQUEST,
	FIELD_FEATURES,
	FIELD_DEVICE,
	FIELD_CANDIDATES,
	FIELD_ABOUT,
	FIELD_STREAMS,
	FIELD_HELLO,
	FIELD_TAKES_HELLO,
	FIELD_COUNT,
};

static void put(struct writer *w, enum field type, const void *data, size_t n_bytes)
{
	writer_u8(w, (uint8_t)type);
	writer_u16(w, (uint16_t)n_bytes);
	writer_bytes(w, data, n_bytes);
}

/* family u8, port u16, address of 4 or 16 bytes each */
static void put_streams(struct writer *w, const struct offer *offer)
{
	uint8_t all[OFFER_STREAMS_MAX * (1 + 2 + 16)];
	struct writer list = writer_over(all, sizeof(all));

	for (size_t i = 0; i < offer->n_streams; i++) {
		const struct endpoint *e = &offer->streams[i];
		const bool ipv6 = e->ip.family == FAMILY_IPV6;

		writer_u8(&list, ipv6 ? 6 : 4);
		writer_u16(&list, e->port);
		writer_bytes(&list, e->ip.bytes, ipv6 ? 16 : 4);
	}
	put(w, FIELD_STREAMS, all, list.used_bytes);
}

/* More than we keep are skipped. */
static bool take_streams(struct reader *value, struct offer *o)
{
	while (value->left_bytes > 0) {
		const uint8_t family = reader_u8(value);
		const uint16_t port = reader_u16(value);
		const size_t ip_bytes = family == 6 ? 16 : 4;
		const uint8_t *ip = reader_bytes(value, ip_bytes);
		struct endpoint *e = &o->streams[o->n_streams];

		if ((family != 4 && family != 6) || port == 0 || !ip)
			return false;
		if (o->n_streams == OFFER_STREAMS_MAX)
			continue;
		e->ip.family = family == 6 ? FAMILY_IPV6 : FAMILY_IPV4;
		memcpy(e->ip.bytes, ip, ip_bytes);
		e->port = port;
		o->n_streams++;
	}
	return true;
}

size_t offer_encode(const struct offer *offer, uint8_t *out, size_t out_bytes)
{
	struct writer w = writer_over(out, out_bytes);

	writer_u8(&w, OFFER_VERSION);
	if (offer->has_share) {
		put(&w, FIELD_SHARE, offer->share, sizeof(offer->share));
		put(&w, FIELD_CID, offer->cid, sizeof(offer->cid));
	}
	if (offer->has_tag)
		put(&w, FIELD_TAG, offer->tag, sizeof(offer->tag));
	if (offer->keep)
		put(&w, FIELD_KEEP, NULL, 0);
	if (*offer->request)
		put(&w, FIELD_REQUEST, offer->request, OFFER_ID_BYTES);
	if (offer->features) {
		writer_u8(&w, FIELD_FEATURES);
		writer_u16(&w, 4);
		writer_u32(&w, offer->features);
	}
	if (*offer->device)
		put(&w, FIELD_DEVICE, offer->device, strlen(offer->device));
	if (offer->candidates_bytes)
		put(&w, FIELD_CANDIDATES, offer->candidates, offer->candidates_bytes);
	if (*offer->about)
		put(&w, FIELD_ABOUT, offer->about, strlen(offer->about));
	if (offer->n_streams)
		put_streams(&w, offer);
	if (offer->hello_bytes)
		put(&w, FIELD_HELLO, offer->hello, offer->hello_bytes);
	if (offer->takes_hello)
		put(&w, FIELD_TAKES_HELLO, NULL, 0);
	return w.failed ? 0 : w.used_bytes;
}

static bool hex_text(const char *text)
{
	uint8_t bytes[OFFER_ID_BYTES / 2];

	return !hex_decode(text, bytes, sizeof(bytes));
}

/* One field's value; false if it is not what its type wants. */
static bool take(enum field type, struct reader *value, struct offer *o)
{
	const size_t n_bytes = value->left_bytes;

	switch (type) {
	case FIELD_SHARE:
		o->has_share = true;
		return reader_copy(value, o->share, sizeof(o->share));
	case FIELD_CID:
		return reader_copy(value, o->cid, sizeof(o->cid));
	case FIELD_TAG:
		o->has_tag = true;
		return reader_copy(value, o->tag, sizeof(o->tag));
	case FIELD_KEEP:
		o->keep = true;
		return true;
	case FIELD_REQUEST:
		return reader_copy(value, o->request, OFFER_ID_BYTES) && hex_text(o->request);
	case FIELD_FEATURES:
		o->features = reader_u32(value);
		return true;
	case FIELD_DEVICE:
		if (n_bytes > OFFER_NAME_BYTES)
			return false;
		text_sanitize(reader_bytes(value, n_bytes), n_bytes, o->device, sizeof(o->device));
		return true;
	case FIELD_ABOUT:
		if (n_bytes > OFFER_ABOUT_BYTES)
			return false;
		text_sanitize(reader_bytes(value, n_bytes), n_bytes, o->about, sizeof(o->about));
		return true;
	case FIELD_CANDIDATES:
		o->candidates_bytes = n_bytes;
		return n_bytes <= sizeof(o->candidates) &&
		       reader_copy(value, o->candidates, n_bytes);
	case FIELD_STREAMS:
		return take_streams(value, o);
	case FIELD_HELLO:
		o->hello_bytes = n_bytes;
		return n_bytes > 0 && n_bytes <= sizeof(o->hello) &&
		       reader_copy(value, o->hello, n_bytes);
	case FIELD_TAKES_HELLO:
		o->takes_hello = true;
		return true;
	default:
		reader_bytes(value, n_bytes);
		return true;
	}
}

int offer_decode(const void *data, size_t data_bytes, struct offer *ret_offer)
{
	struct reader r = reader_over(data, data_bytes);
	struct offer offer = { .has_share = false };
	uint32_t seen = 0;

	if (data_bytes > OFFER_PLAIN_BYTES_MAX || reader_u8(&r) != OFFER_VERSION)
		return -EBADMSG;
	while (r.left_bytes > 0 && !r.failed) {
		const unsigned type = reader_u8(&r);
		const size_t n_bytes = reader_u16(&r);
		const uint8_t *bytes = reader_bytes(&r, n_bytes);
		struct reader value = reader_over(bytes, bytes ? n_bytes : 0);

		if (r.failed || (type < FIELD_COUNT && (seen & 1u << type)))
			return -EBADMSG;
		if (type < FIELD_COUNT)
			seen |= 1u << type;
		if (!take((enum field)type, &value, &offer) || reader_finish(&value))
			return -EBADMSG;
	}
	if (reader_finish(&r) || !(seen & 1u << FIELD_SHARE) != !(seen & 1u << FIELD_CID))
		return -EBADMSG;
	*ret_offer = offer;
	return 0;
}
