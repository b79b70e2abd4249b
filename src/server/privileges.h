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
/* No core files, no ptrace, no new privileges: keys and passwords pass through this process. */
void privileges_harden(void);

#endif
