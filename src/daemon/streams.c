/*
 * TCP connections with peers, for direct paths where UDP does not get through:
 * the port that we listen on, those who come there, and those that a session
 * wants. What goes over them is the session's business (doc/nat.md, section 11).
 *
 * All of it is the control plane's; sessions of other workers are entered.
 *
 * Who comes is a stranger until the session says otherwise, gets no byte, and has a
 * few seconds; strangers are few, of one address and in all.
 */
#include "daemon/internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	READ_BYTES = 65536,
	READS_PER_WAKE_UP = 4,
	QUEUE_BYTES_MAX = 128 * 1024, /* of one connection; then frames are dropped */
	NOTSENT_BYTES = 32 * 1024, /* in the kernel beyond the window: as little as keeps it busy */
	STRANGERS_MAX = 32,
	STRANGERS_PER_ADDRESS_MAX = 4,
	KEEPALIVE_IDLE_S = 25,
	KEEPALIVE_STEP_S = 5,
	KEEPALIVE_TRIES = 3,
	USER_TIMEOUT_MS = 10000,
};
#define CONNECT_TIMEOUT_US (5 * US_PER_S)
#define STRANGER_US        (5 * US_PER_S)

struct daemon_stream {
	struct daemon *daemon;
	struct link *link; /* NULL: a stranger */
	uint16_t number;
	int fd;                      /* -1: being connected */
	struct net_connect *connect; /* until then */
	struct net_watch watch;
	struct net_timer deadline; /* of a stranger */
	struct endpoint remote;
	uint8_t hello[SESSION_STREAM_HELLO_BYTES];
	size_t hello_bytes;
	struct buffer queue; /* whole frames, the first of them maybe cut */
	size_t in_use;       /* callbacks that stand in it */
	bool dead;
	LIST_ENTRY(daemon_stream) entry;
};

/* ---- life ---- */

static void release(struct daemon_stream *t)
{
	buffer_fini(&t->queue);
	free(t);
}

static void leave(struct daemon_stream *t)
{
	if (--t->in_use == 0 && t->dead)
		release(t);
}

/* The session does not know it, or not any more. */
static void stream_free(struct daemon_stream *t)
{
	if (t->dead)
		return;
	t->dead = true;
	LIST_REMOVE(t, entry);
	net_connect_cancel(t->connect);
	net_watch_fini(&t->watch);
	net_timer_disarm(&t->deadline);
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	if (t->in_use == 0)
		release(t);
}

/* It came to its end, which the session has to know. */
static void stream_end(struct daemon_stream *t)
{
	struct link *link = t->link;
	const uint16_t number = t->number;

	stream_free(t);
	if (!link)
		return;
	session_stream_closed(link_session(link), number, link_now_us(link));
	links_pump(link);
}

static struct daemon_stream *find(struct daemon *d, uint16_t number)
{
	struct daemon_stream *t;

	LIST_FOREACH (t, &d->streams.list, entry)
		if (t->number == number)
			return t;
	return NULL;
}

/* A number that no stream has: they are fewer. */
static uint16_t next_number(struct daemon *d)
{
	do {
		d->streams.last_number++;
	} while (d->streams.last_number == 0 || find(d, d->streams.last_number));
	return d->streams.last_number;
}

static void on_deadline(void *user, uint64_t now_us)
{
	(void)now_us;
	stream_end(user);
}

static struct daemon_stream *stream_new(struct daemon *d, struct link *link,
					const struct endpoint *remote)
{
	struct daemon_stream *t, *each;
	unsigned n = 0;

	LIST_FOREACH (each, &d->streams.list, entry)
		n++;
	t = n < STREAMS_MAX ? calloc(1, sizeof(*t)) : NULL;
	if (!t)
		return NULL;
	t->daemon = d;
	t->link = link;
	t->fd = -1;
	t->remote = *remote;
	t->number = next_number(d);
	buffer_init(&t->queue, QUEUE_BYTES_MAX, false);
	net_timer_init(&t->deadline, d->loop, on_deadline, t);
	LIST_INSERT_HEAD(&d->streams.list, t, entry);
	return t;
}

/* ---- bytes ---- */

