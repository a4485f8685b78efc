/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The work queue: keys of what is to be compared with the kernel and put right.
 *
 * It holds keys, never events: whoever works on a key looks up what should be and what is. A key is
 * in the queue once, however often it is put; while a worker has it no second one gets it, and
 * when it was put meanwhile it comes again. A key that failed comes back after a backoff that
 * doubles with each failure in a row (5 ms to 60 s, with jitter) and is over at once when the key
 * is put again: something changed, so it is worth a try.
 *
 * Keys are of three classes, and within one first come, first served. The more urgent ones come
 * first, but each class gets its share while others are busy, so none waits for ever.
 *
 * Threads: any; one lock (LOCK_QUEUE), never held while waiting for anything else.
 */
#ifndef POPLIN_AGENT_QUEUE_H
#define POPLIN_AGENT_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "poplin/base/clock.h"
#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "poplin/model/prefix.h"

enum key_kind {
	KEY_ROUTE,   /* a destination prefix */
	KEY_NEXTHOP, /* a gateway, as a prefix of full length */
};

struct key {
	enum key_kind kind;
	struct prefix prefix;
};

struct key key_route(const struct prefix *prefix);
struct key key_nexthop(const struct addr *gateway);

enum queue_class {
	QUEUE_REPAIR, /* somebody changed just this in the kernel */
	QUEUE_CHANGE, /* the store asks for it */
	QUEUE_RESYNC, /* one of many: a first list, a full comparison, a try that failed */
	QUEUE_CLASSES
};

struct queue_item {
	struct queue_entry *entry; /* the queue's own, until queue_done() */
	struct key key;
	unsigned tries;	  /* that failed in a row so far */
	int64_t event_ns; /* clock_ns() of the oldest event that put it; 0: no event did */
	int64_t from_ns;  /* when it was due first, if it was put off; lateness counts from here */
};

struct queue;

struct queue_config {
	int64_t (*now)(void); /* clock_ns(), or a test's clock */
	/* Called without the lock when nothing is ready or in work any more. May be NULL. */
	void (*on_drained)(void *arg);
	void *arg;
};

int queue_new(struct queue **ret, const struct queue_config *config, struct err *err);
void queue_free(struct queue *q); /* nobody may use it any more */
DEFINE_AUTO(struct queue *, queue_free)

/*
 * event_ns as in struct queue_item. A key that waits already takes the more urgent class of the
 * two. Out of memory: the key is lost until the next resync, and the log says so.
 */
void queue_put(struct queue *q, const struct key *key, enum queue_class class, int64_t event_ns);
/*
 * The same, but the key is not looked at before delay_ns have passed, even if it was ready, unless
 * queue_put() comes in between: for changes that are likely to be undone, and can wait.
 */
void queue_put_later(struct queue *q, const struct key *key, enum queue_class class,
		     int64_t event_ns, int64_t delay_ns);

/*
 * Between the two, puts wake nobody: whoever has a whole list to put would otherwise wake a worker
 * for each key, for a batch of one. Calls nest.
 */
void queue_hold(struct queue *q);
void queue_release(struct queue *q);

/*
 * Waits for keys and takes up to max of them; each must be given back by queue_done(). Returns how
 * many, or 0 when the queue was stopped or *quit is true (looked at after each queue_wake()).
 */
size_t queue_take(struct queue *q, struct queue_item *ret, size_t max, const atomic_bool *quit);
/* item: from queue_take(), once. result: 0, or the negative errno that a retry may mend. */
void queue_done(struct queue *q, const struct queue_item *item, int result);
/*
 * Before queue_done() with a failure: what the kernel said of it. Copied; shown until the next try.
 * Without memory it is not.
 */
void queue_explain(struct queue *q, const struct queue_item *item, const char *text);
void queue_wake(struct queue *q);

enum queue_stop {
	QUEUE_DRAIN, /* queue_take() gives out what is ready, then returns 0; delays do not end */
	QUEUE_DROP,  /* it returns 0 from now on, and puts are ignored */
};
void queue_stop(struct queue *q, enum queue_stop how);

struct queue_stats {
	size_t ready, working;
	size_t delayed; /* of those that failed */
};
void queue_stats(struct queue *q, struct queue_stats *ret);

#define QUEUE_BACKOFF_MIN_NS (5 * NS_PER_MS)
#define QUEUE_BACKOFF_MAX_NS (60 * NS_PER_S)

#define QUEUE_TEXT_MAX 80 /* the kernel's are shorter (NLMSGERR_ATTR_MSG) */

enum queue_state { QUEUE_NONE, QUEUE_READY, QUEUE_WORKING, QUEUE_DELAYED };
struct queue_view {
	enum queue_state state;
	unsigned tries;		   /* that failed in a row */
	int error;		   /* of the last one: a negative errno, or 0 */
	char text[QUEUE_TEXT_MAX]; /* of the last one: see queue_explain(); or "" */
	int64_t next_try_ns;	   /* QUEUE_DELAYED: when, by the queue's clock */
};
/* state is QUEUE_NONE when the key is not in the queue. */
void queue_look(struct queue *q, const struct key *key, struct queue_view *ret);

struct queue_row {
	struct key key;
	struct queue_view view;
};
/*
 * Up to max of the keys in the queue, in their order, that come after *after (NULL: from the
 * first). Returns how many. A walk over all of them thus never holds the lock for long.
 */
size_t queue_list(struct queue *q, const struct key *after, struct queue_row *ret, size_t max);

#endif
