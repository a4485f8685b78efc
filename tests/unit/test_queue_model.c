/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The work queue beside a model that is too simple to be wrong.
 *
 * In step: several threads do random things; each is done to the queue and to the model under one
 * lock, and both must answer alike, down to the order of the keys. At large: the threads run free,
 * and what must be true of any interleaving is checked: no key in two hands, none forgotten, none
 * given out that nobody asked for.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "agent/queue.h"
#include "poplin/base/mem.h"
#include "poplin/base/thread.h"
#include "schedule.h"
#include "unit.h"

#define KEYS	12
#define THREADS 3
#define STEPS	60

static atomic_bool stay; /* false: nobody is to quit */
static int64_t test_now;

static int64_t test_clock(void)
{
	return test_now;
}

static struct key key_of(unsigned i)
{
	struct prefix p = { .addr = addr_from_ipv4(0x0a020000 + (i << 8)), .len = 24 };

	return key_route(&p);
}

static unsigned index_of(const struct queue_item *item)
{
	return addr_to_ipv4(&item->key.prefix.addr) >> 8 & 0xff;
}

/* -- the model ------------------------------------------------------------------ */

/* Every key there is, and when it came to where it stands. */
struct model {
	struct {
		enum queue_state state;
		enum queue_class class;
		bool again;
		unsigned tries, since;
		int64_t event_ns, due_ns;
	} keys[KEYS];
	unsigned clock, turn;
};

static void model_ready(struct model *m, unsigned i, enum queue_class class)
{
	m->keys[i].state = QUEUE_READY;
	m->keys[i].class = class;
	m->keys[i].since = m->clock++;
}

static void model_event(struct model *m, unsigned i, int64_t event_ns)
{
	if (event_ns && (!m->keys[i].event_ns || event_ns < m->keys[i].event_ns))
		m->keys[i].event_ns = event_ns;
}

static void model_put(struct model *m, unsigned i, enum queue_class class, int64_t event_ns)
{
	model_event(m, i, event_ns);
	switch (m->keys[i].state) {
	case QUEUE_READY:
		if (class < m->keys[i].class)
			model_ready(m, i, class);
		break;
	case QUEUE_WORKING:
		if (!m->keys[i].again || class < m->keys[i].class)
			m->keys[i].class = class;
		m->keys[i].again = true;
		break;
	case QUEUE_NONE:
	case QUEUE_DELAYED:
		model_ready(m, i, class);
		break;
	}
}

/* The delays that are over, in the order of their time, then of their keys. */
static void model_collect(struct model *m)
{
	for (;;) {
		int first = -1;

		for (int i = 0; i < KEYS; i++)
			if (m->keys[i].state == QUEUE_DELAYED && m->keys[i].due_ns <= test_now &&
			    (first < 0 || m->keys[i].due_ns < m->keys[first].due_ns))
				first = i;
		if (first < 0)
			return;
		model_ready(m, (unsigned)first, QUEUE_RESYNC);
	}
}

static int model_first(const struct model *m, enum queue_class class)
{
	int first = -1;

	for (int i = 0; i < KEYS; i++)
		if (m->keys[i].state == QUEUE_READY && m->keys[i].class == class &&
		    (first < 0 || m->keys[i].since < m->keys[first].since))
			first = i;
	return first;
}

/* Of eight turns one is a change's and one a resync's; else the most urgent goes first. */
static int model_take(struct model *m)
{
	unsigned turn = m->turn % 8;
	int i = model_first(m, turn == 3 ? QUEUE_CHANGE : turn == 7 ? QUEUE_RESYNC : QUEUE_REPAIR);

	for (unsigned class = 0; i < 0 && class < QUEUE_CLASSES; class ++)
		i = model_first(m, (enum queue_class) class);
	m->turn++;
	if (i >= 0) {
		m->keys[i].state = QUEUE_WORKING;
		m->keys[i].again = false;
	}
	return i;
}

/* What failed keeps its event. */
static void model_done(struct model *m, unsigned i, int result, int64_t event_ns, int64_t due_ns)
{
	if (result < 0)
		model_event(m, i, event_ns);
	m->keys[i].tries = result < 0 ? m->keys[i].tries + 1 : 0;
	if (m->keys[i].again) {
		model_ready(m, i, m->keys[i].class);
	} else if (result < 0) {
		m->keys[i].state = QUEUE_DELAYED;
		m->keys[i].due_ns = due_ns;
	} else {
		m->keys[i].state = QUEUE_NONE;
		m->keys[i].event_ns = 0;
	}
}

