/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "splitter.h"

#include <ctype.h>
#include <errno.h>

/* Of memory that a long message needed; the stream may live for months. */
#define KEEP_BYTES 65536

/* Follows one character. True: it closed the object. */
static bool follow(struct splitter *s, char c)
{
	if (s->escaped) {
		s->escaped = false;
	} else if (s->in_string) {
		s->escaped = c == '\\';
		s->in_string = c != '"';
	} else if (c == '"') {
		s->in_string = true;
	} else if (c == '{' || c == '[') {
		s->depth++;
	} else if (c == '}' || c == ']') {
		return --s->depth == 0;
	}
	return false;
}

static int keep(struct splitter *s, const char *data, size_t len, struct err *err)
{
	if (len > s->max - s->object.len)
		return err_set(err, -EFBIG, "a message of the stream is longer than %zu bytes",
			       s->max);
	if (buf_add(&s->object, data, len) < 0)
		return err_errno(err, -ENOMEM, "stream");
	return 0;
}

int splitter_feed(struct splitter *s, const char *data, size_t len, struct err *err)
{
	size_t start = 0;
	int r;

	for (size_t i = 0; i < len; i++) {
		if (s->depth == 0) {
			start = i;
			if (isspace((unsigned char)data[i]))
				continue;
			if (data[i] != '{')
				return err_set(err, -EPROTO,
					       "the stream holds something else than objects");
		}
		if (!follow(s, data[i]))
			continue;
		r = keep(s, data + start, i + 1 - start, err);
		if (r == 0)
			r = s->on_object(s->object.data, s->object.len, s->arg, err);
		if (s->object.size > KEEP_BYTES)
			buf_done(&s->object);
		else
			buf_reset(&s->object);
		if (r < 0)
			return r;
	}
	return s->depth ? keep(s, data + start, len - start, err) : 0;
}

void splitter_done(struct splitter *s)
{
	buf_done(&s->object);
}
