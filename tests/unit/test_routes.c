/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Routes by nexthop objects and without: put, replaced, removed, and nobody else's touched. */
#include "netns.h"
#include "poplin/dataplane/routes.h"

#define PROTOCOL 84
#define MANY	 5000

static struct routes_config conf;
static struct netlink_batch *batch;

static int setup(void **state)
{
	if (netns_setup(state) < 0 || netlink_batch_new(&batch, &err) < 0)
		return -1;
	conf = (struct routes_config){
		.protocol = PROTOCOL,
		.index = make_uplink(),
		.nexthops = nexthop_supported(nl),
	};
	return conf.nexthops ? 0 : -1;
}

static int teardown(void **state)
{
	netlink_batch_free(batch);
	return netns_teardown(state);
}

#define routes_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* -- one step at a time -------------------------------------------------------- */

static void take_one(size_t tag, int result, const char *text, void *arg)
{
	assert_int_equal(tag, 9);
	*(int *)arg = result;
}

static int send_one(void)
{
	int result = 1;

	assert_int_equal(netlink_batch_count(batch), 1);
	assert_ok(netlink_batch_send(nl, batch, take_one, &result, &err));
	return result;
}

static int put_nexthop(const char *gateway, bool replace)
{
	const struct addr g = addr(gateway);

	assert_ok(routes_add_nexthop(&conf, batch, &g, replace, 9, &err));
	return send_one();
}

static int delete_nexthop(const char *gateway)
{
	const struct addr g = addr(gateway);

	assert_ok(routes_delete_nexthop(&conf, batch, &g, 9, &err));
	return send_one();
}

static int put(const char *dst, const char *gateway, bool replace)
{
	const struct prefix p = prefix(dst);
	const struct addr g = addr(gateway);

	assert_ok(routes_add_route(&conf, batch, &p, &g, replace, 9, &err));
	return send_one();
}

static int remove_route(const char *dst)
{
	const struct prefix p = prefix(dst);

	assert_ok(routes_delete_route(&conf, batch, &p, 9, &err));
	return send_one();
}

/* The gateway of the only route to dst, recognized as ours; "" when it is not. */
static const char *gateway_of(const char *dst)
{
	static char text[ADDR_TEXT_MAX];
	struct route r;
	struct addr gateway;

	assert_int_equal(find_route(dst, &r), 1);
	if (!routes_recognize(&conf, &r, &gateway))
		return "";
	return gateway.family == AF_UNSPEC ? "another way" : addr_format(&gateway, text);
}

static int put_foreign(const char *dst, const char *gateway, uint8_t protocol, uint32_t metric)
{
	const struct route r = {
		.dst = prefix(dst),
		.gateway = addr(gateway),
		.index = conf.index,
		.protocol = protocol,
		.metric = metric,
	};

	return request(route_put_msg(&r, NLM_F_CREATE | NLM_F_EXCL));
}

/* -- tests --------------------------------------------------------------------- */

static void test_ids(void **state)
{
	const struct addr four = addr("172.16.0.2"), six = addr("fd00::2");

	assert_int_equal(routes_nexthop_id(&conf, &four), 0xac100002);
	assert_int_equal(routes_nexthop_id(&conf, &six), 0);
	conf.nexthops = false;
	assert_int_equal(routes_nexthop_id(&conf, &four), 0);
	assert_int_equal(routes_add_nexthop(&conf, batch, &four, false, 0, &err), -EINVAL);
	assert_int_equal(netlink_batch_count(batch), 0);
}

