/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. A notification is a hint where to look, never the truth: it may be older
 * than what a worker has done since. So it only changes the note in fib and queues the key; the
 * worker finds out what stands there, and an error of the kernel's corrects a note that was wrong.
 *
 * What workers do themselves is recognized by the port of their sockets and left out, by the kernel
 * itself from the first one of a new worker on. When a link goes down the kernel drops its nexthops,
 * and routes with them, without telling of the routes (fib_sync_down_dev, nexthop_flush_dev): then,
 * and when notifications were lost, everything is compared.
 */
#include "monitor.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"
#include "poplin/nl/address.h"
#include "poplin/nl/link.h"
#include "poplin/nl/nl.h"
#include "poplin/nl/route.h"

#define WORK_NS		  (5 * NS_PER_MS) /* a batch of a worker takes less */
#define SYNC_RETRY_MIN_NS (NS_PER_S / 2)
#define SYNC_RETRY_MAX_NS (30 * NS_PER_S)

struct monitor {
	struct thread thread;
	struct monitor_config config;
	char bridge[IF_NAMESIZE];
	struct netlink_monitor *notifications;
	struct netlink *nl;
	int event_fd;
	atomic_bool stop;
	atomic_bool resync_asked;
	atomic_bool uplink_sought;

	/* Of the thread alone. */
	unsigned bridge_index; /* 0: not known */
	bool sync_due;
	int64_t next_sync_ns; /* not before */
	struct pace pace;     /* a link that goes down and up asks for two comparisons at once */
	unsigned failures;
	bool bridge_changed, uplink_changed;
	bool filtered; /* anew, since the last time that there was nothing to read */
};

/* -- notifications ------------------------------------------------------------ */

/* Whether the prefix is one of ours: noted as there, or wanted. */
static bool concerns_us(struct monitor *m, const struct prefix *prefix, struct fib_route *ret)
{
	struct addr gateway;

	fib_get(m->config.fib, prefix, ret);
	return ret->state != FIB_ABSENT || peers_lookup(m->config.peers, prefix, &gateway);
}

static void take_route(struct monitor *m, const struct nlmsghdr *msg, const struct route *r)
{
	struct key key = key_route(&r->dst);
	bool gone = msg->nlmsg_type == RTM_DELROUTE;
	struct routes_config config;
	struct fib_route is;
	struct addr gateway;
	bool ours;

	if (r->dst.len == 0) /* it may lead out by another link */
		m->uplink_changed = true;
	pool_get_routes(m->config.pool, &config);
	ours = routes_recognize(&config, r, &gateway);
	/* It stands where none of ours does, or maybe before or behind one. */
	if (!gone && (routes_is_stray(&config, r) || (ours && !(msg->nlmsg_flags & NLM_F_REPLACE))))
		m->sync_due = true;
	if (!ours && (routes_beside(r) || !concerns_us(m, &r->dst, &is)))
		return;
	if (ours && gone) {
		(void)fib_note(m->config.fib, &r->dst, FIB_ABSENT, NULL);
		metric_inc_label(METRIC_DRIFT_REPAIRS, METRIC_DRIFT_ROUTE);
	} else {
		/* Somebody made one like ours, or put his in its place, or took his away. */
		(void)fib_note(m->config.fib, &r->dst, ours ? FIB_OURS : FIB_UNKNOWN, &gateway);
	}
	queue_put(m->config.queue, &key, QUEUE_REPAIR, clock_ns());
}

/* A foreign route that stands where ours belongs may have gone with its link, address or nexthop. */
static void note_silent_loss(struct monitor *m)
{
	struct fib_stats stats;

	fib_stats(m->config.fib, &stats);
	m->sync_due = m->sync_due || stats.foreign;
}

static void take_link(struct monitor *m, const struct nlmsghdr *msg, const struct link *link)
{
	struct routes_config config;

	pool_get_routes(m->config.pool, &config);
	if (strcmp(link->name, m->bridge) == 0) {
		m->bridge_index = msg->nlmsg_type == RTM_NEWLINK ? link->index : 0;
		m->bridge_changed = true;
	}
	if (link->index == config.index) {
		m->uplink_changed = true;
		m->sync_due = true;
	} else if (m->uplink_sought && msg->nlmsg_type == RTM_NEWLINK) {
		m->uplink_changed = true;
	}
	if (msg->nlmsg_type == RTM_DELLINK || !(link->flags & IFF_UP))
		note_silent_loss(m);
}

