/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Routes by nexthop objects and without: put, replaced, removed, and nobody else's touched. */
#include "routes_uplink.h"

#define MANY 5000

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
		routes_test(test_many),
		routes_test(test_remove_all_is_ours_alone),
		routes_test(test_default_route),
	};

	return netns_allowed() ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}
