/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/ipam/ipam.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hostlocal.h"
#include "map.h"
#include "pool.h"
#include "ledger.h"

/* -- release ------------------------------------------------------------------------ */

/* What is never found by the search stays marked. */
static bool is_kept(const struct ipam_pool *pool, const struct addr *a)
{
	const struct ipam_range *range = pool_range_of(pool, a);

	return !range || addr_cmp(a, &range->gateway) == 0 || pool_hole_of(pool, a);
}

static int open_to_read(struct ledger *l, const struct ipam_pool *pool, struct err *err)
{
	int r = ledger_open(l, pool->dir);

	if (r < 0 && r != -ENOENT)
		return err_errno(err, r, "%s: open", pool->dir);
	r = ledger_open_reservations(l, pool->reservations);
	return r < 0 ? err_errno(err, r, "%s: open", pool->reservations) : 0;
}

static int open_to_change(struct ledger *l, const struct ipam_pool *pool, struct err *err)
{
	int r = ledger_open_to_change(l, pool->dir, err);

	if (r < 0)
		return r;
	r = ledger_open_reservations(l, pool->reservations);
	return r < 0 ? err_errno(err, r, "%s: open", pool->reservations) : 0;
}

static void mark_free(const struct ipam_pool *pool, const struct ledger *l, const struct addr *a)
{
	const struct ipam_range *range = pool_range_of(pool, a);
	auto_map struct map map = { .fd = -1 };
	uint32_t place;

	if (is_kept(pool, a) || !pool_place_of(pool, range->set, a, &place))
		return;
	map_open_existing(&map, pool, l, range->set);
	map_mark(&map, place, false);
}

/* How many addresses. */
static int release(const struct ipam_pool *pool, const struct ledger *l, const char *owner)
{
	struct addr freed[IPAM_SETS_MAX];
	int n = ledger_release(l, owner, freed);

	for (int i = 0; i < n; i++)
		mark_free(pool, l, &freed[i]);
	return n;
}

struct freeing {
	const struct ipam_pool *pool;
	const struct ledger *ledger;
};

static void free_reserved(const struct addr *a, void *arg)
{
	const struct freeing *f = arg;

	mark_free(f->pool, f->ledger, a);
}

static bool is_missing(const char *path)
{
	return !path[0] || (access(path, F_OK) < 0 && errno == ENOENT);
}

int ipam_release(const struct ipam_pool *pool, const struct ipam_owner *owner, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	char name[OWNER_MAX];
	int r = ledger_owner_name(owner, name, err);

	if (r < 0)
		return r;
	/* Nothing was ever allocated here. */
	if (is_missing(pool->dir) && is_missing(pool->reservations))
		return 0;
	r = open_to_change(&l, pool, err);
	if (r < 0)
		return r;
	r = release(pool, &l, name);
	if (r < 0)
		return err_errno(err, r, "%s: release the addresses of %s", pool->dir, name);
	/* Who had addresses of our own has none of host-local (ipam_allocate()). */
	if (r == 0)
		r = hostlocal_release(&l, name, free_reserved, &(struct freeing){ pool, &l }, err);
	return r < 0 ? err_wrap(err, r, "%s: release the addresses of %s", pool->reservations, name)
		     : 0;
}

/* -- what was left behind -------------------------------------------------------------- */

/* 1 or 0. Negative errno: the disk does not tell, and the address may well be a pod's. */
static int is_named_by(const struct ledger *l, const char *owner, const struct addr *a)
{
	struct addr named[IPAM_SETS_MAX];
	int n = strchr(owner, '/') ? -EINVAL : ledger_read_attachment(l, owner, named);

	if (n < 0)
		return n == -ENOENT || n == -EINVAL ? 0 : n;
	for (int i = 0; i < n; i++)
		if (addr_cmp(&named[i], a) == 0)
			return 1;
	return 0;
}

DEFINE_AUTO(DIR *, closedir)

int ipam_release_orphans(const char *dir, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	auto_(closedir) DIR *list = NULL;
	const struct dirent *entry;
	int n = 0, r;

	if (is_missing(dir))
		return 0;
	r = ledger_open_to_change(&l, dir, err);
	if (r == 0)
		r = ledger_list(&l, "addresses", &list);
	if (r < 0)
		return err_errno(err, r, "%s: look for addresses without an attachment", dir);
	while ((r = ledger_next(list, &entry)) > 0) {
		char owner[OWNER_MAX];
		struct addr a;

		/* What is no link is not ours, and stays. */
		if (addr_parse(entry->d_name, &a, NULL) < 0 ||
		    ledger_read_link(l.addresses, entry->d_name, owner, sizeof(owner)) < 0)
			continue;
		r = is_named_by(&l, owner, &a);
		if (r > 0)
			continue;
		if (r == 0)
			r = ledger_remove_link(l.addresses, entry->d_name);
		if (r < 0)
			return err_errno(err, r, "%s: release %s", dir, entry->d_name);
		n++;
	}
	return r < 0 ? err_errno(err, r, "%s/addresses: list", dir) : n;
}

