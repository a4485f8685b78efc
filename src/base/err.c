/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/base/err.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* strerror() may share its buffer between threads; this one is constant for known numbers. */
static const char *errno_text(int code)
{
	const char *text = strerrordesc_np(code < 0 ? -code : code);

	return text ? text : "unknown error";
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list args;

	if (!err)
		return code;
	err->code = code;
	va_start(args, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	return code;
}

int err_errno(struct err *err, int code, const char *fmt, ...)
{
	va_list args;
	size_t len;

	if (!err)
		return code;
	err->code = code;
	va_start(args, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	len = strlen(err->text);
	(void)snprintf(err->text + len, sizeof(err->text) - len, ": %s", errno_text(code));
	return code;
}

int err_wrap(struct err *err, int code, const char *fmt, ...)
{
	char inner[ERR_TEXT_MAX];
	va_list args;
	size_t len;

	if (!err)
		return code;
	memcpy(inner, err->text, sizeof(inner));
	err->code = code;
	va_start(args, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	len = strlen(err->text);
	(void)snprintf(err->text + len, sizeof(err->text) - len, ": %s",
		       inner[0] ? inner : errno_text(code));
	return code;
}
