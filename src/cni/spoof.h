/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * macspoofchk: a pod sends only with the MAC that it was given.
 *
 * One table of our own, made with the first pod that needs it:
 *	table bridge poplin_pods {
 *		set guarded { type ifname; elements = { "popad0f..." comment "02:..." } }
 *		set senders { type ifname . ether_addr
 *			elements = { "popad0f..." . 02:... comment "popad0f... net" } }
 *		chain prerouting { type filter hook prerouting priority -300;
 *			iifname @guarded iifname . ether saddr != @senders drop }
 *	}
 * A frame costs two look-ups however many pods there are. What is to be removed is known from the
 * link's name alone: the comment in the first set is the rest of the second one's key.
 *
 * Threads: one. In the network namespace of the node.
 */
#ifndef POPLIN_CNI_SPOOF_H
#define POPLIN_CNI_SPOOF_H

#include "gc.h"

/* Before the link is there, so that not one frame comes by. 0 or a code. */
int spoof_add(const struct netconf *conf, const struct ipam_owner *owner,
	      const uint8_t mac[static 6], struct err *err);
/* Removes whatever the attachment has, when its link is gone; nothing is fine. nl: nft_open(). */
int spoof_remove(struct netlink *nl, const struct netconf *conf, const struct ipam_owner *owner,
		 struct err *err);
/* Whether the kernel has what spoof_add() made. 0 or a code. */
int spoof_check(const struct netconf *conf, const struct ipam_owner *owner, struct err *err);
/* Removes what the network has of attachments that do not stay. 0 or a code. */
int spoof_collect(const struct netconf *conf, struct collection *gc, struct err *err);

#endif
