/* wire - probes, their answers, and candidate lists. doc/nat.md is the specification. */
#include "nat/internal.h"

#define TYPE_BASE        0x80
#define SIGNED_BYTES     (NAT_PROBE_BYTES - NAT_MAC_BYTES)
#define LIST_VERSION     1
#define MAC_OUTPUT_BYTES 32
#define ADDRESS_BYTES    16
#define KIND_GUESS       6 /* beside enum nat_candidate_kind */

static int derive(nat_mac_fn *mac, const uint8_t *key, const char *label, uint8_t out[32])
{
	return mac(key, NAT_KEY_BYTES, label, strlen(label), out);
}

int nat_keys_derive(struct nat_keys *keys, nat_mac_fn *mac, const uint8_t *key, bool controlling)
{
	uint8_t to_controlling[MAC_OUTPUT_BYTES], to_controlled[MAC_OUTPUT_BYTES];
	int r = derive(mac, key, "q2q-tun probe mac v1", keys->mac_key);

	if (r == 0)
		r = derive(mac, key, "q2q-tun probe tag v1 requester", to_controlling);
	if (r == 0)
		r = derive(mac, key, "q2q-tun probe tag v1 listener", to_controlled);
	if (r < 0)
		return r;
	keys->mac = mac;
	memcpy(keys->local_tag, controlling ? to_controlling : to_controlled, NAT_TAG_BYTES);
	memcpy(keys->remote_tag, controlling ? to_controlled : to_controlling, NAT_TAG_BYTES);
	return 0;
}

int nat_wire_write(const struct nat_keys *keys, const struct nat_wire *m,
		   uint8_t out[static NAT_PROBE_BYTES])
{
	struct writer w = writer_over(out, NAT_PROBE_BYTES);
	uint8_t mac[MAC_OUTPUT_BYTES];
	int r;

	writer_u8(&w, (uint8_t)(TYPE_BASE | m->type));
	writer_bytes(&w, keys->remote_tag, NAT_TAG_BYTES);
	writer_u64(&w, m->transaction);
	writer_u8(&w, m->mapped.ip.family);
	writer_u16(&w, m->mapped.port);
	writer_bytes(&w, m->mapped.ip.bytes, ADDRESS_BYTES);
	assert(!w.failed && w.used_bytes == SIGNED_BYTES);
	r = keys->mac(keys->mac_key, sizeof(keys->mac_key), out, SIGNED_BYTES, mac);
	if (r < 0)
		return r;
	writer_bytes(&w, mac, NAT_MAC_BYTES);
	return 0;
}

static bool is_authentic(const struct nat_keys *keys, const uint8_t *data)
{
	uint8_t mac[MAC_OUTPUT_BYTES];

	/* The tag is checked first: it costs nothing, and a stranger does not know it. */
	if (!secret_equal(data + 1, keys->local_tag, NAT_TAG_BYTES))
		return false;
	if (keys->mac(keys->mac_key, sizeof(keys->mac_key), data, SIGNED_BYTES, mac) < 0)
		return false;
	return secret_equal(data + SIGNED_BYTES, mac, NAT_MAC_BYTES);
}

int nat_wire_read(const struct nat_keys *keys, const uint8_t *data, size_t data_bytes,
		  struct nat_wire *ret_m)
{
	struct reader r = reader_over(data, data_bytes);
	struct nat_wire m = { 0 };
	uint8_t type;

	if (data_bytes != NAT_PROBE_BYTES || !is_authentic(keys, data))
		return -EBADMSG;
	type = reader_u8(&r);
	reader_bytes(&r, NAT_TAG_BYTES);
	m.transaction = reader_u64(&r);
	m.mapped.ip.family = reader_u8(&r);
	m.mapped.port = reader_u16(&r);
	reader_copy(&r, m.mapped.ip.bytes, ADDRESS_BYTES);
	if (type != (TYPE_BASE | NAT_WIRE_PROBE) && type != (TYPE_BASE | NAT_WIRE_ACK))
		return -EBADMSG;
	if (m.mapped.ip.family != FAMILY_IPV4 && m.mapped.ip.family != FAMILY_IPV6)
		return -EBADMSG;
	if (!m.transaction)
		return -EBADMSG;
	m.type = type == (TYPE_BASE | NAT_WIRE_PROBE) ? NAT_WIRE_PROBE : NAT_WIRE_ACK;
	if (m.mapped.ip.family == FAMILY_IPV4)
		memset(m.mapped.ip.bytes + 4, 0, ADDRESS_BYTES - 4);
	*ret_m = m;
	return 0;
}

/* ---- lists ---------------------------------------------------------------------------------- */

