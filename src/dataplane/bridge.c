/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/dataplane/bridge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/log.h"
#include "poplin/model/pod.h"
#include "poplin/nl/address.h"
#include "poplin/nl/link.h"

#define OURS 2 /* bytes of a MAC that say that we gave it */

/* The four bytes of the subnet's address in which subnets of one network differ. */
static uint8_t *own_bytes(struct prefix *subnet)
{
	size_t end = subnet->addr.family == AF_INET ? 4 : (subnet->len + 7U) / 8;

	return subnet->addr.bytes + (end < 4 ? 0 : end - 4);
}

/*
 * What the MAC adds to these bytes: the hash of the others, so that subnets of two networks differ too,
 * and the subnet can be read from the MAC by who knows the network. IPv4 has no others.
 */
static void mac_key(struct prefix subnet, uint8_t ret[static 4])
{
	memset(ret, 0, 4);
	if (subnet.addr.family == AF_INET)
		return;
	memset(own_bytes(&subnet), 0, 4);
	pod_mac_bytes(&subnet.addr, ret);
}

void bridge_mac(const struct prefix *subnet, uint8_t ret[static 6])
{
	struct prefix p = *subnet;

	ret[0] = 0x02;
	ret[1] = 0x70;
	mac_key(p, ret + OURS);
	for (unsigned i = 0; i < 4; i++)
		ret[OURS + i] ^= own_bytes(&p)[i];
}

/* The link of that name, created if there is none. */
static int get_or_create(struct netlink *nl, const struct bridge *b, const uint8_t mac[static 6],
			 struct link *ret, bool *changed, struct err *err)
{
	int r = link_get(nl, b->name, ret, err);

	if (r == -ENODEV) {
		/*
		 * Ports pull a bridge's MTU down unless somebody changed it (br_change_mtu): so it
		 * is made with another, and ensure_link() changes it.
		 */
		r = link_bridge_create(nl, b->name, mac, b->mtu ^ 1, err);
		if (r < 0)
			return r;
		*changed = true;
		r = link_get(nl, b->name, ret, err);
	}
	if (r == 0 && strcmp(ret->kind, "bridge") != 0)
		return err_set(err, -EEXIST, "link %s is there already and is not a bridge",
			       b->name);
	return r;
}

static int ensure_link(struct netlink *nl, const struct bridge *b, const struct link *link,
		       const uint8_t mac[static 6], bool *changed, struct err *err)
{
	struct link want = { .mtu = b->mtu };
	unsigned changes = 0;

	memcpy(want.mac, mac, sizeof(want.mac));
	/* Pods of another subnet have it in their ARP tables. */
	if (memcmp(link->mac, mac, OURS) != 0)
		changes |= LINK_MAC;
	if (link->mtu != b->mtu)
		changes |= LINK_MTU;
	if (!(link->flags & IFF_UP))
		changes |= LINK_UP;
	if (!changes)
		return 0;
	*changed = true;
	return link_set(nl, link->index, &want, changes, err);
}

/* -- addresses -------------------------------------------------------------- */

#define STALE_MAX 8
#define KEPT_MAX  16

/* The subnet's own is the first. */
static unsigned gateways(const struct bridge *b)
{
	return 1 + (b->nkept < KEPT_MAX ? b->nkept : KEPT_MAX);
}

static struct prefix gateway_of(const struct bridge *b, unsigned i)
{
	const struct prefix *subnet = i == 0 ? &b->subnet : &b->kept[i - 1];

	return (struct prefix){ .addr = prefix_gateway(subnet), .len = subnet->len };
}

struct address_check {
	const struct bridge *b;
	unsigned found;			/* bit i: gateway i is there */
	struct prefix stale[STALE_MAX]; /* more of them are found at the next look */
	unsigned nstale;
};

static int check_address(const struct address *address, void *arg)
{
	struct address_check *check = arg;

	for (unsigned i = 0; i < gateways(check->b); i++) {
		struct prefix gateway = gateway_of(check->b, i);

		if (prefix_cmp(&address->address, &gateway) == 0) {
			check->found |= 1U << i;
			return 0;
		}
	}
	if (prefix_contains_addr(&check->b->pods, &address->address.addr) &&
	    check->nstale < STALE_MAX)
		check->stale[check->nstale++] = address->address;
	return 0;
}

