/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The cluster's pod network and how it is cut into node subnets. Threads: any; plain values. */
#ifndef POPLIN_MODEL_NETWORK_H
#define POPLIN_MODEL_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

#include "poplin/model/prefix.h"

struct network {
	struct prefix pods; /* IP_SUBNET */
	uint8_t node_len;   /* length of a node's subnet: pods.len + IP_SUBNET_MARGIN */
};

/*
 * A node's subnet must hold a gateway and a pod: at most /30 (IPv6 /126). margin at most 24 bits.
 */
int network_init(struct network *ret, const struct prefix *pods, unsigned margin, struct err *err);
uint32_t network_subnets(const struct network *n); /* how many node subnets there are */
struct prefix network_subnet(const struct network *n, uint32_t index);
/* True, and the index, when p is exactly one of the node subnets. */
bool network_index(const struct network *n, const struct prefix *p, uint32_t *ret);

#endif
