/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses of pods, held on disk (tmpfs) by whoever runs the functions below: the CNI plugin.
 *
 * Theory of operation. An allocation is made of symbolic links, since symlink(2) makes a name and
 * its content in one step and fails when the name is there:
 *	DIR/attachments/<container id>:<interface>  ->  10.2.1.5,fd00:2:0:1::5
 *	DIR/addresses/10.2.1.5                      ->  <container id>:<interface>
 *	DIR/addresses/fd00:2:0:1::5                 ->  <container id>:<interface>
 * The attachment is made first and removed last, so a process that dies at any point leaves at most
 * an attachment that the following DEL or GC finds by its name. An address is held as long as its
 * link is there. Changes are made one at a time under flock(2) of DIR, which ends with the process:
 * two releases of one owner could otherwise take the address from whoever got it in between.
 *
 * DIR/maps/<hash of the ranges> has a bit for each address and says where to go on searching (next
 * fit: a freed address rests before it is used again), so that an allocation costs the same however
 * many are held. It is only a hint, and may be torn, stale or lost: a clear bit whose address is
 * held is passed over, and a map without a clear bit is made anew from the links before anybody is
 * told that the pool is exhausted. The alternative, a walk over the links, took 30 ms at 60,000.
 *
 * Pods do not survive a boot: where DIR lies on a disk, DIR/boot is a link to the boot's id, and what
 * another boot left counts for nothing, and goes with the next change.
 *
 * A folder that an allocator of the plugin host-local used before counts as well (pool.reservations):
 * its files are held addresses until their pods go.
 *
 * Threads and processes: any number at once.
 */
#ifndef POPLIN_IPAM_IPAM_H
#define POPLIN_IPAM_IPAM_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "poplin/base/err.h"
#include "poplin/model/prefix.h"

/* -- the pool ---------------------------------------------------------------- */

#define IPAM_SETS_MAX	8  /* addresses of one attachment */
#define IPAM_RANGES_MAX 32 /* of all sets together */
#define IPAM_HOLES_MAX	32

struct ipam_range {
	unsigned set; /* an attachment gets one address of each set */
	struct prefix subnet;
	struct addr first, last; /* both can be given */
	struct addr gateway;	 /* is never given; need not lie in the subnet */
};

struct ipam_hole {
	struct addr first, last;
	bool on_request; /* given to whoever asks for that very address */
};

struct ipam_pool {
	char dir[PATH_MAX];
	/* Where the plugin host-local left reservations, which count as held; "": nowhere. */
	char reservations[PATH_MAX];
	unsigned nsets, nranges, nholes;
	struct ipam_range ranges[IPAM_RANGES_MAX]; /* in order of their sets */
	struct ipam_hole holes[IPAM_HOLES_MAX];
};

/*
 * Fills in what is not set of a range (family AF_UNSPEC): gateway and first address are the first
 * host, the last address is the last host. -EINVAL: the subnet is too small for a gateway and a pod
 * (/31, /127 and up), or first and last are not of it, or in the wrong order, or the gateway is of
 * another family.
 */
int ipam_range_complete(struct ipam_range *range, struct err *err);
/*
 * Adds a completed range, which belongs to the last set or to a new one. -EINVAL: it overlaps
 * another, or is not of its set's family. -ENOSPC: too many.
 */
int ipam_pool_add(struct ipam_pool *pool, const struct ipam_range *range, struct err *err);
int ipam_pool_add_hole(struct ipam_pool *pool, const struct ipam_hole *hole, struct err *err);
/* The whole of a subnet: as a pool of one range would have it. */
int ipam_pool_add_subnet(struct ipam_pool *pool, const struct prefix *subnet, struct err *err);
uint64_t ipam_capacity(const struct prefix *subnet); /* pods that fit; UINT64_MAX at the most */

/* -- writers: only the plugin uses these ---------------------------------------- */

/* CNI: container id and interface name, both without '/', and without ':' in the id. */
struct ipam_owner {
	const char *container;
	const char *interface;
};

struct ipam_address {
	struct prefix address; /* with the length of its subnet */
	struct addr gateway;
};

