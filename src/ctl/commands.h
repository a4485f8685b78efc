/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The commands of poplinctl: most ask the agent for one path and print its JSON for people.
 * Threads: one.
 */
#ifndef POPLIN_CTL_COMMANDS_H
#define POPLIN_CTL_COMMANDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "poplin/base/err.h"

/* Return 0, -EPROTO (the answer is not what it should be) or -ENOMEM. */
int command_status(const json_t *root, FILE *out);
int command_peers(const json_t *root, FILE *out);
int command_routes(const json_t *root, FILE *out);
int command_pods(const json_t *root, FILE *out);

/* For those that do something. */
struct ctl {
	int (*ask)(void *arg, json_t **ret,
		   struct err *err); /* the agent's /status, as an object */
	void *arg;
	const char *state_dir;
	bool force;
};

/* Write the wish to drain, or take it away, and wait for what the agent makes of it. */
int command_release(const struct ctl *ctl, struct err *err);
int command_resume(const struct ctl *ctl, struct err *err);

#endif
