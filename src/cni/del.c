/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DEL. Needs neither the pod's namespace nor the agent: the link has a name that follows from the
 * attachment, and what is gone already is as good as removed.
 */
#include "cni.h"

int verb_del(const struct request *req, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	int r;

	if (netlink_open(&nl, err) < 0)
		return CNI_KERNEL_REFUSED;
	r = detach(nl, &req->conf, &req->owner, err);
	return r ? r : addresses_give_back(req, err);
}
