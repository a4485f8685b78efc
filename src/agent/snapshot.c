/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

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
/* Order, name, address and subnets. */
#define LINE_BYTES (32 + NODE_NAME_TEXT_MAX + ADDR_TEXT_MAX + RECORD_SUBNETS_MAX * PREFIX_TEXT_MAX)

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
	if (write_file(s, nodes.data, &err) < 0) {
		log_limited(LOG_ERROR, "cannot write the snapshot, trying again" KV("error", "%s"),
			    err.text);
		snapshot_touch(s);
		return;
	}
	strlcpy(s->last, sum, sizeof(s->last));
}

static void *run(void *arg)
{
	struct snapshot *s = arg;
	bool stop = false;

	while (!stop) {
		int64_t until;

		mutex_lock(&s->lock);
		while (!s->dirty && !s->stop)
			cond_wait(&s->wake, &s->lock);
		/* More may follow, and their routes come first. */
		until = clock_ns() + PAUSE_NS;
		while (!s->stop && cond_wait_until(&s->wake, &s->lock, until))
			;
		s->dirty = false;
		stop = s->stop;
		mutex_unlock(&s->lock);
		write_if_new(s);
	}
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

static bool parse_number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno && *ret <= max;
}

static int check_header(const struct snapshot_config *c, char **rest, struct snapshot_restored *ret,
			struct err *err)
{
	auto_buf struct buf identity = BUF_INIT;
	char *line, *time;
	uint64_t written;

	if (strncmp(*rest, FIRST_LINE, strlen(FIRST_LINE)) != 0)
		return err_set(err, -EINVAL, "it is of another version");
	*rest += strlen(FIRST_LINE);
	line = strsep(rest, "\n");
	time = strrchr(line, ' ');
	if (!*rest || !time)
		return err_set(err, -EINVAL, "it says not what it is of");
	*time++ = '\0';
	if (!parse_number(time, INT64_MAX / NS_PER_S, &written))
		return err_set(err, -EINVAL, "it says not when it was written");
	ret->real_ns = (int64_t)written * NS_PER_S;
	if (add_identity(&identity, c) < 0)
		return err_errno(err, -ENOMEM, "snapshot");
	return strcmp(identity.data, line) == 0
		       ? 0
		       : err_set(err, -EINVAL, "it is of another node, cluster or network");
}

/* A line: of which node, and what its record says. The name lies in the line, which is changed. */
static int parse_line(char *line, struct store_change *ret, struct record *record, struct err *err)
{
	const char *order = strsep(&line, " ");
	const char *node = line ? strsep(&line, " ") : NULL;
	const char *address = line ? strsep(&line, " ") : NULL;
	const char *subnet;
	int r = 0;

	*record = (struct record){ .machine = "snapshot" };
	*ret = (struct store_change){ .node = node };
	if (!line || !node_name_valid(node) || !parse_number(order, UINT64_MAX, &ret->order))
		return err_set(err, -EINVAL, "a line of it is not whole");
	if (strcmp(address, "-") != 0)
		r = addr_parse(address, &record->address, err);
	while (r == 0 && (subnet = strsep(&line, " ")))
		r = record->nsubnets == RECORD_SUBNETS_MAX
			    ? err_set(err, -EINVAL, "a line of it has too many subnets")
			    : prefix_parse(subnet, &record->subnets[record->nsubnets++], err);
	return r;
}

/* Tells peers, if any, the line as the record that it came from. */
static int take_line(const struct snapshot_config *c, struct peers *peers, char *line,
		     struct snapshot_restored *ret, struct err *err)
{
	struct store_change change;
	struct record record;
	char value[RECORD_BYTES_MAX];
	int r = parse_line(line, &change, &record, err);

	if (r == 0 && record.address.family != AF_UNSPEC)
		r = record_format(&record, value, sizeof(value), err);
	else if (r == 0)
		prefix_format(&record.subnets[0], value);
	if (r < 0 || !peers)
		return r;
	if (strcmp(change.node, c->node) == 0)
		ret->own = record.subnets[0];
	change.value = value;
	change.len = strlen(value);
	ret->nodes++;
	return peers_apply(peers, &change, err);
}

static int take_lines(const struct snapshot_config *c, struct peers *peers, const char *text,
		      struct snapshot_restored *ret, struct err *err)
{
	char line[LINE_BYTES];
	int r = 0;

	while (r == 0 && *text) {
		size_t len = strcspn(text, "\n");

		if (len >= sizeof(line))
			return err_set(err, -EINVAL, "a line of it is too long");
		memcpy(line, text, len);
		line[len] = '\0';
		r = take_line(c, peers, line, ret, err);
		text += len + (text[len] == '\n');
	}
	return r;
}

int snapshot_restore(const struct snapshot_config *config, struct snapshot_restored *ret,
		     struct err *err)
{
	struct snapshot_restored restored = { .nodes = 0 };
	auto_buf struct buf b = BUF_INIT;
	char path[PATH_MAX], *rest;
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
	/* All of it is looked at before any of it counts. */
	if (r == 0)
		r = take_lines(config, NULL, rest, &restored, err);
	if (r == 0)
		r = take_lines(config, config->peers, rest, &restored, err);
	if (r < 0)
		return err_wrap(err, r, "%s", path);
	*ret = restored;
	return 0;
}
