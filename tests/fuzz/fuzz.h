/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the fuzzers share. Threads: one. */
#ifndef POPLIN_TESTS_FUZZ_H
#define POPLIN_TESTS_FUZZ_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Holds in every build, unlike assert(). */
#define MUST(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* A failure has a code that stands in store.h, and a text. */
static inline void check_failure(int r, const struct err *err)
{
	MUST(r <= 0);
	if (r == 0)
		return;
	MUST(err->text[0] && err->code == r);
	MUST(r != -EKEYEXPIRED && r != -ENOKEY && r != -EXDEV && r != -ERESTART);
}

static inline struct store *fuzz_store(const struct store_access *access)
{
	const struct store_config config = {
		.access = *access,
		.prefix = "/poplin/nodes",
		.counter_key = "/poplin/counter",
	};
	struct store *s = NULL;

	MUST(store_open(&s, &config, NULL) == 0);
	return s;
}

#endif
