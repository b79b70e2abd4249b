/* Who the two processes are, by libcap-ng. */
#include "monitor/monitor.h"

#include <cap-ng.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define DAEMON_FILES_MAX 8192 /* a TUN device per peer, sockets, state files */

/* No core file and no debugger: both processes see secrets or serve one that does. */
static int close_up(void)
{
	const struct rlimit none = { 0, 0 };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    setrlimit(RLIMIT_CORE, &none) < 0) {
		log_error("cannot close the process up: %s", strerror(errno));
		return -errno;
	}
	return 0;
}

static void raise_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	if (limit.rlim_cur >= DAEMON_FILES_MAX)
		return;
	limit.rlim_cur = limit.rlim_max < DAEMON_FILES_MAX ? limit.rlim_max : DAEMON_FILES_MAX;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_warn("cannot raise the limit of open files: %s", strerror(errno));
}

int privileges_drop_all(const struct monitor_user *user)
{
	int r;

	raise_files();
	capng_clear(CAPNG_SELECT_ALL);
	r = capng_change_id((int)user->uid, (int)user->gid,
			    CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING | CAPNG_CLEAR_AMBIENT);
	if (r != 0) {
		log_error("cannot become uid %d, gid %d without capabilities (libcap-ng says %d)",
			  (int)user->uid, (int)user->gid, r);
		return -EPERM;
	}
	/* Believe the kernel, not the library. */
	if (getuid() != user->uid || geteuid() != user->uid || getgid() != user->gid ||
	    capng_get_caps_process() != 0 ||
	    capng_have_capabilities(CAPNG_SELECT_CAPS) != CAPNG_NONE ||
	    (user->uid != 0 && setuid(0) == 0)) {
		log_error("privileges are still there after giving them up");
		return -EPERM;
	}
	return close_up();
}

int privileges_keep_net_admin(void)
{
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_ADMIN) < 0 ||
	    setgroups(0, NULL) < 0) {
		log_error("cannot give up groups and capabilities: %s", strerror(errno));
		return -EPERM;
	}
	/* The bounding set first: emptying it takes a capability that is on its way out. */
	capng_apply(CAPNG_SELECT_BOUNDS);
	if (capng_apply(CAPNG_SELECT_CAPS) < 0) {
		log_error("cannot give up capabilities: %s", strerror(errno));
		return -EPERM;
	}
	if (capng_get_caps_process() != 0 ||
	    capng_have_capabilities(CAPNG_SELECT_CAPS) != CAPNG_PARTIAL ||
	    !capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN) ||
	    capng_have_capability(CAPNG_EFFECTIVE, CAP_SETUID) ||
	    capng_have_capability(CAPNG_PERMITTED, CAP_SYS_ADMIN)) {
		log_error("not exactly CAP_NET_ADMIN is left");
		return -EPERM;
	}
	return close_up();
}
