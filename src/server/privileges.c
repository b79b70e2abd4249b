#include "server/privileges.h"

#include <cap-ng.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int find_user(const char *user, struct passwd **ret_entry, char *why, size_t why_bytes)
{
	errno = 0;
	*ret_entry = getpwnam(user);
	if (*ret_entry)
		return 0;
	snprintf(why, why_bytes, "there is no user \"%s\"; make one with `useradd --system %s`",
		 user, user);
	return -ENOENT;
}

char *privileges_user(const char *dir, const char *configured)
{
	const struct passwd *entry;
	struct stat st;

	if (configured)
		return strdup(configured);
	if (geteuid() != 0 || stat(dir, &st) != 0 || st.st_uid == 0)
		return NULL;
	entry = getpwuid(st.st_uid);
	return entry ? strdup(entry->pw_name) : NULL;
}

int privileges_make_dir(const char *dir, const char *user, char *why, size_t why_bytes)
{
	struct passwd *entry;
	int rc;

	if (mkdir(dir, 0700) != 0) {
		if (errno == EEXIST)
			return 0;
		rc = -errno;
		snprintf(why, why_bytes, "cannot make %s: %s", dir, strerror(-rc));
		return rc;
	}
	if (!user || geteuid() != 0)
		return 0;
	rc = find_user(user, &entry, why, why_bytes);
	if (rc == 0 && chown(dir, entry->pw_uid, entry->pw_gid) != 0) {
		rc = -errno;
		snprintf(why, why_bytes, "cannot give %s to %s: %s", dir, user, strerror(-rc));
	}
	if (rc != 0)
		rmdir(dir);
	return rc;
}

static int give_entries(int dir_fd, const struct passwd *entry)
{
	DIR *dir = fdopendir(dir_fd); /* takes dir_fd over */
	const struct dirent *file;
	int rc = 0;

	if (!dir) {
		rc = -errno;
		close(dir_fd);
		return rc;
	}
	while (rc == 0 && (file = readdir(dir))) {
		if (strcmp(file->d_name, "..") == 0)
			continue;
		if (fchownat(dir_fd, file->d_name, entry->pw_uid, entry->pw_gid,
			     AT_SYMLINK_NOFOLLOW) != 0)
			rc = -errno;
	}
	closedir(dir);
	return rc;
}

int privileges_give_dir(const char *dir, const char *user, char *why, size_t why_bytes)
{
	struct passwd *entry;
	int fd, rc;

	if (!user || geteuid() != 0)
		return 0;
	rc = find_user(user, &entry, why, why_bytes);
	if (rc != 0)
		return rc;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	rc = fd < 0 ? -errno : give_entries(fd, entry);
	if (rc != 0)
		snprintf(why, why_bytes, "cannot give %s to %s: %s", dir, user, strerror(-rc));
	return rc;
}

int privileges_drop(const char *user, char *why, size_t why_bytes)
{
	struct passwd *entry;
	int rc;

	if (!user || geteuid() != 0)
		return 0;
	rc = find_user(user, &entry, why, why_bytes);
	if (rc != 0)
		return rc;
	if (initgroups(user, entry->pw_gid) != 0 || setgid(entry->pw_gid) != 0 ||
	    setuid(entry->pw_uid) != 0) {
		rc = -errno;
		snprintf(why, why_bytes, "cannot become %s: %s", user, strerror(-rc));
		return rc;
	}
	if (entry->pw_uid != 0 && setuid(0) == 0) {
		snprintf(why, why_bytes, "the privileges of root came back");
		return -EPERM;
	}
	return 0;
}

void privileges_keep_ports(void)
{
	prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
}

/* Leaves us with this capability at most; -1: with none. */
static int keep_only(int capability)
{
	bool has;

	if (geteuid() == 0)
		return 0;
	if (capng_get_caps_process() != 0)
		return -EPERM;
	has = capability >= 0 && capng_have_capability(CAPNG_PERMITTED, (unsigned)capability);
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	if (!has && capng_have_capabilities(CAPNG_SELECT_CAPS) == CAPNG_NONE)
		return 0;
	capng_clear(CAPNG_SELECT_CAPS);
	if (has &&
	    capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, (unsigned)capability) != 0)
		return -EPERM;
	return capng_apply(CAPNG_SELECT_CAPS) == 0 ? 0 : -EPERM;
}

int privileges_ports_alone(void)
{
	return keep_only(CAP_NET_BIND_SERVICE);
}

int privileges_forget_ports(void)
{
	return keep_only(-1);
}

void privileges_harden(void)
{
	const struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__ /* the leak check at exit traces its own process */
	prctl(PR_SET_DUMPABLE, 0);
#endif
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
