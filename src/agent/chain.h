/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CNI_CHAIN: plugins that follow ours in the CNI configuration, such as portmap and bandwidth.
 * Threads: any; no state.
 */
#ifndef POPLIN_AGENT_CHAIN_H
#define POPLIN_AGENT_CHAIN_H

#include <jansson.h>

#include "poplin/base/err.h"

/*
 * The plugins of a file: an array of their objects, or an object with that array as "plugins" (CNI
 * specification, section 1). The objects are checked no further than that each has a "type" which
 * can be a file's name and is not own_type: the rest is for the plugins to judge. *ret is the
 * caller's; empty for the path "". On failure err names the file and the entry.
 */
int chain_read(const char *path, const char *own_type, json_t **ret, struct err *err);

#endif
