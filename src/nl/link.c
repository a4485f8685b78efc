/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/nl/link.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/netconf.h>
#include <linux/veth.h>
#include <netlink/attr.h>
#include <string.h>

int link_parse(const struct nlmsghdr *msg, struct link *ret)
{
	static const struct nla_policy policy[IFLA_MAX + 1] = {
		[IFLA_IFNAME] = { .type = NLA_STRING },
		[IFLA_MTU] = { .type = NLA_U32 },
		[IFLA_MASTER] = { .type = NLA_U32 },
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
	    nla_put(msg, IFLA_ADDRESS, 6, mac) < 0 || nla_put_u32(msg, IFLA_MTU, mtu) < 0)
		return err_errno(err, -ENOMEM, "create bridge %s", name);
	info = nla_nest_start(msg, IFLA_LINKINFO);
	if (!info || nla_put_string(msg, IFLA_INFO_KIND, "bridge") < 0)
		return err_errno(err, -ENOMEM, "create bridge %s", name);
	nla_nest_end(msg, info);
	r = netlink_request(nl, msg, err);
	return r < 0 ? err_wrap(err, r, "create bridge %s", name) : 0;
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
	    nla_put_string(msg, IFLA_IFNAME, veth->peer_name) < 0 ||
	    nla_put_u32(msg, IFLA_NET_NS_FD, (uint32_t)veth->peer_netns) < 0 ||
	    (veth->mtu && nla_put_u32(msg, IFLA_MTU, veth->mtu) < 0) ||
	    (veth->peer_mac && nla_put(msg, IFLA_ADDRESS, 6, veth->peer_mac) < 0))
		return -ENOMEM;
	nla_nest_end(msg, peer);
	nla_nest_end(msg, data);
	nla_nest_end(msg, info);
	return 0;
}

/* A property of the bridge's port, which exists only once the link is one. */
static int set_hairpin(struct netlink *nl, const char *name, struct err *err)
{
	struct ifinfomsg body = { .ifi_family = AF_BRIDGE };
	auto_(nlmsg_free) struct nl_msg *msg = NULL;
	struct nlattr *port;
	struct link link;
	int r;

	r = link_get(nl, name, &link, err);
	if (r < 0)
		return r;
	body.ifi_index = (int)link.index;
	msg = link_msg(RTM_SETLINK, 0, &body);
	port = msg ? nla_nest_start(msg, IFLA_PROTINFO | NLA_F_NESTED) : NULL;
	if (!port || nla_put_u8(msg, IFLA_BRPORT_MODE, 1) < 0)
		return err_errno(err, -ENOMEM, "hairpin of %s", name);
	nla_nest_end(msg, port);
	r = netlink_request(nl, msg, err);
	if (r < 0)
		(void)link_delete(nl, link.index, NULL);
	return r < 0 ? err_wrap(err, r, "hairpin of %s", name) : 0;
}

int link_veth_create(struct netlink *nl, const struct link_veth *veth, struct err *err)
{
	const struct ifinfomsg body = {
		.ifi_family = AF_UNSPEC,
		.ifi_flags = IFF_UP,
		.ifi_change = IFF_UP,
	};
	auto_(nlmsg_free) struct nl_msg *msg =
		link_msg(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body);
	int r;

	if (!msg || nla_put_string(msg, IFLA_IFNAME, veth->host_name) < 0 ||
	    (veth->mtu && nla_put_u32(msg, IFLA_MTU, veth->mtu) < 0) ||
	    (veth->master && nla_put_u32(msg, IFLA_MASTER, veth->master) < 0) ||
	    put_peer(msg, veth) < 0)
		return err_errno(err, -ENOMEM, "create veth %s", veth->host_name);
	r = netlink_request(nl, msg, err);
	if (r < 0)
		return err_wrap(err, r, "create veth %s with peer %s", veth->host_name,
				veth->peer_name);
	return veth->hairpin && veth->master ? set_hairpin(nl, veth->host_name, err) : 0;
}

/* -- change and delete ------------------------------------------------------ */

int link_set(struct netlink *nl, unsigned index, const struct link *want, unsigned changes,
	     struct err *err)
{
	const struct ifinfomsg body = {
		.ifi_family = AF_UNSPEC,
		.ifi_index = (int)index,
		.ifi_flags = changes & LINK_UP ? IFF_UP : 0,
		.ifi_change = changes & LINK_UP ? IFF_UP : 0,
	};
	auto_(nlmsg_free) struct nl_msg *msg = link_msg(RTM_NEWLINK, 0, &body);
	int r;

	if (!msg || ((changes & LINK_MTU) && nla_put_u32(msg, IFLA_MTU, want->mtu) < 0) ||
	    ((changes & LINK_MAC) && nla_put(msg, IFLA_ADDRESS, 6, want->mac) < 0))
		return err_errno(err, -ENOMEM, "change link %u", index);
	r = netlink_request(nl, msg, err);
	return r < 0 ? err_wrap(err, r, "change link %u", index) : 0;
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
