/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The commands of poplinctl: each asks the agent for one path and prints its JSON for people.
 * Threads: one.
 */
#ifndef POPLIN_CTL_COMMANDS_H
#define POPLIN_CTL_COMMANDS_H

#include <jansson.h>
#include <stdio.h>

/* Return 0, -EPROTO (the answer is not what it should be) or -ENOMEM. */
int command_status(const json_t *root, FILE *out);
int command_peers(const json_t *root, FILE *out);
int command_routes(const json_t *root, FILE *out);
int command_pods(const json_t *root, FILE *out);

#endif
