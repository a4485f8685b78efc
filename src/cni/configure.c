/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pod's side of an attachment: done inside its namespace, through a socket of it. */
#include "configure.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <poll.h>

#include "bridge.h"
#include "poplin/base/clock.h"
#include "poplin/nl/address.h"
#include "poplin/nl/route.h"

#define DETECTION_NS (10 * NS_PER_S) /* the kernel needs 1 to 2 s for one address */

struct pod {
	const struct netconf *conf;
	const struct given *given;
	struct link *link;
	struct netlink *nl;
};

#define LOOPBACK_INDEX 1 /* of every namespace (net/core/dev.c, dev_new_index) */

enum step { STEP_LO, STEP_UP, STEP_ADDRESS, STEP_ROUTE };

/*
 * Not exclusive: a second network of a pod may have a default route too, and its own comes first
 * then, as with the plugin `bridge`.
 */
static struct nl_msg *route_msg(const struct pod *pod, const struct netconf_route *wanted)
{
	const struct route route = {
		.dst = wanted->dst,
		.gateway = given_route_gateway(pod->given, wanted),
		.index = pod->link->index,
		.metric = wanted->priority,
		.protocol = RTPROT_STATIC,
	};
	const struct route_details details = {
		.mtu = wanted->mtu,
		.advmss = wanted->advmss,
		.table = wanted->table,
		.scope = wanted->scope,
	};
	struct nl_msg *msg = route_put_msg(&route, NLM_F_CREATE);

	if (msg && route_msg_add_details(msg, &details) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

static int add_steps(const struct pod *pod, struct netlink_batch *batch, struct err *err)
{
	unsigned index = pod->link->index;
	int r = netlink_batch_take(batch, link_up_msg(LOOPBACK_INDEX), STEP_LO, err);

	if (r == 0 && !pod->conf->disable_interface)
		r = netlink_batch_take(batch, link_up_msg(index), STEP_UP, err);
	for (unsigned i = 0; i < pod->given->naddresses && r == 0; i++)
		r = netlink_batch_take(batch,
				       address_add_msg(index, &pod->given->addresses[i].address,
						       pod->conf->enable_dad),
				       STEP_ADDRESS, err);
	for (unsigned i = 0; i < pod->given->nroutes && r == 0; i++)
		r = netlink_batch_take(batch, route_msg(pod, &pod->given->routes[i]), STEP_ROUTE,
				       err);
	return r;
}

/* All in one send. */
static int configure(struct pod *pod, struct err *err)
{
	static const char *const steps[] = { [STEP_LO] = "set lo up",
					     [STEP_UP] = "set the link up",
					     [STEP_ADDRESS] = "add an address",
					     [STEP_ROUTE] = "add a route" };
	auto_(netlink_batch_free) struct netlink_batch *batch = NULL;
	int r = netlink_batch_new(&batch, err);

	if (r == 0)
		r = add_steps(pod, batch, err);
	if (r == 0)
		r = netlink_batch_run(pod->nl, batch, steps, NULL, err);
	return r < 0 ? err_wrap(err, r, "the pod's namespace") : 0;
}

/* -- IPv6 --------------------------------------------------------------------------------- */

static bool has_ipv6(const struct given *given)
{
	for (unsigned i = 0; i < given->naddresses; i++)
		if (given->addresses[i].address.addr.family == AF_INET6)
			return true;
	return false;
}

/* A runtime may have turned it off in the pod. What older kernels lack is done without. */
static int enable_ipv6(const struct pod *pod, struct err *err)
{
	const char *name = pod->link->name, *dad = pod->conf->enable_dad ? "1" : "0";
	int r = sysctl_write("0", "/proc/sys/net/ipv6/conf/lo/disable_ipv6");

	if (r == 0)
		r = sysctl_write("0", "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	if (r < 0)
		return err_errno(err, r, "turn on IPv6 in the pod");
	/* For the link's own address, which need not wait either. */
	(void)sysctl_write(dad, "/proc/sys/net/ipv6/conf/%s/accept_dad", name);
	(void)sysctl_write("1", "/proc/sys/net/ipv6/conf/%s/keep_addr_on_down", name);
	return 0;
}

struct settling {
	bool tentative;
	struct prefix duplicate; /* family AF_UNSPEC: none */
};

static int look_at_address(const struct address *address, void *arg)
{
	struct settling *s = arg;

	if (address->flags & IFA_F_DADFAILED)
		s->duplicate = address->address;
	else if (address->flags & IFA_F_TENTATIVE)
		s->tentative = true;
	return 0;
}

static int drop_message(const struct nlmsghdr *msg, void *arg)
{
	return 0;
}

/* "enabledad": until no address is in doubt any more. */
static int wait_for_addresses(const struct pod *pod, struct netlink_monitor *monitor,
			      struct err *err)
{
	int64_t deadline = clock_ns() + DETECTION_NS;
	struct pollfd fd = { .fd = netlink_monitor_fd(monitor), .events = POLLIN };
	char text[PREFIX_TEXT_MAX];

	for (;;) {
		struct settling s = { .tentative = false };
		int64_t left = deadline - clock_ns();
		int r = address_foreach(pod->nl, pod->link->index, AF_INET6, look_at_address, &s,
					err);

		if (r < 0)
			return r;
		if (s.duplicate.addr.family != AF_UNSPEC)
			return err_set(err, -EADDRINUSE, "%s is used by another already",
				       prefix_format(&s.duplicate, text));
		if (!s.tentative)
			return 0;
		if (left <= 0)
			return err_set(err, -ETIMEDOUT,
				       "the detection of duplicate addresses did not end in time");
		if (poll(&fd, 1, (int)(left / NS_PER_MS) + 1) > 0)
			(void)netlink_monitor_read(monitor, drop_message, NULL, NULL);
	}
}

/* -- the whole ------------------------------------------------------------------------------ */

static int configure_detecting(struct pod *pod, struct err *err)
{
	static const unsigned groups[] = { RTNLGRP_IPV6_IFADDR, 0 };
	auto_(netlink_monitor_close) struct netlink_monitor *monitor = NULL;
	int r = netlink_monitor_open(&monitor, groups, err);

	if (r == 0)
		r = configure(pod, err);
	return r == 0 ? wait_for_addresses(pod, monitor, err) : r;
}

int configure_pod(const struct netconf *conf, const struct given *given, int netns,
		  bool foreign_mac, struct link *link, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	struct pod pod = { .conf = conf, .given = given, .link = link };
	bool ipv6 = has_ipv6(given);
	int r = netns_enter(netns, err);

	if (r == 0)
		r = netlink_open(&nl, err);
	pod.nl = nl;
	if (r == 0)
		r = link_index(nl, link->name, &link->index, err);
	/* A MAC that does not follow from the address is told to those who knew another. */
	if (r == 0 && foreign_mac)
		(void)sysctl_write("1", "/proc/sys/net/ipv4/conf/%s/arp_notify", link->name);
	if (r == 0 && ipv6)
		r = enable_ipv6(&pod, err);
	if (r == 0)
		r = ipv6 && conf->enable_dad ? configure_detecting(&pod, err)
					     : configure(&pod, err);
	return r < 0 ? CNI_KERNEL_REFUSED : 0;
}
