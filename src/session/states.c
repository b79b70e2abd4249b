/*
 * The states of a link, and when it is tried again.
 */
#include "session/internal.h"

#include <stdio.h>

/* ---- names ---- */

static const char *const state_names[] = {
	[SESSION_DOWN] = "down",
	[SESSION_WAITING] = "waiting",
	[SESSION_RENDEZVOUS] = "rendezvous",
	[SESSION_CONNECTING] = "connecting",
	[SESSION_UP] = "up",
	[SESSION_STALLED] = "stalled",
	[SESSION_CLOSING] = "closing",
};
static_assert(ARRAY_SIZE(state_names) == SESSION_STATE_COUNT, "one name per state");

static const char *const input_names[] = {
	[INPUT_WANT] = "wanted",
	[INPUT_UNWANT] = "not wanted",
	[INPUT_REST] = "attempt ended",
	[INPUT_ATTEMPT] = "attempt",
	[INPUT_ASSOCIATION] = "offers exchanged",
	[INPUT_ESTABLISHED] = "established",
	[INPUT_OUTAGE] = "no path works",
	[INPUT_PATH] = "a path works",
	[INPUT_CLOSE] = "closed by us",
	[INPUT_LOST] = "association gone",
};
static_assert(ARRAY_SIZE(input_names) == INPUT_COUNT, "one name per input");

static const char *const mode_names[] = { "auto", "direct", "relay", "lan" };
static_assert(ARRAY_SIZE(mode_names) == SESSION_PATH_MODE_COUNT, "one name per mode");

/* When an attempt that failed for this reason is made again: first, and at most. */
static const struct why {
	const char *name;
	uint64_t first_us, max_us;
} whys[] = {
	[SESSION_WHY_NONE] = { "none", 0, 60 * US_PER_S },
	[SESSION_WHY_OFFLINE] = { "offline", 5 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_UNKNOWN] = { "unknown", 60 * US_PER_S, 300 * US_PER_S },
	[SESSION_WHY_DISABLED] = { "disabled", 60 * US_PER_S, 300 * US_PER_S },
	[SESSION_WHY_REFUSED] = { "refused", 5 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_BUSY] = { "busy", 3 * US_PER_S, 10 * US_PER_S },
	[SESSION_WHY_PEER_DOWN] = { "peer-down", 10 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_SERVER] = { "server", 1 * US_PER_S, 30 * US_PER_S },
	[SESSION_WHY_UNTRUSTED] = { "untrusted", 300 * US_PER_S, 3600 * US_PER_S },
	[SESSION_WHY_REJECTED] = { "rejected", 60 * US_PER_S, 300 * US_PER_S },
	[SESSION_WHY_TIMED_OUT] = { "timed-out", 2 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_LOST] = { "lost", 500 * US_PER_MS, 60 * US_PER_S },
	[SESSION_WHY_GOING_AWAY] = { "going-away", 2 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_PROTOCOL] = { "protocol", 5 * US_PER_S, 60 * US_PER_S },
	[SESSION_WHY_STOPPED] = { "stopped", 1 * US_PER_S, 60 * US_PER_S },
};
static_assert(ARRAY_SIZE(whys) == SESSION_WHY_COUNT, "one line per reason");

const char *session_state_name(enum session_state state)
{
	return (unsigned)state < SESSION_STATE_COUNT ? state_names[state] : "?";
}

const char *session_why_name(enum session_why why)
{
	return (unsigned)why < SESSION_WHY_COUNT ? whys[why].name : "?";
}

const char *session_path_mode_name(enum session_path_mode mode)
{
	return (unsigned)mode < SESSION_PATH_MODE_COUNT ? mode_names[mode] : "?";
}

/* ---- states ---- */

/* REST: WAITING if the link is wanted, else DOWN. KEEP: the input means nothing here. */
enum { KEEP = 0, REST = -1 };
#define TO(state) (SESSION_##state + 1)

/* clang-format off */
static const int table[SESSION_STATE_COUNT][INPUT_COUNT] = {
	[SESSION_DOWN] = {
		[INPUT_WANT] = TO(WAITING),
		[INPUT_ATTEMPT] = TO(RENDEZVOUS),
		[INPUT_ASSOCIATION] = TO(CONNECTING),
	},
	[SESSION_WAITING] = {
		[INPUT_UNWANT] = TO(DOWN),
		[INPUT_ATTEMPT] = TO(RENDEZVOUS),
		[INPUT_ASSOCIATION] = TO(CONNECTING),
	},
	[SESSION_RENDEZVOUS] = {
		[INPUT_UNWANT] = TO(DOWN),
		[INPUT_REST] = REST,
		[INPUT_ASSOCIATION] = TO(CONNECTING),
	},
	[SESSION_CONNECTING] = {
		[INPUT_ESTABLISHED] = TO(UP),
		[INPUT_CLOSE] = TO(CLOSING),
		[INPUT_LOST] = REST,
	},
	[SESSION_UP] = {
		[INPUT_ASSOCIATION] = TO(CONNECTING),
		[INPUT_OUTAGE] = TO(STALLED),
		[INPUT_CLOSE] = TO(CLOSING),
		[INPUT_LOST] = REST,
	},
	[SESSION_STALLED] = {
		[INPUT_ASSOCIATION] = TO(CONNECTING),
		[INPUT_PATH] = TO(UP),
		[INPUT_CLOSE] = TO(CLOSING),
		[INPUT_LOST] = REST,
	},
	[SESSION_CLOSING] = {
		[INPUT_ASSOCIATION] = TO(CONNECTING),
		[INPUT_LOST] = REST,
	},
};
/* clang-format on */

