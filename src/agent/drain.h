/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Follows STATE_DIR/drain (model/drain.h) and leads the lease thread. Threads: the main thread. */
#ifndef POPLIN_AGENT_DRAIN_H
#define POPLIN_AGENT_DRAIN_H

#include <stdbool.h>

#include "lease.h"
#include "poplin/base/err.h"

struct drain {
	const char *state_dir; /* borrowed */
	int fd;		       /* readable when something happened in STATE_DIR; -1: closed */
	bool asked;	       /* the lease thread was told to drain */
	_Atomic bool force;    /* read by the lease thread */
};

int drain_open(struct drain *d, const char *state_dir, struct err *err);
void drain_close(struct drain *d);
/* Reads what fd tells. True: the file was written or removed. */
bool drain_noticed(struct drain *d);
/* Before the lease thread starts: whether it is to start drained. */
bool drain_at_start(struct drain *d);
/* Compares the file with what the lease thread does. */
void drain_follow(struct drain *d, struct lease *l);

#endif
