/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The monitor thread: listens to the kernel. What is ours and was changed or removed by others is
 * queued at once; what cannot be told one by one (a link that went down, a nexthop that vanished
 * with its routes, notifications that were lost) leads to a full comparison.
 *
 * Threads: one of its own; the functions below may be called from any thread.
 */
#ifndef POPLIN_AGENT_MONITOR_H
#define POPLIN_AGENT_MONITOR_H

#include <stdint.h>

#include "fib.h"
#include "peers.h"
#include "pool.h"
#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "queue.h"

struct monitor;

struct monitor_config {
	struct queue *queue;
	struct peers *peers;
	struct fib *fib;
	struct pool *pool;
	const char *bridge; /* by name, since it may come and go */
	uint8_t family;	    /* of the pods; addresses of the other one mean nothing here */
	/*
	 * The bridge, or the node's own link (uplink), or an address of theirs, changed: whichever
	 * is true. On the monitor thread.
	 */
	void (*on_link)(bool bridge, bool uplink, void *arg);
	void *arg;
};

/* Subscribes, reads the kernel's state once (so that fib is filled when it returns), and starts. */
int monitor_start(struct monitor **ret, const struct monitor_config *config, struct err *err);
void monitor_stop(struct monitor *m); /* ends the thread and frees it */
DEFINE_AUTO(struct monitor *, monitor_stop)
/*
 * The node's link or address is not to be found: any that comes up, and any default route, is told
 * as a change of the uplink until it was.
 */
void monitor_seek_uplink(struct monitor *m, bool seek);
/* Asks for a full comparison, soon and on the monitor thread. */
void monitor_resync(struct monitor *m);

#endif
