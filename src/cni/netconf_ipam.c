/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The part "ipam" of the configuration, as the plugin `host-local` takes it, with "subnet6",
 * "exclude" and "reserve" in addition.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cni.h"

#define DEFAULT_DATA_DIR "/run/poplin/ipam"
#define HOST_LOCAL_DIR	 "/var/lib/cni/networks" /* where the plugin host-local has it */

static int get_addr(const json_t *json, const char *key, struct addr *ret, struct err *err)
{
	char text[ADDR_TEXT_MAX];
	int r = netconf_get_text(json, key, text, sizeof(text), err);

	if (r == 0 && text[0] && addr_parse(text, ret, err) < 0)
		r = err_wrap(err, CNI_INVALID_CONFIG, "'%s'", key);
	return r;
}

/* False, and *ret untouched: there is none. */
static int get_prefix(const json_t *json, const char *key, struct prefix *ret, bool *ret_found,
		      struct err *err)
{
	char text[PREFIX_TEXT_MAX];
	int r = netconf_get_text(json, key, text, sizeof(text), err);

	*ret_found = r == 0 && text[0];
	if (*ret_found && prefix_parse(text, ret, err) < 0)
		r = err_wrap(err, CNI_INVALID_CONFIG, "'%s'", key);
	return r;
}

/* -- ranges ---------------------------------------------------------------------------- */

static int add_range(struct ipam_pool *pool, struct ipam_range *range, const char *key,
		     struct err *err)
{
	if (ipam_range_complete(range, err) < 0 || ipam_pool_add(pool, range, err) < 0)
		return err_wrap(err, CNI_INVALID_CONFIG, "'%s'", key);
	return 0;
}

/* An object with "subnet", "rangeStart", "rangeEnd" and "gateway". */
static int parse_range(struct ipam_pool *pool, unsigned set, const json_t *json, const char *key,
		       struct err *err)
{
	struct ipam_range range = { .set = set };
	bool found;
	int r = get_prefix(json, "subnet", &range.subnet, &found, err);

	if (r == 0 && !found)
		return err_set(err, CNI_INVALID_CONFIG, "a range of '%s' lacks 'subnet'", key);
	if (r == 0)
		r = get_addr(json, "rangeStart", &range.first, err);
	if (r == 0)
		r = get_addr(json, "rangeEnd", &range.last, err);
	if (r == 0)
		r = get_addr(json, "gateway", &range.gateway, err);
	return r ? r : add_range(pool, &range, key, err);
}

/* A list of sets, each a list of ranges. */
static int parse_sets(struct ipam_pool *pool, const json_t *sets, const char *key, struct err *err)
{
	const json_t *set, *range;
	size_t i, k;
	int r = 0;

	if (!sets || json_is_null(sets))
		return 0;
	if (!json_is_array(sets))
		return err_set(err, CNI_INVALID_CONFIG, "'%s' is not a list", key);
	json_array_foreach (sets, i, set) {
		unsigned number = pool->nsets;

		if (json_array_size(set) == 0)
			return err_set(err, CNI_INVALID_CONFIG,
				       "'%s' has what is not a list of ranges", key);
		json_array_foreach (set, k, range) {
			r = parse_range(pool, number, range, key, err);
			if (r)
				return r;
		}
	}
	return 0;
}

static int parse_subnet6(struct ipam_pool *pool, const json_t *json, struct err *err)
{
	struct ipam_range range = { .set = pool->nsets };
	bool found;
	int r = get_prefix(json, "subnet6", &range.subnet, &found, err);

	if (r || !found)
		return r;
	if (range.subnet.addr.family != AF_INET6)
		return err_set(err, CNI_INVALID_CONFIG, "'subnet6' is not of IPv6");
	return add_range(pool, &range, "subnet6", err);
}

/* In the order of their addresses in the result: the runtime's, "subnet", "subnet6", "ranges". */
static int parse_ranges(struct netconf *conf, const json_t *json, struct err *err)
{
	const json_t *runtime = netconf_get(conf->json, "runtimeConfig");
	struct ipam_pool *pool = &conf->ipam.pool;
	const json_t *subnet = netconf_get(json, "subnet");
	int r = parse_sets(pool, netconf_get(runtime, "ipRanges"), "ipRanges", err);

	if (r == 0 && subnet && !json_is_null(subnet))
		r = parse_range(pool, pool->nsets, json, "ipam", err);
	if (r == 0)
		r = parse_subnet6(pool, json, err);
	if (r == 0)
		r = parse_sets(pool, netconf_get(json, "ranges"), "ranges", err);
	if (r == 0 && !pool->nsets)
		return err_set(err, CNI_INVALID_CONFIG, "'ipam' has neither 'subnet' nor 'ranges'");
	return r;
}

