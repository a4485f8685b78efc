/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits and settings of the kernel that would cost packets if they were met: noticed before.
 *
 * Threads: any; reads files below the given folder only.
 */
#ifndef POPLIN_AGENT_LIMITS_H
#define POPLIN_AGENT_LIMITS_H

#include <stdbool.h>
#include <stddef.h>

/* X(limit, name in metrics and logs) */
#define LIMIT_TABLE(X)                                                                             \
	X(NEIGHBOURS, "neighbours")   /* gc_thresh3: the neighbour table is full */                \
	X(IPV6_ROUTES, "ipv6_routes") /* route/max_size, before Linux 6.3 */                       \
	X(RP_FILTER, "rp_filter")     /* strict: packets are dropped while no route leads back */

enum limit {
#define LIMIT_ENUM(limit, name) LIMIT_##limit,
	LIMIT_TABLE(LIMIT_ENUM)
#undef LIMIT_ENUM
		LIMITS
};

#define LIMIT_TEXT_MAX 320

struct limits {
	char text[LIMITS][LIMIT_TEXT_MAX]; /* what is wrong and what helps; "": it is far away */
};

struct limits_input {
	const char *sysctl;    /* folder: "/proc/sys" */
	int family;	       /* of the pod network */
	size_t peers;	       /* other nodes */
	const char *interface; /* to them */
};

/* What cannot be read is no limit: a network namespace does not show them all. */
void limits_look(const struct limits_input *in, struct limits *ret);
const char *limit_name(enum limit limit);

#endif
