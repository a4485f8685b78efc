/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>

#include "poplin/base/buf.h"
#include "poplin/base/mem.h"

#include "commands.h"
#include "output.h"

#define TITLE_WIDTH 8

static const struct {
	const char *title;
	const char *template;
} lines[] = {
	{ "Subnet", "{subnet}" },
	{ "Address", "{address}[ on {interface}]" },
	{ "Bridge", "{bridge.name}[, gateway {bridge.address}][, MTU {bridge.mtu}]" },
	{ "Lease", "held: {lease.held}[, runs out in {lease.expires_in_s} s unless renewed]"
		   "[, time to live {lease.ttl_s} s]" },
	{ "Store", "{store.endpoint}, connected: {store.connected}"
		   "[, last change {store.last_change_age_s} s ago]" },
	{ "Peers",
	  "{peers.known} known, {peers.rejected} rejected, {peers.conflicts} in conflict" },
	{ "Routes", "{routes.desired} desired, {routes.installed} installed, {routes.failing} "
		    "failing" },
	{ "Queue", "{queue.depth} waiting" },
	{ "Pods", "{pods.held} of {pods.capacity} addresses" },
};

static int add_line(struct buf *b, const char *title, const char *template, const json_t *root)
{
	if (buf_printf(b, "%-*s  ", TITLE_WIDTH, title) < 0 ||
	    output_expand(b, template, root) < 0 || buf_add(b, "\n", 1) < 0)
		return -ENOMEM;
	return 0;
}

/* Why the agent is not ready, a line each. */
/* A text a line, each behind the title. */
static int add_texts(struct buf *b, const char *title, const json_t *texts)
{
	for (size_t i = 0; i < json_array_size(texts); i++) {
		const char *text = json_string_value(json_array_get(texts, i));

		if (buf_printf(b, "%-*s  ", TITLE_WIDTH, title) < 0 ||
		    output_escaped(b, text ? text : "-") < 0 || buf_add(b, "\n", 1) < 0)
			return -ENOMEM;
	}
	return 0;
}

int command_status(const json_t *root, FILE *out)
{
	auto_buf struct buf b = BUF_INIT;

	if (!json_is_object(root) || !json_is_string(json_object_get(root, "node")))
		return -EPROTO;
	if (add_line(&b, "Node", "{node} (poplin {version})", root) < 0 ||
	    add_line(&b, "Ready", "{ready}", root) < 0 ||
	    add_texts(&b, "", json_object_get(root, "reasons")) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < countof(lines); i++)
		if (add_line(&b, lines[i].title, lines[i].template, root) < 0)
			return -ENOMEM;
	if (add_texts(&b, "Warning", json_object_get(root, "warnings")) < 0)
		return -ENOMEM;
	fwrite(b.data, 1, b.len, out);
	return 0;
}
