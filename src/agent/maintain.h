/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an administrator does while the agent does not run: give the subnet back, take everything
 * off the node. Threads: main, and no other.
 */
#ifndef POPLIN_AGENT_MAINTAIN_H
#define POPLIN_AGENT_MAINTAIN_H

#include "settings.h"

/*
 * --release: the record and the subnet's key go from the store. Having none is fine. -EBUSY: pods
 * hold addresses, and it is not to be forced.
 */
int maintain_release(const struct settings *s, bool force, struct err *err);
/*
 * Closes the node for new pods, and opens it again when pods hold addresses: -EBUSY, and nothing is
 * changed.
 */
int maintain_close(const struct settings *s, struct err *err);
/*
 * --cleanup: CNI configuration, plugin, routes, nexthops, bridge, pods' links and state go from the
 * node; the record in the store stays. Goes on after a failure; the first one is returned.
 */
int maintain_cleanup(const struct settings *s, struct err *err);

#endif
