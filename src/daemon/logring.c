/*
 * The last lines of the log, for `q2q-tun log`.
 */
#include "daemon/internal.h"

#include <stdio.h>

void logring_add(struct daemon *d, int level, const char *text)
{
	struct logring *ring = &d->log;
	struct logring_line *line = &ring->lines[(ring->first + ring->n) % LOGRING_LINES];
	struct op *op, *next;

	if (ring->n < LOGRING_LINES)
		ring->n++;
	else
		ring->first = (ring->first + 1) % LOGRING_LINES;
	line->time_s = wall_clock_s();
	line->level = level;
	snprintf(line->text, sizeof(line->text), "%s", text);
	if (ring->busy)
		return;
	ring->busy = true;
	for (op = TAILQ_FIRST(&d->ops); op; op = next) {
		next = TAILQ_NEXT(op, all);
		if (op->on_log)
			op->on_log(op, line->level, line->text);
	}
	ring->busy = false;
}

static void tee(void *user, enum log_level level, const char *text)
{
	if (workers_in_control())
		logring_add(user, (int)level, text);
	else
		workers_tell_log(level, text);
}

int logring_init(struct daemon *d)
{
	const struct log_config config = {
		.program = "q2q-tund",
		.level = (enum log_level)d->options->log_level,
		.journal_prefix = getenv("JOURNAL_STREAM") != NULL,
		.tee = tee,
		.user = d,
	};

	d->log.lines = calloc(LOGRING_LINES, sizeof(*d->log.lines));
	if (!d->log.lines)
		return -ENOMEM;
	log_setup(&config);
	return 0;
}

void logring_fini(struct daemon *d)
{
	const struct log_config config = {
		.program = "q2q-tund",
		.level = (enum log_level)d->options->log_level,
		.journal_prefix = getenv("JOURNAL_STREAM") != NULL,
	};

	log_setup(&config);
	free(d->log.lines);
}

static const char *level_name(int level)
{
	switch (level) {
	case LOG_ERROR_:
		return "error";
	case LOG_WARN_:
		return "warning";
	case LOG_NOTE_:
		return "notice";
	case LOG_DEBUG_:
		return "debug";
	default:
		return "info";
	}
}

json_t *logring_event(const struct logring_line *line)
{
	return json_pack("{s:I,s:s,s:s}", "time", (json_int_t)line->time_s, "level",
			 level_name(line->level), "line", line->text);
}
