/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base64.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/mem.h"

int base64_encode(const void *data, size_t len, struct buf *ret)
{
	size_t size = (len + 2) / 3 * 4 + 1;
	auto_free char *text = malloc(size);
	int n;

	if (!text)
		return -ENOMEM;
	n = b64_ntop(data, len, text, size);
	return n < 0 ? -ENOMEM : buf_add(ret, text, (size_t)n);
}

/* The C library's decoder passes over blanks, which have no place here. */
int base64_decode(const char *text, struct buf *ret)
{
	size_t len = strlen(text), size = len / 4 * 3 + 3;
	auto_free unsigned char *data = malloc(size);
	int n;

	if (!data)
		return -ENOMEM;
	if (len % 4)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (isspace((unsigned char)text[i]))
			return -EINVAL;
	n = b64_pton(text, data, size);
	return n < 0 ? -EINVAL : buf_add(ret, data, (size_t)n);
}
