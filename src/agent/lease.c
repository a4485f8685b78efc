/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. The thread is in one of two states:
 *
 *	claiming   store_claim(), again and again with backoff. It attaches to a record of ours that
 *		   is still alive, so a restarted agent keeps its lease and nobody sees a change.
 *	held	   store_renew() at a third of the TTL with jitter; after a failure sooner, but
 *		   never so often that a store in trouble gets more of it.
 *
 * A renewal that is answered "no such lease", a change of what the record or the lease should be,
 * and a record that vanished under a living lease all lead back to claiming: store_claim() compares
 * with what stands in the store and does what is missing, so there is one way to every end.
 *
 * The subnet held last is asked for alone at first: pods have addresses of it. Only when another
 * node owns it by now do we take what is free; the pods of the lost subnet are cut off then, which
 * nothing can avoid, and the log says so.
 *
 * A lease counts from before its renewal was sent, by the boot clock, which runs on in a suspended
 * machine: the store cannot have let it run out earlier than that.
 */
#include "lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"
#include "poplin/model/nodestate.h"

#define CLAIM_BACKOFF_MIN_NS (NS_PER_S / 2)
#define CLAIM_BACKOFF_MAX_NS (30 * NS_PER_S)
#define RENEW_BACKOFF_MIN_NS NS_PER_S

struct lease {
	struct thread thread;
	struct store *store; /* of the thread; cancelled and given endpoints from others */
	char node[NODE_NAME_TEXT_MAX];
	char *state_dir;
	struct network network;
	void (*on_change)(void *arg);
	void *arg;

	/* Of the thread alone. */
	struct store_claim claim;
	bool claimed;	/* claim is what the store has, as far as we know */
	bool claim_due; /* a claim is to be made, or was tried and failed */
	bool ever;	/* claim.subnet is set */
	unsigned failures;

	struct mutex lock;
	struct cond wake;
	/* Under lock: what the others asked for... */
	bool stop;
	bool reclaim; /* go through store_claim() again */
	bool retry;   /* do not wait for the backoff to end */
	int64_t ttl_s;
	struct record record;
	/* ... and what they may read. */
	struct lease_status status;
};

/* -- what others read ------------------------------------------------------- */

static int64_t deadline_of(const struct store_claim *claim)
{
	return claim->sent_boot_ns + claim->ttl_s * NS_PER_S;
}

void lease_get(struct lease *l, struct lease_status *ret)
{
	mutex_hold(&l->lock);
	*ret = l->status;
	ret->held = ret->held && clock_boot_ns() < ret->deadline_boot_ns;
}

static void publish_failure(struct lease *l, const struct err *err)
{
	mutex_hold(&l->lock);
	l->status.held = l->claimed;
	strlcpy(l->status.problem, err->text, sizeof(l->status.problem));
	strlcpy(l->status.endpoint, store_endpoint(l->store), sizeof(l->status.endpoint));
}

/* True when subnet or held changed. */
static bool publish_claim(struct lease *l)
{
	mutex_hold(&l->lock);
	bool changed = !l->status.held || prefix_cmp(&l->status.subnet, &l->claim.subnet) != 0;

	l->status.held = true;
	l->status.subnet = l->claim.subnet;
	l->status.ttl_s = l->claim.ttl_s;
	l->status.deadline_boot_ns = deadline_of(&l->claim);
	l->status.problem[0] = '\0';
	strlcpy(l->status.endpoint, store_endpoint(l->store), sizeof(l->status.endpoint));
	return changed;
}

/* The plugin's copy. When it cannot be written the plugin stops in time by itself. */
static void write_state(struct lease *l)
{
	struct nodestate state = { .subnet = l->claim.subnet,
				   .lease_deadline_ns = l->claimed ? deadline_of(&l->claim) : 0 };
	struct err err = ERR_INIT;

	strlcpy(state.node, l->node, sizeof(state.node));
	if (nodestate_write(l->state_dir, &state, &err) < 0)
		log_error("cannot publish the lease to the CNI plugin" KV("error", "%s"), err.text);
}

static void held_now(struct lease *l)
{
	l->claimed = l->ever = true;
	l->claim_due = false;
	l->failures = 0;
	write_state(l);
	if (publish_claim(l))
		l->on_change(l->arg);
}

/* -- the thread ------------------------------------------------------------- */

static void log_claim(const struct store_claim *claim, const char *text)
{
	char subnet[PREFIX_TEXT_MAX];

	prefix_format(&claim->subnet, subnet);
	log_info("%s" KV("subnet", "%s") KV("ttl_s", "%" PRId64), text, subnet, claim->ttl_s);
}

static void log_lost(const struct prefix *subnet)
{
	char text[PREFIX_TEXT_MAX];

	log_error(
		"another node holds the subnet that was ours; pods with addresses of it are cut off "
		"and must be started anew" KV("subnet", "%s"),
		prefix_format(subnet, text));
}

/* The subnet that this node had before it was restarted, if it is still known. */
static bool remembered_subnet(struct lease *l, struct prefix *ret)
{
	struct nodestate state;
	uint32_t index;

	if (l->ever) {
		*ret = l->claim.subnet;
		return true;
	}
	if (nodestate_read(l->state_dir, &state, NULL) < 0 ||
	    !network_index(&l->network, &state.subnet, &index) || strcmp(state.node, l->node) != 0)
		return false;
	*ret = state.subnet;
	return true;
}