static void test_put_and_delete(void **state)
{
	struct route r;
	struct nexthop n;

	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", false), -EINVAL); /* no nexthop yet */
	assert_int_equal(put_nexthop("172.16.0.2", false), 0);
	assert_int_equal(put_nexthop("172.16.0.2", false), -EEXIST);
	assert_int_equal(put_nexthop("172.16.0.2", true), 0);
	assert_int_equal(put_nexthop("192.0.2.1", false), -ENETUNREACH); /* not on the link */
	assert_ok(nexthop_get(nl, 0xac100002, &n, &err));
	assert_int_equal(n.protocol, PROTOCOL);
	assert_int_equal(n.index, conf.index);
	assert_int_equal(nexthop_get(nl, 0xac100003, &n, &err), -ENOENT);

	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", false), 0);
	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", false), -EEXIST);
	assert_int_equal(find_route("10.2.1.0/24", &r), 1);
	assert_int_equal(r.nexthop, 0xac100002);
	assert_int_equal(r.index, conf.index);
	assert_int_equal(r.protocol, PROTOCOL);
	assert_string_equal(gateway_of("10.2.1.0/24"), "172.16.0.2");
	assert_int_equal(remove_route("10.2.1.0/24"), 0);
	assert_int_equal(remove_route("10.2.1.0/24"), -ESRCH);
	assert_int_equal(delete_nexthop("172.16.0.2"), 0);
	assert_int_equal(delete_nexthop("172.16.0.2"), -ENOENT);
}

struct told {
	unsigned added, replaced, deleted;
};

static int tell(const struct nlmsghdr *msg, void *arg)
{
	struct told *told = arg;

	told->deleted += msg->nlmsg_type == RTM_DELROUTE;
	told->added += msg->nlmsg_type == RTM_NEWROUTE && !(msg->nlmsg_flags & NLM_F_REPLACE);
	told->replaced += msg->nlmsg_type == RTM_NEWROUTE && (msg->nlmsg_flags & NLM_F_REPLACE);
	return 0;
}

/* A next hop that changes costs no packet: there is no moment without a route. */
static void test_replaced_in_one_step(void **state)
{
	static const unsigned groups[] = { RTNLGRP_IPV4_ROUTE, RTNLGRP_NONE };
	auto_(netlink_monitor_close) struct netlink_monitor *m = NULL;
	struct told told = { .added = 0 };

	put_nexthop("172.16.0.2", false);
	put_nexthop("172.16.0.3", false);
	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", false), 0);
	assert_ok(netlink_monitor_open(&m, groups, &err));
	assert_int_equal(put("10.2.1.0/24", "172.16.0.3", true), 0);
	assert_string_equal(gateway_of("10.2.1.0/24"), "172.16.0.3");
	/* From the plain form to objects and back, as after a change of kernel. */
	conf.nexthops = false;
	assert_string_equal(gateway_of("10.2.1.0/24"), "another way");
	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", true), 0);
	assert_string_equal(gateway_of("10.2.1.0/24"), "172.16.0.2");
	conf.nexthops = true;
	assert_string_equal(gateway_of("10.2.1.0/24"), "another way");
	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", true), 0);
	assert_string_equal(gateway_of("10.2.1.0/24"), "172.16.0.2");
	assert_ok(netlink_monitor_read(m, tell, &told, &err));
	assert_int_equal(told.replaced, 3);
	assert_int_equal(told.added + told.deleted, 0);
}

static void test_foreign_is_not_overwritten(void **state)
{
	struct route before, after;

	put_nexthop("172.16.0.2", false);
	assert_ok(put_foreign("10.2.1.0/24", "172.16.0.99", RTPROT_STATIC, 0));
	find_route("10.2.1.0/24", &before);
	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", false), -EEXIST);
	assert_int_equal(remove_route("10.2.1.0/24"), -ESRCH);
	assert_int_equal(find_route("10.2.1.0/24", &after), 1);
	assert_memory_equal(&before, &after, sizeof(before));
	assert_string_equal(gateway_of("10.2.1.0/24"), "");
	/* One of another metric stands beside ours, and stays when ours goes. */
	assert_ok(put_foreign("10.2.2.0/24", "172.16.0.99", RTPROT_STATIC, 50));
	assert_int_equal(put("10.2.2.0/24", "172.16.0.2", false), 0);
	assert_int_equal(find_route("10.2.2.0/24", NULL), 2);
	assert_int_equal(remove_route("10.2.2.0/24"), 0);
	assert_int_equal(find_route("10.2.2.0/24", &after), 1);
	assert_int_equal(after.metric, 50);
	assert_int_equal(remove_route("10.2.2.0/24"), -ESRCH);
}

