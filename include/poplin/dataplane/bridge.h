/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bridge of the node's pods, and the sysctls that make the node forward. */
#ifndef POPLIN_DATAPLANE_BRIDGE_H
#define POPLIN_DATAPLANE_BRIDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "poplin/model/prefix.h"
#include "poplin/nl/nl.h"

struct bridge {
	const char *name;
	struct prefix subnet;
	unsigned mtu;
};

/*
 * Makes the bridge what it should be, or creates it: fixed MAC derived from the subnet, so that it
 * does not follow the lowest port and break flows; MTU; the gateway address (first host of the
 * subnet), other addresses of `previous` (a subnet held before; may be NULL) removed; up;
 * ip_forward on. Only what differs is touched. *ret_changed (may be NULL) says whether anything
 * was. Returns the bridge's index, or a negative errno; -EEXIST: a link of that name is not a
 * bridge.
 */
int bridge_ensure(struct netlink *nl, const struct bridge *b, const struct prefix *previous,
		  bool *ret_changed, struct err *err);
/* 02:70 (locally administered, "p"), then the first four bytes that differ between subnets. */
void bridge_mac(const struct prefix *subnet, uint8_t ret[static 6]);
/* Removes the ports that are ours (POD_LINK_PREFIX of model/pod.h), then the bridge. No bridge is
 * fine. */
int bridge_remove(struct netlink *nl, const char *name, struct err *err);

int sysctl_write(const char *path, const char *value, struct err *err); /* below /proc/sys/ */

#endif