/* -- allocate ----------------------------------------------------------------------- */

/* What one set gives: the range and the address, and its place for the search, if it has one. */
struct choice {
	const struct ipam_range *range;
	struct addr address;
	bool searched;
	uint32_t place;
	struct map map;
};

static int refuse_exhausted(uint64_t held, const struct ipam_pool *pool, unsigned set,
			    struct err *err)
{
	char text[PREFIX_TEXT_MAX];
	const struct ipam_range *range = pool->ranges;

	while (range->set != set)
		range++;
	return err_set(err, -EADDRNOTAVAIL,
		       "no address of %s%s is free: %" PRIu64 " are held (by whom: %s/addresses)",
		       prefix_format(&range->subnet, text),
		       range + 1 < pool->ranges + pool->nranges && range[1].set == set ? " and more"
										       : "",
		       held, pool->dir);
}

static int find_free(struct choice *c, const struct ipam_pool *pool, const struct ledger *l,
		     unsigned set, struct err *err)
{
	char holder[OWNER_MAX];
	int r;

	for (;;) {
		if (map_next_free(&c->map, &c->place)) {
			c->address = pool_address_at(pool, set, c->place);
			if (!is_kept(pool, &c->address) && !ledger_holder(l, &c->address, holder))
				break;
			/*
			 * A process died before it marked what it took, or the map is spoilt. The
			 * search does not come by here again, even if this is not written.
			 */
			map_mark(&c->map, c->place, true);
		} else if (c->map.fresh) {
			return refuse_exhausted(c->map.held, pool, set, err);
		} else {
			r = map_rebuild(&c->map);
			if (r < 0)
				return err_errno(err, r, "%s: write the map", pool->dir);
		}
	}
	c->range = pool_range_of(pool, &c->address);
	c->searched = true;
	return 0;
}

static int take_wanted(struct choice *c, const struct ipam_pool *pool, const struct ledger *l,
		       const struct addr *wanted, struct err *err)
{
	const struct ipam_range *range = pool_range_of(pool, wanted);
	const struct ipam_hole *hole = pool_hole_of(pool, wanted);
	char text[ADDR_TEXT_MAX], holder[OWNER_MAX];

	addr_format(wanted, text);
	if (addr_cmp(wanted, &range->gateway) == 0 || (hole && !hole->on_request))
		return err_set(err, -EINVAL, "address %s cannot be given to a pod: %s", text,
			       hole ? "it is excluded" : "it is the gateway");
	if (ledger_holder(l, wanted, holder))
		return err_set(err, -EADDRINUSE, "address %s is held by %s", text, holder);
	c->range = range;
	c->address = *wanted;
	return 0;
}

/* The first wanted address of this set; NULL: there is none. */
static const struct addr *wanted_of(const struct ipam_pool *pool, unsigned set,
				    const struct addr *wanted, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct ipam_range *range = pool_range_of(pool, &wanted[i]);

		if (range && range->set == set)
			return &wanted[i];
	}
	return NULL;
}

/* Each wanted address must be of a set, and each set can give but one. */
static int check_wanted(const struct ipam_pool *pool, const struct addr *wanted, unsigned n,
			struct err *err)
{
	char a[ADDR_TEXT_MAX], b[ADDR_TEXT_MAX];

	for (unsigned i = 0; i < n; i++) {
		const struct ipam_range *range = pool_range_of(pool, &wanted[i]);
		const struct addr *first;

		addr_format(&wanted[i], a);
		if (!range)
			return err_set(err, -EINVAL, "address %s is of no range of this network",
				       a);
		first = wanted_of(pool, range->set, wanted, n);
		if (addr_cmp(first, &wanted[i]) != 0)
			return err_set(err, -EINVAL,
				       "addresses %s and %s are of one set, which gives but one",
				       addr_format(first, b), a);
	}
	return 0;
}

