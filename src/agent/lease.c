/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. The thread is in one of three states:
 *
 *	claiming   store_claim(), again and again with backoff. It attaches to a record of ours that
 *		   is still alive, so a restarted agent keeps its lease and nobody sees a change.
 *	held	   store_renew() at a third of the TTL with jitter; after a failure sooner, but
 *		   never so often that a store in trouble gets more of it.
 *	drained	   nothing, until the administrator wants the node back.
 *
 * A renewal tells that the lease lives, not that our keys hang on it (etcd has been seen to renew a
 * lease that was revoked). So the keys are read back after some renewals, and whenever the watcher
 * saw our record change or another record name our subnet. Whatever is found wrong leads back to
 * claiming: store_claim() compares with what stands in the store and does what is missing, so there
 * is one way to every end.
 *
 * The subnet held last is asked for alone at first: pods have addresses of it. Only when another
 * node owns it by now do we take what is free, for new pods. The old ones stay (reconcile.c), but
 * the other nodes send what is for them to the new owner.
 *
 * The fence. node.json promises until when the subnet is certainly ours: the TTL, counted from
 * before the grant or renewal was sent, by the boot clock, which runs on in a suspended machine. At
 * any moment at which this process may die the promise must be one that the store will keep:
 *
 *	renewed, not yet written	   an earlier deadline stands there: safe
 *	about to move to another lease	   before_lease() shortens the promise to what that one will
 *					   keep, before the keys are put under it
 *	keys not as they were put	   withdrawn before anything else is tried
 *
 * A hundredth of the TTL is taken off, as two machines' clocks may run at different speeds (the
 * kernel lets NTP change it by 0.05 %).
 */
#include "lease_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"

#define CLAIM_BACKOFF_MIN_NS (NS_PER_S / 2)
#define CLAIM_BACKOFF_MAX_NS (15 * NS_PER_S) /* half of ROUTE_GRACE: see watcher.c */
#define HURRY_NS	     (60 * NS_PER_S) /* claims that follow so soon are counted */
#define HURRIES_FREE	     3
#define RENEW_BACKOFF_MIN_NS NS_PER_S
#define RENEW_JITTER	     20 /* percent */
#define RENEWALS_PER_VERIFY  4

enum round { ROUND_CLAIM, ROUND_RENEW, ROUND_VERIFY, ROUND_DRAIN, ROUND_STOP };

static int64_t certain_ns(int64_t ttl_s)
{
	return ttl_s * (NS_PER_S / 100 * 99);
}

static int64_t deadline_of(const struct store_claim *claim)
{
	return claim->sent_boot_ns + certain_ns(claim->ttl_s);
}

/*
 * A put whose answer got lost may still be made while its lease lives, unless the keys changed since,
 * and later ones that failed changed nothing. So of all leases that were tried the one that ends first
 * bounds the promise, until the last of them is known to hold the keys, or has ended.
 */
static void note_tried(struct lease *l, const struct store_claim *claim)
{
	int64_t deadline = deadline_of(claim);

	l->tried_lease = claim->lease;
	if (clock_boot_ns() >= l->tried_until_ns || deadline < l->tried_ns)
		l->tried_ns = deadline;
	if (deadline > l->tried_until_ns)
		l->tried_until_ns = deadline;
}

static int64_t certain_until(const struct lease *l)
{
	int64_t deadline = deadline_of(&l->claim);

	return clock_boot_ns() < l->tried_until_ns && l->tried_ns < deadline ? l->tried_ns
									     : deadline;
}

/* -- the promise to the plugin ------------------------------------------------ */

static bool fence_wanted(struct lease *l)
{
	mutex_hold(&l->lock);
	return l->fence;
}

/* The claim may be gone, before its time even. */
static void doubt(struct lease *l)
{
	l->claimed = false;
	if (fence_wanted(l))
		promise_try(&l->promise, &l->claim.subnet, 0, l->promise.said.drained);
}

