#define _GNU_SOURCE /* nftw(), memmem() */
#include "unit.h"
#include "store/private.h"

#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOW_S INT64_C(1800000000)
#define PHC                                                                                        \
	"$scrypt$ln=15,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"

/* Each test has a directory of its own; `data` in it is the store's. */
struct place {
	char dir[64], data[80];
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int make_place(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	snprintf(p->dir, sizeof(p->dir), "/tmp/test_store.XXXXXX");
	if (!p || !mkdtemp(p->dir))
		return -1;
	snprintf(p->data, sizeof(p->data), "%s/data", p->dir);
	*state = p;
	return 0;
}

static int remove_place(void **state)
{
	struct place *p = *state;

	nftw(p->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(p);
	return 0;
}

static struct store *open_store(const struct place *p)
{
	struct store *s = NULL;

	assert_int_equal(store_open(p->data, &s), 0);
	return s;
}

static struct store *new_store(const struct place *p)
{
	assert_int_equal(store_init(p->data, "example.com", NOW_S), 0);
	return open_store(p);
}

static void file_in(const struct place *p, const char *name, char out[static 256])
{
	snprintf(out, 256, "%s/%s", p->data, name);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

/* ---- the directory -------------------------------------------------------------- */

static void an_empty_place_is_not_a_store(void **state)
{
	const struct place *p = *state;
	struct store *s = NULL;

	assert_int_equal(store_open(p->data, &s), STORE_NOT_INITIALISED);
	assert_int_equal(mkdir(p->data, 0700), 0);
	assert_int_equal(store_open(p->data, &s), STORE_NOT_INITIALISED);
	assert_null(s);
}

static void init_is_explicit_and_never_overwrites(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);

	assert_string_equal(store_domain(s), "example.com");
	assert_int_equal(store_user_add(s, "alice", PHC, NOW_S), 0);
	assert_int_equal(store_init(p->data, "example.com", NOW_S), STORE_EXISTS);
	store_close(s);
	assert_int_equal(store_init(p->data, "other.test", NOW_S), STORE_EXISTS);
	s = open_store(p);
	assert_string_equal(store_domain(s), "example.com");
	assert_int_equal(store_user_find(s, "alice", &(struct store_user){ 0 }), 0);
	store_close(s);
}

static void init_and_restore_do_not_wait_for_a_server_to_end(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	char backup[256];
	int fd;

	file_in(p, "backup", backup);
	assert_int_equal(store_backup(s, backup), 0);
	store_close(s);
	fd = open(p->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX), 0); /* as `q2q-server run` does */
	alarm(30);                               /* it would be for ever */
	assert_int_equal(store_init(p->data, "example.com", NOW_S), STORE_EXISTS);
	assert_int_equal(store_restore(p->data, backup), STORE_EXISTS);
	alarm(0);
	close(fd);
}

static void a_lost_database_is_not_taken_for_a_new_start(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	char path[256];

	store_close(s);
	s = NULL;
	file_in(p, "store.db", path);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(store_open(p->data, &s), STORE_LOST);
	assert_int_equal(store_init(p->data, "example.com", NOW_S), STORE_EXISTS);
	/* A file of no bytes would be an empty database to SQLite. */
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(store_open(p->data, &s), STORE_LOST);
	assert_int_equal(store_init(p->data, "example.com", NOW_S), STORE_EXISTS);
	assert_null(s);
}

static void files_are_for_their_owner_alone(void **state)
{
	const struct place *p = *state;
	static const char *const names[] = { "store.db", "store.db-wal", "store.db-shm",
					     "INITIALISED" };
	const mode_t before = umask(0);
	struct store *s = new_store(p);
	char path[256];

	assert_int_equal(store_user_add(s, "alice", PHC, NOW_S), 0);
	assert_int_equal(mode_of(p->data), 0700);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		file_in(p, names[i], path);
		assert_int_equal(mode_of(path), 0600);
	}
	snprintf(path, sizeof(path), "%s/backup", p->dir);
	assert_int_equal(store_backup(s, path), 0);
	assert_int_equal(mode_of(path), 0600);
	store_close(s);
	umask(before);
}

static void the_marker_comes_back(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	char path[256];

	store_close(s);
	file_in(p, "INITIALISED", path);
	assert_int_equal(unlink(path), 0);
	store_close(open_store(p));
	assert_int_equal(access(path, F_OK), 0);
}

