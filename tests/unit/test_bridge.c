/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bridge: made, left alone, repaired, adopted, removed. */
#include <sys/mount.h>

#include "netns.h"
#include "poplin/base/buf.h"
#include "poplin/base/file.h"
#include "poplin/dataplane/bridge.h"
#include "poplin/model/pod.h"

#define FORWARD "/proc/sys/net/ipv4/ip_forward"

static struct bridge conf(void)
{
	return (struct bridge){
		.name = "pb0",
		.subnet = prefix("10.2.1.0/24"),
		.pods = prefix("10.2.0.0/16"),
		.mtu = 1420,
	};
}

static const struct network pods_of_all = {
	.pods = { .addr = { .family = AF_INET, .bytes = { 10, 2 } }, .len = 16 },
	.node_len = 24,
};

static bool ensure(void)
{
	const struct bridge b = conf();
	bool changed = false;
	int index = bridge_ensure(nl, &b, &changed, &err);

	assert_ok(index);
	assert_int_equal(index, get_link("pb0").index);
	return changed;
}

static char forwarding(void)
{
	auto_buf struct buf text = BUF_INIT;

	assert_ok(file_read(FORWARD, 16, &text, &err));
	return text.data[0];
}

static void set_forwarding(const char *value)
{
	auto_close int fd = open(FORWARD, O_WRONLY);

	assert_int_equal(write(fd, value, 1), 1);
}

static void assert_right(void)
{
	static const uint8_t mac[] = { 0x02, 0x70, 10, 2, 1, 0 };
	struct link link = get_link("pb0");

	assert_string_equal(link.kind, "bridge");
	assert_memory_equal(link.mac, mac, sizeof(mac));
	assert_int_equal(link.mtu, 1420);
	assert_true(link.flags & IFF_UP);
	assert_true(has_address("pb0", "10.2.1.1/24"));
	assert_int_equal(forwarding(), '1');
}

static void add_address(const char *link, const char *text)
{
	struct prefix address = prefix(text);

	assert_ok(address_ensure(nl, get_link(link).index, &address, &err));
}

static void remove_address(const char *link, const char *text)
{
	struct prefix address = prefix(text);

	assert_ok(address_absent(nl, get_link(link).index, &address, &err));
}

static void test_mac(void **state)
{
	static const uint8_t four[] = { 0x02, 0x70, 10, 2, 1, 128 };
	const struct prefix six[] = { prefix("fd00:0:1234:5678::/64"),
				      prefix("fd01:0:1234:5678::/64"),
				      prefix("fd00:0:1234:5679::/64") };
	struct prefix p = prefix("10.2.1.128/25");
	uint8_t mac[6], other[6];

	bridge_mac(&p, mac);
	assert_memory_equal(mac, four, sizeof(mac));
	/* All of a subnet counts. */
	for (size_t i = 0; i < countof(six); i++) {
		bridge_mac(&six[i], mac);
		assert_memory_equal(mac, four, 2);
		for (size_t j = 0; j < i; j++) {
			bridge_mac(&six[j], other);
			assert_memory_not_equal(mac, other, sizeof(mac));
		}
	}
}

static void test_made_once(void **state)
{
	set_forwarding("0");
	assert_true(ensure());
	assert_right();
	for (int i = 0; i < 3; i++)
		assert_false(ensure());
	assert_right();
}

static void test_repaired(void **state)
{
	struct link want = { .mac = { 0x02, 1, 2, 3, 4, 5 }, .mtu = 1300 };

	ensure();
	assert_ok(link_set(nl, get_link("pb0").index, &want, LINK_MAC, &err));
	assert_true(ensure());
	assert_right();
	assert_ok(link_set(nl, get_link("pb0").index, &want, LINK_MTU, &err));
	assert_true(ensure());
	assert_right();
	set_down("pb0");
	assert_true(ensure());
	assert_right();
	remove_address("pb0", "10.2.1.1/24");
	assert_true(ensure());
	assert_right();
	set_forwarding("0");
	assert_true(ensure());
	assert_right();
	assert_ok(link_delete(nl, get_link("pb0").index, &err));
	assert_true(ensure());
	assert_right();
	assert_false(ensure());
}

