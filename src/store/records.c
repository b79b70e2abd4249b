/* What the tables hold: values, accounts, invites, pins, certificates. */
#include "store/private.h"

#include "crypto/crypto.h"

#include <stdio.h>

/* Runs a statement that must touch something. */
static int run_on_one(struct query *q)
{
	int n_changes = 0, r = query_run(q, &n_changes);

	return r < 0 ? r : n_changes > 0 ? 0 : STORE_NOT_FOUND;
}

/* Runs an insertion that does nothing where there is something already. */
static int run_new(struct query *q)
{
	int n_changes = 0, r = query_run(q, &n_changes);

	return r < 0 ? r : n_changes > 0 ? 0 : STORE_EXISTS;
}

static bool fits(const char *text, size_t bytes_with_nul)
{
	return text[0] != '\0' && strnlen(text, bytes_with_nul) < bytes_with_nul;
}

/* ---- meta ------------------------------------------------------------------------ */

int store_meta_get(struct store *s, const char *key, struct buffer *out)
{
	struct query q = query(s, SQL_META_GET);
	int r;

	query_bind_text(&q, key);
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : STORE_NOT_FOUND;
	/* A value of no bytes has no address. */
	r = buffer_append(out,
			  sqlite3_column_bytes(q.statement, 0) ? sqlite3_column_blob(q.statement, 0)
							       : "",
			  (size_t)sqlite3_column_bytes(q.statement, 0));
	query_end(&q);
	return r;
}

int store_meta_set(struct store *s, const char *key, const void *data, size_t n_bytes)
{
	struct query q;

	if (!fits(key, STORE_KEY_BYTES) || n_bytes > STORE_META_MAX_BYTES)
		return -EINVAL;
	q = query(s, SQL_META_SET);
	query_bind_text(&q, key);
	query_bind_blob(&q, n_bytes ? data : "", n_bytes);
	return query_run(&q, NULL);
}

/* ---- accounts ----------------------------------------------------------------------- */

static int add_user(struct store *s, const char *name, const char *password, int64_t now_s)
{
	struct query q = query(s, SQL_USER_ADD);

	query_bind_text(&q, name);
	query_bind_text(&q, password);
	query_bind_int(&q, now_s);
	return run_new(&q);
}

static bool user_ok(const char *name, const char *password)
{
	return fits(name, STORE_NAME_BYTES) && fits(password, STORE_PASSWORD_BYTES);
}

int store_user_add(struct store *s, const char *name, const char *password, int64_t now_s)
{
	return user_ok(name, password) ? add_user(s, name, password, now_s) : -EINVAL;
}

/* Takes the row that a query stands on, and ends the query. */
static int take_user(struct query *q, struct store_user *ret)
{
	struct store_user user = { 0 };
	const bool good = query_text(q, 0, user.name, sizeof(user.name)) &&
			  query_text(q, 1, user.password, sizeof(user.password));

	user.disabled = query_int(q, 2) != 0;
	user.created_s = query_int(q, 3);
	user.last_login_s = query_int(q, 4);
	user.n_logins = (uint64_t)query_int(q, 5);
	query_end(q);
	if (good)
		*ret = user;
	secret_wipe(&user, sizeof(user));
	return good ? 0 : -EUCLEAN;
}

static int get_user(struct store *s, enum store_sql sql, const char *name, struct store_user *ret)
{
	struct query q = query(s, sql);
	int r;

	query_bind_text(&q, name);
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : STORE_NOT_FOUND;
	return take_user(&q, ret);
}

int store_user_find(struct store *s, const char *name, struct store_user *ret)
{
	return get_user(s, SQL_USER_FIND, name, ret);
}

int store_user_next(struct store *s, const char *after, struct store_user *ret)
{
	return get_user(s, SQL_USER_NEXT, after, ret);
}

int store_user_count(struct store *s, uint64_t *ret_count)
{
	struct query q = query(s, SQL_USER_COUNT);
	int r = query_row(&q);

	if (r <= 0)
		return r < 0 ? r : -EIO;
	*ret_count = (uint64_t)query_int(&q, 0);
	query_end(&q);
	return 0;
}

