/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/mem.h"
#include "poplin/ipam/ipam.h"
#include "poplin/model/pod.h"

#include "fib.h"
#include "metrics.h"
#include "peers.h"
#include "queue.h"
#include "status.h"
#include "status_json.h"

#define TYPE_JSON "application/json"

/* -- pods ------------------------------------------------------------------- */

/* One that runs while pods come and go sees some of them: the folder is read without a lock. */
static void foreach_pod(const struct status_source *s, ipam_fn *fn, void *arg)
{
	struct err err = ERR_INIT;
	int r = ipam_foreach(s->ipam_dir, fn, arg, &err);

	if (r < 0 && r != -ENOENT)
		log_limited(LOG_WARN, "cannot read the pods' addresses, ignoring" KV("error", "%s"),
			    err.text);
}

static int count_pod(const struct addr *addr, const char *container, const char *interface,
		     void *arg)
{
	uint64_t *count = arg;

	(*count)++;
	return 0;
}

struct pod {
	struct addr addr;
	char *container, *interface; /* owned */
};

struct pods {
	struct pod *pods;
	size_t count, size;
	bool failed; /* no memory */
};

static int add_pod(const struct addr *addr, const char *container, const char *interface, void *arg)
{
	struct pods *all = arg;
	struct pod pod = { .addr = *addr };

	if (all->count == all->size) {
		size_t size = all->size ? 2 * all->size : 64;
		struct pod *grown = reallocarray(all->pods, size, sizeof(*grown));

		if (!grown)
			goto failed;
		all->pods = grown;
		all->size = size;
	}
	pod.container = strdup(container);
	pod.interface = strdup(interface);
	if (!pod.container || !pod.interface) {
		free(pod.container);
		free(pod.interface);
		goto failed;
	}
	all->pods[all->count++] = pod;
	return 0;
failed:
	all->failed = true;
	return -ENOMEM;
}

static void pods_done(struct pods *all)
{
	for (size_t i = 0; i < all->count; i++) {
		free(all->pods[i].container);
		free(all->pods[i].interface);
	}
	free(all->pods);
}

static int compare_pods(const void *a, const void *b)
{
	return addr_cmp(&((const struct pod *)a)->addr, &((const struct pod *)b)->addr);
}

static int write_pods(struct buf *b, const struct pods *all)
{
	struct status_list list;
	int r = status_json_begin(&list, b, "pods");

	for (size_t i = 0; i < all->count && r == 0; i++) {
		const struct pod *pod = &all->pods[i];
		char link[16];

		pod_link_name(pod->container, pod->interface, link);
		r = status_json_pod(&list, &pod->addr, pod->container, pod->interface, link);
	}
	return r < 0 ? r : status_json_end(&list);
}

static int handle_pods(struct httpd_reply *reply, void *arg)
{
	struct pods all = { .pods = NULL };
	int r;

	foreach_pod(arg, add_pod, &all);
	if (all.count > 0)
		qsort(all.pods, all.count, sizeof(*all.pods), compare_pods);
	r = all.failed ? -ENOMEM : write_pods(&reply->body, &all);
	pods_done(&all);
	reply->type = TYPE_JSON;
	return r;
}