static void want(struct daemon_stream *t)
{
	net_watch_want(&t->watch, NET_READ | (buffer_used(&t->queue) ? NET_WRITE : 0));
}

static void write_queue(struct daemon_stream *t)
{
	while (!t->dead && buffer_used(&t->queue)) {
		const ssize_t n = send(t->fd, buffer_peek(&t->queue), buffer_used(&t->queue),
				       MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			stream_end(t);
			return;
		}
		buffer_consume(&t->queue, (size_t)n);
	}
	if (!t->dead)
		want(t);
}

/* Its hello names whose it is. Not a byte of an answer before that. */
static void greet(struct daemon_stream *t)
{
	struct daemon *d = t->daemon;
	struct worker *w = d->n_workers > 1 ? directory_find(d, SESSION_NAME_STREAM, t->hello + 1,
							     SESSION_STREAM_TAG_BYTES)
					    : &d->workers[0];
	struct link *link = NULL;

	if (w) {
		workers_enter(w);
		link = index_find(w, SESSION_NAME_STREAM, t->hello + 1, SESSION_STREAM_TAG_BYTES);
	}
	if (!link || session_stream_accepted(link_session(link), t->number, &t->remote, t->hello,
					     link_now_us(link))) {
		d->streams.n_strange++;
		stream_free(t);
		return;
	}
	t->link = link;
	net_timer_disarm(&t->deadline); /* the session's counts from here */
	links_pump(link);
}

static void input(struct daemon_stream *t, uint8_t *data, size_t n_bytes)
{
	struct link *link;

	if (!t->link) {
		const size_t taken = min_size(n_bytes, sizeof(t->hello) - t->hello_bytes);

		memcpy(t->hello + t->hello_bytes, data, taken);
		t->hello_bytes += taken;
		data += taken;
		n_bytes -= taken;
		if (t->hello_bytes < sizeof(t->hello))
			return;
		greet(t);
		if (t->dead || n_bytes == 0)
			return;
	}
	link = t->link;
	if (session_stream_input(link_session(link), t->number, data, n_bytes, link_now_us(link)) <
	    0)
		stream_free(t);
	links_pump(link);
}

static void read_input(struct daemon_stream *t)
{
	uint8_t *data = t->daemon->streams.room;

	for (int i = 0; i < READS_PER_WAKE_UP && !t->dead; i++) {
		const size_t room = t->link ? READ_BYTES : sizeof(t->hello) - t->hello_bytes;
		const ssize_t n = recv(t->fd, data, room, MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			stream_end(t);
			return;
		}
		input(t, data, (size_t)n);
		if ((size_t)n < room)
			return;
	}
}

static void on_ready(void *user, unsigned ready)
{
	struct daemon_stream *t = user;

	t->in_use++;
	if (ready & NET_WRITE)
		write_queue(t);
	if ((ready & NET_READ) && !t->dead)
		read_input(t);
	leave(t);
}

static void set(int fd, int level, int option, int value)
{
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

static int stream_watch(struct daemon_stream *t, int fd)
{
	t->fd = fd;
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_BYTES);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_STEP_S);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_TRIES);
	net_watch_init(&t->watch, t->daemon->loop, fd, on_ready, t);
	return net_watch_want(&t->watch, NET_READ);
}

/* Frame by frame: what has no room is lost, as on any path that is full. */
void streams_send(struct daemon *d, uint16_t number, bool framed, const uint8_t *data,
		  size_t n_bytes)
{
	struct daemon_stream *t = find(d, number);
	struct reader r = reader_over(data, n_bytes);

	if (!t || t->fd < 0)
		return;
	while (r.left_bytes > 0) {
		const uint8_t *at = r.data;
		const size_t frame_bytes = framed ? 2 + (size_t)reader_u16(&r) : r.left_bytes;
		uint8_t *room;

		if (!reader_bytes(&r, framed ? frame_bytes - 2 : frame_bytes))
			return;
		if (buffer_reserve(&t->queue, frame_bytes, &room)) {
			d->streams.n_dropped++;
			continue;
		}
		memcpy(room, at, frame_bytes);
		buffer_commit(&t->queue, frame_bytes);
	}
	t->in_use++;
	write_queue(t);
	leave(t);
}