/* A node whose new links do not forward, though it does. */
static void test_forwarding_of_the_bridge(void **state)
{
	bool changed;

	set_forwarding("1");
	assert_ok(sysctl_ensure("net/ipv4/conf/default/forwarding", "0", &changed, &err));
	assert_true(ensure());
	changed = false;
	assert_ok(sysctl_ensure("net/ipv4/conf/pb0/forwarding", "1", &changed, &err));
	assert_false(changed);
	assert_ok(sysctl_ensure("net/ipv4/conf/pb0/forwarding", "0", &changed, &err));
	assert_true(ensure());
	assert_false(ensure());
}

/* Packets of other nodes' pods come in by it. */
static void test_forwarding_of_the_uplink(void **state)
{
	static const char *const own[] = { "net/ipv4/conf/up0/forwarding",
					   "net/ipv6/conf/up0/forwarding" };
	static const char *const subnets[] = { "10.2.1.0/24", "fd00:2::/64" };
	static const char *const pods[] = { "10.2.0.0/16", "fd00:2::/48" };
	struct bridge b = conf();
	bool changed;

	make_veth("up0", "up1");
	b.uplink = "up0";
	for (unsigned i = 0; i < 2; i++) {
		b.subnet = prefix(subnets[i]);
		b.pods = prefix(pods[i]);
		assert_ok(bridge_ensure(nl, &b, &changed, &err));
		assert_ok(sysctl_ensure(own[i], "0", &changed, &err));
		changed = false;
		assert_ok(bridge_ensure(nl, &b, &changed, &err));
		assert_true(changed);
		changed = false;
		assert_ok(sysctl_ensure(own[i], "1", &changed, &err));
		assert_false(changed);
		assert_ok(bridge_ensure(nl, &b, &changed, &err));
		assert_false(changed);
	}
}

/* Pods of a subnet that was lost keep their gateway, and the MAC that they know it by. */
static void test_kept_subnets(void **state)
{
	const struct prefix kept[] = { prefix("10.2.1.0/24"), prefix("10.2.9.0/24") };
	static const uint8_t mac[] = { 0x02, 0x70, 10, 2, 1, 0 };
	struct bridge b = conf();
	bool changed = false, own = false;

	assert_true(ensure());
	b.subnet = prefix("10.2.7.0/24");
	b.kept = kept;
	b.nkept = 2;
	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_true(changed);
	changed = false;
	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_false(changed);
	assert_true(has_address("pb0", "10.2.7.1/24"));
	assert_true(has_address("pb0", "10.2.1.1/24"));
	assert_true(has_address("pb0", "10.2.9.1/24"));
	assert_memory_equal(get_link("pb0").mac, mac, sizeof(mac));
	assert_ok(sysctl_ensure("net/ipv4/conf/pb0/send_redirects", "0", &own, &err));
	assert_false(own);
	remove_address("pb0", "10.2.9.1/24");
	b.nkept = 1;
	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_false(changed);
	b.nkept = 0;
	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_true(changed);
	assert_true(has_address("pb0", "10.2.7.1/24"));
	assert_false(has_address("pb0", "10.2.1.1/24"));
	assert_memory_equal(get_link("pb0").mac, mac, sizeof(mac));
}

static void test_name_taken(void **state)
{
	const struct bridge b = conf();
	struct link before, after;
	bool changed = false;

	make_veth("pb0", "pb1");
	before = get_link("pb0");
	assert_int_equal(bridge_ensure(nl, &b, &changed, &err), -EEXIST);
	assert_non_null(strstr(err.text, "pb0"));
	assert_false(changed);
	after = get_link("pb0");
	assert_memory_equal(&before, &after, sizeof(before));
	assert_int_equal(bridge_remove(nl, "net", &pods_of_all, "pb0", &err), -EEXIST);
	assert_int_equal(get_link("pb0").index, before.index);
}

/* The Python agent gave the bridge the network address; its subnet may have been another, too. */
static void test_adopted(void **state)
{
	static const uint8_t mac[] = { 0x02, 9, 9, 9, 9, 9 };
	struct link port;

	assert_ok(link_bridge_create(nl, "pb0", mac, 1500, &err));
	add_address("pb0", "10.2.1.0/24");
	add_address("pb0", "10.2.77.1/24");
	add_address("pb0", "10.2.1.1/16"); /* the right address, the wrong length */
	add_address("pb0", "192.168.77.1/24");
	make_veth("port0", "port1");
	port = get_link("port0");
	assert_true(ensure());
	assert_right();
	assert_false(has_address("pb0", "10.2.1.0/24"));
	assert_false(has_address("pb0", "10.2.77.1/24"));
	assert_false(has_address("pb0", "10.2.1.1/16"));
	assert_true(has_address("pb0", "192.168.77.1/24"));
	assert_false(ensure());
	assert_int_equal(get_link("port0").index, port.index);

	/* The gateway stands already, as the second address of its subnet. */
	remove_address("pb0", "10.2.1.1/24");
	add_address("pb0", "10.2.1.9/24");
	add_address("pb0", "10.2.1.1/24");
	assert_true(ensure());
	assert_right();
	assert_false(has_address("pb0", "10.2.1.9/24"));
	assert_false(ensure());
}

