/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lease thread: claims this node's subnet, keeps the claim alive, claims again when it was
 * lost, and gives it back when the node is drained.
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
	struct record record;	  /* what the node's record says; the claim fills in the subnets */
	struct prefix remembered; /* subnet to ask for where node.json says none; or AF_UNSPEC */
	int64_t ttl_s;
	bool fence; /* LEASE_FENCE */
	bool drain; /* do not claim: as after lease_drain(l, true) */
	/*
	 * Called on the lease thread, without a lock. on_change: something in struct lease_status
	 * but the deadline changed. may_release: whether the subnet may be given back, 0 or an
	 * error; node.json is closed by then, so whoever gets an address later does not keep it.
	 */
	void (*on_change)(void *arg);
	int (*may_release)(void *arg, struct err *err);
	void *arg;
};

enum lease_drain {
	LEASE_SERVES,
	LEASE_DRAINING, /* to be given back, which was not possible yet: see problem */
	LEASE_DRAINED,	/* given back */
	LEASE_KEPT,	/* it was not to be given back: problem says why; serves on */
};

struct lease_status {
	bool tried;	      /* the first claim succeeded or failed */
	bool admitted;	      /* or got so far that only another of our name could refuse it */
	bool held;	      /* claimed, and not past its deadline */
	int refused;	      /* the first claim met -EEXIST or -EDOM (store.h): give up */
	bool confirmed;	      /* claimed or renewed by this process */
	struct prefix subnet; /* the last one held; addr.family AF_UNSPEC: none */
	int64_t ttl_s;
	int64_t deadline_boot_ns; /* by clock_boot_ns() */
	enum lease_drain drain;
	char endpoint[256];	    /* that answered last; "" before the first answer */
	char problem[ERR_TEXT_MAX]; /* why the last claim or renewal failed; "" when it did not */
	char drain_problem[ERR_TEXT_MAX];
};

int lease_start(struct lease **ret, const struct lease_config *config, struct err *err);
/* Ends the thread and frees it. The claim stays in the store until it runs out. */
void lease_stop(struct lease *l);
DEFINE_AUTO(struct lease *, lease_stop)

void lease_get(struct lease *l, struct lease_status *ret);
/* The claim is moved to a lease of this TTL, at once. */
void lease_set_ttl(struct lease *l, int64_t ttl_s);
void lease_set_fence(struct lease *l, bool fence);
void lease_set_address(struct lease *l, const struct addr *address); /* rewrites the record */
int lease_set_access(struct lease *l, const struct store_access *access, struct err *err);
/* Gives the subnet back, or claims one again. */
void lease_drain(struct lease *l, bool drain);
/*
 * The watcher saw our record change: unless it is what we put ourselves, the claim is read back.
 */
void lease_check(struct lease *l, const struct store_change *change);
/* Reads the claim back and makes it anew if it does not stand as it should. */
void lease_verify(struct lease *l);

#endif
