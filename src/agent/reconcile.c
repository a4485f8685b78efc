/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "agent_state.h"
#include "cniconf.h"
#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/nl/link.h"
#include "poplin/dataplane/bridge.h"

#define RETRY_MIN_NS  (NS_PER_S / 5)
#define RETRY_MAX_NS  (30 * NS_PER_S)
#define LEFTOVERS_NS  (5 * NS_PER_S)
#define LIMITS_CHANGE 16 /* fewer new peers bring no limit near */

/* The node's interface and address may change while we run; the record follows. */
static int reconcile_node(struct agent *a, struct err *err)
{
	struct node node;
	char text[ADDR_TEXT_MAX];
	bool moved, other_link;
	int r = node_identify(a->nl, a->settings, a->node.index, &node, err);

	/* Whatever comes up next may be it. */
	monitor_seek_uplink(a->monitor, r < 0);
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
		/* Its connection comes from the old address, so nothing reaches it any more. */
		watcher_reconnect(a->watcher);
	}
	if (other_link) {
		log_warn("this node's interface is another one now" KV("interface", "%s"),
			 node.interface);
		pool_set_link(a->pool, node.index);
		/* The nexthops, which were by the old one. */
		monitor_resync(a->monitor);
	}
	return 0;
}

static int reconcile_bridge(struct agent *a, struct err *err)
{
	const struct bridge bridge = {
		.name = a->bridge_name,
		.uplink = a->node.interface,
		.subnet = a->subnet,
		.pods = a->network.pods,
		.kept = a->leftovers.subnets,
		.nkept = a->leftovers.nsubnets,
		.mtu = a->node.mtu,
	};
	bool stood = a->bridge_stands, changed;
	unsigned others = 0, index;
	size_t pods = 0;
	int r = 0;

	/* BRIDGE_NAME is another one after a start, or somebody renamed the link. */
	if (!stood || link_index(a->nl, bridge.name, &index, NULL) < 0)
		r = bridge_take_over(a->nl, &a->network, bridge.name, &others, err);
	if (others)
		log_info("the bridge had another name, its pods are taken over" KV("bridge", "%s"),
			 bridge.name);
	if (r == 0)
		r = bridge_ensure(a->nl, &bridge, &changed, err);
	if (r >= 0)
		r = bridge_adopt_pods(a->nl, a->settings->cni_name, (unsigned)r, &pods, err);
	mutex_lock(&a->lock);
	a->bridge_stands = r >= 0;
	mutex_unlock(&a->lock);
	if (pods)
		log_info("links of pods put back into the bridge" KV("bridge", "%s")
				 KV("pods", "%zu"),
			 bridge.name, pods);
	if (r < 0)
		return r;
	changed = changed || pods;
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
	bool stood = a->files_stand && !a->files_due, changed;
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
	a->files_due = false;
	return 0;
}

/* Peers and the bridge learn of another subnet, or that there is none. */
static void take_subnet(struct agent *a)
{
	struct lease_status lease;

	lease_get(a->lease, &lease);
	if (prefix_cmp(&lease.subnet, &a->subnet) == 0)
		return;
	a->subnet = lease.subnet;
	peers_set_own_subnet(a->peers, &a->subnet);
	/* What is different now was changed by nobody. */
	mutex_hold(&a->lock);
	a->bridge_stands = a->files_stand = false;
}

static void tell_leftovers(const struct prefix *own, const struct leftovers *before,
			   const struct leftovers *now)
{
	char text[PREFIX_TEXT_MAX];

	for (unsigned i = 0; i < before->nsubnets; i++) {
		const struct prefix *p = &before->subnets[i];

		if (prefix_cmp(p, own) == 0)
			log_info("a subnet that was lost is held again" KV("subnet", "%s"),
				 prefix_format(p, text));
		else if (!leftovers_have(now, p))
			log_info(
				"the last pod of a subnet that was lost is gone" KV("subnet", "%s"),
				prefix_format(p, text));
	}
	for (unsigned i = 0; i < now->nsubnets; i++)
		if (!leftovers_have(before, &now->subnets[i]))
			log_warn("pods have addresses of a subnet that this node does not "
				 "hold" KV("subnet", "%s"),
				 prefix_format(&now->subnets[i], text));
}

static int reconcile_leftovers(struct agent *a, struct err *err)
{
	struct leftovers found, before = a->leftovers;
	int r = leftovers_find(a->ipam_dir, &a->network, &a->subnet, &found, err);

	if (r < 0)
		return r;
	mutex_lock(&a->lock);
	if (found.nsubnets != a->leftovers.nsubnets)
		a->bridge_stands = false;
	a->leftovers = found;
	mutex_unlock(&a->lock);
	tell_leftovers(&a->subnet, &before, &found);
	return 0;
}

/* A drained node gives up its bridge when the last pod is gone: its subnet is another's soon. */
static int reconcile_drained(struct agent *a, struct err *err)
{
	struct lease_status lease;

	lease_get(a->lease, &lease);
	if (lease.drain != LEASE_DRAINED || a->leftovers.pods)
		return 0;
	mutex_lock(&a->lock);
	a->bridge_stands = false;
	mutex_unlock(&a->lock);
	return bridge_remove(a->nl, a->settings->cni_name, &a->network, a->bridge_name, err);
}

/*
 * True once every route of the first complete list was tried. Failed ones do not hold the node up.
 */
static bool first_sync_done(struct agent *a)
{
	struct queue_stats queue;

	if (!a->drained && (a->synced || a->remembers)) {
		queue_stats(a->queue, &queue);
		a->drained = queue.ready == 0 && queue.working == 0;
	}
	return a->drained;
}

