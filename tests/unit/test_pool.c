/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Workers, the noted state of the kernel and full comparisons against each other, on a real kernel:
 * whatever the interleaving, what the records ask for stands there in the end, and nothing else,
 * without a further comparison.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/pool.h"
#include "netns.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"
#include "schedule.h"

#define PROTOCOL 4
#define WORKERS	 3
#define NODES	 4
#define CHANGES	 400

static struct queue *queue;
static struct peers *peers;
static struct fib *fib;
static struct pool *pool;
static struct routes_config routes;
static atomic_bool over;

static void on_key(const struct key *key, int64_t event_ns, bool gone, void *arg)
{
	(void)arg;
	(void)gone;
	queue_put(queue, key, QUEUE_CHANGE, event_ns);
}

static int setup(void **state)
{
	const struct queue_config queue_config = { .now = clock_ns };
	struct peers_config config = { .node = "me", .on_key = on_key };
	struct pool_config pool_config;
	struct prefix pods = prefix("10.2.0.0/16");

	if (netns_setup(state) < 0)
		return -1;
	log_set_level(LOG_ERROR);
	config.address = addr("172.16.0.1");
	assert_ok(network_init(&config.network, &pods, 8, &err));
	assert_ok(queue_new(&queue, &queue_config, &err));
	assert_ok(peers_new(&peers, &config, &err));
	assert_ok(fib_new(&fib, &err));
	routes = (struct routes_config){
		.protocol = PROTOCOL,
		.index = make_uplink(),
		.nexthops = nexthop_supported(nl),
	};
	pool_config = (struct pool_config){ queue, peers, fib, routes };
	assert_ok(pool_start(&pool, &pool_config, WORKERS, &err));
	pool_set_sweep(pool, 0, 0);
	peers_begin_sync(peers);
	peers_end_sync(peers);
	return 0;
}

static int teardown(void **state)
{
	pool_stop(pool, QUEUE_DROP);
	fib_free(fib);
	peers_free(peers);
	queue_free(queue);
	return netns_teardown(state);
}

/* A node of the few claims one of two subnets of its own, behind one of two gateways, or goes. */
static void change(struct dice *dice, uint64_t order)
{
	unsigned n = roll(dice, NODES);
	char node[16], value[256];
	struct store_change c = { .node = node, .order = order };

	(void)snprintf(node, sizeof(node), "n%u", n);
	if (roll(dice, 2)) {
		(void)snprintf(value, sizeof(value),
			       "{\"version\":1,\"subnets\":[\"10.2.%u.0/24\"],"
			       "\"address\":\"172.16.0.%u\",\"backend\":{\"type\":\"host-gw\"},"
			       "\"machine\":\"m\"}",
			       10 * n + roll(dice, 2), 10 + roll(dice, 2));
		c.value = value;
		c.len = strlen(value);
	}
	assert_ok(peers_apply(peers, &c, &err));
}

/* As the monitor does, but without a pause. */
static void *compare_always(void *arg)
{
	struct netlink *own = arg;

	while (!over) {
		(void)fib_sync(fib, own, &routes, NULL);
		(void)fib_queue_difference(fib, peers, queue);
	}
	return NULL;
}

static void wait_idle(void)
{
	struct queue_stats stats;
	int64_t until = clock_ns() + 20 * NS_PER_S;
	struct queue_row row;

	do {
		queue_stats(queue, &stats);
		if (queue_list(queue, NULL, &row, 1) == 0)
			return;
		(void)usleep(200);
	} while (clock_ns() < until);
	fail_msg("%zu ready, %zu working, %zu delayed", stats.ready, stats.working, stats.delayed);
}

struct look {
	unsigned wanted, missing;
	char first[PREFIX_TEXT_MAX]; /* that is missing */
};

