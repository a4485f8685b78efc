/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses of pods, held on disk (tmpfs) by whoever runs the functions below: the CNI plugin.
 *
 * Theory of operation. An allocation is two symbolic links, since symlink(2) makes a name and its
 * content in one step and fails when the name is there:
 *	DIR/attachments/<container id>:<interface>  ->  10.2.1.5
 *	DIR/addresses/10.2.1.5                      ->  <container id>:<interface>
 * The attachment is made first and removed last, so a process that dies at any point leaves at most
 * an attachment that the following DEL or GC finds by its name. An address is held as long as its
 * link is there. Changes are made one at a time under flock(2) of DIR, which ends with the process:
 * two releases of one owner could otherwise take the address from whoever got it in between.
 *DIR/last holds the address given last; the search goes on behind it, so that a freed address rests
 * before it is used again. It is only a hint.
 *
 * Threads and processes: any number at once.
 */
#ifndef POPLIN_IPAM_IPAM_H
#define POPLIN_IPAM_IPAM_H

#include <stdint.h>

#include "poplin/base/err.h"
#include "poplin/model/prefix.h"

/* CNI: container id and interface name, both without '/', and without ':' in the id. */
struct ipam_owner {
	const char *container;
	const char *interface;
};

/*
 * Gives the owner an address of the subnet: never the network address, the gateway or (IPv4) the
 * broadcast address. `wanted` (may be NULL) asks for that very one. -EEXIST: this owner holds one
 * already. -EADDRINUSE: the wanted one is held (text says by whom). -ENOSPC: none is free (text
 * says how many are held and where to look). -EINVAL: the wanted one is not of the subnet.
 */
int ipam_allocate(const char *dir, const struct prefix *subnet, const struct addr *wanted,
		  const struct ipam_owner *owner, struct addr *ret, struct err *err);
/* Frees what the owner holds; holding nothing is fine. */
int ipam_release(const char *dir, const struct ipam_owner *owner, struct err *err);
/* -ENOENT: the owner holds none (or only half of one). */
int ipam_lookup(const char *dir, const struct ipam_owner *owner, struct addr *ret, struct err *err);
/* -- readers: the agent uses only these ----------------------------------- */

/* Calls fn for every complete allocation, in no order; a negative return ends it. */
typedef int ipam_fn(const struct addr *addr, const char *container, const char *interface,
		    void *arg);
int ipam_foreach(const char *dir, ipam_fn *fn, void *arg, struct err *err);
/* Calls fn for every attachment, complete or half made (addr->family AF_UNSPEC): for GC. */
int ipam_foreach_attachment(const char *dir, ipam_fn *fn, void *arg, struct err *err);
uint64_t ipam_capacity(const struct prefix *subnet); /* pods that fit; UINT64_MAX at the most */

#endif
