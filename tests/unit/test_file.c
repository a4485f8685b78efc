/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole files: atomic writes, comparisons, folders. */
#include <errno.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "poplin/base/file.h"
#include "unit.h"

static bool folders_fail; /* to be synced */

/* In place of the C library's. */
int fsync(int fd)
{
	struct stat st;

	if (folders_fail && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		errno = EIO;
		return -1;
	}
	return fdatasync(fd);
}

static char dir[] = "/tmp/poplin-test-XXXXXX";

static int make_dir(void **state)
{
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	return file_remove_tree(dir, NULL);
}

static const char *in_dir(const char *name)
{
	static char path[2][PATH_MAX];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

static int count_entries(void)
{
	DIR *d = opendir(dir);
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void a_write_replaces_content_and_mode_and_leaves_nothing_aside(void **state)
{
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	assert_int_equal(file_write_atomic(in_dir("f"), 0600, "one", 3, &err), 0);
	assert_true(file_matches(in_dir("f"), 0600, "one", 3));
	assert_false(file_matches(in_dir("f"), 0644, "one", 3));
	assert_false(file_matches(in_dir("f"), 0600, "two", 3));
	assert_int_equal(file_write_atomic(in_dir("f"), 0755, "", 0, &err), 0);
	assert_true(file_matches(in_dir("f"), 0755, "", 0));
	assert_int_equal(file_write_atomic(in_dir("f"), 0600, "a\0b", 3, &err), 0);
	assert_int_equal(file_read(in_dir("f"), 3, &b, &err), 0);
	assert_int_equal(b.len, 3);
	assert_int_equal(file_read(in_dir("f"), 2, &b, &err), -EFBIG);
	assert_int_equal(count_entries(), 1);
	buf_done(&b);
}

static void a_failed_write_leaves_the_old_file_and_nothing_aside(void **state)
{
	struct err err = ERR_INIT;

	assert_int_equal(mkdir(in_dir("taken"), 0755), 0);
	assert_int_equal(file_write_atomic(in_dir("taken"), 0600, "x", 1, &err), -EISDIR);
	assert_non_null(strstr(err.text, "rename"));
	assert_int_equal(count_entries(), 1);
	assert_int_equal(file_write_atomic(in_dir("no/f"), 0600, "x", 1, &err), -ENOENT);
}

/* Whoever was told that it failed would go on as if the old one stood there. */
static void a_folder_that_cannot_be_synced_does_not_make_a_write_fail(void **state)
{
	struct err err = ERR_INIT;
	int r;

	assert_int_equal(file_write_atomic(in_dir("f"), 0600, "old", 3, &err), 0);
	folders_fail = true;
	r = file_write_atomic(in_dir("f"), 0600, "new", 3, &err);
	folders_fail = false;
	assert_int_equal(r, 0);
	assert_true(file_matches(in_dir("f"), 0600, "new", 3));
	assert_int_equal(count_entries(), 1);
}

static void what_a_killed_writer_left_is_in_nobodys_way(void **state)
{
	struct err err = ERR_INIT;

	assert_int_equal(file_write_atomic(in_dir(".f.tmp"), 0400, "half", 4, &err), 0);
	assert_int_equal(file_write_atomic(in_dir("f"), 0600, "whole", 5, &err), 0);
	assert_true(file_matches(in_dir("f"), 0600, "whole", 5));
	assert_int_equal(count_entries(), 1);
	assert_int_equal(file_write_atomic(in_dir(".f.tmp"), 0400, "half", 4, &err), 0);
	assert_int_equal(file_remove(in_dir("f"), &err), 0);
	assert_int_equal(count_entries(), 0);
}

static void copies_and_comparisons(void **state)
{
	struct err err = ERR_INIT;

	assert_int_equal(file_write_atomic(in_dir("a"), 0600, "same", 4, &err), 0);
	assert_false(file_same(in_dir("a"), in_dir("b"), 0700));
	assert_int_equal(file_copy_atomic(in_dir("a"), in_dir("b"), 0700, &err), 0);
	assert_true(file_same(in_dir("a"), in_dir("b"), 0700));
	assert_false(file_same(in_dir("a"), in_dir("b"), 0755));
	/* A link to the right content is not the file that was asked for. */
	assert_int_equal(symlink(in_dir("b"), in_dir("link")), 0);
	assert_false(file_same(in_dir("a"), in_dir("link"), 0700));
	assert_int_equal(file_copy_atomic(in_dir("none"), in_dir("c"), 0700, &err), -ENOENT);
}

/* The plugin is larger than what is read at once. */
static void large_files_are_copied_and_compared_to_their_last_byte(void **state)
{
	static char bytes[100001];
	struct err err = ERR_INIT;

	memset(bytes, 'x', sizeof(bytes));
	assert_int_equal(file_write_atomic(in_dir("a"), 0600, bytes, sizeof(bytes), &err), 0);
	assert_int_equal(file_copy_atomic(in_dir("a"), in_dir("b"), 0700, &err), 0);
	assert_true(file_matches(in_dir("b"), 0700, bytes, sizeof(bytes)));
	assert_true(file_same(in_dir("a"), in_dir("b"), 0700));
	bytes[sizeof(bytes) - 1]++;
	assert_int_equal(file_write_atomic(in_dir("b"), 0700, bytes, sizeof(bytes), &err), 0);
	assert_false(file_same(in_dir("a"), in_dir("b"), 0700));
	assert_int_equal(file_write_atomic(in_dir("b"), 0700, bytes, sizeof(bytes) - 1, &err), 0);
	assert_false(file_same(in_dir("a"), in_dir("b"), 0700));
}

static void special_files_are_refused_and_never_waited_for(void **state)
{
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	assert_int_equal(file_read(in_dir("fifo"), 10, &b, &err), -EINVAL);
	assert_int_equal(file_read(dir, 10, &b, &err), -EINVAL);
	buf_done(&b);
}

static void folders(void **state)
{
	struct err err = ERR_INIT;

	assert_int_equal(file_make_dirs(in_dir("x//y/z/"), &err), 0);
	assert_int_equal(file_make_dirs(in_dir("x/y/z"), &err), 0);
	assert_int_equal(file_make_parent(in_dir("p/q"), &err), 0);
	assert_int_equal(file_write_atomic(in_dir("p/q"), 0600, "", 0, &err), 0);
	assert_int_equal(file_make_dirs(in_dir("p/q"), &err), -ENOTDIR);
	assert_int_equal(file_make_dirs(in_dir("p/q/r"), &err), -ENOTDIR);
}

static void a_removed_tree_takes_no_link_with_it(void **state)
{
	struct err err = ERR_INIT;
	char target[PATH_MAX];

	assert_int_equal(file_make_dirs(in_dir("out"), &err), 0);
	assert_int_equal(file_write_atomic(in_dir("out/kept"), 0600, "", 0, &err), 0);
	assert_int_equal(file_make_dirs(in_dir("t/a/b"), &err), 0);
	snprintf(target, sizeof(target), "%s", in_dir("out"));
	assert_int_equal(symlink(target, in_dir("t/a/link")), 0);
	assert_int_equal(file_remove_tree(in_dir("t"), &err), 0);
	assert_int_equal(access(in_dir("t"), F_OK), -1);
	assert_int_equal(access(in_dir("out/kept"), F_OK), 0);
	assert_int_equal(file_remove_tree(in_dir("t"), &err), 0);
	assert_int_equal(file_remove(in_dir("t"), &err), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_write_replaces_content_and_mode_and_leaves_nothing_aside),
		TEST(a_failed_write_leaves_the_old_file_and_nothing_aside),
		TEST(a_folder_that_cannot_be_synced_does_not_make_a_write_fail),
		TEST(what_a_killed_writer_left_is_in_nobodys_way),
		TEST(copies_and_comparisons),
		TEST(large_files_are_copied_and_compared_to_their_last_byte),
		TEST(special_files_are_refused_and_never_waited_for),
		TEST(folders),
		TEST(a_removed_tree_takes_no_link_with_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
