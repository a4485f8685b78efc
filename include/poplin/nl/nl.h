/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * rtnetlink over libnl: a socket, single requests, dumps, and batches of requests whose
 * acknowledgements are matched by sequence number.
 *
 * Threads: libnl's sockets are not thread-safe; each thread opens its own.
 */
#ifndef POPLIN_NL_NL_H
#define POPLIN_NL_NL_H

#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "poplin/base/err.h"
#include "poplin/base/mem.h"

struct netlink;

/*
 * Opens an rtnetlink socket in the calling thread's network namespace, with extended and capped
 * acknowledgements, strict dump filters and large buffers.
 */
int netlink_open(struct netlink **ret, struct err *err);
/* The same of another protocol, NETLINK_*. */
int netlink_open_protocol(struct netlink **ret, int protocol, struct err *err);
void netlink_close(struct netlink *nl);
DEFINE_AUTO(struct netlink *, netlink_close)
int netlink_fd(const struct netlink *nl);
uint32_t
netlink_port(const struct netlink *nl); /* nlmsg_pid of notifications that this socket caused */

DEFINE_AUTO(struct nl_msg *, nlmsg_free)

/*
 * Sends one request with NLM_F_ACK and waits for its acknowledgement (5 s at the most). Does not
 * take msg. Returns 0 or the kernel's negative errno, with its extended text where it gave one.
 */
int netlink_request(struct netlink *nl, struct nl_msg *msg, struct err *err);
/* As netlink_request(), for a request that is answered by one message: fn is called with it. */
typedef int netlink_message_fn(const struct nlmsghdr *msg, void *arg);
int netlink_get(struct netlink *nl, struct nl_msg *msg, netlink_message_fn *fn, void *arg,
		struct err *err);
/*
 * Sends a dump request and calls fn for each answer. A dump that the kernel interrupted
 * (NLM_F_DUMP_INTR) is discarded and begun again, with `restart` called first so that the caller
 * can forget what it saw; -EINTR after 10 tries. A negative return of fn ends the dump and is
 * returned.
 */
int netlink_dump(struct netlink *nl, struct nl_msg *msg, netlink_message_fn *fn,
		 void (*restart)(void *arg), void *arg, struct err *err);

/* -- batches ---------------------------------------------------------------- */

struct netlink_batch;

/*
 * Called once per message by netlink_batch_send(): result 0 or the kernel's negative errno; text is
 * its extended text or "".
 */
typedef void netlink_result_fn(size_t tag, int result, const char *text, void *arg);

int netlink_batch_new(struct netlink_batch **ret, struct err *err);
void netlink_batch_free(struct netlink_batch *b);
DEFINE_AUTO(struct netlink_batch *, netlink_batch_free)
/* Copies msg to the end of the batch; tag comes back with its result. -ENOMEM. Takes nothing. */
int netlink_batch_add(struct netlink_batch *b, const struct nl_msg *msg, size_t tag);
size_t netlink_batch_count(const struct netlink_batch *b);
/*
 * Sends everything, in order, with as few system calls as the socket's buffers allow, reports every
 * message's result exactly once, and empties the batch. A message whose result could not be learned
 * (overrun, timeout) reports -ENOBUFS or -ETIMEDOUT. Returns 0, or a negative errno when
 * the socket itself failed (every message not yet reported then carries that error).
 */
int netlink_batch_send(struct netlink *nl, struct netlink_batch *b, netlink_result_fn *fn,
		       void *arg, struct err *err);

/* Takes msg, which may be NULL (-ENOMEM), to the end of the batch. */
int netlink_batch_take(struct netlink_batch *b, struct nl_msg *msg, size_t tag, struct err *err);
/*
 * For a few messages that belong together: sends them, and returns the first failure, told as
 * what[tag]; *ret_failed (may be NULL) becomes its tag. Those behind a failed one were tried too.
 */
int netlink_batch_run(struct netlink *nl, struct netlink_batch *b, const char *const *what,
		      size_t *ret_failed, struct err *err);

/* -- notifications ---------------------------------------------------------- */

struct netlink_monitor;

/* Subscribes to the RTNLGRP_* groups (a list that ends with 0). */
int netlink_monitor_open(struct netlink_monitor **ret, const unsigned *groups, struct err *err);
void netlink_monitor_close(struct netlink_monitor *m);
DEFINE_AUTO(struct netlink_monitor *, netlink_monitor_close)
int netlink_monitor_fd(const struct netlink_monitor *m); /* non-blocking, to poll for POLLIN */
/*
 * Has the kernel leave out what requests from these ports caused (nlmsg_pid), from now on; what
 * waits already is still read. At most NETLINK_PORTS_MAX. Any thread.
 */
#define NETLINK_PORTS_MAX 64
int netlink_monitor_ignore(struct netlink_monitor *m, const uint32_t *ports, size_t count,
			   struct err *err);
/*
 * Reads all that waits. Returns 0; -ENOBUFS: some were lost, compare in full (whatever changes from
 * the return on is told again). A negative return of fn ends it and is returned.
 */
int netlink_monitor_read(struct netlink_monitor *m, netlink_message_fn *fn, void *arg,
			 struct err *err);

#endif
