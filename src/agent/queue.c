/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One entry per key, in a tree by key. An entry is in one of three states: ready (in a list, first
 * come first served), working, or delayed (in a second tree, by the time it is due). A key that is
 * neither has no entry: a success frees it, and its backoff with it.
 */
#include "queue.h"

#include <bsd/sys/queue.h>
#include <errno.h>
#include <stdlib.h>

#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"
#include "poplin/base/tree.h"

#define BACKOFF_MIN_NS (NS_PER_S / 10)
#define BACKOFF_MAX_NS (30 * NS_PER_S)

struct entry {
	RB_ENTRY(entry) by_key;
	union {
		TAILQ_ENTRY(entry) in_ready;
		RB_ENTRY(entry) by_due;
	};
	struct key key;
	enum queue_state state;
	bool again; /* QUEUE_WORKING: it was put meanwhile */
	unsigned tries;
	int error;
	int64_t event_ns;
	int64_t due_ns;
};

RB_HEAD(key_tree, entry);
RB_HEAD(due_tree, entry);
TAILQ_HEAD(entry_list, entry);

struct queue {
	struct queue_config config;
	struct mutex lock;
	struct cond wake;
	/* Under lock. */
	struct key_tree keys;
	struct due_tree due;
	struct entry_list ready;
	struct queue_stats stats;
	bool stopped;
	unsigned held;
};

static int key_cmp(const struct entry *a, const struct entry *b)
{
	if (a->key.kind != b->key.kind)
		return a->key.kind < b->key.kind ? -1 : 1;
	return prefix_cmp(&a->key.prefix, &b->key.prefix);
}

static int due_cmp(const struct entry *a, const struct entry *b)
{
	if (a->due_ns != b->due_ns)
		return a->due_ns < b->due_ns ? -1 : 1;
	return key_cmp(a, b);
}

TREE_GENERATE(key_tree, entry, by_key, key_cmp)
TREE_GENERATE(due_tree, entry, by_due, due_cmp)

struct key key_route(const struct prefix *prefix)
{
	return (struct key){ .kind = KEY_ROUTE, .prefix = *prefix };
}

struct key key_nexthop(const struct addr *gateway)
{
	return (struct key){
		.kind = KEY_NEXTHOP,
		.prefix = { .addr = *gateway, .len = (uint8_t)addr_bits(gateway) },
	};
}

int queue_new(struct queue **ret, const struct queue_config *config, struct err *err)
{
	struct queue *q = calloc(1, sizeof(*q));

	if (!q)
		return err_errno(err, -ENOMEM, "work queue");
	q->config = *config;
	mutex_init(&q->lock, LOCK_QUEUE);
	cond_init(&q->wake);
	RB_INIT(&q->keys);
	RB_INIT(&q->due);
	TAILQ_INIT(&q->ready);
	*ret = q;
	return 0;
}

void queue_free(struct queue *q)
{
	struct entry *e, *next;

	RB_FOREACH_SAFE(e, key_tree, &q->keys, next)
	{
		RB_REMOVE(key_tree, &q->keys, e);
		free(e);
	}
	cond_done(&q->wake);
	mutex_done(&q->lock);
	free(q);
}

static struct entry *find_locked(struct queue *q, const struct key *key)
{
	struct entry wanted = { .key = *key };

	return RB_FIND(key_tree, &q->keys, &wanted);
}

/* -- changes of state -------------------------------------------------------- */

static void make_ready_locked(struct queue *q, struct entry *e)
{
	e->state = QUEUE_READY;
	TAILQ_INSERT_TAIL(&q->ready, e, in_ready);
	q->stats.ready++;
	if (!q->held)
		cond_signal(&q->wake);
}

static void make_delayed_locked(struct queue *q, struct entry *e)
{
	e->state = QUEUE_DELAYED;
	e->due_ns = q->config.now() + backoff_ns(e->tries, BACKOFF_MIN_NS, BACKOFF_MAX_NS);
	RB_INSERT(due_tree, &q->due, e);
	q->stats.delayed++;
	cond_signal(&q->wake); /* it may be due earlier than what the sleeper waits for */
}

static void end_delay_locked(struct queue *q, struct entry *e)
{
	RB_REMOVE(due_tree, &q->due, e);
	q->stats.delayed--;
	make_ready_locked(q, e);
}

static void note_event_locked(struct entry *e, int64_t event_ns)
{
	if (event_ns && (!e->event_ns || event_ns < e->event_ns))
		e->event_ns = event_ns;
}

/* -- putting ----------------------------------------------------------------- */

