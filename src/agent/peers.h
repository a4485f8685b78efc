/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The desired state: which node owns which prefix, and by which gateway it is reached.
 *
 * Records are judged here (model/record.h). A record that is wrong is kept, with the reason, so
 * that it can be shown, and has no effect. Of several records that claim one prefix the oldest
 * claim wins (the smaller order, then the smaller name), on every node alike; the others wait and
 * take its place, oldest first, when it goes. Node subnets all have one length, so two either are
 * equal or do not overlap.
 *
 * Threads: one writer (the watcher) at a time and any number of readers; one lock (LOCK_PEERS).
 * on_key and its like are called under it, so they may take locks further down only.
 */
#ifndef POPLIN_AGENT_PEERS_H
#define POPLIN_AGENT_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "poplin/model/network.h"
#include "poplin/model/record.h"
#include "poplin/store/store.h"
#include "queue.h"

struct peers;

struct peers_config {
	struct network network;
	const char *node;    /* our own name: that record is no peer */
	struct addr address; /* our own */
	/*
	 * What may have to change in the kernel. event_ns as in struct queue_item. gone: a record
	 * went, and it may be back at once: its node claims again, or what is read are old changes.
	 */
	void (*on_key)(const struct key *key, int64_t event_ns, bool gone, void *arg);
	/* A record without an address: peers_resolved() is wanted for that node. May be NULL. */
	void (*on_unresolved)(const char *node, void *arg);
	/* A record names our subnet or address. May be NULL. */
	void (*on_rival)(void *arg);
	void *arg;
};

int peers_new(struct peers **ret, const struct peers_config *config, struct err *err);
void peers_free(struct peers *p);
DEFINE_AUTO(struct peers *, peers_free)

/* -- the writer ------------------------------------------------------------- */

/* Takes one change in. A wrong record is not a failure; -ENOMEM is. */
int peers_apply(struct peers *p, const struct store_change *change, struct err *err);
/*
 * A complete list: what was not applied between the two is gone. Nothing is removed before
 * peers_end_sync(), and a list that broke off is simply begun anew.
 */
void peers_begin_sync(struct peers *p);
void peers_end_sync(struct peers *p);
/*
 * The address of a node whose record has none. AF_UNSPEC: it is not known. False: there is no such
 * record (any more).
 */
bool peers_resolved(struct peers *p, const char *node, const struct addr *address);
/* All records are judged again. */
void peers_set_own_subnet(struct peers *p, const struct prefix *subnet);
void peers_set_own_address(struct peers *p, const struct addr *address);

/* -- readers ---------------------------------------------------------------- */

bool peers_complete(struct peers *p); /* a first complete list was applied */
/* True, and the gateway, when there should be a route to exactly this prefix. */
bool peers_lookup(struct peers *p, const struct prefix *prefix, struct addr *ret);
bool peers_gateway_used(struct peers *p, const struct addr *gateway);
/* Calls fn for each route that should be, in order, under the lock; see peers_foreach(). */
void peers_foreach_route(struct peers *p,
			 void (*fn)(const struct prefix *prefix, const struct addr *gateway,
				    const char *node, void *arg),
			 void *arg);

struct peers_stats {
	size_t known;	  /* other nodes with a good record */
	size_t rejected;  /* records that were refused */
	size_t conflicts; /* good records with a subnet that waits behind an older claim */
	size_t routes[2]; /* that should be: IPv4, IPv6 */
};
void peers_stats(struct peers *p, struct peers_stats *ret);
/* How many routes there should be, of both families; no walk. */
size_t peers_routes(struct peers *p);

enum peer_state { PEER_OK, PEER_UNRESOLVED, PEER_REJECTED, PEER_CONFLICT, PEER_OWN };
const char *peer_state_name(enum peer_state state);

struct peer_view {
	const char *node; /* untrusted: may hold anything but NUL */
	const struct prefix *subnets;
	unsigned nsubnets;   /* 0 where the record could not be read */
	struct addr address; /* AF_UNSPEC: none known */
	uint64_t order;
	bool bare; /* the record has no address: it is the resolver's */
	enum peer_state state;
	const char *reason; /* "" where there is none */
};
/*
 * Calls fn for each record, in order of names, under the lock; a negative return ends it. The lock is
 * let go now and then: what comes or goes meanwhile may be told or not.
 */
int peers_foreach(struct peers *p, int (*fn)(const struct peer_view *peer, void *arg), void *arg);

#endif
