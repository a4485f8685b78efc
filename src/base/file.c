/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "poplin/base/log.h"
#include "poplin/base/mem.h"

#define COPY_AT_ONCE 1048576

static int read_all(int fd, size_t max, struct buf *ret)
{
	char chunk[8192];
	int r = 0;
	ssize_t n;

	for (;;) {
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		r = (size_t)n > max - ret->len ? -EFBIG : buf_add(ret, chunk, (size_t)n);
		explicit_bzero(chunk, (size_t)n); /* it may be a secret */
		if (r < 0)
			return r;
	}
}

/* Returns the file descriptor. Not blocking: a FIFO that somebody put there must not hold us up. */
static int open_regular(const char *path, struct err *err)
{
	auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return err_errno(err, -errno, "%s: open", path);
	if (fstat(fd, &st) < 0)
		return err_errno(err, -errno, "%s: stat", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: not a regular file", path);
	return TAKE_FD(fd);
}

int file_read(const char *path, size_t max, struct buf *ret, struct err *err)
{
	auto_close int fd = open_regular(path, err);
	int r;

	buf_reset(ret);
	if (fd < 0)
		return fd;
	r = read_all(fd, max, ret);
	if (r == -EFBIG)
		return err_set(err, r, "%s: larger than %zu bytes", path, max);
	return r < 0 ? err_errno(err, r, "%s: read", path) : 0;
}

/* The folder of path, "." for a bare name. -ENAMETOOLONG. */
static int parent_of(const char *path, char ret[static PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;

	if (len >= PATH_MAX)
		return -ENAMETOOLONG;
	if (len > 0) {
		memcpy(ret, path, len);
		ret[len] = '\0';
	} else {
		strlcpy(ret, slash ? "/" : ".", PATH_MAX);
	}
	return 0;
}

/* Where path is written before it gets its name. One name, so that a killed writer leaves one file. */
static int temporary_of(const char *path, char ret_folder[static PATH_MAX],
			char ret[static PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	int r = parent_of(path, ret_folder);

	if (r < 0)
		return r;
	if (snprintf(ret, PATH_MAX, "%s/.%s.tmp", ret_folder, slash ? slash + 1 : path) >= PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int copy_all(int from, int to)
{
	ssize_t n;

	do
		n = sendfile(to, from, NULL, COPY_AT_ONCE);
	while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 ? -errno : 0;
}

static int sync_folder(const char *path)
{
	auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

/* What is to be written: bytes, or a file (data is NULL). */
struct content {
	const void *data;
	size_t len;
	int fd;
};

/* Steps of an atomic write after the temporary file is open; *step says which one failed. */
static int write_steps(int fd, const char *temporary, const char *path, mode_t mode,
		       const struct content *content, const char **step)
{
	int r;

	*step = "write";
	r = content->data ? write_all(fd, content->data, content->len) : copy_all(content->fd, fd);
	if (r < 0)
		return r;
	*step = "chmod";
	if (fchmod(fd, mode) < 0)
		return -errno;
	*step = "fsync";
	if (fsync(fd) < 0)
		return -errno;
	*step = "rename into place";
	return rename(temporary, path) < 0 ? -errno : 0;
}

static int write_atomic(const char *path, mode_t mode, const struct content *content,
			struct err *err)
{
	char folder[PATH_MAX], temporary[PATH_MAX];
	auto_close int fd = -1;
	const char *step;
	int r;

	r = temporary_of(path, folder, temporary);
	if (r < 0)
		return err_errno(err, r, "%s", path);
	/* A new file each time: what a writer that was killed left may have any content and mode. */
	if (unlink(temporary) < 0 && errno != ENOENT)
		return err_errno(err, -errno, "%s: remove", temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, -errno, "%s: create a temporary file beside it", path);
	r = write_steps(fd, temporary, path, mode, content, &step);
	if (r < 0) {
		(void)unlink(temporary);
		return err_errno(err, r, "%s: %s", path, step);
	}
	r = sync_folder(folder);
	if (r < 0)
		log_limited(LOG_WARN,
			    "a file was replaced, but after a crash the old one may be back" KV(
				    "path", "%s") KV("error", "%s"),
			    path, strerrordesc_np(-r));
	return 0;
}

int file_write_atomic(const char *path, mode_t mode, const void *data, size_t len, struct err *err)
{
	const struct content content = { .data = len ? data : "", .len = len };

	return write_atomic(path, mode, &content, err);
}

int file_copy_atomic(const char *from, const char *to, mode_t mode, struct err *err)
{
	auto_close int fd = open_regular(from, err);
	const struct content content = { .fd = fd };

	return fd < 0 ? fd : write_atomic(to, mode, &content, err);
}

static bool is_file(const char *path, mode_t mode, struct stat *ret)
{
	return lstat(path, ret) == 0 && S_ISREG(ret->st_mode) && (ret->st_mode & 07777) == mode;
}

bool file_matches(const char *path, mode_t mode, const void *data, size_t len)
{
	auto_buf struct buf now = BUF_INIT;
	struct stat st;

	if (!is_file(path, mode, &st) || (uint64_t)st.st_size != len ||
	    file_read(path, len, &now, NULL) < 0)
		return false;
	return now.len == len && (len == 0 || memcmp(now.data, data, len) == 0);
}

/* Less than asked for only at the end. */
static ssize_t read_chunk(int fd, char *chunk, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size) {
		n = read(fd, chunk + len, size - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

/* Piece by piece: the plugin has more than a megabyte, and is looked at again and again. */
bool file_same(const char *a, const char *b, mode_t mode)
{
	auto_close int fd_a = open_regular(a, NULL), fd_b = open_regular(b, NULL);
	char chunk_a[16384], chunk_b[16384];
	struct stat st;
	ssize_t n;

	if (fd_a < 0 || fd_b < 0 || !is_file(b, mode, &st))
		return false;
	do {
		n = read_chunk(fd_a, chunk_a, sizeof(chunk_a));
		if (n < 0 || read_chunk(fd_b, chunk_b, sizeof(chunk_b)) != n ||
		    memcmp(chunk_a, chunk_b, (size_t)n) != 0)
			return false;
	} while (n > 0);
	return true;
}

int file_make_dirs(const char *path, struct err *err)
{
	char part[PATH_MAX];
	struct stat st;
	char *slash;

	if (strlcpy(part, path, sizeof(part)) >= sizeof(part))
		return err_errno(err, -ENAMETOOLONG, "%s", path);
	for (slash = part; *slash;) {
		char saved;

		slash += strspn(slash, "/");
		slash += strcspn(slash, "/");
		saved = *slash;
		*slash = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return err_errno(err, -errno, "%s: make folder", part);
		*slash = saved;
	}
	if (stat(path, &st) < 0)
		return err_errno(err, -errno, "%s: stat", path);
	return S_ISDIR(st.st_mode) ? 0 : err_errno(err, -ENOTDIR, "%s", path);
}

int file_make_parent(const char *path, struct err *err)
{
	char folder[PATH_MAX];
	int r = parent_of(path, folder);

	return r < 0 ? err_errno(err, r, "%s", path) : file_make_dirs(folder, err);
}

int file_remove(const char *path, struct err *err)
{
	char folder[PATH_MAX], temporary[PATH_MAX];

	if (temporary_of(path, folder, temporary) == 0)
		(void)unlink(temporary);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_errno(err, -errno, "%s: remove", path);
	return 0;
}

DEFINE_AUTO(FTS *, fts_close)

int file_remove_tree(const char *path, struct err *err)
{
	auto_free char *root = strdup(path);
	char *const roots[] = { root, NULL };
	auto_(fts_close) FTS *fts = NULL;
	FTSENT *entry;

	if (!root)
		return err_errno(err, -ENOMEM, "%s: remove", path);
	fts = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	if (!fts)
		return err_errno(err, -errno, "%s: walk", path);
	while (errno = 0, (entry = fts_read(fts))) {
		int flags = entry->fts_info == FTS_DP ? AT_REMOVEDIR : 0;

		if (entry->fts_info == FTS_D)
			continue;
		if (entry->fts_info == FTS_NS && entry->fts_errno == ENOENT)
			continue;
		if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR ||
		    entry->fts_info == FTS_NS)
			return err_errno(err, -entry->fts_errno, "%s: read", entry->fts_path);
		if (unlinkat(AT_FDCWD, entry->fts_accpath, flags) < 0 && errno != ENOENT)
			return err_errno(err, -errno, "%s: remove", entry->fts_path);
	}
	return errno ? err_errno(err, -errno, "%s: walk", path) : 0;
}