/* The kernel tells of none of these routes: whoever repairs must know that they went. */
static void test_nexthop_takes_its_routes(void **state)
{
	put_nexthop("172.16.0.2", false);
	put_nexthop("172.16.0.3", false);
	put("10.2.1.0/24", "172.16.0.2", false);
	put("10.2.2.0/24", "172.16.0.2", false);
	put("10.2.3.0/24", "172.16.0.3", false);
	assert_int_equal(delete_nexthop("172.16.0.2"), 0);
	assert_int_equal(find_route("10.2.1.0/24", NULL), 0);
	assert_int_equal(find_route("10.2.2.0/24", NULL), 0);
	assert_int_equal(find_route("10.2.3.0/24", NULL), 1);
	assert_int_equal(remove_route("10.2.1.0/24"), -ESRCH);
	set_down("up0");
	assert_int_equal(count_nexthops(PROTOCOL), 0);
	assert_int_equal(count_routes(AF_INET, PROTOCOL), 0);
	assert_int_equal(put_nexthop("172.16.0.2", false), -ENETDOWN);
	set_up("up0");
	assert_int_equal(put_nexthop("172.16.0.2", false), 0);
	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", false), 0);
}

/* Routes follow a nexthop that is put on another link. */
static void test_nexthop_moved(void **state)
{
	struct route r;
	unsigned first = conf.index, second;
	struct prefix address = prefix("172.16.0.1/12");

	make_veth("other0", "other1");
	set_up("other1");
	second = get_link("other0").index;
	assert_ok(address_ensure(nl, second, &address, &err));
	put_nexthop("172.16.0.2", false);
	put("10.2.1.0/24", "172.16.0.2", false);
	conf.index = second;
	assert_int_equal(put_nexthop("172.16.0.2", true), 0);
	assert_int_equal(find_route("10.2.1.0/24", &r), 1);
	assert_int_equal(r.index, second);
	assert_int_not_equal(first, second);
}

static void test_plain(void **state)
{
	struct route r;

	conf.nexthops = false;
	assert_int_equal(put("10.2.1.0/24", "172.16.0.2", false), 0);
	assert_int_equal(put("10.2.1.0/24", "172.16.0.3", false), -EEXIST);
	assert_int_equal(put("10.2.1.0/24", "172.16.0.3", true), 0);
	assert_string_equal(gateway_of("10.2.1.0/24"), "172.16.0.3");
	assert_int_equal(find_route("10.2.1.0/24", &r), 1);
	assert_int_equal(r.nexthop, 0);
	assert_int_equal(put("10.2.9.0/24", "192.0.2.1", false), -ENETUNREACH);
	assert_int_equal(remove_route("10.2.1.0/24"), 0);
	assert_int_equal(find_route("10.2.1.0/24", NULL), 0);
}

static void test_ipv6(void **state)
{
	struct prefix address = prefix("fd00::1/64");

	assert_ok(address_ensure(nl, conf.index, &address, &err));
	assert_int_equal(put("fd00:2:0:1::/64", "fd00::2", false), 0);
	assert_int_equal(put("fd00:2:0:1::/64", "fd00::2", false), -EEXIST);
	assert_int_equal(put("fd00:2:0:1::/64", "fd00::3", false), -EEXIST);
	assert_string_equal(gateway_of("fd00:2:0:1::/64"), "fd00::2");
	assert_int_equal(put("fd00:2:0:1::/64", "fd00::3", true), 0);
	assert_string_equal(gateway_of("fd00:2:0:1::/64"), "fd00::3");
	assert_ok(put_foreign("fd00:2:0:2::/64", "fd00::9", RTPROT_STATIC, 0));
	assert_int_equal(put("fd00:2:0:2::/64", "fd00::2", false), -EEXIST);
	assert_int_equal(remove_route("fd00:2:0:2::/64"), -ESRCH);
	assert_int_equal(remove_route("fd00:2:0:1::/64"), 0);
	assert_int_equal(remove_route("fd00:2:0:1::/64"), -ESRCH);
	assert_int_equal(find_route("fd00:2:0:2::/64", NULL), 1);
}

