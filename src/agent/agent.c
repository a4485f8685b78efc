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
 *the list from the store is complete. Stop: the threads end in the reverse order; nothing is
 *removed.
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

#include "cniconf.h"
#include "fib.h"
#include "httpd.h"
#include "instance.h"
#include "lease.h"
#include "metrics.h"
#include "monitor.h"
#include "node.h"
#include "peers.h"
#include "pool.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"
#include "poplin/dataplane/bridge.h"
#include "queue.h"
#include "reload.h"
#include "resolver.h"
#include "status.h"
#include "watcher.h"

#define RETRY_MIN_NS   (NS_PER_S / 5)
#define RETRY_MAX_NS   (30 * NS_PER_S)
#define HEARTBEAT_NS   (10 * NS_PER_S)
#define HEALTHY_FOR_NS (60 * NS_PER_S)

struct agent {
	struct settings *settings; /* of the main thread */
	const char *config;
	bool config_required;
	/* Copies that never change: a reload writes the settings while the HTTP thread reads. */
	char node_name[NODE_NAME_TEXT_MAX];
	char bridge_name[IF_NAMESIZE];
	char machine[RECORD_MACHINE_MAX + 1];
	char ipam_dir[SETTING_PATH_MAX + SETTING_CNI_NAME_MAX + 8];

	int lock_fd, signal_fd, event_fd;
	struct netlink *nl;
	struct queue *queue;
	struct peers *peers;
	struct fib *fib;
	struct pool *pool;
	struct resolver *resolver;
	struct monitor *monitor;
	struct watcher *watcher;
	struct lease *lease;
	struct httpd *httpd;
	struct status_source source;

	/* Of the main thread. */
	struct prefix subnet; /* that bridge and peers were told of; AF_UNSPEC: none */
	unsigned failures;
	int64_t retry_ns; /* 0: none due */
	int64_t resync_ns;

	_Atomic int64_t alive_ns; /* when the main loop last came round */
	_Atomic bool synced;	  /* peers agrees with a complete list */
	_Atomic bool drained;	  /* since then every route was tried once */
	_Atomic bool dirty;	  /* somebody changed something of ours */

	struct mutex lock;
	/* Under lock: for the HTTP thread. */
	struct node node;
	bool bridge_stands, files_stand;
	char problem[ERR_TEXT_MAX]; /* of the last reconcile(), or "" */
};

/* -- bells: called on other threads ----------------------------------------- */

static void ring(void *arg)
{
	struct agent *a = arg;

	event_ring(a->event_fd);
}

static void on_synced(void *arg)
{
	struct agent *a = arg;

	a->synced = true;
	event_ring(a->event_fd);
}

static void on_drained(void *arg)
{
	struct agent *a = arg;

	if (!a->synced || atomic_exchange(&a->drained, true))
		return;
	event_ring(a->event_fd);
}

/* A link or address that is not a pod's changed: the bridge or the node's interface may be it. */
static void on_links_changed(void *arg)
{
	struct agent *a = arg;

	a->dirty = true;
	event_ring(a->event_fd);
}

static void on_own_record(void *arg)
{
	struct agent *a = arg;

	lease_check(a->lease);
}

/* -- what the HTTP thread asks ---------------------------------------------- */

static void view_lease(struct agent *a, struct status_view *v)
{
	struct lease_status lease;

	lease_get(a->lease, &lease);
	v->subnet = lease.subnet;
	v->lease_held = lease.held;
	v->lease_ttl_s = lease.ttl_s;
	v->lease_deadline_ns = lease.deadline_boot_ns;
	strlcpy(v->store_endpoint, lease.endpoint, sizeof(v->store_endpoint));
	if (lease.subnet.addr.family != AF_UNSPEC)
		v->bridge_address = addr_add(&lease.subnet.addr, 1);
	if (!lease.held)
		status_view_reason(v, "no subnet is held: %s",
				   lease.problem[0] ? lease.problem : "not claimed yet");
}

static void view_watcher(struct agent *a, struct status_view *v)
{
	struct watcher_status watcher;

	watcher_get(a->watcher, &watcher);
	v->store_connected = watcher.connected;
	v->store_last_change_ns = watcher.last_change_ns;
	if (!a->synced)
		status_view_reason(v, "the nodes were not listed yet: %s",
				   watcher.problem[0] ? watcher.problem : "not asked yet");
	else if (!a->drained)
		status_view_reason(v, "routes are being set for the first time");
}

static void view(struct status_view *v, void *arg)
{
	struct agent *a = arg;

	v->healthy = clock_ns() - a->alive_ns < HEALTHY_FOR_NS;
	if (!v->healthy)
		status_view_reason(v, "the main thread does not come round");
	strlcpy(v->node, a->node_name, sizeof(v->node));
	strlcpy(v->bridge, a->bridge_name, sizeof(v->bridge));
	view_lease(a, v);
	view_watcher(a, v);
	mutex_hold(&a->lock);
	v->address = a->node.address;
	strlcpy(v->interface, a->node.interface, sizeof(v->interface));
	v->bridge_mtu = a->node.mtu;
	if (a->problem[0])
		status_view_reason(v, "%s", a->problem);
	else if (!a->bridge_stands)
		status_view_reason(v, "the bridge does not stand yet");
	else if (!a->files_stand)
		status_view_reason(v, "the CNI configuration is not written yet");
	v->ready = v->healthy && v->nreasons == 0;
}

/* -- what should be --------------------------------------------------------- */