static void put_locked(struct queue *q, const struct key *key, int64_t event_ns)
{
	struct entry *e = find_locked(q, key);

	metric_inc(METRIC_WORKQUEUE_ADDS);
	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e) {
			log_limited(LOG_ERROR, "out of memory, a key waits for the next resync");
			return;
		}
		e->key = *key;
		RB_INSERT(key_tree, &q->keys, e);
		make_ready_locked(q, e);
	} else if (e->state == QUEUE_WORKING) {
		e->again = true;
	} else if (e->state == QUEUE_DELAYED) {
		end_delay_locked(q, e);
	}
	note_event_locked(e, event_ns);
}

void queue_put(struct queue *q, const struct key *key, int64_t event_ns)
{
	mutex_hold(&q->lock);
	put_locked(q, key, event_ns);
}

void queue_hold(struct queue *q)
{
	mutex_hold(&q->lock);
	q->held++;
}

void queue_release(struct queue *q)
{
	mutex_hold(&q->lock);
	if (--q->held == 0 && !TAILQ_EMPTY(&q->ready))
		cond_signal(&q->wake);
}

/* -- taking ------------------------------------------------------------------ */

/* What is due becomes ready. Returns when the next one will be due, or INT64_MAX. */
static int64_t collect_due_locked(struct queue *q)
{
	int64_t now = q->config.now();
	struct entry *e;

	while ((e = RB_MIN(due_tree, &q->due)) && e->due_ns <= now)
		end_delay_locked(q, e);
	return e ? e->due_ns : INT64_MAX;
}

size_t queue_take(struct queue *q, struct queue_item *ret, size_t max, const atomic_bool *quit)
{
	size_t n = 0;

	mutex_hold(&q->lock);
	for (;;) {
		int64_t due = collect_due_locked(q);

		if (q->stopped || *quit)
			return 0;
		if (!TAILQ_EMPTY(&q->ready))
			break;
		if (due == INT64_MAX)
			cond_wait(&q->wake, &q->lock);
		else
			(void)cond_wait_until(&q->wake, &q->lock, due);
	}
	for (; n < max && !TAILQ_EMPTY(&q->ready); n++) {
		struct entry *e = TAILQ_FIRST(&q->ready);

		TAILQ_REMOVE(&q->ready, e, in_ready);
		q->stats.ready--;
		q->stats.working++;
		e->state = QUEUE_WORKING;
		e->again = false;
		ret[n] = (struct queue_item){ e->key, e->tries, e->event_ns };
		e->event_ns = 0;
	}
	/* One put wakes one sleeper; whoever leaves work behind wakes the next. */
	if (!TAILQ_EMPTY(&q->ready))
		cond_signal(&q->wake);
	return n;
}

/* -- giving back ------------------------------------------------------------- */

static bool drained_locked(const struct queue *q)
{
	return q->stats.ready == 0 && q->stats.working == 0;
}

static bool done_locked(struct queue *q, const struct key *key, int result)
{
	struct entry *e = find_locked(q, key);

	if (!e || e->state != QUEUE_WORKING)
		return false;
	q->stats.working--;
	e->error = result;
	e->tries = result < 0 ? e->tries + 1 : 0;
	if (result < 0)
		metric_inc(METRIC_WORKQUEUE_RETRIES);
	if (e->again) {
		make_ready_locked(q, e);
	} else if (result < 0) {
		make_delayed_locked(q, e);
	} else {
		RB_REMOVE(key_tree, &q->keys, e);
		free(e);
	}
	return drained_locked(q);
}

void queue_done(struct queue *q, const struct key *key, int result)
{
	bool drained;

	mutex_lock(&q->lock);
	drained = done_locked(q, key, result);
	mutex_unlock(&q->lock);
	if (drained && q->config.on_drained)
		q->config.on_drained(q->config.arg);
}

/* -- the rest ---------------------------------------------------------------- */

void queue_wake(struct queue *q)
{
	mutex_hold(&q->lock);
	cond_broadcast(&q->wake);
}

void queue_stop(struct queue *q)
{
	mutex_hold(&q->lock);
	q->stopped = true;
	cond_broadcast(&q->wake);
}

void queue_stats(struct queue *q, struct queue_stats *ret)
{
	mutex_hold(&q->lock);
	*ret = q->stats;
}

void queue_look(struct queue *q, const struct key *key, struct queue_view *ret)
{
	mutex_hold(&q->lock);
	const struct entry *e = find_locked(q, key);

	*ret = (struct queue_view){ .state = QUEUE_NONE };
	if (e)
		*ret = (struct queue_view){ e->state, e->tries, e->error, e->due_ns };
}
