/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The JSON of /status and its lists. */
#include "unit.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "agent/status_json.h"
#include "poplin/base/clock.h"
#include "poplin/base/mem.h"

static struct prefix prefix(const char *text)
{
	struct prefix p;

	assert_int_equal(prefix_parse(text, &p, NULL), 0);
	return p;
}

static struct addr addr(const char *text)
{
	struct addr a = { .family = AF_UNSPEC };

	if (text)
		assert_int_equal(addr_parse(text, &a, NULL), 0);
	return a;
}

static json_t *parse(const struct buf *b)
{
	json_error_t why;
	json_t *root = json_loadb(b->data, b->len, JSON_REJECT_DUPLICATES, &why);

	if (!root)
		fail_msg("%s in: %s", why.text, b->data);
	for (size_t i = 0; i < b->len; i++)
		assert_true((b->data[i] >= ' ' && b->data[i] <= '~') || b->data[i] == '\n');
	return root;
}

static const struct status_counts counts = {
	.peers = 3,
	.rejected = 1,
	.conflicts = 2,
	.desired = { 3, 1 },
	.installed = { 2, 1 },
	.failing = 1,
	.queue_depth = 5,
	.pods_held = 2,
	.pods_capacity = UINT64_MAX,
};

static void test_status_empty(void **state)
{
	static const struct status_view nothing;
	static const struct status_counts none;
	auto_buf struct buf b = BUF_INIT;
	const char *version;
	int ready, held, connected;
	json_t *root, *reasons, *subnet, *age, *expires;

	assert_int_equal(status_json_status(&b, &nothing, &none), 0);
	root = parse(&b);
	assert_int_equal(json_unpack(root, "{s:n, s:s, s:b, s:o, s:o, s:{s:b, s:o}, s:{s:b, s:o}}",
				     "node", "version", &version, "ready", &ready, "reasons",
				     &reasons, "subnet", &subnet, "lease", "held", &held,
				     "expires_in_s", &expires, "store", "connected", &connected,
				     "last_change_age_s", &age),
			 0);
	assert_string_equal(version, PACKAGE_VERSION);
	assert_false(ready || held || connected);
	assert_true(json_is_null(subnet) && json_is_null(expires) && json_is_null(age));
	assert_int_equal(json_array_size(reasons), 0);
	json_decref(root);
}

