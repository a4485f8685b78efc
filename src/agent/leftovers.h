/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pods whose addresses are of a subnet that this node holds no longer: another node has it by now,
 * or the node was drained by force. Found by looking at the addresses that are held, so that a
 * restarted agent knows them too.
 *
 * Threads: any; no state.
 */
#ifndef POPLIN_AGENT_LEFTOVERS_H
#define POPLIN_AGENT_LEFTOVERS_H

#include "poplin/base/err.h"
#include "poplin/model/network.h"

#define LEFTOVERS_MAX 16

struct leftovers {
	struct prefix subnets[LEFTOVERS_MAX]; /* in no order; more of them are not seen */
	unsigned nsubnets;
	uint64_t pods; /* of all of them */
	uint64_t own;  /* pods with addresses of the subnet that is held */
};

/* own: the subnet that is held, or of AF_UNSPEC. ipam_dir need not be there. */
int leftovers_find(const char *ipam_dir, const struct network *network, const struct prefix *own,
		   struct leftovers *ret, struct err *err);
/* Whether the subnet is among them. */
bool leftovers_have(const struct leftovers *l, const struct prefix *subnet);

#endif
