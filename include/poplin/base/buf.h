/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A byte buffer that grows; always NUL-terminated once anything was added. Threads: one owner. */
#ifndef POPLIN_BASE_BUF_H
#define POPLIN_BASE_BUF_H

#include <stddef.h>

struct buf {
	char *data; /* NULL while empty and never grown */
	size_t len; /* without the NUL */
	size_t size;
};

#define BUF_INIT ((struct buf){ .data = NULL, .len = 0, .size = 0 })

void buf_done(struct buf *b);  /* frees; the buffer is empty and usable afterwards */
void buf_wipe(struct buf *b);  /* the same, of a secret */
void buf_reset(struct buf *b); /* empties, keeps the memory */
/* Return 0 or -ENOMEM; on failure the content is as before. */
int buf_add(struct buf *b, const void *data, size_t len);
int buf_adds(struct buf *b, const char *string);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline void buf_done_cleanup(struct buf *b)
{
	buf_done(b);
}
#define auto_buf __attribute__((cleanup(buf_done_cleanup)))

static inline void buf_wipe_cleanup(struct buf *b)
{
	buf_wipe(b);
}
#define auto_secret __attribute__((cleanup(buf_wipe_cleanup)))

#endif