/* The subnet, or the node's name, is another's: no setting lets the plugin go on. */
static void lose(struct lease *l)
{
	l->claimed = false;
	if (l->promise.said.lease_deadline_ns)
		promise_try(&l->promise, &l->claim.subnet, 0, l->promise.said.drained);
}

/* A record of ours under another lease is put by a clone of this machine. */
static void remember(struct lease *l, uint64_t lease)
{
	for (size_t i = 0; i < LEASES_KEPT; i++)
		if (l->leases[i] == lease)
			return;
	if (l->claim.lease && l->leases[l->next_lease % LEASES_KEPT] == l->claim.lease)
		l->next_lease++;
	l->leases[l->next_lease++ % LEASES_KEPT] = lease;
}

static int before_lease(const struct store_claim *claim, void *arg, struct err *err)
{
	struct lease *l = arg;
	const struct nodestate *said = &l->promise.said;
	int64_t deadline = deadline_of(claim);

	remember(l, claim->lease);
	note_tried(l, claim);
	if (prefix_cmp(&claim->subnet, &said->subnet) != 0)
		deadline = 0; /* what stands there is about another subnet */
	if (said->lease_deadline_ns <= deadline)
		return 0;
	return promise_say(&l->promise, &said->subnet, deadline, said->drained, err);
}

/* What an earlier process of this boot promised holds until it ends. */
static void recall(struct lease *l, const struct prefix *otherwise)
{
	const struct nodestate *said = &l->promise.said;
	uint32_t index;

	promise_recall(&l->promise, l->state_dir, l->node, &l->network);
	if (said->subnet.addr.family != AF_UNSPEC)
		l->claim.subnet = said->subnet;
	else if (network_index(&l->network, otherwise, &index))
		l->claim.subnet = *otherwise;
	if (!said->lease_deadline_ns || nodestate_check(said, NULL) < 0)
		return;
	l->claimed = true;
	l->claim.ttl_s = l->ttl_s;
	l->claim.sent_boot_ns = said->lease_deadline_ns - certain_ns(l->ttl_s);
	l->status.held = true;
	l->status.subnet = said->subnet;
	l->status.ttl_s = l->ttl_s;
	l->status.deadline_boot_ns = said->lease_deadline_ns;
}

/* -- the rounds -------------------------------------------------------------- */

/* Shown is what the plugin goes by: the file may be older than the claim where it cannot be written. */
static void publish(struct lease *l)
{
	const struct nodestate *said = &l->promise.said;
	int64_t deadline = certain_until(l);

	promise_try(&l->promise, &l->claim.subnet, deadline, false);
	if (prefix_cmp(&said->subnet, &l->claim.subnet) != 0)
		deadline = 0;
	else if (said->lease_deadline_ns < deadline)
		deadline = said->lease_deadline_ns;
	lease_publish_claim(l, deadline);
	mutex_hold(&l->lock);
	strlcpy(l->status.problem, l->promise.problem, sizeof(l->status.problem));
}

static void held_now(struct lease *l)
{
	l->claimed = true;
	l->claim_due = l->lost = l->rivalled = false;
	l->failures = 0;
	publish(l);
}

static void note_loss(struct lease *l, const struct err *why)
{
	char text[PREFIX_TEXT_MAX];

	if (l->lost)
		return;
	l->lost = true;
	metric_inc(METRIC_LEASE_CONFLICTS);
	log_error("another node holds the subnet that was ours; its pods here live on, but the "
		  "other nodes cannot reach them: start them anew" KV("subnet", "%s")
			  KV("reason", "%s"),
		  prefix_format(&l->claim.subnet, text), why->text);
}

static void note_rival(struct lease *l, const struct err *why)
{
	if (l->rivalled || !l->claim.lease)
		return;
	l->rivalled = true;
	metric_inc(METRIC_LEASE_CONFLICTS);
	log_error(
		"another machine took the name of this node: no new pods here until it is gone" KV(
			"reason", "%s"),
		why->text);
}

