/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Notifications: what is told, what is left out, and what an overrun must not hide. */
#include <sys/socket.h>

#include "netns.h"

static const unsigned groups[] = {
	RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_NEXTHOP, RTNLGRP_NONE,
};

static struct netlink_monitor *m;

static int setup(void **state)
{
	return netns_setup(state) == 0 ? netlink_monitor_open(&m, groups, &err) : -1;
}

static int teardown(void **state)
{
	netlink_monitor_close(m);
	return netns_teardown(state);
}

#define monitor_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

struct tally {
	unsigned links, addresses, routes, deleted, nexthops;
	uint32_t port; /* of the last */
	struct prefix dst;
	int fail;
};

static int tell(const struct nlmsghdr *msg, void *arg)
{
	struct tally *t = arg;
	struct link link;
	struct address address;
	struct route route;
	struct nexthop nexthop;

	t->port = msg->nlmsg_pid;
	t->links += link_parse(msg, &link) == 0;
	t->addresses += address_parse(msg, &address) == 0;
	t->nexthops += nexthop_parse(msg, &nexthop) == 0;
	if (route_parse(msg, &route) == 0) {
		t->routes += msg->nlmsg_type == RTM_NEWROUTE;
		t->deleted += msg->nlmsg_type == RTM_DELROUTE;
		t->dst = route.dst;
	}
	return t->fail;
}

static void forget(void)
{
	struct tally t = { .links = 0 };

	assert_ok(netlink_monitor_read(m, tell, &t, &err));
}

static struct route plain(const char *dst, unsigned index)
{
	return (struct route){ .dst = prefix(dst), .index = index, .protocol = 84 };
}

static void test_all_kinds(void **state)
{
	struct tally t = { .links = 0 };
	unsigned index = make_uplink();
	struct route r = plain("10.2.1.0/24", index);
	const struct nexthop n = {
		.id = 7, .gateway = addr("172.16.0.2"), .index = index, .protocol = 84
	};

	assert_ok(netlink_monitor_read(m, tell, &t, &err));
	assert_true(t.links >= 2);
	assert_int_equal(t.addresses, 1);
	t = (struct tally){ .links = 0 };
	assert_ok(request(route_put_msg(&r, NLM_F_CREATE | NLM_F_EXCL)));
	assert_ok(request(route_delete_msg(&r)));
	assert_ok(request(nexthop_put_msg(&n, NLM_F_CREATE | NLM_F_EXCL)));
	assert_ok(request(nexthop_delete_msg(n.id)));
	assert_ok(netlink_monitor_read(m, tell, &t, &err));
	assert_int_equal(t.routes, 1);
	assert_int_equal(t.deleted, 1);
	assert_int_equal(t.nexthops, 2);
	assert_int_equal(t.port, netlink_port(nl));
	assert_int_equal(prefix_cmp(&t.dst, &r.dst), 0);
	/* Nothing more waits. */
	t = (struct tally){ .links = 0 };
	assert_ok(netlink_monitor_read(m, tell, &t, &err));
	assert_int_equal(t.port, 0);
}

static void test_ignored_ports(void **state)
{
	struct route first, second;
	unsigned index = make_uplink();
	struct tally t = { .links = 0 };
	struct netlink *other;
	uint32_t ports[NETLINK_PORTS_MAX + 1];

	first = plain("10.2.1.0/24", index);
	second = plain("10.2.2.0/24", index);
	assert_ok(netlink_open(&other, &err));
	forget();
	/* Ours as the first, in the middle and as the last of the most there may be. */
	for (size_t at = 0; at < NETLINK_PORTS_MAX; at += (NETLINK_PORTS_MAX - 1) / 3) {
		for (size_t i = 0; i < NETLINK_PORTS_MAX; i++)
			ports[i] = 0xf0000000 + (uint32_t)i;
		ports[at] = netlink_port(nl);
		assert_ok(netlink_monitor_ignore(m, ports, NETLINK_PORTS_MAX, &err));
		t = (struct tally){ .links = 0 };
		assert_ok(request(route_put_msg(&first, NLM_F_CREATE | NLM_F_EXCL)));
		assert_ok(request(route_delete_msg(&first)));
		assert_ok(netlink_monitor_read(m, tell, &t, &err));
		assert_int_equal(t.routes + t.deleted, 0);
	}
	for (int i = 0; i < 2; i++) {
		struct nl_msg *msg = i == 0 ? route_put_msg(&second, NLM_F_CREATE | NLM_F_EXCL)
					    : route_delete_msg(&second);

		assert_ok(netlink_request(other, msg, &err));
		nlmsg_free(msg);
	}
	assert_ok(netlink_monitor_read(m, tell, &t, &err));
	assert_int_equal(t.routes, 1);
	assert_int_equal(t.deleted, 1);
	assert_int_equal(t.port, netlink_port(other));
	t = (struct tally){ .links = 0 };
	/* None again. */
	assert_ok(netlink_monitor_ignore(m, NULL, 0, &err));
	assert_ok(request(route_put_msg(&first, NLM_F_CREATE | NLM_F_EXCL)));
	assert_ok(netlink_monitor_read(m, tell, &t, &err));
	assert_int_equal(t.routes, 1);
	assert_int_equal(netlink_monitor_ignore(m, ports, NETLINK_PORTS_MAX + 1, &err), -EINVAL);
	netlink_close(other);
}

