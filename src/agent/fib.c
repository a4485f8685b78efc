/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. Notes come from the workers, the monitor and the full dump, in no certain
 * order, so each carries a stamp from one counter. A dump is collected aside without the lock,
 * since it takes time; what was noted since it began is newer and stays, all the rest becomes what
 * the dump says. A worker's note comes before its message, and the dump may fall between the two:
 * so the notes of a worker that has not had its answers yet count as newer, too.
 *
 * An entry that says "absent" is no entry. So the tree holds what is there (ours or foreign) and
 * what is unknown, and is as large as the routes of ours.
 *
 * A worker notes what it is about to do before it sends it. Noted afterwards, the note could
 * overwrite what the monitor has learnt in between: added by us, removed by hand, noted as there.
 * The other order can only go wrong in a way that shows: something noted as there is missing, and
 * its notification or the error of the request says so.
 */
#include "fib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/thread.h"
#include "poplin/base/tree.h"

struct hop {
	RB_ENTRY(hop) by_gateway;
	struct addr gateway;
	enum fib_nexthop state;
	unsigned used; /* by routes of ours, and by workers that hold it */
	uint64_t stamp;
};

struct node {
	RB_ENTRY(node) by_prefix;
	struct prefix prefix;
	enum fib_state state;
	struct hop *hop; /* FIB_OURS: what it goes by */
	uint64_t stamp;
	uint32_t wanted; /* round of the last fib_queue_difference() that found it desired */
};

RB_HEAD(node_tree, node);
LIST_HEAD(work_list, fib_work);
RB_HEAD(hop_tree, hop);

struct fib {
	struct mutex lock;
	/* Under lock. */
	struct node_tree routes;
	struct hop_tree hops;
	struct work_list works; /* under way */
	uint64_t stamp;
	uint64_t worked; /* when the last of them began */
	uint32_t round;
	struct fib_stats stats;
};

static int node_cmp(const struct node *a, const struct node *b)
{
	return prefix_cmp(&a->prefix, &b->prefix);
}

static int hop_cmp(const struct hop *a, const struct hop *b)
{
	return addr_cmp(&a->gateway, &b->gateway);
}

TREE_GENERATE(node_tree, node, by_prefix, node_cmp)
TREE_GENERATE(hop_tree, hop, by_gateway, hop_cmp)

static size_t family_index(const struct prefix *p)
{
	return p->addr.family == AF_INET6;
}

/* -- nexthops ----------------------------------------------------------------- */

static struct hop *find_hop_locked(struct fib *f, const struct addr *gateway)
{
	struct hop wanted = { .gateway = *gateway };

	return RB_FIND(hop_tree, &f->hops, &wanted);
}

static struct hop *get_hop_locked(struct fib *f, const struct addr *gateway)
{
	struct hop *hop = find_hop_locked(f, gateway);

	if (hop)
		return hop;
	hop = calloc(1, sizeof(*hop));
	if (!hop)
		return NULL;
	hop->gateway = *gateway;
	RB_INSERT(hop_tree, &f->hops, hop);
	return hop;
}

static void set_hop_locked(struct fib *f, struct hop *hop, enum fib_nexthop state)
{
	f->stats.nexthops -= hop->state != FIB_NEXTHOP_ABSENT;
	f->stats.nexthops += state != FIB_NEXTHOP_ABSENT;
	hop->state = state;
	hop->stamp = ++f->stamp;
}

/* An absent nexthop is remembered as long as a route is noted on it. */
static void drop_hop_locked(struct fib *f, struct hop *hop)
{
	if (hop->state != FIB_NEXTHOP_ABSENT || hop->used)
		return;
	RB_REMOVE(hop_tree, &f->hops, hop);
	free(hop);
}

enum fib_nexthop fib_nexthop_get(struct fib *f, const struct addr *gateway)
{
	mutex_hold(&f->lock);
	const struct hop *hop = find_hop_locked(f, gateway);

	return hop ? hop->state : FIB_NEXTHOP_ABSENT;
}

