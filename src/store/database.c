/*
 * The database as a file: made, opened, copied, put back.
 *
 * Order of writing when it is made: the database under another name, complete
 * and synced; renamed; the marker last. Killed anywhere in between, the
 * directory is either still empty to store_open(), or good. The marker without
 * the database says that there was one: that is never taken for a new start.
 */
#define _GNU_SOURCE /* renameat2() */
#include "store/private.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE     "store.db"
#define DATABASE_NEW "store.db.new"
#define MARKER       "INITIALISED"
#define MARKER_NEW   "INITIALISED.new"
#define MARKER_HEAD  "domain "

enum {
	APPLICATION_ID = 0x71327173, /* "q2qs" */
	PATH_BYTES = 4096,
	SCHEMA_VERSION = 1,
};

/* migrations[n] leads from version n to n + 1. Once released, one is never changed. */
static const char *const migrations[SCHEMA_VERSION] = {
	"CREATE TABLE meta ("
	"  key TEXT PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 63),"
	"  value BLOB NOT NULL CHECK (length(value) <= 65536)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE user ("
	"  name TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),"
	"  password TEXT NOT NULL CHECK (length(password) BETWEEN 1 AND 255),"
	"  disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),"
	"  created INTEGER NOT NULL,"
	"  last_login INTEGER NOT NULL DEFAULT 0,"
	"  logins INTEGER NOT NULL DEFAULT 0"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE invite ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  code_hash BLOB NOT NULL UNIQUE CHECK (length(code_hash) = 32),"
	"  uses_left INTEGER NOT NULL CHECK (uses_left BETWEEN 0 AND 4294967295),"
	"  used INTEGER NOT NULL DEFAULT 0,"
	"  created INTEGER NOT NULL,"
	"  expires INTEGER NOT NULL,"
	"  note TEXT NOT NULL CHECK (length(note) <= 127)"
	") STRICT;"
	"CREATE TABLE pin ("
	"  domain TEXT PRIMARY KEY CHECK (length(domain) BETWEEN 1 AND 253),"
	"  cert BLOB NOT NULL CHECK (length(cert) BETWEEN 1 AND 8192),"
	"  first_seen INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE cert ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  address TEXT NOT NULL CHECK (length(address) BETWEEN 1 AND 319),"
	"  spki_hash BLOB NOT NULL CHECK (length(spki_hash) = 32),"
	"  issued INTEGER NOT NULL,"
	"  not_after INTEGER NOT NULL,"
	"  revoked INTEGER NOT NULL DEFAULT 0"
	") STRICT;"
	"CREATE INDEX cert_by_address ON cert (address, spki_hash);"
	"CREATE INDEX cert_by_end ON cert (not_after);",
};

const char *store_outcome_name(enum store_outcome outcome)
{
	static const char *const names[] = {
		[0] = "done",
		[STORE_NOT_INITIALISED] = "not initialised",
		[STORE_LOST] = "lost",
		[STORE_TOO_NEW] = "too new",
		[STORE_EXISTS] = "exists already",
		[STORE_NOT_FOUND] = "not found",
		[STORE_INVITE_INVALID] = "invite not valid",
		[STORE_REVOKED] = "revoked",
		[STORE_FULL] = "full",
	};

	static_assert(ARRAY_SIZE(names) == STORE_OUTCOME_COUNT, "an outcome without a name");
	return (unsigned)outcome < STORE_OUTCOME_COUNT ? names[outcome] : "?";
}

const char *store_domain(const struct store *s)
{
	return s->domain;
}

const char *store_error(const struct store *s)
{
	return s->error;
}

/* ---- the directory ----------------------------------------------------------------- */

static int path_in(const char *dir, const char *name, char out[static PATH_BYTES])
{
	const int n = snprintf(out, PATH_BYTES, "%s/%s", dir, name);

	return n > 0 && n < PATH_BYTES ? 0 : -ENAMETOOLONG;
}

static bool has_database(int dir_fd)
{
	struct stat st;

	/* Of an empty file SQLite would make an empty database: it is no trace of one. */
	return fstatat(dir_fd, DATABASE, &st, 0) == 0 && st.st_size > 0;
}

/*
 * Opens a directory that has no database yet and locks it against other makers.
 * 0; STORE_EXISTS; -errno. A database is looked for before too: the server that
 * runs on it holds the lock, and would let us wait until it ends.
 */
