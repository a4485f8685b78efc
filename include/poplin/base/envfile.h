/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of NAME=value lines as systemd's EnvironmentFile= reads them (systemd.exec(5)): blank
 * lines and lines that start with # or ; are skipped, blanks around the value are dropped, and a
 * value may stand in single or double quotes (a backslash in double quotes escapes). Continued
 * lines are not read: no setting of ours needs one.
 */
#ifndef POPLIN_BASE_ENVFILE_H
#define POPLIN_BASE_ENVFILE_H

#include "poplin/base/err.h"

/* Called for each line; a negative return ends the parse and is returned. */
typedef int envfile_fn(const char *name, const char *value, unsigned line, void *arg,
		       struct err *err);

/* -ENOENT if there is no such file; -EINVAL, with path and line in the text, for a bad line. */
int envfile_read(const char *path, envfile_fn *fn, void *arg, struct err *err);
/* The same over text; `name` stands for the path in messages. text is modified. */
int envfile_parse(const char *name, char *text, envfile_fn *fn, void *arg, struct err *err);

#endif
