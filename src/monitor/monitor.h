/*
 * monitor - the privileged process of q2q-tund, and its main().
 *
 * It makes TUN interfaces when the daemon asks, and parses nothing else: no
 * byte of the network reaches it. It keeps CAP_NET_ADMIN alone, under a uid of
 * its own. The daemon is its child, with another uid and no capability. Each ends when the other
 * does, and with the daemon go its TUN descriptors, and so the interfaces.
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include "base/base.h"

#include <sys/types.h>

#include "tun/tun.h"

struct monitor_user {
	uid_t uid;
	gid_t gid;
};

/* privileges.c; each complains in the log and returns a fault when it cannot do its work. */

/* Whether this process has what the two below need. */
bool privileges_suffice(void);
/* Becomes the user, for good: no capability, no new privileges, no core, no debugger. */
int privileges_drop_all(const struct monitor_user *user);
/* Becomes the user with CAP_NET_ADMIN; no way back to more. */
int privileges_keep_net_admin(const struct monitor_user *user);

/* sandbox.c: system call filters, for the rest of the process's life. */
int sandbox_daemon(bool with_threads);
int sandbox_monitor(void);

/* helper.c: q2q-tun-upnp. */

/* Its program, open; -1: not installed, or built without it. */
int helper_find(void);
/* Starts it as whoever we are; our end of the socket to it, non-blocking, or -1. */
int helper_start(int program_fd);

/* requests.c: what the daemon may ask, and when. */
struct monitor_requests {
	bool used[TUN_SLOTS_MAX];
	bool failed[TUN_SLOTS_MAX]; /* the last LINK_CREATE did; one LINK_DELETE may follow */
	struct tun_addresses addresses[TUN_SLOTS_MAX];
	bool ready; /* READY came: it comes once */
	/* The daemon was asked so often to read the configuration again, and has not yet. */
	unsigned n_reloads;
	uint32_t group; /* of all interfaces that were made */
	struct tun_guard guard;
};

/*
 * Judges one request and does it. 0: *ret_reply and *ret_fd (owned by the
 * caller, -1 if none) are to be sent if *ret_reply has a type. -EPROTO: nothing
 * a sound daemon asks; the monitor ends.
 */
int requests_handle(struct monitor_requests *requests, const struct tun_request *request,
		    struct tun_reply *ret_reply, int *ret_fd);

/* No link is needed any more: the end of all interfaces at once. */
void requests_end_links(struct monitor_requests *requests);

/* watch.c: serves until the daemon ends; the exit status for the whole program. */
int monitor_watch(pid_t daemon_pid, int ipc_fd);

#endif
