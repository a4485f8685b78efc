/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The desired state: what records come to, who wins, what the queue is told. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/peers.h"
#include "poplin/base/buf.h"
#include "poplin/base/log.h"
#include "unit.h"

static struct peers *peers;
static struct buf told; /* the keys, as text: "10.2.1.0/24 " or "!192.168.0.1 ", "-" if gone */
static struct buf unresolved;

static void on_key(const struct key *key, int64_t event_ns, bool gone, void *arg)
{
	char text[PREFIX_TEXT_MAX];

	prefix_format(&key->prefix, text);
	if (key->kind == KEY_NEXTHOP)
		text[strcspn(text, "/")] = '\0';
	(void)buf_printf(&told, "%s%s%s ", gone ? "-" : "", key->kind == KEY_NEXTHOP ? "!" : "",
			 text);
}

static void on_unresolved(const char *node, void *arg)
{
	(void)buf_printf(&unresolved, "%s ", node);
}

static struct addr addr(const char *text)
{
	struct addr a = { .family = AF_UNSPEC };

	(void)addr_parse(text, &a, NULL);
	return a;
}

static struct prefix prefix(const char *text)
{
	struct prefix p;

	assert_int_equal(prefix_parse(text, &p, NULL), 0);
	return p;
}

static int setup(void **state)
{
	struct peers_config config = {
		.node = "me",
		.on_key = on_key,
		.on_unresolved = on_unresolved,
	};
	struct prefix pods = prefix("10.2.0.0/16");

	log_set_level(LOG_ERROR);
	config.address = addr("192.168.0.9");
	return network_init(&config.network, &pods, 8, NULL) < 0 ? -1
								 : peers_new(&peers, &config, NULL);
}

static int teardown(void **state)
{
	peers_free(peers);
	buf_done(&told);
	buf_done(&unresolved);
	return 0;
}

static void apply(const char *node, const char *value, uint64_t order)
{
	const struct store_change change = {
		.node = node,
		.value = value,
		.len = value ? strlen(value) : 0,
		.order = order,
	};

	assert_int_equal(peers_apply(peers, &change, NULL), 0);
}

/* A record of one subnet. */
static void claim(const char *node, const char *subnet, const char *address, uint64_t order)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "{\"version\":1,\"subnets\":[\"%s\"],\"address\":\"%s\","
		 "\"backend\":{\"type\":\"host-gw\"},\"machine\":\"m\"}",
		 subnet, address);
	apply(node, text, order);
}

static void assert_told(const char *expected)
{
	assert_string_equal(told.data ? told.data : "", expected);
	buf_reset(&told);
}

static void assert_route(const char *subnet, const char *gateway)
{
	struct prefix p = prefix(subnet);
	char text[ADDR_TEXT_MAX];
	struct addr a;

	if (!gateway) {
		assert_false(peers_lookup(peers, &p, &a));
		return;
	}
	assert_true(peers_lookup(peers, &p, &a));
	assert_string_equal(addr_format(&a, text), gateway);
}

static void assert_counts(size_t known, size_t rejected, size_t conflicts, size_t routes)
{
	struct peers_stats stats;

	peers_stats(peers, &stats);
	assert_int_equal(stats.known, known);
	assert_int_equal(stats.rejected, rejected);
	assert_int_equal(stats.conflicts, conflicts);
	assert_int_equal(stats.routes[0], routes);
}

struct wanted_view {
	const char *node;
	enum peer_state state;
	const char *reason;
	bool found;
};

static int look(const struct peer_view *view, void *arg)
{
	struct wanted_view *w = arg;

	if (strcmp(view->node, w->node) != 0)
		return 0;
	w->found = true;
	assert_int_equal(view->state, w->state);
	assert_non_null(strstr(view->reason, w->reason));
	return 0;
}

static void assert_shown(const char *node, enum peer_state state, const char *reason)
{
	struct wanted_view w = { node, state, reason, false };

	assert_int_equal(peers_foreach(peers, look, &w), 0);
	assert_true(w.found);
}

static void a_record_comes_changes_and_goes(void **state)
{
	claim("n1", "10.2.1.0/24", "192.168.0.1", 5);
	assert_told("10.2.1.0/24 ");
	assert_route("10.2.1.0/24", "192.168.0.1");
	assert_counts(1, 0, 0, 1);
	claim("n1", "10.2.1.0/24", "192.168.0.1", 5); /* the same again */
	assert_told("");
	claim("n1", "10.2.1.0/24", "192.168.0.2", 5);
	assert_told("10.2.1.0/24 !192.168.0.1 ");
	assert_route("10.2.1.0/24", "192.168.0.2");
	claim("n1", "10.2.7.0/24", "192.168.0.2", 5);
	assert_told("10.2.1.0/24 10.2.7.0/24 ");
	assert_route("10.2.1.0/24", NULL);
	apply("n1", NULL, 0);
	assert_told("-10.2.7.0/24 -!192.168.0.2 ");
	assert_route("10.2.7.0/24", NULL);
	assert_counts(0, 0, 0, 0);
	apply("never-there", NULL, 0);
	assert_told("");
}

