/*
 * Whom we know: pins, permissions, wishes. One JSON file per peer.
 */
#include "daemon/internal.h"
#include "daemon/files.h"

#include <stdio.h>

/* ---- disk ---- */

static void read_pin(const json_t *object, struct peer *peer)
{
	const char *spki = json_string_value(json_object_get(object, "spki"));

	if (spki && !hex_decode(spki, peer->spki, sizeof(peer->spki)))
		peer->pinned = true;
	else if (json_object_get(object, "spki") && !json_is_null(json_object_get(object, "spki")))
		peer->damaged = true;
	peer->pinned_at_s = json_integer_value(json_object_get(object, "pinned_at"));
}

static void read_local4(const json_t *object, struct peer *peer)
{
	const char *text = json_string_value(json_object_get(object, "local_ipv4"));
	struct ip_address ip;

	if (text && !ip_parse(text, &ip) && ip.family == FAMILY_IPV4 && vip_is_ip4(ip.bytes)) {
		peer->has_local4 = true;
		memcpy(peer->local4, ip.bytes, sizeof(peer->local4));
	}
}

static void read_peer(const json_t *object, struct peer *peer)
{
	const char *as = json_string_value(json_object_get(object, "as"));
	const char *path = json_string_value(json_object_get(object, "path"));
	struct q2q_address own;

	read_pin(object, peer);
	read_local4(object, peer);
	peer->allowed = json_is_true(json_object_get(object, "allowed"));
	peer->allowed_until_s = json_integer_value(json_object_get(object, "allowed_until"));
	peer->wanted = json_is_true(json_object_get(object, "wanted"));
	peer->linked = json_is_true(json_object_get(object, "linked"));
	peer->held = json_is_true(json_object_get(object, "held"));
	if (as && !q2q_user_parse(as, &own))
		memcpy(peer->as, own.text, sizeof(peer->as));
	for (unsigned i = 0; path && i < SESSION_PATH_MODE_COUNT; i++)
		if (!strcmp(path, session_path_mode_name((enum session_path_mode)i)))
			peer->path_mode = (enum session_path_mode)i;
}

static int left_alone(const struct daemon *d, const char *name, int r)
{
	log_error("peer %s: %s/known-peers/%s.json cannot be used (%s); it is left as it is", name,
		  d->options->state_dir, name, strerror(-r));
	return r == -ENOMEM ? r : 0;
}

static int load_one(void *user, const char *name)
{
	struct daemon *d = user;
	char path[FILES_PATH_BYTES];
	struct q2q_address address;
	struct peer *peer;
	json_t *object;
	int r = q2q_user_parse(name, &address);

	if (!r)
		r = files_path(path, d->options->state_dir, "known-peers", name, ".json");
	if (!r)
		r = files_read_json(path, &object);
	if (q2q_user_parse(name, &address) || r == -ENOMEM)
		return left_alone(d, name, r);
	peer = peers_get(d, &address);
	if (!peer) {
		left_alone(d, name, -ENOSPC);
	} else if (r) {
		peer->damaged = true;
	} else {
		read_peer(object, peer);
	}
	if (!r)
		json_decref(object);
	/* What it said may have been a pin: this peer is not new, whatever else is known of it. */
	if (peer && peer->damaged) {
		*peer = (struct peer){ .address = address,
				       .damaged = true,
				       .vip = peer->vip,
				       .entry = peer->entry,
				       .hh = peer->hh };
		left_alone(d, name, r ? r : -EBADMSG);
	}
	return 0;
}

int peers_load(struct daemon *d)
{
	char path[FILES_PATH_BYTES];
	int r = files_path(path, d->options->state_dir, NULL, "known-peers", "");

	TAILQ_INIT(&d->peers);
	if (!r)
		r = files_make_dir(path);
	return r ? r : files_list(path, ".json", load_one, d);
}

