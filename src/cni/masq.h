/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ipMasq: what pods send out of their network gets the node's address.
 *
 * One table of our own, made with the first pod that needs it:
 *	table inet poplin_pods {
 *		map pods4 { type ipv4_addr : verdict
 *			elements = { 10.2.1.5 comment "popad0f... net" : goto local_10.2.1.0_24 } }
 *		map pods6 ...
 *		chain local_10.2.1.0_24 {
 *			ip daddr 10.2.1.0/24 return; ip daddr 224.0.0.0/4 return; masquerade }
 *		chain postrouting { type nat hook postrouting priority srcnat;
 *			ip saddr vmap @pods4; ip6 saddr vmap @pods6 }
 *	}
 * A pod is one element per address: a packet costs one look-up however many there are, and what is
 * to be removed is known from the address alone, whatever became of the pod's namespace. The
 * comment names the pod's link and the network, so that nothing of another pod is removed, and GC
 * finds what is left over.
 *
 * Threads: one. In the network namespace of the node.
 */
#ifndef POPLIN_CNI_MASQ_H
#define POPLIN_CNI_MASQ_H

#include "gc.h"

/* 0 or a code. */
int masq_add(const struct netconf *conf, const struct ipam_owner *owner, const struct given *given,
	     struct err *err);
/* Removes whatever the attachment has, before its addresses go; nothing is fine. nl: nft_open(). */
int masq_remove(struct netlink *nl, const struct netconf *conf, const struct ipam_owner *owner,
		struct err *err);
/* Removes what the network has of attachments that do not stay. 0 or a code. */
int masq_collect(const struct netconf *conf, struct collection *gc, struct err *err);

#endif
