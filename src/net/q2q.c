/*
 * q2q - the driver that joins a q2q connection to a TCP socket.
 *
 * Everything happens in one place, pump(): tick if due, events, output, then
 * the deadline. Readiness, the timer and net_q2q_pump() only lead there, from
 * the loop, so the owner's callbacks never run inside the owner's calls.
 *
 * After net_q2q_close() the owner is gone: what waits is written, then our
 * direction is shut, and what the peer still sends is read and thrown away
 * until it closes too. Closing a socket with unread bytes would reset the
 * connection and could take our last words with it.
 */
#include "net/internal.h"

#include "crypto/crypto.h"
#include "net/outer.h"
#include "q2q/q2q.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#define CHUNK_BYTES        16384
#define CHUNKS_PER_WAKE_UP 8
#define ROUNDS_PER_PUMP    16
#define KEEPALIVE_IDLE_S   60
#define KEEPALIVE_STEP_S   10
#define KEEPALIVE_TRIES    3
#define USER_TIMEOUT_MS    30000

struct net_q2q {
	struct net_loop *loop;
	struct net_q2q_config config;
	struct net_watch watch;
	struct net_timer timer;       /* the connection's deadline */
	struct net_timer flush_timer; /* after net_q2q_close() */
	struct net_soon soon;
	struct net_trash trash;
	struct net_linger linger;
	struct endpoint local, remote;
	struct net_outer *outer; /* NULL: no TLS around it */
	bool began;              /* the first byte came */
	uint8_t out[CHUNK_BYTES];
	size_t out_start, out_end;
	int error;   /* why the socket ended */
	bool ended;  /* the socket is of no use any more */
	bool told;   /* on_closed was called */
	bool closed; /* by the owner */
	bool shut;   /* our direction is shut */
	bool freed;
};

static void socket_options(int fd)
{
	net_set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	net_set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	net_set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	net_set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_STEP_S);
	net_set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_TRIES);
	net_set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
}

static void end(struct net_q2q *d, int error)
{
	if (d->ended)
		return;
	d->ended = true;
	d->error = error;
	net_watch_want(&d->watch, 0);
	q2q_conn_input_end(d->config.conn, net_loop_now_us(d->loop));
}

static size_t next_output(struct net_q2q *d, uint64_t now_us)
{
	return d->outer ? net_outer_output(d->outer, d->config.conn, d->out, sizeof(d->out), now_us)
			: q2q_conn_output(d->config.conn, d->out, sizeof(d->out), now_us);
}

/* Writes what waits. True if anything left. */
static bool move_output(struct net_q2q *d)
{
	const uint64_t now_us = net_loop_now_us(d->loop);
	bool moved = false;

	while (!d->ended) {
		ssize_t n;

		if (d->out_start == d->out_end) {
			d->out_start = 0;
			d->out_end = next_output(d, now_us);
			if (!d->out_end)
				break;
		}
		n = send(d->config.fd, d->out + d->out_start, d->out_end - d->out_start,
			 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			end(d, -errno);
			break;
		}
		d->out_start += (size_t)n;
		moved = true;
	}
	return moved;
}

static void want(struct net_q2q *d)
{
	unsigned wanted = NET_READ;

	if (d->ended)
		return;
	if (d->out_start < d->out_end)
		wanted |= NET_WRITE;
	if (net_watch_want(&d->watch, wanted) < 0)
		end(d, -ENOMEM);
}

static void shut_if_flushed(struct net_q2q *d)
{
	if (d->ended) {
		net_q2q_free(d);
		return;
	}
	if (d->shut || net_q2q_unsent(d))
		return;
	if (d->outer) {
		net_outer_shut(d->outer);
		move_output(d);
		if (net_q2q_unsent(d)) {
			want(d);
			return;
		}
	}
	d->shut = true;
	shutdown(d->config.fd, SHUT_WR);
}

static void tell_end(struct net_q2q *d)
{
	d->told = true;
	net_timer_disarm(&d->timer);
	d->config.on_closed(d->config.user, d, d->error);
}

