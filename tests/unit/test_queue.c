/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The work queue: one entry per key, one worker per key, backoff by a clock that the test sets. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "agent/queue.h"
#include "poplin/base/clock.h"
#include "poplin/base/mem.h"
#include "poplin/base/thread.h"
#include "unit.h"

static int64_t test_now;
static _Atomic unsigned drained;
static atomic_bool stay; /* false: no worker is to quit */

static int64_t test_clock(void)
{
	return test_now;
}

static void on_drained(void *arg)
{
	drained++;
}

static struct key key_of(unsigned i)
{
	struct prefix p = { .addr = addr_from_ipv4(0x0a020000 + (i << 8)), .len = 24 };

	return key_route(&p);
}

static struct queue *make(int64_t (*now)(void))
{
	const struct queue_config config = { .now = now, .on_drained = on_drained };
	struct queue *q;

	drained = 0;
	test_now = NS_PER_S;
	assert_int_equal(queue_new(&q, &config, NULL), 0);
	return q;
}

static void put(struct queue *q, unsigned i, int64_t event_ns)
{
	struct key key = key_of(i);

	queue_put(q, &key, event_ns);
}

static void done(struct queue *q, unsigned i, int result)
{
	struct key key = key_of(i);

	queue_done(q, &key, result);
}

static enum queue_state state_of(struct queue *q, unsigned i)
{
	struct key key = key_of(i);
	struct queue_view view;

	queue_look(q, &key, &view);
	return view.state;
}

/* What is ready, without waiting. */
static size_t take_ready(struct queue *q, struct queue_item *items, size_t max)
{
	struct queue_stats stats;

	queue_stats(q, &stats);
	return stats.ready ? queue_take(q, items, max, &stay) : 0;
}

static void a_key_put_twice_is_one_entry_with_its_oldest_event(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_item items[4];
	struct key first = key_of(1);

	put(q, 1, 500);
	put(q, 2, 0);
	put(q, 1, 300);
	put(q, 1, 0);
	assert_int_equal(take_ready(q, items, 4), 2);
	assert_int_equal(prefix_cmp(&items[0].key.prefix, &first.prefix), 0);
	assert_int_equal(items[0].event_ns, 300);
	assert_int_equal(items[1].event_ns, 0);
	done(q, 1, 0);
	assert_int_equal(drained, 0);
	done(q, 2, 0);
	assert_int_equal(drained, 1);
	assert_int_equal(state_of(q, 1), QUEUE_NONE);
	queue_free(q);
}

static void kinds_are_different_keys(void **state)
{
	struct addr gateway = addr_from_ipv4(0xc0a80001);
	struct key nexthop = key_nexthop(&gateway);
	struct key route = key_route(&nexthop.prefix);
	struct queue *q = make(test_clock);
	struct queue_item items[4];

	queue_put(q, &nexthop, 0);
	queue_put(q, &route, 0);
	assert_int_equal(take_ready(q, items, 4), 2);
	queue_free(q);
}

static void a_key_in_work_is_not_given_twice_and_comes_again(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_item items[4];

	put(q, 1, 100);
	assert_int_equal(take_ready(q, items, 4), 1);
	put(q, 1, 200);
	put(q, 1, 150);
	assert_int_equal(take_ready(q, items, 4), 0);
	assert_int_equal(state_of(q, 1), QUEUE_WORKING);
	done(q, 1, 0);
	assert_int_equal(drained, 0);
	assert_int_equal(take_ready(q, items, 4), 1);
	assert_int_equal(items[0].event_ns, 150);
	done(q, 1, 0);
	assert_int_equal(drained, 1);
	assert_int_equal(state_of(q, 1), QUEUE_NONE);
	queue_free(q);
}

static void a_failed_key_waits_longer_each_time_until_it_succeeds(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_item items[4];
	struct key key = key_of(1);
	int64_t longest = 0;

	put(q, 1, 0);
	for (unsigned tries = 0; tries < 20; tries++) {
		struct queue_view view;
		int64_t full = tries < 9 ? (NS_PER_S / 10) << tries : 30 * NS_PER_S;

		full = full > 30 * NS_PER_S ? 30 * NS_PER_S : full;
		assert_int_equal(queue_take(q, items, 4, &stay), 1);
		assert_int_equal(items[0].tries, tries);
		done(q, 1, -ENETUNREACH);
		queue_look(q, &key, &view);
		assert_int_equal(view.state, QUEUE_DELAYED);
		assert_int_equal(view.tries, tries + 1);
		assert_int_equal(view.error, -ENETUNREACH);
		assert_in_range(view.next_try_ns - test_now, full / 2, full);
		longest = view.next_try_ns - test_now > longest ? view.next_try_ns - test_now
								: longest;
		test_now = view.next_try_ns;
	}
	assert_true(longest >= 15 * NS_PER_S);
	assert_int_equal(queue_take(q, items, 4, &stay), 1);
	done(q, 1, 0);
	put(q, 1, 0);
	assert_int_equal(take_ready(q, items, 4), 1);
	assert_int_equal(items[0].tries, 0);
	queue_free(q);
}