/* -- in step -------------------------------------------------------------------- */

static struct step {
	struct mutex lock;
	struct queue *queue;
	struct model model;
	struct queue_item taken[KEYS];
	unsigned ntaken;
	char wrong[128]; /* what differed first; "" while all is well */
} step;

static void differs(const char *what, unsigned key)
{
	if (!step.wrong[0])
		(void)snprintf(step.wrong, sizeof(step.wrong), "%s, key %u", what, key);
}

static void compare_states(void)
{
	struct queue_row rows[KEYS + 1];
	size_t n = queue_list(step.queue, NULL, rows, countof(rows)), at = 0;
	struct queue_stats stats;
	size_t count[QUEUE_DELAYED + 1] = { 0 };

	for (unsigned i = 0; i < KEYS; i++) {
		struct key key = key_of(i);
		struct queue_view view;

		queue_look(step.queue, &key, &view);
		count[step.model.keys[i].state]++;
		if (view.state != step.model.keys[i].state)
			differs("state", i);
		if (view.state == QUEUE_NONE)
			continue;
		if (view.tries != step.model.keys[i].tries)
			differs("tries", i);
		if (at >= n || prefix_cmp(&rows[at++].key.prefix, &key.prefix) != 0)
			differs("list", i);
	}
	queue_stats(step.queue, &stats);
	if (at != n || stats.ready != count[QUEUE_READY] || stats.working != count[QUEUE_WORKING] ||
	    stats.delayed != count[QUEUE_DELAYED])
		differs("counts", 0);
}

static void step_take(struct dice *d)
{
	struct queue_item got[KEYS];
	unsigned max = 1 + roll(d, KEYS);
	size_t n;

	model_collect(&step.model);
	for (n = 0; n < KEYS && step.model.keys[n].state != QUEUE_READY; n++)
		;
	if (n == KEYS)
		return; /* nothing is ready: it would wait */
	n = queue_take(step.queue, got, max, &stay);
	for (size_t i = 0; i < max; i++) {
		int expected = model_take(&step.model);

		if (expected < 0) {
			if (i != n)
				differs("number taken", (unsigned)n);
			return;
		}
		if (i >= n || index_of(&got[i]) != (unsigned)expected) {
			differs("order", (unsigned)expected);
			return;
		}
		if (got[i].tries != step.model.keys[expected].tries ||
		    got[i].event_ns != step.model.keys[expected].event_ns ||
		    got[i].from_ns != got[i].event_ns)
			differs("item", (unsigned)expected);
		step.model.keys[expected].event_ns = 0;
		step.taken[step.ntaken++] = got[i];
	}
}

static void step_done(struct dice *d)
{
	struct queue_view view;
	struct queue_item item;
	unsigned at;
	int result = roll(d, 3) ? 0 : -EIO;

	if (step.ntaken == 0)
		return;
	at = roll(d, step.ntaken);
	item = step.taken[at];
	step.taken[at] = step.taken[--step.ntaken];
	queue_done(step.queue, &item, result);
	queue_look(step.queue, &item.key, &view); /* the jitter is the queue's own */
	model_done(&step.model, index_of(&item), result, item.event_ns, view.next_try_ns);
}

static void step_put(struct dice *d)
{
	unsigned i = roll(d, KEYS);
	enum queue_class class = (enum queue_class)roll(d, QUEUE_CLASSES);
	int64_t event_ns = roll(d, 4);
	struct key key = key_of(i);

	queue_put(step.queue, &key, class, event_ns);
	model_put(&step.model, i, class, event_ns);
}

static void *walk_in_step(void *arg)
{
	struct dice *d = arg;

	for (int i = 0; i < STEPS; i++) {
		mutex_lock(&step.lock);
		if (step.wrong[0]) { /* they have parted: a take might wait for ever */
			mutex_unlock(&step.lock);
			break;
		}
		switch (roll(d, 5)) {
		case 0:
			step_take(d);
			break;
		case 1:
			step_done(d);
			break;
		case 2:
			test_now += roll(d, 20) * NS_PER_MS;
			break;
		default:
			step_put(d);
		}
		compare_states();
		mutex_unlock(&step.lock);
	}
	return NULL;
}

