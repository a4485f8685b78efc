/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cuts a stream into its JSON objects. The gateway writes one object after the other, with or
 * without a newline in between, and TCP cuts them anywhere. Only nesting and strings are followed
 * here; what stands between the outer braces is for the JSON parser to judge.
 *
 * Threads: one owner.
 */
#ifndef POPLIN_STORE_SPLITTER_H
#define POPLIN_STORE_SPLITTER_H

#include <stdbool.h>
#include <stddef.h>

#include "poplin/base/buf.h"
#include "poplin/base/err.h"

struct splitter {
	size_t max; /* bytes of one object */
	/*
	 * Called with each object, NUL-terminated; a negative return ends the feed and is returned.
	 */
	int (*on_object)(const char *text, size_t len, void *arg, struct err *err);
	void *arg;

	struct buf object; /* what there is of it so far */
	unsigned depth;
	bool in_string, escaped;
};

#define SPLITTER_INIT(max_, fn, arg_)                                                              \
	((struct splitter){ .max = (max_), .on_object = (fn), .arg = (arg_) })

/* -EPROTO: something else than an object; -EFBIG: an object is too long; -ENOMEM. */
int splitter_feed(struct splitter *s, const char *data, size_t len, struct err *err);
void splitter_done(struct splitter *s);

#endif
