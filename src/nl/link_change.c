/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Links are created, changed and deleted by libnl-route's objects; our own sockets send what they
 * build. Looking up is done in link.c without them: an object per link of a dump would be thrown
 * away at once.
 */
#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/addr.h>
#include <netlink/attr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/link/veth.h>
#include <string.h>

#include "poplin/base/mem.h"
#include "poplin/nl/link.h"

DEFINE_AUTO(struct rtnl_link *, rtnl_link_put)

/* libnl-route cuts longer ones off, and it would be another link's name. */
static int check_name(const char *name, struct err *err)
{
	return strlen(name) < IFNAMSIZ
		       ? 0
		       : err_set(err, -EINVAL, "link name '%s' is longer than %d characters", name,
				 IFNAMSIZ - 1);
}

static int set_mac(struct rtnl_link *link, const uint8_t mac[static 6])
{
	struct nl_addr *addr = nl_addr_build(AF_LLC, mac, 6);

	if (!addr)
		return -ENOMEM;
	rtnl_link_set_addr(link, addr);
	nl_addr_put(addr);
	return 0;
}

static struct nl_msg *create_msg(struct rtnl_link *link)
{
	struct nl_msg *msg;

	return rtnl_link_build_add_request(link, NLM_F_CREATE | NLM_F_EXCL, &msg) < 0 ? NULL : msg;
}

/* Applies what is set in `changes`. */
static struct nl_msg *change_msg(unsigned index, struct rtnl_link *changes)
{
	auto_(rtnl_link_put) struct rtnl_link *link = rtnl_link_alloc();
	struct nl_msg *msg;

	if (!link)
		return NULL;
	rtnl_link_set_ifindex(link, (int)index);
	return rtnl_link_build_change_request(link, changes, 0, &msg) < 0 ? NULL : msg;
}

/* -- create ----------------------------------------------------------------- */

int link_bridge_create(struct netlink *nl, const char *name, const uint8_t mac[static 6],
		       unsigned mtu, struct err *err)
{
	auto_(rtnl_link_put) struct rtnl_link *bridge = rtnl_link_bridge_alloc();
	auto_(nlmsg_free) struct nl_msg *msg = NULL;
	int r = check_name(name, err);

	if (r < 0)
		return r;
	if (bridge && set_mac(bridge, mac) == 0) {
		rtnl_link_set_name(bridge, name);
		if (mtu)
			rtnl_link_set_mtu(bridge, mtu);
		msg = create_msg(bridge);
	}
	if (!msg)
		return err_errno(err, -ENOMEM, "create bridge %s", name);
	r = netlink_request(nl, msg, err);
	return r < 0 ? err_wrap(err, r, "create bridge %s", name) : 0;
}

/*
 * One queue for each end. veth gets as many as there are CPUs otherwise, takes all but one back as
 * soon as it is registered, and waits for a grace period of RCU over each (veth_init_queues, veth.c;
 * netif_set_real_num_tx_queues, net/core/dev.c).
 */
static int describe_end(struct rtnl_link *end, const char *name, unsigned mtu, const uint8_t *mac)
{
	rtnl_link_set_name(end, name);
	rtnl_link_set_num_tx_queues(end, 1);
	rtnl_link_set_num_rx_queues(end, 1);
	if (mtu)
		rtnl_link_set_mtu(end, mtu);
	return mac ? set_mac(end, mac) : 0;
}

static struct nl_msg *veth_msg(const struct link_veth *veth)
{
	auto_(rtnl_link_put) struct rtnl_link *host = rtnl_link_veth_alloc();
	auto_(rtnl_link_put) struct rtnl_link *peer = host ? rtnl_link_veth_get_peer(host) : NULL;

	if (!peer || describe_end(host, veth->host_name, veth->mtu, veth->host_mac) < 0 ||
	    describe_end(peer, veth->peer_name, veth->mtu, veth->peer_mac) < 0)
		return NULL;
	rtnl_link_set_flags(host, IFF_UP);
	if (veth->master)
		rtnl_link_set_master(host, (int)veth->master);
	if (veth->host_group)
		rtnl_link_set_group(host, veth->host_group);
	rtnl_link_set_ns_fd(peer, veth->peer_netns);
	return create_msg(host);
}

