/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SHA-256 (libmd) of a few strings, as hexadecimal digits, for names derived from other names. */
#ifndef POPLIN_BASE_HASH_H
#define POPLIN_BASE_HASH_H

#include <stddef.h>

/*
 * Writes the first size - 1 hexadecimal digits (at most 64) and a NUL to ret. The strings are told
 * apart: ("ab","c") and ("a","bc") differ. The list ends with NULL.
 */
void hash_hex(char *ret, size_t size, ...) __attribute__((sentinel));

#endif
