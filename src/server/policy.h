/*
 * policy - which passwords are taken, which time texts mean, and other small
 * rules that the command line and the network share. Pure.
 */
#ifndef SERVER_POLICY_H
#define SERVER_POLICY_H

#include "base/base.h"

#define POLICY_PASSWORD_MAX 1024

/* NULL if the password will do, else why not, for people. */
const char *policy_password_reason(const void *password, size_t password_bytes, const char *name,
				   size_t min_bytes);
/* "90s", "30m", "12h", "7d", "2w"; "never" is 0. -EINVAL. */
int policy_duration_parse(const char *text, uint64_t *ret_seconds);

#endif
