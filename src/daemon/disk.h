/*
 * disk - state files written while the loop goes on. Private to daemon.
 *
 * A disk takes milliseconds, a bad one a second, to promise that something is
 * on it, and meanwhile no packet of any tunnel may wait. So a file is written at
 * once, beside the old one, and the kernel is asked to tell when it is on disk
 * (io_submit(2), IOCB_CMD_FSYNC); then it takes the old one's place, and the
 * same again for the directory. One after the other, in the order of the calls.
 *
 * Writes are counted: who wants to know whether what was asked for so far is on
 * disk compares disk_asked(), taken then, with disk_settled().
 */
#ifndef DAEMON_DISK_H
#define DAEMON_DISK_H

#include "base/base.h"
#include "net/net.h"

struct disk;

/* settled is called in the loop when disk_settled() has grown. 0, -ENOMEM, or a fault. */
int disk_new(struct net_loop *loop, void (*settled)(void *user), void *user,
	     struct disk **ret_disk);
void disk_free(struct disk *k); /* writes all first; NULL is fine */
/*
 * Mode 0600. 0, or why nothing was written: -ENOSPC and so on. What fails later is logged, and
 * disk_fault() tells of it.
 */
int disk_write(struct disk *k, const char *path, const void *data, size_t n_bytes);
void disk_flush(struct disk *k); /* waits until all is on disk */
uint64_t disk_asked(const struct disk *k);
uint64_t disk_settled(const struct disk *k); /* on disk, or failed */
/* What failed of the writes behind the first n_before: 0 or a negative errno. */
int disk_fault(const struct disk *k, uint64_t n_before);

#endif