static int ensure_address(struct netlink *nl, const struct bridge *b, unsigned index, bool *changed,
			  struct err *err)
{
	struct address_check check = { .b = b };
	unsigned all = (1U << gateways(b)) - 1;
	int r = address_foreach(nl, index, b->subnet.addr.family, check_address, &check, err);

	if (r < 0 || (check.found == all && !check.nstale))
		return r;
	*changed = true;
	for (unsigned i = 0; r == 0 && i < check.nstale; i++)
		r = address_absent(nl, index, &check.stale[i], err);
	/* The first address of a subnet takes the others with it (__inet_del_ifa, devinet.c). */
	for (unsigned i = 0; r == 0 && i < gateways(b); i++) {
		struct prefix gateway = gateway_of(b, i);

		r = address_ensure(nl, index, &gateway, err);
	}
	return r;
}

/* The link's own. */
static int ensure_link_forwarding(const char *family, const char *link, bool *changed,
				  struct err *err)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "net/%s/conf/%s/forwarding", family, link);
	return sysctl_ensure(path, "1", changed, err);
}

/*
 * The node's setting, which sets that of each link there is, and the links' own: that of the one
 * that a packet comes in by decides, the bridge was made later, and "default" may say something
 * else.
 */
static int ensure_forwarding(const struct bridge *b, bool *changed, struct err *err)
{
	bool ipv4 = b->subnet.addr.family == AF_INET;
	const char *family = ipv4 ? "ipv4" : "ipv6";
	int r;

	r = sysctl_ensure(ipv4 ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding", "1",
			  changed, err);
	if (r == 0)
		r = ensure_link_forwarding(family, b->name, changed, err);
	if (r == 0 && b->uplink)
		r = ensure_link_forwarding(family, b->uplink, changed, err);
	return r;
}

/*
 * Two subnets on one bridge: the kernel would tell the pods of one that those of the other are on
 * their link, and they would go on thinking so when the address is another node's. the bridge sends
 * redirects when either setting is on, so the other interfaces, which have their own, are not
 * touched.
 */
static void stop_redirects(const struct bridge *b, bool *changed)
{
	struct err err = ERR_INIT;
	char own[64];

	(void)snprintf(own, sizeof(own), "net/ipv4/conf/%s/send_redirects", b->name);
	if (sysctl_ensure("net/ipv4/conf/all/send_redirects", "0", changed, &err) < 0 ||
	    sysctl_ensure(own, "0", changed, &err) < 0)
		log_debug("redirects stay on, ignoring" KV("error", "%s"), err.text);
}

int bridge_ensure(struct netlink *nl, const struct bridge *b, bool *ret_changed, struct err *err)
{
	bool changed = false;
	struct link link;
	uint8_t mac[6];
	int r;

	bridge_mac(&b->subnet, mac);
	r = get_or_create(nl, b, mac, &link, &changed, err);
	if (r == 0)
		r = ensure_link(nl, b, &link, mac, &changed, err);
	if (r == 0)
		r = ensure_address(nl, b, link.index, &changed, err);
	if (r == 0)
		r = ensure_forwarding(b, &changed, err);
	if (r == 0 && b->nkept && b->subnet.addr.family == AF_INET)
		stop_redirects(b, &changed);
	if (r < 0)
		return r;
	*ret_changed = changed;
	return (int)link.index;
}

/* -- links of pods ---------------------------------------------------------- */

struct pod_links {
	uint32_t group;	 /* of those that have no bridge */
	unsigned bridge; /* whose ports belong to them; 0: none */
	struct link *links;
	size_t count, size;
};

static void pod_links_done(struct pod_links *pods)
{
	free(pods->links);
}
#define auto_pod_links __attribute__((cleanup(pod_links_done)))

/* Ports of the bridge, and those of the network that lost theirs. */
static int note_pod_link(const struct link *link, void *arg)
{
	struct pod_links *pods = arg;
	struct link *moved;

	if (strncmp(link->name, POD_LINK_PREFIX, strlen(POD_LINK_PREFIX)) != 0 ||
	    strcmp(link->kind, "veth") != 0 ||
	    (link->master ? link->master != pods->bridge : link->group != pods->group))
		return 0;
	if (pods->count == pods->size) {
		pods->size = pods->size ? 2 * pods->size : 64;
		moved = reallocarray(pods->links, pods->size, sizeof(*moved));
		if (!moved)
			return -ENOMEM;
		pods->links = moved;
	}
	pods->links[pods->count++] = *link;
	return 0;
}

