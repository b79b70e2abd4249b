/* Who the two processes are, by libcap-ng. */
#include "monitor/monitor.h"

#include <cap-ng.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define DAEMON_FILES_MAX 8192 /* a TUN device per peer, sockets, state files */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DUMPABLE 1 /* the leak check at exit traces its own process */
#else
#define DUMPABLE 0
#endif

/* No core file and no debugger: both processes see secrets or serve one that does. */
static int close_up(void)
{
	const struct rlimit none = { 0, 0 };

	/* The limit says again what DUMPABLE says; a service manager's filter may forbid setting
	 * it. */
	if (setrlimit(RLIMIT_CORE, &none) < 0 && errno != EPERM)
		return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_DUMPABLE, DUMPABLE, 0, 0, 0) < 0) {
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

bool privileges_suffice(void)
{
	static const unsigned needed[] = { CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP };

	if (capng_get_caps_process() != 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!capng_have_capability(CAPNG_EFFECTIVE, needed[i]))
			return false;
	return true;
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

static bool only_net_admin(void)
{
	if (capng_get_caps_process() != 0 ||
	    capng_have_capabilities(CAPNG_SELECT_CAPS) != CAPNG_PARTIAL ||
	    !capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN))
		return false;
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (cap != CAP_NET_ADMIN && (capng_have_capability(CAPNG_PERMITTED, cap) ||
					     capng_have_capability(CAPNG_EFFECTIVE, cap)))
			return false;
	return true;
}

int privileges_keep_net_admin(const struct monitor_user *user)
{
	int r;

	capng_clear(CAPNG_SELECT_ALL);
	r = capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_ADMIN);
	if (r == 0)
		r = capng_change_id((int)user->uid, (int)user->gid,
				    CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING |
					    CAPNG_CLEAR_AMBIENT);
	if (r != 0 || getuid() != user->uid || geteuid() != user->uid || !only_net_admin()) {
		log_error("cannot become uid %d with CAP_NET_ADMIN alone (libcap-ng says %d)",
			  (int)user->uid, r);
		return -EPERM;
	}
	return close_up();
}
