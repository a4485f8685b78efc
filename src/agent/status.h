/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the agent tells over HTTP: /metrics, /healthz, /readyz and /status as JSON.
 *
 * The agent gives a struct status_source: the modules that know, and a function for what only the
 * agent itself knows. Lists (peers, routes, pods) are written to the answer entry by entry; with
 * 10,000 peers a tree of JSON values would cost more memory than the agent itself.
 *
 * Threads: the handlers run on the HTTP thread. The modules of the source lock for themselves;
 * status_source.view must be safe to call from that thread.
 */
#ifndef POPLIN_AGENT_STATUS_H
#define POPLIN_AGENT_STATUS_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "poplin/model/podlog.h"
#include "poplin/model/prefix.h"
#include "poplin/model/record.h"

#include "httpd.h"
#include "limits.h"

#define STATUS_REASONS_MAX     8
#define STATUS_REASON_TEXT_MAX 256
#define STATUS_ENDPOINT_MAX    256

/* What only the agent knows. All zero is a valid view: not ready, nothing held. */
struct status_view {
	bool healthy;	   /* threads run and answer; otherwise reasons say what does not */
	bool ready;	   /* subnet held, routes and bridge stand, CNI configuration is written */
	unsigned nreasons; /* why not ready or not healthy */
	char reasons[STATUS_REASONS_MAX][STATUS_REASON_TEXT_MAX];
	unsigned nwarnings; /* what is not as it should be though the node is ready */
	char warnings[STATUS_REASONS_MAX][STATUS_REASON_TEXT_MAX];

	struct limits limits; /* those that are near */

	char node[NODE_NAME_TEXT_MAX];
	struct prefix subnet; /* addr.family AF_UNSPEC: none yet */
	struct addr address;
	char interface[IF_NAMESIZE];

	char bridge[IF_NAMESIZE];
	struct addr bridge_address;
	unsigned bridge_mtu;

	const char *drain; /* "none", "waiting", "drained", "refused" */
	char drain_reason[STATUS_REASON_TEXT_MAX];
	uint64_t pods_cut_off; /* their subnet is another node's */

	bool lease_held;
	int64_t lease_ttl_s;
	int64_t lease_deadline_ns; /* clock_boot_ns() */

	char store_endpoint[STATUS_ENDPOINT_MAX];
	bool store_connected;	      /* the watch stands */
	int64_t store_last_change_ns; /* clock_ns() of the store's last change; 0: none yet */
};

/* Adds a reason; those that do not fit are left out. */
void status_view_reason(struct status_view *v, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void status_view_warning(struct status_view *v, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

struct peers;
struct fib;
struct queue;

struct status_source {
	struct peers *peers;
	struct fib *fib;
	struct queue *queue;
	const char *ipam_dir;  /* STATE_DIR/ipam/<CNI_NAME> */
	struct podlog *podlog; /* read by the HTTP thread alone; may be NULL */
	void (*view)(struct status_view *ret, void *arg); /* *ret is zero before */
	void *arg;
};

/* For httpd_start(); its arg is a struct status_source that outlives the server. */
extern const struct httpd_path status_paths[];

#endif
