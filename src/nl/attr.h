/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses in netlink attributes. Threads: any. */
#ifndef POPLIN_NL_ATTR_H
#define POPLIN_NL_ATTR_H

#include <netlink/attr.h>
#include <netlink/msg.h>

#include "poplin/model/prefix.h"

/* Negative when memory is short (as libnl's nla_put functions). */
static inline int attr_put_addr(struct nl_msg *msg, int type, const struct addr *a)
{
	return nla_put(msg, type, (int)addr_size(a), a->bytes);
}

/* -EINVAL: no attribute, no IP family, or the wrong size. */
int attr_get_addr(const struct nlattr *attr, uint8_t family, struct addr *ret);

#endif
