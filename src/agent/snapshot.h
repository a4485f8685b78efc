/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What was known of the nodes last, in STATE_DIR/snapshot: an agent that starts while etcd is away
 * knows the routes by it. It is written once the first list is complete, when peers changed, at
 * most every few seconds. It says nothing about the claim to our own subnet: node.json does, and
 * ends in time.
 *
 *	poplin snapshot 1
 *	<node> <machine> <ETCD_PREFIX> <pod network> <length of node subnets> <Unix time>
 *	<order> <node> <address, or - in a bare record> <subnet>...	a line each
 *	sha256 <of all before this line>
 *
 * Threads: one of its own that writes; snapshot_touch() may be called from any thread and under
 * LOCK_PEERS.
 */
#ifndef POPLIN_AGENT_SNAPSHOT_H
#define POPLIN_AGENT_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "peers.h"

#define SNAPSHOT_FILE "snapshot"

struct snapshot_config {
	const char *state_dir, *node, *machine, *prefix; /* borrowed until snapshot_stop() */
	struct network network;
	struct peers *peers;
};

struct snapshot_restored {
	size_t nodes;
	int64_t real_ns;   /* when it was written */
	struct prefix own; /* this node's subnet in it, or AF_UNSPEC */
};

/*
 * Puts what the file says into peers, before the first list. -ENOENT: there is none. -EINVAL: it
 * is damaged, or of another node, cluster or network: nothing was put.
 */
int snapshot_restore(const struct snapshot_config *config, struct snapshot_restored *ret,
		     struct err *err);

struct snapshot;
int snapshot_start(struct snapshot **ret, const struct snapshot_config *config, struct err *err);
void snapshot_touch(struct snapshot *s); /* peers changed */
void snapshot_stop(struct snapshot *s);	 /* writes what is new, and frees it */

#endif
