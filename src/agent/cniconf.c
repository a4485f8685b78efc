/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cniconf.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "chain.h"
#include "poplin/base/file.h"
#include "poplin/base/mem.h"

#define PLUGIN_MODE 0700 /* only root may make pod networks */
#define CONFIG_MODE 0600

DEFINE_AUTO(json_t *, json_decref)

/* What any bridge plugin takes, and what ties the pods to the agent: stateDir and network. */
static json_t *plugin_object(const struct settings *s, const struct prefix *subnet, unsigned mtu)
{
	char network[PREFIX_TEXT_MAX], own[PREFIX_TEXT_MAX], dir[SETTING_PATH_MAX + 8];

	(void)snprintf(dir, sizeof(dir), "%s/ipam", s->state_dir);
	return json_pack("{ss ss si sb sb ss ss s{ss s[[{ss}]] ss}}", "type", s->cni_type, "bridge",
			 s->bridge_name, "mtu", (int)mtu, "isDefaultGateway", 1, "hairpinMode", 1,
			 "network", prefix_format(&s->network.pods, network), "stateDir",
			 s->state_dir, "ipam", "type", s->cni_type, "ranges", "subnet",
			 prefix_format(subnet, own), "dataDir", dir);
}

static json_t *config_object(const struct settings *s, const struct prefix *subnet, unsigned mtu,
			     json_t *chain)
{
	json_t *plugin = plugin_object(s, subnet, mtu);
	json_t *config;

	if (settings_cni_list(s)) {
		if (json_array_insert_new(chain, 0, plugin) < 0)
			return NULL;
		return json_pack("{ss ss sO}", "cniVersion", s->cni_version, "name", s->cni_name,
				 "plugins", chain);
	}
	config = json_pack("{ss ss}", "cniVersion", s->cni_version, "name", s->cni_name);
	if (!config || json_object_update(config, plugin) < 0) {
		json_decref(config);
		config = NULL;
	}
	json_decref(plugin);
	return config;
}

int cniconf_format(const struct settings *s, const struct prefix *subnet, unsigned mtu,
		   struct buf *ret, struct err *err)
{
	auto_(json_decref) json_t *chain = NULL, *config = NULL;
	auto_free char *text = NULL;
	int r = chain_read(s->cni_chain, s->cni_type, &chain, err);

	if (r < 0)
		return err_wrap(err, r, "CNI_CHAIN");
	config = config_object(s, subnet, mtu, chain);
	text = config ? json_dumps(config, JSON_INDENT(2)) : NULL;
	if (!text || buf_printf(ret, "%s\n", text) < 0)
		return err_errno(err, -ENOMEM, "CNI configuration");
	return 0;
}

/* The installed plugin; for an agent that runs from its build tree, the one that was built beside
 * it. */
static int plugin_source(char ret[static PATH_MAX], struct err *err)
{
	ssize_t len = readlink("/proc/self/exe", ret, PATH_MAX - sizeof("/poplin"));
	char *slash;

	if (len > 0) {
		ret[len] = '\0';
		slash = strrchr(ret, '/');
		strlcpy(slash ? slash : ret, "/poplin", sizeof("/poplin"));
		if (access(ret, X_OK) == 0)
			return 0;
	}
	strlcpy(ret, PKGLIBEXECDIR "/poplin", PATH_MAX);
	if (access(ret, X_OK) < 0)
		return err_errno(err, -errno, "%s: the CNI plugin to install", ret);
	return 0;
}

int cniconf_install(const struct settings *s, const struct prefix *subnet, unsigned mtu,
		    bool *ret_changed, struct err *err)
{
	auto_buf struct buf config = BUF_INIT;
	char source[PATH_MAX];
	bool changed = false;
	int r;

	r = plugin_source(source, err);
	if (r < 0)
		return r;
	r = cniconf_format(s, subnet, mtu, &config, err);
	if (r < 0)
		return r;
	if (!file_same(source, s->cni_plugin_location, PLUGIN_MODE)) {
		r = file_make_parent(s->cni_plugin_location, err);
		if (r == 0)
			r = file_copy_atomic(source, s->cni_plugin_location, PLUGIN_MODE, err);
		if (r < 0)
			return r;
		changed = true;
	}
	if (!file_matches(s->cni_config_location, CONFIG_MODE, config.data, config.len)) {
		r = file_make_parent(s->cni_config_location, err);
		if (r == 0)
			r = file_write_atomic(s->cni_config_location, CONFIG_MODE, config.data,
					      config.len, err);
		if (r < 0)
			return r;
		changed = true;
	}
	*ret_changed = changed;
	return 0;
}

int cniconf_remove(const struct settings *s, struct err *err)
{
	int r = file_remove(s->cni_config_location, err);

	return r < 0 ? r : file_remove(s->cni_plugin_location, err);
}
