/*
 * tcp - connecting over a list of endpoints with a head start for the earlier
 * ones (RFC 8305), and listening, on TCP and on Unix stream sockets.
 */
#include "net/internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG             128
#define ACCEPTS_PER_WAKE_UP 32
#define ACCEPT_PAUSE_US     US_PER_S /* after running out of descriptors or memory */

/* ---- connecting ------------------------------------------------------------------------ */

struct attempt {
	struct net_connect *connect;
	struct net_watch watch;
	struct endpoint remote;
	int fd; /* -1: not started or failed */
};

struct net_connect {
	struct net_loop *loop;
	net_connected_fn *fn;
	void *user;
	struct net_timer stagger, timeout;
	struct net_soon done;
	struct net_trash trash;
	struct attempt attempts[NET_ENDPOINTS_MAX];
	size_t n_attempts, n_started, n_failed;
	int error; /* of the last attempt that failed */
	int won_fd;
	struct endpoint won;
};

static void attempt_close(struct attempt *a)
{
	net_watch_fini(&a->watch);
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
}

static void release(void *memory)
{
	free(memory);
}

static void connect_free(struct net_connect *c)
{
	for (size_t i = 0; i < c->n_started; i++)
		attempt_close(&c->attempts[i]);
	net_timer_disarm(&c->stagger);
	net_timer_disarm(&c->timeout);
	net_soon_cancel(&c->done);
	net_loop_trash(c->loop, &c->trash, release, c);
}

void net_connect_cancel(struct net_connect *connect)
{
	if (!connect)
		return;
	if (connect->won_fd >= 0)
		close(connect->won_fd);
	connect->won_fd = -1;
	connect_free(connect);
}

static void connect_report(void *user)
{
	struct net_connect *c = user;
	const int fd = c->won_fd;
	const struct endpoint remote = c->won;

	c->won_fd = -1;
	connect_free(c);
	c->fn(c->user, fd >= 0 ? 0 : c->error, fd, fd >= 0 ? &remote : NULL);
}

/* The outcome is known; it is told from the loop, never from inside net_connect_new(). */
static void connect_settle(struct net_connect *c)
{
	for (size_t i = 0; i < c->n_started; i++)
		attempt_close(&c->attempts[i]);
	net_timer_disarm(&c->stagger);
	net_timer_disarm(&c->timeout);
	net_soon_queue(&c->done);
}

static void start_next(struct net_connect *c);

static void attempt_failed(struct attempt *a, int error)
{
	struct net_connect *c = a->connect;

	attempt_close(a);
	c->error = error;
	c->n_failed++;
	if (c->n_failed == c->n_attempts)
		connect_settle(c);
	else if (c->n_started < c->n_attempts)
		start_next(c);
}

static void attempt_won(struct attempt *a)
{
	struct net_connect *c = a->connect;

	c->won_fd = a->fd;
	c->won = net_nat64_inward(c->loop, &a->remote);
	net_watch_fini(&a->watch);
	a->fd = -1;
	connect_settle(c);
}

static void on_attempt(void *user, unsigned ready)
{
	struct attempt *a = user;
	const int error = net_socket_error(a->fd);

	(void)ready;
	if (error < 0)
		attempt_failed(a, error);
	else
		attempt_won(a);
}

static int attempt_start(struct attempt *a)
{
	const struct endpoint to = net_nat64_outward(a->connect->loop, &a->remote);
	struct sockaddr_storage sa;
	const socklen_t length = (socklen_t)endpoint_to_sockaddr(&to, false, &sa);

	a->fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (a->fd < 0)
		return -errno;
	net_watch_init(&a->watch, a->connect->loop, a->fd, on_attempt, a);
	if (connect(a->fd, (struct sockaddr *)&sa, length) < 0 && errno != EINPROGRESS)
		return -errno;
	return net_watch_want(&a->watch, NET_WRITE);
}

static void start_next(struct net_connect *c)
{
	struct attempt *a = &c->attempts[c->n_started++];
	int r;

	net_timer_arm(&c->stagger, c->n_started < c->n_attempts
					   ? net_clock_us() + NET_CONNECT_STAGGER_US
					   : NEVER_US);
	r = attempt_start(a);
	if (r < 0)
		attempt_failed(a, r);
}

static void on_stagger(void *user, uint64_t now_us)
{
	(void)now_us;
	start_next(user);
}

static void on_connect_timeout(void *user, uint64_t now_us)
{
	struct net_connect *c = user;

	(void)now_us;
	if (c->error == 0 || c->n_failed < c->n_started)
		c->error = -ETIMEDOUT;
	connect_settle(c);
}

