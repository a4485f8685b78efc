/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The agent as a whole: starts and stops the threads in order, and serves signals in between. */
#ifndef POPLIN_AGENT_AGENT_H
#define POPLIN_AGENT_AGENT_H

#include "settings.h"

/*
 * Runs until SIGTERM or SIGINT; SIGHUP loads the configuration again, from `config` (`required` as
 * in settings_load()) and the environment. *s is changed by such reloads. Returns 0 after an
 * orderly stop; network, routes and record stay as they are. -EEXIST: another machine has the node's
 * name. -EDOM: the cluster's settings are others.
 */
int agent_run(struct settings *s, const char *config, bool required, struct err *err);

#endif
