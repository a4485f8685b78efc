/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Log lines: escaping, pairs that values cannot forge, JSON, rate limit. */
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "poplin/base/buf.h"
#include "poplin/base/log.h"
#include "unit.h"

static int saved_stderr, pipe_read;

/* Standard error goes into a pipe; read_lines() gives back what was written. */
static int capture(void **state)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	saved_stderr = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	pipe_read = fds[0];
	log_set_format(LOG_TEXT);
	log_set_level(LOG_INFO);
	return 0;
}

static int release(void **state)
{
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(pipe_read);
	return 0;
}

static const char *read_lines(void)
{
	static char text[16384];
	ssize_t n = read(pipe_read, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* The line behind the time stamp. */
static const char *read_tail(void)
{
	const char *line = read_lines();

	assert_true(strlen(line) > 25);
	assert_int_equal(line[23], 'Z');
	return line + 25;
}

static void pairs_are_written_and_quoted_where_needed(void **state)
{
	log_info("route installed" KV("prefix", "%s") KV("tries", "%d") KV("empty", "%s"),
		 "10.2.1.0/24", 3, "");
	assert_string_equal(read_tail(),
			    "info main: route installed prefix=10.2.1.0/24 tries=3 empty=\"\"\n");
	log_warn("a" KV("error", "%s"), "no \"such\" thing\\ here");
	assert_string_equal(read_tail(), "warn main: a error=\"no \\\"such\\\" thing\\\\ here\"\n");
}

static void a_value_cannot_forge_a_line_or_a_pair(void **state)
{
	const char *evil = "x\n2026 error main: pwned \x1fkey\x1eother\x1b[31m";

	log_info("peer" KV("node", "%s") KV("last", "%s"), evil, "y");
	assert_string_equal(read_tail(), "info main: peer node=\"x\\n2026 error main: pwned "
					 "\\u001fkey\\u001eother\\u001b[31m\" last=y\n");
	log_info("%s", evil);
	assert_null(strchr(read_tail(), '\x1b'));
}

static void json_lines_are_json_whatever_the_value(void **state)
{
	char value[257];
	json_t *line;

	for (int i = 0; i < 256; i++)
		value[i] = (char)(i ? i : 1);
	value[256] = '\0';
	log_set_format(LOG_JSON);
	log_info("hello" KV("all", "%s") KV("n", "%d") KV("z", "%zu") KV("s", "%s"), value, 5,
		 (size_t)6, "7");
	line = json_loads(read_lines(), 0, NULL);
	assert_non_null(line);
	assert_string_equal(json_string_value(json_object_get(line, "msg")), "hello");
	assert_string_equal(json_string_value(json_object_get(line, "level")), "info");
	assert_int_equal(json_integer_value(json_object_get(line, "n")), 5);
	assert_int_equal(json_integer_value(json_object_get(line, "z")), 6);
	assert_string_equal(json_string_value(json_object_get(line, "s")), "7");
	assert_non_null(json_object_get(line, "all"));
	json_decref(line);
}

static void a_line_too_long_is_cut_but_stays_a_line(void **state)
{
	char *value = malloc(10000);
	const char *line_text;
	json_t *line;

	assert_non_null(value);
	memset(value, '\n', 9999);
	value[9999] = '\0';
	log_info("long" KV("value", "%s"), value);
	line_text = read_tail();
	assert_int_equal(strcspn(line_text, "\n") + 1, strlen(line_text));
	log_set_format(LOG_JSON);
	log_info("long" KV("value", "%s") KV("next", "%s"), value, "x");
	line = json_loads(read_lines(), 0, NULL);
	assert_non_null(line);
	json_decref(line);
	/* Half of a number would be another number. */
	memset(value, 'x', 9999);
	for (int len = 3950; len < 4100; len++) { /* around the end of a line */
		const json_t *n;

		log_info("%.*s" KV("n", "%d"), len, value, 1234567);
		line = json_loads(read_lines(), 0, NULL);
		n = json_object_get(line, "n");
		assert_true(line && (!json_is_integer(n) || json_integer_value(n) == 1234567));
		json_decref(line);
	}
	free(value);
}

static void levels_hide_what_is_below(void **state)
{
	enum log_level level;

	log_debug("hidden");
	assert_string_equal(read_lines(), "");
	log_set_level(LOG_DEBUG);
	log_debug("seen");
	assert_string_equal(read_tail(), "debug main: seen\n");
	assert_true(log_level_parse("WARN", &level));
	assert_int_equal(level, LOG_WARN);
	assert_false(log_level_parse("loud", &level));
}

static void a_limited_line_comes_once_and_counts_the_others(void **state)
{
	struct log_limit limit = { .next_ms = 0 };
	unsigned suppressed = 99;

	assert_true(log_limit_pass(&limit, &suppressed));
	assert_int_equal(suppressed, 0);
	assert_false(log_limit_pass(&limit, &suppressed));
	assert_false(log_limit_pass(&limit, &suppressed));
	limit.next_ms = 0;
	assert_true(log_limit_pass(&limit, &suppressed));
	assert_int_equal(suppressed, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, capture, release)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pairs_are_written_and_quoted_where_needed),
		TEST(a_value_cannot_forge_a_line_or_a_pair),
		TEST(json_lines_are_json_whatever_the_value),
		TEST(a_line_too_long_is_cut_but_stays_a_line),
		TEST(levels_hide_what_is_below),
		TEST(a_limited_line_comes_once_and_counts_the_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
