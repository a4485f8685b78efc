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

bool hostlocal_holder(const struct ledger *l, const struct addr *a, char holder[static OWNER_MAX])
{
	char text[ADDR_TEXT_MAX];
	int r = read_file(l, addr_format(a, text), holder);

	if (r < 0 && r != -ENOENT)
		strlcpy(holder, "a file that names no pod", OWNER_MAX);
	return r != -ENOENT;
}

int hostlocal_foreach(const struct ledger *l, hostlocal_fn *fn, void *arg)
{
	const struct dirent *entry;
	DIR *list;
	int fd, r = 0;

	if (l->reservations < 0)
		return 0;
	fd = openat(l->reservations, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	list = fd < 0 ? NULL : fdopendir(fd);
	if (!list) {
		r = -errno;
		mem_close_cleanup(&fd);
		return r;
	}
	while (r == 0 && (r = ledger_next(list, &entry)) > 0) {
		char holder[OWNER_MAX];
		struct addr a;

		/* The lock, "last_reserved_ip.0", our own folders. */
		r = addr_parse(entry->d_name, &a, NULL) == 0 && hostlocal_holder(l, &a, holder)
			    ? fn(&a, holder, arg)
			    : 0;
	}
	closedir(list);
	return r;
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
};

static int note(const struct addr *a, const char *holder, void *arg)
{
	struct search *s = arg;

	if (hostlocal_is_of(holder, s->owner) && s->n < (int)IPAM_SETS_MAX)
		s->found[s->n++] = *a;
	return 0;
}

int hostlocal_lookup(const struct ledger *l, const char *owner,
		     struct addr ret[static IPAM_SETS_MAX])
{
	struct search s = { .owner = owner, .found = ret };
	int r = hostlocal_foreach(l, note, &s);

	return r < 0 ? r : s.n ? s.n : -ENOENT;
}

static int remove_file(const struct addr *a, const char *holder, void *arg)
{
	const struct search *s = arg;
	char text[ADDR_TEXT_MAX];
	int r;

	if (!hostlocal_is_of(holder, s->owner))
		return 0;
	r = ledger_remove_link(s->ledger->reservations, addr_format(a, text));
	if (r == 0)
		s->released(a, s->arg);
	return r;
}

int hostlocal_release(const struct ledger *l, const char *owner,
		      void (*released)(const struct addr *addr, void *arg), void *arg)
{
	struct search s = { .ledger = l, .owner = owner, .released = released, .arg = arg };

	return hostlocal_foreach(l, remove_file, &s);
}
