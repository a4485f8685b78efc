/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/model/podlog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "poplin/base/clock.h"
#include "poplin/base/mem.h"

#define RECORD_MAGIC 0x70
#define READ_RECORDS 512

/* As it lies in the file; agent and plugin are of one machine. */
struct record {
	uint8_t magic;
	uint8_t command;
	uint8_t failed;
	uint8_t zero;
	uint32_t duration_us;
};
_Static_assert(sizeof(struct record) == 8 && PODLOG_BYTES_MAX % sizeof(struct record) == 0,
	       "records fill a file, and a page, evenly");

static void path_of(const char *dir, char ret[static PATH_MAX])
{
	(void)snprintf(ret, PATH_MAX, "%s/" PODLOG_FILE, dir);
}

void podlog_append(const char *dir, const struct podlog_entry *entry)
{
	int64_t us = entry->duration_ns / (NS_PER_MS / 1000);
	const struct record record = {
		.magic = RECORD_MAGIC,
		.command = (uint8_t)entry->command,
		.failed = entry->failed,
		.duration_us = us < 0		 ? 0
			       : us > UINT32_MAX ? UINT32_MAX
						 : (uint32_t)us,
	};
	char path[PATH_MAX];
	auto_close int fd = -1;
	struct stat st;

	path_of(dir, path);
	/* O_NONBLOCK: the path may be anything, a pipe that nobody reads too. */
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size >= PODLOG_BYTES_MAX)
		return;
	(void)!write(fd, &record, sizeof(record));
}

void podlog_init(struct podlog *log, const char *dir)
{
	*log = (struct podlog){ .fd = -1 };
	path_of(dir, log->path);
}

void podlog_done(struct podlog *log)
{
	mem_close_cleanup(&log->fd);
	log->fd = -1;
}

static void tell(const struct record *record,
		 void (*fn)(const struct podlog_entry *entry, void *arg), void *arg)
{
	struct podlog_entry entry = { .failed = record->failed != 0 };

	if (record->magic != RECORD_MAGIC || record->command >= PODLOG_COMMANDS)
		return;
	entry.command = (enum podlog_command)record->command;
	entry.duration_ns = record->duration_us * (NS_PER_MS / 1000);
	fn(&entry, arg);
}

static void read_on(struct podlog *log, void (*fn)(const struct podlog_entry *entry, void *arg),
		    void *arg)
{
	struct record records[READ_RECORDS];
	ssize_t n;

	/* Half a record at the end, which a full disk may leave, is never passed. */
	while ((n = pread(log->fd, records, sizeof(records), log->at)) >=
	       (ssize_t)sizeof(*records)) {
		size_t count = (size_t)n / sizeof(*records);

		for (size_t i = 0; i < count; i++)
			tell(&records[i], fn, arg);
		log->at += (off_t)(count * sizeof(*records));
	}
}

static bool open_again(struct podlog *log)
{
	struct stat st;

	podlog_done(log);
	log->at = 0;
	log->fd = open(log->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (log->fd >= 0 && fstat(log->fd, &st) == 0 && S_ISREG(st.st_mode))
		return true;
	podlog_done(log);
	return false;
}

void podlog_read(struct podlog *log, void (*fn)(const struct podlog_entry *entry, void *arg),
		 void *arg)
{
	if (log->fd >= 0) /* unlinked last time; a plugin may have come late */
		read_on(log, fn, arg);
	if (!open_again(log))
		return;
	read_on(log, fn, arg);
	(void)unlink(log->path);
}
