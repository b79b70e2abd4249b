/* Channels: how the ends of a rendezvous reach each other by UDP through the server. */
#include "relay/internal.h"

/* An end binds again well before; then its NAT may have given the port to somebody else. */
#define BOUND_LIFE_US (90 * US_PER_S)

static struct channel *channel_find(const struct relay *r, const uint8_t *name)
{
	struct channel *c;

	HASH_FIND_BYHASHVALUE(hh, r->channels, name, Q2Q_CHANNEL_BYTES,
			      relay_hash(r, name, Q2Q_CHANNEL_BYTES), c);
	return c;
}

bool relay_channel_known(const struct relay *r, const uint8_t *name)
{
	return channel_find(r, name) != NULL;
}

void relay_channel_drop(struct relay *r, struct side *s)
{
	struct channel *c = s->channel;

	if (!c)
		return;
	s->channel = NULL;
	HASH_DEL(r->channels, c);
	r->stats.n_channels--;
	secret_wipe(c->key, sizeof(c->key));
	free(c);
}

int relay_channel_new(struct relay_end *end, const char *id, size_t id_bytes, const uint8_t *name,
		      const uint8_t *key)
{
	struct relay *r = end->relay;
	struct side *s = relay_side_find(end, id, id_bytes);
	struct channel *c;

	if (!s) {
		r->stats.n_unknown++;
		return RELAY_UNKNOWN;
	}
	if (channel_find(r, name))
		return RELAY_TAKEN;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	memcpy(c->name, name, sizeof(c->name));
	memcpy(c->key, key, sizeof(c->key));
	c->side = s;
	HASH_ADD_KEYPTR_BYHASHVALUE(hh, r->channels, c->name, Q2Q_CHANNEL_BYTES,
				    relay_hash(r, name, Q2Q_CHANNEL_BYTES), c);
	if (!c->hh.tbl) {
		free(c);
		return -ENOMEM;
	}
	relay_channel_drop(r, s);
	s->channel = c;
	r->stats.n_channels++;
	return 0;
}

int relay_channel_bind(struct relay *r, const uint8_t *bind, const struct relay_place *from,
		       uint64_t now_us, uint8_t *ret_bound)
{
	struct channel *c = channel_find(r, bind + 1);
	uint64_t counter;

	if (!c)
		return RELAY_UNKNOWN;
	/* Each counter binds once: who records a BIND cannot move the end to elsewhere by it. */
	if (bind[0] != Q2Q_CHANNEL_BIND || q2q_channel_open(bind, c->key, &counter) != 0 ||
	    counter <= c->counter ||
	    q2q_channel_seal(Q2Q_CHANNEL_BOUND, c->name, c->key, counter, ret_bound) != 0) {
		r->stats.n_channel_bad++;
		return -EBADMSG;
	}
	c->counter = counter;
	c->bound = true;
	c->place = *from;
	c->heard_us = now_us;
	relay_side_touch(c->side);
	return 0;
}

static bool is_bound(const struct channel *c, uint64_t now_us)
{
	return c && c->bound && now_us - c->heard_us < BOUND_LIFE_US;
}

int relay_channel_route(struct relay *r, const uint8_t *name, const struct endpoint *from,
			size_t n_bytes, bool congested, uint64_t now_us, const uint8_t **ret_name,
			const struct relay_place **ret_to)
{
	struct channel *c = channel_find(r, name), *to;
	int rc;

	if (!c)
		return RELAY_UNKNOWN;
	if (!c->bound || !endpoint_equal(&c->place.remote, from)) {
		r->stats.n_channel_bad++;
		return RELAY_UNKNOWN;
	}
	c->heard_us = now_us;
	to = relay_side_other(c->side)->channel;
	if (!is_bound(to, now_us)) {
		r->stats.n_channel_unbound++;
		return RELAY_UNKNOWN;
	}
	rc = relay_charge(r, c->side->end->account, n_bytes, congested, now_us);
	if (rc != 0)
		return rc;
	relay_side_touch(c->side);
	relay_side_touch(to->side);
	r->stats.channel_bytes += n_bytes;
	*ret_name = to->name;
	*ret_to = &to->place;
	return 0;
}
