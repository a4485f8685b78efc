/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "result.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

/* Of what is put together, a piece that could not be made (NULL) spoils the whole. */
static int append(json_t *list, json_t *item)
{
	return json_array_append_new(list, item) < 0 ? -ENOMEM : 0;
}

static int put(json_t *object, const char *key, json_t *value)
{
	return json_object_set_new(object, key, value) < 0 ? -ENOMEM : 0;
}

static json_t *text_of_addr(const struct addr *a)
{
	char text[ADDR_TEXT_MAX];

	return json_string(addr_format(a, text));
}

static json_t *text_of_prefix(const struct prefix *p)
{
	char text[PREFIX_TEXT_MAX];

	return json_string(prefix_format(p, text));
}

/* -- interfaces: since 0.3.0 ------------------------------------------------------------- */

static json_t *interface_json(const struct result *result, const struct link *link,
			      const char *sandbox)
{
	char mac[18];
	json_t *json;

	(void)snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", link->mac[0],
		       link->mac[1], link->mac[2], link->mac[3], link->mac[4], link->mac[5]);
	json = json_pack("{ss ss}", "name", link->name, "mac", mac);
	if (json && ((result->version >= CNI_1_1_0 && put(json, "mtu", json_integer(link->mtu))) ||
		     (sandbox && put(json, "sandbox", json_string(sandbox))))) {
		json_decref(json);
		return NULL;
	}
	return json;
}

static json_t *interfaces_json(const struct result *result)
{
	return json_pack("[ooo]", interface_json(result, result->bridge, NULL),
			 interface_json(result, result->host, NULL),
			 interface_json(result, result->pod, result->sandbox));
}

/* -- addresses and routes ------------------------------------------------------------------ */

static json_t *route_json(const struct result *result, const struct netconf_route *route)
{
	json_t *json = json_pack("{so}", "dst", text_of_prefix(&route->dst));
	int r = json ? 0 : -ENOMEM;

	if (r == 0 && route->gateway.family != AF_UNSPEC)
		r = put(json, "gw", text_of_addr(&route->gateway));
	if (result->version < CNI_1_1_0)
		return r == 0 ? json : (json_decref(json), NULL);
	if (r == 0 && route->mtu)
		r = put(json, "mtu", json_integer(route->mtu));
	if (r == 0 && route->advmss)
		r = put(json, "advmss", json_integer(route->advmss));
	if (r == 0 && route->priority)
		r = put(json, "priority", json_integer(route->priority));
	if (r == 0 && route->table >= 0)
		r = put(json, "table", json_integer(route->table));
	if (r == 0 && route->scope >= 0)
		r = put(json, "scope", json_integer(route->scope));
	return r == 0 ? json : (json_decref(json), NULL);
}

