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
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fib_private.h"

static size_t family_index(const struct prefix *p)
{
	return p->addr.family == AF_INET6;
}

/* -- nexthops ----------------------------------------------------------------- */

struct hop *fib_find_hop_locked(struct fib *f, const struct addr *gateway)
{
	struct hop wanted = { .gateway = *gateway };

	return RB_FIND(hop_tree, &f->hops, &wanted);
}

struct hop *fib_get_hop_locked(struct fib *f, const struct addr *gateway)
{
	struct hop *hop = fib_find_hop_locked(f, gateway);

	if (hop)
		return hop;
	hop = calloc(1, sizeof(*hop));
	if (!hop)
		return NULL;
	hop->gateway = *gateway;
	RB_INSERT(hop_tree, &f->hops, hop);
	return hop;
}

static bool is_ours(enum fib_nexthop state)
{
	return state != FIB_NEXTHOP_ABSENT && state != FIB_NEXTHOP_FOREIGN;
}

void fib_set_hop_locked(struct fib *f, struct hop *hop, enum fib_nexthop state)
{
	f->stats.nexthops -= is_ours(hop->state);
	f->stats.nexthops += is_ours(state);
	hop->state = state;
	hop->stamp = ++f->stamp;
}

/* An absent nexthop is remembered as long as a route is noted on it. */
void fib_drop_hop_locked(struct fib *f, struct hop *hop)
{
	if (hop->state != FIB_NEXTHOP_ABSENT || hop->used)
		return;
	RB_REMOVE(hop_tree, &f->hops, hop);
	free(hop);
}

enum fib_nexthop fib_nexthop_get(struct fib *f, const struct addr *gateway)
{
	mutex_hold(&f->lock);
	const struct hop *hop = fib_find_hop_locked(f, gateway);

	return hop ? hop->state : FIB_NEXTHOP_ABSENT;
}

int fib_nexthop_note(struct fib *f, const struct addr *gateway, enum fib_nexthop state)
{
	mutex_hold(&f->lock);
	struct hop *hop = fib_get_hop_locked(f, gateway);

	if (!hop)
		return -ENOMEM;
	if (hop->state == FIB_NEXTHOP_LEAVING || (state == FIB_NEXTHOP_LEAVING && hop->used))
		return -EBUSY;
	fib_set_hop_locked(f, hop, state);
	fib_drop_hop_locked(f, hop);
	return 0;
}

int fib_nexthop_hold(struct fib *f, const struct addr *gateway, bool hold)
{
	mutex_hold(&f->lock);
	struct hop *hop = fib_find_hop_locked(f, gateway);

	if (!hop || hop->state == FIB_NEXTHOP_LEAVING)
		return -EAGAIN;
	hop->used += hold ? 1U : -1U;
	fib_drop_hop_locked(f, hop);
	return 0;
}

/* -- routes ------------------------------------------------------------------- */

struct node *fib_find_locked(struct fib *f, const struct prefix *prefix)
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

/* hop may be NULL. */
static void set_route_hop_locked(struct fib *f, struct node *n, struct hop *hop)
{
	struct hop *old = n->hop;

	if (hop)
		hop->used++;
	n->hop = hop;
	if (!old)
		return;
	old->used--;
	fib_drop_hop_locked(f, old);
}

void fib_remove_locked(struct fib *f, struct node *n)
{
	count_locked(f, n, false);
	set_route_hop_locked(f, n, NULL);
	RB_REMOVE(node_tree, &f->routes, n);
	free(n);
}

int fib_note_locked(struct fib *f, const struct prefix *prefix, enum fib_state state,
		    const struct addr *gateway)
{
	struct node *n = fib_find_locked(f, prefix);
	struct hop *hop;
	int r = 0;

	if (state == FIB_ABSENT) {
		if (n)
			fib_remove_locked(f, n);
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
	count_locked(f, n, false);
	n->state = state;
	if (state == FIB_OURS) {
		hop = fib_get_hop_locked(f, gateway);
		if (!hop)
			r = -ENOMEM;
		else if (hop->state == FIB_NEXTHOP_LEAVING)
			r = -EAGAIN;
		if (r == 0)
			set_route_hop_locked(f, n, hop);
		else
			n->state = FIB_UNKNOWN;
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
	const struct node *n = fib_find_locked(f, prefix);

	*ret = (struct fib_route){ .state = FIB_ABSENT };
	if (n)
		*ret = view_of(n);
}

int fib_note(struct fib *f, const struct prefix *prefix, enum fib_state state,
	     const struct addr *gateway)
{
	mutex_hold(&f->lock);
	return fib_note_locked(f, prefix, state, gateway);
}

void fib_nexthop_left(struct fib *f, const struct addr *gateway, enum fib_nexthop state,
		      struct queue *queue)
{
	struct node *n;

	mutex_hold(&f->lock);
	struct hop *hop = fib_find_hop_locked(f, gateway);

	if (!hop)
		return;
	fib_set_hop_locked(f, hop, state);
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
	fib_drop_hop_locked(f, hop);
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
