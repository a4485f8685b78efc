/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stands in for libhttp: whatever is asked, the next piece of the fuzzer's input is the answer. So
 * every reader of the store is reached by the calls that the agent makes, and needs no door of its
 * own for the fuzzer.
 *
 * An answer ends with a NUL byte or the input. Its first byte is the status if it is one of
 * fake_status[] in fake_http.c, '0' for 200 and so on; any other byte belongs to an answer of 200.
 * When there is no more, the connection is cut off.
 *
 * Threads: one.
 */
#ifndef POPLIN_TESTS_FAKE_HTTP_H
#define POPLIN_TESTS_FAKE_HTTP_H

#include <stddef.h>
#include <stdint.h>

/* The answers to come; streams are handed over in pieces of this many bytes. */
void fake_http_set(const uint8_t *data, size_t len, size_t piece);

#endif
