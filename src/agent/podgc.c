/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "podgc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/log.h"
#include "poplin/ipam/ipam.h"
#include "poplin/model/pod.h"
#include "poplin/nl/link.h"

/* An attachment without a link. */
struct podgc_entry {
	char container[IPAM_HOLDER_MAX], interface[IF_NAMESIZE];
	uint64_t number; /* of its file: another ADD is another file */
	int64_t since_ns;
	bool seen; /* at this look */
};

struct look {
	struct podgc *gc;
	struct netlink *nl;
	const char *dir;
	int64_t now_ns;
};

void podgc_done(struct podgc *gc)
{
	free(gc->entries);
	*gc = (struct podgc){ .next_ns = 0 };
}

/* Only a clear answer counts. */
static bool is_gone(const struct ipam_owner *owner, void *arg)
{
	char name[16];
	unsigned index;

	pod_link_name(owner->container, owner->interface, name);
	return link_index(arg, name, &index, NULL) == -ENODEV;
}

static struct podgc_entry *find(struct podgc *gc, const struct ipam_owner *owner, uint64_t number)
{
	for (size_t i = 0; i < gc->count; i++) {
		struct podgc_entry *e = &gc->entries[i];

		if (e->number == number && strcmp(e->container, owner->container) == 0 &&
		    strcmp(e->interface, owner->interface) == 0)
			return e;
	}
	return NULL;
}

static struct podgc_entry *append(struct podgc *gc)
{
	if (gc->count == gc->size) {
		size_t size = gc->size ? gc->size * 2 : 16;
		struct podgc_entry *entries = reallocarray(gc->entries, size, sizeof(*entries));

		if (!entries)
			return NULL;
		gc->entries = entries;
		gc->size = size;
	}
	return &gc->entries[gc->count++];
}

static int note(const struct addr *addr, const char *container, const char *interface, void *arg)
{
	const struct ipam_owner owner = { .container = container, .interface = interface };
	struct look *look = arg;
	struct podgc_entry *e;
	uint64_t number;

	if (!is_gone(&owner, look->nl) || !ipam_attachment(look->dir, &owner, &number))
		return 0;
	e = find(look->gc, &owner, number);
	if (!e) {
		e = append(look->gc);
		if (!e)
			return -ENOMEM;
		*e = (struct podgc_entry){ .number = number, .since_ns = look->now_ns };
		strlcpy(e->container, container, sizeof(e->container));
		strlcpy(e->interface, interface, sizeof(e->interface));
	}
	e->seen = true;
	return 0;
}

/* True: there is nothing more to be done about it. */
static bool settle(const struct look *look, const struct podgc_entry *e, int *released)
{
	const struct ipam_owner owner = { .container = e->container, .interface = e->interface };
	struct err err = ERR_INIT;
	int r;

	if (!e->seen)
		return true;
	if (look->now_ns - e->since_ns < PODGC_GRACE_NS)
		return false;
	r = ipam_collect(look->dir, &owner, e->number, is_gone, look->nl, &err);
	if (r < 0)
		log_limited(LOG_WARN,
			    "a gone pod's address cannot be released, ignoring" KV(
				    "container", "%s") KV("error", "%s"),
			    e->container, err.text);
	else if (r > 0)
		log_info("address of a pod that is gone released" KV("container", "%s")
				 KV("interface", "%s"),
			 e->container, e->interface);
	*released += r > 0;
	return true;
}

int podgc_look(struct podgc *gc, struct netlink *nl, const char *dir, int64_t now_ns,
	       struct err *err)
{
	struct look look = { gc, nl, dir, now_ns };
	int released = 0, r;
	size_t kept = 0;

	if (now_ns < gc->next_ns)
		return 0;
	gc->next_ns = now_ns + PODGC_INTERVAL_NS;
	for (size_t i = 0; i < gc->count; i++)
		gc->entries[i].seen = false;
	r = ipam_foreach_attachment(dir, note, &look, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < gc->count; i++)
		if (!settle(&look, &gc->entries[i], &released))
			gc->entries[kept++] = gc->entries[i];
	gc->count = kept;
	return released;
}