static void a_damaged_or_foreign_database_is_told(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	uint8_t junk[8192];
	char path[256];
	sqlite3 *db;
	int fd;

	store_close(s);
	s = NULL;
	file_in(p, "store.db", path);
	memset(junk, 0x5a, sizeof(junk));
	fd = open(path, O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, junk, sizeof(junk)), sizeof(junk));
	close(fd);
	assert_int_equal(store_open(p->data, &s), -EUCLEAN);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_exec(db, "CREATE TABLE other (x)", NULL, NULL, NULL);
	sqlite3_close(db);
	assert_int_equal(store_open(p->data, &s), -EUCLEAN);
	assert_null(s);
}

static void a_later_version_is_left_alone(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);

	assert_int_equal(sqlite3_exec(s->db, "PRAGMA user_version = 99", NULL, NULL, NULL), 0);
	store_close(s);
	s = NULL;
	assert_int_equal(store_open(p->data, &s), STORE_TOO_NEW);
	assert_null(s);
}

static void damage_inside_is_found_by_a_check(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	uint8_t zeros[1024] = { 0 };
	char path[256];
	int fd, r;

	for (int i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof(name), "user%03d", i);
		assert_int_equal(store_user_add(s, name, PHC, NOW_S), 0);
	}
	assert_int_equal(store_check(s), 0);
	store_close(s);
	file_in(p, "store.db", path);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 2 * 4096), sizeof(zeros));
	close(fd);
	r = store_open(p->data, &s);
	if (r == 0) {
		assert_int_equal(store_check(s), -EUCLEAN);
		assert_true(strlen(store_error(s)) > 0);
		store_close(s);
	} else {
		assert_int_equal(r, -EUCLEAN);
	}
}

static void values_are_kept_by_name(void **state)
{
	struct store *s = new_store(*state);
	static uint8_t big[STORE_META_MAX_BYTES + 1];
	struct buffer b;

	buffer_init(&b, STORE_META_MAX_BYTES, true);
	assert_int_equal(store_meta_get(s, "key", &b), STORE_NOT_FOUND);
	assert_int_equal(store_meta_set(s, "key", "a\0b", 3), 0);
	assert_int_equal(store_meta_set(s, "empty", "", 0), 0);
	assert_int_equal(store_meta_get(s, "key", &b), 0);
	assert_int_equal(store_meta_get(s, "empty", &b), 0);
	assert_int_equal(buffer_used(&b), 3);
	assert_memory_equal(buffer_peek(&b), "a\0b", 3);
	assert_int_equal(store_meta_set(s, "key", "c", 1), 0);
	buffer_consume(&b, 3);
	assert_int_equal(store_meta_get(s, "key", &b), 0);
	assert_memory_equal(buffer_peek(&b), "c", 1);
	assert_int_equal(store_meta_set(s, "key", big, sizeof(big)), -EINVAL);
	assert_int_equal(store_meta_set(s, "", "c", 1), -EINVAL);
	buffer_consume(&b, 1);
	assert_int_equal(store_meta_set(s, "key", big, sizeof(big) - 1), 0);
	assert_int_equal(store_meta_get(s, "key", &b), 0);
	buffer_fini(&b);
	store_close(s);
}

/* ---- accounts -------------------------------------------------------------------------- */