int fib_nexthop_note(struct fib *f, const struct addr *gateway, enum fib_nexthop state)
{
	mutex_hold(&f->lock);
	struct hop *hop = get_hop_locked(f, gateway);

	if (!hop)
		return -ENOMEM;
	if (hop->state == FIB_NEXTHOP_LEAVING || (state == FIB_NEXTHOP_LEAVING && hop->used))
		return -EBUSY;
	set_hop_locked(f, hop, state);
	drop_hop_locked(f, hop);
	return 0;
}

int fib_nexthop_hold(struct fib *f, const struct addr *gateway, bool hold)
{
	mutex_hold(&f->lock);
	struct hop *hop = find_hop_locked(f, gateway);

	if (!hop || hop->state == FIB_NEXTHOP_LEAVING)
		return -EAGAIN;
	hop->used += hold ? 1U : -1U;
	drop_hop_locked(f, hop);
	return 0;
}

/* -- routes ------------------------------------------------------------------- */

static struct node *find_locked(struct fib *f, const struct prefix *prefix)
{
	struct node wanted = { .prefix = *prefix };

	return RB_FIND(node_tree, &f->routes, &wanted);
}

static void count_locked(struct fib *f, const struct node *n, bool add)
{
	size_t one = add ? 1 : (size_t)-1;

	if (n->state == FIB_OURS)
		f->stats.routes[family_index(&n->prefix)] += one;
	if (n->state == FIB_FOREIGN)
		f->stats.foreign += one;
}

/* Ends what the node says: its counts and its use of a nexthop. */
static void clear_locked(struct fib *f, struct node *n)
{
	struct hop *hop = n->hop;

	count_locked(f, n, false);
	n->state = FIB_ABSENT;
	n->hop = NULL;
	if (!hop)
		return;
	hop->used--;
	drop_hop_locked(f, hop);
}

static void remove_locked(struct fib *f, struct node *n)
{
	clear_locked(f, n);
	RB_REMOVE(node_tree, &f->routes, n);
	free(n);
}

static int note_locked(struct fib *f, const struct prefix *prefix, enum fib_state state,
		       const struct addr *gateway)
{
	struct node *n = find_locked(f, prefix);
	struct hop *hop;
	int r = 0;

	if (state == FIB_ABSENT) {
		if (n)
			remove_locked(f, n);
		return 0;
	}
	if (!n) {
		n = calloc(1, sizeof(*n));
		if (!n)
			return -ENOMEM;
		n->prefix = *prefix;
		RB_INSERT(node_tree, &f->routes, n);
	}
	n->stamp = ++f->stamp;
	clear_locked(f, n);
	n->state = state;
	if (state == FIB_OURS) {
		hop = get_hop_locked(f, gateway);
		if (!hop)
			r = -ENOMEM;
		else if (hop->state == FIB_NEXTHOP_LEAVING)
			r = -EAGAIN;
		if (r == 0) {
			hop->used++;
			n->hop = hop;
		} else {
			n->state = FIB_UNKNOWN;
		}
	}
	count_locked(f, n, true);
	return r;
}

static struct fib_route view_of(const struct node *n)
{
	struct fib_route view = { .state = n->state };

	if (n->hop)
		view.gateway = n->hop->gateway;
	return view;
}

void fib_get(struct fib *f, const struct prefix *prefix, struct fib_route *ret)
{
	mutex_hold(&f->lock);
	const struct node *n = find_locked(f, prefix);

	*ret = (struct fib_route){ .state = FIB_ABSENT };
	if (n)
		*ret = view_of(n);
}

int fib_note(struct fib *f, const struct prefix *prefix, enum fib_state state,
	     const struct addr *gateway)
{
	mutex_hold(&f->lock);
	return note_locked(f, prefix, state, gateway);
}

void fib_nexthop_left(struct fib *f, const struct addr *gateway, enum fib_nexthop state,
		      struct queue *queue)
{
	struct node *n;

	mutex_hold(&f->lock);
	struct hop *hop = find_hop_locked(f, gateway);

