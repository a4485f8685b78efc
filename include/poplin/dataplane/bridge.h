/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bridge of the node's pods, and the sysctls that make the node forward. */
#ifndef POPLIN_DATAPLANE_BRIDGE_H
#define POPLIN_DATAPLANE_BRIDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "poplin/model/network.h"
#include "poplin/model/prefix.h"
#include "poplin/nl/nl.h"

struct bridge {
	const char *name;
	const char *uplink;   /* the interface to the other nodes, or NULL: not looked after */
	struct prefix subnet; /* the node's */
	struct prefix pods;   /* the cluster's pod network, which subnet lies in */
	/* Subnets of pods that outlived the claim to them: their gateways stay. Borrowed. */
	const struct prefix *kept;
	unsigned nkept;
	unsigned mtu;
};

/*
 * Makes the bridge what it should be, or creates it: fixed MAC derived from the subnet, so that it
 * does not follow the lowest port and break flows, and left alone when it is that of a subnet held
 * before, which pods know; MTU; the gateway addresses (first host of the subnet and of each kept
 * one), and no other address of the pod network; up; forwarding on, the node's, the bridge's own and
 * the uplink's.
 * Only what differs is touched. *ret_changed says whether anything was. Returns the bridge's index,
 * or a negative errno; -EEXIST: a link of that name is not a bridge.
 */
int bridge_ensure(struct netlink *nl, const struct bridge *b, bool *ret_changed, struct err *err);
/*
 * 02:70 (locally administered, "p"), then the last four bytes of the subnet's network part; with IPv6
 * added (xor) to a hash of the bytes before.
 */
void bridge_mac(const struct prefix *subnet, uint8_t ret[static 6]);
/*
 * Links of the network's pods (POD_LINK_PREFIX and pod_link_group() of model/pod.h) that are in no
 * bridge, because theirs was deleted or somebody took them out, become ports of this one. *ret_count
 * says how many, on failure as well.
 */
int bridge_adopt_pods(struct netlink *nl, const char *network, unsigned index, size_t *ret_count,
		      struct err *err);
/*
 * Bridges that carry the MAC of one of the network's subnets by another name: what a changed
 * BRIDGE_NAME leaves behind, with the gateway's address and pods. One gets the name, if no link has
 * it; the others are deleted, and bridge_adopt_pods() finds their ports. *ret_count says how many
 * there were: none when the link of that name is no bridge, as bridge_ensure() will say.
 */
int bridge_take_over(struct netlink *nl, const struct network *network, const char *name,
		     unsigned *ret_count, struct err *err);
/*
 * Removes the links of pods that are its ports (POD_LINK_PREFIX), those of the network's that have
 * no bridge, then the bridge, and the same for our bridges by other names (bridge_take_over()). No
 * bridge is fine.
 */
int bridge_remove(struct netlink *nl, const char *network, const struct network *pods,
		  const char *name, struct err *err);

/*
 * Writes value to path (below /proc/sys/) unless it stands there already. *ret_changed says whether
 * it had to.
 */
int sysctl_ensure(const char *path, const char *value, bool *ret_changed, struct err *err);

#endif
