/* Shared by the files of ctl. */
#ifndef CTL_PRIVATE_H
#define CTL_PRIVATE_H

#include "ctl/ctl.h"

/* One line of JSON, an object, no key twice, of our version. NULL otherwise. */
json_t *ctl_load(const char *line, size_t line_bytes);
/* The line for an object, which is consumed. NULL: out of memory, or `object` was NULL. */
char *ctl_dump(json_t *object);
/* A JSON string made of any bytes: control characters but newline, and what is no UTF-8, become
 * "?". */
json_t *ctl_clean_text(const char *text);
/* {"v":1,"id":id,KEY:value}; value is consumed. */
json_t *ctl_envelope(uint64_t id, const char *key, json_t *value);
/* A non-negative integer member; -EBADMSG. */
int ctl_get_uint(const json_t *object, const char *key, uint64_t max, uint64_t *ret_value);
/* Checks args (an object) against the table: 0, or -EINVAL with the reason. */
int ctl_check_arguments(enum ctl_command command, const json_t *args, char *why, size_t why_bytes);

#endif
