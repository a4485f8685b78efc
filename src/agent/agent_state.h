/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's one state, shared by agent.c (life and loop), reconcile.c (what should be) and
 * view.c (what the HTTP thread is told).
 *
 * Threads: as the members say; the modules lock for themselves.
 */
#ifndef POPLIN_AGENT_AGENT_STATE_H
#define POPLIN_AGENT_AGENT_STATE_H

#include <stdatomic.h>

#include "drain.h"
#include "fib.h"
#include "lease.h"
#include "leftovers.h"
#include "limits.h"
#include "monitor.h"
#include "node.h"
#include "peers.h"
#include "podgc.h"
#include "pool.h"
#include "poplin/base/thread.h"
#include "queue.h"
#include "resolver.h"
#include "settings.h"
#include "snapshot.h"
#include "status.h"
#include "watcher.h"

struct agent {
	struct settings *settings; /* of the main thread */
	const char *config;
	bool config_required;
	/* Copies that never change: a reload writes the settings while the HTTP thread reads. */
	char node_name[NODE_NAME_TEXT_MAX];
	char bridge_name[IF_NAMESIZE];
	char machine[RECORD_MACHINE_MAX + 1];
	struct podlog podlog; /* HTTP thread only, while it runs */
	char state_dir[SETTING_PATH_MAX];
	char etcd_prefix[SETTING_PATH_MAX];
	char ipam_dir[SETTING_PATH_MAX + SETTING_CNI_NAME_MAX + 8];
	struct network network;

	int lock_fd, signal_fd, event_fd;
	struct netlink *nl;
	struct queue *queue;
	struct peers *peers;
	struct fib *fib;
	struct pool *pool;
	struct resolver *resolver;
	struct monitor *monitor;
	struct watcher *watcher;
	struct lease *lease;
	struct snapshot *snapshot;
	struct snapshot_restored restored; /* set before the HTTP thread starts */
	struct drain drain;		   /* of the main thread, but for its force */
	struct httpd *httpd;
	struct status_source source;

	/* Of the main thread. */
	bool working;	      /* the route workers were started */
	bool found_routes;    /* of ours, when this process started */
	struct prefix subnet; /* that bridge and peers were told of; AF_UNSPEC: none */
	unsigned failures;
	int64_t retry_ns;	   /* 0: none due */
	struct pace pace;	   /* of looks at everything but the next */
	int64_t next_ns;	   /* the next one not before, unless it is a retry */
	struct pace identify_pace; /* of looks for the node's link and address */
	int64_t identify_ns;	   /* the next one not before */
	bool lost;		   /* the last one failed */
	int64_t resync_ns;
	bool limits_due; /* look at them again */
	bool files_due;	 /* if the CNI files change now, we were told to change them */

	_Atomic int64_t alive_ns; /* when the main loop last came round */
	int64_t route_grace_ns;	  /* never changes */
	_Atomic int64_t sweep_ns; /* when stale routes may go; 0: not known yet, or done */
	bool trusted;		  /* of the watcher: since a complete list no change was missed */
	atomic_size_t limits_routes; /* that there were to be at the last look at limits */
	_Atomic bool synced;	     /* peers agrees with a complete list */
	_Atomic bool remembers;	     /* peers was filled from the snapshot */
	_Atomic bool drained; /* since then the queue was empty once: every route was tried */
	_Atomic bool dirty;   /* there may be something to do */
	_Atomic bool rival;   /* a record names our subnet: read ours back */
	_Atomic bool moved;   /* the node's own link or address may be another one */

	struct mutex lock;
	/* Under lock: for the HTTP thread. */
	struct node node;
	struct podgc podgc; /* main thread */
	bool bridge_stands, files_stand;
	struct leftovers leftovers;
	struct limits limits;	    /* as of the last look */
	char problem[ERR_TEXT_MAX]; /* of the last reconcile(), or "" */
	char refused[ERR_TEXT_MAX]; /* why the last reload was, or "" */
};

/*
 * Before a subnet is claimed. -EEXIST: a link that is no bridge has the bridge's name, so there will
 * never be one.
 */
int reconcile_check(struct agent *a, struct err *err);
/* Looks at everything and does what is missing. Main thread. */
void reconcile(struct agent *a);
/* When that is to be, by clock_ns(); INT64_MAX: nothing asks for it. Main thread. */
int64_t reconcile_due_ns(const struct agent *a);
/* Whether so many peers came or went that limits are to be looked at. Any thread. */
bool reconcile_peers_changed(struct agent *a);
/* For struct status_source: HTTP thread. */
void agent_view(struct status_view *v, void *arg);

#endif
