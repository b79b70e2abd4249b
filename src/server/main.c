/*
 * q2q-server: command line. One set of options, and a table of commands that
 * says which of them each one takes.
 */
#include "config.h"

#include "server/commands.h"
#include "server/policy.h"

#include <argp.h>
#include <stdio.h>
#include <unistd.h>

const char *argp_program_version = "q2q-server " PACKAGE_VERSION;

enum option_key {
	KEY_CONFIG = 'c',
	KEY_DATA_DIR = 'd',
	KEY_LISTEN = 'l',
	KEY_REGISTRATION = 'r',
	KEY_PUBLIC_ADDRESS = 'a',
	KEY_JSON = 'j',
	KEY_USER = 0x100,
	KEY_FEDERATION_PRIVATE,
	KEY_LOG_LEVEL,
	KEY_PASSWORD_FILE,
	KEY_USES,
	KEY_EXPIRES,
	KEY_NOTE,
};

/* Options that only some commands take. */
enum { TAKES_JSON = 1, TAKES_PASSWORD = 2, TAKES_INVITE = 4 };

static const struct argp_option options[] = {
	{ "config", KEY_CONFIG, "FILE", 0, "Configuration file [" SERVER_CONFIG_PATH "]", 1 },
	{ "data-dir", KEY_DATA_DIR, "DIR", 0, "Where everything is kept [" SERVER_DATA_DIR "]", 1 },
	{ "listen", KEY_LISTEN, "ADDR:PORT", 0,
	  "Listen there, TCP and UDP; may be given again [[::]:8788]", 1 },
	{ "registration", KEY_REGISTRATION, "open|invite|closed", 0,
	  "Who may register an account [invite]", 1 },
	{ "public-address", KEY_PUBLIC_ADDRESS, "HOST", 0, "How clients reach this server", 1 },
	{ "user", KEY_USER, "NAME", 0, "Become this user when started by root", 1 },
	{ "federation-private", KEY_FEDERATION_PRIVATE, "yes|no", 0,
	  "Let servers of other domains have private addresses [no]", 1 },
	{ "log-level", KEY_LOG_LEVEL, "LEVEL", 0, "error, warning, notice, info or debug [info]",
	  1 },
	{ "json", KEY_JSON, NULL, 0, "init, list, show, create, status: print JSON", 2 },
	{ "password-file", KEY_PASSWORD_FILE, "FILE", 0,
	  "user add, passwd: first line of FILE, - is standard input", 2 },
	{ "uses", KEY_USES, "N", 0, "invite create: good for N accounts [1]", 2 },
	{ "expires", KEY_EXPIRES, "TIME", 0, "invite create: 12h, 7d, never ... [7d]", 2 },
	{ "note", KEY_NOTE, "TEXT", 0, "invite create: who it is for", 2 },
	{ NULL },
};

static const struct command {
	const char *first, *second; /* words */
	size_t n_args;
	unsigned takes;
	command_fn *fn;
} commands[] = {
	{ "init", NULL, 1, TAKES_JSON, command_init },
	{ "run", NULL, 0, 0, command_run },
	{ "status", NULL, 0, TAKES_JSON, command_status },
	{ "check", NULL, 0, 0, command_check },
	{ "backup", NULL, 1, 0, command_backup },
	{ "restore", NULL, 1, 0, command_restore },
	{ "user", "add", 1, TAKES_PASSWORD, command_user_add },
	{ "user", "list", 0, TAKES_JSON, command_user_list },
	{ "user", "show", 1, TAKES_JSON, command_user_show },
	{ "user", "passwd", 1, TAKES_PASSWORD, command_user_passwd },
	{ "user", "disable", 1, 0, command_user_disable },
	{ "user", "enable", 1, 0, command_user_enable },
	{ "user", "remove", 1, 0, command_user_remove },
	{ "user", "revoke", 1, 0, command_user_revoke },
	{ "invite", "create", 0, TAKES_JSON | TAKES_INVITE, command_invite_create },
	{ "invite", "list", 0, TAKES_JSON, command_invite_list },
	{ "invite", "revoke", 1, 0, command_invite_revoke },
	{ "pins", "list", 0, TAKES_JSON, command_pins_list },
	{ "pins", "forget", 1, 0, command_pins_forget },
};

#define WORDS_MAX (2 + COMMAND_ARGS_MAX)

/* What the command line says; it goes over what the configuration says. */
static struct {
	struct conf_list listen;
	const char *config_path, *data_dir, *public_address, *user;
	int registration, log_level, federation_private; /* -1: not given */
	const char *words[WORDS_MAX];
	size_t n_words;
	unsigned given; /* TAKES_* */
	struct invocation in;
} line = { .registration = -1, .log_level = -1, .federation_private = -1 };

static int parse_yes_no(const char *text)
{
	if (strcmp(text, "yes") == 0)
		return 1;
	return strcmp(text, "no") == 0 ? 0 : -1;
}

static void parse_invite_option(int key, const char *arg, struct argp_state *state)
{
	line.given |= TAKES_INVITE;
	if (key == KEY_NOTE)
		line.in.note = arg;
	else if (key == KEY_USES && (parse_u64(arg, 100000, &line.in.uses) != 0 || !line.in.uses))
		argp_error(state, "--uses takes a number from 1 to 100000");
	else if (key == KEY_EXPIRES && policy_duration_parse(arg, &line.in.expires_s) != 0)
		argp_error(state, "--expires takes a time such as 12h or 7d, or never");
}

