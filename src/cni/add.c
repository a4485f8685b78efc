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

static int make_veth(struct attachment *a, struct err *err)
{
	const struct request *req = a->req;
	uint8_t mac[6];
	char name[16];
	const struct link_veth veth = {
		.host_name = name,
		.master = a->bridge.index,
		.mtu = req->conf.mtu,
		.peer_name = req->owner.interface,
		.peer_netns = a->netns,
		.peer_mac = a->given.naddresses ? mac : NULL,
		.hairpin = req->conf.hairpin,
	};
	struct link left;
	int r;

	pod_link_name(req->owner.container, req->owner.interface, name);
	if (a->given.naddresses)
		pod_mac(&a->given.addresses[0].address.addr, mac);
	r = link_veth_create(a->host, &veth, err);
	/* The address was free, so a link of this name is what a killed ADD left. */
	if (r == -EEXIST && link_get(a->host, name, &left, NULL) == 0 &&
	    link_delete(a->host, left.index, NULL) == 0)
		r = link_veth_create(a->host, &veth, err);
	if (r == 0)
		r = link_get(a->host, name, &a->host_link, err);
	return r < 0 ? CNI_KERNEL_REFUSED : 0;
}

struct step_result {
	int code;
	size_t step;
	char text[128];
};

static void take_step(size_t step, int result, const char *text, void *arg)
{
	struct step_result *first = arg;

	if (result == 0 || first->code)
		return;
	first->code = result;
	first->step = step;
	strlcpy(first->text, text, sizeof(first->text));
}

static int add_take(struct netlink_batch *batch, struct nl_msg *msg, size_t step)
{
	int r = msg ? netlink_batch_add(batch, msg, step) : -ENOMEM;

	nlmsg_free(msg);
	return r;
}

enum step { STEP_ADDRESS, STEP_UP, STEP_ROUTE };

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

/* Addresses, link up, routes. */
static int add_steps(const struct attachment *a, struct netlink_batch *batch)
{
	unsigned index = a->pod_link.index;
	int r = 0;

	for (unsigned i = 0; i < a->given.naddresses && r == 0; i++)
		r = add_take(batch, address_add_msg(index, &a->given.addresses[i].address),
			     STEP_ADDRESS);
	if (r == 0)
		r = add_take(batch, link_up_msg(index), STEP_UP);
	for (unsigned i = 0; i < a->given.nroutes && r == 0; i++)
		r = add_take(batch, route_msg(a, &a->given.routes[i]), STEP_ROUTE);
	return r;
}

static int configure(struct attachment *a, struct err *err)
{
	static const char *const steps[] = { [STEP_ADDRESS] = "add an address",
					     [STEP_UP] = "set the link up",
					     [STEP_ROUTE] = "add a route" };
	auto_(netlink_batch_free) struct netlink_batch *batch = NULL;
	struct step_result first = { .code = 0 };
	int r = netlink_batch_new(&batch, err);

	if (r < 0)
		return r;
	if (add_steps(a, batch) < 0)
		return err_errno(err, -ENOMEM, "configure the pod's link");
	r = netlink_batch_send(a->pod, batch, take_step, &first, err);
	if (r == 0 && first.code)
		r = err_errno(err, first.code, "%s of the pod's link%s%s", steps[first.step],
			      first.text[0] ? ": " : "", first.text);
	return r;
}

static int configure_pod(struct attachment *a, struct err *err)
{
	int r = netns_enter(a->netns, err);

	if (r == 0)
		r = netlink_open(&a->pod, err);
	if (r == 0)
		r = link_get(a->pod, a->req->owner.interface, &a->pod_link, err);
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
