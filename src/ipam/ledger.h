/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The folders and links that hold the allocations (poplin/ipam/ipam.h). Threads: as there. */
#ifndef POPLIN_IPAM_LEDGER_H
#define POPLIN_IPAM_LEDGER_H

#include <dirent.h>

#include "poplin/base/mem.h"
#include "poplin/ipam/ipam.h"

#define OWNER_MAX 256 /* a file name has at most 255 bytes */
#define LIST_MAX  (IPAM_SETS_MAX * ADDR_TEXT_MAX)

/* The opened folders; each is -1, for one that is not there, or to be closed. */
struct ledger {
	int dir, attachments, addresses;
	int reservations; /* the plugin host-local's (hostlocal.h) */
	bool locked;
};
#define LEDGER_INIT                                                                                \
	((struct ledger){ .dir = -1, .attachments = -1, .addresses = -1, .reservations = -1 })
void ledger_close(struct ledger *l);
#define auto_ledger __attribute__((cleanup(ledger_close)))

/* To read. Negative errno; -ENOENT: there is no such folder, so nothing was ever allocated. */
int ledger_open(struct ledger *l, const char *dir);
/* Makes what is missing of DIR and locks it. */
int ledger_open_to_change(struct ledger *l, const char *dir, struct err *err);
/* Opens DIR alone, and locks it. */
int ledger_lock(struct ledger *l, const char *dir, struct err *err);
int ledger_open_reservations(struct ledger *l, const char *dir); /* a missing one is fine */

int ledger_owner_name(const struct ipam_owner *owner, char ret[static OWNER_MAX], struct err *err);

/* The content of a link, or a negative errno. */
int ledger_read_link(int at, const char *name, char *ret, size_t size);
int ledger_remove_link(int at, const char *name); /* a missing one is fine */
/*
 * 0: the address is free. 1, and whoever holds it, "something else" for what is no link. Negative errno: it
 * is held, and the disk does not tell by whom.
 */
int ledger_holder(const struct ledger *l, const struct addr *a, char holder[static OWNER_MAX]);

/* The addresses that the owner's attachment names; how many. -ENOENT, -EINVAL: it is no list. */
int ledger_read_attachment(const struct ledger *l, const char *owner,
			   struct addr ret[static IPAM_SETS_MAX]);
/* The same if the addresses agree, all of them. -ENOENT. */
int ledger_lookup(const struct ledger *l, const char *owner, struct addr ret[static IPAM_SETS_MAX]);
int ledger_make_links(const struct ledger *l, const char *owner,
		      const struct ipam_address *addresses, unsigned n);
/* Removes the owner's links, those addresses of ret first that were its own; how many. */
int ledger_release(const struct ledger *l, const char *owner,
		   struct addr ret[static IPAM_SETS_MAX]);

/* "addresses" or "attachments", to be listed. Negative errno. */
int ledger_list(const struct ledger *l, const char *folder, DIR **ret);
/* The same of a ledger yet to be opened. NULL in *ret: nothing was ever allocated. */
int ledger_open_listing(const char *dir, const char *folder, struct ledger *l, DIR **ret,
			struct err *err);
/* 1, or 0: there are no more. Negative errno: the disk does not tell. */
int ledger_next(DIR *list, const struct dirent **ret);

#endif
