/* What the files of this folder share; nobody else includes it. */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include "store/store.h"

#include <sqlite3.h>

enum store_sql {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_META_GET,
	SQL_META_SET,
	SQL_USER_ADD,
	SQL_USER_FIND,
	SQL_USER_NEXT,
	SQL_USER_COUNT,
	SQL_USER_DISABLE,
	SQL_USER_PASSWORD,
	SQL_USER_LOGGED_IN,
	SQL_USER_REMOVE,
	SQL_INVITE_ADD,
	SQL_INVITE_CHECK,
	SQL_INVITE_USE,
	SQL_INVITE_NEXT,
	SQL_INVITE_REVOKE,
	SQL_INVITE_EXPIRE,
	SQL_PIN_ADD,
	SQL_PIN_FULL,
	SQL_PIN_FIND,
	SQL_PIN_NEXT,
	SQL_PIN_REMOVE,
	SQL_CERT_ADD,
	SQL_CERT_STATUS,
	SQL_CERT_NEXT,
	SQL_CERT_NEXT_OF,
	SQL_CERT_REVOKE,
	SQL_CERT_EXPIRE,
	SQL_COUNT,
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *statements[SQL_COUNT]; /* prepared when first used */
	char domain[STORE_DOMAIN_BYTES];
	char error[256];
};

/* SQLite's result as one of ours; keeps its words for store_error(). */
int store_fault(struct store *s, int sqlite_result);

/*
 * A call is: q = query(s, SQL_X); bind...; query_run() or query_row(); query_end().
 * Binding sticks at the first error, which the run then returns.
 */
struct query {
	struct store *store;
	sqlite3_stmt *statement;
	int error; /* of SQLite */
	int n_bound;
};

struct query query(struct store *s, enum store_sql sql);
void query_bind_text(struct query *q, const char *text);
void query_bind_blob(struct query *q, const void *data, size_t n_bytes);
void query_bind_int(struct query *q, int64_t value);
/* 1: a row is there, read it, then query_end(); 0: none, ended; negative: fault, ended. */
int query_row(struct query *q);
/* For statements without rows: 0 or a fault. *ret_changes may be NULL. */
int query_run(struct query *q, int *ret_changes);
void query_end(struct query *q);
/* false: too long. */
bool query_text(const struct query *q, int column, char *out, size_t out_bytes);
bool query_blob(const struct query *q, int column, uint8_t *out, size_t out_bytes,
		size_t *ret_bytes);
int64_t query_int(const struct query *q, int column);

/* A transaction that holds the write lock from its start. */
int store_begin(struct store *s);
/* Commits if `result` is 0, else rolls back; returns what became of it. */
int store_end(struct store *s, int result);

#endif
