/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/model/drain.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "poplin/base/file.h"

#define DRAIN_MODE	0600
#define DRAIN_BYTES_MAX 64
#define FORCE		"force\n"

static int path_of(const char *dir, char ret[static PATH_MAX], struct err *err)
{
	if (snprintf(ret, PATH_MAX, "%s/" DRAIN_FILE, dir) >= PATH_MAX)
		return err_errno(err, -ENAMETOOLONG, "%s", dir);
	return 0;
}

int drain_write(const char *dir, bool force, struct err *err)
{
	const char *text = force ? FORCE : "\n";
	char path[PATH_MAX];
	int r = path_of(dir, path, err);

	return r < 0 ? r : file_write_atomic(path, DRAIN_MODE, text, strlen(text), err);
}

int drain_read(const char *dir, bool *ret_wanted, bool *ret_force, struct err *err)
{
	auto_buf struct buf text = BUF_INIT;
	char path[PATH_MAX];
	int r = path_of(dir, path, err);

	if (r == 0)
		r = file_read(path, DRAIN_BYTES_MAX, &text, err);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_wanted = r == 0;
	*ret_force = r == 0 && text.len && strcmp(text.data, FORCE) == 0;
	return 0;
}

int drain_remove(const char *dir, struct err *err)
{
	char path[PATH_MAX];
	int r = path_of(dir, path, err);

	return r < 0 ? r : file_remove(path, err);
}
