/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of pods that are gone: released after a while, never before, never those of a pod. */
#include "unit.h"

#include "agent/podgc.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "poplin/base/file.h"
#include "poplin/ipam/ipam.h"
#include "poplin/model/pod.h"
#include "poplin/nl/link.h"

static struct {
	char top[64];
	struct ipam_pool pool;
	struct netlink *nl;
	struct podgc gc;
	int64_t now;
} t;

static int setup(void **state)
{
	struct prefix subnet;

	memset(&t, 0, sizeof(t));
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	strlcpy(t.top, "/tmp/poplin-test-podgc.XXXXXX", sizeof(t.top));
	assert_non_null(mkdtemp(t.top));
	(void)snprintf(t.pool.dir, sizeof(t.pool.dir), "%s/net", t.top);
	assert_int_equal(prefix_parse("10.2.1.0/24", &subnet, NULL), 0);
	assert_int_equal(ipam_pool_add_subnet(&t.pool, &subnet, NULL), 0);
	assert_int_equal(netlink_open(&t.nl, NULL), 0);
	t.now = 1000 * NS_PER_S;
	return 0;
}

static int teardown(void **state)
{
	podgc_done(&t.gc);
	netlink_close(t.nl);
	(void)file_remove_tree(t.top, NULL);
	return 0;
}

static struct ipam_owner owner_of(const char *container)
{
	return (struct ipam_owner){ .container = container, .interface = "eth0" };
}

static void take(const char *container)
{
	const struct ipam_owner owner = owner_of(container);
	struct ipam_address given[IPAM_SETS_MAX];

	assert_int_equal(ipam_allocate(&t.pool, NULL, 0, &owner, given, NULL), 0);
}

static bool holds(const char *container)
{
	const struct ipam_owner owner = owner_of(container);

	uint64_t number;

	return ipam_attachment(t.pool.dir, &owner, &number);
}

static void make_link(const char *container)
{
	const uint8_t mac[6] = { 2, 1, 1, 1, 1, 1 };
	char name[16];

	/* Any link of that name will do. */
	pod_link_name(container, "eth0", name);
	assert_int_equal(link_bridge_create(t.nl, name, mac, 0, NULL), 0);
}

static void remove_link(const char *container)
{
	char name[16];

	pod_link_name(container, "eth0", name);
	assert_int_equal(link_delete_name(t.nl, name, NULL), 0);
}

static int look_after(int64_t ns)
{
	t.now += ns;
	return podgc_look(&t.gc, t.nl, t.pool.dir, t.now, NULL);
}

static void test_released_after_a_while(void **state)
{
	assert_int_equal(look_after(0), 0); /* nothing was ever allocated */
	take("gone");
	take("here");
	make_link("here");
	assert_int_equal(look_after(PODGC_INTERVAL_NS), 0);
	assert_int_equal(look_after(PODGC_GRACE_NS - NS_PER_S), 0);
	assert_true(holds("gone"));
	assert_int_equal(look_after(PODGC_INTERVAL_NS), 1);
	assert_false(holds("gone"));
	assert_true(holds("here"));
	assert_int_equal(look_after(PODGC_GRACE_NS), 0);
	remove_link("here");
	assert_int_equal(look_after(PODGC_GRACE_NS), 0);
	assert_int_equal(look_after(PODGC_GRACE_NS), 1);
}

/* Missing for once, or another attachment of the same name: the time begins anew. */
static void test_the_time_begins_anew(void **state)
{
	const struct ipam_owner owner = owner_of("pod");

	take("pod");
	assert_int_equal(look_after(PODGC_INTERVAL_NS), 0);
	make_link("pod");
	assert_int_equal(look_after(PODGC_GRACE_NS), 0);
	remove_link("pod");
	assert_int_equal(look_after(PODGC_GRACE_NS), 0);
	take("between"); /* so that the new file has another number */
	assert_int_equal(ipam_release(&t.pool, &owner, NULL), 0);
	take("keeps the number away");
	take("pod");
	(void)look_after(PODGC_GRACE_NS);
	assert_true(holds("pod"));
	(void)look_after(PODGC_GRACE_NS);
	assert_false(holds("pod"));
}

static bool says_yes(const struct ipam_owner *owner, void *arg)
{
	return true;
}

static bool says_no(const struct ipam_owner *owner, void *arg)
{
	return false;
}

/* It would make its link for an address that another pod has by then. */
static void test_a_collected_add_is_not_confirmed(void **state)
{
	const struct ipam_owner owner = owner_of("pod"), other = owner_of("other");
	const char *dir = t.pool.dir;
	uint64_t number, confirmed;

	take("pod");
	take("other");
	assert_int_equal(ipam_confirm(dir, &other, NULL), 0);
	assert_true(ipam_attachment(dir, &other, &confirmed));
	assert_int_equal(ipam_collect(dir, &other, confirmed, says_no, NULL, NULL), 0);
	assert_int_equal(ipam_collect(dir, &other, confirmed + 1000000, says_yes, NULL, NULL), 0);
	assert_true(holds("other"));
	assert_true(ipam_attachment(dir, &owner, &number));
	assert_int_equal(ipam_collect(dir, &owner, number, says_yes, NULL, NULL), 1);
	assert_false(holds("pod"));
	assert_int_equal(ipam_confirm(dir, &owner, NULL), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_released_after_a_while),
		TEST(test_the_time_begins_anew),
		TEST(test_a_collected_add_is_not_confirmed),
	};

	/* 77 is automake's number of a test that was skipped. */
	return unshare(CLONE_NEWNET) == 0 ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
