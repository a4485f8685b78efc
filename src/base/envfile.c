/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/base/envfile.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "poplin/base/buf.h"
#include "poplin/base/file.h"

#define ENVFILE_MAX (1024 * 1024)

static char *trim(char *text)
{
	char *end = text + strlen(text);

	while (end > text && isspace((unsigned char)end[-1]))
		*--end = '\0';
	while (isspace((unsigned char)*text))
		text++;
	return text;
}

/* Takes the quotes off value, in place. False: the closing quote is missing or not the last. */
static bool unquote(char *value)
{
	char quote = value[0], *to = value;
	const char *from = value + 1;

	if (quote != '"' && quote != '\'')
		return true;
	while (*from && *from != quote) {
		if (quote == '"' && *from == '\\' && from[1])
			from++;
		*to++ = *from++;
	}
	if (*from != quote || from[1])
		return false;
	*to = '\0';
	return true;
}

static bool name_is_valid(const char *name)
{
	if (!isalpha((unsigned char)*name) && *name != '_')
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && *name != '_')
			return false;
	return true;
}

static int parse_line(const char *path, char *line, unsigned number, envfile_fn *fn, void *arg,
		      struct err *err)
{
	char *name = trim(line), *value;

	if (*name == '\0' || *name == '#' || *name == ';')
		return 0;
	value = strchr(name, '=');
	if (!value)
		return err_set(err, -EINVAL, "%s:%u: expected NAME=value, found '%s'", path, number,
			       name);
	*value++ = '\0';
	name = trim(name);
	value = trim(value);
	if (!name_is_valid(name))
		return err_set(err, -EINVAL, "%s:%u: '%s' is not a name", path, number, name);
	if (!unquote(value))
		return err_set(err, -EINVAL, "%s:%u: %s: quotes do not match", path, number, name);
	return fn(name, value, number, arg, err);
}

int envfile_parse(const char *name, char *text, envfile_fn *fn, void *arg, struct err *err)
{
	unsigned number = 0;
	char *line;

	while ((line = strsep(&text, "\n"))) {
		int r = parse_line(name, line, ++number, fn, arg, err);

		if (r < 0)
			return r;
	}
	return 0;
}

int envfile_read(const char *path, envfile_fn *fn, void *arg, struct err *err)
{
	auto_buf struct buf text = BUF_INIT;
	int r = file_read(path, ENVFILE_MAX, &text, err);

	if (r < 0)
		return r;
	if (!text.data)
		return 0;
	if (strlen(text.data) != text.len)
		return err_set(err, -EINVAL, "%s: holds a NUL byte, so it is no text file", path);
	return envfile_parse(path, text.data, fn, arg, err);
}
