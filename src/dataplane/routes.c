/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/dataplane/routes.h"

#include <errno.h>
#include <linux/nexthop.h>
#include <string.h>

#include "poplin/base/buf.h"

/* Adds msg, which is NULL when memory was short, and frees it. */
static int add_take(struct netlink_batch *b, struct nl_msg *msg, size_t tag, struct err *err)
{
	int r = msg ? netlink_batch_add(b, msg, tag) : -ENOMEM;

	nlmsg_free(msg);
	return r < 0 ? err_errno(err, r, "route batch") : 0;
}

/* The kernel gives an IPv6 route without a metric this one (IP6_RT_PRIO_USER, ip6_fib.h). */
#define IPV6_DEFAULT_METRIC 1024

static uint32_t metric_of(int family)
{
	return family == AF_INET6 ? IPV6_DEFAULT_METRIC : 0;
}

static unsigned put_flags(bool replace)
{
	return NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL);
}

uint32_t routes_nexthop_id(const struct routes_config *c, const struct addr *gateway)
{
	return c->nexthops && gateway->family == AF_INET ? addr_to_ipv4(gateway) : 0;
}

int routes_add_nexthop(const struct routes_config *c, struct netlink_batch *b,
		       const struct addr *gateway, bool replace, size_t tag, struct err *err)
{
	const struct nexthop n = {
		.id = routes_nexthop_id(c, gateway),
		.gateway = *gateway,
		.index = c->index,
		.protocol = c->protocol,
	};

	if (!n.id) /* the kernel would choose one */
		return err_set(err, -EINVAL, "nexthop objects are not for this gateway");
	return add_take(b, nexthop_put_msg(&n, put_flags(replace)), tag, err);
}

int routes_delete_nexthop(const struct routes_config *c, struct netlink_batch *b,
			  const struct addr *gateway, size_t tag, struct err *err)
{
	return add_take(b, nexthop_delete_msg(routes_nexthop_id(c, gateway)), tag, err);
}

int routes_add_route(const struct routes_config *c, struct netlink_batch *b,
		     const struct prefix *dst, const struct addr *gateway, bool replace, size_t tag,
		     struct err *err)
{
	struct route r = { .dst = *dst, .protocol = c->protocol };

	r.nexthop = routes_nexthop_id(c, gateway);
	if (!r.nexthop) {
		r.gateway = *gateway;
		r.index = c->index;
	}
	return add_take(b, route_put_msg(&r, put_flags(replace)), tag, err);
}

int routes_delete_route(const struct routes_config *c, struct netlink_batch *b,
			const struct prefix *dst, size_t tag, struct err *err)
{
	const struct route r = {
		.dst = *dst,
		.protocol = c->protocol,
		.metric = metric_of(dst->addr.family),
	};

	return add_take(b, route_delete_msg(&r), tag, err);
}

bool routes_beside(const struct route *r)
{
	return r->metric != metric_of(r->dst.addr.family) || r->tos || r->src.len;
}

bool routes_recognize(const struct routes_config *c, const struct route *r, struct addr *ret)
{
	bool objects = c->nexthops && r->dst.addr.family == AF_INET;

	if (r->protocol != c->protocol || routes_beside(r))
		return false;
	*ret = (struct addr){ .family = AF_UNSPEC };
	if (r->type != RTN_UNICAST || r->more)
		return true;
	/* With nexthop_compat_mode=0 the kernel does not tell the gateway beside the id. */
	if (objects && r->nexthop)
		*ret = addr_from_ipv4(r->nexthop);
	else if (!objects && !r->nexthop && r->index == c->index)
		*ret = r->gateway;
	return true;
}

bool routes_is_stray(const struct routes_config *c, const struct route *r)
{
	return r->protocol == c->protocol && routes_beside(r);
}

/* -- everything ------------------------------------------------------------- */

