/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One agent per STATE_DIR, and nothing that undoes its work while it runs. Threads: main. */
#ifndef POPLIN_AGENT_INSTANCE_H
#define POPLIN_AGENT_INSTANCE_H

#include "poplin/base/err.h"

#define INSTANCE_LOCK_FILE "poplind.lock"

/*
 * Makes STATE_DIR and takes the lock in it, which ends with the process. The file holds the
 * process's number, for people. Returns a descriptor to keep open, or a negative errno;
 * -EBUSY: another process has it.
 */
int instance_lock(const char *state_dir, struct err *err);

#endif
