/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The result of ADD in the shape of each version of the specification. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cni/cni.h"
#include "cni/result.h"

DEFINE_AUTO(json_t *, json_decref)

static struct given given;
static struct link bridge = { .name = "poplin0", .mac = { 2, 0x70, 0, 0, 0, 1 }, .mtu = 1400 };
static struct link host = { .name = "pop1", .mac = { 2, 0, 0, 0, 0, 2 }, .mtu = 1400 };
static struct link pod = { .name = "eth0", .mac = { 2, 0, 0, 0, 0, 3 }, .mtu = 1400 };

static void add_address(const char *prefix, const char *gateway)
{
	struct ipam_address *a = &given.addresses[given.naddresses++];
	const char *slash = strchr(prefix, '/');
	char text[ADDR_TEXT_MAX];

	(void)snprintf(text, sizeof(text), "%.*s", (int)(slash - prefix), prefix);
	*a = (struct ipam_address){ .address.len = (uint8_t)atoi(slash + 1) };
	assert_int_equal(addr_parse(text, &a->address.addr, NULL), 0);
	if (gateway)
		assert_int_equal(addr_parse(gateway, &a->gateway, NULL), 0);
}

static void add_route(const char *dst, const char *gateway)
{
	struct netconf_route *route = &given.routes[given.nroutes++];

	*route = (struct netconf_route){ .mtu = 1300, .advmss = 1260, .table = -1, .scope = -1 };
	assert_int_equal(prefix_parse(dst, &route->dst, NULL), 0);
	if (gateway)
		assert_int_equal(addr_parse(gateway, &route->gateway, NULL), 0);
}

/* Dual stack, with a default route of each family and one by another gateway. */
static int setup(void **state)
{
	given = (struct given){ .naddresses = 0 };
	add_address("10.2.1.2/24", "10.2.1.1");
	add_address("fd00:2::2/64", "fd00:2::1");
	add_route("0.0.0.0/0", "10.2.1.1");
	add_route("10.9.0.0/16", NULL);
	add_route("::/0", "fd00:2::1");
	given.routes[0].table = 100;
	given.routes[0].scope = 0;
	given.routes[0].priority = 9;
	return 0;
}

/* What is printed, read back. */
static json_t *printed(enum cni_version version, const json_t *dns, const json_t *previous)
{
	const struct result result = {
		.version = version,
		.bridge = &bridge,
		.host = &host,
		.pod = &pod,
		.sandbox = "/run/netns/p",
		.given = &given,
		.dns = dns,
		.previous = previous,
	};
	struct err err = ERR_INIT;
	FILE *file = tmpfile();
	int saved = dup(STDOUT_FILENO), r;
	json_t *json;

	assert_non_null(file);
	(void)fflush(stdout);
	assert_true(dup2(fileno(file), STDOUT_FILENO) >= 0);
	r = result_print(&result, &err);
	assert_true(dup2(saved, STDOUT_FILENO) >= 0);
	close(saved);
	assert_int_equal(r, 0);
	rewind(file);
	json = json_loadf(file, JSON_REJECT_DUPLICATES, NULL);
	(void)fclose(file);
	assert_non_null(json);
	return json;
}

static void assert_same(const json_t *json, const char *expected)
{
	auto_(json_decref) json_t *wanted = json_loads(expected, 0, NULL);
	char *text;

	assert_non_null(wanted);
	if (json_equal(json, wanted))
		return;
	text = json_dumps(json, JSON_COMPACT);
	fail_msg("%s\nis not\n%s", text, expected);
}

#define PAIRS(version)                                                                             \
	"{\"cniVersion\":\"" version "\",\"dns\":{},\"ip4\":{\"ip\":\"10.2.1.2/24\","              \
	"\"gateway\":\"10.2.1.1\",\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.2.1.1\"},"        \
	"{\"dst\":\"10.9.0.0/16\"}]},\"ip6\":{\"ip\":\"fd00:2::2/64\",\"gateway\":\"fd00:2::1\","  \
	"\"routes\":[{\"dst\":\"::/0\",\"gw\":\"fd00:2::1\"}]}}"
#define LINKS(mtu)                                                                                 \
	"[{\"name\":\"poplin0\",\"mac\":\"02:70:00:00:00:01\"" mtu "},"                            \
	"{\"name\":\"pop1\",\"mac\":\"02:00:00:00:00:02\"" mtu "},"                                \
	"{\"name\":\"eth0\",\"mac\":\"02:00:00:00:00:03\",\"sandbox\":\"/run/netns/p\"" mtu "}]"
#define IPS(v4, v6)                                                                                \
	"[{\"interface\":2,\"address\":\"10.2.1.2/24\",\"gateway\":\"10.2.1.1\"" v4 "},"           \
	"{\"interface\":2,\"address\":\"fd00:2::2/64\",\"gateway\":\"fd00:2::1\"" v6 "}]"
#define ROUTES(all, first)                                                                         \
	"[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.2.1.1\"" all first "},"                               \
	"{\"dst\":\"10.9.0.0/16\"" all "},{\"dst\":\"::/0\",\"gw\":\"fd00:2::1\"" all "}]"
