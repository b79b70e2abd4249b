/*
 * conf - INI files whose keys stand in a table (libinih underneath).
 *
 * A program lists its keys once: section, name, type, where the value goes. A
 * key that is not in the table, a value that does not fit, a key given twice or
 * a line that is no INI is an error that names file and line: a configuration
 * is never half understood.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include "base/base.h"

#define CONF_FILE_BYTES_MAX (256 * 1024)
#define CONF_LIST_MAX       64
#define CONF_ERROR_BYTES    512

/* Values of a repeatable key, in the order of the file. */
struct conf_list {
	char *items[CONF_LIST_MAX];
	size_t n_items;
};

enum conf_type {
	CONF_TEXT,   /* char *: allocated; replaces (and frees) what was there. Not empty */
	CONF_LIST,   /* struct conf_list; the key may come again */
	CONF_BOOL,   /* bool: yes/no, true/false, on/off, 1/0 */
	CONF_UINT,   /* uint64_t: min..max */
	CONF_CHOICE, /* int: index into `choices` */
	CONF_CALL,   /* set() takes it; the key may come again */
	CONF_TYPE_COUNT,
};

struct conf_key {
	/* "daemon"; or "domain *" for sections that carry a name, as [domain b.test]. */
	const char *section;
	const char *name;
	enum conf_type type;
	size_t offset;              /* of the field in the target */
	uint64_t min, max;          /* CONF_UINT */
	const char *const *choices; /* CONF_CHOICE: ends in NULL */
	/*
	 * CONF_CALL: 0, or negative with a reason in why ("not a host name").
	 * argument: what "*" stood for, else NULL. For CONF_TEXT and CONF_LIST a
	 * check before the value is stored; may be NULL there.
	 */
	int (*set)(void *target, const char *argument, const char *value, char *why,
		   size_t why_bytes);
};

struct conf_error {
	unsigned line;               /* 0: the file as a whole */
	char text[CONF_ERROR_BYTES]; /* "FILE:LINE: what is wrong and what would be right" */
};

/*
 * Reads a file into target. The fields must hold their defaults (text fields:
 * NULL or allocated). -ENOENT, -EACCES ...: it could not be read; -EINVAL: it is
 * wrong; -EFBIG; -ENOMEM. In all cases ret_error says it in words; target may
 * be partly filled then: conf_clear() it.
 */
int conf_load(const char *path, const struct conf_key *keys, size_t n_keys, void *target,
	      struct conf_error *ret_error);
/* The same from memory; name stands for the file in messages. */
int conf_parse(const char *name, const char *text, size_t text_bytes, const struct conf_key *keys,
	       size_t n_keys, void *target, struct conf_error *ret_error);
/* Frees texts and lists and sets them to NULL and empty. CONF_CALL fields are the caller's. */
void conf_clear(const struct conf_key *keys, size_t n_keys, void *target);

#endif
