/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a runtime asks for of a single attachment: addresses and a MAC, in CNI_ARGS, in "args" and
 * in "runtimeConfig" (CONVENTIONS.md of the specification). All the addresses count, as with the
 * plugin host-local; of MACs that of "runtimeConfig" before that of "args", and that before CNI_ARGS'.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cni.h"

static bool parse_mac(const char *text, uint8_t ret[static 6])
{
	unsigned byte;

	if (strlen(text) != 17)
		return false;
	for (unsigned i = 0; i < 6; i++, text += 3) {
		if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) ||
		    (i < 5 && text[2] != ':') || sscanf(text, "%2x", &byte) != 1)
			return false;
		ret[i] = (uint8_t)byte;
	}
	return true;
}

/* Not of a group, not zero: no link could have it. */
static int take_mac(struct wishes *w, const char *text, int code, const char *where,
		    struct err *err)
{
	static const uint8_t zero[6];

	if (!parse_mac(text, w->mac) || (w->mac[0] & 1) || memcmp(w->mac, zero, 6) == 0)
		return err_set(err, code, "%s: '%.32s' is not a MAC for a link", where, text);
	w->has_mac = true;
	return 0;
}

/* "10.2.1.5" or "10.2.1.5/24", whose length is not ours to believe. */
static int take_address(struct wishes *w, const char *text, int code, const char *where,
			struct err *err)
{
	char bare[PREFIX_TEXT_MAX];
	struct addr address;

	strlcpy(bare, text, sizeof(bare));
	bare[strcspn(bare, "/")] = '\0';
	if (addr_parse(bare, &address, err) < 0)
		return err_wrap(err, code, "%s", where);
	w->addresses_code = code;
	/* A runtime may say it in each of the ways. */
	for (size_t i = 0; i < w->naddresses; i++)
		if (addr_cmp(&w->addresses[i], &address) == 0)
			return 0;
	if (w->naddresses == countof(w->addresses))
		return err_set(err, code, "%s: more than %zu addresses are asked for", where,
			       countof(w->addresses));
	w->addresses[w->naddresses++] = address;
	return 0;
}

/* -- CNI_ARGS ------------------------------------------------------------------------- */

static int parse_bool(const char *text, bool *ret, struct err *err)
{
	bool yes = strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0;

	if (!yes && strcasecmp(text, "false") != 0 && strcmp(text, "0") != 0)
		return err_set(err, CNI_INVALID_ENVIRONMENT,
			       "CNI_ARGS: IgnoreUnknown is '%.32s', neither true nor false", text);
	*ret = yes;
	return 0;
}

/* One "key=value"; the first unknown key is noted. */
static int take_pair(struct wishes *w, char *pair, bool *ignore, const char **unknown,
		     struct err *err)
{
	char *value = strchr(pair, '=');

	if (!value)
		return err_set(err, CNI_INVALID_ENVIRONMENT, "CNI_ARGS: '%.64s' is no 'key=value'",
			       pair);
	*value++ = '\0';
	if (strcmp(pair, "IP") == 0)
		return take_address(w, value, CNI_INVALID_ENVIRONMENT, "CNI_ARGS", err);
	if (strcmp(pair, "MAC") == 0)
		return take_mac(w, value, CNI_INVALID_ENVIRONMENT, "CNI_ARGS", err);
	if (strcmp(pair, "IgnoreUnknown") == 0)
		return parse_bool(value, ignore, err);
	/* Kubernetes' runtimes name the pod in this way. */
	if (strncmp(pair, "K8S_POD_", 8) != 0 && !*unknown)
		*unknown = pair;
	return 0;
}

static int read_variable(struct wishes *w, const char *args, struct err *err)
{
	auto_free char *copy = strdup(args);
	char *rest = copy, *pair;
	const char *unknown = NULL;
	bool ignore = false;
	int r = 0;

	if (!copy)
		return err_set(err, CNI_IO_FAILURE, "out of memory");
	while (r == 0 && (pair = strsep(&rest, ";")))
		if (*pair)
			r = take_pair(w, pair, &ignore, &unknown, err);
	if (r == 0 && unknown && !ignore)
		r = err_set(err, CNI_INVALID_ENVIRONMENT,
			    "CNI_ARGS: '%.64s' is not known (and IgnoreUnknown is not set)",
			    unknown);
	return r;
}

/* -- the configuration ---------------------------------------------------------------- */

static int read_object(struct wishes *w, const json_t *json, const char *where, struct err *err)
{
	const json_t *ips = netconf_get(json, "ips"), *item;
	const json_t *mac = netconf_get(json, "mac");
	size_t i;
	int r = 0;

	if (ips && !json_is_null(ips)) {
		if (!json_is_array(ips))
			return err_set(err, CNI_INVALID_CONFIG, "'ips' of %s is not a list", where);
		json_array_foreach (ips, i, item) {
			const char *text = json_string_value(item);

			r = take_address(w, text ? text : "", CNI_INVALID_CONFIG, where, err);
			if (r)
				return r;
		}
	}
	if (mac && !json_is_null(mac)) {
		const char *text = json_string_value(mac);

		if (!text)
			return err_set(err, CNI_INVALID_CONFIG, "'mac' of %s is not a string",
				       where);
		if (*text)
			r = take_mac(w, text, CNI_INVALID_CONFIG, where, err);
	}
	return r;
}

int wishes_read(const struct request *req, struct wishes *ret, struct err *err)
{
	const json_t *args = netconf_get(req->conf.json, "args");
	int r;

	*ret = (struct wishes){ .naddresses = 0 };
	r = read_variable(ret, req->args, err);
	if (r == 0)
		r = read_object(ret, netconf_get(args, "cni"), "'args'", err);
	if (r == 0)
		r = read_object(ret, netconf_get(req->conf.json, "runtimeConfig"),
				"'runtimeConfig'", err);
	return r;
}
