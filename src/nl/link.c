/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/nl/link.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/netconf.h>
#include <netlink/attr.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>

#include "poplin/base/clock.h"

int link_parse(const struct nlmsghdr *msg, struct link *ret)
{
	static const struct nla_policy policy[IFLA_MAX + 1] = {
		[IFLA_IFNAME] = { .type = NLA_STRING },	  [IFLA_MTU] = { .type = NLA_U32 },
		[IFLA_MASTER] = { .type = NLA_U32 },	  [IFLA_GROUP] = { .type = NLA_U32 },
		[IFLA_LINKINFO] = { .type = NLA_NESTED }, [IFLA_OPERSTATE] = { .type = NLA_U8 },
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
	l.open = attrs[IFLA_OPERSTATE] && nla_get_u8(attrs[IFLA_OPERSTATE]) == IF_OPER_UP;
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

int link_wait_open(struct netlink *nl, const char *name, int64_t timeout_ns, struct err *err)
{
	int64_t deadline = clock_ns() + timeout_ns;
	struct link link;

	for (int pause_ms = 1;; pause_ms = pause_ms < 64 ? 2 * pause_ms : pause_ms) {
		int r = link_get(nl, name, &link, err);

		if (r < 0 || link.open)
			return r;
		if (clock_ns() > deadline)
			return err_set(err, -ETIMEDOUT,
				       "link %s: no carrier within %d ms, so no packet passes it",
				       name, (int)(timeout_ns / NS_PER_MS));
		(void)poll(NULL, 0, pause_ms);
	}
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
