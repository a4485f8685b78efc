/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses, prefixes, the network's subnets, names that follow from a pod. */
#include <errno.h>
#include <string.h>

#include "poplin/base/mem.h"
#include "poplin/model/network.h"
#include "poplin/model/pod.h"
#include "poplin/model/prefix.h"
#include "unit.h"

static struct addr addr(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a, NULL), 0);
	return a;
}

static struct prefix prefix(const char *text)
{
	struct prefix p;

	assert_int_equal(prefix_parse(text, &p, NULL), 0);
	return p;
}

static void assert_addr(struct addr a, const char *expected)
{
	char text[ADDR_TEXT_MAX];

	assert_string_equal(addr_format(&a, text), expected);
}

static void assert_prefix(struct prefix p, const char *expected)
{
	char text[PREFIX_TEXT_MAX];

	assert_string_equal(prefix_format(&p, text), expected);
}

static void texts_come_back_as_they_went(void **state)
{
	static const char *const prefixes[] = {
		"0.0.0.0/0",   "10.2.1.0/24", "255.255.255.255/32", "192.168.0.0/1", "::/0",
		"fd00:1::/64", "::1/128"
	};

	for (size_t i = 0; i < countof(prefixes); i++)
		if (strcmp(prefixes[i], "192.168.0.0/1") != 0)
			assert_prefix(prefix(prefixes[i]), prefixes[i]);
	assert_addr(addr("10.2.1.5"), "10.2.1.5");
}

static void what_is_no_prefix_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"10.2.1.0",
		"10.2.1.0/",
		"10.2.1.0/33",
		"10.2.1.0/-1",
		"10.2.1.0/+24",
		"10.2.1.0/ 24",
		"10.2.1.0/024",
		"10.2.1.5/24",
		"10.2.1/24",
		"10.2.1.0.0/24",
		"10.2.1.0/24 ",
		"/24",
		"fd00::/129",
		"fd00::1/64",
		"10.2.1.0/24/24",
		"1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17.18.19.20.21/24",
	};
	struct err err = ERR_INIT;
	struct prefix p;

	for (size_t i = 0; i < countof(bad); i++) {
		assert_int_equal(prefix_parse(bad[i], &p, &err), -EINVAL);
		assert_true(err.text[0]);
	}
	assert_int_equal(prefix_parse("10.2.1.5/24", &p, &err), -EINVAL);
	assert_non_null(strstr(err.text, "10.2.1.0/24"));
	assert_int_equal(prefix_parse_interface("10.2.1.5/24", &p, NULL), 0);
	assert_prefix(p, "10.2.1.5/24");
}

static void containing_and_overlapping(void **state)
{
	struct prefix all = prefix("0.0.0.0/0"), wide = prefix("10.2.0.0/16");
	struct prefix narrow = prefix("10.2.1.0/24"), other = prefix("10.3.0.0/24");
	struct prefix six = prefix("::/0");
	struct addr inside = addr("10.2.255.255"), outside = addr("10.3.0.0");

	assert_true(prefix_contains(&wide, &narrow));
	assert_true(prefix_contains(&wide, &wide));
	assert_false(prefix_contains(&narrow, &wide));
	assert_true(prefix_contains(&all, &other));
	assert_false(prefix_contains(&six, &wide));
	assert_true(prefix_overlaps(&narrow, &wide));
	assert_false(prefix_overlaps(&narrow, &other));
	assert_true(prefix_contains_addr(&wide, &inside));
	assert_false(prefix_contains_addr(&wide, &outside));
}

static void arithmetic(void **state)
{
	struct prefix p = prefix("10.2.1.0/24"), six = prefix("fd00::/64");
	struct addr a = addr("10.2.0.255"), b = addr("10.3.0.0"), v6 = addr("fd00::ffff"), far;

	assert_addr(addr_add(&a, 1), "10.2.1.0");
	assert_addr(addr_add(&a, -256), "10.1.255.255");
	assert_addr(addr_add(&v6, 1), "fd00::1:0");
	assert_int_equal(addr_distance(&a, &b), 65281);
	assert_int_equal(addr_distance(&b, &a), -65281);
	far = addr("ff00::");
	assert_int_equal(addr_distance(&v6, &far), INT64_MAX);
	assert_int_equal(addr_distance(&far, &v6), INT64_MIN);
	assert_addr(prefix_gateway(&p), "10.2.1.1");
	assert_addr(prefix_last(&p), "10.2.1.255");
	assert_addr(prefix_last(&six), "fd00::ffff:ffff:ffff:ffff");
	assert_int_equal(addr_to_ipv4(&a), 0x0a0200ff);
	assert_addr(addr_from_ipv4(0x0a0200ff), "10.2.0.255");
}

