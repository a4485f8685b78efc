/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whole files. A file is replaced by writing a temporary one beside it, syncing it, renaming it
 * over the old and syncing the folder: a reader or a crash meets the old or the new content,
 * never half of one. The temporary name starts with a dot and ends in ".tmp", so that no
 * container runtime takes it for a configuration. Each path has one writer at a time.
 */
#ifndef POPLIN_BASE_FILE_H
#define POPLIN_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "poplin/base/buf.h"
#include "poplin/base/err.h"

/* Reads a regular file of at most max bytes (-EFBIG beyond) into ret, which is reset first. */
int file_read(const char *path, size_t max, struct buf *ret, struct err *err);
/*
 * On failure the file is as before. A folder that cannot be synced is none: every reader sees the
 * new file, which a crash may take away; the log says so.
 */
int file_write_atomic(const char *path, mode_t mode, const void *data, size_t len, struct err *err);
int file_copy_atomic(const char *from, const char *to, mode_t mode, struct err *err);
/* True only when path can be read and holds exactly these bytes with this mode. */
bool file_matches(const char *path, mode_t mode, const void *data, size_t len);
/* True when both can be read and hold the same bytes, and b has this mode. */
bool file_same(const char *a, const char *b, mode_t mode);
/* Creates the folder and its parents, mode 0755 each. Existing ones are fine. */
int file_make_dirs(const char *path, struct err *err);
/* The same for the folder that path lies in. */
int file_make_parent(const char *path, struct err *err);
/* Removes a file, and what a killed file_write_atomic() left beside it; a missing one is fine. */
int file_remove(const char *path, struct err *err);
/* Removes a folder and all in it, not following links, nor leaving its file system. */
int file_remove_tree(const char *path, struct err *err);

#endif