int bridge_adopt_pods(struct netlink *nl, const char *network, unsigned index, size_t *ret_count,
		      struct err *err)
{
	auto_pod_links struct pod_links pods = { .group = pod_link_group(network) };
	size_t adopted = 0;
	int r = link_foreach(nl, 0, note_pod_link, &pods, err);

	for (size_t i = 0; r == 0 && i < pods.count; i++) {
		r = link_attach(nl, &pods.links[i], index, (struct link_port){ .hairpin = true },
				err);
		adopted += r == 0;
		r = r == -ENODEV ? 0 : r; /* its pod went */
	}
	*ret_count = adopted;
	return r;
}

/* -- bridges of ours by another name ------------------------------------------ */

#define OTHERS_MAX 16

struct others {
	const struct network *network;
	const char *name;
	struct link links[OTHERS_MAX]; /* more of them are found at the next look */
	unsigned count;
};

/* The MAC is that of a node's subnet, which nobody else gives to a bridge (pod_gateway_mac()). */
static bool is_ours(const struct network *network, const struct link *link)
{
	struct prefix subnet = { .addr = network->pods.addr, .len = network->node_len };
	uint8_t key[4], *bytes = own_bytes(&subnet);
	uint32_t index;

	mac_key(subnet, key);
	for (unsigned i = 0; i < 4; i++)
		bytes[i] = link->mac[OURS + i] ^ key[i];
	return strcmp(link->kind, "bridge") == 0 && link->mac[0] == 0x02 && link->mac[1] == 0x70 &&
	       network_index(network, &subnet, &index);
}

static int note_other(const struct link *link, void *arg)
{
	struct others *others = arg;

	if (others->count < OTHERS_MAX && strcmp(link->name, others->name) != 0 &&
	    is_ours(others->network, link))
		others->links[others->count++] = *link;
	return 0;
}

int bridge_take_over(struct netlink *nl, const struct network *network, const char *name,
		     unsigned *ret_count, struct err *err)
{
	struct others others = { .network = network, .name = name };
	struct link link;
	int r = link_foreach(nl, 0, note_other, &others, err);

	*ret_count = 0;
	for (unsigned i = 0; r == 0 && i < others.count; i++) {
		r = link_get(nl, name, &link, err);
		if (r == 0 && strcmp(link.kind, "bridge") != 0)
			return 0; /* bridge_ensure() says so */
		if (r == -ENODEV)
			r = link_rename(nl, others.links[i].index, name, err);
		else if (r == 0)
			r = link_delete(nl, others.links[i].index, err);
		*ret_count += r == 0;
	}
	return r;
}

/* -- removal ---------------------------------------------------------------- */

/* index 0: only links of pods that have no bridge. */
static int remove_with_pods(struct netlink *nl, const char *network, unsigned index,
			    struct err *err)
{
	auto_pod_links struct pod_links pods = { .group = pod_link_group(network),
						 .bridge = index };
	int r = link_foreach(nl, 0, note_pod_link, &pods, err);

	for (size_t i = 0; r == 0 && i < pods.count; i++) {
		r = link_delete(nl, pods.links[i].index, err);
		r = r == -ENODEV ? 0 : r;
	}
	if (r == 0 && index)
		r = link_delete(nl, index, err);
	return r == -ENODEV ? 0 : r;
}

int bridge_remove(struct netlink *nl, const char *network, const struct network *pods,
		  const char *name, struct err *err)
{
	struct others others = { .network = pods, .name = name };
	struct link link = { .index = 0 };
	int r = link_get(nl, name, &link, err);

	if (r < 0 && r != -ENODEV)
		return r;
	if (r == 0 && strcmp(link.kind, "bridge") != 0)
		return err_set(err, -EEXIST, "link %s is not a bridge, so it is not ours", name);
	r = remove_with_pods(nl, network, r == 0 ? link.index : 0, err);
	if (r == 0)
		r = link_foreach(nl, 0, note_other, &others, err);
	for (unsigned i = 0; r == 0 && i < others.count; i++)
		r = remove_with_pods(nl, network, others.links[i].index, err);
	return r;
}
