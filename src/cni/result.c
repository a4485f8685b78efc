/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "result.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

static json_t *interface_json(const struct link *link, const char *sandbox)
{
	char mac[18];
	json_t *json;

	(void)snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", link->mac[0],
		       link->mac[1], link->mac[2], link->mac[3], link->mac[4], link->mac[5]);
	json = json_pack("{ss ss}", "name", link->name, "mac", mac);
	if (json && sandbox && json_object_set_new(json, "sandbox", json_string(sandbox)) < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

static json_t *address_json(const struct result *result)
{
	char address[PREFIX_TEXT_MAX], gateway[ADDR_TEXT_MAX];
	/* The pod's end is the third of the interfaces. */
	json_t *json = json_pack("{si ss ss}", "interface", 2, "address",
				 prefix_format(&result->address, address), "gateway",
				 addr_format(&result->gateway, gateway));
	const char *version = result->address.addr.family == AF_INET ? "4" : "6";

	if (json && result->version < CNI_1_0_0 &&
	    json_object_set_new(json, "version", json_string(version)) < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

int result_print(const struct result *result, struct err *err)
{
	const char *everywhere = result->address.addr.family == AF_INET ? "0.0.0.0/0" : "::/0";
	char gateway[ADDR_TEXT_MAX];
	auto_(json_decref) json_t *json = NULL;

	json = json_pack("{ss s[ooo] s[o] s[{ss ss}] s{}}", "cniVersion",
			 cni_version_names[result->version], "interfaces",
			 interface_json(result->bridge, NULL), interface_json(result->host, NULL),
			 interface_json(result->pod, result->sandbox), "ips", address_json(result),
			 "routes", "dst", everywhere, "gw", addr_format(&result->gateway, gateway),
			 "dns");
	if (!json)
		return err_errno(err, -ENOMEM, "result");
	/* A runtime that never hears of the address would never give it back. */
	if (json_dumpf(json, stdout, JSON_INDENT(2)) < 0 || fputc('\n', stdout) == EOF ||
	    fflush(stdout) == EOF)
		return err_errno(err, -EIO, "write the result");
	return 0;
}

bool result_has_address(const json_t *previous, const char *interface, const char *sandbox,
			const struct prefix *address)
{
	const json_t *interfaces = json_object_get(previous, "interfaces"), *ip;
	char text[PREFIX_TEXT_MAX];
	size_t i;

	prefix_format(address, text);
	json_array_foreach (json_object_get(previous, "ips"), i, ip) {
		const char *given = json_string_value(json_object_get(ip, "address"));
		json_int_t at = json_integer_value(json_object_get(ip, "interface"));
		const json_t *link = at >= 0 ? json_array_get(interfaces, (size_t)at) : NULL;
		const char *name = json_string_value(json_object_get(link, "name"));
		const char *where = json_string_value(json_object_get(link, "sandbox"));

		if (given && name && where && strcmp(given, text) == 0 &&
		    strcmp(name, interface) == 0 && strcmp(where, sandbox) == 0)
			return true;
	}
	return false;
}