/*
 * Gives the owner an address of each set of the pool, ret[0] to ret[pool->nsets - 1]. The wanted
 * addresses are given where they belong. -EEXIST: this owner holds some already. -EADDRINUSE: a
 * wanted one is held (text says by whom). -EADDRNOTAVAIL: none is free (text says how many are held and
 * where to look). -EINVAL: a wanted one is not of the pool, or is a gateway.
 */
int ipam_allocate(const struct ipam_pool *pool, const struct addr *wanted, unsigned nwanted,
		  const struct ipam_owner *owner, struct ipam_address ret[static IPAM_SETS_MAX],
		  struct err *err);
/* Frees what the owner holds; holding nothing is fine. */
int ipam_release(const struct ipam_pool *pool, const struct ipam_owner *owner, struct err *err);
/*
 * Frees addresses whose holder has no attachment that names them: no process leaves such behind, but
 * somebody may have removed files by hand. Returns how many.
 */
int ipam_release_orphans(const char *dir, struct err *err);
/*
 * ADD's last word: the attachment is made, and nobody took it back while it was. -ENOENT: somebody did
 * (ipam_condemn(), ipam_collect()), and what was made must go.
 */
int ipam_confirm(const char *dir, const struct ipam_owner *owner, struct err *err);
/*
 * GC's first word: 1, and an ADD that still runs will not be confirmed, if the attachment was made, and
 * confirmed, before since_ns (CLOCK_REALTIME). 0: it is newer, or there is none: it must be left alone.
 */
int ipam_condemn(const char *dir, const struct ipam_owner *owner, int64_t since_ns,
		 struct err *err);
/*
 * For the agent: frees what the owner holds if its attachment is still the file of that number
 * (ipam_attachment()) and is_gone() says that its link is missing. An ADD that makes the link after
 * that is not confirmed. Returns whether it was freed.
 */
int ipam_collect(const char *dir, const struct ipam_owner *owner, uint64_t number,
		 bool (*is_gone)(const struct ipam_owner *owner, void *arg), void *arg,
		 struct err *err);

/* -- readers ------------------------------------------------------------------- */

/* The owner's addresses; returns how many. -ENOENT: it holds none (or only half of its own). */
int ipam_lookup(const struct ipam_pool *pool, const struct ipam_owner *owner,
		struct addr ret[static IPAM_SETS_MAX], struct err *err);
/* 1, and who holds the address, "<container>:<interface>". 0: nobody. Negative errno: nobody knows. */
#define IPAM_HOLDER_MAX 256
int ipam_holder(const struct ipam_pool *pool, const struct addr *addr,
		char ret[static IPAM_HOLDER_MAX], struct err *err);
/* Whether what ipam_holder() told is this owner. */
bool ipam_is_holder(const char *holder, const struct ipam_owner *owner);
/*
 * 1 if host-local gave the owner what it holds: another plugin made its link then. Else 0, or a
 * negative errno where the disk does not tell.
 */
int ipam_is_reserved(const struct ipam_pool *pool, const struct ipam_owner *owner, struct err *err);
/* 0, or -EADDRNOTAVAIL when a set has no address that is free (text as of ipam_allocate()). */
int ipam_has_free(const struct ipam_pool *pool, struct err *err);
/* The number of the owner's attachment, for ipam_collect(). False: there is none. */
bool ipam_attachment(const char *dir, const struct ipam_owner *owner, uint64_t *ret);
/* Calls fn for every address held, in no order; a negative return ends it. */
typedef int ipam_fn(const struct addr *addr, const char *container, const char *interface,
		    void *arg);
int ipam_foreach(const char *dir, ipam_fn *fn, void *arg, struct err *err);
/*
 * The same for those that host-local reserved; what it left out of a file is "". A file that cannot be read
 * is an error, when all others were told.
 */
int ipam_foreach_reserved(const struct ipam_pool *pool, ipam_fn *fn, void *arg, struct err *err);
/* Calls fn for every attachment, complete or half made (addr->family AF_UNSPEC): for GC. */
int ipam_foreach_attachment(const char *dir, ipam_fn *fn, void *arg, struct err *err);

#endif
