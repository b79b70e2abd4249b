/*
 * privileges - becoming the server's user for good.
 */
#ifndef SERVER_PRIVILEGES_H
#define SERVER_PRIVILEGES_H

#include "base/base.h"

/*
 * Whom root becomes for a data directory: `configured`, or else the owner of the directory, so
 * that `init` by root in a directory that was made for the server leaves its files to the server.
 * NULL: nobody else. Allocated; free() it.
 */
char *privileges_user(const char *dir, const char *configured);
/* Makes the directory (0700) for that user if it does not exist. user NULL: for ourselves. */
int privileges_make_dir(const char *dir, const char *user, char *why, size_t why_bytes);
/* Gives the directory and the files in it to that user, if we are root. */
int privileges_give_dir(const char *dir, const char *user, char *why, size_t why_bytes);
/* Started by root with a user: becomes it, groups and all. Else nothing happens. */
int privileges_drop(const char *user, char *why, size_t why_bytes);
/*
 * Ports below 1024 are opened after root has become somebody else, or by a server that was started
 * with CAP_NET_BIND_SERVICE alone. Before privileges_drop(): that capability stays. After it: no
 * other does. Once all sockets are open: it goes too. Nothing happens to a server that stays root.
 */
void privileges_keep_ports(void);
int privileges_ports_alone(void);
int privileges_forget_ports(void);
/* No core files, no ptrace, no new privileges: keys and passwords pass through this process. */
void privileges_harden(void);

#endif
