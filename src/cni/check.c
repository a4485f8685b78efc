/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CHECK: whether the attachment is still as ADD left it, and told of in "prevResult". What a later
 * plugin of the chain may have changed is not looked at: routes count in any table.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cni.h"
#include "delegate.h"
#include "poplin/model/pod.h"
#include "poplin/nl/address.h"
#include "poplin/nl/link.h"
#include "poplin/nl/route.h"
#include "result.h"
#include "spoof.h"

/* -- what is expected ------------------------------------------------------------------ */

/* That of the previous result's interfaces that is ours; -1: none is. */
static int own_interface(const struct request *req, const json_t *previous)
{
	const json_t *interface;
	size_t i;

	json_array_foreach (json_object_get(previous, "interfaces"), i, interface) {
		const char *name = json_string_value(json_object_get(interface, "name"));
		const char *sandbox = json_string_value(json_object_get(interface, "sandbox"));

		if (name && sandbox && strcmp(name, req->owner.interface) == 0 &&
		    strcmp(sandbox, req->netns) == 0)
			return (int)i;
	}
	return -1;
}

static int read_address(const json_t *ip, struct given *ret, struct err *err)
{
	const char *address = json_string_value(json_object_get(ip, "address"));
	const char *gateway = json_string_value(json_object_get(ip, "gateway"));
	struct ipam_address *a = &ret->addresses[ret->naddresses];

	if (ret->naddresses == countof(ret->addresses))
		return err_set(err, CNI_INVALID_CONFIG, "'prevResult' has too many addresses");
	*a = (struct ipam_address){ .gateway = { .family = AF_UNSPEC } };
	if (prefix_parse_interface(address ? address : "", &a->address, err) < 0 ||
	    (gateway && addr_parse(gateway, &a->gateway, err) < 0))
		return err_wrap(err, CNI_INVALID_CONFIG, "'prevResult'");
	ret->naddresses++;
	return 0;
}

/* Addresses of our interface, and all routes. */
static int read_previous(const struct request *req, struct given *ret, struct err *err)
{
	const json_t *previous = netconf_get(req->conf.json, "prevResult"), *item;
	int own = own_interface(req, previous), r = 0;
	size_t i;

	ret->naddresses = ret->nroutes = 0;
	if (!json_is_object(previous))
		return err_set(err, CNI_INVALID_CONFIG, "'prevResult' is missing or not an object");
	if (own < 0)
		return err_set(err, CNI_NOT_AS_EXPECTED, "'prevResult' has no interface %s in %s",
			       req->owner.interface, req->netns);
	json_array_foreach (json_object_get(previous, "ips"), i, item) {
		if (json_integer_value(json_object_get(item, "interface")) != own)
			continue;
		r = read_address(item, ret, err);
		if (r)
			return r;
	}
	json_array_foreach (json_object_get(previous, "routes"), i, item) {
		if (ret->nroutes == countof(ret->routes))
			break;
		if (netconf_parse_route(item, &ret->routes[ret->nroutes], err))
			return err_wrap(err, CNI_INVALID_CONFIG, "'prevResult'");
		ret->nroutes++;
	}
	return 0;
}

/* -- addresses held ---------------------------------------------------------------------- */

static bool is_expected(const struct given *given, const struct addr *a)
{
	for (unsigned i = 0; i < given->naddresses; i++)
		if (addr_cmp(&given->addresses[i].address.addr, a) == 0)
			return true;
	return false;
}

/* Whether an address of ours is held by somebody else by now. */
static int check_holders(const struct request *req, const struct given *given, struct err *err)
{
	const struct ipam_pool *pool = &req->conf.ipam.pool;
	char text[ADDR_TEXT_MAX], holder[IPAM_HOLDER_MAX];

	for (unsigned i = 0; i < given->naddresses; i++) {
		const struct addr *a = &given->addresses[i].address.addr;
		int r = ipam_holder(pool, a, holder, err);

		if (r < 0)
			return CNI_IO_FAILURE;
		if (r > 0 && !ipam_is_holder(holder, &req->owner))
			return err_set(err, CNI_NOT_AS_EXPECTED, "address %s is held by %s",
				       addr_format(a, text), holder);
	}
	return 0;
}

static int check_own_ipam(const struct request *req, const struct given *given, struct err *err)
{
	struct addr held[IPAM_SETS_MAX];
	char text[ADDR_TEXT_MAX];
	int r = check_holders(req, given, err), n;

	if (r)
		return r;
	n = ipam_lookup(&req->conf.ipam.pool, &req->owner, held, err);
	if (n < 0)
		return n == -ENOENT ? CNI_NOT_AS_EXPECTED : CNI_IO_FAILURE;
	for (int i = 0; i < n; i++)
		if (!is_expected(given, &held[i]))
			return err_set(err, CNI_NOT_AS_EXPECTED,
				       "'prevResult' does not have %s at %s in %s",
				       addr_format(&held[i], text), req->owner.interface,
				       req->netns);
	return 0;
}

static int check_ipam(const struct request *req, const struct given *given, struct err *err)
{
	switch (req->conf.ipam.kind) {
	case NETCONF_IPAM_NONE:
		return 0;
	case NETCONF_IPAM_OWN:
		return check_own_ipam(req, given, err);
	case NETCONF_IPAM_DELEGATED:
		return delegate_run(req, req->conf.ipam.type, "CHECK", NULL, err);
	}
	return 0;
}