/* The node's interface and address may change while we run; the record follows. */
static int reconcile_node(struct agent *a, struct err *err)
{
	struct node node;
	char text[ADDR_TEXT_MAX];
	bool moved, other_link;
	int r = node_identify(a->nl, a->settings, &node, err);

	if (r < 0)
		return r;
	mutex_lock(&a->lock);
	moved = addr_cmp(&node.address, &a->node.address) != 0;
	other_link = node.index != a->node.index;
	a->node = node;
	mutex_unlock(&a->lock);
	if (moved) {
		log_warn("this node's address changed" KV("address", "%s"),
			 addr_format(&node.address, text));
		peers_set_own_address(a->peers, &node.address);
		lease_set_address(a->lease, &node.address);
	}
	if (other_link)
		pool_set_link(a->pool, node.index);
	return 0;
}

static int reconcile_bridge(struct agent *a, struct err *err)
{
	const struct bridge bridge = {
		.name = a->bridge_name,
		.subnet = a->subnet,
		.pods = a->settings->network.pods,
		.mtu = a->node.mtu,
	};
	bool stood = a->bridge_stands, changed;
	int r = bridge_ensure(a->nl, &bridge, &changed, err);

	mutex_lock(&a->lock);
	a->bridge_stands = r >= 0;
	mutex_unlock(&a->lock);
	if (r < 0)
		return r;
	if (changed) {
		log_info("%s" KV("bridge", "%s"), stood ? "bridge repaired" : "bridge set up",
			 bridge.name);
		if (stood)
			metric_inc_label(METRIC_DRIFT_REPAIRS, METRIC_DRIFT_BRIDGE);
	}
	return 0;
}

static int reconcile_files(struct agent *a, struct err *err)
{
	bool stood = a->files_stand, changed;
	int r = cniconf_install(a->settings, &a->subnet, a->node.mtu, &changed, err);

	mutex_lock(&a->lock);
	a->files_stand = r >= 0;
	mutex_unlock(&a->lock);
	if (r < 0)
		return r;
	if (changed) {
		log_info("CNI configuration written" KV("path", "%s"),
			 a->settings->cni_config_location);
		if (stood)
			metric_inc_label(METRIC_DRIFT_REPAIRS, METRIC_DRIFT_FILE);
	}
	return 0;
}

/* True when there is a subnet; peers and the bridge learn of a new one. */
static bool take_subnet(struct agent *a)
{
	struct lease_status lease;

	lease_get(a->lease, &lease);
	if (lease.subnet.addr.family == AF_UNSPEC)
		return false;
	if (prefix_cmp(&lease.subnet, &a->subnet) == 0)
		return true;
	a->subnet = lease.subnet;
	peers_set_own_subnet(a->peers, &a->subnet);
	return true;
}

static int reconcile_steps(struct agent *a, struct err *err)
{
	int r;

	r = reconcile_node(a, err);
	if (r < 0)
		return err_wrap(err, r, "this node's address");
	if (!take_subnet(a))
		return 0;
	r = reconcile_bridge(a, err);
	if (r < 0)
		return err_wrap(err, r, "bridge %s", a->bridge_name);
	if (!a->drained)
		return 0;
	r = reconcile_files(a, err);
	return r < 0 ? err_wrap(err, r, "CNI configuration") : 0;
}

static void reconcile(struct agent *a)
{
	struct err err = ERR_INIT;
	int r;

	a->dirty = false; /* before looking: what changes from now on rings again */
	r = reconcile_steps(a, &err);
	a->failures = r < 0 ? a->failures + 1 : 0;
	a->retry_ns = r < 0 ? clock_ns() + backoff_ns(a->failures, RETRY_MIN_NS, RETRY_MAX_NS) : 0;
	mutex_lock(&a->lock);
	strlcpy(a->problem, r < 0 ? err.text : "", sizeof(a->problem));
	mutex_unlock(&a->lock);
	if (r < 0)
		log_error("cannot set up this node, trying again" KV("tries", "%u")
				  KV("error", "%s"),
			  a->failures, err.text);
}

/* -- signals and the loop --------------------------------------------------- */

static void reload_now(struct agent *a)
{
	const struct reload_targets targets = {
		.lease = a->lease,
		.watcher = a->watcher,
		.pool = a->pool,
	};
	unsigned interval_s = a->settings->resync_interval_s;
	struct err err = ERR_INIT;

	if (reload(a->settings, a->config, a->config_required, &targets, &err) < 0) {
		log_error("configuration refused, the old one stays" KV("error", "%s"), err.text);
		return;
	}
	log_info("configuration loaded");
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
	int64_t now = clock_ns(), until = now + HEARTBEAT_NS;

	if (a->resync_ns < until)
		until = a->resync_ns;
	if (a->retry_ns && a->retry_ns < until)
		until = a->retry_ns;
	return until <= now ? 0 : (int)((until - now) / NS_PER_MS) + 1;
}

static void resync_if_due(struct agent *a)
{
	int64_t now = clock_ns();

	if (now < a->resync_ns)
		return;
	monitor_resync(a->monitor);
	a->dirty = true;
	a->resync_ns = now + jitter_ns(a->settings->resync_interval_s * NS_PER_S, 10);
}

static int loop(struct agent *a, struct err *err)
{
	struct pollfd fds[] = {
		{ .fd = a->signal_fd, .events = POLLIN },
		{ .fd = a->event_fd, .events = POLLIN },
	};

	for (;;) {
		bool rung;

		a->alive_ns = clock_ns();
		if (poll(fds, countof(fds), poll_timeout_ms(a)) < 0 && errno != EINTR)
			return err_errno(err, -errno, "poll");
		if (!serve_signals(a))
			return 0;
		rung = fds[1].revents & POLLIN;
		event_clear(a->event_fd);
		resync_if_due(a);
		if (rung || a->dirty || (a->retry_ns && clock_ns() >= a->retry_ns))
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