/*
 * The properties of the bridge's port, which exists only once the link is one, so that the creating
 * message cannot carry it. By the link's name: its index is not known yet. libnl-route knows them
 * only in a message of the bridge's own family, which takes an index.
 */
static struct nl_msg *port_msg(const char *name, struct link_port port)
{
	struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_NEWLINK, 0);
	struct nlattr *info = NULL, *data = NULL;

	if (!msg || nlmsg_append(msg, &body, sizeof(body), NLMSG_ALIGNTO) < 0 ||
	    nla_put_string(msg, IFLA_IFNAME, name) < 0 ||
	    !(info = nla_nest_start(msg, IFLA_LINKINFO)) ||
	    nla_put_string(msg, IFLA_INFO_SLAVE_KIND, "bridge") < 0 ||
	    !(data = nla_nest_start(msg, IFLA_INFO_SLAVE_DATA)) ||
	    (port.hairpin && nla_put_u8(msg, IFLA_BRPORT_MODE, 1) < 0) ||
	    (port.isolated && nla_put_u8(msg, IFLA_BRPORT_ISOLATED, 1) < 0)) {
		nlmsg_free(msg);
		return NULL;
	}
	nla_nest_end(msg, data);
	nla_nest_end(msg, info);
	return msg;
}

/*
 * A port of a bridge needs no IPv6 address of its own: with one each the kernel walks through the
 * routes of all ports when one goes (addrconf_ifdown, net/ipv6/addrconf.c).
 */