/* ---- connecting ---- */

static void on_connected(void *user, int error, int fd, const struct endpoint *remote)
{
	struct daemon_stream *t = user;
	struct link *link = t->link;

	(void)remote;
	t->connect = NULL;
	if (error) {
		stream_free(t);
		return;
	}
	if (stream_watch(t, fd) ||
	    session_stream_connected(link_session(link), t->number, &t->remote, link_now_us(link)))
		stream_free(t);
	links_pump(link);
}

static bool is_trying(struct daemon *d, const struct link *link, const struct endpoint *remote)
{
	const struct daemon_stream *t;

	LIST_FOREACH (t, &d->streams.list, entry)
		if (t->link == link && endpoint_equal(&t->remote, remote))
			return true;
	return false;
}

void streams_connect(struct link *link)
{
	struct daemon *d = link->daemon;
	struct endpoint targets[SESSION_STREAMS_MAX];
	const size_t n = session_stream_targets(link_session(link), targets, ARRAY_SIZE(targets));

	for (size_t i = 0; i < n; i++) {
		struct daemon_stream *t;

		if (is_trying(d, link, &targets[i]))
			continue;
		t = stream_new(d, link, &targets[i]);
		if (!t)
			return;
		if (net_connect_new(d->loop, &targets[i], 1, CONNECT_TIMEOUT_US, on_connected, t,
				    &t->connect)) {
			t->connect = NULL;
			stream_free(t);
		}
	}
}

void streams_close(struct daemon *d, uint16_t number)
{
	struct daemon_stream *t = find(d, number);

	if (t)
		stream_free(t);
}

void streams_forget(struct link *link)
{
	struct daemon_stream *t, *next;

	for (t = LIST_FIRST(&link->daemon->streams.list); t; t = next) {
		next = LIST_NEXT(t, entry);
		if (t->link == link)
			stream_free(t);
	}
}

/* ---- listening ---- */

static bool may_enter(const struct daemon *d, const struct endpoint *from)
{
	unsigned n_all = 0, n_same = 0;
	const struct daemon_stream *t;

	LIST_FOREACH (t, &d->streams.list, entry)
		if (!t->link) {
			n_all++;
			n_same += ip_equal(&t->remote.ip, &from->ip);
		}
	return n_all < STRANGERS_MAX && n_same < STRANGERS_PER_ADDRESS_MAX;
}

static void on_accepted(void *user, int fd, const struct endpoint *from)
{
	struct daemon *d = user;
	struct daemon_stream *t = may_enter(d, from) ? stream_new(d, NULL, from) : NULL;

	if (!t) {
		d->streams.n_strange++;
		close(fd);
		return;
	}
	net_timer_arm(&t->deadline, net_loop_now_us(d->loop) + STRANGER_US);
	if (stream_watch(t, fd))
		stream_free(t);
}

uint16_t streams_port(const struct daemon *d)
{
	return d->streams.listener ? net_listener_local(d->streams.listener).port : 0;
}

void streams_start(struct daemon *d)
{
	const int wanted = d->options->tcp_port;
	const struct endpoint local = {
		.port = wanted == DAEMON_TCP_PORT_AUTO ? d->workers[0].udp.sockets[0].local.port
						       : (uint16_t)wanted,
	};
	int r = 0;

	LIST_INIT(&d->streams.list);
	d->streams.room = malloc(READ_BYTES);
	if (!d->streams.room)
		r = -ENOMEM;
	else if (wanted != DAEMON_TCP_PORT_OFF)
		r = net_listen_tcp(d->loop, &local, on_accepted, d, &d->streams.listener);
	if (r)
		log_warn("cannot open TCP port %u: %s. Peers that have no UDP cannot connect to "
			 "this machine",
			 local.port, strerror(-r));
}

void streams_stop(struct daemon *d)
{
	struct daemon_stream *t;

	while ((t = LIST_FIRST(&d->streams.list)))
		stream_free(t);
	net_listener_free(d->streams.listener);
	d->streams.listener = NULL;
	free(d->streams.room);
	d->streams.room = NULL;
}