	if (!hop)
		return;
	set_hop_locked(f, hop, state);
	/* Hardly ever: while it was leaving nobody could note one. */
	for (n = RB_MIN(node_tree, &f->routes); n && state == FIB_NEXTHOP_ABSENT && hop->used;
	     n = RB_NEXT(node_tree, &f->routes, n)) {
		struct key key = key_route(&n->prefix);

		if (n->hop != hop)
			continue;
		count_locked(f, n, false);
		n->state = FIB_UNKNOWN;
		n->hop = NULL;
		n->stamp = ++f->stamp;
		hop->used--;
		queue_put(queue, &key, QUEUE_REPAIR, 0);
	}
	drop_hop_locked(f, hop);
}

/* -- workers ------------------------------------------------------------------ */

void fib_work_begin(struct fib *f, struct fib_work *work)
{
	mutex_hold(&f->lock);
	work->since = f->worked = ++f->stamp;
	LIST_INSERT_HEAD(&f->works, work, in_list);
}

void fib_work_end(struct fib *f, struct fib_work *work)
{
	mutex_hold(&f->lock);
	LIST_REMOVE(work, in_list);
}

/* What is noted from now on, or was by a worker that is still at it, is newer than a dump. */
static uint64_t begin_dump(struct fib *f)
{
	const struct fib_work *work;
	uint64_t began;

	mutex_hold(&f->lock);
	began = ++f->stamp;
	LIST_FOREACH(work, &f->works, in_list)
	if (work->since < began)
		began = work->since;
	return began;
}

/* -- the full dump ------------------------------------------------------------ */

struct seen_route {
	struct prefix prefix;
	struct addr gateway;
};

struct seen_hop {
	struct addr gateway; /* that its id stands for */
	bool misplaced;
};