static void pump(struct net_q2q *d)
{
	struct q2q_conn *conn = d->config.conn;
	const uint64_t now_us = net_loop_now_us(d->loop);

	if (d->told)
		return;
	if (q2q_conn_deadline_us(conn) <= now_us)
		q2q_conn_tick(conn, now_us);
	for (int i = 0; i < ROUNDS_PER_PUMP; i++) {
		/* Output that left makes room, and that is an event. */
		if (!d->closed)
			d->config.on_events(d->config.user, d, conn);
		if (d->freed || !move_output(d))
			break;
	}
	if (d->freed)
		return;
	want(d);
	net_timer_arm(&d->timer, q2q_conn_deadline_us(conn));
	if (d->closed) {
		shut_if_flushed(d);
		return;
	}
	if (!d->ended && q2q_conn_is_over(conn) && !net_q2q_unsent(d))
		end(d, 0);
	if (d->ended) {
		d->config.on_events(d->config.user, d, conn);
		if (!d->freed && !d->closed)
			tell_end(d);
		else if (!d->freed)
			net_q2q_free(d);
	}
}

/* Bytes after net_q2q_close() are of no interest, only their end is. */
static void take_input(struct net_q2q *d, const uint8_t *data, size_t n_bytes)
{
	const uint64_t now_us = net_loop_now_us(d->loop);
	int r;

	if (d->closed)
		return;
	r = q2q_conn_input(d->config.conn, data, n_bytes, now_us);
	d->config.on_events(d->config.user, d, d->config.conn);
	if (r < 0 && !d->freed)
		end(d, r);
}

/* TLS takes what came; the connection gets what was in it. */
static void take_wrapped(struct net_q2q *d, const uint8_t *data, size_t n_bytes)
{
	uint8_t plain[CHUNK_BYTES];
	size_t n_plain;
	int r = net_outer_input(d->outer, data, n_bytes);

	while (r == 0 && !d->ended && !d->freed) {
		r = net_outer_read(d->outer, plain, sizeof(plain), &n_plain);
		if (r == 0)
			take_input(d, plain, n_plain);
	}
	if (d->freed || d->ended || r == CRYPTO_TLS_AGAIN)
		return;
	if (r < 0)
		move_output(d); /* the alert */
	end(d, r < 0 ? r : 0);
}

/* Where TLS may come first, the first byte tells. False: it cannot be. */
static bool look_at_first(struct net_q2q *d, uint8_t first)
{
	int r = 0;

	if (!d->began && d->config.outer_tls && net_outer_begins(first))
		r = net_outer_accept(d->config.outer_tls, &d->outer);
	d->began = true;
	if (r < 0)
		end(d, r);
	return r == 0;
}

static void read_input(struct net_q2q *d)
{
	for (int i = 0; i < CHUNKS_PER_WAKE_UP && !d->ended && !d->freed; i++) {
		uint8_t data[CHUNK_BYTES];
		const ssize_t n = recv(d->config.fd, data, sizeof(data), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			end(d, n < 0 ? -errno : 0);
			return;
		}
		if (!look_at_first(d, data[0]))
			return;
		if (d->outer)
			take_wrapped(d, data, (size_t)n);
		else
			take_input(d, data, (size_t)n);
		if ((size_t)n < sizeof(data))
			return;
	}
}

static void on_ready(void *user, unsigned ready)
{
	struct net_q2q *d = user;

	if (ready & NET_READ)
		read_input(d);
	if (!d->freed)
		pump(d);
}

static void on_deadline(void *user, uint64_t now_us)
{
	(void)now_us;
	pump(user);
}

static void on_soon(void *user)
{
	pump(user);
}

static void on_flush_timeout(void *user, uint64_t now_us)
{
	(void)now_us;
	net_q2q_free(user);
}

static void read_names(struct net_q2q *d)
{
	struct sockaddr_storage sa;
	socklen_t length = sizeof(sa);

	if (getpeername(d->config.fd, (struct sockaddr *)&sa, &length) == 0)
		endpoint_from_sockaddr((struct sockaddr *)&sa, &d->remote);
	length = sizeof(sa);
	if (getsockname(d->config.fd, (struct sockaddr *)&sa, &length) == 0)
		endpoint_from_sockaddr((struct sockaddr *)&sa, &d->local);
}