/* A gateway says nothing about the link: after the uplink has moved both have it on theirs. */
static void test_plain_is_ours_by_our_link_alone(void **state)
{
	static const char *const ways[][3] = {
		{ "172.16.0.9/12", "10.2.1.0/24", "172.16.0.2" },
		{ "fd00::1/64", "fd00:2:0:1::/64", "fd00::2" },
	};
	struct prefix address = prefix("fd00::9/64");
	struct route r;

	conf.nexthops = false;
	assert_ok(address_ensure(nl, conf.index, &address, &err));
	make_veth("other0", "other1");
	set_up("other1");
	for (size_t i = 0; i < countof(ways); i++) {
		const char *dst = ways[i][1], *gateway = ways[i][2];
		unsigned first = conf.index, second = get_link("other0").index;

		address = prefix(ways[i][0]);
		assert_ok(address_ensure(nl, second, &address, &err));
		assert_int_equal(put(dst, gateway, false), 0);
		assert_string_equal(gateway_of(dst), gateway);
		conf.index = second;
		assert_string_equal(gateway_of(dst), "another way");
		assert_int_equal(put(dst, gateway, true), 0);
		assert_string_equal(gateway_of(dst), gateway);
		assert_int_equal(find_route(dst, &r), 1);
		assert_int_equal(r.index, second);
		conf.index = first;
	}
}

static void test_recognize(void **state)
{
	const struct route ours = {
		.dst = prefix("10.2.1.0/24"),
		.gateway = addr("172.16.0.2"),
		.nexthop = 0xac100002,
		.index = conf.index,
		.protocol = PROTOCOL,
		.type = RTN_UNICAST,
	};
	const struct addr gateway = addr("172.16.0.2");
	struct route r = ours;
	struct addr found;

	assert_true(routes_recognize(&conf, &r, &found));
	assert_int_equal(addr_cmp(&found, &gateway), 0);
	r.gateway.family = AF_UNSPEC; /* nexthop_compat_mode=0 */
	assert_true(routes_recognize(&conf, &r, &found));
	assert_int_equal(addr_cmp(&found, &gateway), 0);
	r = ours;
	r.protocol = RTPROT_STATIC;
	assert_false(routes_recognize(&conf, &r, &found));
	r = ours;
	r.metric = 1;
	assert_false(routes_recognize(&conf, &r, &found));
	assert_true(routes_is_stray(&conf, &r));
	r.protocol = RTPROT_STATIC;
	assert_false(routes_is_stray(&conf, &r));
	r = ours;
	r.type = RTN_BLACKHOLE;
	assert_true(routes_recognize(&conf, &r, &found));
	assert_int_equal(found.family, AF_UNSPEC);
	assert_false(routes_is_stray(&conf, &r));
}

/* Routes for some packets alone: the kernel keeps them apart from ours, and so do we. */
static void test_routes_of_a_tos_or_a_source_stand_beside_ours(void **state)
{
	const struct prefix source = prefix("fd00:5::/64");
	struct prefix address = prefix("fd00::1/64");
	struct route foreign[] = {
		{ .dst = prefix("10.2.1.0/24"), .gateway = addr("172.16.0.99"), .tos = 0x10 },
		{ .dst = prefix("fd00:2:0:1::/64"), .gateway = addr("fd00::9"), .src = source },
	};
	static const char *const gateways[] = { "172.16.0.2", "fd00::2" };
	struct route is;
	struct addr found;

	assert_ok(address_ensure(nl, conf.index, &address, &err));
	conf.nexthops = false;
	for (size_t i = 0; i < countof(foreign); i++) {
		struct route *f = &foreign[i];
		char dst[PREFIX_TEXT_MAX];

		(void)prefix_format(&f->dst, dst);
		f->index = conf.index;
		/* Not even of our own protocol it is the one that we would make. */
		f->protocol = PROTOCOL;
		assert_ok(request(route_put_msg(f, NLM_F_CREATE | NLM_F_EXCL)));
		assert_int_equal(find_route(dst, &is), 1);
		assert_int_equal(is.tos, f->tos);
		assert_int_equal(prefix_cmp(&is.src, &f->src), 0);
		assert_true(routes_beside(&is));
		assert_false(routes_recognize(&conf, &is, &found));
		assert_int_equal(put(dst, gateways[i], false), 0);
		assert_int_equal(find_route(dst, NULL), 2);
		assert_int_equal(remove_route(dst), 0);
		assert_int_equal(find_route(dst, &is), 1);
		assert_true(routes_beside(&is));
		/* To be found as ours by its number it is removed by all that it has. */
		assert_ok(routes_remove_all(nl, &conf, &err));
		assert_int_equal(find_route(dst, NULL), 0);
	}
}