static void test_status_full(void **state)
{
	static struct status_view v;
	auto_buf struct buf b = BUF_INIT;
	const char *node, *subnet, *address, *interface, *bridge, *gateway, *endpoint, *reason;
	int ready, held, connected;
	json_int_t mtu, ttl, expires, age, known, rejected, conflicts, desired, installed, failing;
	json_int_t depth, pods, capacity, cut_off;
	const char *warning, *second, *drain, *drain_reason;
	json_t *root;

	v = (struct status_view){
		.healthy = true,
		.subnet = prefix("10.2.1.0/24"),
		.address = addr("192.168.0.11"),
		.node = "n1",
		.interface = "eth0",
		.bridge = "poplin0",
		.bridge_address = addr("10.2.1.1"),
		.bridge_mtu = 1500,
		.lease_held = true,
		.lease_ttl_s = 120,
		.lease_deadline_ns = clock_boot_ns() + 80 * NS_PER_S + 900 * NS_PER_MS,
		.store_endpoint = "http://127.0.0.1:2379",
		.store_connected = true,
		.store_last_change_ns = clock_ns() - 4 * NS_PER_S,
	};
	strlcpy(v.limits.text[LIMIT_NEIGHBOURS], "nearly full", LIMIT_TEXT_MAX);
	v.drain = "refused";
	strlcpy(v.drain_reason, "busy", sizeof(v.drain_reason));
	v.pods_cut_off = 6;
	status_view_warning(&v, "old by %d s", 3);
	status_view_reason(&v, "route %d of %s", 7, "n\xff\x1b[2J\"\\");
	assert_int_equal(status_json_status(&b, &v, &counts), 0);
	root = parse(&b);
	assert_int_equal(
		json_unpack_ex(
			root, NULL, JSON_STRICT,
			"{s:s, s:s, s:b, s:[s], s:[s, s], s:{s:s, s:s}, s:s, s:s, s:s, s:{s:s, s:s, s:I},"
			" s:{s:b, s:I, s:I}, s:{s:s, s:b, s:I}, s:{s:I, s:I, s:I},"
			" s:{s:I, s:I, s:I}, s:{s:I}, s:{s:I, s:I, s:I}}",
			"node", &node, "version", &reason, "ready", &ready, "reasons", &reason,
			"warnings", &warning, &second, "drain", "state", &drain, "reason",
			&drain_reason, "subnet", &subnet, "address", &address, "interface",
			&interface, "bridge", "name", &bridge, "address", &gateway, "mtu", &mtu,
			"lease", "held", &held, "ttl_s", &ttl, "expires_in_s", &expires, "store",
			"endpoint", &endpoint, "connected", &connected, "last_change_age_s", &age,
			"peers", "known", &known, "rejected", &rejected, "conflicts", &conflicts,
			"routes", "desired", &desired, "installed", &installed, "failing", &failing,
			"queue", "depth", &depth, "pods", "held", &pods, "capacity", &capacity,
			"cut_off", &cut_off),
		0);
	assert_string_equal(warning, "nearly full");
	assert_string_equal(node, "n1");
	assert_string_equal(subnet, "10.2.1.0/24");
	assert_string_equal(address, "192.168.0.11");
	assert_string_equal(interface, "eth0");
	assert_string_equal(bridge, "poplin0");
	assert_string_equal(gateway, "10.2.1.1");
	assert_string_equal(endpoint, "http://127.0.0.1:2379");
	assert_string_equal(reason, "route 7 of n?\x1b[2J\"\\");
	assert_false(ready);
	assert_true(held && connected);
	assert_int_equal(mtu, 1500);
	assert_int_equal(ttl, 120);
	assert_int_equal(expires, 80);
	assert_int_equal(age, 4);
	assert_int_equal(known, 3);
	assert_int_equal(rejected, 1);
	assert_int_equal(conflicts, 2);
	assert_int_equal(desired, 4);
	assert_int_equal(installed, 3);
	assert_int_equal(failing, 1);
	assert_int_equal(depth, 5);
	assert_int_equal(pods, 2);
	assert_int_equal(capacity, INT64_MAX);
	assert_int_equal(cut_off, 6);
	assert_string_equal(second, "old by 3 s");
	assert_string_equal(drain, "refused");
	assert_string_equal(drain_reason, "busy");
	json_decref(root);
}

/* Past its deadline a lease runs out in 0 s, not in fewer. */
static void test_status_late(void **state)
{
	static struct status_view v = { .lease_held = true, .lease_deadline_ns = 1 };
	auto_buf struct buf b = BUF_INIT;

	assert_int_equal(status_json_status(&b, &v, &counts), 0);
	json_decref(parse(&b));
	assert_non_null(strstr(b.data, "\"expires_in_s\": 0\n"));
}

static void test_reasons(void **state)
{
	static struct status_view v;
	char longer[2 * STATUS_REASON_TEXT_MAX];

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	for (int i = 0; i < STATUS_REASONS_MAX + 3; i++)
		status_view_reason(&v, "%d %s", i, longer);
	assert_int_equal(v.nreasons, STATUS_REASONS_MAX);
	assert_int_equal(strlen(v.reasons[0]), STATUS_REASON_TEXT_MAX - 1);
}

