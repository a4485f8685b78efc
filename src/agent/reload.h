/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SIGHUP: the configuration is read again, checked as a whole, then applied or refused as one. */
#ifndef POPLIN_AGENT_RELOAD_H
#define POPLIN_AGENT_RELOAD_H

#include "lease.h"
#include "pool.h"
#include "settings.h"
#include "watcher.h"

struct reload_targets {
	struct lease *lease;
	struct watcher *watcher;
	struct pool *pool; /* NULL: it has no workers yet */
};

/*
 * On success *running is what now holds; settings that only a restart can change keep
 * their running value, and the log names them. On failure nothing has changed, neither *running nor
 * any target. Main thread.
 */
int reload(struct settings *running, const char *config, bool required,
	   const struct reload_targets *targets, struct err *err);

#endif
