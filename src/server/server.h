/*
 * server - the identity server of a domain, as the program q2q-server runs it.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "server/options.h"

/*
 * Runs until a signal ends it; the exit code. reload reads the configuration again (SIGHUP), 0 or
 * negative after it has logged why; what can change while running is then taken over.
 */
int server_run(struct server_options *options, int (*reload)(struct server_options *ret_fresh));

#endif
