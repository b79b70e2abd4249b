/*
 * store - what an identity server must not lose: its key, accounts, invites,
 * pinned certificates of other domains, the log of certificates it signed.
 *
 * One SQLite database in the data directory (WAL, synchronous=FULL), so each
 * call that returns 0 survives kill -9 and power loss, and one that does not
 * has changed nothing. Several processes may have it open: `run` and
 * `user add`, say. An object belongs to one thread; calls may block for
 * the disk, and up to STORE_BUSY_MS for another writer.
 *
 *   DIR/store.db          the database, mode 0600, with -wal and -shm beside it
 *   DIR/INITIALISED       marker: names the domain. There without a database: lost
 *
 * Results: 0 done; a positive enum store_outcome; negative a fault: -ENOSPC
 * disk full, -EBUSY another writer holds on, -EIO, -EUCLEAN the database
 * is damaged, -EACCES, -EROFS, -ENOMEM, -EINVAL an argument past its bound.
 * store_error() has SQLite's words for the last fault.
 *
 * Names and domains come in canonical (lower case, checked by the caller).
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/base.h"

enum store_outcome {
	STORE_NOT_INITIALISED = 1, /* an empty directory, or none: run store_init() */
	STORE_LOST,    /* initialised once, but the database is gone: restore a backup */
	STORE_TOO_NEW, /* written by a later version of this program */
	STORE_EXISTS,
	STORE_NOT_FOUND,
	STORE_INVITE_INVALID, /* unknown, used up, revoked or expired: nobody is told which */
	STORE_REVOKED,
	STORE_FULL, /* a table is at its bound */
	STORE_OUTCOME_COUNT,
};
const char *store_outcome_name(enum store_outcome outcome); /* "not initialised", ... */

enum {
	STORE_NAME_BYTES = 65, /* the part before the @, with its NUL */
	STORE_DOMAIN_BYTES = 254,
	STORE_ADDRESS_BYTES = 320,
	STORE_PASSWORD_BYTES = 256, /* a PHC string, with its NUL */
	STORE_NOTE_BYTES = 128,
	STORE_KEY_BYTES = 64,  /* name of a meta value */
	STORE_CODE_BYTES = 27, /* an invite code: 26 characters, NUL */
	STORE_HASH_BYTES = 32,
	STORE_CERT_MAX_BYTES = 8192,
	STORE_META_MAX_BYTES = 64 * 1024,
	STORE_PINS_MAX = 100000,
	STORE_INVITES_MAX = 100000,
	STORE_BUSY_MS = 5000,
};

struct store;

/* ---- the database ------------------------------------------------------------ */

/* Makes DIR (0700) if need be, the database and the marker. STORE_EXISTS if there is any trace
 * of an earlier one, STORE_LOST included: it never overwrites. Killed half-way it can be repeated.
 */
int store_init(const char *dir, const char *domain, int64_t now_s) WARN_UNUSED;
/* 0, STORE_NOT_INITIALISED, STORE_LOST, STORE_TOO_NEW. Brings an older schema up to date. */
int store_open(const char *dir, struct store **ret) WARN_UNUSED;
void store_close(struct store *s); /* NULL is fine */
DEFINE_CLEANUP(struct store *, store_close)
const char *store_domain(const struct store *s);
const char *store_error(const struct store *s);

/* A consistent copy while others write: complete under that name or not there. Mode 0600,
 * it holds secrets. STORE_EXISTS if there is a file of that name. */
int store_backup(struct store *s, const char *path) WARN_UNUSED;
/* Puts a backup into a directory that is empty or that lost its database. STORE_EXISTS if it
 * has one; STORE_TOO_NEW; -EUCLEAN if the file is no sound backup, or of another domain than the
 * marker names. */
int store_restore(const char *dir, const char *path) WARN_UNUSED;
/* Reads everything and checks it: 0 or -EUCLEAN. */
int store_check(struct store *s) WARN_UNUSED;
/* Forgets what ended before now_s: invites, and log entries of certificates. */
int store_expire(struct store *s, int64_t now_s) WARN_UNUSED;

/* ---- meta: single named values, such as the domain's key and certificate ---------- */

/* Appends to out (a secret buffer for secrets); STORE_NOT_FOUND. */
int store_meta_get(struct store *s, const char *key, struct buffer *out) WARN_UNUSED;
int store_meta_set(struct store *s, const char *key, const void *data, size_t n_bytes) WARN_UNUSED;

/* ---- accounts ------------------------------------------------------------------------ */

