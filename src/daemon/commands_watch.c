/*
 * Commands that follow something: ping, log, monitor.
 */
#include "config.h"
#include "daemon/internal.h"

#include <stdio.h>

enum {
	PING_COUNT = 4,
	PING_INTERVAL_MS = 1000,
	PING_WAIT_S = 30, /* until direct */
	PINGS_MAX = 64,   /* in flight, of one op */
	LOG_LINES = 50,
};
#define PING_TIMEOUT_US (2 * US_PER_S)

static uint64_t now_of(const struct op *op)
{
	return net_loop_now_us(op->daemon->loop);
}

/* ---- ping ---- */

struct flying {
	uint32_t id; /* 0: free */
	uint64_t seq, sent_us;
};

struct ping {
	struct flying flying[PINGS_MAX];
	uint64_t count, interval_us;
	uint64_t sent, received, direct;
	uint64_t min_us, max_us, sum_us;
	uint64_t next_us;
};

static void ping_finish(struct op *op)
{
	const struct ping *p = op->state;
	const bool until_direct = ctl_bool(&op->request, "until_direct");

	if (until_direct && p->direct == 0 && p->received > 0) {
		op_failf(op, CTL_RELAYED, NULL, "%llu answers came, all of them through the relay",
			 (unsigned long long)p->received);
		return;
	}
	op_done(op, json_pack("{s:I,s:I,s:I,s:I,s:I}", "sent", (json_int_t)p->sent, "received",
			      (json_int_t)p->received, "min_us", (json_int_t)p->min_us, "avg_us",
			      (json_int_t)(p->received ? p->sum_us / p->received : 0), "max_us",
			      (json_int_t)p->max_us));
}

static json_t *pong_path(struct op *op)
{
	json_t *status = links_status(op->peer);
	json_t *path = json_incref(json_object_get(status, "path"));

	json_decref(status);
	return path ? path : json_null();
}

static void ping_pong(struct op *op, uint32_t id, uint64_t rtt_us, struct link *link)
{
	struct ping *p = op->state;
	struct flying *f = NULL;
	struct session_status s;

	for (size_t i = 0; i < PINGS_MAX; i++)
		if (p->flying[i].id == id)
			f = &p->flying[i];
	if (!f || id == 0)
		return;
	session_get_status(link_session(link), &s);
	op_event(op, json_pack("{s:I,s:I,s:o}", "seq", (json_int_t)f->seq, "rtt_us",
			       (json_int_t)rtt_us, "path", pong_path(op)));
	f->id = 0;
	p->min_us = p->received ? min_u64(p->min_us, rtt_us) : rtt_us;
	p->max_us = max_u64(p->max_us, rtt_us);
	p->sum_us += rtt_us;
	p->received++;
	if (s.has_path && !s.relay)
		p->direct++;
	net_timer_arm(&op->timer, now_of(op));
}

static void ping_send(struct op *op, struct link *link)
{
	struct ping *p = op->state;
	struct flying *f = NULL;

	p->next_us = now_of(op) + p->interval_us;
	for (size_t i = 0; i < PINGS_MAX && !f; i++)
		if (p->flying[i].id == 0)
			f = &p->flying[i];
	if (!f)
		return;
	f->seq = ++p->sent;
	f->sent_us = now_of(op);
	f->id = ++link->next_ping;
	/* What cannot be sent now is a ping that gets no answer. */
	session_ping(link_session(link), f->id, link_now_us(link));
	links_pump(link);
}

/* Tells those that came back not; the time of the next one to do so. */
static uint64_t ping_expire(struct op *op)
{
	struct ping *p = op->state;
	uint64_t due_us = NEVER_US;

	for (size_t i = 0; i < PINGS_MAX; i++) {
		struct flying *f = &p->flying[i];

		if (f->id && now_of(op) >= f->sent_us + PING_TIMEOUT_US) {
			f->id = 0;
			op_event(op, json_pack("{s:I}", "seq", (json_int_t)f->seq));
		}
		if (f->id)
			due_us = min_u64(due_us, f->sent_us + PING_TIMEOUT_US);
	}
	return due_us;
}

static void ping_timer(struct op *op)
{
	struct ping *p = op->state;
	struct link *link = op->peer ? op->peer->link : NULL;
	const bool enough = (p->count && p->sent >= p->count) ||
			    (ctl_bool(&op->request, "until_direct") && p->direct > 0);
	uint64_t due_us = ping_expire(op);

	if (!link || (enough && due_us == NEVER_US) ||
	    (ctl_bool(&op->request, "until_direct") && p->direct > 0)) {
		ping_finish(op);
		return;
	}
	if (!enough && now_of(op) >= p->next_us)
		ping_send(op, link);
	if (!enough || p->sent == 0)
		due_us = min_u64(due_us, p->next_us);
	net_timer_arm(&op->timer, min_u64(due_us, now_of(op) + PING_TIMEOUT_US));
}

static void ping_end(struct op *op)
{
	free(op->state);
}

void command_ping(struct op *op)
{
	struct problem problem;
	struct ping *p;

	op->peer = op_peer(op);
	if (!op->peer)
		return;
	if (!op->peer->link) {
		op_failf(op, CTL_OFFLINE, "q2q-tun up ADDRESS", "the tunnel to %s is down",
			 op->peer->address.text);
		return;
	}
	if (links_problem(op->peer->link, &problem)) {
		op_fail(op, &problem);
		return;
	}
	p = calloc(1, sizeof(*p));
	op->state = p;
	op->on_end = ping_end;
	if (!p) {
		op_failf(op, CTL_FAILED, NULL, "out of memory");
		return;
	}
	p->count = ctl_uint(&op->request, "count", PING_COUNT);
	p->interval_us =
		max_u64(ctl_uint(&op->request, "interval_ms", PING_INTERVAL_MS), 10) * US_PER_MS;
	if (ctl_bool(&op->request, "until_direct") && !json_object_get(op->request.args, "count"))
		p->count = ctl_uint(&op->request, "timeout_s", PING_WAIT_S) * US_PER_S /
			   p->interval_us;
	op->on_pong = ping_pong;
	op->on_timer = ping_timer;
	net_timer_arm(&op->timer, now_of(op));
}

/* ---- log, monitor ---- */

static void log_line(struct op *op, int level, const char *text)
{
	struct logring_line line = { .time_s = wall_clock_s(), .level = level };

	snprintf(line.text, sizeof(line.text), "%s", text);
	op_event(op, logring_event(&line));
}

void command_log(struct op *op)
{
	const struct logring *ring = &op->daemon->log;
	const size_t wanted = (size_t)ctl_uint(&op->request, "lines", LOG_LINES);

	for (size_t i = ring->n - min_size(wanted, ring->n); i < ring->n; i++)
		op_event(op, logring_event(&ring->lines[(ring->first + i) % LOGRING_LINES]));
	if (ctl_bool(&op->request, "follow"))
		op->on_log = log_line;
	else
		op_done(op, json_object());
}

void command_monitor(struct op *op)
{
	op->on_event = op_event;
}

void command_version(struct op *op)
{
	op_done(op, json_pack("{s:s,s:i}", "version", PACKAGE_VERSION, "protocol", CTL_VERSION));
}
