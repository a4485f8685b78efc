/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What other threads ask of the lease thread, and read. */
#include "poplin/base/clock.h"
#include "lease_private.h"

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