static int choose(struct choice *c, const struct ipam_pool *pool, const struct ledger *l,
		  unsigned set, const struct addr *wanted, struct err *err)
{
	int r = map_open(&c->map, pool, l, set);

	if (r < 0)
		return err_errno(err, r, "%s: open the map", pool->dir);
	return wanted ? take_wanted(c, pool, l, wanted, err) : find_free(c, pool, l, set, err);
}

static void note(const struct ipam_pool *pool, struct choice *c)
{
	uint32_t place;

	if (pool_place_of(pool, c->range->set, &c->address, &place))
		map_mark(&c->map, place, true);
	if (c->searched)
		map_move_behind(&c->map, c->place);
}

static int give(const struct ipam_pool *pool, const struct ledger *l, const struct addr *wanted,
		unsigned nwanted, const char *name, struct ipam_address ret[static IPAM_SETS_MAX],
		struct err *err)
{
	struct choice choices[IPAM_SETS_MAX];
	struct ipam_address given[IPAM_SETS_MAX];
	int r = 0;

	for (unsigned set = 0; set < pool->nsets; set++)
		choices[set] = (struct choice){ .map = { .fd = -1 } };
	for (unsigned set = 0; set < pool->nsets && r == 0; set++) {
		struct choice *c = &choices[set];

		r = choose(c, pool, l, set, wanted_of(pool, set, wanted, nwanted), err);
		if (r == 0)
			given[set] = (struct ipam_address){
				.address = { .addr = c->address, .len = c->range->subnet.len },
				.gateway = c->range->gateway,
			};
	}
	if (r == 0) {
		r = ledger_make_links(l, name, given, pool->nsets);
		if (r < 0)
			err_errno(err, r, "%s: give addresses to %s", pool->dir, name);
	}
	for (unsigned set = 0; set < pool->nsets; set++) {
		if (r == 0) {
			note(pool, &choices[set]);
			ret[set] = given[set];
		}
		map_close(&choices[set].map);
	}
	return r;
}

/* Of our own, or of host-local. -ENOENT: none. */
static int look_up(const struct ledger *l, const struct ipam_pool *pool, const char *name,
		   struct addr ret[static IPAM_SETS_MAX], struct err *err)
{
	int r = ledger_lookup(l, name, ret);

	if (r > 0)
		return r;
	if (r < 0 && r != -ENOENT)
		return err_errno(err, r, "%s: addresses of %s", pool->dir, name);
	r = hostlocal_lookup(l, name, ret, err);
	if (r == -ENOENT)
		return err_set(err, r, "%s: %s holds no address", pool->dir, name);
	return r < 0 ? err_wrap(err, r, "%s: addresses of %s", pool->reservations, name) : r;
}

int ipam_allocate(const struct ipam_pool *pool, const struct addr *wanted, unsigned nwanted,
		  const struct ipam_owner *owner, struct ipam_address ret[static IPAM_SETS_MAX],
		  struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	char name[OWNER_MAX], text[ADDR_TEXT_MAX];
	struct addr held[IPAM_SETS_MAX];
	int r;

	r = ledger_owner_name(owner, name, err);
	if (r == 0)
		r = check_wanted(pool, wanted, nwanted, err);
	if (r == 0)
		r = open_to_change(&l, pool, err);
	if (r < 0)
		return r;
	r = look_up(&l, pool, name, held, err);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r > 0)
		return err_set(err, -EEXIST, "%s holds address %s already", name,
			       addr_format(&held[0], text));
	/* Half an allocation, by a process that died. */
	r = release(pool, &l, name);
	if (r < 0)
		return err_errno(err, r, "%s: clear what is left of %s", pool->dir, name);
	return give(pool, &l, wanted, nwanted, name, ret, err);
}

/* -- readers ------------------------------------------------------------------------ */

int ipam_lookup(const struct ipam_pool *pool, const struct ipam_owner *owner,
		struct addr ret[static IPAM_SETS_MAX], struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	char name[OWNER_MAX];
	int r = ledger_owner_name(owner, name, err);

	if (r < 0)
		return r;
	r = open_to_read(&l, pool, err);
	return r == 0 ? look_up(&l, pool, name, ret, err) : r;
}

bool ipam_is_holder(const char *holder, const struct ipam_owner *owner)
{
	char name[OWNER_MAX];

	return ledger_owner_name(owner, name, NULL) == 0 && hostlocal_is_of(holder, name);
}

