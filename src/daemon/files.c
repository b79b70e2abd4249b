/*
 * The state directory. See files.h.
 */
#include "daemon/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define TMP_MARK ".tmp-"

int files_path(char out[static FILES_PATH_BYTES], const char *dir, const char *sub,
	       const char *name, const char *suffix)
{
	const int n = snprintf(out, FILES_PATH_BYTES, "%s%s%s/%s%s", dir, sub ? "/" : "",
			       sub ? sub : "", name, suffix);

	return n < 0 || n >= FILES_PATH_BYTES ? -ENAMETOOLONG : 0;
}

int files_make_dir(const char *path)
{
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

int files_read(const char *path, struct buffer *out)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t *room, beyond;
	ssize_t n;
	int r;

	if (fd < 0)
		return -errno;
	for (;;) {
		const size_t left = out->max_bytes - buffer_used(out);
		const size_t chunk = min_size(left, 4096);

		/* Full: one more byte would be too many. */
		r = chunk ? buffer_reserve(out, chunk, &room) : 0;
		if (r)
			return r;
		n = read(fd, chunk ? room : &beyond, chunk ? chunk : 1);
		if (n <= 0)
			return n < 0 ? -errno : 0;
		if (chunk == 0)
			return -EFBIG;
		buffer_commit(out, (size_t)n);
	}
}

static int write_all(int fd, const uint8_t *data, size_t n_bytes)
{
	while (n_bytes > 0) {
		const ssize_t n = write(fd, data, n_bytes);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			n_bytes -= (size_t)n;
		}
	}
	return 0;
}

int files_open_parent(const char *path, int *ret_fd)
{
	char dir[FILES_PATH_BYTES];
	const char *slash = strrchr(path, '/');
	const int n_bytes = slash ? (int)(slash - path) : 0;
	int fd;

	snprintf(dir, sizeof(dir), "%.*s", n_bytes ? n_bytes : 1, slash ? path : ".");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* A rename or unlink is on disk once its directory is. */
static int sync_parent(const char *path)
{
	_cleanup_(closep) int fd = -1;
	int r = files_open_parent(path, &fd);

	return !r && fsync(fd) ? -errno : r;
}

int files_write_beside(const char *path, uint64_t number, const void *data, size_t n_bytes,
		       char *out_tmp, size_t out_bytes, int *ret_fd)
{
	_cleanup_(closep) int fd = -1;
	int r;

	snprintf(out_tmp, out_bytes, "%s" TMP_MARK "%" PRIu64, path, number);
	fd = open(out_tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, data, n_bytes);
	if (r) {
		unlink(out_tmp);
		return r;
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int files_write(const char *path, const void *data, size_t n_bytes)
{
	char tmp[FILES_PATH_BYTES + 32];
	_cleanup_(closep) int fd = -1;
	int r;

	/* One daemon owns the directory, and the numbers of disk_write() are below this one. */
	r = files_write_beside(path, UINT64_MAX, data, n_bytes, tmp, sizeof(tmp), &fd);
	if (r)
		return r;
	if (fsync(fd) || rename(tmp, path))
		r = -errno;
	if (r) {
		unlink(tmp);
		return r;
	}
	return sync_parent(path);
}

int files_remove(const char *path)
{
	if (unlink(path))
		return errno == ENOENT ? 0 : -errno;
	return sync_parent(path);
}

int files_read_json(const char *path, json_t **ret_object)
{
	struct buffer text;
	json_t *object;
	int r;

	buffer_init(&text, FILES_BYTES_MAX, false);
	r = files_read(path, &text);
	if (r) {
		buffer_fini(&text);
		return r;
	}
	object = json_loadb((const char *)buffer_peek(&text), buffer_used(&text),
			    JSON_REJECT_DUPLICATES, NULL);
	buffer_fini(&text);
	if (!json_is_object(object)) {
		json_decref(object);
		return -EBADMSG;
	}
	*ret_object = object;
	return 0;
}

int files_write_json(const char *path, const json_t *object)
{
	_cleanup_(freep) char *text = json_dumps(object, JSON_INDENT(1) | JSON_SORT_KEYS);

	return text ? files_write(path, text, strlen(text)) : -ENOMEM;
}

static int list_entry(DIR *dir, const char *name, const char *suffix,
		      int (*fn)(void *user, const char *name), void *user)
{
	const size_t name_bytes = strlen(name), suffix_bytes = strlen(suffix);
	char stem[NAME_MAX + 1];

	if (strstr(name, TMP_MARK)) {
		unlinkat(dirfd(dir), name, 0);
		return 0;
	}
	if (name_bytes <= suffix_bytes || name_bytes >= sizeof(stem) ||
	    strcmp(name + name_bytes - suffix_bytes, suffix))
		return 0;
	memcpy(stem, name, name_bytes - suffix_bytes);
	stem[name_bytes - suffix_bytes] = '\0';
	return fn(user, stem);
}

int files_list(const char *dir, const char *suffix, int (*fn)(void *user, const char *name),
	       void *user)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	int r = 0;

	if (!d)
		return -errno;
	while (!r && (entry = readdir(d)))
		r = list_entry(d, entry->d_name, suffix, fn, user);
	closedir(d);
	return r;
}
