/*
 * The log of the programs: one line per event on standard error, where systemd
 * or a terminal picks it up, and a tee for `q2q-tun log`. Text that came from
 * the network is sanitised here as well, whatever the caller did.
 */
#include "base/base.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_BYTES 1024

static struct log_config config = { .level = LOG_INFO_ };
static _Thread_local int own_level = -1; /* -1: that of `config` */

void log_setup(const struct log_config *c)
{
	config = *c;
	own_level = -1;
}

void log_set_level(enum log_level level)
{
	own_level = (int)level;
}

static size_t prefix(char *out, size_t out_bytes, enum log_level level)
{
	struct timespec now;
	struct tm tm;
	size_t used;

	if (config.journal_prefix)
		return (size_t)snprintf(out, out_bytes, "<%d>", (int)level);
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	used = strftime(out, out_bytes, "%F %T", &tm);
	used += (size_t)snprintf(out + used, out_bytes - used, ".%03ld ", now.tv_nsec / 1000000);
	if (config.program)
		used += (size_t)snprintf(out + used, out_bytes - used, "%s: ", config.program);
	return used;
}

void log_write(enum log_level level, const char *format, ...)
{
	char text[LOG_LINE_BYTES], clean[LOG_LINE_BYTES], line[LOG_LINE_BYTES + 64];
	const int saved = errno;
	va_list args;
	size_t used;

	if ((int)level > (own_level < 0 ? (int)config.level : own_level))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_sanitize(text, strlen(text), clean, sizeof(clean));
	if (config.tee)
		config.tee(config.user, level, clean);
	used = prefix(line, 64, level);
	used += (size_t)snprintf(line + used, sizeof(line) - used, "%s\n", clean);
	/* One write, so that lines of two processes do not mix; a full pipe loses the line. */
	if (write(STDERR_FILENO, line, min_size(used, sizeof(line) - 1)) < 0)
		errno = saved;
	errno = saved;
}

bool log_allowed(struct log_limit *limit, uint64_t now_us)
{
	if (now_us - limit->window_start_us >= limit->interval_us) {
		if (limit->n_suppressed > 0)
			log_warn("%llu similar lines left out",
				 (unsigned long long)limit->n_suppressed);
		limit->window_start_us = now_us;
		limit->used = 0;
		limit->n_suppressed = 0;
	}
	if (limit->used >= limit->burst) {
		limit->n_suppressed++;
		return false;
	}
	limit->used++;
	return true;
}
