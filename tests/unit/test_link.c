/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Links and addresses, and messages that are not what they seem. */
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/nexthop.h>

#include "netns.h"
#include "poplin/base/clock.h"

static const uint8_t mac[6] = { 0x02, 0x70, 10, 2, 1, 7 };

/* A namespace of its own, seen from this one. */
static int other_netns(void)
{
	auto_close int home = netns_here();
	int fd;

	assert_int_equal(unshare(CLONE_NEWNET), 0);
	fd = netns_here();
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	return fd;
}

/* A socket there; this thread stays here. */
static struct netlink *open_in(int netns)
{
	auto_close int home = netns_here();
	struct netlink *there;

	assert_int_equal(setns(netns, CLONE_NEWNET), 0);
	assert_ok(netlink_open(&there, &err));
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	return there;
}

static int note_port(const struct nlmsghdr *msg, void *arg)
{
	struct nlattr *attrs[IFLA_MAX + 1], *info[IFLA_INFO_MAX + 1], *port[IFLA_BRPORT_MAX + 1];

	if (nlmsg_parse((struct nlmsghdr *)msg, sizeof(struct ifinfomsg), attrs, IFLA_MAX, NULL) <
		    0 ||
	    !attrs[IFLA_LINKINFO] ||
	    nla_parse_nested(info, IFLA_INFO_MAX, attrs[IFLA_LINKINFO], NULL) < 0 ||
	    !info[IFLA_INFO_SLAVE_DATA] ||
	    nla_parse_nested(port, IFLA_BRPORT_MAX, info[IFLA_INFO_SLAVE_DATA], NULL) < 0)
		return -EINVAL;
	*(struct link_port *)arg = (struct link_port){
		.hairpin = nla_get_u8(port[IFLA_BRPORT_MODE]),
		.isolated = nla_get_u8(port[IFLA_BRPORT_ISOLATED]),
	};
	return 0;
}

static struct link_port port_of(const char *name)
{
	const struct ifinfomsg body = { .ifi_index = (int)get_link(name).index };
	auto_(nlmsg_free) struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETLINK, 0);
	struct link_port port;

	assert_int_equal(nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO), 0);
	assert_ok(netlink_get(nl, msg, note_port, &port, &err));
	return port;
}

static void test_veth_into_netns(void **state)
{
	auto_close int netns = other_netns();
	auto_(netlink_close) struct netlink *there = open_in(netns);
	struct link_veth veth = {
		.host_name = "host0",
		.mtu = 1400,
		.peer_name = "eth0",
		.peer_netns = netns,
		.peer_mac = mac,
		.port = { .hairpin = true },
	};
	struct link host, peer;

	assert_ok(link_bridge_create(nl, "br0", mac, 1400, &err));
	veth.master = get_link("br0").index;
	assert_ok(link_veth_create(nl, &veth, &err));
	host = get_link("host0");
	assert_string_equal(host.kind, "veth");
	assert_int_equal(host.mtu, 1400);
	assert_int_equal(host.master, veth.master);
	assert_true(host.flags & IFF_UP);
	assert_true(port_of("host0").hairpin && !port_of("host0").isolated);
	assert_ok(link_get(there, "eth0", &peer, &err));
	assert_memory_equal(peer.mac, mac, sizeof(mac));
	assert_int_equal(peer.mtu, 1400);
	assert_int_equal(link_get(nl, "eth0", &peer, &err), -ENODEV);
	veth.host_name = "host2";
	veth.peer_name = "eth2";
	veth.port = (struct link_port){ .isolated = true };
	assert_ok(link_veth_create(nl, &veth, &err));
	assert_true(!port_of("host2").hairpin && port_of("host2").isolated);
	/* The plain form. */
	veth = (struct link_veth){ .host_name = "host1", .peer_name = "eth1", .peer_netns = netns };
	assert_ok(link_veth_create(nl, &veth, &err));
	assert_int_equal(get_link("host1").master, 0);
	assert_ok(link_get(there, "eth1", &peer, &err));
}

