/* SPDX-License-Identifier: GPL-2.0-or-later */
/* STATUS: whether an ADD could succeed now. */
#include <errno.h>

#include "cni.h"
#include "delegate.h"
#include "poplin/nl/link.h"

/*
 * The agent's bridge is there; without an agent an ADD makes it. Where it is not, those who are attached
 * already miss it too.
 */
static int look_for_bridge(const struct netconf *conf, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	struct link bridge;
	int r;

	if (!conf->state_dir[0])
		return 0;
	if (netlink_open(&nl, err) < 0)
		return CNI_NOT_AVAILABLE;
	r = link_get(nl, conf->bridge, &bridge, err);
	if (r < 0)
		return r == -ENODEV ? CNI_LIMITED_CONNECTIVITY : CNI_NOT_AVAILABLE;
	if (!(bridge.flags & IFF_UP))
		return err_set(err, CNI_LIMITED_CONNECTIVITY, "link %s is down", conf->bridge);
	return 0;
}

int verb_status(const struct request *req, struct err *err)
{
	const struct netconf *conf = &req->conf;
	int r = look_for_bridge(conf, err);

	if (r)
		return r;
	if (node_ready(conf, err))
		return CNI_NOT_AVAILABLE;
	if (conf->ipam.kind == NETCONF_IPAM_DELEGATED)
		return delegate_run(req, conf->ipam.type, "STATUS", NULL, err);
	if (conf->ipam.kind == NETCONF_IPAM_OWN && ipam_has_free(&conf->ipam.pool, err) < 0)
		return CNI_NOT_AVAILABLE;
	return 0;
}
