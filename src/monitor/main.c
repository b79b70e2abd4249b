/*
 * q2q-tund: options, directories, then two processes. The parent stays as the
 * monitor, the child gives everything up and becomes the daemon.
 */
#include "config.h" /* _GNU_SOURCE: O_PATH */

#include "monitor/monitor.h"

#include <argp.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/daemon.h"

#define DEFAULT_CONFIG SYSCONFDIR "/q2q-tun/q2q-tun.conf"
#define OPERATOR_GROUP "q2q-tun"
#define MONITOR_USER   "q2q-monitor"
#define EXIT_USAGE     2

const char *argp_program_version = PACKAGE_STRING;

/* ---- options ----------------------------------------------------------------------- */

/* What was said on the command line; NULL or -1: nothing. It wins over the file. */
struct said {
	const char *config, *state_dir, *control, *names, *user;
	int64_t port;
	int log_level;
	bool foreground;
};

enum { KEY_STATE = 0x100, KEY_CONTROL, KEY_NAMES, KEY_USER, KEY_LOG_LEVEL };

static const struct argp_option options[] = {
	{ "config", 'c', "FILE", 0, "Configuration file (default " DEFAULT_CONFIG ")", 0 },
	{ "state-dir", KEY_STATE, "DIR", 0, "Where identities and known peers are kept", 0 },
	{ "control", KEY_CONTROL, "PATH", 0, "The socket for q2q-tun(1)", 0 },
	{ "names-socket", KEY_NAMES, "PATH", 0, "The socket for name lookups", 0 },
	{ "port", 'p', "UDPPORT", 0, "UDP port (default: any)", 0 },
	{ "user", KEY_USER, "NAME", 0, "Who the daemon runs as (default q2q-tun)", 0 },
	{ "log-level", KEY_LOG_LEVEL, "LEVEL", 0, "error, warning, notice, info or debug", 0 },
	{ "foreground", 'f', NULL, 0, "Stay in the foreground", 0 },
	{ 0 },
};

