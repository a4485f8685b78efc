/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/nl/link.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/netconf.h>
#include <linux/veth.h>
#include <netlink/attr.h>
#include <string.h>
#include <sys/ioctl.h>

int link_parse(const struct nlmsghdr *msg, struct link *ret)
{
	static const struct nla_policy policy[IFLA_MAX + 1] = {
		[IFLA_IFNAME] = { .type = NLA_STRING },	  [IFLA_MTU] = { .type = NLA_U32 },
		[IFLA_MASTER] = { .type = NLA_U32 },	  [IFLA_GROUP] = { .type = NLA_U32 },
		[IFLA_LINKINFO] = { .type = NLA_NESTED },
	};
	struct nlattr *attrs[IFLA_MAX + 1], *info[IFLA_INFO_MAX + 1];
	const struct ifinfomsg *body;
	struct link l = { .index = 0 };

	if ((msg->nlmsg_type != RTM_NEWLINK && msg->nlmsg_type != RTM_DELLINK) ||
	    nlmsg_parse((struct nlmsghdr *)msg, sizeof(*body), attrs, IFLA_MAX, policy) < 0 ||
	    !attrs[IFLA_IFNAME])
		return -EINVAL;
	body = nlmsg_data(msg);
	/* Bridges tell of their ports in a family of their own, which is no change of a link. */
	if (body->ifi_family != AF_UNSPEC)
		return -EINVAL;
	l.index = (unsigned)body->ifi_index;
	l.flags = body->ifi_flags;
	nla_strlcpy(l.name, attrs[IFLA_IFNAME], sizeof(l.name));
	if (attrs[IFLA_MTU])
		l.mtu = nla_get_u32(attrs[IFLA_MTU]);
	if (attrs[IFLA_MASTER])
		l.master = nla_get_u32(attrs[IFLA_MASTER]);
	if (attrs[IFLA_GROUP])
		l.group = nla_get_u32(attrs[IFLA_GROUP]);
	if (attrs[IFLA_ADDRESS] && nla_len(attrs[IFLA_ADDRESS]) == sizeof(l.mac))
		memcpy(l.mac, nla_data(attrs[IFLA_ADDRESS]), sizeof(l.mac));
	if (attrs[IFLA_LINKINFO] &&
	    nla_parse_nested(info, IFLA_INFO_MAX, attrs[IFLA_LINKINFO], NULL) == 0 &&
	    info[IFLA_INFO_KIND])
		nla_strlcpy(l.kind, info[IFLA_INFO_KIND], sizeof(l.kind));
	*ret = l;
	return 0;
}

int link_forwarding_parse(const struct nlmsghdr *msg, struct link_forwarding *ret)
{
	static const struct nla_policy policy[NETCONFA_MAX + 1] = {
		[NETCONFA_IFINDEX] = { .type = NLA_U32 },
		[NETCONFA_FORWARDING] = { .type = NLA_U32 },
	};
	struct nlattr *attrs[NETCONFA_MAX + 1];
	int index;

	if (msg->nlmsg_type != RTM_NEWNETCONF ||
	    nlmsg_parse((struct nlmsghdr *)msg, sizeof(struct netconfmsg), attrs, NETCONFA_MAX,
			policy) < 0 ||
	    !attrs[NETCONFA_IFINDEX] || !attrs[NETCONFA_FORWARDING])
		return -EINVAL;
	index = (int)nla_get_u32(attrs[NETCONFA_IFINDEX]);
	if (index <= 0 && index != NETCONFA_IFINDEX_ALL)
		return -EINVAL;
	*ret = (struct link_forwarding){
		.index = index > 0 ? (unsigned)index : 0,
		.on = nla_get_u32(attrs[NETCONFA_FORWARDING]) != 0,
	};
	return 0;
}

/* A message with its ifinfomsg; NULL when memory is short. */
static struct nl_msg *link_msg(int type, int flags, const struct ifinfomsg *body)
{
	struct nl_msg *msg = nlmsg_alloc_simple(type, flags);

