/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sets and maps of nftables with an element for each pod, or for each of its addresses. An element's
 * comment names the pod's link and the network, so that nothing of another pod is removed, and GC
 * finds what is left over.
 *
 * Threads: one. In the network namespace of the node.
 */
#ifndef POPLIN_CNI_ELEMENTS_H
#define POPLIN_CNI_ELEMENTS_H

#include "gc.h"
#include "poplin/nl/nft.h"

#define POD_KEY_MAX	24
#define POD_COMMENT_MAX (16 + CNI_NAME_MAX)

struct pod_set {
	const struct nft_table *table;
	const char *name;
	uint32_t key_type; /* in the words of nft(8), which alone reads it */
	uint32_t key_len;  /* in bytes */
	bool verdicts;	   /* a map of them; otherwise a set */
};

struct pod_element {
	uint8_t key[POD_KEY_MAX];
	size_t len;
	char comment[POD_COMMENT_MAX]; /* "": none */
};

/* "<link> <network>" */
void pod_comment(const struct netconf *conf, const struct ipam_owner *owner,
		 char ret[static POD_COMMENT_MAX]);

/* Messages for a batch; NULL when memory is short. */
struct nl_msg *pod_set_msg(const struct pod_set *set); /* makes it */
/* Adds what must not be there. chain: where a map's element goes to; NULL in a set. */
struct nl_msg *pod_element_add_msg(const struct pod_set *set, const struct pod_element *e,
				   const char *chain);

/* Deletes the element with e's key. The lack of it, or of the set, is fine. */
int pod_element_delete(struct netlink *nl, const struct pod_set *set, const struct pod_element *e,
		       struct err *err);

/* Looks up the element with e's key, in constant time, and fills in its comment. -ENOENT. */
int pod_element_get(struct netlink *nl, const struct pod_set *set, struct pod_element *e,
		    struct err *err);

/* What to look for, and what was found. */
struct pod_search {
	const char *comment;   /* that of one attachment; NULL: */
	const char *network;   /* all of this network, */
	struct collection *gc; /* but not of attachments that stay */
	struct pod_element *found;
	size_t nfound, size;
};
/* Without the set nothing is found. */
int pod_elements_find(struct netlink *nl, const struct pod_set *set, struct pod_search *search,
		      struct err *err);
void pod_search_done(struct pod_search *search);

#endif