static void test_lists(void **state)
{
	struct prefix subnet = prefix("10.2.7.0/24"), none = { .len = 0 };
	struct addr via = addr("192.168.0.17"), unknown = addr(NULL);
	struct status_route route = { .destination = &subnet,
				      .via = &via,
				      .node = "n7",
				      .state = "failing",
				      .reason = "no way",
				      .tries = 3,
				      .next_try_ns = 12 * NS_PER_S };
	auto_buf struct buf b = BUF_INIT;
	struct status_list l;

	assert_int_equal(status_json_begin(&l, &b, "peers"), 0);
	assert_int_equal(status_json_end(&l), 0);
	assert_string_equal(b.data, "{\"peers\":[\n]}\n");

	buf_reset(&b);
	assert_int_equal(status_json_begin(&l, &b, "peers"), 0);
	assert_int_equal(status_json_peer(&l, "n7", &subnet, &via, "host-gw", "ok", NULL), 0);
	assert_int_equal(status_json_peer(&l, "a\"\n\xc3\xa9\xff", &none, &unknown, NULL,
					  "rejected", "not JSON"),
			 0);
	assert_int_equal(status_json_end(&l), 0);
	json_decref(parse(&b));
	assert_string_equal(b.data,
			    "{\"peers\":[\n"
			    "{\"node\":\"n7\",\"subnet\":\"10.2.7.0/24\",\"address\":"
			    "\"192.168.0.17\",\"backend\":\"host-gw\",\"state\":\"ok\","
			    "\"reason\":null},\n"
			    "{\"node\":\"a\\\"\\n\?\?\?\",\"subnet\":null,\"address\":null,"
			    "\"backend\":null,\"state\":\"rejected\",\"reason\":\"not JSON\"}\n"
			    "]}\n");

	buf_reset(&b);
	assert_int_equal(status_json_begin(&l, &b, "routes"), 0);
	assert_int_equal(status_json_route(&l, &route), 0);
	route.reason = NULL;
	route.next_try_ns = -1;
	assert_int_equal(status_json_route(&l, &route), 0);
	assert_int_equal(status_json_end(&l), 0);
	json_decref(parse(&b));
	assert_string_equal(b.data, "{\"routes\":[\n"
				    "{\"destination\":\"10.2.7.0/24\",\"via\":\"192.168.0.17\","
				    "\"node\":\"n7\",\"state\":\"failing\",\"reason\":\"no way\","
				    "\"tries\":3,\"next_try_s\":12},\n"
				    "{\"destination\":\"10.2.7.0/24\",\"via\":\"192.168.0.17\","
				    "\"node\":\"n7\",\"state\":\"failing\",\"reason\":null,"
				    "\"tries\":3,\"next_try_s\":null}\n"
				    "]}\n");

	buf_reset(&b);
	assert_int_equal(status_json_begin(&l, &b, "pods"), 0);
	assert_int_equal(status_json_pod(&l, &via, "abc", "eth0", "pop0123456789ab"), 0);
	assert_int_equal(status_json_end(&l), 0);
	json_decref(parse(&b));
}

/* Valid UTF-8 survives, as escapes. */
static void test_unicode(void **state)
{
	struct prefix none = { .len = 0 };
	struct addr unknown = addr(NULL);
	auto_buf struct buf b = BUF_INIT;
	struct status_list l;
	json_t *root;
	const char *node;

	assert_int_equal(status_json_begin(&l, &b, "peers"), 0);
	assert_int_equal(status_json_peer(&l, "n\xc3\xb6\xf0\x9f\x90\xa7", &none, &unknown, NULL,
					  "rejected", NULL),
			 0);
	assert_int_equal(status_json_end(&l), 0);
	root = parse(&b);
	assert_int_equal(json_unpack(root, "{s:[{s:s}]}", "peers", "node", &node), 0);
	assert_string_equal(node, "n\xc3\xb6\xf0\x9f\x90\xa7");
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status_empty), cmocka_unit_test(test_status_full),
		cmocka_unit_test(test_status_late),  cmocka_unit_test(test_reasons),
		cmocka_unit_test(test_lists),	     cmocka_unit_test(test_unicode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
