/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What pool.c (how many workers there are) and worker.c (what one does) share. */
#ifndef POPLIN_AGENT_WORKER_H
#define POPLIN_AGENT_WORKER_H

#include <stdatomic.h>

#include "pool.h"
#include "poplin/base/thread.h"
#include "poplin/nl/nl.h"

#define BATCH_KEYS 256

enum op_kind {
	OP_ADD,
	OP_REPLACE,
	OP_DELETE,
	OP_NEXTHOP_ADD,
	OP_NEXTHOP_REPLACE,
	OP_NEXTHOP_DELETE,
};

struct op {
	size_t item;
	enum op_kind kind;
	int result;
	char text[QUEUE_TEXT_MAX]; /* what the kernel said of a failure, or "" */
	struct addr gateway;
	struct addr left; /* the gateway that the route went by before; AF_UNSPEC: none */
};

struct work {
	struct queue_item items[BATCH_KEYS];
	int results[BATCH_KEYS];
	bool sent[BATCH_KEYS]; /* the kernel was told something for this key */
	size_t nitems;
	struct op ops[2 * BATCH_KEYS];
	size_t nops;
	struct routes_config routes;
	struct fib_work fib_work;
};

struct worker {
	struct thread thread;
	struct pool *pool;
	struct netlink *nl;
	struct netlink_batch *batch;
	atomic_bool quit;
	struct work work;
};

struct pool {
	struct pool_config config;
	_Atomic unsigned index;			  /* of the node's link */
	_Atomic int64_t listed_ns, sweep_ns;	  /* see pool_set_sweep() */
	_Atomic uint32_t ports[POOL_WORKERS_MAX]; /* netlink ports of the workers; 0: none */
	struct worker *workers[POOL_WORKERS_MAX];
	unsigned count; /* of those who call */
};

/* The thread of a worker: takes batches from the queue until it is stopped or worker->quit. */
void *worker_run(void *worker);

#endif
