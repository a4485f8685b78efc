/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/nl/route.h"

#include <errno.h>
#include <linux/nexthop.h>
#include <netlink/attr.h>
#include <string.h>

#include "attr.h"

/* -- routes ----------------------------------------------------------------- */

static struct nl_msg *route_msg(int type, unsigned flags, const struct route *r, uint8_t scope)
{
	const struct rtmsg body = {
		.rtm_family = r->dst.addr.family,
		.rtm_dst_len = r->dst.len,
		.rtm_src_len = r->src.len,
		.rtm_tos = r->tos,
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = r->protocol,
		.rtm_scope = scope,
		.rtm_type = type == RTM_NEWROUTE ? RTN_UNICAST : r->type,
	};
	struct nl_msg *msg = nlmsg_alloc_simple(type, (int)flags);

	if (msg && (nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0 ||
		    (r->dst.len && attr_put_addr(msg, RTA_DST, &r->dst.addr) < 0) ||
		    (r->src.len && attr_put_addr(msg, RTA_SRC, &r->src.addr) < 0) ||
		    (r->metric && nla_put_u32(msg, RTA_PRIORITY, r->metric) < 0))) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

/* Adds the way that it goes, and frees the message when that fails. */
static struct nl_msg *add_way(struct nl_msg *msg, const struct route *r)
{
	if (!msg)
		return NULL;
	/* A nexthop object says it all; the kernel refuses a gateway or link beside it. */
	if (r->nexthop ? nla_put_u32(msg, RTA_NH_ID, r->nexthop) < 0
		       : (r->gateway.family != AF_UNSPEC &&
			  attr_put_addr(msg, RTA_GATEWAY, &r->gateway) < 0) ||
				 (r->index && nla_put_u32(msg, RTA_OIF, r->index) < 0)) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

struct nl_msg *route_put_msg(const struct route *r, unsigned flags)
{
	bool direct = !r->nexthop && r->gateway.family == AF_UNSPEC;

	return add_way(
		route_msg(RTM_NEWROUTE, flags, r, direct ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE), r);
}

int route_msg_add_details(struct nl_msg *msg, const struct route_details *details)
{
	struct rtmsg *body = nlmsg_data(nlmsg_hdr(msg));
	struct nlattr *metrics;

	if (details->scope >= 0)
		body->rtm_scope = (uint8_t)details->scope;
	if (details->table >= 0) {
		body->rtm_table = details->table < 256 ? (uint8_t)details->table : RT_TABLE_UNSPEC;
		if (nla_put_u32(msg, RTA_TABLE, (uint32_t)details->table) < 0)
			return -ENOMEM;
	}
	if (!details->mtu && !details->advmss)
		return 0;
	metrics = nla_nest_start(msg, RTA_METRICS);
	if (!metrics || (details->mtu && nla_put_u32(msg, RTAX_MTU, details->mtu) < 0) ||
	    (details->advmss && nla_put_u32(msg, RTAX_ADVMSS, details->advmss) < 0))
		return -ENOMEM;
	nla_nest_end(msg, metrics);
	return 0;
}

struct nl_msg *route_delete_msg(const struct route *r)
{
	return add_way(route_msg(RTM_DELROUTE, 0, r, RT_SCOPE_NOWHERE), r);
}

/* What a nexthop object says already; the kernel tells of it beside the id. */
static bool is_way(int type)
{
	return type == RTA_GATEWAY || type == RTA_VIA || type == RTA_OIF || type == RTA_MULTIPATH ||
	       type == RTA_ENCAP || type == RTA_ENCAP_TYPE;
}

struct nl_msg *route_delete_told_msg(const struct nlmsghdr *told)
{
	struct nlmsghdr *from = (struct nlmsghdr *)told;
	struct rtmsg body = *(const struct rtmsg *)nlmsg_data(from);
	bool by_id = nlmsg_find_attr(from, sizeof(body), RTA_NH_ID);
	struct nl_msg *msg = nlmsg_alloc_size(told->nlmsg_len);
	struct nlattr *attr;
	int left;

