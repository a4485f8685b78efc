/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may take back an attachment while its ADD runs. Its link in DIR/attachments tells: it was made
 * when the ADD began; its time of modification is set anew when the ADD ends (ipam_confirm()), or to
 * the epoch by a GC that takes it back (ipam_condemn()). Both are done under the lock, so one of them
 * comes first, and the other one sees it.
 */
#include "poplin/ipam/ipam.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ledger.h"
#include "poplin/base/clock.h"

/* Not the inode alone: that of a file that went is soon another's, on a disk. */
static uint64_t number_of(const struct stat *st)
{
	return (uint64_t)st->st_ino ^
	       ((uint64_t)st->st_ctim.tv_sec << 30 ^ (uint64_t)st->st_ctim.tv_nsec) << 2;
}

bool ipam_attachment(const char *dir, const struct ipam_owner *owner, uint64_t *ret)
{
	char name[OWNER_MAX], path[PATH_MAX];
	struct stat st;

	if (ledger_owner_name(owner, name, NULL) < 0 ||
	    snprintf(path, sizeof(path), "%s/attachments/%s", dir, name) >= (int)sizeof(path) ||
	    lstat(path, &st) < 0)
		return false;
	*ret = number_of(&st);
	return true;
}

/* -- what was left behind -------------------------------------------------------------- */

int ipam_collect(const char *dir, const struct ipam_owner *owner, uint64_t number,
		 bool (*is_gone)(const struct ipam_owner *owner, void *arg), void *arg,
		 struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	struct addr freed[IPAM_SETS_MAX];
	char name[OWNER_MAX];
	struct stat st;
	int r = ledger_owner_name(owner, name, err);

	if (r == 0)
		r = ledger_open_to_change(&l, dir, err);
	if (r < 0)
		return r;
	/* A DEL came first, and maybe another ADD. */
	if (fstatat(l.attachments, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    number_of(&st) != number || !is_gone(owner, arg))
		return 0;
	r = ledger_release(&l, name, freed);
	return r < 0 ? err_errno(err, r, "%s: release the addresses of %s", dir, name) : 1;
}

/* -- an ADD and a GC at the same time ---------------------------------------------------- */

static int64_t time_of(const struct stat *st)
{
	return st->st_mtim.tv_sec * NS_PER_S + st->st_mtim.tv_nsec;
}

static int set_time(const struct ledger *l, const char *path, int64_t ns)
{
	const struct timespec times[] = {
		{ .tv_nsec = UTIME_OMIT },
		{ .tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S },
	};

	return utimensat(l->dir, path, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* Locks, and finds the owner's link. -ENOENT: there is none. */
static int open_attachment(struct ledger *l, const char *dir, const struct ipam_owner *owner,
			   char path[static OWNER_MAX + 16], struct stat *st, struct err *err)
{
	char name[OWNER_MAX];
	int r = ledger_owner_name(owner, name, err);

	if (r == 0)
		r = ledger_lock(l, dir, err);
	if (r < 0)
		return r;
	(void)snprintf(path, OWNER_MAX + 16, "attachments/%s", name);
	if (fstatat(l->dir, path, st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_errno(err, -errno, "%s/%s", dir, path);
	return 0;
}

int ipam_confirm(const char *dir, const struct ipam_owner *owner, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	char path[OWNER_MAX + 16];
	struct stat st;
	int r = open_attachment(&l, dir, owner, path, &st, err);

	if (r < 0)
		return r;
	if (time_of(&st) == 0)
		return err_set(err, -ENOENT, "%s/%s: a GC takes it back", dir, path);
	r = set_time(&l, path, clock_real_ns());
	return r < 0 ? err_errno(err, r, "%s/%s: set the time", dir, path) : 0;
}

int ipam_condemn(const char *dir, const struct ipam_owner *owner, int64_t since_ns, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	char path[OWNER_MAX + 16];
	struct stat st;
	int r = open_attachment(&l, dir, owner, path, &st, err);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	/* What a clock that was wrong dates in the future is not spared for ever. */
	if (time_of(&st) >= since_ns && time_of(&st) <= clock_real_ns())
		return 0;
	r = set_time(&l, path, 0);
	return r < 0 ? err_errno(err, r, "%s/%s: set the time", dir, path) : 1;
}
