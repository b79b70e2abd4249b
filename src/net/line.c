/* line - a stream socket that carries lines of text, for the control socket. */
#include "net/internal.h"

#include <unistd.h>

#define READ_BYTES        16384
#define READS_PER_WAKE_UP 8
#define OUTPUT_LINES      4 /* the default output bound, in longest lines */

struct net_line {
	struct net_loop *loop;
	struct net_line_config config;
	struct net_watch watch;
	struct net_timer flush_timer;
	struct net_trash trash;
	struct net_linger linger;
	struct net_soon told; /* reports the end from the loop */
	struct buffer input, output;
	int error;   /* why it ended; meaningful once `ended` */
	bool ended;  /* no more reading or writing */
	bool closed; /* the owner has let go; only the output is flushed */
	bool freed;
};

static void want(struct net_line *l)
{
	unsigned wanted = 0;

	if (!l->ended && !l->closed)
		wanted |= NET_READ;
	if (!l->ended && buffer_used(&l->output))
		wanted |= NET_WRITE;
	net_watch_want(&l->watch, wanted);
}

static void tell_end(void *user)
{
	struct net_line *l = user;

	if (l->config.on_closed)
		l->config.on_closed(l->config.user, l, l->error);
}

static void end(struct net_line *l, int error)
{
	if (l->ended)
		return;
	l->ended = true;
	l->error = error;
	want(l);
	if (l->closed)
		net_line_free(l);
	else
		net_soon_queue(&l->told);
}

static void write_output(struct net_line *l)
{
	const bool had = buffer_used(&l->output) > 0;

	while (!l->ended && buffer_used(&l->output)) {
		const ssize_t n = send(l->config.fd, buffer_peek(&l->output),
				       buffer_used(&l->output), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			end(l, -errno);
			return;
		}
		buffer_consume(&l->output, (size_t)n);
	}
	want(l);
	if (buffer_used(&l->output) || !had)
		return;
	if (l->closed)
		net_line_free(l);
	else if (l->config.on_drained)
		l->config.on_drained(l->config.user, l);
}

/* Hands out the whole lines of the input. False: too long, or let go meanwhile. */
static bool hand_out_lines(struct net_line *l, size_t scanned_bytes)
{
	while (!l->closed && !l->freed) {
		uint8_t *start = l->input.data + l->input.start;
		const size_t used = buffer_used(&l->input);
		uint8_t *newline = used > scanned_bytes ? memchr(start + scanned_bytes, '\n',
								 used - scanned_bytes)
							: NULL;
		size_t text_bytes;

		if (!newline) {
			if (used < l->config.line_bytes_max)
				return true;
			end(l, -EMSGSIZE);
			return false;
		}
		text_bytes = (size_t)(newline - start);
		*newline = 0;
		scanned_bytes = 0;
		l->config.on_line(l->config.user, l, (char *)start, text_bytes);
		if (!l->freed)
			buffer_consume(&l->input, text_bytes + 1);
	}
	return false;
}

static void read_input(struct net_line *l)
{
	for (int i = 0; i < READS_PER_WAKE_UP && !l->ended && !l->closed && !l->freed; i++) {
		const size_t before = buffer_used(&l->input);
		const size_t room_bytes =
			min_size(READ_BYTES, l->config.line_bytes_max + 1 - before);
		uint8_t *room;
		ssize_t n;

		if (buffer_reserve(&l->input, room_bytes, &room) < 0) {
			end(l, -ENOMEM);
			return;
		}
		n = recv(l->config.fd, room, room_bytes, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			end(l, n < 0 ? -errno : 0);
			return;
		}
		buffer_commit(&l->input, (size_t)n);
		if (!hand_out_lines(l, before))
			return;
	}
}

static void on_ready(void *user, unsigned ready)
{
	struct net_line *l = user;

	if (ready & NET_WRITE)
		write_output(l);
	if ((ready & NET_READ) && !l->freed)
		read_input(l);
}

static void on_flush_timeout(void *user, uint64_t now_us)
{
	(void)now_us;
	net_line_free(user);
}

int net_line_new(struct net_loop *loop, const struct net_line_config *config,
		 struct net_line **ret_line)
{
	struct net_line *l = calloc(1, sizeof(*l));
	int r;

	if (!l) {
		close(config->fd);
		return -ENOMEM;
	}
	l->loop = loop;
	l->config = *config;
	if (!l->config.line_bytes_max)
		l->config.line_bytes_max = NET_LINE_BYTES_MAX;
	if (!l->config.output_bytes_max)
		l->config.output_bytes_max = OUTPUT_LINES * (size_t)NET_LINE_BYTES_MAX;
	buffer_init(&l->input, l->config.line_bytes_max + 1, true);
	buffer_init(&l->output, l->config.output_bytes_max, true);
	net_timer_init(&l->flush_timer, loop, on_flush_timeout, l);
	net_soon_init(&l->told, loop, tell_end, l);
	net_watch_init(&l->watch, loop, config->fd, on_ready, l);
	r = net_watch_want(&l->watch, NET_READ);
	if (r < 0) {
		net_line_free(l);
		return r;
	}
	*ret_line = l;
	return 0;
}

int net_line_send(struct net_line *line, const char *text, size_t text_bytes)
{
	uint8_t *room;
	int r;

	if (line->ended || line->closed)
		return -EPIPE;
	r = buffer_reserve(&line->output, text_bytes + 1, &room);
	if (r < 0)
		return r == -ENOMEM ? r : -ENOBUFS;
	if (text_bytes)
		memcpy(room, text, text_bytes);
	room[text_bytes] = '\n';
	buffer_commit(&line->output, text_bytes + 1);
	want(line); /* several lines of one wake-up leave in one write */
	return 0;
}

size_t net_line_unsent(const struct net_line *line)
{
	return buffer_used(&line->output);
}

static void end_linger(void *object)
{
	net_line_free(object);
}

void net_line_close(struct net_line *line)
{
	line->closed = true;
	net_soon_cancel(&line->told);
	if (line->ended || !buffer_used(&line->output)) {
		net_line_free(line);
		return;
	}
	want(line);
	net_loop_linger(line->loop, &line->linger, end_linger, line);
	net_timer_arm(&line->flush_timer, net_loop_now_us(line->loop) + NET_FLUSH_TIMEOUT_US);
}

static void release(void *memory)
{
	struct net_line *l = memory;

	buffer_fini(&l->input);
	buffer_fini(&l->output);
	free(l);
}

void net_line_free(struct net_line *line)
{
	if (!line || line->freed)
		return;
	line->freed = true;
	line->ended = true;
	net_watch_fini(&line->watch);
	net_timer_disarm(&line->flush_timer);
	net_soon_cancel(&line->told);
	net_linger_end(&line->linger);
	close(line->config.fd);
	net_loop_trash(line->loop, &line->trash, release, line);
}
