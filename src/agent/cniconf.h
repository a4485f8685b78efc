/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two files that make a container runtime use poplin: the plugin, and the CNI configuration
 * that names it. The configuration comes last, since a runtime takes the node for ready as soon as
 * it finds one.
 *
 * Threads: the main thread.
 */
#ifndef POPLIN_AGENT_CNICONF_H
#define POPLIN_AGENT_CNICONF_H

#include "poplin/base/buf.h"
#include "poplin/model/prefix.h"
#include "settings.h"

/*
 * The configuration: a list, or a single plugin when CNI_CONFIG_LOCATION ends in .conf (CNI
 * specification, section 1). The plugins of CNI_CHAIN are read anew each time. Appended to ret.
 */
int cniconf_format(const struct settings *s, const struct prefix *subnet, unsigned mtu,
		   struct buf *ret, struct err *err);
/*
 * Puts the plugin, then the configuration, each only where it is not there as it should be.
 * *ret_changed says whether anything had to be written.
 */
int cniconf_install(const struct settings *s, const struct prefix *subnet, unsigned mtu,
		    bool *ret_changed, struct err *err);
/* Removes the configuration, then the plugin. What is not there is fine. */
int cniconf_remove(const struct settings *s, struct err *err);

#endif
