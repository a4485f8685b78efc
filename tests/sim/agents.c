/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/lease.h"
#include "agent/peers.h"
#include "agent/queue.h"
#include "agent/watcher.h"
#include "poplin/base/clock.h"
#include "poplin/base/thread.h"
#include "sim.h"

#define FIRST_AGENT 1000000 /* a number that no other node has */

struct agent {
	struct agents *all;
	struct lease *lease;
	struct watcher *watcher;
	struct peers *peers;
	struct queue *queue;
	char folder[PATH_MAX]; /* for its node state */
	atomic_bool held, synced;
};

struct agents {
	char folder[64];
	struct agent *agents;
	unsigned count;
	struct mutex lock;
	struct cond wake;
};

static void progress(struct agent *a, atomic_bool *what)
{
	if (atomic_exchange(what, true))
		return;
	mutex_hold(&a->all->lock);
	cond_signal(&a->all->wake);
}

static void on_change(void *arg)
{
	struct agent *a = arg;

	progress(a, &a->held);
}

static void on_synced(void *arg)
{
	struct agent *a = arg;

	progress(a, &a->synced);
}

static void on_own(const struct store_change *change, void *arg)
{
	struct agent *a = arg;

	lease_check(a->lease, change);
}

/* There is no kernel behind it. */
static void on_key(const struct key *key, int64_t event_ns, bool gone, void *arg)
{
	(void)key;
	(void)event_ns;
	(void)gone;
	(void)arg;
}

static int start(struct agent *a, const struct sim *sim, unsigned number, struct err *err)
{
	char name[NODE_NAME_TEXT_MAX];
	struct record record;
	const struct peers_config peers = {
		.network = sim->network, .node = name, .on_key = on_key, .arg = a
	};
	const struct queue_config queue = { .now = clock_ns };
	struct lease_config lease = {
		.store = sim->store,
		.node = name,
		.state_dir = a->folder,
		.network = sim->network,
		.ttl_s = sim->ttl_s,
		.on_change = on_change,
		.arg = a,
	};
	struct watcher_config watcher = {
		.store = sim->store,
		.node = name,
		.on_synced = on_synced,
		.resync_interval_s = sim->resync_interval_s,
		.on_own = on_own,
		.arg = a,
	};
	int r;

	sim_node(sim, FIRST_AGENT + number, name, &record);
	record.address = addr_add(&sim->address, 2 * SIM_CHANGED + number);
	lease.record = record;
	snprintf(a->folder, sizeof(a->folder), "%s/%s", a->all->folder, name);
	if (mkdir(a->folder, 0700) < 0)
		return err_errno(err, -errno, "%s", a->folder);
	r = peers_new(&a->peers, &peers, err);
	if (r == 0)
		r = queue_new(&a->queue, &queue, err);
	watcher.peers = a->peers;
	watcher.queue = a->queue;
	if (r == 0)
		r = lease_start(&a->lease, &lease, err);
	if (r == 0)
		r = watcher_start(&a->watcher, &watcher, err);
	return r;
}

int agents_start(struct agents **ret, const struct sim *sim, unsigned count, struct err *err)
{
	struct agents *all = calloc(1, sizeof(*all));
	int r = 0;

	if (all)
		all->agents = calloc(count, sizeof(*all->agents));
	if (!all || !all->agents) {
		free(all);
		return err_errno(err, -ENOMEM, "simulator");
	}
	mutex_init(&all->lock, LOCK_LEAF);
	cond_init(&all->wake);
	strcpy(all->folder, "/tmp/poplin-sim-XXXXXX");
	if (!mkdtemp(all->folder))
		r = err_errno(err, -errno, "%s", all->folder);
	for (; r == 0 && all->count < count; all->count++) {
		all->agents[all->count].all = all;
		r = start(&all->agents[all->count], sim, all->count, err);
	}
	if (r < 0) {
		agents_stop(all);
		return r;
	}
	*ret = all;
	return 0;
}

static void stop(struct agent *a)
{
	char path[PATH_MAX + 16];

	if (a->watcher)
		watcher_stop(a->watcher);
	if (a->lease)
		lease_stop(a->lease);
	if (a->peers)
		peers_free(a->peers);
	if (a->queue)
		queue_free(a->queue);
	snprintf(path, sizeof(path), "%s/node.json", a->folder);
	(void)unlink(path);
	(void)rmdir(a->folder);
}

void agents_stop(struct agents *all)
{
	for (unsigned i = 0; i < all->count; i++)
		stop(&all->agents[i]);
	(void)rmdir(all->folder);
	cond_done(&all->wake);
	mutex_done(&all->lock);
	free(all->agents);
	free(all);
}

void agents_wait(struct agents *all)
{
	for (unsigned i = 0; i < all->count; i++) {
		const struct agent *a = &all->agents[i];

		mutex_hold(&all->lock);
		while (!a->held || !a->synced)
			cond_wait(&all->wake, &all->lock);
	}
}