static void accounts_are_added_found_changed_and_removed(void **state)
{
	struct store *s = new_store(*state);
	struct store_user user;
	uint64_t n;

	assert_int_equal(store_user_find(s, "alice", &user), STORE_NOT_FOUND);
	assert_int_equal(store_user_add(s, "alice", PHC, NOW_S), 0);
	assert_int_equal(store_user_add(s, "alice", "other", NOW_S + 1), STORE_EXISTS);
	assert_int_equal(store_user_find(s, "alice", &user), 0);
	assert_string_equal(user.name, "alice");
	assert_string_equal(user.password, PHC);
	assert_false(user.disabled);
	assert_int_equal(user.created_s, NOW_S);
	assert_int_equal(user.last_login_s, 0);
	assert_int_equal(user.n_logins, 0);
	assert_int_equal(store_user_logged_in(s, "alice", NOW_S + 5), 0);
	assert_int_equal(store_user_logged_in(s, "alice", NOW_S + 2), 0); /* a clock set back */
	assert_int_equal(store_user_set_disabled(s, "alice", true), 0);
	assert_int_equal(store_user_set_password(s, "alice", "new"), 0);
	assert_int_equal(store_user_find(s, "alice", &user), 0);
	assert_true(user.disabled);
	assert_string_equal(user.password, "new");
	assert_int_equal(user.last_login_s, NOW_S + 5);
	assert_int_equal(user.n_logins, 2);
	assert_int_equal(store_user_add(s, "alice", PHC, NOW_S), STORE_EXISTS);
	assert_int_equal(store_user_set_disabled(s, "alice", false), 0);
	assert_int_equal(store_user_count(s, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(store_user_remove(s, "alice", NOW_S), 0);
	assert_int_equal(store_user_remove(s, "alice", NOW_S), STORE_NOT_FOUND);
	assert_int_equal(store_user_find(s, "alice", &user), STORE_NOT_FOUND);
	assert_int_equal(store_user_logged_in(s, "alice", NOW_S), STORE_NOT_FOUND);
	assert_int_equal(store_user_set_disabled(s, "alice", true), STORE_NOT_FOUND);
	assert_int_equal(store_user_set_password(s, "alice", "x"), STORE_NOT_FOUND);
	store_close(s);
}

static void names_are_bounded_and_never_sql(void **state)
{
	struct store *s = new_store(*state);
	char name[STORE_NAME_BYTES + 1], password[STORE_PASSWORD_BYTES + 1];
	struct store_user user;

	memset(name, 'a', sizeof(name));
	name[STORE_NAME_BYTES] = '\0';
	assert_int_equal(store_user_add(s, name, PHC, NOW_S), -EINVAL);
	name[STORE_NAME_BYTES - 1] = '\0';
	assert_int_equal(store_user_add(s, name, PHC, NOW_S), 0);
	assert_int_equal(store_user_find(s, name, &user), 0);
	memset(password, 'x', sizeof(password));
	password[STORE_PASSWORD_BYTES] = '\0';
	assert_int_equal(store_user_add(s, "b", password, NOW_S), -EINVAL);
	password[STORE_PASSWORD_BYTES - 1] = '\0';
	assert_int_equal(store_user_add(s, "b", password, NOW_S), 0);
	assert_int_equal(store_user_find(s, "b", &user), 0);
	assert_string_equal(user.password, password);
	assert_int_equal(store_user_add(s, "", PHC, NOW_S), -EINVAL);
	assert_int_equal(store_user_add(s, "c", "", NOW_S), -EINVAL);
	assert_int_equal(store_user_add(s, "x'); DROP TABLE user; --", PHC, NOW_S), 0);
	assert_int_equal(store_user_find(s, "' OR 1=1 --", &user), STORE_NOT_FOUND);
	assert_int_equal(store_user_find(s, "b", &user), 0);
	store_close(s);
}

static void a_list_survives_changes_while_it_is_read(void **state)
{
	static const char *const names[] = { "dora", "alice", "carol", "bob" };
	struct store *s = new_store(*state);
	struct store_user user = { .name = "" };
	char seen[64] = "";
	size_t at = 0;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(store_user_add(s, names[i], PHC, NOW_S), 0);
	while ((r = store_user_next(s, user.name, &user)) == 0) {
		at += (size_t)snprintf(seen + at, sizeof(seen) - at, "%s", user.name);
		if (strcmp(user.name, "bob") == 0)
			assert_int_equal(store_user_remove(s, "carol", NOW_S), 0);
	}
	assert_int_equal(r, STORE_NOT_FOUND);
	assert_string_equal(seen, "alicebobdora");
	store_close(s);
}

/* ---- invites ----------------------------------------------------------------------------- */

static void an_invite_makes_as_many_accounts_as_it_has_uses(void **state)
{
	struct store *s = new_store(*state);
	char code[STORE_CODE_BYTES];
	struct store_invite invite;
	int64_t id;

	assert_int_equal(store_invite_create(s, 2, 0, "for the band", NOW_S, code, &id), 0);
	assert_int_equal(strlen(code), 26);
	assert_int_equal(store_invite_check(s, code, NOW_S), 0);
	assert_int_equal(store_user_add_invited(s, "alice", PHC, code, NOW_S), 0);
	/* A name that is taken costs nothing. */
	assert_int_equal(store_user_add_invited(s, "alice", PHC, code, NOW_S), STORE_EXISTS);
	assert_int_equal(store_invite_next(s, 0, &invite), 0);
	assert_int_equal(invite.id, id);
	assert_int_equal(invite.n_uses_left, 1);
	assert_int_equal(invite.n_used, 1);
	assert_string_equal(invite.note, "for the band");
	assert_int_equal(store_user_add_invited(s, "bob", PHC, code, NOW_S), 0);
	assert_int_equal(store_invite_check(s, code, NOW_S), STORE_INVITE_INVALID);
	assert_int_equal(store_user_add_invited(s, "carol", PHC, code, NOW_S),
			 STORE_INVITE_INVALID);
	/* Who has no invite does not learn which names exist. */
	assert_int_equal(store_user_add_invited(s, "alice", PHC, code, NOW_S),
			 STORE_INVITE_INVALID);
	assert_int_equal(store_user_find(s, "carol", &(struct store_user){ 0 }), STORE_NOT_FOUND);
	assert_int_equal(store_invite_next(s, id, &invite), STORE_NOT_FOUND);
	store_close(s);
}

static void a_code_is_read_as_people_type_it(void **state)
{
	struct store *s = new_store(*state);
	char code[STORE_CODE_BYTES], typed[64];
	size_t at = 0;
	int64_t id;

	assert_int_equal(store_invite_create(s, 1, 0, NULL, NOW_S, code, &id), 0);
	for (size_t i = 0; i < 26; i++) {
		if (i > 0 && i % 5 == 0)
			typed[at++] = i % 2 ? '-' : ' ';
		typed[at++] = (char)(code[i] >= 'a' ? code[i] - 'a' + 'A' : code[i]);
	}
	typed[at] = '\0';
	assert_int_equal(store_invite_check(s, typed, NOW_S), 0);
	typed[at++] = 'A';
	typed[at] = '\0';
	assert_int_equal(store_invite_check(s, typed, NOW_S), STORE_INVITE_INVALID);
	assert_int_equal(store_invite_check(s, "", NOW_S), STORE_INVITE_INVALID);
	assert_int_equal(store_invite_check(s, "0189", NOW_S), STORE_INVITE_INVALID);
	code[3] = code[3] == 'a' ? 'b' : 'a';
	assert_int_equal(store_invite_check(s, code, NOW_S), STORE_INVITE_INVALID);
	store_close(s);
}

static void invites_end_by_time_and_by_hand(void **state)
{
	struct store *s = new_store(*state);
	char timed[STORE_CODE_BYTES], revoked[STORE_CODE_BYTES];
	struct store_invite invite;
	int64_t timed_id, revoked_id;

	assert_int_equal(store_invite_create(s, 5, NOW_S + 10, NULL, NOW_S, timed, &timed_id), 0);
	assert_int_equal(store_invite_create(s, 5, 0, NULL, NOW_S, revoked, &revoked_id), 0);
	assert_string_not_equal(timed, revoked);
	assert_int_equal(store_invite_check(s, timed, NOW_S + 9), 0);
	assert_int_equal(store_invite_check(s, timed, NOW_S + 10), STORE_INVITE_INVALID);
	assert_int_equal(store_user_add_invited(s, "a", PHC, timed, NOW_S + 10),
			 STORE_INVITE_INVALID);
	assert_int_equal(store_invite_revoke(s, revoked_id), 0);
	assert_int_equal(store_invite_revoke(s, revoked_id), STORE_NOT_FOUND);
	assert_int_equal(store_user_add_invited(s, "a", PHC, revoked, NOW_S), STORE_INVITE_INVALID);
	assert_int_equal(store_expire(s, NOW_S), 0);
	assert_int_equal(store_invite_next(s, 0, &invite), 0);
	assert_int_equal(store_expire(s, NOW_S + 10), 0);
	assert_int_equal(store_invite_next(s, 0, &invite), STORE_NOT_FOUND);
	assert_int_equal(store_invite_create(s, 0, 0, NULL, NOW_S, timed, &timed_id), -EINVAL);
	store_close(s);
}

static void codes_and_names_of_the_removed_are_not_left_in_the_file(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	char code[STORE_CODE_BYTES], path[256];
	static uint8_t content[1 << 20];
	int64_t id;
	ssize_t n;
	int fd;

	assert_int_equal(store_invite_create(s, 1, 0, NULL, NOW_S, code, &id), 0);
	assert_int_equal(store_user_add(s, "zebedee", "$scrypt$very-secret", NOW_S), 0);
	assert_int_equal(store_user_remove(s, "zebedee", NOW_S), 0);
	store_close(s);
	file_in(p, "store.db", path);
	fd = open(path, O_RDONLY);
	n = read(fd, content, sizeof(content));
	close(fd);
	assert_true(n > 4096);
	assert_null(memmem(content, (size_t)n, code, 26));
	assert_null(memmem(content, (size_t)n, "very-secret", 11));
}

static int count_users(struct store *s)
{
	uint64_t n = 0;

	assert_int_equal(store_user_count(s, &n), 0);
	return (int)n;
}

/* What a child of the next test does: waits for the start, uses the invite, tells by its exit. */
static void use_invite_at_once(const struct place *p, int start_fd, int number, const char *code)
{
	struct store *s = NULL;
	char name[32], byte;
	int r = store_open(p->data, &s);

	snprintf(name, sizeof(name), "user%d", number);
	if (r == 0 && read(start_fd, &byte, 1) == 0)
		r = store_user_add_invited(s, name, PHC, code, NOW_S);
	store_close(s);
	_exit(r == 0 ? 0 : r == STORE_INVITE_INVALID ? 1 : 2);
}

static void a_one_use_invite_used_at_once_by_many_makes_one_account(void **state)
{
	enum { N_CHILDREN = 4, N_ROUNDS = 5 };
	const struct place *p = *state;
	struct store *s = new_store(p);

	for (int round = 0; round < N_ROUNDS; round++) {
		int start[2], n_done = 0, n_refused = 0;
		pid_t children[N_CHILDREN];
		char code[STORE_CODE_BYTES];
		int64_t id;

		assert_int_equal(store_invite_create(s, 1, 0, NULL, NOW_S, code, &id), 0);
		assert_int_equal(pipe(start), 0);
		for (int i = 0; i < N_CHILDREN; i++) {
			children[i] = fork();
			if (children[i] == 0) {
				close(start[1]);
				use_invite_at_once(p, start[0], round * N_CHILDREN + i, code);
			}
		}
		close(start[0]);
		close(start[1]); /* all of them go */
		for (int i = 0; i < N_CHILDREN; i++) {
			int status;

			assert_int_equal(waitpid(children[i], &status, 0), children[i]);
			assert_true(WIFEXITED(status));
			n_done += WEXITSTATUS(status) == 0;
			n_refused += WEXITSTATUS(status) == 1;
		}
		assert_int_equal(n_done, 1);
		assert_int_equal(n_refused, N_CHILDREN - 1);
		assert_int_equal(count_users(s), round + 1);
	}
	store_close(s);
}

static void two_connections_of_one_process_share_an_invite_fairly(void **state)
{
	const struct place *p = *state;
	struct store *a = new_store(p), *b = open_store(p);
	char code[STORE_CODE_BYTES];
	int64_t id;

	assert_int_equal(store_invite_create(a, 1, 0, NULL, NOW_S, code, &id), 0);
	/* b has seen the invite, in an old snapshot as it were; a is first. */
	assert_int_equal(store_invite_check(b, code, NOW_S), 0);
	assert_int_equal(store_user_add_invited(a, "alice", PHC, code, NOW_S), 0);
	assert_int_equal(store_user_add_invited(b, "bob", PHC, code, NOW_S), STORE_INVITE_INVALID);
	assert_int_equal(count_users(b), 1);
	store_close(a);
	store_close(b);
}

/* ---- pins, certificates ---------------------------------------------------------------------- */

static void a_pin_stays_what_it_was_first(void **state)
{
	struct store *s = new_store(*state);
	static uint8_t cert[STORE_CERT_MAX_BYTES + 1] = { 0x30, 0x82 };
	static struct store_pin pin;

	assert_int_equal(store_pin_find(s, "b.test", &pin), STORE_NOT_FOUND);
	assert_int_equal(store_pin_add(s, "b.test", cert, STORE_CERT_MAX_BYTES, NOW_S), 0);
	assert_int_equal(store_pin_add(s, "b.test", "x", 1, NOW_S + 1), STORE_EXISTS);
	assert_int_equal(store_pin_add(s, "a.test", "abc", 3, NOW_S + 2), 0);
	assert_int_equal(store_pin_find(s, "b.test", &pin), 0);
	assert_int_equal(pin.cert_bytes, STORE_CERT_MAX_BYTES);
	assert_memory_equal(pin.cert, cert, STORE_CERT_MAX_BYTES);
	assert_int_equal(pin.first_seen_s, NOW_S);
	assert_int_equal(store_pin_next(s, "", &pin), 0);
	assert_string_equal(pin.domain, "a.test");
	assert_int_equal(store_pin_next(s, "a.test", &pin), 0);
	assert_string_equal(pin.domain, "b.test");
	assert_int_equal(store_pin_next(s, "b.test", &pin), STORE_NOT_FOUND);
	assert_int_equal(store_pin_remove(s, "b.test"), 0);
	assert_int_equal(store_pin_remove(s, "b.test"), STORE_NOT_FOUND);
	assert_int_equal(store_pin_add(s, "c.test", cert, sizeof(cert), NOW_S), -EINVAL);
	assert_int_equal(store_pin_add(s, "c.test", cert, 0, NOW_S), -EINVAL);
	assert_int_equal(store_pin_add(s, "", cert, 1, NOW_S), -EINVAL);
	store_close(s);
}

static void issued_certificates_are_known_and_revoked(void **state)
{
	struct store *s = new_store(*state);
	const uint8_t key1[32] = { 1 }, key2[32] = { 2 };
	struct store_cert cert;

	assert_int_equal(store_cert_status(s, "alice@example.com", key1), STORE_NOT_FOUND);
	assert_int_equal(store_cert_add(s, "alice@example.com", key1, NOW_S + 90, NOW_S), 0);
	assert_int_equal(store_cert_add(s, "alice@example.com", key2, NOW_S + 99, NOW_S), 0);
	assert_int_equal(store_cert_add(s, "bob@example.com", key1, NOW_S + 99, NOW_S), 0);
	assert_int_equal(store_cert_status(s, "alice@example.com", key1), 0);
	assert_int_equal(store_cert_revoke(s, "alice@example.com", key1, NOW_S + 1), 0);
	assert_int_equal(store_cert_status(s, "alice@example.com", key1), STORE_REVOKED);
	assert_int_equal(store_cert_status(s, "alice@example.com", key2), 0);
	assert_int_equal(store_cert_status(s, "bob@example.com", key1), 0);
	/* The same key, signed again, does not come back that way. */
	assert_int_equal(store_cert_add(s, "alice@example.com", key1, NOW_S + 200, NOW_S), 0);
	assert_int_equal(store_cert_status(s, "alice@example.com", key1), STORE_REVOKED);
	assert_int_equal(store_cert_revoke(s, "carol@example.com", NULL, NOW_S), STORE_NOT_FOUND);
	assert_int_equal(store_cert_next(s, "alice@example.com", 0, &cert), 0);
	assert_memory_equal(cert.spki_hash, key1, 32);
	assert_int_equal(cert.revoked_s, NOW_S + 1);
	assert_int_equal(cert.not_after_s, NOW_S + 90);
	assert_int_equal(store_cert_next(s, "alice@example.com", cert.id, &cert), 0);
	assert_memory_equal(cert.spki_hash, key2, 32);
	assert_int_equal(store_cert_next(s, NULL, cert.id, &cert), 0);
	assert_string_equal(cert.address, "bob@example.com");
	assert_int_equal(store_expire(s, NOW_S + 91), 0);
	assert_int_equal(store_cert_next(s, NULL, 0, &cert), 0);
	assert_memory_equal(cert.spki_hash, key2, 32);
	store_close(s);
}

static void the_certificates_of_a_removed_account_are_revoked(void **state)
{
	struct store *s = new_store(*state);
	const uint8_t key[32] = { 1 };

	assert_int_equal(store_user_add(s, "alice", PHC, NOW_S), 0);
	assert_int_equal(store_cert_add(s, "alice@example.com", key, NOW_S + 90, NOW_S), 0);
	assert_int_equal(store_user_remove(s, "alice", NOW_S), 0);
	assert_int_equal(store_cert_status(s, "alice@example.com", key), STORE_REVOKED);
	assert_int_equal(store_user_add(s, "alice", PHC, NOW_S), 0);
	assert_int_equal(store_cert_status(s, "alice@example.com", key), STORE_REVOKED);
	store_close(s);
}

/* ---- copies -----------------------------------------------------------------------------------
 */

static void a_backup_is_complete_and_can_be_put_back(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p), *other;
	char backup[128], path[256];
	struct buffer b;

	snprintf(backup, sizeof(backup), "%s/backup", p->dir);
	assert_int_equal(store_user_add(s, "alice", PHC, NOW_S), 0);
	assert_int_equal(store_meta_set(s, "key", "secret", 6), 0);
	/* Somebody else is in the middle of writing; the copy has what was committed. */
	other = open_store(p);
	assert_int_equal(store_begin(other), 0);
	assert_int_equal(store_meta_set(other, "key", "half", 4), 0);
	assert_int_equal(store_backup(s, backup), 0);
	assert_int_equal(store_end(other, -EIO), -EIO);
	store_close(other);
	assert_int_equal(store_backup(s, backup), STORE_EXISTS);
	store_close(s);

	assert_int_equal(store_restore(p->data, backup), STORE_EXISTS);
	file_in(p, "store.db", path);
	assert_int_equal(unlink(path), 0);
	/* A log that stayed behind must not be played into what is put back. */
	file_in(p, "store.db-wal", path);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(store_open(p->data, &s), STORE_LOST);
	assert_int_equal(store_restore(p->data, backup), 0);
	s = open_store(p);
	assert_int_equal(store_user_find(s, "alice", &(struct store_user){ 0 }), 0);
	buffer_init(&b, 64, true);
	assert_int_equal(store_meta_get(s, "key", &b), 0);
	assert_memory_equal(buffer_peek(&b), "secret", 6);
	buffer_fini(&b);
	assert_int_equal(store_check(s), 0);
	store_close(s);

	snprintf(path, sizeof(path), "%s/elsewhere", p->dir);
	assert_int_equal(store_restore(path, backup), 0);
	assert_int_equal(store_open(path, &s), 0);
	assert_string_equal(store_domain(s), "example.com");
	store_close(s);
}

static void a_backup_goes_nowhere_but_to_its_domain(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	char backup[128], other[128], path[256];
	uint8_t byte = 0;
	int fd;

	snprintf(backup, sizeof(backup), "%s/backup", p->dir);
	snprintf(other, sizeof(other), "%s/other", p->dir);
	assert_int_equal(store_backup(s, backup), 0);
	store_close(s);
	assert_int_equal(store_init(other, "other.test", NOW_S), 0);
	snprintf(path, sizeof(path), "%s/store.db", other);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(store_restore(other, backup), -EUCLEAN);
	assert_int_equal(store_open(other, &s), STORE_LOST);
	/* No backup at all, or one that was cut. */
	assert_int_equal(store_restore(other, "/nonexistent"), -ENOENT);
	assert_int_equal(truncate(backup, 5000), 0);
	assert_int_equal(store_restore(p->data, backup), -EUCLEAN);
	fd = open(backup, O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, &byte, 1), 1);
	close(fd);
	assert_int_equal(store_restore(p->data, backup), -EUCLEAN);
	snprintf(path, sizeof(path), "%s/none/backup", p->dir);
	s = open_store(p);
	assert_int_equal(store_backup(s, path), -ENOENT);
	store_close(s);
}

