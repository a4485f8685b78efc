/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cni.h"

const char *const cni_version_names[CNI_VERSIONS] = {
	[CNI_0_1_0] = "0.1.0", [CNI_0_2_0] = "0.2.0", [CNI_0_3_0] = "0.3.0", [CNI_0_3_1] = "0.3.1",
	[CNI_0_4_0] = "0.4.0", [CNI_1_0_0] = "1.0.0", [CNI_1_1_0] = "1.1.0",
};

bool cni_version_parse(const char *text, enum cni_version *ret)
{
	for (size_t i = 0; i < CNI_VERSIONS; i++) {
		if (strcmp(text, cni_version_names[i]) != 0)
			continue;
		*ret = (enum cni_version)i;
		return true;
	}
	return false;
}

/* Names of networks and plugins, section 1 of the specification; it becomes a folder's name. */
static bool is_name(const char *text)
{
	if (!isalnum((unsigned char)*text))
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("_.-", *text))
			return false;
	return true;
}

/* -- single keys --------------------------------------------------------------------- */

json_t *netconf_get(const json_t *json, const char *key)
{
	json_t *value = json_object_get(json, key);
	const char *other;

	if (value)
		return value;
	json_object_foreach ((json_t *)json, other, value)
		if (strcasecmp(other, key) == 0)
			return value;
	return NULL;
}

int netconf_get_text(const json_t *json, const char *key, char *ret, size_t size, struct err *err)
{
	const json_t *value = netconf_get(json, key);

	if (!value || json_is_null(value)) {
		ret[0] = '\0';
		return 0;
	}
	if (!json_is_string(value))
		return err_set(err, CNI_INVALID_CONFIG, "'%s' is not a string", key);
	if (strlcpy(ret, json_string_value(value), size) >= size)
		return err_set(err, CNI_INVALID_CONFIG, "'%s' is longer than %zu characters", key,
			       size - 1);
	return 0;
}

int netconf_get_flag(const json_t *json, const char *key, bool *ret, struct err *err)
{
	const json_t *value = netconf_get(json, key);

	if (!value || json_is_null(value))
		return 0;
	if (!json_is_boolean(value))
		return err_set(err, CNI_INVALID_CONFIG, "'%s' is neither true nor false", key);
	*ret = json_is_true(value);
	return 0;
}

int netconf_get_number(const json_t *json, const char *key, int64_t min, int64_t max, int64_t *ret,
		       struct err *err)
{
	const json_t *value = netconf_get(json, key);
	json_int_t n = json_integer_value(value);

	if (!value || json_is_null(value))
		return 0;
	if (!json_is_integer(value) || n < min || n > max)
		return err_set(err, CNI_INVALID_CONFIG,
			       "'%s' must be a number from %" PRId64 " to %" PRId64, key, min, max);
	*ret = n;
	return 0;
}

/* A configuration without one is of 0.1.0, which had none. */
static int get_version(const json_t *json, enum cni_version *ret, struct err *err)
{
	const json_t *value = netconf_get(json, "cniVersion");
	const char *text = json_string_value(value);

	if (!value || json_is_null(value) || (text && !*text)) {
		*ret = CNI_0_1_0;
		return 0;
	}
	if (text && cni_version_parse(text, ret))
		return 0;
	return err_set(err, CNI_INCOMPATIBLE_VERSION,
		       "'cniVersion' is '%.32s', which is not spoken: %s to %s are",
		       text ? text : "no text", cni_version_names[0],
		       cni_version_names[CNI_VERSIONS - 1]);
}

/* -- the whole ------------------------------------------------------------------------- */

static int parse_name(struct netconf *conf, struct err *err)
{
	int r = netconf_get_text(conf->json, "name", conf->name, sizeof(conf->name), err);

	if (r == 0 && !conf->name[0])
		return err_set(err, CNI_INVALID_CONFIG, "'name' is missing");
	if (r == 0 && !is_name(conf->name))
		return err_set(err, CNI_INVALID_CONFIG, "'name' is '%s', which is no name",
			       conf->name);
	return r;
}

static int parse_flags(struct netconf *conf, struct err *err)
{
	const struct {
		const char *key;
		bool *flag;
	} flags[] = {
		{ "isGateway", &conf->is_gateway },
		{ "isDefaultGateway", &conf->is_default_gateway },
		{ "forceAddress", &conf->force_address },
		{ "ipMasq", &conf->ip_masq },
		{ "hairpinMode", &conf->hairpin },
		{ "promiscMode", &conf->promiscuous },
		{ "enabledad", &conf->enable_dad },
		{ "macspoofchk", &conf->mac_spoof_check },
		{ "portIsolation", &conf->port_isolation },
		{ "disableContainerInterface", &conf->disable_interface },
	};

	for (size_t i = 0; i < countof(flags); i++) {
		int r = netconf_get_flag(conf->json, flags[i].key, flags[i].flag, err);

		if (r)
			return r;
	}
	if (conf->is_default_gateway)
		conf->is_gateway = true;
	if (conf->hairpin && conf->promiscuous)
		return err_set(err, CNI_INVALID_CONFIG,
			       "'hairpinMode' and 'promiscMode' exclude each other");
	/* An agent that makes its bridge anew does not know which ports were isolated. */
	if (conf->port_isolation && conf->state_dir[0])
		return err_set(err, CNI_UNSUPPORTED_FIELD,
			       "'portIsolation' is not supported with 'stateDir'");
	return 0;
}

