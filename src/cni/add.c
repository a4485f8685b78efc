/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ADD. The address is taken first, then the veth is made with its other end right inside the pod,
 * which is configured there through a socket of its namespace. Whatever fails takes back all of it.
 *
 * A process killed in between leaves an address, or an address and a link, under names that follow
 * from the attachment; the DEL that a runtime sends after a failed ADD, and GC, find them.
 */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "cni.h"
#include "poplin/model/pod.h"
#include "poplin/nl/address.h"
#include "poplin/nl/link.h"
#include "poplin/nl/route.h"
#include "result.h"

struct attachment {
	const struct request *req;
	struct netlink *host, *pod; /* sockets in the two namespaces */
	int netns;
	struct link bridge, host_link, pod_link;
	struct given given;
};

static int find_bridge(struct attachment *a, struct err *err)
{
	int r = link_get(a->host, a->req->conf.bridge, &a->bridge, err);

	if (r == -ENODEV)
		return err_set(err, CNI_TRY_AGAIN_LATER,
			       "bridge %s is not there (poplind makes it)", a->req->conf.bridge);
	if (r < 0)
		return CNI_KERNEL_REFUSED;
	if (strcmp(a->bridge.kind, "bridge") != 0)
		return err_set(err, CNI_INVALID_CONFIG, "link %s is not a bridge",
			       a->req->conf.bridge);
	return 0;
}

/* The specification leaves a link without an address its own. */
static void random_mac(uint8_t ret[static 6])
{
	arc4random_buf(ret, 6);
	ret[0] = (uint8_t)((ret[0] & 0xfc) | 0x02); /* of one station, locally administered */
}

/* What both ends are like is ours to choose: nothing has to be asked of the kernel afterwards. */
static void plan_ends(struct attachment *a)
{
	const struct ipam_owner *owner = &a->req->owner;
	unsigned mtu = a->req->conf.mtu;

	a->host_link.mtu = a->pod_link.mtu = mtu ? mtu : a->bridge.mtu;
	pod_link_name(owner->container, owner->interface, a->host_link.name);
	strlcpy(a->pod_link.name, owner->interface, sizeof(a->pod_link.name));
	if (a->given.naddresses) {
		pod_host_mac(&a->given.addresses[0].address.addr, a->host_link.mac);
		pod_mac(&a->given.addresses[0].address.addr, a->pod_link.mac);
	} else {
		random_mac(a->host_link.mac);
		random_mac(a->pod_link.mac);
	}
}

static int make_veth(struct attachment *a, struct err *err)
{
	struct link_veth veth = {
		.host_name = a->host_link.name,
		.host_mac = a->host_link.mac,
		.master = a->bridge.index,
		.peer_name = a->pod_link.name,
		.peer_netns = a->netns,
		.peer_mac = a->pod_link.mac,
		.hairpin = a->req->conf.hairpin,
	};
	int r;

	plan_ends(a);
	veth.mtu = a->host_link.mtu;
	r = link_veth_create(a->host, &veth, err);
	/* The address was free, so a link of this name is what a killed ADD left. */
	if (r == -EEXIST && link_delete_name(a->host, veth.host_name, NULL) == 0)
		r = link_veth_create(a->host, &veth, err);
	return r < 0 ? CNI_KERNEL_REFUSED : 0;
}

#define LOOPBACK_INDEX 1 /* of every namespace (net/core/dev.c, dev_new_index) */

enum step { STEP_LO, STEP_UP, STEP_ADDRESS, STEP_ROUTE };

static struct nl_msg *route_msg(const struct attachment *a, const struct netconf_route *wanted)
{
	const struct route route = {
		.dst = wanted->dst,
		.gateway = given_route_gateway(&a->given, wanted),
		.index = a->pod_link.index,
		.metric = wanted->priority,
		.protocol = RTPROT_STATIC,
	};

	return route_put_msg(&route, NLM_F_CREATE | NLM_F_EXCL);
}

static int add_steps(const struct attachment *a, struct netlink_batch *batch, struct err *err)
{
	unsigned index = a->pod_link.index;
	int r = netlink_batch_take(batch, link_up_msg(LOOPBACK_INDEX), STEP_LO, err);

	if (r == 0)
		r = netlink_batch_take(batch, link_up_msg(index), STEP_UP, err);
	for (unsigned i = 0; i < a->given.naddresses && r == 0; i++)
		r = netlink_batch_take(batch,
				       address_add_msg(index, &a->given.addresses[i].address),
				       STEP_ADDRESS, err);
	for (unsigned i = 0; i < a->given.nroutes && r == 0; i++)
		r = netlink_batch_take(batch, route_msg(a, &a->given.routes[i]), STEP_ROUTE, err);
	return r;
}

/* All in one send. */
static int configure(struct attachment *a, struct err *err)
{
	static const char *const steps[] = { [STEP_LO] = "set lo up",
					     [STEP_UP] = "set the link up",
					     [STEP_ADDRESS] = "add an address",
					     [STEP_ROUTE] = "add a route" };
	auto_(netlink_batch_free) struct netlink_batch *batch = NULL;
	int r = netlink_batch_new(&batch, err);

	if (r == 0)
		r = add_steps(a, batch, err);
	if (r == 0)
		r = netlink_batch_run(a->pod, batch, steps, NULL, err);
	return r < 0 ? err_wrap(err, r, "the pod's namespace") : 0;
}

static int configure_pod(struct attachment *a, struct err *err)
{
	int r = netns_enter(a->netns, err);

	if (r == 0)
		r = netlink_open(&a->pod, err);
	if (r == 0)
		r = link_index(a->pod, a->req->owner.interface, &a->pod_link.index, err);
	if (r == 0)
		r = configure(a, err);
	return r < 0 ? CNI_KERNEL_REFUSED : 0;
}

static int print(const struct attachment *a, struct err *err)
{
	const struct result result = {
		.version = a->req->conf.version,
		.bridge = &a->bridge,
		.host = &a->host_link,
		.pod = &a->pod_link,
		.sandbox = a->req->netns,
		.given = &a->given,
	};

	return result_print(&result, err) < 0 ? CNI_IO_FAILURE : 0;
}

static int attach(struct attachment *a, struct err *err)
{
	struct err undo = ERR_INIT;
	int r = addresses_take(a->req, &a->given, err);

	if (r)
		return r;
	r = make_veth(a, err);
	if (r == 0)
		r = configure_pod(a, err);
	if (r == 0)
		r = print(a, err);
	if (r && detach(a->host, &a->req->conf, &a->req->owner, &undo))
		err_set(err, r, "%.300s; and what was made could not be taken back: %.150s",
			err->text, undo.text);
	return r;
}

int verb_add(const struct request *req, struct err *err)
{
	struct attachment a = { .req = req, .netns = -1 };
	int r = node_ready(&req->conf, err);

	if (r)
		return r;
	a.netns = netns_open(req->netns, err);
	if (a.netns < 0)
		return a.netns == -ENOENT ? CNI_UNKNOWN_CONTAINER : CNI_INVALID_ENVIRONMENT;
	r = netlink_open(&a.host, err) < 0 ? CNI_KERNEL_REFUSED : find_bridge(&a, err);
	if (r == 0)
		r = attach(&a, err);
	if (a.pod)
		netlink_close(a.pod);
	if (a.host)
		netlink_close(a.host);
	mem_close_cleanup(&a.netns);
	return r;
}