struct removal {
	const struct routes_config *config;
	bool strays; /* alone */
	/* The last one of ours that is the first in our place (AF_UNSPEC: none yet), and all of it. */
	struct prefix last;
	struct buf last_told;
	struct netlink_batch *batch;
	struct err *err;
	unsigned count;
	int failed; /* the first failure of a deletion */
};

/* A route without the flags, which tell of its state and may change while all are told. */
static int remember(struct buf *told, const struct nlmsghdr *msg, struct err *err)
{
	buf_reset(told);
	if (buf_add(told, nlmsg_data(msg), (size_t)nlmsg_datalen(msg)) < 0)
		return err_errno(err, -ENOMEM, "remember a route");
	((struct rtmsg *)told->data)->rtm_flags = 0;
	return 0;
}

/* An IPv4 dump tells of a route twice when one is put before it meanwhile. */
static int is_another(const struct buf *before, const struct nlmsghdr *msg, bool *ret,
		      struct err *err)
{
	auto_buf struct buf now = BUF_INIT;

	if (remember(&now, msg, err) < 0)
		return -ENOMEM;
	*ret = now.len != before->len || memcmp(now.data, before->data, now.len) != 0;
	return 0;
}

static int note_route(const struct route *r, const struct nlmsghdr *told, void *arg)
{
	struct removal *removal = arg;
	bool removed = true;

	if (removal->strays && !routes_is_stray(removal->config, r)) {
		if (prefix_cmp(&removal->last, &r->dst) != 0) {
			removal->last = r->dst;
			return remember(&removal->last_told, told, removal->err);
		}
		if (is_another(&removal->last_told, told, &removed, removal->err) < 0)
			return -ENOMEM;
	}
	/* By all that it says: of two in one place a deletion may mean either. */
	return removed ? add_take(removal->batch, route_delete_told_msg(told), 0, removal->err) : 0;
}

static void forget_last(void *arg)
{
	struct removal *removal = arg;

	removal->last.addr.family = AF_UNSPEC;
}

static int note_nexthop(const struct nexthop *n, void *arg)
{
	struct removal *removal = arg;

	return add_take(removal->batch, nexthop_delete_msg(n->id), 0, removal->err);
}

static void take_result(size_t tag, int result, const char *text, void *arg)
{
	struct removal *removal = arg;

	removal->count += result == 0;
	/* Gone already is as good as removed. A dump that was begun anew lists some twice. */
	if (result == 0 || result == -ESRCH || result == -ENOENT || removal->failed)
		return;
	removal->failed =
		err_errno(removal->err, result, "remove a route%s%s", text[0] ? ": " : "", text);
}

static int remove_some(struct netlink *nl, struct removal *removal)
{
	auto_(netlink_batch_free) struct netlink_batch *batch = NULL;
	const struct routes_config *c = removal->config;
	struct err *err = removal->err;
	int r = netlink_batch_new(&batch, err);

	if (r < 0)
		return r;
	removal->batch = batch;
	r = route_foreach_told(nl, AF_INET, c->protocol, note_route, forget_last, removal, err);
	if (r == 0)
		r = route_foreach_told(nl, AF_INET6, c->protocol, note_route, forget_last, removal,
				       err);
	buf_done(&removal->last_told);
	if (r == 0 && c->nexthops && !removal->strays)
		r = nexthop_foreach(nl, c->protocol, note_nexthop, NULL, removal, err);
	if (r == 0)
		r = netlink_batch_send(nl, batch, take_result, removal, err);
	return r < 0 ? r : removal->failed;
}

int routes_remove_strays(struct netlink *nl, const struct routes_config *c, unsigned *ret_count,
			 struct err *err)
{
	struct removal removal = { .config = c, .strays = true, .err = err };
	int r = remove_some(nl, &removal);

	*ret_count = removal.count;
	return r;
}

int routes_remove_all(struct netlink *nl, const struct routes_config *c, struct err *err)
{
	struct removal removal = { .config = c, .err = err };

	return remove_some(nl, &removal);
}