/* -- addresses of a link ------------------------------------------------------------------- */

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

static int check_address(struct netlink *nl, const struct link *link, const struct prefix *address,
			 const char *whose, struct err *err)
{
	struct search search = { .address = address };
	char text[PREFIX_TEXT_MAX];

	if (address_foreach(nl, link->index, address->addr.family, look_at_address, &search, err) <
	    0)
		return CNI_KERNEL_REFUSED;
	if (!search.found)
		return err_set(err, CNI_NOT_AS_EXPECTED, "the %s %s does not have %s", whose,
			       link->name, prefix_format(address, text));
	return 0;
}

/* -- the node's side ------------------------------------------------------------------------- */

/* The plugin `bridge` gave its links random names, which only the previous result tells. 0 or a code. */
static int host_link_name(const struct request *req, char ret[static 16], struct err *err)
{
	const json_t *previous = netconf_get(req->conf.json, "prevResult"), *interface;
	int r = ipam_is_reserved(&req->conf.ipam.pool, &req->owner, err);
	size_t i;

	pod_link_name(req->owner.container, req->owner.interface, ret);
	if (r <= 0)
		return r < 0 ? CNI_IO_FAILURE : 0;
	json_array_foreach (json_object_get(previous, "interfaces"), i, interface) {
		const char *name = json_string_value(json_object_get(interface, "name"));
		const char *sandbox = json_string_value(json_object_get(interface, "sandbox"));

		if (name && (!sandbox || !sandbox[0]) && strcmp(name, req->conf.bridge) != 0) {
			strlcpy(ret, name, 16);
			break;
		}
	}
	return 0;
}

static int check_host(const struct request *req, struct netlink *nl, const struct given *given,
		      struct err *err)
{
	struct link bridge, link;
	char name[16];
	int r = host_link_name(req, name, err);

	if (r)
		return r;
	if (link_get(nl, req->conf.bridge, &bridge, err) < 0 || link_get(nl, name, &link, err) < 0)
		return CNI_NOT_AS_EXPECTED;
	if (link.master != bridge.index)
		return err_set(err, CNI_NOT_AS_EXPECTED, "link %s is not a port of bridge %s", name,
			       req->conf.bridge);
	if (!(link.flags & IFF_UP) || !(bridge.flags & IFF_UP))
		return err_set(err, CNI_NOT_AS_EXPECTED, "link %s is down",
			       link.flags & IFF_UP ? bridge.name : name);
	if (req->conf.mac_spoof_check)
		r = spoof_check(&req->conf, &req->owner, err);
	for (unsigned i = 0; i < given->naddresses && r == 0; i++) {
		const struct ipam_address *a = &given->addresses[i];
		const struct prefix gateway = { .addr = a->gateway, .len = a->address.len };

		if (req->conf.is_gateway && a->gateway.family != AF_UNSPEC)
			r = check_address(nl, &bridge, &gateway, "bridge", err);
	}
	return r;
}

/* -- the pod's side ----------------------------------------------------------------------------- */

static int check_route(struct netlink *nl, const struct given *given,
		       const struct netconf_route *route, struct err *err)
{
	const struct addr gateway = given_route_gateway(given, route);
	char dst[PREFIX_TEXT_MAX], text[ADDR_TEXT_MAX];
	bool found;

	if (route_exists(nl, &route->dst, &gateway, &found, err) < 0)
		return CNI_KERNEL_REFUSED;
	if (found)
		return 0;
	prefix_format(&route->dst, dst);
	return err_set(err, CNI_NOT_AS_EXPECTED, "the pod has no %s route to %s by %s",
		       route->dst.len ? "" : "default", dst, addr_format(&gateway, text));
}

static int check_pod(const struct request *req, struct netlink *nl, const struct given *given,
		     struct err *err)
{
	const char *name = req->owner.interface;
	struct link link;
	int r = 0;

	if (link_get(nl, name, &link, err) < 0)
		return CNI_NOT_AS_EXPECTED;
	if (!(link.flags & IFF_UP) && !req->conf.disable_interface)
		return err_set(err, CNI_NOT_AS_EXPECTED, "the pod's link %s is down", name);
	for (unsigned i = 0; i < given->naddresses && r == 0; i++)
		r = check_address(nl, &link, &given->addresses[i].address, "pod's link", err);
	for (unsigned i = 0; i < given->nroutes && r == 0; i++)
		r = check_route(nl, given, &given->routes[i], err);
	return r;
}

int verb_check(const struct request *req, struct err *err)
{
	auto_(netlink_close) struct netlink *host = NULL;
	auto_(netlink_close) struct netlink *pod = NULL;
	auto_close int netns = -1;
	struct given given;
	int r = read_previous(req, &given, err);

	if (r == 0)
		r = check_ipam(req, &given, err);
	if (r == 0)
		r = node_ready(&req->conf, err);
	if (r)
		return r;
	netns = netns_open(req->netns, err);
	if (netns < 0)
		return netns == -ENOENT ? CNI_UNKNOWN_CONTAINER : CNI_INVALID_ENVIRONMENT;
	if (netlink_open(&host, err) < 0)
		return CNI_KERNEL_REFUSED;
	r = check_host(req, host, &given, err);
	if (r)
		return r;
	if (netns_enter(netns, err) < 0 || netlink_open(&pod, err) < 0)
		return CNI_KERNEL_REFUSED;
	return check_pod(req, pod, &given, err);
}
