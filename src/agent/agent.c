/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. The other threads only ring a bell; the main thread then looks at all there
 * is and does what is missing (reconcile()), so no event can be lost and none is handled twice:
 *
 *	subnet held?	 bridge as it should be	    (else: wait for the lease thread)
 *	list complete,
 *	queue drained?	 plugin and CNI configuration as they should be
 *
 * The CNI configuration comes last: a container runtime takes the node for ready when it sees it.
 * Whatever fails is tried again with backoff, and everything is looked at again at each resync.
 *
 * Start: kernel state is read before anything is changed, and routes of an earlier run stay until
 * the list from the store is complete. Stop: the threads end in the reverse order; nothing is
 * removed.
 */
#include "agent.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent_state.h"
#include "httpd.h"
#include "instance.h"
#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/nl/route.h"
#include "reload.h"

#define HEARTBEAT_NS	 (10 * NS_PER_S)
#define REMOVAL_DELAY_NS NS_PER_S /* what is read old comes faster than that */

/* -- bells: called on other threads ----------------------------------------- */

static void ring(void *arg)
{
	struct agent *a = arg;

	a->dirty = true;
	event_ring(a->event_fd);
}

static void on_synced(void *arg)
{
	struct agent *a = arg;

	if (!a->trusted) {
		int64_t now = clock_ns();

		a->sweep_ns = now + a->route_grace_ns;
		pool_set_sweep(a->pool, now, a->sweep_ns);
	}
	a->synced = a->trusted = true;
	/* What is missing or stale in the kernel can be told from now on. */
	(void)fib_queue_difference(a->fib, a->peers, a->queue);
	snapshot_touch(a->snapshot);
	ring(a);
}

static void on_stale(void *arg)
{
	struct agent *a = arg;

	a->trusted = false;
	a->sweep_ns = 0;
	pool_set_sweep(a->pool, INT64_MAX, INT64_MAX);
	log_info("the store may have lost records, the routes of those stay" KV("grace_s",
										"%" PRId64),
		 a->route_grace_ns / NS_PER_S);
}

static void on_drained(void *arg)
{
	struct agent *a = arg;

	if ((a->synced || a->remembers) && (!a->drained || reconcile_peers_changed(a)))
		ring(a);
}

/* A link or address that is not a pod's changed: the bridge or the node's interface may be it. */
static void on_links_changed(bool bridge, bool uplink, void *arg)
{
	struct agent *a = arg;
	/* Many at a time: whoever has not looked since the last one needs no other bell. */
	bool moved = uplink && !atomic_exchange(&a->moved, true);
	bool dirty = bridge && !atomic_exchange(&a->dirty, true);

	if (moved || dirty)
		event_ring(a->event_fd);
}

static void on_rival(void *arg)
{
	struct agent *a = arg;

	a->rival = true;
	event_ring(a->event_fd);
}

/* On the lease thread: whether the subnet may be given back. */
static int may_release(void *arg, struct err *err)
{
	const struct prefix none = { .addr.family = AF_UNSPEC };
	struct agent *a = arg;
	struct leftovers pods;
	int r = leftovers_find(a->ipam_dir, &a->network, &none, &pods, err);

	if (r < 0 || !pods.pods || a->drain.force)
		return a->drain.force ? 0 : r;
	return err_set(err, -EBUSY, "%" PRIu64 " addresses are held by pods of this node",
		       pods.pods);
}

static void on_own_record(const struct store_change *change, void *arg)
{
	struct agent *a = arg;

	lease_check(a->lease, change);
}

/* -- signals and the loop --------------------------------------------------- */

static void reload_now(struct agent *a)
{
	const struct reload_targets targets = {
		.lease = a->lease,
		.watcher = a->watcher,
		.pool = a->working ? a->pool : NULL,
	};
	unsigned interval_s = a->settings->resync_interval_s;
	struct err err = ERR_INIT;

	if (reload(a->settings, a->config, a->config_required, &targets, &err) < 0) {
		log_error("configuration refused, the old one stays" KV("error", "%s"), err.text);
		mutex_hold(&a->lock);
		strlcpy(a->refused, err.text, sizeof(a->refused));
		return;
	}
	mutex_lock(&a->lock);
	a->refused[0] = '\0';
	mutex_unlock(&a->lock);
	log_info("configuration loaded");
	/* The plugins of CNI_CHAIN may be others, in the same file too. */
	a->files_due = true;
	a->dirty = true;
	if (a->settings->resync_interval_s != interval_s)
		a->resync_ns = clock_ns() + a->settings->resync_interval_s * NS_PER_S;
}