static void parse_listen(char *arg, struct argp_state *state)
{
	if (line.listen.n_items == SERVER_LISTEN_MAX)
		argp_error(state, "more than %d --listen", SERVER_LISTEN_MAX);
	line.listen.items[line.listen.n_items++] = arg;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case KEY_CONFIG:
		line.config_path = arg;
		return 0;
	case KEY_DATA_DIR:
		line.data_dir = arg;
		return 0;
	case KEY_LISTEN:
		parse_listen(arg, state);
		return 0;
	case KEY_REGISTRATION:
		if (registration_parse(arg, &line.registration) != 0)
			argp_error(state, "--registration takes open, invite or closed");
		return 0;
	case KEY_PUBLIC_ADDRESS:
		line.public_address = arg;
		return 0;
	case KEY_USER:
		line.user = arg;
		return 0;
	case KEY_FEDERATION_PRIVATE:
		line.federation_private = parse_yes_no(arg);
		if (line.federation_private < 0)
			argp_error(state, "--federation-private takes yes or no");
		return 0;
	case KEY_LOG_LEVEL:
		if (log_level_parse(arg, &line.log_level) != 0)
			argp_error(state,
				   "--log-level takes error, warning, notice, info or debug");
		return 0;
	case KEY_JSON:
		line.given |= TAKES_JSON;
		line.in.json = true;
		return 0;
	case KEY_PASSWORD_FILE:
		line.given |= TAKES_PASSWORD;
		line.in.password_file = arg;
		return 0;
	case KEY_USES:
	case KEY_EXPIRES:
	case KEY_NOTE:
		parse_invite_option(key, arg, state);
		return 0;
	case ARGP_KEY_ARG:
		if (line.n_words == WORDS_MAX)
			argp_error(state, "too many arguments");
		line.words[line.n_words++] = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse_option,
	.args_doc = "init DOMAIN\nrun\nstatus\ncheck\nbackup FILE\nrestore FILE\n"
		    "user add|show|passwd|disable|enable|remove|revoke NAME\nuser list\n"
		    "invite create|list\ninvite revoke ID\npins list\npins forget DOMAIN",
	.doc = "Identity server of a Q2Q domain: accounts, certificates, presence, "
	       "rendezvous, STUN and relay.\v"
	       "See q2q-server(8).",
};

static const struct command *find_command(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *c = &commands[i];

		if (line.n_words < (c->second ? 2 : 1) || strcmp(c->first, line.words[0]) != 0)
			continue;
		if (!c->second || strcmp(c->second, line.words[1]) == 0)
			return c;
	}
	return NULL;
}

static int set_texts(struct server_options *o)
{
	int rc = 0;

	if (line.data_dir)
		rc = options_set_text(&o->data_dir, line.data_dir);
	if (rc == 0 && line.public_address)
		rc = options_set_text(&o->public_address, line.public_address);
	if (rc == 0 && line.user)
		rc = options_set_text(&o->user, line.user);
	return rc;
}

static int set_listen(struct server_options *o)
{
	if (line.listen.n_items == 0)
		return 0;
	for (size_t i = 0; i < o->listen.n_items; i++)
		free(o->listen.items[i]);
	o->listen.n_items = 0;
	for (size_t i = 0; i < line.listen.n_items; i++) {
		char *copy = strdup(line.listen.items[i]);

		if (!copy)
			return -ENOMEM;
		o->listen.items[o->listen.n_items++] = copy;
	}
	return 0;
}

/* Defaults, then the file, then the command line. 0 or an exit code. */
static int load_options(struct server_options *o)
{
	struct conf_error error;
	char why[256];
	int rc = options_init(o);

	if (rc == 0) {
		rc = options_load(o, line.config_path, &error);
		if (rc != 0)
			return complain(EXIT_USAGE, "%s", error.text);
		rc = set_texts(o);
	}
	if (rc == 0)
		rc = set_listen(o);
	if (rc != 0)
		return complain(EXIT_FAILED, "%s", strerror(-rc));
	if (line.registration >= 0)
		o->registration = line.registration;
	if (line.log_level >= 0)
		o->log_level = line.log_level;
	if (line.federation_private >= 0)
		o->federation_private = line.federation_private;
	if (options_finish(o, why, sizeof(why)) != 0)
		return complain(EXIT_USAGE, "%s", why);
	return EXIT_DONE;
}

static int reload(struct server_options *ret_fresh)
{
	return load_options(ret_fresh) == EXIT_DONE ? 0 : -EINVAL;
}

static int dispatch(const struct command *c)
{
	const size_t n_words = c->second ? 2 : 1;

	line.in.n_args = line.n_words - n_words;
	if (line.in.n_args != c->n_args)
		return complain(EXIT_USAGE, "`%s%s%s` takes %zu argument%s; see --help", c->first,
				c->second ? " " : "", c->second ? c->second : "", c->n_args,
				c->n_args == 1 ? "" : "s");
	if (line.given & ~c->takes)
		return complain(EXIT_USAGE,
				"`%s%s%s` does not take one of these options; see --help", c->first,
				c->second ? " " : "", c->second ? c->second : "");
	for (size_t i = 0; i < c->n_args; i++)
		line.in.args[i] = line.words[n_words + i];
	return c->fn(&line.in);
}

int main(int argc, char **argv)
{
	const struct command *c;
	int rc;

	argp_err_exit_status = EXIT_USAGE;
	line.in.uses = 1;
	line.in.expires_s = 7 * 86400;
	line.in.reload = reload;
	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	c = find_command();
	if (!c) {
		if (line.n_words > 0)
			complain(EXIT_USAGE, "there is no command \"%s%s%s\"", line.words[0],
				 line.n_words > 1 ? " " : "",
				 line.n_words > 1 ? line.words[1] : "");
		argp_help(&argp, stderr, ARGP_HELP_SHORT_USAGE, argv[0]);
		return EXIT_USAGE;
	}
	rc = load_options(&line.in.options);
	if (rc == EXIT_DONE)
		rc = dispatch(c);
	options_fini(&line.in.options);
	return rc;
}
