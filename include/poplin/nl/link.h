/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Links: look up, bridge, veth, changes. Threads: those of the struct netlink. */
#ifndef POPLIN_NL_LINK_H
#define POPLIN_NL_LINK_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "poplin/nl/nl.h"

struct link {
	unsigned index;
	unsigned flags; /* IFF_* */
	unsigned mtu;
	unsigned master; /* index of the bridge it is a port of, or 0 */
	uint32_t group;	 /* a number that may be given to links, or 0 */
	uint8_t mac[6];
	char name[IFNAMSIZ];
	char kind[16]; /* "bridge", "veth", ... or "" */
	bool open;     /* carries packets: IF_OPER_UP, which IFF_RUNNING is not (netif_oper_up) */
};

int link_get(struct netlink *nl, const char *name, struct link *ret, struct err *err); /* -ENODEV */
int link_get_index(struct netlink *nl, unsigned index, struct link *ret,
		   struct err *err); /* -ENODEV */
/* Only the index: not a message, and no waiting for the kernel's lock of all links. -ENODEV. */
int link_index(struct netlink *nl, const char *name, unsigned *ret, struct err *err);
/*
 * Waits until the link is open. That a veth's other end came up is noticed by work of the kernel's own,
 * which waits for its lock of all links; until then a packet sent to the link is lost (noop_qdisc), and
 * a bridge has closed the port. From 6.8 on whoever asks for the link does that work
 * (linkwatch_sync_dev() in rtnl_getlink()), so it is one message. -ENODEV, -ETIMEDOUT.
 */
int link_wait_open(struct netlink *nl, const char *name, int64_t timeout_ns, struct err *err);
/* Reads a RTM_NEWLINK or RTM_DELLINK message. -EINVAL when it is none. */
int link_parse(const struct nlmsghdr *msg, struct link *ret);

struct link_forwarding {
	unsigned index; /* 0: all links, the setting of the node */
	bool on;
};
/* Reads a RTM_NEWNETCONF message. -EINVAL: it is none, or not of forwarding. */
int link_forwarding_parse(const struct nlmsghdr *msg, struct link_forwarding *ret);

/*
 * Every port of the bridge `master` (its index), or every link when 0. A negative return ends it.
 */
int link_foreach(struct netlink *nl, unsigned master, int (*fn)(const struct link *link, void *arg),
		 void *arg, struct err *err);

/* mtu 0: the kernel's. */
int link_bridge_create(struct netlink *nl, const char *name, const uint8_t mac[static 6],
		       unsigned mtu, struct err *err);

/* What a port of a bridge is like. */
struct link_port {
	bool hairpin;  /* what came in by it may go out by it */
	bool isolated; /* nothing goes to another isolated port */
};

struct link_veth {
	const char *host_name;
	unsigned master; /* index of the bridge, or 0 */
	unsigned mtu;	 /* 0: the kernel's */
	const char *peer_name;
	int peer_netns;			    /* file descriptor of the peer's network namespace */
	const uint8_t *host_mac, *peer_mac; /* may be NULL: random ones */
	struct link_port port;
	uint32_t host_group; /* of the host's end; 0: none */
};
/*
 * Creates both ends in one message, the host end up, with one queue each. -EEXIST: one of the names
 * is taken. Nothing is left of it when it fails.
 */
int link_veth_create(struct netlink *nl, const struct link_veth *veth, struct err *err);

enum link_change { LINK_UP = 1, LINK_MTU = 2, LINK_MAC = 4, LINK_PROMISC = 8 };
/* Applies those parts of `want` that `changes` names. */
int link_set(struct netlink *nl, unsigned index, const struct link *want, unsigned changes,
	     struct err *err);
/*
 * The link is down for a moment (kernels before 6.2 rename no other), and up when it is done.
 * -EEXIST: another link has the name.
 */
int link_rename(struct netlink *nl, unsigned index, const char *name, struct err *err);
/* Makes the link a port of the bridge `master` and sets it up. */
int link_attach(struct netlink *nl, const struct link *link, unsigned master, struct link_port port,
		struct err *err);
struct nl_msg *link_up_msg(unsigned index); /* for a batch; NULL when memory is short */
/* Until the kernel is done with it, which takes it some 20 ms. -ENODEV: it was gone. */
int link_delete(struct netlink *nl, unsigned index, struct err *err);
int link_delete_name(struct netlink *nl, const char *name, struct err *err);

#endif