int store_user_set_disabled(struct store *s, const char *name, bool disabled)
{
	struct query q = query(s, SQL_USER_DISABLE);

	query_bind_text(&q, name);
	query_bind_int(&q, disabled);
	return run_on_one(&q);
}

int store_user_set_password(struct store *s, const char *name, const char *password)
{
	struct query q;

	if (!fits(password, STORE_PASSWORD_BYTES))
		return -EINVAL;
	q = query(s, SQL_USER_PASSWORD);
	query_bind_text(&q, name);
	query_bind_text(&q, password);
	return run_on_one(&q);
}

int store_user_logged_in(struct store *s, const char *name, int64_t now_s)
{
	struct query q = query(s, SQL_USER_LOGGED_IN);

	query_bind_text(&q, name);
	query_bind_int(&q, now_s);
	return run_on_one(&q);
}

static int remove_user(struct store *s, const char *name, int64_t now_s)
{
	char address[STORE_NAME_BYTES + STORE_DOMAIN_BYTES];
	struct query q = query(s, SQL_USER_REMOVE);
	int r;

	query_bind_text(&q, name);
	r = run_on_one(&q);
	if (r != 0)
		return r;
	snprintf(address, sizeof(address), "%s@%s", name, s->domain);
	r = store_cert_revoke(s, address, NULL, now_s);
	return r == STORE_NOT_FOUND ? 0 : r; /* it never had one */
}

int store_user_remove(struct store *s, const char *name, int64_t now_s)
{
	int r = store_begin(s);

	return r < 0 ? r : store_end(s, remove_user(s, name, now_s));
}

/* ---- invites -------------------------------------------------------------------------- */

/* RFC 4648, in lower case: no digit in it looks like a letter. */
static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";

static void code_write(const uint8_t random[static 16], char out[static STORE_CODE_BYTES])
{
	unsigned bits = 0, n_bits = 0;
	size_t at = 0;

	for (size_t i = 0; i < 16; i++) {
		bits = bits << 8 | random[i];
		for (n_bits += 8; n_bits >= 5; n_bits -= 5)
			out[at++] = alphabet[bits >> (n_bits - 5) & 31];
	}
	out[at++] = alphabet[bits << (5 - n_bits) & 31];
	out[at] = '\0';
	assert(at == STORE_CODE_BYTES - 1);
}

/* As people type it, to what is hashed: without dashes and spaces, in lower case. */
static bool code_normalise(const char *text, char out[static STORE_CODE_BYTES])
{
	size_t at = 0;

	for (; *text; text++) {
		const char c = *text >= 'A' && *text <= 'Z' ? (char)(*text - 'A' + 'a') : *text;

		if (c == '-' || c == ' ')
			continue;
		if (at == STORE_CODE_BYTES - 1 || !strchr(alphabet, c))
			return false;
		out[at++] = c;
	}
	out[at] = '\0';
	return at == STORE_CODE_BYTES - 1;
}

/* 128 random bits need no slow hash. 0, STORE_INVITE_INVALID. */
static int code_hash(const char *text, uint8_t ret_hash[static STORE_HASH_BYTES])
{
	char code[STORE_CODE_BYTES];
	int r;

	if (!code_normalise(text, code))
		return STORE_INVITE_INVALID;
	r = crypto_sha256(code, STORE_CODE_BYTES - 1, ret_hash);
	secret_wipe(code, sizeof(code));
	return r;
}

int store_invite_create(struct store *s, uint32_t n_uses, int64_t expires_s, const char *note,
			int64_t now_s, char ret_code[static STORE_CODE_BYTES], int64_t *ret_id)
{
	uint8_t random[16], hash[STORE_HASH_BYTES];
	char code[STORE_CODE_BYTES];
	struct query q;
	int r, n_changes = 0;

	if (n_uses == 0 || expires_s < 0 ||
	    (note && strnlen(note, STORE_NOTE_BYTES) >= STORE_NOTE_BYTES))
		return -EINVAL;
	r = crypto_random(random, sizeof(random));
	if (r < 0)
		return r;
	code_write(random, code);
	secret_wipe(random, sizeof(random));
	r = code_hash(code, hash);
	if (r != 0)
		return r;
	q = query(s, SQL_INVITE_ADD);
	query_bind_blob(&q, hash, sizeof(hash));
	query_bind_int(&q, n_uses);
	query_bind_int(&q, now_s);
	query_bind_int(&q, expires_s);
	query_bind_text(&q, note ? note : "");
	query_bind_int(&q, STORE_INVITES_MAX);
	r = query_run(&q, &n_changes);
	if (r == 0 && n_changes == 0)
		r = STORE_FULL;
	if (r == 0) {
		memcpy(ret_code, code, sizeof(code));
		*ret_id = sqlite3_last_insert_rowid(s->db);
	}
	secret_wipe(code, sizeof(code));
	return r;
}

