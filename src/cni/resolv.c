/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "resolv.h"

#include <string.h>

#include "cni.h"
#include "poplin/base/file.h"

#define FILE_MAX ((size_t)64 * 1024)

static int add(json_t *dns, const char *key, const char *word)
{
	json_t *list = json_object_get(dns, key);

	if (!list) {
		list = json_array();
		if (json_object_set_new(dns, key, list) < 0)
			return -1;
	}
	return json_array_append_new(list, json_string(word));
}

/* "nameserver 10.0.0.10", "search a b", "options ndots:5", "domain a" */
static int take_line(json_t *dns, char *line)
{
	static const char blanks[] = " \t\r";
	const char *key = strtok_r(line, blanks, &line), *word;
	int r = 0;

	if (!key || *key == '#' || *key == ';')
		return 0;
	word = strtok_r(NULL, blanks, &line);
	if (!word)
		return 0;
	if (strcmp(key, "nameserver") == 0)
		return add(dns, "nameservers", word);
	if (strcmp(key, "domain") == 0)
		return json_object_set_new(dns, "domain", json_string(word));
	if (strcmp(key, "search") != 0 && strcmp(key, "options") != 0)
		return 0;
	for (; word && r == 0; word = strtok_r(NULL, blanks, &line))
		r = add(dns, key, word);
	return r;
}

int resolv_read(const char *path, json_t **ret, struct err *err)
{
	auto_buf struct buf text = BUF_INIT;
	json_t *dns = json_object();
	char *rest, *line;

	if (!dns || file_read(path, FILE_MAX, &text, err) < 0) {
		json_decref(dns);
		return err_wrap(err, CNI_IO_FAILURE, "'resolvConf'");
	}
	rest = text.data;
	while ((line = strsep(&rest, "\n")))
		if (take_line(dns, line) < 0) {
			json_decref(dns);
			return err_set(err, CNI_DECODE_FAILURE, "'resolvConf': %s is not UTF-8",
				       path);
		}
	*ret = dns;
	return 0;
}
