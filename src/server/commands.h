/*
 * commands - what q2q-server can be told to do, one function each. The table
 * that names them is in main.c.
 */
#ifndef SERVER_COMMANDS_H
#define SERVER_COMMANDS_H

#include "server/options.h"

#define COMMAND_ARGS_MAX 2

struct invocation {
	struct server_options options;
	const char *config_path; /* NULL: the default */
	const char *args[COMMAND_ARGS_MAX];
	size_t n_args;
	bool json;
	const char *password_file; /* "-": standard input; NULL: ask */
	uint64_t uses;
	uint64_t expires_s; /* 0: never */
	const char *note;
	int (*reload)(struct server_options *ret_fresh);
};

/* Each returns an exit code, and has said on standard error what failed. */
typedef int command_fn(struct invocation *in);

command_fn command_init, command_run, command_status, command_backup, command_restore,
	command_check;
command_fn command_user_add, command_user_list, command_user_show, command_user_passwd,
	command_user_disable, command_user_enable, command_user_remove, command_user_revoke;
command_fn command_invite_create, command_invite_list, command_invite_revoke;
command_fn command_pins_list, command_pins_forget;

/* "q2q-server: ..." on standard error. Returns exit_code. */
int complain(int exit_code, const char *format, ...) PRINTF_LIKE(2, 3);

/*
 * Reads a password from the file (its first line), or asks twice on the terminal. The text is
 * allocated; wipe and free it. 0, or an exit code after saying why.
 */
int password_read(const char *file, const char *prompt, char **ret_password);
void password_free(char *password); /* NULL is fine */

#endif
