/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DEL. Needs neither the pod's namespace nor the agent: the link has a name that follows from the
 * attachment, and what is gone already is as good as removed.
 */
#include <errno.h>
#include <string.h>

#include "cni.h"
#include "poplin/nl/link.h"

static int delete_veth(const char *name, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	struct link link;
	int r = netlink_open(&nl, err);

	if (r == 0)
		r = link_get(nl, name, &link, err);
	if (r == 0 && strcmp(link.kind, "veth") == 0)
		r = link_delete(nl, link.index, err);
	return r;
}

/*
 * A pod that the plugins `bridge` and `host-local` attached, before this one took their place: only
 * the pod's end has a name that is known.
 */
static int remove_inside(const struct request *req, const struct netlink *host, struct err *err)
{
	auto_close int netns = netns_open(req->netns, NULL);
	int r;

	if (netns < 0)
		return 0; /* gone, and the link with it */
	r = netns_enter(netns, err);
	if (r == 0)
		r = delete_veth(req->owner.interface, err);
	if (r < 0 && r != -ENODEV)
		return CNI_KERNEL_REFUSED;
	return netns_return(host, err) < 0 ? CNI_KERNEL_REFUSED : 0;
}

int verb_del(const struct request *req, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	int r = 0;

	if (netlink_open(&nl, err) < 0)
		return CNI_KERNEL_REFUSED;
	if (req->netns[0])
		r = ipam_is_reserved(&req->conf.ipam.pool, &req->owner, err);
	if (r < 0)
		return CNI_IO_FAILURE;
	if (r > 0)
		r = remove_inside(req, nl, err);
	if (r == 0)
		r = detach(nl, &req->conf, &req->owner, err);
	return r ? r : addresses_give_back(req, err);
}
