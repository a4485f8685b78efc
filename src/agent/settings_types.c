/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/log.h"
#include "poplin/base/mem.h"
#include "poplin/model/prefix.h"
#include "poplin/model/record.h"
#include "poplin/store/store.h"

#include "httpd.h"
#include "settings_types.h"

#define MTU_MIN 576

/* Versions of the CNI specification that the plugin speaks. */
static const char *const cni_versions[] = { "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0" };

/* A parser of one type; the text is not empty and of the right length. */
typedef int parse_fn(const struct setting_row *row, const char *text, void *member,
		     struct err *err);

/* -- texts ----------------------------------------------------------------- */

static bool all_graph(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text > '~')
			return false;
	return true;
}

static bool has_suffix(const char *text, const char *suffix)
{
	size_t len = strlen(text), n = strlen(suffix);

	return len >= n && strcmp(text + len - n, suffix) == 0;
}

static int store_text(const struct setting_row *row, const char *text, size_t len, void *member)
{
	assert(len < row->size);
	memcpy(member, text, len);
	return 0;
}

static int refuse(struct err *err, const char *why)
{
	return err_set(err, -EINVAL, "%s", why);
}

/* Length without slashes at the end. */
static size_t trimmed_len(const char *text)
{
	size_t len = strlen(text);

	while (len > 0 && text[len - 1] == '/')
		len--;
	return len;
}

static int parse_endpoints(const struct setting_row *row, const char *text, void *member,
			   struct err *err)
{
	int r = store_endpoints_check(text, err);

	return r < 0 ? -EINVAL : store_text(row, text, strlen(text), member);
}

static int parse_key(const struct setting_row *row, const char *text, void *member, struct err *err)
{
	size_t len = trimmed_len(text);

	if (!all_graph(text))
		return refuse(err, "blanks, control and non-ASCII characters are not allowed");
	if (len == 0)
		return refuse(err, "slashes alone are no key");
	return store_text(row, text, len, member);
}

static int parse_user(const struct setting_row *row, const char *text, void *member,
		      struct err *err)
{
	if (!all_graph(text))
		return refuse(err, "blanks, control and non-ASCII characters are not allowed");
	return store_text(row, text, strlen(text), member);
}

static int parse_node_name(const struct setting_row *row, const char *text, void *member,
			   struct err *err)
{
	if (!node_name_valid(text))
		return refuse(err, "not a node name");
	return store_text(row, text, strlen(text), member);
}

/* The kernel's own rule (net/core/dev.c, dev_valid_name), and no '%', which it would expand. */
static int parse_ifname(const struct setting_row *row, const char *text, void *member,
			struct err *err)
{
	if (!all_graph(text) || strpbrk(text, "/:%") || strcmp(text, ".") == 0 ||
	    strcmp(text, "..") == 0)
		return refuse(err, "not a name that an interface can have");
	return store_text(row, text, strlen(text), member);
}

static int parse_file(const struct setting_row *row, const char *text, void *member,
		      struct err *err)
{
	if (*text != '/')
		return refuse(err, "not an absolute path");
	if (!all_graph(text))
		return refuse(err, "blanks, control and non-ASCII characters are not allowed");
	if (has_suffix(text, "/"))
		return refuse(err, "this is a folder, not a file");
	return store_text(row, text, strlen(text), member);
}

static int parse_folder(const struct setting_row *row, const char *text, void *member,
			struct err *err)
{
	size_t len = trimmed_len(text);

	if (*text != '/')
		return refuse(err, "not an absolute path");
	if (!all_graph(text))
		return refuse(err, "blanks, control and non-ASCII characters are not allowed");
	if (len == 0)
		return refuse(err, "the root folder cannot be ours");
	return store_text(row, text, len, member);
}

static int parse_cni_config(const struct setting_row *row, const char *text, void *member,
			    struct err *err)
{
	if (!has_suffix(text, ".conf") && !has_suffix(text, ".conflist"))
		return refuse(err, "container runtimes would not read a file of that name");
	return parse_file(row, text, member, err);
}

static int parse_cni_version(const struct setting_row *row, const char *text, void *member,
			     struct err *err)
{
	for (size_t i = 0; i < countof(cni_versions); i++)
		if (strcmp(text, cni_versions[i]) == 0)
			return store_text(row, text, strlen(text), member);
	return refuse(err, "the plugin does not speak it");
}

