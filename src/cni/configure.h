/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pod's side of an attachment. Threads: one. */
#ifndef POPLIN_CNI_CONFIGURE_H
#define POPLIN_CNI_CONFIGURE_H

#include "cni.h"
#include "poplin/nl/link.h"

/*
 * Enters the pod's namespace for the rest of the process, and gives the link of that name its
 * addresses and routes. foreign_mac: its MAC does not follow from an address. 0 or a code.
 */
int configure_pod(const struct netconf *conf, const struct given *given, int netns,
		  bool foreign_mac, struct link *link, struct err *err);

#endif