int net_connect_new(struct net_loop *loop, const struct endpoint *endpoints, size_t n_endpoints,
		    uint64_t timeout_us, net_connected_fn *fn, void *user,
		    struct net_connect **ret_connect)
{
	struct net_connect *c;

	if (!n_endpoints)
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->loop = loop;
	c->fn = fn;
	c->user = user;
	c->won_fd = -1;
	c->n_attempts = min_size(n_endpoints, NET_ENDPOINTS_MAX);
	for (size_t i = 0; i < c->n_attempts; i++)
		c->attempts[i] = (struct attempt){ .connect = c, .remote = endpoints[i], .fd = -1 };
	net_timer_init(&c->stagger, loop, on_stagger, c);
	net_timer_init(&c->timeout, loop, on_connect_timeout, c);
	net_soon_init(&c->done, loop, connect_report, c);
	net_timer_arm(&c->timeout, add_sat_u64(net_clock_us(), timeout_us));
	start_next(c);
	*ret_connect = c;
	return 0;
}

/* ---- listening -------------------------------------------------------------------------- */

struct net_listener {
	struct net_loop *loop;
	struct net_watch watch;
	struct net_timer resume;
	struct net_trash trash;
	net_accepted_fn *on_tcp;
	net_unix_accepted_fn *on_unix;
	void *user;
	struct endpoint local;
	char *path; /* a Unix socket's file */
	int fd;
	bool paused, freed;
};

static void hand_out_tcp(struct net_listener *l, int fd, const struct sockaddr_storage *sa)
{
	struct endpoint from;

	if (endpoint_from_sockaddr((const struct sockaddr *)sa, &from) < 0) {
		close(fd);
		return;
	}
	l->on_tcp(l->user, fd, &from);
}

static int read_groups(int fd, struct net_peer *peer)
{
	gid_t many[1024];
	socklen_t length = sizeof(many);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, many, &length) < 0)
		return -errno;
	peer->n_groups = min_size(length / sizeof(gid_t), NET_GROUPS_MAX);
	memcpy(peer->groups, many, peer->n_groups * sizeof(gid_t));
	return 0;
}