	if (msg && nlmsg_append(msg, (void *)body, sizeof(*body), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

/* -- look up ---------------------------------------------------------------- */

static int take_one(const struct nlmsghdr *msg, void *arg)
{
	return link_parse(msg, arg);
}

static int get(struct netlink *nl, const char *name, unsigned index, struct link *ret,
	       struct err *err)
{
	const struct ifinfomsg body = { .ifi_index = (int)index };
	auto_(nlmsg_free) struct nl_msg *msg = link_msg(RTM_GETLINK, 0, &body);
	struct link found = { .index = 0 };
	int r;

	if (!msg || (name && nla_put_string(msg, IFLA_IFNAME, name) < 0))
		return err_errno(err, -ENOMEM, "look up a link");
	r = netlink_get(nl, msg, take_one, &found, err);
	if (r == 0 && !found.index)
		r = err_errno(err, -ENODEV, "no answer");
	if (r == 0)
		*ret = found;
	return r;
}

int link_get(struct netlink *nl, const char *name, struct link *ret, struct err *err)
{
	int r = get(nl, name, 0, ret, err);

	return r < 0 ? err_wrap(err, r, "link %s", name) : 0;
}

int link_get_index(struct netlink *nl, unsigned index, struct link *ret, struct err *err)
{
	int r = get(nl, NULL, index, ret, err);

	return r < 0 ? err_wrap(err, r, "link %u", index) : 0;
}

int link_index(struct netlink *nl, const char *name, unsigned *ret, struct err *err)
{
	struct ifreq request = { .ifr_ifindex = 0 };

	if (strlcpy(request.ifr_name, name, sizeof(request.ifr_name)) >= sizeof(request.ifr_name))
		return err_errno(err, -ENODEV, "link %s", name);
	/* Any socket will do, and is asked about its own namespace (sock_do_ioctl, net/socket.c). */
	if (ioctl(netlink_fd(nl), SIOCGIFINDEX, &request) < 0)
		return err_errno(err, -errno, "link %s", name);
	*ret = (unsigned)request.ifr_ifindex;
	return 0;
}

struct walk {
	unsigned master;
	int (*fn)(const struct link *link, void *arg);
	void *arg;
};

static int take_each(const struct nlmsghdr *msg, void *arg)
{
	const struct walk *walk = arg;
	struct link l;

	if (link_parse(msg, &l) < 0 || (walk->master && l.master != walk->master))
		return 0;
	return walk->fn(&l, walk->arg);
}

int link_foreach(struct netlink *nl, unsigned master, int (*fn)(const struct link *link, void *arg),
		 void *arg, struct err *err)
{
	const struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
	auto_(nlmsg_free) struct nl_msg *msg = link_msg(RTM_GETLINK, 0, &body);
	struct walk walk = { .master = master, .fn = fn, .arg = arg };
	int r;

	/* The kernel picks out a bridge's ports itself: a node may have hundreds of other links. */
	if (!msg || (master && nla_put_u32(msg, IFLA_MASTER, master) < 0))
		return err_errno(err, -ENOMEM, "list links");
	r = netlink_dump(nl, msg, take_each, NULL, &walk, err);
	return r < 0 ? err_wrap(err, r, "list links") : 0;
}

/* -- create ----------------------------------------------------------------- */

int link_bridge_create(struct netlink *nl, const char *name, const uint8_t mac[static 6],
		       unsigned mtu, struct err *err)
{
	const struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
	auto_(nlmsg_free) struct nl_msg *msg =
		link_msg(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body);
	struct nlattr *info;
	int r;

	if (!msg || nla_put_string(msg, IFLA_IFNAME, name) < 0 ||
	    nla_put(msg, IFLA_ADDRESS, 6, mac) < 0 || (mtu && nla_put_u32(msg, IFLA_MTU, mtu) < 0))
		return err_errno(err, -ENOMEM, "create bridge %s", name);
	info = nla_nest_start(msg, IFLA_LINKINFO);
	if (!info || nla_put_string(msg, IFLA_INFO_KIND, "bridge") < 0)
		return err_errno(err, -ENOMEM, "create bridge %s", name);
	nla_nest_end(msg, info);
	r = netlink_request(nl, msg, err);
	return r < 0 ? err_wrap(err, r, "create bridge %s", name) : 0;
}

/*
 * One queue for each end. veth gets as many as there are CPUs otherwise, takes all but one back as
 * soon as it is registered, and waits for a grace period of RCU over each (veth_init_queues, veth.c;
 * netif_set_real_num_tx_queues, net/core/dev.c).
 */
static int put_end(struct nl_msg *msg, const char *name, unsigned mtu, const uint8_t *mac)
{
	if (nla_put_string(msg, IFLA_IFNAME, name) < 0 ||
	    nla_put_u32(msg, IFLA_NUM_TX_QUEUES, 1) < 0 ||
	    nla_put_u32(msg, IFLA_NUM_RX_QUEUES, 1) < 0 ||
	    (mtu && nla_put_u32(msg, IFLA_MTU, mtu) < 0) ||
	    (mac && nla_put(msg, IFLA_ADDRESS, 6, mac) < 0))
		return -ENOMEM;
	return 0;
}

/* The other end: an ifinfomsg and attributes of its own, inside the data of this end. */
static int put_peer(struct nl_msg *msg, const struct link_veth *veth)
{
	const struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
	struct nlattr *info = nla_nest_start(msg, IFLA_LINKINFO), *data, *peer;

	if (!info || nla_put_string(msg, IFLA_INFO_KIND, "veth") < 0)
		return -ENOMEM;
	data = nla_nest_start(msg, IFLA_INFO_DATA);
	peer = data ? nla_nest_start(msg, VETH_INFO_PEER) : NULL;
	if (!peer || nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0 ||
	    put_end(msg, veth->peer_name, veth->mtu, veth->peer_mac) < 0 ||
	    nla_put_u32(msg, IFLA_NET_NS_FD, (uint32_t)veth->peer_netns) < 0)
		return -ENOMEM;
	nla_nest_end(msg, peer);
	nla_nest_end(msg, data);
	nla_nest_end(msg, info);
	return 0;
}

static struct nl_msg *veth_msg(const struct link_veth *veth)
{
	const struct ifinfomsg body = {
		.ifi_family = AF_UNSPEC,
		.ifi_flags = IFF_UP,
		.ifi_change = IFF_UP,
	};
	struct nl_msg *msg = link_msg(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body);

	if (msg && (put_end(msg, veth->host_name, veth->mtu, veth->host_mac) < 0 ||
		    (veth->master && nla_put_u32(msg, IFLA_MASTER, veth->master) < 0) ||
		    (veth->host_group && nla_put_u32(msg, IFLA_GROUP, veth->host_group) < 0) ||
		    put_peer(msg, veth) < 0)) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

/*
 * A property of the bridge's port, which exists only once the link is one, so that the creating
 * message cannot carry it. By the link's name: its index is not known yet.
 */
static struct nl_msg *hairpin_msg(const char *name)
{
	const struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
	struct nl_msg *msg = link_msg(RTM_NEWLINK, 0, &body);
	struct nlattr *info = NULL, *data = NULL;

	if (!msg || nla_put_string(msg, IFLA_IFNAME, name) < 0 ||
	    !(info = nla_nest_start(msg, IFLA_LINKINFO)) ||
	    nla_put_string(msg, IFLA_INFO_SLAVE_KIND, "bridge") < 0 ||
	    !(data = nla_nest_start(msg, IFLA_INFO_SLAVE_DATA)) ||
	    nla_put_u8(msg, IFLA_BRPORT_MODE, 1) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	nla_nest_end(msg, data);
	nla_nest_end(msg, info);
	return msg;
}

int link_veth_create(struct netlink *nl, const struct link_veth *veth, struct err *err)
{
	enum { CREATE, HAIRPIN };
	static const char *const what[] = { "create it", "set hairpin mode" };
	auto_(netlink_batch_free) struct netlink_batch *batch = NULL;
	size_t failed = CREATE;
	int r = netlink_batch_new(&batch, err);

	if (r == 0)
		r = netlink_batch_take(batch, veth_msg(veth), CREATE, err);
	if (r == 0 && veth->hairpin && veth->master)
		r = netlink_batch_take(batch, hairpin_msg(veth->host_name), HAIRPIN, err);
	if (r == 0)
		r = netlink_batch_run(nl, batch, what, &failed, err);
	if (r < 0 && failed == HAIRPIN)
		(void)link_delete_name(nl, veth->host_name, NULL);
	return r < 0 ? err_wrap(err, r, "veth %s with peer %s", veth->host_name, veth->peer_name)
		     : 0;
}

/* -- change and delete ------------------------------------------------------ */

int link_set(struct netlink *nl, unsigned index, const struct link *want, unsigned changes,
	     struct err *err)
{
	unsigned flags =
		(changes & LINK_UP ? IFF_UP : 0U) | (changes & LINK_PROMISC ? IFF_PROMISC : 0U);
	const struct ifinfomsg body = {
		.ifi_family = AF_UNSPEC,
		.ifi_index = (int)index,
		.ifi_flags = flags,
		.ifi_change = flags,
	};
	auto_(nlmsg_free) struct nl_msg *msg = link_msg(RTM_NEWLINK, 0, &body);
	int r;

	if (!msg || ((changes & LINK_MTU) && nla_put_u32(msg, IFLA_MTU, want->mtu) < 0) ||
	    ((changes & LINK_MAC) && nla_put(msg, IFLA_ADDRESS, 6, want->mac) < 0))
		return err_errno(err, -ENOMEM, "change link %u", index);
	r = netlink_request(nl, msg, err);
	return r < 0 ? err_wrap(err, r, "change link %u", index) : 0;
}

int link_attach(struct netlink *nl, const struct link *link, unsigned master, bool hairpin,
		struct err *err)
{
	static const char *const what[] = { "attach it", "set hairpin mode" };
	auto_(netlink_batch_free) struct netlink_batch *batch = NULL;
	struct nl_msg *msg = link_up_msg(link->index);
	size_t failed = 0;
	int r;

	if (msg && nla_put_u32(msg, IFLA_MASTER, master) < 0) {
		nlmsg_free(msg);
		msg = NULL;
	}
	r = netlink_batch_new(&batch, err);
	if (r < 0)
		nlmsg_free(msg);
	else
		r = netlink_batch_take(batch, msg, 0, err);
	if (r == 0 && hairpin)
		r = netlink_batch_take(batch, hairpin_msg(link->name), 1, err);
	if (r == 0)
		r = netlink_batch_run(nl, batch, what, &failed, err);
	return r < 0 ? err_wrap(err, r, "link %s", link->name) : 0;
}

struct nl_msg *link_up_msg(unsigned index)
{
	const struct ifinfomsg body = {
		.ifi_family = AF_UNSPEC,
		.ifi_index = (int)index,
		.ifi_flags = IFF_UP,
		.ifi_change = IFF_UP,
	};

	return link_msg(RTM_NEWLINK, 0, &body);
}

int link_delete_name(struct netlink *nl, const char *name, struct err *err)
{
	const struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
	auto_(nlmsg_free) struct nl_msg *msg = link_msg(RTM_DELLINK, 0, &body);
	int r;

	if (!msg || nla_put_string(msg, IFLA_IFNAME, name) < 0)
		return err_errno(err, -ENOMEM, "delete link %s", name);
	r = netlink_request(nl, msg, err);
	return r < 0 ? err_wrap(err, r, "delete link %s", name) : 0;
}

int link_delete(struct netlink *nl, unsigned index, struct err *err)
{
	const struct ifinfomsg body = { .ifi_family = AF_UNSPEC, .ifi_index = (int)index };
	auto_(nlmsg_free) struct nl_msg *msg = link_msg(RTM_DELLINK, 0, &body);
	int r;

	if (!msg)
		return err_errno(err, -ENOMEM, "delete link %u", index);
	r = netlink_request(nl, msg, err);
	return r < 0 ? err_wrap(err, r, "delete link %u", index) : 0;
}
