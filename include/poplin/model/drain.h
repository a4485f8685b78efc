/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The wish to drain this node: the file STATE_DIR/drain, written by poplinctl, obeyed by poplind.
 * Whoever may write in STATE_DIR is root, so no other way in has to be guarded; and a restarted
 * agent finds the wish again. The agent removes the file when it refuses. Threads: any.
 */
#ifndef POPLIN_MODEL_DRAIN_H
#define POPLIN_MODEL_DRAIN_H

#include <stdbool.h>

#include "poplin/base/err.h"

#define DRAIN_FILE "drain"

/* dir is STATE_DIR, which must be there. */
int drain_write(const char *dir, bool force, struct err *err);
int drain_read(const char *dir, bool *ret_wanted, bool *ret_force, struct err *err);
int drain_remove(const char *dir, struct err *err); /* none is fine */

#endif