#define LISTS(version, mtu, v4, v6, all, first)                                                    \
	"{\"cniVersion\":\"" version "\",\"interfaces\":" LINKS(mtu) ",\"ips\":" IPS(              \
		v4, v6) ",\"routes\":" ROUTES(all, first) ",\"dns\":{}}"
/* From 0.3.0 to 0.4.0 alike. */
#define VERSIONED(version) LISTS(version, "", ",\"version\":\"4\"", ",\"version\":\"6\"", "", "")

static const char *const shapes[CNI_VERSIONS] = {
	[CNI_0_1_0] = PAIRS("0.1.0"),
	[CNI_0_2_0] = PAIRS("0.2.0"),
	[CNI_0_3_0] = VERSIONED("0.3.0"),
	[CNI_0_3_1] = VERSIONED("0.3.1"),
	[CNI_0_4_0] = VERSIONED("0.4.0"),
	[CNI_1_0_0] = LISTS("1.0.0", "", "", "", "", ""),
	[CNI_1_1_0] = LISTS("1.1.0", ",\"mtu\":1400", "", "", ",\"mtu\":1300,\"advmss\":1260",
			    ",\"priority\":9,\"table\":100,\"scope\":0"),
};

static void test_shapes(void **state)
{
	for (int v = 0; v < CNI_VERSIONS; v++) {
		auto_(json_decref) json_t *json = printed((enum cni_version)v, NULL, NULL);

		assert_same(json, shapes[v]);
	}
}

/* A network of layer 2 alone. */
static void test_no_address(void **state)
{
	static const char *const texts[] = {
		[CNI_0_2_0] = "{\"cniVersion\":\"0.2.0\",\"dns\":{}}",
		[CNI_1_0_0] = "{\"cniVersion\":\"1.0.0\",\"interfaces\":" LINKS("") ",\"dns\":{}}",
	};

	given = (struct given){ .naddresses = 0 };
	for (size_t v = 0; v < countof(texts); v++) {
		auto_(json_decref) json_t *json = NULL;

		if (!texts[v])
			continue;
		json = printed((enum cni_version)v, NULL, NULL);
		assert_same(json, texts[v]);
	}
}

/* The configuration's counts before that of IPAM. */
static void test_dns(void **state)
{
	auto_(json_decref) json_t *own = json_pack("{s[s]}", "nameservers", "10.2.1.9");
	auto_(json_decref) json_t *ipams = json_pack("{ss}", "domain", "a.b");
	auto_(json_decref) json_t *none = json_object();

	given.dns = ipams;
	for (int v = 0; v < CNI_VERSIONS; v++) {
		auto_(json_decref) json_t *first = printed((enum cni_version)v, own, NULL);
		auto_(json_decref) json_t *second = printed((enum cni_version)v, none, NULL);

		assert_true(json_equal(json_object_get(first, "dns"), own));
		assert_true(json_equal(json_object_get(second, "dns"), ipams));
	}
}

/* Behind another plugin: its interfaces come first, and our addresses point behind them. */
static void test_previous(void **state)
{
	auto_(json_decref) json_t *previous =
		json_pack("{s[{ss}] s[{si ss}] s[{ss}] s{ss}}", "interfaces", "name", "net1", "ips",
			  "interface", 0, "address", "10.8.0.2/24", "routes", "dst", "10.8.0.0/16",
			  "dns", "domain", "x");

	for (int v = CNI_0_3_0; v < CNI_VERSIONS; v++) {
		auto_(json_decref) json_t *json = printed((enum cni_version)v, NULL, previous);
		const json_t *ips = json_object_get(json, "ips");

		assert_int_equal(json_array_size(json_object_get(json, "interfaces")), 4);
		assert_int_equal(json_array_size(json_object_get(json, "routes")), 4);
		assert_int_equal(json_array_size(ips), 3);
		for (size_t i = 0; i < 3; i++)
			assert_int_equal(json_integer_value(json_object_get(json_array_get(ips, i),
									    "interface")),
					 i ? 3 : 0);
		assert_true(
			json_equal(json_object_get(json, "dns"), json_object_get(previous, "dns")));
	}
}

/* A runtime that does not read gets an error, and ADD undoes all. */
static void test_nobody_reads(void **state)
{
	const struct result result = {
		.version = CNI_1_0_0, .bridge = &bridge, .host = &host, .pod = &pod, .given = &given
	};
	struct err err = ERR_INIT;
	FILE *full = fopen("/dev/full", "w");
	int saved = dup(STDOUT_FILENO), r;

	assert_non_null(full);
	(void)fflush(stdout);
	assert_true(dup2(fileno(full), STDOUT_FILENO) >= 0);
	r = result_print(&result, &err);
	assert_true(dup2(saved, STDOUT_FILENO) >= 0);
	clearerr(stdout);
	close(saved);
	(void)fclose(full);
	assert_int_equal(r, -EIO);
	assert_non_null(strstr(err.text, "write the result"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_shapes, setup),
		cmocka_unit_test_setup(test_no_address, setup),
		cmocka_unit_test_setup(test_dns, setup),
		cmocka_unit_test_setup(test_previous, setup),
		cmocka_unit_test_setup(test_nobody_reads, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
