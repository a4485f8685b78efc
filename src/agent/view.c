/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "agent_state.h"
#include "poplin/base/clock.h"

/* The main thread comes round every ten seconds at least. */
#define HEALTHY_FOR_NS (60 * NS_PER_S)
/* A watch that is away for so long did not just move to another member. */
#define WATCH_AWAY_NS (30 * NS_PER_S)

static const char *drain_name(enum lease_drain drain)
{
	switch (drain) {
	case LEASE_SERVES:
		return "none";
	case LEASE_DRAINING:
		return "waiting";
	case LEASE_DRAINED:
		return "drained";
	case LEASE_KEPT:
		return "refused";
	}
	return NULL;
}

static void view_drain(struct status_view *v, const struct lease_status *lease)
{
	v->drain = drain_name(lease->drain);
	strlcpy(v->drain_reason, lease->drain_problem, sizeof(v->drain_reason));
	if (lease->drain == LEASE_DRAINED)
		status_view_reason(v, "this node is drained; 'poplinctl resume' ends that");
	else if (lease->drain == LEASE_DRAINING)
		status_view_reason(v, "this node is to be drained: %s",
				   lease->drain_problem[0] ? lease->drain_problem : "at work");
	else if (lease->drain == LEASE_KEPT)
		status_view_warning(v, "the node was to be drained, which was refused: %s",
				    lease->drain_problem);
}

static void view_lease(struct agent *a, struct status_view *v)
{
	struct lease_status lease;

	lease_get(a->lease, &lease);
	view_drain(v, &lease);
	v->subnet = lease.subnet;
	v->lease_held = lease.held;
	v->lease_ttl_s = lease.ttl_s;
	v->lease_deadline_ns = lease.deadline_boot_ns;
	strlcpy(v->store_endpoint, lease.endpoint, sizeof(v->store_endpoint));
	if (lease.subnet.addr.family != AF_UNSPEC)
		v->bridge_address = addr_add(&lease.subnet.addr, 1);
	if (lease.held && lease.problem[0])
		status_view_warning(v, "the lease is not renewed, or not published: %s",
				    lease.problem);
	if (!lease.held && lease.drain != LEASE_DRAINED)
		status_view_reason(v, "no subnet is held: %s",
				   lease.problem[0] ? lease.problem : "not claimed yet");
}

static void view_watcher(struct agent *a, struct status_view *v)
{
	struct watcher_status watcher;

	watcher_get(a->watcher, &watcher);
	v->store_connected = watcher.connected;
	v->store_last_change_ns = watcher.last_change_ns;
	if (!a->synced && a->remembers)
		status_view_warning(v, "the nodes are known from a snapshot that is %lld s old: %s",
				    (long long)((clock_real_ns() - a->restored.real_ns) / NS_PER_S),
				    watcher.problem[0] ? watcher.problem
						       : "etcd was not asked yet");
	else if (!a->synced)
		status_view_reason(v, "the nodes were not listed yet: %s",
				   watcher.problem[0] ? watcher.problem : "not asked yet");
	else if (!a->drained)
		status_view_reason(v, "routes are being set for the first time");
	if (a->synced && !watcher.connected && watcher.away_ns &&
	    clock_ns() - watcher.away_ns > WATCH_AWAY_NS)
		status_view_warning(v, "changes of other nodes have not arrived for %lld s: %s",
				    (long long)((clock_ns() - watcher.away_ns) / NS_PER_S),
				    watcher.problem[0] ? watcher.problem : "the watch is away");
}

static void view_leftovers_locked(const struct agent *a, struct status_view *v)
{
	char text[PREFIX_TEXT_MAX];

	v->pods_cut_off = a->leftovers.pods;
	for (unsigned i = 0; i < a->leftovers.nsubnets; i++)
		status_view_warning(v,
				    "pods have addresses of %s, which this node holds no longer: "
				    "other nodes cannot reach them",
				    prefix_format(&a->leftovers.subnets[i], text));
}

void agent_view(struct status_view *v, void *arg)
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
	view_leftovers_locked(a, v);
	if (a->refused[0])
		status_view_warning(v, "the configuration was refused, the old one stays: %s",
				    a->refused);
	if (a->problem[0])
		status_view_reason(v, "%s", a->problem);
	else if (v->subnet.addr.family == AF_UNSPEC)
		return; /* which was told above */
	else if (!a->bridge_stands)
		status_view_reason(v, "the bridge does not stand yet");
	else if (!a->files_stand)
		status_view_reason(v, "the CNI configuration is not written yet");
	v->limits = a->limits;
	v->ready = v->healthy && v->nreasons == 0;
}