	body.rtm_flags = 0; /* of its state, such as a link that has no carrier */
	if (!msg || !nlmsg_put(msg, 0, 0, RTM_DELROUTE, 0, 0) ||
	    nlmsg_append(msg, &body, sizeof(body), NLMSG_ALIGNTO) < 0)
		goto fail;
	nlmsg_for_each_attr (attr, from, sizeof(body), left) {
		if (by_id && is_way(nla_type(attr)))
			continue;
		if (nla_put(msg, attr->nla_type, nla_len(attr), nla_data(attr)) < 0)
			goto fail;
	}
	return msg;
fail:
	nlmsg_free(msg);
	return NULL;
}

/* Of attributes that route_put_msg() never gives. */
static bool says_more(struct nlattr *attrs[RTA_MAX + 1])
{
	if (attrs[RTA_PREFSRC] || attrs[RTA_METRICS] || attrs[RTA_FLOW])
		return true;
	return !attrs[RTA_NH_ID] && (attrs[RTA_MULTIPATH] || attrs[RTA_VIA] || attrs[RTA_ENCAP]);
}

static int parse_any(const struct nlmsghdr *msg, struct route *ret, uint32_t *ret_table)
{
	static const struct nla_policy policy[RTA_MAX + 1] = {
		[RTA_TABLE] = { .type = NLA_U32 },
		[RTA_OIF] = { .type = NLA_U32 },
		[RTA_NH_ID] = { .type = NLA_U32 },
		[RTA_PRIORITY] = { .type = NLA_U32 },
	};
	struct nlattr *attrs[RTA_MAX + 1];
	struct route r = { .metric = 0 };
	const struct rtmsg *body;

	if ((msg->nlmsg_type != RTM_NEWROUTE && msg->nlmsg_type != RTM_DELROUTE) ||
	    nlmsg_parse((struct nlmsghdr *)msg, sizeof(*body), attrs, RTA_MAX, policy) < 0)
		return -EINVAL;
	body = nlmsg_data(msg);
	if (body->rtm_flags & RTM_F_CLONED)
		return -EINVAL;
	*ret_table = attrs[RTA_TABLE] ? nla_get_u32(attrs[RTA_TABLE]) : body->rtm_table;
	r.dst.len = body->rtm_dst_len;
	r.dst.addr.family = body->rtm_family;
	if (addr_size(&r.dst.addr) == 0 ||
	    (attrs[RTA_DST] && attr_get_addr(attrs[RTA_DST], body->rtm_family, &r.dst.addr) < 0) ||
	    (attrs[RTA_SRC] && attr_get_addr(attrs[RTA_SRC], body->rtm_family, &r.src.addr) < 0) ||
	    (attrs[RTA_GATEWAY] &&
	     attr_get_addr(attrs[RTA_GATEWAY], body->rtm_family, &r.gateway) < 0))
		return -EINVAL;
	if (attrs[RTA_OIF])
		r.index = nla_get_u32(attrs[RTA_OIF]);
	if (attrs[RTA_NH_ID])
		r.nexthop = nla_get_u32(attrs[RTA_NH_ID]);
	if (attrs[RTA_PRIORITY])
		r.metric = nla_get_u32(attrs[RTA_PRIORITY]);
	r.src.len = body->rtm_src_len;
	r.tos = body->rtm_tos;
	r.protocol = body->rtm_protocol;
	r.type = body->rtm_type;
	r.more = says_more(attrs);
	*ret = r;
	return 0;
}

int route_parse(const struct nlmsghdr *msg, struct route *ret)
{
	struct route r;
	uint32_t table;

	if (parse_any(msg, &r, &table) < 0 || table != RT_TABLE_MAIN)
		return -EINVAL;
	*ret = r;
	return 0;
}

struct route_search {
	const struct prefix *dst;
	const struct addr *gateway;
	bool found;
};

static int look_for_route(const struct nlmsghdr *msg, void *arg)
{
	struct route_search *search = arg;
	uint32_t table;
	struct route r;

	if (parse_any(msg, &r, &table) == 0 && prefix_cmp(&r.dst, search->dst) == 0 &&
	    (search->gateway->family == AF_UNSPEC || addr_cmp(&r.gateway, search->gateway) == 0))
		search->found = true;
	return 0;
}

int route_exists(struct netlink *nl, const struct prefix *dst, const struct addr *gateway,
		 bool *ret, struct err *err)
{
	const struct rtmsg body = { .rtm_family = dst->addr.family };
	auto_(nlmsg_free) struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETROUTE, 0);
	struct route_search search = { .dst = dst, .gateway = gateway };
	int r;

