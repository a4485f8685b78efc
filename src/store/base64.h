/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Base64 (RFC 4648, section 4), in which etcd's gateway tells keys and values. Threads: any. */
#ifndef POPLIN_STORE_BASE64_H
#define POPLIN_STORE_BASE64_H

#include <stddef.h>

#include "poplin/base/buf.h"

/* Appends to ret. -ENOMEM. */
int base64_encode(const void *data, size_t len, struct buf *ret);
/* Appends to ret. -EINVAL: not Base64, padding included; nothing is appended then. -ENOMEM. */
int base64_decode(const char *text, struct buf *ret);

#endif
