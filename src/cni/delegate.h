/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another plugin as ours (specification, section 4): "ipam" with a type that is not our own.
 * Threads: one.
 */
#ifndef POPLIN_CNI_DELEGATE_H
#define POPLIN_CNI_DELEGATE_H

#include "cni.h"

/*
 * Runs the plugin of that type, found along CNI_PATH, with the same configuration and environment
 * but CNI_COMMAND. *ret (NULL: not wanted) becomes its result, or NULL, to be released with
 * json_decref(). 0, or the code that it answered, with what it said.
 */
int delegate_run(const struct request *req, const char *type, const char *command, json_t **ret,
		 struct err *err);
/* Reads the result of an ADD, in the form of any version; its dns becomes given->dns. 0 or a code. */
int delegate_read(const json_t *result, struct given *ret, struct err *err);

#endif
