/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "node.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "poplin/base/file.h"
#include "poplin/base/hash.h"
#include "poplin/base/log.h"
#include "poplin/nl/address.h"
#include "poplin/nl/link.h"
#include "poplin/nl/route.h"

#define MACHINE_ID_FILE "/etc/machine-id"
#define BOOT_ID_FILE	"/proc/sys/kernel/random/boot_id"

struct address_search {
	const struct addr *wanted; /* NULL: the first that fits */
	struct address found;	   /* index 0: none */
};

static int look_at_address(const struct address *address, void *arg)
{
	struct address_search *search = arg;

	if (search->found.index)
		return 0;
	if (search->wanted ? addr_cmp(&address->address.addr, search->wanted) == 0
			   : address->scope == RT_SCOPE_UNIVERSE &&
				     !(address->flags & (IFA_F_SECONDARY | IFA_F_TENTATIVE |
							 IFA_F_DADFAILED | IFA_F_DEPRECATED)))
		search->found = *address;
	return 0;
}

/* index 0: any interface. wanted NULL: any address. */
static int find_address(struct netlink *nl, unsigned index, int family, const struct addr *wanted,
			struct address *ret, struct err *err)
{
	struct address_search search = { .wanted = wanted };
	int r = address_foreach(nl, index, family, look_at_address, &search, err);

	if (r < 0)
		return r;
	if (!search.found.index)
		return -EADDRNOTAVAIL;
	*ret = search.found;
	return 0;
}

static int find_interface(struct netlink *nl, const struct settings *s, unsigned known,
			  struct link *ret, struct err *err)
{
	int family = s->pods.addr.family;
	char text[ADDR_TEXT_MAX];
	struct address address;
	struct route route;
	int r;

	if (s->node_interface[0]) {
		r = link_get(nl, s->node_interface, ret, err);
		return r < 0 ? err_wrap(err, r, "NODE_INTERFACE %s", s->node_interface) : 0;
	}
	if (s->node_address.family != AF_UNSPEC) {
		r = find_address(nl, 0, family, &s->node_address, &address, err);
		if (r == -EADDRNOTAVAIL)
			return err_set(err, r, "NODE_ADDRESS %s: no interface has this address",
				       addr_format(&s->node_address, text));
		return r < 0 ? r : link_get_index(nl, address.index, ret, err);
	}
	r = route_default(nl, family, &route, err);
	/* The other nodes are on the link: without a default route the known one is as good. */
	if (r == -ENETUNREACH && known && link_get_index(nl, known, ret, NULL) == 0)
		return 0;
	if (r == -ENETUNREACH)
		return err_set(err, r,
			       "no default route tells by which interface the other nodes are "
			       "reached: set NODE_INTERFACE or NODE_ADDRESS");
	return r < 0 ? r : link_get_index(nl, route.index, ret, err);
}

/* An MTU by hand may be larger than what the link to the other nodes carries. */
static void check_mtu(const struct node *node, const struct link *link, unsigned known)
{
	if (node->mtu > link->mtu && link->index != known)
		log_warn("MTU is larger than that of the interface: large packets to other nodes "
			 "will be lost" KV("mtu", "%u") KV("interface", "%s")
				 KV("interface_mtu", "%u"),
			 node->mtu, link->name, link->mtu);
}

int node_identify(struct netlink *nl, const struct settings *s, unsigned known, struct node *ret,
		  struct err *err)
{
	bool fixed = s->node_address.family != AF_UNSPEC;
	int family = s->pods.addr.family;
	struct node node = { .mtu = s->mtu };
	char text[ADDR_TEXT_MAX], pods[PREFIX_TEXT_MAX];
	struct address address;
	struct link link;
	int r;

	r = find_interface(nl, s, known, &link, err);
	if (r < 0)
		return r;
	strlcpy(node.interface, link.name, sizeof(node.interface));
	node.index = link.index;
	if (!node.mtu)
		node.mtu = link.mtu;
	r = find_address(nl, link.index, family, fixed ? &s->node_address : NULL, &address, err);
	if (r == -EADDRNOTAVAIL && fixed)
		return err_set(err, r, "NODE_ADDRESS %s: interface %s does not have this address",
			       addr_format(&s->node_address, text), link.name);
	if (r == -EADDRNOTAVAIL)
		return err_set(err, r, "interface %s has no global %s address: set NODE_ADDRESS",
			       link.name, family == AF_INET ? "IPv4" : "IPv6");
	if (r < 0)
		return r;
	node.address = address.address.addr;
	if (prefix_contains_addr(&s->pods, &node.address))
		return err_set(
			err, -EADDRINUSE,
			"this node's address %s on %s lies in the pod network %s: set IP_SUBNET "
			"to a network that nothing else uses, or NODE_ADDRESS to another one",
			addr_format(&node.address, text), link.name, prefix_format(&s->pods, pods));
	check_mtu(&node, &link, known);
	*ret = node;
	return 0;
}

int node_machine(char ret[static RECORD_MACHINE_MAX + 1], struct err *err)
{
	auto_buf struct buf id = BUF_INIT;
	struct err missing = ERR_INIT;

	if (file_read(MACHINE_ID_FILE, 4096, &id, &missing) < 0 || id.len < 32) {
		log_warn("no machine id: after a boot this node waits for its old lease to end" KV(
				 "error", "%s"),
			 missing.text[0] ? missing.text : MACHINE_ID_FILE " is not filled in");
		if (file_read(BOOT_ID_FILE, 4096, &id, err) < 0)
			return err ? err->code : -ENOENT;
	}
	id.data[strcspn(id.data, "\n")] = '\0';
	hash_hex(ret, 33, "poplin", id.data, NULL);
	return 0;
}
