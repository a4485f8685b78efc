/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the claim share: etcd_claim.c decides and puts, etcd_free.c finds a subnet
 * that is free, etcd_network.c keeps the cluster's settings, etcd_release.c gives back.
 *
 * Threads: those of the struct store.
 */
#ifndef POPLIN_STORE_ETCD_CLAIM_H
#define POPLIN_STORE_ETCD_CLAIM_H

#include "etcd.h"

#define OVERTAKEN (-ERESTART) /* another claimer was faster; never leaves these files */

struct claimer {
	struct store *store;
	const struct store_claim_request *req;
	char node_key[ETCD_KEY_MAX];
	char subnets_folder[ETCD_KEY_MAX];
	char network_key[ETCD_KEY_MAX];
	int64_t network_revision; /* of the settings that this node agrees with */
	struct etcd_kv record;	  /* the node's key, as seen */
	bool found;		  /* it is there */
	bool keyed;		  /* every record has its subnet's key */
	int64_t held;		  /* subnets that have one */
	uint8_t *taken;		  /* a bit per subnet of the network */
};

/* A key that was seen: the transaction fails when it changed since. */
struct seen {
	const char *key;
	int64_t mod_revision; /* 0: it was not there */
	int64_t lease;
};

/* Fills in the keys. req needs its node alone. */
int claimer_init(struct claimer *c, struct store *s, const struct store_claim_request *req,
		 struct err *err);
/* For "compare" of a transaction: the key is as it was seen. */
json_t *claim_compare(const struct seen *seen);
int claim_subnet_key(const struct claimer *c, const struct prefix *subnet,
		     char ret[static ETCD_KEY_MAX], struct err *err);
/* Who holds the subnet, unless it is this node: "" for nobody. */
int claim_look_at_subnet(struct claimer *c, const char *key, struct seen *ret, char *holder,
			 size_t size, struct err *err);
/* Sets err and returns -EEXIST. */
int claim_tell_other_machine(const struct claimer *c, const struct record *record, struct err *err);
/*
 * Claims this very subnet under a new lease, in place of what the record says now. -EADDRINUSE:
 * another node holds it. OVERTAKEN: something changed meanwhile, look again.
 */
int claim_subnet(struct claimer *c, const struct prefix *subnet, struct store_claim *ret,
		 struct err *err);
/* The same for one that most likely nobody holds: it is not looked at before. */
int claim_free_subnet(struct claimer *c, const struct prefix *subnet, struct store_claim *ret,
		      struct err *err);

/* -- etcd_network.c ---------------------------------------------------------- */

/*
 * Compares the cluster's settings with this node's, and writes them where there are none yet (kv is
 * NULL). -EDOM: they differ. OVERTAKEN: they were written this moment.
 */
int claim_check_network(struct claimer *c, const struct etcd_kv *kv, struct err *err);

/* -- etcd_free.c --------------------------------------------------------------- */

/* Notes in c->taken and c->keyed what is held; taken is the caller's to free. */
int claim_survey(struct claimer *c, struct err *err);
/* The preferred subnet. -EADDRINUSE: another node has it. */
int claim_preferred(struct claimer *c, struct store_claim *ret, struct err *err);
/* The first free one from our ticket on. -ENOSPC. */
int claim_any(struct claimer *c, struct store_claim *ret, struct err *err);

#endif
