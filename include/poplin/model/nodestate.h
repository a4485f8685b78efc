/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The node state file STATE_DIR/node.json: the one thing that agent and CNI plugin share. The agent
 * writes it (atomically), the plugin reads it to know whether this node may hand out addresses:
 * past the lease's deadline another node may hold the subnet.
 */
#ifndef POPLIN_MODEL_NODESTATE_H
#define POPLIN_MODEL_NODESTATE_H

#include <stdint.h>

#include "poplin/base/err.h"
#include "poplin/model/prefix.h"
#include "poplin/model/record.h"

#define NODESTATE_FILE "node.json"

struct nodestate {
	char node[NODE_NAME_TEXT_MAX];
	struct prefix subnet;
	/*
	 * By the boot clock (clock_boot_ns), counted from before the renewal was sent. 0: no lease.
	 */
	int64_t lease_deadline_ns;
};

/* dir is STATE_DIR. -ENOENT when the file is not there. */
int nodestate_read(const char *dir, struct nodestate *ret, struct err *err);
int nodestate_write(const char *dir, const struct nodestate *s, struct err *err);

#endif
