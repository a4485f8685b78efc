/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NAME=value files, as systemd.exec(5) describes EnvironmentFile=. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "poplin/base/buf.h"
#include "poplin/base/envfile.h"
#include "unit.h"

static int collect(const char *name, const char *value, unsigned line, void *arg, struct err *err)
{
	if (strcmp(name, "REFUSED") == 0)
		return err_set(err, -ERANGE, "line %u refused", line);
	return buf_printf(arg, "%u:%s=[%s];", line, name, value);
}

static int parse(const char *text, char *ret, size_t size, struct err *err)
{
	struct buf seen = BUF_INIT;
	char *copy = strdup(text);
	int r = envfile_parse("test.conf", copy, collect, &seen, err);

	snprintf(ret, size, "%s", seen.data ? seen.data : "");
	buf_done(&seen);
	free(copy);
	return r;
}

static void assert_parsed(const char *text, const char *expected)
{
	struct err err = ERR_INIT;
	char seen[512];

	assert_int_equal(parse(text, seen, sizeof(seen), &err), 0);
	assert_string_equal(seen, expected);
}

static void assert_refused(const char *text, int code, const char *message)
{
	struct err err = ERR_INIT;
	char seen[512];

	assert_int_equal(parse(text, seen, sizeof(seen), &err), code);
	assert_string_equal(err.text, message);
}

static void lines_comments_and_blanks(void **state)
{
	assert_parsed("", "");
	assert_parsed("\n# comment\n; comment\n\t \nA=1\n  B = two words \nC=", "5:A=[1];6:B=[two "
										"words];7:C=[];");
	assert_parsed("A=1\r\nB=a=b#c\n", "1:A=[1];2:B=[a=b#c];");
}

static void quotes(void **state)
{
	assert_parsed("A=\" x \"\nB='a\"\\b'\nC=\"say \\\"hi\\\" \\\\\"\nD=\"\"",
		      "1:A=[ x ];2:B=[a\"\\b];3:C=[say \"hi\" \\];4:D=[];");
}

static void bad_lines_are_named(void **state)
{
	assert_refused("A=1\nnonsense\n", -EINVAL,
		       "test.conf:2: expected NAME=value, found 'nonsense'");
	assert_refused("1A=1", -EINVAL, "test.conf:1: '1A' is not a name");
	assert_refused("A B=1", -EINVAL, "test.conf:1: 'A B' is not a name");
	assert_refused("=1", -EINVAL, "test.conf:1: '' is not a name");
	assert_refused("A=\"open", -EINVAL, "test.conf:1: A: quotes do not match");
	assert_refused("A='a' b", -EINVAL, "test.conf:1: A: quotes do not match");
	assert_refused("A=1\nREFUSED=x", -ERANGE, "line 2 refused");
}

static void files_that_cannot_be(void **state)
{
	struct err err = ERR_INIT;

	assert_int_equal(envfile_read("/nonexistent", collect, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent"));
	assert_int_equal(envfile_read("/dev/null", collect, NULL, &err), -EINVAL);
	assert_int_equal(envfile_read("/proc/self/cmdline", collect, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "NUL"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_comments_and_blanks),
		cmocka_unit_test(quotes),
		cmocka_unit_test(bad_lines_are_named),
		cmocka_unit_test(files_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
