/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/mem.h"

#include "output.h"

#define PATH_TEXT_MAX 64

int output_escaped(struct buf *b, const char *text)
{
	int r = 0;

	for (const char *c = text; *c && r == 0; c++) {
		if (*c == '\\')
			r = buf_adds(b, "\\\\");
		else if (*c >= ' ' && *c <= '~')
			r = buf_add(b, c, 1);
		else
			r = buf_printf(b, "\\x%02x", (unsigned char)*c);
	}
	return r;
}

/* The value at "member.member", or NULL. */
static const json_t *lookup(const json_t *root, const char *path, size_t len)
{
	char text[PATH_TEXT_MAX], *rest = text, *name;

	if (len >= sizeof(text))
		return NULL;
	memcpy(text, path, len);
	text[len] = '\0';
	while (root && (name = strsep(&rest, ".")))
		root = json_object_get(root, name);
	return root;
}

/* Returns 1 when there was a value, 0 when "-" was written for it, or -ENOMEM. */
static int add_value(struct buf *b, const json_t *value)
{
	int r;

	if (json_is_string(value) && json_string_length(value) > 0)
		r = output_escaped(b, json_string_value(value));
	else if (json_is_integer(value))
		r = buf_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_real(value))
		r = buf_printf(b, "%.1f", json_real_value(value));
	else if (json_is_boolean(value))
		r = buf_adds(b, json_is_true(value) ? "yes" : "no");
	else
		return buf_adds(b, "-");
	return r < 0 ? r : 1;
}

int output_expand(struct buf *b, const char *template, const json_t *root)
{
	size_t section = 0, len;
	bool missing = false;
	int r = 0;

	for (; *template && r >= 0; template += len) {
		len = 1;
		switch (*template) {
		case '[':
			section = b->len;
			missing = false;
			break;
		case ']':
			if (missing)
				b->len = section; /* the next addition ends it with a NUL again */
			break;
		case '{':
			len = strcspn(template, "}") + 1;
			r = add_value(b, lookup(root, template + 1, len - 2));
			missing = missing || r == 0;
			break;
		default:
			len = strcspn(template, "[]{");
			r = buf_add(b, template, len);
		}
	}
	return r < 0 ? r : buf_add(b, "", 0);
}

/* All cells' texts in one buffer, one after the other, each with its NUL. */
static int fill_cells(struct buf *cells, size_t *widths, const struct output_column *columns,
		      size_t ncolumns, const json_t *rows)
{
	for (size_t i = 0; i < json_array_size(rows); i++) {
		for (size_t j = 0; j < ncolumns; j++) {
			size_t start = cells->len, width;

			if (output_expand(cells, columns[j].template, json_array_get(rows, i)) < 0)
				return -ENOMEM;
			width = cells->len - start;
			if (width > widths[j])
				widths[j] = width;
			if (buf_add(cells, "", 1) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

int output_table(FILE *out, const struct output_column *columns, size_t ncolumns,
		 const json_t *rows)
{
	auto_buf struct buf cells = BUF_INIT;
	auto_free size_t *widths = calloc(ncolumns, sizeof(*widths));
	const char *cell;

	if (!widths)
		return -ENOMEM;
	for (size_t j = 0; j < ncolumns; j++)
		widths[j] = strlen(columns[j].title);
	if (fill_cells(&cells, widths, columns, ncolumns, rows) < 0)
		return -ENOMEM;
	for (size_t j = 0; j < ncolumns; j++)
		fprintf(out, "%-*s%s", j + 1 < ncolumns ? (int)widths[j] : 0, columns[j].title,
			j + 1 < ncolumns ? "  " : "\n");
	cell = cells.data;
	for (size_t i = 0; i < json_array_size(rows); i++) {
		for (size_t j = 0; j < ncolumns; j++) {
			fprintf(out, "%-*s%s", j + 1 < ncolumns ? (int)widths[j] : 0, cell,
				j + 1 < ncolumns ? "  " : "\n");
			cell += strlen(cell) + 1;
		}
	}
	return 0;
}