/* Those of one family; AF_UNSPEC: all. */
static json_t *routes_json(const struct result *result, int family)
{
	const struct given *given = result->given;
	json_t *list = json_array();

	for (unsigned i = 0; list && i < given->nroutes; i++) {
		if (family != AF_UNSPEC && given->routes[i].dst.addr.family != family)
			continue;
		if (append(list, route_json(result, &given->routes[i])) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *address_json(const struct result *result, const struct ipam_address *address)
{
	const char *version = address->address.addr.family == AF_INET ? "4" : "6";
	/* The pod's end is the third of the interfaces. */
	json_t *json =
		json_pack("{si so}", "interface", 2, "address", text_of_prefix(&address->address));

	if (json && ((result->version < CNI_1_0_0 && put(json, "version", json_string(version))) ||
		     (address->gateway.family != AF_UNSPEC &&
		      put(json, "gateway", text_of_addr(&address->gateway))))) {
		json_decref(json);
		return NULL;
	}
	return json;
}

static json_t *addresses_json(const struct result *result)
{
	const struct given *given = result->given;
	json_t *list = json_array();

	for (unsigned i = 0; list && i < given->naddresses; i++)
		if (append(list, address_json(result, &given->addresses[i])) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* The configuration's, else what IPAM gave. */
static json_t *dns_json(const struct result *result)
{
	if (json_object_size(result->dns))
		return json_incref((json_t *)result->dns);
	return result->given->dns ? json_incref(result->given->dns) : json_object();
}

static json_t *list_form(const struct result *result)
{
	json_t *json =
		json_pack("{ss so so so so}", "cniVersion", cni_version_names[result->version],
			  "interfaces", interfaces_json(result), "ips", addresses_json(result),
			  "routes", routes_json(result, AF_UNSPEC), "dns", dns_json(result));

	/* What there is none of is left out. */
	if (json && !result->given->naddresses)
		json_object_del(json, "ips");
	if (json && !result->given->nroutes)
		json_object_del(json, "routes");
	return json;
}

/* -- behind another plugin: what it had, and then ours ------------------------------------- */

static int prepend(json_t *ours, const char *key, const json_t *previous)
{
	const json_t *theirs = json_object_get(previous, key);
	json_t *list;

	if (!json_array_size(theirs))
		return 0;
	list = json_deep_copy(theirs);
	if (!list || (json_object_get(ours, key) &&
		      json_array_extend(list, json_object_get(ours, key)) < 0)) {
		json_decref(list);
		return -ENOMEM;
	}
	return json_object_set_new(ours, key, list);
}

static int merge(json_t *ours, const json_t *previous)
{
	json_int_t before = (json_int_t)json_array_size(json_object_get(previous, "interfaces"));
	json_t *dns = json_object_get(previous, "dns"), *ip;
	size_t i;

	json_array_foreach (json_object_get(ours, "ips"), i, ip) {
		json_t *index = json_object_get(ip, "interface");

		if (json_integer_set(index, json_integer_value(index) + before) < 0)
			return -ENOMEM;
	}
	if (prepend(ours, "interfaces", previous) < 0 || prepend(ours, "ips", previous) < 0 ||
	    prepend(ours, "routes", previous) < 0)
		return -ENOMEM;
	if (json_object_size(dns) && !json_object_size(json_object_get(ours, "dns")))
		return json_object_set(ours, "dns", dns);
	return 0;
}

/* -- 0.1.0 and 0.2.0: one address of each family, with its routes ---------------------------- */

static int put_family(json_t *json, const char *key, const struct result *result, int family)
{
	const struct given *given = result->given;
	json_t *one;
	int r;

	for (unsigned i = 0; i < given->naddresses; i++) {
		const struct ipam_address *a = &given->addresses[i];

		if (a->address.addr.family != family)
			continue;
		one = json_pack("{so}", "ip", text_of_prefix(&a->address));
		r = one ? 0 : -ENOMEM;
		if (r == 0 && given->nroutes)
			r = put(one, "routes", routes_json(result, family));
		if (r == 0 && a->gateway.family != AF_UNSPEC)
			r = put(one, "gateway", text_of_addr(&a->gateway));
		if (r == 0)
			return put(json, key, one);
		json_decref(one);
		return r;
	}
	return 0;
}

static json_t *pair_form(const struct result *result)
{
	json_t *json = json_pack("{ss so}", "cniVersion", cni_version_names[result->version], "dns",
				 dns_json(result));

	if (json && (put_family(json, "ip4", result, AF_INET) < 0 ||
		     put_family(json, "ip6", result, AF_INET6) < 0)) {
		json_decref(json);
		return NULL;
	}
	return json;
}

int result_print(const struct result *result, struct err *err)
{
	auto_(json_decref) json_t *json =
		result->version < CNI_0_3_0 ? pair_form(result) : list_form(result);

	if (!json ||
	    (result->previous && result->version >= CNI_0_3_0 && merge(json, result->previous) < 0))
		return err_errno(err, -ENOMEM, "result");
	/* A runtime that never hears of the address would never give it back. */
	if (json_dumpf(json, stdout, JSON_INDENT(2)) < 0 || fputc('\n', stdout) == EOF ||
	    fflush(stdout) == EOF)
		return err_errno(err, -EIO, "write the result");
	return 0;
}