int peers_save(struct daemon *d, const struct peer *peer)
{
	char path[FILES_PATH_BYTES], hex[HEX_TEXT_BYTES(CRYPTO_HASH_BYTES)],
		fingerprint[CRYPTO_FINGERPRINT_BYTES], text[IP_TEXT_BYTES];
	struct ip_address ip = { .family = FAMILY_IPV4 };
	json_t *object;
	int r = files_path(path, d->options->state_dir, "known-peers", peer->address.text, ".json");

	if (!r && peer->damaged)
		r = -EBADMSG;
	if (r)
		return r;
	upkeep_soon(d);
	hex_encode(peer->spki, sizeof(peer->spki), hex);
	memcpy(ip.bytes, peer->local4, sizeof(peer->local4));
	object = json_pack("{s:s?,s:s?,s:I,s:b,s:I,s:b,s:b,s:b,s:s?,s:s,s:s?}", "fingerprint",
			   peer->pinned ? crypto_fingerprint(peer->spki, fingerprint) : NULL,
			   "spki", peer->pinned ? hex : NULL, "pinned_at",
			   (json_int_t)peer->pinned_at_s, "allowed", peer->allowed, "allowed_until",
			   (json_int_t)peer->allowed_until_s, "wanted", peer->wanted, "linked",
			   peer->linked, "held", peer->held, "as", *peer->as ? peer->as : NULL,
			   "path", session_path_mode_name(peer->path_mode), "local_ipv4",
			   peer->has_local4 ? ip_format(&ip, text) : NULL);
	r = object ? store_json(d, path, object) : -ENOMEM;
	json_decref(object);
	if (r)
		log_error("%s: cannot write %s: %s", peer->address.text, path, strerror(-r));
	return r;
}

static void peer_free(struct daemon *d, struct peer *peer)
{
	links_free(peer->link);
	HASH_DEL(d->peers_index, peer);
	TAILQ_REMOVE(&d->peers, peer, entry);
	d->n_peers--;
	free(peer);
}

int peers_store(struct daemon *d, struct peer *peer, const struct peer *before)
{
	const int r = peers_save(d, peer);
	struct link *const link = peer->link;

	if (!r)
		return 0;
	if (!*before->address.text && !link) {
		peer_free(d, peer);
		return r;
	}
	*peer = (struct peer){ .address = peer->address,
			       .vip = peer->vip,
			       .entry = peer->entry,
			       .hh = peer->hh,
			       .link = link,
			       .pinned = before->pinned,
			       .pinned_at_s = before->pinned_at_s,
			       .allowed = before->allowed,
			       .allowed_until_s = before->allowed_until_s,
			       .wanted = before->wanted,
			       .linked = before->linked,
			       .held = before->held,
			       .damaged = before->damaged,
			       .path_mode = before->path_mode,
			       .has_local4 = before->has_local4 };
	memcpy(peer->spki, before->spki, sizeof(peer->spki));
	memcpy(peer->as, before->as, sizeof(peer->as));
	memcpy(peer->local4, before->local4, sizeof(peer->local4));
	return r;
}

bool peers_problem(struct daemon *d, const struct peer *peer, struct problem *ret_problem)
{
	char path[FILES_PATH_BYTES];

	if (!peer->damaged)
		return false;
	peers_path(d, peer->address.text, path, sizeof(path));
	problem_set(ret_problem, CTL_UNTRUSTED,
		    "what this machine knew of %s, its key too, cannot be read: %s is damaged",
		    peer->address.text, path);
	problem_hint(ret_problem,
		     "put the file back from a backup and restart the daemon; or begin anew, as "
		     "with somebody unknown: q2q-tun peers forget %s",
		     peer->address.text);
	return true;
}

/* ---- memory ---- */

static unsigned hash_of(const struct daemon *d, const char *address)
{
	return (unsigned)hash_bytes(&d->seed, address, strlen(address));
}

struct peer *peers_find(struct daemon *d, const char *address)
{
	const size_t n_bytes = strlen(address);
	struct peer *peer;

	HASH_FIND_BYHASHVALUE(hh, d->peers_index, address, n_bytes, hash_of(d, address), peer);
	return peer;
}

struct peer *peers_get(struct daemon *d, const struct q2q_address *address)
{
	struct peer *peer = peers_find(d, address->text);

	if (peer || d->n_peers == PEERS_MAX)
		return peer;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return NULL;
	peer->address = *address;
	if (!vip_from_address(address->text, &peer->vip))
		HASH_ADD_KEYPTR_BYHASHVALUE(hh, d->peers_index, peer->address.text,
					    strlen(peer->address.text),
					    hash_of(d, peer->address.text), peer);
	if (!peer->hh.tbl) {
		free(peer);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&d->peers, peer, entry);
	d->n_peers++;
	return peer;
}

