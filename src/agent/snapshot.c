/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#include "poplin/base/clock.h"
#include "poplin/base/file.h"
#include "poplin/base/hash.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"

#define FIRST_LINE "poplin snapshot 1\n"
#define SUM	   "sha256 "
#define BYTES_MAX  ((size_t)64 * 1024 * 1024)
#define FILE_MODE  0600
#define PAUSE_NS   (3 * NS_PER_S)
#define NICENESS   10

struct snapshot {
	struct thread thread;
	struct snapshot_config config;
	char last[65]; /* sum of the nodes that were written last; of the thread */

	struct mutex lock;
	struct cond wake;
	bool stop, dirty; /* under lock */
};

static int path_of(const struct snapshot_config *c, char ret[static PATH_MAX], struct err *err)
{
	if (snprintf(ret, PATH_MAX, "%s/" SNAPSHOT_FILE, c->state_dir) >= PATH_MAX)
		return err_errno(err, -ENAMETOOLONG, "%s", c->state_dir);
	return 0;
}

/* What must be the same at the next start. */
static int add_identity(struct buf *b, const struct snapshot_config *c)
{
	char pods[PREFIX_TEXT_MAX];

	return buf_printf(b, "%s %s %s %s %u", c->node, c->machine, c->prefix,
			  prefix_format(&c->network.pods, pods), c->network.node_len);
}

/* -- writing ----------------------------------------------------------------- */

static int add_node(const struct peer_view *peer, void *arg)
{
	char text[PREFIX_TEXT_MAX];
	struct buf *b = arg;

	/* Wrong records have no effect, and their names may be anything. */
	if (peer->nsubnets == 0 || !node_name_valid(peer->node))
		return 0;
	if (buf_printf(b, "%" PRIu64 " %s %s", peer->order, peer->node,
		       peer->bare ? "-" : addr_format(&peer->address, text)) < 0)
		return -ENOMEM;
	for (unsigned i = 0; i < peer->nsubnets; i++)
		if (buf_printf(b, " %s", prefix_format(&peer->subnets[i], text)) < 0)
			return -ENOMEM;
	return buf_add(b, "\n", 1);
}

static int write_file(struct snapshot *s, const char *nodes, struct err *err)
{
	auto_buf struct buf b = BUF_INIT;
	char path[PATH_MAX], sum[65];
	int r = path_of(&s->config, path, err);

	if (r < 0)
		return r;
	if (buf_adds(&b, FIRST_LINE) < 0 || add_identity(&b, &s->config) < 0 ||
	    buf_printf(&b, " %" PRId64 "\n", clock_real_ns() / NS_PER_S) < 0 ||
	    buf_adds(&b, nodes) < 0)
		return err_errno(err, -ENOMEM, "snapshot");
	hash_hex(sum, sizeof(sum), b.data, NULL);
	if (buf_printf(&b, SUM "%s\n", sum) < 0)
		return err_errno(err, -ENOMEM, "snapshot");
	return file_write_atomic(path, FILE_MODE, b.data, b.len, err);
}

static void write_if_new(struct snapshot *s)
{
	auto_buf struct buf nodes = BUF_INIT;
	struct err err = ERR_INIT;
	char sum[65];

	/* Before that it would forget those that were not listed yet. */
	if (!peers_complete(s->config.peers))
		return;
	if (buf_adds(&nodes, "") < 0 || peers_foreach(s->config.peers, add_node, &nodes) < 0) {
		log_limited(LOG_ERROR, "out of memory, the snapshot stays as it is");
		return;
	}
	hash_hex(sum, sizeof(sum), nodes.data, NULL);
	if (strcmp(sum, s->last) == 0)
		return;
	if (write_file(s, nodes.data, &err) < 0)
		log_limited(LOG_ERROR, "cannot write the snapshot" KV("error", "%s"), err.text);
	else
		strlcpy(s->last, sum, sizeof(s->last));
}

static void *run(void *arg)
{
	struct snapshot *s = arg;
	bool stop = false;

	/* Of this thread alone, on Linux: routes that are on their way come first. */
	(void)setpriority(PRIO_PROCESS, 0, NICENESS);
	while (!stop) {
		int64_t until;

		mutex_lock(&s->lock);
		while (!s->dirty && !s->stop)
			cond_wait(&s->wake, &s->lock);
		s->dirty = false;
		mutex_unlock(&s->lock);
		write_if_new(s);
		until = clock_ns() + PAUSE_NS;
		mutex_lock(&s->lock);
		while (!s->stop && cond_wait_until(&s->wake, &s->lock, until))
			;
		stop = s->stop;
		mutex_unlock(&s->lock);
	}
	write_if_new(s);
	return NULL;
}

void snapshot_touch(struct snapshot *s)
{
	mutex_hold(&s->lock);
	if (s->dirty)
		return;
	s->dirty = true;
	cond_signal(&s->wake);
}

static void snapshot_free(struct snapshot *s)
{
	cond_done(&s->wake);
	mutex_done(&s->lock);
	free(s);
}

