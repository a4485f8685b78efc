/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "resolvConf": a file like resolv.conf(5), as the dns of a result. Threads: one. */
#ifndef POPLIN_CNI_RESOLV_H
#define POPLIN_CNI_RESOLV_H

#include <jansson.h>

#include "poplin/base/err.h"

/* *ret is to be released with json_decref(). 0 or a code. */
int resolv_read(const char *path, json_t **ret, struct err *err);

#endif