/* A cluster that grows fast may meet a limit long before the next resync. */
bool reconcile_peers_changed(struct agent *a)
{
	size_t now = peers_routes(a->peers), then = a->limits_routes;
	size_t change = now > then ? now - then : then - now;

	return change > LIMITS_CHANGE && change > then / 8;
}

/* Told when a limit comes near, not while it stays so. */
static void look_at_limits(struct agent *a)
{
	struct limits_input in = {
		.sysctl = "/proc/sys",
		.family = a->settings->pods.addr.family,
		.interface = a->node.interface,
	};
	struct limits limits;
	struct peers_stats peers;

	a->limits_routes = peers_routes(a->peers);
	peers_stats(a->peers, &peers);
	in.peers = peers.known;
	limits_look(&in, &limits);
	for (unsigned i = 0; i < LIMITS; i++)
		if (limits.text[i][0] && !a->limits.text[i][0])
			log_warn("a limit of this node is near" KV("limit", "%s") KV("text", "%s"),
				 limit_name((enum limit)i), limits.text[i]);
	mutex_hold(&a->lock);
	a->limits = limits;
}

/* What fails here is looked at again, and holds nothing else up. */
static void collect_pods(struct agent *a)
{
	struct err err = ERR_INIT;
	int n = podgc_look(&a->podgc, a->nl, a->ipam_dir, clock_ns(), &err);

	for (int i = 0; i < n; i++)
		metric_inc(METRIC_IPAM_COLLECTED);
	if (n < 0)
		log_limited(LOG_WARN,
			    "cannot look for addresses of pods that are gone, ignoring" KV("error",
											   "%s"),
			    err.text);
}

static int reconcile_steps(struct agent *a, struct err *err)
{
	int r;

	drain_follow(&a->drain, a->lease);
	take_subnet(a);
	r = reconcile_leftovers(a, err);
	if (r < 0)
		return err_wrap(err, r, "addresses of pods");
	if (a->subnet.addr.family == AF_UNSPEC) {
		r = reconcile_drained(a, err);
		return r < 0 ? err_wrap(err, r, "bridge %s", a->bridge_name) : 0;
	}
	r = reconcile_bridge(a, err);
	if (r < 0)
		return err_wrap(err, r, "bridge %s", a->bridge_name);
	collect_pods(a);
	if (!first_sync_done(a))
		return 0;
	if (a->limits_due || reconcile_peers_changed(a))
		look_at_limits(a);
	a->limits_due = false;
	r = reconcile_files(a, err);
	return r < 0 ? err_wrap(err, r, "CNI files") : 0;
}

int reconcile_check(struct agent *a, struct err *err)
{
	struct link link;

	if (link_get(a->nl, a->bridge_name, &link, NULL) < 0 || strcmp(link.kind, "bridge") == 0)
		return 0;
	return err_set(err, -EEXIST,
		       "BRIDGE_NAME %s: there is a link of this name that is no bridge",
		       a->bridge_name);
}

/*
 * Finding the default route reads the whole table, so only when there is a reason to, and no more
 * than a share of the time: somebody may change his default route again and again.
 */
static int identify(struct agent *a, struct err *err)
{
	int64_t work = clock_thread_ns();
	int r;

	if ((!a->moved && !a->lost) || clock_ns() < a->identify_ns)
		return 0;
	a->moved = false;
	r = reconcile_node(a, err);
	a->lost = r < 0;
	a->identify_ns = pace_next_ns(&a->identify_pace, clock_thread_ns() - work);
	return r < 0 ? err_wrap(err, r, "this node's address") : 0;
}

int64_t reconcile_due_ns(const struct agent *a)
{
	int64_t due = a->dirty ? a->next_ns : INT64_MAX;

	if (a->moved) {
		int64_t both = a->identify_ns > a->next_ns ? a->identify_ns : a->next_ns;

		due = both < due ? both : due;
	}
	if (a->retry_ns && a->retry_ns < due)
		due = a->retry_ns;
	/* Nothing else is done without a link. */
	return a->lost && due < a->identify_ns ? a->identify_ns : due;
}

/*
 * The first of many changes is answered at once. The bridge may be taken down and up all day, though,
 * and each look costs as much as the node has pods: so these are kept to a share of the time, too.
 */
void reconcile(struct agent *a)
{
	struct err err = ERR_INIT;
	int64_t work;
	int r;

	a->dirty = false; /* before looking: what changes from now on rings again */
	metric_inc(METRIC_NODE_CHECKS);
	r = identify(a, &err);
	work = clock_thread_ns();
	if (r == 0)
		r = reconcile_steps(a, &err);
	a->next_ns = pace_next_ns(&a->pace, clock_thread_ns() - work);
	a->failures = r < 0 ? a->failures + 1 : 0;
	a->retry_ns = r < 0 ? clock_ns() + backoff_ns(a->failures, RETRY_MIN_NS, RETRY_MAX_NS) : 0;
	/* Nobody tells when such a pod goes. */
	if (r == 0 && a->leftovers.pods)
		a->retry_ns = clock_ns() + LEFTOVERS_NS;
	mutex_lock(&a->lock);
	strlcpy(a->problem, r < 0 ? err.text : "", sizeof(a->problem));
	mutex_unlock(&a->lock);
	if (r < 0)
		log_error("cannot set up this node, trying again" KV("tries", "%u")
				  KV("error", "%s"),
			  a->failures, err.text);
}
