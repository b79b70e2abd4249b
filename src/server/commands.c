/*
 * The commands of an operator. They work on the store directly, running server
 * or not (SQLite lets several processes in), and tell a running server what it
 * has to do at once: to close the sessions of an account that may no longer be
 * used.
 */
#include "server/commands.h"

#include "crypto/crypto.h"
#include "q2q/q2q.h"
#include "server/admin.h"
#include "server/domain.h"
#include "server/policy.h"
#include "server/privileges.h"
#include "server/server.h"

#include <inttypes.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int complain(int exit_code, const char *format, ...)
{
	va_list args;

	fputs("q2q-server: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return exit_code;
}

static int64_t wall_s(void)
{
	return (int64_t)time(NULL);
}

static int open_store(struct invocation *in, struct store **ret_store)
{
	struct domain_error error;

	if (domain_open_store(in->options.data_dir, ret_store, &error) == 0)
		return EXIT_DONE;
	return complain(error.exit_code, "%s", error.text);
}

/* The exit code for an outcome of the store, after saying what it means for `subject`. */
static int store_failed(struct store *s, int rc, const char *subject)
{
	switch (rc) {
	case STORE_NOT_FOUND:
		return complain(EXIT_NOT_FOUND, "%s: not found", subject);
	case STORE_EXISTS:
		return complain(EXIT_FAILED, "%s: exists already", subject);
	case -EBUSY:
		return complain(EXIT_TIMED_OUT, "%s: the store is busy; try again", subject);
	default:
		return complain(EXIT_FAILED, "%s: %s", subject,
				rc > 0 ? store_outcome_name((enum store_outcome)rc)
				       : store_error(s));
	}
}

/* ---- printing ---------------------------------------------------------------------------- */

static int print_json(json_t *document)
{
	if (!document)
		return complain(EXIT_FAILED, "out of memory");
	json_dumpf(document, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(document);
	return EXIT_DONE;
}

static const char *time_text(int64_t unix_s, const char *none, char out[static 32])
{
	struct tm tm;

	if (unix_s == 0 || !localtime_r(&unix_s, &tm) ||
	    strftime(out, 32, "%Y-%m-%d %H:%M", &tm) == 0)
		snprintf(out, 32, "%s", none);
	return out;
}

static struct libscols_table *new_table(const char *const *columns)
{
	struct libscols_table *table = scols_new_table();

	for (size_t i = 0; table && columns[i]; i++)
		scols_table_new_column(table, columns[i], 0.1, 0);
	return table;
}

static void add_line(struct libscols_table *table, const char *const *cells)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);

	for (size_t i = 0; line && cells[i]; i++)
		scols_line_set_data(line, i, cells[i]);
}

static int print_table(struct libscols_table *table)
{
	const int rc = scols_print_table(table);

	scols_unref_table(table);
	return rc == 0 ? EXIT_DONE : complain(EXIT_FAILED, "cannot print the table");
}

/*
 * What a walk through the store found, as the table or as JSON, once it ended by rc. Frees both. An
 * exit status.
 */
static int print_list(struct invocation *in, struct store *s, int rc, const char *what,
		      struct libscols_table *table, json_t *list)
{
	if (rc == STORE_NOT_FOUND && !in->json) {
		json_decref(list);
		return print_table(table);
	}
	scols_unref_table(table);
	if (rc == STORE_NOT_FOUND)
		return print_json(json_pack("{s:i, s:o}", "v", 1, what, list));
	json_decref(list);
	return store_failed(s, rc, what);
}

/* ---- init, run --------------------------------------------------------------------------------
 */

int command_init(struct invocation *in)
{
	const char *dir = in->options.data_dir;
	struct q2q_address domain;
	_cleanup_(freep) char *user = privileges_user(dir, in->options.user);
	struct domain_error error;
	struct domain d;
	char why[256];

	if (q2q_domain_parse(in->args[0], &domain) != 0)
		return complain(EXIT_USAGE, "\"%s\" is no domain name", in->args[0]);
	if (privileges_make_dir(dir, user, why, sizeof(why)) != 0 ||
	    privileges_drop(user, why, sizeof(why)) != 0)
		return complain(EXIT_FAILED, "%s", why);
	if (domain_init(dir, domain.text, wall_s(), &error) != 0 ||
	    domain_open(dir, &d, &error) != 0)
		return complain(error.exit_code, "%s", error.text);
	if (in->json) {
		print_json(json_pack("{s:i, s:s, s:s, s:s}", "v", 1, "domain", d.name,
				     "fingerprint", d.fingerprint, "data_dir", dir));
	} else {
		printf("Domain %s, key %s\n", d.name, d.fingerprint);
		printf("Tell your users this fingerprint: they are asked to compare it.\n"
		       "Next: let _q2q._tcp.%s (SRV), or %s itself, lead to this machine, then\n"
		       "  q2q-server --data-dir %s run\n"
		       "and keep a backup elsewhere: q2q-server --data-dir %s backup FILE\n",
		       d.name, d.name, dir, dir);
	}
	domain_close(&d);
	return EXIT_DONE;
}

