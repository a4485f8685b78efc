/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The full dump, merged with the notes; what differs from what should be. See fib.c. */
#include <errno.h>
#include <stdlib.h>

#include "fib_private.h"

/*
 * What is noted from now on, or was by a worker that is still at it, may be newer than a dump.
 * *ret_working: there is such a worker.
 */
static uint64_t begin_dump(struct fib *f, bool *ret_working)
{
	const struct fib_work *work;
	uint64_t began;

	mutex_hold(&f->lock);
	began = ++f->stamp;
	*ret_working = !LIST_EMPTY(&f->works);
	LIST_FOREACH(work, &f->works, in_list)
	if (work->since < began)
		began = work->since;
	return began;
}

/* -- the full dump ------------------------------------------------------------ */

struct seen_route {
	struct prefix prefix;
	struct addr gateway;
	bool behind; /* a foreign one, by which the kernel goes */
};

struct seen_hop {
	struct addr gateway; /* that its id stands for */
	enum fib_nexthop state;
};

struct snapshot {
	const struct routes_config *config;
	struct seen_route *routes;
	size_t nroutes, routes_size;
	struct prefix foreign; /* the last one of our metric that is not ours; AF_UNSPEC: none */
	struct seen_hop *hops;
	size_t nhops, hops_size;
	bool strays;
	size_t routes_start; /* of the family being dumped, for a restart */
};

static int grow(void **array, size_t *size, size_t count, size_t item)
{
	size_t larger = *size ? *size * 2 : 256;
	void *moved;

	if (count < *size)
		return 0;
	moved = reallocarray(*array, larger, item);
	if (!moved)
		return -ENOMEM;
	*array = moved;
	*size = larger;
	return 0;
}

/* Those of one prefix that stand in our place come in a row, the one that the kernel goes by first. */
static int see_route(const struct route *r, void *arg)
{
	struct snapshot *s = arg;
	struct addr gateway;

	if (routes_is_stray(s->config, r))
		s->strays = true;
	if (!routes_recognize(s->config, r, &gateway)) {
		if (!routes_beside(r))
			s->foreign = r->dst;
		return 0;
	}
	if (s->nroutes > s->routes_start &&
	    prefix_cmp(&s->routes[s->nroutes - 1].prefix, &r->dst) == 0) {
		s->strays = true;
		return 0;
	}
	if (grow((void **)&s->routes, &s->routes_size, s->nroutes, sizeof(*s->routes)) < 0)
		return -ENOMEM;
	s->routes[s->nroutes++] = (struct seen_route){
		.prefix = r->dst,
		.gateway = gateway,
		.behind = prefix_cmp(&s->foreign, &r->dst) == 0,
	};
	return 0;
}

static int see_hop(const struct nexthop *n, void *arg)
{
	struct snapshot *s = arg;
	struct seen_hop seen = { .gateway = addr_from_ipv4(n->id) };

	if (n->protocol != s->config->protocol)
		seen.state = FIB_NEXTHOP_FOREIGN;
	else if (addr_cmp(&n->gateway, &seen.gateway) != 0 || n->index != s->config->index)
		seen.state = FIB_NEXTHOP_MISPLACED;
	else
		seen.state = FIB_NEXTHOP_THERE;
	if (grow((void **)&s->hops, &s->hops_size, s->nhops, sizeof(*s->hops)) < 0)
		return -ENOMEM;
	s->hops[s->nhops++] = seen;
	return 0;
}

static void restart_routes(void *arg)
{
	struct snapshot *s = arg;

	s->nroutes = s->routes_start;
	s->foreign.addr.family = AF_UNSPEC;
}

static void restart_hops(void *arg)
{
	struct snapshot *s = arg;

	s->nhops = 0;
}

static void snapshot_done(struct snapshot *s)
{
	free(s->routes);
	free(s->hops);
}

/* Foreign ones, too: one of the same prefix or the same id may stand before ours. */
static int take_snapshot(struct snapshot *s, struct netlink *nl, struct err *err)
{
	int r = route_foreach(nl, AF_INET, 0, see_route, restart_routes, s, err);

	s->routes_start = s->nroutes;
	if (r == 0)
		r = route_foreach(nl, AF_INET6, 0, see_route, restart_routes, s, err);
	if (r == 0 && s->config->nexthops)
		r = nexthop_foreach(nl, 0, see_hop, restart_hops, s, err);
	return r;
}

/*
 * Whoever was noted after the dump began is left alone; the stamp tells, also of merged ones. A note
 * that a route is gone leaves no stamp: while workers were at it, whether one that was not heard of
 * is still there must be asked.
 */