static void take_address(struct monitor *m, const struct nlmsghdr *msg,
			 const struct address *address)
{
	struct routes_config config;

	/* IPv6 tells of an address again with each router advertisement. */
	if (address->address.addr.family != m->config.family)
		return;
	pool_get_routes(m->config.pool, &config);
	if (msg->nlmsg_type == RTM_DELADDR)
		note_silent_loss(m);
	if (address->index == m->bridge_index)
		m->bridge_changed = true;
	if (m->uplink_sought)
		m->uplink_changed = true;
	if (address->index != config.index)
		return;
	m->uplink_changed = true;
	/* Routes by a gateway of a network that came or went. */
	m->sync_due = true;
}

/* Pods are cut off when somebody reloads his sysctls: that is not left to the next resync. */
static void take_forwarding(struct monitor *m, const struct link_forwarding *f)
{
	struct routes_config config;

	pool_get_routes(m->config.pool, &config);
	if (!f->on && (f->index == 0 || f->index == m->bridge_index || f->index == config.index))
		m->bridge_changed = true;
}

/* An id is a gateway's address. Whoever replaces a nexthop of ours may leave our protocol away. */
static void take_nexthop(struct monitor *m, const struct nexthop *n)
{
	const struct addr gateway = addr_from_ipv4(n->id);
	struct routes_config config;

	pool_get_routes(m->config.pool, &config);
	if (n->protocol != config.protocol) {
		note_silent_loss(m);
		if (fib_nexthop_get(m->config.fib, &gateway) == FIB_NEXTHOP_ABSENT)
			return;
	}
	m->sync_due = true;
	metric_inc_label(METRIC_DRIFT_REPAIRS, METRIC_DRIFT_NEXTHOP);
}

/* Otherwise each route that a worker makes would wake this thread. */
static void ignore_workers(struct monitor *m)
{
	uint32_t ports[POOL_WORKERS_MAX];
	size_t count = pool_get_ports(m->config.pool, ports);
	struct err err = ERR_INIT;

	if (netlink_monitor_ignore(m->notifications, ports, count, &err) < 0)
		log_limited(LOG_WARN, "cannot filter notifications" KV("error", "%s"), err.text);
}

static int take(const struct nlmsghdr *msg, void *arg)
{
	struct monitor *m = arg;
	union {
		struct route route;
		struct link link;
		struct address address;
		struct nexthop nexthop;
		struct link_forwarding forwarding;
	} u;

	if (pool_owns_port(m->config.pool, msg->nlmsg_pid)) {
		if (!m->filtered)
			ignore_workers(m);
		m->filtered = true;
		return 0;
	}
	if (route_parse(msg, &u.route) == 0)
		take_route(m, msg, &u.route);
	else if (link_parse(msg, &u.link) == 0)
		take_link(m, msg, &u.link);
	else if (address_parse(msg, &u.address) == 0)
		take_address(m, msg, &u.address);
	else if (nexthop_parse(msg, &u.nexthop) == 0)
		take_nexthop(m, &u.nexthop);
	else if (link_forwarding_parse(msg, &u.forwarding) == 0)
		take_forwarding(m, &u.forwarding);
	return 0;
}

static void read_notifications(struct monitor *m)
{
	struct err err = ERR_INIT;
	int r = netlink_monitor_read(m->notifications, take, m, &err);

	if (r < 0) {
		metric_inc(METRIC_NETLINK_OVERRUNS);
		log_warn("notifications of the kernel were lost, comparing everything" KV("error",
											  "%s"),
			 err.text);
		m->sync_due = true;
		m->uplink_changed = true;
	}
	m->filtered = false;
	if (m->bridge_changed || m->uplink_changed)
		m->config.on_link(m->bridge_changed, m->uplink_changed, m->config.arg);
	m->bridge_changed = m->uplink_changed = false;
}

/* -- the full comparison -------------------------------------------------------- */

/*
 * No worker knows of routes of our protocol that do not stand in our place, or behind another one
 * there. Like all that may be stale they stay until it is certain what is.
 */
static void remove_strays(struct monitor *m, const struct routes_config *config)
{
	struct err err = ERR_INIT;
	struct fib_stats stats;
	unsigned count;

	fib_stats(m->config.fib, &stats);
	if (!stats.strays || !pool_sweeps(m->config.pool))
		return;
	if (routes_remove_strays(m->nl, config, &count, &err) < 0)
		log_limited(LOG_WARN, "cannot remove routes of our protocol" KV("error", "%s"),
			    err.text);
	if (count)
		log_info("routes of our protocol removed that were not made by us" KV("routes",
										      "%u"),
			 count);
	for (unsigned i = 0; i < count; i++)
		metric_inc_label(METRIC_DRIFT_REPAIRS, METRIC_DRIFT_ROUTE);
}

