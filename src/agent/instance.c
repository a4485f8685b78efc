/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "instance.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "poplin/base/file.h"
#include "poplin/base/mem.h"

static int tell_holder(int fd, const char *path, struct err *err)
{
	char pid[32] = "";
	ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

	pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
	return err_set(err, -EBUSY, "%s: poplind runs already%s%s", path, pid[0] ? ", pid " : "",
		       pid);
}

int instance_lock(const char *state_dir, struct err *err)
{
	auto_close int fd = -1;
	char path[PATH_MAX];
	int r;

	r = file_make_dirs(state_dir, err);
	if (r < 0)
		return r;
	if (snprintf(path, sizeof(path), "%s/" INSTANCE_LOCK_FILE, state_dir) >= (int)sizeof(path))
		return err_errno(err, -ENAMETOOLONG, "%s", state_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return err_errno(err, -errno, "%s: open", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? tell_holder(fd, path, err)
					    : err_errno(err, -errno, "%s: lock", path);
	if (ftruncate(fd, 0) < 0 || dprintf(fd, "%ld\n", (long)getpid()) < 0)
		return err_errno(err, -errno, "%s: write", path);
	return TAKE_FD(fd);
}