void peers_fini(struct daemon *d)
{
	struct peer *peer;

	while ((peer = TAILQ_FIRST(&d->peers)))
		peer_free(d, peer);
}

int peers_forget(struct daemon *d, struct peer *peer)
{
	char path[FILES_PATH_BYTES];
	int r = files_path(path, d->options->state_dir, "known-peers", peer->address.text, ".json");
	struct op *op;

	if (!r && d->disk)
		disk_flush(d->disk); /* or what is still on its way there comes after it */
	if (!r)
		r = files_remove(path);
	if (r)
		return r;
	TAILQ_FOREACH (op, &d->ops, all)
		if (op->peer == peer)
			op->peer = NULL;
	peer_free(d, peer);
	return 0;
}

void peers_path(const struct daemon *d, const char *address, char *out, size_t out_bytes)
{
	snprintf(out, out_bytes, "%s/known-peers/%s.json", d->options->state_dir, address);
}

/* ---- trust ---- */

bool peer_is_allowed(const struct peer *peer)
{
	return peer->allowed && !peer->held &&
	       (peer->allowed_until_s == 0 || wall_clock_s() < peer->allowed_until_s);
}

int peers_pin(struct daemon *d, struct peer *peer, const uint8_t spki[static CRYPTO_HASH_BYTES])
{
	struct peer before;

	peer_enter(peer);
	before = *peer;
	memcpy(peer->spki, spki, sizeof(peer->spki));
	peer->pinned = true;
	peer->pinned_at_s = wall_clock_s();
	return peers_store(d, peer, &before);
}

static void key_changed(struct daemon *d, const struct peer *peer, struct crypto_cert *cert,
			struct problem *p)
{
	char old[CRYPTO_FINGERPRINT_BYTES], new[CRYPTO_FINGERPRINT_BYTES], path[FILES_PATH_BYTES];

	crypto_fingerprint(peer->spki, old);
	crypto_cert_fingerprint(cert, new);
	peers_path(d, peer->address.text, path, sizeof(path));
	problem_set(p, CTL_UNTRUSTED,
		    "the key of %s has changed: %s holds %s, but now it shows %s. Somebody may be "
		    "posing as %s, or it has a new machine or key",
		    peer->address.text, path, old, new, peer->address.text);
	problem_hint(p, "ask %s by another way. If the new key is right: q2q-tun peers pin %s %s",
		     peer->address.text, peer->address.text, new);
}

enum peer_trust peers_judge(struct daemon *d, const struct peer *peer, struct crypto_cert *cert,
			    struct problem *ret_problem)
{
	struct crypto_cert *anchor = domains_pin(&d->domains, peer->address.domain);
	int r;

	if (peers_problem(d, peer, ret_problem))
		return PEER_DISTRUSTED;
	if (!anchor) {
		problem_set(ret_problem, CTL_UNTRUSTED,
			    "the certificate of %s cannot be checked: the domain %s is not known "
			    "here yet",
			    peer->address.text, peer->address.domain);
		problem_hint(ret_problem, "q2q-tun allow %s asks its server and shows the key",
			     peer->address.text);
		return PEER_DISTRUSTED;
	}
	r = crypto_cert_verify(cert, anchor, peer->address.text, wall_clock_s());
	if (r) {
		problem_set(ret_problem, CTL_UNTRUSTED, "the certificate of %s is not good: %s",
			    peer->address.text,
			    r > 0 ? crypto_verify_text((enum crypto_verify)r) : strerror(-r));
		if (r == CRYPTO_VERIFY_EXPIRED || r == CRYPTO_VERIFY_NOT_YET_VALID)
			problem_hint(ret_problem,
				     "check the clocks of both machines; else %s has to run: "
				     "q2q-tun authorize %s",
				     peer->address.text, peer->address.text);
		return PEER_DISTRUSTED;
	}
	if (!peer->pinned)
		return PEER_UNPINNED;
	if (memcmp(peer->spki, crypto_cert_spki_hash(cert), sizeof(peer->spki))) {
		key_changed(d, peer, cert, ret_problem);
		return PEER_DISTRUSTED;
	}
	return PEER_TRUSTED;
}