static void take_suspicion_locked(struct lease *l)
{
	l->suspected = l->suspected || l->suspect;
	l->suspect = false;
}

/* Takes what was asked for since the last round. */
static struct store_claim_request take_request(struct lease *l, struct record *record)
{
	mutex_hold(&l->lock);
	l->reclaim = l->verify = false;
	take_suspicion_locked(l);
	*record = l->record;
	return (struct store_claim_request){
		.node = l->node,
		.network = &l->network,
		.record = record,
		.preferred = l->claim.subnet.addr.family != AF_UNSPEC ? &l->claim.subnet : NULL,
		.ttl_s = l->ttl_s,
		.leases = l->leases,
		.nleases = l->claim.lease ? LEASES_KEPT : 0,
		.on_lease = before_lease,
		.on_admitted = lease_publish_admitted,
		.arg = l,
	};
}

/* A claim failed, for what has nothing to do with the one that stands: that lease is to live on. */
static void keep_old(struct lease *l)
{
	struct err err = ERR_INIT;
	int r;

	if (l->suspected) {
		doubt(l);
		return;
	}
	if (!l->claim.lease)
		return; /* an earlier process' claim: it ends as promised */
	r = store_renew(l->store, &l->claim, &err);
	if (r != -ECANCELED)
		metric_inc_label(METRIC_LEASE_RENEWALS, (unsigned)(r == 0	  ? METRIC_OK
								   : r == -ENOENT ? METRIC_LOST
										  : METRIC_ERROR));
	if (r == 0)
		r = store_verify(l->store, l->node, &l->claim, &err);
	if (r == -ENOENT)
		doubt(l);
	if (r == 0)
		publish(l);
}

/* Whatever others do to our keys, again and again, we answer ever more slowly. */
static void calm_down(struct lease *l)
{
	int64_t now = clock_ns();

	l->hurries = now - l->claim_ns < HURRY_NS ? l->hurries + 1 : 0;
	l->claim_ns = l->calm_ns = now;
	if (l->hurries > HURRIES_FREE)
		l->calm_ns += backoff_ns(l->hurries - HURRIES_FREE, CLAIM_BACKOFF_MIN_NS,
					 CLAIM_BACKOFF_MAX_NS);
}

static int claim(struct lease *l, struct err *err)
{
	struct record record;
	struct store_claim_request req = take_request(l, &record);
	bool had = l->claimed && l->claim.record_version;
	char text[PREFIX_TEXT_MAX];
	struct store_claim claimed;
	int r;

	l->claim_due = true;
	r = store_claim(l->store, &req, req.preferred != NULL, &claimed, err);
	if (r == -EADDRINUSE && req.preferred) {
		lose(l);
		note_loss(l, err);
		req.preferred = NULL;
		r = store_claim(l->store, &req, false, &claimed, err);
	}
	if (r == -ECANCELED)
		return r;
	metric_inc_label(METRIC_LEASE_CLAIMS, (unsigned)(r < 0 ? METRIC_ERROR : METRIC_OK));
	if (r == -EEXIST) {
		lose(l);
		note_rival(l, err);
	}
	if (r < 0) {
		if (l->claimed)
			keep_old(l);
		return r;
	}
	if (claimed.lease == l->tried_lease)
		l->tried_until_ns = 0;
	l->claim = claimed;
	remember(l, claimed.lease);
	calm_down(l);
	l->suspected = false;
	held_now(l);
	log_info("%s" KV("subnet", "%s") KV("ttl_s", "%" PRId64),
		 had ? "claim brought up to date" : "subnet claimed",
		 prefix_format(&claimed.subnet, text), claimed.ttl_s);
	return 0;
}