static void churn(const struct route *r, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		assert_ok(request(route_put_msg(r, NLM_F_CREATE | NLM_F_EXCL)));
		assert_ok(request(route_delete_msg(r)));
	}
}

/*
 * After an overrun the kernel drops everything until the queue is empty, and says so only once. The
 * read that reports it must leave a queue that listens again: what changes next is not lost.
 */
static void test_overrun(void **state)
{
	struct route r, last;
	unsigned index = make_uplink();
	struct tally t = { .links = 0 };
	int size = 16384;

	r = plain("10.2.1.0/24", index);
	last = plain("10.2.2.0/24", index);
	assert_int_equal(
		setsockopt(netlink_monitor_fd(m), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
	for (int round = 0; round < 3; round++) {
		forget();
		churn(&r, 200);
		t = (struct tally){ .links = 0 };
		assert_int_equal(netlink_monitor_read(m, tell, &t, &err), -ENOBUFS);
		assert_true(t.routes > 0 && t.routes < 200);

		t = (struct tally){ .links = 0 };
		assert_ok(request(route_put_msg(&last, NLM_F_CREATE | NLM_F_EXCL)));
		assert_ok(netlink_monitor_read(m, tell, &t, &err));
		assert_int_equal(t.routes, 1);
		assert_int_equal(prefix_cmp(&t.dst, &last.dst), 0);
		assert_ok(request(route_delete_msg(&last)));
	}
}

static void test_large_buffer(void **state)
{
	struct route r = plain("10.2.1.0/24", make_uplink());
	struct tally t = { .links = 0 };

	forget();
	churn(&r, 5000);
	assert_ok(netlink_monitor_read(m, tell, &t, &err));
	assert_int_equal(t.routes, 5000);
	assert_int_equal(t.deleted, 5000);
}

static int note_forwarding(const struct nlmsghdr *msg, void *arg)
{
	struct link_forwarding **next = arg, f;

	if (link_forwarding_parse(msg, &f) == 0)
		*(*next)++ = f;
	return 0;
}

/* Told of the node and of each link, of no defaults. */
static void test_forwarding(void **state)
{
	static const unsigned group[] = { RTNLGRP_IPV4_NETCONF, RTNLGRP_NONE };
	auto_(netlink_monitor_close) struct netlink_monitor *told = NULL;
	struct link_forwarding f[16], *next = f;
	auto_close int fd = -1;

	assert_ok(netlink_monitor_open(&told, group, &err));
	fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY);
	/* A new namespace takes it from the first one. */
	assert_int_equal(pwrite(fd, "0", 1, 0), 1);
	assert_ok(netlink_monitor_read(told, note_forwarding, &next, &err));
	next = f;
	assert_int_equal(pwrite(fd, "1", 1, 0), 1);
	assert_int_equal(pwrite(fd, "0", 1, 0), 1);
	assert_ok(netlink_monitor_read(told, note_forwarding, &next, &err));
	assert_int_equal(next - f, 4); /* with lo, which has the number 1 */
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(f[i].index, i % 2);
		assert_int_equal(f[i].on, i < 2);
	}
}

static void test_reader_fails(void **state)
{
	struct tally t = { .fail = -ECANCELED };

	make_uplink();
	assert_int_equal(netlink_monitor_read(m, tell, &t, &err), -ECANCELED);
}

static void test_bad_group(void **state)
{
	static const unsigned bad[] = { 100000, 0 };
	struct netlink_monitor *none = NULL;

	assert_true(netlink_monitor_open(&none, bad, &err) < 0);
	assert_null(none);
	assert_non_null(strstr(err.text, "100000"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		monitor_test(test_all_kinds),  monitor_test(test_ignored_ports),
		monitor_test(test_overrun),    monitor_test(test_large_buffer),
		monitor_test(test_forwarding), monitor_test(test_reader_fails),
		monitor_test(test_bad_group),
	};

	return netns_allowed() ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}
