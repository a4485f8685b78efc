/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which routes are ours, and as we would make them; those of our protocol that are not. */
#include "routes_uplink.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		routes_test(test_plain_is_ours_by_our_link_alone),
		routes_test(test_recognize),
		routes_test(test_routes_of_a_tos_or_a_source_stand_beside_ours),
		routes_test(test_strays_are_removed_alone),
		routes_test(test_the_second_of_two_in_one_place_is_removed_whatever_it_says),
		routes_test(test_a_route_that_says_more_than_ours_is_another_one),
	};

	return netns_allowed() ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}