static void test_veth_leaves_nothing(void **state)
{
	auto_close int netns = other_netns();
	struct link_veth veth = { .host_name = "host0", .peer_name = "eth0", .peer_netns = netns };
	struct link link;

	assert_ok(link_veth_create(nl, &veth, &err));
	/* The name here, then the one there. */
	veth.peer_name = "eth1";
	assert_int_equal(link_veth_create(nl, &veth, &err), -EEXIST);
	veth.host_name = "host1";
	veth.peer_name = "eth0";
	assert_int_equal(link_veth_create(nl, &veth, &err), -EEXIST);
	assert_non_null(strstr(err.text, "host1"));
	assert_int_equal(link_get(nl, "host1", &link, NULL), -ENODEV);
	/* Not a namespace, no such bridge, names that cannot be. */
	veth.peer_name = "eth1";
	veth.peer_netns = STDIN_FILENO;
	assert_true(link_veth_create(nl, &veth, &err) < 0);
	veth.peer_netns = netns;
	veth.master = 4711;
	assert_true(link_veth_create(nl, &veth, &err) < 0);
	veth.master = 0;
	veth.host_name = "a-name-too-long-for-it";
	assert_true(link_veth_create(nl, &veth, &err) < 0);
	veth.host_name = "a/b";
	assert_int_equal(link_veth_create(nl, &veth, &err), -EINVAL);
	assert_int_equal(link_get(nl, "host1", &link, NULL), -ENODEV);
}

struct names {
	char text[256];
	unsigned count;
};

static int note_name(const struct link *link, void *arg)
{
	struct names *names = arg;

	names->count++;
	strcat(strcat(names->text, link->name), " ");
	return 0;
}

static int refuse(const struct link *link, void *arg)
{
	return -ECANCELED;
}

/* It is up long before it carries packets: when its other end is, too. */
static void test_an_end_alone_is_not_open(void **state)
{
	auto_close int here = netns_here();
	const struct link_veth veth = { .host_name = "host0",
					.peer_name = "eth0",
					.peer_netns = here };
	struct link peer;

	(void)state;
	assert_ok(link_veth_create(nl, &veth, &err));
	assert_true(get_link("host0").flags & IFF_UP);
	assert_false(get_link("host0").open);
	assert_int_equal(link_wait_open(nl, "host0", 20 * NS_PER_MS, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "host0"));
	peer = get_link("eth0");
	assert_ok(link_set(nl, peer.index, &peer, LINK_UP, &err));
	assert_ok(link_wait_open(nl, "host0", 5 * NS_PER_S, &err));
	assert_true(get_link("host0").open);
	assert_int_equal(link_wait_open(nl, "gone0", NS_PER_S, &err), -ENODEV);
}

static void test_look_up(void **state)
{
	auto_close int here = netns_here();
	struct link_veth veth = { .host_name = "port0", .peer_name = "p0", .peer_netns = here };
	struct names names = { .count = 0 };
	struct link link = { .index = 7 };

	assert_int_equal(link_get(nl, "none0", &link, &err), -ENODEV);
	assert_non_null(strstr(err.text, "none0"));
	assert_int_equal(link.index, 7); /* written on success alone */
	assert_true(link_get(nl, "a-name-too-long-for-it", &link, &err) < 0);
	assert_int_equal(link_get_index(nl, 4711, &link, &err), -ENODEV);
	assert_ok(link_bridge_create(nl, "br0", mac, 1500, &err));
	assert_int_equal(link_bridge_create(nl, "br0", mac, 1500, &err), -EEXIST);
	veth.master = get_link("br0").index;
	assert_ok(link_veth_create(nl, &veth, &err));
	make_veth("alone0", "alone1");
	assert_ok(link_foreach(nl, veth.master, note_name, &names, &err));
	assert_string_equal(names.text, "port0 ");
	names = (struct names){ .count = 0 };
	assert_ok(link_foreach(nl, 0, note_name, &names, &err));
	assert_int_equal(names.count, 6); /* with lo */
	assert_int_equal(link_foreach(nl, 0, refuse, NULL, &err), -ECANCELED);
	assert_ok(link_get_index(nl, veth.master, &link, &err));
	assert_string_equal(link.name, "br0");
	assert_ok(link_delete(nl, veth.master, &err));
	assert_int_equal(link_delete(nl, veth.master, &err), -ENODEV);
}

