/*
 * cli - the command line of users. It holds no logic of its own: each command
 * is a row in a table that says which words become which argument of which
 * request to the daemon (doc/control.md), and how the answer is shown.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/base.h"

#include <jansson.h>

#define CLI_LINE_MAX_BYTES   ((1u << 21) + 1) /* one JSON line from the daemon */
#define CLI_SECRET_MAX_BYTES 1024
#define CLI_POSITIONALS_MAX  3

/* Stable; q2q-tun(1) lists them. */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_NOT_FOUND = 3,
	CLI_DENIED = 4,
	CLI_TIMED_OUT = 5,
	CLI_OFFLINE = 6,
	CLI_TRUST = 7,
	CLI_RELAYED = 8,
	CLI_NO_DAEMON = 9,
	CLI_EXIT_COUNT
};

enum cli_param_kind {
	CLI_FLAG,    /* present: true */
	CLI_STRING,  /* as it stands */
	CLI_COUNT,   /* a whole number */
	CLI_SECONDS, /* "90", "90s", "15m", "2h", "7d": a number of seconds */
	CLI_MILLIS,  /* seconds with a fraction, sent as milliseconds */
	CLI_CHOICE,  /* one of the words in `choices` */
};

struct cli_param {
	const char *name; /* long option */
	char letter;      /* short option, or 0 */
	enum cli_param_kind kind;
	const char *key;      /* in the request's "args"; NULL: for the command line alone */
	const char *argument; /* shown in --help; NULL for flags */
	const char *doc;
	const char *choices; /* "a|b|c" for CLI_CHOICE */
};

struct cli_globals {
	const char *control_path;
	bool json;
	const char *as;     /* identity to act as; NULL: the default one */
	uint64_t timeout_s; /* 0: none */
};

struct cli_call; /* one command line, parsed */

struct cli_command {
	const char *name;        /* "peers pin" has a space: two words */
	const char *positionals; /* "address" "password?" separated by spaces; '?' optional */
	const char *request;     /* the daemon's command; NULL: `prepare` decides */
	const struct cli_param *params; /* ends with a NULL name */
	const char *doc;
	/* Completes `args` (prompts for a secret, checks combinations); 0 or an exit code. */
	int (*prepare)(struct cli_call *call);
	/* Shows one event of a command that follows something. */
	void (*event)(struct cli_call *call, const json_t *event);
	/* Shows the result and gives the exit code. NULL: silent success. */
	int (*result)(struct cli_call *call, const json_t *result);
};

struct cli_call {
	const struct cli_globals *globals;
	const struct cli_command *command;
	const char *request; /* what goes into "cmd" */
	json_t *args;        /* what goes into "args" */
	json_t *local;       /* options without a key, by their long name */
	/* Adds to the result what only the command line can find out; an exit code. May be NULL. */
	int (*amend)(struct cli_call *call, json_t *result);
};

extern const struct cli_command cli_commands[]; /* ends with a NULL name */

/* Sends the request, serves questions and progress, shows the answer. An exit code. */
int cli_client_run(struct cli_call *call);
/* The same without showing anything; *ret_result is owned by the caller. An exit code. */
int cli_client_fetch(struct cli_call *call, json_t **ret_result);

/* Complains as "q2q-tun: ..." on standard error. */
void cli_complain(const char *format, ...) PRINTF_LIKE(1, 2);

/* prompt.c: all of them talk to the terminal, never to standard input or output. */
bool cli_can_prompt(void);
/* Reads a line without echo; 0, -ENOTTY without a terminal, -EMSGSIZE, -EIO. Wipe it after use. */
int cli_prompt_secret(const char *prompt, char out[static CLI_SECRET_MAX_BYTES]);
/* The same with echo, for answers. */
int cli_prompt_line(const char *prompt, char *out, size_t out_bytes);
/* The first line of a file; "-" is standard input. 0 or -errno, complained about. */
int cli_read_secret_file(const char *path, char out[static CLI_SECRET_MAX_BYTES]);

/* show.c: what people see */
int cli_show_status(struct cli_call *call, const json_t *result);
int cli_show_link(struct cli_call *call, const json_t *result);
int cli_show_peers(struct cli_call *call, const json_t *result);
int cli_show_requests(struct cli_call *call, const json_t *result);
int cli_show_identities(struct cli_call *call, const json_t *result);
int cli_show_identity(struct cli_call *call, const json_t *result);
int cli_show_pem(struct cli_call *call, const json_t *result);
void cli_show_pong(struct cli_call *call, const json_t *event);
int cli_show_ping_summary(struct cli_call *call, const json_t *result);
void cli_show_log_line(struct cli_call *call, const json_t *event);
int cli_show_pairs(const json_t *peer);
/* What became of the port that the router was asked for. False: nothing is known of it. */
bool cli_port_mapping_text(const json_t *mapping, char *out, size_t out_bytes);

/* doctor.c: the page; doctor_firewall.c: rules of this machine; doctor_bundle.c: for a report */
int cli_show_doctor(struct cli_call *call, const json_t *result);
int cli_doctor_amend(struct cli_call *call, json_t *result);
/* Adds findings about rules that drop our packets, as far as this user may read them. */
void cli_doctor_firewall(json_t *result);
/* Writes the document and the daemon's log, without names, public addresses and keys. */
int cli_doctor_bundle(struct cli_call *call, const json_t *result, const char *file);

#endif