/* Behind what is there. gateway NULL: a blackhole. */
static int put_again(const char *dst, const char *gateway)
{
	struct route r = { .dst = prefix(dst), .protocol = PROTOCOL };
	struct nl_msg *msg;

	if (gateway) {
		const struct addr g = addr(gateway);

		r.nexthop = routes_nexthop_id(&conf, &g);
	}
	msg = route_put_msg(&r, NLM_F_CREATE | NLM_F_APPEND);
	assert_non_null(msg);
	if (!gateway)
		((struct rtmsg *)nlmsg_data(nlmsg_hdr(msg)))->rtm_type = RTN_BLACKHOLE;
	return request(msg);
}

static void test_strays_are_removed_alone(void **state)
{
	static const struct route_details elsewhere = { .table = 100, .scope = -1 };
	struct prefix address = prefix("fd00::1/64");
	struct route tos = {
		.dst = prefix("10.2.1.0/24"),
		.gateway = addr("172.16.0.9"),
		.index = conf.index,
		.protocol = PROTOCOL,
		.tos = 0x10,
	};
	auto_(nlmsg_free) struct nl_msg *other = route_put_msg(&tos, NLM_F_CREATE);
	unsigned count;

	assert_ok(address_ensure(nl, conf.index, &address, &err));
	put_nexthop("172.16.0.2", false);
	put("10.2.1.0/24", "172.16.0.2", false);
	put("fd00:2:0:1::/64", "fd00::2", false);
	assert_ok(put_foreign("10.2.1.0/24", "172.16.0.9", RTPROT_STATIC, 7));
	assert_ok(put_foreign("10.2.1.0/24", "172.16.0.9", PROTOCOL, 8));
	assert_ok(put_foreign("fd00:2:0:1::/64", "fd00::9", PROTOCOL, 8));
	assert_ok(put_foreign("fd00:2:0:1::/64", "fd00::9", PROTOCOL, 2000));
	assert_ok(request(route_put_msg(&tos, NLM_F_CREATE)));
	assert_int_equal(route_msg_add_details(other, &elsewhere), 0);
	assert_ok(netlink_request(nl, other, &err));
	assert_ok(routes_remove_strays(nl, &conf, &count, &err));
	assert_int_equal(count, 4);
	assert_int_equal(count_routes(AF_INET, PROTOCOL), 1);
	assert_int_equal(count_routes(AF_INET6, PROTOCOL), 1);
	assert_string_equal(gateway_of("fd00:2:0:1::/64"), "fd00::2");
	assert_int_equal(find_route("10.2.1.0/24", NULL), 2); /* ours and the foreign one */
	assert_int_equal(count_nexthops(PROTOCOL), 1);
	nlmsg_hdr(other)->nlmsg_flags |= NLM_F_EXCL;
	assert_int_equal(netlink_request(nl, other, NULL), -EEXIST); /* of the other table */
	assert_ok(routes_remove_strays(nl, &conf, &count, &err));
	assert_int_equal(count, 0);
	/* One behind another one of ours, in the same place. */
	put_nexthop("172.16.0.3", false);
	assert_ok(put_again("10.2.1.0/24", "172.16.0.3"));
	assert_ok(put_again("fd00:2:0:1::/64", NULL));
	assert_ok(routes_remove_strays(nl, &conf, &count, &err));
	assert_int_equal(count, 2);
	assert_string_equal(gateway_of("fd00:2:0:1::/64"), "fd00::2");
	assert_int_equal(count_routes(AF_INET, PROTOCOL), 1);
	/* Ours is removed, though one of a lower metric stands before it. */
	assert_ok(put_foreign("fd00:2:0:1::/64", "fd00::9", PROTOCOL, 8));
	assert_int_equal(remove_route("fd00:2:0:1::/64"), 0);
	assert_ok(routes_remove_strays(nl, &conf, &count, &err));
	assert_int_equal(count, 1);
	assert_int_equal(count_routes(AF_INET6, PROTOCOL), 0);
}