static void test_set(void **state)
{
	struct link want = { .mac = { 0x02, 1, 2, 3, 4, 5 }, .mtu = 1234 };
	struct link before, link;

	make_veth("a0", "a1");
	before = get_link("a0");
	assert_ok(link_set(nl, before.index, &want, LINK_MTU, &err));
	link = get_link("a0");
	assert_int_equal(link.mtu, 1234);
	assert_memory_equal(link.mac, before.mac, 6);
	assert_ok(link_set(nl, before.index, &want, LINK_MAC, &err));
	assert_memory_equal(get_link("a0").mac, want.mac, 6);
	set_down("a0");
	assert_false(get_link("a0").flags & IFF_UP);
	assert_ok(link_set(nl, before.index, &want, LINK_UP, &err));
	assert_true(get_link("a0").flags & IFF_UP);
	want.mtu = 1;
	assert_true(link_set(nl, before.index, &want, LINK_MTU, &err) < 0);
}

/* -- addresses ---------------------------------------------------------------- */

struct one_address {
	struct prefix wanted;
	struct address found;
};

static int take_wanted(const struct address *a, void *arg)
{
	struct one_address *one = arg;

	if (prefix_cmp(&a->address, &one->wanted) == 0)
		one->found = *a;
	return 0;
}

static void test_addresses(void **state)
{
	struct prefix four = prefix("10.2.1.1/24"), six = prefix("fd00:2::1/64");
	struct one_address one = { .wanted = six };
	unsigned index, count = 0;

	make_veth("a0", "a1");
	set_up("a1");
	index = get_link("a0").index;
	for (int i = 0; i < 2; i++) {
		assert_ok(address_ensure(nl, index, &four, &err));
		assert_ok(address_ensure(nl, index, &six, &err));
	}
	assert_true(has_address("a0", "10.2.1.1/24"));
	assert_true(has_address("a0", "fd00:2::1/64"));
	assert_false(has_address("a1", "10.2.1.1/24"));
	assert_ok(address_foreach(nl, index, AF_INET, count_address, &count, &err));
	assert_int_equal(count, 1);
	count = 0;
	assert_ok(address_foreach(nl, 0, AF_INET, count_address, &count, &err));
	assert_int_equal(count, 1);
	/* Nobody waits for the detection of duplicates. */
	assert_ok(address_foreach(nl, index, AF_INET6, take_wanted, &one, &err));
	assert_int_equal(one.found.index, index);
	assert_true(one.found.flags & IFA_F_NODAD);
	assert_false(one.found.flags & IFA_F_TENTATIVE);
	for (int i = 0; i < 2; i++) {
		assert_ok(address_absent(nl, index, &four, &err));
		assert_ok(address_absent(nl, index, &six, &err));
	}
	assert_false(has_address("a0", "10.2.1.1/24"));
	assert_false(has_address("a0", "fd00:2::1/64"));
	assert_int_equal(address_ensure(nl, 4711, &four, &err), -ENODEV);
	assert_non_null(strstr(err.text, "10.2.1.1/24"));
}

/* -- parsers ------------------------------------------------------------------ */

static void parse_all(const struct nlmsghdr *msg)
{
	struct address address;
	struct link link;
	struct nexthop nexthop;
	struct route route;

	if (link_parse(msg, &link) == 0)
		assert_true(strlen(link.name) < sizeof(link.name) &&
			    strlen(link.kind) < sizeof(link.kind));
	(void)address_parse(msg, &address);
	(void)route_parse(msg, &route);
	(void)nexthop_parse(msg, &nexthop);
}