static struct nl_msg *no_address_msg(const char *name)
{
	struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_NEWLINK, 0);
	struct nlattr *families = NULL, *ipv6 = NULL;

	if (!msg || nlmsg_append(msg, &body, sizeof(body), NLMSG_ALIGNTO) < 0 ||
	    nla_put_string(msg, IFLA_IFNAME, name) < 0 ||
	    !(families = nla_nest_start(msg, IFLA_AF_SPEC)) ||
	    !(ipv6 = nla_nest_start(msg, AF_INET6)) ||
	    nla_put_u8(msg, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	nla_nest_end(msg, ipv6);
	nla_nest_end(msg, families);
	return msg;
}

/* Takes first, and makes the port what it is to be in the same send. *ret_failed: 0 for first. */
static int run_with_port(struct netlink *nl, struct nl_msg *first, const char *what,
			 struct link_port port, const char *name, bool fresh, size_t *ret_failed,
			 struct err *err)
{
	enum { STEP_FIRST, STEP_PORT, STEP_NO_IPV6 };
	const char *const steps[] = { what, "set its port's flags", "keep IPv6 off it" };
	auto_(netlink_batch_free) struct netlink_batch *batch = NULL;
	int r = netlink_batch_new(&batch, err);

	*ret_failed = 0;
	if (r < 0) {
		nlmsg_free(first);
		return r;
	}
	r = netlink_batch_take(batch, first, STEP_FIRST, err);
	if (r == 0 && (port.hairpin || port.isolated))
		r = netlink_batch_take(batch, port_msg(name, port), STEP_PORT, err);
	if (r == 0 && fresh)
		r = netlink_batch_take(batch, no_address_msg(name), STEP_NO_IPV6, err);
	if (r < 0)
		return r;
	r = netlink_batch_run(nl, batch, steps, ret_failed, err);
	/* -EAFNOSUPPORT: there is no IPv6, or not with that MTU. */
	return r == -EAFNOSUPPORT && *ret_failed == STEP_NO_IPV6 ? 0 : r;
}

int link_veth_create(struct netlink *nl, const struct link_veth *veth, struct err *err)
{
	size_t failed = 0;
	int r = check_name(veth->host_name, err);

	if (r == 0)
		r = check_name(veth->peer_name, err);
	if (r == 0)
		r = run_with_port(nl, veth_msg(veth), "create it",
				  veth->master ? veth->port : (struct link_port){ 0 },
				  veth->host_name, veth->master != 0, &failed, err);
	if (r < 0 && failed)
		(void)link_delete_name(nl, veth->host_name, NULL);
	return r < 0 ? err_wrap(err, r, "veth %s with peer %s", veth->host_name, veth->peer_name)
		     : 0;
}

/* -- change ----------------------------------------------------------------- */

int link_set(struct netlink *nl, unsigned index, const struct link *want, unsigned changes,
	     struct err *err)
{
	auto_(rtnl_link_put) struct rtnl_link *set = rtnl_link_alloc();
	auto_(nlmsg_free) struct nl_msg *msg = NULL;
	int r;

	if (set && (!(changes & LINK_MAC) || set_mac(set, want->mac) == 0)) {
		if (changes & LINK_MTU)
			rtnl_link_set_mtu(set, want->mtu);
		if (changes & LINK_UP)
			rtnl_link_set_flags(set, IFF_UP);
		if (changes & LINK_PROMISC)
			rtnl_link_set_flags(set, IFF_PROMISC);
		msg = change_msg(index, set);
	}
	if (!msg)
		return err_errno(err, -ENOMEM, "change link %u", index);
	r = netlink_request(nl, msg, err);
	return r < 0 ? err_wrap(err, r, "change link %u", index) : 0;
}

static struct nl_msg *down_msg(unsigned index)
{
	auto_(rtnl_link_put) struct rtnl_link *set = rtnl_link_alloc();

	if (!set)
		return NULL;
	rtnl_link_unset_flags(set, IFF_UP);
	return change_msg(index, set);
}

/* The kernel takes the name first, then the flags (do_setlink, net/core/rtnetlink.c). */
static struct nl_msg *name_and_up_msg(unsigned index, const char *name)
{
	auto_(rtnl_link_put) struct rtnl_link *set = rtnl_link_alloc();

	if (!set)
		return NULL;
	rtnl_link_set_name(set, name);
	rtnl_link_set_flags(set, IFF_UP);
	return change_msg(index, set);
}

int link_rename(struct netlink *nl, unsigned index, const char *name, struct err *err)
{
	auto_(nlmsg_free) struct nl_msg *down = down_msg(index), *up = name_and_up_msg(index, name);
	int r = check_name(name, err);

	if (r == 0 && (!down || !up))
		r = err_errno(err, -ENOMEM, "no message");
	if (r == 0)
		r = netlink_request(nl, down, err);
	if (r == 0)
		r = netlink_request(nl, up, err);
	return r < 0 ? err_wrap(err, r, "rename link %u to %s", index, name) : 0;
}

/* master 0: it stays where it is. */
static struct nl_msg *up_msg(unsigned index, unsigned master)
{
	auto_(rtnl_link_put) struct rtnl_link *set = rtnl_link_alloc();

	if (!set)
		return NULL;
	rtnl_link_set_flags(set, IFF_UP);
	if (master)
		rtnl_link_set_master(set, (int)master);
	return change_msg(index, set);
}

struct nl_msg *link_up_msg(unsigned index)
{
	return up_msg(index, 0);
}

int link_attach(struct netlink *nl, const struct link *link, unsigned master, struct link_port port,
		struct err *err)
{
	size_t failed;
	int r = run_with_port(nl, up_msg(link->index, master), "attach it", port, link->name, false,
			      &failed, err);

	return r < 0 ? err_wrap(err, r, "link %s", link->name) : 0;
}

/* -- delete ----------------------------------------------------------------- */

/* By its name, or by its index. */
static int delete_one(struct netlink *nl, const char *name, unsigned index, struct err *err)
{
	auto_(rtnl_link_put) struct rtnl_link *link = rtnl_link_alloc();
	auto_(nlmsg_free) struct nl_msg *msg = NULL;
	int r = name ? check_name(name, err) : 0;

	if (r < 0)
		return r;
	if (link && name)
		rtnl_link_set_name(link, name);
	else if (link)
		rtnl_link_set_ifindex(link, (int)index);
	if (!link || rtnl_link_build_delete_request(link, &msg) < 0)
		return err_errno(err, -ENOMEM, "no message");
	return netlink_request(nl, msg, err);
}

int link_delete_name(struct netlink *nl, const char *name, struct err *err)
{
	int r = delete_one(nl, name, 0, err);

	return r < 0 ? err_wrap(err, r, "delete link %s", name) : 0;
}

int link_delete(struct netlink *nl, unsigned index, struct err *err)
{
	int r = delete_one(nl, NULL, index, err);

	return r < 0 ? err_wrap(err, r, "delete link %u", index) : 0;
}
