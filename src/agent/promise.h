/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the agent promises the CNI plugin by STATE_DIR/node.json (model/nodestate.h), and what an
 * earlier process promised.
 *
 * Threads: the lease thread.
 */
#ifndef POPLIN_AGENT_PROMISE_H
#define POPLIN_AGENT_PROMISE_H

#include "poplin/base/err.h"
#include "poplin/model/network.h"
#include "poplin/model/nodestate.h"

struct promise {
	const char *dir;	    /* STATE_DIR; borrowed */
	struct nodestate said;	    /* subnet.addr.family AF_UNSPEC: nothing yet */
	char problem[ERR_TEXT_MAX]; /* why the last promise_try() failed; "" */
};

/*
 * Reads what an earlier process said of this node. A deadline of an earlier boot, whose clock ran
 * differently, is taken for none.
 */
void promise_recall(struct promise *p, const char *dir, const char *node,
		    const struct network *network);
/*
 * Says p->said with these changes. On failure what was said before stands; but what promises more than
 * is so is removed where it cannot be written, and that is none.
 */
int promise_say(struct promise *p, const struct prefix *subnet, int64_t deadline_ns, bool drained,
		struct err *err);
/* The same; a failure is logged: then the plugin stops in time by itself. */
void promise_try(struct promise *p, const struct prefix *subnet, int64_t deadline_ns, bool drained);
/* LEASE_FENCE. */
void promise_set_fence(struct promise *p, bool fence);

#endif
