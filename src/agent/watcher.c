/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. There is one loop: list if that is due, then watch until the watch ends,
 * which it always does with an error. The error decides what comes next:
 *
 *	-ESTALE	     changes were missed for good: list again and apply the difference. What is
 *		     not in the list may be lost and not gone: the store was wiped or set back,
 *		     and its compaction can hide that (etcd marks a restored store as compacted)
 *	-ECANCELED   stop, or new endpoints: go on with those, from the same position
 *	-ETIME	     a full comparison is due: list
 *	other	     cut off: wait (backoff with jitter, so that a thousand nodes do not
 *		     come back to a restarted store in one moment), then resume from the same
 *		     position
 *
 * Now and then the watch is ended for a full comparison: a list, though all looks well. It repairs
 * whatever a fault in etcd, in between or in here has let slip. N agents that list N records each
 * are N * N records. So that they stay below COMPARE_RECORDS a second in the whole cluster (etcd 3.4
 * takes 13 microseconds of CPU time for each, 3.5 takes 8: a quarter of a core over all members),
 * the time between two comparisons is RESYNC_INTERVAL or N * N / COMPARE_RECORDS seconds, whichever
 * is longer: 50 s for 1,000 nodes, 300 s for 2,450, 83 min for 10,000. Each agent draws its own time
 * from 50 to 150 % of that, so they never list together.
 *
 * With each list but the first one, and each watch, the store proves that it has the history which we
 * followed. Where it has another one, or the watch was cut since the last proof and compaction leaves
 * nothing to prove it by, what the list lacks may be lost and not gone, as after -ESTALE (on_stale).
 *
 * All nodes must notice a restored store well within ROUTE_GRACE, as those that noticed first then
 * remove the routes of whoever did not put its record anew. So the proof is asked for and not waited
 * for, and the backoffs of this thread and of the lease end after half of its default.
 *
 * A list that breaks off leaves peers as it was: what was not seen counts as gone only at the end
 * of a complete list. So nothing is ever removed because the store was away.
 */
#include "watcher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"

#define BACKOFF_MIN_NS (NS_PER_S / 5)
#define BACKOFF_MAX_NS (15 * NS_PER_S)
/* A watch that stood for so long has worked: the next failure is the first one. */
#define STANDING_NS	(10 * NS_PER_S)
#define COMPARE_RECORDS 20000 /* listed in a second, by all agents together */

struct watcher {
	struct thread thread;
	struct store *store;
	struct peers *peers;
	struct queue *queue;
	char node[NODE_NAME_TEXT_MAX];
	void (*on_synced)(void *arg);
	void (*on_stale)(void *arg);
	void (*on_own)(const struct store_change *change, void *arg);
	void *arg;

	/* Of the thread alone. */
	unsigned failures; /* in a row */
	int64_t connected_ns;
	int64_t compare_ns; /* when the next full comparison is due */
	bool relisting;	    /* the list that runs is not the first one */
	bool comparing;	    /* it is for comparison: the position before it is good */
	bool own_seen;	    /* our own record stood in it */
	bool holding;	    /* the queue, for the page that is applied */
	bool proven;	    /* the store has the history that we followed */

	struct mutex lock;
	struct cond wake;
	/* Under lock. */
	bool stop;
	bool retry; /* do not wait for the backoff to end */
	unsigned resync_interval_s;
	bool resync_changed;
	struct watcher_status status;
};

/* -- what the store tells --------------------------------------------------- */

/*
 * The workers get to see whole pages. Never while we wait for the store: repairs have nothing to do
 * with it.
 */
static void hold(struct watcher *w, bool holding)
{
	if (holding && !w->holding)
		queue_hold(w->queue);
	else if (!holding && w->holding)
		queue_release(w->queue);
	w->holding = holding;
}

static int on_listed(const struct store_change *change, void *arg, struct err *err)
{
	struct watcher *w = arg;

	hold(w, true);
	if (w->relisting && strcmp(change->node, w->node) == 0) {
		w->own_seen = true;
		w->on_own(change, w->arg);
	}
	return peers_apply(w->peers, change, err);
}

