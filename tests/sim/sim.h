/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A simulator of many nodes: what main.c, nodes.c and agents.c share. See main.c's usage(). */
#ifndef POPLIN_TESTS_SIM_H
#define POPLIN_TESTS_SIM_H

#include "poplin/model/network.h"
#include "poplin/model/record.h"
#include "poplin/store/store.h"

struct sim {
	struct store_config store;
	struct network network;
	struct addr address; /* of node 0; node n has the n-th after it */
	int64_t ttl_s;
	unsigned resync_interval_s; /* of agents */
	unsigned threads;	    /* that play the nodes without threads of their own */
	unsigned share;		    /* nodes on one lease, put in bulk; 1: each claims its subnet */
	const char *prefix;	    /* of the nodes' names */
};

#define SIM_CHANGED 20480 /* how far away the other address of a node is, which it changes to */

/* "sim-00017", and what its record says, but for the subnets. */
void sim_node(const struct sim *sim, unsigned number, char name[static NODE_NAME_TEXT_MAX],
	      struct record *ret);
void sim_complain(const char *what, const struct err *err);

/*
 * Nodes that a few threads play: they claim, renew, change and die. All functions belong to one
 * thread; what is asked for is done when nodes_wait() returns.
 */
struct nodes;
int nodes_start(struct nodes **ret, const struct sim *sim, struct err *err);
void nodes_stop(struct nodes *n); /* the claims stay until their leases run out */

int nodes_join(struct nodes *n, unsigned count, struct err *err);
/* These return to how many it happens, the next ones in turn: groups go as a whole. */
unsigned nodes_change(struct nodes *n, unsigned count); /* get another address */
unsigned nodes_die(struct nodes *n, unsigned count);	/* renew no more */
unsigned nodes_leave(struct nodes *n, unsigned count);	/* give their subnets back */
void nodes_wait(struct nodes *n);

struct nodes_count {
	unsigned living;
	uint64_t renewals, failures;
};
void nodes_count(struct nodes *n, struct nodes_count *ret);

/* Whole agents, but for the kernel: the lease and the watcher of poplind, a thread each. */
struct agents;
int agents_start(struct agents **ret, const struct sim *sim, unsigned count, struct err *err);
void agents_stop(struct agents *a);
void agents_wait(struct agents *a); /* until each has its subnet and knows all records */

#endif