int snapshot_start(struct snapshot **ret, const struct snapshot_config *config, struct err *err)
{
	struct snapshot *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_errno(err, -ENOMEM, "snapshot");
	s->config = *config;
	mutex_init(&s->lock, LOCK_SNAPSHOT);
	cond_init(&s->wake);
	r = thread_start(&s->thread, "snapshot", run, s);
	if (r < 0) {
		snapshot_free(s);
		return err_errno(err, r, "start the snapshot thread");
	}
	*ret = s;
	return 0;
}

void snapshot_stop(struct snapshot *s)
{
	mutex_lock(&s->lock);
	s->stop = true;
	cond_signal(&s->wake);
	mutex_unlock(&s->lock);
	thread_join(&s->thread);
	snapshot_free(s);
}

/* -- reading ----------------------------------------------------------------- */

/* Cuts the sum off and compares it. */
static int check_sum(struct buf *b, struct err *err)
{
	char sum[65], *line;

	if (b->len < 2 || strlen(b->data) != b->len || b->data[b->len - 1] != '\n')
		return err_set(err, -EINVAL, "it is cut off or no text");
	b->data[b->len - 1] = '\0';
	line = strrchr(b->data, '\n');
	if (!line || strncmp(line + 1, SUM, strlen(SUM)) != 0)
		return err_set(err, -EINVAL, "it has no checksum");
	strlcpy(sum, line + 1 + strlen(SUM), sizeof(sum));
	line[1] = '\0';
	char right[65];

	hash_hex(right, sizeof(right), b->data, NULL);
	return strcmp(sum, right) == 0 ? 0 : err_set(err, -EINVAL, "the checksum is wrong");
}

static int check_header(const struct snapshot_config *c, char **rest, struct snapshot_restored *ret,
			struct err *err)
{
	auto_buf struct buf identity = BUF_INIT;
	char *line, *time;

	if (strncmp(*rest, FIRST_LINE, strlen(FIRST_LINE)) != 0)
		return err_set(err, -EINVAL, "it is of another version");
	*rest += strlen(FIRST_LINE);
	line = strsep(rest, "\n");
	time = strrchr(line, ' ');
	if (!*rest || !time)
		return err_set(err, -EINVAL, "it says not what it is of");
	*time++ = '\0';
	ret->real_ns = strtoll(time, NULL, 10) * NS_PER_S;
	if (add_identity(&identity, c) < 0)
		return err_errno(err, -ENOMEM, "snapshot");
	return strcmp(identity.data, line) == 0
		       ? 0
		       : err_set(err, -EINVAL, "it is of another node, cluster or network");
}

/* One line, as the record that it came from. */
static int apply_line(const struct snapshot_config *c, char *line, struct snapshot_restored *ret,
		      struct err *err)
{
	struct store_change change = { .order = strtoull(strsep(&line, " "), NULL, 10) };
	struct record record = { .machine = "snapshot" };
	char value[RECORD_BYTES_MAX];
	char *address, *subnet;
	bool bare;
	int r = 0;

	change.node = line ? strsep(&line, " ") : "";
	address = line ? strsep(&line, " ") : NULL;
	if (!address || !line || !node_name_valid(change.node))
		return err_set(err, -EINVAL, "a line of it is not whole");
	bare = strcmp(address, "-") == 0;
	if (!bare)
		r = addr_parse(address, &record.address, err);
	while (r == 0 && (subnet = strsep(&line, " ")))
		r = record.nsubnets == RECORD_SUBNETS_MAX
			    ? err_set(err, -EINVAL, "a line of it is too long")
			    : prefix_parse(subnet, &record.subnets[record.nsubnets++], err);
	if (r < 0)
		return r;
	if (strcmp(change.node, c->node) == 0)
		ret->own = record.subnets[0];
	if (bare)
		prefix_format(&record.subnets[0], value);
	else
		r = record_format(&record, value, sizeof(value), err);
	change.value = value;
	change.len = r == 0 ? strlen(value) : 0;
	ret->nodes++;
	return r < 0 ? r : peers_apply(c->peers, &change, err);
}

int snapshot_restore(const struct snapshot_config *config, struct snapshot_restored *ret,
		     struct err *err)
{
	struct snapshot_restored restored = { .nodes = 0 };
	auto_buf struct buf b = BUF_INIT;
	char path[PATH_MAX], *rest, *line;
	int r = path_of(config, path, err);

	if (r == 0)
		r = file_read(path, BYTES_MAX, &b, err);
	if (r < 0)
		return r;
	if (b.len == 0)
		return err_set(err, -EINVAL, "%s: it is empty", path);
	rest = b.data;
	r = check_sum(&b, err);
	if (r == 0)
		r = check_header(config, &rest, &restored, err);
	while (r == 0 && (line = strsep(&rest, "\n")) && *line)
		r = apply_line(config, line, &restored, err);
	if (r < 0)
		return err_wrap(err, r, "%s", path);
	*ret = restored;
	return 0;
}
