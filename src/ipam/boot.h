/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pods do not survive a boot, but allocations on a disk do: DIR/boot, a link to the boot's id, says
 * which one they are of. On a tmpfs there is none.
 */
#ifndef POPLIN_IPAM_BOOT_H
#define POPLIN_IPAM_BOOT_H

#include "ledger.h"

/* Whether they are of another boot, and so hold nothing. Threads: any. */
bool boot_is_another(const struct ledger *l);
/* Makes it this boot's ledger: what is of another one goes. Under the lock. Negative errno. */
int boot_begin(const struct ledger *l);

#endif
