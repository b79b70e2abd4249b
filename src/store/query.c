/* Statements: their text, their preparation, and the way of SQLite's errors into ours. */
#include "store/private.h"

#include <stdio.h>

#define USER_COLUMNS   "name, password, disabled, created, last_login, logins"
#define INVITE_COLUMNS "id, created, expires, uses_left, used, note"
#define INVITE_GOOD    "code_hash = ?1 AND uses_left > 0 AND (expires = 0 OR expires > ?2)"
#define CERT_COLUMNS   "id, address, spki_hash, issued, not_after, revoked"

static const char *const texts[] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_META_GET] = "SELECT value FROM meta WHERE key = ?1",
	[SQL_META_SET] = "INSERT INTO meta (key, value) VALUES (?1, ?2) "
			 "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
	[SQL_USER_ADD] = "INSERT INTO user (name, password, created) VALUES (?1, ?2, ?3) "
			 "ON CONFLICT (name) DO NOTHING",
	[SQL_USER_FIND] = "SELECT " USER_COLUMNS " FROM user WHERE name = ?1",
	[SQL_USER_NEXT] = "SELECT " USER_COLUMNS " FROM user WHERE name > ?1 ORDER BY name LIMIT 1",
	[SQL_USER_COUNT] = "SELECT count(*) FROM user",
	[SQL_USER_DISABLE] = "UPDATE user SET disabled = ?2 WHERE name = ?1",
	[SQL_USER_PASSWORD] = "UPDATE user SET password = ?2 WHERE name = ?1",
	[SQL_USER_LOGGED_IN] = "UPDATE user SET last_login = max(last_login, ?2), "
			       "logins = logins + 1 WHERE name = ?1",
	[SQL_USER_REMOVE] = "DELETE FROM user WHERE name = ?1",
	[SQL_INVITE_ADD] = "INSERT INTO invite (code_hash, uses_left, created, expires, note) "
			   "SELECT ?1, ?2, ?3, ?4, ?5 WHERE (SELECT count(*) FROM invite) < ?6",
	[SQL_INVITE_CHECK] = "SELECT 1 FROM invite WHERE " INVITE_GOOD,
	[SQL_INVITE_USE] = "UPDATE invite SET uses_left = uses_left - 1, used = used + 1 "
			   "WHERE " INVITE_GOOD,
	[SQL_INVITE_NEXT] =
		"SELECT " INVITE_COLUMNS " FROM invite WHERE id > ?1 ORDER BY id LIMIT 1",
	[SQL_INVITE_REVOKE] = "DELETE FROM invite WHERE id = ?1",
	[SQL_INVITE_EXPIRE] = "DELETE FROM invite WHERE uses_left = 0 "
			      "OR (expires <> 0 AND expires <= ?1)",
	[SQL_PIN_ADD] = "INSERT INTO pin (domain, cert, first_seen) VALUES (?1, ?2, ?3) "
			"ON CONFLICT (domain) DO NOTHING",
	[SQL_PIN_FULL] = "SELECT count(*) >= ?1 FROM pin",
	[SQL_PIN_FIND] = "SELECT domain, cert, first_seen FROM pin WHERE domain = ?1",
	[SQL_PIN_NEXT] = "SELECT domain, cert, first_seen FROM pin WHERE domain > ?1 "
			 "ORDER BY domain LIMIT 1",
	[SQL_PIN_REMOVE] = "DELETE FROM pin WHERE domain = ?1",
	[SQL_CERT_ADD] = "INSERT INTO cert (address, spki_hash, issued, not_after) "
			 "VALUES (?1, ?2, ?3, ?4)",
	[SQL_CERT_STATUS] = "SELECT count(*), max(revoked) FROM cert "
			    "WHERE address = ?1 AND spki_hash = ?2",
	[SQL_CERT_NEXT] = "SELECT " CERT_COLUMNS " FROM cert WHERE id > ?1 ORDER BY id LIMIT 1",
	[SQL_CERT_NEXT_OF] = "SELECT " CERT_COLUMNS " FROM cert INDEXED BY cert_by_address "
			     "WHERE id > ?1 AND address = ?2 ORDER BY id LIMIT 1",
	[SQL_CERT_REVOKE] =
		"UPDATE cert SET revoked = CASE revoked WHEN 0 THEN ?2 ELSE revoked END "
		"WHERE address = ?1 AND (?3 IS NULL OR spki_hash = ?3)",
	[SQL_CERT_EXPIRE] = "DELETE FROM cert WHERE not_after < ?1",
};