/*
 * Among the changes that were missed may be the end of our own record. Its lease lives on, so that
 * no renewal would tell; another node can claim our subnet. At the first list the claim is just
 * being made, and nothing was missed.
 */
static void check_own_record(struct watcher *w)
{
	const struct store_change gone = { .node = w->node };

	if (w->relisting && !w->own_seen)
		w->on_own(&gone, w->arg);
	w->relisting = true;
}

static void on_page(void *arg)
{
	hold(arg, false);
}

static int on_watched(const struct store_change *change, void *arg, struct err *err)
{
	struct watcher *w = arg;

	mutex_lock(&w->lock);
	w->status.last_change_ns = clock_ns();
	mutex_unlock(&w->lock);
	metric_set(METRIC_WATCH_LAST_EVENT, 0, clock_real_ns());
	if (strcmp(change->node, w->node) == 0)
		w->on_own(change, w->arg);
	return peers_apply(w->peers, change, err);
}

static void on_connected(void *arg)
{
	struct watcher *w = arg;

	w->connected_ns = clock_ns();
	metric_set(METRIC_WATCH_CONNECTED, 0, 1);
	mutex_hold(&w->lock);
	w->status.connected = true;
	w->status.problem[0] = '\0';
}

/* -- the thread ------------------------------------------------------------- */

static void plan_comparison(struct watcher *w)
{
	struct peers_stats stats;
	int64_t s, records;

	peers_stats(w->peers, &stats);
	records = (int64_t)(stats.known + stats.rejected + stats.conflicts);
	mutex_hold(&w->lock);
	s = w->resync_interval_s;
	w->resync_changed = false;
	if (records * records / COMPARE_RECORDS > s)
		s = records * records / COMPARE_RECORDS;
	w->compare_ns = clock_ns() + jitter_ns(s * NS_PER_S, 50);
}

static void on_proven(void *arg)
{
	((struct watcher *)arg)->proven = true;
}

static void on_set_back(void *arg)
{
	((struct watcher *)arg)->proven = false;
}

static int list(struct watcher *w, struct err *err)
{
	const struct store_handler handler = {
		.on_change = on_listed,
		.on_set_back = on_set_back,
		.on_batch = on_page,
		.arg = w,
	};
	int r;

	w->own_seen = false;
	peers_begin_sync(w->peers);
	r = store_list(w->store, &handler, err);
	hold(w, false); /* it may have ended in the middle of a page */
	plan_comparison(w);
	if (r < 0)
		return r;
	if (w->relisting && !w->proven)
		w->on_stale(w->arg);
	w->proven = true;
	w->comparing = false;
	mutex_lock(&w->lock);
	if (!w->status.away_ns)
		w->status.away_ns = clock_ns();
	mutex_unlock(&w->lock);
	peers_end_sync(w->peers);
	check_own_record(w);
	w->on_synced(w->arg);
	return 0;
}

static int watch(struct watcher *w, struct err *err)
{
	const struct store_handler handler = {
		.on_change = on_watched,
		.on_connected = on_connected,
		.on_proven = on_proven,
		.arg = w,
	};
	int r;

	w->connected_ns = 0;
	mutex_lock(&w->lock);
	r = w->resync_changed;
	mutex_unlock(&w->lock);
	if (r)
		plan_comparison(w);
	r = store_watch(w->store, &handler, w->compare_ns, err);
	if (r != -ETIME)
		w->proven = false;
	if (w->connected_ns && clock_ns() - w->connected_ns > STANDING_NS)
		w->failures = 0;
	metric_set(METRIC_WATCH_CONNECTED, 0, 0);
	mutex_hold(&w->lock);
	if (w->status.connected)
		w->status.away_ns = clock_ns();
	w->status.connected = false;
	return r;
}

static enum metric_restart restart_reason(int r)
{
	switch (r) {
	case -ESTALE:
		return METRIC_RESTART_STALE;
	case -ETIMEDOUT:
		return METRIC_RESTART_IDLE;
	case -ECANCELED:
		return METRIC_RESTART_RELOAD;
	case -ETIME:
		return METRIC_RESTART_COMPARE;
	default:
		return METRIC_RESTART_CUT;
	}
}