/* Under the lock of peers: it notes, and fails later. */
static void look_at(const struct prefix *p, const struct addr *gateway, const char *node, void *arg)
{
	struct route_search search = { .dst = *p };
	struct look *look = arg;

	(void)gateway;
	(void)node;
	look->wanted++;
	if (route_foreach(nl, AF_INET, PROTOCOL, match_route, NULL, &search, &err) == 0 &&
	    search.count == 1)
		return;
	look->missing++;
	(void)prefix_format(p, look->first);
}

static void check_kernel(void)
{
	struct look look = { .wanted = 0 };

	peers_foreach_route(peers, look_at, &look);
	if (look.missing)
		fail_msg("%u of %u routes are not there, such as %s", look.missing, look.wanted,
			 look.first);
	assert_int_equal(count_routes(AF_INET, PROTOCOL), look.wanted);
}

static void churn(struct dice *dice, unsigned rounds, uint64_t *order)
{
	for (unsigned i = 0; i < rounds; i++) {
		for (unsigned k = roll(dice, CHANGES / 10); k > 0; k--)
			change(dice, ++*order);
		wait_idle();
		check_kernel();
	}
}

static void test_a_route_never_goes_with_a_nexthop_that_leaves(void **state)
{
	uint64_t order = 0;

	(void)state;
	for (unsigned i = 0; i < schedules(10); i++) {
		struct dice dice = dice_of(i, 0);

		churn(&dice, 20, &order);
	}
}

/* An old dump says that a route is there which was removed meanwhile, or that a nexthop stays. */
static void test_a_comparison_meanwhile_notes_nothing_wrong(void **state)
{
	auto_(netlink_close) struct netlink *own = NULL;
	uint64_t order = 0;
	struct thread thread;

	(void)state;
	assert_ok(netlink_open(&own, &err));
	for (unsigned i = 0; i < schedules(20); i++) {
		struct dice dice = dice_of(i, 1);

		over = false;
		assert_int_equal(thread_start(&thread, "compare", compare_always, own), 0);
		for (unsigned k = 0; k < CHANGES; k++) {
			change(&dice, ++order);
			if (roll(&dice, 8) == 0)
				(void)usleep(roll(&dice, 300));
		}
		over = true;
		thread_join(&thread);
		wait_idle();
		check_kernel();
	}
}

/* A route is noted on its new nexthop before the kernel has moved it off the old one. */
static void test_the_nexthop_that_a_route_is_moved_from_stays_until_it_was(void **state)
{
	struct prefix p = prefix("10.2.78.0/24");
	struct addr from = addr("172.16.0.78"), to = addr("172.16.0.79");

	(void)state;
	assert_int_equal(fib_nexthop_hold(fib, &from, true), -EAGAIN);
	assert_int_equal(fib_nexthop_note(fib, &from, FIB_NEXTHOP_THERE), 0);
	assert_int_equal(fib_nexthop_note(fib, &to, FIB_NEXTHOP_THERE), 0);
	assert_int_equal(fib_note(fib, &p, FIB_OURS, &from), 0);
	assert_int_equal(fib_nexthop_hold(fib, &from, true), 0);
	assert_int_equal(fib_note(fib, &p, FIB_OURS, &to), 0);
	assert_int_equal(fib_nexthop_note(fib, &from, FIB_NEXTHOP_LEAVING), -EBUSY);
	assert_int_equal(fib_nexthop_hold(fib, &from, false), 0);
	assert_int_equal(fib_nexthop_note(fib, &from, FIB_NEXTHOP_LEAVING), 0);
	assert_int_equal(fib_nexthop_hold(fib, &from, true), -EAGAIN);
	fib_nexthop_left(fib, &from, FIB_NEXTHOP_ABSENT, queue);
	assert_int_equal(fib_note(fib, &p, FIB_ABSENT, NULL), 0);
	assert_int_equal(fib_nexthop_note(fib, &to, FIB_NEXTHOP_ABSENT), 0);
}