int store_invite_check(struct store *s, const char *code, int64_t now_s)
{
	uint8_t hash[STORE_HASH_BYTES];
	struct query q;
	int r = code_hash(code, hash);

	if (r != 0)
		return r;
	q = query(s, SQL_INVITE_CHECK);
	query_bind_blob(&q, hash, sizeof(hash));
	query_bind_int(&q, now_s);
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : STORE_INVITE_INVALID;
	query_end(&q);
	return 0;
}

static int use_invite(struct store *s, const uint8_t hash[static STORE_HASH_BYTES], int64_t now_s)
{
	struct query q = query(s, SQL_INVITE_USE);
	int r;

	query_bind_blob(&q, hash, STORE_HASH_BYTES);
	query_bind_int(&q, now_s);
	r = run_on_one(&q);
	return r == STORE_NOT_FOUND ? STORE_INVITE_INVALID : r;
}

int store_user_add_invited(struct store *s, const char *name, const char *password,
			   const char *code, int64_t now_s)
{
	uint8_t hash[STORE_HASH_BYTES];
	int r;

	if (!user_ok(name, password))
		return -EINVAL;
	r = code_hash(code, hash);
	if (r != 0)
		return r;
	r = store_begin(s);
	if (r < 0)
		return r;
	r = use_invite(s, hash, now_s);
	if (r == 0)
		r = add_user(s, name, password, now_s);
	return store_end(s, r);
}

int store_invite_next(struct store *s, int64_t after_id, struct store_invite *ret)
{
	struct store_invite invite = { 0 };
	struct query q = query(s, SQL_INVITE_NEXT);
	bool good;
	int r;

	query_bind_int(&q, after_id);
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : STORE_NOT_FOUND;
	invite.id = query_int(&q, 0);
	invite.created_s = query_int(&q, 1);
	invite.expires_s = query_int(&q, 2);
	invite.n_uses_left = (uint32_t)query_int(&q, 3);
	invite.n_used = (uint32_t)query_int(&q, 4);
	good = query_text(&q, 5, invite.note, sizeof(invite.note));
	query_end(&q);
	if (good)
		*ret = invite;
	return good ? 0 : -EUCLEAN;
}

int store_invite_revoke(struct store *s, int64_t id)
{
	struct query q = query(s, SQL_INVITE_REVOKE);

	query_bind_int(&q, id);
	return run_on_one(&q);
}

/* ---- pins -------------------------------------------------------------------------------- */

static int add_pin(struct store *s, const char *domain, const void *cert, size_t cert_bytes,
		   int64_t now_s)
{
	struct query q = query(s, SQL_PIN_FULL);
	int r;
	bool full;

	query_bind_int(&q, STORE_PINS_MAX);
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : -EIO;
	full = query_int(&q, 0) != 0;
	query_end(&q);
	if (full)
		return STORE_FULL;
	q = query(s, SQL_PIN_ADD);
	query_bind_text(&q, domain);
	query_bind_blob(&q, cert, cert_bytes);
	query_bind_int(&q, now_s);
	return run_new(&q);
}

int store_pin_add(struct store *s, const char *domain, const void *cert, size_t cert_bytes,
		  int64_t now_s)
{
	int r;

	if (!fits(domain, STORE_DOMAIN_BYTES) || cert_bytes == 0 ||
	    cert_bytes > STORE_CERT_MAX_BYTES)
		return -EINVAL;
	r = store_begin(s);
	return r < 0 ? r : store_end(s, add_pin(s, domain, cert, cert_bytes, now_s));
}

