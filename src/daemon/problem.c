/*
 * Problems: what failed, why, and what to do next.
 */
#include "daemon/internal.h"

#include <stdio.h>
#include <time.h>

void problem_set(struct problem *p, enum ctl_code code, const char *format, ...)
{
	va_list args;

	p->code = code;
	p->hint[0] = '\0';
	va_start(args, format);
	vsnprintf(p->error, sizeof(p->error), format, args);
	va_end(args);
}

void problem_hint(struct problem *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(p->hint, sizeof(p->hint), format, args);
	va_end(args);
}

int64_t wall_clock_s(void)
{
	return (int64_t)time(NULL);
}