static void check(const struct session *s)
{
	const bool has = s->assoc != NULL;

	(void)has;
	assert(!has == !s->keys);
	assert(s->state != SESSION_UP || has);
	assert(s->state != SESSION_STALLED || has);
	assert(s->state != SESSION_CONNECTING || has);
	assert(s->state != SESSION_CLOSING || has);
}

/* The one place that changes the state, so the one place that traces it. */
void session_dispatch(struct session *s, enum session_input input, const char *because,
		      uint64_t now_us)
{
	const enum session_state from = s->state;
	const int cell = table[from][input];
	struct session_event event = { .type = SESSION_EVENT_STATE };

	if (cell == KEEP)
		return;
	if (cell == REST)
		s->state = s->wanted ? SESSION_WAITING : SESSION_DOWN;
	else
		s->state = (enum session_state)(cell - 1);
	check(s);
	if (s->state == from)
		return;
	s->since_us = now_us;
	if (s->config.trace)
		s->config.trace(s->config.user, "link", state_names[from], state_names[s->state],
				because ? because : input_names[input]);
	event.state.from = from;
	event.state.to = s->state;
	session_event_push(s, &event);
}

static bool grow_events(struct session *s)
{
	const unsigned n = 2 * s->event_room;
	struct session_event *events = malloc(n * sizeof(*events));

	if (!events)
		return false;
	for (unsigned i = 0; i < s->n_events; i++)
		events[i] = s->events[(s->first_event + i) % s->event_room];
	free(s->events);
	s->events = events;
	s->event_room = n;
	s->first_event = 0;
	return true;
}

void session_event_push(struct session *s, const struct session_event *event)
{
	/* Pulled after each input; what no caller pulls for so long is not missed. One input from
	 * the peer may bring any number of pongs, which must not take the place of the others. */
	if (s->n_events >=
	    (event->type == SESSION_EVENT_PONG ? SESSION_EVENTS_MAX / 2 : SESSION_EVENTS_MAX))
		return;
	if (s->n_events == s->event_room && !grow_events(s))
		return;
	s->events[(s->first_event + s->n_events++) % s->event_room] = *event;
}

bool session_next_event(struct session *s, struct session_event *ret_event)
{
	if (s->n_events == 0)
		return false;
	*ret_event = s->events[s->first_event];
	s->first_event = (s->first_event + 1) % s->event_room;
	s->n_events--;
	return true;
}

/* ---- when to try again ---- */

void session_set_why(struct session *s, enum session_why why, const char *text)
{
	s->why = why;
	snprintf(s->why_text, sizeof(s->why_text), "%s", text ? text : "");
}

void session_plan_retry(struct session *s, enum session_why why, uint64_t now_us)
{
	uint64_t delay_us = whys[why].first_us;
	uint8_t jitter = 0;

	for (unsigned i = 0; i < s->n_failures && delay_us < whys[why].max_us; i++)
		delay_us += delay_us / 2;
	delay_us = min_u64(delay_us, whys[why].max_us);
	/* Two ends that lost each other at once should not ask at once: up to an eighth later. */
	if (!s->config.random_bytes(s->config.user, &jitter, sizeof(jitter)))
		delay_us += delay_us * jitter / 2048;
	if (s->n_failures < 64)
		s->n_failures++;
	s->retry_us = now_us + delay_us;
}

/* Is another rendezvous needed, by us? Where only the peer wants the link, it asks. */
bool session_needs_rendezvous(const struct session *s)
{
	if (s->pending.phase != RENDEZVOUS_NONE)
		return false;
	if (!s->wanted)
		return s->nudge && (s->state == SESSION_DOWN ||
				    (s->state == SESSION_UP && s->open.phase == RENDEZVOUS_NONE));
	switch (s->state) {
	case SESSION_WAITING:
	case SESSION_STALLED:
		return true;
	case SESSION_UP:
		return s->open.phase == RENDEZVOUS_NONE;
	default:
		return false;
	}
}

void session_nudge(struct session *s, uint64_t now_us)
{
	s->nudge = true;
	session_wake(s, now_us);
}

void session_wake(struct session *s, uint64_t now_us)
{
	s->n_failures = 0;
	s->retry_us = min_u64(s->retry_us, now_us);
}
