/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the plugin host-local reserved for pods that were attached before this plugin took its place:
 * files <address> with the container id in the first line and the interface, which old versions left
 * out, in the second (its disk backend, plugins/ipam/host-local/backend/disk). Each counts as held
 * until its pod goes. None is ever made here, and host-local itself must not run any more: it knows
 * nothing of our links.
 * Threads: the holder of the ledger's lock removes, any reads.
 */
#ifndef POPLIN_IPAM_HOSTLOCAL_H
#define POPLIN_IPAM_HOSTLOCAL_H

#include "ledger.h"

/* As ledger_holder(). */
int hostlocal_holder(const struct ledger *l, const struct addr *a, char holder[static OWNER_MAX]);
/* Whether a holder is this owner: the same name, or one whose interface an old version left out. */
bool hostlocal_is_of(const char *holder, const char *owner);
/*
 * Calls fn for each address reserved, in no order; a negative return ends it, and fn tells of it. A file
 * that cannot be read (not one that was read and names no pod) is an error when all others were told.
 */
typedef int hostlocal_fn(const struct addr *addr, const char *holder, void *arg);
int hostlocal_foreach(const struct ledger *l, hostlocal_fn *fn, void *arg, struct err *err);
/* The addresses of an owner; how many. -ENOENT: none. */
int hostlocal_lookup(const struct ledger *l, const char *owner,
		     struct addr ret[static IPAM_SETS_MAX], struct err *err);
/* Removes the owner's files, and tells which. */
int hostlocal_release(const struct ledger *l, const char *owner,
		      void (*released)(const struct addr *addr, void *arg), void *arg,
		      struct err *err);

#endif
