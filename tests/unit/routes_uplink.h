/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of routes share: an uplink in a namespace of its own, and one step at a time. */
#ifndef POPLIN_TESTS_UNIT_ROUTES_UPLINK_H
#define POPLIN_TESTS_UNIT_ROUTES_UPLINK_H

#include "netns.h"
#include "poplin/dataplane/routes.h"

#define PROTOCOL 84

static struct routes_config conf;
static struct netlink_batch *batch;

static inline int setup(void **state)
{
	if (netns_setup(state) < 0 || netlink_batch_new(&batch, &err) < 0)
		return -1;
	conf = (struct routes_config){
		.protocol = PROTOCOL,
		.index = make_uplink(),
		.nexthops = nexthop_supported(nl),
	};
	return conf.nexthops ? 0 : -1;
}

static inline int teardown(void **state)
{
	netlink_batch_free(batch);
	return netns_teardown(state);
}

#define routes_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* -- one step at a time -------------------------------------------------------- */

static inline void take_one(size_t tag, int result, const char *text, void *arg)
{
	assert_int_equal(tag, 9);
	*(int *)arg = result;
}

static inline int send_one(void)
{
	int result = 1;

	assert_int_equal(netlink_batch_count(batch), 1);
	assert_ok(netlink_batch_send(nl, batch, take_one, &result, &err));
	return result;
}

static inline int put_nexthop(const char *gateway, bool replace)
{
	const struct addr g = addr(gateway);

	assert_ok(routes_add_nexthop(&conf, batch, &g, replace, 9, &err));
	return send_one();
}

static inline int delete_nexthop(const char *gateway)
{
	const struct addr g = addr(gateway);

	assert_ok(routes_delete_nexthop(&conf, batch, &g, 9, &err));
	return send_one();
}

static inline int put(const char *dst, const char *gateway, bool replace)
{
	const struct prefix p = prefix(dst);
	const struct addr g = addr(gateway);

	assert_ok(routes_add_route(&conf, batch, &p, &g, replace, 9, &err));
	return send_one();
}

static inline int remove_route(const char *dst)
{
	const struct prefix p = prefix(dst);

	assert_ok(routes_delete_route(&conf, batch, &p, 9, &err));
	return send_one();
}

/* The gateway of the only route to dst, recognized as ours; "" when it is not. */
static inline const char *gateway_of(const char *dst)
{
	static char text[ADDR_TEXT_MAX];
	struct route r;
	struct addr gateway;

	assert_int_equal(find_route(dst, &r), 1);
	if (!routes_recognize(&conf, &r, &gateway))
		return "";
	return gateway.family == AF_UNSPEC ? "another way" : addr_format(&gateway, text);
}

static inline int put_foreign(const char *dst, const char *gateway, uint8_t protocol,
			      uint32_t metric)
{
	const struct route r = {
		.dst = prefix(dst),
		.gateway = addr(gateway),
		.index = conf.index,
		.protocol = protocol,
		.metric = metric,
	};

	return request(route_put_msg(&r, NLM_F_CREATE | NLM_F_EXCL));
}

#endif
