/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A network namespace for each test, and what stands in for hardware there: veths. Only for
 * programs of one thread at the time of the calls.
 */
#ifndef POPLIN_TESTS_UNIT_NETNS_H
#define POPLIN_TESTS_UNIT_NETNS_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "poplin/nl/address.h"
#include "poplin/nl/link.h"
#include "poplin/nl/nl.h"
#include "poplin/nl/route.h"
#include "unit.h"

#define EXIT_SKIPPED 77 /* automake's number */

static struct netlink *nl; /* of the test that runs */
static struct err err;

/* assert_int_equal(call, 0), but says what went wrong. */
#define assert_ok(call)                                                                            \
	do {                                                                                       \
		int ok_ = (call);                                                                  \
		if (ok_ < 0)                                                                       \
			fail_msg("%s: %d: %s", #call, ok_, err.text);                              \
	} while (0)

static inline bool netns_allowed(void)
{
	return unshare(CLONE_NEWNET) == 0;
}

static inline int netns_setup(void **state)
{
	memset(&err, 0, sizeof(err));
	return unshare(CLONE_NEWNET) < 0 ? -1 : netlink_open(&nl, &err);
}

static inline int netns_teardown(void **state)
{
	netlink_close(nl);
	nl = NULL;
	return 0;
}

#define netns_test(f) cmocka_unit_test_setup_teardown(f, netns_setup, netns_teardown)

static inline int netns_here(void)
{
	return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

static inline struct prefix prefix(const char *text)
{
	struct prefix p;

	assert_int_equal(prefix_parse_interface(text, &p, NULL), 0);
	return p;
}

static inline struct addr addr(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a, NULL), 0);
	return a;
}

static inline struct link get_link(const char *name)
{
	struct link link;

	assert_ok(link_get(nl, name, &link, &err));
	return link;
}

static inline void set_up(const char *name)
{
	struct link link = get_link(name);

	assert_ok(link_set(nl, link.index, &link, LINK_UP, &err));
}

static inline void set_down(const char *name)
{
	struct link link = get_link(name);
	const struct ifinfomsg body = { .ifi_index = (int)link.index, .ifi_change = IFF_UP };
	auto_(nlmsg_free) struct nl_msg *msg = nlmsg_alloc_simple(RTM_NEWLINK, 0);

	assert_non_null(msg);
	assert_int_equal(nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO), 0);
	assert_ok(netlink_request(nl, msg, &err));
}

/* A veth with both ends here. */
static inline void make_veth(const char *name, const char *peer)
{
	auto_close int here = netns_here();
	const struct link_veth veth = { .host_name = name, .peer_name = peer, .peer_netns = here };

	assert_ok(link_veth_create(nl, &veth, &err));
}

/* "up0" with a carrier and 172.16.0.1/12. Returns its index. */
static inline unsigned make_uplink(void)
{
	struct prefix address = prefix("172.16.0.1/12");
	unsigned index;

	make_veth("up0", "up1");
	set_up("up1");
	index = get_link("up0").index;
	assert_ok(address_ensure(nl, index, &address, &err));
	return index;
}

static inline int count_address(const struct address *a, void *arg)
{
	(*(unsigned *)arg)++;
	return 0;
}

struct address_search {
	const char *text;
	bool found;
};

static inline int match_address(const struct address *a, void *arg)
{
	struct address_search *search = arg;
	char text[PREFIX_TEXT_MAX];

	if (strcmp(prefix_format(&a->address, text), search->text) == 0)
		search->found = true;
	return 0;
}

static inline bool has_address(const char *link, const char *text)
{
	struct address_search search = { .text = text };

	assert_ok(
		address_foreach(nl, get_link(link).index, AF_UNSPEC, match_address, &search, &err));
	return search.found;
}

/* Sends one message and frees it. */
static inline int request(struct nl_msg *msg)
{
	int r;

	assert_non_null(msg);
	r = netlink_request(nl, msg, &err);
	nlmsg_free(msg);
	return r;
}

struct route_search {
	struct prefix dst;
	struct route found;
	unsigned count;
};

static inline int match_route(const struct route *r, void *arg)
{
	struct route_search *search = arg;

	if (prefix_cmp(&r->dst, &search->dst) == 0) {
		search->found = *r;
		search->count++;
	}
	return 0;
}

/* How many routes of the main table go to the prefix; the last of them. */
static inline unsigned find_route(const char *dst, struct route *ret)
{
	struct route_search search = { .dst = prefix(dst) };

	assert_ok(route_foreach(nl, search.dst.addr.family, 0, match_route, NULL, &search, &err));
	if (ret)
		*ret = search.found;
	return search.count;
}

static inline int count_route(const struct route *r, void *arg)
{
	(*(unsigned *)arg)++;
	return 0;
}

static inline unsigned count_routes(int family, uint8_t protocol)
{
	unsigned count = 0;

	assert_ok(route_foreach(nl, family, protocol, count_route, NULL, &count, &err));
	return count;
}

static inline int count_nexthop(const struct nexthop *n, void *arg)
{
	(*(unsigned *)arg)++;
	return 0;
}

static inline unsigned count_nexthops(uint8_t protocol)
{
	unsigned count = 0;

	assert_ok(nexthop_foreach(nl, protocol, count_nexthop, NULL, &count, &err));
	return count;
}

#endif
