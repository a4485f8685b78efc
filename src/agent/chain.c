/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "chain.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "poplin/base/file.h"
#include "poplin/base/mem.h"

#define BYTES_MAX   ((size_t)64 * 1024)
#define PLUGINS_MAX 16

DEFINE_AUTO(json_t *, json_decref)

/* The runtime looks for a file of that name in its folders of plugins. */
static bool is_file_name(const char *text)
{
	if (*text == '.' || *text == '\0')
		return false;
	for (; *text; text++)
		if (!isgraph((unsigned char)*text) || *text == '/' || *text == '\\')
			return false;
	return true;
}

static int check_plugin(const json_t *plugin, const char *own_type, struct err *err)
{
	const char *type = json_string_value(json_object_get(plugin, "type"));

	if (!json_is_object(plugin))
		return err_set(err, -EINVAL, "not an object");
	if (!type)
		return err_set(err, -EINVAL, "'type' is missing or not a string");
	if (!is_file_name(type))
		return err_set(err, -EINVAL, "'type' is '%.64s', which is no file's name", type);
	if (strcmp(type, own_type) == 0)
		return err_set(err, -EINVAL, "'type' is '%.64s', which comes first without it",
			       type);
	return 0;
}

static int check(const json_t *plugins, const char *own_type, struct err *err)
{
	const json_t *plugin;
	size_t i;

	if (!json_is_array(plugins))
		return err_set(err, -EINVAL,
			       "neither a list of plugins nor an object with such a list as "
			       "'plugins'");
	if (json_array_size(plugins) > PLUGINS_MAX)
		return err_set(err, -EINVAL, "%zu plugins, more than %d", json_array_size(plugins),
			       PLUGINS_MAX);
	json_array_foreach (plugins, i, plugin)
		if (check_plugin(plugin, own_type, err) < 0)
			return err_wrap(err, -EINVAL, "plugin %zu", i + 1);
	return 0;
}

int chain_read(const char *path, const char *own_type, json_t **ret, struct err *err)
{
	auto_buf struct buf text = BUF_INIT;
	auto_(json_decref) json_t *json = NULL;
	json_t *plugins;
	json_error_t why;
	int r;

	if (!*path) {
		*ret = json_array();
		return *ret ? 0 : err_errno(err, -ENOMEM, "plugins");
	}
	r = file_read(path, BYTES_MAX, &text, err);
	if (r < 0)
		return r;
	json = json_loadb(text.data ? text.data : "", text.len, JSON_REJECT_DUPLICATES, &why);
	if (!json)
		return err_set(err, -EINVAL, "%s:%d: %s", path, why.line, why.text);
	plugins = json_is_object(json) ? json_object_get(json, "plugins") : json;
	r = check(plugins, own_type, err);
	if (r < 0)
		return err_wrap(err, r, "%s", path);
	*ret = json_incref(plugins);
	return 0;
}