static void our_own_record_is_no_peer(void **state)
{
	claim("me", "10.2.1.0/24", "192.168.0.9", 1);
	assert_told("");
	assert_counts(0, 0, 0, 0);
	assert_shown("me", PEER_OWN, "");
}

static void garbage_has_no_effect_and_a_reason(void **state)
{
	claim("good", "10.2.1.0/24", "192.168.0.1", 1);
	apply("junk", "{", 2);
	claim("all", "0.0.0.0/0", "192.168.0.2", 3);
	claim("outside", "10.3.0.0/24", "192.168.0.3", 4);
	claim("self", "10.2.2.0/24", "192.168.0.9", 5);
	claim("a b", "10.2.3.0/24", "192.168.0.4", 6);
	claim("", "10.2.4.0/24", "192.168.0.4", 7);
	assert_told("10.2.1.0/24 ");
	assert_counts(1, 6, 0, 1);
	assert_shown("junk", PEER_REJECTED, "not JSON");
	assert_shown("all", PEER_REJECTED, "not one of");
	assert_shown("self", PEER_REJECTED, "own address");
	assert_shown("a b", PEER_REJECTED, "node name");
	/* A good record that turns bad loses its route, and gets it back. */
	apply("good", "junk", 1);
	assert_told("10.2.1.0/24 !192.168.0.1 ");
	assert_route("10.2.1.0/24", NULL);
	claim("good", "10.2.1.0/24", "192.168.0.1", 1);
	assert_route("10.2.1.0/24", "192.168.0.1");
}

static void our_own_subnet_is_refused_once_we_have_it(void **state)
{
	struct prefix first = prefix("10.2.1.0/24"), second = prefix("10.2.2.0/24");

	claim("n1", "10.2.1.0/24", "192.168.0.1", 1);
	buf_reset(&told);
	peers_set_own_subnet(peers, &first);
	assert_shown("n1", PEER_REJECTED, "own subnet");
	assert_route("10.2.1.0/24", NULL);
	assert_told("10.2.1.0/24 !192.168.0.1 ");
	peers_set_own_subnet(peers, &second);
	assert_route("10.2.1.0/24", "192.168.0.1");
	assert_shown("n1", PEER_OK, "");
}

/* The others of its routes stand, so nothing else would tell. */
static void a_record_that_loses_one_of_its_subnets_is_shown(void **state)
{
	claim("old", "10.2.2.0/24", "192.168.0.2", 4);
	apply("young",
	      "{\"version\":1,\"subnets\":[\"10.2.1.0/24\",\"10.2.2.0/24\"],"
	      "\"address\":\"192.168.0.1\",\"backend\":{\"type\":\"host-gw\"},\"machine\":\"m\"}",
	      9);
	assert_route("10.2.1.0/24", "192.168.0.1");
	assert_route("10.2.2.0/24", "192.168.0.2");
	assert_shown("young", PEER_CONFLICT, "node 'old' claimed 10.2.2.0/24 earlier");
	assert_counts(2, 0, 1, 2);
	apply("old", NULL, 0);
	assert_shown("young", PEER_OK, "");
	assert_counts(1, 0, 0, 2);
}

static void the_older_claim_wins_whatever_came_first(void **state)
{
	claim("young", "10.2.1.0/24", "192.168.0.1", 9);
	claim("old", "10.2.1.0/24", "192.168.0.2", 4);
	assert_route("10.2.1.0/24", "192.168.0.2");
	assert_counts(2, 0, 1, 1);
	assert_shown("young", PEER_CONFLICT, "node 'old' claimed 10.2.1.0/24 earlier");
	claim("middle", "10.2.1.0/24", "192.168.0.3", 6);
	assert_route("10.2.1.0/24", "192.168.0.2");
	buf_reset(&told);
	apply("old", NULL, 0);
	assert_told("10.2.1.0/24 -!192.168.0.2 ");
	assert_route("10.2.1.0/24", "192.168.0.3");
	apply("young", NULL, 0);
	assert_route("10.2.1.0/24", "192.168.0.3");
	assert_counts(1, 0, 0, 1);
	/* The same age cannot be in etcd; it is settled all the same. */
	claim("a", "10.2.1.0/24", "192.168.0.4", 6);
	assert_route("10.2.1.0/24", "192.168.0.4");
}

