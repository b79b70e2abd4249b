/* The commands, one row each. doc/control.md describes the requests behind them. */
#include "cli/cli.h"

#include <stdio.h>
#include <unistd.h>

/* ---- completing the arguments -------------------------------------------------- */

static int set_text(json_t *args, const char *key, const char *text)
{
	if (json_object_set_new(args, key, json_string(text)) == 0)
		return CLI_OK;
	cli_complain("the %s is not valid UTF-8 text", key);
	return CLI_USAGE;
}

/* Asks twice, so that a slip of the finger does not become the password. */
static int prompt_new_password(const char *address, char password[static CLI_SECRET_MAX_BYTES])
{
	char question[600], again[CLI_SECRET_MAX_BYTES];
	bool same;

	snprintf(question, sizeof(question), "New password for %s: ", address);
	if (cli_prompt_secret(question, password) < 0 ||
	    cli_prompt_secret("The same again: ", again) < 0)
		return -ENOTTY;
	same = strcmp(password, again) == 0;
	secret_wipe(again, sizeof(again));
	if (same)
		return 0;
	cli_complain("the two passwords differ");
	return -EINVAL;
}

static int prompt_password(const char *address, bool is_new,
			   char password[static CLI_SECRET_MAX_BYTES])
{
	char question[600];
	int r;

	snprintf(question, sizeof(question), "Password for %s: ", address);
	r = is_new ? prompt_new_password(address, password) : cli_prompt_secret(question, password);
	if (r == -ENOTTY)
		cli_complain("a password is needed, and there is no terminal to ask for it. Use "
			     "--password-file FILE.");
	else if (r < 0 && r != -EINVAL)
		cli_complain("no password was given");
	return r;
}

static int password_into_args(struct cli_call *call, bool is_new)
{
	const char *file = json_string_value(json_object_get(call->local, "password-file"));
	const char *address = json_string_value(json_object_get(call->args, "address"));
	char password[CLI_SECRET_MAX_BYTES];
	int r;

	if (json_object_get(call->args, "password")) {
		cli_complain("warning: a password on the command line is visible to other users; "
			     "--password-file or the prompt is safer");
		return CLI_OK;
	}
	r = file ? cli_read_secret_file(file, password)
		 : prompt_password(address ? address : "?", is_new, password);
	if (r < 0)
		return CLI_USAGE;
	r = set_text(call->args, "password", password);
	secret_wipe(password, sizeof(password));
	return r;
}

static int prepare_doctor(struct cli_call *call)
{
	call->amend = cli_doctor_amend;
	return CLI_OK;
}

static int prepare_register(struct cli_call *call)
{
	json_object_set_new(call->args, "authorize",
			    json_boolean(!json_object_get(call->local, "no-authorize")));
	return password_into_args(call, true);
}

static int prepare_authorize(struct cli_call *call)
{
	return password_into_args(call, false);
}

static int prepare_down(struct cli_call *call)
{
	const bool all = json_object_get(call->args, "all") != NULL;

	if (all != (json_object_get(call->args, "address") != NULL))
		return CLI_OK;
	cli_complain("down takes either an ADDRESS or --all");
	return CLI_USAGE;
}

static int prepare_wait(struct cli_call *call)
{
	if (call->globals->timeout_s > 0 && !json_object_get(call->args, "timeout_s"))
		json_object_set_new(call->args, "timeout_s",
				    json_integer((json_int_t)call->globals->timeout_s));
	return CLI_OK;
}

static int prepare_import(struct cli_call *call)
{
	const char *path = json_string_value(json_object_get(call->args, "file"));
	char *pem = calloc(1, CLI_LINE_MAX_BYTES / 4);
	size_t n_bytes;
	FILE *file;
	int r;

	if (!pem)
		return CLI_FAILED;
	file = fopen(path, "re");
	if (!file) {
		cli_complain("cannot open %s: %s", path, strerror(errno));
		free(pem);
		return CLI_FAILED;
	}
	n_bytes = fread(pem, 1, CLI_LINE_MAX_BYTES / 4 - 1, file);
	fclose(file);
	json_object_del(call->args, "file");
	r = set_text(call->args, "pem", pem);
	secret_wipe(pem, n_bytes);
	free(pem);
	return r;
}

static int say_done(struct cli_call *call, const json_t *result)
{
	const char *message = json_string_value(json_object_get(result, "message"));

	(void)call;
	if (message && isatty(STDOUT_FILENO))
		printf("%s\n", message);
	return CLI_OK;
}

/* ---- the table ------------------------------------------------------------------- */

#define YES                                                                                        \
	{                                                                                          \
		"yes", 'y', CLI_FLAG, "yes", NULL,                                                 \
			"Trust a server or peer that is not known yet without asking", NULL        \
	}
#define SERVER                                                                                     \
	{                                                                                          \
		"server", 's', CLI_STRING, "server", "HOST[:PORT]",                                \
			"Where the identity server is, instead of what DNS says", NULL             \
	}
#define PASSWORD_FILE                                                                              \
	{                                                                                          \
		"password-file", 'p', CLI_STRING, NULL, "FILE",                                    \
			"Read the password from the first line of FILE (- is standard input)",     \
			NULL                                                                       \
	}
#define END                                                                                        \
	{                                                                                          \
		0                                                                                  \
	}

