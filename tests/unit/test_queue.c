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

/* What take() gave out last; done() looks up its item there. */
static struct queue_item items[64];

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

static void put_class(struct queue *q, unsigned i, enum queue_class class)
{
	struct key key = key_of(i);

	queue_put(q, &key, class, 0);
}

static void put(struct queue *q, unsigned i, int64_t event_ns)
{
	struct key key = key_of(i);

	queue_put(q, &key, QUEUE_CHANGE, event_ns);
}

static unsigned index_of(const struct queue_item *item)
{
	return addr_to_ipv4(&item->key.prefix.addr) >> 8 & 0xff;
}

static void done(struct queue *q, unsigned i, int result)
{
	for (unsigned at = 0; at < countof(items); at++) {
		if (!items[at].entry || index_of(&items[at]) != i)
			continue;
		queue_done(q, &items[at], result);
		items[at].entry = NULL;
		return;
	}
	fail_msg("key %u is not in work", i);
}

static enum queue_state state_of(struct queue *q, unsigned i)
{
	struct key key = key_of(i);
	struct queue_view view;

	queue_look(q, &key, &view);
	return view.state;
}

static size_t take(struct queue *q, size_t max)
{
	return queue_take(q, items, max, &stay);
}

/* What is ready, without waiting. */
static size_t take_ready(struct queue *q, size_t max)
{
	struct queue_stats stats;

	queue_stats(q, &stats);
	return stats.ready ? take(q, max) : 0;
}

