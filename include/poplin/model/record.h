/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A node's record as it stands in the store: JSON
 *	{"version":1,"subnets":["10.2.1.0/24"],"address":"192.168.0.11",
 *	 "backend":{"type":"host-gw"},"machine":"<hash of machine-id>"}
 * or the bare "10.2.1.0/24" of the Python agent, whose next hop is the node's name, resolved.
 * Everything here is untrusted input: unknown keys are accepted, known ones are checked.
 * Threads: any; plain values.
 */
#ifndef POPLIN_MODEL_RECORD_H
#define POPLIN_MODEL_RECORD_H

#include <stdbool.h>
#include <stddef.h>

#include "poplin/base/err.h"
#include "poplin/model/network.h"
#include "poplin/model/prefix.h"

#define RECORD_VERSION	   1
#define RECORD_SUBNETS_MAX 4
#define RECORD_MACHINE_MAX 64
#define NODE_NAME_TEXT_MAX 254 /* a DNS name (RFC 1123), as Kubernetes demands of a node */
#define RECORD_BYTES_MAX   4096

enum backend { BACKEND_HOST_GW };

struct record {
	struct prefix subnets[RECORD_SUBNETS_MAX];
	unsigned nsubnets;   /* at least 1 */
	struct addr address; /* AF_UNSPEC in a bare record: to be resolved from the node's name */
	enum backend backend;
	char machine[RECORD_MACHINE_MAX + 1]; /* "" in a bare record */
};

/* Letters, digits, '-' and '.', not empty, at most 253, begins and ends with a letter or digit. */
bool node_name_valid(const char *name);

/* Syntax and types only. data need not be NUL-terminated. */
int record_parse(const char *data, size_t len, struct record *ret, struct err *err);
/* The JSON form; ret is NUL-terminated. -ENOSPC when it does not fit. */
int record_format(const struct record *r, char *ret, size_t size, struct err *err);
/*
 * What must be right before a record comes near a netlink socket: each subnet is one of the
 * network's node subnets, listed once, and not ours (`own`, may be NULL); the address (where there
 * is one) is unicast, of the subnets' family, outside the pod network, and not `own_address` (may
 * be NULL). Returns 0 or -EINVAL (-EADDRINUSE when it claims our subnet or address).
 */
int record_validate(const struct record *r, const struct network *network, const struct prefix *own,
		    const struct addr *own_address, struct err *err);

#endif