int command_run(struct invocation *in)
{
	const struct log_config log = {
		.program = "q2q-server",
		.level = options_log_level(&in->options),
		.journal_prefix = getenv("JOURNAL_STREAM") != NULL,
	};

	log_setup(&log);
	return server_run(&in->options, in->reload);
}

/* ---- a running server ---------------------------------------------------------------------------
 */

static void tell_server(struct invocation *in, const char *name, const char *why)
{
	json_t *result = NULL;
	char text[256];
	const int rc = admin_request(in->options.data_dir, "disconnect",
				     json_pack("{s:s, s:s}", "name", name, "why", why), &result,
				     text, sizeof(text));

	if (rc != 0 && rc != -ENOENT)
		complain(EXIT_FAILED,
			 "the change is stored, but the running server was not reached (%s): open "
			 "sessions of %s stay until it is restarted",
			 text, name);
	json_decref(result);
}

static int status_stopped(struct invocation *in)
{
	struct domain_error error;
	struct domain d;
	uint64_t n_users = 0;
	int rc;

	if (domain_open(in->options.data_dir, &d, &error) != 0)
		return complain(error.exit_code, "%s", error.text);
	rc = store_user_count(d.store, &n_users);
	if (rc != 0)
		rc = store_failed(d.store, rc, "status");
	else if (in->json)
		print_json(json_pack("{s:i, s:b, s:s, s:s, s:I}", "v", 1, "running", 0, "domain",
				     d.name, "fingerprint", d.fingerprint, "users",
				     (json_int_t)n_users));
	else
		printf("domain        %s\nfingerprint   %s\nusers         %" PRIu64
		       "\nnot running\n",
		       d.name, d.fingerprint, n_users);
	domain_close(&d);
	return rc == 0 ? EXIT_NOT_RUNNING : rc;
}