/* -- holes ------------------------------------------------------------------------------- */

/* "10.2.1.5", "10.2.1.64/26" or "10.2.1.10-10.2.1.20" */
static int parse_hole(const char *text, struct ipam_hole *ret, struct err *err)
{
	char first[ADDR_TEXT_MAX];
	const char *dash = strchr(text, '-');
	struct prefix prefix;
	int r;

	if (strchr(text, '/')) {
		r = prefix_parse(text, &prefix, err);
		if (r < 0)
			return r;
		ret->first = prefix_first(&prefix);
		ret->last = prefix_last(&prefix);
	} else if (dash) {
		(void)snprintf(first, sizeof(first), "%.*s", (int)(dash - text), text);
		r = addr_parse(first, &ret->first, err);
		if (r == 0)
			r = addr_parse(dash + 1, &ret->last, err);
	} else {
		r = addr_parse(text, &ret->first, err);
		ret->last = ret->first;
	}
	return r;
}

static int parse_holes(struct ipam_pool *pool, const json_t *json, const char *key, bool on_request,
		       struct err *err)
{
	const json_t *list = netconf_get(json, key), *item;
	size_t i;

	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list))
		return err_set(err, CNI_INVALID_CONFIG, "'%s' is not a list", key);
	json_array_foreach (list, i, item) {
		struct ipam_hole hole = { .on_request = on_request };
		const char *text = json_string_value(item);

		if (!text)
			return err_set(err, CNI_INVALID_CONFIG, "'%s' has what is not a string",
				       key);
		if (parse_hole(text, &hole, err) < 0 || ipam_pool_add_hole(pool, &hole, err) < 0)
			return err_wrap(err, CNI_INVALID_CONFIG, "'%s'", key);
	}
	return 0;
}

/* -- routes ------------------------------------------------------------------------------- */

int netconf_parse_route(const json_t *json, struct netconf_route *ret, struct err *err)
{
	int64_t mtu = 0, advmss = 0, priority = 0;
	bool found;
	int r;

	*ret = (struct netconf_route){ .table = -1, .scope = -1 };
	r = get_prefix(json, "dst", &ret->dst, &found, err);
	if (r == 0 && !found)
		return err_set(err, CNI_INVALID_CONFIG, "a route of 'routes' lacks 'dst'");
	if (r == 0)
		r = get_addr(json, "gw", &ret->gateway, err);
	if (r == 0 && ret->gateway.family != AF_UNSPEC &&
	    ret->gateway.family != ret->dst.addr.family)
		return err_set(err, CNI_INVALID_CONFIG,
			       "'dst' and 'gw' of a route are not of one family");
	if (r == 0)
		r = netconf_get_number(json, "mtu", 0, 65535, &mtu, err);
	if (r == 0)
		r = netconf_get_number(json, "advmss", 0, 65535, &advmss, err);
	if (r == 0)
		r = netconf_get_number(json, "priority", 0, UINT32_MAX, &priority, err);
	if (r == 0)
		r = netconf_get_number(json, "table", 0, UINT32_MAX, &ret->table, err);
	if (r == 0)
		r = netconf_get_number(json, "scope", 0, 255, &ret->scope, err);
	ret->mtu = (unsigned)mtu;
	ret->advmss = (unsigned)advmss;
	ret->priority = (unsigned)priority;
	return r;
}

static int parse_routes(struct netconf_ipam *ipam, const json_t *list, struct err *err)
{
	const json_t *item;
	size_t i;

	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list) || json_array_size(list) > NETCONF_ROUTES_MAX)
		return err_set(err, CNI_INVALID_CONFIG,
			       "'routes' is not a list of at most %d routes", NETCONF_ROUTES_MAX);
	json_array_foreach (list, i, item) {
		int r = netconf_parse_route(item, &ipam->routes[ipam->nroutes], err);

		if (r)
			return r;
		ipam->nroutes++;
	}
	return 0;
}

/* -- the whole ------------------------------------------------------------------------------ */