/* By two gateways, without nexthop objects. */
static struct nl_msg *by_two(const char *dst, const char *const gateways[2], unsigned flags)
{
	const struct route r = { .dst = prefix(dst), .protocol = PROTOCOL };
	struct nl_msg *msg = route_put_msg(&r, NLM_F_CREATE | flags);
	struct nlattr *list;

	assert_non_null(msg);
	((struct rtmsg *)nlmsg_data(nlmsg_hdr(msg)))->rtm_scope = RT_SCOPE_UNIVERSE;
	list = nla_nest_start(msg, RTA_MULTIPATH);
	assert_non_null(list);
	for (unsigned i = 0; i < 2; i++) {
		struct rtnexthop *hop = nlmsg_reserve(msg, sizeof(*hop), NLMSG_ALIGNTO);
		struct addr gateway = addr(gateways[i]);

		assert_non_null(hop);
		*hop = (struct rtnexthop){ .rtnh_ifindex = (int)conf.index };
		assert_int_equal(nla_put(msg, RTA_GATEWAY, (int)addr_size(&gateway), gateway.bytes),
				 0);
		hop->rtnh_len = (uint16_t)((char *)nlmsg_tail(nlmsg_hdr(msg)) - (char *)hop);
	}
	nla_nest_end(msg, list);
	return msg;
}

/* As put() makes it, but with an MTU, or with a source address. */
static struct nl_msg *with_more(const char *dst, const char *gateway, bool mtu, unsigned flags)
{
	static const struct route_details details = { .mtu = 1300, .table = -1, .scope = -1 };
	const struct addr g = addr(gateway), src = addr("172.16.0.1");
	struct route r = { .dst = prefix(dst), .protocol = PROTOCOL };
	struct nl_msg *msg;

	r.nexthop = routes_nexthop_id(&conf, &g);
	if (!r.nexthop) {
		r.gateway = g;
		r.index = conf.index;
	}
	msg = route_put_msg(&r, NLM_F_CREATE | flags);
	assert_non_null(msg);
	if (mtu)
		assert_int_equal(route_msg_add_details(msg, &details), 0);
	else
		assert_int_equal(nla_put(msg, RTA_PREFSRC, (int)addr_size(&src), src.bytes), 0);
	return msg;
}

/*
 * Several of our protocol in one place that differ in what is not in struct route: the second was
 * taken for the first told twice, and a deletion without all of it removed the first.
 */
static void test_the_second_of_two_in_one_place_is_removed_whatever_it_says(void **state)
{
	static const char *const pairs[2][2] = { { "172.16.0.4", "172.16.0.5" },
						 { "172.16.0.6", "172.16.0.7" } };
	static const char dst[] = "10.2.1.0/24";
	unsigned count;

	put_nexthop("172.16.0.2", false);
	for (int i = 0; i < 2; i++) {
		conf.nexthops = i == 0;
		assert_int_equal(put(dst, "172.16.0.2", false), 0);
		assert_ok(request(with_more(dst, "172.16.0.2", true, NLM_F_APPEND)));
		assert_ok(request(with_more(dst, "172.16.0.2", false, NLM_F_APPEND)));
		assert_ok(request(by_two(dst, pairs[0], NLM_F_APPEND)));
		assert_ok(request(by_two(dst, pairs[1], NLM_F_APPEND)));
		assert_int_equal(find_route(dst, NULL), 5);
		assert_ok(routes_remove_strays(nl, &conf, &count, &err));
		assert_int_equal(count, 4);
		assert_string_equal(gateway_of(dst), "172.16.0.2");
		/* The first of two such stays, until it is replaced. */
		assert_int_equal(remove_route(dst), 0);
		assert_ok(request(by_two(dst, pairs[0], 0)));
		assert_ok(request(by_two(dst, pairs[1], NLM_F_APPEND)));
		assert_ok(routes_remove_strays(nl, &conf, &count, &err));
		assert_int_equal(count, 1);
		assert_string_equal(gateway_of(dst), "another way");
		assert_int_equal(put(dst, "172.16.0.2", true), 0);
		assert_string_equal(gateway_of(dst), "172.16.0.2");
		assert_int_equal(remove_route(dst), 0);
	}
}