/* Takes what was asked for since the last round. */
static struct store_claim_request take_request(struct lease *l, struct record *record)
{
	mutex_hold(&l->lock);
	l->reclaim = l->retry = false;
	*record = l->record;
	return (struct store_claim_request){
		.node = l->node,
		.network = &l->network,
		.record = record,
		.ttl_s = l->ttl_s,
	};
}

static int claim(struct lease *l, struct err *err)
{
	struct record record;
	struct store_claim_request req = take_request(l, &record);
	struct store_claim claimed;
	struct prefix preferred;
	bool had = l->claimed;
	int r;

	l->claim_due = true;
	if (remembered_subnet(l, &preferred))
		req.preferred = &preferred;
	r = store_claim(l->store, &req, req.preferred != NULL, &claimed, err);
	if (r == -EADDRINUSE && req.preferred) {
		log_lost(req.preferred);
		req.preferred = NULL;
		r = store_claim(l->store, &req, false, &claimed, err);
	}
	if (r == -ECANCELED)
		return r;
	metric_inc_label(METRIC_LEASE_CLAIMS, (unsigned)(r < 0 ? METRIC_ERROR : METRIC_OK));
	if (r < 0)
		return r;
	l->claim = claimed;
	held_now(l);
	log_claim(&claimed, had ? "claim brought up to date" : "subnet claimed");
	return 0;
}

static int renew(struct lease *l, struct err *err)
{
	int r = store_renew(l->store, &l->claim, err);

	if (r == -ECANCELED)
		return r;
	if (r == -ENOENT) {
		metric_inc_label(METRIC_LEASE_RENEWALS, METRIC_LOST);
		log_warn("the lease is gone, claiming again");
		/* It may have been revoked before its time: give out nothing from now on. */
		l->claimed = false;
		write_state(l);
		return claim(l, err);
	}
	metric_inc_label(METRIC_LEASE_RENEWALS, (unsigned)(r < 0 ? METRIC_ERROR : METRIC_OK));
	if (r < 0)
		return r;
	held_now(l);
	return 0;
}

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
	if (l->failures)
		return now + backoff_ns(l->failures, CLAIM_BACKOFF_MIN_NS, CLAIM_BACKOFF_MAX_NS);
	return now + jitter_ns(l->claim.ttl_s * NS_PER_S / 3, 10);
}

/* Waits for the next round. False: stop. *ret_claim: it is to be a claim. */
static bool wait_round(struct lease *l, int64_t until_ns, bool *ret_claim)
{
	mutex_hold(&l->lock);
	while (!l->stop && !l->reclaim && !l->retry)
		if (!cond_wait_until(&l->wake, &l->lock, until_ns))
			break;
	*ret_claim = l->reclaim || l->claim_due || !l->claimed;
	l->retry = false;
	return !l->stop;
}

static void *run(void *arg)
{
	struct lease *l = arg;
	bool claiming = true;

	do {
		struct err err = ERR_INIT;
		int r = claiming ? claim(l, &err) : renew(l, &err);

		if (r == -ECANCELED) {
			store_rearm(l->store); /* a stop is seen below; new endpoints: go on */
			l->failures = 0;
		} else if (r < 0) {
			l->failures++;
			publish_failure(l, &err);
			log_warn("%s" KV("tries", "%u") KV("error", "%s"),
				 l->claimed ? "cannot renew the lease" : "cannot claim a subnet",
				 l->failures, err.text);
		}
	} while (wait_round(l, next_round_ns(l), &claiming));
	return NULL;
}

/* -- what others ask for ---------------------------------------------------- */

void lease_set_ttl(struct lease *l, int64_t ttl_s)
{
	mutex_hold(&l->lock);
	l->ttl_s = ttl_s;
	l->reclaim = true;
	cond_signal(&l->wake);
}

void lease_set_address(struct lease *l, const struct addr *address)
{
	mutex_hold(&l->lock);
	l->record.address = *address;
	l->reclaim = true;
	cond_signal(&l->wake);
}

void lease_check(struct lease *l, const struct store_change *change)
{
	struct record now;
	bool ours;

	mutex_hold(&l->lock);
	ours = change->value && record_parse(change->value, change->len, &now, NULL) == 0 &&
	       strcmp(now.machine, l->record.machine) == 0 &&
	       addr_cmp(&now.address, &l->record.address) == 0;
	if (ours)
		return;
	l->reclaim = true;
	cond_signal(&l->wake);
}

int lease_set_access(struct lease *l, const struct store_access *access, struct err *err)
{
	int r = store_set_access(l->store, access, err);

	if (r < 0)
		return r;
	mutex_hold(&l->lock);
	l->retry = true;
	cond_signal(&l->wake);
	return 0;
}

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
	l->on_change = config->on_change;
	l->arg = config->arg;
	l->state_dir = strdup(config->state_dir);
	r = l->state_dir ? 0 : err_errno(err, -ENOMEM, "lease");
	if (r == 0)
		r = store_open(&l->store, &config->store, err);
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
