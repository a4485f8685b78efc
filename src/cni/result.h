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
};

/* Writes it to standard output. -EIO, -ENOMEM. */
int result_print(const struct result *result, struct err *err);
/* Whether a previous result has this address at this interface in this sandbox. */
bool result_has_address(const json_t *previous, const char *interface, const char *sandbox,
			const struct prefix *address);

#endif