static void a_put_ends_the_delay_but_not_the_count(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_item items[4];

	put(q, 1, 0);
	assert_int_equal(queue_take(q, items, 4, &stay), 1);
	done(q, 1, -EEXIST);
	assert_int_equal(drained, 1); /* what waits for its next try holds nobody up */
	assert_int_equal(take_ready(q, items, 4), 0);
	put(q, 1, 0);
	assert_int_equal(take_ready(q, items, 4), 1);
	assert_int_equal(items[0].tries, 1);
	queue_free(q);
}

static void delays_end_in_the_order_of_their_time(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_item items[64];

	for (unsigned i = 0; i < 64; i++)
		put(q, i, 0);
	assert_int_equal(queue_take(q, items, 64, &stay), 64);
	for (unsigned i = 0; i < 64; i++)
		done(q, i, -EIO);
	assert_int_equal(take_ready(q, items, 64), 0);
	test_now += NS_PER_S / 10;
	assert_int_equal(queue_take(q, items, 64, &stay), 64);
	queue_free(q);
}

static void held_puts_are_all_there_afterwards(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_item items[8];

	queue_hold(q);
	queue_hold(q);
	for (unsigned i = 0; i < 5; i++)
		put(q, i, 0);
	queue_release(q);
	queue_release(q);
	assert_int_equal(queue_take(q, items, 8, &stay), 5);
	queue_free(q);
}

static void stop_and_quit_end_the_wait(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_item items[4];
	atomic_bool quit = true;

	put(q, 1, 0);
	assert_int_equal(queue_take(q, items, 4, &quit), 0);
	queue_stop(q);
	assert_int_equal(queue_take(q, items, 4, &stay), 0);
	queue_free(q);
}

/* -- many threads: no key is ever in two hands, and none is forgotten ----------- */

#define KEYS	50
#define THREADS 4
#define PUTS	20000

static _Atomic int in_work[KEYS];
static _Atomic unsigned worked, clashes;

static void *work(void *arg)
{
	struct queue *q = arg;
	struct queue_item items[8];
	size_t n;

	while ((n = queue_take(q, items, 8, &stay)) > 0) {
		for (size_t i = 0; i < n; i++) {
			unsigned at = addr_to_ipv4(&items[i].key.prefix.addr) >> 8 & 0xff;

			clashes += atomic_fetch_add(&in_work[at], 1) != 0;
		}
		for (size_t i = 0; i < n; i++) {
			unsigned at = addr_to_ipv4(&items[i].key.prefix.addr) >> 8 & 0xff;

			in_work[at]--;
			queue_done(q, &items[i].key, worked++ % 7 == 0 ? -EIO : 0);
		}
	}
	return NULL;
}

static void workers_never_share_a_key(void **state)
{
	struct thread threads[THREADS] = { 0 };
	struct queue *q = make(clock_ns);
	struct queue_stats stats;

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(thread_start(&threads[i], "work", work, q), 0);
	for (unsigned i = 0; i < PUTS; i++)
		put(q, i * 7919 % KEYS, 0);
	do
		queue_stats(q, &stats);
	while (stats.ready || stats.working || stats.delayed);
	queue_stop(q);
	for (int i = 0; i < THREADS; i++)
		thread_join(&threads[i]);
	assert_int_equal(clashes, 0);
	assert_true(worked >= KEYS);
	assert_true(drained > 0);
	queue_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_put_twice_is_one_entry_with_its_oldest_event),
		cmocka_unit_test(kinds_are_different_keys),
		cmocka_unit_test(a_key_in_work_is_not_given_twice_and_comes_again),
		cmocka_unit_test(a_failed_key_waits_longer_each_time_until_it_succeeds),
		cmocka_unit_test(a_put_ends_the_delay_but_not_the_count),
		cmocka_unit_test(delays_end_in_the_order_of_their_time),
		cmocka_unit_test(held_puts_are_all_there_afterwards),
		cmocka_unit_test(stop_and_quit_end_the_wait),
		cmocka_unit_test(workers_never_share_a_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