struct store_user {
	char name[STORE_NAME_BYTES];
	char password[STORE_PASSWORD_BYTES]; /* PHC string; wipe it after use */
	bool disabled;
	int64_t created_s;
	int64_t last_login_s; /* 0: never */
	uint64_t n_logins;
};

/* STORE_EXISTS for a name that is taken, be it disabled. */
int store_user_add(struct store *s, const char *name, const char *password,
		   int64_t now_s) WARN_UNUSED;
/* Also uses up one use of the invite, in the same transaction. STORE_INVITE_INVALID is told
 * before STORE_EXISTS, so that without an invite nobody learns which names exist. */
int store_user_add_invited(struct store *s, const char *name, const char *password,
			   const char *code, int64_t now_s) WARN_UNUSED;
int store_user_find(struct store *s, const char *name, struct store_user *ret) WARN_UNUSED;
/* The next user after `after` in the order of names; "" starts. STORE_NOT_FOUND at the end. */
int store_user_next(struct store *s, const char *after, struct store_user *ret) WARN_UNUSED;
int store_user_count(struct store *s, uint64_t *ret_count) WARN_UNUSED;
int store_user_set_disabled(struct store *s, const char *name, bool disabled) WARN_UNUSED;
int store_user_set_password(struct store *s, const char *name, const char *password) WARN_UNUSED;
int store_user_logged_in(struct store *s, const char *name, int64_t now_s) WARN_UNUSED;
/* Removes the account and revokes the certificates of its address, for the name may be taken
 * by somebody else tomorrow. */
int store_user_remove(struct store *s, const char *name, int64_t now_s) WARN_UNUSED;

/* ---- invites ---------------------------------------------------------------------------- */

struct store_invite {
	int64_t id;
	int64_t created_s;
	int64_t expires_s; /* 0: never */
	uint32_t n_uses_left;
	uint32_t n_used;
	char note[STORE_NOTE_BYTES];
};

/* Makes a random code of 128 bits; only its hash is kept. note may be NULL. STORE_FULL. */
int store_invite_create(struct store *s, uint32_t n_uses, int64_t expires_s, const char *note,
			int64_t now_s, char ret_code[static STORE_CODE_BYTES],
			int64_t *ret_id) WARN_UNUSED;
/* Would it be taken now? 0 or STORE_INVITE_INVALID. Upper case, spaces and dashes are fine. */
int store_invite_check(struct store *s, const char *code, int64_t now_s) WARN_UNUSED;
int store_invite_next(struct store *s, int64_t after_id, struct store_invite *ret) WARN_UNUSED;
int store_invite_revoke(struct store *s, int64_t id) WARN_UNUSED;

/* ---- pinned certificates of other domains -------------------------------------------------- */

struct store_pin {
	char domain[STORE_DOMAIN_BYTES];
	uint8_t cert[STORE_CERT_MAX_BYTES]; /* DER */
	size_t cert_bytes;
	int64_t first_seen_s;
};

/* STORE_EXISTS if there is one, which stays; STORE_FULL. */
int store_pin_add(struct store *s, const char *domain, const void *cert, size_t cert_bytes,
		  int64_t now_s) WARN_UNUSED;
int store_pin_find(struct store *s, const char *domain, struct store_pin *ret) WARN_UNUSED;
int store_pin_next(struct store *s, const char *after, struct store_pin *ret) WARN_UNUSED;
int store_pin_remove(struct store *s, const char *domain) WARN_UNUSED;

/* ---- certificates that we signed ------------------------------------------------------------- */

struct store_cert {
	int64_t id;
	char address[STORE_ADDRESS_BYTES];
	uint8_t spki_hash[STORE_HASH_BYTES];
	int64_t issued_s;
	int64_t not_after_s;
	int64_t revoked_s; /* 0: not revoked */
};

int store_cert_add(struct store *s, const char *address,
		   const uint8_t spki_hash[static STORE_HASH_BYTES], int64_t not_after_s,
		   int64_t now_s) WARN_UNUSED;
/* 0: signed by us and good; STORE_REVOKED if any certificate of that address and key is revoked;
 * STORE_NOT_FOUND. */
int store_cert_status(struct store *s, const char *address,
		      const uint8_t spki_hash[static STORE_HASH_BYTES]) WARN_UNUSED;
/* Newest last. address NULL: everybody's. */
int store_cert_next(struct store *s, const char *address, int64_t after_id,
		    struct store_cert *ret) WARN_UNUSED;
/* All certificates of an address, or of one key of it (spki_hash not NULL). STORE_NOT_FOUND. */
int store_cert_revoke(struct store *s, const char *address, const uint8_t *spki_hash,
		      int64_t now_s) WARN_UNUSED;

#endif