static_assert(ARRAY_SIZE(texts) == SQL_COUNT, "a statement without a text");

int store_fault(struct store *s, int sqlite_result)
{
	snprintf(s->error, sizeof(s->error), "%s",
		 s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(sqlite_result));
	if (sqlite_result == SQLITE_IOERR_NOMEM)
		return -ENOMEM;
	switch (sqlite_result & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_PERM:
	case SQLITE_AUTH:
	case SQLITE_CANTOPEN:
		return -EACCES;
	case SQLITE_CONSTRAINT: /* a bound of the schema */
	case SQLITE_TOOBIG:
	case SQLITE_MISMATCH:
		return -EINVAL;
	default:
		return -EIO;
	}
}

struct query query(struct store *s, enum store_sql sql)
{
	struct query q = { .store = s };

	if (!s->statements[sql])
		q.error = sqlite3_prepare_v3(s->db, texts[sql], -1, SQLITE_PREPARE_PERSISTENT,
					     &s->statements[sql], NULL);
	q.statement = s->statements[sql];
	return q;
}

void query_bind_text(struct query *q, const char *text)
{
	q->n_bound++;
	if (q->error == SQLITE_OK)
		q->error =
			text ? sqlite3_bind_text(q->statement, q->n_bound, text, -1, SQLITE_STATIC)
			     : sqlite3_bind_null(q->statement, q->n_bound);
}

void query_bind_blob(struct query *q, const void *data, size_t n_bytes)
{
	q->n_bound++;
	if (q->error == SQLITE_OK)
		q->error = data ? sqlite3_bind_blob64(q->statement, q->n_bound, data, n_bytes,
						      SQLITE_STATIC)
				: sqlite3_bind_null(q->statement, q->n_bound);
}

void query_bind_int(struct query *q, int64_t value)
{
	q->n_bound++;
	if (q->error == SQLITE_OK)
		q->error = sqlite3_bind_int64(q->statement, q->n_bound, value);
}

void query_end(struct query *q)
{
	if (!q->statement)
		return;
	sqlite3_reset(q->statement);
	sqlite3_clear_bindings(q->statement); /* they point into the caller's memory */
}

int query_row(struct query *q)
{
	int r;

	if (q->error == SQLITE_OK)
		q->error = sqlite3_step(q->statement);
	if (q->error == SQLITE_ROW)
		return 1;
	r = q->error == SQLITE_DONE ? 0 : store_fault(q->store, q->error);
	query_end(q);
	return r;
}

int query_run(struct query *q, int *ret_changes)
{
	int r = query_row(q);

	if (r > 0) {
		query_end(q);
		r = 0;
	}
	if (r == 0 && ret_changes)
		*ret_changes = sqlite3_changes(q->store->db);
	return r;
}

bool query_text(const struct query *q, int column, char *out, size_t out_bytes)
{
	const unsigned char *text = sqlite3_column_text(q->statement, column);
	const size_t n_bytes = (size_t)sqlite3_column_bytes(q->statement, column);

	if (!text || n_bytes >= out_bytes)
		return false;
	memcpy(out, text, n_bytes);
	out[n_bytes] = '\0';
	return true;
}

bool query_blob(const struct query *q, int column, uint8_t *out, size_t out_bytes,
		size_t *ret_bytes)
{
	const void *data = sqlite3_column_blob(q->statement, column);
	const size_t n_bytes = (size_t)sqlite3_column_bytes(q->statement, column);

	if (n_bytes > out_bytes || (!data && n_bytes > 0))
		return false;
	if (n_bytes > 0)
		memcpy(out, data, n_bytes);
	*ret_bytes = n_bytes;
	return true;
}

int64_t query_int(const struct query *q, int column)
{
	return sqlite3_column_int64(q->statement, column);
}

int store_begin(struct store *s)
{
	struct query q = query(s, SQL_BEGIN);

	return query_run(&q, NULL);
}

int store_end(struct store *s, int result)
{
	struct query q = query(s, SQL_COMMIT);
	char error[sizeof(s->error)];
	int r = result == 0 ? query_run(&q, NULL) : result;

	if (r == 0)
		return 0;
	/* After some faults SQLite has rolled back by itself already. */
	if (!sqlite3_get_autocommit(s->db)) {
		memcpy(error, s->error, sizeof(error));
		q = query(s, SQL_ROLLBACK);
		(void)query_run(&q, NULL);
		memcpy(s->error, error, sizeof(error));
	}
	return r;
}