/* What no rule of ours foresaw: it was noted, and the nexthop went all the same. */
static void test_what_went_with_its_nexthop_is_put_back(void **state)
{
	struct prefix p = prefix("10.2.77.0/24");
	struct addr gateway = addr("172.16.0.77");
	struct fib_route is;

	(void)state;
	assert_int_equal(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_THERE), 0);
	assert_int_equal(fib_note(fib, &p, FIB_OURS, &gateway), 0);
	assert_int_equal(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_LEAVING), -EBUSY);
	assert_int_equal(fib_note(fib, &p, FIB_ABSENT, NULL), 0);
	assert_int_equal(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_LEAVING), 0);
	/* Others neither end that nor put a route there. */
	assert_int_equal(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_LEAVING), -EBUSY);
	assert_int_equal(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_THERE), -EBUSY);
	assert_int_equal(fib_note(fib, &p, FIB_OURS, &gateway), -EAGAIN);
	fib_get(fib, &p, &is);
	assert_int_equal(is.state, FIB_UNKNOWN);
	fib_nexthop_left(fib, &gateway, FIB_NEXTHOP_THERE, queue);
	assert_int_equal(fib_note(fib, &p, FIB_OURS, &gateway), 0);
	queue_hold(queue);
	fib_nexthop_left(fib, &gateway, FIB_NEXTHOP_ABSENT, queue);
	fib_get(fib, &p, &is);
	assert_int_equal(is.state, FIB_UNKNOWN);
	assert_int_equal(fib_nexthop_get(fib, &gateway), FIB_NEXTHOP_ABSENT);
	queue_release(queue);
	wait_idle(); /* no record asks for it */
	fib_get(fib, &p, &is);
	assert_int_equal(is.state, FIB_ABSENT);
}

/*
 * A worker has noted what it is about to do, and a comparison looks at the kernel before it is done:
 * the route that goes is not noted as there, since nobody would put it back then.
 */
static void test_a_dump_knows_no_better_than_a_worker(void **state)
{
	static const char value[] =
		"{\"version\":1,\"subnets\":[\"10.2.77.0/24\"],\"address\":\"172.16.0.77\","
		"\"backend\":{\"type\":\"host-gw\"},\"machine\":\"m\"}";
	const struct store_change here = {
		.node = "n1",
		.value = value,
		.len = strlen(value),
		.order = 1,
	};
	struct prefix p = prefix("10.2.77.0/24");
	struct addr gateway = addr("172.16.0.77");
	const struct route r = { .dst = p, .protocol = PROTOCOL };
	struct fib_work work;
	struct fib_route is;

	(void)state;
	assert_ok(peers_apply(peers, &here, &err));
	wait_idle();
	check_kernel();
	fib_work_begin(fib, &work);
	assert_int_equal(fib_note(fib, &p, FIB_ABSENT, NULL), 0);
	assert_int_equal(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_LEAVING), 0);
	assert_int_equal(fib_sync(fib, nl, &routes, &err), 1);
	fib_get(fib, &p, &is);
	assert_int_not_equal(is.state, FIB_OURS);
	assert_int_equal(fib_nexthop_get(fib, &gateway), FIB_NEXTHOP_LEAVING);
	assert_ok(request(route_delete_msg(&r)));
	fib_nexthop_left(fib, &gateway, FIB_NEXTHOP_THERE, queue);
	fib_work_end(fib, &work);
	(void)fib_queue_difference(fib, peers, queue);
	wait_idle();
	check_kernel();
}

/*
 * The other way round: the kernel took the route and somebody removed it with its nexthop before the
 * worker read the answer. His note is wrong, and only a comparison after him can tell.
 */
