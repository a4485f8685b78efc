/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/ipam/ipam.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "poplin/base/file.h"
#include "poplin/base/mem.h"

#define OWNER_MAX  256	 /* a file name has at most 255 bytes */
#define PROBES_MAX 65536 /* addresses looked at for one allocation */

/* The opened folders; each is -1 or to be closed. */
struct store_dir {
	int dir, attachments, addresses;
};

static void store_dir_close(struct store_dir *d)
{
	mem_close_cleanup(&d->attachments);
	mem_close_cleanup(&d->addresses);
	mem_close_cleanup(&d->dir); /* last: the lock hangs on it */
}
#define auto_store_dir __attribute__((cleanup(store_dir_close)))
#define STORE_DIR_INIT ((struct store_dir){ .dir = -1, .attachments = -1, .addresses = -1 })

static int open_folder(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int open_store(struct store_dir *d, const char *dir)
{
	d->dir = open_folder(AT_FDCWD, dir);
	if (d->dir < 0)
		return d->dir;
	d->attachments = open_folder(d->dir, "attachments");
	if (d->attachments < 0)
		return d->attachments;
	d->addresses = open_folder(d->dir, "addresses");
	return d->addresses < 0 ? d->addresses : 0;
}

/* Makes what is missing of DIR and locks it. */
static int open_to_change(struct store_dir *d, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	int r = open_store(d, dir);

	if (r == -ENOENT) {
		store_dir_close(d);
		*d = STORE_DIR_INIT;
		(void)snprintf(path, sizeof(path), "%s/attachments", dir);
		r = file_make_dirs(path, err);
		if (r < 0)
			return r;
		(void)snprintf(path, sizeof(path), "%s/addresses", dir);
		r = file_make_dirs(path, err);
		if (r < 0)
			return r;
		r = open_store(d, dir);
	}
	if (r < 0)
		return err_errno(err, r, "%s: open", dir);
	while (flock(d->dir, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_errno(err, -errno, "%s: lock", dir);
	return 0;
}

/* -- names ---------------------------------------------------------------------- */

static int owner_name(const struct ipam_owner *owner, char ret[static OWNER_MAX], struct err *err)
{
	int n = snprintf(ret, OWNER_MAX, "%s:%s", owner->container, owner->interface);

	if (!owner->container[0] || !owner->interface[0] || strchr(ret, '/') ||
	    strchr(owner->container, ':') || n >= OWNER_MAX)
		return err_set(err, -EINVAL, "container '%.64s', interface '%.64s': not a name",
			       owner->container, owner->interface);
	return 0;
}

/* The content of a link, or a negative errno. */
static int read_link(int at, const char *name, char *ret, size_t size)
{
	ssize_t n = readlinkat(at, name, ret, size - 1);

	if (n < 0)
		return -errno;
	ret[n] = '\0';
	return 0;
}

/* The address that the owner's attachment names, if the address agrees. -ENOENT. */
static int lookup(const struct store_dir *d, const char *owner, struct addr *ret)
{
	char address[ADDR_TEXT_MAX], holder[OWNER_MAX];
	int r = read_link(d->attachments, owner, address, sizeof(address));

	if (r == 0)
		r = read_link(d->addresses, address, holder, sizeof(holder));
	if (r < 0)
		return r;
	if (strcmp(holder, owner) != 0 || addr_parse(address, ret, NULL) < 0)
		return -ENOENT;
	return 0;
}

static int remove_link(int at, const char *name)
{
	return unlinkat(at, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* -- release --------------------------------------------------------------------- */

static int release(const struct store_dir *d, const char *owner)
{
	char address[ADDR_TEXT_MAX];
	struct addr held;
	int r = 0;

	if (lookup(d, owner, &held) == 0)
		r = remove_link(d->addresses, addr_format(&held, address));
	return r < 0 ? r : remove_link(d->attachments, owner);
}

int ipam_release(const char *dir, const struct ipam_owner *owner, struct err *err)
{
	auto_store_dir struct store_dir d = STORE_DIR_INIT;
	char name[OWNER_MAX];
	int r;

	r = owner_name(owner, name, err);
	if (r < 0)
		return r;
	/* Nothing was ever allocated here. */
	if (access(dir, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = open_to_change(&d, dir, err);
	if (r < 0)
		return r;
	r = release(&d, name);
	return r < 0 ? err_errno(err, r, "%s: release the address of %s", dir, name) : 0;
}

/* -- allocate -------------------------------------------------------------------- */

/* The addresses that can be given: from behind the gateway to before the broadcast address. */
struct range {
	struct addr first;
	uint64_t count;
};

uint64_t ipam_capacity(const struct prefix *subnet)
{
	struct addr first = prefix_first(subnet), last = prefix_last(subnet);
	int64_t distance = addr_distance(&first, &last);
	/* The network address and the gateway; IPv4's broadcast address. */
	int64_t kept = subnet->addr.family == AF_INET ? 2 : 1;

	if (distance == INT64_MAX)
		return UINT64_MAX;
	return distance > kept ? (uint64_t)(distance - kept) : 0;
}

static struct range range_of(const struct prefix *subnet)
{
	struct addr gateway = prefix_gateway(subnet);

	return (struct range){ addr_add(&gateway, 1), ipam_capacity(subnet) };
}

static bool in_range(const struct range *r, const struct addr *a)
{
	int64_t offset = a->family == r->first.family ? addr_distance(&r->first, a) : -1;

	return offset >= 0 && (uint64_t)offset < r->count;
}

static bool is_held(const struct store_dir *d, const struct addr *a, char *holder, size_t size)
{
	char text[ADDR_TEXT_MAX];

	return read_link(d->addresses, addr_format(a, text), holder, size) == 0;
}

/* The first free one behind the last that was given. */
static int find_free(const struct store_dir *d, const struct range *range, struct addr *ret)
{
	uint64_t probes = range->count < PROBES_MAX ? range->count : PROBES_MAX;
	char text[ADDR_TEXT_MAX], holder[OWNER_MAX];
	struct addr last;
	uint64_t start = 0;

	if (read_link(d->dir, "last", text, sizeof(text)) == 0 &&
	    addr_parse(text, &last, NULL) == 0 && in_range(range, &last))
		start = (uint64_t)addr_distance(&range->first, &last) + 1;
	for (uint64_t i = 0; i < probes; i++) {
		struct addr a = addr_add(&range->first, (int64_t)((start + i) % range->count));

		if (is_held(d, &a, holder, sizeof(holder)))
			continue;
		*ret = a;
		return 0;
	}
	return -ENOSPC;
}

static int make_links(const struct store_dir *d, const char *owner, const struct addr *a)
{
	char text[ADDR_TEXT_MAX];
	int r;

	addr_format(a, text);
	if (symlinkat(text, d->attachments, owner) < 0)
		return -errno;
	if (symlinkat(owner, d->addresses, text) < 0) {
		r = -errno;
		(void)remove_link(d->attachments, owner);
		return r;
	}
	/* Only a hint: when it cannot be written the search begins further ahead. */
	(void)remove_link(d->dir, "last.new");
	if (symlinkat(text, d->dir, "last.new") == 0)
		(void)renameat(d->dir, "last.new", d->dir, "last");
	return 0;
}

static int choose(const struct store_dir *d, const char *dir, const struct prefix *subnet,
		  const struct addr *wanted, struct addr *ret, struct err *err)
{
	char text[PREFIX_TEXT_MAX], address[ADDR_TEXT_MAX], holder[OWNER_MAX];
	struct range range = range_of(subnet);

	if (!wanted) {
		if (find_free(d, &range, ret) == 0)
			return 0;
		return err_set(err, -ENOSPC,
			       "no address of %s is free: all %" PRIu64
			       " are held (see %s/addresses)",
			       prefix_format(subnet, text), range.count, dir);
	}
	addr_format(wanted, address);
	if (!in_range(&range, wanted))
		return err_set(err, -EINVAL, "address %s cannot be given to a pod of %s", address,
			       prefix_format(subnet, text));
	if (is_held(d, wanted, holder, sizeof(holder)))
		return err_set(err, -EADDRINUSE, "address %s is held by %s", address, holder);
	*ret = *wanted;
	return 0;
}

int ipam_allocate(const char *dir, const struct prefix *subnet, const struct addr *wanted,
		  const struct ipam_owner *owner, struct addr *ret, struct err *err)
{
	auto_store_dir struct store_dir d = STORE_DIR_INIT;
	char name[OWNER_MAX], text[ADDR_TEXT_MAX];
	struct addr chosen;
	int r;

	r = owner_name(owner, name, err);
	if (r == 0)
		r = open_to_change(&d, dir, err);
	if (r < 0)
		return r;
	if (lookup(&d, name, &chosen) == 0)
		return err_set(err, -EEXIST, "%s holds address %s already", name,
			       addr_format(&chosen, text));
	/* Half an allocation, by a process that died. */
	r = release(&d, name);
	if (r < 0)
		return err_errno(err, r, "%s: clear what is left of %s", dir, name);
	r = choose(&d, dir, subnet, wanted, &chosen, err);
	if (r < 0)
		return r;
	r = make_links(&d, name, &chosen);
	if (r < 0)
		return err_errno(err, r, "%s: give %s to %s", dir, addr_format(&chosen, text),
				 name);
	*ret = chosen;
	return 0;
}

/* -- readers ----------------------------------------------------------------------- */

int ipam_lookup(const char *dir, const struct ipam_owner *owner, struct addr *ret, struct err *err)
{
	auto_store_dir struct store_dir d = STORE_DIR_INIT;
	char name[OWNER_MAX];
	int r;

	r = owner_name(owner, name, err);
	if (r < 0)
		return r;
	r = open_store(&d, dir);
	if (r == 0)
		r = lookup(&d, name, ret);
	return r < 0 ? err_errno(err, r, "%s: address of %s", dir, name) : 0;
}

DEFINE_AUTO(DIR *, closedir)

/* A container id has no colon, so the first one ends it. */
static int tell(ipam_fn *fn, const struct addr *addr, char *owner, void *arg)
{
	char *colon = strchr(owner, ':');

	if (!colon)
		return 0;
	*colon = '\0';
	return fn(addr, owner, colon + 1, arg);
}

static int open_listing(const char *dir, const char *folder, struct store_dir *d, DIR **ret,
			struct err *err)
{
	int r = open_store(d, dir), fd;

	if (r == -ENOENT)
		return 0; /* nothing was ever allocated */
	if (r < 0)
		return err_errno(err, r, "%s: open", dir);
	fd = open_folder(d->dir, folder);
	if (fd < 0)
		return err_errno(err, fd, "%s/%s: open", dir, folder);
	*ret = fdopendir(fd);
	if (!*ret) {
		r = -errno;
		close(fd);
		return err_errno(err, r, "%s/%s: open", dir, folder);
	}
	return 0;
}

int ipam_foreach(const char *dir, ipam_fn *fn, void *arg, struct err *err)
{
	auto_store_dir struct store_dir d = STORE_DIR_INIT;
	auto_(closedir) DIR *list = NULL;
	const struct dirent *entry;
	int r = open_listing(dir, "addresses", &d, &list, err);

	while (r == 0 && list && (entry = readdir(list))) {
		char owner[OWNER_MAX];
		struct addr addr;

		/* One that was released since it was listed is left out. */
		if (addr_parse(entry->d_name, &addr, NULL) < 0 ||
		    read_link(d.addresses, entry->d_name, owner, sizeof(owner)) < 0)
			continue;
		r = tell(fn, &addr, owner, arg);
	}
	return r;
}

int ipam_foreach_attachment(const char *dir, ipam_fn *fn, void *arg, struct err *err)
{
	auto_store_dir struct store_dir d = STORE_DIR_INIT;
	auto_(closedir) DIR *list = NULL;
	const struct dirent *entry;
	int r = open_listing(dir, "attachments", &d, &list, err);

	while (r == 0 && list && (entry = readdir(list))) {
		char owner[OWNER_MAX];
		struct addr addr = { .family = AF_UNSPEC };

		strlcpy(owner, entry->d_name, sizeof(owner));
		if (!strchr(owner, ':'))
			continue;
		(void)lookup(&d, owner, &addr);
		r = tell(fn, &addr, owner, arg);
	}
	return r;
}
