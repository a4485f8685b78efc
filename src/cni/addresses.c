/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses and routes of an attachment: taken from our own pool. */
#include <errno.h>
#include <string.h>

#include "cni.h"

/* CNI_ARGS: "K=V;K=V". IP= asks for an address, as host-local reads it; others are not for us. */
static int wanted_address(const char *args, struct addr *ret, bool *ret_wanted, struct err *err)
{
	auto_free char *copy = strdup(args);
	char *rest = copy, *pair;

	if (!copy)
		return err_set(err, CNI_IO_FAILURE, "out of memory");
	*ret_wanted = false;
	while ((pair = strsep(&rest, ";"))) {
		if (strncmp(pair, "IP=", 3) != 0)
			continue;
		if (addr_parse(pair + 3, ret, err) < 0)
			return err_wrap(err, CNI_INVALID_ENVIRONMENT, "CNI_ARGS");
		*ret_wanted = true;
	}
	return 0;
}

static int take_own(const struct request *req, struct given *ret, struct err *err)
{
	const struct netconf_ipam *ipam = &req->conf.ipam;
	struct addr wanted;
	bool asked = false;
	int r = wanted_address(req->args, &wanted, &asked, err);

	if (r)
		return r;
	r = ipam_allocate(&ipam->pool, &wanted, asked, &req->owner, ret->addresses, err);
	switch (r) {
	case 0:
		break;
	case -EEXIST:
		return CNI_ALREADY_ATTACHED;
	case -ENOSPC:
	case -EADDRINUSE:
		return CNI_NO_ADDRESS;
	case -EINVAL:
		return CNI_INVALID_ENVIRONMENT;
	default:
		return CNI_IO_FAILURE;
	}
	ret->naddresses = ipam->pool.nsets;
	memcpy(ret->routes, ipam->routes, sizeof(ipam->routes));
	ret->nroutes = ipam->nroutes;
	return 0;
}

/* -- routes ---------------------------------------------------------------------------- */

struct addr given_route_gateway(const struct given *given, const struct netconf_route *route)
{
	if (route->gateway.family != AF_UNSPEC)
		return route->gateway;
	for (unsigned i = 0; i < given->naddresses; i++)
		if (given->addresses[i].gateway.family == route->dst.addr.family)
			return given->addresses[i].gateway;
	return (struct addr){ .family = AF_UNSPEC };
}

/* A default route with a gateway of its own is somebody's decision. */
static bool has_default_route(const struct given *given, uint8_t family)
{
	for (unsigned i = 0; i < given->nroutes; i++)
		if (given->routes[i].dst.addr.family == family && given->routes[i].dst.len == 0 &&
		    given->routes[i].gateway.family != AF_UNSPEC)
			return true;
	return false;
}

/* isDefaultGateway: a default route for each family that has an address. */
static void add_default_routes(struct given *given)
{
	for (unsigned i = 0; i < given->naddresses; i++) {
		const struct ipam_address *a = &given->addresses[i];
		uint8_t family = a->address.addr.family;

		if (has_default_route(given, family) || given->nroutes == countof(given->routes))
			continue;
		given->routes[given->nroutes++] = (struct netconf_route){
			.dst = { .addr = { .family = family } },
			.gateway = a->gateway,
			.table = -1,
			.scope = -1,
		};
	}
}

int addresses_take(const struct request *req, struct given *ret, struct err *err)
{
	int r = 0;

	ret->naddresses = ret->nroutes = 0;
	if (req->conf.ipam.kind == NETCONF_IPAM_OWN)
		r = take_own(req, ret, err);
	if (r == 0 && req->conf.is_default_gateway)
		add_default_routes(ret);
	return r;
}