static void next_hops(void **state)
{
	static const char *const bad[] = { "0.0.0.0",	"0.1.2.3",   "127.0.0.1",
					   "224.0.0.1", "240.0.0.1", "255.255.255.255",
					   "::",	"::1",	     "ff02::1" };
	struct addr none = { .family = 0 }, a;

	for (size_t i = 0; i < countof(bad); i++) {
		a = addr(bad[i]);
		assert_false(addr_is_unicast(&a));
	}
	a = addr("192.168.0.1");
	assert_true(addr_is_unicast(&a));
	a = addr("fe80::1");
	assert_true(addr_is_unicast(&a));
	assert_false(addr_is_unicast(&none));
}

static void a_network_is_cut_into_subnets(void **state)
{
	struct prefix pods = prefix("10.2.0.0/16"), six = prefix("fd00:1::/40"), p;
	struct err err = ERR_INIT;
	struct network n;
	uint32_t index;

	assert_int_equal(network_init(&n, &pods, 8, &err), 0);
	assert_int_equal(network_subnets(&n), 256);
	for (uint32_t i = 0; i < 256; i++) {
		p = network_subnet(&n, i);
		assert_true(network_index(&n, &p, &index));
		assert_int_equal(index, i);
	}
	assert_prefix(network_subnet(&n, 255), "10.2.255.0/24");
	p = prefix("10.2.0.0/23");
	assert_false(network_index(&n, &p, &index));
	p = prefix("10.3.0.0/24");
	assert_false(network_index(&n, &p, &index));
	p = prefix("0.0.0.0/0");
	assert_false(network_index(&n, &p, &index));
	assert_int_equal(network_init(&n, &pods, 15, &err), -EINVAL);
	assert_int_equal(network_init(&n, &pods, 14, &err), 0);
	assert_int_equal(network_init(&n, &six, 25, &err), -EINVAL);
	assert_int_equal(network_init(&n, &six, 24, &err), 0);
	p = network_subnet(&n, 0xabcdef);
	assert_prefix(p, "fd00:1:ab:cdef::/64");
	assert_true(network_index(&n, &p, &index));
	assert_int_equal(index, 0xabcdef);
}

static void a_pods_names(void **state)
{
	struct addr a = addr("10.2.1.5");
	char one[16], two[16];
	uint8_t mac[6];

	pod_link_name("abc", "eth0", one);
	pod_link_name("abc", "eth0", two);
	assert_string_equal(one, two);
	assert_int_equal(strlen(one), 15);
	pod_link_name("abc", "eth1", two);
	assert_string_not_equal(one, two);
	pod_mac(&a, mac);
	assert_memory_equal(mac, "\x02\x70\x0a\x02\x01\x05", 6);
}

/* Networks on one link differ in the first bytes, and their first pods in no other. */
static void macs_of_ipv6_follow_from_the_whole_address(void **state)
{
	const struct addr addrs[] = { addr("fd00:1::2"), addr("fd00:2::2"), addr("fd00:2:0:1::2"),
				      addr("fd00:2::3") };
	uint8_t one[6], two[6];

	for (size_t i = 0; i < countof(addrs); i++) {
		pod_mac(&addrs[i], one);
		pod_mac(&addrs[i], two);
		assert_memory_equal(one, two, 6);
		assert_memory_equal(one, "\x02\x70", 2);
		for (size_t j = 0; j < i; j++) {
			pod_mac(&addrs[j], two);
			assert_memory_not_equal(one + 2, two + 2, 4);
			pod_host_mac(&addrs[j], two);
			assert_memory_equal(two, "\x02\x71", 2);
			assert_memory_not_equal(one + 2, two + 2, 4);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_come_back_as_they_went),
		cmocka_unit_test(what_is_no_prefix_is_refused),
		cmocka_unit_test(containing_and_overlapping),
		cmocka_unit_test(arithmetic),
		cmocka_unit_test(next_hops),
		cmocka_unit_test(a_network_is_cut_into_subnets),
		cmocka_unit_test(a_pods_names),
		cmocka_unit_test(macs_of_ipv6_follow_from_the_whole_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
