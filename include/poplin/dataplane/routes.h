/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host-gw backend: one route per peer subnet, by the peer's address on the common L2.
 *
 * IPv4 routes point at nexthop objects, one per gateway: a gateway in each route makes the kernel
 * compare it with every fib_info of the same hash (net/ipv4/fib_semantics.c, fib_find_info), which
 * is quadratic. The id of a gateway's nexthop is the IPv4 address itself as a number: it needs no
 * state, survives restarts and never collides between gateways. Where the kernel lacks nexthop
 * objects, and for IPv6, routes carry their gateway.
 */
#ifndef POPLIN_DATAPLANE_ROUTES_H
#define POPLIN_DATAPLANE_ROUTES_H

#include <stdbool.h>

#include "poplin/nl/nl.h"
#include "poplin/nl/route.h"

struct routes_config {
	uint8_t protocol; /* ROUTE_PROTOCOL: marks what is ours */
	unsigned index;	  /* the node's own interface, for on-link nexthops */
	bool nexthops;	  /* use nexthop objects (nexthop_supported()) */
};

/* The nexthop id of a gateway, or 0 when its routes carry the gateway themselves. */
uint32_t routes_nexthop_id(const struct routes_config *c, const struct addr *gateway);

/*
 * Add the message to the batch. replace: something of ours stands there and is replaced in one
 * step; otherwise the message fails with -EEXIST when anything stands there, so a foreign route is
 * never overwritten.
 */
int routes_add_nexthop(const struct routes_config *c, struct netlink_batch *b,
		       const struct addr *gateway, bool replace, size_t tag, struct err *err);
int routes_delete_nexthop(const struct routes_config *c, struct netlink_batch *b,
			  const struct addr *gateway, size_t tag, struct err *err);
int routes_add_route(const struct routes_config *c, struct netlink_batch *b,
		     const struct prefix *dst, const struct addr *gateway, bool replace, size_t tag,
		     struct err *err);
int routes_delete_route(const struct routes_config *c, struct netlink_batch *b,
			const struct prefix *dst, size_t tag, struct err *err);

/*
 * True when r does not stand in the place of a route of ours to the same prefix: it has another
 * metric than the kernel gives ours, or is only for packets of some TOS or source. There is room for
 * both of them.
 */
bool routes_beside(const struct route *r);
/*
 * True when r is ours (our protocol, in our place): with the gateway it goes by; AF_UNSPEC where it
 * is another one than we would make: by another link or several, with an MTU or a source address, or
 * to nowhere: a blackhole.
 */
bool routes_recognize(const struct routes_config *c, const struct route *r, struct addr *ret);

/* True when r is ours by its protocol, in a place where we put none. */
bool routes_is_stray(const struct routes_config *c, const struct route *r);
/*
 * Removes the strays, and those in our place that stand behind another one of ours: a replacement
 * meets only the first. *ret_count says how many there were.
 */
int routes_remove_strays(struct netlink *nl, const struct routes_config *c, unsigned *ret_count,
			 struct err *err);

/* Removes every route and nexthop that carries our protocol number. */
int routes_remove_all(struct netlink *nl, const struct routes_config *c, struct err *err);

#endif
