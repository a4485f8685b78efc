/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the plugin did: every record is counted once, and nothing makes anybody wait or fail. */
#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "poplin/base/clock.h"
#include "poplin/base/file.h"
#include "poplin/base/mem.h"
#include "poplin/model/podlog.h"

static char dir[64], path[96];

static int setup(void **state)
{
	strcpy(dir, "/tmp/poplin-podlog-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/" PODLOG_FILE, dir);
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(file_remove_tree(dir, NULL), 0);
	return 0;
}

struct seen {
	unsigned count, failed, of[PODLOG_COMMANDS];
	int64_t sum_ns;
};

static void see(const struct podlog_entry *entry, void *arg)
{
	struct seen *seen = arg;

	seen->count++;
	seen->failed += entry->failed;
	seen->of[entry->command]++;
	seen->sum_ns += entry->duration_ns;
}

static struct seen read_all(struct podlog *log)
{
	struct seen seen = { .count = 0 };

	podlog_read(log, see, &seen);
	return seen;
}

static void append(enum podlog_command command, bool failed, int64_t duration_ns)
{
	podlog_append(dir, &(struct podlog_entry){ command, failed, duration_ns });
}

static void append_raw(const void *bytes, size_t len)
{
	auto_close int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, bytes, len), len);
}

static void test_each_is_read_once(void **state)
{
	struct podlog log;
	struct seen seen;

	podlog_init(&log, dir);
	assert_int_equal(read_all(&log).count, 0);
	for (int i = 0; i < 2000; i++) /* more than are read at a time */
		append(PODLOG_ADD, false, NS_PER_MS);
	append(PODLOG_DEL, true, 3 * NS_PER_MS + 400);
	seen = read_all(&log);
	assert_int_equal(seen.count, 2001);
	assert_int_equal(seen.of[PODLOG_ADD], 2000);
	assert_int_equal(seen.failed, 1);
	assert_int_equal(seen.sum_ns, 2003 * NS_PER_MS);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(read_all(&log).count, 0);
	append(PODLOG_GC, false, -5);
	append(PODLOG_STATUS, false, INT64_MAX);
	seen = read_all(&log);
	assert_int_equal(seen.count, 2);
	assert_int_equal(seen.sum_ns, UINT32_MAX * (NS_PER_MS / 1000));
	podlog_done(&log);
}

/* A plugin that opened the file before the agent unlinked it. */
static void test_a_late_record_is_read(void **state)
{
	struct podlog log;
	char record[8];
	int late;

	podlog_init(&log, dir);
	append(PODLOG_ADD, false, 0);
	late = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
	assert_int_equal(read(late, record, sizeof(record)), sizeof(record));
	assert_int_equal(read_all(&log).count, 1);
	assert_int_equal(write(late, record, sizeof(record)), sizeof(record));
	append(PODLOG_ADD, false, 0);
	assert_int_equal(read_all(&log).count, 2);
	assert_int_equal(read_all(&log).count, 0);
	close(late);
	podlog_done(&log);
}

static void test_without_an_agent_it_stays_small(void **state)
{
	struct podlog log;
	struct stat st;

	append(PODLOG_ADD, false, 0);
	assert_int_equal(truncate(path, PODLOG_BYTES_MAX - 8), 0);
	append(PODLOG_ADD, false, 0);
	append(PODLOG_ADD, false, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, PODLOG_BYTES_MAX);
	assert_int_equal(st.st_mode & 0777, 0600);
	podlog_init(&log, dir);
	assert_int_equal(read_all(&log).count, 2);
	podlog_done(&log);
}

static void test_what_is_no_record(void **state)
{
	static const unsigned char foreign[16] = { 0x70, PODLOG_COMMANDS, 0, 0, 0, 0, 0, 0, 'x' };
	struct podlog log;

	podlog_init(&log, dir);
	append_raw(foreign, sizeof(foreign));
	append(PODLOG_CHECK, false, 0);
	append_raw(foreign, 3); /* cut */
	assert_int_equal(read_all(&log).count, 1);
	append(PODLOG_CHECK, false, 0);
	assert_int_equal(read_all(&log).count, 1);
	podlog_done(&log);
}

/* Neither waits, and neither follows a link to a file of somebody else's. */
static void test_what_is_no_file(void **state)
{
	char other[96];
	struct stat st;
	struct podlog log;

	podlog_init(&log, dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	append(PODLOG_ADD, false, 0);
	assert_int_equal(read_all(&log).count, 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	append(PODLOG_ADD, false, 0);
	assert_int_equal(read_all(&log).count, 0);
	assert_int_equal(rmdir(path), 0);
	snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(close(open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
	assert_int_equal(symlink("other", path), 0);
	append(PODLOG_ADD, false, 0);
	assert_int_equal(read_all(&log).count, 0);
	assert_int_equal(stat(other, &st), 0);
	assert_int_equal(st.st_size, 0);
	podlog_append("/nonexistent", &(struct podlog_entry){ PODLOG_ADD, false, 0 });
	podlog_done(&log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_is_read_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_late_record_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_an_agent_it_stays_small, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_what_is_no_record, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_no_file, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