/* ---- misfortune ---------------------------------------------------------------------------------
 */

static void a_process_killed_inside_a_transaction_leaves_nothing(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	int ready[2], status;
	char byte;
	pid_t child;

	store_close(s);
	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		struct store *mine = NULL;

		if (store_open(p->data, &mine) != 0 || store_begin(mine) != 0 ||
		    store_user_add(mine, "half", PHC, NOW_S) != 0)
			_exit(1);
		for (int i = 0; i < 500; i++) {
			char name[32];

			snprintf(name, sizeof(name), "half%d", i);
			if (store_user_add(mine, name, PHC, NOW_S) != 0)
				_exit(1);
		}
		/* So that pages are in the log already. */
		sqlite3_db_cacheflush(mine->db);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	close(ready[0]);
	close(ready[1]);
	s = open_store(p);
	assert_int_equal(count_users(s), 0);
	assert_int_equal(store_check(s), 0);
	assert_int_equal(store_user_add(s, "whole", PHC, NOW_S), 0); /* no lock is left */
	store_close(s);
}

static void what_was_told_done_survives_a_kill_at_any_moment(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	uint32_t told = 0;

	store_close(s);
	for (int round = 0; round < 10; round++) {
		const uint32_t first = told;
		uint32_t number;
		int done[2];
		pid_t child;

		assert_int_equal(pipe(done), 0);
		child = fork();
		if (child == 0) {
			struct store *mine = NULL;
			char name[32];

			if (store_open(p->data, &mine) != 0)
				_exit(1);
			for (uint32_t i = first; i < first + 100000; i++) {
				snprintf(name, sizeof(name), "user%u", i);
				if (store_user_add(mine, name, PHC, NOW_S) < 0 ||
				    write(done[1], &i, sizeof(i)) != sizeof(i))
					_exit(1);
			}
			_exit(0);
		}
		close(done[1]);
		/* The kill comes after a few, and then wherever the child happens to be. */
		for (int i = 0; i <= round * 3; i++)
			if (read(done[0], &number, sizeof(number)) == sizeof(number))
				told = number + 1;
		kill(child, SIGKILL);
		while (read(done[0], &number, sizeof(number)) == sizeof(number))
			told = number + 1;
		assert_int_equal(waitpid(child, NULL, 0), child);
		close(done[0]);
		assert_true(told > first);
		s = open_store(p);
		assert_int_equal(store_check(s), 0);
		for (uint32_t i = 0; i < told; i++) {
			struct store_user user;
			char name[32];

			snprintf(name, sizeof(name), "user%u", i);
			assert_int_equal(store_user_find(s, name, &user), 0);
		}
		/* The one that was under way may be there as well, but no more. */
		assert_in_range(count_users(s), told, told + 1);
		told = (uint32_t)count_users(s);
		store_close(s);
	}
}