static const struct cli_param register_params[] = {
	PASSWORD_FILE,
	{ "invite", 'i', CLI_STRING, "invite", "CODE", "The invitation the server asks for", NULL },
	{ "no-authorize", 'n', CLI_FLAG, NULL, NULL,
	  "Make the account alone; get no certificate for this machine", NULL },
	SERVER,
	YES,
	END,
};
static const struct cli_param authorize_params[] = { PASSWORD_FILE, SERVER, YES, END };
static const struct cli_param up_params[] = {
	{ "wait", 'w', CLI_SECONDS, "wait_s", "S",
	  "Wait S seconds for the tunnel (default 15; 0: do not wait)", NULL },
	{ "path", 'P', CLI_CHOICE, "path", "KIND", "auto, direct, relay or lan",
	  "auto|direct|relay|lan" },
	YES,
	END,
};
static const struct cli_param down_params[] = {
	{ "all", 'a', CLI_FLAG, "all", NULL, "Every peer", NULL },
	END,
};
static const struct cli_param wait_params[] = {
	{ "direct", 'd', CLI_FLAG, "direct", NULL, "Wait for a direct path, not just any", NULL },
	{ "timeout", 't', CLI_SECONDS, "timeout_s", "S", "Give up after S seconds (default 30)",
	  NULL },
	END,
};
static const struct cli_param status_params[] = {
	{ "watch", 'w', CLI_FLAG, NULL, NULL, "Show it again every second", NULL },
	END,
};
static const struct cli_param doctor_params[] = {
	{ "bundle", 'b', CLI_STRING, NULL, "FILE",
	  "Also write everything and the log to FILE, without names and public addresses", NULL },
	END,
};
static const struct cli_param ping_params[] = {
	{ "count", 'c', CLI_COUNT, "count", "N", "Stop after N (default 4; 0: go on until stopped)",
	  NULL },
	{ "interval", 'i', CLI_MILLIS, "interval_ms", "S", "Seconds between two (default 1)",
	  NULL },
	{ "size", 's', CLI_COUNT, "size", "BYTES", "Padding in each", NULL },
	{ "until-direct", 'd', CLI_FLAG, "until_direct", NULL, "Stop as soon as the path is direct",
	  NULL },
	END,
};
static const struct cli_param allow_params[] = {
	{ "for", 'f', CLI_SECONDS, "for_s", "TIME", "Only for this long (30m, 1h, 7d)", NULL },
	YES,
	END,
};
static const struct cli_param log_params[] = {
	{ "follow", 'f', CLI_FLAG, "follow", NULL, "Go on with new lines as they come", NULL },
	{ "lines", 'n', CLI_COUNT, "lines", "N", "Start N lines back (default 50)", NULL },
	END,
};

/* clang-format off */
const struct cli_command cli_commands[] = {
	{ "register", "address password?", "register", register_params,
	  "Make an account at the address's server, and authorize this machine",
	  prepare_register, NULL, cli_show_identity },
	{ "authorize", "address password?", "authorize", authorize_params,
	  "Get this machine's certificate for an address",
	  prepare_authorize, NULL, cli_show_identity },
	{ "up", "address", "up", up_params,
	  "Bring up the tunnel to a peer, and keep it up",
	  NULL, NULL, cli_show_link },
	{ "down", "address?", "down", down_params,
	  "Take the tunnel to a peer down",
	  prepare_down, NULL, say_done },
	{ "wait", "address", "wait", wait_params,
	  "Wait until the tunnel to a peer is up",
	  prepare_wait, NULL, cli_show_link },
	{ "status", "address?", "status", status_params,
	  "Show this machine and its tunnels",
	  NULL, NULL, cli_show_status },
	{ "doctor", "address?", "doctor", doctor_params,
	  "Explain why a tunnel goes the way it goes, and what is wrong here",
	  prepare_doctor, NULL, cli_show_doctor },
	{ "ping", "address", "ping", ping_params,
	  "Measure the round trip to a peer inside the tunnel",
	  NULL, cli_show_pong, cli_show_ping_summary },
	{ "peers", "", "peers", NULL,
	  "List the peers that this machine knows",
	  NULL, NULL, cli_show_peers },
	{ "peers list", "", "peers", NULL,
	  "The same",
	  NULL, NULL, cli_show_peers },
	{ "peers forget", "address", "peers-forget", NULL,
	  "Forget a peer: its key, and that it is allowed",
	  NULL, NULL, say_done },
	{ "peers pin", "address fingerprint", "peers-pin", NULL,
	  "Accept the key with this fingerprint as a peer's or a server's (DOMAIN) new key",
	  NULL, NULL, say_done },
	{ "allow", "address", "allow", allow_params,
	  "Let a peer connect to this machine",
	  NULL, NULL, say_done },
	{ "deny", "address", "deny", NULL,
	  "Stop letting a peer connect, and forget that it asked",
	  NULL, NULL, say_done },
	{ "requests", "", "requests", NULL,
	  "List who asked to connect and is not allowed yet",
	  NULL, NULL, cli_show_requests },
	{ "identity", "", "identity-list", NULL,
	  "List this machine's identities",
	  NULL, NULL, cli_show_identities },
	{ "identity list", "", "identity-list", NULL,
	  "The same",
	  NULL, NULL, cli_show_identities },
	{ "identity show", "address?", "identity-show", NULL,
	  "Show one identity",
	  NULL, NULL, cli_show_identity },
	{ "identity default", "address", "identity-default", NULL,
	  "Act as this identity unless --as says otherwise",
	  NULL, NULL, say_done },
	{ "identity rotate", "address", "identity-rotate", authorize_params,
	  "Make a new key for an identity; peers that pinned the old one are asked",
	  prepare_authorize, NULL, cli_show_identity },
	{ "identity export", "address", "identity-export", NULL,
	  "Print certificate and private key (keep it secret)",
	  NULL, NULL, cli_show_pem },
	{ "identity import", "file", "identity-import", NULL,
	  "Take a certificate and private key from a file",
	  prepare_import, NULL, cli_show_identity },
	{ "log", "", "log", log_params,
	  "Show what the daemon logged",
	  NULL, cli_show_log_line, NULL },
	{ 0 },
};
/* clang-format on */