static int log_level_of(const char *name)
{
	static const char *const names[] = { "error", "warning", "notice", "info", "debug" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(name, names[i]) == 0)
			return LOG_ERROR_ + (int)i;
	return -1;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct said *said = state->input;
	uint64_t port;

	switch (key) {
	case 'c':
		said->config = text;
		return 0;
	case KEY_STATE:
		said->state_dir = text;
		return 0;
	case KEY_CONTROL:
		said->control = text;
		return 0;
	case KEY_NAMES:
		said->names = text;
		return 0;
	case KEY_USER:
		said->user = text;
		return 0;
	case 'f':
		said->foreground = true;
		return 0;
	case 'p':
		if (parse_u64(text, UINT16_MAX, &port) < 0)
			argp_error(state, "--port does not take `%s'", text);
		said->port = (int64_t)port;
		return 0;
	case KEY_LOG_LEVEL:
		said->log_level = log_level_of(text);
		if (said->log_level < 0)
			argp_error(state, "--log-level does not take `%s'", text);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument: %s", text);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int replace(char **to, const char *with)
{
	char *copy;

	if (!with)
		return 0;
	copy = strdup(with);
	if (!copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

static int load_options(const struct said *said, struct daemon_options *o)
{
	const char *path = said->config ? said->config : DEFAULT_CONFIG;
	char error[512];
	int r = daemon_options_load(o, path, error, sizeof(error));

	if (r < 0 && (r != -ENOENT || said->config)) {
		log_error("%s", error);
		return r;
	}
	if (replace(&o->config_path, path) < 0 || replace(&o->state_dir, said->state_dir) < 0 ||
	    replace(&o->control_path, said->control) < 0 ||
	    replace(&o->names_path, said->names) < 0 || replace(&o->user, said->user) < 0)
		return -ENOMEM;
	if (said->port >= 0)
		o->port = (uint64_t)said->port;
	if (said->log_level >= 0)
		o->log_level = said->log_level;
	o->foreground = said->foreground;
	return 0;
}

/* The same as at the start, for the daemon, which was told to. */
static int load_again(void *user, struct daemon_options *ret_options)
{
	struct daemon_options fresh;
	int r = daemon_options_init(&fresh);

	if (r < 0)
		return r;
	r = load_options(user, &fresh);
	if (r < 0)
		daemon_options_fini(&fresh);
	else
		*ret_options = fresh;
	return r;
}

/* ---- the places ----------------------------------------------------------------------- */

static int find_user(const struct daemon_options *o, struct monitor_user *ret_user)
{
	const struct passwd *entry = getpwnam(o->user);

	if (!entry) {
		log_error("there is no user %s. Make it (`systemd-sysusers', or `useradd -r %s'), "
			  "or name another with --user.",
			  o->user, o->user);
		return -ENOENT;
	}
	if (entry->pw_uid == 0) {
		log_error("the daemon does not run as root: name another user with --user");
		return -EPERM;
	}
	*ret_user = (struct monitor_user){ .uid = entry->pw_uid, .gid = entry->pw_gid };
	return 0;
}

/*
 * Who the monitor goes on as: its own user, so that without capabilities it owns
 * nothing on this machine. Where nobody made that user, whoever started it.
 */
static struct monitor_user find_monitor_user(const struct monitor_user *daemon_user)
{
	const struct passwd *entry = getpwnam(MONITOR_USER);

	if (entry && entry->pw_uid != daemon_user->uid)
		return (struct monitor_user){ .uid = entry->pw_uid, .gid = entry->pw_gid };
	return (struct monitor_user){ .uid = getuid(), .gid = getgid() };
}

/*
 * A directory of the daemon's own. It is made if it is missing, and given to the
 * daemon's user if it is ours to give, as with a directory that systemd made.
 * is_private: the state; otherwise others may enter. A directory that is shared (/run, /tmp) stays
 * as it is.
 */
static int prepare_directory(const char *path, bool is_private, bool may_be_shared,
			     const struct monitor_user *user)
{
	const mode_t mode = is_private ? 0700 : 0755;
	const bool made = mkdir(path, mode) == 0;
	_cleanup_(closep) int fd = -1;
	struct stat st;

	if (!made && errno != EEXIST) {
		log_error("cannot make the directory %s: %s", path, strerror(errno));
		return -errno;
	}
	/* O_PATH: it may be closed to whoever looks here. */
	fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		log_error("cannot use the directory %s: %s", path, strerror(errno));
		return -errno;
	}
	if (st.st_uid == user->uid || (may_be_shared && !made))
		return 0;
	if (st.st_uid != geteuid()) {
		log_error("%s belongs to uid %d, not to the daemon's user", path, (int)st.st_uid);
		return -EPERM;
	}
	if (fchownat(fd, "", user->uid, user->gid, AT_EMPTY_PATH) < 0) {
		log_error("cannot give %s to the daemon's user: %s", path, strerror(errno));
		return -errno;
	}
	return 0;
}

/* Only a directory called as ours is ours: `--control /run/x' must not give /run away. */
static bool is_ours(const char *directory)
{
	const char *slash = strrchr(directory, '/');

	return strcmp(slash ? slash + 1 : directory, "q2q-tun") == 0;
}

static int prepare_socket_directory(const char *socket_path, const struct monitor_user *user)
{
	_cleanup_(freep) char *copy = strdup(socket_path);
	const char *directory = copy ? dirname(copy) : NULL;

	if (!directory)
		return -ENOMEM;
	return prepare_directory(directory, false, !is_ours(directory), user);
}

static int prepare_places(const struct daemon_options *o, const struct monitor_user *user)
{
	int r = prepare_directory(o->state_dir, true, false, user);

	if (r == 0)
		r = prepare_socket_directory(o->control_path, user);
	if (r == 0)
		r = prepare_socket_directory(o->names_path, user);
	return r;
}

/* ---- two processes ------------------------------------------------------------------------ */

/* In the child; returns the exit status. */
static int become_daemon(struct daemon_options *o, const struct monitor_user *user,
			 pid_t monitor_pid, const sigset_t *signals_before)
{
	const int program_fd = o->port_mapping == DAEMON_PORT_MAPPING_AUTO ? helper_find() : -1;

	if (privileges_drop_all(user) < 0)
		return EXIT_FAILURE;
	/* After the change of uid, which clears it: the daemon never outlives the monitor. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != monitor_pid)
		return EXIT_FAILURE;
	o->upnp_fd = helper_start(program_fd);
	if (program_fd >= 0)
		close(program_fd);
	if (sigprocmask(SIG_SETMASK, signals_before, NULL) < 0 ||
	    sandbox_daemon(o->n_workers > 1) < 0)
		return EXIT_FAILURE;
	return daemon_run(o);
}

static int become_monitor(const struct monitor_user *user, pid_t daemon_pid, int ipc_fd)
{
	if (privileges_keep_net_admin(user) < 0 || sandbox_monitor() < 0)
		return EXIT_FAILURE; /* the child dies with us */
	return monitor_watch(daemon_pid, ipc_fd);
}

static uint64_t watchdog_of_environment(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t value;

	if (pid && (parse_u64(pid, INT32_MAX, &value) < 0 || (pid_t)value != getpid()))
		return 0;
	return usec && parse_u64(usec, UINT64_MAX, &value) == 0 ? value : 0;
}

static int run(struct daemon_options *o, const struct monitor_user *user)
{
	const struct group *operators = getgrnam(OPERATOR_GROUP);
	const struct monitor_user monitor_user = find_monitor_user(user);
	const pid_t monitor_pid = getpid();
	sigset_t blocked, before;
	int ipc[2];
	pid_t pid;

	o->operator_gid = operators ? operators->gr_gid : (gid_t)-1;
	o->watchdog_us = watchdog_of_environment();
	if (tun_ipc_pair(ipc) < 0) {
		log_error("socketpair: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	/* Blocked before the fork, so that none is lost on the way to signalfd. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGHUP);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	pid = fork();
	if (pid < 0) {
		log_error("fork: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	close(ipc[pid == 0 ? 0 : 1]);
	if (pid > 0)
		return become_monitor(&monitor_user, pid, ipc[0]);
	o->monitor_fd = ipc[1];
	if (fcntl(ipc[1], F_SETFL, O_NONBLOCK) < 0)
		return EXIT_FAILURE;
	return become_daemon(o, user, monitor_pid, &before);
}

/* The terminal's shell gets its prompt back; what goes wrong later is in the log. */
static int go_to_background(void)
{
	const pid_t pid = fork();

	if (pid < 0) {
		log_error("fork: %s", strerror(errno));
		return -errno;
	}
	if (pid > 0)
		_exit(EXIT_SUCCESS);
	if (setsid() < 0 || chdir("/") < 0)
		return -errno;
	_cleanup_(closep) int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0)
		return -errno;
	for (int fd = 0; fd <= 2; fd++)
		if (fd == 0 || isatty(fd))
			dup2(null_fd, fd);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.doc = "The daemon of q2q-tun: one network interface per peer, all protocol work.",
	};
	struct log_config log = { .program = "q2q-tund",
				  .level = LOG_INFO_,
				  .journal_prefix = getenv("JOURNAL_STREAM") != NULL };
	struct said said = { .port = -1, .log_level = -1 };
	_cleanup_(freep) char *config = NULL;
	struct daemon_options o;
	struct monitor_user user;
	int status;

	log_setup(&log);
	signal(SIGPIPE, SIG_IGN); /* of both processes: whoever reads our log may go */
	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &said);
	/* It is read again when this process is elsewhere. */
	config = said.config ? realpath(said.config, NULL) : NULL;
	if (config)
		said.config = config;
	if (daemon_options_init(&o) < 0 || load_options(&said, &o) < 0)
		return EXIT_FAILURE;
	o.load = load_again;
	o.load_user = &said;
	log.level = (enum log_level)o.log_level;
	log_setup(&log);
	if (!privileges_suffice()) {
		log_error("q2q-tund must be started by root, or with the capabilities NET_ADMIN, "
			  "SETUID, SETGID and SETPCAP; it gives up all but the first at once");
		return EXIT_FAILURE;
	}
	if (find_user(&o, &user) < 0 || prepare_places(&o, &user) < 0)
		return EXIT_FAILURE;
	if (!o.foreground && go_to_background() < 0)
		return EXIT_FAILURE;
	status = run(&o, &user);
	daemon_options_fini(&o);
	return status;
}
