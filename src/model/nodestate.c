/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/model/nodestate.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "poplin/base/file.h"
#include "poplin/base/mem.h"

#define NODESTATE_BYTES_MAX 4096
#define NODESTATE_MODE	    0644 /* no secret: readers may be tools of the administrator */

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
	const char *node, *subnet;
	json_int_t deadline;
	json_error_t why;
	int r;

	object = json_loadb(text->data ? text->data : "", text->len, 0, &why);
	if (!object)
		return err_set(err, -EINVAL, "not JSON: %s", why.text);
	if (json_unpack_ex(object, &why, 0, "{ss ss sI}", "node", &node, "subnet", &subnet,
			   "leaseDeadlineBootNs", &deadline) < 0)
		return err_set(err, -EINVAL, "%s", why.text);
	if (!node_name_valid(node))
		return err_set(err, -EINVAL, "'%s' is no node name", node);
	r = prefix_parse(subnet, &state.subnet, err);
	if (r < 0)
		return r;
	strlcpy(state.node, node, sizeof(state.node));
	state.lease_deadline_ns = deadline;
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
	object = json_pack("{ss ss sI}", "node", s->node, "subnet",
			   prefix_format(&s->subnet, subnet), "leaseDeadlineBootNs",
			   (json_int_t)s->lease_deadline_ns);
	len = object ? json_dumpb(object, text, sizeof(text) - 1, JSON_INDENT(2)) : 0;
	if (len == 0 || len >= sizeof(text) - 1)
		return err_errno(err, -ENOMEM, "%s", path);
	text[len++] = '\n';
	return file_write_atomic(path, NODESTATE_MODE, text, len, err);
}
