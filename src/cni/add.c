/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ADD. The address is taken first, then the veth is made with its other end right inside the pod,
 * which is configured there through a socket of its namespace. Whatever fails takes back all of it.
 *
 * A process killed in between leaves an address, or an address and a link, under names that follow
 * from the attachment; the DEL that a runtime sends after a failed ADD, and GC, find them.
 */
#include <errno.h>
#include <string.h>

#include "bridge.h"
#include "configure.h"
#include "masq.h"
#include "poplin/base/clock.h"
#include "poplin/model/pod.h"
#include "result.h"
#include "spoof.h"

#define OPEN_NS	       (5 * NS_PER_S)
#define BRIDGE_OPEN_NS (100 * NS_PER_MS)

struct attachment {
	const struct request *req;
	struct wishes wishes;
	struct netlink *host; /* a socket in the node's namespace */
	int netns;
	struct link bridge, host_link, pod_link;
	struct given given;
};

/* The specification leaves a link without an address its own. */
static void random_mac(uint8_t ret[static 6])
{
	arc4random_buf(ret, 6);
	ret[0] = (uint8_t)((ret[0] & 0xfc) | 0x02); /* of one station, locally administered */
}

/* What both ends are like is ours to choose: nothing has to be asked of the kernel afterwards. */
static void plan_ends(struct attachment *a)
{
	const struct ipam_owner *owner = &a->req->owner;
	unsigned mtu = a->req->conf.mtu;

	a->host_link.mtu = a->pod_link.mtu = mtu ? mtu : a->bridge.mtu;
	pod_link_name(owner->container, owner->interface, a->host_link.name);
	strlcpy(a->pod_link.name, owner->interface, sizeof(a->pod_link.name));
	if (a->given.naddresses) {
		pod_host_mac(&a->given.addresses[0].address.addr, a->host_link.mac);
		pod_mac(&a->given.addresses[0].address.addr, a->pod_link.mac);
	} else {
		random_mac(a->host_link.mac);
		random_mac(a->pod_link.mac);
	}
	if (a->wishes.has_mac)
		memcpy(a->pod_link.mac, a->wishes.mac, sizeof(a->pod_link.mac));
}

static int make_veth(struct attachment *a, struct err *err)
{
	struct link_veth veth = {
		.host_name = a->host_link.name,
		.host_mac = a->host_link.mac,
		.master = a->bridge.index,
		.peer_name = a->pod_link.name,
		.peer_netns = a->netns,
		.peer_mac = a->pod_link.mac,
		.port = { a->req->conf.hairpin, a->req->conf.port_isolation },
		.host_group = pod_link_group(a->req->conf.name),
	};
	unsigned index;
	int r;

	veth.mtu = a->host_link.mtu;
	r = link_veth_create(a->host, &veth, err);
	/* The address was free, so a link of this name is what a killed ADD left. */
	if (r == -EEXIST && a->req->conf.ipam.kind == NETCONF_IPAM_OWN &&
	    pod_link_is_of(a->host, veth.host_name, a->req->conf.name, &index, NULL) > 0 &&
	    link_delete(a->host, index, NULL) == 0)
		r = link_veth_create(a->host, &veth, err);
	return r < 0 ? CNI_KERNEL_REFUSED : 0;
}

/*
 * A GC of a runtime that does not know of this ADD yet, and the agent (ipam_collect()) of one that was
 * stopped for long, take back what it makes: that is no pod then, and the runtime must be told.
 */
static int confirm(const struct attachment *a, struct err *err)
{
	const struct netconf_ipam *ipam = &a->req->conf.ipam;
	int r = ipam->kind == NETCONF_IPAM_OWN ? ipam_confirm(ipam->pool.dir, &a->req->owner, err)
					       : 0;

	if (r == -ENOENT)
		return err_set(err, CNI_TRY_AGAIN_LATER,
			       "the address was taken back while the pod was attached");
	return r < 0 ? CNI_IO_FAILURE : 0;
}

static int prepare_host(struct attachment *a, struct err *err)
{
	const struct request *req = a->req;
	int r = bridge_prepare(a->host, &req->conf, &a->given, &a->bridge, err);

	if (r)
		return r;
	plan_ends(a);
	if (req->conf.ip_masq)
		r = masq_add(&req->conf, &req->owner, &a->given, err);
	if (r == 0 && req->conf.mac_spoof_check)
		r = spoof_add(&req->conf, &req->owner, a->pod_link.mac, err);
	if (r == 0)
		r = make_veth(a, err);
	/* The pod is not given what was taken back before its link was there to be seen. */
	return r ? r : confirm(a, err);
}

