/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Red-black trees: libbsd's <sys/tree.h>. Threads: as the tree's owner says. */
#ifndef POPLIN_BASE_TREE_H
#define POPLIN_BASE_TREE_H

#include <bsd/sys/tree.h>

/* RB_GENERATE_STATIC() itself wants a macro __unused that only the BSDs have. */
#define TREE_GENERATE(name, type, field, cmp)                                                      \
	RB_GENERATE_INTERNAL(name, type, field, cmp, __attribute__((unused)) static)

#endif
