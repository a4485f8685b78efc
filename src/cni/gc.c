/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GC: removes what no attachment holds that the runtime names: addresses with their links, links
 * alone, what ipMasq and macspoofchk made. All is tried; the first failure is told.
 *
 * A runtime must not run ADD beside GC (specification, section 4), but if it does no pod is lost: an
 * attachment that was made or completed since this process started is not what the runtime meant, and
 * is left alone; an ADD that began before and still runs fails (ipam_condemn()). As an ADD takes its
 * address before it makes anything else, what is there is listed first, and attachments after that.
 * Where another plugin gives the addresses, nothing tells when a link was made.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cni.h"
#include "delegate.h"
#include "gc.h"
#include "masq.h"
#include "poplin/model/pod.h"
#include "poplin/nl/link.h"
#include "spoof.h"

DEFINE_AUTO(json_t *, json_decref)

struct collection {
	const struct request *req;
	struct netlink *nl;
	json_t *valid;	     /* a set: "<container>:<interface>" */
	json_t *valid_links; /* a set: names of their links */
	json_t *stale;	     /* a set: "<container>:<interface>" */
	json_t *links;	     /* all of the network: their indices by name */
};

static void owner_name(const char *container, const char *interface, char ret[static 512])
{
	(void)snprintf(ret, 512, "%s:%s", container, interface);
}

/* -- what is valid ------------------------------------------------------------------- */

static int add_valid(const struct collection *c, const char *container, const char *interface)
{
	char name[512], link[16];

	owner_name(container, interface, name);
	pod_link_name(container, interface, link);
	return json_object_set_new(c->valid, name, json_true()) < 0 ||
			       json_object_set_new(c->valid_links, link, json_true()) < 0
		       ? -ENOMEM
		       : 0;
}

static int note_valid(const struct collection *c, const json_t *item, struct err *err)
{
	const char *container = json_string_value(json_object_get(item, "containerID"));
	const char *interface = json_string_value(json_object_get(item, "ifname"));

	if (!container || !interface)
		return err_set(err, CNI_INVALID_CONFIG,
			       "an entry of 'cni.dev/valid-attachments' lacks 'containerID' or "
			       "'ifname'");
	return add_valid(c, container, interface) < 0
		       ? err_set(err, CNI_IO_FAILURE, "out of memory")
		       : 0;
}

/* Without the list nothing is known to be stale. null is the empty one, as libcni writes it. */
static int note_all_valid(const struct collection *c, struct err *err)
{
	const json_t *list = netconf_get(c->req->conf.json, "cni.dev/valid-attachments");
	const json_t *item;
	size_t i;
	int r = 0;

	if (json_is_null(list))
		return 0;
	if (!json_is_array(list))
		return err_set(err, CNI_INVALID_CONFIG,
			       "'cni.dev/valid-attachments' is missing or not a list");
	json_array_foreach (list, i, item) {
		r = note_valid(c, item, err);
		if (r)
			break;
	}
	return r;
}

static int add_stale(const struct collection *c, const char *name)
{
	return json_object_set_new(c->stale, name, json_true()) < 0 ? -ENOMEM : 0;
}

struct looking {
	struct collection *collection;
	struct err *err;
};

/* One that is not known yet: stale, or too new. */
static int sort_attachment(const struct addr *addr, const char *container, const char *interface,
			   void *arg)
{
	const struct looking *l = arg;
	const struct collection *c = l->collection;
	char name[512];
	int r;

	owner_name(container, interface, name);
	if (json_object_get(c->valid, name) || json_object_get(c->stale, name))
		return 0;
	r = ipam_condemn(c->req->conf.ipam.pool.dir,
			 &(struct ipam_owner){ .container = container, .interface = interface },
			 c->req->started_ns, l->err);
	/* Somebody's file, whose name is no attachment's. */
	if (r == -EINVAL)
		return 0;
	if (r < 0)
		return r;
	r = r > 0 ? add_stale(c, name) : add_valid(c, container, interface);
	return r < 0 ? err_errno(l->err, r, "collect") : 0;
}

const json_t *gc_settle_links(struct collection *c, struct err *err)
{
	const struct netconf_ipam *ipam = &c->req->conf.ipam;
	struct looking looking = { c, err };

	if (ipam->kind == NETCONF_IPAM_OWN &&
	    ipam_foreach_attachment(ipam->pool.dir, sort_attachment, &looking, err) < 0)
		return NULL;
	return c->valid_links;
}

/* -- addresses, with their links ---------------------------------------------------------- */