int ipam_is_reserved(const struct ipam_pool *pool, const struct ipam_owner *owner, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	struct addr reserved[IPAM_SETS_MAX];
	char name[OWNER_MAX];
	uint64_t number;
	int r = ledger_owner_name(owner, name, err);

	if (r < 0)
		return r;
	if (ipam_attachment(pool->dir, owner, &number))
		return 0;
	r = ledger_open_reservations(&l, pool->reservations);
	if (r < 0)
		return err_errno(err, r, "%s: open", pool->reservations);
	r = hostlocal_lookup(&l, name, reserved, err);
	if (r < 0 && r != -ENOENT)
		return err_wrap(err, r, "%s: addresses of %s", pool->reservations, name);
	return r > 0;
}

int ipam_holder(const struct ipam_pool *pool, const struct addr *addr,
		char ret[static IPAM_HOLDER_MAX], struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	char text[ADDR_TEXT_MAX];
	int r = open_to_read(&l, pool, err);

	if (r < 0)
		return r;
	r = ledger_holder(&l, addr, ret);
	return r < 0 ? err_errno(err, r, "%s: who holds %s", pool->reservations,
				 addr_format(addr, text))
		     : r;
}

int ipam_has_free(const struct ipam_pool *pool, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	int r = open_to_read(&l, pool, err);

	if (r < 0)
		return r;
	if (l.addresses < 0 && l.reservations < 0)
		return 0; /* nothing was ever allocated */
	for (unsigned set = 0; set < pool->nsets; set++) {
		auto_map struct map map = { .fd = -1 };
		uint64_t held;

		map_open_existing(&map, pool, &l, set);
		if (!map_has_free(&map, &held))
			return refuse_exhausted(held, pool, set, err);
	}
	return 0;
}

/* A container id has no colon, so the first one ends it. */
static int tell(ipam_fn *fn, const struct addr *addr, char *owner, void *arg)
{
	char *colon = strchr(owner, ':');

	if (!colon)
		return 0;
	*colon = '\0';
	return fn(addr, owner, colon + 1, arg);
}

static int next_entry(DIR *list, const char *dir, const struct dirent **ret, struct err *err)
{
	int r = ledger_next(list, ret);

	return r < 0 ? err_errno(err, r, "%s: list", dir) : r;
}

int ipam_foreach(const char *dir, ipam_fn *fn, void *arg, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	auto_(closedir) DIR *list = NULL;
	const struct dirent *entry;
	int r = ledger_open_listing(dir, "addresses", &l, &list, err);

	while (r >= 0 && list && (r = next_entry(list, dir, &entry, err)) > 0) {
		char owner[OWNER_MAX];
		struct addr addr;

		/* One that was released since it was listed is left out. */
		if (addr_parse(entry->d_name, &addr, NULL) < 0 ||
		    ledger_read_link(l.addresses, entry->d_name, owner, sizeof(owner)) < 0)
			continue;
		r = tell(fn, &addr, owner, arg);
	}
	return r;
}

struct telling {
	ipam_fn *fn;
	void *arg;
};

static int tell_reserved(const struct addr *addr, const char *holder, void *arg)
{
	const struct telling *t = arg;
	char owner[OWNER_MAX];

	strlcpy(owner, holder, sizeof(owner));
	return tell(t->fn, addr, owner, t->arg);
}

int ipam_foreach_reserved(const struct ipam_pool *pool, ipam_fn *fn, void *arg, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	int r = ledger_open_reservations(&l, pool->reservations);

	if (r < 0)
		return err_errno(err, r, "%s: open", pool->reservations);
	r = hostlocal_foreach(&l, tell_reserved, &(struct telling){ fn, arg }, err);
	return r < 0 ? err_wrap(err, r, "%s", pool->reservations) : 0;
}

int ipam_foreach_attachment(const char *dir, ipam_fn *fn, void *arg, struct err *err)
{
	auto_ledger struct ledger l = LEDGER_INIT;
	auto_(closedir) DIR *list = NULL;
	const struct dirent *entry;
	int r = ledger_open_listing(dir, "attachments", &l, &list, err);

	while (r >= 0 && list && (r = next_entry(list, dir, &entry, err)) > 0) {
		struct addr addrs[IPAM_SETS_MAX] = { { .family = AF_UNSPEC } };
		char owner[OWNER_MAX];

		strlcpy(owner, entry->d_name, sizeof(owner));
		if (!strchr(owner, ':'))
			continue;
		if (ledger_lookup(&l, owner, addrs) <= 0)
			addrs[0].family = AF_UNSPEC;
		r = tell(fn, &addrs[0], owner, arg);
	}
	return r;
}