/* Network names as the CNI library takes them; the name is part of a path, too. */
static int parse_cni_name(const struct setting_row *row, const char *text, void *member,
			  struct err *err)
{
	if (!isalnum((unsigned char)*text))
		return refuse(err, "it must begin with a letter or digit");
	for (const char *c = text; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("_.-", *c))
			return refuse(err, "that character is not allowed");
	return store_text(row, text, strlen(text), member);
}

static int parse_listen(const struct setting_row *row, const char *text, void *member,
			struct err *err)
{
	struct addr addr;
	uint16_t port;
	int r = httpd_address_parse(text, &addr, &port, err);

	return r < 0 ? -EINVAL : store_text(row, text, strlen(text), member);
}

/* -- values ---------------------------------------------------------------- */

static int parse_subnet(const struct setting_row *row, const char *text, void *member,
			struct err *err)
{
	struct prefix *pods = member;
	struct addr first, last;

	if (prefix_parse(text, pods, err) < 0)
		return -EINVAL;
	first = prefix_first(pods);
	last = prefix_last(pods);
	if (!addr_is_unicast(&first) || !addr_is_unicast(&last) || addr_is_link_local(&first))
		return err_set(err, -EINVAL, "pods cannot have addresses of it");
	return 0;
}

static int parse_address(const struct setting_row *row, const char *text, void *member,
			 struct err *err)
{
	struct addr addr;

	if (addr_parse(text, &addr, err) < 0)
		return -EINVAL;
	if (!addr_is_unicast(&addr))
		return refuse(err, "nothing can be sent to that address");
	memcpy(member, &addr, sizeof(addr));
	return 0;
}

static int parse_number(const char *text, unsigned min, unsigned max, void *member, struct err *err)
{
	unsigned long value = 0;

	for (const char *c = text; *c; c++) {
		if (*c < '0' || *c > '9')
			return refuse(err, "not a whole number");
		value = value * 10 + (unsigned long)(*c - '0');
		if (value > max)
			return refuse(err, "too large");
	}
	if (value < min)
		return refuse(err, "too small");
	*(unsigned *)member = (unsigned)value;
	return 0;
}

static int parse_uint(const struct setting_row *row, const char *text, void *member,
		      struct err *err)
{
	return parse_number(text, row->min, row->max, member, err);
}

static int parse_mtu(const struct setting_row *row, const char *text, void *member, struct err *err)
{
	unsigned mtu;
	int r = parse_number(text, 0, row->max, &mtu, err);

	if (r < 0)
		return r;
	if (mtu != 0 && mtu < MTU_MIN)
		return refuse(err, "too small");
	*(unsigned *)member = mtu;
	return 0;
}

static int parse_switch(const struct setting_row *row, const char *text, void *member,
			struct err *err)
{
	if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
		return refuse(err, "neither on nor off");
	*(bool *)member = strcmp(text, "on") == 0;
	return 0;
}

static int parse_level(const struct setting_row *row, const char *text, void *member,
		       struct err *err)
{
	if (!log_level_parse(text, (enum log_level *)member))
		return refuse(err, "no such level");
	return 0;
}

static int parse_format(const struct setting_row *row, const char *text, void *member,
			struct err *err)
{
	if (!log_format_parse(text, (enum log_format *)member))
		return refuse(err, "no such format");
	return 0;
}

/* -- the table of types ---------------------------------------------------- */

enum shape {
	SHAPE_TEXT,
	SHAPE_UINT,
	SHAPE_SWITCH,
	SHAPE_PREFIX,
	SHAPE_ADDR,
	SHAPE_LEVEL,
	SHAPE_FORMAT
};

