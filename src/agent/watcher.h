/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watcher thread: lists the records in the store, then watches them, and tells peers.
 *
 * Threads: one of its own; the functions below may be called from any thread.
 */
#ifndef POPLIN_AGENT_WATCHER_H
#define POPLIN_AGENT_WATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "peers.h"
#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "poplin/store/store.h"

struct watcher;

struct watcher_config {
	struct store_config store;  /* its strings are only read by watcher_start() */
	const char *node;	    /* our own, whose record is told to on_own */
	unsigned resync_interval_s; /* between full comparisons with the store; see watcher.c */
	struct peers *peers;
	struct queue *queue; /* that peers tells: held while a page of a list is applied */
	/*
	 * Called on the watcher thread, without a lock. on_synced: peers agrees with a complete
	 * list of the store. on_stale: it may be far from the store until the next on_synced, and
	 * a record that the store does not have may be one that it lost. on_own: our own record
	 * was written or removed.
	 */
	void (*on_synced)(void *arg);
	void (*on_stale)(void *arg);
	void (*on_own)(const struct store_change *change, void *arg);
	void *arg;
};

struct watcher_status {
	bool connected;		    /* the watch stands */
	int64_t away_ns;	    /* since when it does not, by clock_ns(); 0: not listed */
	int64_t last_change_ns;	    /* by clock_ns(); 0: none yet */
	char problem[ERR_TEXT_MAX]; /* why the store could not be listed or watched; "" */
};

int watcher_start(struct watcher **ret, const struct watcher_config *config, struct err *err);
void watcher_stop(struct watcher *w); /* ends the thread and frees it */
DEFINE_AUTO(struct watcher *, watcher_stop)

void watcher_get(struct watcher *w, struct watcher_status *ret);
/* Leaves the connection it has, and goes on by a new one from the same position. */
void watcher_reconnect(struct watcher *w);
int watcher_set_access(struct watcher *w, const struct store_access *access, struct err *err);
void watcher_set_resync_interval(struct watcher *w, unsigned interval_s);

#endif