static int print(const struct attachment *a, struct err *err)
{
	const struct result result = {
		.version = a->req->conf.version,
		.bridge = &a->bridge,
		.host = &a->host_link,
		.pod = &a->pod_link,
		.sandbox = a->req->netns,
		.given = &a->given,
		.dns = netconf_get(a->req->conf.json, "dns"),
		.previous = netconf_get(a->req->conf.json, "prevResult"),
	};

	return result_print(&result, err) < 0 ? CNI_IO_FAILURE : 0;
}

/* As DEL does, and where DEL does it: the pod may have been entered. */
static int undo_all(const struct attachment *a, struct err *err)
{
	int r = netns_return(a->host, err) < 0
			? CNI_KERNEL_REFUSED
			: detach(a->host, &a->req->conf, &a->req->owner, err);

	return r ? r : addresses_give_back(a->req, err);
}

/*
 * With addresses of our own a second ADD finds them held. Otherwise, and when the link is another
 * network's, the link tells, and must be left alone: what it is taken back with would take the first
 * ADD's too.
 */
static int check_unattached(const struct attachment *a, struct err *err)
{
	const struct request *req = a->req;
	unsigned index;
	char name[16];
	int r;

	pod_link_name(req->owner.container, req->owner.interface, name);
	if (link_index(a->host, name, &index, NULL) < 0)
		return 0;
	r = pod_link_is_of(a->host, name, req->conf.name, NULL, err);
	if (r < 0)
		return r == -ENODEV ? 0 : CNI_KERNEL_REFUSED;
	if (r > 0 && req->conf.ipam.kind == NETCONF_IPAM_OWN)
		return 0;
	return err_set(err, CNI_ALREADY_ATTACHED,
		       "%s:%s is attached already (link %s%s): DEL comes before another ADD",
		       req->owner.container, req->owner.interface, name,
		       r > 0 ? "" : ", of another network");
}

/*
 * The pod's first packet is not to be lost, nor the answer to it. The bridge follows its ports: it opens
 * last after the first pod's ADD. One with STP may take half a minute for that, and nobody waits for it.
 */
static int wait_until_open(const struct attachment *a, struct err *err)
{
	if (link_wait_open(a->host, a->host_link.name, OPEN_NS, err) < 0)
		return CNI_KERNEL_REFUSED;
	if (!a->bridge.open)
		(void)link_wait_open(a->host, a->bridge.name, BRIDGE_OPEN_NS, NULL);
	return 0;
}

static int attach(struct attachment *a, struct err *err)
{
	struct err undo = ERR_INIT;
	int r = addresses_take(a->req, &a->wishes, &a->given, err);

	if (r)
		return r;
	r = prepare_host(a, err);
	if (r == 0)
		r = configure_pod(&a->req->conf, &a->given, a->netns, a->wishes.has_mac,
				  &a->pod_link, err);
	if (r == 0 && !a->req->conf.disable_interface)
		r = wait_until_open(a, err);
	/*
	 * The lease may have ended, or the node may have been drained, since the first look. From
	 * here on the address is held, so whoever drains a node sees it.
	 */
	if (r == 0)
		r = node_ready(&a->req->conf, err);
	if (r == 0)
		r = confirm(a, err);
	if (r == 0)
		r = print(a, err);
	if (r && undo_all(a, &undo))
		err_set(err, r, "%.300s; and what was made could not be taken back: %.150s",
			err->text, undo.text);
	given_done(&a->given);
	return r;
}

int verb_add(const struct request *req, struct err *err)
{
	struct attachment a = { .req = req, .netns = -1 };
	int r = node_ready(&req->conf, err);

	if (r == 0)
		r = wishes_read(req, &a.wishes, err);
	if (r)
		return r;
	a.netns = netns_open(req->netns, err);
	if (a.netns < 0)
		return a.netns == -ENOENT ? CNI_UNKNOWN_CONTAINER : CNI_INVALID_ENVIRONMENT;
	r = netlink_open(&a.host, err) < 0 ? CNI_KERNEL_REFUSED : check_unattached(&a, err);
	if (r == 0)
		r = attach(&a, err);
	if (a.host)
		netlink_close(a.host);
	mem_close_cleanup(&a.netns);
	return r;
}