	if (!msg || nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0)
		return err_errno(err, -ENOMEM, "list routes");
	r = netlink_dump(nl, msg, look_for_route, NULL, &search, err);
	if (r < 0)
		return err_wrap(err, r, "list routes");
	*ret = search.found;
	return 0;
}

struct route_walk {
	uint8_t protocol;
	int (*fn)(const struct route *r, void *arg); /* or */
	int (*fn_told)(const struct route *r, const struct nlmsghdr *told, void *arg);
	void (*restart)(void *arg);
	void *arg;
};

static int take_route(const struct nlmsghdr *msg, void *arg)
{
	const struct route_walk *walk = arg;
	struct route r;

	if (route_parse(msg, &r) < 0 || (walk->protocol && r.protocol != walk->protocol))
		return 0;
	return walk->fn ? walk->fn(&r, walk->arg) : walk->fn_told(&r, msg, walk->arg);
}

static void restart_routes(void *arg)
{
	const struct route_walk *walk = arg;

	if (walk->restart)
		walk->restart(walk->arg);
}

static int walk_routes(struct netlink *nl, int family, struct route_walk *walk, struct err *err)
{
	/* With strict checks the kernel filters by table and protocol itself (fib_dump_filter). */
	const struct rtmsg body = {
		.rtm_family = (uint8_t)family,
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = walk->protocol,
	};
	auto_(nlmsg_free) struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETROUTE, 0);
	int r;

	if (!msg || nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0)
		return err_errno(err, -ENOMEM, "list routes");
	r = netlink_dump(nl, msg, take_route, restart_routes, walk, err);
	return r < 0 ? err_wrap(err, r, "list routes") : 0;
}

int route_foreach(struct netlink *nl, int family, uint8_t protocol,
		  int (*fn)(const struct route *r, void *arg), void (*restart)(void *arg),
		  void *arg, struct err *err)
{
	struct route_walk walk = { .protocol = protocol, .fn = fn, .restart = restart, .arg = arg };

	return walk_routes(nl, family, &walk, err);
}

int route_foreach_told(struct netlink *nl, int family, uint8_t protocol,
		       int (*fn)(const struct route *r, const struct nlmsghdr *told, void *arg),
		       void (*restart)(void *arg), void *arg, struct err *err)
{
	struct route_walk walk = {
		.protocol = protocol, .fn_told = fn, .restart = restart, .arg = arg
	};

	return walk_routes(nl, family, &walk, err);
}

struct best {
	struct route route;
	bool found;
};

static int look_for_default(const struct route *r, void *arg)
{
	struct best *best = arg;

	if (r->dst.len == 0 && r->type == RTN_UNICAST && r->index &&
	    (!best->found || r->metric < best->route.metric)) {
		best->route = *r;
		best->found = true;
	}
	return 0;
}

static void forget_default(void *arg)
{
	((struct best *)arg)->found = false;
}

int route_default(struct netlink *nl, int family, struct route *ret, struct err *err)
{
	struct best best = { .found = false };
	int r = route_foreach(nl, family, 0, look_for_default, forget_default, &best, err);

	if (r < 0)
		return r;
	if (!best.found)
		return err_set(err, -ENETUNREACH, "there is no default route");
	*ret = best.route;
	return 0;
}

/* -- nexthops --------------------------------------------------------------- */

static struct nl_msg *nexthop_msg(int type, unsigned flags, const struct nhmsg *body)
{
	struct nl_msg *msg = nlmsg_alloc_simple(type, (int)flags);

