/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors with a story.
 *
 * A function that can fail returns 0 (or a count) or a negative errno; where a
 * person will need to know more it takes a `struct err *` last. The caller owns
 * it, the text is fixed in size and nothing is allocated, so an error can be
 * told even when memory is gone. NULL is accepted everywhere and means "I only
 * want the code".
 *
 * Threads: a struct err belongs to one thread at a time.
 */
#ifndef POPLIN_BASE_ERR_H
#define POPLIN_BASE_ERR_H

#define ERR_TEXT_MAX 512

struct err {
	int code; /* negative errno, or 0 while nothing failed */
	char text[ERR_TEXT_MAX];
};

#define ERR_INIT ((struct err){ .code = 0, .text = "" })

/* Sets the text from fmt alone. Returns code. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Sets the text to "<fmt>: <strerror(-code)>". Returns code. */
int err_errno(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "<fmt>: " before the text that a callee left. Returns code. */
int err_wrap(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