static void hand_out_unix(struct net_listener *l, int fd)
{
	struct net_peer peer = { 0 };
	struct ucred cred;
	socklen_t length = sizeof(cred);

	/* Without credentials nobody can say what this client may do. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0 ||
	    read_groups(fd, &peer) < 0) {
		close(fd);
		return;
	}
	peer.pid = cred.pid;
	peer.uid = cred.uid;
	peer.gid = cred.gid;
	l->on_unix(l->user, fd, &peer);
}

bool net_peer_in_group(const struct net_peer *peer, gid_t gid)
{
	if (peer->gid == gid)
		return true;
	for (size_t i = 0; i < peer->n_groups; i++)
		if (peer->groups[i] == gid)
			return true;
	return false;
}

static void on_resume(void *user, uint64_t now_us)
{
	struct net_listener *l = user;

	(void)now_us;
	if (!l->paused)
		net_watch_want(&l->watch, NET_READ);
}

/* Out of descriptors: the connection stays in the backlog and would wake us for ever. */
static void rest(struct net_listener *l)
{
	net_watch_want(&l->watch, 0);
	net_timer_arm(&l->resume, net_clock_us() + ACCEPT_PAUSE_US);
}

static void on_acceptable(void *user, unsigned ready)
{
	struct net_listener *l = user;

	(void)ready;
	for (int n = 0; n < ACCEPTS_PER_WAKE_UP && !l->freed && !l->paused; n++) {
		struct sockaddr_storage sa = { 0 };
		socklen_t length = sizeof(sa);
		const int fd = accept4(l->fd, (struct sockaddr *)&sa, &length,
				       SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 &&
		    (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
			rest(l);
		if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
			continue;
		if (fd < 0)
			return;
		if (l->on_unix)
			hand_out_unix(l, fd);
		else
			hand_out_tcp(l, fd, &sa);
	}
}

/* Takes the descriptor over, also on failure. */
static int listener_start(struct net_listener *l)
{
	int r;

	if (listen(l->fd, BACKLOG) < 0)
		return -errno;
	net_watch_init(&l->watch, l->loop, l->fd, on_acceptable, l);
	r = net_watch_want(&l->watch, NET_READ);
	return r;
}

static struct net_listener *listener_new(struct net_loop *loop, void *user)
{
	struct net_listener *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->loop = loop;
	l->user = user;
	l->fd = -1;
	net_timer_init(&l->resume, loop, on_resume, l);
	return l;
}

static int bind_tcp(struct net_listener *l, const struct endpoint *local)
{
	const bool dual = local->ip.family == FAMILY_NONE;
	struct endpoint at = *local;
	struct sockaddr_storage sa;
	socklen_t length;

	if (dual)
		at.ip.family = FAMILY_IPV6;
	length = (socklen_t)endpoint_to_sockaddr(&at, false, &sa);
	l->fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0 && dual && errno == EAFNOSUPPORT) {
		at.ip.family = FAMILY_IPV4;
		length = (socklen_t)endpoint_to_sockaddr(&at, false, &sa);
		l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	}
	if (l->fd < 0)
		return -errno;
	net_set_int(l->fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (at.ip.family == FAMILY_IPV6)
		net_set_int(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, !dual);
	if (bind(l->fd, (struct sockaddr *)&sa, length) < 0)
		return -errno;
	length = sizeof(sa);
	if (getsockname(l->fd, (struct sockaddr *)&sa, &length) < 0)
		return -errno;
	return endpoint_from_sockaddr((struct sockaddr *)&sa, &l->local);
}

int net_listen_tcp(struct net_loop *loop, const struct endpoint *local, net_accepted_fn *fn,
		   void *user, struct net_listener **ret_listener)
{
	struct net_listener *l = listener_new(loop, user);
	int r;

	if (!l)
		return -ENOMEM;
	l->on_tcp = fn;
	r = bind_tcp(l, local);
	if (r == 0)
		r = listener_start(l);
	if (r < 0) {
		net_listener_free(l);
		return r;
	}
	*ret_listener = l;
	return 0;
}

struct endpoint net_listener_local(const struct net_listener *listener)
{
	return listener->local;
}

void net_listener_pause(struct net_listener *listener, bool pause)
{
	listener->paused = pause;
	net_timer_disarm(&listener->resume);
	net_watch_want(&listener->watch, pause ? 0 : NET_READ);
}

static void listener_release(void *memory)
{
	struct net_listener *l = memory;

	free(l->path);
	free(l);
}

void net_listener_free(struct net_listener *listener)
{
	if (!listener)
		return;
	net_watch_fini(&listener->watch);
	net_timer_disarm(&listener->resume);
	if (listener->fd >= 0)
		close(listener->fd);
	listener->fd = -1;
	if (listener->path)
		unlink(listener->path);
	listener->freed = true;
	net_loop_trash(listener->loop, &listener->trash, listener_release, listener);
}

/* ---- Unix sockets -------------------------------------------------------------------------- */

static int unix_address(const char *path, struct sockaddr_un *ret_sa)
{
	const size_t n_bytes = strlen(path);

	if (n_bytes == 0 || n_bytes >= sizeof(ret_sa->sun_path))
		return -ENAMETOOLONG;
	*ret_sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret_sa->sun_path, path, n_bytes);
	return 0;
}

int net_connect_unix(const char *path, int *ret_fd)
{
	_cleanup_(closep) int fd = -1;
	struct sockaddr_un sa;
	int r = unix_address(path, &sa);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -errno;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* A file that a crashed process left behind is removed; one that answers, or that is no socket,
 * stays. */
static int remove_stale_socket(const char *path)
{
	struct stat st;
	int fd, r;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	r = net_connect_unix(path, &fd);
	if (r == 0)
		close(fd);
	if (r != -ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(path) < 0 ? -errno : 0;
}

static int bind_unix(struct net_listener *l, const char *path, mode_t mode)
{
	struct sockaddr_un sa;
	int r = unix_address(path, &sa);

	if (r == 0)
		r = remove_stale_socket(path);
	if (r < 0)
		return r;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return -errno;
	/* The file is born with these rights, less the umask; chmod() below puts back what the
	 * umask took. It is never wider than `mode`. */
	fchmod(l->fd, mode);
	if (bind(l->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -errno;
	l->path = strdup(path);
	if (!l->path) {
		unlink(path);
		return -ENOMEM;
	}
	return chmod(path, mode) < 0 ? -errno : 0;
}

int net_listen_unix(struct net_loop *loop, const char *path, mode_t mode, net_unix_accepted_fn *fn,
		    void *user, struct net_listener **ret_listener)
{
	struct net_listener *l = listener_new(loop, user);
	int r;

	if (!l)
		return -ENOMEM;
	l->on_unix = fn;
	r = bind_unix(l, path, mode);
	if (r == 0)
		r = listener_start(l);
	if (r < 0) {
		net_listener_free(l);
		return r;
	}
	*ret_listener = l;
	return 0;
}
