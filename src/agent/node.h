/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who this node is: the interface and address by which the others reach it, and the machine it
 * runs on.
 *
 * Threads: plain values; node_identify() uses the caller's netlink socket.
 */
#ifndef POPLIN_AGENT_NODE_H
#define POPLIN_AGENT_NODE_H

#include <net/if.h>

#include "poplin/nl/nl.h"
#include "settings.h"

struct node {
	char interface[IF_NAMESIZE];
	unsigned index; /* of the interface */
	unsigned mtu;	/* for pods: MTU, or the interface's */
	struct addr address;
};

/*
 * Finds interface and address: NODE_INTERFACE, or the one that has NODE_ADDRESS, or that of the
 * default route; NODE_ADDRESS, which must be on it, or its first global address of the pod
 * network's family. -ENODEV, -ENETUNREACH, -EADDRNOTAVAIL, -EADDRINUSE (it lies in the pod network):
 * the text says which setting would help. `known` is the index of the interface that was found
 * before, or 0: it stays when the default route goes.
 */
int node_identify(struct netlink *nl, const struct settings *s, unsigned known, struct node *ret,
		  struct err *err);

/*
 * A hash that tells machines apart: of /etc/machine-id (machine-id(5) asks for a hash where it
 * leaves the machine), or of this boot's id where there is none, which makes a node that was
 * booted anew wait until its old lease ran out. -ENOENT: neither can be read.
 */
int node_machine(char ret[static RECORD_MACHINE_MAX + 1], struct err *err);

#endif