/* Waits out the backoff. False: stop. */
static bool wait_round(struct watcher *w, const struct err *err)
{
	int64_t until = clock_ns();

	if (w->failures)
		until += backoff_ns(w->failures, BACKOFF_MIN_NS, BACKOFF_MAX_NS);
	mutex_hold(&w->lock);
	strlcpy(w->status.problem, err->text, sizeof(w->status.problem));
	while (!w->stop && !w->retry)
		if (!cond_wait_until(&w->wake, &w->lock, until))
			break;
	w->retry = false;
	return !w->stop;
}

/* What follows from how a round ended. True: the next one may begin at once. */
static bool judge(struct watcher *w, int r, bool *listed, const struct err *err)
{
	switch (r) {
	case -ECANCELED:
		store_rearm(w->store);
		w->failures = 0;
		return false; /* whether it is a stop is seen there */
	case -ETIME:
		*listed = false;
		w->comparing = true;
		w->failures = 0;
		return true;
	case -ESTALE:
		log_info("changes were missed, listing the store again" KV("reason", "%s"),
			 err->text);
		*listed = w->comparing = false;
		break;
	default:
		log_limited(LOG_WARN, "the store cannot be followed" KV("error", "%s"), err->text);
		/* A comparison that failed has lost nothing: the position stands. */
		*listed = *listed || w->comparing;
		break;
	}
	w->failures++;
	return false;
}

static void *run(void *arg)
{
	struct watcher *w = arg;
	bool listed = false, at_once;
	struct err err;

	do {
		int r = 0;

		err = ERR_INIT;
		if (!listed)
			r = list(w, &err);
		listed = listed || r == 0;
		if (r == 0) {
			r = watch(w, &err);
			metric_inc_label(METRIC_WATCH_RESTARTS, restart_reason(r));
		}
		at_once = judge(w, r, &listed, &err);
	} while (at_once || wait_round(w, &err));
	return NULL;
}

/* -- for others ------------------------------------------------------------- */

void watcher_get(struct watcher *w, struct watcher_status *ret)
{
	mutex_hold(&w->lock);
	*ret = w->status;
}

void watcher_reconnect(struct watcher *w)
{
	mutex_lock(&w->lock);
	w->retry = true;
	cond_signal(&w->wake);
	mutex_unlock(&w->lock);
	store_cancel(w->store);
}

int watcher_set_access(struct watcher *w, const struct store_access *access, struct err *err)
{
	int r = store_set_access(w->store, access, err);

	if (r == 0)
		watcher_reconnect(w); /* the watch that stands goes to one of the old ones */
	return r;
}

void watcher_set_resync_interval(struct watcher *w, unsigned interval_s)
{
	mutex_lock(&w->lock);
	w->resync_interval_s = interval_s;
	w->resync_changed = true;
	mutex_unlock(&w->lock);
	watcher_reconnect(w);
}

static void watcher_free(struct watcher *w)
{
	if (w->store)
		store_close(w->store);
	cond_done(&w->wake);
	mutex_done(&w->lock);
	free(w);
}

int watcher_start(struct watcher **ret, const struct watcher_config *config, struct err *err)
{
	struct watcher *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_errno(err, -ENOMEM, "watcher");
	mutex_init(&w->lock, LOCK_WATCHER);
	cond_init(&w->wake);
	w->peers = config->peers;
	w->queue = config->queue;
	strlcpy(w->node, config->node, sizeof(w->node));
	w->on_synced = config->on_synced;
	w->on_stale = config->on_stale;
	w->on_own = config->on_own;
	w->arg = config->arg;
	w->resync_interval_s = config->resync_interval_s;
	r = store_open(&w->store, &config->store, err);
	if (r == 0) {
		r = thread_start(&w->thread, "watcher", run, w);
		if (r < 0)
			err_errno(err, r, "start the watcher thread");
	}
	if (r < 0) {
		watcher_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

void watcher_stop(struct watcher *w)
{
	mutex_lock(&w->lock);
	w->stop = true;
	cond_signal(&w->wake);
	mutex_unlock(&w->lock);
	store_cancel(w->store);
	thread_join(&w->thread);
	watcher_free(w);
}
