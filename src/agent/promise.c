/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "promise.h"

#include <string.h>

#include "poplin/base/log.h"

void promise_recall(struct promise *p, const char *dir, const char *node,
		    const struct network *network)
{
	char boot[NODESTATE_BOOT_MAX];
	struct nodestate state;
	uint32_t index;

	p->dir = dir;
	p->problem[0] = '\0';
	nodestate_this_boot(boot);
	if (nodestate_read(dir, &state, NULL) < 0 || strcmp(state.node, node) != 0 ||
	    !network_index(network, &state.subnet, &index))
		state = (struct nodestate){ .subnet.addr.family = AF_UNSPEC, .fence = true };
	else if (strcmp(state.boot, boot) != 0)
		state.lease_deadline_ns = 0;
	strlcpy(state.node, node, sizeof(state.node));
	strlcpy(state.boot, boot, sizeof(state.boot));
	p->said = state;
}

/*
 * A full disk takes no lesser promise, but it gives up the one that stands; without the file the
 * plugin gives out nothing.
 */
static int withdraw(struct promise *p, const struct err *why, struct err *err)
{
	int r = nodestate_remove(p->dir, err);

	if (r < 0)
		return err_wrap(err, r, "%s, and", why->text);
	log_error("cannot publish the lease to the CNI plugin, the file was removed" KV("error",
											"%s"),
		  why->text);
	p->said.lease_deadline_ns = 0;
	return 0;
}

int promise_say(struct promise *p, const struct prefix *subnet, int64_t deadline_ns, bool drained,
		struct err *err)
{
	struct nodestate state = p->said;
	struct err why = ERR_INIT;
	int r;

	if (subnet->addr.family == AF_UNSPEC)
		return 0; /* there is nothing to say anything of */
	state.subnet = *subnet;
	state.lease_deadline_ns = deadline_ns;
	state.drained = drained;
	r = nodestate_write(p->dir, &state, &why);
	if (r == 0)
		p->said = state;
	else if (deadline_ns < p->said.lease_deadline_ns)
		r = withdraw(p, &why, err);
	else
		err_set(err, r, "%s", why.text);
	return r;
}

void promise_try(struct promise *p, const struct prefix *subnet, int64_t deadline_ns, bool drained)
{
	struct err err = ERR_INIT;
	int r = promise_say(p, subnet, deadline_ns, drained, &err);

	strlcpy(p->problem, r < 0 ? err.text : "", sizeof(p->problem));
	if (r < 0)
		log_error("cannot publish the lease to the CNI plugin" KV("error", "%s"), err.text);
}

void promise_set_fence(struct promise *p, bool fence)
{
	if (p->said.fence == fence)
		return;
	p->said.fence = fence;
	promise_try(p, &p->said.subnet, p->said.lease_deadline_ns, p->said.drained);
}
