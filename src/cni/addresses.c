/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses and routes of an attachment: from our own pool, or from another plugin. */
#include <errno.h>
#include <string.h>

#include "cni.h"
#include "delegate.h"
#include "resolv.h"

DEFINE_AUTO(json_t *, json_decref)

/* -- our own ----------------------------------------------------------------------------- */

static int take_own(const struct request *req, const struct wishes *wishes, struct given *ret,
		    struct err *err)
{
	const struct netconf_ipam *ipam = &req->conf.ipam;
	int r = ipam_allocate(&ipam->pool, wishes->addresses, wishes->naddresses, &req->owner,
			      ret->addresses, err);

	switch (r) {
	case 0:
		break;
	case -EEXIST:
		return CNI_ALREADY_ATTACHED;
	case -EADDRNOTAVAIL:
	case -EADDRINUSE:
		return CNI_NO_ADDRESS;
	case -EINVAL:
		return wishes->naddresses ? wishes->addresses_code : CNI_INVALID_ENVIRONMENT;
	default:
		return CNI_IO_FAILURE;
	}
	ret->naddresses = ipam->pool.nsets;
	memcpy(ret->routes, ipam->routes, sizeof(ipam->routes));
	ret->nroutes = ipam->nroutes;
	if (ipam->resolv_conf[0])
		r = resolv_read(ipam->resolv_conf, &ret->dns, err);
	if (r)
		(void)ipam_release(&ipam->pool, &req->owner, NULL);
	return r;
}

/* -- another plugin's ---------------------------------------------------------------------- */

/* A failed ADD is followed by a DEL (specification, section 4). */
static int take_delegated(const struct request *req, struct given *ret, struct err *err)
{
	const char *type = req->conf.ipam.type;
	auto_(json_decref) json_t *result = NULL;
	int r = delegate_run(req, type, "ADD", &result, err);

	if (r == 0)
		r = delegate_read(result, ret, err);
	if (r)
		(void)delegate_run(req, type, "DEL", NULL, NULL);
	return r;
}

int addresses_give_back(const struct request *req, struct err *err)
{
	const struct netconf_ipam *ipam = &req->conf.ipam;

	return ipam->kind == NETCONF_IPAM_DELEGATED
		       ? delegate_run(req, ipam->type, "DEL", NULL, err)
		       : 0;
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

/* A default route that was configured is somebody's decision. */
static bool has_default_route(const struct given *given, uint8_t family)
{
	for (unsigned i = 0; i < given->nroutes; i++)
		if (given->routes[i].dst.addr.family == family && given->routes[i].dst.len == 0)
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

/* isGateway: an address whose IPAM plugin names no gateway has the first host as one. */
static void complete_gateways(const struct request *req, struct given *given)
{
	for (unsigned i = 0; i < given->naddresses; i++) {
		struct ipam_address *a = &given->addresses[i];
		struct prefix subnet = prefix_canonical(&a->address);

		if (a->gateway.family == AF_UNSPEC && req->conf.is_gateway)
			a->gateway = prefix_gateway(&subnet);
	}
	if (req->conf.is_default_gateway)
		add_default_routes(given);
}

int addresses_take(const struct request *req, const struct wishes *wishes, struct given *ret,
		   struct err *err)
{
	int r = 0;

	ret->naddresses = ret->nroutes = 0;
	ret->dns = NULL;
	switch (req->conf.ipam.kind) {
	case NETCONF_IPAM_NONE:
		break;
	case NETCONF_IPAM_OWN:
		r = take_own(req, wishes, ret, err);
		break;
	case NETCONF_IPAM_DELEGATED:
		r = take_delegated(req, ret, err);
		break;
	}
	if (r == 0)
		complete_gateways(req, ret);
	return r;
}

void given_done(struct given *given)
{
	json_decref(given->dns);
	given->dns = NULL;
}
