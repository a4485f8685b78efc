/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format string is the message, then for each KV() a unit separator, the key, a record
 * separator and the value's format. All of it goes through one vsnprintf(), and a value may hold
 * separators itself (it may come from etcd). So each unit separator of the format is followed by a
 * mark drawn at random at the first line: only a separator with the mark behind it begins a pair.
 */
#include "poplin/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "poplin/base/clock.h"
#include "poplin/base/mem.h"
#include "poplin/base/thread.h"

#define LINE_MAX_BYTES 4096

static _Atomic enum log_level current_level = LOG_INFO;
static _Atomic enum log_format current_format = LOG_TEXT;

static const char *const level_names[] = {
	[LOG_ERROR] = "error",
	[LOG_WARN] = "warn",
	[LOG_INFO] = "info",
	[LOG_DEBUG] = "debug",
};
static const char *const format_names[] = { [LOG_TEXT] = "text", [LOG_JSON] = "json" };

void log_set_level(enum log_level level)
{
	current_level = level;
}

void log_set_format(enum log_format format)
{
	current_format = format;
}

bool log_enabled(enum log_level level)
{
	return level <= current_level;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

bool log_level_parse(const char *name, enum log_level *ret)
{
	for (size_t i = 0; i < countof(level_names); i++) {
		if (strcasecmp(name, level_names[i]) != 0)
			continue;
		*ret = (enum log_level)i;
		return true;
	}
	return false;
}

bool log_format_parse(const char *name, enum log_format *ret)
{
	for (size_t i = 0; i < countof(format_names); i++) {
		if (strcasecmp(name, format_names[i]) != 0)
			continue;
		*ret = (enum log_format)i;
		return true;
	}
	return false;
}

/* -- one line --------------------------------------------------------------- */

struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
};

/* Room is kept for what closes the line: a quote, a brace, a newline. */
static void put(struct line *l, const char *text, size_t len)
{
	size_t room = sizeof(l->text) - 4 - l->len;

	if (len > room)
		return;
	memcpy(l->text + l->len, text, len);
	l->len += len;
}

static void puts_(struct line *l, const char *text)
{
	put(l, text, strlen(text));
}

static void close_with(struct line *l, const char *text)
{
	size_t len = strlen(text);

	memcpy(l->text + l->len, text, len);
	l->len += len;
}

/*
 * One character, escaped as JSON does it. Bytes above 127 pass in text; what is not
 * UTF-8 would spoil a JSON line, so there they are told as \u00XX.
 */
static void put_escaped(struct line *l, unsigned char c, bool json)
{
	char text[8];
	int n;

	if (c == '"' || c == '\\')
		n = snprintf(text, sizeof(text), "\\%c", c);
	else if (c == '\n')
		n = snprintf(text, sizeof(text), "\\n");
	else if (c < 0x20 || c == 0x7f || (json && c > 0x7f))
		n = snprintf(text, sizeof(text), "\\u%04x", c);
	else
		n = snprintf(text, sizeof(text), "%c", c);
	if (n > 0)
		put(l, text, (size_t)n);
}

static void put_quoted(struct line *l, const char *text, size_t len, bool json)
{
	/* A value that does not fit is cut before its quote, never in the middle of an escape. */
	puts_(l, "\"");
	for (size_t i = 0; i < len && l->len + 16 < sizeof(l->text); i++)
		put_escaped(l, (unsigned char)text[i], json);
	puts_(l, "\"");
}

static bool is_plain(const char *text, size_t len)
{
	if (len == 0)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
			return false;
	}
	return true;
}

static void put_pair(struct line *l, const char *key, size_t key_len, const char *value,
		     size_t value_len, bool number, bool json)
{
	if (l->len + key_len + 24 > sizeof(l->text))
		return;
	if (json) {
		puts_(l, ",\"");
		put(l, key, key_len);
		puts_(l, "\":");
		if (number)
			put(l, value, value_len);
		else
			put_quoted(l, value, value_len, true);
		return;
	}
	puts_(l, " ");
	put(l, key, key_len);
	puts_(l, "=");
	if (is_plain(value, value_len) && l->len + value_len + 8 < sizeof(l->text))
		put(l, value, value_len);
	else
		put_quoted(l, value, value_len, false);
}