static void a_gateway_is_left_when_its_last_route_goes(void **state)
{
	struct addr gateway = addr("192.168.0.1");

	claim("n1", "10.2.1.0/24", "192.168.0.1", 1);
	claim("n2", "10.2.2.0/24", "192.168.0.1", 2);
	buf_reset(&told);
	apply("n1", NULL, 0);
	assert_told("-10.2.1.0/24 ");
	assert_true(peers_gateway_used(peers, &gateway));
	apply("n2", NULL, 0);
	assert_told("-10.2.2.0/24 -!192.168.0.1 ");
	assert_false(peers_gateway_used(peers, &gateway));
}

static void a_list_removes_what_it_does_not_have_only_when_complete(void **state)
{
	claim("n1", "10.2.1.0/24", "192.168.0.1", 1);
	claim("n2", "10.2.2.0/24", "192.168.0.2", 2);
	assert_false(peers_complete(peers));
	buf_reset(&told);
	peers_begin_sync(peers); /* breaks off */
	claim("n1", "10.2.1.0/24", "192.168.0.1", 1);
	peers_begin_sync(peers);
	claim("n2", "10.2.2.0/24", "192.168.0.2", 2);
	claim("n3", "10.2.3.0/24", "192.168.0.3", 3);
	assert_route("10.2.1.0/24", "192.168.0.1");
	assert_false(peers_complete(peers));
	assert_told("10.2.3.0/24 ");
	peers_end_sync(peers);
	assert_true(peers_complete(peers));
	assert_told("-10.2.1.0/24 -!192.168.0.1 ");
	assert_counts(2, 0, 0, 2);
}

static void a_bare_record_waits_for_its_address_and_keeps_it(void **state)
{
	struct addr address = addr("192.168.0.7"), none = { .family = AF_UNSPEC };

	apply("python", "10.2.1.0/24", 1);
	assert_string_equal(unresolved.data, "python ");
	assert_shown("python", PEER_UNRESOLVED, "no address");
	assert_route("10.2.1.0/24", NULL);
	peers_resolved(peers, "python", &address);
	assert_route("10.2.1.0/24", "192.168.0.7");
	buf_reset(&told);
	apply("python", "10.2.1.0/24", 1); /* listed again */
	assert_told("");
	assert_route("10.2.1.0/24", "192.168.0.7");
	peers_resolved(peers, "python", &none);
	assert_route("10.2.1.0/24", NULL);
	peers_resolved(peers, "unknown", &address);
	/* A whole record has its own address; a late answer changes nothing. */
	claim("python", "10.2.1.0/24", "192.168.0.8", 1);
	peers_resolved(peers, "python", &address);
	assert_route("10.2.1.0/24", "192.168.0.8");
}

/* Each once, in order, though the lock is let go in between. */
struct walk {
	unsigned count;
	struct prefix prefix;
	char node[32];
};

static void count_route(const struct prefix *p, const struct addr *gateway, const char *node,
			void *arg)
{
	struct walk *w = arg;

	assert_true(w->count == 0 || prefix_cmp(&w->prefix, p) < 0);
	w->prefix = *p;
	w->count++;
}

static int count_record(const struct peer_view *view, void *arg)
{
	struct walk *w = arg;

	assert_true(strcmp(w->node, view->node) < 0);
	strlcpy(w->node, view->node, sizeof(w->node));
	w->count++;
	return 0;
}

static void ten_thousand_records(void **state)
{
	struct walk routes = { .count = 0 }, records = { .count = 0 };

	for (unsigned i = 0; i < 10000; i++) {
		char node[32], subnet[32], address[32];

		snprintf(node, sizeof(node), "n%u", i);
		/* 256 subnets: all but the first 256 clash. */
		snprintf(subnet, sizeof(subnet), "10.2.%u.0/24", i % 256);
		snprintf(address, sizeof(address), "172.16.%u.%u", i / 256, i % 256);
		claim(node, subnet, address, 10000 - i);
	}
	assert_counts(10000, 0, 10000 - 256, 256);
	peers_foreach_route(peers, count_route, &routes);
	assert_int_equal(routes.count, 256);
	assert_int_equal(peers_foreach(peers, count_record, &records), 0);
	assert_int_equal(records.count, 10000);
	peers_begin_sync(peers);
	peers_end_sync(peers);
	assert_counts(0, 0, 0, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_record_comes_changes_and_goes),
		TEST(our_own_record_is_no_peer),
		TEST(garbage_has_no_effect_and_a_reason),
		TEST(our_own_subnet_is_refused_once_we_have_it),
		TEST(the_older_claim_wins_whatever_came_first),
		TEST(a_record_that_loses_one_of_its_subnets_is_shown),
		TEST(a_gateway_is_left_when_its_last_route_goes),
		TEST(a_list_removes_what_it_does_not_have_only_when_complete),
		TEST(a_bare_record_waits_for_its_address_and_keeps_it),
		TEST(ten_thousand_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
