/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The node state file STATE_DIR/node.json: the one thing that agent and CNI plugin share. The agent
 * writes it (atomically), the plugin reads it to know whether this node may hand out addresses:
 * past the lease's deadline another node may hold the subnet.
 */
#ifndef POPLIN_MODEL_NODESTATE_H
#define POPLIN_MODEL_NODESTATE_H

#include <stdbool.h>
#include <stdint.h>

#include "poplin/base/err.h"
#include "poplin/model/prefix.h"
#include "poplin/model/record.h"

#define NODESTATE_FILE	   "node.json"
#define NODESTATE_BOOT_MAX 64

struct nodestate {
	char node[NODE_NAME_TEXT_MAX];
	struct prefix subnet;
	/*
	 * By the boot clock (clock_boot_ns), counted from before the renewal was sent. 0: the
	 * subnet is not held, whatever `fence` says.
	 */
	int64_t lease_deadline_ns;
	char boot[NODESTATE_BOOT_MAX]; /* which boot that clock counts from; "": not known */
	bool fence;		       /* the deadline counts (LEASE_FENCE) */
	bool drained;		       /* by the administrator: no pod may come */
};

/* dir is STATE_DIR. -ENOENT when the file is not there. */
int nodestate_read(const char *dir, struct nodestate *ret, struct err *err);
int nodestate_write(const char *dir, const struct nodestate *s, struct err *err);
int nodestate_remove(const char *dir, struct err *err); /* a missing one is fine */
/* Of the boot that runs: to be filled in by who writes a state. "" where it cannot be read. */
void nodestate_this_boot(char ret[static NODESTATE_BOOT_MAX]);
/*
 * Whether addresses of the subnet may be given out now. 0, or -EAGAIN and the reason. This is the
 * fence: agent and plugin both ask here.
 */
int nodestate_check(const struct nodestate *s, struct err *err);

#endif
