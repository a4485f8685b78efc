/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names that follow from a pod's attachment or address alone. Threads: any. */
#ifndef POPLIN_MODEL_POD_H
#define POPLIN_MODEL_POD_H

#include <stdint.h>

#include "poplin/model/prefix.h"

/* Name of the host end of a pod's veth: the prefix and 12 digits derived from the attachment. */
#define POD_LINK_PREFIX "pop"
void pod_link_name(const char *container, const char *interface, char ret[static 16]);
/* The group of the host ends of a network's links, never 0: by it the network knows its own. */
uint32_t pod_link_group(const char *network);
/*
 * What stands for an address in a MAC: an IPv4 address itself, a hash of all of an IPv6 one. Pods of
 * two networks on one link have the same last bytes (fd00:1::2, fd00:2::2), and must not have the same
 * MAC, from which their link-local addresses follow.
 */
void pod_mac_bytes(const struct addr *address, uint8_t ret[static 4]);
/* MAC of a pod's end: 02:70 and pod_mac_bytes(), so that a reused address meets no stale ARP entry. */
void pod_mac(const struct addr *address, uint8_t ret[static 6]);
/* MAC of the host's end: 02:71 and pod_mac_bytes(). */
void pod_host_mac(const struct addr *address, uint8_t ret[static 6]);
/*
 * MAC of a bridge that the plugin makes for itself: 02:72 and pod_mac_bytes(). Never one of an agent's
 * bridges (bridge_mac() of dataplane/bridge.h), which agents take for theirs.
 */
void pod_gateway_mac(const struct addr *gateway, uint8_t ret[static 6]);

#endif
