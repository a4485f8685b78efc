/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text for people from the agent's JSON. What stands in it may come from anybody who can write to
 * the store, so everything but printable ASCII is escaped: no name moves a terminal's cursor.
 * Members that are missing or null show as "-": agent and tool may be of different versions.
 *
 * Threads: one.
 */
#ifndef POPLIN_CTL_OUTPUT_H
#define POPLIN_CTL_OUTPUT_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "poplin/base/buf.h"

/* Appends text with everything but printable ASCII as \xNN, and backslash doubled. -ENOMEM. */
int output_escaped(struct buf *b, const char *text);

/*
 * Appends the template with each {member.member} replaced by that value of root: texts escaped,
 * numbers, yes or no. What stands in [] is left out when a value in it is missing. -ENOMEM.
 */
int output_expand(struct buf *b, const char *template, const json_t *root);

struct output_column {
	const char *title;
	const char *template; /* for output_expand(), with a row's object as root */
};

/* Prints a header and a line per object of the array, aligned; the last column is not padded. */
int output_table(FILE *out, const struct output_column *columns, size_t ncolumns,
		 const json_t *rows);

#endif