static int get_pin(struct store *s, enum store_sql sql, const char *domain, struct store_pin *ret)
{
	struct query q = query(s, sql);
	bool good;
	int r;

	query_bind_text(&q, domain);
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : STORE_NOT_FOUND;
	/* Written in place, for it is large: on failure it holds nothing of use. */
	good = query_text(&q, 0, ret->domain, sizeof(ret->domain)) &&
	       query_blob(&q, 1, ret->cert, sizeof(ret->cert), &ret->cert_bytes);
	ret->first_seen_s = query_int(&q, 2);
	query_end(&q);
	return good ? 0 : -EUCLEAN;
}

int store_pin_find(struct store *s, const char *domain, struct store_pin *ret)
{
	return get_pin(s, SQL_PIN_FIND, domain, ret);
}

int store_pin_next(struct store *s, const char *after, struct store_pin *ret)
{
	return get_pin(s, SQL_PIN_NEXT, after, ret);
}

int store_pin_remove(struct store *s, const char *domain)
{
	struct query q = query(s, SQL_PIN_REMOVE);

	query_bind_text(&q, domain);
	return run_on_one(&q);
}

/* ---- certificates ---------------------------------------------------------------------------- */

int store_cert_add(struct store *s, const char *address,
		   const uint8_t spki_hash[static STORE_HASH_BYTES], int64_t not_after_s,
		   int64_t now_s)
{
	struct query q;

	if (!fits(address, STORE_ADDRESS_BYTES))
		return -EINVAL;
	q = query(s, SQL_CERT_ADD);
	query_bind_text(&q, address);
	query_bind_blob(&q, spki_hash, STORE_HASH_BYTES);
	query_bind_int(&q, now_s);
	query_bind_int(&q, not_after_s);
	return query_run(&q, NULL);
}

int store_cert_status(struct store *s, const char *address,
		      const uint8_t spki_hash[static STORE_HASH_BYTES])
{
	struct query q = query(s, SQL_CERT_STATUS);
	int r;

	query_bind_text(&q, address);
	query_bind_blob(&q, spki_hash, STORE_HASH_BYTES);
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : -EIO;
	r = query_int(&q, 0) == 0 ? STORE_NOT_FOUND : query_int(&q, 1) > 0 ? STORE_REVOKED : 0;
	query_end(&q);
	return r;
}

int store_cert_next(struct store *s, const char *address, int64_t after_id, struct store_cert *ret)
{
	struct query q = query(s, address ? SQL_CERT_NEXT_OF : SQL_CERT_NEXT);
	struct store_cert cert = { 0 };
	size_t n_bytes = 0;
	bool good;
	int r;

	query_bind_int(&q, after_id);
	if (address)
		query_bind_text(&q, address);
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : STORE_NOT_FOUND;
	cert.id = query_int(&q, 0);
	good = query_text(&q, 1, cert.address, sizeof(cert.address)) &&
	       query_blob(&q, 2, cert.spki_hash, sizeof(cert.spki_hash), &n_bytes) &&
	       n_bytes == sizeof(cert.spki_hash);
	cert.issued_s = query_int(&q, 3);
	cert.not_after_s = query_int(&q, 4);
	cert.revoked_s = query_int(&q, 5);
	query_end(&q);
	if (good)
		*ret = cert;
	return good ? 0 : -EUCLEAN;
}

int store_cert_revoke(struct store *s, const char *address, const uint8_t *spki_hash, int64_t now_s)
{
	struct query q = query(s, SQL_CERT_REVOKE);

	query_bind_text(&q, address);
	query_bind_int(&q, now_s > 0 ? now_s : 1);
	query_bind_blob(&q, spki_hash, STORE_HASH_BYTES);
	return run_on_one(&q);
}

int store_expire(struct store *s, int64_t now_s)
{
	struct query q;
	int r = store_begin(s);

	if (r < 0)
		return r;
	q = query(s, SQL_INVITE_EXPIRE);
	query_bind_int(&q, now_s);
	r = query_run(&q, NULL);
	if (r == 0) {
		q = query(s, SQL_CERT_EXPIRE);
		query_bind_int(&q, now_s);
		r = query_run(&q, NULL);
	}
	return store_end(s, r);
}