/* False: the agent is to stop. */
static bool serve_signals(struct agent *a)
{
	struct signalfd_siginfo info;
	bool hangup = false, stop = false;

	while (read(a->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		log_info("signal received" KV("signal", "%s"), strsignal((int)info.ssi_signo));
		if (info.ssi_signo == SIGHUP)
			hangup = true;
		else
			stop = true;
	}
	if (!stop && hangup)
		reload_now(a);
	return !stop;
}

static int poll_timeout_ms(const struct agent *a)
{
	int64_t now = clock_ns(), until = now + HEARTBEAT_NS, due = reconcile_due_ns(a);

	if (a->resync_ns < until)
		until = a->resync_ns;
	if (due < until)
		until = due;
	if (a->sweep_ns && a->sweep_ns < until)
		until = a->sweep_ns;
	return until <= now ? 0 : (int)((until - now) / NS_PER_MS) + 1;
}

static void resync_if_due(struct agent *a)
{
	int64_t now = clock_ns();

	if (now < a->resync_ns)
		return;
	monitor_resync(a->monitor);
	a->moved = true;
	a->dirty = true;
	a->limits_due = true;
	a->resync_ns = now + jitter_ns(a->settings->resync_interval_s * NS_PER_S, 10);
}

/* What no record has asked for by now is stale. */
static void sweep_if_due(struct agent *a)
{
	int64_t due = a->sweep_ns;

	/* Meanwhile the watcher may have put it off. */
	if (due && clock_ns() >= due && atomic_compare_exchange_strong(&a->sweep_ns, &due, 0))
		monitor_resync(a->monitor);
}

/*
 * There are no route workers before the store was asked who holds our name: of two machines with
 * one name the second has to leave without a trace (see also stop_pool()). 0, or why the agent
 * must end.
 */
static int follow_lease(struct agent *a, struct err *err)
{
	struct lease_status lease;

	lease_get(a->lease, &lease);
	if (lease.refused)
		return err_set(err, lease.refused, "%s", lease.problem);
	if (atomic_exchange(&a->rival, false))
		lease_verify(a->lease);
	if ((!lease.tried && !lease.admitted) || a->working)
		return 0;
	a->working = true;
	return pool_set_workers(a->pool, a->settings->route_workers, err);
}

static int loop(struct agent *a, struct err *err)
{
	struct pollfd fds[] = {
		{ .fd = a->signal_fd, .events = POLLIN },
		{ .fd = a->event_fd, .events = POLLIN },
		{ .fd = a->drain.fd, .events = POLLIN },
	};

	for (;;) {
		int r;

		a->alive_ns = clock_ns();
		if (poll(fds, countof(fds), poll_timeout_ms(a)) < 0 && errno != EINTR)
			return err_errno(err, -errno, "poll");
		if (!serve_signals(a))
			return 0;
		/* Only a ring that was seen: one that comes now is for the next round. */
		if (fds[1].revents & POLLIN)
			event_clear(a->event_fd);
		if (drain_noticed(&a->drain))
			a->dirty = true;
		r = follow_lease(a, err);
		if (r < 0)
			return r;
		resync_if_due(a);
		sweep_if_due(a);
		if (clock_ns() >= reconcile_due_ns(a))
			reconcile(a);
	}
}

/* -- start and stop --------------------------------------------------------- */

static int open_signals(struct agent *a, struct err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	/* Before the first thread, so that all inherit it. */
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
		return err_set(err, -EINVAL, "block signals");
	signal(SIGPIPE, SIG_IGN);
	a->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (a->signal_fd < 0)
		return err_errno(err, -errno, "signalfd");
	a->event_fd = event_open();
	return a->event_fd < 0 ? err_errno(err, a->event_fd, "eventfd") : 0;
}

/*
 * A route to a node that is gone hurts nobody for another moment. An agent that was cut off reads
 * how records went and came back meanwhile; its routes are not to follow each step of that.
 */
static void on_key(const struct key *key, int64_t event_ns, bool gone, void *arg)
{
	struct agent *a = arg;
	enum queue_class class = a->synced ? QUEUE_CHANGE : QUEUE_RESYNC;

	if (a->synced)
		snapshot_touch(a->snapshot);
	if (gone)
		queue_put_later(a->queue, key, class, event_ns, REMOVAL_DELAY_NS);
	else
		queue_put(a->queue, key, class, event_ns);
}

static void on_unresolved(const char *node, void *arg)
{
	struct agent *a = arg;

	resolver_want(a->resolver, node);
}

static bool on_resolved(const char *node, const struct addr *address, void *arg)
{
	struct agent *a = arg;

	return peers_resolved(a->peers, node, address);
}

static int start_state(struct agent *a, struct err *err)
{
	const struct queue_config queue = { .now = clock_ns, .on_drained = on_drained, .arg = a };
	const struct peers_config peers = {
		.network = a->settings->network,
		.node = a->node_name,
		.address = a->node.address,
		.on_key = on_key,
		.on_unresolved = on_unresolved,
		.on_rival = on_rival,
		.arg = a,
	};
	int r = queue_new(&a->queue, &queue, err);

	if (r == 0)
		r = peers_new(&a->peers, &peers, err);
	if (r == 0)
		r = fib_new(&a->fib, err);
	if (r == 0)
		r = resolver_start(&a->resolver, a->settings->pods.addr.family, on_resolved, a,
				   err);
	return r;
}

static int start_kernel_side(struct agent *a, struct err *err)
{
	const struct pool_config pool = {
		.queue = a->queue,
		.peers = a->peers,
		.fib = a->fib,
		.routes = { .protocol = (uint8_t)a->settings->route_protocol,
			    .index = a->node.index,
			    .nexthops = nexthop_supported(a->nl) },
	};
	struct monitor_config monitor = {
		.queue = a->queue,
		.peers = a->peers,
		.fib = a->fib,
		.bridge = a->bridge_name,
		.family = a->network.pods.addr.family,
		.on_link = on_links_changed,
		.arg = a,
	};
	struct fib_stats found;
	int r = pool_start(&a->pool, &pool, 0, err); /* the workers: see follow_lease() */

	if (r < 0)
		return r;
	if (!pool.routes.nexthops)
		log_info("this kernel has no nexthop objects, routes carry their gateways");
	monitor.pool = a->pool;
	r = monitor_start(&a->monitor, &monitor, err);
	if (r < 0)
		return r;
	fib_stats(a->fib, &found);
	a->found_routes = found.routes[0] || found.routes[1] || found.nexthops;
	return 0;
}

/* Before etcd was asked: what was known last. A damaged file costs nothing but a warning. */
static int start_snapshot(struct agent *a, struct err *err)
{
	const struct snapshot_config config = {
		.state_dir = a->state_dir,
		.node = a->node_name,
		.machine = a->machine,
		.prefix = a->etcd_prefix,
		.network = a->network,
		.peers = a->peers,
	};
	struct err why = ERR_INIT;
	int r = snapshot_start(&a->snapshot, &config, err);

	if (r < 0)
		return r;
	r = snapshot_restore(&config, &a->restored, &why);
	a->remembers = r == 0 && a->restored.nodes;
	ring(a); /* the queue may be empty again by now */
	if (r == 0)
		log_info("nodes restored from the snapshot" KV("nodes", "%zu"), a->restored.nodes);
	else if (r != -ENOENT)
		log_warn("the snapshot is not used, ignoring" KV("reason", "%s"), why.text);
	return 0;
}

static struct store_config store_config(const struct agent *a)
{
	struct store_config config = {
		.prefix = a->settings->etcd_prefix,
		.counter_key = a->settings->etcd_counter_key,
		.observe = metric_observe_store,
	};

	settings_access(a->settings, &config.access);
	return config;
}

static int start_watcher(struct agent *a, struct err *err)
{
	const struct watcher_config config = {
		.store = store_config(a),
		.node = a->node_name,
		.resync_interval_s = a->settings->resync_interval_s,
		.peers = a->peers,
		.queue = a->queue,
		.on_synced = on_synced,
		.on_stale = on_stale,
		.on_own = on_own_record,
		.arg = a,
	};

	return watcher_start(&a->watcher, &config, err);
}

static int start_lease(struct agent *a, struct err *err)
{
	struct lease_config lease = {
		.store = store_config(a),
		.node = a->node_name,
		.state_dir = a->settings->state_dir,
		.network = a->network,
		.record = { .address = a->node.address, .backend = BACKEND_HOST_GW },
		.ttl_s = a->settings->lease_ttl_s,
		.fence = a->settings->lease_fence,
		.remembered = a->restored.own,
		.on_change = ring,
		.may_release = may_release,
		.arg = a,
	};
	int r = drain_open(&a->drain, a->state_dir, err);

	if (r < 0)
		return r;
	lease.drain = drain_at_start(&a->drain);
	strlcpy(lease.record.machine, a->machine, sizeof(lease.record.machine));
	return lease_start(&a->lease, &lease, err);
}

static int start_http(struct agent *a, struct err *err)
{
	int r;

	a->source = (struct status_source){
		.peers = a->peers,
		.fib = a->fib,
		.queue = a->queue,
		.ipam_dir = a->ipam_dir,
		.podlog = &a->podlog,
		.view = agent_view,
		.arg = a,
	};
	r = httpd_start(&a->httpd, a->settings->metrics_address, status_paths, &a->source, err);
	if (r == 0)
		log_info("serving metrics and status" KV("address", "%s"), httpd_address(a->httpd));
	return r;
}

static int start(struct agent *a, struct err *err)
{
	char text[ADDR_TEXT_MAX];
	int r;

	a->lock_fd = instance_lock(a->settings->state_dir, err);
	if (a->lock_fd < 0)
		return a->lock_fd;
	r = open_signals(a, err);
	if (r == 0)
		r = netlink_open(&a->nl, err);
	if (r == 0)
		r = node_machine(a->machine, err);
	if (r == 0)
		r = reconcile_check(a, err);
	if (r == 0)
		r = node_identify(a->nl, a->settings, 0, &a->node, err);
	if (r < 0)
		return r;
	log_info("starting" KV("version", "%s") KV("node", "%s") KV("interface", "%s")
			 KV("address", "%s"),
		 PACKAGE_VERSION, a->node_name, a->node.interface,
		 addr_format(&a->node.address, text));
	r = start_state(a, err);
	if (r == 0)
		r = start_kernel_side(a, err);
	if (r == 0)
		r = start_snapshot(a, err);
	if (r == 0)
		r = start_lease(a, err);
	/* It tells the lease thread of our own record, and lists while that one claims. */
	if (r == 0)
		r = start_watcher(a, err);
	return r < 0 ? r : start_http(a, err);
}

/*
 * What the store asked for before is carried out. But when another machine took our name in the
 * moment in which we asked for it, none of this stays; unless an earlier process was here, whose
 * routes may serve pods.
 */
static void stop_pool(struct agent *a, bool refused)
{
	struct routes_config routes;
	struct err err = ERR_INIT;

	pool_get_routes(a->pool, &routes);
	pool_stop(a->pool, refused ? QUEUE_DROP : QUEUE_DRAIN);
	if (refused && !a->found_routes && !a->remembers &&
	    routes_remove_all(a->nl, &routes, &err) < 0)
		log_warn("cannot take back the routes" KV("error", "%s"), err.text);
}

/* In the reverse order; whatever was not started is left out. */
static void stop(struct agent *a)
{
	struct lease_status lease = { .refused = 0 };

	httpd_stop(a->httpd);
	podlog_done(&a->podlog);
	if (a->watcher)
		watcher_stop(a->watcher);
	if (a->lease) {
		lease_get(a->lease, &lease);
		lease_stop(a->lease);
	}
	if (a->snapshot)
		snapshot_stop(a->snapshot);
	if (a->monitor)
		monitor_stop(a->monitor);
	if (a->resolver)
		resolver_stop(a->resolver);
	if (a->pool)
		stop_pool(a, lease.refused);
	if (a->fib)
		fib_free(a->fib);
	if (a->peers)
		peers_free(a->peers);
	if (a->queue)
		queue_free(a->queue);
	if (a->nl)
		netlink_close(a->nl);
	drain_close(&a->drain);
	podgc_done(&a->podgc);
	mem_close_cleanup(&a->event_fd);
	mem_close_cleanup(&a->signal_fd);
	mem_close_cleanup(&a->lock_fd);
	mutex_done(&a->lock);
}

int agent_run(struct settings *s, const char *config, bool required, struct err *err)
{
	struct agent a = {
		.settings = s,
		.config = config,
		.config_required = required,
		.lock_fd = -1,
		.signal_fd = -1,
		.event_fd = -1,
		.drain.fd = -1,
		.network = s->network,
		.dirty = true,
		.limits_due = true,
	};
	int r;

	mutex_init(&a.lock, LOCK_AGENT);
	podlog_init(&a.podlog, s->state_dir);
	strlcpy(a.node_name, s->node_name, sizeof(a.node_name));
	strlcpy(a.bridge_name, s->bridge_name, sizeof(a.bridge_name));
	strlcpy(a.state_dir, s->state_dir, sizeof(a.state_dir));
	strlcpy(a.etcd_prefix, s->etcd_prefix, sizeof(a.etcd_prefix));
	(void)snprintf(a.ipam_dir, sizeof(a.ipam_dir), "%s/ipam/%s", s->state_dir, s->cni_name);
	metric_set(METRIC_RELOAD_OK, 0, 1);
	metric_set(METRIC_RELOAD_TIME, 0, clock_real_ns());
	a.alive_ns = clock_ns();
	a.resync_ns = clock_ns() + s->resync_interval_s * NS_PER_S;
	a.route_grace_ns = s->route_grace_s * NS_PER_S;
	r = start(&a, err);
	if (r == 0)
		r = loop(&a, err);
	stop(&a);
	if (r == 0)
		log_info("stopped; network, routes and record stay as they are");
	return r;
}
