/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/nl/address.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <netlink/attr.h>
#include <string.h>

#include "attr.h"

int address_parse(const struct nlmsghdr *msg, struct address *ret)
{
	static const struct nla_policy policy[IFA_MAX + 1] = { [IFA_FLAGS] = { .type = NLA_U32 } };
	struct nlattr *attrs[IFA_MAX + 1];
	const struct ifaddrmsg *body;
	struct address a = { .index = 0 };
	const struct nlattr *local;

	if ((msg->nlmsg_type != RTM_NEWADDR && msg->nlmsg_type != RTM_DELADDR) ||
	    nlmsg_parse((struct nlmsghdr *)msg, sizeof(*body), attrs, IFA_MAX, policy) < 0)
		return -EINVAL;
	body = nlmsg_data(msg);
	/*
	 * IFA_ADDRESS is the other end of a point-to-point link; IFA_LOCAL is ours where it exists.
	 */
	local = attrs[IFA_LOCAL] ? attrs[IFA_LOCAL] : attrs[IFA_ADDRESS];
	if (attr_get_addr(local, body->ifa_family, &a.address.addr) < 0)
		return -EINVAL;
	a.address.len = body->ifa_prefixlen;
	a.index = body->ifa_index;
	a.scope = body->ifa_scope;
	a.flags = attrs[IFA_FLAGS] ? nla_get_u32(attrs[IFA_FLAGS]) : body->ifa_flags;
	*ret = a;
	return 0;
}

struct walk {
	unsigned index;
	int (*fn)(const struct address *address, void *arg);
	void *arg;
};

static int take(const struct nlmsghdr *msg, void *arg)
{
	const struct walk *walk = arg;
	struct address a;

	/* Kernels before 5.0 do not filter by index (NETLINK_GET_STRICT_CHK). */
	if (address_parse(msg, &a) < 0 || (walk->index && a.index != walk->index))
		return 0;
	return walk->fn(&a, walk->arg);
}

int address_foreach(struct netlink *nl, unsigned index, int family,
		    int (*fn)(const struct address *address, void *arg), void *arg, struct err *err)
{
	const struct ifaddrmsg body = { .ifa_family = (uint8_t)family, .ifa_index = index };
	auto_(nlmsg_free) struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETADDR, 0);
	struct walk walk = { .index = index, .fn = fn, .arg = arg };
	int r;

	if (!msg || nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0)
		return err_errno(err, -ENOMEM, "list addresses");
	r = netlink_dump(nl, msg, take, NULL, &walk, err);
	return r < 0 ? err_wrap(err, r, "list addresses") : 0;
}

static struct nl_msg *change_msg(int type, int flags, unsigned index, const struct prefix *address,
				 bool detect_duplicates)
{
	const struct ifaddrmsg body = {
		.ifa_family = address->addr.family,
		.ifa_prefixlen = address->len,
		.ifa_index = index,
	};
	struct nl_msg *msg = nlmsg_alloc_simple(type, flags);
	struct prefix p = *address;
	struct addr broadcast;

	if (!msg)
		return NULL;
	p = prefix_canonical(&p);
	broadcast = prefix_last(&p);
	if (nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0 ||
	    attr_put_addr(msg, IFA_LOCAL, &address->addr) < 0 ||
	    attr_put_addr(msg, IFA_ADDRESS, &address->addr) < 0)
		goto fail;
	if (type == RTM_NEWADDR && address->addr.family == AF_INET && address->len < 31 &&
	    attr_put_addr(msg, IFA_BROADCAST, &broadcast) < 0)
		goto fail;
	/*
	 * Nobody else gives out addresses of ours: detecting duplicates would only cost a second.
	 */
	if (type == RTM_NEWADDR && address->addr.family == AF_INET6 && !detect_duplicates &&
	    nla_put_u32(msg, IFA_FLAGS, IFA_F_NODAD) < 0)
		goto fail;
	return msg;
fail:
	nlmsg_free(msg);
	return NULL;
}

struct nl_msg *address_add_msg(unsigned index, const struct prefix *address, bool detect_duplicates)
{
	return change_msg(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, address,
			  detect_duplicates);
}

int address_ensure(struct netlink *nl, unsigned index, const struct prefix *address,
		   struct err *err)
{
	auto_(nlmsg_free) struct nl_msg *msg = address_add_msg(index, address, false);
	char text[PREFIX_TEXT_MAX];
	int r;

	if (!msg)
		return err_errno(err, -ENOMEM, "add an address");
	r = netlink_request(nl, msg, err);
	if (r == 0 || r == -EEXIST)
		return 0;
	return err_wrap(err, r, "add address %s", prefix_format(address, text));
}

int address_absent(struct netlink *nl, unsigned index, const struct prefix *address,
		   struct err *err)
{
	auto_(nlmsg_free) struct nl_msg *msg = change_msg(RTM_DELADDR, 0, index, address, false);
	char text[PREFIX_TEXT_MAX];
	int r;

	if (!msg)
		return err_errno(err, -ENOMEM, "remove an address");
	r = netlink_request(nl, msg, err);
	if (r == 0 || r == -EADDRNOTAVAIL)
		return 0;
	return err_wrap(err, r, "remove address %s", prefix_format(address, text));
}
