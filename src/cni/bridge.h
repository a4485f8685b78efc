/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bridge of the network. Threads: one. */
#ifndef POPLIN_CNI_BRIDGE_H
#define POPLIN_CNI_BRIDGE_H

#include "cni.h"
#include "poplin/nl/link.h"

/*
 * Finds the bridge, and without an agent makes what is missing of it and gives it the gateways of
 * these addresses. 0 or a code.
 */
int bridge_prepare(struct netlink *nl, const struct netconf *conf, const struct given *given,
		   struct link *ret, struct err *err);
/*
 * Writes to the path that fmt makes, unless it says so already: a container may see
 * /proc/sys read-only. In the calling thread's network namespace. Negative errno.
 */
int sysctl_write(const char *value, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
