/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The types of settings: text to value and back, and what is allowed, in words. Only settings.c
 * and its test know this header. Threads: any; no state.
 */
#ifndef POPLIN_AGENT_SETTINGS_TYPES_H
#define POPLIN_AGENT_SETTINGS_TYPES_H

#include <stdbool.h>
#include <stddef.h>

#include "poplin/base/err.h"

#define SETTING_ALLOWED_MAX 160

enum setting_type {
	TYPE_ENDPOINTS,
	TYPE_KEY,
	TYPE_USER,
	TYPE_SUBNET,
	TYPE_UINT,
	TYPE_NODE_NAME,
	TYPE_ADDRESS,
	TYPE_IFNAME,
	TYPE_MTU,
	TYPE_CNI_CONFIG,
	TYPE_FILE,
	TYPE_FOLDER,
	TYPE_CNI_VERSION,
	TYPE_CNI_NAME,
	TYPE_LISTEN,
	TYPE_SWITCH,
	TYPE_LEVEL,
	TYPE_FORMAT,
	SETTING_TYPES
};

struct setting_row {
	const char *name;
	enum setting_type type;
	size_t offset, size; /* of the member in struct settings */
	const char *value;   /* default, as text; "" : found at run time */
	unsigned min, max;   /* of a UINT the value, of a text its length; 0, 0: the type's own */
	bool reloadable;
	const char *help;
};

/* Writes the value to member, which has row->size zero bytes. -EINVAL: err says why not. */
int setting_parse(const struct setting_row *row, const char *text, void *member, struct err *err);
/* The value as text that setting_parse() takes; "" for a value to be found at run time. */
void setting_format(const struct setting_row *row, const void *member, char *ret, size_t size);
/* "a whole number from 5 to 86400". Returns ret. */
const char *setting_allowed(const struct setting_row *row, char ret[static SETTING_ALLOWED_MAX]);

#endif
