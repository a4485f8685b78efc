/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What fib.c (the notes) and fib_sync.c (the full dump) share. Under LOCK_FIB. */
#ifndef POPLIN_AGENT_FIB_PRIVATE_H
#define POPLIN_AGENT_FIB_PRIVATE_H

#include "fib.h"
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
	/*
	 * FIB_OURS: what it goes by. Otherwise what ours goes by, if it is still there, behind the
	 * foreign one perhaps: as long as nobody knows that it is gone, its nexthop has to stay.
	 */
	struct hop *hop;
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

static inline int node_cmp(const struct node *a, const struct node *b)
{
	return prefix_cmp(&a->prefix, &b->prefix);
}

static inline int hop_cmp(const struct hop *a, const struct hop *b)
{
	return addr_cmp(&a->gateway, &b->gateway);
}

TREE_GENERATE(node_tree, node, by_prefix, node_cmp)
TREE_GENERATE(hop_tree, hop, by_gateway, hop_cmp)

struct hop *fib_find_hop_locked(struct fib *f, const struct addr *gateway);
struct hop *fib_get_hop_locked(struct fib *f, const struct addr *gateway); /* NULL: ENOMEM */
void fib_set_hop_locked(struct fib *f, struct hop *hop, enum fib_nexthop state);
/* Forgets it, if nothing is to be remembered of it. */
void fib_drop_hop_locked(struct fib *f, struct hop *hop);

struct node *fib_find_locked(struct fib *f, const struct prefix *prefix);
int fib_note_locked(struct fib *f, const struct prefix *prefix, enum fib_state state,
		    const struct addr *gateway);
void fib_remove_locked(struct fib *f, struct node *n);

#endif