static void write_candidate(struct writer *w, const struct nat_candidate *c)
{
	const uint8_t address_bytes = c->endpoint.ip.family == FAMILY_IPV4 ? 4 : 16;

	writer_u8(w, (uint8_t)c->kind);
	if (c->kind == NAT_RELAY) {
		writer_u8(w, 0);
		return;
	}
	writer_u8(w, (uint8_t)(3 + address_bytes));
	writer_u8(w, c->endpoint.ip.family);
	writer_u16(w, c->endpoint.port);
	writer_bytes(w, c->endpoint.ip.bytes, address_bytes);
}

static void write_guess(struct writer *w, const struct nat_guess_offer *guess)
{
	writer_u8(w, KIND_GUESS);
	writer_u8(w, 16);
	writer_u16(w, guess->towards.port);
	writer_bytes(w, guess->towards.ip.bytes, 4);
	writer_u16(w, guess->n_ports);
	writer_u16(w, guess->from);
	writer_u16(w, guess->to);
	writer_u16(w, guess->next);
	writer_u16(w, guess->step);
}

static int read_guess(struct reader value, struct nat_list *list)
{
	struct nat_guess_offer guess = { .towards.ip.family = FAMILY_IPV4 };

	guess.towards.port = reader_u16(&value);
	reader_copy(&value, guess.towards.ip.bytes, 4);
	guess.n_ports = reader_u16(&value);
	guess.from = reader_u16(&value);
	guess.to = reader_u16(&value);
	guess.next = reader_u16(&value);
	guess.step = reader_u16(&value);
	if (reader_finish(&value) < 0 || guess.from > guess.to || guess.n_ports == 0)
		return -EBADMSG;
	list->guess = guess;
	list->has_guess = true;
	return 0;
}

size_t nat_list_write(const struct nat_list *list, uint8_t *out, size_t out_bytes)
{
	struct writer w = writer_over(out, out_bytes);

	writer_u8(&w, LIST_VERSION);
	writer_u32(&w, list->round);
	writer_u8(&w, (uint8_t)list->mapping);
	writer_u8(&w, (uint8_t)(list->n_candidates + list->has_guess));
	for (size_t i = 0; i < list->n_candidates; i++)
		write_candidate(&w, &list->candidates[i]);
	if (list->has_guess)
		write_guess(&w, &list->guess);
	return w.failed ? 0 : w.used_bytes;
}

static int read_candidate(struct reader value, uint8_t kind, struct nat_candidate *ret_candidate)
{
	struct nat_candidate c = { .kind = (enum nat_candidate_kind)kind };
	size_t address_bytes;

	if (kind == NAT_RELAY) {
		*ret_candidate = c;
		return reader_finish(&value);
	}
	c.endpoint.ip.family = reader_u8(&value);
	c.endpoint.port = reader_u16(&value);
	address_bytes = c.endpoint.ip.family == FAMILY_IPV4 ? 4 : 16;
	if (c.endpoint.ip.family != FAMILY_IPV4 && c.endpoint.ip.family != FAMILY_IPV6)
		return -EBADMSG;
	if (!reader_copy(&value, c.endpoint.ip.bytes, address_bytes) || reader_finish(&value) < 0)
		return -EBADMSG;
	*ret_candidate = c;
	return 0;
}

static bool is_listed_kind(uint8_t kind)
{
	return kind == NAT_HOST || kind == NAT_REFLEXIVE || kind == NAT_MAPPED || kind == NAT_RELAY;
}

int nat_list_read(const uint8_t *data, size_t data_bytes, struct nat_list *ret_list)
{
	struct reader r = reader_over(data, data_bytes);
	struct nat_list list = { 0 };
	uint8_t mapping, n;

	if (data_bytes > NAT_LIST_BYTES_MAX || reader_u8(&r) != LIST_VERSION)
		return -EBADMSG;
	list.round = reader_u32(&r);
	mapping = reader_u8(&r);
	if (mapping < NAT_MAPPING_COUNT)
		list.mapping = (enum nat_mapping)mapping;
	n = reader_u8(&r);
	if (n > NAT_REMOTE_MAX)
		return -EBADMSG;
	for (unsigned i = 0; i < n && !r.failed; i++) {
		const uint8_t kind = reader_u8(&r), length = reader_u8(&r);
		const uint8_t *value = reader_bytes(&r, length);

		if (!r.failed && kind == KIND_GUESS &&
		    read_guess(reader_over(value, length), &list) < 0)
			return -EBADMSG;
		if (r.failed || !is_listed_kind(kind))
			continue; /* kinds to come are skipped */
		if (read_candidate(reader_over(value, length), kind,
				   &list.candidates[list.n_candidates]) < 0)
			return -EBADMSG;
		list.n_candidates++;
	}
	if (reader_finish(&r) < 0)
		return -EBADMSG;
	*ret_list = list;
	return 0;
}
