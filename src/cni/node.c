/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the plugin knows of its node, and the taking apart that DEL, GC and a failed ADD share. */
#include <errno.h>
#include <string.h>

#include "cni.h"
#include "masq.h"
#include "poplin/model/nodestate.h"
#include "poplin/model/pod.h"
#include "poplin/nl/link.h"
#include "poplin/nl/nft.h"
#include "spoof.h"

/* Whether one of the pool's ranges is the subnet. */
static bool has_subnet(const struct ipam_pool *pool, const struct prefix *subnet)
{
	for (unsigned i = 0; i < pool->nranges; i++)
		if (prefix_cmp(&pool->ranges[i].subnet, subnet) == 0)
			return true;
	return false;
}

int node_ready(const struct netconf *conf, struct err *err)
{
	const struct ipam_pool *pool = &conf->ipam.pool;
	char ours[PREFIX_TEXT_MAX], theirs[PREFIX_TEXT_MAX];
	struct nodestate state;

	if (!conf->state_dir[0])
		return 0;
	if (nodestate_read(conf->state_dir, &state, err) < 0)
		return err_wrap(err, CNI_TRY_AGAIN_LATER,
				"poplind has no subnet for this node yet");
	prefix_format(&state.subnet, theirs);
	if (pool->nranges && !has_subnet(pool, &state.subnet))
		return err_set(err, CNI_TRY_AGAIN_LATER,
			       "the configuration is about %s, the node holds %s by now",
			       prefix_format(&pool->ranges[0].subnet, ours), theirs);
	if (nodestate_check(&state, err) < 0)
		return CNI_TRY_AGAIN_LATER;
	return 0;
}

int pod_link_is_of(struct netlink *nl, const char *name, const char *network, unsigned *ret_index,
		   struct err *err)
{
	struct link link;
	int r = link_get(nl, name, &link, err);

	if (r < 0)
		return r;
	if (ret_index)
		*ret_index = link.index;
	return link.group == pod_link_group(network);
}

int detach(struct netlink *nl, const struct netconf *conf, const struct ipam_owner *owner,
	   struct err *err)
{
	auto_(netlink_close) struct netlink *nft = NULL;
	unsigned index;
	char name[16];
	bool foreign;
	int r;

	/*
	 * Before the link goes: the kernel ends what a removal by nftables left over when the last
	 * holder closes the socket (nft_rcv_nl_event), in 6 to 20 ms. The process that sees to the
	 * rest of the link holds it too, and longer than this one.
	 */
	if ((conf->ip_masq || conf->mac_spoof_check) && nft_open(&nft, err) < 0)
		return CNI_KERNEL_REFUSED;
	pod_link_name(owner->container, owner->interface, name);
	r = pod_link_is_of(nl, name, conf->name, &index, err);
	foreign = r == 0;
	if (r > 0)
		r = pod_link_remove(nl, name, index, err);
	/* Gone with the pod's namespace, or never made. */
	if (r < 0 && r != -ENODEV)
		return CNI_KERNEL_REFUSED;
	if (conf->ip_masq && masq_remove(nft, conf, owner, err))
		return CNI_KERNEL_REFUSED;
	/* What checks MACs goes by the link's name. */
	if (conf->mac_spoof_check && !foreign && spoof_remove(nft, conf, owner, err))
		return CNI_KERNEL_REFUSED;
	/* The address last: nobody may get it while a link still answers for it. */
	if (conf->ipam.kind != NETCONF_IPAM_OWN)
		return 0;
	return ipam_release(&conf->ipam.pool, owner, err) < 0 ? CNI_IO_FAILURE : 0;
}