static int verify(struct lease *l, struct err *err)
{
	int r;

	mutex_lock(&l->lock);
	l->verify = false;
	take_suspicion_locked(l);
	mutex_unlock(&l->lock);
	r = store_verify(l->store, l->node, &l->claim, err);
	if (r == -ENOENT) {
		log_warn(
			"the claim does not stand as it was put, claiming again" KV("reason", "%s"),
			err->text);
		doubt(l);
		if (clock_ns() < l->calm_ns)
			return err_wrap(err, -EAGAIN, "it was put anew %u times within a minute",
					l->hurries);
		return claim(l, err);
	}
	if (r == 0)
		l->suspected = false;
	if (r < 0 && r != -ECANCELED && l->suspected)
		doubt(l); /* what was seen tells against it, and nothing for it */
	if (r < 0)
		l->renewals = RENEWALS_PER_VERIFY - 1; /* so the next renewal looks again */
	return r;
}

static int renew(struct lease *l, struct err *err)
{
	int r = store_renew(l->store, &l->claim, err);

	if (r == -ECANCELED)
		return r;
	if (r == -ENOENT) {
		metric_inc_label(METRIC_LEASE_RENEWALS, METRIC_LOST);
		log_warn("the lease is gone, claiming again");
		doubt(l);
		return claim(l, err);
	}
	metric_inc_label(METRIC_LEASE_RENEWALS, (unsigned)(r < 0 ? METRIC_ERROR : METRIC_OK));
	if (r < 0)
		return r;
	held_now(l);
	if (++l->renewals < RENEWALS_PER_VERIFY)
		return 0;
	l->renewals = 0;
	return verify(l, err);
}

/*
 * Closed first, then counted: an ADD that takes an address later sees in the end that the node is
 * closed, and gives it back.
 */
static int drain(struct lease *l, struct err *err)
{
	struct prefix subnet = l->claim.subnet;
	char text[PREFIX_TEXT_MAX];
	int64_t deadline = l->promise.said.lease_deadline_ns;
	int r = promise_say(&l->promise, &subnet, deadline, true, err);

	if (r == 0)
		r = l->may_release(l->arg, err);
	if (r < 0) {
		log_error("the subnet is not given back" KV("reason", "%s"), err->text);
		promise_try(&l->promise, &l->claim.subnet, deadline, false);
		lease_publish_drain(l, LEASE_KEPT, err);
		return 0;
	}
	r = store_release(l->store, l->node, l->record.machine, &subnet, err);
	if (r == -ECANCELED)
		return r;
	if (r < 0 && r != -ENOENT && r != -EEXIST) {
		lease_publish_drain(l, LEASE_DRAINING, err);
		return r;
	}
	err->text[0] = '\0';
	l->claimed = false;
	l->failures = 0;
	promise_try(&l->promise, &l->claim.subnet, 0, true);
	log_info("drained, the subnet is given back" KV("subnet", "%s"),
		 prefix_format(&subnet, text));
	lease_publish_drain(l, LEASE_DRAINED, err);
	return 0;
}

/* -- the thread ------------------------------------------------------------- */

static int64_t next_round_ns(const struct lease *l)
{
	int64_t now = clock_ns();

	if (l->failures && l->claimed) {
		/* Several tries must fit into what is left of the lease, whatever its TTL. */
		int64_t max = l->claim.ttl_s * NS_PER_S / 6;

		return now + backoff_ns(l->failures,
					max < RENEW_BACKOFF_MIN_NS ? max : RENEW_BACKOFF_MIN_NS,
					max);
	}
	if (l->failures && now < l->calm_ns)
		return l->calm_ns;
	if (l->failures)
		return now + backoff_ns(l->failures, CLAIM_BACKOFF_MIN_NS, CLAIM_BACKOFF_MAX_NS);
	return now + jitter_ns(l->claim.ttl_s * NS_PER_S / 3, RENEW_JITTER);
}