static int merge_routes_locked(struct fib *f, const struct snapshot *s, uint64_t began)
{
	bool quiet = f->worked < began;
	struct node *n, *next;
	int r;

	for (size_t i = 0; i < s->nroutes; i++) {
		const struct seen_route *seen = &s->routes[i];

		n = fib_find_locked(f, &seen->prefix);
		if (n && n->stamp > began)
			continue;
		r = fib_note_locked(f, &seen->prefix, n || quiet ? FIB_OURS : FIB_UNKNOWN,
				    &seen->gateway);
		if (r == 0 && seen->behind)
			r = fib_note_locked(f, &seen->prefix, FIB_FOREIGN, NULL);
		if (r == -ENOMEM)
			return r;
	}
	/* Of those left, the dump did not show: ours are gone, a clash must be met anew. */
	RB_FOREACH_SAFE(n, node_tree, &f->routes, next)
	if (n->stamp <= began)
		fib_remove_locked(f, n);
	return 0;
}

static int merge_hops_locked(struct fib *f, const struct snapshot *s, uint64_t began)
{
	struct hop *hop, *next;

	for (size_t i = 0; i < s->nhops; i++) {
		const struct seen_hop *seen = &s->hops[i];

		hop = fib_find_hop_locked(f, &seen->gateway);
		if (!hop && seen->state == FIB_NEXTHOP_FOREIGN)
			continue; /* nothing of ours needs this id */
		hop = fib_get_hop_locked(f, &seen->gateway);
		if (!hop)
			return -ENOMEM;
		if (hop->stamp <= began && hop->state != FIB_NEXTHOP_LEAVING)
			fib_set_hop_locked(f, hop, seen->state);
		fib_drop_hop_locked(f, hop);
	}
	RB_FOREACH_SAFE(hop, hop_tree, &f->hops, next)
	{
		if (hop->stamp > began || hop->state == FIB_NEXTHOP_LEAVING ||
		    hop->state == FIB_NEXTHOP_ABSENT)
			continue;
		fib_set_hop_locked(f, hop, FIB_NEXTHOP_ABSENT);
		fib_drop_hop_locked(f, hop);
	}
	return 0;
}

int fib_sync(struct fib *f, struct netlink *nl, const struct routes_config *config, struct err *err)
{
	struct snapshot s = { .config = config };
	bool working;
	uint64_t began = begin_dump(f, &working);
	int r = take_snapshot(&s, nl, err);

	if (r == 0) {
		mutex_lock(&f->lock);
		f->stats.strays = s.strays;
		r = merge_hops_locked(f, &s, began);
		if (r == 0)
			r = merge_routes_locked(f, &s, began);
		mutex_unlock(&f->lock);
		if (r < 0)
			err_errno(err, r, "compare the kernel's routes");
	}
	snapshot_done(&s);
	return r < 0 ? r : working;
}

/* -- the difference ----------------------------------------------------------- */

struct difference {
	struct fib *fib;
	struct queue *queue;
	size_t count;
};

/* Routes go by it, and it is certainly not there, or somebody else's is (no stamp: about to be made). */
static bool is_lost(const struct hop *hop)
{
	return hop->used && (hop->state == FIB_NEXTHOP_FOREIGN ||
			     (hop->state == FIB_NEXTHOP_ABSENT && hop->stamp));
}

static void compare_route(const struct prefix *prefix, const struct addr *gateway, const char *node,
			  void *arg)
{
	struct difference *d = arg;
	struct key key = key_route(prefix);
	struct fib *f = d->fib;

	mutex_hold(&f->lock);
	struct node *n = fib_find_locked(f, prefix);

	if (n)
		n->wanted = f->round;
	if (n && n->state == FIB_OURS && addr_cmp(&n->hop->gateway, gateway) == 0 &&
	    !is_lost(n->hop))
		return;
	queue_put(d->queue, &key, QUEUE_RESYNC, 0);
	d->count++;
}

size_t fib_queue_difference(struct fib *f, struct peers *peers, struct queue *queue)
{
	struct difference d = { .fib = f, .queue = queue };
	struct node *n;
	struct hop *hop;

	mutex_lock(&f->lock);
	f->round++;
	mutex_unlock(&f->lock);
	peers_foreach_route(peers, compare_route, &d);

	mutex_hold(&f->lock);
	RB_FOREACH (n, node_tree, &f->routes) {
		struct key key = key_route(&n->prefix);

		if (n->wanted == f->round)
			continue;
		queue_put(queue, &key, QUEUE_RESYNC, 0);
		d.count++;
	}
	/* Most that nothing goes by are about to be used; a worker looks at each. */
	RB_FOREACH (hop, hop_tree, &f->hops) {
		struct key key = key_nexthop(&hop->gateway);

		if (hop->used && hop->state != FIB_NEXTHOP_MISPLACED && !is_lost(hop))
			continue;
		queue_put(queue, &key, QUEUE_RESYNC, 0);
		d.count++;
	}
	return d.count;
}
