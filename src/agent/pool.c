/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/clock.h"
#include "worker.h"

static void worker_free(struct worker *worker)
{
	if (worker->batch)
		netlink_batch_free(worker->batch);
	if (worker->nl)
		netlink_close(worker->nl);
	free(worker);
}

static int add_worker(struct pool *p, struct err *err)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	char name[16];
	int r;

	if (!worker)
		return err_errno(err, -ENOMEM, "route worker");
	worker->pool = p;
	r = netlink_open(&worker->nl, err);
	if (r == 0)
		r = netlink_batch_new(&worker->batch, err);
	if (r == 0) {
		(void)snprintf(name, sizeof(name), "worker/%u", p->count);
		p->ports[p->count] = netlink_port(worker->nl);
		r = thread_start(&worker->thread, name, worker_run, worker);
		if (r < 0)
			err_errno(err, r, "start route worker %u", p->count);
	}
	if (r < 0) {
		p->ports[p->count] = 0;
		worker_free(worker);
		return r;
	}
	p->workers[p->count++] = worker;
	return 0;
}

/* Its thread ends with the queue, or before it when told to quit. */
static void end_worker(struct pool *p)
{
	struct worker *worker = p->workers[--p->count];

	thread_join(&worker->thread);
	p->ports[p->count] = 0;
	p->workers[p->count] = NULL;
	worker_free(worker);
}

static void remove_worker(struct pool *p)
{
	p->workers[p->count - 1]->quit = true;
	queue_wake(p->config.queue);
	end_worker(p);
}

int pool_set_workers(struct pool *p, unsigned workers, struct err *err)
{
	unsigned before = p->count;

	if (workers > POOL_WORKERS_MAX)
		return err_set(err, -EINVAL, "%u route workers are more than %d", workers,
			       POOL_WORKERS_MAX);
	while (p->count > workers)
		remove_worker(p);
	while (p->count < workers) {
		int r = add_worker(p, err);

		if (r == 0)
			continue;
		while (p->count > before)
			remove_worker(p);
		return r;
	}
	return 0;
}

int pool_start(struct pool **ret, const struct pool_config *config, unsigned workers,
	       struct err *err)
{
	struct pool *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_errno(err, -ENOMEM, "worker pool");
	p->config = *config;
	p->index = config->routes.index;
	p->listed_ns = p->sweep_ns = INT64_MAX;
	r = pool_set_workers(p, workers, err);
	if (r < 0) {
		free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void pool_stop(struct pool *p, enum queue_stop how)
{
	queue_stop(p->config.queue, how);
	while (p->count > 0)
		end_worker(p);
	free(p);
}

bool pool_owns_port(struct pool *p, uint32_t port)
{
	for (size_t i = 0; port && i < POOL_WORKERS_MAX; i++)
		if (p->ports[i] == port)
			return true;
	return false;
}

size_t pool_get_ports(struct pool *p, uint32_t ret[static POOL_WORKERS_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < POOL_WORKERS_MAX; i++) {
		ret[n] = p->ports[i];
		n += ret[n] != 0;
	}
	return n;
}

void pool_get_routes(struct pool *p, struct routes_config *ret)
{
	*ret = p->config.routes;
	ret->index = p->index;
}

void pool_set_link(struct pool *p, unsigned index)
{
	p->index = index;
}

void pool_set_sweep(struct pool *p, int64_t listed_ns, int64_t sweep_ns)
{
	p->sweep_ns = sweep_ns;
	p->listed_ns = listed_ns;
}

bool pool_sweeps(const struct pool *p)
{
	return clock_ns() >= p->sweep_ns;
}

const char *route_failure_text(int result)
{
	switch (result) {
	case -EEXIST:
		return "a route that is not ours stands there";
	case -ENETUNREACH:
		return "the next hop is not on a network of this node";
	case -ENETDOWN:
		return "the link to the other nodes is down";
	case -EAGAIN:
		return "waits for another change to end";
	default:
		return strerrordesc_np(-result);
	}
}
