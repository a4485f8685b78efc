/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses of pods that are gone: runtimes seldom call GC, and one that lost its own state never
 * calls DEL. An attachment whose link on the node has been missing for long is released.
 *
 * An ADD takes its address before it makes its link, so a missing link alone says nothing. It must be
 * missing at every look for as long as PODGC_GRACE_NS, by a clock that stands still while the node
 * sleeps; and ipam_collect() rules out an ADD that was stopped for longer than that.
 *
 * Threads: one.
 */
#ifndef POPLIN_AGENT_PODGC_H
#define POPLIN_AGENT_PODGC_H

#include <stddef.h>
#include <stdint.h>

#include "poplin/base/clock.h"
#include "poplin/nl/nl.h"

#define PODGC_GRACE_NS	  (300 * NS_PER_S)
#define PODGC_INTERVAL_NS (30 * NS_PER_S) /* between two looks */

struct podgc {
	int64_t next_ns; /* of the next look */
	struct podgc_entry *entries;
	size_t count, size;
};

void podgc_done(struct podgc *gc);
/*
 * Looks, if it is time to, at what IPAM holds in dir. Returns how many attachments were released; a
 * negative errno when the look failed (a single one that failed is logged).
 */
int podgc_look(struct podgc *gc, struct netlink *nl, const char *dir, int64_t now_ns,
	       struct err *err);

#endif
