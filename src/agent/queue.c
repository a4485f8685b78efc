/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One entry per key, in a tree by key. An entry is in one of three states: ready (in the list of its
 * class, first come first served), working, or delayed (in a second tree, by the time it is due). A
 * key that is neither has no entry: a success frees it, and its backoff with it.
 *
 * Entries come from chunks, so that a put allocates nothing but once in a while a chunk, and the
 * memory of a storm is given back when the queue has run empty.
 */
#include "queue.h"

#include <assert.h>
#include <bsd/sys/queue.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"
#include "poplin/base/tree.h"

#define CHUNK_ENTRIES 256

struct queue_entry {
	union {
		RB_ENTRY(queue_entry) by_key;
		SLIST_ENTRY(queue_entry) in_unused;
	};
	union {
		TAILQ_ENTRY(queue_entry) in_ready;
		RB_ENTRY(queue_entry) by_due;
	};
	struct key key;
	enum queue_state state;
	enum queue_class class;
	bool again; /* QUEUE_WORKING: it was put meanwhile */
	unsigned tries;
	int error;
	char *text; /* of the error; NULL: none */
	int64_t event_ns;
	int64_t from_ns; /* when it was first due after an event */
	int64_t due_ns;
};

struct chunk {
	SLIST_ENTRY(chunk) next;
	struct queue_entry entries[CHUNK_ENTRIES];
};

RB_HEAD(key_tree, queue_entry);
RB_HEAD(due_tree, queue_entry);
TAILQ_HEAD(ready_list, queue_entry);
SLIST_HEAD(unused_list, queue_entry);
SLIST_HEAD(chunk_list, chunk);

struct queue {
	struct queue_config config;
	struct mutex lock;
	struct cond wake;
	/* Under lock. */
	struct key_tree keys;
	struct due_tree due;
	struct ready_list ready[QUEUE_CLASSES];
	struct chunk_list chunks;
	struct unused_list unused;
	struct queue_stats stats;
	bool stopped, dropped;
	unsigned held;
	unsigned turn; /* whose it is to be served first */
};

static int key_cmp(const struct queue_entry *a, const struct queue_entry *b)
{
	if (a->key.kind != b->key.kind)
		return a->key.kind < b->key.kind ? -1 : 1;
	return prefix_cmp(&a->key.prefix, &b->key.prefix);
}

static int due_cmp(const struct queue_entry *a, const struct queue_entry *b)
{
	if (a->due_ns != b->due_ns)
		return a->due_ns < b->due_ns ? -1 : 1;
	return key_cmp(a, b);
}

TREE_GENERATE(key_tree, queue_entry, by_key, key_cmp)
TREE_GENERATE(due_tree, queue_entry, by_due, due_cmp)

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
	for (unsigned i = 0; i < QUEUE_CLASSES; i++)
		TAILQ_INIT(&q->ready[i]);
	SLIST_INIT(&q->chunks);
	SLIST_INIT(&q->unused);
	*ret = q;
	return 0;
}

static void drop_text(struct queue_entry *e)
{
	free(e->text);
	e->text = NULL;
}

static void free_chunks(struct queue *q)
{
	struct chunk *chunk;

	SLIST_INIT(&q->unused);
	while ((chunk = SLIST_FIRST(&q->chunks))) {
		SLIST_REMOVE_HEAD(&q->chunks, next);
		free(chunk);
	}
}

void queue_free(struct queue *q)
{
	struct queue_entry *e;

	RB_FOREACH (e, key_tree, &q->keys)
		drop_text(e);
	free_chunks(q);
	cond_done(&q->wake);
	mutex_done(&q->lock);
	free(q);
}

/* -- entries ----------------------------------------------------------------- */

/* NULL: out of memory. */
static struct queue_entry *new_entry_locked(struct queue *q)
{
	struct queue_entry *e;
	struct chunk *chunk;

	if (SLIST_EMPTY(&q->unused)) {
		chunk = malloc(sizeof(*chunk));
		if (!chunk)
			return NULL;
		SLIST_INSERT_HEAD(&q->chunks, chunk, next);
		for (unsigned i = CHUNK_ENTRIES; i-- > 0;)
			SLIST_INSERT_HEAD(&q->unused, &chunk->entries[i], in_unused);
	}
	e = SLIST_FIRST(&q->unused);
	SLIST_REMOVE_HEAD(&q->unused, in_unused);
	return e;
}

static void forget_entry_locked(struct queue *q, struct queue_entry *e)
{
	RB_REMOVE(key_tree, &q->keys, e);
	drop_text(e);
	SLIST_INSERT_HEAD(&q->unused, e, in_unused);
	/*
	 * A chunk that was enough stays, so that a key now and then allocates nothing. Of a storm
	 * that needed more, all go.
	 */
	if (RB_EMPTY(&q->keys) && SLIST_NEXT(SLIST_FIRST(&q->chunks), next))
		free_chunks(q);
}

static struct queue_entry *find_locked(struct queue *q, const struct key *key)
{
	struct queue_entry wanted = { .key = *key };

