/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lease thread: claims this node's subnet, keeps the claim alive, and claims again when it was
 * lost.
 *
 * Until when the claim certainly holds is published in STATE_DIR/node.json (model/nodestate.h) at
 * every renewal; past that moment the CNI plugin gives out no more addresses, since the store may
 * have given the subnet to another node.
 *
 * Threads: one thread of its own; every function below may be called from any thread.
 */
#ifndef POPLIN_AGENT_LEASE_H
#define POPLIN_AGENT_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "poplin/model/network.h"
#include "poplin/model/record.h"
#include "poplin/store/store.h"

struct lease;

struct lease_config {
	struct store_config store; /* its strings are only read by lease_start() */
	const char *node;
	const char *state_dir; /* for node.json */
	struct network network;
	struct record record; /* what the node's record says; the claim fills in the subnets */
	int64_t ttl_s;
	/* Called on the lease thread, without a lock, when the subnet or whether it is held
	 * changed. */
	void (*on_change)(void *arg);
	void *arg;
};

struct lease_status {
	bool held;	      /* claimed, and not past its deadline */
	struct prefix subnet; /* the last one held; addr.family AF_UNSPEC before the first */
	int64_t ttl_s;
	int64_t deadline_boot_ns;   /* by clock_boot_ns() */
	char endpoint[256];	    /* that answered last; "" before the first answer */
	char problem[ERR_TEXT_MAX]; /* why the last claim or renewal failed; "" when it did not */
};

int lease_start(struct lease **ret, const struct lease_config *config, struct err *err);
/* Ends the thread and frees it. The claim stays in the store until it runs out. */
void lease_stop(struct lease *l);
DEFINE_AUTO(struct lease *, lease_stop)

void lease_get(struct lease *l, struct lease_status *ret);
/* The claim is moved to a lease of this TTL, at once. */
void lease_set_ttl(struct lease *l, int64_t ttl_s);
void lease_set_address(struct lease *l, const struct addr *address); /* rewrites the record */
/*
 * The watcher saw our record change: unless it is what we wrote ourselves, the claim is made anew.
 */
void lease_check(struct lease *l, const struct store_change *change);
int lease_set_access(struct lease *l, const struct store_access *access, struct err *err);

#endif