/* One of each kind, as the kernel or we make them. */
static struct nl_msg *sample(unsigned kind)
{
	static const uint16_t types[] = { RTM_NEWROUTE, RTM_NEWNEXTHOP, RTM_NEWADDR, RTM_NEWLINK };
	const struct ifinfomsg body = { .ifi_index = 3 };
	const struct prefix address = prefix("10.2.1.1/24");
	const struct route r = { .dst = prefix("10.2.1.0/24"), .gateway = addr("172.16.0.2") };
	const struct nexthop n = { .id = 5, .gateway = addr("172.16.0.2"), .index = 3 };
	struct nlattr *info;
	struct nl_msg *msg;

	switch (types[kind]) {
	case RTM_NEWROUTE:
		return route_put_msg(&r, 0);
	case RTM_NEWNEXTHOP:
		return nexthop_put_msg(&n, 0);
	case RTM_NEWADDR:
		return address_add_msg(3, &address, false);
	default:
		msg = nlmsg_alloc_simple(RTM_NEWLINK, 0);
		nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO);
		nla_put_string(msg, IFLA_IFNAME, "a-link-of-15-by");
		nla_put_u32(msg, IFLA_MTU, 1500);
		nla_put_u32(msg, IFLA_MASTER, 4);
		nla_put(msg, IFLA_ADDRESS, 6, mac);
		info = nla_nest_start(msg, IFLA_LINKINFO);
		nla_put_string(msg, IFLA_INFO_KIND, "a-kind-of-15-by");
		nla_nest_end(msg, info);
		return msg;
	}
}

/* Under the sanitizers: no byte of a message makes a parser read outside of it. */
static void test_mutated(void **state)
{
	unsigned seed = 1;

	for (unsigned i = 0; i < 40000; i++) {
		auto_(nlmsg_free) struct nl_msg *msg = sample(i % 4);
		struct nlmsghdr *header = nlmsg_hdr(msg);
		size_t len = header->nlmsg_len;
		uint8_t *copy;

		if (i % 3 == 0)
			len = NLMSG_HDRLEN + (unsigned)rand_r(&seed) % (len - NLMSG_HDRLEN);
		copy = malloc(len); /* exactly as long, so that the sanitizer sees */
		assert_non_null(copy);
		memcpy(copy, header, len);
		for (unsigned n = (unsigned)rand_r(&seed) % 4; n > 0; n--) {
			size_t at =
				NLMSG_HDRLEN + (unsigned)rand_r(&seed) % (len - NLMSG_HDRLEN + 1);

			if (at < len)
				copy[at] = (uint8_t)rand_r(&seed);
		}
		((struct nlmsghdr *)copy)->nlmsg_len = (uint32_t)len;
		parse_all((struct nlmsghdr *)copy);
		free(copy);
	}
}

static void test_not_of_the_kind(void **state)
{
	struct address address;
	struct link link;
	struct nexthop nexthop;
	struct route route;

	for (unsigned kind = 0; kind < 4; kind++) {
		auto_(nlmsg_free) struct nl_msg *msg = sample(kind);
		const struct nlmsghdr *header = nlmsg_hdr(msg);

		assert_int_equal(route_parse(header, &route), kind == 0 ? 0 : -EINVAL);
		assert_int_equal(nexthop_parse(header, &nexthop), kind == 1 ? 0 : -EINVAL);
		assert_int_equal(address_parse(header, &address), kind == 2 ? 0 : -EINVAL);
		assert_int_equal(link_parse(header, &link), kind == 3 ? 0 : -EINVAL);
	}
	assert_string_equal(link.name, "a-link-of-15-by");
	assert_string_equal(link.kind, "a-kind-of-15-by");
	assert_int_equal(link.master, 4);
	assert_int_equal(nexthop.id, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		netns_test(test_veth_into_netns),
		netns_test(test_veth_leaves_nothing),
		netns_test(test_an_end_alone_is_not_open),
		netns_test(test_look_up),
		netns_test(test_set),
		netns_test(test_addresses),
		cmocka_unit_test(test_mutated),
		cmocka_unit_test(test_not_of_the_kind),
	};

	return netns_allowed() ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}