static void the_queue_and_the_model_do_the_same(void **state)
{
	const struct queue_config config = { .now = test_clock };
	unsigned count = schedules(3000);

	mutex_init(&step.lock, LOCK_AGENT); /* above the queue's */
	for (unsigned s = 0; s < count; s++) {
		struct thread threads[THREADS] = { 0 };
		struct dice dice[THREADS];

		memset(&step.model, 0, sizeof(step.model));
		step.ntaken = 0;
		test_now = NS_PER_S;
		assert_int_equal(queue_new(&step.queue, &config, NULL), 0);
		for (unsigned i = 0; i < THREADS; i++) {
			dice[i] = dice_of(s, i);
			assert_int_equal(thread_start(&threads[i], "step", walk_in_step, &dice[i]),
					 0);
		}
		for (unsigned i = 0; i < THREADS; i++)
			thread_join(&threads[i]);
		queue_free(step.queue);
		if (step.wrong[0])
			fail_msg("schedule %u: %s", s, step.wrong);
	}
	mutex_done(&step.lock);
}

/* -- at large ------------------------------------------------------------------- */

static struct large {
	struct queue *queue;
	_Atomic unsigned asked[KEYS]; /* puts that began */
	_Atomic unsigned told[KEYS];  /* of these, how many a worker knew of when it began */
	_Atomic int hands[KEYS];
	_Atomic unsigned given, clashes;
} large;

static void *put_at_large(void *arg)
{
	struct dice *d = arg;

	for (int i = 0; i < STEPS; i++) {
		unsigned at = roll(d, KEYS);
		struct key key = key_of(at);
		bool hold = roll(d, 8) == 0;

		if (hold)
			queue_hold(large.queue);
		large.asked[at]++;
		queue_put(large.queue, &key, (enum queue_class)roll(d, QUEUE_CLASSES), 0);
		if (hold)
			queue_release(large.queue);
	}
	return NULL;
}

static void *work_at_large(void *arg)
{
	struct dice *d = arg;
	struct queue_item got[5];
	size_t n;

	while ((n = queue_take(large.queue, got, 1 + roll(d, 5), &stay)) > 0) {
		for (size_t i = 0; i < n; i++) {
			unsigned at = index_of(&got[i]);

			large.clashes += atomic_fetch_add(&large.hands[at], 1) != 0;
			large.told[at] = large.asked[at];
		}
		for (size_t i = 0; i < n; i++) {
			large.hands[index_of(&got[i])]--;
			large.given++;
			queue_done(large.queue, &got[i], roll(d, 6) ? 0 : -EIO);
		}
	}
	return NULL;
}

static void run_at_large(unsigned schedule)
{
	const struct queue_config config = { .now = clock_ns };
	struct thread putters[2] = { 0 }, workers[THREADS] = { 0 };
	struct dice dice[2 + THREADS];

	memset(&large, 0, sizeof(large));
	assert_int_equal(queue_new(&large.queue, &config, NULL), 0);
	for (unsigned i = 0; i < countof(dice); i++)
		dice[i] = dice_of(schedule, i);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(thread_start(&workers[i], "work", work_at_large, &dice[2 + i]), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(thread_start(&putters[i], "put", put_at_large, &dice[i]), 0);
	for (unsigned i = 0; i < 2; i++)
		thread_join(&putters[i]);
	/* Not a delay is waited for: what was asked for last comes first. */
	queue_stop(large.queue, QUEUE_DRAIN);
	for (unsigned i = 0; i < THREADS; i++)
		thread_join(&workers[i]);
}

static void no_key_is_forgotten_or_in_two_hands(void **state)
{
	unsigned count = schedules(1000);

	for (unsigned s = 0; s < count; s++) {
		unsigned asked = 0;
		struct queue_stats stats;

		run_at_large(s);
		queue_stats(large.queue, &stats);
		if (large.clashes || stats.ready || stats.working)
			fail_msg("schedule %u: %u clashes, %zu ready, %zu in work", s,
				 large.clashes, stats.ready, stats.working);
		for (unsigned i = 0; i < KEYS; i++) {
			asked += large.asked[i];
			if (large.told[i] != large.asked[i])
				fail_msg("schedule %u: key %u was put %u times, seen at %u", s, i,
					 large.asked[i], large.told[i]);
		}
		assert_true(large.given > 0 && asked == 2 * STEPS);
		queue_free(large.queue);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_queue_and_the_model_do_the_same),
		cmocka_unit_test(no_key_is_forgotten_or_in_two_hands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