static void put_head(struct line *l, enum log_level level, const char *msg, size_t msg_len,
		     bool json)
{
	char stamp[64], zone[40];
	int64_t now = clock_real_ns();
	time_t seconds = (time_t)(now / NS_PER_S);
	struct tm tm;

	(void)gmtime_r(&seconds, &tm);
	(void)strftime(zone, sizeof(zone), "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(stamp, sizeof(stamp), "%s.%03dZ", zone, (int)(now / NS_PER_MS % 1000));
	if (json) {
		puts_(l, "{\"time\":\"");
		puts_(l, stamp);
		puts_(l, "\",\"level\":\"");
		puts_(l, level_names[level]);
		puts_(l, "\",\"thread\":");
		put_quoted(l, thread_name(), strlen(thread_name()), true);
		puts_(l, ",\"msg\":");
		put_quoted(l, msg, msg_len, true);
		return;
	}
	puts_(l, stamp);
	puts_(l, " ");
	puts_(l, level_names[level]);
	puts_(l, " ");
	puts_(l, thread_name());
	puts_(l, ": ");
	for (size_t i = 0; i < msg_len && l->len + 16 < sizeof(l->text); i++) {
		if (msg[i] == '"' || msg[i] == '\\')
			put(l, &msg[i], 1);
		else
			put_escaped(l, (unsigned char)msg[i], false);
	}
}

/* -- the format and its separators ------------------------------------------ */

#define MARK_LEN 8
#define NUMBER	 "\x1d"
static char mark[1 + MARK_LEN + 1]; /* a unit separator, then the digits */
static pthread_once_t mark_once = PTHREAD_ONCE_INIT;

static void draw_mark(void)
{
	(void)snprintf(mark, sizeof(mark), "\x1f%08x", arc4random());
}

/* Whether a value is printed as a decimal integer, and so is a number in JSON. */
static bool is_number(const char *fmt)
{
	if (*fmt++ != '%')
		return false;
	fmt += strspn(fmt, "hljzt");
	return strchr("diu", *fmt) && (fmt[1] == '\0' || fmt[1] == '\x1f');
}

/*
 * Copies fmt with a mark in place of each unit separator, and another separator before a number.
 * False: too long.
 */
static bool mark_format(char *to, size_t size, const char *fmt)
{
	size_t len = 0;

	for (; *fmt; fmt++) {
		size_t need = *fmt == '\x1f' ? sizeof(mark) - 1 : 1;

		if (len + need + 1 > size)
			return false;
		memcpy(to + len, *fmt == '\x1f' ? mark : fmt, need);
		if (*fmt == '\x1e' && is_number(fmt + 1))
			to[len] = NUMBER[0];
		len += need;
	}
	to[len] = '\0';
	return true;
}

/* cut: what the text ends with is not whole. */
static void format_line(struct line *l, enum log_level level, const char *text, bool cut)
{
	bool json = current_format == LOG_JSON;
	const char *end = strstr(text, mark);
	size_t len = end ? (size_t)(end - text) : strlen(text);

	put_head(l, level, text, len, json);
	while (end) {
		const char *key = end + sizeof(mark) - 1;
		const char *value = strpbrk(key, NUMBER "\x1e");

		if (!value) /* the text was cut off */
			break;
		end = strstr(value, mark);
		len = end ? (size_t)(end - value - 1) : strlen(value + 1);
		put_pair(l, key, (size_t)(value - key), value + 1, len,
			 *value == NUMBER[0] && (end || !cut), json);
	}
	close_with(l, json ? "}\n" : "\n");
}

void log_write(enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	char marked[1024], text[LINE_MAX_BYTES];
	struct line line = { .len = 0 };
	va_list args;
	ssize_t n;
	int len;

	(void)pthread_once(&mark_once, draw_mark);
	if (!mark_format(marked, sizeof(marked), fmt))
		return;
	va_start(args, fmt);
/* The compiler checked fmt against the arguments in the caller; the copy asks for the same. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	len = vsnprintf(text, sizeof(text), marked, args);
#pragma GCC diagnostic pop
	va_end(args);
	format_line(&line, level, text, len >= (int)sizeof(text));
	/* There is nowhere to tell that telling failed. */
	do
		n = write(STDERR_FILENO, line.text, line.len);
	while (n < 0 && errno == EINTR);
	errno = saved;
}

bool log_limit_pass(struct log_limit *limit, unsigned *ret_suppressed)
{
	int64_t now = clock_ns() / NS_PER_MS;
	int64_t next = limit->next_ms;

	if (now < next ||
	    !atomic_compare_exchange_strong(&limit->next_ms, &next, now + LOG_LIMIT_MS)) {
		limit->suppressed++;
		return false;
	}
	*ret_suppressed = atomic_exchange(&limit->suppressed, 0);
	return true;
}
