/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "boot.h"
#include "hostlocal.h"
#include "poplin/base/file.h"

/* -- folders --------------------------------------------------------------------- */

void ledger_close(struct ledger *l)
{
	mem_close_cleanup(&l->reservations);
	mem_close_cleanup(&l->attachments);
	mem_close_cleanup(&l->addresses);
	/* Whatever becomes of the descriptor: this process may want the lock again. */
	if (l->locked)
		(void)flock(l->dir, LOCK_UN);
	mem_close_cleanup(&l->dir);
}

static int open_folder(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* A folder that is not there stays -1, and is no error. */
static int open_if_there(int at, const char *name, int *ret)
{
	int fd = open_folder(at, name);

	*ret = fd < 0 ? -1 : fd;
	return fd < 0 && fd != -ENOENT ? fd : 0;
}

static int open_folders(struct ledger *l, const char *dir)
{
	int r;

	l->dir = open_folder(AT_FDCWD, dir);
	if (l->dir < 0)
		return l->dir;
	r = open_if_there(l->dir, "attachments", &l->attachments);
	return r == 0 ? open_if_there(l->dir, "addresses", &l->addresses) : r;
}

int ledger_open(struct ledger *l, const char *dir)
{
	int r = open_folders(l, dir);

	if (r == 0 && boot_is_another(l)) {
		mem_close_cleanup(&l->attachments);
		mem_close_cleanup(&l->addresses);
		l->attachments = l->addresses = -1;
	}
	return r;
}

int ledger_open_reservations(struct ledger *l, const char *dir)
{
	return dir[0] ? open_if_there(AT_FDCWD, dir, &l->reservations) : 0;
}

static int lock(struct ledger *l, const char *dir, struct err *err)
{
	while (flock(l->dir, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_errno(err, -errno, "%s: lock", dir);
	l->locked = true;
	return 0;
}

int ledger_lock(struct ledger *l, const char *dir, struct err *err)
{
	l->dir = open_folder(AT_FDCWD, dir);
	return l->dir < 0 ? err_errno(err, l->dir, "%s: open", dir) : lock(l, dir, err);
}

int ledger_open_to_change(struct ledger *l, const char *dir, struct err *err)
{
	static const char *const folders[] = { "attachments", "addresses", "maps" };
	char path[PATH_MAX];
	int r = open_folders(l, dir);

	if (r == -ENOENT || (r == 0 && (l->attachments < 0 || l->addresses < 0))) {
		ledger_close(l);
		*l = LEDGER_INIT;
		for (size_t i = 0; i < countof(folders); i++) {
			if (snprintf(path, sizeof(path), "%s/%s", dir, folders[i]) >=
			    (int)sizeof(path))
				return err_errno(err, -ENAMETOOLONG, "%s", dir);
			r = file_make_dirs(path, err);
			if (r < 0)
				return r;
		}
		r = open_folders(l, dir);
		if (r == 0 && (l->attachments < 0 || l->addresses < 0))
			r = -ENOENT; /* gone again */
	}
	if (r < 0)
		return err_errno(err, r, "%s: open", dir);
	r = lock(l, dir, err);
	if (r < 0)
		return r;
	r = boot_begin(l);
	return r < 0 ? err_errno(err, r, "%s: clear what another boot left", dir) : 0;
}

int ledger_list(const struct ledger *l, const char *folder, DIR **ret)
{
	int fd = l->addresses < 0 ? -ENOENT : open_folder(l->dir, folder), r;

	if (fd < 0)
		return fd;
	*ret = fdopendir(fd);
	if (*ret)
		return 0;
	r = -errno;
	close(fd);
	return r;
}

int ledger_open_listing(const char *dir, const char *folder, struct ledger *l, DIR **ret,
			struct err *err)
{
	int r = ledger_open(l, dir);

	if (r == 0)
		r = ledger_list(l, folder, ret);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? err_errno(err, r, "%s/%s: open", dir, folder) : 0;
}

int ledger_next(DIR *list, const struct dirent **ret)
{
	errno = 0; /* or nobody could tell an error from the end */
	*ret = readdir(list);
	return *ret ? 1 : -errno;
}

/* -- links ------------------------------------------------------------------------ */

int ledger_owner_name(const struct ipam_owner *owner, char ret[static OWNER_MAX], struct err *err)
{
	int n = snprintf(ret, OWNER_MAX, "%s:%s", owner->container, owner->interface);

	if (!owner->container[0] || !owner->interface[0] || strchr(ret, '/') ||
	    strchr(owner->container, ':') || n >= OWNER_MAX)
		return err_set(err, -EINVAL, "container '%.64s', interface '%.64s': not a name",
			       owner->container, owner->interface);
	return 0;
}

int ledger_read_link(int at, const char *name, char *ret, size_t size)
{
	ssize_t n = at < 0 ? -1 : readlinkat(at, name, ret, size - 1);

	if (n < 0)
		return at < 0 ? -ENOENT : -errno;
	ret[n] = '\0';
	return 0;
}

int ledger_remove_link(int at, const char *name)
{
	return unlinkat(at, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int ledger_holder(const struct ledger *l, const struct addr *a, char holder[static OWNER_MAX])
{
	char text[ADDR_TEXT_MAX];
	int r = ledger_read_link(l->addresses, addr_format(a, text), holder, OWNER_MAX);

	/* A file that somebody put there keeps the address as well as a link would. */
	if (r < 0 && r != -ENOENT)
		strlcpy(holder, "something that is no link", OWNER_MAX);
	return r == -ENOENT ? hostlocal_holder(l, a, holder) : 1;
}

int ledger_read_attachment(const struct ledger *l, const char *owner,
			   struct addr ret[static IPAM_SETS_MAX])
{
	char list[LIST_MAX], *rest = list, *text;
	int r = ledger_read_link(l->attachments, owner, list, sizeof(list)), n = 0;

	if (r < 0)
		return r;
	while ((text = strsep(&rest, ","))) {
		if (n == IPAM_SETS_MAX || addr_parse(text, &ret[n], NULL) < 0)
			return -EINVAL;
		n++;
	}
	return n;
}

int ledger_lookup(const struct ledger *l, const char *owner, struct addr ret[static IPAM_SETS_MAX])
{
	int n = ledger_read_attachment(l, owner, ret);
	char holder[OWNER_MAX], text[ADDR_TEXT_MAX];

	for (int i = 0; i < n; i++) {
		int r = ledger_read_link(l->addresses, addr_format(&ret[i], text), holder,
					 sizeof(holder));

		/* What cannot be read may well be held. */
		if (r < 0 && r != -ENOENT && r != -EINVAL)
			return r;
		if (r < 0 || strcmp(holder, owner) != 0)
			return -ENOENT;
	}
	return n == -EINVAL ? -ENOENT : n;
}

int ledger_make_links(const struct ledger *l, const char *owner,
		      const struct ipam_address *addresses, unsigned n)
{
	char list[LIST_MAX] = "", text[ADDR_TEXT_MAX];
	struct addr made[IPAM_SETS_MAX];
	int r = 0;

	for (unsigned i = 0; i < n; i++) {
		if (i)
			strlcat(list, ",", sizeof(list));
		strlcat(list, addr_format(&addresses[i].address.addr, text), sizeof(list));
	}
	if (symlinkat(list, l->attachments, owner) < 0)
		return -errno;
	for (unsigned i = 0; i < n && r == 0; i++)
		if (symlinkat(owner, l->addresses, addr_format(&addresses[i].address.addr, text)) <
		    0)
			r = -errno;
	if (r < 0)
		(void)ledger_release(l, owner, made);
	return r;
}

int ledger_release(const struct ledger *l, const char *owner, struct addr ret[static IPAM_SETS_MAX])
{
	struct addr named[IPAM_SETS_MAX];
	char text[ADDR_TEXT_MAX], holder[OWNER_MAX];
	int n = ledger_read_attachment(l, owner, named), held = 0, r;

	/* What cannot be read may well be held: to go on would lose the address. */
	if (n < 0 && n != -ENOENT && n != -EINVAL)
		return n;
	for (int i = 0; i < n; i++) {
		r = ledger_read_link(l->addresses, addr_format(&named[i], text), holder,
				     sizeof(holder));
		if (r < 0 && r != -ENOENT && r != -EINVAL)
			return r;
		/* Half an allocation names what may be another's by now. */
		if (r < 0 || strcmp(holder, owner) != 0)
			continue;
		r = ledger_remove_link(l->addresses, addr_format(&named[i], text));
		if (r < 0)
			return r;
		ret[held++] = named[i];
	}
	r = ledger_remove_link(l->attachments, owner);
	return r < 0 ? r : held;
}
