/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the CNI plugin did, for the agent to count: STATE_DIR/operations, a record of eight bytes
 * for each run, appended by the plugin and taken by the agent.
 *
 * Theory of operation. Nobody waits for anybody: a record is one write(2) with O_APPEND, which the
 * kernel lets follow one another whole. The agent reads on from where it was and unlinks the file
 * when there was something in it; a plugin that had it open already may still append, so the file
 * is read once more at the next time, and closed then. A plugin appends nothing to a file of
 * PODLOG_BYTES_MAX: so much is kept for an agent that is away, or that nobody asks for metrics.
 *
 * Threads: any for podlog_append(); a struct podlog belongs to one.
 */
#ifndef POPLIN_MODEL_PODLOG_H
#define POPLIN_MODEL_PODLOG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PODLOG_FILE	 "operations"
#define PODLOG_BYTES_MAX (1024 * 1024)

enum podlog_command {
	PODLOG_ADD,
	PODLOG_DEL,
	PODLOG_CHECK,
	PODLOG_GC,
	PODLOG_STATUS,
	PODLOG_COMMANDS
};

struct podlog_entry {
	enum podlog_command command;
	bool failed;
	int64_t duration_ns; /* rounded to microseconds, 71 minutes at most */
};

/* Appends to DIR/operations. What cannot be written is left out: it is only counted. */
void podlog_append(const char *dir, const struct podlog_entry *entry);

struct podlog {
	char path[PATH_MAX];
	int fd;	  /* -1: not open */
	off_t at; /* read up to here */
};

void podlog_init(struct podlog *log, const char *dir);
void podlog_done(struct podlog *log);
/* Calls fn for each record that was not read before. What is no record is left out. */
void podlog_read(struct podlog *log, void (*fn)(const struct podlog_entry *entry, void *arg),
		 void *arg);

#endif
