/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BOOT_LINK "boot"
#define BOOT_MAX  64

/* False: the folder does not survive it either, or nobody can tell. */
static bool get_boot(const struct ledger *l, char ret[static BOOT_MAX])
{
	auto_close int fd = -1;
	struct statfs fs;
	ssize_t n;

	if (fstatfs(l->dir, &fs) < 0 || fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
		return false;
	fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, ret, BOOT_MAX - 1);
	if (n <= 0)
		return false;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

/* Without a link it is not: an older version did not write one. */
static bool is_another(const struct ledger *l, const char *now)
{
	char then[BOOT_MAX];

	return ledger_read_link(l->dir, BOOT_LINK, then, sizeof(then)) == 0 &&
	       strcmp(then, now) != 0;
}

bool boot_is_another(const struct ledger *l)
{
	char now[BOOT_MAX];

	return get_boot(l, now) && is_another(l, now);
}

static int clear_folder(const struct ledger *l, const char *name)
{
	const struct dirent *entry;
	DIR *list;
	int r = ledger_list(l, name, &list);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	while (r == 0 && (r = ledger_next(list, &entry)) > 0) {
		r = entry->d_name[0] == '.' ? 0 : ledger_remove_link(dirfd(list), entry->d_name);
		r = r == -EISDIR ? 0 : r; /* not ours, and stays */
	}
	closedir(list);
	return r;
}

/*
 * The link goes last: whoever is killed in between leaves the rest to the next. On a full disk there is
 * none, which must not keep anybody from releasing; after a boot before the next try what is held
 * then stays held, until a GC.
 */
int boot_begin(const struct ledger *l)
{
	static const char *const folders[] = { "addresses", "attachments", "maps" };
	char now[BOOT_MAX];
	int r = 0;

	if (!get_boot(l, now))
		return 0;
	if (is_another(l, now)) {
		for (size_t i = 0; i < countof(folders) && r == 0; i++)
			r = clear_folder(l, folders[i]);
		if (r == 0)
			r = ledger_remove_link(l->dir, BOOT_LINK);
	}
	if (r == 0 && symlinkat(now, l->dir, BOOT_LINK) < 0 && errno != EEXIST && errno != ENOSPC &&
	    errno != EDQUOT)
		r = -errno;
	return r;
}
