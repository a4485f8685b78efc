/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The JSON of /status and its lists: layouts only, knowing none of the modules behind them. All
 * output is ASCII; bytes of untrusted texts that are no UTF-8 become '?'. Everything returns 0 or
 * -ENOMEM.
 *
 * Threads: any; no state.
 */
#ifndef POPLIN_AGENT_STATUS_JSON_H
#define POPLIN_AGENT_STATUS_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "poplin/base/buf.h"
#include "poplin/model/prefix.h"

#include "metrics.h"
#include "status.h"

/* What the modules count. */
struct status_counts {
	uint64_t peers, rejected, conflicts;
	uint64_t desired[METRIC_FAMILIES], installed[METRIC_FAMILIES];
	uint64_t failing;
	uint64_t queue_depth;
	uint64_t pods_held, pods_capacity;
};

int status_json_status(struct buf *b, const struct status_view *v, const struct status_counts *c);

/* -- lists: begin, rows, end ------------------------------------------------ */

struct status_list {
	struct buf *b;
	bool any; /* a row was written */
};

int status_json_begin(struct status_list *l, struct buf *b, const char *name);
int status_json_end(struct status_list *l);

/* NULL texts and addresses or prefixes of AF_UNSPEC are written as null. */
int status_json_peer(struct status_list *l, const char *node, const struct prefix *subnet,
		     const struct addr *address, const char *backend, const char *state,
		     const char *reason);

struct status_route {
	const struct prefix *destination;
	const struct addr *via;
	const char *node;
	const char *state;
	const char *reason;
	unsigned tries;
	int64_t next_try_ns; /* from now; negative: no try is due */
};
int status_json_route(struct status_list *l, const struct status_route *r);

int status_json_pod(struct status_list *l, const struct addr *address, const char *container,
		    const char *interface, const char *link);

#endif
