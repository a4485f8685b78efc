/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The resolver thread: addresses of nodes whose records have none (those of the Python agent), from
 * their names by getaddrinfo(3), which can block for many seconds and cannot be interrupted.
 *
 * Threads: one of its own; the functions below may be called from any thread.
 */
#ifndef POPLIN_AGENT_RESOLVER_H
#define POPLIN_AGENT_RESOLVER_H

#include <stdbool.h>

#include "poplin/base/err.h"
#include "poplin/model/prefix.h"

struct resolver;

/*
 * Called on the resolver thread after each look-up. A name that cannot be looked up keeps the address
 * it had: a name server that is away must not cost a route. AF_UNSPEC: it never had one. Returns
 * whether the name is still wanted.
 */
typedef bool resolver_fn(const char *node, const struct addr *address, void *arg);

int resolver_start(struct resolver **ret, int family, resolver_fn *fn, void *arg, struct err *err);
/*
 * Ends the thread; fn is not called again. A lookup that hangs is left behind: its thread ends by
 * itself and touches nothing of ours.
 */
void resolver_stop(struct resolver *r);
/* Looks the name up, now and then again from time to time, as long as fn says that it is wanted. */
void resolver_want(struct resolver *r, const char *node);

#endif
