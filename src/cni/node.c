/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the plugin knows of its node, and the taking apart that DEL, GC and a failed ADD share. */
#include <errno.h>
#include <string.h>

#include "cni.h"
#include "poplin/base/clock.h"
#include "poplin/model/nodestate.h"
#include "poplin/model/pod.h"
#include "poplin/nl/link.h"

int node_ready(const struct netconf *conf, struct err *err)
{
	char ours[PREFIX_TEXT_MAX], theirs[PREFIX_TEXT_MAX];
	struct nodestate state;

	if (nodestate_read(conf->state_dir, &state, err) < 0)
		return err_wrap(err, CNI_TRY_AGAIN_LATER,
				"poplind has no subnet for this node yet");
	if (prefix_cmp(&state.subnet, &conf->subnet) != 0)
		return err_set(err, CNI_TRY_AGAIN_LATER,
			       "the configuration is about %s, the node holds %s by now",
			       prefix_format(&conf->subnet, ours),
			       prefix_format(&state.subnet, theirs));
	/* Past it, another node may hold the subnet: giving out addresses could give one twice. */
	if (clock_boot_ns() >= state.lease_deadline_ns)
		return err_set(
			err, CNI_TRY_AGAIN_LATER,
			"the lease of subnet %s has run out: is poplind running, and does it "
			"reach etcd?",
			prefix_format(&conf->subnet, ours));
	return 0;
}

int detach(struct netlink *nl, const struct netconf *conf, const struct ipam_owner *owner,
	   struct err *err)
{
	char name[16];
	struct link link;
	int r;

	pod_link_name(owner->container, owner->interface, name);
	r = link_get(nl, name, &link, err);
	if (r == 0)
		r = link_delete(nl, link.index, err);
	/* Gone with the pod's namespace, or never made. */
	if (r < 0 && r != -ENODEV)
		return CNI_KERNEL_REFUSED;
	/* The address last: nobody may get it while a link still answers for it. */
	return ipam_release(conf->ipam_dir, owner, err) < 0 ? CNI_IO_FAILURE : 0;
}
