/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel has of our routes and nexthops, as far as we know.
 *
 * It is filled by a full dump (fib_sync) and kept up by the workers, who note what they are about
 * to do before they send it, and by the monitor, who sees what others do. A note may turn out to be
 * wrong: that shows as an error of the next request, or at the next dump, and is repaired.
 *
 * Threads: any; one lock (LOCK_FIB), not held across I/O.
 */
#ifndef POPLIN_AGENT_FIB_H
#define POPLIN_AGENT_FIB_H

#include <bsd/sys/queue.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "peers.h"
#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "poplin/dataplane/routes.h"
#include "poplin/nl/nl.h"
#include "queue.h"

struct fib;

int fib_new(struct fib **ret, struct err *err);
void fib_free(struct fib *f);
DEFINE_AUTO(struct fib *, fib_free)

enum fib_state {
	FIB_ABSENT,  /* nothing is there */
	FIB_OURS,    /* our route, by the gateway that is noted */
	FIB_FOREIGN, /* a route of somebody else's: a clash where we need one */
	FIB_UNKNOWN, /* ask the kernel */
};

struct fib_route {
	enum fib_state state;
	struct addr gateway; /* of ours; AF_UNSPEC: there is certainly none */
};

/* -- routes ----------------------------------------------------------------- */

void fib_get(struct fib *f, const struct prefix *prefix, struct fib_route *ret);
/*
 * -ENOMEM: the note is lost; the next dump brings it back. -EAGAIN: the gateway's nexthop is leaving,
 * and the route may go with it: FIB_UNKNOWN is noted instead of FIB_OURS.
 */
int fib_note(struct fib *f, const struct prefix *prefix, enum fib_state state,
	     const struct addr *gateway);

/* -- nexthops, by their gateway ---------------------------------------------- */

enum fib_nexthop {
	FIB_NEXTHOP_ABSENT,
	FIB_NEXTHOP_THERE,
	FIB_NEXTHOP_MISPLACED, /* there, but by another link or gateway than it should */
	FIB_NEXTHOP_LEAVING,   /* a worker is about to remove it */
	FIB_NEXTHOP_FOREIGN,   /* somebody else's object has the id; noted only where we need it */
};
enum fib_nexthop fib_nexthop_get(struct fib *f, const struct addr *gateway);
/*
 * Until a leaving nexthop is gone no route may be put on it. Returns -EBUSY when it is leaving
 * already, by the hand of another worker, and for LEAVING when routes use it.
 */
int fib_nexthop_note(struct fib *f, const struct addr *gateway, enum fib_nexthop state);
/*
 * Whoever moves a route to another nexthop holds the one it is on until the kernel has answered:
 * noted is the new one at once, but with the old one the kernel would drop the route. -EAGAIN: it is
 * leaving or not known.
 */
int fib_nexthop_hold(struct fib *f, const struct addr *gateway, bool hold);
/*
 * Only for the worker who noted it as leaving: what came of that. The kernel drops the routes of a
 * nexthop that goes without a word; those that are noted on it become FIB_UNKNOWN and go on the
 * queue.
 */
void fib_nexthop_left(struct fib *f, const struct addr *gateway, enum fib_nexthop state,
		      struct queue *queue);

/* -- workers --------------------------------------------------------------- */

/*
 * Between the two a worker notes, sends and learns what came of it. A dump that was begun meanwhile
 * may have seen the kernel before or after it, so what was noted since the beginning stays.
 */
struct fib_work {
	LIST_ENTRY(fib_work) in_list;
	uint64_t since;
};
void fib_work_begin(struct fib *f, struct fib_work *work);
void fib_work_end(struct fib *f, struct fib_work *work);

/* -- the whole --------------------------------------------------------------- */

/*
 * Reads everything of ours from the kernel. What was noted while the dump ran is newer than the
 * dump and stays. Called by the monitor thread only. Returns 1 when a worker was at it as the dump
 * began: what he noted may be older than the dump all the same, so compare again.
 */
int fib_sync(struct fib *f, struct netlink *nl, const struct routes_config *config,
	     struct err *err);
/*
 * Puts every key on the queue whose desired state in peers differs from what is noted here. Returns
 * how many. Any thread; what another call has in hand at the same time may be put once more than
 * needed.
 */
size_t fib_queue_difference(struct fib *f, struct peers *peers, struct queue *queue);

struct fib_stats {
	size_t routes[2]; /* FIB_OURS: IPv4, IPv6 */
	size_t nexthops;
	size_t foreign; /* clashes */
	bool strays;	/* the last dump saw what routes_remove_strays() is for */
};
void fib_stats(struct fib *f, struct fib_stats *ret);
/* Calls fn for each route of ours, under the lock; a negative return ends it. */
int fib_foreach(struct fib *f,
		int (*fn)(const struct prefix *prefix, const struct fib_route *route, void *arg),
		void *arg);

#endif