static int parse_dir(struct netconf *conf, const json_t *json, struct err *err)
{
	struct ipam_pool *pool = &conf->ipam.pool;
	char dir[CNI_PATH_MAX];
	int r = netconf_get_text(json, "dataDir", dir, sizeof(dir), err);

	if (r == 0 && dir[0] && dir[0] != '/')
		return err_set(err, CNI_INVALID_CONFIG, "'dataDir' must be an absolute path");
	if (dir[0])
		(void)snprintf(pool->dir, sizeof(pool->dir), "%s/%s", dir, conf->name);
	else if (conf->state_dir[0])
		(void)snprintf(pool->dir, sizeof(pool->dir), "%s/ipam/%s", conf->state_dir,
			       conf->name);
	else
		(void)snprintf(pool->dir, sizeof(pool->dir), "%s/%s", DEFAULT_DATA_DIR, conf->name);
	/* The agent's folder was never another's. */
	if (!conf->state_dir[0])
		(void)snprintf(pool->reservations, sizeof(pool->reservations), "%s/%s",
			       dir[0] ? dir : HOST_LOCAL_DIR, conf->name);
	return r;
}

/* A result before 0.3.0 has room for one address of each family. */
static int check_families(const struct netconf *conf, struct err *err)
{
	const struct ipam_pool *pool = &conf->ipam.pool;
	unsigned first6 = IPAM_SETS_MAX, first4 = IPAM_SETS_MAX;

	for (unsigned i = 0; i < pool->nranges && conf->version < CNI_0_3_0; i++) {
		const struct ipam_range *range = &pool->ranges[i];
		unsigned *first = range->subnet.addr.family == AF_INET ? &first4 : &first6;

		if (*first == IPAM_SETS_MAX)
			*first = range->set;
		else if (*first != range->set)
			return err_set(err, CNI_INVALID_CONFIG,
				       "'ranges' gives several addresses of one family, which "
				       "'cniVersion' %s cannot tell",
				       cni_version_names[conf->version]);
	}
	return 0;
}

static int parse_own(struct netconf *conf, const json_t *json, struct err *err)
{
	struct netconf_ipam *ipam = &conf->ipam;
	int r = parse_ranges(conf, json, err);

	if (r == 0)
		r = check_families(conf, err);
	if (r == 0)
		r = parse_holes(&ipam->pool, json, "exclude", false, err);
	if (r == 0)
		r = parse_holes(&ipam->pool, json, "reserve", true, err);
	if (r == 0)
		r = parse_routes(ipam, netconf_get(json, "routes"), err);
	if (r == 0)
		r = netconf_get_text(json, "resolvConf", ipam->resolv_conf,
				     sizeof(ipam->resolv_conf), err);
	return r ? r : parse_dir(conf, json, err);
}

/*
 * Until 0.1.0 the agent wrote "subnet" beside "stateDir" and no "ipam"; a runtime may have kept
 * such a configuration for the DEL of its pods.
 */
static bool is_old_form(const struct netconf *conf)
{
	return conf->state_dir[0] && netconf_get(conf->json, "subnet");
}

int netconf_parse_ipam(struct netconf *conf, struct err *err)
{
	const json_t *json = netconf_get(conf->json, "ipam");
	const char *own = json_string_value(netconf_get(conf->json, "type"));
	int r;

	if (!json || json_is_null(json)) {
		if (!is_old_form(conf))
			return 0;
		conf->is_gateway = conf->is_default_gateway = conf->hairpin = true;
		conf->ipam.kind = NETCONF_IPAM_OWN;
		return parse_own(conf, conf->json, err);
	}
	if (!json_is_object(json))
		return err_set(err, CNI_INVALID_CONFIG, "'ipam' is not an object");
	r = netconf_get_text(json, "type", conf->ipam.type, sizeof(conf->ipam.type), err);
	if (r || !conf->ipam.type[0])
		return r;
	if (strchr(conf->ipam.type, '/'))
		return err_set(err, CNI_INVALID_CONFIG,
			       "'type' of 'ipam' is '%s', which is no name", conf->ipam.type);
	if (strcmp(conf->ipam.type, "poplin") != 0 && (!own || strcmp(conf->ipam.type, own) != 0)) {
		conf->ipam.kind = NETCONF_IPAM_DELEGATED;
		return 0;
	}
	conf->ipam.kind = NETCONF_IPAM_OWN;
	return parse_own(conf, json, err);
}