static void init_that_was_killed_half_way_can_be_repeated(void **state)
{
	const struct place *p = *state;
	struct store *s = NULL;
	char path[256];

	assert_int_equal(mkdir(p->data, 0700), 0);
	file_in(p, "store.db.new", path);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
	file_in(p, "store.db.new-journal", path);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
	assert_int_equal(store_open(p->data, &s), STORE_NOT_INITIALISED);
	s = new_store(p);
	assert_int_equal(access(path, F_OK), -1);
	store_close(s);
}

static void a_full_disk_is_told_and_changes_nothing(void **state)
{
	const struct place *p = *state;
	struct store *s = new_store(p);
	char code[STORE_CODE_BYTES], name[32];
	int64_t id;
	int n_added = 0, r;

	assert_int_equal(store_invite_create(s, 1000, 0, NULL, NOW_S, code, &id), 0);
	assert_int_equal(sqlite3_exec(s->db, "PRAGMA max_page_count = 14", NULL, NULL, NULL), 0);
	for (;;) {
		snprintf(name, sizeof(name), "user%d", n_added);
		r = store_user_add_invited(s, name, PHC, code, NOW_S);
		if (r != 0)
			break;
		assert_true(++n_added < 1000);
	}
	assert_int_equal(r, -ENOSPC);
	assert_true(strlen(store_error(s)) > 0);
	assert_int_equal(count_users(s), n_added);
	struct store_invite invite;
	assert_int_equal(store_invite_next(s, 0, &invite), 0);
	assert_int_equal(invite.n_used, n_added);
	assert_int_equal(sqlite3_exec(s->db, "PRAGMA max_page_count = 1000", NULL, NULL, NULL), 0);
	assert_int_equal(store_user_add_invited(s, name, PHC, code, NOW_S), 0);
	assert_int_equal(store_check(s), 0);
	store_close(s);
}

