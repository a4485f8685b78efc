/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The route workers: threads that take keys from the queue, compare peers with fib, and tell the
 * kernel what is missing, in batches.
 *
 * Threads: the functions below may be called from any thread; pool_start(), pool_set_workers()
 * and pool_stop() by one at a time.
 */
#ifndef POPLIN_AGENT_POOL_H
#define POPLIN_AGENT_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "fib.h"
#include "peers.h"
#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "poplin/dataplane/routes.h"
#include "queue.h"

#define POOL_WORKERS_MAX NETLINK_PORTS_MAX

struct pool;

struct pool_config {
	struct queue *queue;
	struct peers *peers;
	struct fib *fib;
	struct routes_config routes;
};

int pool_start(struct pool **ret, const struct pool_config *config, unsigned workers,
	       struct err *err);
/* On failure the number is as before. A worker that is too many finishes its batch first. */
int pool_set_workers(struct pool *p, unsigned workers, struct err *err);
/* Stops the queue, waits until the workers have drained it or left it, and frees the pool. */
void pool_stop(struct pool *p, enum queue_stop how);

/* Why a route could not be put or removed, for people; result as in struct queue_view. */
const char *route_failure_text(int result);

/* True when a notification with this nlmsg_pid was caused by a worker. */
bool pool_owns_port(struct pool *p, uint32_t port);
size_t pool_get_ports(struct pool *p, uint32_t ret[static POOL_WORKERS_MAX]);
/* What the routes are made with; the link's index can change while we run. */
void pool_get_routes(struct pool *p, struct routes_config *ret);
void pool_set_link(struct pool *p, unsigned index);
/*
 * What no record asks for stays until sweep_ns, by clock_ns(), unless an event after listed_ns told
 * to remove it. Both are INT64_MAX at first, and again while the store is not trusted.
 */
void pool_set_sweep(struct pool *p, int64_t listed_ns, int64_t sweep_ns);
bool pool_sweeps(const struct pool *p); /* whether that time has come */

#endif