	return RB_FIND(key_tree, &q->keys, &wanted);
}

/* The key's entry; *ret_new: it was none before, and is in no state yet. */
static struct queue_entry *get_entry_locked(struct queue *q, const struct key *key, bool *ret_new)
{
	struct queue_entry *e = new_entry_locked(q), *there;

	if (!e)
		return NULL;
	*e = (struct queue_entry){ .key = *key };
	there = RB_INSERT(key_tree, &q->keys, e);
	*ret_new = !there;
	if (!there)
		return e;
	SLIST_INSERT_HEAD(&q->unused, e, in_unused);
	return there;
}

/* -- changes of state -------------------------------------------------------- */

static bool any_ready_locked(const struct queue *q)
{
	return q->stats.ready > 0;
}

static void make_ready_locked(struct queue *q, struct queue_entry *e)
{
	e->state = QUEUE_READY;
	TAILQ_INSERT_TAIL(&q->ready[e->class], e, in_ready);
	q->stats.ready++;
	if (!q->held)
		cond_signal(&q->wake);
}

static void end_ready_locked(struct queue *q, struct queue_entry *e)
{
	TAILQ_REMOVE(&q->ready[e->class], e, in_ready);
	q->stats.ready--;
}

/* Until e->due_ns. */
static void make_delayed_locked(struct queue *q, struct queue_entry *e)
{
	e->state = QUEUE_DELAYED;
	RB_INSERT(due_tree, &q->due, e);
	if (e->tries)
		q->stats.delayed++;
	cond_signal(&q->wake); /* it may be due earlier than what the sleeper waits for */
}

static void end_delay_locked(struct queue *q, struct queue_entry *e)
{
	RB_REMOVE(due_tree, &q->due, e);
	if (e->tries)
		q->stats.delayed--;
}

static void back_off_locked(struct queue *q, struct queue_entry *e)
{
	e->class = QUEUE_RESYNC;
	e->due_ns =
		q->config.now() + backoff_ns(e->tries, QUEUE_BACKOFF_MIN_NS, QUEUE_BACKOFF_MAX_NS);
	make_delayed_locked(q, e);
}

/* -- putting ----------------------------------------------------------------- */

/* The oldest counts, of those that are not worked off. */
static void note_event_locked(struct queue_entry *e, int64_t event_ns, int64_t from_ns)
{
	if (!event_ns)
		return;
	if (!e->event_ns || event_ns < e->event_ns)
		e->event_ns = event_ns;
	if (!e->from_ns || from_ns < e->from_ns)
		e->from_ns = from_ns;
}

/* due_ns: not before; 0: at once. */
static void put_locked(struct queue *q, const struct key *key, enum queue_class class,
		       int64_t event_ns, int64_t due_ns)
{
	struct queue_entry *e;
	bool new;

	metric_inc(METRIC_WORKQUEUE_ADDS);
	if (q->dropped)
		return;
	e = get_entry_locked(q, key, &new);
	if (!e) {
		log_limited(LOG_ERROR, "out of memory, a key waits for the next resync");
		return;
	}
	note_event_locked(e, event_ns, due_ns > event_ns ? due_ns : event_ns);
	if (!new && e->state == QUEUE_WORKING) {
		if (!e->again || class < e->class)
			e->class = class;
		e->again = true;
		e->due_ns = due_ns;
		return;
	}
	if (!new && e->state == QUEUE_READY) {
		if (class >= e->class && !due_ns)
			return;
		end_ready_locked(q, e);
	} else if (!new) {
		end_delay_locked(q, e);
	}
	e->class = class;
	e->due_ns = due_ns;
	if (due_ns)
		make_delayed_locked(q, e);
	else
		make_ready_locked(q, e);
}

void queue_put(struct queue *q, const struct key *key, enum queue_class class, int64_t event_ns)
{
	mutex_hold(&q->lock);
	put_locked(q, key, class, event_ns, 0);
}

void queue_put_later(struct queue *q, const struct key *key, enum queue_class class,
		     int64_t event_ns, int64_t delay_ns)
{
	mutex_hold(&q->lock);
	put_locked(q, key, class, event_ns, q->config.now() + delay_ns);
}

void queue_hold(struct queue *q)
{
	mutex_hold(&q->lock);
	q->held++;
}

void queue_release(struct queue *q)
{
	mutex_hold(&q->lock);
	if (--q->held == 0 && any_ready_locked(q))
		cond_signal(&q->wake);
}

/* -- taking ------------------------------------------------------------------ */

/* What is due becomes ready. Returns when the next one will be due, or INT64_MAX. */
static int64_t collect_due_locked(struct queue *q)
{
	int64_t now = q->config.now();
	struct queue_entry *e;

	while ((e = RB_MIN(due_tree, &q->due)) && e->due_ns <= now) {
		end_delay_locked(q, e);
		make_ready_locked(q, e);
	}
	return e ? e->due_ns : INT64_MAX;
}

