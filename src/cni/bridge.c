/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bridge of the network. With an agent it is the agent's, and only looked up; without one it is
 * made here, as the plugin `bridge` makes it, and gets the gateways' addresses.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "bridge.h"
#include "poplin/model/pod.h"
#include "poplin/nl/address.h"

static int find(struct netlink *nl, const struct netconf *conf, struct link *ret, struct err *err)
{
	int r = link_get(nl, conf->bridge, ret, err);

	if (r == 0 && strcmp(ret->kind, "bridge") != 0)
		return err_set(err, CNI_INVALID_CONFIG,
			       "'bridge' is %s, which is there and not a bridge", conf->bridge);
	return r < 0 && r != -ENODEV ? CNI_KERNEL_REFUSED : r;
}

/* -- settings of the kernel --------------------------------------------------------------- */

int sysctl_write(const char *value, const char *fmt, ...)
{
	size_t length = strlen(value);
	char path[96], now[16];
	auto_close int fd = -1;
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(path, sizeof(path), fmt, args);
	va_end(args);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (read(fd, now, sizeof(now)) == (ssize_t)length + 1 && strncmp(now, value, length) == 0)
		return 0;
	return pwrite(fd, value, length, 0) < 0 ? -errno : 0;
}

static int set_forwarding(int family, struct err *err)
{
	const char *path = family == AF_INET ? "/proc/sys/net/ipv4/ip_forward"
					     : "/proc/sys/net/ipv6/conf/all/forwarding";
	int r = sysctl_write("1", "%s", path);

	if (r < 0)
		return err_errno(err, CNI_KERNEL_REFUSED, "%s cannot be set to 1: %s", path,
				 strerror(-r));
	return 0;
}

/* -- making --------------------------------------------------------------------------------- */

/*
 * A MAC that is given stays, whatever ports come and go. As gateway it follows from the address, so
 * that pods find the bridge made anew at the same MAC.
 */
static int choose_mac(const struct netconf *conf, const struct given *given, uint8_t ret[static 6])
{
	if (conf->is_gateway && given->naddresses &&
	    given->addresses[0].gateway.family != AF_UNSPEC) {
		pod_gateway_mac(&given->addresses[0].gateway, ret);
		return 0;
	}
	if (getrandom(ret, 6, 0) != 6)
		return -EIO;
	ret[0] = (uint8_t)((ret[0] | 2) & ~1);
	return 0;
}

static int make(struct netlink *nl, const struct netconf *conf, const struct given *given,
		struct link *ret, struct err *err)
{
	uint8_t mac[6];
	int r = choose_mac(conf, given, mac);

	if (r == 0)
		r = link_bridge_create(nl, conf->bridge, mac, conf->mtu, err);
	/* EEXIST: the ADD of another pod was quicker. */
	if (r < 0 && r != -EEXIST)
		return CNI_KERNEL_REFUSED;
	/* Routes on it are ours to make; without IPv6 there is nothing to be set. */
	(void)sysctl_write("0", "/proc/sys/net/ipv6/conf/%s/accept_ra", conf->bridge);
	r = find(nl, conf, ret, err);
	return r < 0 ? CNI_KERNEL_REFUSED : r;
}

static int set_flags(struct netlink *nl, const struct netconf *conf, const struct link *link,
		     struct err *err)
{
	unsigned changes = 0;

	if (!(link->flags & IFF_UP))
		changes |= LINK_UP;
	if (conf->promiscuous && !(link->flags & IFF_PROMISC))
		changes |= LINK_PROMISC;
	if (!changes)
		return 0;
	return link_set(nl, link->index, link, changes, err) < 0 ? CNI_KERNEL_REFUSED : 0;
}

/* -- gateways --------------------------------------------------------------------------------- */

#define OTHERS_MAX 16

struct look {
	const struct prefix *wanted;
	bool found;
	struct prefix others[OTHERS_MAX]; /* that stand in the way */
	unsigned nothers;
};

/* IPv4 has one subnet on a bridge, IPv6 any that do not overlap. */
static int look_at(const struct address *address, void *arg)
{
	struct look *look = arg;
	struct prefix theirs = prefix_canonical(&address->address);
	struct prefix ours = prefix_canonical(look->wanted);

	if (prefix_cmp(&address->address, look->wanted) == 0)
		look->found = true;
	else if ((ours.addr.family == AF_INET || prefix_overlaps(&ours, &theirs)) &&
		 look->nothers < OTHERS_MAX)
		look->others[look->nothers++] = address->address;
	return 0;
}

static int set_address(struct netlink *nl, const struct netconf *conf, const struct link *bridge,
		       const struct prefix *wanted, struct err *err)
{
	struct look look = { .wanted = wanted };
	char a[PREFIX_TEXT_MAX], b[PREFIX_TEXT_MAX];
	int r = address_foreach(nl, bridge->index, wanted->addr.family, look_at, &look, err);

	if (r < 0 || look.found)
		return r < 0 ? CNI_KERNEL_REFUSED : 0;
	if (look.nothers && !conf->force_address)
		return err_set(err, CNI_INVALID_CONFIG,
			       "bridge %s has address %s already, which is not %s: 'forceAddress' "
			       "would replace it",
			       bridge->name, prefix_format(&look.others[0], a),
			       prefix_format(wanted, b));
	for (unsigned i = 0; i < look.nothers && r == 0; i++)
		r = address_absent(nl, bridge->index, &look.others[i], err);
	if (r == 0)
		r = address_ensure(nl, bridge->index, wanted, err);
	return r < 0 ? CNI_KERNEL_REFUSED : 0;
}

static int set_gateways(struct netlink *nl, const struct netconf *conf, const struct link *bridge,
			const struct given *given, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < given->naddresses && r == 0; i++) {
		const struct ipam_address *a = &given->addresses[i];
		const struct prefix gateway = { .addr = a->gateway, .len = a->address.len };

		if (a->gateway.family == AF_UNSPEC)
			continue;
		r = set_address(nl, conf, bridge, &gateway, err);
		if (r == 0)
			r = set_forwarding(a->gateway.family, err);
	}
	return r;
}

int bridge_prepare(struct netlink *nl, const struct netconf *conf, const struct given *given,
		   struct link *ret, struct err *err)
{
	int r = find(nl, conf, ret, err);

	if (r == -ENODEV && conf->state_dir[0])
		return err_set(err, CNI_TRY_AGAIN_LATER,
			       "bridge %s is not there (poplind makes it)", conf->bridge);
	if (r > 0 || (r == 0 && conf->state_dir[0]))
		return r;
	if (r == -ENODEV)
		r = make(nl, conf, given, ret, err);
	if (r == 0)
		r = set_flags(nl, conf, ret, err);
	if (r == 0 && conf->is_gateway)
		r = set_gateways(nl, conf, ret, given, err);
	return r;
}
