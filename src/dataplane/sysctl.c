/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "poplin/base/file.h"
#include "poplin/base/mem.h"
#include "poplin/dataplane/bridge.h"

int sysctl_ensure(const char *path, const char *value, bool *ret_changed, struct err *err)
{
	auto_buf struct buf now = BUF_INIT;
	auto_close int fd = -1;
	char full[PATH_MAX];
	int r;

	(void)snprintf(full, sizeof(full), "/proc/sys/%s", path);
	r = file_read(full, 256, &now, err);
	if (r < 0)
		return r;
	/* A container sees /proc/sys read-only: what is right already must not fail there. */
	if (now.data && strcspn(now.data, "\n") == strlen(value) &&
	    strncmp(now.data, value, strlen(value)) == 0)
		return 0;
	fd = open(full, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		return err_errno(err, -errno, "%s: set to %s (it is '%.*s')", full, value,
				 (int)strcspn(now.data ? now.data : "", "\n"),
				 now.data ? now.data : "");
	*ret_changed = true;
	return 0;
}
