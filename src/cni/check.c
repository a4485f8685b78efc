/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CHECK: whether the attachment is still as ADD left it, and told of in "prevResult". */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cni.h"
#include "poplin/model/pod.h"
#include "poplin/nl/address.h"
#include "poplin/nl/link.h"
#include "poplin/nl/route.h"
#include "result.h"

static int check_host(const struct request *req, struct netlink *nl, struct err *err)
{
	struct link bridge, link;
	char name[16];

	pod_link_name(req->owner.container, req->owner.interface, name);
	if (link_get(nl, req->conf.bridge, &bridge, err) < 0 || link_get(nl, name, &link, err) < 0)
		return CNI_NOT_AS_EXPECTED;
	if (link.master != bridge.index)
		return err_set(err, CNI_NOT_AS_EXPECTED, "link %s is not a port of bridge %s", name,
			       req->conf.bridge);
	if (!(link.flags & IFF_UP))
		return err_set(err, CNI_NOT_AS_EXPECTED, "link %s is down", name);
	return 0;
}

struct search {
	const struct prefix *address;
	bool found;
};

static int look_at_address(const struct address *address, void *arg)
{
	struct search *search = arg;

	search->found = search->found || prefix_cmp(&address->address, search->address) == 0;
	return 0;
}

static int check_pod(const struct request *req, struct netlink *nl, const struct prefix *address,
		     struct err *err)
{
	struct addr gateway = prefix_gateway(&req->conf.subnet);
	struct search search = { .address = address };
	const char *name = req->owner.interface;
	char text[PREFIX_TEXT_MAX];
	struct route route;
	struct link link;

	if (link_get(nl, name, &link, err) < 0)
		return CNI_NOT_AS_EXPECTED;
	if (!(link.flags & IFF_UP))
		return err_set(err, CNI_NOT_AS_EXPECTED, "the pod's link %s is down", name);
	if (address_foreach(nl, link.index, address->addr.family, look_at_address, &search, err) <
	    0)
		return CNI_KERNEL_REFUSED;
	if (!search.found)
		return err_set(err, CNI_NOT_AS_EXPECTED, "the pod's link %s does not have %s", name,
			       prefix_format(address, text));
	if (route_default(nl, address->addr.family, &route, err) < 0)
		return err_wrap(err, CNI_NOT_AS_EXPECTED, "the pod");
	if (addr_cmp(&route.gateway, &gateway) != 0 || route.index != link.index)
		return err_set(err, CNI_NOT_AS_EXPECTED,
			       "the pod's default route does not go to %s by %s",
			       addr_format(&gateway, text), name);
	return 0;
}

static int check_result(const struct request *req, struct prefix *ret, struct err *err)
{
	const json_t *previous = json_object_get(req->conf.json, "prevResult");
	struct prefix address = { .len = req->conf.subnet.len };
	char text[PREFIX_TEXT_MAX];

	if (!json_is_object(previous))
		return err_set(err, CNI_INVALID_CONFIG, "'prevResult' is missing or not an object");
	if (ipam_lookup(req->conf.ipam_dir, &req->owner, &address.addr, err) < 0)
		return CNI_NOT_AS_EXPECTED;
	if (!result_has_address(previous, req->owner.interface, req->netns, &address))
		return err_set(err, CNI_NOT_AS_EXPECTED,
			       "'prevResult' does not have %s at %s in %s",
			       prefix_format(&address, text), req->owner.interface, req->netns);
	*ret = address;
	return 0;
}

int verb_check(const struct request *req, struct err *err)
{
	auto_(netlink_close) struct netlink *host = NULL;
	auto_(netlink_close) struct netlink *pod = NULL;
	auto_close int netns = -1;
	struct prefix address;
	int r = check_result(req, &address, err);

	if (r)
		return r;
	netns = netns_open(req->netns, err);
	if (netns < 0)
		return netns == -ENOENT ? CNI_UNKNOWN_CONTAINER : CNI_INVALID_ENVIRONMENT;
	if (netlink_open(&host, err) < 0)
		return CNI_KERNEL_REFUSED;
	r = check_host(req, host, err);
	if (r)
		return r;
	if (netns_enter(netns, err) < 0 || netlink_open(&pod, err) < 0)
		return CNI_KERNEL_REFUSED;
	return check_pod(req, pod, &address, err);
}
