/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What peers.c (the writer, lookups) and peers_view.c (what is shown) share. Under LOCK_PEERS. */
#ifndef POPLIN_AGENT_PEERS_PRIVATE_H
#define POPLIN_AGENT_PEERS_PRIVATE_H

#include <string.h>

#include "peers.h"
#include "poplin/base/thread.h"
#include "poplin/base/tree.h"

#define REASON_MAX 256
/* Shown under one hold of the lock: 10,000 take milliseconds, and events and workers wait for it. */
#define PEERS_AT_ONCE 64

struct peer;

struct claim {
	RB_ENTRY(claim) by_prefix;
	struct peer *peer;
	struct prefix prefix;
	bool winner; /* the route to the prefix goes by peer->address */
};

struct peer {
	RB_ENTRY(peer) by_name;
	uint64_t order;
	struct claim *claims; /* nclaims of them: the record's subnets; none unless parsed */
	char *reason;	      /* why it has no effect, or NULL */
	uint32_t generation;  /* of the list that had it last */
	bool parsed;
	bool bare;     /* the record has no address; address is the resolver's */
	bool accepted; /* claims are in the tree */
	uint8_t nclaims;
	struct addr address;
	char name[];
};

struct gateway {
	RB_ENTRY(gateway) by_address;
	struct addr address;
	unsigned used;
};

RB_HEAD(peer_tree, peer);
RB_HEAD(claim_tree, claim);
RB_HEAD(gateway_tree, gateway);

struct peers {
	struct peers_config config;
	char node[NODE_NAME_TEXT_MAX];
	struct mutex lock;
	/* Under lock. */
	struct prefix own_subnet; /* AF_UNSPEC: none */
	struct addr own_address;
	struct peer_tree by_name;
	struct claim_tree claims;
	struct gateway_tree gateways;
	uint32_t generation;
	bool complete;
	size_t routes[2];
};

static inline int name_cmp(const struct peer *a, const struct peer *b)
{
	return strcmp(a->name, b->name);
}

static inline int claim_cmp(const struct claim *a, const struct claim *b)
{
	int r = prefix_cmp(&a->prefix, &b->prefix);

	if (r == 0 && a->peer->order != b->peer->order)
		r = a->peer->order < b->peer->order ? -1 : 1;
	return r ? r : strcmp(a->peer->name, b->peer->name);
}

static inline int gateway_cmp(const struct gateway *a, const struct gateway *b)
{
	return addr_cmp(&a->address, &b->address);
}

TREE_GENERATE(peer_tree, peer, by_name, name_cmp)
TREE_GENERATE(claim_tree, claim, by_prefix, claim_cmp)
TREE_GENERATE(gateway_tree, gateway, by_address, gateway_cmp)

/* The oldest claim to the prefix, or NULL. */
struct claim *peers_first_claim_locked(struct peers *p, const struct prefix *prefix);

static inline bool peers_is_own(const struct peers *p, const struct peer *peer)
{
	return strcmp(peer->name, p->node) == 0;
}

#endif
