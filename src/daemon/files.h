/*
 * files - the state directory: whole files read, and written so that a crash at
 * any moment leaves the old or the new content. Private to daemon.
 */
#ifndef DAEMON_FILES_H
#define DAEMON_FILES_H

#include "base/base.h"

#include <jansson.h>

#define FILES_BYTES_MAX  (1024 * 1024)
#define FILES_PATH_BYTES 1024

/* "DIR/SUB/NAME" + suffix; -ENAMETOOLONG. sub may be NULL. Names are addresses or domains that
 * q2q_address_parse() took, so none of them can lead out of the directory. */
int files_path(char out[static FILES_PATH_BYTES], const char *dir, const char *sub,
	       const char *name, const char *suffix);
/* 0700; that it exists already is fine. */
int files_make_dir(const char *path);
/* Appends the file's bytes. -ENOENT and so on; -EFBIG. */
int files_read(const char *path, struct buffer *out);
/* Mode 0600, in place at once: temporary file, fsync, rename, fsync of the directory. */
int files_write(const char *path, const void *data, size_t n_bytes);
/*
 * The first half of that: a temporary file of this number, written but not synced, whose name and
 * file descriptor the caller takes.
 */
int files_write_beside(const char *path, uint64_t number, const void *data, size_t n_bytes,
		       char *out_tmp, size_t out_bytes, int *ret_fd);
/* The directory that this is in, to be synced; the caller's. */
int files_open_parent(const char *path, int *ret_fd);
/* -ENOENT is fine; the directory is synced. */
int files_remove(const char *path);
/* An object. -EBADMSG if the file is no JSON object. */
int files_read_json(const char *path, json_t **ret_object);
int files_write_json(const char *path, const json_t *object);
/* Calls fn with each name that ends in suffix, cut off, until it returns non-zero, which is
 * passed up. Temporary files of interrupted writes are removed. */
int files_list(const char *dir, const char *suffix, int (*fn)(void *user, const char *name),
	       void *user);

#endif
