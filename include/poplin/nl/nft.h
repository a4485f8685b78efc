/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nftables by its own messages: the few that the CNI plugin needs. libnftables would bring a parser
 * and ten times the plugin's size into a process that lives for 2 ms.
 *
 * A batch is one transaction: all of it is done, or nothing.
 *
 * Threads: those of the struct netlink.
 */
#ifndef POPLIN_NL_NFT_H
#define POPLIN_NL_NFT_H

#include <netinet/in.h> /* before what includes linux/in.h */

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "poplin/model/prefix.h"
#include "poplin/nl/nl.h"

/* A socket for nftables in the calling thread's network namespace; netlink_close() closes it. */
int nft_open(struct netlink **ret, struct err *err);

struct nft_table {
	int family; /* NFPROTO_* */
	const char *name;
};
/* NFT_MSG_* of a table. NULL when memory is short. */
struct nl_msg *nft_msg(int type, int flags, const struct nft_table *table);

int nft_put_u32(struct nl_msg *msg, int type, uint32_t value);
/* Returns msg; when it failed, frees it and returns NULL. */
struct nl_msg *nft_finish(struct nl_msg *msg, bool failed);

struct nft_hook_point {
	const char *type; /* "filter", "nat" */
	uint32_t hook;	  /* NF_INET_*, NF_BR_* */
	int32_t priority;
};
/* A new chain; one that is there fails the transaction with -EEXIST. */
struct nl_msg *nft_chain_msg(const struct nft_table *table, const char *name);
struct nl_msg *nft_base_chain_msg(const struct nft_table *table, const char *name,
				  const struct nft_hook_point *where);

struct nft_batch;
int nft_batch_new(struct nft_batch **ret, struct err *err);
void nft_batch_free(struct nft_batch *b);
DEFINE_AUTO(struct nft_batch *, nft_batch_free)
/* Takes msg; NULL is remembered, and nft_batch_commit() fails with -ENOMEM. */
void nft_batch_take(struct nft_batch *b, struct nl_msg *msg);
/* The kernel's first errno, or 0. */
int nft_batch_commit(struct netlink *nl, struct nft_batch *b, struct err *err);

/* -- expressions of a rule, between nft_rule_begin() and nft_rule_end() -------------- */

struct nft_rule {
	struct nl_msg *msg;
	struct nlattr *expressions;
	bool failed;
};
void nft_rule_begin(struct nft_rule *rule, const struct nft_table *table, const char *chain);
struct nl_msg *nft_rule_end(struct nft_rule *rule); /* NULL when memory was short */

void nft_expr_family(struct nft_rule *rule, int family); /* only packets of it go on */
void nft_expr_load_addr(struct nft_rule *rule, int family, bool source); /* to register 1 */
/* The name of the link that a packet came in by, to register 1, filled up with NULs to 16 bytes. */
void nft_expr_load_input(struct nft_rule *rule);
void nft_expr_load_source_mac(struct nft_rule *rule); /* of the frame, to register 2 */
/* The address in register 1 lies in the prefix. */
void nft_expr_in_prefix(struct nft_rule *rule, const struct prefix *prefix);
void nft_expr_map(struct nft_rule *rule, const char *map); /* register 1's verdict in the map */
/* What register 1, and those behind it if the set's key is longer, hold is in the set, or is not. */
void nft_expr_in_set(struct nft_rule *rule, const char *set, bool inverted);
void nft_expr_verdict(struct nft_rule *rule, int verdict); /* NFT_RETURN, NF_ACCEPT, ... */
void nft_expr_masquerade(struct nft_rule *rule);

#endif
