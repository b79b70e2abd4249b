/*
 * Who asked to connect and was not allowed: bounded, the oldest makes room.
 */
#include "daemon/internal.h"
#include "daemon/files.h"

#include <stdio.h>

static struct log_limit asks_limit = { .interval_us = 60 * US_PER_S, .burst = 20 };

#define SAVE_DELAY_US (5 * US_PER_S) /* a stranger does not make us write more often */

static int state_path(const struct daemon *d, char out[static FILES_PATH_BYTES])
{
	return files_path(out, d->options->state_dir, NULL, "requests", ".json");
}

static void on_save(void *user, uint64_t now_us)
{
	(void)now_us;
	requests_save(user);
}

static void load_one(struct requests *requests, const json_t *item)
{
	struct request *r = &requests->list[requests->n];
	const char *address = json_string_value(json_object_get(item, "address"));
	const char *spki = json_string_value(json_object_get(item, "spki"));
	struct q2q_address parsed;

	if (requests->n == REQUESTS_MAX || !address || q2q_user_parse(address, &parsed))
		return;
	*r = (struct request){
		.first_s = json_integer_value(json_object_get(item, "first")),
		.last_s = json_integer_value(json_object_get(item, "last")),
		.count = (uint64_t)json_integer_value(json_object_get(item, "count")),
	};
	memcpy(r->address, parsed.text, sizeof(r->address));
	r->has_key = spki && !hex_decode(spki, r->spki, sizeof(r->spki));
	requests->n++;
}

/* A list of who asked is not worth a daemon that does not start. */
static int put_aside(const char *path)
{
	char aside[FILES_PATH_BYTES + 16];

	snprintf(aside, sizeof(aside), "%s.damaged", path);
	log_error("%s is damaged: it is %s now, and a new list of requests begins", path,
		  rename(path, aside) ? "left alone" : aside);
	return 0;
}

int requests_load(struct daemon *d)
{
	char path[FILES_PATH_BYTES];
	json_t *object, *item;
	size_t i;
	int r = state_path(d, path);

	net_timer_init(&d->requests.save_timer, d->loop, on_save, d);
	if (r)
		return r;
	r = files_read_json(path, &object);
	if (r == -EBADMSG)
		return put_aside(path);
	if (r)
		return r == -ENOENT ? 0 : r;
	json_array_foreach (json_object_get(object, "requests"), i, item)
		load_one(&d->requests, item);
	json_decref(object);
	return 0;
}

static json_t *to_json(const struct request *r)
{
	char hex[HEX_TEXT_BYTES(CRYPTO_HASH_BYTES)];

	hex_encode(r->spki, sizeof(r->spki), hex);
	return json_pack("{s:s,s:s?,s:I,s:I,s:I}", "address", r->address, "spki",
			 r->has_key ? hex : NULL, "first", (json_int_t)r->first_s, "last",
			 (json_int_t)r->last_s, "count", (json_int_t)r->count);
}

void requests_save(struct daemon *d)
{
	char path[FILES_PATH_BYTES];
	json_t *list, *object;
	int r;

	net_timer_disarm(&d->requests.save_timer);
	if (!d->requests.dirty)
		return;
	list = json_array();
	for (size_t i = 0; list && i < d->requests.n; i++)
		json_array_append_new(list, to_json(&d->requests.list[i]));
	object = list ? json_pack("{s:o}", "requests", list) : NULL;
	r = object ? state_path(d, path) : -ENOMEM;
	if (!r)
		r = store_json(d, path, object);
	json_decref(object);
	if (r)
		log_error("cannot write the list of requests: %s", strerror(-r));
	else
		d->requests.dirty = false;
}

static void changed(struct daemon *d)
{
	d->requests.dirty = true;
	if (d->requests.save_timer.due_us == NEVER_US)
		net_timer_arm(&d->requests.save_timer, net_loop_now_us(d->loop) + SAVE_DELAY_US);
}

static size_t index_of(const struct daemon *d, const char *address)
{
	size_t i = 0;

	while (i < d->requests.n && strcmp(d->requests.list[i].address, address))
		i++;
	return i;
}

static const char *domain_of(const struct request *r)
{
	return strchr(r->address, '@') + 1;
}

static size_t of_domain(const struct requests *requests, const char *domain)
{
	size_t n = 0;

	for (size_t i = 0; i < requests->n; i++)
		n += !strcmp(domain_of(&requests->list[i]), domain);
	return n;
}

/*
 * The entry for a new address. A domain may have as many users as it likes: once it has its share,
 * its own make room, the one not heard of for longest; so does anybody where all is taken.
 */
static struct request *entry_new(struct requests *requests, const char *domain)
{
	const bool own_alone = of_domain(requests, domain) >= REQUESTS_OF_DOMAIN_MAX;
	struct request *oldest = NULL;

	if (requests->n < REQUESTS_MAX && !own_alone)
		return &requests->list[requests->n++];
	for (size_t i = 0; i < requests->n; i++) {
		struct request *r = &requests->list[i];

		if ((!own_alone || !strcmp(domain_of(r), domain)) &&
		    (!oldest || r->last_s < oldest->last_s))
			oldest = r;
	}
	return oldest;
}

void requests_note(struct daemon *d, const struct q2q_address *from, struct crypto_cert *cert)
{
	const size_t i = index_of(d, from->text);
	struct request *r;

	if (i < d->requests.n) {
		r = &d->requests.list[i];
	} else {
		r = entry_new(&d->requests, from->domain);
		*r = (struct request){ .first_s = wall_clock_s() };
		memcpy(r->address, from->text, sizeof(r->address));
		if (log_allowed(&asks_limit, net_loop_now_us(d->loop)))
			log_note("%s: asks to connect and is not allowed. To let it: q2q-tun "
				 "allow %s",
				 from->text, from->text);
	}
	r->last_s = wall_clock_s();
	r->count++;
	if (cert) {
		memcpy(r->spki, crypto_cert_spki_hash(cert), sizeof(r->spki));
		r->has_key = true;
	}
	changed(d);
}

const struct request *requests_find(const struct daemon *d, const char *address)
{
	const size_t i = index_of(d, address);

	return i < d->requests.n ? &d->requests.list[i] : NULL;
}

void requests_remove(struct daemon *d, const char *address)
{
	const size_t i = index_of(d, address);

	if (i == d->requests.n)
		return;
	d->requests.list[i] = d->requests.list[--d->requests.n];
	changed(d);
	requests_save(d);
}
