/*
 * ahead - for LD_PRELOAD: the program's clock is AHEAD_S seconds ahead.
 *
 * Only the time of day: what measures intervals does so by other clocks, which stay.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static time_t ahead_s(void)
{
	const char *text = getenv("AHEAD_S");

	return text ? (time_t)strtoll(text, NULL, 10) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int (*next)(clockid_t, struct timespec *);
	int r;

	*(void **)&next = dlsym(RTLD_NEXT, "clock_gettime");
	r = next(clock, ts);
	if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		ts->tv_sec += ahead_s();
	return r;
}

time_t time(time_t *ret_time)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_REALTIME, &ts) < 0)
		return (time_t)-1;
	if (ret_time)
		*ret_time = ts.tv_sec;
	return ts.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &ts) < 0)
		return -1;
	*tv = (struct timeval){ .tv_sec = ts.tv_sec, .tv_usec = ts.tv_nsec / 1000 };
	return 0;
}
