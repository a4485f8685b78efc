/* SPDX-License-Identifier: GPL-2.0-or-later */
/* STATUS: whether an ADD could succeed now. */
#include "cni.h"
#include "poplin/nl/link.h"

int verb_status(const struct request *req, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	struct link bridge;

	if (node_ready(&req->conf, err))
		return CNI_NOT_AVAILABLE;
	if (netlink_open(&nl, err) < 0 || link_get(nl, req->conf.bridge, &bridge, err) < 0)
		return CNI_NOT_AVAILABLE;
	return 0;
}
