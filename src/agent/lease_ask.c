/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What other threads ask of the lease thread, and what it lets them read. */
#include <errno.h>
#include <string.h>

#include "lease_private.h"
#include "poplin/base/clock.h"

/* -- what they ask ---------------------------------------------------------- */

void lease_get(struct lease *l, struct lease_status *ret)
{
	mutex_hold(&l->lock);
	*ret = l->status;
	ret->held = ret->held && clock_boot_ns() < ret->deadline_boot_ns;
}

static void ask_locked(struct lease *l)
{
	l->asked = true;
	cond_signal(&l->wake);
}

static void see_locked(struct lease *l)
{
	l->seen = true;
	cond_signal(&l->wake);
}

void lease_set_ttl(struct lease *l, int64_t ttl_s)
{
	mutex_hold(&l->lock);
	l->ttl_s = ttl_s;
	l->reclaim = true;
	ask_locked(l);
}

void lease_set_fence(struct lease *l, bool fence)
{
	mutex_hold(&l->lock);
	l->fence = fence;
	ask_locked(l);
}

void lease_set_address(struct lease *l, const struct addr *address)
{
	mutex_hold(&l->lock);
	l->record.address = *address;
	l->reclaim = true;
	ask_locked(l);
}

void lease_drain(struct lease *l, bool drain)
{
	mutex_lock(&l->lock);
	l->drain = drain;
	l->reclaim = !drain;
	if (drain)
		l->status.drain = LEASE_DRAINING;
	ask_locked(l);
	mutex_unlock(&l->lock);
	store_cancel(l->store); /* a request that runs may wait long for its answer */
}

void lease_check(struct lease *l, const struct store_change *change)
{
	mutex_hold(&l->lock);
	/* Before the first claim was answered nothing is known of it, nor promised. */
	if (!l->version || (change->value && change->version == l->version))
		return;
	l->verify = true;
	l->suspect = l->suspect || !change->value;
	see_locked(l);
}

void lease_verify(struct lease *l)
{
	mutex_hold(&l->lock);
	l->verify = l->suspect = true;
	see_locked(l);
}

int lease_set_access(struct lease *l, const struct store_access *access, struct err *err)
{
	int r = store_set_access(l->store, access, err);

	if (r < 0)
		return r;
	mutex_hold(&l->lock);
	ask_locked(l);
	return 0;
}

/* -- what they read, on the lease thread -------------------------------------- */

void lease_publish_admitted(void *arg)
{
	struct lease *l = arg;
	bool changed;

	mutex_lock(&l->lock);
	changed = !l->status.admitted;
	l->status.admitted = true;
	mutex_unlock(&l->lock);
	if (changed)
		l->on_change(l->arg);
}

void lease_publish_failure(struct lease *l, int r, const struct err *err)
{
	bool changed;

	mutex_lock(&l->lock);
	changed = !l->status.tried || l->status.held != l->claimed;
	l->status.tried = true;
	l->status.held = l->claimed;
	if ((r == -EEXIST || r == -EDOM) && !l->status.confirmed)
		l->status.refused = r;
	changed = changed || l->status.refused;
	strlcpy(l->status.problem, err->text, sizeof(l->status.problem));
	strlcpy(l->status.endpoint, store_endpoint(l->store), sizeof(l->status.endpoint));
	mutex_unlock(&l->lock);
	if (changed)
		l->on_change(l->arg);
}

void lease_publish_claim(struct lease *l, int64_t deadline_ns)
{
	bool changed;

	mutex_lock(&l->lock);
	changed = !l->status.held || !l->status.confirmed || l->status.drain == LEASE_DRAINED ||
		  prefix_cmp(&l->status.subnet, &l->claim.subnet) != 0;
	l->status.tried = l->status.held = l->status.confirmed = true;
	l->status.subnet = l->claim.subnet;
	l->status.ttl_s = l->claim.ttl_s;
	l->status.deadline_boot_ns = deadline_ns;
	l->status.problem[0] = '\0';
	if (l->status.drain != LEASE_KEPT)
		l->status.drain = LEASE_SERVES;
	strlcpy(l->status.endpoint, store_endpoint(l->store), sizeof(l->status.endpoint));
	l->version = l->claim.record_version;
	mutex_unlock(&l->lock);
	if (changed)
		l->on_change(l->arg);
}

void lease_publish_drain(struct lease *l, enum lease_drain drain, const struct err *err)
{
	mutex_lock(&l->lock);
	l->status.drain = drain;
	l->status.tried = true;
	l->status.held = l->claimed;
	if (drain == LEASE_DRAINED)
		l->status.subnet = (struct prefix){ .addr.family = AF_UNSPEC };
	if (drain == LEASE_KEPT) {
		l->drain = false;
		l->asked = true;
	}
	strlcpy(l->status.drain_problem, err->text, sizeof(l->status.drain_problem));
	mutex_unlock(&l->lock);
	l->on_change(l->arg);
}