static const char *text_of(json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static json_int_t number_of(json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static void print_status(json_t *o)
{
	json_t *item;
	size_t i;
	const json_int_t up_s = number_of(o, "uptime_s");

	printf("domain        %s\n", text_of(o, "domain"));
	printf("fingerprint   %s\n", text_of(o, "fingerprint"));
	printf("listening     ");
	json_array_foreach (json_object_get(o, "listen"), i, item) {
		printf("%s%s", i ? ", " : "", json_string_value(item));
	}
	printf("\nregistration  %s\n", text_of(o, "registration"));
	printf("uptime        %" JSON_INTEGER_FORMAT " d %02" JSON_INTEGER_FORMAT
	       ":%02" JSON_INTEGER_FORMAT ":%02" JSON_INTEGER_FORMAT "\n",
	       up_s / 86400, up_s / 3600 % 24, up_s / 60 % 60, up_s % 60);
	printf("users         %" JSON_INTEGER_FORMAT "\n", number_of(o, "users"));
	printf("connections   %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT " authorized\n",
	       number_of(o, "connections"), number_of(o, "authorized"));
	printf("rendezvous    %" JSON_INTEGER_FORMAT " open, %" JSON_INTEGER_FORMAT " in all\n",
	       number_of(o, "rendezvous"), number_of(o, "rendezvous_total"));
	printf("relayed       %" JSON_INTEGER_FORMAT " bytes\n", number_of(o, "relayed_bytes"));
	printf("online        %" JSON_INTEGER_FORMAT "\n", number_of(o, "n_online"));
	json_array_foreach (json_object_get(o, "online"), i, item) {
		printf("  %s  %s\n", text_of(item, "address"), text_of(item, "protocol"));
	}
}

int command_status(struct invocation *in)
{
	json_t *result = NULL;
	char why[256];
	const int rc =
		admin_request(in->options.data_dir, "status", NULL, &result, why, sizeof(why));

	if (rc == -ENOENT)
		return status_stopped(in);
	if (rc == -EACCES || rc == -EPERM)
		return complain(EXIT_DENIED,
				"%s: %s; run this as root or as the user of the server",
				in->options.data_dir, why);
	if (rc != 0)
		return complain(rc == -ETIMEDOUT ? EXIT_TIMED_OUT : EXIT_FAILED,
				"the running server does not tell its status: %s", why);
	if (in->json)
		return print_json(result);
	print_status(result);
	json_decref(result);
	return EXIT_DONE;
}

/* ---- users --------------------------------------------------------------------------------------
 */

/* Checks and hashes what password_read() gives. */
static int read_hash(struct invocation *in, const char *name,
		     char out[static CRYPTO_PASSWORD_TEXT_BYTES])
{
	char prompt[STORE_NAME_BYTES + 32], *password = NULL;
	const char *why;
	int rc;

	snprintf(prompt, sizeof(prompt), "Password for %s", name);
	rc = password_read(in->password_file, prompt, &password);
	if (rc != 0)
		return rc;
	why = policy_password_reason(password, strlen(password), name,
				     in->options.password_min_bytes);
	if (why)
		rc = complain(EXIT_USAGE, "%s", why);
	else if (crypto_password_hash(password, strlen(password), CRYPTO_PASSWORD_COST, out) != 0)
		rc = complain(EXIT_FAILED, "cannot hash the password");
	password_free(password);
	return rc;
}

/* Takes "alice" and "alice@example.com". */
static int parse_name(struct store *s, const char *text, struct q2q_address *ret_address)
{
	char full[Q2Q_ADDRESS_TEXT_BYTES];
	const char *at = strchr(text, '@');
	const int n = at ? snprintf(full, sizeof(full), "%s", text)
			 : snprintf(full, sizeof(full), "%s@%s", text, store_domain(s));

	if (n < 0 || (size_t)n >= sizeof(full) || q2q_user_parse(full, ret_address) != 0)
		return complain(EXIT_USAGE,
				"\"%s\" is no name for an account: up to 64 of a-z 0-9 . _ + -",
				text);
	if (strcmp(ret_address->domain, store_domain(s)) != 0)
		return complain(EXIT_USAGE, "%s is not of this domain, %s", text, store_domain(s));
	return EXIT_DONE;
}

typedef int with_user_fn(struct invocation *in, struct store *s, const struct q2q_address *user);

static int with_user(struct invocation *in, with_user_fn *fn)
{
	_cleanup_(store_closep) struct store *s = NULL;
	struct q2q_address user;
	int rc = open_store(in, &s);

	if (rc == EXIT_DONE)
		rc = parse_name(s, in->args[0], &user);
	return rc == EXIT_DONE ? fn(in, s, &user) : rc;
}

static int user_add(struct invocation *in, struct store *s, const struct q2q_address *user)
{
	char hash[CRYPTO_PASSWORD_TEXT_BYTES];
	struct store_user known;
	int rc = store_user_find(s, user->resource, &known);

	secret_wipe(&known, sizeof(known));
	if (rc == 0)
		return store_failed(s, STORE_EXISTS, user->text);
	rc = read_hash(in, user->resource, hash);
	if (rc != 0)
		return rc;
	rc = store_user_add(s, user->resource, hash, wall_s());
	secret_wipe(hash, sizeof(hash));
	return rc == 0 ? EXIT_DONE : store_failed(s, rc, user->text);
}

static int user_passwd(struct invocation *in, struct store *s, const struct q2q_address *user)
{
	char hash[CRYPTO_PASSWORD_TEXT_BYTES];
	struct store_user known;
	int rc = store_user_find(s, user->resource, &known);

	secret_wipe(&known, sizeof(known));
	if (rc != 0)
		return store_failed(s, rc, user->text);
	rc = read_hash(in, user->resource, hash);
	if (rc != 0)
		return rc;
	rc = store_user_set_password(s, user->resource, hash);
	secret_wipe(hash, sizeof(hash));
	return rc == 0 ? EXIT_DONE : store_failed(s, rc, user->text);
}

static int user_disable(struct invocation *in, struct store *s, const struct q2q_address *user)
{
	const int rc = store_user_set_disabled(s, user->resource, true);

	if (rc != 0)
		return store_failed(s, rc, user->text);
	tell_server(in, user->resource, "this account was disabled");
	return EXIT_DONE;
}

static int user_enable(struct invocation *in, struct store *s, const struct q2q_address *user)
{
	const int rc = store_user_set_disabled(s, user->resource, false);

	(void)in;
	return rc == 0 ? EXIT_DONE : store_failed(s, rc, user->text);
}

static int user_remove(struct invocation *in, struct store *s, const struct q2q_address *user)
{
	const int rc = store_user_remove(s, user->resource, wall_s());

	if (rc != 0)
		return store_failed(s, rc, user->text);
	tell_server(in, user->resource, "this account was removed");
	return EXIT_DONE;
}

/* For a machine that was lost: the account stays, whoever owns it authorizes again. */
static int user_revoke(struct invocation *in, struct store *s, const struct q2q_address *user)
{
	const int rc = store_cert_revoke(s, user->text, NULL, wall_s());

	if (rc != 0)
		return store_failed(s, rc, user->text);
	tell_server(in, user->resource, "the certificates of this account were revoked");
	return EXIT_DONE;
}

int command_user_revoke(struct invocation *in)
{
	return with_user(in, user_revoke);
}

int command_user_add(struct invocation *in)
{
	return with_user(in, user_add);
}

int command_user_passwd(struct invocation *in)
{
	return with_user(in, user_passwd);
}

int command_user_disable(struct invocation *in)
{
	return with_user(in, user_disable);
}

int command_user_enable(struct invocation *in)
{
	return with_user(in, user_enable);
}

int command_user_remove(struct invocation *in)
{
	return with_user(in, user_remove);
}

static json_t *user_json(struct store *s, const struct store_user *u)
{
	char address[STORE_ADDRESS_BYTES];

	snprintf(address, sizeof(address), "%s@%s", u->name, store_domain(s));
	return json_pack("{s:s, s:s, s:b, s:I, s:I, s:I}", "name", u->name, "address", address,
			 "disabled", u->disabled, "created", (json_int_t)u->created_s, "last_login",
			 (json_int_t)u->last_login_s, "logins", (json_int_t)u->n_logins);
}

int command_user_list(struct invocation *in)
{
	static const char *const columns[] = { "NAME", "STATE", "CREATED", "LAST LOGIN", NULL };
	_cleanup_(store_closep) struct store *s = NULL;
	struct store_user u = { .name = "" };
	struct libscols_table *table;
	json_t *list;
	int rc = open_store(in, &s);

	if (rc != EXIT_DONE)
		return rc;
	table = new_table(columns);
	list = json_array();
	while ((rc = store_user_next(s, u.name, &u)) == 0) {
		char created[32], login[32];

		add_line(table,
			 (const char *const[]){ u.name, u.disabled ? "disabled" : "active",
						time_text(u.created_s, "-", created),
						time_text(u.last_login_s, "never", login), NULL });
		if (in->json)
			json_array_append_new(list, user_json(s, &u));
	}
	secret_wipe(&u, sizeof(u));
	return print_list(in, s, rc, "users", table, list);
}

static json_t *cert_json(const struct store_cert *c)
{
	char fingerprint[CRYPTO_FINGERPRINT_BYTES];

	return json_pack("{s:s, s:I, s:I, s:I}", "fingerprint",
			 crypto_fingerprint(c->spki_hash, fingerprint), "issued",
			 (json_int_t)c->issued_s, "expires", (json_int_t)c->not_after_s, "revoked",
			 (json_int_t)c->revoked_s);
}

static void print_cert(const struct store_cert *c)
{
	char fingerprint[CRYPTO_FINGERPRINT_BYTES], issued[32], until[32];

	printf("certificate   %s, %s to %s%s\n", crypto_fingerprint(c->spki_hash, fingerprint),
	       time_text(c->issued_s, "-", issued), time_text(c->not_after_s, "-", until),
	       c->revoked_s ? ", revoked" : "");
}

static int user_show(struct invocation *in, struct store *s, const struct q2q_address *user)
{
	struct store_user u;
	struct store_cert c = { .id = 0 };
	char created[32], login[32];
	json_t *document, *certs = json_array();
	int rc = store_user_find(s, user->resource, &u);

	if (rc != 0) {
		json_decref(certs);
		return store_failed(s, rc, user->text);
	}
	document = user_json(s, &u);
	if (!in->json)
		printf("address       %s\nstate         %s\ncreated       %s\nlast login    %s "
		       "(%" PRIu64 " in all)\n",
		       user->text, u.disabled ? "disabled" : "active",
		       time_text(u.created_s, "-", created),
		       time_text(u.last_login_s, "never", login), u.n_logins);
	secret_wipe(&u, sizeof(u));
	while ((rc = store_cert_next(s, user->text, c.id, &c)) == 0) {
		json_array_append_new(certs, cert_json(&c));
		if (!in->json)
			print_cert(&c);
	}
	json_object_set_new(document, "certificates", certs);
	json_object_set_new(document, "v", json_integer(1));
	if (rc != STORE_NOT_FOUND) {
		json_decref(document);
		return store_failed(s, rc, user->text);
	}
	if (in->json)
		return print_json(document);
	json_decref(document);
	return EXIT_DONE;
}

int command_user_show(struct invocation *in)
{
	return with_user(in, user_show);
}

/* ---- invites
 * -------------------------------------------------------------------------------------- */

int command_invite_create(struct invocation *in)
{
	_cleanup_(store_closep) struct store *s = NULL;
	const int64_t now_s = wall_s();
	const int64_t expires_s = in->expires_s ? now_s + (int64_t)in->expires_s : 0;
	char code[STORE_CODE_BYTES], until[32];
	int64_t id;
	int rc = open_store(in, &s);

	if (rc != EXIT_DONE)
		return rc;
	rc = store_invite_create(s, (uint32_t)in->uses, expires_s, in->note, now_s, code, &id);
	if (rc != 0)
		return store_failed(s, rc, "invite");
	if (in->json)
		return print_json(json_pack(
			"{s:i, s:I, s:s, s:I, s:I}", "v", 1, "id", (json_int_t)id, "code", code,
			"uses", (json_int_t)in->uses, "expires", (json_int_t)expires_s));
	/* The code alone on standard output, for scripts. It is shown this once. */
	printf("%s\n", code);
	if (isatty(STDERR_FILENO))
		fprintf(stderr,
			"Good for %" PRIu64 " account(s), until %s. Its owner runs\n"
			"  q2q-tun register NAME@%s --invite %s\n",
			in->uses, time_text(expires_s, "it is revoked", until), store_domain(s),
			code);
	return EXIT_DONE;
}

int command_invite_list(struct invocation *in)
{
	static const char *const columns[] = { "ID",      "USES LEFT", "USED", "CREATED",
					       "EXPIRES", "NOTE",      NULL };
	_cleanup_(store_closep) struct store *s = NULL;
	struct store_invite i = { .id = 0 };
	struct libscols_table *table;
	json_t *list;
	int rc = open_store(in, &s);

	if (rc != EXIT_DONE)
		return rc;
	table = new_table(columns);
	list = json_array();
	while ((rc = store_invite_next(s, i.id, &i)) == 0) {
		char id[24], left[16], used[16], created[32], until[32];

		snprintf(id, sizeof(id), "%" PRId64, i.id);
		snprintf(left, sizeof(left), "%" PRIu32, i.n_uses_left);
		snprintf(used, sizeof(used), "%" PRIu32, i.n_used);
		add_line(table, (const char *const[]){
					id, left, used, time_text(i.created_s, "-", created),
					time_text(i.expires_s, "never", until), i.note, NULL });
		json_array_append_new(
			list, json_pack("{s:I, s:I, s:I, s:I, s:I, s:s}", "id", (json_int_t)i.id,
					"uses_left", (json_int_t)i.n_uses_left, "used",
					(json_int_t)i.n_used, "created", (json_int_t)i.created_s,
					"expires", (json_int_t)i.expires_s, "note", i.note));
	}
	return print_list(in, s, rc, "invites", table, list);
}

int command_invite_revoke(struct invocation *in)
{
	_cleanup_(store_closep) struct store *s = NULL;
	uint64_t id;
	int rc;

	if (parse_u64(in->args[0], INT64_MAX, &id) != 0)
		return complain(EXIT_USAGE, "\"%s\" is no number of an invite; see `invite list`",
				in->args[0]);
	rc = open_store(in, &s);
	if (rc != EXIT_DONE)
		return rc;
	rc = store_invite_revoke(s, (int64_t)id);
	return rc == 0 ? EXIT_DONE : store_failed(s, rc, in->args[0]);
}

/* ---- other domains
 * -------------------------------------------------------------------------------- */

int command_pins_list(struct invocation *in)
{
	static const char *const columns[] = { "DOMAIN", "FINGERPRINT", "FIRST SEEN", NULL };
	_cleanup_(store_closep) struct store *s = NULL;
	struct store_pin p = { .domain = "" };
	struct libscols_table *table;
	json_t *list;
	int rc = open_store(in, &s);

	if (rc != EXIT_DONE)
		return rc;
	table = new_table(columns);
	list = json_array();
	while ((rc = store_pin_next(s, p.domain, &p)) == 0) {
		_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
		char fingerprint[CRYPTO_FINGERPRINT_BYTES] = "unreadable", seen[32];

		if (crypto_cert_from_der(p.cert, p.cert_bytes, &cert) == 0)
			crypto_cert_fingerprint(cert, fingerprint);
		add_line(table,
			 (const char *const[]){ p.domain, fingerprint,
						time_text(p.first_seen_s, "-", seen), NULL });
		json_array_append_new(list, json_pack("{s:s, s:s, s:I}", "domain", p.domain,
						      "fingerprint", fingerprint, "first_seen",
						      (json_int_t)p.first_seen_s));
	}
	return print_list(in, s, rc, "pins", table, list);
}

int command_pins_forget(struct invocation *in)
{
	_cleanup_(store_closep) struct store *s = NULL;
	struct q2q_address domain;
	int rc = open_store(in, &s);

	if (rc != EXIT_DONE)
		return rc;
	if (q2q_domain_parse(in->args[0], &domain) != 0)
		return complain(EXIT_USAGE, "\"%s\" is no domain name", in->args[0]);
	rc = store_pin_remove(s, domain.text);
	return rc == 0 ? EXIT_DONE : store_failed(s, rc, domain.text);
}

/* ---- backup, restore, check
 * ------------------------------------------------------------------------ */

int command_backup(struct invocation *in)
{
	_cleanup_(store_closep) struct store *s = NULL;
	int rc = open_store(in, &s);

	if (rc != EXIT_DONE)
		return rc;
	rc = store_backup(s, in->args[0]);
	return rc == 0 ? EXIT_DONE : store_failed(s, rc, in->args[0]);
}

int command_restore(struct invocation *in)
{
	const char *dir = in->options.data_dir;
	_cleanup_(freep) char *user = privileges_user(dir, in->options.user);
	char why[256];
	int rc;

	if (privileges_make_dir(dir, user, why, sizeof(why)) != 0)
		return complain(EXIT_FAILED, "%s", why);
	rc = store_restore(dir, in->args[0]);
	switch (rc) {
	case 0:
		break;
	case STORE_EXISTS:
		return complain(EXIT_FAILED,
				"%s holds a database; a backup goes into an empty directory only. "
				"Move the old one away first",
				dir);
	case STORE_TOO_NEW:
		return complain(EXIT_FAILED, "%s was written by a later version", in->args[0]);
	case -EUCLEAN:
		return complain(EXIT_FAILED, "%s is no sound backup of this domain", in->args[0]);
	default:
		return complain(EXIT_FAILED, "cannot restore %s: %s", in->args[0],
				rc < 0 ? strerror(-rc)
				       : store_outcome_name((enum store_outcome)rc));
	}
	if (privileges_give_dir(dir, user, why, sizeof(why)) != 0)
		return complain(EXIT_FAILED, "%s", why);
	return EXIT_DONE;
}

/* What would keep a server from working, most basic first. */
int command_check(struct invocation *in)
{
	const int64_t now_s = wall_s();
	struct domain_error error;
	struct domain d;
	int reason, rc;

	if (domain_open(in->options.data_dir, &d, &error) != 0)
		return complain(error.exit_code, "%s", error.text);
	rc = store_check(d.store);
	reason = crypto_cert_check(d.cert, d.name, now_s);
	if (rc != 0)
		rc = complain(EXIT_FAILED, "the database is damaged: %s. Restore the last backup",
			      store_error(d.store));
	else if (reason > 0)
		rc = complain(EXIT_TRUST, "the certificate of %s: %s", d.name,
			      crypto_verify_text((enum crypto_verify)reason));
	else if (reason < 0 || !crypto_cert_is_self_signed(d.cert))
		rc = complain(EXIT_TRUST, "the certificate of %s is not its own", d.name);
	else
		printf("%s: database sound, certificate good for %" PRId64 " days, key %s\n",
		       d.name, (crypto_cert_not_after_s(d.cert) - now_s) / 86400, d.fingerprint);
	domain_close(&d);
	return rc;
}