static int note_reserved(const struct addr *addr, const char *container, const char *interface,
			 void *arg)
{
	const struct looking *l = arg;
	char name[512];
	int r;

	/* Old versions of host-local did not write whose it is. */
	if (!interface[0])
		return 0;
	owner_name(container, interface, name);
	r = json_object_get(l->collection->valid, name) ? 0 : add_stale(l->collection, name);
	return r < 0 ? err_errno(l->err, r, "collect") : 0;
}

static int remove_stale(const struct collection *c, const char *name, struct err *err)
{
	auto_free char *container = strdup(name);
	char *colon = container ? strchr(container, ':') : NULL;

	if (!colon)
		return err_set(err, CNI_IO_FAILURE, "out of memory");
	*colon = '\0';
	return detach(c->nl, &c->req->conf,
		      &(struct ipam_owner){ .container = container, .interface = colon + 1 }, err);
}

static int collect_addresses(struct collection *c, struct err *err)
{
	const struct netconf_ipam *ipam = &c->req->conf.ipam;
	struct looking looking = { c, err };
	struct err later = ERR_INIT;
	const char *name;
	json_t *value;
	int first = 0;

	if (ipam->kind == NETCONF_IPAM_DELEGATED)
		return delegate_run(c->req, ipam->type, "GC", NULL, err);
	if (ipam->kind == NETCONF_IPAM_NONE)
		return 0;
	if (!gc_settle_links(c, err))
		return CNI_IO_FAILURE;
	if (ipam_foreach_reserved(&ipam->pool, note_reserved, &looking, err) < 0)
		first = CNI_IO_FAILURE;
	json_object_foreach (c->stale, name, value) {
		int r = remove_stale(c, name, first ? &later : err);

		first = first ? first : r;
	}
	if (ipam_release_orphans(ipam->pool.dir, first ? &later : err) < 0 && !first)
		first = CNI_IO_FAILURE;
	return first;
}

/* -- links that hold no address ------------------------------------------------------------ */

static int note_link(const struct link *link, void *arg)
{
	struct collection *c = arg;

	if (link->group != pod_link_group(c->req->conf.name) || strcmp(link->kind, "veth") != 0 ||
	    strncmp(link->name, POD_LINK_PREFIX, strlen(POD_LINK_PREFIX)) != 0)
		return 0;
	return json_object_set_new(c->links, link->name, json_integer(link->index)) < 0 ? -ENOMEM
											: 0;
}

static int collect_links(struct collection *c, struct err *err)
{
	struct err later = ERR_INIT;
	const json_t *valid;
	const char *name;
	json_t *index;
	int first = 0;

	if (link_foreach(c->nl, 0, note_link, c, err) < 0)
		return CNI_KERNEL_REFUSED;
	valid = gc_settle_links(c, err);
	if (!valid)
		return CNI_IO_FAILURE;
	json_object_foreach (c->links, name, index) {
		int r = json_object_get(valid, name)
				? 0
				: pod_link_remove(c->nl, name, (unsigned)json_integer_value(index),
						  first ? &later : err);

		if (r < 0 && r != -ENODEV && !first)
			first = CNI_KERNEL_REFUSED;
	}
	return first;
}

static int collect_masquerade(struct collection *c, struct err *err)
{
	return c->req->conf.ip_masq ? masq_collect(&c->req->conf, c, err) : 0;
}

static int collect_guards(struct collection *c, struct err *err)
{
	return c->req->conf.mac_spoof_check ? spoof_collect(&c->req->conf, c, err) : 0;
}

typedef int step_fn(struct collection *c, struct err *err);

int verb_gc(const struct request *req, struct err *err)
{
	/* An address goes last: nobody may get it while a link answers for it. */
	static step_fn *const steps[] = {
		collect_links,
		collect_masquerade,
		collect_guards,
		collect_addresses,
	};
	auto_(json_decref) json_t *valid = json_object();
	auto_(json_decref) json_t *valid_links = json_object();
	auto_(json_decref) json_t *stale = json_object();
	auto_(json_decref) json_t *links = json_object();
	auto_(netlink_close) struct netlink *nl = NULL;
	struct collection c = { req, NULL, valid, valid_links, stale, links };
	struct err later = ERR_INIT;
	int first;

	if (!valid || !valid_links || !stale || !links)
		return err_set(err, CNI_IO_FAILURE, "out of memory");
	first = note_all_valid(&c, err);
	if (first)
		return first;
	if (netlink_open(&nl, err) < 0)
		return CNI_KERNEL_REFUSED;
	c.nl = nl;
	for (size_t i = 0; i < countof(steps); i++) {
		int r = steps[i](&c, first ? &later : err);

		first = first ? first : r;
	}
	return first;
}
