/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_done(struct buf *b)
{
	free(b->data);
	*b = BUF_INIT;
}

void buf_wipe(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->size);
	buf_done(b);
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

/* Room for `more` bytes and a NUL; doubling keeps many small additions linear in total. */
static int reserve(struct buf *b, size_t more)
{
	size_t size = b->size ? b->size : 64;
	char *data;

	if (more >= SIZE_MAX / 2 - b->len)
		return -ENOMEM;
	if (b->len + more + 1 <= b->size)
		return 0;
	while (size < b->len + more + 1)
		size *= 2;
	data = realloc(b->data, size);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->size = size;
	return 0;
}

int buf_add(struct buf *b, const void *data, size_t len)
{
	int r = reserve(b, len);

	if (r < 0)
		return r;
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

int buf_adds(struct buf *b, const char *string)
{
	return buf_add(b, string, strlen(string));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list args;
	int len, r;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len < 0)
		return -ENOMEM;
	r = reserve(b, (size_t)len);
	if (r < 0)
		return r;
	va_start(args, fmt);
	(void)vsnprintf(b->data + b->len, (size_t)len + 1, fmt, args);
	va_end(args);
	b->len += (size_t)len;
	return 0;
}