	if (msg && nlmsg_append(msg, (void *)body, sizeof(*body), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

struct nl_msg *nexthop_put_msg(const struct nexthop *n, unsigned flags)
{
	const struct nhmsg body = {
		.nh_family = n->gateway.family,
		.nh_protocol = n->protocol,
		.nh_scope = RT_SCOPE_UNIVERSE,
	};
	struct nl_msg *msg = nexthop_msg(RTM_NEWNEXTHOP, flags, &body);

	if (msg &&
	    (nla_put_u32(msg, NHA_ID, n->id) < 0 || nla_put_u32(msg, NHA_OIF, n->index) < 0 ||
	     attr_put_addr(msg, NHA_GATEWAY, &n->gateway) < 0)) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

struct nl_msg *nexthop_delete_msg(uint32_t id)
{
	const struct nhmsg body = { .nh_family = AF_UNSPEC };
	struct nl_msg *msg = nexthop_msg(RTM_DELNEXTHOP, 0, &body);

	if (msg && nla_put_u32(msg, NHA_ID, id) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

int nexthop_parse(const struct nlmsghdr *msg, struct nexthop *ret)
{
	static const struct nla_policy policy[NHA_MAX + 1] = {
		[NHA_ID] = { .type = NLA_U32 },
		[NHA_OIF] = { .type = NLA_U32 },
	};
	struct nlattr *attrs[NHA_MAX + 1];
	struct nexthop n = { .id = 0 };
	const struct nhmsg *body;

	if ((msg->nlmsg_type != RTM_NEWNEXTHOP && msg->nlmsg_type != RTM_DELNEXTHOP) ||
	    nlmsg_parse((struct nlmsghdr *)msg, sizeof(*body), attrs, NHA_MAX, policy) < 0 ||
	    !attrs[NHA_ID])
		return -EINVAL;
	body = nlmsg_data(msg);
	n.id = nla_get_u32(attrs[NHA_ID]);
	n.protocol = body->nh_protocol;
	if (attrs[NHA_OIF])
		n.index = nla_get_u32(attrs[NHA_OIF]);
	/* What is encapsulated goes another way than to the gateway alone. */
	if (attrs[NHA_GATEWAY] && !attrs[NHA_ENCAP] &&
	    attr_get_addr(attrs[NHA_GATEWAY], body->nh_family, &n.gateway) < 0)
		return -EINVAL;
	*ret = n;
	return 0;
}

struct nexthop_walk {
	uint8_t protocol;
	int (*fn)(const struct nexthop *n, void *arg);
	void (*restart)(void *arg);
	void *arg;
};

static int take_nexthop(const struct nlmsghdr *msg, void *arg)
{
	const struct nexthop_walk *walk = arg;
	struct nexthop n;

	if (nexthop_parse(msg, &n) < 0 || (walk->protocol && n.protocol != walk->protocol))
		return 0;
	return walk->fn(&n, walk->arg);
}

static void restart_nexthops(void *arg)
{
	const struct nexthop_walk *walk = arg;

	if (walk->restart)
		walk->restart(walk->arg);
}

int nexthop_foreach(struct netlink *nl, uint8_t protocol,
		    int (*fn)(const struct nexthop *n, void *arg), void (*restart)(void *arg),
		    void *arg, struct err *err)
{
	const struct nhmsg body = { .nh_family = AF_UNSPEC };
	auto_(nlmsg_free) struct nl_msg *msg = nexthop_msg(RTM_GETNEXTHOP, 0, &body);
	struct nexthop_walk walk = { protocol, fn, restart, arg };
	int r;

	if (!msg)
		return err_errno(err, -ENOMEM, "list nexthops");
	r = netlink_dump(nl, msg, take_nexthop, restart_nexthops, &walk, err);
	return r < 0 ? err_wrap(err, r, "list nexthops") : 0;
}

static int take_one_nexthop(const struct nlmsghdr *msg, void *arg)
{
	return nexthop_parse(msg, arg);
}

int nexthop_get(struct netlink *nl, uint32_t id, struct nexthop *ret, struct err *err)
{
	const struct nhmsg body = { .nh_family = AF_UNSPEC };
	auto_(nlmsg_free) struct nl_msg *msg = nexthop_msg(RTM_GETNEXTHOP, 0, &body);
	struct nexthop found = { .id = 0 };
	int r;

	if (!msg || nla_put_u32(msg, NHA_ID, id) < 0)
		return err_errno(err, -ENOMEM, "look up a nexthop");
	r = netlink_get(nl, msg, take_one_nexthop, &found, err);
	if (r < 0)
		return err_wrap(err, r, "nexthop %u", id);
	if (found.id != id)
		return err_errno(err, -ENOENT, "nexthop %u", id);
	*ret = found;
	return 0;
}

/* A kernel that knows them answers ENOENT, or with one: any answer but this one will do. */
bool nexthop_supported(struct netlink *nl)
{
	auto_(nlmsg_free) struct nl_msg *msg = NULL;
	const struct nhmsg body = { .nh_family = AF_UNSPEC };

	msg = nexthop_msg(RTM_GETNEXTHOP, 0, &body);
	if (!msg || nla_put_u32(msg, NHA_ID, UINT32_MAX) < 0)
		return false;
	return netlink_request(nl, msg, NULL) != -EOPNOTSUPP;
}
