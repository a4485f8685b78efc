/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hostlocal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The two lines as an owner's name: "<container>:<interface>", or "<container>:". */
static int read_file(const struct ledger *l, const char *name, char holder[static OWNER_MAX])
{
	auto_close int fd = l->reservations < 0
				    ? -1
				    : openat(l->reservations, name,
					     O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char text[2 * OWNER_MAX], *rest = text;
	const char *container, *interface;
	ssize_t n;

	if (fd < 0)
		return l->reservations < 0 ? -ENOENT : -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	container = strsep(&rest, "\r\n");
	if (rest)
		rest += strspn(rest, "\r\n");
	interface = rest ? strsep(&rest, "\r\n") : "";
	return !container[0] || snprintf(holder, OWNER_MAX, "%s:%s", container, interface) >=
					OWNER_MAX
		       ? -EINVAL
		       : 0;
}

/* What is in the way of reading says nothing of the file itself. */
static bool is_unreadable(int r)
{
	return r < 0 && r != -ENOENT && r != -EINVAL && r != -EISDIR && r != -ELOOP;
}

int hostlocal_holder(const struct ledger *l, const struct addr *a, char holder[static OWNER_MAX])
{
	char text[ADDR_TEXT_MAX];
	int r = read_file(l, addr_format(a, text), holder);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		strlcpy(holder,
			is_unreadable(r) ? "a file that cannot be read"
					 : "a file that names no pod",
			OWNER_MAX);
	return is_unreadable(r) ? r : 1;
}

static int refuse_unreadable(const struct addr *a, int r, struct err *err)
{
	char text[ADDR_TEXT_MAX];

	return err_errno(err, r, "the file %s, as host-local left it", addr_format(a, text));
}

static int look_at(const struct ledger *l, const char *name, hostlocal_fn *fn, void *arg,
		   int *unreadable, struct err *err)
{
	char holder[OWNER_MAX];
	struct addr a;
	int r;

	/* The lock, "last_reserved_ip.0", our own folders. */
	if (addr_parse(name, &a, NULL) < 0)
		return 0;
	r = hostlocal_holder(l, &a, holder);
	if (r == 0)
		return 0;
	if (r < 0 && !*unreadable)
		*unreadable = refuse_unreadable(&a, r, err);
	return fn(&a, holder, arg);
}

static int open_list(const struct ledger *l, DIR **ret, struct err *err)
{
	int fd = openat(l->reservations, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	*ret = fd < 0 ? NULL : fdopendir(fd);
	if (*ret)
		return 0;
	r = err_errno(err, -errno, "open");
	mem_close_cleanup(&fd);
	return r;
}

int hostlocal_foreach(const struct ledger *l, hostlocal_fn *fn, void *arg, struct err *err)
{
	const struct dirent *entry;
	int r = 0, unreadable = 0, next;
	DIR *list = NULL;

	if (l->reservations >= 0)
		r = open_list(l, &list, err);
	if (!list)
		return r;
	while (r == 0 && (next = ledger_next(list, &entry)) != 0)
		r = next < 0 ? err_errno(err, next, "list")
			     : look_at(l, entry->d_name, fn, arg, &unreadable, err);
	closedir(list);
	return r ? r : unreadable;
}

/* -- of one owner ------------------------------------------------------------------- */

bool hostlocal_is_of(const char *holder, const char *owner)
{
	size_t n = strlen(holder);

	return strcmp(holder, owner) == 0 ||
	       (n && holder[n - 1] == ':' && strncmp(holder, owner, n) == 0);
}

struct search {
	const struct ledger *ledger;
	const char *owner;
	struct addr *found;
	int n;
	void (*released)(const struct addr *addr, void *arg);
	void *arg;
	struct err *err;
};

static int note(const struct addr *a, const char *holder, void *arg)
{
	struct search *s = arg;

	if (hostlocal_is_of(holder, s->owner) && s->n < (int)IPAM_SETS_MAX)
		s->found[s->n++] = *a;
	return 0;
}

int hostlocal_lookup(const struct ledger *l, const char *owner,
		     struct addr ret[static IPAM_SETS_MAX], struct err *err)
{
	struct search s = { .owner = owner, .found = ret };
	int r = hostlocal_foreach(l, note, &s, err);

	if (s.n)
		return s.n;
	return r < 0 ? r : -ENOENT;
}

static int remove_file(const struct addr *a, const char *holder, void *arg)
{
	const struct search *s = arg;
	char text[ADDR_TEXT_MAX];
	int r;

	if (!hostlocal_is_of(holder, s->owner))
		return 0;
	r = ledger_remove_link(s->ledger->reservations, addr_format(a, text));
	if (r < 0)
		return err_errno(s->err, r, "remove %s", text);
	s->released(a, s->arg);
	return 0;
}

int hostlocal_release(const struct ledger *l, const char *owner,
		      void (*released)(const struct addr *addr, void *arg), void *arg,
		      struct err *err)
{
	struct search s = {
		.ledger = l, .owner = owner, .released = released, .arg = arg, .err = err
	};

	return hostlocal_foreach(l, remove_file, &s, err);
}