static void test_a_dump_while_a_worker_is_at_it_is_no_last_word(void **state)
{
	struct prefix p = prefix("10.2.79.0/24");
	struct addr gateway = addr("172.16.0.79");
	struct fib_work work;
	struct fib_route is;

	(void)state;
	fib_work_begin(fib, &work);
	assert_ok(fib_note(fib, &p, FIB_OURS, &gateway));
	assert_int_equal(fib_sync(fib, nl, &routes, &err), 1);
	assert_ok(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_THERE));
	fib_work_end(fib, &work);
	fib_get(fib, &p, &is);
	assert_int_equal(is.state, FIB_OURS);
	assert_ok(fib_sync(fib, nl, &routes, &err));
	fib_get(fib, &p, &is);
	assert_int_equal(is.state, FIB_ABSENT);
	assert_int_equal(fib_nexthop_get(fib, &gateway), FIB_NEXTHOP_ABSENT);
}

/* Our own route stands behind a foreign one, and the record moves: it still goes by the old nexthop. */
static void test_a_nexthop_stays_under_a_route_behind_a_foreign_one(void **state)
{
	struct prefix p = prefix("10.2.80.0/24");
	struct addr gateway = addr("172.16.0.80");

	(void)state;
	assert_ok(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_THERE));
	assert_ok(fib_note(fib, &p, FIB_OURS, &gateway));
	assert_ok(fib_note(fib, &p, FIB_FOREIGN, NULL));
	assert_int_equal(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_LEAVING), -EBUSY);
	assert_ok(fib_note(fib, &p, FIB_UNKNOWN, NULL));
	assert_int_equal(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_LEAVING), -EBUSY);
	assert_ok(fib_note(fib, &p, FIB_ABSENT, NULL));
	assert_ok(fib_nexthop_note(fib, &gateway, FIB_NEXTHOP_LEAVING));
	fib_nexthop_left(fib, &gateway, FIB_NEXTHOP_ABSENT, queue);
}

static void put_record(const char *gateway, uint64_t order)
{
	char value[256];
	const struct store_change c = {
		.node = "n1",
		.value = value,
		.len = (size_t)snprintf(value, sizeof(value),
					"{\"version\":1,\"subnets\":[\"10.2.81.0/24\"],"
					"\"address\":\"%s\",\"backend\":{\"type\":\"host-gw\"},"
					"\"machine\":\"m\"}",
					gateway),
		.order = order,
	};

	assert_ok(peers_apply(peers, &c, &err));
}

/* Waits until a try of the key has failed so. */
static void wait_failed(const struct key *key, int error)
{
	int64_t until = clock_ns() + 20 * NS_PER_S;
	struct queue_view view;

	do {
		queue_look(queue, key, &view);
		if (view.error == error)
			return;
		(void)usleep(200);
	} while (view.state != QUEUE_NONE && clock_ns() < until);
	fail_msg("state %d, error %d, not %d", view.state, view.error, error);
}

/*
 * The kernel answers "exists" to a replacement, too: when ours is there as it should be, but behind
 * another one, by which it goes. That was taken for a success.
 */
static void test_a_replacement_that_exists_behind_another_route_did_not_succeed(void **state)
{
	struct prefix p = prefix("10.2.81.0/24");
	struct addr gateway = addr("172.16.0.82");
	const struct key key = key_route(&p);
	const struct nexthop hop = { routes_nexthop_id(&routes, &gateway), gateway, routes.index,
				     PROTOCOL };
	const struct route ours = { .dst = p, .nexthop = hop.id, .protocol = PROTOCOL };
	struct route other = {
		.dst = p,
		.gateway = addr("172.16.0.99"),
		.index = routes.index,
		.protocol = RTPROT_BOOT,
	};
	struct fib_route is;

	(void)state;
	put_record("172.16.0.81", 1);
	wait_idle();
	assert_ok(request(nexthop_put_msg(&hop, NLM_F_CREATE)));
	assert_ok(request(route_put_msg(&ours, NLM_F_CREATE | NLM_F_REPLACE)));
	assert_ok(request(route_put_msg(&other, NLM_F_CREATE))); /* before it */
	put_record("172.16.0.82", 2);
	wait_failed(&key, -EEXIST);
	fib_get(fib, &p, &is);
	assert_int_equal(is.state, FIB_FOREIGN);
	assert_int_equal(find_route("10.2.81.0/24", NULL), 2);
	/* It goes, and the monitor would tell. */
	assert_ok(request(route_delete_msg(&other)));
	assert_ok(fib_note(fib, &p, FIB_UNKNOWN, NULL));
	queue_put(queue, &key, QUEUE_REPAIR, 0);
	wait_idle();
	check_kernel();
	/* One of our protocol before it: no success either, until the comparison removes the second. */
	put_record("172.16.0.81", 3);
	wait_idle();
	assert_ok(request(nexthop_put_msg(&hop, NLM_F_CREATE)));
	assert_ok(request(route_put_msg(&ours, NLM_F_CREATE | NLM_F_REPLACE)));
	other.protocol = PROTOCOL;
	assert_ok(request(route_put_msg(&other, NLM_F_CREATE)));
	put_record("172.16.0.82", 4);
	wait_failed(&key, -EAGAIN);
	assert_ok(request(route_delete_msg(&ours)));
	wait_idle();
	check_kernel();
}