static void a_key_put_twice_is_one_entry_with_its_oldest_event(void **state)
{
	struct queue *q = make(test_clock);
	struct key first = key_of(1);

	put(q, 1, 500);
	put(q, 2, 0);
	put(q, 1, 300);
	put(q, 1, 0);
	assert_int_equal(take_ready(q, 4), 2);
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

static void a_key_that_failed_keeps_its_event(void **state)
{
	struct queue *q = make(test_clock);

	put(q, 1, 500);
	assert_int_equal(take_ready(q, 4), 1);
	put(q, 1, 700);
	done(q, 1, -EIO);
	assert_int_equal(take_ready(q, 4), 1);
	assert_int_equal(items[0].event_ns, 500);
	assert_int_equal(items[0].from_ns, 500);
	done(q, 1, 0);
	put(q, 1, 900);
	assert_int_equal(take_ready(q, 4), 1);
	assert_int_equal(items[0].event_ns, 900);
	queue_free(q);
}

static void kinds_are_different_keys(void **state)
{
	struct addr gateway = addr_from_ipv4(0xc0a80001);
	struct key nexthop = key_nexthop(&gateway);
	struct key route = key_route(&nexthop.prefix);
	struct queue *q = make(test_clock);

	queue_put(q, &nexthop, QUEUE_CHANGE, 0);
	queue_put(q, &route, QUEUE_CHANGE, 0);
	assert_int_equal(take_ready(q, 4), 2);
	queue_free(q);
}

static void a_key_in_work_is_not_given_twice_and_comes_again(void **state)
{
	struct queue *q = make(test_clock);

	put(q, 1, 100);
	assert_int_equal(take_ready(q, 4), 1);
	put(q, 1, 200);
	put(q, 1, 150);
	assert_int_equal(take_ready(q, 4), 0);
	assert_int_equal(state_of(q, 1), QUEUE_WORKING);
	done(q, 1, 0);
	assert_int_equal(drained, 0);
	assert_int_equal(take_ready(q, 4), 1);
	assert_int_equal(items[0].event_ns, 150);
	done(q, 1, 0);
	assert_int_equal(drained, 1);
	assert_int_equal(state_of(q, 1), QUEUE_NONE);
	queue_free(q);
}

/* A record that went and came back: nobody may look while it is away. */
static void a_key_put_for_later_waits_whatever_its_state(void **state)
{
	struct queue *q = make(test_clock);
	struct key key = key_of(1);

	queue_put_later(q, &key, QUEUE_CHANGE, 100, NS_PER_S); /* new */
	assert_int_equal(state_of(q, 1), QUEUE_DELAYED);
	put(q, 1, 0);
	assert_int_equal(state_of(q, 1), QUEUE_READY);
	queue_put_later(q, &key, QUEUE_CHANGE, 0, NS_PER_S); /* ready */
	assert_int_equal(take_ready(q, 4), 0);
	test_now += NS_PER_S / 2;
	queue_put_later(q, &key, QUEUE_CHANGE, 0, NS_PER_S); /* delayed */
	test_now += NS_PER_S;
	assert_int_equal(take(q, 4), 1);
	assert_int_equal(items[0].event_ns, 100);
	assert_true(items[0].from_ns >= NS_PER_S && items[0].from_ns <= test_now);
	queue_put_later(q, &key, QUEUE_CHANGE, 0, NS_PER_S); /* in work */
	done(q, 1, 0);
	assert_int_equal(state_of(q, 1), QUEUE_DELAYED);
	test_now += NS_PER_S;
	assert_int_equal(take(q, 4), 1);
	queue_put_later(q, &key, QUEUE_CHANGE, 0, NS_PER_S);
	put(q, 1, 0); /* it is back */
	done(q, 1, 0);
	assert_int_equal(state_of(q, 1), QUEUE_READY);
	queue_free(q);
}

static void what_waits_for_later_counts_as_no_failure(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_stats stats;
	struct key key = key_of(1);

	queue_put_later(q, &key, QUEUE_CHANGE, 0, NS_PER_S);
	queue_stats(q, &stats);
	assert_int_equal(stats.delayed, 0);
	test_now += NS_PER_S;
	assert_int_equal(take(q, 1), 1);
	done(q, 1, -EINVAL);
	queue_stats(q, &stats);
	assert_int_equal(stats.delayed, 1);
	queue_put_later(q, &key, QUEUE_CHANGE, 0, NS_PER_S);
	queue_stats(q, &stats);
	assert_int_equal(stats.delayed, 1);
	put(q, 1, 0);
	queue_stats(q, &stats);
	assert_int_equal(stats.delayed, 0);
	queue_free(q);
}

static void a_failed_key_waits_longer_each_time_until_it_succeeds(void **state)
{
	struct queue *q = make(test_clock);
	struct key key = key_of(1);
	int64_t longest = 0;

	put(q, 1, 0);
	for (unsigned tries = 0; tries < 20; tries++) {
		struct queue_view view;
		int64_t full = tries < 14 ? (5 * NS_PER_MS) << tries : 60 * NS_PER_S;

		full = full > 60 * NS_PER_S ? 60 * NS_PER_S : full;
		assert_int_equal(take(q, 4), 1);
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
	assert_true(longest >= 30 * NS_PER_S);
	assert_int_equal(take(q, 4), 1);
	done(q, 1, 0);
	put(q, 1, 0);
	assert_int_equal(take_ready(q, 4), 1);
	assert_int_equal(items[0].tries, 0);
	queue_free(q);
}

static void a_put_ends_the_delay_but_not_the_count(void **state)
{
	struct queue *q = make(test_clock);

	put(q, 1, 0);
	assert_int_equal(take(q, 4), 1);
	done(q, 1, -EEXIST);
	assert_int_equal(drained, 1); /* what waits for its next try holds nobody up */
	assert_int_equal(take_ready(q, 4), 0);
	put(q, 1, 0);
	assert_int_equal(take_ready(q, 4), 1);
	assert_int_equal(items[0].tries, 1);
	queue_free(q);
}

static void delays_end_in_the_order_of_their_time(void **state)
{
	struct queue *q = make(test_clock);

	for (unsigned i = 0; i < 64; i++)
		put(q, i, 0);
	assert_int_equal(take(q, 64), 64);
	for (unsigned i = 0; i < 64; i++)
		done(q, i, -EIO);
	assert_int_equal(take_ready(q, 64), 0);
	test_now += 5 * NS_PER_MS;
	assert_int_equal(take(q, 64), 64);
	queue_free(q);
}

static void held_puts_are_all_there_afterwards(void **state)
{
	struct queue *q = make(test_clock);

	queue_hold(q);
	queue_hold(q);
	for (unsigned i = 0; i < 5; i++)
		put(q, i, 0);
	queue_release(q);
	queue_release(q);
	assert_int_equal(take(q, 8), 5);
	queue_free(q);
}

static void stop_and_quit_end_the_wait(void **state)
{
	struct queue *q = make(test_clock);
	atomic_bool quit = true;

	put(q, 1, 0);
	assert_int_equal(queue_take(q, items, 4, &quit), 0);
	queue_stop(q, QUEUE_DROP);
	assert_int_equal(take(q, 4), 0);
	put(q, 2, 0);
	assert_int_equal(state_of(q, 2), QUEUE_NONE);
	queue_free(q);
}

static void a_drained_queue_gives_out_what_is_ready_and_no_more(void **state)
{
	struct queue *q = make(test_clock);

	put(q, 1, 0);
	put(q, 2, 0);
	put(q, 3, 0);
	assert_int_equal(take(q, 2), 2);
	queue_stop(q, QUEUE_DRAIN);
	put(q, 1, 0); /* while it is in work: it changed once more */
	done(q, 1, 0);
	done(q, 2, -EIO);
	test_now += 60 * NS_PER_S; /* its delay is over, but a drain waits for no delay */
	assert_int_equal(take(q, 4), 2);
	assert_int_equal(index_of(&items[0]), 3);
	assert_int_equal(index_of(&items[1]), 1);
	done(q, 3, 0);
	done(q, 1, 0);
	assert_int_equal(take(q, 4), 0);
	assert_int_equal(state_of(q, 2), QUEUE_DELAYED);
	queue_free(q);
}

/* -- classes -------------------------------------------------------------------- */

static void a_repair_goes_before_a_mass(void **state)
{
	struct queue *q = make(test_clock);

	for (unsigned i = 0; i < 100; i++)
		put_class(q, i, QUEUE_RESYNC);
	put_class(q, 201, QUEUE_REPAIR);
	assert_int_equal(take(q, 1), 1);
	assert_int_equal(index_of(&items[0]), 201);
	queue_free(q);
}

static void a_key_of_a_mass_that_is_put_as_a_repair_becomes_one(void **state)
{
	struct queue *q = make(test_clock);

	for (unsigned i = 0; i < 100; i++)
		put_class(q, i, QUEUE_RESYNC);
	put_class(q, 50, QUEUE_REPAIR);
	put_class(q, 50, QUEUE_CHANGE); /* which takes nothing away */
	assert_int_equal(take(q, 1), 1);
	assert_int_equal(index_of(&items[0]), 50);
	/* While it is in work, likewise. */
	put_class(q, 50, QUEUE_RESYNC);
	put_class(q, 50, QUEUE_REPAIR);
	done(q, 50, 0);
	assert_int_equal(take(q, 1), 1);
	assert_int_equal(index_of(&items[0]), 50);
	queue_free(q);
}

static void no_class_starves(void **state)
{
	struct queue *q = make(test_clock);
	unsigned taken[QUEUE_CLASSES] = { 0 };

	for (unsigned i = 0; i < 64; i++)
		put_class(q, i, (enum queue_class)(i % QUEUE_CLASSES));
	for (unsigned i = 0; i < 24; i++) {
		assert_int_equal(take(q, 1), 1);
		taken[index_of(&items[0]) % QUEUE_CLASSES]++;
	}
	assert_int_equal(taken[QUEUE_REPAIR], 18);
	assert_int_equal(taken[QUEUE_CHANGE], 3);
	assert_int_equal(taken[QUEUE_RESYNC], 3);
	queue_free(q);
}

static void failed_keys_wait_behind_what_is_new(void **state)
{
	struct queue *q = make(test_clock);

	put_class(q, 1, QUEUE_REPAIR);
	assert_int_equal(take(q, 1), 1);
	done(q, 1, -EIO);
	test_now += 5 * NS_PER_MS;
	put_class(q, 2, QUEUE_CHANGE);
	assert_int_equal(take(q, 1), 1);
	assert_int_equal(index_of(&items[0]), 2);
	queue_free(q);
}

static void the_list_of_keys_can_be_read_in_parts(void **state)
{
	struct queue *q = make(test_clock);
	struct queue_row rows[7];
	unsigned seen = 0;
	size_t n;

	for (unsigned i = 0; i < 100; i++)
		put(q, 99 - i, 0);
	assert_int_equal(take(q, 1), 1); /* key 99 */
	done(q, 99, -EIO);
	n = queue_list(q, NULL, rows, countof(rows));
	while (n > 0) {
		for (size_t i = 0; i < n; i++, seen++) {
			struct key key = key_of(seen);

			assert_int_equal(prefix_cmp(&rows[i].key.prefix, &key.prefix), 0);
			assert_int_equal(rows[i].view.state,
					 seen == 99 ? QUEUE_DELAYED : QUEUE_READY);
		}
		n = queue_list(q, &rows[n - 1].key, rows, countof(rows));
	}
	assert_int_equal(seen, 100);
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
	struct queue_item taken[8];
	size_t n;

	while ((n = queue_take(q, taken, 8, &stay)) > 0) {
		for (size_t i = 0; i < n; i++)
			clashes += atomic_fetch_add(&in_work[index_of(&taken[i])], 1) != 0;
		for (size_t i = 0; i < n; i++) {
			in_work[index_of(&taken[i])]--;
			queue_done(q, &taken[i], worked++ % 7 == 0 ? -EIO : 0);
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
	queue_stop(q, QUEUE_DROP);
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
		cmocka_unit_test(a_key_that_failed_keeps_its_event),
		cmocka_unit_test(kinds_are_different_keys),
		cmocka_unit_test(a_key_in_work_is_not_given_twice_and_comes_again),
		cmocka_unit_test(a_key_put_for_later_waits_whatever_its_state),
		cmocka_unit_test(what_waits_for_later_counts_as_no_failure),
		cmocka_unit_test(a_failed_key_waits_longer_each_time_until_it_succeeds),
		cmocka_unit_test(a_put_ends_the_delay_but_not_the_count),
		cmocka_unit_test(delays_end_in_the_order_of_their_time),
		cmocka_unit_test(held_puts_are_all_there_afterwards),
		cmocka_unit_test(stop_and_quit_end_the_wait),
		cmocka_unit_test(a_drained_queue_gives_out_what_is_ready_and_no_more),
		cmocka_unit_test(a_repair_goes_before_a_mass),
		cmocka_unit_test(a_key_of_a_mass_that_is_put_as_a_repair_becomes_one),
		cmocka_unit_test(no_class_starves),
		cmocka_unit_test(failed_keys_wait_behind_what_is_new),
		cmocka_unit_test(the_list_of_keys_can_be_read_in_parts),
		cmocka_unit_test(workers_never_share_a_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