static const struct {
	parse_fn *parse;
	enum shape shape;
	const char *allowed; /* NULL: in setting_allowed() */
} types[] = {
	[TYPE_ENDPOINTS] = { parse_endpoints, SHAPE_TEXT,
			     "host, host:port or http(s)://host:port, several separated by commas" },
	[TYPE_KEY] = { parse_key, SHAPE_TEXT, "a key of printable ASCII characters" },
	[TYPE_USER] = { parse_user, SHAPE_TEXT, "a name of printable ASCII characters" },
	[TYPE_SUBNET] = { parse_subnet, SHAPE_PREFIX, "a prefix such as 10.2.0.0/16" },
	[TYPE_UINT] = { parse_uint, SHAPE_UINT, NULL },
	[TYPE_NODE_NAME] = { parse_node_name, SHAPE_TEXT,
			     "letters, digits, '-' and '.', a letter or digit first and last" },
	[TYPE_ADDRESS] = { parse_address, SHAPE_ADDR, "a unicast IP address" },
	[TYPE_IFNAME] = { parse_ifname, SHAPE_TEXT,
			  "an interface name, without blanks, '/', ':' and '%'" },
	[TYPE_MTU] = { parse_mtu, SHAPE_UINT, NULL },
	[TYPE_CNI_CONFIG] = { parse_cni_config, SHAPE_TEXT,
			      "an absolute path that ends in .conf or .conflist" },
	[TYPE_FILE] = { parse_file, SHAPE_TEXT, "the absolute path of a file" },
	[TYPE_FOLDER] = { parse_folder, SHAPE_TEXT, "the absolute path of a folder" },
	[TYPE_CNI_VERSION] = { parse_cni_version, SHAPE_TEXT, NULL },
	[TYPE_CNI_NAME] = { parse_cni_name, SHAPE_TEXT,
			    "letters, digits, '_', '.' and '-', a letter or digit first" },
	[TYPE_LISTEN] = { parse_listen, SHAPE_TEXT, "address:port or [IPv6 address]:port" },
	[TYPE_SWITCH] = { parse_switch, SHAPE_SWITCH, "on or off" },
	[TYPE_LEVEL] = { parse_level, SHAPE_LEVEL, "error, warn, info or debug" },
	[TYPE_FORMAT] = { parse_format, SHAPE_FORMAT, "text or json" },
};
static_assert(countof(types) == SETTING_TYPES, "a row for each type");

int setting_parse(const struct setting_row *row, const char *text, void *member, struct err *err)
{
	if (types[row->type].shape == SHAPE_TEXT) {
		size_t len = strlen(text), max = row->max > 0 ? row->max : row->size - 1;

		if (len > max)
			return err_set(err, -EINVAL, "%zu characters are too long, %zu fit", len,
				       max);
	}
	return types[row->type].parse(row, text, member, err);
}

void setting_format(const struct setting_row *row, const void *member, char *ret, size_t size)
{
	char text[PREFIX_TEXT_MAX] = "";
	const char *value = text;

	switch (types[row->type].shape) {
	case SHAPE_TEXT:
		value = member;
		break;
	case SHAPE_UINT:
		snprintf(text, sizeof(text), "%u", *(const unsigned *)member);
		break;
	case SHAPE_SWITCH:
		value = *(const bool *)member ? "on" : "off";
		break;
	case SHAPE_PREFIX:
		prefix_format(member, text);
		break;
	case SHAPE_ADDR:
		if (((const struct addr *)member)->family != AF_UNSPEC)
			addr_format(member, text);
		break;
	case SHAPE_LEVEL:
		value = log_level_name(*(const enum log_level *)member);
		break;
	case SHAPE_FORMAT:
		value = *(const enum log_format *)member == LOG_JSON ? "json" : "text";
		break;
	}
	snprintf(ret, size, "%s", value);
}

const char *setting_allowed(const struct setting_row *row, char ret[static SETTING_ALLOWED_MAX])
{
	size_t len;

	if (types[row->type].allowed) {
		snprintf(ret, SETTING_ALLOWED_MAX, "%s", types[row->type].allowed);
	} else if (row->type == TYPE_MTU) {
		snprintf(ret, SETTING_ALLOWED_MAX, "0 or a whole number from %d to %u", MTU_MIN,
			 row->max);
	} else if (row->type == TYPE_UINT) {
		snprintf(ret, SETTING_ALLOWED_MAX, "a whole number from %u to %u", row->min,
			 row->max);
	} else {
		assert(row->type == TYPE_CNI_VERSION);
		ret[0] = '\0';
		for (size_t i = 0; i < countof(cni_versions); i++) {
			len = strlen(ret);
			snprintf(ret + len, SETTING_ALLOWED_MAX - len, "%s%s",
				 i == 0				  ? ""
				 : i + 1 == countof(cni_versions) ? " or "
								  : ", ",
				 cni_versions[i]);
		}
	}
	return ret;
}
