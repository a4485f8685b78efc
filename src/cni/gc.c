/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GC: removes every attachment that the runtime does not name any more. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cni.h"

DEFINE_AUTO(json_t *, json_decref)

struct collection {
	const struct netconf *conf;
	struct netlink *nl;
	json_t *valid; /* a set: "<container>:<interface>" */
	json_t *stale; /* a list of the same */
	struct err *err;
};

static int note_valid(const json_t *list, json_t *valid, struct err *err)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		const char *container = json_string_value(json_object_get(item, "containerID"));
		const char *interface = json_string_value(json_object_get(item, "ifname"));
		char name[512];

		if (!container || !interface)
			return err_set(
				err, CNI_INVALID_CONFIG,
				"an entry of 'cni.dev/valid-attachments' lacks 'containerID' "
				"or 'ifname'");
		(void)snprintf(name, sizeof(name), "%s:%s", container, interface);
		if (json_object_set_new(valid, name, json_true()) < 0)
			return err_set(err, CNI_IO_FAILURE, "out of memory");
	}
	return 0;
}

static int note_stale(const struct addr *addr, const char *container, const char *interface,
		      void *arg)
{
	struct collection *c = arg;
	char name[512];

	(void)snprintf(name, sizeof(name), "%s:%s", container, interface);
	if (json_object_get(c->valid, name))
		return 0;
	return json_array_append_new(c->stale, json_string(name)) < 0
		       ? err_errno(c->err, -ENOMEM, "collect")
		       : 0;
}

static int remove_stale(const struct collection *c, const char *name, struct err *err)
{
	auto_free char *container = strdup(name);
	char *colon = container ? strchr(container, ':') : NULL;

	if (!colon)
		return err_set(err, CNI_IO_FAILURE, "out of memory");
	*colon = '\0';
	return detach(c->nl, c->conf,
		      &(struct ipam_owner){ .container = container, .interface = colon + 1 }, err);
}

/* All are tried; the first failure is told. */
static int remove_all(const struct collection *c, struct err *err)
{
	struct err later = ERR_INIT;
	const json_t *name;
	int first = 0;
	size_t i;

	json_array_foreach (c->stale, i, name) {
		int r = remove_stale(c, json_string_value(name), first ? &later : err);

		if (r && !first)
			first = r;
	}
	return first;
}

int verb_gc(const struct request *req, struct err *err)
{
	const json_t *list = json_object_get(req->conf.json, "cni.dev/valid-attachments");
	auto_(json_decref) json_t *valid = json_object();
	auto_(json_decref) json_t *stale = json_array();
	auto_(netlink_close) struct netlink *nl = NULL;
	struct collection c = { &req->conf, NULL, valid, stale, err };
	int r;

	if (!valid || !stale)
		return err_set(err, CNI_IO_FAILURE, "out of memory");
	/* Without the list nothing is known to be stale. */
	if (!json_is_array(list))
		return err_set(err, CNI_INVALID_CONFIG,
			       "'cni.dev/valid-attachments' is missing or not a list");
	r = note_valid(list, valid, err);
	if (r)
		return r;
	if (netlink_open(&nl, err) < 0)
		return CNI_KERNEL_REFUSED;
	c.nl = nl;
	if (req->conf.ipam.kind == NETCONF_IPAM_OWN &&
	    ipam_foreach_attachment(req->conf.ipam.pool.dir, note_stale, &c, err) < 0)
		return CNI_IO_FAILURE;
	return remove_all(&c, err);
}
