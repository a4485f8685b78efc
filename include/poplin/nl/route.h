/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Routes of the main table and nexthop objects. Threads: those of the struct netlink. */
#ifndef POPLIN_NL_ROUTE_H
#define POPLIN_NL_ROUTE_H

#include "poplin/model/prefix.h"
#include "poplin/nl/nl.h"

struct route {
	struct prefix dst;
	struct addr gateway; /* AF_UNSPEC: none. Also set from RTA_GATEWAY beside a nexthop id */
	unsigned index;	     /* outgoing link, or 0 */
	uint32_t nexthop;    /* id of a nexthop object, or 0 */
	uint32_t metric;
	struct prefix src; /* IPv6: of the packets that it is for; AF_UNSPEC: of all */
	uint8_t tos;	   /* IPv4: of the packets that it is for; 0: of all */
	uint8_t protocol;  /* RTPROT_* */
	uint8_t type;	   /* RTN_*; route_put_msg() makes RTN_UNICAST ones */
	/* As parsed: the kernel says more of it, such as several next hops, a source address or an MTU. */
	bool more;
};

struct nexthop {
	uint32_t id;
	struct addr gateway; /* AF_UNSPEC: none, or with an encapsulation */
	unsigned index;
	uint8_t protocol;
};

/* Messages for netlink_request() and batches. flags: NLM_F_CREATE and NLM_F_EXCL or NLM_F_REPLACE.
 * NULL when memory is short. A delete matches destination, source, TOS, metric (0: any, the lowest
 * first), protocol, and of type, nexthop, gateway and link those that are given. */
struct nl_msg *route_put_msg(const struct route *r, unsigned flags);
/* What a route may say in addition; 0 or -1: nothing. Into the message of route_put_msg(). */
struct route_details {
	unsigned mtu, advmss;
	int64_t table, scope;
};
int route_msg_add_details(struct nl_msg *msg, const struct route_details *details); /* -ENOMEM */
struct nl_msg *route_delete_msg(const struct route *r);
/* Deletes just the route that the kernel told of: all that it says of it has to match. */
struct nl_msg *route_delete_told_msg(const struct nlmsghdr *told);
struct nl_msg *nexthop_put_msg(const struct nexthop *n, unsigned flags);
struct nl_msg *nexthop_delete_msg(uint32_t id);

/* RTM_NEWROUTE, RTM_DELROUTE. -EINVAL: not a route of the main table. */
int route_parse(const struct nlmsghdr *msg, struct route *ret);
int nexthop_parse(const struct nlmsghdr *msg, struct nexthop *ret);

/* Everything of the main table / all nexthops with that protocol (0: any). `restart` as
 * netlink_dump(). */
int route_foreach(struct netlink *nl, int family, uint8_t protocol,
		  int (*fn)(const struct route *r, void *arg), void (*restart)(void *arg),
		  void *arg, struct err *err);
/* The same, with the kernel's message, for whoever needs all that it says. */
int route_foreach_told(struct netlink *nl, int family, uint8_t protocol,
		       int (*fn)(const struct route *r, const struct nlmsghdr *told, void *arg),
		       void (*restart)(void *arg), void *arg, struct err *err);
int nexthop_foreach(struct netlink *nl, uint8_t protocol,
		    int (*fn)(const struct nexthop *n, void *arg), void (*restart)(void *arg),
		    void *arg, struct err *err);
/* -ENOENT: there is no nexthop of this id. */
int nexthop_get(struct netlink *nl, uint32_t id, struct nexthop *ret, struct err *err);
/* Whether this kernel knows nexthop objects (since 5.3). */
bool nexthop_supported(struct netlink *nl);

/* Whether any table has a route to dst, by this gateway (AF_UNSPEC: by any). */
int route_exists(struct netlink *nl, const struct prefix *dst, const struct addr *gateway,
		 bool *ret, struct err *err);

/*
 * The route with the lowest metric to 0.0.0.0/0 (or ::/0): its outgoing link. -ENETUNREACH: none.
 */
int route_default(struct netlink *nl, int family, struct route *ret, struct err *err);

#endif
