/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The result of ADD (specification, section 5, and its form before 1.0.0). Threads: one. */
#ifndef POPLIN_CNI_RESULT_H
#define POPLIN_CNI_RESULT_H

#include "cni.h"
#include "poplin/nl/link.h"

struct result {
	enum cni_version version;
	const struct link *bridge, *host, *pod;
	const char *sandbox;
	const struct given *given;
	const json_t *dns;	/* of the configuration; may be NULL */
	const json_t *previous; /* "prevResult"; may be NULL */
};

/* Writes it to standard output. -EIO, -ENOMEM. */
int result_print(const struct result *result, struct err *err);

#endif
