/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of links. Threads: those of the struct netlink. */
#ifndef POPLIN_NL_ADDRESS_H
#define POPLIN_NL_ADDRESS_H

#include "poplin/model/prefix.h"
#include "poplin/nl/nl.h"

/* address is "10.2.1.1/24": host bits set, length of the subnet. */
struct address {
	unsigned index; /* of the link */
	struct prefix address;
	uint8_t scope;	/* RT_SCOPE_* */
	uint32_t flags; /* IFA_F_* */
};

int address_parse(const struct nlmsghdr *msg, struct address *ret); /* RTM_NEWADDR, RTM_DELADDR */
/* Addresses of the link (0: of all links) and family (AF_UNSPEC: both). */
int address_foreach(struct netlink *nl, unsigned index, int family,
		    int (*fn)(const struct address *address, void *arg), void *arg,
		    struct err *err);
int address_ensure(struct netlink *nl, unsigned index, const struct prefix *address,
		   struct err *err);
int address_absent(struct netlink *nl, unsigned index, const struct prefix *address,
		   struct err *err);
/*
 * Message for a batch; NULL when memory is short. The address is usable at once: nobody looks
 * whether another link has it (IFA_F_NODAD), unless detect_duplicates (IPv6).
 */
struct nl_msg *address_add_msg(unsigned index, const struct prefix *address,
			       bool detect_duplicates);

#endif
