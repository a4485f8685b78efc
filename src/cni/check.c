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

/* The route that ADD made for isDefaultGateway still goes by this address's gateway. */
static int check_default(struct netlink *nl, const struct ipam_address *a, const struct link *link,
			 struct err *err)
{
	char text[ADDR_TEXT_MAX];
	struct route route;

	if (route_default(nl, a->address.addr.family, &route, err) < 0)
		return err_wrap(err, CNI_NOT_AS_EXPECTED, "the pod");
	if (addr_cmp(&route.gateway, &a->gateway) != 0 || route.index != link->index)
		return err_set(err, CNI_NOT_AS_EXPECTED,
			       "the pod's default route does not go to %s by %s",
			       addr_format(&a->gateway, text), link->name);
	return 0;
}

static int check_address(struct netlink *nl, const struct ipam_address *a, const struct link *link,
			 struct err *err)
{
	struct search search = { .address = &a->address };
	char text[PREFIX_TEXT_MAX];

	if (address_foreach(nl, link->index, a->address.addr.family, look_at_address, &search,
			    err) < 0)
		return CNI_KERNEL_REFUSED;
	if (!search.found)
		return err_set(err, CNI_NOT_AS_EXPECTED, "the pod's link %s does not have %s",
			       link->name, prefix_format(&a->address, text));
	return 0;
}

static int check_pod(const struct request *req, struct netlink *nl, const struct given *given,
		     struct err *err)
{
	const char *name = req->owner.interface;
	struct link link;
	int r = 0;

	if (link_get(nl, name, &link, err) < 0)
		return CNI_NOT_AS_EXPECTED;
	if (!(link.flags & IFF_UP))
		return err_set(err, CNI_NOT_AS_EXPECTED, "the pod's link %s is down", name);
	for (unsigned i = 0; i < given->naddresses && r == 0; i++) {
		r = check_address(nl, &given->addresses[i], &link, err);
		if (r == 0 && req->conf.is_default_gateway)
			r = check_default(nl, &given->addresses[i], &link, err);
	}
	return r;
}

/* The addresses that the attachment holds, as the pool would give them. */
static int held_addresses(const struct request *req, struct given *ret, struct err *err)
{
	const struct ipam_pool *pool = &req->conf.ipam.pool;
	struct addr held[IPAM_SETS_MAX];
	int n = ipam_lookup(pool->dir, &req->owner, held, err);

	if (n < 0)
		return CNI_NOT_AS_EXPECTED;
	ret->naddresses = 0;
	for (int i = 0; i < n; i++)
		for (unsigned k = 0; k < pool->nranges; k++) {
			const struct ipam_range *range = &pool->ranges[k];

			if (prefix_contains_addr(&range->subnet, &held[i]))
				ret->addresses[ret->naddresses++] = (struct ipam_address){
					{ held[i], range->subnet.len },
					range->gateway,
				};
		}
	return 0;
}

static int check_result(const struct request *req, struct given *ret, struct err *err)
{
	const json_t *previous = json_object_get(req->conf.json, "prevResult");
	char text[PREFIX_TEXT_MAX];
	int r;

	if (!json_is_object(previous))
		return err_set(err, CNI_INVALID_CONFIG, "'prevResult' is missing or not an object");
	r = held_addresses(req, ret, err);
	for (unsigned i = 0; r == 0 && i < ret->naddresses; i++)
		if (!result_has_address(previous, req->owner.interface, req->netns,
					&ret->addresses[i].address))
			r = err_set(err, CNI_NOT_AS_EXPECTED,
				    "'prevResult' does not have %s at %s in %s",
				    prefix_format(&ret->addresses[i].address, text),
				    req->owner.interface, req->netns);
	return r;
}

int verb_check(const struct request *req, struct err *err)
{
	auto_(netlink_close) struct netlink *host = NULL;
	auto_(netlink_close) struct netlink *pod = NULL;
	auto_close int netns = -1;
	struct given given;
	int r = check_result(req, &given, err);

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
	return check_pod(req, pod, &given, err);
}