static void enslave_of(const char *network, const char *name, const char *peer, unsigned mtu)
{
	auto_close int here = netns_here();
	const struct link_veth veth = {
		.host_name = name,
		.peer_name = peer,
		.peer_netns = here,
		.mtu = mtu,
		.master = get_link("pb0").index,
		.host_group = pod_link_group(network),
	};

	assert_ok(link_veth_create(nl, &veth, &err));
}

static void enslave(const char *name, const char *peer, unsigned mtu)
{
	enslave_of("net", name, peer, mtu);
}

/* Neither the lowest MAC nor the smallest MTU of a port becomes the bridge's. */
static void test_ports_change_nothing(void **state)
{
	struct link low = { .mac = { 0x02, 0, 0, 0, 0, 1 } };

	ensure();
	enslave("port0", "port1", 1280);
	assert_ok(link_set(nl, get_link("port0").index, &low, LINK_MAC, &err));
	enslave("port2", "port3", 1400);
	assert_right();
	assert_ok(link_delete(nl, get_link("port0").index, &err));
	assert_right();
	assert_false(ensure());
}

/* A container sees /proc/sys read-only. */
static void test_sysctl_read_only(void **state)
{
	auto_close int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	const struct bridge b = conf();
	bool changed = false;

	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL), 0);
	set_forwarding("1");
	assert_int_equal(mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
	assert_true(ensure());
	assert_right();
	assert_int_equal(umount2("/proc/sys", MNT_DETACH), 0);
	set_forwarding("0");
	assert_int_equal(mount("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL), 0);
	assert_int_equal(mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
	assert_int_equal(bridge_ensure(nl, &b, &changed, &err), -EROFS);
	assert_non_null(strstr(err.text, "net/ipv4/ip_forward"));
	assert_int_equal(umount2("/proc/sys", MNT_DETACH), 0);
	assert_int_equal(setns(home, CLONE_NEWNS), 0);
}

static void test_sysctl_unknown(void **state)
{
	bool changed = false;

	assert_int_equal(sysctl_ensure("net/ipv4/no_such_thing", "1", &changed, &err), -ENOENT);
	assert_false(changed);
}

static size_t adopt(void)
{
	size_t count = 99;

	assert_ok(bridge_adopt_pods(nl, "net", get_link("pb0").index, &count, &err));
	return count;
}

static void test_pods_of_a_deleted_bridge_are_ports_again(void **state)
{
	static const char *const pods[] = { POD_LINK_PREFIX "0123456789ab",
					    POD_LINK_PREFIX "0123456789cd" };

	ensure();
	enslave(pods[0], "eth0", 0);
	enslave(pods[1], "eth1", 0);
	enslave("foreign0", "foreign1", 0);
	/* A second network on the node, with another bridge. */
	enslave_of("other", POD_LINK_PREFIX "0123456789ef", "eth2", 0);
	assert_int_equal(adopt(), 0);
	assert_ok(link_delete(nl, get_link("pb0").index, &err));
	assert_int_equal(get_link(pods[0]).master, 0);
	ensure();
	assert_int_equal(adopt(), 2);
	for (size_t i = 0; i < countof(pods); i++)
		assert_int_equal(get_link(pods[i]).master, get_link("pb0").index);
	assert_int_equal(get_link("foreign0").master, 0);
	assert_int_equal(get_link(POD_LINK_PREFIX "0123456789ef").master, 0);
	assert_int_equal(adopt(), 0);
	/* Nor does it go with this network's. */
	assert_ok(bridge_remove(nl, "net", &pods_of_all, "pb0", &err));
	assert_int_equal(get_link(POD_LINK_PREFIX "0123456789ef").master, 0);
	ensure();
	assert_right();
}

static void test_removed(void **state)
{
	struct link link;

	assert_ok(bridge_remove(nl, "net", &pods_of_all, "pb0", &err)); /* there is none */
	ensure();
	enslave(POD_LINK_PREFIX "0123456789ab", "eth0", 0);
	enslave(POD_LINK_PREFIX "0123456789cd", "eth1", 0);
	enslave("foreign0", "foreign1", 0);
	assert_ok(bridge_remove(nl, "net", &pods_of_all, "pb0", &err));
	assert_int_equal(link_get(nl, "pb0", &link, NULL), -ENODEV);
	assert_int_equal(link_get(nl, "eth0", &link, NULL), -ENODEV);
	assert_int_equal(link_get(nl, "eth1", &link, NULL), -ENODEV);
	assert_int_equal(get_link("foreign0").master, 0);
	assert_ok(bridge_remove(nl, "net", &pods_of_all, "pb0", &err));
}

static unsigned take_over(const char *name)
{
	unsigned count = 99;

	assert_ok(bridge_take_over(nl, &pods_of_all, name, &count, &err));
	return count;
}

/* Bridges whose MAC is near to ours: of another network, of the plugin alone, of anybody. */
static void make_foreign_bridges(void)
{
	static const struct {
		const char *name;
		uint8_t mac[6];
	} bridges[] = {
		{ "far0", { 0x02, 0x70, 10, 3, 1, 0 } },
		{ "cni0", { 0x02, 0x70, 10, 2, 1, 1 } },
		{ "br0", { 0x02, 0x71, 10, 2, 1, 0 } },
	};

	for (size_t i = 0; i < countof(bridges); i++)
		assert_ok(link_bridge_create(nl, bridges[i].name, bridges[i].mac, 0, &err));
}

static void test_a_bridge_of_ours_by_another_name_is_taken_over(void **state)
{
	static const uint8_t mac[] = { 0x02, 0x70, 10, 2, 9, 0 };
	const char *const pod = POD_LINK_PREFIX "0123456789ab";
	struct link link;
	unsigned index;

	make_foreign_bridges();
	assert_int_equal(take_over("pb1"), 0);
	ensure();
	enslave(pod, "eth0", 0);
	index = get_link("pb0").index;
	assert_int_equal(take_over("pb0"), 0);
	assert_int_equal(take_over("pb1"), 1);
	assert_int_equal(link_get(nl, "pb0", &link, NULL), -ENODEV);
	assert_int_equal(get_link("pb1").index, index);
	assert_true(get_link("pb1").flags & IFF_UP);
	assert_true(has_address("pb1", "10.2.1.1/24"));
	assert_int_equal(get_link(pod).master, index);
	/* Both are there: pods go to the one that has the name. */
	assert_ok(link_bridge_create(nl, "pb0", mac, 0, &err));
	assert_int_equal(take_over("pb0"), 1);
	assert_int_equal(link_get(nl, "pb1", &link, NULL), -ENODEV);
	assert_int_equal(adopt(), 1);
	assert_int_equal(get_link(pod).master, get_link("pb0").index);
	/* What has the name is no bridge. */
	make_veth("pb2", "pb3");
	assert_int_equal(take_over("pb2"), 0); /* counted, it was told as done, again and again */
	assert_string_equal(get_link("pb2").kind, "veth");
	assert_int_equal(get_link(pod).master, get_link("pb0").index);
	assert_string_equal(get_link("far0").kind, "bridge");
	assert_string_equal(get_link("cni0").kind, "bridge");
	assert_string_equal(get_link("br0").kind, "bridge");
}

static void test_a_bridge_of_ipv6_is_taken_over(void **state)
{
	struct bridge b = {
		.name = "pb0",
		.subnet = prefix("fd00:2:0:1::/64"),
		.pods = prefix("fd00:2::/48"),
		.mtu = 1500,
	};
	const struct network of_ipv6 = { .pods = b.pods, .node_len = b.subnet.len };
	bool changed = false;
	unsigned count;

	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_int_equal(take_over("pb1"), 0); /* it is none of the IPv4 network */
	b.name = "pb1";
	assert_ok(bridge_take_over(nl, &of_ipv6, b.name, &count, &err));
	assert_int_equal(count, 1);
	/* Links that are down have no addresses of IPv6. */
	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_true(has_address("pb1", "fd00:2:0:1::1/64"));
	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_false(changed);
}

/* Networks of agents that the plugin's bridges, and those of another network, must be none of. */
static void test_a_bridge_of_the_plugin_alone_is_nobodys(void **state)
{
	static const char *const gateways[] = { "fd00:10::1", "fd00:10:0:1::", "10.2.1.0",
						"10.2.1.1" };
	static const uint8_t before[] = {
		0x02, 0x70, 0, 0, 0, 1
	}; /* by older plugins, of any ::1 */
	const struct network of_ipv6 = { .pods = prefix("fd00:10::/48"), .node_len = 64 };
	struct bridge far = {
		.name = "far0",
		.subnet = prefix("fd00:11:0:1::/64"),
		.pods = prefix("fd00:11::/48"),
		.mtu = 1500,
	};
	bool changed;
	unsigned count;

	assert_ok(link_bridge_create(nl, "old0", before, 0, &err));
	assert_ok(bridge_ensure(nl, &far, &changed, &err));
	for (size_t i = 0; i < countof(gateways); i++) {
		struct addr gateway = addr(gateways[i]);
		char name[16];
		uint8_t mac[6];

		(void)snprintf(name, sizeof(name), "cni%zu", i);
		pod_gateway_mac(&gateway, mac);
		assert_ok(link_bridge_create(nl, name, mac, 0, &err));
	}
	assert_int_equal(take_over("pb0"), 0);
	assert_ok(bridge_take_over(nl, &of_ipv6, "pb0", &count, &err));
	assert_int_equal(count, 0);
	assert_ok(bridge_remove(nl, "net", &of_ipv6, "pb0", &err));
	assert_string_equal(get_link("old0").kind, "bridge");
	assert_string_equal(get_link("far0").kind, "bridge");
	assert_string_equal(get_link("cni0").kind, "bridge");
	assert_string_equal(get_link("cni3").kind, "bridge");
}

static void test_bridges_of_ours_are_removed_whatever_their_name(void **state)
{
	struct link link;

	make_foreign_bridges();
	ensure();
	enslave(POD_LINK_PREFIX "0123456789ab", "eth0", 0);
	assert_ok(bridge_remove(nl, "net", &pods_of_all, "pb1", &err));
	assert_int_equal(link_get(nl, "pb0", &link, NULL), -ENODEV);
	assert_int_equal(link_get(nl, "eth0", &link, NULL), -ENODEV);
	assert_string_equal(get_link("far0").kind, "bridge");
	assert_string_equal(get_link("cni0").kind, "bridge");
	assert_string_equal(get_link("br0").kind, "bridge");
}

static void test_ipv6(void **state)
{
	const struct bridge b = {
		.name = "pb0",
		.subnet = prefix("fd00:2:0:1::/64"),
		.pods = prefix("fd00:2::/48"),
		.mtu = 1500,
	};
	bool changed = false;

	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_true(changed);
	assert_true(has_address("pb0", "fd00:2:0:1::1/64"));
	add_address("pb0", "fd00:2:0:9::1/64");
	add_address("pb0", "fd00:3::1/64");
	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_true(changed);
	assert_true(has_address("pb0", "fd00:2:0:1::1/64"));
	assert_false(has_address("pb0", "fd00:2:0:9::1/64"));
	assert_true(has_address("pb0", "fd00:3::1/64"));
	assert_ok(bridge_ensure(nl, &b, &changed, &err));
	assert_false(changed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mac),
		netns_test(test_made_once),
		netns_test(test_repaired),
		netns_test(test_forwarding_of_the_bridge),
		netns_test(test_forwarding_of_the_uplink),
		netns_test(test_kept_subnets),
		netns_test(test_name_taken),
		netns_test(test_adopted),
		netns_test(test_ports_change_nothing),
		netns_test(test_sysctl_read_only),
		netns_test(test_sysctl_unknown),
		netns_test(test_pods_of_a_deleted_bridge_are_ports_again),
		netns_test(test_removed),
		netns_test(test_a_bridge_of_ours_by_another_name_is_taken_over),
		netns_test(test_a_bridge_of_ipv6_is_taken_over),
		netns_test(test_a_bridge_of_the_plugin_alone_is_nobodys),
		netns_test(test_bridges_of_ours_are_removed_whatever_their_name),
		netns_test(test_ipv6),
	};

	return netns_allowed() ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}
