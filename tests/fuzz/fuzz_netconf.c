/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A configuration on the CNI plugin's standard input: refused with a code and a text, or sound. */
#include "cni/cni.h"
#include "fuzz.h"

static void check_code(int r, const struct err *err)
{
	MUST(r == CNI_INCOMPATIBLE_VERSION || r == CNI_UNSUPPORTED_FIELD ||
	     r == CNI_INVALID_ENVIRONMENT || r == CNI_DECODE_FAILURE || r == CNI_INVALID_CONFIG);
	MUST(err->text[0]);
}

static void check_range(const struct ipam_pool *pool, const struct ipam_range *range)
{
	MUST(range->set < pool->nsets);
	MUST(prefix_contains_addr(&range->subnet, &range->first) &&
	     prefix_contains_addr(&range->subnet, &range->last));
	MUST(addr_cmp(&range->first, &range->last) <= 0);
	MUST(range->gateway.family == range->subnet.addr.family);
}

static void check_route(const struct netconf_route *route)
{
	MUST(route->dst.addr.family == AF_INET || route->dst.addr.family == AF_INET6);
	MUST(route->gateway.family == AF_UNSPEC || route->gateway.family == route->dst.addr.family);
}

static void check_ipam(const struct netconf_ipam *ipam)
{
	const struct ipam_pool *pool = &ipam->pool;

	if (ipam->kind == NETCONF_IPAM_DELEGATED)
		MUST(ipam->type[0] && !strchr(ipam->type, '/'));
	if (ipam->kind != NETCONF_IPAM_OWN)
		return;
	MUST(pool->dir[0] == '/');
	MUST(pool->nsets >= 1 && pool->nsets <= IPAM_SETS_MAX);
	MUST(pool->nranges >= pool->nsets && pool->nranges <= IPAM_RANGES_MAX);
	MUST(pool->nholes <= IPAM_HOLES_MAX && ipam->nroutes <= NETCONF_ROUTES_MAX);
	for (unsigned i = 0; i < pool->nranges; i++)
		check_range(pool, &pool->ranges[i]);
	for (unsigned i = 0; i < ipam->nroutes; i++)
		check_route(&ipam->routes[i]);
	for (unsigned i = 0; i < pool->nholes; i++)
		MUST(addr_cmp(&pool->holes[i].first, &pool->holes[i].last) <= 0);
}

static void check_wishes(struct netconf *conf)
{
	const struct request req = { .netns = "", .args = "", .conf = *conf };
	struct err err = ERR_INIT;
	struct wishes wishes;
	int r = wishes_read(&req, &wishes, &err);

	if (r) {
		check_code(r, &err);
		return;
	}
	MUST(wishes.naddresses <= IPAM_SETS_MAX);
	MUST(!wishes.has_mac || !(wishes.mac[0] & 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	enum cni_version version = CNI_VERSIONS;
	struct err err = ERR_INIT;
	struct netconf conf;
	int r = netconf_parse((const char *)data, len, &conf, &version, &err);

	if (r) {
		check_code(r, &err);
		MUST(!conf.json);
		return 0;
	}
	MUST(version < CNI_VERSIONS && version == conf.version);
	MUST(conf.name[0] && !strchr(conf.name, '/') && conf.name[0] != '.');
	MUST(!conf.state_dir[0] || conf.state_dir[0] == '/');
	MUST(!conf.hairpin || !conf.promiscuous);
	check_ipam(&conf.ipam);
	check_wishes(&conf);
	netconf_done(&conf);
	return 0;
}
