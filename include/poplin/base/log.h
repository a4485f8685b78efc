/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Log lines: a constant message and key=value pairs, to standard error.
 *
 *	log_info("route installed" KV("prefix", "%s") KV("via", "%s"), prefix, via);
 *
 * KV() is pasted into the format string, so the compiler still checks every
 * argument; the two control characters it uses let the writer tell the pairs
 * apart again, for JSON and for quoting. Values are escaped: what stands in
 * etcd cannot forge a line.
 *
 * Layers below the programs log at debug only. A swallowed error says
 * ", ignoring". Threads: any; a line is written by one write(2).
 */
#ifndef POPLIN_BASE_LOG_H
#define POPLIN_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

#define KV(key, fmt) "\x1f" key "\x1e" fmt

/* Takes effect at once, for all threads. */
void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
bool log_enabled(enum log_level level);

const char *log_level_name(enum log_level level);
/* Return false and leave *ret alone when the name is unknown. */
bool log_level_parse(const char *name, enum log_level *ret);
bool log_format_parse(const char *name, enum log_format *ret);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_at(level, ...)                                                                         \
	do {                                                                                       \
		if (log_enabled(level))                                                            \
			log_write(level, __VA_ARGS__);                                             \
	} while (0)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

/* One line per call site and LOG_LIMIT_MS; the next one says how many were left out. */
#define LOG_LIMIT_MS 10000
struct log_limit {
	_Atomic int64_t next_ms;
	_Atomic unsigned suppressed;
};
bool log_limit_pass(struct log_limit *limit, unsigned *ret_suppressed);

#define log_limited(level, fmt, ...)                                                               \
	do {                                                                                       \
		static struct log_limit limit_;                                                    \
		unsigned suppressed_;                                                              \
		if (log_enabled(level) && log_limit_pass(&limit_, &suppressed_))                   \
			log_write(level, fmt KV("suppressed", "%u"), ##__VA_ARGS__, suppressed_);  \
	} while (0)

#endif
