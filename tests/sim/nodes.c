/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each thread owns a part of the nodes and a connection. A node (or a group of nodes that share a
 * lease) stands in one of two queues of its thread: `wanted`, where something is to be done with it
 * now, or `timed`, where it waits for its next renewal; those have one period, so the queue is
 * in order of time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/sys/queue.h>
#include <stdatomic.h>

#include "poplin/base/clock.h"
#include "sim.h"
#include "store/etcd.h"

#define PUTS_PER_TXN 120 /* etcd's own limit is 128 operations */
#define RETRY_NS     NS_PER_S

enum wish { RENEW, CLAIM, CHANGE, LEAVE };

struct group {
	TAILQ_ENTRY(group) link;
	unsigned first, count; /* nodes */
	unsigned changes;      /* of addresses: of the first node, the second, ... and again */
	enum wish wish;
	bool waiting; /* in `timed`, under the player's lock */
	struct store_claim claim;
	int64_t due_ns;
};
TAILQ_HEAD(group_queue, group);

struct player {
	struct thread thread;
	struct nodes *nodes;
	struct store *store;
	struct mutex lock;
	struct cond wake;
	struct group_queue wanted, timed; /* under lock */
};

struct nodes {
	const struct sim *sim;
	struct player *players;
	struct group **groups; /* all there ever were; of the thread that gives commands */
	unsigned ngroups, next_node, next_group;
	atomic_bool stop;
	atomic_uint pending, living;
	atomic_ullong renewals, failures;
};

/* -- etcd --------------------------------------------------------------------- */

static json_t *put_op(const char *key, const char *value, uint64_t lease)
{
	return json_pack("{s{so so so}}", "request_put", "key", etcd_string(key), "value",
			 etcd_string(value), "lease", etcd_number((int64_t)lease));
}

static void node_of(const struct player *p, const struct group *g, unsigned number, char *name,
		    struct record *record)
{
	unsigned changes = g->changes / g->count + (number - g->first < g->changes % g->count);

	sim_node(p->nodes->sim, number, name, record);
	if (changes % 2)
		record->address = addr_add(&record->address, SIM_CHANGED);
}

/* The record's key and that of its subnet, as a claim makes them. */
static int add_puts(const struct player *p, const struct group *g, unsigned number, json_t *ops,
		    struct err *err)
{
	char name[NODE_NAME_TEXT_MAX], key[ETCD_KEY_MAX], value[RECORD_BYTES_MAX];
	char folder[ETCD_KEY_MAX], text[ADDR_TEXT_MAX];
	const struct network *network = &p->nodes->sim->network;
	struct record record;
	int r;

	node_of(p, g, number, name, &record);
	/* From the end, as claims begin at the other one. */
	record.subnets[0] = network_subnet(network, network_subnets(network) - 1 - number);
	record.nsubnets = 1;
	r = record_format(&record, value, sizeof(value), err);
	if (r == 0)
		r = etcd_records_folder(p->store, folder, err);
	if (r < 0)
		return r;
	snprintf(key, sizeof(key), "%.700s%s", folder, name);
	r = json_array_append_new(ops, put_op(key, value, g->claim.lease));
	if (r == 0)
		r = etcd_subnets_folder(p->store, folder, err);
	if (r < 0)
		return r;
	snprintf(key, sizeof(key), "%.700s%s-%u", folder,
		 addr_format(&record.subnets[0].addr, text), (unsigned)record.subnets[0].len);
	return json_array_append_new(ops, put_op(key, name, g->claim.lease));
}