/* There is one, whose name is accepted. */
static int check_masq_backend(const struct netconf *conf, struct err *err)
{
	char backend[CNI_NAME_MAX];
	int r = netconf_get_text(conf->json, "ipMasqBackend", backend, sizeof(backend), err);

	if (r == 0 && backend[0] && strcmp(backend, "nftables") != 0)
		return err_set(err, CNI_UNSUPPORTED_FIELD,
			       "'ipMasqBackend' is \"%s\", which is not supported: nftables is",
			       backend);
	return r;
}

static int parse_bridge(struct netconf *conf, struct err *err)
{
	int64_t mtu = 0;
	int r = netconf_get_text(conf->json, "bridge", conf->bridge, sizeof(conf->bridge), err);

	if (r == 0 && !conf->bridge[0])
		strlcpy(conf->bridge, "cni0", sizeof(conf->bridge));
	if (r == 0 && !is_interface_name(conf->bridge))
		r = err_set(err, CNI_INVALID_CONFIG,
			    "'bridge' is '%s', not a name that an interface can have",
			    conf->bridge);
	if (r == 0)
		r = netconf_get_number(conf->json, "mtu", 0, 65535, &mtu, err);
	conf->mtu = (unsigned)mtu;
	return r;
}

static int parse_agent(struct netconf *conf, struct err *err)
{
	char text[PREFIX_TEXT_MAX];
	int r = netconf_get_text(conf->json, "stateDir", conf->state_dir, sizeof(conf->state_dir),
				 err);

	if (r == 0 && conf->state_dir[0] && conf->state_dir[0] != '/')
		r = err_set(err, CNI_INVALID_CONFIG, "'stateDir' must be an absolute path");
	if (r == 0)
		r = netconf_get_text(conf->json, "network", text, sizeof(text), err);
	if (r == 0 && text[0] && prefix_parse(text, &conf->network, err) < 0)
		r = err_wrap(err, CNI_INVALID_CONFIG, "'network'");
	return r;
}

static int check_objects(const struct netconf *conf, struct err *err)
{
	static const char *const keys[] = { "dns", "prevResult", "runtimeConfig", "args" };

	for (size_t i = 0; i < countof(keys); i++) {
		const json_t *value = netconf_get(conf->json, keys[i]);

		if (value && !json_is_null(value) && !json_is_object(value))
			return err_set(err, CNI_INVALID_CONFIG, "'%s' is not an object", keys[i]);
	}
	return 0;
}

/*
 * Keys of `bridge` whose meaning is missing here: ignoring them would make another network. False,
 * 0, "" and an empty list ask for nothing.
 */
static int refuse_unsupported(const struct netconf *conf, struct err *err)
{
	static const char *const keys[] = { "vlan", "vlanTrunk" };

	for (size_t i = 0; i < countof(keys); i++) {
		const json_t *value = netconf_get(conf->json, keys[i]);
		auto_free char *text = NULL;

		if (!value || json_is_null(value) || json_is_false(value) ||
		    (json_is_integer(value) && json_integer_value(value) == 0) ||
		    (json_is_string(value) && json_string_length(value) == 0) ||
		    (json_is_array(value) && json_array_size(value) == 0))
			continue;
		text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
		return err_set(err, CNI_UNSUPPORTED_FIELD, "'%s' is %.64s, which is not supported",
			       keys[i], text ? text : "set");
	}
	return 0;
}

static int parse_fields(struct netconf *conf, struct err *err)
{
	int r = parse_name(conf, err);

	if (r == 0)
		r = check_objects(conf, err);
	if (r == 0)
		r = refuse_unsupported(conf, err);
	if (r == 0)
		r = parse_agent(conf, err);
	if (r == 0)
		r = parse_flags(conf, err);
	if (r == 0)
		r = parse_bridge(conf, err);
	if (r == 0)
		r = check_masq_backend(conf, err);
	if (r == 0)
		r = netconf_parse_ipam(conf, err);
	if (r == 0 && conf->disable_interface && conf->ipam.kind != NETCONF_IPAM_NONE)
		r = err_set(err, CNI_INVALID_CONFIG,
			    "'disableContainerInterface' and 'ipam' exclude each other");
	return r;
}

int netconf_parse(const char *text, size_t len, struct netconf *ret, enum cni_version *ret_version,
		  struct err *err)
{
	json_error_t why;
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(ret->json)) {
		netconf_done(ret);
		return err_set(err, CNI_DECODE_FAILURE,
			       "the configuration is not a JSON object: %s", why.text);
	}
	r = get_version(ret->json, &ret->version, err);
	if (r == 0) {
		*ret_version = ret->version;
		r = parse_fields(ret, err);
	}
	if (r)
		netconf_done(ret);
	return r;
}

void netconf_done(struct netconf *conf)
{
	json_decref(conf->json);
	conf->json = NULL;
}
