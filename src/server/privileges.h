/*
 * privileges - becoming the server's user for good.
 */
#ifndef SERVER_PRIVILEGES_H
#define SERVER_PRIVILEGES_H

#include "base/base.h"

/* Makes the directory (0700) for that user if it does not exist. user NULL: for ourselves. */
int privileges_make_dir(const char *dir, const char *user, char *why, size_t why_bytes);
/* Gives the directory and the files in it to that user, if we are root. */
int privileges_give_dir(const char *dir, const char *user, char *why, size_t why_bytes);
/* Started by root with a user: becomes it, groups and all. Else nothing happens. */
int privileges_drop(const char *user, char *why, size_t why_bytes);
/* No core files, no ptrace, no new privileges: keys and passwords pass through this process. */
void privileges_harden(void);

#endif
