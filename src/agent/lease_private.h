/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the lease share: lease.c is the thread, lease_ask.c what other threads ask of
 * it and read.
 */
#ifndef POPLIN_AGENT_LEASE_PRIVATE_H
#define POPLIN_AGENT_LEASE_PRIVATE_H

#include "lease.h"
#include "poplin/base/thread.h"
#include "promise.h"

#define LEASES_KEPT 8

struct lease {
	struct thread thread;
	struct store *store; /* of the thread; cancelled and given endpoints from others */
	char node[NODE_NAME_TEXT_MAX];
	char *state_dir;
	struct network network;
	void (*on_change)(void *arg);
	int (*may_release)(void *arg, struct err *err);
	void *arg;

	/* Of the thread alone. */
	struct store_claim claim; /* its subnet is set as soon as one is remembered */
	bool claimed;		  /* claim is what the store has, as far as we know */
	bool claim_due;		  /* a claim is to be made, or was tried and failed */
	bool lost;		  /* claim.subnet is another node's: told already */
	bool rivalled;		  /* another machine holds our name: told already */
	bool suspected; /* suspect, as taken by the thread; until a look tells otherwise */
	unsigned failures, renewals;
	uint64_t leases[LEASES_KEPT]; /* of this process, the newest ones, in a ring */
	unsigned next_lease;	      /* where in it */
	unsigned hurries;	      /* claims that followed soon on another */
	int64_t claim_ns;	      /* clock_ns() of the last one that succeeded */
	int64_t calm_ns;	      /* what the watcher saw leads to no claim before */
	uint64_t tried_lease;	      /* the last one that a claim was tried with */
	int64_t tried_ns;	      /* when the first one ends whose claim may yet be made */
	int64_t tried_until_ns;	      /* and when the last one does: see note_tried() */
	struct promise promise;

	struct mutex lock;
	struct cond wake;
	/* Under lock: what the others asked for... */
	bool stop;
	bool asked;   /* one of these; do not wait for the backoff to end */
	bool reclaim; /* go through store_claim() again */
	bool verify;
	bool seen;    /* the watcher saw something: wakes the thread as asked does, in time */
	bool suspect; /* verify because our record went, or another one names our subnet */
	bool drain;
	bool fence;
	int64_t ttl_s;
	struct record record;
	/* ... and what they may read. */
	struct lease_status status;
	uint64_t version; /* of the record that we put */
};

/* On the lease thread: tell the others how it stands (lease_ask.c). */
void lease_publish_admitted(void *lease); /* routes need not wait for the claim itself */
void lease_publish_failure(struct lease *l, int r, const struct err *err);
void lease_publish_claim(struct lease *l, int64_t deadline_ns);
void lease_publish_drain(struct lease *l, enum lease_drain drain, const struct err *err);

#endif
