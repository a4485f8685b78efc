/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cni.h"

const char *const cni_version_names[CNI_VERSIONS] = {
	[CNI_0_3_0] = "0.3.0", [CNI_0_3_1] = "0.3.1", [CNI_0_4_0] = "0.4.0",
	[CNI_1_0_0] = "1.0.0", [CNI_1_1_0] = "1.1.0",
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

static int get_text(const json_t *json, const char *key, char *ret, size_t size, struct err *err)
{
	const char *text = json_string_value(json_object_get(json, key));

	if (!text || !*text)
		return err_set(err, CNI_INVALID_CONFIG, "'%s' is missing or not a string", key);
	if (strlcpy(ret, text, size) >= size)
		return err_set(err, CNI_INVALID_CONFIG, "'%s' is longer than %zu characters", key,
			       size - 1);
	return 0;
}

static int get_prefix(const json_t *json, const char *key, struct prefix *ret, struct err *err)
{
	char text[PREFIX_TEXT_MAX];
	int r = get_text(json, key, text, sizeof(text), err);

	if (r == 0 && prefix_parse(text, ret, err) < 0)
		r = err_wrap(err, CNI_INVALID_CONFIG, "'%s'", key);
	return r;
}

static int get_mtu(const json_t *json, unsigned *ret, struct err *err)
{
	const json_t *mtu = json_object_get(json, "mtu");
	json_int_t value = json_integer_value(mtu);

	if (!json_is_integer(mtu) || value < 0 || value > 65535)
		return err_set(err, CNI_INVALID_CONFIG, "'mtu' must be a number from 0 to 65535");
	*ret = (unsigned)value;
	return 0;
}

static int get_version(const json_t *json, enum cni_version *ret, struct err *err)
{
	const char *text = json_string_value(json_object_get(json, "cniVersion"));

	/* A configuration without one is of 0.1.0 or 0.2.0. */
	if (text && cni_version_parse(text, ret))
		return 0;
	return err_set(err, CNI_INCOMPATIBLE_VERSION,
		       "CNI version '%.32s' is not spoken: %s to %s are", text ? text : "0.2.0",
		       cni_version_names[0], cni_version_names[CNI_VERSIONS - 1]);
}

static int parse_fields(struct netconf *conf, struct err *err)
{
	const json_t *json = conf->json;
	int r;

	r = get_text(json, "name", conf->name, sizeof(conf->name), err);
	if (r == 0 && !is_name(conf->name))
		r = err_set(err, CNI_INVALID_CONFIG, "'%s' is not a network's name", conf->name);
	if (r == 0)
		r = get_prefix(json, "network", &conf->network, err);
	if (r == 0)
		r = get_prefix(json, "subnet", &conf->subnet, err);
	if (r == 0 && !prefix_contains(&conf->network, &conf->subnet))
		r = err_set(err, CNI_INVALID_CONFIG, "'subnet' lies outside of 'network'");
	if (r == 0)
		r = get_text(json, "bridge", conf->bridge, sizeof(conf->bridge), err);
	if (r == 0)
		r = get_mtu(json, &conf->mtu, err);
	if (r == 0)
		r = get_text(json, "stateDir", conf->state_dir, sizeof(conf->state_dir), err);
	if (r == 0 && conf->state_dir[0] != '/')
		r = err_set(err, CNI_INVALID_CONFIG, "'stateDir' must be an absolute path");
	return r;
}

int netconf_parse(const char *text, size_t len, struct netconf *ret, enum cni_version *ret_version,
		  struct err *err)
{
	struct netconf conf = { .json = NULL };
	json_error_t why;
	int r;

	conf.json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(conf.json)) {
		json_decref(conf.json);
		return err_set(err, CNI_DECODE_FAILURE,
			       "the configuration is not a JSON object: %s", why.text);
	}
	r = get_version(conf.json, &conf.version, err);
	if (r == 0) {
		*ret_version = conf.version;
		r = parse_fields(&conf, err);
	}
	if (r) {
		netconf_done(&conf);
		return r;
	}
	(void)snprintf(conf.ipam_dir, sizeof(conf.ipam_dir), "%s/ipam/%s", conf.state_dir,
		       conf.name);
	*ret = conf;
	return 0;
}

void netconf_done(struct netconf *conf)
{
	json_decref(conf->json);
	conf->json = NULL;
}