static enum round choose_locked(const struct lease *l)
{
	if (l->stop)
		return ROUND_STOP;
	if (l->drain)
		return ROUND_DRAIN;
	if (l->reclaim || l->claim_due || !l->claimed)
		return ROUND_CLAIM;
	return l->verify ? ROUND_VERIFY : ROUND_RENEW;
}

static enum round wait_round(struct lease *l, int64_t until_ns)
{
	mutex_hold(&l->lock);
	for (;;) {
		bool idle = l->drain && l->status.drain == LEASE_DRAINED;
		/* Without a claim there is nothing to look at: the backoff goes on. */
		bool asked = l->asked || (l->seen && l->claimed);

		if (l->stop || (asked && !idle) ||
		    !cond_wait_until(&l->wake, &l->lock, idle ? INT64_MAX : until_ns))
			break;
	}
	l->asked = l->seen = false;
	return choose_locked(l);
}

static int do_round(struct lease *l, enum round round, struct err *err)
{
	switch (round) {
	case ROUND_CLAIM:
		return claim(l, err);
	case ROUND_RENEW:
		return renew(l, err);
	case ROUND_VERIFY:
		return verify(l, err);
	case ROUND_DRAIN:
		return drain(l, err);
	case ROUND_STOP:
		break;
	}
	return 0;
}

static void note_failure(struct lease *l, enum round round, int r, const struct err *err)
{
	l->failures++;
	lease_publish_failure(l, r, err);
	log_warn("%s" KV("tries", "%u") KV("error", "%s"),
		 round == ROUND_DRAIN ? "cannot give the subnet back"
		 : l->claimed	      ? "cannot renew the lease"
				      : "cannot claim a subnet",
		 l->failures, err->text);
}

static void *run(void *arg)
{
	struct lease *l = arg;
	int64_t until = clock_ns();
	enum round round;

	while ((round = wait_round(l, until)) != ROUND_STOP) {
		struct err err = ERR_INIT;
		int r;

		promise_set_fence(&l->promise, fence_wanted(l));
		r = do_round(l, round, &err);
		if (r < 0 && r != -ECANCELED)
			note_failure(l, round, r, &err);
		until = next_round_ns(l);
		if (r == -ECANCELED) {
			store_rearm(l->store); /* a stop is seen above; else go on at once */
			l->failures = 0;
			until = clock_ns();
		}
	}
	return NULL;
}

/* -- beginning and end ------------------------------------------------------ */

static void lease_free(struct lease *l)
{
	if (l->store)
		store_close(l->store);
	mutex_done(&l->lock);
	cond_done(&l->wake);
	free(l->state_dir);
	free(l);
}

int lease_start(struct lease **ret, const struct lease_config *config, struct err *err)
{
	struct lease *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_errno(err, -ENOMEM, "lease");
	mutex_init(&l->lock, LOCK_LEASE);
	cond_init(&l->wake);
	strlcpy(l->node, config->node, sizeof(l->node));
	l->network = config->network;
	l->record = config->record;
	l->ttl_s = config->ttl_s;
	l->fence = config->fence;
	l->drain = config->drain;
	l->status.drain = config->drain ? LEASE_DRAINING : LEASE_SERVES;
	l->claim_due = true;
	l->on_change = config->on_change;
	l->may_release = config->may_release;
	l->arg = config->arg;
	l->state_dir = strdup(config->state_dir);
	r = l->state_dir ? 0 : err_errno(err, -ENOMEM, "lease");
	if (r == 0)
		r = store_open(&l->store, &config->store, err);
	if (r == 0)
		recall(l, &config->remembered);
	if (r == 0) {
		r = thread_start(&l->thread, "lease", run, l);
		if (r < 0)
			err_errno(err, r, "start the lease thread");
	}
	if (r < 0) {
		lease_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void lease_stop(struct lease *l)
{
	mutex_lock(&l->lock);
	l->stop = true;
	cond_signal(&l->wake);
	mutex_unlock(&l->lock);
	store_cancel(l->store);
	thread_join(&l->thread);
	lease_free(l);
}