static void another_writer_that_holds_on_makes_us_busy_not_wrong(void **state)
{
	const struct place *p = *state;
	struct store *a = new_store(p), *b = open_store(p);

	sqlite3_busy_timeout(b->db, 1);
	assert_int_equal(store_begin(a), 0);
	assert_int_equal(store_user_add(a, "alice", PHC, NOW_S), 0);
	assert_int_equal(store_user_add(b, "bob", PHC, NOW_S), -EBUSY);
	assert_int_equal(store_pin_add(b, "b.test", "x", 1, NOW_S), -EBUSY);
	assert_int_equal(count_users(b), 0); /* reading goes on */
	assert_int_equal(store_end(a, 0), 0);
	assert_int_equal(store_user_add(b, "bob", PHC, NOW_S), 0);
	assert_int_equal(count_users(a), 2);
	store_close(a);
	store_close(b);
}

static void every_outcome_has_a_name(void **state)
{
	(void)state;
	for (int i = 0; i < STORE_OUTCOME_COUNT; i++)
		assert_string_not_equal(store_outcome_name((enum store_outcome)i), "?");
	assert_string_equal(store_outcome_name(STORE_OUTCOME_COUNT), "?");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_place_is_not_a_store),
		TEST(init_is_explicit_and_never_overwrites),
		TEST(init_and_restore_do_not_wait_for_a_server_to_end),
		TEST(a_lost_database_is_not_taken_for_a_new_start),
		TEST(files_are_for_their_owner_alone),
		TEST(the_marker_comes_back),
		TEST(a_damaged_or_foreign_database_is_told),
		TEST(a_later_version_is_left_alone),
		TEST(damage_inside_is_found_by_a_check),
		TEST(values_are_kept_by_name),
		TEST(accounts_are_added_found_changed_and_removed),
		TEST(names_are_bounded_and_never_sql),
		TEST(a_list_survives_changes_while_it_is_read),
		TEST(an_invite_makes_as_many_accounts_as_it_has_uses),
		TEST(a_code_is_read_as_people_type_it),
		TEST(invites_end_by_time_and_by_hand),
		TEST(codes_and_names_of_the_removed_are_not_left_in_the_file),
		TEST(a_one_use_invite_used_at_once_by_many_makes_one_account),
		TEST(two_connections_of_one_process_share_an_invite_fairly),
		TEST(a_pin_stays_what_it_was_first),
		TEST(issued_certificates_are_known_and_revoked),
		TEST(the_certificates_of_a_removed_account_are_revoked),
		TEST(a_backup_is_complete_and_can_be_put_back),
		TEST(a_backup_goes_nowhere_but_to_its_domain),
		TEST(a_process_killed_inside_a_transaction_leaves_nothing),
		TEST(what_was_told_done_survives_a_kill_at_any_moment),
		TEST(init_that_was_killed_half_way_can_be_repeated),
		TEST(a_full_disk_is_told_and_changes_nothing),
		TEST(another_writer_that_holds_on_makes_us_busy_not_wrong),
		cmocka_unit_test(every_outcome_has_a_name),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
