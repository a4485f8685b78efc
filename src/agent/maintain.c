/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "maintain.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "cniconf.h"
#include "leftovers.h"
#include "node.h"
#include "poplin/base/file.h"
#include "poplin/base/log.h"
#include "poplin/dataplane/bridge.h"
#include "poplin/dataplane/routes.h"
#include "poplin/model/drain.h"
#include "poplin/model/nodestate.h"
#include "poplin/model/podlog.h"
#include "poplin/store/store.h"
#include "snapshot.h"

/* Whoever gets the subnet next must not meet addresses that our plugin still gives out. */
static int forget_state(const struct settings *s, struct err *err)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/" NODESTATE_FILE, s->state_dir) >= (int)sizeof(path))
		return err_errno(err, -ENAMETOOLONG, "%s", s->state_dir);
	return file_remove(path, err);
}

static int count_pods(const struct settings *s, struct err *err)
{
	const struct prefix none = { .addr.family = AF_UNSPEC };
	char ipam_dir[PATH_MAX];
	struct leftovers pods;
	int r;

	if (snprintf(ipam_dir, sizeof(ipam_dir), "%s/ipam/%s", s->state_dir, s->cni_name) >=
	    (int)sizeof(ipam_dir))
		return err_errno(err, -ENAMETOOLONG, "%s", s->state_dir);
	r = leftovers_find(ipam_dir, &s->network, &none, &pods, err);
	if (r < 0 || !pods.pods)
		return r;
	return err_set(err, -EBUSY,
		       "%" PRIu64 " addresses are held by pods of this node: the subnet is not "
		       "given back without --force",
		       pods.pods);
}

/* *ret_asked is set once etcd may have done it. */
static int give_back(const struct settings *s, const char *machine, struct prefix *ret_asked,
		     struct err *err)
{
	struct store_config config = {
		.prefix = s->etcd_prefix,
		.counter_key = s->etcd_counter_key,
	};
	auto_(store_close) struct store *store = NULL;
	char text[PREFIX_TEXT_MAX];
	int r;

	settings_access(s, &config.access);
	r = store_open(&store, &config, err);
	if (r == 0)
		r = store_release(store, s->node_name, machine, ret_asked, err);
	if (r == -ENOENT) {
		log_info("the node holds no subnet" KV("node", "%s"), s->node_name);
		return 0;
	}
	if (r == 0)
		log_info("subnet given back" KV("node", "%s") KV("subnet", "%s"), s->node_name,
			 prefix_format(ret_asked, text));
	return r;
}

static void reopen(const struct settings *s, const struct nodestate *before)
{
	if (nodestate_write(s->state_dir, before, NULL) < 0)
		log_warn("the node stays closed for new pods until poplind runs");
}

int maintain_close(const struct settings *s, struct err *err)
{
	struct nodestate before;
	bool known = nodestate_read(s->state_dir, &before, NULL) == 0;
	int r = forget_state(s, err);

	if (r < 0)
		return r;
	r = count_pods(s, err);
	if (r < 0 && known)
		reopen(s, &before);
	return r;
}

/*
 * Closed first, then counted, as the agent does it (lease.c). Opened again when the subnet is
 * certainly still ours.
 */
int maintain_release(const struct settings *s, bool force, struct err *err)
{
	struct prefix asked = { .addr.family = AF_UNSPEC };
	char machine[RECORD_MACHINE_MAX + 1];
	struct nodestate before;
	bool known = nodestate_read(s->state_dir, &before, NULL) == 0;
	int r = node_machine(machine, err);

	if (r == 0)
		r = forget_state(s, err);
	if (r < 0)
		return r;
	if (!force)
		r = count_pods(s, err);
	if (r == 0)
		r = give_back(s, machine, &asked, err);
	if (r == 0 || !known)
		return r;
	if (asked.addr.family != AF_UNSPEC || r == -EEXIST)
		log_warn("the subnet may be another node's by now, the node stays closed for new "
			 "pods until poplind runs");
	else
		reopen(s, &before);
	return r;
}

/* -- cleanup ---------------------------------------------------------------- */

static int remove_config(const struct settings *s, struct netlink *nl, struct err *err)
{
	return cniconf_remove(s, err);
}

static int remove_routes(const struct settings *s, struct netlink *nl, struct err *err)
{
	const struct routes_config config = {
		.protocol = (uint8_t)s->route_protocol,
		.nexthops = nexthop_supported(nl),
	};

	return routes_remove_all(nl, &config, err);
}

static int remove_bridge(const struct settings *s, struct netlink *nl, struct err *err)
{
	return bridge_remove(nl, s->cni_name, &s->network, s->bridge_name, err);
}

/* The lock stays: it is ours as long as this process runs, and lies on a tmpfs. */
static int remove_state(const struct settings *s, struct netlink *nl, struct err *err)
{
	static const char *const files[] = { SNAPSHOT_FILE, PODLOG_FILE };
	char path[PATH_MAX];
	int r = forget_state(s, err);

	if (r == 0)
		r = drain_remove(s->state_dir, err);
	for (size_t i = 0; i < countof(files) && r == 0; i++) {
		if (snprintf(path, sizeof(path), "%s/%s", s->state_dir, files[i]) >=
		    (int)sizeof(path))
			return err_errno(err, -ENAMETOOLONG, "%s", s->state_dir);
		r = file_remove(path, err);
	}
	if (r < 0)
		return r;
	if (snprintf(path, sizeof(path), "%s/ipam/%s", s->state_dir, s->cni_name) >=
	    (int)sizeof(path))
		return err_errno(err, -ENAMETOOLONG, "%s", s->state_dir);
	return file_remove_tree(path, err);
}

int maintain_cleanup(const struct settings *s, struct err *err)
{
	/* The configuration first: from then on the runtime starts no pod. */
	static const struct {
		const char *what;
		int (*remove)(const struct settings *s, struct netlink *nl, struct err *err);
	} steps[] = {
		{ "CNI configuration and plugin", remove_config },
		{ "routes and nexthops", remove_routes },
		{ "bridge and pod links", remove_bridge },
		{ "state", remove_state },
	};
	auto_(netlink_close) struct netlink *nl = NULL;
	int first, r;

	first = netlink_open(&nl, err);
	if (first < 0)
		return first;
	for (size_t i = 0; i < countof(steps); i++) {
		struct err step = ERR_INIT;

		r = steps[i].remove(s, nl, &step);
		if (r == 0) {
			log_info("gone" KV("what", "%s"), steps[i].what);
			continue;
		}
		log_error("cannot remove" KV("what", "%s") KV("error", "%s"), steps[i].what,
			  step.text);
		if (first == 0)
			first = err_set(err, r, "%s", step.text);
	}
	return first;
}
