/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ownership in the declaration: a local marked auto_* is released when its
 * scope ends, on every path. TAKE() moves the value out and disarms it.
 */
#ifndef POPLIN_BASE_MEM_H
#define POPLIN_BASE_MEM_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define countof(array) (sizeof(array) / sizeof((array)[0]))

#define TAKE(ptr)                                                                                  \
	({                                                                                         \
		__typeof__(ptr) take_ = (ptr);                                                     \
		(ptr) = NULL;                                                                      \
		take_;                                                                             \
	})

#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int take_ = (fd);                                                                  \
		(fd) = -1;                                                                         \
		take_;                                                                             \
	})

/* Defines type_func_cleanup() for use with auto_(func): DEFINE_AUTO(struct netlink *,
 * netlink_close). */
#define DEFINE_AUTO(type, func)                                                                    \
	static inline void func##_cleanup(type *ptr)                                               \
	{                                                                                          \
		if (*ptr)                                                                          \
			func(*ptr);                                                                \
	}
#define auto_(func) __attribute__((cleanup(func##_cleanup)))

static inline void mem_free_cleanup(void *ptr)
{
	free(*(void **)ptr);
}
#define auto_free __attribute__((cleanup(mem_free_cleanup)))

static inline void mem_close_cleanup(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define auto_close __attribute__((cleanup(mem_close_cleanup)))

DEFINE_AUTO(FILE *, fclose)

#endif