/* What somebody added to our route is not ours: it is put as it was. */
static void test_a_route_that_says_more_than_ours_is_another_one(void **state)
{
	static const char *const ways[][3] = {
		{ "10.2.1.0/24", "172.16.0.2", "172.16.0.3" },
		{ "fd00:2:0:1::/64", "fd00::2", "fd00::3" },
	};
	struct prefix address = prefix("fd00::1/64");

	assert_ok(address_ensure(nl, conf.index, &address, &err));
	put_nexthop("172.16.0.2", false);
	for (size_t i = 0; i < countof(ways); i++) {
		const char *dst = ways[i][0], *gateway = ways[i][1];

		assert_int_equal(put(dst, gateway, false), 0);
		/* By a nexthop the kernel gives the MTU to all routes of it (fib_find_info_nh). */
		conf.nexthops = false;
		assert_ok(request(with_more(dst, gateway, true, NLM_F_REPLACE)));
		assert_string_equal(gateway_of(dst), "another way");
		conf.nexthops = true;
		assert_string_equal(gateway_of(dst), "another way");
		assert_int_equal(put(dst, gateway, true), 0);
		assert_string_equal(gateway_of(dst), gateway);
		assert_ok(request(by_two(dst, &ways[i][1], NLM_F_REPLACE)));
		assert_string_equal(gateway_of(dst), "another way");
		assert_int_equal(put(dst, gateway, true), 0);
		assert_string_equal(gateway_of(dst), gateway);
	}
	assert_ok(request(with_more("10.2.1.0/24", "172.16.0.2", false, NLM_F_REPLACE)));
	assert_string_equal(gateway_of("10.2.1.0/24"), "another way");
}

/* -- many ---------------------------------------------------------------------- */

struct results {
	unsigned ok, failed;
};

static void take_many(size_t tag, int result, const char *text, void *arg)
{
	struct results *r = arg;

	r->ok += result == 0;
	r->failed += result != 0;
}

static struct results put_many(bool replace)
{
	struct results results = { .ok = 0 };

	for (uint32_t i = 0; i < MANY; i++) {
		const struct prefix p = { .addr = addr_from_ipv4(0x0a000000 + (i << 8)),
					  .len = 24 };
		const struct addr g = addr_from_ipv4(0xac100100 + i);

		assert_ok(routes_add_nexthop(&conf, batch, &g, replace, i, &err));
		assert_ok(routes_add_route(&conf, batch, &p, &g, replace, i, &err));
	}
	assert_ok(netlink_batch_send(nl, batch, take_many, &results, &err));
	return results;
}

static void test_many(void **state)
{
	assert_int_equal(put_many(false).ok, 2 * MANY);
	assert_int_equal(put_many(false).failed, 2 * MANY);
	assert_int_equal(put_many(true).ok, 2 * MANY);
	assert_int_equal(count_routes(AF_INET, PROTOCOL), MANY);
	assert_int_equal(count_nexthops(PROTOCOL), MANY);
	assert_ok(routes_remove_all(nl, &conf, &err));
	assert_int_equal(count_routes(AF_INET, PROTOCOL), 0);
	assert_int_equal(count_nexthops(PROTOCOL), 0);
}