/* The first of the class whose turn it is, or of the most urgent one that has any. */
static struct queue_entry *next_locked(struct queue *q)
{
	static const enum queue_class turns[] = {
		QUEUE_REPAIR, QUEUE_REPAIR, QUEUE_REPAIR, QUEUE_CHANGE,
		QUEUE_REPAIR, QUEUE_REPAIR, QUEUE_REPAIR, QUEUE_RESYNC,
	};
	struct queue_entry *e = TAILQ_FIRST(&q->ready[turns[q->turn++ % countof(turns)]]);

	for (unsigned i = 0; !e && i < QUEUE_CLASSES; i++)
		e = TAILQ_FIRST(&q->ready[i]);
	return e;
}

/* False: the queue was stopped, or *quit is set. */
static bool wait_ready_locked(struct queue *q, const atomic_bool *quit)
{
	while (!q->dropped && !*quit) {
		int64_t due = q->stopped ? INT64_MAX : collect_due_locked(q);

		if (any_ready_locked(q))
			return true;
		if (q->stopped)
			return false;
		if (due == INT64_MAX)
			cond_wait(&q->wake, &q->lock);
		else
			(void)cond_wait_until(&q->wake, &q->lock, due);
	}
	return false;
}

size_t queue_take(struct queue *q, struct queue_item *ret, size_t max, const atomic_bool *quit)
{
	struct queue_entry *e;
	size_t n = 0;

	mutex_hold(&q->lock);
	if (!wait_ready_locked(q, quit))
		return 0;
	while (n < max && (e = next_locked(q))) {
		end_ready_locked(q, e);
		q->stats.working++;
		e->state = QUEUE_WORKING;
		drop_text(e);
		e->again = false;
		ret[n++] = (struct queue_item){ e, e->key, e->tries, e->event_ns, e->from_ns };
		e->event_ns = e->from_ns = 0;
	}
	/* One put wakes one sleeper; whoever leaves work behind wakes the next. */
	if (any_ready_locked(q))
		cond_signal(&q->wake);
	return n;
}

/* -- giving back ------------------------------------------------------------- */

static bool drained_locked(const struct queue *q)
{
	return q->stats.ready == 0 && q->stats.working == 0;
}

static bool done_locked(struct queue *q, const struct queue_item *item, int result)
{
	struct queue_entry *e = item->entry;

	assert(e->state == QUEUE_WORKING);
	q->stats.working--;
	e->error = result;
	e->tries = result < 0 ? e->tries + 1 : 0;
	if (result < 0) {
		metric_inc(METRIC_WORKQUEUE_RETRIES);
		note_event_locked(e, item->event_ns, item->from_ns);
	}
	if (e->again && e->due_ns)
		make_delayed_locked(q, e);
	else if (e->again)
		make_ready_locked(q, e);
	else if (result < 0)
		back_off_locked(q, e);
	else
		forget_entry_locked(q, e);
	return drained_locked(q);
}

void queue_explain(struct queue *q, const struct queue_item *item, const char *text)
{
	mutex_hold(&q->lock);
	drop_text(item->entry);
	item->entry->text = strndup(text, QUEUE_TEXT_MAX - 1);
}

void queue_done(struct queue *q, const struct queue_item *item, int result)
{
	bool drained;

	mutex_lock(&q->lock);
	drained = done_locked(q, item, result);
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

void queue_stop(struct queue *q, enum queue_stop how)
{
	mutex_hold(&q->lock);
	q->stopped = true;
	q->dropped = how == QUEUE_DROP;
	cond_broadcast(&q->wake);
}

void queue_stats(struct queue *q, struct queue_stats *ret)
{
	mutex_hold(&q->lock);
	*ret = q->stats;
}

static struct queue_view view_of(const struct queue_entry *e)
{
	struct queue_view view = {
		.state = e->state,
		.tries = e->tries,
		.error = e->error,
		.next_try_ns = e->due_ns,
	};

	if (e->text)
		strlcpy(view.text, e->text, sizeof(view.text));
	return view;
}

void queue_look(struct queue *q, const struct key *key, struct queue_view *ret)
{
	mutex_hold(&q->lock);
	const struct queue_entry *e = find_locked(q, key);

	*ret = (struct queue_view){ .state = QUEUE_NONE };
	if (e)
		*ret = view_of(e);
}

size_t queue_list(struct queue *q, const struct key *after, struct queue_row *ret, size_t max)
{
	struct queue_entry wanted, *e;
	size_t n = 0;

	mutex_hold(&q->lock);
	if (after) {
		wanted.key = *after;
		e = RB_NFIND(key_tree, &q->keys, &wanted);
		if (e && key_cmp(e, &wanted) == 0)
			e = RB_NEXT(key_tree, &q->keys, e);
	} else {
		e = RB_MIN(key_tree, &q->keys);
	}
	for (; e && n < max; e = RB_NEXT(key_tree, &q->keys, e))
		ret[n++] = (struct queue_row){ e->key, view_of(e) };
	return n;
}