static int sync_now(struct monitor *m, struct err *err)
{
	int64_t start = clock_ns(), work = clock_thread_ns(), now;
	struct routes_config config;
	size_t different;
	int r;

	pool_get_routes(m->config.pool, &config);
	r = fib_sync(m->config.fib, m->nl, &config, err);
	if (r < 0)
		return r;
	queue_hold(m->config.queue);
	/* What a worker notes about now may be older than this, and wrong. */
	m->sync_due = m->sync_due || r > 0;
	different = fib_queue_difference(m->config.fib, m->config.peers, m->config.queue);
	queue_release(m->config.queue);
	remove_strays(m, &config);
	now = clock_ns();
	m->next_sync_ns = pace_next_ns(&m->pace, clock_thread_ns() - work);
	if (r > 0 && m->next_sync_ns < now + WORK_NS)
		m->next_sync_ns = now + WORK_NS;
	metric_inc(METRIC_RESYNCS);
	metric_observe(METRIC_RESYNC_DURATION, 0, now - start);
	log_debug("compared with the kernel" KV("different", "%zu"), different);
	return 0;
}

static void sync_if_due(struct monitor *m)
{
	struct err err = ERR_INIT;

	if (!m->sync_due || clock_ns() < m->next_sync_ns)
		return;
	m->sync_due = false;
	if (sync_now(m, &err) == 0) {
		m->failures = 0;
		return;
	}
	m->failures++;
	m->sync_due = true;
	m->next_sync_ns =
		clock_ns() + backoff_ns(m->failures, SYNC_RETRY_MIN_NS, SYNC_RETRY_MAX_NS);
	log_warn("cannot compare with the kernel, trying again" KV("error", "%s"), err.text);
}

/* -- the thread ------------------------------------------------------------------ */

static int poll_timeout_ms(const struct monitor *m)
{
	int64_t left = m->next_sync_ns - clock_ns();

	if (!m->sync_due)
		return -1;
	return left > 0 ? (int)(left / NS_PER_MS) + 1 : 0;
}

static void *run(void *arg)
{
	struct monitor *m = arg;
	struct pollfd fds[] = {
		{ .fd = netlink_monitor_fd(m->notifications), .events = POLLIN },
		{ .fd = m->event_fd, .events = POLLIN },
	};

	while (!m->stop) {
		(void)poll(fds, countof(fds), poll_timeout_ms(m));
		event_clear(m->event_fd);
		read_notifications(m);
		if (atomic_exchange(&m->resync_asked, false)) {
			m->sync_due = true;
			m->next_sync_ns = 0;
		}
		sync_if_due(m);
	}
	return NULL;
}

void monitor_resync(struct monitor *m)
{
	m->resync_asked = true;
	event_ring(m->event_fd);
}

void monitor_seek_uplink(struct monitor *m, bool seek)
{
	m->uplink_sought = seek;
}

static void monitor_free(struct monitor *m)
{
	if (m->event_fd >= 0)
		close(m->event_fd);
	if (m->nl)
		netlink_close(m->nl);
	if (m->notifications)
		netlink_monitor_close(m->notifications);
	free(m);
}

/* The subscription comes before the first look: what changes in between is told. */
static int prepare(struct monitor *m, struct err *err)
{
	static const unsigned groups[] = {
		RTNLGRP_LINK,	      RTNLGRP_IPV4_IFADDR,  RTNLGRP_IPV6_IFADDR,
		RTNLGRP_IPV4_ROUTE,   RTNLGRP_IPV6_ROUTE,   RTNLGRP_NEXTHOP,
		RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF, RTNLGRP_NONE,
	};
	struct link link;
	int r;

	m->event_fd = event_open();
	if (m->event_fd < 0)
		return err_errno(err, m->event_fd, "eventfd");
	r = netlink_monitor_open(&m->notifications, groups, err);
	if (r == 0)
		r = netlink_open(&m->nl, err);
	if (r < 0)
		return r;
	if (link_get(m->nl, m->bridge, &link, NULL) == 0)
		m->bridge_index = link.index;
	return sync_now(m, err);
}

int monitor_start(struct monitor **ret, const struct monitor_config *config, struct err *err)
{
	struct monitor *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_errno(err, -ENOMEM, "monitor");
	m->config = *config;
	m->event_fd = -1;
	strlcpy(m->bridge, config->bridge, sizeof(m->bridge));
	r = prepare(m, err);
	if (r == 0) {
		r = thread_start(&m->thread, "monitor", run, m);
		if (r < 0)
			err_errno(err, r, "start the monitor thread");
	}
	if (r < 0) {
		monitor_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

void monitor_stop(struct monitor *m)
{
	m->stop = true;
	event_ring(m->event_fd);
	thread_join(&m->thread);
	monitor_free(m);
}