int net_q2q_new(struct net_loop *loop, const struct net_q2q_config *config,
		struct net_q2q **ret_driver)
{
	struct net_q2q *d = calloc(1, sizeof(*d));
	int r;

	if (!d) {
		close(config->fd);
		return -ENOMEM;
	}
	d->loop = loop;
	d->config = *config;
	net_timer_init(&d->timer, loop, on_deadline, d);
	net_timer_init(&d->flush_timer, loop, on_flush_timeout, d);
	net_soon_init(&d->soon, loop, on_soon, d);
	net_watch_init(&d->watch, loop, config->fd, on_ready, d);
	read_names(d);
	socket_options(config->fd);
	r = config->outer_name ? net_outer_connect(config->outer_name, &d->outer) : 0;
	if (r == 0)
		r = net_watch_want(&d->watch, NET_READ);
	if (r < 0) {
		net_outer_free(d->outer);
		close(config->fd);
		free(d);
		return r;
	}
	if (config->outer_tls)
		crypto_tls_context_ref(config->outer_tls);
	d->config.outer_name = NULL;
	net_soon_queue(&d->soon); /* a client has something to say at once */
	*ret_driver = d;
	return 0;
}

struct q2q_conn *net_q2q_conn(struct net_q2q *driver)
{
	return driver->config.conn;
}

struct endpoint net_q2q_remote(const struct net_q2q *driver)
{
	return driver->remote;
}

struct endpoint net_q2q_local(const struct net_q2q *driver)
{
	return driver->local;
}

bool net_q2q_is_wrapped(const struct net_q2q *driver)
{
	return driver->outer;
}

void net_q2q_pump(struct net_q2q *driver)
{
	if (!driver->told)
		net_soon_queue(&driver->soon);
}

size_t net_q2q_unsent(const struct net_q2q *driver)
{
	return driver->out_end - driver->out_start +
	       (driver->outer ? net_outer_waiting(driver->outer) : 0) +
	       q2q_conn_output_waiting(driver->config.conn);
}

static void end_linger(void *object)
{
	net_q2q_free(object);
}

void net_q2q_close(struct net_q2q *driver)
{
	const uint64_t now_us = net_loop_now_us(driver->loop);

	if (driver->ended) {
		net_q2q_free(driver);
		return;
	}
	driver->closed = true;
	q2q_conn_close(driver->config.conn, now_us);
	net_timer_arm(&driver->flush_timer, now_us + NET_FLUSH_TIMEOUT_US);
	net_loop_linger(driver->loop, &driver->linger, end_linger, driver);
	net_soon_queue(&driver->soon);
}

static void release(void *memory)
{
	struct net_q2q *d = memory;

	q2q_conn_free(d->config.conn);
	net_outer_free(d->outer);
	crypto_tls_context_unref(d->config.outer_tls);
	free(d);
}

/* Closing with unread bytes would reset the connection and may cost the peer our last words. */
static void drain(int fd)
{
	uint8_t data[CHUNK_BYTES];

	shutdown(fd, SHUT_WR);
	for (int i = 0; i < CHUNKS_PER_WAKE_UP; i++)
		if (recv(fd, data, sizeof(data), MSG_DONTWAIT) <= 0)
			return;
}

void net_q2q_free(struct net_q2q *driver)
{
	if (!driver || driver->freed)
		return;
	if (driver->ended && driver->error == 0)
		drain(driver->config.fd);
	driver->freed = true;
	driver->ended = true;
	driver->told = true;
	net_watch_fini(&driver->watch);
	net_timer_disarm(&driver->timer);
	net_timer_disarm(&driver->flush_timer);
	net_soon_cancel(&driver->soon);
	net_linger_end(&driver->linger);
	close(driver->config.fd);
	net_loop_trash(driver->loop, &driver->trash, release, driver);
}
