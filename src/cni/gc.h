/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of GC share. Threads: one. */
#ifndef POPLIN_CNI_GC_H
#define POPLIN_CNI_GC_H

#include "cni.h"

struct collection;

/*
 * The names of the links of attachments that stay, a set that grows with each call: to be asked after
 * what is there was listed, and before any of it is removed. NULL: nobody knows, the disk does not tell.
 */
const json_t *gc_settle_links(struct collection *c, struct err *err);

#endif