static atomic_int no_memory_for; /* messages of this type */

/* In the place of libnl's own. */
struct nl_msg *nlmsg_alloc_simple(int type, int flags)
{
	struct nlmsghdr header = { .nlmsg_type = (uint16_t)type, .nlmsg_flags = (uint16_t)flags };

	return type == no_memory_for ? NULL : nlmsg_inherit(&header);
}

/* A message that could not be made was counted as sent, and its answer taken for a success. */
static void test_without_memory_for_a_message_the_key_comes_again(void **state)
{
	struct prefix p = prefix("10.2.81.0/24");
	struct addr from = addr("172.16.0.81"), to = addr("172.16.0.82");
	const struct key route = key_route(&p), hop = key_nexthop(&to);
	const struct {
		int type;
		const char *gateway; /* that the record names from now on; NULL: it goes */
		const struct key *key;
	} steps[] = {
		{ RTM_NEWNEXTHOP, "172.16.0.81", &route },
		{ RTM_DELROUTE, NULL, &route },
		{ RTM_NEWROUTE, "172.16.0.81", &route },
		{ RTM_NEWROUTE, "172.16.0.82", &route },
		{ RTM_DELROUTE, NULL, &route },
		{ RTM_NEWROUTE, "172.16.0.82", &route },
		{ RTM_DELNEXTHOP, "172.16.0.81", &hop },
	};

	(void)state;
	for (size_t i = 0; i < countof(steps); i++) {
		const struct store_change gone = { .node = "n1", .order = i + 1 };

		no_memory_for = steps[i].type;
		if (steps[i].gateway)
			put_record(steps[i].gateway, i + 1);
		else
			assert_ok(peers_apply(peers, &gone, &err));
		wait_failed(steps[i].key, -ENOMEM);
		no_memory_for = 0;
		wait_idle();
		check_kernel();
	}
	assert_int_equal(fib_nexthop_get(fib, &from), FIB_NEXTHOP_THERE);
	assert_int_equal(fib_nexthop_get(fib, &to), FIB_NEXTHOP_ABSENT);
	assert_int_equal(count_nexthops(PROTOCOL), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_dump_while_a_worker_is_at_it_is_no_last_word,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_a_replacement_that_exists_behind_another_route_did_not_succeed, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			test_without_memory_for_a_message_the_key_comes_again, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_a_nexthop_stays_under_a_route_behind_a_foreign_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_route_never_goes_with_a_nexthop_that_leaves,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_comparison_meanwhile_notes_nothing_wrong,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_dump_knows_no_better_than_a_worker, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			test_the_nexthop_that_a_route_is_moved_from_stays_until_it_was, setup,
			teardown),
		cmocka_unit_test_setup_teardown(test_what_went_with_its_nexthop_is_put_back, setup,
						teardown),
	};

	return netns_allowed() ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}
