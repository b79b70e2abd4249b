/* State files, without waiting for the disk. */
#include "daemon/disk.h"
#include "daemon/files.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAITING_MAX 64 /* then a write waits for the first of them */

/* What the job at the head waits for. */
enum stage { STAGE_FILE, STAGE_DIRECTORY };

struct job {
	TAILQ_ENTRY(job) entry;
	enum stage stage;
	int fd;
	char path[FILES_PATH_BYTES], tmp[FILES_PATH_BYTES + 32];
};

TAILQ_HEAD(job_list, job);

struct disk {
	aio_context_t aio;
	int event_fd;
	struct net_watch watch;
	void (*settled)(void *user);
	void *user;
	struct job_list jobs; /* the first is with the kernel */
	unsigned n_jobs;
	uint64_t n_asked, n_settled, n_told;
	uint64_t failed; /* number of the last that did; 0: none */
	int fault;
};

/* ---- the kernel --------------------------------------------------------------------------- */

/* 0: an event will follow. */
static int submit_fsync(struct disk *k, int fd)
{
	struct iocb job = {
		.aio_lio_opcode = IOCB_CMD_FSYNC,
		.aio_fildes = (uint32_t)fd,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)k->event_fd,
	};
	struct iocb *jobs[] = { &job };

	return syscall(SYS_io_submit, k->aio, 1L, jobs) == 1 ? 0 : -errno;
}

/* The result of what was submitted; false: it is not done yet. */
static bool take_result(struct disk *k, bool wait, int *ret_result)
{
	struct timespec none = { 0 };
	struct io_event event;
	long n;

	do
		n = syscall(SYS_io_getevents, k->aio, (long)wait, 1L, &event, wait ? NULL : &none);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		*ret_result = (int)event.res;
	else if (wait)
		*ret_result = n < 0 ? -errno : -EIO;
	return n == 1 || wait;
}

/* ---- jobs --------------------------------------------------------------------------------- */

static void job_free(struct job *job)
{
	closep(&job->fd);
	free(job);
}

static void job_end(struct disk *k, struct job *job, int r)
{
	const uint64_t one = 1;

	/* Who waits hears of it from the loop. This fails only where that wakes up anyway. */
	if (write(k->event_fd, &one, sizeof(one)) < 0)
		errno = 0;
	k->n_settled++;
	if (r) {
		k->failed = k->n_settled;
		k->fault = r;
		log_error("cannot write %s: %s", job->path, strerror(-r));
		if (job->stage == STAGE_FILE)
			unlink(job->tmp);
	}
	TAILQ_REMOVE(&k->jobs, job, entry);
	k->n_jobs--;
	job_free(job);
}

/* The file, or its directory, is on disk, or could not be brought there. */
static void job_step(struct disk *k, struct job *job, int r)
{
	if (!r && job->stage == STAGE_FILE) {
		closep(&job->fd);
		if (rename(job->tmp, job->path))
			r = -errno;
		else
			job->stage = STAGE_DIRECTORY;
		if (!r)
			r = files_open_parent(job->path, &job->fd);
		if (!r)
			return;
	}
	job_end(k, job, r);
}

/* Goes on with the first job until one is with the kernel, or none is left. */
static void go_on(struct disk *k)
{
	struct job *job;

	/* Where the kernel has no such call, or no room, there is the ordinary one. */
	while ((job = TAILQ_FIRST(&k->jobs)) && submit_fsync(k, job->fd))
		job_step(k, job, fsync(job->fd) ? -errno : 0);
}

static void on_event(void *user, unsigned ready)
{
	struct disk *k = user;
	uint64_t n;
	int r;

	(void)ready;
	if (read(k->event_fd, &n, sizeof(n)) < 0)
		return;
	while (k->n_jobs > 0 && take_result(k, false, &r)) {
		job_step(k, TAILQ_FIRST(&k->jobs), r);
		go_on(k);
	}
	if (k->n_settled > k->n_told) {
		k->n_told = k->n_settled;
		k->settled(k->user);
	}
}

static void wait_for_first(struct disk *k)
{
	const uint64_t before = k->n_settled;
	int r;

	while (k->n_jobs > 0 && k->n_settled == before && take_result(k, true, &r)) {
		job_step(k, TAILQ_FIRST(&k->jobs), r);
		go_on(k);
	}
}

void disk_flush(struct disk *k)
{
	while (k->n_jobs > 0)
		wait_for_first(k);
}

int disk_write(struct disk *k, const char *path, const void *data, size_t n_bytes)
{
	struct job *job = calloc(1, sizeof(*job));
	int r;

	if (!job)
		return -ENOMEM;
	job->fd = -1;
	snprintf(job->path, sizeof(job->path), "%s", path);
	r = files_write_beside(path, k->n_asked % (2 * WAITING_MAX), data, n_bytes, job->tmp,
			       sizeof(job->tmp), &job->fd);
	if (r) {
		job_free(job);
		return r;
	}
	if (k->n_jobs >= WAITING_MAX)
		wait_for_first(k);
	TAILQ_INSERT_TAIL(&k->jobs, job, entry);
	k->n_asked++;
	if (++k->n_jobs == 1)
		go_on(k);
	return 0;
}

/* ---- life --------------------------------------------------------------------------------- */

int disk_new(struct net_loop *loop, void (*settled)(void *user), void *user, struct disk **ret_disk)
{
	struct disk *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return -ENOMEM;
	TAILQ_INIT(&k->jobs);
	k->settled = settled;
	k->user = user;
	k->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (k->event_fd < 0) {
		r = -errno;
		free(k);
		return r;
	}
	/* Without it each write waits, see go_on(). */
	if (syscall(SYS_io_setup, 1L, &k->aio))
		k->aio = 0;
	net_watch_init(&k->watch, loop, k->event_fd, on_event, k);
	r = net_watch_want(&k->watch, NET_READ);
	if (r) {
		disk_free(k);
		return r;
	}
	*ret_disk = k;
	return 0;
}

void disk_free(struct disk *k)
{
	if (!k)
		return;
	disk_flush(k);
	net_watch_fini(&k->watch);
	if (k->aio)
		syscall(SYS_io_destroy, k->aio);
	closep(&k->event_fd);
	free(k);
}

uint64_t disk_asked(const struct disk *k)
{
	return k->n_asked;
}

uint64_t disk_settled(const struct disk *k)
{
	return k->n_settled;
}

int disk_fault(const struct disk *k, uint64_t n_before)
{
	return k->failed > n_before ? k->fault : 0;
}