static void test_remove_all_is_ours_alone(void **state)
{
	struct prefix address = prefix("fd00::1/64");
	const struct nexthop foreign = {
		.id = 7,
		.gateway = addr("172.16.0.99"),
		.index = conf.index,
		.protocol = RTPROT_STATIC,
	};
	const struct route by_foreign = { .dst = prefix("10.7.0.0/16"),
					  .nexthop = 7,
					  .protocol = RTPROT_STATIC };
	struct route r;

	assert_ok(address_ensure(nl, conf.index, &address, &err));
	assert_ok(request(nexthop_put_msg(&foreign, NLM_F_CREATE | NLM_F_EXCL)));
	assert_ok(request(route_put_msg(&by_foreign, NLM_F_CREATE | NLM_F_EXCL)));
	assert_ok(put_foreign("10.2.1.0/24", "172.16.0.99", RTPROT_STATIC, 0));
	assert_ok(put_foreign("10.2.2.0/24", "172.16.0.99", RTPROT_STATIC, 7));
	assert_ok(put_foreign("0.0.0.0/0", "172.16.0.98", RTPROT_DHCP, 0));
	assert_ok(put_foreign("fd00:7::/64", "fd00::9", RTPROT_STATIC, 0));
	put_nexthop("172.16.0.2", false);
	put("10.2.2.0/24", "172.16.0.2", false);
	put("10.2.3.0/24", "172.16.0.2", false);
	put("fd00:2:0:1::/64", "fd00::2", false);
	assert_ok(put_foreign("10.2.4.0/24", "172.16.0.2", PROTOCOL, 9)); /* ours by its number */
	for (int i = 0; i < 2; i++) {
		assert_ok(routes_remove_all(nl, &conf, &err));
		assert_int_equal(count_routes(AF_INET, PROTOCOL), 0);
		assert_int_equal(count_routes(AF_INET6, PROTOCOL), 0);
		assert_int_equal(count_nexthops(PROTOCOL), 0);
		assert_int_equal(count_nexthops(0), 1);
		assert_int_equal(find_route("10.7.0.0/16", NULL), 1);
		assert_int_equal(find_route("10.2.1.0/24", NULL), 1);
		assert_int_equal(find_route("10.2.2.0/24", &r), 1);
		assert_int_equal(r.metric, 7);
		assert_int_equal(find_route("fd00:7::/64", NULL), 1);
		assert_ok(route_default(nl, AF_INET, &r, &err));
	}
}

static void test_default_route(void **state)
{
	const struct addr best = addr("172.16.0.98");
	struct route r;

	assert_int_equal(route_default(nl, AF_INET, &r, &err), -ENETUNREACH);
	assert_ok(put_foreign("0.0.0.0/0", "172.16.0.99", RTPROT_DHCP, 200));
	assert_ok(put_foreign("0.0.0.0/0", "172.16.0.98", RTPROT_STATIC, 100));
	assert_ok(route_default(nl, AF_INET, &r, &err));
	assert_int_equal(addr_cmp(&r.gateway, &best), 0);
	assert_int_equal(r.index, conf.index);
	assert_int_equal(route_default(nl, AF_INET6, &r, &err), -ENETUNREACH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		routes_test(test_ids),
		routes_test(test_put_and_delete),
		routes_test(test_replaced_in_one_step),
		routes_test(test_foreign_is_not_overwritten),
		routes_test(test_nexthop_takes_its_routes),
		routes_test(test_nexthop_moved),
		routes_test(test_plain),
		routes_test(test_ipv6),
		routes_test(test_plain_is_ours_by_our_link_alone),
		routes_test(test_recognize),
		routes_test(test_routes_of_a_tos_or_a_source_stand_beside_ours),
		routes_test(test_strays_are_removed_alone),
		routes_test(test_the_second_of_two_in_one_place_is_removed_whatever_it_says),
		routes_test(test_a_route_that_says_more_than_ours_is_another_one),
		routes_test(test_many),
		routes_test(test_remove_all_is_ours_alone),
		routes_test(test_default_route),
	};

	return netns_allowed() ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}