static int put_nodes(struct player *p, const struct group *g, unsigned first, unsigned count,
		     struct err *err)
{
	for (unsigned done = 0; done < count;) {
		auto_(json_decref) json_t *ops = json_array();
		auto_(json_decref) json_t *body = NULL;
		auto_(json_decref) json_t *answer = NULL;
		int r = ops ? 0 : err_errno(err, -ENOMEM, "simulator");

		for (unsigned n = 0; r == 0 && n < PUTS_PER_TXN / 2 && done < count; n++)
			r = add_puts(p, g, first + done++, ops, err);
		if (r < 0)
			return r;
		body = json_pack("{sO}", "success", ops);
		if (!body)
			return err_errno(err, -ENOMEM, "simulator");
		r = etcd_call(p->store, STORE_TXN, "/v3/kv/txn", body, &answer, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The very claim of the agent. */
static int claim_one(struct player *p, struct group *g, struct err *err)
{
	char name[NODE_NAME_TEXT_MAX];
	struct record record;
	const struct store_claim_request req = {
		.node = name,
		.network = &p->nodes->sim->network,
		.record = &record,
		.ttl_s = p->nodes->sim->ttl_s,
	};

	node_of(p, g, g->first, name, &record);
	return store_claim(p->store, &req, false, &g->claim, err);
}

static int claim(struct player *p, struct group *g, struct err *err)
{
	int r;

	if (p->nodes->sim->share == 1)
		return claim_one(p, g, err);
	r = etcd_grant(p->store, p->nodes->sim->ttl_s, &g->claim, err);
	return r < 0 ? r : put_nodes(p, g, g->first, g->count, err);
}

/* Of a group one node changes, as if it were alone. */
static int change(struct player *p, struct group *g, struct err *err)
{
	if (p->nodes->sim->share == 1)
		return claim_one(p, g, err);
	return put_nodes(p, g, g->first + (g->changes - 1) % g->count, 1, err);
}

/* -- the threads ----------------------------------------------------------------- */

static int play(struct player *p, struct group *g, struct err *err)
{
	switch (g->wish) {
	case RENEW:
		p->nodes->renewals++;
		return store_renew(p->store, &g->claim, err);
	case CLAIM:
		return claim(p, g, err);
	case CHANGE:
		return change(p, g, err);
	case LEAVE:
		return etcd_revoke(p->store, g->claim.lease, err);
	}
	return 0;
}

/* The group to work on, or NULL at the end. */
static struct group *next_group(struct player *p)
{
	struct group *g;

	mutex_hold(&p->lock);
	while (!p->nodes->stop) {
		g = TAILQ_FIRST(&p->wanted);
		if (g) {
			TAILQ_REMOVE(&p->wanted, g, link);
			return g;
		}
		g = TAILQ_FIRST(&p->timed);
		if (g && g->due_ns <= clock_ns()) {
			TAILQ_REMOVE(&p->timed, g, link);
			g->waiting = false;
			return g;
		}
		(void)cond_wait_until(&p->wake, &p->lock, g ? g->due_ns : clock_ns() + NS_PER_S);
	}
	return NULL;
}

/* What comes next for a group that was worked on, with this result. */
static void put_back(struct player *p, struct group *g, int result)
{
	struct nodes *n = p->nodes;

	mutex_hold(&p->lock);
	if (result == 0 && g->wish == CLAIM)
		n->living += g->count;
	if (result == 0 && g->wish != RENEW)
		n->pending--;
	if (result == 0 && g->wish == LEAVE)
		return; /* it rests, and nodes_stop() frees it */
	if (result == -ENOENT && g->wish == RENEW) {
		/* Its lease ran out while etcd was away. */
		n->living -= g->count;
		n->pending++;
		g->wish = CLAIM;
	} else if (result == 0) {
		g->wish = RENEW;
	}
	g->waiting = true;
	if (result == 0) {
		g->due_ns = clock_ns() + n->sim->ttl_s * NS_PER_S / 3;
		TAILQ_INSERT_TAIL(&p->timed, g, link);
	} else {
		g->due_ns = clock_ns() + RETRY_NS;
		TAILQ_INSERT_HEAD(&p->timed, g, link);
	}
}

static void *run(void *arg)
{
	struct player *p = arg;
	struct group *g;

	while ((g = next_group(p))) {
		struct err err = ERR_INIT;
		int r = play(p, g, &err);

		if (r < 0 && !p->nodes->stop) {
			p->nodes->failures++;
			sim_complain("node", &err);
		}
		put_back(p, g, r);
	}
	return NULL;
}

/* -- commands --------------------------------------------------------------------- */

static struct player *player_of(const struct nodes *n, unsigned group)
{
	return &n->players[group % n->sim->threads];
}

static void want_locked(struct player *p, struct group *g, enum wish wish)
{
	p->nodes->pending++;
	g->wish = wish;
	TAILQ_INSERT_TAIL(&p->wanted, g, link);
	cond_signal(&p->wake);
}

int nodes_join(struct nodes *n, unsigned count, struct err *err)
{
	unsigned end = n->next_node + count;

	while (n->next_node < end) {
		struct player *p = player_of(n, n->ngroups);
		struct group *g = calloc(1, sizeof(*g)), **groups;

		groups = realloc(n->groups, (n->ngroups + 1) * sizeof(struct group *));
		if (groups)
			n->groups = groups;
		if (!g || !groups) {
			free(g);
			return err_errno(err, -ENOMEM, "simulator");
		}
		g->first = n->next_node;
		g->count = end - g->first < n->sim->share ? end - g->first : n->sim->share;
		n->next_node += g->count;
		n->groups[n->ngroups++] = g;
		mutex_hold(&p->lock);
		want_locked(p, g, CLAIM);
	}
	return 0;
}

/* Takes a group out of its queue if it is at rest there. */
static bool take_locked(struct player *p, struct group *g)
{
	if (!g->waiting || g->wish != RENEW)
		return false;
	TAILQ_REMOVE(&p->timed, g, link);
	g->waiting = false;
	return true;
}

/* The next groups in turn, until `count` nodes are met. A group changes a node at a time. */
static unsigned for_some(struct nodes *n, unsigned count,
			 unsigned (*act)(struct player *p, struct group *g))
{
	unsigned met = 0;

	for (unsigned tries = 0; met < count && tries < n->ngroups; tries++) {
		unsigned i = n->next_group++ % n->ngroups;
		struct player *p = player_of(n, i);

		mutex_hold(&p->lock);
		if (take_locked(p, n->groups[i]))
			met += act(p, n->groups[i]);
	}
	return met;
}

static unsigned change_locked(struct player *p, struct group *g)
{
	g->changes++;
	want_locked(p, g, CHANGE);
	return 1;
}

static unsigned die_locked(struct player *p, struct group *g)
{
	p->nodes->living -= g->count;
	return g->count;
}

static unsigned leave_locked(struct player *p, struct group *g)
{
	want_locked(p, g, LEAVE);
	return die_locked(p, g);
}

unsigned nodes_change(struct nodes *n, unsigned count)
{
	unsigned met = 0, more = 1;

	/* Groups are few: they come again and again. */
	while (met < count && more) {
		more = for_some(n, count - met, change_locked);
		met += more;
		nodes_wait(n);
	}
	return met;
}

unsigned nodes_die(struct nodes *n, unsigned count)
{
	return for_some(n, count, die_locked);
}

unsigned nodes_leave(struct nodes *n, unsigned count)
{
	return for_some(n, count, leave_locked);
}

void nodes_wait(struct nodes *n)
{
	const struct timespec moment = { .tv_nsec = NS_PER_MS };

	while (n->pending && !n->stop)
		(void)nanosleep(&moment, NULL);
}

void nodes_count(struct nodes *n, struct nodes_count *ret)
{
	*ret = (struct nodes_count){
		.living = n->living,
		.renewals = n->renewals,
		.failures = n->failures,
	};
}

int nodes_start(struct nodes **ret, const struct sim *sim, struct err *err)
{
	struct nodes *n = calloc(1, sizeof(*n));
	int r = 0;

	if (n)
		n->players = calloc(sim->threads, sizeof(*n->players));
	if (!n || !n->players) {
		free(n);
		return err_errno(err, -ENOMEM, "simulator");
	}
	n->sim = sim;
	for (unsigned i = 0; i < sim->threads; i++) {
		struct player *p = &n->players[i];

		p->nodes = n;
		mutex_init(&p->lock, LOCK_AGENT);
		cond_init(&p->wake);
		TAILQ_INIT(&p->wanted);
		TAILQ_INIT(&p->timed);
		if (r == 0)
			r = store_open(&p->store, &sim->store, err);
		if (r == 0)
			r = thread_start(&p->thread, "player", run, p);
	}
	if (r < 0) {
		nodes_stop(n);
		return r;
	}
	*ret = n;
	return 0;
}

void nodes_stop(struct nodes *n)
{
	n->stop = true;
	for (unsigned i = 0; i < n->sim->threads; i++) {
		struct player *p = &n->players[i];

		if (p->store)
			store_cancel(p->store);
		mutex_lock(&p->lock);
		cond_signal(&p->wake);
		mutex_unlock(&p->lock);
		thread_join(&p->thread);
		if (p->store)
			store_close(p->store);
		cond_done(&p->wake);
		mutex_done(&p->lock);
	}
	for (unsigned i = 0; i < n->ngroups; i++)
		free(n->groups[i]);
	free(n->groups);
	free(n->players);
	free(n);
}
