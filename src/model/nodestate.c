/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/model/nodestate.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "poplin/base/clock.h"
#include "poplin/base/file.h"
#include "poplin/base/mem.h"

#define NODESTATE_BYTES_MAX 4096
#define NODESTATE_MODE	    0644 /* no secret: readers may be tools of the administrator */
#define BOOT_ID_FILE	    "/proc/sys/kernel/random/boot_id"

DEFINE_AUTO(json_t *, json_decref)

static int path_of(const char *dir, char ret[static PATH_MAX], struct err *err)
{
	if (snprintf(ret, PATH_MAX, "%s/" NODESTATE_FILE, dir) >= PATH_MAX)
		return err_errno(err, -ENAMETOOLONG, "%s", dir);
	return 0;
}

static int parse(const struct buf *text, struct nodestate *ret, struct err *err)
{
	auto_(json_decref) json_t *object = NULL;
	struct nodestate state = { .lease_deadline_ns = 0 };
	const char *node, *subnet, *boot = "";
	int fence = 1, drained = 0, r;
	json_int_t deadline;
	json_error_t why;

	object = json_loadb(text->data ? text->data : "", text->len, 0, &why);
	if (!object)
		return err_set(err, -EINVAL, "not JSON: %s", why.text);
	if (json_unpack_ex(object, &why, 0, "{ss ss sI s?s s?b s?b}", "node", &node, "subnet",
			   &subnet, "leaseDeadlineBootNs", &deadline, "bootId", &boot, "fence",
			   &fence, "drained", &drained) < 0)
		return err_set(err, -EINVAL, "%s", why.text);
	if (!node_name_valid(node))
		return err_set(err, -EINVAL, "'%s' is no node name", node);
	r = prefix_parse(subnet, &state.subnet, err);
	if (r < 0)
		return r;
	strlcpy(state.node, node, sizeof(state.node));
	strlcpy(state.boot, boot, sizeof(state.boot));
	state.lease_deadline_ns = deadline;
	state.fence = fence;
	state.drained = drained;
	*ret = state;
	return 0;
}

int nodestate_read(const char *dir, struct nodestate *ret, struct err *err)
{
	auto_buf struct buf text = BUF_INIT;
	char path[PATH_MAX];
	int r;

	r = path_of(dir, path, err);
	if (r == 0)
		r = file_read(path, NODESTATE_BYTES_MAX, &text, err);
	if (r < 0)
		return r;
	r = parse(&text, ret, err);
	return r < 0 ? err_wrap(err, r, "%s", path) : 0;
}

int nodestate_write(const char *dir, const struct nodestate *s, struct err *err)
{
	auto_(json_decref) json_t *object = NULL;
	char subnet[PREFIX_TEXT_MAX], text[1024], path[PATH_MAX];
	size_t len;
	int r;

	r = path_of(dir, path, err);
	if (r < 0)
		return r;
	object = json_pack("{ss ss sI ss sb sb}", "node", s->node, "subnet",
			   prefix_format(&s->subnet, subnet), "leaseDeadlineBootNs",
			   (json_int_t)s->lease_deadline_ns, "bootId", s->boot, "fence",
			   (int)s->fence, "drained", (int)s->drained);
	len = object ? json_dumpb(object, text, sizeof(text) - 1, JSON_INDENT(2)) : 0;
	if (len == 0 || len >= sizeof(text) - 1)
		return err_errno(err, -ENOMEM, "%s", path);
	text[len++] = '\n';
	return file_write_atomic(path, NODESTATE_MODE, text, len, err);
}

int nodestate_remove(const char *dir, struct err *err)
{
	char path[PATH_MAX];
	int r = path_of(dir, path, err);

	return r < 0 ? r : file_remove(path, err);
}

void nodestate_this_boot(char ret[static NODESTATE_BOOT_MAX])
{
	auto_buf struct buf id = BUF_INIT;

	ret[0] = '\0';
	if (file_read(BOOT_ID_FILE, NODESTATE_BOOT_MAX - 1, &id, NULL) < 0 || id.len == 0)
		return;
	id.data[strcspn(id.data, "\n")] = '\0';
	strlcpy(ret, id.data, NODESTATE_BOOT_MAX);
}

int nodestate_check(const struct nodestate *s, struct err *err)
{
	char boot[NODESTATE_BOOT_MAX], subnet[PREFIX_TEXT_MAX];

	prefix_format(&s->subnet, subnet);
	if (s->drained)
		return err_set(err, -EAGAIN,
			       "this node was drained, its subnet is given back: 'poplinctl "
			       "resume' lets it claim one again");
	if (!s->lease_deadline_ns)
		return err_set(
			err, -EAGAIN,
			"this node has no lease of subnet %s any more: poplind's log says why",
			subnet);
	if (!s->fence)
		return 0;
	nodestate_this_boot(boot);
	/* STATE_DIR need not lie on a tmpfs, and the boot clock begins anew with each boot. */
	if (s->boot[0] && strcmp(s->boot, boot) != 0)
		return err_set(err, -EAGAIN,
			       "the lease of subnet %s is of an earlier boot: is poplind running?",
			       subnet);
	if (clock_boot_ns() >= s->lease_deadline_ns)
		return err_set(err, -EAGAIN,
			       "the lease of subnet %s has run out: is poplind running, and does "
			       "it reach etcd?",
			       subnet);
	return 0;
}