struct snapshot {
	const struct routes_config *config;
	struct seen_route *routes;
	size_t nroutes, routes_size;
	struct seen_hop *hops;
	size_t nhops, hops_size;
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

static int see_route(const struct route *r, void *arg)
{
	struct snapshot *s = arg;
	struct addr gateway;

	if (!routes_recognize(s->config, r, &gateway))
		return 0;
	if (grow((void **)&s->routes, &s->routes_size, s->nroutes, sizeof(*s->routes)) < 0)
		return -ENOMEM;
	s->routes[s->nroutes++] = (struct seen_route){ .prefix = r->dst, .gateway = gateway };
	return 0;
}

static int see_hop(const struct nexthop *n, void *arg)
{
	struct snapshot *s = arg;
	struct seen_hop seen = { .gateway = addr_from_ipv4(n->id) };

	seen.misplaced = addr_cmp(&n->gateway, &seen.gateway) != 0 || n->index != s->config->index;
	if (grow((void **)&s->hops, &s->hops_size, s->nhops, sizeof(*s->hops)) < 0)
		return -ENOMEM;
	s->hops[s->nhops++] = seen;
	return 0;
}

static void restart_routes(void *arg)
{
	struct snapshot *s = arg;

	s->nroutes = s->routes_start;
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

static int take_snapshot(struct snapshot *s, struct netlink *nl, struct err *err)
{
	const struct routes_config *config = s->config;
	int r = route_foreach(nl, AF_INET, config->protocol, see_route, restart_routes, s, err);

	s->routes_start = s->nroutes;
	if (r == 0)
		r = route_foreach(nl, AF_INET6, config->protocol, see_route, restart_routes, s,
				  err);
	if (r == 0 && config->nexthops)
		r = nexthop_foreach(nl, config->protocol, see_hop, restart_hops, s, err);
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
		n = find_locked(f, &s->routes[i].prefix);
		if (n && n->stamp > began)
			continue;
		/* Ours stands behind a foreign one, which this dump leaves out: met anew below. */
		if (n && n->state == FIB_FOREIGN)
			continue;
		r = note_locked(f, &s->routes[i].prefix, n || quiet ? FIB_OURS : FIB_UNKNOWN,
				&s->routes[i].gateway);
		if (r == -ENOMEM)
			return r;
	}
	/* Of those left, the dump did not show: ours are gone, a clash must be met anew. */
	RB_FOREACH_SAFE(n, node_tree, &f->routes, next)
	if (n->stamp <= began)
		remove_locked(f, n);
	return 0;
}

static int merge_hops_locked(struct fib *f, const struct snapshot *s, uint64_t began)
{
	struct hop *hop, *next;

	for (size_t i = 0; i < s->nhops; i++) {
		hop = get_hop_locked(f, &s->hops[i].gateway);
		if (!hop)
			return -ENOMEM;
		if (hop->stamp <= began && hop->state != FIB_NEXTHOP_LEAVING)
			set_hop_locked(f, hop,
				       s->hops[i].misplaced ? FIB_NEXTHOP_MISPLACED
							    : FIB_NEXTHOP_THERE);
	}
	RB_FOREACH_SAFE(hop, hop_tree, &f->hops, next)
	{
		if (hop->stamp > began || hop->state == FIB_NEXTHOP_LEAVING)
			continue;
		set_hop_locked(f, hop, FIB_NEXTHOP_ABSENT);
		drop_hop_locked(f, hop);
	}
	return 0;
}

int fib_sync(struct fib *f, struct netlink *nl, const struct routes_config *config, struct err *err)
{
	struct snapshot s = { .config = config };
	uint64_t began = begin_dump(f);
	int r = take_snapshot(&s, nl, err);

	if (r == 0) {
		mutex_lock(&f->lock);
		r = merge_hops_locked(f, &s, began);
		if (r == 0)
			r = merge_routes_locked(f, &s, began);
		mutex_unlock(&f->lock);
		if (r < 0)
			err_errno(err, r, "compare the kernel's routes");
	}
	snapshot_done(&s);
	return r;
}

/* -- the difference ----------------------------------------------------------- */

struct difference {
	struct fib *fib;
	struct queue *queue;
	size_t count;
};

static void compare_route(const struct prefix *prefix, const struct addr *gateway, const char *node,
			  void *arg)
{
	struct difference *d = arg;
	struct key key = key_route(prefix);
	struct fib *f = d->fib;

	mutex_hold(&f->lock);
	struct node *n = find_locked(f, prefix);

	if (n)
		n->wanted = f->round;
	if (n && n->state == FIB_OURS && addr_cmp(&n->hop->gateway, gateway) == 0)
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

		if (hop->used && hop->state != FIB_NEXTHOP_MISPLACED)
			continue;
		queue_put(queue, &key, QUEUE_RESYNC, 0);
		d.count++;
	}
	return d.count;
}

/* -- readers, life ------------------------------------------------------------ */

void fib_stats(struct fib *f, struct fib_stats *ret)
{
	mutex_hold(&f->lock);
	*ret = f->stats;
}

int fib_foreach(struct fib *f,
		int (*fn)(const struct prefix *prefix, const struct fib_route *route, void *arg),
		void *arg)
{
	struct node *n;
	int r = 0;

	mutex_hold(&f->lock);
	RB_FOREACH (n, node_tree, &f->routes) {
		const struct fib_route route = view_of(n);

		r = fn(&n->prefix, &route, arg);
		if (r < 0)
			break;
	}
	return r;
}

int fib_new(struct fib **ret, struct err *err)
{
	struct fib *f = calloc(1, sizeof(*f));

	if (!f)
		return err_errno(err, -ENOMEM, "fib");
	LIST_INIT(&f->works);
	mutex_init(&f->lock, LOCK_FIB);
	RB_INIT(&f->routes);
	RB_INIT(&f->hops);
	*ret = f;
	return 0;
}

void fib_free(struct fib *f)
{
	struct node *n, *next_node;
	struct hop *hop, *next_hop;

	RB_FOREACH_SAFE(n, node_tree, &f->routes, next_node)
	{
		RB_REMOVE(node_tree, &f->routes, n);
		free(n);
	}
	RB_FOREACH_SAFE(hop, hop_tree, &f->hops, next_hop)
	{
		RB_REMOVE(hop_tree, &f->hops, hop);
		free(hop);
	}
	mutex_done(&f->lock);
	free(f);
}