static int lock_vacant_dir(const char *dir, int *ret_fd)
{
	_cleanup_(closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (has_database(fd))
		return STORE_EXISTS;
	if (flock(fd, LOCK_EX) < 0)
		return -errno;
	if (has_database(fd))
		return STORE_EXISTS;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* 0; STORE_NOT_FOUND; -EUCLEAN for a marker that cannot be read. */
static int read_marker(int dir_fd, char ret_domain[static STORE_DOMAIN_BYTES])
{
	char text[sizeof(MARKER_HEAD) + STORE_DOMAIN_BYTES];
	_cleanup_(closep) int fd = openat(dir_fd, MARKER, O_RDONLY | O_CLOEXEC);
	char *end;
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? STORE_NOT_FOUND : -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	end = strchr(text, '\n');
	if (!end || strncmp(text, MARKER_HEAD, strlen(MARKER_HEAD)) != 0)
		return -EUCLEAN;
	*end++ = '\0';
	if ((size_t)(end - text) - strlen(MARKER_HEAD) > STORE_DOMAIN_BYTES)
		return -EUCLEAN;
	memcpy(ret_domain, text + strlen(MARKER_HEAD), (size_t)(end - text) - strlen(MARKER_HEAD));
	return 0;
}

static int write_whole(int fd, const char *text)
{
	const size_t n_bytes = strlen(text);
	const ssize_t n = write(fd, text, n_bytes);

	if (n != (ssize_t)n_bytes)
		return n < 0 ? -errno : -ENOSPC;
	return fsync(fd) < 0 ? -errno : 0;
}

static int write_marker(int dir_fd, const char *domain)
{
	_cleanup_(closep) int fd = -1;
	char text[512];
	int r;

	fd = openat(dir_fd, MARKER_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	snprintf(text, sizeof(text),
		 MARKER_HEAD
		 "%s\n"
		 "An identity server keeps its accounts and its key in " DATABASE
		 " beside this file.\n"
		 "If that is gone, restore a backup: a new key would lock out everybody.\n",
		 domain);
	r = write_whole(fd, text);
	if (r < 0)
		return r;
	if (renameat(dir_fd, MARKER_NEW, dir_fd, MARKER) < 0 || fsync(dir_fd) < 0)
		return -errno;
	return 0;
}

/* ---- the connection -------------------------------------------------------------------- */

static int execute(struct store *s, const char *sql)
{
	const int r = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

	return r == SQLITE_OK ? 0 : store_fault(s, r);
}

/* The one number that a pragma or a count gives. */
static int get_number(struct store *s, const char *sql, int64_t *ret_value)
{
	sqlite3_stmt *statement = NULL;
	int r = sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL);

	if (r == SQLITE_OK)
		r = sqlite3_step(statement);
	if (r == SQLITE_ROW)
		*ret_value = sqlite3_column_int64(statement, 0);
	r = r == SQLITE_ROW ? 0 : store_fault(s, r);
	sqlite3_finalize(statement);
	return r;
}

static int connect(const char *path, int flags, struct store **ret)
{
	_cleanup_(store_closep) struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	r = sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
	if (r != SQLITE_OK)
		return store_fault(s, r);
	sqlite3_extended_result_codes(s->db, 1);
	sqlite3_busy_timeout(s->db, STORE_BUSY_MS);
	/* The file may have been touched by others: its schema is data, not code. */
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	*ret = TAKE_PTR(s);
	return 0;
}

static int make_durable(struct store *s)
{
	/* secure_delete: password hashes and keys are gone when they are gone. */
	return execute(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
			  "PRAGMA secure_delete = ON; PRAGMA cell_size_check = ON;"
			  "PRAGMA temp_store = MEMORY;");
}

static int read_domain(struct store *s)
{
	struct query q = query(s, SQL_META_GET);
	size_t n_bytes = 0;
	int r;

	query_bind_text(&q, "domain");
	r = query_row(&q);
	if (r <= 0)
		return r < 0 ? r : -EUCLEAN;
	if (!query_blob(&q, 0, (uint8_t *)s->domain, sizeof(s->domain) - 1, &n_bytes) ||
	    n_bytes == 0)
		r = -EUCLEAN;
	s->domain[n_bytes] = '\0';
	query_end(&q);
	return r < 0 ? r : 0;
}

static int migrate_from(struct store *s, int64_t version)
{
	char sql[64];
	int r = 0;

	for (; r == 0 && version < SCHEMA_VERSION; version++)
		r = execute(s, migrations[version]);
	snprintf(sql, sizeof(sql), "PRAGMA user_version = %d", SCHEMA_VERSION);
	return r < 0 ? r : execute(s, sql);
}

static int migrate(struct store *s)
{
	int64_t version = 0;
	int r = get_number(s, "PRAGMA user_version", &version);

	if (r < 0 || version == SCHEMA_VERSION)
		return r;
	r = store_begin(s);
	if (r < 0)
		return r;
	/* Somebody else may have done it while we waited for the lock. */
	r = get_number(s, "PRAGMA user_version", &version);
	return store_end(s, r < 0 ? r : migrate_from(s, version));
}

/* Is this one of ours, and of a version that we know? */
static int check_identity(struct store *s)
{
	int64_t id = 0, version = 0;
	int r = get_number(s, "PRAGMA application_id", &id);

	if (r == 0)
		r = get_number(s, "PRAGMA user_version", &version);
	if (r < 0)
		return r;
	if (id != APPLICATION_ID || version < 1)
		return -EUCLEAN;
	return version > SCHEMA_VERSION ? STORE_TOO_NEW : 0;
}

int store_open(const char *dir, struct store **ret)
{
	_cleanup_(store_closep) struct store *s = NULL;
	_cleanup_(closep) int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[PATH_BYTES], domain[STORE_DOMAIN_BYTES];
	int has_marker, r;

	if (dir_fd < 0)
		return errno == ENOENT ? STORE_NOT_INITIALISED : -errno;
	has_marker = read_marker(dir_fd, domain);
	if (!has_database(dir_fd))
		return has_marker == STORE_NOT_FOUND ? STORE_NOT_INITIALISED : STORE_LOST;
	r = path_in(dir, DATABASE, path);
	if (r == 0)
		r = connect(path, SQLITE_OPEN_READWRITE, &s);
	if (r == 0)
		r = check_identity(s);
	if (r == 0)
		r = make_durable(s);
	if (r == 0)
		r = migrate(s);
	if (r == 0)
		r = read_domain(s);
	if (r == 0 && has_marker != 0) /* killed between the two, or a database put here by hand */
		r = write_marker(dir_fd, s->domain);
	if (r != 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(s->statements[i]);
	sqlite3_close(s->db);
	free(s);
}

/* ---- making it --------------------------------------------------------------------------- */

static void remove_leftovers(int dir_fd)
{
	static const char *const names[] = { DATABASE_NEW, DATABASE_NEW "-journal",
					     DATABASE_NEW "-wal", DATABASE_NEW "-shm" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(dir_fd, names[i], 0);
}

/* An empty file that is ours alone; SQLite gives -wal and -shm the same mode. */
static int create_file(int dir_fd, const char *name)
{
	const int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int fill_new(struct store *s, const char *domain, int64_t now_s)
{
	char sql[64];
	int r;

	snprintf(sql, sizeof(sql), "PRAGMA application_id = %d", APPLICATION_ID);
	r = execute(s, sql);
	if (r == 0)
		r = make_durable(s);
	if (r == 0)
		r = migrate(s);
	if (r == 0)
		r = store_meta_set(s, "domain", domain, strlen(domain));
	snprintf(sql, sizeof(sql), "%lld", (long long)now_s);
	return r < 0 ? r : store_meta_set(s, "created", sql, strlen(sql));
}

/* Without its last connection SQLite has folded the log into the file. */
static int put_in_place(int dir_fd, const char *domain)
{
	_cleanup_(closep) int fd = openat(dir_fd, DATABASE_NEW, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	/* A log that outlived its lost database would be played into this one. */
	unlinkat(dir_fd, DATABASE "-wal", 0);
	unlinkat(dir_fd, DATABASE "-shm", 0);
	if (renameat(dir_fd, DATABASE_NEW, dir_fd, DATABASE) < 0 || fsync(dir_fd) < 0)
		return -errno;
	return write_marker(dir_fd, domain);
}

static int open_new(const char *dir, int dir_fd, struct store **ret)
{
	char path[PATH_BYTES];
	int r = path_in(dir, DATABASE_NEW, path);

	remove_leftovers(dir_fd);
	if (r == 0)
		r = create_file(dir_fd, DATABASE_NEW);
	return r < 0 ? r : connect(path, SQLITE_OPEN_READWRITE, ret);
}

/* A line of its own in the marker, and nothing to climb out of a directory with. */
static bool domain_ok(const char *domain)
{
	const size_t n = strnlen(domain, STORE_DOMAIN_BYTES);

	if (n == 0 || n >= STORE_DOMAIN_BYTES)
		return false;
	for (size_t i = 0; i < n; i++)
		if (domain[i] <= 0x20 || domain[i] > 0x7e || domain[i] == '/')
			return false;
	return true;
}

int store_init(const char *dir, const char *domain, int64_t now_s)
{
	struct store *s = NULL;
	_cleanup_(closep) int dir_fd = -1;
	char old_domain[STORE_DOMAIN_BYTES];
	int r;

	if (!domain_ok(domain))
		return -EINVAL;
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	r = lock_vacant_dir(dir, &dir_fd);
	if (r != 0)
		return r;
	if (read_marker(dir_fd, old_domain) != STORE_NOT_FOUND)
		return STORE_EXISTS;
	r = open_new(dir, dir_fd, &s);
	if (r == 0)
		r = fill_new(s, domain, now_s);
	store_close(s);
	if (r == 0)
		r = put_in_place(dir_fd, domain);
	if (r < 0)
		remove_leftovers(dir_fd);
	return r;
}

/* ---- copies --------------------------------------------------------------------------------- */

static int check_sound(struct store *s)
{
	sqlite3_stmt *statement = NULL;
	int r = sqlite3_prepare_v2(s->db, "PRAGMA integrity_check(1)", -1, &statement, NULL);

	if (r == SQLITE_OK)
		r = sqlite3_step(statement);
	if (r != SQLITE_ROW) {
		r = store_fault(s, r);
	} else {
		const char *text = (const char *)sqlite3_column_text(statement, 0);

		r = text && strcmp(text, "ok") == 0 ? 0 : -EUCLEAN;
		if (r < 0)
			snprintf(s->error, sizeof(s->error), "%s", text ? text : "?");
	}
	sqlite3_finalize(statement);
	return r;
}

int store_check(struct store *s)
{
	return check_sound(s);
}

/* One read transaction: a snapshot, whatever is written meanwhile. */
static int copy_database(struct store *from, struct store *to)
{
	sqlite3_backup *backup = sqlite3_backup_init(to->db, "main", from->db, "main");
	int r;

	if (!backup)
		return store_fault(to, sqlite3_errcode(to->db));
	r = sqlite3_backup_step(backup, -1);
	sqlite3_backup_finish(backup);
	if (r != SQLITE_DONE)
		return store_fault(to, r);
	/* The copy is one file, without a log beside it. */
	r = execute(to, "PRAGMA journal_mode = DELETE");
	return r < 0 ? r : check_sound(to);
}

static int copy_to_file(struct store *from, const char *path)
{
	_cleanup_(store_closep) struct store *to = NULL;
	int r = create_file(AT_FDCWD, path);

	if (r == 0)
		r = connect(path, SQLITE_OPEN_READWRITE, &to);
	if (r == 0)
		r = copy_database(from, to);
	if (r < 0 && to)
		memcpy(from->error, to->error, sizeof(from->error));
	return r;
}

/* Syncs the directory that a path is in. */
static int sync_parent(const char *path)
{
	char dir[PATH_BYTES];
	const char *slash = strrchr(path, '/');
	_cleanup_(closep) int fd = -1;

	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* 0, STORE_EXISTS. Where the file system cannot refuse by itself, we look first. */
static int rename_to_free_name(const char *from, const char *to)
{
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EEXIST)
		return STORE_EXISTS;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (faccessat(AT_FDCWD, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return STORE_EXISTS;
	return rename(from, to) < 0 ? -errno : 0;
}

static int sync_file(const char *path)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int store_backup(struct store *s, const char *path)
{
	char temporary[PATH_BYTES];
	int r;

	if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return STORE_EXISTS;
	r = snprintf(temporary, sizeof(temporary), "%s.%ld.part", path, (long)getpid());
	if (r < 0 || (size_t)r >= sizeof(temporary))
		return -ENAMETOOLONG;
	r = copy_to_file(s, temporary);
	if (r == 0)
		r = sync_file(temporary);
	if (r == 0)
		r = rename_to_free_name(temporary, path);
	if (r != 0)
		unlink(temporary);
	return r != 0 ? r : sync_parent(path);
}

/* Opens a backup for reading and makes sure that it is one. */
static int open_backup(const char *path, struct store **ret)
{
	_cleanup_(store_closep) struct store *s = NULL;
	int r;

	if (access(path, R_OK) < 0)
		return -errno;
	r = connect(path, SQLITE_OPEN_READONLY, &s);
	if (r == 0)
		r = check_identity(s);
	if (r == 0)
		r = check_sound(s);
	if (r == 0)
		r = read_domain(s);
	if (r == 0)
		*ret = TAKE_PTR(s);
	return r;
}

static int restore_into(const char *dir, int dir_fd, struct store *backup)
{
	struct store *s = NULL;
	int r = open_new(dir, dir_fd, &s);

	if (r == 0)
		r = copy_database(backup, s);
	store_close(s);
	if (r == 0)
		r = put_in_place(dir_fd, backup->domain);
	if (r < 0)
		remove_leftovers(dir_fd);
	return r;
}

int store_restore(const char *dir, const char *path)
{
	_cleanup_(store_closep) struct store *backup = NULL;
	_cleanup_(closep) int dir_fd = -1;
	char domain[STORE_DOMAIN_BYTES];
	int r = open_backup(path, &backup);

	if (r != 0)
		return r;
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	r = lock_vacant_dir(dir, &dir_fd);
	if (r != 0)
		return r;
	r = read_marker(dir_fd, domain);
	if (r < 0)
		return r;
	if (r == 0 && strcmp(domain, backup->domain) != 0)
		return -EUCLEAN;
	return restore_into(dir, dir_fd, backup);
}
